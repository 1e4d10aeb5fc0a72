"""``FakeRoles``: the records by which nodes agree on roles, in memory."""

from __future__ import annotations

from typing import ClassVar

from receipt_actors.domain.ports import RoleRecord
from receipt_actors.testing._faults import Fake


class FakeRoles(Fake):
    """See ``domain.ports.RoleTable``."""

    operations: ClassVar[frozenset[str]] = frozenset({"read", "write", "check"})

    def __init__(self) -> None:
        super().__init__()
        self._records: dict[str, RoleRecord] = {}

    # --- what only a test does ---

    def forget(self, group: str) -> None:
        """Delete a record, as nobody should."""
        with self._changed:
            self._records.pop(group, None)

    def standing(self, group: str) -> RoleRecord | None:
        """Look at a record without a call."""
        with self._changed:
            return self._records.get(group)

    # --- the port ---

    def read(self, group: str) -> RoleRecord | None:
        """See ``RoleTable.read``."""
        return self._carry_out("read", lambda: self.standing(group))

    def write(self, group: str, record: RoleRecord, before: int | None = None) -> RoleRecord | None:
        """See ``RoleTable.write``."""

        def work() -> RoleRecord | None:
            with self._changed:
                standing = self._records.get(group)
                if (0 if standing is None else standing.version) != (record.version - 1 if before is None else before):
                    return standing
                self._records[group] = record
                return record

        return self._carry_out("write", work)

    def check(self) -> None:
        """See ``RoleTable.check``."""
        self._carry_out("check", lambda: None)
