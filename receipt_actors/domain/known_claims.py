"""``KnownClaims``: a bounded memory of who owns which transaction (the ETS table of an Erlang design).

It is filled from the ledger's confirmed answers only, and serves one purpose: a replay of *another* submission is
refused without asking the ledger again. It never says that a transaction is free or the asker's own: then the ledger
decides. What it says is what the ledger would say, since a claim is kept for ever and never changes its owner, whether
or not it is refunded. A tombstone is not remembered: once it is taken back the transaction is free. It forgets the
oldest first.

Of a submission it keeps a hash of 16 bytes and the user, some 400 bytes a transaction with all that goes around them.
Two submissions with the same hash would be taken for the same, which only means that the ledger is asked.
"""

from __future__ import annotations

import hashlib
from typing import NamedTuple

import cachetools

from receipt_actors.domain.ledger import Ownership, identity
from receipt_actors.domain.ports import LedgerItem, Standing, Tombstone

_HASH_BYTES = 16


class _Owner(NamedTuple):
    submission_hash: bytes
    user_id: int


class KnownClaims:
    """See the module. ``max_transactions`` bounds it."""

    def __init__(self, max_transactions: int) -> None:
        self._owners: cachetools.FIFOCache[str, _Owner] = cachetools.FIFOCache(max_transactions)

    def learn(self, owner: Standing) -> None:
        """Remember a claim of the ledger; a tombstone is none."""
        if isinstance(owner, Tombstone):
            return
        self._owners[owner.transaction_id] = _Owner(_hash(owner), owner.user_id)

    def obstacle(self, wanted: LedgerItem) -> Ownership | None:
        """Say who else owns the transaction; None where that is not known, or it is the asker: ask the ledger."""
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
