"""What the template says. What moto would silently leave out (see each test) is read in the template itself."""

from __future__ import annotations

import json
import re
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from cfnlint.api import lint_file  # type: ignore[import-untyped]
from cfnlint.config import ManualArgs  # type: ignore[import-untyped]
from cfnlint.decode.cfn_yaml import load  # type: ignore[import-untyped]
from hypothesis import given
from hypothesis import strategies as st

from receipt_actors.aws.notifications import EXPIRES_AT
from receipt_actors.settings import Settings, load_settings

from .conftest import ACCOUNT, REGION, SERVICE_TEMPLATE, SOURCE_TEMPLATE, TEMPLATE
from .intrinsics import Resolved

MANUAL = Path(__file__).parents[2] / "doc/deploy-aws.rst"
RUNBOOK = Path(__file__).parents[2] / "doc/runbook.rst"
REGIONS = ["us-east-1", "eu-west-1", "cn-north-1", "us-gov-west-1"]
DAY_SECONDS = 24 * 60 * 60

template: dict[str, Any] = load(str(TEMPLATE))
parameters: dict[str, dict[str, Any]] = template["Parameters"]


def resources(kind: str) -> dict[str, dict[str, Any]]:
    found = {name: resource for name, resource in template["Resources"].items() if resource["Type"] == kind}
    assert found, f"the template has no {kind}"
    return found


def properties(name: str) -> dict[str, Any]:
    found: dict[str, Any] = template["Resources"][name]["Properties"]
    return found


@pytest.mark.parametrize("file", [TEMPLATE, SERVICE_TEMPLATE, SOURCE_TEMPLATE], ids=lambda file: file.stem)
def test_cfn_lint_finds_nothing(file: Path) -> None:
    """Types, ranges, references and IAM actions are those that AWS knows, in all its partitions."""
    findings = lint_file(file, config=ManualArgs(include_checks=["I"], regions=REGIONS))
    assert [f"{finding} (line {finding.linenumber})" for finding in findings] == []


def test_what_players_have_paid_for_outlives_the_stack() -> None:
    """Deleting the stack, or renaming something in it, deletes no queue with messages of players and no claim."""
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
    """A claim never expires, and an operator's mistake can be undone to the second."""
    ledger = properties("LedgerTable")
    assert "TimeToLiveSpecification" not in ledger
    assert ledger["PointInTimeRecoverySpecification"] == {"PointInTimeRecoveryEnabled": True}


def test_notifications_expire_by_the_attribute_that_the_program_writes() -> None:
    """(moto leaves time to live out.) The table does not grow for ever."""
    specification = properties("NotificationsTable")["TimeToLiveSpecification"]
    assert specification == {"AttributeName": EXPIRES_AT, "Enabled": True}


@pytest.mark.parametrize(
    ("rule", "kind"),
    [("QueuesHaveNamesOfTheirOwn", "AWS::SQS::Queue"), ("TablesHaveNamesOfTheirOwn", "AWS::DynamoDB::Table")],
)
def test_no_two_of_a_kind_can_share_a_name(rule: str, kind: str) -> None:
    """The stack is refused with the reason before anything is created, for each pair of names."""
    pairs = [each["Assert"]["Fn::Not"][0]["Fn::Equals"] for each in template["Rules"][rule]["Assertions"]]
    names = [f"{name}Name" for name in resources(kind)]
    wanted = {frozenset(pair) for pair in combinations(names, 2)}
    assert len(pairs) == len(wanted)
    assert {frozenset(side["Ref"] for side in pair) for pair in pairs} == wanted
    for one, other in combinations(names, 2):
        (fault,) = Resolved(template, {one: "same", other: "same"}, stack_name="receipts").faults()
        assert one in fault
        assert other in fault
    assert Resolved(template, {}, stack_name="receipts").faults() == []


def test_everything_is_encrypted_at_rest() -> None:
    """Receipts and user ids lie on no disk in the clear, and no policy needs to name a key for that."""
    for table in resources("AWS::DynamoDB::Table").values():
        assert table["Properties"]["SSESpecification"] == {"SSEEnabled": True}
    for queue in resources("AWS::SQS::Queue").values():
        assert queue["Properties"]["SqsManagedSseEnabled"] is True


def test_every_queue_refuses_plain_http() -> None:
    """Receipts do not cross a network in the clear, whoever sends them."""
    guarded = []
    for policy in resources("AWS::SQS::QueuePolicy").values():
        (queue,) = policy["Properties"]["Queues"]
        (statement,) = policy["Properties"]["PolicyDocument"]["Statement"]
        assert (statement["Effect"], statement["Principal"], statement["Action"]) == ("Deny", "*", "sqs:*")
        assert statement["Resource"] == {"Fn::GetAtt": [queue["Ref"], "Arn"]}
        assert statement["Condition"] == {"Bool": {"aws:SecureTransport": "false"}}
        guarded.append(queue["Ref"])
    assert sorted(guarded) == sorted(resources("AWS::SQS::Queue"))


