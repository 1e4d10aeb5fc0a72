"""Incidents: what becomes of reports and facts, who is told of them when, and what a crash does not forget."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import pytest

from receipt_actors.otp import (
    ONE_FOR_ONE,
    SHUTDOWN,
    SIMPLE_ONE_FOR_ONE,
    TEMPORARY,
    ChildSpec,
    GenServer,
    Ref,
    Start,
    Started,
    start_child,
    supervisor_spec,
)
from receipt_actors.telemetry.incidents import (
    INCIDENTS,
    MAX_INCIDENTS,
    MAX_OF_A_KIND,
    PERIOD_SECONDS,
    SETTLE_SECONDS,
    IncidentKind,
    Incidents,
    Noticed,
    ProcessorCrashed,
    incidents_of,
    listen_to_reports,
)
from receipt_actors.telemetry.overview import Incident
from receipt_actors.telemetry.statistics import statistics_of
from tests.pipeline.stand_ins import Stage


class Fragile(GenServer):
    def handle_cast(self, request: Any) -> Any:
        raise ValueError(request)


class House:
    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        listen_to_reports(stage.actors)
        self.listener = stage.stand_in("listener")
        children = [
            ChildSpec("incidents", Start(Incidents, ("listener",), name=INCIDENTS)),
            supervisor_spec("group", ONE_FOR_ONE, [ChildSpec("fragile", Start(Fragile, name="fragile"))], intensity=3),
            supervisor_spec("many", SIMPLE_ONE_FOR_ONE, [ChildSpec("one", Start(Fragile), TEMPORARY)]),
        ]
        spec = supervisor_spec("root", ONE_FOR_ONE, children, intensity=10)
        assert isinstance(spec.start, Start)
        stage.actors.start(spec.start.actor_class, *spec.start.args, name="root", **spec.start.kwargs)

    def find(self, name: str) -> Ref:
        ref = self.stage.actors.whereis(name)
        assert ref is not None
        return ref

    def notice(
        self, summary: str, kind: IncidentKind = IncidentKind.UNKNOWN_ANSWER, message_id: str | None = None
    ) -> None:
        self.find(INCIDENTS).cast(Noticed(kind, "ledger", summary, message_id))

    def incidents(self) -> tuple[Incident, ...]:
        self.stage.settle()
        return incidents_of(self.stage.actors)

    def told(self) -> list[Incident]:
        return self.stage.told(self.listener, Incident)


@pytest.fixture
def house() -> Iterator[House]:
    stage = Stage()
    yield House(stage)
    stage.close()


def test_a_crash_is_told_with_its_story(house: House) -> None:
    house.find("fragile").cast("bug")
    (crash,) = house.incidents()
    assert (crash.kind, crash.subject, crash.count) == ("crash", "fragile", 1)
    assert crash.summary == "fragile crashed while handling str: ValueError: bug"
    where, waited, supervisor = crash.story
    assert where.startswith("at ")
    assert "in handle_cast" in where
    assert waited == "0 messages waited for it"
    assert supervisor == "group: restart 1, 3 allowed in 5 s"


def test_the_crash_of_a_processor_is_told_with_its_message(house: House) -> None:
    result = start_child(house.find("many"), ())
    assert isinstance(result, Started)
    result.ref.cast("bug")
    house.stage.settle()
    house.find(INCIDENTS).cast(ProcessorCrashed(result.ref, "m-1", "message m-1 is handed back"))
    (crash,) = house.incidents()
    assert (crash.kind, crash.subject, crash.message_id) == ("crash", "Fragile", "m-1")
    assert crash.story[-2:] == ("many: it is temporary and not restarted", "message m-1 is handed back")


def test_a_child_that_was_killed_is_a_restart(house: House) -> None:
    house.find("fragile").kill()
    (restart,) = house.incidents()
    assert (restart.kind, restart.subject) == ("restart", "fragile")
    assert restart.story == ("group: restart 1, 3 allowed in 5 s",)


def test_the_story_of_a_storm_is_the_crash_that_was_too_much(house: House) -> None:
    for _ in range(4):
        house.find("fragile").cast("bug")
        house.stage.settle()
    (storm,) = [incident for incident in house.incidents() if incident.kind == "storm"]
    crash, where, *others = storm.story
    assert crash == "fragile crashed while handling str: ValueError: bug"
    assert "in handle_cast" in where
    assert others[-1] == "group: restart 4, 3 allowed in 5 s"


def test_alike_ones_within_a_minute_are_one(house: House) -> None:
    house.notice("message 17 failed", message_id="m-17")
    house.stage.advance(PERIOD_SECONDS - 1)
    house.notice("message 18 failed", message_id="m-18")
    house.notice("something else")
    other, alike = house.incidents()
    assert (alike.summary, alike.message_id, alike.count) == ("message 18 failed", "m-18", 2)
    assert (other.summary, other.count) == ("something else", 1)
    assert alike.at_seconds == house.stage.clock.time()
    house.stage.advance(1)
    house.notice("message 19 failed")
    assert [incident.count for incident in house.incidents()] == [1, 1, 2]


def test_a_listener_is_told_when_a_story_is_complete(house: House) -> None:
    house.notice("down")
    house.notice("down")
    assert house.told() == []
    house.stage.advance(SETTLE_SECONDS)
    assert [incident.count for incident in house.told()] == [2]
    for _ in range(3):
        house.notice("down")
    assert len(house.told()) == 1
    house.stage.advance(PERIOD_SECONDS)
    assert [incident.count for incident in house.told()] == [2, 3]
    house.stage.advance(PERIOD_SECONDS)
    assert len(house.told()) == 2


def test_outages_and_their_ends_are_told_at_once_and_in_order(house: House) -> None:
    steps = [IncidentKind.OUTAGE, IncidentKind.RECOVERED] * 3 + [IncidentKind.OUTAGE]
    for kind in steps:
        house.notice("it is so now", kind)
        house.stage.advance(1)
    assert [(incident.kind, incident.count) for incident in house.told()] == [(kind.value, 1) for kind in steps]


def test_what_has_not_been_told_is_told_at_the_end(house: House) -> None:
    house.notice("down")
    house.stage.settle()
    house.find("root").exit(SHUTDOWN)
    assert [incident.summary for incident in house.told()] == ["down"]


def test_a_crash_of_the_actor_forgets_no_incident(house: House) -> None:
    house.notice("down")
    house.stage.settle()
    house.find(INCIDENTS).kill()
    house.stage.settle()
    house.notice("down again")
    assert [incident.summary for incident in house.incidents()] == ["down again", "down"]


def test_only_the_last_ones_are_kept(house: House) -> None:
    summaries = [f"{first} {second}" for first, second in itertools.product("abcdefgh", repeat=2)]
    house.notice("once", IncidentKind.CONFIGURATION)
    kinds = [IncidentKind.UNKNOWN_ANSWER, IncidentKind.CRASH, IncidentKind.STORM, IncidentKind.RESTART]
    for summary in summaries:
        house.notice(summary, kinds[0])
    newest_first = [incident.summary for incident in house.incidents()]
    assert newest_first == [*summaries[: -MAX_OF_A_KIND - 1 : -1], "once"]
    for kind, summary in itertools.product(kinds, summaries):
        house.notice(summary, kind)
    assert len(house.incidents()) == MAX_INCIDENTS
    counts = {kind.value: len(summaries) for kind in kinds[1:]}
    told = {**counts, "unknown_answer": 2 * len(summaries), "configuration": 1}
    assert statistics_of(house.stage.actors).snapshot().incidents == told


def test_messages_are_alike_where_their_reason_is_the_same(house: House) -> None:
    for number, detail in enumerate(("too short", "too long", "no text at all")):
        house.find(INCIDENTS).cast(Noticed(IncidentKind.MOVED, "bad_receipt", f"moved: {detail}", f"m-{number}"))
    house.find(INCIDENTS).cast(Noticed(IncidentKind.MOVED, "not_json", "moved", "m-9"))
    other, alike = house.incidents()
    assert (other.subject, other.count) == ("not_json", 1)
    assert (alike.summary, alike.message_id, alike.count) == ("moved: no text at all", "m-2", 3)


def test_nothing_that_looks_like_a_receipt_is_kept(house: House) -> None:
    house.notice("it said " + "MIIT0aB3" * 20 + "\nand more" + ", and more" * 100)
    (incident,) = house.incidents()
    assert incident.summary.startswith("it said ... and more, and more")
    assert len(incident.summary) == 300
