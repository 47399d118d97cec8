"""Both transports, served in a thread with the loop that each is made for, so that clients may block."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal, TypeVar

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from extauthz.addresses import Address
from extauthz.config.settings import GrpcSection
from extauthz.transport.limits import Limits
from extauthz.transport.select import choose
from extauthz.transport.sockets import TracedHandler
from extauthz.transport.tls import Certificates, TlsFiles
from tests.support.h2_client import Client, Target
from tests.support.waiting import eventually

Name = Literal["grpcio", "nghttp2"]
NAMES: tuple[Name, ...] = ("grpcio", "nghttp2")
only_nghttp2 = pytest.mark.parametrize("transport", ["nghttp2"], indirect=True)
FALLBACK = b"\x0a\x02\x08\x0dthe fallback"
T = TypeVar("T")


def echo(message: bytes) -> bytes:
    """Answer at once."""
    return b"!" + message


class Held:
    """A handler whose answers wait for a test."""

    def __init__(self) -> None:
        self.begun = 0
        self.cancelled = 0
        self.go = asyncio.Event()

    def __call__(self, message: bytes) -> Coroutine[Any, Any, bytes]:
        return self._answer(message)

    async def _answer(self, message: bytes) -> bytes:
        self.begun += 1
        try:
            await self.go.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        return b"!" + message


class Loop:
    """An event loop in a thread; what it complains about fails the test in the end."""

    def __init__(self, name: Name) -> None:
        self.transport = choose(name)
        self.loop = self.transport.new_event_loop()
        self.complaints: list[str] = []
        self.loop.set_exception_handler(self._complains)
        self._thread = threading.Thread(target=self._run, name="the server's loop", daemon=True)
        self._thread.start()

    def run(self, coroutine: Coroutine[Any, Any, T], *, seconds: float = 30.0) -> T:
        """Run a coroutine in the loop, and wait for it."""
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(seconds)

    def soon(self, function: Callable[[], object]) -> None:
        """Call a function in the loop, without waiting."""
        self.loop.call_soon_threadsafe(function)

    def turn(self) -> None:
        """Let the loop read what has come: what was sent before and what is sent after do not come together."""
        self.run(asyncio.sleep(0))

    @contextmanager
    def standing_still(self) -> Iterator[None]:
        """Keep the loop from turning inside the block, so that all of what happens there comes within one turn."""
        stands, goes_on = threading.Event(), threading.Event()

        def stand() -> None:
            stands.set()
            goes_on.wait(30)

        self.soon(stand)
        assert stands.wait(30)
        try:
            yield
        finally:
            goes_on.set()

    @property
    def tasks(self) -> int:
        """How many tasks there are."""
        return len(asyncio.all_tasks(self.loop))

    def close(self) -> None:
        """End the loop and the thread."""
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(30)
        assert not self._thread.is_alive(), "the loop hangs"
        self.loop.close()

    def _complains(self, _: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        # grpc.aio wakes the loops of earlier servers too, and finds them closed.
        if "PollerCompletionQueue" not in str(context):
            self.complaints.append(str(context))

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        self.loop.run_forever()


def default_limits(**changes: Any) -> Limits:
    """Return the limits that a configuration without the section `grpc` has, with these changes."""
    return Limits(**(GrpcSection().model_dump() | changes))


class Served:
    """One server that listens on a free port of 127.0.0.1, or on a unix socket."""

    def __init__(
        self,
        loop: Loop,
        handler: Callable[[bytes], Any],
        *,
        limits: Limits | None = None,
        certificates: Certificates | None = None,
        address: Address | None = None,
        traced: TracedHandler | None = None,
    ) -> None:
        self.loop = loop
        self.handler: Any = handler
        self.limits = limits or default_limits()
        self.server: Any = None
        self._traced = traced
        self._stopped = False
        where = address or Address(host="127.0.0.1", port=0)
        port = loop.run(self._start(handler, self.limits, certificates, where))
        self.target: Target = where.path or port
        self._tasks = loop.tasks

    async def _start(
        self, handler: Callable[[bytes], Any], limits: Limits, certificates: Certificates | None, where: Address
    ) -> int:
        # grpc.aio's server belongs to the loop in which it is made.
        self.server = self.loop.transport.server(handler, FALLBACK, limits=limits, certificates=certificates, traced=self._traced)
        return int(await self.server.start(where))

    @property
    def address(self) -> str:
        """The target as grpcio writes it."""
        return f"127.0.0.1:{self.target}" if isinstance(self.target, int) else f"unix:{self.target}"

    @property
    def connections(self) -> int:
        """How many connections are open; grpcio does not tell."""
        return int(getattr(self.server, "connections", 0))

    @property
    def streams(self) -> int:
        """How many calls are under way; grpcio does not tell."""
        return int(getattr(self.server, "streams", 0))

    def told(self, streams: int, connections: int) -> tuple[int, int]:
        """Return what `streams` and `connections` say when there are so many: grpcio does not tell."""
        return (streams, connections) if self.loop.transport.name == "nghttp2" else (0, 0)

    def set_serving(self, serving: bool) -> None:
        """Change what health checks say."""
        self.loop.run(self.server.set_serving(serving=serving))

    def stop(self, grace: float = 0.0, *, seconds: float = 30.0) -> None:
        """Stop, once."""
        if not self._stopped:
            self._stopped = True
            self.loop.run(self.server.stop(grace), seconds=seconds)

    def stopping(self, grace: float) -> Any:
        """Begin to stop, and return the future of its end."""
        self._stopped = True
        return asyncio.run_coroutine_threadsafe(self.server.stop(grace), self.loop.loop)

    def rests(self) -> None:
        """Nothing is left of any connection, call or task."""

        def state() -> tuple[int, int, int]:
            return self.connections, self.streams, max(0, self.loop.tasks - self._tasks)

        if state() != (0, 0, 0):
            # A client that is garbage is still connected.
            gc.collect()
        eventually(lambda: state() == (0, 0, 0), what=lambda: f"left: {state()} connections, streams, tasks")

    def serves(self) -> None:
        """A client that keeps all the rules is answered, and nothing is left of it either."""
        with Client(self.target) as client:
            assert client.ask(b"are you well?") == b"!are you well?"
        self.rests()


class Authority:
    """A certificate authority of our own, which writes PEM files to a folder."""

    def __init__(self, folder: Path, name: str = "the authority") -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self._folder = folder
        own = self._sign(self._name, self._key, x509.BasicConstraints(ca=True, path_length=None))
        self.file = folder / f"{name}.pem"
        self.file.write_bytes(own)

    def issue(self, name: str, *names: x509.GeneralName) -> tuple[Path, Path]:
        """Write a certificate with these alternative names, else for localhost and 127.0.0.1, and its key."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        chain, private = self._folder / f"{name}.pem", self._folder / f"{name}.key"
        chain.write_bytes(self._sign(subject, key, x509.BasicConstraints(ca=False, path_length=None), *names))
        private.write_bytes(
            key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        )
        return chain, private

    def server(
        self, name: str = "server", *, clients_of: Authority | None = None, allowed_names: frozenset[str] | None = None
    ) -> Certificates:
        """Return what a server needs; it lets in only clients of an authority, and with certain names, if these are named."""
        chain, key = self.issue(name)
        return TlsFiles(chain, key, clients_of.file if clients_of else None, allowed_names).load()

    def _sign(
        self, subject: x509.Name, key: ec.EllipticCurvePrivateKey, constraints: x509.BasicConstraints, *own: x509.GeneralName
    ) -> bytes:
        now = datetime.now(UTC)
        names = x509.SubjectAlternativeName(own or [x509.DNSName("localhost"), x509.DNSName("127.0.0.1")])
        built = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(minutes=1))
            .not_valid_after(now + timedelta(hours=1))
            .add_extension(constraints, critical=True)
            .add_extension(names, critical=False)
        )
        return built.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
