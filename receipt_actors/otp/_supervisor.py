"""Supervisors (Erlang's ``supervisor``): ``Supervisor`` and ``SimpleOneForOneSupervisor``, and ``supervisor_spec``.

A supervisor starts its children, is linked to them, and ends them before it ends itself. If it crashes, its children
end, and its own supervisor starts it, and so them, again.

As in OTP, all other messages wait in the mailbox while a child starts or ends: it waits by selective receive.
"""

from __future__ import annotations

import enum
import logging
from collections import Counter
from collections.abc import Callable, Generator, Hashable, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Final, Literal, NamedTuple, TypeAlias

from pykka._envelope import Envelope

from receipt_actors.otp._child_spec import (
    BRUTAL_KILL,
    INFINITY,
    AutoShutdown,
    ChildSpec,
    ChildType,
    ForgottenStart,
    Restart,
    RestartWindow,
    Start,
    Strategy,
    Streak,
    check_auto_shutdown,
    check_child_spec,
    check_child_specs,
    restart_group,
)
from receipt_actors.otp._clock import Timer
from receipt_actors.otp._gen_server import GenServer
from receipt_actors.otp._messages import (
    IGNORE,
    NO_PROCESS,
    SHUTDOWN,
    AlreadyStarted,
    Crash,
    Down,
    Exit,
    ExitReason,
    Killed,
    Normal,
    NotStarted,
    Receive,
    ReceiveMore,
    ReceiveNew,
    Receiving,
    Shutdown,
    Started,
    StartFinished,
    Starting,
    StartResult,
    Stop,
    is_orderly,
)
from receipt_actors.otp._process import RUNNING, Process
from receipt_actors.otp._ref import From, Ref
from receipt_actors.otp._reports import (
    Context,
    FailedToStartChild,
    ProgressReport,
    SupervisorReport,
    describe,
    describe_child,
    describe_reason,
    is_wanted,
    publish,
)
from receipt_actors.otp._scheduler import context

# --- answers ---


class ChildError(enum.Enum):
    """Why a supervisor did not do what it was asked."""

    NOT_FOUND = "not_found"
    ALREADY_PRESENT = "already_present"  #: the id is known but its child does not run: restart or delete it
    RUNNING = "running"
    RESTARTING = "restarting"
    SIMPLE_ONE_FOR_ONE = "simple_one_for_one"  #: not for this kind of supervisor


class ChildInfo(NamedTuple):
    """One line of ``which_children``; ``id`` is None for children of a simple_one_for_one supervisor."""

    id: Hashable | None
    child: Ref | Literal["restarting"] | None
    type: ChildType


class ChildCounts(NamedTuple):
    specs: int
    active: int
    supervisors: int
    workers: int


StartAnswer: TypeAlias = StartResult | ChildError

# --- requests ---


@dataclass(frozen=True, slots=True)
class StartChild:
    spec_or_args: ChildSpec | Sequence[Any]


@dataclass(frozen=True, slots=True)
class _ByChildId:
    id: Hashable

    def __post_init__(self) -> None:
        hash(self.id)  # a TypeError belongs to who asks, not into the supervisor


class TerminateChild(_ByChildId):
    __slots__ = ()


class RestartChild(_ByChildId):
    __slots__ = ()


class DeleteChild(_ByChildId):
    __slots__ = ()


class GetChildSpec(_ByChildId):
    __slots__ = ()


@dataclass(frozen=True, slots=True)
class WhichChildren:
    pass


@dataclass(frozen=True, slots=True)
class CountChildren:
    pass


# --- what both kinds share ---


class RestartPlan(NamedTuple):
    allowed: bool  #: False: the supervisor gives up
    delay_seconds: float | None  #: None: at once
    note: str  #: the same for a report


@dataclass(frozen=True, slots=True, eq=False)
class _Retry:
    """To itself: try to start this child again, unless it has another ``retry`` by then, or none."""

    child: _Child
    is_delayed: bool


