"""What a shell completes the value of a flag to: from the configuration and the code, never from a secret or a store."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from extauthz.cli.configuration import FILE, VARIABLE

if TYPE_CHECKING:
    from extauthz.config.document import Document

MAX_BYTES = 1 << 20
"""Of all files that one completion reads: nobody waits longer for a Tab."""


def scopes(context: click.Context, _: click.Parameter, incomplete: str) -> list[str]:
    """Complete a scope of the vocabulary; one of the Client API in any letter case."""
    from extauthz.config.document import strings

    source = _Reader().read(_file(context))
    names = [] if source is None else [name for _, name in strings(source, "scopes")]
    return _beginning(incomplete, names) or [name for name in names if name.lower().startswith(incomplete.lower())]


def routes(context: click.Context, _: click.Parameter, incomplete: str) -> list[str]:
    """Complete the name of a route, as metrics and logs call it."""
    return _beginning(incomplete, _route_names(_file(context)))


def reasons(_: click.Context, __: click.Parameter, incomplete: str) -> list[str]:
    """Complete a reason."""
    from extauthz.core.model import Reason

    return _beginning(incomplete, (reason.value for reason in Reason))


def _beginning(incomplete: str, words: Iterable[str]) -> list[str]:
    return [word for word in dict.fromkeys(words) if word.startswith(incomplete)]


def _file(context: click.Context) -> Path:
    """Return the configuration that the command would read; groups above it may have the flag."""
    each: click.Context | None = context
    while each is not None:
        if each.params.get("config_file"):
            return Path(each.params["config_file"])
        each = each.parent
    return Path(os.environ.get(VARIABLE) or FILE)


def _route_names(file: Path) -> Iterator[str]:
    from extauthz.config.document import items, mapping, strings

    reader = _Reader()
    source = reader.read(file)
    for _, name in strings(source, "routes") if source is not None else ():
        found = reader.read(file.parent / name)
        for line in items(mapping(found.data).get("routes")) if found is not None else ():
            route = mapping(line).get("name") or mapping(line).get("match")
            if isinstance(route, str):
                yield route


class _Reader:
    """Reads ordinary files as far as all of them are small enough together."""

    def __init__(self) -> None:
        self._left = MAX_BYTES

    def read(self, file: Path) -> Document | None:
        """Return a file as plain data; what is wrong with it is for other commands to say."""
        from extauthz.config import document

        try:
            self._left -= file.stat().st_size if file.is_file() else MAX_BYTES + 1
        except (OSError, ValueError):
            return None
        return document.read(file) if self._left >= 0 else None
