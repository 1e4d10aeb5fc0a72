"""The first template deployed to MiniStack, which makes the alarms and the queues' policies that moto leaves out.

It knows no composite alarms: ``SiteDown`` is left out.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import closing
from typing import Any

import boto3
import pytest
from cfnlint.decode.cfn_yaml import load  # type: ignore[import-untyped]

from tests.system.ministack import IS_INSTALLED, WHY_NOT, MiniStack
from tests.system.processes import POLL_SECONDS, Programs

from .conftest import REGION, TEMPLATE, Stack
from .intrinsics import resolved

pytestmark = pytest.mark.skipif(not IS_INSTALLED, reason=WHY_NOT)

PATIENCE_SECONDS = 60.0
PARAMETERS: Mapping[str, object] = {
    "SourceQueueName": "game-receipts",
    "LedgerTableName": "game.claims",
    "AlertsQueueName": "game-alerts",
    "AlertEmail": "on-call@example.com",
    "RunbookUrl": "https://wiki.example.com/receipts/runbook.html",
    "MaxMessageAgeSeconds": "900",
    "HeartbeatMinutes": "4",
}


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with closing(Programs(tmp_path_factory.mktemp("ministack"))) as programs:
        stack = Stack(boto3.Session("deployer", "testing", region_name=REGION), MiniStack(programs).url, {}, {})
        template = load(str(TEMPLATE))
        for part, name in (("Resources", "SiteDown"), ("Outputs", "SiteDownAlarmName")):
            del template[part][name]
        with stack.client("cloudformation") as cloudformation:
            cloudformation.create_stack(
                StackName="receipts",
                TemplateBody=json.dumps(template, default=str),
                Parameters=[{"ParameterKey": name, "ParameterValue": value} for name, value in PARAMETERS.items()],
                Capabilities=["CAPABILITY_IAM"],
            )
            deadline = time.monotonic() + PATIENCE_SECONDS
            while True:
                (described,) = cloudformation.describe_stacks(StackName="receipts")["Stacks"]
                if not described["StackStatus"].endswith("_IN_PROGRESS"):
                    break
                assert time.monotonic() < deadline
                time.sleep(POLL_SECONDS)  # another process, which tells nobody when it is done
            resources = cloudformation.describe_stack_resources(StackName="receipts")["StackResources"]
        assert described["StackStatus"] == "CREATE_COMPLETE"
        outputs = {output["OutputKey"]: output["OutputValue"] for output in described["Outputs"]}
        yield Stack(
            stack.session,
            stack.url,
            outputs,
            {each["LogicalResourceId"]: each["PhysicalResourceId"] for each in resources},
        )


def test_cloudformation_makes_the_alarms_that_the_tests_put_by_hand(stack: Stack) -> None:
    """Another implementation of its functions comes to the same properties, alarm by alarm."""
    wanted = resolved(stack, PARAMETERS).resources("AWS::CloudWatch::Alarm")
    with stack.client("cloudwatch") as cloudwatch:
        found = {each["AlarmName"]: each for each in cloudwatch.describe_alarms()["MetricAlarms"]}
    assert set(found) == {alarm["AlarmName"] for alarm in wanted.values()}
    for alarm in wanted.values():
        made = found[alarm["AlarmName"]]
        assert {name: plain(made.get(name)) for name in alarm} == {name: plain(value) for name, value in alarm.items()}


def plain(value: Any) -> Any:
    """Return numbers as numbers, however they are written."""
    try:
        return float(value)
    except (TypeError, ValueError):
        return value


def test_every_queue_has_its_policy(stack: Stack) -> None:
    """Plain HTTP is refused, by a statement about this very queue."""
    for queue in ("SourceQueue", "PostQueue", "DeadLetterQueue", "AlertsQueue"):
        (statement,) = json.loads(stack.queue_attributes(stack.outputs[f"{queue}Name"])["Policy"])["Statement"]
        assert statement["Resource"] == stack.outputs[f"{queue}Arn"]
        assert (statement["Effect"], statement["Action"]) == ("Deny", "sqs:*")
