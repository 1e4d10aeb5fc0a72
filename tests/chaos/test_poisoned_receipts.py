"""Receipts that Apple cannot stomach, for ever, among honest ones: nobody waits for a stranger.

The real program on SQLite, against a simulated App Store over HTTP that takes 250 ms for an answer. Honest receipts
come at random moments; what is measured of each is the time from its sending to its answer.
"""

from __future__ import annotations

import json
import random
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field

import pytest

from receipt_actors.domain.ports import OutgoingMessage
from receipt_actors.sandbox.app_store import SimulatedAppStore
from receipt_actors.sandbox.receipts import Fault, Purchase, SampleReceipt, mint
from receipt_actors.sqlite import EmbeddedQueues
from tests.patience import PATIENCE_SECONDS
from tests.system.processes import Program
from tests.system.worlds import BUNDLE_ID, DEAD_LETTERS, RESULTS, SOURCE, EmbeddedWorld

APPLE_SECONDS = 0.25
MAX_P95_SECONDS = APPLE_SECONDS + 1.0
MAX_SECONDS = APPLE_SECONDS + 5.0
DETECTED_SECONDS = 5.0
ROUNDS = 60  #: requests with one receipt that fail; more than any run makes

KINDS = {"21005": Fault.apple(21005), "500": Fault.http(500), "garbage": Fault.html(), "silence": Fault.hang(3600)}


@dataclass(frozen=True, slots=True)
class Load:
    honest_rate: float
    poisoned: int = 0  #: there from the beginning
    drip_rate: float = 0.0  #: and new ones all the time


@dataclass(slots=True)
class Honest:
    sent_at: float
    answered_at: float | None = None


@dataclass(slots=True)
class Crowd:
    """Sends a load, and sees when each honest receipt is answered."""

    world: EmbeddedWorld
    fault: Fault
    load: Load
    seed: int = 1
    honest: dict[int, Honest] = field(default_factory=dict)
    poisoned: int = 0
    is_over: threading.Event = field(default_factory=threading.Event)
    all_answered: threading.Event = field(default_factory=threading.Event)
    threads: list[threading.Thread] = field(default_factory=list)

    def __enter__(self) -> Crowd:
        with closing(EmbeddedQueues(self.world.database)) as queues:
            for _ in range(self.load.poisoned):
                self._send_poisoned(queues)
        jobs: list[Callable[[EmbeddedQueues], None]] = [self._read, self._send_all]
        self.threads = [threading.Thread(target=self._run, args=(job,), daemon=True) for job in jobs]
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self.is_over.set()
        self.all_answered.set()
        for thread in self.threads:
            thread.join()

    def _run(self, job: Callable[[EmbeddedQueues], None]) -> None:
        with closing(EmbeddedQueues(self.world.database)) as queues:
            job(queues)

    def _send_all(self, queues: EmbeddedQueues) -> None:
        rng = random.Random(self.seed)
        kinds = [(self.load.honest_rate, self._send_honest), (self.load.drip_rate, self._send_poisoned)]
        now = time.monotonic()
        due = [(now + rng.expovariate(rate), rate, send) for rate, send in kinds if rate]
        while not self.is_over.wait(max(0.0, min(due, key=lambda each: each[0])[0] - time.monotonic())):
            due.sort(key=lambda each: each[0])
            at, rate, send = due[0]
            send(queues)
            due[0] = (at + rng.expovariate(rate), rate, send)

    def _send_honest(self, queues: EmbeddedQueues) -> None:
        number = len(self.honest)
        self.honest[number] = Honest(time.monotonic())
        self._send(queues, number, SampleReceipt(BUNDLE_ID, (Purchase(f"{10_000_000 + number}"),)))

    def _send_poisoned(self, queues: EmbeddedQueues) -> None:
        self.poisoned += 1
        purchase = Purchase(f"{90_000_000 + self.poisoned}")
        self._send(queues, -self.poisoned, SampleReceipt(BUNDLE_ID, (purchase,), faults=(self.fault,) * ROUNDS))

    def _send(self, queues: EmbeddedQueues, user_id: int, receipt: SampleReceipt) -> None:
        body = json.dumps({"receipt": mint(receipt), "user_id": user_id, "post_queue": RESULTS})
        assert queues.send(SOURCE, [OutgoingMessage(body)]) == [None]

    def _read(self, queues: EmbeddedQueues) -> None:
        while not self.all_answered.is_set():
            letters = queues.receive(RESULTS, max_messages=10, wait_seconds=1, visibility_timeout_seconds=600)
            now = time.monotonic()
            for letter in letters:
                answer = json.loads(letter.body)
                assert answer["status"] == "OK"
                self.honest[answer["user_id"]].answered_at = now
            if letters:
                queues.delete(RESULTS, [letter.receipt_handle for letter in letters])
            if self.is_over.is_set() and not self.waiting():
                self.all_answered.set()

    def finish(self, program: Program) -> None:
        self.is_over.set()
        program.wait_until(self.all_answered.is_set, "all honest ones are answered")

    def waiting(self) -> list[Honest]:
        return [each for each in list(self.honest.values()) if each.answered_at is None]

    def seconds(self, *, since: float = 0.0, until: float | None = None) -> list[float]:
        """How long honest receipts have waited, in order; those that wait still, until now."""
        now = time.monotonic()
        chosen = [
            each for each in self.honest.values() if since <= each.sent_at and (not until or each.sent_at < until)
        ]
        return sorted((each.answered_at or now) - each.sent_at for each in chosen)


