"""A request that is sent twice, by a browser or a program that heard no answer: it makes one token, and tells its secret once."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

from extauthz.admin.outcomes import Refused
from extauthz.admin.rights import Actor
from extauthz.admin.token_requests import TokenRequest
from extauthz.core.act_as import address

if TYPE_CHECKING:
    from extauthz.adapters.store.idempotency import EarlierRequest, IdempotencyKey

FIELD = "idempotency_key"
MAX_KEY = 200
"""Characters."""


def key_of(actor: Actor, text: str, requests: Sequence[TokenRequest], at: int) -> IdempotencyKey | Refused:
    """Return what the store keeps of a key and its one request, digests alone; ValueError for several. Each actor has own keys."""
    from extauthz.adapters.store.idempotency import IdempotencyKey

    if len(requests) != 1:
        raise ValueError("an idempotency key is for one token")
    if not 1 <= len(text) <= MAX_KEY or not text.isprintable() or text.isspace():
        return Refused.because(FIELD, f"write 1 to {MAX_KEY} printable characters, others for each token")
    return IdempotencyKey(_digest(actor.name, text), _asked(requests[0], at))


def is_same(earlier: EarlierRequest, request: TokenRequest, at: int) -> bool:
    """Tell whether an earlier request asked for the same: as long a life, or an end at the same moment."""
    return earlier.request in (_asked(request, at), _asked(request, earlier.at))


def _asked(request: TokenRequest, at: int) -> bytes:
    user = address(request.user or "")
    return _digest(request.description, request.permission, sorted(request.scopes), user, request.expires_at - at)


def _digest(*parts: object) -> bytes:
    return hashlib.sha256(json.dumps(parts).encode()).digest()
