"""What decides on one side: each key that has a part in a decision is in its rules, and each line of a route in the route's."""

from __future__ import annotations

from typing import Any

import pytest

from extauthz.config.loader import Configuration
from extauthz.core.model import AuthType, Reason
from extauthz.core.routes import Route
from extauthz.tools.diff_rules import RouteRule, general_rules, names_like_ours, rule_of, scope_sets
from tests.support.compared import configuration

NONE, CHAT, SEARCH = frozenset[str](), frozenset({"CHAT"}), frozenset({"SEARCH"})
BOTH = CHAT | SEARCH
USUAL = frozenset({AuthType.OAUTH, AuthType.GLOBAL, AuthType.USER})
ROUTE = {"match": "GET /a", "scope": "CHAT"}
TOKENS = {"store": "sqlite:///tokens.db", "peppers": [{"id": "p1", "file": "pepper"}]}
SIGNING = {"issuer": "https://a.example", "audience": "https://b.example", "keys": [{"id": "k", "file": "k"}]}


def rule(line: dict[str, Any], settings: dict[str, Any] | None = None, **of_file: Any) -> RouteRule:
    """Return the rule of the only route of a file."""
    loaded = configuration({"r.yaml": {"routes": [{"match": "GET /a/{p}"} | line], **of_file}}, settings)
    (route,) = routes_of(loaded)
    return rule_of(loaded, route)


def routes_of(loaded: Configuration) -> list[Route]:
    found, waiting = [], [loaded.policy.routes.root]
    while waiting:
        node = waiting.pop()
        found += [*(node.methods or {}).values(), *(node.rest or {}).values()]
        waiting += [*node.literals.values(), *([node.parameter] if node.parameter else [])]
    return found


@pytest.mark.parametrize(
    ("line", "more", "expected"),
    [
        ({"scope": "CHAT"}, {}, RouteRule(frozenset({CHAT}), False, None, USUAL)),
        ({"all_of": ["CHAT", "SEARCH"]}, {}, RouteRule(frozenset({BOTH}), False, None, USUAL)),
        ({"any_of": ["CHAT", "SEARCH"]}, {}, RouteRule(frozenset({CHAT, SEARCH}), False, None, USUAL)),
        ({"scope": "CHAT", "anonymous": True}, {}, RouteRule(frozenset({CHAT}), False, None, USUAL | {AuthType.ANONYMOUS})),
        ({"scope": "CHAT", "accept": ["user"]}, {}, RouteRule(frozenset({CHAT}), False, None, frozenset({AuthType.USER}))),
        ({"public": True}, {}, RouteRule(frozenset({NONE}), True, None, frozenset())),
        ({"deny": True}, {}, RouteRule(frozenset(), False, Reason.ROUTE_DENIED, frozenset())),
        ({"scope": "CHAT"}, {"preflight": True}, RouteRule(frozenset({CHAT}), False, None, USUAL, preflight=True)),
        (
            {"scope": "CHAT", "encoded_slashes": True},
            {},
            RouteRule(frozenset({CHAT}), False, None, USUAL, encoded_slashes=True),
        ),
        ({"scope": "CHAT", "mode": "monitor"}, {}, RouteRule(frozenset({CHAT}), False, None, USUAL, monitored=True)),
    ],
)
def test_the_line_of_a_route_is_its_rule(line: dict[str, Any], more: dict[str, Any], expected: RouteRule) -> None:
    assert rule(line, **more) == expected
    assert expected.line == (expected.least, expected.public, expected.refusal, expected.accept)


@pytest.mark.parametrize(
    ("line", "signing", "expected"),
    [
        ({"scope": "CHAT"}, SIGNING, "https://b.example"),
        ({"scope": "CHAT", "audience": "https://c.example"}, SIGNING, "https://c.example"),
        ({"scope": "CHAT"}, SIGNING | {"enabled": False}, None),
        ({"public": True}, SIGNING, None),
        ({"deny": True}, SIGNING, None),
        ({"scope": "CHAT"}, None, None),
    ],
)
def test_a_route_has_an_audience_where_a_token_is_signed_for_it(
    line: dict[str, Any], signing: dict[str, Any] | None, expected: str | None
) -> None:
    assert rule(line, {"internal_token": signing}).audience == expected


