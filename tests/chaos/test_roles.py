"""Nodes that share the work, as real processes, with everything befalling them that befalls machines.

Each scenario runs under load, and is judged by those who do not trust the nodes: ``audit``, the versions of the record,
and what the App Store, SQS and DynamoDB have seen. How long things take is measured by ``tests.benchmark.takeover``.
"""

from __future__ import annotations

import mmap
import os
import random
import struct
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path

import pytest

from receipt_actors.domain.sending import BURST_SECONDS
from receipt_actors.sandbox.app_store import SimulatedAppStore
from receipt_actors.sandbox.load import Kind
from tests.system.ministack import IS_INSTALLED, WHY_NOT, MiniStack
from tests.system.processes import ROOT, Programs
from tests.system.worlds import SOURCE, EmbeddedWorld

from .namespaces import CAN_HAVE_NAMESPACES, Namespace
from .network import Cut, Network, Request, most_in, under_way
from .nodes import (
    APP_STORE_CONCURRENCY,
    APP_STORE_RATE,
    CONSUMERS,
    AwsSite,
    EmbeddedSite,
    Node,
    Site,
    is_about_roles,
    is_apple,
    is_claim,
    is_dynamodb,
    is_receive,
    is_sqs,
    is_write,
)
from .records import Version, faults_of, out_of_tenure, overlap_seconds, tenures, thrown_out, thrown_out_too_soon
from .traffic import Traffic

WINDOW_SECONDS = 5.0
RECEIVE_SECONDS = 1.0  #: a long poll
SLACK_SECONDS = 10.0  #: for a busy machine to answer a long poll


# Where a node's tenure is any time at which the record gives it a share:
#
# - no node is taken for gone before the lease is over that its last sign has given it, nor before a lease has passed
#   since an outage in which none of them could see another;
# - what nodes in their tenure have under way at once is never more than the whole;
# - no node begins anything out of its tenure. The exception is a node that was stopped, cut off, or starved for longer
#   than a lease: what it was about to send, and what HTTP clients send once more on a connection that was closed. Of
#   these there are no more than can be under way at once, and of receives one of each consumer.
#
# In ``WINDOW_SECONDS`` Apple is asked no more than the rate allows, plus a burst of the node that had a share before
# and of the one that has it now, what may have waited on its way, and what came while the network itself was late.
def judge_site(site: Site, traffic: Traffic, troubles: Counter[str], figure: Callable[[str], None]) -> None:
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
    of_all = tenures(versions)
    found = []
    for request in requests:
        for begin, end in of_all.get(request.node, ()):
            if begin <= request.came_at_seconds < end:
                answered_at = request.answered_at_seconds or request.came_at_seconds
                found.append(replace(request, answered_at_seconds=min(answered_at, end)))
    return found


def _seats_given(versions: Sequence[Version]) -> int:
    return len({(name, token) for version in versions for name, token in version.seats.items()})


_WRONG_CLOCK = """
import mmap, os, struct, time

ahead, right = mmap.mmap(os.open({file!r}, os.O_RDONLY), 8, prot=mmap.PROT_READ), time.time
time.time = lambda: right() + struct.unpack("q", ahead)[0]
"""


class WallClock:
    """The wall clock of a node's Python, which a ``sitecustomize`` sets; the monotonic clock is left alone."""

    def __init__(self, folder: Path, name: str) -> None:
        self.name = name
        (folder / name).mkdir()
        file = folder / name / "ahead"
        file.write_bytes(struct.pack("q", 0))
        (folder / name / "sitecustomize.py").write_text(_WRONG_CLOCK.format(file=str(file)), encoding="utf-8")
        self.environment: Mapping[str, str] = {"PYTHONPATH": f"{folder / name}{os.pathsep}{ROOT}"}
        with file.open("r+b") as opened:
            self._memory = mmap.mmap(opened.fileno(), 8)

    def set_ahead(self, seconds: float) -> None:
        self._memory[:] = struct.pack("q", round(seconds))


STANDBY, BALANCED = "active-standby", "load-balanced"
LEASE_SECONDS = 2.0
STEADY_LEASE_SECONDS = 5.0  #: where nobody is to be taken for gone: a busy machine seldom starves anybody for so long
LONG_LEASE_SECONDS = 10.0  #: where nobody may wait for the end of one
BACKLOG = 60
PROGRESS = 20  #: messages that are finished after each trouble
WITHOUT = (Kind.MALFORMED, Kind.TEMPORARY_FAILURE)  #: they are tried for seconds, and come back after longer
GAP_SECONDS = LONG_LEASE_SECONDS  #: without a receive while nodes are restarted; a fifth of it on a quiet machine
COULD_NOT_LEAVE = "the others wait for its lease to end"  #: in the log, where the table did not answer in time
STEPS_DOWN = "steps down"  #: in the log of a node
CLAIM_SECONDS = 0.1  #: for one claim, so that several are under way

