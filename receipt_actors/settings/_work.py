"""How much is done at once, how often it is tried, and how long it may take."""

from __future__ import annotations

import re
import select
from math import ceil
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

from receipt_actors.domain.limits import (
    DEFAULT_CURL_CONCURRENCY,
    MAX_BLOCKING_CONCURRENCY,
    MAX_CURL_CONCURRENCY,
    Limits,
)
from receipt_actors.domain.ports import MAX_VISIBILITY_SECONDS
from receipt_actors.settings_model.fields import Expected
from receipt_actors.settings_model.model import SomeSettings
from receipt_actors.stores.apple.settings import SERVER_API, SERVER_API_RATE_PER_SECOND


def most_requests(transport: str) -> int:
    """How many requests to Apple one process can have under way."""
    return MAX_CURL_CONCURRENCY if uses_curl(transport) else MAX_BLOCKING_CONCURRENCY


def uses_curl(transport: str) -> bool:
    """Say whether requests are made by libcurl, so that no thread waits for each."""
    return transport == "auto" and curl_fault() is None


def curl_fault() -> str | None:
    """Say why libcurl can't be used here; None where it can."""
    if not hasattr(select, "epoll"):
        return "it needs Linux's epoll"
    try:
        import pycurl
    except ImportError as error:  # also where it is there, and its libcurl is not, or has another TLS library
        return f"{error}; pip install pycurl"
    found = pycurl.version.split()[0]  # such as PycURL/7.49.0
    if tuple(map(int, re.findall(r"[0-9]+", found)[:2])) < (7, 49):  # a distribution's own, say
        return f"{found} is older than 7.49"
    return None


def _count_or_auto(value: object) -> object:
    if value == "auto":
        return value
    try:
        count = int(value) if isinstance(value, str | int) else 0
    except ValueError:
        count = 0
    if count < 1:
        raise PydanticCustomError("count", "no count")
    return count


Processes = Annotated[
    int | Literal["auto"], BeforeValidator(_count_or_auto), Expected("an integer, 1 or more, or auto")
]


