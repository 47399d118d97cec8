"""A pepper is changed: `pepper new`, and `token rotate --pepper … --all` with its dry run."""

from __future__ import annotations

import json
import os
import shutil
import stat
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from extauthz.adapters.store.sql import SqlTokenStore
from extauthz.cli import main
from extauthz.core.model import AuthType
from extauthz.errors import StoreError
from tests.support.command_line import SETTINGS, configured, created, run, told
from tests.support.narrow_terminal import narrow_in
from tests.support.several_tokens import DAY, NOW, opened, stored

ROLES = {"admins": ["bob@acme.com"]}
ALL = ("token", "rotate", "--pepper", "p1", "--all", "--overlap", "7d")


def with_peppers(folder: Path, *ids: str, **changes: Any) -> Path:
    """Let the configuration list these peppers, the newest first."""
    peppers = [{"id": name, "file": "data/pepper" if name == "p1" else f"data/pepper-{name}"} for name in ids]
    return configured(folder, roles=ROLES, tokens=SETTINGS["tokens"] | {"peppers": peppers}, **changes)


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """A folder with tokens of p1: a USER's and a GLOBAL one, one that was rotated and its successor."""
    folder = configured(tmp_path_factory.mktemp("template"))
    user = created(folder)["id"]
    all_users = created(folder, "--permission", "GLOBAL", "--scope", "CHAT")["id"]
    before = created(folder, "--permission", "ANONYMOUS", "--scope", "CHAT")["id"]
    successor = told(folder, "token", "rotate", before)["id"]
    return folder, {"user": user, "global": all_users, "successor": successor}


@pytest.fixture
def folder(template: tuple[Path, dict[str, str]], tmp_path: Path) -> Path:
    """A copy of it."""
    return shutil.copytree(template[0], tmp_path / "copy")


@pytest.fixture
def two(folder: Path, template: tuple[Path, dict[str, str]]) -> tuple[Path, dict[str, str]]:
    """A copy of it where p2 is the newest pepper by now."""
    assert run(folder, "pepper", "new", "p2").exit_code == 0
    return with_peppers(folder, "p2", "p1"), template[1]


# --- pepper new


