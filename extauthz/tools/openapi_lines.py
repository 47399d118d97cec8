"""The lines of a route file that operations of API descriptions come to: one for each method of each pattern."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import reduce

from extauthz.config.openapi_map import OpenapiMap
from extauthz.config.patterns import parse_match
from extauthz.core.routes import Match
from extauthz.core.upstream import Upstream
from extauthz.errors import ConfigurationError, Problem
from extauthz.tools.openapi import DescribedOperation
from extauthz.tools.openapi_access import Access, Accesses
from extauthz.tools.openapi_paths import PatternFit, pattern, shape
from extauthz.tools.openapi_sharing import Key, Placed, Sharing
from extauthz.tools.yaml_text import quoted

MAX_NAME = 200
MAX_WHY = 200
_BRACKETS = str.maketrans("()", "[]")


@dataclass(frozen=True, slots=True)
class Line:
    """A route that operations come to, who gets in, and the name that it can have."""

    match: Match
    access: Access
    operations: tuple[DescribedOperation, ...]
    name: str | None = None


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
    groups: dict[Key, tuple[Match, list[Placed]]] = {}
    spelled: dict[tuple[tuple[str | None, ...], bool], str] = {}
    for match in there:
        read = match.read_by(upstream)
        spelled.setdefault((read.segments, read.rest), match.text.partition(" ")[2])
    problems: list[Problem] = []
    for operation in operations:
        for base in dict.fromkeys(server.base for server in operation.servers):
            nearest = pattern(base + operation.path, operation.matrix, rest=rules.wildcards == "rest")
            placed = Placed(operation, nearest, shape(base + operation.path, operation.matrix))
            try:
                match = parse_match(f"{operation.method} {nearest.text}")
            except ValueError as error:
                problems.append(Problem(operation.place, 0, "", f"no route can be made of it: {error}"))
                continue
            read = match.read_by(upstream)
            # Patterns that are one for the upstream are written alike.
            text = spelled.setdefault((read.segments, read.rest), nearest.text)
            match = parse_match(f"{operation.method} {text}")
            groups.setdefault((operation.method, read.segments, read.rest), (match, []))[1].append(placed)
    if problems:
        raise ConfigurationError(problems)
    names = Counter(operation.operation_id for operation in operations)
    lines = {key: _line(match, group, accesses, rules, names) for key, (match, group) in groups.items()}
    placed_at = {key: group for key, (_, group) in groups.items()}
    for key, whole in dict(Sharing(placed_at, upstream).hidden()).items():
        match = parse_match(f"{key[0]} {spelled[key[1:]]}")
        placed_at[key] = placed_at[whole]
        why = f"{lines[whole].access.why}; a part of {lines[whole].match.text}"
        lines[key] = replace(lines[whole], match=match, access=replace(lines[whole].access, why=why), name=None)
    for key, placed in Sharing(placed_at, upstream).astray():
        lines[key] = _stricter(lines[key], placed, accesses)
    return lines


def keys_of(match: Match, upstream: Upstream) -> list[Key]:
    """Return the keys of a route, one for each of its methods."""
    read = match.read_by(upstream)
    return [(method, read.segments, read.rest) for method in match.methods]


def _line(match: Match, group: list[Placed], accesses: Accesses, rules: OpenapiMap, names: Counter[str | None]) -> Line:
    operations = tuple(dict.fromkeys(placed.operation for placed in group))
    access = _access(group, accesses, rules)
    name = operations[0].operation_id
    bases = {server.base for server in operations[0].servers}
    is_own = len(operations) == 1 and len(bases) == 1 and names[name] == 1
    is_valid = name is not None and name.isprintable() and len(name) <= MAX_NAME
    return Line(match, access, operations, name if is_own and is_valid else None)


def _stricter(line: Line, placed: Placed, accesses: Accesses) -> Line:
    """Let a line open nothing that an operation, of which some paths come to it, does not."""
    access = line.access.both(accesses.of(placed.operation))
    if access.words == line.access.words:
        return line
    return replace(line, access=replace(access, why=f"{line.access.why}; {placed.operation.label} shares paths and is stricter"))


def _access(group: list[Placed], accesses: Accesses, rules: OpenapiMap) -> Access:
    reached = [placed for placed in group if placed.is_reached]
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
