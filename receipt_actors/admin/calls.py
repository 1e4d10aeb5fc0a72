"""``Calls``: carries out calls that block on a few threads of their own, for the event loop of the admin port."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

from receipt_actors.admin.limits import ANSWER_SECONDS, CALL_THREADS, JOIN_SECONDS, MAX_CALLS
from receipt_actors.errors import ReceiptActorsError

Result = TypeVar("Result")


class NotAnswered(ReceiptActorsError):
    """The system, or this server, has no answer just now."""


class Calls:
    """See the module. Made and used within the event loop, but for ``join``.

    The threads are daemons: the program may end while the system takes long to answer.
    """

    def __init__(self) -> None:
        self._waiting: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._count = 0  # of calls under way or waiting
        self._closed = asyncio.Event()
        self._threads = [
            threading.Thread(target=self._work, name=f"receipt-actors-admin-call-{number}", daemon=True)
            for number in range(1, CALL_THREADS + 1)
        ]
        for thread in self._threads:
            thread.start()

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
        self._waiting.put(carry_out)
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
        self._waiting.put(call)

    def close(self) -> None:
        """End all waits."""
        self._closed.set()

    def end(self) -> None:
        """End the threads, when they have done what is waiting."""
        for _ in self._threads:
            self._waiting.put(None)

    def join(self) -> None:
        """Wait a moment for the threads to end, on whatever thread; one whose call hangs is left behind."""
        for thread in self._threads:
            thread.join(JOIN_SECONDS)

    def _work(self) -> None:
        while (call := self._waiting.get()) is not None:
            call()

    def _done(self, answer: asyncio.Future[Any]) -> None:
        self._count -= 1
        if not answer.cancelled():
            answer.exception()  # one that came too late has been told as a time-out
