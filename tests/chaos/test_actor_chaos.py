"""Actors end at random, by crash and by kill, while receipts keep coming: the tree heals, and every promise is kept."""

from __future__ import annotations

import logging
import random
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from receipt_actors import ReceiptSystem, Settings
from receipt_actors.application import supervision_tree
from receipt_actors.backends import Backend, open_backend
from receipt_actors.domain.admission import MIN_RECEIVES
from receipt_actors.domain.limits import BATCH_REQUESTS
from receipt_actors.sandbox.app_store import SimulatedAppStore
from receipt_actors.sources import source_of
from receipt_actors.testing import FaultRates, FaultyCalls, Monkey, Strike, intercept, wait_until_whole
from tests.patience import PATIENCE_SECONDS
from tests.system.worlds import BUNDLE_ID, DEAD_LETTERS, EmbeddedWorld

from .traffic import Traffic, bring_back_until_done

BACKLOG = 60  #: messages that are always there to be received
RATES = FaultRates(refused=0.01, lost=0.01, slow=0.01, failed_entries=0.02, unconfirmed_entries=0.01, slow_seconds=0.3)
#: Without them (they may be struck at any rate) the budgets of all others are used to the full.
LONG_LIVED = {"Validator": 0.0, "Mover": 0.0, "ResultBatcher": 0.0}
RECEIVE_RATES = FaultRates(refused=0.01, lost=0.01, slow=0.01, delivered_twice=0.02, slow_seconds=0.3)


class Stage:
    def __init__(self, world: EmbeddedWorld, store: SimulatedAppStore, faults: FaultyCalls | None) -> None:
        self.world = world
        self.settings = Settings(
            database=self.world.database,
            bundle_ids=(BUNDLE_ID,),
            app_store_url=store.url,
            consumers=3,
            max_in_flight=100,
            app_store_concurrency=10,
            ledger_concurrency=4,
            receive_wait_seconds=1,
            visibility_timeout_seconds=20,
        )
        backend = open_backend(self.settings)
        self.backend: Backend = backend if faults is None else intercept(backend, faults)
        self.system = ReceiptSystem.start(self.settings, backend=self.backend)
        self.spec = supervision_tree(self.settings, self.backend, [source_of(self.settings, DEAD_LETTERS)])
        self.traffic = Traffic(self.world, seed=7000)

    def wait_until_whole(self) -> None:
        wait_until_whole(self.system.actors, self.spec, PATIENCE_SECONDS)

    def is_at_rest(self) -> bool:
        return self.system.in_flight().in_flight == 0

    def has_all_credits(self) -> bool:
        """As many consumers as receive at rest are granted all that they ask for: nothing is held by who has ended."""
        return self.system.in_flight().reserved == 10 * min(self.settings.consumers, MIN_RECEIVES)

    def threads(self) -> int:
        return sum(thread.name.startswith("receipt-actors") for thread in threading.enumerate())

    @property
    def most_threads(self) -> int:
        """How many a system has when all of its pools are busy: it, and not what has ended."""
        settings = self.settings
        batchers = 2 + 2  # deletes and visibility, results and dead letters
        pools = settings.app_store_concurrency + settings.ledger_concurrency + batchers * BATCH_REQUESTS
        return pools + settings.consumers + 2  # the scheduler, and the clock


@contextmanager
def stage(world: EmbeddedWorld, faults: FaultyCalls | None = None) -> Iterator[Stage]:
    with SimulatedAppStore(latency_seconds=0.005, jitter_seconds=0.02) as store:
        stage = Stage(world, store, faults)
        try:
            yield stage
        finally:
            stage.system.stop()


@pytest.fixture
def quiet() -> Iterator[None]:
    logger = logging.getLogger("receipt_actors")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    yield
    logger.setLevel(level)


@pytest.mark.short("sound")
@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize("ports", ["sound", "faulty"])
def test_any_actor_may_end_at_any_time(
    embedded: EmbeddedWorld, ports: str, is_full: bool, figure: Callable[[str], None]
) -> None:
    strikes, calm_messages = (1000, 3000) if is_full else (12, 60)
    faults = FaultyCalls(RATES, {"receive": RECEIVE_RATES}, seed=3) if ports == "faulty" else None
    threads_before = set(threading.enumerate())
    with stage(embedded, faults) as here:
        traffic, actors = here.traffic, here.system.actors
        with traffic.flowing(at_least=BACKLOG):
            rate_before = traffic.rate(calm_messages)
            monkeys = [Monkey(actors, random.Random(11), weights=LONG_LIVED), Monkey(actors, random.Random(12))]
            rate_during = _strike(here, monkeys, strikes)
            if faults is not None:
                faults.calm()
            traffic.wait_until(lambda: not here.system.in_flight().unavailable, "every gate is open")
            rate_after = traffic.rate(calm_messages)
        rounds = bring_back_until_done(here.world, here.is_at_rest, traffic.wait_until)
        here.wait_until_whole()
        traffic.wait_until(lambda: not actors.zombies(), "no killed actor runs any more")
        traffic.wait_until(here.has_all_credits, "all credits are there")
        traffic.wait_until(lambda: here.threads() <= here.most_threads, "the threads of who has ended have ended")
        assert here.system.in_flight().unavailable == frozenset()
        assert here.system.end_reason is None
        assert here.system.drain() == 0
        report = traffic.audit()
    assert report.faults == ()
    traffic.wait_until(lambda: set(threading.enumerate()) <= threads_before, "all threads have ended")
    struck = [strike for monkey in monkeys for strike in monkey.strikes]
    assert len(struck) == strikes
    figure(f"{ports} ports, {strikes} strikes: {_told(struck)}")
    if faults is not None:
        figure(f"faults of ports: {faults.happened.total()}, {dict(faults.happened.most_common(5))}")
    figure(
        f"receipts/s before {rate_before:.0f}, during {rate_during:.0f}, after {rate_after:.0f}; "
        f"{rounds} rounds of bringing back"
    )
    figure(str(report))


def _strike(here: Stage, monkeys: list[Monkey], strikes: int) -> float:
    """Strike so often, the tree being whole again after each; return how many receipts a second got through."""
    clock = here.system.actors.clock
    finished, began_at = here.traffic.finished(), clock.monotonic()
    for number in range(strikes):
        monkey = monkeys[number % len(monkeys)]
        while monkey.strike() is None:  # every budget is used up for now
            beats = iter((False, True))
            here.traffic.wait_until(lambda beats=beats: next(beats), "a beat has passed")
        here.wait_until_whole()
        assert here.system.end_reason is None
    return (here.traffic.finished() - finished) / (clock.monotonic() - began_at)


def _told(strikes: list[Strike]) -> str:
    manners = Counter(strike.manner for strike in strikes)
    places = Counter(str(strike.place) for strike in strikes)
    return f"{dict(manners)}, {dict(places.most_common())}"
