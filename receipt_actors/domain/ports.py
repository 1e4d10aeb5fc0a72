"""What the actors need of the outside world, as Protocols; ``clients`` has the adapters, ``application`` joins them.

Every method blocks, is called from I/O threads (several at once), and raises only what ``errors`` lists: an
``UnavailableError`` where trying again may help, ``QueueRefused`` and ``BatchesRefused`` where it does not. A method
must be safe to repeat. ``SignedDataCalls`` and ``BackgroundCalls`` return at once. The limits are
SQS's: 10 entries and 1 MiB (bodies and attributes together) a batch; and DynamoDB's: 25 claims a batch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum, StrEnum
from typing import Any, Final, Protocol, TypeAlias

MAX_BATCH_ENTRIES = 10  #: entries a receive, send, delete or visibility batch may have (SQS)
MAX_BATCH_BYTES = 1024 * 1024  #: bytes of all bodies and attributes of a send batch, and of a single message (SQS)
MAX_CLAIMS = 25  #: statements a PartiQL batch may have (DynamoDB)
MAX_VISIBILITY_SECONDS = 12 * 60 * 60  #: SQS counts it from the receive
#: Apple repeats itself for less than seven days (1, 12, 24, 48 and 72 hours), but its history has 180 of them: what
#: somebody posts from there is known, and a refund that was reversed stays so.
REMEMBERED_SECONDS = 200 * 24 * 60 * 60
MAX_QUANTITY = 2**31 - 1  #: of one transaction; Apple documents an int32
WHOLE_PERCENTAGE = 100_000  #: ``revocationPercentage`` of a whole refund, in thousandths of a percent


class Environment(StrEnum):
    """Apple's two worlds, spelled as in the ``environment`` of its answers."""

    PRODUCTION = "Production"
    SANDBOX = "Sandbox"


@dataclass(frozen=True, slots=True)
class ReceivedMessage:
    """One delivery of one message of the source queue (or of any queue that is read)."""

    message_id: str  #: the same over redeliveries; new after a redrive or a producer's retry
    receipt_handle: str  #: new at every delivery; only the newest works reliably
    body: str = field(repr=False)  #: what a log must not show
    body_md5: str  #: ``MD5OfBody`` as the service computed it, hexadecimal
    attributes: Mapping[str, str] = field(default_factory=dict)  #: of any type, as text; empty: no text
    approximate_receive_count: int = 1
    sent_at_seconds: float = 0.0  #: UNIX time at which the producer sent it (``SentTimestamp`` / 1000)
    aws_trace_header: str | None = None  #: SQS's ``AWSTraceHeader``, where whoever sent it uses X-Ray
    group_id: str | None = None  #: ``MessageGroupId``, of a message of a FIFO queue; None of any other


@dataclass(frozen=True, slots=True)
class OutgoingMessage:
    """A message to send: a body, and up to ten attributes of type String (none may be empty, says SQS)."""

    body: str = field(repr=False)
    attributes: Mapping[str, str] = field(default_factory=dict)
    group_id: str | None = None  #: ``MessageGroupId``: what is sent to a FIFO queue must have it, and nothing else may
    deduplication_id: str | None = None  #: ``MessageDeduplicationId``; likewise

    @property
    def size_bytes(self) -> int:
        """What SQS counts against its limit: the body, and each attribute's name, type and value."""
        return _size_bytes(self.body) + sum(
            _size_bytes(name) + len("String") + _size_bytes(value) for name, value in self.attributes.items()
        )


def _size_bytes(text: str) -> int:
    # SQS refuses a lone surrogate, entry by entry; but whoever gathers a batch must not stumble over one before.
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))


@dataclass(frozen=True, slots=True)
class EntryFailure:
    """One entry of a batch that the service did not confirm."""

    code: str
    detail: str
    sender_fault: bool  #: True: this entry will never pass as it is; False: try this entry again


