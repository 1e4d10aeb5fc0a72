"""``AdminServer``: the admin port, from ``bind`` to ``stop``; on a thread of its own with an event loop of its own."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Self

from receipt_actors.admin.routes import Routes, application
from receipt_actors.admin.watch import Calls, Watch
from receipt_actors.domain.addresses import Address
from receipt_actors.errors import ConfigurationError
from receipt_actors.telemetry.control import SystemControl
from receipt_actors.web.serving import Serving, listen

REQUESTS_PER_SECOND = 100  #: that are served for long, of all connections together; more wait
BURST_REQUESTS = 200  #: that are served at once after a rest
LARGE_PATHS = frozenset({"/api/overview", "/api/history", "/metrics"})  #: whose answers take milliseconds to write
LARGE_WEIGHT = 3  #: requests that one of them counts as
LONGEST_TURN_SECONDS = 2.0  #: that a request waits
STOP_SECONDS = 0.3  #: for answers under way, when the server stops


class AdminServer:
    """It has one life, and no signal handler.

    Listens from the start, before there is a system to look at, so that an address that can't be had is told before
    anything has begun; ``serve`` names the system. As a context manager it stops at the end.

    Raises:
        ConfigurationError: other machines could reach it, and there is no token.
        AddressRefused: the port is taken, or the host is not one of this machine.
    """

    def __init__(self, address: Address, token: str | None = None) -> None:
        if token is None and not address.is_loopback:
            expected = "give admin_token too, or listen on 127.0.0.1"
            raise ConfigurationError([f"admin: found {str(address)!r}, which other machines may reach; {expected}"])
        self._token = token
        self._system: SystemControl | None = None
        self._listener = listen("admin", address)
        self.address = Address(address.host, self._listener.getsockname()[1])
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self._calls: Calls | None = None  # made by the event loop
        self._thread = threading.Thread(target=self._run, name="receipt-actors-admin", daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://{self.address}/"

    def serve(self, system: SystemControl) -> None:
        self._system = system

    def stop(self) -> None:
        """Cut off all connections and end, within a second. May be called twice."""
        with suppress(RuntimeError):  # it has ended
            self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()
        if self._calls is not None:
            self._calls.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.stop()

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._serve())

    async def _serve(self) -> None:
        calls = self._calls = Calls()
        watch = Watch(calls, lambda: self._system)
        routes = Routes(watch, calls)
        serving = Serving(application(routes, self.address.host, self._token), self._listener, Pace().pause_seconds)
        await serving.begin()
        looking = asyncio.create_task(watch.run())
        await self._stop.wait()
        serving.close()
        watch.close()
        routes.close()
        calls.close()
        await serving.end(STOP_SECONDS)
        await looking


class Pace:
    """How many requests a second are served, over all connections; more wait. Used within the event loop.

    The port shares a processor, and Python's one lock, with the pipeline: a client that asks as fast as there are
    answers would take half of both.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._next_at = float("-inf")  # when the next request would be due, had all come evenly

    def pause_seconds(self, path: str) -> float:
        """Take the turn of a request for ``path``; return for how many seconds to wait until it has come."""
        return self.turn(LARGE_WEIGHT if path in LARGE_PATHS else 1)

    def turn(self, weight: int = 1) -> float:
        """Take a turn; return for how many seconds to wait until it has come.

        ``weight`` is how many requests this one counts as.
        """
        now = self._clock()
        due_at = max(self._next_at, now - BURST_REQUESTS / REQUESTS_PER_SECOND)
        # Bounded: those who ask and hang up must not let others wait for ever.
        self._next_at = min(due_at + weight / REQUESTS_PER_SECOND, now + LONGEST_TURN_SECONDS)
        return max(0.0, self._next_at - now)
