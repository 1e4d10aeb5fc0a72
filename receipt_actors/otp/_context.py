"""Which process the current thread is running (Erlang: ``self()``)."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from receipt_actors.otp._mailbox import Mailbox
    from receipt_actors.otp._process import Process


class Nobody:
    """Who runs on a thread that is no actor's: may send what it likes, and is not watched."""

    __slots__ = ()
    observed = False


NOBODY = Nobody()


class Running:
    """The process that one thread is running at this moment. Only that thread changes it."""

    __slots__ = ("interrupted", "process")

    def __init__(self) -> None:
        self.process: Process | Nobody = NOBODY
        self.interrupted: list[Process | Nobody] = []  # in the middle of starting another, say

    def enter(self, process: Mailbox) -> None:
        """Run a process in the middle of another's turn (which starts it, say); ``leave`` must follow."""
        self.interrupted.append(self.process)
        self.process = cast("Process", process)

    def leave(self) -> None:
        """Go on with whom ``enter`` interrupted."""
        self.process = self.interrupted[-1]
        self.interrupted.pop()  # in this order: a kill from another thread always finds it in one of the two

    def is_inside(self, process: Process) -> bool:
        """Tell whether a callback of the process is under way (asked from any thread)."""
        return self.process is process or process in self.interrupted


class _Context(threading.local):
    """Each thread's ``Running``; those that are no scheduler's share one that is never changed."""

    running = Running()


context = _Context()


def forget_current_process() -> None:
    """Have the calling thread run nobody: it is the only one in the child of a fork, and no actor's any more."""
    context.running = _Context.running


def current_process() -> Process | None:
    """Return the process that the calling thread runs, or None."""
    process = context.running.process
    return None if process is NOBODY else process  # type: ignore[return-value]


def current_process_is_dead() -> bool:
    """Tell whether the calling thread runs a callback of a process that has been killed meanwhile."""
    process = current_process()
    return process is not None and process.is_set()