class _Child:
    """A child of a fixed list; or one of simple_one_for_one between its end and its next start."""

    __slots__ = ("args", "ended", "ref", "retry", "spec", "streak", "timer")

    def __init__(self, spec: ChildSpec, args: Sequence[Any] = (), ended: Ref | None = None) -> None:
        self.spec = spec
        self.args = args
        self.ended = ended  # of simple_one_for_one: by which it is still known
        self.ref: Ref | None = None
        self.retry: _Retry | None = None
        self.timer: Timer | None = None
        self.begin_anew()

    def begin_anew(self) -> None:
        self.streak = None if self.spec.backoff is None else Streak()

    @property
    def state(self) -> Ref | Literal["restarting"] | None:
        return self.ref if self.retry is None else "restarting"

    def clear(self) -> None:
        self.ref = self.retry = None
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None


def is_orphaned(process: Process) -> bool:
    """Tell whether a process is bound to end because a supervisor above it was killed."""
    while process not in process.system.orphans:
        parent = process.parent
        if parent is None or process not in parent.linked:
            return False
        process = parent
    return True


def seconds_to_end(spec: ChildSpec) -> float | None:
    """Return how long a child has to end once it is told to; None: as long as it takes."""
    return spec.shutdown if isinstance(spec.shutdown, int | float) else None


