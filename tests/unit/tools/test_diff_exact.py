"""The differences between two configurations are those that brute force finds: none more, none less."""

from __future__ import annotations

from itertools import chain, combinations, product
from typing import Any

import pytest
from hypothesis import HealthCheck, given, reject, settings
from hypothesis import strategies as st

from extauthz.config.loader import Configuration
from extauthz.errors import ConfigurationError
from extauthz.tools.diff import differences
from tests.support.compared import Holder, by_brute_force, configuration, targets, told_by

SCOPES = ("CHAT", "SEARCH")
EVERY_SET = [frozenset(each) for each in chain.from_iterable(combinations(SCOPES, size) for size in range(3))]
TOKEN = {"authorization": "Bearer described"}
FOR_ANA = {"x-scio-actas": "a@acme.com"}

RULES = st.sampled_from(
    [
        {"scope": "CHAT"},
        {"scope": "SEARCH", "anonymous": True},
        {"all_of": ["CHAT", "SEARCH"], "accept": ["user"]},
        {"any_of": ["CHAT", "SEARCH"]},
        {"public": True},
        {"deny": True},
    ]
)
PATTERNS = st.sampled_from(
    [
        "/",
        "/a",
        "/a/",
        "/b",
        "/{p}",
        "/**",
        "/a/b",
        "/a/{p}",
        "/{p}/b",
        "/{p}/{q}",
        "/{p}/a/",
        "/a/**",
        "/{p}/**",
        "/a/{p}/**",
        "/A",
    ]
)
METHODS = st.sampled_from(["GET", "POST", "GET|POST", "*", "OPTIONS"])


@st.composite
def route(draw: st.DrawFn) -> dict[str, Any]:
    pattern, method, line = draw(PATTERNS), draw(METHODS), dict(draw(RULES))
    if "{" in pattern and "deny" not in line and draw(st.booleans()):
        line["encoded_slashes"] = True
    if "deny" not in line and draw(st.integers(0, 5)) == 0:
        line["mode"] = "monitor"
    return {"match": f"{method} {pattern}", **line}


@st.composite
def route_file(draw: st.DrawFn) -> dict[str, Any]:
    upstream = draw(
        st.sampled_from(
            [{}, {}, {"case": "insensitive"}, {"trailing_slash": "ignored"}, {"case": "insensitive", "trailing_slash": "ignored"}]
        )
    )
    return {
        "routes": draw(st.lists(route(), max_size=5, unique_by=lambda line: line["match"].lower())),
        "preflight": draw(st.booleans()),
        "upstream": upstream,
    }


@st.composite
def two_maps(draw: st.DrawFn) -> tuple[dict[str, Any], dict[str, Any]]:
    """Two maps that have most lines in common, as those before and behind a change."""
    old, new = draw(route_file()), draw(route_file())
    if draw(st.booleans()):
        new["routes"] = [*old["routes"][: draw(st.integers(0, 5))], *new["routes"]]
        new["upstream"], new["preflight"] = old["upstream"], old["preflight"]
    return old, new


def loaded(routes: dict[str, Any], sections: dict[str, Any] | None = None) -> Configuration:
    try:
        return configuration({"routes.yaml": routes}, sections)
    except ConfigurationError:
        reject()


def words_of(maps: tuple[dict[str, Any], dict[str, Any]]) -> list[str]:
    """Return segments of each kind that can matter to these maps."""
    folds = any(each["upstream"].get("case") for each in maps)
    slashes = any(line.get("encoded_slashes") for each in maps for line in each["routes"])
    patterns = " ".join(line["match"] for each in maps for line in each["routes"])
    literals = [word for word in ("a", "b") if f"/{word}" in patterns.lower()]
    others = [other for word in literals for other in (word.upper(), f"{word}%CC%81")] if folds else ["A"]
    return ["x", *literals, *others, *(["x%2Fx"] if slashes else [])]


def depth_of(maps: tuple[dict[str, Any], dict[str, Any]]) -> int:
    """Return how many segments tell all patterns apart; what a final `**` takes needs one more."""
    matches = [line["match"].rstrip("/") for each in maps for line in each["routes"]]
    return max((match.count("/") + match.endswith("**") for match in matches), default=1) or 1


def methods_of(maps: tuple[dict[str, Any], dict[str, Any]]) -> list[str]:
    asked = ["OPTIONS GET", "OPTIONS POST", "OPTIONS PUT", "OPTIONS PURGE", "OPTIONS OPTIONS"]
    return ["GET", "POST", "PUT", "PURGE", "OPTIONS", *(asked if any(each["preflight"] for each in maps) else [])]


