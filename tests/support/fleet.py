"""Sidecars in processes of their own on one token store, and databases that go away from them and come back."""

from __future__ import annotations

import asyncio
import contextlib
import os
import statistics
import sys
import time
from collections.abc import AsyncIterator, Collection, Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import grpc.aio
import yaml

from extauthz._pb import ext_authz_pb2 as pb
from extauthz.adapters.store.records import AuditKey, Change
from extauthz.adapters.store.sql import SqlTokenStore
from extauthz.config.patterns import compile_patterns
from extauthz.core.act_as import ActAs
from extauthz.core.model import AuthType, Reason
from extauthz.core.tokens import ENTROPY_BYTES, fingerprint, mint
from extauthz.issuing import Order, Rules, issue
from tests.support.postgres_server import PostgresServer
from tests.support.postgresql import Place
from tests.support.world import bearer, check_request

CHECK = "/envoy.service.auth.v3.Authorization/Check"
PEPPER = b"a pepper for tests, 32 bytes long"
AUDIT = AuditKey.of("p1", PEPPER)
RULES = Rules("glean", frozenset({"SEARCH"}), 1e9, ActAs(allow=compile_patterns(["*@acme.com"])))
PATIENCE = 60.0
"""Seconds that a test waits for what has to come, also on a busy machine."""

ALLOWED, REVOKED = Reason.ALLOWED.value, Reason.TOKEN_REVOKED.value
STALE, UNAVAILABLE = Reason.STORE_STALE.value, Reason.STORE_UNAVAILABLE.value
_TOLD_AS = {REVOKED: (401, "token_invalid"), STALE: (503, STALE), UNAVAILABLE: (503, UNAVAILABLE)}
"""Status and reason that the client gets."""


def now() -> int:
    return int(time.time())  # noqa: TID251 - the sidecars live now


@dataclass(frozen=True, slots=True)
class Token:
    """An issued token."""

    id: str
    text: str


def reason_of(data: bytes) -> str:
    """Return the true reason of an answer, once the rest of it agrees with that."""
    answer = pb.CheckResponse.FromString(data)
    reason = answer.dynamic_metadata.fields["reason"].string_value
    is_allowed = answer.status.code == 0
    assert is_allowed == (reason == ALLOWED) == answer.HasField("ok_response"), answer
    if (told := _TOLD_AS.get(reason)) is not None:
        body = yaml.safe_load(answer.denied_response.body)
        assert (answer.denied_response.status.code, body["reason"]) == told, answer
    return reason


@dataclass
class Fleet:
    """Sidecars, one channel to each, and tokens of their store."""

    folder: Path
    address: str
    channels: list[grpc.aio.Channel] = field(default_factory=list)

    def configure(self, sidecar: int, tokens: Mapping[str, Any]) -> Path:
        """Write the configuration of a sidecar with more keys in the section of tokens; return the file."""
        settings = {
            "version": 1,
            # A check that waits is none of what is measured here: a busy machine must not cut it short.
            "server": {"listen": f"unix://{self.folder}/{sidecar}.sock", "ops": None, "drain": "0s", "check_timeout": "10s"},
            "tokens": {"store": self.address, "peppers": [{"id": "p1", "file": "pepper"}], **tokens},
            "limits": {"store_per_second": 5000},
            "scopes": ["SEARCH"],
            "routes": ["routes.yaml"],
        }
        file, new = self.folder / f"{sidecar}.yaml", self.folder / f"{sidecar}.new"
        new.write_text(yaml.safe_dump(settings))
        return new.replace(file)

    async def reconfigure(self, tokens: Mapping[str, Any]) -> None:
        """Let all sidecars take other keys in the section of tokens, once."""
        for each in range(len(self.channels)):
            self.configure(each, tokens)
        async with asyncio.timeout(PATIENCE):
            for each in range(len(self.channels)):
                while "configuration reloaded" not in (self.folder / f"{each}.log").read_text():  # noqa: ASYNC110 - a process
                    await asyncio.sleep(0.01)  # why: another process tells nobody

    async def ask(self, sidecar: int, token: Token) -> str:
        """Return the true reason of the answer to a check."""
        ask = self.channels[sidecar].unary_unary(CHECK)
        return reason_of(await ask(check_request("POST", "/search", bearer(token.text).items()), timeout=5))

    async def becomes(
        self, sidecar: int, token: Token, wanted: Collection[str], *, until_then: Collection[str] = ()
    ) -> tuple[str, float]:
        """Ask until one of some reasons comes; return it, and when that was, on the monotonic clock.

        Until then only the reasons `until_then` may come, if there are any.
        """
        async with asyncio.timeout(PATIENCE):
            while (reason := await self.ask(sidecar, token)) not in wanted:
                if until_then:
                    assert reason in until_then, f"{reason} before {wanted}"
                await asyncio.sleep(0.005)  # why: another process tells nobody
        return reason, time.monotonic()

    async def miss_the_store(self) -> None:
        """Wait until no sidecar can look up anything: a file that is still open can be read until the next look at it."""
        for each in range(len(self.channels)):
            async with asyncio.timeout(PATIENCE):
                # Refusals are remembered: each of them is for another token.
                while await self.ask(each, stranger()) != UNAVAILABLE:  # noqa: ASYNC110 - another process
                    await asyncio.sleep(0.005)  # why: another process tells nobody

    async def round_trip(self) -> float:
        """Return the mean seconds of a check that is looked up: what all else is compared with, under the same load."""
        taken = []
        for _ in range(20):
            for each in range(len(self.channels)):
                started = time.monotonic()
                await self.ask(each, stranger())
                taken.append(time.monotonic() - started)
        return statistics.fmean(taken)

    async def all_become(
        self, token: Token, wanted: Collection[str], *, until_then: Collection[str] = ()
    ) -> list[tuple[str, float]]:
        """Ask each sidecar in this way."""
        return await asyncio.gather(
            *(self.becomes(each, token, wanted, until_then=until_then) for each in range(len(self.channels)))
        )


