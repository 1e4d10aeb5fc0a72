"""All templates deployed to moto: what stands there, who may do what, and the program at work on it.

The first stack, two further source queues beside it (one with answers of its own and every size given, one FIFO), and
the service on all three. Nothing has its default name or size: what the program finds, it finds by what the stacks say.

moto makes the queues, tables, roles, policies, the cluster, the log and the security groups. It leaves out the queues'
policies, the subscription, the alarms and autoscaling, which ``test_templates`` and ``test_service_template`` read. Of
the task definition, the service and the cluster's settings it forgets most: they are put by hand, by their APIs, whose
client checks the form. It starts no container and enforces no rule of a template.

All takes half a minute, so it is one test with many parts.
"""

from __future__ import annotations

import ast
import json
import signal
import time
from collections import ChainMap
from collections.abc import Mapping, Sequence
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
from tests.stores.apple.notifications.posts import AUTHORITY
from tests.system.processes import Program, Programs
from tests.system.worlds import BUNDLE_ID, genuine_messages

from .alarms import watched
from .conftest import (
    ACCOUNT,
    REGION,
    SOURCE_TEMPLATE,
    TEMPLATE,
    Permission,
    RecordingServer,
    Stack,
    alert_mail_code,
    create_stack,
)
from .intrinsics import Resolved, resolved
from .services import QUICK, Deployed, as_the_api_spells, deploy_service, environment_of, post_refunds, surroundings

pytestmark = pytest.mark.filterwarnings("ignore:Tried to parse AWS..:UserWarning")

RUNBOOK = "https://wiki.example.com/receipts/runbook.html"
RECEIPTS: Mapping[str, object] = {
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
    "RunbookUrl": RUNBOOK,
    "MaxMessageAgeSeconds": 900,
    "MaxDeadLetters": 3,
    "MaxThrottledRequests": 5,
    "HeartbeatMinutes": 4,
}
GAME2: Mapping[str, object] = {
    "SourceQueueName": "game2-receipts",
    "DeadLetterQueueName": "game2-dead-letters",
    "PostQueueName": "game2-results",
    "VisibilityTimeoutSeconds": 60,
    "MaxReceiveCount": 7,
    "SourceRetentionSeconds": 86400,
    "MaxMessageAgeSeconds": 900,
    "HeartbeatMinutes": 4,
}
GAME3: Mapping[str, object] = {"SourceQueueName": "game3-receipts", "QueueType": "fifo"}
SECRET = f"arn:aws:secretsmanager:{REGION}:{ACCOUNT}:secret:game/shared-secret-AbCdEf"
SETTINGS = '{"max_in_flight": 300, "log_format": "json"}'
SERVICE: Mapping[str, object] = {
    "Image": "game/receipt-actors:1.2.3",
    "Architecture": "ARM64",
    "BundleIds": BUNDLE_ID,
    "Settings": SETTINGS,
    "SharedSecretArn": SECRET,
    "Cpu": "2048",
    "MemoryMiB": "4096",
    "Processes": "1",
    "Role": "load-balanced",
    "VisibilityTimeoutSeconds": "60",
    "DrainSeconds": "40",
    "LogRetentionDays": 14,
    "MinTasks": 3,
    "MaxTasks": 30,
    "AcceptableSeconds": 90,
    "TaskReceiptsPerSecond": 1000,
    "RunbookUrl": RUNBOOK,
    "SourceStacks": "receipts-game2,receipts-game3",
}
QUEUES = ("SourceQueue", "PostQueue", "DeadLetterQueue")
SOURCES = ("game-receipts", "game2-receipts", "game3-receipts.fifo")
LONGEST_SECONDS = str(14 * 24 * 60 * 60)
SCENARIO = make_scenario(60, 5, BUNDLE_ID, "game-results")
# Apple answers it as if our shared secret were wrong: it is handed back, which no other message is.
NOT_FOR_NOW = mint(SampleReceipt(BUNDLE_ID, (), status=21004))
UNANSWERED = {
    post_queue: ("no JSON", json.dumps({"receipt": NOT_FOR_NOW, "user_id": 1, "post_queue": post_queue}))
    for post_queue in ("game-results", "game2-results")
}
(ORDERED,) = genuine_messages(1, 92, "game-results")
DONE = {"game2-results": 3, "game2-dead-letters": 1, "game3-receiptsDLQ.fifo": 1}