def check_maps(maps: tuple[dict[str, Any], dict[str, Any]]) -> None:
    pair = loaded(maps[0]), loaded(maps[1])
    holders = [
        Holder("nobody"),
        *(Holder("GLOBAL", TOKEN | FOR_ANA, scopes) for scopes in EVERY_SET),
        *(Holder(kind, TOKEN, scopes) for kind, scopes in product(("ANONYMOUS", "USER"), EVERY_SET)),
    ]
    expected = by_brute_force(pair, targets(words_of(maps), depth_of(maps), methods_of(maps)), holders)
    kinds = {holder.kind for holder in holders}
    assert {each for each in told_by(differences(*pair)) if each[3] in kinds} == expected
    assert differences(pair[0], pair[0]).findings == differences(pair[1], loaded(maps[1])).findings == ()


def file_of(*lines: tuple[str, dict[str, Any]], preflight: bool = False, **upstream: str) -> dict[str, Any]:
    return {"routes": [{"match": match} | line for match, line in lines], "preflight": preflight, "upstream": upstream}


CHAT, SEARCH, PUBLIC, DENIED = {"scope": "CHAT"}, {"scope": "SEARCH"}, {"public": True}, {"deny": True}
OPEN, MONITORED = {"encoded_slashes": True}, {"mode": "monitor"}
MAPS = {
    "a method more": (file_of(("GET /a", CHAT)), file_of(("GET|POST /a", CHAT))),
    "all methods": (file_of(("GET /a", CHAT)), file_of(("* /a", CHAT))),
    "all methods denied": (file_of(("* /a", CHAT)), file_of(("* /a", DENIED))),
    "one method denied before all": (file_of(("* /a", PUBLIC)), file_of(("* /a", PUBLIC), ("PURGE /a", DENIED))),
    "a route in front of another": (file_of(("GET /{p}", CHAT)), file_of(("GET /{p}", CHAT), ("GET /a", SEARCH))),
    "a route in front that refuses by its method": (file_of(("GET /{p}", CHAT)), file_of(("GET /{p}", CHAT), ("POST /a", CHAT))),
    "preflights": (file_of(("GET /a", CHAT), ("POST /a", DENIED)), file_of(("GET /a", CHAT), ("POST /a", DENIED), preflight=True)),
    "preflights and a route for OPTIONS": (
        file_of(("GET /a", CHAT), ("OPTIONS /a", SEARCH), preflight=True),
        file_of(("GET /a", CHAT), ("OPTIONS /a", CHAT)),
    ),
    "preflights of another route": (
        file_of(("GET /a", CHAT), ("POST /{p}", CHAT), preflight=True),
        file_of(("POST /{p}", CHAT), preflight=True),
    ),
    "preflights of a monitored route": (
        file_of(("GET /a", CHAT | MONITORED), preflight=True),
        file_of(("GET /a", CHAT), preflight=True),
    ),
    "preflights behind encoded slashes": (
        file_of(("GET /{p}", CHAT | OPEN), preflight=True),
        file_of(("GET /{p}", CHAT), preflight=True),
    ),
    "encoded slashes": (file_of(("GET /{p}", CHAT | OPEN), ("GET /a", SEARCH)), file_of(("GET /{p}", CHAT), ("GET /a", SEARCH))),
    "encoded slashes in front of another route": (
        file_of(("GET /{p}/{q}", CHAT | OPEN), ("GET /a/{q}", SEARCH)),
        file_of(("GET /{p}/{q}", CHAT | OPEN), ("GET /a/{q}", SEARCH | OPEN)),
    ),
    "letter case": (file_of(("GET /a", CHAT)), file_of(("GET /a", CHAT), case="insensitive")),
    "letter case and another scope": (file_of(("GET /a", CHAT), case="insensitive"), file_of(("GET /A", SEARCH))),
    "a last slash": (file_of(("GET /a", CHAT), ("GET /a/", DENIED)), file_of(("GET /a", CHAT), trailing_slash="ignored")),
    "a monitored route": (file_of(("GET /a", CHAT)), file_of(("GET /a", CHAT | MONITORED))),
    "a monitored route in place of a public one": (file_of(("GET /a", PUBLIC)), file_of(("GET /a", CHAT | MONITORED))),
    "scopes turned": (
        file_of(("GET /a", {"all_of": ["CHAT", "SEARCH"]})),
        file_of(("GET /a", {"any_of": ["CHAT", "SEARCH"], "anonymous": True})),
    ),
    "kinds of tokens": (file_of(("GET /a", CHAT | {"accept": ["user"]})), file_of(("GET /a", CHAT | {"accept": ["global"]}))),
}


@pytest.mark.parametrize("name", MAPS)
def test_two_maps_differ_as_brute_force_says(name: str) -> None:
    old, new = MAPS[name]
    check_maps((old, new))
    check_maps((new, old))


@settings(max_examples=4, deadline=None, suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow])
@given(two_maps())
def test_maps_differ_as_brute_force_says(maps: tuple[dict[str, Any], dict[str, Any]]) -> None:
    check_maps(maps)


