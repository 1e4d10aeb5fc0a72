"""What the service's template says, for parameters that would each take a deployment."""

from __future__ import annotations

import json
from itertools import combinations
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from receipt_actors.cli.notifications import DEFAULT_PORT, HEALTH_PATH, STOP_SECONDS
from receipt_actors.settings import load_settings

from .alarms import evaluated, watched
from .intrinsics import FURTHER, REQUIRED, SERVICE, Resolved, service
from .test_templates import BALANCED, DOC, MANUAL

MAX_METRICS = 10  # of an alarm with metric math
MAX_STOP_TIMEOUT_SECONDS = 120  # of ECS on Fargate
TO_END_SECONDS = 5  # after a drain: to kill a worker that has not, to write the last lines of log and metrics
PARAMETER = "arn:aws:ssm:eu-west-1:123456789012:parameter/game/shared-secret"

parameters: dict[str, dict[str, Any]] = SERVICE["Parameters"]


def container(resolved: Resolved, task: str = "TaskDefinition") -> dict[str, Any]:
    definition = resolved.resources("AWS::ECS::TaskDefinition")[task]
    (found,) = definition["ContainerDefinitions"]
    return dict(found)


def environment(resolved: Resolved, task: str = "TaskDefinition") -> dict[str, str]:
    return {each["Name"]: str(each["Value"]) for each in container(resolved, task)["Environment"]}


def test_four_parameters_are_enough() -> None:
    assert {name for name, each in parameters.items() if "Default" not in each} == set(REQUIRED)
    assert service().faults() == []
    settings = load_settings({}, environ=environment(service()))
    assert settings.bundle_ids == ("com.example.game",)
    assert parameters["VisibilityTimeoutSeconds"]["Default"] == settings.visibility_timeout_seconds
    assert float(parameters["DrainSeconds"]["Default"]) == settings.drain_seconds


@pytest.mark.parametrize("given", parameters["Environments"]["AllowedValues"])
def test_whether_purchases_in_the_sandbox_count_is_a_parameter(given: str) -> None:
    resolved = service(Environments=given, **BALANCED)
    for task in ("TaskDefinition", "NotificationsTaskDefinition"):
        settings = load_settings({}, environ=environment(resolved, task))
        assert ",".join(settings.environments) == (given or "Production")
        assert ("RECEIPT_ACTORS_ENVIRONMENTS" in environment(resolved, task)) is bool(given)
    assert "App Review and TestFlight" in parameters["Environments"]["Description"]


@pytest.mark.parametrize("seconds", parameters["DrainSeconds"]["AllowedValues"])
def test_a_task_is_killed_after_its_drain_and_not_before(seconds: str) -> None:
    resolved = service(DrainSeconds=seconds)
    assert container(resolved)["StopTimeout"] == int(seconds) + TO_END_SECONDS <= MAX_STOP_TIMEOUT_SECONDS
    assert load_settings({}, environ=environment(resolved)).drain_seconds == int(seconds)


def test_a_task_needs_no_privileges_and_writes_no_file() -> None:
    for task in ("TaskDefinition", "NotificationsTaskDefinition"):
        definition = container(service(**BALANCED), task)
        assert definition["ReadonlyRootFilesystem"] is True
        assert definition["LinuxParameters"] == {"InitProcessEnabled": True, "Capabilities": {"Drop": ["ALL"]}}
        assert "Privileged" not in definition
        assert "MountPoints" not in definition


def test_the_health_check_is_that_of_the_image_and_of_the_manual() -> None:
    check = container(service())["HealthCheck"]
    manual = (DOC / "operations.rst").read_text(encoding="utf-8")
    told, _ = json.JSONDecoder().raw_decode(manual[manual.index('{"healthCheck"') :])
    assert {key[0].lower() + key[1:]: value for key, value in check.items()} == told["healthCheck"]
    (line,) = [line for line in (DOC.parent / "Dockerfile").read_text().splitlines() if line.startswith("HEALTHCHECK")]
    assert json.loads(line[line.index("[") :]) == check["Command"][1:]
    for option, name in [("interval", "Interval"), ("timeout", "Timeout"), ("start-period", "StartPeriod")]:
        assert f"--{option}={check[name]}s" in line


def test_nodes_that_stand_by_are_not_scaled() -> None:
    assert not any("ROLE" in name for name in environment(service()))
    for role in set(parameters["Role"]["AllowedValues"]) - {"alone"}:
        variables = environment(service(Role=role))
        assert (variables["RECEIPT_ACTORS_ROLE"], variables["RECEIPT_ACTORS_ROLE_TABLE"]) == (role, "RoleTable")
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
    for memory in parameters["MemoryMiB"]["AllowedValues"]:
        faults = service(Cpu=cpu, MemoryMiB=memory).faults()
        assert len(faults) == (0 if smallest <= int(memory) <= largest else 1), memory


def test_a_rush_has_a_beginning_and_an_end() -> None:
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


