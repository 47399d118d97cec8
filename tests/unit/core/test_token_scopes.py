"""What an OAuth access token may do: all that it may do at most, or what its claims say of that, and never more."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from extauthz.config.loader import Configuration, load
from extauthz.core.claims import verify
from extauthz.core.model import Identity
from extauthz.core.provider_table import PROVIDERS
from extauthz.core.providers import ProviderRules
from tests.support.world import CLIENT, ISSUER, NOW, World, claims, oauth, sign

VOCABULARY = frozenset({"read", "write", "SEARCH", "CHAT"})
RULES = ProviderRules(
    name="okta",
    provider=PROVIDERS["okta"][0],
    issuer=ISSUER,
    client_ids=frozenset({CLIENT}),
    audience=frozenset({"api://default"}),
    scopes=VOCABULARY,
    user_claims=("sub",),
)


def held(rules: ProviderRules, **more: Any) -> frozenset[str]:
    found = verify({**claims(), **more}, rules, NOW)
    assert isinstance(found, Identity), found
    return found.scopes


def by(*names: str, scopes: frozenset[str] = VOCABULARY, **scope_map: set[str]) -> ProviderRules:
    mapped = {name: frozenset(values) for name, values in scope_map.items()} or None
    return replace(RULES, scopes=scopes, scope_claims=names, scope_map=mapped)


ROLES = {"realm_access": {"roles": ["editor", "read"]}}
ZITADEL = "urn:zitadel:iam:org:project:roles"
ZITADEL_ROLES = {ZITADEL: {"editor": {"237141289": "acme.zitadel.cloud"}, "read": {"237141289": "acme.zitadel.cloud"}, "CHAT": {}}}


@pytest.mark.parametrize(
    ("rules", "told", "expected"),
    [
        (RULES, {"scp": ["read"]}, VOCABULARY),
        (by("scp"), {"scp": ["read", "openid"]}, {"read"}),
        (by("scope"), {"scope": "read write"}, {"read", "write"}),
        (by("scope"), {"scope": "  read   "}, {"read"}),
        (by("scope"), {"scope": ""}, set()),
        (by("scope"), {"scope": "READ Write search"}, set()),
        (by("scope"), {"scope": "read,write"}, set()),
        (by("scope"), {"scope": "read\twrite"}, set()),
        (by("scope"), {}, set()),
        (by("permissions"), {"permissions": ["read write", "SEARCH"]}, {"SEARCH"}),
        (by("permissions"), {"permissions": ["read", 5]}, set()),
        (by("permissions"), {"permissions": {"read": True}}, set()),
        (by("permissions"), {"permissions": True}, set()),
        (by("permissions"), {"permissions": None}, set()),
        (by("permissions"), {"permissions": [["read"]]}, set()),
        (by("scope", "permissions"), {"scope": "read", "permissions": ["CHAT"]}, {"read", "CHAT"}),
        (by("scope", scopes=frozenset({"read"})), {"scope": "read write"}, {"read"}),
        (by("groups", editors={"read", "write"}), {"groups": ["editors", "staff"]}, {"read", "write"}),
        (by("groups", editors={"read"}), {"groups": ["read", "write"]}, set()),
        (by("groups", editors={"read", "write"}, scopes=frozenset({"read"})), {"groups": ["editors"]}, {"read"}),
        (by("groups", editors={"delete"}), {"groups": ["editors"]}, set()),
        (replace(by("groups"), scope_map={"API editors": frozenset({"write"})}), {"groups": ["API editors"]}, {"write"}),
        (by("groups", admins={"write"}), {"groups": "not admins"}, set()),
        (by("groups", admins={"write"}), {"groups": "admins"}, {"write"}),
        (by("groups"), {"groups": "read write"}, set()),
        (by("realm_access.roles", editor={"write"}), {"realm_access": {"roles": "no editor"}}, set()),
        (replace(by("groups"), scope_map={"API editors": frozenset({"write"})}), {"groups": "API editors"}, {"write"}),
        (by("scp"), {"scp": "read write"}, {"read", "write"}),
        (by("scope", "groups", admins={"write"}), {"scope": "x admins", "groups": "x admins"}, {"write"}),
        (by("realm_access.roles", editor={"write"}), ROLES, {"write"}),
        (by("realm_access.roles"), ROLES, {"read"}),
        (by(f"{ZITADEL}.*", editor={"write"}), ZITADEL_ROLES, {"write"}),
        (by(f"{ZITADEL}.*"), ZITADEL_ROLES, {"read"}),
        (by(ZITADEL, editor={"write"}), ZITADEL_ROLES, set()),
        (by("roles.*"), {"roles": {"read": True, "write": False, "SEARCH": "no", "CHAT": 1}}, {"read"}),
        (by("roles.*"), {"roles": {"read": [], "write": ["x"], "SEARCH": None}}, set()),
        (by("roles.*"), {"roles": ["read"]}, set()),
        (by("roles.*"), {"roles": "read"}, set()),
        (by("roles.*"), {"roles": {"*": ["read"]}}, set()),
        (by("roles.*"), {"roles": {}}, set()),
        (by("roles.*"), {}, set()),
        (by("api.roles.*"), {"api": {"roles": {"read": True}}}, {"read"}),
        (by("roles.*"), {"roles.*": ["write"], "roles": {"read": True}}, {"write"}),
        (by("*"), {"read": True}, set()),
        (by("realm_access.roles"), {"realm_access.roles": ["write"], **ROLES}, {"write"}),
        (by("realm_access.roles"), {"realm_access": ["read"]}, set()),
        (by("realm_access.roles"), {"realm_access": {"roles": {"read": 1}}}, set()),
        (by("https://acme.com/roles"), {"https://acme.com/roles": ["read"]}, {"read"}),
        (by("realm_access."), ROLES, set()),
        (by("realm_access."), {"realm_access": {"": ["read"]}}, set()),
        (by("resource_access.api.roles"), {"resource_access": {"api": {"roles": ["read"]}}}, {"read"}),
        (
            replace(by("scp"), provider=replace(RULES.provider, scope_claim="scope")),
            {"scope": "x", "scp": "read write"},
            {"read", "write"},
        ),
    ],
)
def test_the_scopes_of_a_token(rules: ProviderRules, told: dict[str, Any], expected: set[str]) -> None:
    assert held(rules, **told) == expected


NAMES = st.sampled_from(["read", "write", "SEARCH", "delete", "READ", "read write", "", " ", "editors"])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | NAMES | st.lists(NAMES, max_size=4).map(" ".join),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["roles", "a"]) | NAMES, inner, max_size=2),
    max_leaves=6,
)


@settings(max_examples=200, deadline=None)
@given(
    claim=VALUES,
    names=st.lists(st.sampled_from(["scope", "groups", "groups.roles", "groups.*", "groups.roles.*", "scp"]), max_size=3),
    ceiling=st.frozensets(st.sampled_from(sorted(VOCABULARY))),
    scope_map=st.none() | st.dictionaries(NAMES, st.frozensets(NAMES), max_size=3),
)
def test_no_claim_gives_more_than_a_token_may_do_at_most(
    claim: Any, names: list[str], ceiling: frozenset[str], scope_map: dict[str, frozenset[str]] | None
) -> None:
    rules = replace(RULES, scopes=ceiling, scope_claims=tuple(names), scope_map=scope_map)
    found = held(rules, groups=claim, scope=claim)
    told = json.dumps(claim)
    meanings = {name: frozenset({name}) for name in VOCABULARY} if scope_map is None else scope_map
    granted = frozenset().union(*(scopes for value, scopes in meanings.items() if value in told))
    assert found <= (granted & ceiling if names else frozenset())


def test_what_many_tokens_hold_is_one_object() -> None:
    assert held(by("scope"), scope="read write") is held(by("scope"), scope="write read openid")


# --- from the configuration

OKTA = {"provider": "okta", "issuer": ISSUER, "client_ids": [CLIENT], "audience": "api://default"}
OIDC = {"provider": "oidc", "issuer": "https://sso.acme.com", "client_ids": ["web"], "audience": "api"}


def configured(folder: Path, entry: dict[str, Any]) -> Configuration:
    (folder / "routes.yaml").write_text('routes: [{match: "GET /a", scope: SEARCH}]')
    data = {"version": 1, "server": {"listen": "127.0.0.1:9001"}, "oauth": entry, "routes": ["routes.yaml"]}
    (folder / "extauthz.yaml").write_text(json.dumps({**data, "scopes": ["SEARCH", "CHAT", "read:items"]}))
    return load(folder / "extauthz.yaml")


EVERYTHING = frozenset({"SEARCH", "CHAT", "read:items"})


@pytest.mark.parametrize(
    ("entry", "scopes", "claims_read", "scope_map"),
    [
        (OKTA, EVERYTHING, None, None),
        (OKTA | {"scopes": "all"}, EVERYTHING, None, None),
        (OKTA | {"scopes": ["search"]}, {"SEARCH"}, None, None),
        (OKTA | {"scopes": "claim"}, EVERYTHING, ("scp",), None),
        (OKTA | {"scopes": ["search"], "scope_claim": "permissions"}, {"SEARCH"}, ("permissions",), None),
        (OIDC | {"scopes": "all"}, EVERYTHING, None, None),
        (OIDC | {"scopes": "claim"}, EVERYTHING, ("scope",), None),
        (OIDC | {"scope_claim": ["scope", "scp"]}, EVERYTHING, ("scope", "scp"), None),
        (
            OIDC | {"scope_claim": "groups", "scope_map": {"readers": "search", "all": ["Chat", "read:items"]}},
            EVERYTHING,
            ("groups",),
            {"readers": {"SEARCH"}, "all": {"CHAT", "read:items"}},
        ),
    ],
)
def test_what_is_written_is_what_counts(
    tmp_path: Path, entry: dict[str, Any], scopes: set[str], claims_read: tuple[str, ...] | None, scope_map: Any
) -> None:
    (rules,) = configured(tmp_path, entry).providers
    assert (rules.scopes, rules.scope_claims, rules.scope_map) == (scopes, claims_read, scope_map)


def test_a_token_opens_what_its_claim_says(tmp_path: Path) -> None:
    world = World(
        tmp_path,
        [{"match": "GET /a", "scope": "SEARCH"}, {"match": "GET /b", "scope": "CHAT"}],
        {"oauth": OKTA | {"scopes": "claim"}},
    )
    token = sign(claims(scp=["SEARCH", "openid"]))
    answers = [world.check(line, oauth(token)) for line in ("GET /a", "GET /b")]
    assert [answer.reason for answer in answers] == ["allowed", "scope_missing"]
    assert answers[0].headers["x-extauthz-scopes"] == "SEARCH"
    assert answers[1].metadata["held_scopes"] == "SEARCH"
