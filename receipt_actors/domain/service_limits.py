"""The limits and list prices of AWS and Apple, each with its unit and source: data for ``capacity`` and the manual."""

from __future__ import annotations

from dataclasses import dataclass

PRICES_AS_OF = "June 2026"  #: list prices of region us-east-1, in USD, without free tier, discounts and taxes
SECONDS_A_MONTH = 730 * 3600  #: AWS's own month

_SQS_QUOTAS = "SQS Developer Guide, quotas"
_DYNAMODB_QUOTAS = "DynamoDB Developer Guide, quotas"
_ECS_QUOTAS = "AWS General Reference, ECS quotas"


@dataclass(frozen=True, slots=True)
class Limit:
    service: str
    what: str
    value: float | None  #: None: it is not published, or there is practically none
    unit: str
    source: str
    remedy: str  #: what to do when it is in the way; an imperative

    @property
    def known(self) -> float:
        assert self.value is not None
        return self.value


@dataclass(frozen=True, slots=True)
class Price:
    service: str
    what: str
    usd: float
    unit: str  #: of which one costs so much


@dataclass(frozen=True, slots=True)
class TaskSize:
    vcpus: float
    memory_gb: tuple[int, int, int]  #: least, most, step (GiB)


SQS_BATCH_ENTRIES = Limit(
    "SQS", "entries of a receive, send or delete", 10, "entries", _SQS_QUOTAS, "gather them: that is what batchers do"
)
SQS_BATCH_BYTES = Limit(
    "SQS", "a message, and a batch of them", 1024 * 1024, "bytes", _SQS_QUOTAS, "send smaller receipts"
)
SQS_IN_FLIGHT = Limit(
    "SQS",
    "in flight on one queue, standard or FIFO",
    120_000,
    "messages",
    _SQS_QUOTAS,
    "use more source queues, each with its own service, or ask AWS for more",
)
SQS_STANDARD_REQUESTS = Limit(
    "SQS", "requests to a standard queue", None, "requests/s, practically unlimited", _SQS_QUOTAS, "nothing"
)
SQS_FIFO_REQUESTS = Limit(
    "SQS",
    "requests of a kind to a FIFO queue without high throughput",
    300,
    "requests/s",
    _SQS_QUOTAS,
    "turn high throughput on (FifoThroughputLimit perMessageGroupId), or use standard queues: claims, not the queue, "
    "see to it that a purchase counts once",
)

DYNAMODB_WRITE_UNIT_BYTES = 1024  #: a write of up to so many bytes takes one write unit
DYNAMODB_READ_UNIT_BYTES = 4096  #: a consistent read of up to so many bytes takes one read unit
DYNAMODB_NEW_TABLE_WRITES = Limit(
    "DynamoDB",
    "writes to a new on-demand table, at once",
    4_000,
    "write units/s",
    "DynamoDB Developer Guide, on-demand scaling",
    "set the table's warm throughput before the load comes, or let the load grow: it may double every 30 minutes",
)
DYNAMODB_TABLE_WRITES = Limit(
    "DynamoDB",
    "writes to one table, by default",
    40_000,
    "write units/s",
    _DYNAMODB_QUOTAS,
    "ask AWS for a higher table-level write quota",
)
DYNAMODB_PARTITION_WRITES = Limit(
    "DynamoDB",
    "writes to one partition",
    1_000,
    "write units/s",
    "DynamoDB Developer Guide, partition keys",
    "nothing: transaction ids spread evenly, and the table splits as it grows",
)
DYNAMODB_ITEM_BYTES = Limit(
    "DynamoDB", "an item", 400 * 1024, "bytes", _DYNAMODB_QUOTAS, "nothing: a claim has half a kilobyte"
)
DYNAMODB_BATCH_STATEMENTS = Limit(
    "DynamoDB", "claims of a batch (PartiQL)", 25, "statements", _DYNAMODB_QUOTAS, "nothing: it saves round trips"
)

FARGATE_VCPUS = Limit(
    "Fargate",
    "on-demand vCPUs of a new account",
    6,
    "vCPUs",
    _ECS_QUOTAS,
    'ask AWS to raise "Fargate On-Demand vCPU resource count"',
)
ECS_TASKS = Limit(
    "ECS", "tasks of one service", 5_000, "tasks", _ECS_QUOTAS, "use bigger tasks, or several services on one queue"
)
ECS_LAUNCHES = Limit(
    "ECS",
    "tasks launched for one service",
    500 / 60,
    "tasks/s",
    _ECS_QUOTAS,
    "scale ahead of the load, use bigger tasks",
)
FARGATE_STOP_SECONDS = Limit(
    "Fargate",
    "time from SIGTERM to SIGKILL",
    120,
    "seconds, 30 by default",
    "ECS Developer Guide, stopTimeout",
    "keep drain_seconds below it",
)
FARGATE_OPEN_FILES = Limit(
    "Fargate", "open files of a container", 65_535, "files", "ECS API Reference, Ulimit", "use smaller tasks"
)
NAT_CONNECTIONS = Limit(
    "NAT gateway",
    "connections to one destination, from one address",
    55_000,
    "connections",
    "VPC User Guide, NAT gateways",
    "give the NAT gateway more addresses (8 at most) or the tasks public ones",
)

APPLE_VERIFY_RECEIPT = Limit(
    "Apple",
    "requests to verifyReceipt",
    None,
    "requests/s, not documented",
    "Apple's documentation gives none",
    "raise the load by steps, watch for refusals, and set app_store_rate_per_second below what is refused",
)
APPLE_SERVER_API = Limit(
    "Apple",
    "requests to the App Store Server API, where app_receipts is server-api",
    50,
    "requests/s an app",
    "App Store Server API, rate limits",
    "have the app send StoreKit 2's signed transactions, which are verified here: no request, no limit",
)

#: All of them, in the order of the manual.
LIMITS: tuple[Limit, ...] = tuple(value for value in list(globals().values()) if isinstance(value, Limit))

SQS_BILLED_BYTES = 64 * 1024  #: every part of a request of so many bytes is billed as a request of its own
SQS_REQUESTS = Price("SQS", "the first 100 billion requests of a month; all beyond cost less", 0.40e-6, "request")
DYNAMODB_WRITES = Price("DynamoDB", "on-demand writes", 0.625e-6, "write unit")
DYNAMODB_READS = Price("DynamoDB", "on-demand reads", 0.125e-6, "read unit")
DYNAMODB_STORAGE = Price("DynamoDB", "storage", 0.25, "GB and month")
FARGATE_VCPU_HOURS = Price("Fargate", "Linux on x86", 0.04048, "vCPU and hour")
FARGATE_GB_HOURS = Price("Fargate", "memory", 0.004445, "GB and hour")

#: All of them, in the order of the manual.
PRICES: tuple[Price, ...] = tuple(value for value in list(globals().values()) if isinstance(value, Price))

#: What Fargate offers that has at least one vCPU, a core for a process.
TASK_SIZES: tuple[TaskSize, ...] = (
    TaskSize(1, (2, 8, 1)),
    TaskSize(2, (4, 16, 1)),
    TaskSize(4, (8, 30, 1)),
    TaskSize(8, (16, 60, 4)),
    TaskSize(16, (32, 120, 8)),
)
