"""``Calls``: carries out calls that block on a few threads of their own, for the event loop of the admin port."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from receipt_actors.admin.limits import ANSWER_SECONDS, CALL_THREADS, MAX_CALLS
from receipt_actors.errors import ReceiptActorsError

Result = TypeVar("Result")


class NotAnswered(ReceiptActorsError):
    """The system, or this server, has no answer just now."""


class Calls:
    """See the module. Made and used within the event loop; ``close`` ends all waiting."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(CALL_THREADS, "receipt-actors-admin-call")
        self._under_way: set[asyncio.Future[Any]] = set()
        self._closed = asyncio.Event()

    async def run(self, call: Callable[[], Result]) -> Result:
        """Return what ``call`` returns, and raise what it raises.

        Raises:
            NotAnswered: it takes too long, there are too many calls, or the server stops.
        """
        if self._closed.is_set():
            raise NotAnswered("the admin port is being closed")
        if len(self._under_way) >= MAX_CALLS:
            raise NotAnswered("too many requests wait for the system: try again")
        future: asyncio.Future[Result] = asyncio.get_running_loop().run_in_executor(self._threads, call)
        self._under_way.add(future)
        future.add_done_callback(self._done)
        closing = asyncio.ensure_future(self._closed.wait())
        either: set[asyncio.Future[Any]] = {future, closing}
        try:
            await asyncio.wait(either, timeout=ANSWER_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        finally:
            closing.cancel()
        if future.done():
            return future.result()
        if self._closed.is_set():
            raise NotAnswered("the admin port is being closed")
        raise NotAnswered(f"the system has not answered within {ANSWER_SECONDS:g} s")

    def begin(self, call: Callable[[], object]) -> None:
        """Have ``call`` carried out; nobody waits for it."""
        if not self._closed.is_set():
            self._threads.submit(call)

    def close(self) -> None:
        """Begin nothing any more, and let nobody wait."""
        self._closed.set()
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _done(self, future: asyncio.Future[Any]) -> None:
        self._under_way.discard(future)
        if not future.cancelled():
            future.exception()  # one that came too late has been told as a time-out
