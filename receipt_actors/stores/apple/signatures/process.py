"""Verifies what Apple signed in another process (``worker``), which shares one end of a socket with this one.

A verification is computing, which in CPython keeps every thread of a process from its work. The process starts with the
first work. If it dies, or does not answer in time and is killed, the next one does its work again: the batch that it
may have died of one by one, so that what kills processes fails alone, after ``MAX_DEATHS``. If none can start, that is
the outcome of all that waits, and of what comes within ``REST_SECONDS``.
"""

# Not by multiprocessing or concurrent.futures: they import the embedding program's main module once more and outlive a
# parent that was killed. Their pools do not say which call killed a process, and cannot end one that hangs.

from __future__ import annotations

import json
import logging
import os
import select
import signal
import socket
import subprocess  # nosec B404 # our own interpreter and nothing that anybody else names
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import NoReturn

from receipt_actors.errors import AppStoreUnavailable, ConfigurationError
from receipt_actors.stores.apple.ports import Outcome, SignatureRefused, SignedData, SignedKind
from receipt_actors.stores.apple.signatures.jws import MAX_SIGNED_CHARACTERS, read_jws
from receipt_actors.stores.apple.signatures.trust import Trust
from receipt_actors.stores.apple.signatures.worker import STOP_SIGNALS, decode_answers, encode, encode_trust
from receipt_actors.transport.loop import NetworkLoop, Running

logger = logging.getLogger(__name__)

MAX_BATCH = 16  #: JWS that the process gets at once
MAX_BATCHES = 2  #: what it works at, and what it goes on with
MAX_DEATHS = 3  #: of processes that were working at the same thing
ANSWER_SECONDS = 30.0  #: for a batch
START_SECONDS = 60.0  #: for a process to be ready
REST_SECONDS = 1.0  #: after a process that could not start
END_SECONDS = 0.2  #: for a process that has closed its socket to say why it ended

PROGRAM = ("-m", "receipt_actors.stores.apple.signatures.worker")

_READ_BYTES = 1 << 18
_CLOSED = "no signature is verified: the process for it is closed"


@dataclass(slots=True, eq=False)
class _Job:
    kind: SignedKind
    signed: str
    done: Callable[[Outcome], object]
    deaths: int = 0  #: of processes that were working at its batch

    def end(self, outcome: Outcome) -> None:
        try:
            self.done(outcome)
        except BaseException:  # the loop is there for others' answers as well
            logger.exception("the outcome of a signature could not be taken")


class SignedDataProcess(NetworkLoop[_Job]):
    """The port ``SignedDataCalls``; ``done`` is called on the scheduler, or here if there is nothing to begin.

    ``read_trust`` tells whose signatures count: it is called with the first work, and again as long as it raises
    ``ConfigurationError``, which is then the outcome. ``program`` follows the interpreter on the command line.
    """

    def __init__(
        self, read_trust: Callable[[], Trust], answer_seconds: float = ANSWER_SECONDS, program: Sequence[str] = PROGRAM
    ) -> None:
        super().__init__()
        self._read_trust = read_trust
        self._trust: Trust | None = None
        self._answer_seconds = answer_seconds
        self._program = program
        self._rests_until = 0.0  # monotonic
        self._fault: Exception = AppStoreUnavailable(_CLOSED)  # of the last process that could not start

    @property
    def process_id(self) -> int | None:
        return self._running.process.pid if isinstance(self._running, _Worker) else None

    def begin(self, kind: SignedKind, signed: str, done: Callable[[Outcome], object]) -> None:
        if len(signed) > MAX_SIGNED_CHARACTERS:
            refused = read_jws(kind, signed)
            assert isinstance(refused, SignatureRefused)
            done(refused)
            return
        try:
            self._trust = self._trust or self._read_trust()
            if not self.submit(_Job(kind, signed, done)):
                done(AppStoreUnavailable(_CLOSED))
        except ConfigurationError as error:
            done(error)

    def _open(self) -> _Worker:
        assert self._trust is not None, "begin has read it"
        if time.monotonic() < self._rests_until:
            raise self._fault
        return _Worker(self._program, self._trust, self._answer_seconds)

    def _end(self, running: Running[_Job] | None, left: deque[_Job], crash: BaseException | None) -> None:
        jobs = [*(running.end() if isinstance(running, _Worker) else ()), *left]
        outcome: Exception
        match crash:
            case None:
                outcome = AppStoreUnavailable(_CLOSED)
            case _Died():
                logger.warning("%s; it is replaced when there is work", crash)
                self._do_again(jobs)
                return
            case OSError() | AppStoreUnavailable() | ConfigurationError():
                outcome = self._could_not_start(crash)
            case _:
                logger.error("all verifications under way are given up; the next one begins anew", exc_info=crash)
                outcome = crash if isinstance(crash, Exception) else RuntimeError(repr(crash))
        for job in jobs:
            job.end(outcome)

    def _do_again(self, jobs: Sequence[_Job]) -> None:
        for job in jobs:
            if job.deaths < MAX_DEATHS:
                self._take(job)
            else:
                job.end(AppStoreUnavailable(f"{MAX_DEATHS} processes died while they verified this signature"))

    def _could_not_start(self, fault: Exception) -> Exception:
        if fault is not self._fault:  # else it rests already
            if isinstance(fault, OSError):
                fault = AppStoreUnavailable(f"no signature can be verified: this machine lacks something: {fault}")
            logger.error("the process for signatures could not start: %s", fault)
            self._rests_until = time.monotonic() + REST_SECONDS
            self._fault = fault
        return fault


