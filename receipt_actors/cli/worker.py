"""What a worker process of ``receipt-actors start --processes`` runs; no command of its own.

``python -m receipt_actors.cli.worker NAME DESCRIPTOR``, with the channel to the parent behind the descriptor, runs one
``ReceiptSystem`` with its share of the limits. When the parent says so, or is gone, it drains. It ignores SIGINT, which
a terminal sends to every process. A SIGTERM to this process alone drains it, and the parent starts another one.
"""

from __future__ import annotations

import logging
import select
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

import pykka

from receipt_actors.backends import open_backend
from receipt_actors.cli import EXIT_DONE, EXIT_WORLD_FAILED
from receipt_actors.cli.process import StopSignals, collect_seldom, ending_with_threads, log_end, write_log
from receipt_actors.errors import ConfigurationError, ReceiptActorsError, StartAbandoned, TraceRefused
from receipt_actors.receipt_system import ReceiptSystem
from receipt_actors.scale.processes import protocol as said
from receipt_actors.scale.processes.worker import REPORT_SECONDS
from receipt_actors.scale.processes.worker_process import STOP_SIGNALS, Channel
from receipt_actors.telemetry.control import Trace, UnknownActor
from receipt_actors.telemetry.overview import Incident

logger = logging.getLogger("receipt_actors")


