"""The client of Apple's verifyReceipt, against canned answers, the simulated App Store, and servers that misbehave."""

from __future__ import annotations

import gzip
import json
import socket
import ssl
import threading
import urllib.parse
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path

import pytest
import responses
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st

from receipt_actors.clients.app_store import (
    MAX_ANSWER_BYTES,
    MAX_RETRY_AFTER_SECONDS,
    VerifyReceiptClient,
    parse_answer,
    retry_after_seconds,
)
from receipt_actors.domain.ports import Environment
from receipt_actors.errors import AppStoreUnavailable, ConfigurationError
from receipt_actors.sandbox.app_store import SimulatedAppStore
from receipt_actors.sandbox.receipts import Fault, Purchase, SampleReceipt, mint

PRODUCTION_URL = "https://buy.example.com/verifyReceipt"
SANDBOX_URL = "https://sandbox.example.com/verifyReceipt"
SECRET = "5f0c8e6d9b7a41c2a3d4e5f60718293a"
RECEIPT = mint(SampleReceipt("com.example.game", (Purchase("1000000001"),)), padding_bytes=2000)


@contextmanager
def client_of(
    production_url: str = PRODUCTION_URL,
    sandbox_url: str = SANDBOX_URL,
    *,
    shared_secret: str | None = SECRET,
    connect_timeout_seconds: float = 5.0,
    read_timeout_seconds: float = 10.0,
) -> Iterator[VerifyReceiptClient]:
    client = VerifyReceiptClient(
        production_url, sandbox_url, shared_secret, connect_timeout_seconds, read_timeout_seconds, pool_size=4
    )
    try:
        yield client
    finally:
        client.close()


def read_request(connection: socket.socket) -> None:
    """Read it all: to close a connection with something unread in it would reset it, answer and all."""
    with connection.makefile("rb") as stream:
        headers = dict(line.split(b": ") for line in iter(stream.readline, b"\r\n") if b": " in line)
        stream.read(int(headers[b"Content-Length"]))


@contextmanager
def raw_server(converse: Callable[[socket.socket], None], tls: ssl.SSLContext | None = None) -> Iterator[str]:
    """Accept connections one after the other, read a request from each and hand it to ``converse``; yields the URL."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            try:
                if tls is not None:
                    connection = tls.wrap_socket(connection, server_side=True)
                with connection:
                    read_request(connection)
                    converse(connection)
            except OSError:
                continue  # the client hung up, which some tests are about

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    scheme = "http" if tls is None else "https"
    try:
        yield f"{scheme}://127.0.0.1:{listener.getsockname()[1]}/verifyReceipt"
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(10)


def answers(body: bytes, head: bytes = b"") -> Callable[[socket.socket], None]:
    """Answer HTTP 200 with the body as it is."""

    def converse(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n%s\r\n%s" % (len(body), head, body))

    return converse


class Recorder(ThreadingHTTPServer):
    """An HTTP server that remembers connections, paths and headers, and sets a cookie."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _RecorderHandler)
        self.connections: set[object] = set()
        self.paths: list[str] = []
        self.cookies: list[str | None] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _RecorderHandler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Recorder

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.server.connections.add(self.client_address)
        self.server.paths.append(self.path)
        self.server.cookies.append(self.headers["Cookie"])
        self.send_response(200)
        self.send_header("Set-Cookie", "session=1; Path=/")
        self.send_header("Content-Length", "12")
        self.end_headers()
        self.wfile.write(b'{"status":0}')

    def log_message(self, *_: object) -> None:
        """Stay silent."""


@pytest.fixture
def recorder() -> Iterator[Recorder]:
    with Recorder() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join(10)


def unavailable(client: VerifyReceiptClient, environment: Environment = Environment.PRODUCTION) -> AppStoreUnavailable:
    with pytest.raises(AppStoreUnavailable) as raised:
        client.verify_receipt(RECEIPT, environment)
    return raised.value


# What is asked


@responses.activate
@pytest.mark.parametrize(
    ("environment", "url"), [(Environment.PRODUCTION, PRODUCTION_URL), (Environment.SANDBOX, SANDBOX_URL)]
)
def test_receipt_and_secret_are_posted_to_the_endpoint_of_the_environment(environment: Environment, url: str) -> None:
    """The receipt goes to the URL of its environment, as JSON, with the shared secret as password."""
    responses.post(url, json={"status": 0, "environment": str(environment)})
    with client_of() as client:
        answer = client.verify_receipt(RECEIPT, environment)
    assert answer == {"status": 0, "environment": str(environment)}
    (call,) = responses.calls
    assert json.loads(call.request.body or "") == {"receipt-data": RECEIPT, "password": SECRET}
    assert call.request.headers["Content-Type"] == "application/json"


