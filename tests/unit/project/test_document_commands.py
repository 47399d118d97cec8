"""The console blocks of the pages: each command is run on the shipped configuration, or it is said why it cannot be."""

from __future__ import annotations

import itertools
import json
import re
import shlex
import shutil
import textwrap
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from extauthz.cli import main
from tests.support.documents import yaml_blocks
from tests.support.envoy import refusal
from tests.support.project import ROOT

WHOLE = tuple(ROOT / "docs" / name for name in ("tutorial.md", "tools.md"))
"""The commands of each belong together: test_tutorial.py types all of them."""
PAGES = [ROOT / "README.md", *(page for page in sorted((ROOT / "docs").rglob("*.md")) if page not in WHOLE)]

NOT_RUN = {
    "extauthz doctor": "asks a running Envoy: test_doctor_envoy.py, test_control_planes_envoy.py",
    "extauthz token rotate --pepper": "needs tokens of a pepper that is not the newest: test_pepper_change.py",
    "make run": "a target of the Makefile that runs until it is ended; that targets exist is in test_document_names.py",
    "make test": "the tests themselves",
    "make compare": "measures for minutes; that its parts agree is in test_compare.py",
    "GOMAXPROCS=1 opa": "another program",
    "curl": "asks a sidecar that a block before has started: test_compose.py",
    "docker": "needs Docker and a network; its files are tried in test_compose.py",
    "kubectl": "needs a cluster; manifests and resources are tried in test_kubernetes.py and test_control_planes.py",
    "helm": "needs a cluster; the chart is tried in test_kubernetes.py and test_chart.py",
    "cosign": "asks registries what a release published; that it is signed is in test_project_files.py",
    "head": "makes a file of random bytes for kubectl",
    "envoy --mode validate": "another program; that Envoy takes what is printed is in test_envoy_config.py",
    "gitleaks": "another program",
    "pip install": "needs a network",
    "extauthz console add-user": "asks for a password: test_cli_console.py",
    "extauthz console --config": "serves until it is ended: test_console_served.py",
}
"""Why a command that begins so is not run here."""
AS_A_SERVICE = {"docs/contour.md", "docs/envoy-gateway.md"}
"""Pages whose first step is another `listen`."""
ID = "4fK2pQ9sXb1Z"
HEAD = f"1042:{'5f0c3a9d' * 8}"
DECISION = {"decision": "allow", "reason": "allowed", "status": 200, "method": "GET", "route": "a"}


@dataclass(frozen=True, slots=True)
class Command:
    """A command of a page, and the lines that the page shows behind it."""

    page: str
    line: str
    shown: tuple[str, ...]

    def __str__(self) -> str:
        """Name it in the list of the tests."""
        return f"{self.page}: {self.line[:60]}"


def commands(page: Path) -> Iterator[Command]:
    """Yield the commands of a page's blocks: behind `$ ` in console blocks, each line of sh blocks."""
    name = str(page.relative_to(ROOT))
    blocks = re.findall(r"^( *)```(console|sh|bash)\n(.*?)^\1```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    for _, kind, block in blocks:
        lines = textwrap.dedent(block).splitlines()
        if kind != "console":
            yield from (Command(name, line, ()) for line in lines)
            continue
        starts = [number for number, line in enumerate(lines) if line.startswith("$ ")]
        for start, end in itertools.pairwise([*starts, len(lines)]):
            yield Command(name, lines[start].removeprefix("$ ").partition("  #")[0].rstrip(), tuple(lines[start + 1 : end]))


ALL = [command for page in PAGES for command in commands(page)]


def reason_not_to_run(line: str) -> str | None:
    """Return why a command is not run here, if it is not."""
    return next((reason for begin, reason in NOT_RUN.items() if line.startswith(f"{begin} ") or line == begin), None)


RUN = [command for command in ALL if reason_not_to_run(command.line) is None]


def invoked(*arguments: str) -> str:
    """Run a command that must work, and return what it printed."""
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.fixture
def names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Make a folder as the pages take it for granted, and return what its id and head stand for in them."""
    shutil.copytree(ROOT / "config", tmp_path / "config")
    (tmp_path / "data").mkdir(mode=0o700)
    monkeypatch.chdir(tmp_path)
    create = "token create --permission USER --user ana@acme.com --scope SEARCH --description d --expires 30d --json"
    token = json.loads(invoked(*create.split()))
    Path("audit.jsonl").write_text(invoked("audit", "export"))
    now = time.time()  # noqa: TID251 - the report looks at the last hours
    Path("decisions.log").write_text(json.dumps(DECISION | {"time": now}) + "\n")
    Path("report.json").write_text(json.dumps([{"Secret": token["token"]}]))
    return {ID: token["id"], HEAD: json.loads(invoked("audit", "verify", "--json"))["head"]}


def test_the_pages_that_are_typed_as_a_whole_are_there() -> None:
    typed = "PAGES = (" + ", ".join(f'"{page.stem}"' for page in WHOLE) + ")"
    assert typed in (ROOT / "tests" / "e2e" / "test_tutorial.py").read_text(encoding="utf-8")
    for page in WHOLE:
        assert len([*commands(page)]) > 20, page.name


def test_there_are_commands_to_run_and_reasons_for_those_that_are_not() -> None:
    assert len(RUN) >= 13
    assert [begin for begin in NOT_RUN if not any(command.line.startswith(begin) for command in ALL)] == []


@pytest.mark.parametrize("command", RUN, ids=str)
def test_a_command_of_a_page_does_what_the_page_shows(command: Command, names: dict[str, str]) -> None:
    if command.page in AS_A_SERVICE:
        assert "`listen: 0.0.0.0:9001`" in (ROOT / command.page).read_text(encoding="utf-8")
        file = Path("config/extauthz.yaml")
        file.write_text(file.read_text().replace("listen: 127.0.0.1:9001", "listen: 0.0.0.0:9001"))
    line, shown = command.line, "\n".join(command.shown)
    for example, here in names.items():
        line, shown = line.replace(example, here), shown.replace(example, here)
    program, *arguments = shlex.split(line.partition(" > ")[0])
    assert program == "extauthz", f"run it, or say in NOT_RUN why not: {command.line}"
    printed = invoked(*arguments)
    assert [wanted for wanted in shown.splitlines() if wanted and wanted not in printed] == []
    assert printed


def test_envoy_takes_the_tracer_of_the_page(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "tracing.md").read_text(encoding="utf-8")
    (tracer,) = (block for block in map(yaml.safe_load, yaml_blocks(page)) if "provider" in block["tracing"])
    bootstrap = json.loads(invoked("envoy-config", "--config", str(ROOT / "config" / "extauthz.yaml"), "--format", "json"))
    resources = bootstrap["static_resources"]
    resources["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"] |= tracer
    resources["clusters"].append({"name": "collector", "type": "STATIC"})
    assert refusal(tmp_path, json.dumps(bootstrap)) == ""
    tracer["tracing"]["provider"]["typed_config"]["service"] = "envoy"
    assert "has unknown fields" in refusal(tmp_path, json.dumps(bootstrap))


@pytest.mark.parametrize("line", ["token rotate nobody --overlap 24h", "audit verify --head 1:00", "envoy-config --for nginx"])
def test_a_command_that_does_not_work_is_noticed(line: str, names: dict[str, str]) -> None:
    assert names[ID] not in line
    with pytest.raises(AssertionError):
        invoked(*line.split())
