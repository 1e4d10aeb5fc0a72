"""``FakeServices``: all fakes together, and a receipt system that runs on them."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from receipt_actors.application import HAND_BACK_SECONDS
from receipt_actors.backends import Backend
from receipt_actors.domain.messages import PostedResult, parse_result, submission_id_of
from receipt_actors.domain.ports import ReceivedMessage
from receipt_actors.domain.sqs_rules import dead_letter_queue_of, is_fifo
from receipt_actors.otp import ActorSystem, Clock, ManualClock
from receipt_actors.receipt_system import ReceiptSystem
from receipt_actors.sandbox.store import Store
from receipt_actors.settings import Settings
from receipt_actors.telemetry.alerts import Alert
from receipt_actors.testing import _settling
from receipt_actors.testing._app_store import FakeAppStore, FakeServerApi
from receipt_actors.testing._audit import AuditReport, SentSubmission, audit
from receipt_actors.testing._faults import Fake
from receipt_actors.testing._interception import Around, intercept
from receipt_actors.testing._ledger import FakeLedger
from receipt_actors.testing._queues import FakeQueues
from receipt_actors.testing._records import FakeRoles
from receipt_actors.testing._signed_data import FakeSignedData


class _StillSystem(ReceiptSystem):
    """A system whose clock stands still while it drains: what waits for the time then would be waited for in vain."""

    settle: Callable[[], None]

    def __exit__(self, *error: object) -> None:
        if error[0] is None:
            self.settle()  # what needs no time is finished
        self.drain(HAND_BACK_SECONDS)


class FakeServices:
    """Queues as ``settings`` name them, a ledger and an App Store with all its ways, on one ``clock``; see the package.

    A dead-letter queue is the one of the settings, else the one that the embedded backend would make. The services
    outlive a receipt system: start another one to see what it makes of what the first has left.
    """

    def __init__(self, settings: Settings, clock: Clock | None = None) -> None:
        self.settings = settings
        self.clock: Clock = clock or ManualClock()
        self.queues = FakeQueues(self.clock)
        self.ledger = FakeLedger()
        self.signed_data = FakeSignedData()
        store = Store(self.signed_data.sign)  # one App Store, asked in two ways
        self.app_store = FakeAppStore(store=store)
        self.server_api = FakeServerApi(self.signed_data, store)
        self.roles = FakeRoles()
        self.dead_letter_queue = self._dead_letter_queue(settings)
        for source in settings.every_source:
            self.queues.create_queue(source.source_queue, self._dead_letter_queue(source), settings.max_receive_count)
        for queue in (*settings.all_post_queues, *filter(None, [settings.alerts_queue])):
            self.queues.create_queue(queue)

    @property
    def backend(self) -> Backend:
        return Backend(
            queues=self.queues,
            ledger=self.ledger,
            app_store=self.app_store,
            interrupt_receives=self.queues.interrupt,
            close=self.queues.interrupt,
            rng=random.Random(0),
            signed_data=self.signed_data,
            server_api=self.server_api,
            roles=None if self.settings.is_alone else self.roles,
        )

    def start(
        self,
        around: Around | None = None,
        *,
        on_result: Callable[[PostedResult], object] | None = None,
        on_alert: Callable[[Alert], object] | None = None,
    ) -> ReceiptSystem:
        """Start a receipt system on these services, with ``around`` around each of its calls (see ``intercept``).

        ``on_result`` and ``on_alert`` are those of ``ReceiptSystem.start``. At the end of a ``with`` nothing waits for
        a clock that stands still: what waits for a ``ManualClock`` then is handed back at once.

        ``submit`` and ``results`` of these services are not among those; the receipt system's own are.
        """
        backend = self.backend if around is None else intercept(self.backend, around)
        kind = _StillSystem if isinstance(self.clock, ManualClock) else ReceiptSystem
        system = kind.start(self.settings, backend=backend, clock=self.clock, on_result=on_result, on_alert=on_alert)
        if isinstance(system, _StillSystem):
            system.settle = lambda: self.settle(system.actors)
        return system

    def submit(
        self,
        receipt_data: str,
        user_id: int = 1,
        *,
        submission_id: str | None = None,
        source_queue: str | None = None,
        **fields: object,
    ) -> str:
        """Put a message on a source queue (the first one by default), and return its message id.

        ``fields`` are added to it, or replace its own.
        """
        settings = self.settings if source_queue is None else self.settings.of_source(source_queue)
        body = {"receipt": receipt_data, "user_id": user_id, "post_queue": settings.post_queues[0], **fields}
        attributes = {} if submission_id is None else {"submission_id": submission_id}
        group_id = str(body["user_id"]) if is_fifo(settings.source_queue) else None
        return self.queues.put(settings.source_queue, json.dumps(body), attributes, group_id)

    def results(self, queue: str | None = None) -> list[Mapping[str, Any]]:
        """Return the answers on a post queue (the first one by default), oldest first."""
        return [json.loads(message.body) for message in self.queues.messages(queue or self.settings.post_queues[0])]

    def audit(self, sent: Iterable[SentSubmission]) -> AuditReport:
        """See ``testing.audit``: of all that the queues and the ledger hold; what is on a source queue is to come."""
        post_queues = [self._received(queue) for queue in self.settings.all_post_queues]
        answers = [parse_result(message) for messages in post_queues for message in messages]
        return audit(
            sent,
            [answer for answer in answers if answer is not None],
            map(submission_id_of, self._received_from(map(self._dead_letter_queue, self.settings.every_source))),
            self.ledger.items.values(),
            still_to_come=frozenset(map(submission_id_of, self._received_from(self.settings.source_queues))),
        )

    @staticmethod
    def _dead_letter_queue(source: Settings) -> str:
        return source.dead_letter_queue or dead_letter_queue_of(source.source_queue)

    def _received_from(self, queues: Iterable[str]) -> list[ReceivedMessage]:
        return [message for queue in queues for message in self._received(queue)]

    def _received(self, queue: str) -> list[ReceivedMessage]:
        return [
            ReceivedMessage(message.message_id, "", message.body, "", message.attributes)
            for message in self.queues.messages(queue)
        ]

    def settle(self, actors: ActorSystem) -> None:
        _settling.settle(actors, *self._fakes)

    def advance(self, seconds: float, actors: ActorSystem) -> None:
        """See ``testing.advance``. Raises ``TypeError`` where the clock is not a ``ManualClock``."""
        if not isinstance(self.clock, ManualClock):
            raise TypeError("only a ManualClock can be moved")
        _settling.advance(self.clock, seconds, actors, *self._fakes)

    def recover(self) -> None:
        """Forget every fault of every fake, and release what is held."""
        for fake in self._fakes:
            fake.recover()

    @property
    def _fakes(self) -> tuple[Fake, ...]:
        return self.queues, self.ledger, self.app_store, self.signed_data, self.server_api, self.roles
