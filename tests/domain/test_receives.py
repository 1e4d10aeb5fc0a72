"""What receives have told: who fails, whether anything can be taken in, and since when there is nothing to do."""

from __future__ import annotations

import pytest

from receipt_actors.domain.outages import Outages
from receipt_actors.domain.receives import Receives

FIRST, SECOND = "First", "Second"
CALM = Outages()
APPLE_IS_DOWN = CALM.begun("App Store", stops_receiving=True)
FIRST_IS_DOWN = CALM.begun("delete from First", FIRST, stops_receiving=True)


@pytest.fixture
def receives() -> Receives[int]:
    """Consumers 1 to 3, of two queues, from second 0 on."""
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
    """Be it receives or what else is asked of it; that nothing is taken in may also be for another service."""
    for queue in deaf:
        receives.failed(1, queue, 5.0)
    receives.looked(outages, 5.0)
    assert receives.is_closed(outages) is is_closed
    assert receives.unable_seconds(12.0) == (7.0 if is_unable else 0.0)


def test_one_receive_that_succeeds_ends_inability_though_others_fail(receives: Receives[int]) -> None:
    """What another consumer met before is not true any more; it is told of as long as that one has not looked again."""
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


def test_a_receive_that_succeeds_begins_it_anew_where_something_else_fails_still(receives: Receives[int]) -> None:
    """Something could be received then, be it a single message to try with."""
    receives.failed(1, SECOND, 1.0)
    receives.looked(FIRST_IS_DOWN, 1.0)
    receives.succeeded(1, FIRST, 1, 5.0)
    receives.looked(FIRST_IS_DOWN, 5.0)
    assert receives.unable_seconds(7.0) == 2.0


def test_inability_lasts_whatever_its_reason_is(receives: Receives[int]) -> None:
    """A failure that follows another one without a break is one time in which nothing came."""
    receives.failed(1, SECOND, 1.0)
    receives.looked(FIRST_IS_DOWN, 1.0)
    receives.failed(1, FIRST, 2.0)
    receives.looked(FIRST_IS_DOWN, 2.0)
    receives.looked(CALM, 3.0)
    assert receives.unable_seconds(4.0) == 3.0


def test_there_is_nothing_to_do_once_each_queue_has_said_so_since_the_last_message(receives: Receives[int]) -> None:
    """Also at the start; a receive that brings something, or fails, asks for all answers anew."""
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
    """Whatever became of that meanwhile: only an answer with nothing says that nothing is left."""
    receives.succeeded(1, FIRST, 0, 1.0)
    receives.note_activity(2.0)  # the last of ten messages has been handed back at once, before it is told of them
    receives.succeeded(1, SECOND, 10, 3.0)
    receives.succeeded(1, FIRST, 0, 4.0)
    assert receives.idle_seconds(5.0) == 0.0
    receives.succeeded(1, SECOND, 0, 6.0)
    assert receives.idle_seconds(7.0) == 4.0


def test_what_was_known_before_a_stop_says_nothing_after_it(receives: Receives[int]) -> None:
    """At no moment: also not before anybody has noted that it is over."""
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
    """It was an operator who kept everything away."""
    receives.failed(1, SECOND, 1.0)
    receives.looked(FIRST_IS_DOWN, 1.0)
    receives.stopped()
    receives.resumed(100.0)
    receives.failed(1, SECOND, 100.0)
    receives.looked(FIRST_IS_DOWN, 100.0)
    assert receives.unable_seconds(101.0) == 1.0
