"""``Worker``: the actor that owns one worker process, as an Erlang process owns a port.

It owns the process and its share of the limits. A process that dies is a crash of its actor, and the supervisor starts
both anew; a crash of the actor kills the process. What keeps a process from *starting* and is to be expected (a service
that does not answer) is no crash. Where no worker has been started yet, or the settings are at fault, it ends the
command, as with one process; else it is tried again after a pause, while the others go on.

A process that does not answer for ``HANG_SECONDS`` is killed, too: it hangs, and holds a share that others could use.
So is one that takes as long to load, or to start once it has its share; it counts as one that cannot start.
"""

from __future__ import annotations

import enum
import logging
import signal
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from math import inf
from typing import Any, ClassVar

from receipt_actors.domain.limits import Share
from receipt_actors.domain.sending import RetryPolicy
from receipt_actors.otp import NO_REPLY, NORMAL, Crash, ExitReason, From, GenServer, Receive, Receiving
from receipt_actors.otp import Stop as End
from receipt_actors.pipeline.protocol import Done, ObeyLimits
from receipt_actors.scale.processes.group_inspection import collect
from receipt_actors.scale.processes.messages import (
    ActorDescribed,
    DescribeActor,
    Drain,
    Draining,
    Grant,
    LimitsObeyed,
    Loaded,
    Message,
    Release,
    Report,
    Reported,
    Started,
    StartRefused,
    Stop,
    Stopped,
    StopTrace,
    TraceEnded,
    TraceEvent,
)
from receipt_actors.scale.processes.protocol import AwaitEnd, Group, JoinTrace, PauseChanged, WorkerView
from receipt_actors.scale.processes.shares import ChangeShare, LendUntil, described
from receipt_actors.scale.processes.worker_process import MessageFrom, ProcessEnded, WorkerProcess
from receipt_actors.telemetry.queue_depths import LookAtQueues

logger = logging.getLogger(__name__)

GRACE_SECONDS = 2.0  #: for a process to end after its drain; then it is killed
START_AGAIN = RetryPolicy(1_000_000_000, first_seconds=1.0, max_seconds=30.0)  #: after a start that was refused


REPORT_SECONDS = 1.0  #: between two questions to a process how it goes
HANG_SECONDS = 60.0  #: without an answer; what keeps the main thread of a sound one busy is a matter of seconds


class WorkerDied(Exception):
    """A worker process has ended, and nobody had told it to."""


@dataclass(frozen=True, slots=True)
class _Later:
    """To itself: do this now, unless it has another process than it had."""

    process: WorkerProcess | None
    act: Callable[[], object]


class _Phase(enum.Enum):
    LOADING = "loading"
    LOADED = "loaded"  #: it waits for its share; where other nodes have all of it, for as long as they do
    STARTING = "starting"  #: it has its share, and may consume already
    RUNNING = "running"
    DRAINING = "draining"  #: because somebody else told it to


_CONSUMING = (_Phase.STARTING, _Phase.RUNNING, _Phase.DRAINING)


