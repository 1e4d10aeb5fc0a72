"""How much it takes to carry a load, and what limits it first: the formula behind ``receipt-actors plan``. Pure.

With *u* for the utilisation that is aimed at, and *r* for the part of the peak rate that one process has:

processes
    The least number at which none has more than *u* of what it carries at most: of the rate at which its core was
    measured to be used up (``1 / CPU of a receipt``), of the requests to Apple that it may have under way
    (``r x Apple's time``), of the ``MAX_IN_FLIGHT`` messages that it carries (``r x time in house``).
tasks
    One process for each vCPU, and spare tasks, so that the loss of one is no loss of answers in time. Settings are
    those with which the others carry the load alone.
in flight (Little's law)
    ``rate x time in house``, the time being Apple's, the ledger's, a send's and a delete's, and what entries wait.
entries a request
    A batcher sends what is no full batch once every ``pace``, at most, and only while one of its ``slots`` is free; so
    ``entries = max(1, r x pace, r x seconds / slots)``, at most what the service allows. Requests a second are
    ``r / entries``: the more a process has to do, the fuller its batches, the cheaper a receipt.
CPU of a receipt
    ``base + requests for a receipt x cost of a request``, where the base is what a receipt was measured to cost without
    its requests to AWS. So a core that is busy says little of how much more it could do: with half the load, batches
    are half as full, and it is busy for more than half of the time. Scale by the backlog.
roles
    Each task renews its lease some times while it lasts, by a read and a write of one item that grows with the tasks.
what limits first
    For each limit of ``service_limits`` the rate at which it is reached, all else being as planned; the lowest first.
    Of what is in flight and of connections only *u* of the limit counts as there, for both come in bursts. FIFO queues
    without high throughput take 300 requests of a kind each second, full or not: few big tasks get further than many
    small ones.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
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


# --- what a plan is made from, and what it says ---


class Call(StrEnum):
    """The requests that a receipt needs of AWS."""

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
    cpu_seconds_of_call: Mapping[Call, float]  #: of one request, whatever is in it
    process_bytes: int  #: resident, with nothing in flight
    in_flight_bytes: int  #: resident, for one message, beside its body
    client: str  #: what asks Apple
    max_concurrency: int  #: requests to Apple at once that one process carries well, and that can be set for it
    remarks: tuple[str, ...] = ()  #: what to know before it is relied upon, for people

    @property
    def base_cpu_seconds(self) -> float:
        """CPU of a receipt without its requests to AWS: Apple's request, JSON, and the actors."""
        requests = sum(self.requests[call] * self.cpu_seconds_of_call[call] for call in Call)
        return max(0.0, self.cpu_seconds - requests)


@dataclass(frozen=True, slots=True)
class Load:
    """What is to be carried."""

    rate_per_second: float  #: receipts, in the long run: the bill is for these
    peak: float = 1.0  #: how many times that the highest rate is: everything is sized for this
    apple_seconds: float = 0.25  #: until Apple has answered
    ledger_seconds: float = 0.005
    queue_seconds: float = 0.010  #: a send or a delete
    message_bytes: int = 7_000  #: receipts of 5 KB, as base64
    claims: float = 1.0  #: transactions that a receipt claims
    apple_requests: float = 1.0  #: for one receipt: more with sandbox receipts, or retries
    apple_limit_per_second: float | None = None  #: known from experience; Apple documents none

    @property
    def peak_per_second(self) -> float:
        """The rate that everything is sized for."""
        return self.rate_per_second * self.peak


@dataclass(frozen=True, slots=True)
class Setup:
    """How it is to be run. The settings are the least that are recommended."""

    task: TaskSize = TASK_SIZES[1]
    spare_tasks: int = 1
    utilisation: float = 0.65  #: how much a process may have at the peak, of what it carries at most
    core_speed: float = 1.0  #: of a vCPU, against a core of the machine that was measured
    consumers: int = 2  #: of a process: more than the rate needs make emptier receives
    ledger_concurrency: int = 50  #: of a task
    pace_seconds: float = 0.01  #: between two requests that are not full
    receive_wait_seconds: float = 10.0
    source_queues: int = 1  #: each read by a service of its own
    fifo: bool = False  #: source and post queue are FIFO queues, without high throughput
    role: Role = Role.ALONE  #: of all tasks
    lease_seconds: float = 10.0

    @property
    def processes_of_task(self) -> int:
        """One for each vCPU."""
        return math.floor(self.task.vcpus)