class Queues(Protocol):
    """SQS, or something that keeps its promises. Queues go by their names; URLs and ARNs are the adapter's own affair.

    A batch call answers one value an entry, in the order of its arguments: ``None`` is confirmed.
    """

    def receive(
        self, queue: str, *, max_messages: int, wait_seconds: float, visibility_timeout_seconds: int
    ) -> Sequence[ReceivedMessage]:
        """Take up to ``max_messages`` (1 to 10); wait for the first one for up to ``wait_seconds`` (0 to 20).

        A FIFO queue gives nothing of a group of which a message is hidden; what it gives of a group is in order.
        """

    def send(self, queue: str, messages: Sequence[OutgoingMessage]) -> Sequence[EntryFailure | None]:
        """Send one batch. A message whose MD5 the service answers wrongly counts as failed (not the sender's fault).

        A FIFO queue confirms what it takes for a repetition (``domain.sqs_rules``), and keeps none of it.
        """

    def delete(self, queue: str, receipt_handles: Sequence[str]) -> Sequence[EntryFailure | None]:
        """Delete one batch. Deleting what is deleted already is confirmed."""

    def change_visibility(self, queue: str, changes: Sequence[tuple[str, int]]) -> Sequence[EntryFailure | None]:
        """Set the visibility timeout of each ``(receipt_handle, seconds)``, counted from now; 0 hands it back."""

    def dead_letter_queue(self, queue: str) -> str | None:
        """Name the dead-letter queue of the queue's redrive policy, or None. ``QueueRefused``: no such queue."""

    def approximate_number_of_messages(self, queue: str) -> int:
        """Count the messages that can be received now (SQS: an estimate)."""


@dataclass(frozen=True, slots=True)
class LedgerItem:
    """A claim: who got OK for a transaction, and for what. Kept for ever; nothing overwrites it."""

    transaction_id: str
    submission_id: str
    message_id: str
    user_id: int
    receipt_sha256: str  #: hexadecimal, of the ``receipt`` string of the message
    product_id: str | None
    original_transaction_id: str | None
    environment: Environment
    source_queue: str
    post_queue: str
    claimed_at_seconds: float  #: UNIX time
    refunded_at_seconds: float | None = None  #: UNIX time; marked later, by an update
    revocation_type: str | None = None  #: with the mark: Apple's ``revocationType``, where it says so
    revocation_percentage: int | None = None  #: with the mark: Apple's ``revocationPercentage`` (33.333 % is 33333)
    quantity: int | None = None  #: how many were bought at once; None in items of schema version 1
    schema_version: int = 2


@dataclass(frozen=True, slots=True)
class Tombstone:
    """Apple refunded a transaction before anybody claimed it: nobody can any more."""

    transaction_id: str
    refunded_at_seconds: float  #: UNIX time
    revocation_type: str | None = None  #: as of a claim
    revocation_percentage: int | None = None


#: What stands in the ledger under a transaction id.
Standing: TypeAlias = LedgerItem | Tombstone


class Taken(Enum):
    """The type of ``TAKEN``."""

    TAKEN = "taken"


#: Not put: an item stands in the way, or may. It may be our own, after a lost answer; ``Ledger.claim`` tells.
TAKEN: Final = Taken.TAKEN

#: What became of one claim of a batch: None when it was put now, ``TAKEN``, or why it was not made.
ClaimOutcome: TypeAlias = Taken | EntryFailure | None


