"""How commands show a route."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from extauthz.admin.route_map import RouteEntry, RouteMap
    from extauthz.config.loader import Configuration


def route_map(loaded: Configuration) -> RouteMap:
    """Return the route map of a configuration."""
    from extauthz.admin.route_map import RouteMap

    return RouteMap(loaded.policy, loaded.route_places)


def opened_by(entry: RouteEntry) -> str:
    """Say in words what a route asks for."""
    route = entry.route
    if route.deny or route.public:
        words = "nobody" if route.deny else "everybody"
    else:
        several = ("any of " if route.any_scope else "all of ") if len(route.scopes) > 1 else ""
        words = several + ", ".join(route.scopes)
    return f"{words} (monitor mode)" if entry.is_monitored else words


def route_document(entry: RouteEntry) -> dict[str, Any]:
    """Return a route as the HTTP API of the console shows it."""
    route = entry.route
    return {
        "name": route.name,
        "match": route.match.text,
        "rule": "public" if route.public else "deny" if route.deny else "scopes",
        "scopes": list(route.scopes),
        "any_scope": route.any_scope,
        "accept": sorted(route.accept),
        "hosts": list(entry.hosts),
        "preflight": route.preflight,
        "is_monitored": entry.is_monitored,
        "place": entry.place,
    }
