"""One installation as a user has it: a real Envoy before `extauthz serve`, a store, an issuer, an upstream, and who asks."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import yaml

from extauthz.adapters.store.records import AuditKey, Change
from extauthz.adapters.store.sql import SqlTokenStore
from extauthz.addresses import Address
from extauthz.admin.token_requests import TokenRequest, TokenRules, issue
from extauthz.config.patterns import compile_patterns
from extauthz.core.act_as import ActAs
from extauthz.core.model import AuthType
from extauthz.core.tokens import ENTROPY_BYTES, fingerprint
from extauthz.demo.issuer import AUDIENCE, CLIENT_ID, DemoIssuer
from extauthz.demo.wiring import write_certificates
from extauthz.transport.http.ops import HttpServer
from extauthz.transport.sockets import open_port
from extauthz.transport.tls import TlsFiles
from tests.faults.load import Client, Load, Request, Source
from tests.faults.table import Database, Kind
from tests.support.envoy import running_envoy, running_upstream
from tests.support.ports import free_port, successive_ports
from tests.support.postgres_server import PostgresServer
from tests.support.postgresql import Place
from tests.support.sidecar import Sidecar
from tests.support.transports import eventually
from tests.support.world import PEPPER, bearer, oauth

PATIENCE = 60.0
MERGE_WINDOW = 1.2
"""Seconds in which Envoy merges changes of health before its threads hear of them (update_merge_window), and a bit."""
STOCK = 1_500
"""New tokens that are made at once."""
SERVE = (sys.executable, "-m", "extauthz", "serve", "--config")
CHAT = "POST /rest/api/v1/chat"
_RULES = TokenRules("glean", frozenset({"CHAT"}), 1e9, ActAs(allow=compile_patterns(["*@acme.com"])))


@dataclass(frozen=True)
class Needs:
    """What a fault needs of its installation; two faults with the same needs may share one."""

    settings: tuple[tuple[str, str], ...] = ()
    """Keys with a dot, and their values in YAML."""
    workers: int = 1
    unix: bool = False
    issuer_tls: bool = False
    piped: bool = False
    """Standard output and error are pipes that are read, until a fault ends that."""
    tmpfs: bool = False
    """A SQLite store lies on a small file system of its own, if root can make one."""
    bound: bool = False
    """The sidecar is bound by owners and mode bits."""
    alone: bool = False
    """Nothing may have happened to it before."""


class IssuerServer:
    """The issuer's listener, which can go away and come back."""

    def __init__(self, base: str, port: int, tls: Path | None) -> None:
        """Know the address; nothing listens before `start`."""
        self.issuer = DemoIssuer(base)
        self._address = Address(host="127.0.0.1", port=port)
        self._tls = tls
        self._server: HttpServer | None = None
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Listen, with the certificate that is in the folder now."""
        context = None
        if self._tls is not None:
            context = TlsFiles(self._tls / "server.crt", self._tls / "server.key", None).load(protocol="http/1.1").context
        server = self._server = HttpServer(self.issuer, tls=context)
        opened = open_port(self._address)

        async def serve() -> None:
            await server.run_on(opened)
            for connection in tuple(server.server_state.connections):
                connection.transport.abort()
            # What is aborted is closed in the next turn of the loop.
            await asyncio.sleep(0.01)  # why: closing an aborted connection has no event

        self._thread = threading.Thread(target=lambda: asyncio.run(serve()))
        self._thread.start()
        eventually(lambda: server.started)

    def stop(self) -> None:
        """Close the listener and every connection."""
        if self._server is not None and self._thread is not None:
            self._server.should_exit = self._server.force_exit = True
            self._thread.join(PATIENCE)
            self._server = None


@dataclass
class Installation:
    """Everything that runs, and what a fault may do to it."""

    folder: Path
    database: Database
    needs: Needs
    place: Place
    server: PostgresServer | None
    sidecar: Sidecar
    issuer: IssuerServer
    envoy_port: int
    ports: tuple[int, ...]
    starts: list[float] = field(default_factory=list)
    """Seconds that starts of the sidecar took without a fault."""
    streams: dict[str, Any] = field(default_factory=dict)
    """Where the next process writes, in place of two files."""
    prefix: tuple[str, ...] = ()
    pipes: list[Pipe] = field(default_factory=list)
    measured: float | None = None
    """What an injector has measured itself, in place of the recovery of requests."""
    back: Callable[[], object] | None = None
    """What must hold besides good answers before a fault is over."""
    wanted: int = STOCK
    """New tokens that there are before a fault."""
    quick: bool = False
    """Whether a cell of `make test-long` is run: less of everything."""
    _fresh: deque[tuple[str, str]] = field(default_factory=deque)
    _made: int = 0
    _known: dict[str, tuple[str, str]] = field(default_factory=dict)
    _envoy: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)

    # --- tokens

    def make_tokens(self, count: int) -> list[tuple[str, str]]:
        """Issue tokens, each for a user of its own; return user and text of each."""
        now = int(time.time())  # noqa: TID251 - the sidecar lives now
        made, records = [], []
        for _ in range(count):
            self._made += 1
            user = f"token-{self._made}@acme.com"
            order = TokenRequest("fault", AuthType.USER, _RULES.vocabulary, now - 60, "faults", now + 86_400, user=user)
            text, record = issue(order, _RULES, pepper_id="p1", pepper=PEPPER, entropy=os.urandom(ENTROPY_BYTES))
            made.append((user, text.text))
            records.append(record)
        with self.store() as store:
            store.add_many(records, {"p1": fingerprint(PEPPER)}, Change(now, "faults"))
        return made

    @contextlib.contextmanager
    def store(self) -> Iterator[SqlTokenStore]:
        """Open the store as an admin does."""
        with contextlib.closing(SqlTokenStore(self.place.where, audit=AuditKey.of("p1", PEPPER))) as opened:
            yield opened

    def revoke(self, text: str) -> None:
        """Revoke a token."""
        with self.store() as store:
            store.revoke([text.split("_")[1]], "fault", Change(int(time.time()), "faults"))  # noqa: TID251

    @property
    def fresh_tokens(self) -> int:
        """How many tokens there are that no sidecar has seen."""
        return len(self._fresh)

    def stock(self, count: int | None = None) -> None:
        """Have so many tokens that no sidecar has seen."""
        wanted = self.wanted if count is None else count
        if len(self._fresh) < wanted:
            self._fresh.extend(self.make_tokens(wanted))

    def sources(self) -> dict[Kind, Source]:
        """Return what makes requests of each kind."""
        if not self._known:
            ((user, text), (_, revoked)) = self.make_tokens(2)
            self.revoke(revoked)
            issuer = self.issuer.issuer
            self._known = {
                "token": (user, text),
                "revoked": ("", revoked),
                "oauth": ("known@acme.com", issuer.token("known@acme.com")),
                "forged": ("", issuer.forged(issuer.token("forged@acme.com"))),
                "nobody": ("", "no-token"),
            }

        def new_token() -> Request:
            user, text = self._fresh.popleft()
            return asked(bearer(text), user)

        def new_oauth() -> Request:
            self._made += 1
            user = f"oauth-{self._made}@acme.com"
            return asked(oauth(self.issuer.issuer.token(user)), user)

        user, text = self._known["token"]
        known_user, known_text = self._known["oauth"]
        return {
            Kind.KNOWN_TOKEN: lambda: asked(bearer(text), user),
            Kind.NEW_TOKEN: new_token,
            Kind.KNOWN_OAUTH: lambda: asked(oauth(known_text), known_user),
            Kind.NEW_OAUTH: new_oauth,
            Kind.PUBLIC: lambda: Request("GET /healthz", (), ""),
        }

    def refused(self) -> tuple[Source, ...]:
        """Return what makes requests that must never be allowed."""
        self.sources()
        revoked, forged = self._known["revoked"][1], self._known["forged"][1]
        return (
            lambda: asked(bearer(revoked), None),
            lambda: asked(oauth(forged), None),
            lambda: asked({}, None),
            lambda: Request("GET /admin", (), None),
        )

    def load(self, *kinds: Kind) -> Load:
        """Return a load of these kinds, of all if none is named."""
        sources = self.sources()
        return Load(self.envoy_port, {kind: sources[kind] for kind in kinds or Kind}, self.refused())

    # --- the sidecar

    def launch(self, *flags: str) -> subprocess.Popen[bytes]:
        """Start the process and wait for nothing."""
        self.sidecar.logs = [self.folder / "stdout.log", self.folder / "stderr.log"]
        with contextlib.ExitStack() as stack:
            files: list[IO[bytes]] = [stack.enter_context(path.open("ab")) for path in self.sidecar.logs]
            streams: dict[str, Any] = {"stdout": files[0], "stderr": files[1]}
            if self.needs.piped:
                self.pipes = [Pipe(path) for path in self.sidecar.logs]
                streams = dict(zip(("stdout", "stderr"), (pipe.writing for pipe in self.pipes), strict=True))
            streams |= self.streams
            call = [*self.prefix, *SERVE, str(self.sidecar.file), *flags]
            self.sidecar.process = subprocess.Popen(call, **streams)
        return self.sidecar.process

    def start(self) -> None:
        """Start it without a fault, and take the time that it needs until Envoy gets answers."""
        began = time.monotonic()
        process = self.launch()
        self.until_alive(process)
        self.until_answers()
        self.starts.append(time.monotonic() - began)

    def until_alive(self, process: subprocess.Popen[bytes]) -> None:
        """Wait until the process answers on its ops listener."""

        def alive() -> bool:
            assert process.poll() is None, f"ended with {process.returncode}: {self.said()[-3000:]}"
            time.sleep(0.01)  # why: the pace of looks at a process, which must not take all of a core
            return self.page("/healthz")[0] == 200

        eventually(alive, seconds=PATIENCE, what=self.said)

    def until_answers(self) -> None:
        """Wait until Envoy gets answers from it: every kind of request is right."""
        client = Client(self.envoy_port)
        sources = self.sources()

        def right() -> bool:
            time.sleep(0.01)  # why: the pace of looks at a process, which must not take all of a core
            return client.ask(sources[Kind.PUBLIC]()).good and all(client.ask(source()).good for source in sources.values())

        eventually(right, seconds=PATIENCE, what=self.said)
        client.close()
        eventually(lambda: self.healthy() == self.needs.workers, seconds=PATIENCE, what=self.said)
        if self.needs.workers > 1:
            time.sleep(MERGE_WINDOW)  # why: nothing tells when the threads of Envoy have heard who is healthy

    def healthy(self) -> int:
        """Return how many workers Envoy takes for healthy."""
        with socket.socket(socket.AF_UNIX) as console:
            console.connect(str(self.folder / "admin.sock"))
            console.sendall(b"GET /clusters HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
            shown = b"".join(iter(lambda: console.recv(65536), b"")).decode()
        return len(re.findall(r"^extauthz::.*::health_flags::healthy$", shown, re.MULTILINE))

    def stop(self) -> None:
        """End the process, whatever it is doing."""
        process = self.sidecar.process
        if process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGCONT)
        process.terminate()
        if self.sidecar.settings["server"]["drain"] != "0s":
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(0.2)
            # The second one ends the drain.
            process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        for pipe in self.pipes:
            pipe.close()
        self.pipes = []

    def restart(self) -> None:
        """Begin with a process that knows nothing."""
        self.stop()
        self.start()

    @property
    def pid(self) -> int:
        """The process that was started."""
        assert self.sidecar.process is not None
        return self.sidecar.process.pid

    def said(self) -> str:
        """Return the process log."""
        path = self.folder / "stderr.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def page(self, path: str) -> tuple[int, str]:
        """Get a page of the ops listener; status 0 without an answer."""
        try:
            return self.sidecar.page(path)
        except OSError:
            return 0, ""

    def metric(self, series: str) -> float:
        """Return a figure of /metrics, summed over the labels that are not named; 0 when it is not there."""
        name, _, labels = series.partition("{")
        wanted = set(filter(None, labels.rstrip("}").split(",")))
        total = 0.0
        for found in re.finditer(rf"^{re.escape(name)}(?:\{{(.*)\}})? (\S+)$", self.page("/metrics")[1], re.MULTILINE):
            if wanted <= set((found[1] or "").split(",")):
                total += float(found[2])
        return total

    def readyz(self) -> dict[str, bool]:
        """Return parts and details of /readyz, and under "ready" what it says in all."""
        text = self.page("/readyz")[1]
        if not text:
            return {}
        document = json.loads(text)
        conditions = {one["key"]: one["met"] for one in document["details"]}
        return {**document["parts"], **conditions, "ready": document["ready"]}

    # --- Envoy

    def start_envoy(self) -> None:
        """Run Envoy as `extauthz envoy-config` configures it."""
        admin = self.folder / "admin.sock"
        flags = ("--listener", f"127.0.0.1:{self.envoy_port}", "--upstream", f"127.0.0.1:{self.ports[0]}")
        made = self.sidecar.command("envoy-config", *flags, "--admin", f"unix://{admin}")
        assert made.exit_code == 0, made.output
        self._envoy = contextlib.ExitStack()
        self._envoy.enter_context(running_envoy(self.folder, made.stdout, admin))

    def stop_envoy(self) -> None:
        """End Envoy."""
        self._envoy.close()


class Pipe:
    """A pipe whose end is read into a file until `stall`, and again from `go_on` on."""

    def __init__(self, path: Path) -> None:
        """Begin to read."""
        self.reading, self.writing = os.pipe()
        self._path = path
        self._flowing = threading.Event()
        self._flowing.set()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def stall(self) -> None:
        """Read no more, and leave no room."""
        self._flowing.clear()
        # A second descriptor of the same pipe: what the sidecar has is left as it is.
        descriptor = os.open(f"/proc/self/fd/{self.writing}", os.O_WRONLY | os.O_NONBLOCK)
        with contextlib.suppress(BlockingIOError):
            while True:
                os.write(descriptor, b"\n")
        os.close(descriptor)

    def go_on(self) -> None:
        """Read again."""
        self._flowing.set()

    def close(self) -> None:
        """Let go of both ends."""
        os.close(self.writing)
        self._flowing.set()
        self._thread.join(10)
        os.close(self.reading)

    def _read(self) -> None:
        with self._path.open("ab", buffering=0) as file:
            while True:
                self._flowing.wait()
                data = os.read(self.reading, 65536)
                if not data:
                    return
                file.write(data)


def asked(headers: Mapping[str, str | bytes], user: str | None) -> Request:
    """Return a request for a chat."""
    return Request(CHAT, tuple((name, str(value)) for name, value in headers.items()), user)


def settings_of(folder: Path, needs: Needs, base: str, where: str, ports: tuple[int, ...]) -> dict[str, Any]:
    """Return the configuration: defaults, but for a check that may wait as long as a busy machine needs."""
    listen = f"unix://{folder}/check.sock" if needs.unix else f"127.0.0.1:{ports[2]}"
    oauth_section: dict[str, Any] = {
        "provider": "okta",
        "issuer": f"{base}/oauth2/default",
        "client_ids": [CLIENT_ID],
        "audience": AUDIENCE,
    }
    if needs.issuer_tls:
        oauth_section["ca_file"] = "ca.crt"
    settings: dict[str, Any] = {
        "version": 1,
        "server": {
            "listen": listen,
            "ops": f"127.0.0.1:{ports[1]}",
            "check_timeout": "900ms",
            "workers": needs.workers,
            "drain": "0s",
        },
        "oauth": oauth_section,
        "tokens": {"store": where, "peppers": [{"id": "p1", "file": "pepper"}]},
        "act_as": {"allow": ["*@acme.com"]},
        "scopes": ["CHAT"],
        "routes": ["routes.yaml"],
    }
    for name, value in needs.settings:
        section, _, key = name.partition(".")
        settings.setdefault(section, {})[key] = yaml.safe_load(value)
    return settings


@contextlib.contextmanager
def installation(
    database: Database, needs: Needs, server: Callable[[], PostgresServer], *, stock: int = STOCK
) -> Iterator[Installation]:
    """Run all of it inside the block; nothing is left behind."""
    with contextlib.ExitStack() as stack:
        # The paths of unix sockets are short.
        folder = Path(tempfile.mkdtemp(prefix="faults-"))
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        ports = (free_port(), free_port(), successive_ports(needs.workers)[0], free_port())
        scheme = "https" if needs.issuer_tls else "http"
        base = f"{scheme}://localhost:{ports[3]}" if needs.issuer_tls else f"{scheme}://127.0.0.1:{ports[3]}"
        if needs.issuer_tls:
            write_certificates(folder)
        place, where = _place(database, needs, folder, server, stack)
        settings = settings_of(folder, needs, base, where, ports)
        sidecar = Sidecar(folder, settings)
        it = Installation(
            folder,
            database,
            needs,
            place,
            server() if database == "postgresql" else None,
            sidecar,
            IssuerServer(base, ports[3], folder if needs.issuer_tls else None),
            free_port(),
            ports,
            wanted=stock,
        )
        (folder / "pepper").write_bytes(PEPPER)
        (folder / "pepper").chmod(0o600)
        write(it)
        it.stock()
        it.issuer.start()
        stack.callback(it.issuer.stop)
        stack.enter_context(running_upstream(ports[0]))
        it.start_envoy()
        stack.callback(it.stop_envoy)
        stack.callback(it.stop)
        it.start()
        yield it


def write(it: Installation, routes: str = "") -> None:
    """Write the configuration, and further lines of routes."""
    it.sidecar.file.write_text(yaml.safe_dump(it.sidecar.settings))
    new = it.folder / "routes.new"
    new.write_text(f'routes:\n  - {{match: "{CHAT}", scope: CHAT}}\n  - {{match: "GET /healthz", public: true}}\n{routes}')
    new.replace(it.folder / "routes.yaml")


def _place(
    database: Database, needs: Needs, folder: Path, server: Callable[[], PostgresServer], stack: contextlib.ExitStack
) -> tuple[Place, str]:
    """Make an empty store; return it, and its address."""
    if database == "postgresql":
        name = server().make()
        stack.callback(server().drop, name)
        return Place(database, server().url(name)), server().url(name)
    store = folder / "store"
    store.mkdir(mode=0o700)
    if needs.tmpfs and os.geteuid() == 0:
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m,mode=0700", "tmpfs", str(store)], check=True)
        stack.callback(subprocess.run, ["umount", "--lazy", str(store)], check=True)
    with contextlib.closing(SqlTokenStore(store / "tokens.db", create=True, audit=AuditKey.of("p1", PEPPER))) as opened:
        opened.migrate()
    return Place(database, store / "tokens.db"), f"sqlite:///{store / 'tokens.db'}"
