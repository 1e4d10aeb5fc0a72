"""What the client on libcurl promises beyond the contract of both: the port without a thread that waits."""

from __future__ import annotations

import logging
import queue
import resource
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from receipt_actors.domain.ports import Environment
from receipt_actors.errors import AppStoreUnavailable
from receipt_actors.sandbox.app_store import SimulatedAppStore
from receipt_actors.sandbox.receipts import Fault, Purchase, SampleReceipt, mint
from receipt_actors.stores.apple.client import verify_receipt_client
from receipt_actors.stores.apple.client.endpoints import endpoints_at
from receipt_actors.stores.apple.client.verify_receipt_client import VerifyReceiptClient
from receipt_actors.transport.curl import CurlTransport
from tests.patience import PATIENCE_SECONDS
from tests.stores.apple.app_store_servers import answers, http2_server, make_certificate, raw_server, tls_server
from tests.transport.places import running
from tests.transport.wire import Recorder

LONGER_AND_LONGER = (0.3, 1.2, 4.8, 19.2)  #: time-outs to try, for a machine that is too slow for the shorter ones
RECEIPT = mint(SampleReceipt("com.example.game", (Purchase("1000000001"),)))
PRODUCTION = Environment.PRODUCTION
SECRET = "5f0c8e6d9b7a41c2"

Outcomes = queue.SimpleQueue[Mapping[str, Any] | Exception]


@contextmanager
def client_of(url: str, sandbox_url: str | None = None, **time_outs: float) -> Iterator[VerifyReceiptClient]:
    seconds = {"connect_timeout_seconds": 5.0, "read_timeout_seconds": 10.0} | time_outs
    with running(CurlTransport(1000)) as transport:
        yield VerifyReceiptClient(transport, endpoints_at(url, sandbox_url or url, **seconds), SECRET)


@pytest.fixture
def recorder() -> Iterator[Recorder]:
    with closing(Recorder()) as server:
        yield server


@pytest.fixture
def certificate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = make_certificate(tmp_path)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(path))
    return path


def receipt(number: int) -> str:
    return mint(SampleReceipt("com.example.game", (Purchase(str(number)),)))


@pytest.mark.parametrize("descriptors", range(8))
def test_too_few_descriptors_are_trouble_that_passes(recorder: Recorder, descriptors: int) -> None:
    outcomes = Outcomes()
    with client_of(recorder.url) as client:
        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        with socket.socket() as free:
            lowest = free.fileno()
        resource.setrlimit(resource.RLIMIT_NOFILE, (lowest + descriptors, limits[1]))
        try:
            client.begin(RECEIPT, PRODUCTION, outcomes.put)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        outcome = outcomes.get(timeout=PATIENCE_SECONDS)
        assert isinstance(outcome, AppStoreUnavailable | Mapping)
        assert client.verify_receipt(RECEIPT, PRODUCTION)


def test_many_are_under_way_at_once_on_one_thread() -> None:
    number_of_questions = 400
    outcomes: queue.SimpleQueue[tuple[int, Any, str]] = queue.SimpleQueue()

    def done_of(number: int) -> Callable[[object], None]:
        return lambda outcome: outcomes.put((number, outcome, threading.current_thread().name))

    with (
        SimulatedAppStore() as store,
        client_of(store.production_url, store.sandbox_url, read_timeout_seconds=60.0) as client,
    ):
        store.outage(Fault.hang(3600.0))
        for number in range(number_of_questions):
            client.begin(receipt(number), PRODUCTION, done_of(number))
        deadline = time.monotonic() + PATIENCE_SECONDS
        while store.statistics().concurrent_requests_high_water < number_of_questions:
            assert time.monotonic() < deadline
            threading.Event().wait(0.01)  # the server tells nobody who waits
        store.recover()
        for _ in range(number_of_questions):
            assert isinstance(outcomes.get(timeout=PATIENCE_SECONDS)[1], AppStoreUnavailable)
        for number in range(number_of_questions):
            client.begin(receipt(number), PRODUCTION, done_of(number))
        threads = set()
        for _ in range(number_of_questions):
            number, outcome, thread = outcomes.get(timeout=PATIENCE_SECONDS)
            assert outcome["receipt"]["in_app"][0]["transaction_id"] == str(number)
            threads.add(thread)
    assert threads == {"host-scheduler"}


def test_a_tls_session_is_used_again(certificate: Path) -> None:
    """A server that closes its connections is greeted as an acquaintance: no certificate is sent twice."""
    reused: list[bool | None] = []

    def converse(connection: socket.socket) -> None:
        assert isinstance(connection, ssl.SSLSocket)
        reused.append(connection.session_reused)
        answers(b'{"status":0}', b"Connection: close\r\n")(connection)

    with raw_server(converse, tls_server(certificate)) as url, client_of(url) as client:
        for _ in range(3):
            client.verify_receipt(RECEIPT, PRODUCTION)
    assert reused == [False, True, True]


