"""An upstream that reads paths loosely never runs what a stricter route was written for: compared with a model of such servers."""

from __future__ import annotations

import re
import unicodedata
import urllib.parse
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import event, example, given, settings
from hypothesis import strategies as st

from extauthz.config.patterns import parse_match
from extauthz.config.spellings import reached_when_decoded, weaker_spellings
from extauthz.core.decide import plan
from extauthz.core.model import Allow, Deny, Reason, Request
from extauthz.core.paths import SLASH, Path, parse, parse_with_slashes
from extauthz.core.policy import Policy
from extauthz.core.routes import Route, RouteTable, compile_routes
from extauthz.core.upstream import Upstream, fold, names_method, widest
from tests.support.processor_time import processor_seconds

EXPRESS = Upstream(ignores_case=True, ignores_slash=True)
LOOSE = (Upstream(ignores_case=True), Upstream(ignores_slash=True), EXPRESS)
many = settings(max_examples=120, deadline=None)


def path_of(text: str) -> Path:
    path = parse("/" + "/".join(urllib.parse.quote(segment) for segment in text[1:].split("/")))
    assert isinstance(path, Path), text
    return path


# --- a server that reads loosely


def expression(route: Route, upstream: Upstream) -> re.Pattern[str]:
    """Write a route as routers of web frameworks do: an expression with a flag for case, and an optional last slash."""
    pattern = route.match.text.partition(" ")[2]
    rest = pattern.endswith("/**")
    pieces = pattern.removesuffix("/**").split("/")[1:]
    text = "".join("/" + ("[^/]+" if piece.startswith("{") else re.escape(piece)) for piece in pieces)
    if upstream.ignores_slash:
        text = (text.removesuffix("/") if text != "/" else text) + ("/?" if text != "/" else "")
    return re.compile(text + "(?:/.*)?" * rest, (re.ASCII | re.IGNORECASE) if upstream.ignores_case else re.ASCII)


def ranks(route: Route) -> list[int]:
    pieces = route.match.text.partition(" ")[2][1:].split("/")
    return [2 if piece == "**" else 1 if piece.startswith("{") else 0 for piece in pieces if piece]


def run_by(routes: list[Route], upstream: Upstream, method: str, text: str) -> set[str]:
    """Return the route of the handler that runs: the most specific pattern, then the method; nothing for 404 and 405."""
    fitting = [route for route in routes if expression(route, upstream).fullmatch(text)]
    best = min(map(ranks, fitting), default=[])
    same = [route for route in fitting if ranks(route) == best]
    exact = [route for route in same if method in route.match.methods]
    return {route.name for route in exact or same if method in route.match.methods or route.match.methods == ("*",)}


@st.composite
def route_maps(draw: st.DrawFn, upstream: Upstream) -> list[Route]:
    """Small maps in mixed spelling, in which no two patterns are one for the upstream."""
    routes: list[Route] = []
    taken: set[tuple[str, str]] = set()
    for number in range(draw(st.integers(1, 8))):
        pieces = draw(st.lists(st.sampled_from(("a", "B", "aB", "{x}")), max_size=3))
        pieces += draw(st.sampled_from(([], [""], ["**"])))
        pattern = "/" + "/".join(pieces)
        shape = pattern.lower() if upstream.ignores_case else pattern
        shape = shape.rstrip("/") if upstream.ignores_slash else shape
        methods = draw(st.sampled_from(("*", "GET", "GET|HEAD")))
        keys = {(shape, method) for method in methods.split("|")}
        if not keys & taken:
            taken |= keys
            routes.append(Route(f"route {number}", parse_match(f"{methods} {pattern}"), ("S",)))
    return routes


WORDS = st.lists(st.sampled_from(("a", "A", "b", "B", "ab", "AB", "aB", "c", "C")), max_size=4)


