"""``SimpleOneForOneSupervisor``: any number of children made from one spec, on demand.

Made for very many short-lived children: starting or ending one costs the same however many there are, and all are shut
down at once. Its rules are those of OTP's simple_one_for_one; see ``_supervision`` for what all supervisors share.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pykka._envelope import Envelope

from receipt_actors.otp._backoff import Streak
from receipt_actors.otp._calls import From
from receipt_actors.otp._child_spec import BRUTAL_KILL, AutoShutdown, ChildSpec, ChildType, Restart, Strategy
from receipt_actors.otp._clock import Timer
from receipt_actors.otp._messages import (
    Down,
    Exit,
    NotStarted,
    ReceiveMore,
    Receiving,
    Started,
    StartFinished,
    Starting,
    StartResult,
    Stop,
)
from receipt_actors.otp._reasons import SHUTDOWN, Crash, ExitReason, is_orderly
from receipt_actors.otp._ref import Ref
from receipt_actors.otp._reports import ReportContext, describe_reason
from receipt_actors.otp._supervision import RestartPlan, SupervisorBase, ended_as_told, seconds_to_end
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
class _RestartDue:
    """To itself: the restart of the child that ``ended`` failed, or its ``Backoff`` is over; try (once more)."""

    ended: Ref


class _TimeIsUp:
    """To itself: who has not ended by now is killed."""


class _Restarting:
    """A child between its end and its next start."""

    __slots__ = ("args", "streak", "timer")

    def __init__(self, args: Sequence[Any], streak: Streak | None, timer: Timer | None = None) -> None:
        self.args = args
        self.streak = streak
        self.timer = timer

    def cancel(self) -> None:
        if self.timer is not None:
            self.timer.cancel()


class SimpleOneForOneSupervisor(SupervisorBase):
    """See the module, ``supervisor_spec`` and ``SupervisorBase``."""

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
        # A temporary child is never started again, so its arguments need not be kept.
        self._keeps_args = spec.restart is not Restart.TEMPORARY
        self._children: dict[Ref, Sequence[Any]] = {}
        self._restarting: dict[Ref, _Restarting] = {}  # by the ref of the child that ended
        self._streaks: dict[Ref, Streak] = {}  # of the children that run; empty without a backoff

    def children_seen(self, max_on_demand: int) -> tuple[list[ChildInfo], int]:
        """See ``SupervisorBase``; the oldest of those that run."""
        spec, running = self._spec, list(self._children)
        left_out = max(0, len(running) - max_on_demand) + len(self._restarting)
        return [ChildInfo(spec.id, ref, spec.type) for ref in running[:max_on_demand]], left_out

    # --- shutting down ---

    def terminate(self, reason: ExitReason) -> Receiving:
        """End all children at once and wait for them together, as long as the spec allows."""
        for waiting in self._restarting.values():
            waiting.cancel()
        spec, monitors = self._spec, {}
        for ref in self._children:
            monitors[self.monitor(ref)] = ref
            if spec.shutdown is BRUTAL_KILL:
                ref.kill()
            else:
                ref.exit(SHUTDOWN)
        if not monitors:
            return
        time_is_up = _TimeIsUp()
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
            self._report(ReportContext.SHUTDOWN_ERROR, spec, None, why, note, children=count)

    # --- a child ended ---

    def handle_info(self, message: Any) -> Any:
        """Restart a child that ended, as the spec says."""
        if type(message) is not Exit:
            if type(message) is _RestartDue:
                return self._try_again(message.ended)
            # A start whose result was there before this message needs no second one.
            return None if type(message) is StartFinished else super().handle_info(message)
        ref, reason = message.ref, message.reason
        args = self._children.pop(ref, None)
        if args is None:
            return None
        orderly = is_orderly(reason)
        if orderly and self._spec.restart is not Restart.PERMANENT:
            if self._streaks:
                self._streaks.pop(ref, None)
            if not ref.is_zombie:
                return None
            self._note_zombie(ref)
            return self._too_many_zombies(self._spec, ref)
        return self._failed(ref, args, reason)

    def _failed(self, ref: Ref, args: Sequence[Any], reason: ExitReason) -> Any:
        spec = self._spec
        self._note_zombie(ref)
        if spec.restart is Restart.TEMPORARY:
            self._report_termination(spec, ref, reason, None)
            return self._too_many_zombies(spec, ref)
        waiting = _Restarting(args, self._streaks.pop(ref, None))
        plan = self._count_restart(spec, waiting.streak)
        self._report_termination(spec, ref, reason, plan)
        return self._too_many_zombies(spec, ref) or self._carry_out(plan, ref, waiting)

    # --- restarting ---

    def _carry_out(self, plan: RestartPlan, ended: Ref, waiting: _Restarting) -> Any:
        if not plan.allowed:
            return self._give_up(self._spec, ended, plan)
        if plan.delay_seconds is not None:
            waiting.timer = self.send_after(plan.delay_seconds, _RestartDue(ended))
            self._restarting[ended] = waiting
            return None
        return self._restart(ended, waiting)

    def _restart(self, ended: Ref, waiting: _Restarting) -> Any:
        result = self._start(self._spec, waiting.args)
        if isinstance(result, Starting):
            return self._finish_restart(result, ended, waiting)
        return self._restarted(result, ended, waiting)

    def _finish_restart(self, starting: Starting, ended: Ref, waiting: _Restarting) -> Receiving:
        result = yield from self._await_start(starting)
        return self._restarted(result, ended, waiting)

    def _restarted(self, result: StartResult, ended: Ref, waiting: _Restarting) -> Stop | None:
        self._add(result, waiting.args, waiting.streak)
        if not isinstance(result, NotStarted):
            return None
        self._report(ReportContext.START_ERROR, self._spec, None, result.reason)
        if waiting.streak is not None:
            outcome: Stop | None = self._carry_out(self._count_restart(self._spec, waiting.streak), ended, waiting)
            return outcome
        self._restarting[ended] = waiting
        self.ref.cast(_RestartDue(ended))
        return None

    def handle_cast(self, request: Any) -> Any:
        """Try a failed restart again."""
        return self._try_again(request.ended) if type(request) is _RestartDue else super().handle_cast(request)

    def _try_again(self, ended: Ref) -> Any:
        waiting = self._restarting.pop(ended, None)
        if waiting is None:  # terminate_child came first
            return None
        if waiting.timer is not None:  # it has been counted, and has waited
            return self._restart(ended, waiting)
        return self._carry_out(self._count_restart(self._spec, waiting.streak), ended, waiting)

    # --- requests ---

    def handle_call(self, request: Any, from_: From) -> Any:
        """Answer the functions of Erlang's ``supervisor`` module, with its differences for simple_one_for_one."""
        if type(request) is StartChild:
            return self._start_child(request.spec_or_args)
        match request:
            case TerminateChild(ref):
                return self._terminate_child(ref) if isinstance(ref, Ref) else ChildError.SIMPLE_ONE_FOR_ONE
            case RestartChild() | DeleteChild():
                return ChildError.SIMPLE_ONE_FOR_ONE
            case GetChildSpec(id_or_ref):
                known = self._knows(id_or_ref) if isinstance(id_or_ref, Ref) else id_or_ref == self._spec.id
                return self._spec if known else ChildError.NOT_FOUND
            case WhichChildren():
                type_ = self._spec.type
                return [
                    *(ChildInfo(None, ref, type_) for ref in self._children),
                    *(ChildInfo(None, "restarting", type_) for _ in self._restarting),
                ]
            case CountChildren():
                total = len(self._children) + len(self._restarting)
                is_supervisor = self._spec.type is ChildType.SUPERVISOR
                return ChildCounts(1, len(self._children), total if is_supervisor else 0, 0 if is_supervisor else total)
        return super().handle_call(request, from_)

    def _start_child(self, args: Any) -> Any:
        if not isinstance(args, (tuple, list)):
            error = TypeError(f"start_child of simple_one_for_one takes arguments, not {type(args).__name__}")
            return NotStarted(Crash(error))
        result = self._start(self._spec, args)
        return self._add_when_started(result, args) if isinstance(result, Starting) else self._add(result, args)

    def _add_when_started(self, starting: Starting, args: Sequence[Any]) -> Receiving:
        result = yield from self._await_start(starting)
        return self._add(result, args)

    def _add(self, result: StartResult, args: Sequence[Any], streak: Streak | None = None) -> StartResult:
        if isinstance(result, Started):
            ref = result.ref
            self._children[ref] = args if self._keeps_args else ()
            if self._spec.backoff is not None:
                streak = self._streaks[ref] = streak or Streak()
                streak.started(self.clock.monotonic())
        return result

    def _knows(self, ref: Ref) -> bool:
        """Tell whether it is or was a child; of one that has ended nobody can say whose it was, so it passes (OTP)."""
        return ref in self._children or ref in self._restarting or ref.process.is_set()

    def _terminate_child(self, ref: Ref) -> Any:
        if not self._knows(ref):
            return ChildError.NOT_FOUND
        waiting = self._restarting.pop(ref, None)
        if waiting is not None:
            waiting.cancel()
        self._streaks.pop(ref, None)
        return self._stop_child(ref) if self._children.pop(ref, None) is not None else None

    def _stop_child(self, ref: Ref) -> Receiving:
        yield from self._shut_down(self._spec, ref)
        return self._answer_unless_too_many_zombies(self._spec, ref, None)
