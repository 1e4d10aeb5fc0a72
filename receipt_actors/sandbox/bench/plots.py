"""Plots of a benchmark: rate and latency over time, and the rate over what is in flight. Needs matplotlib."""

from __future__ import annotations

import html
import io
import statistics
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from matplotlib.figure import Figure as Drawing

from receipt_actors.sandbox.bench.figures import Series, rows

if TYPE_CHECKING:
    from matplotlib.axes import Axes

EXTENSIONS = (".png", ".svg", ".html")
_INCHES = (9.0, 3.2)  #: of one plot
_TITLE_COLUMNS = 80  #: characters that a line of the title has room for
_PAGE = """<!DOCTYPE html>
<html lang="en">
<head><meta charset="utf-8"><title>{title}</title>
<style>body {{ font-family: sans-serif; max-width: 60rem; margin: 2rem auto }} svg {{ width: 100%; height: auto }}
td {{ padding: 0.1rem 1rem 0.1rem 0; text-align: right }} td:first-child {{ text-align: left }}</style></head>
<body><h1>{title}</h1>
{svg}
<table>{rows}</table></body></html>
"""


def write_plot(path: Path, series: Sequence[Series], title: str) -> None:
    """Draw, in the format that the extension says: one of ``EXTENSIONS``."""
    drawing = _draw(series, title)
    if path.suffix == ".html":
        path.write_text(_page(drawing, series, title), encoding="utf-8")
    else:
        drawing.savefig(path, dpi=150)


def _draw(series: Sequence[Series], title: str) -> Drawing:
    swept = sorted((each for each in series if each.max_in_flight is not None), key=_limit)
    has_sweep = len(swept) > 1
    plots = 3 if has_sweep else 2
    drawing = Drawing(figsize=(_INCHES[0], _INCHES[1] * plots), layout="constrained")
    drawing.suptitle(textwrap.fill(title, _TITLE_COLUMNS))
    axes: Sequence[Axes] = drawing.subplots(plots, 1)
    _draw_rate(axes[0], series)
    _draw_latency(axes[1], series)
    if has_sweep:
        _draw_sweep(axes[2], swept)
    return drawing


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


def _draw_sweep(axes: Axes, swept: Sequence[Series]) -> None:
    in_flight = [_limit(each) for each in swept]
    rates = [statistics.median(run.per_second for run in each.runs) for each in swept]
    cpu_ms = [statistics.median(run.cpu_ms for run in each.runs) for each in swept]
    axes.plot(in_flight, rates, "o-", label="rate")
    axes.set(xlabel="at most in flight", ylabel="receipts a second", ylim=(0, 1.1 * max(rates)), xlim=(0, None))
    cpu = axes.twinx()
    cpu.plot(in_flight, cpu_ms, "s--", color="tab:red", label="CPU")
    cpu.set(ylabel="CPU ms a receipt", ylim=(0, 1.1 * max(cpu_ms)))
    axes.legend(loc="lower left", fontsize="small")
    cpu.legend(loc="lower right", fontsize="small")
    axes.grid(alpha=0.3)


def _limit(series: Series) -> int:
    return series.max_in_flight or 0


def _page(drawing: Drawing, series: Sequence[Series], title: str) -> str:
    buffer = io.StringIO()
    drawing.savefig(buffer, format="svg")
    svg = buffer.getvalue()
    table = ["<tr><td></td>" + "".join(f"<td><b>{html.escape(each.label)}</b></td>" for each in series) + "</tr>"]
    for figure, cells in rows(series):
        shown = "".join(f"<td>{cell}</td>" for cell in cells)
        table.append(f"<tr><td>{html.escape(figure.key)}</td>{shown}</tr>")
    return _PAGE.format(title=html.escape(title), svg=svg[svg.index("<svg") :], rows="\n".join(table))
