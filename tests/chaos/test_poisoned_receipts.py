"""Receipts that Apple cannot stomach, for ever, among honest ones: nobody waits for a stranger.

The real program on SQLite, against a simulated App Store over HTTP that takes 250 ms for an answer. Honest receipts
come at random moments; what is measured of each is the time from its sending to its answer.
"""

from __future__ import annotations

import itertools
import json
import random
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from math import inf

import pytest

from receipt_actors.domain.ports import OutgoingMessage
from receipt_actors.sandbox.app_store import SimulatedAppStore
from receipt_actors.sandbox.receipts import Fault, Purchase, SampleReceipt, mint
from receipt_actors.sqlite import EmbeddedQueues
from tests.system.processes import Program
from tests.system.worlds import BUNDLE_ID, DEAD_LETTERS, RESULTS, SOURCE, EmbeddedWorld

APPLE_SECONDS = 0.25
MAX_P95_SECONDS = APPLE_SECONDS + 1.0
MAX_SECONDS = APPLE_SECONDS + 5.0
DETECTED_SECONDS = 5.0
ROUNDS = 60  #: requests with one receipt that fail; more than any run makes

full = partial(pytest.param, marks=pytest.mark.full)
KINDS = {"21005": Fault.apple(21005), "500": Fault.http(500), "garbage": Fault.html(), "silence": Fault.hang(3600)}


@dataclass(frozen=True, slots=True)
class Load:
    honest_rate: float
    poisoned: int = 0  #: there from the beginning
    drip_rate: float = 0.0  #: and new ones all the time


class Crowd:
    """Sends a load, and sees when each honest receipt is answered."""

    def __init__(self, world: EmbeddedWorld, fault: Fault, load: Load) -> None:
        self._queues = EmbeddedQueues(world.database)
        self._fault = fault
        self._load = load
        self._sent_at: dict[int, float] = {}  # honest ones, by user, monotonic
        self._answered_at: dict[int, float] = {}
        self._poisoned = itertools.count(1)
        self._is_over = threading.Event()
        self._is_left = threading.Event()
        self._pool = ThreadPoolExecutor()

    def __enter__(self) -> Crowd:
        for _ in range(self._load.poisoned):
            self._send_poisoned()
        sending = [(self._load.honest_rate, self._send_honest), (self._load.drip_rate, self._send_poisoned)]
        self._jobs = [self._pool.submit(self._send_all, rate, send) for rate, send in sending if rate]
        self._jobs.append(self._pool.submit(self._read))
        return self

    def __exit__(self, *_error: object) -> None:
        self._is_over.set()
        self._is_left.set()
        self._pool.shutdown()
        self._queues.close()
        for job in self._jobs:
            job.result()

    def _send_all(self, rate: float, send: Callable[[], None]) -> None:
        rng = random.Random(1)
        due_at = time.monotonic() + rng.expovariate(rate)
        while not self._is_over.wait(max(0.0, due_at - time.monotonic())):
            send()
            due_at += rng.expovariate(rate)

    def _send_honest(self) -> None:
        number = len(self._sent_at)
        self._sent_at[number] = time.monotonic()
        self._send(number, SampleReceipt(BUNDLE_ID, (Purchase(f"{10_000_000 + number}"),)))

    def _send_poisoned(self) -> None:
        number = next(self._poisoned)
        faults = (self._fault,) * ROUNDS
        self._send(-number, SampleReceipt(BUNDLE_ID, (Purchase(f"{90_000_000 + number}"),), faults=faults))

    def _send(self, user_id: int, receipt: SampleReceipt) -> None:
        body = json.dumps({"receipt": mint(receipt), "user_id": user_id, "post_queue": RESULTS})
        assert self._queues.send(SOURCE, [OutgoingMessage(body)]) == [None]

    def _read(self) -> None:
        while not self._is_left.is_set():
            letters = self._queues.receive(RESULTS, max_messages=10, wait_seconds=1, visibility_timeout_seconds=600)
            for letter in letters:
                answer = json.loads(letter.body)
                assert answer["status"] == "OK"
                self._answered_at[answer["user_id"]] = time.monotonic()
            if letters:
                self._queues.delete(RESULTS, [letter.receipt_handle for letter in letters])

    def finish(self, program: Program) -> None:
        self._is_over.set()
        program.wait_until(lambda: self._answered_at.keys() >= self._sent_at.keys(), "all honest ones are answered")

    def seconds(self, until: float = inf) -> list[float]:
        """How long honest receipts that were sent by then have waited, in order."""
        sent = {user_id: at for user_id, at in self._sent_at.items() if at < until}
        return sorted(self._answered_at[user_id] - at for user_id, at in sent.items())