def percentile_95(seconds: list[float]) -> float:
    return seconds[min(len(seconds) - 1, int(len(seconds) * 0.95))]


def told(seconds: list[float]) -> str:
    middle, p95 = seconds[len(seconds) // 2], percentile_95(seconds)
    return f"{len(seconds)} honest, p50 {middle:.2f} s, p95 {p95:.2f} s, worst {seconds[-1]:.2f} s"


def flow(program: Program, seconds: float) -> None:
    until = time.monotonic() + seconds
    program.wait_until(lambda: time.monotonic() > until, "traffic has flowed", seconds=seconds + 60)


def check_waits(seconds: list[float], *, is_full: bool) -> None:
    """A check at short size, which runs beside others, shows that nobody waits for the poisoned ones to end."""
    assert percentile_95(seconds) < (MAX_P95_SECONDS if is_full else 10)
    assert seconds[-1] < (MAX_SECONDS if is_full else 30)


def most_receives_of_honest(world: EmbeddedWorld) -> int:
    select = (
        "SELECT MAX(receive_count) FROM messages JOIN queues USING (queue_id) JOIN contents USING (row_id)"
        """ WHERE name = ? AND body NOT LIKE '%"user_id": -%'"""
    )
    with closing(sqlite3.connect(world.database, timeout=PATIENCE_SECONDS)) as connection:
        (receives,) = connection.execute(select, (SOURCE,)).fetchone()
    return receives or 0


@pytest.fixture
def store() -> Iterator[SimulatedAppStore]:
    with SimulatedAppStore(latency_seconds=APPLE_SECONDS) as store:
        yield store


@pytest.mark.parametrize("transport", ["auto", "threads"])
@pytest.mark.parametrize("kind", KINDS)
def test_nobody_waits_for_forty_poisoned_receipts(
    embedded: EmbeddedWorld,
    store: SimulatedAppStore,
    is_full: bool,
    figure: Callable[[str], None],
    kind: str,
    transport: str,
) -> None:
    if not is_full and (kind, transport) not in (("21005", "auto"), ("silence", "threads")):
        pytest.skip("at full size only")
    program = embedded.start(store, transport=transport)
    program.wait_for_log("consumers take receipts")
    with Crowd(embedded, KINDS[kind], Load(honest_rate=20 if is_full else 5, poisoned=40)) as crowd:
        flow(program, 30 if is_full else 20)
        began_at, logged = time.monotonic(), len(program.stderr)
        store.outage(Fault.http(503))
        program.wait_until(lambda: "app_store is unavailable" in program.stderr[logged:], "the outage is seen")
        detected_seconds = time.monotonic() - began_at
        flow(program, 10)
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


@pytest.mark.parametrize("name", LOADS)
def test_nobody_waits_for_a_stream_of_poisoned_receipts(
    embedded: EmbeddedWorld, store: SimulatedAppStore, is_full: bool, figure: Callable[[str], None], name: str
) -> None:
    if not is_full:
        pytest.skip("at full size only")
    kind, load = LOADS[name]
    program = embedded.start(store)
    program.wait_for_log("consumers take receipts")
    with Crowd(embedded, KINDS[kind], load) as crowd:
        flow(program, 120)
        crowd.finish(program)
        seconds = crowd.seconds()
    figure(told(seconds))
    check_waits(seconds, is_full=True)
