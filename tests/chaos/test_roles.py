"""Nodes that share the work, as real processes, with everything befalling them that befalls machines.

Each scenario runs under load, on SQLite and on an emulator of AWS, and is judged in the end by those who do not trust
the nodes: ``audit`` (nothing lost, nothing OK twice, no genuine purchase INVALID), the versions of the record, and what
the App Store, SQS and DynamoDB have seen (``site_books``). When something is asserted to happen, it is given a minute:
the times are measured elsewhere (``tests.benchmark.takeover``).
"""

from __future__ import annotations

import random
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from receipt_actors.sandbox.app_store import SimulatedAppStore
from receipt_actors.sandbox.load import Kind
from tests.system.ministack import IS_INSTALLED, WHY_NOT, MiniStack
from tests.system.processes import Programs
from tests.system.worlds import EmbeddedWorld

from .namespaces import CAN_HAVE_NAMESPACES, Namespace
from .network import Network, Request, Way
from .nodes import AwsSite, EmbeddedSite, Node, Site, is_about_roles, is_claim, is_dynamodb, is_sqs, is_write
from .records import thrown_out
from .site_books import gaps_between_receives, judge_site
from .traffic import Traffic
from .wall_clock import WallClock

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

needs_ministack = pytest.mark.skipif(not IS_INSTALLED, reason=WHY_NOT)


class Campaign:
    """One trouble after the other on one site, under load."""

    def __init__(self, site: Site, seed: int) -> None:
        self.site = site
        self.traffic = Traffic(site.world, seed, without=WITHOUT)
        self.random = random.Random(seed)
        self.troubles: Counter[str] = Counter()

    def start(self, *processes: int) -> None:
        """Start so many nodes of so many processes each, and wait until they know each other."""
        for number, count in enumerate(processes):
            self.site.start("abcdefgh"[number], count)
        self.wait_until_together(len(processes))

    def wait_until_together(self, count: int) -> None:
        """Wait until so many know each other, and nobody who has ended is among them."""
        self.site.wait_until(lambda: self._are_together(count), "all nodes have joined")

    def suffer(self, *troubles: Callable[[Campaign], object]) -> None:
        """Let each of them happen, and see the work go on after each."""
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
        """Wait until another node is active, and this one is not."""
        self.site.wait_until(
            lambda: self.site.seated and node not in self.site.seated, f"others go on without {node.name}"
        )

    def _start_anew(self) -> None:
        """Start those again that could not start, as whoever runs nodes does: services did not answer in time."""
        for node in self.site.given_up:
            self.start_again(node)

    def _are_together(self, count: int) -> bool:
        self._start_anew()
        newest = self.site.newest()
        return newest is not None and len(newest.members) == count


# --- what befalls a site ---


def kill_a_node(campaign: Campaign) -> None:
    """kill -9 of all its processes; the place is taken by another one before, or after, it is known to be gone."""
    victim = campaign.victim()
    victim.kill()
    if campaign.random.random() < 0.5:
        campaign.wait_for_another(victim)
    campaign.start_again(victim)


def kill_a_parent(campaign: Campaign) -> None:
    """kill -9 of a parent alone: its workers find that out, and drain."""
    victim = campaign.victim(processes=2)
    victim.kill_parent()
    campaign.wait_for_another(victim)
    campaign.start_again(victim)


def pause_a_node(campaign: Campaign) -> None:
    """SIGSTOP for longer than a lease: others take over; then SIGCONT, and it still believes what it knew."""
    victim = campaign.victim()
    campaign.site.pause(victim.pause, victim.resume)
    campaign.wait_for_another(victim)
    campaign.wait_for_progress()
    victim.resume()


def pause_a_parent(campaign: Campaign) -> None:
    """SIGSTOP of a parent alone: nobody tells its workers anything, and they stop when the lease is over."""
    victim = campaign.victim(processes=2)
    campaign.site.pause(victim.pause_parent, victim.resume)
    campaign.wait_for_another(victim)
    campaign.wait_for_progress()
    victim.resume()


