"""Refunds, reversals and claims at once, by several nodes, while every service fails at random: nothing is lost.

Apple repeats what was not answered with 200. In the end each transaction stands as Apple's last word says, whoever got
OK for what was refunded has been told INVALID, and nobody else.
"""

from __future__ import annotations

import json
import random
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest

from receipt_actors.backends import Backend
from receipt_actors.domain.policy import Policy
from receipt_actors.domain.ports import LedgerItem, Tombstone
from receipt_actors.errors import LedgerUnavailable
from receipt_actors.notifications import NotificationHandler
from receipt_actors.stores.apple.signatures.apple_library import AppleSignedData
from receipt_actors.testing import FakeAppStore, FaultRates, FaultyCalls, intercept
from tests.patience import PATIENCE_SECONDS
from tests.stores.apple.notifications.conftest import House
from tests.stores.apple.notifications.posts import AUTHORITY, BUNDLE_ID, CLAIM, NOW, RESULTS, Posted
from tests.stores.apple.notifications.posts import transaction_payload as transaction

TRANSACTIONS = 40
NODES = 4
RATES = FaultRates(refused=0.15, lost=0.15, failed_entries=0.1, unconfirmed_entries=0.1)
ATTEMPTS = 200  #: far more than Apple makes, for the faults are far more, too


class FaultyNotifications:
    """The table of notifications, some of whose calls fail, before or after they are carried out."""

    def __init__(self, house: House, seed: int) -> None:
        self._house = house
        self._random = random.Random(seed)

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._house.notifications, name)

        def call(*args: object) -> object:
            drawn = self._random.random()
            if drawn < 0.15:
                raise LedgerUnavailable("refused (injected)")
            answer = method(*args)
            if drawn < 0.3:
                raise LedgerUnavailable("the answer was lost (injected)")
            return answer

        return call


@pytest.mark.parametrize("seed", range(4))
def test_no_refund_is_lost_and_none_is_made_up(house: House, seed: int) -> None:
    rng = random.Random(seed)
    backend = Backend(house.queues, house.ledger, FakeAppStore(), lambda: None, lambda: None, rng)
    nodes = [handler_of(house, backend, seed * NODES + node) for node in range(NODES)]
    fates = {str(number): rng.choice(["refunded", "reversed", "kept"]) for number in range(TRANSACTIONS)}
    claimed = {key: rng.choice(["before", "meanwhile", "never"]) for key in fates}
    for key, when in claimed.items():
        if when == "before":
            assert house.ledger.claim(claim_of(key)) is None
    posts = [Posted(transaction=transaction(key)) for key, fate in fates.items() if fate != "kept"]
    posts += [Posted("REFUND_REVERSED", transaction(key)) for key, fate in fates.items() if fate == "reversed"]
    rng.shuffle(posts)

    def deliver(posted: Posted) -> None:
        body = posted.body
        for attempt in range(ATTEMPTS):
            if nodes[(hash(posted.uuid) + attempt) % NODES].handle(body).status == 200:
                return
        raise AssertionError("it was never acknowledged")

    with ThreadPoolExecutor(8) as pool:
        work = [pool.submit(deliver, posted) for posted in [*posts, *posts]]  # each comes twice, perhaps at once
        rivals = {
            key: pool.submit(house.ledger.claim, claim_of(key)) for key, when in claimed.items() if when == "meanwhile"
        }
        for each in work:
            each.result(timeout=PATIENCE_SECONDS)
    is_claimed = {key: when == "before" for key, when in claimed.items()}
    is_claimed |= {key: rival.result() is None for key, rival in rivals.items()}

    told = Counter(json.loads(message.body)["transaction_id"] for message in house.queues.messages(RESULTS))
    assert not any(told[key] for key, is_there in is_claimed.items() if not is_there)
    for key, fate in fates.items():
        standing = house.ledger.get(key)
        if not is_claimed[key]:
            assert isinstance(standing, Tombstone) if fate == "refunded" else standing is None, (key, fate)
            continue
        assert isinstance(standing, LedgerItem)
        assert (standing.refunded_at_seconds is not None) is (fate == "refunded")
        assert told[key] > 0 or fate != "refunded"
        assert told[key] == 0 or fate != "kept"


def claim_of(key: str) -> LedgerItem:
    return replace(CLAIM, transaction_id=key, submission_id=f"s-{key}")


def handler_of(house: House, backend: Backend, seed: int) -> NotificationHandler:
    faulty = intercept(backend, FaultyCalls(RATES, seed=seed))
    return NotificationHandler(
        signed_data=AppleSignedData([AUTHORITY.root], now_seconds=lambda: NOW),
        notifications=FaultyNotifications(house, seed),
        ledger=faulty.ledger,
        queues=faulty.queues,
        policy=Policy(frozenset({BUNDLE_ID})),
        post_queues=[RESULTS],
        now=lambda: NOW,
    )
