"""One reading of a store's address: the configuration, the sidecar and the commands take and refuse the same ones."""

from __future__ import annotations

import re
import socket
import traceback
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from extauthz.adapters.store.connecting import parameters, read_address
from extauthz.adapters.store.link import DatabaseLink
from extauthz.adapters.store.sql import SqlTokenStore
from extauthz.config import database_address
from extauthz.config.loader import load
from extauthz.errors import ConfigurationError, StoreError
from tests.support.command_line import SETTINGS, configured, run, told
from tests.support.postgresql import PostgresServer
from tests.support.project import ROOT

pytest_plugins = ["tests.support.postgresql"]

SECRET = "s3cret"

# Address → how people are told it.
GOOD = {
    "postgresql://ana@db/tokens": "postgresql://ana@db/tokens",
    "postgres://ana@db.acme.com:6432/tokens": "postgresql://ana@db.acme.com:6432/tokens",
    "postgresql://h1:5432,h2:5432/db": "postgresql://h1:5432,h2:5432/db",
    "postgresql://ana@h1,h2:5433/db": "postgresql://ana@h1,h2:5433/db",
    "postgresql://h1,h2/db?port=6432": "postgresql://h1:6432,h2:6432/db",
    "postgresql://h1:1,h2:2/db?target_session_attrs=primary&load_balance_hosts=random": "postgresql://h1:1,h2:2/db",
    "postgresql://[::1]:5432/db": "postgresql://[::1]:5432/db",
    "postgresql://[2001:db8::1],[2001:db8::2]:7/db": "postgresql://[2001:db8::1],[2001:db8::2]:7/db",
    "postgresql://db/tokens?hostaddr=192.0.2.1": "postgresql://db/tokens",
    "postgresql:///db?host=/run/postgresql": "postgresql:///db?host=/run/postgresql",
    "postgresql://ana@%2Frun%2Fpostgresql/db": "postgresql://ana@/db?host=/run/postgresql",
    "postgresql://ana%40acme.com@db/tokens": "postgresql://ana%40acme.com@db/tokens",
    "postgresql://b%C3%A9a@db/tokens": "postgresql://b%C3%A9a@db/tokens",
    "postgresql://béa@db/tokéns": "postgresql://b%C3%A9a@db/tok%C3%A9ns",
    "postgresql://ana:@db/tokens": "postgresql://ana@db/tokens",
    "postgresql://ana@db/a%2Fb%20c": "postgresql://ana@db/a%2Fb%20c",
    "postgresql://db/tokens?options=-c%20search_path%3Dextauthz": "postgresql://db/tokens",
    "postgresql://db/?dbname=tokens&user=ana": "postgresql://ana@db/tokens",
    "postgresql://db/tokens?sslmode=verify-full&sslrootcert=/etc/ca.pem&require_auth=scram-sha-256": "postgresql://db/tokens",
    "postgresql://db/tokens?sslrootcert=system": "postgresql://db/tokens",
    "postgresql://db/tokens?connect_timeout=9": "postgresql://db/tokens",
}
# Address → what the refusal says.
BAD = {
    "postgresql:db/tokens": "no postgresql:// URL",
    "postgresql://db": "names no database",
    "postgresql://db/": "names no database",
    "postgresql://db:port/tokens": "for port",
    "postgresql://db:99999/tokens": "for port",
    "postgresql://h1,h2:0/tokens": "for port",
    "postgresql://h1,h2,h3/tokens?port=1,2": "for port",
    f"postgresql://ana:{SECRET}/tokens": "for port",
    "postgresql://[::1/tokens": "no postgresql:// URL",
    "postgresql://db/a b": "no postgresql:// URL",
    "postgresql://db/%zz": "no postgresql:// URL",
    "postgresql://db/%FF": "no postgresql:// URL",
    f"postgresql://db/tokens?{SECRET}=1": "no postgresql:// URL",
    "postgresql://db/tokens%0Ax": "control character",
    "postgresql://db/tokens?sslmode=bogus": "for sslmode",
    "postgresql://db/tokens?sslmode=require&sslrootcert=system": "for sslmode",
    "postgresql://db/tokens?target_session_attrs=bogus": "for target_session_attrs",
    "postgresql://db/tokens?require_auth=bogus": "for require_auth",
    "postgresql://db/tokens?hostaddr=db.acme.com": "hostaddr: write IP addresses",
    "postgresql://h1,h2/tokens?hostaddr=192.0.2.1": "hostaddr: there are not as many",
    "postgresql://db/tokens?service=main": "service: ",
    f"postgresql://ana:{SECRET}@db/tokens": "holds a password (password)",
    f"postgresql://ana:{SECRET}@h1:1,h2:2/tokens": "holds a password (password)",
    f"postgresql://ana:p%40{SECRET}@db/tokens": "holds a password (password)",
    f"postgresql://db/tokens?password={SECRET}": "holds a password (password)",
    f"postgresql://db/tokens?pass%77ord={SECRET}": "holds a password (password)",
    f"postgresql://db/tokens?sslpassword={SECRET}": "holds a password (sslpassword)",
    f"postgresql://db/tokens?scram_client_key={SECRET}": "holds a password (scram_client_key)",
    f"postgresql://db/tokens?oauth_client_secret={SECRET}": "holds a password (oauth_client_secret)",
}


