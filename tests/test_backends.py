"""Which client asks Apple: the one on libcurl where pycurl is installed, else the one on requests."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from receipt_actors.backends import open_backend
from receipt_actors.cli.open_files import files_needed
from receipt_actors.clients.app_store import VerifyReceiptClient
from receipt_actors.clients.app_store.curl_client import CurlVerifyReceiptClient
from receipt_actors.settings import Settings


def settings_of(folder: Path, **more: object) -> Settings:
    return Settings(database=folder / "receipts.db", bundle_ids=("com.example.game",), **more)


@pytest.mark.parametrize("client", ["auto", "curl"])
def test_curl_asks_without_threads_that_wait(tmp_path: Path, client: str) -> None:
    """It is both ports: the blocking one for whoever wants it."""
    with closing(open_backend(settings_of(tmp_path, app_store_client=client))) as backend:
        assert isinstance(backend.app_store_transfers, CurlVerifyReceiptClient)
        assert backend.app_store is backend.app_store_transfers


def test_requests_is_taken_where_it_is_asked_for(tmp_path: Path) -> None:
    """Though pycurl is installed."""
    with closing(open_backend(settings_of(tmp_path, app_store_client="requests"))) as backend:
        assert isinstance(backend.app_store, VerifyReceiptClient)
        assert backend.app_store_transfers is None


def test_the_whole_program_runs_without_pycurl(tmp_path: Path) -> None:
    """Every message of the demo comes out as it should where importing pycurl fails, as it does when it is absent."""
    (tmp_path / "pycurl.py").write_text("raise ImportError('no pycurl here')\n")
    environ = os.environ | {"PYTHONPATH": str(tmp_path)}
    command = [sys.executable, "-m", "receipt_actors", "demo", "--messages", "20"]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=120)
    assert "All 20 messages came out as they should" in done.stdout, done.stderr


def test_a_connection_is_a_file(tmp_path: Path) -> None:
    """The limit of open files grows with the requests to Apple that may be under way."""
    few, many = (files_needed(settings_of(tmp_path, app_store_concurrency=number)) for number in (100, 1100))
    assert many - few == 1000
    threads = settings_of(tmp_path, app_store_client="requests", app_store_concurrency=100)
    assert files_needed(threads) - few == 100  # connections to production and to the sandbox are kept apart
