"""The ledger in an SQLite file: a claim is on the disk before it is confirmed, and nothing overwrites it.

A tombstone is a row of a table of its own. The statement that puts a claim looks there, too, so that a claim and a
refund at the same time end in one of the two orders, whoever was first.
"""

from __future__ import annotations

import dataclasses
import sqlite3
from collections.abc import Sequence
from pathlib import Path

from receipt_actors.clients.embedded.database import Database
from receipt_actors.domain.batching import check_claims
from receipt_actors.domain.ports import TAKEN, ClaimOutcome, Environment, LedgerItem, Standing, Tombstone
from receipt_actors.errors import LedgerUnavailable

_COLUMNS = tuple(field.name for field in dataclasses.fields(LedgerItem))
_INSERT = (
    f"INSERT INTO ledger ({', '.join(_COLUMNS)}) SELECT {', '.join('?' * len(_COLUMNS))}"  # nosec B608 # our own columns
    " WHERE NOT EXISTS (SELECT 1 FROM tombstones WHERE transaction_id = ?)"
    " ON CONFLICT (transaction_id) DO NOTHING"
)
_SELECT = f"SELECT {', '.join(_COLUMNS)} FROM ledger WHERE transaction_id = ?"  # nosec B608 # our own columns


class EmbeddedLedger:
    """``Ledger`` in the SQLite file ``database``, which embedded queues may share, and other processes.

    Passing trouble with the file is ``LedgerUnavailable``; a file that cannot be used at all is a
    ``ConfigurationError`` of the constructor.
    """

    def __init__(self, database: Path) -> None:
        self._database = Database(database, LedgerUnavailable)

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
        """See ``Ledger.get``."""
        with self._database.connection() as connection:
            return _select(connection, transaction_id)

    def mark_refunded(self, transaction_id: str, refunded_at_seconds: float) -> Standing:
        """See ``Ledger.mark_refunded``."""
        with self._database.transaction() as connection:
            marked = connection.execute(
                "UPDATE ledger SET refunded_at_seconds = MAX(COALESCE(refunded_at_seconds, ?), ?)"
                " WHERE transaction_id = ?",
                (refunded_at_seconds, refunded_at_seconds, transaction_id),
            )
            if marked.rowcount == 0:
                connection.execute(
                    "INSERT INTO tombstones (transaction_id, refunded_at_seconds) VALUES (?, ?)"
                    " ON CONFLICT (transaction_id) DO UPDATE SET"
                    " refunded_at_seconds = MAX(refunded_at_seconds, excluded.refunded_at_seconds)",
                    (transaction_id, refunded_at_seconds),
                )
            standing = _select(connection, transaction_id)
        assert standing is not None, "it has just been written"
        return standing

    def unmark_refunded(self, transaction_id: str, reversed_at_seconds: float) -> Standing | None:
        """See ``Ledger.unmark_refunded``."""
        no_later = "transaction_id = ? AND refunded_at_seconds <= ?"
        which = (transaction_id, reversed_at_seconds)
        with self._database.transaction() as connection:
            connection.execute(f"DELETE FROM tombstones WHERE {no_later}", which)  # nosec B608 # a constant
            connection.execute(f"UPDATE ledger SET refunded_at_seconds = NULL WHERE {no_later}", which)  # nosec B608
            return _select(connection, transaction_id)

    def check(self) -> None:
        """See ``Ledger.check``; the constructor has refused a wrong file already, so this only reads it once."""
        self.get("")

    def close(self) -> None:
        """Close the file; any later call is ``LedgerUnavailable``. Closing twice is fine."""
        self._database.close()


def _insert(connection: sqlite3.Connection, item: LedgerItem) -> bool:
    """Put the item unless its transaction id is taken; tell whether it was put."""
    return connection.execute(_INSERT, (*dataclasses.astuple(item), item.transaction_id)).rowcount == 1


def _select(connection: sqlite3.Connection, transaction_id: str) -> Standing | None:
    """Return what stands. Between the two reads a tombstone may go, but none is put where there is a claim."""
    return _claim(connection, transaction_id) or _tombstone(connection, transaction_id)


def _tombstone(connection: sqlite3.Connection, transaction_id: str) -> Tombstone | None:
    select = "SELECT transaction_id, refunded_at_seconds FROM tombstones WHERE transaction_id = ?"
    row = connection.execute(select, (transaction_id,)).fetchone()
    return None if row is None else Tombstone(*row)


def _claim(connection: sqlite3.Connection, transaction_id: str) -> LedgerItem | None:
    row = connection.execute(_SELECT, (transaction_id,)).fetchone()
    if row is None:
        return None
    values = dict(zip(_COLUMNS, row, strict=True))
    values["environment"] = Environment(values["environment"])
    return LedgerItem(**values)
