"""Decisions that were made, made again by another configuration: by `plan` and `decide`, as far as a line tells the request.

What a line does not tell is read in every way that is left open; where these are not decided alike, the line is Undecidable.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import count
from typing import NamedTuple, TypeVar

from extauthz.admin.route_map import routes_of
from extauthz.core.act_as import address
from extauthz.core.credentials import AUTHORIZATION
from extauthz.core.decide import Plan, plan
from extauthz.core.model import Decision, Deny, Reason, Request
from extauthz.core.policy import Policy
from extauthz.core.providers import ProviderRules
from extauthz.core.routes import ANY_METHOD, STAR_METHODS, Route
from extauthz.errors import CallerError
from extauthz.tools.callers import NOBODY, Caller, caller
from extauthz.tools.calls import Call, decided_call
from extauthz.tools.log_lines import LogLine, RecordedLine, Undecidable
from extauthz.tools.replay_senders import WITHOUT_TOKEN, LogSender, LogSenders, Readings, ScopesOf

MAX_REMEMBERED = 100_000
"""Requests, and decisions, that are remembered: clients choose paths."""

_EVERYWHERE = frozenset({Reason.REQUEST_MALFORMED, Reason.PATH_MALFORMED})
"""What no configuration changes: nobody could read the request."""
_OF_THE_PROCESS = frozenset({Reason.DRAINING, Reason.OVERLOADED})
"""What a process that cannot decide answers, if it has not found a route by then."""
_MALFORMED_HOST, _MALFORMED_ADDRESS = ",", "?"
_UNVERIFIED = Caller(None, Reason.TOKEN_UNKNOWN), Caller(None, Reason.TOKEN_REVOKED)
_ORIGIN = {"origin": "https://client.invalid"}


_SCOPES = re.compile(r"(?:.* )?scopes=(\S+)").match
_Key = TypeVar("_Key")
_Value = TypeVar("_Value")
_Route = tuple[Reason | None, str | None]
"""Why a request without a credential is refused or not, and the name of its route."""


class ReplayOutcome(NamedTuple):
    """What a check came to: `allow`, `deny` or `would_deny`, why, and by which route."""

    decision: str
    reason: str
    route: str | None


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a request goes, as far as the log does not tell: a host, and headers of a CORS preflight."""

    unknown: Undecidable | None
    host: str
    headers: dict[str, str]