@dataclass(frozen=True, slots=True)
class Requests:
    """Requests of one kind, all processes together."""

    call: Call
    entries: float  #: in one of them, on average
    per_second: float  #: in the long run
    per_receipt: float
    billed_per_month: float  #: requests; for claims write units
    usd_per_month: float  #: requests of SQS share the tiers of its prices, by how many they are


@dataclass(frozen=True, slots=True)
class TaskSettings:
    """What to set for each task; limits are for all its processes together, consumers for each process.

    With the role load-balanced the concurrencies and the rate are for all tasks together.
    """

    processes: int
    max_in_flight: int
    app_store_concurrency: int
    ledger_concurrency: int
    consumers: int
    app_store_rate_per_second: float | None = None  #: where it is known what Apple bears


@dataclass(frozen=True, slots=True)
class RolesTaken:
    """What it takes that tasks agree on roles."""

    role: Role
    takeover_seconds: float  #: at most, from the last sign of a task that is gone
    write_units_per_second: float  #: of the one item of the group
    read_units_per_second: float
    usd_per_month: float


@dataclass(frozen=True, slots=True)
class LimitReached:
    """A limit, and the rate at which it is in the way."""

    limit: Limit
    at_per_second: float | None  #: receipts; None: not known
    used: float | None  #: of the limit at the planned peak, in its unit
    share: float = 1.0  #: of the limit, that may be used


@dataclass(frozen=True, slots=True)
class Capacity:
    """What it takes."""

    load: Load
    setup: Setup
    cost: Cost
    processes_needed: int  #: to carry the peak
    tasks_needed: int  #: for these; the spare ones come on top
    tasks: int
    bound_by: str  #: what keeps a process from doing more
    most_per_process_per_second: float  #: receipts that a process may have, by the utilisation that is aimed at
    cpu_seconds: float  #: a receipt at the peak, when all tasks are there
    cores_busy: float  #: each of them, then
    in_house_seconds: float  #: mean time from receive to delete
    in_flight: float  #: at the peak
    settings: TaskSettings
    requests: tuple[Requests, ...]
    write_units_per_second: float  #: at the peak
    partitions: int  #: that the table needs for that
    ledger_growth_bytes_per_month: float
    apple_requests_per_second: float  #: at the peak
    apple_connections: float  #: at the peak, all tasks together
    connections_of_task: int  #: at most
    open_files_of_process: int  #: at most
    memory_of_process_bytes: int
    memory_of_task_gb: int
    usd_per_month: Mapping[str, float]  #: by service
    reached: tuple[LimitReached, ...]  #: the first limit first, then those that are not known
    roles: RolesTaken | None = None  #: None: each task is alone

    @property
    def processes(self) -> int:
        """In all tasks together."""
        return self.tasks * self.setup.processes_of_task

    @property
    def exceeded(self) -> tuple[LimitReached, ...]:
        """The limits that are in the way of the planned peak."""
        peak = self.load.peak_per_second
        return tuple(each for each in self.reached if each.at_per_second is not None and peak > each.at_per_second)

    @property
    def first_limit(self) -> LimitReached:
        """The limit that the load meets first when it grows."""
        return self.reached[0]


# --- one process under its part of a load ---


