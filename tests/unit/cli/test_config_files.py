"""`extauthz config check` in its formats and with its exit codes, `config schema` and `config fmt`."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner, Result

from extauthz.cli import main
from tests.support.command_line import SETTINGS, configured, run
from tests.support.project import ROOT

CLEAN = SETTINGS | {"scopes": ["SEARCH"]}
WARNED = SETTINGS | {"scopes": ["SEARCH", "CHAT"]}
BROKEN = SETTINGS | {"realm": 3}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a configuration, the current one."""
    monkeypatch.chdir(tmp_path)
    return configured(tmp_path)


def check(folder: Path, settings: dict[str, object], *flags: str) -> Result:
    """Check these settings from inside of their folder."""
    (folder / "extauthz.yaml").write_text(yaml.safe_dump(settings))
    return CliRunner().invoke(main, ["config", "check", "--config", "extauthz.yaml", *flags])


@pytest.mark.parametrize("flags", [[], ["--json"], *(["--format", name] for name in ("text", "json", "github", "sarif"))])
@pytest.mark.parametrize(
    ("settings", "code", "strict"), [(CLEAN, 0, 0), (WARNED, 0, 1), (BROKEN, 3, 3)], ids=["clean", "warned", "broken"]
)
def test_exit_codes(folder: Path, settings: dict[str, object], code: int, strict: int, flags: list[str]) -> None:
    assert check(folder, settings, *flags).exit_code == code
    assert check(folder, settings, *flags, "--strict").exit_code == strict


def test_a_silenced_warning_is_none(folder: Path) -> None:
    (folder / "routes.yaml").write_text(
        'routes:\n  - {match: "POST /search", scope: SEARCH}\n'
        '  - {match: "POST /hook", public: true}  # extauthz: ignore anonymous-write: the sender signs it\n'
    )
    result = check(folder, CLEAN, "--strict")
    assert (result.exit_code, result.stdout) == (0, "extauthz.yaml: 0 problems, 0 warnings, 1 silenced\n")
    found = json.loads(check(folder, CLEAN, "--json").stdout)
    assert [(each["name"], each["line"], each["reason"]) for each in found["silenced"]] == [
        ("anonymous-write", 3, "the sender signs it")
    ]


def test_a_comment_that_is_wrong_is_a_problem(folder: Path) -> None:
    (folder / "routes.yaml").write_text('routes:\n  - {match: "POST /search", scope: SEARCH}  # extauthz: ignore open-read\n')
    result = check(folder, CLEAN)
    assert result.exit_code == 3
    assert result.stdout.splitlines() == [
        "routes.yaml:2: ignores open-read without a reason: write # extauthz: ignore open-read: and why it is meant here",
        "extauthz.yaml: 1 problem, 0 warnings",
    ]


def test_the_formats_say_the_same(folder: Path) -> None:
    line = yaml.safe_dump(WARNED).splitlines().index("- CHAT") + 1
    message = "no route asks for CHAT: remove it, or write the route that it is for"
    assert check(folder, WARNED).stdout.splitlines() == [
        f"warning: extauthz.yaml:{line}: scopes[1]: {message} [unused-scope]",
        "extauthz.yaml: 0 problems, 1 warning",
    ]
    assert check(folder, WARNED, "--format", "github").stdout.splitlines() == [
        f"::warning file=extauthz.yaml,line={line},title=extauthz config check%3A unused-scope::scopes[1]: {message} [unused-scope]"
    ]
    (result,) = json.loads(check(folder, WARNED, "--format", "sarif").stdout)["runs"][0]["results"]
    assert (result["ruleId"], result["message"]["text"]) == ("unused-scope", f"scopes[1]: {message}")
    (warning,) = json.loads(check(folder, WARNED, "--format", "json").stdout)["warnings"]
    expected = {"file": "extauthz.yaml", "line": line, "path": "scopes[1]", "message": message, "name": "unused-scope"}
    assert warning == expected


def test_one_format_at_a_time(folder: Path) -> None:
    assert check(folder, CLEAN, "--json", "--format", "json").exit_code == 0
    result = check(folder, CLEAN, "--json", "--format", "sarif")
    assert result.exit_code == 2
    assert "write one of --json and --format sarif" in result.stderr
    assert check(folder, CLEAN, "--format", "xml").exit_code == 2


@pytest.mark.parametrize("of", ["settings", "routes"])
def test_a_schema_is_printed(of: str) -> None:
    result = CliRunner().invoke(main, ["config", "schema", "--of", of])
    assert result.exit_code == 0
    assert result.stdout == (ROOT / "docs" / "reference" / f"{of}.schema.json").read_text(encoding="utf-8")


UNTIDY = 'routes:\n- {match: "POST /search",scope:   SEARCH}   # why\n'
TIDY = 'routes:\n  - {match: "POST /search", scope: SEARCH}  # why\n'


def test_files_are_laid_out(folder: Path) -> None:
    file = folder / "routes.yaml"
    file.write_text(UNTIDY)
    file.chmod(0o640)
    looked = run(folder, "config", "fmt", "--check")
    assert (looked.exit_code, file.read_text()) == (1, UNTIDY)
    assert f"{file}: is not laid out: run extauthz config fmt\n" in looked.stdout
    done = run(folder, "config", "fmt")
    assert (done.exit_code, file.read_text(), file.stat().st_mode & 0o777) == (0, TIDY, 0o640)
    assert f"{file}: laid out\n" in done.stdout
    again = run(folder, "config", "fmt", "--check")
    assert (again.exit_code, again.output) == (0, "")
    assert sorted(os.listdir(folder)) == ["extauthz.yaml", "routes.yaml"]


def test_a_file_that_is_named_is_the_only_one(folder: Path) -> None:
    (folder / "routes.yaml").write_text(UNTIDY)
    other = folder / "other.yaml"
    other.write_text("a:  1\n")
    result = run(folder, "config", "fmt", str(other))
    assert (result.exit_code, result.stdout, other.read_text()) == (0, f"{other}: laid out\n", "a: 1\n")
    assert (folder / "routes.yaml").read_text() == UNTIDY


@pytest.mark.parametrize("flags", [[], ["--check"]])
def test_a_file_that_is_refused_stays_and_stops_no_other(folder: Path, flags: list[str]) -> None:
    (folder / "extauthz.yaml").write_text("a: [1, # why\n  2]\nroutes: [routes.yaml]\n")
    (folder / "routes.yaml").write_text(UNTIDY)
    result = run(folder, "config", "fmt", *flags)
    assert result.exit_code == 3
    assert f"{folder / 'extauthz.yaml'}: left as it is: " in result.stderr
    assert (folder / "extauthz.yaml").read_text() == "a: [1, # why\n  2]\nroutes: [routes.yaml]\n"
    assert (folder / "routes.yaml").read_text() == (UNTIDY if flags else TIDY)


def test_a_file_that_is_not_there_is_named(folder: Path) -> None:
    assert run(folder, "config", "fmt", str(folder / "none.yaml")).exit_code == 2
    (folder / "routes.yaml").unlink()
    result = run(folder, "config", "fmt")
    assert result.exit_code == 1
    assert f"{folder / 'routes.yaml'} cannot be read: No such file or directory" in result.stderr
