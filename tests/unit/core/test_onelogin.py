"""Access tokens of OneLogin: its keys tell that they are good, userinfo or a map of users tells whose they are."""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Awaitable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from extauthz.core import jwt
from extauthz.core.credentials import Kind
from extauthz.core.model import Reason
from extauthz.core.providers import Verification
from extauthz.errors import Unavailable
from tests.support.remote import (
    ONELOGIN,
    ONELOGIN_CLIENT,
    ONELOGIN_USER,
    Remote,
    Told,
    check,
    onelogin_claims,
    onelogin_userinfo,
)
from tests.support.world import NOW, StillKeys, World, base64url, jwks, key_set, oauth, public_jwk, rsa_key, sign

ROUTES = [{"match": "POST /search", "scope": "SEARCH"}, {"match": "POST /chat", "scope": "CHAT"}]
OTHER = "99999999-0000-0136-df57-0a163e67b84c140139"
USERS = {ONELOGIN_USER: "Boss@acme.com", "36343941": "bob@acme.com"}


def named(value: object) -> str:
    return str(value)[:60]


def token(header: dict[str, Any] | None = None, **changes: Any) -> str:
    """Return a token as OneLogin writes it."""
    return sign(onelogin_claims(**changes), header={"typ": "JWT"} | (header or {}))


class OneLogin:
    """A world whose OAuth provider is OneLogin; about every token its userinfo tells the `user`. With `users` it is never asked."""

    def __init__(self, folder: Path, user: Told | None = None, *, userinfo: bool = True, **changes: Any) -> None:
        self.userinfo = Remote(otherwise=onelogin_userinfo() if user is None else user)
        self.keys = StillKeys(key_set(jwks(), ("RS256",)))
        section = {"provider": "onelogin", "issuer": ONELOGIN, "client_ids": [ONELOGIN_CLIENT], "audience": None}
        introspectors = {(ONELOGIN, Verification.USERINFO): self.userinfo} if userinfo else {}
        self.world = World(folder, ROUTES, {"oauth": section | changes}, keys=self.keys, introspectors=dict(introspectors))

    async def reason(self, text: str | None = None, line: str = "POST /search") -> str:
        return (await check(self.world, text or token(), line)).reason


def with_map(folder: Path, **changes: Any) -> OneLogin:
    """Return a world that maps user ids to addresses and has nobody to ask."""
    return OneLogin(folder, userinfo=False, users=USERS, **changes)


# --- who comes in


async def test_a_genuine_token_is_accepted_with_the_address_of_userinfo(tmp_path: Path) -> None:
    it = OneLogin(tmp_path)
    answer = await check(it.world, token())
    assert answer.reason == "allowed"
    assert {name.removeprefix("x-extauthz-"): value for name, value in answer.headers.items()} == {
        "user": "ana@acme.com",
        "actor": f"oauth:onelogin:{ONELOGIN_USER}",
        "auth-type": "OAUTH",
        "client-id": ONELOGIN_CLIENT,
        "scopes": "CHAT,DOCUMENTS,FEED,SEARCH",
        "decision-id": answer.headers["x-extauthz-decision-id"],
    }
    assert answer.decision.identity is not None
    assert answer.decision.identity.expires_at == NOW + 3540
    assert it.userinfo.asked == [token()]


async def test_a_genuine_token_is_accepted_with_the_address_of_the_map(tmp_path: Path) -> None:
    it = with_map(tmp_path)
    answer = it.world.check("POST /search", oauth(token()))  # which answers at once
    assert answer.headers["x-extauthz-user"] == "boss@acme.com"
    assert answer.headers["x-extauthz-actor"] == f"oauth:onelogin:{ONELOGIN_USER}"
    assert await it.reason(token(sub="36343942")) == "token_user_not_allowed"
    assert await it.reason(token(sub="ana@acme.com")) == "token_user_not_allowed"
    assert await it.reason(token(sub=36343940)) == "token_user_invalid"


