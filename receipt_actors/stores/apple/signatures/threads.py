"""``SignedDataThreads``: verifies what Apple signed on threads of this process, where other processes are not wanted.

Other threads have to wait for the interpreter's lock meanwhile, some milliseconds at a time.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from receipt_actors.errors import AppStoreUnavailable
from receipt_actors.otp import BlockingPool
from receipt_actors.stores.apple.ports import SignedData, SignedKind

THREADS = 2  #: most of the work is done under one lock; while one of them is between two signatures the other goes on


class SignedDataThreads:
    """``SignedDataCalls`` of a ``SignedData``."""

    def __init__(self, signed_data: SignedData) -> None:
        self._verify = {
            SignedKind.TRANSACTION: signed_data.verify_transaction,
            SignedKind.NOTIFICATION: signed_data.verify_notification,
        }
        self._pool = BlockingPool("signed_data", THREADS)

    def begin(self, kind: SignedKind, signed: str, done: Callable[[Any], object]) -> None:
        """See ``SignedDataCalls``: ``done`` is called on one of the threads, or here once this is closed."""

        def work() -> None:
            try:
                outcome: object = self._verify[kind](signed)
            except Exception as error:  # noqa: BLE001 - a bug, which whoever asked has to hear of
                outcome = error
            done(outcome)

        if not self._pool.submit(work):
            done(AppStoreUnavailable("signatures are not verified: closed"))

    def close(self) -> None:
        """End the threads, once they have done what waits. Does not wait. May be called twice."""
        self._pool.close()
