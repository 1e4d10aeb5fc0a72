"""``receipt-actors app-store``: a simulated App Store for other commands, until it is told to stop."""

from __future__ import annotations

import json
import re
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

import pytest
from appstoreserverlibrary.models.Environment import Environment
from appstoreserverlibrary.signed_data_verifier import SignedDataVerifier

from receipt_actors.sandbox.apple_ca import ROOT_FILE
from receipt_actors.sandbox.http_server import HttpServer, Reply, Request, response
from tests.patience import PATIENCE_SECONDS

from .conftest import BUNDLE_ID, EmbeddedWorld, Ended, Processes

Cli = Callable[..., Ended]
COMMENT = "# the Server API instead of verifyReceipt: export RECEIPT_ACTORS_APP_RECEIPTS=server-api\n"
URL = re.compile(r"http://127\.0\.0\.1:\d+")


NAMES = ("APP_STORE_URL", "APPLE_ROOTS", "SERVER_API_KEY", "SERVER_API_KEY_ID", "SERVER_API_ISSUER_ID")
VARIABLES = [f"RECEIPT_ACTORS_{name}" for name in NAMES]


def exports(stream: IO[str] | None) -> dict[str, str]:
    """Read the variables as a shell would, up to the comment that is the last line."""
    assert stream is not None
    lines = list(iter(stream.readline, COMMENT))
    return dict(line.removeprefix("export ").rstrip("\n").split("=", 1) for line in lines)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_answers_until_it_is_told_to_stop(
    cli: Cli, processes: Processes, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    process = processes.start("app-store", "--port", "0", "--shared-secret", "hush")
    variables = exports(process.stdout)
    assert list(variables) == VARIABLES
    assert URL.fullmatch(variables[VARIABLES[0]])
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    ended = cli("verify", "--bundle-ids", BUNDLE_ID, "--shared-secret", "hush", "--json", "TUlJ")
    assert [told["status"] for told in ended.lines] == [21002]
    ended = cli("verify", "--bundle-ids", BUNDLE_ID, "--json", "TUlJ")
    assert [told["status"] for told in ended.lines] == [21004]

    process.send_signal(number)
    out, err = process.communicate(timeout=PATIENCE_SECONDS)
    assert (process.returncode, out, err) == (0, "", "")
    assert not Path(variables["RECEIPT_ACTORS_APPLE_ROOTS"]).exists()


def test_minted_messages_are_sent_but_for_some_that_are_bad_on_purpose(
    cli: Cli, embedded: EmbeddedWorld, processes: Processes
) -> None:
    process = processes.start("app-store", "--port", "0", "--mint", "100", "--seed", "7", "--receipts", "mixed")
    assert process.stdout is not None
    exports(process.stderr)
    lines = [process.stdout.readline() for _ in range(100)]
    assert 10 < sum('"receipt": "eyJ' in line for line in lines) < 90
    ended = cli("submit", *embedded.flags, "--file", "-", "--keep-going", stdin="".join(lines).encode())
    accepted, refused = len(ended.out.splitlines()), len(ended.err.splitlines())
    assert accepted + refused == 100
    assert 0 < refused < 20


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.1", "::", "::1", "example.com", ""])
def test_it_is_for_this_machine_only(cli: Cli, host: str) -> None:
    ended = cli("app-store", "--host", host)
    assert (ended.code, ended.out) == (2, "")
    assert "127.0.0.1" in ended.err


def test_a_port_that_is_taken_is_told(cli: Cli) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        ended = cli("app-store", "--port", str(port))
    assert (ended.code, ended.out) == (1, "")
    (line,) = ended.err.splitlines()
    assert f"127.0.0.1:{port} can't be listened on: Address already in use; choose another" in line


@pytest.fixture
def backend() -> Iterator[tuple[str, list[dict[str, str]]]]:
    """Takes notifications, but for the first one."""
    bodies: list[dict[str, str]] = []

    def handle(request: Request) -> Reply:
        bodies.append(json.loads(request.body))
        return Reply(response(200 if len(bodies) > 1 else 503, b"", "text/plain"))

    server = HttpServer(handle).start()
    yield f"{server.url}/notifications", bodies
    server.stop()


def test_a_purchase_is_bought_refunded_and_told(
    cli: Cli, processes: Processes, tmp_path: Path, backend: tuple[str, list[dict[str, str]]]
) -> None:
    url, bodies = backend
    files = tmp_path / "apple"
    process = processes.start(
        "app-store", "--port", "0", "--files", str(files), "--notify", url, "--notify-hour", "0.01"
    )
    variables = exports(process.stdout)
    store = variables["RECEIPT_ACTORS_APP_STORE_URL"]
    root = (files / "roots" / ROOT_FILE).read_bytes()
    verifier = SignedDataVerifier([root], False, Environment.PRODUCTION, BUNDLE_ID, 1000001)

    signed = cli("app-store", "buy", "--store", store, "--form", "signed", "--type", "Non-Consumable").out.strip()
    transaction_id = verifier.verify_and_decode_signed_transaction(signed).transactionId
    assert transaction_id is not None
    refused = cli("app-store", "notify", "REFUND", transaction_id, "--store", store)
    assert refused.code == 1
    assert "HTTP 503" in refused.out
    assert process.stderr is not None
    first, second = process.stderr.readline(), process.stderr.readline()
    assert first.startswith("REFUND ") and first.endswith(": HTTP 503, again in 0.01 s\n")
    assert second == first.replace(": HTTP 503, again in 0.01 s", ": HTTP 200")
    assert bodies[0] == bodies[1]
    payload = verifier.verify_and_decode_notification(bodies[0]["signedPayload"])
    assert payload.rawNotificationType == "REFUND"
    taken = cli("app-store", "notify", "REFUND_REVERSED", transaction_id, "--store", store)
    assert (taken.code, taken.out.endswith(": HTTP 200\n")) == (0, True)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=PATIENCE_SECONDS)
    assert (files / "roots" / ROOT_FILE).exists()  # a folder of one's own stays


def test_a_store_tells_of_what_another_one_sold(cli: Cli, processes: Processes, tmp_path: Path) -> None:

    def start(*flags: str) -> str:
        process = processes.start("app-store", "--port", "0", "--key", "ours", *flags)
        return exports(process.stdout)["RECEIPT_ACTORS_APP_STORE_URL"]

    first, second = start(), start()
    bought = cli("app-store", "buy", "--store", first, "--transaction-id", "42", "--lasts", "100", "--family-shared")
    (told,) = bought.lines
    assert told["transaction_id"] == "42"
    unknown = cli("app-store", "notify", "REFUND", "42", "--store", second)
    assert (unknown.code, unknown.out) == (1, "")
    assert "never sold here" in unknown.err
    (tmp_path / "receipt.txt").write_text(told["app_receipt"])
    printed = cli("app-store", "notify", "REFUND", "42", "--store", second, "--receipt-file", "receipt.txt")
    assert printed.code == 0
    assert list(printed.lines[0]) == ["signedPayload"]
    forged = (tmp_path / "receipt.txt").write_text(told["app_receipt"][:-8] + "AAAAAAA=")
    assert forged
    assert cli("app-store", "notify", "REFUND", "42", "--store", second, "--receipt-file", "receipt.txt").code == 1


def test_no_store_is_told(cli: Cli) -> None:
    ended = cli("app-store", "buy", "--store", "http://127.0.0.1:9")
    assert (ended.code, ended.out) == (1, "")
    assert "receipt-actors app-store" in ended.err
