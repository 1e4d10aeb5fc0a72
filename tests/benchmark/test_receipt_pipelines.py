"""The pipelines that stand beside ours in the benchmark keep the contract. No figure is judged.

The one on aiobotocore needs an environment of its own, whose Python ``ASYNCIO_PYTHON`` names; else it is left out here.
``tox -e benchmark-receipts`` makes such an environment, and checks all answers too.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from receipt_actors.sandbox.bench import Latency, Load, ServiceOptions, Services, run
from tests.benchmark.receipts import Program, threads

MESSAGES = 200


@pytest.fixture(scope="module")
def services() -> Iterator[Services]:
    """Quick, but not so quick that an answer's confirmation could not be awaited in vain."""
    with Services(ServiceOptions(Latency(0.01, 0.005), 0.01, 0.005)) as services:
        services.prepare(Load(MESSAGES))
        yield services


@pytest.mark.parametrize("program", [threads(), threads().several(2)], ids=lambda program: program.name)
def test_every_message_is_answered_rightly_and_then_deleted(services: Services, program: Program) -> None:
    """As the services saw it: one OK each, one claim each, deleted only when the answer was confirmed."""
    measurement = run(program.command, services, environment=program.environment)
    assert (measurement.wrong, measurement.wrong_shown) == (0, [])
    assert {measurement.requests[name] for name in ("PutItem", "SendMessage", "DeleteMessage")} == {MESSAGES}
