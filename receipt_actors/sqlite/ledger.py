"""The ledger in an SQLite file: a claim is on the disk before it is confirmed, and nothing overwrites it.

A tombstone is a row of a table of its own. The statement that puts a claim looks there, too, so that a claim and a
refund at the same time end in one of the two orders.
"""

from __future__ import annotations

import dataclasses
import sqlite3
from collections.abc import Sequence

from receipt_actors.domain.ledger import check_claims
from receipt_actors.domain.ports import (
    TAKEN,
    WHOLE_PERCENTAGE,
    ClaimOutcome,
    Environment,
    LedgerItem,
    Standing,
    Tombstone,
)
from receipt_actors.sqlite.database import EmbeddedTables

_COLUMNS = tuple(field.name for field in dataclasses.fields(LedgerItem))
_INSERT = (
    f"INSERT INTO ledger ({', '.join(_COLUMNS)}) SELECT {', '.join('?' * len(_COLUMNS))}"  # nosec B608 # our own columns
    " WHERE NOT EXISTS (SELECT 1 FROM tombstones WHERE transaction_id = ?)"
    " ON CONFLICT (transaction_id) DO NOTHING"
)
_TOMBSTONE_COLUMNS = ", ".join(field.name for field in dataclasses.fields(Tombstone))
_INSERT_TOMBSTONE = f"INSERT OR IGNORE INTO tombstones ({_TOMBSTONE_COLUMNS}) VALUES (?, ?, ?, ?)"  # nosec B608 # likewise
_SELECT_TOMBSTONE = f"SELECT {_TOMBSTONE_COLUMNS} FROM tombstones WHERE transaction_id = ?"  # nosec B608 # our own columns
_SELECT = f"SELECT {', '.join(_COLUMNS)} FROM ledger WHERE transaction_id = ?"  # nosec B608 # our own columns


class EmbeddedLedger(EmbeddedTables):
    """``Ledger``."""

    def claim(self, item: LedgerItem) -> Standing | None:
        """See ``Ledger.claim``. What was confirmed is on the disk."""
        with self._database.transaction() as connection:
            return None if _insert(connection, item) else _select(connection, item.transaction_id)

    def claim_all(self, items: Sequence[LedgerItem]) -> Sequence[ClaimOutcome]:
        """See ``Ledger.claim_all``: one transaction, hence one wait for the disk, and all of them or none."""
        check_claims(items)
        if not items:
            return []
        with self._database.transaction() as connection:
            return [None if _insert(connection, item) else TAKEN for item in items]

    def get(self, transaction_id: str) -> Standing | None:
        with self._database.connection() as connection:
            return _select(connection, transaction_id)

    def mark_refunded(
        self,
        transaction_id: str,
        refunded_at_seconds: float,
        revocation_type: str | None = None,
        revocation_percentage: int | None = None,
    ) -> Standing:
        mark = (refunded_at_seconds, revocation_type, revocation_percentage)
        with self._database.transaction() as connection:
            if _claim(connection, transaction_id) is None:
                connection.execute(_INSERT_TOMBSTONE, (transaction_id, *mark))
                table = "tombstones"
            else:
                table = "ledger"
            connection.execute(
                f"UPDATE {table} SET refunded_at_seconds = ?1, revocation_type = ?2, revocation_percentage = ?3"  # nosec B608 # one of ours
                f" WHERE transaction_id = ?4 AND (refunded_at_seconds IS NULL OR"
                f" (refunded_at_seconds, COALESCE(revocation_percentage, {WHOLE_PERCENTAGE}))"
                f" < (?1, COALESCE(?3, {WHOLE_PERCENTAGE})))",
                (*mark, transaction_id),
            )
            standing = _select(connection, transaction_id)
        assert standing is not None, "it has just been written"
        return standing

    def check(self) -> None:
        """Look for damage."""
        self._database.check()

    def unmark_refunded(self, transaction_id: str, reversed_at_seconds: float) -> Standing | None:
        no_later = "transaction_id = ? AND refunded_at_seconds <= ?"
        which = (transaction_id, reversed_at_seconds)
        with self._database.transaction() as connection:
            connection.execute(f"DELETE FROM tombstones WHERE {no_later}", which)  # nosec B608 # a constant
            unmark = "refunded_at_seconds = NULL, revocation_type = NULL, revocation_percentage = NULL"
            connection.execute(f"UPDATE ledger SET {unmark} WHERE {no_later}", which)  # nosec B608
            return _select(connection, transaction_id)


def _insert(connection: sqlite3.Connection, item: LedgerItem) -> bool:
    """Put the item unless its transaction id is taken; tell whether it was put."""
    return connection.execute(_INSERT, (*dataclasses.astuple(item), item.transaction_id)).rowcount == 1


def _select(connection: sqlite3.Connection, transaction_id: str) -> Standing | None:
    """Return what stands. Between the two reads a tombstone may go, but none is put where there is a claim."""
    return _claim(connection, transaction_id) or _tombstone(connection, transaction_id)


def _tombstone(connection: sqlite3.Connection, transaction_id: str) -> Tombstone | None:
    row = connection.execute(_SELECT_TOMBSTONE, (transaction_id,)).fetchone()
    return None if row is None else Tombstone(*row)


def _claim(connection: sqlite3.Connection, transaction_id: str) -> LedgerItem | None:
    row = connection.execute(_SELECT, (transaction_id,)).fetchone()
    if row is None:
        return None
    values = dict(zip(_COLUMNS, row, strict=True))
    values["environment"] = Environment(values["environment"])
    return LedgerItem(**values)
