"""`extauthz routes --path`: which route takes a request, why this one, and what it nearly matches."""

from __future__ import annotations

from typing import Any

import click

from extauthz.cli.output import write_json
from extauthz.cli.route_rows import opened_by, route_document, route_map
from extauthz.cli.terminal import Styled, echo, printable
from extauthz.config.loader import Configuration
from extauthz.core.model import Reason
from extauthz.core.routes import Route
from extauthz.tools.masking import Mask
from extauthz.tools.matching import Matching, NearRoute, matching
from extauthz.tools.refusal_hints import hint

SHOWN = 10
"""Routes of a list that are shown; --json has all."""


def show_match(loaded: Configuration, method: str, path: str, host: str, *, as_json: bool) -> None:
    """Print it; exits with 1 if nobody gets through."""
    found = matching(loaded.policy, method, path, host)
    entries = {entry.route.name: entry for entry in route_map(loaded).entries}
    mask = Mask().of(loaded.policy)
    # The query decides no route, and may hold what is nobody's business.
    asked = {"method": mask(method), "path": mask(path.partition("?")[0]), "host": mask(host)}
    if as_json:
        write_json(
            {
                **asked,
                "route": found.route and route_document(entries[found.route.name]),
                "refused": found.decision.reason.value if found.is_refused else None,
                "others": [{"route": route_document(entries[one.route.name]), "why": mask(one.why)} for one in found.others],
                "near": [_near_document(one, mask) | {"route": route_document(entries[one.route.name])} for one in found.near],
            }
        )
    else:
        where = f" on {asked['host']}" if host else ""
        echo(printable(f"{asked['method']} {asked['path']}{where}", lines=False))
        _print(found, {name: f"{opened_by(entry)}, {entry.place}" for name, entry in entries.items()}, mask)
    if found.is_refused:
        raise click.exceptions.Exit(1)


def _print(found: Matching, about: dict[str, str], mask: Mask) -> None:
    reason = found.decision.reason
    if found.route is not None:
        echo(Styled("matches ", fg="red" if found.is_refused else "green"), f"{_named(found.route)}: {about[found.route.name]}")
    if found.is_refused:
        echo(Styled(f"refused: {reason.value}", fg="red"), f", HTTP {reason.status}: {hint(reason) or reason.message}")
    if reason is Reason.METHOD_NOT_ALLOWED:
        echo("The path is taken by a pattern that has no such method; less specific patterns are not asked:")
        for route in found.pattern:
            echo(f"  {_named(route)}: {about[route.name]}")
    if found.others:
        echo("\nOther patterns that could take the path, and why they do not:")
        for one in found.others[:SHOWN]:
            echo(printable(f"  {_named(one.route)}: {mask(one.why)}", lines=False))
        _tell_more(len(found.others))
    if found.near:
        echo("\nNear:")
        for near in found.near[:SHOWN]:
            instead = f": {mask(near.instead)}" if near.instead else ""
            echo(printable(f"  {_named(near.route)}, {near.nearness.meaning}{instead} ({about[near.route.name]})", lines=False))
        _tell_more(len(found.near))
    elif found.is_refused:
        echo("\nNo route is near.")


def _named(route: Route) -> str:
    return route.match.text if route.name == route.match.text else f"{route.match.text} ({route.name})"


def _near_document(near: NearRoute, mask: Mask) -> dict[str, Any]:
    return {"nearness": near.nearness.value, "instead": mask(near.instead)}


def _tell_more(number: int) -> None:
    if number > SHOWN:
        echo(f"  and {number - SHOWN} more: --json has all")
