"""``ParentQueues``: the queues of the parent, which sends alerts, and looks how many messages wait while it stands by.

They are opened when there is a use for them, which costs the import of the clients: a parent that knows of no other
nodes, and whose workers live, never pays for it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from receipt_actors.domain.ports import Queues
from receipt_actors.settings import Settings


class ParentQueues:
    """See the module. Any thread may open them; what ``open`` raises is what ``open_queues`` raises."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._opening = threading.Lock()
        self._opened: tuple[Queues, Callable[[], None]] | None = None

    def open(self) -> Queues:
        """Open them, unless they are open."""
        from receipt_actors.backends import open_queues
        from receipt_actors.sources import MAX_LOOKS

        with self._opening:
            if self._opened is None:
                queues = open_queues(self._settings, max_connections=MAX_LOOKS)
                self._opened = queues, queues.close
            return self._opened[0]

    def close(self) -> None:
        """Close them, where they have been opened. Closing twice is fine."""
        with self._opening:
            opened, self._opened = self._opened, None
        if opened is not None:
            opened[1]()
