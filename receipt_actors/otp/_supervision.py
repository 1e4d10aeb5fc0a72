"""What both kinds of supervisor share: starting a child, stopping a child, counting restarts and zombies, reporting."""

from __future__ import annotations

import logging
from abc import abstractmethod
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from receipt_actors.otp._backoff import Streak
from receipt_actors.otp._child_spec import (
    BRUTAL_KILL,
    AutoShutdown,
    ChildSpec,
    Restart,
    Strategy,
    check_auto_shutdown,
    check_child_specs,
)
from receipt_actors.otp._gen_server import GenServer
from receipt_actors.otp._messages import (
    IGNORE,
    AlreadyStarted,
    Down,
    NotStarted,
    Receive,
    ReceiveNew,
    Started,
    StartFinished,
    Starting,
    StartResult,
    Stop,
)
from receipt_actors.otp._reasons import SHUTDOWN, Crash, ExitReason, Killed, Normal, Shutdown
from receipt_actors.otp._ref import Ref
from receipt_actors.otp._reports import ReportContext, report_supervisor
from receipt_actors.otp._restart_window import RestartWindow
from receipt_actors.otp._supervisor_functions import ChildInfo

if TYPE_CHECKING:
    from receipt_actors.otp._process import Process


@dataclass(frozen=True, slots=True)
class RestartPlan:
    """What is to become of a child that should be restarted."""

    allowed: bool  #: False: the supervisor gives up
    delay_seconds: float | None  #: None: at once
    note: str  #: the same for a report


def is_orphaned(process: Process) -> bool:
    """Tell whether a process is bound to end because a supervisor above it was killed.

    Its own was, or its own is still there and bound to end for this reason, and then ends it.
    """
    while not process.is_orphan:
        parent = process.parent
        if parent is None or not parent.is_linked_to(process):
            return False
        process = parent
    return True


def seconds_to_end(spec: ChildSpec) -> float | None:
    """Return how long a child has to end once it is told to; None: as long as it takes."""
    return spec.shutdown if isinstance(spec.shutdown, int | float) else None


