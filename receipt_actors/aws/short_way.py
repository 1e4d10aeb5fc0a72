"""``ShortWay``: how a request of boto3's gets to AWS and back for a fraction of the CPU time.

Most of what boto3 needs for a call goes into what ours have no use for: headers in dictionaries of five kinds, events
that nobody listens to, retries that are off, parameters and answers walked through shape by shape. botocore offers two
places to do without: handlers of ``before-call`` may answer a request themselves (its stubs do), and handlers of
``provide-client-params`` may replace parameters. What stays is boto3's: settings, endpoints (resolved for every call),
credentials and their renewal, models, exceptions, the reading of errors, and the event ``before-send``, by which mocks
answer in AWS's place.

An operation has three steps: boto3 makes a request, as far as ``before-call``, where it is signed and taken away; it is
exchanged for an answer, by whoever drives the ``steps``; the answer is read. The first of them may take a while when
credentials have to be renewed.

Milliseconds of CPU time a call, the kernel's included, of botocore's own way and of this one (CPython 3.11, boto3 1.44,
plain HTTP on loopback, bodies of 7 KB, the best of fourteen runs):

========================= ==== ==== =============================================================
receive of ten messages   0.82 0.22 of that: reading 77 KB of JSON 0.06
send batch of ten         0.79 0.21 sending 0.04, checking what is sent 0.07
delete batch of ten       0.61 0.13
visibility batch of ten   0.61 0.13
conditional put           0.57 0.13 parameters, events and endpoint (boto3) 0.07, signature 0.02
PartiQL batch of 25 puts  1.24 0.30 making 25 items 0.1; through botocore's serializer 0.4 more
========================= ==== ==== =============================================================

**What is not plain goes botocore's own way**, so that nothing that it can do is lost: a proxy, a client certificate, an
endpoint with a path, another signature than version 4, endpoint discovery, checksums. Handlers that an application has
registered in its session are called for ``before-call``, ``before-send`` and ``after-call``, not for the other steps.
"""

from __future__ import annotations

import json
import ssl
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from http import HTTPStatus
from typing import Any, Never
from urllib.parse import urlsplit

from botocore.awsrequest import AWSPreparedRequest, AWSResponse, HeadersDict
from botocore.credentials import Credentials
from botocore.exceptions import ClientError, HTTPClientError, NoCredentialsError
from botocore.hooks import first_non_none_response
from botocore.httpsession import create_urllib3_context, get_cert_path
from botocore.model import OperationModel
from botocore.parsers import ResponseParserError, create_parser
from botocore.signers import RequestSigner
from botocore.utils import get_environ_proxies

from receipt_actors.aws.http_answer import HttpAnswer, Origin, headers_of
from receipt_actors.aws.http_pool import HttpPool
from receipt_actors.aws.signature import sign
from receipt_actors.aws.steps import Blocking, Exchange, Steps

#: Operations of many entries: their parameters are plain JSON already, and their answers are read entry by entry by
#: whoever asked. botocore would walk through both, shape by shape.
_BATCHES = frozenset(
    {
        "BatchExecuteStatement",
        "ChangeMessageVisibilityBatch",
        "DeleteMessageBatch",
        "ReceiveMessage",
        "SendMessageBatch",
    }
)
#: One operation of each kind: its parameters, which are plain JSON, and an answer.
_SAMPLES: Mapping[str, Sequence[tuple[str, Mapping[str, object], Mapping[str, object]]]] = {
    "sqs": [
        ("get_queue_url", {"QueueName": "sample"}, {"QueueUrl": "https://sqs.example/1/sample"}),
        ("receive_message", {"QueueUrl": "https://sqs.example/1/sample"}, {"Messages": [{"Body": "sample"}]}),
    ],
    "dynamodb": [
        ("get_item", {"TableName": "sample", "Key": {"a": {"S": "1"}}}, {"Item": {"a": {"S": "1"}}}),
        ("batch_execute_statement", {"Statements": []}, {"Responses": [{"TableName": "sample"}]}),
    ],
}
_PARAMETERS = "receipt_actors_parameters"  #: where a call's context keeps what is to be its body
_UNSIGNED_HEADERS = {"Accept-Encoding": "identity"}  #: as botocore's own transport asks
_UNSIGNED_HEADER_LINES = "".join(f"{name}: {value}\r\n" for name, value in _UNSIGNED_HEADERS.items())
_to_json = json.JSONEncoder(separators=(",", ":")).encode


