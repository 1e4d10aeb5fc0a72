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
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Protocol

import pytest

from receipt_actors.errors import AppStoreUnavailable, ConfigurationError
from receipt_actors.stores.apple.ports import SignatureRefused, SignedKind
from receipt_actors.stores.apple.signatures.jws import MAX_SIGNED_CHARACTERS
from receipt_actors.stores.apple.signatures.processes import MAX_BATCH, MAX_DEATHS, PROGRAM, SignedDataProcesses
from receipt_actors.stores.apple.signatures.signed_data import Trust
from receipt_actors.testing import PATIENCE_SECONDS
from tests.stores.apple.signing import TRANSACTION, TestAuthority, Waiting
from tests.transport import places

ROOT = Path(__file__).parents[2]
DYING_WORKER = Path(__file__).with_name("dying_worker.py")
APPLE = TestAuthority()
TRUST = Trust([APPLE.root.der])
GENUINE = APPLE.sign()

Told = queue.SimpleQueue[tuple[int, object]]


class Running(Protocol):
    """Opens processes."""

    def __call__(
        self, processes: int = 1, answer_seconds: float = 60.0, program: Sequence[str] = PROGRAM
    ) -> AbstractContextManager[SignedDataProcesses]: ...


@pytest.fixture
def running() -> Running:
    @contextmanager
    def run(
        processes: int = 1, answer_seconds: float = 60.0, program: Sequence[str] = PROGRAM
    ) -> Iterator[SignedDataProcesses]:
        opened = SignedDataProcesses(lambda: TRUST, processes, answer_seconds, program)
        with places.running(opened) as signed_data:
            yield signed_data

    return run


def verify(signed_data: SignedDataProcesses, text: str = GENUINE) -> object:
    return Waiting(signed_data).verify_transaction(text)


def begin(signed_data: SignedDataProcesses, told: Told, numbers: range) -> None:
    for number in numbers:
        text = APPLE.sign({**TRANSACTION, "transactionId": str(number)})
        signed_data.begin(SignedKind.TRANSACTION, text, lambda outcome, n=number: told.put((n, outcome)))  # type: ignore[misc]


def collect(told: Told, count: int) -> dict[int, object]:
    """Wait for so many to be told; fail if one is told twice."""
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


def test_processes_start_with_the_first_work(running: Running) -> None:
    """Who never has a signed transaction pays for none; the first one starts as many as there are to be."""
    with running(processes=2) as signed_data:
        assert signed_data.process_ids == []
        assert verify(signed_data) == TRANSACTION
        assert len(set(signed_data.process_ids)) == 2


def test_what_is_too_large_is_refused_here(running: Running) -> None:
    """No process is started for it, nor sent a megabyte."""
    with running() as signed_data:
        assert isinstance(verify(signed_data, "x" * (MAX_SIGNED_CHARACTERS + 1)), SignatureRefused)
        assert signed_data.process_ids == []