class SupervisorBase(GenServer):
    """See ``Supervisor`` and ``SimpleOneForOneSupervisor``.

    **Zombies.** A child that is killed, or that an exit signal ends because it does not trap exits, is gone at once.
    But CPython can't end a thread: a callback that is running goes on, and its thread is not free before it returns. If
    more than ``max_zombies`` such children still run, the supervisor gives up as after too many restarts, with the
    reason ``Shutdown("killed children that still run: ...")``. A child whose callbacks block, and are to end first,
    sets ``trap_exit``: it then has its ``shutdown`` time.
    """

    trap_exit: ClassVar[bool] = True
    strategy: Strategy

    # What the two kinds do each in its own way.
    _exited: Callable[[Ref, ExitReason], Any]
    _restart_now: Callable[[_Child], Any]
    _restart_later: Callable[[_Child, float], Any]
    _start_child: Callable[[Any], Any]
    _terminate_child: Callable[[Any], Any]
    _restart_child: Callable[[Any], Any]
    _delete_child: Callable[[Any], Any]
    _get_child_spec: Callable[[Any], ChildSpec | ChildError]
    _which_children: Callable[[], list[ChildInfo]]
    _count_children: Callable[[], ChildCounts]
    children_seen: Callable[[int], tuple[list[ChildInfo], int]]

    def __init__(
        self,
        children: Sequence[ChildSpec],
        strategy: Strategy,
        intensity: int,
        period_seconds: float,
        auto_shutdown: AutoShutdown,
        max_zombies: int,
    ) -> None:
        if not isinstance(strategy, Strategy):
            raise ValueError(
                f"strategy must be a Strategy, not {strategy!r}; "
                "ONE_FOR_ONE, ONE_FOR_ALL, REST_FOR_ONE or SIMPLE_ONE_FOR_ONE"
            )
        self._window = RestartWindow(intensity, period_seconds)
        if isinstance(max_zombies, bool) or not isinstance(max_zombies, int) or max_zombies < 0:
            raise ValueError(f"max_zombies must be a whole number of killed children, 0 or more, not {max_zombies!r}")
        check_auto_shutdown(auto_shutdown)
        if strategy is Strategy.SIMPLE_ONE_FOR_ONE and auto_shutdown is not AutoShutdown.NEVER:
            raise ValueError(
                f"simple_one_for_one can't have auto_shutdown {auto_shutdown.name}: "
                "its children come and go on demand, and none of them is significant"
            )
        check_child_specs(children, auto_shutdown)
        self.strategy = strategy
        self._auto_shutdown = auto_shutdown
        self._max_zombies = max_zombies
        self._zombies: list[Ref] = []

    def _start(self, spec: ChildSpec, args: Sequence[Any] = ()) -> StartResult | Starting:
        try:
            result = spec.start(*args)
        except BaseException as error:
            return NotStarted(Crash(error))
        if isinstance(result, Started) and isinstance(result.ref, Ref):
            return result
        if isinstance(result, NotStarted) or result is IGNORE:
            return result
        is_starting = isinstance(result, Starting) and isinstance(result.ref, Ref)
        if is_starting and result.ref.process.parent is self._otp_process:
            return result
        wrong = TypeError(
            f"start of child {spec.id!r} must return what start_link() gave it, or Started(ref), NotStarted(reason) or "
            f"IGNORE; it returned something of type {type(result).__name__}"
        )
        return NotStarted(Crash(wrong))

    def _await_start(self, starting: Starting) -> Generator[Receive, Any, StartResult]:
        ref = starting.ref
        result = ref.process.start_result
        if result is None:  # else the message that says so is dropped when its turn comes
            finished = yield Receive(lambda message: type(message) is StartFinished and message.ref is ref)
            result = finished.result
        return result

    def _start_and_wait(self, spec: ChildSpec) -> Generator[Receive, Any, StartResult]:
        result = self._start(spec)
        if isinstance(result, NotStarted) and isinstance(result.reason, AlreadyStarted):
            orphan = result.reason.ref
            if is_orphaned(orphan.process) and not is_orphaned(self._otp_process):
                # It has the child's name, and ends because a supervisor above it was killed. It gets the time that the
                # spec gives a child to end; then it is killed, and counts as a child that was. (OTP would try again at
                # once, and may use up its restart intensity before the name is free.)
                yield from self._await_end(spec, orphan, self.monitor(orphan))
                self._note_zombie(orphan)
                result = self._start(spec)
        return (yield from self._await_start(result)) if isinstance(result, Starting) else result

    def _await_end(self, spec: ChildSpec, ref: Ref, monitor: int) -> Generator[Receive, Any, bool]:
        """Wait for the end of one that was told to end, as long as the spec says; then kill it. True: that was late."""
        ended = Receive(lambda message: type(message) is Down and message.monitor == monitor)
        was_late = False
        if spec.shutdown is not BRUTAL_KILL:
            was_late = (yield ReceiveNew(ended.matches, seconds_to_end(spec))) is None
            if not was_late:
                return False
        ref.kill()
        yield ended
        return was_late

    def _shut_down(self, spec: ChildSpec, ref: Ref) -> Generator[Receive, Any, None]:
        """Ask a child to end, wait as its spec says, then kill it; report an end that is none of these."""
        # Monitored, as in OTP: one that is not linked to its supervisor must not hold it up.
        monitor = self.monitor(ref)
        if spec.shutdown is not BRUTAL_KILL:
            ref.exit(SHUTDOWN)
        was_late = yield from self._await_end(spec, ref, monitor)
        reason = ref.process.exit_reason
        if not ended_as_told(spec, reason):
            note = f"it did not end within {seconds_to_end(spec)} s" if was_late else ""
            self._report("shutdown_error", spec, ref, reason, note)
        self._note_zombie(ref)

    def _note_zombie(self, ref: Ref) -> None:
        if ref.is_zombie:
            self._zombies.append(ref)

    def _too_many_zombies(self, spec: ChildSpec, ref: Ref | None) -> Stop | None:
        if len(self._zombies) <= self._max_zombies:
            return None
        self._zombies = [zombie for zombie in self._zombies if zombie.is_zombie]
        count = len(self._zombies)
        if count <= self._max_zombies:
            return None
        why = f"killed children that still run: {count} (allowed: {self._max_zombies})"
        self._report("shutdown", spec, ref, why)
        return Stop(Shutdown(why))

    def _answer_unless_too_many_zombies(self, spec: ChildSpec, ref: Ref | None, answer: object) -> object:
        give_up = self._too_many_zombies(spec, ref)
        return answer if give_up is None else Stop(give_up.reason, reply=answer)

    # --- what comes in ---

    def handle_call(self, request: Any, from_: From) -> Any:
        if type(request) is StartChild:  # the one that comes very often
            return self._start_child(request.spec_or_args)
        match request:
            case TerminateChild(child_id):
                return self._terminate_child(child_id)
            case RestartChild(child_id):
                return self._restart_child(child_id)
            case DeleteChild(child_id):
                return self._delete_child(child_id)
            case GetChildSpec(child_id):
                return self._get_child_spec(child_id)
            case WhichChildren():
                return self._which_children()
            case CountChildren():
                return self._count_children()
        return super().handle_call(request, from_)

    def handle_info(self, message: Any) -> Any:
        kind = type(message)
        if kind is Exit:
            return self._exited(message.ref, message.reason)
        if kind is _Retry:
            child = message.child
            if child.retry is not message:
                return None
            if message.is_delayed:
                return self._restart_now(child)
            return self._carry_out(self._count_restart(child), child, child.ended)
        # A start whose result was there before this message needs no second one.
        return None if kind is StartFinished else super().handle_info(message)

    def _carry_out(self, plan: RestartPlan, child: _Child, ref: Ref | None) -> Any:
        if not plan.allowed:
            child.clear()
            self._report("shutdown", child.spec, ref, "reached_max_restart_intensity", plan.note)
            return Stop(SHUTDOWN)
        if plan.delay_seconds is None:
            return self._restart_now(child)
        return self._restart_later(child, plan.delay_seconds)

    def _retry_after(self, child: _Child, delay_seconds: float) -> None:
        child.retry = _Retry(child, is_delayed=True)
        child.timer = self.send_after(delay_seconds, child.retry)

    def _start_failed(self, child: _Child, result: NotStarted) -> Any:
        """Count one more restart; without a ``Backoff`` it is tried again behind what is in the mailbox."""
        self._report("start_error", child.spec, None, result.reason)
        if child.streak is not None:
            return self._carry_out(self._count_restart(child), child, child.ended)
        child.retry = _Retry(child, is_delayed=False)
        self.ref.send(child.retry)
        return None

    def _count_restart(self, child: _Child) -> RestartPlan:
        now, backoff, streak = self.clock.monotonic(), child.spec.backoff, child.streak
        if backoff is not None and streak is not None:
            delay_seconds = streak.count_restart(backoff, now)
            if delay_seconds is None:
                return RestartPlan(False, None, f"restarted {streak.restarts} times in a row")
            return RestartPlan(True, delay_seconds, f"restart {streak.restarts} in a row, in {delay_seconds:g} s")
        self._window, allowed = self._window.add(now)
        window = self._window
        limits = f"{window.intensity} allowed in {window.period_seconds:g} s"
        return RestartPlan(allowed, None, f"restart {len(window.restarts)}, {limits}")

    def _report(
        self,
        context: Context,
        spec: ChildSpec,
        child: Ref | None,
        reason: object,
        note: str = "",
        *,
        children: int = 1,
        level: int = logging.ERROR,
    ) -> None:
        if is_wanted(self.ref, level):
            offender, restarts = describe_child(spec, child), len(self._window.restarts)
            why = describe_reason(reason)
            report = SupervisorReport(describe(self.ref), context, why, offender, children, restarts, note)
            publish(self.ref, level, report)

    def _report_termination(self, spec: ChildSpec, ref: Ref, reason: ExitReason, plan: RestartPlan | None) -> None:
        note = "it is temporary and not restarted" if plan is None else plan.note
        level = logging.WARNING if plan is not None and plan.allowed else logging.ERROR
        self._report("child_terminated", spec, ref, reason, note, level=level)


