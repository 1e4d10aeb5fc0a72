"""The exceptions of this package, in one small tree.

::

    ReceiptActorsError
    ├── ConfigurationError       settings that cannot work: refused at the start, every fault listed
    ├── UnavailableError         retryable: the service did not do it now, it may later
    │   ├── AppStoreUnavailable
    │   ├── QueueUnavailable
    │   └── LedgerUnavailable
    ├── SubmissionRefused        a message that could never be answered; it was not sent
    ├── NotAnswered              a submission that gets no verdict
    ├── QueueRefused             permanent: this queue does not exist or may not be used
    ├── LedgerRefused            permanent: the table is missing, of another make, or may not be used
    ├── StartAbandoned           the start was cancelled; nothing of it is left
    ├── BatchesRefused           permanent: this ledger takes claims one by one only; nothing was claimed
    └── TraceRefused             a trace whose filters can match nothing, or one trace too many

A client raises nothing else for expected trouble. Any other exception of a client is a bug: it crashes the actor that
called, and a supervisor handles it. After an ``UnavailableError`` the request may have been carried out (the answer may
have been lost): every request must be safe to repeat.
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
    """A service failed in a way that may pass: no connection, time-out, 5xx, throttling, a garbled answer."""

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
        self.retry_after_seconds = retry_after_seconds  #: the service's own wish (HTTP ``Retry-After``)
        self.is_unknown_answer = is_unknown_answer  #: there was an answer of an unknown kind: a web page, say
        self.is_about_the_rate = is_about_the_rate  #: there were too many requests (429), whatever this one was
        #: False: there was no connection, or not what it takes to make one (descriptors, credentials). The message that
        #: the request is about can't be the cause.
        self.was_sent = was_sent
        #: False: only an operator can put it right (wrong credentials, say). A start does not wait for that.
        self.may_pass = may_pass


class AppStoreUnavailable(UnavailableError):
    """Apple gave no usable answer; or what it signed can't be verified just now."""


class QueueUnavailable(UnavailableError):
    """A whole queue operation failed (failed entries of a batch are values: ``EntryFailure``)."""


class LedgerUnavailable(UnavailableError):
    """The ledger did not confirm. A claim may have been made all the same."""


class SubmissionRefused(ReceiptActorsError):
    """A message that no validator could ever answer; it was not sent."""


class NotAnswered(ReceiptActorsError):
    """A submission without a verdict; ``reason`` is a ``Reason``.

    The message is in the dead-letter queue, or back on the source queue if there is none. The reason ``drained`` means
    that the system has ended before there was a verdict.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


class QueueRefused(ReceiptActorsError):
    """A queue that does not exist, or may not be used. Only an operator can help."""

    def __init__(self, queue: str, reason: str) -> None:
        super().__init__(f"queue {queue!r}: {reason}")
        self.queue = queue


class LedgerRefused(ReceiptActorsError):
    """A ledger that cannot hold claims as it is. Raised at the start; later the ledger is only unavailable."""

    def __init__(self, table: str, reason: str) -> None:
        super().__init__(f"table {table!r}: {reason}")


class StartAbandoned(ReceiptActorsError):
    """The program was asked to end while its start waited for a service."""


class BatchesRefused(ReceiptActorsError):
    """A ledger that takes no batches of claims. None of this batch was made; single claims may work."""

    def __init__(self, table: str, reason: str) -> None:
        super().__init__(f"table {table!r}: {reason}")


class TraceRefused(ReceiptActorsError):
    """A trace with a filter that matches no event or a bound that is too high, or one trace too many."""
