"""How entries are gathered into batches: as many as fit, in order; and what a batch of claims must be. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import TypeVar

from receipt_actors.domain.ports import MAX_BATCH_BYTES, MAX_BATCH_ENTRIES, MAX_CLAIMS, LedgerItem

T = TypeVar("T")


def take_batch(
    waiting: deque[T],
    size_bytes: Callable[[T], int],
    *,
    max_entries: int = MAX_BATCH_ENTRIES,
    max_bytes: int = MAX_BATCH_BYTES,
) -> list[T]:
    """Take the next batch from the front of ``waiting``: never empty where something waits.

    An entry that alone is too large goes alone; the service says what is wrong with it.
    """
    batch: list[T] = []
    total = 0
    while waiting and len(batch) < max_entries:
        size = size_bytes(waiting[0])
        if batch and total + size > max_bytes:
            break
        total += size
        batch.append(waiting.popleft())
    return batch


def check_claims(items: Sequence[LedgerItem]) -> None:
    """Raise ``ValueError`` for what no ledger takes as a batch: too many claims, or two on the same transaction."""
    if len(items) > MAX_CLAIMS:
        raise ValueError(f"{len(items)} claims: expected at most {MAX_CLAIMS} a batch")
    if len({item.transaction_id for item in items}) < len(items):
        raise ValueError("two claims on the same transaction: expected different ones in a batch")
