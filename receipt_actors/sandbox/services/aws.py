"""What SQS's and DynamoDB's JSON protocols share: how an operation is answered, and how it is refused."""

from __future__ import annotations

import http.client
import json
import logging
import zlib
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from receipt_actors.sandbox.http_server import Connection, Reply, Request, dumps, response

logger = logging.getLogger(__name__)

Fields = Mapping[str, Any]

#: Returns an answer, or what is to be called with the connection to answer it later.
Operation = Callable[[Fields], bytes | Callable[[Connection], None]]


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
    """The base of both; what is not simulated is refused."""

    namespace = ""  #: of error types
    malformed = ""  #: the error code for a request of another shape

    def __init__(self, latency_seconds: float, operations: Mapping[str, Operation]) -> None:
        self.latency_seconds = latency_seconds
        self.requests: Counter[str] = Counter()  #: by operation
        self.entries: Counter[str] = Counter()  #: of batches, likewise
        self._operations = operations

    def handle(self, operation: str, request: Request) -> Reply | None:
        try:
            answer = self._carry_out(operation, request.body)
        except AwsError as error:
            body = dumps({"__type": f"{self.namespace}#{error.code}", "message": error.message, **error.more})
            query = (f"x-amzn-query-error: {error.query_code};Sender",) if error.query_code else ()
            answer = response(http.client.BAD_REQUEST, body, "application/x-amz-json-1.0", *query)
        if isinstance(answer, bytes):
            return Reply(answer, self.latency_seconds)
        answer(request.connection)
        return None

    def _carry_out(self, operation: str, body: bytes) -> bytes | Callable[[Connection], None]:
        if operation not in self._operations:
            raise AwsError("UnknownOperationException", f"{operation} is not simulated")
        self.requests[operation] += 1
        try:
            fields = json.loads(body)
        except (ValueError, RecursionError):
            raise AwsError("SerializationException", "the body is no JSON") from None
        try:
            return self._operations[operation](fields)
        except (AttributeError, KeyError, TypeError) as error:  # a request of another shape, or a bug of ours
            logger.warning("%s could not be carried out", operation, exc_info=True)
            raise AwsError(self.malformed, f"{type(error).__name__}: {error}") from None
