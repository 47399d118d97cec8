"""Lists of an audit of 100,000 rows, by each filter, and the counts of the overview; run by `make bench`.

Each line is one page, as the console asks for it. Every page is compared with what Python finds among the same rows.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks import listing
from benchmarks.answers import WrongAnswer
from benchmarks.bench import machine, row
from benchmarks.listing import DAY, GOAL, NOW, PAGE, SIZE, TIMES
from extauthz.adapters.store import schema
from extauthz.adapters.store.records import AuditFilter, AuditRow, StoredToken
from extauthz.adapters.store.sql import SqlTokenStore

RARE = "cto@acme.com"
_BODY = '{"description":"nightly export of search results","permission":"USER","scopes":["CHAT","SEARCH"],"user":"user-7@acme.com"}'
_MINUTE = 60


@dataclass(frozen=True, slots=True)
class AuditCase:
    """A page to ask for: which rows, and below which number."""

    name: str
    filters: AuditFilter = AuditFilter()  # noqa: RUF009 - frozen
    below: int | None = None


def rows(size: int) -> list[AuditRow]:
    """Return rows a minute apart, of three actors and four actions, and one in a thousand of somebody who does little."""
    actors, actions = ("ana@acme.com", "bob@acme.com", "os:root"), ("create", "revoke", "rotate", "login")
    return [
        AuditRow(
            number=number,
            at=NOW + number * _MINUTE,
            actor=RARE if number % 1000 == 0 else actors[number % 3],
            action=actions[number % 4],
            token_id=f"{number % 40_000:012}" if number % 4 != 3 else None,
            source="console 10.0.0.7",
            before="null",
            after=_BODY,
            pepper_id="p1",
            mac=bytes(32),
        )
        for number in range(1, size + 1)
    ]


def cases(size: int = SIZE) -> Iterator[AuditCase]:
    """Yield each filter with rows and without, and deep in the list."""
    end = NOW + size * _MINUTE
    yield AuditCase("everything")
    yield AuditCase("everything, from the middle", below=size // 2)
    yield AuditCase("actor", AuditFilter(actor="ana@acme.com"))
    yield AuditCase("actor, from the middle", AuditFilter(actor="ana@acme.com"), size // 2)
    yield AuditCase("actor who does little", AuditFilter(actor=RARE))
    yield AuditCase("actor, none", AuditFilter(actor="nobody@acme.com"))
    yield AuditCase("action", AuditFilter(action="revoke"))
    yield AuditCase("action, none", AuditFilter(action="expire"))
    yield AuditCase("token", AuditFilter(token_id=f"{42:012}"))
    yield AuditCase("token, none", AuditFilter(token_id="x" * 12))
    yield AuditCase("the last day", AuditFilter(since=end - DAY))
    yield AuditCase("the first minutes", AuditFilter(until=NOW + 10 * _MINUTE))
    yield AuditCase("a time without rows", AuditFilter(since=end + DAY))
    yield AuditCase("actor and action, none", AuditFilter(actor=RARE, action="revoke"))
    yield AuditCase("actor, action and time", AuditFilter("bob@acme.com", "rotate", since=NOW, until=NOW + size * _MINUTE // 2))


def expected(found: Sequence[AuditRow], case: AuditCase) -> list[int]:
    """Return the numbers of a page."""
    filters = case.filters

    def meets(each: AuditRow) -> bool:
        is_same = all(getattr(filters, name) in (None, getattr(each, name)) for name in ("actor", "action", "token_id"))
        is_after = filters.since is None or each.at >= filters.since
        is_before = filters.until is None or each.at < filters.until
        return is_same and is_after and is_before and (case.below is None or each.number < case.below)

    return [each.number for each in reversed(found) if meets(each)][:PAGE]


def measure(ask: Callable[[], Sequence[AuditRow]], numbers: list[int], times: int = TIMES) -> list[float]:
    """Return how long each of some pages took, in milliseconds; raises WrongAnswer for one that is not right."""
    taken = []
    for _ in range(times):
        started = time.perf_counter()
        found = ask()
        taken.append((time.perf_counter() - started) * 1000)
        if [each.number for each in found] != numbers:
            raise WrongAnswer(f"a page of {len(found)} rows where {len(numbers)} were expected")
    return taken


def count(store: SqlTokenStore, tokens: Sequence[StoredToken], times: int = TIMES) -> list[float]:
    """Return how long the counts of the overview took, in milliseconds; raises WrongAnswer for wrong ones."""
    taken = []
    for _ in range(times):
        started = time.perf_counter()
        counts = store.token_counts(NOW, NOW + 30 * DAY)
        taken.append((time.perf_counter() - started) * 1000)
        active = sum(token.revoked_at is None and token.expires_at > NOW for token in tokens)
        if sum(each.active for each in counts) != active or sum(
            each.active + each.expired + each.revoked for each in counts
        ) != len(tokens):
            raise WrongAnswer("the overview counts other tokens than there are")
    return taken


def fill(store: SqlTokenStore, audit: Sequence[AuditRow]) -> None:
    """Write rows as they are: their chain is not looked at."""
    names = tuple(schema.audit.columns.keys())
    with store.writing() as connection:
        for start in range(0, len(audit), 5000):
            batch = audit[start : start + 5000]
            connection.execute(schema.audit.insert(), [{name: getattr(each, name) for name in names} for each in batch])


@contextmanager
def small() -> Iterator[SqlTokenStore]:
    """Yield an empty SQLite store."""
    with tempfile.TemporaryDirectory() as folder, closing(SqlTokenStore(Path(folder) / "tokens.db", create=True)) as store:
        store.migrate()
        yield store


def main() -> None:
    """Print everything."""
    machine()
    tokens, audit = listing.population(SIZE), rows(SIZE)
    pages = [(case, expected(audit, case)) for case in cases()]
    print(f"{SIZE:,} rows of the audit, a page of {PAGE}, {TIMES} times\n")
    for name, opened in (("SQLite", listing.sqlite), ("PostgreSQL", listing.postgresql)):
        with opened(tokens) as store:
            fill(store, audit)
            medians = []
            for case, right in pages:
                taken = measure(lambda c=case: store.newest_audit(c.filters, below=c.below, limit=PAGE), right)
                medians.append(statistics.median(taken))
                p95 = statistics.quantiles(taken, n=20)[18]
                row(f"{name}, audit: {case.name} ({len(right)})", f"p50 {medians[-1]:.1f}, p95 {p95:.1f} ms", GOAL)
            row(f"{name}, audit: the slowest of {len(medians)}", f"p50 {max(medians):.1f} ms", GOAL)
            row(f"{name}, counts of the overview", f"p50 {statistics.median(count(store, tokens)):.1f} ms", "kept for 10 s")
        print()


if __name__ == "__main__":
    main()
