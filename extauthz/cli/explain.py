"""`extauthz explain`."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from extauthz.cli import configuration
from extauthz.cli.explain_requests import ExplainedRequest, asked_of, described_by
from extauthz.cli.ops_flags import listener, ops_options
from extauthz.cli.output import json_option, now, write_json
from extauthz.cli.terminal import Styled, can_show, echo

if TYPE_CHECKING:
    from extauthz.config.loader import Configuration
    from extauthz.core.credentials import Credential
    from extauthz.core.model import Identity, Reason
    from extauthz.tools.explain_model import Explanation

_MARKS = {"passed": "✓", "failed": "✗", "unknown": "?", "not_reached": "·", "not_needed": "·"}
_PLAIN_MARKS = {"passed": "ok", "failed": "NO", "unknown": "??", "not_reached": "--", "not_needed": "--"}
_COLOURS = {"passed": "green", "failed": "red", "unknown": "yellow"}
_WORDS = {"not_reached": "not reached", "not_needed": "not needed"}
_HEADINGS = {"allow": "Allowed", "deny": "Refused", "would_deny": "Forwarded by monitor mode, refused when enforced"}

UNAVAILABLE = 503
_NOT_FROM_HERE = (
    "The token was verified from here, which came to {}: a sidecar elsewhere may come to something else."
    " extauthz doctor says what is wrong here."
)


class _ExplainCommand(click.Command):
    """Reads its own flags up to the first word that is none of them: what follows is curl's, where --json is another flag."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Split the words in two."""
        takes_value = {
            name: isinstance(option, click.Option) and not option.is_flag for option in self.get_params(ctx) for name in option.opts
        }
        at = 0
        while at < len(args) and (name := args[at].partition("=")[0]) in takes_value and name.startswith("-"):
            at += 2 if takes_value[name] and "=" not in args[at] else 1
        rest = args[at:]
        with _masked_errors():
            if at > len(args):  # the value of the last flag is missing
                return super().parse_args(ctx, args)
            return super().parse_args(ctx, [*args[:at], "--", *(rest[1:] if rest[:1] == ["--"] else rest)])


@contextmanager
def _masked_errors() -> Iterator[None]:
    """Let no error of the command line hold what may be a token: whatever was written where a flag has its value."""
    from extauthz.tools.masking import Mask

    try:
        yield
    except click.ClickException as error:
        kind = click.UsageError if isinstance(error, click.UsageError) else click.ClickException
        raise kind(Mask()(error.format_message())) from None


@click.command("explain", cls=_ExplainCommand)
@ops_options
@click.option("--curl", "line", metavar="LINE", help="A curl line in quotes; - reads it from standard input.")
@click.option("--check-request", "check_file", metavar="FILE", help="A CheckRequest, JSON or binary; - for standard input.")
@click.option("--log-line", "log_file", metavar="FILE", help="A file with one line of the decision log; - for standard input.")
@click.option("--live", "decision_id", metavar="ID", help="A decision that a running sidecar remembers.")
@click.option("--as", "who", metavar="CALLER", help="Who sends it, in place of its token: 'GLOBAL scopes=SEARCH,CHAT' or nobody.")
@click.option("--verify", is_flag=True, help="Ask the provider about a real access token.")
@click.option("--store", "with_store", is_flag=True, help="Name the issued tokens that have a scope that is missing.")
@json_option
@click.argument("request", nargs=-1, type=click.UNPROCESSED, metavar="[curl] [REQUEST]...")
def command(config_file: Path, *, as_json: bool, **given: Any) -> None:
    """Say why a request is allowed or refused: every check, and by which line of the configuration.

    The request is written as for curl, or a whole curl line is pasted; flags of extauthz stand before it. It is decided by the
    steps that serve, and sent to nobody. A token in it is never shown: an issued one is verified against the store, an access
    token by its provider only with --verify, and with --as neither is looked at.

    Exit codes: 0 allowed; 1 refused, forwarded by monitor mode alone, or not known without the token; 2 wrong flags; 3 problems in
    the configuration.

    \b
    Example: extauthz explain --as 'USER user=ana@acme.com scopes=SEARCH' -X POST https://api.acme.com/rest/api/v1/chat
             extauthz explain --curl "$(pbpaste)"
             grep 9f86d081884c7d659a2feaa0c55ad015 decisions.log | extauthz explain --log-line -
             extauthz explain --live 9f86d081884c7d659a2feaa0c55ad015 --json
    """
    with _masked_errors():
        explanation = _explanation(config_file, **given)
    if as_json:
        write_json(explanation.document())
    else:
        _print(explanation)
    if not explanation.is_allowed:
        sys.exit(1)


def _explanation(config_file: Path, *, who: str | None, verify: bool, with_store: bool, **given: Any) -> Explanation:
    from extauthz.tools.explain import explain
    from extauthz.tools.masking import Mask

    flags = {name: given.pop(name) for name in ("ops", "ca", "cert", "key")}
    if given["decision_id"] is None and (alone := next((name for name, value in flags.items() if value is not None), None)):
        raise click.UsageError(f"--{alone} needs --live; a request in curl's spelling begins with the word curl, or behind --")
    loaded = _loaded(config_file)
    asked = asked_of(loaded, ops=partial(listener, config_file, *flags.values()), **given)
    mask = Mask(asked.secrets)
    if who is not None:
        asked = described_by(loaded, asked, who)
    moment = asked.moment if asked.moment is not None else now()
    if not asked.is_described:
        asked = _with_evidence(loaded, asked, verify=verify)
    found = explain(loaded, asked.request, asked.evidence, moment, mask=mask)
    notes = [mask.tokens(note) for note in asked.notes]
    if asked.logged is not None and found.reason is not asked.logged and who is None:
        notes.append(
            f"The log says {asked.logged.value}: the configuration has changed since, or it follows from what the log leaves out."
        )
    found = replace(found, notes=(*found.notes, *notes))
    return _with_holders(loaded, found, moment) if with_store else found


