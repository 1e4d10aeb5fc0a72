"""A stack's dashboard, as CloudWatch was given it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from receipt_actors.telemetry.embedded_metrics import SOURCE_QUEUE_DIMENSION

from .conftest import ACCOUNT, REGION, Stack


class Page:
    """What it shows."""

    def __init__(self, body: str) -> None:
        widgets: Sequence[Mapping[str, Any]] = json.loads(body)["widgets"]
        self.places = [tuple(widget[each] for each in ("x", "y", "width", "height")) for widget in widgets]
        properties = [widget["properties"] for widget in widgets]
        shown = [metric for each in properties for metric in each.get("metrics", ())]
        of_program = [metric for metric in shown if metric[0] == "ReceiptActors"]
        assert {metric[2] for metric in of_program} == {SOURCE_QUEUE_DIMENSION}
        assert {each["region"] for each in properties if "metrics" in each} == {REGION}
        self.written = {metric[1] for metric in of_program}  #: the names of the program's metrics
        self.source_queues = {metric[3] for metric in of_program}  #: whose they are
        self.queues = {metric[3] for metric in shown if metric[0] == "AWS/SQS"}  #: of which SQS tells
        (self.alarms,) = [sorted(each["alarms"]) for each in properties if "alarms" in each]


def page_of(stack: Stack) -> Page:
    """Return the one that was deployed."""
    with stack.client("cloudwatch") as cloudwatch:
        return Page(cloudwatch.get_dashboard(DashboardName=stack.outputs["DashboardName"])["DashboardBody"])


def alarm_arns(stack_name: str, *names: str) -> Sequence[str]:
    """Return what alarms of a stack are called there."""
    return sorted(f"arn:aws:cloudwatch:{REGION}:{ACCOUNT}:alarm:{stack_name}-{name}" for name in names)