@responses.activate
def test_no_password_is_sent_without_a_secret() -> None:
    """Without a shared secret the request holds the receipt only."""
    responses.post(PRODUCTION_URL, json={"status": 0})
    with client_of(shared_secret=None) as client:
        client.verify_receipt(RECEIPT, Environment.PRODUCTION)
    assert json.loads(responses.calls[0].request.body or "") == {"receipt-data": RECEIPT}


@pytest.mark.parametrize(
    "url", ["", "buy.itunes.apple.com/verifyReceipt", "ftp://example.com/", "https://", "file:///x"]
)
def test_urls_that_cannot_work_are_refused_at_once(url: str) -> None:
    """A URL without scheme or host, or of another scheme, is a fault of the configuration, not an outage of Apple."""
    with pytest.raises(ConfigurationError, match="Sandbox App Store"):
        VerifyReceiptClient(PRODUCTION_URL, url, None, 1.0, 1.0, pool_size=1)


# What is answered


@responses.activate
@pytest.mark.parametrize(
    ("status", "body", "cause"),
    [
        (500, b"oops", "HTTP 500: 'oops'"),
        (503, b"<html>busy</html>", "HTTP 503: '<html>busy</html>'"),
        (429, b"", "HTTP 429"),
        (404, b"", "HTTP 404"),
        (403, b'{"status": 0}', "HTTP 403"),
        (201, b'{"status": 0}', "HTTP 201"),
        (200, b"<html>We'll be back soon</html>", "no JSON: "),
        (200, b"", "no JSON"),
        (200, b'{"status": 0', "no JSON"),
        (200, b"\xff\xfe\xff", "no JSON"),
        (200, b"[" * 200_000, "no JSON"),
        (200, b'{"a":' * 200_000 + b"0" + b"}" * 200_000, "no JSON"),
        (200, b'{"status": ' + b"9" * 10_000 + b"}", "no JSON"),
        (200, b'{"status": 0, "x": NaN}', "no JSON"),
        (200, b'[{"status": 0}]', "no JSON object with an integer status"),
        (200, b'{"status": 21003, "status": 0}', "a key has two values"),
        (200, b'{"status": 0, "receipt": {"in_app": [], "in_app": [1]}}', "a key has two values"),
        (200, b"0", "no JSON object with an integer status"),
        (200, b"{}", "no JSON object with an integer status"),
        (200, b'{"status": "0"}', "no JSON object with an integer status"),
        (200, b'{"status": 0.0}', "no JSON object with an integer status"),
        (200, b'{"status": false}', "no JSON object with an integer status"),
        (200, b'{"status": null}', "no JSON object with an integer status"),
    ],
)
def test_what_is_no_answer_of_apple_means_unavailable(status: int, body: bytes, cause: str) -> None:
    """Any HTTP status but 200, and a 200 without a JSON object that has an integer status, is no answer of Apple."""
    responses.post(PRODUCTION_URL, status=status, body=body)
    with client_of() as client:
        error = unavailable(client)
    assert cause in str(error)
    assert str(error).startswith("Production App Store answered HTTP")


def test_the_same_twice_is_not_ambiguous() -> None:
    """A key that is repeated with its value can only be read in one way."""
    assert parse_answer(b'{"status": 0, "status": 0, "x": {"y": [1], "y": [1]}}') == {"status": 0, "x": {"y": [1]}}


@given(
    st.binary(max_size=200) | st.recursive(st.none() | st.booleans() | st.integers() | st.text(), st.lists).map(repr)
)
def test_any_body_is_an_answer_or_refused(body: bytes | str) -> None:
    """Whatever bytes arrive, they parse to an object with an integer status or are refused with a ValueError."""
    data = body if isinstance(body, bytes) else body.encode("utf-8", "surrogatepass")
    try:
        answer = parse_answer(data)
    except ValueError:
        return
    assert type(answer["status"]) is int


@responses.activate
@pytest.mark.parametrize(("header", "seconds"), [("7", 7.0), (None, None), ("soon", None)])
@pytest.mark.parametrize("status", [429, 503])
def test_retry_after_is_passed_on(status: int, header: str | None, seconds: float | None) -> None:
    """The service's wish to be left alone reaches the caller."""
    responses.post(PRODUCTION_URL, status=status, headers={} if header is None else {"Retry-After": header})
    with client_of() as client:
        assert unavailable(client).retry_after_seconds == seconds