@pytest.mark.parametrize(
    ("parameter", "policy", "variable"),
    [
        ("SharedSecretArn", "SharedSecretPolicy", "RECEIPT_ACTORS_SHARED_SECRET"),
        ("ServerApiKeyArn", "ServerApiKeyPolicy", "RECEIPT_ACTORS_SERVER_API_KEY"),
        ("SourcesArn", "SourcesPolicy", "RECEIPT_ACTORS_SOURCES"),
    ],
)
def test_a_secret_is_a_parameter_or_a_secret(parameter: str, policy: str, variable: str) -> None:
    resolved = service(**{parameter: PARAMETER})
    (statement,) = resolved.resources("AWS::IAM::ManagedPolicy")[policy]["PolicyDocument"]["Statement"]
    assert statement["Action"] == ["secretsmanager:GetSecretValue", "ssm:GetParameters"]
    assert statement["Resource"] == PARAMETER
    assert container(resolved)["Secrets"] == [{"Name": variable, "ValueFrom": PARAMETER}]
    assert set(service().resources("AWS::IAM::ManagedPolicy")) == {"ExecutionPolicy", "ProtectionPolicy"}
    assert container(service())["Secrets"] == []
    (decrypt,) = service(SecretsKeyArn="K").resources("AWS::IAM::ManagedPolicy")["SecretsKeyPolicy"]["PolicyDocument"][
        "Statement"
    ]
    assert (decrypt["Action"], decrypt["Resource"]) == (["kms:Decrypt"], "K")


def test_an_image_is_of_the_repository_that_may_be_pulled() -> None:
    for reference in ("game/receipt-actors:1", f"game/receipt-actors@sha256:{'0' * 64}"):
        resolved = service(Image=reference)
        policy = resolved.resources("AWS::IAM::ManagedPolicy")["ExecutionPolicy"]
        (pull,) = [each for each in policy["PolicyDocument"]["Statement"] if each["Sid"] == "PullImage"]
        assert pull["Resource"].endswith(":repository/game/receipt-actors")
        assert container(resolved)["Image"].endswith(f".amazonaws.com/{reference}")


def test_a_cluster_is_made_where_none_is_given() -> None:
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
    scaled = service(MinTasks="3", MaxTasks="30", AcceptableSeconds="90")
    (target,) = scaled.resources("AWS::ApplicationAutoScaling::ScalableTarget").values()
    (policy,) = scaled.resources("AWS::ApplicationAutoScaling::ScalingPolicy").values()
    assert (target["MinCapacity"], target["MaxCapacity"]) == ("3", "30")
    assert policy["TargetTrackingScalingPolicyConfiguration"]["TargetValue"] == "90"


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
    resolved = service(len(visible) - 1, **sizes)
    ids = [id_ for id_ in queries(resolved) if id_.startswith("visible")]
    known = {"tasks": {1: float(tasks)}}
    known |= {id_: {1: float(messages)} for id_, messages in zip(ids, visible, strict=True)}
    value = evaluated(queries(resolved)["backlog"]["Expression"], known)[1]
    mean_seconds = 1 / per_second  # of a task that is busy
    assert value / acceptable_seconds == pytest.approx((sum(visible) / tasks) / (acceptable_seconds / mean_seconds))


@pytest.mark.parametrize("further", [0, 1, len(FURTHER)])
def test_the_backlog_is_that_of_all_source_queues(further: int) -> None:
    resolved = service(further)
    running = metric_of(resolved, "tasks")
    assert (running["Namespace"], running["MetricName"]) == ("ECS/ContainerInsights", "RunningTaskCount")
    at_limit = {each["Id"]: each for each in resolved.resources("AWS::CloudWatch::Alarm")["TasksAtLimit"]["Metrics"]}
    for found in (queries(resolved), at_limit):
        metrics = [query["MetricStat"]["Metric"] for id_, query in found.items() if id_.startswith("visible")]
        assert metrics == [
            {
                "Namespace": "AWS/SQS",
                "MetricName": "ApproximateNumberOfMessagesVisible",
                "Dimensions": [{"Name": "QueueName", "Value": queue}],
            }
            for queue in ("ReceiptsSQS", *FURTHER[:further])
        ]
        assert len({found[id_]["MetricStat"]["Stat"] for id_ in found if id_.startswith("visible")}) == 1
        assert len([id_ for id_, query in found.items() if query["ReturnData"]]) == 1
        assert len(found) <= MAX_METRICS
    assert queries(resolved)["backlog"]["ReturnData"]


