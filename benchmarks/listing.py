"""Lists of 100,000 issued tokens, by each filter and in each order; run by `make bench`.

Tokens lie in the table as an import may leave them: in no order at all. Each line is one page of a database that has everything in
memory, as the command line and the console ask for it. Every page is compared with what Python finds among the same tokens.
"""

from __future__ import annotations

import secrets
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.answers import WrongAnswer
from benchmarks.bench import machine, row
from extauthz.adapters.store.records import Position, Sort, StoredToken, TokenFilter
from extauthz.adapters.store.rows import COLUMNS
from extauthz.adapters.store.rules import meets
from extauthz.adapters.store.schema import values
from extauthz.adapters.store.sql import SqlTokenStore
from extauthz.core.model import AuthType
from tests.support.postgres_server import PostgresServer

SIZE, PAGE, TIMES = 100_000, 50, 20
NOW, DAY = 1_800_000_000, 86_400
GOAL = "goal p50 ≤ 50 ms"
CAREFUL = "admin-0@acme.com"
"""Every token that this admin made is in use."""

_NAMES = ", ".join(f'"{name}"' for name in COLUMNS)
_LETTERS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_WORDS = ("nightly", "export", "search", "results", "dashboard", "jenkins", "notebook", "crawler", "production", "agent", "café")
_SCOPES = ("SEARCH", "CHAT", "AGENT", "DOCUMENTS", "ANNOUNCEMENTS", "ENTITIES", "FEED")

Ask = Callable[[], Sequence[StoredToken]]


@dataclass(frozen=True, slots=True)
class Case:
    """A page to ask for: of which tokens, in which order, and whether it is the first one or stands behind the middle."""

    name: str
    filters: TokenFilter = TokenFilter()  # noqa: RUF009 - frozen
    sort: Sort = Sort.NEWEST
    is_first: bool = True


def population(size: int) -> list[StoredToken]:
    """Return tokens of almost three years in no order: a third is active, a tenth revoked, a fifth was never used."""
    chance = secrets.SystemRandom()
    tokens = []
    for number in range(size):
        made = NOW - (size - number) * 900
        permission = chance.choices([AuthType.USER, AuthType.ANONYMOUS, AuthType.GLOBAL], [94, 5, 1])[0]
        admin = f"admin-{chance.randrange(20)}@acme.com"
        last_used = chance.randint(made, NOW) if chance.random() < 0.8 else None
        tokens.append(
            StoredToken(
                "".join(chance.choices(_LETTERS, k=12)),
                " ".join(chance.choices(_WORDS, k=5)),
                permission,
                f"user-{chance.randrange(2_000)}@acme.com" if permission is AuthType.USER else None,
                frozenset(chance.sample(_SCOPES, chance.randint(1, 4))),
                made,
                admin,
                made + chance.choice([30, 90, 365]) * DAY,
                "p1",
                secrets.token_bytes(40),
                min(made + 5 * DAY, NOW) if chance.random() < 0.1 else None,
                last_used_at=NOW - 60 if admin == CAREFUL else last_used,
                last_used_from="10.0.0.0/24",
            )
        )
    chance.shuffle(tokens)
    return tokens


def cases() -> Iterator[Case]:
    """Yield each filter with tokens and without, then each order with filters of every kind."""
    month = TokenFilter(active_at=NOW, expires_before=NOW + 30 * DAY)
    yield Case("everything")
    yield Case("text", TokenFilter(text="JENKINS"))
    yield Case("text, an id that none has", TokenFilter(text="x" * 12))
    yield Case("text beyond ASCII", TokenFilter(text="CAFÉ S"))
    yield Case("text beyond ASCII, none", TokenFilter(text="CAFÉÉ"))
    yield Case("permission", TokenFilter(permission=AuthType.ANONYMOUS))
    yield Case("permission, none", TokenFilter(permission=AuthType.OAUTH))
    yield Case("scope", TokenFilter(scope="SEARCH"))
    yield Case("scope, none", TokenFilter(scope="NO_SUCH_SCOPE"))
    yield Case("user", TokenFilter(user="user-7@acme.com"))
    yield Case("user, none", TokenFilter(user="nobody@acme.com"))
    yield Case("user and scope, none", TokenFilter(user="user-7@acme.com", scope="NO_SUCH_SCOPE"))
    yield Case("creator", TokenFilter(created_by="admin-7@acme.com"))
    yield Case("creator, none", TokenFilter(created_by="nobody@acme.com"))
    yield Case("pepper, none", TokenFilter(pepper_id="p2"))
    yield Case("active", TokenFilter(active_at=NOW))
    yield Case("active, none", TokenFilter(active_at=2**40))
    yield Case("expired", TokenFilter(expired_at=NOW))
    yield Case("expired, none", TokenFilter(expired_at=0))
    yield Case("revoked", TokenFilter(revoked=True))
    yield Case("revoked, none", TokenFilter(revoked=True, created_by="nobody@acme.com"))
    yield Case("active, expires within 30 days", month)
    yield Case("expires before any", TokenFilter(expires_before=0))
    yield Case("expires after any", TokenFilter(expires_after=2**40))
    yield Case("active, unused for 90 days", TokenFilter(active_at=NOW, unused_since=NOW - 90 * DAY))
    yield Case("unused for 90 days, none", TokenFilter(unused_since=NOW - 90 * DAY, created_by=CAREFUL))
    yield Case("unused for longer than any", TokenFilter(unused_since=0))
    yield Case("never used", TokenFilter(never_used=True))
    yield Case("never used, none", TokenFilter(never_used=True, created_by=CAREFUL))
    found = {
        "everything": TokenFilter(),
        "active": TokenFilter(active_at=NOW),
        "expires within 30 days": month,
        "text": TokenFilter(text="jenkins"),
        "scope, none": TokenFilter(scope="NO_SUCH_SCOPE"),
        "unused for 90 days": TokenFilter(unused_since=NOW - 90 * DAY),
    }
    for sort in Sort:
        for name, filters in found.items():
            yield Case(f"{sort.value}: {name}", filters, sort)
        yield Case(f"{sort.value}: scope, from the middle", TokenFilter(scope="SEARCH"), sort, is_first=False)


