"""Every provider at once: whose token is shown to whom, and what happens when many ask, or answers come late or are nonsense."""

from __future__ import annotations

import asyncio
import base64
import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import event, example, given, settings
from hypothesis import strategies as st

from extauthz.core.credentials import Kind
from extauthz.core.model import AuthType, Reason
from extauthz.core.providers import Verification
from extauthz.core.tokens import ENTROPY_BYTES, mint
from extauthz.errors import Unavailable
from tests.support.live import live
from tests.support.remote import (
    GOOGLE,
    GOOGLE_CLIENT,
    GOOGLE_USER,
    OKTA_CLIENT,
    OKTA_ORG,
    OKTA_USER,
    ONELOGIN,
    ONELOGIN_CLIENT,
    ONELOGIN_USER,
    Remote,
    check,
    google_userinfo,
    okta_introspection,
    okta_org_claims,
    okta_userinfo,
    onelogin_claims,
    onelogin_userinfo,
    tokeninfo,
)
from tests.support.waiting import settled
from tests.support.world import CLIENT, ISSUER, NOW, World, base64url, claims, rsa_key, sign

ROUTES = [{"match": "POST /search", "scope": "SEARCH"}, {"match": "POST /chat", "scope": "CHAT"}]
TENANT = "88888888-8888-8888-8888-888888888888"
AZURE = f"https://login.microsoftonline.com/{TENANT}/v2.0"
AZURE_CLIENT = "33333333-3333-3333-3333-333333333333"
OTHER_TENANT = "https://other.onelogin.com/oidc/2"
OTHER_CLIENT = "11111111-0000-0136-df57-0a163e67b84c140139"
OPAQUE = "ya29.a0AfB_byDzx-Sb7Qj2LkP0genuine"

PROVIDERS: list[dict[str, Any]] = [
    {"name": "apis", "provider": "okta", "issuer": ISSUER, "client_ids": [CLIENT], "audience": "api://default"},
    {"name": "org", "provider": "okta", "issuer": OKTA_ORG, "client_ids": [OKTA_CLIENT]},
    {"provider": "azure", "issuer": f"{TENANT}/v2.0", "client_ids": [AZURE_CLIENT]},
    {"provider": "gsuite", "client_ids": [GOOGLE_CLIENT], "domains": ["acme.com"], "hosted_domains": ["acme.com"]},
    {"provider": "onelogin", "issuer": ONELOGIN, "client_ids": [ONELOGIN_CLIENT]},
    {"name": "other", "provider": "onelogin", "issuer": OTHER_TENANT, "client_ids": [OTHER_CLIENT]},
]


def azure_claims(**changes: Any) -> dict[str, Any]:
    plain = {"iss": AZURE, "aud": AZURE_CLIENT, "azp": AZURE_CLIENT, "tid": TENANT, "ver": "2.0", "scp": "x", "sub": "s"}
    return plain | {"preferred_username": "ana@acme.com", "iat": NOW, "exp": NOW + 3600} | changes


class Everybody:
    """All providers in one world. They share one signing key, and who is asked takes every token for a good one."""

    def __init__(self, folder: Path, **changes: Any) -> None:
        self.remotes = {
            "tokeninfo": Remote(otherwise=tokeninfo()),
            "google userinfo": Remote(otherwise=google_userinfo()),
            "org": Remote(otherwise=okta_userinfo()),
            "onelogin": Remote(otherwise=onelogin_userinfo()),
            "other": Remote(otherwise=onelogin_userinfo(email="eve@acme.com")),
        }
        places = [
            (GOOGLE, Verification.TOKENINFO),
            *((issuer, Verification.USERINFO) for issuer in (GOOGLE, OKTA_ORG, ONELOGIN, OTHER_TENANT)),
        ]
        introspectors = dict(zip(places, self.remotes.values(), strict=True))
        self.world = World(folder, ROUTES, {"oauth": {"providers": PROVIDERS}} | changes, introspectors=dict(introspectors))

    @property
    def asked(self) -> set[str]:
        """Who was asked anything."""
        return {name for name, remote in self.remotes.items() if remote.asked}

    async def reason(self, token: str, line: str = "POST /search") -> str:
        return (await check(self.world, token, line)).reason


