"""Judging a site: the audit, the record, and what the services saw, against what nodes promise to each other.

What is asserted, where a node's tenure is any time at which the record gives it a share:

* nobody is taken for gone before the lease is over that its last sign has given it, nor before a lease has passed since
  an outage in which none of them could see another;
* what nodes in their tenure have under way at once, at the ledger and at the App Store, is never more than the whole;
* nobody begins anything out of its tenure (no receive, no question to Apple, no claim). The exception is who was
  stopped, cut off, or starved for longer than a lease: what it was about to send in that very moment, and what was
  under way on a connection that is closed when the network is back, which HTTP clients send once more by themselves.
  Of these there are no more than can be under way at once, and of receives one of each consumer.

In a window of ``WINDOW_SECONDS`` Apple is never asked more often than the rate allows, and a tenth of a second of it
more for whoever had a share before and for whoever has it now; and as many as can be under way, which may have waited
on their way; and what came while the network itself was late.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from itertools import pairwise

from receipt_actors.domain.sending import BURST_SECONDS
from tests.system.worlds import SOURCE

from .network import Request, most_in, under_way
from .nodes import APP_STORE_CONCURRENCY, APP_STORE_RATE, CONSUMERS, Site, is_apple, is_claim, is_receive
from .records import Version, faults_of, out_of_tenure, overlap_seconds, tenures, thrown_out, thrown_out_too_soon
from .traffic import Traffic

WINDOW_SECONDS = 5.0
RECEIVE_SECONDS = 1.0  #: a long poll
SLACK_SECONDS = 10.0  #: for a busy machine to answer a long poll


def judge_site(site: Site, traffic: Traffic, troubles: Counter[str], figure: Callable[[str], None]) -> None:
    """Let the nodes finish all that was sent, have them end, and judge."""
    site.wait_until(lambda: site.world.total(SOURCE) == 0, "all is finished")
    at_work = site.running
    for node in at_work:
        node.tell_to_end()
    for node in at_work:
        node.wait_for_orderly_end()
    crashed = [node.program.stderr[-3000:] for node in site.nodes if "Traceback" in node.program.stderr]
    assert crashed == [], "an actor crashed, which nothing that befalls a node may bring about"
    report = traffic.audit()
    assert report.faults == ()
    _judge_versions(site, figure)
    _judge_requests(site, figure)
    figure(", ".join(f"{count} x {trouble}" for trouble, count in troubles.items()) or "no trouble")
    figure(str(report))


def _judge_versions(site: Site, figure: Callable[[str], None]) -> None:
    versions = site.versions()
    most_seats = 1 if site.role == "active-standby" else None
    assert faults_of(versions, site.whole, most_seats) == []
    out = thrown_out(versions, site.was_alive)
    assert thrown_out_too_soon(versions, out, site.lease_seconds, site.reachable_again_at) == []
    figure(f"{len(versions)} versions, of which none lent more than the whole; {_seats_given(versions)} seats given")


def _judge_requests(site: Site, figure: Callable[[str], None]) -> None:
    versions = site.versions()
    for what, kind, most in (
        ("requests to the ledger at once", is_claim, site.whole["ledger_concurrency"]),
        ("requests to Apple at once", is_apple, APP_STORE_CONCURRENCY),
    ):
        requests = [request for request in site.requests(kind) if not request.was_held]
        strays = _judge_strays(site, versions, requests, lambda node, most=most: most)
        in_tenure = _in_tenure(versions, requests)
        at_once = max((count for _, count in under_way(in_tenure)), default=0)
        of_all = max((count for _, count in under_way(requests)), default=0)
        assert at_once <= most, f"{what}: {at_once}"
        assert of_all <= 2 * most, f"{what}: {of_all}"
        if requests:
            figure(
                f"{what}: {at_once} of {most:g}; {of_all} with those of nodes that had lost their share; {strays} late"
            )
    receives = [request for request in site.requests(is_receive) if not request.was_held]
    strays = _judge_strays(site, versions, receives, lambda node: CONSUMERS * site.processes_of(node))
    if receives:
        seconds = overlap_seconds(versions, receives)
        figure(f"receives: {strays} late; at most {seconds:.2f} s of one after the share was lost")
        assert seconds <= RECEIVE_SECONDS + SLACK_SECONDS
    asked = [request for request in site.requests(is_apple) if not request.was_held]
    most_asked = most_in(asked, WINDOW_SECONDS)
    late_seconds = site.network.latest_seconds
    allowed = APP_STORE_RATE * (WINDOW_SECONDS + 2 * BURST_SECONDS + late_seconds) + APP_STORE_CONCURRENCY
    allowed += len(out_of_tenure(versions, asked))
    assert most_asked <= allowed
    figure(f"at most {most_asked} requests to Apple in {WINDOW_SECONDS:g} s, of {APP_STORE_RATE * WINDOW_SECONDS:g}")


def gaps_between_receives(site: Site) -> list[float]:
    """List, the longest first, for how long no receive of anybody's was under way, from the first to the last one."""
    changes = under_way(site.requests(is_receive))
    gaps = [later - earlier for (earlier, count), (later, _) in pairwise(changes) if count == 0]
    return sorted(gaps, reverse=True) or [0.0]


def _judge_strays(
    site: Site, versions: Sequence[Version], requests: Sequence[Request], most: Callable[[str], float]
) -> int:
    """Count what was begun out of tenure; see that only those did so who were disturbed, and little each time."""
    strays = out_of_tenure(versions, requests)
    of_all = tenures(versions)
    out_at = thrown_out(versions, site.was_alive)
    after: Counter[tuple[str, float]] = Counter()  # the end of which tenure
    for stray in strays:
        ends = [end for _, end in of_all.get(stray.node, ()) if end < stray.came_at_seconds]
        assert ends, f"{stray.node} had no share yet: {stray}"
        after[stray.node, max(ends)] += 1
    for (name, end), count in after.items():
        assert (end, name) in out_at, f"{name} did {count} things after it had left its share itself"
        assert count <= most(name), f"{name} did {count} things after it had lost its share, expected {most(name)}"
    return len(strays)


def _in_tenure(versions: Sequence[Version], requests: Sequence[Request]) -> list[Request]:
    """Return requests that were begun in tenure, as long as that lasted."""
    of_all = tenures(versions)
    found = []
    for request in requests:
        for begin, end in of_all.get(request.node, ()):
            if begin <= request.came_at_seconds < end:
                answered_at = request.answered_at_seconds or request.came_at_seconds
                found.append(
                    Request(
                        request.node,
                        request.operation,
                        request.target,
                        request.came_at_seconds,
                        answered_at_seconds=min(answered_at, end),
                    )
                )
    return found


def _seats_given(versions: Sequence[Version]) -> int:
    return len({(name, token) for version in versions for name, token in version.seats.items()})
