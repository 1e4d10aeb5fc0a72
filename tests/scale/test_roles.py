"""Roles: which nodes are active, with which share, when they step down, and what the record looks like."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from math import inf
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from receipt_actors.domain.limits import Limits
from receipt_actors.domain.ports import RoleRecord
from receipt_actors.domain.roles import (
    LEAP,
    LONGEST_LEASE_SECONDS,
    LONGEST_STEP_DOWN_SECONDS,
    Group,
    Lease,
    Node,
    Role,
    StepDown,
    Work,
    group_in,
    record_of,
)

SECONDS = 10.0
LIMITS = Limits(100, 50, 200, 10.0)
NOBODY = Group()
STEP_DOWN_SECONDS = 12.0


def node(name: str, role: Role = Role.LOAD_BALANCED, limits: Limits = LIMITS, processes: int = 1) -> Node:
    return Node(name, role, limits, processes, shares_app_store_concurrency=True)


def group_of(*nodes: Node, group: Group = NOBODY) -> Group:
    """A group at rest: all have joined, and confirmed what they gave back."""
    for _ in range(2):
        for each in nodes:
            me = group.members.get(each.name)
            obeyed = None if me is None or me.share is None else me.share.number
            group = group.renewed(each, group.version + 1, SECONDS, obeyed=obeyed)
    return group


def told(group: Group) -> dict[str, Limits | None]:
    return {name: None if it.share is None else it.share.told for name, it in group.members.items()}


def active(group: Group) -> list[str]:
    return [name for name, member in group.members.items() if member.token is not None]


def test_nodes_share_evenly_what_they_have_confirmed_to_have_given_back() -> None:
    group = Group().renewed(node("a"), 1, SECONDS).renewed(node("b"), 1, SECONDS)
    half = Limits(100, 25, 100, 5.0)
    assert told(group) == {"a": half, "b": None}
    share = group.members["a"].share
    assert share is not None
    assert share.held == LIMITS
    group = group.renewed(node("a"), 2, SECONDS, obeyed=share.number - 1)
    assert told(group) == {"a": half, "b": None}
    group = group.renewed(node("a"), 3, SECONDS, obeyed=share.number)
    assert told(group) == {"a": half, "b": half}
    assert group.whole == Limits(200, 50, 200, 10.0)


def test_each_node_brings_its_own_memory_and_its_own_connections() -> None:
    large = Node("large", Role.LOAD_BALANCED, Limits(4_000, 50, 800))
    small = Node("small", Role.LOAD_BALANCED, Limits(10, 50, 20))
    group = group_of(large, small)
    assert told(group) == {"large": Limits(4_000, 25, 800), "small": Limits(10, 25, 20)}
    assert group.whole == Limits(4_010, 50, 820)


def test_the_least_that_any_node_says_is_the_whole() -> None:
    group = group_of(node("a", limits=Limits(9, 40, 60)), node("b", limits=Limits(9, 20, 90, 7.0)))
    assert group.whole == Limits(18, 20, 60, 7.0)
    assert told(group) == dict.fromkeys("ab", Limits(9, 10, 30, 3.5))


def test_a_single_one_that_wants_others_to_stand_by_is_enough() -> None:
    group = group_of(node("a"), node("b"))
    group = group.renewed(node("c", Role.ACTIVE_STANDBY), 1, SECONDS)
    assert active(group) == ["a"]
    share = group.members["b"].share
    assert share is not None
    assert (share.told, share.held) == (LIMITS.nothing, Limits(100, 25, 100, 5.0))
    group = group.renewed(node("b"), 9, SECONDS, obeyed=share.number)
    assert told(group) == {"a": LIMITS, "b": None, "c": None}


@pytest.mark.parametrize(("ledger_concurrency", "processes", "count"), [(3, 1, 3), (3, 2, 1), (4, 2, 2), (1, 4, 1)])
def test_as_many_are_active_as_can_have_a_part(ledger_concurrency: int, processes: int, count: int) -> None:
    few = replace(LIMITS, ledger_concurrency=ledger_concurrency)
    group = group_of(*(node(name, limits=few, processes=processes) for name in "abcd"))
    assert active(group) == list("abcd")[:count]


def test_one_that_steps_down_goes_to_the_end_of_the_line_and_the_next_one_is_active() -> None:
    nodes = [node(name, Role.ACTIVE_STANDBY) for name in "cab"]
    group = group_of(*nodes)
    group = group.renewed(nodes[0], 9, SECONDS, steps_down=True)
    assert {name: member.token for name, member in group.members.items()} == {"a": group.version, "b": None, "c": None}
    assert [member.joined for member in group.members.values()] == sorted(it.joined for it in group.members.values())
    share = group.members["c"].share
    assert share is not None
    assert (share.told, share.held, told(group)["a"]) == (LIMITS.nothing, LIMITS, None)
    group = group.renewed(nodes[0], 10, SECONDS, obeyed=share.number)
    assert told(group) == {"a": LIMITS, "b": None, "c": None}


class Keeper:
    """A node's side, and the record, with every call answered at once."""

    def __init__(self, name: str = "a", role: Role = Role.ACTIVE_STANDBY) -> None:
        self.lease = Lease(node(name, role), SECONDS)

    def renew(self, group: Group, now: float) -> Group:
        self.lease, written = self.lease.looked(group, now).renewal(now)
        self.lease = self.lease.looked(written, now)
        return written


