"""What a plan is made from, and what it says."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from receipt_actors.domain.roles import Role
from receipt_actors.domain.service_limits import TASK_SIZES, Limit, TaskSize


class Call(StrEnum):
    """The requests that a receipt needs of AWS."""

    RECEIVE = "receive"
    SEND = "send"
    DELETE = "delete"
    CLAIM = "claim"


MAX_ENTRIES: Mapping[Call, int] = {Call.RECEIVE: 10, Call.SEND: 10, Call.DELETE: 10, Call.CLAIM: 25}


@dataclass(frozen=True, slots=True)
class Client:
    """What asks Apple."""

    name: str
    max_concurrency: int  #: requests under way at once that one process carries well, and that can be set for it


@dataclass(frozen=True, slots=True)
class Cost:
    """What a receipt was measured to cost."""

    machine: str  #: on which, for people
    cpu_seconds: float  #: of the whole process, for one receipt, when it has as much to do as it can, with
    requests: Mapping[Call, float]  #: so many requests for one receipt
    cpu_seconds_of_call: Mapping[Call, float]  #: of one request, whatever is in it
    process_bytes: int  #: resident, with nothing in flight
    in_flight_bytes: int  #: resident, for one message, beside its body
    client: Client
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
    batch_requests: int = 4  #: at once, of each batcher of a process
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
    """What to set for each task; limits are for all its processes together, consumers and requests for each process.

    With the role load-balanced the concurrencies and the rate are for all tasks together.
    """

    processes: int
    max_in_flight: int
    app_store_concurrency: int
    ledger_concurrency: int
    consumers: int
    batch_requests: int
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
    at_per_second: float | None  #: receipts; None: nobody knows
    used: float | None  #: of the limit at the planned peak, in its unit
    share: float = 1.0  #: of the limit, that may be used

    def is_exceeded_at(self, rate_per_second: float) -> bool:
        """Tell whether this rate is more than the limit allows."""
        return self.at_per_second is not None and rate_per_second > self.at_per_second


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
    reached: tuple[LimitReached, ...]  #: the first limit first, then those that nobody knows
    roles: RolesTaken | None = None  #: None: each task is alone

    @property
    def processes(self) -> int:
        """In all tasks together."""
        return self.tasks * self.setup.processes_of_task

    @property
    def exceeded(self) -> tuple[LimitReached, ...]:
        """The limits that are in the way of the planned peak."""
        return tuple(each for each in self.reached if each.is_exceeded_at(self.load.peak_per_second))

    @property
    def first_limit(self) -> LimitReached:
        """The limit that the load meets first when it grows."""
        return self.reached[0]
