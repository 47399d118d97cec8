"""A SQLite store that may only be read, from a cold start: by another user than its owner's, with a writer and without one."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from extauthz.adapters.store import reader as reader_module
from extauthz.adapters.store import sqlite_file
from extauthz.adapters.store.following import SqliteFollower
from extauthz.adapters.store.reader import SqliteReader
from extauthz.adapters.store.sql import SqlTokenStore
from extauthz.errors import StoreError, Unavailable
from extauthz.verifiers.change_feed import Feed
from tests.support.postgresql import ANA, KEY, fill, token
from tests.support.sidecar import PATIENCE, Sidecar, sidecar
from tests.support.unprivileged import NOBODY, bound_by_modes, owner, unprivileged
from tests.support.world import StillClock, bearer

pytestmark = pytest.mark.long

pytest_plugins = ["tests.support.postgresql"]

__all__ = ["sidecar"]

A, B = "a" * 12, "b" * 12

# A process of its own: SQLite lets the connections of one process share what the reader may not open.
WRITER = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
for line in sys.stdin:
    if line.strip() == "close":
        connection.close()
    else:
        connection.execute(line)
    print("done", flush=True)
"""
REVOKE = "UPDATE tokens SET revoked_at = 1, revoked_by = 'root' WHERE id = '{}'"


