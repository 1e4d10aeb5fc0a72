"""Which incidents are worth an alert, when it is due, and what it says. Pure: ``alerts`` has the actor.

What comes first of a kind is due at once. What follows within ``PERIOD_SECONDS`` is summed up, and due at their end: so
there are never more alerts in a minute than there are kinds, whatever happens.

==================  ===================================================================================================
kind                says
==================  ===================================================================================================
``crash``           an actor, or a worker process, crashed
``restart``         a supervisor started something anew
``storm``           a supervisor gave up: more restarts than it allows
``unknown_answer``  a service gave an undocumented answer: a status, a body, an HTTP code
``configuration``   a service refuses us for what only an operator can put right, such as Apple's 21004
``outage``          a service has been unavailable for ``outage_seconds``
``recovered``       a service whose outage was told is available again
``dead_letters``    more than ``dead_letters`` messages were moved to the dead-letter queue within a minute
``abandoned``       a drain was over before all messages were finished, and handed them back
``node_lost``       a node that shares the work is not heard of any more; the others have its part now
``seat_given_up``   a node that shares the work could receive nothing; another one tries in its place
==================  ===================================================================================================
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import StrEnum
from math import inf
from typing import Any

from receipt_actors.domain.values import masked, sendable
from receipt_actors.telemetry.overview import Incident

VERSION = 1  #: of the body of an alert
PERIOD_SECONDS = 60.0  #: for which alerts of a kind are summed up
MAX_LINE_CHARACTERS = 300
MAX_STORY_LINES = 20  #: of the newest incident
MAX_SUMMARIES = 8  #: different ones that are told apart


class AlertKind(StrEnum):
    """See the module."""

    CRASH = "crash"
    RESTART = "restart"
    STORM = "storm"
    UNKNOWN_ANSWER = "unknown_answer"
    CONFIGURATION = "configuration"
    OUTAGE = "outage"
    RECOVERED = "recovered"
    DEAD_LETTERS = "dead_letters"
    ABANDONED = "abandoned"
    NODE_LOST = "node_lost"
    SEAT_GIVEN_UP = "seat_given_up"


_SOMETIMES = {AlertKind.OUTAGE, AlertKind.RECOVERED, AlertKind.DEAD_LETTERS}
#: Incidents that are an alert each, by their kind; it is the alert's, too.
_ALWAYS = {kind.value: kind for kind in AlertKind if kind not in _SOMETIMES}


@dataclass(frozen=True, slots=True)
class AlertLimits:
    """What is no alert yet."""

    outage_seconds: float = 60.0  #: how long a service is unavailable
    dead_letters: int = 10  #: messages that are moved to the dead-letter queue within a minute


@dataclass(frozen=True, slots=True)
class Origin:
    """Who sends alerts."""

    host: str
    process: str  #: ``main``, ``worker-1`` and so on, or ``parent``
    source_queue: str  #: several are separated by a comma and a space
    software_version: str


@dataclass(frozen=True, slots=True)
class Alert:
    """What an operator should know of now: one incident, or several of a kind."""

    kind: AlertKind
    count: int  #: of incidents
    first_at_seconds: float  #: UNIX time
    last_at_seconds: float  #: UNIX time
    summary: str  #: one line, of the newest
    story: tuple[str, ...]  #: lines: what else there was, and what led to the newest
    origin: Origin

    def as_json(self) -> dict[str, Any]:
        """Return the body of its message; times are ISO 8601 in UTC."""
        return {
            "version": VERSION,
            "kind": self.kind.value,
            "count": self.count,
            "first_at": _iso(self.first_at_seconds),
            "last_at": _iso(self.last_at_seconds),
            "summary": self.summary,
            "story": list(self.story),
            "host": self.origin.host,
            "process": self.origin.process,
            "source_queue": self.origin.source_queue,
            "software_version": self.origin.software_version,
        }

    @property
    def body(self) -> str:
        """What ``as_json`` returns, as text of at most some 40 KB."""
        return json.dumps(self.as_json(), ensure_ascii=False)


@dataclass(frozen=True, slots=True)
class Gathered:
    """Incidents of one kind that become one alert."""

    kind: AlertKind
    count: int
    first_at_seconds: float
    last_at_seconds: float
    summary: str
    story: tuple[str, ...]
    summaries: Mapping[str, int]  #: how many incidents had which; at most ``MAX_SUMMARIES``

    def merged(self, later: Gathered) -> Gathered:
        """Return both in one; the newest is told in full."""
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

    def alert(self, origin: Origin) -> Alert:
        """Return what is told of it."""
        return Alert(
            self.kind,
            self.count,
            self.first_at_seconds,
            self.last_at_seconds,
            self.summary,
            (*self._overview(), *self.story),
            origin,
        )

    def _overview(self) -> Sequence[str]:
        """Say how many there were of which, where they differ."""
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


@dataclass(slots=True)
class _Moves:
    """Messages that were moved to the dead-letter queue within a minute."""

    until_seconds: float  #: monotonic
    gathered: Gathered
    are_told: bool = False


class AlertBook:
    """See the module. Every ``now`` is monotonic."""

    def __init__(self, limits: AlertLimits) -> None:
        self._limits = limits
        self._waiting: dict[AlertKind, Gathered] = {}  # the oldest first
        self._not_before: dict[AlertKind, float] = {}  # the end of the period of the last alert of a kind
        self._outages: dict[str, _Outage] = {}  # by the service
        self._moves: _Moves | None = None

    def __len__(self) -> int:
        """How many alerts wait to be sent."""
        return len(self._waiting)

    def note(self, incident: Incident, now: float) -> None:
        """Take an incident down."""
        match incident.kind:
            case "outage":
                # A gateway that is restarted in an outage forgets it, and meets it anew.
                self._outages[incident.subject] = _Outage(now, incident)
            case "recovered":
                self._recovered(incident, now)
            case "moved":
                self._moved(incident, now)
            case kind if kind in _ALWAYS:
                self._gather(_gathered(_ALWAYS[kind], incident))

    def take_due(self, now: float, most: int = len(AlertKind)) -> list[Gathered]:
        """Return what is to be sent now, the oldest first, and forget it."""
        for outage in self._outages.values():
            if not outage.is_told and outage.since_seconds + self._limits.outage_seconds <= now:
                outage.is_told = True
                self._gather(self._long_outage(outage, now))
        kinds = [kind for kind in self._waiting if self._not_before.get(kind, -inf) <= now][:most]
        self._not_before |= dict.fromkeys(kinds, now + PERIOD_SECONDS)
        return [self._waiting.pop(kind) for kind in kinds]

    def take_all(self, now: float) -> list[Gathered]:
        """Return all that would be due some time: there is no later."""
        self._not_before.clear()
        return self.take_due(now)

    def put_back(self, unsent: Sequence[Gathered]) -> None:
        """Have alerts that could not be sent due at once, with what has happened since."""
        newer, self._waiting = self._waiting, {}
        for gathered in (*unsent, *newer.values()):
            self._gather(gathered)
        for gathered in unsent:
            self._not_before.pop(gathered.kind, None)

    def next_due_seconds(self) -> float | None:
        """Return when ``take_due`` should be called next; None: not before something is noted."""
        moments = [self._not_before.get(kind, -inf) for kind in self._waiting]
        moments += [
            outage.since_seconds + self._limits.outage_seconds
            for outage in self._outages.values()
            if not outage.is_told
        ]
        return min(moments, default=None)

    def _gather(self, gathered: Gathered) -> None:
        earlier = self._waiting.get(gathered.kind)
        self._waiting[gathered.kind] = gathered if earlier is None else earlier.merged(gathered)

    def _long_outage(self, outage: _Outage, now: float) -> Gathered:
        seconds = now - outage.since_seconds
        gathered = _gathered(AlertKind.OUTAGE, outage.incident)
        return replace(
            gathered,
            last_at_seconds=outage.incident.at_seconds + seconds,
            story=(f"unavailable for {seconds:.0f} s by now", *gathered.story),
        )

    def _recovered(self, incident: Incident, now: float) -> None:
        outage = self._outages.pop(incident.subject, None)
        if outage is not None and outage.is_told:
            gathered = _gathered(AlertKind.RECOVERED, incident)
            lasted = f"it was unavailable for {now - outage.since_seconds:.0f} s"
            self._gather(replace(gathered, story=(lasted, *gathered.story)))

    def _moved(self, incident: Incident, now: float) -> None:
        moved = _gathered(AlertKind.DEAD_LETTERS, incident)
        moves = self._moves
        if moves is None or moves.until_seconds <= now:
            moves = self._moves = _Moves(now + PERIOD_SECONDS, moved)
        elif not moves.are_told:
            moves.gathered = moves.gathered.merged(moved)
        if moves.are_told:
            self._gather(moved)
        elif moves.gathered.count > self._limits.dead_letters:
            moves.are_told = True
            self._gather(moves.gathered)


def _gathered(kind: AlertKind, incident: Incident) -> Gathered:
    summary = _line(incident.summary)
    lines = [_line(line) for line in incident.story[:MAX_STORY_LINES]]
    if incident.message_id is not None:
        lines.insert(0, _line(f"message {incident.message_id}"))
    return Gathered(
        kind, incident.count, incident.at_seconds, incident.at_seconds, summary, tuple(lines), {summary: incident.count}
    )


def _line(text: str) -> str:
    """Return a line of bounded length that SQS takes, without what looks like a receipt or a key."""
    plain = " ".join(sendable(masked(text)).split())
    return plain if len(plain) <= MAX_LINE_CHARACTERS else f"{plain[: MAX_LINE_CHARACTERS - 3]}..."


def _iso(unix_seconds: float) -> str:
    return datetime.fromtimestamp(unix_seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
