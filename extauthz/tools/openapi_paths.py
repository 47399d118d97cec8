"""Path templates of API descriptions as patterns of route files, and as paths to ask about."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, IntEnum
from urllib.parse import quote, unquote, unquote_to_bytes

from extauthz.core.paths import is_reachable

WORD = "example"
"""Stands for a parameter in a path to ask about."""

_ASSIGNED = re.compile(r"\{([^{}=]+)=([^{}]*)\}")
_NOT_OF_THE_PATH = re.compile(r"\{[?&#][^{}]*\}")
_EXPRESSION = re.compile(r"\{([^{}]*)\}")
_PIECES = re.compile(r"/((?:\{[^{}]*\}|[^/])*)").findall
_BROKEN_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})").search
_ANYTHING = re.compile(r"\*|\+|path|.*\.[*+].*").fullmatch
_PLAIN_NAME = re.compile(r"[^A-Za-z0-9_]")
_SAFE = "/%~!$&'()*+,=:@;"


class Parameter(Enum):
    """What a parameter of a template stands for: a segment, or with REST behind it that and any number of others."""

    SEGMENT = "segment"
    REST = "rest"


Shape = tuple[str | Parameter, ...]
"""What all paths of a template have in common: literals, decoded, and parameters."""


class PatternFit(IntEnum):
    """How a pattern compares with its template; the largest of several counts."""

    SAME = 0
    NARROWER = 1
    WIDER = 2
    """The pattern has paths that the template lacks: only a mapping file that says so opens it."""
    OTHER = 3
    """The pattern stands for something that cannot be written: it only denies."""
    NEVER = 4
    """No request comes that far: such paths are refused before any route is looked at."""


@dataclass(frozen=True, slots=True)
class Pattern:
    """The pattern that is nearest to a template, how it compares, and why."""

    text: str
    fit: PatternFit = PatternFit.SAME
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Segment:
    text: str
    fit: PatternFit = PatternFit.SAME
    note: str = ""
    is_wildcard: bool = False


def pattern(template: str, matrix: frozenset[str] = frozenset(), *, rest: bool = False) -> Pattern:
    """Return the pattern of a template; with `rest` a wildcard at its end takes more segments than one."""
    path, behind = _cut(template)
    pieces = _PIECES(path)
    segments = [_segment(piece, matrix, is_last=index == len(pieces) - 1) for index, piece in enumerate(pieces)]
    kept = [segment for segment in segments if segment is not None]
    texts = [segment.text for segment in kept]
    if rest and kept and kept[-1].is_wildcard:
        kept.pop()
        texts.append("**")
    fit = max((segment.fit for segment in kept), default=PatternFit.SAME)
    notes = [segment.note for segment in kept if segment.note]
    if None in segments:
        fit, notes = PatternFit.NEVER, [*notes, "paths with an empty segment are refused"]
    if behind.startswith("?"):
        fit, notes = max(fit, PatternFit.OTHER), [*notes, "a query is never matched"]
    elif behind:
        notes = [*notes, "clients leave the fragment out"]
    return Pattern("/" + "/".join(texts), fit, tuple(dict.fromkeys(notes)))


def sample(template: str, matrix: frozenset[str] = frozenset(), word: str = WORD, numbers: Sequence[int] = ()) -> str:
    """Return a path, with its query, that the template describes; every parameter is this word.

    `numbers` are the segments that each REST of its shape stands for, of the first one first.
    """
    path, behind = _cut(template)
    left = iter(numbers)
    segments: list[str] = []
    for piece in _PIECES(path):
        segments += [word] * (next(left, 0) if _has_rest(piece, matrix) else 0)
        segments.append(quote(_filled(piece, matrix, word), safe=_SAFE, errors="replace"))
    return "/" + "/".join(segments) + behind.partition("#")[0]


def shape(template: str, matrix: frozenset[str] = frozenset(), word: str = WORD) -> Shape:
    """Return the shape of a template; a parameter that is a part of a segment is this word, as in `sample`."""
    pieces: list[str | Parameter] = []
    for piece in _PIECES(_cut(template)[0]):
        pieces += [Parameter.REST] if _has_rest(piece, matrix) else []
        is_whole = _whole_parameter(piece, matrix) is not None
        pieces.append(Parameter.SEGMENT if is_whole else unquote(_filled(piece, matrix, word)))
    return tuple(pieces)


def _filled(piece: str, matrix: frozenset[str], word: str) -> str:
    def value(match: re.Match[str]) -> str:
        name = match[1]
        if name.startswith(";") or name in matrix:
            return f";{_named(name)}={word}"
        return f"{name[:1]}{word}" if name[:1] in (".", "/") else word

    return _EXPRESSION.sub(value, piece)


def _has_rest(piece: str, matrix: frozenset[str]) -> bool:
    """Tell whether a piece begins with a parameter that can be several segments; in the middle of one it is taken for one."""
    match = _EXPRESSION.match(piece)
    return match is not None and match[1] not in matrix and _has_slashes(match[1])


def _whole_parameter(piece: str, matrix: frozenset[str]) -> str | None:
    """Return what is written in the braces of a parameter that is one whole segment or more."""
    match = _EXPRESSION.fullmatch(piece)
    return None if match is None or match[1].startswith((";", ".", "/")) or match[1] in matrix else match[1]


def _cut(template: str) -> tuple[str, str]:
    """Return the path, with what stands in assignments written out, and the query or the fragment behind it."""
    text = _ASSIGNED.sub(_written_out, _NOT_OF_THE_PATH.sub("", template))
    bare = _EXPRESSION.sub(lambda match: "x" * len(match[0]), text)
    end = min((place for place in (bare.find("?"), bare.find("#")) if place >= 0), default=len(text))
    return text[:end], text[end:]


def _written_out(match: re.Match[str]) -> str:
    """Write {name=items/*} as items/{name}."""
    forms = {"*": f"{{{match[1]}}}", "**": f"{{{match[1]}*}}"}
    return "/".join(forms.get(part, part) for part in match[2].split("/"))


def _segment(piece: str, matrix: frozenset[str], *, is_last: bool) -> _Segment | None:
    """Return a segment of the pattern, None for one that is left out."""
    names = _EXPRESSION.findall(piece)
    if any(name.startswith(";") or name in matrix for name in names):
        return _Segment("{" + _named(names[0]) + "}", PatternFit.NEVER, "paths with the ';' of a matrix parameter are refused")
    name = _whole_parameter(piece, matrix)
    if name is not None:
        return _parameter(name, is_last=is_last)
    if names or "{" in piece or "}" in piece:
        beside = _EXPRESSION.sub("", piece)
        if not is_reachable(f"x{unquote(beside)}"):
            return _Segment("{" + _named(next(iter(names), "")) + "}", PatternFit.NEVER, f"paths with {piece} are refused")
        is_whole = not set("{}*") & set(unquote(beside)) and names
        text = "{" + _named(next(iter(names), "")) + "}"
        return _Segment(text, PatternFit.WIDER if is_whole else PatternFit.OTHER, f"a pattern has no segment like {piece}")
    if not piece:
        return _Segment("") if is_last else None
    return _literal(piece)


def _parameter(name: str, *, is_last: bool) -> _Segment:
    text = "{" + _named(name) + "}"
    if not _has_slashes(name):
        return _Segment(text)
    more = f", /{text}/** takes more" if is_last else ""
    return _Segment(text, PatternFit.NARROWER, f"one segment only{more}", is_wildcard=is_last)


def _has_slashes(name: str) -> bool:
    """Tell whether a parameter can be several segments."""
    word, colon, constraint = name.partition(":")
    return word.endswith(("*", "+")) or word.startswith("+") or bool(colon and _ANYTHING(constraint))


def _literal(piece: str) -> _Segment:
    try:
        text = unquote_to_bytes(piece).decode("utf-8")
    except UnicodeError:
        text = "/"
    if _BROKEN_ESCAPE(piece) or not is_reachable(text):
        return _Segment("{segment}", PatternFit.NEVER, f"paths with {piece} are refused")
    if any(letter in text for letter in "{}*") or text != text.strip():
        return _Segment("{segment}", PatternFit.OTHER, f"a pattern has no segment like {piece}")
    return _Segment(text)


def _named(expression: str) -> str:
    """Return a name that a pattern can have."""
    name = _PLAIN_NAME.sub("_", expression.partition(":")[0].strip("+*.;/"))
    return name if name and not name[0].isdigit() else f"_{name}"
