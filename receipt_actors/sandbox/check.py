"""Compare what became of a scenario's messages with what must become of them. Pure.

Deliveries may repeat: the same answer twice, or a message moved twice for the same reason, is fine. Wrong are a message
without an answer, an answer that was not due, two different answers for one submission and transaction, and two OKs for
one transaction.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from receipt_actors.sandbox.load import INVALID, OK, Answered, DeadLettered, Kind, OneOfGroup, SampleMessage, Scenario


@dataclass(frozen=True, slots=True)
class AnswerSeen:
    """An answer that arrived on the post queue."""

    user_id: int
    transaction_id: str
    status: str
    reason: str = ""  #: of the message attribute; empty where there is none


@dataclass(frozen=True, slots=True)
class DeadLetterSeen:
    """A message that arrived on the dead-letter queue."""

    body: str
    reason: str = ""  #: of the message attribute; empty where there is none


@dataclass(frozen=True, slots=True)
class KindReport:
    """What became of the messages of one kind. Repeated answers and moves count once."""

    sent: int
    ok: int
    invalid: Mapping[str, int]  #: by reason
    dead_lettered: Mapping[str, int]  #: by reason
    wrong: tuple[str, ...]  #: one explanation each


@dataclass(frozen=True, slots=True)
class CheckReport:
    """What became of a scenario."""

    kinds: Mapping[Kind, KindReport]  #: those that were sent, in the order of ``Kind``
    strays: tuple[str, ...]  #: answers and dead letters that belong to no message of the scenario

    @property
    def wrong(self) -> tuple[str, ...]:
        """Every explanation of something wrong; empty if all is well."""
        return (*(explanation for report in self.kinds.values() for explanation in report.wrong), *self.strays)


def check(scenario: Scenario, answers: Sequence[AnswerSeen], dead_letters: Sequence[DeadLetterSeen]) -> CheckReport:
    """Hold what was seen against what was expected. Everything must have arrived before."""
    seen = _Seen(answers, dead_letters)
    submissions = {message.body: message for message in scenario.messages}  # what is sent twice is one submission
    sent = Counter(message.kind for message in scenario.messages)
    kinds: dict[Kind, KindReport] = {}
    for kind in Kind:
        messages = [message for message in submissions.values() if message.kind is kind]
        if messages:
            wrong = [
                f"{kind}, user {message.user_id}: {fault}" for message in messages for fault in _faults(message, seen)
            ]
            wrong += [f"{kind}, {fault}" for fault in _group_faults(messages, seen)]
            kinds[kind] = _report(sent[kind], messages, seen, wrong)
    return CheckReport(kinds, tuple(_strays(submissions, seen)))


class _Seen:
    """Answers by user and transaction, and reasons of dead letters by body, with repetitions folded."""

    def __init__(self, answers: Sequence[AnswerSeen], dead_letters: Sequence[DeadLetterSeen]) -> None:
        self.answers: dict[int, dict[str, set[AnswerSeen]]] = {}
        self.moves: dict[str, set[str]] = {}
        for answer in answers:
            self.answers.setdefault(answer.user_id, {}).setdefault(answer.transaction_id, set()).add(answer)
        for dead_letter in dead_letters:
            self.moves.setdefault(dead_letter.body, set()).add(dead_letter.reason)

    def answers_to(self, message: SampleMessage) -> Mapping[str, set[AnswerSeen]]:
        return self.answers.get(message.user_id, {})

    def moves_of(self, message: SampleMessage) -> set[str]:
        return self.moves.get(message.body, set())


def _faults(message: SampleMessage, seen: _Seen) -> Iterator[str]:
    """Explain what is wrong with what became of one submission."""
    expected = message.expected
    answers = dict(seen.answers_to(message))
    moves = seen.moves_of(message)
    if isinstance(expected, DeadLettered):
        if moves != {expected.reason}:
            yield f"dead-lettered as {_listed(moves)}, expected {expected.reason}"
    else:
        if moves:
            yield f"dead-lettered as {_listed(moves)}, expected an answer"
        for transaction_id in _due(expected):
            given = answers.pop(transaction_id, set())
            if not _is_as_expected(given, expected):
                yield f"transaction {transaction_id} was answered {_said(given)}, expected {_wish(expected)}"
    for transaction_id, given in answers.items():
        yield f"transaction {transaction_id} was answered {_said(given)}, expected no answer"


def _due(expected: Answered | OneOfGroup) -> tuple[str, ...]:
    return expected.transaction_ids if isinstance(expected, Answered) else (expected.transaction_id,)


def _is_as_expected(given: set[AnswerSeen], expected: Answered | OneOfGroup) -> bool:
    statuses = {answer.status for answer in given}
    if isinstance(expected, OneOfGroup):
        return statuses in ({OK}, {INVALID})
    reasons = {answer.reason for answer in given if answer.reason}
    return statuses == {expected.status} and (expected.reason is None or reasons <= {expected.reason})


def _group_faults(messages: Sequence[SampleMessage], seen: _Seen) -> Iterator[str]:
    """Explain which shared transactions do not have exactly one OK."""
    groups: dict[str, list[bool]] = {}
    for message in messages:
        if isinstance(message.expected, OneOfGroup):
            transaction_id = message.expected.transaction_id
            given = seen.answers_to(message).get(transaction_id, set())
            groups.setdefault(transaction_id, []).append(any(answer.status == OK for answer in given))
    for transaction_id, wins in groups.items():
        if sum(wins) != 1:
            yield f"transaction {transaction_id}: {sum(wins)} of {len(wins)} users got OK, expected 1"


def _strays(submissions: Mapping[str, SampleMessage], seen: _Seen) -> Iterator[str]:
    users = {message.user_id for message in submissions.values()}
    for user_id in sorted(seen.answers.keys() - users):
        yield f"answer to user {user_id}, who sent nothing"
    for body in sorted(seen.moves.keys() - submissions.keys()):
        yield f"dead letter that nobody sent: {body[:100]!r}"


def _report(sent: int, messages: Sequence[SampleMessage], seen: _Seen, wrong: Sequence[str]) -> KindReport:
    answers = {
        (answer.user_id, transaction_id, answer.status): answer.reason
        for message in messages
        for transaction_id, given in seen.answers_to(message).items()
        for answer in given
    }
    return KindReport(
        sent=sent,
        ok=sum(status == OK for _, _, status in answers),
        invalid=Counter(reason for (_, _, status), reason in answers.items() if status == INVALID),
        dead_lettered=Counter(reason for message in messages for reason in seen.moves_of(message)),
        wrong=tuple(wrong),
    )


def _said(given: set[AnswerSeen]) -> str:
    return _listed({f"{answer.status} ({answer.reason})" if answer.reason else answer.status for answer in given})


def _wish(expected: Answered | OneOfGroup) -> str:
    if isinstance(expected, OneOfGroup):
        return f"either {OK} or {INVALID}"
    return expected.status if expected.reason is None else f"{expected.status} ({expected.reason})"


def _listed(words: set[str]) -> str:
    return " and ".join(sorted(word or "(no reason)" for word in words)) or "nothing"