class _Worker:
    """The main thread's view: what the parent says, a signal, and the end of the tree."""

    def __init__(self, name: str, channel: Channel, signals: StopSignals) -> None:
        self._name = name
        self._channel = channel
        self._signals = signals
        self._system: ReceiptSystem | None = None
        self._early: list[said.Message] = []  # what the parent said while this was being started
        self._is_replacement = False
        self._grant: said.Grant | None = None
        self._told_incidents: tuple[Incident, ...] | None = None
        self._told_queues: Mapping[str, int | None] | None = None
        self._traces: dict[int, _TraceHere] = {}

    def run(self) -> int:
        watched: list[Any] = [self._channel, self._signals]
        try:
            while True:
                messages: Sequence[said.Message] = ()
                readable, _, _ = select.select(watched, [], [], 0 if self._early else None)
                if self._channel in readable:
                    messages = self._channel.receive()
                messages, self._early = [*self._early, *messages], []
                for message in messages:
                    status = self._obey(message)
                    if status is not None:
                        return status
                if self._signals in readable:
                    return self._interrupted()
                if self._channel.is_over:
                    logger.warning("the parent process is gone: draining")
                    return self._drain(None)
        except StartAbandoned:
            return EXIT_DONE
        except (ReceiptActorsError, OSError) as error:
            if self._system is not None:
                raise
            is_configuration = isinstance(error, ConfigurationError)
            faults = error.faults if isinstance(error, ConfigurationError) else [str(error)]
            self._channel.send(said.StartRefused(faults, is_configuration))
            return EXIT_WORLD_FAILED

    def _obey(self, message: said.Message) -> int | None:
        match message:
            case said.Configure(settings, is_replacement):
                self._is_replacement = is_replacement
                self._settings = settings
                write_log(self._settings, self._name)
                self._backend = open_backend(self._settings)
                self._channel.send(said.Loaded())
            case said.Grant():
                self._obey_grant(message)
            case said.Report(looks_at_queues):
                self._report(looks_at_queues=looks_at_queues)
            case said.Release():
                if self._system is not None:
                    self._system.release()
            case said.DescribeActor(name, number):
                # On a thread, for the actor may take its time.
                threading.Thread(target=self._describe, args=(number, name), name="describe", daemon=True).start()
            case said.StartTrace():
                if self._system is not None:
                    self._traces[message.number] = _TraceHere(self._system, message, self._channel)
            case said.StopTrace(number):
                trace = self._traces.pop(number, None)
                if trace is not None:
                    trace.stop()
            case said.Drain(seconds):
                return self._drain(seconds)
            case said.Stop():
                if self._system is not None:
                    self._system.stop()
                return EXIT_DONE
        return None

    def _obey_grant(self, grant: said.Grant) -> None:
        before, self._grant = self._grant, grant
        if self._system is None:
            self._system = self._start(grant)
            collect_seldom()
            self._system.on_end(self._signals.wake)
            self._channel.send(said.Started())
        elif before is not None and before.is_paused != grant.is_paused:
            if grant.is_paused:
                # On a thread, for receives under way may take their time, and the parent may have more to say.
                threading.Thread(target=self._system.begin_pause(), name="pause", daemon=True).start()
            else:
                self._system.resume()
        if before is None or before.number != grant.number:
            wait = self._system.change_limits(grant.limits)
            # On a thread, for it may take as long as what is in flight.
            threading.Thread(target=self._confirm, args=(grant.number, wait), name="limits", daemon=True).start()
        self._system.hold_until(grant.until_seconds)  # after the limits, which may be smaller

    def _start(self, grant: said.Grant) -> ReceiptSystem:
        return ReceiptSystem.start(
            self._settings,
            backend=self._backend,
            limits=grant.limits,
            is_paused=grant.is_paused,
            held_until_seconds=grant.until_seconds,
            process=self._name,
            sources_may_be_missing=self._is_replacement,
            pause=self._pause_start,
        )

    def _pause_start(self, seconds: float) -> None:
        """Wait for the next try of something that the start needs, unless this is to end."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            watched: list[Any] = [self._channel, self._signals]
            readable, _, _ = select.select(watched, [], [], left)
            if self._channel in readable:
                self._early += self._channel.receive()
            is_to_end = any(isinstance(message, said.Drain | said.Stop) for message in self._early)
            if is_to_end or self._channel.is_over or self._signals in readable:
                raise StartAbandoned

    def _confirm(self, number: int, wait: Callable[[], None]) -> None:
        with suppress(pykka.ActorDeadError):  # it is about to end
            wait()
            self._channel.send(said.LimitsObeyed(number))

    def _report(self, *, looks_at_queues: bool) -> None:
        assert self._system is not None
        overview = self._system.overview(looks_at_queues=looks_at_queues)
        (process,) = overview.processes
        queues = None if overview.queues is self._told_queues else overview.queues
        incidents = None if overview.incidents is self._told_incidents else overview.incidents
        self._told_queues, self._told_incidents = overview.queues, overview.incidents
        self._channel.send(said.Reported(process, queues, incidents))

    def _report_until(self, is_over: threading.Event) -> None:
        while not is_over.wait(REPORT_SECONDS):
            self._report(looks_at_queues=False)

    def _describe(self, number: int, name: str) -> None:
        assert self._system is not None
        description: Mapping[str, Any] | None = None
        with suppress(UnknownActor):
            description = self._system.actor_state(name)
        self._channel.send(said.ActorDescribed(number, description))

    def _interrupted(self) -> int:
        if self._system is not None and self._system.end_reason is not None:
            log_end(self._system.end_reason)
            self._system.stop()
            return EXIT_WORLD_FAILED
        logger.info("%s: draining", self._signals.received)
        if self._system is not None:
            self._channel.send(said.Draining(self._settings.drain_seconds))
        return self._drain(None)

    def _drain(self, seconds: float | None) -> int:
        if self._system is not None:
            is_over = threading.Event()
            # On a thread, for the parent's questions are not read any more.
            reporting = threading.Thread(target=self._report_until, args=(is_over,), name="reports", daemon=True)
            reporting.start()
            unfinished = self._system.drain(seconds)
            is_over.set()
            reporting.join()  # nothing is said after the last words
            self._channel.send(said.Stopped(unfinished, self._system.statistics()))
        return EXIT_DONE


class _TraceHere:
    def __init__(self, system: ReceiptSystem, order: said.StartTrace, channel: Channel) -> None:
        self._number = order.number
        self._channel = channel
        self._is_begun = threading.Event()
        self._trace: Trace | None = None
        try:
            self._trace = system.trace(order.request, self._tell, self._tell_end)
        except TraceRefused as refusal:  # too many run here; or the tree has just ended
            logger.warning("this process takes no part in a trace: %s", refusal)
            channel.send(said.TraceEnded(self._number, 0))
        self._is_begun.set()

    def stop(self) -> None:
        if self._trace is not None:
            self._trace.stop()

    def _tell(self, event: Mapping[str, Any]) -> None:
        self._channel.send(said.TraceEvent(self._number, event))

    def _tell_end(self, _why: str) -> None:
        self._is_begun.wait()
        assert self._trace is not None
        self._channel.send(said.TraceEnded(self._number, self._trace.lost))


def main(name: str, descriptor: str) -> int:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    channel = Channel(socket.socket(fileno=int(descriptor)))
    with StopSignals((signal.SIGTERM,)) as signals, ending_with_threads():
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)  # the parent had them held up until here
        return _Worker(name, channel, signals).run()


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
