"""kill -9 of the whole program, hundreds of times, on each backend, with duplicate deliveries all the time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from receipt_actors.sandbox.app_store import SimulatedAppStore
from receipt_actors.sandbox.load import Kind
from tests.system.ministack import IS_INSTALLED, WHY_NOT, MiniStack
from tests.system.processes import Programs
from tests.system.worlds import AwsWorld, EmbeddedWorld

from .aws_proxy import AwsProxy, Rates
from .killing import (
    SETTINGS,
    AwsScene,
    Books,
    EmbeddedScene,
    ExhaustingKiller,
    GroupKiller,
    Killer,
    Load,
    Scene,
    settle_up,
)

#: Answers that are late cost the client 5 s and more, so they are rare.
RATES: Rates = {
    "ReceiveMessage": {"refused": 0.01, "throttled": 0.01, "lost": 0.01, "cut": 0.01, "slow": 0.0005, "doubled": 0.05},
    "SendMessageBatch": {"refused": 0.01, "throttled": 0.01, "lost": 0.02, "cut": 0.02, "slow": 0.001, "late": 0.001},
    "DeleteMessageBatch": {"refused": 0.01, "throttled": 0.01, "lost": 0.01, "cut": 0.01, "late": 0.001},
    "ChangeMessageVisibilityBatch": {"refused": 0.02, "lost": 0.02, "late": 0.01},
    "PutItem": {"refused": 0.01, "throttled": 0.01, "lost": 0.02, "cut": 0.02, "slow": 0.001, "late": 0.001},
    "BatchExecuteStatement": {
        "refused": 0.01,
        "throttled": 0.01,
        "lost": 0.02,
        "cut": 0.02,
        "slow": 0.001,
        "late": 0.001,
    },
    "GetItem": {"refused": 0.01, "throttled": 0.01, "lost": 0.01, "cut": 0.01, "slow": 0.001},
}


@dataclass(frozen=True, slots=True)
class Size:
    messages: int
    kills: int
    max_receive_count: int


#: In full, and short. Nothing is received a thousand times; kills and duplicates alone come to five.
PATIENT = Size(20_400, 204, 1000), Size(160, 3, 1000)
GROUP = Size(10_200, 102, 1000), Size(240, 6, 1000)
REDRIVEN = Size(6_000, 60, 5), Size(160, 3, 2)


def test_kills_on_the_embedded_backend(
    programs: Programs, tmp_path: Path, is_full: bool, figure: Callable[[str], None]
) -> None:
    _only_in_full(is_full)  # the next one is as much, but for its size
    with _embedded_scene(programs, tmp_path) as scene:
        _kill_and_check(scene, PATIENT, figure, is_full=is_full)


@pytest.mark.short
def test_kills_of_workers_and_parents_on_the_embedded_backend(
    programs: Programs, tmp_path: Path, is_full: bool, figure: Callable[[str], None]
) -> None:
    with _embedded_scene(programs, tmp_path) as scene:
        _kill_and_check(scene, GROUP, figure, is_full=is_full, killer_class=GroupKiller, processes=2)


def test_kills_that_exhaust_receive_counts_on_the_embedded_backend(
    programs: Programs, tmp_path: Path, is_full: bool, figure: Callable[[str], None]
) -> None:
    with _embedded_scene(programs, tmp_path) as scene:
        _kill_and_check(scene, REDRIVEN, figure, is_full=is_full, redrives=True, killer_class=ExhaustingKiller)


@pytest.mark.skipif(not IS_INSTALLED, reason=WHY_NOT)
def test_kills_on_aws(programs: Programs, is_full: bool, figure: Callable[[str], None]) -> None:
    with _aws_scene(programs, PATIENT[not is_full].max_receive_count) as scene:
        _kill_and_check(scene, PATIENT, figure, is_full=is_full)


@pytest.mark.skipif(not IS_INSTALLED, reason=WHY_NOT)
def test_kills_that_exhaust_receive_counts_on_aws(
    programs: Programs, is_full: bool, figure: Callable[[str], None]
) -> None:
    _only_in_full(is_full)  # likewise
    with _aws_scene(programs, REDRIVEN[not is_full].max_receive_count) as scene:
        _kill_and_check(scene, REDRIVEN, figure, is_full=is_full, redrives=True, killer_class=ExhaustingKiller)


def _only_in_full(is_full: bool) -> None:
    if not is_full:
        pytest.skip("at full size only (--full)")


@contextmanager
def _embedded_scene(programs: Programs, folder: Path) -> Iterator[EmbeddedScene]:
    world = EmbeddedWorld(programs, folder)
    try:
        yield EmbeddedScene(world, seed=1)
    finally:
        world.close()


@contextmanager
def _aws_scene(programs: Programs, max_receive_count: int) -> Iterator[AwsScene]:
    emulator = MiniStack(programs)
    proxy = AwsProxy(emulator.url, RATES, seed=2)
    world = AwsWorld(programs, emulator, proxy.url)
    try:
        world.create_queues(max_receive_count=max_receive_count)
        world.create_table()
        yield AwsScene(world, proxy)
    finally:
        world.close()
        proxy.close()


def _kill_and_check(
    scene: Scene,
    sizes: tuple[Size, Size],
    figure: Callable[[str], None],
    *,
    is_full: bool,
    redrives: bool = False,
    killer_class: type[Killer] = Killer,
    **more_settings: object,
) -> None:
    size = sizes[not is_full]
    # A malformed receipt is tried for seconds before it is moved: too long for the short size.
    load = Load(size.messages, seed=3, without=() if is_full else (Kind.MALFORMED, Kind.TEMPORARY_FAILURE))
    settings = {**SETTINGS, "max_receive_count": size.max_receive_count, **more_settings}
    with SimulatedAppStore(latency_seconds=0.1, jitter_seconds=0.4) as store:
        killer = killer_class(scene, store, load, settings, seed=4)
        killer.kill(size.kills)
        books = settle_up(killer, redrives=redrives)
    _note(figure, killer, books)
    assert books.faults == []
    assert books.left_on_source == 0
    # The claim is about work that was hit; also that of a process that was draining, or had just begun.
    assert killer.tally.hits >= killer.tally.kills.total() / 2
    assert books.report.repeated_answers > 0
    assert books.redriven > 0 or not redrives
    crashed = [life.stderr[-2000:] for life in killer.lives if "Traceback" in life.stderr]
    assert crashed == [], "an actor crashed, which no fault of the world outside may bring about"


def _note(figure: Callable[[str], None], killer: Killer, books: Books) -> None:
    tally = killer.tally
    phases = ", ".join(f"{count} in {phase}" for phase, count in sorted(tally.kills.items()))
    figure(
        f"{tally.kills.total()} kills ({phases}), {tally.hits} of them with messages in flight,"
        f" {tally.in_flight / tally.kills.total():.0f} on average"
    )
    figure(f"{killer.scene.received()} deliveries; {killer.scene.figures()}; {books.redriven} redriven")
    figure(str(books.report))
