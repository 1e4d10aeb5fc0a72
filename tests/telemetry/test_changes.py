"""What was counted between two looks."""

from __future__ import annotations

from receipt_actors.domain.messages import Verdict
from receipt_actors.domain.reasons import Reason
from receipt_actors.telemetry.changes import change
from receipt_actors.telemetry.latencies import Latencies
from receipt_actors.telemetry.statistics import ServiceCalls, StatisticsSnapshot


def counted(number: int, seconds: float) -> StatisticsSnapshot:
    latencies = Latencies()
    for _ in range(number):
        latencies.record(seconds)
    return StatisticsSnapshot(
        received=number,
        results={(Verdict.OK, Reason.CLAIMED): number},
        fates={("answered", None): number, ("handed_back", Reason.DRAINED): 1},
        latencies=latencies,
        steps={"verifying": latencies.copy()},
        calls={"ledger": ServiceCalls(number, 10 * number)},
    )


def test_a_change_has_what_came_later_and_nothing_else() -> None:
    """Counts, fates, calls and latencies: the percentiles of a minute are not those of the whole life."""
    before, new = counted(100, 0.01), counted(20, 3.0)
    changed = change(before, before.merged(new))
    assert changed.received == 20
    assert changed.results == {(Verdict.OK, Reason.CLAIMED): 20}
    assert changed.fates == {("answered", None): 20, ("handed_back", Reason.DRAINED): 1}
    assert changed.latencies == changed.steps["verifying"] == new.latencies
    assert changed.calls == {"ledger": ServiceCalls(20, 200)}


def test_nothing_changed() -> None:
    """Not a zero for everything that ever was."""
    changed = change(counted(5, 1.0), counted(5, 1.0))
    assert (changed.received, changed.results, changed.fates, changed.latencies.count) == (0, {}, {}, 0)


def test_a_count_that_began_anew_is_new_as_a_whole() -> None:
    """Who counts has crashed: no rate is negative."""
    changed = change(counted(100, 0.01), counted(3, 0.01))
    assert (changed.received, changed.count("answered"), changed.latencies.count) == (3, 3, 3)
    assert changed.calls == {"ledger": ServiceCalls(3, 30)}
