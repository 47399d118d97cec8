"""The discovery document of one issuer (OpenID Connect Discovery 4, RFC 8414 3)."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import Any

from extauthz.adapters.oauth.http import MAX_CAUSE, JsonFetcher
from extauthz.errors import FetchError
from extauthz.ports import Clock

LIFETIME = 3600.0
"""Seconds that a document is used before the next one is fetched, in the background."""
MAX_AGE = 24 * 3600.0
"""Seconds that the last good document is used while no newer one can be had."""
RETRY = 30.0
"""Seconds between attempts to replace a document that is still there."""
FIRST_RETRY = 2.0
"""Seconds between attempts while there is none."""

_log = logging.getLogger(__name__)


class Discovery:
    """The addresses of an issuer; when no newer document can be had, those of the last good one."""

    def __init__(self, issuer: str, address: str, fetcher: JsonFetcher, *, clock: Clock, other: str | None = None) -> None:
        """Take the address of the document, and an `other` one where that fails; nothing is fetched before the first `endpoint`."""
        self.issuer = issuer
        self._addresses = (address,) if other is None else (address, other)
        self._fetcher = fetcher
        self._clock = clock
        self._document: dict[str, Any] = {}
        self._fetch_at = self._good_at = float("-inf")
        self._expired = self._failed = False
        self._flight: asyncio.Task[None] | None = None

    async def document(self) -> Mapping[str, Any]:
        """Return the whole document; raises FetchError."""
        if self._document and self._clock.monotonic() - self._good_at > MAX_AGE:
            self._document, self._fetch_at = {}, float("-inf")
        if self._flight is None and self._clock.monotonic() >= self._fetch_at:
            self._flight = asyncio.create_task(self._refresh())
            self._flight.add_done_callback(self._end_flight)
        if self._flight is not None and (self._expired or not self._document):
            await asyncio.shield(self._flight)
        elif not self._document:
            raise FetchError(f"the discovery document of {self.issuer} could not be fetched a moment ago")
        return self._document

    async def endpoint(self, name: str) -> str:
        """Return the address that the document names; raises FetchError."""
        address = (await self.document()).get(name)
        if not isinstance(address, str):
            self.expire()
            raise FetchError(f"the discovery document of {self.issuer} has no {name}")
        if self.issuer.startswith("https://") and not address.startswith("https://"):
            self.expire()
            raise FetchError(f"the discovery document of {self.issuer} names a {name} that is not behind https")
        return address

    def expire(self) -> None:
        """Fetch the document anew before the next address is returned: what it named did not answer."""
        if self._document and not self._failed:
            self._expired, self._fetch_at = True, float("-inf")

    def _end_flight(self, flight: asyncio.Task[None]) -> None:
        self._flight, self._expired = None, False
        if not flight.cancelled():
            flight.exception()

    async def _refresh(self) -> None:
        """Fetch the document, which must be that of this issuer (OpenID Connect Discovery 4.3)."""
        self._failed, self._fetch_at = True, self._clock.monotonic() + (RETRY if self._document else FIRST_RETRY)
        try:
            document = await self._fetch()
        except FetchError as error:
            if not self._document:
                raise
            _log.warning("discovery document not fetched", extra={"issuer": self.issuer, "cause": str(error)[:MAX_CAUSE]})
            return
        self._document, self._failed, self._good_at = document, False, self._clock.monotonic()
        self._fetch_at = self._good_at + LIFETIME

    async def _fetch(self) -> dict[str, Any]:
        failure: FetchError | None = None
        for address in self._addresses:
            try:
                return self._own((await self._fetcher.get(address)).document)
            except FetchError as error:
                failure = failure or error  # the usual address says best what is wrong
        raise failure or FetchError(f"the discovery document of {self.issuer} has no address")

    def _own(self, document: Any) -> dict[str, Any]:
        named = document.get("issuer") if isinstance(document, dict) else None
        if not isinstance(document, dict) or named != self.issuer:
            only_slash = isinstance(named, str) and named.rstrip("/") == self.issuer.rstrip("/")
            hint = f": write it as {named}, because a slash at the end is part of it" if only_slash else ""
            raise FetchError(f"the discovery document of {self.issuer} names another issuer{hint}")
        return document
