"""``AnswerRoom``: how much of large answers is held at once by the whole process, whatever the number of requests.

Apple's answers come to some hundred kilobytes at most. A server that is not Apple's, or has gone wrong, may answer
each request with as much as an answer may have: together that would be more than the process can hold.
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

    def take(self, before_bytes: int, after_bytes: int) -> bool:
        """Take room for an answer that grows; False where there is none, and nothing is taken."""
        more = _large_part(after_bytes) - _large_part(before_bytes)
        if more == 0:
            return True
        with self._lock:
            if self._taken_bytes + more > ROOM_BYTES:
                return False
            self._taken_bytes += more
            return True

    def give_back(self, size_bytes: int) -> None:
        """Give back all that an answer of this size has taken."""
        large = _large_part(size_bytes)
        if large:
            with self._lock:
                self._taken_bytes -= large


def _large_part(size_bytes: int) -> int:
    return max(0, size_bytes - SMALL_ANSWER_BYTES)


ROOM = AnswerRoom()  #: of the process: what it bounds is the process's memory
