"""Addresses that one configuration gives to several listeners; read from the plain data, what is wrong is listed elsewhere."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from extauthz.addresses import Address, parse_address
from extauthz.config import document
from extauthz.config.document import Document, mapping

DEFAULT_OPS = "127.0.0.1:9090"
JWKS: document.KeyPath = ("internal_token", "jwks")

_LOOPBACK = "127.0.0.1"
_ANYWHERE = frozenset({"0.0.0.0", "::"})  # noqa: S104 - compared, not listened on


def taken(source: Document, path: document.KeyPath, text: object) -> Address | None:
    """Return the address of another listener of the sidecar, its workers' included, that the one at a key would take."""
    own = _tcp(text)
    others = _of_the_sidecar(source, with_key_set=path != JWKS)
    return next((other for other in others if collide(own, other)), None) if own else None


def is_everywhere(address: Address) -> bool:
    """Tell whether an address stands for all addresses of the machine, so that it names none of them."""
    return address.host in _ANYWHERE


def _of_the_sidecar(source: Document, *, with_key_set: bool) -> Iterator[Address]:
    server, internal_token = mapping(source.data.get("server")), mapping(source.data.get("internal_token"))
    workers = server.get("workers", 1)
    written = [(server.get("listen"), workers), (server.get("ops", DEFAULT_OPS), 1)]
    if with_key_set:
        written.append((internal_token.get("jwks"), 1))
    for text, count in written:
        if address := _tcp(text):
            with contextlib.suppress(ValueError, TypeError):
                yield from address.of_workers(count)


def _tcp(text: object) -> Address | None:
    if not isinstance(text, str):
        return None
    with contextlib.suppress(ValueError):
        address = parse_address(text)
        return address if address.port else None
    return None


def collide(own: Address, other: Address) -> bool:
    """Tell whether one machine cannot listen on both addresses; port 0 is never the same."""
    hosts = {_LOOPBACK if address.host == "localhost" else address.host for address in (own, other)}
    return own.port == other.port != 0 and (len(hosts) == 1 or not _ANYWHERE.isdisjoint(hosts))
