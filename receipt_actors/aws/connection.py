"""How boto3 is set up and called: short time-outs, no retries of its own, and no error of its own let out."""

from __future__ import annotations

import json
import logging
import os
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from http import HTTPStatus
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import boto3
import botocore
from botocore.awsrequest import AWSResponse
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectTimeoutError,
    CredentialRetrievalError,
    EndpointConnectionError,
    NoCredentialsError,
    PartialCredentialsError,
    ProxyConnectionError,
)
from botocore.parsers import ResponseParserError

from receipt_actors.aws.http_answer import headers_of
from receipt_actors.aws.steps import Blocking, Steps
from receipt_actors.domain.values import masked
from receipt_actors.errors import ConfigurationError, UnavailableError

if TYPE_CHECKING:
    from receipt_actors.aws.short_way import ShortWay

logger = logging.getLogger(__name__)

CONNECT_TIMEOUT_SECONDS = 2.0
READ_TIMEOUT_SECONDS = 5.0  #: a receive: its long poll and this
MAX_QUOTED_CHARACTERS = 4096  #: of a service's words that are looked at,
MAX_TOLD_CHARACTERS = 500  #: and that are passed on
MAX_NUMBER_DIGITS = 38  #: of a number (DynamoDB)
EXCERPT_CHARACTERS = 80  #: of an answer that is not a service's own

T = TypeVar("T")
Answer = TypeVar("Answer", bound=Mapping[str, Any])
Trouble = TypeVar("Trouble", bound=UnavailableError)

#: What boto3 and botocore raise for trouble that is none of the service's answers. ``OSError``: they read files, too.
_TROUBLE = (BotoCoreError, ResponseParserError, OSError, json.JSONDecodeError, UnicodeDecodeError)
#: Trouble before a request is sent.
_NOT_SENT = (
    ConnectTimeoutError,
    CredentialRetrievalError,
    EndpointConnectionError,
    NoCredentialsError,
    PartialCredentialsError,
    ProxyConnectionError,
)
#: What comes out of botocore's readers of foreign bytes when these have another shape than a service's. Raised anywhere
#: else it is a bug, and crashes.
_MISSHAPEN = (AttributeError, KeyError, TypeError, ValueError, RecursionError)
_READERS = frozenset({"botocore.parsers", "botocore.credentials"})


#: Codes of answers 4xx that the same request may be spared a moment later.
_PASSING = frozenset(
    {
        str(int(HTTPStatus.REQUEST_TIMEOUT)),
        str(int(HTTPStatus.TOO_MANY_REQUESTS)),
        "KMS.ThrottlingException",
        "KmsThrottled",
        "LimitExceededException",
        "OverLimit",
        "PriorRequestNotComplete",
        "ProvisionedThroughputExceededException",
        "RequestLimitExceeded",
        "RequestThrottled",
        "RequestThrottledException",
        "RequestTimeout",
        "RequestTimeoutException",
        "Throttling",
        "ThrottledException",
        "ThrottlingException",
        "TooManyRequestsException",
        "TransactionInProgressException",
    }
)


class Client(NamedTuple):
    """A client of boto3, and the short way where that is open."""

    api: Any
    short_way: ShortWay | None

    def close(self) -> None:
        """Close the idle connections."""
        if self.short_way is not None:
            self.short_way.close()
        self.api.close()


def build_client(
    session: boto3.Session | None, service: str, *, read_timeout_seconds: float, max_connections: int
) -> Client:
    """Build a client of boto3, whose calls go the ``short_way`` where that is open.

    Raises ``ConfigurationError`` where boto3's settings cannot work (no region, no such profile, no URL).
    """
    config = Config(
        retries={"total_max_attempts": 1, "mode": "standard"},
        connect_timeout=CONNECT_TIMEOUT_SECONDS,
        read_timeout=read_timeout_seconds,
        max_pool_connections=max_connections,
        parameter_validation=False,
        user_agent=f"receipt-actors Boto3/{boto3.__version__}",
    )
    try:
        # AWS's other SDKs, ECS and Lambda say AWS_REGION; boto3 alone does not read it.
        session = session or boto3.Session(region_name=os.environ.get("AWS_REGION") or None)
        verify = _verify(session)
        client = session.client(service, config=config, verify=verify)  # type: ignore[call-overload]
    except (BotoCoreError, ValueError) as error:
        wish = "set AWS_REGION, AWS_PROFILE or AWS_ENDPOINT_URL right"
        raise ConfigurationError([f"AWS: {type(error).__name__}: {error}; {wish}"]) from error
    client.meta.events.register("after-call", _refuse_foreign_answer)
    return Client(client, _short_way(session, client, config, verify))


