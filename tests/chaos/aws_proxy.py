"""A proxy in front of an emulator of AWS that makes trouble, by seed: the program under test gets its URL.

It also knows what no client of SQS can ask for: which messages the process that runs now has received and not deleted,
and the receipt handles of processes that have died.
"""

from __future__ import annotations

import asyncio
import json
import random
import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

from tests.patience import PATIENCE_SECONDS

from .network import Link, Message, Network, Upstream

#: Above the program's time-outs of 5 s, and of a long poll of 1 s and these.
LATE_SECONDS = 6.5

#: Probabilities by operation and fault. An operation that is not listed is passed on as it is.
#:
#: ``refused``    nothing is done; 500 or 503
#: ``throttled``  nothing is done; ``ThrottlingException``, in SQS's words ``RequestThrottled``
#: ``lost``       it is carried out, and answered 500
#: ``cut``        it is carried out, and the connection is closed without an answer
#: ``slow``       it is carried out, and answered when the client has given up waiting
#: ``late``       it is carried out only when the client has given up waiting, and perhaps tried again
#: ``doubled``    what was received can be received again at once, by anyone
Rates = Mapping[str, Mapping[str, float]]

#: What keeps a request waiting.
KEPT = ("slow", "late")


class AwsProxy:
    """``happened`` counts by operation and fault; ``close`` it."""

    def __init__(self, upstream_url: str, rates: Rates, *, seed: int) -> None:
        self.rates = rates
        self.happened: Counter[tuple[str, str]] = Counter()
        self.requests: Counter[str] = Counter()
        self.messages_received = 0
        self.late_seconds = LATE_SECONDS
        self.headers: Mapping[str, str] = {}  #: of the last request: an emulator reads account and region there
        self._random = random.Random(seed)
        self._released = asyncio.Event()
        self._changed = threading.Condition()  # over what follows
        self._under_way = 0
        self._kept_waiting = 0
        self._newest_handle: dict[tuple[str, str], str] = {}  # by URL of the queue and message id; not deleted yet
        # Receipt handles that this life has received, and not deleted or handed back; how often that had been received.
        self._held: dict[str, int] = {}
        self._network = Network().__enter__()
        self._link = self._network.open(_FaultyLink(self, self._network, upstream_url))
        self.url = self._link.url

    def close(self) -> None:
        self.release()
        self._network.__exit__()

    def calm(self) -> None:
        self.rates = {}

    def release(self) -> None:
        async def set_it() -> None:
            self._released.set()

        self._network.do(set_it())

    def wait_until_idle(self) -> None:
        """Wait until every request is done with, also those that no client waits for."""
        with self._changed:
            assert self._changed.wait_for(lambda: self._under_way == 0, timeout=PATIENCE_SECONDS)

    def wait_until_kept(self) -> None:
        """Wait until some request waits for its fault to end, whether or not its client still waits."""
        with self._changed:
            assert self._changed.wait_for(lambda: self._kept_waiting > 0, timeout=PATIENCE_SECONDS)

    def begin_life(self) -> None:
        with self._changed:
            self._held.clear()

    def in_flight(self, receives: int = 1) -> int:
        with self._changed:
            return sum(count >= receives for count in self._held.values())

    def bring_back(self) -> None:
        """Make all that dead processes had received visible now, instead of waiting for the visibility timeout."""
        with self._changed:
            handles: dict[str, list[str]] = {}
            for (queue_url, _), handle in self._newest_handle.items():
                handles.setdefault(queue_url, []).append(handle)
        for queue_url, of_queue in handles.items():
            self._network.do(self._link.make_visible(queue_url, of_queue))

    def disturb(self) -> None:
        """Do nothing: its faults come by themselves."""

    def figures(self) -> str:
        faults = Counter[str]()
        for (_, fault), count in self.happened.items():
            faults[fault] += count
        told = ", ".join(f"{count} {name}" for name, count in faults.most_common())
        return f"{self.requests.total()} requests, of which {told}"

    # --- on the network's thread ---

    def begin(self, operation: str) -> str | None:
        with self._changed:
            self._under_way += 1
            self.requests[operation] += 1
        number = self._random.random()
        for fault, rate in self.rates.get(operation, {}).items():
            number -= rate
            if number < 0:
                self.happened[operation, fault] += 1
                return fault
        return None

    def end(self) -> None:
        with self._changed:
            self._under_way -= 1
            self._changed.notify_all()

    async def keep_waiting(self) -> None:
        """Return when the client of this request has probably given up, or when all are released."""
        with self._changed:
            self._kept_waiting += 1
            self._changed.notify_all()
        with suppress(TimeoutError):
            await asyncio.wait_for(self._released.wait(), self.late_seconds)

    def refusal(self, fault: str, is_dynamodb: bool) -> Message:
        if fault == "throttled":
            return _error(400, "ThrottlingException" if is_dynamodb else "RequestThrottled")
        if self._random.random() < 0.5:
            return _error(500, "InternalServerError")
        return _error(503, "ServiceUnavailable")

    def note(self, operation: str, question: Mapping[str, Any], answer: Mapping[str, Any]) -> Sequence[str]:
        """Remember which process has which message; returns the receipt handles of what was received."""
        received = answer.get("Messages") or () if operation == "ReceiveMessage" else ()
        with self._changed:
            self.messages_received += len(received)
            for message in received:
                self._newest_handle[question["QueueUrl"], message["MessageId"]] = message["ReceiptHandle"]
                self._held[message["ReceiptHandle"]] = int(message["Attributes"]["ApproximateReceiveCount"])
            entries = question.get("Entries", ())
            given_up = {entry["ReceiptHandle"] for entry in entries if not entry.get("VisibilityTimeout")}
            for handle in given_up:
                self._held.pop(handle, None)
            if operation == "DeleteMessageBatch":
                for key in [key for key, handle in self._newest_handle.items() if handle in given_up]:
                    del self._newest_handle[key]
        return [message["ReceiptHandle"] for message in received]


