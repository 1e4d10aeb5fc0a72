"""Which purchases count here, and for whom."""

from __future__ import annotations

from typing import Annotated, Literal
from uuid import UUID

from pydantic import Field, ValidationInfo, field_validator

from receipt_actors.domain.ports import Environment
from receipt_actors.settings._sources import SourceSettings
from receipt_actors.settings._types import ANY, BundleIds, Environments, Expected, Ids, ProductTypes


class PolicySettings(SourceSettings, frozen=True):
    """Which purchases count here, and for whom."""

    bundle_ids: Annotated[BundleIds, Expected("your app's bundle ids, comma separated, or * to accept any")] = Field(
        description="Apps whose purchases count."
    )
    product_ids: Annotated[Ids, Expected("product ids, comma separated, or * to accept any")] = Field(
        default=(ANY,), description="Products whose purchases count."
    )
    environments: Environments = Field(
        default=(Environment.PRODUCTION,),
        description="Apple's environments whose purchases count. App Review and TestFlight buy in the Sandbox.",
    )
    unidentified: Literal["dead-letter", "reply"] = Field(
        default="dead-letter",
        description="What becomes of a receipt that Apple refuses for good without a transaction id: it is moved to "
        "the dead-letter queue, or answered INVALID with an empty transaction id.",
    )
    product_types: ProductTypes = Field(
        default=(ANY,),
        description="Kinds of products whose purchases count. verifyReceipt does not say of which kind a purchase is, "
        "and what it vouches for is not refused for that.",
    )
    family_sharing: Literal["accept", "refuse"] = Field(
        default="accept",
        description="Whether a purchase counts that somebody else of the family has made and shares.",
    )
    app_account_token: Literal["ignore", "match", "require"] = Field(
        default="ignore",
        description="Whether the appAccountToken that the app gave when it bought has to be the user's own: match "
        "refuses another user's, require also refuses a purchase without one.",
    )
    app_account_token_rule: Literal["uuid5", "integer"] = Field(
        default="uuid5",
        description="How a user's appAccountToken, a UUID, follows from the user_id: uuid5 is the name-based UUID of "
        "its decimal digits in app_account_token_namespace; integer is the UUID whose number it is (0 or more).",
    )
    app_account_token_namespace: Annotated[UUID | None, Expected("a UUID, such as `uuidgen` prints")] = Field(
        default=None, description="Namespace of the rule uuid5, which the app has to use as well."
    )

    @field_validator("app_account_token_namespace")
    @classmethod
    def _uuid5_has_a_namespace_and_a_use(cls, namespace: UUID | None, info: ValidationInfo) -> UUID | None:
        is_used = info.data.get("app_account_token") in ("match", "require")
        if namespace is not None and info.data.get("app_account_token") == "ignore":
            raise ValueError("expected app_account_token match or require beside it: as it is, no purchase is bound")
        if namespace is None and is_used and info.data.get("app_account_token_rule") == "uuid5":
            raise ValueError(
                "expected the UUID in which the app makes its tokens; give it, or choose app_account_token_rule integer"
            )
        return namespace
