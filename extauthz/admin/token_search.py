"""Which tokens somebody wants to see: what was typed becomes a filter, and either end of a page a cursor."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum

from extauthz.adapters.store.records import Position, Sort, StoredToken, TokenFilter
from extauthz.admin.outcomes import Refused
from extauthz.admin.token_requests import MAX_DESCRIPTION
from extauthz.core.model import AuthType

MAY_BE_SECRET = "this may be a secret, and was not looked for: write the id of the token"

_LETTERS = r"[0-9A-Za-z]"
_LONG_RUN = re.compile(rf"{_LETTERS}{{30,}}")
_SECRET_LENGTH = 43
_CURSOR = re.compile(r"(after|before)-([0-9]{1,16}|never)-([0-9A-Za-z]{1,12})-([0-9a-f]{12})").fullmatch


class TokenStatus(StrEnum):
    """What a token is at a time; one that was revoked is not expired, however old it is."""

    ACTIVE = "active"
    EXPIRED = "expired"
    REVOKED = "revoked"


@dataclass(frozen=True, slots=True)
class TokenSearch:
    """What tokens must be to be listed, as far as it is set; times are whole seconds since the epoch, lengths are whole seconds.

    `text` is what was typed: part of a description, an id, or a whole token, whose id alone is used. `created_by` is the whole
    name of an actor. Tokens that are `expiring_within` a time may be expired by now, unless `status` says what they are.
    """

    text: str = field(default="", repr=False)
    status: TokenStatus | None = None
    permission: AuthType | None = None
    scope: str | None = None
    user: str | None = None
    created_by: str | None = None
    pepper_id: str | None = None
    expires_after: int | None = None
    expires_before: int | None = None
    expiring_within: int | None = None
    unused_for: int | None = None
    never_used: bool = False

    def without_secret(self, prefixes: frozenset[str]) -> TokenSearch | Refused:
        """Keep only the id of a token that was typed; refuse what may be a secret without one, and what no description can be."""
        others = {"scope": self.scope, "user": self.user, "created_by": self.created_by, "pepper_id": self.pepper_id}
        for name, value in others.items():
            if may_hold_secret(value or "", prefixes):
                return Refused.because(name, MAY_BE_SECRET)
        text = self.text.strip()
        token_id = _token_id(text, prefixes)
        if token_id is not None:
            return replace(self, text=token_id)
        if may_hold_secret(text, prefixes):
            return Refused.because("text", MAY_BE_SECRET)
        if len(text) > MAX_DESCRIPTION or not text.isprintable():
            return Refused.because("text", f"write at most {MAX_DESCRIPTION} printable characters")
        return replace(self, text=text)

    def filter(self, at: int) -> TokenFilter:
        """Return what this means at a time, of a search that holds no secret."""
        before = [bound for bound in (self.expires_before, _sum(at, self.expiring_within)) if bound is not None]
        return TokenFilter(
            text=self.text or None,
            permission=self.permission,
            scope=self.scope,
            user=self.user,
            created_by=self.created_by,
            pepper_id=self.pepper_id,
            expires_after=self.expires_after,
            expires_before=min(before, default=None),
            unused_since=None if self.unused_for is None else at - self.unused_for,
            never_used=self.never_used,
            active_at=at if self.status is TokenStatus.ACTIVE else None,
            expired_at=at if self.status is TokenStatus.EXPIRED else None,
            revoked=self.status is TokenStatus.REVOKED,
        )


@dataclass(frozen=True, slots=True)
class Cursor:
    """Where a page begins, right `after` or `before` a position; only one of them is set."""

    after: Position | None = None
    before: Position | None = None

    def text(self, search: TokenSearch, sort: Sort) -> str:
        """Write it for a URL or a command line, where it is good for this search and this order alone."""
        name, position = ("before", self.before) if self.after is None else ("after", self.after)
        if position is None:
            raise ValueError("a cursor has a position")
        at, token_id = position
        return f"{name}-{'never' if at is None else at}-{token_id}-{_fingerprint(search, sort)}"


def after(token: StoredToken, search: TokenSearch, sort: Sort) -> str:
    """Return the cursor of the page behind a token."""
    return Cursor(after=sort.position(token)).text(search, sort)


def before(token: StoredToken, search: TokenSearch, sort: Sort) -> str:
    """Return the cursor of the page before a token."""
    return Cursor(before=sort.position(token)).text(search, sort)


def read_cursor(text: str | None, search: TokenSearch, sort: Sort) -> Cursor | Refused:
    """Read a cursor, None for the first page; refuse one of another search or order, of which it says nothing."""
    if text is None:
        return Cursor()
    match = _CURSOR(text)
    is_unused = match is not None and match[2] == "never"
    if match is None or (is_unused and sort not in (Sort.RECENTLY_USED, Sort.LEAST_RECENTLY_USED)):
        return Refused.because("cursor", "write what the end of the page before says")
    if match[4] != _fingerprint(search, sort):
        return Refused.because("cursor", "this is of a list with other filters or another order: begin at its first page")
    position = (None if is_unused else int(match[2]), match[3])
    return Cursor(after=position) if match[1] == "after" else Cursor(before=position)


def _fingerprint(search: TokenSearch, sort: Sort) -> str:
    """Name a search: filters of a moment change with the clock, what was asked for does not."""
    return hashlib.sha256(json.dumps([sort, asdict(search)], sort_keys=True).encode()).hexdigest()[:12]


def may_hold_secret(text: str, prefixes: frozenset[str]) -> bool:
    """Tell whether a text may hold a token, or the secret of one, which is neither looked for nor repeated."""
    return _token_id(text, prefixes) is not None or any(map(_may_be_secret, _LONG_RUN.findall(text)))


def _token_id(text: str, prefixes: frozenset[str]) -> str | None:
    """Return the id of the first token in a text, also of one that was cut off, or whose prefix is not one of ours."""
    names = "|".join(map(re.escape, sorted(prefixes)))
    ours = rf"(?:{names})_({_LETTERS}{{12}})(?!{_LETTERS})"
    match = re.search(rf"(?<!{_LETTERS})(?:{ours}|({_LETTERS}{{12}})_{_LETTERS}{{16,}})", text)
    return None if match is None else match[1] or match[2]


def _may_be_secret(run: str) -> bool:
    """Tell a secret from a long word or a digest in hex: it has letters of both cases, and digits but for one in a thousand."""
    return run not in (run.lower(), run.upper()) and (len(run) >= _SECRET_LENGTH or any(map(str.isdigit, run)))


def _sum(at: int, length: int | None) -> int | None:
    return None if length is None else at + length
