"""``SignedDataProcesses``: verifies what Apple signed in processes beside this one, without a thread that waits.

A verification is computing, which in CPython keeps every thread of a process from its work. Here it costs this process
no more than to write a batch of JWS to a socket and to read the answers.

The processes are interpreters started anew, which share nothing with this one but one end of a socket (see ``worker``).
Not those of ``multiprocessing`` and ``concurrent.futures``: they import the embedding program's main module once more
and outlive a parent that was killed; a pool that loses a process gives up everything that was submitted, does not say
which call killed it, and has no way to end one that hangs. (A fork would keep locks that threads hold here for ever.)

They start with the first work. One that dies is replaced, and what it had not answered is done again: the batch that it
may have died of one by one, so that what kills processes (nothing should) fails alone, after ``MAX_DEATHS``. One that
does not answer in time is killed, and has died. If none can start, that is the outcome of all that waits, and of what
comes within ``REST_SECONDS``.

Each process has one batch at work and one more to go on with; what gathers meanwhile makes the next batches larger,
which is when that matters. Runs on the scheduler (see ``transport.loop``), and needs Linux as that does.
"""

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
from functools import partial

from receipt_actors.errors import AppStoreUnavailable, ConfigurationError
from receipt_actors.stores.apple.ports import Outcome, SignatureRefused, SignedKind
from receipt_actors.stores.apple.signatures.jws import MAX_SIGNED_CHARACTERS, read_jws
from receipt_actors.stores.apple.signatures.signed_data import Trust
from receipt_actors.stores.apple.signatures.worker import STOP_SIGNALS, decode_answers, encode, encode_trust
from receipt_actors.transport.loop import NetworkLoop, Running

logger = logging.getLogger(__name__)

MAX_BATCH = 16  #: JWS that a process gets at once
MAX_BATCHES = 2  #: of one process: what it works at, and what it goes on with
MAX_DEATHS = 3  #: of processes that were working at the same thing
ANSWER_SECONDS = 30.0  #: for a batch
START_SECONDS = 60.0  #: for a process to be ready
REST_SECONDS = 1.0  #: after a process that could not start
END_SECONDS = 0.2  #: for a process that has closed its socket to say why it ended

PROGRAM = ("-m", "receipt_actors.stores.apple.signatures.worker")

_READ_BYTES = 1 << 18


class SignedDataProcesses(NetworkLoop["_Job"]):
    """The port ``SignedDataCalls``.

    Args:
        read_trust: tells whose signatures count; called with the first work, and again as long as it raises
            ``ConfigurationError``, which is then the outcome.
        processes: how many.
        answer_seconds: see ``ANSWER_SECONDS``.
        program: what they run, after the interpreter on its command line.
    """

    def __init__(
        self,
        read_trust: Callable[[], Trust],
        processes: int,
        answer_seconds: float = ANSWER_SECONDS,
        program: Sequence[str] = PROGRAM,
    ) -> None:
        super().__init__()
        self._read_trust = read_trust
        self._trust: Trust | None = None
        self._processes = processes
        self._answer_seconds = answer_seconds
        self._program = program

    @property
    def process_ids(self) -> Sequence[int]:
        """Of the processes that there are, at this moment."""
        team = self._running
        return [worker.process.pid for worker in list(team.workers)] if isinstance(team, _Team) else []

    def begin(self, kind: SignedKind, signed: str, done: Callable[[Outcome], object]) -> None:
        """See ``SignedDataCalls``: ``done`` is called on the scheduler, or here if there is nothing to begin.

        If that lacks descriptors, the outcome is an ``AppStoreUnavailable``.
        """
        if len(signed) > MAX_SIGNED_CHARACTERS:
            refused = read_jws(kind, signed)
            assert isinstance(refused, SignatureRefused)
            done(refused)
            return
        try:
            self._trust = self._trust or self._read_trust()
            if not self.submit(_Job(kind, signed, done)):
                done(_closed())
        except ConfigurationError as error:
            done(error)

    def _open(self) -> _Team:
        assert self._trust is not None, "nothing begins before it is read"
        return _Team(partial(_Worker, self._program, self._trust), self._processes, self._answer_seconds)

    def _end(self, running: Running[_Job] | None, left: deque[_Job], crash: BaseException | None) -> None:
        outcome: Exception = _closed()
        if crash is not None:
            logger.error("all verifications under way are given up; the next one begins anew", exc_info=crash)
            outcome = crash if isinstance(crash, Exception) else RuntimeError(repr(crash))
            if isinstance(crash, OSError):  # out of descriptors, say: no bug
                outcome = _lacking(crash)
        for job in (*(running.end() if isinstance(running, _Team) else ()), *left):
            job.end(outcome)


