"""Where Apple is asked: URLs of the settings; proxies and authorities of the process environment, read once."""

from __future__ import annotations

import os
import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec

import requests
from requests.utils import DEFAULT_CA_BUNDLE_PATH, select_proxy
from urllib3.util import parse_url

from receipt_actors.domain.ports import Environment
from receipt_actors.errors import ConfigurationError
from receipt_actors.stores.apple.client.verify_receipt_client import MAX_ANSWER_BYTES
from receipt_actors.transport.messages import Server

_BUNDLE_VARIABLES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")  # as requests looks for them
_PROXY_SCHEMES = ("http", "https", "socks4", "socks4a", "socks5", "socks5h")


@dataclass(frozen=True, slots=True)
class Endpoint:
    url: str  #: as it is sent: percent-encoded, a host's name in ASCII
    server: Server

    @property
    def proxy(self) -> str | None:
        proxy: str | None = select_proxy(self.url, dict(self.server.proxies))
        return proxy


def endpoints_at(
    production_url: str, sandbox_url: str, connect_timeout_seconds: float, read_timeout_seconds: float
) -> Mapping[Environment, Endpoint]:
    """Read the process environment for both URLs, which the settings have checked.

    Raises ``ConfigurationError`` for a proxy or a CA bundle that can't be used: it would look like an outage for ever.
    """
    urls = {Environment.PRODUCTION: production_url, Environment.SANDBOX: sandbox_url}
    endpoints = {
        environment: _endpoint_at(url, connect_timeout_seconds, read_timeout_seconds)
        for environment, url in urls.items()
    }
    found = [fault for endpoint in endpoints.values() for fault in (_proxy_fault(endpoint), _bundle_fault(endpoint))]
    faults = list(dict.fromkeys(fault for fault in found if fault is not None))  # mostly both URLs have the same
    if faults:
        raise ConfigurationError(faults)
    return endpoints


def _endpoint_at(url: str, connect_timeout_seconds: float, read_timeout_seconds: float) -> Endpoint:
    with requests.Session() as session:
        environment = session.merge_environment_settings(url, {}, None, True, None)
    try:
        sent_url = requests.Request("POST", url).prepare().url or ""
    except ValueError as error:  # the base of requests' complaints about URLs
        raise ConfigurationError([f"app_store_url: found {url!r}, expected an https URL; {error}"]) from None
    verify = environment["verify"]
    server = Server(
        ca_bundle=verify if isinstance(verify, str) else DEFAULT_CA_BUNDLE_PATH,
        connect_timeout_seconds=connect_timeout_seconds,
        read_timeout_seconds=read_timeout_seconds,
        max_response_bytes=MAX_ANSWER_BYTES,
        shares_memory=True,
        accept_encoding="gzip",
        may_use_http2=True,
        proxies={scheme: _with_scheme(proxy) for scheme, proxy in environment["proxies"].items()},
    )
    return Endpoint(sent_url, server)


def _with_scheme(proxy: str) -> str:
    return proxy if "://" in proxy else f"http://{proxy}"  # requests takes localhost:3128 for a scheme


def _proxy_fault(endpoint: Endpoint) -> str | None:
    proxy = endpoint.proxy
    if proxy is None:
        return None
    if proxy.startswith("socks") and find_spec("socks") is None:
        return f"{_proxy_variable(proxy)}: found SOCKS, expected PySocks to be installed; pip install pysocks"
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
    bundle, proxy = endpoint.server.ca_bundle, endpoint.proxy or ""
    is_asked = endpoint.url.startswith("https:") or proxy.startswith("https:")
    if bundle == DEFAULT_CA_BUNDLE_PATH or not is_asked or os.path.isdir(bundle):
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
