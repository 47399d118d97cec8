"""Hints for misspelt words: the first errors of a file get them, and a file of nothing but errors is read in linear time."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import FrameType

import pytest
import yaml

from extauthz.config.files import Files
from extauthz.config.loader import load
from extauthz.errors import ConfigurationError
from tests.support.command_line import SETTINGS

FILE, ROUTES = Path("extauthz.yaml"), Path("routes.yaml")


def names(count: int) -> list[str]:
    return [f"SCOPE_OF_{index:05d}" for index in range(count)]


def errors(scopes: list[str], routes: list[str]) -> list[str]:
    """Return what is wrong with a configuration of this vocabulary and these lines of a route file."""
    lines = "".join(f"- {line}\n" for line in routes)
    contents = {FILE: yaml.safe_dump(SETTINGS | {"scopes": scopes}), ROUTES: f"routes:\n{lines}"}
    with pytest.raises(ConfigurationError) as refused:
        load(FILE, Files({file: text.encode() for file, text in contents.items()}))
    return [problem.message for problem in refused.value.problems]


def steps(work: Callable[[], object]) -> int:
    """Return how many calls of functions, and turns of generators, some work takes."""
    count, before = 0, sys.getprofile()

    def counted(_frame: FrameType, event: str, _argument: object) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    sys.setprofile(counted)
    try:
        work()
    finally:
        sys.setprofile(before)
    return count


WRONG = {
    "unknown scopes": "scope: SCOPE_FO_{number:05d}",
    "words like no scope": "any_of: [qqqqqqqqq{number}]",
    "aliases": "scope: *a{number}",
    "tags": "scope: !a x",
}
"""What a line of a route file says that is wrong."""


def bad_lines(kind: str, count: int) -> list[str]:
    return [f'{{match: "GET /{number}", {WRONG[kind].format(number=number)}}}' for number in range(count)]


@pytest.mark.parametrize("kind", WRONG)
def test_twice_as_many_errors_take_twice_the_steps(kind: str) -> None:
    few, many = (steps(partial(errors, names(count), bad_lines(kind, count))) for count in (150, 300))
    assert many < 2.5 * few


@pytest.mark.parametrize("known", [20, 500])
def test_the_first_errors_of_a_file_get_hints_and_the_others_say_what_to_do(known: int) -> None:
    found = errors(names(known), [f'{{match: "GET /{i}", scope: SCOPE_FO_{i % known:05d}}}' for i in range(5_000)])
    assert len(found) == 5_000
    assert found[:20] == [f"unknown scope 'SCOPE_FO_{i:05d}', did you mean 'SCOPE_OF_{i:05d}'?" for i in range(20)]
    assert found[-1].endswith(": name one of `scopes` in extauthz.yaml, or add it there")


def test_each_configuration_gets_hints_of_its_own() -> None:
    many = [f'{{match: "GET /{i}", scope: SCOPE_FO_{i % 500:05d}}}' for i in range(2_000)]
    first, second = errors(names(500), many), errors(names(500), many)
    assert first == second
    assert "did you mean" in second[0]
    with contextlib.suppress(ConfigurationError):
        load(Path("nothing.yaml"), Files({}))
    assert "did you mean" in errors(names(500), many)[0]
