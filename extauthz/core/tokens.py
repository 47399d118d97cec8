"""Issued tokens: text form, digest, and whether a stored record makes a token good.

The text is `<prefix>_<id>_<secret><checksum>`: 12 base62 characters of public id, 43 of a 256-bit secret, 6 of CRC32 over all that
stands before. The checksum is for scanners and for cheap refusals, not for security.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass

from extauthz.core.model import AuthType, Identity, Reason

ENTROPY_BYTES = 48

_ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_ID, _SECRET, _CHECKSUM = 12, 43, 6
_FORM = re.compile(rf"([a-z][a-z0-9]{{0,15}})_([0-9A-Za-z]{{{_ID}}})_[0-9A-Za-z]{{{_SECRET + _CHECKSUM}}}").fullmatch
_MAC_SIZE, _EXPIRY_SIZE = hashlib.sha256().digest_size, 8
_UNKNOWN_DIGEST = bytes(_MAC_SIZE + _EXPIRY_SIZE)


@dataclass(frozen=True, slots=True)
class TokenText:
    """The parts of an issued token; `text` is the whole of it, a secret."""

    id: str
    text: str

    def __repr__(self) -> str:
        """Show the public id alone."""
        return f"TokenText({self.id})"


@dataclass(frozen=True, slots=True)
class TokenRecord:
    """What the store keeps of an issued token. Times are whole seconds since the epoch."""

    id: str
    description: str
    permission: AuthType
    user: str | None
    scopes: frozenset[str]
    created_at: int
    created_by: str
    expires_at: int
    pepper_id: str
    digest: bytes
    revoked_at: int | None = None
    revoked_by: str | None = None


def mint(prefix: str, entropy: bytes) -> TokenText:
    """Write a new token from ENTROPY_BYTES random bytes: 16 for the id, 32 for the secret."""
    if len(entropy) != ENTROPY_BYTES:
        raise ValueError(f"{ENTROPY_BYTES} bytes of entropy are needed, not {len(entropy)}")
    token_id = random_id(entropy[:16])
    body = f"{prefix}_{token_id}_{_base62(int.from_bytes(entropy[16:]), _SECRET)}"
    return TokenText(token_id, body + _checksum(body))


def random_id(entropy: bytes) -> str:
    """Write a public id from 16 random bytes."""
    return _base62(int.from_bytes(entropy), _ID)


def parse(text: str, prefixes: frozenset[str]) -> TokenText | Reason:
    """Read a token's text: TOKEN_MALFORMED or TOKEN_CHECKSUM before anything is looked up."""
    form = _FORM(text)
    if form is None or form[1] not in prefixes:
        return Reason.TOKEN_MALFORMED
    if _checksum(text[:-_CHECKSUM]) != text[-_CHECKSUM:]:
        return Reason.TOKEN_CHECKSUM
    return TokenText(form[2], text)


def digest(
    text: str, pepper: bytes, *, permission: AuthType, user: str | None, scopes: frozenset[str], created_at: int, latest: int | None
) -> bytes:
    """HMAC-SHA256 over the token and its fixed fields, so that a row whose permission, user or scopes changed stops verifying.

    `latest` is the latest expiry that the token may ever have, covered too, and stands behind the HMAC in 8 bytes; None: left out.
    """
    fixed = [text, permission, user, sorted(scopes), created_at]
    if latest is None:
        return hmac.digest(pepper, json.dumps([1, *fixed]).encode(), "sha256")
    return hmac.digest(pepper, json.dumps([2, *fixed, latest]).encode(), "sha256") + latest.to_bytes(_EXPIRY_SIZE)


def latest_expiry(record: TokenRecord) -> int | None:
    """Return the latest expiry that the digest of a record covers, None for a digest that covers none."""
    return int.from_bytes(record.digest[_MAC_SIZE:]) if len(record.digest) == len(_UNKNOWN_DIGEST) else None


def fingerprint(pepper: bytes) -> str:
    """Name a pepper without telling it: 16 hex digits that the store keeps."""
    return hmac.digest(pepper, b"extauthz pepper fingerprint", "sha256").hex()[:16]


def verify(token: TokenText, record: TokenRecord | None, peppers: Mapping[str, bytes], now: float) -> Identity | Reason:
    """Compare a token with its stored record in constant time; an unknown id costs as much as a wrong secret."""
    if record is None:
        pepper = next(iter(peppers.values()), b"")
        dummy = digest(token.text, pepper, permission=AuthType.USER, user="", scopes=frozenset(), created_at=0, latest=0)
        hmac.compare_digest(dummy, _UNKNOWN_DIGEST)
        return Reason.TOKEN_UNKNOWN
    pepper = peppers.get(record.pepper_id, b"")
    latest = latest_expiry(record)
    fixed = {name: getattr(record, name) for name in ("permission", "user", "scopes", "created_at")}
    actual = digest(token.text, pepper, **fixed, latest=latest)
    if not hmac.compare_digest(actual, record.digest) or not pepper or (latest is not None and record.expires_at > latest):
        return Reason.TOKEN_SECRET_WRONG
    return usable(record, now) or Identity(
        auth_type=record.permission,
        actor=f"token:{record.id}",
        user=record.user,
        scopes=record.scopes,
        expires_at=record.expires_at,
        token_id=record.id,
    )


def usable(record: TokenRecord, now: float) -> Reason | None:
    """Tell why a record no longer counts, or None."""
    if record.revoked_at is not None:
        return Reason.TOKEN_REVOKED
    return Reason.TOKEN_EXPIRED if now >= record.expires_at else None


def _base62(number: int, length: int) -> str:
    return "".join(_ALPHABET[number // 62**place % 62] for place in reversed(range(length)))


def _checksum(body: str) -> str:
    return _base62(zlib.crc32(body.encode("ascii")), _CHECKSUM)
