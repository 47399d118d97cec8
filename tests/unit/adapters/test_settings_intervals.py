"""How often saved settings are read, to the millisecond: asked of a loop whose time is made up."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from extauthz.adapters.store.contact import FeedLost
from extauthz.adapters.store.rows import REVISION
from extauthz.adapters.store.settings_following import PostgresSettingsFollower, SqliteSettingsFollower
from extauthz.adapters.store.settings_rows import SettingsState
from extauthz.adapters.store.sql import SqlTokenStore
from tests.support.virtual_time import elapse, in_virtual_time, now


class Server:
    """A connection to a database server; `notes` are the times of notifications, `row` is what it holds."""

    def __init__(self) -> None:
        self.row: tuple[Any, ...] = (3, 17, 0, REVISION, 0, *[None] * 9)
        self.reads: list[float] = []
        self.connected: list[float] = []
        self.notes: list[float] = []

    async def connect(self) -> None:
        self.connected.append(now())

    async def ask(self, query: str, parameters: Sequence[Any] = (), *, seconds: float) -> list[tuple[Any, ...]]:
        if "settings" not in query:
            return []
        self.reads.append(now())
        return [self.row]

    async def notified(self, seconds: float) -> bool:
        due = [note for note in self.notes if note <= now() + seconds]
        self.notes = self.notes[len(due[:1]) :]
        await elapse(max(due[0] - now(), 0) if due else seconds)
        return bool(due)

    async def close(self) -> None:
        self.connected.append(-1.0)


async def for_seconds(seconds: float, follower: PostgresSettingsFollower | SqliteSettingsFollower) -> None:
    task = asyncio.create_task(follower.run())
    await elapse(seconds)
    task.cancel()
    await asyncio.wait({task})


@pytest.mark.parametrize("listen", [True, False])
def test_a_server_is_read_every_second_also_behind_a_pool(listen: bool) -> None:
    server, states = Server(), list[SettingsState]()
    in_virtual_time(lambda: for_seconds(3.5, PostgresSettingsFollower(server, states.append, listen=listen)))
    assert server.reads == [0, 1, 2, 3]
    assert states == [SettingsState(3, 17, 0, 0, None)] * 4
    assert server.connected == [0, -1.0], "and closed at the end"


def test_a_notification_causes_a_read_at_once() -> None:
    server, states = Server(), list[SettingsState]()
    server.notes = [0.4]
    in_virtual_time(lambda: for_seconds(0.9, PostgresSettingsFollower(server, states.append, listen=True)))
    assert server.reads == [0, 0.4]


@pytest.mark.parametrize(
    "row",
    [
        ("x", 17, 0, REVISION, 0, *[None] * 9),
        (3, None, 0, REVISION, 0, *[None] * 9),
        (3, 17, 0, "0001", 0, *[None] * 9),
        (3, 17, 0, None, 0, *[None] * 9),
    ],
    ids=repr,
)
def test_a_state_that_no_release_wrote_is_handed_to_nobody(row: tuple[Any, ...], caplog: pytest.LogCaptureFixture) -> None:
    server, states = Server(), list[SettingsState]()
    server.row = row
    in_virtual_time(lambda: for_seconds(1, PostgresSettingsFollower(server, states.append, listen=True)))
    assert states == []
    assert caplog.text.count("OAuth settings in the token store lost") == 1
    assert len(server.connected) > 2, "it is tried again"


def test_a_server_that_is_lost_is_looked_for_again() -> None:
    class Cut(Server):
        async def ask(self, query: str, parameters: Sequence[Any] = (), *, seconds: float) -> list[tuple[Any, ...]]:
            rows = await super().ask(query, parameters, seconds=seconds)
            if len(self.connected) == 1 and rows:
                raise FeedLost("cut")
            return rows

    server, states = Cut(), list[SettingsState]()
    in_virtual_time(lambda: for_seconds(0.5, PostgresSettingsFollower(server, states.append, listen=True)))
    assert (server.reads, len(states)) == ([0, 0.05], 1)


def test_a_file_is_waited_for_and_read_when_it_moved(tmp_path: Path) -> None:
    path, reads = tmp_path / "tokens.db", list[tuple[float, int]]()

    async def work() -> None:
        follower = SqliteSettingsFollower(path, lambda state: reads.append((now(), state.version)))
        following = asyncio.create_task(for_seconds(2.6, follower))
        await elapse(0.6)
        store = SqlTokenStore(path, create=True)
        store.migrate()
        await elapse(1.2)
        with store.writing() as connection:
            connection.exec_driver_sql("UPDATE store_state SET settings_version = 7")
        await following
        store.close()

    in_virtual_time(work)
    assert reads == [(0.75, 0), (1.75, 0), (2.0, 7)]
