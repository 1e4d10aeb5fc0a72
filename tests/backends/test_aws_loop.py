"""The thread that calls AWS for all: what it promises beyond what either way to call promises (see the other tests).

Servers are real sockets.
"""

from __future__ import annotations

import json
import queue
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from functools import partial
from typing import Any

import boto3
import pytest
from botocore.credentials import Credentials

from receipt_actors.aws import AwsLedger, AwsLoop, AwsQueues
from receipt_actors.domain.ports import OutgoingMessage
from receipt_actors.errors import LedgerUnavailable, QueueUnavailable
from tests.backends.test_aws import ITEM, QUEUE, md5
from tests.backends.test_aws_short_way import Asked, Wire
from tests.patience import PATIENCE_SECONDS
from tests.transport.places import PLACES, in_place

CALLS, AT_ONCE = 400, 30


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Callable[[Asked], bytes | None]], Wire]]:
    """Start servers that end with the test, and to which clients built after that will talk."""
    with ExitStack() as at_end:

        def serve(answer: Callable[[Asked], bytes | None]) -> Wire:
            server = at_end.enter_context(closing(Wire(answer)))
            monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
            return server

        yield serve


@pytest.fixture(params=PLACES)
def loop(request: pytest.FixtureRequest) -> Iterator[AwsLoop]:
    """The loop, in each place in turn."""
    with closing(in_place(request.param, AwsLoop())) as loop:
        yield loop


@pytest.fixture(scope="module")
def session() -> boto3.Session:
    return boto3.Session("testing", "testing", region_name="eu-west-1")


def json_answer(content: object) -> bytes:
    body = json.dumps(content).encode()
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)


def answer_as_sqs(asked: Asked) -> bytes:
    """Confirm everything; what a receive is to bring stands in the name of the queue."""
    fields = json.loads(asked.body)
    match asked.headers["x-amz-target"].rpartition(".")[2]:
        case "GetQueueUrl":
            return json_answer({"QueueUrl": f"http://sqs/1/{fields['QueueName']}"})
        case "SendMessageBatch":
            confirmed = [{"Id": entry["Id"], "MD5OfMessageBody": md5(entry)} for entry in fields["Entries"]]
            return json_answer({"Successful": confirmed})
        case _:
            handle = str(fields["VisibilityTimeout"])
            message = {"MessageId": "m", "ReceiptHandle": handle, "Body": "b" * int(handle), "MD5OfBody": "5"}
            return json_answer({"Messages": [message]})


class Outcomes:
    """What calls came to: one at a time, in the order in which it was told."""

    def __init__(self) -> None:
        self.told: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def next(self) -> Any:
        return self.told.get(timeout=PATIENCE_SECONDS)


def begin_receive(loop: AwsLoop, queues: AwsQueues, visibility: int, done: Callable[[Any], object]) -> None:
    how = {"max_messages": 1, "wait_seconds": 0, "visibility_timeout_seconds": visibility}
    loop.begin(queues.receive, (QUEUE,), how, done)


