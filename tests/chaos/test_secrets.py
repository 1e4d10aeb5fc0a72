"""Nothing that we write down tells a secret: neither what players bought with, nor what we sign in with.

Every run is at log level DEBUG. What is searched for are pieces, wherever they were cut.
"""

from __future__ import annotations

import json
import logging
import urllib.parse
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import cast

import boto3
import pytest

from receipt_actors import Settings
from receipt_actors.aws import AwsLedger, AwsQueues
from receipt_actors.domain.messages import parse_submission
from receipt_actors.domain.ports import OutgoingMessage, ReceivedMessage
from receipt_actors.domain.reasons import Reason
from receipt_actors.errors import ReceiptActorsError
from receipt_actors.otp import Ref, WhichChildren
from receipt_actors.otp import sys as otp_sys
from receipt_actors.pipeline.consumer import Consumer
from receipt_actors.pipeline.protocol import APP_STORE_GATEWAY, SendMessage, VerifyReceipt
from receipt_actors.sandbox.app_store import SimulatedAppStore
from receipt_actors.sandbox.http_server import HttpServer, Reply, Request, response
from receipt_actors.sandbox.load import Kind, SampleMessage, make_scenario
from receipt_actors.testing import FakeServices
from tests.backends.test_aws import ITEM, FakeAws
from tests.backends.test_aws import Reply as AwsReply
from tests.system.worlds import BUNDLE_ID, DEAD_LETTERS, RESULTS, SOURCE, AwsWorld, EmbeddedWorld, Letter

PIECE = 40  #: characters of a receipt that are too many
SHARED_SECRET = "5f0c8e6d9b7a41c2a3d4e5f60718293a"
ACCESS_KEY = "wJalrXUtnFEMI7K7MDENG8bPxRfiCYzEXAMPLEKEY9"
SESSION_TOKEN = "IQoJb3JpZ2luX2VjEJr0000000000wEaCXVzLWVhc3QtMSJHMEUCIQDq1Zx7kTnYx3Gm2vVh"
JWS = "eyJhbGciOiJFUzI1NiJ9.eyJ0cmFuc2FjdGlvbklkIjoiMTAwMCJ9QmFzZTY0.c2lnbmF0dXJlLW9mLWEtdHJhbnNhY3Rpb24tOTk5MTIz"
NOTE = "this is what a player wrote to his friends, it is nobody else's affair"
FAULTY = (Kind.MALFORMED, Kind.TEMPORARY_FAILURE)
SCENARIO = make_scenario(100, 31, BUNDLE_ID, RESULTS)


def of_kind(kind: Kind) -> list[SampleMessage]:
    return [message for message in SCENARIO.messages if message.kind is kind][: 6 if kind is Kind.GARBAGE else 2]


#: A message of every kind, and some with a signed transaction or a note in them.
MESSAGES = [
    *(message for kind in Kind if kind not in FAULTY for message in of_kind(kind)),
    *(
        SampleMessage(Kind.GARBAGE, json.dumps(fields), {}, 0, SCENARIO.messages[0].expected)
        for fields in (
            {"receipt": JWS, "user_id": 1, "post_queue": RESULTS},
            {"receipt": JWS, "user_id": NOTE, "post_queue": RESULTS},
            {"receipt": [JWS], "user_id": 1, "post_queue": RESULTS},
            {"receipt": JWS, "user_id": 1, "post_queue": JWS},
            {"receipt": JWS, "user_id": 1, "post_queue": RESULTS, "transaction_id": f"{NOTE}\n"},
            {"note": NOTE},
            {NOTE: NOTE, "receipt": f"{JWS} {NOTE}", "user_id": 1, "post_queue": RESULTS},
            NOTE,
        )
    ),
    SampleMessage(Kind.GARBAGE, NOTE, {}, 0, SCENARIO.messages[0].expected),
]


def strings_of(value: object) -> Iterator[str]:
    match value:
        case str():
            yield value
        case Mapping():
            for each in (*value, *value.values()):
                yield from strings_of(each)
        case list():
            for each in value:
                yield from strings_of(each)


def receipts_of(messages: Iterable[SampleMessage]) -> Iterator[str]:
    for message in messages:
        yield message.body
        try:
            yield from strings_of(json.loads(message.body))
        except (ValueError, RecursionError):
            continue


def pieces(text: str) -> set[str]:
    return {text[start : start + PIECE] for start in range(len(text) - PIECE + 1)}


#: A piece of 40 characters of anything that was sent, and half of each secret of ours.
SECRET_PIECES = frozenset().union(*(pieces(text) for text in {JWS, NOTE, *receipts_of(MESSAGES)}))
OUR_SECRETS = [half for secret in (SHARED_SECRET, ACCESS_KEY, SESSION_TOKEN) for half in (secret[:16], secret[-16:])]


def assert_tells_nothing(text: str, secret_pieces: frozenset[str] = SECRET_PIECES) -> None:
    for plain in (text, text.replace("\\/", "/").replace('\\"', '"'), urllib.parse.unquote(text)):
        for secret in OUR_SECRETS:
            assert secret not in plain
        told = [plain[start : start + PIECE] for start in range(len(plain) - PIECE + 1)]
        assert not secret_pieces.intersection(told)