@many
@given(st.data(), st.sampled_from(LOOSE), st.sampled_from(("GET", "HEAD", "POST")), WORDS, st.booleans())
def test_a_request_is_decided_by_the_route_that_the_upstream_runs(
    data: st.DataObject, upstream: Upstream, method: str, words: list[str], slash: bool
) -> None:
    routes = data.draw(route_maps(upstream))
    text = "/" + "/".join([*words, ""] if slash or not words else words)
    found = compile_routes(routes, upstream).find(method, path_of(text))
    runs = run_by(routes, upstream, method, text)

    event("refused" if isinstance(found, Reason) else "found")
    if upstream.ignores_slash:
        assert ({found.name} if isinstance(found, Route) else set()) == runs, text
    elif isinstance(found, Route):
        # With a slash that counts, `**` leaves a path to a more specific pattern without the slash, and that is a refusal.
        assert {found.name} == runs, text


@many
@given(st.data(), st.sampled_from(LOOSE), WORDS, st.booleans())
def test_every_spelling_of_a_path_is_decided_alike(data: st.DataObject, upstream: Upstream, words: list[str], slash: bool) -> None:
    policy = Policy(compile_routes(data.draw(route_maps(upstream)), upstream))

    def decision(text: str) -> object:
        return plan(policy, Request("GET", path_of(text).canonical, "api.acme.com", {}, raw=True, decision_id="0" * 32))

    canonical = "/" + "/".join([*words, ""] if slash or not words else words)
    other = canonical
    if upstream.ignores_case:
        other = "".join(letter.swapcase() if data.draw(st.booleans()) else letter for letter in other)
    if upstream.ignores_slash and words:
        other = other.removesuffix("/") + ("" if data.draw(st.booleans()) else "/")
    assert decision(other) == decision(canonical)


# --- beyond ASCII

FOLDS: tuple[Callable[[str], str], ...] = (
    str.lower,
    str.upper,
    str.casefold,
    fold,
    lambda text: unicodedata.normalize("NFC", text).lower(),
    lambda text: unicodedata.normalize("NFKC", text).casefold(),
    lambda text: "".join(one for one in unicodedata.normalize("NFD", text) if not unicodedata.combining(one)).lower(),
)
"""How servers, file systems and databases make letters equal that differ by case, and some of them by more."""

LIKE = {"k": "kK\u212a", "i": "iI\u0131\u0130\u00ed", "o": "oO\u00f6\uff2f", "s": "sS\u017f", "\u00e4": "\u00e4\u00c4a"}


@many
@given(st.data(), st.lists(st.sampled_from("kios\u00e4"), min_size=1, max_size=5))
@example(None, list("kiosk"))
def test_what_some_server_takes_for_a_literal_is_decided_by_it_or_refused(data: st.DataObject | None, letters: list[str]) -> None:
    word = "".join(letters)
    sent = "".join(data.draw(st.sampled_from(LIKE[letter])) for letter in letters) if data else "\u212aiosk"
    routes = [
        Route("word", parse_match(f"GET /{word}"), deny=True),
        Route("other", parse_match("GET /{x}"), public=True),
    ]
    found = compile_routes(routes, Upstream(ignores_case=True)).find("GET", path_of(f"/{sent}"))
    some = any(each(sent) == each(word) for each in FOLDS)
    every = all(each(sent) == each(word) for each in FOLDS)

    event(f"some {some}, every {every}")
    if some:
        assert (found is routes[0]) == every
    assert (found is routes[1]) <= (not some)


def test_the_widest_fold_makes_equal_what_any_other_does() -> None:
    """Letters of the scripts that have case, and their compatibility forms."""
    for number in (*range(0x3400), *range(0xA640, 0xABC0), *range(0xFB00, 0x10000), *range(0x1D400, 0x1D800)):
        letter = chr(number)
        variants = {each(letter) for each in FOLDS[:6]} | {unicodedata.normalize("NFD", letter), letter.title()}
        assert {widest(variant) for variant in variants} == {widest(letter)}, hex(number)


def test_ascii_words_are_never_confused() -> None:
    """Otherwise a path in ASCII would have to be compared word by word."""
    words = ["".join(chr(32 + (number * step) % 95) for number in range(8)) for step in range(1, 95)]
    assert [word for word in words if widest(word) != fold(word)] == []


