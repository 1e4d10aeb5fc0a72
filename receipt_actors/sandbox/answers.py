"""How Apple words what it knows: verifyReceipt's answers, signed transactions, the Server API's errors. Pure.

As in Apple's answers, ids, quantities and dates of verifyReceipt are strings. The third form of each date (``*_pst``)
is left out: no program should read it.
"""

from __future__ import annotations

import http.client
import json
from collections.abc import Mapping
from datetime import UTC, datetime

from receipt_actors.domain.ports import Environment
from receipt_actors.domain.receipts import ProductType
from receipt_actors.sandbox.receipts import Purchase, SampleReceipt, Shape

VALID = 0
NOT_A_POST = 21000
MALFORMED = 21002
NOT_AUTHENTIC = 21003
WRONG_SHARED_SECRET = 21004
EXPIRED = 21006
SANDBOX_RECEIPT_AT_PRODUCTION = 21007
PRODUCTION_RECEIPT_AT_SANDBOX = 21008
ACCOUNT_NOT_FOUND = 21010

# Error codes of the Server API; their first three digits are the HTTP status.
API_INVALID_TRANSACTION_ID = 4000006
API_ACCOUNT_NOT_FOUND = 4040001
API_TRANSACTION_ID_NOT_FOUND = 4040010
API_RATE_LIMIT_EXCEEDED = 4290000
API_INTERNAL = 5000000
API_INTERNAL_RETRYABLE = 5000001
_MESSAGES: Mapping[int, str] = {
    API_INVALID_TRANSACTION_ID: "Invalid transaction id.",
    API_ACCOUNT_NOT_FOUND: "Account not found.",
    API_TRANSACTION_ID_NOT_FOUND: "Transaction id not found.",
    API_RATE_LIMIT_EXCEEDED: "Rate limit exceeded.",
    API_INTERNAL: "An unknown error occurred.",
    API_INTERNAL_RETRYABLE: "An unknown error occurred. Please try again.",
}

_EARLIEST_SIGNED_MS = 1_577_836_800_000  # 2020; StoreKit 2 is of 2021, and the expired leaf of ``apple_ca`` of 2016

Answer = dict[str, object]


def api_error(code: int) -> Answer:
    return {"errorCode": code, "errorMessage": _MESSAGES.get(code, "An error occurred.")}


def read_question(body: bytes) -> tuple[str | None, object]:
    """Return receipt data and password of a request to verifyReceipt; no receipt data where it is none."""
    try:
        question = json.loads(body)
    except (ValueError, RecursionError):
        question = None
    if not isinstance(question, dict) or not isinstance(question.get("receipt-data"), str):
        return None, None
    return question["receipt-data"], question.get("password")


def http_status(answer: Answer) -> int:
    """Return the HTTP status of an answer: an error of the Server API has it in its code."""
    code = answer.get("errorCode")
    return code // 10_000 if isinstance(code, int) else http.client.OK


def receipt_answer(receipt: SampleReceipt, receipt_data: str, environment: Environment, now_ms: int) -> Answer:
    """Answer for a receipt at the verifyReceipt endpoint of ``environment``."""
    if receipt.environment is not environment:
        at_production = environment is Environment.PRODUCTION
        return {"status": SANDBOX_RECEIPT_AT_PRODUCTION if at_production else PRODUCTION_RECEIPT_AT_SANDBOX}
    if receipt.status is not None:
        return {"status": receipt.status}
    if receipt.shape is Shape.TRANSACTION:
        return _transaction_answer(receipt, receipt_data, now_ms)
    return _unified_answer(receipt, receipt_data, now_ms)


def _transaction_answer(receipt: SampleReceipt, receipt_data: str, now_ms: int) -> Answer:
    (purchase,) = receipt.purchases
    fields: Answer = {"bid": receipt.bundle_id, "bvrs": "1.0", "item_id": "1000001", **_purchase(purchase)}
    if purchase.expires_at_ms is None:
        return {"status": VALID, "receipt": fields}
    fields["expires_date"] = str(purchase.expires_at_ms)  # milliseconds under this name, in this shape only
    fields["expires_date_formatted"] = _readable(purchase.expires_at_ms)
    if purchase.expires_at_ms <= now_ms:
        return {"status": EXPIRED, "receipt": fields, "latest_expired_receipt_info": fields, "auto_renew_status": 0}
    return {
        "status": VALID,
        "receipt": fields,
        "latest_receipt": receipt_data,
        "latest_receipt_info": fields,
        "auto_renew_status": 1,
    }


