"""``receipt-actors config``: every setting in force, where it came from, and no secret."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from receipt_actors.cli.config import _toml_value
from receipt_actors.settings import SETTINGS, load_settings

from .conftest import BUNDLE_ID, Ended

Cli = Callable[..., Ended]
LAYERS = ["--bundle-ids", BUNDLE_ID, "--config", "receipts.toml"]


@pytest.fixture(autouse=True)
def layers(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file, variables, and a sign of a backend."""
    Path("receipts.toml").write_text('consumers = 2\nmax_in_flight = 7\npost_queues = ["A", "B"]\n')
    monkeypatch.setenv("RECEIPT_ACTORS_MAX_IN_FLIGHT", "9")
    monkeypatch.setenv("RECEIPT_ACTORS_SHARED_SECRET", "hush-hush")
    monkeypatch.setenv("AWS_REGION", "eu-west-1")


EXPECTED = {
    "bundle_ids": ([BUNDLE_ID], "--bundle-ids"),
    "consumers": (2, "consumers in receipts.toml"),
    "max_in_flight": (9, "RECEIPT_ACTORS_MAX_IN_FLIGHT"),
    "post_queues": (["A", "B"], "post_queues in receipts.toml"),
    "backend": ("aws", "chosen because post_queues is given"),
    "database": (None, "default"),
    "environments": (["Production"], "default"),
    "drain_seconds": (25, "default"),
}


def test_json_has_value_and_source_of_every_setting(cli: Cli) -> None:
    ended = cli("config", *LAYERS, "--json")
    assert (ended.code, ended.err) == (0, "")
    settings = json.loads(ended.out)
    assert list(settings) == list(SETTINGS)
    for name, (value, source) in EXPECTED.items():
        assert settings[name] == {"value": value, "source": source}
    assert "hush" not in ended.out
    assert settings["shared_secret"] == {"value": "**********", "source": "RECEIPT_ACTORS_SHARED_SECRET"}


def test_people_get_a_line_for_every_setting(cli: Cli) -> None:
    out = cli("config", *LAYERS).out
    assert "hush" not in out
    lines = out.splitlines()
    assert [line.split()[0] for line in lines] == list(SETTINGS)
    told = {line.split()[0]: " ".join(line.split()[1:]) for line in lines}
    assert told["post_queues"] == "A,B (post_queues in receipts.toml)"
    assert told["database"] == "- (default)"


def test_toml_can_be_fed_back(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    before = load_settings({"bundle_ids": BUNDLE_ID}, config=Path("receipts.toml"))
    ended = cli("config", *LAYERS, "--toml")
    assert {"consumers = 2", "#drain_seconds = 25.0", "#database ="} <= set(ended.out.splitlines())
    assert "hush" not in ended.out
    Path("again.toml").write_text(ended.out)
    for name in ("RECEIPT_ACTORS_MAX_IN_FLIGHT", "RECEIPT_ACTORS_SHARED_SECRET", "AWS_REGION"):
        monkeypatch.delenv(name)
    again = load_settings({}, config=Path("again.toml"))
    assert again.model_dump() == before.model_dump() | {"shared_secret": None}
    for setting in SETTINGS.values():
        assert f"# {setting.description}\n" in ended.out
        assert f"{setting.name} =" in ended.out


def test_faults_are_told_as_by_start(cli: Cli) -> None:
    flags = ["--consumers", "many", "--drain-seconds", "0"]
    ended = cli("config", *flags)
    assert (ended.code, ended.out) == (2, "")
    assert len(ended.err.splitlines()) == 3  # and bundle_ids
    assert ended.err == cli("start", *flags).err


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_any_text_is_written_as_toml_reads_it(text: str) -> None:
    assert tomllib.loads(f"value = {_toml_value(text)}") == {"value": text}
    assert tomllib.loads(f"value = {_toml_value([text, text])}") == {"value": [text, text]}
