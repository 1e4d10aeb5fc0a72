"""Refunds by the running programs: ``start`` gives the OK, ``notifications`` takes it back, and nothing is lost.

Apple is an authority of the simulated App Store, whose root the program is told to trust.
"""

from __future__ import annotations

import http.client
import json
import signal
import socket
import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from receipt_actors.cli import EXIT_DONE, EXIT_WORLD_FAILED
from receipt_actors.sandbox.app_store import SimulatedAppStore
from receipt_actors.sandbox.load import SampleMessage
from tests.stores.apple.notifications.posts import AUTHORITY, Posted, transaction_payload
from tests.stores.apple.notifications.servers import Client, read_to_end

from .processes import Program
from .worlds import BUNDLE_ID, RESULTS, AwsWorld, EmbeddedWorld, Letter, World, genuine_messages

READY = "Apple's notifications are taken at http://127.0.0.1:"


@pytest.fixture
def store() -> Iterator[SimulatedAppStore]:
    with SimulatedAppStore() as store:
        yield store


@pytest.fixture
def roots(tmp_path: Path) -> Path:
    """The folder of root certificates to trust: the authority's alone."""
    AUTHORITY.write_roots(tmp_path / "roots")
    return tmp_path / "roots"


@pytest.fixture(params=["embedded", "aws"])
def world(request: pytest.FixtureRequest) -> World:
    """Each backend in turn, with a table of notifications where it takes one."""
    world: World = request.getfixturevalue(request.param)
    if isinstance(world, AwsWorld):
        world.create_table("NotificationIdTable", "NotificationUuid")
    return world


def serve(world: World, roots: Path, *more: str) -> tuple[Program, Client]:
    """Start the command on a free port, and wait until it serves."""
    arguments = ("--port", "0", "--bundle-ids", BUNDLE_ID, "--apple-roots", str(roots), *more)
    program = world.command("notifications", *arguments)
    program.wait_for_log(READY)
    return program, Client(int(program.stderr.partition(READY)[2].partition("/")[0]))


def stop(*programs: Program) -> None:
    for program in programs:
        program.send_signal(signal.SIGTERM)
        assert program.wait_for_end() == EXIT_DONE


def validate(world: World, store: SimulatedAppStore, messages: Sequence[SampleMessage]) -> list[Letter]:
    """Let ``start`` answer these messages, and read its answers."""
    world.send(messages)
    program = world.start(store, exit_when_idle_seconds=1)
    assert program.wait_for_end() == EXIT_DONE
    return world.read(RESULTS)


def by_another_user(message: SampleMessage, user_id: int = 987_654) -> SampleMessage:
    """The same receipt, sent by somebody else as a submission of his own."""
    body = {**json.loads(message.body), "user_id": user_id}
    return replace(message, body=json.dumps(body), attributes={})


@pytest.mark.short("embedded")
def test_a_refund_takes_the_ok_back(world: World, store: SimulatedAppStore, roots: Path) -> None:
    """OK; then INVALID on the same queue, with the same attributes; another user is told whose it is, as ever."""
    (message,) = genuine_messages(1, 21)
    (ok,) = validate(world, store, [message])
    assert ok.fields["status"] == "OK"
    program, client = serve(world, roots)
    posted = Posted(transaction=transaction_payload(ok.fields["transaction_id"]))
    assert client.post(posted.body) == 200
    (invalid,) = world.read(RESULTS)
    assert invalid.fields == {**ok.fields, "status": "INVALID"}
    assert invalid.attributes["reason"] == "refunded"
    for attribute in ("submission_id", "source_message_id", "product_id", "environment"):
        assert invalid.attributes[attribute] == ok.attributes[attribute]
    assert client.post(posted.body) == 200
    assert world.read(RESULTS) == []
    stop(program)
    assert (
        f"notification {posted.uuid} (REFUND), answered 200: transaction {ok.fields['transaction_id']}"
        in program.stderr
    )
    assert "stopped: 1 posted, 1 known" in program.stderr

    (refused,) = validate(world, store, [by_another_user(message)])
    assert (refused.fields["status"], refused.attributes["reason"]) == ("INVALID", "claimed_by_another_user")
    assert refused.fields["user_id"] == 987_654


def test_a_refund_before_its_claim_is_kept_until_it_is_reversed(
    world: World, store: SimulatedAppStore, roots: Path
) -> None:
    """The claim gets INVALID, reason refunded; after the reversal it gets OK."""
    (message,) = genuine_messages(1, 22)
    first, second = by_another_user(message, 1), by_another_user(message, 2)
    transaction_id = transaction_id_of(message, store)
    program, client = serve(world, roots)
    assert client.post(Posted(transaction=transaction_payload(transaction_id)).body) == 200
    assert world.read(RESULTS) == []
    (refused,) = validate(world, store, [first])
    assert (refused.fields["status"], refused.attributes["reason"]) == ("INVALID", "refunded")
    assert refused.fields["transaction_id"] == transaction_id
    assert client.post(Posted("REFUND_REVERSED", transaction_payload(transaction_id)).body) == 200
    (accepted,) = validate(world, store, [second])
    assert (accepted.fields["status"], accepted.fields["user_id"]) == ("OK", 2)
    assert world.read(RESULTS) == []
    stop(program)


