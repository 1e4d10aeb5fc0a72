"""What it takes to have Apple vouch for what a message holds, and to judge what it says; here: verifyReceipt."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, SecretStr

from receipt_actors.settings._server_api import ServerApiSettings
from receipt_actors.settings._signatures import SignatureSettings
from receipt_actors.settings._types import Expected, Url


# The fields of the last base come first, here and in help texts and the manual: those of _policy.
class AppStoreSettings(SignatureSettings, ServerApiSettings, frozen=True):
    """What it takes to have Apple vouch for what a message holds, and to judge what it says."""

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
    app_store_connect_timeout_seconds: float = Field(
        default=3, gt=0, description="Time to connect to Apple, by either way."
    )
    app_store_read_timeout_seconds: float = Field(
        default=10, gt=0, description="Time to wait for Apple's answer, by either way."
    )
