"""From which address a request comes, and whom a proxy may name."""

from __future__ import annotations

import pytest
from starlette.requests import Request

from extauthz.console.addresses import client_address

PROXIES = ["10.0.0.0/8", "2001:db8::/32"]
CASES = [
    ("192.0.2.1", [], "192.0.2.1"),
    ("192.0.2.1", ["203.0.113.9"], "192.0.2.1"),
    ("10.0.0.1", ["203.0.113.9"], "203.0.113.9"),
    ("10.0.0.1", ["6.6.6.6, 203.0.113.9"], "203.0.113.9"),
    ("10.0.0.1", ["6.6.6.6", "203.0.113.9, 10.9.9.9"], "203.0.113.9"),
    ("10.0.0.1", [], "10.0.0.1"),
    ("10.0.0.1", ["nonsense"], "unknown"),
    ("10.0.0.1", ["10.1.1.1"], "10.1.1.1"),
    ("2001:db8::1", ["2001:db9::7"], "2001:db9::7"),
    ("::ffff:10.0.0.1", ["203.0.113.9"], "203.0.113.9"),
    ("", ["203.0.113.9"], "unknown"),
]


@pytest.mark.parametrize(("peer", "forwarded", "address"), CASES)
def test_addresses(peer: str, forwarded: list[str], address: str) -> None:
    headers = [(b"x-forwarded-for", value.encode()) for value in forwarded]
    scope = {"type": "http", "method": "GET", "path": "/", "headers": headers, "client": (peer, 1) if peer else None}
    assert client_address(Request(scope), PROXIES) == address


def test_without_proxies_nobody_names_anybody() -> None:
    scope = {"type": "http", "headers": [(b"x-forwarded-for", b"203.0.113.9")], "client": ("10.0.0.1", 1)}
    assert client_address(Request(scope), []) == "10.0.0.1"
