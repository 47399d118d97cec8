"""One YAML file as plain data, with the line of every key.

The file is read event by event with a stack of our own: the composing loader of PyYAML recurses in C, and a file of brackets ends
the process. Aliases, tags and depth beyond MAX_DEPTH are mistakes. Plain scalars are null, true, false, decimal numbers or text:
`on`, `1:30`, `017` and dates stay text.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

MAX_DEPTH = 20
MAX_BYTES = 16 * 1024 * 1024

_NULL = frozenset({"", "~", "null"})
_BOOLEANS = {"true": True, "false": False}
_INTEGER = re.compile(r"-?(?:0|[1-9][0-9]{0,17})").fullmatch
_FLOAT = re.compile(r"-?(?:0|[1-9][0-9]*)\.[0-9]+").fullmatch

KeyPath = tuple[str | int, ...]


@dataclass(frozen=True, slots=True, order=True)
class Mistake:
    """One thing that is wrong, where, and the way out."""

    file: str
    line: int
    path: str
    message: str

    def __str__(self) -> str:
        """Write it as file:line: key.path: message."""
        return f"{self.file}:{self.line}: {self.path + ': ' if self.path else ''}{self.message}"


class ConfigurationError(Exception):
    """The configuration cannot be used; `mistakes` holds everything that is wrong with it."""

    def __init__(self, mistakes: list[Mistake]) -> None:
        """Keep the mistakes in the order of the files' lines."""
        self.mistakes = sorted(set(mistakes))
        super().__init__("\n".join(map(str, self.mistakes)))


@dataclass(slots=True)
class Document:
    """Data of one file, the line of every key path, and what was wrong with its YAML."""

    file: str
    data: Any = None
    lines: dict[KeyPath, int] = field(default_factory=dict)
    mistakes: list[Mistake] = field(default_factory=list)

    def mistake(self, path: KeyPath, message: str) -> Mistake:
        """Describe a mistake at a key path; the longest part of it that stands in the file gives the line."""
        known: KeyPath = ()
        for part in path:
            if (*known, part) in self.lines:
                known = (*known, part)
        return Mistake(self.file, self.lines.get(known, 1), dotted(path), message)


def dotted(path: KeyPath) -> str:
    """Write a key path as a.b[0].c."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).lstrip(".")


def read(file: Path) -> Document:
    """Read one file; what is wrong with it is in the document's `mistakes`."""
    document = Document(str(file))
    try:
        data = file.read_bytes()
    except OSError as error:
        document.mistakes.append(document.mistake((), f"cannot be read: {error.strerror or error}"))
        return document
    if len(data) > MAX_BYTES:
        document.mistakes.append(document.mistake((), f"larger than {MAX_BYTES // 2**20} MiB"))
        return document
    parse(data, document)
    return document


def parse(data: bytes, document: Document) -> None:
    """Fill a document from YAML text."""
    try:
        _Builder(document).build(data)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        text = "; ".join(part for part in (error.context, error.problem) if part)
        document.mistakes.append(Mistake(document.file, line, "", f"not YAML: {text}"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        document.mistakes.append(Mistake(document.file, 1, "", f"not YAML: {str(error).splitlines()[0]}"))


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
        for event in yaml.parse(data, Loader=yaml.CSafeLoader):
            match event:
                case yaml.DocumentStartEvent():
                    documents += 1
                    if documents > 1:
                        self._wrong(event, (), "a second document begins here: write one document per file")
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
        if top is not None and isinstance(top.container, dict) and top.waits_for_key:
            self._key(event, top)
            return
        path = self._path_of_next(top)
        value, usable = self._value(event, path)
        if not opens or usable:
            self._place(top, path, value, event)
        if opens:
            if usable:
                self._stack.append(_Open(value, path))
            else:
                self._skip = 1
                if top is not None:
                    top.waits_for_key = True

    def _key(self, event: Any, top: _Open) -> None:
        top.waits_for_key = False
        if isinstance(event, yaml.ScalarEvent) and not event.tag:
            path = (*top.path, event.value)
            if path in self._document.lines:
                self._wrong(event, path, f"duplicate key, first in line {self._document.lines[path]}")
            else:
                self._document.lines[path] = _line(event)
                top.key = event.value
                return
        else:
            self._wrong(event, top.path, "a key must be plain text")
            if isinstance(event, yaml.CollectionStartEvent):
                # Skip the key itself; its value is read under a name that nothing asks for.
                self._skip = 1
        top.key = None

    def _path_of_next(self, top: _Open | None) -> KeyPath:
        if top is None:
            return ()
        if isinstance(top.container, list):
            return (*top.path, len(top.container))
        return (*top.path, top.key) if top.key is not None else top.path

    def _value(self, event: Any, path: KeyPath) -> tuple[Any, bool]:
        if isinstance(event, yaml.AliasEvent):
            self._wrong(event, path, "aliases (*name) are not read: write the value out")
            return None, False
        if event.tag and event.tag not in {"!", "tag:yaml.org,2002:str", "tag:yaml.org,2002:map", "tag:yaml.org,2002:seq"}:
            self._wrong(event, path, f"the tag {event.tag!r} is not read: leave it out")
            return None, False
        if isinstance(event, yaml.ScalarEvent):
            return (_plain(event.value) if event.implicit[0] else event.value), True
        if len(self._stack) >= MAX_DEPTH:
            self._wrong(event, path, f"nested deeper than {MAX_DEPTH} levels")
            return None, False
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
        self._document.mistakes.append(Mistake(self._document.file, _line(event), dotted(path), message))


def _line(event: Any) -> int:
    return int(event.start_mark.line) + 1


def _plain(text: str) -> Any:
    if text in _NULL:
        return None
    if text in _BOOLEANS:
        return _BOOLEANS[text]
    if _INTEGER(text):
        return int(text)
    return float(text) if _FLOAT(text) else text
