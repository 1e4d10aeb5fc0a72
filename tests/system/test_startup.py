"""What a user meets before the first message: settings, and a world that is not there, or not yet."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest

from receipt_actors.sandbox.app_store import SimulatedAppStore
from receipt_actors.stores.apple.signatures.trust import apple_root
from tests.chaos.aws_proxy import AwsProxy
from tests.patience import PATIENCE_SECONDS

from .processes import Program, Programs
from .worlds import BUNDLE_ID, SOURCE, TABLE, AwsServer, AwsWorld, Refusal, genuine_messages

WORLD_FAILED = 1
WRONG_USAGE = 2
ASKED_AT_THE_START = ("GetQueueUrl", "GetQueueAttributes", "GetItem")
FAULTS = ("refused", "throttled", "cut")
WAITS = "the start has to wait"


@pytest.mark.short
def test_a_start_loads_what_it_uses(tmp_path: Path) -> None:
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


def test_a_statistics_file_that_cannot_be_written_is_a_failure(programs: Programs, tmp_path: Path) -> None:
    start = ("start", "--database", "receipts.db", "--bundle-ids", BUNDLE_ID, "--exit-when-idle", "0")
    file = tmp_path / "missing" / "statistics.json"
    program = programs.start(*start, "--statistics-file", str(file))
    assert program.wait_for_end() == WRONG_USAGE
    (line,) = program.stderr.splitlines()
    assert line.startswith(f"receipt-actors: --statistics-file: found '{file}'")
    assert not (tmp_path / "receipts.db").exists()
    program = programs.start(*start, "--statistics-file", "/dev/full")
    assert program.wait_for_end() == WORLD_FAILED
    assert "the statistics could not be written" in program.stderr


@pytest.mark.parametrize("command", ["start", "notifications"])
def test_a_trust_root_that_is_not_apples_is_told(
    programs: Programs, tmp_path: Path, command: str, store: SimulatedAppStore
) -> None:
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
        program.stop()
        assert program.stderr.count(told) == (1 if roots is theirs else 0)
        assert program.stderr.count("not Apple's") == program.stderr.count(told)


@pytest.fixture
def proxy(aws: AwsWorld, aws_server: AwsServer) -> Iterator[AwsProxy]:
    with closing(AwsProxy(aws_server.url, {}, seed=1613)) as proxy:
        aws.environment["AWS_ENDPOINT_URL"] = proxy.url
        yield proxy


@pytest.mark.parametrize("processes", [1, 2])
def test_a_start_among_faults_succeeds(
    aws: AwsWorld, proxy: AwsProxy, processes: int, store: SimulatedAppStore
) -> None:
    proxy.rates = {operation: dict.fromkeys(FAULTS, 0.5 / len(FAULTS)) for operation in ASKED_AT_THE_START}
    messages = genuine_messages(3, 1614)
    program = aws.start(store, processes=processes)
    program.wait_for_log("take receipts from")
    aws.send(messages)
    program.wait_until(lambda: aws.total(SOURCE) == 0, "all is answered")
    program.stop()
    assert proxy.happened.total() > 0
    assert program.stderr.count(WAITS) <= processes


@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.parametrize("stop_signal", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_wait(
    aws: AwsWorld, proxy: AwsProxy, processes: int, stop_signal: signal.Signals, store: SimulatedAppStore
) -> None:
    proxy.rates = {"GetItem": {"refused": 1.0}}
    program = aws.start(store, processes=processes)
    program.wait_until(partial(_all_wait, program, processes), "all of it waits")
    program.send_signal(stop_signal)
    assert program.wait_for_end() == 0


def _all_wait(program: Program, processes: int) -> bool:
    return program.stderr.count(WAITS) == processes


@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.parametrize(
    ("missing", "told"),
    [
        ("queue", SOURCE),
        ("table", TABLE),
        ("claims", "its time to live (ENABLED) deletes claims by their ClaimedAt"),
        ("permission", "AccessDenied"),
        ("credentials", "InvalidClientTokenId"),
    ],
)
def test_what_never_passes_ends_the_start_at_once(
    aws: AwsWorld, aws_server: AwsServer, processes: int, missing: str, told: str
) -> None:
    match missing:
        case "queue":
            aws.delete_queue(SOURCE)
        case "table":
            aws.delete_table(TABLE)
        case "claims":
            aws.expire_items("ClaimedAt")
        case _:
            aws_server.refused = frozenset({"GetQueueUrl"})
            aws_server.refusal = Refusal("403 Forbidden", told)
    program = aws.run({"bundle_ids": BUNDLE_ID, "processes": str(processes)})
    assert program.wait_for_end() == WORLD_FAILED
    (line,) = program.stderr.splitlines()
    assert line.startswith("receipt-actors: ")
    assert told in line


def test_an_endpoint_that_cannot_be_reached_is_told_at_once_and_at_the_end(account: AwsWorld) -> None:
    nobody = f"http://127.0.0.1:{account.programs.reserve_port()}"
    account.environment["AWS_ENDPOINT_URL"] = nobody
    program = account.run({"bundle_ids": BUNDLE_ID})
    program.wait_for_log("the start has to wait")
    assert program.wait_for_end() == WORLD_FAILED
    first, last = program.stderr.splitlines()
    assert nobody in first
    assert nobody in last
    assert last.startswith("receipt-actors: ")
