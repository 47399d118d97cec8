"""What the databases hold by themselves, whoever writes; migrations; and what is PostgreSQL's own: roles, pool, notifications."""

# ruff: noqa: S608 - statements of the tests' own making

from __future__ import annotations

import itertools
import re
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext

from extauthz.adapters.store import database, paging, schema, writers_lock
from extauthz.adapters.store.records import AuditExport, Change, Revocation, Sort, StoredToken, TokenFilter
from extauthz.adapters.store.rows import COLUMNS
from extauthz.adapters.store.sql import SqlTokenStore
from extauthz.errors import StoreError
from tests.support.postgresql import ANA, FINGERPRINT, KEY, NOW, MakePlace, Place, PostgresServer, fill, ids_of, token, use

pytest_plugins = ["tests.support.postgresql"]

A, B, C, D = (letter * 12 for letter in "abcd")
KEYS = {"p1": KEY.key}
REFUSED = (sqlite3.IntegrityError, psycopg.errors.CheckViolation)

# --- what the databases refuse

_ROW = "'d', 'GLOBAL', NULL, '[\"SEARCH\"]', 1, 'eve', 9999999999, 'p1', {digest}"
_COLUMNS = 'id, description, permission, "user", scopes, created_at, created_by, expires_at, pepper_id, digest'
_AUDIT = "action, token_id, source, before, after, pepper_id, mac"
NEVER = {
    "id": "UPDATE tokens SET id = 'xxxxxxxxxxxx' WHERE id = 'aaaaaaaaaaaa'",
    "permission": "UPDATE tokens SET permission = 'GLOBAL' WHERE id = 'aaaaaaaaaaaa'",
    "scopes": "UPDATE tokens SET scopes = '[]' WHERE id = 'aaaaaaaaaaaa'",
    "user": "UPDATE tokens SET \"user\" = 'eve@acme.com' WHERE id = 'aaaaaaaaaaaa'",
    "no user": "UPDATE tokens SET \"user\" = NULL WHERE id = 'aaaaaaaaaaaa'",
    "created_at": "UPDATE tokens SET created_at = created_at + 1 WHERE id = 'aaaaaaaaaaaa'",
    "created_by": "UPDATE tokens SET created_by = 'eve' WHERE id = 'aaaaaaaaaaaa'",
    "pepper_id": "UPDATE tokens SET pepper_id = 'p2' WHERE id = 'aaaaaaaaaaaa'",
    "digest": "UPDATE tokens SET digest = {digest} WHERE id = 'aaaaaaaaaaaa'",
    "expires later": "UPDATE tokens SET expires_at = expires_at + 1 WHERE id = 'aaaaaaaaaaaa'",
    "one of two": "UPDATE tokens SET description = 'x', expires_at = expires_at + 1",
    "revoked_at undone": "UPDATE tokens SET revoked_at = NULL WHERE id = 'bbbbbbbbbbbb'",
    "revoked_at moved": "UPDATE tokens SET revoked_at = revoked_at + 1 WHERE id = 'bbbbbbbbbbbb'",
    "revoked_by": "UPDATE tokens SET revoked_by = 'eve' WHERE id = 'bbbbbbbbbbbb'",
    "revoked_by undone": "UPDATE tokens SET revoked_by = NULL WHERE id = 'bbbbbbbbbbbb'",
    "revoked_why": "UPDATE tokens SET revoked_why = 'x' WHERE id = 'bbbbbbbbbbbb'",
    "revoked_why later": "UPDATE tokens SET revoked_why = 'x' WHERE id = 'dddddddddddd'",
    "rotated_to": "UPDATE tokens SET rotated_to = 'xxxxxxxxxxxx' WHERE id = 'cccccccccccc'",
    "rotated_to undone": "UPDATE tokens SET rotated_to = NULL WHERE id = 'cccccccccccc'",
    "rotated_from": "UPDATE tokens SET rotated_from = 'xxxxxxxxxxxx' WHERE id = 'aaaaaaaaaaaa'",
    "rotated_from undone": "UPDATE tokens SET rotated_from = NULL WHERE id = 'eeeeeeeeeeee'",
    "delete": "DELETE FROM tokens WHERE id = 'aaaaaaaaaaaa'",
    "delete of all": "DELETE FROM tokens",
    "a buried id": f"INSERT INTO tokens ({_COLUMNS}) VALUES ('zzzzzzzzzzzz', {_ROW})",
    "audit update": "UPDATE audit SET actor = actor WHERE number = 1",
    "audit delete": "DELETE FROM audit WHERE number = 6",
    "tombstone update": "UPDATE tombstones SET id = 'yyyyyyyyyyyy'",
    "tombstone delete": "DELETE FROM tombstones",
}
NEVER_SQLITE = {
    "replace": f"INSERT OR REPLACE INTO tokens ({_COLUMNS}) VALUES ('aaaaaaaaaaaa', {_ROW})",
    "replace into": f"REPLACE INTO tokens ({_COLUMNS}) VALUES ('bbbbbbbbbbbb', {_ROW})",
    "replace by row id": f"INSERT OR REPLACE INTO tokens (rowid, {_COLUMNS}) VALUES (1, 'xxxxxxxxxxxx', {_ROW})",
    "ignore": f"INSERT OR IGNORE INTO tokens ({_COLUMNS}) VALUES ('aaaaaaaaaaaa', {_ROW})",
    "upsert": f"INSERT INTO tokens ({_COLUMNS}) VALUES ('aaaaaaaaaaaa', {_ROW}) ON CONFLICT (id) DO UPDATE SET expires_at = 0",
    "row id": "UPDATE OR REPLACE tokens SET rowid = 2 WHERE id = 'aaaaaaaaaaaa'",
    "update or replace": "UPDATE OR REPLACE tokens SET id = 'bbbbbbbbbbbb' WHERE id = 'aaaaaaaaaaaa'",
    "update or ignore": "UPDATE OR IGNORE tokens SET permission = 'GLOBAL'",
    "audit replace": f"INSERT OR REPLACE INTO audit SELECT number, at, 'eve', {_AUDIT} FROM audit",
    "tombstone replace": "INSERT OR REPLACE INTO tombstones SELECT id, 0, 'eve', NULL FROM tombstones",
    "a buried id replaced": f"INSERT OR REPLACE INTO tokens ({_COLUMNS}) VALUES ('zzzzzzzzzzzz', {_ROW})",
}
NEVER_POSTGRESQL = {
    "truncate": "TRUNCATE tokens",
    "truncate audit": "TRUNCATE audit",
    "truncate tombstones": "TRUNCATE tombstones",
    "truncate cascade": "TRUNCATE changes, tokens, audit CASCADE",
    "upsert": f"INSERT INTO tokens ({_COLUMNS}) VALUES ('aaaaaaaaaaaa', {_ROW}) ON CONFLICT (id) DO UPDATE SET pepper_id = 'x'",
    "merge": "MERGE INTO tokens USING (SELECT 1) AS one ON id = 'aaaaaaaaaaaa' WHEN MATCHED THEN DELETE",
    "a buried id ignored": f"INSERT INTO tokens ({_COLUMNS}) VALUES ('zzzzzzzzzzzz', {_ROW}) ON CONFLICT DO NOTHING",
}
DIGESTS = {"sqlite": "zeroblob(32)", "postgresql": r"'\x00'::bytea"}