class SupervisorBase(GenServer):
    """See ``Supervisor`` and ``SimpleOneForOneSupervisor``.

    **Zombies.** A child that is killed, because it did not end in its ``shutdown`` time or has ``BRUTAL_KILL``, is gone
    for everyone who talks to it; and so is one that does not trap exits once it gets the exit signal. But CPython can't
    end a thread: a callback of it that is running goes on to its end, with all that it still does to the outside world,
    and its thread is not free before. Each restart may leave one more of them, so they are counted. While more than
    ``max_zombies`` of its own still run, a supervisor gives up as it does after too many restarts, with the reason
    ``Shutdown("killed children that still run: ...")``: its own supervisor, and in the end the operator, have to do
    what it can't. A child whose callbacks block, and are to end first, sets ``trap_exit``: it then has its ``shutdown``
    time.
    """

    trap_exit: ClassVar[bool] = True
    strategy: Strategy

    @abstractmethod
    def children_seen(self, max_on_demand: int) -> tuple[list[ChildInfo], int]:
        """List the children for whoever looks from another thread, and count those that are left out."""

    def __init__(
        self,
        children: Sequence[ChildSpec],
        strategy: Strategy,
        intensity: int,
        period_seconds: float,
        auto_shutdown: AutoShutdown,
        max_zombies: int,
    ) -> None:
        self._window = check_supervisor(children, strategy, intensity, period_seconds, auto_shutdown, max_zombies)
        self.strategy = strategy
        self._auto_shutdown = auto_shutdown
        self._max_zombies = max_zombies
        self._zombies: list[Ref] = []

    # --- starting ---

    def _start(self, spec: ChildSpec, args: Sequence[Any] = ()) -> StartResult | Starting:
        """Call the spec's start function; whatever is wrong with it is a child that did not start."""
        try:
            result = spec.start(*args)
        except BaseException as error:
            return NotStarted(Crash(error))
        if isinstance(result, Started) and isinstance(result.ref, Ref):
            return result
        if isinstance(result, NotStarted) or result is IGNORE:
            return result
        if (
            isinstance(result, Starting)
            and isinstance(result.ref, Ref)
            and result.ref.process.parent is self._otp_process
        ):
            return result
        wrong = TypeError(
            f"start of child {spec.id!r} must return what start_link() gave it, or Started(ref), NotStarted(reason) or "
            f"IGNORE; it returned something of type {type(result).__name__}"
        )
        return NotStarted(Crash(wrong))

    def _await_start(self, starting: Starting) -> Generator[Receive, Any, StartResult]:
        """Wait for the end of a child's ``init``; it may take as long as it likes, as in OTP."""
        ref = starting.ref
        result = ref.process.start_result
        if result is None:  # else the message that says so is dropped when its turn comes
            finished = yield Receive(lambda message: type(message) is StartFinished and message.ref is ref)
            result = finished.result
        return result

    def _start_and_wait(self, spec: ChildSpec, args: Sequence[Any] = ()) -> Generator[Receive, Any, StartResult]:
        result = self._start(spec, args)
        if isinstance(result, NotStarted) and isinstance(result.reason, AlreadyStarted):
            has_name = result.reason.ref
            if is_orphaned(has_name.process) and not is_orphaned(self._otp_process):
                yield from self._see_off(spec, has_name)
                result = self._start(spec, args)
        return (yield from self._await_start(result)) if isinstance(result, Starting) else result

    def _see_off(self, spec: ChildSpec, orphan: Ref) -> Generator[Receive, Any, None]:
        """Wait for the end of one who has the child's name, and ends because a supervisor above it was killed.

        It gets the time that the spec gives a child to end; then it is killed, and counts as a child that was. (OTP
        would try again at once, and may use up its restart intensity before the name is free.)
        """
        yield from self._await_end(spec, orphan, self.monitor(orphan))
        self._note_zombie(orphan)

    # --- stopping ---

    def _await_end(self, spec: ChildSpec, ref: Ref, monitor: int) -> Generator[Receive, Any, bool]:
        """Wait for the end of one who has been told to, as long as the spec says; then kill it. True: that was late.

        The monitor has just been made: nothing was passed over that tells of it, however many children ended before.
        """
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
        """Ask a child to end, wait for it as its spec says, kill it then, and report an end that is none of these.

        It is monitored, as in OTP: one that is not linked to its supervisor (any more) must not hold it up.
        """
        monitor = self.monitor(ref)
        if spec.shutdown is not BRUTAL_KILL:
            ref.exit(SHUTDOWN)
        was_late = yield from self._await_end(spec, ref, monitor)
        self._has_been_stopped(spec, ref, f"it did not end within {seconds_to_end(spec)} s" if was_late else "")

    def _has_been_stopped(self, spec: ChildSpec, ref: Ref, note: str) -> None:
        reason = ref.process.exit_reason
        if not ended_as_told(spec, reason):
            self._report(ReportContext.SHUTDOWN_ERROR, spec, ref, reason, note)
        self._note_zombie(ref)

    def _note_zombie(self, ref: Ref) -> None:
        if ref.is_zombie:
            self._zombies.append(ref)

    def _too_many_zombies(self, spec: ChildSpec, ref: Ref | None) -> Stop | None:
        """Give up, where too many killed children still run."""
        if len(self._zombies) <= self._max_zombies:
            return None
        self._zombies = [zombie for zombie in self._zombies if zombie.is_zombie]
        count = len(self._zombies)
        if count <= self._max_zombies:
            return None
        why = f"killed children that still run: {count} (allowed: {self._max_zombies})"
        self._report(ReportContext.SHUTDOWN, spec, ref, why)
        return Stop(Shutdown(why))

    def _answer_unless_too_many_zombies(self, spec: ChildSpec, ref: Ref | None, answer: object) -> object:
        give_up = self._too_many_zombies(spec, ref)
        return answer if give_up is None else Stop(give_up.reason, reply=answer)

    # --- restarting ---

    def _count_restart(self, spec: ChildSpec, streak: Streak | None) -> RestartPlan:
        """Count a restart and decide about it."""
        now = self.clock.monotonic()
        if spec.backoff is not None and streak is not None:
            delay_seconds = streak.count_restart(spec.backoff, now)
            if delay_seconds is None:
                return RestartPlan(False, None, f"restarted {streak.restarts} times in a row")
            return RestartPlan(True, delay_seconds, f"restart {streak.restarts} in a row, in {delay_seconds:g} s")
        self._window, allowed = self._window.add(now)
        window = self._window
        limits = f"{window.intensity} allowed in {window.period_seconds:g} s"
        return RestartPlan(allowed, None, f"restart {len(window.restarts)}, {limits}")

    def _give_up(self, spec: ChildSpec, ref: Ref | None, plan: RestartPlan) -> Stop:
        self._report(ReportContext.SHUTDOWN, spec, ref, "reached_max_restart_intensity", plan.note)
        return Stop(SHUTDOWN)

    # --- reporting ---

    def _report(
        self,
        context: ReportContext,
        spec: ChildSpec,
        ref: Ref | None,
        reason: object,
        note: str = "",
        *,
        children: int = 1,
        level: int = logging.ERROR,
    ) -> None:
        restarts = len(self._window.restarts)
        report_supervisor(
            self.ref, context, spec, ref, reason, restarts=restarts, note=note, children=children, level=level
        )

    def _report_termination(self, spec: ChildSpec, ref: Ref, reason: ExitReason, plan: RestartPlan | None) -> None:
        """Report an end that is to be reported: none that is orderly, unless the child is permanent."""
        note = "it is temporary and not restarted" if plan is None else plan.note
        level = logging.WARNING if plan is not None and plan.allowed else logging.ERROR
        self._report(ReportContext.CHILD_TERMINATED, spec, ref, reason, note, level=level)


