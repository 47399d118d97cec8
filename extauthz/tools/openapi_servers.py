"""The `servers` of an API description: where its paths begin."""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import product
from math import prod
from typing import Any

from extauthz.tools.openapi_references import DocumentNode

MAX_ADDRESSES = 1_000
"""What the variables of one server may come to."""
MAX_ALL = 10_000
"""What all servers of one list may come to."""

_VARIABLE = re.compile(r"\{([^{}]*)\}")
_ADDRESS = re.compile(r"(?:[A-Za-z][A-Za-z0-9+.-]*:)?//(?P<host>[^/?#]*)(?P<path>[^?#]*)").match
_ADVICE = "or say with --prefix where the paths begin"


@dataclass(frozen=True, slots=True)
class ApiServer:
    """A host, "" where none is named, and the path in front of those of the description, without a slash at its end."""

    host: str
    base: str


def servers_of(node: DocumentNode) -> tuple[ApiServer, ...]:
    """Return the servers of a list, "/" for an empty one; raises ConfigurationError."""
    found: list[ApiServer] = []
    for item in node.items():
        found += _servers(item)
        if len(found) > MAX_ALL:
            raise node.error(f"come to more than {MAX_ALL:,} addresses: name fewer, {_ADVICE}")
    return tuple(dict.fromkeys(found or [ApiServer("", "")]))


def base_of(path: str) -> str:
    """Return a path as the base of others; raises ValueError where it is none."""
    base = path.rstrip("/")
    if (base and not base.startswith("/")) or any(part in ("", ".", "..") for part in base.split("/")[1:]) or _is_odd(base):
        raise ValueError(f"{path!r} is no path that others begin with: write one like /api/v1")
    return base


def _is_odd(base: str) -> bool:
    return any(letter in base for letter in "{}?#*;\\") or not base.isprintable()


def _servers(item: DocumentNode) -> list[ApiServer]:
    address = item.get("url").value
    if not isinstance(address, str):
        raise item.error(f"a server has a url: write it, {_ADVICE}")
    return [_server(text, item) for text in _written_out(address, item)]


def _written_out(address: str, item: DocumentNode) -> list[str]:
    """Return the addresses that the values of the variables come to."""
    variables = item.get("variables")
    names = list(dict.fromkeys(_VARIABLE.findall(address)))
    values = [_values(variables.get(name)) for name in names]
    if prod(map(len, values)) > MAX_ADDRESSES:
        raise item.error(f"its variables come to more than {MAX_ADDRESSES:,} addresses: name fewer values, {_ADVICE}")
    found = []
    for chosen in product(*values):
        of = dict(zip(names, chosen, strict=True))
        found.append(_VARIABLE.sub(lambda match, of=of: of[match[1]], address))  # type: ignore[misc]
    return found


def _values(variable: DocumentNode) -> list[str]:
    written = variable.get("enum")
    if isinstance(written.value, list) and len(written.value) > MAX_ADDRESSES:
        raise written.error(f"values come to more than {MAX_ADDRESSES:,} addresses: name fewer, {_ADVICE}")
    values: list[Any] = [item.value for item in written.items()]
    default = variable.get("default").value
    texts = [str(value) for value in [*values, default] if isinstance(value, (str, int, float)) and not isinstance(value, bool)]
    if not texts:
        raise variable.error(f"has neither a default nor an enum: write one, {_ADVICE}")
    return list(dict.fromkeys(texts))


def _server(address: str, item: DocumentNode) -> ApiServer:
    match = _ADDRESS(address)
    host, path = (match["host"], match["path"]) if match else ("", re.split("[?#]", address)[0].removeprefix("."))
    if path and not path.startswith("/"):
        path = f"/{path}"
    try:
        return ApiServer(host.rpartition("@")[2], base_of(path))
    except ValueError as error:
        raise item.error(f"its url {address!r} has no path that others begin with: change it, {_ADVICE}") from error
