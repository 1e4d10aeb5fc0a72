"""How much it takes to carry a load, and what limits it first: the formula behind ``receipt-actors plan``. Pure.

With *u* for the utilisation, and *r* for the part of the peak rate that one process has:

processes
    The fewest at which none has more than *u* of what it carries at most: of its core (``1 / CPU of a receipt``), of
    its requests to Apple (``r x Apple's time``), of its ``MAX_IN_FLIGHT`` messages (``r x time in house``).
tasks
    One process for each vCPU, and spare tasks: the settings let the others carry the load alone.
in flight (Little's law)
    ``rate x time in house``: Apple's time, the ledger's, a send's, a delete's, and what entries wait.
entries a request
    A batch that is not full leaves at most once every ``pace``, and only while one of the ``slots`` is free; so
    ``entries = max(1, r x pace, r x seconds / slots)``, up to what the service allows. Requests a second are
    ``r / entries``: the more a process has to do, the fuller its batches, the cheaper a receipt.
CPU of a receipt
    ``base + requests for a receipt x cost of a request``; the base was measured without requests to AWS. With half the
    load batches are half as full, and a core is busy for more than half of the time: scale by the backlog.
roles
    Each task renews its lease by a read and a write of one item, which grows with the tasks.
what limits first
    For each limit of ``service_limits`` the rate at which it is reached; the lowest first. Of messages in flight and
    of connections only *u* counts, for both come in bursts. FIFO queues without high throughput take 300 requests of
    a kind each second, full or not: few big tasks get further than many small ones.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum

from receipt_actors.domain import service_limits as limits
from receipt_actors.domain.limits import BATCH_REQUESTS
from receipt_actors.domain.roles import RENEWALS_PER_LEASE, TAKEOVER_FACTOR, Role
from receipt_actors.domain.service_limits import SECONDS_A_MONTH, TASK_SIZES, Limit, TaskSize

MAX_IN_FLIGHT = 5_000  #: messages that one process carries well
ITEM_BYTES = 400  #: of a claim, attribute names included
ITEM_OVERHEAD_BYTES = 100  #: of a claim, that DynamoDB adds to the bill for storage
SPARE_FILES = 64  #: that a process has open beside its connections
MIN_APP_STORE_CONCURRENCY = 10  #: a handful that comes at once should not queue, however low the rate
ROLE_RECORD_BYTES = 100  #: of a group's item, without its members
ROLE_MEMBER_BYTES = 300  #: of each task in it
ACTIVE_TASKS = Limit(
    "receipt_actors",
    "tasks that work at once, with the role active-standby",
    1,
    "task",
    "the role's own",
    "take the role load-balanced, or larger tasks",
)


class Call(StrEnum):
    RECEIVE = "receive"
    SEND = "send"
    DELETE = "delete"
    CLAIM = "claim"


MAX_ENTRIES: Mapping[Call, int] = {Call.RECEIVE: 10, Call.SEND: 10, Call.DELETE: 10, Call.CLAIM: 25}


@dataclass(frozen=True, slots=True)
class Cost:
    """What a receipt was measured to cost."""

    machine: str  #: on which, for people
    cpu_seconds: float  #: of the whole process, for one receipt, when it has as much to do as it can, with
    requests: Mapping[Call, float]  #: so many requests for one receipt
    call_cpu_seconds: float  #: of one request, whatever is in it
    process_bytes: int  #: resident, with nothing in flight
    in_flight_bytes: int  #: resident, for one message, beside its body
    client: str  #: what asks Apple
    max_concurrency: int  #: requests to Apple at once that one process carries well, and that can be set for it

    @property
    def base_cpu_seconds(self) -> float:
        return max(0.0, self.cpu_seconds - sum(self.requests.values()) * self.call_cpu_seconds)


#: Costs by client; a CPU time of one's own machine may take the place of theirs.
CURL = Cost(
    machine="a virtual machine of 2 cores, CPython 3.11, services emulated on it, messages with 5 KB receipts",
    cpu_seconds=0.47e-3,
    requests={Call.RECEIVE: 0.1, Call.SEND: 0.1, Call.DELETE: 0.1, Call.CLAIM: 0.04},  # full batches
    # With all that wakes up for one more request where batches are not full. The request alone takes a quarter of that;
    # but at 1,000 receipts a second in two processes a receipt took 1.9 requests and 1.08 ms, at full load 1.4 requests
    # and 0.47 ms.
    call_cpu_seconds=0.9e-3,
    process_bytes=96_000_000,
    in_flight_bytes=125_000,  # most of it a connection to Apple, with TLS
    client="curl",
    max_concurrency=5_000,
)
REQUESTS = replace(CURL, cpu_seconds=1.08e-3, in_flight_bytes=12_288, client="requests", max_concurrency=200)
COSTS: Mapping[str, Cost] = {cost.client: cost for cost in (CURL, REQUESTS)}


@dataclass(frozen=True, slots=True)
class Load:
    """What is to be carried, and how. Numbers must be finite, and positive; times may be 0."""

    rate_per_second: float  #: receipts, in the long run: the bill is for these
    peak: float = 1.0  #: how many times that the highest rate is: everything is sized for this
    apple_seconds: float = 0.25  #: until Apple has answered
    ledger_seconds: float = 0.005
    queue_seconds: float = 0.010  #: a send or a delete
    message_bytes: int = 7_000  #: receipts of 5 KB, as base64
    claims: float = 1.0  #: transactions that a receipt claims
    apple_requests: float = 1.0  #: for one receipt: more with sandbox receipts, or retries
    apple_limit_per_second: float | None = None  #: known from experience; Apple documents none
    task: TaskSize = TASK_SIZES[1]
    spare_tasks: int = 1
    utilisation: float = 0.65  #: how much a process may have at the peak, of what it carries at most
    core_speed: float = 1.0  #: of a vCPU, against a core of the machine that was measured
    source_queues: int = 1  #: each read by a service of its own
    fifo: bool = False  #: source and post queue are FIFO queues, without high throughput
    role: Role = Role.ALONE  #: of all tasks
    lease_seconds: float = 10.0
    # The defaults of ``start``:
    consumers: int = 2  #: of a process: more than the rate needs make emptier receives
    ledger_concurrency: int = 50  #: of a task
    pace_seconds: float = 0.01  #: between two requests that are not full
    receive_wait_seconds: float = 10.0

    @property
    def peak_per_second(self) -> float:
        return self.rate_per_second * self.peak

    @property
    def processes_of_task(self) -> int:
        return math.floor(self.task.vcpus)

    @property
    def apple_seconds_of_receipt(self) -> float:
        return self.apple_requests * self.apple_seconds

    @property
    def in_house_seconds(self) -> float:
        # A message waits for others three times, half the pace on average: as a claim, as an answer and as a delete.
        requests = self.apple_seconds_of_receipt + self.ledger_seconds + 2 * self.queue_seconds
        return requests + 3 * self.pace_seconds / 2

    @property
    def write_units(self) -> float:
        return self.claims * math.ceil(ITEM_BYTES / limits.DYNAMODB_WRITE_UNIT_BYTES)


@dataclass(frozen=True, slots=True)
class Requests:
    """Requests of one kind, of all processes."""

    call: Call
    entries: float  #: in one of them, on average
    per_second: float  #: in the long run
    per_receipt: float
    billed_per_month: float  #: requests; for claims write units
    usd_per_month: float


@dataclass(frozen=True, slots=True)
class TaskSettings:
    """What to set for each task; with the role load-balanced concurrencies and the rate are for all tasks."""

    processes: int
    max_in_flight: int
    app_store_concurrency: int
    ledger_concurrency: int
    consumers: int
    app_store_rate_per_second: float | None = None  #: where it is known what Apple bears


@dataclass(frozen=True, slots=True)
class RolesTaken:
    """What it takes that tasks agree on roles."""

    takeover_seconds: float  #: at most, from the last sign of a task that is gone
    write_units_per_second: float  #: of the one item of the group
    usd_per_month: float


@dataclass(frozen=True, slots=True)
class LimitReached:
    """A limit, and the rate at which it is in the way."""

    limit: Limit
    at_per_second: float | None  #: receipts; None: not known
    used: float  #: of the limit at the planned peak, in its unit
    share: float = 1.0  #: of the limit, that may be used


@dataclass(frozen=True, slots=True)
class Capacity:
    load: Load
    cost: Cost
    processes_needed: int  #: to carry the peak
    tasks_needed: int  #: for these; the spare ones come on top
    tasks: int
    processes: int  #: in all tasks together
    bound_by: str  #: what keeps a process from doing more
    most_per_process_per_second: float  #: receipts that a process may have, by the utilisation that is aimed at
    cpu_seconds: float  #: a receipt at the peak, when all tasks are there
    cores_busy: float  #: each of them, then
    in_house_seconds: float  #: mean time from receive to delete
    in_flight: float  #: at the peak
    settings: TaskSettings
    requests: tuple[Requests, ...]
    write_units_per_second: float  #: at the peak
    ledger_growth_bytes_per_month: float
    apple_requests_per_second: float  #: at the peak
    apple_connections: float  #: at the peak, all tasks together
    connections_of_process: int  #: at most
    open_files_of_process: int  #: at most
    memory_of_process_bytes: int
    memory_of_task_gb: int
    usd_per_month: Mapping[str, float]  #: by service
    reached: tuple[LimitReached, ...]  #: the first limit first, then those that are not known
    roles: RolesTaken | None  #: None: each task is alone

    @property
    def exceeded(self) -> tuple[LimitReached, ...]:
        peak = self.load.peak_per_second
        return tuple(each for each in self.reached if each.at_per_second is not None and peak > each.at_per_second)


def plan_capacity(load: Load, cost: Cost) -> Capacity:
    peak = load.peak_per_second
    most_by_reason = _most_by_reason(load, cost)
    bound_by = min(most_by_reason, key=most_by_reason.__getitem__)
    needed = math.ceil(peak / most_by_reason[bound_by])
    tasks_needed = math.ceil(needed / load.processes_of_task)
    tasks = tasks_needed + load.spare_tasks
    processes = tasks * load.processes_of_task
    settings = _settings(load, peak / (tasks_needed * load.processes_of_task))  # while the spare tasks are away
    of_message = cost.in_flight_bytes + load.message_bytes
    # With as much in flight as may be, which is what an outage leads to.
    memory = cost.process_bytes + math.ceil(settings.max_in_flight / settings.processes) * of_message
    memory_gb = _memory_gb(load.task, memory * load.processes_of_task)
    connections = (
        math.ceil(settings.app_store_concurrency / settings.processes)
        + math.ceil(settings.ledger_concurrency / settings.processes)
        + settings.consumers
        + 3 * BATCH_REQUESTS  # sends, deletes and visibility changes
    )
    cpu = _cpu_seconds(load, cost, peak / processes)
    requests = tuple(_requests(load, call, processes) for call in Call)
    growth = load.rate_per_second * load.claims * (ITEM_BYTES + ITEM_OVERHEAD_BYTES) * SECONDS_A_MONTH
    roles = roles_taken(load, tasks)
    fargate_hour = load.task.vcpus * limits.FARGATE_VCPU_HOURS.usd + memory_gb * limits.FARGATE_GB_HOURS.usd
    return Capacity(
        load=load,
        cost=cost,
        processes_needed=needed,
        tasks_needed=tasks_needed,
        tasks=tasks,
        processes=processes,
        bound_by=bound_by,
        most_per_process_per_second=most_by_reason[bound_by],
        cpu_seconds=cpu / (peak / processes),
        cores_busy=cpu / load.core_speed,
        in_house_seconds=load.in_house_seconds,
        in_flight=peak * load.in_house_seconds,
        settings=_of_all_tasks(settings, load, tasks),
        requests=requests,
        write_units_per_second=peak * load.write_units,
        ledger_growth_bytes_per_month=growth,
        apple_requests_per_second=peak * load.apple_requests,
        apple_connections=peak * load.apple_seconds_of_receipt,
        connections_of_process=connections,
        open_files_of_process=SPARE_FILES + connections,
        memory_of_process_bytes=memory,
        memory_of_task_gb=memory_gb,
        usd_per_month={
            "SQS": sum(each.usd_per_month for each in requests if each.call is not Call.CLAIM),
            "DynamoDB writes": next(each.usd_per_month for each in requests if each.call is Call.CLAIM),
            "DynamoDB storage, for each month's claims": growth / 1e9 * limits.DYNAMODB_STORAGE.usd,
            **({} if roles is None else {"DynamoDB roles": roles.usd_per_month}),
            "Fargate": fargate_hour * SECONDS_A_MONTH / 3600 * tasks,
        },
        reached=_reached(load, tasks_needed, most_by_reason[bound_by] * load.processes_of_task),
        roles=roles,
    )


def _most_by_reason(load: Load, cost: Cost) -> dict[str, float]:
    """Return the highest rate for each of what a process runs out of, at the utilisation that is aimed at."""
    most = {"CPU": load.core_speed / cost.cpu_seconds}
    if load.apple_seconds_of_receipt:
        most[f"requests to Apple at once ({cost.client})"] = cost.max_concurrency / load.apple_seconds_of_receipt
    if load.in_house_seconds:
        most["messages in flight"] = MAX_IN_FLIGHT / load.in_house_seconds
    if load.queue_seconds:
        most["batches to a queue at once"] = BATCH_REQUESTS * MAX_ENTRIES[Call.SEND] / load.queue_seconds
    return {reason: rate * load.utilisation for reason, rate in most.items()}


def _cpu_seconds(load: Load, cost: Cost, rate: float) -> float:
    """CPU seconds a second; a core that is used up lets entries gather for longer, so there is no more than one."""
    calls = sum(_requests_per_second(load, call, rate) for call in Call)
    return min(rate * cost.base_cpu_seconds + calls * cost.call_cpu_seconds, load.core_speed)


def _entries(load: Load, call: Call, rate: float) -> float:
    if call is Call.CLAIM:
        slots = max(1.0, _ledger_concurrency(load, rate) / load.processes_of_task)
        seconds, pace_seconds, rate = load.ledger_seconds, load.pace_seconds, rate * load.claims
    elif call is Call.RECEIVE:
        slots = _consumers(load, rate)
        seconds, pace_seconds = load.queue_seconds, 0.0  # SQS answers with what it has
    else:
        slots, seconds, pace_seconds = BATCH_REQUESTS, load.queue_seconds, load.pace_seconds
    return min(float(MAX_ENTRIES[call]), max(1.0, rate * pace_seconds, rate * seconds / slots))


def _requests_per_second(load: Load, call: Call, rate: float) -> float:
    per_second = rate * (load.claims if call is Call.CLAIM else 1.0) / _entries(load, call, rate)
    if call is Call.RECEIVE:  # those that find nothing
        return max(per_second, _consumers(load, rate) / load.receive_wait_seconds)
    return per_second


def _requests(load: Load, call: Call, processes: int) -> Requests:
    rate = load.rate_per_second / processes
    entries = _entries(load, call, rate)
    per_second = _requests_per_second(load, call, rate) * processes
    if call is Call.CLAIM:
        billed, price = load.rate_per_second * load.write_units * SECONDS_A_MONTH, limits.DYNAMODB_WRITES
    else:
        parts = math.ceil(entries * load.message_bytes / limits.SQS_BILLED_BYTES) if call is Call.RECEIVE else 1
        billed, price = per_second * parts * SECONDS_A_MONTH, limits.SQS_REQUESTS
    return Requests(call, entries, per_second, per_second / load.rate_per_second, billed, billed * price.usd)


def _settings(load: Load, rate: float) -> TaskSettings:
    consumers = _consumers(load, rate)
    in_flight = rate * load.in_house_seconds / load.utilisation + consumers * MAX_ENTRIES[Call.RECEIVE]
    asking = max(MIN_APP_STORE_CONCURRENCY, rate * load.apple_seconds_of_receipt / load.utilisation)
    of_task = load.processes_of_task
    return TaskSettings(
        processes=of_task,
        max_in_flight=_rounded_up(in_flight * of_task),
        app_store_concurrency=_rounded_up(asking * of_task),
        ledger_concurrency=_ledger_concurrency(load, rate),
        consumers=consumers,
    )


def _consumers(load: Load, rate: float) -> int:
    return max(load.consumers, _slots(load, rate * load.queue_seconds, Call.RECEIVE))


def _ledger_concurrency(load: Load, rate: float) -> int:
    slots = _slots(load, rate * load.claims * load.ledger_seconds, Call.CLAIM)
    return max(load.ledger_concurrency, slots * load.processes_of_task)


def _slots(load: Load, busy: float, call: Call) -> int:
    """Requests under way with full batches, and slots free in time."""
    return math.ceil(busy / MAX_ENTRIES[call] / load.utilisation)


def _rounded_up(number: float) -> int:
    """Round up to two digits: what is set by hand should be easy to read."""
    exact = math.ceil(number - 1e-9)
    unit: int = 10 ** max(0, len(str(exact)) - 2)
    return math.ceil(exact / unit) * unit


def _of_all_tasks(settings: TaskSettings, load: Load, tasks: int) -> TaskSettings:
    """Give the settings that all tasks share, and each task's part of a rate that Apple bears."""
    rate = load.apple_limit_per_second
    if load.role is Role.LOAD_BALANCED:
        return replace(
            settings,
            app_store_concurrency=settings.app_store_concurrency * tasks,
            ledger_concurrency=settings.ledger_concurrency * tasks,
            app_store_rate_per_second=rate,
        )
    works = 1 if load.role is Role.ACTIVE_STANDBY else tasks
    return replace(settings, app_store_rate_per_second=None if rate is None else rate / works)