def guarded(place: Place) -> None:
    """Fill a store with a token in every state: a plain, b and d revoked, c rotated into e, z buried."""
    with place.opened() as store:
        fill(store, token(A), token(B), token(C), token(D, revoked_at=1, revoked_by="root"))
        store.rotate(C, token("e" * 12), NOW + 3600, FINGERPRINT, ANA)
        store.accept_restore(AuditExport((Revocation("z" * 12, NOW, "eve", None),), {}, 0, 0, (0, "")), ANA)
        store.revoke([B], "lost", ANA)


def everything(place: Place) -> list[list[tuple[Any, ...]]]:
    """Return the rows of every table that is guarded."""
    return [place.rows(f"SELECT * FROM {table} ORDER BY 1") for table in ("tokens", "audit", "tombstones")]


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_what_never_changes_is_held_by_the_database(kind: str, make_place: MakePlace) -> None:
    place = make_place(kind)
    guarded(place)
    before = everything(place)
    assert [len(rows) for rows in before] == [5, 9, 1]
    own = NEVER_SQLITE if kind == "sqlite" else NEVER_POSTGRESQL
    with place.raw() as connection:
        for name, statement in (NEVER | own).items():
            with suppress(*REFUSED):
                connection.execute(statement.replace("{digest}", DIGESTS[kind]))
                pytest.fail(f"{name} was not refused")
    assert everything(place) == before


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE tokens SET description = 'another'",
        "UPDATE tokens SET expires_at = expires_at - 1",
        "UPDATE tokens SET revoked_at = 5 WHERE id = 'aaaaaaaaaaaa'",
        "UPDATE tokens SET revoked_at = 5, revoked_by = 'eve', revoked_why = 'x' WHERE revoked_at IS NULL",
        "UPDATE tokens SET rotated_to = 'xxxxxxxxxxxx' WHERE rotated_to IS NULL",
        f"INSERT INTO tokens ({_COLUMNS}) VALUES ('xxxxxxxxxxxx', {_ROW})",
        "DELETE FROM changes",
    ],
)
def test_what_may_change_is_not_refused(place: Place, statement: str) -> None:
    guarded(place)
    before = [*everything(place), place.rows("SELECT * FROM changes")]
    place.run(statement.replace("{digest}", DIGESTS[place.kind]))
    assert [*everything(place), place.rows("SELECT * FROM changes")] != before


def test_a_refusal_of_the_database_is_a_store_error(place: Place) -> None:
    with place.opened() as store:
        fill(store, token())
        with pytest.raises(StoreError, match="never expires later"), store._database.writing() as connection:
            connection.execute(schema.tokens.update().values(expires_at=2**60))
        assert store.get(A) == StoredToken(**{name: getattr(token(), name) for name in COLUMNS})


