"""The pages of the ops listener, and who gets to see the configuration."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import Mapping
from pathlib import Path
from time import monotonic
from typing import Any

import pytest

from extauthz.adapters.metrics import OPENMETRICS_TYPE, TEXT_TYPE, render
from extauthz.addresses import Address
from extauthz.transport.http.ops import BoundedConnection, HttpServer, Pages, Readiness, application
from extauthz.transport.http.private_pages import PrivatePage
from extauthz.transport.sockets import open_port
from extauthz.transport.tls import TlsFiles
from tests.support.transports import Authority
from tests.support.waiting import until
from tests.support.world import StillClock

LOOPBACK = {"client": ("127.0.0.1", 5000), "server": ("127.0.0.1", 9090)}
V6 = {"client": ("::1", 5000), "server": ("::1", 9090)}


async def page(
    path: str, method: str = "GET", *, ready: bool = True, trusted: bool = False, ends: Mapping[str, Any] = LOOPBACK, **headers: str
) -> tuple[int, dict[str, str], bytes]:
    """Ask the ops application for one page."""

    async def metrics(openmetrics: bool) -> tuple[str, bytes]:
        return render({("extauthz_ready", ()): 1.0}, openmetrics=openmetrics)

    async def readiness() -> Readiness:
        return Readiness({"serving": True, "store": ready}, ({"key": "enforced", "met": False},))

    async def configuration() -> Mapping[str, Any]:
        return {"settings": {"realm": "r"}}

    async def answer(query: str) -> tuple[int, str, bytes]:
        return 200, "text/plain", query.encode()

    private = {"/decisions": PrivatePage(answer), "/recording/start": PrivatePage(answer, method="POST")}
    app = application(Pages(metrics, readiness, configuration, trusted=trusted, private=private))
    sent: list[dict[str, Any]] = []

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    lines = [(name.replace("_", "-").encode(), value.encode("latin-1")) for name, value in headers.items()]
    await app({"type": "http", "method": method, "path": path, "query_string": b"a=b", "headers": lines, **ends}, None, send)
    start, body = sent
    return start["status"], {name.decode(): value.decode() for name, value in start["headers"]}, body["body"]


@pytest.mark.parametrize(
    ("accept", "kind"),
    [("", TEXT_TYPE), ("text/plain", TEXT_TYPE), ("application/openmetrics-text;version=1.0.0,text/plain;q=0.5", OPENMETRICS_TYPE)],
)
async def test_the_metrics_page_is_served(accept: str, kind: str) -> None:
    status, headers, body = await page("/metrics", accept=accept)
    assert (status, headers["content-type"], headers["cache-control"]) == (200, kind, "no-store")
    assert int(headers["content-length"]) == len(body)
    assert b"extauthz_ready 1.0" in body


@pytest.mark.parametrize(("ready", "status"), [(True, 200), (False, 503)])
async def test_readiness_names_its_parts(ready: bool, status: int) -> None:
    found, headers, body = await page("/readyz", ready=ready)
    assert (found, headers["content-type"]) == (status, "application/json")
    assert json.loads(body) == {
        "ready": ready,
        "parts": {"serving": True, "store": ready},
        "details": [{"key": "enforced", "met": False}],
    }


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/healthz", 200),
        ("HEAD", "/healthz", 200),
        ("GET", "/", 404),
        ("GET", "/metrics/", 404),
        ("GET", "/readyz/../metrics", 404),
        ("POST", "/metrics", 405),
        ("DELETE", "/nothing", 405),
    ],
)
async def test_other_pages(method: str, path: str, status: int) -> None:
    found, headers, body = await page(path, method)
    assert found == status
    assert (body == b"") == (method == "HEAD")
    assert headers["content-length"] != "0"


@pytest.mark.parametrize("host", ["localhost", "localhost:9090", "127.0.0.1", "127.0.0.1:9090", "LOCALHOST:9090"])
async def test_the_configuration_is_shown_over_loopback(host: str) -> None:
    status, headers, body = await page("/config", host=host)
    assert (status, headers["content-type"]) == (200, "application/json")
    assert json.loads(body) == {"settings": {"realm": "r"}}
    assert (await page("/config", ends=V6, host="[::1]:9090"))[0] == 200
    assert (await page("/config", ends=V6, host="[::1]"))[0] == 200


@pytest.mark.parametrize(
    "host",
    ["", "evil.example", "evil.example:9090", "localhost.evil.example", "localhost@evil.example", "10.0.0.7:9090", "[::2]:9090"],
)
async def test_not_to_a_browser_that_was_sent_by_another_name(host: str) -> None:
    status, _, body = await page("/config", host=host)
    assert status == 403
    assert b"realm" not in body


@pytest.mark.parametrize(
    "ends",
    [
        {"client": ("10.0.0.7", 5000), "server": ("10.0.0.1", 9090)},
        {"client": ("10.0.0.7", 5000), "server": ("127.0.0.1", 9090)},
        {"client": ("127.0.0.1", 5000), "server": ("10.0.0.1", 9090)},
        {"client": None, "server": ("/run/ops.sock", None)},
        {"client": None, "server": None},
        {},
    ],
    ids=str,
)
async def test_not_to_another_machine_whatever_name_it_says(ends: Mapping[str, Any]) -> None:
    assert (await page("/config", ends=ends, host="localhost"))[0] == 403
    assert (await page("/config", ends=ends, trusted=True))[0] == 200


async def test_two_names_are_none() -> None:
    app_ends = {**LOOPBACK}
    assert (await page("/config", ends=app_ends, host="localhost,localhost"))[0] == 403


PRIVATE = [("/config", "GET"), ("/decisions", "GET"), ("/recording/start", "POST")]


@pytest.mark.parametrize(("path", "method"), PRIVATE)
async def test_every_private_page_has_the_rules_of_the_configuration(path: str, method: str) -> None:
    assert (await page(path, method, host="localhost"))[0] == 200
    for refused in ({"host": "evil.example"}, {"host": ""}):
        status, _, body = await page(path, method, **refused)
        assert (status, body.partition(b" ")[0]) == (403, path.encode())
    for ends in ({"client": ("10.0.0.7", 5000), "server": ("127.0.0.1", 9090)}, {}):
        assert (await page(path, method, ends=ends, host="localhost"))[0] == 403
        assert (await page(path, method, ends=ends, trusted=True))[0] == 200


@pytest.mark.parametrize("trusted", [False, True])
@pytest.mark.parametrize(("path", "method"), PRIVATE)
@pytest.mark.parametrize(
    "headers",
    [{"origin": "https://evil.example"}, {"origin": "null"}, {"sec_fetch_site": "cross-site"}, {"sec_fetch_site": "same-site"}],
    ids=str,
)
async def test_no_private_page_is_for_web_pages(path: str, method: str, headers: dict[str, str], trusted: bool) -> None:
    """A browser on the operator's machine sends whatever a page asks it to, by a form or without reading the answer."""
    status, _, body = await page(path, method, trusted=trusted, host="localhost", **headers)
    assert (status, body) == (403, b"not for web pages: ask with a program, like extauthz decisions\n")


