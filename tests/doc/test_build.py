"""The manual is built, and a warning is an error. Within tox it is left in ``.tox/manual``."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from .blocks import ROOT


def test_the_manual_is_built_without_a_warning(tmp_path: Path) -> None:
    manual = Path(os.environ.get("TOX_WORK_DIR", tmp_path)) / "manual"
    options = ("-W", "--keep-going", "-q", "-b", "html", "-d", tmp_path / "doctrees")
    command = [sys.executable, "-m", "sphinx", *options, ROOT / "doc", manual]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