# --- a method in the query


@many
@given(
    st.lists(st.sampled_from(("a=1", "b", "_m=1", "method=x", "%20=%3D", "x=_method")), max_size=3),
    st.sampled_from("&;"),
    st.data(),
    st.sampled_from(("", "=DELETE", "[]=x", "%5B%5D=x")),
)
def test_every_spelling_of_the_method_is_found(others: list[str], separator: str, data: st.DataObject, rest: str) -> None:
    name = "".join(
        data.draw(st.sampled_from((letter, letter.upper(), f"%{ord(letter):02x}", f"%{ord(letter.upper()):02X}")))
        for letter in "_method"
    )
    before = data.draw(st.integers(0, len(others)))
    query = separator.join([*others[:before], name + rest, *others[before:]])

    assert names_method(query)
    assert not names_method(separator.join(others))


def test_a_long_query_is_looked_at_once() -> None:
    """A name that nearly fits, many times: the time grows with the length, not with its square."""

    def seconds(count: int) -> float:
        queries = ["&".join(["_metho"] * count), "_" * (7 * count) + "metho%64s", "%5f" * (2 * count) + "methodx"]
        assert [names_method(query) for query in queries] == [False] * 3
        return processor_seconds(lambda: [names_method(query) for query in queries])

    seconds(10)
    assert min(seconds(8_000) for _ in range(5)) < 50 * min(seconds(800) for _ in range(5))


# --- encoded slashes

SLASHED = st.lists(
    st.sampled_from(("a", "b", "ab", "a%2Fb", "%2F", "%2f", "/", ".", "..", "%2e", "%252F", "%5C", ";", "%C3%A9", "%", "")),
    max_size=8,
)


@many
@given(SLASHED)
@example(["a", "%2F"])
@example(["a", "%2F", "%2e", "%2e"])
def test_encoded_slashes_are_read_as_slashes_would_be_and_stay_where_they_are(pieces: list[str]) -> None:
    raw = "/" + "".join(pieces)
    found, decoded = parse_with_slashes(raw), parse(raw.replace("%2F", "/").replace("%2f", "/"))
    ends_in_one = raw.lower().endswith("%2f")

    event("accepted" if isinstance(found, Path) else found.value)
    assert isinstance(found, Path) == (isinstance(decoded, Path) and not ends_in_one and "%2f/" not in raw.lower())
    if isinstance(found, Path) and isinstance(decoded, Path):
        assert found.text.replace(SLASH, "/") == decoded.text
        assert [segment.count(SLASH) for segment in found.segments] == [part.lower().count("%2f") for part in raw[1:].split("/")]
        assert parse_with_slashes(found.canonical) == found
    if "%2f" not in raw.lower():
        assert found == parse(raw)
    else:
        assert isinstance(parse(raw), Reason)


@many
@given(
    st.data(),
    st.sampled_from((Upstream(), *LOOSE)),
    st.lists(st.sampled_from(("a", "B", "b")), max_size=2),
    st.integers(0, 2),
    st.booleans(),
)
def test_a_slash_in_a_segment_gets_through_to_no_route_without_the_key(
    data: st.DataObject, upstream: Upstream, words: list[str], place: int, slash: bool
) -> None:
    """And to one with the key only as the value of a parameter, by the pattern that any other value would take."""
    routes = [
        replace(route, encoded_slashes=data.draw(st.sampled_from((True, True, False))), public=True)
        for route in data.draw(route_maps(upstream))
    ]
    table = compile_routes(routes, upstream)
    words.insert(min(place, len(words)), "slashed")
    raw = "/" + "/".join(words) + "/" * slash

    def decision(path: str) -> Allow | Deny:
        found = plan(Policy(table), Request("GET", path, "api.acme.com", {}, raw=True, decision_id="0" * 32))
        assert isinstance(found, (Allow, Deny))
        return found

    slashed, plain = decision(raw.replace("slashed", "x%2Fy")), decision(raw)
    by_name = {route.name: route for route in routes}
    index = words.index("slashed")
    taken = plain.route is not None and by_name[plain.route].encoded_slashes
    taken = taken and by_name[str(plain.route)].match.segments[index : index + 1] == (None,)
    event("taken" if taken else "refused")
    assert slashed == (plain if taken else Deny(Reason.PATH_AMBIGUOUS))


