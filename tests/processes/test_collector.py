"""The collector: counts of living and dead workers together, and who is idle."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from receipt_actors.otp import NORMAL, Ref, Stop
from receipt_actors.processes.collector import REPORT_SECONDS, Collector
from receipt_actors.processes.messages import Reported, Stopped
from receipt_actors.processes.protocol import DescribeGroup, DescribeInFlight, DescribeWorker, Group, WorkerReport
from receipt_actors.telemetry.statistics import StatisticsSnapshot
from tests.actors.stand_ins import Stage

NAMES = ("worker-1", "worker-2")


@pytest.fixture
def stage() -> Iterator[Stage]:
    stage = Stage()
    yield stage
    stage.close()


def start_collector(stage: Stage) -> Ref:
    return stage.actors.start(Collector, Group(NAMES, (), {}, on_refusal=lambda: None, on_complete=lambda: None))


def report(name: str, pid: int, received: int) -> WorkerReport:
    return WorkerReport(name, pid, Reported(0, 0, (), 9.0, StatisticsSnapshot(received)))


def received(stage: Stage, collector: Ref) -> int:
    stage.settle()
    count: int = collector.call(DescribeGroup()).statistics.received
    return count


def test_the_newest_counts_of_all_workers_are_added_up(stage: Stage) -> None:
    """Each is asked every second; one that does not answer is not asked again."""
    first, second = map(stage.stand_in, NAMES)
    collector = start_collector(stage)
    stage.advance(REPORT_SECONDS)
    stage.answer(first, report(NAMES[0], 1, 10))
    stage.advance(3 * REPORT_SECONDS)
    assert len(stage.calls(second, DescribeWorker)) == 1
    stage.answer(first, report(NAMES[0], 1, 15))
    stage.answer(second, report(NAMES[1], 2, 1))
    assert received(stage, collector) == 16


def test_what_a_dead_process_had_reported_stays_counted(stage: Stage) -> None:
    """Its successor begins at nothing."""
    collector = start_collector(stage)
    collector.cast(report(NAMES[0], 1, 10))
    collector.cast(report(NAMES[0], 2, 3))
    collector.cast(WorkerReport(NAMES[0], 2, Stopped(4, StatisticsSnapshot(5))))
    assert received(stage, collector) == 15
    assert collector.call(DescribeGroup()).handed_back == 4


def test_what_is_in_flight_is_known_when_all_have_answered(stage: Stage) -> None:
    """And not at all where one of them does not consume, or dies meanwhile."""
    first, second = map(stage.stand_in, NAMES)
    collector = start_collector(stage)
    asking = stage.ask(collector, DescribeInFlight(5.0))
    stage.answer(first, report(NAMES[0], 1, 0))
    assert stage.replies(asking) == []
    stage.answer(second, report(NAMES[1], 2, 0))
    assert stage.reply_to(asking) == (report(NAMES[0], 1, 0), report(NAMES[1], 2, 0))
    asking = stage.ask(collector, DescribeInFlight(5.0))
    stage.answer(first, None)
    assert stage.reply_to(asking) is None
    asking = stage.ask(collector, DescribeInFlight(5.0))
    second.cast(Stop(NORMAL))
    assert stage.reply_to(asking) is None
