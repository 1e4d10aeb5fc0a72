"""A Sphinx extension for the conformance tables: what a manual page says, clause by clause, and what is so here.

``conformance-summary`` counts the clauses of all tables; ``conformance:: gen_server`` is the table of one page. The
tables are the TOML files in ``doc/conformance``; ``tests/otp/test_conformance.py`` checks what they say.
"""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective
from sphinx.util.typing import ExtensionMetadata

TABLES = Path(__file__).parent / "conformance"
PAGES = ("supervisor", "gen_server", "gen_statem", "sys", "processes")


class _ConformanceDirective(SphinxDirective):
    def _load(self, page: str) -> dict[str, Any]:
        path = TABLES / f"{page}.toml"
        self.env.note_dependency(str(path))
        return tomllib.loads(path.read_text(encoding="utf-8"))

    def _text(self, text: str) -> nodes.paragraph:
        inline, messages = self.parse_inline(text, lineno=self.lineno)
        return nodes.paragraph("", "", *inline, *messages)


class ConformanceSummary(_ConformanceDirective):
    """How many clauses each page has, and how many of them are so here."""

    def run(self) -> list[nodes.Node]:
        """Build the table."""
        rows = []
        for page in PAGES:
            table = self._load(page)
            clauses = [clause for section in table["section"] for clause in section["clauses"]]
            differs, absent = (sum(word in clause for clause in clauses) for word in ("differs", "absent"))
            counts = [len(clauses), len(clauses) - differs - absent, differs, absent]
            link = nodes.reference("", table["title"], internal=True, refid=nodes.make_id(table["title"]))
            rows.append([nodes.paragraph("", "", link), *(nodes.paragraph(text=str(count)) for count in counts)])
        return [_table(["", "clauses", "the same here", "different", "not there"], [40, 15, 15, 15, 15], rows)]


class Conformance(_ConformanceDirective):
    """The table of one page, in sections as on the page; each clause has an anchor, ``#supervisor-start-order``."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Build the sections."""
        page = self.arguments[0]
        table = self._load(page)
        title = table["title"]
        whole = nodes.section(ids=[nodes.make_id(title)], names=[title])
        whole += nodes.title(text=title)
        whole += self._text(f"{table['about']} `OTP's page <{table['manual']}>`__")
        for section in table["section"]:
            name = f"{title}: {section['title']}"
            part = nodes.section(ids=[nodes.make_id(name)], names=[name])
            part += nodes.title(text=section["title"])
            rows = [self._row(page, clause) for clause in section["clauses"]]
            part += _table(["OTP 27", "here", "held by"], [36, 32, 32], rows)
            whole += part
        return [whole]

    def _row(self, page: str, clause: dict[str, Any]) -> list[nodes.Node]:
        says = self._text(clause["says"])
        says["ids"].append(nodes.make_id(f"{page}-{clause['id']}"))
        if "absent" in clause:
            here = self._text(f"**Not there.** {clause['absent']}")
        elif "differs" in clause:
            here = self._text(f"**Different.** {clause['differs']}")
        else:
            here = nodes.paragraph(text="the same")
        tests = nodes.line_block()
        for test in clause.get("tests", ()):
            file, _, name = test.partition("::")
            words = name.rpartition("::")[2].removeprefix("test_").replace("_", " ")  # an identifier would not wrap
            tests += nodes.line("", "", nodes.literal(text=file.removeprefix("otp/")), nodes.Text(f" {words}"))
        return [says, here, tests]


def _table(head: Sequence[str], widths: Sequence[int], rows: Sequence[Sequence[nodes.Node]]) -> nodes.table:
    group = nodes.tgroup(cols=len(widths))
    group += [nodes.colspec(colwidth=width) for width in widths]
    group += nodes.thead("", _row([nodes.paragraph(text=text) for text in head]))
    group += nodes.tbody("", *(_row(cells) for cells in rows))
    return nodes.table("", group, classes=["colwidths-given"])


def _row(cells: Sequence[nodes.Node]) -> nodes.row:
    return nodes.row("", *(nodes.entry("", cell) for cell in cells))


def setup(app: Sphinx) -> ExtensionMetadata:
    """Register the directives (Sphinx calls this)."""
    app.add_directive("conformance", Conformance)
    app.add_directive("conformance-summary", ConformanceSummary)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
