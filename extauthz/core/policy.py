"""Everything that decides, built once from settings and never changed."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from extauthz.core.act_as import ActAs
from extauthz.core.credentials import AuthTypes, Kind
from extauthz.core.identity import IdentityHeaders
from extauthz.core.model import Reason
from extauthz.core.routes import RouteTable, compile_routes

_HOST = re.compile(r"(\[[^\]]*\]|[^:\[\]]*[^:\[\].])\.?(?::[0-9]*)?").fullmatch
_FORBIDDEN = re.compile(r"[\x00-\x20\x7f,@]").search


@dataclass(frozen=True, slots=True)
class Policy:
    """Routes, credential kinds and how they are told, act-as and identity rules.

    `hosts` maps a canonical host to the routes of the files that name it; `routes` serves every other host. `kinds` are the
    credential kinds that are switched on; `max_token_size` is in bytes. `monitored` are the names of the routes in monitor mode,
    with None for requests that match no route; it is empty where everything is enforced.
    """

    routes: RouteTable = field(default_factory=lambda: compile_routes(()))
    hosts: Mapping[str, RouteTable] = field(default_factory=dict)
    kinds: frozenset[Kind] = frozenset(Kind)
    auth_types: AuthTypes = field(default_factory=AuthTypes)
    act_as: ActAs = field(default_factory=ActAs)
    identity: IdentityHeaders = field(default_factory=IdentityHeaders)
    max_token_size: int = 16 * 1024
    monitored: frozenset[str | None] = frozenset()

    def table_for(self, host: str) -> RouteTable | Reason:
        """Return the routes of this `:authority`, or HOST_MALFORMED; without `hosts` in any file it is not read."""
        if not self.hosts:
            return self.routes
        name = canonical_host(host)
        return Reason.HOST_MALFORMED if name is None else self.hosts.get(name, self.routes)


def canonical_host(authority: str) -> str | None:
    """Return the host in lower case without port and final dot ("[v6]" kept), or None when it is not one host."""
    match = _HOST(authority)
    return match[1].lower() if match and not _FORBIDDEN(authority) else None
