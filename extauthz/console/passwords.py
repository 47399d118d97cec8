"""Passwords of the console's own accounts (argon2id, RFC 9106); one is hashed at a time, so that nobody can fill the memory."""

from __future__ import annotations

import anyio
import argon2
from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

_HASHER = PasswordHasher(time_cost=2, memory_cost=19 * 1024, parallelism=1)
MAX_MEMORY, MAX_TIME, MAX_PARALLELISM = 256 * 1024, 16, 8
"""What a stored hash may ask for, memory in KiB: a row with more would stop the console."""
NOBODY = _HASHER.hash("nobody has this password")
"""What the password of an unknown account is compared with, so that it takes as long."""


def hashed(password: str) -> str:
    """Return the hash that is stored of a password, after 24 ms."""
    return _HASHER.hash(password)


def is_right(password: str, stored: str) -> bool:
    """Tell whether a hash was made of this password; a hash that is none, or costs too much, is of no password."""
    try:
        parameters = argon2.extract_parameters(stored)
        if parameters.memory_cost > MAX_MEMORY or parameters.time_cost > MAX_TIME or parameters.parallelism > MAX_PARALLELISM:
            return False
        return _HASHER.verify(stored, password)
    except (VerificationError, InvalidHashError, ValueError):
        return False


def is_outdated(stored: str) -> bool:
    """Tell whether a hash was made with other costs than those of now."""
    return _HASHER.check_needs_rehash(stored)


class Hashing:
    """Hashes in a thread, one password at a time."""

    def __init__(self) -> None:
        """Begin with nothing under way."""
        self._limiter = anyio.CapacityLimiter(1)

    async def hashed(self, password: str) -> str:
        """Return the hash of a password."""
        return await anyio.to_thread.run_sync(hashed, password, limiter=self._limiter)

    async def is_right(self, password: str, stored: str) -> bool:
        """Tell whether a hash was made of this password."""
        return await anyio.to_thread.run_sync(is_right, password, stored, limiter=self._limiter)
