"""How requests are sent: batches, the rate limit, the breaker, retries, hand-backs and turns."""

from __future__ import annotations

import random
from collections import deque
from math import isfinite

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from receipt_actors.domain.reasons import Reason
from receipt_actors.domain.sending import (
    BURST_SECONDS,
    FIRST_SIZE,
    MAX_HAND_BACK_SECONDS,
    MAX_LAG_SECONDS,
    MIN_GROUP_HAND_BACK_SECONDS,
    MIN_HAND_BACK_SECONDS,
    Breaker,
    InTurn,
    RateLimit,
    RetryPolicy,
    Window,
    hand_back_seconds,
    is_held_against,
    take_batch,
)

patient = settings(deadline=None)


@patient
@given(sizes=st.lists(st.integers(0, 150), min_size=1), max_entries=st.integers(1, 12), max_bytes=st.integers(1, 120))
def test_batches_are_full_in_order_and_within_the_limits(sizes: list[int], max_entries: int, max_bytes: int) -> None:
    waiting = deque(enumerate(sizes))
    batches = []
    while waiting:
        batch = take_batch(waiting, lambda entry: entry[1], max_entries=max_entries, max_bytes=max_bytes)
        assert batch, "something waits, and nothing would ever be sent"
        batches.append(batch)

    assert [entry for batch in batches for entry in batch] == list(enumerate(sizes))
    for batch, following in zip(batches, [*batches[1:], None], strict=True):
        total = sum(size for _, size in batch)
        assert 1 <= len(batch) <= max_entries
        assert total <= max_bytes or len(batch) == 1
        if following is not None:
            assert len(batch) == max_entries or total + following[0][1] > max_bytes


def test_the_default_limits_are_those_of_sqs() -> None:
    assert len(take_batch(deque(range(11)), lambda _: 0)) == 10
    assert len(take_batch(deque(range(11)), lambda _: 512 * 1024)) == 2
    assert len(take_batch(deque(range(11)), lambda _: 512 * 1024 + 1)) == 1


@patient
@given(st.floats(0.1, 1000), st.floats(0, 300), st.floats(0, 400))
def test_a_pause_holds_whatever_the_rate(per_second: float, until: float, now: float) -> None:
    paused = RateLimit(per_second).paused(until)
    assert paused.wait_seconds(now) == pytest.approx(max(0.0, until - now), abs=1e-5)
    assert paused.paused(until / 2) == paused
    assert paused.taken(until).wait_seconds(until) <= 1 / per_second + 1e-5


@patient
@given(per_second=st.floats(0.1, 500), arrivals=st.lists(st.floats(0, 2), min_size=1, max_size=60))
def test_the_rate_is_kept_in_every_stretch_of_time(per_second: float, arrivals: list[float]) -> None:
    limit, now, taken = RateLimit(per_second), 0.0, []
    for gap in arrivals:
        now += gap
        now += limit.wait_seconds(now)
        taken.append(now)
        limit = limit.taken(now)

    for first, begin in enumerate(taken):
        for last in range(first, len(taken)):
            stretch = taken[last] - begin
            assert last - first <= (stretch + BURST_SECONDS) * per_second + 1e-6


@patient
@given(per_second=st.floats(0.1, 500), pause=st.floats(0, 1000))
def test_an_idle_limit_lets_the_next_request_pass(per_second: float, pause: float) -> None:
    limit = RateLimit(per_second).taken(0.0)
    assert limit.wait_seconds(max(pause, 1 / per_second)) == 0
    assert RateLimit(per_second).wait_seconds(pause) == 0


@given(
    st.floats(min_value=5e-324, allow_infinity=False),
    st.floats(min_value=5e-324, allow_infinity=False),
    st.integers(1, 5),
)
def test_a_rate_keeps_its_word_after_any_other(first: float, second: float, requests: int) -> None:
    """However slow that was: nodes that share the rate may be lent any part of it, and get more later."""
    limit = RateLimit(first)
    for _ in range(requests):
        limit = limit.taken(0.0)
    limit = limit.at(second, 0.0)
    assert isfinite(limit.used_until_seconds)
    for _ in range(2):
        limit = limit.taken(limit.wait_seconds(0.0))
    assert limit.wait_seconds(0.0) > 0 or second * BURST_SECONDS > 1