@pytest.fixture
def everybody(tmp_path: Path) -> Everybody:
    return Everybody(tmp_path)


GENUINE: dict[str, tuple[str, str, set[str]]] = {
    "apis": (sign(claims()), "oauth:apis:ana@acme.com", set()),
    "org": (sign(okta_org_claims(), key=rsa_key("unpublished")), "oauth:org:ana@acme.com", {"org"}),
    "azure": (sign(azure_claims(), header={"typ": "JWT"}), "oauth:azure:s", set()),
    "gsuite": (OPAQUE, f"oauth:gsuite:{GOOGLE_USER}", {"tokeninfo", "google userinfo"}),
    "onelogin": (sign(onelogin_claims(), header={"typ": "JWT"}), f"oauth:onelogin:{ONELOGIN_USER}", {"onelogin"}),
    "other": (sign(onelogin_claims(iss=OTHER_TENANT, aud=OTHER_CLIENT)), f"oauth:other:{ONELOGIN_USER}", {"other"}),
}
JWTS = {name: row[0] for name, row in GENUINE.items() if name != "gsuite"}


@pytest.mark.parametrize("name", GENUINE)
async def test_a_genuine_token_is_shown_to_its_own_provider_alone(everybody: Everybody, name: str) -> None:
    token, actor, asked = GENUINE[name]
    answer = await check(everybody.world, token)
    assert answer.reason == "allowed"
    assert answer.headers["x-extauthz-actor"] == actor
    assert everybody.asked == asked


# --- tokens of one provider in the hands of another


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (onelogin_claims(iss=OTHER_TENANT), "token_client"),
        (onelogin_claims(aud=OTHER_CLIENT), "token_client"),
        (onelogin_claims(iss="https://third.onelogin.com/oidc/2"), "token_issuer"),
        (onelogin_claims(iss=OTHER_TENANT + "/"), "token_issuer"),
        (onelogin_claims(iss=OKTA_ORG), "token_client"),
        (onelogin_claims(iss=ISSUER), "token_client"),
        (onelogin_claims(iss=AZURE), "token_issuer"),
        (onelogin_claims(iss=GOOGLE, aud=GOOGLE_CLIENT), "token_issuer"),
        (claims(iss=ONELOGIN), "token_client"),
        (claims(iss=AZURE), "token_issuer"),
        (claims(iss="https://acme.okta.com/oauth2"), "token_issuer"),
        (claims(iss="https://acme.okta.com/oauth2/default/"), "token_issuer"),
        (claims(iss="https://acme.okta.com/"), "token_issuer"),
        (claims(iss="https://acme.okta.com/oauth2/v1"), "token_issuer"),
        (claims(iss=[ISSUER, OKTA_ORG]), "token_issuer"),
        (claims(iss=None), "token_issuer"),
        (okta_org_claims(iss=ISSUER), "token_audience"),
        (okta_org_claims(cid=AZURE_CLIENT), "token_client"),
        (azure_claims(iss=OKTA_ORG), "token_client"),
        (azure_claims(iss=ONELOGIN), "token_client"),
        (azure_claims(azp=GOOGLE_CLIENT, aud=GOOGLE_CLIENT), "token_client"),
    ],
    ids=lambda value: str(value)[:100],
)
async def test_what_one_provider_accepts_is_nothing_to_another(everybody: Everybody, payload: dict[str, Any], reason: str) -> None:
    assert await everybody.reason(sign(payload)) == reason
    assert everybody.asked == set()


async def test_a_token_that_the_org_server_signed_is_never_verified_with_published_keys(everybody: Everybody) -> None:
    """And a token of the custom server is not vouched for by the org server, whatever that says."""
    everybody.remotes["org"].otherwise = Reason.TOKEN_INACTIVE
    assert await everybody.reason(sign(okta_org_claims())) == "token_inactive"
    assert await everybody.reason(sign(claims(), key=rsa_key("unpublished"))) == "token_signature"
    assert everybody.asked == {"org"}


