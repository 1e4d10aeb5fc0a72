"""Refunds by the running programs: ``start`` gives the OK, ``notifications`` takes it back, and nothing is lost.

Apple is an authority of the simulated App Store, whose root the program is told to trust.
"""

from __future__ import annotations

import http.client
import json
import signal
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from receipt_actors.cli import EXIT_DONE
from receipt_actors.sandbox.app_store import SimulatedAppStore
from receipt_actors.sandbox.load import SampleMessage
from tests.stores.apple.notifications.posts import AUTHORITY, Posted, transaction_payload
from tests.stores.apple.notifications.servers import Client, read_to_end

from .processes import Program
from .worlds import BUNDLE_ID, RESULTS, AwsWorld, EmbeddedWorld, Letter, World, genuine_messages

READY = "Apple's notifications are taken at http://127.0.0.1:"


@pytest.fixture
def roots(tmp_path: Path) -> Path:
    AUTHORITY.write_roots(tmp_path / "roots")
    return tmp_path / "roots"


@pytest.fixture(params=["embedded", "aws"])
def world(request: pytest.FixtureRequest) -> World:
    world: World = request.getfixturevalue(request.param)
    if isinstance(world, AwsWorld):
        world.create_table("NotificationIdTable", "NotificationUuid")
    return world


def serve(world: World, roots: Path, *more: str) -> tuple[Program, Client]:
    arguments = ("--port", "0", "--bundle-ids", BUNDLE_ID, "--apple-roots", str(roots), *more)
    program = world.command("notifications", *arguments)
    program.wait_for_log(READY)
    return program, Client(int(program.stderr.partition(READY)[2].partition("/")[0]))


def stop(*programs: Program) -> None:
    for program in programs:
        program.stop()


def validate(world: World, store: SimulatedAppStore, messages: Sequence[SampleMessage]) -> list[Letter]:
    world.send(messages)
    world.finish(store)
    return world.read(RESULTS)


def by_another_user(message: SampleMessage, user_id: int = 987_654) -> SampleMessage:
    body = {**json.loads(message.body), "user_id": user_id}
    return replace(message, body=json.dumps(body), attributes={})


@pytest.mark.short("embedded")
def test_a_refund_takes_the_ok_back(world: World, store: SimulatedAppStore, roots: Path) -> None:
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


def test_they_run_beside_each_other(embedded: EmbeddedWorld, store: SimulatedAppStore, roots: Path) -> None:
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
