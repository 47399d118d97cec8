"""Lists of tokens on every store: each filter and sort, page by page in both directions, beside a few lines of Python."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from extauthz.adapters.store import paging
from extauthz.adapters.store.records import Position, Sort, StoredToken, TokenFilter
from extauthz.adapters.store.sql import SqlTokenStore
from extauthz.core.model import AuthType
from extauthz.core.tokens import TokenRecord
from tests.support.memory_store import MemoryTokenStore
from tests.support.postgresql import ANA, FINGERPRINT, KEY, NOW, AnyStore, PostgresServer, token, use

pytest_plugins = ["tests.support.postgresql"]

T = TypeVar("T")

TEXTS = ("", "nightly", "NIGHTLY", "y_e", "y e", "%", "_", "\\", "*", "[a", "?", "été", "Été", "STRASSE", "straße", "οδοσ", "οδος")
FOUND_IN: dict[str, set[str]] = {
    "Ana's notebook": set(),
    "NIGHTLY export": {"nightly", "NIGHTLY", "y e"},
    "nightly_export": {"nightly", "NIGHTLY", "y_e", "_"},
    "100% nightly": {"nightly", "NIGHTLY", "%"},
    "Straße ÉTÉ": {"été", "Été", "straße"},
    "strasse été": {"été", "Été", "STRASSE"},
    "ΟΔΟΣ οδος": {"οδοσ", "οδος"},
    "[a-z]*?\\": {"\\", "*", "[a", "?"},
}
USERS = ("ana@acme.com", "bob@acme.com")
TIMES = range(NOW, NOW + 6)
ODD = ("k" * 12, "\N{KELVIN SIGN}", "\N{LATIN SMALL LETTER LONG S}", "\x00", "\udc80", "x" * 201)


def chosen(options: Sequence[T], *of: object) -> T:
    """Choose one, always the same for the same thing."""
    return options[int.from_bytes(hashlib.sha256(repr(of).encode()).digest()[:8]) % len(options)]


def made(number: int) -> TokenRecord:
    """Return a token; few times differ, and ids whose letters differ by their case."""
    permission = chosen([AuthType.USER, AuthType.USER, AuthType.GLOBAL, AuthType.ANONYMOUS], "permission", number)
    return token(
        "".join(chosen("aAbBzZ09", place, number) for place in range(12)),
        description=chosen(list(FOUND_IN), "description", number),
        permission=permission,
        user=chosen(USERS, "user", number) if permission is AuthType.USER else None,
        scopes=frozenset({chosen(["SEARCH", "CHAT"], "scope", number), chosen(["A_B", "AXB"], "scopes", number)}),
        created_at=chosen(TIMES, "created_at", number),
        created_by=chosen(["root", "os:ana"], "created_by", number),
        expires_at=chosen(TIMES, "expires_at", number) + 100,
    )


TOKENS = [made(number) for number in range(50)]
USED = {one.id: one.created_at + chosen(range(3), one.id) for one in TOKENS if chosen(range(10), "used", one.id) < 7}
REVOKED = [one.id for one in TOKENS if chosen(range(4), "revoked", one.id) == 0]
MOMENTS = st.none() | st.sampled_from([*TIMES, *(moment + 100 for moment in TIMES), 0, 2**40])
FILTERS = st.builds(
    TokenFilter,
    text=st.none() | st.sampled_from([*TEXTS, *ODD, TOKENS[0].id, TOKENS[0].id.swapcase()]),
    permission=st.none() | st.sampled_from([AuthType.USER, AuthType.GLOBAL, AuthType.OAUTH]),
    scope=st.none() | st.sampled_from(["SEARCH", "A_B", "search", "%"]),
    kept_scope=st.none() | st.sampled_from(["SEARCH", "AXB"]),
    user=st.none() | st.sampled_from(["ana@acme.com", "nobody@acme.com"]),
    created_by=st.none() | st.sampled_from(["root", "os:ana", "Root"]),
    pepper_id=st.none() | st.sampled_from(["p1", "p2"]),
    expires_after=MOMENTS,
    expires_before=MOMENTS,
    unused_since=MOMENTS,
    never_used=st.booleans(),
    active_at=MOMENTS,
    expired_at=MOMENTS,
    revoked=st.booleans(),
)


ONE_BY_ONE: list[tuple[str, object]] = [
    *(("text", text) for text in (*TEXTS, TOKENS[0].id)),
    *(("permission", permission) for permission in AuthType),
    *(("scope", scope) for scope in ("SEARCH", "A_B")),
    *(("user", user) for user in USERS),
    ("created_by", "os:ana"),
    ("pepper_id", "p1"),
    *((name, at) for name in ("expires_after", "expires_before", "active_at", "expired_at") for at in (NOW + 102, NOW + 103)),
    *(("unused_since", at) for at in TIMES),
    ("never_used", True),
    ("revoked", True),
]


def sparse(criteria: TokenFilter, kept: set[str]) -> TokenFilter:
    """Return a filter with some of its conditions, so that most filters find something."""
    return TokenFilter(**{item.name: getattr(criteria, item.name) for item in fields(TokenFilter) if item.name in kept})


FEW = st.builds(sparse, FILTERS, st.sets(st.sampled_from([item.name for item in fields(TokenFilter)]), max_size=3))


@dataclass(frozen=True)
class Reference:
    """What a list is, in plain words."""

    criteria: TokenFilter
    sort: Sort

    def ids(self, found: list[StoredToken]) -> list[str]:
        """Return the ids in the order of the list."""
        in_order = sorted(filter(self.meets, found), key=self.key, reverse=self.sort.is_descending)
        return [one.id for one in in_order]

    def key(self, one: StoredToken) -> tuple[Any, ...]:
        """Return what tokens are sorted by."""
        match self.sort:
            case Sort.NEWEST | Sort.OLDEST:
                return one.created_at, one.id
            case Sort.EXPIRES_SOONEST | Sort.EXPIRES_LATEST:
                return one.expires_at, one.id
            case _:
                return one.last_used_at is not None, one.last_used_at or one.created_at, one.id

    def meets(self, one: StoredToken) -> bool:
        """Return whether every condition that is set holds."""
        expired = {"active_at": lambda moment: one.expires_at > moment, "expired_at": lambda moment: one.expires_at <= moment}
        holds: dict[str, Callable[[Any], bool]] = {
            "text": lambda text: text in ("", one.id, *FOUND_IN[one.description]),
            "permission": lambda permission: one.permission is permission,
            "scope": lambda scope: not one.scopes.isdisjoint({scope, self.criteria.kept_scope}),
            "kept_scope": lambda _: True,
            "user": lambda user: one.user == user,
            "created_by": lambda name: one.created_by == name,
            "pepper_id": lambda name: one.pepper_id == name,
            "expires_after": lambda moment: one.expires_at > moment,
            "expires_before": lambda moment: one.expires_at < moment,
            "unused_since": lambda moment: one.created_at < moment and (one.last_used_at is None or one.last_used_at < moment),
            "never_used": lambda _: one.last_used_at is None,
            "revoked": lambda _: one.revoked_at is not None,
        } | {name: lambda moment, name=name: one.revoked_at is None and expired[name](moment) for name in expired}
        asked = {item.name: getattr(self.criteria, item.name) for item in fields(TokenFilter)}
        return all(holds[name](value) for name, value in asked.items() if value is not None and value is not False)


@pytest.fixture(scope="module")
def stores(
    sqlite_template: Path, postgresql: PostgresServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, AnyStore]]:
    """A store of each kind, with the same tokens."""
    path = Path(shutil.copy(sqlite_template, tmp_path_factory.mktemp("pages") / "tokens.db"))
    with postgresql.database() as name:
        opened: dict[str, AnyStore] = {
            "memory": MemoryTokenStore(audit=KEY),
            "sqlite": SqlTokenStore(path, audit=KEY),
            "postgresql": SqlTokenStore(postgresql.url(name), audit=KEY),
        }
        for store in opened.values():
            store.add_many(TOKENS, {"p1": FINGERPRINT}, ANA)
            use(store, {token_id: (at, "10.0.0.0/24") for token_id, at in USED.items()})
            store.revoke(REVOKED, None, ANA)
        yield opened
        for store in opened.values():
            store.close()


def pages(
    store: AnyStore, criteria: TokenFilter, sort: Sort, limit: int, direction: str, start: Position | None
) -> Iterator[list[str]]:
    """Yield the ids of page after page in a direction."""
    while page := store.page(criteria, limit=limit, sort=sort, **{direction: start}):  # type: ignore[arg-type]
        assert len(page) <= limit
        yield [one.id for one in page]
        start = sort.position(page[-1] if direction == "after" else page[0])


@pytest.mark.parametrize("kind", ["memory", "sqlite", "postgresql"])
@settings(max_examples=80, deadline=None)
@given(criteria=FEW, sort=st.sampled_from(Sort), limit=st.sampled_from([2, 7, 60]), stretch=st.sampled_from([1, 3, 40]))
def test_pages_hold_every_token_once_in_both_directions(
    stores: dict[str, AnyStore], kind: str, criteria: TokenFilter, sort: Sort, limit: int, stretch: int
) -> None:
    """A short stretch of the index is read first, so that small pages need each of the queries."""
    store = stores[kind]
    every = store.list_tokens()
    expected = Reference(criteria, sort).ids(every)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(paging, "STRETCH", stretch)
        forward = list(pages(store, criteria, sort, limit, "after", None))
        assert [token_id for page in forward for token_id in page] == expected
        end = {one.id: one for one in every}[expected[-1]] if expected else every[0]
        backward = list(pages(store, criteria, sort, limit, "before", sort.position(end)))
        assert [token_id for page in reversed(backward) for token_id in page] == expected[:-1]


@pytest.mark.parametrize("kind", ["memory", "sqlite", "postgresql"])
def test_each_filter_keeps_its_bounds_in_each_order(
    stores: dict[str, AnyStore], kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first row of an index is read alone, so that the rest comes from the table."""
    monkeypatch.setattr(paging, "STRETCH", 1)
    store = stores[kind]
    every = store.list_tokens()
    assert len(every) == len(TOKENS)
    found: dict[str, int] = {}
    for sort in Sort:
        for name, value in ONE_BY_ONE:
            criteria = TokenFilter(**{name: value})  # type: ignore[arg-type]
            expected = Reference(criteria, sort).ids(every)
            first = store.page(criteria, limit=1, sort=sort)
            rest = store.page(criteria, sort.position(first[0]), sort=sort) if first else []
            assert [one.id for one in (*first, *rest)] == expected, criteria
            found[name] = found.get(name, 0) + len(expected)
    assert min(found.values()) > 0, "each filter finds something"
