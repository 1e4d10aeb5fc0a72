"""The short way of boto3's requests: the connections under it, what travels over them, and when it is not taken.

``test_aws`` and the contracts of the ports go this way too; here is what they cannot see. Servers are real sockets.
"""

from __future__ import annotations

import json
import socket
import ssl
import sys
import threading
import zlib
from calendar import timegm
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, suppress
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from time import strptime
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import boto3
import botocore
import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest, AWSResponse
from botocore.credentials import ReadOnlyCredentials
from botocore.exceptions import (
    BotoCoreError,
    ConnectionClosedError,
    EndpointConnectionError,
    HTTPClientError,
    ReadTimeoutError,
)
from botocore.signers import RequestSigner
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st
from receipt_actors.aws.http_answer import MAX_ANSWER_BYTES, HttpAnswer, Origin
from receipt_actors.aws.http_pool import HttpPool
from receipt_actors.aws.signature import sign
from receipt_actors.aws.steps import Exchange, Steps, as_call

from receipt_actors.aws import AwsLedger, AwsLoop, AwsQueues, connection, short_way
from receipt_actors.domain.ports import OutgoingMessage
from receipt_actors.errors import LedgerUnavailable, QueueUnavailable
from tests.backends.conftest import OnLoop
from tests.backends.test_aws import ITEM, ITEMS, QUEUE, md5
from tests.patience import PATIENCE_SECONDS
from tests.ports import reserved_port

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"


class Asked(NamedTuple):
    """A request that a server got, and on which of its connections (0 is the first)."""

    connection: int
    target: str  #: of the request line
    headers: Mapping[str, str]  #: names in lower case
    body: bytes


class Wire:
    """A server on loopback that takes requests down and sends back the very bytes that it is told to.

    ``answer`` says what; None closes the connection without a word. It is closed as well after an answer that ends in
    ``CLOSE``.
    """

    CLOSE = b"<closed>"

    def __init__(self, answer: Callable[[Asked], bytes | None], tls: ssl.SSLContext | None = None) -> None:
        self.asked: list[Asked] = []
        self.closed = threading.Semaphore(0)  # released for each connection that has been closed from here
        self._answer = answer
        self._tls = tls
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listening.getsockname()[1]
        self.url = f"{'http' if tls is None else 'https'}://127.0.0.1:{self.port}"
        self._is_closing = False
        self._open: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    @property
    def origin(self) -> Origin:
        origin = Origin.of(self.url)
        assert origin is not None
        return origin

    def close(self) -> None:
        self._is_closing = True
        with socket.create_connection(("127.0.0.1", self.port)):  # wakes who accepts
            self._threads[0].join(PATIENCE_SECONDS)
        self._listening.close()
        for connected in self._open:
            with suppress(OSError):
                connected.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(PATIENCE_SECONDS)

    def say(self, data: bytes, connection: int = 0) -> None:
        """Send something that nobody has asked for."""
        self._open[connection].sendall(data)

    def _accept(self) -> None:
        while True:
            connected, _ = self._listening.accept()
            if self._is_closing:
                connected.close()
                return
            thread = threading.Thread(target=self._serve, args=(connected, len(self._open)), daemon=True)
            self._open.append(connected)
            self._threads.append(thread)
            thread.start()

    def _serve(self, plain: socket.socket, number: int) -> None:
        with ExitStack() as at_end:
            at_end.callback(self.closed.release)
            connected = at_end.enter_context(plain)
            try:
                if self._tls is not None:
                    connected = at_end.enter_context(self._tls.wrap_socket(plain, server_side=True))
                with connected.makefile("rb") as reader:
                    while (asked := _read_request(reader, number)) is not None:
                        self.asked.append(asked)
                        answer = self._answer(asked)
                        if answer is None:
                            return
                        connected.sendall(answer.removesuffix(self.CLOSE))
                        if answer.endswith(self.CLOSE):
                            return
            except OSError:
                return


def _read_request(reader: Any, connection: int) -> Asked | None:
    line = reader.readline()
    if not line:
        return None
    headers: dict[str, str] = {}
    while header := reader.readline().strip().decode():
        name, _, value = header.partition(": ")
        headers[name.lower()] = value
    return Asked(connection, line.split()[1].decode(), headers, reader.read(int(headers["content-length"])))


def request(body: bytes = b"") -> bytes:
    return b"POST / HTTP/1.1\r\nHost: test\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)


