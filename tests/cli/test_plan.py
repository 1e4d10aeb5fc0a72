"""``receipt-actors plan``: rates in, a plan out, for people and for programs; faults as of every command."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from typing import Any

import click
import pytest

from receipt_actors.cli.plan import read_rate
from receipt_actors.domain.capacity import Load
from receipt_actors.pipeline.batchers import PACE_SECONDS
from receipt_actors.settings import Settings, load_settings

from .conftest import BUNDLE_ID, Ended

Cli = Callable[..., Ended]


def planned(cli: Cli, *arguments: str) -> dict[str, Any]:
    ended = cli("plan", *arguments, "--json")
    assert (ended.code, ended.err) == (0, "")
    (plan,) = ended.lines
    return plan


@pytest.mark.parametrize(
    ("text", "per_second"),
    [
        ("1500/s", 1500),
        ("100_000/min", 100_000 / 60),
        ("2.5k/h", 2500 / 3600),
        ("1,000M/day", 1e9 / 86_400),
        ("2e6/s", 2e6),
        (" 1G/min ", 1e9 / 60),
    ],
)
def test_rates_are_read_as_people_write_them(text: str, per_second: float) -> None:
    assert read_rate(text) == pytest.approx(per_second)


@pytest.mark.parametrize("text", ["1500", "0/s", "-1/s", "1/fortnight", "1e99/s", "inf/s", "nan/s", "/s", "", "1 /s"])
def test_what_is_no_rate_is_refused(text: str) -> None:
    with pytest.raises(click.BadParameter, match=re.escape(f"found {text!r}, expected a number and a unit of time")):
        read_rate(text)


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        ([], "--rate"),
        (["--rate", "fast"], "found 'fast', expected a number and a unit of time"),
        (["--rate", "1/s", "--spare-tasks", "9" * 400], "--spare-tasks"),
        (["--rate", "1/s", "--apple-latency", "nan"], "--apple-latency"),
    ],
)
def test_bad_options_are_refused(cli: Cli, arguments: list[str], fault: str) -> None:
    ended = cli("plan", *arguments)
    assert (ended.code, ended.out) == (2, "")
    assert fault in ended.err


def test_people_get_an_answer_to_every_question(cli: Cli) -> None:
    ended = cli("plan", "--rate", "100000/min", "--apple-latency", "0.3")
    assert (ended.code, ended.err) == (0, "")
    assert "1,667 receipts/s. Apple takes 300 ms, DynamoDB 5 ms, SQS 10 ms." in ended.out
    words = ("tasks", "processes", "in flight", "max_in_flight", "app_store_concurrency", "consumers", "entries each")
    words += (
        "SQS receive",
        "DynamoDB claim",
        "USD a month",
        "What limits, the first first",
        "verifyReceipt",
        "not known",
    )
    assert [word for word in words if word not in ended.out] == []


def test_a_narrow_terminal_cuts_no_figure(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    for rate in ("1/day", "900G/s"):
        assert "…" not in cli("plan", "--rate", rate).out


def test_what_is_in_the_way_is_told_with_a_remedy(cli: Cli) -> None:
    small, large = cli("plan", "--rate", "10/s").out, cli("plan", "--rate", "60k/s").out
    assert "Nothing known is in the way." in small
    assert "In the way of this rate:" in large
    assert "ask AWS for a higher table-level" in large
    assert "65% of 120,000 messages" in " ".join(large.split())


def test_programs_get_the_same_with_units_in_the_names(cli: Cli) -> None:
    plan = planned(
        cli, "--rate", "60k/s", "--peak", "2", "--vcpus", "4", "--spare-tasks", "2", "--apple-limit", "3M/min"
    )
    assert plan["load"]["peak"] == 2
    assert plan["tasks"] == plan["tasks_needed"] + 2
    assert plan["processes"] == plan["tasks"] * 4 == plan["tasks"] * plan["settings"]["processes"]
    assert [each["call"] for each in plan["requests"]] == ["receive", "send", "delete", "claim"]
    assert "writes to one table, by default" in plan["exceeded"]
    assert plan["first_limit"] == plan["reached"][0]["limit"]["what"]
    apple = next(each for each in plan["reached"] if each["limit"]["what"] == "requests to verifyReceipt")
    assert apple["at_per_second"] == 50_000


BALANCED = ["--role", "load-balanced", "--apple-limit", "1000/s"]


@pytest.mark.parametrize(
    ("transport", "vcpus", "rate", "latency", "role"),
    [
        ("auto", "1", "1/day", "0.05", []),
        ("auto", "16", "5M/s", "1.3", []),
        ("threads", "2", "500/s", "1.3", BALANCED),
        ("threads", "16", "5M/s", "1.3", []),
        ("auto", "16", "5M/s", "0.05", BALANCED),
    ],
)
def test_the_settings_can_be_set(
    cli: Cli, transport: str, vcpus: str, rate: str, latency: str, role: list[str]
) -> None:
    flags = ["--transport", transport, "--apple-latency", latency, *role]
    plan = planned(cli, "--rate", rate, "--vcpus", vcpus, *flags)
    given = {name: str(value) for name, value in plan["settings"].items() if value is not None}
    others = {"transport": transport, "bundle_ids": BUNDLE_ID, "backend": "aws", "role": plan["load"]["role"]}
    load_settings({**given, **others}, environ={})


def test_the_defaults_are_those_of_start() -> None:
    load = Load(1)
    default = {name: field.default for name, field in Settings.model_fields.items()}
    for name in ("ledger_concurrency", "receive_wait_seconds"):
        assert getattr(load, name) == default[name]
    assert load.pace_seconds == PACE_SECONDS


def test_roles_are_part_of_the_plan(cli: Cli) -> None:
    printed = cli("plan", "--rate", "3000/s", "--role", "load-balanced", "--apple-limit", "3500/s").out
    assert "takes over" in printed
    assert "for all tasks together, which share it" in printed
    standby = planned(cli, "--rate", "3000/s", "--role", "active-standby")
    assert standby["exceeded"] == ["tasks that work at once, with the role active-standby"]
    assert planned(cli, "--rate", "1000/s", "--role", "active-standby")["exceeded"] == []


def test_a_measured_cpu_time_takes_the_place_of_the_default(cli: Cli) -> None:
    plan = planned(cli, "--rate", "1500/s", "--cpu-ms", "0.3")
    assert plan["cost"]["cpu_seconds"] == 0.3e-3
    assert (plan["bound_by"], plan["cores_busy"] < planned(cli, "--rate", "1500/s")["cores_busy"]) == ("CPU", True)
    assert "a machine of yours" in cli("plan", "--rate", "1500/s", "--cpu-ms", "0.41").out


def test_the_client_is_that_of_start(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pycurl", None)
    assert planned(cli, "--rate", "1500/s")["cost"]["client"] == "requests"
    assert planned(cli, "--rate", "1500/s", "--transport", "auto")["cost"]["client"] == "curl"
