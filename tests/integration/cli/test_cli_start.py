"""What commands load before they answer: the library that only a few need is most of the time that all would take to start.

No time is asserted here: `make bench` prints it. Modules are counted in processes of their own, where nothing is loaded yet.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.documents import EXAMPLE

HEAVY = (
    *("alembic", "argon2", "asyncio", "cryptography", "google", "grpc", "httpx2", "jwt", "opentelemetry", "packaging"),
    *("prometheus_client", "psycopg", "pydantic", "rich", "sqlalchemy", "starlette", "structlog", "uvicorn", "uvloop"),
    *("watchfiles", "yaml"),
)
"""Top modules that take more than ten milliseconds."""
LOADED = """
import json, sys
from click.testing import CliRunner
from extauthz.cli import main

heavy = set(json.loads(sys.argv[1]))
for arguments in json.loads(sys.argv[2]):
    result = CliRunner().invoke(main, arguments)
    loaded = sorted(heavy & {name.partition(".")[0] for name in sys.modules})
    print(json.dumps([arguments, result.exit_code, result.output, loaded]))
"""
EVERY_HELP = """
import json, sys
import click
from extauthz.cli import main

heavy = set(json.loads(sys.argv[1]))


def shown(command, parent, name):
    context = click.Context(command, info_name=name, parent=parent)
    text = command.get_help(context)
    print(json.dumps([context.command_path, len(text), sorted(heavy & {each.partition(".")[0] for each in sys.modules})]))
    for inner in command.list_commands(context) if isinstance(command, click.Group) else ():
        shown(command.get_command(context, inner), context, inner)


shown(main, None, "extauthz")
"""


def lines_of(folder: Path, program: str, *arguments: str) -> list[Any]:
    """Run a program in a process of its own, and return what it printed: JSON, line by line."""
    environment = {name: value for name, value in os.environ.items() if name != "EXTAUTHZ_CONFIG"}
    done = subprocess.run(
        [sys.executable, "-c", program, json.dumps(HEAVY), *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_no_help_loads_a_heavy_module(tmp_path: Path) -> None:
    """In the order of the commands, so that the first line with a module names who loads it."""
    shown = lines_of(tmp_path, EVERY_HELP)
    assert len(shown) > 25
    assert [(path, loaded) for path, _, loaded in shown if loaded] == []


def test_the_version_loads_no_heavy_module(tmp_path: Path) -> None:
    ((_, code, printed, loaded),) = lines_of(tmp_path, LOADED, json.dumps([["--version"]]))
    assert (code, loaded) == (0, [])
    assert "extauthz" in printed


@pytest.mark.parametrize(
    ("arguments", "needed"),
    [
        pytest.param(["config", "check", "--config", str(EXAMPLE)], {"pydantic", "yaml"}, id="config check"),
        pytest.param(["config", "show", "--config", str(EXAMPLE)], {"pydantic", "yaml"}, id="config show"),
        pytest.param(["envoy-config", "--config", str(EXAMPLE)], {"pydantic", "yaml"}, id="envoy-config"),
        pytest.param(["monitor-report", "decisions.log"], {"rich"}, id="monitor-report"),
    ],
)
def test_a_command_that_reads_no_store_loads_what_it_needs(arguments: list[str], needed: set[str], tmp_path: Path) -> None:
    decision = {"decision": "would_deny", "reason": "scope_missing", "status": 403, "method": "GET", "route": "a", "time": 1.0}
    (tmp_path / "decisions.log").write_text(json.dumps(decision) + "\n")
    ((_, code, printed, loaded),) = lines_of(tmp_path, LOADED, json.dumps([arguments]))
    assert code == 0, printed
    assert set(loaded) == needed
