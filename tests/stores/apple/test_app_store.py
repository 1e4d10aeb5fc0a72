"""The clients of Apple's verifyReceipt: one contract, against the simulated App Store and servers that misbehave."""

from __future__ import annotations

import gc
import gzip
import json
import re
import socket
import ssl
import subprocess
import threading
import tracemalloc
import urllib.parse
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeAlias

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from receipt_actors.domain.ports import Environment
from receipt_actors.errors import AppStoreUnavailable, ConfigurationError
from receipt_actors.sandbox.app_store import SimulatedAppStore
from receipt_actors.sandbox.receipts import Fault, Purchase, SampleReceipt, mint
from receipt_actors.stores.apple.client.endpoints import endpoints_at
from receipt_actors.stores.apple.client.verify_receipt_client import (
    MAX_ANSWER_BYTES,
    MAX_RETRY_AFTER_SECONDS,
    VerifyReceiptClient,
    parse_answer,
    question_body,
    read_answer,
    retry_after_seconds,
)
from receipt_actors.stores.apple.ports import AppStore
from receipt_actors.transport.blocking import BlockingTransport
from receipt_actors.transport.curl import CurlTransport
from receipt_actors.transport.messages import MAX_EXEMPT_BYTES, MAX_SHARED_BYTES, HttpResponse, ResponseSize
from tests.patience import PATIENCE_SECONDS
from tests.stores.apple.app_store_servers import answers, make_certificate, raw_server, tls_server
from tests.transport.places import running
from tests.transport.wire import Recorder, Reply

PRODUCTION_URL = "https://buy.example.com/verifyReceipt"
SANDBOX_URL = "https://sandbox.example.com/verifyReceipt"
SECRET = "5f0c8e6d9b7a41c2a3d4e5f60718293a"
RECEIPT = mint(SampleReceipt("com.example.game", (Purchase("1000000001"),)), padding_bytes=2000)


ClientOf: TypeAlias = Callable[..., AbstractContextManager[VerifyReceiptClient]]


@pytest.fixture(params=["blocking", "curl"])
def client_of(request: pytest.FixtureRequest) -> ClientOf:
    @contextmanager
    def open_client(
        production_url: str, sandbox_url: str = SANDBOX_URL, **time_outs: float
    ) -> Iterator[VerifyReceiptClient]:
        seconds = {"connect_timeout_seconds": 5.0, "read_timeout_seconds": 10.0} | time_outs
        opened = closing(BlockingTransport(4)) if request.param == "blocking" else running(CurlTransport(4))
        with opened as transport:
            yield VerifyReceiptClient(transport, endpoints_at(production_url, sandbox_url, **seconds), SECRET)

    return open_client


#: Proxies are never given to libcurl.
only_blocking = pytest.mark.parametrize("client_of", ["blocking"], indirect=True)


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy", "requests_ca_bundle", "curl_ca_bundle"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
def recorder() -> Iterator[Recorder]:
    with closing(Recorder()) as server:
        yield server


def unavailable(client: AppStore, environment: Environment = Environment.PRODUCTION) -> AppStoreUnavailable:
    with pytest.raises(AppStoreUnavailable) as raised:
        client.verify_receipt(RECEIPT, environment)
    return raised.value


# What is asked


@pytest.mark.parametrize("environment", list(Environment))
def test_receipt_and_secret_are_posted_to_the_endpoint_of_the_environment(
    environment: Environment, recorder: Recorder, client_of: ClientOf
) -> None:
    with client_of(f"{recorder.url}/Production?x=1", f"{recorder.url}/Sandbox?x=1") as client:
        assert client.verify_receipt(RECEIPT, environment) == {"status": 0}
    (asked,) = recorder.asked
    assert asked.target == f"/{environment}?x=1"
    assert json.loads(asked.body) == {"receipt-data": RECEIPT, "password": SECRET}
    assert asked.headers["content-type"] == "application/json"
    assert asked.headers["user-agent"] == "receipt-actors"
    assert asked.headers["accept-encoding"] == "gzip"
    assert "expect" not in asked.headers