def test_only_the_source_queue_may_redrive_to_the_dead_letter_queue() -> None:
    """Nobody else's failures get between ours."""
    for queue_type in parameters["QueueType"]["AllowedValues"]:
        queues = Resolved(template, {"QueueType": queue_type}, stack_name="receipts").resources("AWS::SQS::Queue")
        source_arn = f"arn:aws:sqs:{REGION}:{ACCOUNT}:{queues['SourceQueue']['QueueName']}"
        assert queues["DeadLetterQueue"]["RedriveAllowPolicy"] == {
            "redrivePermission": "byQueue",
            "sourceQueueArns": [source_arn],
        }


def test_a_queue_is_fifo_where_it_is_asked_for() -> None:
    """All that a message walks through: a dead-letter queue has to be what its source is. Alerts have no order."""
    standard = Resolved(template, {}, stack_name="receipts").resources("AWS::SQS::Queue")
    assert not any(name.startswith(("Fifo", "Dedup", "Content")) for queue in standard.values() for name in queue)
    fifo = Resolved(template, {"QueueType": "fifo"}, stack_name="receipts")
    queues = fifo.resources("AWS::SQS::Queue")
    told = fifo.value(template["Outputs"]["Environment"]["Value"])
    assert "RECEIPT_ACTORS_SOURCE_QUEUE=ReceiptsSQS.fifo\n" in told
    assert queues.pop("AlertsQueue") == standard["AlertsQueue"]
    for name, queue in queues.items():
        assert queue["QueueName"] == f"{standard[name]['QueueName']}.fifo"
        assert queue["FifoQueue"] is True
        # The program names what is a repetition: two bodies that are alike may be two purchases.
        assert queue["ContentBasedDeduplication"] is False
        # Nobody's messages wait for another one's.
        assert (queue["DeduplicationScope"], queue["FifoThroughputLimit"]) == ("messageGroup", "perMessageGroupId")


def test_dead_letters_are_kept_longest() -> None:
    """SQS counts a dead letter's time from its first sending: a shorter retention could delete it as it arrives."""
    dead_letter_seconds = properties("DeadLetterQueue")["MessageRetentionPeriod"]
    assert dead_letter_seconds == 14 * DAY_SECONDS
    assert parameters["SourceRetentionSeconds"]["MaxValue"] <= dead_letter_seconds
    assert parameters["SourceRetentionSeconds"]["Default"] == 4 * DAY_SECONDS


def test_the_defaults_are_those_of_the_settings() -> None:
    """Whoever deploys without parameters need not set a queue or a table."""
    settings = load_settings({"bundle_ids": "com.example.game"}, environ={"AWS_REGION": "eu-west-1"})
    defaults = {name: parameter["Default"] for name, parameter in parameters.items()}
    assert defaults["SourceQueueName"] == settings.source_queue
    assert (defaults["PostQueueName"],) == settings.post_queues
    assert defaults["DeadLetterQueueName"] == f"{settings.source_queue}DLQ"  # as the embedded backend calls it
    assert defaults["LedgerTableName"] == settings.ledger_table
    assert defaults["NotificationsTableName"] == settings.notifications_table
    assert defaults["VisibilityTimeoutSeconds"] == settings.visibility_timeout_seconds
    assert defaults["MaxReceiveCount"] == settings.max_receive_count


def names(parameter: str) -> st.SearchStrategy[str]:
    return st.from_regex(re.compile(parameters[parameter]["AllowedPattern"], re.ASCII), fullmatch=True)


@given(
    queues=st.lists(names("SourceQueueName"), min_size=4, max_size=4, unique=True),
    tables=st.lists(names("LedgerTableName") | names("NotificationsTableName"), min_size=2, max_size=2, unique=True),
    visibility=st.integers(
        parameters["VisibilityTimeoutSeconds"]["MinValue"], parameters["VisibilityTimeoutSeconds"]["MaxValue"]
    ),
)
def test_what_the_template_accepts_the_settings_accept(queues: list[str], tables: list[str], visibility: int) -> None:
    """No stack can be deployed that the program then refuses."""
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


def test_all_queues_take_the_same_names() -> None:
    """What is a name for the source queue is one for the others (the property above draws from its pattern)."""
    patterns = {parameters[f"{queue}Name"]["AllowedPattern"] for queue in resources("AWS::SQS::Queue")}
    assert len(patterns) == 1


@pytest.mark.parametrize(
    ("name", "is_service"),
    [
        ("ecs-tasks.amazonaws.com", True),
        ("ec2.amazonaws.com", True),
        ("ec2.amazonaws.com.cn", True),
        ("*", False),
        ("arn:aws:iam::123456789012:root", False),
        ("ecs-tasks.amazonaws.com.example.org", False),
    ],
)
def test_the_role_is_for_services_of_aws_only(name: str, is_service: bool) -> None:
    """A slip in a parameter does not hand the role to the world."""
    assert (re.fullmatch(parameters["ServicePrincipal"]["AllowedPattern"], name) is not None) is is_service