def readings(folder: Path, address: str) -> dict[str, str | None]:
    """Return what each reader says against an address; None where it takes it. Nobody connects."""
    configured(folder, tokens=SETTINGS["tokens"] | {"store": address})
    attempts: dict[str, Callable[[], object]] = {
        "config check": lambda: load(folder / "extauthz.yaml"),
        "serve": lambda: DatabaseLink(address, None, prepare=True),
        "commands": lambda: SqlTokenStore(address).close(),
    }
    said: dict[str, str | None] = {}
    for who, attempt in attempts.items():
        try:
            attempt()
            said[who] = None
        except (ConfigurationError, StoreError) as error:
            said[who] = str(error)
            if SECRET in "".join(traceback.format_exception(error)).replace(repr(address), ""):
                pytest.fail(f"{who} told the password")
    return said


@pytest.mark.parametrize("address", GOOD)
def test_a_good_address_is_taken_by_all_and_told_without_its_options(tmp_path: Path, address: str) -> None:
    assert readings(tmp_path, address) == dict.fromkeys(("config check", "serve", "commands"))
    assert database_address.read(address).name == GOOD[address]
    with closing(SqlTokenStore(address)) as store:
        assert (store.name, store._database.address) == (GOOD[address], address)


@pytest.mark.parametrize("address", BAD)
def test_a_bad_address_is_refused_by_all_with_its_parameter_and_without_its_password(tmp_path: Path, address: str) -> None:
    said = readings(tmp_path, address)
    assert [who for who, text in said.items() if text is None or BAD[address] not in text] == [], said
    assert str(said["config check"]).startswith(f"{tmp_path}/extauthz.yaml:")
    assert ": tokens.store: " in str(said["config check"])


def test_nobody_is_asked_who_an_address_names(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        monkeypatch.setenv("PGHOSTADDR", "127.0.0.1")
        monkeypatch.setenv("PGPORT", str(port))
        for address in (
            f"postgresql://127.0.0.1:{port}/db",
            f"postgresql:///db?hostaddr=127.0.0.1&port={port}",
            "postgresql:///db",
        ):
            database_address.read(address)
        listening.setblocking(False)
        with pytest.raises(BlockingIOError):
            listening.accept()


def test_every_command_reaches_the_second_host(tmp_path: Path, postgresql: PostgresServer) -> None:
    name = postgresql.make()
    try:
        address = f"postgresql://postgres@/{name}?host={tmp_path},{postgresql.socket_folder}&port=5432,5432"
        configured(tmp_path, tokens=SETTINGS["tokens"] | {"store": address})
        assert told(tmp_path, "token", "list") == {"tokens": [], "after": None}
        assert run(
            tmp_path, "token", "create", "--permission", "GLOBAL", "--scope", "CHAT", "--description", "d", "--expires", "1d"
        )
        assert len(told(tmp_path, "token", "list")["tokens"]) == 1
        assert told(tmp_path, "store", "status")["store"].endswith(f"/{name}?host={tmp_path},{postgresql.socket_folder}")
    finally:
        postgresql.drop(name)


# --- the password


@pytest.mark.parametrize("password", ["pässwörd", "пароль 密码", 'a\'b\\c "d"', "100%/:@?#", "ascii"])
def test_a_password_in_any_language_opens_the_store(tmp_path: Path, postgresql: PostgresServer, password: str) -> None:
    name = postgresql.make()
    role = f"role_{name}"
    with postgresql.login(name, role, password):
        place = {"store": postgresql.url(name, user=role), "store_password": {"file": "password"}}
        configured(tmp_path, tokens=SETTINGS["tokens"] | place)
        (tmp_path / "password").write_bytes(f"{password}\n".encode())
        assert told(tmp_path, "token", "list")["tokens"] == []
        (tmp_path / "password").write_text("another")
        refused = run(tmp_path, "token", "list")
        assert (refused.exit_code, "password authentication failed" in refused.stderr) == (1, True)
        assert password not in refused.output
    postgresql.drop(name)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "no password: put one line of text there"),
        (b" \n", "no password: put one line of text there"),
        (b"hunter2\nhunter2", "no password: put one line of text there"),
        (b"hunter2\x00", "no password: put one line of text there"),
        (b"hunter2\xff", "no text in UTF-8"),
    ],
)
def test_what_is_no_password_is_told_with_its_key_and_not_repeated(tmp_path: Path, content: bytes, said: str) -> None:
    place = {"store": "postgresql://ana@db/tokens", "store_password": {"file": "password"}}
    configured(tmp_path, tokens=SETTINGS["tokens"] | place)
    (tmp_path / "password").write_bytes(content)
    result = run(tmp_path, "token", "list")
    assert (result.exit_code, said in result.stderr, "tokens.store_password" in result.stderr) == (3, True, True)
    assert "hunter2" not in result.output


