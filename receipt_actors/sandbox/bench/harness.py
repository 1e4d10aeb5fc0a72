"""One run of a program against the simulated services, measured."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from receipt_actors.sandbox.bench.measurement import (
    Measurement,
    in_flight_peak,
    percentiles_ms,
    slices,
    steady,
    steady_cpu_ms,
    steady_per_second,
)
from receipt_actors.sandbox.bench.program import Meter, Program, Usage, machine_cpu_seconds, own_cpu_seconds
from receipt_actors.sandbox.bench.services import Services
from receipt_actors.sandbox.services.load import Way

START_SECONDS = 60.0  #: until a program has asked for messages
REST_SECONDS = 0.25  #: a program that uses next to nothing for so long has come to rest
REST_SHARE = 0.1  #: of a core
REST_PATIENCE_SECONDS = 5.0
LOOK_SECONDS = 0.05  #: between two looks at a run
PATIENCE_SECONDS = 60.0  #: without a message that is finished
STOP_SECONDS = 60.0  #: from SIGTERM to the end

OnProgress = Callable[[int], object]
#: What a request to the App Store is counted as.
_QUESTIONS = {Way.VERIFY_RECEIPT: "verifyReceipt", Way.STOREKIT2: "verifyReceipt", Way.SERVER_API: "GetTransactionInfo"}


class BenchFailed(OSError):
    """A run that came to nothing: the program did not start, ended early, stood still, or ended with an error."""


def run(
    command: Sequence[str],
    services: Services,
    *,
    environment: Mapping[str, str] | None = None,
    rate: float | None = None,
    patience_seconds: float = PATIENCE_SECONDS,
    on_progress: OnProgress | None = None,
) -> Measurement:
    """Run ``command`` on the messages that ``services`` has prepared, and measure it.

    ``environment`` adds to the program's variables; ``rate`` makes so many messages available a second, instead of all
    at once; a run that finishes nothing for ``patience_seconds`` has failed: they are to be more than a lost message
    takes to come back; ``on_progress`` is called with how many messages are done, now and then. Raises ``BenchFailed``.
    """
    services.ask("aws", "begin")
    services.ask("app_store", "begin")
    with tempfile.TemporaryDirectory(prefix="receipt-actors-bench-") as folder:
        surroundings = {**services.environment, **(environment or {})}
        with closing(Program(command, surroundings, Path(folder) / "output")) as program:
            program.start()
            seen = _observe(program, services, rate, patience_seconds, on_progress or (lambda _: None))
            services.ask("aws", "finish")
            exit_code = program.stop(STOP_SECONDS)
            if exit_code is None:
                raise _failed(program, f"has not ended {STOP_SECONDS:g} s after SIGTERM")
            if exit_code != 0:
                raise _failed(program, f"ended with code {exit_code} after SIGTERM, expected 0")
    return Measurement(rate=rate, **seen, **_told(services))


def _observe(
    program: Program, services: Services, rate: float | None, patience_seconds: float, on_progress: OnProgress
) -> dict[str, Any]:
    """Give the program its load once it has started, and look on until all messages are done.

    Returns the fields of ``Measurement`` that can be seen of the processes.
    """
    messages = services.load.messages
    meters = {name: Meter(process_id) for name, process_id in services.process_ids.items()}
    first_receive_at = _wait_for_first_receive(program, services)
    start = _wait_for_rest(program)
    before = {name: meter.usage().cpu_seconds for name, meter in meters.items()}
    began_at, others_before = time.monotonic(), machine_cpu_seconds() - own_cpu_seconds()
    services.ask("aws", "go", rate=rate)
    looks = _watch(program, services, patience_seconds, on_progress)
    program_seconds = program.meter.usage(is_exact=True).cpu_seconds - start.cpu_seconds
    services_seconds = {name: meter.usage().cpu_seconds - before[name] for name, meter in meters.items()}
    ours = program_seconds + sum(services_seconds.values())
    others = machine_cpu_seconds() - own_cpu_seconds() - others_before - ours
    there_was = (time.monotonic() - began_at) * (os.cpu_count() or 1)
    return {
        "cpu_ms": 1000 * program_seconds / messages,
        "steady_cpu_ms": steady_cpu_ms([(done, usage.cpu_seconds) for done, usage in looks]),
        "services_cpu_ms": {name: 1000 * seconds / messages for name, seconds in services_seconds.items()},
        "start_seconds": first_receive_at - program.started_at,
        "start_cpu_seconds": start.cpu_seconds,
        "rss_start_bytes": start.rss_bytes,
        "rss_peak_bytes": max(usage.rss_bytes for usage in (start, *(usage for _, usage in looks))),
        "others_share": min(1.0, max(0.0, others / there_was)),
    }


def _told(services: Services) -> dict[str, Any]:
    """Return the fields of ``Measurement`` that the services tell of a run."""
    aws, app_store = services.ask("aws", "report"), services.ask("app_store", "report")
    received_at, deleted_at = ([at - aws["went_at"] for at in aws[name]] for name in ("received_at", "deleted_at"))
    messages = services.load.messages
    question = _QUESTIONS[Way(services.load.way)]
    seconds = max(deleted_at) - min(received_at)
    times = sorted(zip(received_at, deleted_at, strict=True))
    latencies = [gone - came for came, gone in times]
    return {
        "messages": messages,
        "body_bytes": len(services.load.body(0)),
        "seconds": seconds,
        "per_second": messages / seconds,
        "steady_per_second": steady_per_second(deleted_at),
        "in_flight_peak": in_flight_peak(received_at, deleted_at),
        "latency_ms": percentiles_ms(latencies),
        "steady_latency_ms": percentiles_ms(steady(latencies)),
        "apple_latency_ms": percentiles_ms(app_store["delays_seconds"]),
        "apple_concurrency_peak": app_store["concurrent_requests_high_water"],
        "requests": {**aws["requests"]["sqs"], **aws["requests"]["dynamodb"], question: app_store["requests"]},
        "entries": {**aws["entries"]["sqs"], **aws["entries"]["dynamodb"], question: app_store["requests"]},
        "wrong": aws["wrong"],
        "wrong_shown": aws["shown"],
        "redelivered": aws["redelivered"],
        "repeated": aws["repeated"],
        "slices": slices([(gone, gone - came) for came, gone in times]),
    }


def _wait_for_first_receive(program: Program, services: Services) -> float:
    deadline = time.monotonic() + START_SECONDS
    while True:
        first_receive_at: float | None = services.ask("aws", "progress")["first_receive_at"]
        if first_receive_at is not None:
            return first_receive_at
        if program.exit_code is not None:
            raise _failed(program, f"ended with code {program.exit_code} before it asked for messages")
        if time.monotonic() > deadline:
            raise _failed(program, f"has not asked for messages within {START_SECONDS:g} s")
        time.sleep(LOOK_SECONDS)


def _wait_for_rest(program: Program) -> Usage:
    """Wait until all that a start takes is done: its figures are apart."""
    deadline = time.monotonic() + REST_PATIENCE_SECONDS
    before = program.meter.usage(is_exact=True)
    while True:
        time.sleep(REST_SECONDS)
        now = program.meter.usage(is_exact=True)
        if now.cpu_seconds - before.cpu_seconds < REST_SHARE * REST_SECONDS or time.monotonic() > deadline:
            return now
        before = now


def _watch(
    program: Program, services: Services, patience_seconds: float, on_progress: OnProgress
) -> list[tuple[int, Usage]]:
    """Look at the run until all messages are deleted: how many were, and what was used by then."""
    looks = [(0, program.meter.usage())]
    last_progress_at = time.monotonic()
    while looks[-1][0] < services.load.messages:
        time.sleep(LOOK_SECONDS)
        deleted: int = services.ask("aws", "progress")["deleted"]
        usage = program.meter.usage()
        if deleted > looks[-1][0]:
            last_progress_at = usage.at
            on_progress(deleted)
        looks.append((deleted, usage))
        if program.exit_code is not None:
            raise _failed(program, f"ended with code {program.exit_code}, {deleted} messages done")
        if usage.at - last_progress_at > patience_seconds:
            raise _failed(program, f"has finished nothing for {patience_seconds:g} s, {deleted} messages done")
    return looks


def _failed(program: Program, what: str) -> BenchFailed:
    words = program.last_words()
    return BenchFailed(f"the program {what}" + (f"; its last words:\n{words}" if words else ", and has said nothing"))
