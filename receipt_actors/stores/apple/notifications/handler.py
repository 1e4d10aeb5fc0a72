"""``NotificationHandler``: one POST of Apple's, from its bytes to the status that it is answered with.

A refund goes through four steps, in this order: mark the ledger, post ``INVALID``, record the notification, answer
200. Its reversal goes through the same: it takes the mark away, and posts ``OK``. Whatever fails before the last is
answered with 503, and Apple comes again with the same notification, which goes through all of them once more: marking
again changes nothing, posting again sends the same message again. So a process may die between any two of them, and two
may be at it at once.

Apple repeats whatever was not acknowledged, so a refund may come after its own reversal. A reversal is therefore
remembered before it is carried out, and a refund that it has overtaken is not: looked for before the mark, and once
more after it, for the other may be at work on another machine. Whichever of the two comes last takes the mark away. A
reversal that is older than the mark which it finds leaves that alone.

Status codes
    200 it was carried out, or there is nothing to do; 400 it is not what Apple sends; 403 Apple did not sign it, or
    for another app; 413 it is too large; 503 it could not be carried out now. To Apple all but the first mean: again
    (after 1, 12, 24, 48 and 72 hours). So a fault of ours, such as a root certificate or a bundle id that is missing
    in the settings, can be put right before anything is lost.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from enum import StrEnum
from http import HTTPStatus

from receipt_actors.domain.messages import refund_message, reversal_message
from receipt_actors.domain.policy import Policy
from receipt_actors.domain.ports import Ledger, LedgerItem, Notifications, OutgoingMessage, Queues, Tombstone
from receipt_actors.domain.reasons import Reason
from receipt_actors.errors import ConfigurationError, QueueRefused, UnavailableError
from receipt_actors.stores.apple.notifications.contents import (
    MAX_BODY_BYTES,
    ForeignApp,
    Nothing,
    Notification,
    Refund,
    RefundReversed,
    Unreadable,
    decide,
    read_body,
    read_notification,
)
from receipt_actors.stores.apple.ports import SignatureRefused, SignedData

logger = logging.getLogger(__name__)

NO_TYPE = "none"  #: under which is counted what has not been read so far


class Done(StrEnum):
    """What became of a POST."""

    POSTED = "posted"  #: the claim is marked as refunded, and ``INVALID`` was posted
    TOMBSTONE = "tombstone"  #: nobody had claimed the transaction; nobody can any more
    NOT_OURS = "not_ours"  #: marked, but the claim is another program's: nobody got an answer from us
    REVERSED = "reversed"  #: the mark was taken back, and ``OK`` was posted; or the tombstone was
    OVERTAKEN = "overtaken"  #: a refund that came after its reversal, or a reversal after a newer refund: nothing to do
    KNOWN = "known"  #: it had been carried out before
    NOTHING = "nothing"  #: there is nothing to do for it
    FOREIGN_APP = "foreign_app"  #: refused: of an app that is not in ``bundle_ids``
    REFUSED = "refused"  #: refused: Apple did not sign it
    UNREADABLE = "unreadable"  #: refused: not what Apple sends
    FAILED = "failed"  #: to come again


@dataclass(frozen=True, slots=True)
class HandlerAnswer:
    """What to answer a POST with."""

    status: int  #: of HTTP
    text: str  #: one short line, nothing of what was posted


@dataclass(frozen=True, slots=True)
class _Outcome:
    done: Done
    status: HTTPStatus
    detail: str
    level: int = logging.INFO  # of its log line


class NotificationHandler:
    """See the module. ``handle`` may be called from any number of threads at once.

    As a context manager it closes at the end what it was given to close.

    Args:
        signed_data: verifies signatures.
        notifications: which were dealt with.
        ledger: what is marked.
        queues: where answers are posted.
        policy: its ``bundle_ids`` and ``environments`` say whose notifications count.
        post_queues: the allow-list; a claim's queue that is not in it (any more) is never written to.
        now: UNIX time.
        close: called by ``close``.
    """

    def __init__(
        self,
        *,
        signed_data: SignedData,
        notifications: Notifications,
        ledger: Ledger,
        queues: Queues,
        policy: Policy,
        post_queues: Collection[str],
        now: Callable[[], float] = time.time,
        close: Callable[[], object] = lambda: None,
    ) -> None:
        self._signed_data = signed_data
        self._notifications = notifications
        self._ledger = ledger
        self._queues = queues
        self._policy = policy
        self._post_queues = frozenset(post_queues)
        self._now = now
        self._closing = ExitStack()
        self._closing.callback(close)
        self._lock = threading.Lock()  # over the counts
        self._counts: Counter[tuple[str, Done]] = Counter()

    @property
    def counts(self) -> Mapping[tuple[str, Done], int]:
        """How many POSTs there were, by type of notification (``none``: not known) and by what became of them."""
        with self._lock:
            return dict(self._counts)

    def handle(self, body: bytes) -> HandlerAnswer:
        """Deal with the body of one POST; blocks. Raises nothing for whatever a body may hold."""
        signed = read_body(body)
        if isinstance(signed, Unreadable):
            too_large = len(body) > MAX_BODY_BYTES
            status = HTTPStatus.REQUEST_ENTITY_TOO_LARGE if too_large else HTTPStatus.BAD_REQUEST
            return self._answer(None, _Outcome(Done.UNREADABLE, status, signed.detail))
        try:
            payload = self._signed_data.verify_notification(signed)
        except ConfigurationError as error:
            return self._answer(None, _failed(str(error)))
        if isinstance(payload, SignatureRefused):
            return self._answer(None, _refused(payload))
        notification = read_notification(payload)
        if isinstance(notification, Unreadable):
            return self._answer(None, _unreadable(notification))
        return self._answer(notification, self._deal_with(notification))

    def _deal_with(self, notification: Notification) -> _Outcome:
        transaction: Mapping[str, object] | None = None
        if notification.signed_transaction is not None:
            try:
                verified = self._signed_data.verify_transaction(notification.signed_transaction)
            except ConfigurationError as error:
                return _failed(str(error))
            if isinstance(verified, SignatureRefused):
                return _refused(verified)
            transaction = verified
        decision = decide(notification, transaction, self._policy)
        match decision:
            case Refund() | RefundReversed():
                return self._carry_out(notification.uuid, decision)
            case Nothing(detail):
                return _Outcome(Done.NOTHING, HTTPStatus.OK, detail)
            case ForeignApp(detail):
                return _Outcome(Done.FOREIGN_APP, HTTPStatus.FORBIDDEN, detail, logging.WARNING)
            case Unreadable():
                return _unreadable(decision)

    def _carry_out(self, uuid: str, decision: Refund | RefundReversed) -> _Outcome:
        about = f"transaction {decision.transaction_id}"
        try:
            if self._notifications.is_known(uuid):
                return _Outcome(Done.KNOWN, HTTPStatus.OK, f"{about}: it was dealt with before")
            outcome = (
                self._reverse(uuid, decision) if isinstance(decision, RefundReversed) else self._refund(uuid, decision)
            )
            if outcome.done is not Done.FAILED:
                self._notifications.record(uuid, self._now())
        except (UnavailableError, QueueRefused) as error:
            outcome = _failed(str(error))
        return replace(outcome, detail=f"{about}: {outcome.detail}")

    def _refund(self, uuid: str, refund: Refund) -> _Outcome:
        if self._is_reversed(refund):
            return _done(Done.OVERTAKEN, "the refund has been reversed since, nothing is changed")
        standing = self._ledger.mark_refunded(
            refund.transaction_id, refund.at_seconds, refund.revocation_type, refund.revocation_percentage
        )
        if self._is_reversed(refund):
            self._ledger.unmark_refunded(refund.transaction_id, refund.at_seconds)
            return _done(Done.OVERTAKEN, "the refund has just been reversed, nothing is changed")
        if isinstance(standing, Tombstone):
            return _done(Done.TOMBSTONE, "refunded before anybody claimed it, nobody can any more")
        if not (standing.submission_id and standing.post_queue):
            told = "marked as refunded; it was claimed by another program, which we cannot tell"
            return _Outcome(Done.NOT_OURS, HTTPStatus.OK, told, logging.WARNING)
        return self._post(standing, refund_message(standing, uuid)) or _done(
            Done.POSTED, f"marked as refunded, INVALID is on {standing.post_queue}"
        )

    def _is_reversed(self, refund: Refund) -> bool:
        reversed_at_seconds = self._notifications.reversed_at_seconds(refund.transaction_id)
        return reversed_at_seconds is not None and refund.at_seconds <= reversed_at_seconds

    def _post(self, claim: LedgerItem, message: OutgoingMessage) -> _Outcome | None:
        """Post to the queue that got the OK; returns why that failed."""
        queue = claim.post_queue
        if queue not in self._post_queues:
            wish = "add it, or tell the player's backend yourself"
            return _failed(f"noted, but its post queue {queue} is not in post_queues; {wish}")
        (failure,) = self._queues.send(queue, [message])
        return None if failure is None else _failed(f"noted, but queue {queue} did not take it: {failure.code}")

    def _reverse(self, uuid: str, reversal: RefundReversed) -> _Outcome:
        self._notifications.record_reversal(reversal.transaction_id, reversal.at_seconds, self._now())
        standing = self._ledger.unmark_refunded(reversal.transaction_id, reversal.at_seconds)
        if standing is not None and standing.refunded_at_seconds is not None:
            return _done(Done.OVERTAKEN, "it has been refunded anew since, nothing is changed")
        if not isinstance(standing, LedgerItem):
            return _done(Done.REVERSED, "its refund is taken back, nobody has claimed it")
        if not (standing.submission_id and standing.post_queue):
            return _done(Done.REVERSED, "its refund is taken back; it was claimed by another program")
        # Posted even where no mark was found: a process may have died after it took the mark away.
        return self._post(standing, reversal_message(standing, uuid, reversal.at_seconds)) or _done(
            Done.REVERSED, f"its refund is taken back, OK is on {standing.post_queue}"
        )

    def _answer(self, notification: Notification | None, outcome: _Outcome) -> HandlerAnswer:
        type_ = NO_TYPE if notification is None else notification.type
        with self._lock:
            self._counts[type_, outcome.done] += 1
        what = "a POST" if notification is None else f"notification {notification.uuid} ({type_})"
        logger.log(outcome.level, "%s, answered %d: %s", what, outcome.status, outcome.detail)
        return HandlerAnswer(int(outcome.status), _TEXTS[outcome.done])

    def close(self) -> None:
        """Close what stands behind it. Closing twice is fine."""
        self._closing.close()

    def __enter__(self) -> NotificationHandler:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _done(done: Done, detail: str) -> _Outcome:
    return _Outcome(done, HTTPStatus.OK, detail)


def _failed(detail: str) -> _Outcome:
    return _Outcome(Done.FAILED, HTTPStatus.SERVICE_UNAVAILABLE, detail, logging.ERROR)


def _unreadable(unreadable: Unreadable) -> _Outcome:
    """Refuse what comes from Apple's own hand: somebody has to look into it."""
    told = f"its signature holds, and yet: {unreadable.detail}"
    return _Outcome(Done.UNREADABLE, HTTPStatus.BAD_REQUEST, told, logging.ERROR)


def _refused(refusal: SignatureRefused) -> _Outcome:
    done = Done.FOREIGN_APP if refusal.reason is Reason.FOREIGN_BUNDLE else Done.REFUSED
    return _Outcome(done, HTTPStatus.FORBIDDEN, f"{refusal.reason}: {refusal.detail}", logging.WARNING)


#: What whoever posted is told: Apple does not read it, and nobody else needs to know what stands in the ledger.
_TEXTS = {
    Done.POSTED: "done",
    Done.TOMBSTONE: "done",
    Done.NOT_OURS: "done",
    Done.REVERSED: "done",
    Done.OVERTAKEN: "done",
    Done.KNOWN: "done",
    Done.NOTHING: "nothing to do",
    Done.FOREIGN_APP: "not an app of ours",
    Done.REFUSED: "not signed by Apple",
    Done.UNREADABLE: "expected an App Store Server Notification, version 2",
    Done.FAILED: "not now, please send it again",
}
