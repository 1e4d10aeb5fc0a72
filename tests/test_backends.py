"""Which clients a program gets: for Apple libcurl or requests; for AWS one thread, or one for each call."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import botocore.handlers
import pytest

from receipt_actors.backends import open_backend
from receipt_actors.cli.start import files_needed
from receipt_actors.errors import ConfigurationError
from receipt_actors.sandbox.app_store import SimulatedAppStore
from receipt_actors.settings import Settings
from receipt_actors.stores.apple.ports import begin_of
from tests.patience import PATIENCE_SECONDS


def settings_of(folder: Path, **more: object) -> Settings:
    return Settings(database=folder / "receipts.db", bundle_ids=("com.example.game",), **more)


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


TRANSPORTS = pytest.mark.parametrize(
    ("transport", "proxy", "may_transfer"),
    [("auto", None, True), ("threads", None, False), ("auto", "http://127.0.0.1:1", False)],
)


@TRANSPORTS
def test_apple_is_asked_without_threads_where_that_is_possible(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, transport: str, proxy: str | None, may_transfer: bool
) -> None:
    if proxy is not None:
        monkeypatch.setenv("https_proxy", proxy)
    with closing(open_backend(settings_of(tmp_path, transport=transport))) as backend:
        assert (begin_of(backend.app_store) is not None) == may_transfer


def test_the_whole_program_runs_without_pycurl(tmp_path: Path) -> None:
    (tmp_path / "pycurl.py").write_text("raise ImportError('no pycurl here')\n")
    environ = os.environ | {"PYTHONPATH": str(tmp_path)}
    command = [sys.executable, "-m", "receipt_actors", "demo", "--messages", "20"]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=PATIENCE_SECONDS)
    assert "All 20 messages came out as they should" in done.stdout, done.stderr


def test_a_connection_is_a_file(tmp_path: Path) -> None:
    few, many = (files_needed(settings_of(tmp_path, app_store_concurrency=number)) for number in (100, 1100))
    assert many - few == 1000
    threads = settings_of(tmp_path, transport="threads", app_store_concurrency=100)
    assert files_needed(threads) - few == 100  # connections to production and to the sandbox are kept apart


@TRANSPORTS
def test_aws_is_called_without_threads_where_that_is_possible(
    monkeypatch: pytest.MonkeyPatch, transport: str, proxy: str | None, may_transfer: bool
) -> None:
    # Without the handlers of moto, which other tests may have imported.
    handlers = [each for each in botocore.handlers.BUILTIN_HANDLERS if each[0] != "before-send"]
    monkeypatch.setattr(botocore.handlers, "BUILTIN_HANDLERS", handlers)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://aws.invalid")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")
    if proxy is not None:
        monkeypatch.setenv("http_proxy", proxy)
    settings = Settings(backend="aws", bundle_ids=("com.example.game",), transport=transport)
    with closing(open_backend(settings)) as backend:
        assert (backend.background_calls is not None) == may_transfer


def test_the_embedded_backend_has_threads(tmp_path: Path) -> None:
    with closing(open_backend(settings_of(tmp_path))) as backend:
        assert backend.background_calls is None


def loaded_by(script: str, *arguments: object) -> set[str]:
    script += "\nimport sys; print(*{name.partition('.')[0] for name in sys.modules})"
    command = [sys.executable, "-c", script, *map(str, arguments)]
    return set(
        subprocess.run(command, capture_output=True, text=True, check=True, timeout=PATIENCE_SECONDS).stdout.split()
    )


def test_what_apple_signs_costs_nothing_where_nothing_signed_comes(tmp_path: Path) -> None:
    """Apple's library and the cryptography under it take longer to import than all the rest."""
    script = """
import pathlib, sys
from receipt_actors.backends import open_backend
from receipt_actors.cli import verify
from receipt_actors.settings import Settings
open_backend(Settings(database=pathlib.Path(sys.argv[1]) / "r.db", bundle_ids=("com.example.game",))).close()
"""
    loaded = loaded_by(script, tmp_path)
    assert not loaded & {"appstoreserverlibrary", "cryptography", "jwt", "asn1", "OpenSSL"}


def test_the_server_api_has_its_client(tmp_path: Path) -> None:
    with SimulatedAppStore() as store:
        files = store.write_files(tmp_path)
    names = {"server_api_key_id": files.key_id, "server_api_issuer_id": files.issuer_id}
    in_a_line = files.key.read_text().replace("\n", "\\n")
    for key in ({"server_api_key": str(files.key)}, {"server_api_key": in_a_line}):
        settings = settings_of(tmp_path, app_receipts="server-api", **names, **key)
        with closing(open_backend(settings)) as backend:
            assert begin_of(backend.server_api) is not None
    with closing(open_backend(settings_of(tmp_path))) as backend:
        assert backend.server_api is None


def test_what_is_wrong_with_signatures_is_told_at_the_start(tmp_path: Path) -> None:
    roots = tmp_path / "roots"
    roots.mkdir()
    with pytest.raises(ConfigurationError, match="roots"):
        open_backend(settings_of(tmp_path, apple_roots=roots))
    key = {"server_api_key": "BEGIN none", "server_api_key_id": "K", "server_api_issuer_id": "I"}
    with pytest.raises(ConfigurationError, match=r"expected the text of the \.p8 file"):
        open_backend(settings_of(tmp_path, app_receipts="server-api", **key))
