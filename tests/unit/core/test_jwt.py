"""What is read of a JWT before anybody has verified it, and which key it is shown to."""

from __future__ import annotations

import base64
import json

import pytest

from extauthz.core import jwt
from extauthz.core.credentials import Credential, Kind
from extauthz.core.model import Reason
from extauthz.core.provider_table import PROVIDERS
from extauthz.core.providers import ProviderRules


def token(header: object, signature: bytes = b"signature") -> str:
    """Return a compact JWS without a real signature."""
    parts = (json.dumps(header).encode(), b"{}", signature)
    return ".".join(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in parts)


def read(header: object) -> jwt.Unverified:
    found = jwt.read(token(header))
    assert isinstance(found, jwt.Unverified)
    return found


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ({"kid": "k", "alg": "RS256"}, ("k", "RS256")),
        ({"kid": "k" * 256, "alg": "RS256"}, ("k" * 256, "RS256")),
        ({"kid": "k" * 257, "alg": "RS256"}, None),
        ({"kid": "", "alg": "RS256"}, None),
        ({"kid": 1, "alg": "RS256"}, None),
        ({"kid": ["k"], "alg": "RS256"}, None),
        ({"alg": "RS256"}, None),
        ({"kid": "k"}, None),
        ({"kid": "k", "alg": 5}, None),
        ({"kid": "k", "alg": ["RS256"]}, None),
    ],
)
def test_a_key_is_named_by_two_texts_of_bounded_length(header: object, expected: jwt.KeyName | None) -> None:
    assert jwt.key_name(read(header)) == expected


RULES = ProviderRules(
    name="okta",
    provider=PROVIDERS["okta"][0],
    issuer="https://acme.okta.com/oauth2/default",
    client_ids=frozenset({"client"}),
    audience=None,
    scopes=frozenset({"SEARCH"}),
    user_claims=("sub",),
)


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ({"alg": "RS256"}, None),
        ({"alg": "RS256", "typ": "AT+JWT"}, None),
        ({"alg": "RS256", "typ": "application/at+jwt"}, None),
        *(({"alg": alg}, Reason.TOKEN_ALGORITHM) for alg in ("none", "HS256", "rs256", "", None, 5, ["RS256"], {"RS256": 1})),
        ({}, Reason.TOKEN_ALGORITHM),
        *(({"alg": "RS256", "typ": kind}, Reason.TOKEN_HEADER_FORBIDDEN) for kind in ("id+jwt", "", None, 5, ["JWT"], {"JWT": 1})),
        ({"alg": "RS256", "crit": []}, Reason.TOKEN_HEADER_FORBIDDEN),
        ({"alg": "RS256", "b64": False}, Reason.TOKEN_HEADER_FORBIDDEN),
        ({"alg": "RS256", "b64": True}, Reason.TOKEN_HEADER_FORBIDDEN),
    ],
)
def test_a_header_is_refused_whatever_type_its_members_have(header: object, expected: Reason | None) -> None:
    assert jwt.header_refusal(read(header), RULES) is expected


@pytest.mark.parametrize(
    ("header", "said", "expected"),
    [
        ({"kid": "k", "alg": "RS256"}, True, None),
        ({"kid": "k", "alg": "RS256"}, False, Reason.TOKEN_SIGNATURE),
        ({"kid": "k", "alg": "RS256"}, 1, Reason.TOKEN_SIGNATURE),  # only True itself is a yes
        ({"kid": "other", "alg": "RS256"}, True, Reason.TOKEN_KEY_UNKNOWN),
        ({"kid": "k", "alg": "ES256"}, True, Reason.TOKEN_KEY_UNKNOWN),
        ({"alg": "RS256"}, True, Reason.TOKEN_KEY_UNKNOWN),
    ],
)
def test_a_signature_is_shown_to_the_key_of_its_name_alone(header: object, said: bool, expected: Reason | None) -> None:
    shown = []

    def verifies(data: bytes, signature: bytes) -> bool:
        shown.append((data, signature))
        return said

    key = jwt.Key("k", "RS256", "thumbprint", verifies)
    assert jwt.signature_refusal(read(header), {key.name: key}) is expected
    text = token(header)
    wanted = [] if expected is Reason.TOKEN_KEY_UNKNOWN else [(text.rpartition(".")[0].encode(), b"signature")]
    assert shown == wanted


@pytest.mark.parametrize("parts", [1, 2, 4, 5])
def test_a_token_has_three_parts(parts: int) -> None:
    part = token({"alg": "RS256"}).partition(".")[0]
    assert jwt.read(".".join([part] * parts)) is Reason.TOKEN_MALFORMED


@pytest.mark.parametrize("signature", [b"\0\0\x17", b"\0\0\x17\0", b"\0\0\x17\0\0", b"\xff\xff\xff", b""])
def test_a_part_may_end_in_any_letter(signature: bytes) -> None:
    found = jwt.read(token({"alg": "RS256"}, signature))  # the first ends in X
    assert isinstance(found, jwt.Unverified)
    assert found.signature == signature


@pytest.mark.parametrize("more", [b"", b"[", b"{", b"]"])
@pytest.mark.parametrize("shape", [b"[" * 498 + b"]" * 498, b"[" + b",".join([b"{}"] * 497) + b"]"], ids=["deep", "wide"])
def test_a_document_has_five_hundred_lists_and_objects_at_most(shape: bytes, more: bytes) -> None:
    """Whatever the release of Python reads: with 3.13 it is no depth at which reading would end by itself."""
    parts = b'{"x":' + shape + b',"y":"' + more + b'"}', b'{"x":' + shape + b',"y":["' + more + b'"]}'
    texts = [".".join(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in (b"{}", payload, b"")) for payload in parts]
    refused = [jwt.read(text) is Reason.TOKEN_MALFORMED for text in texts]

    assert refused == [False, more in (b"[", b"{")]


def test_no_part_of_a_token_is_in_its_representation() -> None:
    assert repr(read({"kid": "secret", "alg": "RS256"})) == "Unverified()"
    assert repr(Credential(Kind.ISSUED, "secret")) == "Credential(issued)"
