"""The OAuth settings in the store, as a process that serves follows them: which version counts, and why no later one does."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from extauthz.adapters.store.settings_following import PostgresSettingsFollower, SqliteSettingsFollower
from extauthz.adapters.store.settings_rows import SettingsState, keys_of, refusal
from extauthz.config.loader import Configuration
from extauthz.config.saved_settings import Saved, SavedSettings, place_of
from extauthz.core.model import Reason
from extauthz.ports import Clock

if TYPE_CHECKING:
    from extauthz.adapters.store.link import DatabaseLink

LATELY = 10.0
"""Seconds that settings count at least after the store was last read, also with a shorter tokens.max_staleness."""

_REWOUND = "the store is an older one than it was; {place} goes on: run 'extauthz store accept-restore'"
_OLDER = (
    "the store has an older version {version} of the OAuth settings, or another one; {place} goes on: save the settings anew, "
    "or, if a backup was put back, run 'extauthz store accept-restore'"
)
_TURNED_BACK = "the store names version {version} as the last one and holds version {latest}: save the settings anew"
_MISSING = "is missing in the store: save the settings anew"


class SettingsFeed:
    """Keeps the version that counts: the last one that was read whole and is what was written.

    It counts for `max_age` seconds after the last completed read; the settings are unknown before the first. A version that may not
    be used, or is older than the one that counts, changes nothing but `problem`; and so does everything in a store that is an older
    one than it was, until the restore is accepted, which a higher epoch shows. `changed` is set whenever what counts, or the
    problem, may be another.
    """

    def __init__(self, *, keys: Mapping[str, bytes], clock: Clock, max_age: float) -> None:
        """Begin with nothing known; `keys` are those of the versions' MACs by pepper."""
        self.changed = asyncio.Event()
        self.problem: str | None = "the store has not been read yet"
        self._keys = keys
        self._clock = clock
        self._max_age = max_age
        self._good: SavedSettings | None = None
        self._floor = (-1, b"")
        self._state: SettingsState | None = None
        self._rewound = False
        self._read_at = float("-inf")

    @property
    def saved(self) -> Saved:
        """The settings that count now, or the reason why nobody can tell."""
        if self._good is None:
            return Reason.STORE_UNAVAILABLE
        return self._good if self.seconds_left > 0 else Reason.STORE_STALE

    @property
    def seconds_left(self) -> float:
        """For how long the version counts if the store is not read again."""
        return self._read_at + self._max_age - self._clock.monotonic()

    def apply(self, state: SettingsState) -> None:
        """Take what a completed read found."""
        was_stale = self.seconds_left <= 0
        self._read_at = self._clock.monotonic()
        if was_stale:
            self.changed.set()
        before = self._state
        if before is None or state.epoch > before.epoch:
            self._rewound = False
            self._floor = (-1, b"")
        elif state.epoch < before.epoch or state.head < before.head:
            self._rewound = True
        if self._rewound:
            self._note(_REWOUND.format(place=place_of(self._good.version if self._good else 0)))
        elif state != before:
            self._state = state
            self._judge(state)

    def renew(self, *, keys: Mapping[str, bytes], max_age: float) -> None:
        """Go on with the peppers and the settings of another configuration."""
        self._max_age = max_age
        if dict(keys) != dict(self._keys):
            self._keys = keys
            if self._state is not None and not self._rewound:
                self._judge(self._state)
        self.changed.set()

    def _judge(self, state: SettingsState) -> None:
        saved = state.saved
        if state.latest != state.version:
            self._note(_TURNED_BACK.format(version=state.version, latest=state.latest))
        elif state.version == 0:
            self._use(SavedSettings(0), b"")
        elif saved is None or saved.version != state.version:
            self._note(f"{place_of(state.version)} {_MISSING}")
        elif problem := refusal(saved, self._keys):
            self._note(f"{place_of(state.version)} {problem}")
        else:
            self._use(SavedSettings(state.version, saved.values()), saved.mac)

    def _use(self, settings: SavedSettings, mac: bytes) -> None:
        """Let a version count, unless a later one did, or another one with the same number."""
        version, known = self._floor
        if settings.version < version or (settings.version == version and mac != known):
            self._note(_OLDER.format(version=settings.version, place=place_of(version)))
            return
        if settings != self._good or self.problem is not None:
            self.changed.set()
        self._good, self._floor, self.problem = settings, (settings.version, mac), None

    def _note(self, problem: str) -> None:
        if problem != self.problem:
            self.problem = problem
            self.changed.set()


class FollowedSettings:
    """The settings, and what reads them; it belongs to the process that reads the files, whether or not it answers checks."""

    def __init__(self, configuration: Configuration, environment: Mapping[str, str], *, clock: Clock) -> None:
        """Take a configuration whose settings are in the store; nothing is opened before `run`.

        Raises StoreError for an address that is none, and ConfigurationError.
        """
        self._environment = environment
        self.feed = SettingsFeed(keys=self._keys(configuration), clock=clock, max_age=max_age_of(configuration))
        self._link: DatabaseLink | None = None
        place, tokens = configuration.settings_place, configuration.settings.tokens
        self._follower: PostgresSettingsFollower | SqliteSettingsFollower
        if place is None or tokens is None:
            raise ValueError("the file has the settings")
        if isinstance(place, Path):
            self._follower = SqliteSettingsFollower(place, self.feed.apply)
        else:
            # Eight megabytes that a SQLite store has no use for.
            from extauthz.adapters.store.link import DatabaseLink

            listen = tokens.feed == "notify"
            self._link = DatabaseLink(place, configuration.store_password(environment), prepare=listen)
            self._follower = PostgresSettingsFollower(self._link, self.feed.apply, listen=listen)

    @property
    def saved(self) -> Saved:
        """The settings that count now, or the reason why nobody can tell."""
        return self.feed.saved

    @property
    def problem(self) -> str | None:
        """Why a later version may not be used."""
        return self.feed.problem

    async def run(self) -> None:
        """Follow the store until cancelled."""
        await self._follower.run()

    async def first(self, seconds: float) -> Saved:
        """Return the settings as soon as the store was read, or after so many seconds."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self.feed.changed.wait()
        return self.feed.saved

    async def changed(self, seconds: float) -> None:
        """Wait until the settings that count may be others, but no longer than so many seconds."""
        # A version that was good becomes too old without a word from anybody.
        left = self.feed.seconds_left
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(min(seconds, left) if left > 0 else seconds):
                await self.feed.changed.wait()
        self.feed.changed.clear()

    def renewal(self, configuration: Configuration) -> Callable[[], None]:
        """Return what goes on with the peppers and the password of another configuration; raises ConfigurationError."""
        keys, password, max_age = (
            self._keys(configuration),
            configuration.store_password(self._environment),
            max_age_of(configuration),
        )

        def renew() -> None:
            self.feed.renew(keys=keys, max_age=max_age)
            if self._link is not None:
                self._link.use_password(password)

        return renew

    def _keys(self, configuration: Configuration) -> dict[str, bytes]:
        return keys_of(configuration.peppers(self._environment))


def max_age_of(configuration: Configuration) -> float:
    """Return for how many seconds settings count after the store was last read."""
    tokens = configuration.settings.tokens
    return max(tokens.max_staleness if tokens else 0.0, LATELY)
