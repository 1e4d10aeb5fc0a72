"""The network between nodes and services does what it says, and sees what services see."""

from __future__ import annotations

import http.client
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from urllib.parse import urlsplit

import pytest

from receipt_actors.sandbox.app_store import SimulatedAppStore
from tests.patience import PATIENCE_SECONDS

from .network import APPLE, Cut, Link, Network

pytestmark = pytest.mark.short


@pytest.fixture
def network() -> Iterator[Network]:
    with Network() as network:
        yield network


def ask(link: Link, *, patience_seconds: float = PATIENCE_SECONDS) -> int:
    with closing(asking(link, patience_seconds=patience_seconds)) as connection:
        return connection.getresponse().status


def asking(link: Link, *, patience_seconds: float = PATIENCE_SECONDS) -> http.client.HTTPConnection:
    connection = http.client.HTTPConnection(urlsplit(link.url).netloc, timeout=patience_seconds)
    connection.request("POST", "/production/verifyReceipt", b"{}")
    return connection


def wait_until(condition: Callable[[], bool], network: Network) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline


def requests_of(store: SimulatedAppStore) -> int:
    return sum(store.statistics().requests.values())


def test_what_passes_is_noted(store: SimulatedAppStore, network: Network) -> None:
    assert ask(network.link("a", store.url)) == 200
    (request,) = network.requests
    assert (request.node, request.operation, request.status) == ("a", APPLE, 200)
    assert request.answered_at_seconds is not None
    assert request.came_at_seconds < request.answered_at_seconds


@pytest.mark.parametrize(("way", "before", "after"), [(Cut.DROPPED, 0, 0), (Cut.HELD, 0, 1), (Cut.DEAF, 1, 1)])
def test_nobody_hears_anything(store: SimulatedAppStore, network: Network, way: Cut, before: int, after: int) -> None:
    link = network.link("a", store.url)
    link.cut(way)
    with pytest.raises(TimeoutError):
        ask(link, patience_seconds=0.2)
    wait_until(lambda: len(link.kept) + requests_of(store) == 1, network)  # it may come when nobody waits any more
    assert requests_of(store) == before
    link.mend()
    wait_until(lambda: requests_of(store) == after, network)
    assert ask(link) == 200
    assert [request.was_held for request in network.requests] == [way is Cut.HELD] * after + [False]


def test_refused_connections_are_closed(store: SimulatedAppStore, network: Network) -> None:
    link = network.link("a", store.url)
    link.cut(Cut.REFUSED)
    with pytest.raises(http.client.RemoteDisconnected):
        ask(link)
    assert requests_of(store) == 0


def test_some_requests_are_cut_and_others_pass(store: SimulatedAppStore, network: Network) -> None:
    link, other = network.link("a", store.url), network.link("b", store.url)
    link.cut(Cut.REFUSED, lambda request: request.operation != APPLE)
    assert [ask(link), ask(other)] == [200, 200]
    link.cut(Cut.REFUSED)
    assert ask(other) == 200


def test_what_nobody_waits_for_is_under_way_until_it_is_answered(network: Network) -> None:
    with SimulatedAppStore(latency_seconds=1.5) as slow:
        with closing(asking(network.link("a", slow.url))):
            wait_until(lambda: len(network.requests) == 1, network)
        (request,) = network.requests
        wait_until(lambda: request.answered_at_seconds is not None, network)
        assert request.answered_at_seconds is not None
        assert request.answered_at_seconds - request.came_at_seconds >= 1.5
