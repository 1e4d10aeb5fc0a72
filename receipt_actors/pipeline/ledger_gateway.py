"""The ledger gateway: the one actor that has claims made and looked up.

It owns the requests to the ledger, their retries, and the known claims, by which replays of *other* submissions are
refused without a call. A crash forgets them: the ledger recognises a submission's own claim.

Claims go in batches, a transaction at most once in each. What a batch did not put is claimed alone, which returns what
is in the way; so is what failed before, for one bad entry may spoil its batch each time.
"""

from __future__ import annotations

import hashlib
import logging
from collections import deque
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from math import inf
from typing import Any, ClassVar, NamedTuple

import cachetools

from receipt_actors.domain.limits import LiveLimits
from receipt_actors.domain.ports import (
    MAX_CLAIMS,
    TAKEN,
    BackgroundCalls,
    ClaimOutcome,
    EntryFailure,
    Ledger,
    LedgerItem,
    Standing,
    Tombstone,
)
from receipt_actors.domain.sending import RetryPolicy
from receipt_actors.domain.verdicts import Owned, Ownership, identity, ownership_after_claim, ownership_after_lookup
from receipt_actors.errors import BatchesRefused
from receipt_actors.otp import Crash, ExitReason, From, IdleTimeout
from receipt_actors.pipeline.gateway import DISPATCH, BlockingCall, Gateway, Job
from receipt_actors.pipeline.protocol import ClaimTransaction, LookUpTransaction, Refused
from receipt_actors.telemetry.incidents import IncidentKind

logger = logging.getLogger(__name__)

KNOWN_CLAIMS = 100_000  #: transactions whose owner is remembered
PACE_SECONDS = 0.01  #: what a claim waits for others at most
BATCHES_AGAIN_SECONDS = 600.0  #: after a ledger has refused batches; an operator may have allowed them meanwhile


_HASH_BYTES = 16


class _Owner(NamedTuple):
    submission_hash: bytes
    user_id: int


class KnownClaims:
    """A bounded memory of who owns which transaction; it forgets the oldest first.

    It learns confirmed answers only, to refuse a replay of *another* submission without a call. It never says that a
    transaction is free or the asker's own. A tombstone is not remembered, for the refund may be reversed.
    """

    def __init__(self, max_transactions: int) -> None:
        self._owners: cachetools.FIFOCache[str, _Owner] = cachetools.FIFOCache(max_transactions)

    def learn(self, owner: Standing) -> None:
        if isinstance(owner, Tombstone):
            return
        self._owners[owner.transaction_id] = _Owner(_hash(owner), owner.user_id)

    def obstacle(self, wanted: LedgerItem) -> Ownership | None:
        """Return who else owns the transaction, or None: ask the ledger."""
        owner = self._owners.get(wanted.transaction_id)
        if owner is None or owner.submission_hash == _hash(wanted):
            return None
        return Ownership.SAME_USER if owner.user_id == wanted.user_id else Ownership.OTHER_USER

    def __len__(self) -> int:
        return len(self._owners)


def _hash(claim: LedgerItem) -> bytes:
    # The receipt's hash has a fixed length and the user id no letters: no two submissions run into the same text.
    submission_id, user_id, receipt_sha256 = identity(claim)
    text = f"{receipt_sha256} {user_id} {submission_id}"
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=_HASH_BYTES).digest()


@dataclass(slots=True, eq=False)
class _LedgerJob(Job):
    goes_alone: bool = False


