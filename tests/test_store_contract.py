"""What every token store promises, asked of each of them; then what only a file can do wrong."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from hypothesis import given, settings
from hypothesis import strategies as st

from extauthz.adapters.store import schema
from extauthz.adapters.store.memory import MemoryTokenStore
from extauthz.adapters.store.reader import SqliteReader
from extauthz.adapters.store.rows import StoreError
from extauthz.adapters.store.sql import SqlTokenStore
from extauthz.core.model import AuthType, Reason
from extauthz.core.tokens import TokenRecord
from extauthz.ports import Unavailable

PROJECT = Path(__file__).parents[1]


def token(token_id: str = "aaaaaaaaaaaa", **changes: object) -> TokenRecord:
    """Return a record with these changes."""
    plain = TokenRecord(
        id=token_id,
        description="Ana's notebook",
        permission=AuthType.USER,
        user="ana@acme.com",
        scopes=frozenset({"SEARCH", "CHAT"}),
        created_at=1_800_000_000,
        created_by="root",
        expires_at=1_800_086_400,
        pepper_id="p1",
        digest=bytes(range(32)),
    )
    return replace(plain, **changes)  # type: ignore[arg-type]


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty, migrated SQLite store: a file to copy, because a migration takes long."""
    path = tmp_path_factory.mktemp("template") / "tokens.db"
    store = SqlTokenStore(path, create=True)
    store.migrate()
    store.close()
    assert [file.name for file in path.parent.iterdir()] == ["tokens.db"]
    return path


@dataclass
class Pair:
    """The two sides of a store: what the command line changes, and what `serve` reads."""

    writer: MemoryTokenStore | SqlTokenStore
    reader: MemoryTokenStore | SqliteReader


def open_pair(kind: str, path: Path) -> Pair:
    if kind == "memory":
        store = MemoryTokenStore()
        return Pair(store, store)
    return Pair(SqlTokenStore(path), SqliteReader(path))


@pytest.fixture(params=["memory", "sqlite"])
def pair(request: pytest.FixtureRequest, template: Path, tmp_path: Path) -> Iterator[Pair]:
    opened = open_pair(request.param, Path(shutil.copy(template, tmp_path / "tokens.db")))
    yield opened
    opened.reader.close()
    opened.writer.close()


# --- the contract


def test_an_empty_store_knows_nothing(pair: Pair) -> None:
    assert pair.reader.find("aaaaaaaaaaaa") is None
    assert pair.writer.get("aaaaaaaaaaaa") is None
    assert pair.writer.list_tokens() == []
    assert pair.writer.pepper_fingerprints() == {}
    assert pair.reader.pepper_fingerprints() == {}
    assert pair.writer.revoke("aaaaaaaaaaaa", at=1, by="root") is False


@pytest.mark.parametrize(
    "record",
    [
        token(),
        token(permission=AuthType.GLOBAL, user=None),
        token(permission=AuthType.ANONYMOUS, user=None, scopes=frozenset({"SEARCH"})),
        token(description="日本語 'quoted' \"twice\" \\ %s ?", created_by="x' OR '1'='1"),
        token(digest=b"\x00" * 32),
        token(digest=b"\xff" * 32, expires_at=2**53, pepper_id="p" * 64),
        token(revoked_at=5, revoked_by="eve"),
    ],
    ids=["user", "global", "anonymous", "odd text", "digest of zeros", "large", "revoked"],
)
def test_what_is_added_is_found_as_it_was(pair: Pair, record: TokenRecord) -> None:
    pair.writer.add(record, "f" * 16)

    assert pair.reader.find(record.id) == record
    assert pair.writer.get(record.id) == record
    assert pair.writer.list_tokens() == [record]


