"""The keys that an issuer publishes (RFC 7517): which of them verify signatures, and why others do not."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache, partial
from types import MappingProxyType
from typing import Any

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from jwt import PyJWK
from jwt.exceptions import PyJWTError

from extauthz.core import claims
from extauthz.core.jwt import MAX_KEY_ID, Key, KeyName, KeySet

MIN_RSA_BITS, MAX_RSA_BITS = 2048, 8192
MIN_EXPONENT, MAX_EXPONENT = 65537, 2**256
"""The range of FIPS 186-5, A.1.1."""

MAX_SHOWN_ID = 80
MAX_LISTED = 10
"""Keys that are named in one line: an issuer may publish any number."""

KEY_TYPES: Mapping[str, tuple[str, str | None]] = MappingProxyType(
    {
        **dict.fromkeys(("RS256", "RS384", "RS512", "PS256"), ("RSA", None)),
        "ES256": ("EC", "P-256"),
        "ES384": ("EC", "P-384"),
        "EdDSA": ("OKP", "Ed25519"),
    }
)
"""The type of key, and its curve, that each algorithm takes (RFC 7518 3.1, RFC 8037 3.1)."""
_CURVES = {"P-256": "secp256r1", "P-384": "secp384r1"}
_THUMBPRINT_MEMBERS = {"RSA": ("e", "kty", "n"), "EC": ("crv", "kty", "x", "y"), "OKP": ("crv", "kty", "x")}
_P25519 = 2**255 - 19
# The y of all points of Ed25519 whose order divides 8, in every encoding: a signature for one of them fits many texts.
_SMALL_ORDERS = frozenset(
    {
        *(0, 1, _P25519 - 1, _P25519, _P25519 + 1),
        0x05FC536D880238B13933C6D305ACDFD5F098EFF289F4C345B027B2C28F95E826,
        0x7A03AC9277FDC74EC6CC392CFA53202A0F67100D760B3CBA4FD84D3D706A17C7,
    }
)
_PRIMES = tuple(number for number in range(3, 168) if all(number % divisor for divisor in range(2, number)))
# What the powers of 65537 are modulo each prime: the primes of a ROCA key are built of such a power (CVE-2017-15361).
_ROCA_RESIDUES = {prime: frozenset(pow(65537, power, prime) for power in range(prime - 1)) for prime in _PRIMES}
_FERMAT_STEPS = 16
"""The keys of CVE-2022-26320 need one."""


class KeyFlaw(StrEnum):
    """Why a published key is not used."""

    NO_KEY = "it is no JSON object"
    NO_ID = "its kid is missing or unusable"
    SECRET = "it holds a secret part"
    USE = "it is not for verifying signatures (use, key_ops)"
    ALGORITHM = "its kty and alg are none of this provider's"
    ALGORITHMS = "it names no alg, and several of this provider's algorithms fit it"
    MALFORMED = "it cannot be read"
    RSA_SIZE = "its RSA modulus has not 2048 to 8192 bits"
    EXPONENT = "its RSA exponent is even, below 65537, or too large"
    WEAK = "its RSA modulus has a structure that is known as weak (ROCA, close primes, small factors)"
    SMALL_ORDER = "its point is one of few that anybody can sign for (small order)"
    CURVE = "its curve is not that of the algorithm (P-256, P-384, Ed25519)"
    AMBIGUOUS = "another key of the same algorithm has the same kid"


@dataclass(frozen=True, slots=True)
class UnusedKey:
    """A published key that is not used; `id` is "" where there is no usable `kid`."""

    id: str
    flaw: KeyFlaw

    @property
    def is_usual(self) -> bool:
        """Return whether issuers publish such keys on purpose: for something else than our tokens."""
        return self.flaw in (KeyFlaw.USE, KeyFlaw.ALGORITHM, KeyFlaw.CURVE)

    def __str__(self) -> str:
        """Name the key, shortened and escaped because a stranger may have written it, and the cause."""
        name = repr(self.id[:MAX_SHOWN_ID]) if self.id else "a key without a kid"
        return f"{name}: {self.flaw}"


def usable_keys(
    document: object, algorithms: Iterable[str], *, unnamed: bool = False, uses: tuple[str, ...] = ("sig",)
) -> tuple[KeySet, tuple[UnusedKey, ...]]:
    """Take the usable keys of a JWKS document (RFC 7517 5), and say of the others why not; raise ValueError when it is not one.

    A key that stands there twice is one key. Keys of different algorithms may share a `kid` (RFC 7517 4.5); two keys of one
    algorithm that do are both left out, because a token could mean either. A key verifies one algorithm: the one that it names, or
    else the only one that fits it. With `unnamed` a key without a `kid` is used as well, by the name "". `uses` are
    what keys may be for.
    """
    if not isinstance(document, dict) or not isinstance(document.get("keys"), list):
        raise ValueError("not a JWKS document: it has no list 'keys'")
    if not document["keys"]:
        raise ValueError("the key set is empty")
    names = tuple(algorithms)
    usable: dict[KeyName, Key] = {}
    unused: dict[UnusedKey, None] = {}
    ambiguous: set[KeyName] = set()
    for jwk in document["keys"]:
        key = _key(jwk, names, unnamed=unnamed, uses=uses) if isinstance(jwk, dict) else UnusedKey("", KeyFlaw.NO_KEY)
        if isinstance(key, UnusedKey):
            unused[key] = None
        elif usable.setdefault(key.name, key) != key:
            ambiguous.add(key.name)
    for name in sorted(ambiguous):
        unused[UnusedKey(usable.pop(name).id, KeyFlaw.AMBIGUOUS)] = None
    return usable, tuple(unused)


def descriptions(unused: tuple[UnusedKey, ...]) -> list[str]:
    """Say of the first few keys why they are not used, and how many there are besides."""
    more = len(unused) - MAX_LISTED
    return [*map(str, unused[:MAX_LISTED]), *([f"and {more} more"] if more > 0 else [])]


@lru_cache(maxsize=256)  # the same keys are read again at every refresh
def is_weak(modulus: int) -> bool:
    """Return whether an RSA modulus has a small factor, close primes, or the structure of ROCA keys (CVE-2017-15361).

    The test for the last is its published fingerprint: modulo every small prime the modulus is a power of 65537.
    """
    residues = [(modulus % prime, prime) for prime in (2, *_PRIMES)]
    if any(residue == 0 for residue, _ in residues):
        return True
    return all(residue in _ROCA_RESIDUES[prime] for residue, prime in residues[1:]) or _has_close_primes(modulus)


def _has_close_primes(modulus: int) -> bool:
    """Look for the factors next to the square root, by Fermat's method (CVE-2022-26320)."""
    first = math.isqrt(modulus - 1) + 1
    rests = (middle * middle - modulus for middle in range(first, first + _FERMAT_STEPS))
    return any(math.isqrt(rest) ** 2 == rest for rest in rests)


