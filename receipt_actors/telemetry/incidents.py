"""Incidents: the last things that an operator may want to know of, each with its story.

The actor ``incidents`` gets OTP's reports and the facts that actors cast to it (``Noticed``). Related ones become one
incident: a validator's crash, what its supervisor did, and what became of its message. Alike ones within a minute are
one with a count: they differ in numbers and ids only, or are about messages and have the same reason. Listeners
(``alerts``) get each when its story is complete, and the alike ones at the end of the minute.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, ClassVar

from receipt_actors.domain.values import masked, sendable
from receipt_actors.otp import ActorSystem, CrashReport, ExitReason, GenServer, Name, Ref, Report, SupervisorReport
from receipt_actors.telemetry.logs import shape
from receipt_actors.telemetry.overview import Incident
from receipt_actors.telemetry.statistics import statistics_of

INCIDENTS = "incidents"  #: the name of the actor, and of the incidents that its system keeps
MAX_INCIDENTS = 100  #: that are kept; the oldest goes
MAX_OF_A_KIND = 30  #: of those: a hundred bad messages must not hide a crash
MAX_LINE_CHARACTERS = 300
MAX_STORY_LINES = 20
PERIOD_SECONDS = 60.0  #: within which alike ones are one
SETTLE_SECONDS = 0.5  #: for the rest of a story to come in
MAX_OPEN = 1_000  #: different ones within a period; then the oldest is told early
MAX_CRASHES = 1_000  #: that later reports can still be added to


class IncidentKind(StrEnum):
    """What happened."""

    CRASH = "crash"  #: an actor crashed, could not be started, or did not end as it was told
    RESTART = "restart"  #: a supervisor started an actor again that had not crashed itself: it was killed, say
    STORM = "storm"  #: a supervisor gave up: more restarts than it allows
    UNKNOWN_ANSWER = "unknown_answer"  #: a service gave an answer that is not documented
    CONFIGURATION = "configuration"  #: a service refuses us for what only an operator can put right: Apple's 21004, say
    OUTAGE = "outage"  #: a service is unavailable
    RECOVERED = "recovered"  #: it is available again
    HANDED_BACK = "handed_back"  #: a message was given up for this delivery; it comes back
    MOVED = "moved"  #: a message was moved to the dead-letter queue
    ABANDONED = "abandoned"  #: a drain was over before all messages were finished, and handed them back
    ROLE = "role"  #: this node took up work that other nodes share, stands by, or lost its place
    NODE_LOST = "node_lost"  #: this node took another one, which is not heard of any more, out of their group
    STEPPED_DOWN = "stepped_down"  #: this node could receive nothing, and stepped down for one that stands by


OF_MESSAGES = frozenset({IncidentKind.MOVED, IncidentKind.HANDED_BACK})  #: alike where their reason is the same
#: Told at once: so the beginning and the end of an outage come in order.
_WITHOUT_A_STORY = frozenset({IncidentKind.OUTAGE, IncidentKind.RECOVERED, IncidentKind.ABANDONED})


@dataclass(frozen=True, slots=True)
class Noticed:
    kind: IncidentKind
    subject: str  #: a service, a reason, an actor
    summary: str  #: one line
    message_id: str | None = None
    story: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ProcessorCrashed:
    actor: Ref  #: its crash is reported, too
    message_id: str
    outcome: str  #: of the message: a line of the story


@dataclass(frozen=True, slots=True)
class _Due:
    opened: _Open
    is_over: bool  #: its period: the next one that is alike is another one


@dataclass(slots=True, eq=False)
class _Open:
    """An incident to which alike ones are still added."""

    key: tuple[str, str, str]
    incident: Incident
    told: int = 0  #: how many of its count


def listen_to_reports(system: ActorSystem) -> None:
    """Cast the reports of supervisors and crashing actors to the system's actor ``incidents``."""

    def tell(report: Report) -> None:
        incidents = system.whereis(INCIDENTS)
        if incidents is not None and isinstance(report, CrashReport | SupervisorReport):
            incidents.cast(report)

    system.add_report_listener(tell)


def incidents_of(system: ActorSystem) -> tuple[Incident, ...]:
    """Return the incidents of a system, the newest first; on any thread, also after its end."""
    incidents: tuple[Incident, ...] = system.terms.get(INCIDENTS, ())
    return incidents


