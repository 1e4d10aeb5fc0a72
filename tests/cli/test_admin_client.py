"""What the commands make of an address where there is no admin port of ours, or one of another make."""

from __future__ import annotations

import json
import socket
import socketserver
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from receipt_actors.cli import admin_client
from receipt_actors.sandbox.http_server import Handler, HttpServer, Reply, Request, response
from tests.ports import reserved_port
from tests.stand_in_system import HOSTILE, overview_of

from .conftest import Ended

Cli = Callable[..., Ended]
COMMANDS = (("status",), ("pause",), ("trace",))  # one that gets, one that posts, one that streams


def code_of(command: tuple[str, ...]) -> int:
    return 3 if command[0] == "status" else 1


def assert_one_line(ended: Ended, code: int, *words: str) -> None:
    assert (ended.code, ended.out) == (code, ""), ended
    (line,) = ended.err.splitlines()
    assert line.startswith("receipt-actors: ")
    assert line.isprintable()
    for word in words:
        assert word in line


@pytest.fixture
def serve() -> Iterator[Callable[[Handler], str]]:
    """Start servers that answer HTTP as a test says; the address of each."""
    servers: list[HttpServer] = []

    def start(handler: Handler) -> str:
        servers.append(HttpServer(handler).start())
        return servers[-1].url.removeprefix("http://")

    yield start
    for server in servers:
        server.stop()


