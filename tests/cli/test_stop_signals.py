"""What the main thread may rely on when it waits to be stopped."""

from __future__ import annotations

import signal
import threading

import pytest

from receipt_actors.cli.process import StopSignals
from tests.patience import PATIENCE_SECONDS


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_before_the_wait_ends_it(number: signal.Signals) -> None:
    with StopSignals() as signals:
        assert not signals.wait(0)
        for _ in range(5):  # at the same moment, so they count once
            signal.raise_signal(number)
        assert signals.wait(PATIENCE_SECONDS)
        assert signals.wait(PATIENCE_SECONDS)
        assert signals.received == number.name


@pytest.mark.parametrize("is_signal", [True, False])
def test_another_thread_can_end_the_wait(is_signal: bool) -> None:
    with StopSignals() as signals:
        sender = threading.Thread(target=lambda: signal.raise_signal(signal.SIGTERM) if is_signal else signals.wake())
        sender.start()
        assert signals.wait(PATIENCE_SECONDS)
        assert signals.received == ("SIGTERM" if is_signal else None)
        sender.join()
    signals.wake()  # too late, and no harm


def test_what_handled_signals_before_does_so_again() -> None:
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    with StopSignals():
        assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] != before
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == before
    assert signal.set_wakeup_fd(-1) == -1
