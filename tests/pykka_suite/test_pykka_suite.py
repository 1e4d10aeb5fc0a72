"""pykka's own tests pass with actors of ours in the place of its ThreadingActor."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

RUN = Path(__file__).with_name("run.py")


def test_pykkas_own_tests_pass_with_our_actors(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, RUN, tmp_path], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