CLIENTS: list[Any] = [
    None,
    OTHER,
    "",
    ONELOGIN_CLIENT + " ",
    ONELOGIN_CLIENT[:-1],
    ONELOGIN_CLIENT.upper(),
    f"{ONELOGIN_CLIENT},{OTHER}",
]
CLIENTS += [[], [OTHER], [[ONELOGIN_CLIENT]], [ONELOGIN_CLIENT, 7], [ONELOGIN_CLIENT, None], {ONELOGIN_CLIENT: 1}, 7, True]
MALFORMED_TIMES: list[Any] = [
    None,
    "",
    "soon",
    str(NOW + 60),
    f"{NOW + 60}.0",
    True,
    False,
    [NOW + 60],
    {"exp": NOW + 60},
    2**53,
    10**400,
    1e300,
    -1e300,
]
MISTAKES: list[tuple[dict[str, Any], str]] = [
    *(({"iss": iss}, "token_issuer") for iss in (None, "", ONELOGIN + "/", ONELOGIN[:-2], "https://evil.onelogin.com/oidc/2")),
    *(({"iss": iss}, "token_issuer") for iss in ("https://acme.onelogin.com", "https://ACME.onelogin.com/oidc/2", [ONELOGIN], 7)),
    *(({"iss": iss}, "token_issuer") for iss in ("https://openid-connect.onelogin.com/oidc", "http://acme.onelogin.com/oidc/2")),
    *(({"aud": client}, "token_client") for client in CLIENTS),
    *(({"azp": client}, "token_client") for client in (OTHER, "", [ONELOGIN_CLIENT], 7)),
    *(({"exp": exp}, "token_claims_malformed") for exp in MALFORMED_TIMES),
    *(({"exp": exp}, "token_expired") for exp in (NOW, NOW - 1, NOW - 0.5, 0, -1)),
    *(({mark: "x"}, "token_kind_wrong") for mark in ("nonce", "at_hash", "c_hash", "sid", "auth_time")),
    *(({mark: ""}, "token_kind_wrong") for mark in ("nonce", "sid")),
    ({"nbf": NOW + 61}, "token_not_yet_valid"),
    ({"iat": NOW + 61}, "token_not_yet_valid"),
    *(({"nbf": nbf}, "token_claims_malformed") for nbf in ("", str(NOW), True, [NOW])),
    *(({"iat": iat}, "token_claims_malformed") for iat in ("", str(NOW), False, {})),
    *(({"cnf": cnf}, "token_header_forbidden") for cnf in ({"jkt": "x"}, {"x5t#S256": "x"}, {}, "")),
    *(({"scope": scope}, "token_kind_wrong") for scope in (None, "", " ", [], [""], {}, 7, ["openid", 7])),
]


# RFC 7519 4.1.3: in the general case the audience is a list, and a single one may be written without it.
@pytest.mark.parametrize(
    "change",
    [
        {"aud": [ONELOGIN_CLIENT]},
        {"aud": [ONELOGIN_CLIENT, "https://api.acme.com"]},
        {"aud": ["https://api.acme.com", ONELOGIN_CLIENT], "azp": ONELOGIN_CLIENT},
    ],
    ids=named,
)
async def test_the_audience_may_be_a_list(tmp_path: Path, change: dict[str, Any]) -> None:
    for it in (OneLogin(tmp_path), with_map(tmp_path / "map")):
        answer = await check(it.world, token(**change))
        assert (answer.reason, answer.headers["x-extauthz-client-id"]) == ("allowed", ONELOGIN_CLIENT)


@pytest.mark.parametrize(("change", "reason"), MISTAKES, ids=named)
async def test_one_error_is_enough(tmp_path: Path, change: dict[str, Any], reason: str) -> None:
    assert await OneLogin(tmp_path).reason(token(**change)) == reason
    assert await with_map(tmp_path / "map").reason(token(**change)) == reason


@pytest.mark.parametrize("name", ["iss", "aud", "exp", "sub", "scope", "iat", "nbf", "cnf", "nonce", "sid"])
async def test_null_is_never_good(tmp_path: Path, name: str) -> None:
    text = sign(onelogin_claims() | {name: None})
    assert (await check(OneLogin(tmp_path).world, text)).status == 401
    assert (await check(with_map(tmp_path / "map").world, text)).status == 401


@pytest.mark.parametrize("sub", [None, "", 36343940, [ONELOGIN_USER], True])
async def test_a_token_without_a_subject_is_refused(tmp_path: Path, sub: object) -> None:
    it = OneLogin(tmp_path, onelogin_userinfo(sub=sub))
    assert (await check(it.world, token(sub=sub))).status == 401
    assert (await check(with_map(tmp_path / "map").world, token(sub=sub))).status == 401


