"""As much of the Common Expression Language as the rules of custom resource definitions in tests/data/crds use.

What is not known here raises an error: no rule passes because it was not understood.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

TOKEN = re.compile(r"""\s*("[^"]*"|'[^']*'|\d+|&&|\|\||==|!=|<=|>=|\w+|[-+<>!?:.,()\[\]])""")
UNITS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}

Scope = Mapping[str, Any]
Node = Callable[[Scope], Any]


class Absent(Exception):
    """A field that is not there."""


def evaluate(rule: str, value: Any) -> bool:
    """Return what a rule says of a value, its `self`; raises ValueError for what is not understood."""
    result = Parser(tokens(rule)).whole()({"self": value})
    if not isinstance(result, bool):
        raise ValueError(f"{rule!r} is not true or false")
    return result


def tokens(rule: str) -> list[str]:
    """Cut a rule into its tokens."""
    cut, at = [], 0
    rule = rule.rstrip()
    while at < len(rule):
        match = TOKEN.match(rule, at)
        if match is None:
            raise ValueError(f"not understood: {rule[at:]!r}")
        cut.append(match[1])
        at = match.end()
    return cut


def seconds(text: str) -> float:
    """Read a duration, like 1m30s."""
    parts = re.findall(r"(\d+)(ms|h|m|s)", text)
    return sum(int(number) * UNITS[unit] for number, unit in parts)


def field(holder: Any, name: str) -> Any:
    """Return a field; raises Absent."""
    if isinstance(holder, dict) and name in holder:
        return holder[name]
    raise Absent(name)


@dataclass
class Parser:
    """Reads tokens by recursive descent."""

    left: list[str]

    def whole(self) -> Node:
        node = self.choice()
        if self.left:
            raise ValueError(f"not understood: {self.left}")
        return node

    def taken(self, *wanted: str) -> str | None:
        return self.left.pop(0) if self.left and self.left[0] in wanted else None

    def need(self, token: str) -> None:
        if self.taken(token) is None:
            raise ValueError(f"{token!r} is missing before {self.left[:3]}")

    def choice(self) -> Node:
        condition = self.either()
        if self.taken("?") is None:
            return condition
        first = self.choice()
        self.need(":")
        second = self.choice()
        return lambda scope: first(scope) if condition(scope) else second(scope)

    def either(self) -> Node:
        parts = [self.both()]
        while self.taken("||"):
            parts.append(self.both())
        return parts[0] if len(parts) == 1 else lambda scope: any(part(scope) for part in parts)

    def both(self) -> Node:
        parts = [self.compared()]
        while self.taken("&&"):
            parts.append(self.compared())
        return parts[0] if len(parts) == 1 else lambda scope: all(part(scope) for part in parts)

    def compared(self) -> Node:
        first = self.sum()
        sign = self.taken("==", "!=", "<", "<=", ">", ">=", "in")
        if sign is None:
            return first
        second = self.sum()
        compare: dict[str, Callable[[Any, Any], bool]] = {
            "==": lambda a, b: a == b,
            "!=": lambda a, b: a != b,
            "<": lambda a, b: a < b,
            "<=": lambda a, b: a <= b,
            ">": lambda a, b: a > b,
            ">=": lambda a, b: a >= b,
            "in": lambda a, b: a in b,
        }
        return lambda scope: compare[sign](first(scope), second(scope))

    def sum(self) -> Node:
        parts = [self.unary()]
        while self.taken("+"):
            parts.append(self.unary())
        return parts[0] if len(parts) == 1 else lambda scope: sum(part(scope) for part in parts)

    def unary(self) -> Node:
        if self.taken("!"):
            inner = self.unary()
            return lambda scope: not inner(scope)
        return self.postfix()

    def postfix(self) -> Node:
        node = self.primary()
        while (sign := self.taken(".", "[")) is not None:
            if sign == "[":
                node = self.item(node, self.choice())
                self.need("]")
            else:
                name = self.left.pop(0)
                node = self.method(node, name) if self.taken("(") else self.member(node, name)
        return node

    @staticmethod
    def item(node: Node, index: Node) -> Node:
        return lambda scope: node(scope)[index(scope)]

    @staticmethod
    def member(node: Node, name: str) -> Node:
        return lambda scope: field(node(scope), name)

    def method(self, node: Node, name: str) -> Node:
        if name in ("all", "exists", "filter"):
            variable = self.left.pop(0)
            self.need(",")
            body = self.choice()
            self.need(")")
            if name == "filter":
                return lambda scope: [each for each in node(scope) if body({**scope, variable: each})]
            quantifier = all if name == "all" else any
            return lambda scope: quantifier(body({**scope, variable: each}) for each in node(scope))
        if name == "size":
            self.need(")")
            return lambda scope: len(node(scope))
        if name == "contains":
            part = self.choice()
            self.need(")")
            return lambda scope: part(scope) in node(scope)
        raise ValueError(f"no method {name!r}")

    def primary(self) -> Node:
        token = self.left.pop(0)
        if token == "(":
            node = self.choice()
            self.need(")")
            return node
        if token == "[":
            items = []
            while self.taken("]") is None:
                items.append(self.choice())
                self.taken(",")
            return lambda scope: [item(scope) for item in items]
        if token[0] in "\"'":
            return lambda scope: token[1:-1]
        if token.isdigit():
            return lambda scope: int(token)
        if token in ("true", "false"):
            return lambda scope: token == "true"
        if token in ("has", "size", "duration") and self.taken("("):
            return self.function(token)
        return lambda scope: scope[token]

    def function(self, name: str) -> Node:
        inner = self.choice()
        self.need(")")
        if name == "size":
            return lambda scope: len(inner(scope))
        if name == "duration":
            return lambda scope: seconds(inner(scope))

        def present(scope: Scope) -> bool:
            try:
                inner(scope)
            except Absent:
                return False
            return True

        return present
