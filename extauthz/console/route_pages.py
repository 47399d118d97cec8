"""The page of routes: the route map as loaded, and which scope opens what."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlencode

from starlette.responses import Response

from extauthz.admin.rights import PERMISSIONS
from extauthz.admin.route_map import RouteEntry, RouteMap
from extauthz.admin.scope_meanings import meaning
from extauthz.console.visits import Visit
from extauthz.core.model import AuthType

MOST = 500
"""Routes of one page; a search finds the others."""
MAX_TEXT = 200


@dataclass(frozen=True, slots=True)
class RouteListing:
    """Which routes are listed: those that have a text, and that a token with a scope opens, of a permission or of any."""

    text: str
    scope: str | None
    permission: AuthType | None

    @classmethod
    def of(cls, query: Mapping[str, str]) -> RouteListing:
        """Read the parameters of an address; what says nothing to us is left out."""
        permission = query.get("permission", "")
        scope = query.get("scope", "").strip() or None
        return cls(query.get("text", "").strip()[:MAX_TEXT], scope, AuthType(permission) if permission in PERMISSIONS else None)

    def entries(self, routes: RouteMap) -> tuple[RouteEntry, ...]:
        """Return them in the order of their files."""
        found = routes.search(self.text)
        if self.scope is None and self.permission is None:
            return found
        opened: set[RouteEntry] = set()
        for permission in PERMISSIONS if self.permission is None else (self.permission,):
            opened.update(routes.accepting(permission) if self.scope is None else routes.opened_by({self.scope}, permission))
        return tuple(entry for entry in found if entry in opened)

    @property
    def is_filtered(self) -> bool:
        """Whether anything is left out."""
        return bool(self.text or self.scope or self.permission)

    def link(self, **changes: str | None) -> str:
        """Return the address of this list with changes."""
        query = {"text": self.text, "scope": self.scope, "permission": self.permission and self.permission.value} | changes
        kept = {name: value for name, value in query.items() if value}
        return f"/routes?{urlencode(kept)}" if kept else "/routes"


async def show(visit: Visit) -> Response:
    """Show the routes that the address asks for."""
    listing, routes = RouteListing.of(visit.query), visit.context.route_map()
    entries = await visit.context.run(listing.entries, routes)
    configured = visit.context.configuration().settings.scopes
    scopes = sorted({*configured, *(name for entry in routes.entries for name in entry.route.scopes)})
    folder = f"{visit.context.configuration().file.parent}/"
    counts = {name: sum(name in entry.route.scopes for entry in routes.entries) for name in scopes}
    return visit.page(
        "routes.html",
        listing=listing,
        entries=entries[:MOST],
        more=max(0, len(entries) - MOST),
        place=lambda text: text.removeprefix(folder),
        total=len(routes.entries),
        scopes=[(name, meaning(name), counts[name]) for name in scopes],
        permissions=[permission.value for permission in PERMISSIONS],
    )