def test_a_new_pepper_is_written_beside_the_old_one(folder: Path) -> None:
    result = run(folder, "pepper", "new", "p2")
    file = folder / "data" / "pepper-p2"
    assert (result.exit_code, stat.S_IMODE(file.stat().st_mode)) == (0, 0o600)
    assert len(bytes.fromhex(file.read_text().strip())) == 32
    assert file.read_text().strip() not in result.output
    assert "- {id: p2, file: data/pepper-p2}" in result.stdout
    assert "extauthz token rotate --pepper p1 --all --overlap 7d" in result.stdout
    entry = told(folder, "pepper", "new", "p3", "--file", str(folder / "other place"))["entry"]
    assert entry == {"id": "p3", "file": str(folder / "other place")}
    line = run(folder, "pepper", "new", "p4", "--file", str(folder / "a, b")).stdout.partition("there: ")[2].splitlines()[0]
    assert yaml.safe_load(line) == [{"id": "p4", "file": str(folder / "a, b")}]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("p1",), "tokens.peppers lists 'p1' already"),
        (("two words",), "write 1 to 64 letters, digits"),
        (("",), "write 1 to 64 letters, digits"),
        (("p2", "--file", "data/pepper"), "data/pepper exists, and a pepper is never overwritten"),
        (("p2", "--file", "data/pepper/p2"), "data/pepper/p2: the pepper cannot be written"),
        (("p0", "--store"), "the store knows another pepper 'p0'"),
    ],
)
def test_a_new_pepper_takes_no_ones_place(
    folder: Path, arguments: tuple[str, ...], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened(folder) as store, store.writing() as connection:
        connection.exec_driver_sql("INSERT INTO peppers (id, fingerprint) VALUES ('p0', 'x')")
    before = (folder / "data" / "pepper").read_bytes()
    monkeypatch.chdir(folder)
    result = run(folder, "pepper", "new", *arguments)
    assert (result.exit_code, message in result.stderr) == (1, True), result.output
    assert (folder / "data" / "pepper").read_bytes() == before
    assert sorted(path.name for path in (folder / "data").glob("*pepper*")) == ["pepper"]


def test_a_pepper_of_the_environment_has_no_place_beside_it(folder: Path) -> None:
    configured(folder, tokens=SETTINGS["tokens"] | {"peppers": [{"id": "p1", "env": "PEPPER"}]})
    result = run(folder, "pepper", "new", "p2")
    assert (result.exit_code, "name the file of the new one with --file" in result.stderr) == (2, True)
    assert told(folder, "pepper", "new", "p2", "--file", str(folder / "p2"))["newest"] == "p1"


# --- all tokens of a pepper


def test_a_dry_run_lists_them_and_changes_nothing(two: tuple[Path, dict[str, str]]) -> None:
    folder, ids = two
    head = told(folder, "audit", "verify")["head"]
    listed = told(folder, *ALL, "--dry-run")
    assert {row["id"] for row in listed["would_rotate"]} == {ids["user"], ids["global"], ids["successor"]}
    assert listed["would_not"] == []
    shown = run(folder, *ALL, "--dry-run")
    assert "3 tokens would be rotated. Nothing was changed." in shown.stdout
    assert "Left out" in narrow_in(folder, 30, *ALL, "--dry-run")
    assert told(folder, "audit", "verify")["head"] == head


def test_each_gets_a_successor_of_the_new_pepper(two: tuple[Path, dict[str, str]]) -> None:
    folder, ids = two
    file = folder / "rotated.jsonl"
    result = run(folder, *ALL, "--yes", "--output", str(file))
    assert (result.exit_code, result.stdout) == (0, "")
    assert f"3 tokens rotated, whose successors are in {file}" in result.stderr
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    assert {row["rotated_from"] for row in rows} == {ids["user"], ids["global"], ids["successor"]}
    assert {row["pepper_id"] for row in rows} == {"p2"}
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    for row in rows:
        assert told(folder, "token", "verify", "--store", text=row["token"])["verdict"] == "active"
        old = told(folder, "token", "show", row["rotated_from"])
        assert (old["rotated_to"], old["expires_at"]) == (row["id"], row["old_ends_at"])
    again = run(folder, *ALL, "--yes")
    assert (again.exit_code, again.stdout) == (0, "")
    assert "No token of the pepper p1 is to be rotated." in again.stderr
    assert run(folder, *ALL, "--yes", "--output", str(file)).exit_code == 0, "nothing is written where nothing is done"


def test_what_may_not_be_rotated_is_named_and_the_rest_is_rotated(two: tuple[Path, dict[str, str]]) -> None:
    folder, ids = two
    configured(folder, roles=ROLES, tokens=SETTINGS["tokens"] | with_two(), scopes=["SEARCH", "DOCPERMISSIONS", "FEEDBACK"])
    preview = run(folder, *ALL, "--dry-run", "--as", "bob@acme.com", "--json")
    assert preview.exit_code == 1
    wrong = {row["id"]: row["reason"] for row in json.loads(preview.stdout)["would_not"]}
    assert wrong.keys() == {ids["global"], ids["successor"]}
    assert "GLOBAL needs a super admin" in wrong[ids["global"]]
    assert "scope: 'CHAT' is not one of" in wrong[ids["successor"]]
    result = run(folder, *ALL, "--yes", "--as", "bob@acme.com", "--json")
    assert result.exit_code == 1
    assert [json.loads(line)["rotated_from"] for line in result.stdout.splitlines()] == [ids["user"]]
    assert "1 token rotated: give" in result.stderr
    assert all(f"Token {name} was not rotated: {reason}" in result.stderr for name, reason in wrong.items())


def with_two() -> dict[str, Any]:
    return {"peppers": [{"id": "p2", "file": "data/pepper-p2"}, {"id": "p1", "file": "data/pepper"}]}


def test_pages_of_many_are_read_to_their_end(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stored(folder, *({"id": letter, "created_at": NOW - 50 * DAY - number // 3} for number, letter in enumerate("abcdefgh")))
    stored(folder, {"id": "x", "permission": AuthType.ANONYMOUS, "user": None, "expires_at": NOW - 1})
    assert run(folder, "pepper", "new", "p2").exit_code == 0
    with_peppers(folder, "p2", "p1")
    monkeypatch.setattr("extauthz.admin.peppers._PAGE", 3)
    assert len(told(folder, *ALL, "--dry-run")["would_rotate"]) == 11
    lines = run(folder, *ALL, "--yes").stdout.splitlines()
    assert sorted(line[0] for line in lines if line[:2] in [letter * 2 for letter in "abcdefgh"]) == sorted("abcdefgh")
    assert len(lines) == 11


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--pepper", "p2", "--all", "--yes"], 1, "'p2' is the pepper that successors would be made with"),
        (["--pepper", "f" * 64, "--all", "--yes"], 1, "no token was made with a pepper of this id: the store knows p1"),
        (["--pepper", "p1"], 2, "name the ID of a token, or a pepper and all of its tokens"),
        (["--all"], 2, "name the ID of a token, or a pepper and all of its tokens"),
        ([], 2, "name the ID of a token, or a pepper and all of its tokens"),
        (["4fK2pQ9sXb1Z", "--pepper", "p1"], 2, "--pepper does not go with the ID of a token"),
        (["4fK2pQ9sXb1Z", "--dry-run"], 2, "--dry-run does not go with the ID of a token"),
        (["--pepper", "p1", "--all"], 2, "--yes is missing, and there is no terminal to ask: Rotate 3 tokens of the pepper p1"),
        (["--pepper", "p1", "--all", "--yes", "--output", "extauthz.yaml"], 1, "exists, and secrets are never overwritten"),
        (["--pepper", "p1", "--all", "--yes", "--output", "no/such/place"], 1, "no/such/place cannot be written"),
    ],
    ids=lambda value: " ".join(value)[:60] if isinstance(value, list) else "",
)
def test_nothing_is_rotated_by_an_error(
    two: tuple[Path, dict[str, str]], arguments: list[str], code: int, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, _ = two
    monkeypatch.chdir(folder)
    head = told(folder, "audit", "verify")["head"]
    result = run(folder, "token", "rotate", *arguments)
    assert (result.exit_code, message in result.stderr) == (code, True), result.output
    assert "f" * 64 not in result.output
    assert told(folder, "audit", "verify")["head"] == head


def test_a_store_that_goes_away_loses_no_secret(two: tuple[Path, dict[str, str]], monkeypatch: pytest.MonkeyPatch) -> None:
    folder, _ = two
    rotate = SqlTokenStore.rotate
    done: list[str] = []

    def away(store: SqlTokenStore, token_id: str, *arguments: Any, **more: Any) -> Any:
        if done:
            raise StoreError("the token store went away")
        done.append(token_id)
        return rotate(store, token_id, *arguments, **more)

    monkeypatch.setattr(SqlTokenStore, "rotate", away)
    file = folder / "rotated.jsonl"
    result = run(folder, *ALL, "--yes", "--output", str(file))
    assert (result.exit_code, "the token store went away" in result.stderr) == (1, True)
    assert "1 token rotated, whose successors are in" in result.stderr
    assert "Repeat the command to go on." in result.stderr
    assert [json.loads(line)["rotated_from"] for line in file.read_text().splitlines()] == done
    monkeypatch.undo()
    assert len(run(folder, *ALL, "--yes", "--json").stdout.splitlines()) == 2


def test_a_full_disk_names_the_successor_that_is_lost(two: tuple[Path, dict[str, str]], monkeypatch: pytest.MonkeyPatch) -> None:
    folder, ids = two
    monkeypatch.setattr("extauthz.process.private_files.create", lambda path: os.open("/dev/full", os.O_WRONLY))
    result = CliRunner().invoke(main, [*ALL, "--yes", "--output", "x", "--config", str(folder / "extauthz.yaml")])
    assert result.exit_code == 1
    assert "No space left on device" in result.stderr
    successors = [told(folder, "token", "show", token_id)["rotated_to"] for token_id in ids.values()]
    (lost,) = filter(None, successors)
    assert f"extauthz token revoke {lost} --why 'its secret was not shown' --yes" in result.stderr
