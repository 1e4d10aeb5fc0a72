"""``Supervisor``: a fixed list of children, with the strategies one_for_one, one_for_all and rest_for_one.

It owns its children: it started them, is linked to them, and ends them, last first, before it ends itself. A crash of a
supervisor ends its children the same way, and its own supervisor starts it, and so them, anew.

It does one thing at a time, as OTP's does: while a child's ``init`` or end is waited for, everything else stays in the
mailbox. It is pooled all the same: it waits by selective receive, not on a thread.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from receipt_actors.otp._calls import From
from receipt_actors.otp._child_spec import (
    INFINITY,
    ChildSpec,
    ChildType,
    Restart,
    Start,
    Strategy,
    check_child_specs,
)
from receipt_actors.otp._messages import (
    AlreadyStarted,
    Exit,
    NotStarted,
    Receiving,
    Started,
    StartResult,
    Stop,
)
from receipt_actors.otp._reasons import SHUTDOWN, Crash, ExitReason, Shutdown, is_orderly
from receipt_actors.otp._ref import Ref
from receipt_actors.otp._restart_window import RestartWindow
from receipt_actors.otp._simple_one_for_one import SimpleOneForOneSupervisor
from receipt_actors.otp._strategy import restart_group
from receipt_actors.otp._supervision import (
    ChildCounts,
    ChildError,
    ChildInfo,
    CountChildren,
    DeleteChild,
    RestartChild,
    StartChild,
    SupervisorBase,
    TerminateChild,
    WhichChildren,
)


@dataclass(frozen=True, slots=True)
class _TryAgain:
    """To itself: the restart of this child failed; try once more, behind what is in the mailbox."""

    id: Hashable


class _Child:
    """A spec and what has become of it."""

    __slots__ = ("ref", "restarting", "spec")

    def __init__(self, spec: ChildSpec) -> None:
        self.spec = spec
        self.ref: Ref | None = None
        self.restarting = False

    @property
    def state(self) -> Ref | Literal["restarting"] | None:
        return "restarting" if self.restarting else self.ref


class Supervisor(SupervisorBase):
    """Starts, restarts and stops a list of children; see the module and ``supervisor_spec``."""

    def __init__(
        self,
        children: Sequence[ChildSpec] = (),
        *,
        strategy: Strategy = Strategy.ONE_FOR_ONE,
        intensity: int = 1,
        period_seconds: float = 5.0,
    ) -> None:
        super().__init__(intensity, period_seconds)
        if not isinstance(strategy, Strategy) or strategy is Strategy.SIMPLE_ONE_FOR_ONE:
            raise ValueError(f"strategy must be ONE_FOR_ONE, ONE_FOR_ALL or REST_FOR_ONE here, not {strategy!r}")
        check_child_specs(children)
        self._strategy = strategy
        self._children = {spec.id: _Child(spec) for spec in children}

    # --- start and end ---

    def init(self) -> Receiving:
        """Start the children, first to last; if one fails, stop those that run and fail as well."""
        for child in list(self._children.values()):
            result = yield from self._start_one(child)
            if isinstance(result, NotStarted):
                yield from self._stop_children(list(self._children))
                return Stop(Shutdown(f"child {child.spec.id!r} failed to start: {result.reason}"))
        return None

    def terminate(self, reason: ExitReason) -> Receiving:
        """Stop the children, last to first."""
        yield from self._stop_children(list(self._children))

    def _start_one(self, child: _Child) -> Receiving:
        result: StartResult = yield from self._start_and_wait(child.spec)
        if isinstance(result, Started):
            child.ref = result.ref
        elif not isinstance(result, NotStarted) and child.spec.restart is Restart.TEMPORARY:
            self._children.pop(child.spec.id, None)  # ignored, and there is nothing to restart
        return result

    def _stop_children(self, ids: Sequence[Hashable]) -> Receiving:
        """Stop these children, last to first, and forget those that are temporary."""
        for child_id in reversed(ids):
            child = self._children[child_id]
            child.restarting = False
            ref, child.ref = child.ref, None
            if ref is not None:
                yield from self._shut_down(ref, child.spec.shutdown)
            if child.spec.restart is Restart.TEMPORARY:
                del self._children[child_id]

    # --- a child ended ---

    def handle_info(self, message: Any) -> Any:
        """Restart a child that ended, as its spec says."""
        if isinstance(message, Exit):
            return self._child_ended(message.ref, message.reason)
        return super().handle_info(message)

    def _child_ended(self, ref: Ref, reason: ExitReason) -> Receiving | None:
        child = next((child for child in self._children.values() if child.ref is ref), None)
        if child is None:
            return None
        child.ref = None
        restart = child.spec.restart
        if restart is Restart.TEMPORARY:
            del self._children[child.spec.id]
            return None
        if restart is Restart.TRANSIENT and is_orderly(reason):
            return None
        return self._restart(child, reason)

    def _restart(self, child: _Child, reason: ExitReason | str) -> Receiving:
        if not self._restart_allowed(child.spec.id, reason):
            return Stop(SHUTDOWN)
        group = restart_group(self._strategy, list(self._children), child.spec.id)
        yield from self._stop_children(group)
        for child_id in group:
            sibling = self._children.get(child_id)
            if sibling is None:
                continue
            result = yield from self._start_one(sibling)
            if isinstance(result, NotStarted):
                sibling.restarting = True
                self.ref.cast(_TryAgain(child_id))
                break
        return None

    def handle_cast(self, request: Any) -> Any:
        """Try a failed restart again."""
        if isinstance(request, _TryAgain):
            child = self._children.get(request.id)
            if child is not None and child.restarting:
                return self._restart(child, "it failed to start")
            return None
        return super().handle_cast(request)

    # --- requests ---

    def handle_call(self, request: Any, from_: From) -> Any:
        """Answer the functions of Erlang's ``supervisor`` module."""
        match request:
            case StartChild(ChildSpec() as spec):
                return self._add_child(spec)
            case StartChild(wrong):
                error = TypeError(f"start_child needs a ChildSpec here, not {type(wrong).__name__}")
                return NotStarted(Crash(error))
            case TerminateChild(child_id):
                return self._terminate_child(child_id)
            case RestartChild(child_id):
                return self._restart_child(child_id)
            case DeleteChild(child_id):
                return self._delete_child(child_id)
            case WhichChildren():
                return [ChildInfo(id_, child.state, child.spec.type) for id_, child in self._children.items()]
            case CountChildren():
                children = self._children.values()
                supervisors = sum(child.spec.type is ChildType.SUPERVISOR for child in children)
                active = sum(child.ref is not None for child in children)
                return ChildCounts(len(children), active, supervisors, len(children) - supervisors)
        return super().handle_call(request, from_)

    def _add_child(self, spec: ChildSpec) -> Any:
        present = self._children.get(spec.id)
        if present is not None:
            return ChildError.ALREADY_PRESENT if present.ref is None else NotStarted(AlreadyStarted(present.ref))
        return self._start_added(_Child(spec))

    def _start_added(self, child: _Child) -> Receiving:
        self._children[child.spec.id] = child
        result = yield from self._start_one(child)
        if isinstance(result, NotStarted):
            del self._children[child.spec.id]
        return result

    def _terminate_child(self, child_id: Hashable) -> Any:
        return self._stop_children([child_id]) if child_id in self._children else ChildError.NOT_FOUND

    def _restart_child(self, child_id: Hashable) -> Any:
        child = self._children.get(child_id)
        if child is None:
            return ChildError.NOT_FOUND
        if child.restarting:
            return ChildError.RESTARTING
        return ChildError.RUNNING if child.ref is not None else self._start_one(child)

    def _delete_child(self, child_id: Hashable) -> ChildError | None:
        child = self._children.get(child_id)
        if child is None:
            return ChildError.NOT_FOUND
        if child.restarting:
            return ChildError.RESTARTING
        if child.ref is not None:
            return ChildError.RUNNING
        del self._children[child_id]
        return None


