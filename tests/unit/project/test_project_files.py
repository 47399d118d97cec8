"""One version, one list of checks, actions that nobody can move: what the files of the project say of each other."""

from __future__ import annotations

import csv
import importlib.metadata
import os
import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import helm_python
import pytest
import yaml

from extauthz import __version__
from tests.support.kubernetes import EXAMPLE
from tests.support.project import ROOT

PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
WORKFLOWS = {path.name: path.read_text("utf-8") for path in sorted((ROOT / ".github" / "workflows").glob("*.yml"))}
CHECKS = ["lint", "check-generated", "test", "test-long", "pure", "mutants-changed", "wheel", "workflows", "pythons"]

OF_THE_IMAGE = {
    "deploy/helm/extauthz/Chart.yaml": r"^(?:version|appVersion): (.+)$",
    "deploy/kubernetes/overlays/standalone/kustomization.yaml": r"newTag: ([^}\s]+)",
    "deploy/kubernetes/overlays/sidecar/kustomization.yaml": r"newTag: ([^}\s]+)",
    "deploy/kubernetes/console/kustomization.yaml": r"newTag: ([^}\s]+)",
    "deploy/kubernetes/migrate/kustomization.yaml": r"newTag: ([^}\s]+)",
    "deploy/kubernetes/admin/kustomization.yaml": r"newTag: ([^}\s]+)",
    "docs/deploy.md": r"(?:extauthz:|VERSION=|--version )(\d[\d.]*)",
}
"""Files that name the image of this version, which no program can look up for them."""


# The version


def test_the_version_stands_in_one_place() -> None:
    assert "version" not in PROJECT["project"]
    assert PROJECT["project"]["dynamic"] == ["version"]
    assert PROJECT["tool"]["setuptools"]["dynamic"]["version"] == {"attr": "extauthz.__version__"}
    assert importlib.metadata.version("extauthz") == __version__, "run `make setup`"


@pytest.mark.parametrize("name", OF_THE_IMAGE)
def test_what_names_the_image_names_this_version(name: str) -> None:
    versions = re.findall(OF_THE_IMAGE[name], (ROOT / name).read_text("utf-8"), re.MULTILINE)
    assert versions, name
    assert {version.strip("\"'") for version in versions} == {__version__}


def test_nothing_else_repeats_the_version() -> None:
    places = [ROOT / "Dockerfile", ROOT / "docker-compose.yml", ROOT / "Makefile", *(ROOT / "extauthz").rglob("*.py")]
    places += [ROOT / ".github" / "workflows" / name for name in WORKFLOWS]
    repeated = [
        str(path.relative_to(ROOT))
        for path in places
        if re.search(rf"(?<![\w.]){re.escape(__version__)}(?![\w.])", path.read_text("utf-8"))
    ]
    assert repeated == ["extauthz/__init__.py"]


# The checks


def test_make_check_is_all_of_ci() -> None:
    makefile = (ROOT / "Makefile").read_text("utf-8")
    (prerequisites,) = re.findall(r"^check: (.*?) +##", makefile, re.MULTILINE)
    assert prerequisites.split() == CHECKS
    run = (ROOT / ".ci" / "run").read_text("utf-8")
    assert run.rstrip().splitlines()[-1] == "make check"
    assert ".ci/run" in [step.get("run") for step in jobs("ci.yml")["check"]["steps"]]


def test_every_python_of_the_metadata_is_tried() -> None:
    versions = [text.rpartition(" ")[2] for text in PROJECT["project"]["classifiers"] if re.search(r":: 3\.\d+$", text)]
    assert versions[0] == PROJECT["project"]["requires-python"].removeprefix(">=")
    assert jobs("ci.yml")["unit"]["strategy"]["matrix"] == {"python": versions, "resolution": ["lowest-direct", "highest"]}
    assert jobs("release.yml")["wheel"]["strategy"]["matrix"] == {"python": versions}
    (tried,) = re.findall(r"^\t@for version in ([0-9. ]+);", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)
    assert tried.split() == versions[1:], "the first one is that of `make test`"


# The workflows


def jobs(name: str) -> dict[str, Any]:
    """Return the jobs of a workflow."""
    return dict(yaml.safe_load(WORKFLOWS[name])["jobs"])


def loose(text: str) -> list[str]:
    """Return the actions of a workflow that somebody else could move to another commit."""
    return [
        line
        for line in re.findall(r"uses: *(.*)$", text, re.MULTILINE)
        if not re.fullmatch(r"[\w./-]+@[0-9a-f]{40} # v\d[\w.]*", line)
    ]


def test_a_loose_action_is_noticed() -> None:
    pinned = f"      - uses: actions/checkout@{'0123456789' * 4} # v7.0.0\n"
    assert loose(pinned) == []
    assert loose(pinned.replace(" # v7.0.0", "")) != []
    assert loose("      - uses: actions/checkout@v7\n") == ["actions/checkout@v7"]


@pytest.mark.parametrize("name", WORKFLOWS)
def test_actions_are_pinned_and_rights_are_few(name: str) -> None:
    assert loose(WORKFLOWS[name]) == []
    assert yaml.safe_load(WORKFLOWS[name])["permissions"] == {}, "each job asks for what it needs"
    for job in jobs(name).values():
        assert job["timeout-minutes"] <= 60
        for step in job["steps"]:
            if step.get("uses", "").startswith("actions/checkout@"):
                assert step["with"]["persist-credentials"] is False