def test_a_receipt_of_another_app_goes_with_that_apps_secret(recorder: Recorder, client_of: ClientOf) -> None:
    with client_of(recorder.url) as client:
        client.verify_receipt(RECEIPT, Environment.PRODUCTION, shared_secret="the other's")
        client.verify_receipt(RECEIPT, Environment.PRODUCTION)
        recorder.reply = Reply(status=503, body=b"you sent the other's")
        with pytest.raises(AppStoreUnavailable) as raised:
            client.verify_receipt(RECEIPT, Environment.PRODUCTION, shared_secret="the other's")
    assert [json.loads(asked.body)["password"] for asked in recorder.asked[:2]] == ["the other's", SECRET]
    assert "the other's" not in str(raised.value)


@given(receipt_data=st.text() | st.from_regex(r"[A-Za-z0-9+/=._-]*"), secret=st.none() | st.text())
@example("line\r\nbreaks", '"quoted"')
@example("\ud800", None)
def test_any_receipt_is_written_as_json(receipt_data: str, secret: str | None) -> None:
    expected = {"receipt-data": receipt_data} | ({} if secret is None else {"password": secret})
    assert json.loads(question_body(receipt_data, secret)) == expected


# What is answered


def read(status: int, body: bytes) -> object:
    return read_answer(Environment.PRODUCTION, HttpResponse(status, [], body), [RECEIPT, SECRET])


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
        (200, b'[{"status": 0}]', "no JSON object"),
        (200, b'{"status": 21003, "status": 0}', "a key has two values"),
        (200, b'{"status": 0, "receipt": {"in_app": [], "in_app": [1]}}', "a key has two values"),
        (200, b"0", "no JSON object"),
        (200, b"{}", "no JSON object with an integer status"),
        (200, b'{"status": "0"}', "no JSON object with an integer status"),
        (200, b'{"status": 0.0}', "no JSON object with an integer status"),
        (200, b'{"status": false}', "no JSON object with an integer status"),
        (200, b'{"status": null}', "no JSON object with an integer status"),
    ],
)
def test_what_is_no_answer_of_apple_means_unavailable(status: int, body: bytes, cause: str) -> None:
    error = read(status, body)
    assert isinstance(error, AppStoreUnavailable)
    assert cause in str(error)
    assert str(error).startswith("Production App Store answered HTTP")


def test_a_key_that_is_repeated_with_its_value_is_not_ambiguous() -> None:
    assert parse_answer(b'{"status": 0, "status": 0, "x": {"y": [1], "y": [1]}}') == {"status": 0, "x": {"y": [1]}}


@given(
    st.binary(max_size=200) | st.recursive(st.none() | st.booleans() | st.integers() | st.text(), st.lists).map(repr)
)
def test_any_body_is_an_answer_or_refused(body: bytes | str) -> None:
    data = body if isinstance(body, bytes) else body.encode("utf-8", "surrogatepass")
    try:
        answer = parse_answer(data)
    except ValueError:
        return
    assert type(answer["status"]) is int


NOW_SECONDS = datetime(2026, 1, 1, 12, 0, 0, tzinfo=UTC).timestamp()


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("0", 0.0),
        (" 120 ", 120.0),
        ("1767268830000", 30.0),
        ("1767268800500", 0.5),
        ("1767268799999", 0.0),
        ("999999999999999", MAX_RETRY_AFTER_SECONDS),
        ("\u0664" * 13, None),
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
def test_retry_after_is_seconds_or_a_time(header: str, seconds: float | None) -> None:
    assert retry_after_seconds(header, NOW_SECONDS) == seconds


@given(st.text() | st.from_regex(r"[A-Z][a-z]{2}, [0-9]{1,4} [A-Z][a-z]{2} [0-9]{1,12} [0-9:]{1,9} [+-]?[0-9A-Z]{1,8}"))
def test_any_retry_after_is_survived(header: str) -> None:
    seconds = retry_after_seconds(header, NOW_SECONDS)
    assert seconds is None or 0 <= seconds <= MAX_RETRY_AFTER_SECONDS


# What must never be said


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
    reason = str(read(status, echo(question_body(RECEIPT, SECRET).decode()).encode()))
    assert f"answered HTTP {status}" in reason
    assert SECRET[:8] not in reason
    assert not any(RECEIPT[at : at + 24] in reason for at in range(len(RECEIPT) - 24))


