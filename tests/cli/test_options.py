"""The command line's frame: the group that finds its commands, the flags of the settings, the exit codes."""

from __future__ import annotations

import errno
import re
from collections.abc import Mapping
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

import receipt_actors.cli
from receipt_actors.cli import main, run
from receipt_actors.cli.options import options_of, settings_options
from receipt_actors.errors import ConfigurationError, LedgerUnavailable, QueueRefused
from receipt_actors.settings import SETTINGS, QueueSettings


class TestCommands:
    def test_help_lists_every_command(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["strat"]) == 2
        assert main(["--help"]) == 0
        listed = capsys.readouterr().out
        for name in receipt_actors.cli.COMMANDS:
            assert re.search(rf"^  {name} +[A-Z]", listed, re.MULTILINE)

    @pytest.mark.parametrize("name", receipt_actors.cli.REMOVED)
    def test_a_command_that_is_gone_says_what_does_it_now(self, name: str, capsys: pytest.CaptureFixture[str]) -> None:
        assert main([name, "--json", "x"]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        command, flag, *_ = line.partition("is now: receipt-actors ")[2].split()
        assert main([command, "--help"]) == 0
        assert flag in capsys.readouterr().out


@click.command()
@settings_options
@click.option("--verbose", is_flag=True)
def show(flags: Mapping[str, object], config: Path | None, verbose: bool) -> None:
    """Print what came in."""
    click.echo(repr((dict(flags), config, verbose)))


def shown(command: click.Command) -> list[str | None]:
    """Name the options that the help text has, in its order."""
    return [each.name for each in command.params if isinstance(each, click.Option) and not each.hidden]


class TestSettingsOptions:
    def test_only_flags_that_were_given_are_passed(self) -> None:
        arguments = "--consumers many --post-queues= --exit-when-idle 3 --config a.toml --verbose"
        result = CliRunner().invoke(show, arguments)
        given = {"post_queues": "", "consumers": "many", "exit_when_idle_seconds": "3"}
        assert result.output == repr((given, Path("a.toml"), True)) + "\n"
        assert CliRunner().invoke(show, []).output == "({}, None, False)\n"

    def test_every_setting_has_its_flag_with_default_and_variable(self) -> None:
        result = CliRunner().invoke(show, ["--help"], terminal_width=400)
        help_text = " ".join(result.output.split())
        for setting in SETTINGS.values():
            default = "required; " if setting.required else f"default: {setting.default}; " if setting.default else ""
            assert f"{setting.flag} " in help_text
            assert f"{setting.description} [{setting.expected}; {default}{setting.variable}]" in help_text
        assert "--drain-seconds SECONDS" in help_text
        assert "--config PATH TOML file with settings. [a path; RECEIPT_ACTORS_CONFIG]" in help_text

    def test_a_flag_that_was_removed_is_left_to_the_settings(self) -> None:
        assert CliRunner().invoke(show, "--batch-requests 2").output.startswith("({'batch_requests': '2'}, ")
        assert "--batch-requests" not in CliRunner().invoke(show, ["--help"]).output

    def test_a_command_may_have_the_flags_of_a_part_only(self) -> None:

        @click.command()
        @options_of(QueueSettings)
        def part(flags: Mapping[str, object], config: Path | None) -> None:
            click.echo(repr((dict(flags), config)))

        assert shown(show) == ["config", *SETTINGS, "verbose"]
        assert shown(part) == ["config", *QueueSettings.model_fields]
        result = CliRunner().invoke(part, ["--source-queue", "Q"])
        assert result.output == "({'source_queue': 'Q'}, None)\n"


class TestExitCodes:
    @pytest.mark.parametrize(
        ("error", "line"),
        [
            (LedgerUnavailable("no answer within 5 s"), "no answer within 5 s"),
            (QueueRefused("ReceiptsSQS", "it does not exist"), "queue 'ReceiptsSQS': it does not exist"),
            (ConfigurationError(["--a: found 1, expected 2"]), "receipt-actors: --a: found 1, expected 2"),
            (OSError(errno.EADDRINUSE, "Address already in use"), "[Errno 98] Address already in use"),
        ],
    )
    def test_a_failing_world_ends_with_1_and_one_line_and_wrong_settings_with_2(
        self, error: Exception, line: str, capsys: pytest.CaptureFixture[str]
    ) -> None:

        def body() -> None:
            raise error

        assert run(body) == (2 if isinstance(error, ConfigurationError) else 1)
        assert capsys.readouterr().err.endswith(f"{line}\n")

    @pytest.mark.parametrize(
        ("result", "code"), [(None, 0), (0, 0), (7, 7), ("text", 0)], ids=["nothing", "zero", "seven", "no integer"]
    )
    def test_an_integer_is_the_exit_code(self, result: object, code: int) -> None:
        assert run(lambda: result) == code

    @pytest.mark.parametrize("error", [KeyboardInterrupt, click.Abort])
    def test_an_interrupt_ends_with_130(self, error: type[BaseException]) -> None:
        def body() -> None:
            raise error

        assert run(body) == 130

    def test_a_bug_keeps_its_traceback(self) -> None:

        def body() -> None:
            raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            run(body)
