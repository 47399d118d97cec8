"""What commands print: in every encoding, without anybody's control characters, and when it cannot be written at all."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import sqlite3
import subprocess
import sys
import unicodedata
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import click
import pytest
import yaml
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st

from extauthz import cli
from extauthz.cli import main, rendering, terminal
from extauthz.cli.rendering import Column, Fit
from extauthz.cli.terminal import fitting, printable
from tests.support.command_line import GOOD, SETTINGS, USER, configured, created, told
from tests.support.narrow_terminal import Terminal, narrow_in

EVIL = "x\x1b[31mred\x1b]0;title\x07\x9b1m\r\b\x7f\u202egnp.exe\u2066\u200b…é→日\nforged"
"""Colours, a title, C1, a carriage return, a backspace, DEL, text that runs backwards, and letters that few encodings have."""


def leaves(group: click.Group, *path: str) -> Iterator[tuple[str, ...]]:
    """Yield the words of every command."""
    context = click.Context(group)
    for name in group.list_commands(context):
        found = group.get_command(context, name)
        if isinstance(found, click.Group):
            yield from leaves(found, *path, name)
        if not isinstance(found, click.Group) or found.invoke_without_command:
            yield (*path, name)


CALLS: dict[tuple[str, ...], list[list[str]]] = {
    ("serve",): [["--config", "<evil>"]],
    ("token", "create"): [[*USER, *GOOD], [*USER, *GOOD, "--as", EVIL], ["--from-file", "<orders>"]],
    ("token", "list"): [["--all"], ["--all", "--json"], ["--user", EVIL], ["--created-by", EVIL], ["--after", EVIL]],
    ("token", "show"): [["<id>"], ["<id>", "--json"], ["\x1b[1m\x9b…"]],
    ("token", "rotate"): [
        ["<id>", "--overlap", EVIL],
        ["\x1b[1m\x9b…"],
        ["--pepper", EVIL, "--all", "--dry-run"],
        ["--pepper", "p0", "--all", "--dry-run"],
        ["--pepper", "p0", "--all", "--yes"],
    ],
    ("pepper", "new"): [[EVIL], ["p2", "--file", "<evil>"], ["p2", "--file", "<backup>"], ["p3", "--file", "<key>", "--json"]],
    ("token", "revoke"): [["\x1b[1m\x9b…", "--yes"], ["<id>"], ["<other>", "--yes"], ["<other>", "--yes", "--why", EVIL]],
    ("token", "leaked"): [["<evil>"], ["<missing>"]],
    ("token", "verify"): [["<evil>"], ["<missing>"]],
    ("token", "export"): [[]],
    ("token", "import"): [["<evil>", "--yes"], ["<export>", "--yes"]],
    ("store", "migrate"): [[]],
    ("store", "status"): [[], ["--json"]],
    ("store", "backup"): [["<backup>"], ["<evil>"]],
    ("store", "accept-restore"): [["--audit", "<evil>", "--yes"]],
    ("audit", "list"): [[], ["--json"], ["--actor", EVIL], ["--action", EVIL], ["--token", EVIL], ["--since", EVIL]],
    ("audit", "verify"): [[], ["--head", EVIL]],
    ("audit", "export"): [[]],
    ("config", "check"): [
        [],
        ["--json"],
        ["--config", "<evil>"],
        *(["--config", "<evil>", "--format", form] for form in ("text", "json", "github", "sarif")),
    ],
    ("config", "schema"): [[], ["--of", EVIL]],
    ("config", "fmt"): [["--check"], ["<evil>"], ["--check", "<orders>"], ["--config", "<evil>"]],
    ("config", "show"): [[], ["--config", "<evil>"]],
    ("test",): [
        ["<suite>", "--coverage", "--junit", "<backup>"],
        ["<suite>", "-v", "-k", EVIL[:4]],
        ["<suite>", "--json"],
        *(["<evil>"], ["<missing>"], ["<orders>"], ["--init", "<new>"]),
    ],
    ("diff",): [
        ["<config>", "<config>"],
        ["<config>", "<renamed>"],
        ["<config>", "<renamed>", "--json"],
        ["<config>", "<renamed>", "--format", "markdown"],
        ["<evil>", "<config>"],
        ["<config>", f"git:{EVIL}:{EVIL}"],
    ],
    ("init",): [["<new>"], ["<new>", "--name", EVIL], ["<new>", "--scope", EVIL], ["<new>", "--issuer", EVIL, "--client-id", EVIL]],
    ("routes", "import", "openapi"): [
        ["<spec>"],
        ["<spec>", "--output", "<new>", "--dry-run"],
        ["<spec>", "--output", "<new>", "--json"],
        ["<evil>"],
        ["<spec>", "--map", "<evil>"],
        ["<spec>", "--prefix", EVIL],
        ["<spec>", "--config", "<missing>"],
    ],
    ("routes", "coverage"): [["<spec>"], ["<spec>", "--json"], ["<missing>"], ["<spec>", "--host", EVIL]],
    ("internal-token", "new-key"): [["<evil>"], ["<key>"]],
    ("internal-token", "jwks"): [[]],
    ("report",): [["<log>"], ["<log>", "--json"], ["<missing>"], ["<log>", "--by", "client,user"], ["<log>", "--by", EVIL]],
    ("replay",): [["<log>"], ["<log>", "--json"], ["<missing>"], ["<log>", "--host", EVIL], ["<log>", "--fail-on", EVIL]],
    ("routes",): [
        [],
        ["--json"],
        ["--config", "<evil>"],
        ["--text", EVIL],
        ["--path", EVIL],
        ["--path", "/search", "--method", EVIL, "--host", EVIL],
        ["--path", EVIL, "--json"],
        ["--scope", EVIL],
        ["--token", "<id>"],
        ["--token", "\x1b[1m\x9b…"],
    ],
    ("explain",): [
        ["--as", "nobody", "-X", EVIL, "http://api.acme.com/search"],
        ["--json", "--as", "nobody", "-X", EVIL, "http://api.acme.com/search"],
        ["--as", EVIL, "http://api.acme.com/search"],
        ["--curl", f"curl 'http://api.acme.com/{EVIL}'"],
        ["curl", f"--{EVIL}"],
        ["--log-line", "<evil>"],
        ["--check-request", "<evil>"],
        ["--live", EVIL],
        ["--config", "<evil>", "http://api.acme.com/search"],
    ],
    ("decisions",): [
        ["--ops", EVIL],
        ["--config", "<evil>"],
        ["--ops", "unix:///\x1b\u202e", "--user", EVIL],
        ["--ops", "unix:///\x1b\u202e", "--follow", "--id", EVIL],
    ],
    ("record",): [
        ["--output", "<new>", "--ops", EVIL],
        ["--output", "<evil>"],
        ["--output", "<new>", "--ops", "unix:///\x1b\u202e", "--route", EVIL],
        ["--output", "<new>", "--for", EVIL],
    ],
    ("envoy-config",): [
        [],
        ["--config", "<evil>"],
        ["--listener", EVIL],
        ["--domain", EVIL],
        ["--cors", EVIL],
        *(["--for", name] for name in ("envoy-gateway", "istio", "contour")),
    ],
    ("doctor",): [["--offline"], ["--offline", "--json"], ["--offline", "--config", "<evil>"]],
    ("demo",): [["--link", EVIL]],
    ("completion",): [["bash"], ["zsh"], ["fish"], [EVIL], []],
    ("console",): [["--config", "<evil>"]],
    ("console", "add-user"): [
        [EVIL],
        ["ana@acme.com", "--password-file", "<evil>"],
        ["ana@acme.com", "--password-file", "<missing>"],
    ],
    ("console", "list-users"): [[], ["--json"]],
    ("console", "remove-user"): [[EVIL, "--yes"], ["ana@acme.com"]],
    ("console", "key", "create"): [["--role", EVIL], ["--role", "admin", "--description", EVIL, "--expires", "30d"]],
    ("console", "key", "list"): [[], ["--json"]],
    ("console", "key", "revoke"): [[EVIL, "--yes"], ["<id>"]],
}


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store and files that hold what a terminal would obey."""
    folder = configured(tmp_path_factory.mktemp("template"))
    made = created(folder)
    created(folder)
    with closing(sqlite3.connect(folder / "data" / "tokens.db", isolation_level=None)) as connection:
        for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
            connection.execute(f"DROP TRIGGER {name}")
        connection.execute("UPDATE tokens SET description = ?, created_by = ? WHERE id = ?", (EVIL, EVIL, made["id"]))
        evil = json.dumps({"description": EVIL}, ensure_ascii=False)
        connection.execute("UPDATE audit SET actor = ?, source = ?, after = ?", (EVIL, EVIL, evil))
    (folder / "evil.yaml").write_text(yaml.safe_dump(SETTINGS | {"realm": EVIL, EVIL: EVIL, "scopes": [EVIL], "routes": [EVIL]}))
    named = [{"match": "POST /search", "public": True, "name": EVIL}]
    (folder / "evil-routes.yaml").write_text(yaml.safe_dump({"routes": named}))
    (folder / "renamed.yaml").write_text(yaml.safe_dump(SETTINGS | {"routes": ["evil-routes.yaml"]}))
    (folder / "orders.yaml").write_text(yaml.safe_dump([{"description": EVIL, "permission": EVIL, EVIL: 1, "scopes": [EVIL]}]))
    expect = {"route": EVIL, "headers": {"x-a": EVIL}}
    case = {"name": EVIL, "request": f"GET /{EVIL}", "act_as": EVIL, "headers": {"x-a": EVIL}, "expect": expect}
    (folder / "suite.yaml").write_text(yaml.safe_dump({"cases": [case, {**case, "name": f"{EVIL} 2", "expect": "allow"}]}))
    texts = dict.fromkeys(
        ("reason", "route", "actor", "client_id", "user", "nearest_route", "required_scopes", "held_scopes"), EVIL
    )
    line = {"decision": "would_deny", "time": 1_800_000_000, **texts}
    (folder / "log").write_text(json.dumps(line) + "\n")
    operation = {"operationId": EVIL, "tags": [EVIL], "security": [{EVIL: [EVIL]}]}
    servers = [{"url": "https://acme.com/"}]
    described = {"openapi": "3.0.3", "servers": servers, "paths": {f"/{EVIL}": {"get": operation}, "/{a}": {"get": operation}}}
    (folder / "spec.json").write_text(json.dumps(described))
    exported = {"id": EVIL, "description": EVIL, "permission": EVIL, "scopes": [EVIL], "user": EVIL}
    (folder / "export").write_text(json.dumps(exported) + "\n")
    return folder


