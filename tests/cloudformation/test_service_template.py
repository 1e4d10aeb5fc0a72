"""What the second template says, for parameters that would each take a deployment, and beside the files it leans on."""

from __future__ import annotations

import json
import re
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from cfnlint.decode.cfn_yaml import load  # type: ignore[import-untyped]
from hypothesis import given
from hypothesis import strategies as st

from receipt_actors.cli.notifications import DEFAULT_PORT, HEALTH_PATH, STOP_SECONDS
from receipt_actors.settings import load_settings

from .alarms import Metric as Named
from .alarms import MetricAlarm, Metrics, evaluated
from .conftest import SERVICE_TEMPLATE, TEMPLATE
from .intrinsics import Resolved

ROOT = Path(__file__).parents[2]
MANUAL = ROOT / "doc/deploy-aws.rst"
OPERATIONS = ROOT / "doc/operations.rst"
RUNBOOK = ROOT / "doc/runbook.rst"
MAX_METRICS = 10  # of an alarm with metric math
MAX_STOP_TIMEOUT_SECONDS = 120  # of ECS on Fargate
TO_END_SECONDS = 5  # after a drain: to kill a worker that has not, to write the last lines of log and metrics

template: dict[str, Any] = load(str(SERVICE_TEMPLATE))
parameters: dict[str, dict[str, Any]] = template["Parameters"]
GIVEN = {
    "Image": "receipt-actors:1",
    "BundleIds": "com.example.game",
    "VpcId": "vpc-1",
    "SubnetIds": ["subnet-1", "subnet-2"],
}
EXPORTS = Resolved(load(str(TEMPLATE)), {}, stack_name="receipts").exports()
FURTHER = ("Game2SQS", "Game3SQS.fifo", "Game4SQS", "Game5SQS")  # as many as count in scaling
FURTHER_EXPORTS = {f"game{number}-SourceQueueName": queue for number, queue in enumerate(FURTHER, 2)}
BALANCER = "arn:aws:elasticloadbalancing:eu-west-1:123456789012"
BALANCED = {
    "NotificationsTargetGroupArn": f"{BALANCER}:targetgroup/refunds/6d0ecf831eec9f09",
    "LoadBalancerArn": f"{BALANCER}:loadbalancer/app/front/50dc6c495c0c9188",
    "LoadBalancerSecurityGroupId": "sg-0123456789abcdef0",
}
PARAMETER = "arn:aws:ssm:eu-west-1:123456789012:parameter/game/shared-secret"


def service(**changes: object) -> Resolved:
    exports = {**EXPORTS, **FURTHER_EXPORTS}
    return Resolved(template, {**GIVEN, **changes}, stack_name="service", exports=exports)


def service_of(count: int, **changes: object) -> Resolved:
    """Return a service that serves so many further source queues."""
    if count:
        changes["SourceStacks"] = ",".join(f"game{number}" for number in range(2, 2 + count))
        changes["Sources"] = json.dumps({queue: {} for queue in FURTHER[:count]})
    return service(**changes)


def container(resolved: Resolved, task: str = "TaskDefinition") -> dict[str, Any]:
    definition = resolved.resources("AWS::ECS::TaskDefinition")[task]
    (found,) = definition["ContainerDefinitions"]
    return dict(found)


def environment(resolved: Resolved, task: str = "TaskDefinition") -> dict[str, str]:
    return {each["Name"]: str(each["Value"]) for each in container(resolved, task)["Environment"]}


def test_four_parameters_are_enough() -> None:
    """The image, the app, and where to run: everything else has a default, and breaks no rule."""
    assert {name for name, each in parameters.items() if "Default" not in each} == set(GIVEN)
    assert service().faults() == []
    settings = load_settings({}, environ=environment(service()))
    assert settings.bundle_ids == ("com.example.game",)
    assert parameters["VisibilityTimeoutSeconds"]["Default"] == settings.visibility_timeout_seconds
    assert float(parameters["DrainSeconds"]["Default"]) == settings.drain_seconds


