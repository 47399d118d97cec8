"""The unit for systemd: what it runs exists, and it leaves a successor and orphans what they need."""

from __future__ import annotations

import shlex
from configparser import ConfigParser
from pathlib import Path

from extauthz.cli.serve import command as serve
from extauthz.config.settings import ServerSection
from tests.support.project import ROOT

UNIT = ROOT / "deploy" / "systemd" / "extauthz@.service"


def service() -> dict[str, str]:
    """Return the section [Service], whose keys have capitals."""
    parser = ConfigParser(interpolation=None)
    parser.optionxform = str  # type: ignore[assignment, method-assign]
    parser.read(UNIT, encoding="utf-8")
    return dict(parser["Service"])


def test_the_unit_waits_for_the_other_instance() -> None:
    program, name, *arguments = shlex.split(service()["ExecStart"])
    assert (Path(program).name, name) == ("extauthz", "serve")
    asked = serve.make_context("serve", [one.replace("/etc/extauthz/extauthz.yaml", __file__) for one in arguments])
    assert asked.params["wait"] == 60.0


def test_the_unit_ends_neither_workers_nor_a_drain() -> None:
    found = service()
    assert (found["KillMode"], found["Restart"]) == ("process", "always")
    assert int(found["TimeoutStopSec"]) > ServerSection.model_fields["drain"].default
    assert (found["RuntimeDirectory"], found["RuntimeDirectoryPreserve"]) == ("extauthz", "yes")
