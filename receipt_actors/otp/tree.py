"""``ActorNode``: what a supervision tree looks like at one moment, seen from outside, without a message to any actor.

A supervisor that is busy, or an actor that hangs, does not hold up who looks: nothing is sent, and no lock is held for
longer than it takes to copy a list. The price is that a picture may show one actor a moment earlier than another.
"""

from __future__ import annotations

import logging
from collections.abc import Hashable
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from receipt_actors.otp._child_spec import ChildType, Strategy
from receipt_actors.otp._messages import Name, text_of
from receipt_actors.otp._process import EXITED, RUNNING, STARTING, TERMINATING
from receipt_actors.otp._ref import Ref
from receipt_actors.otp._reports import describe, log
from receipt_actors.otp._supervisor import ChildInfo, SupervisorBase

if TYPE_CHECKING:
    from receipt_actors.otp._gen_server import Actor
    from receipt_actors.otp._process import Process
    from receipt_actors.otp._system import ActorSystem

MAX_ON_DEMAND = 20  #: children of a simple_one_for_one supervisor that are listed, unless another number is asked for
_URN_CHARACTERS = 8


@dataclass(frozen=True, slots=True)
class ActorNode:
    """An actor, or the place in a supervisor where there is none now."""

    name: str  #: for people, and for ``find_actor``: the registered one, else the child id and a part of the URN
    ref: Ref | None  #: None: it does not run
    type: ChildType
    status: str  #: ``starting``, ``running``, ``suspended``, ``ending``, ``restarting`` or ``stopped``
    mailbox_length: int = 0
    messages_handled: int = 0  #: since it was started
    restarts: int = 0  #: since the system was started; by its supervisor, or together with it
    strategy: Strategy | None = None  #: of a supervisor
    children: tuple[ActorNode, ...] = ()
    children_unlisted: int = 0  #: of a simple_one_for_one supervisor, beyond those that are listed
    view: object = None  #: what ``Actor.outside_view`` said


def look_at(ref: Ref, max_on_demand: int = MAX_ON_DEMAND) -> ActorNode:
    """Describe an actor and all that it supervises; from any thread.

    Args:
        ref: the actor, say the root of a tree.
        max_on_demand: how many children of a simple_one_for_one supervisor are listed; the others are counted.
    """
    return _look_at(ref, None, 0, max_on_demand)


def _look_at(ref: Ref, id: Hashable | None, restarts: int, max_on_demand: int) -> ActorNode:
    process, actor = ref.process, ref.process.actor
    children: list[ActorNode] = []
    unlisted, strategy = 0, None
    if isinstance(actor, SupervisorBase):
        known: list[ChildInfo] = []
        with suppress(AttributeError):  # it is being made at this moment
            strategy = actor.strategy
            known, unlisted = actor.children_seen(max_on_demand)
        for child_id, child, type_ in known:
            child_restarts = restarts + process.system.restarts_of(ref, child_id)
            if isinstance(child, Ref):
                children.append(_look_at(child, child_id, child_restarts, max_on_demand))
            else:
                status = "stopped" if child is None else child
                children.append(ActorNode(_for_people(child_id), None, type_, status, restarts=child_restarts))
    return ActorNode(
        name_of(ref, id),
        ref,
        ChildType.SUPERVISOR if issubclass(ref.actor_class, SupervisorBase) else ChildType.WORKER,
        _status(process),
        process.mailbox_length,
        process.messages_handled,
        restarts,
        strategy,
        tuple(children),
        unlisted,
        None if actor is None or process.state is STARTING else _view(actor),
    )


def _status(process: Process) -> str:
    state = process.state
    if state is RUNNING:
        return "suspended" if process.is_suspended else "running"
    return {STARTING: "starting", TERMINATING: "ending", EXITED: "stopped"}[state]


def _view(actor: Actor) -> object:
    try:
        return actor.outside_view()
    except BaseException:  # a picture without it is better than none
        log(logging.ERROR, "outside_view of %s failed", actor, exc_info=True)
        return None


def find_actor(system: ActorSystem, name: str) -> Ref | None:
    """Find the actor with this name in a picture of the tree, or None."""
    for registered, ref in system.registered().items():
        if _for_people(registered) == name:
            return ref
    urn = name.rpartition(" ")[2]
    if len(urn) != _URN_CHARACTERS:
        return None
    return next((ref for ref in system.processes() if ref.is_known_by_urn and _urn_of(ref) == urn), None)


def name_of(ref: Ref, id: Hashable | None = None) -> str:
    """Return what people call an actor: its registered name, or something like ``validator 1b9d6bcd``."""
    if ref.name is not None:
        return _for_people(ref.name)
    return f"{_for_people(ref.actor_class.__name__ if id is None else id)} {_urn_of(ref)}"


def _for_people(name: Name) -> str:
    return describe(" ".join(map(text_of, name)) if isinstance(name, tuple) else text_of(name))


def _urn_of(ref: Ref) -> str:
    return ref.actor_urn.rpartition(":")[2][:_URN_CHARACTERS]