async def test_a_token_of_an_application_is_refused(tmp_path: Path) -> None:
    it = OneLogin(tmp_path, onelogin_userinfo(sub=ONELOGIN_CLIENT))
    assert await it.reason(token(sub=ONELOGIN_CLIENT)) == "token_kind_wrong"
    assert await OneLogin(tmp_path / "2", userinfo=False, users={ONELOGIN_CLIENT: "x@acme.com"}).reason(
        token(sub=ONELOGIN_CLIENT)
    ) == ("token_kind_wrong")


@pytest.mark.parametrize(
    "change",
    [{"nbf": NOW + 60}, {"iat": NOW + 60}, {"iat": None}, {"jti": None}, {"exp": NOW + 0.5}, {"scope": "openid"}, {"jti": "ID.x"}],
    ids=named,
)
async def test_what_a_token_may_say_otherwise(tmp_path: Path, change: dict[str, Any]) -> None:
    assert await OneLogin(tmp_path).reason(token(**change)) == "allowed"


@pytest.mark.parametrize("leeway", [0, 5, 60])
@pytest.mark.parametrize("name", ["nbf", "iat"])
async def test_the_leeway_is_for_the_beginning_only(tmp_path: Path, name: str, leeway: int) -> None:
    it = with_map(tmp_path, leeway=f"{leeway}s")
    assert await it.reason(token(**{name: NOW + leeway})) == "allowed"
    assert await it.reason(token(**{name: NOW + leeway + 1})) == "token_not_yet_valid"
    assert await it.reason(token(exp=NOW)) == "token_expired"


# --- header and signature


def with_public_key_as_secret() -> str:
    """Sign with HMAC and the published key as its secret."""
    public = rsa_key().public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    parts = ({"alg": "HS256", "kid": "rsa-1", "typ": "JWT"}, onelogin_claims())
    text = ".".join(base64url(json.dumps(part).encode()) for part in parts)
    return f"{text}.{base64url(hmac.digest(public, text.encode(), hashlib.sha256))}"


FORGED: list[tuple[str, str, str]] = [
    ("HS256 with the public key", with_public_key_as_secret(), "token_algorithm"),
    ("none", sign(onelogin_claims(), algorithm="none", key=b"x", header={"kid": "rsa-1"}), "token_algorithm"),
    ("nOnE", token({"alg": "nOnE"}), "token_algorithm"),
    ("RS512", sign(onelogin_claims(), algorithm="RS512", key=rsa_key(), header={"kid": "rsa-1"}), "token_algorithm"),
    ("PS256", sign(onelogin_claims(), algorithm="PS256", key=rsa_key(), header={"kid": "rsa-1"}), "token_algorithm"),
    ("ES256", sign(onelogin_claims(), algorithm="ES256"), "token_algorithm"),
    ("no alg", token({"alg": None}), "token_algorithm"),
    ("alg is a list", token({"alg": ["RS256"]}), "token_algorithm"),
    ("another key", sign(onelogin_claims(), key=rsa_key("other")), "token_signature"),
    ("no signature", token().rpartition(".")[0] + ".", "token_signature"),
    ("zero bytes", token().rpartition(".")[0] + "." + base64url(bytes(256)), "token_signature"),
    ("another kid", token({"kid": "rsa-9"}), "key_set_unavailable"),
    ("no kid", token({"kid": None}), "token_key_unknown"),
    ("kid is a list", token({"kid": ["rsa-1"]}), "token_key_unknown"),
    ("kid is empty", token({"kid": ""}), "token_key_unknown"),
    ("kid is a path", token({"kid": "../../rsa-1", "jku": "https://evil.example"}, iat=NOW - 600), "token_key_unknown"),
    ("crit", token({"crit": ["exp"]}), "token_header_forbidden"),
    ("empty crit", token({"crit": []}), "token_header_forbidden"),
    ("b64", token({"b64": False}), "token_header_forbidden"),
    *(
        (f"typ {kind!r}", token({"typ": kind}), "token_header_forbidden")
        for kind in ("", "JWE", "id_token", "dpop+jwt", ["JWT"], 7)
    ),
]