def _key(jwk: dict[str, Any], algorithms: tuple[str, ...], *, unnamed: bool, uses: tuple[str, ...]) -> Key | UnusedKey:
    kid, algorithm = jwk.get("kid", "" if unnamed else None), jwk.get("alg")
    if not isinstance(kid, str) or len(kid) > MAX_KEY_ID or not (kid or unnamed):
        return UnusedKey("", KeyFlaw.NO_ID)
    if "d" in jwk or "k" in jwk:
        return UnusedKey(kid, KeyFlaw.SECRET)
    if jwk.get("use", "sig") not in uses or "verify" not in claims.strings(jwk.get("key_ops", "verify")):
        return UnusedKey(kid, KeyFlaw.USE)
    types = {name: KEY_TYPES[name] for name in algorithms if name in KEY_TYPES and algorithm in (None, name)}
    fits = [name for name, (key_type, curve) in types.items() if key_type == jwk.get("kty") and curve in (None, jwk.get("crv"))]
    if len(fits) != 1:
        is_of_type = any(key_type == jwk.get("kty") for key_type, _ in types.values())
        return UnusedKey(kid, KeyFlaw.ALGORITHMS if fits else KeyFlaw.CURVE if is_of_type else KeyFlaw.ALGORITHM)
    try:
        key = PyJWK(jwk, fits[0])
        flaw = _flaw(key.key, KEY_TYPES[fits[0]][1])
        return UnusedKey(kid, flaw) if flaw else Key(kid, fits[0], _thumbprint(key), partial(_verifies, key))
    except (PyJWTError, UnsupportedAlgorithm, ValueError, TypeError):
        return UnusedKey(kid, KeyFlaw.MALFORMED)


def _flaw(key: object, curve: str | None) -> KeyFlaw | None:
    match key:
        case RSAPublicKey(key_size=bits) if not MIN_RSA_BITS <= bits <= MAX_RSA_BITS:
            return KeyFlaw.RSA_SIZE
        case RSAPublicKey():
            numbers = key.public_numbers()
            if numbers.e % 2 == 0 or not MIN_EXPONENT <= numbers.e < MAX_EXPONENT:
                return KeyFlaw.EXPONENT
            return KeyFlaw.WEAK if is_weak(numbers.n) else None
        case EllipticCurvePublicKey():
            return None if curve is not None and key.curve.name == _CURVES.get(curve) else KeyFlaw.CURVE
        case Ed25519PublicKey():
            return KeyFlaw.SMALL_ORDER if _without_sign(key.public_bytes_raw()) in _SMALL_ORDERS else None
        case _:
            return KeyFlaw.MALFORMED


def _without_sign(point: bytes) -> int:
    return int.from_bytes(point, "little") & (2**255 - 1)


def _verifies(key: PyJWK, data: bytes, signature: bytes) -> bool:
    return key.Algorithm.verify(data, key.key, signature) is True


def _thumbprint(key: PyJWK) -> str:
    """Hash the members that make the key, written again from its numbers: no spelling of them makes another key."""
    jwk = key.Algorithm.to_jwk(key.key, as_dict=True)
    members = {name: jwk[name] for name in _THUMBPRINT_MEMBERS[jwk["kty"]]}
    return hashlib.sha256(json.dumps(members, separators=(",", ":"), sort_keys=True).encode()).hexdigest()
