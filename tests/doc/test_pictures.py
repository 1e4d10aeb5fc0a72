"""The pictures show the program as it is."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from .blocks import ROOT
from .pictures import demo, drawn, words_of

REMEDY = "make them anew: python -m tests.doc.pictures"


def test_the_picture_of_the_demo_shows_what_the_demo_prints() -> None:
    picture = (ROOT / "doc/images/demo.svg").read_text(encoding="utf-8")
    assert words_of(picture) == words_of(drawn(demo())), REMEDY


def test_the_picture_of_the_tree_is_drawn_from_its_child_specs(tmp_path: Path) -> None:
    subprocess.run([sys.executable, ROOT / "doc/supervision_tree.py", tmp_path / "tree.svg"], check=True)
    assert (ROOT / "doc/images/tree.svg").read_bytes() == (tmp_path / "tree.svg").read_bytes(), REMEDY