def percentile_95(seconds: list[float]) -> float:
    return seconds[min(len(seconds) - 1, int(len(seconds) * 0.95))]


def told(seconds: list[float]) -> str:
    middle, p95 = seconds[len(seconds) // 2], percentile_95(seconds)
    return f"{len(seconds)} honest, p50 {middle:.2f} s, p95 {p95:.2f} s, worst {seconds[-1]:.2f} s"


def check_waits(seconds: list[float], *, is_full: bool) -> None:
    """A check at short size, which runs beside others, shows that nobody waits for the poisoned ones to end."""
    assert percentile_95(seconds) < (MAX_P95_SECONDS if is_full else 10)
    assert seconds[-1] < (MAX_SECONDS if is_full else 30)


def most_receives_of_honest(world: EmbeddedWorld) -> int:
    select = (
        "SELECT MAX(receive_count) FROM messages JOIN queues USING (queue_id) JOIN contents USING (row_id)"
        """ WHERE name = ? AND body NOT LIKE '%"user_id": -%'"""
    )
    return world.sql(select, SOURCE)[0][0] or 0


@pytest.fixture
def store() -> Iterator[SimulatedAppStore]:
    with SimulatedAppStore(latency_seconds=APPLE_SECONDS) as store:
        yield store


@pytest.mark.parametrize(
    ("kind", "transport"),
    [
        ("21005", "auto"),
        ("silence", "threads"),
        *(full("21005", "threads"), full("silence", "auto")),
        *(full(kind, transport) for kind in ("500", "garbage") for transport in ("auto", "threads")),
    ],
)
def test_nobody_waits_for_forty_poisoned_receipts(
    embedded: EmbeddedWorld,
    store: SimulatedAppStore,
    is_full: bool,
    figure: Callable[[str], None],
    kind: str,
    transport: str,
) -> None:
    program = embedded.start_consuming(store, transport=transport)
    with Crowd(embedded, KINDS[kind], Load(honest_rate=20 if is_full else 5, poisoned=40)) as crowd:
        program.pass_time(30 if is_full else 20)
        began_at, logged = time.monotonic(), len(program.stderr)
        store.outage(Fault.http(503))
        program.wait_until(lambda: "app_store is unavailable" in program.stderr[logged:], "the outage is seen")
        detected_seconds = time.monotonic() - began_at
        program.pass_time(10)
        assert most_receives_of_honest(embedded) <= 1
        store.recover()
        crowd.finish(program)
        before = crowd.seconds(until=began_at - MAX_SECONDS)
    program.stop()
    check_waits(before, is_full=is_full)
    assert detected_seconds < (DETECTED_SECONDS if is_full else 30)
    assert all(letter.fields["user_id"] < 0 for letter in embedded.take(DEAD_LETTERS))
    figure(f"{told(before)}; an outage is seen after {detected_seconds:.1f} s")


LOADS = {
    "twelve, with 500, beside 1/s": ("500", Load(honest_rate=1, poisoned=12)),
    "181, with 21005, beside 20/s": ("21005", Load(honest_rate=20, poisoned=181)),
    "20/s, with 500, beside 1/s": ("500", Load(honest_rate=1, drip_rate=20)),
    "2/s that are never answered, beside 2/s": ("silence", Load(honest_rate=2, drip_rate=2)),
}


@pytest.mark.full
@pytest.mark.parametrize("name", LOADS)
def test_nobody_waits_for_a_stream_of_poisoned_receipts(
    embedded: EmbeddedWorld, store: SimulatedAppStore, figure: Callable[[str], None], name: str
) -> None:
    kind, load = LOADS[name]
    program = embedded.start_consuming(store)
    with Crowd(embedded, KINDS[kind], load) as crowd:
        program.pass_time(120)
        crowd.finish(program)
        seconds = crowd.seconds()
    figure(told(seconds))
    check_waits(seconds, is_full=True)
