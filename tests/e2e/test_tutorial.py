"""The first hour of a new user: every command of two pages as it is written, with the package as its wheel brings it.

Only two lines do nothing here, the virtual environment and `pip install`, which need a network: `make wheel` does both. The ports
are others: what the commands are, and what they write, is changed alike.
"""

from __future__ import annotations

import itertools
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pytest

from extauthz.demo.launcher import find_envoy
from tests.support.installed import environment_of, unpacked_wheel
from tests.support.ports import free_port
from tests.support.project import ROOT
from tests.support.waiting import eventually

pytestmark = [pytest.mark.envoy, pytest.mark.long]

DOCS = ROOT / "docs"
PAGES = ("tutorial", "tools")
PORTS = ("10000", "9001", "9090", "8080")
ADMIN = "/tmp/extauthz-envoy-admin.sock"  # noqa: S108 - the place in the page
END = "-- end --"
SECONDS = 30
INSTEAD = """\
python3() { mkdir -p .venv/bin && touch .venv/bin/activate; }
pip() { ls ../extauthz-*.whl; }
"""
"""Functions of the shell that stand before two programs."""
PROGRAMS = {
    "extauthz": """\
if [ "$1" = init ]; then %(program)s "$@" && exec sed -i "$PORTS_CHANGED" config/extauthz.yaml; exit 1; fi
exec %(program)s "$@"
""",
    "envoy": """\
sed -i "$PORTS_CHANGED" envoy.yaml
exec %(program)s "$@" --use-dynamic-base-id --concurrency 1
""",
}
"""Programs that stand before two others; they become these, so that signals reach them."""


@dataclass(frozen=True)
class Step:
    """A command of the page, with the lines that the page shows behind it; or the text of a file."""

    line: str
    shown: tuple[str, ...] = ()
    text: str | None = None


def steps(page: Path) -> Iterator[Step]:
    """Yield what a reader types, in the order of the page; other text is to be saved, as the sentence before it says."""
    before, *blocks = re.split(r"^```(?=\w)", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    for part in blocks:
        kind, _, rest = part.partition("\n")
        block, _, after = rest.partition("```\n")
        is_saved = re.search(r"[Ss]ave it as\s+`([^`]+)`:?\s*\Z", before)
        before = after
        if is_saved:
            yield Step(is_saved[1], text=block)
            continue
        assert kind == "console", f"a block of {kind} is run by nothing"
        lines = block.splitlines()
        starts = [number for number, line in enumerate(lines) if line.startswith("$ ")]
        assert starts[0] == 0
        for start, end in itertools.pairwise([*starts, len(lines)]):
            yield Step(lines[start][2:], tuple(lines[start + 1 : end]))


@dataclass
class Shell:
    """One shell that a reader types into, with what runs behind it."""

    folder: Path
    environment: dict[str, str]
    changes: dict[str, str]
    process: subprocess.Popen[str] = field(init=False)

    def __post_init__(self) -> None:
        """Start it, in a group of processes of its own."""
        rules = ";".join(rf"s#\b{old}\b#{new}#" if old in PORTS else f"s#{old}#{new}#" for old, new in self.changes.items())
        self.process = subprocess.Popen(
            ["bash", "--norc", "--noprofile"],
            cwd=self.folder,
            env=self.environment | {"PORTS_CHANGED": rules},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self.type(INSTEAD)

    def type(self, line: str) -> tuple[int, str]:
        """Type a line; return its exit code and what came before the next prompt."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        line = self.changed(line)
        self.process.stdin.write(f"{line}\necho '{END}' $?\n")
        self.process.stdin.flush()
        printed = ""
        for read in self.process.stdout:
            shown, is_end, code = read.partition(END)
            printed += shown
            if is_end:
                return int(code), printed
        raise AssertionError(f"the shell ended: {printed}")

    def changed(self, text: str) -> str:
        """Write the ports of this test in the place of those of the page."""
        for old, new in self.changes.items():
            text = re.sub(rf"(?<![0-9]){old}(?![0-9])", new, text)
        return text

    def end(self) -> None:
        """End it, and everything that it started."""
        eventually(self._is_gone, seconds=SECONDS)
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        self.process.stdout.close()

    def _is_gone(self) -> bool:
        """Ask again: a second signal ends the drain of a sidecar."""
        self.process.poll()
        try:
            os.killpg(self.process.pid, signal.SIGTERM)
        except ProcessLookupError:
            return True
        return False


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return unpacked_wheel(Path(tmp_path_factory.mktemp("wheel")))


@pytest.fixture
def shell(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    """A shell in an empty folder: the paths of unix sockets are short."""
    folder = Path(tmp_path_factory.mktemp("t"))
    for file in (wheel.parent / "dist").glob("*.whl"):
        shutil.copy(file, folder)
    bin_folder = wheel.parent / "bin"
    environment = environment_of(wheel) | {"PATH": f"{bin_folder}:{os.environ['PATH']}"}
    for name, program in {"extauthz": f"{sys.executable} -m extauthz", "envoy": find_envoy()}.items():
        bin_folder.mkdir(exist_ok=True)
        (bin_folder / name).write_text("#!/bin/sh\n" + PROGRAMS[name] % {"program": program})
        (bin_folder / name).chmod(0o755)
    changes = {port: str(free_port()) for port in PORTS} | {ADMIN: str(folder / "a.sock")}
    opened = Shell(folder, environment, changes)
    yield opened
    opened.end()


@pytest.mark.parametrize("page", PAGES)
def test_every_command_of_the_page(shell: Shell, page: str) -> None:
    count = 0
    for step in steps(DOCS / f"{page}.md"):
        count += 1
        if step.text is not None:
            (shell.folder / page / step.line).write_text(shell.changed(step.text))
        elif step.line.startswith(("curl ", "tail ")):
            # What a person types comes later than what a test types: servers start, files are read again, and lines are written.
            eventually(partial(is_as_shown, shell, step), seconds=SECONDS, pause=0.05, what=partial(logs, shell, page))
        else:
            assert missing(step, shell.type(step.line)) == [], logs(shell, page)
    assert count > 20


def is_as_shown(shell: Shell, step: Step) -> bool:
    return missing(step, shell.type(step.line)) == []


def missing(step: Step, outcome: tuple[int, str]) -> list[str]:
    """Return what the page shows and the command did not print, or that it failed."""
    code, printed = outcome
    return [line for line in step.shown if line not in printed] + (
        [] if code == 0 else [f"exit code {code}: {step.line}\n{printed}"]
    )


def logs(shell: Shell, folder: str) -> str:
    return "\n".join(file.read_text()[-2000:] for file in (shell.folder / folder).glob("*.log"))


def test_init_check_and_serve_in_an_empty_folder(shell: Shell) -> None:
    """Outside of the tree, with nothing said."""
    code, printed = shell.type("mkdir empty && cd empty && extauthz init && extauthz config check")
    assert (code, "0 problems, 0 warnings" in printed) == (0, True), printed
    where = shell.type("""python -c 'import extauthz; print(extauthz.__file__)'""")[1]
    assert not Path(where).is_relative_to(ROOT), where
    shell.type("extauthz serve > decisions.jsonl 2> extauthz.log &")
    eventually(lambda: '"ready": true' in shell.type("curl -s http://127.0.0.1:9090/readyz")[1], seconds=SECONDS, pause=0.05)