def drain_a_node(campaign: Campaign) -> None:
    """SIGTERM: it finishes what it has, and leaves."""
    victim = campaign.victim()
    victim.tell_to_end()
    victim.wait_for_orderly_end()
    campaign.start_again(victim)


def cut_a_node_off_from_roles(campaign: Campaign) -> None:
    """It reaches everything but the table of roles."""
    _cut_one_off(campaign, campaign.random.choice([Way.DROPPED, Way.REFUSED]), is_about_roles)


def cut_a_node_off(campaign: Campaign) -> None:
    """It reaches nothing at all; or what it sends arrives when it is back."""
    _cut_one_off(campaign, campaign.random.choice([Way.DROPPED, Way.HELD, Way.REFUSED]))


def cut_the_active_node_off_from_sqs(campaign: Campaign) -> None:
    """It reaches the roles, the ledger and Apple: it could renew its lease for ever, and not work."""
    has_given_up = False
    while not has_given_up:  # a busy machine may keep it from renewing, and it is taken for gone
        (victim,) = campaign.site.seated
        told = victim.program.stderr.count(STEPS_DOWN)
        victim.cut(campaign.random.choice([Way.DROPPED, Way.REFUSED]), is_sqs)
        campaign.wait_for_another(victim)
        campaign.wait_for_progress()
        has_given_up = victim.program.stderr.count(STEPS_DOWN) > told
        victim.mend()


def let_a_node_hear_nothing(campaign: Campaign) -> None:
    """What it writes is written, and it never hears so: not of its renewals, not of its claims."""
    victim = campaign.victim()
    victim.cut(Way.DEAF, campaign.random.choice([is_dynamodb, is_write]))
    campaign.site.pass_time(campaign.longer_than_a_lease())
    victim.mend()


def cut_all_off_from_dynamodb(campaign: Campaign) -> None:
    """An outage of the table: nobody works, nobody is taken for gone, and all go on when it is over."""
    way = campaign.random.choice([Way.DROPPED, Way.REFUSED, Way.DEAF])
    campaign.site.cut_all(way, is_dynamodb)
    campaign.site.pass_time(campaign.longer_than_a_lease())
    campaign.site.mend_all()


def _cut_one_off(campaign: Campaign, way: Way, covers: Callable[[Request], bool] = lambda request: True) -> None:
    victim = campaign.victim()
    victim.cut(way, covers)
    campaign.wait_for_another(victim)
    campaign.wait_for_progress()
    victim.mend()


# --- the scenarios ---

ON_ONE_FILE = (kill_a_node, pause_a_node, drain_a_node)
IN_A_NETWORK = (cut_a_node_off_from_roles, cut_a_node_off, let_a_node_hear_nothing, cut_all_off_from_dynamodb)


@contextmanager
def embedded_site(programs: Programs, folder: Path, role: str, **settings: object) -> Iterator[EmbeddedSite]:
    world = EmbeddedWorld(programs, folder)
    try:
        with SimulatedAppStore(latency_seconds=0.1, jitter_seconds=0.3) as store, Network() as network:
            yield EmbeddedSite(world, store, network, role, LEASE_SECONDS, **settings)
    finally:
        world.close()