full = partial(pytest.param, marks=pytest.mark.full)
needs_ministack = pytest.mark.skipif(not IS_INSTALLED, reason=WHY_NOT)


class Campaign:
    def __init__(self, site: Site, seed: int) -> None:
        self.site = site
        self.traffic = Traffic(site.world, seed, without=WITHOUT)
        self.random = random.Random(seed)
        self.troubles: Counter[str] = Counter()

    def start(self, *processes: int) -> None:
        for number, count in enumerate(processes):
            self.site.start("abcdefgh"[number], count)
        self.wait_until_together(len(processes))

    def wait_until_together(self, count: int) -> None:
        def are_together() -> bool:
            for node in self.site.given_up:  # services did not answer in time; whoever runs nodes starts them again
                self.start_again(node)
            newest = self.site.newest()
            return newest is not None and len(newest.members) == count

        self.site.wait_until(are_together, "all nodes have joined")

    def suffer(self, *troubles: Callable[[Campaign], object]) -> None:
        for trouble in troubles:
            trouble(self)
            self.troubles[trouble.__name__.replace("_", " ")] += 1
            self.wait_for_progress()

    def wait_for_progress(self) -> None:
        finished = self.traffic.finished()
        self.site.wait_until(lambda: self.traffic.finished() >= finished + PROGRESS, "the work goes on")

    def victim(self, *, processes: int = 1) -> Node:
        """Choose a running node of so many processes or more; where only one works, that one is meant mostly."""
        seated = [node for node in self.site.seated if self.site.processes_of(node.name) >= processes]
        others = [node for node in self.site.running if self.site.processes_of(node.name) >= processes]
        return self.random.choice(seated if seated and self.random.random() < 0.8 else others)

    def start_again(self, node: Node) -> Node:
        name = node.name.rpartition(".")[0]
        return self.site.start(name, self.site.processes_of(node.name))

    def longer_than_a_lease(self) -> float:
        return self.site.lease_seconds * self.random.uniform(1.2, 2.5)

    def wait_for_another(self, node: Node) -> None:
        self.site.wait_until(
            lambda: self.site.seated and node not in self.site.seated, f"others go on without {node.name}"
        )


# --- what befalls a site ---


def kill_a_node(campaign: Campaign) -> None:
    """kill -9 of all its processes; the place is taken by another one before, or after, it is known to be gone."""
    victim = campaign.victim()
    victim.kill()
    if campaign.random.random() < 0.5:
        campaign.wait_for_another(victim)
    campaign.start_again(victim)


def kill_a_parent(campaign: Campaign) -> None:
    victim = campaign.victim(processes=2)
    victim.kill_parent()
    campaign.wait_for_another(victim)
    campaign.start_again(victim)


def pause_a_node(campaign: Campaign) -> None:
    """SIGSTOP for longer than a lease: others take over; then SIGCONT, and it still believes what it knew."""
    victim = campaign.victim()
    _pause(campaign, victim, victim.program.pause)


def pause_a_parent(campaign: Campaign) -> None:
    """SIGSTOP of a parent alone: nobody tells its workers anything, and they stop when the lease is over."""
    victim = campaign.victim(processes=2)
    _pause(campaign, victim, victim.pause_parent)


def _pause(campaign: Campaign, victim: Node, pause: Callable[[], None]) -> None:
    campaign.site.pause(pause, victim.program.resume)
    campaign.wait_for_another(victim)
    campaign.wait_for_progress()
    victim.program.resume()


def drain_a_node(campaign: Campaign) -> None:
    victim = campaign.victim()
    victim.tell_to_end()
    victim.wait_for_orderly_end()
    campaign.start_again(victim)


def cut_a_node_off_from_roles(campaign: Campaign) -> None:
    _cut_one_off(campaign, campaign.random.choice([Cut.DROPPED, Cut.REFUSED]), is_about_roles)


def cut_a_node_off(campaign: Campaign) -> None:
    _cut_one_off(campaign, campaign.random.choice([Cut.DROPPED, Cut.HELD, Cut.REFUSED]))


def cut_the_active_node_off_from_sqs(campaign: Campaign) -> None:
    """It reaches the roles, the ledger and Apple: it could renew its lease for ever, and not work."""
    has_given_up = False
    while not has_given_up:  # a busy machine may keep it from renewing, and it is taken for gone
        (victim,) = campaign.site.seated
        told = victim.program.stderr.count(STEPS_DOWN)
        victim.cut(campaign.random.choice([Cut.DROPPED, Cut.REFUSED]), is_sqs)
        campaign.wait_for_another(victim)
        campaign.wait_for_progress()
        has_given_up = victim.program.stderr.count(STEPS_DOWN) > told
        victim.mend()


