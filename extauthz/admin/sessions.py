"""Sessions of people in the console: begin, go on, list and end them. The secret of one is in its cookie alone."""

from __future__ import annotations

import hashlib
import hmac
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from extauthz.adapters.store import sessions
from extauthz.adapters.store.sessions import StoredAccount, StoredSession
from extauthz.admin.administration import Administration
from extauthz.admin.outcomes import Refused
from extauthz.admin.rights import Actor, Operation, forbidden
from extauthz.admin.tokens import Entropy
from extauthz.core.tokens import random_id

SECRET_BYTES = 32
SEEN = 60
"""Seconds: `seen_at` is written no more often."""
RECENT = 600
"""Seconds after a login in which what needs a recent one is allowed."""
MAX_LISTED = 1000
MAX_COUNTED = 10_000
"""Sessions that are counted at most."""
IS_OVER = Refused.because("login", "your session or your account was changed while you logged in")

_SUBJECT = b"extauthz console session of a subject"
_SECRET = re.compile(r"[0-9a-f]{64}").fullmatch


@dataclass(frozen=True, slots=True)
class SessionLimits:
    """How long a session lasts, in seconds: without a request, and in all."""

    idle: float
    lifetime: float


@dataclass(frozen=True, slots=True)
class NewSession:
    """A session that just began, and its secret for the cookie."""

    session: StoredSession
    secret: str = field(repr=False)


def begin(
    administration: Administration,
    actor: Actor,
    at: int,
    *,
    method: str,
    address: str,
    limits: SessionLimits,
    issuer: str = "",
    subject: str = "",
    account: StoredAccount | None = None,
    authenticated_at: int | None = None,
    before: StoredSession | None = None,
    reauthentication: str = "",
    entropy: Entropy = os.urandom,
) -> NewSession | Refused:
    """Begin a session of somebody who was authenticated at a time, just now for None: as a subject of an issuer, or by an account.

    It replaces the one `before`, and ends when that one would have. Refused is whose account was changed or removed since its
    password was looked at, or whose session has ended. The audit says which `reauthentication` it was, if any.
    """
    secret = entropy(SECRET_BYTES).hex()
    pepper_id, pepper = next(iter(administration.unlocked(at, to_revoke=True).items()))
    session = StoredSession(
        id=_id(pepper, _digest(secret), issuer, subject) if subject else random_id(entropy(16)),
        email=actor.name,
        method=method,
        issuer=issuer,
        address=address,
        created_at=before.created_at if before is not None else at,
        seen_at=at,
        authenticated_at=at if authenticated_at is None else min(authenticated_at, at),
        digest=_digest(secret),
    )
    session = sessions.with_mac(session, pepper_id, pepper)
    has_begun = sessions.add(
        administration.store,
        session,
        actor.change(at),
        oldest=at - int(limits.lifetime),
        instead_of=before.id if before is not None else "",
        password_hash=account.password_hash if account is not None else None,
        reauthentication=reauthentication,
    )
    return NewSession(session, secret) if has_begun else IS_OVER


def resume(
    administration: Administration, secret: str, at: int, *, limits: SessionLimits, is_seen: bool = True
) -> StoredSession | None:
    """Return the session of a secret while it lasts, and note that it was seen, unless nobody looked."""
    if not _SECRET(secret):
        return None
    session = sessions.by_digest(administration.store, _digest(secret))
    if session is None or not is_valid(session, administration.read_peppers(), at, limits):
        return None
    if is_seen and at - session.seen_at >= SEEN:
        sessions.touch(administration.store, session.id, at)
        return replace(session, seen_at=at)
    return session


def is_alive(session: StoredSession, at: int, limits: SessionLimits) -> bool:
    """Tell whether a session still lasts."""
    return at - session.seen_at < limits.idle and at - session.created_at < limits.lifetime


def is_recent(session: StoredSession, at: int) -> bool:
    """Tell whether somebody logged in recently enough for what needs that."""
    return at - session.authenticated_at < RECENT


def is_of(administration: Administration, session: StoredSession, subject: str) -> bool:
    """Tell whether a session is that of a subject of its issuer; an earlier release did not note whose one is."""
    pepper = administration.read_peppers().get(session.pepper_id)
    if pepper is None or not subject:
        return False
    return hmac.compare_digest(_id(pepper, session.digest, session.issuer, subject), session.id)


def leave(administration: Administration, actor: Actor, session: StoredSession, at: int) -> None:
    """End one's own session."""
    administration.unlocked(at, to_revoke=True)
    sessions.end(administration.store, session.id, actor.change(at))


def list_sessions(
    administration: Administration, actor: Actor, at: int, *, limits: SessionLimits
) -> tuple[StoredSession, ...] | Refused:
    """Return the sessions that last, the newest first."""
    if refused := forbidden(actor, Operation.SESSIONS):
        return refused
    return _lasting(administration, at, limits, MAX_LISTED)


def count(administration: Administration, at: int, *, limits: SessionLimits) -> int:
    """Return how many sessions last, of those that were written with a pepper. Raises StoreError and ConfigurationError."""
    return len(_lasting(administration, at, limits, MAX_COUNTED))


def end(administration: Administration, actor: Actor, session_id: str, at: int) -> StoredSession | Refused:
    """End a session of anybody."""
    if refused := forbidden(actor, Operation.SESSIONS):
        return refused
    administration.unlocked(at, to_revoke=True)
    ended = sessions.end(administration.store, session_id, actor.change(at))
    return ended or Refused.because("id", "no session has this id: it may have ended by itself")


def _lasting(administration: Administration, at: int, limits: SessionLimits, most: int) -> tuple[StoredSession, ...]:
    recent, peppers = sessions.newest(administration.store, at - int(limits.idle), most), administration.read_peppers()
    return tuple(session for session in recent if is_valid(session, peppers, at, limits))


def is_valid(session: StoredSession, peppers: Mapping[str, bytes], at: int, limits: SessionLimits) -> bool:
    """Tell whether a session of the store was written by us, and lasts."""
    # The MAC does not cover `seen_at`, which may be of any type.
    return sessions.is_genuine(session, peppers) and type(session.seen_at) is int and is_alive(session, at, limits)


def _id(pepper: bytes, digest: bytes, issuer: str, subject: str) -> str:
    """Return an id that holds for one subject alone, so that no row has to name it: random by the digest, and kept from all without
    the pepper.
    """
    named = f"{issuer}\0{subject}".encode(errors="surrogatepass")
    return random_id(hmac.digest(hmac.digest(pepper, _SUBJECT, "sha256"), digest + named, "sha256")[:16])


def _digest(secret: str) -> bytes:
    return hashlib.sha256(bytes.fromhex(secret)).digest()
