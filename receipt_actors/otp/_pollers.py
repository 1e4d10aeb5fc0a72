"""Pollers: what waits for the outside world on a scheduler's own thread, between the turns of the actors.

So Erlang's schedulers poll for I/O themselves: what comes in is handled where the actors run, no other thread is woken
for it, and none fights with theirs for the interpreter's lock.
"""

from __future__ import annotations

import logging
import os
import queue
import select
import threading
import time
from contextlib import suppress
from math import inf
from typing import Any, Protocol

from receipt_actors.otp._log import log

LONGEST_WAIT_SECONDS = 3600.0  #: epoll takes no more than three weeks; then it is time to look again


class Poller(Protocol):
    """Something with a file descriptor to wait for. All of it is called on the scheduler's thread, and must not block.

    The descriptor may be an ``epoll`` of the poller's own, which can be read when one of its files can. What a poller
    raises is logged, and it is polled no more.
    """

    def fileno(self) -> int:
        """Return the descriptor; always the same."""

    def due_at(self) -> float | None:
        """Return when ``poll`` is to be called though there is nothing to read: ``time.monotonic()``; None: never."""

    def poll(self) -> None:
        """Do what can be done now."""

    def stop(self) -> None:
        """Give up: the scheduler's thread ends."""


class Pollers:
    """The pollers of one scheduler. Of its thread alone, but for ``wake``."""

    __slots__ = ("_epoll", "_lock", "_pollers", "_wake_fd", "is_waiting")

    def __init__(self) -> None:
        self._lock = threading.RLock()  # guards _wake_fd; a finalizer may schedule something in the middle of this
        self._epoll = select.epoll()  # first: should descriptors run out, it closes itself
        self._wake_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._epoll.register(self._wake_fd, select.EPOLLIN)
        self._pollers: dict[int, Poller] = {}
        self.is_waiting = False  #: whether the thread has to be woken

    def attach(self, poller: Poller) -> None:
        """Poll it from now on."""
        fd = poller.fileno()
        self._epoll.register(fd, select.EPOLLIN)
        self._pollers[fd] = poller

    def detach(self, poller: Poller) -> None:
        """Poll it no more; before it closes its descriptor. Nothing happens where it is not polled."""
        fd = next((fd for fd, other in self._pollers.items() if other is poller), None)
        if fd is not None:
            del self._pollers[fd]
            with suppress(OSError):  # closed already: then epoll has forgotten it
                self._epoll.unregister(fd)

    def wake(self) -> None:
        """End a ``look`` that waits. From any thread."""
        with self._lock:
            if self.is_waiting:
                self.is_waiting = False
                os.eventfd_write(self._wake_fd, 1)

    def look(self, ready: queue.SimpleQueue[Any]) -> None:
        """Poll whom there is something to do for; wait for that, unless ``ready`` has something."""
        now = time.monotonic()
        due, wake_at = {}, inf
        for fd, poller in tuple(self._pollers.items()):
            try:
                due_at = poller.due_at()
            except BaseException:
                self._failed(poller)
                continue
            if due_at is None:
                continue
            if due_at <= now:
                due[fd] = poller
            wake_at = min(wake_at, due_at)
        if not due:
            # In this order: who puts something into the queue, and finds that nobody waits, is seen here.
            self.is_waiting = True
        wait_seconds = min(wake_at - now, LONGEST_WAIT_SECONDS) if not due and ready.empty() else 0.0
        events = self._epoll.poll(wait_seconds)
        self.is_waiting = False
        for fd, _ in events:
            if fd == self._wake_fd:
                os.eventfd_read(fd)
            elif fd in self._pollers:
                due[fd] = self._pollers[fd]
        for fd, poller in due.items():
            if self._pollers.get(fd) is not poller:  # another one has had it detached
                continue
            try:
                poller.poll()
            except BaseException:
                self._failed(poller)

    def _failed(self, poller: Poller) -> None:
        log(logging.ERROR, "poller %s failed, and is polled no more", type(poller).__name__, exc_info=True)
        self.detach(poller)

    def stop(self) -> None:
        """Stop all, and close."""
        for poller in list(self._pollers.values()):
            try:
                poller.stop()
            except BaseException:
                log(logging.ERROR, "poller %s could not be stopped", type(poller).__name__, exc_info=True)
        self._pollers.clear()
        with self._lock:
            self.is_waiting = False
            self._epoll.close()
            os.close(self._wake_fd)