def test_a_flood_of_the_largest_gets_through(running: Running) -> None:
    """More than sockets hold at once, in both directions."""
    filling = "é" * (MAX_SIGNED_CHARACTERS // 16)
    text = APPLE.sign({**TRANSACTION, "filling": filling})
    assert len(text) < MAX_SIGNED_CHARACTERS
    outcomes: queue.SimpleQueue[object] = queue.SimpleQueue()
    with running(processes=2) as signed_data:
        for _ in range(8 * MAX_BATCH):
            signed_data.begin(SignedKind.TRANSACTION, text, outcomes.put)
        for _ in range(8 * MAX_BATCH):
            assert outcomes.get(timeout=PATIENCE_SECONDS) == {**TRANSACTION, "filling": filling}


def test_stop_signals_do_not_concern_them(running: Running) -> None:
    """Ctrl-C and a service manager's SIGTERM reach them as well; as long as the parent drains, they work."""
    with running(processes=2) as signed_data:
        verify(signed_data)
        before = list(signed_data.process_ids)
        for pid in before:
            os.kill(pid, signal.SIGINT)
            os.kill(pid, signal.SIGTERM)
        told: Told = queue.SimpleQueue()
        begin(signed_data, told, range(64))
        assert collect(told, 64) == {number: str(number) for number in range(64)}
        assert list(signed_data.process_ids) == before


def test_signals_that_come_while_they_start_do_not_concern_them_either(running: Running) -> None:
    """Until an interpreter can ignore them they are held up."""
    with running(processes=2) as signed_data:
        told: Told = queue.SimpleQueue()
        begin(signed_data, told, range(1))
        deadline = time.monotonic() + PATIENCE_SECONDS
        while len(before := list(signed_data.process_ids)) < 2:
            assert time.monotonic() < deadline
        for pid in before:
            os.kill(pid, signal.SIGTERM)
        assert collect(told, 1) == {0: "0"}
        assert list(signed_data.process_ids) == before


def test_one_that_is_killed_is_replaced_and_its_work_is_done_again(running: Running) -> None:
    """What it had been given is told once each, and rightly; so is what the others were given."""
    with running(processes=2) as signed_data:
        verify(signed_data)
        victim, other = signed_data.process_ids
        told: Told = queue.SimpleQueue()
        with stopped(victim):
            begin(signed_data, told, range(100))
            os.kill(victim, signal.SIGKILL)
        assert collect(told, 100) == {number: str(number) for number in range(100)}
        assert told.empty()
        assert victim not in signed_data.process_ids
        assert other in signed_data.process_ids


def test_one_that_is_killed_idle_is_replaced(running: Running) -> None:
    """By the next work, which does not notice."""
    with running() as signed_data:
        verify(signed_data)
        (victim,) = signed_data.process_ids
        os.kill(victim, signal.SIGKILL)
        await_end(victim)
        assert verify(signed_data) == TRANSACTION
        assert victim not in signed_data.process_ids


def test_one_that_does_not_answer_is_replaced(running: Running) -> None:
    """A process that hangs is killed after its time, and what it had is done by another."""
    with running(answer_seconds=1.0) as signed_data:
        verify(signed_data)
        (victim,) = signed_data.process_ids
        told: Told = queue.SimpleQueue()
        with stopped(victim):
            begin(signed_data, told, range(3))
            assert collect(told, 3) == {number: str(number) for number in range(3)}
        await_end(victim)


def test_what_kills_every_process_is_given_up_and_the_rest_is_not(running: Running) -> None:
    """A JWS at which processes die (none is known) is told to be unavailable in the end; what came with it passes."""
    with running(program=[str(DYING_WORKER)]) as signed_data:
        told: Told = queue.SimpleQueue()
        for number, text in enumerate(["fine", "fine", "die", "fine", "die", "fine"]):
            signed_data.begin(SignedKind.TRANSACTION, text, lambda outcome, n=number: told.put((n, outcome)))  # type: ignore[misc]
        outcomes = collect(told, 6)
        for number in (2, 4):
            assert isinstance(outcomes[number], AppStoreUnavailable)
            assert str(outcomes[number]) == f"{MAX_DEATHS} processes died while they verified this signature"
        assert [outcomes[number] for number in (0, 1, 3, 5)] == ["fine"] * 4


def test_where_none_can_start_those_who_wait_are_told(running: Running) -> None:
    """With the exit status; those who come while it rests, too, and it is tried again afterwards."""
    with running(processes=2, program=["-c", "exit(7)"]) as signed_data:
        for _ in range(3):
            with pytest.raises(
                AppStoreUnavailable, match=r"verified: process \d+ ended \(exit status 7\) before it was ready"
            ):
                verify(signed_data)


def test_where_there_is_no_interpreter_those_who_wait_are_told(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With what the system says; and it works as soon as it can."""
    with running() as signed_data:
        with monkeypatch.context() as context:
            context.setattr(sys, "executable", "/no/such/python")
            with pytest.raises(AppStoreUnavailable, match="No such file or directory"):
                verify(signed_data)
        assert await_recovery(signed_data) == TRANSACTION


def test_a_fault_of_the_configuration_is_told_until_it_is_put_right() -> None:
    """Root certificates that can't be read: whoever wants to know hears of it, and no process is started."""
    faults = ["apple_roots: found nothing"]

    def read_trust() -> Trust:
        if faults:
            raise ConfigurationError(faults)
        return TRUST

    with places.running(SignedDataProcesses(read_trust, 1)) as signed_data:
        with pytest.raises(ConfigurationError, match="found nothing"):
            verify(signed_data)
        assert signed_data.process_ids == []
        faults.clear()
        assert verify(signed_data) == TRANSACTION


def test_a_library_that_cannot_be_used_is_a_fault_of_the_configuration(
    running: Running, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The processes find out, and those who wait hear what to install; once that is done, it works."""
    broken = tmp_path / "appstoreserverlibrary"
    broken.mkdir()
    (broken / "__init__.py").write_text("raise ImportError('no libcrypto here')")
    with running() as signed_data:
        with monkeypatch.context() as context:
            context.setenv("PYTHONPATH", str(tmp_path))
            with pytest.raises(ConfigurationError, match=r"no libcrypto here, expected app-store-server-library"):
                verify(signed_data)
        assert await_recovery(signed_data) == TRANSACTION


def await_recovery(signed_data: SignedDataProcesses) -> object:
    """Ask, as a gateway would, until it rests no more."""
    while True:
        try:
            return verify(signed_data)
        except (AppStoreUnavailable, ConfigurationError):
            continue


def test_close_gives_up_what_is_under_way(running: Running) -> None:
    """Everybody is told once, nobody can begin anything any more, no process is left; closing again does nothing."""
    told: Told = queue.SimpleQueue()
    with running(processes=2) as signed_data:
        verify(signed_data)
        pids = list(signed_data.process_ids)
        with stopped(pids[0]), stopped(pids[1]):
            begin(signed_data, told, range(100))
            signed_data.close()
        outcomes = collect(told, 100)
        assert {type(outcome) for outcome in outcomes.values()} == {AppStoreUnavailable}
        for pid in pids:
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
from receipt_actors.stores.apple.signatures.signed_data import Trust
from receipt_actors.stores.apple.signatures.processes import SignedDataProcesses

signed_data = SignedDataProcesses(lambda: Trust([b64decode(sys.argv[1])]), 2)
signed_data.run_on(ActorSystem("parent").scheduler)
outcomes = queue.SimpleQueue()
signed_data.begin(SignedKind.TRANSACTION, sys.argv[2], outcomes.put)
assert outcomes.get()["transactionId"] == "2000000001"
print(*signed_data.process_ids, flush=True)
sys.stdin.read()
"""


@contextmanager
def a_parent() -> Iterator[tuple[subprocess.Popen[str], list[int]]]:
    """A program with two processes that verify, and their ids. No guard for a main module: it is not imported again."""
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, APPLE.root.x5c, GENUINE],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    with parent:
        assert parent.stdout is not None
        yield parent, [int(pid) for pid in parent.stdout.readline().split()]
        parent.kill()


def test_they_end_with_a_parent_that_is_killed() -> None:
    """kill -9 of the parent leaves no orphans."""
    with a_parent() as (parent, pids):
        assert len(pids) == 2
        parent.send_signal(signal.SIGKILL)
        assert parent.wait(PATIENCE_SECONDS) == -signal.SIGKILL
        for pid in pids:
            await_end(pid)


def test_they_end_with_a_parent_that_never_closed_them() -> None:
    """A program that just ends, ends as if it had never had them, and leaves none."""
    with a_parent() as (parent, pids):
        assert parent.stdin is not None
        parent.stdin.close()
        assert parent.wait(PATIENCE_SECONDS) == 0
        for pid in pids:
            await_end(pid)


def test_their_log_has_nothing_of_what_they_verify(running: Running, capfd: pytest.CaptureFixture[str]) -> None:
    """Neither a genuine nor a hostile JWS shows up anywhere."""
    with running() as signed_data:
        for text in (GENUINE, GENUINE[:-4] + "AAAA", "secret.secret.secret", "\ud800"):
            verify(signed_data, text)
        os.kill(signed_data.process_ids[0], signal.SIGKILL)
        verify(signed_data)
    captured = capfd.readouterr()
    assert "secret" not in captured.out + captured.err
    assert GENUINE[:20] not in captured.out + captured.err
