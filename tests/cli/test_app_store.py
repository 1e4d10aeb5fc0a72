"""``receipt-actors app-store``: a simulated App Store for other commands, until it is told to stop."""

from __future__ import annotations

import json
import re
import signal
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from .conftest import BUNDLE_ID, DEAD_LETTERS, PATIENCE_SECONDS, EmbeddedWorld, Ended, Processes

Cli = Callable[..., Ended]
URL = re.compile(r"http://127\.0\.0\.1:\d+/(production|sandbox)/verifyReceipt")


def exports(lines: list[str]) -> dict[str, str]:
    """Read the variables as a shell would."""
    return dict(line.removeprefix("export ").rstrip("\n").split("=", 1) for line in lines)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_answers_until_it_is_told_to_stop(
    cli: Cli, processes: Processes, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    """The variables that it prints make another command ask it; either signal ends it with code 0."""
    process = processes.start("app-store", "--port", "0", "--shared-secret", "hush")
    assert process.stdout is not None
    variables = exports([process.stdout.readline(), process.stdout.readline()])
    assert list(variables) == ["RECEIPT_ACTORS_APP_STORE_PRODUCTION_URL", "RECEIPT_ACTORS_APP_STORE_SANDBOX_URL"]
    for name, url in variables.items():
        assert URL.fullmatch(url)
        monkeypatch.setenv(name, url)
    ended = cli("verify", "--bundle-ids", BUNDLE_ID, "--shared-secret", "hush", "--json", "TUlJ")
    assert [told["status"] for told in ended.lines] == [21002]
    ended = cli("verify", "--bundle-ids", BUNDLE_ID, "--json", "TUlJ")
    assert [told["status"] for told in ended.lines] == [21004]

    process.send_signal(number)
    out, err = process.communicate(timeout=PATIENCE_SECONDS)
    assert (process.returncode, out, err) == (0, "", "")


def test_minted_messages_come_out_as_they_should(
    cli: Cli, embedded: EmbeddedWorld, processes: Processes, tmp_path: Path
) -> None:
    """On standard output there is nothing else, so that they can be submitted; good and bad ones are among them."""
    process = processes.start("app-store", "--port", "0", "--mint", "100", "--seed", "7")
    assert process.stdout is not None
    assert process.stderr is not None
    variables = exports([process.stderr.readline(), process.stderr.readline()])
    lines = [process.stdout.readline() for _ in range(100)]
    (tmp_path / "messages.jsonl").write_text("".join(lines))
    submitted = cli("submit", *embedded.flags, "--file", "messages.jsonl", "--keep-going")
    accepted, refused = len(submitted.out.splitlines()), len(submitted.err.splitlines())
    assert accepted + refused == 100
    assert 0 < refused < 20

    flags = ["--bundle-ids", BUNDLE_ID, "--exit-when-idle", "0.2", "--app-store-attempts", "1"]
    started = processes.start("start", *embedded.flags, *flags, environment=variables)
    started.communicate(timeout=PATIENCE_SECONDS)
    assert started.returncode == 0
    statuses = [fields["status"] for fields in cli("results", *embedded.flags).lines]
    assert {"OK", "INVALID"} == set(statuses)
    assert statuses.count("OK") > 50
    assert embedded.visible(DEAD_LETTERS) > 0


def test_the_same_seed_mints_the_same_messages(processes: Processes) -> None:
    """And every other run, or another bundle id, has new ones: a transaction counts once."""

    def minted(*flags: str) -> list[str]:
        process = processes.start("app-store", "--port", "0", "--mint", "3", *flags)
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(3)]
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=PATIENCE_SECONDS)
        return lines

    assert minted("--seed", "7") == minted("--seed", "7")
    assert minted() != minted()
    assert json.loads(minted("--post-queue", "Others")[0])["post_queue"] == "Others"


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.1", "::", "::1", "example.com", ""])
def test_it_is_for_this_machine_only(cli: Cli, host: str) -> None:
    """It speaks plain HTTP, and would show receipts to the network."""
    ended = cli("app-store", "--host", host)
    assert (ended.code, ended.out) == (2, "")
    assert "127.0.0.1" in ended.err


def test_a_port_that_is_taken_is_told(cli: Cli) -> None:
    """With the address, for it may be the default."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        ended = cli("app-store", "--port", str(port))
    assert (ended.code, ended.out) == (1, "")
    (line,) = ended.err.splitlines()
    assert str(port) in line