def transaction_id_of(message: SampleMessage, store: SimulatedAppStore) -> str:
    """Ask the store what was bought, as the program does."""
    from receipt_actors.domain.ports import Environment
    from receipt_actors.domain.receipts import Genuine
    from receipt_actors.stores.apple.client.endpoints import endpoints_at
    from receipt_actors.stores.apple.client.verify_receipt_client import VerifyReceiptClient
    from receipt_actors.stores.apple.verify_receipt import interpret
    from receipt_actors.transport.blocking import BlockingTransport

    endpoints = endpoints_at(store.production_url, store.sandbox_url, 5.0, 5.0)
    client = VerifyReceiptClient(BlockingTransport(1), endpoints, None)
    answer = client.verify_receipt(json.loads(message.body)["receipt"], Environment.PRODUCTION)
    client.close()
    genuine = interpret(answer, Environment.PRODUCTION)
    assert isinstance(genuine, Genuine)
    (transaction,) = genuine.transactions
    return transaction.transaction_id


def test_they_run_beside_each_other(embedded: EmbeddedWorld, store: SimulatedAppStore, roots: Path) -> None:
    """Refunds come in while receipts are answered: each that was told OK is told INVALID, and nobody else is."""
    messages = genuine_messages(60, 24)
    program, client = serve(embedded, roots)
    service = embedded.start(store)
    embedded.send(messages)
    told: dict[str, list[str]] = {}
    refunded: set[str] = set()

    def read_and_refund() -> bool:
        for letter in embedded.read(RESULTS):
            transaction_id = letter.fields["transaction_id"]
            told.setdefault(transaction_id, []).append(letter.fields["status"])
            if letter.fields["status"] == "OK" and len(refunded) < 20:
                assert client.post(Posted(transaction=transaction_payload(transaction_id)).body) == 200
                refunded.add(transaction_id)
        return sum(map(len, told.values())) == len(messages) + 20

    service.wait_until(read_and_refund, "everything is answered, and the refunds are posted")
    stop(service, program)
    assert {key for key, statuses in told.items() if statuses == ["OK", "INVALID"]} == refunded
    assert all(statuses == ["OK"] for key, statuses in told.items() if key not in refunded)


@pytest.mark.short
def test_killed_in_the_middle_it_loses_nothing(embedded: EmbeddedWorld, store: SimulatedAppStore, roots: Path) -> None:
    """kill -9 with POSTs under way; Apple sends those again that got no answer, and each refund is posted."""
    answers = validate(embedded, store, genuine_messages(30, 25))
    posts = {
        letter.fields["transaction_id"]: Posted(transaction=transaction_payload(letter.fields["transaction_id"])).body
        for letter in answers
    }
    program, client = serve(embedded, roots)
    answered: set[str] = set()

    def send(transaction_id: str) -> None:
        try:
            if client.post(posts[transaction_id]) == 200:
                answered.add(transaction_id)
        except (OSError, http.client.HTTPException):
            pass  # it was killed

    threads = [threading.Thread(target=send, args=(transaction_id,)) for transaction_id in posts]
    for thread in threads:
        thread.start()
    program.wait_until(lambda: len(answered) > 3, "some are answered")
    program.kill()
    for thread in threads:
        thread.join()
    program, client = serve(embedded, roots)
    assert {client.post(body) for key, body in posts.items() if key not in answered} <= {200}
    stop(program)
    invalid = [letter.fields["transaction_id"] for letter in embedded.read(RESULTS)]
    assert set(invalid) == set(posts)
    assert len(invalid) <= 2 * len(posts)


# --- the command ---


def test_a_stop_lets_requests_under_way_be_finished(embedded: EmbeddedWorld, roots: Path) -> None:
    """Half a POST is here when SIGTERM comes: no new connection is taken, the rest is waited for, and answered."""
    program, client = serve(embedded, roots)
    body = Posted("TEST", None).body
    idle = client.connect()
    with client.connect() as connection:
        connection.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body[:-10]))
        assert client.ask("GET", "/healthz", None, {})[0] == 200  # it has seen the other one by now
        program.send_signal(signal.SIGTERM)
        program.wait_for_log("SIGTERM: finishing the requests under way")
        assert read_to_end(idle) == b""
        with pytest.raises(OSError, match="refused|reset"):
            client.connect().recv(1)
        connection.sendall(body[-10:])
        assert read_to_end(connection).split(b" ")[1] == b"200"
    idle.close()
    assert program.wait_for_end() == EXIT_DONE
    assert "stopped: 1 nothing" in program.stderr


@pytest.mark.short
def test_what_apple_did_not_sign_changes_nothing(embedded: EmbeddedWorld, tmp_path: Path) -> None:
    """By default Apple's own root is trusted, and nobody else's: the authority of these tests is a stranger."""
    arguments = ("--port", "0", "--bundle-ids", BUNDLE_ID)
    program = embedded.command("notifications", *arguments)
    program.wait_for_log(READY)
    client = Client(int(program.stderr.partition(READY)[2].partition("/")[0]))
    assert client.post(Posted().body) == 403
    assert embedded.claimed_transaction_ids() == []
    stop(program)
    assert "jws_foreign_root" in program.stderr
    assert "eyJ" not in program.stderr


def test_a_port_that_is_taken_is_told_in_one_line(embedded: EmbeddedWorld, roots: Path) -> None:
    """And nothing else has begun by then."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        program = embedded.command("notifications", "--port", str(port), "--bundle-ids", BUNDLE_ID)
        assert program.wait_for_end() == EXIT_WORLD_FAILED
    (line,) = program.stderr.splitlines()
    assert line == (
        f"receipt-actors: notifications: 127.0.0.1:{port} can't be listened on: Address already in use; choose another"
    )