class Replay:
    """Decides lines again; `scopes_of` knows the scopes of issued tokens by their ids."""

    def __init__(
        self,
        policy: Policy,
        providers: Sequence[ProviderRules] = (),
        vocabulary: Sequence[str] = (),
        *,
        scopes_of: ScopesOf = lambda _: None,
        host: str | None = None,
    ) -> None:
        """Look at the configuration once; a `host` is that of every request whose line does not tell it."""
        self._policy, self._providers, self._vocabulary = policy, providers, vocabulary
        routes = [route for table in (policy.routes, *policy.hosts.values()) for route in routes_of(table)]
        named = {*vocabulary, *(scope for route in routes for scope in route.scopes)}
        self._senders = LogSenders(policy, providers, tuple(sorted(named)), scopes_of)
        self._hosts = _hosts(policy) if host is None else (host,)
        self._preflights = _preflights(routes)
        self._routes: dict[tuple[str, str, bool], tuple[_Route, ...]] = {}
        self._decided: dict[tuple[tuple[_Route, ...], object], ReplayOutcome | Undecidable] = {}
        self._all_places: dict[tuple[bool, bool], tuple[_Place, ...]] = {}
        self._callers: dict[str, Caller | None] = {}
        self._policies: dict[object, Policy] = {None: policy}

    @property
    def reads_hosts(self) -> bool:
        """Tell whether the host of a request matters, which the decision log does not have."""
        return bool(self._policy.hosts)

    def decided(self, line: LogLine | RecordedLine) -> ReplayOutcome | Undecidable:
        """Return what a line comes to."""
        reason = line.reason
        if reason is None:
            return Undecidable.REASON_UNKNOWN
        if reason in _EVERYWHERE:
            return ReplayOutcome(Deny.outcome, reason.value, None)
        if reason is Reason.INTERNAL or (reason in _OF_THE_PROCESS and line.route is None):
            return Undecidable.NOT_BY_POLICY
        if isinstance(line, RecordedLine):
            return self._recorded(line)
        if not line.method or not line.path:
            return Undecidable.REQUEST_ABSENT
        if line.is_cut:
            return Undecidable.CUT
        return self._logged(line, line.method, line.path)

    def _logged(self, line: LogLine, method: str, path: str) -> ReplayOutcome | Undecidable:
        is_malformed = line.reason is Reason.HOST_MALFORMED
        request = (method, path, is_malformed)
        routes = self._routes.get(request)
        if routes is None:
            # What is decided depends on a path by its route alone: so requests of one route are decided once.
            routes = tuple([self._route(method, path, place) for place in self._places(method, is_malformed=is_malformed)])
            _remember(self._routes, request, routes)
        key = (routes, self._senders.case(line))
        found = self._decided.get(key)
        if found is None:
            found = self._alike(method, path, self._senders.readings(line), self._places(method, is_malformed=is_malformed))
            _remember(self._decided, key, found)
        return found

    def _alike(self, method: str, path: str, readings: Readings, places: Sequence[_Place]) -> ReplayOutcome | Undecidable:
        """Decide every reading in every place, and return what all of them come to."""
        first: ReplayOutcome | None = None
        for unknown, sender in readings:
            for place in places:
                found = self._outcome(sender, method, path, place)
                if first is None:
                    first = found
                elif found != first:
                    return unknown or place.unknown or Undecidable.CALLER_ABSENT
        return Undecidable.CALLER_ABSENT if first is None else first

    def _route(self, method: str, path: str, place: _Place) -> _Route:
        """Return what a request without a credential comes to before monitor mode."""
        planned = plan(self._policy, Request(method, path, place.host, place.headers, raw=True, decision_id=""))
        return (None, planned.route.name) if isinstance(planned, Plan) else (planned.reason, planned.route)

    def _outcome(self, sender: LogSender, method: str, path: str, place: _Place) -> ReplayOutcome:
        call = Call(method, path + sender.query, place.host, {**place.headers, **sender.headers}, sender.caller)
        return outcome_of(decided_call(self._under(sender), call, 0.0))

    def _under(self, sender: LogSender) -> Policy:
        rules = sender.act_as
        if rules not in self._policies:
            self._policies[rules] = replace(self._policy, act_as=rules)  # type: ignore[arg-type]
        return self._policies[rules]

    def _places(self, method: str, *, is_malformed: bool) -> tuple[_Place, ...]:
        is_preflight = method == "OPTIONS" and bool(self._preflights)
        places = self._all_places.get((is_malformed, is_preflight))
        if places is None:
            hosts = (_MALFORMED_HOST,) if is_malformed else self._hosts
            places = tuple(_places(hosts, self._preflights if is_preflight else ()))
            self._all_places[is_malformed, is_preflight] = places
        return places

    def _recorded(self, line: RecordedLine) -> ReplayOutcome | Undecidable:
        calls = self.calls(line)
        if isinstance(calls, Undecidable):
            return calls
        first: ReplayOutcome | None = None
        for unknown, call in calls:
            found = outcome_of(decided_call(self._policy, call, line.time or 0.0))
            if first is None:
                first = found
            elif found != first:
                return unknown or Undecidable.CALLER_ABSENT
        return first or Undecidable.CALLER_ABSENT

    def calls(self, line: RecordedLine) -> list[tuple[Undecidable | None, Call]] | Undecidable:
        """Return the calls that a recorded line may mean: one, but where nobody verified its token."""
        known = self._caller(line.caller)
        if known is None:
            return Undecidable.CALLER_UNREADABLE
        headers = dict(line.headers)
        if line.reason is Reason.ACT_AS_MALFORMED:
            # Why it was may be in bytes that a recording does not have.
            headers |= {name: _MALFORMED_ADDRESS for name in self._policy.act_as.headers if address(headers.get(name, "").strip())}
        if known is not NOBODY:
            headers.pop(AUTHORIZATION, None)
            return [(None, Call(line.method, line.path, line.host, headers, known))]
        if headers.get(AUTHORIZATION):
            # It stands for a token that nobody verified: where one has to be, it might come to this or that.
            unknown = Undecidable.CREDENTIAL_NOT_READ if line.reason in WITHOUT_TOKEN else Undecidable.TOKEN_NOT_VERIFIED
            readings: Readings = iter([(None, LogSender(_UNVERIFIED[0])), (unknown, LogSender(_UNVERIFIED[1]))])
        elif line.reason in WITHOUT_TOKEN or line.reason is Reason.CREDENTIAL_MISSING:
            readings = iter([(None, LogSender())])
        else:
            readings = self._senders.readings(line.without_caller())
        return [
            (
                unknown,
                Call(line.method, _with_query(line.path, sender.query), line.host, {**sender.headers, **headers}, sender.caller),
            )
            for unknown, sender in readings
        ]

    def _caller(self, text: str) -> Caller | None:
        """Return a recorded caller, None for one that cannot be read; requests of one caller share it."""
        if text not in self._callers:
            try:
                known = caller(text, self._vocabulary_of(text), self._providers_of(text))
            except CallerError:
                known = None
            _remember(self._callers, text, known)
        return self._callers[text]

    def _vocabulary_of(self, text: str) -> Sequence[str]:
        """Return the vocabulary, and what a caller holds that is no longer in it."""
        held = _SCOPES(text)
        return [*self._vocabulary, *(set(held[1].split(",")) - {"*", "-", *self._vocabulary} if held else ())]

    def _providers_of(self, text: str) -> Sequence[ProviderRules]:
        """Return the providers; tokens that hold what they claim, and claim nothing, hold no scope."""
        if _SCOPES(text):
            return self._providers
        claiming = {rules.name for rules in self._providers if rules.scope_claims is not None}
        nothing = frozenset[str]()
        return [replace(each, scope_claims=None, scopes=nothing) if each.name in claiming else each for each in self._providers]


