"""The template of a further source queue, deployed to moto twice beside the first, and the service on all three.

One game has a standard queue, answers of its own and every size given; the other one is FIFO, and answers where the
first stack does. moto makes the queues and the policies. Alarms are those of the template, judged by ``alarms``.
"""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import pytest

from receipt_actors.sandbox.app_store import SimulatedAppStore
from receipt_actors.sandbox.receipts import SampleReceipt, mint
from receipt_actors.settings import load_settings
from tests.system.processes import Programs
from tests.system.worlds import BUNDLE_ID, genuine_messages

from .alarms import Metric, Metrics, SiteAlarms, State
from .conftest import SOURCE_TEMPLATE, Permission, RecordingServer, Stack, create_stack
from .intrinsics import Resolved, resolved
from .pages import page_of
from .services import QUICK, Deployed, deploy_service, environment_of, surroundings

pytestmark = pytest.mark.filterwarnings(
    "ignore:Tried to parse AWS..SQS..QueuePolicy:UserWarning",
    "ignore:Tried to parse AWS..SNS..(TopicPolicy|Subscription):UserWarning",
    "ignore:Tried to parse AWS..CloudWatch..(Composite)?Alarm:UserWarning",
    "ignore:Tried to parse AWS..ApplicationAutoScaling..(ScalableTarget|ScalingPolicy):UserWarning",
)

MINUTE = 60.0
MAX_AGE_SECONDS = 900
BUNDLE_IDS = {"receipts-game2": "com.example.two", "receipts-game3": "com.example.three"}
RECEIPTS: Mapping[str, object] = {
    "SourceQueueName": "game-receipts",
    "PostQueueName": "game-results",
    "DeadLetterQueueName": "game-dead-letters",
    "LedgerTableName": "game.claims",
    "AlertsQueueName": "game-alerts",
}
GAME2: Mapping[str, object] = {
    "SourceQueueName": "game2-receipts",
    "DeadLetterQueueName": "game2-dead-letters",
    "PostQueueName": "game2-results",
    "VisibilityTimeoutSeconds": 60,
    "MaxReceiveCount": 7,
    "SourceRetentionSeconds": 86400,
    "MaxMessageAgeSeconds": MAX_AGE_SECONDS,
    "HeartbeatMinutes": 4,
}
GAME3: Mapping[str, object] = {"SourceQueueName": "game3-receipts", "QueueType": "fifo"}
# Apple answers it as if our shared secret were wrong: it is handed back.
NOT_FOR_NOW = json.dumps(
    {
        "receipt": mint(SampleReceipt(BUNDLE_IDS["receipts-game2"], (), status=21004)),
        "user_id": 1,
        "post_queue": "game2-results",
    }
)


@dataclass(frozen=True)
class Company:
    """All the stacks."""

    receipts: Stack
    game2: Stack
    game3: Stack
    deployed: Deployed
    first: Resolved  #: the first template, as deployed
    second: Resolved  #: that of the second game

    def of_game2(self, permissions: set[Permission]) -> set[Permission]:
        """Choose what is about the queues of the second game."""
        arns = {self.game2.outputs[f"{queue}Arn"] for queue in ("SourceQueue", "DeadLetterQueue", "PostQueue")}
        return {permission for permission in permissions if permission.resource in arns}


@pytest.fixture(scope="module")
def company(deploy: Callable[..., Stack], server: RecordingServer) -> Company:
    receipts = deploy(**RECEIPTS)
    receipts.switch_functions_off()
    first = resolved(receipts, RECEIPTS)
    game2 = create_stack(server, "receipts-game2", SOURCE_TEMPLATE, GAME2)
    game3 = create_stack(server, "receipts-game3", SOURCE_TEMPLATE, GAME3)
    second, third = (
        resolved(stack, parameters, template=SOURCE_TEMPLATE, stack_name=name, exports=first.exports())
        for name, stack, parameters in (("receipts-game2", game2, GAME2), ("receipts-game3", game3, GAME3))
    )
    # What a person does: the tables are what the stacks tell, and the rules.
    sources: dict[str, dict[str, str]] = {}
    for name, stack in (("receipts-game2", game2), ("receipts-game3", game3)):
        ((queue, table),) = json.loads(stack.outputs["Sources"]).items()
        sources[queue] = {**table, "bundle_ids": BUNDLE_IDS[name]}
    parameters = {
        "Image": "receipt-actors:1",
        "BundleIds": BUNDLE_ID,
        "SourceStacks": "receipts-game2,receipts-game3",
        "Sources": json.dumps(sources),
        "VisibilityTimeoutSeconds": "60",
        "Processes": "1",
    }
    exports = {**first.exports(), **second.exports(), **third.exports()}
    return Company(receipts, game2, game3, deploy_service(server, receipts, parameters, exports), first, second)