def test_a_reason_is_one_short_printable_line() -> None:
    reason = str(read(502, b"bad\r\n\x1b[31m gateway\x00 " * 100))
    assert reason.isprintable()
    assert "bad ?[31m gateway?" in reason
    assert len(reason) < 300


# Connections


@pytest.mark.parametrize(
    "fault", [Fault.drop(), Fault.html(), Fault.garbage(), Fault.http(500), Fault.http(302), Fault.hang(0.01)]
)
def test_an_outage_means_unavailable_and_passes(fault: Fault, client_of: ClientOf) -> None:
    with SimulatedAppStore() as store, client_of(store.production_url, store.sandbox_url) as client:
        store.outage(fault)
        unavailable(client)
        store.recover()
        assert client.verify_receipt(RECEIPT, Environment.PRODUCTION)["status"] == 0


def test_a_failure_whose_page_breaks_off_keeps_its_status(client_of: ClientOf) -> None:
    data = b"HTTP/1.1 503 Busy\r\nRetry-After: 3\r\nContent-Length: 100\r\n\r\nbusy"
    with raw_server(lambda connection: connection.sendall(data)) as url, client_of(url, url) as client:
        error = unavailable(client)
    assert "HTTP 503" in str(error)
    assert error.retry_after_seconds == 3.0


@pytest.mark.parametrize(
    ("beginning", "drop", "end"),
    [
        (b"HTTP/1.1 200 OK\r\nX-Slow: ", b"z", b"\r\nContent-Length: 12\r\n\r\n" + b'{"status":0}'),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1012\r\n\r\n", b" ", b'{"status":0}'),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\n \r\n", b'c\r\n{"status":0}\r\n0\r\n\r\n'),
    ],
    ids=["headers", "body", "chunks"],
)
def test_a_dripping_server_is_given_up(beginning: bytes, drop: bytes, end: bytes, client_of: ClientOf) -> None:
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
        assert hung_up.wait(PATIENCE_SECONDS)


def test_an_endless_answer_is_cut_off(client_of: ClientOf) -> None:
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
        assert hung_up.wait(PATIENCE_SECONDS)


def test_a_compressed_answer_is_read_and_a_bomb_is_not(client_of: ClientOf) -> None:
    for body, understood in ((b'{"status":0}', True), (b'{"status":0}' + b" " * (MAX_ANSWER_BYTES + 1), False)):
        compressed = answers(gzip.compress(body), b"Content-Encoding: gzip\r\n")
        with raw_server(compressed) as url, client_of(url, url) as client:
            if understood:
                assert client.verify_receipt(RECEIPT, Environment.PRODUCTION) == {"status": 0}
            else:
                assert f"more than {MAX_ANSWER_BYTES} bytes" in str(unavailable(client))


def test_large_answers_share_memory_and_small_ones_need_none(client_of: ClientOf) -> None:
    large = b'{"status":0}' + b" " * 1_000_000
    with raw_server(answers(large, b"Connection: close\r\n")) as url, client_of(url, url) as client:
        others = ResponseSize(counts=True)
        assert others.grow(MAX_EXEMPT_BYTES + MAX_SHARED_BYTES)
        try:
            assert "other large ones fill the memory" in str(unavailable(client))
            with raw_server(answers(large[: MAX_EXEMPT_BYTES - 1])) as small_url, client_of(small_url) as other:
                assert other.verify_receipt(RECEIPT, Environment.PRODUCTION) == {"status": 0}
        finally:
            others.reset()
        for _ in range(40):  # each gives back what it has taken
            assert client.verify_receipt(RECEIPT, Environment.PRODUCTION) == {"status": 0}


ENTRY = {
    **{f"{which}_date": "2025-10-10 10:10:10 Etc/GMT" for which in ("purchase", "original_purchase")},
    **{f"{which}_date_ms": "1760090410000" for which in ("purchase", "original_purchase")},
    **{"quantity": "1", "product_id": "coins", "transaction_id": "1", "original_transaction_id": "1"},
    "is_trial_period": "false",
}  #: of ``in_app``, and shorter than any of Apple's