def outcome_of(decision: Decision) -> ReplayOutcome:
    """Return what is compared of a decision."""
    return ReplayOutcome(decision.outcome, decision.reason.value, decision.route)


def _places(hosts: Sequence[str], preflights: Sequence[str]) -> Iterator[_Place]:
    for number, host in enumerate(hosts):
        unknown = Undecidable.HOST if number else None
        yield _Place(unknown, host, {})
        for asked in preflights:
            yield _Place(unknown or Undecidable.PREFLIGHT, host, {**_ORIGIN, "access-control-request-method": asked})


def _hosts(policy: Policy) -> tuple[str, ...]:
    """Return a host that no file names, and those that some do."""
    other = next(name for number in count() if (name := f"host{number}.invalid") not in policy.hosts)
    return (other, *policy.hosts)


def _preflights(routes: Sequence[Route]) -> tuple[str, ...]:
    """Return the methods that a CORS preflight may ask for."""
    if not any(route.preflight for route in routes):
        return ()
    named = {method for route in routes for method in route.match.methods if method != ANY_METHOD}
    return tuple(sorted({*STAR_METHODS, *named}))


def _with_query(path: str, query: str) -> str:
    """Return a path with one parameter more, where it is not there by now."""
    if not query or query.strip("?=") in path.partition("?")[2]:
        return path
    return path + (query if "?" not in path else f"&{query[1:]}")


def _remember(memory: dict[_Key, _Value], key: _Key, value: _Value) -> None:
    if len(memory) >= MAX_REMEMBERED:
        memory.clear()
    memory[key] = value
