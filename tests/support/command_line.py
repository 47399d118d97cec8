"""The command line on a folder with a configuration, within this process."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result

from extauthz.cli import main

SETTINGS: dict[str, Any] = {
    "version": 1,
    "server": {"listen": "127.0.0.1:9001"},
    "tokens": {"store": "sqlite:///data/tokens.db", "peppers": [{"id": "p1", "file": "data/pepper"}]},
    "act_as": {"allow": ["*@acme.com"]},
    "scopes": ["SEARCH", "CHAT", "DOCPERMISSIONS"],
    "routes": ["routes.yaml"],
}
USER = ("--permission", "USER", "--user", "Ana@ACME.com", "--scope", "search", "--scope", "doc_permissions")
GOOD = ("--description", "Ana's notebook", "--expires", "90d")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a configuration."""
    return configured(tmp_path)


def configured(folder: Path, **changes: Any) -> Path:
    """Write a configuration, with these sections instead of the usual ones."""
    (folder / "routes.yaml").write_text('routes: [{match: "POST /search", scope: SEARCH}]')
    (folder / "extauthz.yaml").write_text(yaml.safe_dump(SETTINGS | changes))
    return folder


def run(folder: Path, *arguments: str, text: str | None = None) -> Result:
    """Run a command on the folder's configuration, with a text as its standard input."""
    return CliRunner().invoke(main, [*arguments, "--config", str(folder / "extauthz.yaml")], input=text)


def told(folder: Path, *arguments: str, text: str | None = None) -> Any:
    """Run a command that must work and return its JSON."""
    result = run(folder, *arguments, "--json", text=text)
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def created(folder: Path, *arguments: str) -> dict[str, Any]:
    """Create a token and return what was printed."""
    result = run(folder, "token", "create", *(arguments or USER), *GOOD, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)  # type: ignore[no-any-return]
