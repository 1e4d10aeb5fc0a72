"""The monkey ends whom it may, as often as it may; and a tree is whole only when all of it is there."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from typing import Any, ClassVar

import pytest

from receipt_actors.otp import (
    ONE_FOR_ALL,
    ONE_FOR_ONE,
    SHUTDOWN,
    SIMPLE_ONE_FOR_ONE,
    TEMPORARY,
    ActorSystem,
    Backoff,
    ChildSpec,
    GenServer,
    ManualClock,
    NotStarted,
    Receive,
    Ref,
    Start,
    Supervisor,
    delete_child,
    start_child,
    supervisor_spec,
    terminate_child,
    which_children,
)
from receipt_actors.testing import Manner, Monkey, faults_of_tree, is_whole, wait_until_whole
from tests.patience import PATIENCE_SECONDS


class Worker(GenServer):
    """Has nothing to do."""


class Fragile(GenServer):
    starts: ClassVar[bool] = True

    def init(self) -> NotStarted | None:
        return None if Fragile.starts else NotStarted(SHUTDOWN)


def worker(name: str, **fields: Any) -> ChildSpec:
    return ChildSpec(name, Start(Worker, name=name), **fields)


INTENSITY, PERIOD_SECONDS = 2, 10.0
TREE = supervisor_spec(
    "root",
    ONE_FOR_ONE,
    [
        supervisor_spec(
            "pair", ONE_FOR_ALL, [worker("one"), worker("two")], intensity=INTENSITY, period_seconds=PERIOD_SECONDS
        ),
        supervisor_spec("crowd", SIMPLE_ONE_FOR_ONE, [ChildSpec("member", Start(Worker), restart=TEMPORARY)]),
    ],
    intensity=1,
    period_seconds=60.0,
)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def actors(clock: ManualClock) -> Iterator[ActorSystem]:
    with ActorSystem("test", clock) as actors:
        yield actors


@pytest.fixture
def root(actors: ActorSystem) -> Ref:
    assert isinstance(TREE.start, Start)
    return actors.start(TREE.start.actor_class, *TREE.start.args, name="root", **TREE.start.kwargs)


def find(actors: ActorSystem, name: str) -> Ref:
    ref = actors.whereis(name)
    assert ref is not None
    return ref


# --- the monkey ---


@pytest.mark.parametrize(("kills", "manner"), [(0.0, Manner.CRASH), (1.0, Manner.KILL)])
def test_a_strike_ends_an_actor_and_is_recorded(
    actors: ActorSystem, root: Ref, kills: float, manner: Manner, caplog: pytest.LogCaptureFixture
) -> None:
    before = find(actors, "one")
    monkey = Monkey(actors, random.Random(0), kills=kills, weights={"one": 1}, elsewhere=0)
    strike = monkey.strike()
    wait_until_whole(actors, TREE)
    assert strike is not None
    assert (strike.place, strike.manner, strike.ended) == ("one", manner, True)
    assert (strike.actor, strike.supervisor) == ("Worker (one)", "Supervisor (pair)")
    assert monkey.strikes == [strike]
    assert not before.is_alive()
    assert find(actors, "one") is not before
    assert ("crashed while handling StruckByMonkey" in caplog.text) == (manner is Manner.CRASH)


def test_a_tree_survives_any_number_of_strikes_within_its_budgets(
    actors: ActorSystem, root: Ref, clock: ManualClock
) -> None:
    monkey = Monkey(actors, random.Random(1))
    idle = 0
    for _ in range(400):
        if monkey.strike() is None:
            idle += 1
        clock.advance(1.0)
        wait_until_whole(actors, TREE)
    assert root.is_alive()
    assert idle > 0
    assert {strike.place for strike in monkey.strikes} == {"one", "two", "pair", "crowd"}
    assert len(monkey.strikes) > 400 * INTENSITY / PERIOD_SECONDS / 2


def test_a_supervisor_bears_as_many_strikes_as_its_intensity(
    actors: ActorSystem, root: Ref, clock: ManualClock
) -> None:
    monkey = Monkey(actors, random.Random(0), weights={"one": 1, "two": 1}, elsewhere=0)
    find(actors, "two").kill()  # somebody else's doing counts as well
    wait_until_whole(actors, TREE)
    assert monkey.strike() is not None
    wait_until_whole(actors, TREE)
    assert monkey.strike() is None
    clock.advance(PERIOD_SECONDS + 1)
    assert monkey.strike() is not None


def test_temporary_children_are_free(actors: ActorSystem, root: Ref) -> None:
    crowd = find(actors, "crowd")
    for _ in range(50):
        start_child(crowd, ())
    monkey = Monkey(actors, random.Random(0), weights={"Worker": 1, "one": 0, "two": 0}, elsewhere=0)
    while monkey.strike():
        pass
    assert len(monkey.strikes) == 50
    assert which_children(crowd) == []
    assert is_whole(actors, TREE)


def test_a_storm_ends_the_tree(actors: ActorSystem, root: Ref) -> None:
    monkey = Monkey(actors, random.Random(0), respects_budgets=False)
    while monkey.strike() is not None or root.wait(0) is None:
        pass
    assert faults_of_tree(actors) == ("no supervisor runs",)


def test_a_crowd_is_one_place(actors: ActorSystem) -> None:
    crowd = supervisor_spec("crowd", SIMPLE_ONE_FOR_ONE, [ChildSpec("member", Start(Worker), restart=TEMPORARY)])
    actors.start(Supervisor, [worker("one"), worker("two"), crowd], intensity=1000)
    for _ in range(100):
        start_child(find(actors, "crowd"), ())
    monkey = Monkey(actors, random.Random(0), weights={"one": 3, "two": 0, "crowd": 0})
    for _ in range(60):
        monkey.strike()
        wait_until_whole(actors)
    places = Counter(strike.place for strike in monkey.strikes)
    assert set(places) == {"one", "Worker"}
    assert places["one"] > 2 * places["Worker"]


def test_the_seed_chooses(clock: ManualClock) -> None:
    def strikes(seed: int) -> list[tuple[Any, Manner]]:
        with ActorSystem("test", ManualClock()) as actors:
            actors.start(Supervisor, [worker(str(number)) for number in range(8)], intensity=99)
            monkey = Monkey(actors, random.Random(seed))
            for _ in range(12):
                monkey.strike()
                wait_until_whole(actors)
            return [(strike.place, strike.manner) for strike in monkey.strikes]

    assert strikes(1) == strikes(1) != strikes(2)


# --- the tree ---


def test_a_child_that_is_missing_is_a_fault(actors: ActorSystem, root: Ref) -> None:
    start_child(root, worker("added"))
    start_child(find(actors, "crowd"), ())
    assert faults_of_tree(actors, TREE) == () == faults_of_tree(actors)
    pair = find(actors, "pair")
    terminate_child(pair, "one")
    assert faults_of_tree(actors, TREE) == ("Supervisor (pair): child 'one' does not run",)
    delete_child(pair, "one")
    assert faults_of_tree(actors, TREE) == ("Supervisor (pair) has the children ['two'], expected ['one', 'two']",)
    # The root can't be asked for its own spec. Children out of order are a fault: start and stop follow the order.
    terminate_child(root, "pair")
    delete_child(root, "pair")
    assert is_whole(actors)
    assert isinstance(TREE.start, Start)
    start_child(root, TREE.start.args[0][0])
    expected = "Supervisor (root) has the children ['crowd', 'pair'], expected ['pair', 'crowd']"
    assert faults_of_tree(actors, TREE) == (expected,)


def test_a_child_that_is_being_restarted_is_a_fault(actors: ActorSystem, clock: ManualClock) -> None:
    spec = ChildSpec("fragile", Start(Fragile, name="fragile"), backoff=Backoff(first_seconds=5.0))
    actors.start(Supervisor, [spec], name="root")
    find(actors, "fragile").kill()
    assert faults_of_tree(actors) == ("Supervisor (root): child 'fragile' is being restarted",)
    with pytest.raises(TimeoutError, match="'fragile' is being restarted"):
        wait_until_whole(actors, timeout_seconds=0.0)
    clock.advance(10.0)
    wait_until_whole(actors)


def test_who_outlives_its_supervisor_is_a_fault(actors: ActorSystem) -> None:

    class Stubborn(GenServer):
        trap_exit = True

        def terminate(self, reason: Any) -> Any:
            yield Receive(lambda message: message == "go")

    supervisor = actors.start(Supervisor, [ChildSpec("stubborn", Start(Stubborn, name="stubborn"))], name="root")
    stubborn = find(actors, "stubborn")
    supervisor.kill()
    assert "Stubborn (stubborn) has outlived its supervisor" in faults_of_tree(actors)
    stubborn.send("go")
    stubborn.wait(PATIENCE_SECONDS)
    assert faults_of_tree(actors) == ("no supervisor runs",)
