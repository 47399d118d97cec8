"""The review of a route map finds every weaker route that takes a part of a stricter one, or says what it did not look at."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extauthz.config import route_review, routes, tables
from extauthz.config.files import Files
from extauthz.config.lints import Lint
from extauthz.config.route_review import MAX_STEPS, Steps, covers, cuts
from extauthz.core.model import AuthType
from extauthz.core.routes import ACCEPTED_BY_DEFAULT, Match, Route, compile_routes
from extauthz.errors import Problem

SEGMENTS = st.lists(st.sampled_from(["a", "b", None, None]), max_size=3)
ENDS = st.sampled_from(["", "/", "**"])
RULES = st.sampled_from(
    [
        {"scopes": ("A",)},
        {"scopes": ("A", "B")},
        {"scopes": ("A", "B"), "any_scope": True},
        {"public": True},
        {"deny": True},
        {"scopes": ("A",), "accept": ACCEPTED_BY_DEFAULT | {AuthType.ANONYMOUS}},
    ]
)
METHODS = st.sampled_from([("GET",), ("PUT",), ("GET", "PUT"), ("*",)])


def made(methods: tuple[str, ...], segments: list[str | None], end: str, rule: dict[str, object]) -> Route:
    written = (*segments, "") if end == "/" or not (segments or end) else tuple(segments)
    return Route("", Match("", methods, written, end == "**"), **rule)  # type: ignore[arg-type]


MAPS = st.lists(st.builds(made, METHODS, SEGMENTS, ENDS, RULES), max_size=12).map(
    lambda found: list({(route.match.segments, route.match.rest): route for route in found}.values())
)
PATHS = [path for length in range(1, 5) for path in product(["a", "b", "x"], repeat=length)]
PATHS += [(*path, "") for path in [(), *PATHS] if len(path) < 4]


def matches(match: Match, path: tuple[str, ...]) -> bool:
    pairs = zip(match.segments, path, strict=False)
    is_long = len(path) >= len(match.segments) if match.rest else len(path) == len(match.segments)
    return is_long and all(mine == theirs or (mine is None and theirs != "") for mine, theirs in pairs)


def strictness(route: Route) -> int:
    return 3 if route.deny else 0 if route.public else 1 if AuthType.ANONYMOUS in route.accept else 2


def is_weaker(route: Route, strict: Route) -> bool:
    if strictness(route) != strictness(strict):
        return strictness(route) < strictness(strict)
    return covers(route, strict) and not covers(strict, route)


def share_a_method(one: Route, other: Route) -> bool:
    return "*" in one.match.methods + other.match.methods or bool(set(one.match.methods) & set(other.match.methods))


def all_cuts(several: list[Route]) -> list[tuple[int, set[int]]]:
    """Return what `cuts` finds, worked out apart: each route is compared with each, on paths that tell all patterns apart."""
    found = []
    for strict in several:
        weaker = {
            id(route)
            for route in several
            if is_weaker(route, strict)
            and route.match.specificity < strict.match.specificity
            and share_a_method(route, strict)
            and any(matches(route.match, path) and matches(strict.match, path) for path in PATHS)
        }
        if weaker and not strict.public and (strict.match.rest or None in strict.match.segments):
            found.append((id(strict), weaker))
    return found


@given(MAPS)
def test_every_weaker_route_that_takes_a_part_is_found(several: list[Route]) -> None:
    found = list(cuts(compile_routes(several), several, Steps(MAX_STEPS)))
    assert [(id(strict), {id(route) for route in weaker or ()}) for strict, weaker in found] == all_cuts(several)


@given(MAPS, st.integers(0, 60))
def test_what_was_found_before_the_steps_were_over_is_right_and_all_others_are_named(several: list[Route], left: int) -> None:
    table, steps = compile_routes(several), Steps(left)
    found = list(cuts(table, several, steps))
    reviewed = [(id(strict), {id(route) for route in weaker}) for strict, weaker in found if weaker is not None]
    not_reviewed = {id(strict) for strict, weaker in found if weaker is None}
    assert reviewed == [each for each in all_cuts(several) if each[0] not in not_reviewed]
    assert bool(not_reviewed) is steps.are_over()


def overlapping(number: int) -> list[Route]:
    """Return routes of which each shares paths with each."""
    patterns = [tuple("a" if digit == "1" else None for digit in f"{each:014b}") for each in range(number)]
    rules = [{"scopes": ("A",)} if each % 2 else {"scopes": ("A", "B")} for each in range(number)]
    return [Route("", Match("", ("GET",), pattern, False), **rule) for pattern, rule in zip(patterns, rules, strict=True)]  # type: ignore[arg-type]


def test_a_review_takes_no_more_steps_than_it_has() -> None:
    several = overlapping(500)
    steps = Steps(100_000)
    found = list(cuts(compile_routes(several), several, steps))
    assert steps.left > -1_000
    not_reviewed = [strict for strict, weaker in found if weaker is None]
    assert not_reviewed == several[-len(not_reviewed) :]


def test_ordinary_routes_take_few_steps() -> None:
    patterns: list[tuple[tuple[str | None, ...], bool]] = []
    for number in range(300):
        patterns += [((f"g{number}", "items"), False), ((f"g{number}", "items", None), False), ((f"g{number}", "admin"), True)]
    several = [Route("", Match("", ("GET",), segments, rest), scopes=("A",)) for segments, rest in patterns]
    several.append(Route("", Match("", ("*",), (), True), deny=True))
    steps = Steps(MAX_STEPS)
    list(cuts(compile_routes(several), several, steps))
    assert MAX_STEPS - steps.left < 10 * len(several)


def warnings_of(text: str, other: str = "") -> list[Problem]:
    placed = []
    for name, content in (("a.yaml", text), ("b.yaml", other)):
        if content:
            found, problems = routes.read(Path(name), ("A", "B"), Files({Path(name): content.encode()}))
            assert problems == []
            placed += found
    return tables.compile_tables(placed)[3]


FILE = """\
upstream: {}
routes:
  - {match: "GET /{x}/a", scope: A}
  - {match: "GET /{x}/{y}", all_of: [A, B]}
  - {match: "GET /{x}/{y}/{z}", scope: A}
  - {match: "GET /b", scope: A}
"""


TAKEN = "4: 'GET /{x}/a' (a.yaml:3) takes a part of this stricter route [weaker-under-stricter]"
NOT_REVIEWED = (
    "{}: not reviewed: whether weaker routes take a part of this one{}. Patterns overlap too much: make them simpler [not-reviewed]"
)


@pytest.mark.parametrize(
    ("left", "expected"),
    [(100, [TAKEN]), (13, [TAKEN, NOT_REVIEWED.format(5, "")]), (0, [NOT_REVIEWED.format(3, " and of 2 more behind it")])],
)
def test_what_was_not_reviewed_is_a_warning(left: int, expected: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(route_review, "MAX_STEPS", left)
    found = warnings_of(FILE)
    assert [f"{each.line}: {each.message} [{each.name}]" for each in found] == expected


def test_the_tables_of_all_hosts_share_their_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(route_review, "MAX_STEPS", 20)
    other = FILE.replace("upstream", "hosts: [a.acme.com]\nupstream")
    found = [each for each in warnings_of(FILE, other) if each.name is Lint.NOT_REVIEWED]
    assert [each.file for each in found] == ["b.yaml"]
