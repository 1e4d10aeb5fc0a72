"""All settings together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType

from receipt_actors.settings._app_store import AppStoreSettings
from receipt_actors.settings._notifications import NotificationSettings
from receipt_actors.settings._operations import OperationsSettings
from receipt_actors.settings._setting import Setting, settings_of
from receipt_actors.settings._work import WorkSettings


# The fields of the last base come first: in help texts, in the manual, and where a check looks at fields above its own.
class Settings(OperationsSettings, WorkSettings, AppStoreSettings, NotificationSettings, frozen=True):
    """Values that passed every check. Raises ``ConfigurationError`` with all faults otherwise."""

    @property
    def batchers(self) -> int:
        """How many queues a process sends to, deletes from or changes visibility timeouts of at once."""
        return len(self.all_post_queues) + 3 * len(self.every_source)  # dead letters, deletes, visibility of each

    def faults_together(self) -> Iterator[tuple[str, str]]:
        """See ``SourceSettings``."""
        yield from super().faults_together()
        for source in self.every_source[1:] if self.alerts_queue is not None else ():
            if self.alerts_queue in (source.source_queue, *source.post_queues, source.known_dead_letter_queue):
                place, found = self.origins.get("alerts_queue", "alerts_queue"), repr(self.alerts_queue)
                wish = "expected a queue of its own, with no receipts, answers or dead letters on it"
                yield "alerts_queue", f"{place}: found {found}, {wish}"
                return


SETTINGS: Mapping[str, Setting] = MappingProxyType(settings_of(Settings))
