"""A start in a moment of trouble: it waits for what passes, and for nothing else."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import closing
from functools import partial

import pytest

from receipt_actors.sandbox.app_store import SimulatedAppStore
from tests.chaos.aws_proxy import AwsProxy

from .processes import Program
from .worlds import SOURCE, TABLE, AwsServer, AwsWorld, Refusal, genuine_messages

WORLD_FAILED = 1
ASKED_AT_THE_START = ("GetQueueUrl", "GetQueueAttributes", "GetItem")
FAULTS = ("refused", "throttled", "cut")
WAITS = "the start has to wait"


@pytest.fixture
def proxy(aws: AwsWorld, aws_server: AwsServer) -> Iterator[AwsProxy]:
    """Between the program and AWS; it passes everything on until a test says otherwise."""
    with closing(AwsProxy(aws_server.url, {}, seed=1613)) as proxy:
        aws.environment["AWS_ENDPOINT_URL"] = proxy.url
        yield proxy


@pytest.mark.parametrize("processes", [1, 2])
def test_a_start_among_faults_succeeds(aws: AwsWorld, proxy: AwsProxy, processes: int) -> None:
    """Half of what it asks is refused, throttled or cut off: it is told in one line a process, and all works."""
    proxy.rates = {operation: dict.fromkeys(FAULTS, 0.5 / len(FAULTS)) for operation in ASKED_AT_THE_START}
    messages = genuine_messages(3, 1614)
    with SimulatedAppStore() as store:
        program = aws.start(store, processes=processes)
        program.wait_for_log("take receipts from")
        aws.send(messages)
        program.wait_until(lambda: aws.total(SOURCE) == 0, "all is answered")
        program.send_signal(signal.SIGTERM)
        assert program.wait_for_end() == 0
    assert proxy.happened.total() > 0
    assert program.stderr.count(WAITS) <= processes


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("operation", ASKED_AT_THE_START)
def test_each_question_is_asked_again(aws: AwsWorld, proxy: AwsProxy, operation: str, fault: str) -> None:
    """Whatever it is that befalls the first of them."""
    proxy.rates = {operation: {fault: 1.0}}
    with SimulatedAppStore() as store:
        program = aws.start(store)
        program.wait_for_log(WAITS)
        proxy.calm()
        program.wait_for_log("take receipts from")
        program.send_signal(signal.SIGTERM)
        assert program.wait_for_end() == 0
    assert program.stderr.count(WAITS) == 1


@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.parametrize("stop_signal", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_wait(aws: AwsWorld, proxy: AwsProxy, processes: int, stop_signal: signal.Signals) -> None:
    """There is nothing to be drained: exit code 0."""
    proxy.rates = {"GetItem": {"refused": 1.0}}
    with SimulatedAppStore() as store:
        program = aws.start(store, processes=processes)
        program.wait_until(partial(_all_wait, program, processes), "all of it waits")
        program.send_signal(stop_signal)
        assert program.wait_for_end() == 0


def _all_wait(program: Program, processes: int) -> bool:
    return program.stderr.count(WAITS) == processes


@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.parametrize("missing", ["queue", "table", "permission", "credentials"])
def test_what_never_passes_ends_the_start_at_once(
    aws: AwsWorld, aws_server: AwsServer, processes: int, missing: str
) -> None:
    """Nothing is waited for, and one line says what to do."""
    match missing:
        case "queue":
            aws.delete_queue(SOURCE)
        case "table":
            aws.delete_table(TABLE)
        case "permission":
            aws_server.refused = frozenset({"GetQueueUrl"})
            aws_server.refusal = Refusal("403 Forbidden", "AccessDenied")
        case _:
            aws_server.refused = frozenset({"GetQueueUrl"})
            aws_server.refusal = Refusal("403 Forbidden", "InvalidClientTokenId")
    with SimulatedAppStore() as store:
        program = aws.start(store, processes=processes)
        assert program.wait_for_end() == WORLD_FAILED
    assert WAITS not in program.stderr