@pytest.mark.parametrize("beginning", [b"no JSON", b'{"status":0,"a":[0'])
def test_nothing_of_a_large_answer_stays_with_its_error(client_of: ClientOf, beginning: bytes) -> None:
    large = beginning + b",0" * 2_000_000
    with raw_server(answers(large, b"Connection: close\r\n")) as url, client_of(url) as client:
        unavailable(client)
        gc.disable()
        tracemalloc.start()
        try:
            errors = [unavailable(client) for _ in range(5)]
            client.close()  # the transport is done with the last one, too
            held_bytes, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
            gc.enable()
    assert len(errors) == 5
    assert held_bytes < len(large)


def test_many_genuine_entries_are_read() -> None:
    genuine = {"status": 0, "receipt": {"in_app": [ENTRY] * 40_000}}
    assert read(200, json.dumps(genuine, separators=(",", ":")).encode()) == genuine


@pytest.mark.parametrize("value", ["{}", "[]", "0", "null", '"a"', '{"a":{"b":0}}', '{"a":[0]}'])
def test_an_answer_of_tiny_values_is_not_parsed(value: str) -> None:
    """16 MiB of them would take hundreds of megabytes, and seconds: it is an unknown answer."""
    values = ",".join(f'"{number:x}":{value}' for number in range(100_000))
    if value != "null":  # those are fields, the others stand in an array
        values = f'"a":[{",".join([value] * 100_000)}]'
    error = read(200, f'{{"status":0,{values}}}'.encode())
    assert isinstance(error, AppStoreUnavailable)
    assert "too many values for its size" in str(error)
    assert error.is_unknown_answer


def test_a_large_answer_keeps_its_memory_until_it_is_parsed(
    client_of: ClientOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    free: list[bool] = []

    def parse(body: bytes) -> object:
        free.append(ResponseSize(counts=True).grow(MAX_EXEMPT_BYTES + MAX_SHARED_BYTES))
        return {"status": 0}

    monkeypatch.setattr("receipt_actors.stores.apple.client.verify_receipt_client.parse_answer", parse)
    with raw_server(answers(b" " * 1_000_000)) as url, client_of(url) as client:
        client.verify_receipt(RECEIPT, Environment.PRODUCTION)
    assert free == [False]


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
def test_broken_http_means_unavailable(data: bytes, client_of: ClientOf) -> None:
    with raw_server(lambda connection: connection.sendall(data)) as url, client_of(url, url) as client:
        unavailable(client)


def test_a_redirect_is_not_followed(client_of: ClientOf) -> None:
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


def test_connections_are_kept_and_cookies_are_not(recorder: Recorder, client_of: ClientOf) -> None:
    recorder.reply.headers["Set-Cookie"] = "session=1; Path=/"
    with client_of(f"{recorder.url}/verifyReceipt") as client:
        for _ in range(5):
            client.verify_receipt(RECEIPT, Environment.PRODUCTION)
    assert {asked.connection for asked in recorder.asked} == {0}
    assert not any("cookie" in asked.headers for asked in recorder.asked)


@only_blocking
def test_a_proxy_of_the_environment_is_used(
    recorder: Recorder, monkeypatch: pytest.MonkeyPatch, client_of: ClientOf
) -> None:
    monkeypatch.setenv("http_proxy", f"localhost:{recorder.port}")
    with client_of("http://store.invalid/verifyReceipt") as client:
        monkeypatch.delenv("http_proxy")
        assert client.verify_receipt(RECEIPT, Environment.PRODUCTION) == {"status": 0}
    assert [asked.target for asked in recorder.asked] == ["http://store.invalid/verifyReceipt"]


def test_no_proxy_is_for_the_hosts_that_it_names(
    recorder: Recorder, monkeypatch: pytest.MonkeyPatch, client_of: ClientOf
) -> None:
    with raw_server(answers(b'{"status":0}')) as url:
        monkeypatch.setenv("http_proxy", recorder.url)
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        with client_of(url) as client:
            monkeypatch.delenv("no_proxy")
            assert client.verify_receipt(RECEIPT, Environment.PRODUCTION) == {"status": 0}
        monkeypatch.delenv("http_proxy")
        with client_of(url) as client:
            monkeypatch.setenv("http_proxy", recorder.url)
            monkeypatch.setenv("all_proxy", recorder.url)
            assert client.verify_receipt(RECEIPT, Environment.PRODUCTION) == {"status": 0}
    assert recorder.asked == []


@pytest.mark.parametrize("variable", ["https_proxy", "HTTPS_PROXY", "all_proxy"])
@pytest.mark.parametrize(
    "proxy",
    ["http://[::bad", "http://", "not a url", "http://host:port", "htp://host:3128", "http://user:p@ssword@host:99999"],
)
def test_a_proxy_that_cannot_be_is_a_fault_of_the_configuration(
    variable: str, proxy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, proxy)
    with pytest.raises(ConfigurationError) as raised:
        endpoints_at(PRODUCTION_URL, SANDBOX_URL, 1.0, 1.0)
    (fault,) = raised.value.faults
    assert fault.startswith(f"{variable}: found ")
    assert "expected a proxy such as http://host:3128" in fault
    assert "ssword" not in fault


# TLS


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_certificate(tmp_path_factory.mktemp("tls"))


def test_only_who_is_vouched_for_is_asked(
    certificate: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, client_of: ClientOf
) -> None:
    with raw_server(answers(b'{"status":0}'), tls_server(certificate)) as url, client_of(url) as client:
        assert "certificate verify failed" in str(unavailable(client))
    expired = make_certificate(tmp_path, days=-1)
    another = make_certificate(tmp_path, host="127.0.0.2")
    for wrong in (expired, another):
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(wrong))
        with raw_server(answers(b'{"status":0}'), tls_server(wrong)) as url, client_of(url) as client:
            assert "certificate verify failed" in str(unavailable(client))


