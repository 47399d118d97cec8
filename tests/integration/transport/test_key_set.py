"""The listener of the public keys: anybody may ask, so nobody may keep what the checks need."""

from __future__ import annotations

import asyncio
import contextlib
import json
import urllib.error
import urllib.request
from collections.abc import AsyncIterator
from http.client import HTTPMessage
from time import monotonic

import pytest

from extauthz.addresses import Address
from extauthz.transport.http import key_set
from extauthz.transport.sockets import open_port

DOCUMENT = b'{"keys": [{"kid": "k1"}]}'


@contextlib.asynccontextmanager
async def listening(document: list[bytes] | None = None) -> AsyncIterator[int]:
    """Serve the last of these documents on a port of its own."""
    documents = document or [DOCUMENT]
    opened = open_port(Address(host="127.0.0.1"))
    port = opened.getsockname()[1]
    async with key_set.serving(opened, lambda: documents[-1]):
        yield port


def asked(port: int, path: str = key_set.PATH, method: str = "GET") -> tuple[int, HTTPMessage, bytes]:
    """Ask as a client does."""
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", method=method)
    try:
        with urllib.request.urlopen(request, timeout=5) as response:
            return response.status, response.headers, response.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.headers, error.read()


async def test_it_tells_the_keys_and_nothing_else() -> None:
    documents = [DOCUMENT]
    async with listening(documents) as port:
        status, headers, body = await asyncio.to_thread(asked, port)
        assert (status, json.loads(body)) == (200, {"keys": [{"kid": "k1"}]})
        assert (headers["content-type"], headers["cache-control"]) == ("application/json", "public, max-age=300")
        documents.append(b'{"keys": []}')
        assert (await asyncio.to_thread(asked, port))[2] == documents[-1], "a reload shows"
        status, headers, body = await asyncio.to_thread(asked, port, method="HEAD")
        assert (status, headers["content-length"], body) == (200, "12", b"")
        for path in ("/", "/metrics", "/config", "/.well-known/jwks.json/", "/.well-known/openid-configuration"):
            status, headers, body = await asyncio.to_thread(asked, port, path)
            assert (status, headers["cache-control"], body) == (404, "no-store", b"/.well-known/jwks.json\n")
        for method in ("POST", "PUT", "DELETE", "OPTIONS"):
            assert (await asyncio.to_thread(asked, port, method=method))[0] == 405


async def test_a_silent_connection_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(key_set.BriefConnection, "lifetime", 0.05)
    monkeypatch.setattr(key_set.BriefConnection, "grace", 0.05)
    async with listening() as port:
        for said in (b"", b"GET /.well-known/jwks.json HTTP/1.1\r\nhost: x\r\n", b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"):
            begun = monotonic()
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(said)
            told = b""
            async with asyncio.timeout(5):
                with contextlib.suppress(ConnectionError):
                    told = await reader.read()
            writer.close()
            assert monotonic() - begun >= 0.05, "no earlier than it may"
            assert told[:12] == (b"HTTP/1.1 404" if said.endswith(b"\r\n\r\n") else b"")


async def test_only_so_many_connections_are_held(monkeypatch: pytest.MonkeyPatch) -> None:
    """The one that rested longest makes room, and nothing else of theirs changes."""
    monkeypatch.setattr(key_set.BriefConnection, "most", 3)
    async with listening() as port:
        held = [await asyncio.open_connection("127.0.0.1", port) for _ in range(3)]
        for reader, writer in held:
            writer.write(b"GET /.well-known/jwks.json HTTP/1.1\r\nhost: x\r\n\r\n")
            assert await reader.readuntil(b"\r\n\r\n")
            assert await reader.readexactly(len(DOCUMENT)) == DOCUMENT
        assert await asyncio.to_thread(asked, port)
        async with asyncio.timeout(5):
            with contextlib.suppress(ConnectionError):
                assert await held[0][0].read() == b""
        for reader, writer in held[1:]:
            writer.write(b"GET /.well-known/jwks.json HTTP/1.1\r\nhost: x\r\n\r\n")
            assert await reader.readuntil(b"\r\n") == b"HTTP/1.1 200 OK\r\n"
        for _, writer in held:
            writer.close()
