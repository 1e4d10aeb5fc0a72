"""What the service needs of Apple, as protocols; ``client`` and ``signatures`` have the adapters.

Methods that return something block, may be called from any thread, and raise only what ``errors`` lists.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final, Protocol, TypeAlias

from receipt_actors.domain.ports import Environment
from receipt_actors.domain.reasons import Reason
from receipt_actors.domain.receipts import Interpretation

#: The ``errorCode`` that stands for HTTP 401, which Apple answers without one (its codes begin with the HTTP status).
UNAUTHORIZED: Final = 4010000


class AppStore(Protocol):
    """Apple's verifyReceipt."""

    def verify_receipt(
        self, receipt_data: str, environment: Environment, *, shared_secret: str | None = None
    ) -> Mapping[str, object]:
        """POST one receipt to the endpoint of ``environment`` and return the JSON object of the answer.

        ``shared_secret`` is given for an app that has another one than the client knows of.

        Raises ``AppStoreUnavailable`` for no connection, a time-out, any HTTP status but 200, and a 200 whose body
        is no JSON object or lacks an integer ``status`` (Apple has served web pages with status 200 in an outage).
        """


class ServerApi(Protocol):
    """The App Store Server API."""

    def transaction_id_of(self, receipt_data: str) -> str | None:
        """Read the id of a transaction from an app receipt, genuine or not; None: it holds none. Total, no network.

        It has 1 to 64 letters, digits, ``-`` and ``_``.
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


@dataclass(frozen=True, slots=True)
class Signed:
    """The transaction was found, says the server; Apple says so only if this JWS can be verified."""

    signed_transaction: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class ReceiptApi:
    """One of Apple's APIs that look into app receipts, as it is called for one source queue."""

    call: Callable[[str, Environment], Mapping[str, object]]  #: blocks, and raises ``AppStoreUnavailable``
    interpret: Callable[[Mapping[str, object], Environment], Interpretation | Signed]  #: total
    first: Environment  #: which is called first
    what_to_check: str  #: by an operator, when Apple refuses our requests
    environments: frozenset[Environment]  #: where policy lets a redirect lead, beside production
    begin: Callable[..., object] | None = None  #: the same as ``call`` for a callback, if it needs no thread that waits
    question_of: Callable[[str], str | None] | None = None  #: finds what to ask for; None: the receipt itself is sent


def begin_of(client: object) -> Callable[..., object] | None:
    """Return the ``begin`` of a client that has one and needs no thread that waits."""
    return None if getattr(client, "blocks", True) else getattr(client, "begin", None)


@dataclass(frozen=True, slots=True)
class SignatureRefused:
    """What claims to be signed by Apple is not. Final: the same bytes are refused for ever."""

    reason: Reason
    detail: str  #: one short line for the operator, nothing of what was signed


class SignedKind(StrEnum):
    """What Apple signed."""

    TRANSACTION = "transaction"  #: of StoreKit 2 (``signedTransaction``), or of the Server API
    NOTIFICATION = "notification"  #: the ``signedPayload`` of a Server Notification V2


class SignedData(Protocol):
    """Verifies what Apple signed (JWS), offline: a computation of about a millisecond."""

    def verify(self, kind: SignedKind, signed: str) -> Mapping[str, object] | SignatureRefused:
        """Return the payload, now known to be Apple's, as JSON has it; or why it is not.

        Raises ``ConfigurationError`` if Apple signed it more than 15 minutes after the time of this machine's clock:
        then the clock is wrong. Never raises for anything else that a string can hold.
        """


#: Of a verification: the payload, why it is not Apple's, or what kept it from being verified.
Outcome: TypeAlias = Mapping[str, object] | SignatureRefused | Exception


class SignedDataCalls(Protocol):
    """``SignedData`` for callbacks: the work is done elsewhere, any number of verifications at once."""

    def begin(self, kind: SignedKind, signed: str, done: Callable[[Outcome], Any]) -> None:
        """Begin what ``SignedData.verify`` does, and return at once.

        ``done`` is called exactly once, perhaps before this returns, on whatever thread: with what that returns or
        raises, or with an ``AppStoreUnavailable`` if the work cannot be done now (anything else is a bug). It must
        be quick, for others' answers wait behind it; what it raises is logged.
        """
