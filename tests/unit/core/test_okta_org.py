"""Access tokens of Okta's org server, whose key nobody has: Okta is asked, with the token itself or as a client."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from extauthz.core.model import Reason
from extauthz.core.providers import Verification
from extauthz.errors import Unavailable
from tests.support.remote import (
    OKTA_CLIENT,
    OKTA_ORG,
    OKTA_USER,
    Remote,
    Told,
    changed,
    check,
    okta_introspection,
    okta_org_claims,
    okta_userinfo,
)
from tests.support.world import NOW, World, base64url, rsa_key, sign

ROUTES = [{"match": "POST /search", "scope": "SEARCH"}, {"match": "POST /chat", "scope": "CHAT"}]
OTHER = "0oa2other"
GOOD = {Verification.USERINFO: okta_userinfo(), Verification.INTROSPECTION: okta_introspection()}
BOTH = pytest.mark.parametrize("method", [Verification.USERINFO, Verification.INTROSPECTION], ids=str)


def named(value: object) -> str:
    return str(value)[:60]


def token(payload: bytes | None = None, header: dict[str, Any] | None = None, **changes: Any) -> str:
    """Return a token as the org server writes it, signed with a key that it does not publish."""
    key = {"kid": "unpublished"} | (header or {})
    return sign(okta_org_claims(**changes) if payload is None else payload, key=rsa_key("unpublished"), header=key)


class Org:
    """A world whose OAuth provider is Okta's org server, asked in one of the two ways; about every token it tells the `answer`."""

    def __init__(self, folder: Path, method: Verification, answer: Told | None = None, **changes: Any) -> None:
        self.okta = Remote(otherwise=GOOD[method] if answer is None else answer)
        oauth = {"issuer": OKTA_ORG, "client_ids": [OKTA_CLIENT], "audience": None}
        if method is Verification.INTROSPECTION:
            oauth["client_secret"] = {"env": "OKTA_CLIENT_SECRET"}
        self.world = World(folder, ROUTES, {"oauth": oauth | changes}, introspectors={(OKTA_ORG, method): self.okta})

    async def reason(self, text: str | None = None, line: str = "POST /search") -> str:
        return (await check(self.world, text or token(), line)).reason


# --- who comes in


@BOTH
async def test_a_genuine_token_is_accepted(tmp_path: Path, method: Verification) -> None:
    it = Org(tmp_path, method)
    answer = await check(it.world, token())
    assert answer.reason == "allowed"
    assert {name.removeprefix("x-extauthz-"): value for name, value in answer.headers.items()} == {
        "user": "ana@acme.com",
        "actor": "oauth:okta:ana@acme.com",
        "auth-type": "OAUTH",
        "client-id": OKTA_CLIENT,
        "scopes": "CHAT,DOCUMENTS,FEED,SEARCH",
        "decision-id": answer.headers["x-extauthz-decision-id"],
    }
    assert answer.decision.identity is not None
    assert answer.decision.identity.expires_at == NOW + 3600
    assert it.okta.asked == [token()]


@BOTH
@pytest.mark.parametrize(
    "change",
    [
        {"nbf": NOW + 60},
        {"iat": NOW + 60},
        {"iat": None},
        {"exp": NOW + 0.5},
        {"aud": ["x", OKTA_ORG]},
        {"aud": None},
        {"jti": None},
        {"scp": "openid"},
        {"auth_time": NOW - 60},
        {"jti": "id.lower"},
    ],
    ids=named,
)
async def test_what_a_token_may_say_otherwise(tmp_path: Path, method: Verification, change: dict[str, Any]) -> None:
    answer = (
        okta_userinfo() if method is Verification.USERINFO else changed(okta_introspection(), {"exp": change.get("exp", NOW + 60)})
    )
    assert await Org(tmp_path, method, answer).reason(token(**change)) == "allowed"


@BOTH
@pytest.mark.parametrize("kind", ["JWT", "jwt", "at+jwt", "application/at+jwt"])
async def test_types_of_an_access_token(tmp_path: Path, method: Verification, kind: str) -> None:
    assert await Org(tmp_path, method).reason(token(header={"typ": kind})) == "allowed"


