"""PostgreSQL over TCP with TLS: who is believed, and what somebody on the way gets."""

from __future__ import annotations

import contextlib
import socket
import ssl
import struct
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from cryptography import x509

from extauthz.adapters.store.contact import FeedLost
from extauthz.adapters.store.link import DatabaseLink
from extauthz.adapters.store.sql import SqlTokenStore
from extauthz.errors import StoreError
from tests.support.command_line import SETTINGS, configured, created, run, told
from tests.support.tcp_postgres import TcpPostgres
from tests.support.transports import Authority

pytestmark = pytest.mark.pool

PASSWORD = "pässwörd"
VERIFIED = {"sslmode": "verify-full", "require_auth": "scram-sha-256"}


@pytest.fixture(scope="module")
def server() -> Iterator[TcpPostgres]:
    """A server with TLS and a certificate of an authority for localhost; `app` proves its password by SCRAM."""
    started = TcpPostgres()
    try:
        authority = Authority(started.folder, "ca")
        for name, names in (("server", ()), ("other", (x509.DNSName("db.acme.com"),))):
            authority.issue(name, *names)
        Authority(started.folder, "stranger").issue("self-signed")
        with started.connect() as connection:
            connection.execute(f"CREATE ROLE app LOGIN SUPERUSER PASSWORD '{PASSWORD}'".encode())
            connection.execute("CREATE ROLE careless LOGIN SUPERUSER PASSWORD 'x'")
            connection.execute("ALTER SYSTEM SET ssl = on")
        started.let_in("hostssl all careless all password", "hostssl all all all scram-sha-256")
        use(started, "server")
        yield started
    finally:
        started.stop()


def use(server: TcpPostgres, name: str) -> None:
    """Let the server show another certificate, from the next connection on."""
    for suffix, target in (("pem", "server.crt"), ("key", "server.key")):
        (server.data / target).write_bytes((server.folder / f"{name}.{suffix}").read_bytes())
        (server.data / target).chmod(0o600)
    server.start()


def address(server: TcpPostgres, host: str = "localhost", user: str = "app", **options: str) -> str:
    """Return the address of the server."""
    more = {"sslrootcert": str(server.folder / "ca.pem"), **VERIFIED, **options}
    return f"postgresql://{user}@{host}:{server.port}/postgres?" + "&".join(f"{name}={value}" for name, value in more.items())


async def outcomes(place: str, password: str = PASSWORD) -> tuple[str, str]:
    """Return what a command and a sidecar say when they connect; "" when they do."""
    said = []
    link = DatabaseLink(place, password, prepare=False)
    try:
        await link.connect()
        assert await link.ask("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()", seconds=5.0) == [(True,)]
        said.append("")
    except FeedLost as error:
        said.append(str(error))
    finally:
        await link.close()
    with closing(SqlTokenStore(place, password=password)) as store:
        try:
            store.revision()
            said.append("")
        except StoreError as error:
            said.append(str(error))
    return said[1], said[0]


def test_all_commands_work_over_a_verified_connection(server: TcpPostgres, tmp_path: Path) -> None:
    place = {"store": address(server), "store_password": {"file": "password"}}
    folder = configured(tmp_path, tokens=SETTINGS["tokens"] | place)
    (folder / "password").write_text(PASSWORD)
    told(folder, "store", "migrate")
    made = created(folder)
    result = run(folder, "token", "list", "--json")
    assert (result.exit_code, result.stderr, made["id"] in result.stdout) == (0, "", True)


async def test_who_is_not_known_is_not_believed(server: TcpPostgres) -> None:
    assert await outcomes(address(server)) == ("", "")
    both = [True, True]
    assert ["root certificate file" in said for said in await outcomes(address(server, sslrootcert="/nonexistent"))] == both
    assert ["scram" in said.lower() for said in await outcomes(address(server, user="careless"), "x")] == both
    assert ["password authentication failed" in said for said in await outcomes(address(server), "wrong")] == both
    for certificate, complaint in (("self-signed", "certificate verify failed"), ("other", "does not match host name")):
        use(server, certificate)
        assert all(complaint in said for said in await outcomes(address(server)))
    use(server, "self-signed")
    # The weak address of before: whoever shows a certificate is the server.
    assert await outcomes(address(server, sslmode="require", sslrootcert="/nonexistent")) == ("", "")
    use(server, "server")


class Thief:
    """Stands in the server's place with a certificate of its own, and asks for the password as it is."""

    def __init__(self, folder: Path) -> None:
        """Listen on loopback; `got` is what was sent."""
        chain, key = Authority(folder, "nobody").issue("thief")
        self._context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self._context.load_cert_chain(chain, key)
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = self._listening.getsockname()[1]
        self.got: list[bytes] = []
        self._thread = threading.Thread(target=self._answer)
        self._thread.start()

    def _answer(self) -> None:
        """Answer whoever comes, until the socket is closed."""
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listening.accept()
                with contextlib.suppress(OSError), connection:
                    connection.settimeout(10)
                    self._rob(connection)

    def finish(self) -> None:
        """Stop; everybody has been answered then."""
        with contextlib.suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        self._thread.join(timeout=20)
        assert not self._thread.is_alive()
        self._listening.close()

    def _rob(self, connection: socket.socket) -> None:
        assert connection.recv(8) == struct.pack("!ii", 8, 80877103), "TLS is asked for first"
        connection.sendall(b"S")
        with self._context.wrap_socket(connection, server_side=True) as secured:
            self.got.append(secured.recv(4096))
            secured.sendall(b"R" + struct.pack("!ii", 8, 3))
            self.got.append(secured.recv(4096))


@pytest.fixture
def thief(tmp_path: Path) -> Iterator[Thief]:
    """A running one."""
    made = Thief(tmp_path)
    yield made
    made.finish()


@pytest.mark.parametrize(
    ("options", "stolen"),
    [
        ("sslmode=require", True),
        ("sslmode=require&require_auth=scram-sha-256", False),
        ("sslmode=verify-full&sslrootcert={folder}/own-ca.pem", False),
        ("sslmode=verify-full&sslrootcert={folder}/own-ca.pem&require_auth=scram-sha-256", False),
    ],
)
def test_a_password_is_sent_to_nobody_but_the_server(thief: Thief, tmp_path: Path, options: str, *, stolen: bool) -> None:
    Authority(tmp_path, "own-ca")
    place = f"postgresql://app@localhost:{thief.port}/postgres?hostaddr=127.0.0.1&{options.format(folder=tmp_path)}"
    with closing(SqlTokenStore(place, password=PASSWORD)) as store, pytest.raises(StoreError, match="cannot be used"):
        store.list_tokens()
    thief.finish()
    assert any(PASSWORD.encode() in got for got in thief.got) is stolen
    if "verify-full" in options:
        assert thief.got == [], "not even the user's name"
