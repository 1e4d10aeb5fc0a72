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
    user_id: int
    transaction_id: str
    status: str
    reason: str = ""  #: of the message attribute; empty where there is none


@dataclass(frozen=True, slots=True)
class DeadLetterSeen:
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
    kinds: Mapping[Kind, KindReport]  #: those that were sent, in the order of ``Kind``
    strays: tuple[str, ...]  #: answers and dead letters that belong to no message of the scenario

    @property
    def wrong(self) -> tuple[str, ...]:
        return (*(explanation for report in self.kinds.values() for explanation in report.wrong), *self.strays)


#: A submission, its answers by transaction, and the reasons for which it was moved.
_Outcome = tuple[SampleMessage, Mapping[str, set[AnswerSeen]], set[str]]


def check(scenario: Scenario, answers: Sequence[AnswerSeen], dead_letters: Sequence[DeadLetterSeen]) -> CheckReport:
    """Hold what was seen against what was expected. Everything must have arrived before."""
    answers_of: dict[int, dict[str, set[AnswerSeen]]] = {}  # by user and transaction, repetitions folded
    moves_of: dict[str, set[str]] = {}  # reasons, by body
    for answer in answers:
        answers_of.setdefault(answer.user_id, {}).setdefault(answer.transaction_id, set()).add(answer)
    for dead_letter in dead_letters:
        moves_of.setdefault(dead_letter.body, set()).add(dead_letter.reason)
    submissions = {message.body: message for message in scenario.messages}  # what is sent twice is one submission
    sent = Counter(message.kind for message in scenario.messages)
    kinds: dict[Kind, KindReport] = {}
    for kind in filter(sent.__getitem__, Kind):
        outcomes = [
            (message, answers_of.get(message.user_id, {}), moves_of.get(message.body, set()))
            for message in submissions.values()
            if message.kind is kind
        ]
        given = {(each.user_id, each.transaction_id, each.status): each.reason for each in _flat(outcomes)}
        kinds[kind] = KindReport(
            sent=sent[kind],
            ok=sum(status == OK for _, _, status in given),
            invalid=Counter(reason for (_, _, status), reason in given.items() if status == INVALID),
            dead_lettered=Counter(reason for _, _, moves in outcomes for reason in moves),
            wrong=tuple(f"{kind}, {fault}" for fault in (*_faults(outcomes), *_faults_of_groups(outcomes))),
        )
    users = {message.user_id for message in submissions.values()}
    strays = [f"answer to user {user_id}, who sent nothing" for user_id in sorted(answers_of.keys() - users)]
    unknown = sorted(moves_of.keys() - submissions.keys())
    return CheckReport(kinds, (*strays, *(f"dead letter that nobody sent: {body[:100]!r}" for body in unknown)))


def _flat(outcomes: Sequence[_Outcome]) -> Iterator[AnswerSeen]:
    return (answer for _, answers, _ in outcomes for given in answers.values() for answer in given)


def _faults(outcomes: Sequence[_Outcome]) -> Iterator[str]:
    for message, answers, moves in outcomes:
        who, expected, rest = f"user {message.user_id}: ", message.expected, dict(answers)
        if isinstance(expected, DeadLettered):
            if moves != {expected.reason}:
                yield f"{who}dead-lettered as {_listed(moves)}, expected {expected.reason}"
        else:
            if moves:
                yield f"{who}dead-lettered as {_listed(moves)}, expected an answer"
            due = expected.transaction_ids if isinstance(expected, Answered) else (expected.transaction_id,)
            for transaction_id in due:
                given = rest.pop(transaction_id, set())
                if not _is_as_expected(given, expected):
                    wish = _wish(expected)
                    yield f"{who}transaction {transaction_id} was answered {_said(given)}, expected {wish}"
        for transaction_id, given in rest.items():
            yield f"{who}transaction {transaction_id} was answered {_said(given)}, expected no answer"


def _is_as_expected(given: set[AnswerSeen], expected: Answered | OneOfGroup) -> bool:
    statuses = {answer.status for answer in given}
    if isinstance(expected, OneOfGroup):
        return statuses in ({OK}, {INVALID})
    reasons = {answer.reason for answer in given if answer.reason}
    return statuses == {expected.status} and (expected.reason is None or reasons <= {expected.reason})


def _faults_of_groups(outcomes: Sequence[_Outcome]) -> Iterator[str]:
    groups: dict[str, list[bool]] = {}
    for message, answers, _ in outcomes:
        if isinstance(message.expected, OneOfGroup):
            transaction_id = message.expected.transaction_id
            has_won = any(answer.status == OK for answer in answers.get(transaction_id, ()))
            groups.setdefault(transaction_id, []).append(has_won)
    for transaction_id, wins in groups.items():
        if sum(wins) != 1:
            yield f"transaction {transaction_id}: {sum(wins)} of {len(wins)} users got OK, expected 1"


def _said(given: set[AnswerSeen]) -> str:
    return _listed({f"{answer.status} ({answer.reason})" if answer.reason else answer.status for answer in given})


def _wish(expected: Answered | OneOfGroup) -> str:
    if isinstance(expected, OneOfGroup):
        return f"either {OK} or {INVALID}"
    return expected.status if expected.reason is None else f"{expected.status} ({expected.reason})"


def _listed(words: set[str]) -> str:
    return " and ".join(sorted(word or "(no reason)" for word in words)) or "nothing"