@pytest.mark.parametrize("iss", ["https://accounts.google.com", "accounts.google.com"])
@pytest.mark.parametrize("more", [{}, {"nonce": "n", "at_hash": "h"}, {"scope": "openid email profile"}], ids=str)
async def test_an_id_token_of_google_is_refused_and_shown_to_nobody(everybody: Everybody, iss: str, more: dict[str, Any]) -> None:
    id_token = {
        "iss": iss,
        "azp": GOOGLE_CLIENT,
        "aud": GOOGLE_CLIENT,
        "sub": GOOGLE_USER,
        "hd": "acme.com",
        "email": "ana@acme.com",
    }
    payload = id_token | {"email_verified": True, "iat": NOW - 60, "exp": NOW + 3540} | more
    assert await everybody.reason(sign(payload, header={"typ": "JWT"})) == "token_issuer"
    assert everybody.asked == set()


@pytest.mark.parametrize("name", JWTS)
async def test_without_gsuite_nobody_is_asked_about_opaque_tokens(tmp_path: Path, name: str) -> None:
    everybody = Everybody(tmp_path, oauth={"providers": [entry for entry in PROVIDERS if entry["provider"] != "gsuite"]})
    assert await everybody.reason(OPAQUE) == "token_malformed"
    assert await everybody.reason("." + JWTS[name]) == "token_malformed"
    assert everybody.asked == set()


# --- mangled tokens


def damages(token: str) -> dict[str, str]:
    """Return what may become of a JWT on its way; its beginning is left as it was."""
    head, payload, signature = token.split(".")
    bare = base64.urlsafe_b64decode(head + "=" * (-len(head) % 4))
    wide = base64.b64encode(bare[:-1] + b',"x":"???>>>~~~"}').decode().rstrip("=")
    spaced = {name: base64url(space + bare) for name, space in {"space": b" ", "tab": b"\t", "newlines": b"\r\n\n"}.items()}
    return {
        "cut in the signature": token[:-20],
        "cut in the payload": token[: len(head) + 20],
        "the header alone": head,
        "the header and a dot": f"{head}.",
        "the payload alone": payload,
        "payload and signature": f"{payload}.{signature}",
        "without a signature": f"{head}.{payload}.",
        "two parts": f"{head}.{payload}",
        "four parts": f"{token}.{signature}",
        "twice": f"{token}.{token}",
        "five parts": f"{head}.{signature}.{payload}.{payload}.{signature}",
        "five parts, some of them empty": f"{head}....{payload}",
        "payload first": f"{payload}.{head}.{signature}",
        "padded": token + "==",
        "padded once too often": token + "=====",
        "the header alone, padded": f"{head}===",
        "standard base64": f"{wide}.{payload}.{signature}",
        "a tilde inside": f"{head[:7]}~{head[7:]}.{payload}.{signature}",
        "tildes before": f"~~{token}",
        "an empty object": f"e30.{payload}.{signature}",
        "disclosures": f"{token}~WyJzYWx0IiwgIm5hbWUiLCAidmFsdWUiXQ~",
        **{f"{name} before the brace": f"{text}.{payload}.{signature}" for name, text in spaced.items()},
    }


@pytest.mark.parametrize("damage", damages(JWTS["org"]))
@pytest.mark.parametrize("name", JWTS)
async def test_a_mangled_token_is_shown_to_no_other_provider(everybody: Everybody, name: str, damage: str) -> None:
    answer = await check(everybody.world, damages(JWTS[name])[damage])
    assert not everybody.asked - {name}
    if everybody.asked != {"org"}:  # whom the provider itself vouches for may come in
        assert answer.status in (401, 503)  # why: 503 where the damage left a kid that may be that of a new key


BEGINNINGS: dict[str, Callable[[str], str]] = {
    "a dot before": lambda token: f".{token}",
    "a hyphen before": lambda token: f"-{token}",
    "a slash before": lambda token: f"/{token}",
    "a word before": lambda token: f"token.{token}",
    "the first letter lost": lambda token: token[1:],
    "the first two letters lost": lambda token: token[2:],
    "signature first": lambda token: ".".join(reversed(token.split("."))),
    "a byte order mark": lambda token: (
        base64url(b"\xef\xbb\xbf" + b'{"alg":"RS256","kid":"rsa-1"}') + "." + token.partition(".")[2]
    ),
}


