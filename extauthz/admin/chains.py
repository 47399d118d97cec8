"""Rotations: which tokens a token follows, and which follow it."""

from __future__ import annotations

from extauthz.adapters.store.records import StoredToken
from extauthz.admin.administration import Administration
from extauthz.admin.outcomes import Refused
from extauthz.admin.rights import Actor, Operation, forbidden

MAX_LINKS = 20
"""Tokens before, and behind, that are looked for."""


def chain(administration: Administration, actor: Actor, token: StoredToken) -> tuple[StoredToken, ...] | Refused:
    """Return the tokens of a row of rotations, the oldest first, with this one among them."""
    if refused := forbidden(actor, Operation.READ):
        return refused
    links = [token]
    while (before := links[0].rotated_from) is not None and len(links) <= MAX_LINKS:
        earlier = administration.store.get(before)
        if earlier is None:
            break
        links.insert(0, earlier)
    while (after := links[-1].rotated_to) is not None and len(links) <= 2 * MAX_LINKS:
        later = administration.store.get(after)
        if later is None:
            break
        links.append(later)
    return tuple(links)
