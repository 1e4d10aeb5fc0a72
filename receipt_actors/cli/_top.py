"""``receipt-actors status --live``: a running system at a glance, again and again. It needs rich, a large library."""

from __future__ import annotations

import os
import select
import signal
import sys
import time
from collections import deque
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from types import FrameType
from typing import TypeVar

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from receipt_actors.cli import terminal
from receipt_actors.cli.admin_client import AdminClient, AdminRefused, AdminUnreachable
from receipt_actors.cli.status import QUIET_SECONDS
from receipt_actors.cli.terminal import clock_time, duration, echo, moment, number, size
from receipt_actors.domain.values import printable
from receipt_actors.telemetry.changes import change, increase
from receipt_actors.telemetry.latencies import Latencies
from receipt_actors.telemetry.overview import ActorOverview, Incident, Overview, ProcessOverview, Standing, State

LIVE_INTERVAL_SECONDS = 1.0
RATE_SECONDS = 3.0  #: that a rate is taken over at least: several processes report once a second
FEWEST_ACTORS = 3
ACTORS_ON_PAPER = 20
PAPER_COLUMNS = 120
INCIDENTS = 5
NEWEST_INCIDENTS = 2  #: of those, whatever they are about
NODES = 8  #: of the group, the first of them
WIDE_COLUMNS = 76  #: from which rates and latencies stand side by side
_STEPS = ("verifying", "claiming", "replying", "moving", "deleting")  # as they follow each other
_COLOURS = {State.CONSUMING: "green", State.STANDBY: "cyan", State.ENDED: "red"}
_STANDING_COLOURS = {Standing.ACTIVE: "green", Standing.STANDBY: "cyan"}
_TROUBLE = "yellow"
_OF_MESSAGES = frozenset({"moved", "handed_back"})  # kinds of incidents; see telemetry.incidents

_KEYS = "q: quit, p: pause or resume"

_Cell = TypeVar("_Cell", str, str | Text)


def show(client: AdminClient, once: bool, interval_seconds: float | None) -> None:
    """Show a running system until a key ends it; once, where stdout is no terminal."""
    is_terminal = sys.stdout.isatty()
    console = Console(width=None if is_terminal else PAPER_COLUMNS)
    if once or not is_terminal:
        _print_once(client, console, RATE_SECONDS if interval_seconds is None else interval_seconds)
    else:
        _Live(client, console, LIVE_INTERVAL_SECONDS if interval_seconds is None else interval_seconds).run()


def _print_once(client: AdminClient, console: Console, interval_seconds: float) -> None:
    earlier = client.overview()
    time.sleep(interval_seconds)
    later = client.overview()
    with console.capture() as captured:
        console.print(_picture(earlier, later, actors=ACTORS_ON_PAPER, columns=console.width))
    for line in captured.get().splitlines():
        echo(line.rstrip())


class _Live:
    """Draws until a key ends it. An error of a look stands above the last picture, and the next look tries again."""

    def __init__(self, client: AdminClient, console: Console, interval_seconds: float) -> None:
        self._client = client
        self._console = console
        self._interval_seconds = interval_seconds
        self._notice = _KEYS

    def run(self) -> None:
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
        columns = self._console.width
        actors = max(FEWEST_ACTORS, self._console.height - _fixed_lines(later, columns))
        return _picture(earlier, later, actors=actors, columns=columns, notice=self._notice)

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


# --- the picture ---


@dataclass(frozen=True, slots=True)
class _ActorRow:
    """An actor, and how busy it was."""

    process: str
    actor: ActorOverview
    messages: int  #: handled between the two looks


def _picture(
    earlier: Overview, later: Overview, *, actors: int, columns: int = WIDE_COLUMNS, notice: str = ""
) -> RenderableType:
    """Draw everything; at most so many actors, the busiest first. ``notice`` stands where every terminal shows it."""
    period_seconds = later.at_seconds - earlier.at_seconds
    rates, latencies = _rates(earlier, later, period_seconds), _latencies(earlier, later)
    parts: list[RenderableType] = [
        _headline(later),
        Text(printable(notice), style=_TROUBLE),
        *([_side_by_side(rates, latencies)] if columns >= WIDE_COLUMNS else [rates, Text(), latencies]),
        *_titled("services", _services(later, columns)),
        *_titled("processes", _processes(earlier, later, period_seconds, columns)),
        *_titled("nodes", _nodes(later, columns)),
        *_titled("busiest actors", _actors(earlier, later, period_seconds, actors, columns)),
        *_titled("last incidents", _incidents(later)),
    ]
    return Group(*parts)


