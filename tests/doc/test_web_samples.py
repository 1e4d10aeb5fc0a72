"""The web applications of the manual go through a purchase, its refund and the reversal, each as its own server."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from importlib.util import find_spec
from pathlib import Path

import pytest
import requests

from receipt_actors.notifications import open_handler
from receipt_actors.sandbox.app_store import SimulatedAppStore
from receipt_actors.sandbox.receipts import Purchase, SampleReceipt
from receipt_actors.settings import Settings
from tests.examples import EXAMPLES
from tests.patience import PATIENCE_SECONDS
from tests.ports import reserved_port

SERVERS = {
    "flask": ["-m", "flask", "--app", "flask_app", "run", "--port", "{port}"],
    "starlette": ["-m", "uvicorn", "starlette_app:app", "--port", "{port}"],
    "django": [str(EXAMPLES / "django_app.py"), "runserver", "--noreload", "127.0.0.1:{port}"],
}
OK, INVALID = ([{"transaction_id": "t-1", "status": status}] for status in ("OK", "INVALID"))


@contextmanager
def served(framework: str, folder: Path, port: int, environ: dict[str, str]) -> Iterator[None]:
    command = [sys.executable, *(word.format(port=port) for word in SERVERS[framework])]
    environ = os.environ | environ | {"PYTHONPATH": os.pathsep.join([str(EXAMPLES), str(EXAMPLES.parents[1])])}
    with (folder / "log.txt").open("w") as log:
        server = subprocess.Popen(command, cwd=folder, env=environ, stdout=log, stderr=log)
    try:
        yield
    finally:
        server.send_signal(signal.SIGINT)
        server.wait(PATIENCE_SECONDS)


def until(ask: Callable[[], object], wanted: object) -> None:
    """Ask until the answer is this one; a server that does not listen yet has none."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    found: object = None
    while found != wanted:
        assert time.monotonic() < deadline, f"found {found}, expected {wanted}"
        try:
            found = ask()
        except requests.ConnectionError as error:
            found = error


@pytest.mark.parametrize("framework", SERVERS)
def test_a_web_application_credits_and_debits_once(framework: str, tmp_path: Path) -> None:
    if find_spec(framework) is None:
        pytest.skip(f"needs {framework}; tox -e tests has it")
    with SimulatedAppStore() as store, reserved_port() as port:
        settings = Settings(
            database=tmp_path / "r.db",
            bundle_ids=("com.example.game",),
            apple_roots=store.write_files(tmp_path / "apple").roots,
        )
        environ = {
            "RECEIPT_ACTORS_DATABASE": str(settings.database),
            "RECEIPT_ACTORS_BUNDLE_IDS": "com.example.game",
            "RECEIPT_ACTORS_APPLE_ROOTS": str(settings.apple_roots),
        }
        receipt = store.sell_signed(SampleReceipt("com.example.game", (Purchase("t-1", quantity=2),)))
        purchases = f"http://127.0.0.1:{port}/purchases"

        def buy() -> int:
            return requests.post(
                purchases, json={"receipt": receipt, "user_id": 42}, timeout=PATIENCE_SECONDS
            ).status_code

        def verdict() -> object:
            answer = requests.get(f"{purchases}/{submission_id}", timeout=PATIENCE_SECONDS)
            return answer.json() if answer.status_code == 200 else None

        with served(framework, tmp_path, port, environ):
            until(buy, 202)
            submission_id = requests.post(
                purchases, json={"receipt": receipt, "user_id": 42}, timeout=PATIENCE_SECONDS
            ).json()["submission_id"]
            until(verdict, OK)
            assert coins(tmp_path) == 200
            with open_handler(settings) as apple_tells:
                for notification_type, wanted, left in (("REFUND", INVALID, 0), ("REFUND_REVERSED", OK, 200)):
                    notification = store.notify(notification_type, "t-1")
                    assert apple_tells.handle(notification.body).status == 200
                    until(verdict, wanted)
                    assert coins(tmp_path) == left
                    assert buy() == 202
            assert (
                requests.post(purchases, json={"receipt": [], "user_id": 42}, timeout=PATIENCE_SECONDS).status_code
                == 400
            )
        assert coins(tmp_path) == 200


def coins(folder: Path) -> int:
    with closing(sqlite3.connect(folder / "game.db", timeout=PATIENCE_SECONDS)) as database:
        (row,) = database.execute("SELECT coins FROM wallets WHERE user_id = 42").fetchall()
    return int(row[0])
