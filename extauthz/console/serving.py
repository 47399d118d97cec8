"""The process of the console: its files, its listener, and its end."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from ipaddress import ip_network
from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from extauthz.admin.administration import Store
from extauthz.config.console import CALLBACK, ConsoleSection
from extauthz.config.loader import Configuration
from extauthz.console.app import application, paths
from extauthz.console.connections import ConsoleConnection
from extauthz.console.context import Context
from extauthz.console.current import CurrentConfiguration
from extauthz.console.metrics import Counted, Counters, OpsPages
from extauthz.console.openid import OpenIdLogin
from extauthz.console.store_look import StoreLook
from extauthz.errors import ConfigurationError, FetchError
from extauthz.process import early_signals
from extauthz.process.clock import SystemClock
from extauthz.telemetry.conditions import ConditionKey
from extauthz.transport.http.ops import BoundedConnection, HttpServer, Pages
from extauthz.transport.http.ops import application as ops_application
from extauthz.transport.sockets import open_port
from extauthz.transport.tls import TlsFiles

CERTIFICATE_LOOK = 1.0
"""Seconds between two looks at the certificate."""


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
    current = CurrentConfiguration(configuration, store, monotonic=clock.monotonic, now=clock.now)
    context = Context(
        current.configuration,
        current.administration,
        current.route_map,
        clock=clock.now,
        notices=current.notices,
    )
    tls = _tls(section, configuration.file.parent)
    listener = open_port(section.listen)
    origins = section.origins(listener.getsockname()[1])
    login = _login(configuration, section, origins[0], clock)
    pages = application(context, origins, openid=login)
    counters = Counters(paths())
    look = StoreLook(context, clock.monotonic)
    counted = Counted(_Probes(pages, look), counters, clock.monotonic)
    ops_listener = open_port(section.ops) if section.ops is not None else None

    class ServedConnection(ConsoleConnection):
        """A connection to this console, whose proxies the configuration names."""

        shared = tuple(ip_network(network) for network in section.trusted_proxies)

    certificates = None if tls is None else tls.load(protocol="http/1.1")
    server = HttpServer(counted, tls=None if certificates is None else certificates.context, http=ServedConnection)
    shown = OpsPages(context, counters, look, current.samples)
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
    tasks = [asyncio.create_task(context.collector.run())]
    if tls is not None and certificates is not None:
        report = partial(_note_certificate, current)
        tasks.append(asyncio.create_task(tls.renew(certificates, interval=CERTIFICATE_LOOK, now=clock.now, report=report)))
    try:
        await server.run_on(listener)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        if ops_task is not None:
            # Monitoring may look until the last page is answered.
            ops.should_exit = True
            await asyncio.wait((ops_task,))
        if login is not None:
            await login.close()


def _note_certificate(current: CurrentConfiguration, error: str | None) -> None:
    text = None if error is None else f"The certificate is not renewed, and the one of before goes on: {error}."
    current.noted.note(ConditionKey.CERTIFICATE_CURRENT, text)


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

    def __init__(self, app: Callable[..., Awaitable[None]], look: StoreLook) -> None:
        """Stand before the pages."""
        self._app = app
        self._look = look

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
        if await self._look.sessions() is None:
            return PlainTextResponse("the token store does not answer\n", 503)
        return PlainTextResponse("ok\n")

    _answers: Mapping[str, Callable[[_Probes, Request], Awaitable[Response]]] = {"/healthz": _healthy, "/readyz": _ready}
