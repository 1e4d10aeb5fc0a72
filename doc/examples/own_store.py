"""A gateway of one's own to something else than Apple: here, a team's staging server, which vouches for its testers."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Mapping
from pathlib import Path

from receipt_actors import ReceiptSystem, Settings
from receipt_actors.backends import open_backend
from receipt_actors.domain.ports import Environment

BUNDLE_ID = "com.example.game"


class StagingStore:
    """Keeps the promises of ``stores.apple.ports.AppStore``: answers as verifyReceipt does."""

    def __init__(self, sold: Mapping[str, str]) -> None:
        self._sold = sold  # receipts, and the transaction of each

    def verify_receipt(
        self, receipt_data: str, environment: Environment, *, shared_secret: str | None = None
    ) -> Mapping[str, object]:
        """Vouch for what was sold; a server that cannot be reached would raise ``AppStoreUnavailable``."""
        if receipt_data not in self._sold:
            return {"status": 21003}  # not authentic
        purchase = {"transaction_id": self._sold[receipt_data], "product_id": "coins_100", "quantity": "1"}
        return {
            "status": 0,
            "environment": environment.value,
            "receipt": {"bundle_id": BUNDLE_ID, "in_app": [purchase]},
        }


def main(folder: Path) -> None:
    """Let two users submit what one of them bought."""
    settings = Settings(database=folder / "receipts.db", bundle_ids=(BUNDLE_ID,))
    store = StagingStore({"dGVzdGVyIDE=": "staging-1"})
    backend = dataclasses.replace(open_backend(settings), app_store=store)
    with ReceiptSystem.start(settings, backend=backend) as system:
        for user_id in (42, 43):
            for result in system.submit("dGVzdGVyIDE=", user_id).result(timeout=30):
                print(f"user {result.user_id}: {result.status} ({result.reason})")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        main(Path(temporary))
