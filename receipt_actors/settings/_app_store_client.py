"""Which client can ask Apple here, and how many requests it can have under way."""

from __future__ import annotations

import re
import select
from typing import Literal

from receipt_actors.domain.limits import MAX_BLOCKING_CONCURRENCY, MAX_CURL_CONCURRENCY

INSTALL_CURL = "pip install 'receipt-actors[fast]'"


def default_app_store_client() -> Literal["curl", "requests"]:
    """Say which client ``auto`` takes here."""
    return "curl" if is_curl("auto") else "requests"


def most_requests(client: str) -> int:
    """How many requests to Apple one process can have under way."""
    return MAX_CURL_CONCURRENCY if is_curl(client) else MAX_BLOCKING_CONCURRENCY


def is_curl(client: str) -> bool:
    """Say whether so configured a client is the one on curl."""
    return client == "curl" or (client == "auto" and curl_fault() is None)


def curl_fault() -> str | None:
    """Say why the client on curl can't be used; None where it can."""
    if not hasattr(select, "epoll"):
        return "it would need Linux's epoll"
    try:
        import pycurl
    except ImportError as error:  # also where it is there, and its libcurl is not, or has another TLS library
        return str(error)
    found = pycurl.version.split()[0]  # such as PycURL/7.49.0
    if tuple(map(int, re.findall(r"[0-9]+", found)[:2])) < (7, 49):  # a distribution's own, say
        return f"{found} is older than 7.49"
    return None
