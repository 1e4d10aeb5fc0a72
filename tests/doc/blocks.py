"""The code blocks of the README and the manual, as docutils reads them.

A comment says what the reader need not see::

    .. not run: needs AWS              (the next block is parsed only)
    .. exit code: 2                    (its commands end so)
    .. unseen: python                  (lines below it are run where they stand)
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from docutils import nodes
from docutils.core import publish_doctree

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.rst", ROOT / "CONTRIBUTING.rst", ROOT / "CHANGELOG.rst", *sorted((ROOT / "doc").glob("*.rst"))]
UNSEEN = "unseen: "
_NOTE = re.compile(r"(not run|exit code): *(.+)")


@dataclass(frozen=True)
class Block:
    page: str  #: relative to the repository
    line: int
    language: str
    text: str
    not_run: str | None = None  #: why
    exit_code: int = 0

    @property
    def place(self) -> str:
        return f"{self.page}:{self.line}"


@dataclass(frozen=True)
class Page:
    path: Path
    blocks: tuple[Block, ...]
    literals: tuple[tuple[int, str], ...]  #: line and text of what stands between double backquotes

    @property
    def name(self) -> str:
        return self.path.relative_to(ROOT).as_posix()


def read_page(path: Path) -> Page:
    """Read a page; what only Sphinx knows (its directives and roles) is passed over."""
    return read_text(path.read_text(encoding="utf-8"), path)


def read_text(source: str, path: Path) -> Page:
    settings = {"report_level": 5, "halt_level": 5, "syntax_highlight": "none", "file_insertion_enabled": False}
    tree = publish_doctree(source, source_path=str(path), settings_overrides=settings)
    name = path.relative_to(ROOT).as_posix()
    literals = tuple((_line_of(node), node.astext()) for node in tree.findall(nodes.literal))
    return Page(path, tuple(_blocks(tree, name)), literals)


def _blocks(tree: nodes.document, page: str) -> Iterator[Block]:
    for node in tree.findall(lambda node: isinstance(node, nodes.comment | nodes.literal_block)):
        head, _, rest = node.astext().partition("\n")
        if isinstance(node, nodes.comment):
            if head.startswith(UNSEEN):
                yield Block(page, _line_of(node), head.removeprefix(UNSEEN), rest)
        elif not isinstance(node.parent, nodes.system_message):  # those quote directives of Sphinx
            notes = dict(comment.split(": ", 1) for comment in _comments_before(node))
            languages = [word for word in node["classes"] if word != "code"]
            language = languages[0] if languages else ""
            exit_code = int(notes.get("exit code", 0))
            yield Block(page, _line_of(node), language, node.astext(), notes.get("not run"), exit_code)


def _comments_before(node: nodes.Node) -> Iterator[str]:
    siblings = node.parent.children
    for sibling in reversed(siblings[: siblings.index(node)]):
        if not isinstance(sibling, nodes.comment):
            return
        if _NOTE.fullmatch(sibling.astext()):
            yield sibling.astext()


def _line_of(node: nodes.Node | None) -> int:
    while node is not None and node.line is None:
        node = node.parent
    return 0 if node is None else node.line
