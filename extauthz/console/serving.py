"""The process of the console: its files, its listener, and its end."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections.abc import Awaitable, Callable, Mapping
from ipaddress import ip_network
from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from extauthz.admin.administration import Administration, Store, prefixes_of, rules_of
from extauthz.admin.route_map import RouteMap
from extauthz.config.console import CALLBACK, ConsoleSection
from extauthz.config.files import Files
from extauthz.config.loader import Configuration, load
from extauthz.console.app import application, paths
from extauthz.console.connections import ConsoleConnection
from extauthz.console.context import Context
from extauthz.console.metrics import Counted, Counters, OpsPages
from extauthz.console.openid import OpenIdLogin
from extauthz.errors import ConfigurationError, FetchError, StoreError
from extauthz.process import early_signals
from extauthz.process.clock import SystemClock
from extauthz.transport.http.ops import BoundedConnection, HttpServer, Pages
from extauthz.transport.http.ops import application as ops_application
from extauthz.transport.sockets import open_port
from extauthz.transport.tls import TlsFiles

LOOK = 0.25
"""Seconds between two looks at the files, at most: a role that was removed ends with the next click."""

_log = logging.getLogger(__name__)


class CurrentConfiguration:
    """The configuration as its files have it now; a change that is not valid leaves the last good one, and is logged once."""

    def __init__(self, configuration: Configuration, store: Store, *, monotonic: Callable[[], float]) -> None:
        """Begin with what was loaded at the start."""
        self._store = store
        self._monotonic = monotonic
        self._looked_at = monotonic()
        self._tried: Files = configuration.files
        self._take(configuration)

    def configuration(self) -> Configuration:
        """Return the last good configuration, after a look at its files."""
        now = self._monotonic()
        if now - self._looked_at >= LOOK:
            self._looked_at = now
            self._look()
        return self._configuration

    def administration(self) -> Administration:
        """Return what use cases work on."""
        self.configuration()
        return self._administration

    def route_map(self) -> RouteMap:
        """Return what opens what."""
        self.configuration()
        return self._route_map

    def _look(self) -> None:
        if not self._tried.changed():
            return
        self._tried = Files()
        try:
            configuration = load(self._configuration.file, self._tried)
            self._take(configuration)
        except ConfigurationError as error:
            _log.error("the configuration was changed and is not valid: the last good one counts", extra={"problems": str(error)})

    def _take(self, configuration: Configuration) -> None:
        tokens = configuration.settings.tokens
        if tokens is None:
            raise ConfigurationError(
                [configuration.problem(("tokens",), "is missing: the console keeps what it knows in its store")]
            )
        self._administration = Administration(
            self._store, rules_of(configuration, tokens), prefixes_of(tokens), lambda: configuration.peppers(os.environ)
        )
        self._route_map = RouteMap(configuration.policy, configuration.route_places)
        self._configuration = configuration


def run(configuration: Configuration, store: Store, started: Callable[[str], object]) -> None:
    """Serve the console until SIGTERM or SIGINT; `started` gets its address. Raises ListenError and ConfigurationError."""
    asyncio.run(_serve(configuration, store, started))


async def _serve(
    configuration: Configuration,
    store: Store,
    started: Callable[[str], object],
) -> None:
    section = configuration.settings.console or ConsoleSection()
    clock = SystemClock()
    current = CurrentConfiguration(configuration, store, monotonic=clock.monotonic)
    context = Context(
        current.configuration,
        current.administration,
        current.route_map,
        clock=clock.now,
    )
    tls = _tls(section, configuration.file.parent)
    listener = open_port(section.listen)
    origins = section.origins(listener.getsockname()[1])
    login = _login(configuration, section, origins[0], clock)
    pages = application(context, origins, openid=login)
    counters = Counters(paths())
    counted = Counted(_Probes(pages, context), counters, clock.monotonic)
    ops_listener = open_port(section.ops) if section.ops is not None else None

    class ServedConnection(ConsoleConnection):
        """A connection to this console, whose proxies the configuration names."""

        shared = tuple(ip_network(network) for network in section.trusted_proxies)

    server = HttpServer(counted, tls=None if tls is None else tls.load(protocol="http/1.1").context, http=ServedConnection)
    shown = OpsPages(context, counters)
    ops = HttpServer(ops_application(Pages(shown.metrics, shown.readiness)), http=BoundedConnection)
    loop = asyncio.get_running_loop()

    def stop() -> None:
        server.should_exit = True

    for number in early_signals.STOPPING:
        loop.add_signal_handler(number, stop)
    # Files are looked at with every click.
    loop.add_signal_handler(signal.SIGHUP, current.configuration)
    if any(number in early_signals.STOPPING for number in early_signals.take_signals()):
        stop()
    started(origins[0])
    ops_task = None if ops_listener is None else asyncio.create_task(ops.run_on(ops_listener))
    collecting = asyncio.create_task(context.collector.run())
    try:
        await server.run_on(listener)
    finally:
        collecting.cancel()
        await asyncio.wait((collecting,))
        if ops_task is not None:
            # Monitoring may look until the last page is answered.
            ops.should_exit = True
            await asyncio.wait((ops_task,))
        if login is not None:
            await login.close()


def _login(configuration: Configuration, section: ConsoleSection, origin: str, clock: SystemClock) -> OpenIdLogin | None:
    if section.oidc is None:
        return None
    place = section.oidc.ca_file
    try:
        trust = configuration.files.read(configuration.file.parent / place) if place else None
        secret = configuration.console_client_secret(os.environ)
        return OpenIdLogin(section.oidc, origin + CALLBACK, secret=secret, trust=trust, clock=clock)
    except (OSError, ValueError, FetchError) as error:
        raise ConfigurationError([configuration.problem(("console", "oidc", "ca_file"), f"cannot be used: {error}")]) from error


def _tls(section: ConsoleSection, folder: Path) -> TlsFiles | None:
    return None if section.tls is None else TlsFiles(folder / section.tls.certificate, folder / section.tls.key)


class _Probes:
    """Answers probes, whichever name they ask by, and hands everything else on."""

    def __init__(self, app: Callable[..., Awaitable[None]], context: Context) -> None:
        """Stand before the pages."""
        self._app = app
        self._context = context

    async def __call__(self, scope: Mapping[str, Any], receive: Any, send: Any) -> None:
        """Answer a request (ASGI)."""
        answer = (
            self._answers.get(scope.get("path", "")) if scope["type"] == "http" and scope["method"] in ("GET", "HEAD") else None
        )
        if answer is None:
            await self._app(scope, receive, send)
            return
        response = await answer(self, Request(dict(scope)))
        await response(dict(scope), receive, send)

    async def _healthy(self, _: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def _ready(self, _: Request) -> Response:
        try:
            await self._context.run(self._context.administration().store.audit_head)
        except StoreError:
            return PlainTextResponse("the token store does not answer\n", 503)
        return PlainTextResponse("ok\n")

    _answers: Mapping[str, Callable[[_Probes, Request], Awaitable[Response]]] = {"/healthz": _healthy, "/readyz": _ready}
