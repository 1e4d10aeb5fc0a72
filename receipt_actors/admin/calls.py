"""``Calls``: carries out calls that block on threads of their own, for the event loop of the admin port."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

from receipt_actors.admin.limits import ANSWER_SECONDS, JOIN_SECONDS, MAX_CALLS
from receipt_actors.errors import ReceiptActorsError

Result = TypeVar("Result")


class NotAnswered(ReceiptActorsError):
    """The system, or this server, has no answer just now."""


class Calls:
    """A daemon thread for each call: the program may end while the system takes long to answer.

    Made and used within the event loop, but for ``join``.
    """

    def __init__(self) -> None:
        self._count = 0  # of calls under way
        self._threads: list[threading.Thread] = []
        self._closed = asyncio.Event()

    async def run(
        self, call: Callable[[], Result], *, if_late: Callable[[Result], object] = lambda _result: None
    ) -> Result:
        """Return what ``call`` returns, and raise what it raises.

        ``if_late`` gets the result if it comes after the time-out.

        Raises:
            NotAnswered: it takes too long, there are too many calls, or the server stops.
        """
        if self._closed.is_set():
            raise NotAnswered("the admin port is being closed")
        if self._count >= MAX_CALLS:
            raise NotAnswered("too many requests wait for the system: try again")
        outcome: Future[Result] = Future()

        def carry_out() -> None:
            try:
                outcome.set_result(call())
            except BaseException as error:  # noqa: BLE001 - the caller of ``run`` gets it
                outcome.set_exception(error)

        self._count += 1
        answer = asyncio.wrap_future(outcome)
        answer.add_done_callback(self._done)
        self.begin(carry_out)
        closing = asyncio.create_task(self._closed.wait())
        either: set[asyncio.Future[Any]] = {answer, closing}
        try:
            await asyncio.wait(either, timeout=ANSWER_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        finally:
            closing.cancel()
        if answer.done():
            return answer.result()
        answer.add_done_callback(lambda late: None if late.exception() else if_late(late.result()))
        if self._closed.is_set():
            raise NotAnswered("the admin port is being closed")
        raise NotAnswered(f"the system has not answered within {ANSWER_SECONDS:g} s")

    def begin(self, call: Callable[[], None]) -> None:
        """Have ``call`` carried out without waiting for it. It must not raise."""
        thread = threading.Thread(target=call, name="receipt-actors-admin-call", daemon=True)
        self._threads = [*(each for each in self._threads if each.is_alive()), thread]
        thread.start()

    def close(self) -> None:
        self._closed.set()

    def join(self) -> None:
        """Wait a moment for the threads to end, on whatever thread; one whose call hangs is left behind."""
        for thread in self._threads:
            thread.join(JOIN_SECONDS)

    def _done(self, answer: asyncio.Future[Any]) -> None:
        self._count -= 1
        if not answer.cancelled():
            answer.exception()  # one that came too late has been told as a time-out