def ended_as_told(spec: ChildSpec, reason: ExitReason | None) -> bool:
    """Tell whether the end of a child that was told to end needs no report (OTP: ``shutdown/1`` of ``supervisor``)."""
    if type(reason) is Killed:
        return spec.shutdown is BRUTAL_KILL
    if isinstance(reason, Shutdown) and reason.term is None and spec.shutdown is not BRUTAL_KILL:
        return True
    return isinstance(reason, Normal | Shutdown) and spec.restart is not Restart.PERMANENT


# --- a fixed list of children ---


class Supervisor(SupervisorBase):
    """A list of children; see ``supervisor_spec`` and ``SupervisorBase``."""

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
        return self._which_children(), 0

    def init(self) -> Receiving:
        """Start the children, first to last; if one fails, stop those that run and fail as well."""
        for child in list(self._children.values()):
            result = yield from self._start_one(child)
            if isinstance(result, NotStarted):
                self._report("start_error", child.spec, None, result.reason)
                give_up: Stop | None = Stop(Shutdown(FailedToStartChild(child.spec.id, result.reason)))
            else:
                give_up = self._too_many_zombies(child.spec, None)
            if give_up is not None:
                yield from self._stop_children(list(self._children))
                return give_up
        return None

    def terminate(self, reason: ExitReason) -> Receiving:
        yield from self._stop_children(list(self._children))

    def _start_one(self, child: _Child) -> Receiving:
        result = yield from self._start_and_wait(child.spec)
        if isinstance(result, Started):
            child.ref = result.ref
            self._running[result.ref] = child
            if child.streak is not None:
                child.streak.started(self.clock.monotonic())
            if is_wanted(self.ref, logging.DEBUG):
                report = ProgressReport(describe(self.ref), describe_child(child.spec, result.ref))
                publish(self.ref, logging.DEBUG, report)
        elif result is IGNORE and child.spec.restart is Restart.TEMPORARY:
            self._children.pop(child.spec.id, None)
        return result

    def _clear(self, child: _Child) -> None:
        if child.ref is not None:
            self._running.pop(child.ref, None)
        child.clear()

    def _stop_children(self, ids: Sequence[Hashable]) -> Receiving:
        for child_id in reversed(ids):
            child = self._children[child_id]
            ref = child.ref
            self._clear(child)
            if ref is not None:
                yield from self._shut_down(child.spec, ref)
            if child.spec.restart is Restart.TEMPORARY:
                del self._children[child_id]

    def _exited(self, ref: Ref, reason: ExitReason) -> Any:
        child = self._running.get(ref)
        if child is None:
            return None
        self._clear(child)
        self._note_zombie(ref)
        spec, orderly = child.spec, is_orderly(reason)
        if spec.restart is Restart.PERMANENT or (spec.restart is Restart.TRANSIENT and not orderly):
            plan = self._count_restart(child)
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
        waiting = [id_ for id_, child in self._children.items() if child.retry is not None and child.retry.is_delayed]
        due = {member for id_ in waiting for member in restart_group(self.strategy, self._children, id_)}
        return any(
            child.spec.significant and (child.state is not None or id_ in due) for id_, child in self._children.items()
        )

    def _restart_now(self, child: _Child) -> Receiving:
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

    def _restart_later(self, child: _Child, delay_seconds: float) -> Receiving:
        yield from self._stop_children(restart_group(self.strategy, self._children, child.spec.id))
        self._retry_after(child, delay_seconds)
        return self._too_many_zombies(child.spec, None)

    def _start_child(self, spec: Any) -> Any:
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

    def _restart_child(self, child_id: Hashable) -> Any:
        child = self._children.get(child_id)
        return self._start_added(child) if child is not None and child.state is None else self._why_not_at_rest(child)

    def _terminate_child(self, child_id: Hashable) -> Receiving:
        child = self._children.get(child_id)
        if child is None:
            return ChildError.NOT_FOUND
        ref = child.ref
        yield from self._stop_children([child.spec.id])
        child.begin_anew()
        return self._answer_unless_too_many_zombies(child.spec, ref, None)

    def _delete_child(self, child_id: Hashable) -> ChildError | None:
        child = self._children.get(child_id)
        if child is None or child.state is not None:
            return self._why_not_at_rest(child)
        del self._children[child_id]
        return None

    @staticmethod
    def _why_not_at_rest(child: _Child | None) -> ChildError:
        if child is None:
            return ChildError.NOT_FOUND
        return ChildError.RUNNING if child.retry is None else ChildError.RESTARTING

    def _get_child_spec(self, child_id: Hashable) -> ChildSpec | ChildError:
        child = self._children.get(child_id)
        return ChildError.NOT_FOUND if child is None else child.spec

    def _which_children(self) -> list[ChildInfo]:
        return [ChildInfo(id_, child.state, child.spec.type) for id_, child in list(self._children.items())]

    def _count_children(self) -> ChildCounts:
        children = self._children.values()
        supervisors = sum(child.spec.type is ChildType.SUPERVISOR for child in children)
        active = sum(child.ref is not None and not child.ref.process.is_set() for child in children)
        return ChildCounts(len(children), active, supervisors, len(children) - supervisors)


