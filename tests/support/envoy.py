"""A real Envoy, an upstream that shows what reached it, and a sidecar, as processes and threads of a test."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

from extauthz.addresses import Address
from extauthz.demo.launcher import find_envoy
from extauthz.demo.upstream import echo
from extauthz.transport.http.ops import HttpServer
from extauthz.transport.sockets import open_port
from tests.support.waiting import eventually

START_TIMEOUT = 60.0


def validation(folder: Path, bootstrap: str) -> subprocess.CompletedProcess[str]:
    """Let Envoy read a bootstrap."""
    file = folder / "validated.yaml"
    file.write_text(bootstrap, encoding="utf-8")
    command = [find_envoy(), "--mode", "validate", "-c", str(file)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def refusal(folder: Path, bootstrap: str) -> str:
    """Return why Envoy would not start with a bootstrap; nothing if it would."""
    done = validation(folder, bootstrap)
    assert (done.returncode == 0) == ("OK" in done.stdout), done.stderr
    return "" if done.returncode == 0 else done.stderr


@contextlib.contextmanager
def process(command: list[str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run a process until the end of the block."""
    with log.open("wb") as output:
        started = subprocess.Popen(command, stdout=output, stderr=output)
    try:
        yield started
    finally:
        started.terminate()
        try:
            started.wait(10)
        except subprocess.TimeoutExpired:
            started.kill()
            started.wait()


@contextlib.contextmanager
def running_envoy(folder: Path, bootstrap: str, admin: Path) -> Iterator[None]:
    """Run Envoy with this bootstrap; it is live inside the block."""
    file, log = folder / "envoy.yaml", folder / "envoy.log"
    file.write_text(bootstrap, encoding="utf-8")
    command = [find_envoy(), "-c", str(file), "--use-dynamic-base-id", "--concurrency", "1", "--log-level", "warning"]
    with process(command, log) as envoy:
        _wait(lambda: _asked(admin, "/ready") == 200, envoy, log)
        yield


@contextlib.contextmanager
def running_sidecar(configuration: Path, ops: int) -> Iterator[None]:
    """Serve a configuration; it is ready inside the block."""
    log = configuration.parent / "sidecar.log"
    command = [sys.executable, "-m", "extauthz", "serve", "--config", str(configuration)]
    with process(command, log) as sidecar:
        _wait(lambda: _status(ops, "/readyz") == 200, sidecar, log)
        yield


@contextlib.contextmanager
def running_upstream(port: int) -> Iterator[None]:
    """Answer with the request that arrived."""
    server = HttpServer(echo)
    thread = threading.Thread(target=lambda: asyncio.run(server.run_on(open_port(Address(host="127.0.0.1", port=port)))))
    thread.start()
    try:
        yield
    finally:
        server.should_exit = True
        thread.join(timeout=10)


@dataclass
class Reply:
    """What a client of Envoy got."""

    status: int
    body: Any


def send(port: int, line: str, headers: Iterable[tuple[str, str]]) -> Reply:
    """Send "METHOD /path" with exactly these headers, host among them."""
    method, _, path = line.partition(" ")
    connection = HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
        for name, value in headers:
            connection.putheader(name, value)
        connection.endheaders()
        response = connection.getresponse()
        text = response.read().decode()
        return Reply(response.status, json.loads(text) if text.startswith("{") else text)
    finally:
        connection.close()


def _wait(ready: Any, started: subprocess.Popen[bytes], log: Path) -> None:
    def is_ready() -> object:
        assert started.poll() is None, log.read_text()[-3000:]
        return ready()

    eventually(is_ready, seconds=START_TIMEOUT, pause=0.02, what=lambda: log.read_text()[-3000:])


def _status(port: int, path: str) -> int | None:
    connection = HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", path)
        return connection.getresponse().status
    except OSError:
        return None
    finally:
        connection.close()


def _asked(admin: Path, path: str) -> int | None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as opened:
        opened.settimeout(5)
        try:
            opened.connect(str(admin))
            opened.sendall(f"GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n".encode())
            return int(opened.recv(100).split()[1])
        except (OSError, IndexError, ValueError):
            return None
