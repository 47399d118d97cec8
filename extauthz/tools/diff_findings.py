"""Collects what differs, so that one changed line is one finding."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass, field

from extauthz.core.routes import Route
from extauthz.tools.diff_senders import NOBODY, Pair, Sender
from extauthz.tools.diff_shape import CallerChange, DecisionSummary, Impact, RouteDifference, RoutePair, RouteReference

_EFFECTS = tuple(Impact)
_KINDS = (NOBODY, "ANONYMOUS", "oauth", "USER", "GLOBAL")
"""The widest first."""


@dataclass(frozen=True, slots=True, eq=False)
class Changed:
    """What becomes of the requests of one class of callers; with `query` those that name a method there."""

    sender: Sender
    query: str
    impact: Impact
    old: DecisionSummary
    new: DecisionSummary
    headers: tuple[str, ...] = ()

    @property
    def details(self) -> tuple[str, ...]:
        """What is special about the request."""
        return (*self.sender.details, *([f"with ?{self.query}"] if self.query else []))

    @property
    def general(self) -> Hashable:
        """What it has in common with the same change of other routes, whatever the reasons there are."""
        return self.sender.kind, self.sender.provider, self.details, self.old.decision, self.new.decision, self.headers

    def covers(self, other: Changed) -> bool:
        """Tell whether whoever reads this knows the other: the same kind of caller with more scopes, or with something special."""
        one, two = self.sender, other.sender
        same = (self.impact, self.headers, one.kind, one.provider) == (other.impact, other.headers, two.kind, two.provider)
        return same and (one.scopes or frozenset()) <= (two.scopes or frozenset()) and set(self.details) <= _with_usual(self, other)

    def caller(self, curl: str) -> CallerChange:
        """Return it as plain data."""
        sender = self.sender
        scopes = None if sender.scopes is None else tuple(sorted(sender.scopes))
        return CallerChange(sender.kind, sender.provider, scopes, self.details, self.old, self.new, self.headers, curl)


def _with_usual(one: Changed, other: Changed) -> set[str]:
    """Return the details of `other`, and those of `one` that every usual request of its kind has."""
    return {*other.details, *(detail for detail in one.details if detail.startswith("acting for "))}


@dataclass(slots=True)
class _Group:
    """A finding that grows."""

    impact: Impact
    routes: dict[RoutePair, None] = field(default_factory=dict)
    methods: dict[str, None] = field(default_factory=dict)
    hosts: dict[str, None] = field(default_factory=dict)
    callers: dict[Hashable, CallerChange] = field(default_factory=dict)

    def rank(self) -> tuple[object, ...]:
        """Order by impact, then the widest callers first."""
        first = next(iter(self.routes))
        widest = min(_KINDS.index(caller.kind) for caller in self.callers.values())
        return _EFFECTS.index(self.impact), widest, first.new.place or "", first.old.place or "", first.new.name or ""


def _sides(routes: RoutePair) -> set[tuple[str, RouteReference]]:
    """Return the routes of a pair, each with its side."""
    return {(side, route) for side, route in (("old", routes.old), ("new", routes.new)) if route.name is not None}


class Findings:
    """All findings so far."""

    def __init__(self, pair: Pair) -> None:
        """Begin with none."""
        self._places = [configuration.route_places for configuration in pair]
        self._groups: dict[Hashable, _Group] = {}
        self._told: set[tuple[str, RouteReference]] = set()
        self._pairs: dict[tuple[int, int], RoutePair] = {}

    def add(
        self,
        lines: tuple[Route | None, Route | None],
        changes: Iterable[Changed],
        example: Callable[[Changed], str],
        *,
        method: str,
        host: str,
        same_line: bool,
    ) -> None:
        """Add what became of one class of requests; `example` writes one, `same_line`: both lines say the same."""
        routes = self._pair(lines)
        by_impact: dict[Impact, list[Changed]] = {}
        for change in changes:
            by_impact.setdefault(change.impact, []).append(change)
        for impact, several in by_impact.items():
            cause: Hashable = frozenset(change.general for change in several) if same_line else routes
            group = self._groups.setdefault((impact, cause), _Group(impact))
            is_first = not group.routes or routes in group.routes
            group.routes[routes] = None
            group.methods[method] = None
            group.hosts[host] = None
            for change in several if is_first else ():
                key = change.general, change.sender.scopes
                if key not in group.callers:
                    group.callers[key] = change.caller(example(change))
            if impact is not Impact.REASON:
                self._told |= _sides(routes)

    def sorted(self) -> tuple[RouteDifference, ...]:
        """Return them, the worst first; another reason is told only of routes about which nothing else is."""
        findings = []
        for group in sorted(self._groups.values(), key=_Group.rank):
            routes = [pair for pair in group.routes if group.impact is not Impact.REASON or self._told.isdisjoint(_sides(pair))]
            if routes:
                callers = sorted(group.callers.values(), key=lambda caller: (_KINDS.index(caller.kind), len(caller.details)))
                findings.append(
                    RouteDifference(
                        group.impact, tuple(routes), tuple(sorted(group.methods)), tuple(sorted(group.hosts)), tuple(callers)
                    )
                )
        return tuple(findings)

    def _pair(self, lines: tuple[Route | None, Route | None]) -> RoutePair:
        key = id(lines[0]), id(lines[1])
        if key not in self._pairs:
            self._pairs[key] = RoutePair(*(self._line(side, route) for side, route in enumerate(lines)))
        return self._pairs[key]

    def _line(self, side: int, route: Route | None) -> RouteReference:
        return RouteReference(None, None) if route is None else RouteReference(route.name, self._places[side].get(route.name))
