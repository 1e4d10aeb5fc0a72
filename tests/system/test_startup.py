"""What a user meets before the first message: settings, and a world that is not there."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from receipt_actors.sandbox.app_store import SimulatedAppStore
from receipt_actors.stores.apple.signatures.trust import apple_root
from tests.patience import PATIENCE_SECONDS

from .processes import Program, Programs
from .worlds import BUNDLE_ID, SOURCE, TABLE, AwsWorld

WORLD_FAILED = 1
WRONG_USAGE = 2


@pytest.mark.short
def test_every_fault_of_the_settings_is_told_at_once(programs: Programs, tmp_path: Path) -> None:
    """File, environment and flags in one go, one line each, code 2: nobody has to run it once for each mistake."""
    config = tmp_path / "receipts.toml"
    config.write_text('max_in_flite = 10\nledger_concurrency = "often"\n', encoding="utf-8")
    program = programs.start(
        "start",
        *("--config", str(config), "--visibility-timeout-seconds", "9", "--database", "receipts.db"),
        environment={"RECEIPT_ACTORS_CONSUMERS": "many", "RECEIPT_ACTORS_BUNDEL_IDS": "com.example.game"},
    )
    assert program.wait_for_end() == WRONG_USAGE
    lines = program.stderr.splitlines()
    wrong = (
        "max_in_flite",
        "ledger_concurrency",
        "--visibility-timeout-seconds",
        "RECEIPT_ACTORS_CONSUMERS",
        "RECEIPT_ACTORS_BUNDEL_IDS",
        "--bundle-ids",
    )
    for name in wrong:
        assert sum(name in line for line in lines) == 1
    assert len(lines) == len(wrong)
    assert not (tmp_path / "receipts.db").exists()


@pytest.mark.short
def test_a_flag_beats_a_variable_and_a_variable_beats_the_file(programs: Programs, tmp_path: Path) -> None:
    """Seen in what the running program says of itself."""
    config = tmp_path / "receipts.toml"
    config.write_text(
        f'source_queue = "FromTheFile"\nconsumers = 1\nmax_in_flight = 10\nbundle_ids = ["{BUNDLE_ID}"]\n',
        encoding="utf-8",
    )
    program = programs.start(
        "start",
        *("--max-in-flight", "30", "--database", "receipts.db", "--exit-when-idle", "0"),
        environment={
            "RECEIPT_ACTORS_CONFIG": str(config),
            "RECEIPT_ACTORS_CONSUMERS": "2",
            "RECEIPT_ACTORS_MAX_IN_FLIGHT": "20",
        },
    )
    assert program.wait_for_end() == 0
    assert "2 consumers take receipts from FromTheFile (embedded), at most 30 in flight" in program.stderr


def test_a_statistics_file_that_cannot_be_is_told_before_anything_is_done(programs: Programs, tmp_path: Path) -> None:
    """And not at the end, when the statistics would be lost."""
    file = tmp_path / "missing" / "statistics.json"
    program = programs.start(
        *("start", "--database", "receipts.db", "--bundle-ids", BUNDLE_ID, "--statistics-file", str(file))
    )
    _ends_with_one_line(program, WRONG_USAGE, naming=f"--statistics-file: found '{file}'")
    assert not (tmp_path / "receipts.db").exists()


@pytest.mark.parametrize("command", ["start", "notifications"])
def test_a_trust_root_that_is_not_apples_is_told(programs: Programs, tmp_path: Path, command: str) -> None:
    """In a line of the log, with its name and the setting: its owner can sign purchases. Apple's own needs none."""
    with SimulatedAppStore() as store:
        theirs = store.write_files(tmp_path / "theirs").roots
    apples = tmp_path / "apples"
    apples.mkdir()
    (apples / "root.cer").write_bytes(apple_root())
    where = (command, "--database", str(tmp_path / "receipts.db"), "--bundle-ids", BUNDLE_ID)
    told = "--apple-roots trusts Simulated App Store Root CA, not Apple's: its owner can sign purchases that count here"
    begun = {"start": ("consumers take receipts", ()), "notifications": ("notifications are taken", ("--port", "0"))}
    for roots in (theirs, apples):
        program = programs.start(*where, "--apple-roots", str(roots), *begun[command][1])
        program.wait_for_log(begun[command][0])
        program.send_signal(signal.SIGTERM)
        assert program.wait_for_end() == 0
        assert program.stderr.count(told) == (1 if roots is theirs else 0)
        assert program.stderr.count("not Apple's") == program.stderr.count(told)