@dataclass(frozen=True)
class Run:
    """What the alarms said of a site that is dead, and of one that lives; and what that one did."""

    dead: Sequence[tuple[State, State, State]]  #: the second game's, minute by minute: heartbeat, age, site
    dead_first: Sequence[tuple[State, State, State]]  #: the first queue's likewise
    alive: tuple[State, State, State]
    done: Mapping[str, int]  #: messages on the post queues, and on the second game's dead-letter queue
    documents: Sequence[Mapping[str, object]]  #: of metrics
    log: str


@pytest.fixture(scope="module")
def run(company: Company, server: RecordingServer, module_programs: Programs) -> Run:
    """Leave the queues alone for a while, and then let a task work on them as its definition says."""
    first, second = SiteAlarms.of(company.first), SiteAlarms.of(company.second)
    metrics, age = Metrics(), Metric.of(second.source_queue_age.properties)
    bodies = [message.body for message in genuine_messages(3, 91, "game2-results", BUNDLE_IDS["receipts-game2"])]
    (ordered,) = genuine_messages(1, 92, "game-results", BUNDLE_IDS["receipts-game3"])
    with company.receipts.client("sqs") as sqs:
        for body in (*bodies, "no JSON", NOT_FOR_NOW):
            sqs.send_message(QueueUrl=company.game2.outputs["SourceQueueUrl"], MessageBody=body)
        sqs.send_message(
            QueueUrl=company.game3.outputs["SourceQueueUrl"],
            MessageBody=ordered.body,
            MessageGroupId="user-1",
            MessageDeduplicationId="purchase-1",
        )
    began_at = company.game2.oldest_sent_at(company.game2.outputs["SourceQueueUrl"])
    dead, dead_first = [], []
    for minute in range(25):
        now = began_at + minute * MINUTE
        metrics.put(age, now, now - began_at)
        dead.append(second.evaluate(metrics, now + MINUTE))
        dead_first.append(first.evaluate(metrics, now + MINUTE))

    (container,) = company.deployed.task()["containerDefinitions"]
    sent = {"game-results": 1, "game2-results": 3, "game2-dead-letters": 1}

    def are_done() -> bool:
        return all(company.receipts.number_of_messages(queue) >= count for queue, count in sent.items())

    with SimulatedAppStore() as store:
        program = module_programs.start(
            *container["command"],
            module=QUICK,
            environment={**environment_of(container), **surroundings(company.receipts, "further", store)},
        )
        program.wait_until(are_done, "all are answered, but one, which is moved")
        program.wait_for_log("is handed back")
        program.wait_until(lambda: '"Heartbeat"' in program.stdout, "it says that it lives")
        counted = {
            Permission("sqs:GetQueueAttributes", company.game2.outputs[f"{queue}Arn"])
            for queue in ("SourceQueue", "DeadLetterQueue", "PostQueue")
        }
        program.wait_until(lambda: counted <= server.calls_of("further"), "it has counted what is on the queues")
        program.send_signal(signal.SIGTERM)
        assert program.wait_for_end() == 0, program.stderr
    lines = program.stdout.splitlines()
    documents = [json.loads(line) for line in lines]
    last_at = documents[-1]["_aws"]["Timestamp"] / 1000
    metrics.read_log(lines, later_by_seconds=began_at + 25 * MINUTE - last_at)
    metrics.put(age, began_at + 26 * MINUTE, 0.0)
    return Run(
        dead,
        dead_first,
        second.evaluate(metrics, began_at + 27 * MINUTE),
        {queue: len(company.receipts.bodies_on(queue)) for queue in sent},
        documents,
        program.stderr,
    )


