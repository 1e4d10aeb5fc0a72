"""Which transactions are claimed and what is answered, rule by rule; ``test_verdict_properties`` has the promises."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest

from receipt_actors.domain.messages import Submission, Unanswerable, Verdict
from receipt_actors.domain.policy import AccountTokens, Policy, token_by_number
from receipt_actors.domain.ports import Environment, Tombstone
from receipt_actors.domain.reasons import Reason
from receipt_actors.domain.receipts import Genuine, ProductType, Transaction
from receipt_actors.domain.verdicts import (
    MAX_TRANSACTIONS,
    Answer,
    AskLedger,
    OursElsewhere,
    Owned,
    Ownership,
    Plan,
    make_plan,
)

NEW, OURS, SAME_USER, OTHER_USER, REFUNDED, FREE = Ownership
OK, INVALID = Verdict

SUBMISSION = Submission("s-1", "m-1", 42, "AAAA", "ab" * 32, "answers", None, None, sent_at_seconds=1000.0)
ANYTHING = Policy(None)
OLD = Transaction("1", "1", "coins", 1, 100.0, None, cancelled=False, expired=False)
MIDDLE = replace(OLD, transaction_id="2", purchased_at_seconds=200.0)
NEWEST = replace(OLD, transaction_id="3", purchased_at_seconds=300.0)
ABOUT_COINS = replace(SUBMISSION, product_id="coins")
NEW_REFUSALS = [
    (replace(OLD, is_upgraded=True), ANYTHING, Reason.UPGRADED),
    (replace(OLD, is_family_shared=True), Policy(None, takes_family_shared=False), Reason.FAMILY_SHARED),
    (
        replace(OLD, product_type=ProductType.CONSUMABLE),
        Policy(None, product_types=frozenset({ProductType.NON_CONSUMABLE})),
        Reason.PRODUCT_TYPE_REFUSED,
    ),
    (
        replace(OLD, app_account_token=token_by_number(43)),
        Policy(None, account_tokens=AccountTokens(token_by_number)),
        Reason.FOREIGN_ACCOUNT,
    ),
]


def receipt(*transactions: Transaction) -> Genuine:
    return Genuine(Environment.PRODUCTION, "com.example.game", transactions)


def plan(*transactions: Transaction, submission: Submission = SUBMISSION, policy: Policy = ANYTHING) -> Plan:
    made = make_plan(submission, receipt(*transactions), policy)
    assert isinstance(made, Plan), made
    return made


def refusal(*transactions: Transaction, submission: Submission = SUBMISSION) -> Reason:
    made = make_plan(submission, receipt(*transactions), ANYTHING)
    assert isinstance(made, Unanswerable), made
    return made.reason


def asked(made: Plan, known: Mapping[str, Owned]) -> tuple[set[str], set[str]]:
    step = made.next_step(known)
    assert isinstance(step, AskLedger), step
    return {each.transaction_id for each in step.claims}, {each.transaction_id for each in step.lookups}


def answered(made: Plan, known: Mapping[str, Owned]) -> list[tuple[str, Verdict, Reason]]:
    step = made.next_step(known)
    assert isinstance(step, Answer), step
    return sorted((result.transaction_id, result.verdict, result.reason) for result in step.results)


class TestAllOfAReceipt:
    def test_everything_is_claimed_at_once_and_answered(self) -> None:
        made = plan(OLD, NEWEST)
        assert asked(made, {}) == ({"1", "3"}, set())
        known = {"1": OURS, "3": NEW}
        assert answered(made, known) == [("1", OK, Reason.ALREADY_OURS), ("3", OK, Reason.CLAIMED)]
        step = made.next_step(known)
        assert isinstance(step, Answer)
        assert {(each.product_id, each.environment) for each in step.results} == {("coins", Environment.PRODUCTION)}

    def test_only_what_is_not_known_yet_is_asked(self) -> None:
        assert asked(plan(OLD, MIDDLE, NEWEST), {"1": NEW, "3": FREE}) == ({"2", "3"}, set())

    @pytest.mark.parametrize(
        ("ownership", "reason"), [(OTHER_USER, Reason.CLAIMED_BY_ANOTHER_USER), (REFUNDED, Reason.REFUNDED)]
    )
    def test_what_another_user_owns_or_was_refunded_is_invalid(self, ownership: Ownership, reason: Reason) -> None:
        known = {"1": ownership, "3": NEW}
        assert answered(plan(OLD, NEWEST), known) == [("1", INVALID, reason), ("3", OK, Reason.CLAIMED)]

    def test_earlier_purchases_of_the_same_user_are_skipped(self) -> None:
        assert answered(plan(OLD, MIDDLE, NEWEST), {"1": SAME_USER, "2": SAME_USER, "3": NEW}) == [
            ("3", OK, Reason.CLAIMED)
        ]

    def test_when_nothing_remains_the_newest_is_invalid(self) -> None:
        assert answered(plan(OLD, NEWEST, MIDDLE), dict.fromkeys("123", SAME_USER)) == [
            ("3", INVALID, Reason.ALREADY_ANSWERED)
        ]

    def test_a_purchase_without_a_date_is_the_oldest_and_equal_dates_go_by_id(self) -> None:
        undated = replace(OLD, transaction_id="999", purchased_at_seconds=None)
        longer = replace(NEWEST, transaction_id="10")
        known = dict.fromkeys(["999", "3", "10"], SAME_USER)
        expected = [("10", INVALID, Reason.ALREADY_ANSWERED)]
        assert answered(plan(undated, NEWEST, longer), known) == expected
        assert answered(plan(longer, NEWEST, undated), known) == expected


class TestQuantities:
    def test_every_answer_about_a_purchase_says_how_many_were_bought(self) -> None:
        made = plan(replace(OLD, quantity=3))
        for ownership in (NEW, OURS, OTHER_USER, REFUNDED, SAME_USER):
            step = made.next_step({"1": ownership})
            assert isinstance(step, Answer)
            assert [each.quantity for each in step.results] == [3]

    def test_what_was_refunded_before_any_claim_says_how_much(self) -> None:
        part = replace(OLD, cancelled=True, revocation_type="REFUND_PRORATED", revocation_percentage=33333)
        tombstone = Tombstone("1", 5.0, "REFUND_PRORATED", 66666)
        for transaction, said, share in ((part, FREE, 33333), (OLD, tombstone, 66666), (part, tombstone, 66666)):
            step = plan(transaction).next_step({"1": said})
            assert isinstance(step, Answer)
            (result,) = step.results
            assert (result.verdict, result.reason) == (INVALID, Reason.REFUNDED)
            assert (result.revocation_type, result.revocation_percentage) == ("REFUND_PRORATED", share)

    def test_an_ok_says_nothing_of_a_refund(self) -> None:
        part = replace(OLD, cancelled=True, revocation_type="REFUND_PRORATED", revocation_percentage=33333)
        for said in (OURS, REFUNDED, OTHER_USER):
            step = plan(part).next_step({"1": said})
            assert isinstance(step, Answer)
            assert [each.revocation_type for each in step.results] == [None]
            assert [each.revocation_percentage for each in step.results] == [None]


class TestRefusals:
    REFUNDED_NOW = replace(OLD, cancelled=True)

    def test_a_refused_transaction_is_looked_up_while_the_others_are_claimed(self) -> None:
        assert asked(plan(self.REFUNDED_NOW, NEWEST), {}) == ({"3"}, {"1"})

    @pytest.mark.parametrize(
        ("ownership", "expected"),
        [
            (FREE, ("1", INVALID, Reason.REFUNDED)),
            (OURS, ("1", OK, Reason.ALREADY_OURS)),
            (OTHER_USER, ("1", INVALID, Reason.CLAIMED_BY_ANOTHER_USER)),
            (SAME_USER, ("1", INVALID, Reason.ALREADY_ANSWERED)),
            (REFUNDED, ("1", INVALID, Reason.REFUNDED)),
        ],
    )
    def test_what_the_ledger_says_goes_before_the_refusal(
        self, ownership: Ownership, expected: tuple[str, Verdict, Reason]
    ) -> None:
        assert answered(plan(self.REFUNDED_NOW), {"1": ownership}) == [expected]

    @pytest.mark.parametrize(
        ("transaction", "policy", "reason"),
        [
            (replace(OLD, expires_at_seconds=999.0), ANYTHING, Reason.EXPIRED),
            (OLD, Policy(None, product_ids=frozenset({"gems"})), Reason.FOREIGN_PRODUCT),
            (OLD, Policy(frozenset({"com.example.other"})), Reason.FOREIGN_BUNDLE),
            (OLD, Policy(None, environments=frozenset()), Reason.ENVIRONMENT_REFUSED),
            *NEW_REFUSALS,
        ],
    )
    def test_each_refusal_has_its_reason(self, transaction: Transaction, policy: Policy, reason: Reason) -> None:
        made = plan(transaction, policy=policy)
        assert asked(made, {}) == (set(), {"1"})
        assert answered(made, {"1": FREE}) == [("1", INVALID, reason)]

    @pytest.mark.parametrize(("transaction", "policy", "reason"), NEW_REFUSALS)
    def test_an_ok_is_repeated_whatever_policy_says_by_now(
        self, transaction: Transaction, policy: Policy, reason: Reason
    ) -> None:
        made = plan(transaction, policy=policy)
        assert answered(made, {"1": OURS}) == [("1", OK, Reason.ALREADY_OURS)]
        assert answered(made, {"1": OTHER_USER}) == [("1", INVALID, Reason.CLAIMED_BY_ANOTHER_USER)]

    def test_a_token_is_compared_with_the_user_of_the_message(self) -> None:
        bought_for_42 = replace(OLD, app_account_token=token_by_number(42))
        policy = Policy(None, account_tokens=AccountTokens(token_by_number, required=True))
        assert asked(plan(bought_for_42, policy=policy), {}) == ({"1"}, set())
        made = plan(bought_for_42, policy=policy, submission=replace(SUBMISSION, user_id=43))
        assert answered(made, {"1": FREE}) == [("1", INVALID, Reason.FOREIGN_ACCOUNT)]

    def test_every_refused_transaction_of_an_accepted_receipt_is_answered(self) -> None:
        expired = [replace(each, expires_at_seconds=each.purchased_at_seconds) for each in (OLD, MIDDLE)]
        assert answered(plan(*expired, NEWEST), {"1": FREE, "2": FREE, "3": NEW}) == [
            ("1", INVALID, Reason.EXPIRED),
            ("2", INVALID, Reason.EXPIRED),
            ("3", OK, Reason.CLAIMED),
        ]

    def test_a_refused_receipt_is_answered_once_however_much_it_holds(self) -> None:
        made = plan(OLD, MIDDLE, NEWEST, policy=Policy(frozenset({"com.example.other"})))
        assert asked(made, {}) == (set(), {"1", "2", "3"})
        assert answered(made, dict.fromkeys("123", FREE)) == [("3", INVALID, Reason.FOREIGN_BUNDLE)]
        assert answered(made, {"1": OTHER_USER, "2": FREE, "3": OURS}) == [
            ("2", INVALID, Reason.FOREIGN_BUNDLE),
            ("3", OK, Reason.ALREADY_OURS),
        ]
        assert answered(made, dict.fromkeys("123", SAME_USER)) == [("3", INVALID, Reason.ALREADY_ANSWERED)]


class TestPostQueueOfAClaim:
    ELSEWHERE = OursElsewhere("elsewhere")

    def test_only_the_ok_of_that_claim_goes_there(self) -> None:
        refused = replace(OLD, transaction_id="4", cancelled=True)
        made = plan(OLD, MIDDLE, NEWEST, refused)
        step = made.next_step({"1": self.ELSEWHERE, "2": NEW, "3": OTHER_USER, "4": FREE})
        assert isinstance(step, Answer)
        assert {(each.transaction_id, each.verdict, each.post_queue) for each in step.results} == {
            ("1", OK, "elsewhere"),
            ("2", OK, None),
            ("3", INVALID, None),
            ("4", INVALID, None),
        }

    @pytest.mark.parametrize("submission", [SUBMISSION, ABOUT_COINS, replace(SUBMISSION, transaction_id="1")])
    def test_it_is_repeated_whatever_policy_says_by_now(self, submission: Submission) -> None:
        made = plan(replace(OLD, cancelled=True), submission=submission)
        assert answered(made, {"1": self.ELSEWHERE}) == [("1", OK, Reason.ALREADY_OURS)]
        if submission is ABOUT_COINS:
            known = {"1": self.ELSEWHERE, "3": FREE}
            assert answered(plan(OLD, NEWEST, submission=submission), known) == [("1", OK, Reason.ALREADY_OURS)]

    def test_where_that_queue_is_not_allowed_nothing_is_answered(self) -> None:
        step = plan(OLD, NEWEST).next_step({"1": self.ELSEWHERE, "3": NEW})
        assert isinstance(step, Answer)
        assert step.misplaced({"answers", "elsewhere"}) is None
        misplaced = step.misplaced({"answers"})
        assert misplaced is not None
        assert misplaced.reason is Reason.POST_QUEUE_NOT_ALLOWED
        assert "transaction 1 belongs on elsewhere" in misplaced.detail


class TestNamedTransaction:
    ABOUT_OLD = replace(SUBMISSION, transaction_id="1")

    def test_only_that_one_is_claimed_and_answered(self) -> None:
        made = plan(OLD, NEWEST, submission=self.ABOUT_OLD)
        assert asked(made, {}) == ({"1"}, set())
        assert answered(made, {"1": NEW}) == [("1", OK, Reason.CLAIMED)]
        assert answered(made, {"1": SAME_USER}) == [("1", INVALID, Reason.ALREADY_ANSWERED)]

    def test_it_must_be_in_the_receipt(self) -> None:
        assert refusal(NEWEST, submission=self.ABOUT_OLD) is Reason.TRANSACTION_NOT_IN_RECEIPT

    def test_it_must_be_of_the_named_product_if_both_are_named(self) -> None:
        both = replace(self.ABOUT_OLD, product_id="coins")
        assert asked(plan(OLD, NEWEST, submission=both), {}) == ({"1"}, set())
        assert refusal(replace(OLD, product_id="gems"), NEWEST, submission=both) is Reason.PRODUCT_NOT_IN_RECEIPT
        assert refusal(NEWEST, submission=both) is Reason.TRANSACTION_NOT_IN_RECEIPT


class TestNamedProduct:
    GEMS = replace(NEWEST, transaction_id="4", product_id="gems", purchased_at_seconds=400.0)

    def test_all_of_the_product_are_looked_up_before_any_is_claimed(self) -> None:
        made = plan(OLD, NEWEST, self.GEMS, submission=ABOUT_COINS)
        assert asked(made, {}) == (set(), {"1", "3"})
        assert asked(made, {"3": FREE}) == (set(), {"1"})
        assert answered(made, {"1": OURS, "3": FREE}) == [("1", OK, Reason.ALREADY_OURS)]

    def test_the_newest_free_one_is_claimed_and_the_next_if_the_race_is_lost(self) -> None:
        made = plan(OLD, MIDDLE, NEWEST, submission=ABOUT_COINS)
        assert asked(made, dict.fromkeys("123", FREE)) == ({"3"}, set())
        assert asked(made, {"1": FREE, "2": FREE, "3": SAME_USER}) == ({"2"}, set())
        assert answered(made, {"1": FREE, "2": NEW, "3": SAME_USER}) == [("2", OK, Reason.CLAIMED)]

    def test_a_refused_one_is_passed_over(self) -> None:
        made = plan(OLD, replace(NEWEST, cancelled=True), submission=ABOUT_COINS)
        assert asked(made, {"1": FREE, "3": FREE}) == ({"1"}, set())

    @pytest.mark.parametrize(
        ("ownership", "reason"),
        [
            (SAME_USER, Reason.ALREADY_ANSWERED),
            (OTHER_USER, Reason.CLAIMED_BY_ANOTHER_USER),
            (REFUNDED, Reason.REFUNDED),
        ],
    )
    def test_when_none_can_be_claimed_the_newest_tells_why(self, ownership: Ownership, reason: Reason) -> None:
        made = plan(OLD, NEWEST, submission=ABOUT_COINS)
        assert answered(made, {"1": SAME_USER, "3": ownership}) == [("3", INVALID, reason)]

    def test_when_policy_stands_in_the_way_it_says_so(self) -> None:
        made = plan(replace(OLD, cancelled=True), submission=ABOUT_COINS)
        assert answered(made, {"1": FREE}) == [("1", INVALID, Reason.REFUNDED)]

    def test_the_product_must_be_in_the_receipt(self) -> None:
        assert refusal(self.GEMS, submission=ABOUT_COINS) is Reason.PRODUCT_NOT_IN_RECEIPT

    def test_two_that_are_ours_are_both_repeated(self) -> None:
        assert answered(plan(OLD, NEWEST, submission=ABOUT_COINS), {"1": OURS, "3": NEW}) == [
            ("1", OK, Reason.ALREADY_OURS),
            ("3", OK, Reason.CLAIMED),
        ]


class TestLimits:
    @pytest.mark.parametrize("submission", [SUBMISSION, ABOUT_COINS, replace(SUBMISSION, transaction_id="1")])
    def test_a_receipt_in_which_nothing_was_bought_is_unanswerable(self, submission: Submission) -> None:
        assert refusal(submission=submission) is Reason.NO_TRANSACTION

    def test_a_receipt_that_names_no_app_is_unanswerable_where_the_app_matters(self) -> None:
        """Apple always says of which app a receipt is: an answer without it is garbled, and no reason for INVALID."""
        nameless = replace(receipt(OLD), bundle_id=None)
        made = make_plan(SUBMISSION, nameless, Policy(frozenset({"com.example.game"})))
        assert isinstance(made, Unanswerable)
        assert made.reason is Reason.NO_BUNDLE_ID
        assert isinstance(make_plan(SUBMISSION, nameless, ANYTHING), Plan)

    def test_more_than_a_hundred_are_too_many_unless_the_message_names_one(self) -> None:
        many = [replace(OLD, transaction_id=str(number)) for number in range(1, MAX_TRANSACTIONS + 2)]
        assert refusal(*many) is Reason.TOO_MANY_TRANSACTIONS
        assert refusal(*many, submission=ABOUT_COINS) is Reason.TOO_MANY_TRANSACTIONS
        assert len(plan(*many[:-1]).candidates) == MAX_TRANSACTIONS
        assert asked(plan(*many, submission=replace(SUBMISSION, transaction_id="1")), {}) == ({"1"}, set())
