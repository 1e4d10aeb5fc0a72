"""Bad input to every command: one clear line (or a list), exit code 2 for usage and settings, 1 for the world."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import click
import pytest

from receipt_actors.cli import cli as program

from .conftest import BUNDLE_ID, RESULTS, AwsWorld, Ended, Processes

Cli = Callable[..., Ended]
COMMANDS = tuple(program.list_commands(click.Context(program)))
#: What each command needs besides settings, to get as far as the world; demo, app-store and config never do.
ARGUMENTS: dict[str, tuple[str, ...]] = {
    "start": ("--bundle-ids", BUNDLE_ID),
    "submit": ("--file", "good.jsonl"),
    "results": (),
    "redrive": (),
    "verify": ("--look-up", "--bundle-ids", BUNDLE_ID, "MIIB"),
}
WITHOUT_WORLD = {"demo", "app-store", "config"}
GOOD_LINE = f'{{"receipt": "MIIB", "user_id": 42, "post_queue": "{RESULTS}"}}\n'


def test_every_command_is_walked() -> None:
    """A command that is added later has to be added here too."""
    assert set(COMMANDS) == set(ARGUMENTS) | WITHOUT_WORLD


@pytest.fixture(autouse=True)
def good_file(tmp_path: Path) -> None:
    (tmp_path / "good.jsonl").write_text(GOOD_LINE, encoding="utf-8")


def assert_told(ended: Ended, code: int, said: str) -> None:
    """It ended with the code and a line that says what was wrong; nobody has to read a traceback."""
    assert ended.code == code, ended
    assert "Traceback" not in ended.err
    assert re.search(said, ended.err), ended.err


@pytest.mark.parametrize("command", COMMANDS)
def test_a_flag_that_does_not_exist(cli: Cli, command: str) -> None:
    """Usage: exit code 2, and the flag is named."""
    assert_told(cli(command, "--no-such-flag"), 2, "--no-such-flag")


@pytest.mark.parametrize("command", COMMANDS)
def test_an_argument_too_many(cli: Cli, command: str) -> None:
    """Usage: exit code 2."""
    assert_told(cli(command, "one", "two"), 2, "one|two")


@pytest.mark.parametrize("command", sorted(set(COMMANDS) - {"demo", "app-store"}))
def test_a_settings_file_that_is_not_there_or_no_toml(cli: Cli, command: str, tmp_path: Path) -> None:
    """Settings: exit code 2, and the file is named."""
    arguments = ARGUMENTS.get(command, ())
    assert_told(cli(command, *arguments, "--config", "nowhere.toml"), 2, "nowhere.toml")
    (tmp_path / "broken.toml").write_text("consumers = = 4\n", encoding="utf-8")
    assert_told(cli(command, *arguments, "--config", "broken.toml"), 2, "broken.toml")
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x00")
    assert_told(cli(command, *arguments, "--config", "binary.toml"), 2, "binary.toml")


@pytest.mark.parametrize("command", sorted(ARGUMENTS))
@pytest.mark.parametrize("kind", ["a directory", "no database", "in a missing folder"])
def test_a_database_that_cannot_be_one(cli: Cli, command: str, kind: str, tmp_path: Path) -> None:
    """Settings: exit code 2, and the path is named."""
    path = tmp_path / "odd.db"
    match kind:
        case "a directory":
            path.mkdir()
        case "no database":
            path.write_text("not a database, but a text that is long enough to be read as a header " * 9)
        case _:
            path = tmp_path / "missing" / "odd.db"
    assert_told(cli(command, *ARGUMENTS[command], "--database", path), 2, r"odd\.db")


@pytest.mark.parametrize("command", sorted(ARGUMENTS))
def test_an_endpoint_that_nobody_answers_on(cli: Cli, command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The world: exit code 1, and the address is named."""
    for name, value in (("ENDPOINT_URL", "http://127.0.0.1:1"), ("REGION", "eu-west-1")):
        monkeypatch.setenv(f"AWS_{name}", value)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    assert_told(cli(command, *ARGUMENTS[command]), 1, r"127\.0\.0\.1:1")


@pytest.mark.parametrize("command", sorted(ARGUMENTS))
def test_an_account_without_queues_and_table(cli: Cli, command: str, empty_account: AwsWorld) -> None:
    """The world: exit code 1, and what is missing is named."""
    missing = "TransactionIdTable" if command == "verify" else RESULTS if command == "results" else "ReceiptsSQS"
    assert_told(cli(command, *ARGUMENTS[command]), 1, missing)


@pytest.mark.parametrize(
    "arguments",
    [
        ("submit", "--database", "r.db", "--file", "nowhere.jsonl"),
        ("submit", "--database", "r.db", "--user-id", "42", "--receipt-file", "nowhere.txt"),
        ("verify", "--bundle-ids", BUNDLE_ID, "--receipt-file", "nowhere.txt"),
    ],
    ids=" ".join,
)
def test_a_file_that_is_not_there(cli: Cli, arguments: tuple[str, ...]) -> None:
    """The world: exit code 1, and the file is named; nothing is sent."""
    assert_told(cli(*arguments), 1, r"nowhere\.(jsonl|txt)")


def test_settings_that_cannot_work_are_all_told(cli: Cli) -> None:
    """One line a fault, whichever command reads them."""
    for command in ("start", "config"):
        ended = cli(command, "--consumers", "none", "--visibility-timeout-seconds", "1", "--source-queue", "https://q")
        assert_told(ended, 2, "consumers")
        assert_told(ended, 2, "visibility")
        assert_told(ended, 2, "a name, not a URL")


@pytest.mark.parametrize(
    "arguments", [("config", "--database", "r.db", "--bundle-ids", BUNDLE_ID), ("app-store", "--port", "0")]
)
def test_a_reader_who_leaves(processes: Processes, arguments: tuple[str, ...]) -> None:
    """A closed pipe ends the command with code 1 and without a word."""
    ended = processes.run_without_reader(*arguments)
    assert (ended.code, ended.err) == (1, "")