class _Died(Exception):
    """Of a process that was ready."""


class _Worker:
    """``Running``: the process, what it has been given, and what waits."""

    def __init__(self, program: Sequence[str], trust: Trust, answer_seconds: float) -> None:
        self._epoll = select.epoll()
        self.fileno = self._epoll.fileno
        self._connection, theirs = socket.socketpair()
        self._connection.setblocking(False)
        # It looks for modules in the current directory only if this process does.
        path_flags = () if "" in sys.path or os.getcwd() in sys.path else ("-P",)
        try:
            with theirs, _stop_signals_blocked():
                self.process = subprocess.Popen(  # nosec B603 # likewise
                    [sys.executable or "", *path_flags, *program, str(theirs.fileno())],
                    stdin=subprocess.DEVNULL,
                    pass_fds=[theirs.fileno()],
                )
        except OSError:
            self._connection.close()
            raise
        self._epoll.register(self._connection, select.EPOLLIN)
        self._answer_seconds = answer_seconds
        self._is_ready = False
        self._faults: Sequence[str] = ()  # of the configuration, which keep it from being ready
        self._waiting: deque[_Job] = deque()
        self._batches: deque[list[_Job]] = deque()
        self._waits_since = time.monotonic()  # for it to start, or for its next answer
        self._unsent = bytearray(encode_trust(trust))
        self._is_full = False  # the socket took less than all of that
        self._read_so_far = b""

    def due_at(self) -> float | None:
        if not self._is_ready:
            return self._waits_since + START_SECONDS
        return self._waits_since + self._answer_seconds if self._batches else None

    def go_on(self, work: deque[_Job]) -> None:
        self._waiting.extend(work)
        work.clear()
        try:
            if any(events & ~select.EPOLLOUT for _, events in self._epoll.poll(0)):
                self._read()
            while self._waiting and len(self._batches) < MAX_BATCHES:
                self._give(self._next_batch())
            self._write()
        except OSError:
            self._has_died("ended", END_SECONDS)
        due_at = self.due_at()
        if due_at is not None and due_at <= time.monotonic():
            seconds = self._answer_seconds if self._is_ready else START_SECONDS
            self._has_died(f"did not answer within {seconds:g} s", 0.0)

    def _next_batch(self) -> list[_Job]:
        batch = [self._waiting.popleft()]
        while len(batch) < MAX_BATCH and self._waiting and not batch[0].deaths and not self._waiting[0].deaths:
            batch.append(self._waiting.popleft())
        return batch

    def _give(self, batch: list[_Job]) -> None:
        if self._is_ready and not self._batches:
            self._waits_since = time.monotonic()
        self._batches.append(batch)
        self._unsent += encode([(job.kind.value, job.signed) for job in batch])

    def _write(self) -> None:
        """Send what the socket takes. Raises ``OSError`` if the process has ended."""
        with suppress(BlockingIOError):
            while self._unsent:
                del self._unsent[: self._connection.send(self._unsent)]
        if bool(self._unsent) is not self._is_full:
            self._is_full = bool(self._unsent)
            self._epoll.modify(self._connection, select.EPOLLIN | (select.EPOLLOUT if self._is_full else 0))

    def _read(self) -> None:
        """Take the answers that are there. Raises ``OSError`` if the process has ended."""
        data = self._connection.recv(_READ_BYTES)
        if not data:
            raise ConnectionResetError
        *lines, self._read_so_far = (self._read_so_far + data).split(b"\n")
        for line in lines:
            self._waits_since = time.monotonic()
            if not self._is_ready:
                self._faults = json.loads(line)
                self._is_ready = not self._faults
                continue
            outcomes = list(zip(self._batches[0], decode_answers(line), strict=True))
            self._batches.popleft()
            for job, outcome in outcomes:
                job.end(outcome)

    def _has_died(self, how: str, wait_seconds: float) -> NoReturn:
        if wait_seconds:
            self._connection.close()
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(wait_seconds)
        self.process.kill()
        code = self.process.wait()
        described = f"exit status {code}" if code >= 0 else f"signal {-code}"
        words = f"process {self.process.pid} {how} ({described})"
        if self._faults:
            raise ConfigurationError(self._faults)
        if not self._is_ready:
            raise AppStoreUnavailable(f"no signature can be verified: {words} before it was ready")
        for job in self._batches[0] if self._batches else ():
            job.deaths += 1
        raise _Died(words)

    def end(self) -> Sequence[_Job]:
        self._connection.close()
        self._epoll.close()
        self.process.kill()
        self.process.wait()
        return [*(job for batch in self._batches for job in batch), *self._waiting]


@contextmanager
def _stop_signals_blocked() -> Iterator[None]:
    # Until a new process can ignore these signals they would kill it. The mask is this thread's alone.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class SignedDataAtOnce:
    """The port ``SignedDataCalls`` without a process, where there is no epoll: ``begin`` takes about a millisecond."""

    def __init__(self, open_signed_data: Callable[[], SignedData]) -> None:
        self._open_signed_data = open_signed_data
        self._signed_data: SignedData | None = None

    def begin(self, kind: SignedKind, signed: str, done: Callable[[Outcome], object]) -> None:
        outcome: Outcome
        try:
            self._signed_data = self._signed_data or self._open_signed_data()
            outcome = self._signed_data.verify(kind, signed)
        except Exception as error:  # noqa: BLE001 - a bug as well, which the caller has to hear of
            outcome = error
        done(outcome)

    def close(self) -> None:
        pass