@pytest.mark.parametrize("beginning", BEGINNINGS)
async def test_a_token_with_a_damaged_beginning_is_shown_to_no_other_provider(tmp_path: Path, beginning: str) -> None:
    """All that makes it good is still in it: whoever gets it can mend it and use it."""
    shown_to = {}
    for name, token in JWTS.items():
        everybody = Everybody(tmp_path / name)
        await check(everybody.world, BEGINNINGS[beginning](token))
        shown_to[name] = everybody.asked - {name}
    assert shown_to == {name: set() for name in JWTS}


spaces = st.text(" \t\r\n", max_size=4).map(str.encode)
json_objects = st.dictionaries(st.text(max_size=5), st.none() | st.integers() | st.text(max_size=5), max_size=3)
rests = st.lists(st.text("ABCxyz019-_", max_size=8), max_size=5).map(lambda parts: "".join(f".{part}" for part in parts))


@settings(max_examples=200, deadline=None)
@given(spaces, json_objects, st.booleans(), st.integers(0, 3), rests)
@example(b"", {}, False, 0, "")
@example(b"", {"?": "ÿÿ>>>"}, True, 2, "....")
def test_what_begins_with_a_json_object_is_never_shown_to_google(
    everybody_once: Everybody, space: bytes, document: dict[str, Any], standard: bool, padding: int, rest: str
) -> None:
    data = space + json.dumps(document, ensure_ascii=False).encode("utf-8", "surrogatepass")
    first = (base64.b64encode(data) if standard else base64.urlsafe_b64encode(data)).decode().rstrip("=")
    token = first + rest + "=" * padding
    answer = asyncio.run(check(everybody_once.world, token))
    assert answer.status == 401
    assert everybody_once.asked == set()


@pytest.fixture(scope="module")
def everybody_once(tmp_path_factory: pytest.TempPathFactory) -> Everybody:
    """One world for all examples of a property."""
    return Everybody(tmp_path_factory.mktemp("everybody"))


# --- issued tokens that are sent as OAuth tokens


def issued(prefix: str) -> str:
    """Return an issued token of this prefix."""
    return mint(prefix, bytes(range(ENTROPY_BYTES))).text


@pytest.mark.parametrize("prefix", ["glean", "acme", "a", "x9", "abcdefghij012345"])
async def test_an_issued_token_is_never_shown_to_google(everybody: Everybody, prefix: str) -> None:
    assert await everybody.reason(issued(prefix)) == "token_malformed"
    assert everybody.asked == set()


@pytest.mark.parametrize("permission", ["GLOBAL", "USER", "ANONYMOUS"])
async def test_a_live_issued_token_is_no_oauth_token(everybody: Everybody, permission: str) -> None:
    token = everybody.world.token(permission)
    answer = await check(everybody.world, token)
    assert (answer.status, answer.reason) == (401, "token_malformed")
    assert token not in answer.message.SerializeToString().decode("latin-1")
    assert everybody.asked == set()


MANGLED: dict[str, Callable[[str], str]] = {
    "an equals sign behind": lambda token: f"{token}=",
    "the last letter lost": lambda token: token[:-1],
    "a letter behind": lambda token: f"{token}x",
    "a dot behind": lambda token: f"{token}.",
    "a hyphen before": lambda token: f"-{token}",
}


@pytest.mark.parametrize("damage", MANGLED)
async def test_a_mangled_issued_token_is_never_shown_to_google(everybody: Everybody, damage: str) -> None:
    """The whole secret is still in it, and the checksum can be worked out by anybody."""
    await check(everybody.world, MANGLED[damage](everybody.world.token("GLOBAL")))
    assert everybody.asked == set()


@pytest.mark.parametrize("token", [OPAQUE, "ya29.c.b0Aaekm1K", "ya29.a0ARW5m7-x_y", "ya29.eyJ"])
async def test_tokens_of_google_are_shown_to_google(everybody: Everybody, token: str) -> None:
    assert await everybody.reason(token) == "allowed"
    assert everybody.remotes["tokeninfo"].asked == [token]


# --- several at a time

SLOW = pytest.mark.parametrize(
    ("name", "remote"), [("gsuite", "tokeninfo"), ("gsuite", "google userinfo"), ("org", "org"), ("onelogin", "onelogin")]
)


@pytest.fixture
def patient(tmp_path: Path) -> Everybody:
    """All providers, and checks that wait for a long time."""
    return Everybody(tmp_path, server={"check_timeout": "30s"})


