"""Shapes of templates have the paths that they describe, and a path belongs to those of which nothing comes first."""

from __future__ import annotations

import re
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extauthz.core.upstream import STRICT, Upstream
from extauthz.tools.openapi_paths import Parameter, Shape, sample, shape
from extauthz.tools.openapi_shapes import ANYTHING, Shapes, comes_first, numbers_of, path_of

SEGMENT, REST = Parameter.SEGMENT, Parameter.REST
SHAPES: dict[str, Shape] = {
    "/": ("",),
    "/a%20b/é/": ("a b", "é", ""),
    "/a/{x}": ("a", SEGMENT),
    "/{x:[0-9]+}/{y}.json": (SEGMENT, "example.json"),
    "/{x*}": (REST, SEGMENT),
    "/{x+}/a": (REST, SEGMENT, "a"),
    "/{x:.*}/{y*}": (REST, SEGMENT, REST, SEGMENT),
    "/{x*}.json": (REST, "example.json"),
    "/v{x*}.json": ("vexample.json",),
    "/v1/{name=projects/**}:cancel": ("v1", "projects", REST, "example:cancel"),
    "/{;x}/{x}": (";x=example", SEGMENT),
    "/a?b={c}": ("a",),
}


@pytest.mark.parametrize("template", SHAPES)
def test_a_template_has_a_shape(template: str) -> None:
    assert shape(template) == SHAPES[template]


def test_a_parameter_in_the_style_matrix_is_a_part_of_a_segment() -> None:
    assert shape("/{x*}", frozenset({"x*"})) == (";x=example",)


@pytest.mark.parametrize(
    ("template", "numbers", "path"),
    [
        ("/f/{p*}", (2,), "/f/w/w/w"),
        ("/{p*}/a/{q*}", (1, 2), "/w/w/a/w/w/w"),
        ("/{p*}/a/{q*}", (1,), "/w/w/a/w"),
        ("/f/{p*}.json", (1,), "/f/w/w.json"),
        ("/v{p*}.json?q", (1,), "/vw.json?q"),
    ],
)
def test_a_path_of_a_wildcard_has_as_many_segments_more_as_are_asked_for(
    template: str, numbers: tuple[int, ...], path: str
) -> None:
    assert sample(template, frozenset(), "w", numbers) == path


def test_each_rest_has_each_number_of_segments() -> None:
    assert numbers_of(("a", SEGMENT), 2, 1) == [()]
    assert numbers_of((REST, "a", SEGMENT, REST), 0, 4) == [(0, 0), (0, 1), (1, 0), (1, 1)]
    assert numbers_of((REST, "a", SEGMENT, REST), 0, 3) is None
    assert path_of((REST, "a", SEGMENT, REST), (2, 0)) == (ANYTHING, ANYTHING, "a", ANYTHING)


@pytest.mark.parametrize(
    ("first", "later", "path"),
    [
        ("/a", "/{x}", "/a"),
        ("/a/{p*}", "/{x}/b", "/a/b"),
        ("/a/{p*}", "/{x}/{y}/{z}", "/a/w/w"),
        ("/{x}/{p*}", "/{p*}", "/w/w"),
        ("/{p*}/a", "/{p*}", "/w/a"),
        ("/{p*}/a", "/{p*}/{x}", "/w/a"),
        ("/{p*}/{x}/a", "/{p*}/a", "/w/w/a"),
        ("/{x}", "/{p*}", "/w"),
        ("/{p*}/", "/{p*}", "/w/"),
        ("/{p*}.json", "/{p*}", "/w/example.json"),
        ("/{p*}/a", "/{x}/{y}", "/w/a"),
        ("/{p*}/a", "/{x}/{y}/{p*}", "/w/w/a"),
        ("/{p*}/a/{q*}", "/{x}/{p*}/a", "/w/a/a"),
        ("/{p*}/b/{q*}", "/{x}/{p*}/a", "/w/w/b/a"),
    ],
)
def test_what_is_a_part_or_has_the_first_literal_comes_first(first: str, later: str, path: str) -> None:
    segments = tuple(path[1:].split("/"))
    assert comes_first(shape(first), shape(later), segments)
    assert not comes_first(shape(later), shape(first), segments)


@pytest.mark.parametrize(
    ("one", "other", "path"),
    [
        ("/{p*}/{x}/a", "/{x}/{p*}/a", "/w/w/a"),
        ("/{x}/{p*}", "/{p*}/{x}", "/w/w"),
        ("/{x}", "/{y}", "/w"),
        ("/{p*}/a/{x}/{y}", "/{x}/a/{p*}", "/w/a/w/w"),
    ],
)
def test_for_others_nothing_is_said(one: str, other: str, path: str) -> None:
    shapes: Shapes[str] = Shapes(STRICT)
    read = [shapes.read(shape(template)) for template in (one, other)]
    segments = tuple(path[1:].split("/"))
    assert not comes_first(read[0], read[1], segments)
    assert not comes_first(read[1], read[0], segments)


PIECES = st.lists(st.sampled_from(["a", "b", SEGMENT, REST]), max_size=4).map(tuple)
WORDS = [word for length in range(7) for word in product("abx", repeat=length)]


def expression(pieces: Shape) -> re.Pattern[str]:
    """Return what a shape has, worked out apart: each segment is a letter."""
    return re.compile("".join({SEGMENT: ".", REST: ".*"}.get(piece, str(piece)) for piece in pieces))  # type: ignore[call-overload]


@given(st.lists(PIECES, max_size=4))
def test_a_path_has_the_shapes_that_describe_it(several: list[Shape]) -> None:
    shapes: Shapes[int] = Shapes(STRICT)
    for number, pieces in enumerate(several):
        shapes.add(pieces, number)
    for word in WORDS[:130]:
        expected = {number for number, pieces in enumerate(several) if expression(pieces).fullmatch("".join(word))}
        assert sorted(number for _, number in shapes.having(word)) == sorted(expected)
        assert {number for _, number in shapes.owning(word)} <= expected
        assert bool(shapes.owning(word)) is bool(expected)


@given(PIECES, PIECES)
def test_a_part_has_only_paths_of_the_whole(one: Shape, other: Shape) -> None:
    shapes: Shapes[None] = Shapes(STRICT)
    one, other = shapes.read(one), shapes.read(other)
    mine, theirs = ({word for word in WORDS if expression(pieces).fullmatch("".join(word))} for pieces in (one, other))
    found = {(comes_first(one, other, word), comes_first(other, one, word)) for word in sorted(mine & theirs)[:20]}
    allowed = {(True, False), (False, True), (False, False)}
    if mine <= theirs or theirs <= mine:
        allowed = {(mine < theirs, theirs < mine)}
    assert found <= allowed


def test_shapes_are_read_as_the_upstream_reads_paths() -> None:
    shapes: Shapes[str] = Shapes(Upstream(ignores_case=True, ignores_slash=True))
    shapes.add(("A", REST, SEGMENT, ""), "x")
    assert shapes.having(("a", "B", "C", "")) == [(("a", SEGMENT, REST), "x")]
    assert shapes.having(("", "a")) == []
    assert Shapes(STRICT).read(("A", REST, SEGMENT, "")) == ("A", SEGMENT, REST, "")


def test_a_parameter_is_never_empty_and_a_rest_may_end_with_a_slash() -> None:
    shapes: Shapes[str] = Shapes(STRICT)
    shapes.add((SEGMENT,), "one")
    shapes.add((SEGMENT, REST), "many")
    assert [thing for _, thing in shapes.having(("",))] == []
    assert [thing for _, thing in shapes.having(("a", ""))] == ["many"]
