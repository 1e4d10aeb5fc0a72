"""The rules for strings that come from elsewhere, where no message or answer is about them alone."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from receipt_actors.domain.ports import OutgoingMessage
from receipt_actors.domain.values import masked

RECEIPT = "MIITuAYJKoZIhvcNAQcCoIITqTCCE6UCAQExCzAJBgUrDgMC+/=="


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (f'bad value {{"receipt": "{RECEIPT}"}}', 'bad value {"receipt": "..."}'),
        (f"{RECEIPT.replace('/', '%2F')} twice {RECEIPT}", "... twice ..."),
        ("password 5f0c8e6d9b7a41c2a3d4e5f60718293a", "password ..."),
        ("request 550e8400-e29b-41d4-a716-446655440000", "request 550e8400-e29b-41d4-a716-446655440000"),
        *(
            (name, name)
            for name in (
                "arn:aws:sts::123456789012:assumed-role/receipt-actors-TaskRole-1ABCDEFGHIJKL/0123456789abcdef0123456789",
                'not "https://sqs.eu-west-1.amazonaws.com/123456789012/ReceiptsOfToday" but',
            )
        ),
    ],
)
def test_what_looks_like_encoded_data_is_masked(text: str, told: str) -> None:
    """A service's words are for operators: names and addresses stay, what they quote of a receipt or a key goes."""
    assert masked(text) == told


@given(st.text(st.characters(exclude_categories=()), max_size=50))
def test_every_text_has_a_size(text: str) -> None:
    """Batches are gathered by size before a queue says what it refuses; one odd message must not stop the others."""
    assert OutgoingMessage(text, {"name": text}).size_bytes >= 2 * len(text)
