"""``Supervisor``: a fixed list of children, with the strategies one_for_one, one_for_all and rest_for_one.

It owns its children: it started them, is linked to them, and ends them, last first, before it ends itself. A crash of a
supervisor ends its children the same way, and its own supervisor starts it, and so them, anew.

It does one thing at a time, as OTP's does: while a child's ``init`` or end is waited for, everything else stays in the
mailbox. It is pooled all the same: it waits by selective receive, not on a thread.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from receipt_actors.otp._backoff import Streak
from receipt_actors.otp._calls import From
from receipt_actors.otp._child_spec import (
    AutoShutdown,
    ChildSpec,
    ChildType,
    ForgottenStart,
    Restart,
    Strategy,
    check_child_spec,
)
from receipt_actors.otp._clock import Timer
from receipt_actors.otp._messages import (
    IGNORE,
    AlreadyStarted,
    Exit,
    NotStarted,
    Receiving,
    Started,
    StartFinished,
    Stop,
)
from receipt_actors.otp._reasons import SHUTDOWN, Crash, ExitReason, Shutdown, is_orderly
from receipt_actors.otp._ref import Ref
from receipt_actors.otp._reports import FailedToStartChild, ReportContext, report_progress
from receipt_actors.otp._strategy import restart_group
from receipt_actors.otp._supervision import RestartPlan, SupervisorBase
from receipt_actors.otp._supervisor_functions import (
    ChildCounts,
    ChildError,
    ChildInfo,
    CountChildren,
    DeleteChild,
    GetChildSpec,
    RestartChild,
    StartChild,
    TerminateChild,
    WhichChildren,
)


@dataclass(frozen=True, slots=True)
class _TryAgain:
    """To itself: the restart of this child failed; try once more, behind what is in the mailbox."""

    id: Hashable


@dataclass(frozen=True, slots=True, eq=False)
class _DelayOver:
    """To itself: this child's ``Backoff`` has waited; restart it, unless that was cancelled (then it is another's)."""

    id: Hashable


class _Child:
    """A spec and what has become of it."""

    __slots__ = ("_delay", "ref", "restarting", "spec", "streak")

    def __init__(self, spec: ChildSpec) -> None:
        self.spec = spec
        self.ref: Ref | None = None
        self.restarting = False
        self.begin_anew()
        self._delay: tuple[_DelayOver, Timer] | None = None

    def begin_anew(self) -> None:
        """Count its restarts from none: an operator has taken it in hand."""
        self.streak = None if self.spec.backoff is None else Streak()

    @property
    def state(self) -> Ref | Literal["restarting"] | None:
        return "restarting" if self.restarting else self.ref

    @property
    def is_known_to_run(self) -> bool:
        return self.ref is not None or self.restarting

    def wait_for(self, over: _DelayOver, timer: Timer) -> None:
        self.restarting, self._delay = True, (over, timer)

    @property
    def waits(self) -> bool:
        """Tell whether its ``Backoff`` is under way, after which it is started, and so is who shares its fate."""
        return self._delay is not None

    def waits_for(self, over: _DelayOver) -> bool:
        return self._delay is not None and self._delay[0] is over

    def clear(self) -> None:
        """It does not run, and nothing is under way to change that."""
        self.ref = None
        self.restarting = False
        if self._delay is not None:
            self._delay[1].cancel()
            self._delay = None


class Supervisor(SupervisorBase):
    """Starts, restarts and stops a list of children; see the module, ``supervisor_spec`` and ``SupervisorBase``."""

    def __init__(
        self,
        children: Sequence[ChildSpec] = (),
        *,
        strategy: Strategy = Strategy.ONE_FOR_ONE,
        intensity: int = 1,
        period_seconds: float = 5.0,
        auto_shutdown: AutoShutdown = AutoShutdown.NEVER,
        max_zombies: int = 10,
    ) -> None:
        if strategy is Strategy.SIMPLE_ONE_FOR_ONE:
            raise ValueError("strategy must be another one here: SIMPLE_ONE_FOR_ONE is SimpleOneForOneSupervisor's")
        super().__init__(children, strategy, intensity, period_seconds, auto_shutdown, max_zombies)
        self._children = {spec.id: _Child(spec) for spec in children}
        self._running: dict[Ref, _Child] = {}  # so that the end of one costs the same however many there are

    def children_seen(self, max_on_demand: int) -> tuple[list[ChildInfo], int]:
        """See ``SupervisorBase``; all of them, for they are a fixed list."""
        return [ChildInfo(id_, child.state, child.spec.type) for id_, child in list(self._children.items())], 0

    # --- start and end ---

    def init(self) -> Receiving:
        """Start the children, first to last; if one fails, stop those that run and fail as well."""
        for child in list(self._children.values()):
            result = yield from self._start_one(child)
            if isinstance(result, NotStarted):
                self._report(ReportContext.START_ERROR, child.spec, None, result.reason)
                yield from self._stop_children(list(self._children))
                return Stop(Shutdown(FailedToStartChild(child.spec.id, result.reason)))
            give_up = self._too_many_zombies(child.spec, None)
            if give_up is not None:
                yield from self._stop_children(list(self._children))
                return give_up
        return None

    def terminate(self, reason: ExitReason) -> Receiving:
        """Stop the children, last to first."""
        yield from self._stop_children(list(self._children))

    def _start_one(self, child: _Child) -> Receiving:
        """Start a child that does not run; one that says IGNORE stays known, unless it is temporary."""
        result = yield from self._start_and_wait(child.spec)
        if isinstance(result, Started):
            child.ref = result.ref
            self._running[result.ref] = child
            if child.streak is not None:
                child.streak.started(self.clock.monotonic())
            report_progress(self.ref, child.spec, result.ref)
        elif result is IGNORE and child.spec.restart is Restart.TEMPORARY:
            self._children.pop(child.spec.id, None)
        return result

    def _clear(self, child: _Child) -> None:
        """Note that a child does not run, and have nothing under way that changes that."""
        if child.ref is not None:
            self._running.pop(child.ref, None)
        child.clear()

    def _stop_children(self, ids: Sequence[Hashable]) -> Receiving:
        """Stop children, last to first, and forget those that are temporary."""
        for child_id in reversed(ids):
            child = self._children[child_id]
            ref = child.ref
            self._clear(child)
            if ref is not None:
                yield from self._shut_down(child.spec, ref)
            if child.spec.restart is Restart.TEMPORARY:
                del self._children[child_id]

    # --- a child ended ---

    def handle_info(self, message: Any) -> Any:
        """Restart a child that ended, as its spec says."""
        match message:
            case Exit(ref, reason):
                child = self._running.get(ref)
                return None if child is None else self._child_ended(child, ref, reason)
            case _DelayOver(child_id):
                child = self._children.get(child_id)
                return self._restart_now(child) if child is not None and child.waits_for(message) else None
            case StartFinished():
                return None  # of a start whose result was there before this message
        return super().handle_info(message)

    def _child_ended(self, child: _Child, ref: Ref, reason: ExitReason) -> Receiving | Stop | None:
        self._clear(child)
        self._note_zombie(ref)
        spec, orderly = child.spec, is_orderly(reason)
        if spec.restart is Restart.PERMANENT or (spec.restart is Restart.TRANSIENT and not orderly):
            plan = self._count_restart(spec, child.streak)
            self._report_termination(spec, ref, reason, plan)
            return self._too_many_zombies(spec, ref) or self._carry_out(plan, child, ref)
        if not orderly:
            self._report_termination(spec, ref, reason, None)
        if spec.restart is Restart.TEMPORARY:
            del self._children[spec.id]
        return self._too_many_zombies(spec, ref) or self._shut_down_automatically(spec)

    def _shut_down_automatically(self, ended: ChildSpec) -> Stop | None:
        if not ended.significant or self._auto_shutdown is AutoShutdown.NEVER:
            return None
        if self._auto_shutdown is AutoShutdown.ALL_SIGNIFICANT and self._has_significant_left():
            return None
        return Stop(SHUTDOWN)

    def _has_significant_left(self) -> bool:
        """Tell whether a significant child runs, or is to be started again after a ``Backoff``."""
        waiting = [child for child in self._children.values() if child.waits]
        due = {member for child in waiting for member in restart_group(self.strategy, self._children, child.spec.id)}
        return any(
            child.spec.significant and (child.is_known_to_run or id_ in due) for id_, child in self._children.items()
        )

    # --- restarting ---

    def _carry_out(self, plan: RestartPlan, child: _Child, ref: Ref | None) -> Receiving | Stop:
        if not plan.allowed:
            self._clear(child)
            return self._give_up(child.spec, ref, plan)
        return (
            self._restart_now(child) if plan.delay_seconds is None else self._restart_later(child, plan.delay_seconds)
        )

    def _restart_now(self, child: _Child) -> Receiving:
        """Stop who shares the child's fate, then start all of them; one that does not start is tried again later."""
        group = restart_group(self.strategy, self._children, child.spec.id)
        yield from self._stop_children(group)
        give_up = self._too_many_zombies(child.spec, None)
        if give_up is not None:
            return give_up
        for child_id in group:
            sibling = self._children.get(child_id)
            if sibling is None:
                continue
            result = yield from self._start_one(sibling)
            if isinstance(result, NotStarted):
                return self._start_failed(sibling, result)
            if isinstance(result, Started):
                self.system.count_restart(self.ref, child_id)
        return self._too_many_zombies(child.spec, None)

    def _start_failed(self, child: _Child, result: NotStarted) -> Receiving | Stop | None:
        self._report(ReportContext.START_ERROR, child.spec, None, result.reason)
        if child.spec.backoff is not None:
            return self._carry_out(self._count_restart(child.spec, child.streak), child, None)
        child.restarting = True
        self.ref.cast(_TryAgain(child.spec.id))
        return None

    def _restart_later(self, child: _Child, delay_seconds: float) -> Receiving:
        """Stop who shares the child's fate, and have all of them started after the delay."""
        group = restart_group(self.strategy, self._children, child.spec.id)
        yield from self._stop_children(group)
        over = _DelayOver(child.spec.id)
        child.wait_for(over, self.send_after(delay_seconds, over))
        return self._too_many_zombies(child.spec, None)

    def handle_cast(self, request: Any) -> Any:
        """Try a failed restart again."""
        if isinstance(request, _TryAgain):
            child = self._children.get(request.id)
            if child is None or not child.restarting:
                return None
            return self._carry_out(self._count_restart(child.spec, child.streak), child, None)
        return super().handle_cast(request)

    # --- requests ---

    def handle_call(self, request: Any, from_: From) -> Any:
        """Answer the functions of Erlang's ``supervisor`` module."""
        match request:
            case StartChild(spec):
                return self._add_child(spec)
            case TerminateChild(child_id):
                child = self._children.get(child_id)
                return ChildError.NOT_FOUND if child is None else self._terminate_child(child)
            case RestartChild(child_id):
                child = self._children.get(child_id)
                return (
                    self._why_not_at_rest(child) if child is None or child.is_known_to_run else self._start_again(child)
                )
            case DeleteChild(child_id):
                return self._delete_child(child_id)
            case GetChildSpec(child_id):
                child = self._children.get(child_id)
                return ChildError.NOT_FOUND if child is None else child.spec
            case WhichChildren():
                return [ChildInfo(id_, child.state, child.spec.type) for id_, child in self._children.items()]
            case CountChildren():
                children = self._children.values()
                supervisors = sum(child.spec.type is ChildType.SUPERVISOR for child in children)
                active = sum(child.ref is not None and not child.ref.process.is_set() for child in children)
                return ChildCounts(len(children), active, supervisors, len(children) - supervisors)
        return super().handle_call(request, from_)

    def _add_child(self, spec: Any) -> Any:
        try:
            check_child_spec(spec, self._auto_shutdown)
        except ValueError as error:
            return NotStarted(Crash(error))
        present = self._children.get(spec.id)
        if present is not None:
            # OTP: ``already_present`` also while it is about to be restarted.
            return ChildError.ALREADY_PRESENT if present.ref is None else NotStarted(AlreadyStarted(present.ref))
        return self._start_added(_Child(spec))

    def _start_added(self, child: _Child) -> Receiving:
        result = yield from self._start_one(child)
        if isinstance(result, Started) or (result is IGNORE and child.spec.restart is not Restart.TEMPORARY):
            self._children[child.spec.id] = child
            if child.spec.restart is Restart.TEMPORARY:
                child.spec = replace(child.spec, start=ForgottenStart(child.spec.start))
        return self._answer_unless_too_many_zombies(child.spec, None, result)

    def _start_again(self, child: _Child) -> Receiving:
        result = yield from self._start_one(child)
        return self._answer_unless_too_many_zombies(child.spec, None, result)

    def _terminate_child(self, child: _Child) -> Receiving:
        ref = child.ref
        yield from self._stop_children([child.spec.id])
        child.begin_anew()
        return self._answer_unless_too_many_zombies(child.spec, ref, None)

    def _delete_child(self, child_id: Hashable) -> ChildError | None:
        child = self._children.get(child_id)
        if child is None or child.is_known_to_run:
            return self._why_not_at_rest(child)
        del self._children[child_id]
        return None

    @staticmethod
    def _why_not_at_rest(child: _Child | None) -> ChildError:
        if child is None:
            return ChildError.NOT_FOUND
        return ChildError.RESTARTING if child.restarting else ChildError.RUNNING
