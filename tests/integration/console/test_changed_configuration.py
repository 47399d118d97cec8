"""What counts while the console runs and its files change: roles at once, the rest as far as it is valid, and who hears of it."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from extauthz.admin.rights import Role
from extauthz.console.metrics import Counters, OpsPages
from extauthz.console.store_look import StoreLook
from tests.support.console_world import ORIGIN, WHO, Browser, ConsoleWorld, console_world

CTO = WHO[Role.SUPER_ADMIN]
STALE = "The configuration was changed and has an error"
WAITING = "count when the console starts anew"
OTHER_ERROR: dict[str, Any] = {"server": {"listen": "nowhere"}}


@pytest.fixture
def world(tmp_path: Path) -> Iterator[ConsoleWorld]:
    with console_world(tmp_path) as made:
        yield made


def status(browser: Browser) -> int:
    return int(browser.get("/tokens").status_code)


def pages(world: ConsoleWorld) -> OpsPages:
    return OpsPages(world.context, Counters(()), StoreLook(world.context, lambda: world.ticks), world.current.samples)


def conditions(world: ConsoleWorld) -> dict[str, bool]:
    """Return the details of /readyz that are there, by key."""
    readiness = asyncio.run(pages(world).readiness())
    assert readiness.ready
    return {str(each["key"]): bool(each["met"]) for each in readiness.details}


def series(world: ConsoleWorld) -> dict[str, float]:
    """Return the metrics of the configuration, by what follows their prefix."""
    _, text = asyncio.run(pages(world).metrics(False))
    lines = re.findall(r"^extauthz_console_configuration_([^ ]+) ([^ \n]+)$", text.decode(), re.MULTILINE)
    return {name: float(value) for name, value in lines}


def test_a_role_that_a_broken_file_no_longer_gives_is_gone_with_the_next_click(world: ConsoleWorld) -> None:
    ana, cto = world.logged_in(Role.ADMIN), world.logged_in()
    world.change(roles={"admins": [], "super_admins": [CTO]}, **OTHER_ERROR)
    assert (status(ana), status(cto)) == (403, 200)


def test_admins_are_told_on_every_page_and_operators_too(world: ConsoleWorld, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.ERROR)
    admins, viewer = [world.logged_in(Role.ADMIN), world.logged_in()], world.logged_in(Role.VIEWER)
    assert all(conditions(world).values())
    assert series(world)["stale"] == 0
    world.change(**OTHER_ERROR)
    for browser in admins:
        for path in ("/", "/tokens", "/tokens/new", "/routes", "/audit", "/settings/oauth", "/confirm"):
            text = browser.get(path).text
            assert STALE in text, path
            assert "server.listen" in text
            assert "nowhere" not in text, "what stands in the file may be a secret"
    assert STALE not in viewer.get("/").text
    assert STALE not in world.visitor().get("/login").text
    assert {key for key, met in conditions(world).items() if not met} == {"configuration_current"}
    assert (series(world)["stale"], series(world)['reloads_total{result="failed"}']) == (1, 1)
    assert len(caplog.records) == 1
    world.change(server={"listen": "127.0.0.1:9001", "ops": None})
    assert STALE not in admins[0].get("/").text
    assert all(conditions(world).values())
    assert (series(world)["stale"], series(world)['reloads_total{result="ok"}']) == (0, 1)
    assert series(world)["last_reload_success_timestamp_seconds"] == world.now


def test_changed_keys_that_wait_for_a_restart_are_named(world: ConsoleWorld, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    cto = world.logged_in()
    world.change(console={"public_url": ORIGIN, "local_accounts": True, "session_idle": "20m"})
    assert (WAITING in cto.get("/").text, caplog.records) == (False, [])
    world.change(
        console={"public_url": ORIGIN, "local_accounts": True, "listen": "127.0.0.1:9103"},
        roles={"super_admins": [CTO]},
        tokens=world.settings["tokens"] | {"store": "sqlite:///other.db"},
    )
    text = cto.get("/").text
    assert WAITING in text
    assert re.search(r"tokens\.store in .*console\.listen in ", text)
    assert "console.local_accounts" not in text
    assert {key for key, met in conditions(world).items() if not met} == {"restart_not_needed"}
    assert (series(world)["stale"], series(world)['reloads_total{result="restart_needed"}']) == (1, 1)
    assert ["console.listen" in record.getMessage() for record in caplog.records] == [False, True]
    assert status(cto) == 200
    assert world.context.configuration().settings.roles.admins == [], "what waits keeps nothing else from counting"
    tokens = world.settings["tokens"] | {"store": "sqlite:///tokens.db"}
    world.change(console={"public_url": ORIGIN, "local_accounts": True}, tokens=tokens)
    assert WAITING not in cto.get("/").text
