"""What ``receipt-actors bench`` found, as a table, as JSON, and as a plot. Needs the extra ``bench``."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from receipt_actors.sandbox.bench import Load, Series, ServiceOptions
from receipt_actors.sandbox.bench.figures import machine, rows

WAYS = {
    "verify-receipt": "app receipts of {bytes} bytes, about which verifyReceipt is asked",
    "storekit2": "signed transactions, verified by the program; nobody is asked",
    "server-api": "app receipts of {bytes} bytes, whose transactions the App Store Server API is asked for; what it "
    "answers is verified by the program",
}
QUIET_SHARE = 0.1  #: of the machine that others may use without a word
PIPE_COLUMNS = 120  #: width of the table where nobody's terminal says


@dataclass(frozen=True, slots=True)
class BenchReport:
    """All series of one benchmark, and the conditions that they share."""

    series: Sequence[Series]
    options: ServiceOptions
    load: Load

    def print(self) -> None:
        console = Console(width=None if sys.stdout.isatty() else PIPE_COLUMNS, highlight=False)
        where = machine(os.cpu_count() or 1)
        console.print(f"{self._conditions()}; {'TLS' if self.options.tls else 'no TLS'} to Apple")
        for way in self._ways():
            console.print(f"{way}: {WAYS[way].format(bytes=f'{self.load.receipt_bytes:,}')}")
        console.print(f"{where['cpu']}, {where['cores']} cores, {where['python']}, {where['system']}\n")
        console.print(_table(self.series))
        redelivered = sum(run.redelivered for each in self.series for run in each.runs)
        repeated = sum(run.repeated for each in self.series for run in each.runs)
        if redelivered:
            console.print(
                f"{redelivered:,} messages were delivered again: a process of the program died, or was too slow. These "
                f"figures are not valid. {repeated:,} answers were repeated, each the same, which is no fault."
            )
        others_share = max(run.others_share for each in self.series for run in each.runs)
        if others_share > QUIET_SHARE:
            console.print(
                f"Other programs used up to {others_share:.0%} of the machine: without them rates would be higher, and "
                "latencies shorter."
            )

    def write_json(self, path: Path) -> None:
        content = {
            "machine": machine(os.cpu_count() or 1),
            "load": {"messages": self.load.messages, "receipt_bytes": self.load.receipt_bytes},
            "services": asdict(self.options),
            "series": [each.as_json() for each in self.series],
        }
        path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")

    def write_plot(self, path: Path) -> None:
        from receipt_actors.sandbox.bench.plots import write_plot  # matplotlib takes its time to import

        write_plot(path, self.series, f"receipt-actors bench: {self._conditions()}")

    def _conditions(self) -> str:
        options = self.options
        latencies = (
            f"Apple {options.apple.seconds * 1000:g} ms +- {options.apple.jitter_seconds * 1000:g}, DynamoDB "
            f"{options.dynamodb_latency_seconds * 1000:g} ms, SQS {options.sqs_latency_seconds * 1000:g} ms"
        )
        receipts = "" if self._ways() else f" with receipts of {self.load.receipt_bytes:,} bytes"
        return f"{self.load.messages:,} messages{receipts}; {latencies}"

    def _ways(self) -> Sequence[str]:
        """How receipts were vouched for; nothing where that was by verifyReceipt alone."""
        ways = tuple(dict.fromkeys(each.way for each in self.series))
        return () if ways == ("verify-receipt",) else ways


def _table(series: Sequence[Series]) -> Table:
    """One column for each series: medians, and in brackets the least and the most."""
    table = Table(box=SIMPLE_HEAD)
    table.add_column("")
    for each in series:
        table.add_column(each.label, justify="right")
    section = None
    for figure, cells in rows(series):
        if figure.section != section:
            if section is not None:
                table.add_section()
            section = figure.section
            table.add_row(f"[bold]{section}[/bold]")
        table.add_row(f"  {figure.name}", *cells)
    return table
