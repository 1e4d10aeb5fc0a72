"""A simulated App Store on this machine: verifyReceipt, the Server API and notifications, over HTTP/1.1.

::

    with SimulatedAppStore(latency_seconds=0.25) as store:
        client = VerifyReceiptClient(store.production_url, store.sandbox_url, ...)
        store.outage(Fault.http(503))
        ...
        store.recover()

``sandbox.store`` has what it knows and answers; here is how it is asked, and how it fails. Under ``/simulated/`` it can
be told to sell, to refund and to fail (``sandbox.store_control``). It speaks plain HTTP and is no public server.
"""

from __future__ import annotations

import copy
import hmac
import http.client
import json
import math
import random
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Self

import jwt

from receipt_actors.domain.ports import WHOLE_PERCENTAGE, Environment
from receipt_actors.sandbox import answers
from receipt_actors.sandbox.apple_ca import Authority, Flaw
from receipt_actors.sandbox.http_server import HttpServer, Reply, Request, response
from receipt_actors.sandbox.notifications import (
    Delivery,
    NotificationSender,
    NotificationType,
    SignedNotification,
    sign_notification,
)
from receipt_actors.sandbox.receipts import DEFAULT_KEY, Fault, FaultKind, SampleReceipt, mint, read
from receipt_actors.sandbox.signed_transactions import mint_signed, read_signed
from receipt_actors.sandbox.store import Sale, Store
from receipt_actors.sandbox.store_control import StoreControl

PRODUCTION_PATH = "/production/verifyReceipt"
SANDBOX_PATH = "/sandbox/verifyReceipt"
PRODUCTION_API_PATH = "/production/inApps/v1/transactions/"
_PATHS = {PRODUCTION_PATH: Environment.PRODUCTION, SANDBOX_PATH: Environment.SANDBOX}
_API_PATHS = {PRODUCTION_API_PATH: Environment.PRODUCTION, "/sandbox/inApps/v1/transactions/": Environment.SANDBOX}
MAX_TOKEN_SECONDS = 60 * 60  #: that a bearer token may be good for, says Apple
AUDIENCE = "appstoreconnect-v1"
_SKEW_SECONDS = 60
CONTROL_PATH = "/simulated/"
KEY_FILE = "simulated-app-store-key.p8"
ROOTS_FOLDER = "roots"

_WEB_PAGE = b"<!DOCTYPE html><html><head><title>App Store</title></head><body>We'll be back soon.</body></html>"

_Said = tuple[str, Reply]  # what it counts as, and what is sent


@dataclass(frozen=True, slots=True)
class StoreStatistics:
    """What the simulated App Store has seen since it started."""

    requests: Counter[Environment] = field(default_factory=Counter)  #: to verifyReceipt, by endpoint
    #: By Apple status ("0", "21007"), "HTTP 503", or the kind of a fault ("html", "drop").
    answers: Counter[str] = field(default_factory=Counter)
    api_requests: Counter[Environment] = field(default_factory=Counter)  #: to the Server API, by endpoint
    api_answers: Counter[str] = field(default_factory=Counter)  #: by status or ``errorCode``, or as in ``answers``
    concurrent_requests_high_water: int = 0  #: the most that waited for their answers at one time


@dataclass(frozen=True, slots=True)
class StoreFiles:
    """What a program that trusts this store needs as files and settings."""

    roots: Path  #: a directory with its root certificate
    key: Path  #: the private key for the Server API (PEM), as App Store Connect gives one out
    key_id: str
    issuer_id: str