@pytest.mark.parametrize("seconds", parameters["DrainSeconds"]["AllowedValues"])
def test_a_task_is_killed_after_its_drain_and_not_before(seconds: str) -> None:
    """ECS's time fits the program's, and Fargate grants it."""
    resolved = service(DrainSeconds=seconds)
    assert container(resolved)["StopTimeout"] == int(seconds) + TO_END_SECONDS <= MAX_STOP_TIMEOUT_SECONDS
    assert load_settings({}, environ=environment(resolved)).drain_seconds == int(seconds)


def test_a_task_needs_no_privileges_and_writes_no_file() -> None:
    """Not even the capabilities that every container has."""
    definition = container(service())
    assert definition["ReadonlyRootFilesystem"] is True
    assert definition["LinuxParameters"] == {"InitProcessEnabled": True, "Capabilities": {"Drop": ["ALL"]}}
    assert "Privileged" not in definition
    assert "MountPoints" not in definition


def test_the_health_check_is_that_of_the_image_and_of_the_manual() -> None:
    """A container that is paused by an operator is not replaced, wherever its health is looked at."""
    check = container(service())["HealthCheck"]
    manual = OPERATIONS.read_text(encoding="utf-8")
    told, _ = json.JSONDecoder().raw_decode(manual[manual.index('{"healthCheck"') :])
    assert {key[0].lower() + key[1:]: value for key, value in check.items()} == told["healthCheck"]
    (line,) = [line for line in (ROOT / "Dockerfile").read_text().splitlines() if line.startswith("HEALTHCHECK")]
    assert json.loads(line[line.index("[") :]) == check["Command"][1:]
    for option, name in [("interval", "Interval"), ("timeout", "Timeout"), ("start-period", "StartPeriod")]:
        assert f"--{option}={check[name]}s" in line


def test_alone_sets_no_role() -> None:
    """The other roles come with the table that nodes hold them in."""
    assert not any("ROLE" in name for name in environment(service()))
    for role in set(parameters["Role"]["AllowedValues"]) - {"alone"}:
        variables = environment(service(Role=role))
        assert variables["RECEIPT_ACTORS_ROLE"] == role
        assert variables["RECEIPT_ACTORS_ROLE_TABLE"] == "RoleTable"


def test_nodes_that_stand_by_are_not_scaled() -> None:
    """One works: more of them would work off nothing. Their number is MinTasks, and one alone would be no standby."""
    resolved = service(Role="active-standby", MinTasks="3")
    assert resolved.resources("AWS::ApplicationAutoScaling::ScalableTarget") == {}
    assert resolved.resources("AWS::ApplicationAutoScaling::ScalingPolicy") == {}
    assert resolved.resources("AWS::ECS::Service")["Service"]["DesiredCount"] == "3"
    assert "DesiredCount" not in service().resources("AWS::ECS::Service")["Service"]
    assert service(Role="active-standby", MinTasks="1").faults() == [
        "MinTasks is 1 and Role is active-standby; nobody would stand by"
    ]
    assert service(Role="load-balanced", MinTasks="1").faults() == []


@pytest.mark.parametrize(
    ("cpu", "smallest", "largest"),
    [("256", 512, 2048), ("512", 1024, 4096), ("1024", 2048, 8192), ("2048", 4096, 16384), ("4096", 8192, 30720)],
)
def test_a_size_that_fargate_does_not_have_is_refused(cpu: str, smallest: int, largest: int) -> None:
    """Before anything is created, with what there is."""
    for memory in parameters["MemoryMiB"]["AllowedValues"]:
        faults = service(Cpu=cpu, MemoryMiB=memory).faults()
        assert len(faults) == (0 if smallest <= int(memory) <= largest else 1), memory