@pytest.mark.parametrize(("text", "reason"), [row[1:] for row in FORGED], ids=[row[0] for row in FORGED])
async def test_a_forged_token_is_refused_and_shown_to_nobody(tmp_path: Path, text: str, reason: str) -> None:
    it = OneLogin(tmp_path)
    assert await it.reason(text) == reason
    assert it.userinfo.asked == []
    assert await with_map(tmp_path / "map").reason(text) == reason


async def test_keys_that_a_token_names_are_not_looked_at(tmp_path: Path) -> None:
    header = {
        "jku": "https://evil.example/keys",
        "jwk": public_jwk(rsa_key("other"), "rsa-1"),
        "x5c": ["x"],
        "x5u": "https://evil.example",
    }
    assert await with_map(tmp_path).reason(token(header)) == "allowed"
    forged = sign(onelogin_claims(), key=rsa_key("other"), header=header)
    assert await with_map(tmp_path / "2").reason(forged) == "token_signature"


# --- userinfo

ADDRESSES: list[Any] = [
    None,
    "",
    "ana",
    "ana@acme",
    "ana@@acme.com",
    "ana@evil.com@acme.com",
    "ana@acme.com,eve@acme.com",
    "añа@acme.com",
]
ADDRESSES += [" ana@acme.com", "ana@acme.com\n", "ana＠acme.com", "ana@açme.com", ["ana@acme.com"], {"ana@acme.com": 1}, 7, True]


@pytest.mark.parametrize(
    ("user", "reason"),
    [
        *((onelogin_userinfo(sub=sub), "token_user_invalid") for sub in (None, "", "36343941", 36343940, [ONELOGIN_USER], True)),
        *((onelogin_userinfo(email=email), "token_user_invalid") for email in ADDRESSES),
        *((onelogin_userinfo(email_verified=value), "token_user_invalid") for value in (False, "false", "TRUE", "", 0, [], {})),
        (onelogin_userinfo() | {"email_verified": None}, "token_user_invalid"),
        (onelogin_userinfo(email_verified=True), "allowed"),
        (onelogin_userinfo(email="eve@evil.com"), "token_user_not_allowed"),
        (onelogin_userinfo(email="eve@sub.acme.com"), "token_user_not_allowed"),
        (onelogin_userinfo(email="eve@evilacme.com"), "token_user_not_allowed"),
        ({}, "token_user_invalid"),
        ({"sub": ONELOGIN_USER}, "token_user_invalid"),
        (Reason.TOKEN_INACTIVE, "token_inactive"),
        (Unavailable(Reason.ISSUER_UNAVAILABLE), "issuer_unavailable"),
    ],
    ids=named,
)
async def test_one_error_of_userinfo_is_enough(tmp_path: Path, user: Told, reason: str) -> None:
    assert await OneLogin(tmp_path, user, domains=["acme.com"]).reason() == reason


async def test_userinfo_changes_nothing_but_the_user(tmp_path: Path) -> None:
    evil = {
        "exp": NOW + 10**9,
        "aud": OTHER,
        "iss": "https://evil.example",
        "scope": "",
        "nonce": "x",
        "cid": "x",
        "cnf": {},
        "nbf": 2**60,
    }
    answer = await check(OneLogin(tmp_path, onelogin_userinfo(**evil)).world, token())
    assert answer.reason == "allowed"
    assert answer.headers["x-extauthz-client-id"] == ONELOGIN_CLIENT
    assert answer.decision.identity is not None
    assert answer.decision.identity.expires_at == NOW + 3540


@pytest.mark.parametrize("user", [onelogin_userinfo(email=None), {"sub": ONELOGIN_USER}], ids=named)
async def test_an_address_in_the_token_stands_in_for_none(tmp_path: Path, user: dict[str, Any]) -> None:
    """The address is asked for at userinfo: what nobody says of the user is not known."""
    assert await OneLogin(tmp_path, user).reason(token(email="eve@acme.com", email_verified=True)) == "token_user_invalid"


# --- a verdict counts for a while


async def test_each_request_is_decided_anew(tmp_path: Path) -> None:
    it = OneLogin(tmp_path, scopes=["SEARCH"])
    for _ in range(2):
        assert await it.reason() == "allowed"
        assert await it.reason(line="POST /chat") == "scope_missing"
        assert (await check(it.world, token(), x_scio_actas="ana@acme.com")).reason == "act_as_not_allowed"
    assert it.userinfo.asked == [token()]


