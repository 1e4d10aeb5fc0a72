"""The template deployed to moto: what stands there, who may do what, and the program at work on it."""

from __future__ import annotations

import ast
import json
import re
import signal
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import pytest

from receipt_actors.aws import AwsQueues
from receipt_actors.domain.ports import OutgoingMessage, ReceivedMessage
from receipt_actors.sandbox.app_store import SimulatedAppStore
from receipt_actors.sandbox.check import AnswerSeen, DeadLetterSeen, check
from receipt_actors.sandbox.load import Kind, make_scenario
from receipt_actors.sandbox.receipts import SampleReceipt, mint
from receipt_actors.settings import load_settings
from receipt_actors.telemetry import embedded_metrics
from receipt_actors.telemetry.embedded_metrics import SOURCE_QUEUE_DIMENSION
from tests.stores.apple.notifications.posts import AUTHORITY
from tests.system.processes import Program, Programs
from tests.system.worlds import BUNDLE_ID

from .alarms import CompositeAlarm, State
from .conftest import ACCOUNT, REGION, Permission, RecordingServer, Stack, alert_mail_code
from .intrinsics import resolved
from .pages import alarm_arns, page_of
from .services import post_refunds

# moto deploys everything but these; test_template reads the policies, and the alarms are put by hand below.
pytestmark = pytest.mark.filterwarnings(
    "ignore:Tried to parse AWS..SQS..QueuePolicy:UserWarning",
    "ignore:Tried to parse AWS..SNS..(TopicPolicy|Subscription):UserWarning",
    "ignore:Tried to parse AWS..CloudWatch..(Composite)?Alarm:UserWarning",
)

# Nothing has its default name or size: what the program finds, it finds by what the stack says.
PARAMETERS: Mapping[str, object] = {
    "SourceQueueName": "game-receipts",
    "PostQueueName": "game-results",
    "DeadLetterQueueName": "game-dead-letters",
    "LedgerTableName": "game.claims",
    "NotificationsTableName": "game.notifications",
    "RoleTableName": "game.roles",
    "QueueType": "standard",
    "VisibilityTimeoutSeconds": 60,
    "MaxReceiveCount": 7,
    "SourceRetentionSeconds": 86400,
    "ServicePrincipal": "ec2.amazonaws.com",
    "AlertsQueueName": "game-alerts",
    "AlertEmail": "on-call@example.com",
    "RunbookUrl": "https://wiki.example.com/receipts/runbook.html",
    "MaxMessageAgeSeconds": 900,
    "MaxDeadLetters": 3,
    "MaxThrottledRequests": 5,
    "HeartbeatMinutes": 4,
}
QUEUES = ("SourceQueue", "PostQueue", "DeadLetterQueue")
SCENARIO = make_scenario(60, 5, BUNDLE_ID, "game-results")
# Apple answers it as if our shared secret were wrong: it is handed back, which no message of the scenario is.
NOT_FOR_NOW = mint(SampleReceipt(BUNDLE_ID, (), status=21004))


@pytest.fixture(scope="module")
def stack(deploy: Callable[..., Stack]) -> Stack:
    return deploy(**PARAMETERS)


@pytest.fixture(scope="module")
def alert_mappings(stack: Stack) -> Sequence[Mapping[str, Any]]:
    """What feeds functions, until now."""
    return stack.switch_functions_off()


class Company:
    """Everyone who deals with the stack, each with credentials of his own; all set what the stack tells them to."""

    def __init__(self, stack: Stack, store: SimulatedAppStore, programs: Programs) -> None:
        self._programs = programs
        self._environment = {
            **stack.environment,
            "AWS_ENDPOINT_URL": stack.url,
            "AWS_SECRET_ACCESS_KEY": "testing",
            "RECEIPT_ACTORS_BUNDLE_IDS": BUNDLE_ID,
            "RECEIPT_ACTORS_APP_STORE_URL": store.url,
        }

    def start(self, user: str, *arguments: str, **settings: str) -> Program:
        variables = {f"RECEIPT_ACTORS_{name.upper()}": value for name, value in settings.items()}
        return self._programs.start(
            *arguments, environment={**self._environment, "AWS_ACCESS_KEY_ID": user, **variables}
        )


@dataclass(frozen=True, slots=True)
class Run:
    """What became of the messages of one run of the program, and of what everybody did afterwards."""

    answers: Sequence[AnswerSeen]
    dead_letters: Sequence[DeadLetterSeen]
    left_on_source_queue: int
    redriven: int
    log: str
    refunds: Sequence[int]
    told_of_refunds: Sequence[ReceivedMessage]


