"""The file of a unix socket that somebody removed or replaced is made again, and nobody who is connected notices."""

from __future__ import annotations

import asyncio
import json
import logging
import shutil
import socket
import stat
from collections.abc import Callable, Coroutine
from contextlib import closing, suppress
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest

from extauthz.addresses import Address
from extauthz.errors import ListenError
from extauthz.transport.address_claims import PathClaim, claim, keep
from extauthz.transport.sockets import open_listener
from tests.support.h2_client import Client
from tests.support.sidecar import PATIENCE, Sidecar, sidecar
from tests.support.waiting import eventually
from tests.support.world import bearer, check_request

__all__ = ["sidecar"]


def is_live(path: Path) -> bool:
    """Tell whether somebody listens there."""
    with socket.socket(socket.AF_UNIX) as probe, suppress(OSError):
        probe.connect(str(path))
        return True
    return False


def ops_connection(path: Path) -> HTTPConnection:
    """Connect to the ops listener once, and never again."""
    connection = HTTPConnection("localhost")
    connection.auto_open = 0
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.connect(str(path))
    return connection


def status(connection: HTTPConnection, page: str) -> int:
    """Ask for a page."""
    connection.request("GET", page)
    response = connection.getresponse()
    response.read()
    return response.status


@pytest.mark.parametrize("transport", ["nghttp2", "grpcio"])
def test_removed_sockets_are_made_again(sidecar: Sidecar, transport: str) -> None:
    paths = [sidecar.folder / name for name in ("check.sock", "ops.sock")]
    listen, ops = (f"unix://{path}" for path in paths)
    sidecar.settings["server"] |= {"listen": listen, "ops": ops, "transport": transport}
    sidecar.write()
    asked = check_request("POST", "/search", bearer(sidecar.token()).items())
    sidecar.start()
    with Client(str(paths[0])) as kept, closing(ops_connection(paths[1])) as ops_kept:
        good = kept.ask(asked)
        assert status(ops_kept, "/healthz") == 200
        for path in paths:
            path.unlink()
        eventually(lambda: all(map(is_live, paths)))
        with Client(str(paths[0])) as new, closing(ops_connection(paths[1])) as ops_new:
            assert len(new.ask(asked)) == len(kept.ask(asked)) == len(good)
            assert status(ops_new, "/readyz") == status(ops_kept, "/readyz") == 200
    assert [stat.S_IMODE(path.stat().st_mode) for path in paths] == [0o660, 0o660]
    told = [json.loads(line) for line in sidecar.logs[1].read_text().splitlines()]
    assert sorted(line["listen"] for line in told if line["message"] == "the socket was removed and is made again") == [listen, ops]
    assert sidecar.stop() == 0
    assert not any(path.exists() for path in paths)


# --- what may be found in the place of the socket


def removed(path: Path) -> None:
    path.unlink()


def left_behind(path: Path) -> None:
    path.unlink()
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))


def without_folder(path: Path) -> None:
    shutil.rmtree(path.parent)
    path.parent.mkdir()


def untouched(_: Path) -> None:
    pass


def changed_mode(path: Path) -> None:
    path.chmod(0o600)


class Kept:
    """A socket that is listened on and looked at, one look after the other."""

    def __init__(self, path: Path, claimed: PathClaim) -> None:
        self.path = path
        self.claimed = claimed
        self.made: list[socket.socket] = []
        self.asked: list[float] = []
        self._listen()
        claimed.publish(mode="0660", group=None)

    def _listen(self) -> None:
        self.made.append(open_listener(self.claimed.binding))

    async def listen_again(self, address: Address) -> None:
        assert address is self.claimed.binding
        self._listen()

    async def looks(self, count: int) -> None:
        """Let it look so many times."""
        enough = asyncio.Event()

        async def sleep(seconds: float) -> None:
            self.asked.append(seconds)
            if len(self.asked) > count:
                enough.set()
                await asyncio.Event().wait()

        self.asked.clear()
        looking: asyncio.Task[None] = asyncio.create_task(keep(self.claimed, self.listen_again, sleep=sleep))
        await asyncio.wait_for(enough.wait(), PATIENCE)
        looking.cancel()


def kept_in(folder: Path, body: Callable[[Kept], Coroutine[Any, Any, None]]) -> Kept:
    """Run a test with a socket of its own."""
    folder.mkdir()
    path = folder / "check.sock"
    with claim(Address(path=str(path))) as claimed:
        assert isinstance(claimed, PathClaim)
        kept = Kept(path, claimed)
        asyncio.run(body(kept))
        for opened in kept.made:
            opened.close()
    return kept


@pytest.mark.parametrize(
    ("happens", "made"), [(removed, 2), (left_behind, 2), (without_folder, 2), (untouched, 1), (changed_mode, 1)]
)
def test_it_is_seen_within_a_second(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, happens: Callable[[Path], None], made: int
) -> None:
    """The seconds are those that it asks to sleep; one look is enough."""

    async def body(kept: Kept) -> None:
        happens(kept.path)
        await kept.looks(3)
        assert len(kept.made) == made
        assert is_live(kept.path)
        assert max(kept.asked) <= 1.0
        # The lock is held where a second process would look for it.
        with pytest.raises(ListenError, match="in use"), claim(kept.claimed.address):
            pass

    kept = kept_in(tmp_path / "folder", body)
    assert [entry.getMessage() for entry in caplog.records] == ["the socket was removed and is made again"] * (made - 1)
    assert not kept.path.exists()


def put_file(path: Path) -> None:
    path.unlink()
    path.write_text("important")


def take_folder(path: Path) -> None:
    shutil.rmtree(path.parent)


@pytest.mark.parametrize(("happens", "cause"), [(put_file, "a file that is no socket"), (take_folder, "does not exist")])
def test_what_it_cannot_mend_is_told_once_and_mended_later(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, happens: Callable[[Path], None], cause: str
) -> None:
    async def body(kept: Kept) -> None:
        happens(kept.path)
        await kept.looks(3)
        assert len(kept.made) == 1
        if kept.path.exists():
            assert kept.path.read_text() == "important"
            kept.path.unlink()
        kept.path.parent.mkdir(exist_ok=True)
        await kept.looks(2)
        assert is_live(kept.path)

    kept_in(tmp_path / "folder", body)
    assert [entry.levelno for entry in caplog.records] == [logging.ERROR, logging.WARNING]
    assert cause in str(caplog.records[0].__dict__["cause"])


def test_the_socket_of_another_process_is_left_alone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def body(kept: Kept) -> None:
        kept.path.unlink()
        with closing(open_listener(kept.claimed.address)):
            await kept.looks(3)
        assert len(kept.made) == 1

    kept = kept_in(tmp_path / "folder", body)
    assert [entry.__dict__["cause"].endswith("is in use by another process") for entry in caplog.records] == [True]
    assert kept.path.is_socket(), "nor is it removed at the end"
