"""What `extauthz doctor` says of a machine, its files, the token store and the issuers."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import re
import resource
import socket
import stat
import time
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import UTC, datetime
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result
from cryptography import x509

from extauthz.addresses import Address
from extauthz.cli import main
from extauthz.config.loader import Configuration, load
from extauthz.core.tokens import fingerprint
from extauthz.demo.issuer import DemoIssuer
from extauthz.demo.wiring import write_certificates
from extauthz.doctor import certificates, files, machine, run, world
from extauthz.doctor.findings import Finding, Level
from extauthz.errors import ListenError
from extauthz.telemetry.conditions import Condition, ConditionKey
from extauthz.transport.http.ops import HttpServer
from extauthz.transport.limits import descriptors_missing
from extauthz.transport.sockets import open_port
from extauthz.transport.tls import TlsFiles
from tests.support.http_faults import FaultyServer, Page, document, faulty_server
from tests.support.postgresql import MakePlace
from tests.support.project import ROOT
from tests.support.world import StillClock, ec_key, public_jwk, rsa_key

pytest_plugins = ["tests.support.postgresql"]

OK, WARNING, PROBLEM = Level
PEPPER = b"p" * 32
SETTINGS: dict[str, Any] = {
    "version": 1,
    "server": {"listen": "127.0.0.1:9001", "ops": None},
    "tokens": {"store": "sqlite:///tokens.db", "peppers": [{"id": "p1", "file": "pepper"}]},
    "act_as": {"allow": ["*@acme.com"]},
    "scopes": ["SEARCH"],
    "routes": ["routes.yaml"],
}


def now() -> float:
    """Return the time of the machine: certificates and issuers of these tests live now, and a module may wait long for its turn."""
    return time.time()  # noqa: TID251


def configured(folder: Path, **changes: Any) -> Path:
    """Write a configuration, with these sections instead of the usual ones; None leaves one out."""
    (folder / "routes.yaml").write_text('routes: [{match: "POST /search", scope: SEARCH}]')
    settings = {name: section for name, section in (SETTINGS | changes).items() if section is not None}
    (folder / "extauthz.yaml").write_text(yaml.safe_dump(settings))
    return folder / "extauthz.yaml"


def short(findings: Any) -> list[tuple[str, Level]]:
    """Return names and levels; every finding that is not in order says what to do."""
    found = list(findings)
    assert all(bool(each.advice) == (each.level is not OK) and each.found for each in found)
    return [(each.name, each.level) for each in found]


# The machine


def test_this_machine_is_in_order() -> None:
    found = list(machine.look("auto", 10))
    assert short(found)[:2] == [("python", OK), ("libraries", OK)]
    assert "grpcio 1." in found[1].found


VERSIONS = {"new": "2.10.1", "same": "2.0", "old": "1.99", "odd": "3.0.0rc1"}


@pytest.mark.parametrize(
    ("requirement", "expected"),
    [
        ("new>=2.9", []),
        ("same>=2.0", []),
        ("odd>=2", []),
        ("new[binary]>=2.9; sys_platform != 'win32'", []),
        ("old>=2", ["old 1.99 is older than 2"]),
        ("absent>=1", ["absent is not installed"]),
        ("absent>=1; extra == 'otel'", []),
        ("absent>=1; sys_platform == 'win32'", []),
    ],
)
def test_libraries_are_as_new_as_this_release_asks(requirement: str, expected: list[str]) -> None:
    found = list(machine.libraries([requirement], VERSIONS.get))
    assert [each.found for each in found if each.level is PROBLEM] == expected
    assert found[-1].level is OK


@pytest.mark.parametrize(
    ("transport", "version", "missing", "level", "text"),
    [
        ("auto", "1.64.0", [], OK, "libnghttp2 1.64.0 with both limits"),
        ("auto", None, [], WARNING, "nghttp2 cannot serve: libnghttp2 is not installed"),
        ("nghttp2", None, [], PROBLEM, "nghttp2 cannot serve: libnghttp2 is not installed"),
        ("auto", "1.43.0", ["max_continuations"], WARNING, "libnghttp2 1.43.0 lacks max_continuations"),
        ("nghttp2", "1.43.0", ["max_continuations"], PROBLEM, "libnghttp2 1.43.0 lacks max_continuations"),
        ("grpcio", None, [], OK, "server.transport is grpcio"),
    ],
)
def test_the_fast_transport(transport: str, version: str | None, missing: list[str], level: Level, text: str) -> None:
    found = machine.fast_transport(transport, version, missing, "libnghttp2 is not installed")
    assert short([found]) == [("transport", level)]
    assert text in found.found


@pytest.mark.parametrize(
    ("limit", "connections", "level"),
    [(1024, 1000, WARNING), (1500, 1000, OK), (resource.RLIM_INFINITY, 1000, OK), (600, 100, OK), (599, 100, WARNING)],
)
def test_file_descriptors(limit: int, connections: int, level: Level) -> None:
    assert short([machine.descriptors(limit, connections)]) == [("file_descriptors", level)]


@pytest.mark.parametrize(
    ("soft", "hard", "missing", "raised"),
    [
        (1024, 524_288, 0, 1500),
        (1024, resource.RLIM_INFINITY, 0, 1500),
        (1024, 1024, 476, 1024),
        (1024, 1200, 300, 1200),
        (1500, 1500, 0, None),
        (resource.RLIM_INFINITY, resource.RLIM_INFINITY, 0, None),
    ],
)
def test_a_sidecar_takes_the_descriptors_that_it_needs(
    monkeypatch: pytest.MonkeyPatch, soft: int, hard: int, missing: int, raised: int | None
) -> None:
    """And no more: the alert about used ones compares with what is allowed."""
    allowed: list[tuple[int, int]] = []
    monkeypatch.setattr(resource, "getrlimit", lambda _: (soft, hard))
    monkeypatch.setattr(resource, "setrlimit", lambda _, limits: allowed.append(limits))
    assert descriptors_missing(1000) == missing
    assert allowed == ([] if raised is None else [(raised, hard)])


def test_a_system_that_keeps_its_limit_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise ValueError("not allowed to raise maximum limit")

    monkeypatch.setattr(resource, "getrlimit", lambda _: (1024, 524_288))
    monkeypatch.setattr(resource, "setrlimit", refuse)
    assert descriptors_missing(1000) == 476


# Files


@pytest.mark.parametrize(
    ("mode", "level", "text"),
    [
        (0o600, OK, "can be read by"),
        (0o400, OK, "can be read by"),
        (0o640, WARNING, "can be read by the group"),
        (0o644, PROBLEM, "can be read by everybody (mode 0644)"),
        (0o604, PROBLEM, "can be read by everybody"),
        (0o620, PROBLEM, "can be changed by others (mode 0620)"),
        (0o666, PROBLEM, "can be changed by others"),
    ],
)
def test_who_may_read_a_secret(mode: int, level: Level, text: str, tmp_path: Path) -> None:
    path = tmp_path / "pepper"
    path.write_text("secret")
    path.chmod(mode)
    found = files.secret_file("file.secret", path)
    assert (found.level, text in found.found, str(path) in found.found) == (level, True, True)
    assert ("chmod 0600" in found.advice) == (level is not OK)


def test_a_secret_that_is_not_there_or_not_readable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert files.secret_file("file.secret", tmp_path / "absent").level is PROBLEM
    assert files.secret_file("file.secret", tmp_path).level is PROBLEM
    path = tmp_path / "pepper"
    path.touch(0o600)
    monkeypatch.setattr(os, "access", lambda *_: False)
    found = files.secret_file("file.secret", path)
    assert (found.level, "cannot be read by this user" in found.found) == (PROBLEM, True)


def test_a_secret_of_somebody_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "pepper"
    path.touch(0o600)
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    assert files.secret_file("file.secret", path).level is (OK if path.stat().st_uid == 0 else WARNING)
    monkeypatch.setattr(Path, "stat", lambda *_: os.stat_result((stat.S_IFREG | 0o600, 0, 0, 1, 4711, 4711, 1, 0, 0, 0)))
    found = files.secret_file("file.secret", path)
    assert (found.level, "belongs to 4711" in found.found) == (WARNING, True)


@pytest.mark.parametrize(
    ("mode", "folder_mode", "level"),
    [(0o644, 0o755, OK), (0o664, 0o775, OK), (0o666, 0o755, PROBLEM), (0o644, 0o777, PROBLEM), (0o644, 0o1777, OK)],
)
def test_who_may_change_the_configuration(mode: int, folder_mode: int, level: Level, tmp_path: Path) -> None:
    folder = tmp_path / "etc"
    folder.mkdir()
    path = folder / "routes.yaml"
    path.touch()
    path.chmod(mode)
    folder.chmod(folder_mode)
    assert short([files.not_for_all_to_write("file.configuration", path)]) == [("file.configuration", level)]
    assert files.not_for_all_to_write("file.configuration", folder / "absent").level is PROBLEM


@pytest.mark.parametrize(("mode", "level"), [(0o600, OK), (0o640, WARNING), (0o660, WARNING), (0o644, WARNING), (0o646, PROBLEM)])
def test_the_file_of_the_store(mode: int, level: Level, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "tokens.db"
    assert short(files.sqlite_file("file.store", path)) == [("file.store", PROBLEM)]
    path.touch()
    path.chmod(mode)
    assert short(files.sqlite_file("file.store", path)) == [("file.store", level)]
    monkeypatch.setattr(os, "access", lambda *_, **__: False)
    assert short(files.sqlite_file("file.store", path)) == [("file.store", PROBLEM)]


def test_the_place_of_the_socket(tmp_path: Path) -> None:
    folder = Path(os.path.relpath(tmp_path)).resolve() / "run"
    address = Address(path=str(folder / "c.sock"))

    def told(mode: str = "0660", group: str | None = None) -> list[Level]:
        return [level for _, level in short(files.socket_place("file.socket", address, mode, group))]

    assert told() == [PROBLEM]
    folder.mkdir(0o750)
    assert told() == [OK]
    assert told(group="no-such-group") == [PROBLEM, OK]
    folder.chmod(0o777)
    assert told() == [PROBLEM, OK]
    folder.chmod(0o750)
    with socket.socket(socket.AF_UNIX) as opened, contextlib.chdir(folder):
        opened.bind("c.sock")
        (folder / "c.sock").chmod(0o660)
        assert told() == [OK]
        (folder / "c.sock").chmod(0o666)
        assert told() == [WARNING]
    (folder / "c.sock").unlink()
    (folder / "c.sock").touch()
    assert told() == [PROBLEM]


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with certificates that are good from five minutes ago until tomorrow."""
    folder = tmp_path_factory.mktemp("tls")
    write_certificates(folder)
    return folder