@SLOW
async def test_checks_of_one_token_ask_once(patient: Everybody, name: str, remote: str) -> None:
    token, asked = GENUINE[name][0], patient.remotes[remote]
    asked.go.clear()
    lines = ["POST /search", "POST /chat", "POST /search", "GET /search"]
    waiting = [asyncio.create_task(patient.reason(token, line)) for line in lines]
    await settled()
    assert [one.done() for one in waiting] == [False, False, False, True]
    assert patient.world.authorizer.in_flight == 3
    asked.go.set()
    assert await asyncio.gather(*waiting) == ["allowed", "allowed", "allowed", "method_not_allowed"]
    assert asked.asked == [token]
    assert patient.world.authorizer.in_flight == 0


@SLOW
async def test_a_check_that_is_cancelled_disturbs_no_other(patient: Everybody, name: str, remote: str) -> None:
    token, asked = GENUINE[name][0], patient.remotes[remote]
    asked.go.clear()
    waiting = [asyncio.create_task(patient.reason(token)) for _ in range(4)]
    await settled()
    waiting[0].cancel()
    await settled()
    assert waiting[0].cancelled()
    assert patient.world.authorizer.in_flight == 3
    asked.go.set()
    assert await asyncio.gather(*waiting[1:]) == ["allowed"] * 3
    assert asked.asked == [token]


@SLOW
async def test_an_answer_that_nobody_waits_for_any_more_is_kept(patient: Everybody, name: str, remote: str) -> None:
    token, asked = GENUINE[name][0], patient.remotes[remote]
    asked.go.clear()
    waiting = [asyncio.create_task(patient.reason(token)) for _ in range(2)]
    await settled()
    for one in waiting:
        one.cancel()
    await settled()
    asked.go.set()
    await settled()
    assert await patient.reason(token) == "allowed"
    assert asked.asked == [token]


@SLOW
async def test_an_answer_that_comes_too_late_serves_the_retry(tmp_path: Path, name: str, remote: str) -> None:
    it = Everybody(tmp_path, server={"check_timeout": "20ms"})
    token, asked = GENUINE[name][0], it.remotes[remote]
    asked.go.clear()
    for _ in range(2):
        answer = await check(it.world, token)
        assert (answer.status, answer.reason, answer.headers["retry-after"]) == (503, "check_timeout", "1")
    asked.go.set()
    await settled()
    assert (await check(it.world, token)).status == 200
    assert asked.asked == [token]


async def test_a_refusal_that_comes_too_late_is_kept_too(tmp_path: Path) -> None:
    it = Everybody(tmp_path, server={"check_timeout": "20ms"})
    asked = it.remotes["tokeninfo"]
    asked.otherwise = Reason.TOKEN_INACTIVE
    asked.go.clear()
    assert await it.reason(OPAQUE) == "check_timeout"
    asked.go.set()
    await settled()
    assert await it.reason(OPAQUE) == "token_inactive"
    assert asked.asked == [OPAQUE]


@SLOW
async def test_trouble_is_told_to_all_who_wait_and_then_forgotten(patient: Everybody, name: str, remote: str) -> None:
    token, asked = GENUINE[name][0], patient.remotes[remote]
    good, asked.otherwise = asked.otherwise, Unavailable(Reason.ISSUER_UNAVAILABLE)
    asked.go.clear()
    waiting = [asyncio.create_task(patient.reason(token)) for _ in range(4)]
    await settled()
    asked.go.set()
    assert await asyncio.gather(*waiting) == ["issuer_unavailable"] * 4
    asked.otherwise = good
    assert await patient.reason(token) == "allowed"
    assert asked.asked == [token] * 2


@SLOW
async def test_a_slow_issuer_delays_no_other(patient: Everybody, name: str, remote: str) -> None:
    patient.remotes[remote].go.clear()
    waiting = asyncio.create_task(patient.reason(GENUINE[name][0]))
    await settled()
    for other, (token, _, _) in GENUINE.items():
        if other != name:
            assert await patient.reason(token) == "allowed"
    assert not waiting.done()
    patient.remotes[remote].go.set()
    assert await waiting == "allowed"


