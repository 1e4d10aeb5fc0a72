"""``receipt-actors redrive``: dead letters go back as the submissions that they were, and none is ever lost."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import pytest

from receipt_actors.cli import redrive
from receipt_actors.domain.messages import Unanswerable, dead_letter_message, submission_id_of
from receipt_actors.domain.ports import EntryFailure, OutgoingMessage, ReceivedMessage
from receipt_actors.domain.reasons import Reason
from receipt_actors.errors import QueueUnavailable
from receipt_actors.sqlite import EmbeddedQueues
from tests.patience import PATIENCE_SECONDS

from .conftest import DEAD_LETTERS, RESULTS, SOURCE, EmbeddedWorld, Ended, Processes, World

Cli = Callable[..., Ended]
Outcomes = Sequence[EntryFailure | None]
Send = Callable[[Sequence[OutgoingMessage]], Outcomes]
SUBMITTED_AT_MS = 1_700_000_000_123


def moved(
    number: int, reason: Reason = Reason.RECEIPT_MALFORMED, submission_id: str | None = None, **attributes: str
) -> OutgoingMessage:
    """What our mover leaves on the dead-letter queue, of a message sent in November 2023."""
    body = json.dumps({"receipt": "MII", "user_id": number, "post_queue": RESULTS})
    named = {"submission_id": submission_id} if submission_id else {}
    delivery = ReceivedMessage(f"m-{number}", "h", body, "", attributes | named, sent_at_seconds=SUBMITTED_AT_MS / 1000)
    return dead_letter_message(delivery, Unanswerable(reason, "some detail"), DEAD_LETTERS)


def submission_ids(world: World, queue: str) -> list[str]:
    return sorted(submission_id_of(message) for message in world.take(queue))


class TestMoving:
    def test_without_a_filter_it_counts_by_reason_and_moves_nothing(self, cli: Cli, world: World) -> None:
        world.send(DEAD_LETTERS, moved(1, Reason.NOT_JSON), moved(2), moved(3), OutgoingMessage("given up"))
        ended = cli("redrive", *world.flags)
        assert ended.code == 2
        assert ended.out.splitlines()[0] == "receipt_malformed 2"
        assert set(ended.out.splitlines()[1:]) == {"not_json 1", "none 1"}
        assert "nothing was moved: give --all, or a filter" in ended.err
        assert cli("redrive", *world.flags, "--dry-run") == Ended(0, ended.out, "")
        assert (world.visible(DEAD_LETTERS), world.total(SOURCE)) == (4, 0)
        assert cli("redrive", *world.flags, "--all", "--reason", "not_json").code == 2

    def test_everything_goes_back_with_all(self, cli: Cli, world: World) -> None:
        world.send(DEAD_LETTERS, *(moved(number) for number in range(23)))
        ended = cli("redrive", *world.flags, "--all")
        assert ended == Ended(0, f"{DEAD_LETTERS}: 23 moved, 0 not selected\n", "")
        assert submission_ids(world, SOURCE) == sorted(f"m-{number}" for number in range(23))
        assert world.total(DEAD_LETTERS) == 0

    def test_it_stays_the_same_submission_sent_at_the_same_time(self, cli: Cli, world: World) -> None:
        letters = moved(1, submission_id="s-1", trace="abc"), moved(2)
        world.send(DEAD_LETTERS, *letters)
        cli("redrive", *world.flags, "--all")
        first, second = sorted(world.take(SOURCE), key=lambda message: message.body)
        when = str(SUBMITTED_AT_MS)
        assert (first.body, second.body) == tuple(letter.body for letter in letters)
        assert first.attributes == {"submission_id": "s-1", "submitted_at": when, "trace": "abc"}
        assert second.attributes == {"submission_id": "m-2", "submitted_at": when}

    def test_what_the_queue_itself_gave_up_keeps_its_message_id_as_submission_id(self, cli: Cli, world: World) -> None:
        world.send(DEAD_LETTERS, OutgoingMessage("what was sent", {"trace": "abc"}))
        (before,) = world.queues.receive(DEAD_LETTERS, max_messages=1, wait_seconds=0, visibility_timeout_seconds=60)
        world.queues.change_visibility(DEAD_LETTERS, [(before.receipt_handle, 0)])
        assert cli("redrive", *world.flags, "--all").code == 0
        (after,) = world.take(SOURCE)
        assert after.message_id != before.message_id
        assert after.attributes == {
            "submission_id": before.message_id,
            "submitted_at": str(round(before.sent_at_seconds * 1000)),
            "trace": "abc",
        }

    def test_another_dead_letter_queue_may_be_named_or_has_to_be(self, cli: Cli, embedded: EmbeddedWorld) -> None:
        embedded.queues.create_queue("Elsewhere")  # type: ignore[attr-defined]
        embedded.send("Elsewhere", moved(1))
        assert cli("redrive", *embedded.flags, "--all", "--dead-letter-queue", "Elsewhere").code == 0
        assert submission_ids(embedded, SOURCE) == ["m-1"]
        ended = cli("redrive", *embedded.flags, "--source-queue", "Elsewhere")
        assert (ended.code, ended.out) == (2, "")
        assert "give --dead-letter-queue" in ended.err
        ended = cli("redrive", *embedded.flags, "--source-queue", "Receipts.fifo", "--dead-letter-queue", "Letters")
        assert (ended.code, "expected a FIFO queue" in ended.err) == (2, True)


class TestSelecting:
    @pytest.fixture
    def letters(self, world: World) -> None:
        world.send(
            DEAD_LETTERS,
            moved(1, Reason.NOT_JSON, "s-1"),
            moved(2, Reason.RECEIPT_MALFORMED, "s-2"),
            moved(3, Reason.UNKNOWN_STATUS, "s-3"),
            OutgoingMessage("given up by the queue", {"submission_id": "s-4"}),
        )

    @pytest.mark.parametrize(
        ("flags", "wanted"),
        [
            (["--reason", "not_json"], ["s-1"]),
            (["--reason", "receipt_malformed", "--reason", "unknown_status"], ["s-2", "s-3"]),
            (["--reason", "none"], ["s-4"]),
            (["--submission-id", "s-3", "--submission-id", "s-4", "--submission-id", "unknown"], ["s-3", "s-4"]),
            (["--message-id", "m-2"], ["s-2"]),
            (["--reason", "not_json", "--submission-id", "s-2"], []),
        ],
    )
    @pytest.mark.usefixtures("letters")
    def test_only_what_is_wanted_is_moved(self, cli: Cli, world: World, flags: list[str], wanted: list[str]) -> None:
        ended = cli("redrive", *world.flags, *flags)
        assert (ended.code, ended.err) == (0, "")
        assert ended.out == f"{DEAD_LETTERS}: {len(wanted)} moved, {4 - len(wanted)} not selected\n"
        assert submission_ids(world, SOURCE) == wanted
        assert submission_ids(world, DEAD_LETTERS) == sorted({"s-1", "s-2", "s-3", "s-4"} - set(wanted))

    def test_the_message_id_on_the_dead_letter_queue_is_one_as_well(self, cli: Cli, embedded: EmbeddedWorld) -> None:
        embedded.send(DEAD_LETTERS, moved(1), moved(2))
        (letter,) = embedded.queues.receive(DEAD_LETTERS, max_messages=1, wait_seconds=0, visibility_timeout_seconds=60)
        embedded.queues.change_visibility(DEAD_LETTERS, [(letter.receipt_handle, 0)])
        assert cli("redrive", *embedded.flags, "--message-id", letter.message_id).code == 0
        assert submission_ids(embedded, SOURCE) == [submission_id_of(letter)]


@contextmanager
def sends(
    monkeypatch: pytest.MonkeyPatch,
    embedded: EmbeddedWorld,
    send: Callable[[Send, Sequence[OutgoingMessage]], Outcomes],
) -> Iterator[None]:
    """Let the command's own queues send in another way; ours send as ever."""

    class Sabotaged(EmbeddedQueues):
        def send(self, queue: str, messages: Sequence[OutgoingMessage]) -> Outcomes:
            return send(lambda part: super(Sabotaged, self).send(queue, part), messages)

    with monkeypatch.context() as sabotage:
        sabotage.setattr(redrive, "open_queues", lambda *_, **__: Sabotaged(embedded.database))
        yield


