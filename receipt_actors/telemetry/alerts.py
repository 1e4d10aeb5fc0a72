"""Alerts: what operators should know of now.

``AlertBook`` decides which incidents are worth an alert, when it is due, and what it says. The first alert of a kind is
due at once. Those that follow within ``PERIOD_SECONDS`` are summed up, and due at its end.

The actor ``Alerts`` gets every incident and sends alerts on a thread, so no actor waits. While that fails, alerts are
kept and summed up, one of each kind, and tried again after pauses that grow; the log says so once. When it ends, it
sends what it has, within ``SHUTDOWN_SECONDS``. A crash forgets what had not been sent.
"""

from __future__ import annotations

import json
import logging
import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from enum import StrEnum
from functools import cache
from importlib import metadata
from math import inf
from typing import Any, ClassVar

from receipt_actors.domain.ports import EntryFailure, OutgoingMessage, Queues
from receipt_actors.domain.sending import RetryPolicy
from receipt_actors.domain.sqs_rules import in_group
from receipt_actors.errors import QueueRefused, UnavailableError
from receipt_actors.otp import ChildSpec, Crash, ExitReason, GenServer, Receive, Receiving, Reply, Start, Timer
from receipt_actors.telemetry.incidents import INCIDENTS, MAX_STORY_LINES, Incidents, one_line
from receipt_actors.telemetry.overview import Incident

logger = logging.getLogger(__name__)

ALERTS = "alerts"  #: the name of the actor that sends to the alerts queue
ALERT_LISTENER = "alert_listener"  #: of the one that calls a function of the embedding program
SHUTDOWN_SECONDS = 5.0  #: for the last alerts to be sent
TRY_AGAIN = RetryPolicy(1_000_000_000, first_seconds=1.0, max_seconds=60.0)  #: after alerts could not be sent
VERSION = 1  #: of the body of an alert
PERIOD_SECONDS = 60.0  #: for which alerts of a kind are summed up
OUTAGE_SECONDS = 60.0
DEAD_LETTERS = 10
MAX_SUMMARIES = 8  #: different ones that are told apart


class AlertKind(StrEnum):
    """What an alert is about."""

    CRASH = "crash"  #: an actor, or a worker process, crashed
    RESTART = "restart"  #: a supervisor started something anew
    STORM = "storm"  #: a supervisor gave up: more restarts than it allows
    UNKNOWN_ANSWER = "unknown_answer"  #: a service gave an undocumented answer: a status, a body, an HTTP code
    CONFIGURATION = "configuration"  #: a service refuses us for what only an operator can put right: Apple's 21004, say
    OUTAGE = "outage"  #: a service has been unavailable for ``OUTAGE_SECONDS``
    RECOVERED = "recovered"  #: a service whose outage was told is available again
    DEAD_LETTERS = "dead_letters"  #: more than ``DEAD_LETTERS`` messages were moved to that queue within a minute
    ABANDONED = "abandoned"  #: a drain was over before all messages were finished, and handed them back
    NODE_LOST = "node_lost"  #: a node that shares the work is not heard of any more; the others have its part now
    STEPPED_DOWN = "stepped_down"  #: an active node could receive nothing; another one is active now


_SOMETIMES = {AlertKind.OUTAGE, AlertKind.RECOVERED, AlertKind.DEAD_LETTERS}
#: Incidents that are an alert each, by their kind; it is the alert's, too.
_ALWAYS = {kind.value: kind for kind in AlertKind if kind not in _SOMETIMES}


@dataclass(frozen=True, slots=True)
class Origin:
    """The process that sends alerts."""

    host: str
    process: str  #: ``main``, ``worker-1`` and so on, or ``parent``
    source_queue: str  #: several are separated by a comma and a space
    software_version: str


@dataclass(frozen=True, slots=True)
class Alert:
    """One incident, or several of a kind, that an operator should know of now."""

    kind: AlertKind
    count: int  #: of incidents
    first_at_seconds: float  #: UNIX time
    last_at_seconds: float  #: UNIX time
    summary: str  #: one line, of the newest
    story: tuple[str, ...]  #: lines: what led to the newest
    origin: Origin
    summaries: Mapping[str, int] = field(default_factory=dict)  #: how many had which; at most ``MAX_SUMMARIES``

    def as_json(self) -> dict[str, Any]:
        """Return the body of the message; times are ISO 8601 in UTC."""
        return {
            "version": VERSION,
            "kind": self.kind.value,
            "count": self.count,
            "first_at": _iso(self.first_at_seconds),
            "last_at": _iso(self.last_at_seconds),
            "summary": self.summary,
            "story": [*self._what_differs(), *self.story],
            "host": self.origin.host,
            "process": self.origin.process,
            "source_queue": self.origin.source_queue,
            "software_version": self.origin.software_version,
        }

    @property
    def body(self) -> str:
        """``as_json`` as text, of at most some 40 KB."""
        return json.dumps(self.as_json(), ensure_ascii=False)

    def merged(self, later: Alert) -> Alert:
        """Return both as one alert, with the story of the later one."""
        summaries = dict(self.summaries)
        for summary, count in later.summaries.items():
            if summary in summaries or len(summaries) < MAX_SUMMARIES:
                summaries[summary] = summaries.get(summary, 0) + count
        return replace(
            later,
            count=self.count + later.count,
            first_at_seconds=min(self.first_at_seconds, later.first_at_seconds),
            last_at_seconds=max(self.last_at_seconds, later.last_at_seconds),
            summaries=summaries,
        )

    def _what_differs(self) -> Sequence[str]:
        if len(self.summaries) < 2:
            return ()
        lines = [f"{count} x {summary}" for summary, count in self.summaries.items()]
        others = self.count - sum(self.summaries.values())
        return [*lines, f"{others} others"] if others else lines


