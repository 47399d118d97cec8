"""`extauthz diff`: where configurations come from, what it exits with, and what it prints."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner, Result

from extauthz.cli import main
from extauthz.core import tokens
from tests.support.command_line import configured

GIT = ["git", "-c", "user.name=Ana", "-c", "user.email=ana@acme.com", "-c", "commit.gpgsign=false", "-c", "init.defaultBranch=main"]


def git(folder: Path, *arguments: str) -> None:
    subprocess.run([*GIT, *arguments], cwd=folder, check=True, capture_output=True, timeout=60)


def write_routes(folder: Path, *lines: dict[str, object]) -> None:
    (folder / "routes.yaml").write_text(yaml.safe_dump({"routes": list(lines)}))


JWT = "eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiJodHRwczovL2FjbWUifQ."
TOKENS = (
    tokens.mint("glean", bytes(range(tokens.ENTROPY_BYTES))).text,
    f"{JWT}c2lnbmF0dXJlLW9mLXRoZS10b2tlbg",
    f"{JWT}{'c2lnbmF0dXJl' * 40}",
    "ya29.a0AfH6SMBx3qLr9WnZt7YvKd2Ue5Gp8Jc1",
)
SEARCH, PUBLIC = {"match": "POST /search", "scope": "SEARCH"}, {"match": "POST /search", "public": True}


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with three revisions: two of a folder `conf`, then a change of it that is not committed; it is where we are."""
    for name in ("GIT_DIR", "GIT_INDEX_FILE", "GIT_WORK_TREE"):
        monkeypatch.delenv(name, raising=False)
    folder = tmp_path / "repository"
    (folder / "conf").mkdir(parents=True)
    configured(folder / "conf")
    configured(folder)
    (folder / "conf" / "routes.yaml").unlink()
    (folder / "conf" / "routes.yaml").symlink_to("shared/map.yaml")
    (folder / "conf" / "shared").mkdir()
    (folder / "conf" / "shared" / "map.yaml").write_text(yaml.safe_dump({"routes": [SEARCH]}))
    git(folder, "init")
    git(folder, "add", ".")
    git(folder, "commit", "-m", "first")
    git(folder, "tag", "first")
    write_routes(folder, PUBLIC)
    git(folder, "commit", "-a", "-m", "second")
    monkeypatch.chdir(folder)
    return folder


def diff(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["diff", *arguments])


def test_revisions_folders_and_files_are_compared(repository: Path) -> None:
    (repository / "conf" / "shared" / "map.yaml").write_text(yaml.safe_dump({"routes": []}))
    cases = {
        (
            "git:first:extauthz.yaml",
            "git:HEAD:.",
        ): "git:first:./routes.yaml:2: POST /search -> git:HEAD:./routes.yaml:2: POST /search",
        ("git:first:conf", "conf"): "git:first:conf/routes.yaml:2: POST /search -> no route",
        ("git:HEAD:conf/extauthz.yaml", "conf/extauthz.yaml"): "git:HEAD:conf/routes.yaml:2: POST /search -> no route",
        ("git:HEAD:./conf", "./conf"): "git:HEAD:conf/routes.yaml:2: POST /search -> no route",
    }
    for arguments, shown in cases.items():
        result = diff(*arguments)
        assert result.exit_code == 0, result.output
        assert shown in result.stdout.replace("routes.yaml:1:", "routes.yaml:2:")


