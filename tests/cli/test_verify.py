"""``receipt-actors verify``: what Apple says, what we would answer, and that nothing is claimed by asking."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from receipt_actors.aws import AwsLedger
from receipt_actors.domain.ports import Environment, Ledger, LedgerItem
from receipt_actors.sandbox.app_store import SimulatedAppStore
from receipt_actors.sandbox.apple_ca import Flaw
from receipt_actors.sandbox.http_server import HttpServer, Reply, response
from receipt_actors.sandbox.receipts import Fault, Purchase, SampleReceipt, Shape, forge, mint
from receipt_actors.sqlite import EmbeddedLedger

from .conftest import BUNDLE_ID, TABLE, EmbeddedWorld, Ended, World

Cli = Callable[..., Ended]
NOW_MS = int(time.time() * 1000)
COINS = Purchase("1000", "coins", quantity=2)
REFUNDED = Purchase("2000", "gems", cancelled_at_ms=NOW_MS)
EXPIRED = Purchase("3000", "gold", expires_at_ms=NOW_MS - 1000)
FORGED = forge(SampleReceipt(BUNDLE_ID, (COINS,)))


@pytest.fixture
def store_flags(store: SimulatedAppStore) -> list[str]:
    return [*("--bundle-ids", BUNDLE_ID), *("--app-store-url", store.url)]


@pytest.fixture
def ledger(world: World) -> Iterator[Ledger]:
    with closing(EmbeddedLedger(world.database) if isinstance(world, EmbeddedWorld) else AwsLedger(TABLE)) as ledger:
        yield ledger


def receipt(*purchases: Purchase, bundle_id: str = BUNDLE_ID, **fields: Any) -> str:
    return mint(SampleReceipt(bundle_id, purchases, **fields))


def claim_of(transaction_id: str, user_id: int) -> LedgerItem:
    environment = Environment.PRODUCTION
    return LedgerItem(transaction_id, "s-1", "m-1", user_id, "ab" * 32, None, None, environment, "Q", "R", 1.7e9)


class TestGenuine:
    def test_each_transaction_has_its_verdict(self, cli: Cli, store_flags: list[str]) -> None:
        ended = cli("verify", *store_flags, "--json", receipt(COINS, REFUNDED, EXPIRED))
        (told,) = ended.lines
        assert ended.code == 0
        transactions = told.pop("transactions")
        assert told == {
            "way": "verify-receipt",
            "asked": "Production",
            "status": 0,
            "meaning": "valid",
            "genuine": True,
            "environment": "Production",
            "bundle_id": BUNDLE_ID,
            "outcome": "answered, transaction by transaction",
            "acceptable": True,
            "looked_up": False,
        }
        verdicts = {each["transaction_id"]: (each["verdict"], each["reason"]) for each in transactions}
        assert verdicts == {"1000": ("OK", "claimed"), "2000": ("INVALID", "refunded"), "3000": ("INVALID", "expired")}
        (coins,) = [each for each in transactions if each["transaction_id"] == "1000"]
        assert (coins["product_id"], coins["quantity"], coins["claimed_by"]) == ("coins", 2, None)

    def test_people_get_a_table(self, cli: Cli, store_flags: list[str], tmp_path: Path) -> None:
        path = tmp_path / "receipt.txt"
        path.write_text(receipt(COINS, REFUNDED) + "\n")
        ended = cli("verify", *store_flags, "--receipt-file", path)
        assert cli("verify", *store_flags, "--receipt-file", "-", stdin=path.read_bytes()) == ended
        assert ended.out.startswith(f"Production says 0: valid\nenvironment Production, bundle id {BUNDLE_ID}\n")
        rows = {line.split()[0]: line.split()[1:] for line in ended.out.splitlines() if line.strip()}
        assert rows["1000"] == ["coins", "2023-11-14", "22:13", "OK", "claimed"]
        assert rows["2000"] == ["gems", "2023-11-14", "22:13", "INVALID", "refunded"]
        assert "--look-up asks the ledger" in ended.out

    def test_a_date_beyond_all_calendars_is_shown_all_the_same(self, cli: Cli) -> None:
        entry = {"transaction_id": "1", "expires_date_ms": "1000000000000000"}
        answer = {"status": 0, "receipt": {"bundle_id": BUNDLE_ID, "in_app": [entry]}, "environment": "Production"}
        reply = Reply(response(200, json.dumps(answer).encode(), "application/json"))
        server = HttpServer(lambda _: reply).start()
        try:
            ended = cli("verify", "--bundle-ids", BUNDLE_ID, "--app-store-url", server.url, "TUlJ")
        finally:
            server.stop()
        assert (ended.code, ended.err) == (0, "")
        assert "1000000000000 s" in ended.out

    def test_what_apple_says_cannot_write_on_the_terminal(self, cli: Cli, store_flags: list[str]) -> None:
        ended = cli("verify", *store_flags, receipt(Purchase("1", product_id="[red]x[/red]")))
        assert "[red]x[/red]" in "".join(ended.out.split())


class TestRefused:
    @pytest.mark.parametrize(
        ("sample", "flags", "status", "outcome"),
        [
            (FORGED, [], 21003, "dead-letter queue, not_authentic"),
            (FORGED, ["--unidentified", "reply"], 21003, "INVALID without a transaction id, not_authentic"),
            ("TUlJ", [], 21002, "tried again, in the end the dead-letter queue, receipt_malformed"),
            (receipt(COINS, faults=(Fault.apple(21005),) * 2), [], 21005, "tried again, in the end another delivery"),
            (receipt(COINS, status=21004), [], 21004, "no answer until this is put right"),
            (receipt(COINS, environment=Environment.SANDBOX), [], 21007, "dead-letter queue, sandbox_refused"),
            (receipt(), [], 0, "dead-letter queue, no_transaction"),
            (receipt(COINS, bundle_id="com.example.clone"), [], 0, "answered"),
            (receipt(EXPIRED, shape=Shape.TRANSACTION), [], 21006, "answered"),
        ],
    )
    def test_the_exit_code_is_1_and_the_outcome_is_told(
        self, cli: Cli, store_flags: list[str], sample: str, flags: list[str], status: int, outcome: str
    ) -> None:
        ended = cli("verify", *store_flags, *flags, "--json", sample)
        assert (ended.code, ended.err) == (1, "")
        (told,) = ended.lines
        assert (told["status"], told["acceptable"]) == (status, False)
        assert outcome in told["outcome"]
        ended = cli("verify", *store_flags, *flags, sample)
        assert (ended.code, ended.err) == (1, "")
        assert f"says {status}: " in ended.out
        assert outcome in ended.out

    def test_the_sandbox_is_asked_where_the_settings_allow_it(
        self, cli: Cli, store_flags: list[str], store: SimulatedAppStore
    ) -> None:
        flags = [*store_flags, "--environments", "Production,Sandbox"]
        (told,) = cli("verify", *flags, "--json", receipt(COINS, environment=Environment.SANDBOX)).lines
        assert (told["asked"], told["environment"], told["acceptable"]) == ("Sandbox", "Sandbox", True)
        assert store.statistics().requests == {Environment.PRODUCTION: 1, Environment.SANDBOX: 1}

    @pytest.mark.parametrize("sample", ["", "two words", "r\u00e9ceipt"])
    def test_what_is_no_receipt_is_not_sent(
        self, cli: Cli, store_flags: list[str], store: SimulatedAppStore, sample: str
    ) -> None:
        ended = cli("verify", *store_flags, sample)
        assert ended.code == 2
        assert "bad_receipt" in ended.err
        assert not store.statistics().requests

    def test_an_outage_is_told_in_a_line_and_neither_receipt_nor_secret_ever(
        self, cli: Cli, store_flags: list[str], store: SimulatedAppStore
    ) -> None:
        sample = receipt(COINS)
        for is_out in (False, True):
            if is_out:
                store.outage(Fault.html())
            for style in ([], ["--json"]):
                ended = cli("verify", *store_flags, "--shared-secret", "hush-hush", *style, sample)
                for secret in (sample, sample[:40], "hush-hush"):
                    assert secret not in ended.out + ended.err
                assert ended.code == int(is_out)
        assert ended.out == ""
        assert ended.err.startswith("receipt-actors: Production App Store answered HTTP")
        assert len(ended.err.splitlines()) == 1


class TestSigned:
    """Signed transactions of StoreKit 2, and the App Store Server API."""

    @pytest.fixture
    def trusting(self, store: SimulatedAppStore, tmp_path: Path) -> list[str]:
        files = store.write_files(tmp_path)
        return ["--bundle-ids", BUNDLE_ID, "--apple-roots", str(files.roots)]

    @pytest.fixture
    def asking(self, store: SimulatedAppStore, trusting: list[str], tmp_path: Path) -> list[str]:
        files = store.write_files(tmp_path)
        return [
            *trusting,
            *("--app-store-url", store.url),
            *("--app-receipts", "server-api", "--server-api-key", str(files.key)),
            *("--server-api-key-id", files.key_id, "--server-api-issuer-id", files.issuer_id),
        ]

    def test_a_signed_transaction_is_verified_here(
        self, cli: Cli, trusting: list[str], store: SimulatedAppStore
    ) -> None:
        signed = store.sell_signed(SampleReceipt(BUNDLE_ID, (COINS,)))
        ended = cli("verify", *trusting, "--json", signed)
        (told,) = ended.lines
        assert (ended.code, ended.err) == (0, "")
        assert (told["way"], told["asked"], told["status"]) == ("signature", None, None)
        signer = "'Simulated App Store Root CA', a root certificate of apple_roots that is not Apple's"
        assert (told["meaning"], told["environment"]) == (f"signed by {signer}", "Production")
        (transaction,) = told["transactions"]
        assert (transaction["transaction_id"], transaction["verdict"]) == ("1000", "OK")
        assert transaction["product_type"] == "Consumable"
        assert cli("verify", *trusting, signed).out.startswith(f"signed by {signer}\nenvironment Production")
        assert not store.statistics().requests

    def test_a_signature_of_somebody_elses_is_refused_with_its_reason(
        self, cli: Cli, trusting: list[str], store: SimulatedAppStore
    ) -> None:
        signed = store.sell_signed(SampleReceipt(BUNDLE_ID, (COINS,)), flaw=Flaw.FOREIGN_ROOT)
        no_apple = "not signed under a root of apple_roots"
        for flags, told in ((trusting, no_apple), (["--bundle-ids", BUNDLE_ID], "not signed by Apple")):
            ended = cli("verify", *flags, signed)
            assert (ended.code, ended.err) == (1, "")
            assert told in ended.out
            assert "dead-letter queue, jws_foreign_root" in ended.out
            assert signed[:100] not in ended.out

    def test_an_app_receipt_is_looked_up_by_the_server_api(
        self, cli: Cli, asking: list[str], store: SimulatedAppStore
    ) -> None:
        sold = store.sell(SampleReceipt(BUNDLE_ID, (COINS,)))
        ended = cli("verify", *asking, "--json", sold)
        (told,) = ended.lines
        assert (ended.code, ended.err) == (0, "")
        assert (told["way"], told["asked"], told["status"]) == ("server-api", "Production", None)
        assert cli("verify", *asking, sold).out.startswith("Production says yes: it knows transaction 1000\n")
        tested = store.sell(SampleReceipt(BUNDLE_ID, (Purchase("1001"),), environment=Environment.SANDBOX))
        (told,) = cli("verify", *asking, "--environments", "Production,Sandbox", "--json", tested).lines
        assert (told["asked"], told["environment"], told["acceptable"]) == ("Sandbox", "Sandbox", True)

    def test_what_the_server_api_does_not_know_is_refused(self, cli: Cli, asking: list[str]) -> None:
        ended = cli("verify", *asking, receipt(Purchase("9")))
        assert (ended.code, ended.err) == (1, "")
        assert ended.out.startswith("Production says 4040010: transaction id not found\n")
        assert "dead-letter queue, transaction_not_found" in ended.out
        assert "dead-letter queue, no_transaction_id" in cli("verify", *asking, "AAAA").out

    def test_a_token_is_judged_for_a_given_user_only(
        self, cli: Cli, trusting: list[str], store: SimulatedAppStore
    ) -> None:
        token = "00000000-0000-0000-0000-000000000007"
        signed = store.sell_signed(SampleReceipt(BUNDLE_ID, (Purchase("1000", app_account_token=token),)))
        flags = [*trusting, "--app-account-token", "match", "--app-account-token-rule", "integer"]
        assert cli("verify", *flags, signed).code == 0
        assert cli("verify", *flags, "--user-id", "7", signed).code == 0
        ended = cli("verify", *flags, "--user-id", "8", signed)
        assert ended.code == 1
        assert "foreign_account" in ended.out


class TestLookingUp:
    def test_claims_are_told_and_none_is_made(
        self, cli: Cli, world: World, store_flags: list[str], ledger: Ledger
    ) -> None:
        ledger.claim(claim_of("1000", user_id=7))
        sample = receipt(COINS, Purchase("1001"))
        flags = [*world.flags, *store_flags, "--look-up", "--json"]
        (told,) = cli("verify", *flags, sample).lines
        by_id = {each["transaction_id"]: each for each in told["transactions"]}
        assert (by_id["1000"]["verdict"], by_id["1000"]["reason"]) == ("INVALID", "claimed_by_another_user")
        claim = {"user_id": 7, "submission_id": "s-1", "claimed_at_seconds": 1.7e9, "refunded_at_seconds": None}
        assert by_id["1000"]["claimed_by"] == claim
        assert (by_id["1001"]["verdict"], by_id["1001"]["claimed_by"]) == ("OK", None)

        (told,) = cli("verify", *flags, "--user-id", "7", sample).lines
        reasons = {each["transaction_id"]: each["reason"] for each in told["transactions"]}
        assert reasons == {"1000": "already_answered", "1001": "claimed"}
        assert cli("verify", *world.flags, *store_flags, sample).code == 0
        assert ledger.get("1001") is None

    def test_refunds_are_told(self, cli: Cli, embedded: EmbeddedWorld, store_flags: list[str]) -> None:
        ledger = EmbeddedLedger(embedded.database)
        ledger.claim(claim_of("1000", user_id=7))
        ledger.mark_refunded("1000", 1.75e9)
        ledger.mark_refunded("1001", 1.75e9)
        flags = [*embedded.flags, *store_flags, "--look-up"]
        sample = receipt(COINS, Purchase("1001"))
        ended = cli("verify", *flags, sample)
        assert ended.code == 1
        assert (
            "1000 is claimed by user 7 on 2023-11-14 22:13, submission s-1, refunded on 2025-06-15 15:06" in ended.out
        )
        assert "1001 is claimed by nobody, and was refunded on 2025-06-15 15:06" in ended.out
        (told,) = cli("verify", *flags, "--json", sample).lines
        by_id = {each["transaction_id"]: each for each in told["transactions"]}
        reasons = {key: (each["reason"], each["refunded_at_seconds"]) for key, each in by_id.items()}
        # Whose it is, a refund does not change.
        assert reasons == {"1000": ("claimed_by_another_user", 1.75e9), "1001": ("refunded", 1.75e9)}
        assert by_id["1001"]["claimed_by"] is None
        ledger.close()

    def test_without_look_up_no_backend_is_demanded(self, cli: Cli, store_flags: list[str]) -> None:
        assert cli("verify", *store_flags, receipt(COINS)).code == 0
        ended = cli("verify", *store_flags, "--look-up", receipt(COINS))
        assert ended.code == 2
        assert "backend: found nothing" in ended.err
        ended = cli("verify", *store_flags, "--look-up", "--database", "none.db", receipt(COINS))
        assert ended.code == 2
        assert "none.db: found no file" in ended.err
        assert not Path("none.db").exists()
