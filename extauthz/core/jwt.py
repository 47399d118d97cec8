"""JWT access tokens (RFC 7519, RFC 8725, RFC 9068): read strictly, then verify.

Everything but the signature itself is checked here: PyJWT is asked about signatures only, because it takes an `exp` that is a
string, and raises outside its own family of errors for one that is infinite.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from jwt import PyJWK
from jwt.exceptions import PyJWTError

from extauthz.core import claims
from extauthz.core.model import Reason
from extauthz.core.providers import ProviderRules

MIN_RSA_BITS, MAX_RSA_BITS = 2048, 8192
MAX_KEY_ID = 256

_TYPES = frozenset({"jwt", "at+jwt", "application/at+jwt"})
_KEY_TYPES = {"RS256": "RSA", "ES256": "EC"}


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


@dataclass(frozen=True, slots=True)
class Key:
    """A public key that verifies one algorithm; `material` is the text of its JWK, by which keys are compared."""

    id: str
    algorithm: str
    material: str
    jwk: PyJWK = field(compare=False, repr=False)


KeySet = Mapping[str, Key]


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


def key_set(document: object, algorithms: Iterable[str]) -> KeySet:
    """Take the usable keys of a JWKS document (RFC 7517), by `kid`; raise ValueError when it is not one.

    Left out: keys for encryption, symmetric and private keys, RSA below 2048 bits, other curves than P-256, keys without `kid`,
    and every `kid` that names two different keys.
    """
    if not isinstance(document, dict) or not isinstance(document.get("keys"), list):
        raise ValueError("not a JWKS document: it has no list 'keys'")
    if not document["keys"]:
        raise ValueError("the key set is empty")
    usable: dict[str, Key] = {}
    ambiguous: set[str] = set()
    for jwk in document["keys"]:
        key = _key(jwk, algorithms) if isinstance(jwk, dict) else None
        if key is None:
            continue
        if key.id in usable:
            ambiguous.add(key.id)
        usable[key.id] = key
    return {key_id: key for key_id, key in usable.items() if key_id not in ambiguous}


def key_id(token: Unverified) -> str | None:
    """Return the unverified `kid`, for picking a key and for nothing else."""
    value = token.header.get("kid")
    return value if isinstance(value, str) and 0 < len(value) <= MAX_KEY_ID else None


def header_refusal(token: Unverified, rules: ProviderRules) -> Reason | None:
    """Refuse an algorithm that is not the provider's, another type of token, and extensions that change what is signed."""
    algorithm, kind = token.header.get("alg"), token.header.get("typ", "JWT")
    if not isinstance(algorithm, str) or algorithm not in rules.provider.algorithms:
        return Reason.TOKEN_ALGORITHM
    if not isinstance(kind, str) or kind.lower() not in _TYPES or not {"crit", "b64"}.isdisjoint(token.header):
        return Reason.TOKEN_HEADER_FORBIDDEN
    return None


def signature_refusal(token: Unverified, keys: KeySet) -> Reason | None:
    """Verify the signature with the key of its `kid`; TOKEN_KEY_UNKNOWN when the set has none."""
    wanted = key_id(token)
    key = keys.get(wanted) if wanted is not None else None
    if key is None:
        return Reason.TOKEN_KEY_UNKNOWN
    if key.algorithm != token.header["alg"]:
        return Reason.TOKEN_ALGORITHM
    good = key.jwk.Algorithm.verify(token.signing_input, key.jwk.key, token.signature)
    return None if good is True else Reason.TOKEN_SIGNATURE


def _key(jwk: dict[str, Any], algorithms: Iterable[str]) -> Key | None:
    kid, algorithm = jwk.get("kid"), jwk.get("alg")
    if not isinstance(kid, str) or not 0 < len(kid) <= MAX_KEY_ID or "d" in jwk or "k" in jwk:
        return None
    if jwk.get("use", "sig") != "sig" or "verify" not in claims.strings(jwk.get("key_ops", "verify")):
        return None
    fits = [name for name in algorithms if _KEY_TYPES.get(name) == jwk.get("kty") and algorithm in (None, name)]
    if len(fits) != 1:
        return None
    try:
        key = PyJWK(jwk, fits[0])
    except (PyJWTError, UnsupportedAlgorithm, ValueError, TypeError):
        return None
    match key.key:
        case RSAPublicKey(key_size=bits) if MIN_RSA_BITS <= bits <= MAX_RSA_BITS:
            pass
        case EllipticCurvePublicKey(curve=SECP256R1()):
            pass
        case _:
            return None
    return Key(kid, fits[0], json.dumps(jwk, sort_keys=True), key)


def _base64url(part: str) -> bytes:
    data = base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))
    if base64.urlsafe_b64encode(data).rstrip(b"=") != part.encode("ascii"):
        raise binascii.Error("not canonical base64url")
    return data


def _object(data: bytes) -> Mapping[str, Any]:
    document = json.loads(data.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_refuse_constant)
    if not isinstance(document, dict):
        raise ValueError("not a JSON object")
    return document


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("duplicate member")
    return members


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")