def test_every_call_gets_its_own_answer(serve: Callable[..., Wire], session: boto3.Session, loop: AwsLoop) -> None:
    """Dozens at once from several threads, on connections that are used again and now and then cut or closed."""

    def answer(asked: Asked) -> bytes | None:
        answered = answer_as_sqs(asked)
        number = json.loads(asked.body).get("VisibilityTimeout", 1)
        if number % 7 == 0:
            return answered + Wire.CLOSE
        if number % 11 == 0:
            return answered[: len(answered) // 2] + Wire.CLOSE
        return answered

    serve(answer)
    outcomes = Outcomes()

    room = threading.Semaphore(AT_ONCE)

    def begin_some(first: int) -> None:
        for number in range(first, CALLS, 4):
            assert room.acquire(timeout=PATIENCE_SECONDS)
            begin_receive(loop, queues, number, partial(done, number))

    def done(number: int, outcome: object) -> None:
        outcomes.told.put((number, outcome))
        room.release()

    with closing(AwsQueues(session, max_connections=8)) as queues:
        threads = [threading.Thread(target=begin_some, args=(first,)) for first in range(4)]
        for thread in threads:
            thread.start()
        told = dict(outcomes.next() for _ in range(CALLS))
        for thread in threads:
            thread.join()
    assert told.keys() == set(range(CALLS))
    for number, outcome in told.items():
        if number % 11 == 0 and number % 7:
            assert isinstance(outcome, QueueUnavailable)
        else:
            assert not isinstance(outcome, Exception), (number, outcome)
            (message,) = outcome
            assert (message.receipt_handle, len(message.body)) == (str(number), number)


def test_what_a_server_says_unasked_is_no_answer(
    serve: Callable[..., Wire], session: boto3.Session, loop: AwsLoop
) -> None:
    """Not even when it says it between the loop's last look at the connection and the next request."""
    server = serve(answer_as_sqs)
    outcomes = Outcomes()

    def speak_unasked_and_ask(outcome: Any) -> None:
        """Run on the loop's thread, which does not look at its connections meanwhile."""
        outcomes.told.put(outcome)
        wrong = {"Messages": [{"MessageId": "m", "ReceiptHandle": "?", "Body": "", "MD5OfBody": ""}]}
        server.say(json_answer(wrong), server.asked[-1].connection)
        begin_receive(loop, queues, 2, outcomes.told.put)

    with closing(AwsQueues(session)) as queues:
        begin_receive(loop, queues, 1, speak_unasked_and_ask)
        assert [[message.receipt_handle for message in outcomes.next()] for _ in range(2)] == [["1"], ["2"]]
    assert server.asked[-1].connection != server.asked[-2].connection


def test_a_request_of_any_size_is_sent_whole(serve: Callable[..., Wire], session: boto3.Session, loop: AwsLoop) -> None:
    """Larger than what the system takes at once."""
    serve(answer_as_sqs)
    outcomes = Outcomes()
    messages = [OutgoingMessage(letter * 100_000) for letter in "abcdefghij"]
    with closing(AwsQueues(session)) as queues:
        for _ in range(3):
            loop.begin(queues.send, (QUEUE, messages), {}, outcomes.told.put)
        for _ in range(3):
            assert outcomes.next() == [None] * 10


def test_calls_under_way_end_with_the_loop(serve: Callable[..., Wire], session: boto3.Session, loop: AwsLoop) -> None:
    """Each by its own kind of unavailable; so does what is begun later. Closing twice is fine."""
    asked_both = threading.Semaphore(0)
    release = threading.Event()

    def silence(asked: Asked) -> None:
        asked_both.release()
        release.wait(PATIENCE_SECONDS)

    serve(silence)
    outcomes = Outcomes()
    with closing(AwsQueues(session)) as queues, closing(AwsLedger("claims", session)) as ledger:
        loop.begin(queues.delete, (QUEUE, ["handle"]), {}, outcomes.told.put)
        loop.begin(ledger.claim, (ITEM,), {}, outcomes.told.put)
        for _ in range(2):
            assert asked_both.acquire(timeout=PATIENCE_SECONDS)
        loop.close()
        assert {type(outcomes.next()) for _ in range(2)} == {QueueUnavailable, LedgerUnavailable}
        loop.begin(ledger.get, ("1",), {}, outcomes.told.put)
        assert isinstance(outcomes.next(), LedgerUnavailable)
        loop.close()
        release.set()
        assert outcomes.told.empty()


def test_whoever_cannot_take_an_answer_harms_nobody(
    serve: Callable[..., Wire], session: boto3.Session, loop: AwsLoop, caplog: pytest.LogCaptureFixture
) -> None:
    """What ``done`` raises is logged, and others' answers come."""
    serve(answer_as_sqs)
    outcomes = Outcomes()
    told = threading.Event()

    def done(_outcome: object) -> None:
        told.set()
        raise ZeroDivisionError

    with closing(AwsQueues(session)) as queues:
        begin_receive(loop, queues, 1, done)
        assert told.wait(PATIENCE_SECONDS)
        begin_receive(loop, queues, 2, outcomes.told.put)
        assert outcomes.next()[0].receipt_handle == "2"
    assert "could not take the answer" in caplog.text


def test_a_bug_of_the_loop_loses_no_call(
    serve: Callable[..., Wire], session: boto3.Session, loop: AwsLoop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Everything under way ends with the bug, which is no outage, and the next call begins anew."""
    serve(answer_as_sqs)
    outcomes = Outcomes()
    with closing(AwsQueues(session)) as queues, monkeypatch.context() as broken:
        broken.setattr("receipt_actors.aws.http_loop.AnswerReader", None)
        begin_receive(loop, queues, 1, outcomes.told.put)
        assert isinstance(outcomes.next(), TypeError)
        broken.undo()
        serve_again = Outcomes()
        begin_receive(loop, queues, 2, serve_again.told.put)
        assert serve_again.next()[0].receipt_handle == "2"


def test_other_peoples_methods_are_called_on_a_thread(loop: AwsLoop) -> None:
    """Whoever wraps the adapters gets the calls; one that blocks holds up nobody."""
    outcomes = Outcomes()
    release = threading.Event()
    loop.begin(release.wait, (PATIENCE_SECONDS,), {}, outcomes.told.put)
    loop.begin("{}-{x}".format, ("a",), {"x": "b"}, outcomes.told.put)
    assert outcomes.next() == "a-b"
    loop.begin(int, ("no number",), {}, outcomes.told.put)
    assert isinstance(outcomes.next(), ValueError)
    release.set()
    assert outcomes.next() is True


def test_a_renewal_of_credentials_holds_up_nobody(
    serve: Callable[..., Wire], session: boto3.Session, loop: AwsLoop
) -> None:
    """It may take as long as it likes: calls with other credentials go on."""
    serve(answer_as_sqs)
    outcomes = Outcomes()
    renewing, go_on = threading.Event(), threading.Event()

    class SlowCredentials(Credentials):
        """As botocore's that can be renewed, with a renewal that waits for the test."""

        def refresh_needed(self) -> bool:
            return not go_on.is_set()

        def get_frozen_credentials(self) -> Any:
            renewing.set()
            go_on.wait(PATIENCE_SECONDS)
            return super().get_frozen_credentials()

    slow_session = boto3.Session(region_name="eu-west-1")
    slow_session._session._credentials = SlowCredentials("testing", "testing")
    with (
        closing(AwsQueues(slow_session)) as slow,
        closing(AwsQueues(session)) as fast,
    ):
        begin_receive(loop, slow, 1, outcomes.told.put)
        assert renewing.wait(PATIENCE_SECONDS)
        begin_receive(loop, fast, 2, outcomes.told.put)
        assert outcomes.next()[0].receipt_handle == "2"
        go_on.set()
        assert outcomes.next()[0].receipt_handle == "1"
