"""``Worker``: the actor that owns one worker process, as an Erlang process owns a port.

A process that dies is a crash of its actor, and the supervisor starts both anew; a crash of the actor kills the
process. A start that fails for an expected reason (a service that does not answer) is no crash: if no worker has
started yet, or the settings are at fault, it ends the command; else it is tried again after a pause.

A process that does not answer for ``HANG_SECONDS`` is killed: it holds a share that others could use. A process that
takes that long to load, or to start once it has its share, counts as one that cannot start.
"""

from __future__ import annotations

import logging
import signal
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

from receipt_actors.domain.limits import Share
from receipt_actors.domain.sending import RetryPolicy
from receipt_actors.otp import NO_REPLY, NORMAL, Crash, ExitReason, From, GenServer, Receive, Receiving
from receipt_actors.otp import Stop as End
from receipt_actors.pipeline.protocol import Done, ObeyLimits
from receipt_actors.scale.processes import protocol
from receipt_actors.scale.processes.group_inspection import collect
from receipt_actors.scale.processes.protocol import DescribeActor, Drain, Phase, Report, StartRefused, Stop, WorkerView
from receipt_actors.scale.processes.shared import Group, described
from receipt_actors.scale.processes.worker_process import MessageFrom, ProcessEnded, WorkerProcess
from receipt_actors.telemetry.queue_depths import LookAtQueues

logger = logging.getLogger(__name__)

GRACE_SECONDS = 2.0  #: for a process to end after its drain; then it is killed
START_AGAIN = RetryPolicy(1_000_000_000, first_seconds=1.0, max_seconds=30.0)  #: after a start that was refused
REPORT_SECONDS = 1.0  #: between two questions to a process how it goes
HANG_SECONDS = 60.0  #: without an answer; what keeps the main thread of a sound one busy is a matter of seconds


class WorkerDied(Exception):
    pass


@dataclass(frozen=True, slots=True)
class _Later:
    process: WorkerProcess | None  #: if it has another one by then, nothing is done
    act: Callable[[], object]


_CONSUMING = (Phase.STARTING, Phase.RUNNING, Phase.DRAINING)


