"""The records by which the processes of one machine agree on roles, in the SQLite file that holds queues and claims."""

from __future__ import annotations

import sqlite3

from receipt_actors.domain.ports import RoleRecord
from receipt_actors.sqlite.database import ROLE_GROUPS, EmbeddedTables


class EmbeddedRoles(EmbeddedTables):
    """``RoleTable``. A table that somebody has dropped is made anew by the next write."""

    def read(self, group: str) -> RoleRecord | None:
        with self._database.connection() as connection:
            there_is_one = "SELECT 1 FROM sqlite_master WHERE name = 'role_groups'"
            return None if connection.execute(there_is_one).fetchone() is None else _read(connection, group)

    def write(self, group: str, record: RoleRecord, before: int | None = None) -> RoleRecord | None:
        before = record.version - 1 if before is None else before
        with self._database.transaction() as connection:
            connection.execute(ROLE_GROUPS)
            standing = _read(connection, group)
            if before != (0 if standing is None else standing.version):
                return standing
            connection.execute(
                "INSERT OR REPLACE INTO role_groups (name, version, content) VALUES (?, ?, ?)",
                (group, record.version, record.content),
            )
        return record


def _read(connection: sqlite3.Connection, group: str) -> RoleRecord | None:
    # SQLite keeps values of any type in any column, and bytes that are no text: what another program wrote is read all
    # the same, and found to be no record.
    row = connection.execute(
        "SELECT CAST(version AS INTEGER), CAST(content AS BLOB) FROM role_groups WHERE name = ?", (group,)
    ).fetchone()
    return None if row is None else RoleRecord(row[0], row[1].decode(errors="replace"))
