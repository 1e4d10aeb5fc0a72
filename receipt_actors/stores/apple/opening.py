"""Opens what asks Apple, or verifies what Apple signs, as the settings say."""

from __future__ import annotations

import select
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import UUID

from receipt_actors.domain.policy import AccountTokens, Policy, TokenRule, token_by_number, token_by_uuid5
from receipt_actors.domain.ports import Environment
from receipt_actors.domain.receipts import ProductType
from receipt_actors.errors import ConfigurationError
from receipt_actors.stores.apple.ports import SignatureRefused, SignedKind
from receipt_actors.stores.apple.settings import AppStoreSettings, PolicySettings, SignatureSettings, path_of
from receipt_actors.stores.apple.signatures.process import SignedDataAtOnce, SignedDataProcess
from receipt_actors.stores.apple.signatures.trust import Trust, foreign_name, open_signed_data, read_trust

if TYPE_CHECKING:
    from receipt_actors.stores.apple.client.endpoints import Endpoint
    from receipt_actors.stores.apple.client.server_api_client import ServerApiClient
    from receipt_actors.stores.apple.client.verify_receipt_client import VerifyReceiptClient
    from receipt_actors.stores.apple.signatures.apple_library import AppleSignedData
    from receipt_actors.transport.curl import CurlTransport
    from receipt_actors.transport.messages import Transport


CONNECT_SHARE = 0.3  #: of the time to wait for an answer: to connect


def policy_of(settings: PolicySettings) -> Policy:
    def allowed(names: tuple[str, ...]) -> frozenset[str] | None:
        return None if "*" in names else frozenset(names)

    types = allowed(settings.product_types)
    use, namespace = settings.app_account_token, settings.app_account_token_rule
    rule: TokenRule = token_by_uuid5(namespace) if isinstance(namespace, UUID) else token_by_number
    return Policy(
        allowed(settings.bundle_ids),
        allowed(settings.product_ids),
        frozenset(settings.environments),
        product_types=None if types is None else frozenset(map(ProductType, types)),
        takes_family_shared=settings.family_sharing == "accept",
        account_tokens=None if use == "ignore" else AccountTokens(rule, required=use == "require"),
    )


def open_app_store(
    settings: AppStoreSettings, *, max_connections: int = 1, curl: CurlTransport | None = None
) -> VerifyReceiptClient:
    """Make a client; it runs on ``curl`` and does not block, unless that is None or there is a proxy."""
    from receipt_actors.stores.apple.client.verify_receipt_client import VerifyReceiptClient

    secret = settings.shared_secret
    transport, endpoints = _network(settings, settings.verify_receipt_urls, max_connections, curl)
    return VerifyReceiptClient(transport, endpoints, None if secret is None else secret.get_secret_value())


def open_server_api(
    settings: AppStoreSettings, *, max_connections: int = 1, curl: CurlTransport | None = None
) -> ServerApiClient:
    """Make a client, as ``open_app_store`` does. Raises ``ConfigurationError`` if the key is none."""
    from receipt_actors.stores.apple.client.server_api_client import ServerApiClient, Token  # not for verifyReceipt

    key_id, issuer_id = settings.server_api_key_id, settings.server_api_issuer_id
    assert key_id is not None and issuer_id is not None, "the settings see to it"
    transport, endpoints = _network(settings, settings.server_api_urls, max_connections, curl)
    token = Token(_server_api_key(settings), key_id, issuer_id, bundle_id=settings.bundle_ids[0])
    return ServerApiClient(transport, endpoints, token)


def _network(
    settings: AppStoreSettings, urls: tuple[str, str], max_connections: int, curl: CurlTransport | None
) -> tuple[Transport, Mapping[Environment, Endpoint]]:
    from receipt_actors.stores.apple.client.endpoints import endpoints_at

    seconds = settings.app_store_read_timeout_seconds
    endpoints = endpoints_at(*urls, CONNECT_SHARE * seconds, seconds)
    if curl is not None and all(endpoint.proxy is None for endpoint in endpoints.values()):
        return curl, endpoints
    from receipt_actors.transport.blocking import BlockingTransport  # takes its time to import, and curl has no need

    return BlockingTransport(max_connections), endpoints


def _server_api_key(settings: AppStoreSettings) -> str:
    assert settings.server_api_key is not None, "the settings see to it"
    key = settings.server_api_key.get_secret_value()
    if "BEGIN" in key:
        return key.replace("\\n", "\n")  # as files of variables often have it
    try:
        return Path(path_of(key)).read_text(encoding="ascii")
    except (OSError, ValueError):
        # Not quoted: it may be the key itself, without its first line.
        expected = "expected a private key (-----BEGIN PRIVATE KEY-----...), or a .p8 file that can be read"
        raise ConfigurationError([f"server_api_key: found neither, {expected}"]) from None


def open_signatures(settings: SignatureSettings) -> AppleSignedData:
    """Open what verifies on the thread that calls. Raises ``ConfigurationError`` if a root certificate is none."""
    return open_signed_data(_trust(settings))


def foreign_roots(settings: SignatureSettings) -> Sequence[str]:
    """Name the trusted root certificates that are not Apple's: with their keys one can make purchases that count."""
    if settings.apple_roots is None:
        return ()
    return tuple(name for root in _trust(settings).roots if (name := foreign_name(root)) is not None)


def signer_of(settings: SignatureSettings, signed: str) -> str:
    """Say whose signature a transaction has that was verified with ``open_signatures``."""
    trust = _trust(settings)
    for root in trust.roots:
        name = foreign_name(root)
        one = open_signed_data(replace(trust, roots=(root,)))
        if name is not None and not isinstance(one.verify(SignedKind.TRANSACTION, signed), SignatureRefused):
            return f"{name!r}, a root certificate of apple_roots that is not Apple's"
    return "Apple"


def open_signed_data_calls(settings: AppStoreSettings) -> SignedDataProcess | SignedDataAtOnce:
    """Open what loads nothing of Apple's library, nor starts a process, before there is a signature to verify."""
    if settings.apple_roots is not None or settings.uses_server_api:
        _trust(settings)  # who asks for signatures hears of what is wrong with them at the start
    if hasattr(select, "epoll"):
        return SignedDataProcess(lambda: _trust(settings))
    return SignedDataAtOnce(lambda: open_signatures(settings))


def _trust(settings: SignatureSettings) -> Trust:
    return read_trust(settings.apple_roots, () if settings.app_apple_id is None else (settings.app_apple_id,))
