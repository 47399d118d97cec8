"""The pages of admin keys, which programs use the API with: what there is, and the end of one."""

from __future__ import annotations

from typing import Any

from starlette.responses import RedirectResponse, Response

from extauthz.adapters.store.admin_keys import AdminKeyRecord
from extauthz.admin import keys
from extauthz.admin.keys import KeyStatus, acting_role, status_of
from extauthz.admin.outcomes import Refused
from extauthz.config.settings import RolesSection
from extauthz.console.token_forms import SOON
from extauthz.console.visits import Visit, message_page

PATH = "/keys"


async def list_page(visit: Visit) -> Response:
    """Show the keys that are neither revoked nor expired, with `all=1` the others too."""
    context, everything = visit.context, visit.query.get("all") == "1"
    administration, at = context.administration(), context.now()
    listed = await context.run(keys.list_keys, administration, visit.actor, at, everything=everything, limit=keys.MAX_SHOWN)
    if isinstance(listed, Refused):
        return message_page("Not for you", listed.refusals[0].message, 403)
    rows = [_row(record, at, _roles(visit)) for record in listed]
    return visit.page("keys.html", rows=rows, everything=everything, most=keys.MAX_SHOWN)


async def revoke_form(visit: Visit) -> Response:
    """Ask whether the key shall end."""
    record = await visit.context.run(keys.show, visit.context.administration(), visit.actor, visit.request.path_params["key_id"])
    if isinstance(record, Refused):
        return _refused(record)
    return visit.page("key_revoke.html", **_row(record, visit.context.now(), _roles(visit)))


async def revoke(visit: Visit) -> Response:
    """End the key for good."""
    context, key_id = visit.context, visit.request.path_params["key_id"]
    ended = await context.run(keys.revoke, context.administration(), visit.actor, key_id, context.now())
    return _refused(ended) if isinstance(ended, Refused) else RedirectResponse(PATH, 303)


def _row(record: AdminKeyRecord, at: int, roles: RolesSection) -> dict[str, Any]:
    status, acts_as = status_of(record, at, roles), acting_role(record, roles)
    return {
        "key": record,
        "state": status.value,
        "acts_as": acts_as,
        "has_ended": status in (KeyStatus.EXPIRED, KeyStatus.REVOKED),
        "is_lower": status is KeyStatus.ACTIVE and acts_as != record.role,
        "ends_soon": status is KeyStatus.ACTIVE and record.expires_at - at <= SOON,
    }


def _roles(visit: Visit) -> RolesSection:
    return visit.context.configuration().settings.roles


def _refused(outcome: Refused) -> Response:
    if outcome.refusals[0].field == "id":
        return message_page("No such key", "No admin key has this id.", 404, link=PATH, label="Go to the admin keys")
    return message_page("Not for you", outcome.refusals[0].message, 403)
