"""JWT access tokens (RFC 7519, RFC 8725, RFC 9068): read strictly, then verify.

Everything but the signature itself is checked here: PyJWT is asked about signatures only, because it takes an `exp` that is a
string, and raises outside its own family of errors for one that is infinite.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from jwt import PyJWK
from jwt.exceptions import PyJWTError

from extauthz.core.act_as import address
from extauthz.core.model import AuthType, Identity, Reason
from extauthz.core.providers import Provider, ProviderRules

MIN_RSA_BITS = 2048
MAX_RSA_BITS = 8192
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
        claims, fields = _object(payload), _object(header)
    except (ValueError, RecursionError):
        return Reason.TOKEN_MALFORMED
    return Unverified(fields, claims, text.rpartition(".")[0].encode("ascii"), signature)


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


def issuer(token: Unverified) -> str | None:
    """Return the unverified `iss`, for choosing the provider and for nothing else."""
    value = token.claims.get("iss")
    return value if isinstance(value, str) else None


def key_id(token: Unverified) -> str | None:
    """Return the unverified `kid`, for picking a key and for nothing else."""
    value = token.header.get("kid")
    return value if isinstance(value, str) and 0 < len(value) <= MAX_KEY_ID else None


def issued_at(token: Unverified) -> float:
    """Return the unverified `iat`, 0 without one."""
    return _time(token.claims.get("iat")) or 0.0


def precheck(token: Unverified, rules: ProviderRules, now: float) -> Reason | None:
    """Refuse what no signature could save: issuer, kind, client, expiry. Run before any work that costs."""
    if token.claims.get("iss") != rules.issuer or not _is_of_tenant(token.claims, rules):
        return Reason.TOKEN_ISSUER
    if _is_id_token(token.claims, rules.provider):
        return Reason.TOKEN_KIND_WRONG
    client = token.claims.get(rules.provider.client_claim)
    if not isinstance(client, str) or client not in rules.client_ids:
        return Reason.TOKEN_CLIENT
    expires_at = _time(token.claims.get("exp"))
    if expires_at is None:
        return Reason.TOKEN_CLAIMS_MALFORMED
    return Reason.TOKEN_EXPIRED if now >= expires_at else None


def verify(token: Unverified, keys: KeySet, rules: ProviderRules, now: float) -> Identity | Reason:
    """Verify a token of this provider; TOKEN_KEY_UNKNOWN when the key set has no key of its `kid`."""
    return (
        precheck(token, rules, now)
        or _header_refusal(token, rules)
        or _signature_refusal(token, keys)
        or time_refusal(token.claims, rules, now)
        or _claims_refusal(token.claims, rules)
        or _identity(token.claims, rules)
    )


def _header_refusal(token: Unverified, rules: ProviderRules) -> Reason | None:
    algorithm, kind = token.header.get("alg"), token.header.get("typ", "JWT")
    if not isinstance(algorithm, str) or algorithm not in rules.provider.algorithms:
        return Reason.TOKEN_ALGORITHM
    if not isinstance(kind, str) or kind.lower() not in _TYPES or not {"crit", "b64"}.isdisjoint(token.header):
        return Reason.TOKEN_HEADER_FORBIDDEN
    # A sender-constrained token is not a Bearer token (RFC 8705 3, RFC 9449 7).
    return Reason.TOKEN_HEADER_FORBIDDEN if "cnf" in token.claims else None


def _signature_refusal(token: Unverified, keys: KeySet) -> Reason | None:
    wanted = key_id(token)
    key = keys.get(wanted) if wanted is not None else None
    if key is None:
        return Reason.TOKEN_KEY_UNKNOWN
    if key.algorithm != token.header["alg"]:
        return Reason.TOKEN_ALGORITHM
    good = key.jwk.Algorithm.verify(token.signing_input, key.jwk.key, token.signature)
    return None if good is True else Reason.TOKEN_SIGNATURE


def time_refusal(claims: Mapping[str, Any], rules: ProviderRules, now: float) -> Reason | None:
    """Refuse a token that starts later than `now` plus the leeway (RFC 7519 4.1.5, 4.1.6)."""
    for name in ("nbf", "iat"):
        if name in claims:
            moment = _time(claims[name])
            if moment is None:
                return Reason.TOKEN_CLAIMS_MALFORMED
            if moment > now + rules.leeway:
                return Reason.TOKEN_NOT_YET_VALID
    return None


def _claims_refusal(claims: Mapping[str, Any], rules: ProviderRules) -> Reason | None:
    provider = rules.provider
    if not provider.user_token_claims.issubset(claims) or claims.get("sub") == claims[provider.client_claim]:
        return Reason.TOKEN_KIND_WRONG
    if any(claims.get(name) == value for name, value in provider.app_token_marks.items()):
        return Reason.TOKEN_KIND_WRONG
    if not any(_strings(claims.get(provider.scope_claim))):
        return Reason.TOKEN_KIND_WRONG
    if rules.audience.isdisjoint(_strings(claims.get("aud"))):
        return Reason.TOKEN_AUDIENCE
    home = claims.get(provider.home_claim) if provider.home_claim else None
    if home is not None and not rules.guests and not (isinstance(home, str) and rules.tenant in home.split("/")):
        return Reason.TOKEN_USER_NOT_ALLOWED
    verified = claims.get(provider.verified_claim, True) if provider.verified_claim else True
    return None if verified in (True, "1", "true") else Reason.TOKEN_USER_INVALID


def _is_of_tenant(claims: Mapping[str, Any], rules: ProviderRules) -> bool:
    provider = rules.provider
    fixed = all(claims.get(name) == value for name, value in provider.fixed_claims.items())
    return fixed and (not provider.tenant_claim or claims.get(provider.tenant_claim) == rules.tenant)


def _is_id_token(claims: Mapping[str, Any], provider: Provider) -> bool:
    token_id = claims.get("jti")
    by_name = bool(provider.id_token_jti) and isinstance(token_id, str) and token_id.startswith(provider.id_token_jti)
    return by_name or not provider.id_token_claims.isdisjoint(claims)


def _identity(claims: Mapping[str, Any], rules: ProviderRules) -> Identity | Reason:
    subject, user = claims.get("sub"), claims.get(rules.user_claim)
    user = address(user) if isinstance(user, str) else None
    if user is None:
        return Reason.TOKEN_USER_INVALID
    if not isinstance(subject, str) or not subject or not _encodable(subject):
        return Reason.TOKEN_CLAIMS_MALFORMED
    if rules.domains is not None and user.rpartition("@")[2] not in rules.domains:
        return Reason.TOKEN_USER_NOT_ALLOWED
    return Identity(
        auth_type=AuthType.OAUTH,
        actor=f"oauth:{rules.name}:{subject}",
        user=user,
        scopes=rules.scopes,
        expires_at=float(claims["exp"]),
        client_id=claims[rules.provider.client_claim],
    )


def _key(jwk: dict[str, Any], algorithms: Iterable[str]) -> Key | None:
    kid, algorithm = jwk.get("kid"), jwk.get("alg")
    if not isinstance(kid, str) or not 0 < len(kid) <= MAX_KEY_ID or "d" in jwk or "k" in jwk:
        return None
    if jwk.get("use", "sig") != "sig" or "verify" not in _strings(jwk.get("key_ops", "verify")):
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


def _time(value: object) -> float | None:
    if type(value) is int and abs(value) < 2**53:
        return float(value)
    return value if type(value) is float and math.isfinite(value) else None


def _strings(value: object) -> tuple[str, ...]:
    """Return the strings of a claim that is one string or a list of them; nothing when anything else is in it."""
    if isinstance(value, str):
        return (value,)
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return tuple(value)
    return ()


def _encodable(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
