"""``AnswerRoom``: how much of large answers is held at once by the whole process, whatever the number of requests.

Apple's answers come to some hundred kilobytes at most. A server that is not Apple's, or has gone wrong, may answer
each request with as much as an answer may have: together that would be more than the process can hold. So an answer
holds its ``Place`` until it has been parsed, for what it is parsed into may be several times as large.
"""

from __future__ import annotations

import threading

SMALL_ANSWER_BYTES = 256 * 1024  #: of each answer, which need no room: others' large answers do not keep it out
ROOM_BYTES = 32 * 1024 * 1024  #: for what all answers have beyond that, together
NO_ROOM = f"an answer of more than {SMALL_ANSWER_BYTES} bytes, and other large ones have taken the room for these"


class AnswerRoom:
    """See the module. Used by any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._taken_bytes = 0

    def take(self, more_bytes: int) -> bool:
        """Take room; False where there is none, and nothing is taken."""
        with self._lock:
            if self._taken_bytes + more_bytes > ROOM_BYTES:
                return False
            self._taken_bytes += more_bytes
            return True

    def give_back(self, taken_bytes: int) -> None:
        """Give back what was taken."""
        with self._lock:
            self._taken_bytes -= taken_bytes


ROOM = AnswerRoom()  #: of the process: what it bounds is the process's memory


class Place:
    """What one answer after the other, each of which ends with ``leave``, has of ``ROOM``. Used by one thread."""

    __slots__ = ("_taken_bytes", "size_bytes")

    def __init__(self) -> None:
        self.size_bytes = 0  #: of the answer, as far as it has come
        self._taken_bytes = 0

    def grow(self, more_bytes: int) -> bool:
        """Take room for more of the answer; False where there is none."""
        size_bytes = self.size_bytes + more_bytes
        more_room_bytes = max(0, size_bytes - SMALL_ANSWER_BYTES) - self._taken_bytes
        if more_room_bytes:
            if not ROOM.take(more_room_bytes):
                return False
            self._taken_bytes += more_room_bytes
        self.size_bytes = size_bytes
        return True

    def leave(self) -> None:
        """Give back all of it."""
        if self._taken_bytes:
            ROOM.give_back(self._taken_bytes)
        self.size_bytes = self._taken_bytes = 0
