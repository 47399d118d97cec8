"""Documents come over https or from this machine, whole and soon, or not at all."""

from __future__ import annotations

import asyncio
import base64
import gzip
import socket
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization

from extauthz.adapters.oauth.http import MAX_BYTES, MAX_REDIRECTS, JsonFetcher, TextFetcher, is_acceptable
from extauthz.errors import FetchError
from tests.support.http_faults import FaultyServer, Page, document, faulty_server
from tests.support.transports import Authority
from tests.support.virtual_time import in_virtual_time


@pytest.fixture
async def server() -> AsyncIterator[FaultyServer]:
    async with faulty_server() as served:
        yield served


@pytest.fixture
async def fetcher() -> AsyncIterator[JsonFetcher]:
    opened = JsonFetcher(timeout=20.0)
    yield opened
    await opened.close()


async def refused(fetcher: JsonFetcher, address: str) -> str:
    """Fetch what cannot be fetched; the error names the address."""
    with pytest.raises(FetchError) as caught:
        await fetcher.get(address)
    assert address in str(caught.value)
    return str(caught.value)


async def test_a_document_is_fetched(server: FaultyServer, fetcher: JsonFetcher) -> None:
    server.pages["/a?b=c"] = document({"keys": [1, "é", None]})

    assert (await fetcher.get(f"{server.origin}/a?b=c")).document == {"keys": [1, "é", None]}
    assert server.requests == {"/a?b=c": 1}
    assert server.heads[0].startswith(b"GET /a?b=c HTTP/1.1\r\n")
    assert b"\r\naccept: application/json\r\n" in server.heads[0].lower()


async def test_the_type_of_the_content_does_not_matter(server: FaultyServer, fetcher: JsonFetcher) -> None:
    server.pages["/"] = Page(b" [1]\n", headers=(("content-type", "text/html"),))

    assert (await fetcher.get(f"{server.origin}/")).document == [1]


@pytest.mark.parametrize("status", [201, 204, 304, 400, 401, 404, 429, 500, 503])
async def test_only_200_is_an_answer(server: FaultyServer, fetcher: JsonFetcher, status: int) -> None:
    server.pages["/"] = Page(b"" if status in (204, 304) else b'{"keys": []}', status)

    assert str(status) in await refused(fetcher, f"{server.origin}/")


REDIRECTS = [301, 302, 303, 307, 308]


@pytest.mark.parametrize("status", REDIRECTS)
async def test_a_redirect_on_the_same_host_is_followed(server: FaultyServer, fetcher: JsonFetcher, status: int) -> None:
    server.pages["/"] = Page(b"{}", status, (("location", f"{server.origin}/other"),))
    server.pages["/other"] = Page(b"{}", status, (("location", "/third"),))
    server.pages["/third"] = document([1])

    assert (await fetcher.get(f"{server.origin}/")).document == [1]
    assert server.requests == {"/": 1, "/other": 1, "/third": 1}


@pytest.mark.parametrize("status", REDIRECTS)
@pytest.mark.parametrize(
    "place", ["http://localhost:PORT/other", "https://127.0.0.1:PORT/other", "http://127.0.0.1:1/", "//evil.example/"]
)
async def test_a_redirect_to_elsewhere_is_not_followed(server: FaultyServer, fetcher: JsonFetcher, status: int, place: str) -> None:
    server.pages["/"] = Page(b"{}", status, (("location", place.replace("PORT", str(server.port))),))
    server.pages["/other"] = document({"keys": []})
    assert f"status {status}" in await refused(fetcher, f"{server.origin}/")

    assert server.requests == {"/": 1}
    assert server.connections == 1


async def test_redirects_come_to_an_end(server: FaultyServer, fetcher: JsonFetcher) -> None:
    server.pages["/"] = Page(b"{}", 302, (("location", "/"),))
    assert "status 302" in await refused(fetcher, f"{server.origin}/")

    assert server.requests == {"/": 1 + MAX_REDIRECTS}


