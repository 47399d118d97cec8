"""Templates of paths become the same pattern, a narrower one, or one that only denies."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extauthz.config.patterns import parse_match
from extauthz.core.paths import Path, parse
from extauthz.core.routes import Route, compile_routes
from extauthz.tools.openapi_paths import PatternFit, pattern, sample

SAME, NARROWER, WIDER, OTHER, NEVER = PatternFit.SAME, PatternFit.NARROWER, PatternFit.WIDER, PatternFit.OTHER, PatternFit.NEVER

PATTERNS: dict[str, tuple[str, PatternFit, str]] = {
    "/": ("/", SAME, "/"),
    "/items": ("/items", SAME, "/items"),
    "/items/": ("/items/", SAME, "/items/"),
    "/items/{id}": ("/items/{id}", SAME, "/items/example"),
    "/items/{item-id}/{2}": ("/items/{item_id}/{_2}", SAME, "/items/example/example"),
    "/items/{id:[0-9]+}": ("/items/{id}", SAME, "/items/example"),
    "/items:search": ("/items:search", SAME, "/items:search"),
    "/items{?page,size}": ("/items", SAME, "/items"),
    "/items#of-me": ("/items", SAME, "/items"),
    "/caf%C3%A9/é": ("/café/é", SAME, "/caf%C3%A9/%C3%A9"),
    "/a%20b": ("/a b", SAME, "/a%20b"),
    "/v1/{name=projects/*/places/*}": ("/v1/projects/{name}/places/{name}", SAME, "/v1/projects/example/places/example"),
    # a wildcard is one segment
    "/files/{path*}": ("/files/{path}", NARROWER, "/files/example"),
    "/files/{path+}": ("/files/{path}", NARROWER, "/files/example"),
    "/files/{+path}": ("/files/{path}", NARROWER, "/files/example"),
    "/files/{path:.*}": ("/files/{path}", NARROWER, "/files/example"),
    "/files/{path:path}": ("/files/{path}", NARROWER, "/files/example"),
    "/files/{path*}/raw": ("/files/{path}/raw", NARROWER, "/files/example/raw"),
    "/v1/{name=**}": ("/v1/{name}", NARROWER, "/v1/example"),
    # a part of a segment
    "/files/{id}.json": ("/files/{id}", WIDER, "/files/example.json"),
    "/{a}:{verb}": ("/{a}", WIDER, "/example:example"),
    "/v1/{name=projects/*}:cancel": ("/v1/projects/{name}", WIDER, "/v1/projects/example:cancel"),
    "/u/{.format}": ("/u/{format}", WIDER, "/u/.example"),
    # what has no pattern
    "/files/*": ("/files/{segment}", OTHER, "/files/*"),
    "/files/**": ("/files/{segment}", OTHER, "/files/**"),
    "/{a}%7Bb": ("/{a}", OTHER, "/example%7Bb"),
    "/a%7Bb": ("/{segment}", OTHER, "/a%7Bb"),
    "/a/{b": ("/a/{_}", OTHER, "/a/%7Bb"),
    "/a%20": ("/{segment}", OTHER, "/a%20"),
    "/a?kind=b": ("/a", OTHER, "/a?kind=b"),
    # what is refused before any route
    "/a%2Fb": ("/{segment}", NEVER, "/a%2Fb"),
    "/x;v=1/y": ("/{segment}/y", NEVER, "/x;v=1/y"),
    "/d/{x};v": ("/d/{x}", NEVER, "/d/example;v"),
    "/d/{x}%2F": ("/d/{x}", NEVER, "/d/example%2F"),
    "/u/{;id}": ("/u/{id}", NEVER, "/u/;id=example"),
    "/a//b": ("/a/b", NEVER, "/a//b"),
    "/a/../b": ("/a/{segment}/b", NEVER, "/a/../b"),
    "/%zz": ("/{segment}", NEVER, "/%zz"),
    "/%ff": ("/{segment}", NEVER, "/%ff"),
    "/\ud800": ("/{segment}", NEVER, "/%3F"),
}


@pytest.mark.parametrize("template", PATTERNS, ids=repr)
def test_a_template_is_a_pattern(template: str) -> None:
    text, fit, path = PATTERNS[template]
    found = pattern(template)
    assert (found.text, found.fit, sample(template)) == (text, fit, path)
    assert bool(found.notes) is (fit is not SAME or "#" in template)
    match = parse_match(f"GET {found.text}")
    read = parse(path.partition("?")[0])
    # "%3F" stands for what cannot be sent at all.
    assert isinstance(read, Path) is (fit is not NEVER or "%3F" in path)
    if isinstance(read, Path):
        assert isinstance(compile_routes([Route("r", match)]).find("GET", read), Route)


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("/files/{path*}", "/files/{path}/**"),
        ("/{a}/{path:.*}", "/{a}/{path}/**"),
        ("/files/{path*}/raw", "/files/{path}/raw"),
        ("/files/{id}", "/files/{id}"),
    ],
)
def test_a_wildcard_at_the_end_takes_more_where_that_is_asked_for(template: str, text: str) -> None:
    assert pattern(template, rest=True).text == text


def test_a_parameter_in_the_style_matrix_is_never_reached() -> None:
    assert pattern("/a/{id}", frozenset({"id"})).fit is NEVER
    assert sample("/a/{id}", frozenset({"id"})) == "/a/;id=example"
    assert pattern("/a/{id}", frozenset({"other"})).fit is SAME


PIECES = st.sampled_from(
    [
        "a",
        "b",
        "é",
        "a%20b",
        "{id}",
        "{x*}",
        "{id}.json",
        "{a}{b}",
        "*",
        "a:b",
        "x;y",
        "..",
        "",
        "{n=a/*}",
        "%7B",
        "{",
        "}",
        "?q=1",
        "{?q}",
    ]
)
TEMPLATES = st.lists(PIECES, min_size=1, max_size=4).map(lambda pieces: "/" + "/".join(pieces))


def expression(template: str) -> re.Pattern[str]:
    """Return what a template describes, worked out apart: as an expression over decoded paths."""
    text = re.sub(r"\{[?][^{}]*\}", "", template).replace("{n=a/*}", "a/{n}").partition("?")[0]
    parts = re.split(r"(\{[^{}]*\})", text.replace("%20", " ").replace("%7B", "\\x7b"))
    return re.compile(
        "".join((".+" if "*" in part else "[^/]+") if part[:1] == "{" and part[-1:] == "}" else re.escape(part) for part in parts)
    )


@given(TEMPLATES, st.lists(st.sampled_from(["a", "b", "é", "a b", "x.json", "a:b", "n", ""]), min_size=1, max_size=5))
def test_a_pattern_that_fits_has_no_path_that_the_template_lacks(template: str, segments: list[str]) -> None:
    found = pattern(template)
    match = parse_match(f"GET {found.text}")
    path = Path("/" + "/".join(segments))
    matches = isinstance(compile_routes([Route("r", match)]).find("GET", path), Route)
    is_promised = matches and "" not in segments[:-1] and found.fit in (SAME, NARROWER)
    assert not is_promised or expression(template).fullmatch(path.text)  # why: nothing is promised of what only denies
