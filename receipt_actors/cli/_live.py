"""``receipt-actors status --live``: the lines of ``status``, rates and tables, again and again. It needs rich."""

from __future__ import annotations

import os
import select
import signal
import sys
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType

from rich.console import Console, Group, RenderableType
from rich.filesize import decimal
from rich.live import Live
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from receipt_actors.cli import terminal
from receipt_actors.cli.admin_client import AdminClient, AdminRefused, AdminUnreachable
from receipt_actors.cli.status import lines_of
from receipt_actors.cli.terminal import clock_time, duration, echo, number
from receipt_actors.domain.values import printable
from receipt_actors.telemetry.overview import ActorOverview, Overview, State
from receipt_actors.telemetry.statistics import StatisticsSnapshot, increase

LIVE_INTERVAL_SECONDS = 1.0
RATE_SECONDS = 3.0  #: that a rate is taken over at least: several processes report once a second
ACTORS = 20
PAPER_COLUMNS = 120
WIDE_COLUMNS = 76  #: from which rates and latencies stand side by side
_STEPS = ("verifying", "claiming", "replying", "moving", "deleting")  # as they follow each other
_COLOURS = {State.CONSUMING: "green", State.STANDBY: "cyan", State.ENDED: "red"}
_TROUBLE = "yellow"
_KEYS = "q: quit, p: pause or resume"

_Row = tuple[str | Text, ...]


def show(client: AdminClient, interval_seconds: float | None) -> None:
    is_terminal = sys.stdout.isatty()
    console = Console(width=None if is_terminal else PAPER_COLUMNS)
    if is_terminal:
        _show_until_quit(client, console, LIVE_INTERVAL_SECONDS if interval_seconds is None else interval_seconds)
        return
    earlier = client.overview()
    time.sleep(RATE_SECONDS if interval_seconds is None else interval_seconds)
    with console.capture() as captured:
        console.print(_picture(earlier, client.overview(), console.width))
    for line in captured.get().splitlines():
        echo(line.rstrip())


def _show_until_quit(client: AdminClient, console: Console, interval_seconds: float) -> None:
    """Draw until a key ends it. An error of a look stands above the last picture, and the next look tries again."""
    signal.signal(signal.SIGTERM, _end)  # timeout(1), say; the terminal is left as it was
    looks = deque([client.overview()])  # of the last seconds; what fails at once ends the command
    notice = _KEYS
    with _single_keys() as keys, Live(console=console, screen=True, auto_refresh=False) as live:
        while True:
            live.update(_picture(looks[0], looks[-1], console.width, notice), refresh=True)
            key = _key(keys, interval_seconds)
            if key == "q":
                return
            try:
                if key == "p":
                    (client.resume if looks[-1].state is State.PAUSED else client.pause)()
                now = client.overview()
                if now.at_seconds > looks[-1].at_seconds:  # else it is the same look
                    looks.append(now)
                while len(looks) > 2 and now.at_seconds - looks[1].at_seconds >= RATE_SECONDS:
                    looks.popleft()
                notice = _KEYS
            except (AdminUnreachable, AdminRefused) as error:
                notice = str(error)


def _end(number: int, _frame: FrameType | None) -> None:
    sys.exit(128 + number)


@contextmanager
def _single_keys() -> Iterator[int | None]:
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
    if descriptor is None:
        time.sleep(seconds)
        return ""
    readable, _, _ = select.select([descriptor], [], [], seconds)
    return os.read(descriptor, 64).decode(errors="replace")[:1] if readable else ""


# --- the picture ---


def _picture(earlier: Overview, later: Overview, columns: int, notice: str = "") -> RenderableType:
    """Draw everything; what a small terminal has no room for comes last."""
    seconds = later.at_seconds - earlier.at_seconds
    new = later.statistics.since(earlier.statistics)
    first, *others = lines_of(later)
    rates = _table(("messages", "per second", "in all"), _rates(new, later.statistics, seconds))
    latencies = _table(("latency", "50 %", "95 %", "99 %"), _latencies(new))
    side_by_side = Table.grid(padding=(0, 4))
    side_by_side.add_row(rates, latencies)
    parts: list[RenderableType] = [
        Text.assemble((first, f"bold {_COLOURS.get(later.state, _TROUBLE)}"), f"  {clock_time(later.at_seconds)}"),
        *map(_words, others),
        Text(printable(notice), style=_TROUBLE),
        *([side_by_side] if columns >= WIDE_COLUMNS else [rates, Text(), latencies]),
    ]
    for table in (
        _table(("service", "state", "waiting", "under way", "retries"), _services(later), 2),
        _table(("process", "state", "pid", "in flight", "CPU", "memory"), _processes(earlier, later, seconds), 2),
        _table(("busiest actor", "process", "messages/s", "mailbox", "restarts"), _actors(earlier, later, seconds), 2),
    ):
        if table.row_count:
            parts += [Rule(style="dim"), table]
    return Group(*parts)


