"""A Sphinx extension with one directive, ``layers-table``: the layers of ``setup.cfg``, and what each is for."""

from __future__ import annotations

import ast
import configparser
import re
from pathlib import Path
from typing import Final

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective
from sphinx.util.typing import ExtensionMetadata

ROOT: Final = Path(__file__).parents[1]
SETUP: Final = ROOT / "setup.cfg"


class LayersTable(SphinxDirective):
    """A row for each layer, top to bottom; its words are the first of its docstring."""

    def run(self) -> list[nodes.Node]:
        """Build the table."""
        self.env.note_dependency(str(SETUP))
        setup = configparser.ConfigParser()
        setup.read(SETUP, encoding="utf-8")
        group = nodes.tgroup("", *(nodes.colspec(colwidth=width) for width in (20, 80)), cols=2)
        body = nodes.tbody()
        for layer in setup["importlinter:contract:layers"]["layers"].split("\n"):
            for name in re.findall(r"[\w.]+", layer):
                words = nodes.paragraph(text=self._first_words(name))
                body += nodes.row(
                    "", nodes.entry("", nodes.paragraph("", "", nodes.literal(text=name))), nodes.entry("", words)
                )
        group += body
        return [nodes.table("", group)]

    def _first_words(self, name: str) -> str:
        package = ROOT / "receipt_actors" / name.replace(".", "/")
        path = package / "__init__.py" if package.is_dir() else package.with_suffix(".py")
        self.env.note_dependency(str(path))
        docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
        first = docstring.partition("\n\n")[0].replace("\n", " ").replace("``", "")
        return re.split(r"(?<=\.) ", first)[0].removesuffix(".")


def setup(app: Sphinx) -> ExtensionMetadata:
    """Register the directive (Sphinx calls this)."""
    app.add_directive("layers-table", LayersTable)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
