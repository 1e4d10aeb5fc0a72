"""The README is read in a checkout and on a package page, and its program is copied as it stands."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from docutils import nodes
from docutils.core import publish_doctree

from tests.patience import PATIENCE_SECONDS

from .blocks import ROOT, read_page

README = ROOT / "README.rst"


def test_its_program_runs_as_it_stands(tmp_path: Path) -> None:
    blocks = read_page(README).blocks
    (program,) = [block for block in blocks if block.language == "python"]
    printed = blocks[blocks.index(program) + 1]
    assert "unseen" not in README.read_text(encoding="utf-8")
    command = [sys.executable, "-c", program.text]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=PATIENCE_SECONDS)
    assert (done.stdout, done.stderr) == (printed.text + "\n", "")


def test_all_its_links_work_on_a_package_page() -> None:
    settings = {"report_level": 5, "halt_level": 5, "syntax_highlight": "none"}
    tree = publish_doctree(README.read_text(encoding="utf-8"), settings_overrides=settings)
    targets = [node["refuri"] for node in tree.findall(nodes.reference) if "refuri" in node]
    targets += [node["uri"] for node in tree.findall(nodes.image)]
    assert [target for target in targets if not target.startswith("https://")] == []
