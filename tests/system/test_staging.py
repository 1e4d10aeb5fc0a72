"""A team's staging without Apple: nothing but commands, in other terminals, against one simulated App Store."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from receipt_actors.cli import EXIT_DONE

from .processes import Program, Programs

DATABASE = ("--database", "receipts.db")
LAST_LINE = "# the Server API instead of verifyReceipt"
TAKEN_AT = re.compile(r"taken at (http://127\.0\.0\.1:\d+/)")


class Staging:
    def __init__(self, programs: Programs, *flags: str) -> None:
        self._programs = programs
        store = programs.start("app-store", "--port", "0", "--files", "apple", *flags)
        store.wait_until(lambda: LAST_LINE in store.stdout, "it says what it takes to use it")
        lines = [line.removeprefix("export ") for line in store.stdout.splitlines() if line.startswith("export ")]
        self.variables = {"RECEIPT_ACTORS_BUNDLE_IDS": "com.example.game", **dict(line.split("=", 1) for line in lines)}
        url = self.variables["RECEIPT_ACTORS_APP_STORE_URL"]
        self._at_store = ("--store", url)

    def run(self, *arguments: str, environment: Mapping[str, str] | None = None) -> str:
        program = self._programs.start(*arguments, environment={**self.variables, **(environment or {})})
        assert program.wait_for_end() == EXIT_DONE, program.stderr
        return program.stdout

    def serve(self, *arguments: str) -> Program:
        return self._programs.start(*arguments, environment=self.variables)

    def buy(self, *flags: str) -> dict[str, str]:
        sold: dict[str, str] = json.loads(self.run("app-store", "buy", *self._at_store, *flags))
        return sold

    def notify(self, *arguments: str) -> str:
        return self.run("app-store", "notify", *self._at_store, *arguments)

    def validate(self, receipts: Mapping[int, str], **environment: str) -> None:
        for user_id, receipt in receipts.items():
            Path(f"receipt-{user_id}.txt").write_text(receipt)
            self.run("submit", *DATABASE, "--receipt-file", f"receipt-{user_id}.txt", "--user-id", str(user_id))
        self.run("start", *DATABASE, "--exit-when-idle", "1", environment=environment)

    def results(self) -> list[tuple[int, str, str, str]]:
        found: list[dict[str, Any]] = [
            json.loads(line) for line in self.run("results", "--delete", *DATABASE).splitlines()
        ]
        return sorted((each["user_id"], each["transaction_id"], each["status"], each["reason"]) for each in found)


@pytest.fixture
def staging(programs: Programs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Staging:
    monkeypatch.chdir(tmp_path)
    return Staging(programs)


def test_a_purchase_is_bought_validated_and_refunded(staging: Staging) -> None:
    forms = ("signed_transaction", "app_receipt", "transaction_receipt")
    sold = [staging.buy() for _ in forms]
    staging.validate({user: each[form] for user, (form, each) in enumerate(zip(forms, sold, strict=True), start=1)})
    ids = [each["transaction_id"] for each in sold]
    assert staging.results() == [(user, id_, "OK", "claimed") for user, id_ in enumerate(ids, start=1)]

    backend = staging.serve("notifications", *DATABASE, "--port", "0")
    backend.wait_until(lambda: TAKEN_AT.search(backend.stderr), "it takes notifications")
    taken_at = TAKEN_AT.search(backend.stderr)
    assert taken_at is not None
    url = ("--url", taken_at[1])
    assert "HTTP 200" in staging.notify("TEST", "--bundle-id", "com.example.game", *url)
    assert "HTTP 200" in staging.notify("REFUND", ids[0], *url)
    assert staging.results() == [(1, ids[0], "INVALID", "refunded")]
    backend.stop()

    # Another user who sends the old receipt gets nothing, and no word of a refund: there is nothing to take back.
    staging.validate({9: sold[0]["app_receipt"]})
    assert staging.results() == [(9, ids[0], "INVALID", "claimed_by_another_user")]
