"""The window of requests under way: it opens as far as that helps."""

from __future__ import annotations

import pytest

from receipt_actors.domain.sending import FIRST_SIZE, MAX_LAG_SECONDS, Window


def test_it_doubles_in_each_round_trip_while_it_is_full() -> None:
    """As TCP's slow start: one more for every answer."""
    window = Window()
    for _ in range(FIRST_SIZE):
        window = window.answered(is_full=True, lag_seconds=0.0)
    assert window.size == 2 * FIRST_SIZE


@pytest.mark.parametrize(("is_full", "lag_seconds"), [(False, 0.0), (True, 2 * MAX_LAG_SECONDS)])
def test_it_opens_no_further_than_helps(is_full: bool, lag_seconds: float) -> None:
    """Not where some of it is unused, and not where answers wait for this process."""
    assert Window().answered(is_full=is_full, lag_seconds=lag_seconds) == Window()