def test_the_manual_lists_every_parameter_with_its_default() -> None:
    """The table of the manual is the template's, row by row."""
    about_parameters, _, _ = MANUAL.read_text(encoding="utf-8").partition("The service's parameters\n")
    rows = re.findall(r"^``(\w+)``\s+(?:``(\S+)``|none)", about_parameters, re.MULTILINE)
    assert rows == [(name, str(parameter["Default"])) for name, parameter in parameters.items()]


def test_the_policies_for_people_are_attached_to_nobody() -> None:
    """The service runs with its own policy alone; who may do the rest is for the operator to say."""
    attached = {
        name: policy["Properties"].get("Roles") for name, policy in resources("AWS::IAM::ManagedPolicy").items()
    }
    assert attached.pop("ServicePolicy") == [{"Ref": "ServiceRole"}]
    assert attached.pop("NotificationsPolicy") == [{"Ref": "NotificationsRole"}]
    assert set(attached.values()) == {None}, json.dumps(attached)


@pytest.mark.parametrize(
    ("parameter", "value", "is_taken"),
    [
        ("AlertEmail", "", True),
        ("AlertEmail", "on-call@example.com", True),
        ("AlertEmail", "on-call", False),
        ("RunbookUrl", "", True),
        ("RunbookUrl", "https://wiki.example.com/receipts/runbook.html", True),
        ("RunbookUrl", "runbook", False),
    ],
)
def test_addresses_may_be_left_out_but_not_misspelt(parameter: str, value: str, is_taken: bool) -> None:
    """An alert that goes nowhere is worse than a stack that can't be deployed."""
    assert (re.fullmatch(parameters[parameter]["AllowedPattern"], value) is not None) is is_taken


def test_alarms_and_nobody_else_may_publish_to_the_topic() -> None:
    """Of this account only, and nothing in the clear; the function that mails has a policy of its own."""
    (policy,) = resources("AWS::SNS::TopicPolicy").values()
    allow, deny = policy["Properties"]["PolicyDocument"]["Statement"]
    assert (allow["Principal"], allow["Action"]) == ({"Service": "cloudwatch.amazonaws.com"}, "sns:Publish")
    assert allow["Condition"] == {"StringEquals": {"aws:SourceAccount": {"Ref": "AWS::AccountId"}}}
    assert (deny["Effect"], deny["Condition"]) == ("Deny", {"Bool": {"aws:SecureTransport": "false"}})


def test_a_mail_address_subscribes_to_the_topic_where_one_is_given() -> None:
    """Otherwise there is no subscription at all."""
    (subscription,) = resources("AWS::SNS::Subscription").values()
    assert subscription["Condition"] == "HasEmail"
    assert subscription["Properties"] == {
        "TopicArn": {"Ref": "AlertTopic"},
        "Protocol": "email",
        "Endpoint": {"Ref": "AlertEmail"},
    }


def test_alerts_are_tried_again_before_they_come_twice() -> None:
    """The queue hides a batch for longer than six times what the function may take (Lambda's advice)."""
    (source,) = resources("AWS::Lambda::EventSourceMapping").values()
    gathering_seconds = source["Properties"]["MaximumBatchingWindowInSeconds"]
    assert properties("AlertsQueue")["VisibilityTimeout"] > 6 * properties("AlertMail")["Timeout"] + gathering_seconds


@pytest.mark.parametrize(
    "name", sorted({**resources("AWS::CloudWatch::Alarm"), **resources("AWS::CloudWatch::CompositeAlarm")})
)
def test_every_alarm_tells_its_beginning_its_end_and_where_to_read_of_it(name: str) -> None:
    """By the topic that mails; and its name is that of a section of the runbook."""
    alarm = properties(name)
    assert alarm["AlarmActions"] == alarm["OKActions"] == [{"Ref": "AlertTopic"}]
    suffix = alarm["AlarmName"]["Fn::Sub"].removeprefix("${AWS::StackName}-")
    assert f"Runbook: ${{RunbookUrl}}#alarm-{suffix}" in alarm["AlarmDescription"]["Fn::Sub"]
    assert f".. _alarm-{suffix}:\n" in RUNBOOK.read_text(encoding="utf-8")


def test_only_the_heartbeat_alarms_where_nothing_is_heard() -> None:
    """SQS, DynamoDB and Lambda say nothing where nothing happens; a dead process says nothing either."""
    silence = {name: properties(name)["TreatMissingData"] for name in resources("AWS::CloudWatch::Alarm")}
    assert silence.pop("HeartbeatMissing") == "breaching"
    assert set(silence.values()) == {"notBreaching"}
    for name in ("HeartbeatMissing", "SiteDown"):
        assert template["Resources"][name]["Condition"] == "HasHeartbeat"