def test_nobody_stands_in_for_the_tombstones(make_place: MakePlace) -> None:
    """A temporary table of the same name comes first wherever a name is looked up."""
    place = make_place("postgresql")
    guarded(place)
    insert = f"INSERT INTO public.tokens ({_COLUMNS}) VALUES ('zzzzzzzzzzzz', {_ROW})".replace("{digest}", DIGESTS["postgresql"])
    with place.raw() as connection:
        connection.execute("CREATE TEMPORARY TABLE tombstones (id varchar(12))")
        connection.execute("SET search_path = pg_temp, public")
        with pytest.raises(psycopg.errors.CheckViolation):
            connection.execute(insert)


# --- migrations


def migrated_to(place: Place, revision: str) -> None:
    """Make the schema of an older release."""
    config = Config()
    config.set_main_option("script_location", str(Path(schema.__file__).parent / "migrations"))
    with place.opened() as store, store._database.migrating() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, revision)


def tables(place: Place) -> list[tuple[Any, ...]]:
    """Return the names of everything that stands in the database."""
    if place.kind == "sqlite":
        return sorted(place.rows("SELECT type, name FROM sqlite_master"))
    return sorted(
        place.rows("SELECT relkind::text, relname FROM pg_class WHERE relnamespace = 'public'::regnamespace")
        + place.rows("SELECT 'function', proname FROM pg_proc WHERE pronamespace = 'public'::regnamespace")
        + place.rows("SELECT 'column', table_name || column_name FROM information_schema.columns WHERE table_schema = 'public'")
        + place.rows("SELECT 'trigger', tgname FROM pg_trigger WHERE NOT tgisinternal")
    )


@pytest.fixture(params=["sqlite", "postgresql"])
def empty(request: pytest.FixtureRequest, make_place: MakePlace) -> Place:
    """A database without a schema."""
    return make_place(request.param, migrated=False)


def test_a_store_of_0001_keeps_its_tokens(empty: Place) -> None:
    migrated_to(empty, "0001")
    digest = DIGESTS[empty.kind]
    row = f"'ana@acme.com', '[\"CHAT\", \"SEARCH\"]', {NOW}, 'root', {NOW + 86_400}, 'p1', {digest}"
    empty.run(
        "INSERT INTO peppers VALUES ('p1', 'ffffffffffffffff')",
        f"INSERT INTO tokens VALUES ('aaaaaaaaaaaa', 'plain', 'USER', {row}, NULL, NULL)",
        f"INSERT INTO tokens VALUES ('bbbbbbbbbbbb', 'revoked', 'USER', {row}, {NOW + 1}, 'root')",
    )
    before = empty.rows("SELECT * FROM tokens ORDER BY id")
    with empty.opened() as store:
        with pytest.raises(StoreError, match="has schema 0001, this release serves 0003 and 0004: run 'extauthz store migrate'"):
            store.list_tokens()
        with pytest.raises(StoreError, match="run 'extauthz store migrate'"):
            store.revoke([A], None, ANA)
        assert (store.migrate(), store.migrate(), store.revision()) == ("0003", "0003", "0003")

        names = ", ".join(f'"{name}"' for name in COLUMNS)
        assert empty.rows(f"SELECT {names} FROM tokens ORDER BY id") == before
        found = store.get(B)
        assert found is not None
        assert (found.revoked_at, found.revoked_by, found.revoked_why, found.rotated_to) == (NOW + 1, "root", None, None)
        assert ids_of(store.list_tokens()) == ["b", "a"]
        assert (store.read_feed(0).head, store.audit_head()[0]) == (0, 0)
        assert store.revoke([A, B], "leaked", ANA) == (A,)
        with pytest.raises(StoreError, match="exists already"):
            fill(store, token(B))
        assert store.pepper_fingerprints() == {"p1": FINGERPRINT}
    with pytest.raises(REFUSED):
        empty.run("UPDATE tokens SET permission = 'GLOBAL'")


def test_a_store_of_0002_keeps_its_tokens(empty: Place) -> None:
    migrated_to(empty, "0002")
    columns = ", ".join(f'"{name}"' for name in COLUMNS)
    row = f"'plain', 'USER', 'ana@acme.com', '[\"CHAT\"]', {NOW}, 'root', {NOW + 86_400}, 'p1', {DIGESTS[empty.kind]}, NULL, NULL"
    empty.run(
        "INSERT INTO peppers VALUES ('p1', 'ffffffffffffffff')",
        f"INSERT INTO tokens ({columns}) VALUES ('aaaaaaaaaaaa', {row})",
        f"INSERT INTO token_usage VALUES ('aaaaaaaaaaaa', {NOW}, '')",
    )
    with empty.opened() as store:
        with pytest.raises(StoreError, match="has schema 0002, this release serves 0003 and 0004: run 'extauthz store migrate'"):
            store.list_tokens()
        assert store.migrate() == "0003"
        assert [(found.id, found.last_used_at) for found in store.page(sort=Sort.RECENTLY_USED)] == [(A, NOW)]