def with_least(*sets: frozenset[str]) -> RouteRule:
    return RouteRule(frozenset(sets), False, None, USUAL)


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        (with_least(), with_least(), (NONE,)),
        (with_least(CHAT), with_least(), (NONE, CHAT)),
        (with_least(CHAT), with_least(SEARCH), (NONE, CHAT, SEARCH, BOTH)),
        (with_least(CHAT, SEARCH), with_least(BOTH), (NONE, CHAT, SEARCH, BOTH)),
        (
            with_least(frozenset("a"), frozenset("b")),
            with_least(frozenset("c"), frozenset("d")),
            (NONE, *map(frozenset, ("a", "b", "c", "d")), frozenset("ac"), frozenset("abcd")),
        ),
        (
            with_least(frozenset("ab"), frozenset("z")),
            with_least(frozenset("c")),
            (NONE, *map(frozenset, ("c", "z", "ab", "cz", "abcz"))),
        ),
    ],
)
def test_sets_of_scopes_stand_for_all_that_tokens_can_hold(
    old: RouteRule, new: RouteRule, expected: tuple[frozenset[str], ...]
) -> None:
    """None, the least of either side, one that suffices on both, and all; the small ones first."""
    assert scope_sets((old, new)) == expected


OAUTH = {
    "provider": "okta",
    "issuer": "https://acme.okta.com/oauth2/default",
    "client_ids": ["0oa1example"],
    "audience": "api://default",
}
USUAL_SECTIONS: dict[str, Any] = {"oauth": OAUTH, "tokens": TOKENS, "act_as": {"allow": ["*@acme.com"], "deny": ["ceo@acme.com"]}}


@pytest.mark.parametrize(
    "changed",
    [
        {"oauth": None},
        {"oauth": OAUTH | {"scopes": ["CHAT"]}},
        {"oauth": {"providers": [OAUTH | {"name": "second"}]}},
        {"oauth": OAUTH | {"enabled": False}},
        {"oauth": OAUTH | {"scopes": "claim"}},
        {"tokens": None},
        {"tokens": TOKENS | {"enabled": False}},
        {"tokens": TOKENS | {"prefix": "acme"}},
        {"tokens": TOKENS | {"accept_prefixes": ["acme"]}},
        {"act_as": {"allow": ["*@other.example"], "deny": ["ceo@acme.com"]}},
        {"act_as": {"allow": ["*@acme.com"]}},
        {"act_as": {"allow": ["*@acme.com"], "deny": ["ceo@acme.com"], "headers": ["X-Acme-ActAs"]}},
        {"auth_type": "by_token"},
        {"auth_type": {"oauth": "SSO"}},
        {"identity": {"prefix": "x-acme-"}},
        {"identity": {"keep": ["authorization"]}},
        {"server": {"listen": "127.0.0.1:9001", "max_token_size": "1KiB"}},
    ],
    ids=str,
)
def test_whatever_decides_besides_routes_is_a_general_rule(changed: dict[str, Any]) -> None:
    assert general_rules(loaded(changed)) != general_rules(loaded({}))
    assert general_rules(loaded(changed)) == general_rules(loaded(changed))


def test_where_the_host_decides_headers_that_name_another_one_are_removed_and_that_is_a_general_rule() -> None:
    files = {"r.yaml": {"routes": [ROUTE]}}, {"r.yaml": {"routes": [ROUTE], "hosts": ["api.acme.com"]}}
    one, other = (general_rules(configuration(each, USUAL_SECTIONS)) for each in files)
    assert one != other


@pytest.mark.parametrize(
    "changed",
    [
        {"act_as": {"allow": ["*@acme.com", "*@acme.com"], "deny": ["ceo@acme.com"]}},
        {"tokens": TOKENS | {"peppers": [{"id": "p1", "file": "another"}]}},
        {"tokens": TOKENS | {"accept_prefixes": ["glean"]}},
        {"oauth": OAUTH | {"client_ids": ["another"]}},
        {"server": {"listen": "127.0.0.1:9002"}},
    ],
    ids=str,
)
def test_what_decides_nothing_or_cannot_be_computed_is_none(changed: dict[str, Any]) -> None:
    assert general_rules(loaded(changed)) == general_rules(loaded({}))


def loaded(changed: dict[str, Any]) -> Configuration:
    return configuration([ROUTE], USUAL_SECTIONS | changed)


def test_names_that_one_side_may_take_from_a_request_are_those_of_both() -> None:
    usual, other = loaded({}), loaded({"identity": {"prefix": "x-acme-"}, "auth_type": {"header": "X-Extauthz-Kind"}})
    names = names_like_ours((usual, other))
    assert {"x-extauthz-user", "x-extauthz-other", "x-acme-user", "x-acme-other", "x-original-url"} <= names
    # What decides is sent by the classes of callers, one value after the other.
    assert names.isdisjoint({"authorization", "x-scio-actas", "x-glean-auth-type", "x-extauthz-kind"})
    assert names == names_like_ours((other, usual))
    assert "x-acme-user" not in names_like_ours((usual, usual))
