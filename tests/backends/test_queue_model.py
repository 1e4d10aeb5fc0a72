"""SQLite's queues and the queues in memory, side by side: the same operations have the same outcomes."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from contextlib import closing
from pathlib import Path

import pytest

from receipt_actors.domain.ports import EntryFailure, OutgoingMessage
from receipt_actors.sandbox.queues import Message, Queue, make_queue
from receipt_actors.sqlite.queues import EmbeddedQueues
from tests.backends.conftest import ManualClock

MAX_RECEIVE_COUNT = 3
STEPS = 150
AT_ONCE = 10  #: messages in a queue at most, so that one receive gives all of them


class SideBySide:
    def __init__(self, real: EmbeddedQueues, clock: ManualClock, rng: random.Random, suffix: str) -> None:
        self.real, self.clock, self.random = real, clock, rng
        self.names = [f"source{suffix}", f"dead{suffix}"]
        self.models: dict[str, Queue[str]] = {name: make_queue(name) for name in self.names}
        self.models[self.names[0]].redrive_to(self.models[self.names[1]], MAX_RECEIVE_COUNT)
        real.create_queue(*self.names, max_receive_count=MAX_RECEIVE_COUNT)
        self.handles: list[tuple[str, str, str]] = []  # queue, handle, the model's handle
        self.ids: dict[str, str] = {}  # of messages, by their bodies
        self.is_fifo = bool(suffix)
        self.number = 0

    def send(self) -> None:
        if sum(len(model.messages()) for model in self.models.values()) >= AT_ONCE:
            return
        self.number += 1
        body, name = str(self.number), self.names[0]
        group = self.random.choice("ab") if self.is_fifo else None
        repeats = str(self.random.randrange(max(1, self.number - 5), self.number + 1)) if self.is_fifo else None
        assert self.real.send(name, [OutgoingMessage(body, {}, group, repeats)]) == [None]
        self.models[name].send(Message(body, body, self.clock(), group), self.clock(), repeats)

    def receive(self) -> None:
        name, seconds = self.random.choice(self.names), self.random.choice([0, 5, 30])
        found = self.real.receive(name, max_messages=AT_ONCE, wait_seconds=0, visibility_timeout_seconds=seconds)
        expected = self.models[name].take(AT_ONCE, seconds, self.clock())
        assert in_order((each.group_id, each.body) for each in found) == in_order(
            (each.group_id, each.content) for each in expected
        )
        told = {each.content: (each.message_id, each.receive_count, each.sent_at) for each in expected}
        for each in found:
            self.ids.setdefault(each.body, each.message_id)
            assert each.message_id == self.ids[each.body]
            assert (each.body, each.approximate_receive_count, each.sent_at_seconds) == told[each.body]
        handles = {each.content: each.receipt_handle for each in expected}
        self.handles += [(name, each.receipt_handle, handles[each.body]) for each in found]

    def any_handle(self) -> tuple[str, str, str]:
        name, handle, model_handle = self.random.choice(self.handles)
        return self.random.choice([name, name, name, *self.names]), handle, model_handle

    def delete(self) -> None:
        if self.handles:
            name, handle, model_handle = self.any_handle()
            (found,) = self.real.delete(name, [handle])
            expected = self.models[name].delete(model_handle, self.clock())
            assert (found is None) is (not isinstance(expected, EntryFailure))

    def change_visibility(self) -> None:
        if self.handles:
            name, handle, model_handle = self.any_handle()
            seconds = self.random.choice([0, 0, 10, 12 * 60 * 60, -1])
            (found,) = self.real.change_visibility(name, [(handle, seconds)])
            expected = self.models[name].change_visibility(model_handle, seconds, self.clock())
            assert (found and found.code) == (expected.code if isinstance(expected, EntryFailure) else None)

    def let_time_pass(self) -> None:
        self.clock.advance(self.random.choice([1, 5, 30, 400]))

    def compare(self) -> None:
        for name, model in self.models.items():
            assert self.real.approximate_number_of_messages(name) == model.count(self.clock())[0]


def in_order(messages: Iterable[tuple[str | None, str]]) -> dict[str | None, Sequence[str]]:
    """Group by group; a standard queue promises no order."""
    groups: dict[str | None, list[str]] = {}
    for group, body in messages:
        groups.setdefault(group, []).append(body)
    return {group: sorted(bodies) if group is None else bodies for group, bodies in groups.items()}


@pytest.mark.parametrize("suffix", ["", ".fifo"])
@pytest.mark.parametrize("seed", range(8))
def test_both_do_the_same(database: Path, clock: ManualClock, seed: int, suffix: str) -> None:
    rng = random.Random(seed)
    with closing(EmbeddedQueues(database, clock)) as real:
        both = SideBySide(real, clock, rng, suffix)
        steps = [both.send, both.send, both.receive, both.receive, both.delete, both.change_visibility]
        for _ in range(STEPS):
            rng.choice([*steps, both.let_time_pass])()
            both.compare()