@pytest.fixture(scope="module")
def run(
    stack: Stack,
    alert_mappings: Sequence[Mapping[str, Any]],
    module_programs: Programs,
    tmp_path_factory: pytest.TempPathFactory,
) -> Run:
    """Let the service work, then have its answers read, its dead letters sent again and a claim looked up."""
    folder = tmp_path_factory.mktemp("run")
    receipt = folder / "receipt.txt"
    source, dead_letter_queue = stack.outputs["SourceQueueName"], stack.outputs["DeadLetterQueueName"]
    with ExitStack() as things:
        things.enter_context(pytest.MonkeyPatch.context()).setenv("AWS_ENDPOINT_URL", stack.url)
        onlooker = things.enter_context(closing(AwsQueues(boto3.Session("onlooker", "testing", region_name=REGION))))
        store = things.enter_context(SimulatedAppStore())
        company = Company(stack, store, module_programs)

        _send(onlooker, source, [OutgoingMessage(message.body, message.attributes) for message in SCENARIO.messages])
        receipt.write_text(NOT_FOR_NOW, encoding="utf-8")
        _end(company.start("producer", "submit", "--receipt-file", str(receipt), "--user-id", "1"))
        settings = {"receive_wait_seconds": "1", "role": "active-standby"}
        service = company.start("service", "start", "--exit-when-idle", "4", **settings)
        _end(service)
        left = stack.number_of_messages(source)
        dead_letters = _peek(onlooker, dead_letter_queue)

        _end(
            company.start("reader", "results", "--max", "1"),
            # Whoever does not know the dead-letter queue is told by the source queue.
            company.start("operator", "redrive", "--dry-run", dead_letter_queue=""),
        )
        results, redrive = company.start("reader", "results", "--delete"), company.start("operator", "redrive", "--all")
        claimed = next(message for message in SCENARIO.messages if message.kind is Kind.GENUINE)
        receipt.write_text(json.loads(claimed.body)["receipt"], encoding="utf-8")
        verify = company.start("operator", "verify", "--look-up", "--receipt-file", str(receipt))
        _end(results, redrive)
        _end(verify, code=1)  # nobody else would get OK: it is claimed
        refunds = _refund(company, folder, next(line for line in results.stdout.splitlines() if '"OK"' in line))
        return Run(
            [_answer(line) for line in results.stdout.splitlines()],
            [DeadLetterSeen(message.body, message.attributes["reason"]) for message in dead_letters],
            left,
            stack.number_of_messages(source) - left,
            service.stderr,
            refunds,
            _peek(onlooker, stack.outputs["PostQueueName"]),
        )


def _refund(company: Company, folder: Path, answer: str) -> Sequence[int]:
    """Have a purchase refunded, and refund and reversal of another one that nobody has claimed; return the statuses."""
    AUTHORITY.write_roots(folder / "roots")
    program = company.start("notifications", "notifications", "--port", "0", "--apple-roots", str(folder / "roots"))
    statuses = post_refunds(program, json.loads(answer)["transaction_id"])
    program.send_signal(signal.SIGTERM)
    _end(program)
    return statuses


def _end(*programs: Program, code: int = 0) -> None:
    for program in programs:
        assert program.wait_for_end() == code, f"{program.command_line}: {program.stderr}"


def _send(queues: AwsQueues, queue: str, messages: Sequence[OutgoingMessage]) -> None:
    for start in range(0, len(messages), 10):
        batch = messages[start : start + 10]
        assert queues.send(queue, batch) == [None] * len(batch)


def _peek(queues: AwsQueues, queue: str) -> list[ReceivedMessage]:
    """Look at every message of a queue, and leave it there."""
    messages: list[ReceivedMessage] = []
    while batch := queues.receive(queue, max_messages=10, wait_seconds=0, visibility_timeout_seconds=600):
        messages += batch
    for message in messages:
        assert queues.change_visibility(queue, [(message.receipt_handle, 0)]) == [None]
    return messages


def _answer(line: str) -> AnswerSeen:
    fields = json.loads(line)
    return AnswerSeen(fields["user_id"], fields["transaction_id"], fields["status"], fields["reason"])


@pytest.mark.slow
def test_the_program_works_on_the_stack_with_the_environment_that_it_tells(run: Run) -> None:
    """Deploy, set what the stack says, run: every message is answered or moved as it should be."""
    assert check(SCENARIO, run.answers, run.dead_letters).wrong == (), run.log
    assert run.left_on_source_queue == 1, run.log  # the one that was not for now


