"""Which kind a token is: by the header that the configuration names, or by the token itself, and never both."""

from __future__ import annotations

import string

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from extauthz.core import tokens
from extauthz.core.credentials import AuthTypes, Credential, Kind, read_credential
from extauthz.core.model import Reason, Request
from extauthz.core.tokens import ENTROPY_BYTES, TokenText, mint
from tests.support.world import DECISION_ID

PREFIXES = ("glean", "acme", "a")
BY_TOKEN = AuthTypes(header="", issued=tuple(f"{prefix}_" for prefix in PREFIXES))
ALPHABET = string.ascii_letters + string.digits + "-._~+/"
TEXTS = st.text(ALPHABET, min_size=1, max_size=80)
MINTED = st.builds(
    lambda prefix, entropy: mint(prefix, entropy).text,
    st.sampled_from(PREFIXES),
    st.binary(min_size=ENTROPY_BYTES, max_size=ENTROPY_BYTES),
)
SPOILT = st.builds(
    lambda text, at, other: text[: at % len(text)] + other + text[at % len(text) + 1 :],
    MINTED,
    st.integers(0, 80),
    st.sampled_from(ALPHABET),
)
JWTS = st.builds("eyJ{}.eyJ{}.{}".format, TEXTS, TEXTS, TEXTS)


def asking(token: str, **headers: str) -> Request:
    lines = {name.replace("_", "-"): value for name, value in headers.items()}
    return Request("GET", "/a", "h", {"authorization": f"Bearer {token}", **lines}, raw=True, decision_id=DECISION_ID)


def kind(types: AuthTypes, token: str, **headers: str) -> Kind | Reason:
    found = read_credential(asking(token, **headers), "", types, max_token_size=1000)
    assert found is not None
    return found.kind if isinstance(found, Credential) else found


@settings(max_examples=300, deadline=None)
@given(
    TEXTS | MINTED | SPOILT | JWTS | st.builds("{}_{}".format, st.sampled_from(PREFIXES), JWTS), st.sampled_from(["", "OAUTH", "x"])
)
@example("glean_", "OAUTH")
@example("a_", "")
def test_a_token_tells_one_kind_whatever_is_wrong_with_it(token: str, header: str) -> None:
    """What the verifier of issued tokens could ever take never goes to the other one, and the other way round."""
    begins = token.startswith(BY_TOKEN.issued)
    assert kind(BY_TOKEN, token, x_glean_auth_type=header) is (Kind.ISSUED if begins else Kind.OAUTH)
    if isinstance(tokens.parse(token, frozenset(PREFIXES)), TokenText):
        assert begins


@pytest.mark.parametrize("token", ["glean_x", "x"])
def test_without_issued_tokens_every_token_is_of_the_other_kind(token: str) -> None:
    assert kind(AuthTypes(header=""), token) is Kind.OAUTH


@settings(max_examples=100, deadline=None)
@given(TEXTS | MINTED | JWTS, st.text("SsOo \tx,", max_size=6))
def test_a_header_alone_tells_the_kind_where_there_is_one(token: str, value: str) -> None:
    own = AuthTypes("x-acme-kind", "sso")
    said = value.strip(" \t").lower()
    expected = Kind.ISSUED if not said else Kind.OAUTH if said == "sso" else Reason.AUTH_TYPE_UNKNOWN
    assert kind(own, token, x_acme_kind=value, x_glean_auth_type="OAUTH") is expected
