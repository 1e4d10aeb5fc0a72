"""What was sent, and what came of it, in the words of ``audit``."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from receipt_actors.domain.messages import SUBMISSION_ID_ATTRIBUTE, PostedResult, is_name, parse_result
from receipt_actors.domain.ports import ReceivedMessage
from receipt_actors.sandbox.load import Answered, OneOfGroup, SampleMessage
from receipt_actors.testing import AuditReport, SentSubmission, audit
from tests.system.worlds import Letter, World


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
    """Hold what came out, and the world's ledger, against what was sent."""
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
