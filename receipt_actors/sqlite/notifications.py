"""Which of Apple's notifications were dealt with, in the SQLite file that holds queues and claims."""

from __future__ import annotations

from receipt_actors.domain.ports import REMEMBERED_SECONDS
from receipt_actors.sqlite.database import EmbeddedTables


class EmbeddedNotifications(EmbeddedTables):
    """``Notifications``. What is older than it has to be goes when something is added."""

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