def _memory_gb(task: TaskSize, needed_bytes: float) -> int:
    """Return the least memory that the task can be had with and that suffices; its most where none does."""
    least, most, step = task.memory_gb
    needed_gb = needed_bytes / 2**30 / 0.8  # a fifth for the system, buffers and what fragments
    return next((gb for gb in range(least, most + 1, step) if gb >= needed_gb), most)


def roles_taken(load: Load, tasks: int) -> RolesTaken | None:
    """Return what so many tasks need of the table of roles; None where each is alone."""
    if load.role is Role.ALONE:
        return None
    item_bytes = ROLE_RECORD_BYTES + tasks * ROLE_MEMBER_BYTES
    per_second = tasks * RENEWALS_PER_LEASE / load.lease_seconds
    writes = per_second * math.ceil(item_bytes / limits.DYNAMODB_WRITE_UNIT_BYTES)
    reads = per_second * math.ceil(item_bytes / limits.DYNAMODB_READ_UNIT_BYTES)
    usd = (writes * limits.DYNAMODB_WRITES.usd + reads * limits.DYNAMODB_READS.usd) * SECONDS_A_MONTH
    return RolesTaken(load.lease_seconds * TAKEOVER_FACTOR, writes, usd)


def _reached(load: Load, tasks_needed: int, of_task_per_second: float) -> tuple[LimitReached, ...]:
    reached = list(_known_limits(load, tasks_needed, of_task_per_second))
    apple, apple_requests = limits.APPLE_VERIFY_RECEIPT, load.peak_per_second * load.apple_requests
    if load.apple_limit_per_second is not None:
        at_per_second = load.apple_limit_per_second / load.apple_requests
        reached.append(LimitReached(apple, at_per_second, apple_requests))
    reached.sort(key=lambda each: each.at_per_second or 0.0)
    return (*reached, *([LimitReached(apple, None, apple_requests)] if load.apple_limit_per_second is None else []))


