"""What SQS's and DynamoDB's JSON protocols share: which operation is meant, how it is answered, how it is refused."""

from __future__ import annotations

import http.client
import json
import logging
import zlib
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from receipt_actors.sandbox.http_server import Connection, Request, dumps, response

logger = logging.getLogger(__name__)

Fields = Mapping[str, Any]

_TARGET = b"\r\nx-amz-target: "


class AwsError(Exception):
    """A request that AWS would refuse: raised by an operation, answered as HTTP 400."""

    def __init__(self, code: str, message: str, *, query_code: str = "", more: Mapping[str, object] = {}) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.query_code = query_code  #: the code of SQS's older protocol, which clients still report
        self.more = more  #: beside code and message


def aws_ok(body: bytes) -> bytes:
    """Write an answer; DynamoDB's clients may check the sum."""
    return (
        b"HTTP/1.1 200 OK\r\nContent-Type: application/x-amz-json-1.0\r\nx-amzn-RequestId: simulated\r\n"
        b"x-amz-crc32: %d\r\nContent-Length: %d\r\n\r\n%b" % (zlib.crc32(body), len(body), body)
    )


class AwsService:
    """The base of both. ``requests`` and ``entries`` count what was asked for, by operation.

    An operation returns its answer, or None where it answers the connection later. What is not simulated is refused.
    """

    namespace = ""  #: of error types
    malformed = ""  #: the error code for a request of another shape

    def __init__(
        self,
        target: str,
        latency_seconds: float,
        operations: Mapping[str, Callable[[Connection, Fields], bytes | None]],
    ) -> None:
        self.latency_seconds = latency_seconds
        self.requests: Counter[str] = Counter()
        self.entries: Counter[str] = Counter()
        self._target = _TARGET + target.lower().encode() + b"."
        self._operations = {name.lower().encode(): (name, operation) for name, operation in operations.items()}

    def handle(self, connection: Connection, request: Request) -> bool:
        """Answer a request, unless it is for another service."""
        start = request.head.find(self._target)
        if start < 0:
            return False
        start += len(self._target)
        end = request.head.find(b"\r\n", start)
        target = request.head[start:end] if end > 0 else request.head[start:]
        answer: bytes | None
        try:
            known = self._operations.get(target)
            if known is None:
                raise AwsError("UnknownOperationException", f"{target.decode('latin-1')} is not simulated")
            name, operation = known
            self.requests[name] += 1
            try:
                fields = json.loads(request.body)
            except (ValueError, RecursionError):
                raise AwsError("SerializationException", "the body is no JSON") from None
            try:
                answer = operation(connection, fields)
            except (AttributeError, KeyError, TypeError) as error:  # a request of another shape, or a bug of ours
                logger.warning("%s could not be carried out", name, exc_info=True)
                raise AwsError(self.malformed, f"{type(error).__name__}: {error}") from None
        except AwsError as error:
            body = dumps({"__type": f"{self.namespace}#{error.code}", "message": error.message, **error.more})
            query = (f"x-amzn-query-error: {error.query_code};Sender",) if error.query_code else ()
            answer = response(http.client.BAD_REQUEST, body, "application/x-amz-json-1.0", *query)
        if answer is not None:
            connection.respond(answer, self.latency_seconds)
        return True
