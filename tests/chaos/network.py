"""A network between nodes and services: a ``Link`` passes HTTP/1.1 on, request by request, and can be cut.

Each request is noted with the times at which it came and was answered: what the service sees, whatever a node says.
"""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from enum import StrEnum
from math import inf
from typing import Any, Self, TypeVar
from urllib.parse import urlsplit

from tests.patience import PATIENCE_SECONDS

TICK_SECONDS = 0.02  #: at which the network looks how late it is
MAX_BYTES = 2**24  #: of what has been read and not been taken yet
APPLE = "verifyReceipt"  #: the operation of a request to the App Store
_CHECK = b"receipt-actors-check"  # the program looks whether its tables are there

T = TypeVar("T")
LinkT = TypeVar("LinkT", bound="Link")


class Cut(StrEnum):
    DROPPED = "dropped"  #: nothing arrives, and nobody hears anything: what loses packets
    HELD = "held"  #: nobody hears anything, and everything arrives when the link is mended: what keeps packets
    DEAF = "deaf"  #: all is carried out, and its answers are lost
    REFUSED = "refused"  #: the connection is closed at each request


@dataclass(slots=True)
class Request:
    node: str
    operation: str  #: SQS's or DynamoDB's, or ``APPLE``
    target: str  #: the table or the queue
    came_at_seconds: float  #: monotonic
    is_check: bool = False  #: the program looks whether a table is there
    answered_at_seconds: float | None = None  #: monotonic; None: it never came through, or is under way
    status: int = 0
    was_held: bool = False  #: by the network, which had it arrive when nobody waited for it any more
    fields: Mapping[str, Any] = field(default_factory=dict)  #: what was asked, where the network keeps that


Covers = Callable[[Request], bool]


def everything(_request: Request) -> bool:
    return True


