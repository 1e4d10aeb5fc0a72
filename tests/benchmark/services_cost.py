"""What the simulated services of ``receipt-actors bench`` cost themselves, met by the least that a client can do.

::

    python -m tests.benchmark.services_cost                    # medians of 5 runs of 20,000 messages
    python -m tests.benchmark.services_cost --runs 1 --messages 2000

CPU time is that of the whole process of each service, from the first message received to the last one deleted.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
from pathlib import Path

from receipt_actors.sandbox.bench import Latency, Load, ServiceOptions, Services, run
from receipt_actors.sandbox.bench.figures import machine

ROOT = Path(__file__).parents[2]
COMMAND = [sys.executable, "-m", "tests.benchmark.bare"]
CONDITIONS = {
    "claims in batches": (ServiceOptions(Latency(), 0.0, 0.0, tls=False), 25),
    "single claims": (ServiceOptions(Latency(), 0.0, 0.0, tls=False), 1),
    "in batches, TLS": (ServiceOptions(Latency(), 0.0, 0.0), 25),
    "in batches, latencies": (ServiceOptions(tls=False), 25),
    "in batches, latencies, TLS": (ServiceOptions(), 25),
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmark.services_cost")
    parser.add_argument("--messages", type=int, default=20_000)
    parser.add_argument("--runs", type=int, default=5)
    options = parser.parse_args()
    where = machine(os.cpu_count() or 1)
    _say(f"{where['cpu']}, {where['cores']} cores, {where['python']}; {options.messages:,} messages")
    _say(f"{'':28}{'receipts/s':>12}{'SQS+DynamoDB':>14}{'App Store':>12}{'client':>10}   CPU ms a receipt")
    wrong = 0
    for name, (services_options, claims) in CONDITIONS.items():
        with Services(services_options) as services:
            services.prepare(Load(options.messages))
            environment = {"BARE_CLAIMS": str(claims), "PYTHONPATH": str(ROOT)}
            runs = [run(COMMAND, services, environment=environment) for _ in range(options.runs)]
        rate = statistics.median(each.per_second for each in runs)
        aws = statistics.median(each.services_cpu_ms["aws"] for each in runs)
        app_store = statistics.median(each.services_cpu_ms["app_store"] for each in runs)
        client = statistics.median(each.cpu_ms for each in runs)
        _say(f"{name:28}{rate:12,.0f}{aws:14.3f}{app_store:12.3f}{client:10.3f}")
        wrong += sum(each.wrong for each in runs)
    return 1 if wrong else 0


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