def _unified_answer(receipt: SampleReceipt, receipt_data: str, now_ms: int) -> Answer:
    in_app = [_purchase(purchase) | _subscription(purchase) for purchase in receipt.purchases]
    answer: Answer = {
        "status": VALID,
        "environment": str(receipt.environment),
        "receipt": {
            "receipt_type": "Production" if receipt.environment is Environment.PRODUCTION else "ProductionSandbox",
            "adam_id": 1000001,
            "app_item_id": 1000001,
            "bundle_id": receipt.bundle_id,
            "application_version": "1",
            "download_id": 1000002,
            "version_external_identifier": 1000003,
            "original_application_version": "1.0",
            **_date("request_date", now_ms),
            "in_app": in_app,
        },
    }
    subscriptions = [purchase for purchase in receipt.purchases if purchase.expires_at_ms is not None]
    if subscriptions:
        answer["latest_receipt"] = receipt_data
        answer["latest_receipt_info"] = [_purchase(purchase) | _subscription(purchase) for purchase in subscriptions]
        answer["pending_renewal_info"] = [
            {
                "product_id": purchase.product_id,
                "auto_renew_product_id": purchase.product_id,
                "original_transaction_id": purchase.original_id,
                "auto_renew_status": "1",
            }
            for purchase in subscriptions
        ]
    return answer


def _purchase(purchase: Purchase) -> Answer:
    fields: Answer = {
        "quantity": str(purchase.quantity),
        "product_id": purchase.product_id,
        "transaction_id": purchase.transaction_id,
        "original_transaction_id": purchase.original_id,
        **_date("purchase_date", purchase.purchased_at_ms),
        **_date("original_purchase_date", purchase.purchased_at_ms),
    }
    if purchase.cancelled_at_ms is not None:
        fields |= _date("cancellation_date", purchase.cancelled_at_ms)
        fields["cancellation_reason"] = "0"
    if purchase.is_family_shared:
        fields["in_app_ownership_type"] = "FAMILY_SHARED"
    if purchase.app_account_token is not None:
        fields["app_account_token"] = purchase.app_account_token
    return fields


def _subscription(purchase: Purchase) -> Answer:
    fields: Answer = {"is_trial_period": "false"}
    if purchase.expires_at_ms is not None:
        fields |= _date("expires_date", purchase.expires_at_ms)
        fields["web_order_line_item_id"] = f"9{purchase.transaction_id}"
    if purchase.is_upgraded:
        fields["is_upgraded"] = "true"
    return fields


def _date(name: str, moment_ms: int) -> Answer:
    return {name: _readable(moment_ms), f"{name}_ms": str(moment_ms)}


def _readable(moment_ms: int) -> str:
    try:
        return f"{datetime.fromtimestamp(moment_ms / 1000, UTC):%Y-%m-%d %H:%M:%S} Etc/GMT"
    except (ValueError, OverflowError):  # beyond the year 9999, which a test may well try
        return "9999-12-31 23:59:59 Etc/GMT"


def transaction_payload(
    purchase: Purchase, bundle_id: str, environment: Environment, signed_at_ms: int | None = None
) -> Answer:
    """Say of a purchase what Apple says in a signed transaction (``JWSTransactionDecodedPayload``)."""
    if signed_at_ms is None:
        signed_at_ms = max(_EARLIEST_SIGNED_MS, purchase.purchased_at_ms, purchase.cancelled_at_ms or 0)
    payload: Answer = {
        "transactionId": purchase.transaction_id,
        "originalTransactionId": purchase.original_id,
        "bundleId": bundle_id,
        "productId": purchase.product_id,
        "purchaseDate": purchase.purchased_at_ms,
        "originalPurchaseDate": purchase.purchased_at_ms,
        "quantity": purchase.quantity,
        "type": str(purchase.type),
        "inAppOwnershipType": "FAMILY_SHARED" if purchase.is_family_shared else "PURCHASED",
        "signedDate": signed_at_ms,
        "environment": str(environment),
        "transactionReason": "PURCHASE" if purchase.original_id == purchase.transaction_id else "RENEWAL",
        "storefront": "USA",
        "storefrontId": "143441",
        "price": 990,  # in thousandths of the currency
        "currency": "USD",
        "appTransactionId": f"7{purchase.transaction_id}",
    }
    if purchase.type is ProductType.AUTO_RENEWABLE_SUBSCRIPTION:
        payload["webOrderLineItemId"] = f"9{purchase.transaction_id}"
        payload["subscriptionGroupIdentifier"] = "21000001"
        payload["isUpgraded"] = purchase.is_upgraded
    if purchase.expires_at_ms is not None:
        payload["expiresDate"] = purchase.expires_at_ms
    if purchase.app_account_token is not None:
        payload["appAccountToken"] = purchase.app_account_token
    if purchase.cancelled_at_ms is not None:
        payload["revocationDate"] = purchase.cancelled_at_ms
        payload["revocationReason"] = 0  # for another reason than that something was wrong with the app
        if purchase.revocation_type is not None:
            payload["revocationType"] = purchase.revocation_type
        if purchase.revocation_percentage is not None:
            payload["revocationPercentage"] = purchase.revocation_percentage
    return payload