NOW_SECONDS = datetime(2026, 1, 1, 12, 0, 0, tzinfo=UTC).timestamp()


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("0", 0.0),
        (" 120 ", 120.0),
        ("1767268830000", MAX_RETRY_AFTER_SECONDS),
        ("9" * 5000, MAX_RETRY_AFTER_SECONDS),
        ("Thu, 01 Jan 2026 12:00:30 GMT", 30.0),
        ("Thu, 01 Jan 2026 12:00:30 -0000", 30.0),
        ("Thu, 01 Jan 2026 11:00:00 GMT", 0.0),
        ("Fri, 01 Jan 2027 12:00:00 GMT", MAX_RETRY_AFTER_SECONDS),
        ("", None),
        ("-5", None),
        ("1.5", None),
        ("Thu, 01 Jan 99999999999999999999 12:00:00 GMT", None),
    ],
)
def test_retry_after_is_seconds_or_a_date_within_an_hour(header: str, seconds: float | None) -> None:
    """Seconds and HTTP dates count, the past as 0; too long a wait is cut, garbage is ignored."""
    assert retry_after_seconds(header, NOW_SECONDS) == seconds


@given(st.text() | st.from_regex(r"[A-Z][a-z]{2}, [0-9]{1,4} [A-Z][a-z]{2} [0-9]{1,12} [0-9:]{1,9} [+-]?[0-9A-Z]{1,8}"))
def test_any_retry_after_is_survived(header: str) -> None:
    """No header, however garbled, brings more than a wait within bounds."""
    seconds = retry_after_seconds(header, NOW_SECONDS)
    assert seconds is None or 0 <= seconds <= MAX_RETRY_AFTER_SECONDS


# What must never be said


@responses.activate
@pytest.mark.parametrize("status", [200, 500])
@pytest.mark.parametrize(
    "echo",
    [
        lambda body: body,
        lambda body: f"<pre>{body}</pre>",
        lambda body: urllib.parse.quote(body),
        lambda body: json.dumps(json.dumps(body)),
        lambda body: body[100:1500],
        lambda body: " " * 4000 + body,
        lambda body: "x" * (4096 - 20 - body.index(SECRET)) + body,
        lambda body: " " * 4080 + SECRET,
    ],
)
def test_an_echo_of_the_request_does_not_get_into_the_reason(status: int, echo: Callable[[str], str]) -> None:
    """A server that quotes our request in its page can't make us log the receipt or the secret, whole or in part."""

    def answer(request: object) -> tuple[int, dict[str, str], str]:
        return status, {}, echo(request.body.decode())  # type: ignore[attr-defined]

    responses.add_callback(responses.POST, PRODUCTION_URL, answer)
    with client_of() as client:
        reason = str(unavailable(client))
    assert SECRET[:8] not in reason
    assert not any(RECEIPT[at : at + 24] in reason for at in range(len(RECEIPT) - 24))


@responses.activate
def test_a_reason_is_one_short_printable_line() -> None:
    """A page of many lines and control characters is quoted briefly, without what would break a log."""
    responses.post(PRODUCTION_URL, status=502, body="bad\r\n\x1b[31m gateway\x00 " * 100)
    with client_of() as client:
        reason = str(unavailable(client))
    assert reason.isprintable()
    assert "bad ?[31m gateway?" in reason
    assert len(reason) < 300


# Connections


def test_the_simulated_app_store_is_understood() -> None:
    """A genuine receipt comes back with its transaction, over a real connection."""
    with SimulatedAppStore(shared_secret=SECRET) as store, client_of(store.production_url, store.sandbox_url) as client:
        answer = client.verify_receipt(RECEIPT, Environment.PRODUCTION)
        assert client.verify_receipt(RECEIPT, Environment.SANDBOX) == {"status": 21008}
    assert answer["receipt"]["in_app"][0]["transaction_id"] == "1000000001"  # type: ignore[index]


@pytest.mark.parametrize(
    "fault", [Fault.drop(), Fault.html(), Fault.garbage(), Fault.http(500), Fault.http(302), Fault.hang(0.01)]
)
def test_an_outage_means_unavailable_and_passes(fault: Fault) -> None:
    """Whatever way the store fails, it is an AppStoreUnavailable; afterwards the same client works again."""
    with SimulatedAppStore() as store, client_of(store.production_url, store.sandbox_url) as client:
        store.outage(fault)
        unavailable(client)
        store.recover()
        assert client.verify_receipt(RECEIPT, Environment.PRODUCTION)["status"] == 0