@pytest.fixture
def world(template: Path, tmp_path: Path) -> dict[str, str]:
    """A copy of it in a folder whose name is no better."""
    folder = shutil.copytree(template, tmp_path / "f\x1b[31m\x9b\u202e…")
    rows = told(folder, "token", "list")["tokens"]
    (made,) = [row["id"] for row in rows if row["description"] == EVIL]
    (other,) = [row["id"] for row in rows if row["description"] != EVIL]
    files = {
        "config": "extauthz.yaml",
        "evil": "evil.yaml",
        "renamed": "renamed.yaml",
        "orders": "orders.yaml",
        "log": "log",
        "suite": "suite.yaml",
        "export": "export",
        "spec": "spec.json",
        "missing": "missing\x1b",
        "backup": "backup\x1b.db",
        "key": "key\x1b.pem",
        "new": "new\x1b",
    }
    return {f"<{name}>": str(folder / file) for name, file in files.items()} | {"<id>": made, "<other>": other}


def call(world: dict[str, str], command: tuple[str, ...], arguments: list[str], charset: str = "utf-8") -> Result:
    """Run a command in this process, on streams of an encoding that refuse what they do not have."""
    words = [*command, *(world.get(argument, argument) for argument in arguments)]
    parameters = {option for argument in main_command(command).params for option in argument.opts}
    if "--config" in parameters and "--config" not in words:
        words += ["--config", world["<config>"]]
    return CliRunner(charset=charset).invoke(main, words)