def check_supervisor(
    children: Sequence[ChildSpec],
    strategy: Strategy,
    intensity: int,
    period_seconds: float,
    auto_shutdown: AutoShutdown,
    max_zombies: int,
) -> RestartWindow:
    """Refuse what no supervisor can be made of, before anything has started.

    Raises:
        ValueError: saying what is wrong.
    """
    if not isinstance(strategy, Strategy):
        raise ValueError(
            f"strategy must be a Strategy, not {strategy!r}; "
            "ONE_FOR_ONE, ONE_FOR_ALL, REST_FOR_ONE or SIMPLE_ONE_FOR_ONE"
        )
    window = RestartWindow(intensity, period_seconds)
    if isinstance(max_zombies, bool) or not isinstance(max_zombies, int) or max_zombies < 0:
        raise ValueError(f"max_zombies must be a whole number of killed children, 0 or more, not {max_zombies!r}")
    check_auto_shutdown(auto_shutdown)
    is_simple = strategy is Strategy.SIMPLE_ONE_FOR_ONE
    if is_simple and auto_shutdown is not AutoShutdown.NEVER:
        raise ValueError(
            f"simple_one_for_one can't have auto_shutdown {auto_shutdown.name}: "
            "its children come and go on demand, and none of them is significant"
        )
    check_child_specs(children, auto_shutdown)
    if is_simple and len(children) != 1:
        raise ValueError(f"simple_one_for_one takes exactly one child spec, not {len(children)}")
    return window


def ended_as_told(spec: ChildSpec, reason: ExitReason | None) -> bool:
    """Tell whether the end of a child that was told to end needs no report (OTP: ``shutdown/1`` of ``supervisor``)."""
    if type(reason) is Killed:
        return spec.shutdown is BRUTAL_KILL
    if isinstance(reason, Shutdown) and reason.term is None and spec.shutdown is not BRUTAL_KILL:
        return True
    return isinstance(reason, Normal | Shutdown) and spec.restart is not Restart.PERMANENT
