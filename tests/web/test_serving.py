"""What every port of ours does with connections; what it does with hostile ones is in tests/admin and tests/system."""

from __future__ import annotations

import asyncio
import socket
from contextlib import suppress
from typing import Any

import pytest

from receipt_actors.domain.addresses import Address
from receipt_actors.web import connections
from receipt_actors.web.serving import AddressRefused, Serving, listen


async def hello(_scope: Any, _receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"5")]})
    await send({"type": "http.response.body", "body": b"hello"})


def test_an_answer_does_not_wait_for_the_client_to_acknowledge_its_head() -> None:
    """Head and body are two writes: without TCP_NODELAY each answer takes 40 ms, whatever it took to make."""

    async def ask() -> int:
        listener = listen("test", Address("127.0.0.1", 0))
        serving = Serving(hello, listener)
        await serving.begin()
        reader, writer = await asyncio.open_connection(*listener.getsockname())
        writer.write(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert (await reader.readuntil(b"hello")).startswith(b"HTTP/1.1 200 ")
        (connection,) = serving._state.connections
        option: int = connection.transport.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        await serving.end(0)
        assert await reader.read() == b""
        writer.close()
        return option

    assert asyncio.run(ask()) != 0


def test_who_is_served_is_served_to_the_end() -> None:
    """An answer under way is finished within the grace, and nobody new is let in meanwhile."""

    async def ask() -> bytes:
        asked, may_answer = asyncio.Event(), asyncio.Event()

        async def slow(scope: Any, receive: Any, send: Any) -> None:
            asked.set()
            await may_answer.wait()
            await hello(scope, receive, send)

        listener = listen("test", Address("127.0.0.1", 0))
        address = listener.getsockname()
        serving = Serving(slow, listener)
        await serving.begin()
        reader, writer = await asyncio.open_connection(*address)
        writer.write(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await asked.wait()
        ending = asyncio.create_task(serving.end(10))
        await asyncio.sleep(0)  # it has begun to end
        with pytest.raises(OSError, match="refused|reset|Connect call failed"):
            await asyncio.open_connection(*address)
        may_answer.set()
        answer = await reader.read()
        writer.close()
        await ending
        return answer

    answer = asyncio.run(ask())
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert answer.endswith(b"hello")


REQUEST = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"


async def read_to_end(reader: asyncio.StreamReader) -> bytes:
    """Read until the server closes; a reset is an end as well."""
    with suppress(ConnectionError):
        return await reader.read()
    return b""


def test_one_that_is_being_served_does_not_make_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where all are being served, a new one is closed at once."""
    monkeypatch.setattr(connections, "MAX_CONNECTIONS", 1)

    async def ask() -> tuple[bytes, bytes]:
        asked, may_answer = asyncio.Event(), asyncio.Event()

        async def slow(scope: Any, receive: Any, send: Any) -> None:
            asked.set()
            await may_answer.wait()
            await hello(scope, receive, send)

        listener = listen("test", Address("127.0.0.1", 0))
        address = listener.getsockname()
        serving = Serving(slow, listener)
        await serving.begin()
        reader, writer = await asyncio.open_connection(*address)
        writer.write(REQUEST)
        await asked.wait()
        new_reader, new_writer = await asyncio.open_connection(*address)
        refusal = await read_to_end(new_reader)
        may_answer.set()
        answer = await reader.readuntil(b"hello")
        await serving.end(0)
        writer.close()
        new_writer.close()
        return answer, refusal

    answer, refusal = asyncio.run(ask())
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert refusal == b""


def test_one_that_waits_for_its_turn_makes_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing has been done for it yet: those who ask too often keep out nobody else."""
    monkeypatch.setattr(connections, "MAX_CONNECTIONS", 1)

    async def ask() -> tuple[bytes, bytes]:
        arrived = asyncio.Semaphore(0)
        turns = iter([3600.0, 0.0])

        def turn(_path: str) -> float:
            arrived.release()
            return next(turns)

        listener = listen("test", Address("127.0.0.1", 0))
        address = listener.getsockname()
        serving = Serving(hello, listener, turn)
        await serving.begin()
        reader, writer = await asyncio.open_connection(*address)
        writer.write(REQUEST)
        await arrived.acquire()
        new_reader, new_writer = await asyncio.open_connection(*address)
        new_writer.write(REQUEST)
        answer = await new_reader.readuntil(b"hello")
        refusal = await read_to_end(reader)
        await serving.end(0)
        writer.close()
        new_writer.close()
        return answer, refusal

    answer, refusal = asyncio.run(ask())
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert refusal == b""


def test_an_address_that_cannot_be_had_names_who_wants_it() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as other,
        pytest.raises(AddressRefused, match=r"^refunds: 127\.0\.0\.1:\d+ can't be listened on: .+; choose another$"),
    ):
        listen("refunds", Address("127.0.0.1", other.getsockname()[1]))
