"""Which headers an allowed request gains and loses on its way to the upstream.

Whatever name the upstream could take for ours is overwritten or removed on every allow, public routes included. No name is ever in
both lists: in Envoy, removal wins.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from extauthz.core.act_as import ACT_AS_HEADERS
from extauthz.core.credentials import AUTH_TYPE, AUTHORIZATION
from extauthz.core.model import DECISION_ID, AuthType, HeaderEdits, Identity, Reason

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

_PLAIN_VALUE = re.compile(r"[!-$&-~]*").fullmatch
_OTHER = re.compile(r"[^a-z0-9]")


@dataclass(frozen=True, slots=True, eq=False)
class IdentityHeaders:
    """Names of the identity headers, and which credential headers stay; all in lower case, `prefix` ends with "-".

    `names` are those of FIELDS, `credentials` those that clients send tokens and users with; without an `auth_type` no header tells
    the kind of a token. `always_listed` are the names that every allow sets, removes, or keeps by configuration: among them default
    names that are replaced, which an upstream may know. `overrides` would make it see another request than was decided.
    """

    prefix: str = "x-extauthz-"
    keep: frozenset[str] = frozenset()
    act_as: tuple[str, ...] = ACT_AS_HEADERS
    overrides: tuple[str, ...] = OVERRIDE_HEADERS
    auth_type: str = AUTH_TYPE
    names: Mapping[str, str] = field(init=False, repr=False)
    credentials: tuple[str, ...] = field(init=False, repr=False)
    always_listed: tuple[str, ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Write the names out once."""
        names = {part: self.prefix + part for part in FIELDS}
        object.__setattr__(self, "names", names)
        object.__setattr__(self, "credentials", (AUTHORIZATION, *filter(None, [self.auth_type]), *self.act_as))
        listed = dict.fromkeys((*names.values(), *self.credentials, AUTH_TYPE, *ACT_AS_HEADERS))
        object.__setattr__(self, "always_listed", tuple(listed))

    def owns(self, name: str) -> bool:
        """Tell whether an upstream could read this received name as one of ours, or as an override of the request."""
        plain = _OTHER.sub("-", name.lower())
        return plain.startswith(self.prefix) or (plain in (*self.always_listed, *self.overrides) and plain != AUTHORIZATION)

    def edits(self, received: Iterable[str], identity: Identity | None, user: str | None) -> HeaderEdits | Reason:
        """Return the edits of an allowed request with these names (`identity` None: a public route), or IDENTITY_TOO_LONG."""
        values = {self.names["decision-id"]: DECISION_ID}
        if identity is not None:
            values[self.names["actor"]] = identity.actor
            values[self.names["auth-type"]] = identity.auth_type.value
            values[self.names["scopes"]] = ",".join(sorted(identity.scopes))
            if user is not None:
                values[self.names["user"]] = user
            if identity.client_id is not None:
                values[self.names["client-id"]] = identity.client_id
            if identity.auth_type is AuthType.GLOBAL and user is not None:
                values |= {name: user for name in self.act_as if name in self.keep}
        pairs = tuple((name, encoded(value)) for name, value in values.items())
        if any(len(value) > MAX_VALUE for _, value in pairs):
            return Reason.IDENTITY_TOO_LONG
        stays = {*values, *(self.keep - set(self.act_as))}
        ours = (name for name in received if self.owns(name))
        return HeaderEdits(pairs, tuple(dict.fromkeys(name for name in (*self.always_listed, *ours) if name not in stays)))

    def monitored_edits(self, changes: HeaderEdits, *, refused: bool) -> HeaderEdits:
        """Return the edits of a request in monitor mode: its credential headers stay as they came.

        `changes` are those of its allow, or, when it is `refused`, those of a public route: then nobody is named.
        """
        pairs = ((self.names["decision"], WOULD_DENY),) if refused else changes.set
        pairs = tuple((name, value) for name, value in pairs if name not in self.credentials)
        stays = {*self.credentials, *(name for name, _ in pairs)}
        ours = (*(name for name, _ in changes.set), *changes.remove)
        return HeaderEdits(pairs, tuple(name for name in ours if name not in stays))


def encoded(value: str) -> str:
    """Percent-encode every byte outside 0x21-0x7E, and "%" itself."""
    if _PLAIN_VALUE(value):
        return value
    return "".join(chr(byte) if 0x21 <= byte <= 0x7E and byte != 0x25 else f"%{byte:02X}" for byte in value.encode("utf-8"))
