"""A whole receipt system on fakes, and what has to hold for it whatever has happened."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

from receipt_actors import ReceiptSystem, Settings
from receipt_actors.otp import ActorSystem, Name, Ref, which_children
from receipt_actors.pipeline.protocol import CONSUMERS, IN_FLIGHT, MOVERS, RESULT_BATCHERS, VALIDATORS, StopReceiving
from receipt_actors.testing import FakeServices, Hold
from tests.patience import PATIENCE_SECONDS

SETTINGS = Settings(backend="aws", bundle_ids=("com.example.game",), consumers=2, max_in_flight=50)
POST = SETTINGS.post_queues[0]
#: For any message to come back that was forgotten (the visibility timeout), or handed back a few times.
LONG_ENOUGH_SECONDS = 8 * 60.0

#: The steps of a message that something can happen in: whose call, and whether it has been carried out by then.
STEPS = [
    ("app_store", "verify_receipt", False),
    ("ledger", "claim", False),
    ("ledger", "claim", True),
    ("queues", "send", False),
    ("queues", "send", True),
    ("queues", "delete", False),
    ("queues", "delete", True),
]
STEP_IDS = [f"{'after' if after else 'before'} {operation}" for _, operation, after in STEPS]


class Tree:
    def __init__(self, settings: Settings = SETTINGS, services: FakeServices | None = None, **how: Any) -> None:
        self.services = services or FakeServices(settings)
        own = self.services
        self.system: ReceiptSystem = (
            ReceiptSystem.start(own.settings, backend=own.backend, clock=own.clock, **how) if how else own.start()
        )
        self.settle()
        self.names_at_first = self._names()

    @property
    def actors(self) -> ActorSystem:
        return self.system.actors

    def settle(self) -> None:
        self.services.settle(self.actors)

    def advance(self, seconds: float) -> None:
        self.services.advance(seconds, self.actors)

    def close(self) -> None:
        self.services.recover()
        if self.system.end_reason is None:
            self.find(IN_FLIGHT).ask(StopReceiving(), block=False)  # no poll begins any more
            self.settle()
            self.system.drain(5.0)  # at once: five seconds of it are for handing back

    def hold(self, fake: str, operation: str, after: bool, **arguments: Any) -> Hold:
        holder = getattr(self.services, fake)
        hold: Hold = (holder.hold_answer if after else holder.hold)(operation, **arguments)
        return hold

    def find(self, name: Name) -> Ref:
        plural = {"validator": VALIDATORS, "mover": MOVERS, "result_batcher": RESULT_BATCHERS}.get(str(name))
        if plural is not None:
            ((_, ref, _),) = which_children(self.find(plural), 10)
            assert isinstance(ref, Ref)
            return ref
        ref = self.actors.whereis(name)
        assert ref is not None, f"{name} does not live"
        return ref

    def crash(self, name: Name) -> None:
        self.find(name).cast(object())
        self.settle()

    def kill(self, name: Name) -> None:
        self.find(name).kill()
        self.settle()

    def kill_process(self) -> None:
        actors = self.actors
        over = threading.Event()

        class Kill:
            def run(self) -> None:  # on the scheduler's thread: nobody can react to the ends of others
                for ref in actors.processes():
                    ref.kill()
                actors.scheduler.stop()
                over.set()

        actors.scheduler.schedule(Kill())
        assert over.wait(PATIENCE_SECONDS)
        for pool in actors._pools:  # threads end with their process
            pool.close()
        self.system._heartbeat.stop()
        self.services.queues.interrupt()

    def restart(self, settings: Settings | None = None) -> None:
        services = self.services
        self.system = ReceiptSystem.start(settings or services.settings, backend=services.backend, clock=services.clock)
        self.settle()

    def results(self) -> list[dict[str, Any]]:
        return [dict(result) for result in self.services.results()]

    def submissions_answered(self) -> set[str]:
        return {message.attributes["submission_id"] for message in self.services.queues.messages(POST)}

    def source(self) -> list[str]:
        return [message.message_id for message in self.services.queues.messages(SETTINGS.source_queue)]

    def dead(self) -> list[str]:
        messages = self.services.queues.messages(self.services.dead_letter_queue)
        return [message.attributes.get("reason", "moved by SQS") for message in messages]

    def check_answered(self, expected: dict[str, Any]) -> None:
        results = self.results()
        assert results, "no answer"
        assert all(result == expected for result in results), results
        assert (self.source(), self.dead()) == ([], [])
        self.check_whole()

    def check_whole(self) -> None:
        assert self.system.end_reason is None
        assert self._names() == self.names_at_first
        for name in self.names_at_first:
            ref = self.find(name)
            if ref.actor_class.__name__.endswith("Supervisor"):
                assert all(isinstance(child.child, Ref) for child in which_children(ref, 10)), f"a gap under {name}"
        assert which_children(self.find(VALIDATORS), 10) == []
        assert which_children(self.find(MOVERS), 10) == []
        self.advance(SETTINGS.receive_wait_seconds + 1)  # new polls, with all the credits there are
        status = self.system.in_flight()
        assert status.in_flight == 0
        assert status.unavailable == frozenset()
        assert status.reserved == 10 * len(which_children(self.find(CONSUMERS), 10)), "credits have leaked"
        self._check_order()
        before = len(self.results())
        self.services.submit(self.services.app_store.sell(f"proof-{before}"), user_id=99)
        self.advance(1)
        assert len(self.results()) == before + 1, "it does not work any more"

    def _check_order(self) -> None:
        told: set[str] = set()
        for event in self.services.queues.events:
            if event.operation == "send" and event.queue != SETTINGS.source_queue:
                told.add(self._source_message_id(event.queue, event.message_id))
            if event.operation == "delete" and event.queue == SETTINGS.source_queue:
                assert event.message_id in told, f"{event.message_id} was deleted before it was answered"

    def _source_message_id(self, queue: str, message_id: str) -> str:
        for message in self.services.queues.messages(queue):
            if message.message_id == message_id:
                return message.attributes["source_message_id"]
        return ""

    def _names(self) -> set[str]:
        return {name for name in self.actors.registered() if isinstance(name, str)}


def tree_of(settings: Settings = SETTINGS) -> Iterator[Tree]:
    tree = Tree(settings)
    yield tree
    tree.close()


def ok(user_id: int, transaction_id: str) -> dict[str, Any]:
    return {"user_id": user_id, "transaction_id": transaction_id, "status": "OK"}


def invalid(user_id: int, transaction_id: str) -> dict[str, Any]:
    return {"user_id": user_id, "transaction_id": transaction_id, "status": "INVALID"}