def stranger() -> Token:
    """Make up a token that no store has."""
    text = mint("glean", os.urandom(ENTROPY_BYTES))
    return Token(text.id, text.text)


def make(where: Path | str, count: int) -> list[Token]:
    """Issue tokens."""
    made = []
    with closing(SqlTokenStore(where, audit=AUDIT)) as store:
        for _ in range(count):
            order = Order("fleet", AuthType.ANONYMOUS, frozenset({"SEARCH"}), now(), "test", now() + 3600)
            text, record = issue(order, RULES, pepper_id="p1", pepper=PEPPER, entropy=os.urandom(ENTROPY_BYTES))
            store.add(record, fingerprint(PEPPER))
            made.append(Token(text.id, text.text))
    return made


def revoke(where: Path | str, token: Token) -> float:
    """Revoke a token as an administrator does; return when that was done, on the monotonic clock."""
    with closing(SqlTokenStore(where, audit=AUDIT)) as store:
        assert store.revoke([token.id], "fleet test", Change(now(), "admin", "fleet test")) == (token.id,)
        return time.monotonic()


@contextlib.asynccontextmanager
async def fleet(
    address: str, folder: Path, known: Iterable[Token], *, sidecars: int, tokens: Mapping[str, Any] | None = None
) -> AsyncIterator[Fleet]:
    """Run sidecars until the end of the block; each knows the tokens `known`. `tokens` are more keys of that section."""
    it = Fleet(folder, address)
    (folder / "pepper").write_bytes(PEPPER)
    (folder / "routes.yaml").write_text('routes: [{match: "POST /search", scope: SEARCH, anonymous: true}]')
    processes = []
    try:
        for number in range(sidecars):
            file = it.configure(number, tokens or {})
            with (folder / f"{number}.log").open("wb") as log:
                processes.append(
                    await asyncio.create_subprocess_exec(
                        *(sys.executable, "-m", "extauthz", "serve", "--config", str(file)),
                        stdout=asyncio.subprocess.DEVNULL,
                        stderr=log,
                    )
                )
            it.channels.append(grpc.aio.insecure_channel(f"unix:{folder}/{number}.sock"))
        async with asyncio.timeout(300):
            await asyncio.gather(*(channel.channel_ready() for channel in it.channels))
        for token in known:
            await it.all_become(token, [ALLOWED])
        yield it
    finally:
        for channel in it.channels:
            await channel.close()
        for process in processes:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()


class Database(Protocol):
    """A database that can go away from the sidecars, while an administrator still reaches it at `place`."""

    address: str
    """What the sidecars are told."""

    @property
    def place(self) -> Path | str: ...

    def leave(self) -> None: ...

    def reach(self) -> None:
        """Let an administrator reach it while it is away."""

    def come_back(self) -> None: ...


class MovedFile:
    """A SQLite store whose folder is moved away, its log with it."""

    def __init__(self, place: Place) -> None:
        assert isinstance(place.where, Path)
        self._file = place.where
        self._away = self._file.parent.with_name("away")
        self.address = f"sqlite:///{self._file}"

    @property
    def place(self) -> Path:
        return self._file if self._file.exists() else self._away / self._file.name

    def leave(self) -> None:
        self._file.parent.rename(self._away)

    def reach(self) -> None:
        """Whoever knows where it is can."""

    def come_back(self) -> None:
        self._away.rename(self._file.parent)


class ShutDoor:
    """A PostgreSQL whose socket the sidecars reach by a link, which is taken away and their connections with it."""

    def __init__(self, place: Place, server: PostgresServer, folder: Path) -> None:
        assert isinstance(place.where, str)
        self.place = place.where
        self._server = server
        self._name = place.where.partition("@/")[2].partition("?")[0]
        self._door = folder / ".s.PGSQL.5432"
        self.address = server.address(self._name, application=self._name, folder=folder)
        self.come_back()

    def leave(self) -> None:
        self._door.unlink()
        assert self._server.cut(self._name) > 0

    def reach(self) -> None:
        """The server never stopped."""

    def come_back(self) -> None:
        self._door.symlink_to(self._server.socket_folder / self._door.name)


class Killed(ShutDoor):
    """A PostgreSQL all of whose processes are killed, as in a power cut; it starts for the administrator first."""

    def leave(self) -> None:
        self._door.unlink()
        self._server.kill()

    def reach(self) -> None:
        self._server.start()


class Paused(ShutDoor):
    """A PostgreSQL that says nothing any more on the connections that there are; it wakes for the administrator first."""

    def leave(self) -> None:
        self._door.unlink()
        self._paused = self._server.paused()
        self._paused.__enter__()

    def reach(self) -> None:
        self._paused.__exit__(None, None, None)


class Stalled(Paused):
    """The same with its door open: who connects waits as well."""

    def leave(self) -> None:
        super().leave()
        super().come_back()

    def come_back(self) -> None:
        """The door was never shut."""
        if not self._door.is_symlink():
            super().come_back()


def database_of(place: Place, server: PostgresServer, folder: Path) -> Database:
    """Return what can go away of a place."""
    return MovedFile(place) if place.kind == "sqlite" else ShutDoor(place, server, folder)
