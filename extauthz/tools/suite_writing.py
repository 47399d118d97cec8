"""A first suite for a configuration: each route with the least scopes, without them, and for nobody."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from extauthz.admin.route_map import RouteEntry
from extauthz.config.loader import Configuration
from extauthz.core.model import Decision, Reason
from extauthz.tools.calls import Call, decided_call
from extauthz.tools.suite_examples import Examples, RequestExample
from extauthz.tools.yaml_text import quoted

_HEAD = """\
# What the configuration decides, route by route: these cases are the rules as they were when `extauthz test --init` wrote them.
# Change a rule, and `extauthz test` names the cases that it changes. Write cases of your own beside them.
"""
_NAMED = 3
"""Scopes that the name of a caller names at most."""
_NO_OTHERS = "  # No token lacks what it asks for: the vocabulary has no other scope."
_KINDS = {"USER": "a user", "GLOBAL": "a service", "oauth": "somebody", "ANONYMOUS": "an anonymous token"}


def suite_of(configuration: Configuration, now: float) -> str:
    """Return the text of a suite that passes as it is written; `now` is in seconds since the epoch."""
    writer = _Writer(configuration, now)
    lines = [*writer.lines()]
    people = [f"  {quoted(name)}: {quoted(words)}" for name, words in writer.people.items()]
    return _HEAD + "\n".join([*(["people:", *people, ""] if people else []), "cases:", *lines]) + "\n"


@dataclass(slots=True)
class _Writer:
    """Writes cases, and names the callers in them."""

    configuration: Configuration
    now: float
    _names: dict[tuple[str, str], str] = field(default_factory=dict)
    _used: Counter[str] = field(default_factory=Counter)

    @property
    def people(self) -> Mapping[str, str]:
        """The callers in words, by the names that cases give them."""
        return {name: words for (words, _), name in self._names.items()}

    def lines(self) -> Iterator[str]:
        """Yield the lines of all cases."""
        examples = Examples(self.configuration, self.now)
        for entry in examples.entries:
            yield f"  # {_rule(entry)}"
            found = examples.of(entry)
            if found is None:
                yield "  # No request reaches it."
                continue
            route = entry.route
            asks_for_none = route.public or route.deny
            needed = route.scopes[:1] if route.any_scope else route.scopes
            yield self._case(found.least, "with every scope" if asks_for_none else f"with {_and(needed)}")
            if found.lacking is not None:
                lacked = route.scopes if route.any_scope else route.scopes[-1:]
                yield self._case(found.lacking, f"with all but {_and(lacked)}")
            elif not asks_for_none:
                yield _NO_OTHERS
            yield self._case(found.nobody, "")
        yield "  # What no route names."
        call = Call("GET", "/no-such-path/0", "no-such-host.invalid")
        yield self._case(RequestExample(call, "nobody", None, decided_call(self.configuration.policy, call, self.now)), "")

    def _case(self, example: RequestExample, scopes: str) -> str:
        call = example.call
        parts = {"request": f"{call.method} {call.path}"}
        if self.configuration.policy.hosts:
            parts["host"] = call.host
        parts["who"] = example.who if example.call.caller.kind is None else self._person(example.who, scopes)
        if example.act_as is not None:
            parts["act_as"] = example.act_as
        fields = [f"{name}: {quoted(text.replace('${', '$${'))}" for name, text in parts.items()]
        return f"  - {{{', '.join([*fields, f'expect: {_expectation(example.decision)}'])}}}"

    def _person(self, words: str, scopes: str) -> str:
        """Return the name of a caller, a new one where there is none yet."""
        if (words, scopes) not in self._names:
            kind, *values = words.split(" ")
            provider = next((value.partition("=")[2] for value in values if value.startswith("provider=")), "")
            name = " ".join(filter(None, [_KINDS[kind], provider and f"of {provider}", scopes]))
            self._used[name] += 1
            self._names[words, scopes] = f"{name} ({self._used[name]})" if self._used[name] > 1 else name
        return self._names[words, scopes]


def _expectation(decision: Decision) -> str:
    if decision.reason is Reason.ALLOWED:
        return "allow"
    return f"{{decision: {decision.outcome}, reason: {decision.reason.value}}}"


def _rule(entry: RouteEntry) -> str:
    """Return what a route says, on one line: a comment ends with its line."""
    route = entry.route
    rule = "public" if route.public else "deny" if route.deny else (" or " if route.any_scope else " and ").join(route.scopes)
    hosts = f" at {', '.join(entry.hosts)}" if entry.hosts else ""
    return quoted(f"{route.match.text}{hosts}: {rule}")[1:-1]


def _and(names: Sequence[str]) -> str:
    """Name a few scopes: the key of a mapping has an end."""
    return " and ".join(names) if len(names) <= _NAMED else f"{names[0]} and {len(names) - 1} more"
