"""What goes into a token store and comes out of it, whichever database keeps it."""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from extauthz.core.model import AuthType
from extauthz.core.tokens import TokenRecord


@dataclass(frozen=True, slots=True)
class Change:
    """Who changes something, when and from where: `os:ana` on a host, or an admin's address and that of the browser."""

    at: int
    actor: str
    source: str = ""


@dataclass(frozen=True, slots=True)
class AuditKey:
    """The key of the audit's chain, and the pepper that it was derived from."""

    pepper_id: str
    key: bytes = field(repr=False)

    @classmethod
    def of(cls, pepper_id: str, pepper: bytes) -> AuditKey:
        """Derive the key, so that the pepper itself signs no audit."""
        return cls(pepper_id, hmac.digest(pepper, b"extauthz audit chain", "sha256"))


@dataclass(frozen=True, slots=True)
class StoredToken(TokenRecord):
    """A token with all that the store knows of it; uses are written minutes later and by the quarter of an hour."""

    revoked_why: str | None = None
    rotated_from: str | None = None
    rotated_to: str | None = None
    last_used_at: int | None = None
    last_used_from: str | None = None


@dataclass(frozen=True, slots=True)
class TokenFilter:
    """Which tokens to list: those that meet everything that is set. A user is written as it is stored, in lower case.

    `text` is part of the description, in any case of its letters, or a whole id. `active_at` leaves out what is revoked, or expired
    at that moment; `expired_at` takes what is expired then and not revoked, `revoked` what is revoked. Bounds of the expiry are
    outside of what is listed. `unused_since` takes what was made before that moment and not used since, `never_used` what was
    never used. With a `kept_scope` that counts as `scope` too.
    """

    text: str | None = None
    permission: AuthType | None = None
    scope: str | None = None
    kept_scope: str | None = None
    user: str | None = None
    created_by: str | None = None
    pepper_id: str | None = None
    expires_after: int | None = None
    expires_before: int | None = None
    unused_since: int | None = None
    never_used: bool = False
    active_at: int | None = None
    expired_at: int | None = None
    revoked: bool = False


Position = tuple[int | None, str]
"""Where a token stands in a list: the time that the list is sorted by, None for one that was never used, and the id."""


class Sort(StrEnum):
    """The order of a list. Those of one second stand by their ids.

    A token that was never used counts as used before any other; those of them stand by their age.
    """

    NEWEST = "newest"
    OLDEST = "oldest"
    EXPIRES_SOONEST = "expires-soonest"
    EXPIRES_LATEST = "expires-latest"
    RECENTLY_USED = "recently-used"
    LEAST_RECENTLY_USED = "least-recently-used"

    @property
    def is_descending(self) -> bool:
        """Whether later times stand first."""
        return self in (Sort.NEWEST, Sort.EXPIRES_LATEST, Sort.RECENTLY_USED)

    def position(self, token: StoredToken) -> Position:
        """Return where a token stands in a list of this order."""
        match self:
            case Sort.NEWEST | Sort.OLDEST:
                return token.created_at, token.id
            case Sort.EXPIRES_SOONEST | Sort.EXPIRES_LATEST:
                return token.expires_at, token.id
            case Sort.RECENTLY_USED | Sort.LEAST_RECENTLY_USED:
                return token.last_used_at, token.id


@dataclass(frozen=True, slots=True)
class AuditRow:
    """One row of the audit; `before` and `after` are JSON texts, `mac` chains it to the row before."""

    number: int
    at: int
    actor: str
    action: str
    token_id: str | None
    source: str
    before: str
    after: str
    pepper_id: str
    mac: bytes


@dataclass(frozen=True, slots=True)
class AuditFilter:
    """Which rows of the audit to list: those that meet everything that is set.

    `actor` is a whole name; `since` is within what is listed and `until` outside of it, in seconds since the epoch.
    """

    actor: str | None = None
    action: str | None = None
    token_id: str | None = None
    since: int | None = None
    until: int | None = None


@dataclass(frozen=True, slots=True)
class StoreState:
    """The state of a store. `peppers` is how many active tokens need each pepper, `audit` is number and MAC of the last row."""

    revision: str
    kind: str
    active: int
    expired: int
    revoked: int
    epoch: int
    head: int
    audit: tuple[int, str]
    peppers: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class TokenCounts:
    """The tokens of one permission by status, and how many of the active ones expire soon, or were never used."""

    permission: AuthType
    active: int
    expired: int
    revoked: int
    expiring: int
    never_used: int


@dataclass(frozen=True, slots=True)
class Revocation:
    """A revocation as the audit records it."""

    token_id: str
    at: int
    by: str
    why: str | None

    @property
    def facts(self) -> dict[str, Any]:
        """What it makes of a token, and what the audit keeps of it."""
        return {"revoked_at": self.at, "revoked_by": self.by, "revoked_why": self.why}


CHANGEABLE = ("expires_at", "revoked_at", "rotated_to")
"""What admins change of a token after it was made."""


class Subject(StrEnum):
    """What a row of the store is that differs from the audit."""

    TOKEN = "token"
    KEY = "admin key"
    ACCOUNT = "account"
    SETTINGS = "OAuth settings"


@dataclass(frozen=True, slots=True)
class Difference:
    """A row that is not what the audit says; None stands for nothing, also where the whole row or its making is missing.

    `token_id` is the id of a token or of an admin key, or the address of an account; of the saved settings it is `settings`, and
    their `version` differs, or their `body`.
    """

    token_id: str
    field: str
    audit: object
    row: object
    subject: Subject = Subject.TOKEN


def plain(value: object) -> object:
    """Return what JSON can say of a value; SQLite keeps one of any type in any column."""
    return value if value is None or isinstance(value, str | int | list) else repr(value)


@dataclass(frozen=True, slots=True)
class AuditExport:
    """What an exported audit has to say to a store that was restored.

    `expiries` were brought forward; `epoch` and `head` are those of the change feed; `audit` is number and MAC of the last row.
    `settings` is the last version of the saved settings, 0 for none; `keys` are revocations of admin keys, by their ids.
    `created` are the tokens that were made, in their order, each with the expiry that it was made with.
    """

    revocations: tuple[Revocation, ...]
    expiries: Mapping[str, int]
    epoch: int
    head: int
    audit: tuple[int, str]
    settings: int = 0
    keys: tuple[Revocation, ...] = ()
    created: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Restored:
    """What `accept_restore` changed, by token id, and the state of the feed after it; `keys` are admin keys that it revoked."""

    revoked: tuple[str, ...]
    tombstones: tuple[str, ...]
    expiries: tuple[str, ...]
    epoch: int
    head: int
    keys: tuple[str, ...] = ()
