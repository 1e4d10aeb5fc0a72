"""Who owns a transaction, as the ledger's answers tell."""

from __future__ import annotations

from dataclasses import replace

import pytest

from receipt_actors.domain.ledger import Ownership, ledger_item, ownership_after_claim, ownership_after_lookup
from receipt_actors.domain.messages import Submission
from receipt_actors.domain.ports import Environment, LedgerItem, Tombstone
from receipt_actors.domain.receipts import Transaction

SUBMISSION = Submission("s-1", "m-1", 42, "AAAA", "ab" * 32, "answers", None, None, sent_at_seconds=90.0)
TRANSACTION = Transaction("1000", "999", "coins", 3, 80.0, None, cancelled=False, expired=False)
ITEM = ledger_item(SUBMISSION, TRANSACTION, Environment.SANDBOX, "receipts", now_seconds=100.0)


def test_a_claim_records_who_claimed_what_where_and_when() -> None:
    """Every field that a later comparison, a refund or an operator needs is in the item."""
    assert ITEM == LedgerItem(
        transaction_id="1000",
        submission_id="s-1",
        message_id="m-1",
        user_id=42,
        receipt_sha256="ab" * 32,
        product_id="coins",
        original_transaction_id="999",
        environment=Environment.SANDBOX,
        source_queue="receipts",
        post_queue="answers",
        claimed_at_seconds=100.0,
        refunded_at_seconds=None,
        quantity=3,
        schema_version=2,
    )


def test_what_nobody_claimed_is_new_after_a_claim_and_free_after_a_lookup() -> None:
    """Only a claim makes a transaction ours; a lookup that finds nothing says that it is free."""
    assert ownership_after_claim(None, ITEM) is Ownership.NEW
    assert ownership_after_lookup(None, SUBMISSION) is Ownership.FREE


@pytest.mark.parametrize(
    ("standing", "ownership"),
    [
        (ITEM, Ownership.OURS),
        (replace(ITEM, message_id="m-2", claimed_at_seconds=1.0, post_queue="elsewhere"), Ownership.OURS),
        (replace(ITEM, refunded_at_seconds=200.0), Ownership.OURS),
        (replace(ITEM, submission_id="s-2"), Ownership.SAME_USER),
        (replace(ITEM, receipt_sha256="cd" * 32), Ownership.SAME_USER),
        (replace(ITEM, user_id=43), Ownership.OTHER_USER),
        (replace(ITEM, user_id=43, submission_id="s-2"), Ownership.OTHER_USER),
        (replace(ITEM, submission_id="s-2", refunded_at_seconds=200.0), Ownership.REFUNDED),
        (replace(ITEM, user_id=43, refunded_at_seconds=200.0), Ownership.REFUNDED),
    ],
)
def test_a_standing_claim_is_ours_only_with_the_same_submission_user_and_receipt(
    standing: LedgerItem, ownership: Ownership
) -> None:
    """All three must agree, then it is ours whatever was marked since; a claim and a lookup judge alike."""
    assert ownership_after_claim(standing, ITEM) is ownership
    assert ownership_after_lookup(standing, SUBMISSION) is ownership


def test_a_tombstone_is_nobodys_claim() -> None:
    """Apple refunded it before anybody asked: whoever asks is told so, and nobody got OK."""
    tombstone = Tombstone(ITEM.transaction_id, 50.0)
    assert ownership_after_claim(tombstone, ITEM) is Ownership.REFUNDED
    assert ownership_after_lookup(tombstone, SUBMISSION) is Ownership.REFUNDED