@pytest.mark.parametrize("status", REDIRECTS)
async def test_no_redirect_gets_a_credential(server: FaultyServer, fetcher: JsonFetcher, status: int) -> None:
    server.pages["/"] = Page(b"{}", status, (("location", "/other"),))
    server.pages["/other"] = document({"sub": "ana"})
    for sent in ({"bearer": "secret"}, {"basic": ("id", "secret"), "form": {"token": "secret"}}):
        assert (await fetcher.ask(f"{server.origin}/", **sent)).status == status  # type: ignore[arg-type]

    assert server.requests == {"/": 2}


async def test_a_credential_is_sent_in_headers_and_form_only(server: FaultyServer, fetcher: JsonFetcher) -> None:
    server.pages["/"] = document({})
    await fetcher.ask(f"{server.origin}/", bearer="a.b.c")
    await fetcher.ask(f"{server.origin}/", basic=("id:1", "s e/cret"), form={"token": "a.b.c", "token_type_hint": "access_token"})
    await fetcher.ask(f"{server.origin}/", bearer="a.b.c", form={})
    first, second, third = server.heads

    assert first.startswith(b"GET / HTTP/1.1\r\n")
    assert b"authorization: Bearer a.b.c\r\n" in first.replace(b"Authorization", b"authorization")
    assert second.startswith(b"POST / HTTP/1.1\r\n")
    assert b"Basic " + base64.b64encode(b"id%3A1:s+e%2Fcret") in second
    assert b"a.b.c" not in second
    assert third.startswith(b"POST / HTTP/1.1\r\n")
    assert b"Bearer a.b.c" in third


@pytest.mark.parametrize(
    ("headers", "max_age", "retry_after"),
    [
        ((), None, None),
        ((("cache-control", "max-age=90"),), 90.0, None),
        ((("cache-control", "public, Max-Age = 3600, must-revalidate"),), 3600.0, None),
        ((("cache-control", "max-age=90, no-store"),), 0.0, None),
        ((("cache-control", "no-cache"),), 0.0, None),
        ((("cache-control", "max-age=soon"),), None, None),
        ((("cache-control", "s-maxage=5"),), None, None),
        ((("retry-after", "30"),), None, 30.0),
        ((("retry-after", "Mon, 23 Nov 2026 20:00:00 GMT"),), None, None),
        ((("retry-after", "-1"),), None, None),
    ],
    ids=str,
)
async def test_what_the_headers_of_an_answer_say(
    server: FaultyServer,
    fetcher: JsonFetcher,
    headers: tuple[tuple[str, str], ...],
    max_age: float | None,
    retry_after: float | None,
) -> None:
    server.pages["/"] = Page(b"{}", headers=headers)
    answer = await fetcher.get(f"{server.origin}/")
    assert (answer.status, answer.document, answer.max_age, answer.retry_after) == (200, {}, max_age, retry_after)


@pytest.mark.parametrize("status", [204, 400, 401, 403, 429, 500, 503])
async def test_the_document_of_another_status_is_not_read(server: FaultyServer, fetcher: JsonFetcher, status: int) -> None:
    server.pages["/"] = Page(b"<html>", status)
    answer = await fetcher.ask(f"{server.origin}/", bearer="a")
    assert (answer.status, answer.document) == (status, None)