@pytest.mark.parametrize(
    ("user", "policy"),
    [
        ("service", "ServicePolicyArn"),
        ("producer", "ProducerPolicyArn"),
        ("reader", "ResultReaderPolicyArn"),
        ("operator", "OperatorPolicyArn"),
        ("notifications", "NotificationsPolicyArn"),
    ],
)
def test_everyone_may_do_what_he_does_and_nothing_else(
    run: Run, stack: Stack, server: RecordingServer, user: str, policy: str
) -> None:
    """The calls that were made are those that the policy grants, on the same resources: none missing, none too many."""
    assert server.calls_of(user) == stack.granted(stack.outputs[policy]), run.log


def test_a_node_may_hold_a_role(stack: Stack, run: Run) -> None:
    """It did, in a table for that and no other."""
    with stack.client("dynamodb") as dynamodb:
        table = dynamodb.describe_table(TableName=stack.outputs["RoleTableName"])["Table"]
    assert table["KeySchema"] == [{"AttributeName": "RoleGroup", "KeyType": "HASH"}]
    assert table["AttributeDefinitions"] == [{"AttributeName": "RoleGroup", "AttributeType": "S"}]
    assert table["TableArn"] == stack.outputs["RoleTableArn"]
    assert not table["DeletionProtectionEnabled"]
    assert "is active (active-standby, token 1, 1 node)" in run.log


def test_dead_letters_can_be_sent_again(run: Run) -> None:
    """What was in the dead-letter queue is on the source queue, all of it."""
    assert run.redriven == len(run.dead_letters) > 0


def test_refunds_are_taken_back(run: Run) -> None:
    """Marked in the table of the stack, and told on its post queue."""
    assert run.refunds == [200, 200, 200]
    (told,) = run.told_of_refunds
    assert json.loads(told.body)["status"] == "INVALID"
    assert told.attributes["reason"] == "refunded"


@pytest.mark.parametrize("role", ["Service", "Notifications"])
def test_a_role_has_its_own_policy_alone(stack: Stack, role: str) -> None:
    """Nothing comes in by another policy, and the one service that was named may assume the role, for this account."""
    role_name = stack.outputs[f"{role}RoleName"]
    with stack.client("iam") as iam:
        found = iam.get_role(RoleName=role_name)["Role"]
        attached = iam.list_attached_role_policies(RoleName=role_name)["AttachedPolicies"]
        inline = iam.list_role_policies(RoleName=role_name)["PolicyNames"]
    assert [policy["PolicyArn"] for policy in attached] == [stack.outputs[f"{role}PolicyArn"]]
    assert inline == []
    assert found["Arn"] == stack.outputs[f"{role}RoleArn"]
    (statement,) = found["AssumeRolePolicyDocument"]["Statement"]
    assert (statement["Effect"], statement["Action"]) == ("Allow", "sts:AssumeRole")
    assert statement["Principal"] == {"Service": "ec2.amazonaws.com"}
    assert statement["Condition"] == {"StringEqualsIfExists": {"aws:SourceAccount": ACCOUNT}}


def test_the_environment_is_one_that_the_settings_read(stack: Stack) -> None:
    """Every variable that the stack tells is known, and says what was deployed."""
    settings = load_settings({"bundle_ids": BUNDLE_ID}, environ=stack.environment)
    assert settings.backend == "aws"
    assert settings.source_queue == PARAMETERS["SourceQueueName"]
    assert settings.post_queues == (PARAMETERS["PostQueueName"],)
    assert settings.dead_letter_queue == PARAMETERS["DeadLetterQueueName"]
    assert settings.ledger_table == PARAMETERS["LedgerTableName"]
    assert settings.notifications_table == PARAMETERS["NotificationsTableName"]
    assert settings.alerts_queue == PARAMETERS["AlertsQueueName"]
    assert settings.metrics_log == "emf"  # the heartbeat
    assert settings.visibility_timeout_seconds == PARAMETERS["VisibilityTimeoutSeconds"]
    assert stack.environment["AWS_REGION"] == REGION


