"""Which templates of API descriptions have a path, and whose it is: that of the template that says most about it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache, lru_cache
from itertools import product
from typing import Generic, TypeVar

from extauthz.core.upstream import STRICT, Upstream, fold
from extauthz.tools.openapi_paths import Parameter, Shape

ANYTHING = "\0"
"""Stands in a path for a segment that no template and no route names."""

T = TypeVar("T")


@dataclass(slots=True, eq=False)
class _Place(Generic[T]):
    """A piece of shapes: what goes on behind it, and what ends there."""

    piece: str | Parameter = ""
    following: dict[str | Parameter, _Place[T]] = field(default_factory=dict)
    ends: list[tuple[Shape, T]] = field(default_factory=list)


class Shapes(Generic[T]):
    """Things by the shapes of their paths, as an upstream reads them."""

    def __init__(self, upstream: Upstream) -> None:
        """Begin without any."""
        self._upstream = upstream
        self._root: _Place[T] = _Place()

    def add(self, shape: Shape, thing: T) -> None:
        """Keep a thing whose paths have this shape."""
        shape = self.read(shape)
        place = self._root
        for piece in shape:
            place = place.following.setdefault(piece, _Place(piece))
        place.ends.append((shape, thing))

    def read(self, shape: Shape) -> Shape:
        """Return a shape, or the segments of a path, as the upstream reads them; shapes with the same paths are one."""
        if self._upstream.ignores_slash and len(shape) > 1 and shape[-1] == "":
            shape = shape[:-1]
        pieces = (fold(piece) if isinstance(piece, str) and self._upstream.ignores_case else piece for piece in shape)
        return _simplified(pieces)

    def having(self, segments: Sequence[str]) -> list[tuple[Shape, T]]:
        """Return the things that have a path, with their shapes."""
        places = _with_rests([self._root])
        for segment in self.read(tuple(segments)):
            places = _with_rests(following for place in places for following in _behind(place, segment))
        return [end for place in places for end in place.ends]

    def owning(self, segments: Sequence[str]) -> list[tuple[Shape, T]]:
        """Return those of the things that have a path that it belongs to: no other of them comes first."""
        having = self.having(segments)
        shapes = {shape for shape, _ in having}
        path = self.read(tuple(segments))
        return [(shape, thing) for shape, thing in having if not any(comes_first(other, shape, path) for other in shapes)] or having


def _behind(place: _Place[T], segment: str | Parameter) -> Iterator[_Place[T]]:
    if place.piece is Parameter.REST:
        yield place
    # A parameter is never empty.
    for piece in (segment, Parameter.SEGMENT) if segment else (segment,):
        if piece in place.following:
            yield place.following[piece]


def _with_rests(places: Iterable[_Place[T]]) -> list[_Place[T]]:
    """Return the places, each once, and those that are reached where a rest is nothing."""
    found: dict[_Place[T], None] = {}
    for place in places:
        following: _Place[T] | None = place
        while following is not None and following not in found:
            found[following] = None
            following = following.following.get(Parameter.REST)
    return list(found)


def comes_first(shape: Shape, other: Shape, path: Shape) -> bool:
    """Tell whether a path that two shapes have belongs to the first of them.

    It does if the other has all paths of it and more. Where neither has all of the other, the first literal counts, from the left:
    concrete templates come before their counterparts with parameters (OpenAPI 3.1, Path Templating Matching). What that does not
    say is ambiguous.
    """
    if _is_part(shape, other):
        return True
    return not _is_part(other, shape) and _literals(shape, path) > _literals(other, path)


@lru_cache(maxsize=4096)
def _is_part(shape: Shape, other: Shape) -> bool:
    return _has_all(other, shape) and not _has_all(shape, other)


def _literals(shape: Shape, path: Shape) -> tuple[bool, ...]:
    """Tell for each segment of a path whether the shape has a literal there; of several ways the one with the first literals."""

    @cache
    def ways_from(piece: int, segment: int) -> tuple[bool, ...] | None:
        if piece == len(shape):
            return () if segment == len(path) else None
        form, is_rest = shape[piece], shape[piece] is Parameter.REST
        ways = [ways_from(piece + 1, segment)] if is_rest else []
        if segment < len(path) and (is_rest or form == path[segment] or (form is Parameter.SEGMENT and path[segment])):
            following = ways_from(piece if is_rest else piece + 1, segment + 1)
            ways.append(None if following is None else (isinstance(form, str), *following))
        return max((way for way in ways if way is not None), default=None)

    return ways_from(0, 0) or ()


def numbers_of(shape: Shape, longest: int, most: int) -> list[tuple[int, ...]] | None:
    """Return how many segments each REST of a shape can stand for, to one more than `longest`; None for more than `most` ways."""
    rests = shape.count(Parameter.REST)
    return list(product(range(longest + 2), repeat=rests)) if (longest + 2) ** rests <= most else None


def path_of(shape: Shape, numbers: Iterable[int]) -> tuple[str, ...]:
    """Return the segments of a path with this shape, of which each parameter is ANYTHING, and each REST so many of them."""
    segments: list[str] = []
    left = iter(numbers)
    for piece in shape:
        if isinstance(piece, str):
            segments.append(piece)
        else:
            segments += [ANYTHING] * (next(left) if piece is Parameter.REST else 1)
    return tuple(segments)


def _has_all(whole: Shape, part: Shape) -> bool:
    shapes: Shapes[None] = Shapes(STRICT)
    shapes.add(whole, None)
    # What takes none, one, and more segments than it has itself for each rest takes any number.
    return all(shapes.having(path_of(part, [number] * len(part))) for number in (0, 1, len(whole) + 1))


def _simplified(shape: Iterable[str | Parameter]) -> Shape:
    """Return a shape with the same paths and at most one REST between two literals, behind the segments."""
    pieces: list[str | Parameter] = []
    for piece in shape:
        if pieces and pieces[-1] is Parameter.REST and isinstance(piece, Parameter):
            pieces[-1:] = [Parameter.REST] if piece is Parameter.REST else [Parameter.SEGMENT, Parameter.REST]
        else:
            pieces.append(piece)
    return tuple(pieces)
