"""Requests to AWS on a transport: what travels, whom they trust, when boto3 makes them itself; and begun calls.

``test_aws`` and the contracts of the ports begin their calls, too; here is what they cannot see. Servers are real
sockets.
"""

from __future__ import annotations

import json
import queue
import ssl
import sys
import threading
import zlib
from calendar import timegm
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing
from pathlib import Path
from time import strptime
from typing import Any
from urllib.parse import urlsplit

import boto3
import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest, AWSResponse
from botocore.credentials import Credentials, ReadOnlyCredentials
from botocore.exceptions import ClientError
from hypothesis import given
from hypothesis import strategies as st

from receipt_actors.aws import AwsCalls, AwsLedger, AwsQueues, requests
from receipt_actors.aws.requests import sign
from receipt_actors.domain.ports import OutgoingMessage
from receipt_actors.errors import LedgerUnavailable, QueueUnavailable
from receipt_actors.transport import curl
from tests.backends.conftest import Begun, plain_session
from tests.backends.test_aws import ITEM, ITEMS, QUEUE, md5
from tests.patience import PATIENCE_SECONDS
from tests.stores.apple.app_store_servers import make_certificate, tls_server
from tests.transport.wire import Asked, Wire

CONFIRMED = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Wire]]:
    with ExitStack() as at_end:

        def serve(answer: Callable[[Asked], bytes | None], tls: ssl.SSLContext | None = None) -> Wire:
            server = at_end.enter_context(closing(Wire(answer, tls)))
            monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
            return server

        yield serve


@pytest.fixture
def session() -> boto3.Session:
    return plain_session("testing", "testing", "a-token", region_name="eu-west-1")


@pytest.fixture(autouse=True)
def no_settings_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_CA_BUNDLE", "REQUESTS_CA_BUNDLE", "AWS_PROFILE", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nonexistent")


class Caller:
    def __init__(self, calls: AwsCalls | None) -> None:
        self._calls = calls

    def of(self, adapter: Any) -> Any:
        return adapter if self._calls is None else Begun(adapter, self._calls)

    def claim(self, session: boto3.Session, times: int = 2) -> None:
        with closing(AwsLedger("claims", session, read_timeout_seconds=5)) as aws:
            ledger = self.of(aws)
            for _ in range(times):
                assert ledger.claim(ITEM) is None

    def call_everything(self, session: boto3.Session) -> None:
        messages = [OutgoingMessage('{"ü": 1}', {"reason": "🪙", "submission_id": "s"}), OutgoingMessage("x")]
        with closing(AwsQueues(session)) as aws_queues, closing(AwsLedger("claims", session)) as aws_ledger:
            queues, ledger = self.of(aws_queues), self.of(aws_ledger)
            queues.receive(QUEUE, max_messages=10, wait_seconds=1, visibility_timeout_seconds=60)
            assert queues.send(QUEUE, messages) == [None, None]
            assert queues.delete(QUEUE, ["a", "b"]) == [None, None]
            assert queues.change_visibility(QUEUE, [("a", 0), ("b", 60)]) == [None, None]
            assert queues.approximate_number_of_messages(QUEUE) == 7
            assert ledger.claim(ITEM) is None
            assert ledger.get("1") is None
            assert ledger.claim_all(ITEMS) == [None] * len(ITEMS)


@pytest.fixture(params=["called", "begun"])
def caller(request: pytest.FixtureRequest, calls: AwsCalls) -> Caller:
    return Caller(calls if request.param == "begun" else None)


@pytest.fixture
def begun(calls: AwsCalls) -> Caller:
    return Caller(calls)


def is_ours(asked: Asked) -> bool:
    """Tell whether a request was made without boto3: its own add what its retries need."""
    return "amz-sdk-request" not in asked.headers


# --- whom they trust --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_certificate(tmp_path_factory.mktemp("tls"))


@pytest.fixture
def secured(serve: Callable[..., Wire], certificate: Path) -> Wire:
    return serve(lambda asked: CONFIRMED, tls_server(certificate))


def test_a_server_that_nobody_vouches_for_is_told_nothing(
    secured: Wire, caller: Caller, session: boto3.Session
) -> None:
    with pytest.raises(LedgerUnavailable, match="certificate verify failed"):
        caller.claim(session)
    assert secured.asked == []


