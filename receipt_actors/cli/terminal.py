"""What commands share: text, numbers and times for people, files of receipts, progress, finite numbers as options."""

from __future__ import annotations

import base64
import math
import sys
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import click

from receipt_actors.domain.ports import MAX_BATCH_BYTES

if TYPE_CHECKING:
    import rich.console
    import rich.progress


def echo(text: str) -> None:
    """Print a line, with escape sequences in place of what the encoding of standard output lacks."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    click.echo(text.encode(encoding, "backslashreplace").decode(encoding))


def number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 or value == int(value) else f"{value:.1f}"


def seconds(value: float | None) -> str:
    """Write a latency: ``0.4 ms``, ``123 ms``, ``1.23 s``; a dash for none."""
    if value is None:
        return "-"
    if value < 0.01:
        return f"{value * 1000:.1f} ms"
    return f"{value * 1000:.0f} ms" if value < 1 else f"{value:.2f} s"


def duration(value: float) -> str:
    """Write how long something has taken until now: ``12 s``, ``3 min 4 s``, ``2 h 5 min``, ``4 d 3 h``."""
    whole = max(0, int(value))
    for unit, length, smaller, part in (("d", 86400, "h", 3600), ("h", 3600, "min", 60), ("min", 60, "s", 1)):
        if whole >= length:
            rest = whole % length // part
            return f"{whole // length} {unit} {rest} {smaller}" if rest else f"{whole // length} {unit}"
    return f"{whole} s"


def clock_time(at_seconds: float) -> str:
    return time.strftime("%H:%M:%S", time.localtime(at_seconds))


def moment(at_seconds: float, now_seconds: float) -> str:
    """Write a UNIX time as the time of the day here, with the date unless that is today's."""
    at, now = time.localtime(at_seconds), time.localtime(now_seconds)
    return time.strftime("%H:%M:%S" if at[:3] == now[:3] else "%Y-%m-%d %H:%M:%S", at)


def read_receipt(path: str) -> str:
    """Read one receipt, ``-`` from standard input; what is around it (a last line break) is left out.

    Raises ``OSError`` for a file that cannot be read, ``click.UsageError`` for one that holds no receipt.
    """
    with click.open_file(path, "rb") as file:
        data: bytes = file.read(MAX_BATCH_BYTES + 1)
    if len(data) > MAX_BATCH_BYTES:
        raise click.UsageError(f"{path}: expected a receipt, found more than {MAX_BATCH_BYTES} bytes")
    try:
        return data.decode("ascii").strip()
    except UnicodeDecodeError:
        # A PKCS #7 container, as an app finds it on the device, begins with a SEQUENCE.
        if not data.startswith(b"\x30"):
            raise click.UsageError(f"{path}: expected a receipt, found neither text nor DER") from None
        return base64.b64encode(data).decode("ascii")


class FiniteFloatRange(click.FloatRange):
    """Like click's, which takes ``nan``, and ``inf`` where there is no upper bound: no comparison tells the former."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        number: float = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value!r} is not a finite number.", param, ctx)
        return number


def choice(values: Iterable[str]) -> click.Choice[str]:
    return click.Choice([str(value) for value in values])


def comma_separated(
    each: click.ParamType[Any],
) -> Callable[[click.Context, click.Parameter, str | None], tuple[Any, ...]]:
    """Return an option's callback that reads several values of a type, each once."""

    def read(context: click.Context, parameter: click.Parameter, text: str | None) -> tuple[Any, ...]:
        parts = [] if text is None else text.split(",")
        return tuple(dict.fromkeys(each.convert(part.strip(), parameter, context) for part in parts))

    return read


def progress_bar(console: rich.console.Console, *, transient: bool = False) -> rich.progress.Progress:
    """Return a bar; one that is ``transient`` leaves nothing behind, and is shown on a terminal only."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    return Progress(*columns, console=console, transient=transient, disable=transient and not console.is_terminal)
