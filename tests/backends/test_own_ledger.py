"""The ledger that the manual shows, ``doc/examples/own_ledger.py``: what the contract of all ledgers doesn't say."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from receipt_actors import ReceiptSystem, Settings
from receipt_actors.backends import open_backend
from receipt_actors.domain.messages import Verdict
from receipt_actors.domain.ports import TAKEN, Tombstone
from receipt_actors.errors import LedgerRefused, LedgerUnavailable
from receipt_actors.testing import FakeAppStore
from tests.backends.test_ledger_contract import ITEM, RIVAL, claims
from tests.examples import EXAMPLES, example
from tests.patience import PATIENCE_SECONDS

FileLedger = example("own_ledger").FileLedger


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "claims.jsonl"


def test_what_stands_outlives_the_process(path: Path) -> None:
    with closing(FileLedger(path)) as ledger:
        ledger.claim_all(claims("1", "2"))
        for transaction_id in ("1", "3", "4"):
            ledger.mark_refunded(transaction_id, 7.0, "REFUND_PRORATED", 33_333)
        ledger.unmark_refunded("4", 8.0)
    with closing(FileLedger(path)) as ledger:
        marked = replace(ITEM, refunded_at_seconds=7.0, revocation_type="REFUND_PRORATED", revocation_percentage=33_333)
        assert ledger.get("1") == replace(marked, transaction_id="1")
        assert ledger.claim(replace(RIVAL, transaction_id="2")) == replace(ITEM, transaction_id="2")
        assert ledger.get("3") == Tombstone("3", 7.0, "REFUND_PRORATED", 33_333)
        assert ledger.get("4") is None
        assert list(ledger.claim_all(claims("3", "4"))) == [TAKEN, None]


@pytest.mark.parametrize("kept_bytes", [1, -1])
def test_half_a_line_was_never_answered(path: Path, kept_bytes: int) -> None:
    """The process died in the middle of a write: the claim is free, and the next one gets a line of its own."""
    with closing(FileLedger(path)) as ledger:
        ledger.claim(ITEM)
        size = path.stat().st_size
        ledger.claim(replace(ITEM, transaction_id="2"))
    os.truncate(path, size + kept_bytes if kept_bytes > 0 else path.stat().st_size + kept_bytes)
    for _ in range(2):
        with closing(FileLedger(path)) as ledger:
            assert ledger.get(ITEM.transaction_id) == ITEM
            assert ledger.claim(replace(RIVAL, transaction_id="2")) in (None, replace(RIVAL, transaction_id="2"))
            assert ledger.get("2") == replace(RIVAL, transaction_id="2")


def test_a_full_disk_is_trouble_that_may_pass(tmp_path: Path) -> None:
    script = """
import pathlib, resource, signal, sys
sys.path[:0] = sys.argv[2:]
from dataclasses import replace
from own_ledger import FileLedger
from receipt_actors.errors import LedgerUnavailable
from tests.backends.test_ledger_contract import ITEM
path = pathlib.Path(sys.argv[1])
ledger = FileLedger(path)
ledger.claim(ITEM)
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 10, resource.RLIM_INFINITY))
other = replace(ITEM, transaction_id="2")
try:
    ledger.claim(other)
except LedgerUnavailable:
    assert ledger.get("2") is None
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    assert ledger.claim(other) is None
    ledger.close()
    again = FileLedger(path)
    print(again.get("2") == other and again.get(ITEM.transaction_id) == ITEM)
"""
    folders = [str(EXAMPLES), str(EXAMPLES.parents[1])]
    command = [sys.executable, "-c", script, tmp_path / "claims.jsonl", *folders]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_SECONDS)
    assert (done.stdout, done.stderr) == ("True\n", "")


def test_a_second_process_is_refused(path: Path) -> None:
    with closing(FileLedger(path)), pytest.raises(LedgerRefused, match="another process has it"):
        FileLedger(path)


def test_a_closed_file_makes_no_claims(path: Path) -> None:
    ledger = FileLedger(path)
    ledger.close()
    with pytest.raises(LedgerUnavailable):
        ledger.claim(ITEM)


def test_forty_receipts_at_once_are_answered(tmp_path: Path, path: Path) -> None:
    settings = Settings(database=tmp_path / "r.db", bundle_ids=("com.example.game",))
    store = FakeAppStore()
    receipts = [store.sell(f"t-{number}") for number in range(40)]
    with closing(FileLedger(path)) as ledger:
        backend = replace(open_backend(settings), app_store=store, ledger=ledger)
        with ReceiptSystem.start(settings, backend=backend) as system:
            pending = [system.submit(receipt, user_id) for user_id, receipt in enumerate(receipts)]
            answers = [answer for each in pending for answer in each.result(PATIENCE_SECONDS)]
            assert [answer.status for answer in answers] == [Verdict.OK] * 40
            assert not any(reason == "crashed" for _fate, reason in system.statistics().fates)
    assert len(path.read_text().splitlines()) == 40
