"""The GitHub action and the hooks of pre-commit, which other repositories run: read by the tools for it, then really run."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.documents import yaml_blocks
from tests.support.project import ROOT
from tests.unit.project.test_project_files import loose

FOLDER = ROOT / ".github" / "actions" / "check"
TEXT = (FOLDER / "action.yml").read_text("utf-8")
ACTION: dict[str, Any] = yaml.safe_load(TEXT)
STEPS: dict[str, dict[str, Any]] = {step["id"]: step for step in ACTION["runs"]["steps"]}
HOOKS: dict[str, dict[str, Any]] = {
    hook["id"]: hook for hook in yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text("utf-8"))
}
PROGRAMS = Path(sys.executable).parent
often_started = pytest.mark.long
"""Each starts the program and git a dozen times, for steps that seldom change."""


def audited(folder: Path) -> int:
    """Return how zizmor, as `make workflows` calls it, ends for a folder."""
    command = [PROGRAMS / "zizmor", "--quiet", "--offline", "--persona", "pedantic", folder]
    return subprocess.run(command, capture_output=True, timeout=60, check=False).returncode


def test_the_action_is_one_for_github() -> None:
    command = [PROGRAMS / "check-jsonschema", "--quiet", "--builtin-schema", "vendor.github-actions", FOLDER / "action.yml"]
    assert subprocess.run(command, timeout=60, check=False).returncode == 0


def test_no_input_is_run(tmp_path: Path) -> None:
    """Inputs and what GitHub knows of a pull request reach the shell as variables alone."""
    assert [name for name, step in STEPS.items() if "${{" in step.get("run", "")] == []
    assert audited(FOLDER) == 0
    (tmp_path / "action.yml").write_text(TEXT.replace('--config="$CONFIG"', '--config="${{ inputs.config }}"'))
    assert audited(tmp_path) != 0, "it would be noticed"


def test_what_the_action_uses_is_pinned_and_installed_by_hashes() -> None:
    assert loose(TEXT) == []
    lines = [line for line in STEPS["install"]["run"].splitlines() if '"${pip[@]}"' in line]
    assert [re.findall("--require-hashes|--no-index", line) for line in lines] == [
        ["--require-hashes"],
        ["--require-hashes"],
        ["--no-index"],
    ]
    assert all((ROOT / "requirements" / name).is_file() for name in ("build.txt", "runtime.txt"))
    assert FOLDER.joinpath("../../..").resolve() == ROOT, "that is where the step looks for the tree of its tag"


def test_the_page_uses_the_action_and_the_hooks_as_they_are(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "ci.md").read_text("utf-8")
    workflow, hooks = yaml_blocks(page)
    (tmp_path / "workflow.yml").write_text(workflow)
    command = [PROGRAMS / "check-jsonschema", "--quiet", "--builtin-schema", "vendor.github-workflows", tmp_path / "workflow.yml"]
    assert subprocess.run(command, timeout=60, check=False).returncode == 0
    job = yaml.safe_load(workflow)["jobs"]["route-map"]
    assert job["permissions"] == {"contents": "read"}
    assert "Never run it with `pull_request_target`" in page
    step = job["steps"][-1]
    assert step["uses"].partition("@")[0] == f"OWNER/extauthz/{FOLDER.relative_to(ROOT)}"
    assert step["with"].keys() <= ACTION["inputs"].keys()
    assert re.findall("^\\| `([a-z-]+)` \\|", page, re.MULTILINE) == list(ACTION["inputs"])
    assert [hook["id"] for hook in yaml.safe_load(hooks)["repos"][0]["hooks"]] == list(HOOKS)


def program(file: Path, script: str) -> None:
    """Write a program for bash."""
    file.write_text(f"#!/usr/bin/env bash\n{script}\n", "utf-8")
    file.chmod(0o755)


class Repository:
    """A checkout with a configuration, in which steps of the action and hooks are run."""

    def __init__(self, folder: Path) -> None:
        """Make it, with one commit."""
        self.folder = folder / "checkout"
        shutil.copytree(ROOT / "config", self.folder / "config")
        self.temporary = folder / "temp"
        (self.temporary / "extauthz" / "bin").mkdir(parents=True)
        program(self.temporary / "extauthz" / "bin" / "python", f'exec {shlex.quote(str(PROGRAMS / "python"))} "$@"')
        self.git("init", "--quiet")
        self.commit()

    def git(self, *arguments: str) -> str:
        """Run git."""
        who = ["-c", "user.name=ana", "-c", "user.email=ana@acme.com"]
        done = subprocess.run(["git", *who, *arguments], cwd=self.folder, capture_output=True, text=True, timeout=60, check=True)
        return done.stdout.strip()

    def commit(self) -> str:
        """Commit all that there is, and return the commit."""
        self.git("add", "--all")
        self.git("commit", "--quiet", "--message", "x")
        return self.git("rev-parse", "HEAD")

    def replace(self, old: str, new: str) -> None:
        """Change the route map."""
        file = self.folder / "config" / "routes" / "glean-client-api.yaml"
        text = file.read_text("utf-8")
        assert old in text
        file.write_text(text.replace(old, new, 1), "utf-8")

    def plant(self, *names: str) -> Path:
        """Put modules into the checkout that leave a marker when they are run, and return the marker."""
        marker = self.temporary / "planted-ran"
        for name in names:
            (self.folder / f"{name}.py").write_text(f"open({str(marker)!r}, 'a').write({name!r})\n", "utf-8")
        return marker

    def step(self, name: str, environment: dict[str, str] | None = None, **inputs: str) -> subprocess.CompletedProcess[str]:
        """Run a step of the action as GitHub would, with these inputs, in a job with this environment."""
        values = {f"inputs.{key}": entry["default"] for key, entry in ACTION["inputs"].items()} | {"inputs.base": ""}
        values |= {f"inputs.{key}": value for key, value in inputs.items()}
        values["steps.python.outputs.python-path"] = str(self.temporary / "python")
        variables = {
            key: values[text.removeprefix("${{ ").removesuffix(" }}")] if text.startswith("${{") else text
            for key, text in STEPS[name]["env"].items()
        }
        kept = {key: value for key, value in os.environ.items() if key in ("PATH", "HOME")}
        files = {key: str(self.temporary / key) for key in ("GITHUB_OUTPUT", "GITHUB_STEP_SUMMARY")}
        folders = {"RUNNER_TEMP": self.temporary, "GITHUB_WORKSPACE": self.folder, "GITHUB_ACTION_PATH": FOLDER}
        return subprocess.run(
            ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", STEPS[name]["run"]],
            cwd=self.folder,
            env={**kept, **(environment or {}), **variables, **files, **{key: str(path) for key, path in folders.items()}},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def hook(self, name: str) -> subprocess.CompletedProcess[str]:
        """Run a hook as pre-commit would: its entry, then its arguments."""
        words = [*shlex.split(HOOKS[name]["entry"]), *HOOKS[name]["args"]]
        return subprocess.run(
            [PROGRAMS / words[0], *words[1:]], cwd=self.folder, capture_output=True, text=True, timeout=60, check=False
        )


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository(tmp_path)


def test_hooks_look_at_configurations_alone() -> None:
    assert set(HOOKS) == {"extauthz-check", "extauthz-test", "extauthz-diff"}
    for hook in HOOKS.values():
        assert (hook["language"], hook["pass_filenames"]) == ("python", False)
        assert hook["files"] == r"^config/.*\.ya?ml$"
        assert hook["entry"].split()[0] == "extauthz"


@pytest.mark.parametrize("name", ['"; touch ran; $(touch ran).yaml', "--help"])
def test_the_name_of_a_file_is_no_command(repository: Repository, name: str) -> None:
    assert repository.step("check", config=name).returncode == 3
    assert not (repository.folder / "ran").exists()


def test_a_problem_stops_the_action_and_the_commit(repository: Repository) -> None:
    assert repository.step("check").returncode == 0
    repository.replace("scope: SEARCH", "scope: SAERCH")
    refused = repository.step("check")
    assert refused.returncode == 3
    assert "::error file=" in refused.stdout
    assert repository.hook("extauthz-check").returncode == 3


def test_suites_are_run_and_their_outcome_is_kept(repository: Repository) -> None:
    assert repository.step("test").returncode == 0
    outputs = dict(line.split("=", 1) for line in (repository.temporary / "GITHUB_OUTPUT").read_text().splitlines())
    assert "<testsuite" in Path(outputs["junit"]).read_text("utf-8")
    repository.replace("scope: SEARCH", "scope: CHAT")
    assert repository.step("test").returncode == 1
    assert repository.hook("extauthz-test").returncode == 1
    assert "failure" in Path(outputs["junit"]).read_text("utf-8")
    assert repository.step("test", tests="nowhere").returncode == 2, "a folder that is not there is no success"


def summary(repository: Repository) -> str:
    return (repository.temporary / "GITHUB_STEP_SUMMARY").read_text("utf-8")


def test_what_a_pull_request_widens_is_said_and_may_stop_it(repository: Repository) -> None:
    base = repository.git("rev-parse", "HEAD")
    same = repository.step("diff", base=base, **{"fail-on": "widened"})
    assert same.returncode == 0
    repository.replace("scope: SEARCH", "public: true")
    widened = repository.step("diff", base=base, **{"fail-on": "widened"})
    assert widened.returncode == 1
    assert "/rest/api/v1/adminsearch" in summary(repository)
    outputs = dict(line.split("=", 1) for line in (repository.temporary / "GITHUB_OUTPUT").read_text().splitlines())
    assert "/rest/api/v1/adminsearch" in Path(outputs["differences"]).read_text("utf-8")

    hook = repository.hook("extauthz-diff")
    assert (hook.returncode, "/rest/api/v1/adminsearch" in hook.stdout) == (0, True), "without fail-on it is said only"


@pytest.mark.parametrize(
    ("inputs", "ends", "says"),
    [
        ({"base": "0" * 40}, 1, "fetch-depth: 0"),
        ({"base": "--output=ran"}, 1, "fetch-depth: 0"),
        ({"base": "HEAD", "config": "config/new.yaml"}, 0, ""),
        ({"base": "HEAD", "config": "config/new.yaml", "fail-on": "widened"}, 1, "new or moved"),
        ({"base": "HEAD", "fail-on": "; touch ran"}, 2, ""),
    ],
)
def test_what_cannot_be_compared_lets_nothing_through_unseen(
    repository: Repository, inputs: dict[str, str], ends: int, says: str
) -> None:
    shutil.copy(repository.folder / "config" / "extauthz.yaml", repository.folder / "config" / "new.yaml")
    done = repository.step("diff", **inputs)
    assert (done.returncode, says in done.stdout) == (ends, True)
    assert not (repository.folder / "ran").exists()


def test_installing_runs_no_module_of_the_checkout(repository: Repository) -> None:
    """The step is run in the checkout here, so that not only its working directory protects it."""
    marker = repository.plant("venv", "pip", "build", "sitecustomize", "runpy")
    imported = repository.temporary / "imported"
    # In place of what the network is needed for, each module that would be run is only imported, with the flags of the call.
    program(
        repository.temporary / "python",
        f"""flags=(); while test "$1" != -m; do flags+=("$1"); shift; done
        {shlex.quote(sys.executable)} "${{flags[@]}}" -c "import importlib, sys; importlib.import_module('$2')" 2>/dev/null || true
        echo "$2 PYTHONPATH=$PYTHONPATH" >> {shlex.quote(str(imported))}
        if test "$2" = venv; then mkdir -p "$3/bin"; ln -sf "$0" "$3/bin/python"; fi""",
    )
    done = repository.step("install", {"PYTHONPATH": str(repository.folder)})
    assert done.returncode == 0, done.stderr
    calls = imported.read_text("utf-8").splitlines()
    assert [call.split()[0] for call in calls] == ["venv", "venv", "pip", "build", "pip", "pip"]
    assert not marker.exists(), marker.read_text("utf-8")
    assert {call.split()[1] for call in calls} == {"PYTHONPATH="}, "a build starts programs of its own, which know nothing of -I"
    assert STEPS["install"]["working-directory"] == "${{ runner.temp }}"


@often_started
@pytest.mark.parametrize("name", ["check", "test", "diff"])
def test_no_module_of_the_checkout_is_run(repository: Repository, name: str) -> None:
    marker = repository.plant("sitecustomize", "click", "yaml", "extauthz")
    done = repository.step(name, {"PYTHONPATH": "."}, base="HEAD")
    assert not marker.exists(), marker.read_text("utf-8")
    assert done.returncode == 0, done.stderr


COMMAND = re.compile(r"\s*::([^ :]+).*?::(.*)|.*?##\[([^ \]]+)")
"""What a runner takes for a command: with colons at the start of a line, behind white space; with the old brackets anywhere."""


def commands(output: str) -> list[str]:
    """Return the names of the commands that a runner would obey; while they are stopped it looks for the token alone."""
    obeyed, token = [], None
    for line in output.splitlines():
        parsed = COMMAND.match(line)
        name = parsed and (parsed[1] or parsed[3])
        if parsed is None or name is None:
            continue
        if token is not None:
            token = None if name == token else token
        elif name == "stop-commands":
            token = parsed[2]
            assert re.fullmatch("[0-9a-f]{32}", token)
        else:
            obeyed.append(name)
    assert token is None, "they are obeyed again after the step"
    return obeyed


@often_started
@pytest.mark.parametrize("text", ["::set-output name=x::y", "##[set-output name=x;]y", "  ::error::x", "::stop-commands::x"])
def test_no_name_is_a_command_of_the_workflow(repository: Repository, text: str) -> None:
    suite = repository.folder / text / "a.yaml"
    suite.parent.mkdir(parents=True)
    case = {"name": text, "request": f"GET /x{text}", "who": "nobody", "expect": "allow"}
    suite.write_text(yaml.safe_dump({"cases": [case]}), "utf-8")
    failed = repository.step("test", tests=text)
    assert (failed.returncode, failed.stderr, commands(failed.stdout)) == (1, "", []), "one stream, so that nothing overtakes"
    suite.write_text(yaml.safe_dump({text: 1}), "utf-8")
    for tests, ends in ((text, 3), (f"\n{text}\n{text}", 2)):
        wrong = repository.step("test", tests=tests)
        assert (wrong.returncode, wrong.stderr, commands(wrong.stdout)) == (ends, "", [])

    repository.replace("scope: SEARCH", f'"{text}": SEARCH')
    refused = repository.step("check")
    assert (refused.returncode, refused.stderr, set(commands(refused.stdout))) == (3, "", {"error"})
    wrong = repository.step("diff", base="HEAD")
    assert (wrong.returncode, wrong.stderr, commands(wrong.stdout)) == (3, "", [])
    for name in ("check", "diff"):
        wrong = repository.step(name, config=f"a\n{text}\n{text}", base="HEAD")
        assert (wrong.stderr, set(commands(wrong.stdout)) - {"error"}) == ("", set())


@often_started
def test_each_step_stops_commands_by_a_token_of_its_own(repository: Repository) -> None:
    stops = [re.findall("::stop-commands::(.*)", repository.step("test").stdout) for _ in range(2)]
    assert len({token for tokens in stops for token in tokens}) == 2


@often_started
@pytest.mark.parametrize(
    ("step", "change", "shows"),
    [
        ("check", "routes", True),
        ("check", "routes above", True),
        ("check", "routes of git", False),
        ("check", "link to the routes", True),
        ("check", "link to the configuration", True),
        ("check", "no file", False),
        ("test", "link to a suite", True),
        ("test", "link to the suites", False),
    ],
)
def test_files_outside_of_the_checkout_are_not_read(repository: Repository, step: str, change: str, shows: bool) -> None:
    """They would be printed in part, as what is wrong with them."""
    secret = repository.temporary / "secret.yaml"
    secret.write_text("password-of-ana: 1\n", "utf-8")
    config, suites = repository.folder / "config" / "extauthz.yaml", repository.folder / "config" / "tests"
    routes = repository.folder / "config" / "routes" / "glean-client-api.yaml"
    named = {
        "routes": str(secret),
        "routes above": "../../temp/secret.yaml",
        "routes of git": "../.git/config",
        "no file": "/nowhere/x.yaml",
    }
    if change in named:
        config.write_text(config.read_text("utf-8").replace("routes/glean-client-api.yaml", named[change]), "utf-8")
    elif change == "link to the suites":
        suites.rename(repository.temporary / "tests")
        suites.symlink_to(repository.temporary / "tests")
    else:
        link = {"link to the routes": routes, "link to the configuration": config, "link to a suite": suites / "a.yaml"}[change]
        link.unlink(missing_ok=True)
        link.symlink_to(secret)
    reading = repository.step(step)
    assert ("password-of-ana" in reading.stdout + reading.stderr) == shows

    refused = repository.step("confine")
    assert (refused.returncode, set(commands(refused.stdout)), refused.stderr) == (1, {"error"}, "")
    assert "outside of the checkout" in refused.stdout
    assert "password-of-ana" not in refused.stdout


@often_started
def test_files_of_the_checkout_are_read_wherever_they_are_in_it(repository: Repository) -> None:
    assert repository.step("confine").returncode == 0
    assert repository.step("confine", tests="").returncode == 0
    routes = repository.folder / "config" / "routes" / "glean-client-api.yaml"
    routes.rename(repository.folder / "elsewhere.yaml")
    routes.symlink_to("../../elsewhere.yaml")
    assert repository.step("confine").returncode == 0
    routes.write_text("- [", "utf-8")
    assert repository.step("confine").returncode == 0, "the check says what is wrong with a file"


def test_nothing_is_read_before_it_is_known_where_it_lies() -> None:
    ids = list(STEPS)
    assert ids.index("install") + 1 == ids.index("confine") < min(map(ids.index, ("check", "test", "diff")))
    assert "if" not in STEPS["confine"]
    assert "always()" not in TEXT
    assert "steps.check.outcome == 'success'" in STEPS["diff"]["if"]
