"""One address for each pair of answers about whom a token may act for."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from extauthz.config.patterns import compile_patterns
from extauthz.core.act_as import ActAs, address
from extauthz.tools.diff_addresses import Addresses, Patterns, addresses

PIECES = ["a", "b", "*", "+", "a*", "*b"]
PATTERN = st.builds("{}@{}".format, st.sampled_from(PIECES), st.sampled_from(["a.b", "*.b", "*", "a.*"]))
PATTERNS = st.builds(Patterns, st.lists(PATTERN, max_size=2).map(tuple), st.lists(PATTERN, max_size=2).map(tuple))
LOCALS = ["".join(letters) for length in (1, 2, 3) for letters in product("abx+", repeat=length)]
EVERYBODY = [f"{local}@{domain}" for local in LOCALS for domain in ("a.b", "x.b", "a.x", "x.x")]


def compared(old: Patterns, new: Patterns) -> tuple[Addresses, tuple[ActAs, ActAs]]:
    rules = tuple(ActAs(allow=compile_patterns(each.allow), deny=compile_patterns(each.deny)) for each in (old, new))
    return addresses(old, new, (rules[0], rules[1])), (rules[0], rules[1])


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        # (allow, deny) of both sides, and the answers that some address gets
        ((["*@acme.com"], []), (["*@acme.com"], []), {(True, True), (False, False)}),
        ((["*@acme.com"], []), (["*@*"], []), {(True, True), (False, True), (False, False)} - {(False, False)}),
        ((["*@acme.com"], ["ceo@acme.com"]), (["*@acme.com"], []), {(True, True), (False, True), (False, False)}),
        ((["a@acme.com"], []), (["b@acme.com"], []), {(True, False), (False, True), (False, False)}),
        ((["a+t@acme.com"], ["a@acme.com"]), (["a+t@acme.com"], []), {(False, True), (False, False)}),
        ((["*@*"], ["*@*"]), ([], []), {(False, False)}),
    ],
)
def test_every_pair_of_answers_has_an_address(
    old: tuple[list[str], list[str]], new: tuple[list[str], list[str]], expected: set[tuple[bool, bool]]
) -> None:
    found, _ = compared(*(Patterns(tuple(allow), tuple(deny)) for allow, deny in (old, new)))
    assert found.complete
    assert set(found.examples) == expected


@settings(max_examples=60, deadline=None)
@given(PATTERNS, PATTERNS)
def test_the_answers_are_those_of_brute_force(old: Patterns, new: Patterns) -> None:
    found, rules = compared(old, new)
    assert found.complete
    for answers, user in found.examples.items():
        assert address(user) == user
        assert answers == (rules[0].permits(user), rules[1].permits(user))
    assert {(rules[0].permits(user), rules[1].permits(user)) for user in EVERYBODY} <= set(found.examples)


def test_too_many_patterns_are_said_to_be_too_many() -> None:
    many = tuple(f"*{'a' * number}*b*c*d*e*f*g@acme.com" for number in range(1, 8))
    old, new = Patterns(("*@acme.com",), many), Patterns(("*@acme.com",), many[1:])
    rules = [ActAs(allow=compile_patterns(each.allow), deny=compile_patterns(each.deny)) for each in (old, new)]
    found = addresses(old, new, (rules[0], rules[1]), places=20_000)
    assert not found.complete
    assert (True, False) not in found.examples


@pytest.mark.parametrize("pattern", ["a" * 300 + "@acme.com", "*" + "a" * 70 + "@acme.com"])
def test_a_pattern_that_no_address_fits_is_not_taken_for_one(pattern: str) -> None:
    found, _ = compared(Patterns((pattern,), ()), Patterns((), ()))
    assert not found.complete
    assert (True, False) not in found.examples
