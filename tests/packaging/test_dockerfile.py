"""The image, as far as it goes without Docker: its build's own commands, and what it starts, as its user.

What only Docker does (the base image, the layers, the health check's schedule) is not here; hadolint reads the file.
"""

from __future__ import annotations

import fnmatch
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.patience import PATIENCE_SECONDS
from tests.ports import reserved_port

ROOT = Path(__file__).parents[2]
IMAGE_FOLDER = "/opt/receipt-actors"


def instructions() -> list[tuple[str, str]]:
    text = re.sub(r"(?m)^#.*\n", "", (ROOT / "Dockerfile").read_text(encoding="utf-8")).replace("\\\n", " ")
    return [(name, rest.strip()) for name, _, rest in (line.partition(" ") for line in text.splitlines() if line)]


def only(name: str) -> str:
    return [rest for each, rest in instructions() if each == name][-1]


@dataclass(frozen=True)
class Image:
    folder: Path
    environment: Mapping[str, str]
    user: Mapping[str, Any]  #: who runs it, as ``Popen`` has it


@pytest.fixture(scope="module")
def image() -> Iterator[Image]:
    """Carry out the first stage: copy what it copies, run what it runs; where others than root may see it."""
    with tempfile.TemporaryDirectory(prefix="image-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        places = {"/src": str(folder / "src"), IMAGE_FOLDER: str(folder / "opt")}
        for each, rest in instructions():
            if each == "COPY" and not rest.startswith("--from"):
                *sources, target = rest.split()
                for source in sources:
                    copy(ROOT / source, Path(target.replace("/src", places["/src"])), is_folder=target.endswith("/"))
        (script,) = [rest for each, rest in instructions() if each == "RUN" and "pip" in rest]
        for place, here in places.items():
            script = script.replace(place, here)
        bin_folder = str(Path(sys.executable).parent)
        environ = {"PATH": f"{bin_folder}:{os.environ['PATH']}", "HOME": name, "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
        passed_on = {
            key: value for key, value in os.environ.items() if key.startswith("PIP_") or key.endswith("_proxy")
        }
        python = shlex.quote(sys.executable)
        script = script.replace("python -m venv", f"{python} -m venv").replace(" pip ", f" {python} -m pip ")
        subprocess.run(["sh", "-c", script], env={**passed_on, **environ}, check=True, timeout=600)
        variables = dict(pair.split("=", 1) for pair in shlex.split(only("ENV").replace("$PATH", "/usr/bin:/bin")))
        variables["PATH"] = variables["PATH"].replace(IMAGE_FOLDER, places[IMAGE_FOLDER])
        yield Image(folder, variables, user_of(folder))


def copy(source: Path, target: Path, *, is_folder: bool) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
    else:
        target.mkdir(exist_ok=True) if is_folder else None
        shutil.copy(source, target)


def user_of(folder: Path) -> dict[str, Any]:
    """Be the image's user where we may become it, and where it may run this Python."""
    if os.getuid() != 0:
        return {}
    who = {"user": int(only("USER")), "group": int(only("USER")), "extra_groups": []}
    try:
        subprocess.run([folder / "opt/bin/python", "-c", "import receipt_actors"], **who, cwd="/", check=True)
    except (OSError, subprocess.CalledProcessError):
        return {}
    return who


def test_the_image_has_the_program_and_nothing_to_build_with(image: Image) -> None:
    commands = {path.name for path in (image.folder / "opt/bin").iterdir()}
    assert "receipt-actors" in commands
    assert not any(name.startswith("pip") for name in commands)
    assert list((image.folder / "opt").rglob("receipt_actors/__pycache__/*.pyc"))
    stages = [rest for each, rest in instructions() if each == "FROM"]
    assert len(stages) == 2
    assert all(re.match(r"python:3\.\d+-slim-\w+( AS build)?$", stage) for stage in stages)
    after = instructions()[[each for each, _rest in instructions()].index("FROM", 1) :]
    assert [rest for each, rest in after if each == "COPY"] == [f"--from=build {IMAGE_FOLDER} {IMAGE_FOLDER}"]


def test_the_context_is_what_is_copied() -> None:
    """No secret of a working copy gets to the builder: all is left out but what is named."""
    first, *others = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    assert first == "*"
    let_in = {line.removeprefix("!") for line in others if line.startswith("!")}
    copied = {
        source
        for each, rest in instructions()
        if each == "COPY" and "--from" not in rest
        for source in rest.split()[:-1]
    }
    assert let_in == copied
    assert any(fnmatch.fnmatch("receipt_actors/__pycache__", line.replace("**/", "*/")) for line in others)


@pytest.fixture
def port() -> Iterator[int]:
    with reserved_port() as port:
        yield port


def test_it_runs_as_somebody_who_owns_nothing(image: Image, port: int) -> None:
    assert int(only("USER")) > 0
    state = image.folder / "state"
    state.mkdir(mode=0o700)
    if image.user:
        os.chown(state, image.user["user"], image.user["group"])
    environment = {
        **image.environment,
        "HOME": "/nonexistent",
        "RECEIPT_ACTORS_ADMIN": f"127.0.0.1:{port}",
        "RECEIPT_ACTORS_DATABASE": str(state / "receipts.db"),
        "RECEIPT_ACTORS_BUNDLE_IDS": "com.example.game",
    }
    command = [*json.loads(only("ENTRYPOINT")), *json.loads(only("CMD"))]
    check = json.loads(only("HEALTHCHECK").partition("CMD ")[2])
    program = shutil.which(command[0], path=environment["PATH"])
    assert program is not None
    assert program == shutil.which(check[0], path=environment["PATH"])
    with subprocess.Popen(
        [program, *command[1:]], env=environment, cwd="/", stderr=subprocess.PIPE, text=True, **image.user
    ) as running:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while subprocess.run([program, *check[1:]], env=environment, cwd="/", check=False, **image.user).returncode:
            assert running.poll() is None, running.stderr and running.stderr.read()
            assert time.monotonic() < deadline
        running.send_signal(getattr(signal, only("STOPSIGNAL")))
        assert running.wait(PATIENCE_SECONDS) == 0
