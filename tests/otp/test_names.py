"""Registered names: taken before init, free again at the very end."""

from __future__ import annotations

import pytest

from receipt_actors.otp import ActorSystem, AlreadyStarted, NotStarted, StartError, Stop
from tests.otp.support import Gate, Pooled, Seen, exit_reason_of, link_child_script, run_in


def test_an_actor_is_found_under_its_name(system: ActorSystem, server: type[Pooled]) -> None:
    """A name leads to the reference, from init on; any hashable value may be one."""
    seen = Seen()
    ref = system.start(server, init=lambda actor: seen.put(actor.system.whereis(("it", 1))), name=("it", 1))
    assert seen.rest() == [ref]
    assert system.whereis(("it", 1)) is ref
    assert system.registered() == {("it", 1): ref}
    assert ref.name == ("it", 1)
    assert system.whereis("else") is None


def test_a_name_is_given_once(system: ActorSystem, server: type[Pooled]) -> None:
    """A second start under the name fails, says who has it, and does not disturb it."""
    ref = system.start(server, name="it")
    with pytest.raises(StartError, match="already started") as raised:
        system.start(server, name="it")
    assert raised.value.result == NotStarted(AlreadyStarted(ref))
    result = run_in(system.start(server), lambda actor: link_child_script(actor, server, name="it"))
    assert result == NotStarted(AlreadyStarted(ref))
    assert system.whereis("it") is ref


def test_a_name_is_free_when_the_end_is_known(system: ActorSystem, server: type[Pooled]) -> None:
    """Who has learned of an actor's end can start its successor under the same name."""
    free = Seen()
    first = system.start(server, name="it")
    first.process.add_monitor(lambda _down: free.put(system.whereis("it")))
    first.cast(lambda _actor: Stop())
    assert free.next() is None
    assert system.start(server, name="it") is system.whereis("it")


def test_a_killed_busy_actor_keeps_no_name(system: ActorSystem, server: type[Pooled]) -> None:
    """The successor of a killed actor keeps the name when the killed one's callback returns at last."""
    with Gate() as gate:
        first = system.start(server, name="it")
        first.cast(gate)
        gate.wait_entered()
        first.kill()
        assert exit_reason_of(first) is not None
        assert system.whereis("it") is None
        gate.open()
    second = system.start(server, name="it")
    assert system.whereis("it") is second
