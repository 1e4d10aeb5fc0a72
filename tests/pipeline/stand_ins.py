"""Stand-ins for the actors around the one under test, and the messages and submissions that tests are made of."""

from __future__ import annotations

import hashlib
import json
import random
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from receipt_actors.domain.limits import LiveLimits
from receipt_actors.domain.messages import Submission, parse_submission
from receipt_actors.domain.policy import Policy, Source
from receipt_actors.domain.ports import Environment, LedgerItem, ReceivedMessage
from receipt_actors.domain.sending import RetryPolicy
from receipt_actors.otp import (
    NO_REPLY,
    SIMPLE_ONE_FOR_ONE,
    TEMPORARY,
    ActorSystem,
    ChildSpec,
    ExitReason,
    From,
    GenServer,
    Name,
    Ref,
    Start,
    Stop,
    Supervisor,
    supervisor_spec,
    which_children,
)
from receipt_actors.pipeline.in_flight import InFlight, Table
from receipt_actors.pipeline.protocol import IN_FLIGHT, MOVERS, VALIDATORS
from receipt_actors.telemetry.statistics import StatisticsSnapshot, statistics_of
from receipt_actors.testing import ManualClock, advance, receipt_data_of, settle

SOURCE, POST, DEAD = "receipts", "results", "dead"
FIRST = Source(SOURCE, frozenset({POST}), DEAD, Policy(None))  #: the only source, where there are no others
SECOND = replace(FIRST, queue="receipts-2", dead_letter_queue="dead-2", is_first=False)

#: Three attempts, with pauses of 1 to 2 and 2 to 3 seconds.
THREE_ATTEMPTS: RetryPolicy = RetryPolicy(3, first_seconds=1.0, max_seconds=8.0)
LONGEST_PAUSE_SECONDS = 3.0

CRASHES = "m-crash"  #: message id, at which the stand-in of its processor crashes when it is started

T = TypeVar("T")


class Silent:
    """Says nothing: the answer to a call that stays open."""


SILENT = Silent()


class StandIn(GenServer):
    def __init__(self, answer: Callable[[Any], object] = lambda _request: SILENT) -> None:
        self._answer = answer
        self.told: list[Any] = []
        self.calls: list[Any] = []
        self.froms: list[From] = []
        self.replies: list[tuple[Any, Any]] = []

    def handle_call(self, request: Any, from_: From) -> Any:
        self.calls.append(request)
        self.froms.append(from_)
        answer = self._answer(request)
        return NO_REPLY if answer is SILENT else answer

    def handle_cast(self, request: Any) -> Any:
        if isinstance(request, Ask):
            self.send_request(request.destination, request.request, request.label)
            return None
        if isinstance(request, Stop):
            return request
        if type(request) is object:
            return super().handle_cast(request)
        self.told.append(request)
        return None

    def handle_info(self, message: Any) -> None:
        self.told.append(message)

    def handle_reply(self, label: Any, value: Any) -> None:
        self.replies.append((label, value))

    def handle_failure(self, label: Any, reason: ExitReason) -> None:
        self.replies.append((label, reason))


class ProcessorStandIn(StandIn):
    def __init__(self, *started_with: Any) -> None:
        super().__init__()
        self.started_with = started_with
        if started_with[1].message_id == CRASHES:
            raise ZeroDivisionError


class Ask:
    def __init__(self, destination: Ref | Name, request: object, label: object) -> None:
        self.destination = destination
        self.request = request
        self.label = label


class CallsOnThreads:
    def __init__(self) -> None:
        self.begun = 0
        self._threads: set[threading.Thread] = set()

    def begin(
        self,
        method: Callable[..., object],
        args: Sequence[object],
        keywords: Mapping[str, object],
        done: Callable[[Any], object],
    ) -> None:
        def call() -> None:
            try:
                outcome = method(*args, **keywords)
            except BaseException as error:  # noqa: BLE001 - it is the outcome
                outcome = error
            done(outcome)
            self._threads.discard(thread)

        self.begun += 1
        thread = threading.Thread(target=call, daemon=True)
        self._threads.add(thread)
        thread.start()

    def busy_threads(self) -> set[threading.Thread]:
        return set(self._threads)

    def standing_threads(self) -> set[threading.Thread]:
        return set()

    def recover(self) -> None:
        """Nothing is held here."""


