"""The second template deployed to moto, on the first: what a task is, who may do what, the program run as it says.

moto makes the cluster, the roles and their policies, the log, the security group. Of the task definition, the service
and the cluster's settings it forgets most, of autoscaling and of alarms everything: they are put by hand, by their
APIs, whose client checks the form. It starts no container and enforces no rule of a template; see
``test_service_template``.
"""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from receipt_actors.sandbox.app_store import SimulatedAppStore
from receipt_actors.settings import load_settings
from tests.stores.apple.notifications.posts import AUTHORITY
from tests.system.processes import Programs
from tests.system.worlds import BUNDLE_ID, genuine_messages
from tests.telemetry.ecs_agent import EcsAgent

from .conftest import ACCOUNT, REGION, Permission, RecordingServer, Stack
from .intrinsics import resolved
from .services import QUICK, Deployed, as_the_api_spells, deploy_service, environment_of, post_refunds, surroundings

pytestmark = pytest.mark.filterwarnings(
    "ignore:Tried to parse AWS..SQS..QueuePolicy:UserWarning",
    "ignore:Tried to parse AWS..SNS..(TopicPolicy|Subscription):UserWarning",
    "ignore:Tried to parse AWS..CloudWatch..(Composite)?Alarm:UserWarning",
    "ignore:Tried to parse AWS..ApplicationAutoScaling..(ScalableTarget|ScalingPolicy):UserWarning",
)

RECEIPTS: Mapping[str, object] = {
    "SourceQueueName": "game-receipts",
    "PostQueueName": "game-results",
    "DeadLetterQueueName": "game-dead-letters",
    "LedgerTableName": "game.claims",
    "NotificationsTableName": "game.notifications",
    "RoleTableName": "game.roles",
    "AlertsQueueName": "game-alerts",
}
SECRET = f"arn:aws:secretsmanager:{REGION}:{ACCOUNT}:secret:game/shared-secret-AbCdEf"
SETTINGS = '{"max_in_flight": 300, "log_format": "json"}'
SIZES: Mapping[str, object] = {
    "Image": "game/receipt-actors:1.2.3",
    "Architecture": "ARM64",
    "BundleIds": BUNDLE_ID,
    "Settings": SETTINGS,
    "SharedSecretArn": SECRET,
    "Cpu": "2048",
    "MemoryMiB": "4096",
    "VisibilityTimeoutSeconds": "60",
    "DrainSeconds": "40",
    "LogRetentionDays": 14,
    "MinTasks": 3,
    "MaxTasks": 30,
    "AcceptableSeconds": 90,
    "TaskReceiptsPerSecond": 1000,
    "RunbookUrl": "https://wiki.example.com/receipts/runbook.html",
}


@pytest.fixture(scope="module")
def deployed(deploy: Callable[..., Stack], server: RecordingServer) -> Deployed:
    receipts = deploy(**RECEIPTS)
    receipts.switch_functions_off()
    exports = resolved(receipts, RECEIPTS).exports()
    return deploy_service(server, receipts, SIZES, exports, has_load_balancer=True)


@pytest.fixture(scope="module")
def task(deployed: Deployed) -> Mapping[str, Any]:
    return deployed.task()


@pytest.fixture(scope="module")
def container(task: Mapping[str, Any]) -> Mapping[str, Any]:
    (container,) = task["containerDefinitions"]
    found: Mapping[str, Any] = container
    return found


def test_a_task_has_the_sizes_asked_for(task: Mapping[str, Any], container: Mapping[str, Any]) -> None:
    """And the image of this account's registry, for the processor that was named."""
    assert (task["cpu"], task["memory"], task["networkMode"]) == ("2048", "4096", "awsvpc")
    assert task["requiresCompatibilities"] == ["FARGATE"]
    assert task["runtimePlatform"] == {"cpuArchitecture": "ARM64", "operatingSystemFamily": "LINUX"}
    assert container["image"] == f"{ACCOUNT}.dkr.ecr.{REGION}.amazonaws.com/game/receipt-actors:1.2.3"
    assert container["stopTimeout"] == 45