def _known_limits(load: Load, tasks_needed: int, of_task_per_second: float) -> Iterator[LimitReached]:
    peak, tasks = load.peak_per_second, tasks_needed + load.spare_tasks

    def by_tasks(limit: Limit, tasks_allowed: float, used: float) -> LimitReached:
        at_per_second = max(0, math.floor(tasks_allowed) - load.spare_tasks) * of_task_per_second
        return LimitReached(limit, at_per_second, used)

    def by_amount(limit: Limit, amount_per_rate: float, share: float = 1.0) -> LimitReached:
        """A limit of which every receipt a second takes ``amount_per_rate``, and of which ``share`` may be used."""
        return LimitReached(limit, limit.known * share / amount_per_rate, peak * amount_per_rate, share)

    vcpus = load.task.vcpus
    yield by_tasks(limits.FARGATE_VCPUS, limits.FARGATE_VCPUS.known / vcpus, tasks * vcpus)
    yield by_tasks(limits.ECS_TASKS, limits.ECS_TASKS.known, tasks)
    yield by_amount(limits.DYNAMODB_NEW_TABLE_WRITES, load.write_units)
    yield by_amount(limits.DYNAMODB_TABLE_WRITES, load.write_units)
    if load.role is Role.ACTIVE_STANDBY:
        yield LimitReached(ACTIVE_TASKS, of_task_per_second, tasks_needed)
    elif load.role is Role.LOAD_BALANCED:
        # The writes to the one item of a group grow with the square of its tasks.
        limit, most = limits.DYNAMODB_PARTITION_WRITES, 1
        while _role_writes(load, most + 1) <= limit.known:
            most += 1
        yield by_tasks(limit, most, _role_writes(load, tasks))
    if load.in_house_seconds:
        yield by_amount(limits.SQS_IN_FLIGHT, load.in_house_seconds / load.source_queues, load.utilisation)
    if load.fifo:
        yield _fifo_requests(load, tasks * load.processes_of_task)
    if load.apple_seconds_of_receipt:
        yield by_amount(limits.NAT_CONNECTIONS, load.apple_seconds_of_receipt, load.utilisation)


def _role_writes(load: Load, tasks: int) -> float:
    taken = roles_taken(load, tasks)
    return 0.0 if taken is None else taken.write_units_per_second


def _fifo_requests(load: Load, processes: int) -> LimitReached:
    """How far so many processes get; each sends batches that are not full rather than let answers wait."""
    limit = limits.SQS_FIFO_REQUESTS
    queues = {Call.RECEIVE: load.source_queues, Call.DELETE: load.source_queues, Call.SEND: 1}

    def most_requests(rate: float) -> float:
        """Return the requests of the busiest kind to one queue: more receipts never take fewer."""
        return max(_requests_per_second(load, call, rate / processes) * processes / queues[call] for call in queues)

    enough, too_much = 0.0, 2 * limit.known * MAX_ENTRIES[Call.SEND] * load.source_queues
    for _ in range(40):
        middle = (enough + too_much) / 2
        enough, too_much = (middle, too_much) if most_requests(middle) <= limit.known else (enough, middle)
    return LimitReached(limit, enough, most_requests(load.peak_per_second))
