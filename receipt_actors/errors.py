"""The exceptions of this package, in one small tree.

::

    ReceiptActorsError
    ├── ConfigurationError       settings that cannot work: refused at the start, every fault listed
    ├── UnavailableError         retryable: the service did not do it now, it may later
    │   ├── AppStoreUnavailable
    │   ├── QueueUnavailable
    │   └── LedgerUnavailable
    ├── SubmissionRefused        a message that could never be answered, told before it is sent
    ├── NotAnswered              a submission that gets no verdict, told to the program that waits for one
    ├── QueueRefused             permanent: this queue does not exist or may not be used
    ├── LedgerRefused            permanent: the table is missing, of another make, or may not be used
    ├── StartAbandoned           the start is not wanted any more; nothing of it is left
    ├── BatchesRefused           permanent: this ledger takes claims one by one only; nothing was claimed
    └── TraceRefused             a trace whose filters can match nothing, or that is one too many

A client raises nothing else for trouble that is to be expected. Anything else that comes out of a client is a bug:
it crashes the actor that asked, and a supervisor handles it. *After* an ``UnavailableError`` nobody knows whether the
request was carried out (an answer may have been lost on its way back): every request must be safe to repeat.
"""

from __future__ import annotations

from collections.abc import Sequence


class ReceiptActorsError(Exception):
    """Base of every error that this package raises on purpose."""


class ConfigurationError(ReceiptActorsError):
    """Settings that cannot work. ``faults`` lists all of them, one line each: what was found, what was expected."""

    def __init__(self, faults: Sequence[str]) -> None:
        super().__init__("; ".join(faults))
        self.faults = tuple(faults)


class UnavailableError(ReceiptActorsError):
    """A service failed in a way that may pass: no connection, time-out, 5xx, throttling, a garbled answer.

    ``retry_after_seconds`` is the service's own wish (HTTP ``Retry-After``), where it gave one; ``is_unknown_answer``
    says that it did answer, but what nobody knows: a web page, say; ``is_about_the_rate``, that it has had too many
    requests (429), whatever this one was. Where ``was_sent`` is False there was no connection, or not what it takes to
    make one (descriptors, credentials): the message that the request is about can't be the cause. Where ``may_pass`` is
    False only an operator can put it right (credentials that are missing or wrong, say): a start does not wait for
    that.
    """

    def __init__(
        self,
        reason: str,
        *,
        retry_after_seconds: float | None = None,
        is_unknown_answer: bool = False,
        is_about_the_rate: bool = False,
        was_sent: bool = True,
        may_pass: bool = True,
    ) -> None:
        super().__init__(reason)
        self.retry_after_seconds = retry_after_seconds
        self.is_unknown_answer = is_unknown_answer
        self.is_about_the_rate = is_about_the_rate
        self.was_sent = was_sent
        self.may_pass = may_pass


class AppStoreUnavailable(UnavailableError):
    """Apple did not give a usable answer; or nobody could verify just now what it signed."""


class QueueUnavailable(UnavailableError):
    """A queue operation as a whole failed (single failed entries of a batch are values: ``EntryFailure``)."""


class LedgerUnavailable(UnavailableError):
    """The ledger did not confirm. A claim may have been made all the same."""


class SubmissionRefused(ReceiptActorsError):
    """A message that no validator could ever answer; it was not sent."""


class NotAnswered(ReceiptActorsError):
    """A submission without a verdict; ``reason`` is a ``Reason``.

    The message is in the dead-letter queue, or back on the source queue where there is none. ``drained`` says that the
    system has ended before there was a verdict.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


class QueueRefused(ReceiptActorsError):
    """A queue that does not exist, or that we are not allowed to use. Retrying does not help; an operator does."""

    def __init__(self, queue: str, reason: str) -> None:
        super().__init__(f"queue {queue!r}: {reason}")
        self.queue = queue
        self.reason = reason


class LedgerRefused(ReceiptActorsError):
    """A ledger that cannot hold claims as it is. Told at the start; later it is only unavailable."""

    def __init__(self, table: str, reason: str) -> None:
        super().__init__(f"table {table!r}: {reason}")
        self.table = table
        self.reason = reason


class StartAbandoned(ReceiptActorsError):
    """The start is not wanted any more: somebody asked the program to end while it waited for a service."""


class BatchesRefused(ReceiptActorsError):
    """A ledger that takes no batches of claims. None of this batch was made; single claims may work all the same."""

    def __init__(self, table: str, reason: str) -> None:
        super().__init__(f"table {table!r}: {reason}")
        self.table = table
        self.reason = reason


class TraceRefused(ReceiptActorsError):
    """A trace that can't be: a filter that matches no event, a bound that is too high, or one trace too many."""
