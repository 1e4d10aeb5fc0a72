"""``audit``: hold what a run left behind against what was sent, and give the verdict on the promises. Pure.

It knows nothing of how the messages came through. The promises are the manual's ("What we promise"): one submission
gets OK for a genuine transaction, and the ledger names it as the owner; a repeated answer is the same one;
each submission was answered, or lies in the dead-letter queue, or is still to come.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass

from receipt_actors.domain.messages import PostedResult, Verdict
from receipt_actors.domain.ports import LedgerItem
from receipt_actors.domain.reasons import Reason


@dataclass(frozen=True, slots=True)
class SentSubmission:
    """A submission as its producer knows it; sent once, or several times under the same ``submission_id``.

    Through one source, or for one post queue: where both differ it is another submission (the manual's "exactly-once").
    """

    submission_id: str  #: the message attribute, or else the ``MessageId`` that the queue answered
    user_id: int
    genuine: frozenset[str] = frozenset()  #: ids of the transactions that may get OK; empty for all that is forged


@dataclass(frozen=True, slots=True)
class AuditReport:
    """What ``audit`` found: ``faults`` is empty where every promise was kept."""

    faults: tuple[str, ...]  #: one explanation each
    submissions: int
    answered: int  #: submissions
    dead_lettered: int  #: submissions without an answer
    transactions_ok: int
    answers: int  #: repetitions included, without refunds and their reversals
    repeated_answers: int

    def __str__(self) -> str:
        verdict = f"{len(self.faults)} FAULTS" if self.faults else "every promise kept"
        return (
            f"{self.submissions} submissions: {self.answered} answered ({self.answers} answers, "
            f"{self.repeated_answers} of them repeated), {self.dead_lettered} dead-lettered; "
            f"{self.transactions_ok} transactions OK; {verdict}"
        )


def audit(
    sent: Iterable[SentSubmission],
    answers: Iterable[PostedResult],
    dead_letters: Iterable[str],
    ledger: Iterable[LedgerItem],
    *,
    still_to_come: Collection[str] = frozenset(),
) -> AuditReport:
    """Judge a run that is over.

    Args:
        sent: every submission, of any producer, however often it was sent.
        answers: everything on the post queues, repetitions included.
        dead_letters: the submission id of everything on the dead-letter queue.
        ledger: every claim.
        still_to_come: submission ids of what is on the source queue still; nothing, where it was drained.
    """
    submissions = {each.submission_id: each for each in sent}
    claims = {item.transaction_id: item for item in ledger}
    seen = _Answers(_without_decisions(answers, claims))
    moved = frozenset(dead_letters)
    answered = seen.by_submission.keys() & submissions.keys()
    accounted = answered | moved | frozenset(still_to_come)
    faults = [
        *_faults_of_answers(submissions, seen),
        *_faults_of_transactions(submissions, seen, accounted - moved - frozenset(still_to_come)),
        *_faults_of_claims(seen, claims, moved | frozenset(still_to_come)),
        *(f"submission {each}: neither answered nor dead-lettered" for each in sorted(submissions.keys() - accounted)),
        *(f"dead letter of submission {each}, which nobody sent" for each in sorted(moved - submissions.keys())),
    ]
    return AuditReport(
        faults=tuple(faults),
        submissions=len(submissions),
        answered=len(answered),
        dead_lettered=len((moved & submissions.keys()) - answered),
        transactions_ok=len(seen.winners),
        answers=seen.count,
        repeated_answers=seen.count - sum(len(given) for given in seen.by_submission.values()),
    )


def _without_decisions(answers: Iterable[PostedResult], claims: Mapping[str, LedgerItem]) -> Iterator[PostedResult]:
    """Leave out refunds, and their reversals, that the owner of a claim was told of.

    ``INVALID``, reason ``refunded``, may take an OK back, before or after it, where the ledger has the claim marked, or
    where ``OK``, reason ``refund_reversed``, says that it had.
    """
    all_answers = list(answers)
    reversed_ = {answer.transaction_id for answer in all_answers if _is(answer, Verdict.OK, Reason.REFUND_REVERSED)}
    for answer in all_answers:
        claim = claims.get(answer.transaction_id)
        is_owner = claim is not None and (answer.submission_id, answer.user_id) == (claim.submission_id, claim.user_id)
        was_refunded = (
            claim is not None and claim.refunded_at_seconds is not None
        ) or answer.transaction_id in reversed_
        is_refund = _is(answer, Verdict.INVALID, Reason.REFUNDED) and was_refunded
        if not (is_owner and (is_refund or _is(answer, Verdict.OK, Reason.REFUND_REVERSED))):
            yield answer


def _is(answer: PostedResult, status: Verdict, reason: Reason) -> bool:
    return answer.status is status and answer.reason == reason


class _Answers:
    """The answers, repetitions folded: by submission and transaction, and who got OK for which transaction."""

    def __init__(self, answers: Iterable[PostedResult]) -> None:
        self.count = 0
        self.without_id = 0
        self.by_submission: dict[str, dict[str, set[tuple[int, Verdict]]]] = {}
        self.winners: dict[str, set[str]] = {}
        for answer in answers:
            self.count += 1
            if answer.submission_id is None:
                self.without_id += 1
                continue
            given = self.by_submission.setdefault(answer.submission_id, {})
            given.setdefault(answer.transaction_id, set()).add((answer.user_id, answer.status))
            if answer.status is Verdict.OK:
                self.winners.setdefault(answer.transaction_id, set()).add(answer.submission_id)


def _faults_of_answers(submissions: Mapping[str, SentSubmission], seen: _Answers) -> Iterator[str]:
    if seen.without_id:
        yield f"{seen.without_id} answers carry no submission id"
    for submission_id, by_transaction in seen.by_submission.items():
        submission = submissions.get(submission_id)
        if submission is None:
            yield f"answer to submission {submission_id}, which nobody sent"
            continue
        for transaction_id, given in by_transaction.items():
            if len(given) > 1:
                told = " and ".join(sorted(f"{status} for user {user_id}" for user_id, status in given))
                yield f"submission {submission_id}: transaction {transaction_id} was answered {told}"
            for user_id, status in given:
                if user_id != submission.user_id:
                    yield f"submission {submission_id} of user {submission.user_id}: answered for user {user_id}"
                if status is Verdict.OK and transaction_id not in submission.genuine:
                    yield f"submission {submission_id}: OK for transaction {transaction_id}, which it has no right to"


def _faults_of_transactions(
    submissions: Mapping[str, SentSubmission], seen: _Answers, answered: Collection[str]
) -> Iterator[str]:
    rightful: dict[str, list[str]] = {}
    for submission in submissions.values():
        for transaction_id in submission.genuine:
            rightful.setdefault(transaction_id, []).append(submission.submission_id)
    for transaction_id, candidates in rightful.items():
        winners = seen.winners.get(transaction_id, set())
        if len(winners) > 1:
            yield f"transaction {transaction_id}: OK for {len(winners)} submissions, {', '.join(sorted(winners))}"
        elif not winners and all(each in answered for each in candidates):
            yield f"transaction {transaction_id}: genuine, and nobody of {', '.join(candidates)} got OK"


def _faults_of_claims(seen: _Answers, claims: Mapping[str, LedgerItem], unanswered: Collection[str]) -> Iterator[str]:
    for transaction_id, winners in seen.winners.items():
        owner = claims[transaction_id].submission_id if transaction_id in claims else None
        if winners != {owner}:
            yield f"transaction {transaction_id}: OK for {', '.join(sorted(winners))}, the ledger's owner is {owner}"
    for transaction_id, item in claims.items():
        if transaction_id not in seen.winners and item.submission_id not in unanswered:
            yield f"transaction {transaction_id}: claimed by {item.submission_id}, which never got its OK"
