"""A whole site dies: who is told, and when. Real processes, their real metrics, the template's alarms.

What CloudWatch does stands in ``alarms``: it finds metrics in the lines that the processes have written, and judges
them at the minutes that follow. SQS's metric of the oldest message's age is made from what a real queue (moto's) has.
"""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from typing import Any

import pytest

from receipt_actors.sandbox.app_store import SimulatedAppStore
from receipt_actors.sandbox.load import SampleMessage
from tests.system.processes import Program, Programs
from tests.system.worlds import BUNDLE_ID, genuine_messages

from .alarms import EXTRA_PERIODS, Metric, Metrics, SiteAlarms, State
from .conftest import ACCOUNT, Stack
from .intrinsics import Resolved, resolved
from .services import QUICK, surroundings

pytestmark = pytest.mark.filterwarnings(
    "ignore:Tried to parse AWS..SQS..QueuePolicy:UserWarning",
    "ignore:Tried to parse AWS..SNS..(TopicPolicy|Subscription):UserWarning",
    "ignore:Tried to parse AWS..CloudWatch..(Composite)?Alarm:UserWarning",
)

HEARTBEAT_MINUTES = 3
MAX_AGE_SECONDS = 600
MINUTE = 60.0
PARAMETERS: Mapping[str, object] = {
    "SourceQueueName": "game-receipts",
    "PostQueueName": "game-results",
    "HeartbeatMinutes": HEARTBEAT_MINUTES,
    "MaxMessageAgeSeconds": MAX_AGE_SECONDS,
    "AlertEmail": "on-call@example.com",
    "VisibilityTimeoutSeconds": 10,  # a receive of a node that was killed may still take what the next test sends
}


@pytest.fixture(scope="module")
def stack(deploy: Callable[..., Stack]) -> Stack:
    stack = deploy(**PARAMETERS)
    stack.switch_functions_off()
    return stack


@pytest.fixture(scope="module")
def template(stack: Stack) -> Resolved:
    return resolved(stack, PARAMETERS)


@pytest.fixture
def alarms(template: Resolved) -> SiteAlarms:
    return SiteAlarms.of(template)


class Site:
    """Nodes that run as the stack tells them to, and write a line of metrics each second."""

    def __init__(self, stack: Stack, store: SimulatedAppStore, programs: Programs) -> None:
        self._stack = stack
        self._programs = programs
        self._environment = {
            **stack.environment,
            **surroundings(stack, "watched", store),
            "RECEIPT_ACTORS_BUNDLE_IDS": BUNDLE_ID,
        }

    def start(self, *, processes: int = 1) -> Program:
        """Start a node, and wait until it has said that it lives."""
        flags = ("--processes", str(processes))
        program = self._programs.start("start", *flags, environment=self._environment, module=QUICK)
        beats = f'"Heartbeat": {processes}'
        program.wait_until(lambda: beats in program.stdout, "all its processes say that they live")
        return program

    def send(self, messages: list[SampleMessage]) -> None:
        with self._stack.client("sqs") as sqs:
            for message in messages:
                sqs.send_message(QueueUrl=self._stack.outputs["SourceQueueUrl"], MessageBody=message.body)

    def has_receipts(self) -> bool:
        return self._stack.number_of_messages(self._stack.outputs["SourceQueueName"]) > 0

    def oldest_sent_at(self) -> float:
        return self._stack.oldest_sent_at(self._stack.outputs["SourceQueueUrl"])


@pytest.fixture
def site(stack: Stack, programs: Programs) -> Iterator[Site]:
    with SimulatedAppStore() as store:
        yield Site(stack, store, programs)


def kill(program: Program) -> None:
    """kill -9 of all its processes at once, as a machine that loses its power."""
    workers = program.children()
    program.kill()
    for worker in workers:
        with suppress(ProcessLookupError):
            os.kill(worker, signal.SIGKILL)


def lines_of(*programs: Program) -> list[str]:
    return [line for program in programs for line in program.stdout.splitlines()]


@pytest.mark.slow
def test_the_heartbeat_is_missed_when_all_are_dead_and_not_before(site: Site, alarms: SiteAlarms) -> None:
    """One that lives is enough; when the last one is killed the alarm goes off, and ends when somebody is back."""
    alarm, metrics = alarms.heartbeat_missing, Metrics()
    heartbeat = Metric.of(alarm.properties)
    first, second = site.start(processes=2), site.start()
    assert metrics.read_log(lines_of(first, second)) >= 2
    assert alarm.evaluate(metrics, metrics.last_at(heartbeat) + MINUTE) == "OK"

    kill(first)
    seen = len(second.stdout)
    second.wait_until(lambda: '"Heartbeat": 1' in second.stdout[seen:], "the other one goes on")
    for minute in range(1, 10):  # of which each has the lines that the living one writes
        assert metrics.read_log([second.stdout[seen:].splitlines()[0]], later_by_seconds=minute * MINUTE) == 1
        assert alarm.evaluate(metrics, metrics.last_at(heartbeat) + MINUTE) == "OK"

    kill(second)
    died_at = metrics.last_at(heartbeat)
    states = [alarm.evaluate(metrics, died_at + minute * MINUTE) for minute in range(15)]
    went_off = states.index("ALARM")
    assert HEARTBEAT_MINUTES <= went_off <= HEARTBEAT_MINUTES + EXTRA_PERIODS + 1
    assert set(states[:went_off]) == {"OK"}
    assert set(states[went_off:]) == {"ALARM"}

    back = site.start()
    away_seconds = died_at + 15 * MINUTE - time.time()
    assert metrics.read_log(lines_of(back), later_by_seconds=away_seconds) >= 1
    assert alarm.evaluate(metrics, metrics.last_at(heartbeat) + MINUTE) == "OK"


