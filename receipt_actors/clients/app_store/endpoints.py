"""What is asked of verifyReceipt, and where: the same for every adapter, worked out once."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final
from urllib.parse import urlsplit

import requests
from requests.utils import DEFAULT_CA_BUNDLE_PATH, select_proxy

from receipt_actors.domain.ports import Environment
from receipt_actors.errors import ConfigurationError

HEADERS: Final[Mapping[str, str]] = MappingProxyType(
    {"Content-Type": "application/json", "Accept-Encoding": "gzip", "User-Agent": "receipt-actors"}
)

# Base64 and signed transactions consist of these, and so stand for themselves in JSON.
_PLAIN = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/=-_."


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where one environment is asked, and how to get there."""

    url: str  #: as it is sent: percent-encoded, a host's name in ASCII
    proxies: Mapping[str, str]  #: of the process environment, by scheme; empty where ``NO_PROXY`` names the host
    verify: bool | str  #: True, or the path of a CA bundle (a file, or a directory); never False

    @property
    def proxy(self) -> str | None:
        """The one proxy that this URL goes through."""
        proxy: str | None = select_proxy(self.url, dict(self.proxies))
        return proxy

    @property
    def ca_bundle(self) -> str:
        """The file or directory of those who may vouch for a server; requests' own where nothing else is said."""
        return self.verify if isinstance(self.verify, str) else DEFAULT_CA_BUNDLE_PATH


def endpoints_at(production_url: str, sandbox_url: str) -> Mapping[Environment, Endpoint]:
    """Read the process environment for both URLs. Raises ``ConfigurationError`` for what is no HTTP URL."""
    urls = {Environment.PRODUCTION: production_url, Environment.SANDBOX: sandbox_url}
    faults = [fault for environment, url in urls.items() if (fault := _url_fault(environment, url))]
    if faults:
        raise ConfigurationError(faults)
    return {environment: _endpoint_at(url) for environment, url in urls.items()}


def _endpoint_at(url: str) -> Endpoint:
    with requests.Session() as session:
        environment = session.merge_environment_settings(url, {}, None, True, None)
    sent_url = requests.Request("POST", url).prepare().url
    assert sent_url is not None
    return Endpoint(sent_url, dict(environment["proxies"]), environment["verify"] or True)


def _url_fault(environment: Environment, url: str) -> str | None:
    try:
        requests.Request("POST", url).prepare()
        if urlsplit(url).scheme in ("http", "https"):
            return None
    except ValueError:  # the base of requests' complaints about URLs
        pass
    return f"URL of the {environment} App Store: found {url!r}, expected https://host/path"


class Questions:
    """Writes the bodies of requests."""

    def __init__(self, shared_secret: str | None) -> None:
        self._shared_secret = shared_secret
        self._end = b"}" if shared_secret is None else b', "password": ' + json.dumps(shared_secret).encode() + b"}"

    def body(self, receipt_data: str) -> bytes:
        """Return the JSON object that asks about a receipt.

        Nearly every receipt needs no escapes: to see that and to copy it takes 5 us for 7 KB, ``json.dumps`` 18 us.
        """
        quoted = receipt_data.encode("utf-8", "replace")
        quoted = json.dumps(receipt_data).encode() if quoted.translate(None, _PLAIN) else b'"' + quoted + b'"'
        return b'{"receipt-data": ' + quoted + self._end

    def secrets(self, receipt_data: str) -> list[str]:
        """List what no error may quote."""
        return [secret for secret in (receipt_data, self._shared_secret) if secret]