@pytest.mark.parametrize("processes", ["1", "2"])
def test_a_standby_does_not_say_that_it_takes_receipts(programs: Programs, tmp_path: Path, processes: str) -> None:
    """It says what it is ready for, and that it stands by; several processes begin with the node's turn."""
    where = ("start", "--database", str(tmp_path / "receipts.db"), "--bundle-ids", BUNDLE_ID)
    sharing = (*where, "--role", "active-standby", "--processes", processes)
    active = programs.start(*sharing)
    active.wait_for_log(" is active ")
    standby = programs.start(*sharing)
    standby.wait_for_log(" stands by for ")
    if processes == "1":
        standby.wait_for_log("consumers are ready; while this node is active, they take receipts from")
    assert "consumers take receipts" not in standby.stderr


def test_statistics_that_cannot_be_written_are_a_failure(programs: Programs) -> None:
    """All was done, but for what a script waits for: exit code 1."""
    program = programs.start(
        *("start", "--database", "receipts.db", "--bundle-ids", BUNDLE_ID),
        *("--exit-when-idle", "0", "--statistics-file", "/dev/full"),
    )
    assert program.wait_for_end() == WORLD_FAILED
    assert "the statistics could not be written" in program.stderr


@pytest.mark.short
def test_a_source_queue_that_does_not_exist_is_told_in_a_line(account: AwsWorld) -> None:
    """Its name is in the message: most likely it is misspelt, or the region is wrong."""
    account.create_table()
    _ends_with_one_line(account.run({"bundle_ids": BUNDLE_ID}), WORLD_FAILED, naming=SOURCE)


def test_a_table_that_does_not_exist_is_told_in_a_line(account: AwsWorld) -> None:
    """Better now than at the first purchase."""
    account.create_queues()
    _ends_with_one_line(account.run({"bundle_ids": BUNDLE_ID}), WORLD_FAILED, naming=TABLE)


def test_a_table_that_deletes_claims_is_told_in_a_line(account: AwsWorld) -> None:
    """No receipt is taken: a transaction whose claim is gone would get OK once more."""
    account.create_queues()
    account.create_table()
    account.expire_items("ClaimedAt")
    program = account.run({"bundle_ids": BUNDLE_ID})
    _ends_with_one_line(program, WORLD_FAILED, naming="its time to live (ENABLED) deletes claims by their ClaimedAt")


def test_an_endpoint_that_cannot_be_reached_is_told_at_once_and_at_the_end(account: AwsWorld) -> None:
    """With its address, which is what is wrong; it may be a service that is started a moment later."""
    nobody = f"http://127.0.0.1:{account.programs.reserve_port()}"
    account.environment["AWS_ENDPOINT_URL"] = nobody
    program = account.run({"bundle_ids": BUNDLE_ID})
    program.wait_for_log("the start has to wait")
    assert program.wait_for_end() == WORLD_FAILED
    first, last = program.stderr.splitlines()
    assert nobody in first
    assert nobody in last
    assert last.startswith("receipt-actors: ")


@pytest.mark.parametrize("contents", [b"not a database, but long enough to be looked at " * 40, None])
def test_a_database_that_cannot_be_used_is_told_in_a_line(
    programs: Programs, tmp_path: Path, contents: bytes | None
) -> None:
    """A file of another sort is left as it was; a directory that is missing is not made up."""
    database = tmp_path / "missing" / "receipts.db" if contents is None else tmp_path / "notes.txt"
    if contents is not None:
        database.write_bytes(contents)
    program = programs.start("start", "--database", str(database), "--bundle-ids", BUNDLE_ID)
    _ends_with_one_line(program, WRONG_USAGE, naming=str(database))
    assert (database.read_bytes() if contents is not None else None) == contents


def _ends_with_one_line(program: Program, code: int, *, naming: str) -> None:
    assert program.wait_for_end() == code
    assert program.stdout == ""
    (line,) = program.stderr.splitlines()
    assert line.startswith("receipt-actors: ")
    assert naming in line


@pytest.mark.short
def test_a_start_loads_what_it_uses(tmp_path: Path) -> None:
    """Nothing of what other backends, other ways and other commands take: each takes its time."""
    program = """
import sys
from receipt_actors.cli import main
assert main(["start", "--database", "receipts.db", "--bundle-ids", "com.example.game", "--exit-when-idle", "0"]) == 0
ours = ("admin", "aws", "otp.gen_statem", "sandbox", "scale.processes.group", "telemetry.embedded_metrics")
others = ("appstoreserverlibrary", "boto3", "cryptography", "opentelemetry")
of_admin = ("prometheus_client", "starlette", "uvicorn")
print(*({*others, *of_admin, *(f"receipt_actors.{name}" for name in ours)} & sys.modules.keys()))
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
        check=True,
    )
    assert done.stdout.strip() == ""
