"""How often somebody may try, and that nobody can fill the memory."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extauthz.console.throttle import MOST, LoginThrottle, Throttle, network_of

ATTACKER, ANA, OFFICE = "203.0.113.7", "ana@acme.com", "198.51.100.1"


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


def test_whoever_tried_last_is_forgotten_last() -> None:
    """Else one that is turned away would only have to try on until it is the oldest."""
    throttle = Throttle(1, 60, most=2)
    assert [throttle.wait(key, 0.0) for key in ("a", "b", "a", "c", "a", "b")] == [0, 0, 60, 0, 60, 0]


@given(st.lists(st.text(), max_size=50))
def test_it_never_holds_more_than_it_may(keys: list[str]) -> None:
    throttle = Throttle(1, 60, most=5)
    for key in keys:
        throttle.wait(key, 0.0)
    assert len(throttle) <= 5


@given(st.lists(st.tuples(st.sampled_from("abc"), st.floats(0, 100))))
def test_nobody_has_more_than_burst_and_rate_together(tries: list[tuple[str, float]]) -> None:
    throttle = Throttle(3, 30)
    crowds = [0]
    for key in "abc":
        times = sorted(at for name, at in tries if name == key)
        passed = [at for at in times if throttle.wait(key, at) == 0]
        crowds += [sum(first <= at <= first + 30 for at in passed) for first in passed]
    assert max(crowds) <= 6


def test_what_strangers_write_is_bounded() -> None:
    assert MOST == 4096
    throttle = Throttle(1, 60)
    long = "x" * 100_000
    assert throttle.wait(long, 0) == 0
    assert throttle.wait(f"{long[:254]}y", 0) == throttle.look(f"{long[:254]}z", 0) == 60
    throttle.forget(long)
    assert throttle.wait(long[:254], 0) == 0


def test_an_address_has_five_logins_a_minute() -> None:
    throttle = LoginThrottle()
    assert [throttle.wait(ATTACKER, f"{number}@acme.com", 0) for number in range(6)] == [0, 0, 0, 0, 0, 12]
    assert [throttle.wait("2001:db8::1" if number % 2 else "2001:db8::2", ANA, 0) for number in range(6)] == [0, 0, 0, 0, 0, 12]


def test_an_account_has_a_hundred_logins_an_hour_from_all_addresses() -> None:
    throttle = LoginThrottle()
    waits = [throttle.wait(f"203.0.113.{number}", ANA, 2.0 * number) for number in range(120)]
    allowed = waits.index(next(wait for wait in waits if wait))
    assert (allowed, waits[:allowed]) == (105, [0] * 105), "a hundred, and what 208 seconds gave back"
    assert waits[105] == pytest.approx(6), "a hundredth of an hour from the last one on"
    assert throttle.wait(OFFICE, "bob@acme.com", 240.0) == 0


def test_an_account_has_twenty_logins_an_hour_from_one_address() -> None:
    throttle = LoginThrottle()
    waits = [throttle.wait(ATTACKER, ANA, 12.0 * number) for number in range(25)]
    assert waits[:22] == pytest.approx([0] * 21 + [108]), "twenty an hour, and what 252 seconds gave back"
    assert throttle.wait(ATTACKER, "bob@acme.com", 300.0) == 0
    throttle.succeeded(OFFICE, ANA)
    assert throttle.wait(ATTACKER, ANA, 312.0) > 0
    throttle.succeeded(ATTACKER, ANA)
    assert throttle.wait(ATTACKER, ANA, 324.0) == 0


def test_all_together_have_sixty() -> None:
    throttle = LoginThrottle()
    waits = [throttle.wait(f"203.0.113.{number}", f"{number}@acme.com", 0) for number in range(61)]
    assert waits == [0] * 60 + [1]


def test_one_address_cannot_keep_an_account_from_logging_in_elsewhere() -> None:
    throttle = LoginThrottle()
    assert {throttle.wait(ATTACKER, ANA, 0) for _ in range(100)} == {0, 12}
    waits = []
    for number in range(1, 1200):
        throttle.wait(ATTACKER, ANA, 12.1 * number)
        waits += [] if number % 50 else [throttle.wait(OFFICE, ANA, 12.1 * number)]
    assert waits == [0] * 23


def test_who_is_turned_away_takes_nothing_and_makes_nothing_forgotten() -> None:
    throttle = LoginThrottle()
    for number in range(60):
        throttle.wait(f"203.0.113.{number}", ANA, 0)
    for number in range(2 * MOST):
        assert throttle.wait(f"2001:db8:{number:x}::1", f"{number}@acme.com", 0) > 0
    assert [len(limit) for limit in (throttle._addresses, throttle._pairs, throttle._accounts, throttle._all)] == [60, 60, 1, 1]
    assert [throttle.wait(OFFICE, f"{number}@acme.com", 60) for number in range(6)] == [0, 0, 0, 0, 0, 12]


def test_a_login_of_ones_own_pays_for_no_attempts_at_others() -> None:
    throttle = LoginThrottle()
    passed = 0
    for number in range(50):
        passed += throttle.wait(ATTACKER, f"{number}@acme.com", 0) == 0
        if throttle.wait(ATTACKER, ANA, 0) == 0:
            throttle.succeeded(ATTACKER, ANA)
    assert passed == 3


def test_a_login_ends_the_waiting_of_its_account() -> None:
    throttle = LoginThrottle()
    for number in range(200):
        throttle.wait(f"203.0.113.{number}", ANA, float(number))
    assert throttle.wait(OFFICE, ANA, 200.0) > 0
    throttle.succeeded(OFFICE, ANA)
    assert throttle.wait(OFFICE, ANA, 200.0) == 0


def test_many_networks_keep_no_known_browser_out() -> None:
    throttle = LoginThrottle()
    for number in range(60):
        assert throttle.wait(f"203.0.113.{number}", ANA, 0) == 0
    assert throttle.wait(OFFICE, ANA, 0) > 0
    waits = [throttle.wait(OFFICE, ANA, 0, is_known=True) for _ in range(6)]
    assert waits == [0, 0, 0, 0, 0, 12], "and it has five a minute itself"
    assert throttle.wait(OFFICE, "bob@acme.com", 0, is_known=True) == 0


def test_a_known_browser_has_twenty_logins_an_hour_and_takes_nothing_of_others() -> None:
    throttle = LoginThrottle()
    waits = [throttle.wait(OFFICE, ANA, 12.0 * number, is_known=True) for number in range(25)]
    assert waits[:22] == pytest.approx([0] * 21 + [108]), "twenty an hour, and what 252 seconds gave back"
    assert [throttle.wait(OFFICE, ANA, 300.0) for _ in range(6)] == [0, 0, 0, 0, 0, 12]
    throttle.succeeded(OFFICE, ANA)
    assert throttle.wait(OFFICE, ANA, 312.0, is_known=True) > 0, "what others do gives it nothing back"
    throttle.succeeded(OFFICE, ANA, is_known=True)
    assert throttle.wait(OFFICE, ANA, 312.0, is_known=True) == 0


def test_a_login_of_a_known_browser_gives_strangers_nothing_back() -> None:
    throttle = LoginThrottle()
    for number in range(200):
        throttle.wait(f"203.0.113.{number}", ANA, float(number))
    before = throttle.wait(ATTACKER, ANA, 200.0)
    assert before > 0
    throttle.succeeded(OFFICE, ANA, is_known=True)
    assert throttle.wait(ATTACKER, ANA, 200.0) == before


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("203.0.113.7", "203.0.113.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::", "2001:db8:1:2::/64"),
        ("fe80::7%eth0", "fe80::/64"),
        ("unknown", "unknown"),
    ],
)
def test_an_address_is_what_one_client_can_choose_freely(address: str, network: str) -> None:
    assert network_of(address) == network