# --- simple_one_for_one ---

_FORGOTTEN: Final = ((), None)


class SimpleOneForOneSupervisor(SupervisorBase):
    """Any number of children made from one spec, on demand; see ``supervisor_spec`` and ``SupervisorBase``.

    Starting or ending a child costs the same however many there are, and all are shut down at once.
    """

    def __init__(
        self,
        spec: ChildSpec,
        *,
        intensity: int = 1,
        period_seconds: float = 5.0,
        auto_shutdown: AutoShutdown = AutoShutdown.NEVER,
        max_zombies: int = 10,
    ) -> None:
        super().__init__([spec], Strategy.SIMPLE_ONE_FOR_ONE, intensity, period_seconds, auto_shutdown, max_zombies)
        self._spec = spec
        # Its arguments and its streak. A temporary child is never started again: nothing of it need be kept.
        self._children: dict[Ref, tuple[Sequence[Any], Streak | None]] = {}
        self._restarting: dict[Ref, _Child] = {}  # by the ref of the child that ended

    def children_seen(self, max_on_demand: int) -> tuple[list[ChildInfo], int]:
        spec, running = self._spec, list(self._children)
        left_out = max(0, len(running) - max_on_demand) + len(self._restarting)
        return [ChildInfo(spec.id, ref, spec.type) for ref in running[:max_on_demand]], left_out

    def terminate(self, reason: ExitReason) -> Receiving:
        for waiting in self._restarting.values():
            waiting.clear()
        spec, monitors = self._spec, {}
        for ref in self._children:
            monitors[self.monitor(ref)] = ref
            if spec.shutdown is BRUTAL_KILL:
                ref.kill()
            else:
                ref.exit(SHUTDOWN)
        if not monitors:
            return
        time_is_up = object()
        limit_seconds = seconds_to_end(spec)
        timer = self.send_after(limit_seconds, time_is_up) if limit_seconds else None
        if limit_seconds == 0:  # once the mailbox has been looked through, as for the children of other supervisors
            self._otp_process.put(Envelope(time_is_up))
        # What was passed over (an Exit for each child) is not looked at again.
        ended = ReceiveMore(
            lambda message: message is time_is_up or (type(message) is Down and message.monitor in monitors)
        )
        unexpected: Counter[str] = Counter()
        while monitors:
            message = yield ended
            if message is time_is_up:
                for ref in monitors.values():
                    ref.kill()
                continue
            ended_for = monitors.pop(message.monitor).process.exit_reason
            if not ended_as_told(spec, ended_for):
                unexpected[describe_reason(ended_for)] += 1
        if timer is not None:
            timer.cancel()
        for why, count in unexpected.items():
            note = "" if limit_seconds is None else f"they had {limit_seconds} s to end"
            self._report("shutdown_error", spec, None, why, note, children=count)

    def _exited(self, ref: Ref, reason: ExitReason) -> Any:
        known = self._children.pop(ref, None)
        if known is None:
            return None
        spec = self._spec
        self._note_zombie(ref)
        if is_orderly(reason) and spec.restart is not Restart.PERMANENT:
            return self._too_many_zombies(spec, ref)
        if spec.restart is Restart.TEMPORARY:
            self._report_termination(spec, ref, reason, None)
            return self._too_many_zombies(spec, ref)
        args, streak = known
        child = self._restarting[ref] = _Child(spec, args, ref)
        child.streak = streak
        plan = self._count_restart(child)
        self._report_termination(spec, ref, reason, plan)
        return self._too_many_zombies(spec, ref) or self._carry_out(plan, child, ref)

    def _otp_takes_exit(self, ref: Ref, reason: ExitReason) -> bool:
        """Forget a child whose end has no consequences, on its own last turn: no message, no turn of the supervisor.

        Signals of different senders have no order, so this is as if its ``Exit`` had overtaken all that waits. It is
        done only on the supervisor's own thread, while none of its callbacks runs, ``sys`` watches nothing, and no
        subclass looks at its messages.
        """
        process = self._otp_process
        running = process._scheduler.running
        if (
            self._spec.restart is Restart.PERMANENT
            or not is_orderly(reason)
            or process.state is not RUNNING
            or process.observed
            or context.running is not running
            or running.is_inside(process)
            or ref.is_zombie
            or type(self).handle_info is not SupervisorBase.handle_info
        ):
            return False
        return self._children.pop(ref, None) is not None

    _restart_later = SupervisorBase._retry_after

    def _restart_now(self, child: _Child) -> Receiving:
        result = self._start(self._spec, child.args)
        if isinstance(result, Starting):
            result = yield from self._await_start(result)
        if isinstance(result, NotStarted):
            return self._start_failed(child, result)
        assert child.ended is not None
        del self._restarting[child.ended]
        self._add(result, child.args, child.streak)
        return None

    def _start_child(self, args: Any) -> Any:
        if not isinstance(args, (tuple, list)):
            error = TypeError(f"start_child of simple_one_for_one takes arguments, not {type(args).__name__}")
            return NotStarted(Crash(error))
        result = self._start(self._spec, args)
        return self._add_when_started(result, args) if isinstance(result, Starting) else self._add(result, args)

    def start_here(self, args: Sequence[Any]) -> StartResult:
        """Start a child in the middle of the turn of the pooled actor that asks for it: one thread runs both."""
        process = self._otp_process
        running = context.running
        if process.state is not RUNNING or process.is_suspended or running.is_inside(process):
            return NotStarted(NO_PROCESS)
        running.enter(process)
        try:
            result = self._start(self._spec, args)
        finally:
            running.leave()
        if isinstance(result, Starting):
            result.ref.kill()
            return NotStarted(Crash(RuntimeError("its init waits, and a pooled actor must not wait for it")))
        return self._add(result, args)

    def _add_when_started(self, starting: Starting, args: Sequence[Any]) -> Receiving:
        result = yield from self._await_start(starting)
        return self._add(result, args)

    def _add(self, result: StartResult, args: Sequence[Any], streak: Streak | None = None) -> StartResult:
        if isinstance(result, Started):
            spec = self._spec
            if spec.backoff is not None:
                streak = streak or Streak()
                streak.started(self.clock.monotonic())
            self._children[result.ref] = _FORGOTTEN if spec.restart is Restart.TEMPORARY else (args, streak)
        return result

    def _knows(self, ref: Ref) -> bool:
        """Tell whether it is or was a child; one that has ended passes, as its supervisor is no longer known (OTP)."""
        return ref in self._children or ref in self._restarting or ref.process.is_set()

    def _terminate_child(self, ref: Hashable) -> Receiving:
        if not isinstance(ref, Ref):
            return ChildError.SIMPLE_ONE_FOR_ONE
        if not self._knows(ref):
            return ChildError.NOT_FOUND
        waiting = self._restarting.pop(ref, None)
        if waiting is not None:
            waiting.clear()
        if self._children.pop(ref, None) is None:
            return None
        yield from self._shut_down(self._spec, ref)
        return self._answer_unless_too_many_zombies(self._spec, ref, None)

    def _restart_child(self, _child_id: Hashable) -> ChildError:
        return ChildError.SIMPLE_ONE_FOR_ONE

    _delete_child = _restart_child

    def _get_child_spec(self, id_or_ref: Hashable) -> ChildSpec | ChildError:
        known = self._knows(id_or_ref) if isinstance(id_or_ref, Ref) else id_or_ref == self._spec.id
        return self._spec if known else ChildError.NOT_FOUND

    def _which_children(self) -> list[ChildInfo]:
        type_ = self._spec.type
        return [
            *(ChildInfo(None, ref, type_) for ref in self._children),
            *(ChildInfo(None, "restarting", type_) for _ in self._restarting),
        ]

    def _count_children(self) -> ChildCounts:
        total = len(self._children) + len(self._restarting)
        is_supervisor = self._spec.type is ChildType.SUPERVISOR
        return ChildCounts(1, len(self._children), total if is_supervisor else 0, 0 if is_supervisor else total)