def test_http_2_carries_many_questions_on_one_connection(certificate: Path) -> None:
    outcomes: Outcomes = queue.SimpleQueue()
    with http2_server(certificate, gathers=20) as (url, gathered), client_of(url) as client:
        for _ in range(2):
            for number in range(20):
                client.begin(receipt(number), PRODUCTION, outcomes.put)
            assert [outcomes.get(timeout=PATIENCE_SECONDS) for _ in range(20)] == [{"status": 0}] * 20
        assert gathered == [20, 20]


def test_a_slow_answer_over_http_2_is_given_up_alone(certificate: Path) -> None:
    def is_in_time(seconds: float) -> bool:
        outcomes: Outcomes = queue.SimpleQueue()
        with (
            http2_server(certificate, gathers=2) as (url, gathered),
            client_of(url, read_timeout_seconds=seconds) as client,
        ):
            client.begin(RECEIPT, PRODUCTION, outcomes.put)
            assert f"not complete within {seconds:g} s" in str(outcomes.get(timeout=PATIENCE_SECONDS))
            client.begin(RECEIPT, PRODUCTION, outcomes.put)
            return outcomes.get(timeout=PATIENCE_SECONDS) == {"status": 0} and gathered == [2]

    assert any(map(is_in_time, LONGER_AND_LONGER))


def test_the_time_to_connect_is_not_the_time_to_answer(certificate: Path) -> None:
    def is_in_time(seconds: float) -> bool:
        class Slow(ssl.SSLContext):
            def wrap_socket(self, *args: Any, **kwargs: Any) -> ssl.SSLSocket:  # type: ignore[override]
                threading.Event().wait(1.25 * seconds)
                return super().wrap_socket(*args, **kwargs)

        context = Slow(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        with (
            raw_server(answers(b'{"status":0}'), context) as url,
            client_of(url, connect_timeout_seconds=60.0, read_timeout_seconds=seconds) as client,
        ):
            try:
                return client.verify_receipt(RECEIPT, PRODUCTION) == {"status": 0}
            except AppStoreUnavailable:
                return False

    assert any(map(is_in_time, LONGER_AND_LONGER))


def test_whoever_can_not_take_an_answer_harms_nobody(recorder: Recorder, caplog: pytest.LogCaptureFixture) -> None:
    outcomes: Outcomes = queue.SimpleQueue()

    def fail(_outcome: object) -> None:
        raise SystemExit(1)

    with client_of(recorder.url) as client:
        for _ in range(2):
            client.begin(RECEIPT, PRODUCTION, fail)
            client.begin(RECEIPT, PRODUCTION, outcomes.put)
            assert outcomes.get(timeout=PATIENCE_SECONDS) == {"status": 0}
    assert {record.levelno for record in caplog.records} == {logging.ERROR}
    assert "SystemExit" in caplog.text


def test_a_bug_that_an_answer_sets_off_is_its_own(
    recorder: Recorder, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with client_of(recorder.url) as client:
        with monkeypatch.context() as patched:
            patched.setattr(verify_receipt_client, "read_answer", lambda *_: 1 / 0)
            outcomes: Outcomes = queue.SimpleQueue()
            client.begin(RECEIPT, PRODUCTION, outcomes.put)
            assert isinstance(outcomes.get(timeout=PATIENCE_SECONDS), ZeroDivisionError)
        assert client.verify_receipt(RECEIPT, PRODUCTION) == {"status": 0}
    assert "could not be read" in caplog.text
    assert RECEIPT not in caplog.text


def test_close_answers_what_is_under_way() -> None:
    outcomes: Outcomes = queue.SimpleQueue()
    with SimulatedAppStore() as store, client_of(store.production_url, store.sandbox_url) as client:
        store.outage(Fault.hang(3600.0))
        for number in range(10):
            client.begin(receipt(number), PRODUCTION, outcomes.put)
        client.close()
        client.begin(RECEIPT, PRODUCTION, outcomes.put)
        for _ in range(11):
            outcome = outcomes.get(timeout=PATIENCE_SECONDS)
            assert isinstance(outcome, AppStoreUnavailable)
            assert "the client is closed" in str(outcome)
    assert "host-scheduler" not in {thread.name for thread in threading.enumerate()}


def test_a_client_that_was_never_asked_is_closed() -> None:
    with client_of("http://127.0.0.1:1/") as client:
        client.close()
        client.close()


def test_a_callback_may_close_the_client(recorder: Recorder) -> None:
    closed: queue.SimpleQueue[str] = queue.SimpleQueue()
    with client_of(recorder.url) as client:
        client.begin(RECEIPT, PRODUCTION, lambda _outcome: (client.close(), closed.put("closed")))
        assert closed.get(timeout=PATIENCE_SECONDS) == "closed"
