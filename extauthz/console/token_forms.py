"""What the forms of token pages hold: a request for a token, and which tokens to list."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from urllib.parse import urlencode

from extauthz.adapters.store.records import Sort, StoredToken
from extauthz.admin.outcomes import Refusal
from extauthz.admin.rights import PERMISSIONS
from extauthz.admin.times import expiry
from extauthz.admin.token_requests import TokenRequest
from extauthz.admin.token_search import TokenSearch, TokenStatus
from extauthz.console.forms import Form
from extauthz.core.act_as import address
from extauthz.core.model import AuthType

DAY = 86_400
PRESETS = (7, 30, 90, 180, 365)
"""Days of life that are offered, as far as the configuration allows them."""
DEFAULT_DAYS = 90
SOON = 30 * DAY
"""A token that ends within this time has a badge."""
SORTS = {
    Sort.NEWEST: "Newest first",
    Sort.OLDEST: "Oldest first",
    Sort.EXPIRES_SOONEST: "Expires soonest",
    Sort.EXPIRES_LATEST: "Expires latest",
    Sort.RECENTLY_USED: "Used recently",
    Sort.LEAST_RECENTLY_USED: "Unused longest",
}
EXPIRING = (7, 30, 90)
UNUSED = (30, 90, 180)
_FILTERS = ("text", "permission", "scope", "user", "status", "created_by", "expiring", "unused", "sort", "after", "limit")


@dataclass(frozen=True, slots=True)
class TokenDraft:
    """What somebody filled in for a new token, right or wrong."""

    description: str = ""
    permission: str = AuthType.USER.value
    user: str = ""
    scopes: frozenset[str] = frozenset()
    days: str = str(DEFAULT_DAYS)
    date: str = ""

    @classmethod
    def of(cls, form: Form) -> TokenDraft:
        """Read the fields of a form."""
        return cls(
            description=form.text("description"),
            permission=form.text("permission"),
            user=form.text("user"),
            scopes=frozenset(form.all("scope")),
            days=form.text("days"),
            date=form.text("date"),
        )

    @classmethod
    def like(cls, token: StoredToken) -> TokenDraft:
        """Begin with what another token has."""
        return cls(token.description, token.permission.value, token.user or "", token.scopes)

    def request(self, by: str, at: int) -> tuple[TokenRequest, list[Refusal]]:
        """Return what is asked for, and what could not be read; the rules of tokens come after."""
        wrong = []
        expires_at = at
        try:
            expires_at = expiry(self.date if self.days == "date" else f"{self.days}d", at)
        except ValueError as error:
            wrong.append(Refusal("expires_at", str(error) if self.days == "date" and self.date else "choose when the token ends"))
        permission = AuthType(self.permission) if self.permission in PERMISSIONS else AuthType.OAUTH
        is_user = permission is AuthType.USER
        request = TokenRequest(
            description=self.description,
            permission=permission,
            scopes=self.scopes,
            created_at=at,
            created_by=by,
            expires_at=expires_at,
            user=self.user if is_user else None,
        )
        return request, wrong


def by_field(refusals: Iterable[Refusal]) -> dict[str, str]:
    """Return the sentence for each field, those of one field behind each other."""
    texts: dict[str, str] = {}
    for refusal in refusals:
        texts[refusal.field] = f"{texts[refusal.field]}; {refusal.message}" if refusal.field in texts else refusal.message
    return texts


@dataclass(frozen=True, slots=True)
class TokenListing:
    """Which tokens are listed, in which order, and from where on; `query` are the parameters of the address that say so."""

    search: TokenSearch
    sort: Sort
    cursor: str | None
    query: Mapping[str, str]

    @classmethod
    def of(cls, query: Mapping[str, str]) -> TokenListing:
        """Read the parameters of an address; what says nothing to us is left out."""
        kept = {name: query[name].strip() for name in _FILTERS if query.get(name, "").strip()}
        search = TokenSearch(
            text=kept.get("text", ""),
            status=TokenStatus(kept["status"]) if kept.get("status") in set(TokenStatus) else None,
            permission=AuthType(kept["permission"]) if kept.get("permission") in PERMISSIONS else None,
            scope=kept.get("scope"),
            user=address(kept["user"]) or kept["user"] if "user" in kept else None,
            created_by=kept.get("created_by"),
            expiring_within=_days(kept.get("expiring")),
            unused_for=_days(kept.get("unused")),
            never_used=kept.get("unused") == "never",
        )
        if search.expiring_within is not None and search.status is None:
            search = replace(search, status=TokenStatus.ACTIVE)
        sort = Sort(kept["sort"]) if kept.get("sort") in set(Sort) else Sort.NEWEST
        return cls(search, sort, kept.get("after"), kept)

    def link(self, path: str = "/tokens", **changes: str | None) -> str:
        """Return the address of the same list with changes, from its first page on unless `after` is one of them."""
        query = {name: value for name, value in {**self.query, "after": None, **changes}.items() if value}
        return f"{path}?{urlencode(query)}" if query else path

    @property
    def is_filtered(self) -> bool:
        """Whether anything is left out of the list."""
        return bool(self.query.keys() - {"sort", "after"})

    @property
    def has_more_filters(self) -> bool:
        """Whether one of the filters is set that are folded away otherwise."""
        return not self.query.keys().isdisjoint({"expiring", "unused", "user", "created_by"})


def _days(text: str | None) -> int | None:
    return int(text) * DAY if text is not None and text.isascii() and text.isdigit() and len(text) <= 4 else None
