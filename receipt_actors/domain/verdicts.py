"""Which transactions to claim, and what to answer: the heart of the service, as a pure step function.

``make_plan`` narrows a genuine receipt to the *candidates* that a message is about and asks ``policy`` about each. Then
the caller loops: ``next_step`` of what the ledger is known to say gives either questions for the ledger or the answer::

    known = {}
    while isinstance(step := plan.next_step(known), AskLedger):
        known |= ...  # claim step.claims, look up step.lookups
    step.results

What is promised, given a ledger that keeps its promises:

* OK is answered for claims of this submission only, so for one submission a transaction, ever; and on the post queue
  of the claim only, whichever the message names;
* a candidate that policy refuses is looked up before it is refused, so an earlier OK of this submission is repeated;
* a candidate that policy refuses is never claimed: it may count one day, when policy or Apple says otherwise.

A claim belongs to a submission, which has *asked before* where submission id, user id and the receipt's hash are the
same. Where its answer belongs depends on the queues that it names now:

===============  ==================  ====================================================================
source queue     post queue          the claim is
===============  ==================  ====================================================================
any              that of the claim   ``OURS``: the same OK, there
the claim's      another             ``OursElsewhere``: the same OK, on the claim's post queue and no other
another          another             another submission's, as any claim is that differs in one of the three
===============  ==================  ====================================================================

So no second post queue ever gets OK for a transaction, and none that got OK gets INVALID for the same submission. A
field that a claim lacks (another program wrote it) counts as equal. A claim never changes its owner, not even by a
refund or its reversal. Only a tombstone, which is no claim of any submission, makes a transaction refunded.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from enum import Enum
from math import inf
from typing import TypeAlias

from receipt_actors.domain.messages import Result, Submission, Unanswerable, Verdict
from receipt_actors.domain.policy import Policy, refusal_of_receipt, refusal_of_transaction
from receipt_actors.domain.ports import Environment, LedgerItem, Standing, Tombstone
from receipt_actors.domain.reasons import Reason
from receipt_actors.domain.receipts import Genuine, Transaction

MAX_TRANSACTIONS = 100  #: candidates of one message


class Ownership(Enum):
    """What the ledger says of a transaction, as seen by one submission."""

    NEW = "new"  #: claimed just now
    OURS = "ours"  #: this very submission claimed it before
    SAME_USER = "same_user"  #: another submission of the same user owns it
    OTHER_USER = "other_user"  #: another user's submission owns it
    REFUNDED = "refunded"  #: it was refunded before any claim
    FREE = "free"  #: looked up, and nobody has claimed it


@dataclass(frozen=True, slots=True)
class OursElsewhere:
    """This very submission claimed it before, and named another post queue then: its OK belongs there."""

    post_queue: str


#: What the ledger's answer means for the one that asks.
Owned: TypeAlias = Ownership | OursElsewhere


def ledger_item(
    submission: Submission, transaction: Transaction, environment: Environment, source_queue: str, now_seconds: float
) -> LedgerItem:
    """Return the claim of a submission on a transaction; ``now_seconds`` is UNIX time."""
    return LedgerItem(
        transaction_id=transaction.transaction_id,
        submission_id=submission.submission_id,
        message_id=submission.message_id,
        user_id=submission.user_id,
        receipt_sha256=submission.receipt_sha256,
        product_id=transaction.product_id,
        original_transaction_id=transaction.original_transaction_id,
        environment=environment,
        source_queue=source_queue,
        post_queue=submission.post_queue,
        claimed_at_seconds=now_seconds,
        quantity=transaction.quantity,
    )


def ownership_after_claim(standing: Standing | None, wanted: LedgerItem) -> Owned:
    """Judge the answer of ``Ledger.claim(wanted)``: None (it was put), or what stood in the way."""
    return Ownership.NEW if standing is None else _compare(standing, wanted)


def ownership_after_lookup(standing: Standing | None, wanted: LedgerItem) -> Owned:
    """Judge the answer of ``Ledger.get``: None (nobody has claimed it), or what stands in the way of ``wanted``."""
    return Ownership.FREE if standing is None else _compare(standing, wanted)


def identity(claim: LedgerItem) -> tuple[str, int, str]:
    """Return what makes two claims one submission's, all three: an id alone can be chosen, or reused by mistake."""
    return claim.submission_id, claim.user_id, claim.receipt_sha256


