"""Requests to AWS for ``transport``, made and read without boto3, which takes 0.4 to 0.7 ms of CPU time for a call.

boto3 makes the first request of each operation of a client. That request is not sent, but taken from boto3's event
``before-send``: it shows the endpoint, the headers, and the service and region of its signature. All further requests
are made like it, with their own parameters (plain JSON in both services) and signature. So settings, endpoints,
credentials and their renewal stay boto3's.

boto3 makes the calls itself on a thread if a request is not plain: a proxy, a client certificate, an endpoint with a
path, another signature than version 4. It also does if the session has handlers of ``before-send``: mocks of AWS answer
there, and an application that tests with a mock must not meet the real AWS.
"""

from __future__ import annotations

import hmac
import json
import logging
import threading
import time
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any
from urllib.parse import urlsplit

import botocore
from botocore.auth import SIGNED_HEADERS_BLACKLIST
from botocore.awsrequest import AWSPreparedRequest, HeadersDict
from botocore.credentials import Credentials, ReadOnlyCredentials
from botocore.exceptions import ClientError, HTTPClientError
from botocore.parsers import ResponseParserError, create_parser
from botocore.utils import get_environ_proxies

from receipt_actors.domain.values import masked, sha256_hex
from receipt_actors.transport.messages import HttpRequest, HttpResponse, Server

logger = logging.getLogger(__name__)

MAX_RESPONSE_BYTES = 16 * 1024 * 1024  #: ten messages of 1 MiB in all, each character of them written as ``\\u0000``
MAX_QUOTED_CHARACTERS = 4096  #: of a service's words that are looked at,
MAX_TOLD_CHARACTERS = 500  #: and that are passed on
EXCERPT_CHARACTERS = 80  #: of an answer that is not a service's own

_UNSIGNED = frozenset(SIGNED_HEADERS_BLACKLIST)
_OF_ONE_REQUEST = frozenset(
    {
        "accept-encoding",
        "amz-sdk-invocation-id",
        "amz-sdk-request",
        "authorization",
        "content-length",
        "x-amz-date",
        "x-amz-security-token",
    }
)
_SCHEME = "AWS4-HMAC-SHA256"
_DEFAULT_PORTS = {"http": 80, "https": 443}
_to_json = json.JSONEncoder(separators=(",", ":")).encode


