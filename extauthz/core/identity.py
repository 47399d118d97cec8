"""Which headers an allowed request gains and loses on its way to the upstream.

Whatever name the upstream could take for ours is overwritten or removed on every allow, public routes included. No name is ever in
both lists: in Envoy, removal wins.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import lru_cache

from extauthz.core.act_as import ACT_AS_HEADERS
from extauthz.core.credentials import AUTH_TYPE, AUTHORIZATION
from extauthz.core.model import AuthType, HeaderEdits, Identity, Reason, Request

OVERRIDE_HEADERS = ("x-original-url", "x-rewrite-url", "x-http-method", "x-http-method-override", "x-method-override")
FIELDS = ("user", "actor", "auth-type", "scopes", "client-id", "decision-id")
MAX_VALUE = 512
_MEMO_LIMIT = 4096

_PLAIN_VALUE = re.compile(r"[!-$&-~]*").fullmatch
_OTHER = re.compile(r"[^a-z0-9]")


@dataclass(frozen=True, slots=True)
class IdentityHeaders:
    """Names of the identity headers, and which credential headers stay. Names are lower case; `prefix` ends with "-"."""

    prefix: str = "x-extauthz-"
    keep: frozenset[str] = frozenset()
    act_as: tuple[str, ...] = ACT_AS_HEADERS
    # Headers are named by the client: the memo of their readings is bounded, and emptied when full.
    _owned: dict[str, bool] = field(default_factory=dict, compare=False, repr=False)

    def name(self, identity_field: str) -> str:
        """Return the header name of one of FIELDS."""
        return self.prefix + identity_field

    @property
    def always_listed(self) -> tuple[str, ...]:
        """The names that every allow sets, removes, or keeps by configuration."""
        return (*map(self.name, FIELDS), AUTHORIZATION, AUTH_TYPE, *self.act_as)

    def owns(self, name: str) -> bool:
        """Tell whether an upstream could read this received name as one of ours, or as an override of the request line."""
        known = self._owned.get(name)
        if known is None:
            if len(self._owned) >= _MEMO_LIMIT:
                self._owned.clear()
            plain = _OTHER.sub("-", name.lower())
            known = plain.startswith(self.prefix) or plain in (AUTH_TYPE, *self.act_as) or name in OVERRIDE_HEADERS
            self._owned[name] = known
        return known


def edits(rules: IdentityHeaders, request: Request, identity: Identity | None, user: str | None) -> HeaderEdits | Reason:
    """Return the edits of an allowed request (`identity` None: a public route), or IDENTITY_TOO_LONG."""
    values = {rules.prefix + "decision-id": request.decision_id}
    kept = rules.keep
    if identity is not None:
        values[rules.prefix + "actor"] = identity.actor
        values[rules.prefix + "auth-type"] = identity.auth_type.value
        values[rules.prefix + "scopes"] = _joined(identity.scopes)
        if user is not None:
            values[rules.prefix + "user"] = user
        if identity.client_id is not None:
            values[rules.prefix + "client-id"] = identity.client_id
        if kept and identity.auth_type is AuthType.GLOBAL and user is not None:
            values.update((name, user) for name in rules.act_as if name in kept)
    pairs = tuple((name, encoded(value)) for name, value in values.items())
    if any(len(value) > MAX_VALUE for _, value in pairs):
        return Reason.IDENTITY_TOO_LONG
    stays = (*values, *(name for name in kept if name not in rules.act_as)) if kept else values
    remove = [name for name in request.headers if rules.owns(name) and name not in stays]
    remove += [name for name in rules.always_listed if name not in stays and name not in remove]
    return HeaderEdits(pairs, tuple(remove))


def encoded(value: str) -> str:
    """Percent-encode every byte outside 0x21-0x7E, and "%" itself."""
    if _PLAIN_VALUE(value):
        return value
    return "".join(chr(byte) if 0x21 <= byte <= 0x7E and byte != 0x25 else f"%{byte:02X}" for byte in value.encode("utf-8"))


@lru_cache(maxsize=1024)
def _joined(scopes: frozenset[str]) -> str:
    return ",".join(sorted(scopes))
