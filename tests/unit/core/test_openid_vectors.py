"""Tokens of providers by OpenID Connect: genuine ones, and the mistakes of the field, each with its reason (`openid.yaml`)."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from extauthz.config.presets import PRESETS
from tests.support import vectors
from tests.support.world import NOW, Answer, World, ec_key, oauth, rsa_key, sign

ROUTES = [{"match": "GET /a", "scope": "SEARCH"}]
PROVIDERS: dict[str, dict[str, Any]] = {each["of"]: each for each in vectors.load("openid")["providers"]}
CASES = [(name, kind, case) for name, each in PROVIDERS.items() for kind in ("accepted", "refused") for case in each[kind]]
IDS = [f"{name}-{case['about'].replace(' ', '-')}" for name, _, case in CASES]
NULL = "null!"
"""Stands for a claim that is null, where null removes one."""


@pytest.fixture(scope="module")
def worlds(tmp_path_factory: pytest.TempPathFactory) -> Callable[[dict[str, Any]], World]:
    """Return the world of an entry, made once."""
    made: dict[str, World] = {}

    def of(entry: dict[str, Any]) -> World:
        key = json.dumps(entry, sort_keys=True)
        if key not in made:
            folder: Path = tmp_path_factory.mktemp("openid")
            made[key] = World(folder, ROUTES, {"oauth": {"providers": [entry]}})
        return made[key]

    return of


def changed(genuine: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """Return a document with changes: null removes, NULL stays as null."""
    merged = {name: value for name, value in (genuine | changes).items() if value is not None}
    return {name: None if value == NULL else value for name, value in merged.items()}


@cache
def strangers_key() -> Any:
    return rsa_key("other")


def token_of(provider: dict[str, Any], case: dict[str, Any]) -> str:
    """Sign what a case makes of the provider's genuine token."""
    if "token" in case:
        return str(case["token"])
    claims = changed(provider["claims"], case.get("claims", {}))
    if isinstance(claims.get("sub"), int) and "sub" not in case.get("claims", {}):
        claims["sub"] = str(claims["sub"])
    header = provider["header"] | case.get("header", {})
    match case.get("sign", "RS256"):
        case "ES256":
            return sign(claims, algorithm="ES256", key=ec_key(), header=header)
        case "other-rsa":
            return sign(claims, key=strangers_key(), header=header)
        case _:
            return sign(claims, header=header)


def answer(worlds: Callable[[dict[str, Any]], World], name: str, case: dict[str, Any]) -> Answer:
    provider = PROVIDERS[name]
    world = worlds(changed(provider["entry"], case.get("entry", {})))
    return world.check("GET /a", oauth(token_of(provider, case)))


@pytest.mark.parametrize("name", PROVIDERS)
def test_a_genuine_token_is_accepted_with_its_user_and_client(name: str, worlds: Callable[[dict[str, Any]], World]) -> None:
    provider = PROVIDERS[name]
    found = answer(worlds, name, {})
    assert found.reason == "allowed"
    assert (found.headers["x-extauthz-user"], found.decision.identity.client_id) == (provider["user"], provider["client"])  # type: ignore[union-attr]
    assert found.headers["x-extauthz-actor"] == f"oauth:{name}:{provider['claims']['sub']}"
    assert found.headers["x-extauthz-scopes"] == "CHAT,DOCUMENTS,FEED,SEARCH"


@pytest.mark.parametrize(("name", "kind", "case"), CASES, ids=IDS)
def test_what_a_token_says_decides(name: str, kind: str, case: dict[str, Any], worlds: Callable[[dict[str, Any]], World]) -> None:
    provider = PROVIDERS[name]
    found = answer(worlds, name, case)
    assert found.reason == case.get("reason", "allowed")
    if kind == "accepted":
        expected = (case.get("user", provider["user"]), case.get("client", provider["client"]))
        assert (found.headers["x-extauthz-user"], found.decision.identity.client_id) == expected  # type: ignore[union-attr]
    else:
        assert found.status == 401


def test_every_preset_has_tokens_and_each_case_says_what_it_is() -> None:
    assert PROVIDERS.keys() == PRESETS.keys()
    assert len(set(IDS)) == len(IDS)
    for name, kind, case in CASES:
        keys = {"about", "claims", "header", "entry", "sign", "token"} | ({"reason"} if kind == "refused" else {"user", "client"})
        vectors.known(case, keys, name)
        assert ("reason" in case) == (kind == "refused")


@pytest.mark.parametrize("name", PROVIDERS)
def test_no_name_of_an_algorithm_stands_for_a_signature(name: str, worlds: Callable[[dict[str, Any]], World]) -> None:
    provider = PROVIDERS[name]
    payload = {**provider["claims"], "sub": str(provider["claims"]["sub"])}
    for algorithm in ("none", "HS256", "RS1", "", "rs256"):
        header = {"alg": algorithm, "kid": "rsa-1"}
        parts = [json.dumps(part).encode() for part in (header, payload)]
        text = ".".join(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in (*parts, b""))
        assert worlds(provider["entry"]).check("GET /a", oauth(text)).reason == "token_algorithm"


@pytest.mark.parametrize("claim", ["iss", "aud", "exp", "azp", "client_id", "sub", "email", "typ", "token_use", "scope"])
@pytest.mark.parametrize("name", PROVIDERS)
def test_a_claim_that_holds_something_else_opens_nothing(name: str, claim: str, worlds: Callable[[dict[str, Any]], World]) -> None:
    """Whatever type a claim has, a token is refused, or is that of the same user and client."""
    provider = PROVIDERS[name]
    for odd in (None, True, 0, 1.5, "", "x", [], {}, [None], [[]], {"x": 1}, 10**400):
        payload = {**provider["claims"], "sub": str(provider["claims"]["sub"]), claim: odd}
        found = worlds(provider["entry"]).check("GET /a", oauth(sign(payload, header=provider["header"])))
        told = (found.headers["x-extauthz-user"], found.decision.identity.client_id) if found.allowed else None  # type: ignore[union-attr]
        assert (told, found.status) == (((provider["user"], provider["client"]), 200) if found.allowed else (None, 401))


def test_times_of_the_vectors_are_those_of_the_world() -> None:
    assert all(each["claims"]["exp"] > NOW for each in PROVIDERS.values())
