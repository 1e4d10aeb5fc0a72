"""Opens what asks Apple, or verifies what Apple signs, as the settings say."""

from __future__ import annotations

import select
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import UUID

from receipt_actors.domain.policy import AccountTokens, Policy, TokenRule, token_by_number, token_by_uuid5
from receipt_actors.domain.receipts import ProductType
from receipt_actors.errors import ConfigurationError
from receipt_actors.stores.apple.ports import SignatureRefused
from receipt_actors.stores.apple.settings import AppStoreSettings, PolicySettings, SignatureSettings, path_of
from receipt_actors.stores.apple.signatures.on_demand import SignedDataOnDemand
from receipt_actors.stores.apple.signatures.processes import SignedDataProcesses
from receipt_actors.stores.apple.signatures.roots import foreign_name
from receipt_actors.stores.apple.signatures.signed_data import open_signed_data, read_trust
from receipt_actors.stores.apple.signatures.threads import SignedDataThreads

if TYPE_CHECKING:
    from receipt_actors.stores.apple.client.curl_client import CurlVerifyReceiptClient
    from receipt_actors.stores.apple.client.requests_client import VerifyReceiptClient
    from receipt_actors.stores.apple.client.server_api_client import ServerApiClient
    from receipt_actors.stores.apple.signatures.apple_library import AppleSignedData
    from receipt_actors.stores.apple.signatures.signed_data import Trust


CONNECT_SHARE = 0.3  #: of the time to wait for an answer: to connect
SIGNATURE_PROCESSES = 1  #: beside each process that works; more would help only where this one is always busy


def policy_of(settings: PolicySettings) -> Policy:
    """Return what the settings accept."""

    def allowed(names: tuple[str, ...]) -> frozenset[str] | None:
        return None if "*" in names else frozenset(names)

    types = allowed(settings.product_types)
    return Policy(
        allowed(settings.bundle_ids),
        allowed(settings.product_ids),
        frozenset(settings.environments),
        product_types=None if types is None else frozenset(map(ProductType, types)),
        takes_family_shared=settings.family_sharing == "accept",
        account_tokens=_account_tokens(settings),
    )


def _account_tokens(settings: PolicySettings) -> AccountTokens | None:
    if settings.app_account_token == "ignore":
        return None
    namespace = settings.app_account_token_rule
    rule: TokenRule = token_by_uuid5(namespace) if isinstance(namespace, UUID) else token_by_number
    return AccountTokens(rule, required=settings.app_account_token == "require")


def open_app_store(settings: AppStoreSettings, *, max_connections: int = 1) -> VerifyReceiptClient:
    """Make a blocking client for Apple's verifyReceipt, or for what stands in for it; no request is made."""
    from receipt_actors.stores.apple.client.requests_client import VerifyReceiptClient  # who has curl does without

    return VerifyReceiptClient(*_app_store_arguments(settings), pool_size=max_connections)


def open_server_api(settings: AppStoreSettings, *, max_connections: int = 1) -> ServerApiClient:
    """Make a client for the App Store Server API, or for what stands in for it; no request is made.

    Raises ``ConfigurationError`` where the key is none.
    """
    from receipt_actors.stores.apple.client.server_api_client import (  # who has verifyReceipt does without
        ServerApiClient,
        Token,
    )

    key_id, issuer_id = settings.server_api_key_id, settings.server_api_issuer_id
    assert key_id is not None and issuer_id is not None, "the settings see to it"
    return ServerApiClient(
        *settings.server_api_urls,
        Token(_server_api_key(settings), key_id, issuer_id, bundle_id=settings.bundle_ids[0]),
        CONNECT_SHARE * settings.app_store_read_timeout_seconds,
        settings.app_store_read_timeout_seconds,
        pool_size=max_connections,
    )


def _server_api_key(settings: AppStoreSettings) -> str:
    assert settings.server_api_key is not None, "the settings see to it"
    key = settings.server_api_key.get_secret_value()
    if "BEGIN" in key:
        return key.replace("\\n", "\n")  # as files of variables often have it
    try:
        return Path(path_of(key)).read_text(encoding="ascii")
    except (OSError, ValueError):
        raise ConfigurationError([f"server_api_key: found {key!r}, expected a .p8 file that can be read"]) from None


def open_signatures(settings: SignatureSettings) -> AppleSignedData:
    """Open what verifies Apple's signatures on the thread that calls.

    Raises ``ConfigurationError`` where the root certificates are none.
    """
    return open_signed_data(_trust(settings))


def foreign_roots(settings: SignatureSettings) -> Sequence[str]:
    """Name the trusted root certificates that are not Apple's: whoever has their keys can make purchases that count.

    Raises what ``open_signatures`` raises.
    """
    if settings.apple_roots is None:
        return ()
    return tuple(name for root in _trust(settings).roots if (name := foreign_name(root)) is not None)


def signer_of(settings: SignatureSettings, signed: str) -> str:
    """Say whose signature a transaction has that was verified with ``open_signatures``."""
    trust = _trust(settings)
    for root in trust.roots:
        name = foreign_name(root)
        one = open_signed_data(replace(trust, roots=(root,)))
        if name is not None and not isinstance(one.verify_transaction(signed), SignatureRefused):
            return f"{name!r}, a root certificate of apple_roots that is not Apple's"
    return "Apple"


def open_signed_data_calls(settings: AppStoreSettings) -> SignedDataProcesses | SignedDataOnDemand:
    """Open what loads nothing of Apple's library, nor starts a process, before there is a signature to verify."""
    if settings.apple_roots is not None or settings.uses_server_api:
        _trust(settings)  # who asks for signatures hears of what is wrong with them at the start
    if hasattr(select, "epoll"):
        return SignedDataProcesses(lambda: _trust(settings), SIGNATURE_PROCESSES)
    return SignedDataOnDemand(lambda: SignedDataThreads(open_signatures(settings)))


def _trust(settings: SignatureSettings) -> Trust:
    return read_trust(settings.apple_roots, () if settings.app_apple_id is None else (settings.app_apple_id,))


def open_curl_client(settings: AppStoreSettings, *, max_connections: int) -> CurlVerifyReceiptClient:
    """Make a client for Apple's verifyReceipt that has many requests under way on one thread; none is made."""
    from receipt_actors.stores.apple.client.curl_client import CurlVerifyReceiptClient  # pycurl may be missing

    return CurlVerifyReceiptClient(*_app_store_arguments(settings), max_connections=max_connections)


def _app_store_arguments(settings: AppStoreSettings) -> tuple[str, str, str | None, float, float]:
    secret = settings.shared_secret
    return (
        *settings.verify_receipt_urls,
        None if secret is None else secret.get_secret_value(),
        CONNECT_SHARE * settings.app_store_read_timeout_seconds,
        settings.app_store_read_timeout_seconds,
    )
