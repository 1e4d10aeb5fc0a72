"""``python tests/pythons.py``: run some of the tests under the newest other Python that is supported and found.

tox finds the Pythons that are on the PATH. pyenv puts only the chosen versions there, so its folders are looked into as
well, and so is the file that ``PYTHON3_14`` (likewise for other versions) names. What is not found is said at the end:
it has not been tried.
"""

from __future__ import annotations

import configparser
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]


def supported() -> list[str]:
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg", encoding="utf-8")
    return re.findall(r"Python :: (3\.\d+)$", setup["metadata"]["classifiers"], re.MULTILINE)


def candidates(version: str) -> Iterator[Path]:
    if named := os.environ.get(f"PYTHON{version.replace('.', '_')}"):
        yield Path(named)
    versions = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    by_age = sorted(versions.glob(f"{version}.*"), key=lambda folder: [int(n) for n in re.findall(r"\d+", folder.name)])
    yield from (folder / "bin" / f"python{version}" for folder in reversed(by_age))
    if on_path := shutil.which(f"python{version}"):
        yield Path(on_path)


def runs_as(version: str, interpreter: Path) -> bool:
    """Tell whether it is one: a shim of pyenv exists, and does not run where the version was not chosen."""
    code = f"import sys, venv; sys.exit(sys.version_info[:2] != {tuple(map(int, version.split('.')))})"
    try:
        return subprocess.run([interpreter, "-c", code], capture_output=True, check=False).returncode == 0
    except OSError:
        return False


def main(arguments: list[str]) -> int:
    """Run tox's environment of the newest version that is found; return tox's exit code, or 0 without one."""
    ours = f"{sys.version_info.major}.{sys.version_info.minor}"  # all of the tests run under this one
    for version in reversed(supported()):
        if version == ours:
            continue
        found = next((path for path in candidates(version) if runs_as(version, path)), None)
        if found is None:
            sys.stdout.write(f"not tried, for it was not found on the PATH or behind pyenv: Python {version}\n")
            continue
        environment = {**os.environ, "PATH": os.pathsep.join([str(found.parent), os.environ["PATH"]])}
        name = f"py{version.replace('.', '')}"
        command = [sys.executable, "-m", "tox", "run", "-e", name, *(["--", *arguments] if arguments else [])]
        return subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
