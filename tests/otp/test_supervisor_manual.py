"""What OTP's manual page of ``supervisor`` says, as far as no other file of these tests is about it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pykka
import pytest

from receipt_actors.otp import (
    ANY_SIGNIFICANT,
    IGNORE,
    KILLED,
    NORMAL,
    ONE_FOR_ALL,
    ONE_FOR_ONE,
    PERMANENT,
    SHUTDOWN,
    TEMPORARY,
    ActorSystem,
    AlreadyStarted,
    ChildSpec,
    Crash,
    Exit,
    NotStarted,
    Receive,
    Receiving,
    Ref,
    Restart,
    Start,
    StartError,
    Stop,
    Supervisor,
    count_children,
    delete_child,
    get_child_spec,
    restart_child,
    start_child,
    supervisor_spec,
    terminate_child,
    which_children,
)
from receipt_actors.otp import sys as otp_sys
from tests.otp.support import WAIT_SECONDS, Pooled, Seen, WatchedClock, exit_reason_of, link_child

BUG = Crash(ValueError("bug"))


def spec(actor_class: type[Pooled], id_: str, restart: Restart = PERMANENT, **options: Any) -> ChildSpec:
    """Describe a child that is registered under its id."""
    return ChildSpec(id_, Start(actor_class, name=id_, **options), restart)


def child_of(supervisor: Ref, id_: str) -> Ref:
    """Return a child that runs."""
    child = next(info.child for info in which_children(supervisor) if info.id == id_)
    assert isinstance(child, Ref)
    return child


def kill(supervisor: Ref, id_: str) -> Ref:
    """Kill a child, wait until its supervisor has dealt with that, and return who was killed."""
    child = child_of(supervisor, id_)
    child.kill()
    exit_reason_of(child)
    return child


# --- flags and specs -------------------------------------------------------------------------------------------------


def test_the_defaults_of_a_supervisor(system: ActorSystem, server: type[Pooled], clock: WatchedClock) -> None:
    """one_for_one, one restart in five seconds, no automatic shutdown."""
    supervisor = system.start(Supervisor, [spec(server, "a"), spec(server, "b")])
    other = child_of(supervisor, "b")
    kill(supervisor, "a")
    assert child_of(supervisor, "b") is other
    clock.advance(5.1)
    kill(supervisor, "a")
    clock.advance(4.9)
    assert len(which_children(supervisor)) == 2
    kill(supervisor, "a")
    assert exit_reason_of(supervisor) == SHUTDOWN
    significant = ChildSpec("c", Start(server), TEMPORARY, significant=True)
    with pytest.raises(StartError, match="auto_shutdown is NEVER"):
        system.start(Supervisor, [significant])


def test_the_defaults_of_a_spec_leave_a_child_insignificant(system: ActorSystem, server: type[Pooled]) -> None:
    """Its end is no reason to shut down, whatever the supervisor does with significant ones."""
    supervisor = system.start(Supervisor, [spec(server, "a", TEMPORARY)], auto_shutdown=ANY_SIGNIFICANT)
    kill(supervisor, "a")
    assert which_children(supervisor) == []


def test_a_subclass_makes_its_children_anew_at_each_start(system: ActorSystem, server: type[Pooled]) -> None:
    """What ``Module:init/1`` is in OTP: flags and specs are found out by the new process, each time."""
    names = iter(["first", "second"])

    class Tree(Supervisor):
        def __init__(self) -> None:
            super().__init__([spec(server, next(names))], strategy=ONE_FOR_ALL)

    top = system.start(Supervisor, [ChildSpec("tree", Start(Tree))])
    tree = child_of(top, "tree")
    assert [info.id for info in which_children(tree)] == ["first"]
    kill(top, "tree")
    assert [info.id for info in which_children(child_of(top, "tree"))] == ["second"]


# --- start -----------------------------------------------------------------------------------------------------------


def test_init_may_return_ignore(system: ActorSystem, server: type[Pooled]) -> None:
    """A supervisor that is not needed: nothing of it starts, and its own supervisor has a child without process."""
    refs = Seen()

    class Unneeded(Supervisor):
        def init(self) -> Any:
            refs.put(self.ref)
            return IGNORE

    unneeded = Start(Unneeded, [spec(server, "a")])
    top = system.start(Supervisor, [ChildSpec("unneeded", unneeded)])
    assert exit_reason_of(refs.next()) == NORMAL
    assert [info.child for info in which_children(top)] == [None]
    assert system.whereis("a") is None


def test_it_is_linked_to_who_starts_it(system: ActorSystem, server: type[Pooled], trapping: type[Pooled]) -> None:
    """A starter that traps exits hears of its end; one that ends takes it along, and it ends its children first."""
    seen = Seen()
    starter = system.start(trapping, seen)
    first = link_child(starter, Supervisor, [])
    first.kill()
    assert seen.next() == Exit(first, KILLED)
    second = link_child(starter, Supervisor, [spec(server, "a")])
    starter.cast(lambda _actor: Stop(SHUTDOWN))
    assert exit_reason_of(second) == SHUTDOWN
    assert system.whereis("a") is None


def test_start_returns_when_the_whole_tree_runs(system: ActorSystem, server: type[Pooled]) -> None:
    """Each child's init has returned, down to the last leaf."""
    started = Seen()

    def leaf(id_: str) -> ChildSpec:
        return spec(server, id_, init=lambda _actor: started.put(id_))

    inner = supervisor_spec("inner", ONE_FOR_ONE, [leaf("b"), leaf("c")])
    system.start(Supervisor, [leaf("a"), inner, leaf("d")])
    assert started.rest() == ["a", "b", "c", "d"]