@pytest.mark.parametrize(
    "page",
    [
        Page(b""),
        Page(b"not JSON"),
        Page(b"<html></html>"),
        Page(b'{"keys": ['),
        Page(b"\xff\xfe\x00"),
        Page(b"{}{}"),
        Page(b"[" * 100_000),
        Page(b'{"a": "\xe9"}'),
        Page(b"1" * 5000),
        Page(b'{"keys": []}', missing=10),
        Page(raw=b""),
        Page(raw=b"garbage\r\n\r\n"),
        Page(raw=b"HTTP/1.1 200 OK\r\ncontent-length: nonsense\r\n\r\n{}"),
        Page(raw=b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n{}"),
        Page(raw=b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 50_000 + b"\r\n{}"),
        Page(b"{}", headers=(("content-encoding", "gzip"),)),
    ],
    ids=[
        *("empty", "text", "HTML", "cut off", "bytes", "twice", "deep", "Latin-1", "a long number", "truncated", "closed"),
        *("no HTTP", "bad length", "bad chunk", "many headers", "not gzip"),
    ],
)
async def test_what_is_no_document_is_refused(server: FaultyServer, fetcher: JsonFetcher, page: Page) -> None:
    server.pages["/"] = page
    await refused(fetcher, f"{server.origin}/")


@pytest.mark.parametrize("extra", [0, 1, 4 * MAX_BYTES])
async def test_a_document_has_a_limit(server: FaultyServer, fetcher: JsonFetcher, extra: int) -> None:
    server.pages["/"] = Page(b'"' + b"a" * (MAX_BYTES - 2 + extra) + b'"')
    if extra:
        assert str(MAX_BYTES) in await refused(fetcher, f"{server.origin}/")
    else:
        assert len((await fetcher.get(f"{server.origin}/")).document) == MAX_BYTES - 2


async def test_the_limit_counts_what_is_unpacked(server: FaultyServer, fetcher: JsonFetcher) -> None:
    packed = gzip.compress(b'"' + b"a" * 20 * MAX_BYTES + b'"')
    assert len(packed) < MAX_BYTES
    server.pages["/"] = Page(packed, headers=(("content-encoding", "gzip"),))

    assert str(MAX_BYTES) in await refused(fetcher, f"{server.origin}/")


@pytest.mark.parametrize(
    "page", [Page(wait=30), Page(b"{}" + b" " * 20_000, slowly=0.05)], ids=["no answer", "a byte now and then"]
)
async def test_time_is_limited_for_the_whole_answer(server: FaultyServer, fetcher: JsonFetcher, page: Page) -> None:
    server.pages["/"] = page
    fetcher.timeout = 0.4
    started = time.monotonic()

    assert "0.4 s" in await refused(fetcher, f"{server.origin}/")
    assert 0.3 < time.monotonic() - started < 20


async def test_nobody_listening_is_an_error(fetcher: JsonFetcher) -> None:
    async with faulty_server() as gone:
        address = f"{gone.origin}/"

    await refused(fetcher, address)


@pytest.mark.parametrize("host", ["0.0.0.0", "[::]", "[::ffff:0.0.0.0]"])  # noqa: S104 - addresses that lead to this machine
async def test_plain_http_from_another_host_makes_no_connection(server: FaultyServer, fetcher: JsonFetcher, host: str) -> None:
    """Linux takes these for this machine, so a connection would arrive; but they are not loopback addresses."""
    server.pages["/"] = document({})

    assert "only https" in await refused(fetcher, f"http://{host}:{server.port}/")
    assert server.connections == 0


ACCEPTABLE = [
    "https://acme.okta.com/oauth2/default/v1/keys",
    "https://acme.okta.com:8443/",
    "https://192.0.2.1/",
    "http://127.0.0.1:8080/keys",
    "http://127.9.9.9/",
    "http://localhost/",
    "http://[::1]:80/",
    "HTTP://LOCALHOST/",
]
NOT_ACCEPTABLE = [
    "",
    "/keys",
    "acme.okta.com",
    "//acme.okta.com/",
    "http://acme.okta.com/",
    "http://192.0.2.1/",
    "http://10.0.0.1/",
    "http://localhost.acme.com/",
    "http://127.0.0.1.acme.com/",
    "http://127.0.0.1@acme.com/",
    "http://acme.com#127.0.0.1",
    "http://acme.com\\@127.0.0.1/",
    "http://0.0.0.0/",
    "http://[::ffff:192.0.2.1]/",
    "http://2130706433/",
    "http://0x7f000001/",
    "https://user:password@acme.okta.com/",
    "https://user@acme.okta.com/",
    "https:///keys",
    "https://",
    "https:acme.okta.com",
    "ftp://127.0.0.1/",
    "file:///etc/passwd",
    "data:application/json,{}",
    "http://[::1",
    "https://[acme]/",
    "https://acme.okta.com:port/",
    "https://ac\x00me.com/",
    "https://acme.com/\r\nx: y",
    "https://" + "a" * 70_000,
]


@pytest.mark.parametrize("address", ACCEPTABLE)
def test_https_and_loopback_may_be_fetched(address: str) -> None:
    assert is_acceptable(address)


@pytest.mark.parametrize("address", NOT_ACCEPTABLE, ids=lambda address: ascii(address)[:40])
async def test_nothing_else_may_be_fetched(fetcher: JsonFetcher, address: str) -> None:
    assert not is_acceptable(address)
    assert "only https" in await refused(fetcher, address)


PLAIN = ["http://10.0.0.7:9090/metrics", "http://prometheus:9090/", "http://[fd00::7]/", *ACCEPTABLE]


@pytest.mark.parametrize("address", PLAIN)
def test_plain_http_may_be_allowed_on_every_host(address: str) -> None:
    assert is_acceptable(address, plain_http=True)


@pytest.mark.parametrize(
    "address", [address for address in NOT_ACCEPTABLE if not address.startswith("http://")], ids=lambda address: ascii(address)[:40]
)
def test_nothing_but_http_is_allowed_with_it(address: str) -> None:
    assert not is_acceptable(address, plain_http=True)


async def test_text_is_fetched_within_the_same_bounds(server: FaultyServer) -> None:
    fetcher = TextFetcher(timeout=20.0, max_bytes=10)
    server.pages |= {"/": Page("é\n".encode()), "/json": Page(b"[1]"), "/long": Page(b"x" * 11), "/bytes": Page(b"\xff")}
    try:
        assert [(await fetcher.get(f"{server.origin}{path}")).document for path in ("/", "/json")] == ["é\n", "[1]"]
        assert "larger than 10 bytes" in await refused(fetcher, f"{server.origin}/long")
        assert "not text in UTF-8" in await refused(fetcher, f"{server.origin}/bytes")
    finally:
        await fetcher.close()


def test_a_client_certificate_that_cannot_be_used_is_an_error(tmp_path: Path) -> None:
    chain, key = Authority(tmp_path).issue("client")
    secret = serialization.load_pem_private_key(key.read_bytes(), None)
    encrypted = secret.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.BestAvailableEncryption(b"a password")
    )
    (tmp_path / "encrypted.key").write_bytes(encrypted)
    for shown in ((chain, tmp_path / "none"), (key, key), (chain, tmp_path / "encrypted.key")):
        with pytest.raises(FetchError, match="not a certificate and its unencrypted key"):
            TextFetcher(client_certificate=shown)