def let_a_node_hear_nothing(campaign: Campaign) -> None:
    """What it writes is written, and it never hears so: not of its renewals, not of its claims."""
    victim = campaign.victim()
    victim.cut(Cut.DEAF, campaign.random.choice([is_dynamodb, is_write]))
    campaign.site.pass_time(campaign.longer_than_a_lease())
    victim.mend()


def cut_all_off_from_dynamodb(campaign: Campaign) -> None:
    """An outage of the table: nobody works, nobody is taken for gone, and all go on when it is over."""
    way = campaign.random.choice([Cut.DROPPED, Cut.REFUSED, Cut.DEAF])
    campaign.site.cut_all(way, is_dynamodb)
    campaign.site.pass_time(campaign.longer_than_a_lease())
    campaign.site.mend_all()


def _cut_one_off(campaign: Campaign, way: Cut, covers: Callable[[Request], bool] = lambda request: True) -> None:
    victim = campaign.victim()
    victim.cut(way, covers)
    campaign.wait_for_another(victim)
    campaign.wait_for_progress()
    victim.mend()


# --- the scenarios ---

ON_ONE_FILE = (kill_a_node, pause_a_node, drain_a_node)
IN_A_NETWORK = (cut_a_node_off_from_roles, cut_a_node_off, let_a_node_hear_nothing, cut_all_off_from_dynamodb)


@contextmanager
def embedded_site(world: EmbeddedWorld, role: str, **settings: object) -> Iterator[EmbeddedSite]:
    with SimulatedAppStore(latency_seconds=0.1, jitter_seconds=0.3) as store, Network() as network:
        yield EmbeddedSite(world, store, network, role=role, lease_seconds=LEASE_SECONDS, **settings)


@contextmanager
def aws_site(
    programs: Programs, role: str, lease_seconds: float = LEASE_SECONDS, **settings: object
) -> Iterator[AwsSite]:
    emulator = MiniStack(programs)
    with (
        SimulatedAppStore(latency_seconds=0.1, jitter_seconds=0.3) as store,
        Network(delay_seconds=lambda request: CLAIM_SECONDS if is_claim(request) else 0.0) as network,
    ):
        site = AwsSite(programs, emulator, store, network, role=role, lease_seconds=lease_seconds, **settings)
        try:
            yield site
        finally:
            site.close()


def run(
    campaign: Campaign,
    processes: Sequence[int],
    troubles: Sequence[Callable[[Campaign], object]],
    figure: Callable[[str], None],
) -> None:
    with campaign.traffic.flowing(BACKLOG):
        campaign.start(*processes)
        campaign.wait_for_progress()
        campaign.suffer(*troubles)
    judge_site(campaign.site, campaign.traffic, campaign.troubles, figure)


def drawn(
    campaign: Campaign, troubles: Sequence[Callable[[Campaign], object]], count: int
) -> list[Callable[[Campaign], object]]:
    """Have each of them in turn, in an order drawn anew each time, until there are so many."""
    chosen: list[Callable[[Campaign], object]] = []
    while len(chosen) < count:
        chosen += campaign.random.sample(list(troubles), len(troubles))
    return chosen[:count]


@pytest.mark.short("load-balanced-1x2")
@pytest.mark.parametrize(
    ("role", "processes"),
    [(STANDBY, (1, 1, 1)), (BALANCED, (1, 2)), full(STANDBY, (2, 2)), full(BALANCED, (1,) * 8)],
    ids=lambda value: value if isinstance(value, str) else "x".join(map(str, value)),
)
def test_nodes_on_one_file(
    embedded: EmbeddedWorld, is_full: bool, figure: Callable[[str], None], role: str, processes: tuple[int, ...]
) -> None:
    with embedded_site(embedded, role, ledger_concurrency=max(8, 2 * len(processes))) as site:
        campaign = Campaign(site, seed=len(processes))
        troubles = [*ON_ONE_FILE, *([kill_a_parent, pause_a_parent] if max(processes) > 1 else [])]
        short = [kill_a_node, pause_a_parent if max(processes) > 1 else pause_a_node, kill_a_node]
        run(campaign, processes, drawn(campaign, troubles, 16) if is_full else short, figure)


