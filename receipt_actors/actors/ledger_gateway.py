"""The ledger gateway: the one actor that has claims made and looked up.

It owns the requests to the ledger, at most ``concurrency`` at once, their retries, and a bounded map of transaction id
-> item, filled from confirmed answers only, by which replays of *other* submissions are refused without a call (the ETS
table of an Erlang design). The map never answers OK and never speaks against the owner; it evicts the oldest. A crash
forgets all that: a claim whose answer was forgotten is recognised by the ledger as the submission's own.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

import cachetools

from receipt_actors.actors.gateway import BlockingCall, Gateway, Job
from receipt_actors.actors.protocol import ClaimTransaction, LookUpTransaction
from receipt_actors.domain.ledger import Ownership, ownership_after_claim, ownership_after_lookup
from receipt_actors.domain.ports import Ledger, LedgerItem
from receipt_actors.domain.retrying import RetryPolicy
from receipt_actors.otp import NO_REPLY, From

KNOWN_CLAIMS = 100_000  #: transactions whose owner is remembered

_FOREIGN = frozenset({Ownership.SAME_USER, Ownership.OTHER_USER, Ownership.REFUNDED})


class LedgerGateway(Gateway):
    """See the module."""

    def __init__(self, ledger: Ledger, concurrency: int, retry: RetryPolicy) -> None:
        super().__init__("ledger", concurrency, retry)
        self._ledger = ledger
        self._known: cachetools.FIFOCache[str, LedgerItem] = cachetools.FIFOCache(KNOWN_CLAIMS)

    def handle_call(self, request: Any, from_: From) -> Any:
        """Claim or look up, unless the map knows that the transaction is somebody else's."""
        match request:
            case ClaimTransaction(item):
                known = self._known.get(item.transaction_id)
                ownership = None if known is None else ownership_after_claim(known, item)
            case LookUpTransaction(transaction_id, submission):
                known = self._known.get(transaction_id)
                ownership = None if known is None else ownership_after_lookup(known, submission)
            case _:
                return super().handle_call(request, from_)
        if ownership in _FOREIGN:
            return ownership
        self.accept(Job(request, from_))
        return NO_REPLY

    def message_of(self, job: Job) -> Hashable:
        """See ``Gateway``."""
        request = job.request
        return request.item.message_id if isinstance(request, ClaimTransaction) else request.submission.message_id

    def blocking_call(self, batch: Sequence[Job]) -> BlockingCall:
        """See ``Gateway``."""
        (job,) = batch
        if isinstance(job.request, ClaimTransaction):
            return self._ledger.claim, (job.request.item,)
        return self._ledger.get, (job.request.transaction_id,)

    def settle(self, batch: Sequence[Job], answer: Any) -> None:
        """Say whose the transaction is, and remember it."""
        (job,) = batch
        request = job.request
        standing: LedgerItem | None = answer
        if isinstance(request, ClaimTransaction):
            ownership = ownership_after_claim(standing, request.item)
            owner: LedgerItem | None = request.item if standing is None else standing
        else:
            ownership = ownership_after_lookup(standing, request.submission)
            owner = standing
        if owner is not None:
            self._known[owner.transaction_id] = owner
        job.from_.reply(ownership)