class RequestMaker:
    """Makes the requests of one client of boto3. Used by any thread. ``ca_bundle`` is a file or a folder."""

    def __init__(self, api: Any, credentials: Credentials | None, ca_bundle: str) -> None:
        config = api.meta.config
        self._api = api
        self._credentials = credentials
        self._server = Server(
            ca_bundle=ca_bundle,
            connect_timeout_seconds=config.connect_timeout,
            read_timeout_seconds=config.read_timeout,
            max_response_bytes=MAX_RESPONSE_BYTES,
        )
        self._parser = create_parser(api.meta.service_model.metadata["protocol"])
        self._prototypes: dict[str, _Prototype | None] = {}  # by operation; None: only boto3 can call it
        self._intercepting = threading.local()  # has ``here`` while this thread makes a request to be intercepted
        api.meta.events.register_last("before-send", self._intercept)

    @staticmethod
    def fits(api: Any) -> bool:
        """Return whether boto3 need not make the client's calls itself."""
        config, url = api.meta.config, api.meta.endpoint_url
        return (
            api.meta.service_model.metadata.get("protocol") == "json"
            and urlsplit(url).path in ("", "/")
            and not (config.proxies or config.proxies_config or config.client_cert)
            and not get_environ_proxies(url).get(urlsplit(url).scheme)
            and not _has_handlers(api)
        )

    def may_block(self, operation: str) -> bool:
        """Return whether ``request`` may take long: to renew credentials, or for the first one of an operation."""
        if self._prototypes.get(operation) is None:
            return True
        refresh_needed = getattr(self._credentials, "refresh_needed", None)
        return refresh_needed is not None and bool(refresh_needed())

    def request(self, operation: str, parameters: Mapping[str, object]) -> HttpRequest | None:
        """Make a signed request of an operation (``send_message_batch``); None: only boto3 can call it.

        Raises boto3's errors, and ``HTTPClientError`` for a line break in a header.
        """
        if operation not in self._prototypes:
            self._prototypes[operation] = self._prototype(operation, parameters)
        prototype = self._prototypes[operation]
        if prototype is None or self._credentials is None:
            return None
        body = _to_json(parameters).encode()
        credentials = self._credentials.get_frozen_credentials()
        headers = sign(prototype.headers, body, credentials, prototype.service, prototype.region, time.time())
        lines = [f"{name}: {value}" for name, value in headers.items()]
        if any("\n" in line or "\r" in line for line in lines):  # of credentials: nothing else comes from outside
            raise HTTPClientError(error="a line break in a header")
        return HttpRequest(self._server, prototype.url, lines, body)

    def read(self, operation: str, response: HttpResponse) -> dict[str, Any]:
        """Return the members of a response that the service's model knows. Strings are not decoded.

        Raises ``ClientError``, and ``ResponseParserError`` for anything but a whole response of AWS.
        """
        prototype = self._prototypes[operation]
        assert prototype is not None
        if not response.is_whole:
            raise ResponseParserError(f"the answer was cut short, or has more than {MAX_RESPONSE_BYTES} bytes")
        if response.status >= HTTPStatus.MULTIPLE_CHOICES:
            raise self._client_error(prototype.name, response)
        check_checksum(response.header("x-amz-crc32"), response.body)
        try:
            content = json.loads(response.body)
        except (ValueError, RecursionError):
            content = None
        if not isinstance(content, dict):
            raise ResponseParserError(excerpt(response.body))
        known = {name: content[name] for name in prototype.members if content.get(name) is not None}
        check_content(response.body, found_nothing=not known)
        return known

    def _client_error(self, name: str, response: HttpResponse) -> ClientError:
        """Make the error of a response as botocore does."""
        model = self._api.meta.service_model
        lines = (line.decode("latin-1").partition(":") for line in response.header_lines)
        headers = HeadersDict({name: value.strip() for name, colon, value in lines if colon})
        answer = {"status_code": response.status, "headers": headers, "body": response.body}
        parsed = self._parser.parse(answer, model.operation_model(name).output_shape)
        shape = model.shape_for_error_code(parsed["Error"]["Code"])
        if shape is not None:
            parsed.update(self._parser.parse(answer, shape))
        return ClientError(parsed, name)

    def _prototype(self, operation: str, parameters: Mapping[str, object]) -> _Prototype | None:
        try:
            self._intercepting.here = True
            getattr(self._api, operation)(**parameters)
        except _Intercepted as intercepted:
            name = self._api.meta.method_to_api_mapping[operation]
            output = self._api.meta.service_model.operation_model(name).output_shape
            prototype = _Prototype.of(intercepted.request, name, frozenset(output.members if output else ()))
            if prototype is None:
                logger.warning("%s is called on threads, for only boto3 can make its requests", name)
            return prototype
        finally:
            del self._intercepting.here
        return None

    def _intercept(self, request: AWSPreparedRequest, **_others: object) -> None:
        if hasattr(self._intercepting, "here"):
            raise _Intercepted(request)


def _has_handlers(api: Any) -> bool:
    """Return whether an application, or a mock, handles ``before-send``. botocore itself does not."""
    name = f"before-send.{api.meta.service_model.service_id.hyphenize()}"
    try:
        return bool(api.meta.events._emitter._handlers.prefix_search(name))
    except AttributeError:
        logger.warning(
            "botocore %s is not one that we know: SQS and DynamoDB are called on threads, which takes more CPU time",
            botocore.__version__,
        )
        return True


class _Intercepted(BaseException):
    """Carries a request out of boto3. Not an ``Exception``, so nothing on the way handles it."""

    def __init__(self, request: AWSPreparedRequest) -> None:
        super().__init__()
        self.request = request


