"""The route map as it was loaded: what opens what, by the steps that decide a check."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import count

from extauthz.core.act_as import ActAs
from extauthz.core.credentials import AUTHORIZATION
from extauthz.core.decide import Plan, decide, plan
from extauthz.core.model import Allow, AuthType, Deny, Identity, Request
from extauthz.core.paths import Path, parse
from extauthz.core.policy import Policy
from extauthz.core.routes import ANY_METHOD, STAR_METHODS, MethodTable, Node, Route, RouteTable
from extauthz.core.upstream import widest

_ANYBODY = re.compile(".*", re.DOTALL)
_USER = "user@host.invalid"
_NOW = 0.0
_LINE = re.compile(r"(?:([A-Z][A-Z0-9_-]*) +)?(/\S*)").fullmatch


@dataclass(frozen=True, slots=True, eq=False)
class RouteEntry:
    """A route and where it stands, as `file:line`. `hosts` are empty for one that serves every host that no file names.

    `plan` is what a check of one of its requests comes to before the token is looked at: a Plan, or an Allow where no token is
    needed; None for a route that no request with an issued token gets through. `request` is one that the route decides, with a
    placeholder as its token; None for a route that no request reaches.
    """

    route: Route
    hosts: tuple[str, ...]
    place: str
    is_monitored: bool
    plan: Plan | Allow | None
    request: Request | None

    @property
    def pattern(self) -> str:
        """The pattern of the path, as it is written."""
        return self.route.match.text.partition(" ")[2]

    @property
    def words(self) -> str:
        """Everything that a search looks at, in lower case."""
        route = self.route
        rule = "public" if route.public else "deny" if route.deny else " ".join(sorted(route.accept))
        flags = [word for word, is_set in (("monitor", self.is_monitored), ("preflight", route.preflight)) if is_set]
        return " ".join((route.match.text, route.name, *route.scopes, *self.hosts, self.place, rule, *flags)).lower()


class RouteMap:
    """All routes of a configuration, in the order of their files; it is made once for each configuration."""

    def __init__(self, policy: Policy, places: Mapping[str, str]) -> None:
        """Look at the routes of a policy; `places` are those of Configuration.route_places."""
        self._policy = policy
        # Which users may be acted for is a question of its own: here it counts whether there may be any.
        act_as = ActAs(policy.act_as.headers, policy.act_as.allow and _ANYBODY)
        self._acting = replace(policy, act_as=act_as)
        hosts_of: dict[str, tuple[Route, list[str]]] = {}
        for host, table in tables(policy):
            for route in routes_of(table):
                hosts_of.setdefault(route.name, (route, []))[1].extend(filter(None, (host,)))
        order = {name: number for number, name in enumerate(places)}
        found = sorted(hosts_of.values(), key=lambda each: order[each[0].name])
        fresh, depth = fresh_word(policy), max(map(depth_of, (table.root for _, table in tables(policy))))
        self.entries: tuple[RouteEntry, ...] = tuple(
            RouteEntry(
                route,
                tuple(hosts),
                places[route.name],
                route.name in policy.monitored,
                *_first_request(policy, route, hosts or [f"{fresh}.invalid"], fresh, depth),
            )
            for route, hosts in found
        )

    def search(self, text: str) -> tuple[RouteEntry, ...]:
        """Return the routes that have every word of a text somewhere, and those that take it, if it is the path of a request."""
        words = text.lower().split()
        taken = {id(route) for route in self._taking(text.strip())}
        return tuple(entry for entry in self.entries if id(entry.route) in taken or all(word in entry.words for word in words))

    def opened_by(self, scopes: Iterable[str], permission: AuthType) -> tuple[RouteEntry, ...]:
        """Return the routes of which an issued token can call something; those in monitor mode as if they were enforced.

        A GLOBAL token counts as acting for somebody for whom it may, so it opens nothing but public routes where act_as allows
        nobody.
        """
        held = frozenset(scopes)
        return tuple(entry for entry in self.entries if self._opens(entry, held, permission))

    def accepting(self, permission: AuthType) -> tuple[RouteEntry, ...]:
        """Return the routes that an issued token with this permission opens if it has the scopes that they ask for."""
        return tuple(entry for entry in self.entries if self._opens(entry, frozenset(entry.route.scopes), permission))

    def _opens(self, entry: RouteEntry, scopes: frozenset[str], permission: AuthType) -> bool:
        match entry.plan:
            case Plan(route=route, credential=credential):
                user = _USER if permission is AuthType.USER else None
                # An id is as long as that of every token: what is forwarded has a limit.
                identity = Identity(permission, f"token:{'0' * 12}", user, scopes, _NOW + 1)
                headers = {self._acting.act_as.headers[0]: _USER} if permission is AuthType.GLOBAL else {}
                request = Request("GET", "/", "", headers, raw=True, decision_id="")
                return isinstance(decide(Plan(self._acting, request, route, credential), identity, _NOW), Allow)
            case Allow():
                return True
            case None:
                return False

    def _taking(self, text: str) -> Iterator[Route]:
        """Yield the routes that decide "/path" or "METHOD /path", for any host; without a method, those of all methods."""
        match = _LINE(text)
        path = parse(match[2].partition("?")[0]) if match else None
        if match is None or not isinstance(path, Path):
            return
        for _, table in tables(self._policy):
            for method in (match[1],) if match[1] else {*STAR_METHODS, *_methods_in(self.entries)}:
                route = table.find(method, path)
                if isinstance(route, Route):
                    yield route


def routes_of(table: RouteTable) -> Iterator[Route]:
    """Yield each route of a table once."""
    seen: set[int] = set()
    for methods in _method_tables(table.root):
        for route in methods.values():
            if id(route) not in seen:
                seen.add(id(route))
                yield route


def tables(policy: Policy) -> tuple[tuple[str | None, RouteTable], ...]:
    return ((None, policy.routes), *policy.hosts.items())


def _method_tables(node: Node) -> Iterator[MethodTable]:
    yield from (methods for methods in (node.methods, node.rest) if methods is not None)
    for child in _children(node):
        yield from _method_tables(child)


def _children(node: Node) -> Iterator[Node]:
    yield from node.literals.values()
    if node.parameter is not None:
        yield node.parameter


def depth_of(node: Node) -> int:
    return 1 + max(map(depth_of, _children(node)), default=0)


def _methods_in(entries: Iterable[RouteEntry]) -> set[str]:
    return {method for entry in entries for method in entry.route.match.methods if method != ANY_METHOD}


def _first_request(
    policy: Policy, route: Route, hosts: Iterable[str], fresh: str, depth: int
) -> tuple[Plan | Allow | None, Request | None]:
    """Ask for requests that a route is meant for until it decides one; return what a check of that comes to, and the request."""
    named = route.match.methods
    methods = tuple(method for method in named if method != ANY_METHOD) or STAR_METHODS
    for host in hosts:
        for path in example_paths(route, fresh, depth):
            for method in methods:
                request = Request(method, path, host, {AUTHORIZATION: "Bearer x"}, raw=True, decision_id="")
                match plan(policy, request):
                    case Plan(route=taken) as found if taken is route:
                        return found, request
                    case Allow(route=name) as found if name == route.name:
                        return found, request
                    case Deny(route=name) if name == route.name:
                        return None, request
    return None, None


def example_paths(route: Route, fresh: str, depth: int) -> Iterator[str]:
    """Yield paths that a pattern matches, with a word that no pattern has in place of parameters.

    A literal in such a place leads to the same route or to one that is more specific, and so do more segments of a final `**` than
    any pattern has.
    """
    segments = [fresh if segment is None else segment for segment in route.match.segments]
    for length in (1, 0, *range(2, depth + 1)) if route.match.rest else (0,):
        yield Path("/" + "/".join((*segments, *(fresh,) * length))).canonical


def fresh_word(policy: Policy) -> str:
    """Return a word that is no literal and no host, however an upstream reads it."""
    taken = {
        widest(segment) for _, table in tables(policy) for route in routes_of(table) for segment in route.match.segments if segment
    }
    taken |= {host.partition(".")[0] for host in policy.hosts}
    return next(word for number in count() if (word := f"example{number}") not in taken)
