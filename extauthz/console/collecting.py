"""Scrapes the sidecars as long as the console runs, whether somebody looks or not, so that an hour is there for whoever comes."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from pathlib import Path

from extauthz.adapters.oauth.http import JsonFetcher, TextFetcher
from extauthz.config.console import ConsoleSection, SidecarTlsSection
from extauthz.config.loader import Configuration
from extauthz.console.activity import INTERVAL, Activity, Samples, SidecarState
from extauthz.console.metrics_text import Scrape, read_metrics
from extauthz.console.prometheus import read_activity
from extauthz.errors import FetchError

SCRAPE_TIMEOUT = 3.0
"""Seconds for the whole page of one sidecar."""
MAX_PAGE_BYTES = 8 * 1024 * 1024
"""48,000 series are 5 MB."""
MAX_SIDECARS = 200
AT_A_TIME = 8
MIN_PAUSE = 1.0
"""Seconds between two rounds, however long they take."""
_UNIX = "unix://"

_log = logging.getLogger(__name__)


class Collector:
    """What the console knows of the sidecars of `console.sidecars`; `run` is a task that keeps it fresh, `current` is for pages.

    With `console.prometheus` the last hour comes from there, when it is asked for. Nothing here raises because of a sidecar.
    """

    def __init__(self, configuration: Callable[[], Configuration], clock: Callable[[], float]) -> None:
        """Begin with nothing; `clock` returns seconds since the epoch."""
        self._configuration = configuration
        self._clock = clock
        self._samples = Samples()
        self._states: dict[str, SidecarState] = {}
        self._began_at = clock()
        self._good_at: dict[str, float] = {}
        self._tls: SidecarTlsSection | None = None
        # A sidecar on a unix socket has a client of its own.
        self._fetchers: dict[Path | None, TextFetcher] = {}
        self._prometheus: JsonFetcher | None = None
        self._remembered: tuple[ConsoleSection, Activity] | None = None
        self._collecting = asyncio.Lock()
        self._asking = asyncio.Lock()

    @property
    def sidecars(self) -> tuple[SidecarState, ...]:
        """The sidecars that the configuration names, as they were seen last, in its order."""
        return tuple(self._states.values())

    def ages(self) -> dict[str, float]:
        """Return the seconds since the last good scrape of each sidecar, or since the start."""
        now = self._clock()
        return {name: max(now - self._good_at.get(name, self._began_at), 0.0) for name in self._section().sidecars[:MAX_SIDECARS]}

    async def run(self) -> None:
        """Collect again and again until cancelled."""
        try:
            while True:
                begin = time.monotonic()
                try:
                    await self.collect()
                except Exception:  # noqa: BLE001 - pages must go on, and the next round may be better
                    _log.exception("the sidecars could not be scraped")
                await asyncio.sleep(max(INTERVAL - (time.monotonic() - begin), MIN_PAUSE))
        finally:
            await self.close()

    async def collect(self) -> None:
        """Scrape every sidecar once; whoever comes meanwhile waits, and scrapes again."""
        async with self._collecting:
            await self._collect()

    async def _collect(self) -> None:
        section = self._section()
        if section.sidecar_tls != self._tls:
            await self._close_fetchers()
            self._tls = section.sidecar_tls
        names = section.sidecars[:MAX_SIDECARS]
        limit = asyncio.Semaphore(AT_A_TIME)
        found = await asyncio.gather(*(self._scrape(name, limit) for name in names))
        now = self._clock()
        self._states = {name: self._state(name, result, now) for name, result in zip(names, found, strict=True)}
        self._good_at = {name: at for name, at in self._good_at.items() if name in names}
        self._good_at |= {name: now for name, result in zip(names, found, strict=True) if isinstance(result, Scrape)}
        self._samples.add(now, {name: each for name, each in zip(names, found, strict=True) if isinstance(each, Scrape)})
        if not all(isinstance(each, Scrape) for each in found):
            # A certificate may have been renewed: the next round reads the files anew.
            await self._close_fetchers()

    async def current(self) -> Activity:
        """Return the last hour; its `error` says why a Prometheus does not tell."""
        section, now = self._section(), self._clock()
        if section.prometheus is None:
            return self._samples.activity(now, self.sidecars)
        async with self._asking:
            if self._remembered is not None:
                asked, activity = self._remembered
                if asked == section and 0 <= now - activity.at < INTERVAL:
                    return activity
            activity = await self._from_prometheus(section, section.prometheus, now)
            self._remembered = section, activity
            return activity

    async def close(self) -> None:
        """Close the connections."""
        await self._close_fetchers()
        if self._prometheus is not None:
            await self._prometheus.close()
            self._prometheus = None

    async def _close_fetchers(self) -> None:
        fetchers, self._fetchers = self._fetchers, {}
        for fetcher in fetchers.values():
            await fetcher.close()

    def _section(self) -> ConsoleSection:
        return self._configuration().settings.console or ConsoleSection()

    async def _from_prometheus(self, section: ConsoleSection, address: str, now: float) -> Activity:
        known = self.sidecars if section.sidecars else None
        try:
            if self._prometheus is None:
                self._prometheus = JsonFetcher(plain_http=True, max_bytes=MAX_PAGE_BYTES)
            return await read_activity(self._prometheus, address, now, sidecars=known)
        except FetchError as error:
            return Activity(now, None, (), (), (), known or (), error=str(error))

    async def _scrape(self, name: str, limit: asyncio.Semaphore) -> Scrape | str:
        """Return what a sidecar says, or why it does not."""
        socket = Path(name.removeprefix(_UNIX)) if name.startswith(_UNIX) else None
        address = f"{name if socket is None else 'http://localhost'}/metrics"
        async with limit:
            try:
                if socket not in self._fetchers:
                    self._fetchers[socket] = self._fetcher(socket)
                answer = await self._fetchers[socket].get(address)
                # 48,000 series take a tenth of a second.
                return await asyncio.to_thread(read_metrics, str(answer.document))
            except (FetchError, ValueError) as error:
                return str(error).removeprefix(f"{address}: ")

    def _fetcher(self, socket: Path | None) -> TextFetcher:
        folder, tls = self._configuration().file.parent, self._tls if socket is None else None
        trust, shown = None, None
        if tls is not None and tls.certificate is not None and tls.key is not None:
            shown = folder / tls.certificate, folder / tls.key
        if tls is not None and tls.ca_file is not None:
            try:
                trust = (folder / tls.ca_file).read_bytes()
            except OSError as error:
                raise FetchError(f"console.sidecar_tls.ca_file: {error.strerror or error}") from error
        return TextFetcher(
            timeout=SCRAPE_TIMEOUT,
            trust=trust,
            unix_socket=socket,
            max_bytes=MAX_PAGE_BYTES,
            plain_http=True,
            client_certificate=shown,
        )

    def _state(self, name: str, result: Scrape | str, now: float) -> SidecarState:
        before = self._states.get(name)
        if isinstance(result, str):
            since = before.since if before is not None and not before.answers else now
            known = (None, None) if before is None else (before.facts, before.settings_since)
            return SidecarState(name, since, result, *known)
        if before is None or before.facts is None:
            return SidecarState(name, now, None, result.facts, now)
        is_same_process = before.answers and before.facts.started_at == result.facts.started_at
        is_same_version = is_same_process and before.facts.settings_version == result.facts.settings_version
        settings_since = before.settings_since if is_same_version else now
        return SidecarState(name, before.since if is_same_process else now, None, result.facts, settings_since)
