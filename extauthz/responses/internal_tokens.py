"""Short-lived JWTs that tell an upstream who is calling (RFC 7519, RFC 8693 4.1), verified with a key set that is published.

A decision is made before anything is signed: only what was allowed with an identity gets a token. What a token says is its key in
memory, so one that is found there says what would be signed now.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import jwt
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePrivateKey, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key
from jwt.algorithms import ECAlgorithm, OKPAlgorithm

from extauthz.core.model import Decision, Identity, Reason, Request
from extauthz.ports import Clock, Codec, Header

_NOT_A_KEY = (
    "is not the PEM text of an unencrypted private key for ES256 (P-256) or EdDSA (Ed25519): "
    "make one with 'extauthz internal-token new-key'"
)


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A private key and its public JWK; the kind of key is the algorithm."""

    id: str
    algorithm: str
    private: EllipticCurvePrivateKey | Ed25519PrivateKey = field(repr=False, compare=False)
    public: Mapping[str, str] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Signed:
    """A token in its header; it is handed out from `since` until `until`, in seconds since the epoch."""

    header: Header = field(repr=False)
    since: float
    until: float


@dataclass(frozen=True, slots=True)
class Recipe:
    """What tokens are made of, besides whom they are about: equal recipes make equal tokens.

    `header` is where they stand, `lifetime` is in seconds, `capacity` is how many are remembered. The first of `keys` signs; all of
    them are published.
    """

    issuer: str
    header: str
    lifetime: float
    keys: tuple[SigningKey, ...]
    capacity: int


class InternalTokens:
    """Signs tokens and remembers them for half their life, the least recently used first to go.

    A token counts no longer than the credential that it was made for, which is part of its key: the tokens of another credential,
    also one of the same user, are others. `signed` counts the signatures, `key_set` is the JWKS document (RFC 7517 5) of the keys.
    """

    def __init__(self, recipe: Recipe, *, token_ids: Callable[[], str]) -> None:
        """Start empty; `token_ids` are unique and random."""
        self.recipe = recipe
        self.key_set = json.dumps({"keys": [dict(key.public) for key in recipe.keys]}).encode()
        self.signed = 0
        self._token_ids = token_ids
        self._entries: OrderedDict[object, Signed] = OrderedDict()

    @property
    def remembered(self) -> int:
        """How many tokens are in memory."""
        return len(self._entries)

    def header(self, identity: Identity, user: str | None, audience: str, now: float) -> Header:
        """Return the header with a token for this audience; `user` is the effective one, `now` is in seconds since the epoch."""
        key = (
            identity.actor,
            user,
            identity.auth_type,
            identity.scopes,
            identity.client_id,
            identity.expires_at,
            audience,
        )
        entry = self._entries.get(key)
        if entry is not None and entry.since <= now < entry.until:
            self._entries.move_to_end(key)
            return entry.header
        ends = min(now + self.recipe.lifetime, identity.expires_at)
        # Whole seconds, which every verifier reads, unless the token would end before it begins.
        ends = int(ends) if int(ends) > now else ends
        token = Signed((self.recipe.header, self._sign(identity, user, audience, now, ends)), now, now + (ends - now) / 2)
        self._make_room(now)
        self._entries[key] = token
        self._entries.move_to_end(key)
        return token.header

    def _sign(self, identity: Identity, user: str | None, audience: str, now: float, ends: float) -> str:
        claims: dict[str, object] = {
            "iss": self.recipe.issuer,
            "aud": audience,
            "sub": identity.actor if user is None else user,
            "scope": " ".join(sorted(identity.scopes)),
            "auth_type": identity.auth_type.value,
            "iat": int(now),
            "nbf": int(now),
            "exp": ends,
            "jti": self._token_ids(),
        }
        if user is not None:
            claims["act"] = {"sub": identity.actor}
        if identity.client_id is not None:
            claims["client_id"] = identity.client_id
        key = self.recipe.keys[0]
        self.signed += 1
        return jwt.encode(claims, key.private, algorithm=key.algorithm, headers={"kid": key.id})

    def _make_room(self, now: float) -> None:
        """Forget what is not used any more: tokens past their half at the old end, and one where the limit is reached."""
        while self._entries:
            oldest = next(iter(self._entries.values()))
            if now < oldest.until and len(self._entries) < self.recipe.capacity:
                return
            self._entries.popitem(last=False)


class SigningCodec:
    """A codec whose allows carry an internal token, where there is an identity to tell; everything else goes on as it is."""

    def __init__(self, codec: Codec, tokens: InternalTokens, *, audience: str, audiences: Mapping[str, str], clock: Clock) -> None:
        """Take the codec of the protocol; `audiences` are those of routes, by name, `audience` that of all others."""
        self.read = codec.read
        self.fixed = codec.fixed
        self._write = codec.write
        self._tokens = tokens
        self._audience = audience
        self._audiences = audiences
        self._clock = clock

    def write(self, request: Request, decision: Decision, header: Header | None = None) -> bytes:
        """Return the answer; only a request that was allowed, not merely let pass, has a token."""
        identity = decision.identity
        if decision.reason is Reason.ALLOWED and identity is not None:
            audience = self._audiences.get(decision.route or "", self._audience)
            header = self._tokens.header(identity, decision.user, audience, self._clock.now())
        return self._write(request, decision, header)


def signing_key(key_id: str, pem: bytes) -> SigningKey:
    """Read a private key; raises ValueError with a hint, and with nothing of the key."""
    try:
        private = load_pem_private_key(pem, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise ValueError(_NOT_A_KEY) from None
    match private:
        case EllipticCurvePrivateKey(curve=SECP256R1()):
            algorithm, public = "ES256", ECAlgorithm.to_jwk(private.public_key(), as_dict=True)
        case Ed25519PrivateKey():
            algorithm, public = "EdDSA", OKPAlgorithm.to_jwk(private.public_key(), as_dict=True)
        case _:
            raise ValueError(_NOT_A_KEY)
    return SigningKey(key_id, algorithm, private, public | {"kid": key_id, "use": "sig", "alg": algorithm})


def new_key(algorithm: str) -> bytes:
    """Make a private key for one of ALGORITHMS; its PEM text, PKCS 8, not encrypted."""
    key = generate_private_key(SECP256R1()) if algorithm == "ES256" else Ed25519PrivateKey.generate()
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
