"""The simulated App Store without ``cryptography``: verifyReceipt as ever, and a clear word for the rest."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.patience import PATIENCE_SECONDS

#: Makes a package as good as not installed, for this process.
HIDE = "import sys\nfor name in {hidden!r}:\n    sys.modules[name] = None\n"


def run(program: str, *hidden: str, folder: Path) -> subprocess.CompletedProcess[str]:
    hide = HIDE.format(hidden=hidden)
    return subprocess.run(
        [sys.executable, "-c", f"PATIENCE_SECONDS = {PATIENCE_SECONDS}\n{hide}{program}"],
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
        cwd=folder,
        check=False,
    )


def command(*arguments: str) -> str:
    return f"from receipt_actors.cli import main\nsys.exit(main({list(arguments)!r}))\n"


def test_verify_receipt_needs_none_of_it(tmp_path: Path) -> None:
    """A store sells and judges app receipts; its Server API answers 501, and signing says which extra it takes."""
    program = """
import requests
from receipt_actors.errors import ConfigurationError
from receipt_actors.sandbox.app_store import SimulatedAppStore
from receipt_actors.sandbox.load import Receipts, make_scenario
from receipt_actors.sandbox.receipts import Purchase, SampleReceipt
receipt = SampleReceipt("com.example.game", (Purchase("1"),))
with SimulatedAppStore() as store:
    answer = requests.post(store.production_url, json={"receipt-data": store.sell(receipt)}, timeout=PATIENCE_SECONDS)
    assert answer.json()["status"] == 0
    answer = requests.get(store.production_api_url + "/inApps/v1/transactions/1", timeout=PATIENCE_SECONDS)
    assert answer.status_code == 501 and "receipt-actors[storekit2]" in answer.text
    answer = requests.post(store.url + "/simulated/purchases", timeout=PATIENCE_SECONDS)
    assert answer.status_code == 501 and "receipt-actors[storekit2]" in answer.json()["error"]
    for sign in (lambda: store.sell_signed(receipt), lambda: store.notify("TEST", bundle_id="a")):
        try:
            sign()
        except ConfigurationError as error:
            assert "receipt-actors[storekit2]" in str(error)
        else:
            raise AssertionError
make_scenario(30, 1, "com.example.game", "ResultsSQS")
try:
    make_scenario(30, 1, "com.example.game", "ResultsSQS", receipts=Receipts.MIXED)
except ConfigurationError as error:
    assert "receipt-actors[storekit2]" in str(error)
else:
    raise AssertionError
"""
    ended = run(program, "cryptography", folder=tmp_path)
    assert (ended.returncode, ended.stderr) == (0, "")


@pytest.mark.parametrize(
    "arguments",
    [
        ("app-store", "--port", "0", "--mint", "3", "--receipts", "signed"),
        ("demo", "--receipts", "signed"),
        ("demo", "--app-receipts", "server-api"),
        ("bench", "--receipts", "storekit2"),
    ],
    ids=" ".join,
)
def test_what_needs_an_extra_says_so(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    """One line, code 2, and how to get it."""
    ended = run(command(*arguments), "cryptography", "appstoreserverlibrary", folder=tmp_path)
    assert ended.returncode == 2
    assert ended.stdout == ""
    last = ended.stderr.splitlines()[-1]
    assert "pip install" in last
    assert "receipt-actors[" in last


def test_the_demo_leaves_out_what_it_cannot_show(tmp_path: Path) -> None:
    """And says in one line how to get it; all the rest comes out as it should."""
    ended = run(command("demo", "--messages", "20", "--apple-latency", "0"), "appstoreserverlibrary", folder=tmp_path)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert "Without signed transactions of StoreKit 2, which need: pip install" in " ".join(ended.stdout.split())
    assert " signed " not in ended.stdout.replace("Without signed", "")