async def test_two_tokens_are_two_questions(patient: Everybody) -> None:
    tokens = [OPAQUE, OPAQUE + "A", OPAQUE + "="]
    assert await asyncio.gather(*map(patient.reason, tokens)) == ["allowed"] * 3
    assert patient.remotes["tokeninfo"].asked == tokens


async def test_strangers_keep_out_nobody_whose_token_was_good_a_moment_ago(tmp_path: Path) -> None:
    """A verdict that an issuer was asked for ends every minute; what strangers ask about then must not use up all the questions."""
    async with live(tmp_path, "gsuite") as it:
        known = it.token("gsuite")
        assert await it.check(known) == "allowed"
        it.clock.advance(60)
        for number in range(30):
            await it.check(f"ya29.stranger-{number}")
        assert await it.check(known) == "allowed"


# --- whatever an issuer answers

ABSENT = "<absent>"
NAMES = [
    "active",
    "aud",
    "azp",
    "cid",
    "client_id",
    "cnf",
    "c_hash",
    "at_hash",
    "nonce",
    "sid",
    "email",
    "email_verified",
    "exp",
    "hd",
]
NAMES += ["iat", "iss", "jti", "nbf", "scope", "scp", "sub", "token_type", "uid", "username", "user_name", "", "expires_in", "idp"]
NEAR: list[Any] = [
    ABSENT,
    None,
    True,
    False,
    0,
    1,
    1.0,
    "",
    "true",
    "false",
    "True",
    "1",
    NOW,
    NOW - 1,
    NOW + 60,
    NOW + 61,
    float(NOW),
]
NEAR += [str(NOW), str(NOW + 60), f"{NOW}.5", 2**53, -(2**70), 1e300, math.nan, math.inf, -math.inf, [NOW + 60], "9" * 15, "9" * 16]
NEAR += [GOOGLE_CLIENT, [GOOGLE_CLIENT], OKTA_CLIENT, [OKTA_CLIENT], ONELOGIN_CLIENT, [ONELOGIN_CLIENT], {GOOGLE_CLIENT: 1}]
NEAR += ["ana@acme.com", "ANA@ACME.COM", ["ana@acme.com"], "eve@evil.com", "ana@acme.com,eve@evil.com", "x@a.gserviceaccount.com"]
NEAR += [
    "openid email profile",
    "openid",
    ["openid", "email", "profile"],
    ["openid", 1],
    "Bearer",
    "bearer",
    "DPoP",
    "AT.x",
    "ID.x",
]
NEAR += [GOOGLE, OKTA_ORG, ONELOGIN, OKTA_USER, GOOGLE_USER, ONELOGIN_USER, "acme.com", ["acme.com"], {}, [], "\ud800", "x" * 600]
anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
mutations = st.dictionaries(st.sampled_from(NAMES), st.sampled_from(NEAR) | anything, max_size=3)


def mutated(genuine: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in (genuine | changes).items() if not (isinstance(value, str) and value == ABSENT)}


