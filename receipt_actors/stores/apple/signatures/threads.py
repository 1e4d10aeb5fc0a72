"""``SignedDataThreads``: verifies what Apple signed on threads of this process, without epoll or without processes.

Other threads have to wait for the interpreter's lock meanwhile, some milliseconds at a time.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from receipt_actors.errors import AppStoreUnavailable
from receipt_actors.otp import BlockingPool
from receipt_actors.stores.apple.ports import Outcome, SignedData, SignedKind

THREADS = 2  #: most of the work is done under one lock; while one of them is between two signatures the other goes on


class SignedDataThreads:
    """``SignedDataCalls`` of the ``SignedData`` that ``open_signed_data`` opens with the first work.

    If opening raises (``ConfigurationError``), that is the outcome, and the next work tries it again.
    """

    def __init__(self, open_signed_data: Callable[[], SignedData]) -> None:
        self._open_signed_data = open_signed_data
        self._lock = threading.Lock()  # over the next one
        self._signed_data: SignedData | None = None
        self._pool = BlockingPool("signed_data", THREADS)

    def begin(self, kind: SignedKind, signed: str, done: Callable[[Outcome], object]) -> None:
        """See ``SignedDataCalls``: ``done`` is called on one of the threads, or here once this is closed."""

        def work() -> None:
            done(self._outcome(kind, signed))

        if not self._pool.submit(work):
            done(AppStoreUnavailable("signatures are not verified: closed"))

    def close(self) -> None:
        """End the threads, once they have done what waits. Does not wait. May be called twice."""
        self._pool.close()

    def _outcome(self, kind: SignedKind, signed: str) -> Outcome:
        try:
            with self._lock:
                self._signed_data = signed_data = self._signed_data or self._open_signed_data()
            is_transaction = kind is SignedKind.TRANSACTION
            return (signed_data.verify_transaction if is_transaction else signed_data.verify_notification)(signed)
        except Exception as error:  # noqa: BLE001 - a bug as well, which the caller has to hear of
            return error
