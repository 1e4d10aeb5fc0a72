"""Ledger, notifications and roles in the SQLite file that holds the queues.

A tombstone is a row of a table of its own. The statement that puts a claim looks there, too, so that a claim and a
refund at the same time end in one of the two orders.
"""

from __future__ import annotations

import dataclasses
import sqlite3
from collections.abc import Sequence
from pathlib import Path

from receipt_actors.domain.ports import (
    REMEMBERED_SECONDS,
    TAKEN,
    WHOLE_PERCENTAGE,
    ClaimOutcome,
    Environment,
    LedgerItem,
    RoleRecord,
    Standing,
    Tombstone,
    check_claims,
)
from receipt_actors.errors import LedgerUnavailable
from receipt_actors.sqlite.database import ROLE_GROUPS, Database

_COLUMNS = tuple(field.name for field in dataclasses.fields(LedgerItem))
_INSERT = (
    f"INSERT INTO ledger ({', '.join(_COLUMNS)}) SELECT {', '.join('?' * len(_COLUMNS))}"  # nosec B608 # our own columns
    " WHERE NOT EXISTS (SELECT 1 FROM tombstones WHERE transaction_id = ?)"
    " ON CONFLICT (transaction_id) DO NOTHING"
)
_SELECT = f"SELECT {', '.join(_COLUMNS)} FROM ledger WHERE transaction_id = ?"  # nosec B608 # our own columns
_TOMBSTONE_COLUMNS = ", ".join(field.name for field in dataclasses.fields(Tombstone))
_INSERT_TOMBSTONE = f"INSERT OR IGNORE INTO tombstones ({_TOMBSTONE_COLUMNS}) VALUES (?, ?, ?, ?)"  # nosec B608 # likewise
_SELECT_TOMBSTONE = f"SELECT {_TOMBSTONE_COLUMNS} FROM tombstones WHERE transaction_id = ?"  # nosec B608 # our own columns


class _EmbeddedTables:
    """Tables of the SQLite file ``database``, which queues, other tables and other processes may share.

    Passing trouble with the file is ``LedgerUnavailable``, as is any call after ``close``. The constructor raises
    ``ConfigurationError`` for a file that cannot be used at all.
    """

    def __init__(self, database: Path) -> None:
        self._database = Database(database, LedgerUnavailable)
        self.close = self._database.close

    def check(self) -> None:
        with self._database.connection():  # the constructor has refused a wrong file; is it still there?
            pass


class EmbeddedLedger(_EmbeddedTables):
    """``Ledger``. What was confirmed is on the disk."""

    def claim(self, item: LedgerItem) -> Standing | None:
        with self._database.transaction() as connection:
            return None if _insert(connection, item) else _standing(connection, item.transaction_id)

    def claim_all(self, items: Sequence[LedgerItem]) -> Sequence[ClaimOutcome]:
        """Claim in one transaction, hence with one wait for the disk; all of them or none."""
        check_claims(items)
        if not items:
            return []
        with self._database.transaction() as connection:
            return [None if _insert(connection, item) else TAKEN for item in items]

    def get(self, transaction_id: str) -> Standing | None:
        with self._database.connection() as connection:
            return _standing(connection, transaction_id)

    def mark_refunded(
        self,
        transaction_id: str,
        refunded_at_seconds: float,
        revocation_type: str | None = None,
        revocation_percentage: int | None = None,
    ) -> Standing:
        mark = (refunded_at_seconds, revocation_type, revocation_percentage)
        with self._database.transaction() as connection:
            table = "ledger"
            if connection.execute(_SELECT, (transaction_id,)).fetchone() is None:
                table = "tombstones"
                connection.execute(_INSERT_TOMBSTONE, (transaction_id, *mark))
            connection.execute(
                f"UPDATE {table} SET refunded_at_seconds = ?1, revocation_type = ?2, revocation_percentage = ?3"  # nosec B608 # one of ours
                f" WHERE transaction_id = ?4 AND (refunded_at_seconds IS NULL OR"
                f" (refunded_at_seconds, COALESCE(revocation_percentage, {WHOLE_PERCENTAGE}))"
                f" < (?1, COALESCE(?3, {WHOLE_PERCENTAGE})))",
                (*mark, transaction_id),
            )
            standing = _standing(connection, transaction_id)
        assert standing is not None, "it has just been written"
        return standing

    def unmark_refunded(self, transaction_id: str, reversed_at_seconds: float) -> Standing | None:
        no_later = "transaction_id = ? AND refunded_at_seconds <= ?"
        which = (transaction_id, reversed_at_seconds)
        with self._database.transaction() as connection:
            connection.execute(f"DELETE FROM tombstones WHERE {no_later}", which)  # nosec B608 # a constant
            unmark = "refunded_at_seconds = NULL, revocation_type = NULL, revocation_percentage = NULL"
            connection.execute(f"UPDATE ledger SET {unmark} WHERE {no_later}", which)  # nosec B608
            return _standing(connection, transaction_id)

    def check(self) -> None:
        self._database.check()


