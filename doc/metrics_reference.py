"""A Sphinx extension with one directive, ``metrics-reference``: a table of the metrics that Prometheus can scrape."""

from __future__ import annotations

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective
from sphinx.util.typing import ExtensionMetadata

from receipt_actors.admin import metrics
from receipt_actors.admin.metrics import METRICS, Metric

WIDTHS = (40, 10, 15, 35)


class MetricsReference(SphinxDirective):
    """A row for each metric."""

    def run(self) -> list[nodes.Node]:
        """Build the table, and have it built again when ``metrics.py`` changes."""
        self.env.note_dependency(metrics.__file__)
        group = nodes.tgroup("", *(nodes.colspec(colwidth=width) for width in WIDTHS), cols=len(WIDTHS))
        titles = ("Metric", "Type", "Labels", "What it says")
        group += nodes.thead("", _row([nodes.Text(title) for title in titles]))
        group += nodes.tbody("", *(self._described(metric) for metric in METRICS))
        return [nodes.table("", group)]

    def _described(self, metric: Metric) -> nodes.row:
        name = nodes.literal(text=metric.full_name)
        return _row([name, nodes.Text(metric.kind), nodes.Text(", ".join(metric.labels)), nodes.Text(metric.text)])


def _row(cells: list[nodes.Node]) -> nodes.row:
    return nodes.row("", *(nodes.entry("", nodes.paragraph("", "", cell)) for cell in cells))


def setup(app: Sphinx) -> ExtensionMetadata:
    """Register the directive (Sphinx calls this)."""
    app.add_directive("metrics-reference", MetricsReference)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
