"""How nodes that share the work are put into words, for ``status`` and ``top``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from receipt_actors.cli.plain_text import duration, number
from receipt_actors.telemetry.overview import NodeOverview, RoleOverview, Standing

QUIET_SECONDS = 1.0  #: from which on it is said how long a node has not been heard of: each renews again and again
_UNITS = {
    "ledger_concurrency": "requests to the ledger",
    "app_store_rate_per_second": "requests to Apple a second",
}


def role_lines(role: RoleOverview) -> Iterator[str]:
    """Say what part this node has in its group, and what the others have: a line for each node."""
    own = role.own
    words = [_standing(role.standing, own)]
    if role.held_for_seconds is not None:
        words.append(f"its lease held for {role.held_for_seconds:.1f} s")
    elif role.standing is Standing.CUT_OFF:
        words.append("its lease is over")
    yield f"{role.role} in group {role.group}: {', '.join(words)}"
    for node in role.nodes:
        parts = ["this node" if node is own else _standing(node.standing, node)]
        if node.share is not None:
            parts.append(shares(node.share, role.whole))
        if node.seconds_since_heard >= QUIET_SECONDS:
            parts.append(f"not heard of for {duration(node.seconds_since_heard)}")
        yield f"  {node.name}: {'; '.join(parts)}"


def shares(share: Mapping[str, float | None], whole: Mapping[str, float | None] | None) -> str:
    """Put a share into words, such as ``25 of 50 requests to the ledger``; of what has a limit."""
    words = []
    for limit, unit in _UNITS.items():
        part, all_ = share.get(limit), (whole or {}).get(limit)
        if part is not None and all_ is not None:
            words.append(f"{_figure(part)} of {_figure(all_)} {unit}")
    return ", ".join(words)


def _figure(value: float) -> str:
    return number(value) if value >= 10 or value == int(value) else f"{value:.2g}"


def _standing(standing: str, node: NodeOverview | None) -> str:
    return standing if node is None or node.token is None else f"{standing}, token {node.token}"
