"""How Apple is asked about app receipts, and what it takes to ask the App Store Server API."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, SecretStr, ValidationInfo, field_validator

from receipt_actors.settings._policy import PolicySettings
from receipt_actors.settings._signatures import INSTALL_STOREKIT2, verifies_signatures
from receipt_actors.settings._types import ANY, Expected, FilePath, Url

SERVER_API = "server-api"
SERVER_API_RATE_PER_SECOND = 50.0  #: requests that Apple documents for "Get Transaction Info", of one app

_FROM_APP_STORE_CONNECT = (
    "which App Store Connect shows beside the key (Users and Access, Integrations, In-App Purchase)"
)


class ServerApiSettings(PolicySettings, frozen=True):
    """How Apple is asked about app receipts, and what it takes to ask the App Store Server API."""

    app_receipts: Literal["verify-receipt", "server-api"] = Field(
        default="verify-receipt",
        description="Who is asked about app receipts: verifyReceipt, or the App Store Server API, which looks up the "
        "transaction whose id is in the receipt (needs the extra storekit2 and a key). Signed transactions of "
        "StoreKit 2 are verified here in any case.",
    )
    server_api_key_file: Annotated[FilePath | None, Expected("a path")] = Field(
        default=None, description="File of the In-App Purchase key (.p8) of App Store Connect."
    )
    server_api_key: Annotated[SecretStr | None, Expected("the text of the .p8 file")] = Field(
        default=None,
        min_length=1,
        description="The key itself, where there is no file. Prefer the variable: other users of a machine can see "
        "its flags.",
    )
    server_api_key_id: Annotated[str | None, Expected("the id of the key")] = Field(
        default=None, min_length=1, description="Id of the In-App Purchase key."
    )
    server_api_issuer_id: Annotated[str | None, Expected("the issuer id of the key")] = Field(
        default=None, min_length=1, description="Issuer id of the In-App Purchase key."
    )
    server_api_production_url: Url = Field(
        default="https://api.storekit.apple.com", description="The App Store Server API."
    )
    server_api_sandbox_url: Url = Field(
        default="https://api.storekit-sandbox.apple.com",
        description="The App Store Server API of the Sandbox, asked for what production does not know.",
    )

    @property
    def uses_server_api(self) -> bool:
        """Whether app receipts are a matter of the App Store Server API, and not of verifyReceipt."""
        return self.app_receipts == SERVER_API

    @field_validator("app_receipts")
    @classmethod
    def _the_server_api_can_be_asked(cls, who: str, info: ValidationInfo) -> str:
        if who != SERVER_API:
            return who
        if not verifies_signatures():
            raise ValueError(f"expected the extra storekit2 to be installed; {INSTALL_STOREKIT2}")
        bundle_ids = info.data.get("bundle_ids", ("one",))  # a fault of theirs is told already
        if len(bundle_ids) != 1 or ANY in bundle_ids:
            raise ValueError("expected bundle_ids to name one app, for which the App Store Server API is asked")
        return who

    @field_validator("server_api_key_file")
    @classmethod
    def _the_file_is_there(cls, file: Path | None) -> Path | None:
        if file is not None and not os.access(file, os.R_OK):
            raise ValueError("expected a file that can be read: the .p8 of App Store Connect")
        return file

    @field_validator("server_api_key")
    @classmethod
    def _there_is_one_key(cls, key: SecretStr | None, info: ValidationInfo) -> SecretStr | None:
        has_file = info.data.get("server_api_key_file") is not None
        if key is not None and has_file:
            raise ValueError("expected either server_api_key or server_api_key_file, not both")
        if key is None and not has_file and "server_api_key_file" in info.data and _is_asked(info):
            raise ValueError("expected the In-App Purchase key of App Store Connect; give it, or server_api_key_file")
        return key

    @field_validator("server_api_key_id", "server_api_issuer_id")
    @classmethod
    def _the_key_has_a_name(cls, name: str | None, info: ValidationInfo) -> str | None:
        if name is None and _is_asked(info):
            raise ValueError(f"expected what names the key, {_FROM_APP_STORE_CONNECT}")
        return name


def _is_asked(info: ValidationInfo) -> bool:
    return info.data.get("app_receipts") == SERVER_API
