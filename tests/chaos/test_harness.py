"""The harness of nodes: the network does what it says, and those who judge nodes find what is wrong with them."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from urllib.parse import urlsplit

import pytest

from receipt_actors.sandbox.app_store import SimulatedAppStore
from tests.patience import PATIENCE_SECONDS

from .network import APPLE, Cut, Link, Network, Request, most_in, under_way
from .records import Version, faults_of, out_of_tenure, overlap_seconds, tenures, thrown_out, thrown_out_too_soon

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


def test_refused_connections_are_closed_for_what_the_cut_covers(store: SimulatedAppStore, network: Network) -> None:
    link, other = network.link("a", store.url), network.link("b", store.url)
    link.cut(Cut.REFUSED, lambda request: request.operation != APPLE)
    assert [ask(link), ask(other)] == [200, 200]
    before = requests_of(store)
    link.cut(Cut.REFUSED)
    with pytest.raises(http.client.RemoteDisconnected):
        ask(link)
    assert requests_of(store) == before


def test_what_nobody_waits_for_is_under_way_until_it_is_answered(network: Network) -> None:
    with SimulatedAppStore(latency_seconds=1.5) as slow:
        with closing(asking(network.link("a", slow.url))):
            wait_until(lambda: len(network.requests) == 1, network)
        (request,) = network.requests
        wait_until(lambda: request.answered_at_seconds is not None, network)
        assert request.answered_at_seconds is not None
        assert request.answered_at_seconds - request.came_at_seconds >= 1.5


WHOLE = {"ledger_concurrency": 8.0}


def version(number: int, **members: tuple[int | None, int]) -> Version:
    """Write version ``number`` at that second: tokens, and what is held of the ledger's limit (0: no share)."""
    written = [
        {
            "name": f"{name}-0f",
            "beat": number,
            "token": token,
            "share": [1, [9, held, 9, None], [9, held, 9, None]] if held else None,
        }
        for name, (token, held) in members.items()
    ]
    return Version.read(number, json.dumps({"members": written}), float(number))


def request(node: str, came_at: float, answered_at: float) -> Request:
    return Request(node, "PutItem", "T", came_at, answered_at_seconds=answered_at)


def test_what_is_wrong_with_a_history_is_found() -> None:
    sound = [version(1, a=(1, 8)), version(2, a=(1, 8), b=(None, 0)), version(3, b=(3, 8))]
    assert faults_of(sound, WHOLE, most_seats=1) == []
    (more,) = faults_of([version(1, a=(1, 8)), version(2, a=(1, 8), b=(2, 1))], WHOLE)
    assert more == "version 2: 9 of ledger_concurrency are held, not 8"
    (twice,) = faults_of([version(1, a=(1, 8)), version(2, a=(1, 8)), version(2, a=(1, 8))], WHOLE)
    assert "[2]" in twice
    two, old = faults_of([version(1, a=(1, 4)), version(2, a=(1, 4), b=(1, 4))], WHOLE, most_seats=1)
    assert "2 have a seat: ['a', 'b']" in two
    assert "b has token 1, not 2" in old


def test_what_is_begun_without_a_share_is_found() -> None:
    history = [version(1, a=(1, 8)), version(3, b=(3, 8)), version(5, a=(5, 8))]
    assert tenures(history)["a"][0] == (1.0, 3.0)
    requests = [request("a", 2.0, 3.5), request("a", 3.2, 3.4), request("b", 2.9, 3.0), request("a", 5.5, 6.0)]
    assert out_of_tenure(history, requests) == [requests[1], requests[2]]
    assert overlap_seconds(history, requests) == 0.5


def test_who_was_thrown_out_alive_or_before_its_time_is_found() -> None:
    history = [version(1, a=(1, 4), b=(None, 0), c=(None, 0)), version(2, b=(2, 4))]
    assert thrown_out(history, lambda name, _: name == "c") == [(2.0, "c")]
    history = [version(1, a=(1, 4)), version(2, a=(1, 4)), version(4, b=(4, 4))]
    out = thrown_out(history, lambda *_: True)
    assert thrown_out_too_soon(history, out, 2.0) == []
    assert thrown_out_too_soon(history, out, 2.1) == ["a was taken for gone 2.00 s after its last sign"]
    (fault,) = thrown_out_too_soon(history, out, 2.0, [3.0, 5.0])
    assert fault == "a was taken for gone 1.00 s after its last sign"


def test_requests_are_counted_as_services_see_them() -> None:
    requests = [request("a", 1.0, 2.0), request("b", 2.0, 3.0), request("c", 2.5, 9.0)]
    assert max(count for _, count in under_way(requests)) == 2
    assert most_in(requests, 1.0) == 2
    assert most_in(requests, 2.0) == 3
