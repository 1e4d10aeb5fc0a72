"""Who gets in, tried with real requests: the token, other sites' pages, other names of this machine, odd methods."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Mapping

import pytest

from tests.patience import PATIENCE_SECONDS

from .conftest import JSON, TOKEN, Client, FakeSystem, serving

BEARER = {"Authorization": f"Bearer {TOKEN}"}
DATA = ["/api/overview", "/api/history", "/api/actors/intake", "/metrics", "/api/events", "/api/nothing", "/nothing"]
OPEN = ["/", "/index.html", "/healthz", "/readyz"]


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": f"Bearer {TOKEN}x"},
        {"Authorization": f"Bearer {TOKEN[:-1]}"},
        {"Authorization": f"Basic {TOKEN}"},
        {"Authorization": TOKEN},
        {"Authorization": "Bearer \xff\xfe"},
        {"Cookie": f"token={TOKEN}"},
    ],
)
def test_data_takes_the_token(system: FakeSystem, headers: Mapping[str, str]) -> None:
    with serving(system, token=TOKEN) as client:
        for path in DATA:
            answer = client.get(path, **headers)
            assert answer.status == 401
            assert answer.headers["WWW-Authenticate"] == 'Bearer realm="receipt-actors"'
            assert TOKEN not in answer.body.decode()


def test_the_token_opens_everything(system: FakeSystem) -> None:
    with serving(system, token=TOKEN) as client:
        assert [client.get(path).status for path in OPEN] == [200] * len(OPEN)  # the page and the probes take none
        for host in ("receipts.internal:9464", "10.0.0.7", "localhost"):
            assert client.get("/api/overview", Host=host, **BEARER).status == 200
        assert client.get("/metrics", Authorization=f"bearer {TOKEN}").status == 200
        assert client.post("/api/pause", headers=BEARER).status == 204
        assert client.post("/api/pause").status == 401
    assert system.told == ["pause"]


@pytest.mark.parametrize(
    "host",
    [
        *("evil.example", "evil.example:9464", "127.0.0.1.evil.example", "localhost.evil.example", "[::1", ""),
        *("evil.example@localhost", "localhost@evil.example", "localhost/evil.example", "localhost:80:80"),
        *("10.0.0.7", "0.0.0.0"),
    ],
)
def test_without_a_token_only_names_of_this_machine_are_answered(client: Client, host: str) -> None:
    for path in (*DATA, *OPEN):
        assert client.get(path, Host=host).status in (400, 421)


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:1234", "127.0.0.1", "127.9.9.9:80", "[::1]:9464"])
def test_names_of_this_machine_are_answered(client: Client, host: str) -> None:
    assert client.get("/api/overview", Host=host).status == 200


CROSS_SITE = [
    {"Origin": "https://evil.example"},
    {"Origin": "http://localhost.evil.example"},
    {"Origin": "null"},
    {"Origin": "http://127.0.0.1"},  # the same host, but another port: another site
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site"},
    {"Sec-Fetch-Site": "whatever"},
    {"Origin": "https://evil.example", "Sec-Fetch-Site": "same-origin"},
]


@pytest.mark.parametrize("headers", CROSS_SITE)
@pytest.mark.parametrize("token", [None, TOKEN])
def test_no_request_of_another_site_works(system: FakeSystem, headers: Mapping[str, str], token: str | None) -> None:
    with serving(system, token=token) as client:
        authorised = {**headers, **(BEARER if token else {})}
        for path in ("/api/pause", "/api/resume", "/api/trace"):
            assert client.post(path, headers=authorised).status == 403
        for path in DATA:
            answer = client.get(path, **authorised)
            assert answer.status == 403
            assert not [name for name in answer.headers if name.lower().startswith("access-control-")]
        assert client.ask("OPTIONS", "/api/pause", None, authorised).status == 403
    assert system.told == []


@pytest.mark.parametrize(
    "content_type",
    [
        *(None, "text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"),
        *("text/plain; application/json", "application/jsonx"),
    ],
)
def test_what_a_form_can_send_changes_nothing(client: Client, system: FakeSystem, content_type: str | None) -> None:
    headers = {} if content_type is None else {"Content-Type": content_type}
    for path in ("/api/pause", "/api/resume", "/api/trace"):
        assert client.ask("POST", path, b'{"filters": {"event": ["received"]}}', headers).status == 415
    assert system.told == []
    assert system.traces == []


def test_the_own_page_may(client: Client, system: FakeSystem) -> None:
    own = f"127.0.0.1:{client.address.port}"
    headers = {"Origin": f"http://{own}", "Sec-Fetch-Site": "same-origin", "Host": own}
    assert client.post("/api/pause", headers=headers).status == 204
    assert (
        client.post("/api/resume", headers={**headers, "Content-Type": "Application/JSON; charset=utf-8"}).status == 204
    )
    assert client.get("/", **{"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}).status == 200  # a link
    assert system.told == ["pause", "resume"]


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "PROPFIND", "pause"])
def test_state_is_changed_by_post_alone(client: Client, system: FakeSystem, method: str) -> None:
    for path in ("/api/pause", "/api/resume", "/api/trace"):
        answer = client.ask(method, path, b"{}", JSON)
        assert (answer.status, answer.headers["Allow"]) == (405, "POST")
    assert system.told == []


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "PROPFIND", "get"])
def test_what_can_be_read_is_only_read(client: Client, method: str) -> None:
    for path in ("/", "/api/overview", "/api/events", "/metrics", "/healthz"):
        answer = client.ask(method, path, b"{}", JSON)
        assert answer.status == 405
        assert {"GET", "HEAD"} == set(answer.headers["Allow"].split(", "))


def test_head_is_get_without_a_body(client: Client) -> None:
    for path in (*OPEN, *DATA[:5]):
        answer = client.ask("HEAD", path)
        assert (answer.status, answer.body) == (200, b"")


def test_no_path_leads_out_of_the_page(client: Client) -> None:
    for path in (
        *("/../server.py", "/..%2fserver.py", "/%2e%2e/server.py", "/....//server.py", "/page/../server.py"),
        *("//etc/passwd", "/etc/passwd", "/index.html/../../server.py", "/index.html%00.css", "/..\\server.py"),
        *("/INDEX.HTML", "/index.html/", "/.", "//"),
    ):
        assert client.get(path).status == 404


@pytest.mark.parametrize("path", [*OPEN, "/api/overview", "/metrics", "/nothing", "/api/pause"])
def test_every_answer_says_what_a_browser_may_do_with_it(client: Client, path: str) -> None:
    headers = client.get(path).headers
    policy = headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["X-Frame-Options"] == "DENY"
    assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
    assert headers["Referrer-Policy"] == "no-referrer"
    assert headers["Cache-Control"] == ("no-cache" if path in ("/", "/index.html") else "no-store")
    assert "Server" not in headers


def test_a_file_of_the_page_is_sent_once(client: Client) -> None:
    tag = client.get("/").headers["ETag"]
    answer = client.get("/", **{"If-None-Match": tag})
    assert (answer.status, answer.body) == (304, b"")
    assert client.get("/", **{"If-None-Match": '"other"'}).status == 200


def test_a_request_names_one_host(client: Client) -> None:
    for lines in (["Host: localhost", "Host: evil.example"], []):
        connection = http.client.HTTPConnection("127.0.0.1", client.address.port, timeout=PATIENCE_SECONDS)
        connection.connect()
        assert connection.sock is not None
        request = "\r\n".join(["GET /api/overview HTTP/1.0", *lines, "", ""])
        connection.sock.sendall(request.encode())
        assert connection.sock.recv(1000).split()[1] == b"400"
        connection.close()


@pytest.mark.parametrize("name", ["Origin", "Sec-Fetch-Site", "Content-Type", "Authorization"])
def test_what_is_decided_by_is_said_once(client: Client, system: FakeSystem, name: str) -> None:
    values = {
        "Origin": f"http://127.0.0.1:{client.address.port}",
        "Sec-Fetch-Site": "same-origin",
        "Content-Type": "application/json",
        "Authorization": f"Bearer {TOKEN}",
    }
    headers = {"Host": f"127.0.0.1:{client.address.port}", "Content-Length": "2", **values}
    for others in ([], [f"{name}: another"], [f"{name}: {values[name]}"]):
        lines = [f"{each}: {value}" for each, value in headers.items()]
        request = "\r\n".join(["POST /api/pause HTTP/1.1", *lines, *others, "", "{}"])
        with socket.create_connection(("127.0.0.1", client.address.port), timeout=PATIENCE_SECONDS) as connection:
            connection.sendall(request.encode())
            assert connection.recv(1000).split()[1] == (b"400" if others else b"204")
    assert system.told == ["pause"]


def test_a_body_has_one_length(client: Client, system: FakeSystem) -> None:
    head = b"POST /api/pause HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    request = head + b"Content-Length: 1000\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n"
    with socket.create_connection(("127.0.0.1", client.address.port), timeout=PATIENCE_SECONDS) as connection:
        connection.sendall(request + head + b"Content-Length: 2\r\n\r\n{}")
        answer = b"".join(iter(lambda: connection.recv(1000), b""))
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert answer.count(b"HTTP/1.1 ") == 1
    assert system.told == []


def test_bodies_that_are_no_command_change_nothing(client: Client, system: FakeSystem) -> None:
    for body in (b"", b"[]", b"null", b"{", b'{"really": true}', b"\xff", b"[" * 10_000):
        answer = client.ask("POST", "/api/pause", body, JSON)
        assert answer.status == 400
        assert json.loads(answer.body)["error"].startswith("expected")
    assert system.told == []


def test_a_refusal_can_be_read_though_the_body_is_still_on_its_way(client: Client) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", client.address.port, timeout=PATIENCE_SECONDS)
    for _ in range(3):
        connection.request("POST", "/api/pause", b"x" * 10_000, {"Content-Type": "text/plain"})
        response = connection.getresponse()
        assert response.status == 415
        response.read()
    connection.close()