def test_the_first_in_line_is_who_follows() -> None:
    keeper, first, second = Keeper("a"), node("b", Role.ACTIVE_STANDBY), node("c", Role.ACTIVE_STANDBY)
    group = keeper.renew(Group(), 0.0)
    assert keeper.lease.successor(0.0) is None
    group = keeper.renew(group_of(first, second, group=group), 2.0)
    assert keeper.lease.successor(2.0) == "b"
    for now in (4.0, 6.0, 8.0):
        group = keeper.renew(group.renewed(second, 100 + round(now), SECONDS), now)
    assert keeper.lease.successor(7.0) == "b"
    assert keeper.lease.successor(7.1) is None  # not c, which would not be the next
    group = keeper.renew(group, 10.0)
    group = keeper.renew(group.renewed(second, 200, SECONDS), 12.5)  # b is out of the group
    assert keeper.lease.successor(12.5) == "c"
    assert keeper.lease.successor(22.5) is None  # nothing is lent any more
    keeper.lease, group = keeper.lease.renewal(13.0, steps_down=True)
    keeper.lease = keeper.lease.looked(group, 13.0)
    assert keeper.lease.successor(13.0) is None


def test_others_wait_for_as_long_as_the_member_says() -> None:
    group = Group().renewed(node("a"), 1, 6 * SECONDS)
    other = Lease(node("b"), SECONDS)
    for now in range(0, 64, 4):
        other = other.looked(group, now)
        assert other.gone(now) == (frozenset("a") if now >= 63 else frozenset())


def test_who_could_not_look_takes_nobody_for_gone() -> None:
    group = Keeper("a").renew(Group(), 0.0)
    other = Lease(node("b"), SECONDS).looked(group, 0.0)
    assert other.gone(30.0) == {"a"}
    other = other.looked(group, 30.0)
    assert other.gone(30.0) == frozenset()


def tokens(group: Group) -> dict[str, int | None]:
    return {name: member.token for name, member in group.members.items()}


def group_at_rest(*names: str) -> tuple[dict[str, Keeper], Group]:
    """Nodes of which one is active, and all have just looked, a second apart."""
    keepers = {name: Keeper(name) for name in names}
    group = Group()
    for _ in range(2):
        for now, keeper in enumerate(keepers.values(), 100):
            group = keeper.renew(group, now)
    return keepers, group


def test_who_was_started_when_the_record_was_lost_joins_the_others() -> None:
    keepers, _ = group_at_rest("a", "b")
    stranger = Group().renewed(node("c", Role.ACTIVE_STANDBY), 1, SECONDS)
    back = keepers["a"].renew(stranger, 103.0)
    assert tokens(back) == {"a": 1, "b": None}
    assert Lease(node("c", Role.ACTIVE_STANDBY), SECONDS).looked(stranger, 103.0).looked(back, 104.0).me is None


