"""The console's ops listener: what it shows of a real store, of real pages, and of a real process."""

from __future__ import annotations

import asyncio
import re
from dataclasses import asdict, replace
from pathlib import Path
from threading import Event
from typing import Any

import httpx2
import pytest
from starlette.routing import Route

from extauthz.adapters.store import sessions as stored_sessions
from extauthz.adapters.store.sessions import StoredSession
from extauthz.admin import tokens
from extauthz.admin.outcomes import Refused
from extauthz.console import store_look
from extauthz.console.app import paths
from extauthz.console.context import Context
from extauthz.console.metrics import Counted, Counters, OpsPages
from extauthz.console.serving import _Probes
from extauthz.console.store_look import StoreLook
from extauthz.core.model import AuthType
from extauthz.errors import ConfigurationError, Problem, StoreError
from extauthz.telemetry.conditions import SENTENCES, ConditionKey
from tests.support.console_process import console, log_in
from tests.support.console_world import DAY, FOUNDER, NOW, ConsoleWorld, console_world, empty_store
from tests.support.ports import free_port
from tests.support.postgresql import use


def pages(world: ConsoleWorld, counters: Counters | None = None) -> OpsPages:
    """Return what the ops listener shows; no time passes between two questions unless a test lets it."""
    return OpsPages(world.context, counters or Counters(paths()), StoreLook(world.context, lambda: world.ticks))


def shown(world: ConsoleWorld, counters: Counters) -> dict[str, float]:
    """Return the series of the console, by name and labels as they are written."""
    _, text = asyncio.run(pages(world, counters).metrics(False))
    lines = re.findall(r"^(extauthz_console_[^ ]+) ([^ \n]+)$", text.decode(), re.MULTILINE)
    return {name: float(value) for name, value in lines}


def test_pages_are_counted_and_sessions_that_last(tmp_path: Path) -> None:
    with console_world(tmp_path) as world:
        counters = Counters(paths())
        world.app = Counted(world.app, counters, iter(range(1000)).__next__)
        world.change(console=dict(world.settings["console"]) | {"sidecars": ["http://127.0.0.1:1"]})
        browser = world.logged_in()
        world.visitor().post("/login", {"email": "cto@acme.com", "password": "not the right one"}, token="")
        assert browser.create().status_code == 201
        world.now += 30
        series = shown(world, counters)
        assert series['extauthz_console_logins_total{method="local",outcome="ok"}'] == 1
        assert series['extauthz_console_logins_total{method="local",outcome="refused"}'] == 1
        assert series['extauthz_console_token_changes_total{by="page",change="created"}'] == 1
        assert series['extauthz_console_requests_total{page="/tokens",status="2xx"}'] == 1
        assert series["extauthz_console_request_seconds_count"] == 5
        assert series["extauthz_console_sessions"] == 1
        assert series["extauthz_console_ready"] == 1
        assert series['extauthz_console_scrape_age_seconds{sidecar="http://127.0.0.1:1"}'] == 30
        forge_session(world)
        assert shown(world, counters)["extauthz_console_sessions"] == 1
        world.now += 24 * 3600
        assert shown(world, counters)["extauthz_console_sessions"] == 0


ENDING = 'extauthz_console_tokens_ending{permission="%s",used="%s",within="%s"}'


def test_tokens_that_end_soon_are_shown_until_they_are_replaced(tmp_path: Path) -> None:
    with console_world(tmp_path) as world:
        token = world.issue(AuthType.ANONYMOUS)
        use(world.store, {token.record.id: (int(world.now) + 89 * DAY, "10.0.0.0/24")})
        series = shown(world, Counters(paths()))
        assert [value for name, value in series.items() if "tokens_ending" in name] == [0.0] * 12, "none, and no gap"
        world.now += 89 * DAY + 60
        series = shown(world, Counters(paths()))
        for within in ("1d", "7d"):
            assert [series[ENDING % ("ANONYMOUS", used, within)] for used in ("yes", "no")] == [1, 0]
        rotated = tokens.rotate(world.current.administration(), FOUNDER, token.record.id, int(world.now), overlap=3600)
        assert not isinstance(rotated, Refused)
        series = shown(world, Counters(paths()))
        assert [value for name, value in series.items() if "tokens_ending" in name] == [0.0] * 12


