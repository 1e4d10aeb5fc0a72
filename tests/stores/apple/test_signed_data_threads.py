"""Verification on threads, which is opened when the first signed thing comes."""

from __future__ import annotations

import queue
from contextlib import closing
from typing import Any

import pytest

from receipt_actors.errors import AppStoreUnavailable, ConfigurationError
from receipt_actors.stores.apple.ports import SignatureRefused, SignedData, SignedKind
from receipt_actors.stores.apple.signatures.process import SignedDataThreads
from receipt_actors.testing import FakeSignedData
from tests.patience import PATIENCE_SECONDS


def test_either_kind_is_verified_until_they_are_closed() -> None:
    """One that takes long does not hold up another; what was begun before is finished."""
    apple, outcomes = FakeSignedData(), queue.SimpleQueue[Any]()
    with closing(SignedDataThreads(lambda: apple)) as threads, apple.hold("verify_transaction") as hold:
        threads.begin(SignedKind.TRANSACTION, apple.sell("7"), outcomes.put)
        threads.begin(SignedKind.NOTIFICATION, "a.b.c", outcomes.put)
        assert isinstance(outcomes.get(timeout=PATIENCE_SECONDS), SignatureRefused)
        hold.wait_for_call()
        threads.close()
        threads.begin(SignedKind.TRANSACTION, "a.b.c", outcomes.put)
        assert isinstance(outcomes.get_nowait(), AppStoreUnavailable)
        hold.release()
        assert outcomes.get(timeout=PATIENCE_SECONDS)["transactionId"] == "7"


@pytest.mark.parametrize("error", [ConfigurationError(["found no library"]), KeyError("bug")])
def test_what_cannot_be_opened_is_the_outcome_and_is_tried_again(error: Exception) -> None:
    """Of all work that waits; an operator may have put it right by the next one. Then it is opened once."""
    apple, outcomes = FakeSignedData(), queue.SimpleQueue[Any]()
    openings: list[SignedData | Exception] = [error, error, error, apple]

    def open_signed_data() -> SignedData:
        opened = openings.pop(0)
        if isinstance(opened, Exception):
            raise opened
        return opened

    with closing(SignedDataThreads(open_signed_data)) as threads:
        for _ in range(3):
            threads.begin(SignedKind.TRANSACTION, "a.b.c", outcomes.put)
        assert [outcomes.get(timeout=PATIENCE_SECONDS) for _ in range(3)] == [error] * 3
        for _ in range(2):
            threads.begin(SignedKind.TRANSACTION, apple.sell("7"), outcomes.put)
            assert outcomes.get(timeout=PATIENCE_SECONDS)["transactionId"] == "7"
