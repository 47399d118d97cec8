"""`extauthz diff`."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, NoReturn

import click

from extauthz.cli.configuration import CONFIGURATION_EXIT, mask_for
from extauthz.cli.terminal import echo, printable
from extauthz.errors import ConfigurationError, SourceError

if TYPE_CHECKING:
    from extauthz.config.loader import Configuration


@click.command("diff")
@click.argument("old")
@click.argument("new")
@click.option(
    "--fail-on",
    type=click.Choice(["widened", "narrowed", "any"]),
    help="Exit with 1 if requests go on that were refused, if requests are refused that went on, or if anything differs.",
)
@click.option(
    "--format",
    "form",
    type=click.Choice(["text", "markdown", "json"]),
    default="text",
    show_default=True,
    help="Text for a terminal, Markdown for a pull request, JSON for programs.",
)
@click.option("--json", "as_json", is_flag=True, help="JSON for programs, as --format json.")
def command(old: str, new: str, *, fail_on: str | None, form: str, as_json: bool) -> None:
    """Show what changed in meaning from one configuration to another: who is let through now, and who no more.

    OLD and NEW are an extauthz.yaml, its folder or the one around config/, or git:REVISION:PATH for these in a revision of the
    repository around the current folder; a PATH there counts from the top of the repository, and from the current folder if it
    begins with "./".

    Every class of requests is decided under both, so nothing is left to chance. What the files cannot tell, like which tokens a
    provider signs, is named and not guessed. Exit codes: 0 nothing that --fail-on names; 1 there is; 2 wrong flags; 3 problems in
    one of the configurations.

    Example: extauthz diff git:main:config config --fail-on widened
    """
    from extauthz.tools import diff_text
    from extauthz.tools.diff import differences
    from extauthz.tools.diff_shape import FailOn

    result = differences(_loaded("OLD", old), _loaded("NEW", new))
    if as_json or form == "json":
        echo(json.dumps(diff_text.as_data(result)))
    else:
        for line in (diff_text.as_markdown if form == "markdown" else diff_text.as_text)(result):
            echo(printable(line, lines=False))
    if fail_on is not None and result.fails(FailOn(fail_on)):
        raise click.exceptions.Exit(1)


def _loaded(side: str, source: str) -> Configuration:
    from extauthz.tools.diff_sources import load_from

    try:
        return load_from(source)
    except SourceError as error:
        raise click.UsageError(f"{side}: {printable(mask_for(source)(str(error)), lines=False)}") from None
    except ConfigurationError as error:
        _stop(side, error, mask_for(source))


def _stop(side: str, error: ConfigurationError, shown: Callable[[str], str]) -> NoReturn:
    for problem in error.problems:
        echo(f"{side}: {printable(shown(str(problem)), lines=False)}", err=True)
    raise click.exceptions.Exit(CONFIGURATION_EXIT)