def _closed() -> AppStoreUnavailable:
    return AppStoreUnavailable("no signature is verified: the processes for it are closed")


def _lacking(error: Exception) -> AppStoreUnavailable:
    return AppStoreUnavailable(f"no signature can be verified: this machine lacks something: {error}")


@dataclass(slots=True, eq=False)
class _Job:
    """One JWS, and what to call with its outcome."""

    kind: SignedKind
    signed: str
    done: Callable[[Outcome], object]
    deaths: int = 0  #: of processes that were working at its batch

    def end(self, outcome: Outcome) -> None:
        try:
            self.done(outcome)
        except BaseException:  # the loop is there for others' answers as well
            logger.exception("the outcome of a signature could not be taken")


class _Worker:
    """A process, our end of the socket to it, and what it has been given and has not answered."""

    def __init__(self, program: Sequence[str], trust: Trust) -> None:
        self.connection, theirs = socket.socketpair()
        self.connection.setblocking(False)
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
            self.connection.close()
            raise
        self.is_ready = False
        self.faults: Sequence[str] = ()  #: of the configuration, which keep it from being ready
        self.batches: deque[list[_Job]] = deque()
        self.waits_since = time.monotonic()  #: for it to start, or for its next answer
        self.is_full = False  #: its socket took less than all of what follows
        self._unsent = bytearray(encode_trust(trust))
        self._read = b""

    def give(self, batch: list[_Job]) -> None:
        """Give it a batch. Raises ``OSError`` if it has ended."""
        if self.is_ready and not self.batches:
            self.waits_since = time.monotonic()
        self.batches.append(batch)
        self._unsent += encode([(job.kind.value, job.signed) for job in batch])
        self.write()

    def write(self) -> None:
        """Send what the socket takes. Raises ``OSError`` if it has ended."""
        with suppress(BlockingIOError):
            while self._unsent:
                del self._unsent[: self.connection.send(self._unsent)]
        self.is_full = bool(self._unsent)

    def read(self) -> None:
        """Take the answers that are there. Raises ``OSError`` if it has ended."""
        try:
            data = self.connection.recv(_READ_BYTES)
        except BlockingIOError:
            return
        if not data:
            raise ConnectionResetError
        *lines, self._read = (self._read + data).split(b"\n")
        for line in lines:
            self.waits_since = time.monotonic()
            if not self.is_ready:
                self.faults = json.loads(line)
                self.is_ready = not self.faults
                continue
            batch, answers = self.batches.popleft(), decode_answers(line)
            if len(answers) != len(batch):
                raise RuntimeError(f"found {len(answers)} answers, expected {len(batch)}")
            for job, outcome in zip(batch, answers, strict=True):
                job.end(outcome)

    def due_at(self, answer_seconds: float) -> float | None:
        """Return until when it may be silent: ``time.monotonic()``; None: it has nothing to say."""
        if not self.is_ready:
            return self.waits_since + START_SECONDS
        return self.waits_since + answer_seconds if self.batches else None

    def end(self, patience_seconds: float = 0.0) -> int:
        """End it, at once or after so long in which it may do so by itself; return its exit status."""
        self.connection.close()
        if patience_seconds:
            with suppress(subprocess.TimeoutExpired):
                return self.process.wait(patience_seconds)
        self.process.kill()
        return self.process.wait()