@pytest.mark.parametrize(
    "other", ["", "aaaaaaaaaaab", "AAAAAAAAAAAA", "aaaaaaaaaaa", "aaaaaaaaaaaa ", "a%", "' OR 1=1 --", "\x00", "a" * 10_000]
)
def test_only_the_same_id_is_found(pair: Pair, other: str) -> None:
    pair.writer.add(token(), "f" * 16)

    assert pair.reader.find(other) is None
    assert pair.writer.get(other) is None


def test_the_newest_stands_first(pair: Pair) -> None:
    for token_id, created_at in (("b" * 12, 10), ("a" * 12, 20), ("d" * 12, 10), ("c" * 12, 20)):
        pair.writer.add(token(token_id, created_at=created_at), "f" * 16)

    assert [record.id[0] for record in pair.writer.list_tokens()] == ["a", "c", "b", "d"]


def test_a_revocation_is_kept_as_it_was_first_made(pair: Pair) -> None:
    pair.writer.add(token(), "f" * 16)
    pair.writer.add(token("b" * 12), "f" * 16)

    assert pair.writer.revoke("aaaaaaaaaaaa", at=7, by="ana") is True
    assert pair.reader.find("aaaaaaaaaaaa") == token(revoked_at=7, revoked_by="ana")
    assert pair.writer.revoke("aaaaaaaaaaaa", at=9, by="eve") is False
    assert pair.reader.find("aaaaaaaaaaaa") == token(revoked_at=7, revoked_by="ana")
    assert pair.reader.find("b" * 12) == token("b" * 12)
    assert pair.writer.revoke("c" * 12, at=9, by="eve") is False


def test_peppers_are_known_by_their_fingerprint(pair: Pair) -> None:
    pair.writer.add(token(), "1" * 16)
    pair.writer.add(token("b" * 12), "1" * 16)
    pair.writer.add(token("c" * 12, pepper_id="p2"), "2" * 16)

    assert pair.writer.pepper_fingerprints() == {"p1": "1" * 16, "p2": "2" * 16}
    assert pair.reader.pepper_fingerprints() == {"p1": "1" * 16, "p2": "2" * 16}


def test_another_pepper_of_the_same_name_is_refused(pair: Pair) -> None:
    pair.writer.add(token(), "1" * 16)
    with pytest.raises(StoreError, match="pepper 'p1'"):
        pair.writer.add(token("b" * 12), "2" * 16)

    assert pair.writer.pepper_fingerprints() == {"p1": "1" * 16}
    assert [record.id for record in pair.writer.list_tokens()] == ["aaaaaaaaaaaa"]


def test_a_known_id_is_refused(pair: Pair) -> None:
    pair.writer.add(token(), "1" * 16)
    with pytest.raises(StoreError):
        pair.writer.add(token(description="another"), "1" * 16)

    assert pair.writer.list_tokens() == [token()]


def test_a_refused_token_leaves_nothing_behind(pair: Pair) -> None:
    pair.writer.add(token(), "1" * 16)
    with pytest.raises(StoreError):
        pair.writer.add(token(pepper_id="p2"), "2" * 16)

    assert pair.writer.pepper_fingerprints() == {"p1": "1" * 16}


def test_every_change_changes_the_version(pair: Pair) -> None:
    seen = [pair.reader.version()]
    for number in range(3):
        pair.writer.add(token(f"{number:012}"), "f" * 16)
        seen.append(pair.reader.version())
        pair.writer.revoke(f"{number:012}", at=1, by="root")
        seen.append(pair.reader.version())

    assert len(set(seen)) == 7


def test_reading_does_not_change_the_version(pair: Pair) -> None:
    pair.writer.add(token(), "f" * 16)
    before = pair.reader.version()
    pair.reader.find("aaaaaaaaaaaa")
    pair.writer.list_tokens()
    pair.writer.pepper_fingerprints()

    assert pair.reader.version() == before


