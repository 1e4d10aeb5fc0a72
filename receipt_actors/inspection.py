"""``Inspection``: a picture of one process's system, from what actors show of themselves (``Actor.outside_view``).

It waits for no actor; only a question for the state of one actor waits for that one, and not for long.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from importlib import metadata
from typing import Any

import pykka

from receipt_actors.otp import ActorSystem, ChildType, Ref
from receipt_actors.otp import sys as otp_sys
from receipt_actors.otp.tree import ActorNode, find_actor, look_at
from receipt_actors.pipeline.protocol import IN_FLIGHT, InFlightStatus
from receipt_actors.scale.membership import MEMBERSHIP
from receipt_actors.telemetry.control import UnknownActor
from receipt_actors.telemetry.incidents import incidents_of
from receipt_actors.telemetry.overview import (
    ActorOverview,
    NodeState,
    Overview,
    ProcessOverview,
    RoleOverview,
    ServiceOverview,
    State,
    usage_now,
)
from receipt_actors.telemetry.queue_depths import QUEUE_DEPTHS, LookAtQueues
from receipt_actors.telemetry.statistics import statistics_of

STATE_SECONDS = 2.0  #: for an actor to describe its state
_NOBODY = InFlightStatus(0, 0, frozenset(), 0.0)


class Inspection:
    """Looks at one system. Any thread may use it."""

    def __init__(self, process: str, actors: ActorSystem, root: Ref, source_queues: tuple[str, ...]) -> None:
        self._name = process
        self._actors = actors
        self._root = root
        self._source_queues = source_queues
        self._started_at_seconds = actors.clock.time()

    def overview(self, *, is_draining: bool, looks_at_queues: bool) -> Overview:
        statistics = statistics_of(self._actors).snapshot()
        tree = None if self._root.process.is_set() else look_at(self._root)
        views = {} if tree is None else {node.name: node.view for node in _nodes(tree)}
        if looks_at_queues and (queue_depths := self._actors.whereis(QUEUE_DEPTHS)) is not None:
            queue_depths.cast(LookAtQueues())
        role = role_in(views)
        in_flight = views.get(IN_FLIGHT)
        status = in_flight if isinstance(in_flight, InFlightStatus) else None
        known = status or _NOBODY
        process = ProcessOverview(
            name=self._name,
            pid=os.getpid(),
            started_at_seconds=self._started_at_seconds,
            state=state_with_role(_state(tree, status, is_draining=is_draining), role),
            in_flight=known.in_flight,
            reserved=known.reserved,
            unavailable=tuple(sorted(known.troubles)),
            usage=usage_now(),
            services=tuple(view for view in views.values() if isinstance(view, ServiceOverview)),
            tree=None if tree is None else actor_overview(tree),
            statistics=statistics,
            idle_seconds=known.idle_seconds,
            oldest_in_flight_seconds=known.oldest_in_flight_seconds,
            unable_seconds=known.unable_seconds,
        )
        depths = views.get(QUEUE_DEPTHS)
        return Overview(
            at_seconds=self._actors.clock.time(),
            version=version(),
            state=process.state,
            source_queues=self._source_queues,
            queues=depths if isinstance(depths, Mapping) else dict.fromkeys(self._source_queues),
            processes=(process,),
            statistics=statistics,
            incidents=incidents_of(self._actors),
            role=role,
        )


@functools.cache
def version() -> str:
    return metadata.version("receipt-actors")


def actor_overview(node: ActorNode) -> ActorOverview:
    return ActorOverview(
        node.name,
        node.type.value,
        node.status,
        node.mailbox_length,
        node.messages_handled,
        node.restarts,
        None if node.strategy is None else node.strategy.value,
        tuple(map(actor_overview, node.children)),
        node.children_unlisted,
    )


def actor_state(actors: ActorSystem, name: str) -> dict[str, Any]:
    """Describe one actor of a system, and its state if it answers in time. Raises ``UnknownActor``."""
    ref = find_actor(actors, name)
    if ref is None:
        raise UnknownActor(f"no actor is called {name!r}")
    node = look_at(ref, 0)
    described: dict[str, Any] = {
        "name": node.name,
        "class": ref.actor_class.__name__,
        "kind": node.type.value,
        "status": node.status,
        "mailbox_length": node.mailbox_length,
        "messages": node.messages_handled,
    }
    if node.type is ChildType.SUPERVISOR and node.strategy is not None:
        described["strategy"] = node.strategy.value
    if node.view is not None:
        described["seen"] = _plain(node.view)
    try:
        return {**described, "state": otp_sys.describe_state(ref, STATE_SECONDS)}
    except pykka.Timeout:
        why = f"it has not answered for {STATE_SECONDS:g} s: it is busy, hangs, or waits for a certain message"
        return {**described, "state": None, "why": why, "is_at": list(otp_sys.where(ref))}
    except pykka.ActorDeadError:
        raise UnknownActor(f"{name!r} has just ended") from None


def _plain(view: object) -> object:
    if is_dataclass(view) and not isinstance(view, type):
        return {field.name: _plain(getattr(view, field.name)) for field in fields(view)}
    if isinstance(view, Mapping):
        return {str(key): _plain(value) for key, value in view.items()}
    if isinstance(view, tuple) and all(map(is_dataclass, view)):
        return [_plain(each) for each in view]
    if isinstance(view, frozenset | tuple):
        return sorted(map(str, view))
    return view if isinstance(view, str | int | float | None) else type(view).__name__


def role_in(views: Mapping[str, object]) -> RoleOverview | None:
    view = views.get(MEMBERSHIP)
    return view if isinstance(view, RoleOverview) else None


def state_with_role(state: State, role: RoleOverview | None) -> State:
    """Return the state of a node, or of a process of it, that waits for work of its group."""
    node_state = NodeState.ACTIVE if role is None else role.state
    if node_state in (NodeState.STANDBY, NodeState.WAITING) and state in (State.CONSUMING, State.WAITING):
        return State.STANDBY
    return State.WAITING if node_state is NodeState.CUT_OFF and state in (State.CONSUMING, State.STANDBY) else state


def _nodes(node: ActorNode) -> Iterator[ActorNode]:
    yield node
    for child in node.children:
        yield from _nodes(child)


def _state(tree: ActorNode | None, status: InFlightStatus | None, *, is_draining: bool) -> State:
    if tree is None:
        return State.ENDED
    if is_draining:
        return State.DRAINING
    if status is None:  # it is being started, for the first time or again
        return State.STARTING
    if status.is_paused:
        return State.PAUSED
    return State.WAITING if status.is_closed else State.CONSUMING
