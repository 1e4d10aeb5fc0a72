"""The trace context that a message brings along: W3C's and X-Ray's; nonsense is as good as none."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from receipt_actors.domain.messages import (
    TraceContext,
    parse_aws_trace_header,
    parse_traceparent,
    trace_context_of,
)
from receipt_actors.domain.ports import ReceivedMessage

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
CONTEXT = TraceContext(int(TRACE, 16), int(SPAN, 16), is_sampled=True)
AWS_HEADER = f"Root=1-{TRACE[:8]}-{TRACE[8:]};Parent={SPAN};Sampled=1"


def message(traceparent: str | None = None, header: str | None = None) -> ReceivedMessage:
    attributes = {} if traceparent is None else {"traceparent": traceparent}
    return ReceivedMessage("m", "h", "{}", "", attributes, aws_trace_header=header)


@pytest.mark.parametrize(
    ("text", "is_sampled"),
    [
        (f"00-{TRACE}-{SPAN}-01", True),
        (f"00-{TRACE}-{SPAN}-00", False),
        (f"00-{TRACE}-{SPAN}-03", True),
        (f"cc-{TRACE}-{SPAN}-01-what.comes", True),
    ],
)
def test_traceparent_is_read(text: str, is_sampled: bool) -> None:
    """Also of a version to come; flags that nobody knows are left alone."""
    assert parse_traceparent(text) == TraceContext(CONTEXT.trace_id, CONTEXT.span_id, is_sampled)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "nonsense",
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-01-more",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE.upper()}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-1",
        f"cc-{TRACE}-{SPAN}-01-" + "x" * 1000,
    ],
)
def test_what_is_no_traceparent_is_none(text: str) -> None:
    """It is no fault of the message's."""
    assert parse_traceparent(text) is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (AWS_HEADER, CONTEXT),
        (AWS_HEADER.replace("Sampled=1", "Sampled=0"), TraceContext(CONTEXT.trace_id, CONTEXT.span_id, False)),
        (f"Self=1-0-0; Parent={SPAN}; Root=1-{TRACE[:8]}-{TRACE[8:]}; Sampled=1; Lineage=x:0", CONTEXT),
        (f"Root=1-{TRACE[:8]}-{TRACE[8:]}", None),
        (f"Root={TRACE};Parent={SPAN}", None),
        ("", None),
    ],
)
def test_the_header_of_x_ray_is_read(text: str, expected: TraceContext | None) -> None:
    """Its fields in any order; without a parent it says nothing that could be gone on with."""
    assert parse_aws_trace_header(text) == expected


def test_traceparent_goes_before_the_header_of_x_ray() -> None:
    """Either will do; the header stands in where the attribute can't be read."""
    assert trace_context_of(message()) is None
    assert trace_context_of(message(header=AWS_HEADER)) == CONTEXT
    assert trace_context_of(message("nonsense", AWS_HEADER)) == CONTEXT
    other = f"00-{TRACE}-{SPAN}-00"
    assert trace_context_of(message(other, AWS_HEADER)) == TraceContext(CONTEXT.trace_id, CONTEXT.span_id, False)


@given(st.text() | st.text("0123456789abcdef-=;Root1Parent "))
def test_any_text_is_read_or_is_none(text: str) -> None:
    """A producer can write what it likes."""
    for parse in (parse_traceparent, parse_aws_trace_header):
        context = parse(text)
        assert context is None or parse_traceparent(context.traceparent) == context
