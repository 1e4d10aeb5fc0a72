"""``Alerts``: the actor that tells operators what they should know of now.

It hears of every incident; the ``alert_book`` decides what is worth an alert. A thread sends alerts, so no actor waits.
While that fails alerts are kept and summed up, one of each kind, and tried again after pauses that grow; the log says
so once. At its end it sends what it has, within ``SHUTDOWN_SECONDS``. A crash forgets what had not been sent.
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from math import inf
from typing import Any, ClassVar

from receipt_actors.domain.ports import EntryFailure, OutgoingMessage, Queues
from receipt_actors.domain.sending import RetryPolicy
from receipt_actors.domain.sqs_rules import in_group
from receipt_actors.errors import QueueRefused, UnavailableError
from receipt_actors.otp import ChildSpec, Crash, ExitReason, GenServer, Receive, Receiving, Reply, Start, Timer
from receipt_actors.telemetry.alert_book import Alert, AlertBook, AlertKind, Origin
from receipt_actors.telemetry.incidents import INCIDENTS, Incidents
from receipt_actors.telemetry.overview import Incident

logger = logging.getLogger(__name__)

ALERTS = "alerts"  #: the name of the actor that sends to the alerts queue
ALERT_LISTENER = "alert_listener"  #: of the one that calls a function of the embedding program
SHUTDOWN_SECONDS = 5.0  #: for the last alerts to be sent
TRY_AGAIN = RetryPolicy(1_000_000_000, first_seconds=1.0, max_seconds=60.0)  #: after alerts could not be sent


@dataclass(frozen=True, slots=True)
class AlertSink:
    title: str  #: for the log
    send: Callable[[Sequence[Alert]], Sequence[EntryFailure | None]]  #: one value an alert, as ``Queues.send`` has it
    max_alerts: int  #: in one call; calls are made on an I/O thread, one at a time


def alerts_queue(open_queues: Callable[[], Queues], queue: str) -> AlertSink:
    """Send to the alerts queue. ``open_queues`` is called when there is something to send for the first time."""
    opened = cache(open_queues)

    def message(alert: Alert) -> OutgoingMessage:
        kind, body = alert.kind.value, alert.body
        return in_group(OutgoingMessage(body, {"kind": kind}), queue, kind, kind, body)

    def send(alerts: Sequence[Alert]) -> Sequence[EntryFailure | None]:
        return opened().send(queue, list(map(message, alerts)))

    return AlertSink(f"queue {queue}", send, len(AlertKind))


def alert_function(function: Callable[[Alert], object]) -> AlertSink:
    """Call a function of the embedding program. Where it raises, that is logged, and the alert is not told again."""

    def send(alerts: Sequence[Alert]) -> Sequence[EntryFailure | None]:
        function(alerts[0])
        return [None]

    return AlertSink("on_alert", send, 1)


@dataclass(frozen=True, slots=True)
class _Look:
    pass


class Alerts(GenServer):
    trap_exit: ClassVar[bool] = True

    def __init__(self, sink: AlertSink, origin: Origin) -> None:
        self._sink = sink
        self._book = AlertBook(origin)
        self._pool = self.system.new_blocking_pool(f"alerts to {sink.title}", 1)
        self._under_way: Sequence[Alert] = ()
        self._failures = 0  # in a row
        self._try_at_seconds = -inf  # monotonic; after a failure
        self._timer: Timer | None = None
        self._sent = self._failed = self._dropped = 0

    def terminate(self, reason: ExitReason) -> Receiving | None:
        if not isinstance(reason, Crash):
            return self._finish()
        self._pool.close()
        return None

    def _finish(self) -> Receiving:
        if self._under_way:
            self._settle((yield Receive(lambda message: isinstance(message, Reply))))
        rest = self._book.take_all(self.clock.monotonic())
        while rest:
            self._send(rest[: self._sink.max_alerts])
            rest = rest[self._sink.max_alerts :]
            self._settle((yield Receive(lambda message: isinstance(message, Reply))))
        self._pool.close()

    def handle_cast(self, request: Any) -> Any:
        if not isinstance(request, Incident):
            return super().handle_cast(request)
        self._book.note(request, self.clock.monotonic())
        self._look()
        return None

    def handle_info(self, message: Any) -> Any:
        return self._look() if isinstance(message, _Look) else super().handle_info(message)

    def _look(self) -> None:
        """Send what is due, unless a batch is under way; look again when something may be due."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._under_way:
            return
        now = self.clock.monotonic()
        if now >= self._try_at_seconds and (due := self._book.take_due(now, self._sink.max_alerts)):
            self._send(due)
        elif (next_seconds := self._book.next_due_seconds()) is not None:
            self._timer = self.send_after(max(0.0, self._try_at_seconds - now, next_seconds - now), _Look())

    def _send(self, batch: Sequence[Alert]) -> None:
        self._under_way = batch
        self.run_blocking(self._pool, None, self._sink.send, batch)

    def handle_reply(self, label: Any, value: Any) -> None:
        self._settle(Reply(label, value))
        self._look()

    def handle_failure(self, label: Any, reason: ExitReason) -> None:
        self._settle(Reply(label, None, reason))
        self._look()

    def _settle(self, reply: Reply) -> None:
        batch, self._under_way = self._under_way, ()
        if reply.failure is not None:
            error = reply.failure.exception if isinstance(reply.failure, Crash) else None
            if isinstance(error, UnavailableError | QueueRefused):
                self._put_off(batch, str(error))
            else:
                self._dropped += len(batch)
                logger.error("%s failed; %d alerts are not sent", self._sink.title, len(batch), exc_info=error)
            return
        left: list[Alert] = []
        why = ""
        for alert, failure in zip(batch, reply.value, strict=True):
            if failure is None:
                self._sent += 1
            elif failure.sender_fault:
                self._dropped += 1
                logger.error("%s does not take the alert %s: %s", self._sink.title, alert.kind, failure.detail)
            else:
                left.append(alert)
                why = f"{failure.code}: {failure.detail}"
        if left:
            self._put_off(left, why)
        elif self._failures:
            self._failures = 0
            logger.warning("alerts are sent to %s again", self._sink.title)

    def _put_off(self, batch: Sequence[Alert], why: str) -> None:
        self._book.put_back(batch)
        self._failures += 1
        self._failed += 1
        if self._failures == 1:
            what = "no alert can be sent to %s; they are kept, and summed up, until one can: %s"
            logger.error(what, self._sink.title, why)
        self._try_at_seconds = self.clock.monotonic() + (TRY_AGAIN.pause_seconds(self._failures) or 0.0)

    def describe_state(self) -> dict[str, object]:
        """Count alerts since the actor was started; ``failed`` are attempts, tried again."""
        waiting = len(self._book) + len(self._under_way)
        return {"sent": self._sent, "failed": self._failed, "dropped": self._dropped, "waiting": waiting}


def incident_specs(sinks: Mapping[str, AlertSink], source_queues: Sequence[str], process: str) -> Sequence[ChildSpec]:
    """Describe an actor for each sink, with its name, then ``incidents``, which ends first and tells them the rest."""
    origin = Origin(socket.gethostname(), process, ", ".join(source_queues), metadata.version("receipt-actors"))
    listeners = [
        ChildSpec(name, Start(Alerts, sink, origin, name=name), shutdown=SHUTDOWN_SECONDS)
        for name, sink in sinks.items()
    ]
    return [*listeners, ChildSpec("incidents", Start(Incidents, tuple(sinks), name=INCIDENTS))]