@BOTH
async def test_keys_that_a_token_names_are_not_looked_at(tmp_path: Path, method: Verification) -> None:
    header = {
        "jku": "https://evil.example/keys",
        "x5u": "https://evil.example/x5u",
        "jwk": {"kty": "RSA"},
        "x5c": ["x"],
        "kid": None,
    }
    assert await Org(tmp_path, method).reason(token(header=header)) == "allowed"


# --- what Okta is not even asked about

CLIENTS: list[Any] = [None, OTHER, "", OKTA_CLIENT + " ", OKTA_CLIENT + "x", OKTA_CLIENT[:-1], OKTA_CLIENT.upper(), 7, True, 1.5]
CLIENTS += [[OKTA_CLIENT], {OKTA_CLIENT: 1}, f"{OKTA_CLIENT},{OTHER}"]
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
]
BEFORE: list[tuple[dict[str, Any], str]] = [
    *(({"iss": iss}, "token_issuer") for iss in (None, "", OKTA_ORG + "/", OKTA_ORG + "/oauth2/default", OKTA_ORG[:-1])),
    *(({"iss": iss}, "token_issuer") for iss in ("https://ACME.okta.com", "http://acme.okta.com", "https://evil.okta.com", "acme")),
    *(({"iss": iss}, "token_issuer") for iss in ([OKTA_ORG], {OKTA_ORG: 1}, 7, True, "https://acme.okta.com.evil.example")),
    *(({"cid": client}, "token_client") for client in CLIENTS),
    *(({"exp": exp}, "token_claims_malformed") for exp in MALFORMED_TIMES),
    *(({"exp": exp}, "token_expired") for exp in (NOW, NOW - 1, NOW - 0.5, 0, -1, -(2**40))),
    *(({mark: "x"}, "token_kind_wrong") for mark in ("nonce", "at_hash", "c_hash")),
    ({"jti": "ID.0mP4JKAZX1iACIT4vbEDF7LpvDVjxypPMf0D7uX39RE"}, "token_kind_wrong"),
]


@BOTH
@pytest.mark.parametrize(("change", "reason"), BEFORE, ids=named)
async def test_what_nobodys_word_could_save_is_asked_about_nowhere(
    tmp_path: Path, method: Verification, change: dict[str, Any], reason: str
) -> None:
    it = Org(tmp_path, method)
    assert await it.reason(token(**change)) == reason
    assert it.okta.asked == []


@pytest.mark.parametrize("name", ["iss", "cid", "exp", "scp", "sub", "uid", "nbf", "iat", "cnf", "nonce"])
@BOTH
async def test_null_is_never_good(tmp_path: Path, method: Verification, name: str) -> None:
    """Of what the answer does not say anew, the token itself is the only witness."""
    answer = okta_userinfo() if method is Verification.USERINFO else okta_introspection(scope=None, sub=None, uid=None, iat=None)
    payload = okta_org_claims() | {name: None}
    text = sign(payload, key=rsa_key("unpublished"), header={"kid": "unpublished"})
    assert (await check(Org(tmp_path, method, answer).world, text)).status == 401


HEADERS: list[tuple[dict[str, Any], str]] = [
    *(
        ({"alg": name}, "token_algorithm")
        for name in ("none", "nOnE", "", "HS256", "HS512", "RS512", "PS256", "EdDSA", "rs256", "RS256 ")
    ),
    *(({"alg": name}, "token_algorithm") for name in (None, 7, ["RS256"], {"RS256": 1}, True)),
    *(({"crit": value}, "token_header_forbidden") for value in (["exp"], [], "exp", {})),
    *(({"b64": value}, "token_header_forbidden") for value in (False, True)),
    *(
        ({"typ": kind}, "token_header_forbidden")
        for kind in ("", "JWE", "id_token", "dpop+jwt", "logout+jwt", "at+jwt ", ["JWT"], 7)
    ),
]


@BOTH
@pytest.mark.parametrize(("header", "reason"), HEADERS, ids=named)
async def test_forbidden_headers(tmp_path: Path, method: Verification, header: dict[str, Any], reason: str) -> None:
    it = Org(tmp_path, method)
    assert await it.reason(token(header=header)) == reason
    assert it.okta.asked == []


