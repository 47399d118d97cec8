"""Bounded requests over HTTP, for JSON and for text: the only HTTP client."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.cookiejar import CookieJar, DefaultCookiePolicy
from pathlib import Path
from typing import Any
from urllib.parse import quote_plus

import httpx2

from extauthz.adapters.oauth.public_addresses import AddressRule, CheckedTransport, is_loopback
from extauthz.errors import FetchError, NothingThere, ProxyRefusal

MAX_BYTES = 512 * 1024
MAX_REDIRECTS = 3
MAX_CAUSE = 500
"""Characters of a cause that are logged: it may name an address that somebody else wrote."""
SMALL = 64 * 1024
"""Bytes of an answer that nobody needs, and that is read so that its connection can be used again."""
IDLE = 60.0
"""Seconds that a connection is kept for the next request."""

_CONNECTING = frozenset({"connection.connect_tcp.started", "connection.connect_unix_socket.started"})
"""What httpx2 reports to a request's `trace` when it opens a connection for it."""
_NO_ANSWER = "Server disconnected without sending a response."

_MAX_AGE = re.compile(r"\bmax-age\s*=\s*\"?([0-9]{1,9})").search
_UNCACHED = re.compile(r"\bno-(?:store|cache)\b").search


@dataclass(frozen=True, slots=True)
class Answer:
    """The document of an answer with status 200; of others the status alone, with `document` None.

    `challenge` is WWW-Authenticate, `date` is Date. `max_age` are the seconds that Cache-Control lets it be kept (RFC 9111 5.2.2),
    `retry_after` those of Retry-After; None where the header is missing, or not in seconds. `refusal` is a small text of another
    status.
    """

    status: int
    document: Any = None
    max_age: float | None = None
    retry_after: float | None = None
    challenge: str = ""
    date: str = ""
    refusal: str = field(default="", repr=False)