@dataclass(frozen=True)
class Site:
    receipts: Stack
    game2: Stack
    game3: Stack
    deployed: Deployed
    first: Resolved
    mappings: Sequence[Mapping[str, Any]]  #: what fed functions

    @property
    def service(self) -> Stack:
        return self.deployed.service

    def container(self, task: str = "TaskDefinition") -> Mapping[str, Any]:
        (container,) = self.deployed.task(task)["containerDefinitions"]
        found: Mapping[str, Any] = container
        return found


@pytest.fixture
def site(server: RecordingServer) -> Site:
    receipts = create_stack(server, "receipts", TEMPLATE, RECEIPTS)
    mappings = receipts.switch_functions_off()
    first = resolved(receipts, RECEIPTS)
    games = {"receipts-game2": GAME2, "receipts-game3": GAME3}
    stacks = {name: create_stack(server, name, SOURCE_TEMPLATE, sizes) for name, sizes in games.items()}
    exports = [first.exports()] + [
        resolved(stacks[name], sizes, template=SOURCE_TEMPLATE, stack_name=name, exports=first.exports()).exports()
        for name, sizes in games.items()
    ]
    # What a person does: the table is what the stacks tell.
    sources = {**json.loads(stacks["receipts-game2"].outputs["Sources"])}
    sources |= json.loads(stacks["receipts-game3"].outputs["Sources"])
    deployed = deploy_service(server, receipts, {**SERVICE, "Sources": json.dumps(sources)}, dict(ChainMap(*exports)))
    return Site(receipts, stacks["receipts-game2"], stacks["receipts-game3"], deployed, first, mappings)


def the_queues_and_tables_have_the_sizes_asked_for(site: Site) -> None:
    """Visibility, retention, deliveries and keys; and the outputs tell where each stands.

    A receive without a wait of its own is a long poll, and nobody deletes the ledger by a slip.
    """
    for stack, source, dead_letter_queue, deliveries, retention, visibility in (
        (site.receipts, "game-receipts", "game-dead-letters", 7, "86400", "60"),
        (site.game2, "game2-receipts", "game2-dead-letters", 7, "86400", "60"),
        (site.game3, "game3-receipts.fifo", "game3-receiptsDLQ.fifo", 20, "345600", "120"),
    ):
        outputs = stack.outputs
        assert (outputs["SourceQueueName"], outputs["DeadLetterQueueName"]) == (source, dead_letter_queue)
        queues = {name: stack.queue_attributes(outputs[f"{name}Name"]) for name in QUEUES if f"{name}Name" in outputs}
        assert queues["SourceQueue"]["VisibilityTimeout"] == visibility
        assert queues["SourceQueue"].pop("MessageRetentionPeriod") == retention
        letters = {"deadLetterTargetArn": queues["DeadLetterQueue"]["QueueArn"], "maxReceiveCount": deliveries}
        assert json.loads(queues["SourceQueue"]["RedrivePolicy"]) == letters
        for name, queue in queues.items():
            assert outputs[f"{name}Arn"] == queue["QueueArn"]
            assert outputs[f"{name}Url"].endswith(f"/{ACCOUNT}/{outputs[f'{name}Name']}")
            assert (queue["ReceiveMessageWaitTimeSeconds"], queue["MaximumMessageSize"]) == ("20", str(1024 * 1024))
            assert queue.get("MessageRetentionPeriod", LONGEST_SECONDS) == LONGEST_SECONDS
            assert queue.get("FifoQueue") == ("true" if stack is site.game3 else None)
    assert "PostQueueName" not in site.game3.outputs
    outputs = site.receipts.outputs
    assert outputs["AlertsQueueArn"] == site.receipts.queue_attributes("game-alerts")["QueueArn"]
    for table, name, key in (
        ("LedgerTable", "game.claims", "TransactionId"),
        ("NotificationsTable", "game.notifications", "NotificationUuid"),
        ("RoleTable", "game.roles", "RoleGroup"),
    ):
        with site.receipts.client("dynamodb") as dynamodb:
            found = dynamodb.describe_table(TableName=name)["Table"]
        assert (outputs[f"{table}Name"], outputs[f"{table}Arn"]) == (name, found["TableArn"])
        assert found["KeySchema"] == [{"AttributeName": key, "KeyType": "HASH"}]
        assert found["AttributeDefinitions"] == [{"AttributeName": key, "AttributeType": "S"}]
        assert found["BillingModeSummary"]["BillingMode"] == "PAY_PER_REQUEST"
        assert found["DeletionProtectionEnabled"] is (table == "LedgerTable")


