"""``receipt-actors submit``: what gets onto the source queue, and what is refused before anything does."""

from __future__ import annotations

import json
import sqlite3
import uuid
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from receipt_actors.domain.messages import Submission, parse_submission
from receipt_actors.domain.ports import ReceivedMessage
from receipt_actors.sqlite import EmbeddedQueues
from tests.patience import PATIENCE_SECONDS

from .conftest import BUNDLE_ID, DEAD_LETTERS, RESULTS, SOURCE, EmbeddedWorld, Ended, Processes, World

Cli = Callable[..., Ended]
RECEIPT = "MIIreceipt=="


def line(**fields: object) -> str:
    body: dict[str, object] = {"receipt": RECEIPT, "user_id": 42, "post_queue": RESULTS}
    return json.dumps({name: value for name, value in (body | fields).items() if value is not None})


def parsed(message: ReceivedMessage) -> Submission:
    submission = parse_submission(message, {RESULTS}, SOURCE)
    assert isinstance(submission, Submission)
    return submission


@pytest.fixture
def receipt_file(tmp_path: Path) -> Path:
    path = tmp_path / "receipt.txt"
    path.write_text(f"{RECEIPT}\n")
    return path


class TestOne:
    def test_a_receipt_becomes_a_message_of_the_contract(self, cli: Cli, world: World, receipt_file: Path) -> None:
        ended = cli("submit", *world.flags, "--receipt-file", receipt_file, "--user-id", "42")
        (message,) = world.take(SOURCE)
        assert json.loads(message.body) == {"receipt": RECEIPT, "user_id": 42, "post_queue": RESULTS}
        submission_id = message.attributes["submission_id"]
        assert uuid.UUID(submission_id).version == 4
        assert ended == Ended(0, f"{submission_id} accepted\n", "")

    def test_everything_about_it_can_be_said(self, cli: Cli, embedded: EmbeddedWorld, receipt_file: Path) -> None:
        named = ["--submission-id", "s-1", "--transaction-id", "1000", "--product-id", "coins"]
        queues = ["--post-queues", "Others,ResultsSQS", "--post-queue", RESULTS]
        flags = [*embedded.flags, "--receipt-file", "-", "--user-id", "-7", *named, *queues]
        assert cli("submit", *flags, stdin=b"MIIother").code == 0
        (message,) = embedded.take(SOURCE)
        submission = parsed(message)
        assert (submission.submission_id, submission.user_id, submission.receipt_data) == ("s-1", -7, "MIIother")
        assert (submission.transaction_id, submission.product_id) == ("1000", "coins")

    def test_a_binary_receipt_is_encoded_and_what_is_none_refused(
        self, cli: Cli, embedded: EmbeddedWorld, tmp_path: Path
    ) -> None:
        path = tmp_path / "receipt"
        path.write_bytes(b"\x30\x82\x01\x00\xff")
        assert cli("submit", *embedded.flags, "--receipt-file", path, "--user-id", "1").code == 0
        (message,) = embedded.take(SOURCE)
        assert parsed(message).receipt_data == "MIIBAP8="
        for contents in (b"\xff\xd8\xff\xe0", b"M" * (1024 * 1024 + 1)):
            path.write_bytes(contents)
            ended = cli("submit", *embedded.flags, "--receipt-file", path, "--user-id", "1")
            assert (ended.code, str(path) in ended.err) == (2, True)

    def test_queues_are_made_as_start_makes_them_and_keep_their_redrive_policy(
        self, cli: Cli, processes: Processes, tmp_path: Path, receipt_file: Path
    ) -> None:
        database = tmp_path / "receipts.db"

        def policies() -> dict[str, int | None]:
            with closing(sqlite3.connect(database, timeout=PATIENCE_SECONDS)) as connection:
                return dict(connection.execute("SELECT name, max_receive_count FROM queues"))

        start = ("start", "--database", database, "--bundle-ids", BUNDLE_ID, "--exit-when-idle", "0")
        submit = ("submit", "--database", database, "--receipt-file", receipt_file, "--user-id", "1")
        assert cli(*submit, "--max-receive-count", "7").code == 0
        assert policies() == {SOURCE: 7, DEAD_LETTERS: None, RESULTS: None}
        with closing(EmbeddedQueues(database)) as queues:
            assert queues.dead_letter_queue(SOURCE) == DEAD_LETTERS
            queues.receive(SOURCE, max_messages=10, wait_seconds=0, visibility_timeout_seconds=3600)
        started = processes.start(*start, "--max-receive-count", "3")
        _, log = started.communicate(timeout=PATIENCE_SECONDS)
        assert (started.returncode, policies()[SOURCE]) == (0, 3), log
        for flags in ((), ("--max-receive-count", "9"), ("--source-queue", RESULTS, "--post-queues", "Others")):
            assert cli(*submit, *flags).code == 0
            assert policies()[SOURCE] == 3
            assert policies()[RESULTS] is None

    @pytest.mark.parametrize(
        ("flags", "told"),
        [
            (["--user-id", str(2**63)], "bad_user_id"),
            (["--user-id", "1", "--post-queue", "Elsewhere"], "post_queue_not_allowed"),
            (["--user-id", "1", "--submission-id", "x" * 257], "bad_submission_id"),
            (["--user-id", "1", "--transaction-id", ""], "bad_transaction_id"),
            ([], "--user-id"),
            (["--user-id", "1", "--post-queues", "A,B"], "--post-queue: one of A, B"),
            (["--user-id", "1", "--file", "-"], "either --receipt-file or --file"),
        ],
    )
    def test_what_the_consumer_would_refuse_is_not_sent(
        self, cli: Cli, embedded: EmbeddedWorld, receipt_file: Path, flags: list[str], told: str
    ) -> None:
        ended = cli("submit", *embedded.flags, "--receipt-file", receipt_file, *flags)
        assert (ended.code, ended.out) == (2, "")
        assert told in ended.err
        assert embedded.total(SOURCE) == 0