def test_who_has_not_looked_for_long_takes_what_others_have_begun() -> None:
    keepers, group = group_at_rest("a", "b")
    for now in range(102, 130):
        group = keepers["a"].renew(group, now)
    stranger = Group().renewed(node("c", Role.ACTIVE_STANDBY), 1, SECONDS)
    back = keepers["a"].renew(stranger, 200.0)
    assert list(back.members) == ["c", "a"]
    assert tokens(back) == {"c": back.version, "a": None}
    assert back.version == group.version + LEAP + 1


def test_tokens_go_up_though_one_that_is_known_was_lost() -> None:
    known = Group(7, {"a": replace(Group().renewed(node("a"), 1, SECONDS).members["a"], token=6)})
    lease = replace(Lease(node("b"), SECONDS), group=known)
    stands = Group(9, {"c": replace(Group().renewed(node("c"), 1, SECONDS).members["c"], token=3)})
    _, written = lease.looked(stands, 0.0).renewal(0.0)
    assert tokens(written)["c"] == written.version == 10
    stands = Group(9, {"c": replace(stands.members["c"], token=8)})
    _, written = lease.looked(stands, 0.0).renewal(0.0)
    assert tokens(written)["c"] == 8


def test_a_share_of_another_record_is_another_share_whatever_its_number() -> None:
    keeper = Keeper("a", Role.LOAD_BALANCED)
    group = keeper.renew(Group(), 0.0)
    share = keeper.lease.share
    assert share is not None
    obeying = keeper.lease.obeys(share.number)
    less = replace(share, told=replace(share.told, ledger_concurrency=1))
    other = Group(group.version + 5, {"a": replace(group.members["a"], share=less)})
    assert obeying.looked(other, 1.0).obeyed is None
    assert obeying.looked(Group(group.version + 5, group.members), 1.0).obeyed == share.number


def test_a_record_is_read_as_it_was_written() -> None:
    group = group_of(node("a"), node("b", limits=replace(LIMITS, app_store_rate_per_second=None)))
    group = group.renewed(node("c", Role.ACTIVE_STANDBY, processes=4), 3, 2.5)
    assert group_in(record_of(group)) == group


RECORD: dict[str, Any] = json.loads(record_of(group_of(node("a"), node("b"))).content)


@pytest.mark.parametrize("text", ["", "null", "{}", '{"schema": 2, "members": []}', "[" * 100_000, '{"schema": 1}'])
def test_what_is_no_record_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"expected|Expecting"):
        group_in(RoleRecord(7, text))


garbage: st.SearchStrategy[Any] = st.sampled_from(
    [None, True, -1, 0, 1.5, float("nan"), float("inf"), 10**30, 2**63 - 1, "", "a", "a\nb" * 300, [], {}, {"a": 1}]
)


def read(text: str) -> tuple[str, Group | None]:
    try:
        return "", group_in(RoleRecord(7, text))
    except ValueError as error:
        return str(error), None


@given(st.data())
def test_a_record_with_something_wrong_in_it_is_refused_or_works(data: st.DataObject) -> None:
    record = copy.deepcopy(RECORD)
    place: Any = record
    while True:
        keys = sorted(place) if isinstance(place, dict) else list(range(len(place)))
        key = data.draw(st.sampled_from(keys))
        if isinstance(place[key], dict | list) and place[key] and data.draw(st.booleans()):
            place = place[key]
            continue
        if isinstance(place, dict) and data.draw(st.booleans()):
            del place[key]
        else:
            place[key] = data.draw(garbage)
        break
    words, group = read(json.dumps(record))
    assert len(words) < 200 and (words == "" or words.isprintable())  # they go to the log
    if group is None:
        return
    assert all(member.lease_seconds <= LONGEST_LEASE_SECONDS for member in group.members.values())
    assert all(name.isprintable() for name in group.members)
    for lease in (Lease(node("a"), SECONDS), Lease(node("new"), SECONDS)):
        _, written = lease.looked(group, 0.0).renewal(0.0)
        assert group_in(record_of(written)) == written
    assert group.without("a").version == 8


