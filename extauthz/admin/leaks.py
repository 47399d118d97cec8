"""Leaked tokens, which stood where none should be: they are revoked without asking, and none is repeated."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from extauthz.admin.administration import Administration
from extauthz.admin.outcomes import Refusal
from extauthz.admin.rights import Actor, Operation, refusal
from extauthz.core import tokens
from extauthz.core.model import Reason
from extauthz.core.tokens import TokenText, parse


class LeakOutcome(StrEnum):
    """What became of a leaked token."""

    REVOKED = "revoked"
    REVOKED_BEFORE = "revoked before"
    REFUSED = "refused"
    NO_TOKEN = "wrong checksum: not a token"
    UNKNOWN = "unknown to this store"
    WRONG_SECRET = "wrong secret: not this token"


@dataclass(frozen=True, slots=True)
class Leak:
    """The public id of a leaked token, what became of it, and why the actor may not revoke it where it was REFUSED."""

    id: str
    outcome: LeakOutcome
    refusal: Refusal | None = None


def end_leaked(administration: Administration, actor: Actor, texts: Sequence[str], at: int, *, why: str) -> list[Leak]:
    """Revoke those of these texts whose secret is right, in one change; one that is expired by now is right all the same."""
    peppers = administration.unlocked(at)
    leaks: dict[str, Leak] = {}
    ours: dict[str, str] = {}
    for text in texts:
        token = parse(text, administration.prefixes)
        record = administration.store.get(token.id) if isinstance(token, TokenText) else None
        token_id = text.split("_")[1]
        if not isinstance(token, TokenText):
            leaks[text] = Leak(token_id, LeakOutcome.NO_TOKEN)
        elif record is None:
            leaks[text] = Leak(token_id, LeakOutcome.UNKNOWN)
        elif tokens.verify(token, record, peppers, at) is Reason.TOKEN_SECRET_WRONG:
            leaks[text] = Leak(token_id, LeakOutcome.WRONG_SECRET)
        elif refused := refusal(actor, Operation.REVOKE, record.permission):
            leaks[text] = Leak(token_id, LeakOutcome.REFUSED, refused)
        else:
            ours[text] = token_id
    revoked = set(administration.store.revoke(ours.values(), why, actor.change(at))) if ours else set()
    for text, token_id in ours.items():
        leaks[text] = Leak(token_id, LeakOutcome.REVOKED if token_id in revoked else LeakOutcome.REVOKED_BEFORE)
    return [leaks[text] for text in texts]