async def test_whoever_writes_the_address_in_a_browser_sees_the_page() -> None:
    status, _, body = await page("/decisions", host="localhost", sec_fetch_site="none")
    assert (status, body) == (200, b"a=b")


@pytest.mark.parametrize(("path", "method"), [("/recording/start", "GET"), ("/recording/start", "PUT"), ("/decisions", "POST")])
async def test_a_private_page_has_one_method(path: str, method: str) -> None:
    assert (await page(path, method, trusted=True))[0] == 405


# --- the listener itself


async def test_a_connection_that_says_nothing_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else whoever reaches this listener could take the descriptors that the checks need."""
    monkeypatch.setattr(BoundedConnection, "lifetime", 0.05)
    monkeypatch.setattr(BoundedConnection, "grace", 0.05)
    opened = open_port(Address(host="127.0.0.1", port=0))

    async def nobody() -> Readiness:
        return Readiness({}, ())

    async def nothing(_: bool) -> tuple[str, bytes]:
        return TEXT_TYPE, b""

    server = HttpServer(application(Pages(nothing, nobody, dict)), http=BoundedConnection)
    serving = asyncio.create_task(server.run_on(opened))
    try:
        for said in (b"", b"GET /metrics HTTP/1.1\r\nhost: x\r\n"):
            begun = monotonic()
            reader, writer = await asyncio.open_connection(*opened.getsockname()[:2])
            writer.write(said)
            told = b""
            async with asyncio.timeout(20):
                with contextlib.suppress(ConnectionError):
                    told = await reader.read()
            writer.close()
            assert (told, monotonic() - begun >= 0.05) == (b"", True), "no answer, and no earlier than it may"
    finally:
        server.should_exit = True
        await serving


async def test_a_certificate_that_is_over_or_cannot_be_read_leaves_the_one_of_before(tmp_path: Path) -> None:
    authority, clock = Authority(tmp_path), StillClock()
    reports: list[str | None] = [None]
    chain, key = authority.issue("server")
    files = TlsFiles(chain, key)
    served = files.load(protocol="http/1.1")
    clock.wall = served.expires_at - 600

    def said() -> str | None:
        return reports[-1]

    renewing = asyncio.create_task(files.renew(served, interval=0.01, now=clock.now, report=reports.append))
    try:
        clock.advance(7200)
        authority.issue("server")
        await until(lambda: f"{chain} ended at " in (said() or ""))
        clock.advance(-7200)
        await until(lambda: said() is None)
        key.write_text("no key")
        await until(lambda: "are not a certificate and its unencrypted key" in (said() or ""))
        chain.unlink()
        await until(lambda: f"{chain} cannot be read" in (said() or ""))
        authority.issue("server")
        await until(lambda: said() is None)
    finally:
        renewing.cancel()
        await asyncio.gather(renewing, return_exceptions=True)


async def test_another_authority_of_clients_is_not_said_to_be_taken(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The context that serves cannot change it: the log says that a restart is needed, and changed keys wait for it too."""
    caplog.set_level(logging.INFO)
    ours, others = Authority(tmp_path), Authority(tmp_path, "others")
    chain, key = ours.issue("server")
    authority = tmp_path / "clients.pem"
    authority.write_bytes(ours.file.read_bytes())
    files = TlsFiles(chain, key, authority)
    renewing = asyncio.create_task(files.renew(files.load(protocol="http/1.1"), interval=0.01))
    try:
        authority.write_bytes(others.file.read_bytes())
        await until(lambda: "clients.pem is another one, which needs a restart here" in caplog.text)
        authority.write_bytes(ours.file.read_bytes())
        ours.issue("server")
        await until(lambda: "certificates reloaded" in caplog.text)
        assert caplog.text.count("certificates reloaded") == 1
    finally:
        renewing.cancel()
        await asyncio.gather(renewing, return_exceptions=True)