def assert_letters_tell_nothing(answers: Iterable[Letter], dead_letters: Iterable[Letter]) -> None:
    """A dead letter's body is the message itself, as the contract has it; nothing else repeats it."""
    assert_tells_nothing("\n".join(f"{letter.body} {dict(letter.attributes)}" for letter in answers))
    assert_tells_nothing("\n".join(str(dict(letter.attributes)) for letter in dead_letters))


TALKATIVE = {"log_level": "DEBUG", "log_decisions": "all"}
in_both_forms = pytest.mark.parametrize("log_format", ["text", "json"])


# --- the program ---


@in_both_forms
def test_a_run_on_aws_tells_no_secret(aws: AwsWorld, figure: Callable[[str], None], log_format: str) -> None:
    aws.environment |= {
        "AWS_SECRET_ACCESS_KEY": ACCESS_KEY,
        "AWS_SESSION_TOKEN": SESSION_TOKEN,
        "RECEIPT_ACTORS_SHARED_SECRET": SHARED_SECRET,
    }
    aws.send(MESSAGES)
    aws.server.lossy = frozenset({"PutItem", "SendMessageBatch", "DeleteMessageBatch"})
    with SimulatedAppStore(shared_secret=SHARED_SECRET) as store:
        program = aws.finish(store, **TALKATIVE, log_format=log_format)
    answers, dead_letters = aws.take(RESULTS), aws.take(DEAD_LETTERS)
    assert "DEBUG" in program.stderr
    assert_tells_nothing(program.stdout + program.stderr)
    assert_letters_tell_nothing(answers, dead_letters)
    figure(f"{len(MESSAGES)} messages, {len(program.stderr.splitlines())} lines of log at DEBUG, as {log_format}")


@in_both_forms
def test_a_wrong_secret_is_told_without_it(embedded: EmbeddedWorld, log_format: str) -> None:
    embedded.send(MESSAGES)
    with SimulatedAppStore(shared_secret="another") as store:
        program = embedded.finish(store, **TALKATIVE, log_format=log_format, shared_secret=SHARED_SECRET)
    assert "21004" in program.stderr
    assert_tells_nothing(program.stdout + program.stderr)
    assert_letters_tell_nothing(embedded.take(RESULTS), embedded.take(DEAD_LETTERS))


class Echo(HttpServer):
    """Answers with what it was sent, as error pages do; in JSON's escapes every other time."""

    def __init__(self) -> None:
        super().__init__(self._answer)
        self._count = 0

    def _answer(self, request: Request) -> Reply:
        self._count += 1
        escaped = json.dumps({"status": "?", "you_sent": request.body.decode()}).encode()
        page = request.body if self._count % 2 else escaped
        return Reply(response(200 if self._count % 3 else 500, page, "text/html"))


def test_an_app_store_that_echoes_is_quoted_without_what_it_echoes(embedded: EmbeddedWorld) -> None:
    embedded.send(MESSAGES)
    echo = Echo()
    echo.start()
    try:
        settings = {"log_level": "DEBUG", "shared_secret": SHARED_SECRET, "drain_seconds": 1}
        program = embedded.start(cast(SimulatedAppStore, echo), receive_wait_seconds=0, **settings)
        program.wait_for_log("app_store is unavailable")
        program.stop()
    finally:
        echo.stop()
    assert "cannot handle" in program.stderr or "you_sent" in program.stderr or "App Store answered" in program.stderr
    assert_tells_nothing(program.stdout + program.stderr)


@pytest.mark.short
def test_the_other_commands_tell_no_secret(embedded: EmbeddedWorld, tmp_path: Path) -> None:
    lines = tmp_path / "messages.jsonl"
    lines.write_text("\n".join(message.body for message in MESSAGES[-12:]), encoding="utf-8")
    receipt = tmp_path / "receipt.txt"
    receipt.write_text(JWS, encoding="ascii")
    database = str(embedded.database)
    with SimulatedAppStore(shared_secret=SHARED_SECRET) as store:
        environment = {
            "RECEIPT_ACTORS_SHARED_SECRET": SHARED_SECRET,
            "RECEIPT_ACTORS_BUNDLE_IDS": BUNDLE_ID,
            "RECEIPT_ACTORS_APP_STORE_URL": store.url,
            "AWS_SECRET_ACCESS_KEY": ACCESS_KEY,
        }
        commands = (
            ("submit", "--database", database, "--file", str(lines)),
            ("submit", "--database", database, "--receipt-file", str(receipt), "--user-id", "1", "--post-queue", "No"),
            ("verify", "--receipt-file", str(receipt)),
            ("config", "--database", database),
            ("config", "--max-in-flight", "none"),
            ("redrive", "--all", "--database", database),
        )
        programs = [embedded.programs.start(*command, environment=environment) for command in commands]
        for program in programs:
            assert program.wait_for_end() in (0, 1, 2)
            assert "Traceback" not in program.stderr
            assert program.stdout + program.stderr
            assert_tells_nothing(program.stdout + program.stderr)


# --- inside ---

