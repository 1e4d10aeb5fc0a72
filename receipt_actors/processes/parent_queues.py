"""``ParentQueues``: the queues of the parent, which has no other use for them than to send alerts.

They are opened when there is an alert to send, which costs the import of the clients; a parent whose workers live never
pays for it.
"""

from __future__ import annotations

from collections.abc import Callable

from receipt_actors.domain.ports import Queues
from receipt_actors.settings import Settings


class ParentQueues:
    """See the module. ``open`` is called by one thread at a time; what it raises is what ``open_queues`` raises."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._close: Callable[[], None] | None = None

    def open(self) -> Queues:
        """Open them."""
        from receipt_actors.backends import open_queues

        queues = open_queues(self._settings)
        self._close = queues.close
        return queues

    def close(self) -> None:
        """Close them, where they have been opened. Closing twice is fine."""
        close, self._close = self._close, None
        if close is not None:
            close()
