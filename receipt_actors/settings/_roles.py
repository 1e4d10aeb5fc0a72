"""How several nodes share the work: roles, by leases in a table."""

from __future__ import annotations

import re
import socket
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, ValidationInfo, field_validator

from receipt_actors.domain.roles import LONGEST_LEASE_SECONDS, RENEWALS_PER_LEASE
from receipt_actors.settings._backend import LedgerSettings, QueueSettings
from receipt_actors.settings_model.fields import Expected, TableName

_NAME = re.compile(r"[A-Za-z0-9_.:-]{1,128}")
_EXPECTED = "1 to 128 letters, digits, _, ., : and -"


def _name(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise ValueError(f"expected {_EXPECTED}")
    return name


OptionalName = Annotated[Annotated[str, AfterValidator(_name)] | None, Expected(_EXPECTED)]


class RoleSettings(LedgerSettings, QueueSettings, frozen=True):
    """How several nodes share the work."""

    role: Literal["alone", "active-standby", "load-balanced"] = Field(
        default="alone",
        description="How this command shares the work with those on other machines. alone: it knows of none. "
        "active-standby: one works, the others wait to take over. load-balanced: all work, and share the limits that "
        "are said to be of all processes.",
    )
    role_group: OptionalName = Field(
        default=None,
        description="Nodes of the same name here share the work, and the limits. Left out: the name of source_queue.",
    )
    role_table: TableName = Field(
        default="RoleTable", description="DynamoDB table by which nodes agree on their roles; unused where alone."
    )
    node_name: OptionalName = Field(
        default=None,
        description="What this node is called in logs and pages; more is added, so that it is never mistaken for "
        "another. Left out: the name of the machine.",
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

    @property
    def effective_role_group(self) -> str:
        """Whom the work is shared with."""
        return self.role_group or self.source_queue

    @property
    def effective_node_name(self) -> str:
        """What people call this node."""
        return self.node_name or socket.gethostname()[:100] or "node"
