"""What the process of ``SignedDataProcess`` runs, with the descriptor of a socket; it ends when the other end closes.

Lines of JSON come, and each is answered by an array. The first says what is trusted; the answer has the faults of the
configuration. Then come batches of ``[kind, JWS]``, answered in order with payloads (objects), refusals
(``[reason, detail]``) and faults of the configuration (strings).
"""

from __future__ import annotations

import gc
import json
import signal
import socket
import sys
from base64 import b64decode, b64encode
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from receipt_actors.domain.reasons import Reason
from receipt_actors.errors import ConfigurationError
from receipt_actors.stores.apple.ports import Outcome, SignatureRefused, SignedKind
from receipt_actors.stores.apple.signatures.trust import Trust, open_signed_data

if TYPE_CHECKING:
    from receipt_actors.stores.apple.signatures.apple_library import AppleSignedData

#: Ignored: a terminal or a service manager sends them to every process, but while the other process drains it has work.
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)


def encode(value: Any) -> bytes:
    # ASCII, whatever strings are in it: no line break, and a lone surrogate is an escape sequence like any other.
    return json.dumps(value, separators=(",", ":")).encode("ascii") + b"\n"


def encode_trust(trust: Trust) -> bytes:
    return encode([[b64encode(root).decode("ascii") for root in trust.roots], list(trust.app_apple_ids)])


def decode_answers(line: bytes) -> Sequence[Outcome]:
    return [_decoded(answer) for answer in json.loads(line)]


def _decoded(answer: Any) -> Outcome:
    match answer:
        case [reason, detail]:
            return SignatureRefused(Reason(reason), detail)
        case str():
            return ConfigurationError([answer])
    payload: dict[str, object] = answer
    return payload


def work(connection: socket.socket) -> None:
    """Do what comes over the connection until its other end closes."""
    lines = connection.makefile("rb")
    trust_line = lines.readline()
    if not trust_line:
        return
    roots, app_apple_ids = json.loads(trust_line)
    try:
        signed_data = open_signed_data(Trust([b64decode(root) for root in roots], app_apple_ids))
    except ConfigurationError as error:
        connection.sendall(encode(error.faults))
        return
    gc.freeze()
    connection.sendall(encode([]))
    for line in lines:
        connection.sendall(encode([_answer(signed_data, kind, signed) for kind, signed in json.loads(line)]))


def _answer(signed_data: AppleSignedData, kind: str, signed: str) -> Any:
    try:
        answer = signed_data.verify(SignedKind(kind), signed)
    except ConfigurationError as error:
        return str(error)
    return [answer.reason, answer.detail] if isinstance(answer, SignatureRefused) else answer


if __name__ == "__main__":
    for each in STOP_SIGNALS:
        signal.signal(each, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)  # held up until they could be ignored
    with socket.socket(fileno=int(sys.argv[1])) as connection, suppress(BrokenPipeError, ConnectionResetError):
        work(connection)
