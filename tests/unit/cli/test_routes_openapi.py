"""`routes import openapi` and `routes coverage`: what they print, write and exit with."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

from extauthz.cli import main, routes_import
from tests.support.command_line import configured

SPEC = {
    "openapi": "3.0.3",
    "paths": {
        "/items": {"get": {"operationId": "listItems", "security": [{"o": ["read"]}]}, "post": {"security": [{"o": ["write"]}]}},
        "/health": {"get": {"security": []}},
    },
}
MAP = "rules:\n  - {security: read, scope: SEARCH}\n  - {path: /health, public: true}\n"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A configuration, a description and a mapping file, where commands are called."""
    configured(tmp_path)
    (tmp_path / "api.json").write_text(json.dumps(SPEC))
    (tmp_path / "map.yaml").write_text(MAP)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EXTAUTHZ_CONFIG", "extauthz.yaml")
    return tmp_path


def call(*words: str) -> Result:
    result = CliRunner().invoke(main, ["routes", *words])
    assert isinstance(result.exception, SystemExit | None), result.exception
    return result


def imported(*words: str) -> Result:
    return call("import", "openapi", "api.json", *words)


def test_a_file_is_printed_and_written(folder: Path) -> None:
    printed = imported("--map", "map.yaml")
    written = imported("--map", "map.yaml", "--output", "new.yaml")
    assert (printed.exit_code, written.exit_code, written.stdout) == (0, 0, "")
    assert (folder / "new.yaml").read_text() == printed.stdout
    assert printed.stdout.splitlines()[2].startswith('  - {match: "GET /items", scope: SEARCH, name: "listItems"}')
    assert written.stderr.splitlines() == [
        "3 operations: 3 added, 1 denied.",
        "      1  denied: no rule for security write: add one to the mapping file, or write a scope here",
        "new.yaml was written.",
    ]


def test_a_second_time_nothing_is_written(folder: Path) -> None:
    imported("--output", "new.yaml")
    file = folder / "new.yaml"
    os.chmod(file, 0o640)
    before = file.stat()
    again = imported("--output", "new.yaml")
    assert again.stderr.splitlines()[-1] == "new.yaml is as it was."
    assert file.stat().st_ino == before.st_ino
    changed = imported("--output", "new.yaml", "--map", "map.yaml")
    assert "3 operations: 2 changed, 1 denied." in changed.stderr
    assert file.stat().st_mode == before.st_mode


def test_a_dry_run_shows_what_would_change(folder: Path) -> None:
    fresh = imported("--output", "new.yaml", "--dry-run")
    assert (fresh.exit_code, (folder / "new.yaml").exists()) == (1, False)
    assert fresh.stdout.splitlines()[:2] == ["--- /dev/null", "+++ new.yaml"]
    imported("--output", "new.yaml")
    same = imported("--output", "new.yaml", "--dry-run")
    assert (same.exit_code, same.stdout) == (0, "")
    text = (folder / "new.yaml").read_text()
    other = imported("--output", "new.yaml", "--dry-run", "--map", "map.yaml")
    assert (other.exit_code, (folder / "new.yaml").read_text()) == (1, text)
    assert [row.partition(",")[0] for row in other.stdout.splitlines() if row.startswith("+ ")] == [
        '+  - {match: "GET /items"',
        '+  - {match: "GET /health"',
    ]


def test_json_says_all_of_it(folder: Path) -> None:
    assert imported("--json").exit_code == 2
    facts = json.loads(imported("--map", "map.yaml", "--output", "new.yaml", "--json").stdout)
    assert facts | {"added": [], "denied": []} == {
        "file": "new.yaml",
        "is_written": True,
        "operations": 3,
        "added": [],
        "changed": [],
        "gone": [],
        "kept": [],
        "denied": [],
        "difference": [],
    }
    assert [each["access"] for each in facts["added"]] == ["scope SEARCH", "deny", "public"]
    assert [each["route"] for each in facts["denied"]] == ["POST /items"]
    dry = json.loads(imported("--output", "new.yaml", "--json", "--dry-run").stdout)
    assert (dry["is_written"], len(dry["changed"]), dry["difference"][0]) == (False, 2, "--- new.yaml")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("missing.json",), "missing.json: cannot be read: No such file or directory"),
        (("api.json", "--map", "missing.yaml"), "missing.yaml:1: cannot be read: No such file or directory"),
        (("api.json", "--map", "bad.yaml"), "bad.yaml:1: rules[0].scope: unknown scope 'X'"),
        (("api.json", "--output", "bad.yaml"), "bad.yaml:1: routes: is missing"),
        (("api.json", "--output", "binary.yaml"), "binary.yaml: cannot be read: it is not text in UTF-8"),
        (("api.json", "--config", "missing.yaml"), "missing.yaml:1: cannot be read: No such file or directory"),
        (("api.json", "--config", "list.yaml"), "list.yaml:1: the file is not a mapping"),
    ],
)
def test_a_problem_in_a_file_is_3_and_nothing_is_written(words: tuple[str, ...], message: str, folder: Path) -> None:
    (folder / "bad.yaml").write_text("rules: [{tag: a, scope: X}]")
    (folder / "binary.yaml").write_bytes(b"routes: # \xff\n")
    (folder / "list.yaml").write_text("[]")
    output = () if "--output" in words else ("--output", "new.yaml")
    before = {file: file.read_bytes() for file in folder.iterdir()}
    result = call("import", "openapi", *words, *output)
    assert (result.exit_code, result.stdout) == (3, "")
    assert message in result.stderr
    assert {file: file.read_bytes() for file in folder.iterdir()} == before