ids = st.sampled_from(["a" * 12, "b" * 12, "c" * 12])
steps = st.lists(
    st.one_of(
        st.tuples(st.just("add"), ids, st.sampled_from(["p1", "p2"]), st.sampled_from(["1" * 16, "2" * 16])),
        st.tuples(st.just("revoke"), ids, st.integers(1, 9)),
    ),
    max_size=8,
)


@settings(max_examples=40, deadline=None)
@given(steps=steps)
def test_both_stores_agree_about_any_history(
    template: Path, tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[object, ...]]
) -> None:
    folder = tmp_path_factory.mktemp("history")
    memory, file = open_pair("memory", folder), open_pair("sqlite", Path(shutil.copy(template, folder / "tokens.db")))
    try:
        for number, step in enumerate(steps):
            outcomes = []
            for pair in (memory, file):
                try:
                    if step[0] == "add":
                        record = token(str(step[1]), pepper_id=str(step[2]), created_at=number)
                        outcomes.append(pair.writer.add(record, str(step[3])))
                    else:
                        outcomes.append(pair.writer.revoke(str(step[1]), at=number, by="root"))
                except StoreError:
                    outcomes.append("refused")  # type: ignore[arg-type]
            assert outcomes[0] == outcomes[1], step
            assert memory.writer.list_tokens() == file.writer.list_tokens()
            assert memory.reader.pepper_fingerprints() == file.reader.pepper_fingerprints()
            assert [memory.reader.find(record.id) for record in memory.writer.list_tokens()] == file.writer.list_tokens()
    finally:
        file.reader.close()
        file.writer.close()
        shutil.rmtree(folder)


# --- files


@pytest.fixture
def path(template: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(template, tmp_path / "tokens.db"))


def filled(path: Path, *token_ids: str) -> None:
    """Add tokens and leave no connection open."""
    store = SqlTokenStore(path)
    for token_id in token_ids:
        store.add(token(token_id), "f" * 16)
    store.close()


@pytest.fixture
def reader(path: Path) -> Iterator[SqliteReader]:
    filled(path, "a" * 12)
    opened = SqliteReader(path)
    yield opened
    opened.close()


def unavailable(reader: SqliteReader, token_id: str = "a" * 12) -> None:
    """The answer to a look-up is neither a record nor "unknown" but that nobody can say."""
    with pytest.raises(Unavailable) as caught:
        reader.find(token_id)
    assert caught.value.reason is Reason.STORE_UNAVAILABLE


@pytest.mark.parametrize("name", ["a b.db", "100%.db", "a?mode=rw.db", "a#b.db", "é.db", "'.db", "a%20b.db"])
def test_any_file_name_will_do(template: Path, tmp_path: Path, name: str) -> None:
    path = tmp_path / name / name
    writer = SqlTokenStore(path, create=True)
    writer.migrate()
    writer.add(token(), "f" * 16)
    reader = SqliteReader(path)
    found = reader.find("aaaaaaaaaaaa")
    reader.close()
    writer.close()

    assert found == token()
    assert path.read_bytes()[:15] == b"SQLite format 3"


def test_a_replaced_file_is_noticed(reader: SqliteReader, path: Path, template: Path, tmp_path: Path) -> None:
    other = Path(shutil.copy(template, tmp_path / "other.db"))
    filled(other, "b" * 12)
    before = reader.version()
    assert reader.find("a" * 12) is not None
    other.replace(path)

    assert reader.version() != before
    assert reader.find("a" * 12) is None
    assert reader.find("b" * 12) == token("b" * 12)
    again = reader.version()
    filled(path, "c" * 12)
    assert reader.version() != again
    assert reader.find("c" * 12) is not None


# SQLite lays the old file's -wal, which lives as long as the reader is connected, over the new file: after `extauthz token revoke`
# beside a running sidecar, a restored backup would be read as the old store.
def test_a_file_replaced_after_changes_is_never_read_as_the_old_one(
    reader: SqliteReader, path: Path, template: Path, tmp_path: Path
) -> None:
    other = Path(shutil.copy(template, tmp_path / "other.db"))
    filled(other, "b" * 12)
    filled(path, "c" * 12)
    assert reader.find("c" * 12) is not None
    other.replace(path)
    try:
        reader.version()
        found = [reader.find(letter * 12) is not None for letter in "abc"]
    except Unavailable:
        return

    assert found == [False, True, False]