def _insert(connection: sqlite3.Connection, item: LedgerItem) -> bool:
    """Put the item unless its transaction id is taken; return whether it was put."""
    return connection.execute(_INSERT, (*dataclasses.astuple(item), item.transaction_id)).rowcount == 1


def _standing(connection: sqlite3.Connection, transaction_id: str) -> Standing | None:
    """Read what stands. Between the two reads a tombstone may go, but none is put beside a claim."""
    row = connection.execute(_SELECT, (transaction_id,)).fetchone()
    if row is not None:
        values = dict(zip(_COLUMNS, row, strict=True))
        return LedgerItem(**{**values, "environment": Environment(values["environment"])})
    row = connection.execute(_SELECT_TOMBSTONE, (transaction_id,)).fetchone()
    return None if row is None else Tombstone(*row)


class EmbeddedNotifications(_EmbeddedTables):
    """``Notifications``. A write deletes the rows that are old enough to be forgotten."""

    def is_known(self, notification_uuid: str) -> bool:
        select = "SELECT 1 FROM notifications WHERE notification_uuid = ?"
        with self._database.connection() as connection:
            return connection.execute(select, (notification_uuid,)).fetchone() is not None

    def record(self, notification_uuid: str, now_seconds: float) -> None:
        with self._database.transaction() as connection:
            connection.execute(
                "INSERT OR REPLACE INTO notifications (notification_uuid, recorded_at_seconds) VALUES (?, ?)",
                (notification_uuid, now_seconds),
            )
            oldest_seconds = now_seconds - REMEMBERED_SECONDS
            connection.execute("DELETE FROM notifications WHERE recorded_at_seconds < ?", (oldest_seconds,))

    def record_reversal(self, transaction_id: str, reversed_at_seconds: float, now_seconds: float) -> None:
        with self._database.transaction() as connection:
            connection.execute(
                "INSERT INTO refund_reversals (transaction_id, reversed_at_seconds, recorded_at_seconds)"
                " VALUES (?, ?, ?) ON CONFLICT (transaction_id) DO UPDATE SET"
                " reversed_at_seconds = excluded.reversed_at_seconds,"
                " recorded_at_seconds = excluded.recorded_at_seconds"
                " WHERE reversed_at_seconds < excluded.reversed_at_seconds",
                (transaction_id, reversed_at_seconds, now_seconds),
            )
            oldest_seconds = now_seconds - REMEMBERED_SECONDS
            connection.execute("DELETE FROM refund_reversals WHERE recorded_at_seconds < ?", (oldest_seconds,))

    def reversed_at_seconds(self, transaction_id: str) -> float | None:
        select = "SELECT reversed_at_seconds FROM refund_reversals WHERE transaction_id = ?"
        with self._database.connection() as connection:
            row = connection.execute(select, (transaction_id,)).fetchone()
        return None if row is None else float(row[0])


class EmbeddedRoles(_EmbeddedTables):
    """``RoleTable``. The next write makes a table anew that was dropped."""

    def read(self, group: str) -> RoleRecord | None:
        with self._database.connection() as connection:
            is_there = "SELECT 1 FROM sqlite_master WHERE name = 'role_groups'"
            return None if connection.execute(is_there).fetchone() is None else _record(connection, group)

    def write(self, group: str, record: RoleRecord, before: int | None = None) -> RoleRecord | None:
        before = record.version - 1 if before is None else before
        with self._database.transaction() as connection:
            connection.execute(ROLE_GROUPS)
            standing = _record(connection, group)
            if before != (0 if standing is None else standing.version):
                return standing
            connection.execute(
                "INSERT OR REPLACE INTO role_groups (name, version, content) VALUES (?, ?, ?)",
                (group, record.version, record.content),
            )
        return record


def _record(connection: sqlite3.Connection, group: str) -> RoleRecord | None:
    # SQLite keeps values of any type in any column, and bytes that are no text. A foreign program's row can be read,
    # too, and turns out to be no record.
    row = connection.execute(
        "SELECT CAST(version AS INTEGER), CAST(content AS BLOB) FROM role_groups WHERE name = ?", (group,)
    ).fetchone()
    return None if row is None else RoleRecord(row[0], row[1].decode(errors="replace"))
