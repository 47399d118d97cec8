"""Which token a request brings, and that the way in which most clients write it is the short one."""

from __future__ import annotations

import pytest

from extauthz.core import credentials
from extauthz.core.credentials import AuthTypes, Credential, read_credential
from extauthz.core.model import Reason, Request

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~+/"


def read(authorization: str) -> Credential | Reason | None:
    """Return what a request with this header brings."""
    request = Request("GET", "/", "api.acme.com", {"authorization": authorization}, raw=True, decision_id="0" * 32)
    return read_credential(request, "", AuthTypes(), max_token_size=1000)


@pytest.mark.parametrize("token", [LETTERS, "a.b.c", "A", "glean_0123456789ab_x"])
def test_the_usual_header_needs_no_expression(monkeypatch: pytest.MonkeyPatch, token: str) -> None:
    """It takes three times as long, in every check."""
    monkeypatch.setattr(credentials, "_BEARER", None)
    credential = read(f"Bearer {token}")
    assert isinstance(credential, Credential)
    assert credential.token == token


@pytest.mark.parametrize(
    ("authorization", "token"),
    [("bearer abc", "abc"), ("BEARER   abc", "abc"), ("Bearer  abc", "abc"), ("Bearer abc==", "abc=="), (" Bearer abc\t", "abc")],
)
def test_other_spellings_of_a_bearer_token_are_read(authorization: str, token: str) -> None:
    credential = read(authorization)
    assert isinstance(credential, Credential)
    assert credential.token == token


@pytest.mark.parametrize(
    "authorization",
    ["Bearer", "Bearer =", "Bearer a b", "Bearer a,b", "Bearer a=b", "Bearer ü", "Bearer €", "Bearer a€", "Bearer a\n"],
)
def test_what_is_no_token_is_none(authorization: str) -> None:
    assert read(authorization) is Reason.AUTHORIZATION_MALFORMED


@pytest.mark.parametrize("authorization", ["Bearera", "Basic abc", "BearerBearer abc"])
def test_another_scheme_is_named_so(authorization: str) -> None:
    assert read(authorization) is Reason.SCHEME_UNSUPPORTED