def test_a_path_counts_from_the_current_folder_if_it_says_so(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(repository / "conf")
    assert diff("git:HEAD:./extauthz.yaml", "git:HEAD:conf").exit_code == 0
    assert diff("git:HEAD:..", "git:HEAD:extauthz.yaml").exit_code == 0


@pytest.mark.parametrize("found", ["extauthz.yaml", "config/extauthz.yaml"])
def test_a_folder_is_the_one_with_the_file_or_the_one_around_config(repository: Path, found: str) -> None:
    """The second is where `extauthz init` writes it; a file in the folder itself is asked first."""
    project = repository / "project"
    for name in {"config/extauthz.yaml", found}:
        (project / name).parent.mkdir(parents=True, exist_ok=True)
        configured((project / name).parent)
    git(repository, "add", ".")
    git(repository, "commit", "-m", "third")
    write_routes((project / found).parent, PUBLIC)
    result = diff("git:HEAD:project", "project")
    assert result.exit_code == 0, result.output
    assert f"git:HEAD:project/{found.replace('extauthz', 'routes')}:1:" in result.stdout.replace("routes.yaml:2:", "routes.yaml:1:")
    assert diff("git:HEAD:./project", "git:HEAD:project").exit_code == 0


@pytest.mark.parametrize(
    ("revision", "hint"),
    [
        ("git:nothing:conf", "git knows no revision 'nothing'"),
        ("git:--help:conf", "git knows no revision '--help'"),
        ("git:HEAD", "'git:HEAD': write git:REVISION:PATH"),
        ("git::conf", "'git::conf': write git:REVISION:PATH"),
    ],
)
def test_what_is_no_revision_is_a_wrong_flag(repository: Path, revision: str, hint: str) -> None:
    result = diff("conf", revision)
    assert result.exit_code == 2
    assert f"NEW: {hint}" in result.stderr


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        ("git:HEAD:nowhere", "OLD: git:HEAD:./nowhere:1: cannot be read: No such file in this revision"),
        ("git:HEAD:../../etc/passwd", "No such file in this revision"),
        ("nowhere.yaml", "OLD: nowhere.yaml:1: cannot be read: No such file or directory"),
    ],
)
def test_problems_name_their_side(repository: Path, source: str, problem: str) -> None:
    result = diff(source, "conf")
    assert result.exit_code == 3
    assert problem in result.stderr


@pytest.mark.parametrize("token", TOKENS, ids=["issued", "JWT", "long JWT", "opaque"])
@pytest.mark.parametrize("source", ["git:{}:x", "git:HEAD:{}", "git:{}", "{}", "conf/{}"])
def test_no_token_is_printed_that_stands_in_place_of_a_source(repository: Path, source: str, token: str) -> None:
    for arguments in ((source.format(token), "conf"), ("conf", source.format(token))):
        result = diff(*arguments)
        assert result.exit_code == (2 if source.startswith("git:{}") else 3), result.output
        assert token not in result.output
        assert token[-16:] not in result.output
        assert "[hidden]" in result.stderr


def test_there_may_be_no_git(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(repository))
    result = diff("git:HEAD:conf", "conf")
    assert (result.exit_code, "there is no git to ask: install it, or name files" in result.stderr) == (2, True)


def test_what_fails_is_said_by_the_exit_code(tmp_path: Path) -> None:
    strict, loose = (configured(folder) for folder in (tmp_path / "strict", tmp_path / "loose") if folder.mkdir() is None)
    write_routes(loose, PUBLIC)
    widened = [
        diff(str(strict), str(loose), *flags).exit_code
        for flags in ([], *(["--fail-on", on] for on in ("widened", "narrowed", "any")))
    ]
    narrowed = [
        diff(str(loose), str(strict), *flags).exit_code
        for flags in ([], *(["--fail-on", on] for on in ("widened", "narrowed", "any")))
    ]
    same = [diff(str(strict), str(strict), "--fail-on", on).exit_code for on in ("widened", "narrowed", "any")]
    assert (widened, narrowed, same) == ([0, 1, 0, 1], [0, 0, 1, 1], [0, 0, 0])
    assert diff(str(strict), str(loose), "--fail-on", "all").exit_code == 2


def test_what_is_printed(tmp_path: Path) -> None:
    strict, loose = (configured(folder) for folder in (tmp_path / "strict", tmp_path / "loose") if folder.mkdir() is None)
    write_routes(loose, PUBLIC)
    text = diff(str(strict), str(loose)).stdout
    assert text.startswith("2 differences: 1 widened, 1 headers\n\nWIDENED: refused before, goes on now\n  POST /search (POST)\n")
    assert "    without a token: 401 credential_missing -> public\n      curl -X POST https://$HOST/search\n" in text
    markdown = diff(str(strict), str(loose), "--format", "markdown").stdout
    assert markdown.startswith("## What this changes for requests\n\n2 differences: 1 widened, 1 headers\n")
    data = json.loads(diff(str(strict), str(loose), "--json").stdout)
    assert data == json.loads(diff(str(strict), str(loose), "--format", "json").stdout)
    assert data["counts"] == {"widened": 1, "narrowed": 0, "headers": 1, "reason": 0}
    assert data["findings"][0]["callers"][0] == {
        "kind": "nobody",
        "provider": "",
        "scopes": None,
        "details": [],
        "old": {"decision": "deny", "reason": "credential_missing", "status": 401},
        "new": {"decision": "allow", "reason": "public", "status": 200},
        "headers": [],
        "curl": "curl -X POST https://$HOST/search",
    }
