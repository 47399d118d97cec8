"""The route map as it was loaded: what opens what."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from extauthz.admin.route_map import RouteEntry
from extauthz.console.api.operations import ApiAnswer, ApiOperation, ApiRequest
from extauthz.console.api.problems import ApiProblem
from extauthz.console.api.values import AnswerModel, BodyModel, Printable


class RouteQuery(BodyModel):
    """Which routes to list."""

    text: Annotated[
        Printable, Field(description="Words that a route has somewhere, or the path of a request, with its method before it.")
    ] = ""


class RouteAnswer(AnswerModel):
    """A route, and where it stands; `hosts` are empty for one that serves every host that no file names."""

    name: str
    match: str
    rule: Literal["public", "deny", "scopes"]
    scopes: list[str]
    any_scope: bool
    accept: list[str]
    hosts: list[str]
    preflight: bool
    is_monitored: bool
    place: str


class RouteList(AnswerModel):
    """Routes, in the order of their files."""

    routes: list[RouteAnswer]


def list_routes(request: ApiRequest) -> ApiAnswer | ApiProblem:
    """Return the routes that a text finds."""
    entries = request.route_map.search(request.query.text)
    return ApiAnswer(RouteList(routes=[_shown(entry) for entry in entries]))


def _shown(entry: RouteEntry) -> RouteAnswer:
    route = entry.route
    return RouteAnswer(
        name=route.name,
        match=route.match.text,
        rule="public" if route.public else "deny" if route.deny else "scopes",
        scopes=list(route.scopes),
        any_scope=route.any_scope,
        accept=sorted(route.accept),
        hosts=list(entry.hosts),
        preflight=route.preflight,
        is_monitored=entry.is_monitored,
        place=entry.place,
    )


OPERATIONS = (
    ApiOperation(
        "listRoutes", "GET", "/routes", "List the routes, and which scopes open them", list_routes, RouteList, query=RouteQuery
    ),
)
