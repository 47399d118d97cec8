"""OAuth settings of the store are laid over the files that are served, at once or not at all, whatever stands on the disk."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from extauthz.config.loader import load
from extauthz.config.saved_settings import Saved, SavedSettings
from extauthz.core.credentials import Kind
from extauthz.core.model import Reason
from extauthz.serve.reload import LOOK, RETRY, Reloader
from extauthz.serve.rereading import served_first
from tests.support.virtual_time import elapse, in_virtual_time
from tests.support.watched_files import FAILURES, MORE, ROUTES, SETTINGS, Watched, count, files

__all__ = ["files"]

MANAGED = SETTINGS + "oauth: {managed_by: console}\n"
OKTA: Mapping[str, Any] = {
    "enabled": True,
    "provider": "okta",
    "issuer": "https://acme.okta.com/oauth2/default",
    "client_ids": ["0oa1"],
    "audience": ["api://default"],
}
UNKNOWN = Reason.STORE_UNAVAILABLE
V7, V8 = SavedSettings(7, OKTA), SavedSettings(8, {**OKTA, "enabled": False})
MISFIT = SavedSettings(9, {**OKTA, "scopes": ["FEED"]})


@dataclass
class Serving:
    """A reloader, and who takes what it reads."""

    files: Watched
    reloader: Reloader

    @property
    def versions(self) -> list[int]:
        """The versions that were taken, one after the other."""
        return [taken.settings_version for taken in self.files.taken]

    @property
    def stale(self) -> float:
        value = self.reloader.samples()["extauthz_config_stale", ()]
        assert isinstance(value, float)
        return value

    @property
    def version(self) -> float:
        value = self.reloader.samples()["extauthz_settings_version", ()]
        assert isinstance(value, float)
        return value

    @property
    def problem(self) -> str:
        return str(self.reloader.problem).replace(f"{self.files.folder}/", "")


@pytest.fixture
def serving(files: Watched) -> Serving:
    """A reloader that began with version 7."""
    return began(files, V7)


def began(files: Watched, saved: Saved) -> Serving:
    files.write(extauthz=MANAGED)
    served = served_first(load(files.folder / "extauthz.yaml"), saved, files.environment)
    served.read_secrets(files.environment)
    return Serving(files, Reloader(served, files.take, environment=files.environment, now=lambda: 1_000.0))


async def test_a_version_is_taken_once(serving: Serving) -> None:
    assert (serving.version, serving.stale, serving.versions) == (7.0, 0.0, [])
    assert await serving.reloader.use(V7)
    assert serving.versions == []
    for _ in range(2):
        assert await serving.reloader.use(V8)
        assert (serving.versions, serving.version, serving.stale, count(serving.reloader, "ok")) == ([8], 8.0, 0.0, 1)
    assert Kind.OAUTH not in serving.reloader.configuration.policy.kinds


async def test_an_older_version_that_a_restored_store_has_is_taken_and_told(
    serving: Serving, caplog: pytest.LogCaptureFixture
) -> None:
    """An epoch can be raised by whoever writes to the database, without a pepper: that a version goes back must be seen."""
    caplog.set_level(logging.WARNING)

    def turned_back() -> tuple[object, int]:
        return serving.reloader.samples()["extauthz_settings_turned_back", ()], caplog.text.count("went back")

    states = [turned_back()]
    for saved in (V8, UNKNOWN, V7, UNKNOWN, V7, SavedSettings(0), V8, SavedSettings(10, OKTA), V8):
        await serving.reloader.use(saved)
        states.append(turned_back())
    assert states == [(0, 0), (0, 0), (0, 0), (1, 1), (1, 1), (1, 1), (1, 2), (0, 2), (0, 2), (1, 3)]
    assert "went back from version 8 to 7" in caplog.text
    assert serving.version == 8


async def test_a_version_is_taken_although_the_files_on_the_disk_are_broken(serving: Serving) -> None:
    """What takes rights away must not wait for whoever mends them."""
    serving.files.write(extauthz="half", routes="half")
    await serving.reloader.reload()
    assert (serving.stale, count(serving.reloader, "failed")) == (1.0, 1)
    of_the_files = serving.problem
    assert await serving.reloader.use(V8)
    assert (serving.versions, serving.problem, serving.stale) == ([8], of_the_files, 1.0)
    serving.files.write(extauthz=MANAGED, routes=MORE)
    await serving.reloader.reload()
    assert (serving.versions, serving.stale) == ([8, 8], 0.0)
    assert len(serving.reloader.configuration.route_places) == 2


async def test_the_last_good_version_goes_on_when_a_later_one_does_not_fit(
    serving: Serving, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(2):
        assert await serving.reloader.use(MISFIT), "to try it again would be of no use"
    assert (serving.versions, serving.version, serving.stale) == ([], 7.0, 1.0)
    assert count(serving.reloader, "failed") == 1, "nor is it read again"
    assert serving.problem.startswith("console, version 9: scopes[0]: unknown scope 'FEED'")
    assert serving.reloader.shown_problem == "console, version 9: scopes[0]: the log says why"
    assert caplog.text.count("the last good one goes on: console, version 9: scopes[0]") == 1
    assert await serving.reloader.use(V7)
    assert (serving.reloader.problem, serving.stale) == (None, 0.0)


async def test_files_that_a_version_needs_bring_it_with_them(serving: Serving) -> None:
    await serving.reloader.use(MISFIT)
    serving.files.write(extauthz=MANAGED.replace("CHAT]", "CHAT, FEED]"))
    await serving.reloader.reload()
    assert (serving.versions, serving.reloader.problem) == ([9], None)


async def test_files_are_taken_although_the_last_version_does_not_fit_them(serving: Serving) -> None:
    await serving.reloader.use(MISFIT)
    serving.files.write(routes=MORE)
    await serving.reloader.reload()
    assert (serving.versions, serving.stale) == ([7], 1.0)
    assert len(serving.reloader.configuration.route_places) == 2
    assert serving.problem.startswith("console, version 9: scopes[0]")


async def test_files_that_the_served_version_does_not_fit_are_refused_until_one_does(serving: Serving) -> None:
    wide = SavedSettings(8, {**OKTA, "scopes": ["CHAT"]})
    await serving.reloader.use(wide)
    serving.files.write(extauthz=MANAGED.replace("SEARCH, CHAT", "SEARCH"))
    await serving.reloader.reload()
    assert (serving.versions, serving.stale) == ([8], 1.0)
    assert serving.problem.startswith("console, version 8: scopes[0]: unknown scope 'CHAT'")
    narrow = SavedSettings(9, {**OKTA, "scopes": ["SEARCH"]})
    assert await serving.reloader.use(narrow)
    assert (serving.versions, serving.reloader.problem) == ([8, 9, 9], None), "the files are read once more"
    assert serving.reloader.configuration.settings.scopes == ["SEARCH"]


@pytest.mark.parametrize("reason", [Reason.STORE_UNAVAILABLE, Reason.STORE_STALE])
async def test_settings_that_nobody_knows_any_more_are_not_served(serving: Serving, reason: Reason) -> None:
    assert await serving.reloader.use(reason)
    assert (serving.reloader.configuration.saved, serving.version, serving.stale) == (reason, 0.0, 1.0)
    assert serving.problem == f"the OAuth settings in the store are not known: OAuth tokens get 503 ({reason})"
    assert serving.reloader.configuration.policy.kinds == {Kind.OAUTH, Kind.ISSUED}
    assert await serving.reloader.use(V7)
    assert (serving.version, serving.reloader.problem) == (7.0, None)


async def test_what_the_store_says_of_a_version_is_told_beside_what_is_served(serving: Serving) -> None:
    assert await serving.reloader.use(V7, "console, version 8 is not what was written")
    assert (serving.problem, serving.stale, serving.versions) == ("console, version 8 is not what was written", 1.0, [])
    assert serving.reloader.shown_problem == "failed: the log says why"
    assert await serving.reloader.use(V8)
    assert (serving.reloader.problem, serving.versions) == (None, [8])


async def test_a_start_without_settings_says_so_and_takes_them_when_they_come(files: Watched) -> None:
    serving = began(files, UNKNOWN)
    await serving.reloader.use(UNKNOWN, "the store has not been read yet")
    assert serving.stale == 1.0
    assert "the store has not been read yet" in serving.problem
    assert "OAuth tokens get 503" in serving.problem
    await serving.reloader.use(V7)
    assert (serving.versions, serving.reloader.problem) == ([7], None)


async def test_a_start_with_a_version_that_does_not_fit_goes_on_without(files: Watched) -> None:
    serving = began(files, MISFIT)
    assert serving.reloader.configuration.saved is UNKNOWN
    await serving.reloader.use(MISFIT)
    assert serving.problem.startswith("console, version 9: scopes[0]")


async def test_a_secret_that_settings_need_and_nobody_has_is_named(files: Watched) -> None:
    """A start goes on without the settings, and who serves others keeps them."""
    files.write(extauthz=SETTINGS + "oauth: {managed_by: console, client_secret: {env: OKTA_SECRET}}\n")
    org = SavedSettings(7, {"provider": "okta", "issuer": "https://acme.okta.com", "client_ids": ["a"]})
    served = served_first(load(files.folder / "extauthz.yaml"), org, {})
    assert served.saved is UNKNOWN
    reloader = Reloader(served, files.take, environment={}, now=lambda: 1_000.0)
    assert await reloader.use(org)
    assert "oauth.client_secret: the environment variable OKTA_SECRET is not set" in str(reloader.problem)
    assert files.taken == []


ORG = SavedSettings(7, {"provider": "okta", "issuer": "https://acme.okta.com", "client_ids": ["a"]})


async def test_a_secret_that_was_missing_is_looked_for_and_then_watched(files: Watched) -> None:
    files.write(extauthz=SETTINGS + "oauth: {managed_by: console, client_secret: {file: secret}}\n")
    secret = files.folder / "secret"
    reloader = Reloader(load(files.folder / "extauthz.yaml"), files.take, environment={}, now=lambda: 1_000.0)
    for _ in range(3):
        assert await reloader.use(ORG)
    assert (files.taken, count(reloader, "failed")) == ([], 1)
    secret.write_text("first")
    assert await reloader.use(ORG)
    assert files.taken[0].client_secrets({}) == {"okta": b"first"}
    await reloader._look()
    assert len(files.taken) == 1
    secret.write_text("second")
    await reloader._look()
    assert [taken.client_secrets({})["okta"] for taken in files.taken] == [b"first", b"second"]
    assert reloader.problem is None


async def test_a_fault_of_ours_is_no_reason_to_stop(serving: Serving, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("a fault of ours")

    monkeypatch.setattr("extauthz.serve.rereading.load", fail)
    assert await serving.reloader.use(V8)
    assert (serving.version, serving.problem) == (7.0, "RuntimeError('a fault of ours')")


@pytest.mark.parametrize("error", FAILURES, ids=lambda error: type(error).__name__)
async def test_what_cannot_be_taken_is_to_be_tried_again(serving: Serving, error: Exception) -> None:
    serving.files.error = error
    assert not await serving.reloader.use(V8)
    assert (serving.version, serving.stale, str(error) in serving.problem) == (7.0, 1.0, True)
    serving.files.error = None
    assert await serving.reloader.use(V8)
    assert (serving.versions, serving.reloader.problem) == ([8], None)


async def test_who_manages_the_settings_is_not_changed_by_a_reload(serving: Serving) -> None:
    serving.files.write(extauthz=SETTINGS)
    await serving.reloader.reload()
    assert ": oauth.managed_by: was changed, which needs a restart" in serving.problem
    assert (serving.versions, count(serving.reloader, "restart_needed")) == ([], 1)


async def test_the_file_alone_knows_no_store(files: Watched) -> None:
    reloader = files.reloader
    files.write(extauthz=MANAGED)
    await reloader.reload()
    assert ": oauth.managed_by: was changed, which needs a restart" in str(reloader.problem)
    files.write(extauthz=SETTINGS, routes=MORE)
    await reloader.reload()
    assert (len(files.taken), reloader.problem) == (1, None)


@dataclass
class Store:
    """What a process follows."""

    saved: Saved = V7
    problem: str | None = None
    waits: list[float] = field(default_factory=list)
    event: asyncio.Event = field(default_factory=asyncio.Event)

    async def changed(self, seconds: float) -> None:
        self.waits.append(seconds)
        try:
            async with asyncio.timeout(seconds):
                await self.event.wait()
        except TimeoutError:
            return
        self.event.clear()


class Recording(Reloader):
    """A reloader that notes when it is told of settings, and fails when a test says so."""

    works: bool = True
    told: list[tuple[float, Saved]]

    async def use(self, saved: Saved, problem: str | None = None) -> bool:
        self.told.append((round(asyncio.get_running_loop().time(), 1), saved))
        return self.works


def test_a_change_is_taken_at_once_and_a_failure_tried_again_every_second(files: Watched) -> None:
    it = Recording(began(files, V7).reloader.configuration, files.take, environment={}, now=lambda: 1_000.0)
    it.told = []

    async def scenario() -> None:
        store = Store()
        following = asyncio.create_task(it.follow(store))
        await elapse(0.5)
        store.saved, it.works = V8, False
        store.event.set()
        await elapse(2.5 * RETRY)
        it.works = True
        await elapse(RETRY)
        store.saved = V7
        store.event.set()
        await elapse(LOOK + 1)
        following.cancel()
        assert it.told == [(0.0, V7), (0.5, V8), (1.5, V8), (2.5, V8), (3.5, V8), (4.0, V7), (9.0, V7)]
        assert store.waits == [LOOK, RETRY, RETRY, RETRY, LOOK, LOOK, LOOK]

    in_virtual_time(scenario)


async def test_versions_are_logged_without_what_they_hold(serving: Serving, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    await serving.reloader.use(SavedSettings(8, {**OKTA, "client_ids": ["0oa-private"]}))
    (record,) = [record for record in caplog.records if record.getMessage() == "OAuth settings taken"]
    assert vars(record)["version"] == 8
    assert "0oa-private" not in caplog.text


def test_a_changed_file_is_not_looked_for_behind_a_version(files: Watched) -> None:
    """A version is no file: nobody finds that it differs from the disk."""
    serving = began(files, V7)
    assert not serving.reloader.configuration.files.changed()
    assert Path("console") not in serving.reloader.configuration.files.paths
    asyncio.run(serving.reloader.use(V8))
    asyncio.run(serving.reloader._look())
    assert serving.versions == [8]
    assert ROUTES
