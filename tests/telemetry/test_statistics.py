"""Statistics: what is counted, and what several processes have counted together."""

from __future__ import annotations

import json
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from receipt_actors.domain.messages import Verdict
from receipt_actors.domain.reasons import Reason
from receipt_actors.otp import ActorSystem
from receipt_actors.telemetry.events import MessageFinished, MessagesReceived, RequestsMade, ResultPosted
from receipt_actors.telemetry.latencies import SHORTEST_SECONDS, Latencies
from receipt_actors.telemetry.statistics import DescribeStatistics, ServiceCalls, Statistics, StatisticsSnapshot

seconds = st.floats(SHORTEST_SECONDS, 1e5)


def latencies(*durations: float) -> Latencies:
    histogram = Latencies()
    for duration in durations:
        histogram.record(duration)
    return histogram


@given(st.lists(seconds, min_size=1), st.sampled_from([1, 50, 95, 99, 100]))
def test_a_percentile_is_right_to_one_percent(durations: list[float], percent: float) -> None:
    """It is the smallest duration that so many percent do not exceed."""
    rank = max(1, -(-len(durations) * percent // 100))
    expected = sorted(durations)[int(rank) - 1]
    assert latencies(*durations).percentile_seconds(percent) == pytest.approx(expected, rel=0.0101)


def test_of_nothing_there_is_no_percentile() -> None:
    """Nothing was counted, nothing is claimed."""
    assert Latencies().percentile_seconds(50) is None


@pytest.mark.parametrize("strange", [0.0, -1.0, 1e-9])
def test_a_clock_that_steps_does_no_harm(strange: float) -> None:
    """What is too short to be told counts as the shortest."""
    assert latencies(strange).percentile_seconds(50) == pytest.approx(SHORTEST_SECONDS, rel=0.02)


@given(st.lists(seconds), st.lists(seconds))
def test_histograms_of_two_processes_add_up(ours: list[float], theirs: list[float]) -> None:
    """As if one process had counted it all; neither is changed by that."""
    mine, other = latencies(*ours), latencies(*theirs)
    assert mine.merged(other) == latencies(*ours, *theirs)
    assert (mine.count, other.count) == (len(ours), len(theirs))


def snapshot(*facts: object) -> StatisticsSnapshot:
    actors = ActorSystem("statistics")
    try:
        counter = actors.start(Statistics)
        for fact in facts:
            counter.cast(fact)
        described: StatisticsSnapshot = counter.call(DescribeStatistics(), 10)
        return described
    finally:
        actors.stop()


FACTS = [
    MessagesReceived(3),
    RequestsMade("ledger", 1, 25),
    RequestsMade("ledger", 1, 1),
    ResultPosted(Verdict.OK, Reason.CLAIMED),
    MessageFinished("answered", None, 0.25, (("verifying", 0.2), ("deleting", 0.05))),
    MessageFinished("handed_back", Reason.DRAINED, 9.0),
]


def test_everything_is_counted_once() -> None:
    """Latencies are of what was finished; what was handed back would spoil them."""
    seen = snapshot(*FACTS)
    assert seen.received == 3
    assert seen.results == {(Verdict.OK, Reason.CLAIMED): 1}
    assert (seen.count("answered"), seen.count("handed_back")) == (1, 1)
    assert seen.calls == {"ledger": ServiceCalls(requests=2, entries=26)}
    assert seen.latencies == latencies(0.25)
    assert seen.steps == {"verifying": latencies(0.2), "deleting": latencies(0.05)}


def test_a_snapshot_goes_through_json_unchanged() -> None:
    """It travels between processes, and into files."""
    seen = snapshot(*FACTS)
    assert StatisticsSnapshot.from_json(json.loads(json.dumps(seen.as_json()))) == seen


def test_snapshots_of_two_processes_add_up() -> None:
    """What only one of them has seen is there, too."""
    assert snapshot(*FACTS).merged(snapshot(RequestsMade("app_store", 1, 1), *FACTS)) == snapshot(
        *FACTS, *FACTS, RequestsMade("app_store", 1, 1)
    )
    assert snapshot(*FACTS).merged(StatisticsSnapshot()) == snapshot(*FACTS)


def test_the_percentiles_are_there_to_be_read() -> None:
    """A script that reads the file needs to know nothing of buckets."""
    data = latencies(0.1, 0.2, 0.3).as_json()
    assert data["count"] == 3
    assert data["p50_seconds"] == pytest.approx(statistics.median([0.1, 0.2, 0.3]), rel=0.0101)
