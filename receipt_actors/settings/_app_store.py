"""What it takes to have Apple asked about a receipt, and to judge the answer."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, SecretStr

from receipt_actors.domain.ports import Environment
from receipt_actors.settings._base import SomeSettings
from receipt_actors.settings._types import ANY, Environments, Expected, Ids, Url


class AppStoreSettings(SomeSettings, frozen=True):
    """What it takes to have Apple asked about a receipt, and to judge the answer."""

    bundle_ids: Annotated[Ids, Expected("your app's bundle ids, comma separated, or * to accept any")] = Field(
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
    app_store_production_url: Url = Field(
        default="https://buy.itunes.apple.com/verifyReceipt", description="Apple's verifyReceipt, asked first."
    )
    app_store_sandbox_url: Url = Field(
        default="https://sandbox.itunes.apple.com/verifyReceipt",
        description="Apple's verifyReceipt for sandbox receipts.",
    )
    shared_secret: Annotated[SecretStr | None, Expected("the app's shared secret")] = Field(
        default=None,
        min_length=1,
        description="The app's shared secret, needed for subscriptions. Prefer the variable: other users of a machine "
        "can see its flags.",
    )
    app_store_connect_timeout_seconds: float = Field(default=3, gt=0, description="Time to connect to Apple.")
    app_store_read_timeout_seconds: float = Field(default=10, gt=0, description="Time to wait for Apple's answer.")