def damaged() -> dict[str, str]:
    head, payload, signature = token().split(".")
    wide = base64url(b' {"alg":"RS256","kid":"??>>~~"}')
    raw = {
        "NaN": b'{"iss":"%s","cid":"%s","exp":NaN}',
        "Infinity": b'{"iss":"%s","cid":"%s","exp":Infinity}',
        "two expiries": b'{"iss":"%s","cid":"%s","exp":1,"exp":1900000000}',
        "two issuers": b'{"iss":"https://evil.example","iss":"%s","cid":"%s","exp":1900000000}',
        "a list": b'["iss","%s","cid","%s"]',
        "two documents": b'{"iss":"%s","cid":"%s","exp":1900000000}{}',
        "Latin-1": b'{"iss":"%s","cid":"%s","exp":1900000000,"x":"\xe9"}',
        "many digits": b'{"iss":"%s","cid":"%s","exp":' + b"1" * 5000 + b"}",
        "deep": b'{"iss":"%s","cid":"%s","exp":1900000000,"x":' + b"[" * 5000 + b"]" * 5000 + b"}",
    }
    return {
        "two parts": f"{head}.{payload}",
        "four parts": f"{head}.{payload}.{signature}.{signature}",
        "five parts": f"{head}..{payload}.{signature}.{signature}",
        "an empty payload": f"{head}..{signature}",
        "padded": f"{head}.{payload}.{signature}==",
        "standard base64": f"{wide.replace('_', '/').replace('-', '+')}.{payload}.{signature}",
        "a stray tilde": f"{head}.{payload}~.{signature}",
        "other last bits": f"{head}.{payload}.{signature[:-1]}{chr(ord(signature[-1]) + 1)}",
        "payload for header": f"{payload}.{head}.{signature}",
        **{
            name: token(data.replace(b"%s", OKTA_ORG.encode(), 1).replace(b"%s", OKTA_CLIENT.encode(), 1))
            for name, data in raw.items()
        },
    }


@BOTH
@pytest.mark.parametrize("damage", damaged())
async def test_a_damaged_token_is_asked_about_nowhere(tmp_path: Path, method: Verification, damage: str) -> None:
    it = Org(tmp_path, method)
    answer = await check(it.world, damaged()[damage])
    assert answer.status == 401
    assert it.okta.asked == []


# --- what Okta's word does not save

AFTER: list[tuple[dict[str, Any], str]] = [
    ({"nbf": NOW + 61}, "token_not_yet_valid"),
    *(({"nbf": nbf}, "token_claims_malformed") for nbf in ("", str(NOW), True, [NOW])),
    *(({"cnf": cnf}, "token_header_forbidden") for cnf in ({"jkt": "x"}, {}, "", False)),
]
# Of these the answer of introspection speaks too.
AFTER_USERINFO: list[tuple[dict[str, Any], str]] = [
    ({"iat": NOW + 61}, "token_not_yet_valid"),
    ({"iat": str(NOW)}, "token_claims_malformed"),
    ({"uid": None, "sub": OKTA_USER}, "token_kind_wrong"),
    ({"sub": OKTA_CLIENT}, "token_kind_wrong"),
    *(({"sub": sub}, "token_claims_malformed") for sub in (None, "", 7, ["ana@acme.com"])),
    *(({"scp": scopes}, "token_kind_wrong") for scopes in (None, [], "", " ", [""], {}, 7, ["openid", 7])),
]


@BOTH
@pytest.mark.parametrize(("change", "reason"), AFTER, ids=named)
async def test_one_error_of_the_token_is_enough(tmp_path: Path, method: Verification, change: dict[str, Any], reason: str) -> None:
    assert await Org(tmp_path, method).reason(token(**change)) == reason


@pytest.mark.parametrize(("change", "reason"), AFTER_USERINFO, ids=named)
async def test_userinfo_excuses_no_error(tmp_path: Path, change: dict[str, Any], reason: str) -> None:
    assert await Org(tmp_path, Verification.USERINFO).reason(token(**change)) == reason


