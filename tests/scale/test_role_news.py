"""What people are told of a node's role: what is news, in which words, and as an incident of which kind."""

from __future__ import annotations

import logging
from dataclasses import replace

import pytest

from receipt_actors.domain.limits import Limits
from receipt_actors.domain.places import Write
from receipt_actors.domain.roles import Group, Lease, Node, Role
from receipt_actors.errors import LedgerUnavailable
from receipt_actors.scale.nodes.role_news import ROLE_TABLE, RoleNews
from receipt_actors.telemetry.incidents import IncidentKind, Noticed

LEASE = 10.0
LIMITS = Limits(100, 50, 200)
DOWN = LedgerUnavailable("no answer")
ME = "node a of group receipts"


def node(name: str, role: Role = Role.ACTIVE_STANDBY) -> Node:
    return Node(name, role, LIMITS)


def lease_of(name: str, *joined: str, role: Role = Role.ACTIVE_STANDBY) -> Lease:
    """Return the lease of one of those who have joined in this order, held from 0 on."""
    group = Group()
    for beat, other in enumerate(joined):
        group = group.renewed(node(other, role), beat, LEASE)
    lease, written = replace(Lease(node(name, role), LEASE), beat=1000).looked(group, 0.0).renewal(0.0)
    return lease.looked(written, 0.0)


ACTIVE, STANDBY = lease_of("a", "a"), lease_of("a", "b", "a")
WAITING = lease_of("a", "b", "a", role=Role.LOAD_BALANCED)


class Told:
    """News, and whoever hears them."""

    def __init__(self) -> None:
        self.incidents: list[Noticed] = []
        self.news = RoleNews("receipts", self.incidents.append)

    @property
    def last(self) -> tuple[IncidentKind, str, str]:
        last = self.incidents[-1]
        return last.kind, last.subject, last.summary


@pytest.fixture
def told() -> Told:
    return Told()


def test_where_it_stands_is_told_once_and_in_the_log_with_its_facts(
    told: Told, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        for lease in (STANDBY, ACTIVE, STANDBY):
            for now in range(5):
                told.news.tell_state(lease, now)
    assert [record.levelname for record in caplog.records] == ["INFO", "INFO", "WARNING"]
    assert [record.message for record in caplog.records] == [noticed.summary for noticed in told.incidents]
    words = f"{ME} is active (active-standby, token 1, 1 node)"
    assert told.incidents[1] == Noticed(IncidentKind.ROLE, "a", words)
    told.news.tell_state(WAITING, 0.0)
    assert told.last[2] == f"{ME} waits for its share of the limits (2 nodes)"
    assert vars(caplog.records[1]).items() >= {
        "event": "role", "group": "receipts", "node": "a", "state": "active"
    }.items()  # fmt: skip


def test_an_outage_is_told_when_the_lease_is_over_and_once_more_when_it_is_back(
    told: Told, caplog: pytest.LogCaptureFixture
) -> None:
    told.news.tell_state(ACTIVE, 0.0)
    with caplog.at_level(logging.DEBUG):
        for now in (2.0, 4.0, 12.0, 14.0):
            told.news.failed(ACTIVE, now, DOWN)
    failures = [record.levelname for record in caplog.records if "could not be renewed: no answer" in record.message]
    assert failures == ["WARNING", "DEBUG", "DEBUG", "DEBUG"]
    assert len(told.incidents) == 2
    words = f"{ME} is cut off from the table of roles: its lease is over, it begins nothing new"
    assert told.last == (IncidentKind.OUTAGE, ROLE_TABLE, words)
    told.news.renewed(ACTIVE, 5.0, Write(ACTIVE.group, 0, 1))
    told.news.tell_state(ACTIVE, 5.0)
    assert told.last[:2] == (IncidentKind.RECOVERED, ROLE_TABLE)
    with caplog.at_level(logging.WARNING):
        caplog.clear()
        told.news.failed(ACTIVE, 6.0, DOWN)
    assert "could not be renewed" in caplog.text


def test_who_has_not_looked_yet_has_no_place_to_tell(told: Told) -> None:
    new = Lease(node("a"), LEASE)
    told.news.tell_state(new, 0.0)
    assert told.incidents == []
    told.news.failed(new, 1.0, DOWN)
    words = f"{ME} has not found its place yet: the table of roles does not answer"
    assert told.last == (IncidentKind.OUTAGE, ROLE_TABLE, words)


def test_why_it_stands_by_is_told_where_it_is_not_expected(told: Told) -> None:
    few = replace(LIMITS, ledger_concurrency=1)
    group = Group()
    for beat, name in enumerate("ba"):
        group = group.renewed(Node(name, Role.LOAD_BALANCED, few), beat, LEASE)
    lease = replace(lease_of("a", "b", "a"), node=Node("a", Role.LOAD_BALANCED, few), group=group)
    told.news.tell_state(lease, 0.0)
    assert told.last[2] == f"{ME} stands by for b: the limits that are shared are too small for one more node"
    other = Told()
    other.news.tell_state(replace(lease, group=group.renewed(node("b"), 7, LEASE)), 0.0)
    because = "one works at a time while b is here, whose role is active-standby"
    assert other.last[2] == f"{ME} stands by for b: {because}"


def test_a_record_that_cannot_be_read_is_told_once_for_each_fault(told: Told) -> None:
    for fault in ("this", "this", "that", "that"):
        told.news.unreadable(ACTIVE, 0.0, fault)
    assert [each.kind for each in told.incidents] == [IncidentKind.CONFIGURATION] * 2
    told.news.read()
    told.news.unreadable(ACTIVE, 0.0, "that")
    assert len(told.incidents) == 3
    assert "can't be read: that; expected that no other program writes it" in told.last[2]