def a_role_has_the_policies_of_the_stacks_alone(site: Site) -> None:
    """Nothing comes in by another policy, and the one service that was named may assume the role, for this account.

    Where a further queue has a post queue of its own, refunds are told there. A task may protect itself in its cluster.
    """
    receipts, service = site.receipts.outputs, site.service.outputs
    wanted = {
        "Service": {stack.outputs["ServicePolicyArn"] for stack in (site.receipts, site.game2, site.game3)}
        | {service["ProtectionPolicyArn"]},
        "Notifications": {stack.outputs["NotificationsPolicyArn"] for stack in (site.receipts, site.game2)},
    }
    for role, policies in wanted.items():
        name = receipts[f"{role}RoleName"]
        with site.receipts.client("iam") as iam:
            found = iam.get_role(RoleName=name)["Role"]
            attached = iam.list_attached_role_policies(RoleName=name)["AttachedPolicies"]
            assert iam.list_role_policies(RoleName=name)["PolicyNames"] == []
        assert {policy["PolicyArn"] for policy in attached} == policies
        assert found["Arn"] == receipts[f"{role}RoleArn"]
        (statement,) = found["AssumeRolePolicyDocument"]["Statement"]
        assert (statement["Effect"], statement["Action"]) == ("Allow", "sts:AssumeRole")
        assert statement["Principal"] == {"Service": "ec2.amazonaws.com"}
        assert statement["Condition"] == {"StringEqualsIfExists": {"aws:SourceAccount": ACCOUNT}}
    assert "NotificationsPolicyArn" not in site.game3.outputs
    (statement,) = site.service.statements(service["ProtectionPolicyArn"])
    cluster = service["ClusterName"]
    assert statement["Action"] == ["ecs:UpdateTaskProtection"]
    assert statement["Resource"] == f"arn:aws:ecs:{REGION}:{ACCOUNT}:task/{cluster}/*"
    assert statement["Condition"] == {"ArnEquals": {"ecs:cluster": f"arn:aws:ecs:{REGION}:{ACCOUNT}:cluster/{cluster}"}}


# --- the service ---


