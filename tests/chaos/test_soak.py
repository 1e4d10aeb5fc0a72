"""A long life in a short time: load, outages, crashes and idleness take turns, and the process stays as it is."""

from __future__ import annotations

import os
import re
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from receipt_actors.sandbox.app_store import SimulatedAppStore
from receipt_actors.sandbox.receipts import Fault
from tests.system.processes import Program
from tests.system.worlds import DEAD_LETTERS, RESULTS, SOURCE, EmbeddedWorld

from .traffic import Traffic

BACKLOG = 300
WARM_UP_MESSAGES = 200  #: before anything is compared: threads and connections are made when they are first needed
SAMPLE_SECONDS = 0.25
FEWEST_SAMPLES = 8  #: two in each quarter, however seldom the machine lets us look
OUTAGE_SECONDS = 1.0
IDLE_SECONDS = 1.5  #: longer than a result batcher lives without work
MIB = 1024 * 1024
GROWTH_BYTES = 8 * MIB  #: from the second quarter to the last; what one arena of the allocator more or less makes
GROWTH_SHARE = 0.1
FEW = 4  #: threads or files that come and go with who was just restarted: in the median of a long run,
ONE_POOL = 40  #: and in that of a few seconds, of which one gateway's new pool may have filled up


@dataclass(frozen=True, slots=True)
class Sample:
    at_seconds: float
    resident_bytes: int
    threads: int
    files: int

    @classmethod
    def of(cls, pid: int) -> Sample:
        status = Path(f"/proc/{pid}/status").read_text()
        numbers = {name: int(number) for name, number in re.findall(r"^(VmRSS|Threads):\s+(\d+)", status, re.M)}
        files = len(os.listdir(f"/proc/{pid}/fd"))
        return cls(time.monotonic(), numbers["VmRSS"] * 1024, numbers["Threads"], files)


class Soak:
    def __init__(self, world: EmbeddedWorld, store: SimulatedAppStore, program: Program) -> None:
        self.traffic = Traffic(world, seed=9000)
        self.samples: list[Sample] = []
        self._world = world
        self._store = store
        self._program = program

    def cycle(self, messages: int) -> None:
        aim = self.traffic.messages_sent + messages
        self._send_until(aim - messages // 2)
        self._store.outage(Fault.http(503))
        self._go_on_for(OUTAGE_SECONDS)
        self._store.recover()
        self._send_until(aim)
        self._go_on_until(lambda: self._world.visible(SOURCE) == 0, "all has been taken in")
        self._go_on_for(IDLE_SECONDS)
        self._go_on_until(lambda: len(self.samples) >= FEWEST_SAMPLES, "it has been looked at")

    def read_answers(self) -> None:
        self.traffic.note_answers(self._world.read(RESULTS))
        self.traffic.note_dead_letters(self._world.read(DEAD_LETTERS))

    def _send_until(self, aim: int) -> None:
        def has_sent_all() -> bool:
            if self._world.visible(SOURCE) < BACKLOG:
                self.traffic.send()
            return self.traffic.messages_sent >= aim

        self._go_on_until(has_sent_all, "all are sent")

    def _go_on_for(self, seconds: float) -> None:
        over = time.monotonic() + seconds
        self._go_on_until(lambda: time.monotonic() >= over, "the time is over")

    def _go_on_until(self, condition: Callable[[], bool], what: str) -> None:
        def look() -> bool:
            self.read_answers()
            if not self.samples or time.monotonic() - self.samples[-1].at_seconds >= SAMPLE_SECONDS:
                self.samples.append(Sample.of(self._program.pid))
            return condition()

        self._program.wait_until(look, what, seconds=600)


def test_a_long_life_leaks_nothing(
    embedded: EmbeddedWorld, store: SimulatedAppStore, is_full: bool, figure: Callable[[str], None]
) -> None:
    cycles, messages = (40, 2600) if is_full else (1, 400)
    world = embedded
    world.module = "tests.chaos.chaotic_program"
    world.environment = {"SOAK_STRIKE_SECONDS": "2" if is_full else "1"}
    program = world.start_consuming(store, app_store_concurrency=20, ledger_concurrency=10)
    soak = Soak(world, store, program)
    soak.cycle(WARM_UP_MESSAGES)
    soak.samples.clear()
    began_at = time.monotonic()
    for _ in range(cycles):
        soak.cycle(messages)
    seconds = time.monotonic() - began_at
    program.stop()
    _finish(world, store, soak)
    report = soak.traffic.audit()
    assert report.faults == ()
    sent = soak.traffic.messages_sent
    figure(f"{sent} messages in {seconds:.0f} s, outages and idleness included: {sent / seconds:.0f}/s; {report}")
    _check_flat(soak.samples, FEW if is_full else ONE_POOL, figure)


def _finish(world: EmbeddedWorld, store: SimulatedAppStore, soak: Soak) -> None:
    world.module = "receipt_actors"
    while world.total(SOURCE):
        world.bring_back(SOURCE)
        world.finish(store)
    soak.read_answers()


def _check_flat(samples: Sequence[Sample], few: int, figure: Callable[[str], None]) -> None:
    quarter = len(samples) // 4
    second, last = samples[quarter : 2 * quarter], samples[3 * quarter :]
    for name, unit, allowed_growth in (("resident_bytes", MIB, GROWTH_BYTES), ("threads", 1, few), ("files", 1, few)):
        values = [getattr(sample, name) / unit for sample in samples]
        middle, end = (statistics.median(getattr(sample, name) for sample in part) for part in (second, last))
        figure(
            f"{name}{' / MiB' if unit == MIB else ''}: start {values[0]:.0f}, second quarter {middle / unit:.1f}, "
            f"last quarter {end / unit:.1f}, end {values[-1]:.0f}, most {max(values):.0f}; {len(samples)} samples"
        )
        share = GROWTH_SHARE * middle if unit == MIB else 0.0
        assert end - middle <= max(allowed_growth, share), f"{name} grows"