class _Process:
    """One process under a part of the load: ``rate`` is what it has, in receipts a second."""

    def __init__(self, load: Load, setup: Setup, cost: Cost) -> None:
        self.load = load
        self.setup = setup
        self._cost = cost
        self.write_units = load.claims * math.ceil(ITEM_BYTES / limits.DYNAMODB_WRITE_UNIT_BYTES)
        # A message waits for others three times, half the pace on average: as a claim, as an answer and as a delete.
        self.apple_seconds = load.apple_requests * load.apple_seconds
        requests = self.apple_seconds + load.ledger_seconds + 2 * load.queue_seconds
        self.in_house_seconds = requests + 3 * setup.pace_seconds / 2

    def most_by_reason(self) -> dict[str, float]:
        """The highest rate for each of what a process runs out of, at the utilisation that is aimed at."""
        cost, setup = self._cost, self.setup
        most = {"CPU": setup.core_speed / cost.cpu_seconds}
        if self.apple_seconds:
            reason = f"requests to Apple at once ({cost.client})"
            most[reason] = cost.max_concurrency / self.apple_seconds
        if self.in_house_seconds:
            most["messages in flight"] = MAX_IN_FLIGHT / self.in_house_seconds
        if self.load.queue_seconds:
            most["batches to a queue at once"] = BATCH_REQUESTS * MAX_ENTRIES[Call.SEND] / self.load.queue_seconds
        return {reason: rate * setup.utilisation for reason, rate in most.items()}

    def cpu_seconds(self, rate: float) -> float:
        """CPU seconds a second; a core that is used up lets entries gather for longer, so there is no more than one."""
        cost = self._cost
        of_calls = sum(self.requests_per_second(call, rate) * cost.cpu_seconds_of_call[call] for call in Call)
        return min(rate * cost.base_cpu_seconds + of_calls, self.setup.core_speed)

    def entries(self, call: Call, rate: float) -> float:
        load, setup = self.load, self.setup
        slots = {
            Call.RECEIVE: self._consumers(rate),
            Call.CLAIM: max(1.0, self._ledger_concurrency(rate) / setup.processes_of_task),
        }.get(call, BATCH_REQUESTS)
        return entries_per_request(
            rate * load.claims if call is Call.CLAIM else rate,
            seconds=load.ledger_seconds if call is Call.CLAIM else load.queue_seconds,
            slots=slots,
            pace_seconds=0.0 if call is Call.RECEIVE else setup.pace_seconds,  # SQS answers with what it has
            max_entries=MAX_ENTRIES[call],
        )

    def requests_per_second(self, call: Call, rate: float) -> float:
        per_second = rate * (self.load.claims if call is Call.CLAIM else 1.0) / self.entries(call, rate)
        if call is Call.RECEIVE:  # those that find nothing
            return max(per_second, self._consumers(rate) / self.setup.receive_wait_seconds)
        return per_second

    def requests(self, call: Call, processes: int) -> Requests:
        """All processes together, at the rate of the long run."""
        load = self.load
        rate = load.rate_per_second / processes
        entries = self.entries(call, rate)
        per_second = self.requests_per_second(call, rate) * processes
        if call is Call.CLAIM:
            billed = load.rate_per_second * self.write_units * SECONDS_A_MONTH
            usd = billed * limits.DYNAMODB_WRITES.usd
        else:
            parts = math.ceil(entries * load.message_bytes / limits.SQS_BILLED_BYTES) if call is Call.RECEIVE else 1
            billed = per_second * parts * SECONDS_A_MONTH
            usd = 0.0  # the tiers are for all of SQS together
        return Requests(call, entries, per_second, per_second / load.rate_per_second, billed, usd)

    # --- what to set ---

    def settings(self, rate: float) -> TaskSettings:
        """Return what a task needs whose processes have this rate each."""
        setup = self.setup
        of_task = setup.processes_of_task
        consumers = self._consumers(rate)
        in_flight = rate * self.in_house_seconds / setup.utilisation + consumers * MAX_ENTRIES[Call.RECEIVE]
        asking = max(MIN_APP_STORE_CONCURRENCY, rate * self.apple_seconds / setup.utilisation)
        return TaskSettings(
            processes=of_task,
            max_in_flight=_rounded_up(in_flight * of_task),
            app_store_concurrency=_rounded_up(asking * of_task),
            ledger_concurrency=self._ledger_concurrency(rate),
            consumers=consumers,
        )

    def memory_bytes(self, settings: TaskSettings) -> int:
        """With as much in flight as may be, which is what an outage leads to."""
        of_message = self._cost.in_flight_bytes + self.load.message_bytes
        return self._cost.process_bytes + math.ceil(settings.max_in_flight / settings.processes) * of_message

    def _consumers(self, rate: float) -> int:
        return max(self.setup.consumers, self._slots(rate * self.load.queue_seconds, Call.RECEIVE))

    def _ledger_concurrency(self, rate: float) -> int:
        slots = self._slots(rate * self.load.claims * self.load.ledger_seconds, Call.CLAIM)
        return max(self.setup.ledger_concurrency, slots * self.setup.processes_of_task)

    def _slots(self, busy: float, call: Call) -> int:
        """Requests that must be under way at once when batches are full, and slots for them to be free in time."""
        return math.ceil(busy / MAX_ENTRIES[call] / self.setup.utilisation)


