"""Names and free text of strangers, and addresses."""

from __future__ import annotations

from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from receipt_actors.domain.addresses import Address
from receipt_actors.domain.ports import OutgoingMessage
from receipt_actors.domain.values import masked

RECEIPT = "MIITuAYJKoZIhvcNAQcCoIITqTCCE6UCAQExCzAJBgUrDgMC+/=="
SIGNED = "eyJhbGciOiJFUzI1NiIsIng1YyI6WyJNSUlDIl19.eyJ0cmFuc2FjdGlvbklkIjoiMjAwMCJ9.c2lnbmF0dXJl"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (f'bad value {{"receipt": "{RECEIPT}"}}', 'bad value {"receipt": "..."}'),
        (f"{RECEIPT.replace('/', '%2F')} twice {RECEIPT}", "... twice ..."),
        ("password 5f0c8e6d9b7a41c2a3d4e5f60718293a", "password ..."),
        ("request 550e8400-e29b-41d4-a716-446655440000", "request 550e8400-e29b-41d4-a716-446655440000"),
        (f"GET https://apple.example/verify?receipt={RECEIPT}&user=7", "GET https://apple.example/verify?...&user=7"),
        (f"http://127.0.0.1:80/v?r={quote(RECEIPT, safe='')}", "http://127.0.0.1:80/v?..."),
        (f"HTTPS://apple.example/v#{RECEIPT}", "HTTPS://apple.example/v#..."),
        (f"https://apple.example/v;r={RECEIPT}", "https://apple.example/v;..."),
        (f"https://apple.example/v?jws={SIGNED}&x=1", "https://apple.example/v?.......&x=1"),
        (f"https://apple.example/v/{SIGNED}?x=1", "https://apple.example.......?x=1"),
        (f"https://apple.example/v/{RECEIPT * 5}", "https://apple.example..."),
        (f"https://apple.example/v/{quote(RECEIPT * 5, safe='')}", "https://apple.example..."),
        (f"{{'url': 'https://apple.example/v?r={RECEIPT}'}}", "{'url': 'https://apple.example/v?...'}"),
        (f"signed: {SIGNED}", "signed: ..."),
        ("https://somebody:hunter2@proxy.example/queue", "https://...@proxy.example/queue"),
        ("https://a.example/?X-Amz-Signature=" + "0123456789abcdef" * 4, "https://a.example/?..."),
        *(
            (name, name)
            for name in (
                "no route to http://127.0.0.1:4566/000000000000/ReceiptsSQS, nor to https://sqs.eu-west-1.amazonaws.com/",
                f"https://sqs.eu-west-1.amazonaws.com/123456789012/{'Queue' * 16}",
                "https://api.storekit.apple.com/inApps/v1/transactions/2000000123456789 said 404",
                "arn:aws:sts::123456789012:assumed-role/receipt-actors-TaskRole-1ABCDEFGHIJKL/0123456789abcdef0123456789",
                'not "https://sqs.eu-west-1.amazonaws.com/123456789012/ReceiptsOfToday" but',
            )
        ),
    ],
)
def test_what_looks_like_encoded_data_is_masked(text: str, told: str) -> None:
    """A service's words are for operators: names and addresses stay, what they quote of a receipt or a key goes."""
    assert masked(text) == told


@pytest.mark.parametrize(
    "text", ["https://", "arn:", "eyJ", "https://a.", "https://a/b.", "eyJaaaaaaaa...", "a" * 39 + " "]
)
def test_masking_takes_no_longer_than_the_text(text: str) -> None:
    """Whatever somebody sends to make it slow: a megabyte is done with, here without waiting for the test's end."""
    masked(text * (1_000_000 // len(text)))


@given(st.text(st.characters(exclude_categories=()), max_size=50))
def test_every_text_has_a_size(text: str) -> None:
    """Batches are gathered by size before a queue says what it refuses; one odd message must not stop the others."""
    assert OutgoingMessage(text, {"name": text}).size_bytes >= 2 * len(text)


@pytest.mark.parametrize(
    ("text", "host", "port", "is_loopback"),
    [
        ("127.0.0.1:9464", "127.0.0.1", 9464, True),
        ("127.1.2.3:1", "127.1.2.3", 1, True),
        ("localhost:0", "localhost", 0, True),
        ("LocalHost:65535", "localhost", 65535, True),
        ("[::1]:9464", "::1", 9464, True),
        ("[::]:9464", "::", 9464, False),
        ("0.0.0.0:9464", "0.0.0.0", 9464, False),
        ("receipts.internal:80", "receipts.internal", 80, False),
        ("127.0.0.1.example.com:80", "127.0.0.1.example.com", 80, False),
        ("0:80", "0", 80, False),
    ],
)
def test_a_host_and_a_port(text: str, host: str, port: int, is_loopback: bool) -> None:
    address = Address.parse(text)
    assert (address.host, address.port, address.is_loopback) == (host, port, is_loopback)
    assert Address.parse(str(address)) == address


@pytest.mark.parametrize(
    "text",
    [
        *("", ":", "9464", "localhost", "localhost:", ":9464", "localhost:65536", "localhost:-1", "localhost:٣"),
        *("::1:80", "[::g]:80", "[127.0.0.1]:80", "http://localhost:80", "a b:80", "a/b:80", "a@b:80", "-a:80"),
        *("a..b:80", "a\n:80"),
    ],
)
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        Address.parse(text)
