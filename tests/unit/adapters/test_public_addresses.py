"""Which addresses may be asked for an admin: public ones, and those of networks that the file lists."""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extauthz.adapters.oauth.public_addresses import AddressRule
from extauthz.errors import FetchError

PUBLIC = ["8.8.8.8", "93.184.216.34", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808", "2002:808:808::1"]
INTERNAL = [
    "127.0.0.1",
    "127.9.9.9",
    "0.0.0.0",  # noqa: S104 - an address that nobody listens on here
    "10.0.0.1",
    "172.16.0.1",
    "192.168.1.1",
    "169.254.169.254",
    "100.64.0.1",
    "192.0.2.1",
    "198.18.0.1",
    "224.0.0.1",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "fe80::1",
    "fe80::1%1",
    "fc00::1",
    "fd00:ec2::254",
    "fec0::1",
    "ff02::1",
    "2001:db8::1",
    "::ffff:10.0.0.1",
    "::ffff:169.254.169.254",
    "::127.0.0.1",
    "64:ff9b::7f00:1",
    "64:ff9b::a9fe:a9fe",
    "64:ff9b:1::1",
    "2002:7f00:1::1",
    "2001:0:7f00:1::1",
    "login.acme.com",
    "",
    "0177.0.0.1",
    "2130706433",
]


@pytest.mark.parametrize(("texts", "is_allowed"), [(PUBLIC, True), (INTERNAL, False)], ids=["public", "internal"])
def test_public_addresses_are_allowed_and_no_others(texts: list[str], is_allowed: bool) -> None:
    assert {text: AddressRule().allows(text) for text in texts} == dict.fromkeys(texts, is_allowed)


def rule(*networks: str, answers: Sequence[str] = ()) -> AddressRule:
    """Return a rule whose name server gives these answers."""

    async def resolve(host: str, port: int) -> Sequence[str]:
        return answers

    return AddressRule(tuple(ipaddress.ip_network(network) for network in networks), resolve)


def test_a_listed_network_is_allowed_and_nothing_beside_it() -> None:
    listed = rule("10.1.0.0/16", "fd00::/64")
    texts = {"10.1.2.3": True, "::ffff:10.1.2.3": True, "fd00::7": True, "10.2.0.1": False, "fd00:1::7": False, "127.0.0.1": False}
    assert {text: listed.allows(text) for text in texts} == texts


@given(st.ip_addresses(v=4))
def test_no_way_to_write_an_address_changes_what_is_allowed(address: ipaddress.IPv4Address) -> None:
    number = int(address)
    ways = [
        f"::ffff:{address}",
        str(ipaddress.IPv6Address((0x64FF9B << 96) | number)),
        str(ipaddress.IPv6Address((0x2002 << 112) | number << 80)),
    ]
    assert {AddressRule().allows(way) for way in ways} == {AddressRule().allows(str(address))}


@pytest.mark.parametrize(
    ("url", "is_refused"),
    [
        ("https://10.0.0.1/x", True),
        ("https://[::1]:8443/x", True),
        ("https://localhost/x", True),
        ("https://LOCALHOST./x", True),
        ("https://api.localhost/x", True),
        ("https://8.8.8.8/x", False),
        ("https://login.acme.com/x", False),
    ],
)
def test_an_address_in_a_url_is_looked_at_before_a_proxy_gets_it(url: str, is_refused: bool) -> None:
    if not is_refused:
        AddressRule().check(url)
        return
    with pytest.raises(FetchError, match=r"console\.issuer_networks"):
        AddressRule().check(url)


def test_of_the_addresses_of_a_name_those_are_taken_that_are_allowed() -> None:
    assert asyncio.run(rule(answers=["10.0.0.1", "8.8.8.8", "8.8.8.8", "::1"]).addresses("a.test", 443)) == ["8.8.8.8"]
    for answers in ([], ["10.0.0.1", "::1"]):
        with pytest.raises(FetchError, match=r"^a\.test is at no public address"):
            asyncio.run(rule(answers=answers).addresses("a.test", 443))
