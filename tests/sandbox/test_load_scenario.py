"""The demo's scenario and its checker: what is sent, what must come of it, and that every deviation is found."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import pytest
from appstoreserverlibrary.receipt_utility import ReceiptUtility
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from receipt_actors.domain.messages import Submission, Unanswerable, parse_submission
from receipt_actors.domain.ports import Environment, ReceivedMessage
from receipt_actors.domain.reasons import Reason
from receipt_actors.domain.receipts import Genuine
from receipt_actors.sandbox.answers import Answer
from receipt_actors.sandbox.apple_ca import Authority, Flaw
from receipt_actors.sandbox.check import AnswerSeen, DeadLetterSeen, check
from receipt_actors.sandbox.load import (
    INVALID,
    MIXES,
    OK,
    Answered,
    Asked,
    DeadLettered,
    Kind,
    OneOfGroup,
    Receipts,
    SampleMessage,
    Scenario,
    make_scenario,
)
from receipt_actors.sandbox.receipts import Fault
from receipt_actors.sandbox.signed_transactions import HOSTILE, REASONS
from receipt_actors.sandbox.store import Store
from receipt_actors.stores.apple.ports import SignatureRefused, SignedKind
from receipt_actors.stores.apple.signatures.apple_library import AppleSignedData
from receipt_actors.stores.apple.signed_transactions import interpret

# A busy machine may take its time for an example.
patient = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

BUNDLE_ID = "com.example.game"
POST_QUEUE = "ResultsSQS"
KEY = b"key of the tests"
NOW_MS = 1_800_000_000_000
SCENARIO = make_scenario(300, 7, BUNDLE_ID, POST_QUEUE, KEY)


def ideal(scenario: Scenario) -> tuple[list[AnswerSeen], list[DeadLetterSeen]]:
    answers: list[AnswerSeen] = []
    dead_letters: list[DeadLetterSeen] = []
    taken: set[str] = set()
    for message in {message.body: message for message in scenario.messages}.values():
        match message.expected:
            case Answered(status, transaction_ids, reason):
                answers += [AnswerSeen(message.user_id, each, status, reason or "claimed") for each in transaction_ids]
            case OneOfGroup(transaction_id):
                answer = AnswerSeen(message.user_id, transaction_id, OK, "claimed")
                if transaction_id in taken:
                    answer = replace(answer, status=INVALID, reason="claimed_by_another_user")
                taken.add(transaction_id)
                answers.append(answer)
            case DeadLettered(reason):
                dead_letters.append(DeadLetterSeen(message.body, reason))
    return answers, dead_letters


ANSWERS, DEAD_LETTERS = ideal(SCENARIO)


def of_kind(kind: Kind) -> list[SampleMessage]:
    return [message for message in SCENARIO.messages if message.kind is kind]


def faults(answers: Sequence[AnswerSeen], dead_letters: Sequence[DeadLetterSeen]) -> tuple[str, ...]:
    return check(SCENARIO, answers, dead_letters).wrong


# What is sent


@patient
@given(st.integers(min_value=0, max_value=400), st.integers())
def test_a_scenario_has_exactly_as_many_messages_as_asked_for(count: int, seed: int) -> None:
    assert len(make_scenario(count, seed, BUNDLE_ID, POST_QUEUE, KEY).messages) == count


def test_a_seed_decides_everything() -> None:
    assert make_scenario(300, 7, BUNDLE_ID, POST_QUEUE, KEY) == SCENARIO
    other = make_scenario(300, 8, BUNDLE_ID, POST_QUEUE, KEY)
    for name in ("user_id", "body"):
        ours, theirs = ({getattr(message, name) for message in each.messages} for each in (SCENARIO, other))
        assert not ours & theirs
    ours, theirs = ({answer.transaction_id for answer in ideal(each)[0]} for each in (SCENARIO, other))
    assert not ours & theirs


def kinds_in(receipts: Receipts) -> set[Kind]:
    shares, rest = MIXES[receipts]
    return {rest, *shares}


@pytest.mark.parametrize("receipts", Receipts)
def test_every_kind_of_a_mix_is_in_a_hundred_messages(receipts: Receipts) -> None:
    scenario = make_scenario(100, 1, BUNDLE_ID, POST_QUEUE, KEY, receipts=receipts)
    kinds = Counter(message.kind for message in scenario.messages)
    assert set(kinds) == kinds_in(receipts)
    assert kinds.most_common(1)[0][0] is MIXES[receipts][1]


def test_submissions_are_told_apart_by_their_users() -> None:
    bodies = Counter(message.body for message in SCENARIO.messages)
    assert len({message.user_id for message in SCENARIO.messages}) == len(bodies)
    for message in SCENARIO.messages:
        assert bodies[message.body] == (2 if message.kind is Kind.DUPLICATE else 1)
        assert message.kind is not Kind.DUPLICATE or message.attributes["submission_id"]


def test_attributes_can_be_sent() -> None:
    named = [message for message in SCENARIO.messages if message.attributes]
    assert all(value for message in named for value in message.attributes.values())
    assert 0.3 < len(named) / 300 < 0.7


# Whether the expectations are right


def test_the_store_says_of_each_kind_what_is_expected() -> None:
    statuses = {
        Reason.SANDBOX_REFUSED: {21007},
        Reason.NOT_AUTHENTIC: {21003},
        Reason.RECEIPT_MALFORMED: {21002},
        Reason.NO_TRANSACTION: {0},
        Reason.EXPIRED: {0, 21006},
    }
    store = Store(Authority(KEY).sign, key=KEY)
    seen: dict[Kind, set[object]] = {kind: set() for kind in Kind}
    for message in SCENARIO.messages:
        if message.kind is not Kind.GARBAGE:
            receipt_data = json.loads(message.body)["receipt"]
            answer = finally_answered(lambda data=receipt_data: store.verify_receipt(data, Environment.PRODUCTION))  # type: ignore[misc]
            reason = message.expected.reason if not isinstance(message.expected, OneOfGroup) else None
            assert answer["status"] in statuses.get(reason, {0}) if reason else {0}
            seen[message.kind].add(answer["status"])
    assert seen[Kind.EXPIRED] == {0, 21006}  # both ways in which a subscription can have ended


def test_apples_library_says_of_each_signature_what_is_expected() -> None:
    signed_data = AppleSignedData([Authority(KEY).root])
    refused: list[Reason] = []
    verified: set[Kind] = set()
    for message in make_scenario(400, 7, BUNDLE_ID, POST_QUEUE, KEY, receipts=Receipts.SIGNED).messages:
        if message.kind is Kind.GARBAGE:
            continue
        outcome = signed_data.verify(SignedKind.TRANSACTION, json.loads(message.body)["receipt"])
        if isinstance(outcome, SignatureRefused):
            assert message.expected == DeadLettered(outcome.reason)
            assert message.kind is Kind.HOSTILE_SIGNATURE
            refused.append(outcome.reason)
            continue
        verified.add(message.kind)
        (transaction,) = interpret_transaction(outcome).transactions
        match message.expected:
            case Answered(_, transaction_ids):
                assert transaction_ids == (transaction.transaction_id,)
            case OneOfGroup(transaction_id):
                assert transaction_id == transaction.transaction_id
            case _:
                pytest.fail(f"{message.kind} was verified")
    assert verified == kinds_in(Receipts.SIGNED) - {Kind.HOSTILE_SIGNATURE, Kind.GARBAGE}
    assert set(refused) == {reason for reason, _ in HOSTILE}
    assert set(REASONS) == set(Flaw)


def interpret_transaction(payload: Mapping[str, object]) -> Genuine:
    genuine = interpret(payload)
    assert isinstance(genuine, Genuine)
    return genuine


def finally_answered(ask: Callable[[], Answer | Fault]) -> Answer:
    while isinstance(answer := ask(), Fault):
        pass
    return answer


def test_the_server_api_says_of_each_receipt_what_is_expected() -> None:
    scenario = make_scenario(400, 7, BUNDLE_ID, POST_QUEUE, KEY, asked=Asked.SERVER_API)
    store, utility = Store(Authority(KEY).sign, key=KEY), ReceiptUtility()
    for receipt in scenario.sold:
        store.record(receipt)

    def transaction_id_of(receipt_data: str) -> str | None:
        for extract in (
            utility.extract_transaction_id_from_app_receipt,
            utility.extract_transaction_id_from_transaction_receipt,
        ):
            try:
                return extract(receipt_data)
            except ValueError:
                continue
        return None

    for message in scenario.messages:
        if message.kind is Kind.GARBAGE:
            continue
        transaction_id = transaction_id_of(json.loads(message.body)["receipt"])
        if message.expected == DeadLettered(Reason.NO_TRANSACTION_ID):
            assert transaction_id is None
            continue
        assert transaction_id is not None
        answer = finally_answered(
            lambda asked=transaction_id: store.transaction_info(asked, Environment.PRODUCTION, BUNDLE_ID)  # type: ignore[misc]
        )
        match message.expected:
            case DeadLettered(reason):
                assert (reason, answer["errorCode"]) == (Reason.TRANSACTION_NOT_FOUND, 4040010)
            case Answered(_, (expected_id,)) | OneOfGroup(expected_id):
                assert "signedTransactionInfo" in answer
                assert transaction_id == expected_id


def test_every_well_formed_message_is_a_submission_and_garbage_is_not() -> None:
    garbage = [message for seed in range(3) for message in make_scenario(300, seed, BUNDLE_ID, POST_QUEUE).messages]
    mixed = make_scenario(400, 7, BUNDLE_ID, POST_QUEUE, KEY, receipts=Receipts.MIXED).messages
    for message in (*SCENARIO.messages, *garbage, *mixed):
        received = ReceivedMessage("id", "handle", message.body, "", message.attributes)
        parsed = parse_submission(received, {POST_QUEUE}, "ReceiptsSQS")
        if message.kind is Kind.GARBAGE:
            assert isinstance(parsed, Unanswerable)
            assert DeadLettered(parsed.reason) == message.expected
        else:
            assert isinstance(parsed, Submission)
            assert parsed.user_id == message.user_id


# What the checker finds


def test_a_faultless_run_passes() -> None:
    report = check(SCENARIO, ANSWERS, DEAD_LETTERS)
    assert report.wrong == ()
    assert sum(kind.sent for kind in report.kinds.values()) == 300
    genuine, forged, expired = (report.kinds[kind] for kind in (Kind.GENUINE, Kind.FORGED, Kind.EXPIRED))
    assert (genuine.ok, genuine.invalid, genuine.dead_lettered) == (genuine.sent, {}, {})
    assert (forged.ok, forged.dead_lettered) == (0, {"not_authentic": forged.sent})
    assert expired.invalid == {"expired": expired.sent}
    replayed = report.kinds[Kind.REPLAYED]
    assert replayed.ok + replayed.invalid["claimed_by_another_user"] == replayed.sent
    assert report.kinds[Kind.DUPLICATE].ok == report.kinds[Kind.DUPLICATE].sent / 2


def test_repetitions_are_fine() -> None:
    once = check(SCENARIO, ANSWERS, DEAD_LETTERS)
    assert check(SCENARIO, [*ANSWERS, *reversed(ANSWERS)], DEAD_LETTERS * 2) == once


@patient
@given(st.sampled_from(ANSWERS))
def test_a_missing_answer_is_found(answer: AnswerSeen) -> None:
    (fault, *_) = faults([each for each in ANSWERS if each != answer], DEAD_LETTERS)
    assert f"user {answer.user_id}: transaction {answer.transaction_id} was answered nothing" in fault


@patient
@given(st.sampled_from(ANSWERS))
def test_a_wrong_answer_is_found_in_place_of_the_right_one_or_beside_it(answer: AnswerSeen) -> None:
    turned = replace(answer, status=INVALID if answer.status == OK else OK)
    assert faults([turned if each == answer else each for each in ANSWERS], DEAD_LETTERS)
    assert any("INVALID" in fault and "OK" in fault for fault in faults([*ANSWERS, turned], DEAD_LETTERS))


@patient
@given(st.sampled_from(ANSWERS), st.sampled_from(["1", ""]))
def test_an_answer_for_a_transaction_that_was_not_bought_is_found(answer: AnswerSeen, transaction_id: str) -> None:
    alien = replace(answer, transaction_id=transaction_id)
    (fault,) = faults([*ANSWERS, alien], DEAD_LETTERS)
    assert "expected no answer" in fault


def test_an_answer_for_the_wrong_reason_is_found() -> None:
    expired = next(answer for answer in ANSWERS if answer.reason == Reason.EXPIRED)
    rest = [answer for answer in ANSWERS if answer != expired]
    (fault,) = faults([*rest, replace(expired, reason="refunded")], DEAD_LETTERS)
    assert "INVALID (refunded), expected INVALID (expired)" in fault
    assert faults([*rest, replace(expired, reason="")], DEAD_LETTERS) == ()


def test_a_group_needs_exactly_one_ok() -> None:
    members = [answer for answer in ANSWERS if answer.user_id in {each.user_id for each in of_kind(Kind.REPLAYED)}]
    group = [answer for answer in members if answer.transaction_id == members[0].transaction_id]
    rest = [answer for answer in ANSWERS if answer not in group]

    def with_winners(winners: int) -> tuple[str, ...]:
        last_first = list(reversed(group))
        answers = [replace(answer, status=OK if at < winners else INVALID) for at, answer in enumerate(last_first)]
        return faults([*rest, *answers], DEAD_LETTERS)

    assert with_winners(1) == ()
    for winners in (0, 2):
        (fault,) = with_winners(winners)
        assert f"{winners} of {len(group)} users got OK, expected 1" in fault


@patient
@given(st.sampled_from(DEAD_LETTERS))
def test_what_was_not_moved_or_moved_for_another_reason_is_found(dead_letter: DeadLetterSeen) -> None:
    rest = [each for each in DEAD_LETTERS if each != dead_letter]
    (fault,) = faults(ANSWERS, rest)
    assert "dead-lettered as nothing" in fault
    (fault,) = faults(ANSWERS, [*rest, replace(dead_letter, reason="crashed")])
    assert f"dead-lettered as crashed, expected {dead_letter.reason}" in fault


def test_moving_an_answerable_message_and_answering_an_unanswerable_one_are_found() -> None:
    for kind in (Kind.GENUINE, Kind.REPLAYED, Kind.EXPIRED):
        moved = DeadLetterSeen(of_kind(kind)[0].body, "receipt_malformed")
        (fault,) = faults(ANSWERS, [*DEAD_LETTERS, moved])
        assert "dead-lettered as receipt_malformed, expected an answer" in fault
    for kind in (Kind.GARBAGE, Kind.FORGED, Kind.SANDBOX):
        answer = AnswerSeen(of_kind(kind)[0].user_id, "1000000001", OK)
        (fault,) = faults([*ANSWERS, answer], DEAD_LETTERS)
        assert "was answered OK, expected no answer" in fault


def test_strays_are_found() -> None:
    report = check(SCENARIO, [*ANSWERS, AnswerSeen(1, "1", OK)], [*DEAD_LETTERS, DeadLetterSeen("?", "not_json")])
    assert report.strays == ("answer to user 1, who sent nothing", "dead letter that nobody sent: '?'")
    assert report.wrong == report.strays
