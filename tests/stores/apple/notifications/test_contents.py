"""What each of Apple's notifications calls for, and that nothing that JSON can hold is too much."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest
from appstoreserverlibrary.models.NotificationTypeV2 import NotificationTypeV2
from hypothesis import example, given
from hypothesis import strategies as st

from receipt_actors.domain.policy import Policy
from receipt_actors.domain.ports import REMEMBERED_SECONDS, Environment
from receipt_actors.stores.apple.notifications.contents import (
    MAX_BODY_BYTES,
    Done,
    Notification,
    Refund,
    RefundReversed,
    Settled,
    decide,
    read_body,
    read_notification,
)

POLICY = Policy(frozenset({"com.example.game"}))
ANY_APP = Policy(None, environments=frozenset(Environment))
TRANSACTION: dict[str, object] = {
    "transactionId": "1000",
    "bundleId": "com.example.game",
    "environment": "Production",
    "revocationDate": 1_700_000_000_500,
}
CHANGING = ["REFUND", "REVOKE", "REFUND_REVERSED"]


def payload(type_: object = "REFUND", **changes: object) -> dict[str, object]:
    data = {"bundleId": "com.example.game", "environment": "Production", "signedTransactionInfo": "a.b.c"}
    return {
        "notificationType": type_,
        "notificationUUID": "f14e2b1c",
        "signedDate": 1_800_000_000_250,
        "data": data,
        **changes,
    }


def read(type_: object = "REFUND", **changes: object) -> Notification:
    notification = read_notification(payload(type_, **changes))
    assert isinstance(notification, Notification)
    return notification


def done(notification: Notification, transaction: Mapping[str, object] | None, policy: Policy = POLICY) -> Done | None:
    """What becomes of it; None where the ledger is to be changed."""
    decision = decide(notification, transaction, policy)
    return decision.done if isinstance(decision, Settled) else None


def test_what_apples_history_has_is_remembered() -> None:
    """For 180 days somebody may post a refund from there whose reversal was carried out long ago."""
    assert REMEMBERED_SECONDS > 180 * 24 * 60 * 60


# --- the body ---


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"", "expected JSON"),
        (b"\xff\xfe\x00", "expected JSON"),
        (b"[" * 100_000, "expected JSON"),
        (b'{"signedPayload": ' + b"9" * 5000 + b"}", "expected JSON"),
        (b'["a.b.c"]', "found an array"),
        (b"{}", "found nothing"),
        (b'{"signedPayload": null}', "found nothing"),
        (b'{"signedPayload": 7}', "found a number"),
        (b'{"notification_type": "REFUND", "unified_receipt": {}}', "choose version 2"),
        (b'"' + b"x" * MAX_BODY_BYTES + b'"', f"at most {MAX_BODY_BYTES} bytes"),
    ],
)
def test_a_body_is_told_what_it_lacks(body: bytes, expected: str) -> None:
    assert read_body(b'{"signedPayload": "a.b.c", "more": [1]}') == "a.b.c"
    unreadable = read_body(body)
    assert isinstance(unreadable, Settled)
    assert expected in unreadable.detail


@given(st.binary(max_size=200))
def test_no_body_is_too_much(body: bytes) -> None:
    assert isinstance(read_body(body), str | Settled)


# --- the payload ---


@pytest.mark.parametrize(
    "changes",
    [
        {"notificationUUID": None},
        {"notificationUUID": "a\nb"},
        {"notificationUUID": 7},
        {"notificationType": None},
        {"notificationType": ["REFUND"]},
        {"signedDate": True},
        {"signedDate": "1800000000250"},
        {"signedDate": -1},
        {"signedDate": 1e300},
        {"signedDate": float("nan")},
        {"data": None},
        {"data": {"signedTransactionInfo": {"transactionId": "1000"}}},
    ],
)
def test_a_payload_that_lacks_something_is_unreadable(changes: dict[str, object]) -> None:
    unreadable = read_notification({**payload(), **changes})
    assert isinstance(unreadable, Settled)
    assert unreadable.done is Done.UNREADABLE


@pytest.mark.parametrize("part", ["data", "summary", "appData", "externalPurchaseToken"])
def test_it_is_said_in_one_of_four_places_whose_it_is(part: str) -> None:
    about = {"data": None, part: {"bundleId": "com.example.other", "environment": "Sandbox"}}
    notification = read("RENEWAL_EXTENSION", **about)
    assert (notification.bundle_id, notification.environment) == ("com.example.other", "Sandbox")
    assert done(notification, None) is Done.FOREIGN_APP


# --- what to do ---


@pytest.mark.parametrize("type_", ["REFUND", "REVOKE"])
def test_a_refund_takes_the_transaction_back(type_: str) -> None:
    assert decide(read(type_), TRANSACTION, POLICY) == Refund("1000", 1_700_000_000.5)
    assert decide(read(type_), {**TRANSACTION, "transactionId": 1000}, POLICY) == Refund("1000", 1_700_000_000.5)
    assert decide(read(type_), {**TRANSACTION, "revocationDate": None}, POLICY) == Refund("1000", 1_800_000_000.25)
    assert done(read(type_), {**TRANSACTION, "bundleId": "com.example.other"}, ANY_APP) is None


@pytest.mark.parametrize(
    "garbled",
    [
        *({"revocationPercentage": value} for value in (-1, 100_001, 33.333, float("nan"), "all", True, [], 10**400)),
        *({"revocationType": value} for value in ("", 7, "a\nb", "x" * 257, {})),
    ],
    ids=repr,
)
def test_a_refund_of_a_garbled_part_is_no_refund_of_the_whole(garbled: dict[str, object]) -> None:
    assert done(read(), {**TRANSACTION, **garbled}) is Done.UNREADABLE
    assert isinstance(decide(read("REFUND_REVERSED"), {**TRANSACTION, **garbled}, POLICY), RefundReversed)


@pytest.mark.parametrize("type_", sorted({each.value for each in NotificationTypeV2} - set(CHANGING)))
def test_every_other_type_changes_nothing(type_: str) -> None:
    notification = read(type_)
    assert (notification.type, notification.signed_transaction) == (type_, None)
    assert done(notification, None) is Done.NOTHING


@pytest.mark.parametrize("type_", CHANGING)
@pytest.mark.parametrize("environment", ["Sandbox", "Xcode", "LocalTesting", "production"])
def test_an_environment_that_does_not_count_is_acknowledged(type_: str, environment: str) -> None:
    """There are no claims of it; and in the Sandbox Apple would not come again anyhow."""
    outer = {"bundleId": "com.example.game", "environment": environment, "signedTransactionInfo": "a.b.c"}
    assert done(read(type_, data=outer), TRANSACTION) is Done.NOTHING
    assert done(read(type_), {**TRANSACTION, "environment": environment}) is Done.NOTHING


@pytest.mark.parametrize("type_", CHANGING)
@pytest.mark.parametrize(
    "changes",
    [
        {"transactionId": None},
        {"transactionId": ""},
        {"transactionId": True},
        {"transactionId": "1\n2"},
        {"transactionId": "x" * 257},
        {"bundleId": None},
        {"environment": None},
    ],
)
def test_a_transaction_that_lacks_something_is_unreadable(type_: str, changes: dict[str, object]) -> None:
    assert done(read(type_), {**TRANSACTION, **changes}) is Done.UNREADABLE


leaves = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.just("REFUND")
keys = st.sampled_from(["bundleId", "environment", "signedTransactionInfo", "x"])
values = st.recursive(
    leaves, lambda inner: st.lists(inner, max_size=2) | st.dictionaries(keys, inner, max_size=3), max_leaves=4
)
names = st.sampled_from([*payload(), *TRANSACTION, "summary", "appData", "externalPurchaseToken"])


@given(
    payload_changes=st.dictionaries(names, values, max_size=4),
    transaction=st.none() | st.dictionaries(names, values, max_size=3).map(lambda changes: TRANSACTION | changes),
    type_=st.sampled_from([*CHANGING, "TEST", "else"]),
)
@example({"data": {"bundleId": ["x"], "environment": {}, "signedTransactionInfo": "\ud800"}}, TRANSACTION, "REVOKE")
def test_nothing_in_a_payload_is_too_much(payload_changes: dict[str, Any], transaction: Any, type_: str) -> None:
    notification = read_notification({**payload(type_), **payload_changes})
    if isinstance(notification, Settled):
        return
    decision = decide(notification, transaction, POLICY)
    if isinstance(decision, Refund | RefundReversed):
        assert transaction is not None
        assert (transaction["bundleId"], transaction["environment"]) == ("com.example.game", "Production")
        assert decision.transaction_id == str(transaction["transactionId"])
        assert notification.type in CHANGING
        json.dumps(decision.at_seconds, allow_nan=False)
