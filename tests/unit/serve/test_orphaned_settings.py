"""A worker without a parent hears of no other OAuth settings, and does not go on with old ones for ever."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from extauthz.config.loader import Configuration, load
from extauthz.config.saved_settings import Saved, SavedSettings
from extauthz.core.model import Reason
from extauthz.errors import StoreError
from extauthz.runtime.saved_settings import max_age_of
from extauthz.serve.orphanhood import forget_settings

UNKNOWN = Reason.STORE_UNAVAILABLE
OKTA = {"provider": "okta", "issuer": "https://acme.okta.com/oauth2/x", "client_ids": ["a"], "audience": "x"}
SETTINGS = """\
version: 1
server: {{listen: 127.0.0.1:9001}}
{oauth}
tokens: {{store: "sqlite:///tokens.db", peppers: [{{id: p1, file: pepper}}], max_staleness: 40ms}}
scopes: [SEARCH]
routes: [routes.yaml]
"""


class Orphan:
    """What a worker serves, and since when."""

    def __init__(self, folder: Path, saved: Saved | None, error: Exception | None = None) -> None:
        (folder / "pepper").write_text("a pepper for tests that is 32 bytes")
        (folder / "routes.yaml").write_text('routes: [{match: "POST /search", scope: SEARCH}]')
        (folder / "extauthz.yaml").write_text(SETTINGS.format(oauth="oauth: {managed_by: console}" if saved else ""))
        self.configuration = load(folder / "extauthz.yaml", saved=saved or Reason.STORE_UNAVAILABLE)
        self.error = error
        self.committed: list[tuple[float, Saved | None]] = []
        self.ending = asyncio.Event()

    async def prepare(self, configuration: Configuration) -> Any:
        if self.error is not None:
            raise self.error

    def commit(self, configuration: Configuration, parts: Any) -> None:
        self.committed.append((asyncio.get_running_loop().time(), configuration.saved))

    async def lives(self) -> None:
        await forget_settings(self, self.ending)  # type: ignore[arg-type]


@pytest.fixture(autouse=True)
def impatience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let settings be too old as soon as tokens are."""
    monkeypatch.setattr("extauthz.runtime.saved_settings.LATELY", 0.0)


async def test_settings_are_given_up_when_they_are_too_old(tmp_path: Path) -> None:
    orphan = Orphan(tmp_path, SavedSettings(7, OKTA))
    began = asyncio.get_running_loop().time()
    await orphan.lives()
    ((at, saved),) = orphan.committed
    assert (saved, at - began >= 0.04, orphan.ending.is_set()) == (Reason.STORE_STALE, True, False)


async def test_settings_of_the_file_do_not_age(tmp_path: Path) -> None:
    orphan = Orphan(tmp_path, None)
    await orphan.lives()
    assert (orphan.committed, orphan.ending.is_set()) == ([], False)


@pytest.mark.parametrize("error", [StoreError("no"), RuntimeError("a fault of ours")], ids=repr)
async def test_who_cannot_give_them_up_ends(tmp_path: Path, error: Exception) -> None:
    orphan = Orphan(tmp_path, SavedSettings(7, OKTA), error)
    await orphan.lives()
    assert (orphan.committed, orphan.ending.is_set()) == ([], True)


def test_the_age_is_that_of_tokens_and_ten_seconds_at_least(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    configuration = Orphan(tmp_path, UNKNOWN).configuration
    assert configuration.settings.tokens is not None
    ages = {}
    for seconds in (0.0, 9.0, 600.0):
        tokens = configuration.settings.tokens.model_copy(update={"max_staleness": seconds})
        ages[seconds] = max_age_of(replace(configuration, settings=configuration.settings.model_copy(update={"tokens": tokens})))
    assert ages == {0.0: 10.0, 9.0: 10.0, 600.0: 600.0}