def test_a_queue_without_figures_keeps_nobody_from_scaling() -> None:
    resolved = service(len(FURTHER), MaxTasks="1")
    at_limit = resolved.resources("AWS::CloudWatch::Alarm")["TasksAtLimit"]["Metrics"][-1]
    filled = "(a + FILL(b, 0) + FILL(c, 7)) / d"  # as CloudWatch does it
    data = {"a": {1: 10.0, 2: 20.0, 4: 1.0}, "b": {2: 2.0, 3: 3.0}, "c": {}, "d": {1: 1.0, 2: 1.0, 3: 1.0, 4: 0.0}}
    assert evaluated(filled, data) == {1: 17.0, 2: 29.0}
    for silent in range(1, 1 + len(FURTHER)):
        known = {f"visible{number}": {1: 500.0, 3: 9.0} for number in range(1, 1 + len(FURTHER)) if number != silent}
        known |= {"visible": {1: 500.0, 2: 500.0}, "tasks": {1: 1.0, 2: 1.0, 3: 1.0}, f"visible{silent}": {}}
        for query in (queries(resolved)["backlog"], at_limit):
            assert evaluated(query["Expression"], known) == {1: 4.0, 2: 1.0}


# --- further source queues ---


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
    assert "RECEIPT_ACTORS_SOURCES" not in environment(service())
    settings = load_settings({}, environ=environment(service(2)))
    assert settings.source_queues == ("ReceiptsSQS", "Game2SQS", "Game3SQS.fifo")
    faults = service(**given).faults()
    assert len(faults) == (fault is not None)
    assert all(str(fault) in each for each in faults)


# --- Apple's notifications ---


def test_nothing_takes_notifications_where_no_load_balancer_is_given() -> None:
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


def test_what_takes_notifications_is_as_the_manual_says_and_for_all_games() -> None:
    task = container(service(**BALANCED), "NotificationsTaskDefinition")
    assert task["Command"] == ["notifications", "--host", "0.0.0.0", "--port", str(DEFAULT_PORT)]
    assert STOP_SECONDS < task["StopTimeout"] <= MAX_STOP_TIMEOUT_SECONDS
    assert task["Image"] == container(service(**BALANCED))["Image"]
    assert "HealthCheck" not in task  # the load balancer alone looks into it
    assert f"--port {DEFAULT_PORT} --health-check-path {HEALTH_PATH} " in MANUAL
    resolved = service(2, **BALANCED)
    name = "RECEIPT_ACTORS_SOURCES"
    assert environment(resolved, "NotificationsTaskDefinition")[name] == environment(resolved)[name]
    resolved = service(SourceStacks="game2", SourcesArn=PARAMETER, **BALANCED)
    for task in ("TaskDefinition", "NotificationsTaskDefinition"):
        assert container(resolved, task)["Secrets"] == [{"Name": name, "ValueFrom": PARAMETER}]


# --- alarms ---


def test_the_alarms_watch_this_service_and_its_target_group() -> None:
    alarms = service(MinTasks="2", MissingTasksMinutes="7", **BALANCED).resources("AWS::CloudWatch::Alarm")
    silence = {name: alarm["TreatMissingData"] for name, alarm in alarms.items()}
    assert silence.pop("TasksMissing") == silence.pop("NotificationsDown") == "breaching"
    assert set(silence.values()) == {"notBreaching"}
    del alarms["TasksAtLimit"]  # its metrics are those of the scaling
    balancer = "TargetGroup=targetgroup/refunds/6d0ecf831eec9f09,LoadBalancer=app/front/50dc6c495c0c9188"
    assert {name: watched(alarm) for name, alarm in alarms.items()} == {
        "TasksMissing": "ECS/ContainerInsights RunningTaskCount Minimum of ClusterName=Cluster,ServiceName=Service.Name"
        " LessThanThreshold 2 x7",
        "NotificationsDown": f"AWS/ApplicationELB HealthyHostCount Maximum of {balancer} LessThanThreshold 1 x7",
        "NotificationsFailing": f"AWS/ApplicationELB HTTPCode_Target_5XX_Count Sum of {balancer}"
        " GreaterThanThreshold 0 x1",
    }
    assert {alarm["Period"] for alarm in alarms.values()} == {60}


@pytest.mark.parametrize("further", [0, len(FURTHER)])
def test_a_backlog_that_no_more_tasks_may_work_off_is_told_of(further: int) -> None:
    resolved = service(further, MaxTasks="10", TaskReceiptsPerSecond="500", AcceptableSeconds="60")
    alarm = resolved.resources("AWS::CloudWatch::Alarm")["TasksAtLimit"]
    assert (alarm["ComparisonOperator"], alarm["EvaluationPeriods"]) == ("GreaterThanThreshold", 10)
    *queues, quotient = alarm["Metrics"]
    for backlog, is_told in ((10 * 500 * 60, False), (10 * 500 * 60 + 1, True)):
        known = {each["Id"]: {1: 1000.0} for each in queues} | {"visible": {1: backlog - 1000.0 * further}}
        assert (evaluated(quotient["Expression"], known)[1] > float(alarm["Threshold"])) is is_told
    standby = service(Role="active-standby").resources("AWS::CloudWatch::Alarm")
    assert set(standby) == {"TasksMissing"}
