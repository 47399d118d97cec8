"""All checks, one after the other."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path

from extauthz.config.console import ConsoleSection
from extauthz.config.loader import Configuration
from extauthz.doctor import console, console_network, envoy_admin, files, machine, saved_settings, world
from extauthz.doctor.findings import Finding, ok, problem, warning
from extauthz.envoy_config.control_planes import ControlPlane
from extauthz.ports import Clock

Check = Callable[[], Iterable[Finding]]


def checks(
    configuration: Configuration,
    *,
    clock: Clock,
    environment: Mapping[str, str],
    admin: str | None = None,
    plane: ControlPlane | None = None,
    offline: bool = False,
) -> dict[str, Check]:
    """Return what there is to look at, by a title; `offline` leaves out what is not on this machine.

    `plane` is who configures the Envoy whose admin interface is read.
    """
    server = configuration.settings.server
    by_title: dict[str, Check] = {
        "configuration": lambda: settings(configuration),
        "machine": lambda: machine.look(server.transport, configuration.settings.grpc.connections),
        "files": lambda: files.look(configuration, clock.now()),
        "listeners": lambda: asyncio.run(world.listeners(server)),
    }
    if not offline or not isinstance(configuration.store_place, str):
        by_title["store"] = lambda: world.store(configuration, clock, environment)
    if configuration.settings_place is not None and not (offline and isinstance(configuration.settings_place, str)):
        by_title["OAuth settings"] = lambda: saved_settings.look(configuration, environment)
    if not offline:
        applied = partial(saved_settings.applied, configuration, environment)
        by_title["issuers"] = lambda: asyncio.run(world.issuers(applied(), clock, environment))
    by_title |= _of_console(configuration, clock, environment, offline=offline)
    if admin is not None:
        by_title["Envoy"] = lambda: asyncio.run(envoy_admin.look(configuration, admin, plane))
    return {title: partial(_fenced, title, check) for title, check in by_title.items()}


def _of_console(
    configuration: Configuration, clock: Clock, environment: Mapping[str, str], *, offline: bool
) -> Iterator[tuple[str, Check]]:
    """Yield what there is to look at where a console is configured."""
    section = configuration.settings.console
    if section is None:
        return
    yield "console", lambda: console.look(configuration, section, clock.now())
    yield "console's port", lambda: asyncio.run(_at_port(section))
    if not offline or isinstance(configuration.store_place, Path):
        yield "console's store", lambda: console.store(configuration, section, clock.now(), environment)
    if offline:
        return
    yield "sidecars of the console", lambda: asyncio.run(console_network.sidecars(configuration, section))
    login = section.oidc
    if login is not None:
        yield "provider of logins", lambda: asyncio.run(console_network.provider(configuration, login, clock))


async def _at_port(section: ConsoleSection) -> list[Finding]:
    return [await console_network.port(section), *await console_network.conditions(section)]


def settings(configuration: Configuration) -> Iterator[Finding]:
    """Repeat the warnings of `config check`: monitor mode, which is easily forgotten, is one of them."""
    for each in configuration.warnings:
        yield warning("configuration", str(each), "correct this line, or leave it if it is meant so")
    yield ok("configuration", f"{configuration.file} has no problems")


def _fenced(title: str, check: Check) -> list[Finding]:
    """Run a check to its end; one that fails itself is a problem too, and keeps no other from being made."""
    try:
        return list(check())
    except Exception as error:  # noqa: BLE001 - whatever it is, it is reported
        return [problem(title, f"the check itself failed: {type(error).__name__}", "report it to the authors of extauthz")]
