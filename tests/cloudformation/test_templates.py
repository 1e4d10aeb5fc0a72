"""What the templates say, read without a deployment: all three, the first stack, and that of a further source queue."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from receipt_actors.aws.tables import EXPIRES_AT
from receipt_actors.settings import Settings, load_settings
from receipt_actors.telemetry import embedded_metrics
from tests.stand_in_system import overview_of

from .alarms import watched
from .conftest import ACCOUNT, REGION, SERVICE_TEMPLATE, SOURCE_TEMPLATE, TEMPLATE
from .intrinsics import FIRST, SERVICE, SOURCE, Resolved, first, service, source

DOC = Path(__file__).parents[2] / "doc"
MANUAL = (DOC / "deploy-aws.rst").read_text(encoding="utf-8")
REGIONS = ["us-east-1", "eu-west-1", "cn-north-1", "us-gov-west-1"]
DAY_SECONDS = 24 * 60 * 60
QUEUES = ("SourceQueue", "DeadLetterQueue", "PostQueue")
NAMES = {"SourceQueueName": "game2", "DeadLetterQueueName": "game2-dead", "PostQueueName": "game2-results"}
ALARMS = ("AWS::CloudWatch::Alarm", "AWS::CloudWatch::CompositeAlarm")
#: What there is only for a service behind a load balancer.
BALANCER = "arn:aws:elasticloadbalancing:eu-west-1:123456789012"
BALANCED = {
    "NotificationsTargetGroupArn": f"{BALANCER}:targetgroup/refunds/6d0ecf831eec9f09",
    "LoadBalancerArn": f"{BALANCER}:loadbalancer/app/front/50dc6c495c0c9188",
    "LoadBalancerSecurityGroupId": "sg-0123456789abcdef0",
}

SSM = "arn:aws:ssm:eu-west-1:123456789012:parameter"

parameters: dict[str, dict[str, Any]] = FIRST["Parameters"]


def resources(kind: str) -> dict[str, dict[str, Any]]:
    found = {name: resource for name, resource in FIRST["Resources"].items() if resource["Type"] == kind}
    assert found, f"the template has no {kind}"
    return found


def properties(name: str) -> dict[str, Any]:
    found: dict[str, Any] = FIRST["Resources"][name]["Properties"]
    return found


def alarms(template: Resolved) -> dict[str, dict[str, Any]]:
    return {name: alarm for kind in ALARMS for name, alarm in template.resources(kind).items()}


# --- all of them ---


@pytest.mark.parametrize("file", [TEMPLATE, SERVICE_TEMPLATE, SOURCE_TEMPLATE], ids=lambda file: file.stem)
def test_cfn_lint_finds_nothing(file: Path) -> None:
    from cfnlint.api import lint_file  # type: ignore[import-untyped]  # they take a second to import
    from cfnlint.config import ManualArgs  # type: ignore[import-untyped]

    findings = lint_file(file, config=ManualArgs(include_checks=["I"], regions=REGIONS))
    assert [f"{finding} (line {finding.linenumber})" for finding in findings] == []


@pytest.mark.parametrize(
    ("template", "begins", "ends"),
    [
        (FIRST, "", "The service's parameters\n"),
        (SERVICE, "The service's parameters\n", "What a task is\n"),
        (SOURCE, "A further source queue\n", "Anywhere else\n"),
    ],
    ids=["first", "service", "source"],
)
def test_the_manual_lists_every_parameter_with_its_default(template: Mapping[str, Any], begins: str, ends: str) -> None:
    section = MANUAL[MANUAL.index(begins) : MANUAL.index(ends)]
    rows = re.findall(r"^``(\w+)``\s+(?:``(\S+)``|none|required)", section, re.MULTILINE)
    assert rows == [(name, str(each.get("Default", ""))) for name, each in template["Parameters"].items()]


def test_every_alarm_tells_its_beginning_its_end_and_where_to_read_of_it() -> None:
    runbook, url = (DOC / "runbook.rst").read_text(encoding="utf-8"), "https://wiki.example.com/runbook.html"
    of_source = alarms(source(RunbookUrl=url))
    assert all("game2" in alarm["AlarmDescription"] for alarm in of_source.values())
    all_alarms = [alarms(first(RunbookUrl=url)), of_source, alarms(service(RunbookUrl=url, **BALANCED))]
    for alarm in (alarm for each in all_alarms for alarm in each.values()):
        suffix = alarm["AlarmName"].partition("-")[2]
        assert alarm["AlarmActions"] == alarm["OKActions"] == ["AlertTopic"], suffix
        assert f"{url}#alarm-{suffix}" in alarm["AlarmDescription"]
        assert f".. _alarm-{suffix}:\n" in runbook


def test_what_is_imported_is_exported() -> None:
    texts = [file.read_text(encoding="utf-8") for file in (SERVICE_TEMPLATE, SOURCE_TEMPLATE)]
    imported = {name for text in texts for name in re.findall(r"\$\{ReceiptsStack\}-(\w+)", text)}
    assert {f"receipts-{name}" for name in imported} == set(first().exports())
    from_sources = set(re.findall(r"\$\{stack\}-(\w+)", texts[0]))
    assert {f"receipts-{name}" for name in from_sources} == set(source().exports())


@pytest.mark.parametrize(
    ("template", "parameter", "taken", "refused"),
    [
        (FIRST, "AlertEmail", ["", "on-call@example.com"], ["on-call"]),
        (FIRST, "RunbookUrl", ["", "https://wiki.example.com/receipts/runbook.html"], ["runbook"]),
        (FIRST, "ServicePrincipal", ["ec2.amazonaws.com.cn"], ["*", "ecs-tasks.amazonaws.com.example.org"]),
        (
            SERVICE,
            "Image",
            ["receipt-actors:1", f"game/receipt-actors@sha256:{'0' * 64}"],
            ["receipt-actors", "123456789012.dkr.ecr.eu-west-1.amazonaws.com/receipt-actors:1", "*:1"],
        ),
        (
            SERVICE,
            "SharedSecretArn",
            ["", "arn:aws-cn:secretsmanager:cn-north-1:123456789012:secret:game-AbCdEf"],
            ["abc123", f"{SSM}/*", "arn:aws:secretsmanager:eu-west-1:123456789012:secret:game:key::"],
        ),
        (SERVICE, "Settings", ["", '{"max_in_flight": 300}'], ["max_in_flight=300", '{"shared_secret": "0011223344"}']),
        (SERVICE, "BundleIds", ["com.example.game,com.example.other"], ["*"]),
        (SERVICE, "SourceStacks", ["", "receipts-game2,receipts-game3"], ["receipts-game2,", "a,b,c,d,e"]),
        (SERVICE, "Sources", ["", '{"Q": {\n"bundle_ids": "b"}}'], ["Q", '{"Q": {\n"shared_secret": "abc123"}}']),
        (SERVICE, "SourcesArn", [""], ['{"Game2SQS": {"shared_secret": "abc123"}}']),
        (SERVICE, "ServerApiKeyArn", ["", f"{SSM}/game/key"], ["abc123"]),
        (SERVICE, "Processes", ["auto"], ["0"]),
        (SERVICE, "RushBegins", ["", "cron(45 17 ? * FRI *)"], ["rate(1 day)"]),
        (SERVICE, "NotificationsTargetGroupArn", ["", f"{BALANCER}:targetgroup/refunds/6d0ecf831eec9f09"], [BALANCER]),
        (SERVICE, "LoadBalancerArn", ["", f"{BALANCER}:loadbalancer/app/a/50"], [f"{BALANCER}:loadbalancer/net/a/50"]),
        (SERVICE, "LoadBalancerSecurityGroupId", ["", BALANCED["LoadBalancerSecurityGroupId"]], ["front"]),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_slips_are_refused(template: Mapping[str, Any], parameter: str, taken: list[str], refused: list[str]) -> None:
    pattern = template["Parameters"][parameter]["AllowedPattern"]
    assert [value for value in taken + refused if re.fullmatch(pattern, value)] == taken


@pytest.mark.parametrize(
    ("make", "names"),
    [
        (first, [f"{queue}Name" for queue in resources("AWS::SQS::Queue")]),
        (first, [f"{table}Name" for table in resources("AWS::DynamoDB::Table")]),
        (source, list(NAMES)),
    ],
    ids=["queues", "tables", "further queues"],
)
def test_no_two_of_a_kind_can_share_a_name(make: Any, names: list[str]) -> None:
    given = NAMES if make is source else {}
    assert make(**given).faults() == []
    for one, other in combinations(names, 2):
        (fault,) = make(**{**given, one: "same", other: "same"}).faults()
        assert one in fault
        assert other in fault


def names(parameter: str) -> st.SearchStrategy[str]:
    return st.from_regex(re.compile(parameters[parameter]["AllowedPattern"], re.ASCII), fullmatch=True)


# --- the first stack ---


def test_what_players_have_paid_for_outlives_the_stack() -> None:
    queues = dict(resources("AWS::SQS::Queue"))
    assert queues.pop("AlertsQueue")["DeletionPolicy"] == "Delete"  # nobody has paid for those
    for queue in queues.values():
        # Not on the rollback of a failed creation: what is retained then would be in the way of the next.
        assert queue["DeletionPolicy"] == "RetainExceptOnCreate"
        assert queue["UpdateReplacePolicy"] == "Retain"
    tables = dict(resources("AWS::DynamoDB::Table"))
    assert tables.pop("NotificationsTable")["DeletionPolicy"] == "Delete"  # at most something is done once more
    assert tables.pop("RoleTable")["DeletionPolicy"] == "Delete"  # roles are taken anew
    for table in tables.values():
        assert table["DeletionPolicy"] == "Retain"
        assert table["UpdateReplacePolicy"] == "Retain"
        assert table["Properties"]["DeletionProtectionEnabled"] is True


def test_the_ledger_is_kept_for_ever_and_can_be_restored() -> None:
    """A claim never expires, and an operator's mistake can be undone to the second.

    What is remembered of notifications expires, by the attribute that the program writes.
    """
    ledger = properties("LedgerTable")
    assert "TimeToLiveSpecification" not in ledger
    assert ledger["PointInTimeRecoverySpecification"] == {"PointInTimeRecoveryEnabled": True}
    specification = properties("NotificationsTable")["TimeToLiveSpecification"]
    assert specification == {"AttributeName": EXPIRES_AT, "Enabled": True}
    # SQS counts a dead letter's time from its first sending: a shorter retention could delete it as it arrives.
    assert properties("DeadLetterQueue")["MessageRetentionPeriod"] == 14 * DAY_SECONDS
    assert parameters["SourceRetentionSeconds"]["MaxValue"] <= 14 * DAY_SECONDS
    assert parameters["SourceRetentionSeconds"]["Default"] == 4 * DAY_SECONDS


def test_receipts_lie_on_no_disk_and_cross_no_network_in_the_clear() -> None:
    for table in resources("AWS::DynamoDB::Table").values():
        assert table["Properties"]["SSESpecification"] == {"SSEEnabled": True}
    for queue in resources("AWS::SQS::Queue").values():
        assert queue["Properties"]["SqsManagedSseEnabled"] is True
    guarded = []
    for policy in resources("AWS::SQS::QueuePolicy").values():
        (ref,) = policy["Properties"]["Queues"]
        (statement,) = policy["Properties"]["PolicyDocument"]["Statement"]
        assert (statement["Effect"], statement["Principal"], statement["Action"]) == ("Deny", "*", "sqs:*")
        assert statement["Resource"] == {"Fn::GetAtt": [ref["Ref"], "Arn"]}
        assert statement["Condition"] == {"Bool": {"aws:SecureTransport": "false"}}
        guarded.append(ref["Ref"])
    assert sorted(guarded) == sorted(resources("AWS::SQS::Queue"))


def test_only_the_source_queue_may_redrive_to_the_dead_letter_queue() -> None:
    for queue_type in parameters["QueueType"]["AllowedValues"]:
        queues = first(QueueType=queue_type).resources("AWS::SQS::Queue")
        source_arn = f"arn:aws:sqs:{REGION}:{ACCOUNT}:{queues['SourceQueue']['QueueName']}"
        assert queues["DeadLetterQueue"]["RedriveAllowPolicy"] == {
            "redrivePermission": "byQueue",
            "sourceQueueArns": [source_arn],
        }


def test_a_queue_is_fifo_where_it_is_asked_for() -> None:
    standard = first().resources("AWS::SQS::Queue")
    assert not any(name.startswith(("Fifo", "Dedup", "Content")) for queue in standard.values() for name in queue)
    fifo = first(QueueType="fifo")
    queues = fifo.resources("AWS::SQS::Queue")
    told = fifo.value(FIRST["Outputs"]["Environment"]["Value"])
    assert "RECEIPT_ACTORS_SOURCE_QUEUE=ReceiptsSQS.fifo\n" in told
    assert queues.pop("AlertsQueue") == standard["AlertsQueue"]
    for name, queue in queues.items():
        assert queue["QueueName"] == f"{standard[name]['QueueName']}.fifo"
        assert queue["FifoQueue"] is True
        # The program names what is a repetition: two bodies that are alike may be two purchases.
        assert queue["ContentBasedDeduplication"] is False
        # Nobody's messages wait for another one's.
        assert (queue["DeduplicationScope"], queue["FifoThroughputLimit"]) == ("messageGroup", "perMessageGroupId")


def test_the_defaults_are_those_of_the_settings() -> None:
    settings = load_settings({"bundle_ids": "com.example.game"}, environ={"AWS_REGION": "eu-west-1"})
    defaults = {name: parameter["Default"] for name, parameter in parameters.items()}
    assert defaults["SourceQueueName"] == settings.source_queue
    assert (defaults["PostQueueName"],) == settings.post_queues
    assert defaults["DeadLetterQueueName"] == f"{settings.source_queue}DLQ"  # as the embedded backend calls it
    assert defaults["LedgerTableName"] == settings.ledger_table
    assert defaults["NotificationsTableName"] == settings.notifications_table
    assert defaults["VisibilityTimeoutSeconds"] == settings.visibility_timeout_seconds
    assert defaults["MaxReceiveCount"] == settings.max_receive_count


@given(
    queues=st.lists(names("SourceQueueName"), min_size=4, max_size=4, unique=True),
    tables=st.lists(names("LedgerTableName") | names("NotificationsTableName"), min_size=2, max_size=2, unique=True),
    visibility=st.integers(
        parameters["VisibilityTimeoutSeconds"]["MinValue"], parameters["VisibilityTimeoutSeconds"]["MaxValue"]
    ),
)
def test_what_the_template_accepts_the_settings_accept(queues: list[str], tables: list[str], visibility: int) -> None:
    assert len({parameters[f"{queue}Name"]["AllowedPattern"] for queue in resources("AWS::SQS::Queue")}) == 1
    source, post, dead_letters, alerts = queues
    ledger, notifications = tables
    settings = Settings(
        backend="aws",
        bundle_ids=("com.example.game",),
        source_queue=source,
        post_queues=(post,),
        dead_letter_queue=dead_letters,
        alerts_queue=alerts,
        ledger_table=ledger,
        notifications_table=notifications,
        visibility_timeout_seconds=visibility,
    )
    assert (settings.source_queue, settings.ledger_table) == (source, ledger)


def test_alarms_and_nobody_else_may_publish_to_the_topic() -> None:
    (policy,) = resources("AWS::SNS::TopicPolicy").values()
    allow, deny = policy["Properties"]["PolicyDocument"]["Statement"]
    assert (allow["Principal"], allow["Action"]) == ({"Service": "cloudwatch.amazonaws.com"}, "sns:Publish")
    assert allow["Condition"] == {"StringEquals": {"aws:SourceAccount": {"Ref": "AWS::AccountId"}}}
    assert (deny["Effect"], deny["Condition"]) == ("Deny", {"Bool": {"aws:SecureTransport": "false"}})
    assert first().resources("AWS::SNS::Subscription") == {}
    (subscription,) = first(AlertEmail="on-call@example.com").resources("AWS::SNS::Subscription").values()
    assert subscription == {"TopicArn": "AlertTopic", "Protocol": "email", "Endpoint": "on-call@example.com"}
    # Alerts are tried again before they come twice.
    (mapping,) = resources("AWS::Lambda::EventSourceMapping").values()
    gathering_seconds = mapping["Properties"]["MaximumBatchingWindowInSeconds"]
    assert properties("AlertsQueue")["VisibilityTimeout"] > 6 * properties("AlertMail")["Timeout"] + gathering_seconds


def test_the_alarms_watch_what_the_stack_makes() -> None:
    """The metric as AWS (and we) call it, with the limits asked for.

    Only the heartbeat alarms where nothing is heard: SQS, DynamoDB and Lambda say nothing where nothing happens; a dead
    process says nothing either. A site is down where nobody lives and receipts wait: each alone may wait for the
    morning.
    """
    given = {"MaxMessageAgeSeconds": 900, "MaxDeadLetters": 3, "MaxThrottledRequests": 5, "HeartbeatMinutes": 4}
    resolved = first(**given)
    found = resolved.resources("AWS::CloudWatch::Alarm")
    age = "AWS/SQS ApproximateAgeOfOldestMessage Maximum of QueueName"
    ledger = "Sum of TableName=TransactionIdTable"
    lost = "AWS/DynamoDB SystemErrors Sum of TableName=TransactionIdTable,Operation"
    assert {name: watched(alarm) for name, alarm in found.items()} == {
        "SourceQueueAge": f"{age}=ReceiptsSQS GreaterThanThreshold 900 x3",
        "DeadLetterDepth": "AWS/SQS ApproximateNumberOfMessagesVisible Maximum of QueueName=ReceiptsSQSDLQ"
        " GreaterThanThreshold 3 x1",
        "HeartbeatMissing": "ReceiptActors Heartbeat Sum of SourceQueue=ReceiptsSQS LessThanThreshold 1 x4",
        "LedgerWritesThrottled": f"AWS/DynamoDB WriteThrottleEvents {ledger} GreaterThanThreshold 5 x3",
        "LedgerReadsThrottled": f"AWS/DynamoDB ReadThrottleEvents {ledger} GreaterThanThreshold 5 x3",
        "LedgerPutErrors": f"{lost}=PutItem GreaterThanThreshold 0 x3",
        "LedgerBatchErrors": f"{lost}=BatchExecuteStatement GreaterThanThreshold 0 x3",
        "LedgerGetErrors": f"{lost}=GetItem GreaterThanThreshold 0 x3",
        "AlertMailErrors": "AWS/Lambda Errors Sum of FunctionName=AlertMail GreaterThanThreshold 0 x1",
        "AlertsQueueAge": f"{age}=AlertsSQS GreaterThanThreshold 300 x3",
    }
    silence = {name: alarm["TreatMissingData"] for name, alarm in found.items()}
    assert silence.pop("HeartbeatMissing") == "breaching"
    assert set(silence.values()) == {"notBreaching"}
    (site_down,) = resolved.resources("AWS::CloudWatch::CompositeAlarm").values()
    assert site_down["AlarmRule"] == 'ALARM("HeartbeatMissing") AND ALARM("SourceQueueAge")'
    silent = first(HeartbeatMinutes=0)
    assert set(silent.resources("AWS::CloudWatch::Alarm")) == set(silence)
    assert silent.resources("AWS::CloudWatch::CompositeAlarm") == {}


# --- a further source queue ---


def test_a_name_is_enough() -> None:
    mine = SOURCE["Parameters"]
    assert {name for name, each in mine.items() if "Default" not in each} == {"SourceQueueName"}
    assert source().faults() == []
    for name in mine.keys() - {"ReceiptsStack", *NAMES}:
        for about in ("Type", "Default", "MinValue", "MaxValue", "AllowedValues", "AllowedPattern"):
            assert mine[name].get(about) == parameters[name].get(about), name


@pytest.mark.parametrize("queue_type", parameters["QueueType"]["AllowedValues"])
@pytest.mark.parametrize("heartbeat_minutes", [0, 3])
def test_a_further_queue_is_what_the_first_one_is(queue_type: str, heartbeat_minutes: int) -> None:
    """Sizes, encryption, policies against plain HTTP, alarms: with the same parameters they are the same.

    The first stack's other alarms are about what all queues share.
    """
    given = {**NAMES, "QueueType": queue_type, "HeartbeatMinutes": heartbeat_minutes}
    mine, its = source(**given), first(**given)
    for kind in ("AWS::SQS::Queue", "AWS::SQS::QueuePolicy", *ALARMS):
        for name, found in mine.resources(kind).items():
            wanted = its.resources(kind)[name]
            assert {**found, "AlarmDescription": ""} == {**wanted, "AlarmDescription": ""}, name
    called = {queue["QueueName"] for queue in mine.resources("AWS::SQS::Queue").values()}
    of_queue = {
        name
        for name, alarm in its.resources("AWS::CloudWatch::Alarm").items()
        if {each["Value"] for each in alarm["Dimensions"]} & called
    }
    assert set(mine.resources("AWS::CloudWatch::Alarm")) == of_queue
    assert set(mine.resources(ALARMS[1])) == set(its.resources(ALARMS[1]))
    for name in QUEUES:
        for policy in ("DeletionPolicy", "UpdateReplacePolicy"):
            assert SOURCE["Resources"][name][policy] == FIRST["Resources"][name][policy]


def granted(policy: dict[str, Any]) -> set[tuple[str, str]]:
    return {
        (action, resource)
        for statement in policy["PolicyDocument"]["Statement"]
        for action in statement["Action"]
        for resource in (statement["Resource"] if isinstance(statement["Resource"], list) else [statement["Resource"]])
    }


def test_a_policy_grants_on_these_queues_what_the_first_template_grants_on_its_own() -> None:
    mine, its = (each.resources("AWS::IAM::ManagedPolicy") for each in (source(**NAMES), first(**NAMES)))
    assert mine.keys() == its.keys()
    for name, policy in mine.items():
        assert granted(policy) == {each for each in granted(its[name]) if each[1].partition(".")[0] in QUEUES}
        assert policy.get("Roles") == its[name].get("Roles")


def test_answers_go_to_the_first_post_queue_where_there_is_no_other() -> None:
    shared = source()
    assert set(shared.resources("AWS::SQS::Queue")) == {"SourceQueue", "DeadLetterQueue"}
    policies = shared.resources("AWS::IAM::ManagedPolicy")
    assert set(policies) == {"ServicePolicy", "ProducerPolicy", "OperatorPolicy"}
    assert not any("PostQueue" in resource for policy in policies.values() for _action, resource in granted(policy))
    assert json.loads(shared.value(SOURCE["Outputs"]["Sources"]["Value"])) == {
        "game2": {"dead_letter_queue": "game2DLQ"}
    }


@given(
    queues=st.tuples(*map(names, NAMES)).filter(lambda queues: len({*queues, f"{queues[0]}DLQ"}) == 4),
    queue_type=st.sampled_from(parameters["QueueType"]["AllowedValues"]),
)
def test_the_settings_accept_the_table_of_a_source(queues: tuple[str, ...], queue_type: str) -> None:
    mine = source(**dict(zip(NAMES, queues, strict=True)), QueueType=queue_type)
    sources = json.loads(mine.value(SOURCE["Outputs"]["Sources"]["Value"]))
    settings = Settings(backend="aws", bundle_ids=("com.example.game",), sources=sources)
    of_source = settings.of_source(settings.source_queues[1])
    made = mine.resources("AWS::SQS::Queue")
    assert of_source.source_queue == made["SourceQueue"]["QueueName"]
    assert of_source.dead_letter_queue == made["DeadLetterQueue"]["QueueName"]
    assert of_source.post_queues == (made["PostQueue"]["QueueName"] if "PostQueue" in made else "ResultsSQS",)


# --- the pages ---


@pytest.mark.parametrize("minutes", [0, 3])
@pytest.mark.parametrize("whose", ["first", "own answers", "shared answers"])
def test_a_page_shows_what_there_is_to_see_of_one_queue(whose: str, minutes: int) -> None:
    if whose == "first":
        resolved, queue = first(SourceQueueName="game1", HeartbeatMinutes=minutes), "game1"
    else:
        given = NAMES if whose == "own answers" else {}
        resolved, queue = source(**given, HeartbeatMinutes=minutes), "game2"
    (dashboard,) = resolved.resources("AWS::CloudWatch::Dashboard").values()
    assert dashboard["DashboardName"] == "receipts"
    widgets = json.loads(dashboard["DashboardBody"])["widgets"]
    about = [widget["properties"] for widget in widgets]
    assert {each["region"] for each in about if "metrics" in each} == {REGION}
    shown = [metric for each in about for metric in each.get("metrics", ())]
    of_program = [metric for metric in shown if metric[0] == "ReceiptActors"]
    assert {(metric[2], metric[3]) for metric in of_program} == {("SourceQueue", queue)}

    queues = {each["QueueName"] for name, each in resolved.resources("AWS::SQS::Queue").items() if name in QUEUES}
    assert {metric[3] for metric in shown if metric[0] == "AWS/SQS"} == queues
    looked_at = overview_of(1, source_queues=("game1", "game2"))
    documents = embedded_metrics.embedded_metrics(looked_at, looked_at)
    (told,) = [each["_aws"]["CloudWatchMetrics"][0]["Metrics"] for each in documents if each["SourceQueue"] == "game2"]
    written, further = {metric[1] for metric in of_program}, {each["Name"] for each in told}
    if whose == "first":
        assert written <= set(re.findall(r"``(\w+)``", (DOC / "operations.rst").read_text(encoding="utf-8")))
    else:
        assert written == further

    (listed,) = [each["alarms"] for each in about if "alarms" in each]
    arn = f"arn:aws:cloudwatch:{REGION}:{ACCOUNT}:alarm"
    assert sorted(listed) == sorted(f"{arn}:{alarm['AlarmName']}" for alarm in alarms(resolved).values())
    places = [tuple(widget[each] for each in ("x", "y", "width", "height")) for widget in widgets]
    taken = [
        (x, y)
        for left, top, width, height in places
        for x in range(left, left + width)
        for y in range(top, top + height)
    ]
    assert len(taken) == len(set(taken))
    assert max(x for x, _y in taken) < 24