@pytest.mark.parametrize("address", [None, 5, b"https://acme.com/", ["https://acme.com/"], "https://\ud800/"])
def test_what_is_no_text_may_not_be_fetched(address: object) -> None:
    """The address of the keys comes out of a document: it may be anything that JSON can hold."""
    assert not is_acceptable(address)  # type: ignore[arg-type]


# The client's own errors for these are an ExceptionGroup of its task group and a UnicodeEncodeError: were they no FetchError, the
# key source that asked would end its background refresh for good.
@pytest.mark.parametrize(
    "address",
    [
        "http://127.0.0.1:99999/",
        "http://127.0.0.1:65536/",
        "https://127.0.0.1:70000/",
        "http://127.0.0.1:1/\ud800",
        "http://[::1%25]:1/",
    ],
    ids=ascii,
)
async def test_an_address_that_no_connection_can_be_made_to_is_an_error(fetcher: JsonFetcher, address: str) -> None:
    with pytest.raises(FetchError):
        await fetcher.get(address)


async def test_the_environment_names_no_proxy(server: FaultyServer, fetcher: JsonFetcher, monkeypatch: pytest.MonkeyPatch) -> None:
    async with faulty_server() as proxy:
        for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, proxy.origin)
        monkeypatch.delenv("no_proxy", raising=False)
        monkeypatch.delenv("NO_PROXY", raising=False)
        fresh = JsonFetcher(timeout=20.0)
        server.pages["/"] = document([1])
        try:
            assert (await fresh.get(f"{server.origin}/")).document == [1]
        finally:
            await fresh.close()
        assert proxy.connections == 0


