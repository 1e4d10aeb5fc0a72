"""A Sphinx extension with one directive, ``tracing-reference``: the events that can be traced, and their fields."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective
from sphinx.util.typing import ExtensionMetadata

from receipt_actors.telemetry import trace_filters
from receipt_actors.telemetry.trace_filters import ACTOR_EVENTS, FIELDS, MESSAGE_EVENTS, EventDescription


class TracingReference(SphinxDirective):
    """``.. tracing-reference:: messages``, ``actors`` or ``fields``: a table."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Build the table, and have it built again when an event changes."""
        self.env.note_dependency(str(Path(trace_filters.__file__)))
        if self.arguments[0] == "fields":
            rows = [
                (name, self._text(field.holds), self._text(f"``--{field.option}``" if field.option else ""))
                for name, field in FIELDS.items()
            ]
            return [_table(("Field", "What it holds", "Option"), (20, 60, 20), rows)]
        events = {"messages": MESSAGE_EVENTS, "actors": ACTOR_EVENTS}[self.arguments[0]]
        return [_table(("Event", "When", "Fields"), (15, 35, 50), self._events(events))]

    def _events(self, events: Mapping[str, EventDescription]) -> Iterable[Sequence[object]]:
        for name, event in events.items():
            yield name, self._text(event.happens), ", ".join(event.fields)

    def _text(self, text: str) -> nodes.paragraph:
        parsed, _messages = self.state.inline_text(text, self.lineno)
        return nodes.paragraph("", "", *parsed)


def _table(titles: Sequence[str], widths: Sequence[int], rows: Iterable[Sequence[object]]) -> nodes.table:
    group = nodes.tgroup("", *(nodes.colspec(colwidth=width) for width in widths), cols=len(widths))
    group += nodes.thead("", _row([nodes.paragraph(text=title) for title in titles]))
    body = nodes.tbody()
    for name, *others in rows:
        cells = [nodes.paragraph("", "", nodes.literal(text=str(name)))]
        cells += [each if isinstance(each, nodes.paragraph) else nodes.paragraph(text=str(each)) for each in others]
        body += _row(cells)
    group += body
    return nodes.table("", group)


def _row(cells: Iterable[nodes.Node]) -> nodes.row:
    return nodes.row("", *(nodes.entry("", cell) for cell in cells))


def setup(app: Sphinx) -> ExtensionMetadata:
    """Register the directive (Sphinx calls this)."""
    app.add_directive("tracing-reference", TracingReference)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
