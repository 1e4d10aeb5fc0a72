"""``FakeNotifications`` and ``FakeRoles``: the notifications that were dealt with, and the records of roles."""

from __future__ import annotations

from typing import ClassVar

from receipt_actors.domain.ports import RoleRecord
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

    @property
    def recorded(self) -> frozenset[str]:
        """The ids of the notifications that were recorded."""
        with self._changed:
            return frozenset(self._recorded)

    def is_known(self, notification_uuid: str) -> bool:
        return self._carry_out("is_known", lambda: notification_uuid in self._recorded)

    def record(self, notification_uuid: str, now_seconds: float) -> None:
        self._carry_out("record", lambda: self._recorded.add(notification_uuid))

    def record_reversal(self, transaction_id: str, reversed_at_seconds: float, now_seconds: float) -> None:
        def work() -> None:
            known = self._reversals.get(transaction_id, reversed_at_seconds)
            self._reversals[transaction_id] = max(known, reversed_at_seconds)

        self._carry_out("record_reversal", work)

    def reversed_at_seconds(self, transaction_id: str) -> float | None:
        return self._carry_out("reversed_at_seconds", lambda: self._reversals.get(transaction_id))

    def check(self) -> None:
        self._carry_out("check", lambda: None)


class FakeRoles(Fake):
    """See ``domain.ports.RoleTable``."""

    operations: ClassVar[frozenset[str]] = frozenset({"read", "write", "check"})

    def __init__(self) -> None:
        super().__init__()
        self._records: dict[str, RoleRecord] = {}

    def forget(self, group: str) -> None:
        """Delete a record, which only a test does."""
        with self._changed:
            self._records.pop(group, None)

    def standing(self, group: str) -> RoleRecord | None:
        """Look at a record without a call."""
        with self._changed:
            return self._records.get(group)

    def read(self, group: str) -> RoleRecord | None:
        return self._carry_out("read", lambda: self._records.get(group))

    def write(self, group: str, record: RoleRecord, before: int | None = None) -> RoleRecord | None:
        def work() -> RoleRecord | None:
            standing = self._records.get(group)
            if (0 if standing is None else standing.version) != (record.version - 1 if before is None else before):
                return standing
            self._records[group] = record
            return record

        return self._carry_out("write", work)

    def check(self) -> None:
        self._carry_out("check", lambda: None)
