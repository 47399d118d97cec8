"""What changed in meaning between two configurations: computed for every class of requests, by the steps that serve.

The classes are those of paths (`partition`), of methods, of hosts and of callers (`diff_senders`). Route lines with the same rules
are decided alike, so each pair of rules is decided once.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache, partial

from extauthz.config.loader import Configuration
from extauthz.config.patterns import METHODS
from extauthz.core.model import DECISION_ID, Allow, Decision, Deny, HeaderEdits, Reason, Request
from extauthz.core.paths import Path
from extauthz.core.routes import STAR_METHODS, LooseRouteTable, MethodTable, Route, RouteTable, SlashedRouteTable
from extauthz.tools.calls import decided
from extauthz.tools.curl_line import curl_line
from extauthz.tools.diff_findings import Changed, Findings
from extauthz.tools.diff_rules import RouteRule, general_rules, names_like_ours, rule_of, scope_sets
from extauthz.tools.diff_senders import Pair, Sender, Senders
from extauthz.tools.diff_settings import changed_settings
from extauthz.tools.diff_shape import DecisionSummary, Differences, Impact
from extauthz.tools.partition import PathClass, Signatures, TooManyPaths, WalkBudget, path_classes

UNNAMED, MALFORMED = "", "not one host"
"""Hosts that stand for all that no file names, and for what is no host."""
OTHER_HOST = "other.invalid"
METHOD_QUERY = "_method=DELETE"
PREFLIGHT = "access-control-request-method"

_USUAL_METHODS = STAR_METHODS
_ODD_METHODS = tuple(sorted(METHODS - {"CONNECT", *STAR_METHODS}))

Tables = tuple[RouteTable | Reason, RouteTable | Reason]


@dataclass(frozen=True, slots=True)
class Asked:
    """One class of requests: what `found` decides on each side, and the route that its finding names.

    With `preflight` it is a CORS preflight that asks about this method, which `answers` answer. `label` is "*" for a method that no
    line names.
    """

    path: PathClass
    method: str
    host: str
    found: tuple[Route | Reason, Route | Reason]
    lines: tuple[Route | None, Route | None]
    label: str
    preflight: str = ""
    answers: tuple[Route | None, Route | None] = (None, None)


def differences(old: Configuration, new: Configuration, *, budget: int | None = None) -> Differences:
    """Compare two configurations; `budget` bounds the steps that comparing their paths takes."""
    return _Comparison((old, new), WalkBudget() if budget is None else WalkBudget(budget)).result()


class _Comparison:
    def __init__(self, pair: Pair, budget: WalkBudget) -> None:
        self._pair = pair
        self._policies = pair[0].policy, pair[1].policy
        self._header_names = (*pair[1].settings.header_names, *pair[0].settings.header_names)
        self._budget = budget
        self._senders = Senders(pair)
        self._findings = Findings(pair)
        self._same_settings = general_rules(pair[0]) == general_rules(pair[1])
        self._received = dict.fromkeys(names_like_ours(pair), "x") if not self._same_settings else {}
        self._rules: tuple[dict[int, RouteRule], dict[int, RouteRule]] = ({}, {})
        self._known: dict[object, tuple[Changed, ...]] = {}
        self._seen: set[object] = set()

    def result(self) -> Differences:
        incomplete = []
        if not self._senders.addresses.complete:
            incomplete.append("act_as: the address patterns are too many to be compared exactly")
        signatures = None
        if self._same_settings:
            sides = {id(route): side for side in (0, 1) for route in self._all_routes(side)}
            signatures = Signatures(lambda route: self._rule(sides[id(route)], route))
        try:
            for host, tables in self._hosts():
                old, new = (table if isinstance(table, RouteTable) else None for table in tables)
                for path in path_classes(old, new, self._budget, signatures):
                    for asked in self._classes(host, tables, path):
                        self._compare(asked, tables)
        except TooManyPaths:
            incomplete.append(
                "routes: the maps have more classes of paths than can be compared, because literals and parameters share levels: "
                "what is listed is right, and there may be more"
            )
        return Differences(self._findings.sorted(), changed_settings(*self._pair), tuple(incomplete))

    def _hosts(self) -> Iterator[tuple[str, tuple[RouteTable | Reason, RouteTable | Reason]]]:
        """Yield the hosts that are told apart, each with the tables of both sides."""
        names = sorted({name for policy in self._policies for name in policy.hosts})
        for host in (UNNAMED, *names, *([MALFORMED] if names else [])):
            yield host, tuple(policy.table_for(host or OTHER_HOST) for policy in self._policies)  # type: ignore[misc]

    def _all_routes(self, side: int) -> Iterator[Route]:
        policy = self._policies[side]
        for table in (policy.routes, *policy.hosts.values()):
            waiting = [table.root]
            while waiting:
                node = waiting.pop()
                for methods in (node.methods, node.rest):
                    yield from (methods or {}).values()
                waiting += [*node.literals.values(), *([node.parameter] if node.parameter else [])]

    def _classes(self, host: str, tables: Tables, path: PathClass) -> Iterator[Asked]:
        """Yield the classes of requests with one path: each method that a line names, and one for all others."""
        reached = tuple(_reached(table, path) for table in tables)
        key = (host, *(each if each is None or isinstance(each, Reason) else id(each) for each in reached))
        if not path.has_slash:
            if key in self._seen:
                return
            self._seen.add(key)
        methods = dict.fromkeys(method for each in reached if isinstance(each, dict) for method in each if method is not None)
        labels = {method: method for method in methods} | {
            next(method for method in usual if method not in methods): "*" for usual in (_USUAL_METHODS, _ODD_METHODS)
        }
        for method, label in labels.items():
            found = _found(tables[0], path, method), _found(tables[1], path, method)
            lines = _lines(tables, path, method) if path.has_slash else (_route(found[0]), _route(found[1]))
            yield Asked(path, method, host, found, lines, label)
        routes = [route for each in reached if isinstance(each, dict) for route in each.values()]
        if any(route.preflight for route in routes):
            yield from self._preflights(host, tables, path, list(labels))

    def _preflights(self, host: str, tables: Tables, path: PathClass, methods: list[str]) -> Iterator[Asked]:
        found = _found(tables[0], path, "OPTIONS"), _found(tables[1], path, "OPTIONS")
        lines = _lines(tables, path, "OPTIONS")
        for method in methods:
            meant = tuple(map(_answering, _lines(tables, path, method)))
            if meant != (None, None):
                answers = tuple(_answering(_found(table, path, method)) for table in tables)
                named = tuple(meant[side] or lines[side] for side in (0, 1))
                yield Asked(path, "OPTIONS", host, found, (named[0], named[1]), "OPTIONS", method, (answers[0], answers[1]))

    def _compare(self, asked: Asked, tables: Tables) -> None:
        rules = self._rule(0, asked.found[0]), self._rule(1, asked.found[1])
        answers = tuple(None if route is None else self._rule(side, route).monitored for side, route in enumerate(asked.answers))
        overrides = tuple(isinstance(table, RouteTable) and table.upstream.overrides_method for table in tables)
        if self._same_settings and rules[0] == rules[1] and answers[0] == answers[1] and overrides[0] == overrides[1]:
            return
        key = rules, answers, overrides
        if key not in self._known:
            queries = ["", METHOD_QUERY] if overrides[0] != overrides[1] or any(each.monitored for each in self._policies) else [""]
            self._known[key] = tuple(self._changes(asked, rules, queries))
        self._findings.add(
            asked.lines,
            [change for change in self._known[key] if change.impact is not Impact.REASON or asked.lines != (None, None)],
            partial(self._curl, asked),
            method=asked.label,
            host=asked.host,
            same_line=rules[0].line == rules[1].line,
        )

    def _changes(self, asked: Asked, rules: tuple[RouteRule, RouteRule], queries: list[str]) -> list[Changed]:
        """Decide what every class of callers sends on both sides, and keep what is not known from a plainer caller."""
        changes: list[Changed] = []
        for query in queries:
            for sender in self._senders.of(scope_sets(rules)):
                request = self._request(asked, sender, query)
                old, new = (
                    decided(policy, request, partial(sender.verified, side), 0.0) for side, policy in enumerate(self._policies)
                )
                change = _change(sender, query, (old, new), self._token_header(old, new, rules))
                if change is not None and not any(earlier.covers(change) for earlier in changes):
                    changes.append(change)
        return changes

    def _request(self, asked: Asked, sender: Sender, query: str) -> Request:
        headers = self._received | _headers(asked, sender)
        return Request(asked.method, _target(asked, query), asked.host or OTHER_HOST, headers, raw=True, decision_id=DECISION_ID)

    def _curl(self, asked: Asked, change: Changed) -> str:
        target, headers = _target(asked, change.query), _headers(asked, change.sender)
        return curl_line(asked.method, target, asked.host, headers, self._header_names)

    def _token_header(self, old: Decision, new: Decision, rules: tuple[RouteRule, RouteRule]) -> tuple[str, ...]:
        """Return the header with the internal token, if that is made for another audience."""
        is_named = all(isinstance(each, Allow) and each.identity is not None for each in (old, new))
        same = rules[0].audience == rules[1].audience
        return () if same or not is_named else (self._policies[1].identity.names["token"],)

    def _rule(self, side: int, route: Route | Reason) -> RouteRule:
        policy = self._policies[side]
        if isinstance(route, Reason):
            return RouteRule(frozenset(), False, route, frozenset(), monitored=None in policy.monitored)
        rule = self._rules[side].get(id(route))
        if rule is None:
            rule = self._rules[side][id(route)] = rule_of(self._pair[side], route)
        return rule


def _reached(table: RouteTable | Reason, path: PathClass) -> MethodTable | Reason | None:
    """Return the routes of the pattern that decides, by method."""
    if isinstance(table, Reason):
        return table
    if isinstance(table, LooseRouteTable) and table.find("GET", path.path) is Reason.PATH_AMBIGUOUS:
        return Reason.PATH_AMBIGUOUS
    text = table.upstream.one_spelling(path.path.text)
    methods = table.literals.get(text)
    return table.search(tuple(text[1:].split("/"))) if methods is None else methods


def _found(table: RouteTable | Reason, path: PathClass, method: str) -> Route | Reason:
    if isinstance(table, Reason):
        return table
    if not path.has_slash:
        return table.find(method, path.path)
    return SlashedRouteTable(table).find(method, path.path) if table.encoded_slashes else Reason.PATH_AMBIGUOUS


def _answering(route: Route | Reason | None) -> Route | None:
    """Return the route if it answers preflights."""
    return route if isinstance(route, Route) and route.preflight and not route.deny else None


def _lines(tables: Tables, path: PathClass, method: str) -> tuple[Route | None, Route | None]:
    """Return the routes whose lines a finding names: with an encoded slash, those that would decide if they took it."""
    old, new = (table if isinstance(table, Reason) else table.find(method, path.path) for table in tables)
    return _route(old), _route(new)


def _route(found: Route | Reason) -> Route | None:
    return found if isinstance(found, Route) else None


def _target(asked: Asked, query: str) -> str:
    return _written(asked.path.path) + (f"?{query}" if query else "")


@lru_cache(maxsize=256)
def _written(path: Path) -> str:
    return path.canonical


def _headers(asked: Asked, sender: Sender) -> dict[str, str]:
    preflight = {"origin": "https://app.example", PREFLIGHT: asked.preflight} if asked.preflight else {}
    return dict(sender.headers) | preflight


def _change(sender: Sender, query: str, decisions: tuple[Decision, Decision], more: tuple[str, ...]) -> Changed | None:
    old, new = decisions
    outcomes = _outcome(old), _outcome(new)
    if isinstance(old, Deny) and isinstance(new, Deny):
        return None if old.reason is new.reason else Changed(sender, query, Impact.REASON, *outcomes)
    if isinstance(old, Deny) or isinstance(new, Deny):
        return Changed(sender, query, Impact.WIDENED if isinstance(old, Deny) else Impact.NARROWED, *outcomes)
    names = {*_other_headers(old.edits, new.edits), *more}
    return Changed(sender, query, Impact.HEADERS, *outcomes, tuple(sorted(names))) if names else None


def _outcome(decision: Decision) -> DecisionSummary:
    return DecisionSummary(decision.outcome, decision.reason.value, decision.reason.status)


def _other_headers(old: HeaderEdits, new: HeaderEdits) -> set[str]:
    """Return the names that one side sets, removes or leaves otherwise than the other."""
    before, after = (dict(edits.set) | dict.fromkeys(edits.remove, None) for edits in (old, new))
    missing = object()
    return {name for name in before | after if before.get(name, missing) != after.get(name, missing)}