def is_time(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def is_later(value: object) -> bool:
    return is_time(value) and value > NOW  # type: ignore[operator]


def has_begun(members: dict[str, Any]) -> bool:
    return all(is_time(members[name]) and members[name] <= NOW + 60 for name in ("nbf", "iat") if name in members)


def is_address(value: object) -> bool:
    if not isinstance(value, str) or not value.isascii() or value.count("@") != 1:
        return False
    local, domain = value.split("@")
    return bool(re.fullmatch(r"[!#-'*+./-9=?A-Z^_a-{}~-]+", local) and re.fullmatch(r"[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)+", domain))


def is_at_acme(value: object) -> bool:
    return is_address(value) and str(value).lower().endswith("@acme.com")


def words(value: object) -> set[str]:
    if isinstance(value, list) and all(isinstance(word, str) for word in value):
        return {one for word in value for one in word.split(" ")} - {""}
    return set(value.split(" ")) - {""} if isinstance(value, str) else set()


def audiences(value: object) -> list[str]:
    found = value if isinstance(value, list) else [value]
    return found if all(isinstance(one, str) for one in found) else []


def is_user_id(value: object, client: str) -> bool:
    return isinstance(value, str) and value not in ("", client)


def verified(members: dict[str, Any]) -> bool:
    value = members.get("email_verified")
    return value is True or (isinstance(value, str) and value == "true")


def numbers(members: dict[str, Any]) -> dict[str, Any]:
    """Read the texts of digits that tokeninfo writes for times."""
    return {name: int(value) if isinstance(value, str) and value.isdecimal() else value for name, value in members.items()}


def no_marks(members: dict[str, Any], *more: str) -> bool:
    return not {"cnf", "nonce", "at_hash", "c_hash", *more} & set(members)


def google_lets_in(told: dict[str, Any], user: dict[str, Any]) -> bool:
    both = told | user  # of the address either answer may speak
    return (
        told.get("aud") == GOOGLE_CLIENT
        and told.get("azp", GOOGLE_CLIENT) == GOOGLE_CLIENT
        and is_later(numbers(told).get("exp"))
        and {"openid", "email", "profile"} <= {word.rpartition("/userinfo.")[2] for word in words(told.get("scope"))}
        and is_user_id(told.get("sub"), GOOGLE_CLIENT)
        and told["sub"] == user.get("sub")
        and both.get("hd") == "acme.com"
        and (is_at_acme(told.get("email")) or is_at_acme(user.get("email")))
        and (verified(told) or verified(user))
        and has_begun(numbers(told))
        and no_marks(told)
    )


def org_lets_in(payload: dict[str, Any], told: dict[str, Any]) -> bool:
    return (
        payload.get("iss") == OKTA_ORG
        and payload.get("cid") == OKTA_CLIENT
        and is_later(payload.get("exp"))
        and has_begun(payload)
        and no_marks(payload)
        and not str(payload.get("jti")).startswith("ID.")
        and bool(words(payload.get("scp")))
        and "uid" in payload
        and is_user_id(payload.get("sub"), OKTA_CLIENT)
        and isinstance(told.get("sub"), str)
        and told["sub"] in (payload["uid"], payload["sub"])
        and (is_address(told.get("email")) or ("email" not in told and is_address(payload.get("email"))))
        and ("email_verified" not in told or verified(told))
    )


def introspection_lets_in(payload: dict[str, Any], told: dict[str, Any]) -> bool:
    both = payload | told
    return (
        payload.get("iss") == OKTA_ORG == both.get("iss")
        and payload.get("cid") == OKTA_CLIENT == told.get("client_id")
        and is_later(payload.get("exp"))
        and is_later(told.get("exp"))
        and told.get("active") is True
        and str(told.get("token_type")).lower() == "bearer"
        and has_begun(both)
        and no_marks(payload)
        and no_marks(told)
        and bool(words(told.get("scope", payload.get("scp"))))
        and "uid" in both
        and is_user_id(both.get("sub"), OKTA_CLIENT)
        and is_address(both.get("username"))
    )


def onelogin_lets_in(payload: dict[str, Any], told: dict[str, Any]) -> bool:
    return (
        payload.get("iss") == ONELOGIN
        and ONELOGIN_CLIENT in audiences(payload.get("aud"))
        and payload.get("azp", ONELOGIN_CLIENT) == ONELOGIN_CLIENT
        and is_later(payload.get("exp"))
        and has_begun(payload)
        and no_marks(payload, "sid", "auth_time")
        and bool(words(payload.get("scope")))
        and is_user_id(payload.get("sub"), ONELOGIN_CLIENT)
        and payload["sub"] == told.get("sub")
        and (is_address(told.get("email")) or ("email" not in told and is_address(payload.get("email"))))
        and ("email_verified" not in told or verified(told))
    )


CLIENTS = {"gsuite": GOOGLE_CLIENT, "onelogin": ONELOGIN_CLIENT, "org": OKTA_CLIENT, "okta": OKTA_CLIENT}
"""By the name of the provider."""


def decided(world: World, token: str) -> str:
    """Decide about a token as if for the first time; whoever comes in does so as a user of his own address."""
    world.verdicts[Kind.OAUTH].clear()
    answer = asyncio.run(check(world, token))
    if answer.reason == "allowed":
        assert answer.decision.identity is not None
        assert answer.decision.identity.auth_type is AuthType.OAUTH
        assert answer.decision.identity.client_id == CLIENTS[answer.decision.identity.actor.split(":")[1]]
        assert is_later(answer.decision.identity.expires_at)
        assert is_address(answer.headers["x-extauthz-user"])
    event(answer.reason)
    if answer.reason != "identity_too_long":
        assert answer.status in (200, 401, 503)  # why: what is wrong with it is drawn; the caller says whether it may be allowed
    return answer.reason


few = settings(max_examples=300, deadline=None)


@few
@given(mutations, mutations)
@example({}, {})
@example({"exp": 10**16 - 1}, {})
@example({"exp": NOW + 0.5, "email_verified": 1}, {"email_verified": "1"})
@example({"exp": [[[]]]}, {"sub": None})
def test_whatever_google_answers(everybody_once: Everybody, told: dict[str, Any], user: dict[str, Any]) -> None:
    answers = mutated(tokeninfo(), told), mutated(google_userinfo(), user)
    everybody_once.remotes["tokeninfo"].answers[OPAQUE], everybody_once.remotes["google userinfo"].answers[OPAQUE] = answers
    reason = decided(everybody_once.world, OPAQUE)
    if reason == "allowed":
        assert google_lets_in(*answers)
    else:
        assert told or user  # why: one changed answer is enough, and without any it is allowed
    for remote in everybody_once.remotes.values():
        remote.asked.clear()


def unsigned(payload: dict[str, Any]) -> str:
    """Write a token that only its issuer can verify."""
    parts = (json.dumps({"alg": "RS256", "kid": "unpublished"}), json.dumps(payload))
    return ".".join([*(base64url(part.encode()) for part in parts), base64url(bytes(range(256)))])


@few
@given(mutations, mutations)
@example({}, {})
@example({"uid": ABSENT, "sub": OKTA_CLIENT}, {})
def test_whatever_userinfo_answers(everybody_once: Everybody, payload: dict[str, Any], told: dict[str, Any]) -> None:
    claimed, answer = mutated(okta_org_claims(), payload), mutated(okta_userinfo(), told)
    everybody_once.remotes["org"].otherwise = answer
    reason = decided(everybody_once.world, unsigned(claimed))
    if reason == "allowed":
        assert org_lets_in(claimed, answer)
    else:
        assert payload or told  # why: one changed answer is enough, and without any it is allowed
    everybody_once.remotes["org"].asked.clear()


@pytest.fixture(scope="module")
def introspected(tmp_path_factory: pytest.TempPathFactory) -> tuple[World, Remote]:
    """A world whose one provider is asked by introspection."""
    okta = Remote()
    oauth = {"issuer": OKTA_ORG, "client_ids": [OKTA_CLIENT], "audience": None, "client_secret": {"env": "OKTA_CLIENT_SECRET"}}
    place = OKTA_ORG, Verification.INTROSPECTION
    return World(tmp_path_factory.mktemp("introspected"), ROUTES, {"oauth": oauth}, introspectors={place: okta}), okta


@few
@given(mutations, mutations)
@example({}, {})
@example({}, {"active": 1})
@example({"scp": ["x"]}, {"scope": ABSENT})
def test_whatever_introspection_answers(introspected: tuple[World, Remote], payload: dict[str, Any], told: dict[str, Any]) -> None:
    world, okta = introspected
    claimed, okta.otherwise = mutated(okta_org_claims(), payload), mutated(okta_introspection(), told)
    reason = decided(world, unsigned(claimed))
    if reason == "allowed":
        assert introspection_lets_in(claimed, okta.otherwise)
    else:
        assert payload or told  # why: one changed answer is enough, and without any it is allowed


@few
@given(mutations, mutations)
@example({}, {})
@example({"aud": [ONELOGIN_CLIENT]}, {})
@example({"aud": [ONELOGIN_CLIENT, [ONELOGIN_CLIENT]]}, {})
@example({"aud": {ONELOGIN_CLIENT: 1}}, {})
def test_whatever_onelogin_signs_and_answers(everybody_once: Everybody, payload: dict[str, Any], told: dict[str, Any]) -> None:
    claimed, answer = mutated(onelogin_claims(), payload), mutated(onelogin_userinfo(), told)
    everybody_once.remotes["onelogin"].otherwise = answer
    reason = decided(everybody_once.world, sign(claimed))
    if reason == "allowed":
        assert onelogin_lets_in(claimed, answer)
    else:
        assert payload or told  # why: one changed answer is enough, and without any it is allowed
    for remote in everybody_once.remotes.values():
        remote.asked.clear()
