"""The command ``receipt-actors``: finds its sub-commands, runs one, and ends with a code that scripts can rely on.

0: done. 1: the world failed (a service, a file, a closed pipe). 2: wrong usage or settings; every fault stands on
stderr, one a line. 130: interrupted (128 + SIGINT). Anything else is a bug, and keeps its traceback.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import click

from receipt_actors.errors import ConfigurationError, ReceiptActorsError, StartAbandoned

PROGRAM = "receipt-actors"
EXIT_DONE = 0
EXIT_WORLD_FAILED = 1
EXIT_USAGE = 2
EXIT_INTERRUPTED = 130


_NAMES = (
    *("app-store", "bench", "config", "demo", "notifications", "pause", "plan", "redrive", "results", "start"),
    *("status", "submit", "trace", "verify"),
)
#: Each sub-command: its module here, and its name there.
COMMANDS: Final[Mapping[str, tuple[str, str]]] = {
    **{name: (name.replace("-", "_"), "command") for name in _NAMES},
    "resume": ("pause", "resume"),
}
REMOVED: Final[Mapping[str, str]] = {"state": "status --actor NAME", "top": "status --live", "tree": "status --tree"}


class Commands(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, name = COMMANDS[cmd_name]
        command: click.Command = getattr(importlib.import_module(f"{__name__}.{module}"), name)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Refuse a name that was a command, and say what does the same now."""
        if args[0] in REMOVED:
            raise ConfigurationError([f"{args[0]} is now: {PROGRAM} {REMOVED[args[0]]}"])
        return super().resolve_command(ctx, args)


@click.group(
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100, "show_default": True},
    epilog="""\b
Examples:
  # see it work, on this machine alone
  receipt-actors demo
  # one machine: queues and claims in a SQLite file
  receipt-actors start --database receipts.db --bundle-ids com.example.game
  # on AWS: SQS and DynamoDB
  AWS_REGION=eu-west-1 receipt-actors start --bundle-ids com.example.game
""",
)
@click.version_option(package_name=PROGRAM, prog_name=PROGRAM)
def cli() -> None:
    """Validate the App Store receipts of a queue, once each, and post the verdicts."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line (default: this process's own) and return the exit code."""
    _fill_standard_streams()
    return run(lambda: cli.main(args=arguments, prog_name=PROGRAM, standalone_mode=False))


def run(body: Callable[[], object]) -> int:
    """Call ``body``; return the integer that it returns, or the code of how it ended, with one line an error."""
    try:
        result = body()
        sys.stdout.flush()  # here, where a closed pipe is told from a bug, not when the interpreter ends
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except ConfigurationError as error:
        for fault in error.faults:
            complain(fault)
        return EXIT_USAGE
    except (click.Abort, KeyboardInterrupt):
        return EXIT_INTERRUPTED
    except StartAbandoned:  # by a signal that means a drain, and there was nothing to be drained
        return EXIT_DONE
    except BrokenPipeError:
        _discard_output()
        return EXIT_WORLD_FAILED
    except (ReceiptActorsError, OSError) as error:
        complain(str(error))
        return EXIT_WORLD_FAILED
    return result if isinstance(result, int) else EXIT_DONE


def complain(text: str) -> None:
    click.echo(f"{PROGRAM}: {text}", err=True)


def _fill_standard_streams() -> None:
    """Replace standard streams that the parent process has closed; worker processes inherit the replacements.

    The next file that is opened would get the number, and output would go into the database. Reading finds nothing and
    complaints are lost, but *printing* fails: an answer without a reader must not count as written.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            if name == "stdout":
                reader, stand_in = os.pipe()
                os.close(reader)
            else:
                stand_in = os.open(os.devnull, os.O_RDWR)
            if stand_in == number:
                os.set_inheritable(number, True)
            else:
                os.dup2(stand_in, number)
                os.close(stand_in)
            setattr(sys, name, os.fdopen(number, "r" if name == "stdin" else "w", closefd=False))


def _discard_output() -> None:
    """Send what is still buffered nowhere: the reader is gone, and the interpreter flushes once more at its end."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, sys.stdout.fileno())
    os.close(null)
