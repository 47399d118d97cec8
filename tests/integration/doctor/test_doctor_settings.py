"""What `extauthz doctor` says of OAuth settings that are kept in the store."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
import yaml

from extauthz.adapters.store.settings_rows import SettingsKey
from extauthz.adapters.store.sql import SqlTokenStore
from extauthz.config.loader import Configuration, load
from extauthz.doctor import run, saved_settings, world
from extauthz.doctor.findings import Level
from tests.support.postgresql import ANA, KEY, MakePlace, Place
from tests.support.world import StillClock

pytest_plugins = ["tests.support.postgresql"]

PEPPER = b"a pepper for tests, 32 bytes long"
OKTA: dict[str, Any] = {"provider": "okta", "issuer": "http://127.0.0.1:1/oauth2/x", "client_ids": ["a"], "audience": "x"}


def configured(place: Place, folder: Path, **changes: Any) -> Configuration:
    (folder / "pepper").write_bytes(PEPPER)
    (folder / "routes.yaml").write_text('routes: [{match: "POST /search", scope: SEARCH}]')
    address = f"sqlite:///{place.where}" if isinstance(place.where, Path) else place.where
    settings = {
        "version": 1,
        "server": {"listen": "127.0.0.1:9001"},
        "oauth": {"managed_by": "console"},
        "tokens": {"enabled": False, "store": address, "peppers": [{"id": "p1", "file": "pepper"}]},
        "scopes": ["SEARCH"],
        "routes": ["routes.yaml"],
    }
    (folder / "extauthz.yaml").write_text(yaml.safe_dump({**settings, **changes}))
    return load(folder / "extauthz.yaml")


def save(store: SqlTokenStore, **settings: Any) -> None:
    store.save_settings(settings, store.settings().version, SettingsKey.of("p1", PEPPER), ANA)


def found(configuration: Configuration) -> tuple[Level, str]:
    """Return level and text of the one finding."""
    (finding,) = saved_settings.look(configuration, {})
    return finding.level, finding.found


def test_the_version_that_counts_is_told(place: Place, tmp_path: Path) -> None:
    configuration = configured(place, tmp_path)
    assert found(configuration) == (Level.OK, "nothing was saved yet: OAuth tokens are off")
    with place.opened(KEY) as store:
        save(store, **OKTA)
        assert found(configuration) == (Level.OK, "console, version 1: OAuth tokens are on")
        save(store, **OKTA, enabled=False)
        assert found(configuration) == (Level.OK, "console, version 2: OAuth tokens are off")
        save(store, **OKTA, scopes=["CHAT"])
        level, text = found(configuration)
        assert (level, "console, version 3: scopes[0]: unknown scope 'CHAT'" in text) == (Level.PROBLEM, True)
        place.unguard("settings")
        place.run("UPDATE settings SET at = at + 1")
        level, text = found(configuration)
        assert (level, text.startswith("version 3 of the OAuth settings is not what was written")) == (Level.PROBLEM, True)
        place.run("DELETE FROM settings WHERE version = 3")
        level, text = found(configuration)
        assert (level, "names version 3" in text) == (Level.PROBLEM, True)


def test_a_store_that_is_not_there_is_a_problem(make_place: MakePlace, tmp_path: Path) -> None:
    place = make_place("sqlite")
    configuration = configured(place, tmp_path)
    assert isinstance(place.where, Path)
    place.where.unlink()
    assert found(configuration)[0] is Level.PROBLEM
    assert saved_settings.applied(configuration, {}) is configuration


def test_the_issuer_that_was_saved_is_asked(make_place: MakePlace, tmp_path: Path) -> None:
    place = make_place("sqlite")
    configuration = configured(place, tmp_path)
    with place.opened(KEY) as store:
        save(store, **OKTA)
    applied = saved_settings.applied(configuration, {})
    (finding,) = asyncio.run(world.issuers(applied, StillClock(), {}))
    assert (finding.level, "http://127.0.0.1:1/oauth2/x" in finding.found) == (Level.PROBLEM, True)


@pytest.mark.parametrize(("changes", "looked"), [({}, True), ({"oauth": None}, False)])
def test_it_is_looked_at_where_the_console_manages_it(make_place: MakePlace, tmp_path: Path, changes: Any, looked: bool) -> None:
    configuration = configured(make_place("sqlite"), tmp_path, **changes)
    titles = run.checks(configuration, clock=StillClock(), environment={}, offline=True)
    assert ("OAuth settings" in titles) is looked
