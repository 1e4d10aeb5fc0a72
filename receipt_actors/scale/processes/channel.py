"""``Channel``: one end of the connection between the parent and a worker process."""

from __future__ import annotations

import socket
import threading
from collections.abc import Sequence
from contextlib import suppress

from receipt_actors.scale.processes.messages import Message, decode, encode

_READ_BYTES = 1 << 16


class Channel:
    """Sends and receives messages over a stream socket. One thread reads, any may send."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._sending = threading.Lock()
        self._read = b""
        self.is_over = False  #: the other end has closed, most likely because its process has ended

    def fileno(self) -> int:
        """Return what ``select`` waits for."""
        return self._connection.fileno()

    def receive(self) -> Sequence[Message]:
        """Wait for messages; none when the other end has closed. What it had begun to write then is dropped."""
        try:
            data = self._connection.recv(_READ_BYTES)
        except OSError:  # reset: it ended before it had read everything
            data = b""
        self.is_over = not data
        *lines, self._read = (self._read + data).split(b"\n")
        return [decode(line) for line in lines]

    def send(self, message: Message) -> None:
        """Send, and wait while the other end does not read; nothing happens when it has closed."""
        with self._sending, suppress(OSError):
            self._connection.sendall(encode(message))

    def send_at_once(self, message: Message) -> bool:
        """Send without ever waiting; False when the other end does not read: the channel is of no use any more then.

        Nothing happens when it has closed.
        """
        data = encode(message)
        with self._sending:
            try:
                return self._connection.send(data, socket.MSG_DONTWAIT) == len(data)
            except BlockingIOError:
                return False
            except OSError:
                return True

    def close(self) -> None:
        """Let the other end know that nothing comes any more."""
        self._connection.close()