def _loaded(config_file: Path) -> Configuration:
    """Read the configuration, with the OAuth settings of the store where that has them."""
    loaded = configuration.read(config_file, shown=configuration.mask_for(str(config_file)))
    if loaded.settings_place is None:
        return loaded
    from extauthz.doctor.saved_settings import applied  # it loads what opens stores

    return applied(loaded, os.environ)


def _with_evidence(loaded: Configuration, asked: ExplainedRequest, *, verify: bool) -> ExplainedRequest:
    """Verify the token of a request that needs one, as far as that was asked for."""
    from extauthz.core.credentials import Kind
    from extauthz.core.decide import Plan, plan
    from extauthz.core.model import Reason

    planned = plan(loaded.policy, asked.request) if asked.request is not None else None
    if not isinstance(planned, Plan):
        return asked
    if planned.credential.kind is Kind.OAUTH and not verify:
        note = "The access token was not verified: --verify asks its provider, and --as describes who holds it."
        return replace(asked, notes=(*asked.notes, note))
    evidence, notes = _verified(loaded, planned.credential)
    if isinstance(evidence, Reason) and evidence.status == UNAVAILABLE:
        notes += (_NOT_FROM_HERE.format(evidence.value),)
    return replace(asked, evidence=evidence, notes=(*asked.notes, *notes))


def _verified(loaded: Configuration, credential: Credential) -> tuple[Identity | Reason | None, tuple[str, ...]]:
    import asyncio

    from extauthz.core.model import Reason
    from extauthz.errors import ConfigurationError, StoreError
    from extauthz.process.clock import SystemClock
    from extauthz.tools.verifying import verified

    if isinstance(loaded.saved, Reason) and credential.kind == "oauth":
        return loaded.saved, ()
    try:
        return asyncio.run(verified(loaded, credential, os.environ, clock=SystemClock())), ()
    except (ConfigurationError, StoreError) as error:
        problems = error.problems if isinstance(error, ConfigurationError) else [error]
        return None, tuple(f"The token was not verified: {problem}" for problem in problems)


def _with_holders(loaded: Configuration, found: Explanation, moment: float) -> Explanation:
    """Add which tokens of the store have the scope that is missing."""
    from contextlib import closing

    from extauthz.adapters.store.sql import SqlTokenStore
    from extauthz.admin.route_map import routes_of
    from extauthz.core.model import Reason
    from extauthz.errors import ConfigurationError, StoreError
    from extauthz.tools.explain_holders import holders

    place = loaded.store_place
    if found.reason is not Reason.SCOPE_MISSING or found.decision is None or place is None:
        return found
    tables = (loaded.policy.routes, *loaded.policy.hosts.values())
    route = next(route for table in tables for route in routes_of(table) if route.name == found.decision.route)
    try:
        with closing(SqlTokenStore(place, password=loaded.store_password(os.environ))) as store:
            remedy = holders(store, route, moment)
    except ConfigurationError as error:
        configuration.stop(error)
    except StoreError as error:
        raise click.ClickException(str(error)) from error
    return replace(found, remedies=(*found.remedies, remedy or "no active token of the store has it"))


def _print(found: Explanation) -> None:
    marks = _MARKS if all(map(can_show, _MARKS.values())) else _PLAIN_MARKS
    width = max(len(check.step.label) for check in found.checks)
    for check in found.checks:
        outcome = check.outcome.value
        where = f" ({check.place})" if check.place else ""
        told = "; ".join(filter(None, (_WORDS.get(outcome, ""), check.value, check.rule)))
        echo(
            Styled(marks[outcome], _COLOURS.get(outcome), bold=outcome == "failed"), f" {check.step.label:<{width}}  {told}{where}"
        )
    echo()
    reason = found.reason
    if reason is None:
        echo(Styled("Not known: it depends on the token.", "yellow", bold=True))
    else:
        colour = "green" if found.outcome == "allow" else "yellow" if found.outcome == "would_deny" else "red"
        echo(Styled(f"{_HEADINGS[found.outcome]}: {reason.value}", colour, bold=True), "" if found.is_allowed else _answer(reason))
    if found.remedies:
        echo("What would make it pass:" if reason is not None else "What would tell:")
        for remedy in found.remedies:
            echo(f"  {remedy}")
    if found.headers:
        echo("Headers for the upstream:")
        for header in found.headers:
            echo(f"  {header.name}: {'(as it was sent)' if header.value is None else header.value}")
    if found.removed:
        echo(f"Taken away: {', '.join(found.removed)}")
    for note in found.notes:
        echo(f"Note: {note}")


def _answer(reason: Reason) -> str:
    return f" ({reason.status}: {reason.message})"
