"""What users get: the wheel, the sdist, and the commands that the README tells them to type.

These tests build and install, so they want ``build``, ``twine`` and a package index; ``tox -e tests`` has them.
"""

from __future__ import annotations

import configparser
import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FIRST_WORDS = "python3 -m venv .venv && "


def run(*command: str | Path, cwd: Path) -> str:
    """Run a command as a user would, outside of the environment of these tests; a failure shows all it said."""
    environ = {
        name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV", "AWS_"))
    }
    environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), environ["PATH"]])
    done = subprocess.run(
        command, cwd=cwd, env=environ, timeout=600, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    assert done.returncode == 0, f"{command} ended with {done.returncode}:\n{done.stdout}"
    return done.stdout


def readme_commands() -> list[str]:
    lines = (ROOT / "README.rst").read_text(encoding="utf-8").splitlines()
    return [line.strip() for line in lines if line.strip().startswith(FIRST_WORDS)]


@pytest.fixture(scope="module")
def distributions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--outdir", folder, ROOT, cwd=folder)
    return folder


@pytest.fixture(scope="module")
def tried(distributions: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Type the README's first command, word for word, where the sdist was unpacked; the folder has its ``.venv``."""
    folder = tmp_path_factory.mktemp("tried")
    (sdist,) = distributions.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        archive.extractall(folder, filter="data")
    (unpacked,) = folder.iterdir()
    run("bash", "-c", readme_commands()[0], cwd=unpacked)
    return unpacked


def test_both_distributions_are_fit_for_an_index(distributions: Path) -> None:
    files = sorted(distributions.iterdir())
    assert [file.suffix for file in files] == [".whl", ".gz"] or [file.suffix for file in files] == [".gz", ".whl"]
    run(sys.executable, "-m", "twine", "check", "--strict", *files, cwd=distributions)


def test_the_wheel_has_every_file_of_the_package_and_nothing_else(distributions: Path) -> None:
    (wheel,) = distributions.glob("*.whl")
    packed = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    files = {
        path for path in (ROOT / "receipt_actors").rglob("*") if path.is_file() and "__pycache__" not in path.parts
    }
    assert packed == {path.relative_to(ROOT).as_posix() for path in files}


def test_the_readme_first_command_works_in_an_empty_environment(tried: Path) -> None:
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg", encoding="utf-8")
    version = setup["metadata"]["version"]
    assert run(tried / ".venv/bin/receipt-actors", "--version", cwd=tried) == f"receipt-actors, version {version}\n"
    assert "No broken requirements" in run(tried / ".venv/bin/pip", "check", cwd=tried)


def test_help_is_there_for_every_command(tried: Path) -> None:
    program = tried / ".venv/bin/receipt-actors"
    commands = run(program, "--help", cwd=tried).partition("\nCommands:\n")[2].partition("\n\n")[0].splitlines()
    names = [line.split()[0] for line in commands if line.startswith("  ") and not line.startswith("   ")]
    assert {"demo", "start"} <= set(names)
    loop = f"for name in {names}:\n    cli.main([name, '--help'], 'receipt-actors', standalone_mode=False)"
    told = run(tried / ".venv/bin/python", "-c", f"from receipt_actors.cli import cli\n{loop}", cwd=tried)
    assert [name for name in names if f"Usage: receipt-actors {name}" not in told] == []


def test_ci_runs_the_readme_second_command() -> None:
    _, test_command = readme_commands()
    last_line = (ROOT / ".ci/run").read_text(encoding="utf-8").splitlines()[-1]
    assert last_line == test_command
