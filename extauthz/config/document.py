"""One YAML file as plain data, with the line of every key.

The file is read event by event with a stack of our own: the composing loader of PyYAML recurses in C, and a file of brackets ends
the process. Aliases and tags are problems; reading ends at a syntax error and at depth beyond MAX_DEPTH. Plain scalars are null,
true, false, decimal numbers or text: `on`, `1:30`, `017` and dates stay text.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from extauthz.config.files import MAX_BYTES, Files
from extauthz.config.pacing import paced
from extauthz.errors import Problem

MAX_DEPTH = 20

_NULL = frozenset({"", "~", "null"})
_BOOLEANS = {"true": True, "false": False}
_INTEGER = re.compile(r"-?(?:0|[1-9][0-9]{0,17})").fullmatch
_FLOAT = re.compile(r"-?(?:0|[1-9][0-9]{0,17})\.[0-9]{1,18}").fullmatch
_PLAIN_KEY = re.compile(r"[^\s.:\[\]]+").fullmatch

_HINTS = (
    ("while scanning an alias", "put text that begins with '*' in quotes"),
    (
        "found character that cannot start any token",
        "put text that begins with '@', '%' or '`' in quotes, and indent with spaces, not tabs",
    ),
    ("did not find expected ',' or '}'", "put text with braces or commas in quotes, and close every brace"),
    ("did not find expected ',' or ']'", "put text with brackets or commas in quotes, and close every bracket"),
    ("while scanning a quoted scalar", "close the quote"),
    ("while parsing a quoted scalar", "write a backslash twice, or put the text in single quotes"),
    ("did not find expected node content", "write a value before every comma, and close every bracket and brace"),
    (
        "mapping values are not allowed",
        "check the indentation and, in the line above, the space behind the colon; quote text with ': '",
    ),
    ("could not find expected ':'", "write 'key: value', with a space behind the colon"),
    ("did not find expected key", "check the indentation"),
    ("did not find expected '-' indicator", "check the indentation: every item of a list begins with '- '"),
)
"""What helps against the parser's complaints; the first that fits is shown."""

KeyPath = tuple[str | int, ...]


@dataclass(slots=True)
class Document:
    """Data of one file, the line of every key path, and what was wrong with its YAML.

    `origins` names where the value at a path comes from if that is not the file.
    """

    file: str
    data: Any = None
    lines: dict[KeyPath, int] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    unread: set[KeyPath] = field(default_factory=set)
    origins: dict[KeyPath, str] = field(default_factory=dict)

    def is_unread(self, path: KeyPath) -> bool:
        """Tell whether the value at this path, or one around it, is already listed as a problem of its YAML."""
        return any(path[:end] in self.unread for end in range(len(path) + 1)) if self.unread else False

    def problem(self, path: KeyPath, message: str, name: str = "") -> Problem:
        """Describe a problem at a key path; the longest part of it that stands in the file gives the line."""
        for end in range(len(path), 0, -1) if self.origins else ():
            if origin := self.origins.get(path[:end]):
                return Problem(origin, 0, dotted(path[end - 1 :]), message, name)
        place: KeyPath = ()
        for part in path:
            if (*place, part) in self.lines:
                place = (*place, part)
        return Problem(self.file, self.lines.get(place, 1), dotted(path), message, name)


def mapping(value: object) -> dict[Any, Any]:
    """Return a section of plain data, an empty one for what is none."""
    return value if isinstance(value, dict) else {}


def items(value: object) -> list[Any]:
    """Return a list of plain data, an empty one for what is none."""
    return value if isinstance(value, list) else []


