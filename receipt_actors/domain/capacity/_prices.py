"""What it costs: the prices that depend on how much is bought, or on what goes with it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from receipt_actors.domain import service_limits as limits
from receipt_actors.domain.capacity._values import Call, Requests
from receipt_actors.domain.service_limits import SECONDS_A_MONTH, TaskSize


def fargate_usd(task: TaskSize, memory_gb: int) -> float:
    """Return what a task costs a month."""
    an_hour = task.vcpus * limits.FARGATE_VCPU_HOURS.usd + memory_gb * limits.FARGATE_GB_HOURS.usd
    return an_hour * SECONDS_A_MONTH / 3600


def with_shared_tiers(requests: Sequence[Requests]) -> tuple[Requests, ...]:
    """Price the requests to SQS, which has tiers for all kinds together: a request of any kind costs the mean."""
    billed = sum(each.billed_per_month for each in requests if each.call is not Call.CLAIM)
    usd_each = _tiered_usd(billed) / billed
    return tuple(
        each if each.call is Call.CLAIM else replace(each, usd_per_month=each.billed_per_month * usd_each)
        for each in requests
    )


def _tiered_usd(requests: float) -> float:
    tier = limits.SQS_TIER_REQUESTS
    return (
        min(requests, tier) * limits.SQS_REQUESTS_FIRST.usd
        + min(max(requests - tier, 0), tier) * limits.SQS_REQUESTS_NEXT.usd
        + max(requests - 2 * tier, 0) * limits.SQS_REQUESTS_REST.usd
    )
