"""Any history of claims, refunds and reversals ends the same way in every ledger, and as the domain says it should."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from receipt_actors.aws import AwsLedger
from receipt_actors.domain.ports import Environment, Ledger, LedgerItem
from receipt_actors.domain.verdicts import Ownership, ownership_after_claim
from receipt_actors.sqlite import EmbeddedLedger
from receipt_actors.testing import FakeLedger
from tests.backends.conftest import Aws

ITEM = LedgerItem("", "s-1", "m-1", 1, "ab" * 32, None, None, Environment.PRODUCTION, "in", "out", 1_700_000_000.0)
_numbers = itertools.count()

steps = st.tuples(
    st.sampled_from(["claim", "batch", "get", "mark", "mark in part", "unmark"]),
    st.sampled_from(["a", "b"]),
    st.integers(1, 3),
)


@pytest.fixture(scope="module")
def ledgers(tmp_path_factory: pytest.TempPathFactory, simulated_server: tuple[str, Aws]) -> Iterator[Sequence[Ledger]]:
    url, aws = simulated_server
    folder: Path = tmp_path_factory.mktemp("ledger")
    with pytest.MonkeyPatch.context() as environment, ExitStack() as opened:
        environment.setenv("AWS_ENDPOINT_URL", url)
        embedded = opened.enter_context(closing(EmbeddedLedger(folder / "receipts.db")))
        dynamodb = opened.enter_context(closing(AwsLedger(aws.create_table("TransactionId"), aws.session)))
        yield [FakeLedger(), embedded, dynamodb]


def carry_out(ledger: Ledger, what: str, transaction_id: str, number: int) -> object:
    item = replace(ITEM, transaction_id=transaction_id, submission_id=f"s-{number}", user_id=number)
    match what:
        case "claim":
            return ledger.claim(item)
        case "batch":
            return list(ledger.claim_all([item]))
        case "mark":
            return ledger.mark_refunded(transaction_id, float(number))
        case "mark in part":
            return ledger.mark_refunded(transaction_id, 2.0, "REFUND_PRORATED", number * 30_000)
        case "unmark":
            return ledger.unmark_refunded(transaction_id, float(number))
        case _:
            return ledger.get(transaction_id)


@settings(max_examples=60)
@given(st.lists(steps, max_size=12))
def test_all_ledgers_agree_step_by_step(ledgers: Sequence[Ledger], history: list[tuple[str, str, int]]) -> None:
    example = next(_numbers)
    owners: dict[str, int] = {}
    for what, name, number in history:
        transaction_id = f"{example}-{name}"
        answers = [carry_out(ledger, what, transaction_id, number) for ledger in ledgers]
        assert answers[1:] == answers[:-1], (what, answers)
        if what in ("claim", "batch"):
            if answers[0] in (None, [None]):
                assert name not in owners
                owners[name] = number
            standing = ledgers[0].get(transaction_id)
            wanted = replace(ITEM, transaction_id=transaction_id, submission_id=f"s-{number}", user_id=number)
            ownership = ownership_after_claim(standing, wanted)
            assert (ownership is Ownership.OURS) is (owners.get(name) == number)
    for name, number in owners.items():
        for ledger in ledgers:
            claim = ledger.get(f"{example}-{name}")
            assert isinstance(claim, LedgerItem)
            assert (claim.submission_id, claim.user_id) == (f"s-{number}", number)
