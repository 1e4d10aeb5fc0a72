"""Two source queues in one program, as processes of their own: each game by its own rules, whatever dies."""

from __future__ import annotations

import json
import os
import signal
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from receipt_actors import ReceiptSystem, Settings
from receipt_actors.domain.messages import Verdict
from receipt_actors.sandbox.app_store import SimulatedAppStore
from receipt_actors.sandbox.load import make_scenario
from receipt_actors.sandbox.receipts import Purchase, SampleReceipt, mint
from tests.patience import PATIENCE_SECONDS

from .processes import Program
from .test_processes import workers_of
from .worlds import BUNDLE_ID, DEAD_LETTERS, RESULTS, SOURCE, AwsWorld, Outcome, World, genuine_messages

TWO = "com.example.two"
SECOND, OUT2, DEAD2 = "Game2SQS", "Results2SQS", "Game2SQSDLQ"
TABLES = {SECOND: {"bundle_ids": TWO, "post_queues": OUT2}}


class TwoGames:
    """A world with the queues of a second game, and what is sent to either."""

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
def test_each_game_has_its_own_rules(world: World, processes: int) -> None:
    """Every kind of message, on both queues at once: with the other game's rules, none of the second's were OK."""
    games = TwoGames(world, 80, 71)
    games.send()
    with SimulatedAppStore() as store:
        assert games.start(store, processes=processes, exit_when_idle_seconds=1).wait_for_end() == 0
    games.check()


def test_a_killed_worker_is_replaced_and_both_games_go_on(aws: AwsWorld) -> None:
    """Of two processes, on SQS and DynamoDB; its messages come back by their visibility timeout."""
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
        program.send_signal(signal.SIGTERM)
        assert program.wait_for_end() == 0
    games.check()


def test_a_queue_that_is_deleted_stops_nobody_else(aws: AwsWorld) -> None:
    """It is told once by each process; the other game's receipts are answered, by a worker that is replaced, too."""
    games = TwoGames(aws, 40, 77)
    with SimulatedAppStore() as store:
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
        program.send_signal(signal.SIGTERM)
        assert program.wait_for_end() == 0
    outcome = aws.outcome()
    assert outcome.faults(games.first) == ()
    assert program.stderr.count("receives fail") == 4


def test_one_submission_by_every_way_is_ok_on_one_post_queue(world: World) -> None:
    """A process for each arrival: nothing but the ledger remembers. The receipt is foreign to the second game."""
    other, shared = "OtherResultsSQS", "SharedResultsSQS"
    for queue in (other, shared, OUT2):
        world.create_queue(queue)
    world.create_queue(SECOND, DEAD2)
    (message,) = genuine_messages(1, 83)

    def arrive(source_queue: str, post_queue: str, submission_id: str) -> dict[str, list[tuple[str, ...]]]:
        """Send it, let it be answered, and read all post queues."""
        body = json.dumps({**json.loads(message.body), "post_queue": post_queue})
        world.send([replace(message, body=body, attributes={"submission_id": submission_id})], source_queue)
        program = world.start(
            store, sources=json.dumps(tables), post_queues=f"{RESULTS},{other},{shared}", exit_when_idle_seconds=1
        )
        assert program.wait_for_end() == 0
        read = {queue: world.read(queue) for queue in (RESULTS, other, shared, OUT2)}
        names = ("reason", "submission_id")
        return {
            queue: [(each.fields["status"], *(each.attributes[name] for name in names)) for each in answers]
            for queue, answers in read.items()
            if answers
        }

    tables = {SECOND: {"bundle_ids": TWO, "post_queues": [OUT2, shared]}}
    again = [("OK", "already_ours", "s-1")]
    with SimulatedAppStore() as store:
        assert arrive(SECOND, OUT2, "s-1") == {OUT2: [("INVALID", "foreign_bundle", "s-1")]}
        assert arrive(SOURCE, shared, "s-1") == {shared: [("OK", "claimed", "s-1")]}
        assert arrive(SOURCE, shared, "s-1") == {shared: again}
        assert arrive(SOURCE, other, "s-1") == {shared: again}
        assert arrive(SECOND, shared, "s-1") == {shared: again}
        assert arrive(SECOND, OUT2, "s-1") == {OUT2: [("INVALID", "already_answered", "s-1")]}
        assert arrive(SOURCE, other, "s-2") == {other: [("INVALID", "already_answered", "s-2")]}
    (claim,) = world.ledger_items()
    assert (claim.source_queue, claim.post_queue) == (SOURCE, shared)
    assert world.take(DEAD_LETTERS) == world.take(DEAD2) == []


def test_a_program_hears_what_the_way_of_its_own_submission_is_worth(tmp_path: Path) -> None:
    """What one game submits says nothing to another game that waits for the same submission by its own way."""
    with SimulatedAppStore() as store:
        settings = Settings(
            database=tmp_path / "r.db",
            bundle_ids=(BUNDLE_ID,),
            app_store_url=store.url,
            receive_wait_seconds=1,
            sources=TABLES,
        )
        receipt = mint(SampleReceipt(BUNDLE_ID, (Purchase("1", "coins"),)))
        with ReceiptSystem.start(settings, is_paused=True) as system:
            by_way = [system.submit(receipt, 1, submission_id="s", source_queue=queue) for queue in (SOURCE, SECOND)]
            system.resume()
            ((first,), (foreign,)) = (pending.result(PATIENCE_SECONDS) for pending in by_way)
    assert (first.status, foreign.status) == (Verdict.OK, Verdict.INVALID)