# --- a supervisor as a child ---


def supervisor_spec(
    id: Hashable,
    strategy: Strategy,
    children: Sequence[ChildSpec],
    *,
    intensity: int = 1,
    period_seconds: float = 5.0,
    restart: Restart = Restart.PERMANENT,
    auto_shutdown: AutoShutdown = AutoShutdown.NEVER,
    max_zombies: int = 10,
    significant: bool = False,
) -> ChildSpec:
    """Describe a supervisor as a child, registered under its id.

    Args:
        id: its id, and its name in the actor system.
        strategy: which siblings a restart takes along; ``SIMPLE_ONE_FOR_ONE`` takes exactly one spec.
        children: their specs, in start order.
        intensity: restarts allowed within ``period_seconds``; one more ends the supervisor.
        period_seconds: see ``intensity``.
        restart: when its own supervisor starts it again.
        auto_shutdown: whether it ends with its significant children; ``SIMPLE_ONE_FOR_ONE`` can't.
        max_zombies: killed children whose threads may still be busy; one more ends the supervisor.
        significant: whether its end counts for its own supervisor's ``auto_shutdown``.

    Raises:
        ValueError: what is given makes no supervisor.
    """
    options: dict[str, Any] = {
        "intensity": intensity,
        "period_seconds": period_seconds,
        "auto_shutdown": auto_shutdown,
        "max_zombies": max_zombies,
    }
    try:
        check_child_specs(children, auto_shutdown)
        if strategy is not Strategy.SIMPLE_ONE_FOR_ONE:
            start = Start(Supervisor, tuple(children), strategy=strategy, name=id, **options)
        elif len(children) == 1:
            start = Start(SimpleOneForOneSupervisor, children[0], name=id, **options)
        else:
            raise ValueError(f"simple_one_for_one takes exactly one child spec, not {len(children)}")
        start.actor_class(*start.args, **start.kwargs)  # what is wrong is said before anything has started
    except ValueError as error:
        raise ValueError(f"supervisor {id!r}: {error}") from None
    return ChildSpec(id, start, restart, INFINITY, ChildType.SUPERVISOR, significant)


