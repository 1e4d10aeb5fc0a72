"""The settings that are about Apple: which purchases count, and what it takes to have Apple vouch for them."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit
from uuid import UUID

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

from receipt_actors.domain.addresses import is_loopback
from receipt_actors.domain.ports import Environment
from receipt_actors.domain.receipts import ProductType
from receipt_actors.settings_model import (
    ANY,
    Expected,
    FilePath,
    SomeSettings,
    SourceSettings,
    some_and_unique,
    split_commas,
)

SERVER_API = "server-api"
SERVER_API_RATE_PER_SECOND = 50.0  #: requests that Apple documents for "Get Transaction Info", of one app

_FROM_APP_STORE_CONNECT = (
    "which App Store Connect shows beside the key (Users and Access, Integrations, In-App Purchase)"
)
_BUNDLE_ID = re.compile(r"[A-Za-z0-9.-]+")


def _any_or_ids(ids: tuple[str, ...]) -> tuple[str, ...]:
    if ANY in "".join(ids) and ids != (ANY,):
        raise ValueError(f"expected ids, or {ANY} alone to accept any; there are no other wildcards")
    return ids


def _bundle_ids(ids: tuple[str, ...]) -> tuple[str, ...]:
    """Refuse what no app can have: every receipt would be refused as another app's."""
    for bundle_id in ids:
        if bundle_id != ANY and not _BUNDLE_ID.fullmatch(bundle_id):
            raise ValueError(
                f"expected bundle ids of letters, digits, - and . only, as Apple has them; {bundle_id!r} is none"
            )
    return ids


def path_of(text: str) -> str:
    return os.path.expanduser(text)  # which leaves ~someone who has no home here as it is


def _plain_words(name: str) -> str:
    return re.sub("[ _-]+", "-", name).casefold()


_PRODUCT_TYPES = {_plain_words(each): str(each) for each in ProductType}


def _any_or_product_types(names: tuple[str, ...]) -> tuple[str, ...]:
    """Accept Apple's names, however they are written: ``Non-Consumable``, ``non consumable``."""
    if names == (ANY,):
        return names
    known = tuple(_PRODUCT_TYPES[_plain_words(name)] for name in names if _plain_words(name) in _PRODUCT_TYPES)
    if len(known) < len(names):
        raise PydanticCustomError("product_type", "no product type")
    return tuple(dict.fromkeys(known))