async def test_a_cancelled_fetch_ends_its_connection(server: FaultyServer) -> None:
    patient = JsonFetcher(timeout=30)
    server.pages["/"] = Page(wait=30)
    server.pages["/next"] = document([1])
    task = asyncio.create_task(patient.get(f"{server.origin}/"))
    await server.seen.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert (await patient.get(f"{server.origin}/next")).document == [1]
    await patient.close()


async def test_a_proxy_is_used_for_https_and_never_for_plain_http(server: FaultyServer) -> None:
    """Plain http is for this machine: through a proxy its tokens would leave it in clear, and its keys could be anybody's."""
    server.pages["/"] = document([1])
    async with faulty_server() as proxy:
        fetcher = JsonFetcher(timeout=20.0, proxy=proxy.origin)
        try:
            assert (await fetcher.get(f"{server.origin}/")).document == [1]
            assert proxy.connections == 0
            with pytest.raises(FetchError):
                await fetcher.ask("https://acme.okta.com/userinfo", bearer="secret")
        finally:
            await fetcher.close()
    assert [head.split(b"\r\n")[0] for head in proxy.heads] == [b"CONNECT acme.okta.com:443 HTTP/1.1"]
    assert b"secret" not in b"".join(proxy.heads)


@pytest.mark.parametrize("trust", [b"", b"nothing", b"\xff", b"-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n"])
def test_a_bundle_that_holds_no_certificates_is_an_error(trust: bytes) -> None:
    with pytest.raises(FetchError, match="not a bundle of certificates"):
        JsonFetcher(trust=trust)


async def test_the_other_sides_clock_is_told(server: FaultyServer, fetcher: JsonFetcher) -> None:
    server.pages["/"] = Page(b"{}", headers=(("date", "Thu, 01 Jan 2026 00:00:00 GMT"),))
    server.pages["/none"] = Page(b"{}")

    assert (await fetcher.get(f"{server.origin}/")).date == "Thu, 01 Jan 2026 00:00:00 GMT"
    assert (await fetcher.get(f"{server.origin}/none")).date == ""


async def test_a_document_can_be_bounded_otherwise(server: FaultyServer) -> None:
    server.pages["/"] = document(["x" * 100])
    for most, expected in ((200, 100), (50, None)):
        opened = JsonFetcher(max_bytes=most)
        try:
            if expected is None:
                assert "larger than 50 bytes" in await refused(opened, f"{server.origin}/")
            else:
                assert len((await opened.get(f"{server.origin}/")).document[0]) == expected
        finally:
            await opened.close()


async def test_a_unix_socket_is_asked(tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("u") / "s"
    lines: list[bytes] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        lines.append((await reader.readuntil(b"\r\n\r\n")).split(b"\r\n")[0])
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\n[]")
        await writer.drain()
        writer.close()

    opened = JsonFetcher(unix_socket=path)
    assert "ConnectError" in await refused(opened, "http://localhost/a")
    async with await asyncio.start_unix_server(answer, path):
        assert (await opened.get("http://localhost/a")).document == []
        # A name that is not this machine's is asked nowhere.
        await refused(opened, "http://example.com/a")
    await opened.close()
    assert lines == [b"GET /a HTTP/1.1"]


async def test_a_client_that_is_closed_asks_nobody(server: FaultyServer) -> None:
    """Who waits for the next attempt may find that a reload has put another client in its place."""
    server.pages["/"] = document([])
    opened = JsonFetcher()
    await opened.close()
    assert "another configuration" in await refused(opened, f"{server.origin}/")
    assert server.requests == {}


def test_a_server_that_accepts_and_says_nothing_is_left_after_five_seconds() -> None:
    """In a loop whose time is made up."""

    async def work(port: int) -> float:
        fetcher = JsonFetcher()
        with pytest.raises(FetchError, match="no whole answer within 5 s"):
            await fetcher.get(f"http://127.0.0.1:{port}/")
        lasted = asyncio.get_running_loop().time()
        await fetcher.close()
        return lasted

    with socket.create_server(("127.0.0.1", 0)) as silent:
        assert in_virtual_time(lambda: work(silent.getsockname()[1])) == pytest.approx(5.0, abs=0.01)
