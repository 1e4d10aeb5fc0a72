"""What it costs to verify a signed transaction: by Apple's library alone, with its chains remembered, and in processes.

::

    python -m tests.benchmark.signatures                    # medians of 5 runs of 5,000 signed transactions
    python -m tests.benchmark.signatures --runs 1 --count 200

The transactions are those of the simulated App Store, whose chain has the make of Apple's. CPU time is that of one
core; of processes, the first column is what they take from the process whose actors wait, the second what they take
themselves. "One at a time" is how long one takes that meets no others, from ``begin`` to ``done``.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import psutil
from appstoreserverlibrary.models.Environment import Environment as AppleEnvironment
from appstoreserverlibrary.signed_data_verifier import SignedDataVerifier

from receipt_actors.sandbox.apple_ca import default_authority
from receipt_actors.sandbox.bench.figures import machine
from receipt_actors.sandbox.receipts import Purchase, SampleReceipt
from receipt_actors.sandbox.signed_transactions import mint_signed
from receipt_actors.stores.apple.ports import SignatureRefused, SignedKind
from receipt_actors.stores.apple.signatures.apple_library import AppleSignedData
from receipt_actors.stores.apple.signatures.process import SignedDataProcess
from receipt_actors.stores.apple.signatures.trust import Trust
from tests.stores.apple.signing import Waiting
from tests.transport.places import running

BUNDLE_ID = "com.example.game"
WAIT_SECONDS = 600.0


@dataclass(frozen=True)
class Cost:
    """Of one signed transaction."""

    here_ms: float  #: CPU
    there_ms: float  #: CPU of the processes beside this one
    wall_ms: float  #: from the first to the last, divided


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmark.signatures")
    parser.add_argument("--count", type=int, default=5000)
    parser.add_argument("--runs", type=int, default=5)
    options = parser.parse_args(arguments)
    texts = [mint_signed(SampleReceipt(BUNDLE_ID, (Purchase(str(number)),))) for number in range(options.count)]
    roots = [default_authority().root]
    where = machine(os.cpu_count() or 1)
    _say(f"{where['cpu']}, {where['cores']} cores, {where['python']}")
    _say(f"{options.count:,} signed transactions of {len(texts[0]):,} characters")
    _say(f"{'':34}{'CPU ms here':>12}{'there':>8}{'a second':>10}")

    library = SignedDataVerifier(roots, False, AppleEnvironment.PRODUCTION, BUNDLE_ID, 1)
    few = texts[: max(1, options.count // 10)]
    _row("Apple's library alone", options.runs, lambda: _here(library.verify_and_decode_signed_transaction, few))
    _row("each chain for the first time", options.runs, lambda: _here(lambda text: _fresh(roots, text), few))
    remembering = AppleSignedData(roots)
    _row("chains remembered", options.runs, lambda: _here(remembering.verify_transaction, texts))
    with running(SignedDataProcess(lambda: Trust(roots))) as signed_data:
        waiting = Waiting(signed_data)
        waiting.verify_transaction(texts[0])
        _row("in a process beside this one", options.runs, lambda: _there(signed_data, texts))
        one_at_a_time = _here(waiting.verify_transaction, few).wall_ms
    _say(f"one at a time, in a process: {one_at_a_time:.3f} ms")
    return 0


def _fresh(roots: Sequence[bytes], text: str) -> object:
    return AppleSignedData(roots).verify_transaction(text)


def _here(verify: Callable[[str], object], texts: Sequence[str]) -> Cost:
    wall, cpu = time.perf_counter(), time.process_time()
    for text in texts:
        assert not isinstance(verify(text), SignatureRefused)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return Cost(1000 * cpu / len(texts), 0.0, 1000 * wall / len(texts))


def _there(signed_data: SignedDataProcess, texts: Sequence[str]) -> Cost:
    is_over = threading.Event()
    outcomes: list[object] = []

    def done(outcome: object) -> None:
        outcomes.append(outcome)
        if len(outcomes) == len(texts):
            is_over.set()

    worker = psutil.Process(signed_data.process_id)
    there = sum(worker.cpu_times()[:2])
    wall, cpu = time.perf_counter(), time.process_time()
    for text in texts:
        signed_data.begin(SignedKind.TRANSACTION, text, done)
    assert is_over.wait(WAIT_SECONDS)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    there = sum(worker.cpu_times()[:2]) - there
    assert all(isinstance(outcome, dict) for outcome in outcomes)
    return Cost(1000 * cpu / len(texts), 1000 * there / len(texts), 1000 * wall / len(texts))


def _row(name: str, runs: int, measure: Callable[[], Cost]) -> None:
    costs = [measure() for _ in range(runs)]
    here, there, wall = (
        statistics.median(getattr(cost, column) for cost in costs) for column in ("here_ms", "there_ms", "wall_ms")
    )
    _say(f"{name:34}{here:12.3f}{there:8.3f}{1000 / wall:10,.0f}")


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
