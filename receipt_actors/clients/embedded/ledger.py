"""The ledger in an SQLite file: a claim is on the disk before it is confirmed, and nothing overwrites it."""

from __future__ import annotations

import dataclasses
import sqlite3
from collections.abc import Sequence
from pathlib import Path

from receipt_actors.clients.embedded.database import Database
from receipt_actors.domain.batching import check_claims
from receipt_actors.domain.ports import TAKEN, ClaimOutcome, Environment, LedgerItem
from receipt_actors.errors import LedgerUnavailable

_COLUMNS = tuple(field.name for field in dataclasses.fields(LedgerItem))
_INSERT = (
    f"INSERT INTO ledger ({', '.join(_COLUMNS)}) VALUES ({', '.join('?' * len(_COLUMNS))})"  # nosec B608 # our own columns
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

    def claim(self, item: LedgerItem) -> LedgerItem | None:
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

    def get(self, transaction_id: str) -> LedgerItem | None:
        """See ``Ledger.get``."""
        with self._database.connection() as connection:
            return _select(connection, transaction_id)

    def check(self) -> None:
        """See ``Ledger.check``; the constructor has refused a wrong file already, so this only reads it once."""
        self.get("")

    def close(self) -> None:
        """Close the file; any later call is ``LedgerUnavailable``. Closing twice is fine."""
        self._database.close()


def _insert(connection: sqlite3.Connection, item: LedgerItem) -> bool:
    """Put the item unless its transaction id is taken; tell whether it was put."""
    return connection.execute(_INSERT, dataclasses.astuple(item)).rowcount == 1


def _select(connection: sqlite3.Connection, transaction_id: str) -> LedgerItem | None:
    row = connection.execute(_SELECT, (transaction_id,)).fetchone()
    if row is None:
        return None
    values = dict(zip(_COLUMNS, row, strict=True))
    values["environment"] = Environment(values["environment"])
    return LedgerItem(**values)
