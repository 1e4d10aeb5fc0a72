"""The command ``receipt-actors``: finds its sub-commands, runs one, and ends with a code that scripts can rely on.

A sub-command ``dead-letters`` is a module ``receipt_actors.cli.dead_letters`` with a ``click.Command`` named
``command``; it is imported when it is asked for, and no list has to be kept.

======  ==============================================================
code    meaning
======  ==============================================================
0       done
1       the world failed: a service, a file, a closed pipe
2       wrong usage or settings; every fault stands on stderr, one a line
130     interrupted (128 + SIGINT)
======  ==============================================================

Anything else is a bug, and keeps its traceback.
"""

from __future__ import annotations

import importlib
import os
import pkgutil
import sys
from collections.abc import Callable, Sequence

import click

from receipt_actors.errors import ConfigurationError, ReceiptActorsError, StartAbandoned

PROGRAM = "receipt-actors"
EXIT_DONE = 0
EXIT_WORLD_FAILED = 1
EXIT_USAGE = 2
EXIT_INTERRUPTED = 130


class CommandModules(click.Group):
    """A group whose commands are the modules of this package that have a ``command``.

    A module whose name begins with an underscore is not looked into: it may need an extra.
    """

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Name every sub-command, in alphabetical order."""
        names = [module.name.replace("_", "-") for module in pkgutil.iter_modules(__path__)]
        return sorted(name for name in names if self.get_command(ctx, name))

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the one sub-command that is wanted; None where there is no such."""
        module_name = cmd_name.replace("-", "_")
        if module_name.startswith("_") or all(module.name != module_name for module in pkgutil.iter_modules(__path__)):
            return None
        command = getattr(importlib.import_module(f"{__name__}.{module_name}"), "command", None)
        return command if isinstance(command, click.Command) else None


@click.group(
    cls=CommandModules,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
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
    """Call ``body`` and turn how it ends into an exit code, with a message on stderr where it is not 0.

    An integer that ``body`` returns is the code. Errors that are to be expected end in one line each; whatever else
    is raised is a bug and passes through.
    """
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
    """Write one line to stderr, under the program's name."""
    click.echo(f"{PROGRAM}: {text}", err=True)


def _fill_standard_streams() -> None:
    """Put something in the place of standard streams that whoever started us has closed.

    Python has None there, and the next file that is opened would get the number: what is printed would go into the
    database. Nothing is read and nothing is complained; but what is *printed* fails, as into a pipe whose reader is
    gone: an answer that nobody could have read must not count as written. Worker processes inherit what is put there.
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
