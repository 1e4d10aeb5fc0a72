"""The real things that the clients' tests talk to: an SQLite file, and emulators of AWS over loopback HTTP.

Fixtures are made on demand: a test that asks for none of them pays for none of them (moto is imported with the server).
"""

from __future__ import annotations

import functools
import os
import queue
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import botocore.handlers
import botocore.session
import pytest

from receipt_actors.domain.ports import Ledger, Queues
from receipt_actors.domain.sqs_rules import FIFO_SUFFIX
from tests.examples import example
from tests.patience import PATIENCE_SECONDS
from tests.transport.places import running

if TYPE_CHECKING:
    import boto3

    from receipt_actors.aws import AwsCalls, AwsQueues

# Sessions of this process share what botocore reads of its data: each would read megabytes of JSON anew.
botocore.session.create_loader = functools.cache(botocore.session.create_loader)

BACKENDS = ["embedded", "aws", "simulated-calls", "fake"]
_CALLS = "-calls"  #: of a backend whose methods are called by way of ``AwsCalls``; boto3 makes the calls of others


class Begun:
    """Queues or a ledger whose methods are called by way of ``AwsCalls``, as actors do; everything else is theirs."""

    def __init__(self, adapter: Any, calls: AwsCalls) -> None:
        self._adapter = adapter
        self._calls = calls

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._adapter, name)
        if not hasattr(method, "calls"):
            return method

        def call(*args: object, **keywords: object) -> Any:
            outcomes: queue.SimpleQueue[Any] = queue.SimpleQueue()
            self._calls.begin(method, args, keywords, outcomes.put)
            outcome = outcomes.get(timeout=PATIENCE_SECONDS)
            if isinstance(outcome, Exception):
                raise outcome
            assert outcomes.empty()
            return outcome

        return call


class ManualClock:
    """A UNIX time that stands still until a test moves it; read by any thread."""

    def __init__(self, now: float = 1_700_000_000.0) -> None:
        self._now = now
        self._lock = threading.Lock()

    def __call__(self) -> float:
        with self._lock:
            return self._now

    def advance(self, seconds: float) -> None:
        with self._lock:
            self._now += seconds


@dataclass(frozen=True)
class QueueHouse:
    """Queues under test, and the way to make one in them.

    ``create(dead_letter_queue, max_receive_count, fifo=False) -> name``
    """

    queues: Queues
    create: Callable[..., str]
    is_moto: bool = False  #: which does not quite keep the order of a FIFO queue


@dataclass(frozen=True)
class Aws:
    """An emulator: sessions that talk to it, and plain boto3 clients to prepare it and to look inside."""

    session: boto3.Session
    sqs: Any
    dynamodb: Any
    queues: AwsQueues
    account: str = "123456789012"

    def create_queue(
        self, dead_letter_queue: str | None = None, max_receive_count: int = 20, *, fifo: bool = False
    ) -> str:
        name = unique_name(fifo)
        attributes = {"FifoQueue": "true", "ContentBasedDeduplication": "false"} if fifo else {}
        if dead_letter_queue is not None:
            arn = f"arn:aws:sqs:{self.session.region_name}:{self.account}:{dead_letter_queue}"
            attributes["RedrivePolicy"] = f'{{"deadLetterTargetArn": "{arn}", "maxReceiveCount": {max_receive_count}}}'
        self.sqs.create_queue(QueueName=name, Attributes=attributes)
        return name

    def create_table(self, *keys: str) -> str:
        return create_table(self.dynamodb, *keys)


def create_table(dynamodb: Any, *keys: str, name: str | None = None) -> str:
    name = name or unique_name()
    dynamodb.create_table(
        TableName=name,
        BillingMode="PAY_PER_REQUEST",
        KeySchema=[{"AttributeName": key, "KeyType": kind} for key, kind in zip(keys, ("HASH", "RANGE"), strict=False)],
        AttributeDefinitions=[{"AttributeName": key, "AttributeType": "S"} for key in keys],
    )
    return name


