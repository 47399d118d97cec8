"""Faults of the token store, on both databases where both can have them."""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
from psycopg.conninfo import conninfo_to_dict

from extauthz.adapters.store.following import CHANNEL
from extauthz.adapters.store.sql import SqlTokenStore
from tests.faults.injector import injector
from tests.faults.installation import PATIENCE, Installation, Needs, asked
from tests.faults.load import Client
from tests.support.next_releases import NEXT, migrate
from tests.support.postgres_server import PostgresServer
from tests.support.transports import eventually
from tests.support.unprivileged import bound_by_modes
from tests.support.world import bearer

IMPORT, LARGE_IMPORT, SMALL_IMPORT = 100_000, 300_000, 20_000
REVOCATIONS = 50
_numbers = itertools.count()


def server_of(it: Installation) -> PostgresServer:
    """Return the server of a store on PostgreSQL."""
    assert it.server is not None
    return it.server


def database_of(it: Installation) -> str:
    """Return the name of its database."""
    return str(conninfo_to_dict(str(it.place.where))["dbname"])


# --- the database server


@injector()
def database_connections_are_cut(it: Installation) -> Iterator[None]:
    """An administrator ends every connection."""
    cut(it)
    yield


def cut(it: Installation) -> None:
    """End every connection to the store, of which there is one at least."""
    with server_of(it).connect() as connection:
        query = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s AND pid <> pg_backend_pid()"
        found = connection.execute(query, (database_of(it),)).fetchall()
    if it.sidecar.process is not None and it.sidecar.process.poll() is None:
        assert found, "nobody was connected"


@injector()
def database_paused(it: Installation) -> Iterator[None]:
    """Its processes stop: connections stay open, and nothing is answered."""
    with server_of(it).paused():
        yield


@injector()
def database_killed(it: Installation) -> Iterator[None]:
    """Its processes are killed, as by a power cut, and started again."""
    server_of(it).kill()
    try:
        yield
    finally:
        server_of(it).start()


@injector()
def database_read_only(it: Installation) -> Iterator[None]:
    """Nothing can be written: a standby, or a SQLite file that belongs to somebody else."""
    if it.server is not None:
        name = database_of(it)
        with it.server.connect() as connection:
            connection.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on".encode())
        cut(it)
        yield
        with it.server.connect() as connection:
            connection.execute(f"ALTER DATABASE {name} RESET default_transaction_read_only".encode())
        return
    file = Path(it.place.where)
    it.prefix = tuple(bound_by_modes())
    for path, mode in ((file, 0o444), (file.parent, 0o555)):
        path.chmod(mode)
    yield
    for path, mode in ((file.parent, 0o700), (file, 0o600)):
        path.chmod(mode)
    it.prefix = ()


# --- the file


