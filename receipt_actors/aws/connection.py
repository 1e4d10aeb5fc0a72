"""How boto3 is set up and called: short time-outs, no retries, and errors of ours in place of boto3's."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http import HTTPStatus
from types import TracebackType
from typing import Any, NamedTuple, TypeVar

import boto3
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
from requests.utils import DEFAULT_CA_BUNDLE_PATH

from receipt_actors.aws.calls import ApiCall, Calls
from receipt_actors.aws.requests import RequestMaker, check_checksum, check_content, excerpt, told
from receipt_actors.errors import ConfigurationError, UnavailableError
from receipt_actors.transport.messages import HttpResponse, RequestFailed

CONNECT_TIMEOUT_SECONDS = 2.0
READ_TIMEOUT_SECONDS = 5.0  #: a receive: its long poll and this
MAX_NUMBER_DIGITS = 38  #: of a number (DynamoDB)

T = TypeVar("T")
Trouble = TypeVar("Trouble", bound=UnavailableError)

#: What boto3 and botocore raise for trouble other than the service's answers. ``OSError``: they read files, too.
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
#: What botocore's readers raise for bytes of another shape than a service's. Raised anywhere else it is a bug.
_MISSHAPEN = (AttributeError, KeyError, TypeError, ValueError, RecursionError)
_READERS = frozenset({"botocore.parsers", "botocore.credentials"})

#: Codes of answers 4xx that the same request may not get a moment later.
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
    """A client of boto3, and what makes its requests for ``transport``; None if only boto3 can call."""

    api: Any
    maker: RequestMaker | None


def build_client(
    session: boto3.Session | None, service: str, read_timeout_seconds: float, max_connections: int
) -> Client:
    """Build a client. Raises ``ConfigurationError`` if boto3's settings cannot work (no region, no such profile)."""
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
        # As botocore would find it; boto3 itself has no way to ask. A file, or True for botocore's own.
        bundle = session._session.get_config_variable("ca_bundle")
        verify = bundle or os.environ.get("REQUESTS_CA_BUNDLE") or True
        client = session.client(service, config=config, verify=verify)  # type: ignore[call-overload]
    except (BotoCoreError, ValueError) as error:
        wish = "set AWS_REGION, AWS_PROFILE or AWS_ENDPOINT_URL right"
        raise ConfigurationError([f"AWS: {type(error).__name__}: {error}; {wish}"]) from error
    client.meta.events.register("after-call", _refuse_foreign_answer)
    if not RequestMaker.fits(client):
        return Client(client, None)
    ca_bundle = verify if isinstance(verify, str) else DEFAULT_CA_BUNDLE_PATH
    return Client(client, RequestMaker(client, session.get_credentials(), ca_bundle))


def call(unavailable: type[UnavailableError], client: Client, operation: str, **parameters: object) -> Calls[Any]:
    """Call one operation of a client (``put_item``) and return the service's own answer.

    Raises ``ClientError``, for the caller to judge by its code, and ``unavailable`` for everything else: no connection,
    a time-out, no or expired credentials, an answer that is garbled, cut short or not from AWS.
    """
    try:
        outcome = yield ApiCall(client, operation, parameters)
        if isinstance(outcome, HttpResponse):
            assert client.maker is not None
            return client.maker.read(operation, outcome)
        if isinstance(outcome, RequestFailed):
            where = client.api.meta.endpoint_url
            raise unavailable(f"{operation}: {where}: {told(outcome.cause)}", was_sent=outcome.was_sent)
    except (*_TROUBLE, *_MISSHAPEN) as error:
        is_garbled = not isinstance(error, _TROUBLE)
        if is_garbled and not _was_in(error.__traceback__, _READERS):
            raise
        is_unknown = is_garbled or isinstance(error, ResponseParserError | json.JSONDecodeError)
        # botocore's own words for an answer of SQS that is no JSON do not quote it.
        words = excerpt(error.doc.encode()) if isinstance(error, json.JSONDecodeError) else error
        what = f"{operation}: {'a garbled answer: ' if is_garbled else ''}{type(error).__name__}: {told(words)}"
        may_pass = not isinstance(error, NoCredentialsError | PartialCredentialsError)
        was_sent = not isinstance(error, _NOT_SENT)
        raise unavailable(what, is_unknown_answer=is_unknown, was_sent=was_sent, may_pass=may_pass) from error
    return outcome


