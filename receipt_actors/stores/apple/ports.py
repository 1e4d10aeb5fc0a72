"""What the service needs of Apple, as Protocols. ``client`` and ``signatures`` have the adapters.

Every method blocks, is called from I/O threads (several at once), and raises only what ``errors`` lists.
``AppStoreTransfers`` and ``SignedDataCalls`` return at once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final, Protocol, TypeAlias, runtime_checkable

from receipt_actors.domain.ports import Environment
from receipt_actors.domain.reasons import Reason


class AppStore(Protocol):
    """Apple's verifyReceipt, or something that answers like it."""

    def verify_receipt(
        self, receipt_data: str, environment: Environment, *, shared_secret: str | None = None
    ) -> Mapping[str, object]:
        """POST one receipt to the endpoint of ``environment`` and return the JSON object of the answer.

        ``shared_secret`` is given for an app that has another one than the client knows of.

        Raises ``AppStoreUnavailable`` for no connection, a time-out, any HTTP status but 200, and a 200 whose body
        is no JSON object or lacks an integer ``status`` (Apple has served web pages with status 200 in an outage).
        """


@runtime_checkable
class AppStoreTransfers(Protocol):
    """What an ``AppStore`` may have besides: a way without a thread that waits, for any number of questions at once.

    A client that has ``begin`` is asked by that alone.
    """

    def begin(
        self,
        receipt_data: str,
        environment: Environment,
        done: Callable[[Mapping[str, object] | Exception], object],
        *,
        shared_secret: str | None = None,
    ) -> None:
        """Begin what ``AppStore.verify_receipt`` does, and return at once.

        ``done`` is called exactly once, perhaps before this returns, on whatever thread: with the answer, or with an
        ``AppStoreUnavailable`` (anything else is a bug). It must be quick, for others' answers wait behind it; what it
        raises is logged.
        """


@dataclass(frozen=True, slots=True)
class SignatureRefused:
    """What claims to be signed by Apple is not. Final: the same bytes are refused for ever."""

    reason: Reason
    detail: str  #: one short line for the operator, nothing of what was signed


class SignedData(Protocol):
    """Verifies what Apple signed (JWS), offline: a computation of about a millisecond, and no network.

    Each method returns the payload, now known to be Apple's, as JSON has it; or why it is not. Raises
    ``ConfigurationError`` where Apple signed it at a time that this machine's clock has yet to reach (by more than 15
    minutes): it is the clock that is wrong. Never raises for anything else that a string can hold.
    """

    def verify_transaction(self, signed: str) -> Mapping[str, object] | SignatureRefused:
        """Verify a ``signedTransaction`` of StoreKit 2, or a ``signedTransactionInfo`` of the Server API."""

    def verify_notification(self, signed: str) -> Mapping[str, object] | SignatureRefused:
        """Verify the ``signedPayload`` of a Server Notification V2."""


class SignedKind(StrEnum):
    """What Apple signed: which of the two methods of ``SignedData`` is meant."""

    TRANSACTION = "transaction"
    NOTIFICATION = "notification"


#: Of a verification: the payload, why it is not Apple's, or what kept it from being verified.
Outcome: TypeAlias = Mapping[str, object] | SignatureRefused | Exception


class SignedDataCalls(Protocol):
    """``SignedData`` without a thread that computes: the work is done elsewhere, any number of them at once."""

    def begin(self, kind: SignedKind, signed: str, done: Callable[[Outcome], Any]) -> None:
        """Begin what the method of ``SignedData`` does, and return at once.

        ``done`` is called exactly once, perhaps before this returns, on whatever thread: with what the method returns,
        or with an ``AppStoreUnavailable`` where nobody can do the work just now, or a ``ConfigurationError`` where what
        it takes is not here, or the clock is wrong (anything else is a bug). It must be quick, for others' answers wait
        behind it; what it raises is logged.
        """


#: The ``errorCode`` that stands for HTTP 401, which Apple answers without one (its codes begin with the HTTP status).
UNAUTHORIZED: Final = 4010000


class ServerApi(Protocol):
    """The App Store Server API, or something that answers like it."""

    def transaction_id_of(self, receipt_data: str) -> str | None:
        """Read the id of a transaction from an app receipt, whoever made that up; None where it holds none. No network.

        What is returned has 1 to 64 letters, digits, ``-`` and ``_``. Never raises for anything that a string can hold.
        """

    def get_transaction_info(
        self, transaction_id: str, environment: Environment, *, bundle_id: str | None = None
    ) -> Mapping[str, object]:
        """Look one transaction up and return the JSON object of the answer: a 200, or an error that Apple documents.

        ``bundle_id`` is given for another app than the one that the client asks for by itself, of the same account.

        An error has Apple's ``errorCode`` in it, and a 401 ``UNAUTHORIZED``. Raises ``AppStoreUnavailable`` for
        whatever may pass: no connection, time-outs, 429 (with its ``Retry-After``, a UNIX time in milliseconds), 5xx,
        answers that are no JSON object.
        """


@runtime_checkable
class ServerApiTransfers(Protocol):
    """What a ``ServerApi`` may have besides, as ``AppStoreTransfers``."""

    def begin(
        self,
        transaction_id: str,
        environment: Environment,
        done: Callable[[Mapping[str, object] | Exception], object],
        *,
        bundle_id: str | None = None,
    ) -> None:
        """Begin what ``ServerApi.get_transaction_info`` does, and return at once. See ``AppStoreTransfers.begin``."""
