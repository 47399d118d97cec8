"""Bounded HTTPS JSON fetch: the only HTTP client."""

from __future__ import annotations

import asyncio
import ipaddress
import json
import ssl
from pathlib import Path
from typing import Any

import httpx2

MAX_BYTES = 512 * 1024


class FetchError(Exception):
    """A document could not be fetched; the text names the address and the cause, never the content."""


class JsonFetcher:
    """Fetches JSON documents over https; plain http only from loopback. Redirects are not followed.

    `timeout` in seconds bounds a whole fetch, the body included; `proxy` is the address of a proxy for all fetches, `ca_file` a
    bundle of certificates to trust in place of the system's.
    """

    def __init__(self, *, timeout: float = 5.0, proxy: str | None = None, ca_file: Path | None = None) -> None:
        """Open a connection pool; proxies and netrc of the environment are not used. Raises FetchError for an unusable bundle."""
        self._timeout = timeout
        try:
            trust = ssl.create_default_context(cafile=ca_file) if ca_file else True
        except OSError as error:
            raise FetchError(f"{ca_file}: not a bundle of certificates ({error})") from error
        self._client = httpx2.AsyncClient(timeout=timeout, follow_redirects=False, trust_env=False, proxy=proxy, verify=trust)

    async def get(self, address: str) -> Any:
        """Return the document at this address; raises FetchError."""
        if not is_acceptable(address):
            raise FetchError(f"{address}: only https is fetched, or http from a loopback address")
        try:
            async with asyncio.timeout(self._timeout):
                return json.loads(await self._body(address))
        except TimeoutError:
            raise FetchError(f"{address}: no whole answer within {self._timeout:g} s") from None
        except (httpx2.HTTPError, httpx2.InvalidURL, OSError) as error:
            raise FetchError(f"{address}: {type(error).__name__}") from error
        except (ValueError, RecursionError):
            raise FetchError(f"{address}: the answer is not JSON") from None

    async def close(self) -> None:
        """Close the pool."""
        await self._client.aclose()

    async def _body(self, address: str) -> bytes:
        async with self._client.stream("GET", address, headers={"accept": "application/json"}) as response:
            if response.status_code != 200:
                raise FetchError(f"{address}: status {response.status_code}")
            body = bytearray()
            async for chunk in response.aiter_bytes():
                body += chunk
                if len(body) > MAX_BYTES:
                    raise FetchError(f"{address}: larger than {MAX_BYTES} bytes")
            return bytes(body)


def is_acceptable(address: str) -> bool:
    """Tell whether an address may be fetched: https, or http on a loopback host."""
    try:
        url = httpx2.URL(address)
    except (httpx2.InvalidURL, TypeError, ValueError):
        return False
    if url.userinfo or not url.host or not 0 < (url.port or 443) < 65536:
        return False
    return url.scheme == "https" or (url.scheme == "http" and _is_loopback(url.host))


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
