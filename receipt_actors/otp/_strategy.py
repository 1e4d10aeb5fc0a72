"""Which children a restart takes along. Pure."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Sequence

from receipt_actors.otp._child_spec import Strategy


def restart_group(strategy: Strategy, ids: Collection[Hashable], ended: Hashable) -> Sequence[Hashable]:
    """Return the ids to stop (from last to first) and start again (from first to last), in start order.

    The child that ended is among them. ``ids`` are all children in the order in which they were started.
    """
    if strategy is Strategy.ONE_FOR_ALL:
        return tuple(ids)
    if strategy is Strategy.REST_FOR_ONE:
        ids = tuple(ids)
        return ids[ids.index(ended) :]
    return (ended,)
