"""The embedded backend's file is taken away while the program runs: a cleanup, a restore, a slip of an operator."""

from __future__ import annotations

import signal

import pytest

from receipt_actors.sandbox.app_store import SimulatedAppStore

from .worlds import RESULTS, SOURCE, EmbeddedWorld, genuine_messages


@pytest.mark.short
def test_a_database_that_is_moved_away_is_missed_and_taken_up_again(embedded: EmbeddedWorld) -> None:
    """Nothing is claimed in a file that nobody will find, and the log says so; once it is back, work goes on.

    A stop without it is in order: there is nothing that could be waited for.
    """
    messages = genuine_messages(10, 51)
    elsewhere = embedded.database.with_suffix(".elsewhere")
    with SimulatedAppStore() as store:
        program = embedded.start(store, drain_seconds=600)
        program.wait_for_log("consumers take receipts")
        embedded.database.rename(elsewhere)
        program.wait_for_log("deleted, moved or replaced")
        assert not embedded.database.exists()  # a new, empty one would be taken for the ledger
        elsewhere.rename(embedded.database)
        embedded.send(messages)
        program.wait_until(lambda: embedded.visible(RESULTS) == len(messages), "all are answered")
        program.wait_until(lambda: embedded.total(SOURCE) == 0, "all are deleted")
        embedded.database.rename(elsewhere)
        program.send_signal(signal.SIGTERM)
        assert program.wait_for_end() == 0
    elsewhere.rename(embedded.database)
