"""`$ref`s of an API description: to places in the same file, and in files in and below the folder of the description."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from extauthz.config import plain_data
from extauthz.config.files import Files
from extauthz.errors import ConfigurationError, Problem

MAX_STEPS = 50
"""References that lead to references."""
MAX_FILES = 5_000
MAX_TEXT = 1_000
"""Characters of a name, as of a tag or a scope: it is repeated for every operation that has it."""

_IS_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:|//").match


@dataclass(frozen=True, slots=True)
class DocumentNode:
    """A value of a description, the file that it stands in, and its path there, as in `paths./items.get`."""

    value: Any
    file: Path
    path: str

    def problem(self, message: str) -> Problem:
        """Describe what is wrong with it."""
        return Problem(str(self.file), 0, self.path, message)

    def error(self, message: str) -> ConfigurationError:
        """Return the error of which this is the only problem."""
        return ConfigurationError([self.problem(message)])

    def get(self, key: str) -> DocumentNode:
        """Return a member of a mapping, with None as its value where there is none."""
        value = self.value.get(key) if isinstance(self.value, dict) else None
        return DocumentNode(value, self.file, f"{self.path}.{key}" if self.path else key)

    def mapping(self) -> dict[str, Any]:
        """Return the value as a mapping, an empty one where there is none; raises ConfigurationError."""
        if self.value is None:
            return {}
        if not isinstance(self.value, dict):
            raise self.error("is no mapping")
        return self.value

    def text(self) -> str:
        """Return the value as text, that of a number and of true and false too; raises ConfigurationError."""
        # Aliases make a short file a list of 10^12 items, which str() would write out.
        if not isinstance(self.value, (str, int, float)):
            raise self.error("is no text")
        text = str(self.value)
        if len(text) > MAX_TEXT:
            raise self.error(f"is longer than {MAX_TEXT:,} characters")
        return text

    def items(self) -> list[DocumentNode]:
        """Return the items of a list, none where there is none; raises ConfigurationError."""
        if self.value is None:
            return []
        if not isinstance(self.value, list):
            raise self.error("is no list")
        return [DocumentNode(item, self.file, f"{self.path}[{index}]") for index, item in enumerate(self.value)]


@dataclass(slots=True)
class References:
    """The files of one description, of which `file` names the others; nothing is fetched, nothing outside of its folder is read."""

    file: Path
    _files: Files = field(default_factory=Files)
    _documents: dict[Path, Any] = field(default_factory=dict)
    _opened: dict[Path, Any] = field(default_factory=dict)
    _neighbours: dict[tuple[Path, str], Path] = field(default_factory=dict)
    _steps: dict[tuple[Path, str], DocumentNode] = field(default_factory=dict)
    _meanings: dict[tuple[Path, str], DocumentNode] = field(default_factory=dict)

    def root(self) -> DocumentNode:
        """Return the whole of the description; raises ConfigurationError."""
        return DocumentNode(self._document(self.file), self.file, "")

    def follow(self, node: DocumentNode) -> DocumentNode:
        """Return what a node means: itself, or what its `$ref` leads to; raises ConfigurationError."""
        reference = node.value.get("$ref") if isinstance(node.value, dict) else None
        if not isinstance(reference, str):
            return self._follow(node)
        if (node.file, reference) not in self._meanings:
            self._meanings[node.file, reference] = self._follow(node)
        return self._meanings[node.file, reference]

    def _follow(self, node: DocumentNode) -> DocumentNode:
        seen: set[tuple[Path, str]] = set()
        while isinstance(node.value, dict) and "$ref" in node.value:
            following = self.step(node)
            place = following.file, following.path
            if place in seen or len(seen) > MAX_STEPS:
                raise node.error(f"its $ref leads in a circle: {node.value['$ref']}")
            seen.add(place)
            node = following
        return node

    def step(self, node: DocumentNode) -> DocumentNode:
        """Return the place that the `$ref` of a node names; raises ConfigurationError."""
        reference = node.value["$ref"]
        if not isinstance(reference, str):
            raise node.error("its $ref is no text")
        if (node.file, reference) not in self._steps:
            self._steps[node.file, reference] = self._step(node, reference)
        return self._steps[node.file, reference]

    def _step(self, node: DocumentNode, reference: str) -> DocumentNode:
        name, _, pointer = reference.partition("#")
        if _IS_ADDRESS(name):
            raise node.error(
                f"its $ref is an address, and nothing is fetched: {reference}. Save it beside the description and name that file"
            )
        file = self._file_beside(node, name) if name else node.file
        return self._at(node, file, unquote(pointer))

    def _file_beside(self, node: DocumentNode, name: str) -> Path:
        if (node.file, name) not in self._neighbours:
            self._neighbours[node.file, name] = self._neighbour(node, name)
        return self._neighbours[node.file, name]

    def _neighbour(self, node: DocumentNode, name: str) -> Path:
        folder = self.file.resolve().parent
        try:
            target = (node.file.parent / unquote(name)).resolve()
        except (OSError, ValueError, RuntimeError) as error:
            raise node.error(f"its $ref names no file: {name!r}") from error
        if not target.is_relative_to(folder):
            raise node.error(f"its $ref leads out of the folder of the description: {name}")
        return self.file.parent / target.relative_to(folder)

    def _at(self, node: DocumentNode, file: Path, pointer: str) -> DocumentNode:
        value = self._document(file, node)
        if pointer and not pointer.startswith("/"):
            raise node.error(f"its $ref is no path like '#/components/pathItems/Item': #{pointer}")
        path = []
        for part in pointer.split("/")[1:]:
            key = part.replace("~1", "/").replace("~0", "~")
            if isinstance(value, list) and key.isdecimal() and key.isascii() and int(key) < len(value):
                value = value[int(key)]
            elif isinstance(value, dict) and key in value:
                value = value[key]
            else:
                raise node.error(f"its $ref leads to nothing: {file}#{pointer}")
            path.append(key)
        return DocumentNode(value, file, ".".join(path))

    def _document(self, file: Path, node: DocumentNode | None = None) -> Any:
        if file not in self._opened:
            self._opened[file] = self._read(file, node)
        return self._opened[file]

    def _read(self, file: Path, node: DocumentNode | None) -> Any:
        # Two names may lead to one file.
        place = file.resolve()
        if place not in self._documents:
            if len(self._documents) >= MAX_FILES:
                raise ConfigurationError([Problem(str(file), 0, "", f"a description of more than {MAX_FILES:,} files")])
            if node is not None and not file.is_file():
                raise node.error(f"its $ref leads to a file that is not there: {file}")
            self._documents[place] = plain_data.read(file, self._files)
        return self._documents[place]
