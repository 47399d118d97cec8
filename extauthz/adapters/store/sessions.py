"""Who is logged in to the console, and the accounts that it keeps itself.

Each row has a MAC, so that whoever writes the store without a pepper makes neither a session nor an account.
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import ClassVar, TypeVar

import sqlalchemy as sa

from extauthz.adapters.store.chain import canonical
from extauthz.adapters.store.records import Change
from extauthz.adapters.store.rules import possible
from extauthz.adapters.store.schema import console_accounts, console_sessions
from extauthz.adapters.store.transactions import Transactions

LOGGED_IN, LOGGED_OUT, ACCOUNT_ADDED, ACCOUNT_CHANGED, ACCOUNT_REMOVED = (
    "login",
    "logout",
    "account-add",
    "account-password",
    "account-remove",
)
LOCAL, OPENID = "local", "openid"
"""The methods of a session: an account of the console's own, or a provider."""


@dataclass(frozen=True, slots=True)
class StoredSession:
    """Somebody who logged in: by which method and issuer ("" for an account), from where; times are seconds since the epoch.

    `seen_at` is the last request but for a minute, `authenticated_at` when a password or the provider was asked last. `digest` is
    of the secret in the cookie. The MAC covers all but `seen_at`, which each request changes.
    """

    LABEL: ClassVar[bytes] = b"extauthz console session"
    COVERED: ClassVar[tuple[str, ...]] = ("id", "email", "method", "issuer", "address", "created_at", "authenticated_at")

    id: str
    email: str
    method: str
    issuer: str
    address: str
    created_at: int
    seen_at: int
    authenticated_at: int
    digest: bytes = field(default=b"", repr=False)
    pepper_id: str = ""
    mac: bytes = field(default=b"", repr=False)


@dataclass(frozen=True, slots=True)
class StoredAccount:
    """An account of the console's own; the hash tells how it was made, and the MAC covers all of it."""

    LABEL: ClassVar[bytes] = b"extauthz console account"
    COVERED: ClassVar[tuple[str, ...]] = ("email", "password_hash", "created_at", "created_by")

    email: str
    password_hash: str = field(repr=False)
    created_at: int
    created_by: str
    pepper_id: str = ""
    mac: bytes = field(default=b"", repr=False)


_Row = TypeVar("_Row", StoredSession, StoredAccount)


_SESSION = tuple(console_sessions.c[name] for name in StoredSession.__slots__)
_ACCOUNT = tuple(console_accounts.c[name] for name in StoredAccount.__slots__)


def with_mac(row: _Row, pepper_id: str, pepper: bytes) -> _Row:
    """Return a row with its MAC, whose key is derived from a pepper."""
    row = replace(row, pepper_id=pepper_id)
    return replace(row, mac=_mac(row, pepper))


def is_genuine(row: StoredSession | StoredAccount, peppers: Mapping[str, bytes]) -> bool:
    """Tell whether a row was written by somebody who has one of these peppers."""
    pepper = peppers.get(row.pepper_id)
    if pepper is None:
        return False
    try:
        return hmac.compare_digest(_mac(row, pepper), row.mac)
    except (AttributeError, TypeError, ValueError):
        # SQLite keeps a value of any type in any column.
        return False


def _mac(row: StoredSession | StoredAccount, pepper: bytes) -> bytes:
    key = hmac.digest(pepper, row.LABEL, "sha256")
    covered = [getattr(row, name) for name in ("pepper_id", *row.COVERED)]
    if isinstance(row, StoredSession):
        covered.append(row.digest.hex())
    return hmac.digest(key, canonical(covered).encode(), "sha256")


def add(
    store: Transactions,
    session: StoredSession,
    change: Change,
    *,
    oldest: int,
    instead_of: str = "",
    password_hash: str | None = None,
    reauthentication: str = "",
) -> bool:
    """Keep a session, and remove those that began before `oldest`, and the one that it replaces; return whether it began.

    It does not when the one that it replaces has ended, or when the account of a local one has not, or no longer, the hash of
    the password that was looked at. The audit names a `reauthentication` that is not "".
    """
    with store.changing(change) as ledger:
        connection = ledger.connection
        if session.method == LOCAL and not _has_password(connection, session.email, password_hash):
            return False
        if instead_of and not connection.execute(console_sessions.delete().where(console_sessions.c.id == instead_of)).rowcount:
            return False
        connection.execute(console_sessions.delete().where(console_sessions.c.created_at < oldest))
        connection.execute(console_sessions.insert().values(**asdict(session)))
        noted = {"session": session.id, "email": session.email, "method": session.method}
        ledger.note(LOGGED_IN, None, None, noted | ({"reauthentication": reauthentication} if reauthentication else {}))
    return True


def by_digest(store: Transactions, digest: bytes) -> StoredSession | None:
    """Return the session whose secret has this digest."""
    with store.reading() as connection:
        row = connection.execute(sa.select(*_SESSION).where(console_sessions.c.digest == digest)).first()
    return None if row is None else StoredSession(*row)


def by_id(store: Transactions, session_id: str) -> StoredSession | None:
    """Return the session with an id."""
    if not possible(session_id):
        return None
    with store.reading() as connection:
        row = connection.execute(sa.select(*_SESSION).where(console_sessions.c.id == session_id)).first()
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
    """Add an account, or replace the one of its address, which ends its sessions; return whether it is new."""
    is_it = console_accounts.c.email == new.email
    with store.changing(change) as ledger:
        is_known = ledger.connection.execute(sa.select(console_accounts.c.email).where(is_it)).first() is not None
        if is_known:
            ledger.connection.execute(console_accounts.update().where(is_it).values(**asdict(new)))
            _end_all(ledger.connection, new.email)
        else:
            ledger.connection.execute(console_accounts.insert().values(**asdict(new)))
        ledger.note(ACCOUNT_CHANGED if is_known else ACCOUNT_ADDED, None, None, {"email": new.email})
    return not is_known


def rehash(store: Transactions, before: StoredAccount, after: StoredAccount) -> None:
    """Keep the same password with other costs or another pepper, unless it was changed meanwhile."""
    is_it = sa.and_(console_accounts.c.email == before.email, console_accounts.c.password_hash == before.password_hash)
    with store.writing() as connection:
        connection.execute(console_accounts.update().where(is_it).values(**asdict(after)))


def remove_account(store: Transactions, email: str, change: Change) -> bool:
    """Remove an account, and end its sessions; return whether there was one."""
    with store.changing(change) as ledger:
        removed = ledger.connection.execute(console_accounts.delete().where(console_accounts.c.email == email)).rowcount
        if not removed:
            return False
        _end_all(ledger.connection, email)
        ledger.note(ACCOUNT_REMOVED, None, {"email": email}, None)
    return True


def _has_password(connection: sa.Connection, email: str, password_hash: str | None) -> bool:
    is_it = console_accounts.c.email == email
    return (
        password_hash is not None and connection.scalar(sa.select(console_accounts.c.password_hash).where(is_it)) == password_hash
    )


def _end_all(connection: sa.Connection, email: str) -> None:
    """End the sessions that an account's password began."""
    own = sa.and_(console_sessions.c.email == email, console_sessions.c.method == LOCAL)
    connection.execute(console_sessions.delete().where(own))