@pytest.mark.slow
def test_a_task_serves_all_the_queues_as_its_definition_says(run: Run) -> None:
    """Each with its rules and its post queue, standard or FIFO; what can't be answered is moved to the queue's own."""
    assert run.done == {"game-results": 1, "game2-results": 3, "game2-dead-letters": 1}, run.log


@pytest.mark.slow
def test_the_role_may_do_what_it_does_on_a_further_queue_and_nothing_else(
    run: Run, company: Company, server: RecordingServer
) -> None:
    """The calls are those that the queue's own policy grants, both ways; nothing is called that no policy grants."""
    calls = server.calls_of("further")
    game2, game3 = (stack.granted(stack.outputs["ServicePolicyArn"]) for stack in (company.game2, company.game3))
    assert company.of_game2(calls) == game2, run.log
    assert calls <= game2 | game3 | company.receipts.granted(company.receipts.outputs["ServicePolicyArn"])


@pytest.mark.slow
def test_receipts_that_nobody_takes_from_a_further_queue_are_told_of(run: Run) -> None:
    """By its own alarms; they end when a task has been there."""
    went_off = [state for _heartbeat, state, _site in run.dead].index("ALARM")
    assert MAX_AGE_SECONDS / MINUTE <= went_off <= MAX_AGE_SECONDS / MINUTE + 4  # for three minutes
    assert run.dead[went_off] == ("ALARM", "ALARM", "ALARM")
    assert all(state == "OK" for _heartbeat, _age, state in run.dead[:went_off])
    assert run.alive == ("OK", "OK", "OK")


@pytest.mark.slow
def test_a_dead_site_wakes_somebody_also_where_the_first_queue_is_empty(run: Run) -> None:
    """Its own site-down has no reason to: nobody waits there. That is why a further queue has one."""
    assert {site for _heartbeat, _age, site in run.dead_first} == {"OK"}
    assert run.dead[-1] == ("ALARM", "ALARM", "ALARM")


@pytest.mark.slow
def test_a_task_says_of_each_queue_that_it_lives(run: Run, company: Company) -> None:
    """By the very dimensions that the alarms are about."""
    assert {document["SourceQueue"] for document in run.documents} == {
        "game-receipts",
        "game2-receipts",
        "game3-receipts.fifo",
    }
    heartbeat = Metric.of(SiteAlarms.of(company.second).heartbeat_missing.properties)
    assert heartbeat == Metric("ReceiptActors", "Heartbeat", frozenset({("SourceQueue", "game2-receipts")}))


def test_the_queues_have_the_sizes_asked_for(company: Company) -> None:
    """Those of a stack with names for all, and those of one that was told the source queue's and its type."""
    for stack, source, dead_letter_queue, deliveries, retention, visibility in (
        (company.game2, "game2-receipts", "game2-dead-letters", 7, "86400", "60"),
        (company.game3, "game3-receipts.fifo", "game3-receiptsDLQ.fifo", 20, "345600", "120"),
    ):
        outputs = stack.outputs
        assert (outputs["SourceQueueName"], outputs["DeadLetterQueueName"]) == (source, dead_letter_queue)
        attributes, letters = stack.queue_attributes(source), stack.queue_attributes(dead_letter_queue)
        assert attributes["VisibilityTimeout"] == visibility
        assert attributes["MessageRetentionPeriod"] == retention
        assert json.loads(attributes["RedrivePolicy"]) == {
            "deadLetterTargetArn": letters["QueueArn"],
            "maxReceiveCount": deliveries,
        }
        assert letters["MessageRetentionPeriod"] == str(14 * 24 * 60 * 60)
        for name, queue in (("SourceQueue", attributes), ("DeadLetterQueue", letters)):
            assert outputs[f"{name}Arn"] == queue["QueueArn"]
            assert outputs[f"{name}Url"].endswith(f"/{outputs[f'{name}Name']}")
            assert queue.get("FifoQueue") == ("true" if stack is company.game3 else None)
    assert company.game2.outputs["PostQueueArn"] == company.game2.queue_attributes("game2-results")["QueueArn"]
    assert not any(name.startswith("PostQueue") for name in company.game3.outputs)


