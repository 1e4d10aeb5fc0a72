"""Which of Apple's notifications were dealt with, in the SQLite file that holds queues and claims."""

from __future__ import annotations

from pathlib import Path

from receipt_actors.domain.ports import REMEMBERED_SECONDS
from receipt_actors.errors import LedgerUnavailable
from receipt_actors.sqlite.database import Database


class EmbeddedNotifications:
    """``Notifications`` in the SQLite file ``database``. What is older than it has to be goes when something is added.

    Passing trouble with the file is ``LedgerUnavailable``; a file that cannot be used at all is a
    ``ConfigurationError`` of the constructor.
    """

    def __init__(self, database: Path) -> None:
        self._database = Database(database, LedgerUnavailable)

    def is_known(self, notification_uuid: str) -> bool:
        select = "SELECT 1 FROM notifications WHERE notification_uuid = ?"
        with self._database.connection() as connection:
            return connection.execute(select, (notification_uuid,)).fetchone() is not None

    def record(self, notification_uuid: str, now_seconds: float) -> None:
        """See ``Notifications.record``. What was recorded is on the disk."""
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

    def check(self) -> None:
        """See ``Notifications.check``; the constructor has refused a wrong file already, so this only reads it once."""
        self.is_known("")

    def close(self) -> None:
        """Close the file; any later call is ``LedgerUnavailable``. Closing twice is fine."""
        self._database.close()
