"""All settings together, and those that most of the rest come before: of notifications, and of roles."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal

from pydantic import Field, ValidationInfo, field_validator

from receipt_actors.domain.roles import LONGEST_LEASE_SECONDS, RENEWALS_PER_LEASE
from receipt_actors.settings._backend import LedgerSettings, QueueSettings
from receipt_actors.settings._operations import OperationsSettings
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


class RoleSettings(LedgerSettings, QueueSettings, frozen=True):
    """How several nodes share the work."""

    role: Literal["alone", "active-standby", "load-balanced"] = Field(
        default="alone",
        description="How this command shares the work with those on other machines that take receipts from the same "
        "source_queue. alone: it knows of none. active-standby: one works, the others wait to take over. "
        "load-balanced: all work, and share the limits that are said to be of all processes.",
    )
    role_table: TableName = Field(
        default="RoleTable", description="DynamoDB table by which nodes agree on their roles; unused where alone."
    )
    lease_seconds: float = Field(
        default=10,
        ge=1,
        le=LONGEST_LEASE_SECONDS,
        description="Time for which a role is lent to a node that is not heard of; renewed "
        f"{RENEWALS_PER_LEASE} times meanwhile. Another one takes over within half as much again. It may be changed "
        "node by node.",
    )

    @field_validator("role_table")
    @classmethod
    def _roles_have_a_table_of_their_own(cls, name: str, info: ValidationInfo) -> str:
        if name in (info.data.get("ledger_table"), info.data.get("notifications_table")):
            raise ValueError("expected a table of its own, neither ledger_table nor notifications_table")
        return name

    @property
    def is_alone(self) -> bool:
        """Whether no other node shares the work."""
        return self.role == "alone"


def node_name() -> str:
    """What people call this node: the variable HOSTNAME, which containers have, else the name of the machine."""
    name = os.environ.get("HOSTNAME") or socket.gethostname()
    return re.sub(r"[^A-Za-z0-9_.:-]", "-", name)[:100] or "node"


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