def _compare(standing: Standing, wanted: LedgerItem) -> Owned:
    if isinstance(standing, Tombstone):
        return Ownership.REFUNDED
    if identity(standing) == identity(wanted):
        if standing.post_queue in ("", wanted.post_queue):
            return Ownership.OURS
        if standing.source_queue in ("", wanted.source_queue):
            return OursElsewhere(standing.post_queue)
    return Ownership.SAME_USER if standing.user_id == wanted.user_id else Ownership.OTHER_USER


#: What the ledger says of a transaction; a tombstone speaks for itself, as it also says how much was refunded.
Said: TypeAlias = Owned | Tombstone

_OK: Mapping[Said, Reason] = {Ownership.NEW: Reason.CLAIMED, Ownership.OURS: Reason.ALREADY_OURS}
_OBSTACLES: Mapping[Said, Reason] = {
    Ownership.SAME_USER: Reason.ALREADY_ANSWERED,
    Ownership.OTHER_USER: Reason.CLAIMED_BY_ANOTHER_USER,
    Ownership.REFUNDED: Reason.REFUNDED,
}


@dataclass(frozen=True, slots=True)
class AskLedger:
    claims: tuple[Transaction, ...]
    lookups: tuple[Transaction, ...]


@dataclass(frozen=True, slots=True)
class Answer:
    results: tuple[Result, ...]

    def misplaced(self, post_queues: Collection[str]) -> Unanswerable | None:
        """Return why it cannot be sent: a claim's post queue is no longer allowed."""
        for each in self.results:
            if each.post_queue is not None and each.post_queue not in post_queues:
                found = f"the OK of transaction {each.transaction_id} belongs on {each.post_queue}"
                wish = "which is not in the allow-list; allow it again and redrive this"
                return Unanswerable(Reason.POST_QUEUE_NOT_ALLOWED, f"{found}, {wish}")
        return None


@dataclass(frozen=True, slots=True)
class Candidate:
    """A transaction that the message is about, and the policy's reason against it."""

    transaction: Transaction
    refusal: Reason | None

    @property
    def transaction_id(self) -> str:
        return self.transaction.transaction_id


@dataclass(frozen=True, slots=True)
class Plan:
    """How to answer one submission; the caller keeps what it learns in ``known``."""

    receipt: Genuine
    candidates: tuple[Candidate, ...]  #: newest first; never empty
    receipt_refused: bool  #: the refusal is the whole receipt's, and every candidate has it
    newest_only: bool  #: the message names a product and wants one of its purchases, not all

    def next_step(self, known: Mapping[str, Said]) -> AskLedger | Answer:
        """Decide on what the ledger said so far, by transaction id."""
        return self._one_of_product(known) if self.newest_only else self._all(known)

    def _all(self, known: Mapping[str, Said]) -> AskLedger | Answer:
        claims = tuple(each.transaction for each in self.candidates if _is_claimable(each, known))
        lookups = tuple(each.transaction for each in self._unknown(known) if each.refusal is not None)
        if claims or lookups:
            return AskLedger(claims, lookups)

        results = [
            self._result(each, known)
            for each in self.candidates
            if known[each.transaction_id] is not Ownership.SAME_USER
        ]
        if self.receipt_refused:
            # One refusal tells it all; a receipt of a foreign app must not make us send a hundred messages.
            refused = [result for result in results if result.verdict is Verdict.INVALID]
            results = [result for result in results if result.verdict is Verdict.OK] + refused[:1]
        return Answer(tuple(results) or (self._result(self.candidates[0], known),))

    def _one_of_product(self, known: Mapping[str, Said]) -> AskLedger | Answer:
        # A redelivery may show a newer purchase than the one which got OK: that one is found before any is claimed.
        if unknown := self._unknown(known):
            return AskLedger(claims=(), lookups=tuple(each.transaction for each in unknown))
        owned = [each for each in self.candidates if _reason_for_ok(known[each.transaction_id])]
        if owned:
            return Answer(tuple(self._result(each, known) for each in owned))
        for each in self.candidates:
            if _is_claimable(each, known):
                return AskLedger(claims=(each.transaction,), lookups=())
        return Answer((self._result(self.candidates[0], known),))

    def _unknown(self, known: Mapping[str, Said]) -> list[Candidate]:
        return [each for each in self.candidates if each.transaction_id not in known]

    def _result(self, candidate: Candidate, known: Mapping[str, Said]) -> Result:
        said = known[candidate.transaction_id]
        ownership = Ownership.REFUNDED if isinstance(said, Tombstone) else said
        ok = _reason_for_ok(ownership)
        reason = ok or _OBSTACLES.get(ownership) or candidate.refusal
        assert reason is not None, "a candidate that is free and not refused is claimed before any answer"
        transaction = candidate.transaction
        result = Result(
            transaction_id=candidate.transaction_id,
            verdict=Verdict.OK if ok else Verdict.INVALID,
            reason=reason,
            product_id=transaction.product_id,
            environment=self.receipt.environment,
            quantity=transaction.quantity,
            post_queue=said.post_queue if isinstance(said, OursElsewhere) else None,
        )
        if isinstance(said, Tombstone):
            refund: Tombstone | Transaction = said
        elif reason is Reason.REFUNDED and ownership is Ownership.FREE:
            refund = transaction
        else:
            return result  # no refund, or one of a claim: its owner was told how much
        return replace(
            result, revocation_type=refund.revocation_type, revocation_percentage=refund.revocation_percentage
        )


