"""Hostile messages: whatever is on the source queue, it is moved for its reason, and nobody else notices."""

from __future__ import annotations

import hashlib
import json
import random
import re
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from receipt_actors import ReceiptSystem, Settings
from receipt_actors.domain.messages import Submission, Unanswerable, dead_letter_message, parse_submission
from receipt_actors.domain.ports import MAX_BATCH_BYTES, OutgoingMessage, ReceivedMessage
from receipt_actors.domain.reasons import Reason
from receipt_actors.domain.sending import take_batch
from receipt_actors.sandbox.app_store import SimulatedAppStore
from receipt_actors.sandbox.load import SampleMessage
from receipt_actors.sandbox.receipts import Purchase, SampleReceipt, forge
from receipt_actors.sqlite import EmbeddedQueues
from receipt_actors.testing import FakeServices, HostileMessage, PortCall, hostile_messages, intercept
from tests.system.processes import Program
from tests.system.worlds import BUNDLE_ID, DEAD_LETTERS, RESULTS, SOURCE, EmbeddedWorld, genuine_messages

SEED = 20_261
RECEIPT = forge(SampleReceipt(BUNDLE_ID, (Purchase("4242"),)))
#: Of what is well-formed: by verifyReceipt, and of what passes for a signed transaction.
APPLES_REFUSALS = {
    Reason.RECEIPT_MALFORMED,
    Reason.NOT_AUTHENTIC,
    *(reason for reason in Reason if reason.startswith("jws_")),
}
HONEST_SHARE = 50  #: one in so many
CHUNK = 1500  #: messages sent at a time
MOST_GROWTH_KIB = 48 * 1024  #: of a process, after the first fifth of the messages: a twentieth of their bytes
MOST_LINE_CHARACTERS = 600

Figure = Callable[[str], None]


def delivery(message: HostileMessage) -> ReceivedMessage:
    return ReceivedMessage("m-1", "handle", message.body, md5(message.body), message.attributes)


def md5(body: str) -> str:
    return hashlib.md5(body.encode("utf-8", "surrogatepass"), usedforsecurity=False).hexdigest()


def parsed(message: HostileMessage) -> Submission | Unanswerable:
    return parse_submission(delivery(message), {RESULTS}, SOURCE)


@pytest.mark.parametrize("any_queue", [True, False])
def test_every_malice_is_refused_for_its_reason(is_full: bool, figure: Figure, any_queue: bool) -> None:
    count = 100_000 if is_full else 400
    found: Counter[Reason | None] = Counter()
    for message in hostile_messages(count, SEED, receipt=RECEIPT, large=24 if is_full else 2, any_queue=any_queue):
        outcome = parsed(message)
        reason = outcome.reason if isinstance(outcome, Unanswerable) else None
        found[reason] += 1
        assert message.reason in (None, reason), (message.family, ascii(message.body[:500]), reason)
        if isinstance(outcome, Unanswerable):
            letter = dead_letter_message(delivery(message), outcome, DEAD_LETTERS)
            assert letter.size_bytes <= MAX_BATCH_BYTES or outcome.reason is Reason.TOO_LARGE
            assert letter.attributes.get("reason", reason) == reason
            assert RECEIPT[:40] not in outcome.detail
        else:
            assert outcome.post_queue == RESULTS
            assert -(2**63) <= outcome.user_id < 2**63
    figure(f"{count} bodies, {len(found)} outcomes; {found[None]} were well-formed, for Apple to refuse")