class TestTrouble:
    def test_what_comes_back_meanwhile_is_moved_once_only(
        self, cli: Cli, embedded: EmbeddedWorld, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def send_and_bring_back(send: Send, messages: Sequence[OutgoingMessage]) -> Outcomes:
            copies = [ReceivedMessage("new", "h", each.body, "", each.attributes) for each in messages]
            why = Unanswerable(Reason.NOT_JSON, "")
            embedded.send(DEAD_LETTERS, *(dead_letter_message(each, why, DEAD_LETTERS) for each in copies))
            return send(messages)

        embedded.send(DEAD_LETTERS, moved(1), moved(2))
        with sends(monkeypatch, embedded, send_and_bring_back):
            ended = cli("redrive", *embedded.flags, "--all")
        told = f"{DEAD_LETTERS}: 2 moved, 0 not selected, 2 of submissions that were moved just now and came back\n"
        assert ended == Ended(0, told, "")
        assert (embedded.total(SOURCE), embedded.visible(DEAD_LETTERS)) == (2, 2)

    def test_a_message_that_leaves_no_room_for_its_submission_id_stays(self, cli: Cli, embedded: EmbeddedWorld) -> None:
        embedded.send(DEAD_LETTERS, OutgoingMessage("x" * (1024 * 1024 - 20)))
        embedded.send(DEAD_LETTERS, moved(1))
        ended = cli("redrive", *embedded.flags, "--all")
        assert ended.code == 1
        assert "no room for its submission id" in ended.err
        assert ended.out == f"{DEAD_LETTERS}: 1 moved, 0 not selected, 1 failed\n"
        assert (embedded.visible(SOURCE), embedded.visible(DEAD_LETTERS)) == (1, 1)

    def test_a_corrupt_copy_stays(self, cli: Cli, embedded: EmbeddedWorld) -> None:
        embedded.send(DEAD_LETTERS, moved(1))
        embedded.corrupt()
        ended = cli("redrive", *embedded.flags, "--all")
        assert (ended.code, ended.out) == (1, f"{DEAD_LETTERS}: 0 moved, 0 not selected, 1 failed\n")
        assert (embedded.total(SOURCE), embedded.visible(DEAD_LETTERS)) == (0, 1)

    def test_what_the_source_queue_does_not_take_stays(
        self, cli: Cli, embedded: EmbeddedWorld, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def send_the_first(send: Send, messages: Sequence[OutgoingMessage]) -> Outcomes:
            failure = EntryFailure("InvalidMessageContents", "no reason", True)
            return [*send(messages[:1]), *[failure] * (len(messages) - 1)]

        embedded.send(DEAD_LETTERS, moved(1), moved(2))
        with sends(monkeypatch, embedded, send_the_first):
            ended = cli("redrive", *embedded.flags, "--all")
        assert ended.code == 1
        assert "InvalidMessageContents: no reason" in ended.err
        assert (embedded.visible(SOURCE), embedded.visible(DEAD_LETTERS)) == (1, 1)

    def test_a_queue_that_fails_in_the_middle_is_told_with_what_was_done(
        self, cli: Cli, embedded: EmbeddedWorld, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        sent: list[Outcomes] = []

        def send_once(send: Send, messages: Sequence[OutgoingMessage]) -> Outcomes:
            if sent:
                raise QueueUnavailable("the disk is full")
            sent.append(send(messages))
            return sent[0]

        embedded.send(DEAD_LETTERS, *(moved(number) for number in range(15)))
        with sends(monkeypatch, embedded, send_once):
            ended = cli("redrive", *embedded.flags, "--all")
        assert ended.code == 1
        assert ended.err.splitlines() == [
            "receipt-actors: 10 messages were moved before this:",
            "receipt-actors: the disk is full",
        ]
        assert (embedded.visible(SOURCE), embedded.visible(DEAD_LETTERS)) == (10, 5)


#: The program, stopped for good at its n-th call of an operation, before or after carrying it out.
STOPPING_PROGRAM = """
import sys, threading
from receipt_actors.cli import main, patient_queues
if "--database" in sys.argv:
    from receipt_actors.sqlite import EmbeddedQueues as Queues
else:
    from receipt_actors.aws import AwsQueues as Queues

operation, number, when, *arguments = sys.argv[1:]
carry_out, calls = getattr(Queues, operation), []

def stop(self, *args, **kwargs):
    calls.append(args)
    is_last = len(calls) == int(number)
    answer = None if is_last and when == "before" else carry_out(self, *args, **kwargs)
    if is_last:
        print("here", flush=True)
        threading.Event().wait()
    return answer

setattr(Queues, operation, stop)
patient_queues.HIDDEN_SECONDS = 2  # so that nobody has to wait for two minutes
sys.exit(main(arguments))
"""


class TestKill:
    @pytest.mark.parametrize(
        ("stop_at", "copies", "left"),
        [(("receive", "2", "after"), 10, 15), (("send", "2", "after"), 20, 15), (("delete", "2", "after"), 20, 5)],
    )
    def test_nothing_is_lost(
        self, cli: Cli, world: World, processes: Processes, stop_at: tuple[str, str, str], copies: int, left: int
    ) -> None:
        everything = {f"m-{number}" for number in range(25)}
        world.send(DEAD_LETTERS, *(moved(number) for number in range(25)))
        process = processes.start(
            *(*stop_at, "redrive", *world.flags, "--all"),
            program=("-c", STOPPING_PROGRAM),
            environment=world.environment,
        )
        assert process.stdout is not None
        assert process.stdout.readline() == "here\n"
        process.kill()
        process.communicate(timeout=PATIENCE_SECONDS)
        assert process.returncode == -signal.SIGKILL

        assert (world.total(SOURCE), world.total(DEAD_LETTERS)) == (copies, left)
        hidden = world.take_in_time(DEAD_LETTERS)
        assert len(hidden) == left
        world.queues.change_visibility(DEAD_LETTERS, [(message.receipt_handle, 0) for message in hidden[:10]])
        world.queues.change_visibility(DEAD_LETTERS, [(message.receipt_handle, 0) for message in hidden[10:]])
        assert cli("redrive", *world.flags, "--all").code == 0
        assert world.total(DEAD_LETTERS) == 0
        arrived = world.take(SOURCE)
        assert {submission_id_of(message) for message in arrived} == everything
        assert len(arrived) == copies + left

    def test_an_interrupt_leaves_nothing_hidden(self, embedded: EmbeddedWorld, processes: Processes) -> None:
        embedded.send(DEAD_LETTERS, *(moved(number) for number in range(15)))
        process = processes.start(
            *("send", "2", "before", "redrive", *embedded.flags, "--all"), program=("-c", STOPPING_PROGRAM)
        )
        assert process.stdout is not None
        assert process.stdout.readline() == "here\n"
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=PATIENCE_SECONDS)
        assert process.returncode == 130
        assert (embedded.visible(SOURCE), embedded.visible(DEAD_LETTERS)) == (10, 5)


class TestFifo:
    """From a FIFO dead-letter queue to a FIFO source queue."""

    SOURCE, DEAD_LETTERS = "Receipts.fifo", "ReceiptsDLQ.fifo"

    def letters(self, user_id: int, count: int, reason: Reason = Reason.RECEIPT_MALFORMED) -> list[OutgoingMessage]:
        deliveries = [
            ReceivedMessage(f"m-{name}", "h", "{}", "", {"submission_id": f"s-{name}"}, group_id=str(user_id))
            for name in (f"{user_id}-{number}" for number in range(count))
        ]
        return [dead_letter_message(each, Unanswerable(reason, "detail"), self.DEAD_LETTERS) for each in deliveries]

    def flags(self, embedded: EmbeddedWorld) -> tuple[str, ...]:
        embedded._queues.create_queue(self.SOURCE, self.DEAD_LETTERS)
        return (*embedded.flags, "--source-queue", self.SOURCE)

    def test_letters_keep_their_groups_and_their_order(self, cli: Cli, embedded: EmbeddedWorld) -> None:
        flags = self.flags(embedded)
        embedded.send(self.DEAD_LETTERS, *self.letters(7, 10))
        embedded.send(self.DEAD_LETTERS, *self.letters(8, 10))
        moved = f"{self.DEAD_LETTERS}: 20 moved, 0 not selected\n"
        assert cli("redrive", *flags, "--all") == Ended(0, moved, "")
        again = embedded.queues.receive(self.SOURCE, max_messages=10, wait_seconds=0, visibility_timeout_seconds=60)
        assert [(message.group_id, submission_id_of(message)) for message in again] == [
            ("7", f"s-7-{number}") for number in range(10)
        ]
        why = Unanswerable(Reason.RECEIPT_MALFORMED, "detail")
        embedded.send(self.DEAD_LETTERS, *(dead_letter_message(each, why, self.DEAD_LETTERS) for each in again))
        embedded.queues.delete(self.SOURCE, [message.receipt_handle for message in again])
        assert cli("redrive", *flags, "--all").out == f"{self.DEAD_LETTERS}: 10 moved, 0 not selected\n"
        assert embedded.total(self.SOURCE) == 20

    def test_what_stands_behind_a_letter_that_is_left_is_told(self, cli: Cli, embedded: EmbeddedWorld) -> None:
        flags = self.flags(embedded)
        embedded.send(self.DEAD_LETTERS, *self.letters(7, 10, Reason.NOT_JSON))
        embedded.send(self.DEAD_LETTERS, *self.letters(7, 3, Reason.BAD_RECEIPT))
        embedded.send(self.DEAD_LETTERS, *self.letters(8, 2, Reason.BAD_RECEIPT))
        ended = cli("redrive", *flags, "--reason", "bad_receipt")
        assert ended.out == f"{self.DEAD_LETTERS}: 2 moved, 10 not selected\n"
        assert "3 messages were not looked at: they stand behind others of their groups" in ended.err
        assert embedded.visible(self.DEAD_LETTERS) == 13
