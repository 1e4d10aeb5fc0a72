"""SIGTERM at any moment, again and again on the same queues: each drain is in order, and no verdict changes."""

from __future__ import annotations

import random
import signal
import time
from collections import Counter
from collections.abc import Callable

import pytest

from receipt_actors.sandbox.app_store import SimulatedAppStore
from receipt_actors.sandbox.load import Kind
from receipt_actors.sandbox.receipts import Fault
from tests.system.processes import Program
from tests.system.worlds import SOURCE, World

from .traffic import Traffic

DRAIN_SECONDS = 7
LONGEST_START_SECONDS = 1.5
BACKLOG = 60
MOST_FINISHES = 10
HAS_STARTED = "consumers take receipts"  #: in its log


class Series:
    def __init__(self, world: World, store: SimulatedAppStore, rng: random.Random) -> None:
        self.world = world
        # One that is tried for longer than any of these runs takes comes back more often than is handed back at once.
        self.traffic = Traffic(world, seed=8000, without=[Kind.MALFORMED])
        self.moments: Counter[str] = Counter()
        self.drain_seconds: list[float] = []
        self._store = store
        self._random = rng

    def run(self) -> None:
        while self.world.visible(SOURCE) < BACKLOG:
            self.traffic.send()
        program = self.world.start(self._store, app_store_concurrency=20, drain_seconds=DRAIN_SECONDS, consumers=3)
        moment = self._random.choices(["start-up", "at work", "while Apple hangs"], [3, 5, 2])[0]
        if moment == "start-up":
            program.pass_time(LONGEST_START_SECONDS * self._random.random())
        else:
            program.wait_for_log(HAS_STARTED)
            if moment == "while Apple hangs":
                self._store.outage(Fault.hang(600))
            program.pass_time(self._random.random())
        self._end(program, moment)
        self._store.recover()
        hidden = self.world.total(SOURCE) - self.world.visible(SOURCE)
        assert hidden == 0, f"{moment}: {hidden} messages are left to their visibility timeout"

    def finish(self) -> None:
        for _ in range(MOST_FINISHES):
            self.world.bring_back(SOURCE)
            self.world.finish(self._store)
            if self.world.total(SOURCE) == 0:
                return
        raise AssertionError(f"{self.world.total(SOURCE)} messages come back again and again")

    def _end(self, program: Program, moment: str) -> None:
        told_at = time.monotonic()
        program.send_signal(signal.SIGTERM)
        code = program.wait_for_end()
        if code == -signal.SIGTERM:
            assert HAS_STARTED not in program.stderr, "it had begun, and did not drain"
            moment = "before Python was up"
        else:
            assert code == 0
            assert "Traceback" not in program.stderr
            self.drain_seconds.append(time.monotonic() - told_at)
        self.moments[moment] += 1


@pytest.mark.short("embedded-1-100")
@pytest.mark.parametrize(("backend", "short", "full"), [("embedded", 1, 100), ("aws", 1, 10)])
def test_a_drain_at_any_moment_is_in_order(
    backend: str, short: int, full: int, request: pytest.FixtureRequest, is_full: bool, figure: Callable[[str], None]
) -> None:
    world: World = request.getfixturevalue(backend)
    with SimulatedAppStore(latency_seconds=0.05, jitter_seconds=0.3) as store:
        series = Series(world, store, random.Random(5))
        for _ in range(full if is_full else short):
            series.run()
        series.finish()
    report = series.traffic.audit()
    assert report.faults == ()
    times = sorted(series.drain_seconds)
    figure(f"{backend}: SIGTERM {dict(series.moments)}; the slowest drain took {times[-1]:.1f} s of {DRAIN_SECONDS}")
    figure(f"{backend}: {report}")
