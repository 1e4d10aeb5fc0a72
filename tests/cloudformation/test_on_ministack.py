"""The templates of queues deployed to MiniStack, which makes the alarms and the queues' policies that moto leaves out.

It knows no composite alarms: ``SiteDown`` is left out.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import closing
from itertools import product
from pathlib import Path
from typing import Any

import boto3
import pytest

from tests.patience import PATIENCE_SECONDS
from tests.system.ministack import IS_INSTALLED, WHY_NOT, MiniStack
from tests.system.processes import POLL_SECONDS, Programs

from .conftest import REGION, SOURCE_TEMPLATE, TEMPLATE, Stack, load
from .intrinsics import resolved

pytestmark = pytest.mark.skipif(not IS_INSTALLED, reason=WHY_NOT)

PARAMETERS: Mapping[str, object] = {
    "SourceQueueName": "game-receipts",
    "LedgerTableName": "game.claims",
    "AlertsQueueName": "game-alerts",
    "AlertEmail": "on-call@example.com",
    "RunbookUrl": "https://wiki.example.com/receipts/runbook.html",
    "MaxMessageAgeSeconds": "900",
    "HeartbeatMinutes": "4",
}


FURTHER: Mapping[str, object] = {
    "SourceQueueName": "game2-receipts",
    "PostQueueName": "game2-results",
    "RunbookUrl": "https://wiki.example.com/receipts/runbook.html",
    "MaxMessageAgeSeconds": "300",
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The server with nothing on it."""
    with closing(Programs(tmp_path_factory.mktemp("ministack"))) as programs:
        yield Stack(boto3.Session("deployer", "testing", region_name=REGION), MiniStack(programs).url, {}, {})


@pytest.fixture(scope="module")
def stack(server: Stack) -> Stack:
    return create(server, "receipts", TEMPLATE, PARAMETERS)


@pytest.fixture(scope="module")
def further(server: Stack, stack: Stack) -> Stack:
    return create(server, "receipts-game2", SOURCE_TEMPLATE, FURTHER)


def create(server: Stack, name: str, file: Path, parameters: Mapping[str, object]) -> Stack:
    template = load(file)
    for part, left_out in (("Resources", "SiteDown"), ("Outputs", "SiteDownAlarmName")):
        del template[part][left_out]
    with server.client("cloudformation") as cloudformation:
        cloudformation.create_stack(
            StackName=name,
            TemplateBody=json.dumps(template, default=str),
            Parameters=[{"ParameterKey": key, "ParameterValue": value} for key, value in parameters.items()],
            Capabilities=["CAPABILITY_IAM"],
        )
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            (described,) = cloudformation.describe_stacks(StackName=name)["Stacks"]
            if not described["StackStatus"].endswith("_IN_PROGRESS"):
                break
            assert time.monotonic() < deadline
            time.sleep(POLL_SECONDS)  # another process, which tells nobody when it is done
        resources = cloudformation.describe_stack_resources(StackName=name)["StackResources"]
    assert described["StackStatus"] == "CREATE_COMPLETE"
    outputs = {output["OutputKey"]: output["OutputValue"] for output in described["Outputs"]}
    ids = {each["LogicalResourceId"]: each["PhysicalResourceId"] for each in resources}
    return Stack(server.session, server.url, outputs, ids)


def test_cloudformation_makes_the_alarms_that_the_tests_put_by_hand(stack: Stack, further: Stack) -> None:
    """Another implementation of its functions comes to the same properties, alarm by alarm, of both templates."""
    first = resolved(stack, PARAMETERS)
    second = resolved(further, FURTHER, template=SOURCE_TEMPLATE, stack_name="receipts-game2", exports=first.exports())
    wanted = [alarm for each in (first, second) for alarm in each.resources("AWS::CloudWatch::Alarm").values()]
    with stack.client("cloudwatch") as cloudwatch:
        found = {each["AlarmName"]: each for each in cloudwatch.describe_alarms()["MetricAlarms"]}
    assert set(found) == {alarm["AlarmName"] for alarm in wanted}
    for alarm in wanted:
        made = found[alarm["AlarmName"]]
        assert {name: plain(made.get(name)) for name in alarm} == {name: plain(value) for name, value in alarm.items()}


def plain(value: Any) -> Any:
    """Return numbers as numbers, however they are written."""
    try:
        return float(value)
    except (TypeError, ValueError):
        return value


def test_every_queue_has_its_policy(stack: Stack, further: Stack) -> None:
    """Plain HTTP is refused, by a statement about this very queue."""
    queues = ("SourceQueue", "PostQueue", "DeadLetterQueue")
    for its, queue in (*product((stack, further), queues), (stack, "AlertsQueue")):
        (statement,) = json.loads(its.queue_attributes(its.outputs[f"{queue}Name"])["Policy"])["Statement"]
        assert statement["Resource"] == its.outputs[f"{queue}Arn"]
        assert (statement["Effect"], statement["Action"]) == ("Deny", "sqs:*")
