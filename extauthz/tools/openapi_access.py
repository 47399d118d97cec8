"""Who may call a described operation: what the mapping file says, and never more than the description does."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, reduce

from extauthz.config.openapi_map import OpenapiMap, Rule
from extauthz.config.vocabulary import scope
from extauthz.core.model import AuthType
from extauthz.core.routes import Route
from extauthz.tools.openapi import MAX_REQUIREMENTS, DescribedOperation

MAX_ALTERNATIVES = 32
"""Sets of scopes of which each suffices; of more than that, all are needed together."""

Alternatives = frozenset[frozenset[str]]
"""Sets of scopes of which each suffices; without one nobody gets in."""


@dataclass(frozen=True, slots=True)
class Access:
    """Who gets in: everybody, whoever holds one of the sets of scopes, or nobody; `why` is for readers."""

    alternatives: Alternatives = frozenset()
    public: bool = False
    anonymous: bool = False
    why: str = ""

    @property
    def is_denied(self) -> bool:
        """Whether nobody gets in."""
        return not self.public and not self.alternatives

    def written(self) -> dict[str, object]:
        """Return it as the keys of a route; what no route says becomes all the scopes together."""
        if self.public:
            return {"public": True}
        if self.is_denied:
            return {"deny": True}
        sets = sorted(map(sorted, self.alternatives))
        keys: dict[str, object]
        if len(sets) > 1 and all(len(names) == 1 for names in sets):
            keys = {"any_of": [name for names in sets for name in names]}
        else:
            names = sorted(frozenset().union(*self.alternatives))
            keys = {"scope": names[0]} if len(names) == 1 else {"all_of": names}
        return keys | ({"anonymous": True} if self.anonymous else {})

    @property
    def words(self) -> str:
        """The keys of the route in words, as `scope CHAT`."""
        return in_words(self.written())

    def both(self, other: Access) -> Access:
        """Return who passes this and the other."""
        anonymous = (self.anonymous or self.public) and (other.anonymous or other.public)
        if self.public or other.public:
            stricter = other if self.public else self
            return replace(stricter, anonymous=anonymous and not stricter.public)
        alternatives = all_together(self.alternatives, other.alternatives)
        return Access(alternatives, anonymous=anonymous and bool(alternatives))


def in_words(keys: dict[str, object]) -> str:
    """Return the keys of a route that say who gets in, in words."""
    words = []
    for name, value in keys.items():
        words.append(f"{name} {' '.join(value) if isinstance(value, list) else value}" if name not in _FLAGS else name)
    return " ".join(sorted(words))


_FLAGS = {"public", "deny", "anonymous"}


def of_route(route: Route) -> Access:
    """Return who gets in by a route, without the kinds of token that it takes."""
    sets = frozenset({frozenset({name}) for name in route.scopes} if route.any_scope else {frozenset(route.scopes)} - {frozenset()})
    anonymous = AuthType.ANONYMOUS in route.accept
    return Access(frozenset() if route.deny or route.public else sets, route.public, anonymous)


def all_together(one: Alternatives, other: Alternatives) -> Alternatives:
    """Return the alternatives of whoever has one of each."""
    return _least(first | second for first in one for second in other)


def _least(sets: Iterable[frozenset[str]]) -> Alternatives:
    kept: list[frozenset[str]] = []
    for names in sorted(set(sets), key=len):
        if not any(smaller <= names for smaller in kept):
            kept.append(names)
    return frozenset(kept) if len(kept) <= MAX_ALTERNATIVES else frozenset({frozenset().union(*kept)})


class Accesses:
    """Who may call each operation, by one mapping file; without a vocabulary every name of a scope is right."""

    def __init__(self, rules: OpenapiMap, vocabulary: Sequence[str]) -> None:
        """Keep the rules."""
        self._rules = rules.rules
        self._vocabulary = vocabulary

    def of(self, operation: DescribedOperation) -> Access:
        """Return who may call an operation: what the first rule says that fits, and what its security demands besides."""
        needed = self._needed(operation)
        for number, rule in enumerate(self._rules, 1):
            if not fits(rule, operation):
                continue
            if rule.security is None:
                return self._of_rule(rule, number, operation)
            if needed.alternatives and any(_is_like(rule.security, name) for names in operation.security for name in names):
                return needed
        if needed.alternatives:
            return needed
        return Access(why="the mapping file denies its security" if self.floor(operation) == frozenset() else _unmapped(operation))

    def floor(self, operation: DescribedOperation) -> Alternatives | None:
        """Return what the security of an operation demands at least, as far as it is mapped; None where that is nothing."""
        sets = [self._together(names, operation, partly=True) for names in operation.security]
        if operation.is_open or not sets or any(each is None for each in sets):
            return None
        return _least(names for each in sets for names in each or ())

    def _needed(self, operation: DescribedOperation) -> Access:
        """Return what the security demands, of the alternatives of which every name is mapped; nobody without one."""
        mapped = [names for names in operation.security if self._together(names, operation) is not None]
        sets = _least(each for names in mapped for each in self._together(names, operation) or ())
        used = [rule for names in mapped for name in names for rule in [self._rule(name, operation)]]
        anonymous = operation.is_open and bool(used) and all(rule is not None and rule.anonymous for rule in used)
        shown = ", ".join(dict.fromkeys(name for names in mapped for name in names))
        return Access(sets, anonymous=anonymous, why=f"security {shown}")

    def _together(self, names: Iterable[str], operation: DescribedOperation, *, partly: bool = False) -> Alternatives | None:
        """Return what several names of security come to together; None if one is not mapped, or `partly` if none is."""
        found = [self._of_name(name, operation) for name in names]
        mapped = [each for each in found if each is not None]
        if not mapped or (len(mapped) < len(found) and not partly):
            return None
        return reduce(all_together, mapped)

    def _of_name(self, name: str, operation: DescribedOperation) -> Alternatives | None:
        rule = self._rule(name, operation)
        if rule is not None:
            return _sets(rule.scopes, any_scope=rule.any_of is not None)
        own = self._in_vocabulary(name)
        return None if own is None or not self._vocabulary else frozenset({frozenset({own})})

    def _rule(self, name: str, operation: DescribedOperation) -> Rule | None:
        rules = (rule for rule in self._rules if rule.security is not None and _is_like(rule.security, name))
        return next((rule for rule in rules if fits(rule, operation)), None)

    def _of_rule(self, rule: Rule, number: int, operation: DescribedOperation) -> Access:
        why = f"rule {number}, {_conditions(rule)}"
        if rule.deny:
            return Access(why=why)
        if rule.public:
            if not operation.is_open:
                return Access(why=f"{why} says public, and the description demands security: write public here if that is meant")
            return Access(public=True, why=why)
        sets: Alternatives | None = _sets(rule.scopes, any_scope=rule.any_of is not None)
        if rule.names_scopes:
            sets = self._of_extension(rule, operation)
            if sets is None:
                return Access(why=f"{why} names no scope that extauthz.yaml has: add the scope, or write one here")
        floor = self.floor(operation)
        if floor is not None and sets is not None:
            sets = all_together(sets, floor)
        return Access(sets or frozenset(), anonymous=bool(rule.anonymous) and operation.is_open, why=why)

    def _of_extension(self, rule: Rule, operation: DescribedOperation) -> Alternatives | None:
        value = (operation.extensions or {}).get(rule.extension or "")
        texts = value if isinstance(value, list) else [value]
        if len(texts) > MAX_REQUIREMENTS:
            return None
        names = [self._in_vocabulary(text) for text in texts]
        return None if not names or None in names else frozenset({frozenset(filter(None, names))})

    def _in_vocabulary(self, text: object) -> str | None:
        if not isinstance(text, str):
            # An error of `scope` would write it out, with all that its aliases come to.
            return None
        try:
            name = scope(text, self._vocabulary)
        except ValueError:
            return None
        return name if not self._vocabulary or name in self._vocabulary else None


def fits(rule: Rule, operation: DescribedOperation) -> bool:
    """Tell whether an operation is like a rule says, whatever its security."""
    value = (operation.extensions or {}).get(rule.extension) if rule.extension else None
    if rule.extension and ((value in (None, False, "", [], {})) if rule.value is None else not _is_value(value, rule.value)):
        return False
    return (
        (rule.method is None or rule.method == operation.method)
        and (rule.tag is None or any(_is_like(rule.tag, tag) for tag in operation.tags))
        and (
            rule.operationId is None or (operation.operation_id is not None and _is_like(rule.operationId, operation.operation_id))
        )
        and (rule.path is None or bool(_glob(rule.path, in_path=True).fullmatch(operation.path)))
    )


def _is_value(value: object, wanted: bool | int | str) -> bool:
    return type(value) is type(wanted) and value == wanted


def _is_like(glob: str, text: str) -> bool:
    return bool(_glob(glob, in_path=False).fullmatch(text))


@lru_cache(maxsize=4096)
def _glob(text: str, *, in_path: bool) -> re.Pattern[str]:
    one, many = ("[^/]*" if in_path else ".*"), ".*"
    pieces = re.split(r"(\*+)", text)
    return re.compile(
        "".join(re.escape(piece) if not piece.startswith("*") else many if len(piece) > 1 else one for piece in pieces), re.DOTALL
    )


def _sets(names: Sequence[str], *, any_scope: bool) -> Alternatives:
    """Return what a rule asks for; one without scopes lets nobody in."""
    if not names:
        return frozenset()
    return frozenset({frozenset({name}) for name in names} if any_scope else {frozenset(names)})


def _conditions(rule: Rule) -> str:
    names = ("tag", "extension", "operationId", "path", "method")
    return ", ".join(f"{name} {value}" for name in names if (value := getattr(rule, name)) is not None)


def _unmapped(operation: DescribedOperation) -> str:
    if operation.is_open and not operation.security:
        return "the description asks for no security: add a rule that says public or a scope, or write it here"
    return f"no rule for {', '.join(_names_of(operation))}: add one to the mapping file, or write a scope here"


def _names_of(operation: DescribedOperation) -> Iterator[str]:
    needs = dict.fromkeys(name for names in operation.security for name in names)
    if needs:
        yield f"security {' '.join(needs)}"
    if operation.tags:
        yield f"tag {' '.join(operation.tags)}"