class JsonFetcher:
    """Asks over https, and over plain http only on loopback.

    `timeout` in seconds bounds a whole request, the body of its answer included; `proxy` is the address of a proxy for those
    over https, `proxy_auth` its user and password, `trust` a bundle of certificates, PEM, in place of the system's. `unix_socket`
    is asked instead of the host of an address. `max_bytes` bounds a document. `plain_http` asks over http on every host, which is
    for what holds no secret and proves nothing; `client_certificate` are the files of a chain and of its key that this side shows.
    With a `rule` no address is connected to that it does not allow, and no redirect is followed.

    All that is sent only asks, so that it may be sent twice: when the other side ends a connection that was kept, before the head
    of its answer has come, the request is sent once more on a fresh one, within the same time.
    """

    _form = "JSON"
    _accept = "application/json"

    def __init__(
        self,
        *,
        timeout: float = 5.0,
        proxy: str | None = None,
        proxy_auth: tuple[str, str] | None = None,
        trust: bytes | None = None,
        unix_socket: Path | None = None,
        max_bytes: int = MAX_BYTES,
        plain_http: bool = False,
        client_certificate: tuple[Path, Path] | None = None,
        rule: AddressRule | None = None,
    ) -> None:
        """Open a connection pool; proxies and netrc of the environment are not used.

        Raises FetchError for an unusable bundle or certificate.
        """
        self.timeout = timeout
        self._max_bytes = max_bytes
        self._plain_http = plain_http
        self._rule = rule
        try:
            tls = httpx2.create_ssl_context(trust_env=False) if trust is None else _trusting(trust)
        except (OSError, ValueError) as error:
            raise FetchError(f"not a bundle of certificates ({error})") from error
        if client_certificate is not None:
            _show(tls, *client_certificate)
        self._has_proxy_auth = proxy_auth is not None
        through = httpx2.Proxy(proxy, auth=proxy_auth) if proxy else None
        self._client = _client(timeout, through, tls, unix_socket, rule)
        self._fresh = _client(timeout, through, tls, unix_socket, rule, idle=0)

    async def get(self, address: str) -> Answer:
        """Return the document at this address, at most a few redirects away on the same host; raises FetchError."""
        answer = await self._answer(address, redirects=MAX_REDIRECTS if self._rule is None else 0)
        if answer.status != 200:
            kind = NothingThere if answer.status in (404, 410) else FetchError
            raise kind(f"{address}: status {answer.status}")
        return answer

    async def ask(
        self,
        address: str,
        *,
        bearer: str | None = None,
        basic: tuple[str, str] | None = None,
        form: Mapping[str, str] | None = None,
    ) -> Answer:
        """Send a credential and return the answer, whatever its status; no redirect gets it. Raises FetchError.

        A POST with a `form`, a GET without; `basic` are client id and secret (RFC 6749 2.3.1).
        """
        return await self._answer(address, bearer=bearer, basic=basic, form=form)

    async def close(self) -> None:
        """Close the pool."""
        await self._client.aclose()
        await self._fresh.aclose()

    async def _answer(
        self,
        address: str,
        *,
        bearer: str | None = None,
        basic: tuple[str, str] | None = None,
        form: Mapping[str, str] | None = None,
        redirects: int = 0,
    ) -> Answer:
        if not is_acceptable(address, plain_http=self._plain_http):
            raise FetchError(f"{address}: only https is asked, or http on a loopback address")
        if self._rule is not None:
            self._rule.check(address)
        if self._client.is_closed:
            raise FetchError(f"{address}: not asked, because another configuration is served by now")
        headers = {"accept": self._accept} | ({"authorization": f"Bearer {bearer}"} if bearer is not None else {})
        auth = httpx2.BasicAuth(*map(quote_plus, basic)) if basic is not None else None
        try:
            async with asyncio.timeout(self.timeout):
                request = self._client.build_request("GET" if form is None else "POST", address, headers=headers, data=form)
                return await self._send(address, request, auth, redirects)
        except TimeoutError:
            raise FetchError(f"{address}: no whole answer within {self.timeout:g} s") from None
        except httpx2.ProxyError as error:
            raise self._proxy_failure(address, str(error)) from error
        except (httpx2.HTTPError, httpx2.InvalidURL, OSError) as error:
            raise FetchError(f"{address}: {type(error).__name__}") from error
        except (ValueError, RecursionError):
            raise FetchError(f"{address}: the answer is not {self._form}") from None

    async def _send(self, address: str, request: httpx2.Request, auth: httpx2.Auth | None, redirects: int) -> Answer:
        response = await self._first_response(request, auth)
        try:
            if redirects and response.next_request is not None and _origin(response.next_request.url) == _origin(request.url):
                return await self._send(address, response.next_request, auth, redirects - 1)
            document, refusal = None, ""
            if response.status_code == 200:
                document = self._read(await self._body(address, response))
            else:
                refusal = await _refusal(response)
        finally:
            await response.aclose()
        control, pause = response.headers.get("cache-control", "").lower(), response.headers.get("retry-after", "")
        max_age = _MAX_AGE(control)
        return Answer(
            response.status_code,
            document,
            0.0 if _UNCACHED(control) else float(max_age[1]) if max_age else None,
            float(pause) if re.fullmatch("[0-9]{1,9}", pause) else None,
            response.headers.get("www-authenticate", ""),
            response.headers.get("date", ""),
            refusal,
        )

    async def _first_response(self, request: httpx2.Request, auth: httpx2.Auth | None) -> httpx2.Response:
        """Send a request, and once more on a fresh connection if the one that was kept ended before the head of an answer."""
        connects = False

        async def note(event: str, _: object) -> None:
            nonlocal connects
            connects = connects or event in _CONNECTING

        request.extensions = {**request.extensions, "trace": note}
        try:
            return await self._client.send(request, stream=True, auth=auth)
        except (httpx2.ReadError, httpx2.WriteError, httpx2.RemoteProtocolError) as error:
            if connects or (isinstance(error, httpx2.RemoteProtocolError) and str(error) != _NO_ANSWER):
                raise
        return await self._fresh.send(request, stream=True, auth=auth)

    def _read(self, body: bytes) -> Any:
        """Read a document; raise ValueError or RecursionError."""
        return json.loads(body)

    def _proxy_failure(self, address: str, status_line: str) -> FetchError:
        """Name the status alone: the rest of the line is the proxy's."""
        status = status_line[:3] if re.fullmatch("[0-9]{3}", status_line[:3]) else ""
        if status == "407":
            refusal = "refuses its user and password" if self._has_proxy_auth else "asks for a user and a password"
            return ProxyRefusal(f"{address}: the proxy {refusal} (407): see oauth.proxy")
        return FetchError(f"{address}: the proxy " + (f"answers with status {status}" if status else "cannot be used"))

    async def _body(self, address: str, response: httpx2.Response) -> bytes:
        body = bytearray()
        async for chunk in response.aiter_bytes():
            body += chunk
            if len(body) > self._max_bytes:
                raise FetchError(f"{address}: larger than {self._max_bytes} bytes")
        return bytes(body)