class ShortWay:
    """See the module. ``install`` it in a client that speaks JSON; used by any thread."""

    def __init__(
        self, client: Any, credentials: Credentials | None, verify: str | bool, *, max_connections: int
    ) -> None:
        """Prepare for ``client`` and what it was built with; ``verify`` is a file of certificates, or True."""
        self._client = client
        self._credentials = credentials
        self._events = client.meta.events
        self._preparing = _Preparing()
        config = client.meta.config
        self._parser = create_parser("json")
        self._origins: dict[str, Origin | None] = {}
        self._pool = HttpPool(
            max_idle=max_connections,
            connect_timeout_seconds=config.connect_timeout,
            read_timeout_seconds=config.read_timeout,
            make_tls_context=lambda: _tls_context(verify),
        )

    @staticmethod
    def is_open_to(client: Any) -> bool:
        """Tell whether nothing about the client calls for botocore's own way, whatever the call."""
        config, url = client.meta.config, client.meta.endpoint_url
        return (
            client.meta.service_model.metadata.get("protocol") == "json"
            and not (config.proxies or config.proxies_config or config.client_cert)
            and not get_environ_proxies(url).get(urlsplit(url).scheme)
        )

    def misfit(self) -> str | None:
        """Say why the installed botocore is not the one that this knows; None where it is. No request is made.

        A client with credentials that are at hand is taken through whole operations, with sample answers.
        """
        samples = _SAMPLES[self._client.meta.service_model.service_name]
        try:
            for name, parameters, answer in samples:
                self._try_out(getattr(self._client, name), parameters, answer)
        except Exception as error:  # noqa: BLE001 - whatever it is, it would be so with each request
            return f"{type(error).__name__}: {error}"
        return None

    def _try_out(
        self, operation: Callable[..., Any], parameters: Mapping[str, object], answer: Mapping[str, object]
    ) -> None:
        prepared = self._prepare(operation, parameters)
        if not isinstance(prepared, _PreparedRequest):  # a handler of the application's has answered
            return
        sent = json.loads(prepared.as_bytes.partition(b"\r\n\r\n")[2])
        if sent != parameters:
            raise ValueError(f"{parameters} becomes {sent}")
        content = json.dumps(answer).encode()
        read = self._read(prepared, _Response(prepared.url, HttpAnswer(HTTPStatus.OK, {}, content)))
        if {name: read.get(name) for name in answer} != answer:
            raise ValueError(f"{answer} is read as {read}")
        refusal = HttpAnswer(HTTPStatus.BAD_REQUEST, {}, b'{"__type": "com.amazonaws#Sample", "message": ""}')
        try:
            self._read(prepared, _Response(prepared.url, refusal))
        except ClientError as error:
            if error.response["Error"]["Code"] == "Sample":
                return
        raise ValueError("an error answer is not read as one")

    def install(self) -> None:
        """Have the client's calls come this way."""
        self._events.register("provide-client-params", self._take_parameters)
        self._events.register_last("before-call", self._take_request)

    def close(self) -> None:
        """Close the connections that are not in use."""
        self._pool.close()

    def _take_parameters(
        self, params: Mapping[str, Any], model: OperationModel, context: dict[str, Any], **_others: object
    ) -> Mapping[str, Any] | None:
        """Keep what is to be the body from botocore's serializer (a ``provide-client-params`` handler)."""
        if model.name not in _BATCHES:
            return None
        context[_PARAMETERS] = params
        return {}

    def steps(self, operation: Callable[..., Any], parameters: Mapping[str, object]) -> Steps[Any]:
        """Carry out an operation of the client. Raises what boto3 raises."""
        prepare = partial(self._prepare, operation, parameters)
        # Resolving the endpoint asks for the credentials as well, hence all of it goes where it may take a while.
        prepared = (yield Blocking(prepare)) if self._needs_renewal() else prepare()
        if isinstance(prepared, Blocking):
            return (yield prepared)
        if not isinstance(prepared, _PreparedRequest):
            return prepared
        answer = yield Exchange(self._pool, prepared.origin, prepared.as_bytes)
        return self._read(prepared, _Response(prepared.url, answer))

    def _needs_renewal(self) -> bool:
        """Tell whether asking for credentials may take a while; only those that can be renewed have a way to say so."""
        refresh_needed = getattr(self._credentials, "refresh_needed", None)
        return refresh_needed is not None and refresh_needed()

    def _prepare(
        self, operation: Callable[..., Any], parameters: Mapping[str, object]
    ) -> _PreparedRequest | Blocking | Any:
        """Return the request that is to be sent; what botocore has to do itself; or the answer of who has answered."""
        try:
            with self._preparing:
                return operation(**parameters)  # a mock, or a handler of the application's
        except _Prepared as prepared:
            return prepared.request
        except _NotPlain:
            return Blocking(partial(operation, **parameters))

    def _take_request(
        self,
        model: OperationModel,
        params: dict[str, Any],
        request_signer: RequestSigner,
        context: dict[str, Any],
        **_others: object,
    ) -> tuple[AWSResponse, dict[str, Any]] | None:
        """Take a request away from botocore, or leave it there (a ``before-call`` handler). Raises ``_Prepared``."""
        parameters = context.pop(_PARAMETERS, None)
        if parameters is not None and params["body"] == b"{}":  # else a handler of the application's has had its say
            params["body"] = _to_json(parameters).encode()
        if not self._preparing.is_under_way:
            return None
        origin = self._origin(params, context)
        version = context.get("auth_type") or request_signer.signature_version
        if origin is None or version != "v4":
            raise _NotPlain
        headers = self._sign(origin, params, request_signer, context)
        request = _Request(params["url"], headers, params["body"])
        event = f"{model.service_model.service_id.hyphenize()}.{model.name}"
        http = first_non_none_response(self._events.emit(f"before-send.{event}", request=request))
        if http is not None:
            return http, self._parse(model, http)
        raise _Prepared(_PreparedRequest(origin, params["url"], request.as_bytes(), model, context, event))

    def _read(self, request: _PreparedRequest, http: _Response) -> dict[str, Any]:
        """Do with an answer what botocore does after ``before-call``."""
        parsed = self._parse(request.model, http)
        self._events.emit(
            f"after-call.{request.event}",
            http_response=http,
            parsed=parsed,
            model=request.model,
            context=request.context,
        )
        if http.status_code >= HTTPStatus.MULTIPLE_CHOICES:
            self._refuse(request, parsed)
        return parsed

    def _refuse(self, request: _PreparedRequest, parsed: Mapping[str, Any]) -> Never:
        code = request.context.get("error_code_override") or parsed.get("Error", {}).get("Code")
        raise self._client.exceptions.from_code(code)(parsed, request.model.name)

    def _origin(self, params: Mapping[str, Any], context: Mapping[str, Any]) -> Origin | None:
        """Return where the request goes; None where there is something about it that only botocore knows."""
        if params["method"] != "POST" or context.get("checksum") or context.get("discovery"):
            return None
        url: str = params["url"]
        if url not in self._origins:
            self._origins[url] = Origin.of(url)
        return self._origins[url]

    def _sign(
        self, origin: Origin, params: Mapping[str, Any], request_signer: RequestSigner, context: Mapping[str, Any]
    ) -> dict[str, str]:
        signing = context.get("signing", {})
        service = signing.get("signing_name") or request_signer.signing_name
        region = signing.get("region") or request_signer.region_name
        auth = request_signer.get_auth_instance(service, region, "v4")  # its credentials are renewed by now
        if auth.credentials is None:
            raise NoCredentialsError
        headers = {"Host": origin.netloc, **params["headers"]}
        return sign(headers, params["body"], auth.credentials, service=service, region=region, now_seconds=time.time())

    def _parse(self, model: OperationModel, http: AWSResponse) -> dict[str, Any]:
        """Read an answer as botocore does, or for batches as it is, without what the model does not know."""
        if model.name in _BATCHES and http.status_code < HTTPStatus.MULTIPLE_CHOICES:
            return _plain_answer(model, http.content)
        response = {
            "status_code": http.status_code,
            "headers": headers_of(http),
            "body": http.content,
            "context": {"operation_name": model.name},
        }
        assert model.output_shape is not None
        parsed: dict[str, Any] = self._parser.parse(response, model.output_shape)
        if http.status_code >= HTTPStatus.MULTIPLE_CHOICES:
            shape = model.service_model.shape_for_error_code(parsed.get("Error", {}).get("Code"))
            if shape is not None:  # it has members of its own, such as the item that stands in the way
                parsed.update(self._parser.parse(response, shape))
        return parsed


