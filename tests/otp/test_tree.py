"""A picture of the tree: what it shows, and that nobody in it can hold up who looks."""

from __future__ import annotations

import enum
import json
import threading

import pytest

from receipt_actors.otp import (
    ONE_FOR_ALL,
    SIMPLE_ONE_FOR_ONE,
    TEMPORARY,
    ActorSystem,
    Backoff,
    ChildSpec,
    GenServer,
    Ref,
    Runtime,
    Start,
    Supervisor,
    start_child,
    supervisor_spec,
    terminate_child,
    which_children,
)
from receipt_actors.otp import sys as otp_sys
from receipt_actors.otp.tree import ActorNode, find_actor, look_at, name_of
from tests.otp.support import Gate, Pooled, Threaded, raising, sync, whereis
from tests.patience import PATIENCE_SECONDS


def named(node: ActorNode) -> dict[str, ActorNode]:
    return {node.name: node, **{name: each for child in node.children for name, each in named(child).items()}}


def start_root(system: ActorSystem, *specs: ChildSpec) -> Ref:
    return system.start(Supervisor, specs, intensity=100, name="root")


def worker(name: str) -> ChildSpec:
    return ChildSpec(name, Start(Pooled, name=name))


def crash(system: ActorSystem, name: str) -> None:
    ref = whereis(system, name)
    ref.cast(raising(ValueError("bug")))
    assert ref.wait(PATIENCE_SECONDS) is not None


def test_a_picture_shows_each_actor_and_what_it_has_done(system: ActorSystem) -> None:
    root = start_root(system, worker("a"), supervisor_spec("group", ONE_FOR_ALL, [worker("b")]))
    b = whereis(system, "b")
    for _ in range(3):
        sync(b)
    otp_sys.suspend(b)
    b.send("waits")
    seen = named(look_at(root))
    assert list(seen) == ["root", "a", "group", "b"]
    assert (seen["group"].type.value, seen["group"].strategy) == ("supervisor", ONE_FOR_ALL)
    assert (seen["a"].type.value, seen["a"].strategy, seen["a"].status) == ("worker", None, "running")
    assert seen["a"].ref is whereis(system, "a")
    assert seen["b"].status == "suspended"
    assert seen["b"].messages_handled >= 3
    assert seen["b"].mailbox_length == 1


def test_restarts_are_counted_also_those_of_a_supervisor_above(system: ActorSystem) -> None:
    root = start_root(system, supervisor_spec("group", ONE_FOR_ALL, [worker("a"), worker("b")], intensity=10))
    crash(system, "a")
    which_children(whereis(system, "group"))  # it has been started again
    whereis(system, "group").kill()
    which_children(root)
    seen = named(look_at(root))
    assert {name: seen[name].restarts for name in seen} == {"root": 0, "group": 1, "a": 2, "b": 2}


def test_a_place_without_an_actor_is_shown_as_well(system: ActorSystem) -> None:
    root = start_root(system, worker("a"))
    terminate_child(root, "a")
    assert look_at(root).children == (ActorNode("a", None, look_at(root).children[0].type, "stopped"),)


def test_children_on_demand_are_listed_up_to_a_number(system: ActorSystem) -> None:
    spec = ChildSpec("child", Start(Pooled), TEMPORARY)
    root = start_root(system, supervisor_spec("many", SIMPLE_ONE_FOR_ONE, [spec]))
    for _ in range(5):
        start_child(whereis(system, "many"), ())
    (seen,) = look_at(root, 3).children
    assert (len(seen.children), seen.children_unlisted) == (3, 2)
    for child in seen.children:
        assert child.name.startswith("child ")
        assert find_actor(system, child.name) is child.ref
    assert find_actor(system, "child 00000000") is None


def test_children_on_demand_that_wait_for_a_restart_are_counted_and_not_listed(system: ActorSystem) -> None:
    spec = ChildSpec("child", Start(Pooled), backoff=Backoff(first_seconds=60))
    many = start_root(system, supervisor_spec("many", SIMPLE_ONE_FOR_ONE, [spec]))
    for _ in range(2):
        start_child(whereis(system, "many"), ())
    assert [child.children_unlisted for child in look_at(many, 10).children] == [0]
    which_children(whereis(system, "many"))[0].child.kill()
    which_children(whereis(system, "many"))  # it knows of the end
    (seen,) = look_at(many, 10).children
    assert (len(seen.children), seen.children_unlisted) == (1, 1)


def test_an_actor_is_found_by_the_name_that_people_read(system: ActorSystem) -> None:
    ref = system.start(Pooled, name=("result_batcher", "ResultsSQS"))
    assert name_of(ref) == "result_batcher ResultsSQS"
    assert find_actor(system, "result_batcher ResultsSQS") is ref
    assert find_actor(system, "nobody") is None


def test_nobody_who_hangs_holds_up_who_looks(system: ActorSystem) -> None:
    root = start_root(system, ChildSpec("stuck", Start(Threaded, name="stuck")), worker("a"))
    with Gate() as own, Gate() as shared:
        whereis(system, "stuck").cast(own)
        whereis(system, "a").cast(shared)
        own.wait_entered()
        shared.wait_entered()
        assert list(named(look_at(root))) == ["root", "stuck", "a"]


class Slow(Supervisor):
    runtime = Runtime.THREAD

    def __init__(self, gate: Gate) -> None:
        gate()
        super().__init__([])

    def outside_view(self) -> object:
        return self._children


def test_an_actor_that_is_being_made_can_be_seen(system: ActorSystem, caplog: pytest.LogCaptureFixture) -> None:
    root = start_root(system)
    with Gate() as gate:
        threading.Thread(target=start_child, args=(root, ChildSpec("slow", Start(Slow, gate, name="slow")))).start()
        gate.wait_entered()
        seen = look_at(whereis(system, "slow"))
        assert (seen.status, seen.children, seen.view) == ("starting", (), None)
    which_children(root)
    assert caplog.records == []


class Viewed(GenServer):
    def __init__(self) -> None:
        self.count = 2

    def outside_view(self) -> object:
        return {"half": 14 // self.count}


def test_an_actor_may_show_something_of_itself(system: ActorSystem) -> None:
    ref = system.start(Viewed, name="viewed")
    assert look_at(ref).view == {"half": 7}
    otp_sys.replace_state(ref, lambda _state: {"count": 0})
    assert look_at(ref).view is None
    assert ref.is_alive()


class Colour(enum.Enum):
    RED = "red"


class Stateful(GenServer):
    def __init__(self) -> None:
        self.count, self.ratio, self.endless, self.is_on = 3, 0.5, float("inf"), True
        self.colour, self.nothing = Colour.RED, None
        self.text = "plain"
        self._shared_secret = "hunter2"
        self.receipt = "MIIT0" + "aB3" * 30
        self.table = {"one": "secret", "two": "secret"}


def test_a_state_is_described_without_what_might_be_secret(system: ActorSystem) -> None:
    described = otp_sys.describe_state(system.start(Stateful))
    assert json.loads(json.dumps(described)) == {
        "count": 3,
        "ratio": 0.5,
        "endless": "inf",
        "is_on": True,
        "colour": "RED",
        "nothing": None,
        "text": "plain",
        "shared_secret": "str[7]",
        "receipt": "...",
        "table": "dict[2]",
    }
