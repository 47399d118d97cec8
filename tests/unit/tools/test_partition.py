"""Of all paths that two maps tell apart there is one, and none that is left out is decided otherwise than those that are not."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, reject, settings
from hypothesis import strategies as st

from extauthz.core import paths
from extauthz.core.model import Reason
from extauthz.core.paths import MAX_SEGMENTS, Path
from extauthz.core.routes import Route, RouteTable, SlashedRouteTable
from extauthz.errors import ConfigurationError
from extauthz.tools.partition import PathClass, Signatures, TooManyPaths, WalkBudget, path_classes
from tests.support.compared import configuration, targets

Map = dict[str, Any]
"""A route file: patterns, and what its upstream reads more loosely."""

OPEN, LOOSE, BARE = {"encoded_slashes": True}, {"case": "insensitive"}, {"trailing_slash": "ignored"}


def map_of(*patterns: str | tuple[str, dict[str, Any]], **upstream: str) -> Map:
    lines = [(each, {}) if isinstance(each, str) else each for each in patterns]
    return {"routes": [{"match": f"GET {pattern}", "scope": "CHAT"} | more for pattern, more in lines], "upstream": upstream}


def opened(*patterns: str) -> list[tuple[str, dict[str, Any]]]:
    """Return patterns whose parameters take slashes."""
    return [(pattern, OPEN) for pattern in patterns]


def table(routes: Map) -> RouteTable:
    return configuration({"routes.yaml": routes}).policy.routes


def found(table: RouteTable | None, path: Path, *, has_slash: bool) -> str | Reason | None:
    """Return what decides about a path: the name of a route, or why none does."""
    if table is None:
        return None
    if not has_slash:
        route = table.find("GET", path)
    else:
        route = SlashedRouteTable(table).find("GET", path) if table.encoded_slashes else Reason.PATH_AMBIGUOUS
    return route.name if isinstance(route, Route) else route


def by_brute_force(tables: tuple[RouteTable | None, RouteTable | None], words: Iterable[str], depth: int) -> set[object]:
    """Return every pair of answers that some path of a small world gets; slashes that no side takes are no difference."""
    answers: set[object] = set()
    for _, _, text in targets(words, depth, ["GET"]):
        path, has_slash = paths.parse(text), False
        if isinstance(path, Reason):
            path, has_slash = paths.parse_with_slashes(text), True
        assert isinstance(path, Path), text
        answers.add(tuple(found(each, path, has_slash=has_slash) for each in tables))
    return answers - {(Reason.PATH_AMBIGUOUS,) * 2, (Reason.PATH_AMBIGUOUS, None), (None, Reason.PATH_AMBIGUOUS)}


def answers_of(classes: Iterable[PathClass], tables: tuple[RouteTable | None, RouteTable | None]) -> set[object]:
    return {tuple(found(each, one.path, has_slash=one.has_slash) for each in tables) for one in classes}


WORDS = ["a", "A", "b", "x", "a%CC%81", "x%2Fx", "k", "%E2%84%AA"]
"""The last one is the Kelvin sign, which some take for a k."""

MAPS: dict[str, tuple[Map | None, Map | None]] = {
    "one side alone": (map_of("/a", "/{p}/b"), None),
    "the other side alone": (None, map_of("/a/", "/**")),
    "a literal in place of a parameter": (map_of("/a/{p}"), map_of("/a/b")),
    "a literal before a parameter": (map_of("/a/{p}", "/{p}/b"), map_of("/{p}/b", "/{p}/{q}")),
    "a slash at the end": (map_of("/a"), map_of("/a/")),
    "a slash behind a parameter": (map_of("/{p}"), map_of("/{p}/")),
    "all below, with what stands in front of it": (map_of("/a/**"), map_of("/a/b", "/a/{p}/**")),
    "all below a parameter and below a literal": (map_of("/{p}/**", "/a/b"), map_of("/a/**", "/{p}/b")),
    "all": (map_of("/**"), map_of("/", "/{p}")),
    "letter case on one side": (map_of("/a/{p}"), map_of("/A/{p}", **LOOSE)),
    "letter case on the other side": (map_of("/a/{p}", **LOOSE), map_of("/A/{p}", "/a/b")),
    "letter case on both sides": (map_of("/a/k", **LOOSE), map_of("/a/{p}", **LOOSE)),
    "words that some take for others": (map_of("/k", **LOOSE), map_of("/{p}", "/a", **LOOSE)),
    "a last slash that is not read": (map_of("/a/", **BARE), map_of("/a")),
    "letter case and a last slash": (map_of("/a", "/{p}/b", **LOOSE, **BARE), map_of("/a", "/{p}/b/")),
    "slashes within a parameter": (map_of(("/a/{p}", OPEN)), map_of("/a/{p}")),
    "slashes within one of two parameters": (map_of(("/{p}/b", OPEN), "/a/{p}"), map_of(("/a/{p}", OPEN), "/{p}/b")),
    "slashes before all below": (map_of(("/{p}/**", OPEN)), map_of("/{p}/**")),
    "slashes beside a literal": (map_of(("/{p}/{q}", OPEN), "/a/b"), map_of(("/{p}/{q}", OPEN), ("/a/{q}", OPEN))),
    "all below beside a slash at the end": (map_of("/a/**"), map_of("/a/")),
    "all below beside what ends there": (map_of("/a/**"), map_of("/a", "/a/", "/a/{p}", "/a/{p}/")),
    "all below two literals": (map_of("/a/**", "/b/**"), map_of("/a/", "/b/")),
    "all below a literal, and in front of it": (map_of("/a/**", "/**"), map_of("/", "/a", "/a/", "/{p}/", "/{p}")),
    "all below two literals, far down": (
        map_of("/a/**", "/b/**"),
        map_of("/a", "/a/", "/a/{p}", "/a/{p}/", "/b", "/b/", "/b/{p}", "/b/{p}/"),
    ),
    "all below with other scopes": (map_of("/a/**", "/a/", "/a"), map_of(("/a/**", {"scope": "SEARCH"}), "/a/", "/a")),
    "slashes in front of all below": (map_of(*opened("/{p}/**", "/{p}", "/{p}/")), map_of("/{p}/{q}")),
    "slashes far in front of all below": (
        map_of(*opened("/{p}/**", "/{p}", "/{p}/", "/{p}/{q}", "/{p}/{q}/")),
        map_of("/{p}/{q}"),
    ),
    "slashes where all below begins later": (
        map_of(*opened("/{p}/**", "/{p}/{q}", "/{p}/{q}/")),
        map_of(*opened("/{p}/{q}/**", "/{p}/{q}", "/{p}/{q}/")),
    ),
    "words of another route": (map_of("/a/{p}", "/k", **LOOSE), map_of("/a/{p}", **LOOSE)),
    "another literal with the same scope": (map_of("/a", "/{p}/b"), map_of("/b", "/{p}/b")),
    "the same": (map_of("/a", "/{p}/b", "/a/**"), map_of("/a", "/{p}/b", "/a/**")),
}


@pytest.mark.parametrize("name", MAPS)
def test_every_pair_of_answers_has_a_path(name: str) -> None:
    check(*MAPS[name], WORDS, 3)


def check(old: Map | None, new: Map | None, words: Iterable[str], depth: int) -> None:
    tables = None if old is None else table(old), None if new is None else table(new)
    for pair in (tables, tables[::-1]):
        classes = [*path_classes(pair[0], pair[1], WalkBudget())]
        assert by_brute_force(pair, words, depth) <= answers_of(classes, pair)
        texts = [(one.path.text, one.has_slash) for one in classes]
        assert len(set(texts)) == len(texts), "no path twice"
        assert [text.rstrip("/").count("/") for text, _ in texts] == sorted(text.rstrip("/").count("/") for text, _ in texts)
        if not any(each is not None and each.encoded_slashes for each in pair):
            assert [one for one in classes if one.has_slash] == []
        for one in classes:
            assert one.has_slash == any(paths.SLASH in segment for segment in one.segments)
            # A request can be sent that is read so.
            read = paths.parse_with_slashes if one.has_slash else paths.parse
            assert read(one.path.canonical) == one.path


PATTERNS = st.sampled_from(
    ["/", "/a", "/a/", "/{p}", "/{p}/", "/**", "/a/b", "/a/{p}", "/{p}/b", "/{p}/{q}", "/a/**", "/{p}/**", "/k"]
)
LINES = st.lists(st.tuples(PATTERNS, st.sampled_from([{}, {}, OPEN])), max_size=4, unique_by=lambda line: line[0])
UPSTREAMS = st.sampled_from([{}, {}, LOOSE, BARE, LOOSE | BARE])


@st.composite
def maps(draw: st.DrawFn) -> Map:
    lines = [(pattern, more if "{" in pattern else {}) for pattern, more in draw(LINES)]
    return map_of(*lines, **draw(UPSTREAMS))


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow])
@given(maps(), maps())
def test_every_pair_of_answers_of_any_two_maps_has_a_path(old: Map, new: Map) -> None:
    try:
        check(old, new, ["a", "A", "b", "x", "a%CC%81", "x%2Fx"], 3)
    except ConfigurationError:
        reject()


def signatures() -> Signatures:
    """Compare routes by their scopes and by whether they take slashes, whatever they are called."""
    return Signatures(lambda route: (route.scopes, route.encoded_slashes))


@pytest.mark.parametrize("name", [name for name, sides in MAPS.items() if None not in sides])
def test_what_is_left_out_by_its_signature_is_decided_alike(name: str) -> None:
    old, new = MAPS[name]
    assert old is not None and new is not None  # noqa: PT018 - for mypy
    tables = table(old), table(new)
    classes = [*path_classes(*tables, WalkBudget(), signatures())]

    def rules(path: Path, *, has_slash: bool) -> tuple[object, object]:
        one, other = (rule(each, path, has_slash=has_slash) for each in tables)
        return one, other

    differing = {rules(one.path, has_slash=one.has_slash) for one in path_classes(*tables, WalkBudget())}
    kept = {rules(one.path, has_slash=one.has_slash) for one in classes}
    assert {pair for pair in differing if pair[0] != pair[1]} <= kept
    assert (classes == []) == (name == "the same")


def rule(table: RouteTable, path: Path, *, has_slash: bool) -> object:
    """Return what a path is decided by, without the name of its route."""
    if has_slash and not table.encoded_slashes:
        return Reason.PATH_AMBIGUOUS
    route = (SlashedRouteTable(table) if has_slash else table).find("GET", path)
    return (route.scopes, route.encoded_slashes) if isinstance(route, Route) else route


def test_maps_are_the_same_by_their_rules_and_not_by_their_names() -> None:
    one = {
        "routes": [{"match": "GET /a", "scope": "CHAT", "name": "one"}, {"match": "GET /{p}/b", "scope": "SEARCH", "name": "two"}]
    }
    other = {"routes": [{"match": "GET /a", "scope": "CHAT", "name": "3"}, {"match": "GET /{q}/b", "scope": "SEARCH", "name": "4"}]}
    turned = {"routes": [{"match": "GET /a", "scope": "SEARCH"}, {"match": "GET /{p}/b", "scope": "CHAT"}]}
    more = {"routes": [*one["routes"], {"match": "POST /a", "scope": "CHAT"}]}
    below = {"routes": [*one["routes"], {"match": "GET /a/**", "scope": "CHAT"}]}
    elsewhere = {"routes": [{"match": "GET /b", "scope": "CHAT"}, {"match": "GET /{p}/b", "scope": "SEARCH"}]}
    tables = [table(each) for each in (one, other, turned, more, below, elsewhere)]
    compared = [[*path_classes(tables[0], each, WalkBudget(), signatures())] for each in tables]
    assert [bool(classes) for classes in compared] == [False, False, True, True, True, True]


def test_readers_that_differ_are_not_compared_by_signatures() -> None:
    """The same patterns and rules decide otherwise where one upstream reads paths more loosely."""
    strict = table(map_of("/a", "/{p}/b"))
    for upstream in (LOOSE, BARE):
        loose = table(map_of("/a", "/{p}/b", **upstream))
        for pair in ((strict, loose), (loose, strict)):
            assert [*path_classes(*pair, WalkBudget(), signatures())] == [*path_classes(*pair, WalkBudget())]
    open_ones = table(map_of("/a", ("/{p}/b", OPEN)))
    same_rules = Signatures(lambda route: route.scopes)
    assert [*path_classes(strict, open_ones, WalkBudget(), same_rules)] == [*path_classes(strict, open_ones, WalkBudget())]


def test_the_longest_path_that_can_be_asked_for_is_among_the_classes() -> None:
    patterns = ["/v" * MAX_SEGMENTS, "/w" * MAX_SEGMENTS]
    texts = [each.path.text for each in path_classes(table(map_of(*patterns)), None, WalkBudget())]
    assert set(patterns) <= set(texts)
    assert max(text.count("/") for text in texts) == MAX_SEGMENTS


@pytest.mark.parametrize(
    ("pattern", "is_found", "has_slash_behind"),
    [
        ("/" + "a" * 8_190, True, True),
        ("/" + "a" * 8_191, True, False),
        ("/" + "\u00e9" * 1_365, True, True),
        ("/a" + "\u00e9" * 1_365, True, False),
        ("/aa" + "\u00e9" * 1_365, False, False),
    ],
    ids=["8 KiB and a slash", "8 KiB", "six bytes a letter and a slash", "six bytes a letter", "too long"],
)
def test_no_path_is_longer_than_a_request_may_have(pattern: str, is_found: bool, has_slash_behind: bool) -> None:
    texts = {each.path.text for each in path_classes(table(map_of(pattern)), None, WalkBudget())}
    assert (pattern in texts, f"{pattern}/" in texts) == (is_found, has_slash_behind)


def test_every_step_is_paid_for() -> None:
    tables = table(map_of("/a/{p}")), table(map_of("/{p}/b"))
    budget = WalkBudget(2)
    budget.spend()
    budget.spend()
    with pytest.raises(TooManyPaths):
        budget.spend()
    least = next(steps for steps in range(1000) if not is_too_many(tables, steps))
    assert least > 5
    assert [is_too_many(tables, steps) for steps in (0, least - 1, least, least + 1)] == [True, True, False, False]


def is_too_many(tables: tuple[RouteTable, RouteTable], steps: int) -> bool:
    budget = WalkBudget(steps)
    try:
        classes = [*path_classes(*tables, budget)]
    except TooManyPaths:
        return True
    assert classes
    assert budget.steps >= 0
    return False


def test_words_are_found_that_no_map_has() -> None:
    """Also where the maps have the words that would be taken first."""
    for before in ("", "/a", "/{q}", "/{q}/a", "/a/{q}"):
        patterns = [f"{before}/{name}" for name in ("x", "x1", "x2", "X3")]
        for upstream in ({}, LOOSE):
            pair = table(map_of(*patterns, f"{before}/{{p}}", **upstream)), table(map_of(*patterns, **upstream))
            decided = answers_of(path_classes(*pair, WalkBudget()), pair)
            assert (f"GET {before}/{{p}}", Reason.ROUTE_UNKNOWN) in decided


@pytest.mark.parametrize(
    ("strict", "expected"),
    [
        (["ab"], True),
        (["ab", "Ab"], True),
        (["ab", "aB"], True),
        (["ab", "Ab", "aB"], True),
        (["ab", "Ab", "AB"], True),
        (["ab", "aB", "AB"], True),
        (["ab", "Ab", "aB", "AB"], False),
    ],
)
def test_a_spelling_that_only_one_reader_takes_for_a_literal_is_found(strict: list[str], expected: bool) -> None:
    """If the strict map names all spellings there is none left, and no difference."""
    pair = table(map_of("/ab", **LOOSE)), table(map_of(*(f"/{word}" for word in strict)))
    for each in (pair, pair[::-1]):
        decided = answers_of(path_classes(*each, WalkBudget()), each)
        wanted = ("GET /ab", Reason.ROUTE_UNKNOWN) if each is pair else (Reason.ROUTE_UNKNOWN, "GET /ab")
        assert (wanted in decided) is expected


@pytest.mark.parametrize("word", ["\u00e9a", "a\u00e9", "1a", "-a-"])
def test_a_spelling_is_another_one_by_its_plain_letters(word: str) -> None:
    """What readers may take for a letter and what not is no plain one."""
    pair = table(map_of(f"/{word}", **LOOSE)), table(map_of(f"/{word}"))
    assert (f"GET /{word}", Reason.ROUTE_UNKNOWN) in answers_of(path_classes(*pair, WalkBudget()), pair)


def test_spellings_are_told_apart_by_small_and_capital_letters_alone() -> None:
    pair = table(map_of("/a-1", **LOOSE)), table(map_of("/a-1"))
    texts = {one.path.text for one in path_classes(*pair, WalkBudget())}
    assert {text for text in texts if text.isascii() and "-1" in text} == {"/a-1", "/a-1/", "/A-1", "/A-1/"}