def test_a_supervisor_whose_name_is_taken_does_not_start(system: ActorSystem, server: type[Pooled]) -> None:
    """Who has the name is told, and no child is started."""
    first = system.start(Supervisor, [], name="top")
    assert system.whereis("top") is first
    with pytest.raises(StartError) as raised:
        system.start(Supervisor, [spec(server, "a")], name="top")
    assert raised.value.result == NotStarted(AlreadyStarted(first))
    assert system.whereis("a") is None


# --- restarts and ends -----------------------------------------------------------------------------------------------


def test_restarts_of_different_children_count_together(system: ActorSystem, server: type[Pooled]) -> None:
    """The intensity is the supervisor's, not the child's."""
    supervisor = system.start(Supervisor, [spec(server, id_) for id_ in "abc"], intensity=2)
    kill(supervisor, "a")
    kill(supervisor, "b")
    kill(supervisor, "c")
    assert exit_reason_of(supervisor) == SHUTDOWN


def test_an_automatic_end_ends_the_others_last_first(
    system: ActorSystem, server: type[Pooled], trapping: type[Pooled]
) -> None:
    """As any end of a supervisor: in reverse start order, each with its own time to clean up."""
    ended = Seen()
    worker = ChildSpec("worker", Start(server), TEMPORARY, significant=True)

    def helper(id_: str) -> ChildSpec:
        return spec(trapping, id_, terminate=lambda _actor: ended.put(id_))

    supervisor = system.start(Supervisor, [helper("a"), worker, helper("b")], auto_shutdown=ANY_SIGNIFICANT)
    child_of(supervisor, "worker").cast(lambda _actor: Stop(NORMAL))
    assert exit_reason_of(supervisor) == SHUTDOWN
    assert ended.rest() == ["b", "a"]


def test_children_added_later_are_lost_with_their_supervisor(system: ActorSystem, server: type[Pooled]) -> None:
    """A supervisor that is restarted has the children of its own spec again, and no others."""
    top = system.start(Supervisor, [supervisor_spec("inner", ONE_FOR_ONE, [spec(server, "a")])])
    start_child(child_of(top, "inner"), spec(server, "b"))
    inner = child_of(top, "inner")
    otp_sys.terminate(inner, BUG, WAIT_SECONDS)
    exit_reason_of(inner)
    assert [info.id for info in which_children(child_of(top, "inner"))] == ["a"]


