"""JWT access tokens (RFC 7519, RFC 8725, RFC 9068): read strictly, then verify.

Everything but the signature itself is checked here: PyJWT, behind `Key.verifies`, is asked about signatures only, because it takes
an `exp` that is a string, and raises outside its own family of errors for one that is infinite.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from extauthz.core.model import Reason
from extauthz.core.providers import ProviderRules

MAX_KEY_ID, MAX_BRACKETS = 256, 500  # how deep json reads depends on the release of Python


@dataclass(frozen=True, slots=True)
class Unverified:
    """A well-formed JWT that nobody has verified: its claims are the claims of a stranger."""

    header: Mapping[str, Any]
    claims: Mapping[str, Any]
    signing_input: bytes
    signature: bytes

    def __repr__(self) -> str:
        """Show nothing of the token."""
        return "Unverified()"


KeyName = tuple[str, str]
"""The `kid` and the algorithm of a key: what a token names it by."""


@dataclass(frozen=True, slots=True)
class Key:
    """A public key that verifies one algorithm; `verifies` takes what was signed, and the signature.

    Keys are compared by `thumbprint` (RFC 7638), which is that of the key itself, whatever else is published with it.
    """

    id: str
    algorithm: str
    thumbprint: str
    verifies: Callable[[bytes, bytes], bool] = field(compare=False, repr=False)

    @property
    def name(self) -> KeyName:
        """What a token names it by."""
        return self.id, self.algorithm


KeySet = Mapping[KeyName, Key]


def read(text: str) -> Unverified | Reason:
    """Split a compact JWS into its parts, each of them unpadded base64url that re-encodes to itself (RFC 7515 2, 5.2)."""
    parts = text.split(".")
    if len(parts) != 3:
        return Reason.TOKEN_MALFORMED
    try:
        header, payload, signature = map(_base64url, parts)
        fields, members = _object(header), _object(payload)
    except (ValueError, RecursionError):
        return Reason.TOKEN_MALFORMED
    return Unverified(fields, members, text.rpartition(".")[0].encode("ascii"), signature)


def key_name(token: Unverified) -> KeyName | None:
    """Return the unverified `kid` and `alg`, for picking a key and for nothing else."""
    kid, algorithm = token.header.get("kid"), token.header.get("alg")
    if isinstance(kid, str) and 0 < len(kid) <= MAX_KEY_ID and isinstance(algorithm, str):
        return kid, algorithm
    return None


def header_refusal(token: Unverified, rules: ProviderRules) -> Reason | None:
    """Refuse an algorithm that is not the provider's, another type of token, and extensions that change what is signed."""
    algorithm, kind = token.header.get("alg"), token.header.get("typ", "JWT")
    if not isinstance(algorithm, str) or algorithm not in rules.provider.algorithms:
        return Reason.TOKEN_ALGORITHM
    if not isinstance(kind, str) or kind.lower() not in rules.provider.header_types or not {"crit", "b64"}.isdisjoint(token.header):
        return Reason.TOKEN_HEADER_FORBIDDEN
    return None


def signature_refusal(token: Unverified, keys: KeySet) -> Reason | None:
    """Verify the signature with the key of its `kid` and `alg`; TOKEN_KEY_UNKNOWN when the set has none."""
    name = key_name(token)
    key = keys.get(name) if name is not None else None
    if key is None:
        return Reason.TOKEN_KEY_UNKNOWN
    return None if key.verifies(token.signing_input, token.signature) is True else Reason.TOKEN_SIGNATURE


def _base64url(part: str) -> bytes:
    data = base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))
    if base64.urlsafe_b64encode(data).rstrip(b"=") != part.encode("ascii"):
        raise binascii.Error("not canonical base64url")
    return data


def _object(data: bytes) -> Mapping[str, Any]:
    document = _DECODER.decode(data.decode("utf-8"))
    if not isinstance(document, dict) or data.count(b"[") + data.count(b"{") > MAX_BRACKETS:
        raise ValueError("not a JSON object, or one of too many lists and objects")
    return document


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("duplicate member")
    return members


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


_DECODER = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_refuse_constant)