@pytest.mark.parametrize("version", [0, 2**63 - 1, 1.5, "abc", None, True])
def test_a_version_that_no_record_has_is_refused(version: Any) -> None:
    with pytest.raises(ValueError, match="expected a number from 1"):
        group_in(RoleRecord(version, '{"schema": 1, "members": []}'))


def test_a_lease_without_an_end_is_refused() -> None:
    ghost = {**RECORD["members"][0], "lease_seconds": LONGEST_LEASE_SECONDS + 1}
    with pytest.raises(ValueError, match=f"expected a number from 0 to {LONGEST_LEASE_SECONDS}"):
        group_in(RoleRecord(9, json.dumps({**RECORD, "members": [ghost]})))


def test_what_a_newer_program_says_more_is_passed_over() -> None:
    record = copy.deepcopy(RECORD)
    record["members"][0]["region"] = "elsewhere"
    assert group_in(RoleRecord(9, json.dumps(record))) == group_in(RoleRecord(9, json.dumps(RECORD)))
    with pytest.raises(ValueError, match="schema 2"):
        group_in(RoleRecord(9, json.dumps({**record, "schema": 2})))


def test_a_node_that_stands_in_it_twice_is_refused() -> None:
    twice = {**RECORD, "members": [RECORD["members"][0]] * 2}
    with pytest.raises(ValueError, match="twice"):
        group_in(RoleRecord(9, json.dumps(twice)))


@pytest.mark.parametrize(("lease", "wait", "seconds"), [(10.0, 10.0, 12.0), (2.0, 1.0, 3.0), (20.0, 5.0, 24.0)])
def test_it_lasts_longer_than_a_lease_and_a_receive(lease: float, wait: float, seconds: float) -> None:
    assert StepDown.of(lease, wait).seconds == seconds


def test_what_was_before_it_was_active_does_not_count() -> None:
    keeper, unable = Keeper(), Work(unable_seconds=50.0)
    group = keeper.renew(Group(), 100.0)
    active = StepDown(STEP_DOWN_SECONDS).looked(keeper.lease, keeper.lease, Work(), 100.0)
    assert active.unable_seconds(unable, 101.0) == 1.0
    over = active.looked(keeper.lease, keeper.lease, Work(), 100.0 + STEP_DOWN_SECONDS)  # and nothing was renewed
    assert (over.since_seconds, over.unable_seconds(unable, 112.0)) == (inf, 0.0)
    keeper.renew(group, 113.0)
    assert over.looked(keeper.lease, keeper.lease, Work(), 113.0).since_seconds == 113.0


def test_each_time_it_is_twice_as_long_and_at_most_an_hour() -> None:
    seconds = [StepDown(STEP_DOWN_SECONDS, times).seconds for times in range(40)]
    assert seconds[:4] == [12.0, 24.0, 48.0, 96.0]
    assert set(seconds[9:]) == {LONGEST_STEP_DOWN_SECONDS}


def test_it_begins_anew_with_an_answer() -> None:
    first, second = Keeper("a"), Keeper("b")
    group = second.renew(first.renew(Group(), 100.0), 101.0)
    first.lease = first.lease.looked(group, 101.0)
    active = StepDown(STEP_DOWN_SECONDS).looked(first.lease, first.lease, Work(), 101.0)
    before = first.lease
    first.lease, group = before.renewal(102.0, steps_down=True)
    first.lease = first.lease.looked(group, 102.0)
    assert active.looked(before, first.lease, Work(), 102.0).seconds == 24.0
    again = replace(active, times=1)
    assert again.looked(before, before, Work(answered=0), 103.0).seconds == 24.0
    assert again.looked(before, before, Work(answered=1), 103.0).seconds == 12.0