def test_the_task_runs_as_the_role_of_the_other_stack(deployed: Deployed, task: Mapping[str, Any]) -> None:
    """Which may protect a task of this cluster besides, and nothing else more."""
    receipts, service = deployed.receipts.outputs, deployed.service.outputs
    assert task["taskRoleArn"] == receipts["ServiceRoleArn"]
    assert task["executionRoleArn"] == service["ExecutionRoleArn"]
    with deployed.service.client("iam") as iam:
        attached = iam.list_attached_role_policies(RoleName=receipts["ServiceRoleName"])["AttachedPolicies"]
    assert {policy["PolicyArn"] for policy in attached} == {
        receipts["ServicePolicyArn"],
        service["ProtectionPolicyArn"],
    }
    (statement,) = statements(deployed.service, service["ProtectionPolicyArn"])
    cluster = service["ClusterName"]
    assert statement["Action"] == ["ecs:UpdateTaskProtection"]
    assert statement["Resource"] == f"arn:aws:ecs:{REGION}:{ACCOUNT}:task/{cluster}/*"
    assert statement["Condition"] == {"ArnEquals": {"ecs:cluster": f"arn:aws:ecs:{REGION}:{ACCOUNT}:cluster/{cluster}"}}


def test_who_starts_a_task_may_fetch_what_it_needs_and_nothing_else(deployed: Deployed) -> None:
    """One repository, one secret, one log; only the log-in to the registry knows no resource."""
    outputs = deployed.service.outputs
    with deployed.service.client("iam") as iam:
        role_name = outputs["ExecutionRoleName"]
        attached = iam.list_attached_role_policies(RoleName=role_name)["AttachedPolicies"]
        assert iam.list_role_policies(RoleName=role_name)["PolicyNames"] == []
    assert outputs["ExecutionPolicyArn"] in {policy["PolicyArn"] for policy in attached}
    granted = set().union(*(deployed.service.granted(policy["PolicyArn"]) for policy in attached))
    with deployed.service.client("logs") as logs:
        (log,) = logs.describe_log_groups(logGroupNamePrefix=outputs["LogName"])["logGroups"]
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
    with deployed.service.client("iam") as iam:
        role = iam.get_role(RoleName=outputs["ExecutionRoleName"])["Role"]
    (statement,) = role["AssumeRolePolicyDocument"]["Statement"]
    assert statement["Principal"] == {"Service": "ecs-tasks.amazonaws.com"}


def statements(stack: Stack, policy_arn: str) -> list[dict[str, Any]]:
    with stack.client("iam") as iam:
        version = iam.get_policy(PolicyArn=policy_arn)["Policy"]["DefaultVersionId"]
        document = iam.get_policy_version(PolicyArn=policy_arn, VersionId=version)["PolicyVersion"]["Document"]
    found: list[dict[str, Any]] = document["Statement"]
    return found


def test_no_secret_stands_in_the_definition(container: Mapping[str, Any]) -> None:
    """ECS fetches it when the task starts."""
    assert container["secrets"] == [{"name": "RECEIPT_ACTORS_SHARED_SECRET", "valueFrom": SECRET}]
    assert not any("SECRET" in name or "KEY" in name for name in environment_of(container))


def test_the_settings_are_those_of_the_other_stack(deployed: Deployed, container: Mapping[str, Any]) -> None:
    """What the first stack tells to set is set, and what the sizes say."""
    environment = environment_of(container)
    told = deployed.receipts.environment
    assert {name: environment.get(name) for name in told} == {
        **told,
        "RECEIPT_ACTORS_VISIBILITY_TIMEOUT_SECONDS": "60",
        "RECEIPT_ACTORS_NOTIFICATIONS_TABLE": None,  # of another command, and another role
        "RECEIPT_ACTORS_ROLE_TABLE": None,  # a task is alone here
    }
    settings = load_settings({}, environ=environment)
    assert settings.bundle_ids == (BUNDLE_ID,)
    assert settings.processes == "auto"
    assert settings.drain_seconds == 40