@pytest.fixture
def serve() -> Iterator[Callable[..., Wire]]:
    """Start servers that end with the test."""
    with ExitStack() as at_end:
        yield lambda *args: at_end.enter_context(closing(Wire(*args)))


def no_tls() -> ssl.SSLContext:
    raise AssertionError("plain http needs no certificates")


class PoolOnLoop:
    """A pool whose exchanges are carried out by an ``AwsLoop``; any number of threads may ask it at once."""

    def __init__(self, pool: HttpPool, loop: AwsLoop) -> None:
        self._pool = pool
        self._on_loop = OnLoop(self, loop)

    @as_call
    def exchange_on_loop(self, origin: Origin, request: bytes) -> Steps[HttpAnswer]:
        return (yield Exchange(self._pool, origin, request))

    def exchange(self, origin: Origin, request: bytes) -> HttpAnswer:
        answer: HttpAnswer = self._on_loop.exchange_on_loop(origin, request)
        return answer


@pytest.fixture(params=["a thread waits", "the loop waits"])
def open_pool(request: pytest.FixtureRequest, loop: AwsLoop) -> Iterator[Callable[..., HttpPool | PoolOnLoop]]:
    """Make pools of either kind."""
    with ExitStack() as at_end:

        def open_pool(read_timeout_seconds: float = 5) -> HttpPool | PoolOnLoop:
            pool = HttpPool(
                max_idle=2,
                connect_timeout_seconds=2,
                read_timeout_seconds=read_timeout_seconds,
                make_tls_context=no_tls,
            )
            at_end.enter_context(closing(pool))
            return pool if request.param == "a thread waits" else PoolOnLoop(pool, loop)

        yield open_pool


@pytest.fixture
def pool(open_pool: Callable[..., HttpPool]) -> HttpPool:
    return open_pool()


# --- connections ----------------------------------------------------------------------------------------------------