@pytest.mark.parametrize(("before", "after", "wait_seconds"), [(0.1, 1.0, 0.9), (0.1, 0.01, 9.9), (1.0, 1.0, 0.9)])
def test_what_has_been_used_is_waited_for_at_the_faster_rate(before: float, after: float, wait_seconds: float) -> None:
    """A slower rate holds for the requests to come: one that was made already keeps nobody waiting longer."""
    limit = RateLimit(before).taken(100.0).at(after, 100.0)
    assert limit.wait_seconds(100.0) == pytest.approx(wait_seconds)
    assert limit.taken(200.0).wait_seconds(200.0) == pytest.approx(1 / after - BURST_SECONDS)


@pytest.mark.parametrize("per_second", [0, -1, float("nan")])
def test_a_limit_of_nothing_is_refused(per_second: float) -> None:
    with pytest.raises(ValueError, match="more than 0"):
        RateLimit(per_second)


LONG_SECONDS = Breaker().min_seconds


def fail(breaker: Breaker, *messages: str, now: float = 0.0) -> Breaker:
    for message in messages:
        breaker = breaker.failed([message], now)
    return breaker


def open_breaker() -> Breaker:
    breaker = fail(fail(Breaker(), *"abcd"), "e", now=LONG_SECONDS)
    assert not breaker.is_closed
    return breaker


def test_failures_in_a_row_of_several_messages_open_it() -> None:
    almost = fail(Breaker(), "a", "b", "c", "a")
    assert almost.is_closed
    assert fail(almost, "b", now=LONG_SECONDS - 0.1).is_closed
    assert not fail(almost, "b", now=LONG_SECONDS).is_closed


def test_many_failures_at_once_do_not_open_it() -> None:
    assert fail(Breaker(), *map(str, range(40))).is_closed


def test_one_poisonous_message_does_not_open_it() -> None:
    breaker = Breaker()
    for row in range(100):
        breaker = fail(breaker, *["poison"] * 5, *["venom"] * 4, now=row * LONG_SECONDS)
        assert breaker.is_closed
        breaker = breaker.answered()


def test_a_message_that_nobody_contradicts_opens_it() -> None:
    """At night a single message meets the outage again and again: it must not use up its deliveries all alone."""
    almost = fail(Breaker(), *["lonely"] * 9)
    assert almost.is_closed
    assert not fail(almost, "lonely").is_closed


def test_one_failed_batch_is_one_failure() -> None:
    breaker = Breaker().failed("abcdefghij", 0.0)
    for _ in range(3):
        breaker = breaker.failed("abcdefghij", LONG_SECONDS)
    assert breaker.is_closed
    assert not breaker.failed("abcdefghij", LONG_SECONDS).is_closed


@given(good_after=st.integers(0, 40), rows=st.integers(1, 50))
def test_answers_that_come_in_time_keep_it_closed(good_after: int, rows: int) -> None:
    breaker, now = Breaker(), 0.0
    for row in range(rows):
        for number in range(good_after):
            now += LONG_SECONDS / 41
            breaker = breaker.failed([f"{row}-{number}"], now)
            assert breaker.is_closed
        breaker = breaker.answered()


def test_a_steady_stream_of_failures_makes_a_long_row_say_less() -> None:
    breaker, now = Breaker(), 0.0
    for row in range(50):
        breaker = fail(breaker, *(f"{row}-{number}" for number in range(20)), now=now).answered()
        now += 1.0
    assert breaker.usual_failures == pytest.approx(20, rel=0.1)
    row_of_forty = fail(breaker, *map(str, range(20)), now=now)
    row_of_forty = fail(row_of_forty, *map(str, range(20)), now=now + LONG_SECONDS)
    assert row_of_forty.is_closed
    assert not fail(row_of_forty, *map(str, range(60)), now=now + LONG_SECONDS).is_closed


@given(st.data())
def test_an_outage_is_seen_in_time(data: st.DataObject) -> None:
    """Whatever was before, as long as answers were usual: without an answer it opens within five seconds.

    New messages come once a second, or faster, and each is tried again a second later.
    """
    breaker, now = Breaker(), 0.0
    for _ in range(data.draw(st.integers(0, 30))):
        breaker = fail(breaker, *map(str, range(data.draw(st.integers(0, 1)))), now=now).answered()
    messages: list[str] = []
    began, due = now, now
    while breaker.is_closed:
        due += data.draw(st.floats(0.1, 1.0))
        messages.append(str(len(messages)))
        now = due
        assert now - began <= 5.0
        breaker = fail(breaker, *messages, now=now)


