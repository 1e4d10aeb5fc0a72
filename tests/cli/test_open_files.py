"""The limit on open files: raised where that is allowed, refused in words where it is not."""

from __future__ import annotations

import resource
from pathlib import Path

from tests.patience import PATIENCE_SECONDS

from .conftest import BUNDLE_ID, Processes


def limited(soft: int, hard: int) -> str:
    """A program that lowers its own limits, then is ``receipt-actors`` and shows the soft limit that it ended with."""
    return (
        "import resource, sys\n"
        f"resource.setrlimit(resource.RLIMIT_NOFILE, ({soft}, {hard}))\n"
        "from receipt_actors.cli import main\n"
        "code = main()\n"
        "print(resource.getrlimit(resource.RLIMIT_NOFILE)[0])\n"
        "sys.exit(code)\n"
    )


def start_of(database: Path) -> tuple[str, ...]:
    return ("start", "--database", str(database), "--bundle-ids", BUNDLE_ID, "--exit-when-idle", "0")


def test_a_soft_limit_that_is_too_low_is_raised(processes: Processes, tmp_path: Path) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    process = processes.start(*start_of(tmp_path / "r.db"), program=("-c", limited(256, hard)))
    out, err = process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == 0, err
    assert int(out) > 256


def test_a_hard_limit_that_is_too_low_is_told_before_anything_starts(processes: Processes, tmp_path: Path) -> None:
    process = processes.start(*start_of(tmp_path / "r.db"), program=("-c", limited(256, 256)))
    _, err = process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == 2
    assert err.count("\n") == 1
    assert "these settings need" in err
    assert "the hard limit is 256" in err
    assert not (tmp_path / "r.db").exists()
