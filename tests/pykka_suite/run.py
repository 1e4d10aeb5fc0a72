"""Run pykka's own tests with actors of ours, once with each runtime. ``tox -e tests`` does that, too.

pykka's tests are not in its wheel: pip downloads the source distribution of the version that is installed, from the
index that it is configured for, into DIRECTORY (without one, a temporary directory).

It takes about 20 seconds, nearly all of it in tests that wait for what must not happen here.

Usage: python run.py [DIRECTORY]
"""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from receipt_actors.otp import Runtime

HERE = Path(__file__).parent


def fetch(directory: Path) -> Path:
    """Download and unpack the source distribution; return its folder."""
    version = importlib.metadata.version("pykka")
    # pip asks even a package that it only downloads for its metadata: --no-build-isolation has it do so with the
    # hatchling of this environment.
    options = ["--quiet", "--no-binary", ":all:", "--no-deps", "--no-build-isolation", "--dest", directory]
    subprocess.run([sys.executable, "-m", "pip", "download", *options, f"pykka=={version}"], check=True)
    shutil.unpack_archive(directory / f"pykka-{version}.tar.gz", directory, filter="data")
    return directory / f"pykka-{version}"


def run(source: Path, runtime: Runtime) -> subprocess.CompletedProcess[str]:
    """Run the tests with one runtime."""
    options = ["-c", HERE / "pytest.ini", "--rootdir", source, "-p", "pykka_suite", "--runtime", runtime.value]
    search_path = [str(HERE), *filter(None, [os.environ.get("PYTHONPATH")])]
    return subprocess.run(
        [sys.executable, "-m", "pytest", *options, "tests"],
        cwd=source,  # first on sys.path, so that the package "tests" is pykka's
        env={**os.environ, "PYTHONPATH": os.pathsep.join(search_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )


def main(directory: Path) -> int:
    """Run the tests with either runtime, both at once; return the exit code."""
    source = fetch(directory)
    failed = False
    with ThreadPoolExecutor() as threads:
        for runtime, finished in zip(Runtime, threads.map(partial(run, source), Runtime), strict=True):
            sys.stdout.write(f"pykka's tests, {runtime.value} actors:\n{finished.stdout}\n")
            failed |= finished.returncode != 0
    return int(failed)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        sys.exit(main(Path(*sys.argv[1:2] or [temporary])))