class Incidents(GenServer):
    """See the module. Casts to ``listeners`` each ``Incident`` with the ``count`` of those that are news to them.

    The actor system keeps the incidents: a crash forgets only what the listeners have not got yet.
    """

    trap_exit: ClassVar[bool] = True

    def __init__(self, listeners: Sequence[Name] = ()) -> None:
        self._listeners = listeners
        self._open: dict[tuple[str, str, str], _Open] = {}
        self._crashes: OrderedDict[str, _Open] = OrderedDict()  # by the actor, as reports write it; the oldest first

    # --- what happens ---

    def handle_cast(self, request: Any) -> Any:
        match request:
            case CrashReport():
                self._crashed(request)
            case SupervisorReport():
                self._supervised(request)
            case ProcessorCrashed(actor, message_id, outcome):
                self._add(self._crashes.get(str(actor)), [outcome], message_id)
            case Noticed(kind, subject, summary, message_id, story):
                self._note(kind, subject, summary, story, message_id)
            case _:
                return super().handle_cast(request)
        return None

    def _crashed(self, report: CrashReport) -> None:
        name = _short(report.actor)
        story = [] if report.location is None else [f"at {report.location}"]
        story.append(f"{report.mailbox_length} messages waited for it")
        summary = str(report).replace(report.actor, name, 1)
        self._crashes[report.actor] = self._note(IncidentKind.CRASH, name, summary, story)
        if len(self._crashes) > MAX_CRASHES:
            self._crashes.popitem(last=False)

    def _supervised(self, report: SupervisorReport) -> None:
        offender = report.offender
        crash = None if offender.ref is None else self._crashes.get(offender.ref)
        line = f"{_short(report.supervisor)}: {report.note or report.context}"
        match report.context:
            case "shutdown":
                last = () if crash is None else (crash.incident.summary, *crash.incident.story)
                message_id = None if crash is None else crash.incident.message_id
                self._note(IncidentKind.STORM, _short(report.supervisor), str(report), last, message_id)
            case "child_terminated" if crash is not None:
                self._add(crash, [line])
            case "child_terminated":
                kind = IncidentKind.CRASH if offender.restart == "temporary" else IncidentKind.RESTART
                self._note(kind, offender.id, f"{offender.id} ended: {report.reason}", [line])
            case _:
                self._note(IncidentKind.CRASH, offender.id, str(report))

    def _note(
        self, kind: IncidentKind, subject: str, summary: str, story: Sequence[str] = (), message_id: str | None = None
    ) -> _Open:
        summary = one_line(summary)
        seen = Incident(self.clock.time(), kind.value, summary, _lines(story), message_id, subject=one_line(subject))
        statistics_of(self.system).incident_noticed(kind.value)
        key = (kind.value, seen.subject, "" if kind in OF_MESSAGES else shape(summary))
        opened = self._open.get(key)
        if opened is None:
            if len(self._open) >= MAX_OPEN:
                self._close(next(iter(self._open.values())))
            opened = self._open[key] = _Open(key, seen)
            self.send_after(SETTLE_SECONDS, _Due(opened, is_over=False))
            self.send_after(PERIOD_SECONDS, _Due(opened, is_over=True))
            self._keep(None, seen)
        else:
            self._change(opened, replace(seen, count=opened.incident.count + 1))
        if kind in _WITHOUT_A_STORY:
            self._tell(opened)
        return opened

    def _add(self, opened: _Open | None, story: Sequence[str], message_id: str | None = None) -> None:
        if opened is not None:
            incident = opened.incident
            lines = (*incident.story, *(line for line in _lines(story) if line not in incident.story))[:MAX_STORY_LINES]
            self._change(opened, replace(incident, story=lines, message_id=message_id or incident.message_id))

    def _change(self, opened: _Open, incident: Incident) -> None:
        before, opened.incident = opened.incident, incident
        self._keep(before, incident)

    def _keep(self, before: Incident | None, incident: Incident) -> None:
        others = [other for other in incidents_of(self.system) if other is not before]
        if sum(other.kind == incident.kind for other in others) >= MAX_OF_A_KIND:
            others.remove(next(other for other in reversed(others) if other.kind == incident.kind))
        self.system.terms[INCIDENTS] = (incident, *others[: MAX_INCIDENTS - 1])

    # --- listeners ---

    def handle_info(self, message: Any) -> Any:
        match message:
            case _Due(opened, is_over):
                self._close(opened) if is_over else self._tell(opened)
            case _:
                return super().handle_info(message)
        return None

    def _close(self, opened: _Open) -> None:
        self._tell(opened)
        if self._open.get(opened.key) is opened:
            del self._open[opened.key]

    def terminate(self, reason: ExitReason) -> None:
        for opened in self._open.values():
            self._tell(opened)

    def _tell(self, opened: _Open) -> None:
        if count := opened.incident.count - opened.told:
            opened.told = opened.incident.count
            for listener in self._listeners:
                self.cast(listener, replace(opened.incident, count=count))


def _short(actor: str) -> str:
    # The registered name, else the class, out of a report: ``Validator (urn:uuid:...)``.
    class_name, _, rest = actor.partition(" (")
    return class_name if not rest or rest.startswith("urn:") else rest.removesuffix(")")


def _lines(story: Sequence[str]) -> tuple[str, ...]:
    return tuple(map(one_line, story[:MAX_STORY_LINES]))


def one_line(text: str) -> str:
    """Return one line of bounded length that SQS takes; what looks like a receipt or a key is masked."""
    plain = " ".join(sendable(masked(text)).split())
    return plain if len(plain) <= MAX_LINE_CHARACTERS else f"{plain[: MAX_LINE_CHARACTERS - 3]}..."