class WorkSettings(SomeSettings, frozen=True):
    """How much is done at once, and how long it may take."""

    processes: Processes = Field(
        default=1,
        description="Processes of `start` that share the work, supervised by one more; auto: one for each core that "
        "may be used. What is said of all processes is divided among them.",
    )
    consumers: int = Field(default=4, ge=1, description="Receives under way at once, in each process.")
    max_in_flight: int = Field(
        default=2000, ge=1, description="Messages taken in and not finished yet, at most; by all processes together."
    )
    visibility_timeout_seconds: int = Field(
        default=120,
        ge=10,
        le=MAX_VISIBILITY_SECONDS,
        description="Time after which a message comes back if this process dies. It is extended while work goes on.",
    )
    receive_wait_seconds: int = Field(
        default=10,
        ge=0,
        le=20,
        description="Long poll of a receive; shorter than the drain. With exit_when_idle_seconds it is no longer than "
        "that, or than 1 s: its answer is waited for.",
    )
    transport: Literal["auto", "threads"] = Field(
        default="auto",
        description="How Apple, SQS and DynamoDB are called. auto has libcurl make any number of requests at once, at "
        "a fraction of the cost, where it can: on Linux with pycurl, and not through a proxy. threads keeps a thread "
        "for each request under way.",
    )
    app_store_concurrency: int | None = Field(
        default=None,
        ge=1,
        description="Requests to Apple under way at once, of all processes, and of all nodes of a group. Left out: a "
        f"process has {DEFAULT_CURL_CONCURRENCY}, of at most {MAX_CURL_CONCURRENCY}; one with threads "
        f"{MAX_BLOCKING_CONCURRENCY}, of as many.",
    )
    app_store_rate_per_second: float | None = Field(
        default=None,
        gt=0,
        description="Requests to Apple a second, of all processes, and of all nodes of a group. Left out: no limit for "
        f"verifyReceipt, and {SERVER_API_RATE_PER_SECOND:g} for the App Store Server API, as Apple documents.",
    )
    ledger_concurrency: int = Field(
        default=50,
        ge=1,
        description="Requests to the ledger under way at once, of all processes, and of all nodes of a group.",
    )
    drain_seconds: float = Field(
        default=25, gt=0, description="Time to finish what is in flight when the process is told to stop."
    )
    exit_when_idle_seconds: float | None = Field(
        default=None,
        ge=0,
        description="Stop after this time without a message, once every source queue has said since the last one that "
        "it has none to give. Hidden ones (handed back for later, or had by a process that was killed) are left to the "
        "next run. Who can't ask the queues waits. Left out: run until told to stop.",
    )

    @field_validator("app_store_rate_per_second")
    @classmethod
    def _the_server_api_has_a_limit(cls, per_second: float | None, info: ValidationInfo) -> float | None:
        if per_second is None and info.data.get("app_receipts") == SERVER_API:
            return SERVER_API_RATE_PER_SECOND
        return per_second

    @field_validator("drain_seconds")
    @classmethod
    def _a_drain_outlasts_a_receive(cls, seconds: float, info: ValidationInfo) -> float:
        wait = info.data.get("receive_wait_seconds", 0)
        if seconds <= wait:
            raise ValueError(f"expected more than receive_wait_seconds ({wait}): a drain waits for receives under way")
        return seconds

    @property
    def effective_receive_wait_seconds(self) -> int:
        """Long poll of a receive of source queues: of a batch run, which ends by its answer, no longer than need be."""
        wait, limit = self.receive_wait_seconds, self.exit_when_idle_seconds
        if limit is None or limit >= wait:
            return wait
        return max(1, ceil(limit))  # only a long poll asks all servers of a queue

    @property
    def uses_curl(self) -> bool:
        """Whether libcurl makes the requests, so that no thread waits for each."""
        return uses_curl(self.transport)

    @property
    def effective_app_store_concurrency(self) -> int:
        """Requests to Apple that one process may ever have under way."""
        concurrency = self.limits_of(1).app_store_concurrency
        return min(concurrency, most_requests(self.transport))

    def limits_of(self, processes: int) -> Limits:
        """Return what so many processes keep to together."""
        a_process = DEFAULT_CURL_CONCURRENCY if self.uses_curl else MAX_BLOCKING_CONCURRENCY
        by_default = min(self.max_in_flight, a_process * processes)
        concurrency = self.app_store_concurrency or by_default
        return Limits(self.max_in_flight, self.ledger_concurrency, concurrency, self.app_store_rate_per_second)

    @field_validator("app_store_concurrency")
    @classmethod
    def _no_process_has_too_many_requests(cls, concurrency: int | None, info: ValidationInfo) -> int | None:
        transport, processes = info.data.get("transport"), info.data.get("processes")
        if (
            concurrency is None or transport is None or not isinstance(processes, int)
        ):  # a fault told already, or "auto"
            return concurrency
        if info.data.get("role") == "load-balanced":  # other nodes have a part of it
            return concurrency
        if concurrency <= most_requests(transport) * processes:
            return concurrency
        if uses_curl(transport):
            raise ValueError(f"expected at most {MAX_CURL_CONCURRENCY} a process; or give more processes")
        remedy = "with transport auto" if (fault := curl_fault()) is None else f"with libcurl ({fault})"
        raise ValueError(
            f"expected at most {MAX_BLOCKING_CONCURRENCY} a process with threads, of which each request takes one; "
            f"up to {MAX_CURL_CONCURRENCY} a process {remedy}"
        )

    @field_validator("max_in_flight", "ledger_concurrency", "app_store_concurrency")
    @classmethod
    def _each_process_has_a_share(cls, whole: int | None, info: ValidationInfo) -> int | None:
        processes = info.data.get("processes")
        if whole is not None and isinstance(processes, int) and whole < processes:
            raise ValueError(f"expected {processes} or more: each of the {processes} processes gets a share of it")
        return whole
