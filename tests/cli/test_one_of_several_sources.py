"""Commands about one of several source queues: ``--source-queue`` says which, and that one's settings count."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from receipt_actors.domain.messages import Unanswerable, dead_letter_message, submission_id_of
from receipt_actors.domain.ports import OutgoingMessage, ReceivedMessage
from receipt_actors.domain.reasons import Reason
from receipt_actors.sandbox.app_store import SimulatedAppStore
from receipt_actors.sandbox.receipts import Purchase, SampleReceipt, mint

from .conftest import BUNDLE_ID, DEAD_LETTERS, SOURCE, EmbeddedWorld, Ended

Cli = Callable[..., Ended]
SECOND, OUT2, TWO = "Game2SQS", "Results2SQS", "com.example.two"
SECRET = "hush-hush"


@pytest.fixture
def games(embedded: EmbeddedWorld, tmp_path: Path) -> Path:
    """A file of settings; the queues of the second source are there, too."""
    for queue, dead_letter_queue in ((OUT2, None), (SECOND, f"{SECOND}DLQ")):
        embedded._queues.create_queue(queue, dead_letter_queue)
    file = tmp_path / "games.toml"
    file.write_text(
        f'database = "{embedded.database}"\nbundle_ids = "{BUNDLE_ID}"\n'
        f'[sources.{SECOND}]\nbundle_ids = "{TWO}"\npost_queues = "{OUT2}"\nshared_secret = "{SECRET}"\n'
    )
    return file


def dead_letter(number: int, post_queue: str, queue: str) -> OutgoingMessage:
    body = json.dumps({"receipt": "MII", "user_id": number, "post_queue": post_queue})
    delivery = ReceivedMessage(f"m-{number}", "h", body, "", {}, sent_at_seconds=1_700_000_000.0)
    return dead_letter_message(delivery, Unanswerable(Reason.RECEIPT_MALFORMED, "some detail"), queue)


def test_a_receipt_is_submitted_to_the_source_that_is_named(cli: Cli, embedded: EmbeddedWorld, games: Path) -> None:
    Path("receipt.txt").write_text("MIIreceipt==")
    receipt = ("--config", games, "--receipt-file", "receipt.txt", "--user-id", "7")
    assert cli("submit", *receipt, "--source-queue", SECOND).code == 0
    (message,) = embedded.take(SECOND)
    assert json.loads(message.body)["post_queue"] == OUT2
    ended = cli("submit", *receipt, "--source-queue", SECOND, "--post-queue", "ResultsSQS")
    assert ended.code == 2 and "post_queue_not_allowed" in ended.err
    assert cli("submit", *receipt).code == 0
    assert len(embedded.take(SOURCE)) == 1
    ended = cli("submit", *receipt, "--source-queue", "Game3SQS")
    assert ended.code == 2
    assert f"--source-queue: found 'Game3SQS', expected one of {SOURCE}, {SECOND}" in ended.err


def test_dead_letters_go_back_to_the_source_that_is_named(cli: Cli, embedded: EmbeddedWorld, games: Path) -> None:
    embedded.send(DEAD_LETTERS, dead_letter(1, "ResultsSQS", DEAD_LETTERS))
    embedded.send(f"{SECOND}DLQ", dead_letter(2, OUT2, f"{SECOND}DLQ"))
    ended = cli("redrive", "--all", "--config", games, "--source-queue", SECOND)
    assert ended == Ended(0, f"{SECOND}DLQ: 1 moved, 0 not selected\n", "")
    assert [submission_id_of(message) for message in embedded.take(SECOND)] == ["m-2"]
    assert (embedded.total(DEAD_LETTERS), embedded.total(SOURCE)) == (1, 0)


def test_a_receipt_is_judged_by_the_rules_of_the_source_that_is_named(cli: Cli, games: Path) -> None:
    receipt = mint(SampleReceipt(TWO, (Purchase("1000", "coins"),)))
    with SimulatedAppStore(shared_secret=SECRET) as store:
        urls = ("--app-store-url", store.url)
        ended = cli("verify", "--config", games, *urls, "--source-queue", SECOND, "--json", receipt)
        assert (ended.code, [each["verdict"] for each in ended.lines[0]["transactions"]]) == (0, ["OK"])
        assert cli("verify", "--config", games, *urls, "--json", receipt).code == 1  # whose secret is another


@pytest.mark.parametrize("style", [[], ["--json"], ["--toml"]])
def test_the_settings_in_force_are_shown_by_source_without_secrets(cli: Cli, games: Path, style: list[str]) -> None:
    out = cli("config", "--config", games, *style).out
    assert TWO in out and OUT2 in out and SECRET not in out
    if "--toml" in style:
        Path("again.toml").write_text(out)
        again = cli("config", "--config", "again.toml").out
        assert f"bundle_ids                      {TWO}  (sources.{SECOND}.bundle_ids in again.toml)" in again
