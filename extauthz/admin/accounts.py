"""Accounts of the console's own, for a first start without a provider: the address and a hash of the password."""

from __future__ import annotations

import logging
import unicodedata
from dataclasses import replace

from extauthz.adapters.store import sessions
from extauthz.adapters.store.sessions import StoredAccount
from extauthz.admin.administration import Administration
from extauthz.admin.outcomes import Refused
from extauthz.admin.rights import Actor, Operation, forbidden
from extauthz.core.act_as import address

MIN_PASSWORD, MAX_PASSWORD = 12, 128

_log = logging.getLogger(__name__)


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
    pepper_id, pepper = next(iter(administration.unlocked(at, to_revoke=True).items()))
    known = sessions.account(administration.store, who)
    made = (at, actor.name) if known is None else (known.created_at, known.created_by)
    new = sessions.with_mac(StoredAccount(who, password_hash, *made), pepper_id, pepper)
    return sessions.put_account(administration.store, new, actor.change(at))


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
    """Return the account of an address, for a login alone; None also for one that somebody without a pepper wrote."""
    who = address(email)
    account = None if who is None else sessions.account(administration.store, who)
    if account is None or sessions.is_genuine(account, administration.read_peppers()):
        return account
    _log.warning("an account was not written by this installation: set its password anew", extra={"account": account.email})
    return None


def list_accounts(administration: Administration, actor: Actor) -> tuple[StoredAccount, ...] | Refused:
    """Return all accounts."""
    if refused := forbidden(actor, Operation.ACCOUNTS):
        return refused
    return tuple(sessions.accounts(administration.store))


def renew(administration: Administration, account: StoredAccount, password_hash: str) -> StoredAccount:
    """Keep a hash of the same password that was made with the costs of now, and a MAC of the newest pepper; return the account."""
    newest, pepper = next(iter(administration.read_peppers().items()))
    if (account.password_hash, account.pepper_id) == (password_hash, newest):
        return account
    renewed = sessions.with_mac(replace(account, password_hash=password_hash), newest, pepper)
    sessions.rehash(administration.store, account, renewed)
    return renewed
