"""How requests are made here, and how many of them can be under way."""

from __future__ import annotations

import re
import select

from receipt_actors.domain.limits import MAX_BLOCKING_CONCURRENCY, MAX_CURL_CONCURRENCY


def most_requests(transport: str) -> int:
    """How many requests to Apple one process can have under way."""
    return MAX_CURL_CONCURRENCY if uses_curl(transport) else MAX_BLOCKING_CONCURRENCY


def uses_curl(transport: str) -> bool:
    """Say whether requests are made by libcurl, so that no thread waits for each."""
    return transport == "auto" and curl_fault() is None


def curl_fault() -> str | None:
    """Say why libcurl can't be used here; None where it can."""
    if not hasattr(select, "epoll"):
        return "it needs Linux's epoll"
    try:
        import pycurl
    except ImportError as error:  # also where it is there, and its libcurl is not, or has another TLS library
        return f"{error}; pip install pycurl"
    found = pycurl.version.split()[0]  # such as PycURL/7.49.0
    if tuple(map(int, re.findall(r"[0-9]+", found)[:2])) < (7, 49):  # a distribution's own, say
        return f"{found} is older than 7.49"
    return None