@pytest.mark.parametrize("leeway", [0, 5, 60])
@pytest.mark.parametrize("name", ["nbf", "iat"])
async def test_the_leeway_is_for_the_beginning_only(tmp_path: Path, name: str, leeway: int) -> None:
    it = Org(tmp_path, Verification.USERINFO, leeway=f"{leeway}s")
    assert await it.reason(token(**{name: NOW + leeway})) == "allowed"
    assert await it.reason(token(**{name: NOW + leeway + 1})) == "token_not_yet_valid"
    assert await it.reason(token(exp=NOW)) == "token_expired"


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
    ("change", "reason"),
    [
        *(
            ({"sub": sub}, "token_user_invalid")
            for sub in (None, "", "00u2other", "eve@acme.com", 7, True, [OKTA_USER], OKTA_USER + " ")
        ),
        *(({"email": email}, "token_user_invalid") for email in ADDRESSES),
        *(({"email_verified": value}, "token_user_invalid") for value in (False, "false", "TRUE", "", 0, [], {}, [True])),
        ({"email": "eve@evil.com"}, "token_user_not_allowed"),
        ({"email": "eve@sub.acme.com"}, "token_user_not_allowed"),
        ({"sub": "ana@acme.com"}, "allowed"),
    ],
    ids=named,
)
async def test_one_error_of_userinfo_is_enough(tmp_path: Path, change: dict[str, Any], reason: str) -> None:
    assert await Org(tmp_path, Verification.USERINFO, okta_userinfo(**change), domains=["acme.com"]).reason() == reason


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        *(({"active": value}, "token_inactive") for value in (None, False, "true", 1, 1.0, "", [True], {})),
        *(({"token_type": kind}, "token_kind_wrong") for kind in (None, "", "DPoP", "N_A", "mac", "Bearer ", ["Bearer"], True)),
        *(({"client_id": client}, "token_client") for client in CLIENTS),
        *(({"exp": exp}, "token_claims_malformed") for exp in MALFORMED_TIMES),
        *(({"exp": exp}, "token_expired") for exp in (NOW, NOW - 1, 0, -1)),
        *(
            ({"iss": iss}, "token_issuer")
            for iss in ("", OKTA_ORG + "/", OKTA_ORG + "/oauth2/default", "https://evil.okta.com", [OKTA_ORG])
        ),
        *(({"username": name}, "token_user_invalid") for name in ADDRESSES),
        *(({"scope": scope}, "token_kind_wrong") for scope in ("", " ", [], {}, 7, False)),
        *(({"cnf": cnf}, "token_header_forbidden") for cnf in ({"jkt": "x"}, {}, "")),
        *(({mark: "x"}, "token_kind_wrong") for mark in ("nonce", "at_hash", "c_hash")),
        ({"jti": "ID.x"}, "token_kind_wrong"),
        ({"sub": OKTA_CLIENT}, "token_kind_wrong"),
        *(({"sub": sub}, "token_claims_malformed") for sub in ("", 7, ["ana@acme.com"])),
        ({"nbf": NOW + 61}, "token_not_yet_valid"),
        ({"iat": NOW + 61}, "token_not_yet_valid"),
        ({"iat": "now"}, "token_claims_malformed"),
        ({"username": "eve@evil.com"}, "token_user_not_allowed"),
        ({"token_type": "bearer"}, "allowed"),
        ({"scope": None, "iss": None, "aud": None, "uid": None, "sub": None, "jti": None, "iat": None}, "allowed"),
    ],
    ids=named,
)
async def test_one_error_of_introspection_is_enough(tmp_path: Path, change: dict[str, Any], reason: str) -> None:
    answer = okta_introspection(**change)
    assert await Org(tmp_path, Verification.INTROSPECTION, answer, domains=["acme.com"]).reason() == reason


@pytest.mark.parametrize("name", ["active", "token_type", "client_id", "exp", "username", "scope", "sub", "iss", "cnf"])
async def test_null_in_an_introspection_is_never_good(tmp_path: Path, name: str) -> None:
    answer = await check(Org(tmp_path, Verification.INTROSPECTION, okta_introspection() | {name: None}).world, token())
    assert answer.status == 401


