"""Producers that never let the source queue run dry, and the audit of what became of everything they sent."""

from __future__ import annotations

import dataclasses
import sqlite3
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from receipt_actors.domain.messages import Verdict
from receipt_actors.domain.ports import Environment, LedgerItem
from receipt_actors.domain.results import PostedResult
from receipt_actors.sandbox.load import Answered, Kind, OneOfGroup, SampleMessage, make_scenario
from receipt_actors.testing import AuditReport, SentSubmission, audit
from tests.system.processes import PATIENCE_SECONDS
from tests.system.worlds import BUNDLE_ID, DEAD_LETTERS, RESULTS, SOURCE, AwsWorld, EmbeddedWorld, Letter, World

SCENARIO_MESSAGES = 100  #: made at a time; a scenario of so many has every kind in it
BEAT_SECONDS = 0.05  #: between two looks of the producer


@dataclass(slots=True)
class _Sent:
    """A submission; its id is known when an answer or a dead letter tells it, where its producer named none."""

    user_id: int
    submission_id: str | None
    genuine: frozenset[str]


class Traffic:
    """What was sent to a world, and what came of it."""

    def __init__(self, world: World, seed: int, *, without: Collection[Kind] = ()) -> None:
        self.world = world
        self._without = frozenset(without)
        self._seed = seed
        self.messages_sent = 0
        self.answers: list[PostedResult] = []
        self._dead_letters: list[Letter] = []
        self._by_body: dict[bytes, _Sent] = {}
        self._by_user: dict[int, _Sent] = {}
        self._sending = threading.Lock()
        self._beat = threading.Condition()
        self._producer_error: BaseException | None = None

    # --- sending ---

    def send(self, count: int = SCENARIO_MESSAGES) -> None:
        """Send the next messages: genuine ones, replays, duplicates, forgeries, garbage."""
        self._seed += 1
        scenario = make_scenario(count, self._seed, BUNDLE_ID, RESULTS)
        messages = [message for message in scenario.messages if message.kind not in self._without]
        for message in messages:
            sent = _Sent(message.user_id, message.attributes.get("submission_id"), _genuine(message))
            if sent.submission_id is not None and len(sent.submission_id) > 256:  # garbage
                sent.submission_id = None
            self._by_body[_digest(message.body)] = self._by_user[message.user_id] = sent
        with self._sending:  # whoever counts sees both, or neither
            self.world.send(messages)
            self.messages_sent += len(messages)

    @contextmanager
    def flowing(self, at_least: int) -> Iterator[None]:
        """Keep so many messages ready to be received, on a thread of its own."""
        over = threading.Event()

        def produce() -> None:
            try:
                while not over.wait(BEAT_SECONDS):
                    if self.world.visible(SOURCE) < at_least:
                        self.send()
                    with self._beat:
                        self._beat.notify_all()
            except BaseException as error:
                self._producer_error = error
                raise

        producer = threading.Thread(target=produce, name="producer", daemon=True)
        producer.start()
        try:
            yield
        finally:
            over.set()
            producer.join()
        assert self._producer_error is None

    def wait_until(self, condition: Callable[[], object], what: str, seconds: float = PATIENCE_SECONDS) -> None:
        """Wait, with a look at every beat of the producer."""
        deadline = time.monotonic() + seconds
        with self._beat:
            while not condition():
                assert time.monotonic() < deadline, f"{seconds:g} s have passed, but not yet: {what}"
                self._beat.wait(BEAT_SECONDS)

    def finished(self) -> int:
        """Count what is off the source queue."""
        with self._sending:
            return self.messages_sent - self.world.total(SOURCE)

    def rate(self, messages: int) -> float:
        """Wait until so many more are finished, and say how many that were a second."""
        before, began_at = self.finished(), time.monotonic()
        self.wait_until(lambda: self.finished() >= before + messages, f"{messages} more are finished")
        return (self.finished() - before) / (time.monotonic() - began_at)

    # --- judging ---

    def note_answers(self, letters: Iterable[Letter]) -> None:
        """Take answers to account, once each."""
        for letter in letters:
            fields, get = letter.fields, letter.attributes.get
            answer = PostedResult(
                user_id=fields["user_id"],
                transaction_id=fields["transaction_id"],
                status=Verdict(fields["status"]),
                submission_id=get("submission_id"),
                source_message_id=get("source_message_id"),
                reason=get("reason"),
                product_id=get("product_id"),
                environment=get("environment"),
            )
            self.answers.append(answer)
            self._learn(self._by_user.get(answer.user_id), answer.submission_id)

    def note_dead_letters(self, letters: Iterable[Letter]) -> None:
        """Take dead letters to account, once each."""
        for letter in letters:
            self._dead_letters.append(letter)
            self._learn(self._by_body.get(_digest(letter.body)), _id_of(letter))

    def audit(self) -> AuditReport:
        """Read what there is to read, and judge; what is on the source queue still is still to come."""
        self.note_answers(self.world.take(RESULTS))
        self.note_dead_letters(self.world.take(DEAD_LETTERS))
        still_to_come = self.world.take(SOURCE)
        for letter in still_to_come:
            self._learn(self._by_body.get(_digest(letter.body)), _id_of(letter))
        return audit(
            [
                SentSubmission(sent.submission_id or f"of user {sent.user_id}", sent.user_id, sent.genuine)
                for sent in self._by_body.values()
            ],
            self.answers,
            [_id_of(letter) for letter in self._dead_letters],
            claims(self.world),
            still_to_come={_id_of(letter) for letter in still_to_come},
        )

    @staticmethod
    def _learn(sent: _Sent | None, submission_id: str | None) -> None:
        if sent is not None and sent.submission_id is None:
            sent.submission_id = submission_id


def _genuine(message: SampleMessage) -> frozenset[str]:
    match message.expected:
        case Answered("OK", transaction_ids, _):
            return frozenset(transaction_ids)
        case OneOfGroup(transaction_id):
            return frozenset({transaction_id})
    return frozenset()


def _digest(body: str) -> bytes:
    return sha256(body.encode()).digest()


def _id_of(letter: Letter) -> str:
    submission_id = letter.attributes.get("submission_id", "")
    return submission_id if 0 < len(submission_id) <= 256 else letter.message_id


def claims(world: World) -> list[LedgerItem]:
    """Read every claim of the ledger."""
    if isinstance(world, AwsWorld):
        return world.claims()
    assert isinstance(world, EmbeddedWorld)
    return embedded_claims(world.database)


def embedded_claims(database: Path) -> list[LedgerItem]:
    """Read every claim from the file, past the program."""
    names = [field.name for field in dataclasses.fields(LedgerItem)]
    with closing(sqlite3.connect(database)) as connection:
        rows = connection.execute(f"SELECT {', '.join(names)} FROM ledger").fetchall()
    items = [LedgerItem(**dict(zip(names, row, strict=True))) for row in rows]
    return [dataclasses.replace(item, environment=Environment(item.environment)) for item in items]


def bring_back_until_done(world: EmbeddedWorld, is_at_rest: Callable[[], bool], wait_until: Callable[..., None]) -> int:
    """Have everything finished: what was handed back for later is brought back as often as need be.

    Returns how many rounds that took.
    """
    rounds = 0
    while True:
        wait_until(lambda: world.visible(SOURCE) == 0 and is_at_rest(), "all that can be received is finished")
        if world.total(SOURCE) == 0:
            return rounds
        world.bring_back(SOURCE)
        rounds += 1
        assert rounds < 20, f"{world.total(SOURCE)} messages come back again and again"
