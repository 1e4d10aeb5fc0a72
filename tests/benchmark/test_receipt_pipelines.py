"""The pipelines that stand beside ours in the benchmark keep the contract, and the harness finds out one that does not.

The one on aiobotocore needs an environment of its own, whose Python ``ASYNCIO_PYTHON`` names; else it is left out here.
``tox -e benchmark-receipts`` makes such an environment, and checks all answers too.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import boto3
import pytest

from receipt_actors.aws import AwsQueues
from receipt_actors.domain.ports import OutgoingMessage
from receipt_actors.sandbox.bench import BenchFailed, Latency, Load, ServiceOptions, Services, run
from receipt_actors.sandbox.check import AnswerSeen, check
from receipt_actors.sandbox.load import Kind, Scenario, make_scenario
from receipt_actors.sandbox.services.load import BUNDLE_ID, POST_QUEUE, SOURCE_QUEUE
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
#: What a pipeline that moves nothing to the dead-letter queue can be asked to answer.
ANSWERED = (Kind.GENUINE, Kind.BUNDLE, Kind.REPLAYED, Kind.DUPLICATE, Kind.EXPIRED, Kind.REFUNDED, Kind.FOREIGN_APP)
WRONG = """
from tests.benchmark.pipelines import threads_pipeline
threads_pipeline.Pipeline._claim = lambda self, item: "claimed_by_another_user"
threads_pipeline.main()
"""


@pytest.fixture(scope="module")
def services() -> Iterator[Services]:
    """Quick, but not so quick that a pipeline that does not await a confirmation could go unnoticed."""
    with Services(ServiceOptions(Latency(0.01, 0.005), 0.01, 0.005)) as services:
        yield services


@pytest.fixture
def queues(services: Services) -> Iterator[AwsQueues]:
    services.prepare(Load(0))
    services.ask("aws", "begin")
    services.ask("aws", "go")
    session = boto3.Session("simulated", "simulated", region_name="eu-west-1")
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("AWS_ENDPOINT_URL", services.environment["AWS_ENDPOINT_URL"])
        with closing(AwsQueues(session)) as queues:
            yield queues


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


@pytest.mark.slow
@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.name)
def test_replays_and_refusals_get_what_they_get_from_us(
    services: Services, queues: AwsQueues, program: Program
) -> None:
    scenario = make_scenario(300, 7, BUNDLE_ID, POST_QUEUE)
    scenario = Scenario(7, tuple(message for message in scenario.messages if message.kind in ANSWERED))
    outgoing = [OutgoingMessage(message.body, message.attributes) for message in scenario.messages]
    for start in range(0, len(outgoing), 10):
        batch = outgoing[start : start + 10]
        assert queues.send(SOURCE_QUEUE, batch) == [None] * len(batch)
    process = subprocess.Popen(program.command, env={**services.environment, **program.environment, **ENVIRONMENT})
    try:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while services.ask("aws", "progress")["deleted"] < len(outgoing):
            assert time.monotonic() < deadline
            assert process.poll() is None
        services.ask("aws", "finish")
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE_SECONDS) == 0
    finally:
        process.kill()
        process.wait()
    assert check(scenario, list(_answers(queues)), []).wrong == ()


def _answers(queues: AwsQueues) -> Iterator[AnswerSeen]:
    while messages := queues.receive(POST_QUEUE, max_messages=10, wait_seconds=0, visibility_timeout_seconds=600):
        for message in messages:
            body = json.loads(message.body)
            reason = message.attributes["reason"]
            yield AnswerSeen(body["user_id"], body["transaction_id"], body["status"], reason)
