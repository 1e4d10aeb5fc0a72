"""What ``plan`` reads of a report that ``bench --json`` wrote: what a receipt cost on the machine that was measured."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from receipt_actors.domain.capacity import Call, Cost

#: The operations of AWS that make up each kind of request.
OPERATIONS: Mapping[Call, tuple[str, ...]] = {
    Call.RECEIVE: ("ReceiveMessage",),
    Call.SEND: ("SendMessage", "SendMessageBatch"),
    Call.DELETE: ("DeleteMessage", "DeleteMessageBatch"),
    Call.CLAIM: ("PutItem", "BatchExecuteStatement"),
}


def cost_of_report(text: str, otherwise: Cost) -> Cost:
    """Read a report; what it does not tell (the cost of one request, and what the client bears) is ``otherwise``'s.

    Raises ``ValueError``, which says what was found and expected, for anything else.
    """
    try:
        report = json.loads(text)
    except ValueError as error:
        raise ValueError(f"expected a report of bench --json, found no JSON: {error}") from None
    measurement = _object(report, "the report")
    machine = measurement.get("machine", "the machine of the report")
    messages = _number(measurement, "messages")
    requests = _object(measurement.get("requests"), "requests")
    return replace(
        otherwise,
        machine=str(machine),
        cpu_seconds=_number(measurement, "cpu_ms") / 1000,
        requests={
            call: sum(_number(requests, name) for name in names if name in requests) / messages
            for call, names in OPERATIONS.items()
        },
        process_bytes=round(_number(measurement, "rss_start_bytes")),
        in_flight_bytes=max(0, round(_number(measurement, "memory_bytes", may_be_negative=True))),
    )


def _object(value: object, name: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"expected {name} to be an object, found {type(value).__name__}")
    return value


def _number(fields: Mapping[str, Any], name: str, *, may_be_negative: bool = False) -> float:
    value = fields.get(name)
    if isinstance(value, int | float) and not isinstance(value, bool) and (value > 0 or may_be_negative):
        return float(value)
    raise ValueError(f"expected {name} to be a number above 0, found {value!r}")