def _was_in(traceback: TracebackType | None, modules: frozenset[str]) -> bool:
    while traceback is not None:
        if traceback.tb_frame.f_globals.get("__name__") in modules:
            return True
        traceback = traceback.tb_next
    return False


class Garbled(Exception):
    """An answer does not have the expected shape; see ``reading``."""


def member(record: object, name: str, kind: type[T]) -> T:
    """Return a member of an object of an answer. Raises ``Garbled`` if it is missing or of another type."""
    value = optional_member(record, name, kind)
    if value is None:
        raise Garbled(f"{name} is missing")
    return value


def optional_member(record: object, name: str, kind: type[T]) -> T | None:
    """Return a member of an object of an answer, or None. Raises ``Garbled`` if it is of another type."""
    if not isinstance(record, Mapping):
        raise Garbled(f"an object was expected, not a {type(record).__name__}")
    value = record.get(name)
    if value is not None and not isinstance(value, kind):
        raise Garbled(f"{name} is a {type(value).__name__}")
    return value


def integer(text: str) -> int:
    """Read a number of an answer. Raises ``Garbled``."""
    if not text.isascii() or not text.removeprefix("-").isdecimal() or len(text) > MAX_NUMBER_DIGITS:
        raise Garbled(f"{text[:MAX_NUMBER_DIGITS]!r} is no number")
    return int(text)


@contextmanager
def reading(unavailable: type[UnavailableError], operation: str) -> Iterator[None]:
    """Raise ``unavailable`` for an answer that is ``Garbled``."""
    try:
        yield
    except Garbled as error:
        what = f"{operation}: a garbled answer: {told(error)}"
        raise unavailable(what, is_unknown_answer=True) from error


def error_code(error: ClientError) -> str:
    """Return the code of an error answer, such as ``ThrottlingException``; the HTTP status if it has none."""
    return str(error.response.get("Error", {}).get("Code", ""))


def describe(error: ClientError) -> str:
    """Return operation, code and message of an error answer in one line."""
    message = error.response.get("Error", {}).get("Message", "")
    return f"{error.operation_name}: {error_code(error)}: {told(message)}"


def not_done(unavailable: type[Trouble], error: ClientError, wish: str = "") -> Trouble:
    """Make the error of an error answer, with what an operator can do."""
    code = error_code(error)  # one without a code of AWS's usually comes from a proxy
    is_usual = not code.isdigit() or int(code) >= 500 or int(code) == HTTPStatus.TOO_MANY_REQUESTS
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    is_refusal = HTTPStatus.BAD_REQUEST <= status < HTTPStatus.INTERNAL_SERVER_ERROR and code not in _PASSING
    words = f"{describe(error)}; {wish}" if wish else describe(error)
    return unavailable(words, is_unknown_answer=not is_usual, may_pass=not is_refusal)


def _refuse_foreign_answer(http_response: AWSResponse, parsed: Mapping[str, object], **_context: object) -> None:
    """Refuse a 200 that is not a whole answer of AWS (an ``after-call`` handler): botocore accepts a cut-off body."""
    if http_response.status_code >= 300:  # an error answer; what it is worth, its code says
        return
    headers, content = http_response.headers, http_response.content
    if "content-encoding" not in headers:
        announced = headers.get("content-length", str(len(content)))
        if announced != str(len(content)):
            raise ResponseParserError(f"the answer was cut short: {len(content)} of {announced} bytes")
        check_checksum(headers.get("x-amz-crc32"), content)  # botocore reads it only for retries of its own
    check_content(content, found_nothing=not parsed.keys() - {"ResponseMetadata"})
