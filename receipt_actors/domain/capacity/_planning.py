"""The plan: all processes and tasks together, and the limits that they meet."""

from __future__ import annotations

import math

from receipt_actors.domain import service_limits as limits
from receipt_actors.domain.capacity._prices import fargate_usd, with_shared_tiers
from receipt_actors.domain.capacity._process import ITEM_BYTES, Process
from receipt_actors.domain.capacity._roles import role_limits, roles_taken, with_roles
from receipt_actors.domain.capacity._values import (
    MAX_ENTRIES,
    Call,
    Capacity,
    Cost,
    LimitReached,
    Load,
    Setup,
    TaskSettings,
)
from receipt_actors.domain.service_limits import SECONDS_A_MONTH, Limit, TaskSize

ITEM_OVERHEAD_BYTES = 100  #: of a claim, that DynamoDB adds to the bill for storage
SPARE_FILES = 64  #: that a process has open beside its connections


def plan_capacity(load: Load, setup: Setup, cost: Cost) -> Capacity:
    """Work out what the load takes. Numbers must be finite, and positive; times may be 0."""
    process = Process(load, setup, cost)
    peak = load.peak_per_second
    most_by_reason = process.most_by_reason()
    bound_by = min(most_by_reason, key=most_by_reason.__getitem__)
    most = most_by_reason[bound_by]
    needed = math.ceil(peak / most)
    of_task = setup.processes_of_task
    tasks_needed = math.ceil(needed / of_task)
    tasks = tasks_needed + setup.spare_tasks
    busiest = peak / (tasks_needed * of_task)  # the rate of a process while the spare tasks are away
    usual = peak / (tasks * of_task)
    settings = process.settings(busiest)
    memory = process.memory_bytes(settings)
    memory_gb = _memory_gb(setup.task, memory * of_task)
    requests = with_shared_tiers([process.requests(call, tasks * of_task) for call in Call])
    roles = roles_taken(setup, tasks)
    growth = load.rate_per_second * load.claims * (ITEM_BYTES + ITEM_OVERHEAD_BYTES) * SECONDS_A_MONTH
    return Capacity(
        load=load,
        setup=setup,
        cost=cost,
        processes_needed=needed,
        tasks_needed=tasks_needed,
        tasks=tasks,
        bound_by=bound_by,
        most_per_process_per_second=most,
        cpu_seconds=process.cpu_seconds(usual) / usual,
        cores_busy=process.cpu_seconds(usual) / setup.core_speed,
        in_house_seconds=process.in_house_seconds,
        in_flight=peak * process.in_house_seconds,
        settings=with_roles(settings, load, setup, tasks),
        requests=requests,
        write_units_per_second=peak * process.write_units,
        partitions=math.ceil(peak * process.write_units / _known(limits.DYNAMODB_PARTITION_WRITES)),
        ledger_growth_bytes_per_month=growth,
        apple_requests_per_second=peak * load.apple_requests,
        apple_connections=peak * process.apple_seconds,
        connections_of_task=_connections(settings) * of_task,
        open_files_of_process=SPARE_FILES + _connections(settings),
        memory_of_process_bytes=memory,
        memory_of_task_gb=memory_gb,
        usd_per_month={
            "SQS": sum(each.usd_per_month for each in requests if each.call is not Call.CLAIM),
            "DynamoDB writes": next(each.usd_per_month for each in requests if each.call is Call.CLAIM),
            "DynamoDB storage, for each month's claims": growth / 1e9 * limits.DYNAMODB_STORAGE.usd,
            **({} if roles is None else {"DynamoDB roles": roles.usd_per_month}),
            "Fargate": fargate_usd(setup.task, memory_gb) * tasks,
        },
        reached=_reached(process, most, tasks, tasks_needed),
        roles=roles,
    )


