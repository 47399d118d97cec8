"""What a process makes of the OAuth settings that it reads in the store: which version counts, for how long, and what it says."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extauthz.adapters.store.chain import START
from extauthz.adapters.store.settings_rows import SettingsState, SettingsVersion, keys_of, mac
from extauthz.config.loader import load
from extauthz.config.saved_settings import SavedSettings
from extauthz.core.credentials import Kind
from extauthz.core.model import Reason
from extauthz.errors import Unavailable
from extauthz.runtime.build import RuntimeBuilder
from extauthz.runtime.saved_settings import FollowedSettings, SettingsFeed
from extauthz.verifiers.oauth import OAuthVerifier
from tests.support.virtual_time import LoopClock, in_virtual_time, now
from tests.support.world import StillClock

PEPPERS = {"p1": b"a pepper for tests, 32 bytes long", "p2": b"another pepper, also 32 bytes long"}
KEYS = keys_of(PEPPERS)
MAX_AGE = 600.0
UNKNOWN = Reason.STORE_UNAVAILABLE
CONFIGURATION = """\
version: 1
server: {listen: 127.0.0.1:9001}
oauth: {managed_by: console}
tokens: {enabled: false, store: "sqlite:///tokens.db", peppers: [{id: p1, file: pepper}]}
scopes: [SEARCH]
routes: [routes.yaml]
"""


def row(version: int, *, pepper: str = "p1", **body: Any) -> SettingsVersion:
    previous = START if version == 1 else bytes([version]) * 32
    plain = SettingsVersion(version, "oauth", json.dumps(body), 1_800_000_000, "sue", "", pepper, b"", previous)
    return replace(plain, mac=mac(plain, KEYS[pepper]))


def state(version: int, *, epoch: int = 0, head: int | None = None, **changes: Any) -> SettingsState:
    """Return what is read of a store whose settings have this version, and whose body tells it."""
    saved = row(version, v=version) if version else None
    plain = SettingsState(epoch, 10 * version if head is None else head, version, version, saved)
    return replace(plain, **changes)


def good(version: int) -> SavedSettings:
    return SavedSettings(version, {"v": version} if version else {})


def feed(clock: StillClock | None = None, keys: Mapping[str, bytes] = KEYS) -> SettingsFeed:
    return SettingsFeed(keys=keys, clock=clock or StillClock(), max_age=MAX_AGE)


def test_nothing_is_known_before_the_first_read() -> None:
    it = feed()
    assert (it.saved, it.problem, it.changed.is_set()) == (UNKNOWN, "the store has not been read yet", False)


@pytest.mark.parametrize("version", [0, 1, 7])
def test_the_first_read_tells_what_counts(version: int) -> None:
    it = feed()
    it.apply(state(version))
    assert (it.saved, it.problem, it.changed.is_set()) == (good(version), None, True)


def test_a_later_version_counts_at_once_and_the_same_one_changes_nothing() -> None:
    it = feed()
    for version in (0, 1, 2, 5):
        it.apply(state(version))
        assert (it.saved, it.changed.is_set()) == (good(version), True)
        it.changed.clear()
        it.apply(state(version))
        it.apply(state(version, head=10 * version + 5))
        assert (it.saved, it.problem, it.changed.is_set()) == (good(version), None, False), "other changes of the store are none"


BAD: Mapping[str, tuple[SettingsState, str]] = {
    "other mac": (state(8, saved=replace(row(8, v=8), mac=bytes(32))), "console, version 8 is not what was written"),
    "other body": (state(8, saved=replace(row(8, v=8), body='{"v": 9}')), "console, version 8 is not what was written"),
    "other before": (state(8, saved=replace(row(8, v=8), previous=START)), "console, version 8 is not what was written"),
    "copied": (state(8, saved=row(7, v=7)), "console, version 8 is missing in the store"),
    "no key": (state(8, saved=replace(row(8, v=8), pepper_id="p9")), "console, version 8 needs pepper 'p9'"),
    "no object": (state(8, saved=replace(row(8, v=8), body="[]")), "console, version 8 is not what was written"),
    "missing": (state(8, saved=None), "console, version 8 is missing in the store"),
    "turned back": (state(8, latest=9), "the store names version 8 as the last one and holds version 9"),
    "ahead": (state(8, latest=7), "the store names version 8 as the last one and holds version 7"),
    "forgotten": (state(0, head=80, latest=7), "the store names version 0 as the last one and holds version 7"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_version_that_is_not_what_was_written_is_never_used(case: str) -> None:
    """The last good one goes on; a process that begins with it knows none."""
    bad, words = BAD[case]
    began_before, begins_with_it = feed(), feed()
    began_before.apply(state(7))
    began_before.changed.clear()
    for it, expected in ((began_before, good(7)), (begins_with_it, UNKNOWN)):
        it.apply(bad)
        assert it.saved == expected
        assert it.changed.is_set()
    assert words in str(began_before.problem)
    assert begins_with_it.problem is not None
    began_before.changed.clear()
    began_before.apply(bad)
    assert not began_before.changed.is_set(), "it is said once"


@pytest.mark.parametrize("case", BAD)
def test_what_is_saved_after_it_counts(case: str) -> None:
    it = feed()
    it.apply(state(7))
    it.apply(BAD[case][0])
    it.apply(state(10))
    assert (it.saved, it.problem) == (good(10), None)


RESTORED = {
    "epoch": state(8, epoch=1, head=90),
    "head": state(7, epoch=2, head=69),
    "head and version": state(6, epoch=2),
    "without a version": state(0, epoch=2),
}


@pytest.mark.parametrize("case", RESTORED)
def test_a_backup_that_is_put_back_counts_when_the_restore_is_accepted(case: str) -> None:
    it = feed()
    it.apply(state(7, epoch=2))
    it.changed.clear()
    restored = RESTORED[case]
    it.apply(restored)
    assert (it.saved, it.changed.is_set()) == (good(7), True)
    assert it.problem == ("the store is an older one than it was; console, version 7 goes on: run 'extauthz store accept-restore'")
    it.apply(state(9, epoch=2))
    assert it.saved == good(7), "nor what is saved in it meanwhile"
    it.apply(replace(restored, epoch=3, head=200))
    assert (it.saved, it.problem) == (good(restored.version), None)
    it.apply(state(9, epoch=3, head=210))
    assert it.saved == good(9)


OLDER = {
    "version": state(6, epoch=2, head=90),
    "no version": state(0, epoch=2, head=90),
    "another of the same number": state(7, epoch=2, head=90, saved=row(7, v="other")),
}


@pytest.mark.parametrize("case", OLDER)
def test_an_older_version_in_a_store_that_goes_on_does_not_count_and_a_later_one_does(case: str) -> None:
    """Somebody took a version away, or so much was changed after a restore that the numbers of the feed do not show it."""
    it, restarted = feed(), feed()
    it.apply(state(7, epoch=2))
    it.changed.clear()
    it.apply(OLDER[case])
    assert (it.saved, it.changed.is_set(), "console, version 7 goes on" in str(it.problem)) == (good(7), True, True)
    it.renew(keys=dict(KEYS), max_age=MAX_AGE)
    assert it.saved == good(7)
    it.apply(state(8, epoch=2, head=95))
    assert (it.saved, it.problem) == (good(8), None)
    it.apply(replace(OLDER[case], epoch=3))
    restarted.apply(OLDER[case])
    assert it.saved == restarted.saved, "it counts when the restore is accepted"
    assert it.problem is None


def test_a_restored_version_counts_as_soon_as_its_pepper_is_listed() -> None:
    it = feed(keys={"p1": KEYS["p1"]})
    it.apply(state(7, epoch=2))
    it.apply(state(6, epoch=3, head=200, saved=row(6, pepper="p2", v=6)))
    assert (it.saved, "needs pepper 'p2'" in str(it.problem)) == (good(7), True)
    it.renew(keys=KEYS, max_age=MAX_AGE)
    assert (it.saved, it.problem) == (good(6), None)


def test_settings_count_until_the_store_was_not_read_for_too_long() -> None:
    clock = StillClock()
    it = feed(clock)
    it.apply(state(7))
    clock.advance(MAX_AGE - 1)
    assert (it.saved, it.seconds_left) == (good(7), 1.0)
    clock.advance(1)
    assert it.saved is Reason.STORE_STALE
    it.changed.clear()
    it.apply(state(7))
    assert (it.saved, it.changed.is_set()) == (good(7), True), "and again as soon as it is read"


def test_a_store_without_settings_is_old_after_the_same_time() -> None:
    """Somebody may have saved some by then."""
    clock = StillClock()
    it = feed(clock)
    it.apply(state(0))
    clock.advance(MAX_AGE)
    assert it.saved is Reason.STORE_STALE


def test_a_bad_version_does_not_outdate_the_good_one_while_the_store_is_read() -> None:
    clock = StillClock()
    it = feed(clock)
    it.apply(state(7))
    for _ in range(3):
        clock.advance(MAX_AGE - 1)
        it.apply(BAD["other mac"][0])
    assert it.saved == good(7)


def test_a_pepper_that_is_listed_again_lets_its_version_count() -> None:
    it = feed(keys={"p1": KEYS["p1"]})
    it.apply(state(7))
    by_second = state(8, saved=row(8, pepper="p2", v=8))
    it.apply(by_second)
    assert (it.saved, "needs pepper 'p2'" in str(it.problem)) == (good(7), True)
    it.renew(keys=KEYS, max_age=MAX_AGE)
    assert (it.saved, it.problem) == (good(8), None)
    it.renew(keys={"p1": KEYS["p1"]}, max_age=MAX_AGE)
    assert (it.saved, "needs pepper 'p2'" in str(it.problem)) == (good(8), True), "it goes on, and the next start would not know it"
    it.renew(keys=KEYS, max_age=MAX_AGE)
    assert it.problem is None


def test_another_age_counts_from_then_on() -> None:
    clock = StillClock()
    it = feed(clock)
    it.apply(state(7))
    clock.advance(60)
    it.changed.clear()
    it.renew(keys=KEYS, max_age=30.0)
    assert (it.saved, it.changed.is_set()) == (Reason.STORE_STALE, True)


def test_other_peppers_do_not_let_a_restored_store_count() -> None:
    it = feed()
    it.apply(state(7, epoch=2))
    it.apply(state(6, epoch=2))
    it.renew(keys={"p1": KEYS["p1"]}, max_age=MAX_AGE)
    assert it.saved == good(7)
    assert "accept-restore" in str(it.problem)


@pytest.mark.parametrize("reason", [Reason.STORE_UNAVAILABLE, Reason.STORE_STALE])
async def test_oauth_tokens_get_503_while_nobody_knows_the_settings(tmp_path: Path, reason: Reason) -> None:
    """And what was verified with settings that no longer count is void."""
    (tmp_path / "pepper").write_text("a pepper for tests that is 32 bytes")
    (tmp_path / "routes.yaml").write_text('routes: [{match: "POST /search", scope: SEARCH}]')
    (tmp_path / "extauthz.yaml").write_text(CONFIGURATION)
    okta = {"provider": "okta", "issuer": "https://acme.okta.com/oauth2/x", "client_ids": ["a"], "audience": "x"}
    known, unknown = (load(tmp_path / "extauthz.yaml", saved=saved) for saved in (SavedSettings(7, okta), reason))
    builder = RuntimeBuilder(clock=StillClock(), environment={})
    async with AsyncExitStack() as stack:
        before = await builder.open(known, stack)
        (issuer,) = before.issuers.values()
        parts = await builder.prepare(unknown, before)
        with pytest.raises(Unavailable) as raised:
            parts.runtime.verifiers[Kind.OAUTH].verify("any token", 0.0)
        assert raised.value.reason is reason
        assert not issuer.dropped
        builder.adopt(unknown, before, parts)
        assert issuer.dropped
        again = await builder.prepare(known, parts)
        assert isinstance(again.runtime.verifiers[Kind.OAUTH], OAuthVerifier)
        assert len(again.verdicts[Kind.OAUTH]) == 0


def followed(folder: Path) -> FollowedSettings:
    """Return what follows a store that is not there, for settings that count for twelve seconds."""
    (folder / "pepper").write_text("a pepper for tests that is 32 bytes")
    (folder / "routes.yaml").write_text('routes: [{match: "POST /search", scope: SEARCH}]')
    (folder / "extauthz.yaml").write_text(CONFIGURATION.replace("enabled: false", "enabled: false, max_staleness: 12s"))
    return FollowedSettings(load(folder / "extauthz.yaml"), {}, clock=LoopClock())


def test_a_start_waits_two_seconds_for_a_store_that_is_away(tmp_path: Path) -> None:
    it = followed(tmp_path)

    async def start() -> tuple[object, float]:
        following = asyncio.create_task(it.run())
        saved = await it.first(2.0)
        following.cancel()
        await asyncio.wait({following})
        return saved, now()

    assert in_virtual_time(start) == (UNKNOWN, 2.0)


def test_settings_that_become_too_old_are_noticed_at_that_moment(tmp_path: Path) -> None:
    it = followed(tmp_path)

    async def outage() -> list[tuple[float, object]]:
        it.feed.renew(keys=KEYS, max_age=12.0)
        it.feed.apply(state(7))
        seen = []
        for _ in range(5):
            await it.changed(5.0)
            seen.append((now(), it.saved))
        return seen

    stale = Reason.STORE_STALE
    assert in_virtual_time(outage) == [(0.0, good(7)), (5.0, good(7)), (10.0, good(7)), (12.0, stale), (17.0, stale)]


async def test_who_waits_is_woken() -> None:
    it = feed()
    waiting = asyncio.create_task(it.changed.wait())
    await asyncio.sleep(0)
    it.apply(state(1))
    assert await waiting


READS = st.lists(
    st.tuples(
        st.integers(0, 2), st.integers(0, 9), st.integers(0, 6), st.sampled_from(["good", "other mac", "missing", "turned back"])
    ),
    max_size=12,
)


@given(READS)
def test_whatever_is_read_what_counts_was_written_and_never_goes_back(reads: list[tuple[int, int, int, str]]) -> None:
    """But for a restore that was accepted, which a higher epoch shows than that of the version that counts."""
    it, written, epoch = feed(), {0}, -1
    for read_epoch, head, version, what in reads:
        before = it.saved
        changes: Mapping[str, Any] = {
            "good": {},
            "other mac": {"saved": replace(row(version, v=version), mac=bytes(32))} if version else {},
            "missing": {"saved": None},
            "turned back": {"latest": version + 1},
        }[what]
        it.apply(state(version, epoch=read_epoch, head=head, **changes))
        if what == "good" or (version == 0 and what != "turned back"):
            written.add(version)
        found = it.saved
        if isinstance(found, SavedSettings):
            assert (found, found.version in written) == (good(found.version), True)
        else:
            assert found is UNKNOWN
        if isinstance(before, SavedSettings) and read_epoch <= epoch:
            assert isinstance(found, SavedSettings)
            assert found.version >= before.version
        epoch = read_epoch if it.problem is None else epoch