class SimulatedAppStore(Store):
    """The store. ``start`` and ``stop`` it, or use it as a context manager; once stopped it stays stopped.

    Every answer takes ``latency_seconds`` and, at random, up to ``jitter_seconds`` more. With a ``shared_secret`` every
    request needs it as its password (else 21004). ``key`` is what genuine receipts are minted under, and what all that
    is signed follows from. Port 0 takes any free port. All methods may be called from any thread.

    Of the Server API it answers ``api_requests_per_second`` at most (Apple: 50 for an app), and any number without.
    Notifications go to ``notification_url``, and come again as Apple's do, with hours of ``notification_hour_seconds``;
    ``on_delivery`` hears of each POST.
    """

    def __init__(
        self,
        host: str = "127.0.0.1",
        port: int = 0,
        *,
        latency_seconds: float = 0.0,
        jitter_seconds: float = 0.0,
        shared_secret: str | None = None,
        key: bytes = DEFAULT_KEY,
        api_requests_per_second: int | None = None,
        notification_url: str | None = None,
        notification_hour_seconds: float = 1.0,
        on_delivery: Callable[[Delivery], object] = lambda delivery: None,
    ) -> None:
        self.authority = Authority(key)
        super().__init__(self.authority.sign, key=key)
        self._server = HttpServer(self._handle, host, port)
        self._latency_seconds = latency_seconds
        self._jitter_seconds = jitter_seconds
        self._random = random.Random(0)
        self._shared_secret = shared_secret
        self._outage: Fault | None = None
        self._api_requests_per_second = api_requests_per_second
        self._last_second: deque[float] = deque()  # when the Server API was asked; of the server's thread
        self._control = StoreControl(self)
        self.notification_url = notification_url  #: where notifications go, unless another URL is given with one
        self._notifications = NotificationSender(hour_seconds=notification_hour_seconds, on_delivery=on_delivery)
        self._seen = StoreStatistics()  # written by the server's thread

    def start(self) -> Self:
        """Listen and serve. Raises ``OSError`` where the address can't be had."""
        self._server.start()
        return self

    def stop(self) -> None:
        """Close every connection, answered or not, and end its threads. May be called twice."""
        self._server.stop()
        self._notifications.stop()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def url(self) -> str:
        return self._server.url

    @property
    def production_url(self) -> str:
        return f"{self.url}{PRODUCTION_PATH}"

    @property
    def sandbox_url(self) -> str:
        return f"{self.url}{SANDBOX_PATH}"

    def write_files(self, folder: Path) -> StoreFiles:
        """Write its root certificate and the key for its Server API into a folder: what settings name."""
        pair = self.authority.server_api_key
        roots = self.authority.write_roots(folder / ROOTS_FOLDER).parent
        key = folder / KEY_FILE
        key.touch(mode=0o600)
        key.write_bytes(pair.private_key_pem)
        return StoreFiles(roots, key, pair.key_id, pair.issuer_id)

    # --- what it sells ---

    def sell(self, receipt: SampleReceipt) -> str:
        """Mint a receipt (``receipts.mint``), and remember its purchases."""
        self.record(receipt)
        return mint(receipt, key=self._key)

    def sell_signed(self, receipt: SampleReceipt, *, flaw: Flaw | None = None) -> str:
        """Mint a signed transaction (``signed_transactions.mint_signed``), and remember it."""
        self.record(receipt)
        return mint_signed(receipt, authority=self.authority, flaw=flaw)

    def read(self, receipt_data: str) -> SampleReceipt:
        """Read what was minted under this store's key, a receipt or a signed transaction.

        Raises ``MalformedReceipt`` or ``ForgedReceipt``.
        """
        if "." in receipt_data:
            return read_signed(receipt_data, authority=self.authority)
        return read(receipt_data, key=self._key)

    def refund(self, transaction_id: str, type_: str | None = None, percentage: int | None = None) -> Sale:
        """Refund a purchase now, without a notification (see ``notify``). ``KeyError``: it was never sold here."""
        return self.cancel(transaction_id, int(time.time() * 1000), type_, percentage)

    def notify(
        self,
        notification_type: str,
        transaction_id: str | None = None,
        *,
        subtype: str | None = None,
        bundle_id: str | None = None,
        url: str | None = None,
        revocation_percentage: int = WHOLE_PERCENTAGE,
    ) -> SignedNotification:
        """Have something happen to a purchase, and send a notification of it (to ``notification_url``, by default).

        ``REFUND`` and ``REVOKE`` cancel the purchase, ``REFUND_REVERSED`` takes that back. ``revocation_percentage`` is
        how much of it a ``REFUND`` gives back by now, in Apple's milliunits. ``TEST`` is about no purchase, but about
        an app (``bundle_id``). Without any URL it is signed and returned only. ``KeyError``: such a transaction was
        never sold here. ``ValueError``: no such type, or neither a transaction nor a bundle id.
        """
        type_ = NotificationType(notification_type)
        sale = None
        if transaction_id is not None:
            match type_:
                case NotificationType.REFUND:
                    kind = "REFUND_FULL" if revocation_percentage == WHOLE_PERCENTAGE else "REFUND_PRORATED"
                    sale = self.refund(transaction_id, kind, revocation_percentage)
                case NotificationType.REVOKE:
                    sale = self.refund(transaction_id, "FAMILY_REVOKE")
                case NotificationType.REFUND_REVERSED:
                    sale = self.cancel(transaction_id, None)
                case _:
                    sale = self.find(transaction_id)
            if sale is None:
                raise KeyError(transaction_id)
        notification = sign_notification(type_, sale, self.authority, subtype=subtype, bundle_id=bundle_id)
        target = url or self.notification_url
        if target is not None:
            self._notifications.send(target, notification)
        return notification

    @property
    def deliveries(self) -> Sequence[Delivery]:
        return self._notifications.deliveries

    def wait_until_delivered(self, timeout_seconds: float) -> bool:
        """Wait until every notification is accepted or given up; False if that takes longer."""
        return self._notifications.wait_until_idle(timeout_seconds)

    # --- how it fails ---

    def outage(self, fault: Fault) -> None:
        """From now on every request, at any endpoint of Apple's, meets this fault."""
        self._outage = fault

    def recover(self) -> None:
        """End the outage; connections that hang are closed at once."""
        self._outage = None
        self._server.drop_hanging()

    def statistics(self) -> StoreStatistics:
        return replace(
            copy.deepcopy(self._seen), concurrent_requests_high_water=self._server.concurrent_requests_high_water
        )

    # --- its endpoints ---

    def _handle(self, request: Request) -> Reply | None:
        method, path = request.method, request.path
        if path.startswith(CONTROL_PATH):
            status, content = self._control.handle(method, path.removeprefix(CONTROL_PATH), request.body)
            return Reply(response(status, json.dumps(content).encode()))
        start, slash, transaction_id = path.rpartition("/")
        if (environment := _PATHS.get(path)) is not None:
            self._seen.requests[environment] += 1
            label, reply = self._verify_receipt(environment, request)
            self._seen.answers[label] += 1
        elif (environment := _API_PATHS.get(start + slash)) is not None:
            self._seen.api_requests[environment] += 1
            label, reply = self._transaction_info(environment, request, transaction_id)
            self._seen.api_answers[label] += 1
        else:
            return Reply(response(http.client.NOT_FOUND, b"", "text/plain"))
        return reply

    def _verify_receipt(self, environment: Environment, request: Request) -> _Said:
        if self._outage is not None:
            return self._fault(self._outage)
        if request.method != "POST":
            return self._json({"status": answers.NOT_A_POST})
        receipt_data, password = answers.read_question(request.body)
        if receipt_data is None:
            return self._json({"status": answers.MALFORMED})
        if not self._knows_secret(password):
            return self._json({"status": answers.WRONG_SHARED_SECRET})
        return self._judge(receipt_data, environment)

    def _judge(self, receipt_data: str, environment: Environment) -> _Said:
        answer = self.verify_receipt(receipt_data, environment)
        return self._fault(answer) if isinstance(answer, Fault) else self._json(answer)

    def _knows_secret(self, password: object) -> bool:
        if self._shared_secret is None:
            return True
        given = password if isinstance(password, str) else ""
        return hmac.compare_digest(given.encode("utf-8", "replace"), self._shared_secret.encode())

    def _transaction_info(self, environment: Environment, request: Request, transaction_id: str) -> _Said:
        if self._outage is not None:
            return self._api_fault(self._outage)
        if request.method != "GET":
            return self._reply(http.client.METHOD_NOT_ALLOWED, b"", "text/plain")
        bundle_id = self._bundle_id_of(request.header("authorization") or "")
        if bundle_id is None:
            return self._reply(http.client.UNAUTHORIZED, b"Unauthenticated", "text/plain")
        if self._is_over_rate():
            return self._api_fault(Fault.rate_limit(1.0))
        return self._look_up(transaction_id, environment, bundle_id)

    def _look_up(self, transaction_id: str, environment: Environment, bundle_id: str) -> _Said:
        answer = self.transaction_info(transaction_id, environment, bundle_id)
        return self._api_fault(answer) if isinstance(answer, Fault) else self._json(answer)

    def _bundle_id_of(self, authorization: str) -> str | None:
        """Say which app a bearer token is for (``bid``); None if it is none of ours, or no longer good."""
        scheme, _, token = authorization.partition(" ")
        pair = self.authority.server_api_key
        latest_end = time.time() + MAX_TOKEN_SECONDS + _SKEW_SECONDS
        with suppress(jwt.InvalidTokenError):
            content = jwt.decode(
                token.strip(),
                pair.public_key,
                ["ES256"],
                {"require": ["exp", "iss", "aud"]},
                audience=AUDIENCE,
                issuer=pair.issuer_id,
                leeway=_SKEW_SECONDS,
            )
            bundle_id = content.get("bid")
            is_ours = scheme.lower() == "bearer" and jwt.get_unverified_header(token).get("kid") == pair.key_id
            if is_ours and isinstance(bundle_id, str) and int(content["exp"]) <= latest_end:
                return bundle_id
        return None

    def _is_over_rate(self) -> bool:
        if self._api_requests_per_second is None:
            return False
        now = time.monotonic()
        while self._last_second and self._last_second[0] <= now - 1:
            self._last_second.popleft()
        if len(self._last_second) >= self._api_requests_per_second:
            return True
        self._last_second.append(now)
        return False

    # --- its words ---

    def _json(self, answer: answers.Answer, *headers: str) -> _Said:
        status = answers.http_status(answer)
        label = str(answer.get("status", answer.get("errorCode", status)))
        return label, self._reply(status, json.dumps(answer).encode(), "application/json", *headers)[1]

    def _fault(self, fault: Fault) -> _Said:
        match fault.kind:
            case FaultKind.APPLE:
                retryable = {} if fault.is_retryable is None else {"is-retryable": fault.is_retryable}
                return self._json({"status": fault.status, **retryable})
            case FaultKind.HTTP:
                headers = () if fault.retry_after is None else (f"Retry-After: {fault.retry_after}",)
                return self._reply(fault.status, _WEB_PAGE, "text/html", *headers)
            case FaultKind.RATE_LIMIT:
                wait = f"Retry-After: {math.ceil(fault.seconds)}"
                return self._reply(http.client.TOO_MANY_REQUESTS, _WEB_PAGE, "text/html", wait)
            case FaultKind.HTML:
                return "html", self._reply(http.client.OK, _WEB_PAGE, "text/html")[1]
            case FaultKind.GARBAGE:
                return "garbage", self._reply(http.client.OK, b'{"status": 0, "receipt": {', "application/json")[1]
            case FaultKind.DROP:
                return "drop", Reply(b"", self._delay_seconds())
            case FaultKind.HANG:
                return "hang", Reply(b"", fault.seconds, hangs=True)
            case FaultKind.TRICKLE:
                data = response(http.client.OK, b'{"status": 21005}')
                return "trickle", Reply(data, hangs=True, byte_seconds=fault.seconds)

    def _api_fault(self, fault: Fault) -> _Said:
        match fault.kind:
            case FaultKind.APPLE:
                is_code = 4_000_000 <= fault.status < 6_000_000
                return self._json(answers.api_error(fault.status if is_code else answers.API_INTERNAL_RETRYABLE))
            case FaultKind.RATE_LIMIT:
                again_at_ms = math.ceil((time.time() + fault.seconds) * 1000)
                error = answers.api_error(answers.API_RATE_LIMIT_EXCEEDED)
                return self._json(error, f"Retry-After: {again_at_ms}")
        return self._fault(fault)

    def _reply(self, status: int, body: bytes, content_type: str, *headers: str) -> _Said:
        return f"HTTP {status}", Reply(response(status, body, content_type, *headers), self._delay_seconds())

    def _delay_seconds(self) -> float:
        return self._latency_seconds + self._jitter_seconds * self._random.random()
