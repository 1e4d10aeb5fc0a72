"""The outside world as Protocols: ``clients`` has the adapters.

Every method blocks, is called from several I/O threads, and is safe to repeat; only ``BackgroundCalls`` returns at
once. ``UnavailableError`` means that trying again may help, ``QueueRefused`` and ``BatchesRefused`` that it does not.
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
    """SQS or its equal. A batch call returns one value for each entry, in order: ``None`` is confirmed."""

    def receive(
        self, queue: str, *, max_messages: int, wait_seconds: float, visibility_timeout_seconds: int
    ) -> Sequence[ReceivedMessage]:
        """Take 1 to 10 messages; wait up to ``wait_seconds`` (0 to 20) for the first.

        A FIFO queue gives nothing of a group while a message of it is hidden, and keeps a group's order.
        """

    def send(self, queue: str, messages: Sequence[OutgoingMessage]) -> Sequence[EntryFailure | None]:
        """Send one batch. A message whose MD5 comes back wrong has failed (not the sender's fault).

        A FIFO queue confirms a repetition (``domain.sqs_rules``) and keeps none of it.
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
    """The table of claims: DynamoDB or its equal."""

    def claim(self, item: LedgerItem) -> Standing | None:
        """Put the item unless its transaction id is taken, atomically.

        Returns None when it was put, else what is there, read consistently. After a lost answer it may be our own item:
        the caller compares (``domain.verdicts``).
        """

    def claim_all(self, items: Sequence[LedgerItem]) -> Sequence[ClaimOutcome]:
        """Put each item whose transaction id is free, each atomically; the batch as a whole is not.

        Returns one value for each of up to ``MAX_CLAIMS`` items of different ids (else ``ValueError``). After
        ``LedgerUnavailable`` or an ``EntryFailure`` the item may be there; the next claim says ``TAKEN``.
        ``BatchesRefused``: the ledger takes no batches and put nothing; ``claim`` may work.
        """

    def get(self, transaction_id: str) -> Standing | None:
        """Read consistently; None where the transaction is neither claimed nor refunded."""

    def mark_refunded(
        self,
        transaction_id: str,
        refunded_at_seconds: float,
        revocation_type: str | None = None,
        revocation_percentage: int | None = None,
    ) -> Standing:
        """Mark a claim as refunded, or leave a tombstone where there is none, atomically.

        The latest mark replaces all others in any order: a later time, or the same time and a higher percentage (None:
        the whole). A claim is updated, never replaced. Returns what is there afterwards.
        """

    def unmark_refunded(self, transaction_id: str, reversed_at_seconds: float) -> Standing | None:
        """Remove the mark or tombstone (``REFUND_REVERSED``) unless its refund is later, atomically.

        Returns what is there afterwards, or None.
        """

    def check(self) -> None:
        """Raise ``LedgerRefused`` where no claims can be made.

        The table is missing or unreadable, deletes claims after a time, or its key is not the string ``TransactionId``.
        """


class Notifications(Protocol):
    """Apple's notifications that were handled: a table of its own. All raise ``LedgerUnavailable``."""

    def is_known(self, notification_uuid: str) -> bool:
        """Return whether it was recorded."""

    def record(self, notification_uuid: str, now_seconds: float) -> None:
        """Record it for at least ``REMEMBERED_SECONDS``."""

    def record_reversal(self, transaction_id: str, reversed_at_seconds: float, now_seconds: float) -> None:
        """Record when Apple reversed a refund, for as long; the latest time stays.

        Apple repeats what was not answered, so a refund may arrive after its reversal.
        """

    def reversed_at_seconds(self, transaction_id: str) -> float | None:
        """Return the UNIX time of the last reversal of a refund, or None."""

    def check(self) -> None:
        """Raise ``LedgerRefused``: the table is missing, unreadable, or its key is not ``NotificationUuid``."""


@dataclass(frozen=True, slots=True)
class RoleRecord:
    """All that the nodes of a group agree on (``domain.roles``), as a table holds it."""

    version: int  #: 1 for the first; each write is the next one
    content: str


class RoleTable(Protocol):
    """The records by which nodes agree on roles: a table of its own. All raise ``LedgerUnavailable``."""

    def read(self, group: str) -> RoleRecord | None:
        """Read consistently; None where there is no record."""

    def write(self, group: str, record: RoleRecord, before: int | None = None) -> RoleRecord | None:
        """Write atomically if version ``before`` is there (0: nothing); by default the one before the record's.

        A lower ``before`` restores a lost record. Returns what is there afterwards: the record if it was written. After
        ``LedgerUnavailable`` it may have been written, too.
        """

    def check(self) -> None:
        """Raise ``LedgerRefused``: the table is missing, unreadable, or its key is not ``RoleGroup``."""


class BackgroundCalls(Protocol):
    """The methods of ``Queues`` and ``Ledger`` without a thread that waits for each."""

    def begin(
        self,
        method: Callable[..., object],
        args: Sequence[object],
        keywords: Mapping[str, object],
        done: Callable[[Any], object],
    ) -> None:
        """Begin ``method(*args, **keywords)`` of ``Queues`` or ``Ledger``, and return at once.

        ``done`` is called once, perhaps before this returns, on any thread, with the result or the exception. It must
        be quick; what it raises is logged.
        """


def check_claims(items: Sequence[LedgerItem]) -> None:
    """Raise ``ValueError`` for what no ledger takes as a batch: too many claims, or two on the same transaction."""
    if len(items) > MAX_CLAIMS:
        raise ValueError(f"{len(items)} claims: expected at most {MAX_CLAIMS} a batch")
    if len({item.transaction_id for item in items}) < len(items):
        raise ValueError("two claims on the same transaction: expected different ones in a batch")