# --- lints of large maps


def large(count: int, line: str, **more: bool) -> list[Route]:
    return [Route(f"r{number}", parse_match(line.format(number)), ("S",), **more) for number in range(count)]


@pytest.mark.parametrize("line", ["GET /api/v1/group{0}/{{id}}/photo", "GET /api/{{id}}/thing{0}", "GET /t{0}/{{a}}/{{b}}"])
def test_the_lints_of_a_large_map_are_linear(line: str) -> None:
    def lint(count: int) -> float:
        routes = [
            *large(count, line, encoded_slashes=True),
            Route("rest", parse_match("* /**"), ("S",)),
            Route("strict", parse_match("GET /strict/x/y"), ("T",)),
        ]
        table = compile_routes(routes)
        return min(
            processor_seconds(lambda: (list(weaker_spellings(table, routes)), list(reached_when_decoded(table, routes))))
            for _ in range(3)
        )

    assert lint(2_000) < 30 * lint(200)


def test_a_large_map_is_looked_up_as_fast_as_a_small_one_by_a_loose_reader() -> None:
    small, big = (compile_routes(large(count, "GET /Api/V{0}/{{id}}/photo"), EXPRESS) for count in (10, 10_000))
    path = path_of("/aPI/v7/x/photo/")
    assert isinstance(big.find("GET", path), Route)

    def seconds(table: RouteTable) -> float:
        return min(processor_seconds(lambda: [table.find("GET", path) for _ in range(500)]) for _ in range(5))

    assert seconds(big) < 5 * seconds(small)


def test_a_denial_names_no_route_of_a_path_that_is_ambiguous() -> None:
    policy = Policy(compile_routes(large(1, "GET /kiosk"), EXPRESS))
    request = Request("GET", "/kio%C5%BFk", "api.acme.com", {}, raw=True, decision_id="0" * 32)
    assert plan(policy, request) == Deny(Reason.PATH_AMBIGUOUS)


@pytest.mark.parametrize(
    ("upstream", "text", "expected"),
    [
        (Upstream(ignores_case=True), "/A/b/", "/a/b/"),
        (Upstream(ignores_case=True), "/", "/"),
        (Upstream(ignores_slash=True), "/A/b/", "/A/b"),
        (Upstream(ignores_slash=True), "/A/b", "/A/b"),
        (Upstream(ignores_slash=True), "/", "/"),
        (Upstream(ignores_slash=True), "/A/É/", "/A/É"),
        (EXPRESS, "/A/É/", "/a/É"),
        (EXPRESS, "/", "/"),
        (Upstream(), "/A/b/", "/A/b/"),
    ],
)
def test_a_path_is_spelt_as_this_upstream_reads_it_and_no_other(upstream: Upstream, text: str, expected: str) -> None:
    assert upstream.one_spelling(text) == expected
    assert upstream.is_loose is (upstream != Upstream())


@pytest.mark.parametrize("position", range(len("method")))
@pytest.mark.parametrize("letter", [str.lower, str.upper])
def test_a_method_in_the_query_is_found_whichever_letter_of_its_name_is_encoded(
    position: int, letter: Callable[[str], str]
) -> None:
    name = "method"
    encoded = f"%{ord(letter(name[position])):02x}"
    for query in (
        f"_{name[:position]}{encoded}{name[position + 1 :]}=PUT",
        f"a=b&%5f{name[:position]}{encoded}{name[position + 1 :]}",
    ):
        assert names_method(query), query
    assert not names_method(f"{name[:position]}{encoded}{name[position + 1 :]}=PUT")


@pytest.mark.parametrize("query", ["", "a=b", "method=PUT", "a_method=PUT", "_methods=PUT", "_meth=%6fd", "x=_method"])
def test_what_no_parser_takes_for_the_method_is_none(query: str) -> None:
    assert not names_method(query)
