"""Waiting for an actor system to come to rest, without sleeping and without guessing how long that takes.

``settle`` looks from the scheduler's own thread, behind everything that was ready to run: no pooled actor runs
meanwhile. What is busy then is a thread of a gateway's pool or of an actor of its own; each is either on its way, and
will say so by a message, or stands still in a call of a fake until somebody outside does something.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from receipt_actors.otp import ActorSystem, ManualClock
from receipt_actors.pipeline.gateway import Gateway
from receipt_actors.testing._faults import PATIENCE_SECONDS, Fake

MAX_TIMERS_AT_ONCE = 10_000


class _Look:
    """Something to find out on the scheduler's thread, once everything that is ready by now has had its turn."""

    def __init__(self, find_out: Callable[[], str | None]) -> None:
        self._find_out = find_out
        self.done = threading.Event()
        self.finding: str | None = "the scheduler, which hangs"

    def run(self) -> None:
        self.finding = self._find_out()
        self.done.set()

    def fail(self, _error: BaseException) -> None:
        self.finding = "the look itself, which failed"
        self.done.set()


def settle(actors: ActorSystem, *fakes: Fake) -> None:
    """Wait until nothing more will happen unless the clock moves, or somebody outside does something.

    Calls that a fake holds, and long polls of empty queues, count as at rest. With the real clock there may be timers
    that are still to fire. Raises ``TimeoutError`` after ``PATIENCE_SECONDS``, which says what is busy.
    """
    _look_until_none(actors, lambda: _busy(actors, fakes))


def wait_until(predicate: Callable[[], bool], actors: ActorSystem) -> None:
    """Wait until ``predicate`` is true; it is asked on the scheduler's thread, between the turns of actors.

    For what ``settle`` cannot know: real clients, the real clock. It keeps a processor busy meanwhile. Raises
    ``TimeoutError`` after ``PATIENCE_SECONDS``.
    """
    _look_until_none(actors, lambda: None if predicate() else "the predicate, which is still false")


def advance(clock: ManualClock, seconds: float, actors: ActorSystem, *fakes: Fake) -> None:
    """Move the clock on, from timer to timer, and let the actors settle after each: as if the time had passed.

    Raises ``TimeoutError`` if they do not settle, or if each timer sets the next one for at once.
    """
    end = clock.monotonic() + seconds
    settle(actors, *fakes)
    timers_at_once = 0
    while (due := clock._timers.next_due()) is not None and due <= end:
        timers_at_once = timers_at_once + 1 if due <= clock.monotonic() else 0
        if timers_at_once > MAX_TIMERS_AT_ONCE:
            raise TimeoutError(f"{timers_at_once} timers in a row at {due:g} s: the time does not pass")
        clock.advance(due - clock.monotonic())
        settle(actors, *fakes)
    clock.advance(end - clock.monotonic())
    settle(actors, *fakes)


def _look_until_none(actors: ActorSystem, find_out: Callable[[], str | None]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        look = _Look(find_out)
        actors.scheduler.schedule(look)
        look.done.wait(PATIENCE_SECONDS)
        if look.finding is None:
            return
        if time.monotonic() > deadline:
            raise TimeoutError(f"not at rest after {PATIENCE_SECONDS:g} s: {look.finding}")


def _busy(actors: ActorSystem, fakes: tuple[Fake, ...]) -> str | None:
    """Name one who is busy, or None. Whatever moves from who is looked at last to who was first shows at the end."""
    in_calls = set[threading.Thread]().union(*(fake.busy_threads() for fake in fakes))
    standing = set[threading.Thread]().union(*(fake.standing_threads() for fake in fakes))
    for pool in list(actors._pools):
        if pool.busy_threads > sum(thread in standing for thread in pool._threads):
            return f"a thread of pool {pool.name}"
    for ref in actors.processes():
        process = ref.process
        if process._scheduled.locked() and process._scheduler._thread not in standing:
            return f"{ref}, which has messages to handle"
        actor = process.actor
        if isinstance(actor, Gateway) and actor._calls is actor._threads:  # else whoever calls for it is busy
            standing_calls = sum(thread in standing for thread in actor._threads._pool._threads)
            if actor._under_way > standing_calls:
                return f"{ref}, {actor._under_way - standing_calls} of whose calls are under way"
    if in_calls - standing:
        return "a call of a fake"
    return None if actors.scheduler._ready.empty() else "the scheduler"