def _fixed_lines(overview: Overview, columns: int = WIDE_COLUMNS) -> int:
    """Return how many lines a picture has beside the rows of its actors, where no line of words is broken."""
    services = {service.name for process in overview.processes for service in process.services}
    incidents = min(INCIDENTS, len(overview.incidents))
    nodes = 0 if overview.role is None else min(NODES, len(overview.role.nodes))
    titles = 2 * sum(map(bool, (services, overview.processes, overview.processes, nodes, incidents)))
    rates, latencies = 5, 2 + len(overview.statistics.steps)
    both = max(rates, latencies) if columns >= WIDE_COLUMNS else rates + 2 + latencies
    return 4 + both + titles + len(services) + len(overview.processes) + nodes + incidents


def _headline(overview: Overview) -> Text:
    text = Text()
    text.append(overview.state, style=f"bold {_COLOURS.get(overview.state, _TROUBLE)}")
    in_flight = sum(process.in_flight for process in overview.processes)
    text.append(f"  {printable(', '.join(overview.source_queues))}  {number(in_flight)} in flight")
    if overview.up_for_seconds is not None:
        text.append(f"  up for {duration(overview.up_for_seconds)}")
    text.append(f"  receipt-actors {printable(overview.version)}  {clock_time(overview.at_seconds)}", style="dim")
    depths = [f"{printable(name)} {'?' if depth is None else number(depth)}" for name, depth in overview.queues.items()]
    text.append(f"\non queues: {', '.join(depths) or '?'}")
    unavailable = sorted({service for process in overview.processes for service in process.unavailable})
    if unavailable:
        text.append(f"\nunavailable: {printable(', '.join(unavailable))}", style=_TROUBLE)
    return text


def _titled(title: str, table: Table) -> Iterator[RenderableType]:
    if table.row_count:
        yield Rule(title, align="left", style="dim")
        yield table


def _side_by_side(left: Table, right: Table) -> Table:
    grid = Table.grid(padding=(0, 4))
    grid.add_row(left, right)
    return grid


def _table(*names: str, left: int = 1) -> Table:
    """Make a table whose first ``left`` columns are words; the others are numbers.

    Where there is no room for all, words are shortened and numbers are not, as long as that is enough: rich shortens
    what may be wrapped first. So words are ``_words``, which are shortened rather than wrapped.
    """
    table = Table(box=None, pad_edge=False, header_style="dim")
    for index, name in enumerate(names):
        is_words = index < left
        table.add_column(
            _words(name), justify="left" if is_words else "right", no_wrap=not is_words, overflow="ellipsis"
        )
    return table


def _room_for(columns: int, cells: Sequence[_Cell], *, wide_only: Collection[int]) -> list[_Cell]:
    """Leave out those cells of a row that a narrow terminal has no room for."""
    return [cell for index, cell in enumerate(cells) if columns >= WIDE_COLUMNS or index not in wide_only]


def _words(text: str, style: str = "") -> Text:
    return Text(printable(text), style=style, no_wrap=True, overflow="ellipsis")


def _per_second(count: float, period_seconds: float) -> str:
    return number(count / period_seconds) if period_seconds > 0 else "-"


def _rates(earlier: Overview, later: Overview, period_seconds: float) -> Table:
    table = _table("messages", "per second", "in all")
    new, all_ = change(earlier.statistics, later.statistics), later.statistics
    table.add_row(_words("received"), _per_second(new.received, period_seconds), number(all_.received))
    for fate in ("answered", "handed_back", "moved", "left"):
        name = _words(fate.replace("_", " "))
        table.add_row(name, _per_second(new.count(fate), period_seconds), number(all_.count(fate)))
    return table


def _latencies(earlier: Overview, later: Overview) -> Table:
    table = _table("latency", "50 %", "95 %", "99 %")

    def add(name: str, new: Latencies) -> None:
        table.add_row(_words(name), *(terminal.seconds(new.percentile_seconds(percent)) for percent in (50, 95, 99)))

    new = change(earlier.statistics, later.statistics)
    add("receive to delete", new.latencies)
    for step in sorted(new.steps, key=lambda name: (_STEPS.index(name) if name in _STEPS else len(_STEPS), name)):
        add(step, new.steps[step])
    return table


def _services(overview: Overview, columns: int) -> Table:
    room_for = partial(_room_for, columns, wide_only={4})
    table = _table(*room_for(("service", "state", "waiting", "under way", "retries")), left=2)
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
        waiting, under_way, retries = (
            sum(getattr(service, count) for service in same) for count in ("waiting", "under_way", "retries")
        )
        cells: tuple[str | Text, ...] = (_words(name), state, number(waiting), number(under_way), number(retries))
        table.add_row(*room_for(cells))
    return table


