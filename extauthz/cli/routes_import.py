"""`extauthz routes import …`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from extauthz.cli import configuration, routes_openapi
from extauthz.cli.output import json_option, write_json
from extauthz.cli.terminal import echo, printable
from extauthz.config.wording import counted

if TYPE_CHECKING:
    from extauthz.tools.openapi_update import RouteChange, Update

MAX_SHOWN = 20
"""Reasons that are listed; --json has all of them."""


@click.group("import")
def imports() -> None:
    """Make route files of descriptions that are there already.

    Example: extauthz routes import openapi openapi.yaml --output config/routes/api.yaml
    """


@imports.command("openapi")
@routes_openapi.specs
@routes_openapi.map_option
@routes_openapi.prefix_option
@configuration.option
@click.option(
    "--output", type=click.Path(dir_okay=False, path_type=Path), help="The route file, which is brought up to date if it is there."
)
@click.option("--dry-run", is_flag=True, help="Print what would change as a diff, and write nothing.")
@json_option
@click.pass_context
def openapi(
    context: click.Context,
    /,
    specs: tuple[Path, ...],
    map_file: Path | None,
    prefix: str | None,
    config_file: Path,
    output: Path | None,
    *,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Bring a route file up to date with API descriptions: OpenAPI 3.0 and 3.1, YAML or JSON.

    Every operation gets a line. What no rule of the mapping file opens is denied, with a comment that says what to add. Lines that
    people wrote or changed stay as they are, and so do lines of operations that are gone, with a comment. Without --output a new
    file is printed. Scopes are those of --config, if that file is there.

    Exit codes: 0 done; 1 something would change, with --dry-run; 2 wrong flags; 3 a problem in a file, and nothing was written.

    Example: extauthz routes import openapi openapi.yaml --map openapi-map.yaml --output config/routes/api.yaml
    """
    if as_json and output is None:
        raise click.UsageError("--json says what was done to a file: name it with --output")
    is_named = context.get_parameter_source("config_file") is not click.core.ParameterSource.DEFAULT
    vocabulary, end = _vocabulary(config_file, is_named=is_named)
    operations = routes_openapi.operations_of(specs, prefix)
    rules = routes_openapi.rules_of(map_file, vocabulary)
    before = content(output)
    from extauthz.tools.openapi_update import update

    with configuration.explained():
        result = update(output or Path("routes.yaml"), before, operations, rules, vocabulary)
    text = f"{result.text}{end}" if before is None else result.text
    is_changed = before is None or text != before.decode()
    difference = _difference(output, before, text) if dry_run else []
    for row in difference if not as_json else ():
        echo(printable(row, lines=False))
    if not dry_run and output is None:
        echo(text, nl=False)
    elif not dry_run and output is not None and is_changed:
        _write(output, before, text)
    if as_json:
        write_json(_facts(result, output, len(operations), is_written=is_changed and not dry_run) | {"difference": difference})
    else:
        _summarize(result, len(operations), is_written=is_changed and not dry_run and output is not None, output=output)
    if dry_run and is_changed:
        raise click.exceptions.Exit(1)


def _vocabulary(file: Path, *, is_named: bool) -> tuple[list[str], str]:
    """Return the scopes of extauthz.yaml, none where there is no such file, and what route files end with."""
    from extauthz.config import completeness, document, scope_checks
    from extauthz.errors import ConfigurationError

    if not is_named and not file.exists():
        echo(f"There is no {file}: scopes are not compared with its list.", err=True)
        return [], ""
    source = document.read(file)
    if source.problems or not isinstance(source.data, dict):
        configuration.stop(ConfigurationError(source.problems or [source.problem((), "the file is not a mapping")]))
    end = f"{completeness.END}\n" if completeness.is_wanted(source) else ""
    return [name for _, name in scope_checks.scopes(source, "scopes")], end


def content(output: Path | None) -> bytes | None:
    """Return what the route file holds, None where there is none."""
    from extauthz.config.files import Files
    from extauthz.errors import ConfigurationError, Problem

    if output is None or not output.exists():
        return None
    try:
        content = Files().read(output)
        content.decode()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "it is not text in UTF-8"
        configuration.stop(ConfigurationError([Problem(str(output), 0, "", f"cannot be read: {reason}")]))
    return content


def _write(output: Path, before: bytes | None, text: str) -> None:
    from extauthz.cli.written_files import write_file

    if content(output) != before:
        raise click.ClickException(f"{output} was changed meanwhile, and is as it was changed: run the command again")
    write_file(output, text)


def _difference(output: Path | None, before: bytes | None, text: str) -> list[str]:
    """Return the lines of a unified diff."""
    import difflib

    name = str(output or "routes.yaml")
    old = "" if before is None else before.decode()
    there = name if before is not None else "/dev/null"
    return list(difflib.unified_diff(old.split("\n"), text.split("\n"), there, name, lineterm=""))


def _facts(result: Update, output: Path | None, operations: int, *, is_written: bool) -> dict[str, object]:
    return {
        "file": str(output),
        "is_written": is_written,
        "operations": operations,
        "added": list(map(asdict, result.added)),
        "changed": list(map(asdict, result.changed)),
        "gone": list(result.gone),
        "kept": list(result.kept),
        "denied": list(map(asdict, result.denied)),
    }


def _summarize(result: Update, operations: int, *, is_written: bool, output: Path | None) -> None:
    numbers = {
        "added": result.added,
        "changed": result.changed,
        "gone from the descriptions": result.gone,
        "written by people": result.kept,
        "denied": result.denied,
    }
    counts = ", ".join(f"{len(values):,} {name}" for name, values in numbers.items() if values)
    echo(f"{counted(operations, 'operation')}: {counts or 'nothing to do'}.", err=True)
    for why, number in _reasons(result.denied)[:MAX_SHOWN]:
        echo(printable(f"  {number:>5,}  denied: {why}", lines=False), err=True)
    for route in result.gone[:MAX_SHOWN]:
        echo(printable(f"  gone: {route}", lines=False), err=True)
    if output is not None:
        echo(f"{output} {'was written' if is_written else 'is as it was'}.", err=True)


def _reasons(denied: tuple[RouteChange, ...]) -> list[tuple[str, int]]:
    from collections import Counter

    return Counter(change.denied for change in denied).most_common()


command = imports