def supervisor_spec(
    id: Hashable,
    strategy: Strategy,
    children: Sequence[ChildSpec],
    *,
    intensity: int = 1,
    period_seconds: float = 5.0,
    restart: Restart = Restart.PERMANENT,
) -> ChildSpec:
    """Describe a supervisor as a child, registered under its id; trees are written by nesting this.

    Args:
        id: its id, and its name in the actor system.
        strategy: how its children's restarts hang together; ``SIMPLE_ONE_FOR_ONE`` takes exactly one spec.
        children: their specs, in start order.
        intensity: restarts allowed within ``period_seconds``; one more ends the supervisor.
        period_seconds: see ``intensity``.
        restart: when its own supervisor starts it again.

    Raises:
        ValueError: an id is there twice, simple_one_for_one has not exactly one spec, or something is no strategy,
            no ``ChildSpec``, no intensity or no period.
    """
    if not isinstance(strategy, Strategy):
        raise ValueError(f"supervisor {id!r}: strategy must be a Strategy, not {strategy!r}")
    RestartWindow(intensity, period_seconds)
    check_child_specs(children)
    if strategy is Strategy.SIMPLE_ONE_FOR_ONE:
        if len(children) != 1:
            raise ValueError(f"supervisor {id!r}: simple_one_for_one takes exactly one child spec, not {len(children)}")
        start = Start(
            SimpleOneForOneSupervisor, children[0], intensity=intensity, period_seconds=period_seconds, name=id
        )
    else:
        start = Start(
            Supervisor, tuple(children), strategy=strategy, intensity=intensity, period_seconds=period_seconds, name=id
        )
    return ChildSpec(id, start, restart, INFINITY, ChildType.SUPERVISOR)
