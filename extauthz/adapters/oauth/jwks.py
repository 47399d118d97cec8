"""The signing keys of one issuer, fetched through its discovery document (OpenID Connect Discovery 4, RFC 7517)."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable

from extauthz.adapters.oauth.discovery import Discovery
from extauthz.adapters.oauth.http import MAX_CAUSE, JsonFetcher
from extauthz.adapters.oauth.published_keys import UnusedKey, descriptions, usable_keys
from extauthz.core.jwt import KeySet
from extauthz.core.model import Reason
from extauthz.errors import FetchError, ProxyRefusal, Unavailable
from extauthz.ports import Clock
from extauthz.verifiers.throttling import Backoff, CoolDown

UNKNOWN_KEY_COOL_DOWN = 300.0
"""Seconds between two fetches for keys that the set lacks, from the end of one that succeeded."""
FIRST_RETRY, RETRY = 1.0, 5.0
"""Seconds until the next attempt after the first failure and after many, and the second while there are no keys."""
MIN_REFRESH = 60.0
"""Seconds between two background fetches, however short the issuer lets its keys be kept."""

_log = logging.getLogger(__name__)


class JwksSource:
    """Keeps the last good keys of an issuer; one fetch at a time, owned by nobody who waits for it."""

    def __init__(
        self,
        discovery: Discovery,
        algorithms: Iterable[str],
        fetcher: JsonFetcher,
        *,
        clock: Clock,
        jwks_uri: str | None = None,
        unnamed: bool = False,
        uses: tuple[str, ...] = ("sig",),
        refresh: float = 600.0,
        max_key_age: float = 24 * 3600.0,
        cool_down: CoolDown | None = None,
        backoff: Backoff | None = None,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        """Know the issuer; nothing is fetched before `run` or `load`.

        With `jwks_uri` the keys are fetched from there and the discovery document is not. `refresh` are the seconds between
        background fetches, which Cache-Control may shorten; `max_key_age` those that the last good keys serve without a successful
        fetch. `cool_down` is that of fetches for unknown keys, `backoff` spaces the attempts after a failure, which unknown keys
        cannot use up: both belong to the issuer's address, and outlive this source. With `unnamed` a key without a `kid` is used;
        `uses` are what keys may be for.
        """
        self.issuer = discovery.issuer
        self._discovery = discovery
        self._jwks_uri = jwks_uri
        self._unnamed = unnamed
        self._uses = uses
        self._refresh = refresh
        self._max_key_age = max_key_age
        self._algorithms = frozenset(algorithms)
        self._fetcher = fetcher
        self._clock = clock
        self._keys: KeySet | None = None
        self._unused: tuple[UnusedKey, ...] = ()
        self._pause = refresh
        self._fetched_at = 0.0
        self._good_at = float("-inf")
        self._attempted_at = float("-inf")
        self._cool_down = cool_down or CoolDown(UNKNOWN_KEY_COOL_DOWN, clock=clock)
        self._backoff = backoff or Backoff(first=FIRST_RETRY, longest=RETRY, clock=clock)
        self._sleep = sleep
        self._is_for_unknown_key = False
        self._missed_at = float("-inf")
        self.outcomes: Counter[str] = Counter(ok=0, failed=0, proxy_refused=0)
        self._flight: asyncio.Task[KeySet] | None = None
        self._retry: asyncio.Task[KeySet] | None = None

    @property
    def fetched_at(self) -> float:
        """When the keys in memory were fetched, in seconds since the epoch; 0 for never."""
        return self._fetched_at

    @property
    def age(self) -> float:
        """Seconds since the last good fetch, infinite before the first."""
        return self._clock.monotonic() - self._good_at

    @property
    def is_behind(self) -> bool:
        """Whether a token named a key that the set lacks, and no fetch has succeeded since."""
        return self._missed_at > self._good_at

    def keys(self) -> KeySet | None:
        """Return the last good keys, or None when there are none or they are too old."""
        return self._keys if self.age <= self._max_key_age else None

    def load(self) -> Awaitable[KeySet]:
        """Join the fetch under way, or start one; raises Unavailable while the last failure is fresh or the next attempt is due."""
        fresh = self._clock.monotonic() - self._attempted_at < RETRY
        if self._flight is None and (fresh or self._retry is not None):
            raise Unavailable(Reason.KEY_SET_UNAVAILABLE)
        return self._fetch()

    def reload_for_unknown_key(self) -> Awaitable[KeySet] | None:
        """Join the fetch under way, or after a failure the next attempt; else fetch once more, or return None within the cool-down.

        The cool-down is taken before the fetch, begins anew when that succeeds, and is given back when it fails: from then on the
        back-off alone says when the next attempt is made, however many ask.
        """
        self._missed_at = self._clock.monotonic()
        if self._flight is not None:
            return asyncio.shield(self._flight)
        if not self._backoff.failed and not self._cool_down.take():
            return None
        self._is_for_unknown_key = True
        return self._next_attempt()

    async def run(self) -> None:
        """Fetch now, whatever became of a source before this one, and then again and again, until cancelled."""
        attempt, pause = self._fetch, 0.0
        while True:
            await self._sleep(pause)
            pause = RETRY
            try:
                keys = await attempt()
                pause = self._pause if keys else RETRY
            except Unavailable:
                pause = 0.0  # the back-off says when the next attempt is made
            except Exception:  # noqa: BLE001 - whatever it is, the refresh must go on
                _log.exception("keys not fetched", extra={"issuer": self.issuer})
            attempt = self._next_attempt

    def _next_attempt(self) -> asyncio.Future[KeySet]:
        """Fetch now, or after a failure when its time has come; there is one such attempt, however many wait for it."""
        if not self._backoff.failed:
            return self._fetch()
        if self._retry is None:
            self._retry = asyncio.create_task(self._fetch_again())
            self._retry.add_done_callback(self._end_retry)
        return asyncio.shield(self._retry)

    async def _fetch_again(self) -> KeySet:
        await self._sleep(self._backoff.wait)
        return await self._fetch()

    def _end_retry(self, retry: asyncio.Task[KeySet]) -> None:
        self._retry = None
        if not retry.cancelled():
            retry.exception()

    def _fetch(self) -> asyncio.Future[KeySet]:
        if self._flight is None:
            self._attempted_at = self._clock.monotonic()
            self._flight = asyncio.create_task(self._download())
            self._flight.add_done_callback(self._end_flight)
        return asyncio.shield(self._flight)

    def _end_flight(self, flight: asyncio.Task[KeySet]) -> None:
        self._flight = None
        if flight.cancelled() or flight.exception() is not None:
            self._backoff.fail()
            if self._is_for_unknown_key:
                self._cool_down.give_back()
            return
        self._backoff.succeed()
        if self._is_for_unknown_key:
            self._cool_down.start()
        self._is_for_unknown_key = False

    async def _download(self) -> KeySet:
        try:
            address = self._jwks_uri or await self._discovery.endpoint("jwks_uri")
            answer = await self._fetcher.get(address)
            keys, unused = usable_keys(answer.document, self._algorithms, unnamed=self._unnamed, uses=self._uses)
            self._note(unused)
            if not keys and not self._keys:
                raise FetchError(f"{address}: no usable key")
        except (FetchError, ValueError) as error:
            self._discovery.expire()
            self.outcomes["proxy_refused" if isinstance(error, ProxyRefusal) else "failed"] += 1
            _log.warning("keys not fetched", extra={"issuer": self.issuer, "cause": str(error)[:MAX_CAUSE]})
            raise Unavailable(Reason.KEY_SET_UNAVAILABLE) from error
        if keys != self._keys:
            _log.info("keys fetched", extra={"issuer": self.issuer, "key_ids": sorted({key.id for key in keys.values()})})
        self.outcomes["ok"] += 1
        self._keys = keys
        self._pause = self._refresh if answer.max_age is None else min(self._refresh, max(answer.max_age, MIN_REFRESH))
        self._fetched_at = self._clock.now()
        self._good_at = self._clock.monotonic()
        return keys

    def _note(self, unused: tuple[UnusedKey, ...]) -> None:
        """Log what is not used, when that differs from the last time."""
        if set(unused) == set(self._unused):
            return
        self._unused = unused
        if unused:
            level = logging.INFO if all(one.is_usual for one in unused) else logging.WARNING
            _log.log(level, "keys left out", extra={"issuer": self.issuer, "count": len(unused), "keys": descriptions(unused)})
        else:
            _log.info("no key is left out any more", extra={"issuer": self.issuer})
