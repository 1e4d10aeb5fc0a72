"""What it costs to be looked at: an open page of the dashboard, and a scrape every five seconds, under full load.

::

    python -m tests.benchmark.dashboard                               # 7 pairs of runs, about five minutes
    python -m tests.benchmark.dashboard --processes 2
    python -m tests.benchmark.dashboard --pairs 1 --messages 2000     # does everything still work?

Two runs make a pair: one without an admin port, and one with a page open on it from before the first message to after
the last, read as a browser reads it, and ``/metrics``. Which of the two is first changes from pair to pair, so that
what disturbs the machine for a while disturbs both. The services have no latency: the program has all the load that it
can take. Every answer is checked. Two figures come of it:

* ``cost``: by how much the CPU time a receipt differs, of the program and all its children, from outside. All is in it,
  and so is what else the machine does.
* ``port``: the CPU time of the port's own threads, by the clocks of these threads: milliseconds in a second, and as a
  share of the program's. It is exact. What looking costs other threads (a question for the depths of queues every few
  seconds) is not in it. It is the same each second however much is done: the share is larger where the program does not
  get all of a core.

What the reader takes is in neither.
"""

from __future__ import annotations

import argparse
import http.client
import os
import runpy
import socket
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from receipt_actors.sandbox.bench import BenchFailed, Latency, Load, Measurement, ServiceOptions, Services, run
from receipt_actors.sandbox.bench.figures import machine
from tests.ports import reserved_port

ROOT = Path(__file__).parents[2]
METERED = "--metered"  # first word of this module's command line where it stands for the program
METER_SECONDS = 1.0
SCRAPE_SECONDS = 5.0
RETRY_SECONDS = 0.05  # until the port is open


class Onlooker:
    """An open page and a scraper, each on a thread; counts what they have seen."""

    def __init__(self, port: int) -> None:
        self.pictures = 0
        self.scrapes = 0
        self._port = port
        self._page: socket.socket | None = None
        self._is_over = threading.Event()
        self._threads = [threading.Thread(target=each, daemon=True) for each in (self._look, self._scrape)]

    def __enter__(self) -> Onlooker:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        if self._page is not None:
            with suppress(OSError):
                self._page.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()

    def _look(self) -> None:
        while not self._is_over.is_set():
            with suppress(OSError, http.client.HTTPException), self._get("/api/events") as response:
                for line in response:
                    self.pictures += line.startswith(b"data: ")
            self._is_over.wait(RETRY_SECONDS)

    def _scrape(self) -> None:
        while not self._is_over.is_set():
            is_done = False
            with suppress(OSError, http.client.HTTPException), self._get("/metrics") as response:
                is_done = bool(response.read()) and response.status == 200
            self.scrapes += is_done
            self._is_over.wait(SCRAPE_SECONDS if is_done else RETRY_SECONDS)

    @contextmanager
    def _get(self, path: str) -> Iterator[http.client.HTTPResponse]:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=60)
        with closing(connection):
            connection.connect()
            if path == "/api/events":
                self._page = connection.sock
            connection.request("GET", path)
            with closing(connection.getresponse()) as response:
                yield response


@dataclass(frozen=True, slots=True)
class Pair:
    """Two runs, one after the other."""

    alone: Measurement
    watched: Measurement
    pictures: int
    scrapes: int
    port_cpu_seconds: float

    @property
    def port_ms(self) -> float:
        """What the port's threads take in a second."""
        return 1000 * self.port_cpu_seconds / self.watched.seconds

    @property
    def port(self) -> float:
        """The share of the port's threads in the CPU time of the program."""
        return 1000 * self.port_cpu_seconds / self.watched.messages / self.watched.cpu_ms

    @property
    def cost(self) -> float:
        """What the onlooker adds to the CPU time a receipt, as a share of it."""
        return self.watched.cpu_ms / self.alone.cpu_ms - 1