def test_the_roles_of_the_first_stack_get_the_policies_of_the_others(company: Company) -> None:
    """The one that works on receipts each; the one that takes refunds back that of a post queue of its own."""
    receipts = company.receipts.outputs
    wanted = {
        "Service": {
            receipts["ServicePolicyArn"],
            company.game2.outputs["ServicePolicyArn"],
            company.game3.outputs["ServicePolicyArn"],
            company.deployed.service.outputs["ProtectionPolicyArn"],
        },
        "Notifications": {receipts["NotificationsPolicyArn"], company.game2.outputs["NotificationsPolicyArn"]},
    }
    with company.receipts.client("iam") as iam:
        for role, policies in wanted.items():
            attached = iam.list_attached_role_policies(RoleName=receipts[f"{role}RoleName"])["AttachedPolicies"]
            assert {policy["PolicyArn"] for policy in attached} == policies
    assert "NotificationsPolicyArn" not in company.game3.outputs


def test_the_tables_that_the_stacks_tell_are_settings(company: Company) -> None:
    """Beside the environment that the first stack tells, they are what was deployed."""
    tables = json.loads(company.game2.outputs["Sources"]) | json.loads(company.game3.outputs["Sources"])
    environment = {**company.receipts.environment, "RECEIPT_ACTORS_SOURCES": json.dumps(tables)}
    settings = load_settings({"bundle_ids": BUNDLE_ID}, environ=environment)
    assert settings.source_queues == ("game-receipts", "game2-receipts", "game3-receipts.fifo")
    second, third = (settings.of_source(queue) for queue in settings.source_queues[1:])
    assert (second.post_queues, second.dead_letter_queue) == (("game2-results",), "game2-dead-letters")
    assert (third.post_queues, third.dead_letter_queue) == (("game-results",), "game3-receiptsDLQ.fifo")


def test_its_alarms_can_be_put_and_tell_the_topic_of_the_first_stack(company: Company) -> None:
    """By their names, which begin with the stack's, of the queues that stand there."""
    with company.game2.client("cloudwatch") as cloudwatch:
        for alarm in company.second.resources("AWS::CloudWatch::Alarm").values():
            cloudwatch.put_metric_alarm(**alarm)
        described = cloudwatch.describe_alarms(AlarmNamePrefix="receipts-game2-")["MetricAlarms"]
    found = {alarm["AlarmName"].removeprefix("receipts-game2-"): alarm for alarm in described}
    watched = {name: alarm["Dimensions"][0]["Value"] for name, alarm in found.items()}
    assert watched == {
        "source-queue-age": "game2-receipts",
        "dead-letter-depth": "game2-dead-letters",
        "heartbeat-missing": "game2-receipts",
    }
    (composite,) = company.second.resources("AWS::CloudWatch::CompositeAlarm").values()
    for alarm in (*found.values(), composite):
        assert alarm["AlarmActions"] == alarm["OKActions"] == [company.receipts.outputs["AlertTopicArn"]]
    assert (found["source-queue-age"]["Threshold"], found["heartbeat-missing"]["EvaluationPeriods"]) == (900, 4)


def test_each_stack_has_a_page_of_its_own(company: Company) -> None:
    """By the stack's name, which tells them apart; with the queues that stand there."""
    pages = {stack.outputs["DashboardName"]: page_of(stack) for stack in (company.game2, company.game3)}
    assert {name: page.queues for name, page in pages.items()} == {
        "receipts-game2": {"game2-receipts", "game2-dead-letters", "game2-results"},
        "receipts-game3": {"game3-receipts.fifo", "game3-receiptsDLQ.fifo"},
    }
    assert [page.source_queues for page in pages.values()] == [{"game2-receipts"}, {"game3-receipts.fifo"}]
    assert company.receipts.outputs["DashboardName"] not in pages