@pytest.mark.parametrize(
    ("later", "level", "text"),
    [
        (-3600, PROBLEM, "begins on"),
        (300, WARNING, "ends on"),
        (2 * 86400, PROBLEM, "ended on"),
        (-60, PROBLEM, "begins on"),
    ],
)
def test_dates_of_certificates(later: float, level: Level, text: str, tls: Path) -> None:
    begins = x509.load_pem_x509_certificate((tls / "server.crt").read_bytes()).not_valid_before_utc.timestamp()
    (found,) = certificates.dates("tls", tls / "server.crt", begins + later)
    assert (found.level, text in found.found, "localhost, 127.0.0.1" in found.found) == (level, True, True)


def test_a_certificate_that_is_good_for_long(tls: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("extauthz.transport.certificate_dates.SOON", 3600)
    assert short(certificates.dates("tls", tls / "server.crt", now())) == [("tls", OK)]
    assert short(certificates.dates("tls", tls / "server.key", now())) == [("tls", PROBLEM)]
    assert short(certificates.dates("tls", tls / "absent", now())) == [("tls", PROBLEM)]


def test_a_key_that_does_not_fit(tls: Path) -> None:
    fits = TlsFiles(tls / "server.crt", tls / "server.key", tls / "ca.crt")
    assert short(files.tls_files("tls", fits, now())) == [("tls", WARNING)] * 2
    other = TlsFiles(tls / "server.crt", tls / "client.key", None)
    found = list(files.tls_files("tls", other, now()))
    assert short(found) == [("tls", PROBLEM), ("tls", WARNING), ("tls", WARNING)]
    assert "are not a certificate and its unencrypted key" in found[0].found
    assert "every client that reaches the port may ask" in found[2].found


def test_every_file_of_the_configuration_is_looked_at(tls: Path, tmp_path: Path) -> None:
    names = ("pepper", "password", "secret")
    for name in names:
        (tmp_path / name).touch(0o600)
    file = configured(
        tmp_path,
        server={
            "listen": f"unix://{tmp_path}/c.sock",
            "tls": {"certificate": str(tls / "server.crt"), "key": str(tls / "server.key"), "client_ca": str(tls / "ca.crt")},
            "ops_tls": {"certificate": str(tls / "client.crt"), "key": str(tls / "client.key")},
        },
        tokens=SETTINGS["tokens"] | {"store_password": {"file": "password"}},
        oauth={"provider": "okta", "issuer": "https://acme.okta.com", "client_ids": ["a"], "client_secret": {"file": "secret"}},
    )
    (tmp_path / "tokens.db").touch(0o600)
    found = list(files.look(load(file), now()))
    text = "\n".join(each.found for each in found)
    assert [
        name
        for name in (*names, "extauthz.yaml", "routes.yaml", "tokens.db", "c.sock", "server.key", "client.key", "client.crt")
        if name not in text
    ] == []
    assert {each.level for each in found if not each.name.startswith("tls")} == {OK}


# The store


def stored(folder: Path, place: Path | str, **tokens: Any) -> Configuration:
    """Load a configuration of this store, with a pepper."""
    (folder / "pepper").write_bytes(PEPPER)
    store = f"sqlite:///{place}" if isinstance(place, Path) else place
    return load(configured(folder, tokens=SETTINGS["tokens"] | {"store": store} | tokens))


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_a_store_that_is_in_order(kind: str, make_place: MakePlace, tmp_path: Path) -> None:
    loaded = stored(tmp_path, make_place(kind).where)
    found = list(world.store(loaded, StillClock(now()), {}))
    clock = [("store.clock", OK)] if kind == "postgresql" else []
    assert short(found)[:1] == [("store", OK)]
    assert short(found)[-1:] == [("store.peppers", OK)]
    assert [name for name, _ in short(found)[1:-1]] == [name for name, _ in clock]


@pytest.mark.parametrize("difference", [5, 100])
def test_a_clock_that_differs_from_the_databases(make_place: MakePlace, tmp_path: Path, difference: int) -> None:
    loaded = stored(tmp_path, make_place("postgresql").where)
    found = {each.name: each for each in world.store(loaded, StillClock(time.time() - difference), {})}  # noqa: TID251
    assert found["store.clock"].level is WARNING
    shown = re.search(r"differs from ours by (\d+\.\d) s", found["store.clock"].found)
    assert shown is not None
    assert difference - 1 <= float(shown[1]) < difference + 10


@pytest.mark.parametrize(
    ("theirs", "ours", "level"),
    [
        (100.0, (100.0, 100.0), OK),
        (100.9, (100.0, 100.0), OK),
        (101.1, (100.0, 100.0), WARNING),
        (98.9, (100.0, 100.0), WARNING),
        # The answer took five seconds: nothing is known to differ.
        (103.0, (100.0, 105.0), OK),
        (107.0, (100.0, 105.0), WARNING),
    ],
)
def test_clocks(theirs: float, ours: tuple[float, float], level: Level) -> None:
    assert short([world.clocks("store.clock", "there", theirs, ours, most=1.0)]) == [("store.clock", level)]


def test_stores_that_are_not_in_order(make_place: MakePlace, tmp_path: Path) -> None:
    place = make_place("sqlite")
    file = stored(tmp_path, place.where).file

    def told() -> list[Finding]:
        found = list(world.store(load(file), StillClock(now()), {}))
        short(found)
        return [each for each in found if each.level is not OK]

    assert told() == []
    place.unguard("peppers")
    place.run(f"INSERT INTO peppers (id, fingerprint) VALUES ('p1', '{fingerprint(b'q' * 32)}')")  # noqa: S608 - of a test
    assert [(each.name, "is not the one that the tokens" in each.found) for each in told()] == [("store", True)]
    (tmp_path / "pepper").unlink()
    assert [(each.name, "No such file" in each.found) for each in told()] == [("store.peppers", True)]
    place.run("UPDATE alembic_version SET version_num = '9999'")
    assert [(each.name, "has schema 9999" in each.found) for each in told()] == [("store", True)]
    assert isinstance(place.where, Path)
    place.where.write_text("no database, whatever it is " * 50)
    assert [each.name for each in told()] == ["store"]
    place.where.unlink()
    assert [(each.name, "does not exist" in each.found) for each in told()] == [("store", True)]


def test_a_database_server_that_is_away(tmp_path: Path) -> None:
    found = list(world.store(stored(tmp_path, "postgresql://u@127.0.0.1:1/tokens"), StillClock(now()), {}))
    assert short(found) == [("store", PROBLEM)]
    password = stored(tmp_path, "postgresql://u@127.0.0.1:1/tokens", store_password={"env": "NOWHERE"})
    found = list(world.store(password, StillClock(now()), {}))
    assert short(found) == [("store", PROBLEM)]
    assert "the environment variable NOWHERE is not set" in found[0].found


def test_without_issued_tokens_there_is_no_store(tmp_path: Path) -> None:
    loaded = load(configured(tmp_path, tokens=None))
    assert short(world.store(loaded, StillClock(now()), {})) == [("store", OK)]
    assert files.secret_files(loaded) == []


# The issuers


@pytest.fixture
async def issuer() -> AsyncIterator[DemoIssuer]:
    opened = open_port(Address(host="127.0.0.1", port=0))
    served = DemoIssuer(f"http://127.0.0.1:{opened.getsockname()[1]}")
    server = HttpServer(served)
    task = asyncio.create_task(server.run_on(opened))
    yield served
    server.should_exit = True
    await task


def providers(base: str) -> dict[str, Any]:
    """Return the section of every way to verify a token."""
    return {
        "providers": [
            {"name": "custom", "provider": "okta", "issuer": f"{base}/oauth2/default", "client_ids": ["a"], "audience": "b"},
            {"name": "org", "provider": "okta", "issuer": base, "client_ids": ["a"]},
            {
                "name": "google",
                "provider": "gsuite",
                "client_ids": ["a"],
                "domains": ["acme.com"],
                "hosted_domains": ["acme.com"],
                "tokeninfo_uri": f"{base}/tokeninfo",
                "userinfo_uri": f"{base}/v1/userinfo",
            },
            {"name": "onelogin", "provider": "onelogin", "issuer": f"{base}/oidc/2", "client_ids": ["a"]},
        ]
    }


async def test_issuers_that_are_in_order(issuer: DemoIssuer, tmp_path: Path) -> None:
    loaded = load(configured(tmp_path, oauth=providers(issuer.org_issuer)))
    found = await world.issuers(loaded, StillClock(time.time()))  # noqa: TID251
    names = ("custom", "org", "google", "google", "onelogin", "onelogin")
    assert {name for name, _ in short(found)} == {f"issuer.{name}" for name in names} | {f"issuer.{name}.clock" for name in names}
    assert {level for _, level in short(found)} == {OK}
    # Nobody was sent a token.
    assert (dict(issuer.seen_tokens_at), issuer.leaks) == ({}, 0)


async def test_a_clock_that_differs_from_the_issuers(issuer: DemoIssuer, tmp_path: Path) -> None:
    loaded = load(configured(tmp_path, oauth=providers(issuer.org_issuer)))
    found = await world.issuers(loaded, StillClock(time.time() + 30))  # noqa: TID251
    assert {level for name, level in short(found) if name.endswith(".clock")} == {WARNING}


@pytest.fixture
async def faulty() -> AsyncIterator[FaultyServer]:
    async with faulty_server() as served:
        yield served


Pages = Callable[[str], dict[str, Page]]
DISCOVERY = "/oauth2/default/.well-known/openid-configuration"


def discovery(origin: str, **changes: Any) -> Page:
    return document({"issuer": f"{origin}/oauth2/default", "jwks_uri": f"{origin}/keys"} | changes)


FAULTS: dict[str, tuple[Pages, str]] = {
    "no discovery document": (lambda _: {}, "status 404"),
    "of another issuer": (lambda origin: {DISCOVERY: discovery(origin, issuer="https://evil.com")}, "names another issuer"),
    "without keys": (lambda origin: {DISCOVERY: discovery(origin, jwks_uri=None)}, "has no jwks_uri"),
    "keys that are away": (lambda origin: {DISCOVERY: discovery(origin)}, "/keys: status 404"),
    "no key set": (lambda origin: {DISCOVERY: discovery(origin), "/keys": document([1])}, "not a JWKS document"),
    "no usable key": (
        lambda origin: {DISCOVERY: discovery(origin), "/keys": document({"keys": [{"kty": "oct", "k": "x", "kid": "1"}]})},
        "has no key for ES256, RS256; left out: '1': it holds a secret part",
    ),
}


async def test_keys_that_are_left_out_are_named(faulty: FaultyServer, tmp_path: Path) -> None:
    keys = [public_jwk(rsa_key(), "a"), public_jwk(ec_key(), "a"), public_jwk(rsa_key(), "e\x1b") | {"use": "enc"}]
    faulty.pages |= {DISCOVERY: discovery(faulty.origin), "/keys": document({"keys": keys})}
    entry = {"provider": "okta", "issuer": f"{faulty.origin}/oauth2/default", "client_ids": ["a"], "audience": "b"}
    (found,) = await world.issuers(load(configured(tmp_path, oauth=entry)), StillClock(now()))
    assert found.level is OK
    assert found.found.endswith(r"/keys: 2 keys; left out: 'e\x1b': it is not for verifying signatures (use, key_ops)")


@pytest.mark.parametrize("fault", FAULTS)
async def test_issuers_that_are_not_in_order(fault: str, faulty: FaultyServer, tmp_path: Path) -> None:
    pages, text = FAULTS[fault]
    faulty.pages.update(pages(faulty.origin))
    entry = {"provider": "okta", "issuer": f"{faulty.origin}/oauth2/default", "client_ids": ["a"], "audience": "b"}
    found = await world.issuers(load(configured(tmp_path, oauth=entry)), StillClock(now()))
    assert [each for each in short(found) if each[1] is not OK] == [("issuer.okta", PROBLEM)]
    assert text in found[0].found
    # Keys that a sidecar has go on: it answers 503 only where it has none.
    assert "503" not in (found[0].advice or "").partition("goes on with them for oauth.max_key_age")[0]


@pytest.mark.parametrize(("status", "level"), [(200, OK), (400, OK), (401, OK), (405, OK), (404, PROBLEM), (500, PROBLEM)])
async def test_the_answer_to_a_question_without_a_token(status: int, level: Level, faulty: FaultyServer, tmp_path: Path) -> None:
    date = format_datetime(datetime.fromtimestamp(now(), UTC), usegmt=True)
    faulty.pages["/tokeninfo"] = Page(b"{}", status, headers=(("date", date),))
    entry = {"provider": "gsuite", "client_ids": ["a"], "domains": ["acme.com"], "tokeninfo_uri": f"{faulty.origin}/tokeninfo"}
    found = await world.issuers(load(configured(tmp_path, oauth=entry)), StillClock(now()))
    assert short(found) == [("issuer.gsuite", level), ("issuer.gsuite.clock", OK)]
    assert len(faulty.heads) > 0
    assert not any(b"authorization" in head.lower() for head in faulty.heads)


@pytest.mark.parametrize("date", ["", "yesterday", "Thu, 99 Jan 2026 00:00:00 GMT", "\xff"])
async def test_a_date_that_is_none_is_left_out(date: str, faulty: FaultyServer, tmp_path: Path) -> None:
    faulty.pages["/tokeninfo"] = Page(b"{}", headers=(("date", date),))
    entry = {"provider": "gsuite", "client_ids": ["a"], "domains": ["acme.com"], "tokeninfo_uri": f"{faulty.origin}/tokeninfo"}
    assert short(await world.issuers(load(configured(tmp_path, oauth=entry)), StillClock(now()))) == [("issuer.gsuite", OK)]


async def test_issuers_that_cannot_be_asked(tmp_path: Path) -> None:
    assert short(await world.issuers(load(configured(tmp_path)), StillClock(now()))) == [("issuer", OK)]
    entry = {"provider": "okta", "issuer": "https://127.0.0.1:1/oauth2/a", "client_ids": ["a"], "audience": "b"}
    assert short(await world.issuers(load(configured(tmp_path, oauth=entry)), StillClock(now()))) == [("issuer.okta", PROBLEM)]
    unusable = entry | {"ca_file": "routes.yaml"}
    assert short(await world.issuers(load(configured(tmp_path, oauth=unusable)), StillClock(now()))) == [("issuer", PROBLEM)]


# The listeners


@pytest.fixture
def two_ports() -> Iterator[int]:
    """Listen on a port and on the next one; return the first."""
    with contextlib.ExitStack() as stack:
        while True:
            first = open_port(Address(host="127.0.0.1", port=0))
            port = int(first.getsockname()[1])
            try:
                stack.enter_context(open_port(Address(host="127.0.0.1", port=port + 1)))
            except (ListenError, OverflowError):
                first.close()
                continue
            stack.enter_context(first)
            break
        yield port


async def test_listeners(faulty: FaultyServer, two_ports: int, tmp_path: Path) -> None:
    ops = faulty.origin.removeprefix("http://")

    async def told(listen: int = two_ports, workers: int = 2, **more: Any) -> list[tuple[str, Level]]:
        server = {"listen": f"127.0.0.1:{listen}", "workers": workers, "ops": ops} | more
        return short(await world.listeners(load(configured(tmp_path, server=server)).settings.server))

    assert await told(1, 1) == [("server.listen", OK)]
    assert await told(1, 1, ops=None) == [("server.listen", OK), ("server.ops", WARNING)]
    for status in (404, 503):
        faulty.pages["/readyz"] = Page(b"{}", status)
        assert await told() == [("server.listen", OK), ("server.ops", PROBLEM)]
    keys = Condition(ConditionKey.ISSUER_KEYS, met=False, issuer="https://acme.okta.com").document()
    for details, level in (([keys | {"met": True}], OK), ([keys], WARNING), ([], OK), ({}, OK), ([None, {"met": 0}], OK)):
        faulty.pages["/readyz"] = document({"details": details})
        assert await told() == [("server.listen", OK), ("server.ops", level)]
    faulty.pages["/readyz"] = document({"details": [keys, {"met": False}]})
    (_, finding) = await world.listeners(load(tmp_path / "extauthz.yaml").settings.server)
    assert "there are keys of the issuer https://acme.okta.com" in finding.found
    faulty.pages["/readyz"] = document({"details": []})
    everywhere = ops.replace("127.0.0.1", "0.0.0.0")  # noqa: S104 - nobody binds it
    assert await told(ops=everywhere) == [("server.listen", OK), ("server.ops", WARNING), ("server.ops", OK)]
    assert await told(ops="127.0.0.1:1") == [("server.listen", OK), ("server.ops", WARNING)]
    secured = {"certificate": "a", "key": "b", "client_ca": "c"}
    assert await told(ops=everywhere, ops_tls=secured) == [("server.listen", OK)]
    unix = f"unix://{tmp_path}/ops.sock" if len(str(tmp_path)) < 90 else "127.0.0.1:1"
    assert await told(ops=unix) == [("server.listen", OK), ("server.ops", WARNING)]


async def test_a_worker_that_is_missing(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("w")
    server = {"listen": f"unix://{folder}/c.sock", "workers": 2, "ops": None}
    with socket.socket(socket.AF_UNIX) as opened:
        opened.bind(str(folder / "c-1.sock"))
        opened.listen()
        (found, _) = await world.listeners(load(configured(tmp_path, server=server)).settings.server)
    assert (found.level, "c-0.sock" in found.found, "c-1.sock" in found.found) == (PROBLEM, True, False)


# The command


def test_every_finding_is_documented() -> None:
    """And nothing that is not found any more."""
    root = ROOT
    sources = "\n".join(path.read_text() for path in (root / "extauthz" / "doctor").glob("*.py"))
    made = set(re.findall(r'"((?:envoy|file|store|server|issuer)\.[a-z0-9_]+)"', sources))
    made |= set(re.findall(r'(?:ok|warning|problem|verdict)\(\s*"([a-z_]+)"', sources)) | {
        "tls",
        "issuer.<name>",
        "issuer.<name>.clock",
    }
    made |= {f"envoy.{key}" for key in ("allowed_headers", "disallowed_headers")}
    rows = re.findall(r"^\| (`[a-z].*?) \|", (root / "docs" / "envoy.md").read_text().partition("| finding |")[2], re.MULTILINE)
    assert len(made) > 40
    assert {name for row in rows for name in re.findall(r"`([^`]+)`", row)} == made


def doctor(file: Path, *flags: str) -> Result:
    return CliRunner().invoke(main, ["doctor", "--config", str(file), *flags])


def test_an_installation_that_is_in_order(make_place: MakePlace, tmp_path: Path) -> None:
    place = make_place("sqlite")
    assert isinstance(place.where, Path)
    place.where.chmod(0o600)
    file = stored(tmp_path, place.where).file
    (tmp_path / "pepper").chmod(0o600)
    result = doctor(file, "--json")
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    assert told["problem"] == 0
    assert {each["level"] for each in told["findings"] if each["name"].startswith(("file", "store"))} == {"ok"}
    assert {"name", "level", "found", "advice", "where"} == set(told["findings"][0])
    assert len(told["findings"]) == told["ok"] + told["warning"]


def test_a_problem_is_exit_code_1_and_says_what_to_do(tmp_path: Path) -> None:
    result = doctor(configured(tmp_path), "--offline")
    assert result.exit_code == 1
    assert re.search(
        r"^problem  store +\S+tokens.db does not exist\n +→ make it with 'extauthz store migrate'", result.stdout, re.M
    )
    assert re.search(r"^\d+ problems?, \d+ warnings?, \d+ in order$", result.stdout, re.M)


def test_errors_of_the_configuration_are_exit_code_3(tmp_path: Path) -> None:
    file = configured(tmp_path, scopes=[], realm="ö")
    result = doctor(file)
    assert result.exit_code == 3
    assert "extauthz.yaml:" in result.stdout
    told = json.loads(doctor(file, "--json").stdout)
    assert [each["name"] for each in told["findings"]] == ["configuration"] * told["problem"]
    assert told["problem"] >= 2


def test_offline_leaves_out_what_is_elsewhere(tmp_path: Path) -> None:
    def titles(**changes: Any) -> set[str]:
        loaded = load(configured(tmp_path, **changes))
        return set(run.checks(loaded, clock=StillClock(now()), environment={}, offline=True))

    assert titles() == {"configuration", "machine", "files", "listeners", "store"}
    elsewhere = SETTINGS["tokens"] | {"store": "postgresql://u@db.acme.com/tokens"}
    assert titles(tokens=elsewhere) == {"configuration", "machine", "files", "listeners"}


def test_warnings_of_the_configuration_are_repeated(tmp_path: Path) -> None:
    loaded = load(configured(tmp_path, act_as={"allow": []}))
    found = list(run.settings(loaded))
    assert short(found) == [("configuration", WARNING), ("configuration", OK)]
    assert "act_as.allow: is empty" in found[0].found


@pytest.mark.parametrize("route", [False, True], ids=["everywhere", "one route"])
def test_monitor_mode_is_told(tmp_path: Path, *, route: bool) -> None:
    file = configured(tmp_path, **({} if route else {"mode": "monitor"}))
    if route:
        (tmp_path / "routes.yaml").write_text('routes: [{match: "POST /search", scope: SEARCH, mode: monitor}]')
    found = list(run.settings(load(file)))
    assert short(found) == [("configuration", WARNING), ("configuration", OK)]
    assert "monitor mode is on" in found[0].found


def test_a_check_that_fails_itself_is_a_problem_and_tells_no_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> list[Finding]:
        raise RuntimeError("password=hunter2")

    monkeypatch.setattr(files, "look", broken)
    made = run.checks(load(configured(tmp_path)), clock=StillClock(now()), environment={})
    found = list(made["files"]())
    assert short(found) == [("files", PROBLEM)]
    assert "hunter2" not in found[0].found


def test_the_doctor_leaves_the_log_as_it_was(tmp_path: Path) -> None:
    CliRunner().invoke(main, ["doctor", "--offline", "--config", str(tmp_path / "none.yaml")])
    assert logging.getLogger("extauthz").level == logging.NOTSET
