"""`--as`: what the roles of the configuration let a person do, and what the audit tells of it."""

from __future__ import annotations

import os
import pwd
import re
from pathlib import Path
from typing import Any

import pytest

from tests.support.command_line import GOOD, configured, created, run, told

ROLES = {"roles": {"admins": ["ana@acme.com"], "super_admins": ["sue@acme.com"], "viewers": ["bea@acme.com"]}}
GLOBAL = ("--permission", "GLOBAL", "--scope", "CHAT")
ANA, SUE, EVE, BEA = (("--as", f"{name}@acme.com") for name in ("Ana", "sue", "eve", "bea"))

COMMANDS = [
    ("token", "create", *GLOBAL, *GOOD),
    ("token", "list"),
    ("token", "show", "ID"),
    ("token", "rotate", "ID"),
    ("token", "revoke", "ID", "--yes"),
    ("token", "revoke", "--all-of-user", "ana@acme.com", "--yes"),
    ("token", "leaked"),
    ("token", "export"),
    ("token", "import", "-", "--yes"),
    ("audit", "list"),
    ("audit", "verify"),
    ("audit", "export"),
    ("store", "accept-restore", "--audit", "-", "--yes"),
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a configuration of roles."""
    return configured(tmp_path, **ROLES)


def last(folder: Path) -> Any:
    """Return the last row of the audit."""
    return told(folder, "audit", "list", "--limit", "1")["rows"][0]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_without_a_role_nothing_is_done_or_shown(folder: Path, command: tuple[str, ...]) -> None:
    made = created(folder, *GLOBAL)
    before = last(folder)
    result = run(folder, *(made["id"] if part == "ID" else part for part in command), *EVE, text=made["token"])
    assert (result.exit_code, result.stdout) == (1, "")
    assert "--as: eve@acme.com has no role: list the address in roles.admins or roles.super_admins" in result.stderr
    assert last(folder) == before


@pytest.mark.parametrize(
    "command",
    [
        ("token", "create", *GLOBAL, *GOOD),
        ("token", "rotate", "ID"),
        ("token", "revoke", "ID", "--yes"),
        ("token", "revoke", "MINE", "ID", "--yes"),
        ("token", "leaked"),
    ],
    ids=" ".join,
)
def test_an_admin_changes_no_global_token(folder: Path, command: tuple[str, ...]) -> None:
    made, mine = created(folder, *GLOBAL), created(folder)
    before = last(folder)
    arguments = [{"ID": made["id"], "MINE": mine["id"]}.get(part, part) for part in command]
    result = run(folder, *arguments, *ANA, text=made["token"])
    assert result.exit_code == 1
    assert "GLOBAL needs a super admin, and ana@acme.com is an admin" in result.stderr
    assert last(folder) == before
    assert run(folder, *arguments, *SUE, text=made["token"]).exit_code == 0
    assert last(folder)["actor"] == "sue@acme.com"


@pytest.mark.parametrize("command", [("token", "export"), ("store", "accept-restore", "--audit", "-", "--yes")], ids=" ".join)
def test_what_concerns_every_token_needs_a_super_admin(folder: Path, command: tuple[str, ...]) -> None:
    created(folder)
    exported = run(folder, "audit", "export").stdout
    refused = run(folder, *command, *ANA, text=exported)
    assert (refused.exit_code, "needs a super admin" in refused.stderr) == (1, True)
    assert run(folder, *command, *SUE, text=exported).exit_code == 0


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_a_viewer_looks_and_changes_nothing(folder: Path, command: tuple[str, ...]) -> None:
    """What only looks is allowed; all else says who may."""
    made = created(folder, "--permission", "ANONYMOUS", "--scope", "CHAT")
    created(folder, "--permission", "USER", "--user", "ana@acme.com", "--scope", "CHAT")
    before = last(folder)
    text = run(folder, "token", "export").stdout if "import" in command else made["token"]
    result = run(folder, *(made["id"] if part == "ID" else part for part in command), *BEA, text=text)
    if {"list", "show"} & set(command) or command[0] == "audit":
        assert result.exit_code == 0
    else:
        assert result.exit_code == 1
        assert re.search("needs an? (super )?admin, and bea@acme.com is a viewer: see roles.(super_)?admins", result.stderr)
    assert last(folder) == before


def test_an_admin_does_everything_else(folder: Path) -> None:
    created(folder, *GLOBAL)
    made = told(folder, "token", "create", "--permission", "USER", "--user", "bob@acme.com", "--scope", "CHAT", *GOOD, *ANA)
    assert made["created_by"] == "ana@acme.com"
    new = told(folder, "token", "rotate", made["id"], *ANA)
    assert told(folder, "token", "revoke", new["id"], "--chain", "--yes", *ANA)["revoked"] == [new["id"], made["id"]]
    assert len(told(folder, "token", "list", "--all", *ANA)["tokens"]) == 3
    assert told(folder, "audit", "verify", *ANA)["whole"] is True


def test_orders_in_a_file_need_the_role_one_by_one(folder: Path) -> None:
    file = folder / "orders.yaml"
    file.write_text(
        "- {description: a, permission: ANONYMOUS, scopes: [SEARCH], expires: 1d}\n"
        "- {description: b, permission: GLOBAL, scopes: [SEARCH], expires: 1d}\n"
    )
    result = run(folder, "token", "create", "--from-file", str(file), *ANA)
    assert result.exit_code == 1
    assert f"{file}:2: [1].permission: GLOBAL needs a super admin" in result.stderr
    assert run(folder, "token", "create", "--from-file", str(file), *SUE).exit_code == 0


def test_the_audit_names_the_system_user_always(folder: Path) -> None:
    me = f"os:{pwd.getpwuid(os.getuid()).pw_name}"
    created(folder)
    row = last(folder)
    assert row["actor"] == me
    assert re.fullmatch(r"cli on \S+", row["source"])
    told(folder, "token", "create", "--permission", "ANONYMOUS", "--scope", "CHAT", *GOOD, *ANA)
    row = last(folder)
    assert row["actor"] == "ana@acme.com"
    assert re.fullmatch(rf"cli of {me} on \S+", row["source"])


def test_an_address_that_is_none(folder: Path) -> None:
    result = run(folder, "token", "list", "--as", "ana")
    assert (result.exit_code, "--as" in result.stderr) == (2, True)
