"""Reading a transaction's id out of an app receipt, whoever has made that up."""

from __future__ import annotations

import base64
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from receipt_actors.sandbox.receipts import Purchase, SampleReceipt, Shape, mint
from receipt_actors.stores.apple.client.receipt_ids import MAX_ELEMENTS, is_transaction_id, transaction_id_of

APP = "com.example.game"
SAMPLE = base64.b64decode(mint(SampleReceipt(APP, (Purchase("2000000001"),))))
MESSAGE_BYTES = 760_000  #: of a receipt in a message, before base64
PATIENCE_SECONDS = 5.0  #: many times of what the slowest takes here; an attack that gets through takes a minute or more


def element(tag: int, content: bytes) -> bytes:
    size = len(content).to_bytes(4, "big")
    return bytes((tag, 0x84)) + size + content


def encoded(data: bytes) -> str:
    return base64.b64encode(data).decode()


@pytest.mark.parametrize("shape", list(Shape))
def test_the_id_of_a_purchase_is_read(shape: Shape) -> None:
    data = mint(SampleReceipt(APP, (Purchase("2000000001"),), shape=shape))
    broken = base64.encodebytes(base64.b64decode(data)).decode().replace("\n", "\r\n")
    assert transaction_id_of(data) == transaction_id_of(broken) == "2000000001"


def test_a_receipt_of_years_is_read() -> None:
    purchases = tuple(Purchase(str(2_000_000_001 + number)) for number in range(1000))
    assert transaction_id_of(mint(SampleReceipt(APP, purchases))) == "2000000001"
    large = mint(SampleReceipt(APP, purchases[:1]), padding_bytes=MESSAGE_BYTES - 10_000)
    assert transaction_id_of(large) == "2000000001"


@pytest.mark.parametrize(
    "data",
    [
        "",
        "AAAA",
        "not base64",
        "ключ",
        mint(SampleReceipt(APP, ())),
        encoded(b'"purchase-info" = "AAAA";'),
        encoded(b'"purchase-info" = "' + base64.b64encode(b'"transaction-id" = "../../x";') + b'";'),
        encoded(b"\xff\xfe"),
        encoded(SAMPLE[:-1]),
        encoded(SAMPLE[:300]),
    ],
)
def test_a_receipt_without_an_id_has_none(data: str) -> None:
    assert transaction_id_of(data) is None


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(element(0x02, b"\x7f" * MESSAGE_BYTES), id="a huge number"),
        pytest.param(element(0x06, b"\xff" * MESSAGE_BYTES), id="a huge object identifier"),
        pytest.param(element(0x0A, b"\x7f" * MESSAGE_BYTES), id="a huge enumerated number"),
        pytest.param(element(0x09, b"\xa2\x3f\xff\xff\x01"), id="a real number of gigabytes"),
        pytest.param(b"\x1f" + b"\xff" * MESSAGE_BYTES, id="a tag that does not end"),
        pytest.param(b"\x02\xfe" + b"\xff" * 126, id="a length of 126 digits"),
        pytest.param(element(0x30, b"\x05\x00" * (MESSAGE_BYTES // 2)), id="hundreds of thousands of elements"),
        pytest.param(b"\x30\x80" * (MESSAGE_BYTES // 2), id="nested without an end"),
        pytest.param(
            b"\x24\x80" + element(0x04, b"x" * 60) * (MESSAGE_BYTES // 66) + b"\x00\x00", id="a string of segments"
        ),
        pytest.param(element(0x30, b"\x30\x00" * (MAX_ELEMENTS - 2)), id="as many elements as may be"),
        pytest.param(element(0x03, b"\x07" + b"\xff" * MESSAGE_BYTES), id="bits that are shifted"),
        pytest.param(b'"purchase-info"' + b" " * MESSAGE_BYTES, id="a property list of spaces"),
        pytest.param(b'"purchase-info" = "' * (MESSAGE_BYTES // 19), id="a property list of beginnings"),
    ],
)
def test_no_receipt_is_an_attack(data: bytes) -> None:
    began_at = time.thread_time()  # on the processor, whoever else has it meanwhile
    assert transaction_id_of(encoded(data)) is None
    assert time.thread_time() - began_at < PATIENCE_SECONDS


@given(st.integers(0, len(SAMPLE) - 1), st.binary(max_size=6), st.integers(0, 6))
def test_no_receipt_is_too_garbled_to_read(place: int, instead: bytes, removed: int) -> None:
    found = transaction_id_of(encoded(SAMPLE[:place] + instead + SAMPLE[place + removed :]))
    assert found is None or is_transaction_id(found)


@given(st.binary(max_size=200))
def test_no_bytes_are_too_strange_to_read(data: bytes) -> None:
    transaction_id_of(encoded(data))
    transaction_id_of(data.decode("latin-1"))
