"""The discovery document of one issuer (OpenID Connect Discovery 4, RFC 8414 3)."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from extauthz.adapters.fetch import FetchError, JsonFetcher
from extauthz.ports import Clock

LIFETIME = 3600.0
"""Seconds that a document is used before the next one is fetched."""
RETRY = 30.0
"""Seconds between attempts to replace a document that is still there."""

_log = logging.getLogger(__name__)


class Discovery:
    """Tells the addresses of an issuer; when no newer document can be had, those of the last good one."""

    def __init__(self, issuer: str, address: str, fetcher: JsonFetcher, *, clock: Clock) -> None:
        """Know where the document stands; nothing is fetched before it is asked for."""
        self.issuer = issuer
        self._address = address
        self._fetcher = fetcher
        self._clock = clock
        self._document: dict[str, Any] = {}
        self._fetch_at = float("-inf")
        self._lock = asyncio.Lock()

    async def endpoint(self, name: str) -> str:
        """Return the address that the document names; raises FetchError."""
        async with self._lock:
            if self._clock.monotonic() >= self._fetch_at:
                await self._refresh()
        address = self._document.get(name)
        if not isinstance(address, str):
            self.expire()
            raise FetchError(f"the discovery document of {self.issuer} has no {name}")
        if self.issuer.startswith("https://") and not address.startswith("https://"):
            self.expire()
            raise FetchError(f"the discovery document of {self.issuer} names a {name} that is not behind https")
        return address

    def expire(self) -> None:
        """Fetch the document anew before the next address is told: what it named did not answer."""
        self._fetch_at = float("-inf")

    async def _refresh(self) -> None:
        """Fetch the document, which must be that of this issuer (OpenID Connect Discovery 4.3)."""
        try:
            document = (await self._fetcher.get(self._address)).document
            if not isinstance(document, dict) or document.get("issuer") != self.issuer:
                raise FetchError(f"the discovery document of {self.issuer} names another issuer")
        except FetchError as error:
            if not self._document:
                raise
            _log.warning("discovery document not fetched", extra={"issuer": self.issuer, "cause": str(error)})
            self._fetch_at = self._clock.monotonic() + RETRY
            return
        self._document = document
        self._fetch_at = self._clock.monotonic() + LIFETIME