def test_no_server_means_unavailable() -> None:
    """A refused connection is an outage, and named."""
    with SimulatedAppStore() as store:
        pass
    with client_of(store.production_url, store.sandbox_url) as client:
        assert "refused" in str(unavailable(client))


def test_a_host_that_does_not_accept_is_given_up() -> None:
    """A host that lets connections wait costs the connect time-out, no more."""
    with ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(8):  # more than the backlog takes: from then on nobody gets in
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(listener.getsockname())
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/verifyReceipt"
        client = stack.enter_context(client_of(url, url, connect_timeout_seconds=0.1))
        assert "no connection within 0.1 s" in str(unavailable(client))


def test_a_failure_whose_page_breaks_off_keeps_its_status() -> None:
    """Status and ``Retry-After`` of a failure are told though its page never comes completely."""
    data = b"HTTP/1.1 503 Busy\r\nRetry-After: 3\r\nContent-Length: 100\r\n\r\nbusy"
    with raw_server(lambda connection: connection.sendall(data)) as url, client_of(url, url) as client:
        error = unavailable(client)
    assert "HTTP 503" in str(error)
    assert error.retry_after_seconds == 3.0


def test_a_silent_server_is_given_up() -> None:
    """A server that accepts and never answers costs the read time-out, no more."""
    with SimulatedAppStore() as store:
        store.outage(Fault.hang(3600.0))
        with client_of(store.production_url, store.sandbox_url, read_timeout_seconds=0.1) as client:
            assert "not complete within 0.1 s" in str(unavailable(client))


@pytest.mark.parametrize(
    ("beginning", "drop", "end"),
    [
        (b"HTTP/1.1 200 OK\r\nX-Slow: ", b"z", b"\r\nContent-Length: 12\r\n\r\n" + b'{"status":0}'),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1012\r\n\r\n", b" ", b'{"status":0}'),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\n \r\n", b'c\r\n{"status":0}\r\n0\r\n\r\n'),
    ],
    ids=["headers", "body", "chunks"],
)
def test_a_dripping_server_is_given_up(beginning: bytes, drop: bytes, end: bytes) -> None:
    """A server that sends a little now and then never trips a socket's time-out; the deadline of the answer holds."""
    hung_up = threading.Event()

    def drip(connection: socket.socket) -> None:
        connection.sendall(beginning)
        try:
            for _ in range(1000):
                connection.sendall(drop)
                hung_up.wait(0.02)
            connection.sendall(end)
        except OSError:
            hung_up.set()
            raise

    with raw_server(drip) as url, client_of(url, url, read_timeout_seconds=0.3) as client:
        assert "not complete within 0.3 s" in str(unavailable(client))
        client.close()
        assert hung_up.wait(10)


def test_an_endless_answer_is_cut_off() -> None:
    """A body beyond the limit is not read to its end."""
    hung_up = threading.Event()

    def flood(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        try:
            for _ in range(4 * MAX_ANSWER_BYTES // 65536):
                connection.sendall(b" " * 65536)
        except OSError:
            hung_up.set()

    with raw_server(flood) as url, client_of(url, url) as client:
        assert f"more than {MAX_ANSWER_BYTES} bytes" in str(unavailable(client))
        assert hung_up.wait(10)


def test_a_compressed_answer_is_read_and_a_bomb_is_not() -> None:
    """gzip is understood, and its size counts after decompression."""
    for body, understood in ((b'{"status":0}', True), (b'{"status":0}' + b" " * (MAX_ANSWER_BYTES + 1), False)):
        compressed = answers(gzip.compress(body), b"Content-Encoding: gzip\r\n")
        with raw_server(compressed) as url, client_of(url, url) as client:
            if understood:
                assert client.verify_receipt(RECEIPT, Environment.PRODUCTION) == {"status": 0}
            else:
                assert f"more than {MAX_ANSWER_BYTES} bytes" in str(unavailable(client))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n" + b'{"status":0}',
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 12\r\n\r\n" + b'{"status":0}',
        b"HTTP/1.1 two hundred\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"X-Header: x\r\n" * 200 + b"\r\n",
        b"HTTP/1.1 200 OK\r\nX-Long: " + b"x" * 70_000,
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"\x16\x03\x01\x00\x00" * 100,
    ],
)
def test_broken_http_means_unavailable(data: bytes) -> None:
    """Truncated, contradictory or foreign protocol data is an outage, never another exception."""
    with raw_server(lambda connection: connection.sendall(data)) as url, client_of(url, url) as client:
        unavailable(client)