# --- functions -------------------------------------------------------------------------------------------------------


def test_restart_child_that_ignores(system: ActorSystem, server: type[Pooled]) -> None:
    """The answer says so, and the child stays known without a process."""
    inits = iter([None, IGNORE])
    supervisor = system.start(Supervisor, [spec(server, "a", init=lambda _actor: next(inits))])
    terminate_child(supervisor, "a")
    assert restart_child(supervisor, "a") is IGNORE
    assert [(info.id, info.child) for info in which_children(supervisor)] == [("a", None)]


@pytest.mark.parametrize(
    "function",
    [
        lambda supervisor: start_child(supervisor, ChildSpec("a", Start(Pooled))),
        lambda supervisor: terminate_child(supervisor, "a"),
        lambda supervisor: restart_child(supervisor, "a"),
        lambda supervisor: delete_child(supervisor, "a"),
        lambda supervisor: get_child_spec(supervisor, "a"),
        which_children,
        count_children,
    ],
    ids=["start", "terminate", "restart", "delete", "get_child_spec", "which", "count"],
)
def test_every_function_fails_where_there_is_no_supervisor(
    system: ActorSystem, function: Callable[[Ref], object]
) -> None:
    """OTP: ``noproc``."""
    supervisor = system.start(Supervisor, [])
    supervisor.kill()
    with pytest.raises(pykka.ActorDeadError):
        function(supervisor)


def test_sys_looks_into_a_supervisor(system: ActorSystem, server: type[Pooled]) -> None:
    """It answers as any process: while it is suspended no child is restarted, afterwards it catches up."""
    supervisor = system.start(Supervisor, [spec(server, "a")])
    child = child_of(supervisor, "a")
    otp_sys.statistics(supervisor, True, WAIT_SECONDS)
    otp_sys.suspend(supervisor, WAIT_SECONDS)
    child.kill()
    exit_reason_of(child)
    assert otp_sys.get_status(supervisor, WAIT_SECONDS).is_suspended
    assert system.whereis("a") is None
    otp_sys.resume(supervisor, WAIT_SECONDS)
    assert child_of(supervisor, "a") is not child
    statistics = otp_sys.statistics(supervisor, timeout=WAIT_SECONDS)
    assert statistics is not None
    assert statistics.messages_in == 2  # the end of the child, and the question


# --- beyond the manual: a supervisor that was killed ------------------------------------------------------------------


def killed_middle(system: ActorSystem, trapping: type[Pooled], seen: Seen) -> tuple[Ref, Ref]:
    """Kill the supervisor between a root and a child that takes its time to end; return the root and the child."""
    takes_its_time = iter([True])  # the first, not those after it

    def terminate(_actor: Any) -> Receiving:
        if next(takes_its_time, False):
            yield Receive(lambda message: message == "go on")

    child = ChildSpec("child", Start(trapping, seen, terminate=terminate, name="child"), shutdown=3.0)
    root = system.start(Supervisor, [supervisor_spec("middle", ONE_FOR_ONE, [child])])
    middle, orphan = system.whereis("middle"), system.whereis("child")
    assert middle is not None
    assert orphan is not None
    middle.kill()
    assert seen.next() == ("terminate", KILLED)
    return root, orphan


def assert_restarted(system: ActorSystem, root: Ref, orphan: Ref) -> None:
    """Both are there again: one restart, of the one that is allowed."""
    assert exit_reason_of(orphan) == KILLED
    assert isinstance(which_children(root)[0].child, Ref)
    successor = system.whereis("child")
    assert successor is not None
    assert successor is not orphan


def test_a_killed_supervisor_is_restarted_once_its_children_are_gone(
    system: ActorSystem, trapping: type[Pooled]
) -> None:
    """They end on their own and hold their names meanwhile: that must not use up the restart intensity."""
    root, orphan = killed_middle(system, trapping, Seen())
    orphan.send("go on")
    assert_restarted(system, root, orphan)