def test_the_service_runs_in_the_subnets_and_nobody_reaches_it(deployed: Deployed) -> None:
    """A deployment that fails goes back; while it goes on, no task is missing."""
    outputs = deployed.service.outputs
    properties = deployed.template.resources("AWS::ECS::Service")["Service"]
    with deployed.service.client("ecs") as ecs:
        assert ecs.describe_clusters(clusters=[outputs["ClusterName"]])["failures"] == []
        created = ecs.create_service(
            **as_the_api_spells(properties), serviceName="by-hand", desiredCount=0, clientToken="none"
        )["service"]
    assert created["networkConfiguration"]["awsvpcConfiguration"] == {
        "subnets": str(deployed.parameters["SubnetIds"]).split(","),
        "securityGroups": [outputs["SecurityGroupId"]],
        "assignPublicIp": "DISABLED",
    }
    assert properties["DeploymentConfiguration"] == {
        "DeploymentCircuitBreaker": {"Enable": True, "Rollback": True},
        "MinimumHealthyPercent": 100,
        "MaximumPercent": 200,
    }
    assert outputs["ServiceArn"].endswith(f"/{outputs['ServiceName']}")
    (cluster,) = deployed.template.resources("AWS::ECS::Cluster").values()
    assert cluster["ClusterSettings"] == [{"Name": "containerInsights", "Value": "enabled"}]
    with deployed.service.client("ec2") as ec2:
        (group,) = ec2.describe_security_groups(GroupIds=[outputs["SecurityGroupId"]])["SecurityGroups"]
    assert group["IpPermissions"] == []
    assert group["VpcId"] == deployed.parameters["VpcId"]


def test_the_backlog_decides_how_many_tasks_there_are(deployed: Deployed) -> None:
    """moto's autoscaling takes the target and the policy as CloudFormation would hand them over."""
    (target,) = deployed.template.resources("AWS::ApplicationAutoScaling::ScalableTarget").values()
    (policy,) = deployed.template.resources("AWS::ApplicationAutoScaling::ScalingPolicy").values()
    where = {name: target[name] for name in ("ServiceNamespace", "ScalableDimension", "ResourceId")}
    with deployed.service.client("application-autoscaling") as autoscaling:
        autoscaling.register_scalable_target(
            **where, MinCapacity=int(target["MinCapacity"]), MaxCapacity=int(target["MaxCapacity"])
        )
        configuration = policy["TargetTrackingScalingPolicyConfiguration"]
        numbers = {
            name: kind(configuration[name])
            for name, kind in (("TargetValue", float), ("ScaleOutCooldown", int), ("ScaleInCooldown", int))
        }
        autoscaling.put_scaling_policy(
            **where,
            PolicyName=policy["PolicyName"],
            PolicyType=policy["PolicyType"],
            TargetTrackingScalingPolicyConfiguration={**configuration, **numbers},
        )
        (put,) = autoscaling.describe_scaling_policies(ServiceNamespace="ecs")["ScalingPolicies"]
        (registered,) = autoscaling.describe_scalable_targets(ServiceNamespace="ecs")["ScalableTargets"]
    outputs = deployed.service.outputs
    assert put["ResourceId"] == f"service/{outputs['ClusterName']}/{outputs['ServiceName']}"
    assert (registered["MinCapacity"], registered["MaxCapacity"]) == (3, 30)
    assert put["TargetTrackingScalingPolicyConfiguration"]["TargetValue"] == 90


