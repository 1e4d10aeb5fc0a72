"""``receipt-actors status --live``: a running system at a glance, again and again. It needs rich, a large library."""

from __future__ import annotations

import os
import select
import signal
import sys
import time
from collections import deque
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType

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
from receipt_actors.telemetry.overview import ActorOverview, NodeState, Overview, ProcessOverview, State
from receipt_actors.telemetry.statistics import StatisticsSnapshot, increase

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
_NODE_COLOURS = {NodeState.ACTIVE: "green", NodeState.STANDBY: "cyan"}
_TROUBLE = "yellow"
_OF_MESSAGES = frozenset({"moved", "handed_back"})  # kinds of incidents; see telemetry.incidents

_KEYS = "q: quit, p: pause or resume"

_Row = tuple[str | Text, ...]


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
    """Read keys as they are pressed; yields the descriptor to read from, None if stdin is no terminal."""
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


def _picture(
    earlier: Overview, later: Overview, *, actors: int, columns: int = WIDE_COLUMNS, notice: str = ""
) -> RenderableType:
    """Draw everything; at most so many actors, the busiest first. ``notice`` stands where every terminal shows it."""
    seconds = later.at_seconds - earlier.at_seconds
    new = later.statistics.since(earlier.statistics)
    several = len(later.processes) > 1
    rates = _table(columns, ("messages", "per second", "in all"), _rates(new, later.statistics, seconds))
    latencies = _table(columns, ("latency", "50 %", "95 %", "99 %"), _latencies(new))
    parts: list[RenderableType] = [
        _headline(later),
        Text(printable(notice), style=_TROUBLE),
        *([_side_by_side(rates, latencies)] if columns >= WIDE_COLUMNS else [rates, Text(), latencies]),
    ]
    for title, names, left, wide_only, rows in (
        ("services", ("service", "state", "waiting", "under way", "retries"), 2, {4}, _services(later)),
        (
            "processes",
            ("process", "state", "pid", "in flight", "CPU", "memory", "threads", "files"),
            *(2, {2, 6, 7}, _processes(earlier, later, seconds)),
        ),
        ("nodes", ("node", "state", "share", "token", "last heard"), 2, {3}, _nodes(later)),
        (
            "busiest actors",
            ("actor", *(("process",) if several else ()), "messages/s", "mailbox", "restarts"),
            *(1 + several, {3 + several}, _actors(earlier, later, seconds, actors)),
        ),
    ):
        table = _table(columns, names, rows, left=left, wide_only=wide_only)
        if table.row_count:
            parts += [Rule(title, align="left", style="dim"), table]
    if later.incidents:
        parts += [Rule("last incidents", align="left", style="dim"), _incidents(later)]
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


def _side_by_side(left: Table, right: Table) -> Table:
    grid = Table.grid(padding=(0, 4))
    grid.add_row(left, right)
    return grid


def _table(
    columns: int, names: Sequence[str], rows: Iterable[_Row], *, left: int = 1, wide_only: Collection[int] = ()
) -> Table:
    """Make a table whose first ``left`` columns are words, the others numbers; a narrow terminal lacks ``wide_only``.

    If there is no room, words are shortened and numbers are not, as long as that is enough: rich shortens what may be
    wrapped first. So words are ``_words``, which are shortened rather than wrapped.
    """
    table = Table(box=None, pad_edge=False, header_style="dim")
    shown = [index for index in range(len(names)) if columns >= WIDE_COLUMNS or index not in wide_only]
    for index in shown:
        is_words = index < left
        table.add_column(
            _words(names[index]), justify="left" if is_words else "right", no_wrap=not is_words, overflow="ellipsis"
        )
    for row in rows:
        table.add_row(*(row[index] for index in shown))
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
    before = {(process.name, process.pid): process for process in earlier.processes}
    for process in later.processes:
        usage = process.usage
        known = before.get((process.name, process.pid))
        cpu = "-"
        if known is not None and seconds > 0:
            cpu = f"{(usage.cpu_seconds - known.usage.cpu_seconds) / seconds:.0%}"
        yield (
            _words(process.name),
            _words(process.state, _COLOURS.get(process.state, _TROUBLE)),
            *(str(process.pid), number(process.in_flight), cpu, size(usage.memory_bytes)),
            *(number(usage.threads), number(usage.open_files)),
        )


def _nodes(overview: Overview) -> Iterator[_Row]:
    role = overview.role
    for node in () if role is None else role.nodes[:NODES]:
        is_own = role is not None and node is role.own
        is_quiet = node.seconds_since_heard >= QUIET_SECONDS
        yield (
            _words(node.name),
            _words(node.state, _NODE_COLOURS.get(node.state, _TROUBLE)),
            "-" if role is None or node.share is None else f"{role.part_of(node):.0%}",
            "-" if node.token is None else str(node.token),
            "this node" if is_own else f"{duration(node.seconds_since_heard)} ago" if is_quiet else "now",
        )


def _actors(earlier: Overview, later: Overview, seconds: float, limit: int) -> Iterator[_Row]:
    several = len(later.processes) > 1
    known = {process.name: process for process in earlier.processes}
    busy: list[tuple[int, int, str, ActorOverview]] = []
    for process in later.processes:
        before = {actor.name: actor.messages for actor in _all_actors(known.get(process.name))}
        for actor in _all_actors(process):
            handled = increase(before.get(actor.name, 0), actor.messages)
            if handled or actor.mailbox_length:
                busy.append((handled, actor.mailbox_length, process.name, actor))
    for handled, mailbox_length, name, actor in sorted(busy, key=lambda row: (-row[0], -row[1]))[:limit]:
        words = (_words(actor.name), *((_words(name),) if several else ()))
        yield *words, _per_second(handled, seconds), number(mailbox_length), number(actor.restarts)


def _all_actors(process: ProcessOverview | None) -> Iterator[ActorOverview]:
    actors = [] if process is None or process.tree is None else [process.tree]
    while actors:
        actor = actors.pop()
        yield actor
        actors += actor.children


def _incidents(overview: Overview) -> Table:
    """Show the newest, and leave room for those that are not about single messages: garbage must not hide a crash."""
    newest, others = overview.incidents[:NEWEST_INCIDENTS], overview.incidents[NEWEST_INCIDENTS:]
    chosen = sorted(others, key=lambda incident: incident.kind in _OF_MESSAGES)[: INCIDENTS - len(newest)]
    table = Table(box=None, pad_edge=False, show_header=False)
    for incident in sorted((*newest, *chosen), key=lambda incident: -incident.at_seconds):
        times = f" ({number(incident.count)} times)" if incident.count > 1 else ""
        where = f"{incident.process}: " if incident.process else ""
        when = Text(moment(incident.at_seconds, overview.at_seconds), style="dim")
        table.add_row(when, Text(printable(incident.kind)), _words(f"{where}{incident.summary}{times}"))
    return table
