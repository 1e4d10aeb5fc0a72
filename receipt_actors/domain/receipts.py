"""What Apple says of a receipt, whichever way it was asked: genuine, refused, or trouble."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from receipt_actors.domain.ports import Environment
from receipt_actors.domain.reasons import Reason


class ProductType(StrEnum):
    """Apple's kinds of products, spelled as in the ``type`` of a signed transaction."""

    CONSUMABLE = "Consumable"
    NON_CONSUMABLE = "Non-Consumable"
    AUTO_RENEWABLE_SUBSCRIPTION = "Auto-Renewable Subscription"
    NON_RENEWING_SUBSCRIPTION = "Non-Renewing Subscription"


@dataclass(frozen=True, slots=True)
class Transaction:
    """One purchase, or one period of a subscription."""

    transaction_id: str
    original_transaction_id: str | None
    product_id: str | None
    quantity: int  #: how many were bought at once, 1 or more
    purchased_at_seconds: float | None  #: UNIX time (``purchase_date_ms``)
    expires_at_seconds: float | None  #: UNIX time (``expires_date_ms``); None for what is no subscription
    cancelled: bool  #: refunded or revoked: Apple gave a cancellation or revocation date
    expired: bool = False  #: Apple said so, with status 21006
    product_type: ProductType | None = None  #: None where Apple did not say (verifyReceipt does not)
    is_upgraded: bool = False  #: the player has moved on to a better subscription, which has an id of its own
    is_family_shared: bool = False  #: bought by somebody else of the family (``inAppOwnershipType``)
    app_account_token: str | None = None  #: a UUID, lower case: whom the app said it bought this for
    revocation_type: str | None = None  #: how Apple took it back (``revocationType``); verifyReceipt does not say
    revocation_percentage: int | None = None  #: how much of it, in thousandths of a percent; likewise


@dataclass(frozen=True, slots=True)
class Genuine:
    """Apple vouches for the receipt. What it is worth is for ``policy`` and the ledger to say."""

    environment: Environment
    bundle_id: str | None
    transactions: tuple[Transaction, ...]  #: no id occurs twice; empty where nothing was bought


@dataclass(frozen=True, slots=True)
class Unidentified:
    """A final refusal, which names no transaction."""

    reason: Reason
    detail: str = "Apple refused the receipt; no transaction id is known"  #: for the operator, nothing of the receipt


#: What a receipt of the other environment comes to where policy does not allow that.
OTHER_ENVIRONMENT_REFUSED: Final = Unidentified(
    Reason.SANDBOX_REFUSED,
    "the setting environments does not have the receipt's environment (App Review and TestFlight buy in the Sandbox)",
)


@dataclass(frozen=True, slots=True)
class WrongEnvironment:
    """The receipt belongs to the other environment, or may: ask there, at most once, if policy allows it."""

    right: Environment
    otherwise: Unidentified = OTHER_ENVIRONMENT_REFUSED  #: what it comes to where policy does not


@dataclass(frozen=True, slots=True)
class TryAgain:
    """No verdict now. After the last try the message is unanswerable, or (``then_unanswerable`` False) handed back."""

    reason: Reason
    detail: str  #: one short line for the operator, nothing of the receipt
    then_unanswerable: bool


@dataclass(frozen=True, slots=True)
class Misconfigured:
    """Our own request, secret or key is wrong: alarm and stop asking; says nothing about the receipt."""

    detail: str


Interpretation = Genuine | Unidentified | WrongEnvironment | TryAgain | Misconfigured