# --- the functions of Erlang's module; they block: pooled actors send the requests with ``send_request`` ---


def start_child(supervisor: Ref, spec_or_args: ChildSpec | Sequence[Any], timeout: float | None = None) -> StartAnswer:
    """Start a child (``supervisor:start_child/2``).

    For simple_one_for_one the second argument is a list or tuple of arguments to append to its spec's. A pooled actor
    may ask such a supervisor too: the child is started on the spot, and nothing waits.

    Returns:
        ``Started(ref)``; ``IGNORE`` (the spec is kept, unless the child is temporary or the supervisor
        simple_one_for_one); ``NotStarted(reason)`` (the spec is not kept), with ``AlreadyStarted(ref)`` if the id runs
        already; ``ChildError.ALREADY_PRESENT`` if the id is known but its child does not run.
    """
    if issubclass(supervisor.actor_class, SimpleOneForOneSupervisor) and supervisor.process._scheduler.is_current():
        assert not isinstance(spec_or_args, ChildSpec)
        actor = supervisor.process.actor
        if not isinstance(actor, SimpleOneForOneSupervisor):
            return NotStarted(NO_PROCESS)  # it has ended
        return actor.start_here(spec_or_args)
    answer: StartAnswer = supervisor.call(StartChild(spec_or_args), timeout)
    return answer


