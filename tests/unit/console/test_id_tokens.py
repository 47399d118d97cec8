"""What an ID token must hold, case by case; the issuer that forges them over HTTP is in tests/integration/console."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extauthz.console.id_tokens import Expected, LoginRefusal, address_of, key_of, refusal
from extauthz.core import jwt
from extauthz.core.jwt import Key, Unverified
from tests.support.world import NOW

LEEWAY = 60
EXPECTED = Expected("https://acme.okta.com", "0oa1console", "n-0S6_WzA2Mj")
CLAIMS = {
    "iss": "https://acme.okta.com",
    "aud": "0oa1console",
    "sub": "00u1",
    "nonce": "n-0S6_WzA2Mj",
    "iat": NOW,
    "exp": NOW + 300,
    "auth_time": NOW,
    "email": "ana@acme.com",
    "email_verified": True,
}
AGAIN = Expected("https://acme.okta.com", "0oa1console", "n-0S6_WzA2Mj", since=NOW - 30)


def token(header: dict[str, Any] | None = None, **changes: Any) -> Unverified:
    claims = {name: value for name, value in (CLAIMS | changes).items() if value is not None}
    return Unverified({"alg": "RS256", "kid": "k1"} | (header or {}), claims, b"", b"")


@pytest.mark.parametrize(
    "good",
    [
        token(),
        token({"typ": "JWT"}),
        token({"alg": "ES256", "typ": "jwt"}),
        token(aud=["0oa1console"]),
        token(azp="0oa1console"),
        token(aud=["other", "0oa1console"], azp="0oa1console"),
        token(exp=NOW - LEEWAY + 1),
        token(iat=NOW + LEEWAY, nbf=NOW + LEEWAY, auth_time=NOW + LEEWAY),
        token(auth_time=NOW - 30 - LEEWAY),
        token(iat=NOW + 0.5),
    ],
)
def test_a_good_one(good: Unverified) -> None:
    assert refusal(good, AGAIN, NOW) is None


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        *(
            (token({"alg": name}), LoginRefusal.ALGORITHM)
            for name in ("none", "None", "", "HS256", "RS384", "PS256", "EdDSA", 1, None, [])
        ),
        (token({"typ": "at+jwt"}), LoginRefusal.HEADER),
        (token({"typ": None}), LoginRefusal.HEADER),
        (token({"crit": ["exp"]}), LoginRefusal.HEADER),
        (token({"b64": False}), LoginRefusal.HEADER),
        *(
            (token(iss=name), LoginRefusal.ISSUER)
            for name in ("https://acme.okta.com/", "acme.okta.com", ["https://acme.okta.com"], None)
        ),
        *((token(aud=names), LoginRefusal.AUDIENCE) for names in ("other", "0oa1consol", [], [1], None, ["0oa1console", 1])),
        *((token(aud=["0oa1console", "other"], azp=party), LoginRefusal.AUDIENCE) for party in (None, "other", ["0oa1console"])),
        (token(aud=["0oa1console", "0oa1console"]), LoginRefusal.AUDIENCE),
        *((token(azp=party), LoginRefusal.AUDIENCE) for party in ("other", "", ["0oa1console"], 1)),
        *(
            (token(nonce=nonce), LoginRefusal.NONCE)
            for nonce in (None, "", "n-0S6_WzA2M", "n-0S6_WzA2Mj ", ["n-0S6_WzA2Mj"], "\ud800")
        ),
        *((token(sub=subject), LoginRefusal.CLAIMS) for subject in (None, "", 1, ["00u1"])),
        *((token(exp=moment), LoginRefusal.CLAIMS) for moment in (None, str(NOW + 300), True, 1e300, float("inf"))),
        *((token(iat=moment), LoginRefusal.CLAIMS) for moment in (None, str(NOW), False)),
        (token(nbf="soon"), LoginRefusal.CLAIMS),
        *((token(iat=moment, nbf=NOW), LoginRefusal.CLAIMS) for moment in (None, "now")),
        (token(iat=NOW + LEEWAY + 1, nbf=NOW), LoginRefusal.NOT_YET_VALID),
        (token(exp=NOW - LEEWAY), LoginRefusal.EXPIRED),
        (token(exp=NOW - 90), LoginRefusal.EXPIRED),
        (token(exp=0), LoginRefusal.EXPIRED),
        *((token(**{name: NOW + LEEWAY + 1}), LoginRefusal.NOT_YET_VALID) for name in ("iat", "nbf", "auth_time")),
        *((token(auth_time=moment), LoginRefusal.NOT_AGAIN) for moment in (None, NOW - 31 - LEEWAY, str(NOW), True, 0)),
    ],
)
def test_a_bad_one(bad: Unverified, why: LoginRefusal) -> None:
    assert refusal(bad, AGAIN, NOW) is why
    if why is LoginRefusal.NOT_AGAIN:
        assert refusal(bad, EXPECTED, NOW) is None


@given(st.dictionaries(st.sampled_from([*CLAIMS, "azp", "nbf"]), st.none() | st.integers() | st.text() | st.lists(st.text())))
def test_no_claims_end_in_an_error(claims: dict[str, Any]) -> None:
    refused = refusal(Unverified({"alg": "RS256"}, CLAIMS | claims, b"", b""), AGAIN, NOW)
    same = {name for name, value in claims.items() if CLAIMS.get(name) != value}
    assert (refused is None) <= same.isdisjoint({"iss", "nonce"})


def read(header: dict[str, Any]) -> Unverified:
    part = base64.urlsafe_b64encode(json.dumps(header).encode()).rstrip(b"=").decode()
    found = jwt.read(f"{part}.e30.")
    assert isinstance(found, Unverified)
    return found


def keys(*names: tuple[str, str]) -> dict[tuple[str, str], Key]:
    return {(kid, name): Key(kid, name, f"{kid}{name}", lambda data, signature: False) for kid, name in names}


@pytest.mark.parametrize(
    ("header", "published", "expected"),
    [
        ({"kid": "a"}, [("a", "RS256"), ("b", "RS256")], "a"),
        ({"kid": "a"}, [("a", "ES256")], None),
        ({"kid": "a"}, [("b", "RS256")], None),
        ({"kid": "a"}, [("", "RS256")], None),
        ({"kid": ["a"]}, [("a", "RS256")], None),
        ({"kid": None}, [("a", "RS256")], None),
        ({}, [("a", "RS256")], "a"),
        ({}, [("", "RS256")], ""),
        ({}, [("a", "RS256"), ("b", "ES256")], "a"),
        ({}, [("a", "RS256"), ("b", "RS256")], None),
        ({}, [("a", "RS256"), ("", "RS256")], None),
        ({}, [], None),
    ],
)
def test_the_key_is_the_one_that_is_meant(header: dict[str, Any], published: list[tuple[str, str]], expected: str | None) -> None:
    key = key_of(read({"alg": "RS256"} | header), keys(*published))
    assert (key.id if key else None) == expected


VERIFIED = {"email": "Ana@Acme.com", "email_verified": True}


@pytest.mark.parametrize(
    ("claims", "claim", "expected"),
    [
        (VERIFIED, "email", "ana@acme.com"),
        (VERIFIED | {"email_verified": "true"}, "email", "ana@acme.com"),
        *(
            (VERIFIED | {"email_verified": said}, "email", LoginRefusal.UNVERIFIED_ADDRESS)
            for said in (False, "false", "True", 1, None, [True])
        ),
        ({"email": "ana@acme.com"}, "email", LoginRefusal.UNVERIFIED_ADDRESS),
        (VERIFIED | {"upn": "ANA@acme.com"}, "upn", "ana@acme.com"),
        (VERIFIED | {"upn": "cto@acme.com"}, "upn", LoginRefusal.UNVERIFIED_ADDRESS),
        ({"upn": "cto@acme.com", "email_verified": True}, "upn", LoginRefusal.UNVERIFIED_ADDRESS),
        ({"upn": "cto@acme.com", "email": None, "email_verified": True}, "upn", LoginRefusal.UNVERIFIED_ADDRESS),
        *(
            (VERIFIED | {"email": text}, "email", LoginRefusal.NO_ADDRESS)
            for text in (
                "",
                "ana",
                "a@acme.com,b@acme.com",
                "ana@acme.com\n",
                "ana@acme.com ",
                "*@acme.com ",
                ["ana@acme.com"],
                None,
                1,
            )
        ),
        (VERIFIED, "upn", LoginRefusal.NO_ADDRESS),
    ],
)
def test_an_address_counts_where_the_provider_verified_it(claims: dict[str, Any], claim: str, expected: str) -> None:
    assert address_of(claims, claim, unverified=False) == expected
    if expected is LoginRefusal.UNVERIFIED_ADDRESS:
        assert address_of(claims, claim, unverified=True) == claims[claim].lower()


def test_every_refusal_says_something_of_its_own() -> None:
    assert len(set(LoginRefusal)) == len(LoginRefusal.__members__)
    assert all(refused.endswith(".") and len(refused) > 20 for refused in LoginRefusal)
