"""FIFO queues, with real processes: what each user sent is answered in that order, once, whatever becomes of a process.

The producer is ``submit``. The simulated App Store takes its time, more for some than for others.
"""

from __future__ import annotations

import json
import signal
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from receipt_actors.sandbox.app_store import SimulatedAppStore

from .processes import Program
from .worlds import AwsWorld, Letter, World, genuine_messages

SOURCE, POST, DEAD_LETTERS = "Receipts.fifo", "Results.fifo", "ReceiptsDLQ.fifo"
USERS, EACH = 6, 8
KILLS = 3


@dataclass
class Game:
    world: World
    folder: Path
    sent: Mapping[int, Sequence[str]]  #: by user, submission ids in order

    @property
    def queues(self) -> dict[str, object]:
        # moto does not keep two receives at once from taking of one group.
        consumers = {"consumers": 1} if isinstance(self.world, AwsWorld) else {}
        return {"source_queue": SOURCE, "post_queues": POST, **consumers}

    def start(self, store: SimulatedAppStore, **settings: object) -> Program:
        return self.world.start(store, **self.queues, **settings)

    def finish(self, store: SimulatedAppStore) -> None:
        self.world.finish(store, **self.queues)

    def submit(self, lines: Sequence[str]) -> None:
        path = self.folder / "messages.jsonl"
        path.write_text("\n".join(lines), encoding="utf-8")
        queues = ("--source-queue", SOURCE, "--post-queues", POST)
        program = self.world.command("submit", *queues, "--file", str(path))
        assert program.wait_for_end() == 0
        assert program.stdout.count(" accepted\n") == len(lines)

    def answers(self) -> dict[int, list[Letter]]:
        answers: dict[int, list[Letter]] = defaultdict(list)
        for letter in self.world.read(POST):
            answers[letter.fields["user_id"]].append(letter)
        return answers

    def check(self) -> None:
        answers = self.answers()
        for user_id, sent in self.sent.items():
            assert [letter.attributes["submission_id"] for letter in answers[user_id]] == sent
            assert {letter.fields["status"] for letter in answers[user_id]} == {"OK"}
        assert self.world.total(SOURCE) == self.world.total(DEAD_LETTERS) == 0
        assert len(self.world.claimed_transaction_ids()) == USERS * EACH


@pytest.fixture
def game(world: World, tmp_path: Path) -> Game:
    """Six users, eight submissions each, one of each in turn; all are on the source queue."""
    world.create_queue(SOURCE, DEAD_LETTERS)
    world.create_queue(POST)
    lines = []
    sent: dict[int, list[str]] = defaultdict(list)
    for number, message in enumerate(genuine_messages(USERS * EACH, 9, POST)):
        user_id, submission_id = 1 + number % USERS, f"submission {number}"
        lines.append(json.dumps({**json.loads(message.body), "user_id": user_id, "submission_id": submission_id}))
        sent[user_id].append(submission_id)
    game = Game(world, tmp_path, sent)
    game.submit(lines)
    return game


@pytest.mark.short("embedded")
def test_each_user_is_answered_in_order(game: Game) -> None:
    assert game.world.total(SOURCE) == USERS * EACH
    lines = (game.folder / "messages.jsonl").read_text(encoding="utf-8").splitlines()
    game.submit(lines[:10])
    assert game.world.total(SOURCE) == USERS * EACH
    with SimulatedAppStore(latency_seconds=0.01, jitter_seconds=0.03) as store:
        game.finish(store)
    game.check()


def test_kills_in_the_middle_of_the_work_change_no_order(game: Game) -> None:
    with SimulatedAppStore(latency_seconds=0.1, jitter_seconds=0.1) as store:  # so that it is not over too soon
        for kill in range(1, KILLS + 1):
            program = game.start(store)
            enough = kill * USERS * EACH // (KILLS + 3)
            program.wait_until(lambda enough=enough: game.world.total(POST) >= enough, f"{enough} answers are there")
            program.kill()
            assert game.world.total(SOURCE) > 0, "everything was done before the kill: this tells nothing"
            game.world.bring_back(SOURCE)
        game.finish(store)
    game.check()


def test_a_drain_hands_back_what_waits_for_its_turn(game: Game) -> None:
    with SimulatedAppStore(latency_seconds=0.5) as store:
        program = game.start(store, drain_seconds=6)
        program.wait_until(lambda: game.world.total(POST) >= 3, "it is in the middle of it")
        program.send_signal(signal.SIGTERM)
        program.wait_for_end()
    assert 0 < game.world.visible(SOURCE) == game.world.total(SOURCE) < USERS * EACH
    with SimulatedAppStore() as store:
        game.finish(store)
    game.check()
