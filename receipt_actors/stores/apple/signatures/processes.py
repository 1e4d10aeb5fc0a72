"""``SignedDataProcesses``: verifies what Apple signed in processes beside this one, and nobody waits for it.

A verification is computing, which in CPython keeps every thread of a process from its work. Here it costs this process
no more than to write a batch of JWS to a socket and to read the answers.

The processes are interpreters started anew, with nothing of this one's but one end of a socket: not forked, because of
the threads that there are here (a lock that one of them holds would be held in the child for ever); and not those of
``multiprocessing``, which imports the embedding program's main module once more, and whose workers outlive a parent
that was killed. Ours end when the socket does (see ``signed_data_worker``).

They are started with the first work. One that dies is replaced, and what it had not answered is done again: the batch
that it may have died of one by one, so that what kills processes (nothing should) takes nobody along, and is given up
after ``MAX_DEATHS``. One that does not answer in time is killed, and has died. Where none can be started, those who
wait are told so, and those who come within ``REST_SECONDS``, too.

As many processes have as many batches at work, and one more each to go on with; what gathers meanwhile makes the next
batches larger, which is when that matters.

Runs in one place (see ``transport.loop``), and needs Linux as that does.
"""

from __future__ import annotations

import logging
import os
import queue
import select
import signal
import socket
import subprocess  # nosec B404 # our own interpreter and nothing that anybody else names
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

from receipt_actors.errors import AppStoreUnavailable, ConfigurationError
from receipt_actors.stores.apple.ports import SignatureRefused, SignedKind
from receipt_actors.stores.apple.signatures.jws import MAX_SIGNED_CHARACTERS, read_jws
from receipt_actors.stores.apple.signatures.signed_data import Trust
from receipt_actors.stores.apple.signatures.worker import (
    STOP_SIGNALS,
    decode_answers,
    decode_faults,
    encode_jobs,
    encode_trust,
)
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

Outcome: TypeAlias = Mapping[str, object] | SignatureRefused | Exception
Done: TypeAlias = Callable[[Outcome], object]