class Worker(GenServer):
    trap_exit: ClassVar[bool] = True

    def __init__(self, name: str, group: Group) -> None:
        self._name = name
        self._group = group
        self._process: WorkerProcess | None = None
        self._phase = Phase.LOADING
        self._share: Share | None = None  # as it was seen last
        self._obeying: list[From] = []  # who waits for the process to use no more than its share
        self._refusal: StartRefused | None = None
        self._refusals = 0  # in a row
        self._asked_at_seconds: float | None = None  # monotonic; for a report that has not come yet
        self._looks_at_queues = False  # whether the process is to look at its queues for the next report
        self._describing: dict[int, From] = {}  # who wants to know the state of an actor, by the question's number
        self._described = 0  # questions

    def outside_view(self) -> WorkerView:
        return WorkerView() if self._process is None else WorkerView(self._process.pid, self._phase)

    # --- life ---

    def init(self) -> None:
        self._leave()  # the actor before this one is dead, and its process with it
        self._start_process()

    def _start_process(self) -> None:
        if self._group.is_closing:
            return
        group, name, me = self._group, self._name, self.ref
        process = WorkerProcess(name, group.program, group.settings, me.send, is_replacement=group.is_complete)
        self._process, self._phase, self._refusal = process, Phase.LOADING, None
        group.processes[name] = process
        self._later(HANG_SECONDS, partial(self._give_up_start, process, Phase.LOADING))
        me.process.add_monitor(lambda _down: process.kill())
        if group.is_closing:  # since a moment ago: ``Group.kill`` may have missed it
            process.kill()
        if not group.is_complete:
            self._join()  # else it has to be loaded first: until then the living keep its share

    def terminate(self, reason: ExitReason) -> Receiving | None:
        return None if isinstance(reason, Crash) or self._process is None else self._see_off(self._process)

    def _see_off(self, process: WorkerProcess) -> Receiving:
        self._tell_to_end(process, Stop())
        ended = yield Receive(lambda message: isinstance(message, ProcessEnded) and message.process is process)
        self._forget_process()
        self._note_last_end(process, ended.code)

    def _tell_to_end(self, process: WorkerProcess, message: Drain | Stop) -> None:
        if self._phase in _CONSUMING:
            process.send(message)
        else:
            process.kill()  # it has taken nothing in

    # --- the process says ---

    def handle_info(self, message: Any) -> Any:
        match message:
            case MessageFrom(process, said):
                if process is self._process:
                    self._said(process, said)
            case ProcessEnded(process, code):
                return self._ended(process, code)
            case _Later(process, act):
                if process is self._process:
                    act()
            case _:
                return super().handle_info(message)
        return None

    def _later(self, seconds: float, act: Callable[[], object]) -> None:
        self.send_after(seconds, _Later(self._process, act))

    def _kill(self, process: WorkerProcess, what: str) -> None:
        logger.error("%s has not %s in its time: it is killed", self._title(process), what)
        process.kill()

    def _said(self, process: WorkerProcess, said: protocol.Message) -> None:
        match said:
            case protocol.Loaded():
                self._phase = Phase.LOADED
                if self._group.shares.has(self._name):
                    self._take_share()
                else:
                    self._join()
            case protocol.Started():
                self._phase = Phase.RUNNING
                self._refusals = 0
                for number in list(self._group.traces):
                    self._join_trace(process, number)
                logger.info("%s consumes", self._title(process))
                self._note_start()
                self._ask(process)
            case protocol.LimitsObeyed(number):
                self._confirm(number)
            case protocol.ActorDescribed(number, description):
                self._describe(number, description)
            case protocol.TraceEvent(number, event):
                if (trace := self._group.traces.get(number)) is not None:
                    trace.happened(event)
            case protocol.TraceEnded(number, lost):
                if (trace := self._group.traces.get(number)) is not None:
                    trace.ended_in(self._name, lost)
            case protocol.Reported():
                self._asked_at_seconds = None
                collect(self.system, self._name, process.pid, said)
            case protocol.Draining(seconds):
                self._phase = Phase.DRAINING  # it says by itself how that goes
                self._asked_at_seconds = None
                self._later(seconds + GRACE_SECONDS, partial(self._kill, process, "ended"))
            case protocol.Stopped():
                collect(self.system, self._name, process.pid, said)
            case StartRefused():
                self._refusal = said

    def _give_up_start(self, process: WorkerProcess, phase: Phase) -> None:
        if self._phase is not phase:
            return
        what = "loaded" if self._phase is Phase.LOADING else "started"
        fault = f"{self._title(process)} has not {what} within {HANG_SECONDS:g} s and was killed"
        self._refusal = StartRefused([fault], False)
        process.kill()

    def _note_start(self) -> None:
        was_complete = self._group.is_complete
        self._group.started.add(self._name)
        if self._group.is_complete and not was_complete:
            self._group.on_complete()

    def _ended(self, process: WorkerProcess, code: int) -> Any:
        if process is not self._process:
            return None
        self._forget_process()
        self._asked_at_seconds = None
        for number in list(self._describing):
            self._describe(number, None)
        for trace in list(self._group.traces.values()):
            trace.ended_in(self._name)
        if self._group.is_closing:
            self._note_last_end(process, code)
            return None
        if self._refusal is not None:
            self._was_refused(self._refusal)
            return None
        died = f"{self._title(process)} {_described(code)}"
        if code == 0:
            logger.info("%s: a signal told it to", died)
            return End(NORMAL)
        return End(Crash(WorkerDied(died)))

    def _was_refused(self, refusal: StartRefused) -> None:
        self._leave()
        if not self._group.started or (refusal.is_configuration and not self._group.is_complete):
            self._group.refusal = self._group.refusal or refusal
            self._group.on_refusal()
            return
        self._refusals += 1
        pause_seconds = START_AGAIN.pause_seconds(self._refusals) or 0.0
        logger.error(
            "%s cannot start and is started again in %.0f s: %s", self._name, pause_seconds, "; ".join(refusal.faults)
        )
        self._later(pause_seconds, self._start_process)

    def _note_last_end(self, process: WorkerProcess, code: int) -> None:
        if code != 0 and self._phase in _CONSUMING and self._group.refusal is None:
            logger.warning("%s %s", self._title(process), _described(code))

    def _forget_process(self) -> None:
        self._process = None
        self._group.processes.pop(self._name, None)

    def _title(self, process: WorkerProcess) -> str:
        return f"{self._name} (process {process.pid})" if process.pid else self._name

    # --- its share ---

    def _join(self) -> None:
        self._group.shares.join(self._name, self.ref)

    def _leave(self) -> None:
        self._share = None
        self._group.shares.leave(self._name)
        self._tell_who_waits()

    def handle_cast(self, request: Any) -> Any:
        match request:
            case protocol.GrantAnew():
                self._take_share()
            case LookAtQueues():
                self._looks_at_queues = True
            case Drain(seconds):
                if self._process is not None:
                    self._tell_to_end(self._process, request)
                    self._later(seconds + GRACE_SECONDS, partial(self._kill, self._process, "ended"))
            case protocol.Release() | protocol.StopTrace():
                if self._process is not None and self._phase in _CONSUMING:
                    self._process.send(request)
            case protocol.JoinTrace(number):
                if self._process is not None and self._phase is Phase.RUNNING:
                    self._join_trace(self._process, number)
            case _:
                return super().handle_cast(request)
        return None

    def _take_share(self) -> None:
        share = self._group.shares.of(self._name)
        if share is not None and (self._share is None or share.number != self._share.number):
            self._share = share
            if self._group.is_complete and not self._group.is_closing:
                logger.info("%s may have %s", self._name, described(share.told))
        if self._share is None:
            return
        if self._process is None or self._phase is Phase.LOADING:
            self._confirm(self._share.number)  # no process knows of any
            return
        if self._phase is Phase.LOADED:
            self._phase = Phase.STARTING
            self._later(HANG_SECONDS, partial(self._give_up_start, self._process, Phase.STARTING))
        number, limits = self._share.number, self._share.told
        self._process.send(protocol.Grant(number, limits, self._group.shares.until_seconds, self._group.is_paused))

    def _confirm(self, number: int) -> None:
        self._group.shares.confirm(self._name, number)
        self._tell_who_waits()

    def _tell_who_waits(self) -> None:
        share = self._group.shares.of(self._name)
        if share is None or share.held == share.told:
            for from_ in self._obeying:
                from_.reply(Done())
            self._obeying.clear()

    # --- questions ---

    def handle_call(self, request: Any, from_: From) -> Any:
        match request:
            case ObeyLimits():
                self._obeying.append(from_)
                self._tell_who_waits()
            case DescribeActor(name):
                if self._process is None or self._phase is not Phase.RUNNING:
                    return None
                self._described += 1
                self._describing[self._described] = from_
                self._process.send(DescribeActor(name, self._described))
            case _:
                return super().handle_call(request, from_)
        return NO_REPLY

    def _join_trace(self, process: WorkerProcess, number: int) -> None:
        trace = self._group.traces.get(number)
        order = None if trace is None else trace.order_for(self._name)
        if order is not None:
            process.send(order)

    def _describe(self, number: int, description: Mapping[str, Any] | None) -> None:
        from_ = self._describing.pop(number, None)
        if from_ is not None:
            from_.reply(description)

    def _ask(self, process: WorkerProcess) -> None:
        """Ask for a report, and again in a second, while the process consumes."""
        if self._phase is not Phase.RUNNING or self._group.is_closing:
            return
        now = self.clock.monotonic()
        if self._asked_at_seconds is None:
            self._asked_at_seconds = now
            process.send(Report(self._looks_at_queues))
            self._looks_at_queues = False
        elif now - self._asked_at_seconds >= HANG_SECONDS:
            self._kill(process, "answered")
            return
        self._later(REPORT_SECONDS, partial(self._ask, process))


def _described(code: int) -> str:
    if code >= 0:
        return f"ended with exit status {code}"
    return f"was killed by signal {-code} ({signal.strsignal(-code)})"