@pytest.mark.long
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow])
@given(two_maps())
def test_many_maps_differ_as_brute_force_says(maps: tuple[dict[str, Any], dict[str, Any]]) -> None:
    check_maps(maps)


SECTIONS = st.fixed_dictionaries(
    {},
    optional={
        "act_as": st.fixed_dictionaries(
            {"allow": st.sampled_from([[], ["*@acme.com"], ["a@acme.com"], ["*@*"]])},
            optional={
                "deny": st.sampled_from([["ceo@acme.com"], ["*@x.example"]]),
                "headers": st.just(["X-Acme-ActAs"]),
            },
        ),
        "auth_type": st.sampled_from(["by_token", {"header": "X-Acme-Kind"}, {"oauth": "SSO"}]),
        "identity": st.sampled_from([{"prefix": "x-acme-"}, {"keep": ["authorization"]}, {"keep": ["x-scio-actas"]}]),
        "mode": st.just("monitor"),
        "oauth": st.just(None),
    },
)
NAMES_LIKE_OURS = dict.fromkeys(["x-original-url", "x-extauthz-user", "x-acme-user", "x-extauthz-other", "x-acme-other"], "x")


def everybody() -> list[Holder]:
    """Return callers with all that they can send of headers that decide."""
    users = [None, "a@acme.com", "b@acme.com", "ceo@acme.com", "a@x.example"]
    kinds = [None, "oauth", "sso", "another"]
    found = [Holder("nobody", NAMES_LIKE_OURS)]
    for acting, other, told, own in product(users, users[:2], kinds, kinds[:2]):
        values = {"x-scio-actas": acting, "x-acme-actas": other, "x-glean-auth-type": told, "x-acme-kind": own}
        headers = NAMES_LIKE_OURS | {name: value for name, value in values.items() if value is not None}
        issued = headers | {"authorization": "Bearer glean_described"}
        found += [
            Holder(kind, issued, scopes) for kind, scopes in product(("GLOBAL", "USER"), (frozenset[str](), frozenset(SCOPES)))
        ]
        found += [Holder("ANONYMOUS", issued, frozenset(SCOPES)), Holder("oauth", headers | TOKEN, frozenset(SCOPES))]
    return found


@settings(max_examples=5, deadline=None)
@given(SECTIONS, SECTIONS, RULES)
def test_settings_differ_as_brute_force_says(old: dict[str, Any], new: dict[str, Any], rule: dict[str, Any]) -> None:
    routes = {"routes": [{"match": "GET /a", **rule}]}
    pair = loaded(routes, old), loaded(routes, new)
    expected = by_brute_force(pair, targets(["a", "x"], 1, ["GET", "PURGE"]), everybody())
    assert told_by(differences(*pair)) == expected


SETTINGS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "act-as for more": ({"act_as": {"allow": ["a@acme.com"]}}, {"act_as": {"allow": ["*@acme.com"]}}),
    "act-as for fewer": ({"act_as": {"allow": ["*@acme.com"]}}, {"act_as": {"allow": ["*@acme.com"], "deny": ["ceo@acme.com"]}}),
    "act-as for others": ({"act_as": {"allow": ["a@acme.com"]}}, {"act_as": {"allow": ["*@x.example"]}}),
    "act-as for nobody": ({"act_as": {"allow": []}}, {"act_as": {"allow": ["*@*"]}}),
    "another act-as header": ({}, {"act_as": {"allow": ["*@acme.com"], "headers": ["X-Acme-ActAs"]}}),
    "kinds told by the token": ({}, {"auth_type": "by_token"}),
    "kinds told by another header": ({}, {"auth_type": {"header": "X-Acme-Kind"}}),
    "kinds told by another word": ({}, {"auth_type": {"oauth": "SSO"}}),
    "kinds told by the token or another header": ({"auth_type": "by_token"}, {"auth_type": {"header": "X-Acme-Kind"}}),
    "another prefix": ({}, {"identity": {"prefix": "x-acme-"}}),
    "a credential that is kept": ({}, {"identity": {"keep": ["authorization"]}}),
    "an act-as header that is kept": ({}, {"identity": {"keep": ["x-scio-actas"]}}),
    "monitor mode": ({}, {"mode": "monitor"}),
    "no OAuth": ({}, {"oauth": None}),
}


@pytest.mark.parametrize("name", SETTINGS)
def test_two_settings_differ_as_brute_force_says(name: str) -> None:
    routes = {"routes": [{"match": "GET /a", "scope": "SEARCH", "anonymous": True}, {"match": "GET /b", "public": True}]}
    for old, new in (SETTINGS[name], SETTINGS[name][::-1]):
        pair = loaded(routes, old), loaded(routes, new)
        expected = by_brute_force(pair, targets(["a", "b"], 1, ["GET"]), everybody())
        assert told_by(differences(*pair)) == expected
