"""What benchmarks run: the sidecar and its issuer, on the cores that the system picks or on one."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

from extauthz.addresses import Address
from extauthz.demo.issuer import AUDIENCE, CLIENT_ID, DemoIssuer
from extauthz.transport.http.ops import HttpServer
from extauthz.transport.sockets import open_port

SERVER_CORE, CLIENT_CORE = 0, 1


def on_core(core: int, *, pinned: bool) -> tuple[str, ...]:
    """Return what a command begins with that is to stay on one core."""
    return ("taskset", "-c", str(core)) if pinned else ()


@contextlib.contextmanager
def process(
    *arguments: str,
    program: str = sys.executable,
    log: Path | None = None,
    pinned: bool = True,
    read: Callable[[IO[bytes]], None] | None = None,
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a process, on the server's core if pinned; what it logs goes to a file, if one is named, and what it prints is read."""
    with log.open("w+b") if log else tempfile.TemporaryFile() as errors:
        begin = on_core(SERVER_CORE, pinned=pinned)
        running = subprocess.Popen([*begin, program, *arguments], stdout=subprocess.PIPE, stderr=errors)
        reading = threading.Thread(target=read or read_to_the_end, args=(running.stdout,))
        reading.start()
        try:
            yield running
        except BaseException:
            errors.seek(0)
            print(
                f"exit code so far: {running.poll()}; what it logged:\n{errors.read().decode(errors='replace')[-4000:]}",
                file=sys.stderr,
            )
            raise
        finally:
            running.terminate()
            running.wait(timeout=20)
            reading.join(timeout=20)


def built_floor(folder: Path) -> Path | None:
    """Compile the server in C; None where no compiler is."""
    program, source = folder / "floor", Path(__file__).with_name("floor.c")
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        return None
    subprocess.run([compiler, "-O2", "-o", str(program), str(source), "-l:libnghttp2.so.14"], check=True)
    return program


def read_to_the_end(pipe: IO[bytes]) -> None:
    """Read what a process prints, as a log collector does, and forget it."""
    with pipe:
        while pipe.read1(65536):  # type: ignore[attr-defined]
            pass


@contextlib.contextmanager
def issuer(port: int) -> Iterator[DemoIssuer]:
    """Run the demo issuer in a thread, for the keys."""
    made = DemoIssuer(f"http://127.0.0.1:{port}")
    server = HttpServer(made)
    opened = open_port(Address(host="127.0.0.1", port=port))
    thread = threading.Thread(target=asyncio.run, args=(server.run_on(opened),))
    thread.start()
    try:
        yield made
    finally:
        server.should_exit = True
        thread.join()


def cpu_seconds(pid: int | str | None) -> float:
    """Return the processor time of a process so far, or of a thread named as PID/task/TID; 0.0 for one that is not to be seen."""
    if pid is None:
        return 0.0
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def configuration(folder: Path, issuer_port: int, port: int, transport: str, ops: int | None = None) -> Path:
    """Write a configuration for OAuth tokens of the demo issuer, with the ops listener on a port."""
    address = "null" if ops is None else f"'127.0.0.1:{ops}'"
    (folder / "routes.yaml").write_text('routes: [{match: "POST /rest/api/v1/search", scope: SEARCH}]')
    file = folder / f"{transport}.yaml"
    file.write_text(
        f"version: 1\nserver: {{listen: '127.0.0.1:{port}', ops: {address}, drain: 0s, transport: {transport}}}\n"
        f"oauth: {{provider: okta, issuer: 'http://127.0.0.1:{issuer_port}/oauth2/default', client_ids: [{CLIENT_ID}], "
        f"audience: '{AUDIENCE}'}}\nscopes: [SEARCH]\nroutes: [routes.yaml]\n"
    )
    return file


def listening_pid(port: int) -> int | None:
    """Return the process that listens on a TCP port of this machine, None if it is not to be seen."""
    listening = "0A"
    inodes = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in Path(table).read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == listening and int(fields[1].rpartition(":")[2], 16) == port:
                inodes.add(f"socket:[{fields[9]}]")
    for descriptor in Path("/proc").glob("[0-9]*/fd/*"):
        with contextlib.suppress(OSError):
            if str(descriptor.readlink()) in inodes:
                return int(descriptor.parts[2])
    return None
