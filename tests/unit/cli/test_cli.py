"""The command line: tokens, configuration, exit codes."""

from __future__ import annotations

import contextlib
import json
import re
import sqlite3
import stat
from pathlib import Path

import click
import pytest
import yaml
from click.testing import CliRunner

from extauthz.adapters.store.rows import REVISION
from extauthz.adapters.store.sql import SqlTokenStore
from extauthz.cli import COMMANDS, main
from extauthz.core import tokens
from extauthz.core.model import Reason
from tests.support.command_line import GOOD, SETTINGS, USER, created, folder, run, told

__all__ = ["folder"]


def test_a_created_token_is_shown_once_and_only_a_digest_is_stored(folder: Path) -> None:
    made = created(folder)
    text = tokens.parse(made["token"], frozenset({"glean"}))
    assert not isinstance(text, Reason)
    assert text.id == made["id"]
    assert (made["permission"], made["user"], made["scopes"]) == ("USER", "ana@acme.com", ["DOCPERMISSIONS", "SEARCH"])
    for file in (folder / "data").iterdir():
        assert made["token"].encode() not in file.read_bytes()
        assert made["token"].split("_")[2].encode() not in file.read_bytes()
    for command in (["list"], ["list", "--json"], ["show", made["id"]], ["show", made["id"], "--json"]):
        assert made["token"].split("_")[2] not in run(folder, "token", *command).output


def test_the_human_output_shows_the_token_and_what_it_may_do(folder: Path) -> None:
    result = run(folder, "token", "create", *USER, *GOOD)
    assert result.exit_code == 0
    assert re.search(r"^  glean_[0-9A-Za-z]{12}_[0-9A-Za-z]{49}$", result.stdout, re.MULTILINE)
    assert "scopes         DOCPERMISSIONS, SEARCH" in result.stdout


def test_the_pepper_is_made_once_with_mode_0600(folder: Path) -> None:
    created(folder)
    pepper = folder / "data" / "pepper"
    assert stat.S_IMODE(pepper.stat().st_mode) == 0o600
    first = pepper.read_bytes()
    created(folder)
    assert pepper.read_bytes() == first


def test_a_lost_pepper_is_not_made_again(folder: Path) -> None:
    created(folder)
    (folder / "data" / "pepper").unlink()
    result = run(folder, "token", "create", *USER, *GOOD)
    assert result.exit_code == 3
    assert "No such file" in result.stderr
    assert not (folder / "data" / "pepper").exists()


def test_another_pepper_is_refused(folder: Path) -> None:
    created(folder)
    (folder / "data" / "pepper").write_text("f" * 64)
    result = run(folder, "token", "create", *USER, *GOOD)
    assert result.exit_code == 1
    assert "pepper 'p1' is not the one" in result.stderr


def test_a_short_pepper_is_refused(folder: Path) -> None:
    (folder / "data").mkdir()
    (folder / "data" / "pepper").write_text("short")
    result = run(folder, "token", "create", *USER, *GOOD)
    assert result.exit_code == 3
    assert "shorter than 32 bytes" in result.stderr
    assert "short\n" not in result.stderr


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"--description": ""}, "--description: write 1 to 200"),
        ({"--description": "a\nb"}, "--description: write 1 to 200"),
        ({"--description": "x" * 201}, "--description: write 1 to 200"),
        ({"--expires": "400d"}, "--expires: must lie ahead, at most 365 days"),
        ({"--expires": "0s"}, "--expires: must lie ahead"),
        ({"--scope": "NOPE"}, "--scope: 'NOPE' is not one of"),
        ({"--user": None}, "--user: a USER token needs one e-mail address"),
        ({"--user": "ana"}, "--user: a USER token needs one e-mail address"),
        ({"--user": "ana@evil.com"}, "--user: act_as in the configuration does not allow ana@evil.com"),
        ({"--permission": "GLOBAL"}, "--user: a GLOBAL token has no user"),
        ({"--permission": "ANONYMOUS"}, "--user: a ANONYMOUS token has no user"),
    ],
)
def test_refusals_name_the_flag(folder: Path, changes: dict[str, str | None], message: str) -> None:
    flags: dict[str, str | None] = {
        "--permission": "USER",
        "--user": "ana@acme.com",
        "--scope": "SEARCH",
        "--description": "d",
        "--expires": "1d",
    }
    arguments = [part for name, value in (flags | changes).items() if value is not None for part in (name, value)]
    result = run(folder, "token", "create", *arguments)
    assert result.exit_code == 1
    assert message in result.stderr
    assert not (folder / "data").exists()


