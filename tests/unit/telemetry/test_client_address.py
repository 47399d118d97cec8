"""Where the address of a client is read, and that no client can choose it."""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import ip_address
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extauthz.errors import ConfigurationError
from extauthz.telemetry.client_address import ForwardedClient
from tests.support.client_address import CLIENT, EXTERNAL, FORWARDED, LIE, PEER, PROXY
from tests.support.world import MakeWorld, bearer, check_request

LONGEST = "0000:0000:0000:0000:0000:ffff:255.255.255.255"


@pytest.mark.parametrize(
    ("peer", "headers", "client"),
    [
        (PEER, {FORWARDED: PEER, EXTERNAL: CLIENT}, CLIENT),
        (PEER, {FORWARDED: f"{LIE}, {CLIENT},{PEER}", EXTERNAL: CLIENT}, CLIENT),
        (PEER, {FORWARDED: f"{CLIENT},{PEER}", EXTERNAL: "2001:DB8::0:9"}, "2001:db8::9"),
        # An Envoy that is not the edge adds nothing, and leaves what the client sent.
        (PEER, {EXTERNAL: LIE}, PEER),
        (PEER, {FORWARDED: LIE, EXTERNAL: LIE}, PEER),
        # It takes the peer for one of its own network, and leaves what the client sent.
        (PEER, {FORWARDED: PEER, EXTERNAL: LIE, "x-envoy-internal": "true"}, PEER),
        (PEER, {FORWARDED: PEER}, PEER),
        (PEER, {FORWARDED: PEER, EXTERNAL: f"{CLIENT},{LIE}"}, PEER),
        (PEER, {FORWARDED: PEER, EXTERNAL: "fe80::1%eth0"}, PEER),
        (PEER, {FORWARDED: PEER, EXTERNAL: f"{CLIENT}:443"}, PEER),
        (PEER, {FORWARDED: PEER, EXTERNAL: "1" * 5000}, PEER),
        (PEER, {FORWARDED: PEER, EXTERNAL: LONGEST}, str(ip_address(LONGEST))),
        (PEER, {FORWARDED: PEER, EXTERNAL: f" \t{CLIENT}\t "}, CLIENT),
        *((PEER, {FORWARDED: PEER, EXTERNAL: CLIENT + other}, PEER) for other in "X\n\v\xa0"),
        # For a peer on loopback Envoy adds an address of its own.
        ("127.0.0.1", {FORWARDED: "192.0.2.2", EXTERNAL: CLIENT}, CLIENT),
        ("127.0.0.1", {EXTERNAL: LIE}, "127.0.0.1"),
        ("", {FORWARDED: CLIENT, EXTERNAL: CLIENT}, ""),
        (PEER, {}, PEER),
    ],
)
def test_the_external_address(peer: str, headers: Mapping[str, str], client: str) -> None:
    assert ForwardedClient().address(peer, headers) == client


@pytest.mark.parametrize(
    ("hops", "forwarded", "client"),
    [
        (1, f"{CLIENT},{PEER}", CLIENT),
        (1, f"{LIE}, {CLIENT} , {PEER}", CLIENT),
        (2, f"{LIE},{CLIENT},{PROXY},{PEER}", CLIENT),
        (1, f"{LIE},2001:db8::9,{PEER}", "2001:db8::9"),
        (0, f"{LIE},{CLIENT},{PEER}", PEER),
        # Fewer proxies than are trusted: somebody came past them.
        (1, PEER, PEER),
        (2, f"{LIE},{PEER}", PEER),
        (1, f"{CLIENT}:4711,{PEER}", PEER),
        (1, f"unknown,{PEER}", PEER),
        (1, f",{PEER}", PEER),
        # Envoy added nothing: the whole header may be the client's.
        (1, f"{LIE},{CLIENT}", PEER),
        (1, "", PEER),
    ],
)
def test_the_address_in_front_of_the_trusted_proxies(hops: int, forwarded: str, client: str) -> None:
    assert ForwardedClient(hops).address(PEER, {FORWARDED: forwarded, EXTERNAL: LIE}) == client


@given(sent=st.lists(st.text(st.characters(max_codepoint=255), max_size=60), max_size=4), hops=st.integers(1, 3))
def test_nothing_that_a_client_sends_counts_beyond_the_trusted_proxies(sent: list[str], hops: int) -> None:
    """Proxies and Envoy each add the address that they see; what stands before is the client's invention."""
    proxies = [f"198.51.100.{number}" for number in range(10, 10 + hops - 1)]
    forwarded = ",".join([*sent, CLIENT, *proxies, PEER])
    assert ForwardedClient(hops).address(PEER, {FORWARDED: forwarded}) == CLIENT


@given(
    forwarded=st.text(st.characters(max_codepoint=255), max_size=200),
    external=st.text(st.characters(max_codepoint=255), max_size=80),
    hops=st.none() | st.integers(1, 5),
)
def test_what_is_returned_is_an_address(forwarded: str, external: str, hops: int | None) -> None:
    for end in ("", f",{PEER}"):
        found = ForwardedClient(hops).address(PEER, {FORWARDED: forwarded + end, EXTERNAL: external})
        assert str(ip_address(found)) == found
        assert "%" not in found


@pytest.mark.parametrize(
    ("setting", "client"),
    [({}, "203.0.113.7"), ({"client_address": "peer"}, "203.0.113.7"), ({"client_address": EXTERNAL}, CLIENT)]
    + [({"client_address": {"trusted_hops": hops}}, client) for hops, client in ((1, PROXY), (2, CLIENT))],
)
@pytest.mark.parametrize("form", ["raw", "map"])
def test_the_configuration_says_where(make_world: MakeWorld, setting: dict[str, Any], client: str, form: str) -> None:
    world = make_world([{"match": "POST /search", "scope": "SEARCH"}], envoy=setting)
    token = world.token("USER")
    headers = [*bearer(token).items(), (FORWARDED, f"{LIE},{CLIENT},{PROXY}"), (FORWARDED, "203.0.113.7"), (EXTERNAL, CLIENT)]
    world.check_bytes(check_request("POST", "/search", headers, form=form))
    assert [request.source for request in world.recorder.requests] == [client]


@pytest.mark.parametrize("hops", [0, 11, -1, 1.0, True, "1", None])
def test_hops_are_few_and_a_whole_number(make_world: MakeWorld, hops: object) -> None:
    with pytest.raises(ConfigurationError, match="trusted_hops: 1"):
        make_world([{"match": "GET /", "public": True}], envoy={"client_address": {"trusted_hops": hops}})
    with pytest.raises(ConfigurationError, match="trusted_hops: 1"):
        make_world([{"match": "GET /", "public": True}], envoy={"client_address": {"trusted_hops": 1, "header": "x-real-ip"}})