class Worker(GenServer):
    """See the module."""

    trap_exit: ClassVar[bool] = True

    def __init__(self, name: str, group: Group) -> None:
        self._name = name
        self._group = group
        self._process: WorkerProcess | None = None
        self._phase = _Phase.LOADING
        self._has_joined = False
        self._share: Share | None = None
        self._until_seconds = -inf  # of ``clock.boottime``; for so long the share is lent
        self._obeying: list[From] = []  # who waits for the process to use no more than its share
        self._refusal: StartRefused | None = None
        self._refusals = 0  # in a row
        self._asked = 0  # questions how it goes
        self._is_unanswered = False  # the last of them: one that hangs is not asked on and on
        self._looks_at_queues = False  # whether the next one has the process look at its queues
        self._awaiting_end: list[From] = []
        self._describing: dict[int, From] = {}  # who wants to know the state of an actor, by the question's number
        self._described = 0  # questions

    def outside_view(self) -> WorkerView:
        process, phase = self._process, self._phase
        if process is None:
            return WorkerView(0, False, False)
        return WorkerView(process.pid, phase is _Phase.RUNNING, phase is _Phase.DRAINING, phase is _Phase.LOADED)

    # --- life ---

    def init(self) -> None:
        self._leave()  # the actor before this one is dead, and its process with it
        self._start_process()

    def _start_process(self) -> None:
        if self._group.is_closing:
            return
        group, name, me = self._group, self._name, self.ref
        process = WorkerProcess(name, group.program, group.settings, me.send, is_replacement=group.is_complete)
        self._process, self._phase, self._refusal = process, _Phase.LOADING, None
        group.processes[name] = process
        self._later(HANG_SECONDS, partial(self._give_up_start, process, _Phase.LOADING))
        me.process.add_monitor(lambda _down: process.kill())
        if group.is_closing:  # since a moment ago: nobody else may have seen it
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

    def _said(self, process: WorkerProcess, said: Message) -> None:
        match said:
            case Loaded():
                self._phase = _Phase.LOADED
                if self._share is not None:
                    self._begin(process)
                elif not self._has_joined:
                    self._join()
            case Started():
                self._phase = _Phase.RUNNING
                self._refusals = 0
                for number in list(self._group.traces):
                    self._join_trace(process, number)
                logger.info("%s consumes", self._title(process))
                self._note_start()
                self._ask(process)
            case LimitsObeyed(number):
                self._confirm(number)
            case ActorDescribed(number, description):
                self._describe(number, description)
            case TraceEvent(number, event):
                trace = self._group.traces.get(number)
                if trace is not None:
                    trace.happened(event)
            case TraceEnded(number, lost):
                trace = self._group.traces.get(number)
                if trace is not None:
                    trace.ended_in(self._name, lost)
            case Reported():
                self._is_unanswered = False
                collect(self.system, self._name, process.pid, said)
            case Draining(seconds):
                self._phase = _Phase.DRAINING  # it says by itself how that goes
                self._is_unanswered = False
                self._later(seconds + GRACE_SECONDS, partial(self._kill, process, "ended"))
            case Stopped():
                collect(self.system, self._name, process.pid, said)
            case StartRefused():
                self._refusal = said

    def _give_up_start(self, process: WorkerProcess, phase: _Phase) -> None:
        if self._phase is not phase:
            return
        what = "loaded" if self._phase is _Phase.LOADING else "started"
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
        self._is_unanswered = False
        for number in list(self._describing):
            self._describe(number, None)
        for trace in list(self._group.traces.values()):
            trace.ended_in(self._name)
        if self._group.is_closing:
            self._note_last_end(process, code)
            for from_ in self._awaiting_end:
                from_.reply(None)
            self._awaiting_end.clear()
            return None
        if self._refusal is not None:
            self._was_refused(self._refusal)
            return None
        died = f"{self._title(process)} {_described(code)}"
        if code == 0:
            logger.info("%s: it was told to by somebody else", died)
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
        self._has_joined = True
        self._group.shares.join(self._name, self.ref)

    def _leave(self) -> None:
        self._has_joined, self._share = False, None
        self._group.shares.leave(self._name)
        self._tell_who_waits()

    def handle_cast(self, request: Any) -> Any:
        match request:
            case ChangeShare(share, until_seconds):
                self._take_share(share, until_seconds)
            case LendUntil(seconds):
                self._until_seconds = seconds
                self._grant()
            case LookAtQueues():
                self._looks_at_queues = True
            case PauseChanged():
                self._grant()
            case Drain(seconds):
                if self._process is not None:
                    self._tell_to_end(self._process, request)
                    self._later(seconds + GRACE_SECONDS, partial(self._kill, self._process, "ended"))
            case Release() | StopTrace():
                if self._process is not None and self._phase in _CONSUMING:
                    self._process.send(request)
            case JoinTrace(number):
                if self._process is not None and self._phase is _Phase.RUNNING:
                    self._join_trace(self._process, number)
            case _:
                return super().handle_cast(request)
        return None

    def _take_share(self, share: Share, until_seconds: float) -> None:
        if not self._has_joined:
            return
        self._share, self._until_seconds = share, until_seconds
        if self._group.is_complete and not self._group.is_closing:
            logger.info("%s may have %s", self._name, described(share.told))
        if self._process is None or self._phase is _Phase.LOADING:
            self._confirm(share.number)  # no process knows of any
        elif self._phase is _Phase.LOADED:
            self._begin(self._process)
        else:
            self._grant()

    def _begin(self, process: WorkerProcess) -> None:
        self._phase = _Phase.STARTING
        self._later(HANG_SECONDS, partial(self._give_up_start, process, _Phase.STARTING))
        self._grant()

    def _grant(self) -> None:
        if self._process is not None and self._share is not None and self._phase in _CONSUMING:
            share = self._share
            self._process.send(Grant(share.number, share.told, self._until_seconds, self._group.is_paused))

    def _confirm(self, number: int) -> None:
        if self._share is not None and self._share.number == number:
            self._share = replace(self._share, held=self._share.told)
            self._group.shares.confirm(self._name, number)
            self._tell_who_waits()

    def _tell_who_waits(self) -> None:
        if self._share is None or self._share.held == self._share.told:
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
                if self._process is None or self._phase is not _Phase.RUNNING:
                    return None
                self._described += 1
                self._describing[self._described] = from_
                self._process.send(DescribeActor(name, self._described))
            case AwaitEnd():
                if self._process is None:
                    return None
                self._awaiting_end.append(from_)
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
        """Ask how it goes, and again in a second, for as long as it consumes."""
        if self._phase is not _Phase.RUNNING or self._group.is_closing:
            return
        if not self._is_unanswered:
            self._asked += 1
            self._is_unanswered = True
            process.send(Report(self._looks_at_queues))
            self._looks_at_queues = False
            self._later(HANG_SECONDS, partial(self._expect_answer, process, self._asked))
        self._later(REPORT_SECONDS, partial(self._ask, process))

    def _expect_answer(self, process: WorkerProcess, asked: int) -> None:
        if self._is_unanswered and asked == self._asked:
            self._kill(process, "answered")


def _described(code: int) -> str:
    if code >= 0:
        return f"ended with exit status {code}"
    return f"was killed by signal {-code} ({signal.strsignal(-code)})"
