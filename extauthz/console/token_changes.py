"""The pages that make, rotate and revoke tokens. A secret is in the answer to the form that made it, and nowhere else."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import suppress

from starlette.responses import Response

from extauthz.admin import revocation, tokens
from extauthz.admin.outcomes import Refusal, Refused
from extauthz.admin.rights import Operation, refusal
from extauthz.admin.times import length
from extauthz.admin.token_requests import check
from extauthz.admin.tokens import NewToken, Repeated
from extauthz.console import token_pages
from extauthz.console.reach import has_read, reach_of
from extauthz.console.token_form_values import form_values, needs_login
from extauthz.console.token_forms import TokenDraft, by_field
from extauthz.console.visits import Visit, message_page
from extauthz.errors import StoreError
from extauthz.responses.client_headers import ClientHeaders

OVERLAPS = {"0": "Ends now", "1": "1 hour", "24": "24 hours", "72": "3 days", "168": "7 days"}
"""Hours that a rotated token stays good."""
DEFAULT_OVERLAP = "24"
LOG_IN_AGAIN = "log in again first: a GLOBAL token acts for anybody, so a login of the last ten minutes is needed"


async def new(visit: Visit) -> Response:
    """Show the form of a new token, filled with what another one has where the address names one."""
    draft = TokenDraft()
    if like := visit.query.get("like"):
        token = await visit.context.run(tokens.show, visit.context.administration(), visit.actor, like)
        draft = draft if isinstance(token, Refused) else TokenDraft.like(token)
    return _form(visit, draft, {})


async def create(visit: Visit) -> Response:
    """Make a token and show its secret, or show the form again with what is wrong."""
    draft, at = TokenDraft.of(visit.form), visit.context.now()
    request, wrong = draft.request(visit.actor.name, at)
    administration = visit.context.administration()
    if wrong or needs_login(visit, request.permission):
        refused = check(request, administration.rules, visit.actor)
        fields = {item.field for item in wrong}
        wrong += [item for item in refused if item.field not in fields]
        if needs_login(visit, request.permission):
            wrong.append(Refusal("permission", LOG_IN_AGAIN))
        return _form(visit, draft, by_field(wrong), status=422)
    made = await visit.context.run(
        tokens.create, administration, visit.actor, [request], at, idempotency_key=visit.form.text("once")
    )
    match made:
        case Refused(refusals):
            return _form(visit, draft, by_field(refusals), status=422)
        case Repeated(token_id):
            return _sent_already(token_id)
        case _:
            return _secret(visit, made[0], f"Token {made[0].record.id} is made")


async def rotate_form(visit: Visit) -> Response:
    """Ask how long the old token stays good."""
    token = await token_pages.token_of_path(visit)
    if isinstance(token, Response):
        return token
    wrong = refusal(visit.actor, Operation.ROTATE, token.permission)
    return _rotate_form(visit, token, {wrong.field: wrong.message} if wrong else {}, status=403 if wrong else 200)


async def rotate(visit: Visit) -> Response:
    """Make the successor and show its secret."""
    token = await token_pages.token_of_path(visit)
    if isinstance(token, Response):
        return token
    if needs_login(visit, token.permission):
        return _rotate_form(visit, token, {"permission": LOG_IN_AGAIN}, status=422)
    try:
        overlap = length(f"{visit.form.text('overlap') or DEFAULT_OVERLAP}h")
    except ValueError as error:
        return _rotate_form(visit, token, {"overlap": str(error)}, status=422)
    rotated = await visit.context.run(
        tokens.rotate, visit.context.administration(), visit.actor, token.id, visit.context.now(), overlap=overlap
    )
    if isinstance(rotated, Refused):
        return _rotate_form(visit, token, by_field(rotated.refusals), status=422)
    return _secret(visit, rotated.new, f"Token {rotated.new.record.id} follows {token.id}", old=rotated.old)


async def revoke_form(visit: Visit) -> Response:
    """Ask for the reason, and whether the tokens before and after it end too."""
    token = await token_pages.token_of_path(visit)
    if isinstance(token, Response):
        return token
    return visit.page("revoke.html", **token_pages.row(token, visit.context.now()), errors={}, why="")


async def revoke(visit: Visit) -> Response:
    """End the token for good."""
    token = await token_pages.token_of_path(visit)
    if isinstance(token, Response):
        return token
    why = visit.form.text("why")
    administration, at = visit.context.administration(), visit.context.now()
    ended = await visit.context.run(
        revocation.revoke,
        administration,
        visit.actor,
        [token.id],
        at,
        why=why or None,
        linked=bool(visit.form.text("linked")),
    )
    if isinstance(ended, Refused):
        shown = token_pages.row(token, at)
        return visit.page("revoke.html", status=422, **shown, errors=by_field(ended.refusals), why=why)
    reach = None
    with suppress(StoreError):
        # The revocation stands, whatever can be told of it.
        row, _ = await visit.context.run(administration.store.audit_head)
        reach = await reach_of(visit.context.collector, has_read(row), monotonic=time.monotonic)
    return visit.page("revoked.html", **token_pages.row(token, at), ended=ended, reach=reach)


def _form(visit: Visit, draft: TokenDraft, errors: Mapping[str, str], *, status: int = 200) -> Response:
    return visit.page("token_new.html", status=status, **form_values(visit, draft, errors))


def _rotate_form(visit: Visit, token: object, errors: Mapping[str, str], *, status: int = 200) -> Response:
    overlaps = [(hours, label, visit.context.now() + int(hours) * 3600) for hours, label in OVERLAPS.items()]
    shown = token_pages.row(token, visit.context.now())  # type: ignore[arg-type]
    chosen = visit.form.text("overlap") or DEFAULT_OVERLAP
    return visit.page("rotate.html", status=status, **shown, errors=errors, overlaps=overlaps, chosen=chosen)


def _secret(visit: Visit, new: NewToken, title: str, *, old: object = None) -> Response:
    routes = visit.context.route_map().opened_by(new.record.scopes, new.record.permission)
    configuration = visit.context.configuration()
    settings = configuration.settings
    act_as = ClientHeaders.of(configuration.policy, settings.auth_type.oauth, settings.header_names).act_as
    return visit.page("secret.html", status=201, new=new, title=title, old=old, example=next(iter(routes), None), act_as=act_as)


def _sent_already(token_id: str) -> Response:
    text = (
        f"This form was sent already, and made token {token_id}. Its secret was shown once, with that answer. "
        "If it was not saved, revoke the token and make another."
    )
    return message_page("Sent already", text, 409, link=f"/tokens/{token_id}", label="Show the token")