@pytest.mark.parametrize("words", [(), ("api.json", "--prefix", "api"), ("api.json", "--nope")])
def test_wrong_flags_are_2(words: tuple[str, ...], folder: Path) -> None:
    assert call("import", "openapi", *words).exit_code == 2


def test_a_file_that_somebody_changes_meanwhile_is_not_overwritten(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    imported("--output", "new.yaml")
    content = routes_import.content

    def changing(output: Path | None) -> bytes | None:
        found = content(output)
        (folder / "new.yaml").write_bytes(f"{(found or b'').decode()}# mine\n".encode())
        return found

    monkeypatch.setattr(routes_import, "content", changing)
    result = imported("--output", "new.yaml", "--map", "map.yaml")
    assert result.exit_code == 1
    assert "new.yaml was changed meanwhile, and is as it was changed" in result.stderr
    assert "scope: SEARCH" not in (folder / "new.yaml").read_text()


def test_without_a_configuration_scopes_are_not_compared(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EXTAUTHZ_CONFIG")
    (folder / "map.yaml").write_text("rules: [{path: /items, scope: ANY}]")
    result = imported("--map", "map.yaml")
    assert result.exit_code == 0
    assert "There is no config/extauthz.yaml: scopes are not compared with its list." in result.stderr
    assert "scope: ANY" in result.stdout


def test_a_new_file_ends_with_the_marker_where_files_have_one(folder: Path) -> None:
    configured(folder, reload={"end_marker": True})
    assert imported().stdout.splitlines()[-1] == "# end"


# --- coverage


def with_routes(folder: Path, *words: str) -> None:
    """Serve what is imported."""
    (folder / "routes.yaml").unlink()
    assert imported("--output", "routes.yaml", *words).exit_code == 0


def test_coverage_of_what_was_imported_finds_nothing(folder: Path) -> None:
    with_routes(folder, "--map", "map.yaml")
    result = call("coverage", "api.json", "--map", "map.yaml")
    assert (result.exit_code, result.stdout) == (0, "3 operations: 2 opened, 1 denied. 0 findings.\n")


def test_findings_are_a_table_and_1(folder: Path) -> None:
    (folder / "routes.yaml").write_text(
        'routes:\n  - {match: "GET /items", public: true}\n  - {match: "GET /old", scope: SEARCH}\n'
    )
    result = call("coverage", "api.json")
    assert result.exit_code == 1
    rows = [row.split("  ")[0] for row in result.stdout.splitlines()]
    assert rows == ["finding", "wider", "no route", "no route", "no operation", "3 operations: 1 opened, 2 denied. 4 findings."]
    data: dict[str, Any] = json.loads(call("coverage", "api.json", "--json").stdout)
    assert (data["operations"], data["counts"]) == (3, 4)
    assert data["findings"][0] | {"place": ""} == {
        "kind": "wider",
        "operation": "GET /items",
        "route": "GET /items",
        "why": "the route is public, and the description demands security",
        "place": "",
        "accepted": "",
    }


def test_accepted_findings_are_shown_and_do_not_count(folder: Path) -> None:
    (folder / "routes.yaml").write_text('routes:\n  - {match: "GET /old", scope: SEARCH}\n  - {match: "* /**", deny: true}\n')
    (folder / "map.yaml").write_text(MAP + "accepted:\n  - {what: GET /old, why: until May}\n")
    result = call("coverage", "api.json", "--map", "map.yaml")
    assert result.exit_code == 0
    assert "accepted: until May" in result.stdout
    assert result.stdout.endswith("3 operations: 3 denied. 0 findings.\n")


def test_routes_of_other_files_are_left_out(folder: Path) -> None:
    (folder / "routes.yaml").write_text('routes:\n  - {match: "* /items", deny: true}\n  - {match: "* /health", deny: true}\n')
    (folder / "other.yaml").write_text('routes:\n  - {match: "GET /other", scope: SEARCH}\n')
    configured_routes = (folder / "extauthz.yaml").read_text().replace("- routes.yaml", "- routes.yaml\n- other.yaml")
    (folder / "extauthz.yaml").write_text(configured_routes)
    assert call("coverage", "api.json").exit_code == 1
    assert call("coverage", "api.json", "--routes", "./routes.yaml").exit_code == 0
    assert call("coverage", "api.json", "--routes", "map.yaml").exit_code == 2


def test_a_configuration_with_a_problem_is_3(folder: Path) -> None:
    (folder / "routes.yaml").write_text("routes: [{}]")
    assert call("coverage", "api.json").exit_code == 3


def test_both_commands_are_in_one_group() -> None:
    group = main.get_command(click.Context(main), "routes")
    assert isinstance(group, click.Group)
    assert {"import", "coverage"} <= set(group.list_commands(click.Context(group)))
