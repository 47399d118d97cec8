"""Keys themselves: what makes two of them one, and which of them anybody could break."""

from __future__ import annotations

import base64
import hashlib
import math
from functools import cache
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519
from hypothesis import given
from hypothesis import strategies as st

from extauthz.adapters.oauth.published_keys import _SMALL_ORDERS, KEY_TYPES, KeyFlaw, UnusedKey, is_weak, usable_keys
from tests.support.world import base64url, ec_key, public_jwk, rsa_key

PRIMES = tuple(number for number in range(2, 702) if all(number % divisor for divisor in range(2, math.isqrt(number) + 1)))


def is_prime(number: int) -> bool:
    """Tell by Fermat's test, which is enough for numbers that nobody chose to deceive it."""
    return all(number % prime for prime in PRIMES) and all(pow(base, number - 1, number) == 1 for base in (2, 3, 5, 7))


@cache
def found(start: int, step: int) -> int:
    """Return the first prime of a sequence."""
    number = start
    while not is_prime(number):
        number += step
    return number


def drawn(seed: str, bits: int) -> int:
    """Return a number of so many bits, the same in every run, whose two highest bits are set: products have the full length."""
    return int.from_bytes(hashlib.shake_256(seed.encode()).digest(bits // 8)) | 3 << bits - 2


def roca_prime(seed: str, bits: int, primes: int) -> int:
    """Return a prime k * M + (65537^a mod M), where M is the product of the first primes: the structure of CVE-2017-15361."""
    product = math.prod(PRIMES[:primes])
    residue = pow(65537, drawn(seed, 64), product)
    start = drawn(seed, bits)
    return found(start - start % product + residue, product)


def published(modulus: int) -> dict[str, Any]:
    """Return a JWK with this modulus."""
    return public_jwk(rsa_key(), "k") | {"n": base64url(modulus.to_bytes((modulus.bit_length() + 7) // 8))}


@pytest.mark.parametrize(
    ("bits", "flaws"), [(2047, [KeyFlaw.RSA_SIZE]), (2048, []), (4097, []), (8191, []), (8192, []), (8193, [KeyFlaw.RSA_SIZE])]
)
def test_an_rsa_key_has_from_2048_to_8192_bits(bits: int, flaws: list[KeyFlaw]) -> None:
    """Larger ones cost more for each signature than strangers may cause, smaller ones can be broken."""
    modulus = drawn("size", 8208) >> (8208 - bits) | 1
    while is_weak(modulus):
        modulus += 2
    assert modulus.bit_length() == bits
    usable, left_out = usable_keys({"keys": [published(modulus)]}, ["RS256"])

    assert [one.flaw for one in left_out] == flaws
    assert len(usable) == 1 - len(flaws)


def test_a_key_of_the_roca_structure_is_left_out() -> None:
    """M is the product of 126 primes in keys of 2048 bits; of larger keys it is a multiple of this one."""
    modulus = roca_prime("p", 1024, 126) * roca_prime("q", 1024, 126)

    assert usable_keys({"keys": [published(modulus)]}, ["RS256"]) == ({}, (UnusedKey("k", KeyFlaw.WEAK),))


@pytest.mark.parametrize("distance", [2, 2**500], ids=["neighbours", "half the bits"])
def test_a_key_of_close_primes_is_left_out(distance: int) -> None:
    first = found(drawn("p", 1024) | 1, 2)
    modulus = first * found(first + distance, 2)

    assert usable_keys({"keys": [published(modulus)]}, ["RS256"]) == ({}, (UnusedKey("k", KeyFlaw.WEAK),))


def test_a_square_is_left_out() -> None:
    assert is_weak(found(drawn("p", 1024) | 1, 2) ** 2)


def test_ordinary_keys_pass() -> None:
    keys = [rsa_key(f"ordinary-{number}", 1024) for number in range(40)] + [rsa_key(), rsa_key("rsa-2")]
    moduli = [key.public_key().public_numbers().n for key in keys]

    assert [modulus for modulus in moduli if is_weak(modulus)] == []


@given(st.integers(2**2040, 2**2048))
def test_of_other_numbers_only_a_small_factor_is_noticed(number: int) -> None:
    """The fingerprint has a chance of less than one in a hundred millions to fit a number that nobody built."""
    assert is_weak(number) == any(number % prime == 0 for prime in PRIMES if prime < 168)


def test_one_prime_of_the_structure_alone_is_no_fingerprint() -> None:
    assert not is_weak(roca_prime("p", 1024, 126) * rsa_key().private_numbers().p)


# The example of RFC 7638 3.1.
RFC_7638 = {
    "kty": "RSA",
    "n": "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMstn64t"
    "Z_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbI"
    "SD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw",
    "e": "AQAB",
    "alg": "RS256",
    "kid": "2011-04-29",
}


def test_a_thumbprint_is_that_of_the_standard() -> None:
    (key,) = usable_keys({"keys": [RFC_7638]}, ["RS256"])[0].values()

    assert base64url(bytes.fromhex(key.thumbprint)) == "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs"


def test_keys_are_equal_when_the_keys_themselves_are() -> None:
    (one,) = usable_keys({"keys": [public_jwk(ec_key(), "k")]}, ["ES256"])[0].values()
    (same,) = usable_keys({"keys": [public_jwk(ec_key(), "k") | {"x5t": "x"}]}, ["ES256"])[0].values()
    (other,) = usable_keys({"keys": [public_jwk(ec_key("other"), "k")]}, ["ES256"])[0].values()

    assert one == same
    assert one != other


def test_a_key_without_a_name_is_used_only_by_whoever_asks_for_it() -> None:
    """An access token must name its key; a provider of logins may have one key, and no name for it."""
    first, second = ({name: value for name, value in public_jwk(rsa_key(seed), "").items() if name != "kid"} for seed in ("a", "b"))

    assert usable_keys({"keys": [first]}, ["RS256"]) == ({}, (UnusedKey("", KeyFlaw.NO_ID),))
    assert list(usable_keys({"keys": [first]}, ["RS256"], unnamed=True)[0]) == [("", "RS256")]
    assert list(usable_keys({"keys": [first | {"kid": "k"}]}, ["RS256"], unnamed=True)[0]) == [("k", "RS256")]
    assert usable_keys({"keys": [first, second]}, ["RS256"], unnamed=True) == ({}, (UnusedKey("", KeyFlaw.AMBIGUOUS),))
    for kid in (None, 1, "k" * 257):
        assert usable_keys({"keys": [first | {"kid": kid}]}, ["RS256"], unnamed=True) == ({}, (UnusedKey("", KeyFlaw.NO_ID),))


# --- algorithms and types of keys

SIGNERS: dict[str, Any] = {
    **dict.fromkeys(("RS256", "RS384", "RS512", "PS256"), rsa_key),
    "ES256": ec_key,
    "ES384": lambda: P384,
    "EdDSA": lambda: ED25519,
}
P384, ED25519, ED448 = (
    ec.generate_private_key(ec.SECP384R1()),
    ed25519.Ed25519PrivateKey.generate(),
    ed448.Ed448PrivateKey.generate(),
)
TEXT = b"header.payload"


def of_type(algorithm: str, **more: object) -> dict[str, object]:
    """Return the JWK of a key for an algorithm, which it does not name."""
    kind = jwt.get_algorithm_by_name(algorithm)
    return {**kind.to_jwk(SIGNERS[algorithm]().public_key(), as_dict=True), "kid": "k", **more}


def signed(algorithm: str) -> bytes:
    return jwt.get_algorithm_by_name(algorithm).sign(TEXT, SIGNERS[algorithm]())


@pytest.mark.parametrize("algorithm", KEY_TYPES)
def test_each_algorithm_verifies_its_own_signatures(algorithm: str) -> None:
    usable, unused = usable_keys({"keys": [of_type(algorithm)]}, [algorithm])
    assert (list(usable), unused) == ([("k", algorithm)], ())
    verifies = usable["k", algorithm].verifies
    assert verifies(TEXT, signed(algorithm))
    assert not verifies(TEXT + b"x", signed(algorithm))
    assert not verifies(TEXT, b"")


@pytest.mark.parametrize("other", KEY_TYPES)
@pytest.mark.parametrize("algorithm", KEY_TYPES)
def test_a_key_that_names_its_algorithm_is_used_for_no_other(algorithm: str, other: str) -> None:
    """A token names a key by `kid` and algorithm: under the name of another algorithm there is none."""
    usable, _ = usable_keys({"keys": [of_type(algorithm, alg=algorithm)]}, list(KEY_TYPES))
    assert list(usable) == [("k", algorithm)]
    assert usable["k", algorithm].verifies(TEXT, signed(other)) == (other == algorithm)


@pytest.mark.parametrize(
    ("algorithm", "listed", "flaw"),
    [
        ("RS256", ["RS256", "PS256"], KeyFlaw.ALGORITHMS),
        ("RS256", ["RS256", "RS512", "ES256"], KeyFlaw.ALGORITHMS),
        ("ES256", ["ES384", "RS256"], KeyFlaw.CURVE),
        ("ES384", ["ES256"], KeyFlaw.CURVE),
        ("ES256", ["EdDSA"], KeyFlaw.ALGORITHM),
        ("EdDSA", ["ES256", "RS256"], KeyFlaw.ALGORITHM),
        ("RS256", ["ES256", "EdDSA"], KeyFlaw.ALGORITHM),
        ("RS256", ["HS256", "none"], KeyFlaw.ALGORITHM),
    ],
)
def test_a_key_that_fits_none_or_several_algorithms_is_left_out(algorithm: str, listed: list[str], flaw: KeyFlaw) -> None:
    assert usable_keys({"keys": [of_type(algorithm)]}, listed) == ({}, (UnusedKey("k", flaw),))


@pytest.mark.parametrize("algorithm", ["ES256", "ES384"])
def test_the_curve_tells_the_algorithm_of_a_key_without_one(algorithm: str) -> None:
    usable, _ = usable_keys({"keys": [of_type(algorithm)]}, ["RS256", "ES256", "ES384", "EdDSA"])
    assert list(usable) == [("k", algorithm)]


@pytest.mark.parametrize(
    ("change", "flaw"),
    [
        ({"alg": "EdDSA"}, KeyFlaw.ALGORITHM),
        ({"crv": "P-384"}, KeyFlaw.CURVE),
        ({"crv": "Ed25519"}, KeyFlaw.CURVE),
        ({"crv": None}, KeyFlaw.CURVE),
        ({"crv": ["P-256"]}, KeyFlaw.CURVE),
        ({"kty": "OKP"}, KeyFlaw.ALGORITHM),
        ({"kty": ["EC"]}, KeyFlaw.ALGORITHM),
    ],
    ids=str,
)
def test_an_elliptic_key_that_says_something_else_is_left_out(change: dict[str, object], flaw: KeyFlaw) -> None:
    assert usable_keys({"keys": [of_type("ES256", **change)]}, ["ES256"]) == ({}, (UnusedKey("k", flaw),))


def test_ed448_is_no_key_for_eddsa_here() -> None:
    jwk = jwt.algorithms.OKPAlgorithm.to_jwk(ED448.public_key(), as_dict=True) | {"kid": "k"}
    assert usable_keys({"keys": [jwk]}, ["EdDSA"]) == ({}, (UnusedKey("k", KeyFlaw.CURVE),))


@pytest.mark.parametrize("sign", [0, 2**255])
@pytest.mark.parametrize("point", sorted(_SMALL_ORDERS))
def test_a_point_that_anybody_can_sign_for_is_left_out(point: int, sign: int) -> None:
    x = base64.urlsafe_b64encode((point | sign).to_bytes(32, "little")).rstrip(b"=").decode()
    usable, unused = usable_keys({"keys": [{"kty": "OKP", "crv": "Ed25519", "kid": "k", "x": x}]}, ["EdDSA"])
    assert (usable, [one.flaw for one in unused]) == ({}, [KeyFlaw.SMALL_ORDER])


def test_the_points_of_small_order_are_those_of_order_eight_and_less() -> None:
    """Eight times each is the neutral point; the doubling is that of RFC 8032 5.1.4 in affine coordinates."""
    prime = 2**255 - 19
    curve = -121665 * pow(121666, -1, prime) % prime

    def doubled(x: int, y: int) -> tuple[int, int]:
        both = curve * x * x * y * y % prime
        return 2 * x * y * pow(1 + both, -1, prime) % prime, (y * y + x * x) * pow(1 - both, -1, prime) % prime

    def x_of(y: int) -> int:
        square = (y * y - 1) * pow(curve * y * y + 1, -1, prime) % prime
        root = pow(square, (prime + 3) // 8, prime)
        return root if root * root % prime == square else root * pow(2, (prime - 1) // 4, prime) % prime

    points = [(x_of(y), y) for y in sorted({point % prime for point in _SMALL_ORDERS})]
    assert [doubled(*doubled(*doubled(*point))) for point in points] == [(0, 1)] * 5


def test_keys_of_a_trust_bundle_are_those_for_tokens() -> None:
    """SPIFFE bundle 4.2.2: x509-svid is for certificates."""
    keys = [of_type("ES256", kid="jwt", use="jwt-svid"), of_type("RS256", kid="x509", use="x509-svid"), of_type("RS256", kid="sig")]
    usable, unused = usable_keys({"keys": keys}, ["RS256", "ES256"], uses=("sig", "jwt-svid"))
    assert (list(usable), unused) == ([("jwt", "ES256"), ("sig", "RS256")], (UnusedKey("x509", KeyFlaw.USE),))
