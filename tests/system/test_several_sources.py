"""Two source queues in one program, as processes of their own: each game by its own rules, whatever dies."""

from __future__ import annotations

import json
import os
import signal
from collections import Counter

import pytest

from receipt_actors.sandbox.app_store import SimulatedAppStore
from receipt_actors.sandbox.load import make_scenario

from .processes import Program
from .test_processes import workers_of
from .worlds import BUNDLE_ID, DEAD_LETTERS, RESULTS, SOURCE, AwsWorld, Outcome, World

TWO = "com.example.two"
SECOND, OUT2, DEAD2 = "Game2SQS", "Results2SQS", "Game2SQSDLQ"
TABLES = {SECOND: {"bundle_ids": TWO, "post_queues": OUT2}}


class TwoGames:
    def __init__(self, world: World, messages: int, seed: int) -> None:
        self.world = world
        world.create_queue(OUT2)
        world.create_queue(SECOND, DEAD2)
        self.first = make_scenario(messages, seed, BUNDLE_ID, RESULTS)
        # Users of their own: what is wrong is told by them.
        self.second = make_scenario(messages, seed + 1, TWO, OUT2)

    def send(self) -> None:
        self.world.send(self.first.messages)
        self.world.send(self.second.messages, SECOND)

    def start(self, store: SimulatedAppStore, **settings: object) -> Program:
        return self.world.start(store, sources=json.dumps(TABLES), **settings)

    def finish(self, store: SimulatedAppStore, **settings: object) -> None:
        self.world.finish(store, sources=json.dumps(TABLES), **settings)

    def waiting(self) -> int:
        return self.world.total(SOURCE) + self.world.total(SECOND)

    def has_done(self, messages: int) -> bool:
        return sum(map(self.world.total, (RESULTS, OUT2))) >= messages

    def outcomes(self) -> tuple[Outcome, Outcome]:
        take = self.world.take
        return Outcome(take(RESULTS), take(DEAD_LETTERS)), Outcome(take(OUT2), take(DEAD2))

    def check(self) -> None:
        """Each message was dealt with as its own game's scenario wants it; nothing is lost, nothing counts twice."""
        first, second = self.outcomes()
        assert first.faults(self.first) == ()
        assert second.faults(self.second) == ()
        claimed = Counter(self.world.claimed_transaction_ids())
        assert claimed == Counter(first.transaction_ids("OK") | second.transaction_ids("OK"))
        sources = {item.transaction_id: item.source_queue for item in self.world.ledger_items()}
        assert {sources[transaction_id] for transaction_id in second.transaction_ids("OK")} == {SECOND}
        assert self.waiting() == 0


@pytest.mark.short("embedded-1")
@pytest.mark.parametrize("processes", [1, 2])
def test_each_game_has_its_own_rules(world: World, processes: int, store: SimulatedAppStore) -> None:
    games = TwoGames(world, 80, 71)
    games.send()
    games.finish(store, processes=processes)
    games.check()


def test_a_killed_worker_is_replaced_and_both_games_go_on(aws: AwsWorld) -> None:
    games = TwoGames(aws, 80, 75)
    games.send()
    with SimulatedAppStore(latency_seconds=0.02, jitter_seconds=0.1) as store:
        program = games.start(
            store, processes=2, app_store_concurrency=10, visibility_timeout_seconds=10, max_in_flight=60
        )
        program.wait_until(lambda: len(workers_of(program)) == 2, "both consume")
        program.wait_until(lambda: games.has_done(40), "some answers are there")
        os.kill(workers_of(program)["worker-1"], signal.SIGKILL)
        assert games.waiting() > 0, "everything was done before the kill: this tells nothing"
        program.wait_until(lambda: games.waiting() == 0, "all is done")
        program.stop()
    games.check()


def test_a_queue_that_is_deleted_stops_nobody_else(aws: AwsWorld, store: SimulatedAppStore) -> None:
    games = TwoGames(aws, 40, 77)
    program = games.start(store, processes=2, visibility_timeout_seconds=10)
    program.wait_for_log(f"consumers take receipts from {SOURCE}, {SECOND} (aws)")
    aws.delete_queue(SECOND)
    program.wait_until(lambda: program.stderr.count("receives fail, and are tried again") == 2, "both say so")
    killed = workers_of(program)
    for worker in killed.values():
        os.kill(worker, signal.SIGKILL)
    program.wait_until(lambda: not set(workers_of(program).values()) & set(killed.values()), "both are replaced")
    aws.send(games.first.messages)
    program.wait_until(lambda: aws.total(SOURCE) == 0, "all is done")
    program.wait_until(lambda: program.stderr.count("receives fail") == 4, "their successors say so")
    program.stop()
    outcome = aws.outcome()
    assert outcome.faults(games.first) == ()
    assert program.stderr.count("receives fail") == 4