def test_more_scopes_than_a_header_can_tell_are_refused(folder: Path) -> None:
    many = [f"A_SCOPE_WITH_A_NAME_OF_FORTY_CHARACTERS_{number:02}" for number in range(13)]
    (folder / "extauthz.yaml").write_text(yaml.safe_dump(SETTINGS | {"scopes": ["SEARCH", *many]}))
    flags = [part for name in many for part in ("--scope", name)]
    result = run(folder, "token", "create", "--permission", "ANONYMOUS", *flags, *GOOD)
    assert result.exit_code == 1
    assert "--scope: a token's scopes are told to the upstream in a header of at most 512 bytes" in result.stderr


@pytest.mark.parametrize("flags", [("--expires", "soon"), ("--expires", "90"), ("--scope", "a b"), ("--permission", "ROOT")])
def test_unreadable_flags_exit_with_2(folder: Path, flags: tuple[str, str]) -> None:
    result = run(folder, "token", "create", *USER, *GOOD, *flags)
    assert result.exit_code == 2
    assert flags[0] in result.stderr


def test_list_show_and_revoke(folder: Path) -> None:
    first = created(folder)
    second = created(folder, "--permission", "GLOBAL", "--scope", "CHAT")
    listed = told(folder, "token", "list")["tokens"]
    assert {row["id"]: row["status"] for row in listed} == {first["id"]: "active", second["id"]: "active"}
    assert f"Token {first['id']} is revoked." in run(folder, "token", "revoke", first["id"], "--yes").stdout
    again = run(folder, "token", "revoke", first["id"], "--yes")
    assert (again.exit_code, "was revoked before" in again.stdout) == (0, True)
    shown = told(folder, "token", "show", first["id"])
    assert shown["status"] == "revoked"
    assert shown["revoked_by"].startswith("os:")
    assert [row["id"] for row in told(folder, "token", "list")["tokens"]] == [second["id"]]
    table = run(folder, "token", "list", "--all").stdout
    assert [line.split()[0] for line in table.splitlines()[1:]] == [row["id"] for row in listed]
    assert all(len(line) <= 240 for line in table.splitlines())


def test_a_description_is_text_and_no_markup(folder: Path) -> None:
    flags = ("--description", "[/x] [link=https://evil.com]note", "--expires", "1d")
    assert run(folder, "token", "create", *USER, *flags).exit_code == 0
    listed = run(folder, "token", "list")
    assert listed.exit_code == 0
    assert "[/x] [link=https://evil.com]note" in listed.stdout


def test_the_file_alone_is_the_store_after_each_command(folder: Path) -> None:
    """A log that stays beside the file would be laid over a backup that is moved into its place."""
    created(folder)
    with contextlib.closing(sqlite3.connect(f"file:{folder}/data/tokens.db?mode=ro", uri=True)) as reader:
        reader.execute("SELECT * FROM tokens").fetchall()
        created(folder)
        log = folder / "data" / "tokens.db-wal"
        assert (log.read_bytes() if log.exists() else b"") == b""


@pytest.mark.parametrize("command", [("show", "nope"), ("revoke", "nope")])
def test_an_unknown_id_exits_with_1(folder: Path, command: tuple[str, str]) -> None:
    created(folder)
    result = run(folder, "token", *command)
    assert result.exit_code == 1
    assert "no token has the id 'nope'" in result.stderr


@pytest.mark.parametrize("command", [("list",), ("show", "x"), ("revoke", "x")])
def test_reading_a_store_that_is_not_there_makes_none(folder: Path, command: tuple[str, ...]) -> None:
    result = run(folder, "token", *command)
    assert result.exit_code == 1
    assert "no token store" in result.stderr
    assert not (folder / "data").exists()


def test_store_migrate_makes_the_store_and_no_pepper(folder: Path) -> None:
    for _ in range(2):
        result = run(folder, "store", "migrate")
        assert (result.exit_code, result.stdout.strip().endswith(f"schema {REVISION}")) == (0, True)
    assert [file.name for file in (folder / "data").glob("pepper*")] == []
    store = SqlTokenStore(folder / "data" / "tokens.db")
    assert store.list_tokens() == []
    store.close()


def test_config_check_lists_errors_and_exits_with_3(folder: Path) -> None:
    assert run(folder, "config", "check").exit_code == 0
    (folder / "extauthz.yaml").write_text(yaml.safe_dump(SETTINGS | {"realm": 3, "rutes": []}))
    result = run(folder, "config", "check")
    assert result.exit_code == 3
    assert "realm" in result.stdout
    assert "rutes: unknown key, did you mean 'routes'?" in result.stdout
    found = json.loads(run(folder, "config", "check", "--json").stdout)
    assert len(found["problems"]) == 2
    for command in (("token", "list"), ("serve",), ("store", "migrate")):
        refused = run(folder, *command)
        assert refused.exit_code == 3
        assert "2 errors: nothing was done." in refused.stderr


