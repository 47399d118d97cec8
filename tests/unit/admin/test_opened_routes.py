"""The route map as admins see it: what a token opens is what a check with it is allowed, and a search finds what was typed."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from extauthz.admin.route_map import RouteEntry, RouteMap
from extauthz.config.patterns import compile_patterns, parse_match
from extauthz.core.act_as import ActAs
from extauthz.core.credentials import Kind
from extauthz.core.decide import Plan, decide, plan
from extauthz.core.model import Allow, AuthType, Identity, Request
from extauthz.core.policy import Policy
from extauthz.core.routes import Route, compile_routes
from extauthz.core.upstream import STRICT, Upstream
from tests.support.world import World, bearer

PERMISSIONS = (AuthType.GLOBAL, AuthType.USER, AuthType.ANONYMOUS)
SCOPES = ("A", "B", "C")
SCOPE_SETS = tuple(frozenset(chosen) for chosen in ((), "A", "B", "C", "AB", "ABC"))
METHODS = ("GET", "HEAD", "DELETE", "PURGE")
# Pieces of patterns are of "a" and "b", so "q" stands for every other word; a pattern has four segments at most.
PATHS = tuple(
    "/" + "/".join(segments) + slash
    for length in range(5)
    for segments in product("abq", repeat=length)
    for slash in (("/", "") if length else ("",))
)
ACTING = ActAs(allow=compile_patterns(["*@acme.com"]))


@st.composite
def route_lists(draw: st.DrawFn, prefix: str) -> list[Route]:
    """Routes over so few words that patterns overlap and hide each other; no two share a pattern and a method."""
    routes: list[Route] = []
    taken: set[tuple[object, ...]] = set()
    for number in range(draw(st.integers(1, 7))):
        pieces = draw(st.lists(st.sampled_from(("a", "b", "{x}")), max_size=3))
        pattern = "/" + "/".join([*pieces, *draw(st.sampled_from(([""], ["**"], [])))])
        methods = draw(st.sampled_from(("*", "GET", "GET|HEAD", "PURGE", "GET|HEAD|POST|PUT|PATCH|DELETE|OPTIONS")))
        keys = {(pattern, method) for method in methods.split("|")}
        if keys & taken:
            continue
        taken |= keys
        rule = draw(st.sampled_from(("scopes", "scopes", "scopes", "public", "deny")))
        routes.append(
            Route(
                f"{prefix} {number}",
                parse_match(f"{methods} {pattern}"),
                tuple(draw(st.lists(st.sampled_from(SCOPES), min_size=1, max_size=2, unique=True))) if rule == "scopes" else (),
                any_scope=draw(st.booleans()),
                public=rule == "public",
                deny=rule == "deny",
                accept=frozenset(draw(st.sets(st.sampled_from(tuple(AuthType)), min_size=1))),
                encoded_slashes=draw(st.booleans()),
            )
        )
    return routes


policies = st.builds(
    lambda everywhere, here, upstream, act_as, kinds: Policy(
        routes=compile_routes(everywhere, STRICT),
        hosts={"a.acme.com": compile_routes(here, upstream)} if here else {},
        act_as=act_as,
        kinds=frozenset(kinds),
    ),
    route_lists("everywhere"),
    st.one_of(st.just([]), route_lists("here")),
    st.sampled_from((STRICT, Upstream(ignores_case=True))),
    st.sampled_from((ActAs(), ACTING, ACTING)),
    st.sampled_from(([Kind.OAUTH], [Kind.ISSUED], list(Kind), list(Kind))),
)


def names(entries: tuple[RouteEntry, ...]) -> list[str]:
    return [entry.route.name for entry in entries]


def route_map(policy: Policy) -> RouteMap:
    """Return the map of a policy, as if each route stood in a file of its own."""
    tables = (policy.routes, *policy.hosts.values())
    found = {route.name for table in tables for route in every_route(table.root)}
    return RouteMap(policy, {name: f"{name}.yaml:1" for name in sorted(found)})


def every_route(node: Any) -> list[Route]:
    """Return the routes of a trie, with repetitions."""
    below = [child for child in (*node.literals.values(), node.parameter) if child is not None]
    own = [*(node.methods or {}).values(), *(node.rest or {}).values()]
    return [*own, *(route for child in below for route in every_route(child))]


@settings(max_examples=60, deadline=None)
@given(policies)
def test_a_token_opens_what_a_check_with_it_is_allowed(policy: Policy) -> None:
    """Every path of few words is tried, with every method, host, scope set and permission, by the steps that decide checks."""
    outcomes: dict[str, Plan | Allow] = {}
    for path, method, host in product(PATHS, METHODS, ("a.acme.com", "b.acme.com") if policy.hosts else ("b.acme.com",)):
        headers = {"authorization": "Bearer x"}
        outcome = plan(policy, Request(method, path, host, headers, raw=True, decision_id="0" * 32))
        if isinstance(outcome, Plan):
            outcomes[outcome.route.name] = outcome
        elif isinstance(outcome, Allow):
            outcomes[outcome.route] = outcome
    shown = route_map(policy)
    for permission, scopes in product(PERMISSIONS, SCOPE_SETS):
        user = "ana@acme.com"
        identity = Identity(permission, "token:x", user if permission is AuthType.USER else None, scopes, 2.0)
        request = Request("GET", "/", "", {"x-scio-actas": user} if permission is AuthType.GLOBAL else {}, raw=True, decision_id="")
        allowed = {
            name
            for name, found in outcomes.items()
            if isinstance(found, Allow)
            or isinstance(decide(Plan(policy, request, found.route, found.credential), identity, 1.0), Allow)
        }
        event(f"{permission}: {'some' if allowed else 'none'}")
        assert set(names(shown.opened_by(scopes, permission))) == allowed, (permission, scopes)


ROUTES = """
routes:
  - {match: "POST /search", scope: SEARCH, anonymous: true}
  - {match: "GET /items/{id}", any_of: [SEARCH, DOCUMENTS], name: items}
  - {match: "GET|HEAD /feed/**", all_of: [FEED, SEARCH], accept: [global]}
  - {match: "GET /healthz", public: true}
  - {match: "* /admin/**", deny: true}
  - {match: "PUT /items/{id}", scope: DOCUMENTS, mode: monitor}