@pytest.mark.short
def test_the_whole_program_moves_every_malice_and_answers_the_honest(
    embedded: EmbeddedWorld, is_full: bool, figure: Figure, store: SimulatedAppStore
) -> None:
    count = 100_000 if is_full else 400
    hostile = list(hostile_messages(count, SEED + 1, receipt=RECEIPT, large=36 if is_full else 2))
    honest = genuine_messages(count // HONEST_SHARE, SEED)
    # Nobody gives up because a busy machine takes its time.
    patience = {"app_store_read_timeout_seconds": 60}
    program = embedded.start(store, max_receive_count=3, **patience)
    sizes_kib = feed(program, embedded, mixed(hostile, honest))
    program.stop()
    letters = contents(embedded, DEAD_LETTERS)
    answers = contents(embedded, RESULTS)
    assert embedded.total(SOURCE) == 0
    check_letters(hostile, letters)
    given = Counter((fields["user_id"], fields["status"]) for fields in (json.loads(body) for body, _ in answers))
    assert given == Counter((message.user_id, "OK") for message in honest)
    lines = check_log(program, len(hostile) + len(honest))
    fifths = [sizes_kib[len(sizes_kib) * fifth // 5 - 1] for fifth in range(1, 6)]
    assert fifths[-1] - fifths[0] < MOST_GROWTH_KIB, sizes_kib
    figure(
        f"{len(hostile)} hostile messages moved and {len(honest)} honest ones OK, none twice; "
        f"{lines / (len(hostile) + len(honest)):.3f} lines of log a message; "
        f"resident memory after each fifth: {', '.join(f'{each // 1024} MiB' for each in fifths)}"
    )


def mixed(hostile: list[HostileMessage], honest: list[SampleMessage]) -> list[OutgoingMessage]:
    """All of them, shuffled; ``case`` tells the hostile ones apart, of which many have the same body."""
    messages = [OutgoingMessage(each.body, {"case": str(n), **each.attributes}) for n, each in enumerate(hostile)]
    messages += [OutgoingMessage(each.body, each.attributes) for each in honest]
    random.Random(SEED).shuffle(messages)
    return messages


def feed(program: Program, world: EmbeddedWorld, messages: list[OutgoingMessage]) -> list[int]:
    """Send chunk by chunk, as fast as they are taken; return the program's resident memory after each, in KiB."""
    sizes_kib: list[int] = []
    with closing(EmbeddedQueues(world.database)) as queues:
        for start in range(0, len(messages), CHUNK):
            waiting = deque(messages[start : start + CHUNK])
            while batch := take_batch(waiting, lambda message: message.size_bytes):
                assert queues.send(SOURCE, batch) == [None] * len(batch)
            program.wait_until(lambda: world.visible(SOURCE) < CHUNK // 2, "most messages are taken")
            sizes_kib.append(resident_kib(program))
        program.wait_until(lambda: world.total(SOURCE) == 0, "all messages are done with")
    return [*sizes_kib, resident_kib(program)]


def resident_kib(program: Program) -> int:
    status = Path(f"/proc/{program.pid}/status").read_text(encoding="ascii")
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS:"))


def contents(world: EmbeddedWorld, queue: str) -> list[tuple[str, Mapping[str, str]]]:
    select = (
        "SELECT body, attributes FROM messages JOIN contents USING (row_id) JOIN queues USING (queue_id) WHERE name = ?"
    )
    return [(body, json.loads(attributes)) for body, attributes in world.sql(select, queue)]


def check_letters(hostile: list[HostileMessage], letters: Iterable[tuple[str, Mapping[str, str]]]) -> None:
    open_cases = dict(enumerate(hostile))
    for body, attributes in letters:
        message = open_cases.pop(int(attributes["case"]))
        outcome = parsed(message)
        expected = {outcome.reason} if isinstance(outcome, Unanswerable) else APPLES_REFUSALS
        assert body == message.body
        assert attributes["reason"] in expected, (message.family, ascii(message.body[:200]), dict(attributes))
        given = message.attributes.get("submission_id", "")
        usable = given if given and message.reason is not Reason.BAD_SUBMISSION_ID else None
        assert attributes["submission_id"] == (usable or attributes["source_message_id"])
    assert not open_cases


def check_log(program: Program, count: int) -> int:
    log = program.stdout + program.stderr
    lines = log.splitlines()
    for bad in ("Traceback", "crash", "CRITICAL", "ERROR", RECEIPT[:40], RECEIPT[-40:]):
        assert bad not in log
    totals = re.search(r"stopped: (\d+) deliveries received, .* (\d+) handed back", log)
    assert totals is not None
    assert [int(total) for total in totals.groups()] == [count, 0]
    assert len(lines) <= count + 100
    assert max(map(len, lines)) < MOST_LINE_CHARACTERS
    assert all(re.match(r"\d{4}-\d\d-\d\d ", line) for line in lines), "a message has forged a line of the log"
    return len(lines)


def test_what_no_queue_should_deliver_harms_nobody_either(is_full: bool, figure: Figure) -> None:
    count = 10_000 if is_full else 100
    hostile = list(hostile_messages(count, SEED + 2, receipt=RECEIPT, any_queue=True))
    settings = Settings(backend="aws", bundle_ids=(BUNDLE_ID,), post_queues=(RESULTS,), max_receive_count=2)
    services = FakeServices(settings)
    backend = intercept(services.backend, Disguise(hostile))
    honest = services.app_store.sell("1000")
    with ReceiptSystem.start(settings, backend=backend, clock=services.clock) as system:
        for number in range(count):
            services.queues.put(SOURCE, str(number))
        services.submit(honest, user_id=7)
        for _ in range(5):
            services.advance(3600, system.actors)
        statistics = system.statistics()
    assert services.results() == [{"user_id": 7, "transaction_id": "1000", "status": "OK"}]
    assert services.queues.messages(SOURCE) == []
    letters = services.queues.messages(services.dead_letter_queue)
    assert len(letters) == count
    assert statistics.count("handed_back") > 0
    assert ("handed_back", Reason.CRASHED) not in statistics.fates
    figure(
        f"{count} messages: {statistics.count('moved')} moved, {statistics.count('handed_back')} hand-backs, no crash"
    )


class Disguise:
    """Delivers a hostile message in the place of each body that is its number."""

    def __init__(self, hostile: list[HostileMessage]) -> None:
        self._hostile = hostile

    def __call__(self, call: PortCall) -> Any:
        answer = call.carry_out()
        return [self._disguised(message) for message in answer] if call.operation == "receive" else answer

    def _disguised(self, message: ReceivedMessage) -> ReceivedMessage:
        if not message.body.isdigit():
            return message
        hostile = self._hostile[int(message.body)]
        return replace(message, body=hostile.body, body_md5=md5(hostile.body), attributes=hostile.attributes)
