"""What an actor costs: the figures of the OTP layer, with pykka's ``ThreadingActor`` beside them in the same run.

::

    python -m tests.benchmark.otp            # the table, medians of 5 runs of each figure, about two minutes
    python -m tests.benchmark.otp --runs 1   # quicker, rougher

Each run of each figure is a Python process of its own, so that none inherits another's heap. Times are CPU time of the
whole process unless it says otherwise, which other work on the machine disturbs least.
"""

from __future__ import annotations

import argparse
import gc
import json
import logging
import math
import platform
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pykka

from receipt_actors.otp import (
    INFINITY,
    NO_REPLY,
    TEMPORARY,
    ActorSystem,
    ChildSpec,
    CountChildren,
    From,
    GenServer,
    Ref,
    Runtime,
    SimpleOneForOneSupervisor,
    Start,
    StartChild,
    Started,
    Stop,
    Supervisor,
)

MICRO = 1e6
WAIT_SECONDS = 120.0


# --- actors ----------------------------------------------------------------------------------------------------------


class Idle(GenServer):
    def handle_cast(self, _request: Any) -> Stop:
        return Stop()


class Driver(GenServer):
    def __init__(self, supervisor: Ref, on_start: Callable[[Ref], None] | None = None) -> None:
        self._supervisor = supervisor
        self._on_start = on_start

    def handle_call(self, request: int, from_: From) -> Any:
        self._missing, self._from = request, from_
        for number in range(request):
            self.send_request(self._supervisor, StartChild(()), number)
        return NO_REPLY

    def handle_reply(self, _label: Any, value: Any) -> None:
        assert isinstance(value, Started)
        if self._on_start is not None:
            self._on_start(value.ref)
        self._missing -= 1
        if not self._missing:
            self._from.reply(None)


class Bouncing(GenServer):
    def __init__(self, done: threading.Event) -> None:
        self._done = done

    def handle_info(self, message: tuple[Ref, int]) -> None:
        other, left = message
        if left:
            other.send((self.ref, left - 1))
        else:
            self._done.set()


class Crashing(GenServer):
    def __init__(self, started: Callable[[], None]) -> None:
        self._started = started

    def init(self) -> None:
        self._started()

    def handle_cast(self, _request: Any) -> None:
        raise ValueError("crash")


class PlainIdle(pykka.ThreadingActor):
    use_daemon_thread = True


class PlainBouncing(pykka.ThreadingActor):
    use_daemon_thread = True

    def __init__(self, done: threading.Event) -> None:
        super().__init__()
        self._done = done

    def on_receive(self, message: tuple[pykka.ActorRef[Any], int]) -> None:
        other, left = message
        if left:
            other.tell((self.actor_ref, left - 1))
        else:
            self._done.set()


# --- what is measured: each returns microseconds, bytes or a ratio ---------------------------------------------------


def resident_bytes() -> int:
    gc.collect()
    pages = Path("/proc/self/statm").read_text(encoding="ascii").split()[1]
    return int(pages) * 4096


class Family:
    def __init__(self, system: ActorSystem, on_start: Callable[[Ref], None] | None = None) -> None:
        self.supervisor = system.start(
            SimpleOneForOneSupervisor, ChildSpec("idle", Start(Idle), TEMPORARY, shutdown=INFINITY)
        )
        self._driver = system.start(Driver, self.supervisor, on_start)

    def start_children(self, count: int) -> None:
        self._driver.call(count, WAIT_SECONDS)

    def count(self) -> int:
        active: int = self.supervisor.call(CountChildren(), WAIT_SECONDS).active
        return active


def spawn(count: int) -> float:
    with ActorSystem() as system:
        family = Family(system)
        before = time.process_time()
        family.start_children(count)
        took = time.process_time() - before
        assert family.count() == count
    return took / count * MICRO


def life(count: int) -> float:
    with ActorSystem() as system:
        family = Family(system, on_start=lambda ref: ref.cast("end"))
        before = time.process_time()
        family.start_children(count)
        while family.count():
            pass
        return (time.process_time() - before) / count * MICRO


def memory(count: int) -> float:
    with ActorSystem() as system:
        family = Family(system)
        before = resident_bytes()
        family.start_children(count)
        assert family.count() == count
        return (resident_bytes() - before) / count


def hop(count: int) -> float:
    with ActorSystem() as system:
        done = threading.Event()
        one, other = system.start(Bouncing, done), system.start(Bouncing, done)
        before = time.process_time()
        one.send((other, count))
        assert done.wait(WAIT_SECONDS)
        return (time.process_time() - before) / count * MICRO


def shutdown(count: int) -> float:
    """Microseconds a child, all of them under one supervisor."""
    with ActorSystem() as system:
        family = Family(system)
        family.start_children(count)
        before = time.process_time()
        assert system.stop(WAIT_SECONDS) == []
        return (time.process_time() - before) / count * MICRO


