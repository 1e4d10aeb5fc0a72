"""The harness measures any program that keeps the contract, and finds out one that does not."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from receipt_actors.sandbox.bench import BenchFailed, Latency, Load, ServiceOptions, Services, run

ROOT = Path(__file__).parents[2]
ENVIRONMENT = {"PYTHONPATH": str(ROOT)}
WRONG = """
import asyncio
from tests.benchmark import bare

class Wrong(bare.Pipeline):
    async def _validate(self, number, message):
        entry = await super()._validate(number, message)
        return entry | {"MessageBody": entry["MessageBody"].replace("OK", "INVALID")}

bare.Pipeline = Wrong
asyncio.run(bare.main())
"""


@pytest.fixture(scope="module")
def services() -> Iterator[Services]:
    with Services(ServiceOptions(Latency(), 0.0, 0.0, tls=False)) as services:
        services.prepare(Load(200, receipt_bytes=200))
        yield services


def test_the_least_client_is_right(services: Services) -> None:
    """It does all that is asked of a pipeline, twice on the same services, and both times from an empty ledger."""
    for claims in (1, 25):
        measurement = run(
            [sys.executable, "-m", "tests.benchmark.bare"],
            services,
            environment=ENVIRONMENT | {"BARE_CLAIMS": str(claims)},
        )
        assert (measurement.wrong, measurement.wrong_shown) == (0, [])
        assert measurement.requests["verifyReceipt"] == 200
        operation = "PutItem" if claims == 1 else "BatchExecuteStatement"
        assert measurement.entries[operation] == 200
        assert measurement.fill("SendMessageBatch") == 10


def test_a_wrong_client_is_found_out(services: Services) -> None:
    """Each of its answers."""
    measurement = run([sys.executable, "-c", WRONG], services, environment=ENVIRONMENT)
    assert measurement.wrong == 200
    assert "INVALID" in measurement.wrong_shown[0]


def test_a_program_that_ends_by_itself_is_told(services: Services) -> None:
    """With its exit code and its last words, whether it asked for messages or not."""
    with pytest.raises(BenchFailed, match=r"(?s)ended with code 3 before it asked for messages.*no idea"):
        run([sys.executable, "-c", "print('no idea'); raise SystemExit(3)"], services)