@contextmanager
def aws_site(
    programs: Programs, role: str, lease_seconds: float = LEASE_SECONDS, **settings: object
) -> Iterator[AwsSite]:
    emulator = MiniStack(programs)
    with (
        SimulatedAppStore(latency_seconds=0.1, jitter_seconds=0.3) as store,
        Network(delay_seconds=lambda request: CLAIM_SECONDS if is_claim(request) else 0.0) as network,
    ):
        site = AwsSite(programs, emulator, store, network, role, lease_seconds, **settings)
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
    [(STANDBY, (1, 1, 1)), (BALANCED, (1, 2)), (STANDBY, (2, 2)), (BALANCED, (1,) * 8)],
    ids=lambda value: value if isinstance(value, str) else "x".join(map(str, value)),
)
def test_nodes_on_one_file(
    programs: Programs,
    tmp_path: Path,
    is_full: bool,
    figure: Callable[[str], None],
    role: str,
    processes: tuple[int, ...],
) -> None:
    """kill -9, SIGSTOP and SIGTERM, of nodes, and of parents alone: the work goes on, and no promise is broken."""
    if not is_full and (role, len(processes)) not in ((STANDBY, 3), (BALANCED, 2)):
        pytest.skip("at full size only (--full)")
    with embedded_site(programs, tmp_path, role, ledger_concurrency=max(8, 2 * len(processes))) as site:
        campaign = Campaign(site, seed=len(processes))
        troubles = [*ON_ONE_FILE, *([kill_a_parent, pause_a_parent] if max(processes) > 1 else [])]
        short = [kill_a_node, pause_a_parent if max(processes) > 1 else pause_a_node, kill_a_node]
        run(campaign, processes, drawn(campaign, troubles, 16) if is_full else short, figure)


@needs_ministack
@pytest.mark.parametrize(
    ("role", "processes"),
    [(STANDBY, (1, 1)), (BALANCED, (1, 1, 1)), (STANDBY, (1, 2, 1, 1)), (BALANCED, (2, 1, 1, 2, 1, 1))],
    ids=lambda value: value if isinstance(value, str) else "x".join(map(str, value)),
)
def test_nodes_on_aws(
    programs: Programs, is_full: bool, figure: Callable[[str], None], role: str, processes: tuple[int, ...]
) -> None:
    """And links that are cut, for all or for the table of roles, both ways or one, for a node or for all of them."""
    if not is_full and len(processes) > 3:
        pytest.skip("at full size only (--full)")
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
    """Cut off from SQS alone, the active node steps down, and the other one works; so it goes back, too."""
    with aws_site(programs, STANDBY, STEADY_LEASE_SECONDS) as site:
        campaign = Campaign(site, seed=70 + len(processes))
        run(campaign, processes, [cut_the_active_node_off_from_sqs] * (4 if is_full else 1), figure)


@needs_ministack
@pytest.mark.parametrize("role", [STANDBY, BALANCED])
def test_an_outage_of_the_table(programs: Programs, is_full: bool, figure: Callable[[str], None], role: str) -> None:
    """All are cut off from DynamoDB for longer than a lease: nobody is taken for gone, and all go on afterwards."""
    if not is_full and role == STANDBY:
        pytest.skip("at full size only (--full)")
    with aws_site(programs, role, STEADY_LEASE_SECONDS) as site:
        campaign = Campaign(site, seed=30)
        run(campaign, (1, 1), [cut_all_off_from_dynamodb] * (4 if is_full else 1), figure)


@needs_ministack
@pytest.mark.parametrize("role", [STANDBY, BALANCED])
@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler (cc), which makes clocks wrong")
def test_wall_clocks_that_are_wrong(
    programs: Programs, tmp_path: Path, is_full: bool, figure: Callable[[str], None], role: str
) -> None:
    """Nodes whose clocks are hours apart, and jump: roles do not look at them."""
    if not is_full and role == BALANCED:
        pytest.skip("at full size only (--full)")
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
@pytest.mark.skipif(not CAN_HAVE_NAMESPACES, reason="network namespaces take Linux, root, and ip (Debian: iproute2)")
@pytest.mark.parametrize("role", [STANDBY, BALANCED])
def test_packets_that_are_lost(programs: Programs, is_full: bool, figure: Callable[[str], None], role: str) -> None:
    """A node on a host of its own whose cable is pulled: what was on its way arrives when it is plugged in again."""
    if not is_full:
        pytest.skip("at full size only (--full)")
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
@pytest.mark.parametrize("role", [STANDBY, BALANCED])
def test_a_rolling_restart(programs: Programs, is_full: bool, figure: Callable[[str], None], role: str) -> None:
    """SIGTERM to one node after the other: others go on at once, without waiting for a lease, and nobody is late."""
    if not is_full and role == BALANCED:
        pytest.skip("at full size only (--full)")
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