def test_the_alarms_can_be_put_and_tell_the_topic_of_the_other_stack(deployed: Deployed) -> None:
    """By their names, of this service, with the limits that were asked for."""
    alarms = deployed.template.resources("AWS::CloudWatch::Alarm")
    with deployed.service.client("cloudwatch") as cloudwatch:
        for alarm in alarms.values():
            cloudwatch.put_metric_alarm(**alarm)
        described = cloudwatch.describe_alarms(AlarmNamePrefix="receipts-service-")["MetricAlarms"]
    found = {alarm["AlarmName"].removeprefix("receipts-service-"): alarm for alarm in described}
    outputs = deployed.service.outputs
    assert set(found) == {"tasks-missing", "tasks-at-limit", "notifications-down", "notifications-failing"}
    for alarm in found.values():
        assert alarm["AlarmActions"] == alarm["OKActions"] == [deployed.receipts.outputs["AlertTopicArn"]]
    dimensions = {each["Name"]: each["Value"] for each in found["tasks-missing"]["Dimensions"]}
    assert dimensions == {"ClusterName": outputs["ClusterName"], "ServiceName": outputs["ServiceName"]}
    assert found["tasks-missing"]["Threshold"] == 3
    parameters = deployed.parameters
    for name in ("notifications-down", "notifications-failing"):
        dimensions = {each["Name"]: each["Value"] for each in found[name]["Dimensions"]}
        assert str(parameters["NotificationsTargetGroupArn"]).endswith(f":{dimensions['TargetGroup']}")
        assert str(parameters["LoadBalancerArn"]).endswith(f":loadbalancer/{dimensions['LoadBalancer']}")


@dataclass(frozen=True)
class Run:
    """What a task did."""

    documents: list[dict[str, Any]]  #: of metrics
    seconds_to_end: float
    wishes: list[Any]  #: that the agent was told
    answer: Mapping[str, Any]  #: one of five


@pytest.fixture(scope="module")
def run(deployed: Deployed, container: Mapping[str, Any], module_programs: Programs) -> Run:
    """Run a task with the command and the environment of its definition alone, and an agent, and end it as ECS does."""
    receipts = deployed.receipts
    with (
        receipts.client("sqs") as sqs,
        SimulatedAppStore() as store,
        EcsAgent() as agent,
    ):
        for message in genuine_messages(5, 71, post_queue="game-results"):
            sqs.send_message(QueueUrl=receipts.outputs["SourceQueueUrl"], MessageBody=message.body)
        environment = {**environment_of(container), **surroundings(receipts, "task", store), "ECS_AGENT_URI": agent.url}
        program = module_programs.start(*container["command"], environment=environment, module=QUICK)
        program.wait_until(lambda: receipts.number_of_messages("game-results") >= 5, "all messages are answered")
        program.wait_until(lambda: not receipts.number_of_messages("game-receipts"), "nothing is in flight any more")
        program.wait_until(lambda: '"Heartbeat"' in program.stdout, "it says that it lives")
        began = time.monotonic()
        program.send_signal(signal.SIGTERM)
        assert program.wait_for_end() == 0
        ended = time.monotonic()
        (answer,) = sqs.receive_message(QueueUrl=receipts.outputs["PostQueueUrl"], MaxNumberOfMessages=1)["Messages"]
    documents = [json.loads(line) for line in program.stdout.splitlines()]
    return Run(documents, ended - began, list(agent.wishes), json.loads(answer["Body"]))


@pytest.mark.slow
def test_the_program_runs_as_the_definition_says_and_ends_in_its_time(run: Run, container: Mapping[str, Any]) -> None:
    """It answers, says that it lives, and drains; what takes its usual time is not protected."""
    assert run.answer["status"] == "OK"
    assert run.seconds_to_end < container["stopTimeout"]
    assert run.wishes == []
    assert {document["SourceQueue"] for document in run.documents} == {"game-receipts"}


# --- Apple's notifications ---