def unique_name(fifo: bool = False) -> str:
    return f"q{uuid.uuid4().hex}{FIFO_SUFFIX if fifo else ''}"


@pytest.fixture(scope="session")
def moto_server() -> Iterator[tuple[str, Aws]]:
    """Start one moto server for all tests; they keep apart by the names of their queues and tables."""
    from tests.system.worlds import AwsServer

    server = AwsServer()
    yield server.url, _clients_of(server.url)
    server.close()


@pytest.fixture
def moto(moto_server: tuple[str, Aws], monkeypatch: pytest.MonkeyPatch) -> Aws:
    """The moto server, to which clients that the test builds will talk as well."""
    url, moto = moto_server
    monkeypatch.setenv("AWS_ENDPOINT_URL", url)
    return moto


@pytest.fixture(scope="session")
def simulated_server() -> Iterator[tuple[str, Aws]]:
    from receipt_actors.sandbox.services import ServiceProcess

    with closing(ServiceProcess(["aws"])) as process:
        yield process.url, _clients_of(process.url)


@pytest.fixture
def simulated(simulated_server: tuple[str, Aws], monkeypatch: pytest.MonkeyPatch) -> Aws:
    url, aws = simulated_server
    monkeypatch.setenv("AWS_ENDPOINT_URL", url)
    return aws


def _clients_of(url: str, account: str = "123456789012") -> Aws:
    from receipt_actors.aws import AwsQueues

    session = plain_session("testing", "testing", region_name="eu-west-1")
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("AWS_ENDPOINT_URL", url)
        return Aws(session, session.client("sqs"), session.client("dynamodb"), AwsQueues(session), account)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def database(tmp_path: Path) -> Path:
    return tmp_path / "receipts.db"


def plain_session(*args: str, **keywords: str) -> boto3.Session:
    """A session without handlers of mocks, such as moto adds to every one when it is imported."""
    import boto3

    with pytest.MonkeyPatch.context() as patched:
        handlers = [each for each in botocore.handlers.BUILTIN_HANDLERS if each[0] != "before-send"]
        patched.setattr(botocore.handlers, "BUILTIN_HANDLERS", handlers)
        return boto3.Session(*args, **keywords)


@pytest.fixture
def calls() -> Iterator[AwsCalls]:
    """As the program has them: on libcurl, where the actors run."""
    from receipt_actors.aws import AwsCalls
    from receipt_actors.transport.curl import CurlTransport

    with running(CurlTransport(8)) as transport, closing(AwsCalls(transport)) as calls:
        yield calls


@pytest.fixture(params=BACKENDS)
def house(request: pytest.FixtureRequest) -> Iterator[QueueHouse]:
    """Each backend's queues in turn, on the real clock; SQS as two emulators understand it."""
    with open_house(request) as house:
        yield house


@pytest.fixture(params=[*BACKENDS, "ministack"])
def fifo_house(request: pytest.FixtureRequest) -> Iterator[QueueHouse]:
    with open_house(request) as house:
        yield house


#: By the name of a backend, the fixture of what answers its requests.
_EMULATORS_OF_SQS = {"aws": "moto", "simulated": "simulated", "ministack": "ministack_sqs"}


@contextmanager
def open_house(request: pytest.FixtureRequest) -> Iterator[QueueHouse]:
    emulator = request.param.removesuffix(_CALLS)
    if emulator in _EMULATORS_OF_SQS:
        aws: Aws = request.getfixturevalue(_EMULATORS_OF_SQS[emulator])
        begins = emulator != request.param
        queues = Begun(aws.queues, request.getfixturevalue("calls")) if begins else aws.queues
        assert not begins or aws.queues.may_transfer
        yield QueueHouse(queues, aws.create_queue, emulator == "aws")
        return

    from receipt_actors.sqlite import EmbeddedQueues
    from receipt_actors.testing import FakeQueues

    is_fake = request.param == "fake"
    local = FakeQueues() if is_fake else EmbeddedQueues(request.getfixturevalue("database"))

    def create(dead_letter_queue: str | None = None, max_receive_count: int = 20, *, fifo: bool = False) -> str:
        name = unique_name(fifo)
        local.create_queue(name, dead_letter_queue, max_receive_count)
        return name

    yield QueueHouse(local, create)
    if isinstance(local, EmbeddedQueues):
        local.close()


