"""Verification of what Apple signs, opened when the first signed thing comes.

Whoever gets none pays for none: nothing of Apple's library, nor of the cryptography under it, is imported before. It is
opened on a thread of its own, for importing takes a moment in which others would wait; what comes meanwhile waits.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, Protocol

from receipt_actors.stores.apple.ports import SignedDataCalls, SignedKind


class ClosableCalls(SignedDataCalls, Protocol):
    """What is opened."""

    def close(self) -> None:
        """Let go of what it holds."""


_Call = tuple[SignedKind, str, Callable[[Any], object]]


class SignedDataOnDemand:
    """``SignedDataCalls`` of what ``open_calls`` opens.

    Where that raises (``ConfigurationError``: a folder of roots that is gone, say), the callers that wait get it, and
    it is tried again with the next call: an operator may have put it right.
    """

    def __init__(self, open_calls: Callable[[], ClosableCalls]) -> None:
        self._open_calls = open_calls
        self._lock = threading.Lock()  # guards all of these
        self._calls: ClosableCalls | None = None
        self._waiting: list[_Call] = []
        self._is_opening = False
        self._is_closed = False

    def begin(self, kind: SignedKind, signed: str, done: Callable[[Any], object]) -> None:
        """See ``SignedDataCalls``."""
        with self._lock:
            calls = self._calls
            if calls is None:
                self._waiting.append((kind, signed, done))
                if self._is_opening:
                    return
                self._is_opening = True
        if calls is not None:
            calls.begin(kind, signed, done)
        else:
            threading.Thread(target=self._open, name="signed-data-opening", daemon=True).start()

    def close(self) -> None:
        """Close what has been opened, or will be. May be called twice."""
        with self._lock:
            self._is_closed = True
            calls = self._calls
        if calls is not None:
            calls.close()

    def _open(self) -> None:
        calls: ClosableCalls | None = None
        error: Exception | None = None
        try:
            calls = self._open_calls()
        except Exception as raised:  # noqa: BLE001 # whoever waits has to hear of it, whatever it is
            error = raised
        with self._lock:
            self._is_opening = False
            self._calls = calls
            waiting, self._waiting = self._waiting, []
            is_closed = self._is_closed
        for kind, signed, done in waiting:
            if calls is not None:
                calls.begin(kind, signed, done)
            else:
                done(error)
        if is_closed and calls is not None:
            calls.close()