def measure(services: Services, flags: Sequence[str], pairs: int) -> Iterator[Pair]:
    start = ["start", "--backend", "aws", "--log-level", "WARNING", *flags]

    def alone() -> Measurement:
        return _checked(run([sys.executable, "-m", "receipt_actors", *start], services))

    def watched() -> tuple[Measurement, Onlooker, float]:
        with reserved_port() as port, tempfile.TemporaryDirectory() as folder, Onlooker(port) as onlooker:
            meter = Path(folder) / "meter"
            readings: list[float] = []  # while messages are finished
            metered = [sys.executable, "-m", "tests.benchmark.dashboard", METERED, str(meter)]
            measurement = run(
                [*metered, *start, "--admin", f"127.0.0.1:{port}"],
                services,
                environment={"PYTHONPATH": str(ROOT)},
                on_progress=lambda _done: readings.append(float(meter.read_text())),
            )
            return _checked(measurement), onlooker, readings[-1] - readings[0]

    for number in range(pairs):
        if number % 2:
            (with_it, onlooker, port_cpu_seconds), without = watched(), alone()
        else:
            without, (with_it, onlooker, port_cpu_seconds) = alone(), watched()
        yield Pair(without, with_it, onlooker.pictures, onlooker.scrapes, port_cpu_seconds)


def run_metered(file: Path, arguments: Sequence[str]) -> None:
    """Be the program, and keep in a file what its threads of the admin port have taken."""
    spent: dict[int, float] = {}
    new = file.with_suffix(".new")

    def look() -> None:
        while True:
            for thread in threading.enumerate():
                if thread.name.startswith("receipt-actors-admin") and thread.ident is not None:
                    with suppress(OSError):  # it has just ended
                        spent[thread.ident] = time.clock_gettime(time.pthread_getcpuclockid(thread.ident))
            new.write_text(str(sum(spent.values())))
            new.replace(file)
            time.sleep(METER_SECONDS)

    threading.Thread(target=look, daemon=True).start()
    sys.argv = ["receipt-actors", *arguments]
    runpy.run_module("receipt_actors", run_name="__main__", alter_sys=False)


def _checked(measurement: Measurement) -> Measurement:
    if measurement.wrong:
        raise BenchFailed(f"{measurement.wrong} answers are wrong, such as {measurement.wrong_shown[0]}")
    return measurement


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=7, help="of runs; medians are shown (default 7)")
    parser.add_argument("--messages", type=int, default=15_000, help="in each run (default 15000)")
    parser.add_argument("--processes", type=int, default=1, help="of the program (default 1)")
    options = parser.parse_args()
    where = machine(os.cpu_count() or 1)
    _say(f"{where['cpu']}, {where['cores']} cores, {where['python']}; {options.messages:,} messages a run")
    titles = f"{'alone: CPU ms':>15}{'watched: CPU ms':>17}{'cost':>8}{'port: ms/s':>12}{'port':>8}"
    _say(f"{'':8}{titles}{'seconds':>9}{'pictures':>10}{'scrapes':>9}")
    done: list[Pair] = []
    with Services(ServiceOptions(Latency(), 0.0, 0.0)) as services:
        services.prepare(Load(options.messages))
        for pair in measure(services, ["--processes", str(options.processes)], options.pairs):
            done.append(pair)
            _say(f"{f'pair {len(done)}':8}{_row([pair])}{pair.watched.seconds:9.1f}{pair.pictures:10}{pair.scrapes:9}")
    _say(f"{'median':8}{_row(done)}")
    return 0


def _row(pairs: Sequence[Pair]) -> str:
    alone = statistics.median(pair.alone.cpu_ms for pair in pairs)
    watched = statistics.median(pair.watched.cpu_ms for pair in pairs)
    cost = statistics.median(pair.cost for pair in pairs)
    port_ms = statistics.median(pair.port_ms for pair in pairs)
    port = statistics.median(pair.port for pair in pairs)
    return f"{alone:15.4f}{watched:17.4f}{cost:8.1%}{port_ms:12.2f}{port:8.2%}"


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    if sys.argv[1:2] == [METERED]:
        run_metered(Path(sys.argv[2]), sys.argv[3:])
    else:
        sys.exit(main())