@injector(Needs(tmpfs=True), leaves_trace=True)
def store_disk_full(it: Installation) -> Iterator[None]:
    """The file system of a SQLite store has no byte left."""
    filler = Path(it.place.where).parent / "filler"
    with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
        # As root could, and a store elsewhere would take: no more than the file system of this installation has.
        for size in (65536, 1):
            with contextlib.suppress(OSError):
                for _ in range(5 * 1024 * 1024 // size if it.needs.tmpfs and os.geteuid() == 0 else 0):
                    file.write(b"x" * size)
    if os.path.ismount(filler.parent):
        assert shutil.disk_usage(filler.parent).free == 0
    yield
    filler.unlink(missing_ok=True)


@injector()
def store_file_is_gone(it: Installation) -> Iterator[None]:
    """Somebody moves the SQLite file away, and back."""
    file, away = Path(it.place.where), it.folder / "away"
    away.mkdir()
    moved = [one for one in file.parent.iterdir() if one.name.startswith(file.name)]
    for one in moved:
        one.rename(away / one.name)
    yield
    for one in away.iterdir():
        one.rename(file.parent / one.name)
    away.rmdir()


@injector()
def store_locked_by_a_writer(it: Installation) -> Iterator[None]:
    """A writer begins and does not end."""
    with it.place.raw() as connection:
        connection.execute("BEGIN IMMEDIATE" if it.database == "sqlite" else "BEGIN")
        connection.execute("UPDATE store_state SET head = head")
        yield
        connection.execute("ROLLBACK")


# --- another store in its place


@injector(Needs(alone=True), leaves_trace=True)
def store_restored_from_a_backup(it: Installation) -> Iterator[None]:
    """An older state of the store is put in its place; its administrator accepts the restore with the exported audit."""
    yield from _put_in_place(it, older=True)


@injector(Needs(alone=True), leaves_trace=True)
def store_replaced_by_another(it: Installation) -> Iterator[None]:
    """A store with other tokens is put in its place, and later the right one again, which its administrator accepts."""
    yield from _put_in_place(it, older=False)


def _put_in_place(it: Installation, *, older: bool) -> Iterator[None]:
    exported = it.folder / "audit.jsonl"
    if it.server is None:
        swap, swap_back = _swapped_files(it, older=older)
    else:
        swap, swap_back = _swapped_databases(it, it.server, older=older)
    exported.write_text(it.sidecar.command("audit", "export").stdout)
    changed_at = time.monotonic()

    def has_heard() -> bool:
        looked_at = time.monotonic()
        return it.metric("extauthz_feed_age_seconds") < looked_at - changed_at

    # What was put back is older only for a sidecar that has seen what came after it.
    eventually(has_heard, seconds=PATIENCE)
    swap()
    yield
    if not older:
        swap_back()
    done = it.sidecar.command("store", "accept-restore", "--audit", str(exported), "--yes")
    assert done.exit_code == 0, done.output
    # A token that was made after the backup is gone with it.
    it.stock(it.fresh_tokens + 1)


def _swapped_files(it: Installation, *, older: bool) -> tuple[Callable[[], None], Callable[[], None]]:
    file = Path(it.place.where)
    # The phase before has left its own behind.
    other, kept = (it.folder / f"{what}-{next(_numbers)}.db" for what in ("other", "kept"))
    if older:
        with it.store() as store:
            store.backup(other)
    else:
        with contextlib.closing(SqlTokenStore(other, create=True)) as store:
            store.migrate()
    it.make_tokens(1)

    def put(source: Path) -> None:
        for ending in ("-wal", "-shm"):
            Path(f"{file}{ending}").unlink(missing_ok=True)
        source.replace(file)

    def swap() -> None:
        with it.store() as store:
            store.backup(kept)
        put(other)

    return swap, lambda: put(kept)


def _swapped_databases(it: Installation, server: PostgresServer, *, older: bool) -> tuple[Callable[[], None], Callable[[], None]]:
    name = database_of(it)
    # The phase before has left its own behind.
    other, kept = (f"{name}_{what}_{next(_numbers)}" for what in ("other", "kept"))

    def run(statement: str) -> None:
        with server.connect() as connection:
            connection.execute(statement.encode())

    def shut() -> None:
        run(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
        with server.connect() as connection:
            connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", (name,))
            eventually(lambda: not _connected(connection, name), seconds=PATIENCE)

    if older:
        shut()
        run(f"CREATE DATABASE {other} TEMPLATE {name}")
        run(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")
    else:
        run(f"ALTER DATABASE {server.make()} RENAME TO {other}")
    it.make_tokens(1)

    def exchange(away: str, here: str) -> None:
        shut()
        run(f"ALTER DATABASE {name} RENAME TO {away}")
        run(f"ALTER DATABASE {here} RENAME TO {name}")
        run(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")

    return (lambda: exchange(kept, other)), (lambda: exchange(other, kept))


def _connected(connection: psycopg.Connection[object], database: str) -> bool:
    return bool(connection.execute("SELECT 1 FROM pg_stat_activity WHERE datname = %s", (database,)).fetchall())


# --- changes


def imported(it: Installation, count: int) -> None:
    """Commit so many changes at once, of tokens that nobody here has."""
    numbers = "n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?)".replace("?", str(count))
    token_id = "printf('%012d', head + i)" if it.database == "sqlite" else "lpad((head + i)::text, 12, '0')"
    with it.place.raw() as connection:
        for statement in (
            "BEGIN",
            f"WITH RECURSIVE {numbers} INSERT INTO changes SELECT head + i, {token_id}, 'created', 0 FROM store_state, n",  # noqa: S608
            f"UPDATE store_state SET head = head + {count}",  # noqa: S608
            *(() if it.database == "sqlite" else (f"SELECT pg_notify('{CHANNEL}', '')",)),
            "COMMIT",
        ):
            connection.execute(statement)


def _import(it: Installation, count: int) -> Iterator[None]:
    ids = it.metric("extauthz_known_ids")
    imported(it, count)
    yield
    it.back = lambda: it.metric("extauthz_known_ids") >= ids + count


@injector(Needs(alone=True))
def a_hundred_thousand_changes(it: Installation) -> Iterator[None]:
    """One import of 100,000 tokens."""
    yield from _import(it, SMALL_IMPORT if it.quick else IMPORT)


@injector(Needs(alone=True))
def three_hundred_thousand_changes(it: Installation) -> Iterator[None]:
    """One import of 300,000 tokens."""
    yield from _import(it, SMALL_IMPORT if it.quick else LARGE_IMPORT)


@injector(Needs(alone=True))
def migrated_by_the_next_release(it: Installation) -> Iterator[None]:
    """The next release migrates the store, and only adds; this one goes on."""
    if it.place.rows("SELECT version_num FROM alembic_version") != [(NEXT,)]:
        migrate(it.place, NEXT, it.folder)
    yield


@injector()
def tokens_are_revoked(it: Installation) -> Iterator[None]:
    """Fifty known tokens are revoked, one after the other; each is asked for without a pause until it is refused."""
    client, taken = Client(it.envoy_port), []
    for user, text in it.make_tokens(5 if it.quick else REVOCATIONS):
        eventually(lambda user=user, text=text: client.ask(asked(bearer(text), user)).good, seconds=PATIENCE)  # type: ignore[misc]
        it.revoke(text)
        revoked_at = time.monotonic()
        while (answer := client.ask(asked(bearer(text), user))).good:
            assert time.monotonic() - revoked_at < PATIENCE, "it is allowed for ever"
        assert answer.outcome == "401 token_invalid", answer
        taken.append(time.monotonic() - revoked_at)
        # From now on an allow would be one of what must be refused.
        client.ask(asked(bearer(text), None))
    it.measured = max(taken)
    client.close()
    yield
