"""What every port of ours does with connections; what it does with hostile ones is in tests/admin and tests/system."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import Any

import pytest

from receipt_actors.domain.addresses import Address
from receipt_actors.web import serving as web_serving
from receipt_actors.web.serving import AddressRefused, Serving, listen

REQUEST = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"


async def hello(_scope: Any, _receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"5")]})
    await send({"type": "http.response.body", "body": b"hello"})


class Slow:
    def __init__(self) -> None:
        self.asked, self.may_answer = asyncio.Event(), asyncio.Event()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.asked.set()
        await self.may_answer.wait()
        await hello(scope, receive, send)


class Client:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def answer(self) -> None:
        assert (await self.reader.readuntil(b"hello")).startswith(b"HTTP/1.1 200 ")

    async def rest(self) -> bytes:
        """Read until the server closes; a reset is an end as well."""
        with suppress(ConnectionError):
            return await self.reader.read()
        return b""


class Port:
    def __init__(self, serving: Serving, address: tuple[str, int], at_end: AsyncExitStack) -> None:
        self.serving, self.address, self._at_end = serving, address, at_end

    async def connect(self, request: bytes = REQUEST) -> Client:
        client = Client(*await asyncio.open_connection(*self.address))
        self._at_end.callback(client.writer.close)
        client.writer.write(request)
        return client


@asynccontextmanager
async def port_of(app: Any, pause_seconds: Callable[[str], float] | None = None) -> AsyncIterator[Port]:
    listener = listen("test", Address("127.0.0.1", 0))
    serving = Serving(app, listener, *([] if pause_seconds is None else [pause_seconds]))
    address = listener.getsockname()
    await serving.begin()
    async with AsyncExitStack() as at_end:
        yield Port(serving, address, at_end)
        await serving.end(0)


def test_an_answer_does_not_wait_for_the_client_to_acknowledge_its_head() -> None:
    """Head and body are two writes: without TCP_NODELAY each answer takes 40 ms, whatever it took to make."""

    async def ask() -> int:
        async with port_of(hello) as port:
            client = await port.connect()
            await client.answer()
            (connection,) = port.serving._state.connections
            ours = connection.transport.get_extra_info("socket")
            return int(ours.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))

    assert asyncio.run(ask()) != 0


def test_who_is_served_is_served_to_the_end() -> None:
    async def ask() -> None:
        slow = Slow()
        async with port_of(slow) as port:
            client = await port.connect()
            await slow.asked.wait()
            ending = asyncio.create_task(port.serving.end(10))
            await asyncio.sleep(0)  # it has begun to end
            with pytest.raises(OSError, match="refused|reset|Connect call failed"):
                await port.connect()
            slow.may_answer.set()
            await client.answer()
            assert await client.rest() == b""
            await ending

    asyncio.run(ask())


def test_one_that_is_being_served_does_not_make_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web_serving, "MAX_CONNECTIONS", 1)

    async def ask() -> None:
        slow = Slow()
        async with port_of(slow) as port:
            client = await port.connect()
            await slow.asked.wait()
            assert await (await port.connect(b"")).rest() == b""
            slow.may_answer.set()
            await client.answer()

    asyncio.run(ask())


def test_one_that_waits_for_its_turn_makes_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web_serving, "MAX_CONNECTIONS", 1)

    async def ask() -> None:
        arrived = asyncio.Semaphore(0)
        turns = iter([3600.0, 0.0])

        def turn(_path: str) -> float:
            arrived.release()
            return next(turns)

        async with port_of(hello, turn) as port:
            waiting = await port.connect()
            await arrived.acquire()
            await (await port.connect()).answer()
            assert await waiting.rest() == b""

    asyncio.run(ask())


def test_an_address_that_cannot_be_had_names_who_wants_it() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as other,
        pytest.raises(AddressRefused, match=r"^refunds: 127\.0\.0\.1:\d+ can't be listened on: .+; choose another$"),
    ):
        listen("refunds", Address("127.0.0.1", other.getsockname()[1]))
