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

    A program that gets nothing signed imports nothing of Apple's library, nor of the cryptography under it. If opening
    raises (``ConfigurationError``: an extra is missing, say), that is the outcome, and the next work tries it again.
    """

    def __init__(self, open_signed_data: Callable[[], SignedData]) -> None:
        self._open_signed_data = open_signed_data
        self._lock = threading.Lock()  # over the next one
        self._signed_data: SignedData | None = None
        self._pool = BlockingPool("signed_data", THREADS)

    def begin(self, kind: SignedKind, signed: str, done: Callable[[Outcome], object]) -> None:
        """See ``SignedDataCalls``: ``done`` is called on one of the threads, or here once this is closed."""

        def work() -> None:
            outcome: Outcome
            try:
                signed_data = self._opened()
                is_transaction = kind is SignedKind.TRANSACTION
                verify = signed_data.verify_transaction if is_transaction else signed_data.verify_notification
                outcome = verify(signed)
            except Exception as error:  # noqa: BLE001 - a bug as well, which the caller has to hear of
                outcome = error
            done(outcome)

        if not self._pool.submit(work):
            done(AppStoreUnavailable("signatures are not verified: closed"))

    def close(self) -> None:
        """End the threads, once they have done what waits. Does not wait. May be called twice."""
        self._pool.close()

    def _opened(self) -> SignedData:
        with self._lock:
            if self._signed_data is None:
                self._signed_data = self._open_signed_data()
            return self._signed_data