class Stage:
    def __init__(self) -> None:
        self.clock = ManualClock()
        self.actors = ActorSystem("test", self.clock)
        self.fakes: list[Any] = []
        self.table: Table = {}  # of ``InFlight``, which its successor takes over

    def start_in_flight(self, limits: LiveLimits, *sources: Source) -> Ref:
        if self.actors.whereis(VALIDATORS) is None:
            spec = ChildSpec("processor", Start(ProcessorStandIn), TEMPORARY)
            groups = [supervisor_spec(name, SIMPLE_ONE_FOR_ONE, [spec]) for name in (VALIDATORS, MOVERS)]
            self.groups = self.actors.start(Supervisor, groups)
        return self.actors.start(
            InFlight, limits, sources or [FIRST], 120, random.Random(1), self.table, name=IN_FLIGHT
        )

    def processors(self, supervisor: str = VALIDATORS) -> list[Ref]:
        self.settle()
        ref = self.actors.whereis(supervisor)
        assert ref is not None
        return [child.child for child in which_children(ref, 10) if isinstance(child.child, Ref)]

    def with_fake(self, fake: Any) -> Any:
        self.fakes.append(fake)
        return fake

    def stand_in(self, name: Name | None = None, answer: Callable[[Any], object] = lambda _: SILENT) -> Ref:
        return self.actors.start(StandIn, answer, name=name)

    def settle(self) -> None:
        settle(self.actors, *self.fakes)

    def advance(self, seconds: float) -> None:
        advance(self.clock, seconds, self.actors, *self.fakes)

    def told(self, stand_in: Ref, kind: type[T]) -> list[T]:
        self.settle()
        return [each for each in _actor(stand_in).told if isinstance(each, kind)]

    def calls(self, stand_in: Ref, kind: type[T]) -> list[T]:
        self.settle()
        return [each for each in _actor(stand_in).calls if isinstance(each, kind)]

    def counted(self) -> StatisticsSnapshot:
        self.settle()
        return statistics_of(self.actors).snapshot()

    def answer(self, stand_in: Ref, value: object, call: int = -1) -> None:
        self.settle()
        _actor(stand_in).froms[call].reply(value)
        self.settle()

    def replies(self, stand_in: Ref) -> list[tuple[Any, Any]]:
        self.settle()
        return list(_actor(stand_in).replies)

    def ask(self, destination: Ref | Name, request: object, label: object = None) -> Ref:
        asking = self.stand_in()
        asking.cast(Ask(destination, request, label))
        self.settle()
        return asking

    def reply_to(self, asking: Ref) -> Any:
        ((_label, value),) = self.replies(asking)
        return value

    def crash(self, ref: Ref) -> None:
        ref.cast(object())
        self.settle()
        assert not ref.is_alive()

    def close(self) -> None:
        for fake in self.fakes:
            fake.recover()
        self.actors.stop()


def _actor(ref: Ref) -> StandIn:
    actor = ref.process.actor
    assert isinstance(actor, StandIn), "the stand-in has ended"
    return actor


def delivery(number: int = 1, *, body: str | None = None, receives: int = 1, **fields: object) -> ReceivedMessage:
    if body is None:
        content = {"receipt": receipt_data_of(f"receipt {number}"), "user_id": number, "post_queue": POST, **fields}
        body = json.dumps(content)
    md5 = hashlib.md5(body.encode()).hexdigest()
    return ReceivedMessage(f"m-{number}", f"m-{number}/{receives}", body, md5, {}, receives, 1_750_000_000.0)


def submission(number: int = 1, **fields: Any) -> Submission:
    parsed = parse_submission(delivery(number, **fields), {POST}, SOURCE)
    assert isinstance(parsed, Submission)
    return parsed


def item(transaction_id: str = "t-1", user: int = 1, submission_id: str | None = None) -> LedgerItem:
    return LedgerItem(
        transaction_id=transaction_id,
        submission_id=submission_id or f"m-{user}",
        message_id=f"m-{user}",
        user_id=user,
        receipt_sha256=submission(user).receipt_sha256,
        product_id="coins",
        original_transaction_id=None,
        environment=Environment.PRODUCTION,
        source_queue=SOURCE,
        post_queue=POST,
        claimed_at_seconds=0.0,
    )