@pytest.mark.parametrize(("revision", "in_the_way"), [(None, "peppers"), ("0001", "tombstones"), ("0001", "audit")])
def test_a_failed_migration_leaves_nothing(empty: Place, revision: str | None, in_the_way: str) -> None:
    """Somebody has a table of the same name: what was made before it must not stay."""
    if revision is not None:
        migrated_to(empty, revision)
    empty.run(f"CREATE TABLE {in_the_way} (mine VARCHAR(9))")
    before = tables(empty)
    with empty.opened() as store:
        with pytest.raises(StoreError, match=in_the_way):
            store.migrate()
        assert tables(empty) == before
        assert store.revision() == revision
        empty.run(f"DROP TABLE {in_the_way}")
        assert store.migrate() == "0003"
        fill(store, token())


def test_a_newer_store_is_left_alone(place: Place) -> None:
    with place.opened() as store:
        fill(store, token())
        place.run("UPDATE alembic_version SET version_num = '9999'")
        for attempt in (store.migrate, store.list_tokens, lambda: store.revoke([A], None, ANA)):
            with pytest.raises(StoreError):
                attempt()
        assert store.revision() == "9999"


def test_an_empty_database_names_a_hint(empty: Place) -> None:
    with empty.opened() as store:
        assert store.revision() is None
        for attempt in (store.list_tokens, store.audit_head, lambda: fill(store, token())):
            with pytest.raises(StoreError, match="the token store is empty: run 'extauthz store migrate'"):
                attempt()


def test_migrations_make_the_tables_that_are_used(place: Place) -> None:
    with place.opened() as store, store._database.migrating() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, schema.metadata) == []


def test_ids_are_compared_by_their_bytes_whatever_the_language_of_the_database(make_place: MakePlace) -> None:
    """In most languages "a" comes before "B": pages would leave tokens out."""
    found = make_place("postgresql").rows(
        "SELECT DISTINCT collation_name FROM information_schema.columns WHERE table_schema = 'public' "
        "AND (column_name IN ('token_id', 'rotated_from', 'rotated_to') OR (table_name, column_name) IN (('tokens', 'id'), "
        "('tombstones', 'id')))"
    )
    assert found == [("C",)]


def test_two_who_migrate_at_once_both_succeed(make_place: MakePlace) -> None:
    place = make_place("postgresql", migrated=False)
    barrier = threading.Barrier(4)
    outcomes: list[object] = []

    def migrate() -> None:
        with place.opened() as store:
            barrier.wait(timeout=30)
            try:
                outcomes.append(store.migrate())
            except StoreError as error:
                outcomes.append(error)

    threads = [threading.Thread(target=migrate) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)

    assert outcomes == ["0003"] * 4


# --- roles


def as_role(place: Place, role: str) -> Place:
    """Return the place as an account with this role sees it."""
    return Place(place.kind, f"{place.where}&options=-c%20role%3D{role}")


DENIED = psycopg.errors.InsufficientPrivilege
OF_ADMINS = [
    "UPDATE tokens SET description = 'x'",
    "UPDATE store_state SET head = 0",
    "DELETE FROM changes",
    "INSERT INTO changes VALUES (99, 'x', 'revoked', 1)",
    f"INSERT INTO tokens ({_COLUMNS}) VALUES ('xxxxxxxxxxxx', {_ROW})".replace("{digest}", DIGESTS["postgresql"]),
    "INSERT INTO peppers VALUES ('p9', 'x')",
    f"INSERT INTO audit SELECT 99, at, actor, {_AUDIT} FROM audit LIMIT 1",
    "INSERT INTO tombstones VALUES ('x', 1, 'x', 'x')",
]
OF_OWNERS = [
    "DELETE FROM tokens",
    "TRUNCATE tokens",
    "UPDATE audit SET actor = 'eve'",
    "DELETE FROM audit",
    "DELETE FROM tombstones",
    "UPDATE peppers SET fingerprint = 'x'",
    "DELETE FROM token_usage",
    "DELETE FROM store_state",
    "UPDATE changes SET kind = 'created'",
    "UPDATE alembic_version SET version_num = '0001'",
    "ALTER TABLE audit DISABLE TRIGGER ALL",
    "DROP TRIGGER tokens_update ON tokens",
    "DROP TABLE audit",
    "CREATE TABLE mine (id int)",
    "CREATE OR REPLACE FUNCTION extauthz_append_only() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NEW; END $$",
    "SET session_replication_role = replica",
]


def refused_all(place: Place, statements: list[str]) -> None:
    with place.raw() as connection:
        for statement in statements:
            with pytest.raises(DENIED):
                connection.execute(statement)


