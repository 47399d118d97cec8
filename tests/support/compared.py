"""Configurations in memory, and what differs between two of them when every request of a small world is decided on both sides."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

import yaml

from extauthz.config.files import Files
from extauthz.config.loader import Configuration, load
from extauthz.core import paths
from extauthz.core.credentials import Credential, Kind
from extauthz.core.model import DECISION_ID, Allow, AuthType, Decision, Deny, Identity, Reason, Request, WouldDeny
from extauthz.core.policy import Policy
from extauthz.core.routes import Route
from extauthz.tools.calls import decided
from extauthz.tools.diff_shape import Differences, Impact
from tests.support.world import SETTINGS

Told = tuple[Impact, str | None, str | None, str]
"""What becomes of requests, the routes that decide on both sides, and the kind of caller."""


def configuration(
    routes: Iterable[Mapping[str, Any]] | Mapping[str, Any], settings: Mapping[str, Any] | None = None
) -> Configuration:
    """Load a configuration from plain data: routes, or whole route files by name, and sections in place of the usual ones."""
    files = routes if isinstance(routes, Mapping) else {"routes.yaml": {"routes": list(routes)}}
    data = SETTINGS | {"routes": list(files)} | (settings or {})
    contents = {"extauthz.yaml": {key: value for key, value in data.items() if value is not None}} | files
    return load(Path("extauthz.yaml"), Files({Path(name): yaml.safe_dump(content).encode() for name, content in contents.items()}))


@dataclass(frozen=True)
class Holder:
    """Who sends a request, and what it sends besides the path."""

    kind: str
    headers: Mapping[str, str] = field(default_factory=dict)
    scopes: frozenset[str] = frozenset()

    def verified(self, credential: Credential) -> Identity | Reason:
        family = Kind.OAUTH if self.kind == "oauth" else Kind.ISSUED
        if self.kind == "nobody" or credential.kind is not family:
            return Reason.TOKEN_MALFORMED
        kind = AuthType(self.kind.upper())
        user = "ana@example.com" if kind in (AuthType.OAUTH, AuthType.USER) else None
        client = "client" if kind is AuthType.OAUTH else None
        return Identity(kind, "actor", user, self.scopes, math.inf, client_id=client)


def by_brute_force(
    pair: tuple[Configuration, Configuration], targets: Iterable[tuple[str, str, str]], holders: Iterable[Holder]
) -> set[Told]:
    """Decide every request on both sides; `targets` are method, host and path, and a method `OPTIONS GET` is a preflight."""
    told: set[Told] = set()
    senders = list(holders)
    for method, host, target in targets:
        verb, _, asked = method.partition(" ")
        more = {"origin": "https://app.example", "access-control-request-method": asked} if asked else {}
        names = tuple(_named(each.policy, verb, asked, host, target) for each in pair)
        for holder in senders:
            request = Request(verb, target, host, dict(holder.headers) | more, raw=True, decision_id=DECISION_ID)
            old, new = (decided(each.policy, request, holder.verified, 0.0) for each in pair)
            impact = impact_of(old, new)
            if impact is not None:
                told.add((impact, *names, holder.kind))  # type: ignore[arg-type]
    others = {
        name for impact, old, new, _ in told if impact is not Impact.REASON for name in (("old", old), ("new", new)) if name[1]
    }
    hidden = {
        each
        for each in told
        if each[0] is Impact.REASON and (each[1:3] == (None, None) or others & {("old", each[1]), ("new", each[2])})
    }
    return told - hidden


def impact_of(old: Decision, new: Decision) -> Impact | None:
    """Compare two decisions about one request."""
    match old, new:
        case Deny(), Deny():
            return None if old.reason is new.reason else Impact.REASON
        case Deny(), _:
            return Impact.WIDENED
        case _, Deny():
            return Impact.NARROWED
        case ((Allow() | WouldDeny()), (Allow() | WouldDeny())):
            sides = [(set(each.edits.set), set(each.edits.remove)) for each in (old, new)]
            return None if sides[0] == sides[1] else Impact.HEADERS
    raise AssertionError((old, new))


def told_by(found: Differences) -> set[Told]:
    """Return what the differences tell, in the same words."""
    return {
        (each.impact, routes.old.name, routes.new.name, caller.kind)
        for each in found.findings
        for routes in each.routes
        for caller in each.callers
    }


def targets(
    words: Iterable[str], depth: int, methods: Iterable[str], hosts: Iterable[str] = ("any.example",)
) -> Iterator[tuple[str, str, str]]:
    """Yield every request line of a small world, with and without a slash at the end."""
    several = list(words)
    lines = ["/"]
    for length in range(1, depth + 1):
        for segments in product(several, repeat=length):
            lines += ["/" + "/".join(segments), "/" + "/".join(segments) + "/"]
    yield from product(methods, hosts, lines)


def _named(policy: Policy, method: str, asked: str, host: str, target: str) -> str | None:
    """Return the route whose line decides, or would if it took encoded slashes; of a preflight the one that answers it."""
    path = paths.parse(target.partition("?")[0])
    if path is Reason.PATH_AMBIGUOUS:
        path = paths.parse_with_slashes(target.partition("?")[0])
    table = policy.table_for(host)
    if isinstance(path, Reason) or isinstance(table, Reason):
        return None
    answering = table.find(asked, path) if asked else None
    is_answered = isinstance(answering, Route) and answering.preflight and not answering.deny
    route = answering if is_answered else table.find(method, path)
    return route.name if isinstance(route, Route) else None
