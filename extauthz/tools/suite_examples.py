"""Requests that a configuration is meant for, with what they come to: what suites are written from, and coverage is measured by."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from extauthz.admin.route_map import RouteEntry, RouteMap
from extauthz.config.loader import Configuration
from extauthz.core.act_as import address
from extauthz.core.credentials import AUTHORIZATION, Kind
from extauthz.core.identity import MAX_VALUE
from extauthz.core.model import Allow, Decision, Reason
from extauthz.tools.callers import Caller, caller
from extauthz.tools.calls import Call, decided_call

_WORDS = ("ana", "bob", "eve", "example")
_USERS = tuple(f"{word}@{domain}" for domain in ("example.com", "host.invalid") for word in _WORDS)
_METHODS = ("GET", "POST", "PUT", "DELETE", "PURGE")
_NOBODY = "nobody"


@dataclass(frozen=True, slots=True)
class RequestExample:
    """A described request and its decision; `who` is the caller in words, `act_as` whom a GLOBAL token acts for."""

    call: Call
    who: str
    act_as: str | None
    decision: Decision

    @property
    def allowed(self) -> bool:
        """Tell whether the request is allowed, and not just forwarded by monitor mode."""
        return isinstance(self.decision, Allow)


@dataclass(frozen=True, slots=True)
class RouteExamples:
    """Requests that one route decides.

    `least` has the least scopes that are needed, from whom the route takes them, or the strongest token for a route that asks for
    none; `lacking` has all other scopes, and is None where there are no others. `nobody` sends no token.
    """

    least: RequestExample
    lacking: RequestExample | None
    nobody: RequestExample


class Examples:
    """Makes requests for the routes of a configuration."""

    def __init__(self, configuration: Configuration, now: float) -> None:
        """Look at the routes; `now` is in seconds since the epoch."""
        self._configuration, self._policy, self._now = configuration, configuration.policy, now
        self._vocabulary = tuple(configuration.settings.scopes)
        self._callers: dict[str, Caller] = {}
        self.entries = RouteMap(self._policy, configuration.route_places).entries
        allowed, denied = configuration.settings.act_as.allow, configuration.settings.act_as.deny
        users = [*map(_user, allowed), *_USERS]
        self.user = next((user for user in users if address(user) and self._policy.act_as.permits(user)), "ana@example.com")
        others = [*map(_user, denied), *_USERS]
        self._forbidden = next((user for user in others if address(user) and not self._policy.act_as.permits(user)), None)

    def of(self, entry: RouteEntry) -> RouteExamples | None:
        """Return the requests of a route; None for one that no request reaches."""
        if entry.request is None:
            return None
        route, nobody = entry.route, self._example(entry, _NOBODY)
        if route.public or route.deny:
            who, act_as = next(self._tokens("*"), (_NOBODY, None))
            return RouteExamples(self._example(entry, who, act_as), None, nobody)
        needed = (route.scopes[0],) if route.any_scope else route.scopes
        tries = [self._example(entry, who, act_as) for who, act_as in self._tokens(",".join(needed))]
        least = next((example for example in tries if example.allowed), tries[0] if tries else nobody)
        return RouteExamples(least, self._lacking(entry, least), nobody)

    def opening(self, entry: RouteEntry) -> frozenset[str]:
        """Return the scopes of a route with which some token is allowed."""
        route = entry.route
        sets = [(name,) for name in route.scopes] if route.any_scope else [route.scopes]
        return frozenset(
            name
            for names in sets
            if names and entry.request is not None
            if any(self._example(entry, *token).allowed for token in self._tokens(",".join(names)))
            for name in names
        )

    def probes(self, entry: RouteEntry) -> Iterator[RequestExample]:
        """Yield requests that come to as many reasons as this route, and what no route names, can come to."""
        if entry.request is None:
            return
        yield from self._malformed(entry)
        yield self._example(entry, _NOBODY)
        scopes = ",".join(entry.route.scopes) or "*"
        for who, act_as in self._tokens(scopes):
            yield self._example(entry, who, act_as)
            yield self._example(entry, f"{who} expires=1970-01-01", act_as)
            yield from self._acting(entry, who)
        for who in (f"oauth user={self.user} scopes={scopes}", f"ANONYMOUS scopes={scopes}"):
            yield self._example(entry, who)
        if Kind.OAUTH in self._policy.kinds:
            yield self._example(entry, f"oauth user={self.user} subject={'s' * MAX_VALUE} scopes={scopes}")
        least = self.of(entry)
        if least is not None and least.lacking is not None:
            yield least.lacking

    def _malformed(self, entry: RouteEntry) -> Iterator[RequestExample]:
        request, types = entry.request, self._policy.auth_types
        path, host = (request.path, request.host) if request is not None else ("/", "")
        yield self._example(entry, _NOBODY, path="/%zz")
        yield self._example(entry, _NOBODY, path="/a%2Fb")
        yield self._example(entry, _NOBODY, path="/no-such-path/0")
        yield self._example(entry, _NOBODY, host=f"{host},{host}")
        for query in ("?_method=PUT", "?access_token=x"):
            yield self._example(entry, _NOBODY, path=path + query)
        for method in _METHODS:
            yield self._example(entry, _NOBODY, method=method)
        for value in ("Basic x", "Bearer a b"):
            yield self._example(entry, _NOBODY, headers={AUTHORIZATION: value})
        if types.header:
            yield self._example(entry, _NOBODY, headers={AUTHORIZATION: "Bearer x", types.header: "x"})

    def _acting(self, entry: RouteEntry, who: str) -> Iterator[RequestExample]:
        """Yield requests of a token with each mistake that its act-as headers can have."""
        names = self._policy.act_as.headers
        for act_as in (None, self.user, self._forbidden, "ana"):
            yield self._example(entry, who, act_as)
        if len(names) > 1:
            yield self._example(entry, who, self.user, headers={names[1]: f"other.{self.user}"})

    def _lacking(self, entry: RouteEntry, least: RequestExample) -> RequestExample | None:
        route = entry.route
        lacked = route.scopes if route.any_scope else route.scopes[-1:]
        others = ",".join(name for name in self._vocabulary if name not in lacked)
        if not others:
            return None
        kind = least.who.split()[0]
        return next((self._example(entry, *token) for token in self._tokens(others) if token[0].split()[0] == kind), None)

    def _tokens(self, scopes: str) -> Iterator[tuple[str, str | None]]:
        """Yield a token of each kind that is switched on, in words, and whom it acts for."""
        if Kind.ISSUED in self._policy.kinds:
            yield f"USER user={self.user} scopes={scopes}", None
            yield f"GLOBAL scopes={scopes}", self.user
        if Kind.OAUTH in self._policy.kinds:
            names = [rules.name for rules in self._configuration.providers]
            for name in names if len(names) > 1 else ("",):
                yield f"oauth user={self.user} scopes={scopes}" + (f" provider={name}" if name else ""), None
        if Kind.ISSUED in self._policy.kinds:
            yield f"ANONYMOUS scopes={scopes}", None

    def _example(
        self,
        entry: RouteEntry,
        who: str,
        act_as: str | None = None,
        *,
        method: str | None = None,
        path: str | None = None,
        host: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> RequestExample:
        """Decide a request like the one that a route decides."""
        request = entry.request
        assert request is not None  # noqa: S101 - the callers have looked
        if who not in self._callers:
            self._callers[who] = caller(who, self._vocabulary, self._configuration.providers)
        own = {} if act_as is None else {self._policy.act_as.headers[0]: act_as}
        asked = method or request.method, path or request.path, request.host if host is None else host
        call = Call(*asked, {**own, **(headers or {})}, self._callers[who])
        return RequestExample(call, who, act_as, decided_call(self._policy, call, self._now))


def reasons_of(examples: Examples) -> dict[Reason, RequestExample]:
    """Return every reason that a described request can come to by the configuration itself, each with a request that does."""
    found: dict[Reason, RequestExample] = {}
    seen: set[tuple[object, ...]] = set()
    for entry in examples.entries:
        route = entry.route
        # Routes that are alike in this come to the same reasons.
        kind = (route.public, route.deny, route.any_scope, len(route.scopes), route.accept, bool(entry.hosts), entry.is_monitored)
        if kind not in seen and entry.request is not None:
            seen.add(kind)
            for example in examples.probes(entry):
                found.setdefault(example.decision.reason, example)
    return found


def _user(pattern: str) -> str:
    """Return an address that a pattern of act_as takes."""
    local, _, domain = pattern.partition("@")
    return f"{local.replace('*', 'ana')}@{'example.com' if domain == '*' else domain.replace('*', 'example')}"