def test_the_queues_have_the_sizes_asked_for(stack: Stack) -> None:
    """Visibility, retention and deliveries are the parameters'; a receive without a wait of its own is a long poll."""
    source, post, dead_letters = (stack.queue_attributes(stack.outputs[f"{queue}Name"]) for queue in QUEUES)
    assert source["VisibilityTimeout"] == "60"
    assert source["MessageRetentionPeriod"] == "86400"
    assert json.loads(source["RedrivePolicy"]) == {
        "deadLetterTargetArn": dead_letters["QueueArn"],
        "maxReceiveCount": 7,
    }
    for attributes in (source, post, dead_letters):
        assert attributes["ReceiveMessageWaitTimeSeconds"] == "20"
        assert attributes["MaximumMessageSize"] == str(1024 * 1024)
    for attributes in (post, dead_letters):
        assert attributes["MessageRetentionPeriod"] == str(14 * 24 * 60 * 60)


def test_the_outputs_tell_where_everything_is(stack: Stack) -> None:
    """Names, URLs and ARNs are those of the queues and the table that stand there."""
    outputs = stack.outputs
    for queue in (*QUEUES, "AlertsQueue"):
        assert outputs[f"{queue}Name"] == PARAMETERS[f"{queue}Name"]
        assert outputs[f"{queue}Arn"] == stack.queue_attributes(outputs[f"{queue}Name"])["QueueArn"]
        assert outputs[f"{queue}Url"].endswith(f"/{ACCOUNT}/{PARAMETERS[f'{queue}Name']}")
    with stack.client("dynamodb") as dynamodb:
        table = dynamodb.describe_table(TableName=outputs["LedgerTableName"])["Table"]
    assert outputs["LedgerTableName"] == PARAMETERS["LedgerTableName"]
    assert outputs["LedgerTableArn"] == table["TableArn"]


def test_notifications_have_their_id_as_their_only_key(stack: Stack) -> None:
    """In a table that may be deleted with the stack."""
    with stack.client("dynamodb") as dynamodb:
        table = dynamodb.describe_table(TableName=stack.outputs["NotificationsTableName"])["Table"]
    assert table["KeySchema"] == [{"AttributeName": "NotificationUuid", "KeyType": "HASH"}]
    assert table["TableArn"] == stack.outputs["NotificationsTableArn"]
    assert not table["DeletionProtectionEnabled"]


def test_the_ledger_has_the_transaction_id_as_its_only_key(stack: Stack) -> None:
    """One item a transaction; paid by the request; and nobody deletes the table by a slip."""
    with stack.client("dynamodb") as dynamodb:
        table = dynamodb.describe_table(TableName=stack.outputs["LedgerTableName"])["Table"]
    assert table["KeySchema"] == [{"AttributeName": "TransactionId", "KeyType": "HASH"}]
    assert table["AttributeDefinitions"] == [{"AttributeName": "TransactionId", "AttributeType": "S"}]
    assert table["BillingModeSummary"]["BillingMode"] == "PAY_PER_REQUEST"
    assert table["DeletionProtectionEnabled"] is True


# --- alerts ---


@dataclass(frozen=True, slots=True)
class Mail:
    """What a subscriber of the topic gets."""

    subject: str
    text: str


@pytest.fixture(scope="module")
def mails(stack: Stack, run: Run) -> list[Mail]:
    """Let the function of the template work on what the service has left on the alerts queue, as Lambda would."""
    with ExitStack() as things:
        patch = things.enter_context(pytest.MonkeyPatch.context())
        sns, sqs = (things.enter_context(stack.client(service)) for service in ("sns", "sqs"))
        with stack.client("lambda") as functions:
            function = functions.get_function_configuration(FunctionName=stack.outputs["AlertMailName"])
        url = sqs.create_queue(QueueName="mailbox")["QueueUrl"]
        attributes = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]
        sns.subscribe(TopicArn=stack.outputs["AlertTopicArn"], Protocol="sqs", Endpoint=attributes["QueueArn"])
        surroundings = {
            **function["Environment"]["Variables"],
            "AWS_DEFAULT_REGION": REGION,
            "AWS_ENDPOINT_URL": stack.url,
            "AWS_ACCESS_KEY_ID": "function",
            "AWS_SECRET_ACCESS_KEY": "testing",
        }
        for name, value in surroundings.items():
            patch.setenv(name, value)
        names: dict[str, Any] = {}
        exec(compile(alert_mail_code(), "index.py", "exec"), names)
        things.callback(names["sns"].close)
        alerts = sqs.receive_message(QueueUrl=stack.outputs["AlertsQueueUrl"], MaxNumberOfMessages=10)["Messages"]
        names[function["Handler"].rpartition(".")[2]]({"Records": [{"body": alert["Body"]} for alert in alerts]}, None)
        received = sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10)["Messages"]
        notes = [json.loads(message["Body"]) for message in received]
        return [Mail(note["Subject"], note["Message"]) for note in notes]