def terminate_child(supervisor: Ref, child_id: Hashable, timeout: float | None = None) -> ChildError | None:
    """Stop a child; its spec stays known unless it is temporary (``supervisor:terminate_child/2``).

    A simple_one_for_one supervisor takes the child's ref (a child that has ended is no error), and answers an id with
    ``ChildError.SIMPLE_ONE_FOR_ONE``. Otherwise the only error is ``NOT_FOUND``.
    """
    answer: ChildError | None = supervisor.call(TerminateChild(child_id), timeout)
    return answer


def restart_child(supervisor: Ref, child_id: Hashable, timeout: float | None = None) -> StartAnswer:
    """Start a child again that was terminated (``supervisor:restart_child/2``).

    Errors are ``RUNNING``, ``RESTARTING``, ``NOT_FOUND``, ``SIMPLE_ONE_FOR_ONE``; a start that fails changes nothing.
    """
    answer: StartAnswer = supervisor.call(RestartChild(child_id), timeout)
    return answer


def delete_child(supervisor: Ref, child_id: Hashable, timeout: float | None = None) -> ChildError | None:
    """Forget a child that does not run (``supervisor:delete_child/2``); errors as for ``restart_child``."""
    answer: ChildError | None = supervisor.call(DeleteChild(child_id), timeout)
    return answer


def get_child_spec(supervisor: Ref, id_or_ref: Hashable, timeout: float | None = None) -> ChildSpec | ChildError:
    """Return a child's spec, or ``ChildError.NOT_FOUND`` (``supervisor:get_childspec/2``).

    By id; for simple_one_for_one, whose children share one spec, by a child's ref as well.
    """
    answer: ChildSpec | ChildError = supervisor.call(GetChildSpec(id_or_ref), timeout)
    return answer


def which_children(supervisor: Ref, timeout: float | None = None) -> list[ChildInfo]:
    """List the children in start order (``supervisor:which_children/1``, which lists them the other way round)."""
    answer: list[ChildInfo] = supervisor.call(WhichChildren(), timeout)
    return answer


def count_children(supervisor: Ref, timeout: float | None = None) -> ChildCounts:
    """Count the children (``supervisor:count_children/1``)."""
    answer: ChildCounts = supervisor.call(CountChildren(), timeout)
    return answer
