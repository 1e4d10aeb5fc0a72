"""Admission: outages, what receives tell of each queue, and credits."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from receipt_actors.domain.admission import MIN_RECEIVES, Credits, Grant, Outages, Receives, credits_kept_for_each

ALL_WELL = Outages()
LEDGER_DOWN = ALL_WELL.begun("ledger", stops_receiving=True)


def granted(credits: Credits[str], limit: int, outages: Outages = ALL_WELL) -> dict[str, int]:
    return dict(each(credits, limit, outages))


def each(credits: Credits[str], limit: int, outages: Outages = ALL_WELL) -> Iterator[tuple[str, int]]:
    while (grant := credits.grant(limit, outages)) is not None:
        yield grant


def asking(credits: Credits[str], *consumers: str, wanted: int = 10) -> None:
    for consumer in consumers:
        credits.asked(consumer, consumer[0], wanted)


def bring(credits: Credits[str], consumer: str, messages: int) -> None:
    for _ in range(messages):
        credits.took(consumer[0])
    credits.received(consumer, consumer[0], messages)
    asking(credits, consumer)


class TestOneSource:
    def test_no_more_than_the_limit_is_handed_out(self) -> None:
        credits = Credits[str]("a")
        credits.took("a")
        asking(credits, "a1", "a2", "a3")
        assert granted(credits, limit=16) == {"a1": 10, "a2": 5}
        assert (credits.in_flight, credits.reserved, credits.room(16)) == (1, 15, 0)
        assert credits.of_each_source() == {"a": {"in_flight": 1, "reserved": 15, "waiting": 1}}

    def test_what_is_finished_or_not_used_may_be_had_again(self) -> None:
        credits = Credits[str]("a")
        asking(credits, "a1", "a2", "a3")
        assert granted(credits, limit=10) == {"a1": 10}
        credits.took("a")
        credits.received("a1", "a", 1)
        assert granted(credits, limit=10) == {"a2": 9}
        credits.finished("a")
        assert granted(credits, limit=10) == {"a3": 1}

    def test_a_smaller_limit_is_waited_for(self) -> None:
        credits = Credits[str]("a")
        asking(credits, "a1", "a2")
        granted(credits, limit=10)
        assert credits.room(4) == -6
        assert granted(credits, limit=4) == {}

    def test_full_receives_make_room_for_more_at_once(self) -> None:
        credits = Credits[str]("a")
        asking(credits, "a1", "a2", "a3", "a4")
        assert set(granted(credits, limit=100)) == {"a1", "a2"}
        bring(credits, "a1", 10)
        assert set(granted(credits, limit=100)) == {"a3", "a4"}
        bring(credits, "a2", 6)
        assert set(granted(credits, limit=100)) == {"a1"}
        for consumer in ("a1", "a3"):
            bring(credits, consumer, 5)
        assert granted(credits, limit=100) == {"a2": 10}

    def test_a_receive_that_failed_says_nothing_of_what_there_is(self) -> None:
        credits = Credits[str]("a")
        asking(credits, "a1", "a2", "a3")
        granted(credits, limit=100)
        bring(credits, "a1", 10)
        assert granted(credits, limit=100) == {"a3": 10, "a1": 10}
        credits.failed("a2", "a")
        asking(credits, "a2")
        assert granted(credits, limit=100) == {"a2": 10}

    def test_a_consumer_that_ended_leaves_nothing_behind(self) -> None:
        credits = Credits[str]("a")
        asking(credits, "a1", "a2", "a3")
        granted(credits, limit=10)
        credits.left("a1", "a")
        credits.left("a2", "a")
        assert granted(credits, limit=10) == {"a3": 10}


class TestOutages:
    def test_one_message_may_come_where_none_is_in_flight(self) -> None:
        credits = Credits[str]("a")
        asking(credits, "a1", "a2")
        assert granted(credits, 10, LEDGER_DOWN) == {"a1": 1}
        credits.took("a")
        credits.received("a1", "a", 1)
        assert granted(credits, 10, LEDGER_DOWN) == {}
        assert granted(credits, 10) == {"a2": 9}

    def test_each_source_has_its_turn_to_try(self) -> None:
        credits = Credits[str]("ab")
        asking(credits, "a1", "b1")
        for consumer in "a1", "b1", "a1":
            assert granted(credits, 10, LEDGER_DOWN) == {consumer: 1}
            bring(credits, consumer, 0)

    def test_trouble_of_one_source_is_no_other_ones(self) -> None:
        credits = Credits[str]("ab")
        asking(credits, "a1", "a2", "b1")
        outages = ALL_WELL.begun("delete from a", "a", stops_receiving=True)
        assert granted(credits, 40, outages) == {"a1": 1, "b1": 10}

    def test_one_more_to_try_with(self) -> None:
        """Of the source that is meant or of any, though others are in flight; not where one may be coming already."""
        credits = Credits[str]("ab")
        credits.took("b")
        asking(credits, "a1", "b1", "b2")
        assert granted(credits, 10, LEDGER_DOWN) == {}
        assert credits.grant_to_try_with(10, 1, "b") == ("b1", 1)
        assert credits.grant_to_try_with(10, 1, "b") is None
        assert credits.grant_to_try_with(10, 1, None) is None
        credits.received("b1", "b", 0)
        assert credits.grant_to_try_with(1, 1, None) is None  # no room
        assert credits.grant_to_try_with(10, 1, None) == ("a1", 1)


class TestSeveralSources:
    def test_half_of_all_is_kept_for_each_its_share(self) -> None:
        credits = Credits[str]("ab")
        asking(credits, "a1", "a2", "a3", "a4")
        for _ in range(20):
            for consumer, number in granted(credits, limit=100).items():
                bring(credits, consumer, number)
        assert credits.in_flight == 75
        asking(credits, "b1", "b2")
        assert granted(credits, limit=100) == {"b1": 10, "b2": 10}

    def test_idle_sources_hold_no_more_than_their_shares(self) -> None:
        queues = "abcdefghij"
        credits = Credits[str](queues)
        asking(credits, *(f"{queue}{number}" for queue in queues for number in range(4)))
        assert sum(granted(credits, limit=40).values()) == len(queues) * credits_kept_for_each(40, len(queues))

    @pytest.mark.parametrize("limit", [3, 6, 100])
    def test_another_limit_is_another_share(self, limit: int) -> None:
        credits = Credits[str]("abc")
        asking(credits, "a1")
        granted(credits, limit=50)
        asking(credits, "b1", "c1")
        credits.received("a1", "a", 0)
        assert set(granted(credits, limit)) == {"b1", "c1"}


@settings(max_examples=50, deadline=None)
@given(
    sources=st.integers(2, 6),
    limit=st.integers(6, 60),
    order=st.lists(st.integers(0, 10**6), min_size=200, max_size=200),
)
def test_no_source_with_messages_starves(sources: int, limit: int, order: list[int]) -> None:
    """All have more messages than can be taken in, and any of them may be finished next: each has its share always.

    Also where the first one was alone for long, and has taken what was free.
    """
    queues = "abcdef"[:sources]
    credits = Credits[str](queues)
    in_flight: list[str] = []

    def receive_all() -> None:
        while grants := granted(credits, limit):
            for consumer, number in grants.items():
                in_flight.extend(consumer[0] * number)
                bring(credits, consumer, number)

    asking(credits, *(f"a{number}" for number in range(4)))
    receive_all()
    asking(credits, *(f"{queue}{number}" for queue in queues[1:] for number in range(4)))
    receive_all()
    for pick in order:
        credits.finished(in_flight.pop(pick % len(in_flight)))
        receive_all()
        assert len(in_flight) == limit
        assert min(in_flight.count(queue) for queue in queues) >= credits_kept_for_each(limit, sources)


class AnyOrder(RuleBasedStateMachine):
    QUEUES = "abc"

    @initialize(sources=st.integers(1, 3), limit=st.integers(0, 40))
    def begin(self, sources: int, limit: int) -> None:
        self.queues = self.QUEUES[:sources]
        self.credits = Credits[str](self.queues)
        self.limit = self.highest = limit
        self.outages = ALL_WELL
        self.consumers = 0
        self.waiting: dict[str, deque[tuple[str, int]]] = {queue: deque() for queue in self.queues}
        self.receiving: dict[str, int] = {}
        self.in_flight: list[str] = []

    def used(self, queue: str) -> int:
        receiving = sum(credits for consumer, credits in self.receiving.items() if consumer[0] == queue)
        return receiving + self.in_flight.count(queue)

    @rule(pick=st.integers(0, 2), wanted=st.integers(1, 10))
    def ask(self, pick: int, wanted: int) -> None:
        queue = self.queues[pick % len(self.queues)]
        self.consumers += 1
        consumer = f"{queue}{self.consumers}"
        self.credits.asked(consumer, queue, wanted)
        self.waiting[queue].append((consumer, wanted))

    @precondition(lambda self: self.receiving)
    @rule(pick=st.integers(0, 100), messages=st.integers(-1, 10))
    def end_a_receive(self, pick: int, messages: int) -> None:
        consumer = list(self.receiving)[pick % len(self.receiving)]
        queue, credits = consumer[0], self.receiving.pop(consumer)
        if messages < 0:
            self.credits.failed(consumer, queue)
            return
        for _ in range(min(messages, credits)):
            self.credits.took(queue)
            self.in_flight.append(queue)
        self.credits.received(consumer, queue, min(messages, credits))

    @precondition(lambda self: self.in_flight)
    @rule(pick=st.integers(0, 100))
    def finish(self, pick: int) -> None:
        self.credits.finished(self.in_flight.pop(pick % len(self.in_flight)))

    @precondition(lambda self: self.receiving)
    @rule(pick=st.integers(0, 100))
    def end_a_consumer(self, pick: int) -> None:
        consumer = list(self.receiving)[pick % len(self.receiving)]
        del self.receiving[consumer]
        self.credits.left(consumer, consumer[0])

    @rule(limit=st.integers(0, 40))
    def change_the_limit(self, limit: int) -> None:
        self.limit = limit

    @rule(outages=st.sampled_from([ALL_WELL, LEDGER_DOWN, ALL_WELL.begun("delete from a", "a", stops_receiving=True)]))
    def change_the_outages(self, outages: Outages) -> None:
        self.outages = outages

    @rule(pick=st.integers(0, 3))
    def try_with_one(self, pick: int) -> None:
        queue = (*self.queues, None)[pick % (len(self.queues) + 1)]
        grant = self.credits.grant_to_try_with(self.limit, 1, queue)
        if grant is not None:
            assert grant[1] == 1 and self.credits.room(self.limit) >= 0
            self.note(grant)

    def note(self, grant: Grant[str]) -> None:
        granted_to, credits = grant
        consumer, wanted = self.waiting[granted_to[0]].popleft()
        assert (consumer, True) == (granted_to, 1 <= credits <= wanted)
        self.receiving[consumer] = credits

    @rule()
    def hand_out(self) -> None:
        while (grant := self.credits.grant(self.limit, self.outages)) is not None:
            queue = grant[0][0]
            if self.outages is ALL_WELL:  # of those who may have more, who has least is the next
                before = self.used(queue)
                assert not [other for other in self.queues if self.used(other) < before and self.is_kept_waiting(other)]
            self.note(grant)
            assert sum(map(self.used, self.queues)) <= self.limit
        assert self.outages is not ALL_WELL or not list(filter(self.is_kept_waiting, self.queues))

    def is_kept_waiting(self, queue: str) -> bool:
        is_receiving = sum(consumer[0] == queue for consumer in self.receiving) >= MIN_RECEIVES
        room = self.limit - sum(map(self.used, self.queues))
        kept = credits_kept_for_each(self.limit, len(self.queues))
        others = sum(max(0, kept - self.used(other)) for other in self.queues if other != queue)
        return bool(self.waiting[queue]) and not is_receiving and room > others and self.used(queue) < kept

    @invariant()
    def the_count_is_right(self) -> None:
        if not hasattr(self, "credits"):
            return
        assert self.credits.in_flight == len(self.in_flight)
        assert self.credits.reserved == sum(self.receiving.values())
        for queue, has in self.credits.of_each_source().items():
            assert has["in_flight"] + has["reserved"] == self.used(queue)
            assert has["waiting"] == len(self.waiting[queue])


TestAnyOrder = AnyOrder.TestCase
TestAnyOrder.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
FIRST, SECOND = "First", "Second"
CALM = Outages()
APPLE_IS_DOWN = CALM.begun("App Store", stops_receiving=True)
FIRST_IS_DOWN = CALM.begun("delete from First", FIRST, stops_receiving=True)


@pytest.fixture
def receives() -> Receives[int]:
    return Receives([FIRST, SECOND], now_seconds=0.0)


def test_the_beginning_and_the_end_of_failures_are_seen_once(receives: Receives[int]) -> None:
    """Whoever met them: the first that fails begins them, the last that succeeds again, or has ended, ends them."""
    assert [receives.failed(consumer, FIRST, 1.0) for consumer in (1, 2, 3, 1)] == [True, False, False, False]
    assert receives.failing == {FIRST}
    assert not receives.succeeded(1, FIRST, 0, 2.0)
    assert not receives.left(2, FIRST)
    assert receives.failing == {FIRST}
    assert receives.succeeded(3, FIRST, 0, 2.0)
    assert receives.failing == frozenset()
    assert not receives.succeeded(3, FIRST, 0, 2.0)


@pytest.mark.parametrize(
    ("outages", "deaf", "is_closed", "is_unable"),
    [
        (CALM, (), False, False),
        (CALM, (FIRST,), False, False),
        (CALM, (FIRST, SECOND), True, True),
        (APPLE_IS_DOWN, (), True, False),
        (APPLE_IS_DOWN, (FIRST, SECOND), True, True),
        (FIRST_IS_DOWN, (), False, False),
        (FIRST_IS_DOWN, (FIRST,), False, False),
        (FIRST_IS_DOWN, (SECOND,), True, True),
    ],
)
def test_nothing_can_be_received_where_each_queue_fails(
    receives: Receives[int], outages: Outages, deaf: tuple[str, ...], is_closed: bool, is_unable: bool
) -> None:
    for queue in deaf:
        receives.failed(1, queue, 5.0)
    receives.looked(outages, 5.0)
    assert receives.is_closed(outages) is is_closed
    assert receives.unable_seconds(12.0) == (7.0 if is_unable else 0.0)


def test_one_receive_that_succeeds_ends_inability_though_others_fail(receives: Receives[int]) -> None:
    for queue in (FIRST, SECOND):
        receives.failed(1, queue, 1.0)
        receives.failed(2, queue, 1.0)
    receives.looked(CALM, 1.0)
    receives.succeeded(1, FIRST, 0, 4.0)
    receives.looked(CALM, 4.0)
    assert (receives.unable_seconds(5.0), receives.failing) == (0.0, {FIRST, SECOND})
    receives.failed(1, FIRST, 6.0)
    receives.looked(CALM, 6.0)
    assert receives.unable_seconds(8.0) == 2.0


def test_inability_lasts_whatever_its_reason_and_begins_anew_after_a_receive(receives: Receives[int]) -> None:
    receives.failed(1, SECOND, 1.0)
    receives.looked(FIRST_IS_DOWN, 1.0)
    receives.failed(1, FIRST, 2.0)
    receives.looked(CALM, 3.0)
    assert receives.unable_seconds(4.0) == 3.0
    receives.looked(FIRST_IS_DOWN, 4.0)
    receives.succeeded(1, FIRST, 1, 5.0)
    receives.looked(FIRST_IS_DOWN, 5.0)
    assert receives.unable_seconds(7.0) == 2.0


def test_there_is_nothing_to_do_once_each_queue_has_said_so_since_the_last_message(receives: Receives[int]) -> None:
    assert receives.idle_seconds(9.0) == 0.0
    receives.succeeded(1, FIRST, 0, 9.0)
    assert receives.idle_seconds(9.0) == 0.0
    receives.succeeded(2, SECOND, 0, 9.0)
    assert receives.idle_seconds(10.0) == 10.0
    receives.succeeded(2, SECOND, 3, 11.0)
    assert receives.idle_seconds(12.0) == 0.0
    receives.note_activity(13.0)
    receives.succeeded(1, FIRST, 0, 14.0)
    receives.succeeded(2, SECOND, 0, 14.0)
    assert receives.idle_seconds(15.0) == 2.0
    receives.failed(1, FIRST, 16.0)
    assert receives.idle_seconds(17.0) == 0.0


def test_a_queue_that_brings_something_may_have_more(receives: Receives[int]) -> None:
    receives.succeeded(1, FIRST, 0, 1.0)
    receives.note_activity(2.0)  # the last of ten messages has been handed back at once, before it is told of them
    receives.succeeded(1, SECOND, 10, 3.0)
    receives.succeeded(1, FIRST, 0, 4.0)
    assert receives.idle_seconds(5.0) == 0.0
    receives.succeeded(1, SECOND, 0, 6.0)
    assert receives.idle_seconds(7.0) == 4.0


def test_what_was_known_before_a_stop_says_nothing_after_it(receives: Receives[int]) -> None:
    receives.succeeded(1, FIRST, 0, 1.0)
    receives.succeeded(1, SECOND, 0, 1.0)
    assert receives.idle_seconds(2.0) == 2.0
    receives.stopped()
    assert receives.idle_seconds(3.0) == 0.0
    receives.resumed(50.0)
    receives.succeeded(1, FIRST, 0, 51.0)
    receives.succeeded(1, SECOND, 0, 51.0)
    assert receives.idle_seconds(52.0) == 2.0
    for queue in (FIRST, SECOND):
        receives.failed(1, queue, 53.0)
    receives.looked(CALM, 53.0)
    receives.stopped()
    receives.looked(CALM, 54.0)
    assert receives.unable_seconds(60.0) == 0.0


def test_no_outage_counts_the_time_in_which_it_was_stopped(receives: Receives[int]) -> None:
    receives.failed(1, SECOND, 1.0)
    receives.looked(FIRST_IS_DOWN, 1.0)
    receives.stopped()
    receives.resumed(100.0)
    receives.failed(1, SECOND, 100.0)
    receives.looked(FIRST_IS_DOWN, 100.0)
    assert receives.unable_seconds(101.0) == 1.0


def test_an_outage_closes_all_sources_or_one_or_none() -> None:
    outages = (
        Outages()
        .begun("ledger", stops_receiving=True)
        .begun("delete from A", "A", stops_receiving=True)
        .begun("send to Out", stops_receiving=False)
    )
    assert outages.closes_all
    assert (outages.closes("A"), outages.closes("B")) == (True, False)
    assert dict(outages.closing) == {"ledger": None, "delete from A": "A"}
    assert outages.services == {"ledger", "delete from A", "send to Out"}


def test_what_was_said_last_of_a_service_is_true() -> None:
    outages = Outages().begun("app_store", stops_receiving=True).begun("app_store", stops_receiving=True)
    assert outages.closes_all
    outages = outages.begun("app_store", stops_receiving=False)
    assert (outages.closes_all, outages.services) == (False, {"app_store"})
    outages = outages.begun("app_store", stops_receiving=True)
    assert (outages.closes_all, outages.kept) == (True, frozenset())


def test_an_outage_that_is_over_is_forgotten_and_no_other() -> None:
    outages = Outages().begun("ledger", stops_receiving=True).begun("delete from A", "A", stops_receiving=True)
    outages = outages.begun("visibility of A", "A", stops_receiving=True).ended("ledger").ended("app_store")
    assert (outages.closes_all, outages.services) == (False, {"delete from A", "visibility of A"})
    outages = outages.ended("delete from A")
    assert outages.closes("A")
    assert outages.ended("visibility of A") == Outages()
