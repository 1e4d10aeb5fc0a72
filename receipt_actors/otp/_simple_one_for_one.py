"""``SimpleOneForOneSupervisor``: any number of children made from one spec, on demand.

Made for very many short-lived children: starting or ending one costs the same however many there are, and all are shut
down at once. Its rules are those of OTP's simple_one_for_one; see ``_supervisor`` for what all supervisors share.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from receipt_actors.otp._calls import From
from receipt_actors.otp._child_spec import BRUTAL_KILL, ChildSpec, ChildType, Restart
from receipt_actors.otp._messages import Exit, NotStarted, Receive, Receiving, Started, Starting, StartResult, Stop
from receipt_actors.otp._reasons import SHUTDOWN, Crash, ExitReason, is_orderly
from receipt_actors.otp._ref import Ref
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
    logger,
)


@dataclass(frozen=True, slots=True)
class _TryAgain:
    """To itself: the restart of the child that ``ended`` failed; try once more."""

    ended: Ref


class SimpleOneForOneSupervisor(SupervisorBase):
    """See the module and ``supervisor_spec``."""

    def __init__(self, spec: ChildSpec, *, intensity: int = 1, period_seconds: float = 5.0) -> None:
        super().__init__(intensity, period_seconds)
        self._spec = spec
        # A temporary child is never started again, so its arguments need not be kept.
        self._keeps_args = spec.restart is not Restart.TEMPORARY
        self._children: dict[Ref, Sequence[Any]] = {}
        self._restarting: dict[Ref, Sequence[Any]] = {}  # by the ref of the child that ended

    def terminate(self, reason: ExitReason) -> Receiving:
        """End all children at once and wait for them together, as long as the spec allows."""
        shutdown = self._spec.shutdown
        living = set(self._children)
        for ref in self._children:
            if shutdown is BRUTAL_KILL:
                ref.kill()
            else:
                ref.exit(SHUTDOWN)
        deadline = self.clock.monotonic() + shutdown if isinstance(shutdown, int | float) else None
        ended = Receive(lambda message: isinstance(message, Exit) and message.ref in living)
        while living:
            if deadline is not None:
                ended = Receive(ended.matches, max(0.0, deadline - self.clock.monotonic()))
            message = yield ended
            if message is not None:
                living.discard(message.ref)
                continue
            logger.error("%s kills %d children that did not end within %s s", self.ref, len(living), shutdown)
            for ref in living:
                ref.kill()
            deadline = None
            ended = Receive(ended.matches)

    # --- a child ended ---

    def handle_info(self, message: Any) -> Any:
        """Restart a child that ended, as the spec says."""
        if not isinstance(message, Exit):
            return super().handle_info(message)
        args = self._children.pop(message.ref, None)
        restart = self._spec.restart
        if args is None or restart is Restart.TEMPORARY:
            return None
        if restart is Restart.TRANSIENT and is_orderly(message.reason):
            return None
        return self._restart(message.ref, args, message.reason)

    def _restart(self, ended: Ref, args: Sequence[Any], reason: ExitReason | str) -> Receiving:
        if not self._restart_allowed(self._spec.id, reason):
            return Stop(SHUTDOWN)
        result = yield from self._start_with(args)
        if isinstance(result, NotStarted):
            self._restarting[ended] = args
            self.ref.cast(_TryAgain(ended))
        return None

    def handle_cast(self, request: Any) -> Any:
        """Try a failed restart again."""
        if isinstance(request, _TryAgain):
            args = self._restarting.pop(request.ended, None)
            return None if args is None else self._restart(request.ended, args, "it failed to start")
        return super().handle_cast(request)

    # --- requests ---

    def handle_call(self, request: Any, from_: From) -> Any:
        """Answer the functions of Erlang's ``supervisor`` module, with its differences for simple_one_for_one."""
        match request:
            case StartChild(Sequence() as args):
                result = self._start(self._spec, args)
                return self._finish_start(result, args) if isinstance(result, Starting) else self._add(result, args)
            case StartChild(wrong):
                error = TypeError(f"start_child of simple_one_for_one takes arguments, not {type(wrong).__name__}")
                return NotStarted(Crash(error))
            case TerminateChild(ref):
                return self._terminate_child(ref)
            case RestartChild() | DeleteChild():
                return ChildError.SIMPLE_ONE_FOR_ONE
            case WhichChildren():
                type_ = self._spec.type
                return [
                    *(ChildInfo(None, ref, type_) for ref in self._children),
                    *(ChildInfo(None, "restarting", type_) for _ in self._restarting),
                ]
            case CountChildren():
                known = len(self._children) + len(self._restarting)
                is_supervisor = self._spec.type is ChildType.SUPERVISOR
                return ChildCounts(1, len(self._children), known if is_supervisor else 0, 0 if is_supervisor else known)
        return super().handle_call(request, from_)

    def _start_with(self, args: Sequence[Any]) -> Receiving:
        result = self._start(self._spec, args)
        if isinstance(result, Starting):
            result = yield from self._await_start(result)
        return self._add(result, args)

    def _finish_start(self, starting: Starting, args: Sequence[Any]) -> Receiving:
        return self._add((yield from self._await_start(starting)), args)

    def _add(self, result: StartResult, args: Sequence[Any]) -> StartResult:
        if isinstance(result, Started):
            self._children[result.ref] = args if self._keeps_args else ()
        return result

    def _terminate_child(self, ref: Any) -> Any:
        if ref not in self._children:
            return ChildError.NOT_FOUND
        del self._children[ref]
        return self._shut_down(ref, self._spec.shutdown)
