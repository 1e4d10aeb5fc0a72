"""What was sent, what came of it in the words of ``audit``, and producers that never let the queue run dry."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager

from receipt_actors.domain.messages import SUBMISSION_ID_ATTRIBUTE, PostedResult, is_name, parse_result
from receipt_actors.domain.ports import ReceivedMessage
from receipt_actors.sandbox.load import Answered, Kind, OneOfGroup, SampleMessage, make_scenario
from receipt_actors.testing import AuditReport, SentSubmission, audit
from tests.patience import PATIENCE_SECONDS
from tests.system.worlds import BUNDLE_ID, DEAD_LETTERS, RESULTS, SOURCE, EmbeddedWorld, Letter, World


def submissions_of(messages: Iterable[SampleMessage], message_ids: Iterable[str]) -> list[SentSubmission]:
    """Say what was sent, for ``audit``: a submission's id is its attribute where usable, else the message id."""
    return [
        SentSubmission(
            named if is_name(named := message.attributes.get(SUBMISSION_ID_ATTRIBUTE)) else message_id,
            message.user_id,
            _genuine(message),
        )
        for message, message_id in zip(messages, message_ids, strict=True)
    ]


def _genuine(message: SampleMessage) -> frozenset[str]:
    match message.expected:
        case Answered("OK", transaction_ids):
            return frozenset(transaction_ids)
        case OneOfGroup(transaction_id):
            return frozenset({transaction_id})
    return frozenset()


def judge(
    submissions: Iterable[SentSubmission],
    answers: Iterable[PostedResult],
    dead_letters: Iterable[Letter],
    world: World,
    still_to_come: Collection[Letter] = (),
) -> AuditReport:
    return audit(
        submissions,
        answers,
        map(_submission_id, dead_letters),
        world.ledger_items(),
        still_to_come=frozenset(map(_submission_id, still_to_come)),
    )


def _submission_id(letter: Letter) -> str:
    """A letter's submission, as its producer named it where that can be used; the queue itself moves what it moves."""
    named = letter.attributes.get(SUBMISSION_ID_ATTRIBUTE)
    return named if is_name(named) else letter.message_id


def posted(letter: Letter) -> PostedResult:
    result = parse_result(
        ReceivedMessage(
            message_id=letter.message_id,
            receipt_handle="",
            body=letter.body,
            body_md5="",
            attributes=letter.attributes,
            approximate_receive_count=1,
            sent_at_seconds=0.0,
        )
    )
    assert result is not None, f"no answer: {letter.body!r}"
    return result


SCENARIO_MESSAGES = 100  #: made at a time; a scenario of so many has every kind in it
BEAT_SECONDS = 0.05  #: between two looks of the producer


class Traffic:
    def __init__(self, world: World, seed: int, *, without: Collection[Kind] = ()) -> None:
        self.world = world
        self._without = frozenset(without)
        self._seed = seed
        self.messages_sent = 0
        self.answers: list[PostedResult] = []
        self._dead_letters: list[Letter] = []
        self._submissions: list[SentSubmission] = []
        self._sending = threading.Lock()
        self._beat = threading.Condition()
        self._producer_error: BaseException | None = None

    # --- sending ---

    def send(self, count: int = SCENARIO_MESSAGES) -> None:
        self._seed += 1
        scenario = make_scenario(count, self._seed, BUNDLE_ID, RESULTS)
        messages = [message for message in scenario.messages if message.kind not in self._without]
        with self._sending:  # whoever counts sees both, or neither
            self._submissions += submissions_of(messages, self.world.send(messages))
            self.messages_sent += len(messages)

    @contextmanager
    def flowing(self, at_least: int) -> Iterator[None]:
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
        with self._sending:
            return self.messages_sent - self.world.total(SOURCE)

    def rate(self, messages: int) -> float:
        before, began_at = self.finished(), time.monotonic()
        self.wait_until(lambda: self.finished() >= before + messages, f"{messages} more are finished")
        return (self.finished() - before) / (time.monotonic() - began_at)

    # --- judging ---

    def note_answers(self, letters: Iterable[Letter]) -> None:
        self.answers += map(posted, letters)

    def note_dead_letters(self, letters: Iterable[Letter]) -> None:
        self._dead_letters += letters

    def audit(self) -> AuditReport:
        """Read what there is to read, and judge; what is on the source queue still is still to come."""
        self.note_answers(self.world.take(RESULTS))
        self.note_dead_letters(self.world.take(DEAD_LETTERS))
        still_to_come = self.world.take(SOURCE)
        return judge(self._submissions, self.answers, self._dead_letters, self.world, still_to_come)


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
