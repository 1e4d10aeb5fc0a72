"""Which incidents are worth an alert, when it is due, and what it says. Pure.

The first alert of a kind is due at once. Those that follow within ``PERIOD_SECONDS`` are summed up, and due at its end.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from enum import StrEnum
from math import inf
from typing import Any

from receipt_actors.telemetry.incidents import MAX_STORY_LINES, one_line
from receipt_actors.telemetry.overview import Incident

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
