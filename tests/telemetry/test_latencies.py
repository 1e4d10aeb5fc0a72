"""What the histogram of durations can tell besides percentiles."""

from __future__ import annotations

import pytest

from receipt_actors.telemetry.latencies import Latencies


def latencies(*seconds: float) -> Latencies:
    counted = Latencies()
    for each in seconds:
        counted.record(each)
    return counted


def test_counts_up_to_bounds_are_cumulative() -> None:
    """Each has all that is shorter; what is longer than the last is in none."""
    assert latencies(0.01, 0.02, 0.2, 9.0).counts_up_to([0.005, 0.05, 0.5, 5.0]) == [0, 2, 3, 3]
    assert Latencies().counts_up_to([0.1, 1.0]) == [0, 0]


def test_the_sum_is_right_to_a_percent() -> None:
    """Though no single duration is kept."""
    seconds = [0.001 * number for number in range(1, 2000)]
    assert latencies(*seconds).sum_seconds == pytest.approx(sum(seconds), rel=0.01)
    assert Latencies().sum_seconds == 0


def test_since_is_what_was_added() -> None:
    """Of what became less, because counts were lost, there is nothing."""
    assert latencies(0.1, 0.1, 3.0).since(latencies(0.1)) == latencies(0.1, 3.0)
    assert latencies(0.1).since(latencies(3.0, 3.0)) == latencies(0.1)
