"""The processes that verify signatures: real ones, killed, stopped and orphaned."""

from __future__ import annotations

import os
import queue
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from receipt_actors.errors import AppStoreUnavailable, ConfigurationError
from receipt_actors.stores.apple.ports import SignatureRefused, SignedData, SignedKind
from receipt_actors.stores.apple.signatures.jws import MAX_SIGNED_CHARACTERS
from receipt_actors.stores.apple.signatures.process import (
    MAX_BATCH,
    MAX_DEATHS,
    PROGRAM,
    SignedDataAtOnce,
    SignedDataProcess,
)
from receipt_actors.stores.apple.signatures.trust import Trust
from receipt_actors.testing import PATIENCE_SECONDS, FakeSignedData
from receipt_actors.transport.messages import wait_for
from tests.stores.apple.signing import TRANSACTION, TestAuthority
from tests.transport import places

ROOT = Path(__file__).parents[2]
DYING_WORKER = Path(__file__).with_name("dying_worker.py")
APPLE = TestAuthority()
TRUST = Trust([APPLE.root.der])
GENUINE = APPLE.sign()

Told = queue.SimpleQueue[tuple[int, object]]


@contextmanager
def running(answer_seconds: float = 60.0, program: Sequence[str] = PROGRAM) -> Iterator[SignedDataProcess]:
    with places.running(SignedDataProcess(lambda: TRUST, answer_seconds, program)) as signed_data:
        yield signed_data


def verify(signed_data: SignedDataProcess, text: str = GENUINE) -> object:
    return wait_for(lambda done: signed_data.begin(SignedKind.TRANSACTION, text, done))


def begin(signed_data: SignedDataProcess, told: Told, numbers: range) -> None:
    for number in numbers:
        text = APPLE.sign({**TRANSACTION, "transactionId": str(number)})
        signed_data.begin(SignedKind.TRANSACTION, text, lambda outcome, n=number: told.put((n, outcome)))  # type: ignore[misc]


def collect(told: Told, count: int) -> dict[int, object]:
    found: dict[int, object] = {}
    for _ in range(count):
        number, outcome = told.get(timeout=PATIENCE_SECONDS)
        assert number not in found
        found[number] = outcome["transactionId"] if isinstance(outcome, dict) else outcome
    return found


def await_end(pid: int) -> None:
    """Wait until a process, which may be anybody's child, has ended; a zombie has."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        assert select.select([descriptor], [], [], PATIENCE_SECONDS)[0], f"process {pid} goes on"
    finally:
        os.close(descriptor)


@contextmanager
def stopped(pid: int) -> Iterator[None]:
    """Have a process stand still: whatever it is given meanwhile it has not answered."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


def id_of(signed_data: SignedDataProcess) -> int:
    verify(signed_data)
    assert signed_data.process_id is not None
    return signed_data.process_id


def test_the_process_starts_with_the_first_work() -> None:
    with running() as signed_data:
        assert isinstance(verify(signed_data, "x" * (MAX_SIGNED_CHARACTERS + 1)), SignatureRefused)
        assert signed_data.process_id is None
        assert verify(signed_data) == TRANSACTION
        assert signed_data.process_id is not None