def a_task_has_the_sizes_roles_and_settings_asked_for(site: Site) -> None:
    """And the image of this account's registry, for the processor that was named; no secret stands in the definition.

    What takes notifications has a role of its own, whose policy grants no claim and no receipt.
    """
    task, notifications = site.deployed.task(), site.deployed.task("NotificationsTaskDefinition")
    container, taker = site.container(), site.container("NotificationsTaskDefinition")
    assert (task["cpu"], task["memory"], task["networkMode"]) == ("2048", "4096", "awsvpc")
    assert task["requiresCompatibilities"] == ["FARGATE"]
    assert task["runtimePlatform"] == {"cpuArchitecture": "ARM64", "operatingSystemFamily": "LINUX"}
    for each, role in ((task, "Service"), (notifications, "Notifications")):
        assert each["taskRoleArn"] == site.receipts.outputs[f"{role}RoleArn"]
        assert each["executionRoleArn"] == site.service.outputs["ExecutionRoleArn"]
    image = f"{ACCOUNT}.dkr.ecr.{REGION}.amazonaws.com/game/receipt-actors:1.2.3"
    assert (container["image"], taker["image"]) == (image, image)
    assert container["stopTimeout"] == 45
    assert container["secrets"] == [{"name": "RECEIPT_ACTORS_SHARED_SECRET", "valueFrom": SECRET}]
    assert taker["secrets"] == []  # it asks Apple nothing
    environment, told = environment_of(container), site.receipts.environment
    assert not any("SECRET" in name or "KEY" in name for name in environment)
    assert {name: environment.get(name) for name in told} == {
        **told,
        "RECEIPT_ACTORS_VISIBILITY_TIMEOUT_SECONDS": "60",
        "RECEIPT_ACTORS_NOTIFICATIONS_TABLE": None,  # of another command, and another role
    }
    settings = load_settings({}, environ=environment)
    assert (settings.bundle_ids, settings.processes, settings.drain_seconds) == ((BUNDLE_ID,), 1, 40)
    of_taker = environment_of(taker)
    assert of_taker.items() <= {**environment, **told}.items()
    assert (of_taker["RECEIPT_ACTORS_BUNDLE_IDS"], of_taker["RECEIPT_ACTORS_SETTINGS"]) == (BUNDLE_ID, SETTINGS)


def who_starts_a_task_may_fetch_what_it_needs_and_nothing_else(site: Site) -> None:
    """One repository, one secret, one log; only the log-in to the registry knows no resource."""
    outputs, service = site.service.outputs, site.service
    role_name = outputs["ExecutionRoleName"]
    with service.client("iam") as iam, service.client("logs") as logs:
        attached = iam.list_attached_role_policies(RoleName=role_name)["AttachedPolicies"]
        assert iam.list_role_policies(RoleName=role_name)["PolicyNames"] == []
        role = iam.get_role(RoleName=role_name)["Role"]
        (log,) = logs.describe_log_groups(logGroupNamePrefix=outputs["LogName"])["logGroups"]
    assert outputs["ExecutionPolicyArn"] in {policy["PolicyArn"] for policy in attached}
    granted = set().union(*(service.granted(policy["PolicyArn"]) for policy in attached))
    repository = f"arn:aws:ecr:{REGION}:{ACCOUNT}:repository/game/receipt-actors"
    opening = {permission for permission in granted if permission.action.startswith("logs:")}
    assert granted - opening == {
        Permission("ecr:GetAuthorizationToken", "*"),
        Permission("ecr:BatchCheckLayerAvailability", repository),
        Permission("ecr:BatchGetImage", repository),
        Permission("ecr:GetDownloadUrlForLayer", repository),
        Permission("secretsmanager:GetSecretValue", SECRET),
        Permission("ssm:GetParameters", SECRET),  # about nothing: it is a secret of the other service
    }
    assert {permission.action for permission in opening} == {"logs:CreateLogStream", "logs:PutLogEvents"}
    assert all(outputs["LogName"] in permission.resource for permission in opening)
    assert log["retentionInDays"] == 14
    (statement,) = role["AssumeRolePolicyDocument"]["Statement"]
    assert statement["Principal"] == {"Service": "ecs-tasks.amazonaws.com"}


