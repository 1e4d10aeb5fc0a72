"""Outages that last for many visibility timeouts, with the real program: messages wait, and nobody gets a verdict.

Each is told in one line when it begins and in one when it is over; and when it is over the work goes on at full rate
within seconds.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from receipt_actors.sandbox.app_store import SimulatedAppStore
from receipt_actors.sandbox.receipts import Fault
from tests.system.processes import Program
from tests.system.worlds import DEAD_LETTERS, RESULTS, SOURCE, AwsWorld, EmbeddedWorld, Refusal, World, genuine_messages

VISIBILITY_TIMEOUT_SECONDS = 10  # the shortest there is
IN_FLIGHT = 30
WAITING = 40

APPLE = {
    "429": Fault.http(429, retry_after="3"),
    "slow bodies": Fault.trickle(1.0),
    "503": Fault.http(503),
    "hangs": Fault.hang(3600),
    "web page": Fault.html(),
    "half a body": Fault.garbage(),
    "closed connections": Fault.drop(),
    "status 21005": Fault.apple(21005),
}


def sized(kinds: Iterable[str], *short: str) -> list[Any]:
    return [kind if kind in short else pytest.param(kind, marks=pytest.mark.full) for kind in kinds]


@pytest.fixture
def store() -> Iterator[SimulatedAppStore]:
    with SimulatedAppStore(latency_seconds=0.3) as store:
        yield store


@dataclass(frozen=True, slots=True)
class Outage:
    begin: Callable[[], None]
    end: Callable[[], None]
    alarms: int = 1  #: lines that say so, at most
    lets_answers_out: bool = False  #: what had been received before it is answered meanwhile


class Watch:
    def __init__(self, program: Program) -> None:
        self._program = program
        self._begin = len(program.stderr)

    def lines(self, *levels: str) -> list[str]:
        lines = self._program.stderr[self._begin :].splitlines()
        return [line for line in lines if any(f" {level} " in line for level in levels)]


def survive(
    world: World, store: SimulatedAppStore, outage: Outage, *, is_full: bool, figure: Callable[[str], None]
) -> None:
    seconds = (4.5 if is_full else 1.2) * VISIBILITY_TIMEOUT_SECONDS
    early, late = genuine_messages(IN_FLIGHT, 51), genuine_messages(WAITING, 52)
    program = world.start_consuming(
        store,
        visibility_timeout_seconds=VISIBILITY_TIMEOUT_SECONDS,
        app_store_read_timeout_seconds=2,
        app_store_concurrency=50,
        max_in_flight=IN_FLIGHT + WAITING,
    )
    watch = Watch(program)
    outage.begin()
    world.send(early)
    program.wait_until(lambda: watch.lines("ERROR"), "it is told")
    world.send(late)
    program.pass_time(seconds)
    assert world.total(DEAD_LETTERS) == 0
    assert world.total(RESULTS) == 0 or outage.lets_answers_out
    assert world.total(SOURCE) == len(early) + len(late)
    if isinstance(world, EmbeddedWorld):
        assert world.most_receives(SOURCE) == 1, "deliveries are used up"
    # Afterwards a store of a busy machine may take longer than its short time-out.
    told = watch.lines("ERROR", "CRITICAL")
    assert len(told) <= outage.alarms, told

    outage.end()
    ended_at = time.monotonic()
    program.wait_until(lambda: world.total(RESULTS) > 0, "the first is answered")
    first_seconds = time.monotonic() - ended_at
    program.wait_until(lambda: world.total(SOURCE) == 0, "everything is done")
    all_seconds = time.monotonic() - ended_at
    program.stop()

    assert {(letter.fields["user_id"], letter.fields["status"]) for letter in world.take(RESULTS)} == {
        (message.user_id, "OK") for message in (*early, *late)
    }
    assert world.total(DEAD_LETTERS) == 0
    lines = len(watch.lines("WARNING", "ERROR"))
    figure(
        f"{seconds:.0f} s, {lines} lines logged; first answer {first_seconds:.1f} s, "
        f"all {len(early) + len(late)} {all_seconds:.1f} s after its end"
    )


@pytest.mark.parametrize("kind", sized(APPLE, "429", "slow bodies"))
def test_an_outage_of_the_app_store(
    embedded: EmbeddedWorld, store: SimulatedAppStore, is_full: bool, figure: Callable[[str], None], kind: str
) -> None:
    outage = Outage(lambda: store.outage(APPLE[kind]), store.recover)
    survive(embedded, store, outage, is_full=is_full, figure=figure)


@pytest.mark.full
def test_an_app_store_that_refuses_connections(embedded: EmbeddedWorld, figure: Callable[[str], None]) -> None:
    store = SimulatedAppStore(port=embedded.programs.reserve_port(), latency_seconds=0.3)
    try:
        survive(embedded, store, Outage(lambda: None, store.start), is_full=True, figure=figure)
    finally:
        store.stop()


@pytest.mark.short
def test_an_app_store_whose_name_is_not_found(embedded: EmbeddedWorld, store: SimulatedAppStore) -> None:
    messages = genuine_messages(IN_FLIGHT, 53)
    embedded.send(messages)
    program = embedded.start(store, app_store_url="https://no-such-host.invalid/x", drain_seconds=7)
    program.wait_for_log("unavailable")
    program.stop()
    assert program.stderr.count(" ERROR ") == 1
    embedded.finish(store)
    assert {letter.fields["user_id"] for letter in embedded.take(RESULTS)} == {m.user_id for m in messages}
    assert embedded.total(DEAD_LETTERS) == embedded.total(SOURCE) == 0


DYNAMODB = frozenset({"PutItem", "BatchExecuteStatement", "GetItem"})
SQS = frozenset({"ReceiveMessage", "SendMessageBatch", "DeleteMessageBatch", "ChangeMessageVisibilityBatch"})
SQS_ALARMS = 4  # receives, sends, deletes, visibility changes: each has a gateway of its own

SOURCE_IS_GONE = "a source queue that is gone"

AWS = {
    "DynamoDB throttles": (DYNAMODB, Refusal("400 Bad Request", "ProvisionedThroughputExceededException"), 1),
    "DynamoDB 500": (DYNAMODB, Refusal("500 Internal Server Error", "InternalServerError"), 1),
    "SQS 503": (SQS, Refusal(), SQS_ALARMS),
    "expired credentials": (DYNAMODB | SQS, Refusal("403 Forbidden", "ExpiredTokenException"), 1 + SQS_ALARMS),
    SOURCE_IS_GONE: (
        SQS - {"SendMessageBatch"},
        Refusal("400 Bad Request", "AWS.SimpleQueueService.NonExistentQueue"),
        1,
    ),
}


@pytest.mark.parametrize("kind", sized(AWS, "expired credentials"))
def test_an_outage_of_aws(
    aws: AwsWorld, store: SimulatedAppStore, is_full: bool, figure: Callable[[str], None], kind: str
) -> None:
    operations, refusal, alarms = AWS[kind]

    def begin() -> None:
        aws.server.refusal, aws.server.refused = refusal, operations

    def end() -> None:
        aws.server.refused = frozenset()

    outage = Outage(begin, end, alarms, lets_answers_out=kind == SOURCE_IS_GONE)
    survive(aws, store, outage, is_full=is_full, figure=figure)


@pytest.mark.full
def test_a_table_that_is_gone(aws: AwsWorld, store: SimulatedAppStore, figure: Callable[[str], None]) -> None:
    survive(aws, store, Outage(aws.delete_table, aws.create_table), is_full=True, figure=figure)