def test_a_sidecar_reads_everything_and_writes_uses_alone(make_place: MakePlace) -> None:
    place = make_place("postgresql")
    guarded(place)
    sidecar = as_role(place, "extauthz_sidecar")
    before = everything(place)
    with sidecar.opened() as store:
        assert store.get(A) is not None
        assert store.verify_audit(KEYS) is None
        assert store.read_feed(0).head > 0
        assert store.status(NOW).revision == "0003"
        assert [len(rows) for rows in everything(sidecar)] == [5, 9, 1]
        use(store, {A: (NOW, "10.0.0.1")})
        use(store, {A: (NOW + 1000, "10.0.0.1"), B: (NOW, "10.0.0.1")})
        for attempt in (
            lambda: fill(store, token("x" * 12)),
            lambda: store.revoke([A], None, ANA),
            lambda: store.rotate(A, token("x" * 12), NOW, FINGERPRINT, ANA),
            lambda: store.accept_restore(AuditExport((), {}, 0, 0, (0, "")), ANA),
        ):
            with pytest.raises(StoreError, match="permission denied"):
                attempt()
    refused_all(sidecar, OF_ADMINS + OF_OWNERS)

    assert everything(place) == before
    assert place.rows("SELECT token_id, last_used_at FROM token_usage ORDER BY 1") == [(A, NOW + 1000), (B, NOW)]


def test_an_admin_does_everything_that_is_done_to_tokens_and_nothing_else(make_place: MakePlace) -> None:
    place = make_place("postgresql")
    admin = as_role(place, "extauthz_admin")
    guarded(admin)
    before = everything(place)
    with admin.opened() as store:
        store.revoke([A], None, Change(NOW + 30 * 86_400, "root"))
        assert store.read_feed(0).oldest > 1, "old rows of the feed were not removed"
        use(store, {A: (NOW, "10.0.0.1")})
        assert store.migrate() == "0003"
        assert store.verify_audit(KEYS, store.audit_head()) is None
    refused_all(admin, OF_OWNERS)

    assert everything(place)[1][:9] == before[1]


@contextmanager
def without_roles(server: PostgresServer) -> Iterator[None]:
    """Take the roles away, which belong to all databases of the server."""
    names = ("extauthz_admin", "extauthz_sidecar")
    with server.connect() as connection:
        for name in names:
            connection.execute(f"ALTER ROLE {name} RENAME TO away_{name}".encode())
        try:
            yield
        finally:
            for name in names:
                connection.execute(f"DROP ROLE IF EXISTS {name}".encode())
                connection.execute(f"ALTER ROLE away_{name} RENAME TO {name}".encode())


def test_who_may_not_make_roles_migrates_without(postgresql: PostgresServer) -> None:
    with postgresql.connect() as connection:
        connection.execute("CREATE ROLE plain LOGIN")
    name = postgresql.make("template0", owner="plain")
    try:
        url = postgresql.url(name).replace("postgres@", "plain@")
        with without_roles(postgresql), closing(SqlTokenStore(url, audit=KEY)) as store:
            assert store.migrate() == "0003"
            fill(store, token())
            with postgresql.connect() as connection:
                assert connection.execute("SELECT 1 FROM pg_roles WHERE rolname ~ '^extauthz_'").fetchall() == []
    finally:
        postgresql.drop(name)
        with postgresql.connect() as connection:
            connection.execute("DROP ROLE plain")


def test_who_may_not_make_roles_gives_rights_to_those_that_are_there(postgresql: PostgresServer) -> None:
    with postgresql.connect() as connection:
        connection.execute("CREATE ROLE plain LOGIN")
    name = postgresql.make("template0", owner="plain")
    try:
        with closing(SqlTokenStore(postgresql.url(name).replace("postgres@", "plain@"), audit=KEY)) as store:
            assert store.migrate() == "0003"
            fill(store, token())
        with closing(SqlTokenStore(postgresql.url(name, options="-c%20role%3Dextauthz_sidecar"))) as store:
            assert store.get(A) is not None
    finally:
        postgresql.drop(name)
        with postgresql.connect() as connection:
            connection.execute("DROP ROLE plain")


def test_the_migration_makes_the_roles(postgresql: PostgresServer) -> None:
    with without_roles(postgresql):
        name = postgresql.make("template0")
        with closing(SqlTokenStore(postgresql.url(name))) as store:
            store.migrate()
        with postgresql.connect() as connection:
            made = connection.execute(
                "SELECT rolname, rolcanlogin FROM pg_roles WHERE rolname ~ '^extauthz_' ORDER BY 1"
            ).fetchall()
        postgresql.drop(name)
    assert made == [("extauthz_admin", False), ("extauthz_sidecar", False)]


# --- the connection


@pytest.fixture
def postgres_place(make_place: MakePlace) -> Place:
    return make_place("postgresql")


def cut(place: Place) -> None:
    """End every other connection to the database."""
    with place.raw() as connection:
        others = "datname = current_database() AND pid <> pg_backend_pid()"
        connection.execute(f"SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE {others}")