def _processes(earlier: Overview, later: Overview, period_seconds: float, columns: int) -> Table:
    room_for = partial(_room_for, columns, wide_only={2, 6, 7})
    names = ("process", "state", "pid", "in flight", "CPU", "memory", "threads", "files")
    table = _table(*room_for(names), left=2)
    before = {(process.name, process.pid): process for process in earlier.processes}
    for process in later.processes:
        usage = process.usage
        known = before.get((process.name, process.pid))
        cpu = "-"
        if known is not None and period_seconds > 0:
            cpu = f"{(usage.cpu_seconds - known.usage.cpu_seconds) / period_seconds:.0%}"
        cells: tuple[str | Text, ...] = (
            _words(process.name),
            _words(process.state, _COLOURS.get(process.state, _TROUBLE)),
            *(str(process.pid), number(process.in_flight), cpu, size(usage.memory_bytes)),
            *(number(usage.threads), number(usage.open_files)),
        )
        table.add_row(*room_for(cells))
    return table


def _nodes(overview: Overview, columns: int) -> Table:
    room_for = partial(_room_for, columns, wide_only={3})
    table = _table(*room_for(("node", "standing", "share", "token", "last heard")), left=2)
    role = overview.role
    for node in () if role is None else role.nodes[:NODES]:
        is_own = role is not None and node is role.own
        is_quiet = node.seconds_since_heard >= QUIET_SECONDS
        heard = "this node" if is_own else f"{duration(node.seconds_since_heard)} ago" if is_quiet else "now"
        cells: tuple[str | Text, ...] = (
            _words(node.name),
            _words(node.standing, _STANDING_COLOURS.get(node.standing, _TROUBLE)),
            "-" if role is None or node.share is None else f"{role.part_of(node):.0%}",
            "-" if node.token is None else str(node.token),
            heard,
        )
        table.add_row(*room_for(cells))
    return table


def _actors(earlier: Overview, later: Overview, period_seconds: float, limit: int, columns: int) -> Table:
    several = len(later.processes) > 1
    room_for = partial(_room_for, columns, wide_only={3 + several})
    names = ("actor", *(("process",) if several else ()), "messages/s", "mailbox", "restarts")
    table = _table(*room_for(names), left=1 + several)
    busy = (row for row in _actor_rows(earlier, later) if row.messages or row.actor.mailbox_length)
    for row in sorted(busy, key=lambda row: (-row.messages, -row.actor.mailbox_length))[:limit]:
        actor = row.actor
        cells: tuple[str | Text, ...] = (
            _words(actor.name),
            *((_words(row.process),) if several else ()),
            *(_per_second(row.messages, period_seconds), number(actor.mailbox_length), number(actor.restarts)),
        )
        table.add_row(*room_for(cells))
    return table


def _actor_rows(earlier: Overview, later: Overview) -> Iterator[_ActorRow]:
    known = {process.name: process for process in earlier.processes}
    for process in later.processes:
        before = {actor.name: actor for actor in _walk(known.get(process.name))}
        for actor in _walk(process):
            handled = before[actor.name].messages if actor.name in before else 0
            yield _ActorRow(process.name, actor, increase(handled, actor.messages))


def _walk(process: ProcessOverview | None) -> Iterator[ActorOverview]:
    actors = [] if process is None or process.tree is None else [process.tree]
    while actors:
        actor = actors.pop()
        yield actor
        actors += actor.children


def _incidents(overview: Overview) -> Table:
    table = Table(box=None, pad_edge=False, show_header=False)
    for incident in _worth_showing(overview.incidents):
        times = f" ({number(incident.count)} times)" if incident.count > 1 else ""
        where = f"{incident.process}: " if incident.process else ""
        summary = Text(printable(f"{where}{incident.summary}{times}"), no_wrap=True, overflow="ellipsis")
        when = Text(moment(incident.at_seconds, overview.at_seconds), style="dim")
        table.add_row(when, Text(printable(incident.kind)), summary)
    return table


def _worth_showing(incidents: Sequence[Incident]) -> list[Incident]:
    """Choose the newest, and leave room for those that are not about single messages: garbage must not hide a crash."""
    newest, others = incidents[:NEWEST_INCIDENTS], incidents[NEWEST_INCIDENTS:]
    chosen = sorted(others, key=lambda incident: incident.kind in _OF_MESSAGES)[: INCIDENTS - len(newest)]
    return sorted((*newest, *chosen), key=lambda incident: -incident.at_seconds)