def dotted(path: KeyPath) -> str:
    """Write a key path as a.b[0].c; a key that would be misread stands in quotes."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            name = part if _PLAIN_KEY(part) and part.isprintable() else repr(part)
            text += f".{name}" if text else name
    return text


def read(file: Path, files: Files | None = None) -> Document:
    """Read one file, through `files` where it belongs to others; what is wrong with it is in the document's `problems`."""
    document = Document(str(file))
    try:
        data = (files or Files()).read(file)
    except (OSError, ValueError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or error
        document.problems.append(document.problem((), f"cannot be read: {reason}"))
        return document
    if len(data) > MAX_BYTES:
        document.problems.append(document.problem((), f"larger than {MAX_BYTES // 2**20} MiB"))
        return document
    parse(data, document)
    return document


def parse(data: bytes, document: Document) -> None:
    """Fill a document from YAML text; one that ends in the middle has no data, so that nothing is called missing in it."""
    try:
        _Builder(document).build(data)
    except yaml.MarkedYAMLError as error:
        document.data = None
        document.problems.append(_syntax_error(document.file, error))
    except yaml.reader.ReaderError as error:
        document.data = None
        line = data.count(b"\n", 0, error.position) + 1
        what = f"the control character U+{error.character:04X}: remove it"
        if "control" not in error.reason:
            what = f"{error.reason}: save the file as UTF-8"
        document.problems.append(Problem(document.file, line, "", f"not YAML: {what}"))


def _syntax_error(file: str, error: yaml.MarkedYAMLError) -> Problem:
    problem, begin = error.problem_mark, error.context_mark
    line = problem.line + 1 if problem else 1
    text = ", ".join(part for part in (error.context, error.problem) if part)
    hint = next((hint for complaint, hint in _HINTS if complaint in text), None)
    if begin and begin.line + 1 != line:
        if error.context == "while scanning a quoted scalar":
            line = begin.line + 1
        else:
            text += f"; it begins in line {begin.line + 1}"
    return Problem(file, line, "", f"not YAML: {hint} ({text})" if hint else f"not YAML: {text}")


@dataclass(slots=True)
class _Open:
    """A mapping or a list that is being read."""

    container: dict[str, Any] | list[Any]
    path: KeyPath
    key: str | None = None
    waits_for_key: bool = True


class _Builder:
    def __init__(self, document: Document) -> None:
        self._document = document
        self._stack: list[_Open] = []
        self._skip = 0

    def build(self, data: bytes) -> None:
        documents = 0
        for event in paced(yaml.parse(data, Loader=yaml.CSafeLoader)):
            match event:
                case yaml.DocumentStartEvent():
                    documents += 1
                    if documents > 1:
                        self._wrong(event, (), "a second document begins here: write one document per file")
                        return
                case yaml.MappingStartEvent() | yaml.SequenceStartEvent() if len(self._stack) + self._skip >= MAX_DEPTH:
                    # The parser looks through all open brackets at every token: it must not see 100,000 of them.
                    self._wrong(event, self._path_of_next(), f"nested deeper than {MAX_DEPTH} levels: reading ends here")
                    self._document.data = None
                    return
                case yaml.AliasEvent() | yaml.ScalarEvent() | yaml.MappingStartEvent() | yaml.SequenceStartEvent():
                    self._node(event)
                case yaml.MappingEndEvent() | yaml.SequenceEndEvent():
                    if self._skip:
                        self._skip -= 1
                    else:
                        self._stack.pop()

    def _node(self, event: Any) -> None:
        opens = isinstance(event, yaml.CollectionStartEvent)
        if self._skip:
            self._skip += opens
            return
        top = self._stack[-1] if self._stack else None
        if top is not None and isinstance(top.container, dict):
            if top.waits_for_key:
                self._key(event, top)
                return
            if top.key is None:
                # The key was wrong: its value would be read under a name that is not its own.
                top.waits_for_key = True
                self._skip = int(opens)
                return
        path = self._path_of_next()
        value, usable = self._value(event, path)
        if not usable:
            self._document.unread.add(path)
        self._place(top, path, value, event)
        if opens and usable:
            self._stack.append(_Open(value, path))
        else:
            self._skip = int(opens)

    def _key(self, event: Any, top: _Open) -> None:
        top.waits_for_key = False
        top.key = None
        if isinstance(event, yaml.ScalarEvent) and event.value and not event.tag:
            path = (*top.path, event.value)
            if path in self._document.lines:
                self._wrong(event, path, f"duplicate key, first in line {self._document.lines[path]}")
            else:
                self._document.lines[path] = _line(event)
                top.key = event.value
        else:
            self._wrong(event, top.path, "a key must be plain text: write 'key: value'")
            self._skip = int(isinstance(event, yaml.CollectionStartEvent))

    def _path_of_next(self) -> KeyPath:
        if not self._stack:
            return ()
        top = self._stack[-1]
        if isinstance(top.container, list):
            return (*top.path, len(top.container))
        return (*top.path, top.key) if top.key is not None else top.path

    def _value(self, event: Any, path: KeyPath) -> tuple[Any, bool]:
        if isinstance(event, yaml.AliasEvent):
            self._wrong(
                event, path, "aliases (*name) are not read: write the value out, or put text that begins with '*' in quotes"
            )
            return None, False
        if event.tag and event.tag not in {"!", "tag:yaml.org,2002:str", "tag:yaml.org,2002:map", "tag:yaml.org,2002:seq"}:
            self._wrong(event, path, f"the tag {_short_tag(event.tag)} is not read: leave it out")
            return None, False
        if isinstance(event, yaml.ScalarEvent):
            return (plain(event.value) if event.implicit[0] else event.value), True
        return ({} if isinstance(event, yaml.MappingStartEvent) else []), True

    def _place(self, top: _Open | None, path: KeyPath, value: Any, event: Any) -> None:
        self._document.lines.setdefault(path, _line(event))
        if top is None:
            self._document.data = value
        elif isinstance(top.container, list):
            top.container.append(value)
        else:
            if top.key is not None:
                top.container[top.key] = value
            top.waits_for_key = True

    def _wrong(self, event: Any, path: KeyPath, message: str) -> None:
        self._document.problems.append(Problem(self._document.file, _line(event), dotted(path), message))


def _line(event: Any) -> int:
    return int(event.start_mark.line) + 1


def _short_tag(tag: str) -> str:
    return repr(tag.replace("tag:yaml.org,2002:", "!!"))


def plain(text: str) -> Any:
    """Return what a plain scalar means: null, true, false, a decimal number, or text."""
    if text in _NULL:
        return None
    if text in _BOOLEANS:
        return _BOOLEANS[text]
    if _INTEGER(text):
        return int(text)
    return float(text) if _FLOAT(text) else text


def strings(source: Document, *path: str | int) -> list[tuple[int, str]]:
    """Return the texts of a list with their positions in it."""
    value = source.data
    for key in path:
        if isinstance(key, int):
            value = value[key] if isinstance(value, list) and key < len(value) else None
        else:
            value = value.get(key) if isinstance(value, dict) else None
    return [(index, item) for index, item in enumerate(value) if isinstance(item, str)] if isinstance(value, list) else []