def _table(names: Sequence[str], rows: Iterable[_Row], words: int = 1) -> Table:
    """Make a table whose first columns are words, the others numbers.

    If there is no room, words are shortened and numbers are not, as long as that is enough: rich shortens what may be
    wrapped first. So words are ``_words``, which are shortened rather than wrapped.
    """
    table = Table(box=None, pad_edge=False, header_style="dim")
    for index, name in enumerate(names):
        is_words = index < words
        table.add_column(
            _words(name), justify="left" if is_words else "right", no_wrap=not is_words, overflow="ellipsis"
        )
    for row in rows:
        table.add_row(*row)
    return table


def _words(text: str, style: str = "") -> Text:
    return Text(printable(text), style=style, no_wrap=True, overflow="ellipsis")


def _per_second(count: float, seconds: float) -> str:
    return number(count / seconds) if seconds > 0 else "-"


def _rates(new: StatisticsSnapshot, all_: StatisticsSnapshot, seconds: float) -> Iterator[_Row]:
    yield _words("received"), _per_second(new.received, seconds), number(all_.received)
    for fate in ("answered", "handed_back", "moved", "left"):
        yield _words(fate.replace("_", " ")), _per_second(new.count(fate), seconds), number(all_.count(fate))


def _latencies(new: StatisticsSnapshot) -> Iterator[_Row]:
    steps = sorted(new.steps, key=lambda name: (_STEPS.index(name) if name in _STEPS else len(_STEPS), name))
    for name, latencies in (("receive to delete", new.latencies), *((step, new.steps[step]) for step in steps)):
        yield _words(name), *(terminal.seconds(latencies.percentile_seconds(percent)) for percent in (50, 95, 99))


def _services(overview: Overview) -> Iterator[_Row]:
    names = dict.fromkeys(service.name for process in overview.processes for service in process.services)
    for name in names:
        same = [service for process in overview.processes for service in process.services if service.name == name]
        down = [service for service in same if not service.is_available]
        state = _words("available", "green")
        if down:
            began = min(service.unavailable_since_seconds or overview.at_seconds for service in down)
            state = _words(f"unavailable for {duration(overview.at_seconds - began)}", _TROUBLE)
            if len(down) < len(same):
                state.append(f" in {len(down)} of {len(same)} processes")
        counts = (sum(getattr(each, count) for each in same) for count in ("waiting", "under_way", "retries"))
        yield _words(name), state, *map(number, counts)


def _processes(earlier: Overview, later: Overview, seconds: float) -> Iterator[_Row]:
    before = {(process.name, process.pid): process.usage.cpu_seconds for process in earlier.processes}
    for process in later.processes:
        known = before.get((process.name, process.pid))
        cpu = "-" if known is None or seconds <= 0 else f"{(process.usage.cpu_seconds - known) / seconds:.0%}"
        yield (
            _words(process.name),
            _words(process.state, _COLOURS.get(process.state, _TROUBLE)),
            *(str(process.pid), number(process.in_flight), cpu, decimal(process.usage.memory_bytes)),
        )


def _actors(earlier: Overview, later: Overview, seconds: float) -> Iterator[_Row]:
    busy: list[tuple[int, int, str, ActorOverview]] = []
    for process in later.processes:
        old, new = earlier.trees.get(process.name), process.tree
        before = {actor.name: actor.messages for actor in old.with_descendants()} if old else {}
        for actor in new.with_descendants() if new else ():
            handled = increase(before.get(actor.name, 0), actor.messages)
            if handled or actor.mailbox_length:
                busy.append((handled, actor.mailbox_length, process.name, actor))
    for handled, mailbox_length, name, actor in sorted(busy, key=lambda row: (-row[0], -row[1]))[:ACTORS]:
        numbers = _per_second(handled, seconds), number(mailbox_length), number(actor.restarts)
        yield _words(actor.name), _words(name), *numbers
