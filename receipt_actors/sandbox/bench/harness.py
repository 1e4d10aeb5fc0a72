"""One run of a program against the simulated services, measured from outside. Needs ``psutil``."""

from __future__ import annotations

import os
import signal
import subprocess  # nosec B404
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import psutil

from receipt_actors.sandbox.bench.measurement import (
    Measurement,
    in_flight_peak,
    percentiles_ms,
    slices,
    steady,
    steady_cpu_ms,
    steady_per_second,
)
from receipt_actors.sandbox.bench.services import Services
from receipt_actors.sandbox.services.load import Way

START_SECONDS = 60.0  #: until a program has asked for messages
REST_SECONDS = 0.25  #: a program that uses next to nothing for so long has come to rest
REST_SHARE = 0.1  #: of a core
REST_PATIENCE_SECONDS = 5.0
LOOK_SECONDS = 0.05  #: between two looks at a run
PATIENCE_SECONDS = 60.0  #: without a message that is finished
STOP_SECONDS = 60.0  #: from SIGTERM to the end
CHILDREN_SECONDS = 1.0  #: maximum age of the list of children: making it looks at every process of the machine
MAX_TOLD_LINES = 20  #: of the output of a program that fails

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
    on_progress: OnProgress = lambda _: None,
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
        with closing(_Program(command, surroundings, Path(folder) / "output")) as program:
            program.start()
            seen = _observe(program, services, rate, patience_seconds, on_progress)
            services.ask("aws", "finish")
            program.stop()
    return Measurement(rate=rate, **seen, **_told(services))


def _observe(
    program: _Program, services: Services, rate: float | None, patience_seconds: float, on_progress: OnProgress
) -> dict[str, Any]:
    """Give the program its load once it has started, and look on until all messages are done.

    Returns the fields of ``Measurement`` that can be seen of the processes.
    """
    messages = services.load.messages
    meters = {name: _Meter(process_id) for name, process_id in services.process_ids.items()}
    first_receive_at = _wait_for_first_receive(program, services)
    start = _wait_for_rest(program.meter)
    before = {name: meter.usage().cpu_seconds for name, meter in meters.items()}
    began_at, others_before = time.monotonic(), _machine_cpu_seconds()
    services.ask("aws", "go", rate=rate)
    looks = _watch(program, services, patience_seconds, on_progress)
    program_seconds = program.meter.usage(is_exact=True).cpu_seconds - start.cpu_seconds
    services_seconds = {name: meter.usage().cpu_seconds - before[name] for name, meter in meters.items()}
    others = _machine_cpu_seconds() - others_before - program_seconds - sum(services_seconds.values())
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
    seconds = max(deleted_at) - min(received_at)
    times = sorted(zip(received_at, deleted_at, strict=True))
    latencies = [gone - came for came, gone in times]
    asked = {_QUESTIONS[Way(services.load.way)]: app_store["requests"]}
    return {
        "messages": services.load.messages,
        "body_bytes": len(services.load.body(0)),
        "seconds": seconds,
        "per_second": services.load.messages / seconds,
        "steady_per_second": steady_per_second(deleted_at),
        "in_flight_peak": in_flight_peak(received_at, deleted_at),
        "latency_ms": percentiles_ms(latencies),
        "steady_latency_ms": percentiles_ms(steady(latencies)),
        "apple_latency_ms": percentiles_ms(app_store["delays_seconds"]),
        "apple_concurrency_peak": app_store["concurrent_requests_high_water"],
        "requests": aws["requests"] | asked,
        "entries": aws["entries"] | asked,
        "slices": slices([(gone, gone - came) for came, gone in times]),
        **{name: aws[name] for name in ("wrong", "wrong_shown", "redelivered", "repeated")},
    }


def _wait_for_first_receive(program: _Program, services: Services) -> float:
    deadline = time.monotonic() + START_SECONDS
    while True:
        first_receive_at: float | None = services.ask("aws", "progress")["first_receive_at"]
        if first_receive_at is not None:
            return first_receive_at
        program.check("before it asked for messages")
        if time.monotonic() > deadline:
            raise program.failed(f"has not asked for messages within {START_SECONDS:g} s")
        time.sleep(LOOK_SECONDS)


def _wait_for_rest(meter: _Meter) -> _Usage:
    """Wait until all that a start takes is done: its figures are apart."""
    deadline = time.monotonic() + REST_PATIENCE_SECONDS
    before = meter.usage(is_exact=True)
    while True:
        time.sleep(REST_SECONDS)
        now = meter.usage(is_exact=True)
        if now.cpu_seconds - before.cpu_seconds < REST_SHARE * REST_SECONDS or time.monotonic() > deadline:
            return now
        before = now


