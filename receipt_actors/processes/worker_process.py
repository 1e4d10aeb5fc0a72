"""``WorkerProcess``: a worker's interpreter, the channel to it, and the thread that listens to it and reaps it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess  # nosec B404 # our own interpreter and nothing that anybody else names
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from receipt_actors.processes.channel import Channel
from receipt_actors.processes.messages import Configure, Message

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@dataclass(frozen=True, slots=True)
class MessageFrom:
    """A worker process said something."""

    process: WorkerProcess
    message: Message


@dataclass(frozen=True, slots=True)
class ProcessEnded:
    """A worker process has ended, and nothing of it is left."""

    process: WorkerProcess
    code: int  #: its exit status, or minus the number of the signal that killed it


class WorkerProcess:
    """Runs ``python PROGRAM NAME DESCRIPTOR``, where the last is the worker's end of the channel.

    Args:
        name: the worker's.
        program: what follows the interpreter on its command line.
        settings: what it is sent first.
        deliver: gets what the process says, and at last that it has ended; called on a thread of its own.

    Raises:
        OSError: no process or no socket can be made.
    """

    def __init__(
        self,
        name: str,
        program: Sequence[str],
        settings: Mapping[str, Any],
        deliver: Callable[[MessageFrom | ProcessEnded], None],
    ) -> None:
        self._deliver = deliver
        self._settings = settings
        ours, theirs = socket.socketpair()
        descriptor = theirs.fileno()
        self._channel = Channel(ours)
        try:
            with theirs, _stop_signals_blocked():
                self._popen = subprocess.Popen(  # nosec B603 # likewise
                    [sys.executable, *_path_flags(), *program, name, str(descriptor)],
                    stdin=subprocess.DEVNULL,
                    pass_fds=[descriptor],
                )
        except OSError:
            ours.close()
            raise
        threading.Thread(target=self._listen, name=f"receipt-actors-{name}", daemon=True).start()

    @property
    def pid(self) -> int:
        """The process id."""
        return self._popen.pid

    def send(self, message: Message) -> None:
        """Send without ever waiting; one that does not read what it is sent is killed."""
        if not self._channel.send_at_once(message):
            self.kill()

    def kill(self) -> None:
        """Send SIGKILL, unless it has ended."""
        self._popen.kill()

    def wait(self, seconds: float) -> None:
        """Wait until it has ended and been reaped."""
        self._popen.wait(seconds)

    def _listen(self) -> None:
        self._channel.send(Configure(self._settings))
        while not self._channel.is_over:
            for message in self._channel.receive():
                self._deliver(MessageFrom(self, message))
        code = self._popen.wait()
        self._channel.close()
        self._deliver(ProcessEnded(self, code))


def _path_flags() -> Sequence[str]:
    """Have the worker look for modules in the current directory only if this process does."""
    return () if "" in sys.path or os.getcwd() in sys.path else ("-P",)


@contextmanager
def _stop_signals_blocked() -> Iterator[None]:
    """Start processes with these signals held up: until the worker can handle them they would kill it.

    Ctrl-C in a terminal goes to every process there. The mask is this thread's alone, so none of the parent's is lost.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