async def test_an_inactive_token_without_more_words(tmp_path: Path) -> None:
    assert await Org(tmp_path, Verification.INTROSPECTION, {"active": False}).reason() == "token_inactive"
    assert await Org(tmp_path / "2", Verification.USERINFO, Reason.TOKEN_INACTIVE).reason() == "token_inactive"
    assert await Org(tmp_path / "3", Verification.USERINFO, {}).reason() == "token_user_invalid"


@BOTH
async def test_a_token_of_an_application_is_refused(tmp_path: Path, method: Verification) -> None:
    """Client credentials: no uid, and the subject is the client."""
    answer: Told = Reason.TOKEN_INACTIVE
    if method is Verification.INTROSPECTION:
        answer = okta_introspection(uid=None, username=None, sub=OKTA_CLIENT, scope="okta.users.read")
    it = Org(tmp_path, method, answer)
    assert (await check(it.world, token(uid=None, sub=OKTA_CLIENT, scp=["okta.users.read"]))).status == 401
    named_like_a_user = okta_introspection(uid=None, username="robot@acme.com", sub="robot@acme.com")
    it = Org(tmp_path / "2", Verification.INTROSPECTION, named_like_a_user)
    assert await it.reason(token(uid=None, sub="robot@acme.com")) == "token_kind_wrong"


async def test_an_id_token_is_refused_and_shown_to_nobody(tmp_path: Path) -> None:
    it = Org(tmp_path, Verification.USERINFO)
    id_token = {"aud": OKTA_CLIENT, "cid": None, "uid": None, "scp": None, "jti": "ID.x", "email": "ana@acme.com", "at_hash": "x"}
    assert await it.reason(token(**id_token)) == "token_kind_wrong"
    assert await it.reason(token(**id_token | {"jti": None, "at_hash": None})) == "token_client"
    assert it.okta.asked == []


@pytest.mark.parametrize(
    ("payload", "answer", "user"),
    [
        ({"email": "eve@acme.com"}, {"email": None, "email_verified": None}, None),
        ({"email": "eve@acme.com", "email_verified": True}, {"email": None}, None),
        ({"email": "eve@acme.com", "email_verified": True}, {}, "ana@acme.com"),
        ({"email_verified": True}, {"email_verified": False}, None),
    ],
    ids=named,
)
async def test_the_address_is_the_one_of_userinfo(
    tmp_path: Path, payload: dict[str, Any], answer: dict[str, Any], user: str | None
) -> None:
    """Of the token itself no more counts than its issuer, client and times."""
    it = Org(tmp_path, Verification.USERINFO, okta_userinfo(**answer))
    assert (await check(it.world, token(**payload))).decision.user == user


@BOTH
@pytest.mark.parametrize(
    ("answer", "user"),
    [
        ({"email": "ana@acme.com", "login": "bob@acme.com"}, "ana@acme.com"),
        ({"email": None, "login": "bob@acme.com"}, "bob@acme.com"),
        ({"email": "", "login": "bob@acme.com"}, "token_user_invalid"),
        ({"email": None}, "token_user_invalid"),
    ],
    ids=named,
)
async def test_of_several_claims_the_first_one_that_okta_tells_decides(
    tmp_path: Path, method: Verification, answer: dict[str, Any], user: str
) -> None:
    """What the token itself says of its user, nobody has vouched for."""
    it = Org(tmp_path, method, changed(GOOD[method], answer), user_claim=["email", "login"])
    decided = await check(it.world, token(email="ceo@acme.com", login="ceo@acme.com"))
    assert (decided.headers["x-extauthz-user"] if decided.allowed else decided.reason) == user


@BOTH
async def test_an_audience_counts_if_it_is_set(tmp_path: Path, method: Verification) -> None:
    it = Org(tmp_path, method, audience=OKTA_ORG)
    assert await it.reason() == "allowed"
    it = Org(
        tmp_path / "2", method, okta_introspection(aud="x") if method is Verification.INTROSPECTION else None, audience=OKTA_ORG
    )
    assert await it.reason(token(aud="x")) == "token_audience"


@pytest.mark.parametrize("user_id", [OKTA_USER, "ana@acme.com"])
async def test_one_map_of_users_serves_both_ways_to_ask(tmp_path: Path, user_id: str) -> None:
    users = {user_id: "boss@acme.com"}
    reasons = [await Org(tmp_path / method, method, users=users).reason() for method in GOOD]
    assert reasons[0] == reasons[1]


