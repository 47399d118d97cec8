"""What the tools write is for their owner alone, whatever the umask is: the store, its log, copies, peppers and keys."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from stat import S_IMODE

import pytest
from click.testing import CliRunner

from extauthz.cli import main
from extauthz.process import private_files
from tests.support.command_line import SETTINGS, configured, created, run, told


@contextmanager
def umask(mask: int) -> Iterator[None]:
    """Let new files have other modes."""
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


def modes(folder: Path) -> dict[str, int]:
    """Return the modes of what lies in a folder and below it."""
    return {str(path.relative_to(folder)): S_IMODE(path.stat().st_mode) for path in folder.rglob("*")}


@pytest.mark.parametrize("mask", [0o000, 0o022, 0o077, 0o277])
def test_what_is_made_is_its_owners_alone(tmp_path: Path, mask: int) -> None:
    tokens = {"store": "sqlite:///deep/data/tokens.db", "peppers": [{"id": "p1", "file": "secrets/peppers/p1"}]}
    configured(tmp_path, tokens=SETTINGS["tokens"] | tokens)
    store = tmp_path / "deep" / "data" / "tokens.db"
    with umask(mask):
        created(tmp_path)
        # Somebody reads, so that log and index stay.
        with closing(sqlite3.connect(store, isolation_level=None)) as reader:
            reader.execute("BEGIN")
            reader.execute("SELECT 1 FROM tokens").fetchall()
            created(tmp_path)
            found = modes(tmp_path)
        told(tmp_path, "store", "backup", str(tmp_path / "copy.db"))
        key = tmp_path / "key.pem"
        assert CliRunner().invoke(main, ["internal-token", "new-key", "--file", str(key)]).exit_code == 0
    assert {name: mode for name, mode in found.items() if "/" in name or name in ("deep", "secrets")} == {
        "deep": 0o700,
        "deep/data": 0o700,
        "deep/data/tokens.db": 0o600,
        "deep/data/tokens.db-wal": 0o600,
        "deep/data/tokens.db-shm": 0o600,
        "secrets": 0o700,
        "secrets/peppers": 0o700,
        "secrets/peppers/p1": 0o600,
    }
    assert (S_IMODE(key.stat().st_mode), S_IMODE((tmp_path / "copy.db").stat().st_mode)) == (0o600, 0o600)


def test_what_is_there_is_left_alone(tmp_path: Path) -> None:
    """A group that a sidecar of another user shares is kept, for the log too."""
    configured(tmp_path)
    (tmp_path / "data").mkdir()
    store = tmp_path / "data" / "tokens.db"
    store.touch()
    for path, mode in ((tmp_path / "data", 0o2770), (store, 0o660)):
        path.chmod(mode)
    with umask(0o077):
        created(tmp_path)
        with closing(sqlite3.connect(store, isolation_level=None)) as reader:
            reader.execute("BEGIN")
            reader.execute("SELECT 1 FROM tokens").fetchall()
            created(tmp_path)
            found = modes(tmp_path / "data")
    assert S_IMODE((tmp_path / "data").stat().st_mode) == 0o2770
    del found["pepper"]
    assert found == dict.fromkeys(("tokens.db", "tokens.db-wal", "tokens.db-shm"), 0o660)


def test_a_link_to_nothing_is_followed(tmp_path: Path) -> None:
    configured(tmp_path)
    for folder in ("data", "elsewhere"):
        (tmp_path / folder).mkdir()
    (tmp_path / "data" / "tokens.db").symlink_to(tmp_path / "elsewhere" / "real.db")
    with umask(0o022):
        created(tmp_path)
    assert S_IMODE((tmp_path / "elsewhere" / "real.db").stat().st_mode) == 0o600


def test_a_file_is_never_taken_over(tmp_path: Path) -> None:
    os.close(private_files.create(tmp_path / "new"))
    with pytest.raises(FileExistsError):
        private_files.create(tmp_path / "new")
    with pytest.raises(FileExistsError):
        private_files.make_folder(tmp_path / "new")


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    configured(tmp_path)
    (tmp_path / "data").write_text("in the way")
    result = run(tmp_path, "store", "migrate")
    assert (result.exit_code, result.stderr.count("\n")) == (1, 1)
    assert f"{tmp_path}/data/tokens.db: cannot be made (File exists): let this user write to the folder" in result.stderr