def the_services_run_in_the_subnets_and_only_the_load_balancer_reaches_one(site: Site) -> None:
    """That one on the port that the program listens on, which is the target group's.

    A deployment that fails goes back; while it goes on, no task is missing.
    """
    outputs, parameters, template = site.service.outputs, site.deployed.parameters, site.deployed.template
    services, groups = template.resources("AWS::ECS::Service"), ("SecurityGroupId", "NotificationsSecurityGroupId")
    with site.service.client("ecs") as ecs, site.service.client("ec2") as ec2:
        assert ecs.describe_clusters(clusters=[outputs["ClusterName"]])["failures"] == []
        worker, taker = (
            ecs.create_service(
                **as_the_api_spells({"DesiredCount": 0, **services[name]}), serviceName=f"{name}-by-hand"
            )["service"]
            for name in ("Service", "NotificationsService")
        )
        closed, opened = (
            ec2.describe_security_groups(GroupIds=[outputs[group]])["SecurityGroups"][0] for group in groups
        )
    for made, group in zip((worker, taker), groups, strict=True):
        network = made["networkConfiguration"]["awsvpcConfiguration"]
        assert network["subnets"] == str(parameters["SubnetIds"]).split(",")
        assert network["securityGroups"] == [outputs[group]]
    assert worker["networkConfiguration"]["awsvpcConfiguration"]["assignPublicIp"] == "DISABLED"
    assert services["Service"]["DeploymentConfiguration"] == {
        "DeploymentCircuitBreaker": {"Enable": True, "Rollback": True},
        "MinimumHealthyPercent": 100,
        "MaximumPercent": 200,
    }
    (cluster,) = template.resources("AWS::ECS::Cluster").values()
    assert cluster["ClusterSettings"] == [{"Name": "containerInsights", "Value": "enabled"}]
    assert (closed["IpPermissions"], closed["VpcId"]) == ([], parameters["VpcId"])
    container = site.container("NotificationsTaskDefinition")
    (balanced,), (mapping,) = taker["loadBalancers"], container["portMappings"]
    assert balanced["targetGroupArn"] == parameters["NotificationsTargetGroupArn"]
    assert (balanced["containerName"], balanced["containerPort"]) == (container["name"], mapping["containerPort"])
    assert container["command"][-1] == str(mapping["containerPort"])
    (ingress,) = opened["IpPermissions"]
    assert (ingress["FromPort"], ingress["ToPort"]) == (mapping["containerPort"], mapping["containerPort"])
    assert [pair["GroupId"] for pair in ingress["UserIdGroupPairs"]] == [parameters["LoadBalancerSecurityGroupId"]]
    assert ingress["IpRanges"] == []


# --- the program at work ---


class Company:
    """Everyone who deals with the stacks, each with credentials of his own; all set what the first stack tells."""

    def __init__(self, site: Site, store: SimulatedAppStore, programs: Programs) -> None:
        self._site = site
        self._store = store
        self._programs = programs

    def start(self, user: str, *arguments: str, **settings: str) -> Program:
        variables = {f"RECEIPT_ACTORS_{name.upper()}": value for name, value in settings.items()}
        environment = {**self._site.receipts.environment, "RECEIPT_ACTORS_BUNDLE_IDS": BUNDLE_ID, **variables}
        return self._start(user, arguments, environment)

    def start_task(self, user: str, task: str, *further: str, module: str = QUICK) -> Program:
        container = self._site.container(task)
        return self._start(user, (*container["command"], *further), environment_of(container), module)

    def _start(
        self, user: str, arguments: Sequence[str], environment: Mapping[str, str], module: str = "receipt_actors"
    ) -> Program:
        environment = {**environment, **surroundings(self._site.receipts, user, self._store)}
        return self._programs.start(*arguments, environment=environment, module=module)


@dataclass(frozen=True, slots=True)
class Run:
    answers: Sequence[AnswerSeen]
    dead_letters: Sequence[DeadLetterSeen]
    done: Mapping[str, int]  #: messages on the queues of the other games
    redriven: int
    seconds_to_end: float
    documents: Sequence[Mapping[str, Any]]  #: of metrics
    log: str
    refunds: Sequence[int]
    told_of_refunds: Sequence[ReceivedMessage]


