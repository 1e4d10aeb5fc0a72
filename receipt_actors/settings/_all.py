"""All settings together."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from pydantic import Field, ValidationInfo, field_validator

from receipt_actors.settings._backend import LedgerSettings, QueueSettings
from receipt_actors.settings._operations import OperationsSettings
from receipt_actors.settings._roles import RoleSettings
from receipt_actors.settings._work import WorkSettings
from receipt_actors.settings_model.fields import Setting, TableName, settings_of
from receipt_actors.stores.apple.settings import AppStoreSettings, PolicySettings, SignatureSettings


class NotificationSettings(SignatureSettings, PolicySettings, LedgerSettings, QueueSettings, frozen=True):
    """What it takes to deal with Apple's server notifications: most of it is what receipts take, too."""

    notifications_table: TableName = Field(
        default="NotificationIdTable",
        description="DynamoDB table of the notifications of Apple's that were dealt with.",
    )

    @field_validator("notifications_table")
    @classmethod
    def _claims_have_a_table_of_their_own(cls, name: str, info: ValidationInfo) -> str:
        if name == info.data.get("ledger_table"):
            raise ValueError("expected a table other than ledger_table: it has another key, and its items expire")
        return name


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
