"""Statistics: what was counted, the histogram of durations, and what was counted between two looks."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from receipt_actors.domain.messages import Verdict
from receipt_actors.domain.reasons import Reason
from receipt_actors.telemetry.statistics import (
    SHORTEST_SECONDS,
    Latencies,
    ServiceCalls,
    StatisticsSnapshot,
    StatisticsTable,
)

seconds = st.floats(SHORTEST_SECONDS, 1e5)


def latencies(*durations: float) -> Latencies:
    histogram = Latencies()
    for duration in durations:
        histogram.record(duration)
    return histogram


@given(st.lists(seconds, min_size=1), st.sampled_from([1, 50, 95, 99, 100]))
def test_a_percentile_is_right_to_one_percent(durations: list[float], percent: float) -> None:
    rank = max(1, -(-len(durations) * percent // 100))
    expected = sorted(durations)[int(rank) - 1]
    assert latencies(*durations).percentile_seconds(percent) == pytest.approx(expected, rel=0.0101)


@pytest.mark.parametrize("strange", [0.0, -1.0, 1e-9])
def test_a_clock_that_steps_does_no_harm(strange: float) -> None:
    assert latencies(strange).percentile_seconds(50) == pytest.approx(SHORTEST_SECONDS, rel=0.02)


Count = Callable[[StatisticsTable], None]


def snapshot(*counts: Count) -> StatisticsSnapshot:
    table = StatisticsTable()
    for count in counts:
        count(table)
    return table.snapshot()


COUNTS: list[Count] = [
    lambda table: table.messages_received(3),
    lambda table: table.request_answered("ledger", 25, 0.5),
    lambda table: table.request_answered("ledger", 1),
    lambda table: table.request_failed("ledger"),
    lambda table: table.entry_retried("ledger"),
    lambda table: table.result_posted(Verdict.OK, Reason.CLAIMED),
    lambda table: table.message_finished("answered", None, 0.25, [("verifying", 0.2), ("deleting", 0.05)]),
    lambda table: table.message_finished("handed_back", Reason.DRAINED, 9.0),
]


def test_everything_is_counted_once() -> None:
    seen = snapshot(*COUNTS)
    assert seen.received == 3
    assert seen.results == {(Verdict.OK, Reason.CLAIMED): 1}
    assert (seen.count("answered"), seen.count("handed_back")) == (1, 1)
    ledger = ServiceCalls(requests=2, entries=26, failures=1, retries=1, latencies=latencies(0.5))
    assert seen.calls == {"ledger": ledger}
    assert seen.latencies == latencies(0.25)
    assert seen.steps == {"verifying": latencies(0.2), "deleting": latencies(0.05)}


def test_a_snapshot_goes_through_json_unchanged() -> None:
    seen = snapshot(*COUNTS)
    assert StatisticsSnapshot.from_json(json.loads(json.dumps(seen.as_json()))) == seen


def test_snapshots_of_two_processes_add_up() -> None:
    def asked_apple(table: StatisticsTable) -> None:
        table.request_answered("app_store", 1)

    assert snapshot(*COUNTS).merged(snapshot(asked_apple, *COUNTS)) == snapshot(*COUNTS, *COUNTS, asked_apple)
    assert snapshot(*COUNTS).merged(StatisticsSnapshot()) == snapshot(*COUNTS)


def test_nothing_is_lost_where_threads_count_at_once() -> None:
    table = StatisticsTable()
    begin = threading.Barrier(4)

    def count() -> None:
        begin.wait()
        for _ in range(2000):
            table.messages_received(1)
            table.message_finished("answered", None, 0.25, [("verifying", 0.2)])

    threads = [threading.Thread(target=count) for _ in range(3)]
    for thread in threads:
        thread.start()
    begin.wait()
    while any(thread.is_alive() for thread in threads):
        seen = table.snapshot()
        assert seen.count("answered") == seen.latencies.count
    seen = table.snapshot()
    assert (seen.received, seen.count("answered"), seen.steps["verifying"].count) == (6000, 6000, 6000)


def counted(number: int, seconds: float) -> StatisticsSnapshot:
    latencies = Latencies()
    for _ in range(number):
        latencies.record(seconds)
    return StatisticsSnapshot(
        received=number,
        results={(Verdict.OK, Reason.CLAIMED): number},
        fates={("answered", None): number, ("handed_back", Reason.DRAINED): 1},
        latencies=latencies,
        steps={"verifying": latencies},
        calls={"ledger": ServiceCalls(number, 10 * number)},
    )


def test_a_change_has_what_came_later_and_nothing_else() -> None:
    before, new = counted(100, 0.01), counted(20, 3.0)
    changed = before.merged(new).since(before)
    assert changed.received == 20
    assert changed.results == {(Verdict.OK, Reason.CLAIMED): 20}
    assert changed.fates == {("answered", None): 20, ("handed_back", Reason.DRAINED): 1}
    assert changed.latencies == changed.steps["verifying"] == new.latencies
    assert changed.calls == {"ledger": ServiceCalls(20, 200)}
    unchanged = before.since(before)
    assert (unchanged.received, unchanged.results, unchanged.fates, unchanged.latencies.count) == (0, {}, {}, 0)


def test_a_count_that_began_anew_is_new_as_a_whole() -> None:
    changed = counted(3, 0.01).since(counted(100, 0.01))
    assert (changed.received, changed.count("answered"), changed.latencies.count) == (3, 3, 3)
    assert changed.calls == {"ledger": ServiceCalls(3, 30)}