# A file that has no name any more can still be read: tokens would stay good and new ones be "unknown", for ever.
def test_a_deleted_file_is_no_answer(reader: SqliteReader, path: Path) -> None:
    for file in path.parent.iterdir():
        file.unlink()
    with pytest.raises(Unavailable) as caught:
        reader.version()

    assert caught.value.reason is Reason.STORE_UNAVAILABLE
    unavailable(reader, "b" * 12)
    unavailable(reader, "a" * 12)


def test_a_deleted_file_may_come_back(reader: SqliteReader, path: Path, template: Path, tmp_path: Path) -> None:
    backup = Path(shutil.copy(path, tmp_path / "backup"))
    for file in (path, Path(f"{path}-wal"), Path(f"{path}-shm")):
        file.unlink(missing_ok=True)
    with pytest.raises(Unavailable):
        reader.version()
    backup.replace(path)

    reader.version()
    assert reader.find("a" * 12) == token("a" * 12)


def test_a_file_replaced_by_an_empty_one_is_no_answer(reader: SqliteReader, path: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    (tmp_path / "empty").replace(path)
    for file in (Path(f"{path}-wal"), Path(f"{path}-shm")):
        file.unlink(missing_ok=True)
    reader.version()

    unavailable(reader)
    unavailable(reader, "b" * 12)


def test_a_file_replaced_by_garbage_is_no_answer(reader: SqliteReader, path: Path, tmp_path: Path) -> None:
    (tmp_path / "garbage").write_bytes(b"garbage " * 4096)
    (tmp_path / "garbage").replace(path)
    with pytest.raises(Unavailable):
        reader.version()

    unavailable(reader)


def test_a_locked_file_is_no_answer(path: Path) -> None:
    filled(path, "a" * 12)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("PRAGMA journal_mode = DELETE")
    reader = SqliteReader(path)
    try:
        other.execute("BEGIN EXCLUSIVE")
        unavailable(reader)
        unavailable(reader, "b" * 12)
        with pytest.raises(Unavailable):
            reader.version()
        other.execute("COMMIT")

        reader.version()
        assert reader.find("a" * 12) == token("a" * 12)
    finally:
        other.close()
        reader.close()


# A poll that fails closes the connection, and `PRAGMA data_version` of a new one begins at the same number: that number alone would
# be what it was before the revocation, and the verdicts would stay in memory.
def test_a_change_during_a_time_out_of_reach_changes_the_version(path: Path) -> None:
    filled(path, "a" * 12)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("PRAGMA journal_mode = DELETE")
    reader = SqliteReader(path)
    try:
        before = reader.version()
        other.execute("BEGIN EXCLUSIVE")
        other.execute("UPDATE tokens SET revoked_at = 1, revoked_by = 'root'")
        with pytest.raises(Unavailable):
            reader.version()
        other.execute("COMMIT")

        assert reader.version() != before
    finally:
        other.close()
        reader.close()


def test_a_writer_under_way_stops_no_reader(reader: SqliteReader, path: Path) -> None:
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    other.execute("UPDATE tokens SET revoked_at = 1")

    assert reader.find("a" * 12) == token("a" * 12)
    other.execute("COMMIT")
    other.close()
    found = reader.find("a" * 12)
    assert found is not None
    assert found.revoked_at == 1


def test_a_corrupted_file_is_no_answer(reader: SqliteReader, path: Path) -> None:
    probe = sqlite3.connect(path)
    size = probe.execute("PRAGMA page_size").fetchone()[0]
    roots = probe.execute("SELECT rootpage FROM sqlite_master WHERE tbl_name = 'tokens'").fetchall()
    probe.close()
    assert len(roots) == 2, "a table and the index of its key"
    with path.open("r+b") as file:
        for (page,) in roots:
            file.seek((page - 1) * size)
            file.write(b"\xa5" * size)

    unavailable(reader)
    unavailable(reader, "b" * 12)


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("permission", "KING"),
        ("permission", ""),
        ("scopes", "SEARCH"),
        ("scopes", ""),
        ("scopes", "null"),
        ("scopes", "5"),
        ("scopes", "[[]]"),
        ("digest", "text"),
        ("digest", None),
        ("permission", "OAUTH"),
        ("scopes", '"SEARCH"'),
        ("scopes", '{"SEARCH": 1}'),
        ("scopes", "[1]"),
        ("scopes", "[" * 5000),
        ("digest", 32),
        ("digest", 2**60),
        ("expires_at", "soon"),
        ("revoked_at", "yesterday"),
        ("created_at", 1.5),
    ],
)
def test_an_unreadable_row_is_no_answer(path: Path, column: str, value: object) -> None:
    """A row that no release wrote tells nothing, and least of all that the token is good."""
    filled(path, "a" * 12, "b" * 12)
    other = sqlite3.connect(path)
    # The rules of the columns would refuse the worst of these; a file from elsewhere has no such rules.
    other.execute("PRAGMA writable_schema = ON")
    other.execute("UPDATE sqlite_master SET sql = replace(sql, 'NOT NULL', '') WHERE name = 'tokens'")
    other.commit()
    other.close()
    other = sqlite3.connect(path)
    other.execute(f'UPDATE tokens SET "{column}" = ? WHERE id = ?', (value, "a" * 12))  # noqa: S608 - our own column names
    other.commit()
    other.close()
    reader = SqliteReader(path)
    try:
        unavailable(reader)
        assert reader.find("b" * 12) == token("b" * 12)
    finally:
        reader.close()