@contextmanager
def speaking(words: bytes) -> Iterator[str]:
    """Say something, whatever is heard, and hang up; yields the address."""

    class Speak(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            self.request.recv(65536)
            self.request.sendall(words)
            self.request.shutdown(socket.SHUT_WR)
            while self.request.recv(65536):  # to close with something unread would reset the connection
                pass

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Speak) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,)).start()
        yield f"127.0.0.1:{server.server_address[1]}"
        server.shutdown()


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command[0])
class TestEveryCommand:
    def test_nobody_listens(self, cli: Cli, command: tuple[str, ...]) -> None:
        with reserved_port() as port:
            address = f"127.0.0.1:{port}"
            ended = cli(*command, "--admin", address)
        assert_one_line(ended, code_of(command), f"nobody answers at {address}", "refused", "--admin")

    @pytest.mark.parametrize(
        "address",
        ["nonsense", "a..b:1", "10.0.0.7", "localhost:99999", "ftp://localhost:1", "localhost:1/x", "u:p@localhost:1"],
    )
    def test_no_address(self, cli: Cli, command: tuple[str, ...], address: str) -> None:
        ended = cli(*command, "--admin", address)
        assert (ended.code, ended.out) == (2, "")
        assert f"found '{address}', expected HOST:PORT" in ended.err

    @pytest.mark.parametrize(
        ("words", "said"),
        [
            (b"SSH-2.0-OpenSSH_9.9\r\n", "does not speak HTTP"),
            (b"\x15\x03\x01\x00\x02\x02\x46", "speak TLS? Then give https://"),
            (b"", "speak TLS? Then give https://"),
            (b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{", "breaks off"),
        ],
    )
    def test_something_that_speaks_otherwise(self, cli: Cli, command: tuple[str, ...], words: bytes, said: str) -> None:
        if words.endswith(b"{") and command[0] == "trace":
            said = "no admin port"  # no events are no events, however many
        with speaking(words) as address:
            assert_one_line(cli(*command, "--admin", address), code_of(command), address, said)

    @pytest.mark.parametrize(
        "answer",
        [
            response(200, b"<html>Welcome!</html>", "text/html"),
            response(200, b'{"hello": "world"}', "application/json"),
            response(200, b"[" * 100_000, "application/json"),
            response(404, b"no such page", "text/plain"),
            response(404, b'{"detail": "no such page"}', "application/json"),
            response(302, b"", "text/plain"),
            response(500, b"oops", "text/plain"),
        ],
    )
    def test_another_service(
        self, cli: Cli, serve: Callable[[Handler], str], command: tuple[str, ...], answer: bytes
    ) -> None:
        address = serve(lambda _: Reply(answer))
        assert_one_line(
            cli(*command, "--admin", address), code_of(command), f"{address} is no admin port of receipt-actors"
        )

    def test_a_server_that_never_answers(
        self, cli: Cli, serve: Callable[[Handler], str], command: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(admin_client, "ANSWER_SECONDS", 0.1)
        monkeypatch.setattr(admin_client, "SILENCE_SECONDS", 0.1)
        address = serve(lambda _: Reply(response(200, b"{}", "text/plain"), 3600.0, hangs=True))
        assert_one_line(cli(*command, "--admin", address), code_of(command), "does not answer in time")

    def test_a_wrong_token_is_a_wrong_setting(
        self, cli: Cli, serve: Callable[[Handler], str], command: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        address = serve(lambda _: Reply(response(401, b'{"error": "token"}', "application/json")))
        assert_one_line(cli(*command, "--admin", address), 2, "wants a token", "RECEIPT_ACTORS_ADMIN_TOKEN")
        monkeypatch.setenv("RECEIPT_ACTORS_ADMIN_TOKEN", "hunter2")
        ended = cli(*command, "--admin", address)
        assert_one_line(ended, 2, "takes another token")
        assert "hunter2" not in ended.err

    def test_a_refusal_in_the_servers_words(
        self, cli: Cli, serve: Callable[[Handler], str], command: tuple[str, ...]
    ) -> None:
        said = json.dumps({"error": f"not now {HOSTILE}"}).encode()
        address = serve(lambda _: Reply(response(409, said, "application/json")))
        ended = cli(*command, "--admin", address)
        assert (ended.code, ended.out) == (1, "")
        assert "not now \\x1b]0;owned\\x07\\x1b[2J" in ended.err
        assert all(line.isprintable() for line in ended.err.splitlines())


class TestToken:
    @pytest.mark.parametrize(
        ("contents", "said"), [(b"\n", "found no token"), (b"\xff\xfe", "can't be"), (b"a\tb\n", "can't be")]
    )
    def test_a_file_without_a_token(self, cli: Cli, tmp_path: Path, contents: bytes, said: str) -> None:
        (tmp_path / "token").write_bytes(contents)
        assert_one_line(cli("status", "--tree", "--token-file", "token"), 2, "token: ", said)

    def test_a_file_that_is_not_there(self, cli: Cli) -> None:
        assert_one_line(
            cli("status", "--token-file", "nowhere"), 2, "nowhere", "No such file", "expected a readable file"
        )

    def test_a_token_is_not_carried_to_where_a_redirect_leads(
        self, cli: Cli, serve: Callable[[Handler], str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        asked: list[str] = []

        def note(request: Request) -> Reply:
            asked.append(request.path)
            return Reply(response(200, b"{}", "application/json"))

        elsewhere = serve(note)
        head = f"HTTP/1.1 307 Temporary Redirect\r\nLocation: http://{elsewhere}/\r\nContent-Length: 0\r\n\r\n"
        address = serve(lambda _: Reply(head.encode()))
        monkeypatch.setenv("RECEIPT_ACTORS_ADMIN_TOKEN", "hunter2")
        assert cli("pause", "--admin", address).code == 1
        assert asked == []

    def test_a_proxy_of_the_environment_is_not_asked(
        self, cli: Cli, serve: Callable[[Handler], str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
        address = serve(lambda _: Reply(b"HTTP/1.1 204 No Content\r\n\r\n"))
        assert cli("pause", "--admin", address).code == 0


class TestVersions:
    def test_an_overview_of_another_version(self, cli: Cli, serve: Callable[[Handler], str]) -> None:
        data = {**overview_of(1).as_json(), "version": "0.0.7", "news": 1}
        address = serve(lambda _: Reply(response(200, json.dumps(data).encode(), "text/plain")))
        assert_one_line(
            cli("status", "--tree", "--admin", address), 1, "runs receipt-actors 0.0.7, and this is ", "same version"
        )

    def test_an_answer_without_an_end(
        self, cli: Cli, serve: Callable[[Handler], str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(admin_client, "MAX_ANSWER_BYTES", 100_000)
        body = b" " * 1_000_000
        address = serve(lambda _: Reply(response(200, body, "application/json")))
        assert_one_line(cli("status", "--tree", "--admin", address), 1, "its answer does not end")


@pytest.mark.parametrize(
    ("address", "url"),
    [
        ("127.0.0.1:9464", "http://127.0.0.1:9464"),
        ("localhost:1", "http://localhost:1"),
        ("[::1]:9464", "http://[::1]:9464"),
        ("0.0.0.0:9464", "http://127.0.0.1:9464"),
        ("[::]:9464", "http://[::1]:9464"),
        ("https://admin.example.com", "https://admin.example.com"),
        ("https://admin.example.com:8443/", "https://admin.example.com:8443"),
    ],
)
def test_where_an_address_leads(address: str, url: str) -> None:
    assert admin_client.base_url(address) == url