"""
ONLY_HERE = """
hosts: [chat.acme.com]
routes:
  - {match: "POST /chat", scope: CHAT, accept: [user, oauth]}
"""
REQUESTS = {
    "POST /search": "POST /search",
    "items": "GET /items/42",
    "GET|HEAD /feed/**": "HEAD /feed",
    "GET /healthz": "GET /healthz",
    "* /admin/**": "GET /admin/users",
    "PUT /items/{id}": "PUT /items/42",
    "POST /chat": "POST /chat",
}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    files = {"chat.yaml": ONLY_HERE}
    return World(tmp_path_factory.mktemp("world"), ROUTES, {"routes": ["routes.yaml", "chat.yaml"]}, more_files=files)


@pytest.fixture(scope="module")
def loaded(world: World) -> RouteMap:
    return RouteMap(world.configuration.policy, world.configuration.route_places)


@pytest.mark.parametrize("permission", PERMISSIONS)
@pytest.mark.parametrize("scopes", [("SEARCH",), ("DOCUMENTS",), ("FEED", "SEARCH"), ("CHAT",), ("FEED",)])
def test_a_genuine_token_opens_what_is_said_of_it(
    world: World, loaded: RouteMap, permission: AuthType, scopes: tuple[str, ...]
) -> None:
    headers = bearer(world.token(permission, *scopes)) | ({"x-scio-actas": "ana@acme.com"} if permission == "GLOBAL" else {})
    allowed = [
        name
        for name, line in REQUESTS.items()
        if (answer := world.check(line, headers, host="chat.acme.com" if "chat" in line else "api.acme.com")).allowed
        and not answer.forwarded
    ]

    assert names(loaded.opened_by(scopes, permission)) == allowed


def test_routes_are_told_with_file_and_line(loaded: RouteMap) -> None:
    places = {entry.route.name: entry.place.rpartition("/")[2] for entry in loaded.entries}

    assert list(places) == list(REQUESTS), "not in the order of the files"
    assert (places["items"], places["POST /chat"]) == ("routes.yaml:4", "chat.yaml:4")
    assert [entry.hosts for entry in loaded.entries][-2:] == [(), ("chat.acme.com",)]
    assert [entry.route.name for entry in loaded.entries if entry.is_monitored] == ["PUT /items/{id}"]
    assert loaded.entries[1].pattern == "/items/{id}"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", list(REQUESTS)),
        ("items", ["items", "PUT /items/{id}"]),
        ("ITEMS put", ["PUT /items/{id}"]),
        ("documents", ["items", "PUT /items/{id}"]),
        ("chat.acme.com", ["POST /chat"]),
        ("monitor", ["PUT /items/{id}"]),
        ("deny", ["* /admin/**"]),
        ("public", ["GET /healthz"]),
        ("anonymous", ["POST /search"]),
        ("chat.yaml:4", ["POST /chat"]),
        ("/items/42", ["items", "PUT /items/{id}"]),
        ("PUT /items/42", ["PUT /items/{id}"]),
        ("GET /feed/a/b?x=1", ["GET|HEAD /feed/**"]),
        ("HEAD /admin/", ["* /admin/**"]),
        ("/nowhere", []),
        ("//", []),
        ("/items/%", []),
        ("<script>", []),
        ("\0", []),
    ],
)
def test_a_search_finds_words_and_the_routes_of_a_request(loaded: RouteMap, text: str, expected: list[str]) -> None:
    assert names(loaded.search(text)) == expected


def test_scopes_too_long_to_be_forwarded_open_nothing_but_what_is_public(loaded: RouteMap) -> None:
    many = [f"SCOPE_{number:03}" for number in range(100)]

    assert names(loaded.opened_by([*many, "SEARCH"], AuthType.USER)) == ["GET /healthz"]


def test_what_a_permission_opens_does_not_depend_on_how_many_scopes_there_are() -> None:
    """All scopes together would be too long to be forwarded."""
    routes = [Route(f"r{number}", parse_match(f"GET /{number}"), (f"SCOPE_{number:03}",)) for number in range(100)]
    routes.append(Route("anonymous", parse_match("GET /a"), ("A",), accept=frozenset({AuthType.ANONYMOUS})))
    shown = route_map(Policy(compile_routes(routes)))

    assert len(shown.accepting(AuthType.USER)) == 100
    assert names(shown.accepting(AuthType.ANONYMOUS)) == ["anonymous"]
    assert shown.accepting(AuthType.GLOBAL) == (), "nobody may be acted for"


def test_a_map_without_routes() -> None:
    assert RouteMap(Policy(), {}).entries == ()