class Network:
    """All links, on one thread. ``requests`` has what came through, in the order of coming.

    Args:
        keeps: whether what was asked is kept with a request.
        delay_seconds: how long the answer to a request is kept back, as if the service took so long.
    """

    def __init__(
        self,
        keeps: Covers = lambda request: False,
        delay_seconds: Callable[[Request], float] = lambda request: 0.0,
    ) -> None:
        self.requests: list[Request] = []
        self.latest_seconds = 0.0  #: by how much this thread was late at worst
        self.keeps = keeps
        self.delay_seconds = delay_seconds
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="network", daemon=True)
        self._links: list[Link] = []

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.mend(self._links)
        self.do(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def link(self, node: str, upstream_url: str, address: str = "127.0.0.1") -> Link:
        return self.open(Link(self, node, upstream_url, address))

    def open(self, link: LinkT) -> LinkT:
        self._links.append(link)
        self.do(link.open())
        return link

    def cut(self, links: Iterable[Link], cut: Cut, covers: Covers = everything) -> None:
        async def begin() -> None:
            for link in links:
                link.begin_cut(cut, covers)

        self.do(begin())

    def mend(self, links: Iterable[Link]) -> None:
        """Mend them. Connections on which somebody waits in vain are closed."""

        async def end() -> None:
            for link in links:
                link.end_cut()

        self.do(end())

    def do(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(PATIENCE_SECONDS)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        ticking = self._loop.create_task(self._tick())  # a loop forgets a task that nobody else holds
        self._loop.run_forever()
        assert ticking.cancelled()

    async def _end(self) -> None:
        for link in self._links:
            link.close()
        while others := asyncio.all_tasks() - {asyncio.current_task()}:  # also connections just accepted
            await asyncio.sleep(0)  # each begins, or it would not close anything
            for task in others:
                task.cancel()
            await asyncio.wait(others)
        for _ in range(10):  # rounds in which connections are closed
            await asyncio.sleep(0)

    async def _tick(self) -> None:
        while True:
            due_at = time.monotonic() + TICK_SECONDS
            await asyncio.sleep(TICK_SECONDS)
            self.latest_seconds = max(self.latest_seconds, time.monotonic() - due_at)


class Link:
    def __init__(self, network: Network, node: str, upstream_url: str, address: str) -> None:
        self.node = node
        self.url = ""
        self.kept: list[Request] = []  #: what came to a cut that let nothing arrive, and did not say so
        self._network = network
        self._address = address
        parts = urlsplit(upstream_url)
        assert parts.hostname is not None
        assert parts.port is not None
        self._upstream = parts.hostname, parts.port
        self._cut: tuple[Cut, Covers, asyncio.Event] | None = None  # the event: it is mended
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[Any]] = set()

    def cut(self, cut: Cut, covers: Covers = everything) -> None:
        self._network.cut([self], cut, covers)

    def mend(self) -> None:
        self._network.mend([self])

    # --- on the network's thread ---

    def begin_cut(self, cut: Cut, covers: Covers) -> None:
        self._cut = cut, covers, asyncio.Event()

    def end_cut(self) -> None:
        cut, self._cut = self._cut, None
        if cut is not None:
            cut[2].set()

    async def open(self) -> None:
        self._server = await asyncio.start_server(self._serve, self._address, 0, limit=MAX_BYTES)
        host, port = self._server.sockets[0].getsockname()[:2]
        self.url = f"http://{host}:{port}"

    def close(self) -> None:
        assert self._server is not None
        self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        me = asyncio.current_task()
        assert me is not None
        self._tasks.add(me)  # or it is forgotten, with what it waits for, when its client is gone
        upstream = Upstream(*self._upstream)
        try:
            while (message := await _read(reader)) is not None:
                if not await self.pass_on(message, upstream, writer):
                    break
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # a node that was killed is no news; nor is the end of the network
        finally:
            writer.close()
            upstream.close()
            self._tasks.discard(me)

    async def pass_on(self, message: Message, upstream: Upstream, writer: asyncio.StreamWriter) -> bool:
        """Tell whether the connection may be used again."""
        request = _request(self.node, message)
        cut, mended = self._cut_of(request)
        if cut is Cut.REFUSED:
            return False
        if cut in (Cut.DROPPED, Cut.HELD):
            self.kept.append(request)
            await mended.wait()
            if cut is Cut.HELD:
                request.came_at_seconds, request.was_held = time.monotonic(), True
                await self._ask(request, message, upstream)
            return False
        answer = await self._ask(request, message, upstream)
        if answer is None:
            return False
        cut, mended = self._cut_of(request)
        if cut is not None:
            await mended.wait()
            return False
        writer.write(answer.bytes)
        await writer.drain()
        return True

    def _cut_of(self, request: Request) -> tuple[Cut | None, asyncio.Event]:
        if self._cut is not None and self._cut[1](request):
            return self._cut[0], self._cut[2]
        return None, asyncio.Event()

    async def _ask(self, request: Request, message: Message, upstream: Upstream) -> Message | None:
        self._network.requests.append(request)
        try:
            answer = await upstream.exchange(message)
            delay_seconds = self._network.delay_seconds(request)
            if delay_seconds > 0:
                await asyncio.sleep(delay_seconds)
        finally:
            request.answered_at_seconds = time.monotonic()
        if answer is None:
            return None
        if self._network.keeps(request):
            request.fields = json.loads(message.body)
        request.status = int(answer.start.split()[1])
        return answer


class Upstream:
    def __init__(self, host: str, port: int) -> None:
        self._address = host, port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def exchange(self, message: Message) -> Message | None:
        """Return the answer, or None if the service closes the connection."""
        is_new = self._streams is None
        if self._streams is None:
            self._streams = await asyncio.open_connection(*self._address, limit=MAX_BYTES)
        reader, writer = self._streams
        with suppress(ConnectionError):
            writer.write(message.bytes)
            answer = await _read(reader)
            if answer is not None:
                return answer
        self.close()
        return None if is_new else await self.exchange(message)  # a server closes what was idle for long

    def close(self) -> None:
        if self._streams is not None:
            self._streams[1].close()
        self._streams = None


@dataclass(frozen=True, slots=True)
class Message:
    start: str
    headers: Mapping[str, str]  #: by their names in lower case
    body: bytes
    bytes: bytes


async def _read(reader: asyncio.StreamReader) -> Message | None:
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return None
    start, *lines = head.decode("latin-1").split("\r\n")[:-2]
    headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    assert "transfer-encoding" not in headers, "expected a length"
    body = await reader.readexactly(int(headers.get("content-length", 0)))
    return Message(start, headers, body, head + body)


def _request(node: str, message: Message) -> Request:
    operation = message.headers.get("x-amz-target", "").rpartition(".")[2] or APPLE
    now = time.monotonic()
    is_check = _CHECK in message.body or operation == "DescribeTimeToLive"
    return Request(node, operation, _target(operation, message.body), now, is_check=is_check)


def _target(operation: str, body: bytes) -> str:
    if operation == APPLE:
        return ""
    fields = json.loads(body)
    if operation == "BatchExecuteStatement":
        return str(fields["Statements"][0]["Statement"].split('"')[1])
    return str(fields.get("TableName") or fields.get("QueueUrl", "").rpartition("/")[2] or fields.get("QueueName", ""))


def under_way(requests: Sequence[Request]) -> list[tuple[float, int]]:
    """Say how many of these were under way at once, from each moment on at which that changed."""
    began = [(request.came_at_seconds, 1) for request in requests]
    ended = [(inf if request.answered_at_seconds is None else request.answered_at_seconds, -1) for request in requests]
    found, count = [], 0
    for at_seconds, change in sorted(began + ended):
        count += change
        found.append((at_seconds, count))
    return found


def most_in(requests: Sequence[Request], window_seconds: float) -> int:
    came_at = sorted(request.came_at_seconds for request in requests)
    most = first = 0
    for last, at_seconds in enumerate(came_at):
        while came_at[first] <= at_seconds - window_seconds:
            first += 1
        most = max(most, last - first + 1)
    return most
