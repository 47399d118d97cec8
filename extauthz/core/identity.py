"""Which headers an allowed request gains and loses on its way to the upstream.

Whatever name the upstream could take for ours is overwritten or removed on every allow, public routes included. No name is ever in
both lists: in Envoy, removal wins.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache

from extauthz.core.act_as import ACT_AS_HEADERS
from extauthz.core.credentials import AUTH_TYPE, AUTHORIZATION
from extauthz.core.model import DECISION_ID, AuthType, HeaderEdits, Identity, Reason, Request

OVERRIDE_HEADERS = (
    *("x-original-url", "x-rewrite-url", "x-http-method", "x-http-method-override", "x-method-override"),
    *("script-name", "x-script-name", "path-info"),
)
"""Other names of the method and the path; some servers take a prefix of the path away that the client names."""
FORWARDED_HOST_HEADERS = ("x-forwarded-host", "forwarded")
"""Other names of the host."""
FIELDS = ("user", "actor", "auth-type", "scopes", "client-id", "decision-id", "decision", "token")
WOULD_DENY = "would-deny"
MAX_VALUE = 512
MAX_MEMO = 1024

_PLAIN_VALUE = re.compile(r"[!-$&-~]*").fullmatch
_OTHER = re.compile(r"[^a-z0-9]")


@dataclass(frozen=True, slots=True, eq=False)
class IdentityHeaders:
    """Names of the identity headers, and which credential headers stay; all in lower case, `prefix` ends with "-".

    `names` are those of FIELDS, `always_listed` the names that every allow sets, removes, or keeps by configuration. `overrides`
    would make an upstream see another request than the one that was decided.
    """

    prefix: str = "x-extauthz-"
    keep: frozenset[str] = frozenset()
    act_as: tuple[str, ...] = ACT_AS_HEADERS
    overrides: tuple[str, ...] = OVERRIDE_HEADERS
    names: Mapping[str, str] = field(init=False, repr=False)
    always_listed: tuple[str, ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Write the names out once."""
        names = {part: self.prefix + part for part in FIELDS}
        object.__setattr__(self, "names", names)
        object.__setattr__(self, "always_listed", (*names.values(), AUTHORIZATION, AUTH_TYPE, *self.act_as))

    def owns(self, name: str) -> bool:
        """Tell whether an upstream could read this received name as one of ours, or as an override of the request."""
        plain = _OTHER.sub("-", name.lower())
        return plain.startswith(self.prefix) or plain in (AUTH_TYPE, *self.act_as, *self.overrides)


def edits(rules: IdentityHeaders, request: Request, identity: Identity | None, user: str | None) -> HeaderEdits | Reason:
    """Return the edits of an allowed request (`identity` None: a public route), or IDENTITY_TOO_LONG."""
    received = "\n".join(request.headers)  # a character of no name that HTTP knows
    if len(received) > MAX_MEMO:
        return _edits(rules, identity, user, received)
    return _remembered_edits(rules, identity, user, received)


def _edits(rules: IdentityHeaders, identity: Identity | None, user: str | None, received: str) -> HeaderEdits | Reason:
    names = rules.names
    values = {names["decision-id"]: DECISION_ID}
    if identity is not None:
        values[names["actor"]] = identity.actor
        values[names["auth-type"]] = identity.auth_type.value
        values[names["scopes"]] = ",".join(sorted(identity.scopes))
        if user is not None:
            values[names["user"]] = user
        if identity.client_id is not None:
            values[names["client-id"]] = identity.client_id
        if identity.auth_type is AuthType.GLOBAL and user is not None:
            values |= {name: user for name in rules.act_as if name in rules.keep}
    pairs = tuple((name, encoded(value)) for name, value in values.items())
    if any(len(value) > MAX_VALUE for _, value in pairs):
        return Reason.IDENTITY_TOO_LONG
    stays = {*values, *(rules.keep - set(rules.act_as))}
    ours = (name for name in received.split("\n") if rules.owns(name))
    remove = dict.fromkeys(name for name in (*rules.always_listed, *ours) if name not in stays)
    return HeaderEdits(pairs, tuple(remove))


# Clients choose names: what is remembered of them is bounded in number and, by MAX_MEMO, in size.
_remembered_edits = lru_cache(maxsize=4096)(_edits)


def monitored_edits(rules: IdentityHeaders, changes: HeaderEdits, *, refused: bool) -> HeaderEdits:
    """Return the edits of a request in monitor mode: its credential headers stay as they came.

    `changes` are those of its allow, or, when it is `refused`, those of a public route: then nobody is named.
    """
    is_long = sum(map(len, changes.remove)) > MAX_MEMO
    return (_monitored if is_long else _remembered_monitored)(rules, changes, refused)


def _monitored(rules: IdentityHeaders, changes: HeaderEdits, refused: bool) -> HeaderEdits:
    credentials = {AUTHORIZATION, AUTH_TYPE, *rules.act_as}
    pairs = ((rules.names["decision"], WOULD_DENY),) if refused else changes.set
    pairs = tuple((name, value) for name, value in pairs if name not in credentials)
    stays = {*credentials, *(name for name, _ in pairs)}
    ours = (*(name for name, _ in changes.set), *changes.remove)
    return HeaderEdits(pairs, tuple(name for name in ours if name not in stays))


_remembered_monitored = lru_cache(maxsize=4096)(_monitored)


def encoded(value: str) -> str:
    """Percent-encode every byte outside 0x21-0x7E, and "%" itself."""
    if _PLAIN_VALUE(value):
        return value
    return "".join(chr(byte) if 0x21 <= byte <= 0x7E and byte != 0x25 else f"%{byte:02X}" for byte in value.encode("utf-8"))
