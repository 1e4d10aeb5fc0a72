"""The collector: counts of living and dead workers together, and who is idle."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

import pytest

from receipt_actors.domain.limits import Limits
from receipt_actors.otp import NORMAL, Ref, Stop
from receipt_actors.scale.processes.collector import REPORT_SECONDS, Collector, collected_by
from receipt_actors.scale.processes.messages import Reported, Stopped
from receipt_actors.scale.processes.protocol import DescribeGroup, DescribeInFlight, DescribeWorker, Group, WorkerReport
from receipt_actors.scale.processes.shares import Shares
from receipt_actors.telemetry.overview import Incident, ProcessOverview, State, Usage
from receipt_actors.telemetry.queue_depths import LOOK_SECONDS, LookAtQueues
from receipt_actors.telemetry.statistics import StatisticsSnapshot
from tests.pipeline.stand_ins import Stage

NAMES = ("worker-1", "worker-2")
WHOLE = Limits(12, 6, 6)


@pytest.fixture
def stage() -> Iterator[Stage]:
    stage = Stage()
    yield stage
    stage.close()


def start_collector(stage: Stage) -> Ref:
    return stage.actors.start(
        Collector, Group(NAMES, (), {}, WHOLE, Shares(WHOLE), on_refusal=lambda: None, on_complete=lambda: None)
    )


def report(name: str, pid: int, received: int) -> WorkerReport:
    return WorkerReport(name, pid, Reported(process(name, pid, received)))


def process(name: str, pid: int, received: int) -> ProcessOverview:
    statistics = StatisticsSnapshot(received)
    return ProcessOverview(
        name, pid, 0.0, State.CONSUMING, 0, 0, (), Usage(1.0, 2, 3, 4), (), None, statistics, idle_seconds=9.0
    )


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


def test_a_crash_of_the_collector_forgets_nothing(stage: Stage) -> None:
    """What dead processes had counted is there, and so are the last words of each."""
    first = start_collector(stage)
    first.cast(report(NAMES[0], 1, 10))
    first.cast(report(NAMES[0], 2, 3))
    stage.settle()
    first.kill()
    assert received(stage, start_collector(stage)) == 13
    assert collected_by(stage.actors).heard[NAMES[0]].process.pid == 2


def test_incidents_of_all_processes_are_kept_with_their_names(stage: Stage) -> None:
    """Of dead ones as well; told once, they need not be told again."""
    collector = start_collector(stage)
    crash, outage = Incident(1.0, "crash", "a crash"), Incident(2.0, "outage", "an outage")
    collector.cast(WorkerReport(NAMES[0], 1, Reported(process(NAMES[0], 1, 0), incidents=(crash,))))
    collector.cast(report(NAMES[0], 1, 0))
    collector.cast(WorkerReport(NAMES[0], 2, Reported(process(NAMES[0], 2, 0), incidents=(outage,))))
    stage.settle()
    own = Incident(1.5, "restart", "another one", process="parent")
    assert collected_by(stage.actors).incidents_with((own,)) == (
        replace(outage, process=NAMES[0]),
        own,
        replace(crash, process=NAMES[0]),
    )


def test_one_worker_at_a_time_looks_at_the_queues(stage: Stage) -> None:
    """And only while somebody wants to know; each has its turn."""
    workers = [stage.stand_in(name, lambda _: None) for name in NAMES]
    collector = start_collector(stage)

    def lookers() -> list[list[bool]]:
        stage.advance(LOOK_SECONDS)
        return [[ask.looks_at_queues for ask in stage.calls(worker, DescribeWorker)] for worker in workers]

    assert not any(map(any, lookers()))
    collector.cast(LookAtQueues())
    assert sorted(map(sum, lookers())) == [0, 1]
    collector.cast(LookAtQueues())
    assert list(map(sum, lookers())) == [1, 1]


def test_a_process_that_has_not_looked_does_not_make_others_forget(stage: Stage) -> None:
    """It has just been started; one that has looked in vain knows that nobody knows."""
    collector = start_collector(stage)

    def queues_after(name: str, pid: int, depth: int | None) -> Mapping[str, int | None]:
        collector.cast(WorkerReport(name, pid, Reported(process(name, pid, 0), queues={"ReceiptsSQS": depth})))
        stage.settle()
        return collected_by(stage.actors).queues

    assert queues_after(NAMES[0], 1, 17) == {"ReceiptsSQS": 17}
    assert queues_after(NAMES[1], 2, None) == {"ReceiptsSQS": 17}
    assert queues_after(NAMES[0], 1, None) == {"ReceiptsSQS": None}