def make_plan(submission: Submission, receipt: Genuine, policy: Policy) -> Plan | Unanswerable:
    """Narrow the receipt to the message's transactions: 1 to 100, else unanswerable.

    A message that names both a transaction and a product is about that transaction, which must be of that product.
    """
    if receipt.bundle_id is None and policy.bundle_ids is not None:
        return Unanswerable(Reason.NO_BUNDLE_ID, "the receipt does not say of which app it is")
    transactions = receipt.transactions
    if not transactions:
        return Unanswerable(Reason.NO_TRANSACTION, "the receipt holds no transaction")
    if submission.transaction_id is not None:
        transactions = tuple(each for each in transactions if each.transaction_id == submission.transaction_id)
        if not transactions:
            return Unanswerable(Reason.TRANSACTION_NOT_IN_RECEIPT, "the receipt does not hold the named transaction")
    if submission.product_id is not None:
        transactions = tuple(each for each in transactions if each.product_id == submission.product_id)
        if not transactions:
            return Unanswerable(Reason.PRODUCT_NOT_IN_RECEIPT, "the receipt does not hold the named product")
    if len(transactions) > MAX_TRANSACTIONS:
        found = f"expected at most {MAX_TRANSACTIONS} transactions, found {len(transactions)}"
        return Unanswerable(Reason.TOO_MANY_TRANSACTIONS, found)

    def refusal(transaction: Transaction) -> Reason | None:
        return receipt_refusal or refusal_of_transaction(
            transaction, policy, submission.sent_at_seconds, submission.user_id
        )

    receipt_refusal = refusal_of_receipt(receipt, policy)
    return Plan(
        receipt=receipt,
        candidates=tuple(Candidate(each, refusal(each)) for each in _newest_first(transactions)),
        receipt_refused=receipt_refusal is not None,
        newest_only=submission.product_id is not None and submission.transaction_id is None,
    )


def _reason_for_ok(said: Said) -> Reason | None:
    return Reason.ALREADY_OURS if isinstance(said, OursElsewhere) else _OK.get(said)


def _is_claimable(candidate: Candidate, known: Mapping[str, Said]) -> bool:
    return candidate.refusal is None and known.get(candidate.transaction_id, Ownership.FREE) is Ownership.FREE


def _newest_first(transactions: Iterable[Transaction]) -> list[Transaction]:
    """Sort by purchase date; missing ones last, equal ones by id, so that redeliveries keep the order."""

    def age(transaction: Transaction) -> tuple[float, int, str]:
        purchased_at_seconds = transaction.purchased_at_seconds
        newness = -inf if purchased_at_seconds is None else purchased_at_seconds
        return newness, len(transaction.transaction_id), transaction.transaction_id

    return sorted(transactions, key=age, reverse=True)