@pytest.mark.slow
def test_receipts_that_nobody_takes_are_told_of_and_a_dead_site_with_them(site: Site, alarms: SiteAlarms) -> None:
    """By the age of the oldest, as the queue has it; it ends when a node has worked them off."""
    metrics, age = Metrics(), Metric.of(alarms.source_queue_age.properties)
    site.send(genuine_messages(3, 81, post_queue="game-results"))
    began_at, sent_at = time.time(), site.oldest_sent_at()

    def look(at_seconds: float) -> tuple[State, State, State]:
        """Have SQS tell the age at this minute, and look a minute later."""
        metrics.put(age, at_seconds, at_seconds - sent_at if site.has_receipts() else 0.0)
        return alarms.evaluate(metrics, at_seconds + MINUTE)

    states = [look(began_at + minute * MINUTE) for minute in range(20)]
    went_off = [state for _heartbeat, state, _site in states].index("ALARM")
    assert MAX_AGE_SECONDS / MINUTE <= went_off <= MAX_AGE_SECONDS / MINUTE + 4  # for three minutes
    assert states[went_off] == ("ALARM", "ALARM", "ALARM")
    assert all(state == "OK" for _heartbeat, _age, state in states[:went_off])

    node = site.start()
    node.wait_until(lambda: not site.has_receipts(), "the queue is empty")
    back_at = began_at + 20 * MINUTE
    metrics.read_log(lines_of(node), later_by_seconds=back_at - time.time())
    assert look(back_at + MINUTE) == ("OK", "OK", "OK")


def test_a_node_writes_the_very_metric_that_the_alarm_is_about(site: Site, alarms: SiteAlarms) -> None:
    """Namespace, name and dimensions; a metric that is called otherwise would never end the alarm."""
    metrics = Metrics()
    metrics.read_log(lines_of(site.start()))
    heartbeat = Metric.of(alarms.heartbeat_missing.properties)
    assert set(metrics.statistic(heartbeat, "Sum", 60).values()) != set()
    assert heartbeat == Metric("ReceiptActors", "Heartbeat", frozenset({("SourceQueue", "game-receipts")}))


def test_an_alarm_reaches_whoever_has_subscribed(stack: Stack, template: Resolved, alarms: SiteAlarms) -> None:
    """CloudWatch may publish to the topic that the alarms name, and the address that was given has subscribed to it."""
    topic = stack.outputs["AlertTopicArn"]
    (subscription,) = template.resources("AWS::SNS::Subscription").values()
    assert subscription == {"TopicArn": topic, "Protocol": "email", "Endpoint": "on-call@example.com"}
    told = [alarms.heartbeat_missing.properties, alarms.source_queue_age.properties, alarms.site_down.properties]
    with stack.client("sns") as sns, stack.client("sqs") as sqs:
        url = sqs.create_queue(QueueName="pager")["QueueUrl"]
        arn = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
        sns.subscribe(TopicArn=topic, Protocol="sqs", Endpoint=arn)
        for alarm in told:
            for state, actions in (("ALARM", "AlarmActions"), ("OK", "OKActions")):
                for action in alarm[actions]:
                    assert may_publish(template, action)
                    sns.publish(TopicArn=action, Subject=f'{state}: "{alarm["AlarmName"]}"', Message=json.dumps({}))
        received: list[Any] = []
        while batch := sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10).get("Messages"):
            received += batch
    subjects = [json.loads(message["Body"])["Subject"] for message in received]
    assert sorted(subjects) == sorted(
        f'{state}: "receipts-{name}"'
        for state in ("ALARM", "OK")
        for name in ("heartbeat-missing", "site-down", "source-queue-age")
    )


def may_publish(template: Resolved, topic: str) -> bool:
    """Tell whether the topic's policy lets an alarm of this account publish, over TLS."""
    (policy,) = template.resources("AWS::SNS::TopicPolicy").values()
    assert policy["Topics"] == [topic]
    return any(
        statement["Effect"] == "Allow"
        and statement["Principal"] == {"Service": "cloudwatch.amazonaws.com"}
        and statement["Action"] == "sns:Publish"
        and statement["Resource"] == topic
        and statement["Condition"] == {"StringEquals": {"aws:SourceAccount": ACCOUNT}}
        for statement in policy["PolicyDocument"]["Statement"]
    )