def test_what_only_an_operator_can_put_right_arrives_as_a_mail(mails: list[Mail]) -> None:
    """From Apple's 21004, by actor, alerts queue, function and topic, to whoever has subscribed."""
    (mail,) = mails
    assert mail.subject.startswith("game-receipts: configuration x ")
    assert "21004" in mail.text
    assert "https://wiki.example.com/receipts/runbook.html#alert-configuration" in mail.text


def test_the_function_may_do_what_it_does_and_what_lambda_does_for_it(
    stack: Stack, mails: list[Mail], server: RecordingServer
) -> None:
    """Publish; take alerts; write a log. Nothing else, and on nothing else."""
    outputs = stack.outputs
    publish = Permission("sns:Publish", outputs["AlertTopicArn"])
    assert server.calls_of("function") == {publish}
    (policy,) = inline_policies(stack)
    granted = {
        (action, statement["Resource"])
        for statement in policy["Statement"]
        for action in statement["Action"]
        if statement["Effect"] == "Allow"
    }
    taking = {(f"sqs:{action}", outputs["AlertsQueueArn"]) for action in _TAKING}
    others = {(action, resource) for action, resource in granted - taking if not action.startswith("logs:")}
    assert taking <= granted
    assert others == {("sns:Publish", outputs["AlertTopicArn"])}
    logging = {action: resource for action, resource in granted if action.startswith("logs:")}
    assert sorted(logging) == ["logs:CreateLogStream", "logs:PutLogEvents"]
    assert all(outputs["AlertMailLogName"] in resource for resource in logging.values())


_TAKING = ("DeleteMessage", "GetQueueAttributes", "ReceiveMessage")


def inline_policies(stack: Stack) -> list[dict[str, Any]]:
    """Return the documents of all policies that stand in roles."""
    with stack.client("iam") as iam:
        documents = [
            iam.get_role_policy(RoleName=role["RoleName"], PolicyName=policy)["PolicyDocument"]
            for role in iam.list_roles()["Roles"]
            for policy in iam.list_role_policies(RoleName=role["RoleName"])["PolicyNames"]
        ]
    return [
        ast.literal_eval(document) for document in documents
    ]  # moto keeps what CloudFormation made as repr() has it


def test_alerts_go_to_the_function_by_themselves(stack: Stack, alert_mappings: Sequence[Mapping[str, Any]]) -> None:
    """Lambda takes them from the queue, several at a time."""
    (mapping,) = alert_mappings
    assert mapping["EventSourceArn"] == stack.outputs["AlertsQueueArn"]
    assert mapping["FunctionArn"].endswith(f":function:{stack.outputs['AlertMailName']}")


# --- alarms: what a dead process can't say ---


@pytest.fixture(scope="module")
def alarms(stack: Stack) -> dict[str, dict[str, Any]]:
    """Put the template's alarms as CloudFormation would, and return them as CloudWatch has them."""
    template = resolved(stack, PARAMETERS)
    with stack.client("cloudwatch") as cloudwatch:
        for alarm in template.resources("AWS::CloudWatch::Alarm").values():
            cloudwatch.put_metric_alarm(**alarm)
        described = cloudwatch.describe_alarms()["MetricAlarms"]
    return {alarm["AlarmName"].removeprefix("receipts-"): alarm for alarm in described}


