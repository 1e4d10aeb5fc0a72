"""When a batch run ends: the waiting of ``start``, against a system that says what a test wants it to."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from math import inf

import pykka
import pytest

from receipt_actors.cli.start import LONGEST_LOOK_SECONDS, SHORTEST_LOOK_SECONDS, wait_for_the_end
from receipt_actors.pipeline.protocol import InFlightStatus
from receipt_actors.settings import Settings

SETTINGS = Settings(backend="aws", bundle_ids=("com.example.game",))
GONE = pykka.ActorDeadError("there is no intake just now")
SILENT = pykka.Timeout("the machine stood still")


def idle(seconds: float) -> InFlightStatus:
    return InFlightStatus(0, 10, frozenset(), seconds)


def unable(*services: str) -> InFlightStatus:
    return InFlightStatus(0, 10, frozenset(services), 0.0, receives_fail=frozenset({"ReceiptsSQS"}))


class Watched:
    """A system and its signals: says one thing after the other, and notes how long it was left alone before each."""

    def __init__(self, *said: InFlightStatus | Exception, ends_after: float = inf) -> None:
        self._said: Iterator[InFlightStatus | Exception] = iter(said)
        self._looks_left = ends_after
        self.pauses: list[float | None] = []

    def in_flight(self) -> InFlightStatus:
        said = next(self._said)
        if isinstance(said, Exception):
            raise said
        return said

    def wait(self, seconds: float | None) -> bool:
        """No signal comes, until there is to be one."""
        self.pauses.append(seconds)
        self._looks_left -= 1
        return self._looks_left < 0

    def end(self, limit: float | None) -> list[float | None]:
        """Wait until it is over, and return the pauses between the looks."""
        wait_for_the_end(self.in_flight, self.wait, SETTINGS.model_copy(update={"exit_when_idle_seconds": limit}))
        assert next(self._said, None) is None, "it has ended before all had been said"
        return self.pauses


def test_without_a_limit_it_never_looks() -> None:
    assert Watched(ends_after=0).end(None) == [None]


def test_it_ends_when_it_has_been_idle_for_long_enough() -> None:
    assert Watched(idle(2.0), idle(0.5), idle(10.0)).end(10.0) == [10.0, 8.0, 9.5]


@pytest.mark.parametrize("limit", [0.0, 1.0])
def test_while_nobody_knows_it_goes_on(limit: float) -> None:
    pause = max(SHORTEST_LOOK_SECONDS, min(limit, LONGEST_LOOK_SECONDS))
    assert Watched(idle(0.0), GONE, SILENT, idle(1.0)).end(limit) == [limit, pause, pause, pause]


def test_an_outage_is_waited_out_and_told_once(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        said = (unable(), unable(), GONE, unable(), unable("ledger"), unable(), idle(0.5), unable(), idle(1.0))
        Watched(*said).end(1.0)
    told = [record.getMessage().rpartition("unavailable: ")[2] for record in caplog.records]
    assert told == ["receive from ReceiptsSQS", "ledger, receive from ReceiptsSQS", "receive from ReceiptsSQS"]


def test_a_signal_ends_the_wait_in_an_outage() -> None:
    assert len(Watched(unable(), unable(), ends_after=2).end(30.0)) == 3
