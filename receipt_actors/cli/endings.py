"""How a process ends that can't do its work any more: always with an exit code, so that it is started anew."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from receipt_actors.cli import EXIT_WORLD_FAILED
from receipt_actors.otp import Crash, ExitReason

logger = logging.getLogger("receipt_actors")


def log_end(reason: ExitReason) -> None:
    """Log why the tree has ended by itself."""
    if isinstance(reason, Crash):
        logger.critical(
            "the actor system has failed, see above: %s. Messages in flight come back by their visibility timeout",
            type(reason.exception).__name__,
        )
    else:
        logger.critical("the supervision tree has ended: too many crashes, see above. Messages were handed back")


@contextmanager
def ending_with_threads() -> Iterator[None]:
    """End the process at once, with exit code 1, when any thread dies of an error.

    Without that thread the process would go on as if nothing were wrong. What is in flight comes back by its visibility
    timeout. Worker processes notice that their parent is gone, and drain.
    """

    def end(args: threading.ExceptHookArgs, /) -> None:
        try:
            hook_before(args)
            thread = "a thread" if args.thread is None else f"thread {args.thread.name}"
            with suppress(OSError):
                os.write(2, f"{thread} has died, and the process ends with it\n".encode())
        finally:
            os._exit(EXIT_WORLD_FAILED)

    hook_before = threading.excepthook
    threading.excepthook = end
    try:
        yield
    finally:
        threading.excepthook = hook_before
