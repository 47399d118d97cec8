"""The page that says why: a request that somebody describes or pastes, or one that a sidecar decided, check by check.

What is pasted may hold a token. It is read in memory, and nothing of it is kept, logged, sent to anybody or shown again: the
console verifies no token, and a page shows what the explanation says, which holds none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from starlette.responses import Response

from extauthz.config.loader import Configuration
from extauthz.console.pasted_configuration import with_saved_settings
from extauthz.console.recent_denials import moment
from extauthz.console.visits import Visit
from extauthz.core.model import Identity, Reason, Request
from extauthz.errors import CallerError, CurlError, LineError
from extauthz.responses.client_headers import spelled
from extauthz.tools.callers import NOBODY, Caller, caller
from extauthz.tools.calls import Call, request_of, sent_by
from extauthz.tools.curl import read_line
from extauthz.tools.described import described
from extauthz.tools.explain import explain
from extauthz.tools.explain_model import CheckOutcome, Explanation
from extauthz.tools.log_lines import LogLine, decision_id_of
from extauthz.tools.masking import Mask, mask_of

PATH = "/explain"
METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS")
MAX_FIELD, MAX_LINE = 8192, 32_768
"""Characters of a field, and of a pasted line."""
MOST = 50
"""Kinds of denials that are listed."""
MARKS = {
    CheckOutcome.PASSED: ("✓", "passed", "allowed"),
    CheckOutcome.FAILED: ("✗", "refused", "denied"),
    CheckOutcome.UNKNOWN: ("?", "not known", "soon"),
    CheckOutcome.NOT_REACHED: ("–", "not reached", ""),
    CheckOutcome.NOT_NEEDED: ("–", "not needed", ""),
}
"""How the outcome of a check is shown, in a sign, in words, and in which colour."""
_NOT_REMEMBERED = "No sidecar remembers this decision: each keeps its latest ones since it started. The decision log may have it."
FIELDS = ("method", "path", "host", "act_as", "caller")


@dataclass(frozen=True, slots=True)
class RequestToExplain:
    """A request to explain, and what verifying its token comes to, None where nobody says; `mask` hides what it holds."""

    request: Request
    evidence: Identity | Reason | None
    mask: Mask
    notes: tuple[str, ...] = ()


class FormError(ValueError):
    """A field that cannot be read."""

    def __init__(self, field: str, message: str) -> None:
        """Say which one, and what to write."""
        super().__init__(message)
        self.field = field


async def show(visit: Visit) -> Response:
    """Show the forms and what was refused lately, or explain the decision that the address names."""
    decision_id = visit.query.get("id", "")
    if decision_id_of(decision_id):
        return await _explain_decision(visit, decision_id)
    return await _page(visit)


async def ask(visit: Visit) -> Response:
    """Explain what a form has."""
    if visit.form.text("how") == "decision":
        decision_id = visit.form.text("id").lower()
        if not decision_id_of(decision_id):
            return await _page(visit, errors={"id": "write the 32 hex digits of a decision id"}, status=422)
        return await _explain_decision(visit, decision_id)
    context = visit.context
    try:
        configuration = await _counting(visit)
        asked = _pasted(visit, configuration) if visit.form.text("how") == "curl" else _described(visit, configuration)
    except FormError as error:
        return await _page(visit, errors={error.field: str(error)}, draft=_shown(visit, Mask()), status=422)
    found = await context.run(partial(explain, mask=asked.mask), configuration, asked.request, asked.evidence, context.clock())
    found = replace(found, notes=(*found.notes, *map(asked.mask, asked.notes)))
    return await _page(visit, found=found, draft=_shown(visit, asked.mask))


async def _counting(visit: Visit) -> Configuration:
    context = visit.context
    return await context.run(with_saved_settings, context.configuration(), context.administration(), visit.actor)


async def _explain_decision(visit: Visit, decision_id: str) -> Response:
    """Explain what a sidecar decided, by the configuration that counts now."""
    context = visit.context
    looked_up = await context.denials.find(decision_id)
    if looked_up.line is None:
        return await _page(visit, errors={"record": _NOT_REMEMBERED}, status=404)
    configuration, line = await _counting(visit), looked_up.line
    try:
        logged = described(configuration, line)
    except LineError as error:
        return await _page(visit, line=line, errors={"record": f"It cannot be explained: {error}."}, status=422)
    found = await context.run(explain, configuration, logged.request, logged.evidence, context.clock())
    return await _page(visit, found=replace(found, notes=(*found.notes, *logged.notes)), line=line)


def _described(visit: Visit, configuration: Configuration) -> RequestToExplain:
    """Read the form that describes a request; raises FormError."""
    values = {name: visit.form.text(name) for name in FIELDS}
    for name, value in values.items():
        if len(value) > MAX_FIELD:
            raise FormError(name, f"at most {MAX_FIELD:,} characters are read")
    if not values["path"]:
        raise FormError("path", "write a path, like /search")
    who = _caller(values["caller"], configuration, "caller")
    headers = {configuration.policy.act_as.headers[0]: values["act_as"]} if values["act_as"] else {}
    call = Call(values["method"] or "GET", values["path"], values["host"], headers, who)
    request = request_of(configuration.policy, call)
    return RequestToExplain(request, who.evidence, mask_of(headers, values["path"]))


def _pasted(visit: Visit, configuration: Configuration) -> RequestToExplain:
    """Read the form with a curl line; raises FormError."""
    text = visit.form.text("curl")
    if not text:
        raise FormError("curl", "paste a line, like curl https://api.acme.com/search")
    if len(text) > MAX_LINE:
        raise FormError("curl", f"at most {MAX_LINE:,} characters are read")
    who = _caller(visit.form.text("caller"), configuration, "holder")
    try:
        line = read_line(text)
    except CurlError as error:
        raise FormError("curl", Mask()(str(error))) from error
    request = line.request
    mask = mask_of(request.headers, request.path, line.secrets)
    if who.kind is not None:
        # Whoever is described stands in place of the token, which nobody verifies.
        request = sent_by(configuration.policy, request, who)
    return RequestToExplain(request, who.evidence, mask, line.notes)


def _caller(text: str, configuration: Configuration, field: str) -> Caller:
    if not text:
        return NOBODY
    if len(text) > MAX_FIELD:
        raise FormError(field, f"at most {MAX_FIELD:,} characters are read")
    try:
        return caller(text, configuration.settings.scopes, configuration.providers)
    except CallerError as error:
        raise FormError(field, Mask()(str(error))) from error


def _shown(visit: Visit, mask: Mask) -> dict[str, str]:
    """Return the fields of the form as they may be shown again; a pasted line may not."""
    if visit.form.text("how") == "curl":
        return {"holder": mask(visit.form.text("caller"))}
    return {name: mask(visit.form.text(name)) for name in FIELDS}


async def _page(
    visit: Visit,
    *,
    found: Explanation | None = None,
    line: LogLine | None = None,
    errors: Mapping[str, str] | None = None,
    draft: Mapping[str, str] | None = None,
    status: int = 200,
) -> Response:
    context = visit.context
    configuration = context.configuration()
    folder = f"{configuration.file.parent}/"
    denials = await context.denials.newest()
    return visit.page(
        "explain.html",
        status=status,
        found=found,
        record=_row(line) if line else None,
        errors=errors or {},
        draft=dict.fromkeys((*FIELDS, "holder"), "") | dict(draft or {}),
        methods=METHODS,
        marks=MARKS,
        denials=_rows(denials.lines)[:MOST],
        silent=denials.errors,
        sidecars=denials.sidecars,
        act_as=spelled(configuration.policy.act_as.headers[0], configuration.settings.header_names),
        held=f"scopes={','.join(configuration.settings.scopes[:2])}",
        place=lambda text: text.replace(folder, ""),
    )


def _rows(lines: Sequence[LogLine]) -> list[tuple[dict[str, Any], int]]:
    """Return the newest of the decisions that say the same but for their time, and how many there are."""
    alike: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for row in map(_row, lines):
        key = tuple(row[name] for name in ("decision", "reason", "request", "route", "who"))
        alike.setdefault(key, []).append(row)
    return [(rows[0], len(rows)) for rows in alike.values()]


def _row(line: LogLine) -> dict[str, Any]:
    """Return what a page shows of a decision: texts alone, without what may be a token."""
    mask = Mask()

    def shown(text: str | None) -> str:
        return mask(text or "")[:200]

    return {
        "id": line.decision_id if line.decision_id and decision_id_of(line.decision_id) else "",
        "at": int(moment(line)),
        "decision": line.outcome,
        "reason": shown(line.reason_name),
        "request": f"{shown(line.method)} {shown(line.path)}".strip(),
        "route": shown(line.route),
        "who": shown(line.user) or shown(line.actor),
    }
