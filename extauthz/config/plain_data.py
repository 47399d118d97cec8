"""JSON and YAML files of others, like API descriptions, as plain data: megabytes within seconds, whatever they are made of.

Nesting ends at MAX_DEPTH, and what merge keys copy at MAX_MERGED entries. An alias gives the value of its anchor, which is not
copied; one inside its own anchor is an error, so that the data has no circle. Keys are text, as they are written.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from extauthz.config.document import plain
from extauthz.config.files import MAX_BYTES, Files
from extauthz.errors import ConfigurationError, Problem

MAX_DEPTH = 100
MAX_MERGED = 100_000

_MERGE = "<<"
_TEXTS = {"!", "tag:yaml.org,2002:str"}


def read(file: Path, files: Files) -> Any:
    """Return what a file holds; raises ConfigurationError with what is wrong with it."""
    try:
        data = files.read(file)
    except (OSError, ValueError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or error
        raise _error(file, 0, f"cannot be read: {reason}") from error
    if len(data) > MAX_BYTES:
        raise _error(file, 0, f"larger than {MAX_BYTES // 2**20} MiB")
    if file.suffix.lower() == ".json":
        return _json(file, data)
    if data.lstrip()[:1] == b"{":
        # JSON under another name, which its own parser reads much faster.
        with contextlib.suppress(ConfigurationError):
            return _json(file, data)
    return _Builder(file).build(data)


def _error(file: Path, line: int, message: str) -> ConfigurationError:
    return ConfigurationError([Problem(str(file), line, "", message)])


def _json(file: Path, data: bytes) -> Any:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        members = dict(pairs)
        if len(members) != len(pairs):
            seen: set[str] = set()
            # `add` returns None.
            name = next(name for name, _ in pairs if name in seen or seen.add(name))  # type: ignore[func-returns-value]
            raise ValueError(f"an object has the key {name!r} twice: remove one")
        return members

    try:
        return json.loads(data, object_pairs_hook=unique)
    except RecursionError as error:
        raise _error(file, 0, "nested too deeply") from error
    except json.JSONDecodeError as error:
        raise _error(file, error.lineno, f"not JSON: {error.msg}") from error
    except UnicodeDecodeError as error:
        raise _error(file, 0, "not text: save the file as UTF-8") from error
    except ValueError as error:
        raise _error(file, 0, str(error)) from error


class _Open:
    """A mapping or a list that is being read; `merged` are the mappings that merge keys name."""

    __slots__ = ("anchor", "container", "key", "merged")

    def __init__(self, container: Any, anchor: str | None) -> None:
        self.container = container
        self.anchor = anchor
        self.key: str | None = None
        self.merged: list[Any] = []


class _Builder:
    def __init__(self, file: Path) -> None:
        self._file = file
        self._stack: list[_Open] = []
        self._anchors: dict[str, Any] = {}
        self._result: Any = None
        self._documents = 0
        self._merged = 0

    def build(self, data: bytes) -> Any:
        try:
            for event in yaml.parse(data, Loader=yaml.CSafeLoader):
                self._take(event)
        except yaml.MarkedYAMLError as error:
            line = error.problem_mark.line + 1 if error.problem_mark else 0
            raise _error(self._file, line, f"not YAML: {error.problem}") from error
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise _error(self._file, 0, "not text: save the file as UTF-8, without control characters") from error
        return self._result

    def _take(self, event: Any) -> None:
        match event:
            case yaml.ScalarEvent():
                self._scalar(event)
            case yaml.MappingStartEvent():
                self._open({}, event)
            case yaml.SequenceStartEvent():
                self._open([], event)
            case yaml.MappingEndEvent() | yaml.SequenceEndEvent():
                self._close(event)
            case yaml.AliasEvent():
                if event.anchor not in self._anchors:
                    raise self._at(event, f"the alias *{event.anchor} stands inside of what it names, or before it")
                self._place(self._anchors[event.anchor], event)
            case yaml.DocumentStartEvent():
                self._documents += 1
                if self._documents > 1:
                    raise self._at(event, "a second document begins here: write one document per file")

    def _scalar(self, event: Any) -> None:
        top = self._stack[-1] if self._stack else None
        if top is not None and top.key is None and isinstance(top.container, dict):
            if event.value in top.container:
                raise self._at(event, f"duplicate key {event.value!r}: remove one")
            top.key = event.value
            if event.anchor:
                self._anchors[event.anchor] = event.value
            return
        is_text = event.tag in _TEXTS or not event.implicit[0]
        value = event.value if is_text else plain(event.value)
        if event.anchor:
            self._anchors[event.anchor] = value
        self._place(value, event)

    def _open(self, container: Any, event: Any) -> None:
        if len(self._stack) >= MAX_DEPTH:
            # The parser looks through all open brackets at every token.
            raise self._at(event, f"nested deeper than {MAX_DEPTH} levels")
        self._place(container, event)
        if event.anchor:
            self._anchors.pop(event.anchor, None)
        self._stack.append(_Open(container, event.anchor))

    def _close(self, event: Any) -> None:
        top = self._stack.pop()
        for source in top.merged:
            self._merge(top.container, source, event)
        if top.anchor:
            self._anchors[top.anchor] = top.container

    def _place(self, value: Any, event: Any) -> None:
        if not self._stack:
            self._result = value
            return
        top = self._stack[-1]
        if isinstance(top.container, list):
            top.container.append(value)
        elif top.key is None:
            raise self._at(event, "a key must be plain text: write 'key: value'")
        else:
            if top.key == _MERGE:
                top.merged.append(value)
            else:
                top.container[top.key] = value
            top.key = None

    def _merge(self, container: dict[str, Any], source: Any, event: Any) -> None:
        sources: Iterable[Any] = source if isinstance(source, list) else (source,)
        for each in sources:
            if not isinstance(each, dict):
                raise self._at(event, "a merge key (<<) names mappings")
            self._merged += len(each)
            if self._merged > MAX_MERGED:
                raise self._at(event, f"merge keys (<<) copy more than {MAX_MERGED:,} entries")
            for name, value in each.items():
                container.setdefault(name, value)

    def _at(self, event: Any, message: str) -> ConfigurationError:
        return _error(self._file, event.start_mark.line + 1, message)
