"""A handler of settings, as an embedding application opens it."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest

from receipt_actors import Settings
from receipt_actors.domain.ports import Tombstone
from receipt_actors.errors import ConfigurationError, LedgerUnavailable, QueueRefused
from receipt_actors.notifications import open_handler
from receipt_actors.sqlite import EmbeddedLedger, EmbeddedQueues
from tests.stores.apple.notifications.posts import AUTHORITY, BUNDLE_ID, CLAIM, INVALID, REFUNDED_AT, RESULTS, Posted
from tests.stores.apple.notifications.posts import transaction_payload as transaction


@pytest.fixture
def roots(tmp_path: Path) -> Path:
    AUTHORITY.write_roots(tmp_path / "roots")
    return tmp_path / "roots"


def settings_of(tmp_path: Path, roots: Path | None, **more: object) -> Settings:
    return Settings(database=tmp_path / "receipts.db", bundle_ids=(BUNDLE_ID,), apple_roots=roots, **more)  # type: ignore[arg-type]


def test_a_handler_of_settings_does_all_of_it(tmp_path: Path, roots: Path) -> None:
    with open_handler(settings_of(tmp_path, roots)) as handler:
        with closing(EmbeddedLedger(tmp_path / "receipts.db")) as ledger:
            ledger.claim(CLAIM)
            assert handler.handle(Posted().body).status == 200
            assert handler.handle(Posted(transaction=transaction("unclaimed")).body).status == 200
            assert ledger.get("unclaimed") == Tombstone("unclaimed", REFUNDED_AT)
        with closing(EmbeddedQueues(tmp_path / "receipts.db")) as queues:
            (told,) = queues.receive(RESULTS, max_messages=10, wait_seconds=0, visibility_timeout_seconds=30)
            assert f'"transaction_id":"{INVALID["transaction_id"]}","status":"INVALID"' in told.body


def test_only_post_queues_are_made(tmp_path: Path, roots: Path) -> None:
    with (
        open_handler(settings_of(tmp_path, roots, post_queues=("One", "Two"))),
        closing(EmbeddedQueues(tmp_path / "receipts.db")) as queues,
    ):
        assert [queues.approximate_number_of_messages(name) for name in ("One", "Two")] == [0, 0]
        with pytest.raises(QueueRefused):
            queues.approximate_number_of_messages("ReceiptsSQS")


def test_what_was_closed_answers_that_it_is_to_come_again(tmp_path: Path, roots: Path) -> None:
    handler = open_handler(settings_of(tmp_path, roots))
    handler.close()
    handler.close()
    assert handler.handle(Posted().body).status == 503


def test_one_app_alone_may_be_expected(tmp_path: Path, roots: Path) -> None:
    with open_handler(settings_of(tmp_path, roots, app_apple_id=1000001)) as handler:
        assert handler.handle(Posted("TEST", None).body).status == 200
        assert handler.handle(Posted("TEST", None, data={"appAppleId": 7}).body).status == 403


def test_settings_that_cannot_work_are_told(tmp_path: Path, roots: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigurationError, match="root certificates"):
        open_handler(settings_of(tmp_path, tmp_path / "empty"))
    (tmp_path / "receipts.db").write_text("no database" * 100)
    with pytest.raises(ConfigurationError, match="not an SQLite database"):
        open_handler(settings_of(tmp_path, roots))


def test_a_table_of_notifications_is_not_the_ledger() -> None:
    with pytest.raises(ConfigurationError, match="a table other than ledger_table"):
        Settings(backend="aws", bundle_ids=(BUNDLE_ID,), ledger_table="claims", notifications_table="claims")


def test_a_ledger_that_goes_away_is_only_unavailable(tmp_path: Path, roots: Path) -> None:
    database = tmp_path / "receipts.db"
    with open_handler(settings_of(tmp_path, roots)) as handler:
        database.rename(tmp_path / "moved.db")
        assert handler.handle(Posted().body).status == 503
        (tmp_path / "moved.db").rename(database)
        assert handler.handle(Posted().body).status == 200
    with closing(EmbeddedLedger(database)) as ledger:
        assert ledger.get(CLAIM.transaction_id) is not None
    with pytest.raises(LedgerUnavailable):
        ledger.get(CLAIM.transaction_id)
