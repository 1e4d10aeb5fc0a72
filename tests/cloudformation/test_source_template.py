"""What the template of a further source queue says: what the first one says of its own, and where they differ."""

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

from receipt_actors.settings import Settings
from receipt_actors.telemetry.embedded_metrics import embedded_metrics
from tests.cli.stand_in_system import overview_of

from .conftest import SERVICE_TEMPLATE, SOURCE_TEMPLATE, TEMPLATE
from .intrinsics import Resolved
from .pages import Page, alarm_arns

DOC = Path(__file__).parents[2] / "doc"
QUEUES = ("SourceQueue", "DeadLetterQueue", "PostQueue")
KINDS = ("AWS::SQS::Queue", "AWS::SQS::QueuePolicy", "AWS::CloudWatch::Alarm", "AWS::CloudWatch::CompositeAlarm")

template: dict[str, Any] = load(str(SOURCE_TEMPLATE))
first_template: dict[str, Any] = load(str(TEMPLATE))
parameters: dict[str, dict[str, Any]] = template["Parameters"]
NAMES = {"SourceQueueName": "game2", "DeadLetterQueueName": "game2-dead", "PostQueueName": "game2-results"}


def first(**changes: object) -> Resolved:
    return Resolved(first_template, changes, stack_name="receipts")


def source(**changes: object) -> Resolved:
    return Resolved(template, {"SourceQueueName": "game2", **changes}, stack_name="receipts", exports=first().exports())


def test_a_name_is_enough() -> None:
    """Everything else has a default, which is the first template's where that has the parameter."""
    assert {name for name, each in parameters.items() if "Default" not in each} == {"SourceQueueName"}
    assert source().faults() == []
    for name in parameters.keys() - {"ReceiptsStack", *NAMES}:
        for about in ("Type", "Default", "MinValue", "MaxValue", "AllowedValues", "AllowedPattern"):
            assert parameters[name].get(about) == first_template["Parameters"][name].get(about), name


@pytest.mark.parametrize("queue_type", parameters["QueueType"]["AllowedValues"])
def test_a_further_queue_is_what_the_first_one_is(queue_type: str) -> None:
    """Sizes, encryption, policies against plain HTTP, alarms: with the same parameters they are the same."""
    mine, its = source(**NAMES, QueueType=queue_type), first(**NAMES, QueueType=queue_type)
    for kind in KINDS:
        for name, found in mine.resources(kind).items():
            wanted = its.resources(kind)[name]
            assert {**found, "AlarmDescription": ""} == {**wanted, "AlarmDescription": ""}, name
    for name in QUEUES:
        for policy in ("DeletionPolicy", "UpdateReplacePolicy"):
            assert template["Resources"][name][policy] == first_template["Resources"][name][policy]


def test_it_has_all_the_alarms_that_the_first_template_has_for_its_queue() -> None:
    """Those of the ledger and of the alerts are about what all queues share."""
    theirs = first(**NAMES)
    its = {
        name
        for name, alarm in theirs.resources("AWS::CloudWatch::Alarm").items()
        if {each["Value"] for each in alarm["Dimensions"]} & set(NAMES.values())
    }
    assert set(source(**NAMES).resources("AWS::CloudWatch::Alarm")) == its
    assert set(source().resources("AWS::CloudWatch::CompositeAlarm")) == set(
        theirs.resources("AWS::CloudWatch::CompositeAlarm")
    )
    silent = source(HeartbeatMinutes=0)
    assert set(silent.resources("AWS::CloudWatch::Alarm")) == its - {"HeartbeatMissing"}
    assert silent.resources("AWS::CloudWatch::CompositeAlarm") == {}


def test_a_policy_grants_on_these_queues_what_the_first_template_grants_on_its_own() -> None:
    """To the same roles; and nothing on anything else. (That those are the calls is shown where they are made.)"""
    mine, its = (each.resources("AWS::IAM::ManagedPolicy") for each in (source(**NAMES), first(**NAMES)))
    assert mine.keys() == its.keys()
    for name, policy in mine.items():
        assert granted(policy) == {each for each in granted(its[name]) if each[1].partition(".")[0] in QUEUES}
        assert policy.get("Roles") == its[name].get("Roles")


def granted(policy: dict[str, Any]) -> set[tuple[str, str]]:
    return {
        (action, resource)
        for statement in policy["PolicyDocument"]["Statement"]
        for action in statement["Action"]
        for resource in (statement["Resource"] if isinstance(statement["Resource"], list) else [statement["Resource"]])
    }


def test_answers_go_to_the_first_post_queue_where_there_is_no_other() -> None:
    """Then nothing is granted on one, and the table leaves it to the settings at the top."""
    shared = source()
    assert set(shared.resources("AWS::SQS::Queue")) == {"SourceQueue", "DeadLetterQueue"}
    policies = shared.resources("AWS::IAM::ManagedPolicy")
    assert set(policies) == {"ServicePolicy", "ProducerPolicy", "OperatorPolicy"}
    assert not any("PostQueue" in resource for policy in policies.values() for _action, resource in granted(policy))
    assert json.loads(shared.value(template["Outputs"]["Sources"]["Value"])) == {
        "game2": {"dead_letter_queue": "game2DLQ"}
    }