def test_a_rush_has_a_beginning_and_an_end() -> None:
    """More tasks are there before it, and go after it."""
    begins, ends = "cron(45 17 ? * FRI *)", "cron(0 2 ? * SAT *)"
    resolved = service(RushBegins=begins, RushEnds=ends, RushMinTasks="6", Timezone="Europe/Berlin")
    (target,) = resolved.resources("AWS::ApplicationAutoScaling::ScalableTarget").values()
    actions = [
        (each["Schedule"], each["Timezone"], each["ScalableTargetAction"]["MinCapacity"])
        for each in target["ScheduledActions"]
    ]
    assert actions == [(begins, "Europe/Berlin", "6"), (ends, "Europe/Berlin", parameters["MinTasks"]["Default"])]
    (target,) = service().resources("AWS::ApplicationAutoScaling::ScalableTarget").values()
    assert "ScheduledActions" not in target
    assert len(service(RushBegins=begins).faults()) == len(service(RushEnds=ends).faults()) == 1
    assert resolved.faults() == []


@pytest.mark.parametrize("arn", [PARAMETER, "arn:aws-cn:secretsmanager:cn-north-1:123456789012:secret:game-AbCdEf"])
@pytest.mark.parametrize(
    ("parameter", "policy", "variable"),
    [
        ("SharedSecretArn", "SharedSecretPolicy", "RECEIPT_ACTORS_SHARED_SECRET"),
        ("ServerApiKeyArn", "ServerApiKeyPolicy", "RECEIPT_ACTORS_SERVER_API_KEY"),
        ("SourcesArn", "SourcesPolicy", "RECEIPT_ACTORS_SOURCES"),
    ],
)
def test_a_secret_is_a_parameter_or_a_secret(arn: str, parameter: str, policy: str, variable: str) -> None:
    """Who starts the task may read that one, by the call that its service has."""
    assert re.fullmatch(parameters[parameter]["AllowedPattern"], arn)
    resolved = service(**{parameter: arn})
    (statement,) = resolved.resources("AWS::IAM::ManagedPolicy")[policy]["PolicyDocument"]["Statement"]
    assert statement["Action"] == ["secretsmanager:GetSecretValue", "ssm:GetParameters"]
    assert statement["Resource"] == arn
    assert container(resolved)["Secrets"] == [{"Name": variable, "ValueFrom": arn}]
    assert policy not in service().resources("AWS::IAM::ManagedPolicy")


def test_a_key_is_granted_where_there_is_one() -> None:
    """And not where there is none."""
    key = "arn:aws:kms:eu-west-1:123456789012:key/12345678-1234-1234-1234-123456789012"
    policies = service(SecretsKeyArn=key).resources("AWS::IAM::ManagedPolicy")
    (decrypt,) = policies["SecretsKeyPolicy"]["PolicyDocument"]["Statement"]
    assert (decrypt["Action"], decrypt["Resource"]) == (["kms:Decrypt"], key)
    assert set(service().resources("AWS::IAM::ManagedPolicy")) == {"ExecutionPolicy", "ProtectionPolicy"}
    assert container(service())["Secrets"] == []