def _reached(process: Process, most_per_second: float, tasks: int, tasks_needed: int) -> tuple[LimitReached, ...]:
    load, setup = process.load, process.setup
    peak = load.peak_per_second
    of_task = most_per_second * setup.processes_of_task

    def by_tasks(limit: Limit, tasks_allowed: float, used: float) -> LimitReached:
        return LimitReached(limit, max(0.0, math.floor(tasks_allowed) - setup.spare_tasks) * of_task, used)

    def by_amount(limit: Limit, amount_per_rate: float, share: float = 1.0) -> LimitReached:
        """A limit of which every receipt a second takes ``amount_per_rate``, and of which ``share`` may be used."""
        return LimitReached(limit, _known(limit) * share / amount_per_rate, peak * amount_per_rate, share)

    known = [
        by_tasks(limits.FARGATE_VCPUS, _known(limits.FARGATE_VCPUS) / setup.task.vcpus, tasks * setup.task.vcpus),
        by_tasks(limits.ECS_TASKS, _known(limits.ECS_TASKS), tasks),
        by_amount(limits.DYNAMODB_NEW_TABLE_WRITES, process.write_units),
        by_amount(limits.DYNAMODB_TABLE_WRITES, process.write_units),
        *role_limits(setup, tasks, tasks_needed, of_task),
    ]
    if process.in_house_seconds:
        known.append(by_amount(limits.SQS_IN_FLIGHT, process.in_house_seconds / setup.source_queues, setup.utilisation))
    if setup.fifo:
        known.append(_fifo_requests(process, tasks * setup.processes_of_task))
    if process.apple_seconds:
        known.append(by_amount(limits.NAT_CONNECTIONS, process.apple_seconds, setup.utilisation))
    apple = LimitReached(limits.APPLE_VERIFY_RECEIPT, None, peak * load.apple_requests)
    if load.apple_limit_per_second is not None:
        at = load.apple_limit_per_second / load.apple_requests
        known.append(LimitReached(limits.APPLE_VERIFY_RECEIPT, at, apple.used))
    known.sort(key=lambda each: each.at_per_second or 0.0)
    return (*known, *([apple] if load.apple_limit_per_second is None else []))


def _fifo_requests(process: Process, processes: int) -> LimitReached:
    """How far so many processes get; each sends batches that are not full rather than let answers wait."""
    limit = limits.SQS_FIFO_REQUESTS
    queues = {Call.RECEIVE: process.setup.source_queues, Call.DELETE: process.setup.source_queues, Call.SEND: 1}

    def most_requests(rate: float) -> float:
        """Return the requests of the busiest kind to one queue: more receipts never take fewer."""
        each = rate / processes
        return max(process.requests_per_second(call, each) * processes / queues[call] for call in queues)

    enough, too_much = 0.0, 2 * _known(limit) * MAX_ENTRIES[Call.SEND] * process.setup.source_queues
    for _ in range(40):
        middle = (enough + too_much) / 2
        enough, too_much = (middle, too_much) if most_requests(middle) <= _known(limit) else (enough, middle)
    return LimitReached(limit, enough, most_requests(process.load.peak_per_second))


def _known(limit: Limit) -> float:
    assert limit.value is not None
    return limit.value


def _connections(settings: TaskSettings) -> int:
    """Count those of one process: to Apple, to DynamoDB, and of receives, sends, deletes and visibility changes."""
    of_all = math.ceil(settings.app_store_concurrency / settings.processes) + math.ceil(
        settings.ledger_concurrency / settings.processes
    )
    return of_all + settings.consumers + 3 * settings.batch_requests


def _memory_gb(task: TaskSize, needed_bytes: float) -> int:
    """Return the least memory that the task can be had with and that suffices; its most where none does."""
    least, most, step = task.memory_gb
    needed_gb = needed_bytes / 2**30 / 0.8  # a fifth for the system, buffers and what fragments
    return next((gb for gb in range(least, most + 1, step) if gb >= needed_gb), most)
