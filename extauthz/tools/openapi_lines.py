"""The lines of a route file that operations of API descriptions come to: one for each method of each pattern."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import reduce

from extauthz.config.openapi_map import OpenapiMap
from extauthz.config.patterns import parse_match
from extauthz.core.routes import Match
from extauthz.core.upstream import Upstream
from extauthz.errors import ConfigurationError, Problem
from extauthz.tools.openapi import DescribedOperation
from extauthz.tools.openapi_access import Access, Accesses
from extauthz.tools.openapi_paths import Pattern, PatternFit, pattern
from extauthz.tools.yaml_text import quoted

MAX_NAME = 200
MAX_WHY = 200
_BRACKETS = str.maketrans("()", "[]")

Key = tuple[str, tuple[str | None, ...], bool]
"""A method, the segments of a pattern, and whether it goes on behind them."""


@dataclass(frozen=True, slots=True)
class Line:
    """A route that operations come to, who gets in, and the name that it can have."""

    match: Match
    access: Access
    operations: tuple[DescribedOperation, ...]
    name: str | None = None


@dataclass(frozen=True, slots=True)
class _Placed:
    operation: DescribedOperation
    pattern: Pattern


def lines_of(
    operations: Sequence[DescribedOperation],
    rules: OpenapiMap,
    vocabulary: Sequence[str],
    upstream: Upstream,
    there: Iterable[Match] = (),
) -> dict[Key, Line]:
    """Return the lines in the order of the operations, with patterns written as those that are `there`.

    Raises ConfigurationError for a path that no pattern can be made of.
    """
    accesses = Accesses(rules, vocabulary)
    groups: dict[Key, tuple[Match, list[_Placed]]] = {}
    spelled: dict[tuple[tuple[str | None, ...], bool], str] = {}
    for match in there:
        read = match.read_by(upstream)
        spelled.setdefault((read.segments, read.rest), match.text.partition(" ")[2])
    problems: list[Problem] = []
    for operation in operations:
        for base in dict.fromkeys(server.base for server in operation.servers):
            placed = pattern(base + operation.path, operation.matrix, rest=rules.wildcards == "rest")
            try:
                match = parse_match(f"{operation.method} {placed.text}")
            except ValueError as error:
                problems.append(Problem(operation.place, 0, "", f"no route can be made of it: {error}"))
                continue
            read = match.read_by(upstream)
            # Patterns that are one for the upstream are written alike.
            text = spelled.setdefault((read.segments, read.rest), placed.text)
            match = parse_match(f"{operation.method} {text}")
            groups.setdefault((operation.method, read.segments, read.rest), (match, []))[1].append(_Placed(operation, placed))
    if problems:
        raise ConfigurationError(problems)
    names = Counter(operation.operation_id for operation in operations)
    return {key: _line(match, group, accesses, rules, names) for key, (match, group) in groups.items()}


def keys_of(match: Match, upstream: Upstream) -> list[Key]:
    """Return the keys of a route, one for each of its methods."""
    read = match.read_by(upstream)
    return [(method, read.segments, read.rest) for method in match.methods]


def _line(match: Match, group: list[_Placed], accesses: Accesses, rules: OpenapiMap, names: Counter[str | None]) -> Line:
    operations = tuple(dict.fromkeys(placed.operation for placed in group))
    access = _access(group, accesses, rules)
    name = operations[0].operation_id
    bases = {server.base for server in operations[0].servers}
    is_own = len(operations) == 1 and len(bases) == 1 and names[name] == 1
    is_valid = name is not None and name.isprintable() and len(name) <= MAX_NAME
    return Line(match, access, operations, name if is_own and is_valid else None)


def _access(group: list[_Placed], accesses: Accesses, rules: OpenapiMap) -> Access:
    reached = [placed for placed in group if placed.pattern.fit is not PatternFit.NEVER]
    notes = list(dict.fromkeys(note for placed in group for note in placed.pattern.notes))
    if not reached:
        return Access(why="; ".join(notes))
    wanted = [accesses.of(placed.operation) for placed in reached]
    access = reduce(lambda one, other: one.both(other), wanted)
    closest = min(placed.pattern.fit for placed in reached)
    if closest is PatternFit.OTHER or (closest is PatternFit.WIDER and rules.mixed_segments == "deny"):
        hint = ", or say mixed_segments: parameter in the mapping file" if closest is PatternFit.WIDER else ""
        return Access(why="; ".join([*notes, f"write the scope here if all that the pattern matches may be called with it{hint}"]))
    reasons = list(dict.fromkeys(each.why for each in wanted))
    if access.is_denied:
        # What opens is no reason.
        reasons = list(dict.fromkeys(each.why for each in wanted if each.is_denied)) or reasons
    shared = [f"{len(reached)} operations share it"] if len({placed.operation.label for placed in reached}) > 1 else []
    return Access(access.alternatives, access.public, access.anonymous, "; ".join([*shared, *reasons, *notes]))


def written(line: Line, indent: str, name: str | None) -> str:
    """Return a new line of a route file, without a comment."""
    keys = {"match": line.match.text, **line.access.written(), **({"name": name} if name else {})}
    return f"{indent}- {{{', '.join(f'{key}: {_value(key, value)}' for key, value in keys.items())}}}"


def _value(key: str, value: object) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(str, value))}]"
    if isinstance(value, bool):
        return str(value).lower()
    return quoted(str(value)) if key in ("match", "name") else str(value)


def comment_of(decision: str, why: str, tail: str = "") -> str:
    """Return the comment of an imported line: what was imported, why, and what somebody wrote behind it."""
    return f"# imported: {decision} ({_plain(why)}){tail}"


def _plain(why: str) -> str:
    text = "".join(letter if letter.isprintable() else "?" for letter in why.translate(_BRACKETS))
    return text if len(text) <= MAX_WHY else f"{text[: MAX_WHY - 1]}…"