def test_a_connection_serves_one_request_after_the_other(serve: Callable[..., Wire], pool: HttpPool) -> None:
    """No handshake for each call; answers and requests stay with each other."""
    server = serve(lambda asked: b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n" + asked.body)
    assert [pool.exchange(server.origin, request(b"%d" % number)).content for number in range(5)] == [
        b"%d" % number for number in range(5)
    ]
    assert {asked.connection for asked in server.asked} == {0}


def test_requests_at_once_have_a_connection_each(serve: Callable[..., Wire], pool: HttpPool) -> None:
    """Nobody waits for another one's answer; no more than ``max_idle`` connections are kept for later."""
    together = threading.Barrier(4)

    def answer(asked: Asked) -> bytes:
        if asked.body == b"together":
            together.wait(PATIENCE_SECONDS)
        return ANSWER

    server = serve(answer)
    threads = [threading.Thread(target=pool.exchange, args=(server.origin, request(b"together"))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_SECONDS)
    assert {asked.connection for asked in server.asked} == {0, 1, 2, 3}
    for _ in range(2):
        assert server.closed.acquire(timeout=PATIENCE_SECONDS)


def test_a_connection_that_was_closed_while_idle_is_not_used(serve: Callable[..., Wire], pool: HttpPool) -> None:
    """It is seen before a request is wasted on it."""
    server = serve(lambda asked: ANSWER + Wire.CLOSE)
    for _ in range(3):
        pool.exchange(server.origin, request())
        assert server.closed.acquire(timeout=PATIENCE_SECONDS)
    assert [asked.connection for asked in server.asked] == [0, 1, 2]


def test_a_request_that_meets_the_end_of_a_used_connection_is_sent_once_more(
    serve: Callable[..., Wire], pool: HttpPool
) -> None:
    """A server may close what is idle at any moment; every request of ours is safe to repeat."""
    server = serve(lambda asked: None if (asked.connection, asked.body) == (0, b"second") else ANSWER)
    pool.exchange(server.origin, request(b"first"))
    assert pool.exchange(server.origin, request(b"second")).content == b"{}"
    assert [(asked.connection, asked.body) for asked in server.asked] == [(0, b"first"), (0, b"second"), (1, b"second")]


def test_a_request_is_sent_twice_at_most(serve: Callable[..., Wire], pool: HttpPool) -> None:
    """On a new connection the end of it is an answer like any other: none."""
    server = serve(lambda asked: None if asked.body else ANSWER)
    pool.exchange(server.origin, request())
    for sent in (2, 1):  # on a used connection, and when there is none
        before = len(server.asked)
        with pytest.raises(ConnectionClosedError, match=server.url):
            pool.exchange(server.origin, request(b"x"))
        assert len(server.asked) - before == sent


@pytest.mark.parametrize("cut", [b"HTTP/1.1 200 OK\r\nContent-", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{}"])
def test_an_answer_that_has_begun_is_not_asked_for_again(
    serve: Callable[..., Wire], pool: HttpPool, cut: bytes
) -> None:
    """Not even on a used connection: the server has done something."""
    server = serve(lambda asked: cut + Wire.CLOSE if asked.body else ANSWER)
    pool.exchange(server.origin, request())
    with pytest.raises(HTTPClientError, match="in the middle"):
        pool.exchange(server.origin, request(b"x"))
    assert len(server.asked) == 2


def test_a_time_out_is_not_asked_for_again(serve: Callable[..., Wire], open_pool: Callable[..., HttpPool]) -> None:
    """Whoever retries knows better when; the late answer is nobody's."""
    release = threading.Event()

    def answer(asked: Asked) -> bytes:
        if asked.body == b"slow":
            release.wait(PATIENCE_SECONDS)
        return b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n" + asked.body

    server = serve(answer)
    pool = open_pool(read_timeout_seconds=0.2)
    pool.exchange(server.origin, request(b"1st."))
    with pytest.raises(ReadTimeoutError, match="Read timeout"):
        pool.exchange(server.origin, request(b"slow"))
    release.set()
    assert pool.exchange(server.origin, request(b"next")).content == b"next"
    assert [asked.body for asked in server.asked] == [b"1st.", b"slow", b"next"]


def test_nobody_there(pool: HttpPool) -> None:
    """A refused connection and a host that no name server knows are told apart from a lost answer."""
    with reserved_port() as port:
        for origin in (Origin("http", "127.0.0.1", port), Origin("http", "x" * 64, 80)):
            with pytest.raises(EndpointConnectionError):
                pool.exchange(origin, request())


def test_an_answer_with_something_after_it_ends_the_connection(serve: Callable[..., Wire], pool: HttpPool) -> None:
    """What comes unasked is never taken for the answer to the next request."""
    server = serve(lambda asked: ANSWER + ANSWER)
    for _ in range(2):
        assert pool.exchange(server.origin, request()).content == b"{}"
    assert [asked.connection for asked in server.asked] == [0, 1]


def test_a_connection_that_ends_with_its_answer_is_forgotten(serve: Callable[..., Wire], pool: HttpPool) -> None:
    """The system gives its number to the next file that is opened, which is nobody's connection."""
    server = serve(lambda asked: ANSWER.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n", 1))
    for _ in range(3):
        assert pool.exchange(server.origin, request()).content == b"{}"
        with ExitStack() as at_end:
            for one in (end for _ in range(4) for end in socket.socketpair()):
                at_end.enter_context(one)
            assert pool.exchange(server.origin, request()).content == b"{}"
    assert len({asked.connection for asked in server.asked}) == 6


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nCONTENT-LENGTH:  5  \r\nX-Y: z\r\n\r\nhello",
        b"HTTP/1.1 200\r\nContent-Length: 5\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nConnection: Close\r\nContent-Length: 5\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
        b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nSet-Cookie: a\r\nSet-Cookie: b\r\nContent-Length: 5\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\n\r\nhello" + Wire.CLOSE,
    ],
    ids=["letter case", "no reason", "close", "chunks", "continue", "HTTP/1.0", "a header twice", "no length"],
)
def test_an_answer_is_read_as_http_has_it(serve: Callable[..., Wire], pool: HttpPool, answer: bytes) -> None:
    """What AWS never does, something in between may."""
    server = serve(lambda asked: answer)
    for _ in range(2):
        read = pool.exchange(server.origin, request())
        assert (read.status, read.content) == (200, b"hello")


def test_an_answer_may_come_in_pieces_of_any_size(serve: Callable[..., Wire], pool: HttpPool) -> None:
    """Large ones do."""
    content = bytes(range(256)) * 4096
    server = serve(lambda asked: b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(content), content))
    for _ in range(2):
        assert pool.exchange(server.origin, request()).content == content


@pytest.mark.parametrize(
    "answer",
    [
        b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
        b"HTTP/1.1 OK 200\r\nContent-Length: 2\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nff\r\nhe",
        b"HTTP/1.1 200 OK\r\nSet-Cookie: a\r\nSet-Cookie: b\r\nContent-Length: 5\r\n\r\nhe",
        b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n{}" % (MAX_ANSWER_BYTES + 1),
        b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100_000,
    ],
    ids=["another protocol", "no status", "cut in a chunk", "cut with cookies", "too large", "an endless head"],
)
def test_what_is_no_whole_answer_is_an_error(serve: Callable[..., Wire], pool: HttpPool, answer: bytes) -> None:
    """And the connection ends with it."""
    server = serve(lambda asked: answer + Wire.CLOSE)
    with pytest.raises(BotoCoreError):
        pool.exchange(server.origin, request())
    assert server.closed.acquire(timeout=PATIENCE_SECONDS)


# --- TLS ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate of 127.0.0.1 that nobody vouches for, with its key, in one PEM file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path_factory.mktemp("tls") / "server.pem"
    path.write_bytes(
        made.public_bytes(serialization.Encoding.PEM)
        + key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return path


@pytest.fixture
def tls_server(serve: Callable[..., Wire], certificate: Path) -> Wire:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    return serve(lambda asked: ANSWER, context)


@pytest.fixture(autouse=True)
def no_settings_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_CA_BUNDLE", "REQUESTS_CA_BUNDLE", "AWS_PROFILE", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nonexistent")


class Caller:
    """Calls the adapters, on the caller's thread or on the loop."""

    def __init__(self, loop: AwsLoop | None) -> None:
        self._loop = loop

    def of(self, adapter: Any) -> Any:
        return adapter if self._loop is None else OnLoop(adapter, self._loop)

    def claim_at(self, url: str, monkeypatch: pytest.MonkeyPatch, session: boto3.Session | None = None) -> None:
        monkeypatch.setenv("AWS_ENDPOINT_URL", url)
        session = session or boto3.Session("testing", "testing", region_name="eu-west-1")
        with closing(AwsLedger("claims", session, read_timeout_seconds=5)) as aws:
            ledger = self.of(aws)
            for _ in range(2):
                assert ledger.claim(ITEM) is None

    def call_everything(self, session: boto3.Session) -> None:
        """Make every call of the adapters once, with all that they can carry."""
        messages = [OutgoingMessage('{"ü": 1}', {"reason": "🪙", "submission_id": "s"}), OutgoingMessage("x")]
        with closing(AwsQueues(session)) as aws_queues, closing(AwsLedger("claims", session)) as aws_ledger:
            queues, ledger = self.of(aws_queues), self.of(aws_ledger)
            queues.receive(QUEUE, max_messages=10, wait_seconds=1, visibility_timeout_seconds=60)
            assert queues.send(QUEUE, messages) == [None, None]
            assert queues.delete(QUEUE, ["a", "b"]) == [None, None]
            assert queues.change_visibility(QUEUE, [("a", 0), ("b", 60)]) == [None, None]
            assert queues.approximate_number_of_messages(QUEUE) == 7
            assert ledger.claim(ITEM) is None
            assert ledger.get("1") is None
            assert ledger.claim_all(ITEMS) == [None] * len(ITEMS)


@pytest.fixture(params=["a thread waits", "the loop waits"])
def caller(request: pytest.FixtureRequest, loop: AwsLoop) -> Caller:
    """Each way to call in turn."""
    return Caller(loop if request.param == "the loop waits" else None)


def test_a_server_that_nobody_vouches_for_is_told_nothing(
    tls_server: Wire, caller: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No request leaves before the certificate is verified."""
    with pytest.raises(LedgerUnavailable, match="certificate verify failed"):
        caller.claim_at(tls_server.url, monkeypatch)
    assert tls_server.asked == []


@pytest.mark.parametrize("variable", ["AWS_CA_BUNDLE", "REQUESTS_CA_BUNDLE"])
def test_a_bundle_of_the_environment_is_used(
    tls_server: Wire, certificate: Path, caller: Caller, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    """Both that botocore knows; the connection is kept."""
    monkeypatch.setenv(variable, str(certificate))
    caller.claim_at(tls_server.url, monkeypatch)
    assert [asked.connection for asked in tls_server.asked] == [0, 0]
    assert is_short(tls_server.asked[0])


def test_a_bundle_of_the_profile_is_used(
    tls_server: Wire, certificate: Path, caller: Caller, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """``ca_bundle`` in the configuration file."""
    config = tmp_path / "config"
    config.write_text(f"[profile office]\nregion = eu-west-1\nca_bundle = {certificate}\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(config))
    caller.claim_at(tls_server.url, monkeypatch, boto3.Session("testing", "testing", profile_name="office"))


def test_a_certificate_of_another_host_is_refused(
    tls_server: Wire, certificate: Path, caller: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever vouches for it."""
    monkeypatch.setenv("AWS_CA_BUNDLE", str(certificate))
    with pytest.raises(LedgerUnavailable, match="Hostname mismatch"):
        caller.claim_at(tls_server.url.replace("127.0.0.1", "localhost"), monkeypatch)
    assert tls_server.asked == []


# --- what travels ---------------------------------------------------------------------------------------------------


def is_short(asked: Asked) -> bool:
    """Tell whether a request came the short way: botocore's own adds what its retries need."""
    return "amz-sdk-request" not in asked.headers


def answer_as_aws(asked: Asked) -> bytes:
    operation = asked.headers["x-amz-target"].rpartition(".")[2]
    fields = json.loads(asked.body)
    entries = fields.get("Entries", ())
    confirmed = [
        {"Id": entry["Id"], **({"MD5OfMessageBody": md5(entry)} if "MessageBody" in entry else {})} for entry in entries
    ]
    answers: Mapping[str, Any] = {
        "GetQueueUrl": {"QueueUrl": f"http://127.0.0.1/1/{QUEUE}"},
        "GetQueueAttributes": {"Attributes": {"ApproximateNumberOfMessages": "7"}},
        "BatchExecuteStatement": {"Responses": [{"TableName": "claims"}] * len(fields.get("Statements", ()))},
    }
    content = json.dumps(answers.get(operation, {"Successful": confirmed} if entries else {})).encode()
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(content), content)


def test_both_ways_ask_for_the_same(
    serve: Callable[..., Wire], caller: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every call, the short way and through a proxy, which is botocore's own business: the same request, and signed.

    A proxy is asked with a whole URL; it may be the server itself.
    """
    server = serve(answer_as_aws)
    monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:1")  # for others
    session = boto3.Session("testing", "testing", "a-token", region_name="eu-west-1")
    caller.call_everything(session)
    short = list(server.asked)
    server.asked.clear()
    monkeypatch.setenv("http_proxy", server.url)
    monkeypatch.setenv("no_proxy", "internal.example.com")
    caller.call_everything(session)
    assert len(short) == len(server.asked) == 9
    assert all(map(is_short, short)) and not any(map(is_short, server.asked))
    assert {asked.target for asked in short} == {"/"}
    assert {urlsplit(asked.target).netloc for asked in server.asked} == {f"127.0.0.1:{server.port}"}
    same = ("host", "x-amz-target", "content-type", "user-agent", "x-amz-security-token", "accept-encoding")
    for mine, theirs in zip(short, server.asked, strict=True):
        assert json.loads(mine.body) == json.loads(theirs.body)
        assert {name: mine.headers.get(name) for name in same} == {name: theirs.headers.get(name) for name in same}
        assert mine.headers["authorization"].startswith("AWS4-HMAC-SHA256 Credential=testing/")


_text = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=30)


@given(
    body=st.binary(max_size=200),
    headers=st.dictionaries(st.from_regex(r"X-[A-Za-z-]{1,10}[a-z]", fullmatch=True), _text, max_size=4),
    secret=st.text(min_size=1, max_size=40),
    token=st.none() | st.text("abc+/=", min_size=1),
    host=st.sampled_from(["sqs.eu-west-1.amazonaws.com", "127.0.0.1:4566", "[::1]:4566"]),
)
def test_the_signature_is_botocores(
    body: bytes, headers: dict[str, str], secret: str, token: str | None, host: str
) -> None:
    """Whatever is signed, header by header and byte by byte."""
    headers = {name.lower().title(): value for name, value in headers.items()} | {"User-Agent": "not signed"}
    credentials = ReadOnlyCredentials("AKID", secret, token)
    theirs = AWSRequest("POST", f"http://{host}/", dict(headers), body)
    SigV4Auth(credentials, "sqs", "eu-west-1").add_auth(theirs)
    now = timegm(strptime(theirs.headers["X-Amz-Date"], "%Y%m%dT%H%M%SZ"))
    mine = sign({"Host": host, **headers}, body, credentials, service="sqs", region="eu-west-1", now_seconds=now)
    assert mine.pop("Host") == host
    assert mine == dict(theirs.headers.items())


def test_credentials_are_renewed(
    serve: Callable[..., Wire], caller: Caller, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Each request is signed with what botocore has at that moment: here from a program that is asked every time."""
    program = tmp_path / "credentials.py"
    program.write_text(
        "import datetime, json, pathlib\n"
        f"count = pathlib.Path({str(tmp_path / 'count')!r})\n"
        "count.write_text((count.read_text() if count.exists() else '') + 'I')\n"
        "soon = (datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=5)).isoformat()\n"
        "print(json.dumps({'Version': 1, 'AccessKeyId': 'KEY' + count.read_text(), 'SecretAccessKey': 's',"
        " 'SessionToken': 't', 'Expiration': soon}))\n"
    )
    config = tmp_path / "config"
    config.write_text(f"[profile p]\nregion = eu-west-1\ncredential_process = {sys.executable} {program}\n")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(config))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
    server = serve(answer_as_aws)
    caller.claim_at(server.url, monkeypatch, boto3.Session(profile_name="p"))
    keys = [asked.headers["authorization"].split("Credential=")[1].split("/")[0] for asked in server.asked]
    assert len(set(keys)) == 2
    assert all(key.startswith("KEY") for key in keys)


def test_an_endpoint_with_a_path_is_botocores_business(
    serve: Callable[..., Wire], caller: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So is all else that is not plain; batches keep their parameters on that way too."""
    server = serve(answer_as_aws)
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"{server.url}/emulator")
    caller.call_everything(boto3.Session("testing", "testing", region_name="eu-west-1"))
    assert not any(map(is_short, server.asked))
    assert {asked.target.rstrip("/") for asked in server.asked} == {"/emulator"}
    assert json.loads(server.asked[-1].body)["Statements"]


def test_a_mock_of_the_application_answers(
    serve: Callable[..., Wire], caller: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Mocks of AWS answer ``before-send``; whoever embeds us and tests with them must not meet the real one.

    What only looks, or adds a header, is heard as well.
    """
    server = serve(answer_as_aws)
    session = boto3.Session("testing", "testing", region_name="eu-west-1")
    seen: list[str] = []

    class Raw:
        def stream(self) -> list[bytes]:
            return [b"{}"]

    def answer(request: Any, **_others: object) -> AWSResponse | None:
        seen.append(request.headers["x-amz-target"])
        request.headers["X-Trace"] = "abc"
        return AWSResponse(request.url, 200, {}, Raw()) if len(seen) == 1 else None  # type: ignore[arg-type]

    session.events.register("before-send.dynamodb", answer)
    caller.claim_at(server.url, monkeypatch, session)
    assert seen == ["DynamoDB_20120810.PutItem"] * 2
    (passed_on,) = server.asked
    assert passed_on.headers["x-trace"] == "abc"
    assert passed_on.headers["content-length"] == str(len(passed_on.body))


@pytest.mark.parametrize("is_right", [True, False])
def test_a_wrong_checksum_confirms_nothing(
    serve: Callable[..., Wire], caller: Caller, monkeypatch: pytest.MonkeyPatch, is_right: bool
) -> None:
    """DynamoDB sends one with each answer."""
    checksum = zlib.crc32(b"{}") + (not is_right)
    server = serve(
        lambda asked: b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nx-amz-crc32: %d\r\n\r\n{}" % checksum,
    )
    if is_right:
        caller.claim_at(server.url, monkeypatch)
    else:
        with pytest.raises(LedgerUnavailable, match="checksum"):
            caller.claim_at(server.url, monkeypatch)


def test_nothing_can_be_slipped_into_the_headers(
    serve: Callable[..., Wire], caller: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A token with a line break in it, from a broken file, is trouble and no second header."""
    server = serve(answer_as_aws)
    session = boto3.Session("testing", "testing", "token\r\nX-Amz-Target: DynamoDB_20120810.DeleteTable", "eu-west-1")
    with pytest.raises(LedgerUnavailable, match="line break"):
        caller.claim_at(server.url, monkeypatch, session)
    assert server.asked == []


# --- bugs, and a botocore that is another one -----------------------------------------------------------------------


def raise_attribute_error(*_args: object, **_keywords: object) -> Any:
    raise AttributeError("a bug")


@pytest.mark.parametrize("function", ["sign", "headers_of", "_plain_answer"])
def test_a_bug_of_ours_is_no_outage(
    serve: Callable[..., Wire], caller: Caller, monkeypatch: pytest.MonkeyPatch, function: str
) -> None:
    """An outage would be waited out politely, for ever; a bug crashes who asked, wherever it is on the way."""
    server = serve(answer_as_aws)
    monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
    with closing(AwsQueues(boto3.Session("testing", "testing", region_name="eu-west-1"))) as aws:
        monkeypatch.setattr(short_way, function, raise_attribute_error)
        with pytest.raises(AttributeError, match="a bug"):
            caller.of(aws).receive(QUEUE, max_messages=10, wait_seconds=1, visibility_timeout_seconds=60)


def test_an_answer_of_another_shape_is_trouble_on_botocores_own_way_as_well(
    serve: Callable[..., Wire], monkeypatch: pytest.MonkeyPatch
) -> None:
    """botocore's parsers raise whatever they come upon; that is the answer's fault."""
    answer = b'{"QueueUrl": {"a": 1}, "Messages": 5, "Attributes": ["abc"]}'
    server = serve(lambda asked: b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(answer), answer))
    monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
    monkeypatch.setenv("http_proxy", server.url)
    with closing(AwsQueues(boto3.Session("testing", "testing", region_name="eu-west-1"))) as queues:
        queues._urls[QUEUE] = server.url
        with pytest.raises(QueueUnavailable):
            queues.receive(QUEUE, max_messages=10, wait_seconds=1, visibility_timeout_seconds=60)
        with pytest.raises(QueueUnavailable):
            queues.approximate_number_of_messages(QUEUE)
    assert not any(map(is_short, server.asked))


@pytest.fixture
def not_tried_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a process that has just been started."""
    monkeypatch.setattr(connection, "_misfits", {})


def other_signers(monkeypatch: pytest.MonkeyPatch) -> None:
    get_auth_instance = RequestSigner.get_auth_instance

    def with_keywords_only(self: RequestSigner, **keywords: Any) -> Any:
        return get_auth_instance(self, **keywords)

    monkeypatch.setattr(RequestSigner, "get_auth_instance", with_keywords_only)


def other_parsers(monkeypatch: pytest.MonkeyPatch) -> None:
    create = short_way.create_parser

    class Parser:
        def __init__(self, protocol: str) -> None:
            self._parser = create(protocol)

        def parse(self, response: dict[str, Any], shape: Any) -> Any:
            return {"Output": self._parser.parse(response, shape)}

    monkeypatch.setattr(short_way, "create_parser", Parser)


def missing_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, short_way.__name__, None)


@pytest.mark.parametrize("change", [other_signers, other_parsers, missing_names], ids=lambda change: change.__name__)
def test_with_another_botocore_all_calls_go_its_own_way(
    serve: Callable[..., Wire],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    not_tried_out: None,
    change: Callable[[pytest.MonkeyPatch], None],
) -> None:
    """An upgrade may change what nobody has promised: it is logged at the start, once a service, and all works."""
    server = serve(answer_as_aws)
    monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
    change(monkeypatch)
    session = boto3.Session("testing", "testing", region_name="eu-west-1")
    Caller(None).call_everything(session)
    assert server.asked
    assert not any(map(is_short, server.asked))
    told = [record.getMessage() for record in caplog.records if "botocore's own way" in record.getMessage()]
    assert len(told) == len(set(told)) <= 2
    assert told
    assert all(botocore.__version__ in words for words in told)
    with closing(AwsQueues(session)) as queues:
        assert not queues.goes_the_short_way


def test_trying_botocore_out_asks_nobody(
    serve: Callable[..., Wire], monkeypatch: pytest.MonkeyPatch, not_tried_out: None
) -> None:
    """Nor does it look for credentials, which may take a while."""
    server = serve(answer_as_aws)
    monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
    session = boto3.Session(region_name="eu-west-1")
    monkeypatch.setattr(session._session, "get_credentials", lambda: None)
    with closing(AwsQueues(session)) as queues, closing(AwsLedger("claims", session)) as ledger:
        assert queues.goes_the_short_way
        assert ledger.goes_the_short_way
    assert server.asked == []