def main_command(path: tuple[str, ...]) -> click.Command:
    """Return the command of these words."""
    found: click.Command = main
    for name in path:
        assert isinstance(found, click.Group)
        deeper = found.get_command(click.Context(found), name)
        assert deeper is not None
        found = deeper
    return found


def obeyed(text: str) -> set[str]:
    """Return what a terminal would obey."""
    return {letter for letter in text if letter != "\n" and unicodedata.category(letter) in ("Cc", "Cf", "Zl", "Zp")}


def test_every_command_is_called() -> None:
    assert set(CALLS) == set(leaves(main))


@pytest.mark.parametrize("charset", ["utf-8", "latin-1", "ascii"])
@pytest.mark.parametrize("command", CALLS, ids=" ".join)
def test_no_command_lets_anybody_else_write_to_the_terminal(world: dict[str, str], command: tuple[str, ...], charset: str) -> None:
    for arguments in CALLS[command]:
        result = call(world, command, arguments, charset)
        assert isinstance(result.exception, SystemExit | None), result.exception
        for written in (result.stdout_bytes, result.stderr_bytes):
            assert obeyed(written.decode(charset)) == set(), (arguments, written)
            assert not re.search("^forged", written.decode(charset), re.MULTILINE), (arguments, written)
        assert result.stdout_bytes + result.stderr_bytes, arguments