@pytest.mark.parametrize(
    ("parameter", "value", "is_taken"),
    [
        ("Image", "receipt-actors:1", True),
        ("Image", f"game/receipt-actors@sha256:{'0' * 64}", True),
        ("Image", "receipt-actors", False),
        ("Image", "123456789012.dkr.ecr.eu-west-1.amazonaws.com/receipt-actors:1", False),
        ("Image", "*:1", False),
        ("SharedSecretArn", "", True),
        ("SharedSecretArn", "abc123", False),
        ("SharedSecretArn", "arn:aws:ssm:eu-west-1:123456789012:parameter/*", False),
        ("SharedSecretArn", "arn:aws:secretsmanager:eu-west-1:123456789012:secret:game:key::", False),
        ("Settings", "", True),
        ("Settings", '{"max_in_flight": 300}', True),
        ("Settings", "max_in_flight=300", False),
        ("Settings", '{"shared_secret": "00112233445566778899aabbccddeeff"}', False),
        ("BundleIds", "com.example.game,com.example.other", True),
        ("BundleIds", "*", False),
        ("SourceStacks", "", True),
        ("SourceStacks", "receipts-game2,receipts-game3", True),
        ("SourceStacks", "receipts-game2,", False),
        ("SourceStacks", "a,b,c,d,e", False),
        ("Sources", "", True),
        ("Sources", '{"Game2SQS": {\n"bundle_ids": "com.example.two"}}', True),
        ("Sources", "Game2SQS", False),
        ("Sources", '{"Game2SQS": {\n"shared_secret": "abc123"}}', False),
        ("SourcesArn", '{"Game2SQS": {"shared_secret": "abc123"}}', False),
        ("Processes", "auto", True),
        ("Processes", "0", False),
        ("RushBegins", "rate(1 day)", False),
        *((parameter, "", True) for parameter in BALANCED),
        *((parameter, arn, True) for parameter, arn in BALANCED.items()),
        ("NotificationsTargetGroupArn", BALANCED["LoadBalancerArn"], False),
        ("LoadBalancerArn", f"{BALANCER}:loadbalancer/net/front/50dc6c495c0c9188", False),
        ("LoadBalancerSecurityGroupId", "front", False),
    ],
)
def test_slips_are_refused(parameter: str, value: str, is_taken: bool) -> None:
    """No star gets into a policy, and no secret into a parameter."""
    assert (re.fullmatch(parameters[parameter]["AllowedPattern"], value) is not None) is is_taken


def test_an_image_is_of_the_repository_that_may_be_pulled() -> None:
    """By tag or by digest."""
    for reference in ("game/receipt-actors:1", f"game/receipt-actors@sha256:{'0' * 64}"):
        resolved = service(Image=reference)
        policy = resolved.resources("AWS::IAM::ManagedPolicy")["ExecutionPolicy"]
        (pull,) = [each for each in policy["PolicyDocument"]["Statement"] if each["Sid"] == "PullImage"]
        assert pull["Resource"].endswith(":repository/game/receipt-actors")
        assert container(resolved)["Image"].endswith(f".amazonaws.com/{reference}")


def test_a_cluster_is_made_where_none_is_given() -> None:
    """Everything that names one names the same."""
    made, given_ = service(), service(ClusterName="shared")
    assert set(made.resources("AWS::ECS::Cluster")) == {"Cluster"}
    assert given_.resources("AWS::ECS::Cluster") == {}
    for resolved, name in ((made, "Cluster"), (given_, "shared")):
        (target,) = resolved.resources("AWS::ApplicationAutoScaling::ScalableTarget").values()
        assert target["ResourceId"] == f"service/{name}/Service.Name"
        assert resolved.resources("AWS::ECS::Service")["Service"]["Cluster"] == name
        policy = resolved.resources("AWS::IAM::ManagedPolicy")["ProtectionPolicy"]["PolicyDocument"]["Statement"][0]
        assert policy["Resource"].endswith(f":task/{name}/*")
        assert policy["Condition"]["ArnEquals"]["ecs:cluster"].endswith(f":cluster/{name}")
        assert ({"Name": "ClusterName", "Value": name}) in metric_of(resolved, "tasks")["Dimensions"]


def queries(resolved: Resolved) -> dict[str, dict[str, Any]]:
    (policy,) = resolved.resources("AWS::ApplicationAutoScaling::ScalingPolicy").values()
    configuration = policy["TargetTrackingScalingPolicyConfiguration"]
    return {each["Id"]: each for each in configuration["CustomizedMetricSpecification"]["Metrics"]}


def metric_of(resolved: Resolved, id_: str) -> dict[str, Any]:
    found: dict[str, Any] = queries(resolved)[id_]["MetricStat"]["Metric"]
    return found


