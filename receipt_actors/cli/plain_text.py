"""Text for a terminal: what others made up does nothing there but be read; numbers and times as people write them."""

from __future__ import annotations

import sys
import time

import click


def echo(text: str) -> None:
    """Print a line, with escape sequences in place of what the encoding of standard output lacks."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    click.echo(text.encode(encoding, "backslashreplace").decode(encoding))


def can_print(characters: str) -> bool:
    """Tell whether standard output has these characters."""
    try:
        characters.encode(getattr(sys.stdout, "encoding", None) or "utf-8")
    except UnicodeEncodeError:
        return False
    return True


def number(value: float) -> str:
    """Write ``1,234``, ``12.3`` or ``0.1``."""
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


def size(value: float) -> str:
    """Write an amount of memory: ``812 KB``, ``123 MB``, ``1.2 GB``."""
    for unit, length in (("GB", 1e9), ("MB", 1e6), ("KB", 1e3)):
        if value >= length:
            return f"{value / length:.1f} {unit}" if unit == "GB" else f"{value / length:.0f} {unit}"
    return f"{value:.0f} B"


def clock_time(at_seconds: float) -> str:
    """Write a UNIX time as the time of the day here."""
    return time.strftime("%H:%M:%S", time.localtime(at_seconds))


def moment(at_seconds: float, now_seconds: float) -> str:
    """Write a UNIX time as the time of the day here, with the date unless that is today's."""
    at, now = time.localtime(at_seconds), time.localtime(now_seconds)
    return time.strftime("%H:%M:%S" if at[:3] == now[:3] else "%Y-%m-%d %H:%M:%S", at)
