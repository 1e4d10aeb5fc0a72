"""What it takes to deal with Apple's server notifications."""

from __future__ import annotations

from pydantic import Field, ValidationInfo, field_validator

from receipt_actors.settings._backend import LedgerSettings, QueueSettings
from receipt_actors.settings._policy import PolicySettings
from receipt_actors.settings._signatures import SignatureSettings
from receipt_actors.settings._types import TableName


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