def test_config_show_fills_in_defaults_and_writes_issuers_out(folder: Path) -> None:
    tenant = "88888888-8888-8888-8888-888888888888"
    section = {"provider": "azure", "issuer": f"{tenant}/v2.0", "client_ids": "a, b"}
    (folder / "extauthz.yaml").write_text(yaml.safe_dump(SETTINGS | {"oauth": section}))
    shown = json.loads(run(folder, "config", "show").stdout)
    assert shown["oauth"]["issuer"] == f"https://login.microsoftonline.com/{tenant}/v2.0"
    assert shown["oauth"]["client_ids"] == ["a", "b"]
    assert shown["server"]["check_timeout"] == 0.15
    assert shown["server"]["listen"] == "127.0.0.1:9001"
    assert shown["tokens"]["peppers"] == [{"id": "p1"}]


def test_tokens_that_are_switched_off(folder: Path) -> None:
    (folder / "extauthz.yaml").write_text(yaml.safe_dump({name: value for name, value in SETTINGS.items() if name != "tokens"}))
    for command in (("token", "list"), ("store", "migrate"), ("token", "create", *USER, *GOOD)):
        result = run(folder, *command)
        assert result.exit_code == 1
        assert "switched off" in result.stderr


# They print for people, serve, always print JSON, or have --format for it.
NO_DATA = {("init",), ("serve",), ("demo",), ("completion",), ("envoy-config",), ("console",)} | {
    *(("config", name) for name in ("show", "schema", "fmt")),
    *(("internal-token", name) for name in ("new-key", "jwks")),
    *(("console", name) for name in ("add-user", "remove-user")),
}


def _leaves(command: click.Command, path: tuple[str, ...]) -> list[tuple[str, ...]]:
    if not isinstance(command, click.Group):
        return [path]
    context = click.Context(command)
    own = [path] if command.invoke_without_command else []
    return own + [leaf for name in command.list_commands(context) for leaf in _leaves(_get(command, context, name), (*path, name))]


def _get(group: click.Group, context: click.Context, name: str) -> click.Command:
    found = group.get_command(context, name)
    assert found is not None
    return found


def _command(path: tuple[str, ...]) -> click.Command:
    found: click.Command = main
    for name in path:
        assert isinstance(found, click.Group)
        found = _get(found, click.Context(found), name)
    return found


READERS = [path for path in _leaves(main, ()) if "config_file" in {param.name for param in _command(path).params}]


@pytest.mark.parametrize("path", _leaves(main, ()), ids=" ".join)
def test_every_command_has_help_with_an_example(path: tuple[str, ...]) -> None:
    result = CliRunner().invoke(main, [*path, "--help"])
    assert result.exit_code == 0
    assert f"Example: extauthz {' '.join(path)}" in result.stdout


@pytest.mark.parametrize("path", [path for path in _leaves(main, ()) if path not in NO_DATA], ids=" ".join)
def test_every_command_that_prints_data_prints_json(path: tuple[str, ...]) -> None:
    assert "--json" in CliRunner().invoke(main, [*path, "--help"]).stdout


@pytest.mark.parametrize("path", [path for path in _leaves(main, ()) if path not in NO_DATA], ids=" ".join)
def test_the_example_of_a_command_has_flags_that_it_knows(path: tuple[str, ...]) -> None:
    help_text = CliRunner().invoke(main, [*path, "--help"]).stdout
    example = help_text.partition("Example: ")[2].partition("Options:")[0]
    flags = set(re.findall(r"--[a-z-]+", example))
    assert flags <= set(re.findall(r"^ +(?:-h, )?(--[a-z-]+)", help_text.partition("Options:")[2], re.MULTILINE))


def test_unknown_commands_exit_with_2() -> None:
    assert CliRunner().invoke(main, ["nope"]).exit_code == 2
    assert "Exit codes" in CliRunner().invoke(main, ["--help"]).stdout
    assert all(name in CliRunner().invoke(main, ["--help"]).stdout for name in COMMANDS)


@pytest.mark.parametrize(
    ("variable", "flag", "read"),
    [
        ("a.yaml", None, "a.yaml"),
        ("a.yaml", "b.yaml", "b.yaml"),
        (None, "b.yaml", "b.yaml"),
        ("", None, "config/extauthz.yaml"),
        (None, None, "config/extauthz.yaml"),
    ],
)
@pytest.mark.parametrize("path", READERS, ids=" ".join)
def test_the_environment_names_the_configuration_where_no_flag_does(
    path: tuple[str, ...], variable: str | None, flag: str | None, read: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of every command that reads one: a place that only some of them know leads to two configurations."""
    monkeypatch.delenv("EXTAUTHZ_CONFIG", raising=False)
    if variable is not None:
        monkeypatch.setenv("EXTAUTHZ_CONFIG", variable)
    command = _command(path)
    (option,) = (param for param in command.params if param.name == "config_file")
    context = click.Context(command)
    value, _ = option.consume_value(context, {} if flag is None else {"config_file": flag})
    assert str(value) == read
