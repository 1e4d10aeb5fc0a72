"""Sample receipts: minted, read back, told apart from forgeries and garbage."""

from __future__ import annotations

import base64
from dataclasses import replace

import pytest
from appstoreserverlibrary.receipt_utility import ReceiptUtility
from hypothesis import given
from hypothesis import strategies as st

from receipt_actors.domain.ports import Environment
from receipt_actors.domain.receipts import ProductType
from receipt_actors.sandbox.receipts import (
    REAL_RECEIPT_BYTES,
    Fault,
    ForgedReceipt,
    MalformedReceipt,
    Purchase,
    SampleReceipt,
    Shape,
    forge,
    mint,
    read,
)

names = st.text(min_size=1, max_size=20)
dates = st.none() | st.integers(min_value=0, max_value=4_000_000_000_000)
purchases = st.builds(
    Purchase,
    transaction_id=names,
    product_id=names,
    original_transaction_id=st.none() | names,
    quantity=st.integers(min_value=1, max_value=10),
    expires_at_ms=dates,
    cancelled_at_ms=dates,
    product_type=st.none() | st.sampled_from(ProductType),
    is_family_shared=st.booleans(),
    app_account_token=st.none() | st.uuids().map(str),
    is_upgraded=st.booleans(),
)
faults = st.one_of(
    st.builds(Fault.apple, st.sampled_from([21002, 21005, 21100]), is_retryable=st.none() | st.booleans()),
    st.builds(Fault.http, st.sampled_from([429, 500, 503]), retry_after=st.none() | st.just("5")),
    st.sampled_from([Fault.html(), Fault.garbage(), Fault.drop(), Fault.hang(1.5)]),
)
receipts = st.builds(
    lambda shape, purchases, **fields: SampleReceipt(
        shape=shape, purchases=tuple(purchases if shape is Shape.UNIFIED else purchases[:1]), **fields
    ),
    shape=st.sampled_from(Shape),
    purchases=st.lists(purchases, min_size=1, max_size=4),
    bundle_id=names,
    environment=st.sampled_from(Environment),
    status=st.none() | st.just(21010),
    faults=st.lists(faults, max_size=3).map(tuple),
)
GENUINE = SampleReceipt("com.example.game", (Purchase("1000000001"),))
TRANSACTION = SampleReceipt("com.example.game", (Purchase("1000000001"),), shape=Shape.TRANSACTION)


@given(receipts, st.binary(min_size=1), st.integers(min_value=0, max_value=100))
def test_what_is_minted_can_be_read(receipt: SampleReceipt, key: bytes, padding_bytes: int) -> None:
    assert read(mint(receipt, key=key, padding_bytes=padding_bytes), key=key) == receipt


@given(st.data())
def test_a_changed_receipt_is_never_genuine(data: st.DataObject) -> None:
    content = bytearray(base64.b64decode(mint(data.draw(st.sampled_from([GENUINE, TRANSACTION])))))
    at = data.draw(st.integers(min_value=0, max_value=len(content) - 1))
    content[at] ^= data.draw(st.integers(min_value=1, max_value=255))
    with pytest.raises((ForgedReceipt, MalformedReceipt)):
        read(base64.b64encode(content).decode())


@given(st.text() | st.binary().map(lambda data: base64.b64encode(data).decode()))
def test_garbage_is_malformed(text: str) -> None:
    with pytest.raises(MalformedReceipt):
        read(text)


def test_what_was_minted_under_another_key_is_forged() -> None:
    with pytest.raises(ForgedReceipt):
        read(forge(GENUINE))


def test_a_padded_receipt_weighs_as_much_as_a_real_one() -> None:
    small, padded = mint(GENUINE), mint(GENUINE, padding_bytes=REAL_RECEIPT_BYTES)
    assert len(small) < 1200
    assert REAL_RECEIPT_BYTES < len(padded) < 2 * REAL_RECEIPT_BYTES
    assert small.startswith("MII")
    assert padded.startswith("MII")


@pytest.mark.parametrize("count", [0, 2])
def test_an_ios_6_style_receipt_is_one_purchase(count: int) -> None:
    with pytest.raises(ValueError, match=f"one purchase, found {count}"):
        SampleReceipt("com.example.game", (Purchase("1"),) * count, shape=Shape.TRANSACTION)


@given(receipts, st.sampled_from([0, 100, 70_000]))
def test_apple_reads_a_transaction_id_from_either_shape(receipt: SampleReceipt, padding_bytes: int) -> None:
    transaction_id = "1000000017"
    first = replace(receipt.purchases[0], transaction_id=transaction_id)
    receipt_data = mint(replace(receipt, purchases=(first, *receipt.purchases[1:])), padding_bytes=padding_bytes)
    utility = ReceiptUtility()
    if receipt.shape is Shape.UNIFIED:
        assert utility.extract_transaction_id_from_app_receipt(receipt_data) == transaction_id
    else:
        assert utility.extract_transaction_id_from_transaction_receipt(receipt_data) == transaction_id
