"""Addresses to listen on: what is one, and whether other machines reach it."""

from __future__ import annotations

import pytest

from receipt_actors.domain.addresses import Address


@pytest.mark.parametrize(
    ("text", "host", "port", "is_loopback"),
    [
        ("127.0.0.1:9464", "127.0.0.1", 9464, True),
        ("127.1.2.3:1", "127.1.2.3", 1, True),
        ("localhost:0", "localhost", 0, True),
        ("LocalHost:65535", "localhost", 65535, True),
        ("[::1]:9464", "::1", 9464, True),
        ("[::]:9464", "::", 9464, False),
        ("0.0.0.0:9464", "0.0.0.0", 9464, False),
        ("receipts.internal:80", "receipts.internal", 80, False),
        ("127.0.0.1.example.com:80", "127.0.0.1.example.com", 80, False),
        ("0:80", "0", 80, False),
    ],
)
def test_a_host_and_a_port(text: str, host: str, port: int, is_loopback: bool) -> None:
    address = Address.parse(text)
    assert (address.host, address.port, address.is_loopback) == (host, port, is_loopback)
    assert Address.parse(str(address)) == address


@pytest.mark.parametrize(
    "text",
    [
        *("", ":", "9464", "localhost", "localhost:", ":9464", "localhost:65536", "localhost:-1", "localhost:٣"),
        *("::1:80", "[::g]:80", "[127.0.0.1]:80", "http://localhost:80", "a b:80", "a/b:80", "a@b:80", "-a:80"),
        *("a..b:80", "a\n:80"),
    ],
)
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        Address.parse(text)