def test_the_writer_says_which_store_has_an_unreadable_row(path: Path) -> None:
    filled(path, "a" * 12)
    other = sqlite3.connect(path)
    other.execute("UPDATE tokens SET permission = 'KING'")
    other.commit()
    other.close()
    store = SqlTokenStore(path)
    try:
        with pytest.raises(StoreError):
            store.list_tokens()
        with pytest.raises(StoreError):
            store.get("a" * 12)
    finally:
        store.close()


# --- schemas


def revision_set_to(path: Path, revision: str | None) -> None:
    other = sqlite3.connect(path)
    other.execute("DELETE FROM alembic_version")
    if revision is not None:
        other.execute("INSERT INTO alembic_version VALUES (?)", (revision,))
    other.commit()
    other.close()


@pytest.mark.parametrize("revision", ["9999", "0000", "", None])
def test_another_schema_is_refused_with_the_way_out(path: Path, revision: str | None) -> None:
    revision_set_to(path, revision)
    with pytest.raises(StoreError, match="extauthz store migrate"):
        SqliteReader(path)


def test_no_file_is_refused_with_the_way_out(tmp_path: Path) -> None:
    for store in (SqliteReader, SqlTokenStore):
        with pytest.raises(StoreError, match="extauthz store migrate"):
            store(tmp_path / "tokens.db")
    assert list(tmp_path.iterdir()) == []


def test_an_empty_file_is_refused_with_the_way_out(tmp_path: Path) -> None:
    (tmp_path / "tokens.db").touch()
    with pytest.raises(StoreError, match="extauthz store migrate"):
        SqliteReader(tmp_path / "tokens.db")


@pytest.mark.parametrize("content", [b"garbage " * 512, b"SQLite format 3\x00" + b"\xff" * 4096])
def test_a_file_of_something_else_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "tokens.db"
    path.write_bytes(content)
    with pytest.raises(StoreError, match=r"tokens\.db"):
        SqliteReader(path)
    store = SqlTokenStore(path)
    with pytest.raises(StoreError, match=r"tokens\.db"):
        store.migrate()
    store.close()
    assert path.read_bytes() == content


