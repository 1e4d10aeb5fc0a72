"""The two places where a ``NetworkLoop`` runs: a thread of its own, and the scheduler of an actor system."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any, TypeVar

from receipt_actors.otp import ActorSystem
from receipt_actors.transport.loop import NetworkLoop

PLACES = ["thread", "scheduler"]

L = TypeVar("L", bound=NetworkLoop[Any])


@contextmanager
def in_place(place: str, loop: L) -> Iterator[L]:
    """Have a loop run in ``place``, and close it in the end."""
    if place == "thread":
        with closing(loop):
            yield loop
        return
    actors = ActorSystem("host")
    loop.run_on(actors.scheduler)
    try:
        with closing(loop):
            yield loop
    finally:
        actors.stop()