def test_tokens_that_end_soon_are_counted_every_ten_seconds_at_most(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counted: list[int] = []

    def count(*arguments: Any, **_: Any) -> dict[Any, int]:
        counted.append(arguments[2])
        return {}

    async def at_times(*times: float) -> list[int]:
        look, counts = StoreLook(world.context, lambda: world.ticks), []
        for world.ticks in times:
            assert await look.endings() == {"1d": {}, "7d": {}}
            counts.append(len(counted))
        return counts

    with console_world(tmp_path) as world:
        monkeypatch.setattr(store_look, "token_endings", count)
        assert asyncio.run(at_times(100.0, 109.9, 110.0)) == [2, 2, 4]
        assert counted == [DAY, 7 * DAY] * 2


def forge_session(world: ConsoleWorld) -> None:
    """Write a row as somebody can who has no pepper."""
    row = StoredSession("a" * 12, "cto@acme.com", "local", "", "10.0.0.7", NOW, NOW, NOW, bytes(32), "p1", bytes(32))
    with world.store.writing() as connection:
        connection.execute(stored_sessions.console_sessions.insert().values(**asdict(row)))


def test_without_a_pepper_no_session_can_be_counted_and_it_is_not_ready(tmp_path: Path) -> None:
    def fail() -> Any:
        raise ConfigurationError([Problem("extauthz.yaml", 1, "tokens.peppers", "cannot be read")])

    with console_world(tmp_path) as world:
        administration = replace(world.current.administration(), read_peppers=fail)
        world.context = Context(world.current.configuration, lambda: administration, world.current.route_map, lambda: NOW)
        series = shown(world, Counters(paths()))
        assert (series["extauthz_console_ready"], "extauthz_console_sessions" in series) == (0, False)


def test_every_route_has_its_pattern(tmp_path: Path) -> None:
    with console_world(tmp_path) as world:
        starlette: Any = world.app._app  # type: ignore[attr-defined]
        routed = [route.path for route in starlette.routes if isinstance(route, Route)]
        below = [route.path for each in starlette.routes if hasattr(each, "_router") for route in each._router.routes]
        assert len(routed) > 20
        assert len(below) > 10
        assert {*routed, *(f"/api/v1{path}" for path in below)} == set(paths())


def test_without_the_store_it_is_not_ready_and_the_rest_is_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> Any:
        raise StoreError("the store is away")

    with console_world(tmp_path) as world:
        monkeypatch.setattr(stored_sessions, "newest", fail)
        monkeypatch.setattr(store_look, "token_endings", fail)
        series = shown(world, Counters(paths()))
        assert series["extauthz_console_ready"] == 0
        assert "extauthz_console_sessions" not in series
        assert not [name for name in series if "tokens_ending" in name], "0 would say that all is well"
        assert any(name.startswith("extauthz_console_build_info") for name in series)
        assert asyncio.run(pages(world).readiness()).parts == {"store": False}


def test_a_store_that_hangs_is_asked_once_and_delays_nobody_for_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked, goes_on = [], Event()

    def hang(*_: Any) -> list[Any]:
        asked.append(1)
        assert goes_on.wait(60)
        return []

    async def look(shown: OpsPages) -> list[bool]:
        ready = [(await shown.readiness()).ready for _ in range(3)]
        goes_on.set()
        monkeypatch.setattr(store_look, "PATIENCE", 60.0)
        return [*ready, (await shown.readiness()).ready]

    with console_world(tmp_path) as world:
        monkeypatch.setattr(stored_sessions, "newest", hang)
        monkeypatch.setattr(store_look, "PATIENCE", 0.01)
        assert asyncio.run(look(pages(world))) == [False, False, False, True]
        assert len(asked) == 1


def test_the_store_is_asked_once_a_second_whoever_asks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def answer(*_: Any) -> list[Any]:
        asked.append(1)
        if len(asked) == 2:
            raise StoreError("the store is away")
        return []

    async def ready(look: StoreLook) -> bool:
        probes = _Probes(nowhere, look)
        statuses: list[int] = []

        async def send(message: Any) -> None:
            statuses.extend([message["status"]] if "status" in message else [])

        scope = {"type": "http", "method": "GET", "path": "/readyz", "headers": []}
        await asyncio.gather(*(probes(scope, None, send) for _ in range(20)))
        state = await OpsPages(world.context, Counters(()), look).readiness()
        assert set(statuses) == {200 if state.ready else 503}
        return state.ready

    async def at_times(*times: float) -> list[bool]:
        look, states = StoreLook(world.context, lambda: world.ticks), []
        for world.ticks in times:
            states.append(await ready(look))
        return states

    with console_world(tmp_path) as world:
        monkeypatch.setattr(stored_sessions, "newest", answer)
        assert asyncio.run(at_times(100.0, 100.9, 101.0, 101.9, 102.0, 90.0)) == [True, True, False, False, True, True]
        assert len(asked) == 4


async def nowhere(*_: Any) -> None:
    raise AssertionError("a probe is no page")


DETAILS = [
    {"key": key.value, "met": True, "message": SENTENCES[key]}
    for key in (ConditionKey.CONFIGURATION_CURRENT, ConditionKey.RESTART_NOT_NEEDED, ConditionKey.CERTIFICATE_CURRENT)
]


def test_the_process_has_an_ops_listener_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "tokens.db").write_bytes(empty_store())
    (tmp_path / "tokens.db").chmod(0o600)
    ops = f"127.0.0.1:{free_port()}"
    with console(tmp_path, console={"ops": ops}) as (address, _), httpx2.Client() as client:
        assert log_in(client, address) == 403
        assert client.get(f"http://{ops}/healthz").text == "ok\n"
        assert client.get(f"http://{ops}/readyz").json() == {"ready": True, "parts": {"store": True}, "details": DETAILS}
        text = client.get(f"http://{ops}/metrics").text
        assert 'extauthz_console_logins_total{method="local",outcome="refused"} 1.0' in text
        assert "process_resident_memory_bytes" in text
        assert client.get(f"http://{ops}/config").status_code == 404
        assert client.get(f"{address}/metrics").status_code == 404, "not for visitors"
