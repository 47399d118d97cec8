"""The keys that a local issuer publishes and signs with."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from threading import RLock

import jwt
from cryptography.hazmat.primitives.asymmetric import rsa


@dataclass(frozen=True, slots=True)
class IssuerKey:
    """An RSA key with its id."""

    private: rsa.RSAPrivateKey
    kid: str

    @classmethod
    def generate(cls) -> IssuerKey:
        """Make a key, which takes a while."""
        return cls(rsa.generate_private_key(public_exponent=65537, key_size=2048), secrets.token_urlsafe(16))

    def published(self, more: Mapping[str, str]) -> dict[str, str]:
        """Return the public half as a JWK with more members; an empty one stands for the kid."""
        public = jwt.algorithms.RSAAlgorithm.to_jwk(self.private.public_key(), as_dict=True)
        members = {name: str(public[name]) for name in ("kty", "n", "e")}
        return members | {"kid": self.kid, "use": "sig"} | {name: value or self.kid for name, value in more.items()}


@dataclass(slots=True)
class KeyRing:
    """The published keys, oldest first, one of which signs; the first is made when it is needed."""

    _keys: list[IssuerKey] = field(default_factory=list)
    _signing: int = 0
    _lock: RLock = field(default_factory=RLock)

    def published(self) -> tuple[IssuerKey, ...]:
        """Return the keys that the sets hold."""
        with self._lock:
            if not self._keys:
                self._keys.append(IssuerKey.generate())
            return tuple(self._keys)

    def signing(self) -> IssuerKey:
        """Return the key that signs."""
        with self._lock:
            return self.published()[self._signing]

    def publish_next(self) -> None:
        """Add a key that does not sign yet."""
        with self._lock:
            self._keys = [*self.published(), IssuerKey.generate()]

    def use_next(self) -> None:
        """Sign with the newest key; one is added if the newest signs already."""
        with self._lock:
            if self.signing() is self.published()[-1]:
                self.publish_next()
            self._signing = len(self._keys) - 1

    def withdraw_old(self) -> None:
        """Keep only the key that signs."""
        with self._lock:
            self._keys, self._signing = [self.signing()], 0