@dataclass(frozen=True, slots=True)
class _Prototype:
    """What is the same in all requests of an operation."""

    name: str  #: of the operation, as AWS has it
    members: frozenset[str]  #: of its answers
    url: str
    headers: Mapping[str, str]
    service: str
    region: str

    @classmethod
    def of(cls, request: AWSPreparedRequest, name: str, members: frozenset[str]) -> _Prototype | None:
        """Read a request of boto3's; None if it cannot be repeated."""
        parts = urlsplit(str(request.url))
        headers = {name: _text(value) for name, value in request.headers.items()}
        lower = {name.lower(): value for name, value in headers.items()}
        scheme, _, rest = lower.get("authorization", "").partition(" Credential=")
        scope = rest.partition(",")[0].split("/")
        is_plain = request.method == "POST" and parts.path in ("", "/") and not (parts.query or parts.username)
        if not is_plain or scheme != _SCHEME or len(scope) != 5 or parts.hostname is None:
            return None
        host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
        if parts.port not in (None, _DEFAULT_PORTS.get(parts.scheme)):
            host = f"{host}:{parts.port}"
        repeated = {name: value for name, value in headers.items() if name.lower() not in _OF_ONE_REQUEST}
        url = f"{parts.scheme}://{host}/"
        return cls(name, members, url, {**repeated, "Host": host}, service=scope[3], region=scope[2])


def _text(value: object) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else str(value)


def sign(
    headers: Mapping[str, str],
    body: bytes,
    credentials: ReadOnlyCredentials,
    service: str,
    region: str,
    now_seconds: float,
) -> dict[str, str]:
    """Return the headers (``Host`` among them) with Signature Version 4 of a POST to the path ``/``.

    botocore's ``SigV4Auth`` takes three times as long: it builds the headers twice and formats the steps for a log. A
    test compares the two.
    """
    timestamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(now_seconds))
    signed = {**headers, "X-Amz-Date": timestamp}
    if credentials.token:
        signed["X-Amz-Security-Token"] = credentials.token
    canonical = sorted(
        (lower, " ".join(value.split())) for name, value in signed.items() if (lower := name.lower()) not in _UNSIGNED
    )
    names = ";".join(name for name, _ in canonical)
    lines = "".join(f"{name}:{value}\n" for name, value in canonical)
    request = f"POST\n/\n\n{lines}\n{names}\n{sha256_hex(body)}"
    scope = f"{timestamp[:8]}/{region}/{service}/aws4_request"
    to_sign = f"{_SCHEME}\n{timestamp}\n{scope}\n{sha256_hex(request.encode())}"
    key = f"AWS4{credentials.secret_key}".encode()
    for part in scope.split("/"):
        key = hmac.digest(key, part.encode(), "sha256")
    signature = hmac.digest(key, to_sign.encode(), "sha256").hex()
    signed["Authorization"] = (
        f"{_SCHEME} Credential={credentials.access_key}/{scope}, SignedHeaders={names}, Signature={signature}"
    )
    return signed


def check_checksum(announced: str | None, content: bytes) -> None:
    """Raise ``ResponseParserError`` unless the body has the checksum that DynamoDB announced."""
    if announced and announced != str(zlib.crc32(content)):
        raise ResponseParserError("the answer was garbled on its way: its checksum is wrong")


def check_content(content: bytes, *, found_nothing: bool) -> None:
    """Raise ``ResponseParserError`` for anything but a whole JSON object with known members, or an empty one.

    botocore reads what is no JSON as an empty object. But an empty object confirms a put, and as the answer to a read
    it means that the transaction is unclaimed. Headers are not looked at: emulators differ there.
    """
    is_object = content.lstrip().startswith(b"{") and content.rstrip().endswith(b"}")
    if not is_object or (found_nothing and content.split() != [b"{}"]):
        raise ResponseParserError(excerpt(content))


def excerpt(content: bytes) -> str:
    """Quote the beginning of a foreign answer."""
    return f"the answer is none of AWS's, is a proxy in the way? {told(content[:EXCERPT_CHARACTERS])}"


def told(words: object) -> str:
    """Return the beginning of a service's words, masked: it may quote what we sent."""
    return masked(str(words)[:MAX_QUOTED_CHARACTERS])[:MAX_TOLD_CHARACTERS]
