"""`extauthz console …`: who has an account."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.command_line import configured, run, told

PASSWORD = "correct horse battery"
ROLES = {"roles": {"admins": ["ana@acme.com"], "super_admins": ["cto@acme.com"]}}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return configured(tmp_path, **ROLES)


def test_an_account_is_added_listed_changed_and_removed(folder: Path) -> None:
    added = run(folder, "console", "add-user", "Ana@ACME.com", "--password-file", "-", text=f"{PASSWORD}\n")
    assert (added.exit_code, added.stdout) == (0, "Account ana@acme.com is added.\n")
    changed = run(folder, "console", "add-user", "ana@acme.com", "--password-file", "-", text=f"another {PASSWORD}\n")
    assert "has another password, and its sessions are over" in changed.stdout
    (listed,) = told(folder, "console", "list-users")
    assert listed["email"] == "ana@acme.com"
    assert listed["created_by"].startswith("os:")
    assert "ana@acme.com" in run(folder, "console", "list-users").stdout
    removed = run(folder, "console", "remove-user", "ana@acme.com", "--yes")
    assert (removed.exit_code, removed.stdout) == (0, "Account ana@acme.com is removed.\n")
    assert "No account" in run(folder, "console", "list-users").stdout


def test_who_has_no_role_is_named(folder: Path) -> None:
    added = run(folder, "console", "add-user", "guest@acme.com", "--password-file", "-", text=f"{PASSWORD}\n")
    assert (added.exit_code, "It has no role yet" in added.stderr) == (0, True)


REFUSED = {
    "a short password": (("add-user", "ana@acme.com", "--password-file", "-"), "short\n", "12 to 128 characters"),
    "a long password": (("add-user", "ana@acme.com", "--password-file", "-"), "x" * 129, "12 to 128 characters"),
    "no address": (("add-user", "ana", "--password-file", "-"), PASSWORD, "write one e-mail address"),
    "an admin": (("add-user", "ana@acme.com", "--password-file", "-", "--as", "ana@acme.com"), PASSWORD, "needs a super admin"),
    "nobody to remove": (("remove-user", "nobody@acme.com", "--yes"), "", "no account has this address"),
    "removing by an admin": (("remove-user", "ana@acme.com", "--yes", "--as", "ana@acme.com"), "", "needs a super admin"),
    "listing by an admin": (("list-users", "--as", "ana@acme.com"), "", "needs a super admin"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused(folder: Path, name: str) -> None:
    assert run(folder, "store", "migrate").exit_code == 0
    assert run(folder, "console", "add-user", "cto@acme.com", "--password-file", "-", text=PASSWORD).exit_code == 0
    arguments, text, says = REFUSED[name]
    result = run(folder, "console", *arguments, text=text)
    assert (result.exit_code, says in result.stderr) == (1, True)
    assert [account["email"] for account in told(folder, "console", "list-users")] == ["cto@acme.com"]


def test_without_a_terminal_nobody_is_asked(folder: Path) -> None:
    result = run(folder, "console", "add-user", "ana@acme.com", text=PASSWORD)
    assert (result.exit_code, "--password-file -" in result.stderr) == (2, True)


def test_the_password_is_in_no_file_and_no_output(folder: Path) -> None:
    result = run(folder, "console", "add-user", "ana@acme.com", "--password-file", "-", text=PASSWORD)
    assert PASSWORD not in result.output
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert len(files) >= 3
    assert [path for path in files if PASSWORD.encode() in path.read_bytes()] == []
