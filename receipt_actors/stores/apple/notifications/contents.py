"""What one of Apple's server notifications (version 2) calls for: reads it and decides, without doing anything.

Every function is total. Nothing of a payload gets into a ``detail`` but short, printable ids and names. Whose
notification it is comes first: anybody can sell something in an app of his own, and post what Apple signed for it here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from appstoreserverlibrary.models.NotificationTypeV2 import NotificationTypeV2

from receipt_actors.domain.policy import Policy
from receipt_actors.domain.values import is_name, json_type
from receipt_actors.stores.apple import fields as apple_fields
from receipt_actors.stores.apple.signatures.jws import SUBJECTS, YEAR_10000_MS

MAX_BODY_BYTES = 256 * 1024  #: of a POST; Apple's have some 10 to 20 KB

_TYPES = frozenset(each.value for each in NotificationTypeV2)
UNKNOWN_TYPE = "unknown"  #: not Apple's word: a type that Apple has added since
_TAKES_BACK = frozenset({"REFUND", "REVOKE"})
_GIVES_BACK = "REFUND_REVERSED"


@dataclass(frozen=True, slots=True)
class Notification:
    """A verified payload, as far as it matters here."""

    uuid: str
    type: str  #: as Apple spells it, or ``UNKNOWN_TYPE``
    signed_at_seconds: float  #: UNIX time
    bundle_id: str | None  #: None where the payload does not say
    environment: str | None  #: as Apple spells it; None where the payload does not say
    signed_transaction: str | None = field(repr=False)  #: to be verified; None where nothing here depends on it


@dataclass(frozen=True, slots=True)
class Refund:
    """The transaction was refunded, or taken from whom it was shared with."""

    transaction_id: str
    at_seconds: float  #: UNIX time of Apple's decision (``revocationDate``)
    revocation_type: str | None = None  #: as Apple spells it; None where it does not say
    revocation_percentage: int | None = None  #: in thousandths of a percent; likewise


@dataclass(frozen=True, slots=True)
class RefundReversed:
    """Apple took the refund of the transaction back."""

    transaction_id: str
    at_seconds: float  #: UNIX time at which the notification was signed


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
class Settled:
    """What became of a notification, and why."""

    done: Done
    detail: str  #: one short line


def read_body(body: bytes) -> str | Settled:
    if len(body) > MAX_BODY_BYTES:
        return Settled(Done.UNREADABLE, f"body: expected at most {MAX_BODY_BYTES} bytes")
    try:
        fields = json.loads(body)
    except (ValueError, RecursionError):  # bytes that are no text, and numbers of thousands of digits, too
        return Settled(Done.UNREADABLE, "body: expected JSON")
    if not isinstance(fields, dict):
        return Settled(Done.UNREADABLE, f"body: expected an object, found {json_type(fields)}")
    signed = fields.get("signedPayload")
    if isinstance(signed, str):
        return signed
    if "notification_type" in fields:
        return Settled(Done.UNREADABLE, "body: a notification of version 1; choose version 2 in App Store Connect")
    return Settled(Done.UNREADABLE, f"signedPayload: expected a string, found {json_type(signed)}")


def read_notification(payload: Mapping[str, object]) -> Notification | Settled:
    uuid, type_ = payload.get("notificationUUID"), payload.get("notificationType")
    if not is_name(uuid):
        return _unreadable(f"notificationUUID: expected an id, found {json_type(uuid)}")
    if not is_name(type_):
        return _unreadable(f"notificationType: expected a name, found {json_type(type_)}")
    signed_at_seconds = _seconds(payload.get("signedDate"))
    if signed_at_seconds is None:
        return _unreadable("signedDate: expected a UNIX time in milliseconds")
    known_type = type_ if type_ in _TYPES else UNKNOWN_TYPE
    part = next((each for name in SUBJECTS if isinstance(each := payload.get(name), Mapping)), {})
    signed_transaction = None
    if known_type in _TAKES_BACK or known_type == _GIVES_BACK:
        signed = part.get("signedTransactionInfo")
        if not isinstance(signed, str):
            return _unreadable(f"{known_type}: signedTransactionInfo: expected a string, found {json_type(signed)}")
        signed_transaction = signed
    return Notification(
        uuid=uuid,
        type=known_type,
        signed_at_seconds=signed_at_seconds,
        bundle_id=_name(part.get("bundleId")),
        environment=_name(part.get("environment")),
        signed_transaction=signed_transaction,
    )


def decide(
    notification: Notification, transaction: Mapping[str, object] | None, policy: Policy
) -> Refund | RefundReversed | Settled:
    """Say what to do. ``transaction`` is the payload of ``notification.signed_transaction``, verified.

    An app that is not in ``bundle_ids`` is refused, not acknowledged: if the settings have forgotten one of ours, Apple
    comes again, and nothing is lost. An environment that does not count has no claims here: it is acknowledged.
    """
    bundle_ids, environments = {notification.bundle_id}, {notification.environment}
    if transaction is not None:
        bundle_ids, environments = {_name(transaction.get("bundleId"))}, {_name(transaction.get("environment"))}
        if notification.bundle_id is not None:
            bundle_ids.add(notification.bundle_id)
        if notification.environment is not None:
            environments.add(notification.environment)
    foreign = [] if policy.bundle_ids is None else sorted(map(str, bundle_ids - policy.bundle_ids - {None}))
    if foreign:
        return Settled(Done.FOREIGN_APP, f"app {foreign[0]} is not in bundle_ids")
    if not environments <= {*policy.environments, None}:
        return Settled(Done.NOTHING, "its environment does not count here")
    if notification.signed_transaction is None:
        return Settled(Done.NOTHING, "nothing to do")
    if transaction is None:
        return _unreadable(f"{notification.type}: no transaction")
    if None in bundle_ids or None in environments:
        return _unreadable(f"{notification.type}: a transaction that does not say of which app and environment it is")
    try:
        return _change(notification, transaction)
    except apple_fields.Unreadable as unreadable:
        return _unreadable(f"{notification.type}: {unreadable}")


def _change(notification: Notification, transaction: Mapping[str, object]) -> Refund | RefundReversed:
    # Raises ``Unreadable``: a refund of a garbled part is not one of the whole.
    transaction_id = apple_fields.read_id(transaction, "transactionId")  # as the claim's was read
    if transaction_id is None:
        raise apple_fields.Unreadable("transactionId: missing")
    if notification.type == _GIVES_BACK:
        return RefundReversed(transaction_id, notification.signed_at_seconds)
    revoked_at_seconds = _seconds(transaction.get("revocationDate"))
    return Refund(
        transaction_id,
        notification.signed_at_seconds if revoked_at_seconds is None else revoked_at_seconds,
        apple_fields.read_revocation_type(transaction),
        apple_fields.read_revocation_percentage(transaction),
    )


def _unreadable(detail: str) -> Settled:
    return Settled(Done.UNREADABLE, f"its signature holds, and yet: {detail}")


def _name(value: object) -> str | None:
    return value if is_name(value) else None


def _seconds(milliseconds: object) -> float | None:
    if isinstance(milliseconds, bool) or not isinstance(milliseconds, int | float):
        return None
    return milliseconds / 1000 if 0 <= milliseconds < YEAR_10000_MS else None