@needs_ministack
@pytest.mark.parametrize(
    ("role", "processes"),
    [(STANDBY, (1, 1)), (BALANCED, (1, 1, 1)), full(STANDBY, (1, 2, 1, 1)), full(BALANCED, (2, 1, 1, 2, 1, 1))],
    ids=lambda value: value if isinstance(value, str) else "x".join(map(str, value)),
)
def test_nodes_on_aws(
    programs: Programs, is_full: bool, figure: Callable[[str], None], role: str, processes: tuple[int, ...]
) -> None:
    with aws_site(programs, role, ledger_concurrency=max(8, 2 * len(processes))) as site:
        campaign = Campaign(site, seed=10 + len(processes))
        troubles = [*ON_ONE_FILE, *IN_A_NETWORK, *([kill_a_parent, pause_a_parent] if max(processes) > 1 else [])]
        short = [cut_a_node_off_from_roles, kill_a_node] if role == STANDBY else [pause_a_node, let_a_node_hear_nothing]
        run(campaign, processes, drawn(campaign, troubles, 18) if is_full else short, figure)


@needs_ministack
@pytest.mark.parametrize("processes", [(1, 1), (2, 2)], ids=lambda value: "x".join(map(str, value)))
def test_a_node_that_cannot_reach_its_queue(
    programs: Programs, is_full: bool, figure: Callable[[str], None], processes: tuple[int, ...]
) -> None:
    with aws_site(programs, STANDBY, STEADY_LEASE_SECONDS) as site:
        campaign = Campaign(site, seed=70 + len(processes))
        run(campaign, processes, [cut_the_active_node_off_from_sqs] * (4 if is_full else 1), figure)


@needs_ministack
@pytest.mark.parametrize("role", [full(STANDBY), BALANCED])
def test_an_outage_of_the_table(programs: Programs, is_full: bool, figure: Callable[[str], None], role: str) -> None:
    with aws_site(programs, role, STEADY_LEASE_SECONDS) as site:
        campaign = Campaign(site, seed=30)
        run(campaign, (1, 1), [cut_all_off_from_dynamodb] * (4 if is_full else 1), figure)


@needs_ministack
@pytest.mark.parametrize("role", [STANDBY, full(BALANCED)])
def test_wall_clocks_that_are_wrong(
    programs: Programs, tmp_path: Path, is_full: bool, figure: Callable[[str], None], role: str
) -> None:
    with aws_site(programs, role) as site:
        campaign = Campaign(site, seed=40)
        clocks = [WallClock(tmp_path, name) for name in "abc"]

        def have_clocks_jump(campaign: Campaign) -> None:
            for clock in clocks:
                clock.set_ahead(campaign.random.uniform(-6, 6) * 3600)

        for clock in clocks:
            site.environments[clock.name] = clock.environment
        have_clocks_jump(campaign)
        short = [have_clocks_jump, kill_a_node, have_clocks_jump]
        many = [have_clocks_jump, kill_a_node, have_clocks_jump, pause_a_node, have_clocks_jump, cut_a_node_off] * 2
        run(campaign, (1, 1, 1) if is_full else (1, 1), many if is_full else short, figure)


@needs_ministack
@pytest.mark.full
@pytest.mark.skipif(not CAN_HAVE_NAMESPACES, reason="network namespaces take Linux, root, and ip (Debian: iproute2)")
@pytest.mark.parametrize("role", [STANDBY, BALANCED])
def test_packets_that_are_lost(programs: Programs, figure: Callable[[str], None], role: str) -> None:
    with Namespace("one") as one, Namespace("two") as two, aws_site(programs, role) as site:
        site.namespaces = {"a": one, "b": two}
        campaign = Campaign(site, seed=60)

        def pull_the_cable(campaign: Campaign) -> None:
            victim = campaign.victim()
            namespace = site.namespaces[victim.name.rpartition(".")[0]]
            namespace.unplug()
            campaign.wait_for_another(victim)
            campaign.wait_for_progress()
            namespace.plug_in()

        run(campaign, (1, 1), [pull_the_cable] * 4, figure)


@needs_ministack
@pytest.mark.parametrize("role", [STANDBY, full(BALANCED)])
def test_a_rolling_restart(programs: Programs, is_full: bool, figure: Callable[[str], None], role: str) -> None:
    with aws_site(programs, role, LONG_LEASE_SECONDS) as site:
        campaign = Campaign(site, seed=50)

        def restart_all(campaign: Campaign) -> None:
            for node in list(site.running):
                node.tell_to_end()
                node.wait_for_orderly_end()
                newest = site.newest()
                assert newest is not None
                assert node.name not in newest.members or COULD_NOT_LEAVE in node.program.stderr
                campaign.start_again(node)
                campaign.wait_until_together(3 if is_full else 2)
                campaign.wait_for_progress()

        run(campaign, (1, 1, 2) if is_full else (1, 1), [restart_all] * (3 if is_full else 1), figure)
        gaps = gaps_between_receives(site)
        figure(f"the longest times without a receive under way: {', '.join(f'{gap:.2f} s' for gap in gaps[:3])}")
        if is_full:  # among other tests the machine may have nothing left for anybody
            assert thrown_out(site.versions(), site.was_alive) == []
            assert gaps[0] < GAP_SECONDS
