"""Links and monitors: what ties the life of one process to others. The lock of all systems guards them.

Most processes have one link, to the supervisor that started them, so a single one is kept without a set around it.
"""

from __future__ import annotations

import itertools
from abc import abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeAlias

from pykka._envelope import Envelope

from receipt_actors.otp._life import EXITED, STARTING, State
from receipt_actors.otp._messages import Down, DownEnvelope
from receipt_actors.otp._reasons import NO_PROCESS, ExitReason

if TYPE_CHECKING:
    from receipt_actors.otp._ref import Ref
    from receipt_actors.otp._system import ActorSystem

#: Who is told of an end: a process, by a ``Down`` in its mailbox; or a function, on the thread that the end comes from.
Watcher: TypeAlias = "Relations | Callable[[Down], None]"


#: Numbers of monitors: of all systems, since a process may watch others of another.
_monitors = itertools.count(1)


class Relations:
    """The links and monitors of one process. ``Process`` is the only subclass."""

    __slots__ = ("_links", "_monitored", "_monitors", "_state", "exit_reason", "ref", "system")

    system: ActorSystem
    ref: Ref

    def __init__(self) -> None:
        self._state: State = STARTING
        self.exit_reason: ExitReason | None = None
        self._links: Relations | set[Relations] | None = None
        self._monitors: dict[int, Watcher] | None = None  # who watches this process
        self._monitored: dict[int, Relations] | None = None  # whom this one watches, until their Down is delivered

    @property
    def state(self) -> State:
        """Where it is in its life."""
        return self._state

    def is_set(self) -> bool:
        """Tell whether the process has ended."""
        return self._state is EXITED

    @abstractmethod
    def put(self, envelope: Envelope[Any], /) -> None:
        """Queue a message."""

    @abstractmethod
    def signal(self, sender: Any, reason: ExitReason) -> None:
        """Receive an exit signal, and obey it."""

    # --- links ---

    @property
    def links(self) -> list[Relations]:
        """Return whom it is linked to."""
        with self.system.lock:
            links = self._links
            return list(links) if isinstance(links, set) else [] if links is None else [links]

    def is_linked_to(self, other: Relations) -> bool:
        """Tell whether the two lives are tied."""
        links = self._links
        return other in links if isinstance(links, set) else links is other

    def link(self, other: Relations) -> None:
        """Tie two lives together; a link to an ended process is an exit signal at once."""
        if other is self:
            return
        with self.system.lock:
            alive = not other.is_set() and not self.is_set()
            if alive:
                self.add_link(other)
                other.add_link(self)
        if not alive and other.is_set():
            self.signal(other, NO_PROCESS)

    def add_link(self, other: Relations) -> None:
        """Note one side of a link; the caller holds the lock and notes the other side."""
        links = self._links
        if links is None:
            self._links = other
        elif isinstance(links, set):
            links.add(other)
        elif links is not other:
            self._links = {links, other}

    def unlink(self, other: Relations) -> None:
        """Undo ``link``: neither gets a signal through it from now on."""
        with self.system.lock:
            self.drop_link(other)
            other.drop_link(self)

    def drop_link(self, other: Relations) -> None:
        """Forget one side of a link; the caller holds the lock."""
        links = self._links
        if isinstance(links, set):
            links.discard(other)
        elif links is other:
            self._links = None

    # --- monitors ---

    def add_monitor(self, watcher: Watcher) -> int:
        """Have ``watcher`` told, once, when this process ends (at once where it has ended). Returns the monitor."""
        monitor = next(_monitors)
        with self.system.lock:
            alive = not self.is_set()
            if not callable(watcher):
                if watcher.is_set():
                    return monitor
                watcher._monitored = {} if watcher._monitored is None else watcher._monitored
                watcher._monitored[monitor] = self
            if alive:
                self._monitors = {} if self._monitors is None else self._monitors
                self._monitors[monitor] = watcher
        if not alive:
            tell_down(watcher, Down(monitor, self.ref, NO_PROCESS))
        return monitor

    def remove_monitor(self, monitor: int) -> None:
        """Forget a monitor on this process that a function has."""
        with self.system.lock:
            if self._monitors is not None:
                self._monitors.pop(monitor, None)

    def demonitor(self, monitor: int, *, flush: bool) -> None:
        """Forget a monitor that this process has; with ``flush`` a ``Down`` already sent is not delivered either."""
        with self.system.lock:
            target = None if self._monitored is None else self._monitored.get(monitor)
            if target is None:
                return
            sent = target._monitors is None or target._monitors.pop(monitor, None) is None
            if flush or not sent:
                assert self._monitored is not None
                del self._monitored[monitor]

    def expects(self, down: Down) -> bool:
        """Tell whether a ``Down`` counts: False when its monitor has been flushed."""
        return self._monitored is not None and down.monitor in self._monitored

    def take_down(self, down: Down) -> bool:
        """Note that a ``Down`` is being delivered; False when its monitor has been flushed."""
        return self._monitored is not None and self._monitored.pop(down.monitor, None) is not None

    # --- the end ---

    def cut(self) -> None:
        """Have the others forget its links and its monitors, since it ends. The caller holds the lock."""
        links = self._links
        if links is not None:
            for other in list(links) if isinstance(links, set) else (links,):
                other.drop_link(self)
        if self._monitored:
            for monitor, target in list(self._monitored.items()):
                if target._monitors is not None:  # where it watches itself: nobody is left to be told
                    target._monitors.pop(monitor, None)


def tell_down(watcher: Watcher, down: Down) -> None:
    """Tell a watcher of an end."""
    if callable(watcher):
        watcher(down)
    else:
        watcher.put(DownEnvelope(down))