@pytest.fixture(scope="module")
def notifications(deployed: Deployed) -> Mapping[str, Any]:
    """The definition of a task that takes them."""
    return deployed.task("NotificationsTaskDefinition")


def test_what_takes_notifications_has_a_role_of_its_own(deployed: Deployed, notifications: Mapping[str, Any]) -> None:
    """The first stack's for that, whose policy grants no claim and no receipt; and the settings of both stacks."""
    assert notifications["taskRoleArn"] == deployed.receipts.outputs["NotificationsRoleArn"]
    assert notifications["executionRoleArn"] == deployed.service.outputs["ExecutionRoleArn"]
    (container,) = notifications["containerDefinitions"]
    assert container["image"].endswith("/game/receipt-actors:1.2.3")
    assert container["secrets"] == []  # it asks Apple nothing
    told, environment = deployed.receipts.environment, environment_of(container)
    assert environment == {name: value for name, value in told.items() if name in environment} | {
        "RECEIPT_ACTORS_BUNDLE_IDS": BUNDLE_ID,
        "RECEIPT_ACTORS_SETTINGS": SETTINGS,
    }


def test_only_the_load_balancer_reaches_what_takes_notifications(
    deployed: Deployed, notifications: Mapping[str, Any]
) -> None:
    """On the one port that the program listens on, which is the target group's."""
    properties = deployed.template.resources("AWS::ECS::Service")["NotificationsService"]
    group_id = deployed.service.outputs["NotificationsSecurityGroupId"]
    with deployed.service.client("ecs") as ecs, deployed.service.client("ec2") as ec2:
        created = ecs.create_service(
            **as_the_api_spells({**properties, "DesiredCount": 1}), serviceName="notifications-by-hand"
        )["service"]
        (group,) = ec2.describe_security_groups(GroupIds=[group_id])["SecurityGroups"]
    assert created["networkConfiguration"]["awsvpcConfiguration"]["securityGroups"] == [group_id]
    (balanced,) = created["loadBalancers"]
    (container,) = notifications["containerDefinitions"]
    (mapping,) = container["portMappings"]
    assert balanced["targetGroupArn"] == deployed.parameters["NotificationsTargetGroupArn"]
    assert (balanced["containerName"], balanced["containerPort"]) == (container["name"], mapping["containerPort"])
    assert container["command"][-1] == str(mapping["containerPort"])
    (ingress,) = group["IpPermissions"]
    assert (ingress["FromPort"], ingress["ToPort"]) == (mapping["containerPort"], mapping["containerPort"])
    (source,) = ingress["UserIdGroupPairs"]
    assert source["GroupId"] == deployed.parameters["LoadBalancerSecurityGroupId"]
    assert ingress["IpRanges"] == []


def test_refunds_are_taken_back_as_the_definition_says(
    deployed: Deployed,
    notifications: Mapping[str, Any],
    run: Run,
    server: RecordingServer,
    programs: Programs,
    tmp_path: Path,
) -> None:
    """With its command, elsewhere than on every address of this machine; and its role may do that, and nothing else."""
    (container,) = notifications["containerDefinitions"]
    AUTHORITY.write_roots(tmp_path / "roots")
    elsewhere = ("--host", "127.0.0.1", "--port", "0", "--apple-roots", str(tmp_path / "roots"))
    with SimulatedAppStore() as store:
        environment = {**environment_of(container), **surroundings(deployed.receipts, "refunds", store)}
        program = programs.start(*container["command"], *elsewhere, environment=environment)
        assert post_refunds(program, run.answer["transaction_id"]) == [200, 200, 200]
        began = time.monotonic()
        program.send_signal(signal.SIGTERM)
        assert program.wait_for_end() == 0
    assert time.monotonic() - began < container["stopTimeout"]
    outputs = deployed.receipts.outputs
    assert server.calls_of("refunds") == deployed.receipts.granted(outputs["NotificationsPolicyArn"])