# --- what somebody on the way gets

VERIFIED = "sslmode=verify-full&sslrootcert=/etc/ca.pem&require_auth=scram-sha-256"
SSLMODE, REQUIRE_AUTH = "sslmode", "require_auth"


@pytest.mark.parametrize(
    ("rest", "environment", "risks"),
    [
        (f"db/t?{VERIFIED}", {}, []),
        ("db/t?sslrootcert=system&require_auth=scram-sha-256", {}, []),
        ("db/t", {}, [SSLMODE, REQUIRE_AUTH]),
        ("db/t?sslmode=disable", {}, [SSLMODE, REQUIRE_AUTH]),
        ("db/t?sslmode=require&require_auth=scram-sha-256", {}, [SSLMODE]),
        ("db/t?sslmode=verify-ca&require_auth=scram-sha-256", {}, [SSLMODE]),
        ("db/t?sslmode=verify-full", {}, [REQUIRE_AUTH]),
        ("db/t?sslmode=verify-full&require_auth=scram-sha-256,md5", {}, [REQUIRE_AUTH]),
        ("db/t?sslmode=verify-full&require_auth=!password,!md5", {}, [REQUIRE_AUTH]),
        ("db/t?sslmode=verify-full&require_auth=password", {}, [REQUIRE_AUTH]),
        ("db/t?sslmode=verify-full&require_auth=none", {}, [REQUIRE_AUTH]),
        ("db/t?sslmode=verify-full&require_auth=none&sslcert=/c&sslkey=/k&sslcertmode=require", {}, []),
        ("db/t?sslmode=verify-full&require_auth=gss", {}, []),
        ("db/t", {"PGSSLMODE": "verify-full", "PGREQUIREAUTH": "scram-sha-256"}, []),
        ("db/t?require_auth=scram-sha-256", {"PGSSLROOTCERT": "system"}, []),
        ("db/t?sslmode=require&require_auth=scram-sha-256", {"PGSSLMODE": "verify-full"}, [SSLMODE]),
        # Not on the way out of this machine.
        ("/t?host=/run/postgresql", {}, []),
        ("/t", {}, []),
        ("localhost/t", {}, []),
        ("127.0.0.1:5433,[::1]:5433/t", {}, []),
        ("127.8.9.1/t?sslmode=disable", {}, []),
        # But these are.
        ("/t", {"PGHOST": "db"}, [SSLMODE, REQUIRE_AUTH]),
        ("/t?host=/run/postgresql", {"PGHOSTADDR": "192.0.2.1"}, [SSLMODE, REQUIRE_AUTH]),
        ("localhost,db/t", {}, [SSLMODE, REQUIRE_AUTH]),
        ("localhost/t?hostaddr=192.0.2.1", {}, [SSLMODE, REQUIRE_AUTH]),
        ("localhost.acme.com/t", {}, [SSLMODE, REQUIRE_AUTH]),
        ("10.0.0.1/t", {}, [SSLMODE, REQUIRE_AUTH]),
    ],
)
def test_a_weak_way_to_the_database_is_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rest: str, environment: dict[str, str], risks: list[str]
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    configured(tmp_path, tokens=SETTINGS["tokens"] | {"store": f"postgresql://{rest}"})
    warnings = [warning for warning in load(tmp_path / "extauthz.yaml").warnings if warning.path == "tokens.store"]
    assert [warning.message.split("=")[0] for warning in warnings] == risks
    assert all(warning.line for warning in warnings)