def _app_store_url(url: str) -> str:
    """Accept https, and http to this machine only: receipts and the shared secret must not travel in the clear."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port  # reading the port checks it
    except ValueError as error:
        raise ValueError(f"expected an https URL; {error}") from None
    if parts.scheme not in ("http", "https") or not host:
        raise ValueError("expected an https URL with a host, such as https://apple.example")
    if parts.username is not None:
        raise ValueError("expected a URL without a user name or password")
    if parts.scheme == "http" and not is_loopback(host):
        raise ValueError("expected https: plain http, which shows receipts to the network, is for 127.0.0.1 only")
    return url


Environments = Annotated[
    tuple[Environment, ...],
    BeforeValidator(split_commas),
    AfterValidator(some_and_unique),
    Expected("Production, Sandbox or both, comma separated"),
]
Ids = Annotated[
    tuple[Annotated[str, Field(min_length=1)], ...],
    BeforeValidator(split_commas),
    AfterValidator(some_and_unique),
    AfterValidator(_any_or_ids),
]
BundleIds = Annotated[Ids, AfterValidator(_bundle_ids)]
ProductTypes = Annotated[
    tuple[Annotated[str, Field(min_length=1)], ...],
    BeforeValidator(split_commas),
    AfterValidator(some_and_unique),
    AfterValidator(_any_or_product_types),
    Expected(f"{', '.join(ProductType)}, comma separated, or {ANY} to accept any"),
]
Url = Annotated[str, AfterValidator(_app_store_url), Expected("an https URL")]


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
        description="Apple's environments whose purchases count. App Review and TestFlight buy in the Sandbox, where "
        "nobody pays: with Production,Sandbox the game looks at the attribute environment of each answer.",
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
        default="accept", description="Whether a purchase counts that somebody else of the family has made and shares."
    )
    app_account_token: Literal["ignore", "match", "require"] = Field(
        default="ignore",
        description="Whether the appAccountToken that the app gave when it bought has to be the user's own: match "
        "refuses another user's, require also refuses a purchase without one.",
    )
    app_account_token_rule: Annotated[
        UUID | Literal["integer"] | None, Expected("a UUID, such as `uuidgen` prints, or integer")
    ] = Field(
        default=None,
        description="How a user's appAccountToken follows from the user_id. A UUID is the namespace, which the app has "
        "to use as well, of the name-based UUID (version 5) of its decimal digits; integer is the UUID whose number it "
        "is (0 or more).",
    )

    @field_validator("app_account_token_rule")
    @classmethod
    def _a_rule_has_a_use(cls, rule: UUID | str | None, info: ValidationInfo) -> UUID | str | None:
        use = info.data.get("app_account_token")
        if isinstance(rule, UUID) and use == "ignore":
            raise ValueError("expected app_account_token match or require beside it: as it is, no purchase is bound")
        if rule is None and use in ("match", "require"):
            raise ValueError("expected the UUID in which the app makes its tokens, or integer")
        return rule


class SignatureSettings(SomeSettings, frozen=True):
    """What it takes to verify what Apple signs."""

    apple_roots: Annotated[FilePath | None, Expected("a folder of certificates (.cer, .der, .pem)")] = Field(
        default=None,
        description="Folder of the root certificates that signed transactions and notifications have to lead to. Left "
        "out: Apple's own, which are built in.",
    )
    app_apple_id: Annotated[int | None, Expected("an integer, 1 or more")] = Field(
        default=None,
        ge=1,
        description="The app's Apple ID in App Store Connect; where it is given, a notification has to name it.",
    )

    @field_validator("apple_roots")
    @classmethod
    def _roots_are_there(cls, folder: Path | None) -> Path | None:
        if folder is not None and not folder.is_dir():
            raise ValueError("expected a folder that exists; leave it out for Apple's own certificates")
        return folder


def _is_asked(info: ValidationInfo) -> bool:
    return info.data.get("app_receipts") == SERVER_API


# The fields of the last base come first, here and in help texts and the manual: those of PolicySettings.
class AppStoreSettings(SignatureSettings, PolicySettings, frozen=True):
    """What it takes to have Apple vouch for what a message holds, and to judge what it says."""

    app_receipts: Literal["verify-receipt", "server-api"] = Field(
        default="verify-receipt",
        description="Who is asked about app receipts: verifyReceipt, or the App Store Server API, which looks up the "
        "transaction whose id is in the receipt (it needs a key). Signed transactions of "
        "StoreKit 2 are verified here in any case.",
    )
    server_api_key: Annotated[SecretStr | None, Expected("the path of a .p8 file, or its text")] = Field(
        default=None,
        min_length=1,
        description="The In-App Purchase key of App Store Connect: the path of its file (.p8), or the text of it. Give "
        "a text by the variable: other users of a machine can see its flags.",
    )
    server_api_key_id: Annotated[str | None, Expected("the id of the key")] = Field(
        default=None, min_length=1, description="Id of the In-App Purchase key."
    )
    server_api_issuer_id: Annotated[str | None, Expected("the issuer id of the key")] = Field(
        default=None, min_length=1, description="Issuer id of the In-App Purchase key."
    )
    app_store_url: Annotated[Url | None, Expected("an https URL")] = Field(
        default=None,
        description="Root of what is asked in Apple's place, such as a simulated App Store at http://127.0.0.1:8421: "
        "verifyReceipt and the Server API are below /production and /sandbox. Left out: Apple.",
    )
    shared_secret: Annotated[SecretStr | None, Expected("the app's shared secret")] = Field(
        default=None,
        min_length=1,
        description="The app's shared secret, needed for subscriptions. Prefer the variable: other users of a machine "
        "can see its flags.",
    )
    app_store_read_timeout_seconds: float = Field(
        default=10, gt=0, description="Time to wait for an answer of Apple's; to connect, 0.3 of it."
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
        bundle_ids = info.data.get("bundle_ids", ("one",))  # a fault of theirs is told already
        if len(bundle_ids) != 1 or ANY in bundle_ids:
            raise ValueError("expected bundle_ids to name one app, for which the App Store Server API is asked")
        return who

    @field_validator("server_api_key")
    @classmethod
    def _the_key_is_there(cls, key: SecretStr | None, info: ValidationInfo) -> SecretStr | None:
        if key is None and _is_asked(info):
            raise ValueError("expected the In-App Purchase key of App Store Connect; give the path of its .p8 file")
        text = "" if key is None else key.get_secret_value()
        if key is not None and "BEGIN" not in text and not os.access(path_of(text), os.R_OK):
            raise ValueError("expected a file that can be read, the .p8 of App Store Connect, or the text of one")
        return key

    @field_validator("server_api_key_id", "server_api_issuer_id")
    @classmethod
    def _the_key_has_a_name(cls, name: str | None, info: ValidationInfo) -> str | None:
        if name is None and _is_asked(info):
            raise ValueError(f"expected what names the key, {_FROM_APP_STORE_CONNECT}")
        return name

    @property
    def verify_receipt_urls(self) -> tuple[str, str]:
        """Apple's verifyReceipt, of production and of the sandbox."""
        if self.app_store_url is None:
            return "https://buy.itunes.apple.com/verifyReceipt", "https://sandbox.itunes.apple.com/verifyReceipt"
        root = self.app_store_url.rstrip("/")
        return f"{root}/production/verifyReceipt", f"{root}/sandbox/verifyReceipt"

    @property
    def server_api_urls(self) -> tuple[str, str]:
        """The App Store Server API, of production and of the sandbox."""
        if self.app_store_url is None:
            return "https://api.storekit.apple.com", "https://api.storekit-sandbox.apple.com"
        root = self.app_store_url.rstrip("/")
        return f"{root}/production", f"{root}/sandbox"
