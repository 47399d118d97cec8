"""Every claim in every JSON type: `tests/vectors/claims.yaml` says which ones its specification allows."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from typing import Any

import pytest

from extauthz.core import claims
from extauthz.core.model import Reason
from extauthz.core.provider_table import PROVIDERS
from extauthz.core.providers import Provider, ProviderRules, Verification
from extauthz.verifiers import issuer_answers
from tests.support import remote, vectors, world
from tests.support.azure_claims import CLAIMS, CLIENT, TENANT, V1, V2
from tests.support.world import NOW


@dataclass(frozen=True)
class Source:
    """Where claims come from: a genuine document, and what is made of it once a claim in it was changed."""

    genuine: dict[str, Any]
    rules: ProviderRules
    told: Callable[[dict[str, Any], ProviderRules], claims.Claims | Reason]

    def reason(self, document: dict[str, Any]) -> str:
        """Judge a document; "allowed" if it names somebody."""
        found = self.told(document, self.rules)
        evidence = found if isinstance(found, Reason) else claims.verify(found, self.rules, NOW)
        return evidence.value if isinstance(evidence, Reason) else "allowed"


def rules(provider: Provider, issuer: str, client: str, **more: Any) -> ProviderRules:
    """Return rules for one client of a provider."""
    common = {"name": provider.name, "scopes": frozenset({"SEARCH"}), "audience": None, "user_claims": provider.user_claims}
    return ProviderRules(provider=provider, issuer=issuer, **({"client_ids": frozenset({client})} | common | more))


def itself(document: dict[str, Any], _: ProviderRules) -> claims.Claims:
    return document


def answered(document: dict[str, Any], rules: ProviderRules) -> claims.Claims | Reason:
    payload = {} if rules.provider.opaque else remote.okta_org_claims()
    return issuer_answers.vouched(payload, document, rules)


def of_onelogin(document: dict[str, Any], rules: ProviderRules) -> claims.Claims | Reason:
    return issuer_answers.with_user(document, remote.onelogin_userinfo(), rules)


def onelogin_user(document: dict[str, Any], rules: ProviderRules) -> claims.Claims | Reason:
    return issuer_answers.with_user(remote.onelogin_claims(), document, rules)


def google_user(document: dict[str, Any], rules: ProviderRules) -> claims.Claims | Reason:
    told = issuer_answers.vouched({}, remote.tokeninfo(), rules)
    return told if isinstance(told, Reason) else issuer_answers.with_user(told, document, rules)


OKTA, OKTA_ORG = PROVIDERS["okta"]
AZURE_2, AZURE_1, AZURE_1_CHINA = PROVIDERS["azure"]
(GSUITE,), (ONELOGIN,) = PROVIDERS["gsuite"], PROVIDERS["onelogin"]
TIMES = {"iat": NOW - 60, "nbf": NOW - 60, "exp": NOW + 4000}
CHINA = f"https://sts.chinacloudapi.cn/{TENANT}/"
FOR_CLIENT = frozenset({CLIENT, f"api://{CLIENT}"})
GOOGLE_RULES = rules(GSUITE, remote.GOOGLE, remote.GOOGLE_CLIENT, verification=Verification.TOKENINFO)
ONELOGIN_RULES = rules(
    ONELOGIN, remote.ONELOGIN, remote.ONELOGIN_CLIENT, audience=frozenset({remote.ONELOGIN_CLIENT}), userinfo=True
)
SOURCES = {
    "okta": Source(world.claims(), rules(OKTA, world.ISSUER, world.CLIENT, audience=frozenset({"api://default"})), itself),
    "azure-2": Source(CLAIMS[V2] | TIMES, rules(AZURE_2, V2, CLIENT, tenant=TENANT, audience=FOR_CLIENT), itself),
    "azure-1": Source(CLAIMS[V1] | TIMES, rules(AZURE_1, V1, CLIENT, tenant=TENANT, audience=FOR_CLIENT), itself),
    "azure-1-guest": Source(
        {name: value for name, value in (CLAIMS[V1] | TIMES).items() if name != "upn"},
        rules(AZURE_1, V1, CLIENT, tenant=TENANT, audience=FOR_CLIENT),
        itself,
    ),
    "azure-1-china": Source(
        CLAIMS[V1] | TIMES | {"iss": CHINA}, rules(AZURE_1_CHINA, CHINA, CLIENT, tenant=TENANT, audience=FOR_CLIENT), itself
    ),
    "azure-users": Source(
        CLAIMS[V2] | TIMES,
        rules(
            AZURE_2,
            V2,
            CLIENT,
            tenant=TENANT,
            audience=FOR_CLIENT,
            users={CLAIMS[V2]["oid"]: "abeli@acme.com"},
            user_claims=(AZURE_2.subject_claim,),
        ),
        itself,
    ),
    "onelogin": Source(remote.onelogin_claims(), ONELOGIN_RULES, of_onelogin),
    "tokeninfo": Source(remote.tokeninfo(), GOOGLE_RULES, answered),
    "introspection": Source(
        remote.okta_introspection(),
        rules(
            OKTA_ORG,
            remote.OKTA_ORG,
            remote.OKTA_CLIENT,
            verification=Verification.INTROSPECTION,
            user_claims=("username",),
            audience=frozenset({remote.OKTA_ORG}),
        ),
        answered,
    ),
    "okta-userinfo": Source(
        remote.okta_userinfo(),
        rules(OKTA_ORG, remote.OKTA_ORG, remote.OKTA_CLIENT, verification=Verification.USERINFO),
        answered,
    ),
    "onelogin-userinfo": Source(remote.onelogin_userinfo(), ONELOGIN_RULES, onelogin_user),
    "google-userinfo": Source(
        remote.google_userinfo(),
        rules(
            GSUITE,
            remote.GOOGLE,
            remote.GOOGLE_CLIENT,
            verification=Verification.TOKENINFO,
            hosted_domains=frozenset({"acme.com"}),
            userinfo=True,
        ),
        google_user,
    ),
}
ROWS: list[dict[str, Any]] = vectors.load("claims")["claims"]
ODD: list[Any] = [
    *(None, True, False, 0, 1, -1, 1.5, 10**400, 1e300, float("nan"), float("inf"), -float("inf")),
    *("", "x", "\x00", [], {}, [None], [[]], [{}], [True], ["x"], {"x": 1}),
]


def scope_names(value: Any) -> set[str]:
    """Return the scopes of Google by their short names."""
    return set(" ".join(claims.strings(value)).replace(remote.GOOGLE_SCOPES, "").split(" "))


FREE: dict[str, Callable[[Any], bool]] = {
    "nothing": lambda _: False,
    "text": lambda value: isinstance(value, str),
    "words": lambda value: bool(claims.strings(value)),
    "all three": lambda value: {"openid", "email", "profile"} <= scope_names(value),
}
"""What a claim may hold besides, whose text means nothing to us: `any` in a row."""


def retyped(value: Any) -> Iterator[Any]:
    """Yield a value in other types, and in texts that nearly are it."""
    yield from ([value], [value, value], [[value]], [value, None], {str(value): value})
    if isinstance(value, str):
        yield from (f" {value}", f"{value} ", f"{value}\n", f"{value}\x00")
    if isinstance(value, str) and value.isdigit():
        yield from (int(value), float(value))
    elif isinstance(value, (int, float)):
        yield from (str(value), str(value).lower())


def spelled(value: Any) -> str:
    """Tell 1, 1.0, "1" and true apart."""
    return json.dumps(value)


def named(row: dict[str, Any]) -> str:
    return f"{row['of']}-{row['claim']}"


@pytest.mark.parametrize("row", ROWS, ids=named)
def test_what_the_specification_allows_is_accepted(row: dict[str, Any]) -> None:
    source = SOURCES[row["of"]]
    assert source.reason(source.genuine) == "allowed"
    assert {spelled(value): source.reason(source.genuine | {row["claim"]: value}) for value in row["good"]} == {
        spelled(value): "allowed" for value in row["good"]
    }


@pytest.mark.parametrize("row", ROWS, ids=named)
def test_nothing_else_is_accepted(row: dict[str, Any]) -> None:
    source, claim = SOURCES[row["of"]], row["claim"]
    good = set(map(spelled, row["good"]))
    free = FREE[row.get("any", "nothing")]
    values = [*ODD, *(other for value in row["good"] for other in retyped(value))]
    checked = [value for value in values if not free(value)]
    accepted = {spelled(value) for value in checked if source.reason(source.genuine | {claim: value}) == "allowed"}
    assert accepted - good == set()
    absent = {name: value for name, value in source.genuine.items() if name != claim}
    assert (source.reason(absent) == "allowed") == row.get("absent", False)


@pytest.mark.parametrize("row", [row for row in ROWS if "bad" in row], ids=named)
def test_what_only_looks_right_has_its_reason(row: dict[str, Any]) -> None:
    source = SOURCES[row["of"]]
    bad = [(value, reason) for reason, values in row["bad"].items() for value in values]
    assert bad != []
    assert [source.reason(source.genuine | {row["claim"]: value}) for value, _ in bad] == [reason for _, reason in bad]


def test_every_source_and_claim_stands_there_once() -> None:
    assert {row["of"] for row in ROWS} == SOURCES.keys()
    assert len({named(row) for row in ROWS}) == len(ROWS)
    for row in ROWS:
        vectors.known(row, {"of", "claim", "says", "absent", "any", "good", "bad"}, named(row))


BY_PRESENCE = {"id_token_claims"}
"""Fields of a provider that name claims of which no value is ever accepted."""


def claims_of(provider: Provider) -> set[str]:
    """Return every claim that decides something for this provider: those of every token, and those that its row names."""
    names = {"iss", "aud", "exp", "sub", *provider.foreign_marks}
    for name in {field.name for field in fields(provider)} - BY_PRESENCE:
        if name.endswith(("_claim", "_claims")):
            value = getattr(provider, name)
            names |= {value} - {""} if isinstance(value, str) else set(value)
    return names


@pytest.mark.parametrize("name", PROVIDERS)
def test_every_claim_that_a_provider_is_read_by_stands_there(name: str) -> None:
    ways = {(source.rules.provider, source.rules.verification) for source in SOURCES.values()}
    assert {(row, way) for row in PROVIDERS[name] for way in row.verifications} - ways == set(), "SOURCES has no document"
    tried = {row["claim"] for row in ROWS if SOURCES[row["of"]].rules.provider in PROVIDERS[name]}
    assert {claim for row in PROVIDERS[name] for claim in claims_of(row)} - tried == set()


@pytest.mark.parametrize(("aud", "azp", "client"), [(["x", "b", "a"], None, "b"), (["x", "b", "a"], "a", "b"), ("a", None, "a")])
def test_the_client_among_several_audiences_is_the_first_that_is_ours(aud: Any, azp: str | None, client: str) -> None:
    more = {"client_ids": frozenset({"a", "b"}), "users": {remote.ONELOGIN_USER: "ana@acme.com"}, "user_claims": ("sub",)}
    ours = rules(ONELOGIN, remote.ONELOGIN, "a", **more)
    found = claims.verify(remote.onelogin_claims(aud=aud, azp=azp), ours, NOW)
    assert not isinstance(found, Reason)
    assert found.client_id == client