def test_cut_connections_are_made_anew_without_an_error(postgres_place: Place) -> None:
    with postgres_place.opened() as store:
        fill(store, token())
        actions: list[Callable[[], object]] = [
            lambda: store.get(A),
            lambda: fill(store, token(B)),
            lambda: store.revoke([B], None, ANA),
            store.migrate,
            store.revision,
            store.audit_head,
        ]
        for action in actions:
            at_once = threading.Barrier(4)
            threads = [threading.Thread(target=lambda gate=at_once: (gate.wait(30), store.get(A))) for _ in range(4)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(timeout=30)
            cut(postgres_place)
            action()
        assert [row.action for row in store.audit_page()] == ["create", "create", "revoke"]


def test_a_connection_cut_within_a_change_undoes_it_and_is_told(postgres_place: Place) -> None:
    with postgres_place.opened() as store:
        fill(store, token())
        before = store.audit_page(), store.read_feed(0), store.list_tokens()
        cuts = itertools.count()

        def look(_connection: object, _cursor: object, statement: str, *_: object) -> None:
            if statement.startswith("INSERT INTO audit"):
                next(cuts)
                cut(postgres_place)

        engine = store._database._writers
        sa.event.listen(engine, "before_cursor_execute", look)
        with pytest.raises(StoreError, match="cannot be used"):
            store.revoke([A], None, ANA)
        sa.event.remove(engine, "before_cursor_execute", look)

        assert next(cuts) == 1, "a change that was under way was begun again"
        assert (store.audit_page(), store.read_feed(0), store.list_tokens()) == before
        assert store.revoke([A], None, ANA) == (A,)


def test_what_each_transaction_is_for_the_server(postgres_place: Place) -> None:
    """Who reads has one state and can change nothing; who writes sees what others committed. The server may have other defaults."""
    name = str(postgres_place.rows("SELECT current_database()")[0][0])
    postgres_place.run(f"ALTER DATABASE {name} SET default_transaction_isolation = 'serializable'")
    with postgres_place.opened() as store:
        for transaction, *expected in (
            (store._database.reading, "repeatable read", "on"),
            (store._database.writing, "read committed", "off"),
            (store._database.migrating, "read committed", "off"),
            (store._database.reading, "repeatable read", "on"),
        ):
            with transaction() as connection:
                settings = ("transaction_isolation", "transaction_read_only", "application_name")
                found = [connection.scalar(sa.text(f"SHOW {setting}")) for setting in settings]
                driver: Any = connection.connection.driver_connection
                assert driver.prepare_threshold is None, "a prepared statement belongs to a session"
            assert found == [*expected, "extauthz"]
        with pytest.raises(StoreError, match="read-only transaction"), store._database.reading() as connection:
            connection.execute(sa.text("DELETE FROM changes"))


def test_values_are_in_no_error_of_the_server(postgres_place: Place) -> None:
    """A traceback that somebody logs would have them: digests are among them."""
    with postgres_place.opened() as store:
        for transaction in (store._database.reading, store._database.writing):
            with pytest.raises(StoreError, match="nowhere") as caught, transaction() as connection:
                connection.execute(sa.text("SELECT :secret FROM nowhere"), {"secret": "s3cret"})
            assert "s3cret" not in f"{caught.value}{caught.value.__cause__}"


def test_a_connection_of_the_pool_has_an_end_again(postgres_place: Place) -> None:
    """A migration took its own away: the next who gets the connection would wait for ever for a server that says nothing."""
    bounds: list[tuple[bool, float | None]] = []

    def look(connection: sa.Connection, *_: object) -> None:
        driver: Any = connection.connection.driver_connection
        bounds.append((driver.deadline is not None and driver.deadline == database._deadline.get(), driver.patience))

    with postgres_place.opened() as store:
        with store._database.migrating():
            pass
        sa.event.listen(store._database._writers, "before_cursor_execute", look)
        for transaction in (store._database.reading, store._database.writing):
            bounds.clear()
            with transaction() as connection:
                connection.execute(sa.text("SELECT 1"))
            assert (bounds[0], set(bounds[1:])) == ((True, None), {(False, database.DEADLINE)})


def test_nobody_waits_long_for_a_connection(postgres_place: Place) -> None:
    with postgres_place.opened() as store:
        held = [store._database.reading() for _ in range(database.POOL_SIZE)]
        for each in held:
            each.__enter__()
        started = time.monotonic()
        with pytest.raises(StoreError, match="all 4 connections are in use: try again"):
            store.get(A)
        assert time.monotonic() - started < 20
        for each in held:
            each.__exit__(None, None, None)
        assert store.get(A) is None


def test_nobody_waits_long_for_another_writer(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "LOCK_TIMEOUT", 0.2)
    with place.opened() as store, place.opened() as other, other._database.writing():
        started = time.monotonic()
        with pytest.raises(StoreError, match="another change is under way, try again"):
            fill(store, token())
        assert time.monotonic() - started < 20
        assert store.list_tokens() == []


def test_the_server_ends_what_takes_too_long(postgres_place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "TIMEOUT", 0.2)
    with postgres_place.opened() as store:
        for transaction in (store._database.reading, store._database.writing):
            with pytest.raises(StoreError, match="statement timeout"), transaction() as connection:
                connection.execute(sa.text("SELECT pg_sleep(10)"))
        with store._database.migrating() as connection:
            connection.execute(sa.text("SELECT pg_sleep(0.3)"))


PASSWORD = "s3cret'%40/:@ "


@pytest.mark.parametrize("host", ["127.0.0.1:1", "nowhere.invalid", ""])
def test_a_server_that_is_not_there_is_named_without_its_password(host: str, tmp_path: Path) -> None:
    place = f"postgresql://ana@{host}/tokens?host={tmp_path}" if not host else f"postgresql://ana@{host}/tokens"
    with closing(SqlTokenStore(place, password=PASSWORD, audit=KEY)) as store:
        started = time.monotonic()
        for attempt in (store.list_tokens, store.migrate, store.revision, lambda: fill(store, token())):
            with pytest.raises(StoreError, match="cannot be used") as caught:
                attempt()
            assert f"postgresql://ana@{host}/tokens" in str(caught.value)
            assert "\n" not in str(caught.value)
            shown = "".join(map(str, (caught.value, caught.value.__cause__, store.name)))
            assert "s3cret" not in shown
        assert time.monotonic() - started < 60


def test_the_password_reaches_the_server(postgresql: PostgresServer) -> None:
    with postgresql.database() as name, postgresql.login(name, f"role_{name}", PASSWORD):
        for password, opens in ((PASSWORD, True), (PASSWORD.strip(), False), (None, False)):
            with closing(SqlTokenStore(postgresql.url(name, user=f"role_{name}"), password=password)) as store:
                if opens:
                    assert store.list_tokens() == []
                else:
                    with pytest.raises(StoreError, match="cannot be used") as refused:
                        store.list_tokens()
                    assert "s3cret" not in str(refused.value)


@pytest.mark.parametrize(
    "place",
    [
        "postgresql://ana:s3cret@db/tokens",
        "postgresql://ana@db/tokens?password=s3cret",
        "postgresql://ana@db/tokens?sslpassword=s3cret",
        "postgresql://ana:s3cret@db:port/tokens",
        "mysql://ana:s3cret@db/tokens",
        "s3cret://",
        "://s3cret",
    ],
)
def test_an_address_that_will_not_do_is_refused_and_not_shown(place: str) -> None:
    with pytest.raises(StoreError, match="token store") as caught:
        SqlTokenStore(place)

    assert "s3cret" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_options_of_the_address_are_used_and_not_shown(postgresql: PostgresServer) -> None:
    with closing(SqlTokenStore("postgresql://ana@db.acme.com:6432/tokens?sslmode=verify-full&sslrootcert=/etc/ca.pem")) as store:
        assert store.name == "postgresql://ana@db.acme.com:6432/tokens"
        with pytest.raises(StoreError, match=re.escape("sslmode=verify-full&sslrootcert=")):
            store.backup(Path("backup"))


# --- notifications


def test_a_commit_is_notified_with_the_head_and_nothing_else_is(postgres_place: Place) -> None:
    with postgres_place.opened() as store, postgres_place.raw() as listener:
        listener.execute("LISTEN extauthz_changes")
        fill(store, token())
        store.add_many([token(B), token(C)], {"p1": FINGERPRINT}, ANA)
        store.revoke(["x" * 12], None, ANA)
        use(store, {A: (NOW, "10.0.0.1")})
        store.list_tokens()
        with suppress(StoreError):
            fill(store, token(D), token())
        store.rotate(A, token("e" * 12), NOW + 60, FINGERPRINT, ANA)
        store.accept_restore(AuditExport((), {}, 0, 0, (0, "")), ANA)
        told = [notification.payload for notification in listener.notifies(timeout=5, stop_after=5)]

        assert told == ["1", "3", "4", "6", "7"]
        assert list(listener.notifies(timeout=0.1)) == []


# --- the cost of a page


def plan_of(place: Place, store: SqlTokenStore, action: Callable[[], object]) -> str:
    """Return how the database does the last statement of an action."""
    asked: list[tuple[str, Any]] = []
    sa.event.listen(
        store._database._writers,
        "before_cursor_execute",
        lambda _connection, _cursor, statement, parameters, *_: asked.append((statement, parameters)),
    )
    action()
    statement, parameters = asked[-1]
    explain = "EXPLAIN QUERY PLAN " if place.kind == "sqlite" else "EXPLAIN "
    with place.raw() as connection:
        return "\n".join(str(row[-1]) for row in connection.execute(explain + statement, parameters).fetchall())


def test_a_page_reads_its_index_and_sorts_nothing(place: Place) -> None:
    with place.opened() as store:
        many = [
            token(f"{number:012}", created_at=NOW + number // 500, user=f"user-{number % 100}@acme.com") for number in range(10_000)
        ]
        store.add_many(many, {"p1": FINGERPRINT}, ANA)
        place.run("INSERT INTO token_usage SELECT id, created_at, '' FROM tokens", "ANALYZE")
        key = (NOW + 10, f"{5_250:012}")
        for wanted, sort, index in (
            (TokenFilter(), Sort.NEWEST, "tokens_by_age"),
            (TokenFilter(), Sort.OLDEST, "tokens_by_age"),
            (TokenFilter(user="user-7@acme.com"), Sort.NEWEST, "tokens_by_user"),
            (TokenFilter(), Sort.EXPIRES_SOONEST, "tokens_by_expiry"),
            (TokenFilter(expires_after=NOW), Sort.EXPIRES_LATEST, "tokens_by_expiry"),
            (TokenFilter(), Sort.RECENTLY_USED, "token_usage_by_time"),
            (TokenFilter(unused_since=NOW + 20), Sort.LEAST_RECENTLY_USED, "token_usage_by_time"),
        ):
            plan = plan_of(place, store, lambda wanted=wanted, sort=sort: store.page(wanted, after=key, limit=20, sort=sort))
            assert index in plan
            assert not re.search(r"(?i)\bsort\b(?!ed)|TEMP B-TREE", plan)
            column = {"tokens_by_expiry": "expires_at", "token_usage_by_time": "last_used_at"}.get(index, "created_at")
            assert re.search(rf"Index Cond: .*ROW\({column}, \(?(token_)?id|\({column},(token_)?id\)[<>]\(\?,\?\)", plan)
        assert [found.id for found in store.page(after=key, limit=2)] == [f"{5_249:012}", f"{5_248:012}"]
        assert re.search("tokens_pkey|sqlite_autoindex_tokens_1", plan_of(place, store, lambda: store.get(A)))


def test_a_list_that_few_tokens_meet_is_not_read_along_an_index(place: Place) -> None:
    """Row after row of an index, from all over the table, took ten times as long at 100,000 tokens."""
    with place.opened() as store, pytest.MonkeyPatch.context() as patched:
        patched.setattr(paging, "STRETCH", 2)
        store.add_many([token(f"{number:012}", created_at=NOW + number) for number in range(2_000)], {"p1": FINGERPRINT}, ANA)
        place.run("INSERT INTO token_usage SELECT id, created_at, '' FROM tokens", "ANALYZE")
        for sort in Sort:
            plan = plan_of(place, store, lambda sort=sort: store.page(TokenFilter(scope="NONE"), limit=20, sort=sort))
            assert re.search("Seq Scan on tokens|SCAN tokens(?! USING)", plan)
            assert not re.search("tokens_by|token_usage_by", plan)


# --- the lock of the writers


ADVISORY = f"SELECT pg_try_advisory_lock({writers_lock.LOCK})"
HOLDING = [
    *(
        f"LOCK TABLE {table} IN {mode} MODE"
        for table in ("tokens", "token_usage", "audit", "changes", "peppers", "tombstones", "alembic_version")
        for mode in ("ACCESS EXCLUSIVE", "EXCLUSIVE", "SHARE ROW EXCLUSIVE", "SHARE", "SHARE UPDATE EXCLUSIVE", "ROW EXCLUSIVE")
    ),
    "SELECT 1 FROM store_state FOR UPDATE",
    "SELECT 1 FROM store_state FOR NO KEY UPDATE",
    "SELECT 1 FROM store_state FOR SHARE",
    "SELECT 1 FROM store_state FOR KEY SHARE",
    "LOCK TABLE store_state IN ACCESS EXCLUSIVE MODE",
    "LOCK TABLE store_state IN EXCLUSIVE MODE",
    "LOCK TABLE store_state IN SHARE ROW EXCLUSIVE MODE",
    "LOCK TABLE store_state IN SHARE MODE",
    "LOCK TABLE store_state IN SHARE UPDATE EXCLUSIVE MODE",
    "LOCK TABLE store_state IN ROW EXCLUSIVE MODE",
    "LOCK TABLE store_state IN ROW SHARE MODE",
]


def test_an_account_of_a_sidecar_cannot_keep_writers_waiting(make_place: MakePlace) -> None:
    """Whatever it may lock, it locks for good: the advisory lock that writers once took, and every table that they read or lock."""
    place = make_place("postgresql")
    with as_role(place, "extauthz_sidecar").raw() as sidecar, as_role(place, "extauthz_admin").opened() as store:
        assert sidecar.execute(ADVISORY).fetchall() == [(True,)]
        sidecar.execute("BEGIN")
        for statement in HOLDING:
            sidecar.execute("SAVEPOINT before")
            try:
                sidecar.execute(statement)
            except DENIED:
                sidecar.execute("ROLLBACK TO before")
        fill(store, token())
        assert store.get(A) is not None
        assert store.revoke([A], "lost", ANA) == (A,)
        with place.opened() as owner:
            assert owner.migrate() == "0003"
    assert len(place.rows("SELECT id FROM tokens WHERE revoked_at IS NOT NULL")) == 1


def test_writers_of_an_earlier_release_wait_for_those_of_this_one(make_place: MakePlace) -> None:
    place = make_place("postgresql")
    with place.opened() as store, place.raw() as earlier:
        with store._database.writing():
            assert earlier.execute(ADVISORY).fetchall() == [(False,)]
        assert earlier.execute(ADVISORY).fetchall() == [(True,)]


def test_a_store_without_its_state_is_told_as_before(make_place: MakePlace) -> None:
    place = make_place("postgresql")
    with place.opened() as store:
        place.run("DROP TABLE store_state")
        with pytest.raises(StoreError, match="store_state"):
            fill(store, token())
        place.run("DROP TABLE alembic_version")
        with pytest.raises(StoreError, match="is empty: run 'extauthz store migrate'"):
            fill(store, token())
