"""The page of the OAuth settings: what counts, a change that is shown before it is saved, what the issuer says, and the history."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from itertools import zip_longest
from typing import Any

from starlette.responses import RedirectResponse, Response

from extauthz.admin import oauth_settings, oauth_trial
from extauthz.admin.oauth_settings import CurrentSettings, Values
from extauthz.admin.outcomes import Refused
from extauthz.admin.rights import Operation, may
from extauthz.console.activity import live_version
from extauthz.console.forms import Form
from extauthz.console.reach import has_settings, reach_of
from extauthz.console.token_forms import by_field
from extauthz.console.visits import Visit
from extauthz.core.provider_table import PROVIDERS
from extauthz.process.clock import SystemClock

PATH = "/settings/oauth"
JUST_SAVED = 30
"""Seconds after a change in which its page looks at the sidecars."""
LABELS = {
    "enabled": "Allow OAuth token-based access",
    "provider": "SSO provider",
    "issuer": "Issuer",
    "client_ids": "Allowed client ids",
    "audience": "Audience",
    "domains": "Domains of users",
    "hosted_domains": "Hosted domains",
    "scopes": "Scopes of users",
}
HINTS = {
    "issuer": (
        "As it stands in the tokens. Short forms: https://acme for Okta and OneLogin, the directory id and /v2.0 for Azure; "
        "none for GSuite."
    ),
    "client_ids": "Separated by commas. Tokens of other applications are refused.",
    "audience": "Separated by commas; where it is left out, the provider's own rule counts.",
    "domains": "Separated by commas, like acme.com; * for all.",
    "hosted_domains": "GSuite: separated by commas.",
    "scopes": "Separated by commas, all, or claim for what each token says; where it is left out, all of the vocabulary.",
}
LIST_FIELDS = ("client_ids", "audience", "domains", "hosted_domains", "scopes")
RECENT_NEEDED = "log in again first: these settings decide who may call the API, so a login of the last ten minutes is needed"


async def show(visit: Visit) -> Response:
    """Show the settings that count, and those before them; right after a change also how many sidecars follow."""
    reach, current = None, await _current(visit)
    is_new = current.saved is not None and visit.context.now() - current.saved.at < JUST_SAVED
    if is_new and _number(visit.query.get("saved", "")) == current.version:
        # Sidecars take some of their time to answer: nobody makes them do it again and again.
        reach = await reach_of(visit.context.collector, has_settings(current.version), monotonic=time.monotonic)
    return await _page(visit, reach=reach)


async def change(visit: Visit) -> Response:
    """Do what the button says: ask the issuer, show what would change, or save it."""
    wanted = _wanted(visit.form)
    match visit.form.text("do"):
        case "test":
            return await _try_out(visit, wanted)
        case "save":
            return await _save(visit, wanted)
        case _:
            return await _review(visit, wanted)


async def go_back(visit: Visit) -> Response:
    """Save an earlier version once more."""
    context = visit.context
    if not visit.is_recent:
        return await _page(visit, errors={"actor": RECENT_NEEDED}, status=422)
    version, expected = _number(visit.form.text("version")), _number(visit.form.text("expected"))
    saved = await context.run(
        oauth_settings.go_back,
        context.administration(),
        context.configuration(),
        visit.actor,
        version,
        context.now(),
        expected=expected,
    )
    if isinstance(saved, Refused):
        return await _page(visit, errors=by_field(saved.refusals), status=422)
    return RedirectResponse(f"{PATH}?saved={saved.version}", 303)


async def _review(visit: Visit, wanted: Values) -> Response:
    """Show what would change, before it does."""
    context, current = visit.context, await _current(visit)
    checked = await context.run(oauth_settings.check, context.configuration(), visit.actor, wanted, version=current.version)
    if isinstance(checked, Refused):
        return await _page(visit, draft=wanted, errors=by_field(checked.refusals), status=422)
    before = current.providers[0] if current.providers else {}
    changes = oauth_settings.difference(before, checked.values)
    return await _page(visit, draft=checked.values, changes=changes, is_checked=True, warnings=checked.warnings)


async def _save(visit: Visit, wanted: Values) -> Response:
    context = visit.context
    if not visit.is_recent:
        return await _page(visit, draft=wanted, errors={"actor": RECENT_NEEDED}, status=422)
    saved = await context.run(
        oauth_settings.save,
        context.administration(),
        context.configuration(),
        visit.actor,
        wanted,
        context.now(),
        expected=_number(visit.form.text("expected")),
    )
    if isinstance(saved, Refused):
        return await _page(visit, draft=wanted, errors=by_field(saved.refusals), status=422)
    return RedirectResponse(f"{PATH}?saved={saved.version}", 303)


async def _try_out(visit: Visit, wanted: Values) -> Response:
    if not visit.is_recent:
        return await _page(visit, draft=wanted, errors={"actor": RECENT_NEEDED}, status=422)
    findings = await oauth_trial.try_out(
        visit.context.configuration(), visit.actor, wanted, clock=SystemClock(), environment=os.environ
    )
    if isinstance(findings, Refused):
        return await _page(visit, draft=wanted, errors=by_field(findings.refusals), status=422)
    return await _page(visit, draft=wanted, findings=findings)


async def _current(visit: Visit) -> CurrentSettings:
    context = visit.context
    current = await context.run(oauth_settings.current, context.administration(), context.configuration(), visit.actor)
    if isinstance(current, Refused):
        raise PermissionError(current.refusals[0].message)
    return current


async def _page(
    visit: Visit, *, draft: Values | None = None, errors: Mapping[str, str] | None = None, status: int = 200, **more: Any
) -> Response:
    context, current = visit.context, await _current(visit)
    versions = await context.run(oauth_settings.history, context.administration(), visit.actor, limit=20)
    can_change = current.is_managed and may(visit.actor, Operation.SETTINGS)
    shown = draft if draft is not None else (current.providers[0] if current.providers else {})
    return visit.page(
        "settings.html",
        status=status,
        **{"changes": None, "findings": None, "is_checked": False, "warnings": (), "reach": None, **more},
        live=live_version(context.collector.sidecars, current.version),
        current=current,
        draft=_as_texts(shown, is_enabled=bool(shown.get("enabled", current.enabled))),
        errors=errors or {},
        versions=[] if isinstance(versions, Refused) else _with_changes(versions),
        can_change=can_change,
        labels=LABELS,
        hints=HINTS,
        lists=LIST_FIELDS,
        providers={name: rows[0].title for name, rows in PROVIDERS.items()},
        written=written,
    )


def _with_changes(versions: tuple[oauth_settings.SavedVersion, ...]) -> list[dict[str, Any]]:
    """Return each version with what it changed of the one before it."""
    pairs = zip_longest(versions, versions[1:])
    return [
        {"saved": version, "changes": oauth_settings.difference(before.values if before else {}, version.values)}
        for version, before in pairs
    ]


def _wanted(form: Form) -> dict[str, object]:
    """Return what was filled in; a list is one text with commas, as the form of the API has it."""
    wanted: dict[str, object] = {name: form.text(name) for name in ("provider", "issuer", *LIST_FIELDS) if form.text(name)}
    return wanted | {"enabled": form.text("enabled") == "yes"}


def _as_texts(values: Values, *, is_enabled: bool) -> dict[str, Any]:
    return {name: written(values.get(name)) for name in LABELS if name != "enabled"} | {"enabled": is_enabled}


def written(value: object) -> str:
    """Write one of the settings for people."""
    match value:
        case None:
            return ""
        case bool():
            return "on" if value else "off"
        case list() | tuple() | set() | frozenset():
            return ", ".join(map(str, value))
        case _:
            return str(value)


def _number(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 12 else -1