@dataclass(frozen=True, slots=True)
class Expected:
    """A page that is right, and the position behind which it stands."""

    ids: list[str]
    after: Position | None


def expected(tokens: Sequence[StoredToken], case: Case) -> Expected:
    """Return what a page has to be."""

    def key(token: StoredToken) -> tuple[bool, int, str]:
        at, token_id = case.sort.position(token)
        return at is not None, token.created_at if at is None else at, token_id

    found = sorted((token for token in tokens if meets(token, case.filters)), key=key, reverse=case.sort.is_descending)
    begin = 0 if case.is_first else len(found) // 2
    after = case.sort.position(found[begin - 1]) if begin else None
    return Expected([token.id for token in found[begin : begin + PAGE]], after)


def measure(ask: Ask, ids: list[str], times: int = TIMES) -> list[float]:
    """Return how long each of some pages took, in milliseconds; raises WrongAnswer for one that is not right."""
    taken = []
    for _ in range(times):
        started = time.perf_counter()
        found = ask()
        taken.append((time.perf_counter() - started) * 1000)
        if [token.id for token in found] != ids:
            raise WrongAnswer(f"a page of {len(found)} tokens where {len(ids)} were expected")
    return taken


def rows_of(tokens: Sequence[StoredToken]) -> Iterator[tuple[object, ...]]:
    """Yield tokens as rows."""
    for token in tokens:
        row = values(token)
        yield tuple(row[name] for name in COLUMNS)


def uses_of(tokens: Sequence[StoredToken]) -> Iterator[tuple[object, ...]]:
    """Yield uses as rows."""
    return ((token.id, token.last_used_at, token.last_used_from) for token in tokens if token.last_used_at is not None)


@contextmanager
def sqlite(tokens: Sequence[StoredToken]) -> Iterator[SqlTokenStore]:
    """Yield a file with these tokens."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "tokens.db"
        with closing(SqlTokenStore(path, create=True)) as store:
            store.migrate()
            with closing(sqlite3.connect(path)) as connection:
                marks = ", ".join("?" * len(COLUMNS))
                connection.executemany(f"INSERT INTO tokens ({_NAMES}) VALUES ({marks})", rows_of(tokens))  # noqa: S608
                connection.executemany("INSERT INTO token_usage VALUES (?, ?, ?)", uses_of(tokens))
                connection.commit()
                connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            yield store


@contextmanager
def postgresql(tokens: Sequence[StoredToken]) -> Iterator[SqlTokenStore]:
    """Yield a database with these tokens."""
    server = PostgresServer()
    try:
        with server.database() as name, closing(SqlTokenStore(server.url(name))) as store:
            with server.connect(name) as connection:
                for table, rows in ((f"tokens ({_NAMES})", rows_of(tokens)), ("token_usage", uses_of(tokens))):
                    with connection.cursor().copy(f"COPY {table} FROM STDIN".encode()) as copy:
                        for values_ in rows:
                            copy.write_row(values_)
                connection.execute("VACUUM ANALYZE")
            yield store
    finally:
        server.stop()


def main() -> None:
    """Print everything."""
    machine()
    tokens = population(SIZE)
    pages = [(case, expected(tokens, case)) for case in cases()]
    print(f"{SIZE:,} tokens, a page of {PAGE}, {TIMES} times\n")
    for name, opened in (("SQLite", sqlite), ("PostgreSQL", postgresql)):
        with opened(tokens) as store:
            medians = []
            for case, right in pages:
                taken = measure(lambda c=case, r=right: store.page(c.filters, r.after, PAGE, sort=c.sort), right.ids)
                medians.append(statistics.median(taken))
                p95 = statistics.quantiles(taken, n=20)[18]
                row(f"{name}, {case.name} ({len(right.ids)})", f"p50 {medians[-1]:.1f}, p95 {p95:.1f} ms", GOAL)
            row(f"{name}, the slowest of {len(medians)}", f"p50 {max(medians):.1f} ms", GOAL)
        print()


if __name__ == "__main__":
    main()
