"""Whose turn it is in a FIFO queue's groups: one at a time, in order, and never past one that was not finished."""

from __future__ import annotations

import hypothesis.strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from receipt_actors.domain.lines import Left, Lines, Turn


def test_one_of_a_group_begins_and_the_others_wait() -> None:
    """Other groups do not wait for it; when it is finished the next one begins."""
    lines: Lines[str] = Lines()
    assert [lines.join("a", "a1", 0), lines.join("a", "a2", 0), lines.join("b", "b1", 0)] == [
        Turn.BEGIN,
        Turn.WAIT,
        Turn.BEGIN,
    ]
    assert lines.leave("a", "a1", 0, is_finished=True, now_seconds=1) == Left("a2")
    assert lines.leave("a", "a2", 0, is_finished=True, now_seconds=1) == Left(None)
    assert lines.join("a", "a3", 1) is Turn.BEGIN


def test_all_behind_one_that_is_not_finished_stand_back() -> None:
    """Also those of the same receive that come only later; not those of another receive, which came after it."""
    lines: Lines[str] = Lines()
    for member in ("a1", "a2", "a3"):
        lines.join("a", member, 0)
    assert lines.leave("a", "a1", 0, is_finished=False, now_seconds=1) == Left(None, ("a2", "a3"))
    assert lines.join("a", "a4", 0) is Turn.STAND_BACK
    for member in ("a2", "a3", "a4"):
        assert lines.leave("a", member, 0, is_finished=False, now_seconds=2) == Left(None)
    assert lines.join("a", "a1 again", 1) is Turn.BEGIN


def test_one_that_waits_may_end_before_its_turn() -> None:
    """Those before it go on, those behind it stand back."""
    lines: Lines[str] = Lines()
    for member in ("a1", "a2", "a3"):
        lines.join("a", member, 0)
    assert lines.leave("a", "a2", 0, is_finished=False, now_seconds=1) == Left(None, ("a3",))
    assert lines.leave("a", "a1", 0, is_finished=True, now_seconds=2) == Left(None)


def test_nothing_is_remembered_for_ever() -> None:
    """Users come and go; a receive that was broken up is forgotten once nothing of it can come any more."""
    lines: Lines[str] = Lines()
    lines.join("a", "a1", 0)
    lines.leave("a", "a1", 0, is_finished=False, now_seconds=10)
    lines.forget(10)
    assert lines.join("a", "late", 0) is Turn.STAND_BACK
    lines.forget(11)
    assert lines.join("a", "too late", 0) is Turn.BEGIN
    assert lines.leave("a", "too late", 0, is_finished=True, now_seconds=12) == Left(None)
    assert (lines._lines, lines._broken) == ({}, {})


class Groups(RuleBasedStateMachine):
    """A FIFO queue of a few groups, received and worked on by ``Lines``; ends come in any order, good and bad.

    The queue is SQS's: it gives several of a group at once, in order, and nothing of a group that has one in flight.
    """

    def __init__(self) -> None:
        super().__init__()
        self.lines: Lines[tuple[int, int, int]] = Lines()  # a member: group, number, receive
        self.queued: dict[int, list[int]] = {0: [], 1: []}  # by group, what is not finished
        self.sent = 0
        self.receives = 0
        self.arriving: list[tuple[int, int, int]] = []  # received, and its custodian has not started
        self.begun: set[tuple[int, int, int]] = set()
        self.waiting: set[tuple[int, int, int]] = set()
        self.to_stand_back: set[tuple[int, int, int]] = set()
        self.finished: dict[int, list[int]] = {0: [], 1: []}

    @rule(group=st.integers(0, 1))
    def send(self, group: int) -> None:
        self.sent += 1
        self.queued[group].append(self.sent)

    @rule(group=st.integers(0, 1), count=st.integers(1, 5))
    def receive(self, group: int, count: int) -> None:
        if all(member[0] != group for member in self.in_flight()):
            self.receives += 1
            self.arriving += [(group, number, self.receives) for number in self.queued[group][:count]]

    @precondition(lambda self: self.arriving)
    @rule()
    def start(self) -> None:
        member = self.arriving.pop(0)
        turn = self.lines.join(member[0], member, member[2])
        {Turn.BEGIN: self.begun, Turn.WAIT: self.waiting, Turn.STAND_BACK: self.to_stand_back}[turn].add(member)

    @precondition(lambda self: self.begun)
    @rule(data=st.data(), is_finished=st.booleans())
    def end(self, data: st.DataObject, is_finished: bool) -> None:
        member = data.draw(st.sampled_from(sorted(self.begun)))
        self.begun.discard(member)
        if is_finished:
            self.queued[member[0]].remove(member[1])
            self.finished[member[0]].append(member[1])
        self.left(member, is_finished)

    @precondition(lambda self: self.waiting | self.to_stand_back)
    @rule(data=st.data())
    def hand_back_what_waits(self, data: st.DataObject) -> None:
        """It was told to; or it crashed."""
        member = data.draw(st.sampled_from(sorted(self.waiting | self.to_stand_back)))
        self.waiting.discard(member)
        self.to_stand_back.discard(member)
        self.left(member, False)

    def left(self, member: tuple[int, int, int], is_finished: bool) -> None:
        left = self.lines.leave(member[0], member, member[2], is_finished=is_finished, now_seconds=0)
        self.to_stand_back |= set(left.stand_back)
        self.waiting -= set(left.stand_back)
        if left.begin is not None:
            self.waiting.remove(left.begin)
            self.begun.add(left.begin)

    def in_flight(self) -> list[tuple[int, int, int]]:
        return [*self.arriving, *self.begun, *self.waiting, *self.to_stand_back]

    @invariant()
    def one_of_a_group_is_worked_on(self) -> None:
        groups = [group for group, _, _ in self.begun]
        assert len(groups) == len(set(groups))

    @invariant()
    def the_order_is_kept(self) -> None:
        """Finished are the oldest, and none was passed by."""
        for group, numbers in self.finished.items():
            assert numbers == sorted(numbers)
            assert not self.queued[group] or not numbers or numbers[-1] < self.queued[group][0]

    @invariant()
    def nobody_waits_for_nobody(self) -> None:
        for group, _, _ in self.waiting:
            assert any(group == other for other, _, _ in self.begun)


TestGroups = Groups.TestCase