def _short_way(session: boto3.Session, client: Any, config: Any, verify: str | bool) -> ShortWay | None:
    """Open the short way to a client; None where botocore's own is needed. Log a botocore that it does not fit."""
    service = client.meta.service_model.service_name
    if service not in _misfits:
        _misfits[service] = _misfit(session, client, config)
        if _misfits[service] is not None:
            logger.warning(
                "botocore %s is not one that the short way to AWS fits: calls of %s go botocore's own way, which takes "
                "more CPU time (%s)",
                *(botocore.__version__, service, told(" ".join(str(_misfits[service]).split()))),
            )
    if _misfits[service] is not None:
        return None
    from receipt_actors.aws.short_way import ShortWay

    if not ShortWay.is_open_to(client):
        return None
    short_way = ShortWay(client, session.get_credentials(), verify, max_connections=config.max_pool_connections)
    short_way.install()
    return short_way


_misfits: dict[str, str | None] = {}  # by service: what keeps it from the short way


def _misfit(session: boto3.Session, client: Any, config: Any) -> str | None:
    try:
        from receipt_actors.aws.short_way import ShortWay
    except ImportError as error:  # it uses more of botocore than what is promised to stay
        return str(error)
    sample = session.client(
        client.meta.service_model.service_name,
        region_name=client.meta.region_name,
        endpoint_url="http://127.0.0.1",
        aws_access_key_id="sample",
        aws_secret_access_key="sample",  # nosec B106 # signs what is never sent
        config=config,
    )
    trial = ShortWay(sample, None, True, max_connections=1)
    trial.install()
    return trial.misfit()


def _verify(session: boto3.Session) -> str | bool:
    """Return what a server's certificate is verified with, as botocore would find it: a file, or True for its own."""
    bundle = session._session.get_config_variable("ca_bundle")  # boto3 itself has no way to ask
    return bundle or os.environ.get("REQUESTS_CA_BUNDLE") or True


def call(
    unavailable: type[UnavailableError], client: Client, operation: Callable[..., Answer], **parameters: object
) -> Steps[Answer]:
    """Call one operation of a client and return the service's own answer.

    Lets ``ClientError`` through, for the caller to judge by its code; raises ``unavailable`` for everything else: no
    connection, a time-out, no or expired credentials, an answer that is garbled, cut short or not from AWS.
    """
    try:
        if client.short_way is None:
            answer: Answer = yield Blocking(partial(operation, **parameters))
        else:
            answer = yield from client.short_way.steps(operation, parameters)
    except (*_TROUBLE, *_MISSHAPEN) as error:
        if not isinstance(error, _TROUBLE) and not _was_in(error.__traceback__, _READERS):
            raise
        name = getattr(operation, "__name__", type(operation).__name__)
        is_unknown = isinstance(error, ResponseParserError | json.JSONDecodeError)
        # botocore's own words for an answer of SQS that is no JSON say nothing of what was answered.
        words = _excerpt(error.doc.encode()) if isinstance(error, json.JSONDecodeError) else error
        what = f"{name}: {type(error).__name__}: {told(words)}"
        may_pass = not isinstance(error, NoCredentialsError | PartialCredentialsError)
        was_sent = not isinstance(error, _NOT_SENT)
        raise unavailable(what, is_unknown_answer=is_unknown, was_sent=was_sent, may_pass=may_pass) from error
    return answer


def _was_in(traceback: TracebackType | None, modules: frozenset[str]) -> bool:
    """Tell whether an error came out of a function of one of these modules."""
    while traceback is not None:
        if traceback.tb_frame.f_globals.get("__name__") in modules:
            return True
        traceback = traceback.tb_next
    return False


class Garbled(Exception):
    """An answer does not have the shape that is expected. See ``reading``."""