@pytest.fixture(scope="session")
def ministack_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    from tests.system.ministack import IS_INSTALLED, WHY_NOT, MiniStack
    from tests.system.processes import Programs

    if not IS_INSTALLED:
        pytest.skip(WHY_NOT)
    programs = Programs(tmp_path_factory.mktemp("ministack"))
    try:
        yield MiniStack(programs).url
    finally:
        programs.close()


@pytest.fixture(scope="session")
def ministack_server(ministack_url: str) -> Aws:
    return _clients_of(ministack_url, "000000000000")


@pytest.fixture
def ministack_sqs(ministack_url: str, ministack_server: Aws, monkeypatch: pytest.MonkeyPatch) -> Aws:
    monkeypatch.setenv("AWS_ENDPOINT_URL", ministack_url)
    return ministack_server


@pytest.fixture
def ministack_table(ministack_url: str, monkeypatch: pytest.MonkeyPatch) -> tuple[boto3.Session, str]:
    return table_at(ministack_url, monkeypatch)


def table_at(url: str, monkeypatch: pytest.MonkeyPatch, key: str = "TransactionId") -> tuple[boto3.Session, str]:
    monkeypatch.setenv("AWS_ENDPOINT_URL", url)
    session = plain_session("testing", "testing", region_name="eu-west-1")
    return session, create_table(session.client("dynamodb"), key)


#: Of a DynamoDB that somebody runs for these tests, such as AWS's own DynamoDB Local.
DYNAMODB_URL = os.environ.get("DYNAMODB_URL")
_EMULATORS = ["ministack", *(["dynamodb"] if DYNAMODB_URL else [])]


@pytest.fixture(params=[*BACKENDS, "example", *_EMULATORS])
def ledger(request: pytest.FixtureRequest) -> Iterator[Ledger]:
    """Each backend's empty ledger in turn; DynamoDB as several emulators understand it."""
    with open_ledger(request) as ledger:
        yield ledger


@pytest.fixture(params=["embedded", "simulated-calls", "fake", "example", *_EMULATORS])
def batching_ledger(request: pytest.FixtureRequest) -> Iterator[Ledger]:
    """Likewise, without moto: there an INSERT of PartiQL overwrites what stands in its way."""
    with open_ledger(request) as ledger:
        yield ledger


@contextmanager
def open_ledger(request: pytest.FixtureRequest) -> Iterator[Ledger]:
    match request.param:
        case "fake":
            from receipt_actors.testing import FakeLedger

            yield FakeLedger()
        case "example":
            with closing(example("own_ledger").FileLedger(request.getfixturevalue("database"))) as own:
                yield own
        case "embedded":
            from receipt_actors.sqlite import EmbeddedLedger

            with closing(EmbeddedLedger(request.getfixturevalue("database"))) as embedded:
                yield embedded
        case _:
            from receipt_actors.aws import AwsLedger

            session, table = aws_table(request)
            with closing(AwsLedger(table, session)) as aws:
                yield Begun(aws, request.getfixturevalue("calls")) if request.param.endswith(_CALLS) else aws


def aws_table(request: pytest.FixtureRequest, key: str = "TransactionId") -> tuple[boto3.Session, str]:
    emulator = request.param.removesuffix(_CALLS)
    if emulator in ("aws", "simulated"):
        aws: Aws = request.getfixturevalue("moto" if emulator == "aws" else "simulated")
        return aws.session, aws.create_table(key)
    url = request.getfixturevalue("ministack_url") if emulator == "ministack" else DYNAMODB_URL
    assert url is not None
    return table_at(url, request.getfixturevalue("monkeypatch"), key)
