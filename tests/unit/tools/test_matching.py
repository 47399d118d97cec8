"""Which route takes a request, over which others, and what is near."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extauthz.core.model import Reason
from extauthz.core.policy import Policy
from extauthz.core.routes import Match, Route, compile_routes
from extauthz.core.upstream import Upstream
from extauthz.tools.matching import Nearness, matching
from tests.support import vectors

ROUTES: list[Any] = [
    {"match": "GET /users/me", "scope": "SEARCH"},
    {"match": "GET /users/{id}", "scope": "SEARCH"},
    {"match": "PATCH /users/{id}", "scope": "CHAT"},
    {"match": "DELETE /users/**", "deny": True},
    {"match": "GET /users/{id}/items", "scope": "SEARCH"},
    {"match": "GET /files/", "public": True},
    {"match": "GET /Docs", "scope": "SEARCH"},
    {"match": "GET /docs/{page}", "scope": "SEARCH"},
    {"match": "GET /docs/**", "scope": "CHAT"},
]
HOSTED = {
    "hosts": ["admin.acme.com"],
    "routes": [{"match": "GET /admin", "scope": "CHAT"}, {"match": "GET /users/me", "name": "nobody", "deny": True}],
}

_ME = "segment 2 is the word 'me' there, and {} here"
_OF_ME = [
    f"DELETE /users/**: {_ME.format('part of the rest')}",
    f"GET /users/{{id}}: {_ME.format('a parameter')}",
    f"PATCH /users/{{id}}: {_ME.format('a parameter')}",
]
_REST = ["DELETE /users/**: segment 2 is a parameter there, and part of the rest here"]
_SLASH = "it takes the path as its rest, but without the slash at the end the path belongs to another pattern: so neither does"
_OTHER_METHODS = ["method: GET /users/{id} by GET", "method: PATCH /users/{id} by PATCH"]

CASES: dict[str, tuple[str | None, str, list[str], list[str]]] = {
    # The request: its route, what it comes to, other patterns and why they do not win, what is near and by what.
    "GET /users/me": ("GET /users/me", "credential_missing", _OF_ME, ["host: nobody by admin.acme.com"]),
    "GET /users/7": ("GET /users/{id}", "credential_missing", _REST, ["method: PATCH /users/{id} by PATCH"]),
    "DELETE /users/7": (None, "method_not_allowed", _REST, _OTHER_METHODS),
    "DELETE /users/7/x/y": ("DELETE /users/**", "route_denied", [], []),
    "GET /users": (None, "method_not_allowed", [], ["method: DELETE /users/** by DELETE", "typing: GET /users/{id} by "]),
    "GET /files": (None, "route_unknown", [], ["slash: GET /files/ by /files/"]),
    "GET /USERS/ME": (None, "route_unknown", [], ["case: GET /users/me by GET /users/me", "typing: GET /users/{id} by "]),
    "get /users/7": (None, "method_not_allowed", _REST, [*_OTHER_METHODS, "case: GET /users/{id} by GET /users/{id}"]),
    "GET /user/7/items": (None, "route_unknown", [], ["typing: GET /users/{id}/items by "]),
    "GET /nothing/like/it/at/all": (None, "route_unknown", [], []),
    "GET /docs/a/": (
        None,
        "route_unknown",
        [f"GET /docs/**: {_SLASH}"],
        ["slash: GET /docs/{page} by /docs/a", "typing: GET /docs/** by "],
    ),
    "GET /a;b": (None, "path_ambiguous", [], []),
    "GET /files/?access_token=x": ("GET /files/", "public", [], []),
    "GET /docs/7?access_token=x": (
        "GET /docs/{page}",
        "token_in_query",
        ["GET /docs/**: segment 2 is a parameter there, and part of the rest here"],
        [],
    ),
    "GET /users/me?_method=DELETE": ("GET /users/me", "method_in_query", _OF_ME, ["host: nobody by admin.acme.com"]),
}
REFUSED = {"route_denied", "method_in_query", "token_in_query"}


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Policy:
    said = {"routes": ROUTES, "files": {"admin.yaml": HOSTED}}
    return vectors.build(tmp_path_factory.mktemp("matching"), said, {}).world.configuration.policy


@pytest.mark.parametrize("request_line", CASES)
def test_a_request_and_its_route(policy: Policy, request_line: str) -> None:
    method, path = request_line.split(" ", 1)
    found = matching(policy, method, path, "api.acme.com")
    route, reason, others, near = CASES[request_line]
    assert (found.route and found.route.name, found.decision.reason.value) == (route, reason)
    assert found.is_refused == (route is None or reason in REFUSED)
    assert [f"{one.route.name}: {one.why}" for one in found.others] == others
    assert [f"{one.nearness}: {one.route.name} by {one.instead}" for one in found.near] == near


def test_a_request_for_another_host(policy: Policy) -> None:
    found = matching(policy, "GET", "/admin", "api.acme.com")
    assert found.route is None
    assert (found.near[0].nearness, found.near[0].instead) == (Nearness.HOST, "admin.acme.com")
    other = matching(policy, "GET", "/users/7", "admin.acme.com")
    assert [(one.nearness, one.instead) for one in other.near if one.nearness is Nearness.HOST] == [
        (Nearness.HOST, "a host that no file names")
    ]
    assert matching(policy, "GET", "/admin", "a,b").decision.reason is Reason.HOST_MALFORMED


SEGMENTS = st.lists(st.sampled_from(["a", "b", None, ""]), min_size=1, max_size=3)


@given(
    st.lists(st.tuples(SEGMENTS, st.booleans()), min_size=1, max_size=6),
    st.lists(st.sampled_from(["a", "b", "c", "A"]), min_size=1, max_size=4),
    st.booleans(),
    st.builds(Upstream, ignores_case=st.booleans(), ignores_slash=st.booleans()),
)
def test_the_pattern_that_wins_is_the_most_specific_of_those_that_take_the_path(
    patterns: list[tuple[list[str | None], bool]], words: list[str], slash: bool, upstream: Upstream
) -> None:
    """By the ranks of patterns, which the walk through the table does not use."""
    routes = {}
    for segments, rest in patterns:
        kept = tuple(segment for place, segment in enumerate(segments) if segment != "" or place == len(segments) - 1)
        match = Match("", ("GET",), tuple(each for each in kept if not (rest and each == "")), rest).read_by(upstream)
        routes[match.segments, match.rest] = Route(f"{kept}{rest}", match, ("S",))
    policy = Policy(routes=compile_routes(routes.values(), upstream))
    found = matching(policy, "GET", "/" + "/".join(words) + "/" * slash, "")
    if found.route is not None:
        ranks = [one.route.match.specificity for one in found.others]
        assert all(found.route.match.specificity < rank for rank in ranks)
    alone = {route.name for route in routes.values() if _takes(route, words, upstream, slash=slash)}
    assert {one.route.name for one in found.others} | {route.name for route in found.pattern} == alone


def _takes(route: Route, words: list[str], upstream: Upstream, *, slash: bool) -> bool:
    """Compare segment by segment."""
    path = [word.lower() if upstream.ignores_case else word for word in words]
    if slash and not upstream.ignores_slash:
        path.append("")
    segments = route.match.segments
    if len(path) < len(segments) or (not route.match.rest and len(path) != len(segments)):
        return False
    return all(part == segment or (segment is None and part != "") for part, segment in zip(path, segments, strict=False))


def test_every_nearness_has_a_case() -> None:
    assert {near.partition(":")[0] for _, _, _, all_near in CASES.values() for near in all_near} == {
        each.value for each in Nearness
    }