@given(st.lists(st.sampled_from(["answered", *"abcdef"]), max_size=200), st.floats(0.01, 3.0))
def test_an_answer_closes_it_whatever_was_before(steps: list[str], seconds: float) -> None:
    breaker, now = Breaker(), 0.0
    for step in steps:
        now += seconds
        if step == "answered":
            breaker = breaker.answered()
            assert breaker.is_closed
            assert breaker.failures == 0
        else:
            was_open = not breaker.is_closed
            breaker = breaker.failed([step], now)
            assert not (was_open and breaker.is_closed)
        assert len(breaker.messages) <= breaker.min_messages
        assert 0 < breaker.pause_seconds(now) <= breaker.max_pause_seconds


def tries(breaker: Breaker, until: float) -> list[tuple[float, int]]:
    now, tries = LONG_SECONDS, []
    while now < until:
        pause = breaker.pause_seconds(now)
        now += pause
        tries.append((pause, breaker.new_messages(now)))
    return tries


def test_tries_become_more_seldom_up_to_a_limit() -> None:
    pauses = [pause for pause, _ in tries(open_breaker(), 300.0)]
    assert pauses[0] == pytest.approx(0.2)
    assert pauses == sorted(pauses)
    assert pauses[-1] == 5.0
    assert sum(new for _, new in tries(open_breaker(), 300.0)) < 150


def test_the_more_have_failed_the_more_new_messages_try() -> None:
    breaker = fail(fail(Breaker(), *map(str, range(180))), "last", now=LONG_SECONDS)
    assert not breaker.is_closed
    soon = tries(breaker, LONG_SECONDS + 4.0)
    assert sum(new for _, new in soon) > 100
    assert max(new for _, new in soon) <= 10  # a receive brings no more


def test_the_service_may_ask_for_a_longer_pause() -> None:
    breaker = fail(Breaker(), *"abcd").failed(["e"], LONG_SECONDS, retry_after_seconds=90)
    assert breaker.pause_seconds(LONG_SECONDS) == 90
    later = breaker.failed(["f"], 60.0, retry_after_seconds=200)
    assert later.pause_seconds(100.0) == 160
    assert later.answered().silent_until_seconds == 0.0


def test_another_sign_than_a_failure_opens_it_as_well() -> None:
    silent = Breaker().opened(100.0)
    assert (silent.is_closed, silent.failures, silent.failing_since_seconds) == (False, 1, 100.0)
    failing = fail(Breaker(), "a", "b", now=60.0).opened(100.0)
    assert (failing.is_closed, failing.failures, failing.failing_since_seconds) == (False, 2, 60.0)
    assert failing.answered().is_closed


def test_a_failure_is_held_against_a_message_when_a_later_request_was_answered() -> None:
    assert not is_held_against(7, last_answered=6)
    assert not is_held_against(7, last_answered=7)
    assert is_held_against(7, last_answered=8)


def test_retries_end_after_their_attempts() -> None:
    policy = RetryPolicy(4, first_seconds=0.5, max_seconds=8)
    assert [policy.pause_seconds(failed) is None for failed in (1, 2, 3, 4, 5)] == [False, False, False, True, True]


@given(failed=st.integers(1, 2000))
def test_pauses_grow_to_their_limit_with_jitter(failed: int) -> None:
    policy = RetryPolicy(10**9, first_seconds=0.5, max_seconds=15)
    pause = policy.pause_seconds(failed)
    assert pause is not None
    base = min(0.5 * 2 ** min(failed - 1, 100), 15)
    assert base <= pause <= base + 0.5


def test_the_service_may_ask_for_a_longer_pause_between_attempts() -> None:
    policy = RetryPolicy(2, first_seconds=0.0, max_seconds=1.0)
    assert policy.pause_seconds(1, at_least_seconds=30) == 30
    assert policy.pause_seconds(1, at_least_seconds=0.1) == 0.1
    assert policy.pause_seconds(2, at_least_seconds=30) is None


@given(receives=st.integers(-1, 10**6), seed=st.integers(0, 2**32))
def test_a_hand_back_waits_the_longer_the_oftener(receives: int, seed: int) -> None:
    seconds = hand_back_seconds(Reason.GAVE_UP_FOR_NOW, receives, random.Random(seed))
    full = min(MIN_HAND_BACK_SECONDS * 2 ** min(max(receives - 1, 0), 20), MAX_HAND_BACK_SECONDS)
    assert isinstance(seconds, int)
    assert 0.8 * full - 0.5 <= seconds <= full


