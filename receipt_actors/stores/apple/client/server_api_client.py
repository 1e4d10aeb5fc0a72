"""The App Store Server API over HTTP: the client behind the port ``ServerApi``."""

# Not by Apple's app-store-server-library: each of its requests takes a new connection and a new token, an answer may
# drip for ever and be of any size, and the Retry-After of a 429 is lost.

from __future__ import annotations

import copy
import http.client
import threading
import time
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final

import jwt
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from receipt_actors.domain.ports import Environment
from receipt_actors.errors import AppStoreUnavailable, ConfigurationError
from receipt_actors.stores.apple.client.endpoints import Endpoint
from receipt_actors.stores.apple.client.receipt_ids import is_transaction_id, transaction_id_of
from receipt_actors.stores.apple.client.verify_receipt_client import (
    Answer,
    Client,
    is_usual,
    no_answer,
    no_use,
    parse_object,
)
from receipt_actors.stores.apple.fields import is_integer
from receipt_actors.stores.apple.ports import UNAUTHORIZED
from receipt_actors.transport.messages import HttpRequest, HttpResponse, RequestFailed, Transport, wait_for

TOKEN_SECONDS = 20 * 60  #: how long a token is good for; Apple takes no more than an hour
RENEWED_SECONDS = 15 * 60  #: after which the next one is made, long before Apple's clock can call it old

_HEADERS = ("Accept: application/json", "User-Agent: receipt-actors")
_UNAUTHORIZED: Final[Mapping[str, object]] = MappingProxyType({"errorCode": UNAUTHORIZED})


class ServerApiClient(Client):
    """The port ``ServerApi``."""

    def __init__(self, transport: Transport, endpoints: Mapping[Environment, Endpoint], token: Token) -> None:
        super().__init__(transport, endpoints)
        self._tokens: dict[str | None, Token] = {None: token}  # by app

    def transaction_id_of(self, receipt_data: str) -> str | None:
        return transaction_id_of(receipt_data)

    def get_transaction_info(
        self, transaction_id: str, environment: Environment, *, bundle_id: str | None = None
    ) -> Mapping[str, object]:
        return wait_for(lambda done: self.begin(transaction_id, environment, done, bundle_id=bundle_id))

    def begin(
        self,
        transaction_id: str,
        environment: Environment,
        done: Callable[[Answer], object],
        *,
        bundle_id: str | None = None,
    ) -> None:
        """Do what ``get_transaction_info`` does, as ``VerifyReceiptClient.begin`` does."""
        if not is_transaction_id(transaction_id):  # it is part of a URL, to which our token goes
            raise ValueError("a transaction id has 1 to 64 letters, digits, - and _")
        endpoint = self._endpoints[environment]
        url = f"{endpoint.url.rstrip('/')}/inApps/v1/transactions/{transaction_id}"
        of_app = self._token_of(bundle_id)

        def ask(may_renew: bool) -> None:
            token, is_new = of_app.current()

            def take(answer: Answer) -> None:
                if answer is _UNAUTHORIZED and may_renew and not is_new:  # clocks are set, and keys are replaced
                    of_app.forget(token)
                    ask(may_renew=False)
                else:
                    done(answer)

            request = HttpRequest(endpoint.server, url, (*_HEADERS, f"Authorization: Bearer {token}"))
            self._ask(request, lambda outcome: _read(environment, outcome, token), take)

        ask(may_renew=True)

    def _token_of(self, bundle_id: str | None) -> Token:
        if bundle_id not in self._tokens:
            assert bundle_id is not None
            self._tokens.setdefault(bundle_id, self._tokens[None].of_app(bundle_id))  # of two threads, the first's
        return self._tokens[bundle_id]


class Token:
    """What tells Apple who asks: a JWT, signed once and then used for a while (a signature takes longer than a GET).

    ``key`` is the text of the .p8 file. Raises ``ConfigurationError`` unless it is a private key on the curve P-256.
    """

    def __init__(
        self,
        key: str,
        key_id: str,
        issuer_id: str,
        bundle_id: str,
        wall_clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._key = _private_key(key)
        self._key_id = key_id
        self._claims = {"iss": issuer_id, "aud": "appstoreconnect-v1", "bid": bundle_id}
        self._wall_clock = wall_clock
        self._monotonic = monotonic
        self._lock = threading.Lock()  # guards the two below
        self._token: str | None = None
        self._renewed_at_seconds = 0.0  # monotonic

    def of_app(self, bundle_id: str) -> Token:
        other = copy.copy(self)
        other._claims = {**self._claims, "bid": bundle_id}
        other._lock = threading.Lock()
        other._token = None
        return other

    def current(self) -> tuple[str, bool]:
        """Return a token that is good for some minutes at least, and whether it was made just now."""
        with self._lock:
            now = self._monotonic()
            is_new = self._token is None or now >= self._renewed_at_seconds
            if is_new:
                self._token = self._signed()
                self._renewed_at_seconds = now + RENEWED_SECONDS
            assert self._token is not None
            return self._token, is_new

    def forget(self, token: str) -> None:
        with self._lock:
            if self._token == token:
                self._token = None

    def _signed(self) -> str:
        issued_at = int(self._wall_clock())
        claims = {**self._claims, "iat": issued_at, "exp": issued_at + TOKEN_SECONDS}
        return jwt.encode(claims, self._key, algorithm="ES256", headers={"kid": self._key_id})


def _private_key(text: str) -> EllipticCurvePrivateKey:
    try:
        key = load_pem_private_key(text.encode(), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):  # no PEM; encrypted; of some other kind
        key = None
    if isinstance(key, EllipticCurvePrivateKey) and isinstance(key.curve, SECP256R1):
        return key
    raise ConfigurationError(
        [
            "key of the App Store Server API: found no private key on the curve P-256, expected the text of the .p8 "
            "file of App Store Connect; check server_api_key"
        ]
    )


def _read(
    environment: Environment, outcome: HttpResponse | RequestFailed, token: str
) -> Mapping[str, object] | AppStoreUnavailable:
    if isinstance(outcome, RequestFailed):
        return no_answer(environment, outcome, [token])
    status = outcome.status
    if status == http.client.UNAUTHORIZED:
        return _UNAUTHORIZED
    if not is_usual(status):
        try:
            fields = parse_object(outcome.body)
            if status == http.client.OK or is_integer(fields.get("errorCode")):
                return fields
        except ValueError:
            pass
    is_about_the_rate = status == http.client.TOO_MANY_REQUESTS
    return no_use(f"{environment} App Store Server API", outcome, [token], is_about_the_rate=is_about_the_rate)