@given(
    visible=st.lists(st.integers(0, 10_000_000), min_size=1, max_size=1 + len(FURTHER)),
    tasks=st.integers(1, 1000),
    per_second=st.integers(1, 100_000),
    acceptable_seconds=st.integers(1, 86_400),
)
def test_tasks_follow_the_backlog_as_aws_recommends(
    visible: list[int], tasks: int, per_second: int, acceptable_seconds: int
) -> None:
    """More are wanted exactly where a task's backlog exceeds the acceptable latency by the mean time of a receipt.

    It is the backlog of all source queues together.
    """
    sizes = {"TaskReceiptsPerSecond": str(per_second), "AcceptableSeconds": str(acceptable_seconds)}
    resolved = service_of(len(visible) - 1, **sizes)
    ids = [id_ for id_ in queries(resolved) if id_.startswith("visible")]
    known = {"tasks": {1: float(tasks)}}
    known |= {id_: {1: float(messages)} for id_, messages in zip(ids, visible, strict=True)}
    value = evaluated(queries(resolved)["backlog"]["Expression"], known)[1]
    mean_seconds = 1 / per_second  # of a task that is busy
    assert value / acceptable_seconds == pytest.approx((sum(visible) / tasks) / (acceptable_seconds / mean_seconds))


def test_the_backlog_is_that_of_the_source_queue() -> None:
    """And the tasks are those of this service that run; only the quotient is what is tracked."""
    resolved = service()
    assert metric_of(resolved, "visible") == {
        "Namespace": "AWS/SQS",
        "MetricName": "ApproximateNumberOfMessagesVisible",
        "Dimensions": [{"Name": "QueueName", "Value": "ReceiptsSQS"}],
    }
    running = metric_of(resolved, "tasks")
    assert (running["Namespace"], running["MetricName"]) == ("ECS/ContainerInsights", "RunningTaskCount")
    assert [id_ for id_, query in queries(resolved).items() if query["ReturnData"]] == ["backlog"]


@pytest.mark.parametrize("count", range(len(FURTHER) + 1))
def test_the_backlog_of_a_further_queue_counts_like_that_of_the_first(count: int) -> None:
    """The same metric, of the queue that its stack exports; without a further queue there is no more than the first."""
    resolved = service_of(count)
    at_limit = resolved.resources("AWS::CloudWatch::Alarm")["TasksAtLimit"]["Metrics"]
    for found in (queries(resolved), {each["Id"]: each for each in at_limit}):
        mine = {id_: query["MetricStat"] for id_, query in found.items() if id_.startswith("visible")}
        for queue, stat in zip(("ReceiptsSQS", *FURTHER[:count]), mine.values(), strict=True):
            metric = {**mine["visible"]["Metric"], "Dimensions": [{"Name": "QueueName", "Value": queue}]}
            assert stat == {**mine["visible"], "Metric": metric}
        assert not any(found[id_]["ReturnData"] for id_ in mine)
        assert len(found) <= MAX_METRICS


@pytest.mark.parametrize("silent", range(1, 1 + len(FURTHER)))
def test_a_queue_without_figures_keeps_nobody_from_scaling(silent: int) -> None:
    """One that was made just now, or has ended, counts as empty; without the first's there is no data point."""
    resolved = service_of(len(FURTHER), MaxTasks="1")
    known = {f"visible{number}": {1: 500.0, 3: 9.0} for number in range(1, 1 + len(FURTHER)) if number != silent}
    known |= {"visible": {1: 500.0, 2: 500.0}, "tasks": {1: 1.0, 2: 1.0, 3: 1.0}, f"visible{silent}": {}}
    at_limit = resolved.resources("AWS::CloudWatch::Alarm")["TasksAtLimit"]["Metrics"][-1]
    for query in (queries(resolved)["backlog"], at_limit):
        assert evaluated(query["Expression"], known) == {1: 4.0, 2: 1.0}


# --- further source queues ---


def test_without_a_further_queue_nothing_is_said_of_one() -> None:
    """With one, the variable has its table, which the settings read."""
    assert "RECEIPT_ACTORS_SOURCES" not in environment(service())
    settings = load_settings({}, environ=environment(service_of(2)))
    assert settings.source_queues == ("ReceiptsSQS", "Game2SQS", "Game3SQS.fifo")