@dataclass(frozen=True, slots=True)
class _PreparedRequest:
    """A request that is ready to be sent, and what is needed to read the answer."""

    origin: Origin
    url: str
    as_bytes: bytes
    model: OperationModel
    context: dict[str, Any]
    event: str  #: the end of its events' names


class _Prepared(BaseException):
    """Leads out of boto3 with a request. No ``Exception``: nothing on the way has to do with it."""

    def __init__(self, request: _PreparedRequest) -> None:
        super().__init__()
        self.request = request


class _NotPlain(BaseException):
    """Likewise: the request is botocore's own business."""


class _Preparing(threading.local):
    """Whether this thread makes a request to be taken away."""

    is_under_way = False

    def __enter__(self) -> None:
        self.is_under_way = True

    def __exit__(self, *_error: object) -> None:
        self.is_under_way = False


def _plain_answer(model: OperationModel, content: bytes) -> dict[str, Any]:
    try:
        answer = json.loads(content)
    except RecursionError:
        raise ResponseParserError("the answer is nested too deeply") from None
    if not isinstance(answer, dict):
        raise ResponseParserError(f"an object was expected, not a {type(answer).__name__}")
    assert model.output_shape is not None
    known = {name: answer[name] for name in model.output_shape.members if answer.get(name) is not None}
    return {**known, "ResponseMetadata": {}}


