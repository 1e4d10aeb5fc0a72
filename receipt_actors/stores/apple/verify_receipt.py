"""What an answer of Apple's verifyReceipt means: one table of statuses, and the two shapes of a receipt.

What Apple has not documented means ``TryAgain(UNKNOWN_STATUS)``. An entry that cannot be read makes the whole answer
unreadable: if it were left out, a purchase that we overlooked would never be answered.

A refusal says something about the receipt only if Apple works, which ``stores.apple.referee`` finds out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime
from functools import partial
from types import MappingProxyType
from typing import Any, Final

from receipt_actors.domain.policy import Policy
from receipt_actors.domain.ports import Environment
from receipt_actors.domain.reasons import Reason
from receipt_actors.domain.receipts import (
    Genuine,
    Interpretation,
    Misconfigured,
    Transaction,
    TryAgain,
    Unidentified,
    WrongEnvironment,
)
from receipt_actors.domain.values import is_name, json_type
from receipt_actors.stores.apple.fields import (
    Fields,
    Unreadable,
    is_integer,
    read_app_id,
    read_flag,
    read_id,
    read_is_family_shared,
    read_quantity,
    read_seconds,
    read_token,
)
from receipt_actors.stores.apple.ports import AppStore, ReceiptApi, begin_of

_MAX_SHOWN = 10**9
_DATE_IN_WORDS = "%Y-%m-%d %H:%M:%S Etc/GMT"


def interpret(answer: Mapping[str, object], asked: Environment) -> Interpretation:
    """Say what the answer of the endpoint of ``asked`` means. Total: never raises for anything that JSON can hold."""
    status = answer.get("status")
    if not is_integer(status):
        return unknown(f"status: expected an integer, found {json_type(status)}")
    row = status_row(status)
    if row is None:
        return unknown(f"status {shown(status)} is not documented")
    if isinstance(row.calls_for, WrongEnvironment) and row.calls_for.right is asked:
        return unknown(f"status {status} ({row.meaning}) from the {asked} endpoint itself")
    if not callable(row.calls_for):
        return row.calls_for
    try:
        return row.calls_for(answer, asked)
    except Unreadable as unreadable:
        return unknown(f"status {status}, {unreadable}")


def receipt_api(
    app_store: AppStore, policy: Policy, *, shared_secret: str | None = None, of_source: str = ""
) -> ReceiptApi:
    """Have verifyReceipt called: production first, always, says Apple.

    ``shared_secret`` is the one of this source's app, if that is not the client's; ``of_source`` is where it stands.
    """
    own: dict[str, Any] = {} if shared_secret is None else {"shared_secret": shared_secret}
    begin = begin_of(app_store)
    return ReceiptApi(
        call=partial(app_store.verify_receipt, **own),
        interpret=interpret,
        first=Environment.PRODUCTION,
        what_to_check=f"{of_source}shared_secret and the URLs",
        environments=policy.environments,
        begin=begin and partial(begin, **own),
    )


def shown(number: int) -> str:
    return str(number) if abs(number) < _MAX_SHOWN else "beyond 10^9"


def unknown(detail: str) -> TryAgain:
    return TryAgain(Reason.UNKNOWN_STATUS, detail, then_unanswerable=True)


def later(detail: str) -> TryAgain:
    return TryAgain(Reason.GAVE_UP_FOR_NOW, detail, then_unanswerable=False)


def _read_receipt(answer: Fields, asked: Environment) -> Genuine:
    receipt = answer.get("receipt")
    if not isinstance(receipt, Mapping):
        raise Unreadable(f"receipt: expected an object, found {json_type(receipt)}")
    return Genuine(_environment(answer, receipt, asked), _bundle_id(receipt), _transactions(answer, receipt))


def _read_expired_receipt(answer: Fields, asked: Environment) -> Genuine:
    genuine = _read_receipt(answer, asked)
    if len(genuine.transactions) > 1 and _is_unified(answer["receipt"]):
        # Apple sends 21006 for single subscriptions only; to mark a whole app receipt would refuse its coins as well.
        raise Unreadable("an iOS 6 style status for a unified receipt of many transactions")
    return replace(genuine, transactions=tuple(replace(each, expired=True) for each in genuine.transactions))


def _read_internal_error(answer: Fields, asked: Environment) -> Interpretation:
    for key in ("is-retryable", "is_retryable"):
        value = answer.get(key)
        if value in (True, "1", "true"):  # 1 == True
            return later("an internal data access error that Apple calls retryable")
        if value not in (None, False, "0", "false"):
            raise Unreadable(f"{key}: expected a boolean, found {json_type(value)}")
    return Unidentified(Reason.INTERNAL_DATA_ERROR)


@dataclass(frozen=True, slots=True)
class StatusRow:
    """One row of the table: a status in Apple's words, and what it calls for (made from the answer, where callable)."""

    meaning: str
    calls_for: Interpretation | Callable[[Fields, Environment], Interpretation]