@dataclass(slots=True)
class _Outage:
    since_seconds: float  #: monotonic
    incident: Incident
    is_told: bool = False


class AlertBook:
    """Decides when alerts are due. Every ``now`` is monotonic."""

    def __init__(self, origin: Origin) -> None:
        self._origin = origin
        self._waiting: dict[AlertKind, Alert] = {}  # the oldest first
        self._not_before: dict[AlertKind, float] = {}  # the end of the period of the last alert of a kind
        self._outages: dict[str, _Outage] = {}  # by the service
        self._moved_until_seconds = -inf  # monotonic; the end of the minute for which dead letters are counted
        self._moves: Alert | None = None  # of that minute; None: it has been told

    def __len__(self) -> int:
        return len(self._waiting)

    def note(self, incident: Incident, now: float) -> None:
        match incident.kind:
            case "outage":
                # A gateway that is restarted in an outage forgets it, and meets it anew.
                self._outages[incident.subject] = _Outage(now, incident)
            case "recovered":
                self._recovered(incident, now)
            case "moved":
                self._moved(incident, now)
            case kind if kind in _ALWAYS:
                self._gather(self._alert(_ALWAYS[kind], incident))

    def take_due(self, now: float, most: int = len(AlertKind)) -> list[Alert]:
        """Remove and return the alerts to send now, the oldest first."""
        for outage in self._outages.values():
            if not outage.is_told and outage.since_seconds + OUTAGE_SECONDS <= now:
                outage.is_told = True
                self._gather(self._long_outage(outage, now))
        kinds = [kind for kind in self._waiting if self._not_before.get(kind, -inf) <= now][:most]
        self._not_before |= dict.fromkeys(kinds, now + PERIOD_SECONDS)
        return [self._waiting.pop(kind) for kind in kinds]

    def take_all(self, now: float) -> list[Alert]:
        """Remove and return also the alerts that would be due later."""
        self._not_before.clear()
        return self.take_due(now)

    def put_back(self, unsent: Sequence[Alert]) -> None:
        """Make unsent alerts due at once, merged with what has happened since."""
        newer, self._waiting = self._waiting, {}
        for alert in (*unsent, *newer.values()):
            self._gather(alert)
        for alert in unsent:
            self._not_before.pop(alert.kind, None)

    def next_due_seconds(self) -> float | None:
        """Return when to call ``take_due`` next; None: not before something is noted."""
        moments = [self._not_before.get(kind, -inf) for kind in self._waiting]
        moments += [each.since_seconds + OUTAGE_SECONDS for each in self._outages.values() if not each.is_told]
        return min(moments, default=None)

    def _gather(self, alert: Alert) -> None:
        earlier = self._waiting.get(alert.kind)
        self._waiting[alert.kind] = alert if earlier is None else earlier.merged(alert)

    def _long_outage(self, outage: _Outage, now: float) -> Alert:
        seconds = now - outage.since_seconds
        alert = self._alert(AlertKind.OUTAGE, outage.incident, f"unavailable for {seconds:.0f} s by now")
        return replace(alert, last_at_seconds=outage.incident.at_seconds + seconds)

    def _recovered(self, incident: Incident, now: float) -> None:
        outage = self._outages.pop(incident.subject, None)
        if outage is not None and outage.is_told:
            lasted = f"it was unavailable for {now - outage.since_seconds:.0f} s"
            self._gather(self._alert(AlertKind.RECOVERED, incident, lasted))

    def _moved(self, incident: Incident, now: float) -> None:
        moved = self._alert(AlertKind.DEAD_LETTERS, incident)
        if self._moved_until_seconds <= now:
            self._moved_until_seconds, self._moves = now + PERIOD_SECONDS, moved
        elif self._moves is None:
            self._gather(moved)
            return
        else:
            self._moves = self._moves.merged(moved)
        if self._moves.count > DEAD_LETTERS:
            self._gather(self._moves)
            self._moves = None

    def _alert(self, kind: AlertKind, incident: Incident, *first_lines: str) -> Alert:
        summary, at_seconds = one_line(incident.summary), incident.at_seconds
        message = () if incident.message_id is None else (f"message {incident.message_id}",)
        story = (*first_lines, *message, *incident.story[:MAX_STORY_LINES])
        count, lines = incident.count, tuple(map(one_line, story))
        return Alert(kind, count, at_seconds, at_seconds, summary, lines, self._origin, {summary: count})


def _iso(unix_seconds: float) -> str:
    return datetime.fromtimestamp(unix_seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


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