@contextmanager
def _stop_signals_blocked() -> Iterator[None]:
    """Start a process with these signals held up: until it can ignore them they would kill it.

    The mask is this thread's alone, so none of this process's own is lost.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class _Team:
    """All processes, and what waits for one of them: ``Running``."""

    def __init__(self, start: Callable[[], _Worker], processes: int, answer_seconds: float) -> None:
        self._start = start
        self._processes = processes
        self._answer_seconds = answer_seconds
        self._epoll = select.epoll()
        self.fileno = self._epoll.fileno
        self.workers: list[_Worker] = []
        self._waiting: deque[_Job] = deque()
        self._rests_until = 0.0  # monotonic
        self._fault: Exception | None = None  # of the process that could not start

    def due_at(self) -> float | None:
        due = (worker.due_at(self._answer_seconds) for worker in self.workers)
        return min((at for at in due if at is not None), default=None)

    def go_on(self, work: deque[_Job]) -> None:
        events_of = dict(self._epoll.poll(0))
        self._waiting.extend(work)
        work.clear()
        now = time.monotonic()
        for worker in tuple(self.workers):
            events = events_of.get(worker.connection.fileno(), 0)
            if events & select.EPOLLOUT:
                self._do(worker, worker.write)
            if events & ~select.EPOLLOUT and worker in self.workers:
                self._do(worker, worker.read)
            due_at = worker.due_at(self._answer_seconds)
            if worker in self.workers and due_at is not None and due_at <= now:
                silent_seconds = self._answer_seconds if worker.is_ready else START_SECONDS
                self._bury(worker, f"did not answer within {silent_seconds:g} s", patience_seconds=0.0)
        while self._waiting and self._man():
            worker = min(self.workers, key=lambda each: len(each.batches))
            if len(worker.batches) >= MAX_BATCHES:
                return
            self._do(worker, partial(worker.give, self._next_batch()))

    def _do(self, worker: _Worker, action: Callable[[], None]) -> None:
        """Let a worker read or write; bury it if it has ended."""
        was_full = worker.is_full
        try:
            action()
        except OSError:
            self._bury(worker, "ended")
            return
        if worker.is_full is not was_full:
            self._epoll.modify(worker.connection, select.EPOLLIN | (select.EPOLLOUT if worker.is_full else 0))

    def _next_batch(self) -> list[_Job]:
        size = min(MAX_BATCH, -(-len(self._waiting) // len(self.workers)))
        batch = [self._waiting.popleft()]
        while len(batch) < size and not batch[0].deaths and not self._waiting[0].deaths:
            batch.append(self._waiting.popleft())
        return batch

    def _man(self) -> bool:
        """Start the processes that are missing; if there is none, give up what waits, and return False."""
        while len(self.workers) < self._processes and self._rests_until <= time.monotonic():
            try:
                worker = self._start()
            except OSError as error:
                self._rest(AppStoreUnavailable(f"no signature can be verified: no process can be started: {error}"))
                break
            self.workers.append(worker)
            self._epoll.register(worker.connection, select.EPOLLIN)
        if not self.workers:
            self._give_up()
        return bool(self.workers)

    def _rest(self, fault: Exception) -> None:
        logger.error("a process for signatures could not start: %s", fault)
        self._rests_until = time.monotonic() + REST_SECONDS
        self._fault = fault

    def _give_up(self) -> None:
        assert self._fault is not None, "processes are missing only after a fault"
        while self._waiting:
            self._waiting.popleft().end(self._fault)

    def _bury(self, worker: _Worker, how: str, patience_seconds: float = END_SECONDS) -> None:
        """Forget a process, and have done again what it did not answer; its first batch can have been its death."""
        self.workers.remove(worker)
        self._epoll.unregister(worker.connection)
        code = worker.end(patience_seconds)
        described = f"exit status {code}" if code >= 0 else f"signal {-code}"
        words = f"process {worker.process.pid} {how} ({described})"
        if worker.is_ready:
            logger.warning("%s; it is replaced when there is work", words)
        else:
            unavailable = AppStoreUnavailable(f"no signature can be verified: {words} before it was ready")
            self._rest(ConfigurationError(worker.faults) if worker.faults else unavailable)
        for number, batch in reversed(list(enumerate(worker.batches))):
            for job in reversed(batch):
                job.deaths += number == 0
                if job.deaths < MAX_DEATHS:
                    self._waiting.appendleft(job)
                else:
                    job.end(AppStoreUnavailable(f"{MAX_DEATHS} processes died while they verified this signature"))
        if not self.workers and not worker.is_ready:
            self._give_up()

    def end(self) -> Sequence[_Job]:
        """End the processes, and return what is given up with them."""
        jobs = [job for worker in self.workers for batch in worker.batches for job in batch]
        for worker in self.workers:
            worker.end()
        self._epoll.close()
        return [*jobs, *self._waiting]
