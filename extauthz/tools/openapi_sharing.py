"""Paths of wildcards that come to lines of other operations, because no pattern says which segments they have."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from extauthz.core.routes import Match, MethodTable, Route, compile_routes
from extauthz.core.upstream import Upstream
from extauthz.tools.openapi import DescribedOperation
from extauthz.tools.openapi_paths import Parameter, Pattern, PatternFit, Shape
from extauthz.tools.openapi_shapes import Shapes, numbers_of, path_of

MAX_PATHS = 1_000
"""Paths of one template that are tried: only one with several wildcards has more, and then is taken to have all."""

Key = tuple[str, tuple[str | None, ...], bool]
"""A method, the segments of a pattern, and whether it goes on behind them."""

_ALL = ""


@dataclass(frozen=True, slots=True, eq=False)
class Placed:
    """An operation at one base, with the pattern that is nearest to its template, and the shape of the template."""

    operation: DescribedOperation
    pattern: Pattern
    shape: Shape

    @property
    def is_reached(self) -> bool:
        """Whether requests come to it at all."""
        return self.pattern.fit is not PatternFit.NEVER


class Sharing:
    """Lines by their keys, each with its operations, and what becomes of the paths that these have."""

    def __init__(self, groups: Mapping[Key, Sequence[Placed]], upstream: Upstream) -> None:
        """Compile the lines to a table, and the templates to one for each method and one for all."""
        self._groups = groups
        self._table = compile_routes(Route("", Match("", (method,), segments, rest)) for method, segments, rest in groups)
        self._longest = max((len(segments) for _, segments, _ in groups), default=0)
        self._templates: dict[str, Shapes[Placed]] = {_ALL: Shapes(upstream)}
        for (method, *_), group in groups.items():
            of_method = self._templates.setdefault(method, Shapes(upstream))
            for placed in filter(_is_reached, group):
                of_method.add(placed.shape, placed)
                self._templates[_ALL].add(placed.shape, placed)

    def astray(self) -> Iterator[tuple[Key, Placed]]:
        """Yield the operations of which paths come to lines of others, with these lines; paths that belong to others are theirs."""
        for key, placed in self._wildcards():
            paths = self._paths(placed)
            if paths is None:
                yield from ((other, placed) for other in self._groups if other[0] == key[0] and other != key)
                continue
            found = (
                _key_of(key[0], methods)
                for path in paths
                if (methods := self._table.search(path)) and key[0] in methods and self._is_of(placed, path, key[0])
            )
            yield from ((other, placed) for other in dict.fromkeys(found) if other != key)

    def hidden(self) -> Iterator[tuple[Key, Key]]:
        """Yield patterns that take paths of a line for other methods alone, with the method of the line, and the line.

        Such a path belongs to an operation of the line: the pattern is of templates that do not have it.
        """
        for key, placed in self._wildcards():
            for path in self._paths(placed) or () if key[2] else ():
                methods = self._table.search(path)
                if methods and key[0] not in methods and self._is_of(placed, path, _ALL):
                    other = _key_of(key[0], methods)
                    if _is_part(other, key):
                        yield other, key

    def _wildcards(self) -> Iterator[tuple[Key, Placed]]:
        for key, group in self._groups.items():
            yield from ((key, placed) for placed in filter(_is_reached, group) if Parameter.REST in placed.shape)

    def _paths(self, placed: Placed) -> list[tuple[str, ...]] | None:
        shape = self._templates[_ALL].read(placed.shape)
        several = numbers_of(shape, self._longest, MAX_PATHS)
        return None if several is None else [path_of(shape, numbers) for numbers in several]

    def _is_of(self, placed: Placed, path: Sequence[str], method: str) -> bool:
        return any(owner is placed for _, owner in self._templates[method].owning(path))


def _is_reached(placed: Placed) -> bool:
    return placed.is_reached


def _key_of(method: str, methods: MethodTable) -> Key:
    match = next(iter(methods.values())).match
    return method, match.segments, match.rest


def _is_part(key: Key, whole: Key) -> bool:
    """Tell whether a pattern that goes on behind its segments has all paths of another."""
    pairs = zip(whole[1], key[1], strict=False)
    return len(key[1]) >= len(whole[1]) and all(mine == theirs or (mine is None and theirs != "") for mine, theirs in pairs)
