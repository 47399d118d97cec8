"""One line of a route file, with the comment that an import left behind it."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq

from extauthz.config.route_spans import Span
from extauthz.config.routes import LocatedRoute
from extauthz.core.upstream import Upstream
from extauthz.tools.openapi_access import Access, of_route
from extauthz.tools.openapi_lines import comment_of, keys_of
from extauthz.tools.openapi_sharing import Key

_COMMENT = re.compile(r"(?P<gap>[ \t]+)# imported: (?P<decision>[^()]*) \((?P<why>[^()]*)\)(?P<tail>.*)", re.DOTALL).fullmatch
_ACCESS = ("scope", "all_of", "any_of", "public", "deny", "anonymous")
_NOT_WITH = {"deny": ("accept", "audience", "mode", "encoded_slashes"), "public": ("accept", "audience")}
"""Keys of people that a route cannot have any more."""


@dataclass(frozen=True, slots=True)
class Written:
    """A route of a file, the row that its last character stands in, and the parts of that row.

    `imported` is what an import wrote there, "" for somebody's own line. `words` are set where the line says something new.
    """

    entry: LocatedRoute
    row: int
    content: str
    keys: tuple[Key, ...]
    is_one_row: bool
    gap: str = "  "
    imported: str = ""
    why: str = ""
    tail: str = ""
    words: str = ""

    @property
    def text(self) -> str:
        """The row."""
        return f"{self.content}{self.gap}{comment_of(self.imported, self.why, self.tail)}"

    @property
    def is_untouched(self) -> bool:
        """Whether the route is what an import wrote, but for keys that say nothing about scopes."""
        says_the_same = of_route(self.entry.route).words == self.imported
        return bool(self.imported) and says_the_same and self.is_one_row and len(self.entry.route.match.methods) == 1

    def mark_gone(self, why: str) -> Written:
        """Say that no description has it."""
        return replace(self, why=why)

    def mark_described(self, why: str) -> Written:
        """Say again why an import wrote it."""
        return replace(self, why=why)

    def rewritten(self, access: Access) -> Written:
        """Return the line with another access; keys that it cannot keep stand behind the comment."""
        if access.words == self.imported:
            return replace(self, why=access.why)
        content, is_whole = _with_access(self.content, access)
        tail = self.tail if is_whole else f" was {self.content.strip()}{self.tail}"
        return replace(self, content=content, imported=access.words, why=access.why, tail=tail, words=access.words)


def read_line(entry: LocatedRoute, span: Span, rows: Sequence[str], upstream: Upstream) -> Written:
    """Return the line of a route."""
    row = rows[span.last]
    end = span.end if span.end >= 0 else len(row)
    content, comment = row[:end], row[end:]
    one_row = span.first == span.last and content.lstrip().startswith("- {")
    line = Written(entry, span.last, content, tuple(keys_of(entry.route.match, upstream)), one_row)
    match = _COMMENT(comment)
    if match is None:
        return line
    return replace(line, gap=match["gap"], imported=match["decision"], why=match["why"], tail=match["tail"])


def _with_access(content: str, access: Access) -> tuple[str, bool]:
    """Return a line with another access, and whether it kept all its other keys; raises ValueError where it is no one line."""
    indent = content[: len(content) - len(content.lstrip())]
    yaml = _round_trip()
    items: CommentedSeq = yaml.load(content.strip())
    item: CommentedMap = items[0]
    names = list(item)
    place = min(names.index(name) for name in names if name in _ACCESS)
    keys = access.written()
    unfit = [name for kind, several in _NOT_WITH.items() if kind in keys for name in several if name in item]
    for name in (*_ACCESS, *unfit):
        item.pop(name, None)
    for offset, (name, value) in enumerate(keys.items()):
        item.insert(place + offset, name, _flow(value) if isinstance(value, list) else value)
    stream = io.StringIO()
    yaml.dump(items, stream)
    text = stream.getvalue().rstrip("\n")
    if "\n" in text:
        raise ValueError(f"a line became several: {text!r}")
    return f"{indent}{text}", not unfit


@cache
def _round_trip() -> YAML:
    yaml = YAML()
    yaml.preserve_quotes = True
    yaml.width = 1 << 20
    return yaml


def _flow(values: list[str]) -> CommentedSeq:
    sequence = CommentedSeq(values)
    sequence.fa.set_flow_style()
    return sequence
