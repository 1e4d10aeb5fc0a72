"""Every strategy x restart type x exit reason x position of the child, against two small tables."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest

from receipt_actors.otp import (
    KILLED,
    NORMAL,
    ONE_FOR_ALL,
    ONE_FOR_ONE,
    PERMANENT,
    REST_FOR_ONE,
    SHUTDOWN,
    TEMPORARY,
    TRANSIENT,
    ActorSystem,
    ChildSpec,
    Crash,
    ExitReason,
    Ref,
    Restart,
    Shutdown,
    Start,
    Stop,
    Strategy,
    Supervisor,
    which_children,
)
from tests.otp.support import Pooled, exit_reason_of

REASONS: dict[str, ExitReason] = {
    "normal": NORMAL,
    "shutdown": SHUTDOWN,
    "shutdown, term": Shutdown("term"),
    "crash": Crash(ValueError("bug")),
    "killed": KILLED,
}
RESTARTED_AFTER = {PERMANENT: set(REASONS), TRANSIENT: {"crash", "killed"}, TEMPORARY: set()}
#: strategy -> the child that ended, of a, b and c -> who is started again with it
TAKES_ALONG: dict[Strategy, Callable[[str], str]] = {
    ONE_FOR_ONE: lambda ended: ended,
    ONE_FOR_ALL: lambda _ended: "abc",
    REST_FOR_ONE: lambda ended: "abc"["abc".index(ended) :],
}


def end(ref: Ref, reason: ExitReason) -> None:
    if reason == KILLED:
        ref.kill()
    else:
        ref.cast(lambda _actor: Stop(reason))
    assert exit_reason_of(ref) == reason


def running(supervisor: Ref) -> dict[object, object]:
    return {info.id: info.child for info in which_children(supervisor)}


@pytest.mark.parametrize(
    ("strategy", "restart", "reason", "position"),
    list(itertools.product(TAKES_ALONG, Restart, REASONS, "abc")),
    ids=lambda value: value if isinstance(value, str) else value.value,
)
def test_who_is_restarted(
    system: ActorSystem, server: type[Pooled], strategy: Strategy, restart: Restart, reason: str, position: str
) -> None:
    """One of three children ends: the tables say whether it is started again, and who with it."""
    specs = [ChildSpec(id_, Start(server), restart if id_ == position else PERMANENT) for id_ in "abc"]
    supervisor = system.start(Supervisor, specs, strategy=strategy)
    before = running(supervisor)
    ended = before[position]
    assert isinstance(ended, Ref)
    end(ended, REASONS[reason])
    after = running(supervisor)
    restarted = reason in RESTARTED_AFTER[restart]
    taken_along = TAKES_ALONG[strategy](position) if restarted else ""
    for id_ in "abc".replace(position, ""):
        child = after[id_]
        assert isinstance(child, Ref)
        assert child.is_alive()
        assert (child is not before[id_]) == (id_ in taken_along)
    if restarted:
        child = after[position]
        assert isinstance(child, Ref)
        assert child is not ended
        assert child.is_alive()
    elif restart is TEMPORARY:
        assert position not in after  # its spec is forgotten
    else:
        assert after[position] is None  # its spec stays known