class TextFetcher(JsonFetcher):
    """Asks in the same way for text in UTF-8: the document of an answer is a str."""

    _form = "text in UTF-8"
    _accept = "text/plain"

    def _read(self, body: bytes) -> Any:
        return body.decode()


def _show(tls: ssl.SSLContext, chain: Path, key: Path) -> None:
    try:
        # Without a password that is given here, OpenSSL would ask for one on the terminal.
        tls.load_cert_chain(chain, key, password="")
    except (OSError, ValueError) as error:
        raise FetchError(f"{chain} and {key} are not a certificate and its unencrypted key: {error}") from error


def _trusting(trust: bytes) -> ssl.SSLContext:
    if not trust.strip():
        raise ValueError("it is empty")  # which ssl would take for no bundle at all
    return ssl.create_default_context(cadata=trust.decode("ascii"))


def _client(
    timeout: float,
    proxy: httpx2.Proxy | None,
    tls: ssl.SSLContext,
    unix_socket: Path | None,
    rule: AddressRule | None,
    *,
    idle: int | None = None,
) -> httpx2.AsyncClient:
    """Return a pool that keeps so many connections for the next request, any number with None."""
    limits = httpx2.Limits(keepalive_expiry=IDLE, max_keepalive_connections=idle)
    uds = str(unix_socket) if unix_socket else None
    direct: httpx2.AsyncBaseTransport = httpx2.AsyncHTTPTransport(uds=uds, trust_env=False, verify=tls, limits=limits)
    if rule is not None:
        direct = CheckedTransport(direct, rule)
    return httpx2.AsyncClient(
        timeout=timeout,
        follow_redirects=False,
        trust_env=False,
        proxy=proxy,
        transport=direct,
        # Plain http is for this machine, and what goes there must not leave it in clear.
        mounts={"http://": direct} if proxy else None,
        verify=tls,
        limits=limits,
        # No answer is remembered in a cookie: the next request is about somebody else.
        cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
    )


async def _refusal(response: httpx2.Response) -> str:
    length = response.headers.get("content-length", "")
    with contextlib.suppress(httpx2.HTTPError):
        if re.fullmatch("[0-9]{1,9}", length) and int(length) <= SMALL:
            return (await response.aread()).decode(errors="replace")
    return ""


def _origin(url: httpx2.URL) -> tuple[str, str, int | None]:
    return url.scheme, url.host, url.port


def is_acceptable(address: str, *, plain_http: bool = False) -> bool:
    """Return whether an address may be asked: https, or http on a loopback host, with `plain_http` on every host."""
    try:
        url = httpx2.URL(address)
    except (httpx2.InvalidURL, TypeError, ValueError):
        return False
    if url.userinfo or not url.host or not 0 < (url.port or 443) < 65536:
        return False
    return url.scheme == "https" or (url.scheme == "http" and (plain_http or is_loopback(url.host)))
