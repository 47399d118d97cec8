"""All operations of the API: endpoints, document, page and tests are made of these rows."""

from __future__ import annotations

from extauthz.console.api import activity, audit, keys, routes, sessions, settings, tokens
from extauthz.console.api.operations import ApiOperation

OPERATIONS: tuple[ApiOperation, ...] = (
    *tokens.OPERATIONS,
    *settings.OPERATIONS,
    *routes.OPERATIONS,
    *activity.OPERATIONS,
    *audit.OPERATIONS,
    *sessions.OPERATIONS,
    *keys.OPERATIONS,
)
