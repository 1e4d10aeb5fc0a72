"""The network between nodes and services does what it says, and sees what services see."""

from __future__ import annotations

import http.client
from collections.abc import Callable, Iterator
from contextlib import closing
from urllib.parse import urlsplit

import pytest

from receipt_actors.sandbox.app_store import SimulatedAppStore
from tests.patience import PATIENCE_SECONDS

from .network import APPLE, Link, Network, Way

pytestmark = pytest.mark.short


@pytest.fixture
def store() -> Iterator[SimulatedAppStore]:
    with SimulatedAppStore() as store:
        yield store


@pytest.fixture
def network() -> Iterator[Network]:
    with Network() as network:
        yield network


def ask(link: Link, *, patience_seconds: float = PATIENCE_SECONDS) -> int:
    """Ask the App Store by way of this link; returns the status."""
    with closing(asking(link, patience_seconds=patience_seconds)) as connection:
        return connection.getresponse().status


def asking(link: Link, *, patience_seconds: float = PATIENCE_SECONDS) -> http.client.HTTPConnection:
    """Ask likewise; returns the connection, on which the answer is still to come."""
    connection = http.client.HTTPConnection(urlsplit(link.url).netloc, timeout=patience_seconds)
    connection.request("POST", "/production/verifyReceipt", b"{}")
    return connection


def wait_until(condition: Callable[[], bool], network: Network) -> None:
    """Wait for what happens on the network's thread, which tells nobody."""
    deadline = network.now() + PATIENCE_SECONDS
    while not condition():
        assert network.now() < deadline


def requests_of(store: SimulatedAppStore) -> int:
    return sum(store.statistics().requests.values())


def test_what_passes_is_noted(store: SimulatedAppStore, network: Network) -> None:
    assert ask(network.link("a", store.url)) == 200
    (request,) = network.requests
    assert (request.node, request.operation, request.status) == ("a", APPLE, 200)
    assert request.answered_at_seconds is not None
    assert request.came_at_seconds < request.answered_at_seconds


@pytest.mark.parametrize(("way", "before", "after"), [(Way.DROPPED, 0, 0), (Way.HELD, 0, 1), (Way.DEAF, 1, 1)])
def test_nobody_hears_anything(store: SimulatedAppStore, network: Network, way: Way, before: int, after: int) -> None:
    link = network.link("a", store.url)
    link.cut(way)
    with pytest.raises(TimeoutError):
        ask(link, patience_seconds=0.2)
    wait_until(lambda: len(link.kept) + requests_of(store) == 1, network)  # it may come when nobody waits any more
    assert requests_of(store) == before
    link.mend()
    wait_until(lambda: requests_of(store) == after, network)
    assert ask(link) == 200
    assert [request.was_held for request in network.requests] == [way is Way.HELD] * after + [False]


def test_refused_connections_are_closed(store: SimulatedAppStore, network: Network) -> None:
    link = network.link("a", store.url)
    link.cut(Way.REFUSED)
    with pytest.raises(http.client.RemoteDisconnected):
        ask(link)
    assert requests_of(store) == 0


def test_some_requests_are_cut_and_others_pass(store: SimulatedAppStore, network: Network) -> None:
    link, other = network.link("a", store.url), network.link("b", store.url)
    link.cut(Way.REFUSED, lambda request: request.operation != APPLE)
    assert [ask(link), ask(other)] == [200, 200]
    link.cut(Way.REFUSED)
    assert ask(other) == 200


def test_what_nobody_waits_for_is_under_way_until_it_is_answered(network: Network) -> None:
    with SimulatedAppStore(latency_seconds=1.5) as slow:
        with closing(asking(network.link("a", slow.url))):
            wait_until(lambda: len(network.requests) == 1, network)
        (request,) = network.requests
        wait_until(lambda: request.answered_at_seconds is not None, network)
        assert request.answered_at_seconds is not None
        assert request.answered_at_seconds - request.came_at_seconds >= 1.5