@given(receives=st.integers(1, 20), seed=st.integers(0, 2**32))
def test_what_waits_for_an_operator_waits_long(receives: int, seed: int) -> None:
    """A wrong secret is not put right within a minute: to come back soon would only use up deliveries."""
    seconds = hand_back_seconds(Reason.MISCONFIGURED, receives, random.Random(seed))
    assert 0.8 * MAX_HAND_BACK_SECONDS <= seconds <= MAX_HAND_BACK_SECONDS


@given(receives=st.integers(1, 30), seed=st.integers(0, 2**32))
def test_what_blocks_its_group_is_handed_back_sooner(receives: int, seed: int) -> None:
    """5 s x 2^n: a hiccup should not keep a user waiting. In the end as late as any; for an operator likewise."""
    seconds = hand_back_seconds(Reason.GAVE_UP_FOR_NOW, receives, random.Random(seed), blocks_group=True)
    full = min(MIN_GROUP_HAND_BACK_SECONDS * 2 ** (receives - 1), MAX_HAND_BACK_SECONDS)
    assert 0.8 * full - 0.5 <= seconds <= full
    for_operator = hand_back_seconds(Reason.MISCONFIGURED, receives, random.Random(seed), blocks_group=True)
    assert for_operator >= 0.8 * MAX_HAND_BACK_SECONDS


@given(receives=st.integers(1, 10**6))
def test_what_only_stood_behind_another_is_not_hidden(receives: int) -> None:
    assert hand_back_seconds(Reason.GROUP_HANDED_BACK, receives, random.Random(1), blocks_group=True) == 0


def test_a_message_that_blocks_its_group_has_hours_as_any_other() -> None:
    """From the first delivery to the last of twenty: 3 hours at the least, however soon it comes at first."""
    rng = random.Random(7)
    pauses = [hand_back_seconds(Reason.GAVE_UP_FOR_NOW, count, rng, blocks_group=True) for count in range(1, 20)]
    assert sum(pauses) > 2.5 * 3600


def test_a_long_line_does_not_stand_before_another() -> None:
    queue = InTurn[tuple[str, int]](lambda item: item[0])
    queue.extend([("long", number) for number in range(1000)])
    queue.extend([("short", 0), ("short", 1)])
    taken = [queue.popleft() for _ in range(6)]
    assert taken == [("long", 0), ("short", 0), ("long", 1), ("short", 1), ("long", 2), ("long", 3)]
    assert (len(queue), next(iter(queue))) == (996, ("long", 4))


@given(st.lists(st.one_of(st.tuples(st.integers(0, 3), st.integers()), st.none())))
def test_nothing_is_lost_and_each_line_keeps_its_order(steps: list[tuple[int, int] | None]) -> None:
    queue = InTurn[tuple[int, int]](lambda item: item[0])
    put, taken = [], []
    for step in steps:
        if step is not None:
            queue.append(step)
            put.append(step)
        elif queue:
            taken.append(queue.popleft())
        assert len(queue) == len(put) - len(taken) == len(list(queue))
    while queue:
        taken.append(queue.popleft())
    for line in range(4):
        assert [item for item in taken if item[0] == line] == [item for item in put if item[0] == line]


def test_where_nobody_waits_there_is_nobody_to_take() -> None:
    with pytest.raises(IndexError):
        InTurn[int](str).popleft()


def test_what_is_put_first_is_taken_first() -> None:
    queue = InTurn[tuple[str, int]](lambda item: item[0])
    queue.extend([("a", 1), ("b", 1), ("a", 2)])
    queue.appendleft(("b", 0))
    queue.appendleft(("c", 0))
    assert [queue.popleft() for _ in range(5)] == [("c", 0), ("b", 0), ("a", 1), ("b", 1), ("a", 2)]


def test_it_doubles_in_each_round_trip_while_it_is_full() -> None:
    window = Window()
    for _ in range(FIRST_SIZE):
        window = window.answered(is_full=True, lag_seconds=0.0)
    assert window.size == 2 * FIRST_SIZE


@pytest.mark.parametrize(("is_full", "lag_seconds"), [(False, 0.0), (True, 2 * MAX_LAG_SECONDS)])
def test_it_opens_no_further_than_helps(is_full: bool, lag_seconds: float) -> None:
    assert Window().answered(is_full=is_full, lag_seconds=lag_seconds) == Window()