class TestMany:
    def test_every_line_is_a_message(self, cli: Cli, world: World, tmp_path: Path) -> None:
        path = tmp_path / "messages.jsonl"
        lines = [line(user_id=number, submission_id=f"s-{number}") for number in range(23)]
        path.write_text("\n\n".join(lines) + "\n")
        ended = cli("submit", *world.flags, "--file", path)
        assert ended.code == 0
        assert ended.out.splitlines() == [f"s-{number} accepted" for number in range(23)]
        messages = world.take(SOURCE)
        sent = {message.attributes["submission_id"]: json.loads(message.body) for message in messages}
        assert sent == {
            f"s-{number}": {"receipt": RECEIPT, "user_id": number, "post_queue": RESULTS} for number in range(23)
        }

    @pytest.mark.parametrize("flags", [(), ("--keep-going",)])
    def test_a_file_without_a_message_is_told(self, cli: Cli, embedded: EmbeddedWorld, flags: tuple[str, ...]) -> None:
        ended = cli("submit", *embedded.flags, *flags, "--file", "-", stdin=b"\n\n")
        assert (ended.code, ended.out) == (0, "")
        assert ended.err.splitlines() == ["receipt-actors: there were no messages to send"]

    def test_a_body_without_a_submission_id_goes_as_it_is(self, cli: Cli, embedded: EmbeddedWorld) -> None:
        body = '{ "receipt": "MII",  "user_id": 1.0, "post_queue": "ResultsSQS", "note": "submission_id" }'
        assert cli("submit", *embedded.flags, "--file", "-", stdin=body.encode()).code == 0
        (message,) = embedded.take(SOURCE)
        assert message.body == body
        assert uuid.UUID(message.attributes["submission_id"])

    BAD = (
        line(),
        "no json",
        line(user_id="42"),
        line(submission_id=7),
        line(submission_id=""),
        line(receipt=None),
        "\u00ff",  # written as Latin-1 below
        '{"receipt": "MII", "receipt": "MII", "user_id": 1, "post_queue": "ResultsSQS"}',
        line(submission_id="s", digits=0)[:-2] + "9" * 5000 + "}",
        line(note="\uffff")[:-1].replace("\\uffff", "\uffff") + "}",
        line(submission_id="good"),
    )
    REASONS = (
        "line 2: not_json",
        "line 3: bad_user_id",
        "line 4: submission_id",
        "line 5: bad_submission_id",
        "line 6: bad_receipt",
        "line 7: expected UTF-8, found byte 0xff",
        "line 8: duplicate_key",
        "line 9: ",
        "line 10: InvalidMessageContents",
    )

    def test_bad_lines_are_all_listed_and_with_keep_going_the_good_ones_sent(
        self, cli: Cli, embedded: EmbeddedWorld
    ) -> None:
        contents = b"\n".join(b"\xff" if text == "\u00ff" else text.encode() for text in self.BAD)
        ended = cli("submit", *embedded.flags, "--file", "-", stdin=contents)
        assert (ended.code, ended.out) == (2, "")
        *lines, last = ended.err.splitlines()
        assert last == (
            "receipt-actors: nothing was sent: 9 of 11 messages are bad; --keep-going sends the good lines of the file"
        )
        assert len(lines) == len(self.REASONS)
        for told, reason in zip(lines, self.REASONS, strict=True):
            assert told.startswith(f"receipt-actors: {reason}")
        assert embedded.total(SOURCE) == 0
        ended = cli("submit", *embedded.flags, "--file", "-", "--keep-going", stdin=contents)
        assert ended.code == 1
        assert len(ended.err.splitlines()) == len(self.REASONS)
        accepted = [text.split()[0] for text in ended.out.splitlines()]
        assert accepted[1:] == ["good"]
        assert {message.attributes["submission_id"] for message in embedded.take(SOURCE)} == set(accepted)

    def test_large_messages_are_sent_in_batches_that_sqs_takes(self, cli: Cli, embedded: EmbeddedWorld) -> None:
        lines = "\n".join(line(receipt="M" * 300_000, user_id=number) for number in range(10))
        assert cli("submit", *embedded.flags, "--file", "-", stdin=lines.encode()).code == 0
        assert {parsed(message).user_id for message in embedded.take(SOURCE)} == set(range(10))

    def test_flags_of_a_single_message_do_not_go_with_a_file(self, cli: Cli, embedded: EmbeddedWorld) -> None:
        ended = cli("submit", *embedded.flags, "--file", "-", "--user-id", "42", stdin=line().encode())
        assert ended.code == 2
        assert "--user-id goes with --receipt-file" in ended.err
