"""Which issued tokens a request would pass with that lacks a scope."""

from __future__ import annotations

from extauthz.adapters.store.records import TokenFilter
from extauthz.adapters.store.sql import SqlTokenStore
from extauthz.config.vocabulary import in_upper_case
from extauthz.config.wording import counted
from extauthz.core.routes import Route

MOST = 1_000
"""Tokens that are looked at for each scope."""
SHOWN = 5
"""Ids that are named."""


def holders(store: SqlTokenStore, route: Route, now: float) -> str | None:
    """Say which active tokens have what a route asks for, and are of a kind that it accepts; None where there are none.

    Raises StoreError.
    """
    ids: dict[str, None] = {}
    for scope in route.scopes if route.any_scope else route.scopes[:1]:
        filters = TokenFilter(scope=scope, kept_scope=in_upper_case(scope), active_at=int(now))
        for token in store.page(filters, limit=MOST):
            held = frozenset({*token.scopes, *(one for one in route.scopes if in_upper_case(one) in token.scopes)})
            if token.permission in route.accept and route.permits(held):
                ids[token.id] = None
    if not ids:
        return None
    shown = ", ".join([*ids][:SHOWN]) + (", …" if len(ids) > SHOWN else "")
    have = "the token that has it" if len(ids) == 1 else f"one of the {counted(len(ids), 'token')} that have it"
    return f"use {have}: {shown} (extauthz token show ID)"
