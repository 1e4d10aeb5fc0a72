"""``FakeNotifications``: which of Apple's notifications were dealt with, in memory."""

from __future__ import annotations

from typing import ClassVar

from receipt_actors.testing._faults import Fake


class FakeNotifications(Fake):
    """See ``domain.ports.Notifications``. It forgets nothing."""

    operations: ClassVar[frozenset[str]] = frozenset(
        {"is_known", "record", "record_reversal", "reversed_at_seconds", "check"}
    )

    def __init__(self) -> None:
        super().__init__()
        self._recorded: set[str] = set()
        self._reversals: dict[str, float] = {}

    # --- what only a test does ---

    @property
    def recorded(self) -> frozenset[str]:
        """The ids of the notifications that were recorded."""
        with self._changed:
            return frozenset(self._recorded)

    # --- the port ---

    def is_known(self, notification_uuid: str) -> bool:
        """See ``Notifications.is_known``."""
        return self._carry_out("is_known", lambda: notification_uuid in self.recorded)

    def record(self, notification_uuid: str, now_seconds: float) -> None:
        """See ``Notifications.record``."""

        def work() -> None:
            with self._changed:
                self._recorded.add(notification_uuid)

        self._carry_out("record", work)

    def record_reversal(self, transaction_id: str, reversed_at_seconds: float, now_seconds: float) -> None:
        """See ``Notifications.record_reversal``."""

        def work() -> None:
            with self._changed:
                known = self._reversals.get(transaction_id, reversed_at_seconds)
                self._reversals[transaction_id] = max(known, reversed_at_seconds)

        self._carry_out("record_reversal", work)

    def reversed_at_seconds(self, transaction_id: str) -> float | None:
        """See ``Notifications.reversed_at_seconds``."""

        def work() -> float | None:
            with self._changed:
                return self._reversals.get(transaction_id)

        return self._carry_out("reversed_at_seconds", work)

    def check(self) -> None:
        """See ``Notifications.check``."""
        self._carry_out("check", lambda: None)
