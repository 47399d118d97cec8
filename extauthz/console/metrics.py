"""What the console counts of itself: requests, logins and changed tokens, each by values that no visitor chooses."""

from __future__ import annotations

import asyncio
import logging
import re
from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from starlette.routing import compile_path

from extauthz import __version__
from extauthz.adapters import metrics
from extauthz.adapters.store.endings import Ending
from extauthz.admin.rights import PERMISSIONS
from extauthz.config.console import CALLBACK
from extauthz.console.api.operations import BASE
from extauthz.console.context import Context
from extauthz.console.notices import conditions
from extauthz.console.store_look import Endings, StoreLook
from extauthz.telemetry.metric_table import SECONDS, Histogram, Samples
from extauthz.transport.http.ops import Application, Readiness

NO_PAGE = "none"

_OUTCOMES = {2: "ok", 3: "ok", 4: "refused", 5: "failed"}
_CHANGES = {None: "created", "/rotate": "rotated", "/revoke": "revoked"}
_TOKEN = re.compile(r"/tokens(?:/\{[a-z_]+\}(/rotate|/revoke))?")
_log = logging.getLogger(__name__)


class Counters:
    """Counts the requests of one console."""

    def __init__(self, paths: Iterable[str]) -> None:
        """Begin with none; `paths` are the patterns of all pages, the more particular ones first, as they are routed."""
        self._patterns = tuple((path, compile_path(path)[0].match) for path in dict.fromkeys(paths))
        # An alert sees the first refusal only beside a count of none.
        self._counts: Samples = {("extauthz_console_logins_total", (method, "refused")): 0.0 for method in ("local", "openid")}
        self._seconds = Histogram([0.0] * (len(SECONDS) + 1))

    def record(self, method: str, path: str, status: int, seconds: float) -> None:
        """Count one request; `status` is 0 when nothing was answered."""
        page = next((pattern for pattern, match in self._patterns if match(path)), NO_PAGE)
        self._count("extauthz_console_requests_total", (page, f"{status // 100 or 5}xx"))
        self._seconds.counts[bisect_left(SECONDS, seconds)] += 1
        self._seconds.total += seconds
        if labels := _login(method, page, status):
            self._count("extauthz_console_logins_total", labels)
        if labels := _change(method, page, status):
            self._count("extauthz_console_token_changes_total", labels)

    def samples(self) -> Samples:
        """Return what was counted so far."""
        samples = dict(self._counts)
        samples["extauthz_console_request_seconds", ()] = Histogram(list(self._seconds.counts), self._seconds.total)
        return samples

    def _count(self, name: str, labels: tuple[str, ...]) -> None:
        before = self._counts.get((name, labels), 0.0)
        self._counts[name, labels] = (0.0 if isinstance(before, Histogram) else before) + 1.0


class Counted:
    """An application whose requests are counted; a fault in the counting is logged, and breaks no page (ASGI)."""

    def __init__(self, app: Application, counters: Counters, monotonic: Callable[[], float]) -> None:
        """Stand around an application."""
        self._app = app
        self._counters = counters
        self._monotonic = monotonic

    async def __call__(self, scope: Mapping[str, Any], receive: Any, send: Any) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begin, status = self._monotonic(), 0

        async def watch(message: Mapping[str, Any]) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, watch)
        finally:
            try:
                self._counters.record(scope["method"], scope["path"], status, self._monotonic() - begin)
            except Exception:  # noqa: BLE001 - whatever it is, the page was answered
                _log.exception("a request could not be counted")


def _login(method: str, page: str, status: int) -> tuple[str, str] | None:
    """Return method and outcome of an attempt to log in, None for everything else."""
    outcome = "throttled" if status == 429 else _OUTCOMES.get(status // 100, "failed")
    match method, page:
        case "POST", "/login":
            return "local", outcome
        case "POST", "/confirm" if outcome != "ok":
            # What is right here is a session's own, or begins at the provider.
            return "local", outcome
        case "GET", callback if callback == CALLBACK:
            return "openid", outcome
        case "GET", "/login/openid" if status == 429:
            return "openid", outcome
    return None


def _change(method: str, page: str, status: int) -> tuple[str, str] | None:
    """Return what was done to a token, and by what: a page or the API; None when nothing was."""
    if method != "POST" or status not in (200, 201, 204):
        return None
    by, path = ("api", page.removeprefix(BASE)) if page.startswith(BASE) else ("page", page)
    found = _TOKEN.fullmatch(path)
    return (_CHANGES[found[1]], by) if found else None


def _of_endings(endings: Endings | None) -> Samples:
    return {
        ("extauthz_console_tokens_ending", (permission.value, within, "yes" if is_used else "no")): float(
            counts.get(Ending(permission, is_used), 0)
        )
        for within, counts in (endings or {}).items()
        for permission in PERMISSIONS
        for is_used in (True, False)
    }


class OpsPages:
    """What the ops listener shows of a console; a store that hangs delays no scrape for long.

    Without the peppers it is not ready either: nobody can be let in.
    """

    def __init__(self, context: Context, counters: Counters, store: StoreLook, samples: Callable[[], Samples] = dict) -> None:
        """Show these counts, and `samples` of the configuration."""
        self._context = context
        self._counters = counters
        self._store = store
        self._samples = samples

    async def metrics(self, openmetrics: bool) -> tuple[str, bytes]:
        """Return type and text of all metrics; without the store what is counted there is left out."""
        samples = self._counters.samples()
        samples["extauthz_console_build_info", (__version__,)] = 1.0
        for name, age in self._context.collector.ages().items():
            samples["extauthz_console_scrape_age_seconds", (name,)] = age
        count, endings = await asyncio.gather(self._store.sessions(), self._store.endings())
        samples |= _of_endings(endings)
        if count is not None:
            samples["extauthz_console_sessions", ()] = float(count)
        samples["extauthz_console_ready", ()] = float(count is not None)
        return metrics.render(samples | self._samples(), openmetrics=openmetrics)

    async def readiness(self) -> Readiness:
        """Tell whether the store answers, and whether the console is as its files say."""
        details = tuple(each.document() for each in conditions(self._context.notices()))
        return Readiness({"store": await self._store.sessions() is not None}, details)