@pytest.mark.parametrize(
    ("given", "fault"),
    [
        ({"SourceStacks": "game2", "Sources": "{}"}, None),
        ({"SourceStacks": "game2", "SourcesArn": PARAMETER}, None),
        ({"SourceStacks": "game2", "Settings": '{"sources": {}}'}, None),
        ({"SourceStacks": "game2"}, "nobody would serve"),
        ({"Sources": "{}"}, "SourceStacks is left empty"),
        ({"SourcesArn": PARAMETER}, "SourceStacks is left empty"),
        ({"SourceStacks": "game2", "Sources": "{}", "SourcesArn": PARAMETER}, "give one of them"),
    ],
)
def test_queues_come_with_rules_and_rules_with_queues(given: dict[str, str], fault: str | None) -> None:
    """Before anything is created or changed; the rules may stand in Settings."""
    faults = service(**given).faults()
    assert len(faults) == (fault is not None)
    assert all(str(fault) in each for each in faults)


# --- Apple's notifications ---


def test_nothing_takes_notifications_where_no_load_balancer_is_given() -> None:
    """What belongs together is given together, before anything is created."""
    resolved = service()
    assert set(resolved.resources("AWS::ECS::Service")) == {"Service"}
    assert set(resolved.resources("AWS::ECS::TaskDefinition")) == {"TaskDefinition"}
    assert set(resolved.resources("AWS::EC2::SecurityGroup")) == {"SecurityGroup"}
    assert not any("otifications" in name for name in resolved.resources("AWS::CloudWatch::Alarm"))
    assert service(**BALANCED).faults() == []
    for count in (1, 2):
        for some in combinations(BALANCED.items(), count):
            (fault,) = service(**dict(some)).faults()
            assert "give all of them or none" in fault


def test_what_takes_notifications_is_as_the_manual_says() -> None:
    """Its port, which the manual's target group has; its health check; the time that requests under way have."""
    task = container(service(**BALANCED), "NotificationsTaskDefinition")
    assert task["Command"] == ["notifications", "--host", "0.0.0.0", "--port", str(DEFAULT_PORT)]
    assert STOP_SECONDS < task["StopTimeout"] <= MAX_STOP_TIMEOUT_SECONDS
    manual = MANUAL.read_text(encoding="utf-8")
    assert f"--port {DEFAULT_PORT} --health-check-path {HEALTH_PATH} " in manual


def test_what_takes_notifications_needs_no_privileges_and_writes_no_file() -> None:
    """As what takes receipts; only that nobody looks into it but the load balancer."""
    resolved = service(**BALANCED)
    taker, worker = container(resolved, "NotificationsTaskDefinition"), container(resolved)
    for name in ("Image", "ReadonlyRootFilesystem", "LinuxParameters"):
        assert taker[name] == worker[name]
    assert "HealthCheck" not in taker


def test_refunds_are_of_all_the_games() -> None:
    """The further source queues' rules are known to both services."""
    resolved = service_of(2, **BALANCED)
    name = "RECEIPT_ACTORS_SOURCES"
    assert environment(resolved, "NotificationsTaskDefinition")[name] == environment(resolved)[name]
    resolved = service(SourceStacks="game2", SourcesArn=PARAMETER, **BALANCED)
    for task in ("TaskDefinition", "NotificationsTaskDefinition"):
        assert container(resolved, task)["Secrets"] == [{"Name": name, "ValueFrom": PARAMETER}]


# --- alarms ---


def states_through_an_outage(alarm: MetricAlarm, *, well: float, ill: float) -> list[str]:
    """Return its state after each of 50 minutes: ill from the 10th, unheard of from the 25th, well from the 40th."""
    metric, metrics, states = Named.of(alarm.properties), Metrics(), []
    for minute in range(50):
        if minute < 10 or minute >= 40:
            metrics.put(metric, minute * 60, well)
        elif minute < 25:
            metrics.put(metric, minute * 60, ill)
        states.append(alarm.evaluate(metrics, (minute + 1) * 60))
    return states