def run_of(site: Site, server: RecordingServer, programs: Programs, folder: Path) -> Run:
    receipts, receipt = site.receipts, folder / "receipt.txt"
    with ExitStack() as things:
        things.enter_context(pytest.MonkeyPatch.context()).setenv("AWS_ENDPOINT_URL", receipts.url)
        onlooker = things.enter_context(closing(AwsQueues(boto3.Session("onlooker", "testing", region_name=REGION))))
        store = things.enter_context(SimulatedAppStore())
        company = Company(site, store, programs)

        send(onlooker, "game-receipts", [OutgoingMessage(each.body, each.attributes) for each in SCENARIO.messages])
        bodies = [each.body for each in genuine_messages(3, 91, "game2-results")]
        send(
            onlooker, "game2-receipts", [OutgoingMessage(body, {}) for body in (*bodies, *UNANSWERED["game2-results"])]
        )
        with receipts.client("sqs") as sqs:
            for number, body in enumerate((ORDERED.body, *UNANSWERED["game-results"])):
                sqs.send_message(
                    QueueUrl=site.game3.outputs["SourceQueueUrl"],
                    MessageBody=body,
                    MessageGroupId=f"user-{number}",
                    MessageDeduplicationId=f"purchase-{number}",
                )
        receipt.write_text(NOT_FOR_NOW, encoding="utf-8")
        end(company.start("producer", "submit", "--receipt-file", str(receipt), "--user-id", "1"))

        service = company.start_task("service", "TaskDefinition")
        service.wait_until(
            lambda: all(receipts.number_of_messages(queue) == 1 for queue in SOURCES), "all is done but what cannot be"
        )
        service.wait_until(lambda: all(f'"{queue}"' in service.stdout for queue in SOURCES), "it says that it lives")
        granted = granted_to_service(site)
        service.wait_until(lambda: granted <= server.calls_of("service"), "it has done all that it may")
        began = time.monotonic()
        service.send_signal(signal.SIGTERM)
        end(service)
        seconds_to_end = time.monotonic() - began
        dead_letters = peek(onlooker, "game-dead-letters")
        done = {queue: receipts.number_of_messages(queue) for queue in DONE}

        # Without the dead-letter queue's name, the source queue tells it.
        dry_run = company.start("operator", "redrive", "--dry-run", dead_letter_queue="")
        end(company.start("reader", "results", "--max", "1"), dry_run)
        results, redrive = company.start("reader", "results", "--delete"), company.start("operator", "redrive", "--all")
        claimed = next(message for message in SCENARIO.messages if message.kind is Kind.GENUINE)
        receipt.write_text(json.loads(claimed.body)["receipt"], encoding="utf-8")
        verify = company.start("operator", "verify", "--look-up", "--receipt-file", str(receipt))
        end(results, redrive)
        end(verify, code=1)  # nobody else would get OK: it is claimed
        answers = [json.loads(line) for line in results.stdout.splitlines()]
        return Run(
            [
                AnswerSeen(*(answer[name] for name in ("user_id", "transaction_id", "status", "reason")))
                for answer in answers
            ],
            [DeadLetterSeen(message.body, message.attributes["reason"]) for message in dead_letters],
            done,
            receipts.number_of_messages("game-receipts") - 1,
            seconds_to_end,
            [json.loads(line) for line in service.stdout.splitlines()],
            service.stderr,
            refund(company, folder, next(answer["transaction_id"] for answer in answers if answer["status"] == "OK")),
            peek(onlooker, "game-results"),
        )


def granted_to_service(site: Site) -> set[Permission]:
    stacks = (site.receipts, site.game2, site.game3)
    granted = set().union(*(stack.granted(stack.outputs["ServicePolicyArn"]) for stack in stacks))
    return {permission for permission in granted if permission.resource}  # moto keeps AWS::NoValue in a list, as None


def refund(company: Company, folder: Path, transaction_id: str) -> Sequence[int]:
    """Have a purchase refunded, and refund and reversal of another one that nobody has claimed; return the statuses."""
    AUTHORITY.write_roots(folder / "roots")
    elsewhere = ("--host", "127.0.0.1", "--port", "0", "--apple-roots", str(folder / "roots"))
    program = company.start_task("notifications", "NotificationsTaskDefinition", *elsewhere, module="receipt_actors")
    statuses: Sequence[int] = post_refunds(program, transaction_id)
    program.send_signal(signal.SIGTERM)
    end(program)
    return statuses


