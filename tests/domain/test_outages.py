"""Which services are unavailable, and what that closes."""

from __future__ import annotations

from receipt_actors.domain.outages import Outages


def test_an_outage_closes_all_sources_or_one_or_none() -> None:
    """As whoever notices it says; each counts among the services that are unavailable."""
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
    """It closes, closes no more while it goes on, and closes again; however often it is said."""
    outages = Outages().begun("app_store", stops_receiving=True).begun("app_store", stops_receiving=True)
    assert outages.closes_all
    outages = outages.begun("app_store", stops_receiving=False)
    assert (outages.closes_all, outages.services) == (False, {"app_store"})
    outages = outages.begun("app_store", stops_receiving=True)
    assert (outages.closes_all, outages.kept) == (True, frozenset())


def test_an_outage_that_is_over_is_forgotten() -> None:
    """And no other one with it; what was never unavailable may be said to be available."""
    outages = Outages().begun("ledger", stops_receiving=True).begun("delete from A", "A", stops_receiving=True)
    outages = outages.ended("ledger").ended("app_store")
    assert (outages.closes_all, outages.services) == (False, {"delete from A"})
    assert outages.ended("delete from A") == Outages()


def test_one_source_may_have_two_outages() -> None:
    """It is open when both are over."""
    outages = (
        Outages().begun("delete from A", "A", stops_receiving=True).begun("visibility of A", "A", stops_receiving=True)
    )
    assert outages.ended("delete from A").closes("A")
    assert not outages.ended("delete from A").ended("visibility of A").closes("A")