def test_tasks_that_are_missing_are_told_of() -> None:
    """After MissingTasksMinutes, also where nothing is heard of any; and when they are back."""
    alarm = MetricAlarm(service(MinTasks="2").resources("AWS::CloudWatch::Alarm")["TasksMissing"])
    states = states_through_an_outage(alarm, well=2, ill=1)
    assert states.index("ALARM") == 10 + 9
    assert (set(states[19:40]), set(states[40:])) == ({"ALARM"}, {"OK"})


@pytest.mark.parametrize("further", [0, len(FURTHER)])
def test_a_backlog_that_no_more_tasks_may_work_off_is_told_of(further: int) -> None:
    """That of all source queues together; not one that those tasks will that may be added."""
    resolved = service_of(further, MaxTasks="10", TaskReceiptsPerSecond="500", AcceptableSeconds="60")
    alarm = MetricAlarm(resolved.resources("AWS::CloudWatch::Alarm")["TasksAtLimit"])
    first, *others = (Named.of(each["MetricStat"]["Metric"]) for each in alarm.properties["Metrics"][:-1])
    assert alarm.evaluate(Metrics(), 3600) == "OK"
    for backlog, state in ((10 * 500 * 60, "OK"), (10 * 500 * 60 + 1, "ALARM")):
        metrics = Metrics()
        for minute in range(60):
            metrics.put(first, minute * 60, backlog - 1000 * further)
            for other in others:
                metrics.put(other, minute * 60, 1000)
        assert alarm.evaluate(metrics, 3600) == state
    standby = service(Role="active-standby").resources("AWS::CloudWatch::Alarm")
    assert set(standby) == {"TasksMissing"}


def test_notifications_that_nobody_takes_are_told_of() -> None:
    """After MissingTasksMinutes without anybody healthy behind the load balancer, also where it says nothing."""
    alarm = MetricAlarm(service(**BALANCED).resources("AWS::CloudWatch::Alarm")["NotificationsDown"])
    states = states_through_an_outage(alarm, well=1, ill=0)
    assert states.index("ALARM") == 10 + 9
    assert (set(states[19:40]), set(states[40:])) == ({"ALARM"}, {"OK"})


def test_a_refund_that_is_not_carried_out_is_told_of() -> None:
    """At once; silence, which is the rule, is none."""
    alarm = MetricAlarm(service(**BALANCED).resources("AWS::CloudWatch::Alarm")["NotificationsFailing"])
    metrics = Metrics()
    assert alarm.evaluate(metrics, 3600) == "OK"
    metrics.put(Named.of(alarm.properties), 3570, 1)
    assert alarm.evaluate(metrics, 3600) == "ALARM"
    assert alarm.evaluate(metrics, 3600 + 10 * 60) == "OK"


@pytest.mark.parametrize("name", ["TasksMissing", "TasksAtLimit", "NotificationsDown", "NotificationsFailing"])
def test_every_alarm_has_its_section_in_the_runbook(name: str) -> None:
    """And tells its beginning and its end to the topic of the other stack."""
    resolved = service(RunbookUrl="https://wiki.example.com/runbook.html", **BALANCED)
    alarm = resolved.resources("AWS::CloudWatch::Alarm")[name]
    suffix = alarm["AlarmName"].removeprefix("service-")
    assert f"https://wiki.example.com/runbook.html#alarm-{suffix}" in alarm["AlarmDescription"]
    assert f".. _alarm-{suffix}:\n" in RUNBOOK.read_text(encoding="utf-8")
    assert alarm["AlarmActions"] == alarm["OKActions"] == ["AlertTopic"]


# --- the manual ---


def test_the_manual_lists_every_parameter_with_its_default() -> None:
    """The second table of the manual is the template's, row by row."""
    _, _, about_service = MANUAL.read_text(encoding="utf-8").partition("The service's parameters\n")
    about_service, _, _ = about_service.partition("What a task is\n")
    rows = re.findall(r"^``(\w+)``\s+(?:``(\S+)``|none|required)", about_service, re.MULTILINE)
    assert rows == [(name, str(each.get("Default", ""))) for name, each in parameters.items()]
