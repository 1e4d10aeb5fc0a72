"""How long it takes until another node works: of two, one active and one standing by, when the active one is gone.

::

    python -m tests.benchmark.takeover --output doc/takeover-figures.txt      # about half an hour
    python -m tests.benchmark.takeover --runs 1 --leases 1 --ways killed      # does everything still work?

The active node is **killed** (``kill -9``), **stopped** (``SIGSTOP``), **cut off** (nothing that it sends arrives, and
it hears nothing), told to **drain** (``SIGTERM``), or cut off from SQS alone (**no SQS**: nothing arrives there; **SQS
refused**: connections are; it renews its lease, and gives up its seat), at a random moment between two of its renewals,
with some messages in flight. Three times are taken from that moment on, by what services see: until the table has given
the seat to the other node, until that one's first receive comes to SQS, and until its first answer does.

The services are simulated on this machine: what a real network takes comes on top, some 10 ms a call. The App Store
takes a quarter of a second. Workers of a node of several processes (``--processes``) start in earnest when they have a
share for the first time, which is a part of its first takeover.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from receipt_actors.sandbox.app_store import SimulatedAppStore
from receipt_actors.sandbox.bench.measurement import machine
from receipt_actors.sandbox.load import Kind
from receipt_actors.sandbox.services import ServiceProcess
from tests.chaos.network import Cut, Network, Request
from tests.chaos.nodes import AwsSite, Node, is_receive, is_sqs
from tests.chaos.traffic import Traffic
from tests.system.processes import Programs
from tests.system.worlds import RESULTS

BACKLOG = 30  #: messages that wait to be received
APPLE_SECONDS = 0.25
PATIENCE_LEASES = 20  #: and a minute, for what takes one and a half


@dataclass(frozen=True, slots=True)
class Takeover:
    way: str
    lease_seconds: float
    seat: float
    receive: float
    answer: float


class Pair:
    def __init__(self, site: AwsSite, rng: random.Random, processes: int) -> None:
        self._site = site
        self._random = rng
        site.start("a", processes)
        site.start("b", processes)

    def take_over(self, way: str) -> Takeover:
        site = self._site
        victim: Node | None = None
        while site.seated != [victim]:  # a busy machine may have kept the one before from renewing
            victim = self._active()
            site.pass_time(self._random.uniform(0, site.lease_seconds / 2))
        assert victim is not None
        (other,) = (node for node in site.running if node is not victim)
        began_at = time.monotonic()
        _GONE[way](victim)
        self._wait_until(lambda: self._first(other, _is_answer, began_at), "the other one answers")
        seat = next(
            version.at_seconds
            for version in site.versions()
            if version.at_seconds > began_at and other.name in version.seats
        )
        receive, answer = (self._first(other, kind, began_at) for kind in (is_receive, _is_answer))
        assert receive is not None
        assert answer is not None
        times = (round(at_seconds - began_at, 3) for at_seconds in (seat, receive, answer))
        _BACK[way](site, victim)
        return Takeover(way, site.lease_seconds, *times)

    def _active(self) -> Node:
        self._wait_until(self._is_whole, "one works and the other one stands by")
        active = self._site.seated[0]
        self._wait_until(
            lambda: self._first(active, _is_answer, self._now) or active not in self._site.seated, "it answers"
        )
        return active

    @property
    def _now(self) -> float:
        return self._time.monotonic() - self._site.lease_seconds

    def _is_whole(self) -> bool:
        newest, running = self._site.newest(), {node.name for node in self._site.running}
        return newest is not None and newest.members.keys() == running and len(running) == 2 and len(newest.seats) == 1

    def _first(self, node: Node, kind: Callable[[Request], bool], after_seconds: float) -> float | None:
        requests = self._site.requests(lambda request: request.node == node.name and kind(request))
        return next((at for at in (each.came_at_seconds for each in requests) if at > after_seconds), None)

    def _wait_until(self, condition: Callable[[], object], what: str) -> None:
        self._site.wait_until(condition, what, 60 + PATIENCE_LEASES * self._site.lease_seconds)


def _is_answer(request: Request) -> bool:
    return request.operation == "SendMessageBatch" and request.target == RESULTS


_GONE: dict[str, Callable[[Node], object]] = {
    "killed": Node.kill,
    "stopped": lambda node: node.program.pause(),
    "cut off": lambda node: node.cut(Cut.DROPPED),
    "drain": Node.tell_to_end,
    "no SQS": lambda node: node.cut(Cut.DROPPED, is_sqs),
    "SQS refused": lambda node: node.cut(Cut.REFUSED, is_sqs),
}


def _start_again(site: AwsSite, node: Node) -> None:
    node.program.wait_for_end()
    site.start(node.name.rpartition(".")[0], site.processes_of(node.name))


_BACK: dict[str, Callable[[AwsSite, Node], object]] = {
    "killed": _start_again,
    "stopped": lambda _site, node: node.program.resume(),
    "cut off": lambda _site, node: node.mend(),
    "drain": _start_again,
    "no SQS": lambda _site, node: node.mend(),
    "SQS refused": lambda _site, node: node.mend(),
}


@contextmanager
def pair(lease_seconds: float, seed: int, processes: int) -> Iterator[Pair]:
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="receipt-takeover-"))
        programs = Programs(Path(folder))
        stack.callback(programs.close)
        services = ServiceProcess(["aws"])
        stack.callback(services.close)
        store = stack.enter_context(SimulatedAppStore(latency_seconds=APPLE_SECONDS))
        network = stack.enter_context(Network())
        sharing = {"role": "active-standby", "lease_seconds": lease_seconds, "drain_seconds": 10}
        site = AwsSite(programs, services, store, network, **sharing)
        stack.callback(site.close)
        traffic = Traffic(site.world, seed, without=(Kind.MALFORMED, Kind.TEMPORARY_FAILURE))
        stack.enter_context(traffic.flowing(BACKLOG))
        yield Pair(site, random.Random(seed), processes)


def measure(ways: Sequence[str], leases: Sequence[float], runs: int, processes: int) -> Iterator[Takeover]:
    for number, lease_seconds in enumerate(leases):
        with pair(lease_seconds, 1_000 + number, processes) as nodes:
            for _ in range(runs):
                for way in ways:
                    yield nodes.take_over(way)


def table(takeovers: Sequence[Takeover]) -> str:
    lines = [
        f"{'seconds until the other node':44}{'is active':>16}{'receives':>16}{'answers':>16}",
        f"{'the active one is':24}{'lease':>10}{'runs':>10}" + f"{'median':>8}{'worst':>8}" * 3,
    ]
    groups: dict[tuple[float, str], list[Takeover]] = {}
    for takeover in takeovers:
        groups.setdefault((takeover.lease_seconds, takeover.way), []).append(takeover)
    for (lease_seconds, way), group in groups.items():
        cells = ""
        for values in zip(*((each.seat, each.receive, each.answer) for each in group), strict=True):
            cells += f"{statistics.median(values):8.2f}{max(values):8.2f}"
        lines.append(f"{way:24}{lease_seconds:8g} s{len(group):10}{cells}")
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=20, help="of each way at each lease (default 20)")
    parser.add_argument("--leases", default="2,10", help="seconds (default 2,10)")
    parser.add_argument("--ways", default=",".join(_GONE), help="how the active node is gone (default all)")
    parser.add_argument("--processes", type=int, default=1, help="of each node (default 1)")
    parser.add_argument("--output", type=Path, help="file that gets the table, too")
    parser.add_argument("--json", type=Path, help="file that gets each of them")
    options = parser.parse_args(arguments)
    ways, leases = options.ways.split(","), [float(lease) for lease in options.leases.split(",")]
    done: list[Takeover] = []
    load_averages = [os.getloadavg()[0]]
    for takeover in measure(ways, leases, options.runs, options.processes):
        done.append(takeover)
        load_averages.append(os.getloadavg()[0])
        sys.stderr.write(f"{len(done)} of {len(ways) * len(leases) * options.runs}: {takeover}\n")
    where = machine(os.cpu_count() or 1)
    text = f"{where['cpu']}, {where['cores']} cores, {where['python']}; simulated services on the same machine,\n"
    text += f"which had load averages of {min(load_averages):.0f} to {max(load_averages):.0f} meanwhile\n\n"
    text += table(done)
    sys.stdout.write(text)
    if options.output is not None:
        options.output.write_text(text, encoding="utf-8")
    if options.json is not None:
        options.json.write_text(json.dumps([asdict(each) for each in done], indent=1), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