STATUS_TABLE: Final[Mapping[int, StatusRow]] = MappingProxyType(
    {
        0: StatusRow("valid", _read_receipt),
        21000: StatusRow("not a POST", Misconfigured("status 21000: Apple says that our request is not a POST")),
        21001: StatusRow("no longer sent", later("status 21001")),
        21002: StatusRow(
            "malformed, or a temporary problem of the service",
            TryAgain(Reason.RECEIPT_MALFORMED, "status 21002: malformed, says Apple", then_unanswerable=True),
        ),
        21003: StatusRow("could not be authenticated", Unidentified(Reason.NOT_AUTHENTIC)),
        21004: StatusRow("wrong shared secret", Misconfigured("status 21004: the shared secret is not this app's")),
        21005: StatusRow("temporarily unavailable", later("status 21005")),
        21006: StatusRow("valid, but the subscription has expired (iOS 6 style only)", _read_expired_receipt),
        21007: StatusRow("a sandbox receipt, sent to production", WrongEnvironment(Environment.SANDBOX)),
        21008: StatusRow("a production receipt, sent to the sandbox", WrongEnvironment(Environment.PRODUCTION)),
        21009: StatusRow("internal error", later("status 21009")),
        21010: StatusRow("account not found or deleted", Unidentified(Reason.ACCOUNT_NOT_FOUND)),
    }
)
INTERNAL_DATA_ERRORS: Final = range(21100, 21200)
INTERNAL_DATA_ERROR_ROW: Final = StatusRow("internal data access error", _read_internal_error)


def status_row(status: int) -> StatusRow | None:
    return INTERNAL_DATA_ERROR_ROW if status in INTERNAL_DATA_ERRORS else STATUS_TABLE.get(status)


def _environment(answer: Fields, receipt: Fields, asked: Environment) -> Environment:
    named = answer.get("environment")
    if named is None:
        named = receipt.get("receipt_type")
    match named:
        case None:
            return asked
        case "Production" | "ProductionVPP":
            return Environment.PRODUCTION
        case "Sandbox" | "ProductionSandbox" | "ProductionVPPSandbox":
            return Environment.SANDBOX
    raise Unreadable("environment: neither Production nor Sandbox")  # "Xcode", say, must not pass for production


def _bundle_id(receipt: Fields) -> str | None:
    """Read ``bundle_id`` (unified) or ``bid`` (iOS 6 style)."""
    bundle_ids = {read_app_id(receipt, key) for key in ("bundle_id", "bid")} - {None}
    if len(bundle_ids) > 1:
        raise Unreadable("bundle_id and bid contradict one another")
    return bundle_ids.pop() if bundle_ids else None


def _is_unified(receipt: object) -> bool:
    return isinstance(receipt, Mapping) and "in_app" in receipt


def _transactions(answer: Fields, receipt: Fields) -> tuple[Transaction, ...]:
    """Unite what the receipt holds with what Apple says of its subscriptions since then, each transaction once."""
    transactions: dict[str, Transaction] = {}
    for entry in _entries(answer, receipt):
        transaction = _transaction(entry)
        earlier = transactions.get(transaction.transaction_id)
        transactions[transaction.transaction_id] = _united(earlier, transaction) if earlier else transaction
    return tuple(transactions.values())


def _entries(answer: Fields, receipt: Fields) -> Iterator[object]:
    if not _is_unified(receipt):
        yield receipt
    elif isinstance(in_app := receipt["in_app"], list):
        yield from in_app
    else:
        raise Unreadable(f"in_app: expected an array, found {json_type(in_app)}")
    match answer.get("latest_receipt_info"):
        case None:
            pass
        case list() as renewals:
            yield from renewals
        case renewal:  # iOS 6 style: one object
            yield renewal


def _united(earlier: Transaction, later: Transaction) -> Transaction:
    """``latest_receipt_info`` is newer; but a refund is never taken back, and an omission says nothing."""
    names = [each.name for each in fields(Transaction)]
    omitted = [name for name in names if any(getattr(later, name) is nothing for nothing in (None, False))]
    kept = {name: getattr(earlier, name) for name in omitted}
    return replace(later, **{**kept, "quantity": max(later.quantity, earlier.quantity)})  # an omission reads as one


def _transaction(entry: object) -> Transaction:
    if not isinstance(entry, Mapping):
        raise Unreadable(f"transaction: expected an object, found {json_type(entry)}")
    transaction_id = read_id(entry, "transaction_id")
    if transaction_id is None:
        raise Unreadable("transaction_id: missing")
    return Transaction(
        transaction_id=transaction_id,
        original_transaction_id=read_id(entry, "original_transaction_id"),
        product_id=read_id(entry, "product_id"),
        quantity=read_quantity(entry),
        purchased_at_seconds=read_seconds(entry, "purchase_date_ms"),
        expires_at_seconds=_expires_at_seconds(entry),
        cancelled=any(_is_given(entry, key) for key in ("cancellation_date", "cancellation_date_ms")),
        is_upgraded=read_flag(entry, "is_upgraded"),
        is_family_shared=read_is_family_shared(entry, "in_app_ownership_type"),
        app_account_token=read_token(entry, "app_account_token"),
    )


def _expires_at_seconds(entry: Fields) -> float | None:
    # iOS 6 style counts milliseconds in expires_date; unified receipts have a date in words there, and expires_date_ms.
    if entry.get("expires_date_ms") is not None:
        return read_seconds(entry, "expires_date_ms")
    in_words = entry.get("expires_date")
    if isinstance(in_words, str) and not in_words.isdigit():
        try:
            return datetime.strptime(in_words, _DATE_IN_WORDS).replace(tzinfo=UTC).timestamp()
        except ValueError:
            raise Unreadable("expires_date: neither milliseconds nor a date that ends in Etc/GMT") from None
    return read_seconds(entry, "expires_date")


def _is_given(entry: Fields, key: str) -> bool:
    value = entry.get(key)
    if value is None or is_name(value) or is_integer(value):
        return value is not None
    raise Unreadable(f"{key}: expected a date, found {json_type(value)}")
