"""What the form of a new token shows: as a page, and as a dialog over the list."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Any

from extauthz.admin.rights import PERMISSIONS, Operation, may, refusal
from extauthz.admin.scope_meanings import meaning
from extauthz.console.token_forms import DAY, PRESETS, TokenDraft
from extauthz.console.visits import Visit
from extauthz.core.model import AuthType


def needs_login(visit: Visit, permission: AuthType) -> bool:
    """Tell whether the visitor may make tokens of this permission, but only after another login."""
    return permission is AuthType.GLOBAL and may(visit.actor, Operation.CREATE, permission) and not visit.is_recent


def form_values(visit: Visit, draft: TokenDraft, errors: Mapping[str, str]) -> dict[str, Any]:
    """Return what the form shows of a draft, and what is wrong with it."""
    at, settings = visit.context.now(), visit.context.configuration().settings
    longest = int(visit.context.administration().rules.max_lifetime)
    permission = draft.permission if draft.permission in PERMISSIONS else AuthType.ANONYMOUS
    global_refusal = refusal(visit.actor, Operation.CREATE, AuthType.GLOBAL)
    return {
        "draft": draft,
        "errors": errors,
        "choices": [
            {"name": name, "meaning": meaning(name), "is_chosen": name in draft.scopes} for name in sorted(settings.scopes)
        ],
        "presets": [(days, at + days * DAY) for days in PRESETS if days * DAY <= longest],
        "longest_days": longest // DAY,
        "latest_day": at + longest,
        "global_refusal": global_refusal.message if global_refusal else "",
        "needs_login": needs_login(visit, AuthType.GLOBAL),
        "super_admins": settings.roles.super_admins,
        "may_create": may(visit.actor, Operation.CREATE),
        "routes": visit.context.route_map().opened_by(draft.scopes, AuthType(permission)),
        "once": secrets.token_hex(16),
    }
