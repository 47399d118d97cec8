"""Files in one layout: what people wrote stays, comments and quotes too, and what cannot be proved to mean the same is refused."""

from __future__ import annotations

import io
import json
from bisect import bisect_left
from dataclasses import dataclass

from ruamel.yaml import YAML
from ruamel.yaml.emitter import Emitter
from ruamel.yaml.nodes import ScalarNode
from ruamel.yaml.resolver import VersionedResolver
from ruamel.yaml.tag import Tag

from extauthz.config.completeness import END
from extauthz.config.document import Document, parse
from extauthz.config.yaml_comments import BREAK, comments, scalars, scalars_with_values
from extauthz.tools import lint_ignores

WIDTH = 132
"""Columns after which brackets over several lines go on in the next one; no text, and no line as it was written, is broken."""
_PASSES = 3
"""Times that a text is laid out at most until nothing changes any more."""


@dataclass(frozen=True, slots=True)
class LayoutRefused:
    """Why a file is left as it is."""

    why: str


@dataclass(frozen=True, slots=True)
class _Meaning:
    """What must stay: the data, texts and comments in their order, what is silenced, and whether the end is marked."""

    data: str
    order: list[str]
    silenced: list[tuple[str, str, int]]
    is_finished: bool


class _Texts(VersionedResolver):
    """Takes every scalar for text, so that it is written as it was read: what a word means is for the reader of the project."""

    def resolve(self, kind: type, value: str | None, implicit: tuple[bool, bool]) -> Tag:
        """Return the tag of a node; nothing at all stays nothing."""
        if kind is ScalarNode:
            return Tag(suffix=f"tag:yaml.org,2002:{'null' if implicit[0] and not value else 'str'}")
        resolved: Tag = super().resolve(kind, value, implicit)
        return resolved


class _Unbroken(Emitter):
    """Breaks no text."""

    def write_plain(self, text: str, split: bool = True) -> None:
        """Write it in one line."""
        super().write_plain(text, split=False)

    def write_single_quoted(self, text: str, split: bool = True) -> None:
        """Write it in one line."""
        super().write_single_quoted(text, split=False)

    def write_double_quoted(self, text: str, split: bool = True) -> None:
        """Write it in one line."""
        super().write_double_quoted(text, split=False)


def formatted(data: bytes) -> bytes | LayoutRefused:
    """Return a YAML file in the layout of the project: two columns a level, a dash below its key, one space in brackets.

    The result has the same data for the reader of the project, the same comments between the same texts, and is not changed by a
    second time.
    """
    before = _meaning(data)
    if isinstance(before, LayoutRefused):
        return before
    text = data
    for _ in range(_PASSES):
        try:
            written = _written(text)
        except Exception as error:  # noqa: BLE001 - whatever the library does not take stays as it is
            return LayoutRefused(f"the layout of it is not understood ({type(error).__name__}): write it more simply")
        # Spaces at the end of a line count in a block of text alone.
        laid_out = next((each for each in (_without_spaces(written), written) if _meaning(each) == before), None)
        if laid_out is None:
            return LayoutRefused("it could not be laid out without a change of what it says, most likely of where a comment stands")
        if laid_out == text:
            return text
        text = laid_out
    return LayoutRefused("its layout comes to no end: write it more simply")


def _written(data: bytes) -> bytes:
    layout = YAML()
    layout.Resolver, layout.Emitter = _Texts, _Unbroken
    layout.preserve_quotes, layout.width = True, max(WIDTH, _widest(data.decode("utf-8-sig")))
    layout.explicit_start = data.lstrip().startswith(b"---")
    layout.indent(mapping=2, sequence=4, offset=2)
    stream = io.BytesIO()
    layout.dump(layout.load(data), stream)
    return stream.getvalue()


def _widest(text: str) -> int:
    """Return the length of the longest line, without its comment."""
    ends = [0, *(end for _, end in comments(text)), len(text)]
    starts = [*(start for start, _ in comments(text)), len(text)]
    lines = (line.rstrip() for end, start in zip(ends, starts, strict=False) for line in BREAK.split(text[end:start]))
    return max(map(len, lines), default=0)


def _without_spaces(data: bytes) -> bytes:
    return b"\n".join(line.rstrip(b" ") for line in data.split(b"\n"))


def _meaning(data: bytes) -> _Meaning | LayoutRefused:
    document = Document("")
    parse(data, document)
    if document.problems or document.data is None:
        return LayoutRefused("it has problems of its own: extauthz config check lists them")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return LayoutRefused("it is not written as UTF-8")
    notes = [((start, end), text[start:end].rstrip()) for start, end in comments(text)]
    order = [said for _, said in sorted([*scalars_with_values(text), *notes])]
    return _Meaning(json.dumps(document.data), order, _silenced(text, data), data.rstrip().endswith(f"\n{END}".encode()))


def _silenced(text: str, data: bytes) -> list[tuple[str, str, int]]:
    """Return what comments silence, and how many scalars stand above the line that each is about."""
    starts = [start for start, _ in scalars(text)]
    lines = [0, *(found.end() for found in BREAK.finditer(text)), len(text)]
    ignores, _ = lint_ignores.read("", data)
    return [(each.lint, each.reason, bisect_left(starts, lines[each.target - 1])) for each in ignores]