def test_a_flood_of_the_largest_gets_through() -> None:
    filling = "é" * (MAX_SIGNED_CHARACTERS // 16)
    text = APPLE.sign({**TRANSACTION, "filling": filling})
    assert len(text) < MAX_SIGNED_CHARACTERS
    outcomes: queue.SimpleQueue[object] = queue.SimpleQueue()
    with running() as signed_data:
        for _ in range(8 * MAX_BATCH):
            signed_data.begin(SignedKind.TRANSACTION, text, outcomes.put)
        for _ in range(8 * MAX_BATCH):
            assert outcomes.get(timeout=PATIENCE_SECONDS) == {**TRANSACTION, "filling": filling}


def test_a_done_that_raises_harms_nobody() -> None:
    def raise_it(_outcome: object) -> None:
        raise RuntimeError("not now")

    with running() as signed_data:
        signed_data.begin(SignedKind.TRANSACTION, GENUINE, raise_it)
        assert verify(signed_data) == TRANSACTION


def test_stop_signals_do_not_concern_it() -> None:
    with running() as signed_data:
        told: Told = queue.SimpleQueue()
        begin(signed_data, told, range(1))
        deadline = time.monotonic() + PATIENCE_SECONDS
        while (pid := signed_data.process_id) is None:
            assert time.monotonic() < deadline
        os.kill(pid, signal.SIGTERM)
        assert collect(told, 1) == {0: "0"}
        os.kill(pid, signal.SIGINT)
        os.kill(pid, signal.SIGTERM)
        begin(signed_data, told, range(64))
        assert collect(told, 64) == {number: str(number) for number in range(64)}
        assert signed_data.process_id == pid


def test_one_that_is_killed_is_replaced_and_its_work_is_done_again() -> None:
    with running() as signed_data:
        victim = id_of(signed_data)
        told: Told = queue.SimpleQueue()
        with stopped(victim):
            begin(signed_data, told, range(100))
            os.kill(victim, signal.SIGKILL)
        assert collect(told, 100) == {number: str(number) for number in range(100)}
        assert told.empty()
        assert id_of(signed_data) != victim


def test_one_that_does_not_answer_is_replaced() -> None:
    with running(answer_seconds=1.0) as signed_data:
        victim = id_of(signed_data)
        told: Told = queue.SimpleQueue()
        with stopped(victim):
            begin(signed_data, told, range(3))
            assert collect(told, 3) == {number: str(number) for number in range(3)}
        await_end(victim)


def test_what_kills_every_process_is_given_up_and_the_rest_is_not() -> None:
    with running(program=[str(DYING_WORKER)]) as signed_data:
        told: Told = queue.SimpleQueue()
        for number, text in enumerate(["fine", "fine", "die", "fine", "die", "fine"]):
            signed_data.begin(SignedKind.TRANSACTION, text, lambda outcome, n=number: told.put((n, outcome)))  # type: ignore[misc]
        outcomes = collect(told, 6)
        for number in (2, 4):
            assert isinstance(outcomes[number], AppStoreUnavailable)
            assert str(outcomes[number]) == f"{MAX_DEATHS} processes died while they verified this signature"
        assert [outcomes[number] for number in (0, 1, 3, 5)] == ["fine"] * 4


def test_where_none_can_start_those_who_wait_are_told() -> None:
    with running(program=["-c", "exit(7)"]) as signed_data:
        for _ in range(3):
            with pytest.raises(
                AppStoreUnavailable, match=r"verified: process \d+ ended \(exit status 7\) before it was ready"
            ):
                verify(signed_data)


def test_where_there_is_no_interpreter_those_who_wait_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    with running() as signed_data:
        with monkeypatch.context() as context:
            context.setattr(sys, "executable", "/no/such/python")
            with pytest.raises(AppStoreUnavailable, match="No such file or directory"):
                verify(signed_data)
        assert await_recovery(signed_data) == TRANSACTION


def test_a_fault_of_the_configuration_is_told_until_it_is_put_right() -> None:
    faults = ["apple_roots: found nothing"]

    def read_trust() -> Trust:
        if faults:
            raise ConfigurationError(faults)
        return TRUST

    with places.running(SignedDataProcess(read_trust)) as signed_data:
        with pytest.raises(ConfigurationError, match="found nothing"):
            verify(signed_data)
        assert signed_data.process_id is None
        faults.clear()
        assert verify(signed_data) == TRANSACTION


def test_a_library_that_cannot_be_used_is_a_fault_of_the_configuration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = tmp_path / "appstoreserverlibrary"
    broken.mkdir()
    (broken / "__init__.py").write_text("raise ImportError('no libcrypto here')")
    with running() as signed_data:
        with monkeypatch.context() as context:
            context.setenv("PYTHONPATH", str(tmp_path))
            with pytest.raises(ConfigurationError, match=r"no libcrypto here, expected app-store-server-library"):
                verify(signed_data)
        assert await_recovery(signed_data) == TRANSACTION


def await_recovery(signed_data: SignedDataProcess) -> object:
    while True:
        try:
            return verify(signed_data)
        except (AppStoreUnavailable, ConfigurationError):
            continue


def test_close_gives_up_what_is_under_way() -> None:
    told: Told = queue.SimpleQueue()
    with running() as signed_data:
        pid = id_of(signed_data)
        with stopped(pid):
            begin(signed_data, told, range(100))
            signed_data.close()
        outcomes = collect(told, 100)
        assert {type(outcome) for outcome in outcomes.values()} == {AppStoreUnavailable}
        await_end(pid)
        with pytest.raises(AppStoreUnavailable, match="closed"):
            verify(signed_data)
    assert told.empty()


PARENT = """
import queue
import sys
from base64 import b64decode
from receipt_actors.otp import ActorSystem
from receipt_actors.stores.apple.ports import SignedKind
from receipt_actors.stores.apple.signatures.trust import Trust
from receipt_actors.stores.apple.signatures.process import SignedDataProcess

signed_data = SignedDataProcess(lambda: Trust([b64decode(sys.argv[1])]))
signed_data.run_on(ActorSystem("parent").scheduler)
outcomes = queue.SimpleQueue()
signed_data.begin(SignedKind.TRANSACTION, sys.argv[2], outcomes.put)
assert outcomes.get()["transactionId"] == "2000000001"
print(signed_data.process_id, flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("is_killed", [True, False], ids=["killed", "just ends"])
def test_it_ends_with_a_parent_that_did_not_close_it(is_killed: bool) -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, APPLE.root.x5c, GENUINE],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    with parent:
        assert parent.stdout is not None and parent.stdin is not None
        pid = int(parent.stdout.readline())
        if is_killed:
            parent.kill()
        else:
            parent.stdin.close()
        assert parent.wait(PATIENCE_SECONDS) == (-signal.SIGKILL if is_killed else 0)
        await_end(pid)


def test_their_log_has_nothing_of_what_they_verify(capfd: pytest.CaptureFixture[str]) -> None:
    with running() as signed_data:
        for text in (GENUINE, GENUINE[:-4] + "AAAA", "secret.secret.secret", "\ud800"):
            verify(signed_data, text)
        victim = id_of(signed_data)
        os.kill(victim, signal.SIGKILL)
        await_end(victim)  # idle
        assert verify(signed_data) == TRANSACTION
    captured = capfd.readouterr()
    assert "secret" not in captured.out + captured.err
    assert GENUINE[:20] not in captured.out + captured.err


# --- where there is no epoll ---


def test_without_a_process_the_outcome_is_there_at_once_and_a_failed_opening_is_tried_again() -> None:
    apple = FakeSignedData()
    fault = ConfigurationError(["found no library"])
    openings: list[SignedData | Exception] = [fault, KeyError("bug"), apple]
    outcomes: list[Any] = []

    def open_signed_data() -> SignedData:
        opened = openings.pop(0)
        if isinstance(opened, Exception):
            raise opened
        return opened

    with closing(SignedDataAtOnce(open_signed_data)) as signed_data:
        for _ in range(4):
            signed_data.begin(SignedKind.TRANSACTION, apple.sell("7"), outcomes.append)
        signed_data.begin(SignedKind.NOTIFICATION, "a.b.c", outcomes.append)
    assert outcomes[0] is fault
    assert isinstance(outcomes[1], KeyError)
    assert [each["transactionId"] for each in outcomes[2:4]] == ["7", "7"]
    assert isinstance(outcomes[4], SignatureRefused)
