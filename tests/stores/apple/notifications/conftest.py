"""A handler on fakes. What verifies the signatures is real: Apple's library, which trusts an authority of the tests."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest

from receipt_actors.domain.policy import Policy
from receipt_actors.domain.ports import Environment
from receipt_actors.notifications import HandlerAnswer, NotificationHandler
from receipt_actors.stores.apple.signatures.apple_library import AppleSignedData
from receipt_actors.testing import FakeLedger, FakeNotifications, FakeQueues
from tests.stores.apple.notifications.posts import AUTHORITY, BUNDLE_ID, NOW, RESULTS, Posted


class House:
    def __init__(self) -> None:
        self.ledger = FakeLedger()
        self.notifications = FakeNotifications()
        self.queues = FakeQueues()
        self.queues.create_queue(RESULTS)
        self.handler = self.another_handler()

    def another_handler(self, post_queues: Sequence[str] = (RESULTS,), **policy: Any) -> NotificationHandler:
        """A node beside the first, or the same one after a restart with other settings."""
        accepted = {"bundle_ids": frozenset({BUNDLE_ID}), "environments": frozenset({Environment.PRODUCTION})}
        return NotificationHandler(
            signed_data=AppleSignedData([AUTHORITY.root], now_seconds=lambda: NOW),
            notifications=self.notifications,
            ledger=self.ledger,
            queues=self.queues,
            policy=Policy(**(accepted | policy)),
            post_queues=post_queues,
            now=lambda: NOW,
        )

    def handle(self, posted: Posted) -> HandlerAnswer:
        return self.handler.handle(posted.body)

    @property
    def answers(self) -> list[dict[str, Any]]:
        return [json.loads(message.body) for message in self.queues.messages(RESULTS)]

    @property
    def is_untouched(self) -> bool:
        fakes = (self.ledger, self.notifications, self.queues)
        return not any(fake.count(operation) for fake in fakes for operation in fake.operations)


@pytest.fixture
def house() -> House:
    return House()