@pytest.mark.parametrize(("one", "other"), list(combinations(NAMES, 2)))
def test_no_two_queues_can_share_a_name(one: str, other: str) -> None:
    """The stack is refused with the reason before anything is created."""
    (fault,) = source(**{**NAMES, one: "same", other: "same"}).faults()
    assert one in fault
    assert other in fault


def names(parameter: str) -> st.SearchStrategy[str]:
    return st.from_regex(re.compile(parameters[parameter]["AllowedPattern"], re.ASCII), fullmatch=True)


@given(
    queues=st.tuples(*map(names, NAMES)).filter(lambda queues: len({*queues, f"{queues[0]}DLQ"}) == 4),
    queue_type=st.sampled_from(parameters["QueueType"]["AllowedValues"]),
)
def test_what_the_template_accepts_the_settings_accept(queues: tuple[str, ...], queue_type: str) -> None:
    """The table that a stack tells is one, whatever was left to it."""
    given = dict(zip(NAMES, queues, strict=True))
    mine = source(**given, QueueType=queue_type)
    sources = json.loads(mine.value(template["Outputs"]["Sources"]["Value"]))
    settings = Settings(backend="aws", bundle_ids=("com.example.game",), sources=sources)
    of_source = settings.of_source(settings.source_queues[1])
    made = mine.resources("AWS::SQS::Queue")
    assert of_source.source_queue == made["SourceQueue"]["QueueName"]
    assert of_source.dead_letter_queue == made["DeadLetterQueue"]["QueueName"]
    assert of_source.post_queues == (made["PostQueue"]["QueueName"] if "PostQueue" in made else "ResultsSQS",)


@pytest.mark.parametrize("name", ["SourceQueueAge", "DeadLetterDepth", "HeartbeatMissing", "SiteDown"])
def test_every_alarm_says_which_queue_it_is_about_and_where_to_read_of_it(name: str) -> None:
    """In the same section of the runbook as that of the first queue."""
    resolved = source(RunbookUrl="https://wiki.example.com/runbook.html")
    (alarm,) = [each[name] for kind in KINDS[2:] if name in (each := resolved.resources(kind))]
    suffix = alarm["AlarmName"].removeprefix("receipts-")
    assert "game2" in alarm["AlarmDescription"]
    assert f"https://wiki.example.com/runbook.html#alarm-{suffix}" in alarm["AlarmDescription"]
    assert f".. _alarm-{suffix}:\n" in (DOC / "runbook.rst").read_text(encoding="utf-8")


@pytest.mark.parametrize("queues", [NAMES, {"SourceQueueName": "game2"}], ids=["own answers", "shared answers"])
@pytest.mark.parametrize("minutes", [0, 3])
def test_the_page_shows_what_there_is_to_see_of_one_queue(queues: dict[str, str], minutes: int) -> None:
    """Its alarms, its queues, and of the program's metrics those that it tells of each queue; none is shown elsewhere.

    Its widgets stand beside one another, within the 24 columns of a page.
    """
    resolved = source(**queues, HeartbeatMinutes=minutes)
    (dashboard,) = resolved.resources("AWS::CloudWatch::Dashboard").values()
    page = Page(dashboard["DashboardBody"])
    assert dashboard["DashboardName"] == "receipts"
    assert page.source_queues == {"game2"}
    assert page.queues == {queue["QueueName"] for queue in resolved.resources("AWS::SQS::Queue").values()}
    looked_at = overview_of(1, source_queues=("first", "game2"))
    _, of_game2 = embedded_metrics(looked_at, looked_at)
    assert page.written == {each["Name"] for each in of_game2["_aws"]["CloudWatchMetrics"][0]["Metrics"]}
    made = [each for kind in KINDS[2:] for each in resolved.resources(kind).values()]
    assert page.alarms == alarm_arns("receipts", *(each["AlarmName"].removeprefix("receipts-") for each in made))
    taken = [(x, y) for left, top, w, h in page.places for x in range(left, left + w) for y in range(top, top + h)]
    assert len(taken) == len(set(taken))
    assert max(x for x, _y in taken) < 24


def test_the_manual_lists_every_parameter_with_its_default() -> None:
    """The table of the manual is the template's, row by row."""
    manual = (DOC / "deploy-aws.rst").read_text(encoding="utf-8")
    _, _, about_sources = manual.partition("A further source queue\n")
    about_sources, _, _ = about_sources.partition("Anywhere else\n")
    rows = re.findall(r"^``(\w+)``\s+(?:``(\S+)``|none|required)", about_sources, re.MULTILINE)
    assert rows == [(name, str(each.get("Default", ""))) for name, each in parameters.items()]


def test_what_is_imported_is_exported() -> None:
    """By the first template for the others, by this one for the service; nothing is exported that nobody imports."""
    texts = [file.read_text(encoding="utf-8") for file in (SERVICE_TEMPLATE, SOURCE_TEMPLATE)]
    imported = {name for text in texts for name in re.findall(r"\$\{ReceiptsStack\}-(\w+)", text)}
    assert {f"receipts-{name}" for name in imported} == set(first().exports())
    from_sources = set(re.findall(r"\$\{stack\}-(\w+)", texts[0]))
    assert {f"receipts-{name}" for name in from_sources} == set(source().exports())
