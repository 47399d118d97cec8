"""Confirm a session whose provider cannot prove a fresh login: by a typed sentence, then a new ID token of the same account.

It proves that whoever holds the session meant it, and that this browser is still logged in to the same account at the provider. It
does not prove that a password was typed: the provider may have let the account through without one.
"""

from __future__ import annotations

import hmac
import os
import re
from dataclasses import dataclass

from extauthz.adapters.store import sessions as stored
from extauthz.adapters.store.sessions import OPENID, StoredSession
from extauthz.admin import sessions
from extauthz.admin.administration import Administration
from extauthz.admin.outcomes import Refused
from extauthz.admin.rights import Actor
from extauthz.admin.sessions import NewSession, SessionLimits
from extauthz.admin.tokens import Entropy

CONFIRMATION = "confirmation"
"""The value of `console.oidc.reauthentication` that allows it."""
SENTENCE = "it is me"
LIFETIME = 600
"""Seconds from the sentence to the answer of the provider."""
CLOCK_DIFFERENCE = 60
"""Seconds that the clocks of provider and console may differ."""
NOT_OFFERED = Refused.because("sentence", "sessions are not confirmed in this way: see console.oidc.reauthentication")
OTHER_SENTENCE = Refused.because("sentence", f"write “{SENTENCE}”, as it stands above")
NOT_BEGUN = Refused.because("login", "this confirmation was not begun by your session, or the session has ended: begin it again")
OTHER_ACCOUNT = Refused.because("login", "the provider named another account than that of your session: choose the same one there")
NOT_FRESH = Refused.because("login", "the ID token was issued before you confirmed, so it proves nothing new")

_LABEL = b"extauthz console confirmation"
_TICKET = re.compile(r"(?P<id>[0-9A-Za-z]{12})\.(?P<at>[0-9]{1,12})\.(?P<mac>[0-9a-f]{64})", re.ASCII)


@dataclass(frozen=True, slots=True)
class Proof:
    """What the ID token of the round trip says: by whom, of whom, and when it was issued, in seconds since the epoch."""

    issuer: str
    subject: str
    email: str
    issued_at: int


def start(
    administration: Administration, session: StoredSession, sentence: str, login: str, at: int, *, reauthentication: str
) -> str | Refused:
    """Return a ticket, with which a login at the provider confirms a session; `login` is what the browser keeps of that login."""
    if reauthentication != CONFIRMATION or session.method != OPENID:
        return NOT_OFFERED
    if sentence.casefold().split() != SENTENCE.split():
        return OTHER_SENTENCE
    pepper = administration.read_peppers().get(session.pepper_id)
    return NOT_BEGUN if pepper is None else f"{session.id}.{at}.{_mac(pepper, session, login, at)}"


def finish(
    administration: Administration,
    actor: Actor,
    ticket: str,
    login: str,
    proof: Proof,
    at: int,
    *,
    reauthentication: str,
    address: str,
    limits: SessionLimits,
    entropy: Entropy = os.urandom,
) -> NewSession | Refused:
    """Begin the session that stands in the place of the confirmed one, whose login counts as recent from the proof on."""
    if reauthentication != CONFIRMATION:
        return NOT_OFFERED
    begun = _begun(administration, ticket, login, at, limits)
    if begun is None:
        return NOT_BEGUN
    session, begun_at = begun
    if (proof.issuer, proof.email, actor.name) != (session.issuer, session.email, session.email):
        return OTHER_ACCOUNT
    if not sessions.is_of(administration, session, proof.subject):
        return OTHER_ACCOUNT
    if not begun_at - CLOCK_DIFFERENCE <= proof.issued_at <= at + CLOCK_DIFFERENCE:
        return NOT_FRESH
    return sessions.begin(
        administration,
        actor,
        at,
        method=OPENID,
        address=address,
        limits=limits,
        issuer=session.issuer,
        subject=proof.subject,
        authenticated_at=proof.issued_at,
        before=session,
        reauthentication=CONFIRMATION,
        entropy=entropy,
    )


def _begun(
    administration: Administration, ticket: str, login: str, at: int, limits: SessionLimits
) -> tuple[StoredSession, int] | None:
    """Return the session that a ticket is of, and when it was written."""
    found = _TICKET.fullmatch(ticket)
    if found is None:
        return None
    session, begun_at = stored.by_id(administration.store, found["id"]), int(found["at"])
    peppers = administration.read_peppers()
    if session is None or session.method != OPENID or not sessions.is_valid(session, peppers, at, limits):
        return None
    mac = _mac(peppers[session.pepper_id], session, login, begun_at)
    if not hmac.compare_digest(mac, found["mac"]) or not 0 <= at - begun_at < LIFETIME:
        return None
    return session, begun_at


def _mac(pepper: bytes, session: StoredSession, login: str, at: int) -> str:
    key = hmac.digest(pepper, _LABEL, "sha256")
    covered = f"{session.id}\0{session.digest.hex()}\0{at}\0{login}"
    return hmac.digest(key, covered.encode(), "sha256").hex()
