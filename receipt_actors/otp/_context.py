"""Which process the current thread is running (Erlang: ``self()``)."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from receipt_actors.otp._process import Process


class Nobody:
    """Who runs on a thread that is no actor's: may send what it likes, and is not watched."""

    __slots__ = ()
    observed = False


NOBODY = Nobody()


class Running:
    """The process that one thread is running at this moment. Only that thread changes it."""

    __slots__ = ("process",)

    def __init__(self) -> None:
        self.process: Process | Nobody = NOBODY


class _Context(threading.local):
    """Each thread's ``Running``; those that are no scheduler's share one that is never changed."""

    running = Running()


context = _Context()


def current_process() -> Process | None:
    """Return the process that the calling thread runs, or None."""
    process = context.running.process
    return None if process is NOBODY else process  # type: ignore[return-value]