def shutdown_growth(count: int) -> float:
    """How much more the end of one child costs with ten times the siblings: 1 is linear, 10 quadratic."""
    fewer = shutdown(count // 10)
    gc.collect()
    return shutdown(count) / fewer


def restart(count: int) -> float:
    """Microseconds of wall time from the cast that crashes a child to the ``init`` of its successor."""
    started = threading.Semaphore(0)
    with ActorSystem() as system:
        spec = ChildSpec("crashing", Start(Crashing, started.release, name="crashing"))
        system.start(Supervisor, [spec], intensity=count)
        assert started.acquire(timeout=WAIT_SECONDS)
        took = []
        for _ in range(count):
            child = system.whereis("crashing")
            assert child is not None
            before = time.perf_counter()
            child.cast("crash")
            assert started.acquire(timeout=WAIT_SECONDS)
            took.append(time.perf_counter() - before)
            system.whereis("crashing")
        return statistics.median(took) * MICRO


def plain_spawn(count: int) -> float:
    before = time.process_time()
    refs = [PlainIdle.start() for _ in range(count)]
    took = time.process_time() - before
    assert len(refs) == count
    pykka.ActorRegistry.stop_all()
    return took / count * MICRO


def plain_life(count: int) -> float:
    before = time.process_time()
    for _ in range(count):
        ref = PlainIdle.start()
        ref.tell("message")
        ref.stop()
    return (time.process_time() - before) / count * MICRO


def plain_memory(count: int) -> float:
    before = resident_bytes()
    refs = [PlainIdle.start() for _ in range(count)]
    grown = resident_bytes() - before
    assert len(refs) == count
    pykka.ActorRegistry.stop_all()
    return grown / count


def plain_hop(count: int) -> float:
    done = threading.Event()
    one, other = PlainBouncing.start(done), PlainBouncing.start(done)
    before = time.process_time()
    one.tell((other, count))
    assert done.wait(WAIT_SECONDS)
    took = time.process_time() - before
    pykka.ActorRegistry.stop_all()
    return took / count * MICRO


@dataclass(frozen=True, slots=True)
class Figure:
    what: str
    unit: str
    measure: Callable[[int], float]
    count: int
    at_least: float | None = None  #: a worse figure is a defect
    aim: float | None = None
    plain: Callable[[int], float] | None = None  #: the same of pykka's ThreadingActor
    plain_count: int = 0


FIGURES = {
    "spawn": Figure("start under a supervisor", "us", spawn, 20_000, 12, 5, plain_spawn, 2_000),
    "life": Figure("whole life: start, one message, stop", "us", life, 20_000, 40, 20, plain_life, 2_000),
    "memory": Figure("memory of an idle actor", "bytes", memory, 50_000, 2_500, 1_000, plain_memory, 2_000),
    "hop": Figure("message from actor to actor", "us", hop, 100_000, 2, 1.5, plain_hop, 10_000),
    "spawn_many": Figure("start, 100,000 alive", "us", spawn, 100_000),
    "shutdown": Figure("end of each of 100,000", "us", shutdown, 100_000),
    "growth": Figure("the same, against 10,000", "times", shutdown_growth, 100_000, 2, 1.2),
    "restart": Figure("crash to restarted (wall time)", "us", restart, 500, 1_000, 200),
}


# --- running ---------------------------------------------------------------------------------------------------------


def measure_in_a_process(name: str, *, plain: bool, scale: float) -> float:
    command = [sys.executable, "-m", "tests.benchmark.otp", "--only", name, "--scale", str(scale)]
    done = subprocess.run([*command, *(["--plain"] if plain else [])], capture_output=True, text=True, check=True)
    figure: float = json.loads(done.stdout)
    return figure


def measure_here(name: str, *, plain: bool, scale: float) -> float:
    logging.getLogger("receipt_actors.otp").addHandler(logging.NullHandler())
    logging.getLogger("receipt_actors.otp").propagate = False
    figure = FIGURES[name]
    if plain:
        assert figure.plain is not None
        return figure.plain(max(1, int(figure.plain_count * scale)))
    return figure.measure(max(10, int(figure.count * scale)))


def tell(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def shown(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5, help="of each figure; the median is shown (default 5)")
    parser.add_argument("--scale", type=float, default=1.0, help="how many actors, against the full number (default 1)")
    parser.add_argument("--only", choices=FIGURES, help="measure this once, in this process, and print the number")
    parser.add_argument("--plain", action="store_true", help="with --only: measure pykka's ThreadingActor")
    options = parser.parse_args()
    if options.only:
        tell(json.dumps(measure_here(options.only, plain=options.plain, scale=options.scale)))
        return
    runtime = Runtime.POOLED.value
    pykkas = version("pykka")
    tell(f"CPython {platform.python_version()}, pykka {pykkas}, {runtime} actors, medians of {options.runs}")
    tell(f"{'':38}{'unit':>6}{'here':>10}{'at least':>10}{'aim':>8}{'pykka':>10}{'ratio':>8}")
    for name, figure in FIGURES.items():
        # By turns, so that what disturbs the machine for a while disturbs both.
        here, plain = [], []
        for _ in range(options.runs):
            here.append(measure_in_a_process(name, plain=False, scale=options.scale))
            if figure.plain is not None:
                plain.append(measure_in_a_process(name, plain=True, scale=options.scale))
        ours = statistics.median(here)
        theirs = statistics.median(plain) if plain else None
        ratio = None if theirs is None or math.isclose(ours, 0) else theirs / ours
        tell(
            f"{figure.what:38}{figure.unit:>6}{shown(ours):>10}{shown(figure.at_least):>10}{shown(figure.aim):>8}"
            f"{shown(theirs):>10}{shown(ratio):>8}"
        )


if __name__ == "__main__":
    main()