def end(*programs: Program, code: int = 0) -> None:
    for program in programs:
        assert program.wait_for_end() == code, f"{program.command_line}: {program.stderr}"


def send(queues: AwsQueues, queue: str, messages: Sequence[OutgoingMessage]) -> None:
    for start in range(0, len(messages), 10):
        batch = messages[start : start + 10]
        assert queues.send(queue, batch) == [None] * len(batch)


def peek(queues: AwsQueues, queue: str) -> list[ReceivedMessage]:
    messages: list[ReceivedMessage] = []
    while batch := queues.receive(queue, max_messages=10, wait_seconds=0, visibility_timeout_seconds=600):
        messages += batch
    for message in messages:
        assert queues.change_visibility(queue, [(message.receipt_handle, 0)]) == [None]
    return messages


def all_receipts_are_dealt_with(site: Site, run: Run) -> None:
    """Each queue has its post queue, standard or FIFO; every message is answered or moved as it should be.

    The task says of each queue that it lives, by the dimension that the alarms are about, and drains in its time.
    """
    user_id = json.loads(ORDERED.body)["user_id"]
    assert [answer.status for answer in run.answers if answer.user_id == user_id] == ["OK"]
    others = [answer for answer in run.answers if answer.user_id != user_id]
    assert check(SCENARIO, others, run.dead_letters).wrong == (), run.log
    assert run.done == DONE, run.log
    assert {document["SourceQueue"] for document in run.documents} == set(SOURCES)
    assert run.seconds_to_end < site.container()["stopTimeout"]
    assert run.redriven == len(run.dead_letters) > 0
    assert run.refunds == [200, 200, 200]
    (refunded,) = run.told_of_refunds
    assert (json.loads(refunded.body)["status"], refunded.attributes["reason"]) == ("INVALID", "refunded")


def everyone_may_do_what_he_does_and_nothing_else(run: Run, site: Site, server: RecordingServer) -> None:
    """The calls that were made are those that the policies grant, on the same resources: no fewer and no more."""
    assert server.calls_of("service") == granted_to_service(site), run.log
    for user, policy in (
        ("producer", "ProducerPolicyArn"),
        ("reader", "ResultReaderPolicyArn"),
        ("operator", "OperatorPolicyArn"),
        ("notifications", "NotificationsPolicyArn"),
    ):
        assert server.calls_of(user) == site.receipts.granted(site.receipts.outputs[policy]), user


