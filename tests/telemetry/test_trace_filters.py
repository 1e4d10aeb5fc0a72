"""Filters of traces: what they match, and that what can never match is refused with a word that helps."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from receipt_actors.domain.reasons import Reason
from receipt_actors.errors import TraceRefused
from receipt_actors.telemetry.trace_filters import (
    EVENTS,
    FIELDS,
    FILTERS,
    MAX_VALUE_CHARACTERS,
    MAX_VALUES,
    TraceFilter,
)

FACTS: Mapping[str, Any] = {
    "user_id": 42,
    "reason": next(iter(Reason)),
    "source_queue": "ReceiptsSQS",
    "seconds_since_received": 1.5,
    "submission_id": None,
}


def matches(**filters: Sequence[str]) -> bool:
    return TraceFilter(filters).matches(FACTS)


def refusal(**filters: Sequence[str]) -> str:
    with pytest.raises(TraceRefused) as refused:
        TraceFilter(filters)
    return str(refused.value)


@pytest.mark.parametrize(
    ("names", "selected"),
    [
        (["claim", "moved"], {"claim", "moved"}),
        (["claim*"], {"claim", "claimed"}),
        (["move?", "!claim"], {"moved"}),
        (["!*"], set()),
        ([], set(EVENTS)),
    ],
)
def test_events_are_selected_by_name(names: list[str], selected: set[str]) -> None:
    if selected:
        assert TraceFilter({"event": names}).events == selected
    else:
        assert "no event is called" in refusal(event=names)


@pytest.mark.parametrize(
    ("filters", "does_match"),
    [
        ({}, True),
        ({"user_id": ["4"]}, False),
        ({"user_id": ["1", "42"]}, True),
        ({"user_id": ["!41"]}, True),
        ({"user_id": ["4*", "!42"]}, False),
        ({"reason": [FACTS["reason"].value]}, True),
        ({"source_queue": ["Receipt?SQS"]}, True),
        ({"source_queue": ["receipts*"]}, False),
        ({"source_queue": ["*SQS\n"]}, False),
        ({"user_id": ["42"], "source_queue": ["Game2SQS"]}, False),
        ({"submission_id": ["!x"]}, False),
        ({"transaction_id": ["*"]}, False),
        ({"slower_than": ["1.4"]}, True),
        ({"slower_than": ["1.5"]}, False),
    ],
)
def test_all_filters_have_to_match(filters: dict[str, list[str]], does_match: bool) -> None:
    assert matches(**filters) is does_match


def test_events_that_lack_a_field_are_known_beforehand() -> None:
    assert TraceFilter({"user_id": ["42"]}).events.isdisjoint({"call", "cast", "sent", "left"})
    assert TraceFilter({"actor": ["intake"], "reason": ["crash"]}).events == {"exited"}
    assert "received" not in TraceFilter({"slower_than": ["5"]}).events


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ({"event": ["clam"]}, "no event is called clam (did you mean claim"),
        ({"event": ["left"], "user_id": ["42"]}, "no event that is named here has all of user_id"),
        ({"usr_id": ["42"]}, "found usr_id, expected a filter (did you mean user_id"),
        ({"seconds": ["1"]}, "found seconds, expected a filter"),
        ({"user_id": ["anna"]}, "user_id: expected a number, not anna"),
        ({"slower_than": ["soon"]}, "slower_than: expected one number of seconds, not soon"),
        ({"slower_than": ["nan"]}, "slower_than: expected one number"),
        ({"slower_than": ["-1"]}, "slower_than: expected one number"),
        ({"slower_than": ["1", "2"]}, "slower_than: expected one number of seconds, not 1, 2"),
        ({"reason": [""]}, f"reason: expected 1 to {MAX_VALUE_CHARACTERS} characters"),
        ({"reason": ["x" * (MAX_VALUE_CHARACTERS + 1)]}, "reason: expected 1 to"),
        ({"reason": ["x"] * (MAX_VALUES + 1)}, f"at most {MAX_VALUES} values"),
    ],
)
def test_what_could_never_match_is_refused(filters: dict[str, list[str]], expected: str) -> None:
    assert expected in refusal(**filters)


def test_every_event_can_be_filtered_by_each_of_its_fields() -> None:
    for event, description in EVENTS.items():
        for field in set(description.fields) & set(FILTERS):
            assert TraceFilter({"event": [event], field: ["1"]}).events == {event}
    assert set(FIELDS) - set(FILTERS) == {"seconds", "seconds_since_received"}


@given(st.dictionaries(st.sampled_from(FILTERS) | st.text(), st.lists(st.text(max_size=20), max_size=4), max_size=4))
def test_any_text_is_read_or_refused(filters: dict[str, list[str]]) -> None:
    try:
        wanted = TraceFilter(filters)
    except TraceRefused:
        return
    assert isinstance(wanted.matches(FACTS), bool)


@pytest.mark.parametrize("pattern", ["*" * 199 + "x", "a*" * 99 + "b"])
def test_no_pattern_takes_long(pattern: str) -> None:
    began_at = time.thread_time()
    TraceFilter({"reason": [pattern]}).matches({"reason": "a" * 5_000})
    assert time.thread_time() - began_at < 1.0