def test_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreError):
        SqliteReader(tmp_path)


def test_a_migration_twice_changes_nothing(path: Path) -> None:
    filled(path, "a" * 12)
    store = SqlTokenStore(path)
    try:
        assert (store.migrate(), store.migrate(), store.revision()) == ("0001", "0001", "0001")
        assert store.list_tokens() == [token("a" * 12)]
    finally:
        store.close()


def test_a_newer_store_is_not_migrated(path: Path) -> None:
    revision_set_to(path, "9999")
    store = SqlTokenStore(path)
    try:
        with pytest.raises(StoreError):
            store.migrate()
        assert store.revision() == "9999"
    finally:
        store.close()


def test_a_failed_migration_leaves_nothing(tmp_path: Path) -> None:
    """The second table of the migration exists already: the first one must not stay."""
    path = tmp_path / "tokens.db"
    other = sqlite3.connect(path)
    other.execute("CREATE TABLE peppers (mine TEXT)")
    other.commit()
    store = SqlTokenStore(path)
    with pytest.raises(StoreError, match="peppers"):
        store.migrate()
    tables = [name for (name,) in other.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
    assert tables == ["peppers"]

    other.execute("DROP TABLE peppers")
    other.commit()
    other.close()
    assert store.migrate() == "0001"
    store.close()


def test_migrations_make_the_tables_that_are_used(path: Path) -> None:
    engine = sa.create_engine(sa.URL.create("sqlite", database=str(path)))
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, schema.metadata) == []
    engine.dispose()


# --- processes

ADD_MANY = """
import sys, time
from pathlib import Path
from extauthz.adapters.store.sql import SqlTokenStore
from extauthz.core.model import AuthType
from extauthz.core.tokens import TokenRecord

path, letter = Path(sys.argv[1]), sys.argv[2]
print("ready", flush=True)
sys.stdin.readline()
store = SqlTokenStore(path, create=True)
store.migrate()
for number in range(25):
    token_id = f"{letter}{number:011}"
    store.add(TokenRecord(token_id, "d", AuthType.GLOBAL, None, frozenset({"S"}), number, "root", 9, "p1", bytes(32)), "f" * 16)
    if number % 5 == 0:
        store.revoke(token_id, at=1, by=letter)
store.close()
"""


def test_two_processes_make_and_fill_one_store(tmp_path: Path) -> None:
    """Both begin at once with a store that does not exist; nothing is lost and nobody is refused."""
    path = tmp_path / "data" / "tokens.db"
    processes = [
        subprocess.Popen(
            [sys.executable, "-W", "error", "-c", ADD_MANY, str(path), letter],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(PROJECT)},
        )
        for letter in "ab"
    ]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    outputs = []
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    outputs = [process.communicate(timeout=60) for process in processes]

    assert [(process.returncode, error) for process, (_, error) in zip(processes, outputs, strict=True)] == [(0, ""), (0, "")]
    store = SqlTokenStore(path)
    records = store.list_tokens()
    store.close()
    assert sorted(record.id for record in records) == [f"{letter}{number:011}" for letter in "ab" for number in range(25)]
    assert {record.revoked_by for record in records if record.id[0] == "a"} == {None, "a"}
    assert sum(record.revoked_at is not None for record in records) == 10


def test_a_file_that_is_copied_over_changes_the_version(reader: SqliteReader, path: Path, template: Path, tmp_path: Path) -> None:
    """SQLite itself notices only what it wrote itself."""
    other = Path(shutil.copy(template, tmp_path / "other.db"))
    filled(other, "b" * 12)
    before = reader.version()
    assert reader.find("b" * 12) is None
    shutil.copyfile(other, path)

    assert reader.version() != before
    assert reader.find("b" * 12) is not None
