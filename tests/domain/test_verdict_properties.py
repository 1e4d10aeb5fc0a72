"""The promises on which everything rests, against a model ledger: one OK for a transaction, and never taken back.

Deliveries of random submissions run interleaved, one ledger operation at a time, and may die before any of them and
before their answer. Between two deliveries Apple's view of the receipt and the policy change at random. Policies that
differ at one moment (two deliveries of one submission under way at once, one of them with the older policy) may differ
in what they refuse; so the promise that an OK is repeated is asserted for deliveries that began after the claim.

A submission comes by several ways: through any source queue, naming any post queue.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from receipt_actors.domain.messages import Result, Submission, Unanswerable, Verdict
from receipt_actors.domain.policy import Policy
from receipt_actors.domain.ports import Environment, LedgerItem
from receipt_actors.domain.reasons import Reason
from receipt_actors.domain.receipts import Genuine, Transaction
from receipt_actors.domain.verdicts import (
    Answer,
    Owned,
    Ownership,
    ledger_item,
    make_plan,
    ownership_after_claim,
    ownership_after_lookup,
)

PRODUCTION, SANDBOX = Environment
IDS = ["1", "2", "3", "4"]
PRODUCTS = {"1": "coins", "2": "gems", "3": "coins", "4": "coins"}

rarely = st.sampled_from([False, False, False, False, False, True])
submissions = st.lists(
    st.builds(
        Submission,
        submission_id=st.sampled_from(["s-1", "s-2", "s-3"]),
        message_id=st.just("m"),
        user_id=st.sampled_from([1, 2]),
        receipt_data=st.just("AAAA"),
        receipt_sha256=st.sampled_from(["aa", "bb"]),
        post_queue=st.just("answers"),
        transaction_id=st.sampled_from([None, None, None, "1"]),
        product_id=st.sampled_from([None, None, "coins"]),
        sent_at_seconds=st.just(100.0),
    ),
    min_size=1,
    max_size=4,
    # One submission has one message: its id, user and receipt never come with other fields but the post queue.
    unique_by=lambda submission: identity(submission),
)
transactions = st.builds(
    Transaction,
    transaction_id=st.sampled_from(IDS),
    original_transaction_id=st.none(),
    product_id=st.none(),
    quantity=st.just(1),
    purchased_at_seconds=st.none() | st.sampled_from([10.0, 20.0]),
    expires_at_seconds=st.sampled_from([None, 150.0, 150.0, 50.0]),
    cancelled=rarely,
    expired=rarely,
).map(lambda transaction: replace(transaction, product_id=PRODUCTS[transaction.transaction_id]))
receipts = st.builds(
    Genuine,
    environment=rarely.map(lambda is_sandbox: SANDBOX if is_sandbox else PRODUCTION),
    bundle_id=rarely.map(lambda is_foreign: "foreign" if is_foreign else "ours"),
    transactions=st.lists(transactions, min_size=1, max_size=4, unique_by=lambda each: each.transaction_id).map(tuple),
)
policies = st.builds(
    Policy,
    bundle_ids=st.none() | st.just(frozenset({"ours"})),
    product_ids=rarely.map(lambda is_limited: frozenset({"coins"}) if is_limited else None),
    environments=st.sampled_from([frozenset({PRODUCTION}), frozenset({PRODUCTION, SANDBOX})]),
)


@dataclass
class World:
    ledger: dict[str, LedgerItem] = field(default_factory=dict)
    oks: dict[str, set[tuple[tuple[str, int, str], str]]] = field(default_factory=lambda: defaultdict(set))

    def deliver(
        self, submission: Submission, receipt: Genuine, policy: Policy, source_queue: str = "receipts"
    ) -> Iterator[None]:
        owned = {id_ for id_, item in self.ledger.items() if is_repeated(item, submission, source_queue)}
        yield
        plan = make_plan(submission, receipt, policy)
        if isinstance(plan, Unanswerable):
            return
        known: dict[str, Owned] = {}
        while not isinstance(step := plan.next_step(known), Answer):
            assert step.claims or step.lookups, "a question that asks nothing would go on for ever"
            for transaction in step.lookups:
                assert transaction.transaction_id not in known
                yield
                item = ledger_item(submission, transaction, receipt.environment, source_queue, 100.0)
                known[item.transaction_id] = ownership_after_lookup(self.ledger.get(item.transaction_id), item)
            for transaction in step.claims:
                assert known.get(transaction.transaction_id) in (None, Ownership.FREE)
                yield
                item = ledger_item(submission, transaction, receipt.environment, source_queue, 100.0)
                standing = self.ledger.get(item.transaction_id)
                self.ledger.setdefault(item.transaction_id, item)
                known[item.transaction_id] = ownership_after_claim(standing, item)
        yield
        self.check(submission, receipt, source_queue, step.results, owned)

    def check(
        self, submission: Submission, receipt: Genuine, source_queue: str, results: tuple[Result, ...], owned: set[str]
    ) -> None:
        assert results
        verdicts = {result.transaction_id: result.verdict for result in results}
        assert len(verdicts) == len(results), "one result for a transaction"
        in_receipt = {transaction.transaction_id for transaction in receipt.transactions}
        if submission.transaction_id is not None:
            assert set(verdicts) == {submission.transaction_id}
        elif submission.product_id is not None:
            # Two deliveries at once may have claimed one each; but a refusal is always a single one.
            assert len(verdicts) == 1 or set(verdicts.values()) == {Verdict.OK}

        about = {
            id_
            for id_ in in_receipt
            if submission.transaction_id in (None, id_) and submission.product_id in (None, PRODUCTS[id_])
        }
        assert set(verdicts) <= about, "no verdict on what the message is not about"
        repeated = {id_ for id_, verdict in verdicts.items() if verdict is Verdict.OK}
        assert owned & about <= repeated, "what a submission owns, it is told again, whatever has changed"

        for result in results:
            standing = self.ledger.get(result.transaction_id)
            if result.verdict is Verdict.OK:
                event(f"OK, {result.reason}")
                assert standing is not None
                assert identity(standing) == identity(submission)
                post_queue = result.post_queue or submission.post_queue
                assert post_queue == standing.post_queue
                self.oks[result.transaction_id].add((identity(submission), post_queue))
                assert len(self.oks[result.transaction_id]) == 1, "OK for one submission only, on one queue, ever"
            elif result.reason in (Reason.CLAIMED_BY_ANOTHER_USER, Reason.ALREADY_ANSWERED):
                event(f"INVALID, {result.reason}")
                assert standing is not None
                assert not is_repeated(standing, submission, source_queue)
                is_same_user = standing.user_id == submission.user_id
                assert is_same_user is (result.reason is Reason.ALREADY_ANSWERED)


def is_repeated(claim: LedgerItem, submission: Submission, source_queue: str) -> bool:
    is_its_way = claim.post_queue == submission.post_queue or claim.source_queue == source_queue
    return identity(claim) == identity(submission) and is_its_way


def identity(owner: Submission | LedgerItem) -> tuple[str, int, str]:
    return owner.submission_id, owner.user_id, owner.receipt_sha256


@settings(deadline=None, max_examples=3 * settings().max_examples, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data(), known_submissions=submissions)
def test_a_transaction_is_ok_for_one_submission_which_is_told_so_again_and_again(
    data: st.DataObject, known_submissions: list[Submission]
) -> None:
    world = World()
    deliveries: list[Iterator[None]] = []
    actions = st.sampled_from(["deliver", "deliver", "step", "step", "step", "finish", "finish", "die", "refund"])
    for action in data.draw(st.lists(actions, min_size=10, max_size=40)):
        if action == "deliver":
            post_queue = data.draw(st.sampled_from(["answers", "answers", "elsewhere"]))
            submission = replace(data.draw(st.sampled_from(known_submissions)), post_queue=post_queue)
            source_queue = data.draw(st.sampled_from(["receipts", "receipts", "game-2"]))
            deliveries.append(world.deliver(submission, data.draw(receipts), data.draw(policies), source_queue))
            next(deliveries[-1])
        elif action == "refund" and world.ledger:
            refunded = data.draw(st.sampled_from(sorted(world.ledger)))
            world.ledger[refunded] = replace(world.ledger[refunded], refunded_at_seconds=200.0)
        elif deliveries and action in ("step", "finish", "die"):
            delivery = data.draw(st.sampled_from(deliveries))
            if action == "finish":
                for _ in delivery:
                    pass
            if action in ("finish", "die") or next(delivery, "ended") == "ended":
                deliveries.remove(delivery)
    for delivery in deliveries:
        for _ in delivery:
            pass
