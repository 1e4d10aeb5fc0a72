"""The two places where a ``NetworkLoop`` runs: a thread of its own, and the scheduler of an actor system."""

from __future__ import annotations

import queue
from collections.abc import Callable
from typing import Any, TypeVar

from receipt_actors.network_loop import NetworkLoop
from receipt_actors.otp import ActorSystem
from tests.patience import PATIENCE_SECONDS

PLACES = ["thread", "scheduler"]

L = TypeVar("L", bound=NetworkLoop[Any])


class _Begin:
    """To be run on a scheduler: what a pooled actor does there."""

    def __init__(self, begin: Callable[[], object]) -> None:
        self._begin = begin
        self.raised: queue.SimpleQueue[BaseException | None] = queue.SimpleQueue()

    def run(self) -> None:
        try:
            self._begin()
        except BaseException as error:  # noqa: BLE001 - it is for who asked
            self.raised.put(error)
        else:
            self.raised.put(None)

    def fail(self, error: BaseException) -> None:
        self.raised.put(error)


def in_place(place: str, loop: L) -> L:
    """Have what is begun with ``loop`` begun in ``place``, from whatever thread; close it as ever."""
    if place == "thread":
        return loop
    actors = ActorSystem("host")
    loop.run_on(actors.scheduler)
    begin, close = loop.begin, loop.close  # type: ignore[attr-defined]

    def begin_there(*args: Any, **keywords: Any) -> None:
        if actors.scheduler.is_current() or not actors.scheduler.is_running():
            begin(*args, **keywords)
            return
        there = _Begin(lambda: begin(*args, **keywords))
        actors.scheduler.schedule(there)
        raised = there.raised.get(timeout=PATIENCE_SECONDS)
        if raised is not None:
            raise raised

    def close_all() -> None:
        close()
        if not actors.scheduler.is_current():
            actors.stop()

    loop.begin, loop.close = begin_there, close_all  # type: ignore[attr-defined, method-assign]
    return loop