def test_one_commit_of_an_action_is_used_everywhere() -> None:
    used = set(re.findall(r"uses: ([\w./-]+)@([0-9a-f]{40})", "".join(WORKFLOWS.values())))
    assert len({action for action, _ in used}) == len(used)


def test_a_release_is_built_once_and_what_was_built_is_tried() -> None:
    text = WORKFLOWS["release.yml"]
    assert text.count("-m build ") == 2
    assert text.count("-m cibuildwheel ") == 1
    steps = jobs("release.yml")
    needs = [steps[name]["needs"] for name in ("wheel", "publish", "platform", "image", "chart")]
    assert needs == [["build", "compiled"], "wheel", "wheel", "platform", "image"]
    (push,) = [step["with"] for step in steps["platform"]["steps"] if "build-push-action" in step.get("uses", "")]
    assert (push["sbom"], push["provenance"]) == (True, "mode=max")


def test_the_image_is_built_on_a_machine_of_each_platform() -> None:
    """Emulated, the C compiler would take an hour; the index has no tag before every platform is there."""
    platform, image = (jobs("release.yml")[name] for name in ("platform", "image"))
    runners = {each["platform"]: each["runner"] for each in platform["strategy"]["matrix"]["include"]}
    assert runners == {"linux/amd64": "ubuntu-24.04", "linux/arm64": "ubuntu-24.04-arm"}
    (push,) = [step["with"] for step in platform["steps"] if "build-push-action" in step.get("uses", "")]
    assert "push-by-digest=true" in push["outputs"]
    assert "tags" not in push
    (index,) = [step["run"] for step in image["steps"] if step.get("id") == "index"]
    assert f'test "${{#digests[@]}}" = {len(runners)}' in index
    assert index.count("imagetools create --tag ") == 1


@pytest.mark.parametrize("name", ["image", "chart"])
def test_what_is_pushed_is_signed_by_its_digest_and_without_a_key(name: str) -> None:
    job = jobs("release.yml")[name]
    assert job["permissions"]["id-token"] == "write"
    assert job["environment"] == "release"
    (sign,) = [step for step in job["steps"] if "cosign sign" in step.get("run", "")]
    assert "--key" not in sign["run"]
    assert all(re.search(r"digest \}\}$", value) for value in sign["env"].values()), "a tag can be moved"
    (attested,) = [step["with"] for step in job["steps"] if "attest-build-provenance" in step.get("uses", "")]
    assert attested["push-to-registry"] is True


def test_the_chart_of_a_release_names_its_image_by_digest(tmp_path: Path) -> None:
    image, digest = "ghcr.io/acme/extauthz", "sha256:" + "0123" * 16
    made = subprocess.run([ROOT / ".ci" / "chart", image, digest, tmp_path / "extauthz"], timeout=60, check=False)
    assert made.returncode == 0
    archive = helm_python.package(tmp_path / "extauthz", destination=tmp_path)
    assert Path(archive).name == f"extauthz-{__version__}.tgz", "the workflow looks for it"
    with helm_python.Chart.load_archive(Path(archive).read_bytes()) as chart:
        text = chart.render(EXAMPLE, name="authz", namespace="prod")["extauthz/templates/deployment.yaml"]
    assert f"image: {image}@{digest}" in text
    refused = subprocess.run(
        [ROOT / ".ci" / "chart", image, "", tmp_path / "other"], capture_output=True, text=True, timeout=60, check=False
    )
    assert (refused.returncode, refused.stderr) == (2, "no digest of an image: \n")
    assert not (tmp_path / "other").exists()


# The editor and the hooks


def test_editors_and_hooks_know_the_rules_of_lint() -> None:
    (width,) = re.findall(r"^max_line_length = (\d+)$", (ROOT / ".editorconfig").read_text("utf-8"), re.MULTILINE)
    assert int(width) == PROJECT["tool"]["ruff"]["line-length"]
    hooks = [
        hook for repo in yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text("utf-8"))["repos"] for hook in repo["hooks"]
    ]
    lint = (ROOT / "Makefile").read_text("utf-8").partition("\nlint:")[2].partition("\n\n")[0]
    assert {word for hook in hooks for word in hook["entry"].split() if "/bin/" in word} == {".venv/bin/ruff", ".venv/bin/mypy"}
    assert all(f"$(BIN)/{program}" in lint for program in ("ruff check", "ruff format", "mypy"))


# The environment


def test_no_file_of_the_environment_belongs_to_two_packages() -> None:
    """They are installed side by side, so the last one to write a file would have it: another one in each environment."""
    owners: dict[str, set[str]] = {}
    for package in importlib.metadata.distributions():
        # Not `package.files`, which makes five objects of each of 50,000 lines.
        for name, *_ in csv.reader((package.read_text("RECORD") or "").splitlines()):
            if not name.endswith(".pyc"):
                owners.setdefault(os.path.normpath(package.locate_file(name)), set()).add(package.name)
    assert len(owners) > 1000, "the environment was read"
    assert {file: names for file, names in owners.items() if len(names) > 1} == {}
