"""What a browser keeps of a login by a provider until it comes back: a seed, and what the login was begun for."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import re
import secrets
from dataclasses import dataclass

COOKIE = "__Host-login"
"""Where the browser keeps `Begun.cookie`: HttpOnly, Secure, SameSite=Lax, Path=/; deleted when it comes back."""
LIFETIME = 600
"""Seconds from the beginning of a login to its end."""
MAX_PATH = 1024
"""Characters."""

_COOKIE = re.compile(r"(?P<seed>[A-Za-z0-9_-]{43})\.(?P<begun_at>[0-9]{1,12})\.(?P<again>[01])\.(?P<path>[A-Za-z0-9_-]{1,1400})")
_LOCAL = re.compile(rf"/[!-~]{{0,{MAX_PATH - 1}}}")
_LEADS_AWAY = re.compile(r"//|\\|\.\.")


def local_path(text: str) -> str:
    """Return a path of this site, with its query; "/" for whatever might lead elsewhere."""
    return text if _LOCAL.fullmatch(text) and not _LEADS_AWAY.search(text) else "/"


@dataclass(frozen=True, slots=True)
class PendingLogin:
    """A login that was begun in a browser; as text it is what the cookie holds.

    With `again` the provider was asked for a new login; afterwards the browser goes on at `path`.
    """

    seed: bytes
    begun_at: int
    again: bool
    path: str

    def __str__(self) -> str:
        return f"{_encoded(self.seed)}.{self._rest}"

    @property
    def _rest(self) -> str:
        return f"{self.begun_at}.{int(self.again)}.{_encoded(self.path.encode())}"

    @classmethod
    def begin(cls, path: str, now: int, *, again: bool) -> PendingLogin:
        """Begin one that goes on at a path, if that is one of ours."""
        return cls(secrets.token_bytes(32), now, again, local_path(path))

    @classmethod
    def read(cls, cookie: str) -> PendingLogin | None:
        """Return the login that a cookie holds, None for anything else."""
        found = _COOKIE.fullmatch(cookie)
        if found is None:
            return None
        with contextlib.suppress(ValueError):
            path = local_path(_decoded(found["path"]).decode("ascii"))
            return cls(_decoded(found["seed"]), int(found["begun_at"]), found["again"] == "1", path)
        return None

    def derived(self, label: str) -> str:
        """Return 43 characters that only this login has."""
        return _encoded(hmac.digest(self.seed, f"{label}\0{self._rest}".encode(), "sha256"))

    @property
    def challenge(self) -> str:
        """The code challenge of the `verifier` that is derived (RFC 7636 4.2)."""
        return _encoded(hashlib.sha256(self.derived("verifier").encode()).digest())


def _encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


def _decoded(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
