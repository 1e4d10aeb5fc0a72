"""Every command against bad input: a clear word on stderr and code 1 or 2, never a traceback, never a wrong success.

The commands are discovered. One that is new has to be entered below, or the first test fails.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import click
import pytest

from receipt_actors.cli import cli as group
from receipt_actors.domain.ports import OutgoingMessage
from receipt_actors.sandbox.app_store import SimulatedAppStore
from receipt_actors.sandbox.receipts import Purchase, SampleReceipt, mint
from tests.ports import reserved_port

from .conftest import BUNDLE_ID, RESULTS, SOURCE, TABLE, AwsWorld, EmbeddedWorld, Ended, Processes

Cli = Callable[..., Ended]

_CONTEXT = click.Context(group)
COMMANDS: dict[str, click.Command] = {}
for _name in group.list_commands(_CONTEXT):
    _command = group.get_command(_CONTEXT, _name)
    assert _command is not None
    COMMANDS[_name] = _command

#: What makes each command do its work, given a backend. "receipt.txt" and "messages.jsonl" are there.
WORK: Mapping[str, tuple[str, ...]] = {
    "app-store": ("--port", "0"),
    "bench": ("--messages", "20", "--no-latency", "--no-tls"),
    "config": ("--bundle-ids", BUNDLE_ID),
    "demo": ("--messages", "20", "--apple-latency", "0"),
    "notifications": ("--bundle-ids", BUNDLE_ID, "--port", "0"),
    "plan": ("--rate", "100000/min"),
    "redrive": ("--all",),
    "results": (),
    "start": ("--bundle-ids", BUNDLE_ID, "--exit-when-idle", "0"),
    "submit": ("--file", "messages.jsonl"),
    "verify": ("--bundle-ids", BUNDLE_ID, "--look-up", "--receipt-file", "receipt.txt"),
    # These look at a running system: see test_admin_client and test_admin_commands.
    "pause": (),
    "resume": (),
    "status": (),
    "trace": (),
}
USES_QUEUES = ("redrive", "results", "start", "submit")
ASKS_A_SYSTEM = ("pause", "resume", "status", "trace")
USES_BACKEND = (*USES_QUEUES, "notifications", "verify")
TAKES_SETTINGS = tuple(
    name for name, command in COMMANDS.items() if any(each.name == "config" for each in command.params)
)

#: Text that no option of these types takes.
NONSENSE = {"integer": "1.5", "integer range": "-1", "float": "much", "float range": "-1", "choice": "nonsense"}


@pytest.fixture(autouse=True)
def files(tmp_path: Path) -> None:
    receipt = mint(SampleReceipt(BUNDLE_ID, (Purchase("1000"),)))
    (tmp_path / "receipt.txt").write_text(receipt)
    body = {"receipt": receipt, "user_id": 1, "post_queue": RESULTS}
    (tmp_path / "messages.jsonl").write_text(json.dumps(body) + "\n")


def assert_told(ended: Ended, code: int, *words: str) -> None:
    """One or more lines that a person can read, with what is wrong among them."""
    assert ended.code == code, ended
    assert "Traceback" not in ended.err
    for word in words:
        assert word in ended.err


def assert_one_line(ended: Ended, code: int, *words: str) -> None:
    assert_told(ended, code, *words)
    assert ended.out == ""
    (line,) = ended.err.splitlines()
    assert line.startswith("receipt-actors: ")


def options(*types: str) -> list[tuple[str, str, str]]:
    """Find the options of these types, whose values click itself checks: command, flag, and a value that is wrong."""
    return [
        (name, parameter.opts[0], NONSENSE[parameter.type.name])
        for name, command in COMMANDS.items()
        for parameter in command.params
        if isinstance(parameter, click.Option) and not parameter.is_flag and parameter.type.name in types
    ]


def test_every_command_is_entered_here() -> None:
    assert set(COMMANDS) == set(WORK)
    assert set(TAKES_SETTINGS) == {*USES_BACKEND, "config"}


class TestUsage:
    @pytest.mark.parametrize("name", COMMANDS)
    def test_an_unknown_flag(self, cli: Cli, name: str) -> None:
        ended = cli(name, *WORK[name], "--no-such-flag")
        assert_told(ended, 2, "--no-such-flag", f"Usage: receipt-actors {name}")
        assert ended.out == ""

    @pytest.mark.parametrize("name", COMMANDS)
    def test_an_argument_too_many(self, cli: Cli, name: str) -> None:
        assert_told(cli(name, *WORK[name], "one", "two"), 2, "Usage: ")

    @pytest.mark.parametrize(("name", "flag", "value"), options(*NONSENSE))
    def test_a_value_of_the_wrong_type(self, cli: Cli, name: str, flag: str, value: str) -> None:
        assert_told(cli(name, *WORK[name], flag, value), 2, flag, value)

    @pytest.mark.parametrize(("name", "flag"), [each[:2] for each in options("float", "float range")])
    @pytest.mark.parametrize("value", ["nan", "1e999"])
    def test_a_number_that_is_not_finite(self, cli: Cli, name: str, flag: str, value: str) -> None:
        assert_told(cli(name, *WORK[name], flag, value), 2, flag)

    @pytest.mark.parametrize("name", TAKES_SETTINGS)
    def test_settings_that_cannot_work(self, cli: Cli, name: str) -> None:
        Path("bad.toml").write_text("max_receive_cuont = 3\n")
        flags = ["--database", "", "--backend", "cloud", "--config", "bad.toml"]
        ended = cli(name, *WORK[name], *flags)
        assert_told(ended, 2, "max_receive_cuont in bad.toml", "--backend: found 'cloud'")
        assert all(line.startswith("receipt-actors: ") for line in ended.err.splitlines())

    @pytest.mark.parametrize("name", ["config", "start"])
    @pytest.mark.parametrize("file", ["missing.toml", ".", "binary.toml"])
    def test_a_settings_file_that_cannot_be_read(self, cli: Cli, name: str, file: str) -> None:
        Path("binary.toml").write_bytes(b"\xff\x00")
        ended = cli(name, *WORK[name], "--database", "receipts.db", "--config", file)
        assert_told(ended, 2, f"--config: found '{file}'")

    @pytest.mark.parametrize("name", USES_BACKEND)
    def test_no_sign_of_a_backend(self, cli: Cli, name: str) -> None:
        assert_one_line(cli(name, *WORK[name]), 2, "give database (a path)", "backend aws")


class TestFiles:
    @pytest.mark.parametrize("name", ["submit", "verify"])
    @pytest.mark.parametrize("path", ["missing.txt", "."])
    def test_an_input_file_that_cannot_be_read(self, cli: Cli, embedded: EmbeddedWorld, name: str, path: str) -> None:
        flags = [path if each in ("messages.jsonl", "receipt.txt") else each for each in WORK[name]]
        assert_one_line(cli(name, *embedded.flags, *flags), 1, f"'{path}'")

    @pytest.mark.parametrize("name", USES_BACKEND)
    def test_a_database_that_is_a_directory(self, cli: Cli, tmp_path: Path, name: str) -> None:
        assert_one_line(cli(name, *WORK[name], "--database", tmp_path), 2, f"{tmp_path}: it is a directory")

    @pytest.mark.parametrize("name", USES_BACKEND)
    def test_a_database_that_is_none(self, cli: Cli, name: str) -> None:
        contents = b"dear diary, " * 500
        Path("diary.txt").write_bytes(contents)
        assert_one_line(cli(name, *WORK[name], "--database", "diary.txt"), 2, "diary.txt: the file is not an SQLite")
        assert Path("diary.txt").read_bytes() == contents

    @pytest.mark.parametrize("name", USES_BACKEND)
    def test_a_database_in_a_folder_that_is_missing(self, cli: Cli, name: str) -> None:
        assert_one_line(cli(name, *WORK[name], "--database", "missing/receipts.db"), 2, "there is no directory missing")
        assert not Path("missing").exists()

    @pytest.mark.parametrize("name", ["redrive", "results", "verify"])
    def test_a_database_that_is_not_there_is_not_made_by_commands_that_read(self, cli: Cli, name: str) -> None:
        assert_one_line(cli(name, *WORK[name], "--database", "recipts.db"), 2, "recipts.db: found no file")
        assert not Path("recipts.db").exists()


@pytest.fixture
def nobody() -> Iterator[str]:
    """URL of a port at which nobody listens."""
    with reserved_port() as port:
        yield f"http://127.0.0.1:{port}"


class TestWorld:
    @pytest.mark.parametrize("name", ["redrive", "results", "submit", "verify"])  # the others wait for half a minute
    def test_aws_cannot_be_reached(
        self, cli: Cli, empty_account: AwsWorld, nobody: str, monkeypatch: pytest.MonkeyPatch, name: str
    ) -> None:
        monkeypatch.setenv("AWS_ENDPOINT_URL", nobody)
        ended = cli(name, *WORK[name])
        assert_told(ended, 1, nobody)
        assert ended.out == ""

    @pytest.mark.parametrize("name", USES_BACKEND)
    def test_aws_without_a_region(
        self, cli: Cli, empty_account: AwsWorld, monkeypatch: pytest.MonkeyPatch, name: str
    ) -> None:
        monkeypatch.delenv("AWS_REGION")
        assert_one_line(cli(name, *WORK[name]), 2, "set AWS_REGION")

    @pytest.mark.usefixtures("empty_account")
    @pytest.mark.parametrize("name", USES_QUEUES)
    def test_a_queue_that_does_not_exist_on_aws(self, cli: Cli, name: str) -> None:
        assert_one_line(cli(name, *WORK[name]), 1, RESULTS if name == "results" else SOURCE)

    @pytest.mark.parametrize("name", ["redrive", "results"])
    def test_a_queue_that_does_not_exist_in_the_database(self, cli: Cli, embedded: EmbeddedWorld, name: str) -> None:
        flags = ["--source-queue", "Nowhere", "--post-queues", "Nowhere2"]
        assert_one_line(cli(name, *embedded.flags, *WORK[name], *flags), 1, "'Nowhere")

    @pytest.mark.parametrize("name", ["redrive", "results", "submit"])
    def test_a_queue_name_that_is_none(self, cli: Cli, name: str) -> None:
        flags = ["--backend", "aws", "--source-queue", "https://sqs.eu-west-1.amazonaws.com/1/Receipts"]
        assert_one_line(cli(name, *WORK[name], *flags), 2, "try 'Receipts'")

    @pytest.mark.usefixtures("empty_account")
    def test_a_table_that_does_not_exist(self, cli: Cli) -> None:
        assert_one_line(cli("verify", *WORK["verify"]), 1, TABLE)

    def test_an_app_store_that_cannot_be_reached(self, cli: Cli, nobody: str) -> None:
        flags = ["--bundle-ids", "*", "--app-store-url", nobody]
        assert_one_line(cli("verify", *flags, "TUlJ"), 1, "Production App Store gave no answer")


class TestClosedPipe:
    @pytest.mark.parametrize("name", ["start", "status"])
    def test_help_without_a_reader(self, processes: Processes, name: str) -> None:
        assert processes.run_without_reader(name, "--help") == Ended(1, "", "")

    @pytest.mark.parametrize(
        "name", [name for name in COMMANDS if name not in ("app-store", "notifications", "start", *ASKS_A_SYSTEM)]
    )
    def test_work_without_a_reader(
        self, processes: Processes, embedded: EmbeddedWorld, store: SimulatedAppStore, name: str
    ) -> None:
        embedded.send(RESULTS, OutgoingMessage('{"user_id": 1, "transaction_id": "1", "status": "OK"}'))
        world = embedded.flags if name in TAKES_SETTINGS else ()
        apple = ("--app-store-url", store.url) if name == "verify" else ()
        assert processes.run_without_reader(name, *world, *WORK[name], *apple) == Ended(1, "", "")

    def test_start_has_nothing_to_write(self, processes: Processes, embedded: EmbeddedWorld) -> None:
        assert processes.run_without_reader("start", *embedded.flags, *WORK["start"]).code == 0
