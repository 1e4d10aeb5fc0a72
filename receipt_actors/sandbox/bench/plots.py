"""Plots of a benchmark: rate and latency over time. Needs matplotlib."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from matplotlib.figure import Figure as Drawing

from receipt_actors.sandbox.bench.figures import Series

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_INCHES = (9.0, 6.4)
_TITLE_COLUMNS = 80  #: characters that a line of the title has room for


def write_plot(path: Path, series: Sequence[Series], title: str) -> None:
    """Draw, in the format that the extension says."""
    drawing = Drawing(figsize=_INCHES, layout="constrained")
    drawing.suptitle(textwrap.fill(title, _TITLE_COLUMNS))
    rate, latency = drawing.subplots(2, 1)
    _draw_rate(rate, series)
    _draw_latency(latency, series)
    drawing.savefig(path, dpi=150)


def _draw_rate(axes: Axes, series: Sequence[Series]) -> None:
    for each in series:
        slices = each.middle_run().slices
        axes.plot([piece.at_seconds for piece in slices], [piece.per_second for piece in slices], label=each.label)
    axes.set(xlabel="seconds since the load began", ylabel="receipts a second", ylim=(0, None))
    axes.legend(fontsize="small")
    axes.grid(alpha=0.3)


def _draw_latency(axes: Axes, series: Sequence[Series]) -> None:
    for each in series:
        slices = [piece for piece in each.middle_run().slices if piece.latency_ms]
        times = [piece.at_seconds for piece in slices]
        (line,) = axes.plot(times, [piece.latency_ms["p50"] for piece in slices], label=f"{each.label}, p50")
        axes.plot(
            times,
            [piece.latency_ms["p99"] for piece in slices],
            "--",
            color=line.get_color(),
            label=f"{each.label}, p99",
        )
    axes.set(xlabel="seconds since the load began", ylabel="ms from receive to delete", ylim=(0, None))
    axes.legend(fontsize="small")
    axes.grid(alpha=0.3)
