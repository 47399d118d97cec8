"""What the cases of suites reach of a configuration, and what could be reached at all."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from extauthz.config.loader import Configuration
from extauthz.core.model import Allow, Decision, Reason
from extauthz.tools.callers import VERIFYING
from extauthz.tools.suite_examples import Examples, RequestExample, reasons_of

_LONGEST = 200
"""Characters of a request that is told as an example."""
FIXED = frozenset({Reason.REQUEST_MALFORMED, Reason.INTERNAL})
"""Reasons that no request comes to which can be described."""


@dataclass(frozen=True, slots=True)
class Missed:
    """What no case reaches: a route, a scope or a reason; where it stands, and a request that would reach it."""

    kind: str
    name: str
    place: str | None = None
    example: str | None = None


@dataclass(frozen=True, slots=True)
class SuiteCoverage:
    """How much cases reach of what can be reached, by "routes", "scopes" and "reasons", what they miss, and what cannot be reached.

    Reasons that only verifying a token comes to do not count: a configuration does not decide them.
    """

    reached: Mapping[str, int]
    reachable: Mapping[str, int]
    missed: tuple[Missed, ...]
    unreachable: tuple[Missed, ...]

    @property
    def percent(self) -> float:
        """The share of routes, scopes and reasons that is reached; 100 for a configuration that has none."""
        total = sum(self.reachable.values())
        return 100 * sum(self.reached.values()) / total if total else 100.0


def coverage_of(decisions: Iterable[Decision], configuration: Configuration, now: float) -> SuiteCoverage:
    """Return what decisions reach.

    A route is reached by a decision on it, a scope by an allow on a route that asks for it and with a token that holds it.
    """
    examples = Examples(configuration, now)
    asked = {entry.route.name: frozenset(entry.route.scopes) for entry in examples.entries}
    found: dict[str, set[str]] = {"route": set(), "scope": set(), "reason": set()}
    for decision in decisions:
        found["reason"].add(decision.reason.value)
        if decision.route is not None:
            found["route"].add(decision.route)
        if isinstance(decision, Allow) and decision.identity is not None:
            found["scope"] |= asked.get(decision.route, frozenset()) & decision.identity.scopes
    can_be = {"route": _routes(examples), "scope": _scopes(examples), "reason": _reasons(examples)}
    never = (
        *(Missed("route", entry.route.name, entry.place) for entry in examples.entries if entry.route.name not in can_be["route"]),
        *(Missed("scope", name) for name in configuration.settings.scopes if name not in can_be["scope"]),
        *(Missed("reason", reason.value) for reason in Reason if reason.value not in can_be["reason"] and _is_decided(reason)),
    )
    return SuiteCoverage(
        {f"{kind}s": len(found[kind] & can_be[kind].keys()) for kind in can_be},
        {f"{kind}s": len(can_be[kind]) for kind in can_be},
        tuple(missed for kind, all_ in can_be.items() for name, missed in all_.items() if name not in found[kind]),
        never,
    )


def _is_decided(reason: Reason) -> bool:
    """Tell whether some configuration comes to a reason by itself, and not by verifying a token."""
    return reason not in FIXED and (reason not in VERIFYING or reason is Reason.TOKEN_EXPIRED)


def _routes(examples: Examples) -> dict[str, Missed]:
    return {
        entry.route.name: Missed("route", entry.route.name, entry.place, f"{entry.request.method} {entry.request.path}")
        for entry in examples.entries
        if entry.request is not None
    }


def _scopes(examples: Examples) -> dict[str, Missed]:
    """Return the scopes with which some token is allowed somewhere, in the order of the vocabulary."""
    found: dict[str, Missed] = {}
    for entry in examples.entries:
        if not found.keys() >= {*entry.route.scopes}:
            found |= {name: Missed("scope", name, entry.place) for name in examples.opening(entry) if name not in found}
    return found


def _reasons(examples: Examples) -> dict[str, Missed]:
    return {
        reason.value: Missed("reason", reason.value, None, _words(example, shows_host=reason is Reason.HOST_MALFORMED))
        for reason, example in reasons_of(examples).items()
        if _is_decided(reason)
    }


def _words(example: RequestExample, *, shows_host: bool) -> str:
    """Describe a request in the words of a case."""
    headers = ", ".join(f"{name}: {value}" for name, value in example.call.headers.items())
    host = f" at {example.call.host}" if shows_host else ""
    text = f"{example.call.method} {example.call.path} as {example.who}{host}" + (f" with {headers}" if headers else "")
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"