class Ledger(Protocol):
    """The table of claims: DynamoDB, or something that keeps its promises."""

    def claim(self, item: LedgerItem) -> Standing | None:
        """Put the item unless its transaction id is taken, atomically.

        Returns None when it was put now, else what stands in the way, read consistently. After a lost answer
        the item in the way may be our own: comparing is the caller's part (``domain.ledger``).
        """

    def claim_all(self, items: Sequence[LedgerItem]) -> Sequence[ClaimOutcome]:
        """Put each item whose transaction id is not taken, in one call; each by itself is atomic, the batch is not.

        Up to ``MAX_CLAIMS`` items of different transaction ids, else ``ValueError``. Answers one value an item, in
        their order. After ``LedgerUnavailable`` any of them may have been put, and is ``TAKEN`` when it is claimed
        again; so may what is an ``EntryFailure``. A ledger in trouble may raise it instead of failing every entry.

        Raises ``BatchesRefused`` where the ledger takes no batches: nothing was put, ``claim`` may work.
        """

    def get(self, transaction_id: str) -> Standing | None:
        """Read what stands, consistently; None where nobody has claimed the transaction and nobody refunded it."""

    def mark_refunded(
        self,
        transaction_id: str,
        refunded_at_seconds: float,
        revocation_type: str | None = None,
        revocation_percentage: int | None = None,
    ) -> Standing:
        """Mark a claim as refunded, or leave a tombstone where there is none, atomically.

        The latest mark stays, in whatever order they come: of a later time, or of the same time and a higher
        percentage, where None counts as the whole. Marking again with the same one or an earlier one changes nothing.
        A mark replaces all of the one before. A claim is only updated, never replaced. Returns what stands afterwards.
        """

    def unmark_refunded(self, transaction_id: str, reversed_at_seconds: float) -> Standing | None:
        """Take back the whole mark (``REFUND_REVERSED``), or the tombstone, unless it is of a later refund, atomically.

        Returns what stands afterwards: with the mark of a later refund, where there is one; None where nothing is. What
        has no mark stays as it is.
        """

    def check(self) -> None:
        """See whether claims can be made.

        Raises ``LedgerRefused`` where the table is missing, may not be read, has another key than ``TransactionId`` (a
        string), or deletes claims after some time.
        """


class Notifications(Protocol):
    """Which of Apple's notifications were dealt with: a table of its own."""

    def is_known(self, notification_uuid: str) -> bool:
        """Tell whether it was recorded. Raises ``LedgerUnavailable``."""

    def record(self, notification_uuid: str, now_seconds: float) -> None:
        """Record it, for ``REMEMBERED_SECONDS`` at least. Raises ``LedgerUnavailable``."""

    def record_reversal(self, transaction_id: str, reversed_at_seconds: float, now_seconds: float) -> None:
        """Remember, likewise, when Apple took the refund of a transaction back; the latest such time stays.

        Apple repeats what was not answered, so a refund may arrive after its reversal. Raises ``LedgerUnavailable``.
        """

    def reversed_at_seconds(self, transaction_id: str) -> float | None:
        """Return when the last refund of a transaction was taken back, as a UNIX time; None where none is known.

        Raises ``LedgerUnavailable``.
        """

    def check(self) -> None:
        """See whether they can be told.

        Raises ``LedgerRefused`` where the table is missing, may not be read, or has another key than
        ``NotificationUuid`` (a string).
        """


@dataclass(frozen=True, slots=True)
class RoleRecord:
    """All that the nodes of a group agree on (``domain.roles``), as a table holds it."""

    version: int  #: 1 for the first; each write is the next one
    content: str


class RoleTable(Protocol):
    """The records by which nodes agree on roles: a table of its own."""

    def read(self, group: str) -> RoleRecord | None:
        """Return what stands, read consistently; None where nothing does. Raises ``LedgerUnavailable``."""

    def write(self, group: str, record: RoleRecord, before: int | None = None) -> RoleRecord | None:
        """Write a record if what stands is of the version ``before``, or nothing where that is 0; atomically.

        Left out, it is the one before the record's. Where it is less, what is written puts back what was lost.

        Returns what stands afterwards: the record, where it was written, else what was in the way, or None where that
        is gone. Raises ``LedgerUnavailable``; then it may have been written.
        """

    def check(self) -> None:
        """See whether roles can be agreed on.

        Raises ``LedgerRefused`` where the table is missing, may not be read, or has another key than ``RoleGroup`` (a
        string).
        """


class BackgroundCalls(Protocol):
    """The methods of ``Queues`` and ``Ledger`` without a thread that waits for each."""

    def begin(
        self,
        method: Callable[..., object],
        args: Sequence[object],
        keywords: Mapping[str, object],
        done: Callable[[Any], object],
    ) -> None:
        """Begin ``method(*args, **keywords)``, a bound method of one of the two, and return at once.

        ``done`` is called exactly once, perhaps before this returns, on whatever thread: with what the method returns,
        or with the exception that it raises. It must be quick, for others' answers wait behind it; what it raises is
        logged.
        """