def test_who_starts_on_a_weak_way_is_warned_everywhere(tmp_path: Path) -> None:
    """By `config check`, whose warnings `serve` logs, by each command on standard error, and as a finding of doctor."""
    configured(tmp_path, tokens=SETTINGS["tokens"] | {"store": "postgresql://ana@db.invalid/t?sslmode=require"})
    weak = "tokens.store: sslmode=require, which believes whoever answers"
    assert weak in run(tmp_path, "config", "check").stdout
    command = run(tmp_path, "token", "list")
    assert (command.exit_code, command.stdout, command.stderr.count("warning: ")) == (1, "", 2)
    assert weak in command.stderr
    doctor = run(tmp_path, "doctor", "--offline")
    assert re.search(f"warning +configuration +.*{re.escape(weak)}", doctor.stdout)


def shipped() -> list[tuple[str, str]]:
    """Return every address of a database in the files that somebody takes over, each with its file."""
    root = ROOT
    files = [
        root / "docker-compose.yml",
        root / "docs" / "tokens.md",
        *(root / "config").rglob("*.yaml"),
        *(root / "deploy").rglob("*"),
    ]
    return [
        (str(file.relative_to(root)), address)
        for file in files
        if file.is_file()
        for address in re.findall(r"postgres(?:ql)?://[^\s\"'`]+", file.read_text(errors="replace"))
    ]


CLOUD_SQL = "deploy/helm/extauthz/ci/cloud-sql-values.yaml"
"""The one where the database is on this machine: its proxy runs in the same pod, and speaks TLS."""
AUTHORITIES = {"secrets-store-values.yaml": "/run/secrets/extauthz", "vault-values.yaml": "/vault/secrets"}
"""Where recipes of the chart have the files of secrets, which others have in /etc/extauthz/secrets."""


def test_every_shipped_address_is_a_safe_one() -> None:
    found = shipped()
    assert {file.split("/")[1] for file, _ in found} >= {"compose", "kubernetes", "helm", "tokens.md", "extauthz.yaml"}
    assert len(found) >= 10
    for file, address in found:
        if not address.startswith("postgresql://^"):
            read = database_address.read(address)
            assert (file, read.risks, read.is_local) == (file, (), file == CLOUD_SQL)


def test_the_authority_of_the_database_is_mounted_where_the_addresses_look_for_it() -> None:
    root = ROOT / "deploy"
    places = {
        "kubernetes/overlays/sidecar": "native-sidecar.yaml",
        "kubernetes/overlays/standalone": "deployment.yaml",
        "kubernetes/migrate": "job.yaml",
        "kubernetes/console": "deployment.yaml",
    }
    for folder, manifest in places.items():
        assert "{key: store-ca.crt, path: secrets/store-ca.crt}" in (root / folder / manifest).read_text()
    assert "secretFiles: [pepper, store-password, store-ca.crt]" in (root / "helm" / "extauthz" / "values.yaml").read_text()
    for file, address in shipped():
        if ("kubernetes" in file or "helm" in file) and file != CLOUD_SQL:
            folder = AUTHORITIES.get(Path(file).name, "/etc/extauthz/secrets")
            assert database_address.read(address).parameters["sslrootcert"] == f"{folder}/store-ca.crt"


@pytest.mark.parametrize(
    "address", ["postgresql://db/tokens", "postgresql://h1,h2/tokens?connect_timeout=9&target_session_attrs=any"]
)
def test_no_address_makes_a_connection_wait_longer_or_read_from_a_standby(address: str) -> None:
    told_to_libpq = parameters(read_address(address), "extauthz")
    assert (told_to_libpq["connect_timeout"], told_to_libpq["target_session_attrs"]) == (2, "primary")
