"""How entries are gathered into batches: as many as fit, in order. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TypeVar

from receipt_actors.domain.ports import MAX_BATCH_BYTES, MAX_BATCH_ENTRIES

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