def test_a_redirect_is_not_followed() -> None:
    """The secret goes to the configured host only; a redirect, even to a fine App Store, is an outage."""
    with SimulatedAppStore() as store:
        location = store.production_url.encode()
        for status in (b"302 Found", b"307 Temporary Redirect", b"308 Permanent Redirect"):
            moved = b"HTTP/1.1 %s\r\nLocation: %s\r\nContent-Length: 0\r\n\r\n" % (status, location)
            with (
                raw_server(lambda connection, moved=moved: connection.sendall(moved)) as url,  # type: ignore[misc]
                client_of(url, url) as client,
            ):
                assert f"HTTP {status[:3].decode()}" in str(unavailable(client))
        assert store.statistics().requests == {}


def test_connections_are_kept_and_cookies_are_not(recorder: Recorder) -> None:
    """Requests after each other share one connection; a cookie that the server sets is never sent back."""
    with client_of(f"{recorder.url}/verifyReceipt") as client:
        for _ in range(5):
            client.verify_receipt(RECEIPT, Environment.PRODUCTION)
    assert len(recorder.connections) == 1
    assert recorder.cookies == [None] * 5


def test_a_proxy_of_the_environment_is_used(recorder: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the process environment names a proxy, requests go through it."""
    monkeypatch.setenv("http_proxy", recorder.url)
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    with client_of("http://store.invalid/verifyReceipt") as client:
        assert client.verify_receipt(RECEIPT, Environment.PRODUCTION) == {"status": 0}
    assert recorder.paths == ["http://store.invalid/verifyReceipt"]


def test_many_threads_share_a_client() -> None:
    """Every thread gets the answer to its own receipt."""
    receipts = [mint(SampleReceipt("com.example.game", (Purchase(str(number)),))) for number in range(16)]
    found: dict[int, set[str]] = {number: set() for number in range(16)}

    def ask(number: int) -> None:
        for _ in range(10):
            answer = client.verify_receipt(receipts[number], Environment.PRODUCTION)
            found[number].add(answer["receipt"]["in_app"][0]["transaction_id"])  # type: ignore[index]

    with SimulatedAppStore() as store, client_of(store.production_url, store.sandbox_url) as client:
        threads = [threading.Thread(target=ask, args=(number,)) for number in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
    assert found == {number: {str(number)} for number in range(16)}


def test_close_may_be_called_twice() -> None:
    """Closing again does nothing."""
    with SimulatedAppStore() as store, client_of(store.production_url, store.sandbox_url) as client:
        client.verify_receipt(RECEIPT, Environment.PRODUCTION)
        client.close()
        client.close()


# TLS


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate of 127.0.0.1 that nobody vouches for, with its key, in one PEM file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path_factory.mktemp("tls") / "server.pem"
    path.write_bytes(
        certificate.public_bytes(serialization.Encoding.PEM)
        + key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return path


def tls_server(certificate: Path, *, newest: ssl.TLSVersion = ssl.TLSVersion.MAXIMUM_SUPPORTED) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
    context.maximum_version = newest
    return context


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
def test_tls_is_verified_and_recent(certificate: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An unknown certificate is refused, and another host's; one of the CA bundle is fine, from TLS 1.2 on."""
    monkeypatch.delenv("REQUESTS_CA_BUNDLE", raising=False)
    monkeypatch.delenv("CURL_CA_BUNDLE", raising=False)
    with raw_server(answers(b'{"status":0}'), tls_server(certificate)) as url, client_of(url, url) as client:
        assert "certificate verify failed" in str(unavailable(client))

    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
    for newest in (ssl.TLSVersion.MAXIMUM_SUPPORTED, ssl.TLSVersion.TLSv1_2):
        tls = tls_server(certificate, newest=newest)
        with raw_server(answers(b'{"status":0}'), tls) as url, client_of(url, url) as client:
            assert client.verify_receipt(RECEIPT, Environment.PRODUCTION) == {"status": 0}

    with raw_server(answers(b'{"status":0}'), tls_server(certificate)) as url:
        by_another_name = url.replace("127.0.0.1", "localhost")
        with client_of(by_another_name, by_another_name) as client:
            assert "Hostname mismatch" in str(unavailable(client))

    tls = tls_server(certificate, newest=ssl.TLSVersion.TLSv1_1)
    with raw_server(answers(b'{"status":0}'), tls) as url, client_of(url, url) as client:
        assert "SSL" in str(unavailable(client))