def what_only_an_operator_can_put_right_arrives_as_a_mail(site: Site, server: RecordingServer) -> None:
    """From Apple's 21004, by actor, alerts queue, function and topic, to whoever has subscribed.

    The function may publish, take alerts and write a log: nothing else, and on nothing else.
    """
    outputs = site.receipts.outputs
    with ExitStack() as things:
        patch = things.enter_context(pytest.MonkeyPatch.context())
        clients = (things.enter_context(site.receipts.client(each)) for each in ("sns", "sqs", "lambda", "iam"))
        sns, sqs, functions, iam = clients
        function = functions.get_function_configuration(FunctionName=outputs["AlertMailName"])
        url = sqs.create_queue(QueueName="mailbox")["QueueUrl"]
        arn = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
        sns.subscribe(TopicArn=outputs["AlertTopicArn"], Protocol="sqs", Endpoint=arn)
        around = {
            **function["Environment"]["Variables"],
            "AWS_DEFAULT_REGION": REGION,
            "AWS_ENDPOINT_URL": site.receipts.url,
            "AWS_ACCESS_KEY_ID": "function",
            "AWS_SECRET_ACCESS_KEY": "testing",
        }
        for name, value in around.items():
            patch.setenv(name, value)
        names: dict[str, Any] = {}
        exec(compile(alert_mail_code(), "index.py", "exec"), names)
        things.callback(names["sns"].close)
        alerts = sqs.receive_message(QueueUrl=outputs["AlertsQueueUrl"], MaxNumberOfMessages=10)["Messages"]
        names[function["Handler"].rpartition(".")[2]]({"Records": [{"body": alert["Body"]} for alert in alerts]}, None)
        (received,) = sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10)["Messages"]
        (document,) = [
            iam.get_role_policy(RoleName=role["RoleName"], PolicyName=policy)["PolicyDocument"]
            for role in iam.list_roles()["Roles"]
            for policy in iam.list_role_policies(RoleName=role["RoleName"])["PolicyNames"]
        ]
    mail = json.loads(received["Body"])
    assert mail["Subject"].startswith(f"{', '.join(SOURCES)}: configuration x ")
    assert "21004" in mail["Message"]
    assert f"{RUNBOOK}#alert-configuration" in mail["Message"]

    assert server.calls_of("function") == {Permission("sns:Publish", outputs["AlertTopicArn"])}
    granted = {
        Permission(action, statement["Resource"])
        for statement in ast.literal_eval(document)["Statement"]  # moto keeps what CloudFormation made as repr() has it
        for action in statement["Action"]
        if statement["Effect"] == "Allow"
    }
    taking = ("DeleteMessage", "GetQueueAttributes", "ReceiveMessage")
    logging = {permission for permission in granted if permission.action.startswith("logs:")}
    assert granted - logging == {
        *(Permission(f"sqs:{action}", outputs["AlertsQueueArn"]) for action in taking),
        Permission("sns:Publish", outputs["AlertTopicArn"]),
    }
    assert {permission.action for permission in logging} == {"logs:CreateLogStream", "logs:PutLogEvents"}
    assert all(outputs["AlertMailLogName"] in permission.resource for permission in logging)
    (mapping,) = site.mappings  # Lambda takes them from the queue, several at a time
    assert mapping["EventSourceArn"] == outputs["AlertsQueueArn"]
    assert mapping["FunctionArn"].endswith(f":function:{outputs['AlertMailName']}")


def each_task_tells_what_the_heartbeat_alarm_watches(site: Site, run: Run) -> None:
    alarm = site.first.resources("AWS::CloudWatch::Alarm")["HeartbeatMissing"]
    source = RECEIPTS["SourceQueueName"]
    assert watched(alarm) == f"ReceiptActors Heartbeat Sum of SourceQueue={source} LessThanThreshold 1 x4"
    for document in run.documents:
        (told,) = document["_aws"]["CloudWatchMetrics"]
        assert told["Namespace"] == alarm["Namespace"]
        assert ["SourceQueue"] in told["Dimensions"]
        assert {"Heartbeat"} <= {metric["Name"] for metric in told["Metrics"]}
    assert source in {document["SourceQueue"] for document in run.documents}


def test_the_templates_as_deployed_and_the_program_at_work_on_them(
    site: Site, server: RecordingServer, programs: Programs, tmp_path: Path, subtests: pytest.Subtests
) -> None:
    for look in (
        the_queues_and_tables_have_the_sizes_asked_for,
        a_role_has_the_policies_of_the_stacks_alone,
        a_task_has_the_sizes_roles_and_settings_asked_for,
        who_starts_a_task_may_fetch_what_it_needs_and_nothing_else,
        the_services_run_in_the_subnets_and_only_the_load_balancer_reaches_one,
    ):
        with subtests.test(look.__name__):
            look(site)
    run = run_of(site, server, programs, tmp_path)
    with subtests.test("all receipts"):
        all_receipts_are_dealt_with(site, run)
    with subtests.test("permissions"):
        everyone_may_do_what_he_does_and_nothing_else(run, site, server)
    with subtests.test("mail"):
        what_only_an_operator_can_put_right_arrives_as_a_mail(site, server)
    with subtests.test("heartbeat"):
        each_task_tells_what_the_heartbeat_alarm_watches(site, run)