@pytest.mark.parametrize("source", ["AWS_CA_BUNDLE", "REQUESTS_CA_BUNDLE", "profile"])
def test_a_bundle_of_the_environment_or_the_profile_is_used(
    secured: Wire, certificate: Path, begun: Caller, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, source: str
) -> None:
    if source == "profile":
        config = tmp_path / "config"
        config.write_text(f"[profile office]\nregion = eu-west-1\nca_bundle = {certificate}\n")
        monkeypatch.setenv("AWS_CONFIG_FILE", str(config))
        session = plain_session("testing", "testing", profile_name="office")
    else:
        monkeypatch.setenv(source, str(certificate))
        session = plain_session("testing", "testing", region_name="eu-west-1")
    begun.claim(session)
    assert [asked.connection for asked in secured.asked] == [0, 0]
    assert is_ours(secured.asked[0])


# --- what travels -----------------------------------------------------------------------------------------------------


def answer_as_aws(asked: Asked) -> bytes:
    operation = asked.headers["x-amz-target"].rpartition(".")[2]
    fields = json.loads(asked.body)
    entries = fields.get("Entries", ())
    confirmed = [
        {"Id": entry["Id"], **({"MD5OfMessageBody": md5(entry)} if "MessageBody" in entry else {})} for entry in entries
    ]
    answers: Mapping[str, Any] = {
        "GetQueueUrl": {"QueueUrl": f"http://127.0.0.1/1/{QUEUE}"},
        "GetQueueAttributes": {"Attributes": {"ApproximateNumberOfMessages": "7"}},
        "BatchExecuteStatement": {"Responses": [{"TableName": "claims"}] * len(fields.get("Statements", ()))},
    }
    if operation == "ReceiveMessage":
        message = {"MessageId": "m", "ReceiptHandle": str(fields["VisibilityTimeout"]), "Body": "b", "MD5OfBody": "5"}
        answers = {operation: {"Messages": [message]}}
    content = json.dumps(answers.get(operation, {"Successful": confirmed} if entries else {})).encode()
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(content), content)


def test_requests_are_those_that_boto3_would_make(
    serve: Callable[..., Wire], calls: AwsCalls, session: boto3.Session
) -> None:
    server = serve(answer_as_aws)
    Caller(None).call_everything(session)
    theirs = list(server.asked)
    for _ in range(2):
        server.asked.clear()
        Caller(calls).call_everything(session)
        assert len(server.asked) == len(theirs) == 9
        assert all(map(is_ours, server.asked)) and not any(map(is_ours, theirs))
        same = ("host", "x-amz-target", "content-type", "user-agent", "x-amz-security-token", "accept-encoding")
        for mine, their in zip(server.asked, theirs, strict=True):
            assert mine.target == their.target == "/"
            assert json.loads(mine.body) == json.loads(their.body)
            assert {name: mine.headers.get(name) for name in same} == {name: their.headers.get(name) for name in same}
            assert mine.headers["authorization"].startswith("AWS4-HMAC-SHA256 Credential=testing/")
            assert mine.headers.keys() <= their.headers.keys() | {"accept"}


_text = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=30)


@given(
    body=st.binary(max_size=200),
    headers=st.dictionaries(st.from_regex(r"X-[A-Za-z-]{1,10}[a-z]", fullmatch=True), _text, max_size=4),
    secret=st.text(min_size=1, max_size=40),
    token=st.none() | st.text("abc+/=", min_size=1),
    host=st.sampled_from(["sqs.eu-west-1.amazonaws.com", "127.0.0.1:4566", "[::1]:4566"]),
)
def test_the_signature_is_botocores(
    body: bytes, headers: dict[str, str], secret: str, token: str | None, host: str
) -> None:
    headers = {name.lower().title(): value for name, value in headers.items()} | {"User-Agent": "not signed"}
    credentials = ReadOnlyCredentials("AKID", secret, token)
    theirs = AWSRequest("POST", f"http://{host}/", dict(headers), body)
    SigV4Auth(credentials, "sqs", "eu-west-1").add_auth(theirs)
    now = timegm(strptime(theirs.headers["X-Amz-Date"], "%Y%m%dT%H%M%SZ"))
    mine = sign({"Host": host, **headers}, body, credentials, service="sqs", region="eu-west-1", now_seconds=now)
    assert mine.pop("Host") == host
    assert mine == dict(theirs.headers.items())