SETTINGS = Settings(backend="aws", bundle_ids=(BUNDLE_ID,), post_queues=(RESULTS,), shared_secret=SHARED_SECRET)


def test_crashes_and_looks_inside_tell_no_secret(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    services = FakeServices(SETTINGS)
    store, held = services.app_store, services.app_store.hold("verify_receipt")
    receipts = [*(each for each in receipts_of(MESSAGES) if each.startswith("MII")), JWS]
    for number, receipt in enumerate(receipts):
        said = (f"can't read {receipt}", {"receipt-data": receipt, "password": SHARED_SECRET}, receipt)[number % 3]
        store.script(receipt, (RuntimeError, KeyError, ValueError)[number % 3](said))
        services.submit(receipt, user_id=number)
    honest = store.sell("1")
    services.submit(honest, user_id=99)
    with services.start() as system:
        otp_sys.trace(system.actors.whereis(APP_STORE_GATEWAY), True)
        services.settle(system.actors)
        looks = [str(otp_sys.get_status(ref)) for ref in system.actors.processes() if not in_long_poll(ref)]
        looks += [str(ref) for ref in system.actors.processes()]
        looks += [repr(system.actors.whereis(name).call(WhichChildren())) for name in ("validators", "movers", "root")]
        services.ledger.fail("claim", KeyError({"item": honest, "password": SHARED_SECRET}))
        held.release()
        services.advance(60, system.actors)
        looks += [repr(system.statistics()), str(system.settings), repr(system.in_flight()), repr(system.settings)]
        assert ("handed_back", Reason.CRASHED) in system.statistics().fates
    assert "crashed while handling" in caplog.text
    assert "trace: " in caplog.text
    assert_tells_nothing("\n".join([caplog.text, *looks]))
    assert_tells_nothing("\n".join(str(record.__dict__) for record in caplog.records))


def in_long_poll(ref: Ref) -> bool:
    return issubclass(ref.actor_class, Consumer)


@pytest.mark.short
def test_what_is_printed_by_mistake_tells_no_receipt() -> None:
    body = json.dumps({"receipt": JWS, "user_id": 1, "post_queue": RESULTS, "note": NOTE})
    delivery = ReceivedMessage("m-1", "handle", body, "md5")
    submission = parse_submission(delivery, {RESULTS}, SOURCE)
    outgoing = OutgoingMessage(body, {"reason": "x"})
    values = (delivery, submission, outgoing, VerifyReceipt(submission, SOURCE), SendMessage(outgoing), SETTINGS)  # type: ignore[arg-type]
    assert_tells_nothing("\n".join(f"{value!r} {value}" for value in values))


def test_words_of_aws_are_passed_on_without_what_they_quote(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeAws()
    monkeypatch.setenv("AWS_ENDPOINT_URL", fake.url)
    session = boto3.Session("testing", ACCESS_KEY, SESSION_TOKEN, region_name="eu-west-1")
    receipt = next(each for each in receipts_of(MESSAGES) if each.startswith("MII"))
    bodies = [json.dumps({"receipt": each, "user_id": 1, "post_queue": RESULTS}) for each in (receipt, JWS)]
    said: list[str] = []
    try:
        with closing(AwsQueues(session)) as queues, closing(AwsLedger("claims", session)) as ledger:
            for status in (200, 400, 403, 500):
                for make_page in (
                    lambda text: b"<html>cannot handle " + text + b"</html>",
                    lambda text: json.dumps(
                        {"__type": "x#ValidationException", "message": f"bad {text.decode()}"}
                    ).encode(),
                    lambda text: b'{"Messages": [{"Body": ' + json.dumps(text.decode()).encode(),
                ):
                    for operation in ("SendMessageBatch", "PutItem", "ReceiveMessage"):
                        page = make_page(json.dumps(bodies).encode() + SESSION_TOKEN.encode() + ACCESS_KEY.encode())
                        fake.answer(operation, AwsReply(page, status, {"Content-Type": "text/html"}))
                    said += told_by(lambda: queues.send(SOURCE, [OutgoingMessage(body) for body in bodies]))
                    said += told_by(lambda: ledger.claim(ITEM))
                    said += told_by(lambda: receive_from(queues))
            failed = {
                "Id": "0",
                "Code": "InvalidMessageContents",
                "Message": f"not sent: {bodies[0]}",
                "SenderFault": True,
            }
            fake.answer("SendMessageBatch", AwsReply({"Failed": [failed]}))
            said.append(str(queues.send(SOURCE, [OutgoingMessage(bodies[0])])))
    finally:
        fake.close()
    assert len(said) > 30
    assert_tells_nothing("\n".join(said), frozenset(pieces(receipt) | pieces(JWS)))
    assert any("cannot handle" in each for each in said)
    assert any("not sent: " in each for each in said)


def receive_from(queues: AwsQueues) -> object:
    return queues.receive(SOURCE, max_messages=1, wait_seconds=0, visibility_timeout_seconds=30)


def told_by(call: Callable[[], object]) -> list[str]:
    try:
        return [str(call())]
    except ReceiptActorsError as error:
        return [str(error), repr(error)]