@BOTH
async def test_a_map_of_users_changes_nothing_but_the_user(tmp_path: Path, method: Verification) -> None:
    it = Org(tmp_path, method, users={OKTA_USER: "boss@acme.com", "ana@acme.com": "boss@acme.com"})
    answer = await check(it.world, token())
    assert answer.headers["x-extauthz-user"] == "boss@acme.com"
    assert answer.headers["x-extauthz-actor"] == "oauth:okta:ana@acme.com"


# --- an answer is a verdict on a token, for a while


@BOTH
async def test_each_request_is_decided_anew(tmp_path: Path, method: Verification) -> None:
    it = Org(tmp_path, method, scopes=["SEARCH"])
    for _ in range(2):
        assert await it.reason() == "allowed"
        assert await it.reason(line="POST /chat") == "scope_missing"
        assert (await check(it.world, token(), x_scio_actas="ana@acme.com")).reason == "act_as_not_allowed"
    assert it.okta.asked == [token()]


@BOTH
async def test_a_verdict_counts_for_a_minute_of_the_monotonic_clock(tmp_path: Path, method: Verification) -> None:
    it = Org(tmp_path, method)
    assert await it.reason() == "allowed"
    it.world.clock.ticks += 59.9
    it.world.clock.wall += 300
    assert await it.reason() == "allowed"
    assert it.okta.asked == [token()]
    it.world.clock.ticks += 0.1
    it.okta.otherwise = Reason.TOKEN_INACTIVE
    assert await it.reason() == "token_inactive"
    assert it.okta.asked == [token()] * 2


@BOTH
async def test_a_verdict_ends_with_the_token(tmp_path: Path, method: Verification) -> None:
    text = token(exp=NOW + 30)
    it = Org(tmp_path, method, okta_introspection(exp=NOW + 30) if method is Verification.INTROSPECTION else None)
    assert await it.reason(text) == "allowed"
    it.world.clock.advance(29.9)
    assert await it.reason(text) == "allowed"
    it.world.clock.advance(0.1)
    assert await it.reason(text) == "token_expired"
    assert it.okta.asked == [text]


@pytest.mark.parametrize(("of_token", "of_answer"), [(30, 3600), (3600, 30)])
async def test_the_earlier_of_two_expiries_counts(tmp_path: Path, of_token: int, of_answer: int) -> None:
    text = token(exp=NOW + of_token)
    it = Org(tmp_path, Verification.INTROSPECTION, okta_introspection(exp=NOW + of_answer))
    assert await it.reason(text) == "allowed"
    it.world.clock.advance(30)
    assert await it.reason(text) == "token_expired"


@BOTH
async def test_a_refusal_counts_for_ten_seconds(tmp_path: Path, method: Verification) -> None:
    it = Org(tmp_path, method, Reason.TOKEN_INACTIVE)
    assert await it.reason() == "token_inactive"
    it.okta.otherwise = GOOD[method]
    it.world.clock.ticks += 9.9
    assert await it.reason() == "token_inactive"
    assert it.okta.asked == [token()]
    it.world.clock.ticks += 0.1
    assert await it.reason() == "allowed"


@BOTH
async def test_trouble_is_not_remembered(tmp_path: Path, method: Verification) -> None:
    it = Org(tmp_path, method, Unavailable(Reason.ISSUER_UNAVAILABLE))
    answer = await check(it.world, token())
    assert (answer.status, answer.reason) == (503, "issuer_unavailable")
    it.okta.shut = True
    assert await it.reason() == "overloaded"
    it.okta.shut, it.okta.otherwise = False, GOOD[method]
    assert await it.reason() == "allowed"
    assert it.okta.asked == [token()] * 3


@BOTH
async def test_a_token_that_begins_soon_is_asked_about_again(tmp_path: Path, method: Verification) -> None:
    it, text = Org(tmp_path, method), token(nbf=NOW + 65)
    assert await it.reason(text) == "token_not_yet_valid"
    it.world.clock.advance(5)
    assert await it.reason(text) == "allowed"
