"""The machine lacks something for a while: an outage like any other, in which messages are kept."""

from __future__ import annotations

import json
import re
import resource
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from receipt_actors.sandbox.app_store import SimulatedAppStore
from receipt_actors.sandbox.receipts import Purchase, SampleReceipt

from .processes import Program
from .test_exhaustion import Machine
from .worlds import BUNDLE_ID, DEAD_LETTERS, RESULTS, SOURCE, EmbeddedWorld, World, genuine_messages

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="/proc, and limits of another process")

GENUINE = genuine_messages(60, 1615)
TOTALS = re.compile(r"stopped: (\d+) deliveries received, (\d+) messages answered")


def lowest_free_descriptor(program: Program) -> int:
    used = {int(entry.name) for entry in Path(f"/proc/{program.pid}/fd").iterdir()}
    return min(set(range(len(used) + 1)) - used)


@pytest.mark.parametrize("comes_first", [True, False], ids=["before the first message", "after it"])
def test_no_descriptors_left_is_an_outage(world: World, comes_first: bool) -> None:
    first, others = ([], GENUINE) if comes_first else (GENUINE[:20], GENUINE[20:])
    with SimulatedAppStore(latency_seconds=0.05) as store:
        program = world.start_consuming(store)
        world.send(first)
        program.wait_until(lambda: world.total(SOURCE) == 0, "the first are answered")
        limits = resource.prlimit(program.pid, resource.RLIMIT_NOFILE)
        resource.prlimit(program.pid, resource.RLIMIT_NOFILE, (lowest_free_descriptor(program), limits[1]))
        world.send(others)
        program.wait_until(
            lambda: "is unavailable" in program.stderr or has_answered(world), "it is met, or not needed"
        )
        resource.prlimit(program.pid, resource.RLIMIT_NOFILE, limits)
        program.wait_until(lambda: has_answered(world), "all are answered")
        program.wait_until(lambda: world.total(SOURCE) == 0, "all are deleted")
        program.stop()
    assert "crashed" not in program.stderr
    assert TOTALS.findall(program.stderr) == [(str(len(GENUINE)), str(len(GENUINE)))]
    assert world.total(DEAD_LETTERS) == 0


def has_answered(world: World) -> bool:
    return world.total(RESULTS) == len(GENUINE)


def test_a_verifier_that_can_not_start_is_an_outage(
    embedded: EmbeddedWorld, tmp_path: Path, store: SimulatedAppStore
) -> None:
    machine = Machine(tmp_path / "machine")
    embedded.environment.update(machine.environment)
    machine.runs_out_of("verifier")
    files = store.write_files(tmp_path)
    signed = [
        replace(
            sample,
            body=json.dumps(
                {
                    "receipt": store.sell_signed(SampleReceipt(BUNDLE_ID, (Purchase(str(5000 + number), "coins"),))),
                    "user_id": number,
                    "post_queue": RESULTS,
                }
            ),
        )
        for number, sample in enumerate(genuine_messages(40, 1616))
    ]
    program = embedded.start_consuming(store, apple_roots=files.roots, max_in_flight=200)
    embedded.send(signed)
    program.wait_for_log("signatures is unavailable")
    embedded.send(GENUINE)
    program.wait_until(lambda: embedded.total(RESULTS) == len(GENUINE), "app receipts are answered")
    machine.has_it_again("verifier")
    program.wait_until(lambda: embedded.total(SOURCE) == 0, "all are answered")
    program.stop()
    count = len(GENUINE) + len(signed)
    assert TOTALS.findall(program.stderr) == [(str(count), str(count))]
