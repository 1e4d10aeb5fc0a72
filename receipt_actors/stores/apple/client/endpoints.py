"""What is asked of verifyReceipt, and where: the same for every adapter, worked out once."""

from __future__ import annotations

import json
import os
import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final
from urllib.parse import urlsplit

import requests
from requests.utils import DEFAULT_CA_BUNDLE_PATH, select_proxy
from urllib3.util import parse_url

from receipt_actors.domain.ports import Environment
from receipt_actors.errors import ConfigurationError

HEADERS: Final[Mapping[str, str]] = MappingProxyType(
    {"Content-Type": "application/json", "Accept-Encoding": "gzip", "User-Agent": "receipt-actors"}
)

_BUNDLE_VARIABLES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")  # as requests looks for them
_PROXY_SCHEMES = ("http", "https", "socks4", "socks4a", "socks5", "socks5h")

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
    """Read the process environment for both URLs.

    Raises:
        ConfigurationError: one is no HTTP URL; or the environment names a proxy or a CA bundle that can't be used,
            which would look like an outage of Apple for ever.
    """
    urls = {Environment.PRODUCTION: production_url, Environment.SANDBOX: sandbox_url}
    faults = [fault for environment, url in urls.items() if (fault := _url_fault(environment, url))]
    if faults:
        raise ConfigurationError(faults)
    endpoints = {environment: _endpoint_at(url) for environment, url in urls.items()}
    found = [fault for endpoint in endpoints.values() for fault in (_proxy_fault(endpoint), _bundle_fault(endpoint))]
    faults = list(dict.fromkeys(fault for fault in found if fault is not None))  # mostly both URLs have the same
    if faults:
        raise ConfigurationError(faults)
    return endpoints


def _endpoint_at(url: str) -> Endpoint:
    with requests.Session() as session:
        environment = session.merge_environment_settings(url, {}, None, True, None)
    sent_url = requests.Request("POST", url).prepare().url
    assert sent_url is not None
    proxies = {scheme: _with_scheme(proxy) for scheme, proxy in environment["proxies"].items()}
    return Endpoint(sent_url, proxies, environment["verify"] or True)


def _with_scheme(proxy: str) -> str:
    """Read ``localhost:3128`` as libcurl does; requests takes that for a scheme."""
    return proxy if "://" in proxy else f"http://{proxy}"


def _proxy_fault(endpoint: Endpoint) -> str | None:
    proxy = endpoint.proxy
    if proxy is None:
        return None
    try:
        parsed = parse_url(proxy)
        if parsed.host and parsed.scheme in _PROXY_SCHEMES:
            return None
    except ValueError:  # the base of urllib3's complaints about URLs
        pass
    found = re.sub(r"//.*@", "//**********@", proxy)
    return f"{_proxy_variable(proxy)}: found {found!r}, expected a proxy such as http://host:3128; correct or unset it"


def _proxy_variable(proxy: str) -> str:
    for name, value in os.environ.items():
        if name.lower().endswith("_proxy") and _with_scheme(value) == proxy:
            return name
    return "proxy of this machine"  # macOS and Windows have settings of their own


def _bundle_fault(endpoint: Endpoint) -> str | None:
    bundle, proxy = endpoint.verify, endpoint.proxy or ""
    is_asked = endpoint.url.startswith("https:") or proxy.startswith("https:")
    if not isinstance(bundle, str) or not is_asked or os.path.isdir(bundle):
        return None
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(bundle)
    except OSError as error:  # there is none, it can't be read, or it holds no certificate
        name = next((name for name in _BUNDLE_VARIABLES if os.environ.get(name) == bundle), "CA bundle")
        return (
            f"{name}: found {bundle!r}, expected a file of PEM certificates or a folder of them; "
            f"{error.strerror or error}; correct or unset it"
        )
    return None


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
        self._end = _end(shared_secret)

    def body(self, receipt_data: str, shared_secret: str | None = None) -> bytes:
        """Return the JSON object that asks about a receipt.

        Nearly every receipt needs no escapes: to see that and to copy it takes 5 us for 7 KB, ``json.dumps`` 18 us.
        """
        quoted = receipt_data.encode("utf-8", "replace")
        quoted = json.dumps(receipt_data).encode() if quoted.translate(None, _PLAIN) else b'"' + quoted + b'"'
        return b'{"receipt-data": ' + quoted + (self._end if shared_secret is None else _end(shared_secret))

    def secrets(self, receipt_data: str, shared_secret: str | None = None) -> list[str]:
        """List what no error may quote."""
        return [secret for secret in (receipt_data, shared_secret or self._shared_secret) if secret]


def _end(shared_secret: str | None) -> bytes:
    return b"}" if shared_secret is None else b', "password": ' + json.dumps(shared_secret).encode() + b"}"