class LedgerGateway(Gateway):
    isolates: ClassVar[bool] = True
    batch_entries: ClassVar[int] = MAX_CLAIMS
    pace_seconds: ClassVar[float] = PACE_SECONDS
    _ready: deque[Job]  # what may not go along with a batch is put back at the front

    def __init__(
        self, ledger: Ledger, limits: LiveLimits, retry: RetryPolicy, background: BackgroundCalls | None = None
    ) -> None:
        super().__init__("ledger", limits.whole.ledger_concurrency, retry, background)
        self._ledger = ledger
        self._limits = limits
        self._known = KnownClaims(KNOWN_CLAIMS)
        self._batches_from_seconds = -inf  # monotonic

    @property
    def concurrency(self) -> int:
        return self._limits.current.ledger_concurrency if self._limits.are_held(self.clock.boottime()) else 0

    def handle_call(self, request: Any, from_: From) -> Any:
        if not isinstance(request, (ClaimTransaction, LookUpTransaction)):
            return super().handle_call(request, from_)
        obstacle = self._known.obstacle(request.item)
        if obstacle is not None:
            return IdleTimeout(0, obstacle)
        self.accept(_LedgerJob(request, from_, goes_alone=isinstance(request, LookUpTransaction)))
        return DISPATCH

    def message_of(self, job: Job) -> Hashable:
        message_id: str = job.request.item.message_id
        return message_id

    def leaves_at_once(self) -> bool:
        return self._goes_alone(self._ready[0]) or super().leaves_at_once()

    def take_batch(self) -> list[Job]:
        ready = self._ready
        batch: dict[str, Job] = {}  # by transaction id
        passed_over = []
        while ready and len(batch) < MAX_CLAIMS:
            job = ready.popleft()
            obstacle = self._known.obstacle(job.request.item)
            if obstacle is not None:
                job.from_.reply(obstacle)
            elif self._goes_alone(job):
                if not batch:
                    return [job]
                passed_over.append(job)
            elif job.request.item.transaction_id in batch:
                passed_over.append(job)
            else:
                batch[job.request.item.transaction_id] = job
        ready.extendleft(reversed(passed_over))
        return list(batch.values())

    def _goes_alone(self, job: Job) -> bool:
        assert isinstance(job, _LedgerJob)
        return (
            job.goes_alone or job.has_failed or job.attempts > 0 or self.clock.monotonic() < self._batches_from_seconds
        )

    def blocking_call(self, batch: Sequence[Job]) -> BlockingCall:
        if len(batch) > 1:
            return self._ledger.claim_all, ([job.request.item for job in batch],)
        (job,) = batch
        if isinstance(job.request, ClaimTransaction):
            return self._ledger.claim, (job.request.item,)
        return self._ledger.get, (job.request.item.transaction_id,)

    def settle(self, batch: Sequence[Job], answer: Any) -> None:
        if len(batch) > 1:
            outcomes: Sequence[ClaimOutcome] = answer
            for job, outcome in zip(batch, outcomes, strict=True):
                self._settle_entry(job, outcome)
            return
        (job,) = batch
        standing: Standing | None = answer
        item = job.request.item
        if isinstance(job.request, ClaimTransaction):
            self._reply(job, ownership_after_claim(standing, item), item if standing is None else standing)
        else:
            self._reply(job, ownership_after_lookup(standing, item), standing)

    def _settle_entry(self, job: Job, outcome: ClaimOutcome) -> None:
        match outcome:
            case None:
                self._reply(job, Ownership.NEW, job.request.item)
            case EntryFailure(code, detail, True):
                job.from_.reply(Refused(f"{code}: {detail}"))
            case EntryFailure(code, detail, False):
                self.retry(job, f"{code}: {detail}")
            case _:
                assert outcome is TAKEN
                assert isinstance(job, _LedgerJob)
                job.goes_alone = True
                self.accept(job)

    def _reply(self, job: Job, owned: Owned, owner: Standing | None) -> None:
        if owner is not None:
            self._known.learn(owner)
        job.from_.reply(owner if isinstance(owner, Tombstone) else owned)

    def handle_failure(self, label: Any, reason: ExitReason) -> Any:
        if not isinstance(reason, Crash) or not isinstance(reason.exception, BatchesRefused):
            return super().handle_failure(label, reason)
        now, refusal = self.clock.monotonic(), reason.exception
        if now >= self._batches_from_seconds:
            told = "the ledger takes no batches of claims (does the role allow dynamodb:PartiQLInsert?)"
            minutes = BATCHES_AGAIN_SECONDS / 60
            logger.warning("%s, which go one by one for the next %.0f min: %s", told, minutes, refusal)
            self._notice(IncidentKind.CONFIGURATION, f"{told}: {refusal}")
        self._batches_from_seconds = now + BATCHES_AGAIN_SECONDS
        return self.handle_reply(label, [TAKEN] * len(label))  # it is there, and each is claimed alone
