"""All settings together."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from receipt_actors.settings._app_store import AppStoreSettings
from receipt_actors.settings._notifications import NotificationSettings
from receipt_actors.settings._operations import OperationsSettings
from receipt_actors.settings._roles import RoleSettings
from receipt_actors.settings._setting import Setting, settings_of
from receipt_actors.settings._work import WorkSettings


# The fields of the last base come first: in help texts, in the manual, and where a check looks at fields above its own.
class Settings(OperationsSettings, WorkSettings, RoleSettings, AppStoreSettings, NotificationSettings, frozen=True):
    """Values that passed every check. Raises ``ConfigurationError`` with all faults otherwise."""

    @property
    def all_consumers(self) -> int:
        """How many consumers a process has, of all sources together."""
        return self.consumers * len(self.every_source)

    @property
    def batchers(self) -> int:
        """How many queues a process sends to, deletes from or changes visibility timeouts of at once."""
        return len(self.all_post_queues) + 3 * len(self.every_source)  # dead letters, deletes, visibility of each


SETTINGS: Mapping[str, Setting] = MappingProxyType(settings_of(Settings))
