"""A worker process as its parent has it, and ``Channel``, one end of the connection between the two."""

from __future__ import annotations

import os
import pickle  # nosec B403 # between a program and itself
import signal
import socket
import struct
import subprocess  # nosec B404 # our own interpreter and nothing that anybody else names
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass

from receipt_actors.scale.processes.protocol import Configure, Message, StartRefused
from receipt_actors.settings import Settings

_READ_BYTES = 1 << 16
_LENGTH = struct.Struct("!I")


def _encode(message: Message) -> bytes:
    data = pickle.dumps(message)
    return _LENGTH.pack(len(data)) + data


class Channel:
    """Send and receive messages over a stream socket, pickled. One thread reads, any may send."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._sending = threading.Lock()
        self._read = b""
        self.is_over = False  #: the other end has closed, most likely because its process has ended

    def fileno(self) -> int:
        return self._connection.fileno()

    def receive(self) -> Sequence[Message]:
        """Wait for messages; return none when the other end has closed. An incomplete message is dropped."""
        try:
            data = self._connection.recv(_READ_BYTES)
        except OSError:  # reset: it ended before it had read everything
            data = b""
        self.is_over = not data
        self._read += data
        messages: list[Message] = []
        while len(self._read) >= _LENGTH.size:
            end = _LENGTH.size + _LENGTH.unpack_from(self._read)[0]
            if len(self._read) < end:
                break
            messages.append(pickle.loads(self._read[_LENGTH.size : end]))  # nosec B301 # our own process's
            self._read = self._read[end:]
        return messages

    def send(self, message: Message) -> None:
        """Send, and wait while the other end does not read. Do nothing if it has closed."""
        with self._sending, suppress(OSError):
            self._connection.sendall(_encode(message))

    def send_at_once(self, message: Message) -> bool:
        """Send without waiting. False: the other end does not read, and the channel is unusable from now on."""
        data = _encode(message)
        with self._sending:
            try:
                return self._connection.send(data, socket.MSG_DONTWAIT) == len(data)
            except BlockingIOError:
                return False
            except OSError:
                return True

    def close(self) -> None:
        self._connection.close()


STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@dataclass(frozen=True, slots=True)
class MessageFrom:
    process: WorkerProcess
    message: Message


@dataclass(frozen=True, slots=True)
class ProcessEnded:
    process: WorkerProcess
    code: int  #: its exit status, or minus the number of the signal that killed it


class _Child(subprocess.Popen[bytes]):
    pid = 0  #: until there is one; ``Popen`` has None there for a moment

    def __init__(self, owner: WorkerProcess, arguments: Sequence[str], descriptor: int) -> None:
        # ``Popen`` returns when the process has become another program. One that stops before that can be killed all
        # the same: its id is known since it was forked.
        owner._child = self
        super().__init__(arguments, stdin=subprocess.DEVNULL, pass_fds=[descriptor])  # nosec B603 # likewise


class WorkerProcess:
    """Run ``python PROGRAM NAME DESCRIPTOR``, where the last is the worker's end of the channel.

    A thread of its own starts it, which may take long, and sends it its settings. ``deliver`` gets, on that thread,
    what the process says, then its end; if no process can be started, a ``StartRefused`` and the end.
    """

    _channel: Channel  # as soon as there is a process

    def __init__(
        self,
        name: str,
        program: Sequence[str],
        settings: Settings,
        deliver: Callable[[MessageFrom | ProcessEnded], None],
        *,
        is_replacement: bool = False,
    ) -> None:
        self._arguments = [sys.executable, *_path_flags(), *program, name]
        self._deliver = deliver
        self._configure = Configure(settings, is_replacement)
        self._child: _Child | None = None
        self._is_killed = False
        self._is_over = threading.Event()
        threading.Thread(target=self._run, name=f"receipt-actors-{name}", daemon=True).start()

    @property
    def pid(self) -> int:
        """The process id; 0 before the process exists."""
        return 0 if self._child is None else self._child.pid or 0

    def send(self, message: Message) -> None:
        """Send without waiting. A process that does not read is killed."""
        if not self._channel.send_at_once(message):
            self.kill()

    def kill(self) -> None:
        """Send SIGKILL, unless it has ended; one that is being started gets it as soon as it exists."""
        self._is_killed = True
        if self._child is not None and self._child.pid:
            self._child.kill()

    def wait(self, seconds: float) -> bool:
        """Wait until the end has been delivered; return whether it has."""
        return self._is_over.wait(seconds)

    def _run(self) -> None:
        code = self._start_and_listen()
        self._deliver(ProcessEnded(self, code))
        self._is_over.set()

    def _start_and_listen(self) -> int:
        with ExitStack() as open_:
            try:
                ours, theirs = map(open_.enter_context, socket.socketpair())
                with theirs, _stop_signals_blocked():
                    child = _Child(self, [*self._arguments, str(theirs.fileno())], theirs.fileno())
            except OSError as error:
                self._deliver(MessageFrom(self, StartRefused([f"no process can be started: {error}"], False)))
                return 1
            self._channel = Channel(ours)
            return self._listen(child)

    def _listen(self, child: _Child) -> int:
        if self._is_killed:  # perhaps before there was anything to kill
            child.kill()
        self._channel.send(self._configure)
        while not self._channel.is_over:
            for message in self._channel.receive():
                self._deliver(MessageFrom(self, message))
        return child.wait()


def _path_flags() -> Sequence[str]:
    # The worker looks for modules in the current directory only if this process does.
    return () if "" in sys.path or os.getcwd() in sys.path else ("-P",)


@contextmanager
def _stop_signals_blocked() -> Iterator[None]:
    # Ctrl-C in a terminal goes to every process there, and would kill a worker that can't handle it yet. The mask is
    # this thread's: the parent loses no signal.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
