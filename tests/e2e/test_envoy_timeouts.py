"""A real Envoy that gives up on checks again and again: each transport keeps its connections."""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from extauthz._pb import ext_authz_pb2 as pb
from extauthz.demo.launcher import CHECKOUT, find_envoy
from tests.support.demo_processes import demo_ports
from tests.support.transports import NAMES, Held, Loop, Name, Served
from tests.support.waiting import eventually

pytestmark = [pytest.mark.envoy, pytest.mark.long]

AT_ONCE, RESETS = 200, 3_000
"""On two connections, more than the thousand after which libnghttp2, if it is not told otherwise, ends one."""
REFUSED = pb.CheckResponse(
    status={"code": 7},
    denied_response={"status": {"code": 403}},  # type: ignore[arg-type]
).SerializeToString()


class Handler(Held):
    """Refuses at once, but for /slow, which waits for ever."""

    def __call__(self, message: bytes) -> object:  # type: ignore[override]
        path = pb.CheckRequest.FromString(message).attributes.request.http.path
        return super().__call__(message) if path == "/slow" else REFUSED


@dataclass
class Envoy:
    """A running Envoy: its port, and the socket of its console."""

    port: int
    console: Path

    async def statuses(self, path: str, count: int) -> list[int]:
        """Ask so many times at once, each on a connection of its own; return the statuses."""
        return await asyncio.gather(*(self._status(path) for _ in range(count)))

    async def _status(self, path: str) -> int:
        async with asyncio.timeout(60):
            reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
            writer.write(f"GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n".encode())
            line = await reader.readline()
            writer.close()
            await writer.wait_closed()
        return int(line.split()[1])

    def counter(self, name: str) -> int:
        """Return what Envoy counted of the sidecar's cluster."""
        with socket.socket(socket.AF_UNIX) as asking:
            asking.connect(str(self.console))
            asking.sendall(f"GET /stats?filter=^cluster.extauthz.{name}$ HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n".encode())
            told = b"".join(iter(lambda: asking.recv(65536), b"")).decode()
        found = re.search(rf"^cluster\.extauthz\.{name}: (\d+)", told, re.MULTILINE)
        assert found is not None, told
        return int(found[1])


@contextlib.contextmanager
def envoy_before(port: int, folder: Path) -> Iterator[Envoy]:
    """Run Envoy as it is shipped before a sidecar on a port."""
    ports = demo_ports()
    text = (CHECKOUT / "envoy" / "envoy.yaml").read_text()
    for old, new in (
        ("port_value: 10000", f"port_value: {ports.envoy}"),
        ("port_value: 9001", f"port_value: {port}"),
        ("port_value: 8080", f"port_value: {ports.upstream}"),
        ("/tmp/extauthz-envoy-admin.sock", str(folder / "admin.sock")),  # noqa: S108 - the name in the file
    ):
        assert text.count(old) == 1
        text = text.replace(old, new)
    assert re.search(r"^ +timeout: 0\.2s$", text, re.MULTILINE), "the time-out that this is about"
    (folder / "envoy.yaml").write_text(text)
    flags = ("-c", str(folder / "envoy.yaml"), "--use-dynamic-base-id", "--concurrency", "2", "--log-level", "warning")
    with (folder / "envoy.log").open("wb") as log, subprocess.Popen([find_envoy(), *flags], stdout=log, stderr=log) as process:
        try:
            yield Envoy(ports.envoy, folder / "admin.sock")
        finally:
            process.terminate()
            process.wait(timeout=20)


@pytest.fixture
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The paths of unix sockets are short."""
    return Path(tmp_path_factory.mktemp("t"))


@pytest.mark.parametrize("name", NAMES)
def test_time_outs_of_envoy_close_no_connection(folder: Path, name: Name) -> None:
    loop, handler = Loop(name), Handler()
    served = Served(loop, handler)
    served.set_serving(True)
    assert isinstance(served.target, int)
    with envoy_before(served.target, folder) as envoy:
        eventually(lambda: answers(envoy), seconds=30)
        made = 0
        while envoy.counter("upstream_rq_tx_reset") < RESETS:
            assert set(asyncio.run(envoy.statuses("/slow", AT_ONCE))) == {503}
            # Once every thread of Envoy has a connection there are no more.
            made = made or envoy.counter("upstream_cx_total")
        eventually(lambda: answers(envoy))
        assert envoy.counter("upstream_cx_destroy_remote") == 0
        assert envoy.counter("upstream_cx_total") == made
        eventually(lambda: handler.cancelled == handler.begun > 0)
    served.stop()
    loop.close()
    assert loop.complaints == []


def answers(envoy: Envoy) -> bool:
    with contextlib.suppress(OSError, IndexError):
        return asyncio.run(envoy.statuses("/", 1)) == [403]
    return False
