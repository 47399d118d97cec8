"""`extauthz doctor`."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import click

from extauthz.cli import configuration
from extauthz.cli.output import json_option, write_json
from extauthz.cli.rendering import progress, titled
from extauthz.cli.terminal import Styled, echo, printable
from extauthz.config.wording import counted
from extauthz.doctor.findings import Finding, Level, problem
from extauthz.envoy_config.control_planes import ControlPlane
from extauthz.errors import ConfigurationError
from extauthz.process.clock import SystemClock

_COLOURS = {Level.OK: "green", Level.WARNING: "yellow", Level.PROBLEM: "red"}


@click.command("doctor")
@configuration.option
@click.option("--envoy-admin", metavar="ADDRESS", help="Look at a running Envoy too: http://127.0.0.1:9901 or unix:///path.")
@click.option(
    "--profile",
    type=click.Choice([plane.value for plane in ControlPlane]),
    help="With --envoy-admin: who configures that Envoy; only what can be changed there is reported, in its words.",
)
@click.option("--offline", is_flag=True, help="Ask no issuer, no sidecar and no database server.")
@json_option
def command(config_file: Path, *, envoy_admin: str | None, profile: str | None, offline: bool, as_json: bool) -> None:
    """Look at an installation, and say what to do about each finding.

    Libraries, files and their permissions, certificates, clocks, the token store, the issuers, the admin console where there is a
    section for it, and with --envoy-admin the Envoy that asks. No token is sent to anybody and nothing is changed. Run it as the
    user of the sidecar, or with the console's configuration as its user. Exit codes: 0 no problem, 1 a problem, 3 problems in the
    configuration.

    \b
    Example: extauthz doctor --config config/extauthz.yaml
             extauthz doctor --envoy-admin unix:///tmp/extauthz-envoy-admin.sock
             extauthz doctor --envoy-admin http://127.0.0.1:19000 --profile envoy-gateway
             extauthz doctor --offline --json
    """
    if profile is not None and envoy_admin is None:
        raise click.UsageError("--profile needs --envoy-admin")
    plane = ControlPlane(profile) if profile is not None else None
    with _quiet():
        findings = _findings(config_file, envoy_admin, plane, offline=offline, as_json=as_json)
    _tell(findings, as_json=as_json)
    if any(finding.level is Level.PROBLEM for finding in findings):
        sys.exit(1)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep what the parts log out of the report, which says it in its own words."""
    ours = logging.getLogger("extauthz")
    level = ours.level
    ours.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        ours.setLevel(level)


def _findings(
    config_file: Path, envoy_admin: str | None, plane: ControlPlane | None, *, offline: bool, as_json: bool
) -> list[Finding]:
    from extauthz.config.loader import load
    from extauthz.doctor import run

    try:
        loaded = load(config_file)
    except ConfigurationError as error:
        _tell([problem("configuration", str(one), "correct this line") for one in error.problems], as_json=as_json)
        sys.exit(configuration.CONFIGURATION_EXIT)
    clock = SystemClock()
    checks = run.checks(loaded, clock=clock, environment=os.environ, admin=envoy_admin, plane=plane, offline=offline)
    findings: list[Finding] = []
    with progress("Looking", len(checks)) as bar:
        for title, check in checks.items():
            bar.update(bar.task_ids[0], description=titled(title))
            findings += check()
            bar.advance(bar.task_ids[0])
    return findings


def _tell(findings: list[Finding], *, as_json: bool) -> None:
    counts = Counter(finding.level for finding in findings)
    if as_json:
        write_json({"findings": [asdict(finding) for finding in findings], **{level.value: counts[level] for level in Level}})
        return
    for finding in findings:
        where = f"{finding.where}: " if finding.where else ""
        level = Styled(f"{finding.level.value:<8}", fg=_COLOURS[finding.level])
        echo(level, printable(f" {finding.name:<24} {where}{finding.found}", lines=False))
        if finding.advice:
            echo(f"{'':<33} → {printable(finding.advice, lines=False)}")
    totals = [counted(counts[level], level.value) for level in (Level.PROBLEM, Level.WARNING)]
    echo(f"{', '.join(totals)}, {counts[Level.OK]} in order")
