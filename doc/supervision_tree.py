"""A Sphinx extension with one directive, ``supervision-tree``: the tree of the program, drawn from its child specs.

``python doc/supervision_tree.py FILE`` writes the picture for the README; a test holds it against the code.
"""

from __future__ import annotations

import html
import inspect
import re
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective
from sphinx.util.typing import ExtensionMetadata

from receipt_actors import application
from receipt_actors.application import supervision_tree
from receipt_actors.otp import ChildSpec, Start, SystemClock
from receipt_actors.settings import Settings
from receipt_actors.sources import source_of
from receipt_actors.testing import FakeServices

ROW = 24  #: pixels, as are the following
INDENT = 17
NAMES_WIDTH = 208
RULES_WIDTH = 158
WIDTH = 740
MOST_CHARACTERS = 55  #: beyond that, what stands before the first comma is enough
STYLE = """
svg { background: #fff; font: 12px ui-sans-serif, system-ui, "Segoe UI", Helvetica, Arial, sans-serif; }
.supervisor { font-weight: 600; fill: #1a4e8a; }
.worker { fill: #222; }
.rule { fill: #666; }
.line { stroke: #b9c2cc; fill: none; }
""".strip()


@dataclass(frozen=True)
class Row:
    """One child spec of the tree."""

    depth: int
    name: str
    is_supervisor: bool
    rule: str  #: how it restarts its children, or when it is restarted itself
    about: str  #: what its module begins with


def rows() -> list[Row]:
    """Read the tree that ``start`` has by default, with every part that is there only where it is asked for."""
    settings = Settings(backend="aws", bundle_ids=("com.example.game",), alerts_queue="AlertsSQS")
    services = FakeServices(settings, SystemClock())
    sources = [source_of(settings, services.dead_letter_queue)]
    root = supervision_tree(settings, services.backend, sources, print, None, print)
    return list(_rows_of(root, 0, is_simple=False))


def _rows_of(spec: ChildSpec, depth: int, *, is_simple: bool) -> Iterator[Row]:
    start = spec.start
    if not isinstance(start, Start):  # a function that makes one on demand
        class_name = "".join(word.title() for word in str(spec.id).split("_"))
        yield Row(depth, str(spec.id), False, _restart_of(spec, is_simple), _about(getattr(application, class_name)))
        return
    if "intensity" not in start.kwargs:
        yield Row(depth, str(spec.id), False, _restart_of(spec, is_simple), _about(start.actor_class))
        return
    (children,) = start.args
    strategy = start.kwargs.get("strategy")
    has_many = isinstance(children, ChildSpec)
    word = "simple_one_for_one" if has_many else str(strategy.value)
    limits = f", {start.kwargs['intensity']} restarts in {start.kwargs['period_seconds']:g} s"
    is_quiet = ", transient" if spec.restart.value == "transient" else ""
    yield Row(depth, str(spec.id), True, word + ("" if has_many else limits) + is_quiet, "")
    for child in (children,) if has_many else children:
        yield from _rows_of(child, depth + 1, is_simple=has_many)


def _restart_of(spec: ChildSpec, is_simple: bool) -> str:
    return spec.restart.value + (", any number" if is_simple else "")


def _about(actor_class: type) -> str:
    """Say what it does: what its module's docstring begins with, after the name."""
    module = inspect.getmodule(actor_class)
    words = (inspect.getdoc(module) or "").partition("\n\n")[0].replace("\n", " ").replace("``", "")
    words = re.sub(r"^[\w ]+: ", "", words).removesuffix(".")
    if len(words) > MOST_CHARACTERS:
        words = re.split("[.,;]", words)[0]
    return textwrap.shorten(words, MOST_CHARACTERS, placeholder=" …")


def svg() -> str:
    """Draw it."""
    tree = rows()
    height = ROW * len(tree) + 20
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" role="img" '
        f'aria-label="The supervision tree">',
        f"<style>{STYLE}</style>",
        f'<rect width="{WIDTH}" height="{height}" fill="#fff"/>',
    ]
    parents: list[int] = []  # the row of each ancestor
    for number, row in enumerate(tree):
        x, y = 16 + INDENT * row.depth, 10 + ROW * number + ROW // 2
        del parents[row.depth :]
        if parents:
            parent_y = 10 + ROW * parents[-1] + ROW // 2
            parts.append(f'<path class="line" d="M{x - INDENT + 5} {parent_y + 8}V{y}H{x - 4}"/>')
        parents.append(number)
        kind = "supervisor" if row.is_supervisor else "worker"
        for left, style, text in (
            (x, kind, row.name),
            (16 + NAMES_WIDTH, "rule", row.rule),
            (16 + NAMES_WIDTH + RULES_WIDTH, "worker", row.about),
        ):
            if text:
                parts.append(f'<text class="{style}" x="{left}" y="{y + 4}">{html.escape(text)}</text>')
    return "\n".join([*parts, "</svg>"]) + "\n"


class SupervisionTree(SphinxDirective):
    """The picture, in the page itself, and as text where there is no HTML."""

    def run(self) -> list[nodes.Node]:
        """Build it, and have it built again when the tree changes."""
        self.env.note_dependency(inspect.getfile(application))
        picture = nodes.raw("", f'<div style="overflow-x: auto">{svg()}</div>', format="html")
        lines = "\n".join(f"{'   ' * row.depth}{row.name}  ({row.rule})" for row in rows())
        return [picture, nodes.comment("", lines)]


def setup(app: Sphinx) -> ExtensionMetadata:
    """Register the directive (Sphinx calls this)."""
    app.add_directive("supervision-tree", SupervisionTree)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(svg(), encoding="utf-8")
