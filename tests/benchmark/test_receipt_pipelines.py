"""The pipelines that stand beside ours in the benchmark keep the contract, and the harness finds out one that does not.

The one on aiobotocore needs an environment of its own, whose Python ``ASYNCIO_PYTHON`` names; else it is left out here.
``tox -e benchmark-receipts`` makes such an environment, and checks all answers too.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from receipt_actors.sandbox.bench import BenchFailed, Load, ServiceOptions, Services, run
from tests.benchmark.receipts import ROOT, Program, asyncio_pipeline, threads

MESSAGES = 200
ENVIRONMENT = {"PYTHONPATH": str(ROOT)}
PATIENCE_SECONDS = 180.0  #: more than their visibility timeout, after which what a busy machine held up comes back
ASYNCIO_PYTHON = os.environ.get("ASYNCIO_PYTHON")
PROGRAMS = [
    threads(),
    pytest.param(
        asyncio_pipeline(Path(ASYNCIO_PYTHON or "python")),
        marks=pytest.mark.skipif(ASYNCIO_PYTHON is None, reason="ASYNCIO_PYTHON names no environment of its own"),
    ),
]
WRONG = """
from tests.benchmark.pipelines import threads_pipeline
threads_pipeline.Pipeline._claim = lambda self, item: "claimed_by_another_user"
threads_pipeline.main()
"""


@pytest.fixture(scope="module")
def services() -> Iterator[Services]:
    """Quick, but not so quick that a pipeline that does not await a confirmation could go unnoticed."""
    with Services(ServiceOptions(0.01, 0.005, 0.01, 0.005)) as services:
        yield services


@pytest.mark.parametrize("program", [*PROGRAMS, threads().several(2)], ids=lambda program: program.name)
def test_every_message_is_answered_rightly_and_then_deleted(services: Services, program: Program) -> None:
    services.prepare(Load(MESSAGES))
    environment = {**program.environment, **ENVIRONMENT}
    measurement = run(program.command, services, environment=environment, patience_seconds=PATIENCE_SECONDS)
    assert (measurement.wrong, measurement.wrong_shown) == (0, [])
    assert measurement.requests["verifyReceipt"] == MESSAGES


def test_a_program_that_is_wrong_or_ends_is_found_out(services: Services) -> None:
    services.prepare(Load(20))
    measurement = run([sys.executable, "-c", WRONG], services, environment=ENVIRONMENT)
    assert measurement.wrong == 2 * 20
    assert "INVALID" in measurement.wrong_shown[0]
    with pytest.raises(BenchFailed, match=r"(?s)ended with code 3 before it asked for messages.*no idea"):
        run([sys.executable, "-c", "print('no idea'); raise SystemExit(3)"], services)
