"""``python -m receipt_actors`` is the command ``receipt-actors``, and begins here, too.

Loading the program takes some tenths of a second. A signal to stop ``start`` or ``notifications`` should not find
nobody in by then, so the handlers come first and everything else is imported after them. What is left is the start of
Python itself, some hundredths of a second, in which a signal ends any Python program.
"""

from __future__ import annotations

import gc
import os
import signal
import sys
from contextlib import suppress
from types import FrameType

EXIT_INTERRUPTED = 130  # as in receipt_actors.cli, which is not imported yet

#: New objects until Python looks for garbage (its own number is 700): what modules make is none, and there is much.
GARBAGE_THRESHOLD = 50_000


def main() -> int:
    """Run the command line of this process, and return the exit code."""
    stop_signals = (signal.SIGTERM, signal.SIGINT) if sys.argv[1:2] in (["start"], ["notifications"]) else ()
    for number in stop_signals:
        signal.signal(number, _end_at_once)
    gc.set_threshold(GARBAGE_THRESHOLD)
    try:
        from receipt_actors.cli import main as run

        status = run()
    except KeyboardInterrupt:  # while it was imported
        return EXIT_INTERRUPTED
    for number in stop_signals:
        signal.signal(number, signal.SIG_IGN)  # it ends anyhow, and has its code
    return status


def _end_at_once(number: int, _frame: FrameType | None) -> None:
    """End with code 0, as after a drain. Both commands have handlers of their own while there is anything to drain."""
    if sys.stderr is not None:
        with suppress(OSError):  # nobody reads it any more
            os.write(sys.stderr.fileno(), f"receipt-actors: {signal.Signals(number).name}: nothing to drain\n".encode())
    os._exit(0)  # and not by an exception, which a module that is being imported might catch


if __name__ == "__main__":
    sys.exit(main())
