"""Lists of the audit on both databases: each filter, both directions, beside a few lines of Python."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import ExitStack, closing
from itertools import product
from pathlib import Path

import pytest
import sqlalchemy as sa

from extauthz.adapters.store import audit
from extauthz.adapters.store.records import AuditFilter, AuditRow, Change
from extauthz.adapters.store.sql import SqlTokenStore
from tests.support.postgresql import KEY, NOW, MakePlace, PostgresServer

pytest_plugins = ["tests.support.postgresql"]

ACTORS = ("ana@acme.com", "os:bob", "Ana@acme.com")
ACTIONS = ("create", "revoke", "console-login")
IDS = ("a" * 12, "A" * 12, None)
ROWS = 27


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def filled(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SqlTokenStore]:
    """A store with one row for each mixture of actor, action and token; the clock of one actor goes backwards."""
    with ExitStack() as stack:
        if request.param == "sqlite":
            template: Path = request.getfixturevalue("sqlite_template")
            place: Path | str = Path(shutil.copy(template, tmp_path_factory.mktemp("audit") / "tokens.db"))
        else:
            server: PostgresServer = request.getfixturevalue("postgresql")
            place = server.url(stack.enter_context(server.database()))
        store = stack.enter_context(closing(SqlTokenStore(place, audit=KEY)))
        for number, (actor, action, token_id) in enumerate(product(ACTORS, ACTIONS, IDS)):
            at = NOW + (number if actor != "os:bob" else -number)
            with store.changing(Change(at, actor, "a test")) as ledger:
                ledger.note(action, token_id, None, {"number": number})
        yield store


def numbers(rows: list[AuditRow]) -> list[int]:
    return [row.number for row in rows]


def meets(row: AuditRow, filters: AuditFilter) -> bool:
    """Say the same in Python."""
    same = all(getattr(filters, name) in (None, getattr(row, name)) for name in ("actor", "action", "token_id"))
    return same and (filters.since is None or row.at >= filters.since) and (filters.until is None or row.at < filters.until)


FILTERS = [
    AuditFilter(),
    *(AuditFilter(actor=actor) for actor in (*ACTORS, "nobody", "", "a\0b", "\udc80")),
    *(AuditFilter(action=action) for action in (*ACTIONS, "other", "%")),
    *(AuditFilter(token_id=token_id) for token_id in ("a" * 12, "A" * 12, "z" * 12, "a", "a" * 300)),
    *(AuditFilter(since=NOW + offset) for offset in (-40, -10, 0, 5, 40)),
    *(AuditFilter(until=NOW + offset) for offset in (-40, -10, 0, 5, 40)),
    AuditFilter(since=NOW + 5, until=NOW + 20),
    AuditFilter(since=NOW + 20, until=NOW + 5),
    AuditFilter("ana@acme.com", "revoke", "a" * 12, NOW, NOW + 30),
    AuditFilter("os:bob", "create", since=NOW - 12),
]
SOUGHT = [filters for filters in FILTERS if (filters.actor or "").isprintable() and filters != AuditFilter()]


@pytest.mark.parametrize("filters", FILTERS, ids=repr)
def test_what_is_found_is_what_meets_the_filter_newest_first(
    filled: SqlTokenStore, filters: AuditFilter, monkeypatch: pytest.MonkeyPatch
) -> None:
    everything = filled.audit_page(0, 100)
    expected = [row.number for row in reversed(everything) if meets(row, filters)]
    if any(isinstance(text, str) and not text.isprintable() for text in (filters.actor, filters.action, filters.token_id)):
        assert expected == []

    assert len(everything) == ROWS
    assert numbers(filled.newest_audit(filters)) == expected
    for stretch, bound in product((1, 6, 100), (1, 9, ROWS + 1)):
        monkeypatch.setattr(audit, "STRETCH", stretch)
        below, above = ([number for number in expected if number < bound], [number for number in expected if number > bound])
        assert numbers(filled.newest_audit(filters, below=bound, limit=4)) == below[:4]
        assert numbers(filled.newest_audit(filters, above=bound, limit=4)) == above[-4:]


def test_rows_are_whole(filled: SqlTokenStore) -> None:
    assert filled.newest_audit(AuditFilter(), limit=ROWS) == list(reversed(filled.audit_page(0, ROWS)))


def test_actions_are_told_once_in_their_order(filled: SqlTokenStore) -> None:
    assert filled.audit_actions() == sorted(ACTIONS)


def test_an_empty_audit_has_neither(make_place: MakePlace) -> None:
    with make_place("sqlite").opened() as store:
        assert (store.audit_actions(), store.newest_audit(AuditFilter(actor="a"))) == ([], [])


def test_a_list_that_finds_little_reads_an_index_and_no_rows(make_place: MakePlace) -> None:
    """A look at 100,000 whole rows would take a tenth of a second."""
    with make_place("sqlite").opened() as store, store.reading() as connection:
        for filters in SOUGHT:
            query = audit.keys(filters, below=5, above=None, limit=10)
            text = query.compile(dialect=connection.dialect, compile_kwargs={"literal_binds": True})
            plan = [row[3] for row in connection.execute(sa.text(f"EXPLAIN QUERY PLAN {text}"))]
            assert any("COVERING INDEX" in step for step in plan), (filters, plan)