@pytest.mark.parametrize("variable", ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"])
@pytest.mark.parametrize("content", [None, b"", b"no certificate\n", b"\x00\xff"])
def test_a_ca_bundle_that_cannot_vouch_is_a_fault_of_the_configuration(
    variable: str, content: bytes | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = tmp_path / "authorities.pem"
    if content is not None:
        bundle.write_bytes(content)
    monkeypatch.setenv(variable, str(bundle))
    with pytest.raises(ConfigurationError) as raised:
        endpoints_at(PRODUCTION_URL, SANDBOX_URL, 1.0, 1.0)
    (fault,) = raised.value.faults
    assert fault.startswith(f"{variable}: found '{bundle}', expected a file of PEM certificates")
    assert endpoints_at("http://127.0.0.1:1/", "http://127.0.0.1:2/", 1.0, 1.0)  # nobody has to vouch here


@pytest.mark.parametrize("variable", ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"])
@pytest.mark.parametrize("is_folder", [False, True])
def test_a_ca_bundle_of_the_environment_vouches(
    variable: str,
    is_folder: bool,
    certificate: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    client_of: ClientOf,
) -> None:
    if is_folder:  # as OpenSSL keeps them: files called by the hashes of their subjects
        command = ["openssl", "x509", "-hash", "-noout", "-in", certificate]
        hashed = subprocess.run(command, check=True, capture_output=True, text=True)
        (tmp_path / f"{hashed.stdout.strip()}.0").write_bytes(certificate.read_bytes())
    monkeypatch.setenv(variable, str(tmp_path if is_folder else certificate))
    with raw_server(answers(b'{"status":0}'), tls_server(certificate)) as url, client_of(url) as client:
        monkeypatch.delenv(variable)
        assert client.verify_receipt(RECEIPT, Environment.PRODUCTION) == {"status": 0}


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
def test_tls_is_recent(certificate: Path, monkeypatch: pytest.MonkeyPatch, client_of: ClientOf) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
    for newest in (ssl.TLSVersion.MAXIMUM_SUPPORTED, ssl.TLSVersion.TLSv1_2):
        tls = tls_server(certificate, newest=newest)
        with raw_server(answers(b'{"status":0}'), tls) as url, client_of(url) as client:
            assert client.verify_receipt(RECEIPT, Environment.PRODUCTION) == {"status": 0}
    tls = tls_server(certificate, newest=ssl.TLSVersion.TLSv1_1)
    with raw_server(answers(b'{"status":0}'), tls) as url, client_of(url) as client:
        assert re.search("SSL|TLS", str(unavailable(client)))


def test_a_server_that_knows_no_tls_is_given_up(client_of: ClientOf) -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        client_of(f"https://127.0.0.1:{listener.getsockname()[1]}/", connect_timeout_seconds=0.1) as client,
    ):
        assert "no connection within 0.1 s" in str(unavailable(client))