@pytest.mark.parametrize("command", sorted({(), *(path[:1] for path in CALLS), *CALLS}), ids=" ".join)
def test_help_is_written_with_ascii_alone(command: tuple[str, ...]) -> None:
    """Where the streams have ASCII alone, click would write UTF-8."""
    result = CliRunner(charset="ascii").invoke(main, [*command, "--help"])
    assert result.exit_code == 0
    assert result.stdout_bytes.isascii()


def test_there_is_one_way_to_the_terminal() -> None:
    """No module of the command line prints past it."""
    past = re.compile(r"click\.(?:echo|secho|style|confirm|prompt)\(|\bprint\(|\bConsole\(|sys\.std(?:out|err)\b")
    found = {file.name for file in Path(cli.__file__).parent.glob("*.py") if past.search(file.read_text())}
    assert found == {"terminal.py", "output.py", "rendering.py"}


# --- texts


@given(st.text())
def test_nothing_is_obeyed_and_letters_stay(text: str) -> None:
    shown = printable(text)
    assert obeyed(shown) == set()
    if "\\u" not in text:
        assert [letter for letter in text if letter.isprintable()] == [*re.sub(r"\\u[0-9a-f]{4}", "", shown.replace("\n", ""))]
    assert "\n" not in printable(text, lines=False)


@given(st.text(st.characters(exclude_characters="\\")))
def test_json_stays_what_it_was(text: str) -> None:
    """Escapes are those of JSON: a program reads the same text."""
    assert json.loads(printable(json.dumps(text, ensure_ascii=False), lines=False)) == text


@pytest.mark.parametrize(
    ("charset", "shown"),
    [("utf-8", "a … é → 日 \\u001b"), ("latin-1", "a ... é -> \\u65e5 \\u001b"), ("ascii", "a ... \\u00e9 -> \\u65e5 \\u001b")],
)
def test_an_encoding_that_lacks_a_letter_shows_another(charset: str, shown: str) -> None:
    with CliRunner(charset=charset).isolation():
        terminal.prepare()
        assert fitting("a … é → 日 \x1b") == shown


# --- tables


@pytest.mark.parametrize("columns", [10, 60])
def test_a_narrow_table_cuts_no_id_and_names_what_it_left_out(tmp_path: Path, columns: int) -> None:
    folder = configured(tmp_path)
    made = created(folder)
    seen = narrow_in(folder, columns, "token", "list", charset="latin-1")
    assert made["id"] in seen
    assert "Left out, because the terminal is too narrow: " in seen
    assert "scopes, last used. --json has them." in seen
    assert all(len(line) <= max(columns, 12) for line in seen.splitlines() if not line.startswith("Left out"))


def test_a_cut_text_ends_with_a_mark_that_the_encoding_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "20")
    seen = {}
    for charset in ("utf-8", "latin-1"):
        with monkeypatch.context() as patched:
            patched.setattr(sys, "stdout", shown := Terminal(charset))
            rendering.write_table([Column("id"), Column("text", fit=Fit.CUT)], [("1", "x" * 100)])
        seen[charset] = shown.seen.getvalue().decode(charset)
    assert "xxx…" in seen["utf-8"]
    assert seen["latin-1"] == seen["utf-8"].replace("…", "~")


