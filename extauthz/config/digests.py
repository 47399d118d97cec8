"""One digest of several texts, such that no two lists of texts have the same."""

from __future__ import annotations

import hashlib


def digest(*parts: bytes) -> bytes:
    """Return SHA-256 over the SHA-256 of each part, 32 bytes: where a part ends belongs to what is hashed."""
    hasher = hashlib.sha256()
    for part in parts:
        hasher.update(hashlib.sha256(part).digest())
    return hasher.digest()
