"""What every adapter of the port ``Notifications`` promises: the same tests for SQLite, DynamoDB and the fake."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from receipt_actors.aws import AwsNotifications
from receipt_actors.domain.ports import REMEMBERED_SECONDS, Notifications
from receipt_actors.errors import LedgerUnavailable
from receipt_actors.sqlite import EmbeddedNotifications
from receipt_actors.testing import FakeNotifications
from tests.backends.conftest import Aws, aws_table

UUID = "f14e2b1c-0000-4000-8000-000000000001"
NOW = 1_800_000_000.25


@pytest.fixture(params=["embedded", "aws", "simulated", "ministack", "fake"])
def notifications(request: pytest.FixtureRequest) -> Iterator[Notifications]:
    if request.param == "fake":
        yield FakeNotifications()
        return
    adapter: EmbeddedNotifications | AwsNotifications
    if request.param == "embedded":
        adapter = EmbeddedNotifications(request.getfixturevalue("database"))
    else:
        session, table = aws_table(request, "NotificationUuid")
        adapter = AwsNotifications(table, session)
    with closing(adapter):
        yield adapter


def test_what_was_recorded_is_known(notifications: Notifications) -> None:
    assert not notifications.is_known(UUID)
    notifications.record(UUID, NOW)
    notifications.record(UUID, NOW + 1)
    assert notifications.is_known(UUID)
    assert not notifications.is_known(UUID.upper())
    assert not notifications.is_known("f14e2b1c")


def test_the_latest_reversal_is_what_counts(notifications: Notifications) -> None:
    assert notifications.reversed_at_seconds("t-1") is None
    for reversed_at_seconds in (NOW, NOW + 60.5, NOW + 30):
        notifications.record_reversal("t-1", reversed_at_seconds, NOW)
    assert notifications.reversed_at_seconds("t-1") == NOW + 60.5
    assert notifications.reversed_at_seconds("t-2") is None


def test_a_reversal_is_no_notification(notifications: Notifications) -> None:
    notifications.record_reversal("交易 🪙", NOW, NOW)
    notifications.record("t-3", NOW)
    assert notifications.reversed_at_seconds("交易 🪙") == NOW
    assert not notifications.is_known("交易 🪙")
    assert notifications.reversed_at_seconds("t-3") is None


# --- DynamoDB ---


def test_items_expire_by_themselves(moto: Aws) -> None:
    table = moto.create_table("NotificationUuid")
    with closing(AwsNotifications(table, moto.session)) as notifications:
        notifications.record(UUID, NOW)
        notifications.record_reversal("t-1", NOW, NOW)
    items = moto.dynamodb.scan(TableName=table)["Items"]
    assert {item["ExpiresAt"]["N"] for item in items} == {str(round(NOW) + REMEMBERED_SECONDS)}
    assert len(items) == 2


@pytest.mark.parametrize("reversal", [{}, {"ReversedAt": {"S": "soon"}}, {"ReversedAt": {"N": "1"}, "More": {"S": ""}}])
def test_an_item_of_another_make_is_no_crash(moto: Aws, reversal: dict[str, Any]) -> None:
    table = moto.create_table("NotificationUuid")
    moto.dynamodb.put_item(TableName=table, Item={"NotificationUuid": {"S": "refund-reversed/t-1"}, **reversal})
    with closing(AwsNotifications(table, moto.session)) as notifications:
        if "N" in reversal.get("ReversedAt", {}):
            assert notifications.reversed_at_seconds("t-1") == 1.0
        else:
            with pytest.raises(LedgerUnavailable):
                notifications.reversed_at_seconds("t-1")


# --- SQLite ---


def test_old_ones_go_when_something_is_added(database: Path) -> None:
    with closing(EmbeddedNotifications(database)) as notifications:
        notifications.record("old", NOW)
        notifications.record_reversal("t-old", NOW, NOW)
        notifications.record("newer", NOW + REMEMBERED_SECONDS)
        notifications.record_reversal("t-newer", NOW, NOW + REMEMBERED_SECONDS)
        assert notifications.is_known("old")
        assert notifications.reversed_at_seconds("t-old") == NOW
        notifications.record("newest", NOW + REMEMBERED_SECONDS + 1)
        notifications.record_reversal("t-newest", NOW, NOW + REMEMBERED_SECONDS + 1)
        assert [notifications.is_known(each) for each in ("old", "newer", "newest")] == [False, True, True]
        assert notifications.reversed_at_seconds("t-old") is None
        assert notifications.reversed_at_seconds("t-newer") == NOW
    with closing(sqlite3.connect(database)) as connection:
        assert connection.execute("SELECT COUNT(*) FROM notifications").fetchone() == (2,)
