"""``receipt-actors top``: a running system at a glance, again and again."""

from __future__ import annotations

import os
import select
import signal
import sys
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING

import click

from receipt_actors.cli import EXIT_DONE
from receipt_actors.cli.admin_client import AdminClient, AdminRefused, AdminUnreachable, admin_options
from receipt_actors.cli.number_types import FiniteFloatRange
from receipt_actors.cli.plain_text import echo
from receipt_actors.telemetry.overview import Overview, State

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

SHORTEST_INTERVAL_SECONDS = 0.2
LIVE_INTERVAL_SECONDS = 1.0
RATE_SECONDS = 3.0  #: that a rate is taken over at least: several processes say once a second how they are
FEWEST_ACTORS = 3
ACTORS_ON_PAPER = 20
PAPER_COLUMNS = 120
_KEYS = "q: quit, p: pause or resume"


@click.command(
    epilog="""\b
Keys:
  q   quit
  p   pause; resume where it is paused

\b
Examples:
  receipt-actors top
  # one picture, into a file or a pipe
  receipt-actors top --once > now.txt
"""
)
@click.option("--once", is_flag=True, help="Print one picture and end. So it does where stdout is no terminal.")
@click.option(
    "--interval",
    "interval_seconds",
    type=FiniteFloatRange(SHORTEST_INTERVAL_SECONDS, 3600),
    metavar="SECONDS",
    help=f"Time between two looks. [default: {LIVE_INTERVAL_SECONDS:g}; with --once, which shows rates of that time, "
    f"{RATE_SECONDS:g}]",
)
@admin_options
def command(client: AdminClient, once: bool, interval_seconds: float | None) -> int:
    """Show a running system live: rates, latencies, services, processes, the busiest actors, the last incidents."""
    from rich.console import Console  # nobody else waits for it

    is_terminal = sys.stdout.isatty()
    console = Console(width=None if is_terminal else PAPER_COLUMNS)
    if once or not is_terminal:
        _print_once(client, console, RATE_SECONDS if interval_seconds is None else interval_seconds)
    else:
        _Live(client, console, LIVE_INTERVAL_SECONDS if interval_seconds is None else interval_seconds).run()
    return EXIT_DONE


def _print_once(client: AdminClient, console: Console, interval_seconds: float) -> None:
    from receipt_actors.cli._top_picture import picture

    earlier = client.overview()
    time.sleep(interval_seconds)
    later = client.overview()
    with console.capture() as captured:
        console.print(picture(earlier, later, actors=ACTORS_ON_PAPER, columns=console.width))
    for line in captured.get().splitlines():
        echo(line.rstrip())


class _Live:
    """Draws until a key ends it. A look that fails is told above what was seen last, and tried again."""

    def __init__(self, client: AdminClient, console: Console, interval_seconds: float) -> None:
        self._client = client
        self._console = console
        self._interval_seconds = interval_seconds
        self._notice = _KEYS

    def run(self) -> None:
        from rich.live import Live

        signal.signal(signal.SIGTERM, _end)  # timeout(1), say; the terminal is left as it was
        looks = deque([self._client.overview()])  # of the last seconds; what fails at once ends the command
        with _single_keys() as keys, Live(console=self._console, screen=True, auto_refresh=False) as live:
            while True:
                live.update(self._picture(looks[0], looks[-1]), refresh=True)
                key = _key(keys, self._interval_seconds)
                if key == "q":
                    return
                try:
                    if key == "p":
                        self._pause_or_resume(looks[-1])
                    now = self._client.overview()
                    if now.at_seconds > looks[-1].at_seconds:  # else it is the same look
                        looks.append(now)
                    while len(looks) > 2 and now.at_seconds - looks[1].at_seconds >= RATE_SECONDS:
                        looks.popleft()
                    self._notice = _KEYS
                except (AdminUnreachable, AdminRefused) as error:
                    self._notice = str(error)

    def _picture(self, earlier: Overview, later: Overview) -> RenderableType:
        from receipt_actors.cli._top_picture import fixed_lines, picture

        columns = self._console.width
        actors = max(FEWEST_ACTORS, self._console.height - fixed_lines(later, columns))
        return picture(earlier, later, actors=actors, columns=columns, notice=self._notice)

    def _pause_or_resume(self, overview: Overview) -> None:
        if overview.state is State.PAUSED:
            self._client.resume()
        else:
            self._client.pause()


def _end(number: int, _frame: FrameType | None) -> None:
    sys.exit(128 + number)


@contextmanager
def _single_keys() -> Iterator[int | None]:
    """Have keys come as they are pressed; the descriptor to read them from, None where nobody presses any."""
    if not sys.stdin.isatty():
        yield None
        return
    import termios
    import tty

    descriptor = sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)
    try:
        tty.setcbreak(descriptor)
        yield descriptor
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)


def _key(descriptor: int | None, seconds: float) -> str:
    """Wait so long for a key; empty if there was none."""
    if descriptor is None:
        time.sleep(seconds)
        return ""
    readable, _, _ = select.select([descriptor], [], [], seconds)
    return os.read(descriptor, 64).decode(errors="replace")[:1] if readable else ""