class _Request(AWSPreparedRequest):
    """A request on its way. Its headers become botocore's dictionary only for whoever looks at them, or adds some."""

    body: bytes

    def __init__(self, url: str, headers: dict[str, str], body: bytes) -> None:
        self.method = "POST"
        self.url = url
        self.body = body
        self.stream_output = False
        self.context: dict[str, Any] = {}
        self._plain_headers = headers

    @cached_property
    def headers(self) -> HeadersDict:  # type: ignore[override]
        return HeadersDict({**self._plain_headers, **_UNSIGNED_HEADERS, "Content-Length": str(len(self.body))})

    def as_bytes(self) -> bytes:
        """Return head and body as they travel. Raises ``HTTPClientError`` for a header that would become two."""
        looked_at = self.__dict__.get("headers")
        headers = self._plain_headers if looked_at is None else looked_at
        head = "".join([f"{name}: {value}\r\n" for name, value in headers.items()])
        if head.count("\n") != len(headers) or head.count("\r") != len(headers):
            raise HTTPClientError(error="a line break in a header")  # of credentials: nothing else is ours to choose
        if looked_at is None:
            head += f"{_UNSIGNED_HEADER_LINES}Content-Length: {len(self.body)}\r\n"
        return f"POST / HTTP/1.1\r\n{head}\r\n".encode("latin-1") + self.body


class _Response(AWSResponse):
    """A whole answer. Its headers become botocore's dictionary only for whoever looks at them."""

    def __init__(self, url: str, answer: HttpAnswer) -> None:
        self.url = url
        self.status_code = answer.status
        self.lower_headers = answer.headers
        self.raw = None
        self._content = answer.content

    @cached_property
    def headers(self) -> HeadersDict:  # type: ignore[override]
        return HeadersDict(self.lower_headers)


def _tls_context(verify: str | bool) -> ssl.SSLContext:
    context: ssl.SSLContext = create_urllib3_context()
    context.check_hostname = True  # botocore leaves this to urllib3
    context.load_verify_locations(get_cert_path(verify))  # type: ignore[arg-type]
    return context
