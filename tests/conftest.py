"""What holds for every test."""

from __future__ import annotations

import signal


def pytest_configure() -> None:
    """Take SIGINT again where a shell that runs us in the background ignores it: children would inherit that."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
