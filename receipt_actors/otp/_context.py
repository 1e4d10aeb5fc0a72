"""Which process the current thread is running (Erlang: ``self()``)."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, cast

if TYPE_CHECKING:
    from receipt_actors.otp._mailbox import Mailbox
    from receipt_actors.otp._process import Process


_LOOK_AGAIN_SECONDS: Final = 50e-6  #: while another thread is in the middle of a send, which takes less
_LOOKS: Final = 20_000  #: a second or more: only who is waited for in vain takes so long


class Nobody:
    """Who runs on a thread that is no actor's: may send what it likes, and is not watched."""

    __slots__ = ()
    observed = False
    has_ended = False


NOBODY = Nobody()


class Running:
    """The process that one thread is running at this moment. Only that thread changes it.

    **The fence.** A process looks whether it has ended and sends while ``is_sending`` is set. Who ends it from another
    thread first notes the end, then waits until ``is_sending`` is no longer set, and only then tells of the end. So
    nothing of a process arrives after its ``Down``: either it sees its end, or its message is waited for.
    """

    __slots__ = ("interrupted", "is_sending", "process")

    def __init__(self) -> None:
        self.process: Process | Nobody = NOBODY
        self.is_sending = False  # of no meaning where ``process`` is nobody
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
        # Once more at the end: ``leave`` may come between the two.
        return self.process is process or process in self.interrupted or self.process is process

    def send(self, effect: Callable[..., object], *args: Any) -> bool:
        """Have others notice something of the process that runs; False, and nothing is done, where it has ended.

        ``effect`` must not wait for another process, and end none. ``Ref.send`` and ``cast`` do the same in place.
        """
        before, self.is_sending = self.is_sending, True  # a finalizer may send in the middle of a send
        try:
            if self.process.has_ended:
                return False
            effect(*args)
            return True
        finally:
            self.is_sending = before

    def wait_for_send(self, ended: Process) -> None:
        """Wait until nothing is on its way any more of a process that has ended (called from any thread).

        A send waits for locks only. The caller may hold one of them, where a finalizer, a signal handler or a name's
        ``__eq__`` ends a process in the middle of the runtime: then the two would wait for each other, so it gives up.
        """
        if context.running is self:
            return
        for _ in range(_LOOKS):
            if not (self.is_sending and self.is_inside(ended)):
                return
            time.sleep(_LOOK_AGAIN_SECONDS)


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