@pytest.mark.parametrize(
    ("name", "metric", "dimensions", "condition"),
    [
        (
            "source-queue-age",
            "AWS/SQS ApproximateAgeOfOldestMessage Maximum",
            {"QueueName": "game-receipts"},
            "GreaterThanThreshold 900.0",
        ),
        (
            "dead-letter-depth",
            "AWS/SQS ApproximateNumberOfMessagesVisible Maximum",
            {"QueueName": "game-dead-letters"},
            "GreaterThanThreshold 3.0",
        ),
        (
            "heartbeat-missing",
            "ReceiptActors Heartbeat Sum",
            {"SourceQueue": "game-receipts"},
            "LessThanThreshold 1.0",
        ),
        (
            "ledger-writes-throttled",
            "AWS/DynamoDB WriteThrottleEvents Sum",
            {"TableName": "game.claims"},
            "GreaterThanThreshold 5.0",
        ),
        (
            "ledger-reads-throttled",
            "AWS/DynamoDB ReadThrottleEvents Sum",
            {"TableName": "game.claims"},
            "GreaterThanThreshold 5.0",
        ),
        *(
            (
                f"ledger-{name}-errors",
                "AWS/DynamoDB SystemErrors Sum",
                {"TableName": "game.claims", "Operation": operation},
                "GreaterThanThreshold 0.0",
            )
            for name, operation in [("put", "PutItem"), ("batch", "BatchExecuteStatement"), ("get", "GetItem")]
        ),
        (
            "alert-mail-errors",
            "AWS/Lambda Errors Sum",
            {"FunctionName": None},
            "GreaterThanThreshold 0.0",
        ),
        (
            "alerts-queue-age",
            "AWS/SQS ApproximateAgeOfOldestMessage Maximum",
            {"QueueName": "game-alerts"},
            "GreaterThanThreshold 300.0",
        ),
    ],
)
def test_an_alarm_watches_what_stands_there(
    stack: Stack,
    alarms: dict[str, dict[str, Any]],
    name: str,
    metric: str,
    dimensions: dict[str, str | None],
    condition: str,
) -> None:
    """The metric as AWS (and we) call it, of what was deployed, with the limits that were asked for."""
    alarm = alarms[name]
    assert f"{alarm['Namespace']} {alarm['MetricName']} {alarm['Statistic']}" == metric
    expected = {key: value or stack.outputs["AlertMailName"] for key, value in dimensions.items()}
    assert {each["Name"]: each["Value"] for each in alarm["Dimensions"]} == expected
    assert f"{alarm['ComparisonOperator']} {alarm['Threshold']}" == condition
    if name == "heartbeat-missing":
        assert alarm["Namespace"] == "ReceiptActors"
        assert set(expected) == {SOURCE_QUEUE_DIMENSION}
    assert alarm["EvaluationPeriods"] == {"heartbeat-missing": 4, "dead-letter-depth": 1, "alert-mail-errors": 1}.get(
        name, 3
    )


def test_every_alarm_can_go_off_and_says_whom_it_tells(stack: Stack, alarms: dict[str, dict[str, Any]]) -> None:
    """(moto notes the state, and sends nothing.) Each tells the topic, of its end as well, and where to read of it."""
    with stack.client("cloudwatch") as cloudwatch:
        for alarm in alarms.values():
            cloudwatch.set_alarm_state(AlarmName=alarm["AlarmName"], StateValue="ALARM", StateReason="a drill")
        went_off = cloudwatch.describe_alarms(StateValue="ALARM")["MetricAlarms"]
    assert {alarm["AlarmName"].removeprefix("receipts-") for alarm in went_off} == set(alarms)
    for name, alarm in alarms.items():
        assert alarm["AlarmActions"] == alarm["OKActions"] == [stack.outputs["AlertTopicArn"]]
        assert f"https://wiki.example.com/receipts/runbook.html#alarm-{name}" in alarm["AlarmDescription"]


def test_a_site_is_down_where_nobody_lives_and_receipts_wait(stack: Stack, alarms: dict[str, dict[str, Any]]) -> None:
    """By the names of the alarms that stand there; each of the two alone may wait for the morning.

    (moto fails over composite alarms: this one is the template's.)
    """
    composite = CompositeAlarm(resolved(stack, PARAMETERS).resources("AWS::CloudWatch::CompositeAlarm")["SiteDown"])
    states: list[tuple[State, State, State]] = [
        ("ALARM", "ALARM", "ALARM"),
        ("ALARM", "OK", "OK"),
        ("OK", "ALARM", "OK"),
        ("INSUFFICIENT_DATA", "ALARM", "OK"),
    ]
    for heartbeat, age, state in states:
        both: dict[str, State] = {"receipts-heartbeat-missing": heartbeat, "receipts-source-queue-age": age}
        assert composite.evaluate(both) == state
    assert composite.asked == {alarms[name]["AlarmName"] for name in ("heartbeat-missing", "source-queue-age")}


def test_the_page_shows_what_the_program_writes(stack: Stack, alarms: dict[str, dict[str, Any]]) -> None:
    """Its metrics are there by their names and dimensions, its alarms are those that stand there."""
    page = page_of(stack)
    assert page.written <= WRITTEN
    assert page.source_queues == {"game-receipts"}
    assert page.queues == {"game-receipts", "game-results", "game-dead-letters"}
    assert page.alarms == alarm_arns("receipts", *alarms, "site-down")


#: Every metric that the program may write, from the table of the module that does.
WRITTEN = set(re.findall(r"``(\w+)``", embedded_metrics.__doc__ or ""))
