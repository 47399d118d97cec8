"""What commands say of slips of the pen, of peppers that are missing, of what a restore loses, and of one thing or two."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from extauthz.config.wording import counted
from tests.support.command_line import SETTINGS, configured, created, run, told


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one token."""
    folder = configured(tmp_path_factory.mktemp("template"))
    created(folder, "--permission", "ANONYMOUS", "--scope", "CHAT")
    return folder


@pytest.fixture
def folder(template: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return shutil.copytree(template, tmp_path / "copy")


# --- scopes


@pytest.mark.parametrize(
    ("scope", "message"),
    [
        ("SERCH", "Invalid value for --scope: no token holds 'SERCH', and the vocabulary lacks it, did you mean 'SEARCH'?"),
        ("ZZZ", "no token holds 'ZZZ', and the vocabulary lacks it: write one of CHAT, DOCPERMISSIONS, SEARCH"),
    ],
)
def test_a_scope_that_nothing_has_is_an_error(folder: Path, scope: str, message: str) -> None:
    for more in ([], ["--all"], ["--json"]):
        result = run(folder, "token", "list", "--scope", scope, *more)
        assert (result.exit_code, message in result.stderr, result.stdout) == (2, True, "")


def test_a_scope_that_was_taken_away_is_found_at_the_tokens_that_have_it(folder: Path) -> None:
    configured(folder, scopes=["SEARCH", "DOCPERMISSIONS"])
    assert len(told(folder, "token", "list", "--scope", "CHAT")["tokens"]) == 1
    assert told(folder, "token", "list", "--scope", "CHAT", "--permission", "USER")["tokens"] == []
    assert told(folder, "token", "list", "--scope", "SEARCH")["tokens"] == []


# --- peppers that the store needs


def peppers(folder: Path, *ids: str) -> None:
    for name in ids:
        (folder / "data" / f"pepper-{name}").write_text("0f" * 32)
    listed = [{"id": name, "file": "data/pepper" if name == "p1" else f"data/pepper-{name}"} for name in ids]
    configured(folder, tokens=SETTINGS["tokens"] | {"peppers": listed})


def test_a_pepper_that_active_tokens_need_is_missed_with_the_store(folder: Path) -> None:
    assert run(folder, "config", "check", "--store").exit_code == 0
    peppers(folder, "p2")
    assert run(folder, "config", "check").exit_code == 0
    result = run(folder, "config", "check", "--store")
    assert result.exit_code == 3
    assert "tokens.peppers: 1 active token needs pepper 'p1', which is not listed (" in result.stdout
    assert "1 problem, 2 warnings" in result.stdout
    (found,) = json.loads(run(folder, "config", "check", "--store", "--json").stdout)["problems"]
    assert (found["path"], found["line"] > 0) == ("tokens.peppers", True)
    peppers(folder, "p2", "p1")
    assert run(folder, "config", "check", "--store").exit_code == 0


def test_a_pepper_that_is_another_one_is_seen_with_the_store(folder: Path) -> None:
    (folder / "data" / "pepper").write_text("0f" * 32)
    result = run(folder, "config", "check", "--store")
    assert (result.exit_code, "pepper 'p1' is not the one that" in result.stdout) == (3, True)
    (folder / "data" / "pepper").write_text("short")
    result = run(folder, "config", "check", "--store")
    assert (result.exit_code, "is shorter than 32 bytes" in result.output) == (3, True)


def test_a_store_that_cannot_be_read_is_no_configuration_in_order(folder: Path) -> None:
    shutil.rmtree(folder / "data")
    result = run(folder, "config", "check", "--store")
    assert (result.exit_code, "no token store" in result.stderr) == (1, True)
    configured(folder, tokens=SETTINGS["tokens"] | {"enabled": False})
    assert run(folder, "config", "check", "--store").exit_code == 0


# --- what a restore loses


def test_tokens_that_were_made_after_the_backup_are_named(folder: Path) -> None:
    """As the page says: they are lost. Those that are revoked, or over, need nobody."""
    shutil.copytree(folder / "data", folder / "backup")
    made = [created(folder, "--permission", "ANONYMOUS", "--scope", "CHAT")["id"] for _ in range(3)]
    assert run(folder, "token", "revoke", made[1], "--yes").exit_code == 0
    export = run(folder, "audit", "export").stdout
    shutil.rmtree(folder / "data")
    (folder / "backup").rename(folder / "data")
    asked = run(folder, "store", "accept-restore", "--audit", "-", text=export)
    assert (asked.exit_code, "with 1 revocation of the export?" in asked.stderr) == (2, True)
    lost = f"warning: 2 tokens were made after the backup and are lost, make them again: {made[0]}, {made[2]}"
    assert lost in asked.stderr
    done = run(folder, "store", "accept-restore", "--audit", "-", "--yes", "--json", text=export)
    assert (json.loads(done.stdout)["lost"], json.loads(done.stdout)["tombstones"]) == ([made[0], made[2]], [made[1]])
    assert lost in done.stderr
    again = run(folder, "store", "accept-restore", "--audit", "-", "--yes", text=export)
    assert "Accepted: 0 tokens revoked again, 0 unknown ids may not come back, 0 expiries brought forward" in again.stdout
    assert "make them again" in again.stderr


# --- one or two


@pytest.mark.parametrize(("number", "text"), [(0, "0 tokens"), (1, "1 token"), (2, "2 tokens"), (1234, "1,234 tokens")])
def test_numbers_agree_with_what_they_count(number: int, text: str) -> None:
    assert counted(number, "token") == text
    assert counted(number, "proxy", "proxies") == f"{number:,} {'proxy' if number == 1 else 'proxies'}"


def test_one_is_written_in_the_singular(folder: Path) -> None:
    assert "The audit is whole, 1 row. Note" in run(folder, "audit", "verify").stdout
    assert "p1: 1 active token\n" in run(folder, "store", "status").stdout
    assert "1 active token\n" in run(folder, "doctor", "--offline").stdout
    exported = run(folder, "token", "export").stdout
    (folder / "extauthz.yaml").write_text((folder / "extauthz.yaml").read_text().replace("tokens.db", "other.db"))
    asked = run(folder, "token", "import", "-", text=exported)
    assert "Import 1 token?" in asked.stderr
    assert "1 token was imported." in run(folder, "token", "import", "-", "--yes", text=exported).stdout
