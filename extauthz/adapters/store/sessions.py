"""Who is logged in to the console, and the accounts that it keeps itself."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import sqlalchemy as sa

from extauthz.adapters.store.ledger import Transactions
from extauthz.adapters.store.records import Change
from extauthz.adapters.store.rules import possible
from extauthz.adapters.store.schema import console_accounts, console_sessions

LOGGED_IN, LOGGED_OUT, ACCOUNT_ADDED, ACCOUNT_CHANGED, ACCOUNT_REMOVED = (
    "login",
    "logout",
    "account-add",
    "account-password",
    "account-remove",
)


@dataclass(frozen=True, slots=True)
class StoredSession:
    """Somebody who logged in: by which method, from where; times are whole seconds since the epoch.

    `seen_at` is the last request but for a minute, `authenticated_at` when a password or the provider was asked last.
    """

    id: str
    email: str
    method: str
    address: str
    created_at: int
    seen_at: int
    authenticated_at: int


@dataclass(frozen=True, slots=True)
class StoredAccount:
    """An account of the console's own; the hash tells how it was made."""

    email: str
    password_hash: str
    created_at: int
    created_by: str


_SESSION = tuple(console_sessions.c[name] for name in StoredSession.__slots__)
_ACCOUNT = tuple(console_accounts.c[name] for name in StoredAccount.__slots__)


def add(store: Transactions, session: StoredSession, digest: bytes, change: Change, *, oldest: int, instead_of: str = "") -> None:
    """Keep a session by the digest of its secret, and remove those that began before `oldest`, and the one that it replaces."""
    with store.changing(change) as ledger:
        is_over = sa.or_(console_sessions.c.created_at < oldest, console_sessions.c.id == instead_of)
        ledger.connection.execute(console_sessions.delete().where(is_over))
        ledger.connection.execute(console_sessions.insert().values(digest=digest, **asdict(session)))
        ledger.note(LOGGED_IN, None, None, {"session": session.id, "email": session.email, "method": session.method})


def by_digest(store: Transactions, digest: bytes) -> StoredSession | None:
    """Return the session whose secret has this digest."""
    with store.reading() as connection:
        row = connection.execute(sa.select(*_SESSION).where(console_sessions.c.digest == digest)).first()
    return None if row is None else StoredSession(*row)


def touch(store: Transactions, session_id: str, at: int) -> None:
    """Note a request of a session."""
    with store.writing() as connection:
        connection.execute(console_sessions.update().where(console_sessions.c.id == session_id).values(seen_at=at))


def end(store: Transactions, session_id: str, change: Change) -> StoredSession | None:
    """Remove a session and return it, None where there is none."""
    if not possible(session_id):
        return None
    with store.changing(change) as ledger:
        row = ledger.connection.execute(sa.select(*_SESSION).where(console_sessions.c.id == session_id)).first()
        if row is None:
            return None
        session = StoredSession(*row)
        ledger.connection.execute(console_sessions.delete().where(console_sessions.c.id == session_id))
        ledger.note(LOGGED_OUT, None, {"session": session.id, "email": session.email, "method": session.method}, None)
        return session


def newest(store: Transactions, since: int, limit: int) -> list[StoredSession]:
    """Return the sessions that were seen since a moment, the newest first."""
    query = sa.select(*_SESSION).where(console_sessions.c.seen_at >= since)
    query = query.order_by(console_sessions.c.created_at.desc(), console_sessions.c.id.desc()).limit(limit)
    with store.reading() as connection:
        return [StoredSession(*row) for row in connection.execute(query)]


def account(store: Transactions, email: str) -> StoredAccount | None:
    """Return the account of an address."""
    with store.reading() as connection:
        row = connection.execute(sa.select(*_ACCOUNT).where(console_accounts.c.email == email)).first()
    return None if row is None else StoredAccount(*row)


def accounts(store: Transactions) -> list[StoredAccount]:
    """Return all accounts by address."""
    with store.reading() as connection:
        return [StoredAccount(*row) for row in connection.execute(sa.select(*_ACCOUNT).order_by(console_accounts.c.email))]


def put_account(store: Transactions, new: StoredAccount, change: Change) -> bool:
    """Add an account, or give it another password, which ends its sessions; return whether it is new."""
    is_it = console_accounts.c.email == new.email
    with store.changing(change) as ledger:
        is_known = ledger.connection.execute(sa.select(console_accounts.c.email).where(is_it)).first() is not None
        if is_known:
            ledger.connection.execute(console_accounts.update().where(is_it).values(password_hash=new.password_hash))
            _end_all(ledger.connection, new.email)
        else:
            ledger.connection.execute(console_accounts.insert().values(**asdict(new)))
        ledger.note(ACCOUNT_CHANGED if is_known else ACCOUNT_ADDED, None, None, {"email": new.email})
    return not is_known


def rehash(store: Transactions, email: str, before: str, after: str) -> None:
    """Keep the same password with other costs, unless it was changed meanwhile."""
    is_it = sa.and_(console_accounts.c.email == email, console_accounts.c.password_hash == before)
    with store.writing() as connection:
        connection.execute(console_accounts.update().where(is_it).values(password_hash=after))


def remove_account(store: Transactions, email: str, change: Change) -> bool:
    """Remove an account, and end its sessions; return whether there was one."""
    with store.changing(change) as ledger:
        removed = ledger.connection.execute(console_accounts.delete().where(console_accounts.c.email == email)).rowcount
        if not removed:
            return False
        _end_all(ledger.connection, email)
        ledger.note(ACCOUNT_REMOVED, None, {"email": email}, None)
    return True


def _end_all(connection: sa.Connection, email: str) -> None:
    """End the sessions that an account's password began."""
    own = sa.and_(console_sessions.c.email == email, console_sessions.c.method == "local")
    connection.execute(console_sessions.delete().where(own))
