"""``NotificationHandler``: one POST of Apple's, from its bytes to the status that it is answered with.

A refund marks the ledger, posts ``INVALID``, records the notification and answers 200, in this order; its reversal
takes the mark away and posts ``OK``. Each step may be done again: a process may die between two, or two processes may
do it at once. If the status is not 200, Apple sends the notification again, after 1, 12, 24, 48 and 72 hours.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from http import HTTPStatus

from receipt_actors.domain.messages import refund_message, reversal_message
from receipt_actors.domain.policy import Policy
from receipt_actors.domain.ports import Ledger, LedgerItem, Notifications, OutgoingMessage, Queues, Tombstone
from receipt_actors.domain.reasons import Reason
from receipt_actors.errors import ConfigurationError, QueueRefused, UnavailableError
from receipt_actors.stores.apple.notifications.contents import (
    MAX_BODY_BYTES,
    Done,
    Notification,
    Refund,
    RefundReversed,
    Settled,
    decide,
    read_body,
    read_notification,
)
from receipt_actors.stores.apple.ports import SignatureRefused, SignedData, SignedKind

logger = logging.getLogger(__name__)

NO_TYPE = "none"  #: under which is counted what has not been read so far


@dataclass(frozen=True, slots=True)
class HandlerAnswer:
    """What to answer a POST with."""

    status: int  #: of HTTP
    text: str  #: one short line, nothing of what was posted


#: What each comes to: the status, the level of its log line, and what the client is told. Apple does not read that, and
#: no other client needs to know what stands in the ledger.
_ANSWERS = {
    **dict.fromkeys(
        (Done.POSTED, Done.TOMBSTONE, Done.REVERSED, Done.OVERTAKEN, Done.KNOWN), (HTTPStatus.OK, logging.INFO, "done")
    ),
    Done.NOT_OURS: (HTTPStatus.OK, logging.WARNING, "done"),
    Done.NOTHING: (HTTPStatus.OK, logging.INFO, "nothing to do"),
    Done.FOREIGN_APP: (HTTPStatus.FORBIDDEN, logging.WARNING, "not an app of ours"),
    Done.REFUSED: (HTTPStatus.FORBIDDEN, logging.WARNING, "not signed by Apple"),
    # From Apple's own hand: somebody has to look into it.
    Done.UNREADABLE: (HTTPStatus.BAD_REQUEST, logging.ERROR, "expected an App Store Server Notification, version 2"),
    Done.FAILED: (HTTPStatus.SERVICE_UNAVAILABLE, logging.ERROR, "not now, please send it again"),
}


class NotificationHandler:
    """See the module. ``handle`` may be called from any number of threads at once.

    ``policy`` says whose notifications count. A claim's queue that is not in ``post_queues`` is never written to.
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
        self.close = close
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
        if isinstance(signed, Settled):
            too_large = len(body) > MAX_BODY_BYTES
            status = HTTPStatus.REQUEST_ENTITY_TOO_LARGE if too_large else HTTPStatus.BAD_REQUEST
            return self._answer(None, signed, status, logging.INFO)
        payload = self._verified(SignedKind.NOTIFICATION, signed)
        notification = payload if isinstance(payload, Settled) else read_notification(payload)
        if isinstance(notification, Settled):
            return self._answer(None, notification)
        return self._answer(notification, self._deal_with(notification))

    def _deal_with(self, notification: Notification) -> Settled:
        transaction: Mapping[str, object] | None = None
        if notification.signed_transaction is not None:
            verified = self._verified(SignedKind.TRANSACTION, notification.signed_transaction)
            if isinstance(verified, Settled):
                return verified
            transaction = verified
        decision = decide(notification, transaction, self._policy)
        return decision if isinstance(decision, Settled) else self._carry_out(notification.uuid, decision)

    def _verified(self, kind: SignedKind, signed: str) -> Mapping[str, object] | Settled:
        try:
            verified = self._signed_data.verify(kind, signed)
        except ConfigurationError as error:
            return Settled(Done.FAILED, str(error))
        if not isinstance(verified, SignatureRefused):
            return verified
        done = Done.FOREIGN_APP if verified.reason is Reason.FOREIGN_BUNDLE else Done.REFUSED
        return Settled(done, f"{verified.reason}: {verified.detail}")

    def _carry_out(self, uuid: str, decision: Refund | RefundReversed) -> Settled:
        try:
            if self._notifications.is_known(uuid):
                outcome = Settled(Done.KNOWN, "it was dealt with before")
            elif isinstance(decision, Refund):
                outcome = self._refund(uuid, decision)
            else:
                outcome = self._reverse(uuid, decision)
            if outcome.done not in (Done.KNOWN, Done.FAILED):
                self._notifications.record(uuid, self._now())
        except (UnavailableError, QueueRefused) as error:
            outcome = Settled(Done.FAILED, str(error))
        return Settled(outcome.done, f"transaction {decision.transaction_id}: {outcome.detail}")

    def _refund(self, uuid: str, refund: Refund) -> Settled:
        if self._is_reversed(refund):
            return self._overtaken(refund)  # an earlier attempt may have marked it, and failed before it looked again
        item = self._ledger.mark_refunded(
            refund.transaction_id, refund.at_seconds, refund.revocation_type, refund.revocation_percentage
        )
        if self._is_reversed(refund):
            return self._overtaken(refund)
        if isinstance(item, Tombstone):
            return Settled(Done.TOMBSTONE, "refunded before anybody claimed it, nobody can any more")
        if not (item.submission_id and item.post_queue):
            told = "marked as refunded; it was claimed by another program, which we cannot tell"
            return Settled(Done.NOT_OURS, told)
        return self._post(item, refund_message(item, uuid)) or Settled(
            Done.POSTED, f"marked as refunded, INVALID is on {item.post_queue}"
        )

    def _overtaken(self, refund: Refund) -> Settled:
        self._ledger.unmark_refunded(refund.transaction_id, refund.at_seconds)
        return Settled(Done.OVERTAKEN, "the refund has been reversed, nothing is changed")

    # A refund may come after its own reversal. So a reversal is remembered before it is carried out, and a refund looks
    # for one before the mark and after it: the reversal may be at work on another machine.
    def _is_reversed(self, refund: Refund) -> bool:
        reversed_at_seconds = self._notifications.reversed_at_seconds(refund.transaction_id)
        return reversed_at_seconds is not None and refund.at_seconds <= reversed_at_seconds

    def _post(self, claim: LedgerItem, message: OutgoingMessage) -> Settled | None:
        queue = claim.post_queue
        if queue not in self._post_queues:
            wish = "add it, or tell the player's backend yourself"
            return Settled(Done.FAILED, f"noted, but its post queue {queue} is not in post_queues; {wish}")
        (failure,) = self._queues.send(queue, [message])
        if failure is None:
            return None
        return Settled(Done.FAILED, f"noted, but queue {queue} did not take it: {failure.code}")

    def _reverse(self, uuid: str, reversal: RefundReversed) -> Settled:
        self._notifications.record_reversal(reversal.transaction_id, reversal.at_seconds, self._now())
        item = self._ledger.unmark_refunded(reversal.transaction_id, reversal.at_seconds)
        if item is not None and item.refunded_at_seconds is not None:
            return Settled(Done.OVERTAKEN, "it has been refunded anew since, nothing is changed")
        if not isinstance(item, LedgerItem):
            return Settled(Done.REVERSED, "its refund is taken back, nobody has claimed it")
        if not (item.submission_id and item.post_queue):
            return Settled(Done.REVERSED, "its refund is taken back; it was claimed by another program")
        # Posted even where no mark was found: a process may have died after it took the mark away.
        return self._post(item, reversal_message(item, uuid, reversal.at_seconds)) or Settled(
            Done.REVERSED, f"its refund is taken back, OK is on {item.post_queue}"
        )

    def _answer(
        self,
        notification: Notification | None,
        settled: Settled,
        status: HTTPStatus | None = None,
        level: int | None = None,
    ) -> HandlerAnswer:
        type_ = NO_TYPE if notification is None else notification.type
        with self._lock:
            self._counts[type_, settled.done] += 1
        what = "a POST" if notification is None else f"notification {notification.uuid} ({type_})"
        usual_status, usual_level, text = _ANSWERS[settled.done]
        status = status or usual_status
        logger.log(level or usual_level, "%s, answered %d: %s", what, status, settled.detail)
        return HandlerAnswer(int(status), text)

    def __enter__(self) -> NotificationHandler:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
