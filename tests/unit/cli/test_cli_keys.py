"""`extauthz console key …`: made once, shown once, listed and revoked."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import pytest

from extauthz.core import tokens
from extauthz.core.tokens import TokenText
from tests.support.command_line import configured, run, told

ROLES = {"roles": {"admins": ["ana@acme.com"], "super_admins": ["sue@acme.com"], "viewers": ["bea@acme.com"]}}
GOOD = ("--role", "admin", "--description", "rotation in CI", "--expires", "90d")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a configuration of roles."""
    return configured(tmp_path, **ROLES)


def made(folder: Path, *more: str) -> dict[str, Any]:
    """Create a key and return what was printed."""
    facts = told(folder, "console", "key", "create", *GOOD, *more)
    assert isinstance(facts, dict)
    return facts


def test_a_key_is_shown_once(folder: Path) -> None:
    result = run(folder, "console", "key", "create", *GOOD)
    assert result.exit_code == 0, result.output
    match = re.search(r"^  (exadm_[0-9A-Za-z]{12}_[0-9A-Za-z]{49})$", result.stdout, re.MULTILINE)
    assert match is not None
    text = tokens.parse(match[1], frozenset({"exadm"}))
    assert isinstance(text, TokenText)
    assert "role         admin" in result.stdout
    secret = match[1].split("_")[2]
    for command in (("list",), ("list", "--json"), ("revoke", text.id, "--yes")):
        assert secret not in run(folder, "console", "key", *command).output
    contents = b"".join(file.read_bytes() for file in (folder / "data").iterdir())
    assert (text.id.encode() in contents, secret.encode() in contents) == (True, False)


def test_keys_are_listed_and_revoked(folder: Path) -> None:
    first, second = made(folder), made(folder, "--as", "sue@acme.com")
    assert {row["id"] for row in told(folder, "console", "key", "list")["keys"]} == {first["id"], second["id"]}
    assert second["created_by"] == "sue@acme.com"
    assert told(folder, "console", "key", "revoke", first["id"], "--yes") == {"id": first["id"], "was_revoked_before": False}
    assert told(folder, "console", "key", "revoke", first["id"], "--yes") == {"id": first["id"], "was_revoked_before": True}
    assert "was revoked before, at " in run(folder, "console", "key", "revoke", first["id"], "--yes").stdout
    assert [row["id"] for row in told(folder, "console", "key", "list")["keys"]] == [second["id"]]
    table = run(folder, "console", "key", "list", "--all").stdout
    assert {first["id"], second["id"], "revoked", "active"} <= set(table.split())
    assert [row["action"] for row in told(folder, "audit", "list")["rows"]] == ["key-create", "key-create", "key-revoke"]
    assert told(folder, "audit", "verify")["differences"] == []


def test_the_list_says_what_a_key_still_does(folder: Path) -> None:
    lower, gone = made(folder, "--as", "sue@acme.com"), made(folder, "--as", "sue@acme.com", "--role", "viewer")
    configured(folder, roles={"super_admins": ["cto@acme.com"], "viewers": ["sue@acme.com"]})
    table = run(folder, "console", "key", "list").stdout
    assert re.search(f"^{lower['id']} +admin, acts as viewer +active", table, re.MULTILINE), table
    assert re.search(f"^{gone['id']} +viewer +active", table, re.MULTILINE), table
    configured(folder, roles={"super_admins": ["cto@acme.com"]})
    rows = told(folder, "console", "key", "list")["keys"]
    assert [(row["status"], row["acts_as"]) for row in rows] == [("suspended", None)] * 2


def test_no_keys_are_told_in_a_sentence(folder: Path) -> None:
    made(folder)
    run(folder, "console", "key", "revoke", told(folder, "console", "key", "list")["keys"][0]["id"], "--yes")
    assert "extauthz console key create" in run(folder, "console", "key", "list").stdout


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (("create", *GOOD, "--as", "ana@acme.com"), 1, "--as: creating an admin key needs a super admin"),
        (("create", *GOOD, "--as", "bea@acme.com"), 1, "--as: creating an admin key needs a super admin"),
        (("create", *GOOD, "--as", "eve@acme.com"), 1, "has no role"),
        (("create", *GOOD, "--expires", "366d"), 1, "--expires: must lie ahead, at most 365 days (tokens.max_lifetime)"),
        (("create", *GOOD, "--description", ""), 1, "--description: write 1 to 200 printable characters"),
        (("create", *GOOD, "--expires", "soon"), 2, "--expires"),
        (("create", *GOOD, "--role", "root"), 2, "--role"),
        (("create",), 2, "Missing option"),
        (("revoke", "aaaaaaaaaaaa", "--yes"), 1, "no admin key has the id 'aaaaaaaaaaaa'"),
        (("revoke", "x" * 13, "--yes"), 2, "an id is the 12 letters"),
        (("revoke", "aaaaaaaaaaaa"), 2, "--yes is missing"),
        (("revoke", "aaaaaaaaaaaa", "--yes", "--as", "ana@acme.com"), 1, "--as: revoking an admin key needs a super admin"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_refusals_name_the_flag(folder: Path, arguments: tuple[str, ...], code: int, text: str) -> None:
    made(folder)
    result = run(folder, "console", "key", *arguments)
    assert (result.exit_code, result.stdout) == (code, "")
    assert text in result.stderr
    assert len(told(folder, "console", "key", "list")["keys"]) == 1


def test_a_key_that_could_not_be_shown_can_be_revoked(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr("extauthz.cli.console_key.write_facts", fail)
    result = run(folder, "console", "key", "create", *GOOD)
    assert result.exit_code == 1
    ((command,),) = [re.findall(r"^  extauthz (console key revoke [0-9A-Za-z]{12} --yes) --config", result.stderr, re.MULTILINE)]
    assert "The key was made all the same." in result.stderr
    assert run(folder, *command.split()).exit_code == 0
