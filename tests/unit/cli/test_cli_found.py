"""Secrets that somebody found: `token verify`, `token leaked`, and the expressions that scanners get from docs/tokens.md."""

from __future__ import annotations

import json
import os
import re
import tomllib
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner

from extauthz.cli import main
from extauthz.core.tokens import ENTROPY_BYTES, _checksum, mint
from tests.support.command_line import configured, created, run, told
from tests.support.project import ROOT

DOCUMENT = (ROOT / "docs" / "tokens.md").read_text("utf-8")
WITH_ROLES = {"roles": {"admins": ["ana@acme.com"], "super_admins": ["sue@acme.com"]}}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a configuration."""
    return configured(tmp_path, **WITH_ROLES)


def other(token: str) -> str:
    """Return a token of another secret, which is well-formed."""
    return mint(token.partition("_")[0], os.urandom(ENTROPY_BYTES)).text


def with_id_of(token: str) -> str:
    """Return a well-formed token with the id of another and a secret of its own."""
    prefix, token_id, rest = token.split("_")
    body = f"{prefix}_{token_id}_{'z' + rest[1:43]}"
    return body + _checksum(body)


# --- verify


def test_a_token_is_verified_offline(folder: Path) -> None:
    token = mint("glean", os.urandom(ENTROPY_BYTES)).text
    assert told(folder, "token", "verify", text=f"{token}\n") == {"verdict": "well-formed", "id": token.split("_")[1]}
    (folder / "token.txt").write_text(token)
    assert run(folder, "token", "verify", str(folder / "token.txt")).exit_code == 0
    assert not (folder / "data").exists()


@pytest.mark.parametrize(
    ("change", "verdict"),
    [
        (lambda token: token[:-1] + ("a" if token[-1] != "a" else "b"), "wrong checksum"),
        (lambda token: token[:-1], "malformed"),
        (lambda token: "Bearer " + token, "malformed"),
        (lambda token: "", "malformed"),
        (lambda token: mint("acme", os.urandom(ENTROPY_BYTES)).text, "unknown prefix 'acme'"),
    ],
    ids=["checksum", "short", "bearer", "empty", "prefix"],
)
def test_a_token_that_is_none(folder: Path, change: object, verdict: str) -> None:
    token = mint("glean", os.urandom(ENTROPY_BYTES)).text
    text = change(token)  # type: ignore[operator]
    result = run(folder, "token", "verify", text=text)
    assert (result.exit_code, verdict in result.stdout) == (1, True)
    assert token[20:60] not in result.output


def test_a_prefix_of_old_is_accepted(folder: Path) -> None:
    peppers = {"store": "sqlite:///data/tokens.db", "peppers": [{"id": "p1", "file": "data/pepper"}], "accept_prefixes": ["acme"]}
    configured(folder, tokens=peppers)
    assert told(folder, "token", "verify", text=mint("acme", os.urandom(ENTROPY_BYTES)).text)["verdict"] == "well-formed"


def test_the_store_is_asked(folder: Path) -> None:
    made = created(folder)
    assert told(folder, "token", "verify", "--store", text=made["token"])["user"] == "ana@acme.com"
    for text, verdict in ((other(made["token"]), "unknown"), (with_id_of(made["token"]), "wrong secret")):
        result = run(folder, "token", "verify", "--store", "--json", text=text)
        assert result.exit_code == 1
        assert f'"verdict": "{verdict}"' in result.stdout
        assert "ana@acme.com" not in result.stdout
    run(folder, "token", "revoke", made["id"], "--yes")
    result = run(folder, "token", "verify", "--store", text=made["token"])
    assert (result.exit_code, "revoked" in result.stdout) == (1, True)


def test_a_token_on_the_command_line_is_refused_and_not_repeated(folder: Path) -> None:
    made = created(folder)
    for command in ("verify", "leaked"):
        for arguments, code in (((made["token"],), 1), (("-", made["token"]), 2)):
            result = run(folder, "token", command, *arguments, text="")
            assert result.exit_code == code
            assert made["token"][20:] not in result.output
    assert told(folder, "token", "show", made["id"])["status"] == "active"


# --- leaked


def test_leaked_tokens_are_revoked_if_they_are_ours(folder: Path) -> None:
    mine, revoked, other_mine = created(folder), created(folder), created(folder)
    run(folder, "token", "revoke", revoked["id"], "--yes")
    broken = mine["token"][:-1] + ("a" if mine["token"][-1] != "a" else "b")
    found = [mine["token"], revoked["token"], other(mine["token"]), with_id_of(other_mine["token"]), broken]
    (folder / "report.txt").write_text(f'[{{"Secret": "{found[0]}"}}]\nTOKEN_{found[0]}\nurl?t={found[1]}&x\n' + "\n".join(found))
    told_by = run(folder, "token", "leaked", str(folder / "report.txt"), "--json")
    assert told_by.exit_code == 0
    expected = ["revoked", "revoked before", "unknown to this store", "wrong secret: not this token", "wrong checksum: not a token"]
    pairs = [(text.split("_")[1], outcome) for text, outcome in zip(found, expected, strict=True)]
    assert told_by.stdout == as_printed(pairs)
    for text in found:
        assert text.split("_")[2] not in told_by.output
    shown = told(folder, "token", "show", mine["id"])
    assert (shown["status"], shown["revoked_why"]) == ("revoked", "leaked")
    assert told(folder, "token", "show", other_mine["id"])["status"] == "active"


def as_printed(pairs: list[tuple[str, str]]) -> str:
    return json.dumps({"found": [{"id": token_id, "outcome": outcome} for token_id, outcome in pairs]}) + "\n"


def test_nothing_of_ours_is_exit_code_1(folder: Path) -> None:
    made = created(folder)
    result = run(folder, "token", "leaked", "-", text="nothing here")
    assert (result.exit_code, "they begin with glean and '_'" in result.stderr) == (1, True)
    assert run(folder, "token", "leaked", "-", text=other(made["token"])).exit_code == 1


def test_an_admin_cannot_end_a_leaked_global_token(folder: Path) -> None:
    made = created(folder, "--permission", "GLOBAL", "--scope", "CHAT")
    result = run(folder, "token", "leaked", "--as", "ana@acme.com", text=made["token"])
    assert (result.exit_code, "GLOBAL needs a super admin" in result.stderr) == (1, True)
    assert told(folder, "token", "show", made["id"])["status"] == "active"
    assert run(folder, "token", "leaked", "--as", "sue@acme.com", text=made["token"]).exit_code == 0


# --- what scanners get


def rules() -> list[str]:
    """Return the expressions of the document: the one of its gitleaks rule, and the one in the text."""
    block = re.search(r"```toml\n(.*?)```", DOCUMENT, re.DOTALL)
    assert block is not None
    rule = tomllib.loads(block[1])["rules"][0]
    assert rule["keywords"] == ["glean_"]
    plain = re.search(r"```text\n(.*?)\n```", DOCUMENT, re.DOTALL)
    assert plain is not None
    return [rule["regex"], plain[1]]


@pytest.mark.parametrize("expression", rules())
def test_scanners_find_tokens_and_nothing_else(expression: str) -> None:
    find = re.compile(expression, re.ASCII)
    assert "(?=" not in expression, "Go has no look-around"
    assert "(?<" not in expression
    for number in range(300):
        token = mint("glean", os.urandom(ENTROPY_BYTES)).text
        frames = (token, f'"{token}"', f"Authorization: Bearer {token}", f"T={token}\n", f"https://x/?t={token}&y", f"x: {token},")
        found = find.search(f"before {frames[number % len(frames)]} after")
        assert found is not None
        assert token in found[0]
        head, token_id, rest = token.split("_")
        for fake in (
            f"{head}_{token_id}_{rest[:-1]}",
            f"{head}_{token_id}_{rest}0",
            f"{head}_{token_id[:-1]}_{rest}",
            f"{head}-{token_id}-{rest}",
            f"x{token}",
            f"{head.upper()}_{token_id}_{rest}",
            f"{head}_{token_id}_{rest[:20]}-{rest[21:]}",
            f"glean_{token_id}",
        ):
            assert find.search(f" {fake} ") is None, fake


# --- in which encoding somebody wrote it down

ENCODINGS = {
    "utf-8": b"",
    "utf-8-sig": b"",
    "utf-16": b"",
    "utf-32": b"",
    "utf-16-le": b"",
    "utf-16-be": b"",
    "utf-32-le": b"",
    "utf-32-be": b"",
    "utf-16-be with a mark": b"\xfe\xff",
    "utf-32-be with a mark": b"\x00\x00\xfe\xff",
    "utf-7 with a mark": b"+/v8-",
    "gb18030 with a mark": b"\x84\x31\x95\x33",
}


@pytest.mark.parametrize("name", ENCODINGS)
def test_a_token_is_read_in_every_encoding_with_a_mark_and_in_those_of_powershell(folder: Path, name: str) -> None:
    made = created(folder)
    for text in (made["token"], f"\r\n{made['token']}\r\n"):
        (folder / "found.txt").write_bytes(ENCODINGS[name] + text.encode(name.split()[0]))
        result = run(folder, "token", "verify", "--store", str(folder / "found.txt"))
        assert (result.exit_code, "active" in result.stdout) == (0, True), result.output
    (folder / "found.txt").write_bytes(ENCODINGS[name] + f"Schlüssel: {made['token']}".encode(name.split()[0]))
    result = run(folder, "token", "leaked", str(folder / "found.txt"))
    assert (result.exit_code, result.stdout) == (0, f"Token {made['id']}: revoked.\n"), result.output


UNREADABLE = {
    "another encoding": lambda text: f"Schlüssel {text}".encode("latin-1"),
    "cut off": lambda text: (text + "x").encode("utf-16")[:-1],
    "cut off without a mark": lambda text: (text + "x").encode("utf-16-le")[:-1],
    "appended by PowerShell": lambda text: b"report\n" + text.encode("utf-16-le"),
    "half a pair": lambda text: f"{text} ".encode("utf-16") + b"\x00\xd8",
    "zeros": lambda text: b"\0\0\0\0\0\0\0\0" + text.encode() + b"\0\0\0",
    "an archive": lambda text: bytes(range(256)) + text.encode(),
}


@pytest.mark.parametrize("what", UNREADABLE)
def test_what_cannot_be_read_is_an_error_and_hides_no_token(folder: Path, what: str) -> None:
    made = created(folder)
    spoil = UNREADABLE[what]
    for command in ("verify", "leaked"):
        (folder / "found.txt").write_bytes(spoil("nothing that is a token stands here"))
        result = run(folder, "token", command, str(folder / "found.txt"))
        assert (result.exit_code, "the text cannot be read" in result.stderr) == (1, True), result.output
        assert "no token stands there" not in result.stderr
    (folder / "found.txt").write_bytes(spoil(f" {made['token']} "))
    result = run(folder, "token", "leaked", str(folder / "found.txt"))
    assert (result.exit_code, result.stdout) == (1, f"Token {made['id']}: revoked.\n")
    assert "there may be more, as not all of the text can be read" in result.stderr
    assert made["token"][20:] not in result.output


# --- until when


def ends(folder: Path, text: str) -> int:
    """Create a token with an expiry; return after how many seconds it ends."""
    flags = ("--permission", "USER", "--user", "ana@acme.com", "--scope", "SEARCH", "--description", "d")
    made = told(folder, "token", "create", *flags, "--expires", text)
    first, last = (datetime.fromisoformat(made[name]) for name in ("created_at", "expires_at"))
    return int((last - first).total_seconds())


@pytest.mark.parametrize(("text", "days"), [("1w", 7), ("4w", 28), ("52w", 364), ("1y", 365), ("365d", 365)])
def test_an_expiry_in_weeks_and_years(folder: Path, text: str, days: int) -> None:
    assert ends(folder, text) == days * 86_400


def test_an_expiry_that_is_a_date_is_the_end_of_that_day(folder: Path) -> None:
    day = (datetime.now(UTC) + timedelta(days=30)).date().isoformat()
    flags = ("--permission", "USER", "--user", "ana@acme.com", "--scope", "SEARCH", "--description", "d")
    assert told(folder, "token", "create", *flags, "--expires", day)["expires_at"] == f"{day}T23:59:59Z"
    order = f"- {{description: d, permission: USER, user: ana@acme.com, scopes: [SEARCH], expires: {day}}}\n"
    (folder / "orders.yaml").write_text(order)
    assert told(folder, "token", "create", "--from-file", str(folder / "orders.yaml"))["expires_at"] == f"{day}T23:59:59Z"
    today = datetime.now(UTC).date().isoformat()
    assert 0 <= ends(folder, today) < 86_400


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("2020-01-31", "must lie ahead, at most 365 days"),
        ("2999-01-31", "must lie ahead, at most 365 days"),
        ("2y", "must lie ahead, at most 365 days"),
        ("0w", "must lie ahead"),
        ("2027-02-30", "is no day of the calendar"),
        ("2027-13-01", "is no day of the calendar"),
        ("0000-01-01", "is no day of the calendar"),
        ("27-01-31", "write a number and h, d, w or y, like 90d, or a date like 2027-01-31"),
        ("2027-1-31", "or a date like 2027-01-31"),
        ("2027-01-31T00:00", "or a date like 2027-01-31"),
        ("tomorrow", "or a date like 2027-01-31"),
        ("1M", "or a date like 2027-01-31"),
        ("\u0661w", "or a date like 2027-01-31"),
        ("9999999999999w", "longer than 100 years"),
    ],
)
def test_an_expiry_that_is_none(folder: Path, text: str, message: str) -> None:
    flags = ("--permission", "USER", "--user", "ana@acme.com", "--scope", "SEARCH", "--description", "d")
    result = run(folder, "token", "create", *flags, "--expires", text)
    # What can be read and is not allowed is refused as the rest of an order; what cannot be read is a wrong call.
    assert result.exit_code == (1 if "must lie ahead" in message else 2)
    assert "--expires" in result.stderr
    assert message in result.stderr
    (folder / "orders.yaml").write_text(
        f"- {{description: d, permission: USER, user: ana@acme.com, scopes: [SEARCH], expires: '{text}'}}\n"
    )
    result = run(folder, "token", "create", "--from-file", str(folder / "orders.yaml"))
    assert (result.exit_code, "1: [0].expires: " in result.stderr, message in result.stderr) == (1, True, True)


def test_weeks_where_a_list_is_asked_for(folder: Path) -> None:
    created(folder)
    assert len(told(folder, "token", "list", "--expiring-within", "52w")["tokens"]) == 1
    assert told(folder, "token", "list", "--expiring-within", "1w")["tokens"] == []


def test_help_shows_how_times_are_written() -> None:
    shown = CliRunner().invoke(main, ["token", "create", "--help"]).output
    assert "--expires 2027-01-31" in shown
    assert "4w" in shown