def _watch(
    program: _Program, services: Services, patience_seconds: float, on_progress: OnProgress
) -> list[tuple[int, _Usage]]:
    """Look at the run until all messages are deleted: how many were, and what was used by then."""
    looks = [(0, program.meter.usage())]
    last_progress_at = time.monotonic()
    while looks[-1][0] < services.load.messages:
        time.sleep(LOOK_SECONDS)
        deleted: int = services.ask("aws", "progress")["deleted"]
        if deleted > looks[-1][0]:
            last_progress_at = time.monotonic()
            on_progress(deleted)
        looks.append((deleted, program.meter.usage()))
        program.check(f"with {deleted} messages done")
        if time.monotonic() - last_progress_at > patience_seconds:
            raise program.failed(f"has finished nothing for {patience_seconds:g} s, {deleted} messages done")
    return looks


# --- the processes ---


class _Usage(NamedTuple):
    cpu_seconds: float
    rss_bytes: int  #: pages that several processes share are counted for each


class _Program:
    """The program under test, in a session of its own, so that Ctrl-C is for who measures it.

    ``close`` leaves nothing behind. What it prints goes to the file ``output``.
    """

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], output: Path) -> None:
        self._command = list(command)
        self._environment = dict(environment)
        self._output = output
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it. A signal that comes meanwhile interrupts us when ``close`` knows the process, not before."""
        self.started_at = time.monotonic()
        with self._output.open("wb") as out, _interrupts_held():
            self._process = subprocess.Popen(  # nosec B603 # what is to be measured
                self._command,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            self.meter = _Meter(self._process.pid)

    def check(self, progress: str) -> None:
        """Raise ``BenchFailed`` if it has ended."""
        assert self._process is not None
        if (exit_code := self._process.poll()) is not None:
            raise self.failed(f"ended with code {exit_code} {progress}")

    def failed(self, what: str) -> BenchFailed:
        lines = self._output.read_text(encoding="utf-8", errors="replace").splitlines()
        words = "\n".join(lines[-MAX_TOLD_LINES:])
        return BenchFailed(
            f"the program {what}" + (f"; its last words:\n{words}" if words else ", and has said nothing")
        )

    def stop(self) -> None:
        """Send SIGTERM, and wait for the end. Raises ``BenchFailed`` if it does not end well."""
        assert self._process is not None
        self._process.terminate()
        try:
            exit_code = self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            raise self.failed(f"has not ended {STOP_SECONDS:g} s after SIGTERM") from None
        if exit_code != 0:
            raise self.failed(f"ended with code {exit_code} after SIGTERM, expected 0")

    def close(self) -> None:
        """End it and its children at once, unless they have ended."""
        if self._process is not None:
            for process in self.meter.processes():
                with suppress(psutil.NoSuchProcess):
                    process.kill()
            self._process.wait()


@contextmanager
def _interrupts_held() -> Iterator[None]:
    """Hold up SIGINT and SIGTERM until the end of the block. Other threads than the main one get none anyway."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []
    numbers = (signal.SIGINT, signal.SIGTERM)
    handlers = {number: signal.signal(number, lambda number, _frame: came.append(number)) for number in numbers}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    if came:
        signal.raise_signal(came[0])


def _machine_cpu_seconds() -> float:
    """Return what all programs but this one have used; what a host gave to other machines counts as used."""
    times, own = psutil.cpu_times(), psutil.Process().cpu_times()
    used = sum(times) - times.idle - getattr(times, "iowait", 0.0) - getattr(times, "guest", 0.0)
    return float(used - own.user - own.system)


class _Meter:
    """Measures a process and its children."""

    def __init__(self, process_id: int) -> None:
        self._processes: list[psutil.Process] = []
        with suppress(psutil.NoSuchProcess):  # it has ended already
            self._processes = [psutil.Process(process_id)]
        self._looked_at = 0.0

    def processes(self) -> list[psutil.Process]:
        with suppress(psutil.NoSuchProcess):
            self._processes = [
                process for first in self._processes[:1] for process in (first, *first.children(recursive=True))
            ]
        self._looked_at = time.monotonic()
        return self._processes

    def usage(self, *, is_exact: bool = False) -> _Usage:
        """Measure; ``is_exact`` looks for new children first. A child that has ended counts with its parent."""
        if is_exact or time.monotonic() - self._looked_at > CHILDREN_SECONDS:
            self.processes()
        cpu_seconds, rss_bytes = 0.0, 0
        for process in self._processes:
            with suppress(psutil.NoSuchProcess):
                times = process.cpu_times()
                rss_bytes += process.memory_info().rss
                cpu_seconds += times.user + times.system + times.children_user + times.children_system
        return _Usage(cpu_seconds, rss_bytes)
