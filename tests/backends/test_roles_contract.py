"""What every adapter of the port ``RoleTable`` promises: the same tests for SQLite, DynamoDB and the fake.

DynamoDB is moto, the simulated one and, where it is installed, MiniStack, which is also met through a proxy that makes
trouble.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from receipt_actors.aws import AwsRoles
from receipt_actors.domain.limits import Limits
from receipt_actors.domain.ports import RoleRecord, RoleTable
from receipt_actors.domain.roles import Group, Node, Role, group_in, record_of
from receipt_actors.errors import LedgerUnavailable
from receipt_actors.sqlite import EmbeddedRoles
from receipt_actors.testing import FakeRoles
from tests.backends.conftest import Aws, aws_table, create_table, table_at
from tests.chaos.aws_proxy import KEPT, AwsProxy
from tests.patience import PATIENCE_SECONDS

GROUP = "ReceiptsSQS"
LEASE_SECONDS = 300.0  #: of which a part is as long as one waits for an answer: on a busy machine, too
WRITERS = 8

Open = Callable[[], RoleTable]


@pytest.fixture(params=["embedded", "aws", "ministack", "fake"])
def opened(request: pytest.FixtureRequest) -> Iterator[Open]:
    """Make adapters of the same table, as several nodes have them; of each kind in turn."""
    if request.param == "fake":
        fake = FakeRoles()
        yield lambda: fake
        return
    make: Callable[[], EmbeddedRoles | AwsRoles]
    if request.param == "embedded":
        make = partial(EmbeddedRoles, request.getfixturevalue("database"))
    else:
        session, name = aws_table(request, "RoleGroup")
        make = partial(AwsRoles, name, LEASE_SECONDS, session)
    with ExitStack() as stack:
        yield lambda: stack.enter_context(closing(make()))


@pytest.fixture
def roles(opened: Open) -> RoleTable:
    return opened()


def test_what_was_written_is_read(roles: RoleTable) -> None:
    assert roles.read(GROUP) is None
    records = [RoleRecord(1, "first"), RoleRecord(2, "é 🪙 \0 \"'"), RoleRecord(3, "x" * 100_000)]
    for record in records:
        assert roles.write(GROUP, record) == record
        assert roles.read(GROUP) == record
    assert roles.read("another") is None
    assert roles.write("another", RoleRecord(1, "its own")) == RoleRecord(1, "its own")
    assert roles.read(GROUP) == records[-1]


def test_only_the_next_version_is_written(roles: RoleTable) -> None:
    assert roles.write(GROUP, RoleRecord(2, "too early")) is None
    assert roles.read(GROUP) is None
    first, second = RoleRecord(1, "first"), RoleRecord(2, "second")
    roles.write(GROUP, first)
    assert roles.write(GROUP, RoleRecord(1, "also first")) == first
    roles.write(GROUP, second)
    for version in (1, 2, 4):
        assert roles.write(GROUP, RoleRecord(version, "no")) == second
    assert roles.read(GROUP) == second


def test_a_version_may_take_the_place_of_an_older_one_or_of_nothing(roles: RoleTable) -> None:
    back, again = RoleRecord(41, "put back"), RoleRecord(57, "and again")
    assert roles.write(GROUP, back, 7) is None
    assert roles.read(GROUP) is None
    assert roles.write(GROUP, back, 0) == roles.read(GROUP) == back
    for before in (0, 40, 56):
        assert roles.write(GROUP, again, before) == back
    assert roles.write(GROUP, again, 41) == roles.read(GROUP) == again


def test_of_many_writers_one_wins_each_version(opened: Open) -> None:
    tables = [opened() for _ in range(WRITERS)]
    with ThreadPoolExecutor(WRITERS) as pool:
        for version in range(1, 6):
            start = threading.Barrier(WRITERS)

            def write(index: int, start: threading.Barrier = start, version: int = version) -> RoleRecord | None:
                start.wait()
                return tables[index].write(GROUP, RoleRecord(version, f"of {index}"))

            stood = set(pool.map(write, range(WRITERS)))
            assert len(stood) == 1
            assert stood == {tables[0].read(GROUP)}
            assert stood.pop() in {RoleRecord(version, f"of {index}") for index in range(WRITERS)}


def test_a_group_of_many_nodes_fits(roles: RoleTable) -> None:
    """DynamoDB takes items of 400 KB: hundreds of nodes."""
    node = Node("n" * 100, Role.LOAD_BALANCED, Limits(2_000, 50_000, 200, 1.5), 4)
    one = record_of(Group().renewed(node, 2**48, LEASE_SECONDS)).content
    record = RoleRecord(1, one * 300)
    assert roles.write(GROUP, record) == record
    assert roles.read(GROUP) == record


# --- DynamoDB ---


def test_a_table_that_is_made_anew_while_nodes_run_is_used(moto: Aws) -> None:
    table = moto.create_table("RoleGroup")
    with closing(AwsRoles(table, LEASE_SECONDS, moto.session)) as roles:
        roles.write(GROUP, RoleRecord(1, "first"))
        moto.dynamodb.delete_table(TableName=table)
        for call in (lambda: roles.read(GROUP), lambda: roles.write(GROUP, RoleRecord(2, "second"))):
            with pytest.raises(LedgerUnavailable, match="ResourceNotFoundException: .*; create the table"):
                call()
        create_table(moto.dynamodb, "RoleGroup", name=table)
        assert roles.read(GROUP) is None
        assert roles.write(GROUP, RoleRecord(2, "second"), 0) == roles.read(GROUP) == RoleRecord(2, "second")


@pytest.mark.parametrize(
    "garbage",
    [
        {},
        {"Version": {"N": "1"}},
        {"Version": {"S": "1"}, "Content": {"S": ""}},
        {"Version": {"N": "1.5"}, "Content": {"S": ""}},
        {"Version": {"N": "1"}, "Content": {"M": {}}},
    ],
)
def test_an_item_of_another_make_is_unavailable(moto: Aws, garbage: dict[str, Any]) -> None:
    table = moto.create_table("RoleGroup")
    item = {"RoleGroup": {"S": GROUP}, **garbage}
    moto.dynamodb.put_item(TableName=table, Item=item)
    with closing(AwsRoles(table, LEASE_SECONDS, moto.session)) as roles:
        with pytest.raises(LedgerUnavailable, match="garbled"):
            roles.read(GROUP)
        with pytest.raises(LedgerUnavailable, match="garbled"):
            roles.write(GROUP, RoleRecord(1, ""))
    assert moto.dynamodb.get_item(TableName=table, Key={"RoleGroup": {"S": GROUP}})["Item"] == item


@pytest.fixture
def proxy(ministack_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[AwsProxy]:
    proxy = AwsProxy(ministack_url, {}, seed=0)
    proxy.late_seconds = 60.0  # or until it is released
    yield proxy
    proxy.close()


@dataclass(frozen=True, slots=True)
class Nodes:
    """Three nodes: two at the other end of a bad line, of which one gives up waiting before long, and one near by."""

    hasty: AwsRoles
    far: AwsRoles
    near: AwsRoles
    proxy: AwsProxy

    def write_in_vain(self, record: RoleRecord, fault: str) -> None:
        self.proxy.rates = {"PutItem": {fault: 1.0}}
        with pytest.raises(LedgerUnavailable):
            (self.hasty if fault in KEPT else self.far).write(GROUP, record)
        if fault in KEPT:
            self.proxy.wait_until_kept()
        self.proxy.calm()


@pytest.fixture
def nodes(ministack_url: str, proxy: AwsProxy, monkeypatch: pytest.MonkeyPatch) -> Iterator[Nodes]:
    session, table = table_at(ministack_url, monkeypatch, "RoleGroup")
    near = AwsRoles(table, LEASE_SECONDS, session)
    monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
    hasty, far = AwsRoles(table, 2.0, session), AwsRoles(table, LEASE_SECONDS, session)
    with closing(near), closing(hasty), closing(far):
        yield Nodes(hasty, far, near, proxy)


@pytest.mark.parametrize("fault", ["lost", "cut", "slow"])
def test_a_write_whose_answer_was_lost_was_made(nodes: Nodes, fault: str) -> None:
    nodes.write_in_vain(RoleRecord(1, "mine"), fault)
    assert nodes.far.read(GROUP) == RoleRecord(1, "mine")


@pytest.mark.parametrize("fault", ["refused", "throttled"])
def test_a_write_that_was_refused_was_not_made(nodes: Nodes, fault: str) -> None:
    nodes.write_in_vain(RoleRecord(1, "mine"), fault)
    nodes.proxy.rates = {"GetItem": {fault: 1.0}}
    with pytest.raises(LedgerUnavailable):
        nodes.far.read(GROUP)
    nodes.proxy.calm()
    assert nodes.far.read(GROUP) is None


def test_a_write_that_arrives_late_is_refused(nodes: Nodes) -> None:
    nodes.near.write(GROUP, RoleRecord(1, "first"))
    nodes.write_in_vain(RoleRecord(2, "mine"), "late")
    theirs = RoleRecord(2, "theirs")
    assert nodes.near.write(GROUP, theirs) == theirs
    nodes.proxy.release()
    nodes.proxy.wait_until_idle()
    assert nodes.far.read(GROUP) == theirs


# --- SQLite ---


@pytest.mark.parametrize(
    "garbage",
    [
        "content = CAST(x'ff00fe' AS TEXT)",
        "content = x'ff00fe'",
        "version = 'abc'",
        "version = x'00'",
        "version = -4",
        "version = 1e300",
    ],
)
def test_what_another_program_wrote_into_the_file_is_no_record(database: Path, garbage: str) -> None:
    with closing(EmbeddedRoles(database)) as roles:
        first = Group().renewed(Node("a", Role.ALONE, Limits(1, 1, 1)), 1, LEASE_SECONDS)
        roles.write(GROUP, record_of(first))
        with closing(sqlite3.connect(database, timeout=PATIENCE_SECONDS)) as connection, connection:
            connection.execute(f"UPDATE role_groups SET {garbage}")
        found = roles.read(GROUP)
        assert found is not None
        with pytest.raises(ValueError, match=r"expected|Expecting"):
            group_in(found)
        assert roles.write(GROUP, RoleRecord(5, "")) == found
        assert roles.read(GROUP) == found


def altered(database: Path, statements: str) -> None:
    with closing(sqlite3.connect(database, timeout=PATIENCE_SECONDS)) as connection:
        connection.executescript(statements)


def test_a_table_that_was_dropped_is_made_anew(database: Path) -> None:
    with closing(EmbeddedRoles(database)) as roles, closing(EmbeddedRoles(database)) as others:
        roles.write(GROUP, RoleRecord(1, "first"))
        altered(database, "DROP TABLE role_groups")
        assert roles.read(GROUP) is others.read(GROUP) is None
        assert roles.write(GROUP, RoleRecord(2, "second")) is None
        assert roles.write(GROUP, RoleRecord(2, "second"), 0) == RoleRecord(2, "second")
        assert others.read(GROUP) == RoleRecord(2, "second")
        altered(database, "DROP TABLE role_groups")
        assert others.write(GROUP, RoleRecord(3, "third"), 0) == roles.read(GROUP) == RoleRecord(3, "third")
