"""A program that validates receipts itself: no service, no account, a SQLite file and a simulated App Store."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from receipt_actors import ReceiptSystem, Settings
from receipt_actors.sandbox.app_store import SimulatedAppStore
from receipt_actors.sandbox.receipts import DEFAULT_KEY, Purchase, SampleReceipt, mint


def main(database: Path) -> None:
    """Submit one purchase for two users: it counts for one of them, once."""
    purchase = Purchase("1000000123456789", "coins_100", 1_750_000_000_000)
    receipt = mint(SampleReceipt("com.example.game", (purchase,)), key=DEFAULT_KEY)
    with SimulatedAppStore() as store:
        settings = Settings(
            database=database,
            bundle_ids=("com.example.game",),
            app_store_url=store.url,
        )
        with ReceiptSystem.start(settings) as system:
            for user_id in (42, 43):
                (result,) = system.submit(receipt, user_id).result(timeout=30)
                print(f"user {result.user_id}: {result.status} ({result.reason})")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(folder) / "receipts.db")