def entries_per_request(
    rate_per_second: float, *, seconds: float, slots: float, pace_seconds: float, max_entries: int
) -> float:
    """Return how many entries a request has on average, when entries come at this rate: see the module."""
    while_gathering = rate_per_second * pace_seconds
    while_busy = rate_per_second * seconds / slots
    return min(float(max_entries), max(1.0, while_gathering, while_busy))


def _rounded_up(number: float) -> int:
    """Round up to two digits: what is set by hand should be easy to read."""
    exact = math.ceil(number - 1e-9)
    unit: int = 10 ** max(0, len(str(exact)) - 2)
    return math.ceil(exact / unit) * unit


# --- all processes and tasks together, and the limits that they meet ---


def plan_capacity(load: Load, setup: Setup, cost: Cost) -> Capacity:
    """Work out what the load takes. Numbers must be finite, and positive; times may be 0."""
    process = _Process(load, setup, cost)
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
    requests = _with_shared_tiers([process.requests(call, tasks * of_task) for call in Call])
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
        settings=_with_roles(settings, load, setup, tasks),
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
            "Fargate": _fargate_usd_per_hour(setup.task, memory_gb) * SECONDS_A_MONTH / 3600 * tasks,
        },
        reached=_reached(process, most, tasks, tasks_needed),
        roles=roles,
    )


def _reached(process: _Process, most_per_second: float, tasks: int, tasks_needed: int) -> tuple[LimitReached, ...]:
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
        *_role_limits(setup, tasks, tasks_needed, of_task),
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


def _fifo_requests(process: _Process, processes: int) -> LimitReached:
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
    return of_all + settings.consumers + 3 * BATCH_REQUESTS


def _memory_gb(task: TaskSize, needed_bytes: float) -> int:
    """Return the least memory that the task can be had with and that suffices; its most where none does."""
    least, most, step = task.memory_gb
    needed_gb = needed_bytes / 2**30 / 0.8  # a fifth for the system, buffers and what fragments
    return next((gb for gb in range(least, most + 1, step) if gb >= needed_gb), most)


def _fargate_usd_per_hour(task: TaskSize, memory_gb: int) -> float:
    return task.vcpus * limits.FARGATE_VCPU_HOURS.usd + memory_gb * limits.FARGATE_GB_HOURS.usd


def _with_shared_tiers(requests: Sequence[Requests]) -> tuple[Requests, ...]:
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


# --- roles: renewals of leases, and limits that are of all tasks together ---


def roles_taken(setup: Setup, tasks: int) -> RolesTaken | None:
    """Return what so many tasks need of the table of roles; None where each is alone."""
    if setup.role is Role.ALONE:
        return None
    per_second = tasks * RENEWALS_PER_LEASE / setup.lease_seconds
    writes = per_second * _units(tasks, limits.DYNAMODB_WRITE_UNIT_BYTES)
    reads = per_second * _units(tasks, limits.DYNAMODB_READ_UNIT_BYTES)
    usd = (writes * limits.DYNAMODB_WRITES.usd + reads * limits.DYNAMODB_READS.usd) * SECONDS_A_MONTH
    return RolesTaken(setup.role, setup.lease_seconds * TAKEOVER_FACTOR, writes, reads, usd)


def _with_roles(settings: TaskSettings, load: Load, setup: Setup, tasks: int) -> TaskSettings:
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


def _role_limits(setup: Setup, tasks: int, tasks_needed: int, of_task_per_second: float) -> Iterator[LimitReached]:
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
    return math.ceil((ROLE_RECORD_BYTES + tasks * ROLE_MEMBER_BYTES) / unit_bytes)
