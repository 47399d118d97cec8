"""Accounts of the console's own, for a first start without a provider: the address and a hash of the password."""

from __future__ import annotations

import unicodedata

from extauthz.adapters.store import sessions
from extauthz.adapters.store.sessions import StoredAccount
from extauthz.admin.administration import Administration
from extauthz.admin.outcomes import Refused
from extauthz.admin.rights import Actor, Operation, forbidden
from extauthz.core.act_as import address

MIN_PASSWORD, MAX_PASSWORD = 12, 128


def normalized(password: str) -> str | Refused:
    """Return a password as it is hashed (NFKC: every keyboard writes the same); refuse one of another length."""
    text = unicodedata.normalize("NFKC", password)
    if not MIN_PASSWORD <= len(text) <= MAX_PASSWORD:
        return Refused.because("password", f"a password has {MIN_PASSWORD} to {MAX_PASSWORD} characters")
    return text


def put(administration: Administration, actor: Actor, email: str, password_hash: str, at: int) -> bool | Refused:
    """Add an account or change its password; return whether it is new."""
    if refused := forbidden(actor, Operation.ACCOUNTS):
        return refused
    who = address(email)
    if who is None:
        return Refused.because("email", "write one e-mail address")
    administration.unlocked(at, to_revoke=True)
    return sessions.put_account(administration.store, StoredAccount(who, password_hash, at, actor.name), actor.change(at))


def remove(administration: Administration, actor: Actor, email: str, at: int) -> str | Refused:
    """Remove an account, which ends its sessions; return its address."""
    if refused := forbidden(actor, Operation.ACCOUNTS):
        return refused
    administration.unlocked(at, to_revoke=True)
    who = address(email)
    if who is None or not sessions.remove_account(administration.store, who, actor.change(at)):
        return Refused.because("email", "no account has this address; see: extauthz console list-users")
    return who


def find(administration: Administration, email: str) -> StoredAccount | None:
    """Return the account of an address, for a login alone."""
    who = address(email)
    return None if who is None else sessions.account(administration.store, who)


def list_accounts(administration: Administration, actor: Actor) -> tuple[StoredAccount, ...] | Refused:
    """Return all accounts."""
    if refused := forbidden(actor, Operation.ACCOUNTS):
        return refused
    return tuple(sessions.accounts(administration.store))


def keep_hash(administration: Administration, account: StoredAccount, password_hash: str) -> None:
    """Keep a hash of the same password that was made with the costs of now."""
    sessions.rehash(administration.store, account.email, account.password_hash, password_hash)
