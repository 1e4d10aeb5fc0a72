"""The settings of signed transactions, of the App Store Server API, and of what counts of either."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from receipt_actors.domain.policy import AccountTokens, token_by_number
from receipt_actors.domain.receipts import ProductType
from receipt_actors.domain.service_limits import APPLE_SERVER_API
from receipt_actors.errors import ConfigurationError
from receipt_actors.settings import Settings, load_settings
from receipt_actors.stores.apple.opening import policy_of

ENOUGH = {"bundle_ids": "com.example.game", "backend": "aws"}
KEY = {"server_api_key": "-----BEGIN PRIVATE KEY-----", "server_api_key_id": "K1", "server_api_issuer_id": "I1"}
SERVER_API = {"app_receipts": "server-api", **KEY}
NAMESPACE = "6ba7b810-9dad-11d1-80b4-00c04fd430c8"


def load(**given: object) -> Settings:
    return load_settings({**ENOUGH, **given}, environ={})


def faults(**given: object) -> list[str]:
    with pytest.raises(ConfigurationError) as caught:
        load(**given)
    return list(caught.value.faults)


class TestPolicy:
    def test_by_default_nothing_new_is_refused(self) -> None:
        policy = policy_of(load())
        assert policy.product_types is None
        assert policy.takes_family_shared
        assert policy.account_tokens is None
        assert not policy_of(load(family_sharing="refuse")).takes_family_shared
        (told,) = faults(family_sharing="no")
        assert "accept or refuse" in told

    @pytest.mark.parametrize(
        ("written", "types"),
        [
            ("Consumable", [ProductType.CONSUMABLE]),
            (
                "non-consumable, AUTO-RENEWABLE-SUBSCRIPTION",
                [ProductType.NON_CONSUMABLE, ProductType.AUTO_RENEWABLE_SUBSCRIPTION],
            ),
            (["Non-Renewing Subscription", "non renewing subscription"], [ProductType.NON_RENEWING_SUBSCRIPTION]),
        ],
    )
    def test_product_types_are_apples_words_in_any_spelling(self, written: object, types: list[ProductType]) -> None:
        settings = load(product_types=written)
        assert settings.product_types == tuple(types)
        assert policy_of(settings).product_types == frozenset(types)

    @pytest.mark.parametrize("written", ["Lottery", "*,Consumable", "Consumable,Lottery", ","])
    def test_other_product_types_are_refused(self, written: str) -> None:
        (told,) = faults(product_types=written)
        assert told.startswith("--product-types: found ")
        assert "expected Consumable, Non-Consumable, Auto-Renewable Subscription, Non-Renewing Subscription" in told

    @pytest.mark.parametrize(("word", "required"), [("match", False), ("require", True)])
    def test_tokens_follow_from_user_ids(self, word: str, required: bool) -> None:
        policy = policy_of(load(app_account_token=word, app_account_token_rule="integer"))
        assert policy.account_tokens == AccountTokens(token_by_number, required)
        by_name = policy_of(load(app_account_token=word, app_account_token_rule=NAMESPACE)).account_tokens
        assert by_name is not None
        assert by_name.token_of(42) == "7c411b5e-9d3f-50b5-9c28-62096e41c4ed"  # `uuidgen --sha1 -n @dns -N 42`

    def test_a_name_takes_a_namespace(self) -> None:
        (told,) = faults(app_account_token="match")
        assert told.startswith("app_account_token_rule: found nothing, expected the UUID")
        assert told.endswith("or integer")
        (told,) = faults(app_account_token_rule="mine")
        assert "expected a UUID" in told
        (told,) = faults(app_account_token_rule=NAMESPACE)
        assert told.endswith("expected app_account_token match or require beside it: as it is, no purchase is bound")


class TestSignatures:
    def test_roots_are_a_folder(self, tmp_path: Path) -> None:
        assert load(apple_roots=str(tmp_path)).apple_roots == tmp_path
        (told,) = faults(apple_roots=str(tmp_path / "none"))
        assert told.startswith("--apple-roots: found ")
        assert "expected a folder that exists" in told
        (told,) = faults(app_apple_id="0")
        assert "an integer" in told


class TestServerApi:
    def test_the_servers_are_apples(self) -> None:
        settings = load(**SERVER_API)
        assert settings.uses_server_api
        assert settings.server_api_urls == ("https://api.storekit.apple.com", "https://api.storekit-sandbox.apple.com")
        assert settings.verify_receipt_urls == (
            "https://buy.itunes.apple.com/verifyReceipt",
            "https://sandbox.itunes.apple.com/verifyReceipt",
        )
        simulated = load(**SERVER_API, app_store_url="http://127.0.0.1:8421/")
        assert simulated.server_api_urls == ("http://127.0.0.1:8421/production", "http://127.0.0.1:8421/sandbox")
        assert simulated.verify_receipt_urls[0] == "http://127.0.0.1:8421/production/verifyReceipt"
        (told,) = faults(**SERVER_API, app_store_url="http://apple.example")
        assert "127.0.0.1 only" in told  # a token must not travel in the clear

    def test_requests_keep_to_what_apple_documents(self) -> None:
        assert load(**SERVER_API).limits_of(1).app_store_rate_per_second == 50 == APPLE_SERVER_API.value
        assert "where app_receipts is server-api" in APPLE_SERVER_API.what
        assert load(**SERVER_API, app_store_rate_per_second="20").limits_of(1).app_store_rate_per_second == 20
        assert load().limits_of(1).app_store_rate_per_second is None

    def test_it_takes_a_key_with_its_names(self) -> None:
        told = faults(app_receipts="server-api")
        assert [line.partition(":")[0] for line in told] == [
            "server_api_key",
            "server_api_key_id",
            "server_api_issuer_id",
        ]
        assert all("expected" in line for line in told)

    def test_the_key_is_in_one_place(self, tmp_path: Path) -> None:
        file = tmp_path / "key.p8"
        for given in (str(file), "MIGTAgEAMBMGByqGSM49", "~nobody-of-that-name/key.p8"):
            (told,) = faults(**{**SERVER_API, "server_api_key": given})
            assert "expected a file that can be read" in told
            assert given not in told  # it may be a key without its first line
        file.write_text("-----BEGIN PRIVATE KEY-----")
        assert load(**{**SERVER_API, "server_api_key": str(file)}).uses_server_api

    @pytest.mark.parametrize("bundle_ids", ["*", "com.example.one,com.example.two"])
    def test_it_is_asked_for_one_app(self, bundle_ids: str) -> None:
        (told,) = faults(**SERVER_API, bundle_ids=bundle_ids)
        assert "expected bundle_ids to name one app" in told

    def test_the_key_is_never_shown(self) -> None:
        settings = load(**SERVER_API)
        assert "BEGIN" not in repr(settings) + str(settings.model_dump())
        assert pickle.loads(pickle.dumps(settings)).server_api_key.get_secret_value() == KEY["server_api_key"]