async def test_a_verdict_with_userinfo_is_a_remote_one(tmp_path: Path) -> None:
    it = OneLogin(tmp_path)
    assert await it.reason() == "allowed"
    it.world.clock.ticks += 59.9
    it.world.clock.wall += 300
    assert await it.reason() == "allowed"
    assert it.userinfo.asked == [token()]
    it.userinfo.otherwise = Reason.TOKEN_INACTIVE
    it.world.clock.ticks += 0.1
    assert await it.reason() == "token_inactive"
    assert it.userinfo.asked == [token()] * 2


async def test_a_verdict_without_a_question_is_a_local_one(tmp_path: Path) -> None:
    it = with_map(tmp_path)
    verdicts = it.world.verdicts[Kind.OAUTH]
    assert await it.reason() == "allowed"
    it.world.clock.advance(299.9)
    assert verdicts.recall(token()) is not None
    it.world.clock.advance(0.1)
    assert verdicts.recall(token()) is None
    assert await it.reason() == "allowed"


async def test_a_verdict_ends_with_the_token(tmp_path: Path) -> None:
    for it in (OneLogin(tmp_path), with_map(tmp_path / "map")):
        text = token(exp=NOW + 30)
        assert await it.reason(text) == "allowed"
        it.world.clock.advance(29.9)
        assert await it.reason(text) == "allowed"
        it.world.clock.advance(0.1)
        assert await it.reason(text) == "token_expired"


async def test_a_verdict_with_userinfo_ends_with_its_key_too(tmp_path: Path) -> None:
    it = OneLogin(tmp_path)
    assert await it.reason() == "allowed"
    it.keys.key_set, it.keys.fetched_at = key_set({"keys": [public_jwk(rsa_key("next"), "next")]}, ("RS256",)), NOW + 100
    assert await it.reason() == "token_key_unknown"
    assert it.userinfo.asked == [token()]


async def test_a_key_that_goes_while_userinfo_is_asked_takes_the_verdict_with_it(tmp_path: Path) -> None:
    it = OneLogin(tmp_path)
    verifier = it.world.build().runtime.verifiers[Kind.OAUTH]
    it.userinfo.go.clear()
    pending = verifier.verify(token(), NOW)
    assert isinstance(pending, Awaitable)
    it.keys.key_set, it.keys.fetched_at = key_set({"keys": [public_jwk(rsa_key("next"), "next")]}, ("RS256",)), NOW + 100
    assert verifier.verify(token(jti="another"), NOW) is Reason.TOKEN_KEY_UNKNOWN
    it.userinfo.go.set()
    await pending
    assert verifier.verify(token(), NOW) is Reason.TOKEN_KEY_UNKNOWN


async def test_a_refusal_of_userinfo_counts_for_ten_seconds(tmp_path: Path) -> None:
    it = OneLogin(tmp_path, Reason.TOKEN_INACTIVE)
    assert await it.reason() == "token_inactive"
    it.userinfo.otherwise = onelogin_userinfo()
    it.world.clock.ticks += 9.9
    assert await it.reason() == "token_inactive"
    it.world.clock.ticks += 0.1
    assert await it.reason() == "allowed"
    assert it.userinfo.asked == [token()] * 2


async def test_trouble_at_userinfo_is_not_remembered(tmp_path: Path) -> None:
    it = OneLogin(tmp_path, Unavailable(Reason.ISSUER_UNAVAILABLE))
    answer = await check(it.world, token())
    assert (answer.status, answer.reason) == (503, "issuer_unavailable")
    it.userinfo.shut = True
    assert await it.reason() == "overloaded"
    it.userinfo.shut, it.userinfo.otherwise = False, onelogin_userinfo()
    assert await it.reason() == "allowed"


async def test_the_first_token_waits_for_the_keys_and_then_for_userinfo(tmp_path: Path) -> None:
    it = OneLogin(tmp_path)
    key_set, it.keys.key_set = it.keys.key_set, None
    assert await it.reason() == "key_set_unavailable"
    assert it.userinfo.asked == []

    async def load() -> jwt.KeySet:
        assert key_set is not None
        it.keys.key_set = key_set
        return key_set

    it.keys.load = load  # type: ignore[method-assign]
    assert await it.reason() == "allowed"
    assert await it.reason() == "allowed"
    assert it.userinfo.asked == [token()]