def member(record: object, name: str, kind: type[T]) -> T:
    """Return what an object of an answer has under this name. Raises ``Garbled`` where it has none of this type."""
    value = optional_member(record, name, kind)
    if value is None:
        raise Garbled(f"{name} is missing")
    return value


def optional_member(record: object, name: str, kind: type[T]) -> T | None:
    """Do the same; None where there is nothing."""
    if not isinstance(record, Mapping):
        raise Garbled(f"an object was expected, not a {type(record).__name__}")
    value = record.get(name)
    if value is not None and not isinstance(value, kind):
        raise Garbled(f"{name} is a {type(value).__name__}")
    return value


def integer(text: str) -> int:
    """Read a number of an answer, which travels as text. Raises ``Garbled``."""
    if not text.isascii() or not text.removeprefix("-").isdecimal() or len(text) > MAX_NUMBER_DIGITS:
        raise Garbled(f"{text[:MAX_NUMBER_DIGITS]!r} is no number")
    return int(text)


@contextmanager
def reading(unavailable: type[UnavailableError], operation: str) -> Iterator[None]:
    """Raise ``unavailable`` for an answer that turns out to be ``Garbled`` while it is read."""
    try:
        yield
    except Garbled as error:
        what = f"{operation}: a garbled answer: {told(error)}"
        raise unavailable(what, is_unknown_answer=True) from error


def error_code(error: ClientError) -> str:
    """The code of an error answer, such as ``ThrottlingException``; the HTTP status where it has none."""
    return str(error.response.get("Error", {}).get("Code", ""))


def describe(error: ClientError) -> str:
    """Operation, code and message of an error answer, in one line."""
    message = error.response.get("Error", {}).get("Message", "")
    return f"{error.operation_name}: {error_code(error)}: {told(message)}"


def not_done(unavailable: type[Trouble], error: ClientError) -> Trouble:
    """Make the error of an error answer. One without a code of AWS's comes from somebody in between, as a rule."""
    code = error_code(error)
    is_usual = not code.isdigit() or int(code) >= 500 or int(code) == HTTPStatus.TOO_MANY_REQUESTS
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    is_refusal = HTTPStatus.BAD_REQUEST <= status < HTTPStatus.INTERNAL_SERVER_ERROR and code not in _PASSING
    return unavailable(describe(error), is_unknown_answer=not is_usual, may_pass=not is_refusal)


def told(words: object) -> str:
    """The beginning of what a service, or whoever answers in its place, says; it may quote what we sent."""
    return masked(str(words)[:MAX_QUOTED_CHARACTERS])[:MAX_TOLD_CHARACTERS]


def _refuse_foreign_answer(http_response: AWSResponse, parsed: Mapping[str, object], **_context: object) -> None:
    """Refuse a 200 that is not a whole answer of AWS (an ``after-call`` handler of botocore).

    botocore reads whatever is no JSON as an empty object, and does not mind a body that is shorter than announced. But
    an empty object confirms a put, and says of a read that nobody has claimed the transaction.
    """
    if http_response.status_code >= 300:  # an error answer; what it is worth, its code says
        return
    headers, content = headers_of(http_response), http_response.content
    announced = headers.get("content-length", str(len(content)))
    if announced != str(len(content)) and "content-encoding" not in headers:
        raise ResponseParserError(f"the answer was cut short: {len(content)} of {announced} bytes")
    checksum = headers.get("x-amz-crc32")  # of DynamoDB; botocore reads it only for retries of its own
    if checksum and "content-encoding" not in headers and checksum != str(zlib.crc32(content)):
        raise ResponseParserError("the answer was garbled on its way: its checksum is wrong")
    # Which headers come along is not asked: emulators differ there. An answer in which botocore found nothing has to be
    # an empty object, not somebody's object of other keys.
    found_nothing = not parsed.keys() - {"ResponseMetadata"}
    if not _is_object(content) or (found_nothing and content.split() != [b"{}"]):
        raise ResponseParserError(_excerpt(content))


def _excerpt(content: bytes) -> str:
    return f"the answer is none of AWS's, is a proxy in the way? {told(content[:EXCERPT_CHARACTERS])}"


def _is_object(content: bytes) -> bool:
    return content.lstrip().startswith(b"{") and content.rstrip().endswith(b"}")