def test_both_ids_of_a_row_of_the_audit_are_whole(tmp_path: Path) -> None:
    folder = configured(tmp_path)
    made = created(folder)
    seen = narrow_in(folder, 24, "audit", "list", charset="ascii")
    assert re.search(rf"^1 +{made['id']}", seen, re.MULTILINE)


# --- output that cannot be written


def program(folder: Path, *arguments: str, output: Any) -> subprocess.CompletedProcess[str]:
    """Run a command as a process of its own."""
    command = [sys.executable, "-m", "extauthz", *arguments, "--config", str(folder / "extauthz.yaml")]
    environment = {**os.environ, "PYTHONIOENCODING": "latin-1"}
    return subprocess.run(command, check=False, stdout=output, stderr=subprocess.PIPE, text=True, timeout=60, env=environment)


def revoked_by(text: str) -> list[str]:
    """Run the command that a message names; return the ids that it revoked."""
    (line,) = [line for line in text.splitlines() if line.startswith("  extauthz token revoke ")]
    result = CliRunner().invoke(main, [*shlex.split(line)[1:], "--json"])
    assert result.exit_code == 0, result.output
    return list(json.loads(result.stdout)["revoked"])


def closed_pipe() -> int:
    reading, writing = os.pipe()
    os.close(reading)
    return writing


@pytest.mark.parametrize(("how", "where"), [("one", "full"), ("json", "closed pipe"), ("many", "full")])
def test_a_token_that_could_not_be_shown_is_named_to_be_revoked(tmp_path: Path, how: str, where: str) -> None:
    folder = configured(tmp_path)
    order = "{description: d, permission: USER, user: ana@acme.com, scopes: [SEARCH], expires: 1d}"
    (folder / "orders.yaml").write_text(f"- {order}\n- {order}\n")
    flags = {"one": [*USER, *GOOD], "json": [*USER, *GOOD, "--json"], "many": ["--from-file", str(folder / "orders.yaml")]}[how]
    output = os.open("/dev/full", os.O_WRONLY) if where == "full" else closed_pipe()
    try:
        result = program(folder, "token", "create", *flags, output=output)
    finally:
        os.close(output)
    assert result.returncode == 1
    assert "Traceback" not in result.stderr
    assert "Exception ignored" not in result.stderr
    assert ("No space left on device" if where == "full" else "Broken pipe") in result.stderr
    assert "glean_" not in result.stderr
    stored = [row["id"] for row in told(folder, "token", "list")["tokens"]]
    assert len(stored) == (2 if how == "many" else 1)
    assert sorted(revoked_by(result.stderr)) == sorted(stored)


def test_a_successor_that_could_not_be_shown_is_named_to_be_revoked(tmp_path: Path) -> None:
    folder = configured(tmp_path)
    old = created(folder)
    with open("/dev/full", "w") as full:
        result = program(folder, "token", "rotate", old["id"], output=full)
    (new,) = [row["id"] for row in told(folder, "token", "list")["tokens"] if row["id"] != old["id"]]
    assert (result.returncode, revoked_by(result.stderr)) == (1, [new])


def test_what_happens_between_commit_and_output_is_told_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = configured(tmp_path)

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("extauthz.cli.token_create.write_one", interrupted)
    result = CliRunner().invoke(main, ["token", "create", *USER, *GOOD, "--config", str(folder / "extauthz.yaml")])
    assert result.exit_code == 1
    assert len(revoked_by(result.stderr)) == 1


def test_other_commands_say_that_their_output_is_lost(tmp_path: Path) -> None:
    folder = configured(tmp_path)
    created(folder)
    with open("/dev/full", "w") as full:
        result = program(folder, "token", "list", output=full)
    assert (result.returncode, result.stderr) == (1, "Error: standard output cannot be written: No space left on device\n")


def test_a_reader_who_went_away_hears_nothing(tmp_path: Path) -> None:
    folder = configured(tmp_path)
    created(folder)
    output = closed_pipe()
    result = program(folder, "audit", "list", output=output)
    os.close(output)
    assert (result.returncode, result.stderr) == (1, "")
