"""What it takes that tasks agree on roles: renewals of leases, and limits that are of all tasks together."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

from receipt_actors.domain import service_limits as limits
from receipt_actors.domain.capacity._values import LimitReached, Load, RolesTaken, Setup, TaskSettings
from receipt_actors.domain.roles import RENEWALS_PER_LEASE, TAKEOVER_FACTOR, Role
from receipt_actors.domain.service_limits import SECONDS_A_MONTH, Limit

RECORD_BYTES = 100  #: of a group's item, without its members
MEMBER_BYTES = 300  #: of each task in it
ACTIVE_TASKS = Limit(
    "receipt_actors",
    "tasks that work at once, with the role active-standby",
    1,
    "task",
    "the role's own",
    "take the role load-balanced, or larger tasks",
)


def roles_taken(setup: Setup, tasks: int) -> RolesTaken | None:
    """Return what so many tasks need of the table of roles; None where each is alone."""
    if setup.role is Role.ALONE:
        return None
    per_second = tasks * RENEWALS_PER_LEASE / setup.lease_seconds
    writes = per_second * _units(tasks, limits.DYNAMODB_WRITE_UNIT_BYTES)
    reads = per_second * _units(tasks, limits.DYNAMODB_READ_UNIT_BYTES)
    usd = (writes * limits.DYNAMODB_WRITES.usd + reads * limits.DYNAMODB_READS.usd) * SECONDS_A_MONTH
    return RolesTaken(setup.role, setup.lease_seconds * TAKEOVER_FACTOR, writes, reads, usd)


def with_roles(settings: TaskSettings, load: Load, setup: Setup, tasks: int) -> TaskSettings:
    """Set what all tasks share to what all of them need; and a rate that Apple bears, which each has a part of."""
    rate = load.apple_limit_per_second
    if setup.role is Role.LOAD_BALANCED:
        return replace(
            settings,
            app_store_concurrency=settings.app_store_concurrency * tasks,
            ledger_concurrency=settings.ledger_concurrency * tasks,
            app_store_rate_per_second=rate,
        )
    works = 1 if setup.role is Role.ACTIVE_STANDBY else tasks
    return replace(settings, app_store_rate_per_second=None if rate is None else rate / works)


def role_limits(setup: Setup, tasks: int, tasks_needed: int, of_task_per_second: float) -> Iterator[LimitReached]:
    """Return the limits that roles bring along."""
    taken = roles_taken(setup, tasks)
    if taken is None:
        return
    if setup.role is Role.ACTIVE_STANDBY:
        yield LimitReached(ACTIVE_TASKS, of_task_per_second, tasks_needed)
    else:
        limit = limits.DYNAMODB_PARTITION_WRITES
        at = (_most_tasks(setup) - setup.spare_tasks) * of_task_per_second
        yield LimitReached(limit, max(0.0, at), taken.write_units_per_second)


def _most_tasks(setup: Setup) -> int:
    """The most whose renewals one item takes: its size grows with them, too."""
    tasks = 1
    while True:
        taken = roles_taken(setup, tasks + 1)
        assert taken is not None and limits.DYNAMODB_PARTITION_WRITES.value is not None
        if taken.write_units_per_second > limits.DYNAMODB_PARTITION_WRITES.value:
            return tasks
        tasks += 1


def _units(tasks: int, unit_bytes: int) -> int:
    return math.ceil((RECORD_BYTES + tasks * MEMBER_BYTES) / unit_bytes)
