"""A Sphinx extension with one directive, ``extras-table``: the extras of ``setup.cfg`` and what they are for."""

from __future__ import annotations

import configparser
import re
from pathlib import Path
from typing import Final

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective
from sphinx.util.typing import ExtensionMetadata

SETUP: Final = Path(__file__).parents[1] / "setup.cfg"
PURPOSES: Final = {
    "bench": "the command bench",
    "otel": "a trace of each receipt for OpenTelemetry (the setting traces)",
    "test": "to run our tests",
    "docs": "to build this manual",
}


class ExtrasTable(SphinxDirective):
    """A row for each extra; one that nobody has explained is an error."""

    def run(self) -> list[nodes.Node]:
        """Build the table."""
        self.env.note_dependency(str(SETUP))
        setup = configparser.ConfigParser()
        setup.read(SETUP, encoding="utf-8")
        extras = setup["options.extras_require"]
        group = nodes.tgroup("", *(nodes.colspec(colwidth=width) for width in (15, 45, 40)), cols=3)
        group += nodes.thead("", _row("extra", "what for", "brings"))
        body = nodes.tbody()
        for name, requirements in extras.items():
            names = [re.split(r"[\s;<>=!\[]", line)[0] for line in requirements.split("\n") if line]
            brings = ", ".join(names) if len(names) <= MOST_NAMED else f"{len(names)} packages"
            body += _row(name, PURPOSES[name], brings)
        group += body
        return [nodes.table("", group)]


MOST_NAMED: Final = 6


def _row(*texts: str) -> nodes.row:
    return nodes.row("", *(nodes.entry("", nodes.paragraph(text=text)) for text in texts))


def setup(app: Sphinx) -> ExtensionMetadata:
    """Register the directive (Sphinx calls this)."""
    app.add_directive("extras-table", ExtrasTable)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
