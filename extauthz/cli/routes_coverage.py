"""`extauthz routes coverage`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from extauthz.cli import configuration, routes_openapi
from extauthz.cli.output import json_option, write_json
from extauthz.cli.terminal import echo
from extauthz.config.wording import counted

if TYPE_CHECKING:
    from extauthz.tools.openapi_coverage import DescriptionCoverage


@click.command("coverage")
@routes_openapi.specs
@routes_openapi.map_option
@routes_openapi.prefix_option
@configuration.option
@click.option("--host", "hosts", multiple=True, help="Ask for this host in place of those of the servers; repeat it for several.")
@click.option(
    "--routes",
    "route_files",
    multiple=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Look for routes without an operation in this route file only; repeat it for several.",
)
@json_option
def compare(
    specs: tuple[Path, ...],
    map_file: Path | None,
    prefix: str | None,
    config_file: Path,
    hosts: tuple[str, ...],
    route_files: tuple[Path, ...],
    *,
    as_json: bool,
) -> None:
    """Compare the routes with API descriptions, by a request for each operation to the steps that serve.

    Listed are operations without a route, operations that are open to more callers than their description says, and routes that
    open what no description has. What the mapping file accepts is listed with its reason and does not count.

    Exit codes: 0 nothing that counts; 1 something; 2 wrong flags; 3 a problem in the configuration or in a description.

    Example: extauthz routes coverage openapi.yaml --map openapi-map.yaml --config config/extauthz.yaml
    """
    from extauthz.tools.openapi_asking import Question
    from extauthz.tools.openapi_coverage import coverage

    loaded = configuration.read(config_file)
    vocabulary = loaded.settings.scopes
    rules = routes_openapi.rules_of(map_file, vocabulary)
    operations = routes_openapi.operations_of(specs, prefix)
    files = _files(route_files, loaded.yaml_files[1:])
    result = coverage(Question(loaded.policy, loaded.route_places, operations, rules, vocabulary, hosts, files))
    if as_json:
        write_json(asdict(result) | {"counts": len(result.refused)})
    else:
        _show(result)
    if result.refused:
        raise click.exceptions.Exit(1)


def _files(chosen: tuple[Path, ...], known: tuple[Path, ...]) -> tuple[str, ...]:
    """Return the route files of the configuration that are the chosen ones, as it names them."""
    names = []
    for file in chosen:
        same = [str(name) for name in known if name.exists() and name.samefile(file)]
        if not same:
            raise click.BadParameter(f"{file} is no route file of the configuration", param_hint="--routes")
        names += same
    return tuple(names)


def _show(result: DescriptionCoverage) -> None:
    from extauthz.cli.rendering import Column, Fit, write_table

    if result.findings:
        rows = [
            (
                each.kind.value,
                each.operation,
                each.route,
                f"{each.why}; accepted: {each.accepted}" if each.accepted else each.why,
            )
            for each in result.findings
        ]
        columns = (Column("finding"), Column("operation"), Column("route", 2, Fit.CUT), Column("why", 1, Fit.BELOW))
        write_table(columns, rows)
    numbers = {"opened": result.opened, "denied": result.denied, "never reached": result.unreachable}
    counts = ", ".join(f"{number:,} {name}" for name, number in numbers.items() if number)
    echo(f"{counted(result.operations, 'operation')}{': ' if counts else ''}{counts}. {counted(len(result.refused), 'finding')}.")


command = compare
