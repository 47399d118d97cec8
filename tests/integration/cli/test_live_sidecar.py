"""How a running sidecar is asked: over TCP, a unix socket and with a client certificate, and what is said where that fails."""

from __future__ import annotations

import asyncio
import contextlib
import json
import urllib.parse
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from extauthz.addresses import Address
from extauthz.errors import LiveError
from extauthz.tools.live import LiveSidecar, OpsListener, RecentDecisions, asking, ops_listener
from extauthz.transport.http.ops import HttpServer, Pages, Readiness, application
from extauthz.transport.http.private_pages import PrivatePage
from extauthz.transport.sockets import open_listener
from extauthz.transport.tls import TlsFiles
from tests.support.transports import Authority

RECORD = {"decision_id": "0" * 32, "reason": "allowed"}
ANSWER = {"decisions": [RECORD], "workers": {"asked": 2, "answered": 1, "silent": ["worker 1"]}, "started": 7.0, "cut": True}


async def _metrics(_: bool) -> tuple[str, bytes]:
    return "text/plain", b""


async def _readiness() -> Readiness:
    return Readiness({}, ())


async def _decisions(query: str) -> tuple[int, str, bytes]:
    asked = dict(urllib.parse.parse_qsl(query))
    match asked.get("route"):
        case "other":
            return 200, "application/json", b'{"decisions": 1}'
        case "refused":
            return 400, "text/plain", b"route: a hint\n"
        case _:
            return 200, "application/json", json.dumps(ANSWER | {"decisions": [RECORD | asked]}).encode()


async def _recording(query: str) -> tuple[int, str, bytes]:
    return 404, "text/plain", b"no recording of this name goes on\n"


@contextlib.asynccontextmanager
async def serving(address: Address, tls: TlsFiles | None = None) -> AsyncIterator[int]:
    """Serve the pages for operators inside the block; yield the port."""
    private = {"/decisions": PrivatePage(_decisions), "/recording/next": PrivatePage(_recording, method="POST")}
    pages = Pages(_metrics, _readiness, trusted=tls is not None or bool(address.path), private=private)
    listener = open_listener(address)
    server = HttpServer(application(pages), tls=tls.load(protocol="http/1.1").context if tls else None)
    task = asyncio.create_task(server.run_on(listener))
    try:
        yield 0 if address.path else int(listener.getsockname()[1])
    finally:
        server.should_exit = True
        await task
        listener.close()


async def asked(listener: OpsListener, **query: str) -> RecentDecisions:
    async with asking(listener) as sidecar:
        return await sidecar.decisions(query)


async def test_it_is_asked_over_tcp_and_a_unix_socket(tmp_path: Path) -> None:
    path = tmp_path / "ops.sock"
    async with serving(Address("127.0.0.1")) as port, serving(Address(path=str(path))):
        for text in (f"127.0.0.1:{port}", f"http://localhost:{port}", f"unix://{path}"):
            found = await asked(ops_listener(text), user="ü@acme.com", limit="1")
            assert found.decisions == ({**RECORD, "user": "ü@acme.com", "limit": "1"},)
            assert (found.workers, found.silent, found.is_cut, found.started) == (2, ("worker 1",), True, 7.0)


async def test_it_is_asked_with_a_client_certificate(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    ours, theirs = authority.issue("server"), authority.issue("operator")
    async with serving(Address("127.0.0.1"), TlsFiles(*ours, authority.file)) as port:
        found = await asked(ops_listener(f"localhost:{port}", ca=authority.file, certificate=theirs))
        assert found.decisions == (RECORD,)
        for wrong in (ops_listener(f"https://localhost:{port}"), ops_listener(f"localhost:{port}", ca=authority.file)):
            with pytest.raises(LiveError, match=r"localhost:[0-9]+: "):
                await asked(wrong)


async def test_what_goes_wrong_is_said_without_the_query(tmp_path: Path) -> None:
    async with serving(Address("127.0.0.1")) as port:
        place = ops_listener(f"127.0.0.1:{port}")
        for route, said in {
            "other": "what answers is no sidecar of this version",
            "refused": "route: a hint",
        }.items():
            with pytest.raises(LiveError) as caught:
                await asked(place, route=route, user="ana@acme.com")
            assert str(caught.value) == f"127.0.0.1:{port}: {said}"
        sidecar = LiveSidecar(place)
        with pytest.raises(LiveError) as caught:
            await sidecar.next_recorded("r")
        assert str(caught.value) == f"127.0.0.1:{port}: no recording of this name goes on"
        with pytest.raises(LiveError) as caught:
            await sidecar.start_recording({})
        assert str(caught.value).endswith("what answers has no /recording/start: a sidecar of an older version, or something else")
        await sidecar.close()
    for silent in (place, ops_listener(f"unix://{tmp_path / 'none.sock'}")):
        with pytest.raises(LiveError) as caught:
            await asked(silent, user="ana@acme.com")
        assert str(caught.value) == f"{silent.name}: nothing answers there: is the sidecar running?"
    with pytest.raises(LiveError) as caught:
        await asked(ops_listener("ops.acme.example:9090"))
    assert str(caught.value) == "ops.acme.example:9090: only https is asked, or http on a loopback address"


@pytest.mark.parametrize("line", ["POST /metrics", "POST /nothing", "GET /recording/next", "HEAD /decisions"])
async def test_a_method_that_no_page_has_gets_a_whole_answer(line: str) -> None:
    """Over a real connection: one whose body is shorter than its length breaks it."""
    async with serving(Address("127.0.0.1")) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(f"{line} HTTP/1.1\r\nhost: localhost\r\ncontent-length: 0\r\nconnection: close\r\n\r\n".encode())
        head, _, body = (await reader.read()).partition(b"\r\n\r\n")
        writer.close()
    assert head.split(b" ")[1] == (b"200" if line.startswith("HEAD") else b"405")
    length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
    assert len(body) == (0 if line.startswith("HEAD") else length)
