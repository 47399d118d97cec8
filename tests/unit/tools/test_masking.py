"""No text that a tool prints holds a token, and names of an API stay readable."""

from __future__ import annotations

import base64
import hashlib
import importlib
import re
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extauthz.admin import token_search
from extauthz.core import tokens
from extauthz.core.credentials import AUTHORIZATION
from extauthz.tools import masking
from extauthz.tools.calls import PLACEHOLDER
from extauthz.tools.masking import HIDDEN, MASK, mask_of, masked

PREFIXES = frozenset({"glean"})
READABLE = [
    "/rest/api/v1/getDocumentPermissionsByIdV2",
    "/users/6f1c2f0e-8d2b-4b6e-9a53-0d8c7e0b7a11/items",
    "GET /rest/api/v1/{documentIdentifier}/permissionsOfCollection/**",
    "/files/annual-report-2026-final-version.pdf",
    "oauth:okta:00u1exampleABC",
    "5eed" * 8,
    "route_unknown",
]
JWT = "eyJhbGciOiJSUzI1NiIsImtpZCI6InJzYS0xIn0.eyJpc3MiOiJodHRwczovL2FjbWUifQ.c2lnbmF0dXJlLW9mLXRoZS10b2tlbg"
SECRETS = [
    JWT,
    JWT.partition(".")[2],
    "ya29.a0AfH6SMBx3qLr9WnZt7YvKd2Ue5Gp8Jc1",
    JWT.replace(".", "%2E"),
    JWT.replace(".", "%252E"),
]
PLACES = ["/a/{}", "/a/{}/b", "/a?access_token={}", "/a?q=1&t={}", "{}", "x={}; y", "/a/prefix-{}"]


def issued(seed: int) -> str:
    return tokens.mint("glean", hashlib.shake_256(str(seed).encode()).digest(tokens.ENTROPY_BYTES)).text


@pytest.mark.parametrize("text", READABLE)
def test_names_stay(text: str) -> None:
    assert masked(text, PREFIXES) == text


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("secret", [*SECRETS, issued(1), issued(2).replace("_", "%5F")])
def test_tokens_do_not(place: str, secret: str) -> None:
    shown = masked(place.format(secret), PREFIXES)
    assert MASK in shown
    assert secret not in shown
    assert not any(secret[at : at + 12] in shown for at in range(len(secret) - 12))


@given(st.integers(0), st.sampled_from(PLACES), st.integers(0, 12))
def test_no_issued_token_is_shown_even_if_it_is_cut(seed: int, place: str, cut: int) -> None:
    text = issued(seed)
    secret = text.split("_")[2]
    for known in (PREFIXES, frozenset[str]()):
        assert secret[:20] not in masked(place.format(text[: len(text) - cut]), known)
    assert secret[:20] not in masked(place.format(secret), PREFIXES)


@given(st.binary(min_size=33, max_size=64))
def test_no_random_text_in_base64url_is_shown(data: bytes) -> None:
    text = base64.urlsafe_b64encode(hashlib.sha256(data).digest() + data).rstrip(b"=").decode()
    assert text not in masked(f"/a/{text}", PREFIXES)


def test_words_are_shown_beside_hidden_tokens() -> None:
    text = f"get_organization_members of a {PLACEHOLDER} caller"
    assert mask_of({AUTHORIZATION: f"Bearer {PLACEHOLDER}"}).tokens(text) == text
    assert mask_of({}).tokens(f"{text}: {issued(3)}") == f"{text}: {HIDDEN}"


@pytest.mark.parametrize("module", [masking, token_search])
def test_no_look_ahead_reads_on_without_a_bound(module: ModuleType) -> None:
    """One that reads to the end of a run from each of its letters is quadratic, in the loop of the console."""
    patterns = [each for each in vars(module).values() if isinstance(each, re.Pattern)]
    assert patterns != []
    parser = importlib.import_module("re._parser")
    assert [width for each in patterns for width in look_ahead_widths(parser.parse(each.pattern)) if width > 200] == []


def look_ahead_widths(parsed: Any) -> list[int]:
    """Return how many letters each assertion of a parsed pattern reads at most."""
    widths = []
    for operation, argument in parsed:
        for part in argument if isinstance(argument, tuple) else (argument,):
            for inner in part if operation.name == "BRANCH" and isinstance(part, list) else (part,):
                if not hasattr(inner, "getwidth"):
                    continue
                if operation.name.startswith("ASSERT"):
                    widths.append(inner.getwidth()[1])
                widths += look_ahead_widths(inner)
    return widths
