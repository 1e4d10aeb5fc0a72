"""A ledger of one's own behind the port: claims in a file that is only ever appended to, for one process."""

from __future__ import annotations

import dataclasses
import json
import os
import sys
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path

from receipt_actors import ReceiptSystem, Settings
from receipt_actors.backends import open_backend
from receipt_actors.domain.ports import ClaimOutcome, Environment, LedgerItem
from receipt_actors.errors import BatchesRefused, LedgerUnavailable
from receipt_actors.sandbox.app_store import SimulatedAppStore
from receipt_actors.sandbox.receipts import DEFAULT_KEY, Purchase, SampleReceipt, mint


class FileLedger:
    """Keeps the promises of ``domain.ports.Ledger``: what is answered as put is on the disk, for ever."""

    def __init__(self, path: Path) -> None:
        self._lock = threading.Lock()  # several threads call at once
        self._file = path.open("a+", encoding="utf-8")
        self._file.seek(0)
        self._items = {item.transaction_id: item for item in map(item_of, self._file)}

    def claim(self, item: LedgerItem) -> LedgerItem | None:
        """Put it unless its transaction is taken; the item that stands in the way is the answer then."""
        with self._lock:
            standing = self._items.get(item.transaction_id)
            if standing is None:
                try:
                    self._file.write(json.dumps(dataclasses.asdict(item)) + "\n")
                    self._file.flush()
                    os.fsync(self._file.fileno())
                except OSError as error:  # expected trouble is one of the port's errors: it is tried again
                    raise LedgerUnavailable(f"{self._file.name}: {error}") from error
                self._items[item.transaction_id] = item
            return standing

    def claim_all(self, items: Sequence[LedgerItem]) -> Sequence[ClaimOutcome]:
        """Say that there are no batches; then ``claim`` is called for each."""
        raise BatchesRefused("claims are written one by one")

    def get(self, transaction_id: str) -> LedgerItem | None:
        """Read a claim."""
        with self._lock:
            return self._items.get(transaction_id)

    def check(self) -> None:
        """See whether claims can be made: the file was opened."""


def item_of(line: str) -> LedgerItem:
    """Read a line of the file."""
    fields = json.loads(line)
    return LedgerItem(**{**fields, "environment": Environment(fields["environment"])})


def main(folder: Path) -> None:
    """Let two users submit one purchase, with the embedded queues and this ledger."""
    receipt = mint(SampleReceipt("com.example.game", (Purchase("1000000123456789"),)), key=DEFAULT_KEY)
    with SimulatedAppStore() as store:
        settings = Settings(
            database=folder / "receipts.db",
            bundle_ids=("com.example.game",),
            app_store_production_url=store.production_url,
            app_store_sandbox_url=store.sandbox_url,
        )
        backend = dataclasses.replace(open_backend(settings), ledger=FileLedger(folder / "claims.jsonl"))
        with ReceiptSystem.start(settings, backend=backend) as system:
            results = system.results(timeout_seconds=10)
            for user_id in (42, 43):
                system.submit(receipt, user_id)
                result = next(results)
                print(f"user {result.user_id}: {result.status} ({result.reason})")
    print(f"claims on the disk: {len((folder / 'claims.jsonl').read_text().splitlines())}")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(Path(sys.argv[1]))
    else:
        with tempfile.TemporaryDirectory() as temporary:
            main(Path(temporary))