class SignedDataProcesses(NetworkLoop["_Job"]):
    """The ports ``SignedDataCalls`` and ``SignedData``.

    Args:
        read_trust: tells whose signatures count; called with the first work, and again as long as it raises
            ``ConfigurationError``, which whoever wants to know is told.
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
        super().__init__("signed_data-processes")
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

    # --- the ports ---

    def begin(self, kind: SignedKind, signed: str, done: Done) -> None:
        """See ``SignedDataCalls``: ``done`` is called in the loop's place, or here where there is nothing to begin.

        It may be called with a ``ConfigurationError`` as well: the work can't be done until that is put right. Where
        the loop does not run yet, and can't, for want of descriptors or threads, with an ``AppStoreUnavailable``.
        """
        if len(signed) > MAX_SIGNED_CHARACTERS:
            refused = read_jws(kind, signed)
            assert isinstance(refused, SignatureRefused)
            done(refused)
            return
        try:
            self._trust = self._trust or self._read_trust()
        except ConfigurationError as error:
            done(error)
            return
        try:
            if not self.submit(_Job(kind, signed, done)):
                done(_closed())
        except (OSError, RuntimeError) as error:
            done(_lacking(error))

    def verify_transaction(self, signed: str) -> Mapping[str, object] | SignatureRefused:
        """See ``SignedData``. Not in the loop's own place: a ``done`` that calls this would wait for ever.

        Raises:
            AppStoreUnavailable: no process can do it just now.
            ConfigurationError: none can, until that is put right.
        """
        return self._verify(SignedKind.TRANSACTION, signed)

    def verify_notification(self, signed: str) -> Mapping[str, object] | SignatureRefused:
        """See ``SignedData`` and ``verify_transaction``."""
        return self._verify(SignedKind.NOTIFICATION, signed)

    def _verify(self, kind: SignedKind, signed: str) -> Mapping[str, object] | SignatureRefused:
        outcomes: queue.SimpleQueue[Outcome] = queue.SimpleQueue()
        self.begin(kind, signed, outcomes.put)
        outcome = outcomes.get()
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    # --- the loop ---

    def _open(self, wake_fd: int) -> _Team:
        assert self._trust is not None, "nothing begins before it is read"
        return _Team(partial(_Worker, self._program, self._trust), self._processes, self._answer_seconds, wake_fd)

    def _end(self, running: Running[_Job] | None, left: deque[_Job], crash: BaseException | None) -> None:
        outcome: Exception = _closed()
        if crash is not None:
            logger.error("all verifications under way are given up; the next one begins anew", exc_info=crash)
            outcome = crash if isinstance(crash, Exception) else RuntimeError(repr(crash))
            if isinstance(crash, OSError):  # out of descriptors, say: no bug
                outcome = _lacking(crash)
        for job in (*(running.end() if isinstance(running, _Team) else ()), *left):
            _tell(job, outcome)


def _closed() -> AppStoreUnavailable:
    return AppStoreUnavailable("no signature is verified: the processes for it are closed")


def _lacking(error: Exception) -> AppStoreUnavailable:
    return AppStoreUnavailable(f"no signature can be verified: this machine lacks something: {error}")


@dataclass(slots=True, eq=False)
class _Job:
    """One JWS, and who wants to know."""

    kind: SignedKind
    signed: str
    done: Done
    deaths: int = 0  #: of processes that were working at its batch


def _tell(job: _Job, outcome: Outcome) -> None:
    try:
        job.done(outcome)
    except BaseException:  # the loop is there for others' answers as well
        logger.exception("whoever had a signature verified could not take the answer")


class _Worker:
    """A process, our end of the socket to it, and what it has been given and has not answered."""

    def __init__(self, program: Sequence[str], trust: Trust) -> None:
        self.connection, theirs = socket.socketpair()
        self.connection.setblocking(False)
        try:
            with theirs, _stop_signals_blocked():
                self.process = subprocess.Popen(  # nosec B603 # likewise
                    [sys.executable or "", *_path_flags(), *program, str(theirs.fileno())],
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
        self.unsent = bytearray(encode_trust(trust))
        self._read = b""

    def give(self, batch: list[_Job]) -> None:
        if self.is_ready and not self.batches:
            self.waits_since = time.monotonic()
        self.batches.append(batch)
        self.unsent += encode_jobs([(job.kind, job.signed) for job in batch])

    def write(self) -> None:
        """Send what the socket takes. Raises ``OSError`` where it is over."""
        while self.unsent:
            try:
                sent = self.connection.send(self.unsent)
            except BlockingIOError:
                return
            del self.unsent[:sent]

    def read(self) -> Iterator[tuple[_Job, Outcome]]:
        """Read the answers that are there. Raises ``OSError`` where it is over."""
        try:
            data = self.connection.recv(_READ_BYTES)
        except BlockingIOError:
            return
        if not data:
            raise ConnectionResetError
        *lines, self._read = (self._read + data).split(b"\n")
        for line in lines:
            self.waits_since = time.monotonic()
            if self.is_ready:
                answers = decode_answers(line)
                if len(answers) != len(self.batches[0]):
                    raise RuntimeError(f"found {len(answers)} answers, expected {len(self.batches[0])}")
                yield from zip(self.batches.popleft(), answers, strict=True)
            else:
                self.faults = decode_faults(line)
                self.is_ready = not self.faults

    @property
    def waits_for_it(self) -> bool:
        return bool(self.batches) or not self.is_ready

    def end(self, patience_seconds: float = 0.0) -> int:
        """Have it end, at once or after so long in which it may do so by itself; return its exit status."""
        self.connection.close()
        with suppress(subprocess.TimeoutExpired):
            if patience_seconds:
                return self.process.wait(patience_seconds)
        self.process.kill()
        return self.process.wait()


def _path_flags() -> Sequence[str]:
    """Have it look for modules in the current directory only if this process does."""
    return () if "" in sys.path or os.getcwd() in sys.path else ("-P",)


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

    def __init__(self, start: Callable[[], _Worker], processes: int, answer_seconds: float, wake_fd: int) -> None:
        self._start = start
        self._processes = processes
        self._answer_seconds = answer_seconds
        self._epoll = select.epoll()
        self._epoll.register(wake_fd, select.EPOLLIN)
        self.fileno = self._epoll.fileno
        self.workers: list[_Worker] = []
        self._by_fd: dict[int, _Worker] = {}
        self._writing: set[_Worker] = set()  # whose sockets were full
        self._waiting: deque[_Job] = deque()
        self._ready: list[tuple[int, int]] = []  # sockets, and what has happened to them
        self._rests_until: float | None = None  # monotonic
        self._fault: Exception | None = None  # of the process that could not start

    # --- a turn ---

    def due_at(self) -> float | None:
        """See ``Running``."""
        return min((self._due_at(worker) for worker in self.workers if worker.waits_for_it), default=None)

    def _due_at(self, worker: _Worker) -> float:
        return worker.waits_since + self._patience_seconds(worker)

    def _patience_seconds(self, worker: _Worker) -> float:
        return self._answer_seconds if worker.is_ready else START_SECONDS

    def look(self, timeout_seconds: float | None) -> None:
        """See ``Running``."""
        self._ready = self._epoll.poll(timeout_seconds)

    def go_on(self, work: deque[_Job]) -> None:
        """See ``Running``."""
        for fd, events in self._ready:
            worker = self._by_fd.get(fd)
            if worker is not None:
                self._attend_to(worker, events)
        self._waiting.extend(work)
        work.clear()
        now = time.monotonic()
        for worker in [each for each in self.workers if each.waits_for_it and self._due_at(each) <= now]:
            self._bury(worker, f"did not answer within {self._patience_seconds(worker):g} s", patience_seconds=0.0)
        if self._waiting:
            self._man(now)
            self._hand_out()

    def _attend_to(self, worker: _Worker, events: int) -> None:
        try:
            if events & select.EPOLLOUT:
                self._write(worker)
            if events & ~select.EPOLLOUT:
                for job, outcome in worker.read():
                    _tell(job, outcome)
        except OSError:
            self._bury(worker, "ended")

    def _write(self, worker: _Worker) -> None:
        worker.write()
        if bool(worker.unsent) is (worker in self._writing):
            return
        if worker.unsent:
            self._writing.add(worker)
        else:
            self._writing.discard(worker)
        events = select.EPOLLIN | (select.EPOLLOUT if worker.unsent else 0)
        self._epoll.modify(worker.connection, events)

    # --- processes ---

    def _man(self, now: float) -> None:
        """Start the processes that are missing; give up what waits where there is none."""
        while len(self.workers) < self._processes and (self._rests_until is None or self._rests_until <= now):
            try:
                worker = self._start()
            except OSError as error:
                self._rest(AppStoreUnavailable(f"no signature can be verified: no process can be started: {error}"))
                break
            self.workers.append(worker)
            self._by_fd[worker.connection.fileno()] = worker
            self._epoll.register(worker.connection, select.EPOLLIN)
        if not self.workers:
            self._give_up()

    def _rest(self, fault: Exception) -> None:
        logger.error("a process for signatures could not start: %s", fault)
        self._rests_until = time.monotonic() + REST_SECONDS
        self._fault = fault

    def _give_up(self) -> None:
        assert self._fault is not None, "nobody rests without one"
        while self._waiting:
            _tell(self._waiting.popleft(), self._fault)

    def _bury(self, worker: _Worker, how: str, patience_seconds: float = END_SECONDS) -> None:
        self.workers.remove(worker)
        self._writing.discard(worker)
        del self._by_fd[worker.connection.fileno()]
        self._epoll.unregister(worker.connection)
        code = worker.end(patience_seconds)
        words = f"process {worker.process.pid} {how} ({_described(code)})"
        if worker.is_ready:
            logger.warning("%s; it is replaced when there is work", words)
        else:
            unavailable = AppStoreUnavailable(f"no signature can be verified: {words} before it was ready")
            self._rest(ConfigurationError(worker.faults) if worker.faults else unavailable)
        self._take_back(worker.batches)
        if not self.workers and not worker.is_ready:
            self._give_up()

    def _take_back(self, batches: deque[list[_Job]]) -> None:
        """Have done again what a process did not answer; only the first batch can have been the death of it."""
        for number, batch in reversed(list(enumerate(batches))):
            for job in reversed(batch):
                job.deaths += number == 0
                if job.deaths < MAX_DEATHS:
                    self._waiting.appendleft(job)
                else:
                    _tell(job, AppStoreUnavailable(f"{MAX_DEATHS} processes died while they verified this signature"))

    # --- work ---

    def _hand_out(self) -> None:
        while self._waiting:
            worker = min(self.workers, key=lambda each: len(each.batches))
            if len(worker.batches) >= MAX_BATCHES:
                return
            worker.give(self._next_batch())
            try:
                self._write(worker)
            except OSError:
                self._bury(worker, "ended")
                self._man(time.monotonic())

    def _next_batch(self) -> list[_Job]:
        size = min(MAX_BATCH, -(-len(self._waiting) // len(self.workers)))
        batch = [self._waiting.popleft()]
        while len(batch) < size and not batch[0].deaths and not self._waiting[0].deaths:
            batch.append(self._waiting.popleft())
        return batch

    def end(self) -> Sequence[_Job]:
        """End the processes, and return what is given up with them."""
        jobs = [job for worker in self.workers for batch in worker.batches for job in batch]
        for worker in self.workers:
            worker.end()
        self._epoll.close()
        return [*jobs, *self._waiting]


def _described(code: int) -> str:
    return f"exit status {code}" if code >= 0 else f"signal {-code}"
