"""`extauthz store`, `extauthz audit`, and tokens that move: on SQLite, and the main flow on a real PostgreSQL."""

from __future__ import annotations

import json
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.support.command_line import SETTINGS, configured, created, run, told
from tests.support.postgresql import PostgresServer

pytest_plugins = ["tests.support.postgresql"]

GLOBAL = ("--permission", "GLOBAL", "--scope", "CHAT")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a configuration."""
    return configured(tmp_path)


def execute(folder: Path, *statements: str) -> None:
    """Change the store as an intruder would who owns the file."""
    with closing(sqlite3.connect(folder / "data" / "tokens.db", isolation_level=None)) as connection:
        for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
            connection.execute(f"DROP TRIGGER {name}")
        for statement in statements:
            connection.execute(statement)


def revoked(folder: Path) -> dict[str, Any]:
    made = created(folder)
    told(folder, "token", "revoke", made["id"], "--why", "lost", "--yes")
    return made


# --- audit


def test_the_audit_lists_what_was_done(folder: Path) -> None:
    made = revoked(folder)
    rows = told(folder, "audit", "list")["rows"]
    assert [(row["number"], row["action"], row["token_id"]) for row in rows] == [
        (1, "create", made["id"]),
        (2, "revoke", made["id"]),
    ]
    assert rows[1]["after"]["revoked_why"] == "lost"
    table = run(folder, "audit", "list").stdout
    assert len(table.splitlines()) == 3
    assert made["token"].split("_")[2] not in table


def test_pages_of_the_audit(folder: Path) -> None:
    for _ in range(3):
        created(folder)

    def numbers(*flags: str) -> tuple[list[int], int | None]:
        page = told(folder, "audit", "list", *flags)
        return [row["number"] for row in page["rows"]], page["after"]

    assert numbers("--limit", "2") == ([2, 3], None)
    assert numbers("--limit", "2", "--after", "0") == ([1, 2], 2)
    assert numbers("--limit", "2", "--after", "2") == ([3], None)
    assert numbers("--after", "9") == ([], None)
    assert "--after 2" in run(folder, "audit", "list", "--limit", "2", "--after", "0").stderr
    assert run(folder, "audit", "list", "--after", "9").stdout == "No rows.\n"


def test_a_store_that_another_hand_changed(folder: Path) -> None:
    one, other = created(folder), created(folder)
    told(folder, "token", "revoke", one["id"], "--yes")
    execute(
        folder,
        f"UPDATE tokens SET revoked_at = NULL, expires_at = 4000000000 WHERE id = '{one['id']}'",  # noqa: S608
        f"UPDATE tokens SET permission = 'ANONYMOUS' WHERE id = '{other['id']}'",  # noqa: S608
    )
    result = run(folder, "audit", "verify")
    assert result.exit_code == 1
    assert "The audit is whole, " in result.stdout
    for line in (
        f"Error: token {one['id']}: the audit tells that it was revoked, and its row does not",
        f"Error: token {one['id']}: it ends at {one['expires_at']} at the latest, and its row says 2096-10-02T07:06:40Z",
        f'Error: token {other["id"]}: permission was "USER" when it was made, and is "ANONYMOUS"',
    ):
        assert line in result.stderr
    found = json.loads(run(folder, "audit", "verify", "--json").stdout)
    assert (found["whole"], found["first_broken"]) == (True, None)
    assert sorted((item["id"], item["field"]) for item in found["differences"]) == sorted(
        [(one["id"], "revoked_at"), (one["id"], "expires_at"), (other["id"], "permission")]
    )


def test_an_audit_that_is_whole(folder: Path) -> None:
    run(folder, "store", "migrate")
    (folder / "data" / "pepper").write_text("e" * 64)
    assert told(folder, "audit", "verify")["head"] == f"0:{'0' * 64}"
    created(folder)
    first = told(folder, "audit", "verify")
    created(folder)
    assert told(folder, "audit", "verify", "--head", first["head"])["whole"] is True
    assert "The audit is whole, 2 rows." in run(folder, "audit", "verify").stdout


@pytest.mark.parametrize(
    ("statement", "row"),
    [
        ("UPDATE audit SET actor = 'os:nobody' WHERE number = 2", 2),
        ("DELETE FROM audit WHERE number = 1", 1),
        ("DELETE FROM audit WHERE number = 2", 2),
        ("DELETE FROM audit WHERE number = 3", 3),
    ],
)
def test_the_first_broken_row_is_named(folder: Path, statement: str, row: int) -> None:
    for _ in range(3):
        created(folder)
    head = told(folder, "audit", "verify")["head"]
    execute(folder, statement)
    result = run(folder, "audit", "verify", "--head", head)
    assert (result.exit_code, f"Error: row {row} of the audit" in result.stderr) == (1, True)
    told_by = run(folder, "audit", "verify", "--head", head, "--json")
    assert (told_by.exit_code, json.loads(told_by.stdout)["first_broken"]) == (1, row)


@pytest.mark.parametrize("head", ["1", "1:ff", "x:" + "f" * 64])
def test_a_head_that_cannot_be_read(folder: Path, head: str) -> None:
    result = run(folder, "audit", "verify", "--head", head)
    assert (result.exit_code, "--head" in result.stderr) == (2, True)


def test_the_export_goes_on_where_it_ended(folder: Path) -> None:
    created(folder)
    first = run(folder, "audit", "export").stdout.splitlines()
    created(folder)
    more = run(folder, "audit", "export", "--after", "1").stdout.splitlines()
    assert [json.loads(line).get("number") for line in (*first, *more)] == [1, None, 2, None]


# --- the store


def test_status_counts(folder: Path) -> None:
    revoked(folder)
    created(folder, *GLOBAL)
    found = told(folder, "store", "status")
    assert {name: found[name] for name in ("active", "expired", "revoked", "peppers", "missing_peppers")} == {
        "active": 1,
        "expired": 0,
        "revoked": 1,
        "peppers": {"p1": 1},
        "missing_peppers": [],
    }
    assert found["audit"] == told(folder, "audit", "verify")["head"]
    configured(folder, tokens=SETTINGS["tokens"] | {"peppers": [{"id": "p2", "env": "NO_SUCH_PEPPER"}]})
    assert told(folder, "store", "status")["missing_peppers"] == ["p1"]
    assert "p1: 1 active token (NOT LISTED)" in run(folder, "store", "status").stdout


def test_a_store_is_only_made_by_those_who_may(folder: Path) -> None:
    for command in (("status",), ("backup", str(folder / "copy")), ("accept-restore", "--audit", "-", "--yes")):
        result = run(folder, "store", *command, text='{"audit": [0, ""], "epoch": 1, "head": 0}')
        assert result.exit_code != 0
        assert not (folder / "data").exists()


def test_an_older_store_is_not_migrated_in_passing(folder: Path) -> None:
    created(folder)
    execute(folder, "UPDATE alembic_version SET version_num = '0001'")
    result = run(folder, "token", "create", *GLOBAL, "--description", "d", "--expires", "1d")
    assert (result.exit_code, "run 'extauthz store migrate'" in result.stderr) == (1, True)


def test_a_backup_is_whole_and_never_overwrites(folder: Path) -> None:
    created(folder)
    copy = folder / "copy.db"
    assert told(folder, "store", "backup", str(copy)) == {"file": str(copy), "audit": told(folder, "audit", "verify")["head"]}
    assert run(folder, "store", "backup", str(copy)).exit_code == 1
    shutil.copy(copy, folder / "data" / "tokens.db")
    assert len(told(folder, "token", "list")["tokens"]) == 1


def accident(folder: Path) -> tuple[dict[str, Any], dict[str, Any], Path]:
    """Back up, revoke one token and one that the backup lacks, export, and put the backup back."""
    kept = created(folder)
    told(folder, "store", "backup", str(folder / "copy.db"))
    told(folder, "token", "revoke", kept["id"], "--yes")
    lost = revoked(folder)
    file = folder / "audit.jsonl"
    file.write_text(run(folder, "audit", "export").stdout)
    shutil.copy(folder / "copy.db", folder / "data" / "tokens.db")
    return kept, lost, file


def test_a_restore_is_accepted_with_the_exported_audit(folder: Path) -> None:
    kept, lost, file = accident(folder)
    assert told(folder, "token", "show", kept["id"])["status"] == "active"
    asked = run(folder, "store", "accept-restore", "--audit", str(file))
    assert (asked.exit_code, "--yes is missing" in asked.stderr) == (2, True)
    done = told(folder, "store", "accept-restore", "--audit", str(file), "--yes")
    assert (done["revoked"], done["tombstones"]) == ([kept["id"]], [lost["id"]])
    assert told(folder, "token", "show", kept["id"])["status"] == "revoked"
    assert told(folder, "audit", "verify")["whole"] is True
    again = run(folder, "store", "accept-restore", "--audit", str(file), "--yes")
    assert "Accepted: 0 tokens revoked again, 0 unknown ids" in again.stdout


def test_an_export_in_two_parts_is_one(folder: Path) -> None:
    kept = created(folder)
    told(folder, "store", "backup", str(folder / "copy.db"))
    text = run(folder, "audit", "export").stdout
    told(folder, "token", "revoke", kept["id"], "--yes")
    text += run(folder, "audit", "export", "--after", "1").stdout
    shutil.copy(folder / "copy.db", folder / "data" / "tokens.db")
    done = run(folder, "store", "accept-restore", "--audit", "-", "--yes", "--json", text=text)
    assert json.loads(done.stdout)["revoked"] == [kept["id"]]


@pytest.mark.parametrize("damage", ["cut", "changed", "beginning", "foreign", "nonsense", "binary"])
def test_an_export_that_does_not_count(folder: Path, damage: str) -> None:
    kept, lost, file = accident(folder)
    lines = file.read_text().splitlines()
    other = folder / "other"
    if damage == "foreign":
        other.mkdir()
        (other / "data").mkdir()
        shutil.copy(folder / "data" / "pepper", other / "data" / "pepper")
        created(configured(other))
        lines = run(other, "audit", "export").stdout.splitlines()
    damaged = {
        "cut": lines[:-1],
        "changed": [line.replace(lost["id"], kept["id"]) for line in lines],
        "beginning": lines[1:],
        "foreign": lines,
        "nonsense": ["[]"],
        "binary": [],
    }[damage]
    file.write_bytes("\n".join(damaged).encode() if damaged else b"\xff\xfe")
    result = run(folder, "store", "accept-restore", "--audit", str(file), "--yes")
    assert (result.exit_code, "Error: --audit: " in result.stderr) == (1, True)
    assert told(folder, "token", "show", kept["id"])["status"] == "active"


# --- tokens that move


@pytest.fixture
def elsewhere(folder: Path) -> Path:
    """Another folder, whose store is empty and whose pepper is the same."""
    created(folder)
    created(folder, *GLOBAL)
    revoked(folder)
    other = folder / "elsewhere"
    (other / "data").mkdir(parents=True)
    shutil.copy(folder / "data" / "pepper", other / "data" / "pepper")
    return configured(other)


def test_active_tokens_move_and_stay_good(folder: Path, elsewhere: Path) -> None:
    made = created(folder)
    text = run(folder, "token", "export").stdout
    assert len(text.splitlines()) == 3
    assert made["token"].split("_")[2] not in text
    assert len(told(elsewhere, "token", "import", "-", "--yes", text=text)["imported"]) == 3
    assert told(elsewhere, "token", "verify", "--store", text=made["token"])["verdict"] == "active"
    same = ("id", "description", "permission", "user", "scopes", "created_at", "created_by", "expires_at")
    moved, original = (told(place, "token", "show", made["id"]) for place in (elsewhere, folder))
    assert [moved[name] for name in same] == [original[name] for name in same]
    again = run(elsewhere, "token", "import", "-", "--yes", text=text)
    assert (again.exit_code, "exists already" in again.stderr) == (1, True)
    assert run(elsewhere, "token", "import", "-", text=text).exit_code == 2


def test_what_was_buried_does_not_come_back(folder: Path) -> None:
    created(folder)
    told(folder, "store", "backup", str(folder / "copy.db"))
    lost = created(folder)
    exported = run(folder, "token", "export").stdout.splitlines()
    told(folder, "token", "revoke", lost["id"], "--yes")
    audit = run(folder, "audit", "export").stdout
    shutil.copy(folder / "copy.db", folder / "data" / "tokens.db")
    assert run(folder, "store", "accept-restore", "--audit", "-", "--yes", text=audit).exit_code == 0
    line = next(line for line in exported if lost["id"] in line)
    result = run(folder, "token", "import", "-", "--yes", text=line)
    assert (result.exit_code, "may not come back" in result.stderr) == (1, True)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"digest": "00"}, "digest: not 64 or 80 hex digits"),
        ({"digest": None}, "digest: not a text"),
        ({"id": "x"}, "id: not 12 letters and digits"),
        ({"user": "Ana@acme.com"}, "user: write the address in lower case"),
        ({"user": "eve@evil.com"}, "user: act_as in the configuration does not allow"),
        ({"user": 3}, "user: not a text"),
        ({"permission": "ROOT"}, "permission: write GLOBAL"),
        ({"scopes": ["NOPE"]}, "scopes: 'NOPE' is not one of"),
        ({"scopes": "SEARCH"}, "scopes: not a list"),
        ({"scopes": []}, "scopes: name at least one"),
        ({"description": ""}, "description: write 1 to 200"),
        ({"created_by": "a\nb"}, "created_by: write at most"),
        ({"created_at": 2_000_000_000, "expires_at": 2_000_000_010}, "created_at: lies ahead"),
        ({"created_at": True}, "created_at: not a time"),
        ({"created_at": 1, "expires_at": 100}, "expires_at: the token has expired"),
        ({"expires_at": 2**39}, "expires_at: must lie ahead, at most 365 days"),
        ({"pepper_id": "p9"}, "pepper_id: tokens.peppers does not list 'p9'"),
        ({"pepper_fingerprint": "0" * 16}, "pepper_fingerprint: the pepper 'p1' of this configuration is another one"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_imports_name_line_and_field(folder: Path, elsewhere: Path, changes: dict[str, Any], message: str) -> None:
    lines = run(folder, "token", "export").stdout.splitlines()
    wrong = next(json.loads(line) for line in lines if '"USER"' in line)
    text = "\n".join([next(line for line in lines if '"GLOBAL"' in line), "", json.dumps(wrong | changes)])
    result = run(elsewhere, "token", "import", "-", "--yes", text=text)
    assert (result.exit_code, f"line 3: {message}" in result.stderr) == (1, True), result.stderr
    assert not (elsewhere / "data" / "tokens.db").exists()


def test_an_import_does_not_prolong_a_life(folder: Path, elsewhere: Path) -> None:
    """The digest covers the latest expiry: the token would verify nowhere."""
    line = json.loads(run(folder, "token", "export").stdout.splitlines()[0])
    for seconds, code in ((1, 1), (-1, 0)):
        text = json.dumps(line | {"expires_at": line["expires_at"] + seconds})
        result = run(elsewhere, "token", "import", "-", "--yes", text=text)
        assert (result.exit_code, "line 1: expires_at: later than the digest" in result.stderr) == (code, code == 1), result.stderr


@pytest.mark.parametrize("text", ["", "nonsense", "[1]", "[" * 100_000, "{}"], ids=["empty", "text", "list", "deep", "object"])
def test_an_import_that_is_none(elsewhere: Path, text: str) -> None:
    result = run(elsewhere, "token", "import", "-", "--yes", text=text)
    assert (result.exit_code, "no token was imported" in result.stderr) == (1, True)


def test_a_line_that_stands_twice(folder: Path, elsewhere: Path) -> None:
    text = run(folder, "token", "export", "--permission", "USER").stdout * 2
    result = run(elsewhere, "token", "import", "-", "--yes", text=text)
    assert (result.exit_code, "line 2: id: token" in result.stderr) == (1, True)


# --- PostgreSQL


@pytest.fixture
def on_postgresql(folder: Path, postgresql: PostgresServer) -> Any:
    """A folder whose store is an empty database."""
    name = postgresql.make("template0")
    (folder / "password").write_text("not asked for here")
    place = {"store": postgresql.url(name), "store_password": {"file": "password"}}
    yield configured(folder, tokens=SETTINGS["tokens"] | place)
    postgresql.drop(name)


def test_the_main_flow_on_postgresql(on_postgresql: Path) -> None:
    folder = on_postgresql
    unmade = run(folder, "token", "create", *GLOBAL, "--description", "d", "--expires", "1d")
    assert (unmade.exit_code, "run 'extauthz store migrate'" in unmade.stderr) == (1, True)
    assert "not asked for here" not in unmade.output
    told(folder, "store", "migrate")
    (folder / "orders.yaml").write_text(
        "- {description: a, permission: USER, user: ana@acme.com, scopes: [SEARCH], expires: 30d}\n"
        "- {description: b, permission: GLOBAL, scopes: [DOC_PERMISSIONS, CHAT], expires: 1d}\n"
    )
    made = [
        json.loads(line)
        for line in run(folder, "token", "create", "--from-file", str(folder / "orders.yaml"), "--json").stdout.splitlines()
    ]
    assert [row["description"] for row in made] == ["a", "b"]
    assert [row["description"] for row in told(folder, "token", "list", "--scope", "DOCPERMISSIONS")["tokens"]] == ["b"]
    assert [row["description"] for row in told(folder, "token", "list", "--expiring-within", "7d")["tokens"]] == ["b"]
    page = told(folder, "token", "list", "--limit", "1")
    assert len(told(folder, "token", "list", "--limit", "1", "--after", page["after"])["tokens"]) == 1
    new = told(folder, "token", "rotate", made[0]["id"])
    assert run(folder, "token", "rotate", made[0]["id"]).exit_code == 1
    assert told(folder, "token", "verify", "--store", text=new["token"])["verdict"] == "active"
    assert told(folder, "token", "revoke", new["id"], "--chain", "--yes")["revoked"] == [new["id"], made[0]["id"]]
    assert told(folder, "token", "leaked", text=made[1]["token"])["found"][0]["outcome"] == "revoked"
    status = told(folder, "store", "status")
    assert (status["active"], status["revoked"], status["audit"]) == (0, 3, told(folder, "audit", "verify")["head"])
    assert [row["action"] for row in told(folder, "audit", "list")["rows"]] == ["create"] * 3 + [
        "rotate",
        "revoke",
        "revoke",
        "revoke",
    ]
    backup = run(folder, "store", "backup", str(folder / "copy"))
    assert (backup.exit_code, "pg_dump --format=custom" in backup.stderr) == (1, True)
    exported = run(folder, "audit", "export").stdout
    assert run(folder, "store", "accept-restore", "--audit", "-", "--yes", text=exported).exit_code == 0
    assert told(folder, "store", "status")["feed"]["epoch"] == status["feed"]["epoch"] + 1
    for output in (exported, run(folder, "token", "list", "--all").output):
        assert all(row["token"].split("_")[2] not in output for row in (*made, new))
