"""``receipt-actors results``: every answer is printed, and none is deleted before."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from typing import Any

import click
import pytest

from receipt_actors.cli import results
from receipt_actors.domain.messages import Result, Submission, Verdict, result_message
from receipt_actors.domain.ports import Environment, OutgoingMessage
from receipt_actors.domain.reasons import Reason
from tests.patience import PATIENCE_SECONDS

from .conftest import RESULTS, SOURCE, EmbeddedWorld, Ended, Processes, World

Cli = Callable[..., Ended]


def answer(number: int) -> OutgoingMessage:
    submission = Submission(f"s-{number}", f"m-{number}", number, "MII", "ab" * 32, RESULTS, None, None, 0.0)
    result = Result(f"t-{number}", Verdict.OK, Reason.CLAIMED, "coins", Environment.PRODUCTION, quantity=3)
    return result_message(submission, result)


def printed(number: int) -> dict[str, Any]:
    return {
        "user_id": number,
        "transaction_id": f"t-{number}",
        "status": "OK",
        "submission_id": f"s-{number}",
        "source_message_id": f"m-{number}",
        "reason": "claimed",
        "product_id": "coins",
        "environment": "Production",
        "quantity": 3,
        "revocation_type": None,
        "revocation_percentage": None,
        "decided_at_ms": None,
    }


def user_ids(ended: Ended) -> list[int]:
    return sorted(fields["user_id"] for fields in ended.lines)


class TestReading:
    def test_answers_are_printed_with_all_that_is_known_and_deleted(self, cli: Cli, world: World) -> None:
        world.send(RESULTS, *map(answer, range(13)))
        ended = cli("results", *world.flags, "--delete")
        assert ended.code == 0
        assert sorted(ended.lines, key=lambda fields: fields["user_id"]) == [printed(number) for number in range(13)]
        assert world.total(RESULTS) == 0

    def test_what_an_answer_does_not_say_is_null(self, cli: Cli, embedded: EmbeddedWorld) -> None:
        embedded.send(RESULTS, OutgoingMessage('{"user_id": 1, "transaction_id": "", "status": "INVALID"}'))
        (fields,) = cli("results", *embedded.flags, "--delete").lines
        assert fields == dict.fromkeys(printed(1)) | {"user_id": 1, "transaction_id": "", "status": "INVALID"}

    def test_a_look_leaves_all_on_the_queue_visible_at_the_end(self, cli: Cli, world: World) -> None:
        world.send(RESULTS, *map(answer, range(13)))
        ended = cli("results", *world.flags)
        assert (ended.code, user_ids(ended)) == (0, list(range(13)))
        assert "13 answers stay on the queue; --delete deletes what it prints" in ended.err
        assert world.visible(RESULTS) == 13
        ended = cli("results", *world.flags, "--follow")
        assert (ended.code, "--follow goes with --delete" in ended.err) == (2, True)

    def test_no_more_than_max_are_taken(self, cli: Cli, world: World) -> None:
        world.send(RESULTS, *map(answer, range(15)))
        assert len(cli("results", *world.flags, "--delete", "--max", "12").lines) == 12
        assert world.visible(RESULTS) == world.total(RESULTS) == 3

    @pytest.mark.parametrize("body", ["hello", "[" * 100_000, '{"user_id": 1}'], ids=["text", "deep", "a part"])
    def test_what_is_no_answer_stays_and_is_told(self, cli: Cli, embedded: EmbeddedWorld, body: str) -> None:
        embedded.send(RESULTS, OutgoingMessage(body), answer(1))
        ended = cli("results", *embedded.flags, "--delete")
        assert (ended.code, ended.lines) == (1, [printed(1)])
        assert "stays on the queue" in ended.err
        (left,) = embedded.take(RESULTS)
        assert left.body == body

    def test_a_corrupt_copy_is_not_believed(self, cli: Cli, embedded: EmbeddedWorld) -> None:
        embedded.send(RESULTS, answer(1))
        embedded.corrupt()
        ended = cli("results", *embedded.flags, "--delete")
        assert (ended.code, ended.out, embedded.visible(RESULTS)) == (1, "", 1)

    def test_one_of_several_post_queues_has_to_be_named(self, cli: Cli, embedded: EmbeddedWorld) -> None:
        embedded.send(RESULTS, answer(1))
        flags = [*embedded.flags, "--post-queues", f"Others,{RESULTS}"]
        ended = cli("results", *flags)
        assert ended.code == 2
        assert f"one of Others, {RESULTS}" in ended.err
        assert user_ids(cli("results", *flags, "--queue", RESULTS)) == [1]
        embedded.send(SOURCE, OutgoingMessage("receipt"))
        assert cli("results", *embedded.flags, "--delete", "--queue", SOURCE).code == 2
        assert embedded.visible(SOURCE) == 1


class TestLosingNothing:
    def test_what_was_written_before_the_reader_left_is_deleted(
        self, cli: Cli, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        world.send(RESULTS, *map(answer, range(8)))
        lines: list[str] = []

        def echo(line: str) -> None:
            if len(lines) == 3:
                raise BrokenPipeError
            lines.append(line)

        with monkeypatch.context() as sabotage:
            sabotage.setattr(click, "echo", echo)
            with pytest.raises(BrokenPipeError):
                results.command.main([*world.flags, "--delete"], standalone_mode=False)
        seen = {json.loads(line)["user_id"] for line in lines}
        assert {json.loads(message.body)["user_id"] for message in world.take(RESULTS)} == set(range(8)) - seen

    def test_following_goes_on_until_interrupted(self, world: World, processes: Processes) -> None:
        process = processes.start("results", *world.flags, "--delete", "--follow", environment=world.environment)
        assert process.stdout is not None
        for number in (1, 2):
            world.send(RESULTS, answer(number))
            assert json.loads(process.stdout.readline()) == printed(number)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=PATIENCE_SECONDS)
        assert (process.returncode, err.strip()) == (130, "")
