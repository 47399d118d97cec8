"""Followers of the saved settings: they hand on what each read found, and end with nothing but their cancellation.

A version is read whole, in one statement with the state of the change feed; what changed of tokens is not.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from extauthz.adapters.store.following import READ_TIME, FeedLink, PostgresFollowing, SqliteFollowing
from extauthz.adapters.store.reader import SqliteReader
from extauthz.adapters.store.settings_rows import SAVED, SettingsState, settings_state
from extauthz.core.model import Reason
from extauthz.errors import StoreError, Unavailable

POLL = 1.0
"""Seconds between two reads, whether or not a notification came: settings that were saved count within two seconds."""

_SUBJECT = "OAuth settings in the token store"

Take = Callable[[SettingsState], None]


class PostgresSettingsFollower(PostgresFollowing):
    """Reads the settings in PostgreSQL."""

    def __init__(self, link: FeedLink, take: Take, *, listen: bool) -> None:
        """Hand what is read to `take`. Without `listen` any transaction pooler will do."""
        super().__init__(link, _SUBJECT, poll_interval=POLL, listen=listen)
        self._take = take
        self._version = -1

    async def _catch_up(self) -> bool:
        state = settings_state(await self._link.ask(SAVED, seconds=READ_TIME))
        is_changed, self._version = state.version != self._version, state.version
        self._take(state)
        return is_changed


class SqliteSettingsFollower(SqliteFollowing):
    """Reads the settings in a SQLite store."""

    def __init__(self, path: Path, take: Take) -> None:
        """Hand what is read to `take`; nothing is opened before `run`."""
        self._file = _SettingsFile(path)
        super().__init__(self._file, _SUBJECT, poll_interval=POLL)
        self._take = take

    async def run(self) -> None:
        """Follow until cancelled."""
        try:
            await super().run()
        finally:
            self._file.close()

    def _read(self) -> bool:
        self._take(self._file.read())
        return False


class _SettingsFile:
    """A file that may not be there yet, or not be a store yet."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._reader: SqliteReader | None = None

    def version(self) -> object:
        """Return a value that differs when the store has moved; raises Unavailable."""
        if self._reader is None:
            try:
                self._reader = SqliteReader(self._path)
            except StoreError as error:
                raise Unavailable(Reason.STORE_UNAVAILABLE) from error
        return self._reader.version()

    def read(self) -> SettingsState:
        """Return the settings that count; raises Unavailable."""
        if self._reader is None:
            raise Unavailable(Reason.STORE_UNAVAILABLE)
        return self._reader.read_settings()

    def close(self) -> None:
        if self._reader is not None:
            self._reader.close()
