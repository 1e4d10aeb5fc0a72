"""The context of a distributed trace that a message brings along, and that is handed on with what it leads to.

Either the message attribute ``traceparent`` (W3C Trace Context), or SQS's own ``AWSTraceHeader`` (X-Ray). What can't be
read is as good as none: nothing that a message says there is worth a refusal.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from receipt_actors.domain.ports import ReceivedMessage

TRACEPARENT_ATTRIBUTE = "traceparent"

_TRACEPARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?", re.DOTALL)
_ROOT = re.compile(r"1-([0-9a-f]{8})-([0-9a-f]{24})")
_PARENT = re.compile(r"[0-9a-f]{16}")
_MAX_HEADER_CHARACTERS = 512


@dataclass(frozen=True, slots=True)
class TraceContext:
    """Which trace something belongs to, and which span of it is the parent."""

    trace_id: int  #: 128 bits, not 0
    span_id: int  #: 64 bits, not 0
    is_sampled: bool  #: whether whoever began the trace keeps it

    @property
    def traceparent(self) -> str:
        """Write it as W3C's header does."""
        return f"00-{self.trace_id:032x}-{self.span_id:016x}-{int(self.is_sampled):02x}"


def trace_context_of(message: ReceivedMessage) -> TraceContext | None:
    """Return what a message brings along; ``traceparent`` goes before ``AWSTraceHeader``."""
    traceparent = message.attributes.get(TRACEPARENT_ATTRIBUTE)
    context = None if traceparent is None else parse_traceparent(traceparent)
    if context is None and message.aws_trace_header is not None:
        context = parse_aws_trace_header(message.aws_trace_header)
    return context


def parse_traceparent(text: str) -> TraceContext | None:
    """Read W3C's ``traceparent``; of a version to come, the part that has to stay as it is."""
    found = _TRACEPARENT.fullmatch(text) if len(text) <= _MAX_HEADER_CHARACTERS else None
    if found is None or found[1] == "ff" or (found[1] == "00" and found[5] is not None):
        return None
    return _context(found[2], found[3], int(found[4], 16) & 1 == 1)


def parse_aws_trace_header(text: str) -> TraceContext | None:
    """Read X-Ray's ``Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8;Sampled=1``."""
    if len(text) > _MAX_HEADER_CHARACTERS:
        return None
    fields = dict(part.strip().partition("=")[::2] for part in text.split(";"))
    root, parent = _ROOT.fullmatch(fields.get("Root", "")), _PARENT.fullmatch(fields.get("Parent", ""))
    if root is None or parent is None:
        return None
    return _context(root[1] + root[2], parent[0], fields.get("Sampled") == "1")


def _context(trace_id: str, span_id: str, is_sampled: bool) -> TraceContext | None:
    ids = int(trace_id, 16), int(span_id, 16)
    return TraceContext(*ids, is_sampled) if all(ids) else None