class _FaultyLink(Link):
    def __init__(self, proxy: AwsProxy, network: Network, upstream_url: str) -> None:
        super().__init__(network, "program", upstream_url, "127.0.0.1")
        self._proxy = proxy

    async def pass_on(self, message: Message, upstream: Upstream, writer: asyncio.StreamWriter) -> bool:
        target = message.headers.get("x-amz-target", "")
        operation = target.rpartition(".")[2]
        fault = self._proxy.begin(operation)
        try:
            if fault in ("refused", "throttled"):
                answer = self._proxy.refusal(fault, target.startswith("DynamoDB"))
            else:
                carried_out = await self._carry_out(operation, message, upstream, fault)
                if carried_out is None or fault == "cut":
                    return False
                answer = _error(500, "InternalServerError") if fault == "lost" else carried_out
            writer.write(answer.bytes)
            await writer.drain()
            return True
        finally:
            self._proxy.end()

    async def _carry_out(
        self, operation: str, message: Message, upstream: Upstream, fault: str | None
    ) -> Message | None:
        if fault == "late":
            await self._proxy.keep_waiting()
        self._proxy.headers = message.headers
        answer = await upstream.exchange(message)
        is_ok = answer is not None and answer.start.split()[1] == "200"
        if is_ok and operation in ("ReceiveMessage", "DeleteMessageBatch", "ChangeMessageVisibilityBatch"):
            question = json.loads(message.body)
            handles = self._proxy.note(operation, question, json.loads(answer.body))
            if fault == "doubled":
                await self.make_visible(question["QueueUrl"], handles)
        if fault == "slow":
            await self._proxy.keep_waiting()
        return answer

    async def make_visible(self, queue_url: str, handles: Sequence[str]) -> None:
        dropped = ("content-length", "x-amz-target", "content-type")
        headers = {name: value for name, value in self._proxy.headers.items() if name not in dropped}
        headers |= {"x-amz-target": "AmazonSQS.ChangeMessageVisibilityBatch"}
        upstream = Upstream(*self._upstream)
        for start in range(0, len(handles), 10):
            entries = [
                {"Id": str(number), "ReceiptHandle": handle, "VisibilityTimeout": 0}
                for number, handle in enumerate(handles[start : start + 10])
            ]
            body = json.dumps({"QueueUrl": queue_url, "Entries": entries}).encode()
            await upstream.exchange(_message(f"POST {urlsplit(queue_url).path} HTTP/1.1", headers, body))
        upstream.close()


def _error(status: int, code: str) -> Message:
    return _message(f"HTTP/1.1 {status} {code}", {}, json.dumps({"__type": code, "message": "injected"}).encode())


def _message(start: str, headers: Mapping[str, str], body: bytes) -> Message:
    headers = {**headers, "content-type": "application/x-amz-json-1.0", "content-length": str(len(body))}
    head = "\r\n".join([start, *(f"{name}: {value}" for name, value in headers.items()), "", ""])
    return Message(start, headers, body, head.encode("latin-1") + body)