def test_credentials_are_renewed(
    serve: Callable[..., Wire], caller: Caller, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Each request is signed with what botocore has at that moment: here from a program that is asked every time."""
    program = tmp_path / "credentials.py"
    program.write_text(
        "import datetime, json, pathlib\n"
        f"count = pathlib.Path({str(tmp_path / 'count')!r})\n"
        "count.write_text((count.read_text() if count.exists() else '') + 'I')\n"
        "soon = (datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=5)).isoformat()\n"
        "print(json.dumps({'Version': 1, 'AccessKeyId': 'KEY' + count.read_text(), 'SecretAccessKey': 's',"
        " 'SessionToken': 't', 'Expiration': soon}))\n"
    )
    config = tmp_path / "config"
    config.write_text(f"[profile p]\nregion = eu-west-1\ncredential_process = {sys.executable} {program}\n")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(config))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
    server = serve(answer_as_aws)
    caller.claim(plain_session(profile_name="p"))
    keys = [asked.headers["authorization"].split("Credential=")[1].split("/")[0] for asked in server.asked]
    assert len(set(keys)) == 2
    assert all(key.startswith("KEY") for key in keys)


ERRORS = {
    "with members": (400, {"__type": "com.amazonaws#Some:http://x", "message": "no", "Other": [1]}, {}),
    "with an older code": (400, {"__type": "a#New", "Message": "no"}, {"x-amzn-query-error": "AWS.Old;Sender"}),
    "with a broken older code": (400, {"__type": "a#New"}, {"x-amzn-query-error": "AWS.Old"}),
    "without a code": (403, {"message": "no"}, {}),
    "no JSON": (429, b"slow down", {}),
    "a page": (503, b" <html>busy</html>", {}),
    "nothing": (502, b"", {}),
}


@pytest.mark.parametrize("error", ERRORS.values(), ids=ERRORS)
def test_an_error_is_read_as_boto3_reads_it(
    serve: Callable[..., Wire], calls: AwsCalls, session: boto3.Session, error: tuple[int, object, Mapping[str, str]]
) -> None:
    status, content, headers = error
    body = content if isinstance(content, bytes) else json.dumps(content).encode()
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items()).encode()
    serve(lambda asked: b"HTTP/1.1 %d X\r\n%sContent-Length: %d\r\n\r\n%s" % (status, lines, len(body), body))
    found = []
    for caller in (Caller(None), Caller(calls)):
        with pytest.raises(LedgerUnavailable) as raised:
            caller.claim(session)
        cause = raised.value.__cause__
        assert isinstance(cause, ClientError)
        found.append((str(raised.value), raised.value.is_unknown_answer, cause.response["Error"]["Code"]))
    assert found[0] == found[1]


# --- when boto3 makes them itself -------------------------------------------------------------------------------------


@pytest.mark.parametrize("reason", ["a path", "a proxy"])
def test_what_is_not_plain_is_boto3s_business(
    serve: Callable[..., Wire], caller: Caller, session: boto3.Session, monkeypatch: pytest.MonkeyPatch, reason: str
) -> None:
    server = serve(answer_as_aws)
    if reason == "a path":
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"{server.url}/emulator")
    else:
        monkeypatch.setenv("http_proxy", server.url)
        monkeypatch.setenv("no_proxy", "internal.example.com")
    caller.call_everything(session)
    assert not any(map(is_ours, server.asked))
    targets = {urlsplit(asked.target).path.rstrip("/") for asked in server.asked}
    assert targets == {"/emulator" if reason == "a path" else ""}
    with closing(AwsQueues(session)) as queues, closing(AwsLedger("claims", session)) as ledger:
        assert not queues.may_transfer
        assert not ledger.may_transfer


def test_with_another_botocore_boto3_makes_the_calls(
    serve: Callable[..., Wire], begun: Caller, session: boto3.Session, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    server = serve(answer_as_aws)
    monkeypatch.setattr(requests, "_SCHEME", "AWS5")
    begun.claim(session)
    assert len(server.asked) == 2
    assert not any(map(is_ours, server.asked))
    (told,) = [record.getMessage() for record in caplog.records]
    assert "on threads" in told


def test_a_mock_of_the_application_answers(serve: Callable[..., Wire], caller: Caller, session: boto3.Session) -> None:
    """Mocks of AWS answer ``before-send``; whoever embeds us and tests with them must not meet the real one.

    What only looks, or adds a header, is heard as well.
    """
    server = serve(answer_as_aws)
    seen: list[str] = []

    class Raw:
        def stream(self) -> list[bytes]:
            return [b"{}"]

    def answer(request: Any, **_others: object) -> AWSResponse | None:
        seen.append(str(request.headers["x-amz-target"]))
        request.headers["X-Trace"] = "abc"
        return AWSResponse(request.url, 200, {}, Raw()) if len(seen) == 1 else None  # type: ignore[arg-type]

    session.events.register("before-send.dynamodb", answer)
    caller.claim(session)
    assert ["PutItem" in target for target in seen] == [True, True]
    (passed_on,) = server.asked
    assert passed_on.headers["x-trace"] == "abc"
    assert passed_on.headers["content-length"] == str(len(passed_on.body))


@pytest.mark.parametrize("is_right", [True, False])
def test_a_wrong_checksum_confirms_nothing(
    serve: Callable[..., Wire], caller: Caller, session: boto3.Session, is_right: bool
) -> None:
    checksum = zlib.crc32(b"{}") + (not is_right)
    serve(lambda asked: b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-Amz-CRC32: %d\r\n\r\n{}" % checksum)
    if is_right:
        caller.claim(session)
    else:
        with pytest.raises(LedgerUnavailable, match="checksum"):
            caller.claim(session)


def test_nothing_can_be_slipped_into_the_headers(serve: Callable[..., Wire], begun: Caller) -> None:
    server = serve(answer_as_aws)
    session = plain_session("testing", "testing", "token\r\nX-Amz-Target: DynamoDB_20120810.DeleteTable", "eu-west-1")
    with pytest.raises(LedgerUnavailable, match="line break"):
        begun.claim(session)
    assert server.asked == []


# --- bugs -------------------------------------------------------------------------------------------------------------


def raise_attribute_error(*_args: object, **_keywords: object) -> Any:
    raise AttributeError("a bug")


@pytest.mark.parametrize("function", ["sign", "check_checksum"])
def test_a_bug_of_ours_is_no_outage(
    serve: Callable[..., Wire], begun: Caller, session: boto3.Session, monkeypatch: pytest.MonkeyPatch, function: str
) -> None:
    """An outage would be waited out politely, for ever; a bug crashes the caller, wherever it is on the way."""
    serve(answer_as_aws)
    monkeypatch.setattr(requests, function, raise_attribute_error)
    with pytest.raises(AttributeError, match="a bug"):
        begun.claim(session)


def test_an_answer_of_another_shape_is_trouble_for_boto3_as_well(
    serve: Callable[..., Wire], session: boto3.Session
) -> None:
    """botocore's parsers raise whatever they come upon; that is the answer's fault."""
    answer = b'{"QueueUrl": {"a": 1}, "Messages": 5, "Attributes": ["abc"]}'
    server = serve(lambda asked: b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(answer), answer))
    with closing(AwsQueues(session)) as queues:
        queues._urls[QUEUE] = server.url
        with pytest.raises(QueueUnavailable):
            queues.receive(QUEUE, max_messages=10, wait_seconds=1, visibility_timeout_seconds=60)
        with pytest.raises(QueueUnavailable):
            queues.approximate_number_of_messages(QUEUE)
    assert not any(map(is_ours, server.asked))


# --- begun calls ------------------------------------------------------------------------------------------------------


def begin_receive(calls: AwsCalls, queues: AwsQueues, visibility: int, done: Callable[[Any], object]) -> None:
    how = {"max_messages": 1, "wait_seconds": 0, "visibility_timeout_seconds": visibility}
    calls.begin(queues.receive, (QUEUE,), how, done)


def test_calls_under_way_end_with_the_transport(
    serve: Callable[..., Wire], session: boto3.Session, calls: AwsCalls
) -> None:
    asked_both = threading.Semaphore(0)
    release = threading.Event()

    def silence(asked: Asked) -> None:
        asked_both.release()
        release.wait(PATIENCE_SECONDS)

    serve(silence)
    outcomes: queue.SimpleQueue[Any] = queue.SimpleQueue()
    with closing(AwsQueues(session)) as queues, closing(AwsLedger("claims", session)) as ledger:
        calls.begin(queues.delete, (QUEUE, ["handle"]), {}, outcomes.put)
        calls.begin(ledger.claim, (ITEM,), {}, outcomes.put)
        for _ in range(2):
            assert asked_both.acquire(timeout=PATIENCE_SECONDS)
        transport: Any = calls._transport
        transport.close()
        assert {type(outcomes.get(timeout=PATIENCE_SECONDS)) for _ in range(2)} == {QueueUnavailable, LedgerUnavailable}
        calls.begin(ledger.get, ("1",), {}, outcomes.put)
        assert isinstance(outcomes.get(timeout=PATIENCE_SECONDS), LedgerUnavailable)
        calls.close()
        transport.close()
        release.set()
        assert outcomes.empty()


def test_a_bug_of_the_transport_loses_no_call(
    serve: Callable[..., Wire], session: boto3.Session, calls: AwsCalls, monkeypatch: pytest.MonkeyPatch
) -> None:
    serve(answer_as_aws)
    outcomes: queue.SimpleQueue[Any] = queue.SimpleQueue()
    with closing(AwsQueues(session)) as queues, monkeypatch.context() as broken:
        broken.setattr(curl._Multi, "_collect", raise_attribute_error)
        begin_receive(calls, queues, 1, outcomes.put)
        assert isinstance(outcomes.get(timeout=PATIENCE_SECONDS), AttributeError)
        broken.undo()
        later: queue.SimpleQueue[Any] = queue.SimpleQueue()
        begin_receive(calls, queues, 2, later.put)
        assert later.get(timeout=PATIENCE_SECONDS)[0].receipt_handle == "2"


def test_other_peoples_methods_are_called_on_a_thread(calls: AwsCalls) -> None:
    outcomes: queue.SimpleQueue[Any] = queue.SimpleQueue()
    release = threading.Event()
    calls.begin(release.wait, (PATIENCE_SECONDS,), {}, outcomes.put)
    calls.begin("{}-{x}".format, ("a",), {"x": "b"}, outcomes.put)
    assert outcomes.get(timeout=PATIENCE_SECONDS) == "a-b"
    calls.begin(int, ("no number",), {}, outcomes.put)
    assert isinstance(outcomes.get(timeout=PATIENCE_SECONDS), ValueError)
    release.set()
    assert outcomes.get(timeout=PATIENCE_SECONDS) is True


def test_a_renewal_of_credentials_holds_up_nobody(
    serve: Callable[..., Wire], session: boto3.Session, calls: AwsCalls
) -> None:
    serve(answer_as_aws)
    outcomes: queue.SimpleQueue[Any] = queue.SimpleQueue()
    renewing, go_on = threading.Event(), threading.Event()

    class SlowCredentials(Credentials):
        """As botocore's that can be renewed, with a renewal that waits for the test."""

        def refresh_needed(self) -> bool:
            return not go_on.is_set()

        def get_frozen_credentials(self) -> Any:
            renewing.set()
            go_on.wait(PATIENCE_SECONDS)
            return super().get_frozen_credentials()

    slow_session = plain_session(region_name="eu-west-1")
    slow_session._session._credentials = SlowCredentials("testing", "testing")
    with closing(AwsQueues(slow_session)) as slow, closing(AwsQueues(session)) as fast:
        begin_receive(calls, slow, 1, outcomes.put)
        assert renewing.wait(PATIENCE_SECONDS)
        begin_receive(calls, fast, 2, outcomes.put)
        assert outcomes.get(timeout=PATIENCE_SECONDS)[0].receipt_handle == "2"
        go_on.set()
        assert outcomes.get(timeout=PATIENCE_SECONDS)[0].receipt_handle == "1"
