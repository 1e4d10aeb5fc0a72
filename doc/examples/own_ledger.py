"""A ledger of one's own behind the port: a file that is only ever appended to, for one process."""

from __future__ import annotations

import dataclasses
import fcntl
import json
import os
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path

from receipt_actors import ReceiptSystem, Settings
from receipt_actors.backends import open_backend
from receipt_actors.domain.ports import TAKEN, ClaimOutcome, Environment, LedgerItem, Standing, Tombstone, check_claims
from receipt_actors.errors import LedgerRefused, LedgerUnavailable
from receipt_actors.sandbox.app_store import SimulatedAppStore
from receipt_actors.sandbox.receipts import DEFAULT_KEY, Purchase, SampleReceipt, mint

WHOLE = 100_000  # what a refund takes back where Apple does not say how much of the purchase


class FileLedger:
    """Keeps the promises of ``domain.ports.Ledger``: what it has answered is on the disk, for ever.

    A line says what stands for a transaction from then on. Half a line was never answered: a crash wrote it.
    """

    def __init__(self, path: Path) -> None:
        self._lock = threading.Lock()  # several threads call at once
        self._file = path.open("ab+", buffering=0)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._file.close()
            raise LedgerRefused(str(path), "another process has it") from None
        self._file.seek(0)
        lines = self._file.read().splitlines(keepends=True)
        if lines and not lines[-1].endswith(b"\n"):
            lines.pop()
        self._size = sum(map(len, lines))
        self._standing: dict[str, Standing] = {}
        for line in lines:
            self._set(json.loads(line))

    def claim(self, item: LedgerItem) -> Standing | None:
        """Put it unless its transaction is taken; what stands in the way is the answer then."""
        with self._lock:
            standing = self._standing.get(item.transaction_id)
            if standing is None:
                self._append([dataclasses.asdict(item)])
            return standing

    def claim_all(self, items: Sequence[LedgerItem]) -> Sequence[ClaimOutcome]:
        """Put those whose transaction is free, with one write. (A ledger without batches raises BatchesRefused.)"""
        check_claims(items)
        with self._lock:
            outcomes = [TAKEN if item.transaction_id in self._standing else None for item in items]
            free = [item for item, outcome in zip(items, outcomes, strict=True) if outcome is None]
            self._append([dataclasses.asdict(item) for item in free])
            return outcomes

    def get(self, transaction_id: str) -> Standing | None:
        """Read what stands."""
        with self._lock:
            return self._standing.get(transaction_id)

    def mark_refunded(
        self,
        transaction_id: str,
        refunded_at_seconds: float,
        revocation_type: str | None = None,
        revocation_percentage: int | None = None,
    ) -> Standing:
        """Mark a claim, unless its mark is as late; where nobody has claimed it, nobody can any more."""
        mark = Tombstone(transaction_id, refunded_at_seconds, revocation_type, revocation_percentage)
        with self._lock:
            standing = self._standing.get(transaction_id)
            if standing is None or lateness(standing) < lateness(mark):
                claim = {} if standing is None else dataclasses.asdict(standing)
                self._append([claim | dataclasses.asdict(mark)])
            return self._standing[transaction_id]

    def unmark_refunded(self, transaction_id: str, reversed_at_seconds: float) -> Standing | None:
        """Take the mark back, unless it is of a later refund. What nobody has claimed is free again."""
        with self._lock:
            standing = self._standing.get(transaction_id)
            if standing is not None and 0 <= lateness(standing)[0] <= reversed_at_seconds:
                unmarked = dataclasses.asdict(standing)
                unmarked |= dict.fromkeys(("refunded_at_seconds", "revocation_type", "revocation_percentage"))
                self._append([unmarked])
            return self._standing.get(transaction_id)

    def check(self) -> None:
        """See whether claims can be made: the file was opened."""

    def close(self) -> None:
        """Let another process have it."""
        self._file.close()

    def _append(self, lines: Sequence[Mapping[str, object]]) -> None:
        """Have them on the disk, then know them. Expected trouble is one of the port's errors: it is tried again."""
        data = "".join(f"{json.dumps(line)}\n" for line in lines).encode()
        try:
            os.ftruncate(self._file.fileno(), self._size)  # what a write that failed has left
            if self._file.write(data) != len(data):
                raise OSError("the disk took a part of it")
            os.fsync(self._file.fileno())
        except (OSError, ValueError) as error:  # ValueError: it is closed
            raise LedgerUnavailable(f"{self._file.name}: {error}") from error
        self._size += len(data)
        for line in lines:
            self._set(line)

    def _set(self, line: Mapping[str, object]) -> None:
        standing = standing_of(line)
        if standing is None:
            self._standing.pop(str(line["transaction_id"]), None)
        else:
            self._standing[standing.transaction_id] = standing


def lateness(standing: Standing) -> tuple[float, int]:
    """Order marks: by time, and those of one time by how much of the purchase they take back. No mark is the first."""
    if standing.refunded_at_seconds is None:
        return -1.0, 0
    percentage = standing.revocation_percentage
    return standing.refunded_at_seconds, WHOLE if percentage is None else percentage


def standing_of(line: Mapping[str, object]) -> Standing | None:
    """Read a line: a claim, a refund of what nobody has claimed, or nothing."""
    fields = dict(line)
    if "submission_id" in fields:
        return LedgerItem(**fields | {"environment": Environment(str(fields["environment"]))})  # type: ignore[arg-type]
    return None if fields["refunded_at_seconds"] is None else Tombstone(**fields)  # type: ignore[arg-type]


def main(folder: Path) -> None:
    """Let two users submit one purchase, with the embedded queues and this ledger."""
    receipt = mint(SampleReceipt("com.example.game", (Purchase("1000000123456789"),)), key=DEFAULT_KEY)
    with SimulatedAppStore() as store, closing(FileLedger(folder / "claims.jsonl")) as ledger:
        settings = Settings(
            database=folder / "receipts.db",
            bundle_ids=("com.example.game",),
            app_store_url=store.url,
        )
        backend = dataclasses.replace(open_backend(settings), ledger=ledger)
        with ReceiptSystem.start(settings, backend=backend) as system:
            for user_id in (42, 43):
                (result,) = system.submit(receipt, user_id).result(timeout=30)
                print(f"user {result.user_id}: {result.status} ({result.reason})")
    print(f"claims on the disk: {len((folder / 'claims.jsonl').read_text().splitlines())}")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(Path(sys.argv[1]))
    else:
        with tempfile.TemporaryDirectory() as temporary:
            main(Path(temporary))