class Writer:
    """Another process that has the store open."""

    def __init__(self, path: Path) -> None:
        """Start it."""
        self.path = path
        call = [sys.executable, "-c", WRITER, str(path)]
        self.process = subprocess.Popen(call, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def do(self, statement: str) -> None:
        """Execute a statement, or "close"; returns when it is done."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        with owner(self.path):
            self.process.stdin.write(f"{statement}\n")
            self.process.stdin.flush()
            assert self.process.stdout.readline() == "done\n"

    def kill(self) -> None:
        """End it, as a power cut would."""
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def path(sqlite_template: Path) -> Iterator[Path]:
    """A store that others than its owner may read; pytest's own folders are closed to them."""
    with tempfile.TemporaryDirectory(prefix="ro-", dir="/tmp") as name:
        folder = Path(name)
        path = Path(shutil.copy(sqlite_template, folder / "tokens.db"))
        with closing(SqlTokenStore(path, audit=KEY)) as store:
            fill(store, token(A), token(B))
        assert [file.name for file in folder.iterdir()] == ["tokens.db"]
        with owner(path):
            folder.chmod(0o755)
            path.chmod(0o644)
        yield path
        folder.chmod(0o755)


@pytest.fixture
def writer(path: Path) -> Iterator[Writer]:
    """A process that writes to the store."""
    started = Writer(path)
    yield started
    started.kill()


@pytest.fixture
def reader(path: Path) -> Iterator[SqliteReader]:
    """The reader of another user, to be asked as that user."""
    with unprivileged():
        opened = SqliteReader(path)
        yield opened
        opened.close()


def revoked(reader: SqliteReader) -> list[bool]:
    """Tell of both tokens whether they are revoked."""
    found = [reader.find(token_id) for token_id in (A, B)]
    return [record is not None and record.revoked_at is not None for record in found]


def test_a_store_that_nobody_writes_to_is_read(reader: SqliteReader, path: Path) -> None:
    assert revoked(reader) == [False, False]
    assert reader.find("c" * 12) is None
    assert reader.read_feed(0).head == 2
    reader.check_peppers({}, 10**12)
    assert [file.name for file in path.parent.iterdir()] == ["tokens.db"]
    assert reader.version() == reader.version()


def test_a_revocation_is_seen_by_the_next_look_up_and_by_the_next_look(writer: Writer, reader: SqliteReader) -> None:
    """While the writer stays and its log holds everything, and when it has gone with its log."""
    before = reader.version()
    writer.do(REVOKE.format(A))
    assert revoked(reader) == [True, False]
    seen = reader.version()
    assert seen != before
    writer.do(REVOKE.format(B))
    assert revoked(reader) == [True, True]
    assert reader.version() != seen


def test_a_writer_that_came_and_went_is_noticed(writer: Writer, reader: SqliteReader, path: Path) -> None:
    """Its log went with it: what it changed is in the file."""
    before = reader.version()
    writer.do(REVOKE.format(A))
    writer.do("close")
    assert [file.name for file in path.parent.iterdir()] == ["tokens.db"]
    assert reader.version() != before
    assert revoked(reader) == [True, False]


def test_a_log_that_a_killed_writer_left_is_read(path: Path, writer: Writer) -> None:
    writer.do(REVOKE.format(A))
    writer.kill()
    assert (path.parent / "tokens.db-wal").stat().st_size > 0
    with unprivileged(), closing(SqliteReader(path)) as reader:
        assert revoked(reader) == [True, False]


def test_a_change_within_one_tick_of_the_clock_is_seen_soon(
    reader: SqliteReader, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that was just changed is opened once more: by then its next change has another time."""
    now = time.monotonic()
    assert reader_module.SETTLED < 1.0
    monkeypatch.setattr(reader_module.time, "monotonic", lambda: now)
    status = path.stat()
    with owner(path):
        path.touch()
    reader.version()
    assert revoked(reader) == [False, False]
    stamp = path.stat()
    with owner(path):
        subprocess.run([sys.executable, "-c", WRITER, str(path)], input=REVOKE.format(A), text=True, check=True, timeout=60)
        os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    assert path.stat().st_size == status.st_size
    before = reader.version()
    now += reader_module.SETTLED
    assert reader.version() != before
    assert revoked(reader) == [True, False]
    settled = reader.version()
    now += 3600
    assert reader.version() == settled


def test_a_file_that_changes_while_it_is_read_is_read_again(reader: SqliteReader, path: Path) -> None:
    """What was read before the change is no answer after it."""
    original = reader._is_the_same
    changes = iter([True])

    def change() -> bool:
        if next(changes, False):
            with owner(path):
                subprocess.run([sys.executable, "-c", WRITER, str(path)], input=REVOKE.format(A), text=True, check=True, timeout=60)
        return original()

    reader._is_the_same = change  # type: ignore[method-assign]
    assert revoked(reader) == [True, False]


def test_a_file_that_changes_all_the_time_is_no_answer(reader: SqliteReader) -> None:
    reader._is_the_same = lambda: False  # type: ignore[method-assign]
    with pytest.raises(Unavailable) as caught:
        reader.find(A)
    assert "changes all the time" in str(caught.value.__cause__)


def test_the_feed_honours_a_revocation_at_its_next_look(reader: SqliteReader, path: Path) -> None:
    feed = Feed(clock=StillClock(0), memory=60.0)
    follower = SqliteFollower(reader, position=lambda: feed.position, apply=feed.apply)
    assert follower._look_interval < 1.0
    follower._look(0.0)
    position = feed.position
    with owner(path), closing(SqlTokenStore(path, audit=KEY)) as store:
        store.revoke([A], None, ANA)
    follower._look(0.25)
    assert feed.position == position + 1
    assert revoked(reader) == [True, False]


def test_who_may_only_read_the_file_makes_nothing_beside_it(path: Path, writer: Writer) -> None:
    """A log of another user's could be closed to whoever changes the store."""
    path.parent.chmod(0o777)
    with unprivileged(), closing(SqliteReader(path)) as reader:
        assert revoked(reader) == [False, False]
        assert [file.name for file in path.parent.iterdir()] == ["tokens.db"]
        writer.do(REVOKE.format(A))
        assert revoked(reader) == [True, False]


@pytest.mark.parametrize(
    ("closed", "said"),
    [
        ("tokens.db-wal", "let this user read tokens.db-wal in "),
        ("tokens.db-shm", "let this user read tokens.db-shm in "),
        ("tokens.db", "not a token store that can be read (unable to open database file)"),
        (".", "cannot be reached (Permission denied)"),
    ],
)
def test_what_cannot_be_read_is_named_with_its_folder(path: Path, writer: Writer, closed: str, said: str) -> None:
    writer.do(REVOKE.format(A))
    (path.parent / closed).chmod(0o700)
    with unprivileged(), pytest.raises(StoreError) as caught:
        SqliteReader(path)
    assert said in str(caught.value)
    assert str(path) in str(caught.value)


def test_a_file_replaced_beside_the_log_of_another_is_no_answer(path: Path, writer: Writer, reader: SqliteReader) -> None:
    """The log would be laid over it: neither a look-up nor the next look takes that for the store, until the log is gone."""
    assert revoked(reader) == [False, False]
    with owner(path):
        backup = Path(shutil.copy(path, path.parent / "backup.db"))
    writer.do(REVOKE.format(A))
    with owner(path):
        backup.replace(path)
    for _ in range(3):
        with pytest.raises(Unavailable):
            reader.find(A)
        with pytest.raises(Unavailable):
            reader.version()
    writer.kill()
    with owner(path):
        for log in ("tokens.db-wal", "tokens.db-shm"):
            (path.parent / log).unlink()
    reader.version()
    assert revoked(reader) == [False, False]


def test_a_file_that_goes_while_a_command_reads_it_is_told(path: Path) -> None:
    with unprivileged(), closing(SqlTokenStore(path, audit=KEY)) as store:
        with pytest.raises(StoreError, match="changed while it was read: try again"), store._database.reading(), owner(path):
            path.unlink()
        with pytest.raises(StoreError, match="no token store"):
            store.get(A)


def test_a_rollback_that_was_not_finished_is_never_ignored(path: Path) -> None:
    with closing(sqlite3.connect(path)) as other:
        other.execute("PRAGMA journal_mode = DELETE")
    journal = path.with_name("tokens.db-journal")
    journal.write_bytes(b"a change that was under way")
    assert not sqlite_file.is_alone(path)
    journal.write_bytes(b"")
    assert sqlite_file.is_alone(path)


# --- commands


def test_a_command_reads_it_and_changes_nothing(path: Path, writer: Writer) -> None:
    with unprivileged():
        with closing(SqlTokenStore(path, audit=KEY)) as store:
            assert [record.id for record in store.list_tokens()] == [B, A]
            assert store.status(0).active == 2
            with pytest.raises(StoreError, match="this user may only read it"):
                store.revoke([A], None, ANA)
        with closing(SqlTokenStore(path, audit=KEY)) as store:
            with pytest.raises(StoreError, match="changed while it was read: try again"), store._database.reading():
                writer.do(REVOKE.format(A))
            found = store.get(A)
            assert (found is not None, found and found.revoked_at) == (True, 1)
    assert path.stat().st_mode & 0o777 == 0o644


# --- serve


@pytest.fixture
def foreign(sidecar: Sidecar) -> Iterator[Sidecar]:
    """A sidecar on a store of another user, who lets everybody read; whoever runs the tests may write."""
    with tempfile.TemporaryDirectory(prefix="ro-", dir="/tmp") as name:
        folder = Path(name)
        sidecar.settings["tokens"]["store"] = f"sqlite:///{folder}/tokens.db"
        sidecar.before = bound_by_modes()
        sidecar.write()
        sidecar.command("store", "migrate")
        opened_to_readers(folder)
        yield sidecar
        if sidecar.process is not None:
            sidecar.process.kill()
            sidecar.process.wait()


def opened_to_readers(folder: Path) -> None:
    """Let others read; where the tests do not run as root, their own process is one of the others."""
    for path in (folder, *folder.iterdir()):
        if os.geteuid() == 0:
            os.chown(path, NOBODY, NOBODY)
        path.chmod(0o755 if path.is_dir() else 0o644)
    if os.geteuid():
        folder.chmod(0o555)


@pytest.mark.cold_start
@pytest.mark.parametrize("state", ["closed", "open", "left"])
def test_it_is_served_from_a_cold_start(foreign: Sidecar, state: str) -> None:
    path = Path(foreign.settings["tokens"]["store"].removeprefix("sqlite:///"))
    path.parent.chmod(0o755)
    text = foreign.token()
    writer = None
    if state != "closed":
        writer = Writer(path)
        writer.do("UPDATE tokens SET expires_at = expires_at - 1")
        if state == "left":
            writer.kill()
    opened_to_readers(path.parent)
    try:
        foreign.start()
        assert foreign.check(bearer(text)).status.code == 0
        path.parent.chmod(0o755)
        foreign.command("token", "revoke", text.split("_")[1], "--yes")
        deadline = time.monotonic() + PATIENCE
        while foreign.check(bearer(text)).status.code == 0:
            assert time.monotonic() < deadline
        assert foreign.stop() == 0
    finally:
        if writer is not None:
            writer.kill()
    log = foreign.logs[1].read_text()
    assert log.count("uses of tokens cannot be written") == 1
    assert "Traceback" not in log


def test_doctor_names_a_folder_that_is_closed(foreign: Sidecar) -> None:
    path = Path(foreign.settings["tokens"]["store"].removeprefix("sqlite:///"))
    path.parent.chmod(0o700 if os.geteuid() == 0 else 0o000)
    call = [*foreign.before, sys.executable, "-m", "extauthz", "doctor", "--offline", "--config", str(foreign.file)]
    done = subprocess.run(call, capture_output=True, text=True, timeout=PATIENCE, check=False)
    path.parent.chmod(0o755)
    assert done.returncode == 1, done.stdout
    assert f"{path} cannot be reached (Permission denied)" in done.stdout
    assert "check itself failed" not in done.stdout


def test_doctor_says_what_does_not_work(foreign: Sidecar) -> None:
    path = Path(foreign.settings["tokens"]["store"].removeprefix("sqlite:///"))
    path.parent.chmod(0o755)
    foreign.token()
    opened_to_readers(path.parent)
    call = [*foreign.before, sys.executable, "-m", "extauthz", "doctor", "--offline", "--config", str(foreign.file)]
    done = subprocess.run(call, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert done.returncode == 0, done.stdout
    assert "can be read, and not written to, by this user: checks are answered, last uses are not kept" in done.stdout
