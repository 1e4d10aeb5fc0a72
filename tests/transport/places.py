"""Where a ``NetworkLoop`` runs in tests: on the scheduler of an actor system, as in the program."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any, TypeVar

from receipt_actors.otp import ActorSystem
from receipt_actors.transport.loop import NetworkLoop

L = TypeVar("L", bound=NetworkLoop[Any])


@contextmanager
def running(loop: L) -> Iterator[L]:
    actors = ActorSystem("host")
    loop.run_on(actors.scheduler)
    try:
        with closing(loop):
            yield loop
    finally:
        actors.stop()
