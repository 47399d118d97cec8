"""How often somebody may try, and that nobody can fill the memory."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extauthz.console.throttle import MOST, LoginThrottle, Throttle, network_of


def test_a_burst_and_then_one_by_one() -> None:
    throttle = Throttle(3, 60)
    assert [throttle.wait("a", 0.0) for _ in range(4)] == [0, 0, 0, 20]
    assert [throttle.wait("a", at) for at in (19.0, 20.0, 20.0, 41.0)] == pytest.approx([1, 0, 20, 0])
    assert throttle.wait("b", 41.0) == 0


def test_who_is_turned_away_waits_no_longer_for_it() -> None:
    throttle = Throttle(1, 60)
    assert [throttle.wait("a", at) for at in (0.0, 30.0, 59.0, 60.0)] == pytest.approx([0, 30, 1, 0])


def test_a_clock_that_goes_back_gives_nothing() -> None:
    throttle = Throttle(1, 60)
    assert [throttle.wait("a", at) for at in (100.0, 0.0, 30.0)] == [0, 60, 30]


def test_the_oldest_is_forgotten() -> None:
    throttle = Throttle(1, 60, most=2)
    assert [throttle.wait(key, 0.0) for key in ("a", "b", "c", "b", "a")] == [0, 0, 0, 60, 0]


@given(st.lists(st.text(), max_size=50))
def test_it_never_holds_more_than_it_may(keys: list[str]) -> None:
    throttle = Throttle(1, 60, most=5)
    for key in keys:
        throttle.wait(key, 0.0)
    assert len(throttle) <= 5


def test_logins_by_address_account_and_all_together() -> None:
    throttle = LoginThrottle()
    assert [throttle.wait("192.0.2.1", f"{n}@acme.com", 0.0) > 0 for n in range(6)] == [False] * 5 + [True]
    assert [throttle.wait(f"192.0.2.{n}", "ana@acme.com", 0.0) > 0 for n in range(2, 8)] == [False] * 5 + [True]
    allowed = sum(throttle.wait(f"198.51.100.{n}", f"x{n}@acme.com", 0.0) == 0 for n in range(100))
    assert allowed == 50
    assert throttle.wait("203.0.113.1", "new@acme.com", 1.0) == 0


def test_a_login_clears_the_attempts_before_it() -> None:
    throttle = LoginThrottle()
    for _ in range(4):
        throttle.wait("192.0.2.1", "ana@acme.com", 0.0)
    throttle.succeeded("192.0.2.1", "ana@acme.com")
    assert [throttle.wait("192.0.2.1", "ana@acme.com", 0.0) > 0 for _ in range(6)] == [False] * 5 + [True]


def test_an_ipv6_client_is_its_network() -> None:
    assert network_of("2001:db8:1:2:aaaa::1") == network_of("2001:db8:1:2:bbbb::2") == "2001:db8:1:2::/64"
    assert network_of("2001:db8:1:3::1") != network_of("2001:db8:1:2::1")
    assert (network_of("192.0.2.1"), network_of("unknown")) == ("192.0.2.1", "unknown")


def test_the_memory_of_strangers_is_bounded() -> None:
    assert MOST == 4096
