"""Issuers behind a proxy that wants to know who asks."""

from __future__ import annotations

import contextlib
import json
import logging
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from extauthz.adapters.oauth.discovery import Discovery
from extauthz.adapters.oauth.http import JsonFetcher
from extauthz.adapters.oauth.introspection import Introspection
from extauthz.config.effective import explained
from extauthz.config.loader import Configuration, load
from extauthz.core.providers import Verification
from extauthz.doctor import files, world
from extauthz.doctor.findings import Level
from extauthz.errors import ConfigurationError, FetchError, ProxyRefusal, Unavailable
from extauthz.runtime.build import RuntimeBuilder
from extauthz.verifiers.throttling import Breaker, Budget
from tests.support.http_faults import Page, faulty_server, listening
from tests.support.kept_connections import ConnectProxy, KeepingServer
from tests.support.transports import Authority
from tests.support.world import SETTINGS, StillClock, jwks

USER, PASSWORD = "extauthz", "hunter2:%&x"
ADDRESS = "https://localhost:8443/keys"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture
async def server(authority: Authority) -> AsyncIterator[tuple[KeepingServer, ConnectProxy]]:
    """An issuer that publishes keys, and a proxy before it that lets in one user."""
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(*authority.issue("server"))
    issuer, proxy = KeepingServer(document=json.dumps(jwks()).encode()), ConnectProxy(0, (USER, PASSWORD))
    async with listening(issuer.answer, tls) as proxy.target, listening(proxy.answer) as proxy.port:
        yield issuer, proxy


async def fetched(proxy: str, authority: Authority, auth: tuple[str, str] | None) -> Any:
    """Fetch the keys through a proxy."""
    fetcher = JsonFetcher(timeout=20.0, proxy=proxy, proxy_auth=auth, trust=authority.file.read_bytes())
    try:
        return (await fetcher.ask(ADDRESS, bearer="a.b.c")).document
    finally:
        await fetcher.close()


async def test_the_proxy_and_nobody_else_gets_user_and_password(
    server: tuple[KeepingServer, ConnectProxy], authority: Authority
) -> None:
    issuer, proxy = server

    assert await fetched(proxy.address, authority, (USER, PASSWORD)) == jwks()
    assert b"proxy-authorization" not in b"".join(issuer.heads).lower()
    assert [b"a.b.c" in head for head in proxy.heads + issuer.heads] == [False, True]


@pytest.mark.parametrize(
    ("auth", "cause"),
    [(None, "the proxy asks for a user and a password (407)"), ((USER, "wrong"), "the proxy refuses its user and password (407)")],
    ids=["none", "others"],
)
async def test_a_proxy_that_wants_to_know_who_asks_is_named(
    server: tuple[KeepingServer, ConnectProxy], authority: Authority, auth: tuple[str, str] | None, cause: str
) -> None:
    issuer, proxy = server
    with pytest.raises(ProxyRefusal) as refused:
        await fetched(proxy.address, authority, auth)

    assert str(refused.value) == f"{ADDRESS}: {cause}: see oauth.proxy"
    assert (issuer.requests, len(proxy.heads)) == ([], 1)


@pytest.mark.parametrize(
    ("answer", "cause"),
    [
        (b"HTTP/1.1 403 hunter2\r\ncontent-length: 0\r\n\r\n", "the proxy answers with status 403"),
        (b"HTTP/1.1 502 \r\ncontent-length: 0\r\n\r\n", "the proxy answers with status 502"),
        (b"HTTP/1.1 407\r\n\r\n", "the proxy asks for a user and a password (407): see oauth.proxy"),
    ],
    ids=["403", "502", "407"],
)
async def test_of_what_a_proxy_answers_only_the_status_is_told(authority: Authority, answer: bytes, cause: str) -> None:
    async with faulty_server() as proxy:
        proxy.pages["localhost:8443"] = Page(raw=answer)
        with pytest.raises(FetchError) as refused:
            await fetched(proxy.origin, authority, None)

    assert str(refused.value) == f"{ADDRESS}: {cause}"


async def test_a_question_that_the_proxy_refuses_is_counted_apart(
    server: tuple[KeepingServer, ConnectProxy], authority: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    clock = StillClock()
    fetcher = JsonFetcher(timeout=20.0, proxy=server[1].address, proxy_auth=(USER, "wrong"), trust=authority.file.read_bytes())
    breaker, budgets = Breaker(clock=clock, failures=1), [Budget(100, clock=clock) for _ in range(2)]
    asked = Introspection(
        Verification.USERINFO,
        Discovery("https://acme.okta.com", ADDRESS, fetcher, clock=clock),
        fetcher,
        clock=clock,
        budget=budgets[0],
        strangers=budgets[1],
        breaker=breaker,
        uri=ADDRESS,
    )
    with pytest.raises(Unavailable):
        await asked.ask("a.b.c")
    await fetcher.close()

    assert asked.outcomes == {"answered": 0, "failed": 0, "proxy_refused": 1, "shed": 0}
    assert not breaker.closed, "like every other failure it counts for the breaker"
    assert "the proxy refuses its user and password (407)" in caplog.records[-1].__dict__["cause"]
    assert not any(secret in str(record.__dict__) for record in caplog.records for secret in (PASSWORD, "wrong", "a.b.c"))


# --- the configuration


def configured(folder: Path, **oauth: Any) -> Path:
    """Write a configuration whose issuer is asked through a proxy."""
    (folder / "routes.yaml").write_text('routes: [{match: "GET /", scope: SEARCH}]')
    section = SETTINGS["oauth"] | {"issuer": "https://localhost:8443/oauth2/default", "jwks_uri": ADDRESS} | oauth
    file = folder / "extauthz.yaml"
    file.write_text(
        yaml.safe_dump({name: SETTINGS[name] for name in ("version", "server", "scopes", "routes")} | {"oauth": section})
    )
    return file


def test_an_address_alone_is_enough(tmp_path: Path) -> None:
    for proxy in ("http://proxy.acme.com:3128", {"url": "http://proxy.acme.com:3128"}):
        configuration = load(configured(tmp_path, proxy=proxy))
        assert explained(configuration)["settings"]["oauth"]["proxy"] == "http://proxy.acme.com:3128"
        assert configuration.proxy_auth({}) is None


def test_the_password_is_shown_nowhere(tmp_path: Path) -> None:
    proxy = {"url": "http://proxy.acme.com:3128", "user": USER, "password": {"env": "THE_PLACE"}}
    configuration = load(configured(tmp_path, proxy=proxy))
    assert configuration.proxy_auth({"THE_PLACE": f"{PASSWORD}\n"}) == (USER, PASSWORD)

    shown = explained(configuration)
    assert shown["settings"]["oauth"]["proxy"] == {"url": "http://proxy.acme.com:3128", "user": USER, "password": "hidden"}
    for text in (json.dumps(shown), repr(configuration), repr(configuration.settings), str(configuration.settings)):
        assert not any(secret in text for secret in (PASSWORD, "THE_PLACE"))


WRONG = {
    "a user in the address": "http://ana:hunter2@proxy.acme.com:3128",
    "a user in the address of a mapping": {"url": "http://ana:hunter2@proxy.acme.com:3128"},
    "a password without a user": {"url": "http://proxy.acme.com", "password": {"env": "X"}},
    "a user without a password": {"url": "http://proxy.acme.com", "user": "ana"},
    "a password in the file": {"url": "http://proxy.acme.com", "user": "ana", "password": "hunter2"},
    "a colon in the user": {"url": "http://proxy.acme.com", "user": "ana:hunter2", "password": {"env": "X"}},
    "a line break in the user": {"url": "http://proxy.acme.com", "user": "ana\nx", "password": {"env": "X"}},
    "an empty user": {"url": "http://proxy.acme.com", "user": "", "password": {"env": "X"}},
    "no address": {"user": "ana", "password": {"env": "X"}},
    "another key": {"url": "http://proxy.acme.com", "passwort": "x"},
    "a number": 3128,
    "a list": ["http://proxy.acme.com"],
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_no_proxy_is_refused_where_it_stands(tmp_path: Path, name: str) -> None:
    file = configured(tmp_path, proxy=WRONG[name])
    with pytest.raises(ConfigurationError) as refused:
        load(file)

    (problem,) = refused.value.problems
    assert "oauth.proxy" in str(problem)
    assert "hunter2" not in str(problem)
    if "address" in name and name != "no address":
        assert "proxy: {url: http://proxy.acme.com:3128, user: extauthz, password: {env: PROXY_PASSWORD}}" in str(problem)


@pytest.mark.parametrize("environment", [{}, {"X": ""}, {"X": "two\nlines"}, {"X": "é"}])
def test_a_password_that_cannot_be_sent_is_named_without_itself(tmp_path: Path, environment: dict[str, str]) -> None:
    proxy = {"url": "http://proxy.acme.com:3128", "user": USER, "password": {"env": "X"}}
    with pytest.raises(ConfigurationError) as refused:
        load(configured(tmp_path, proxy=proxy)).read_secrets(environment)

    assert "oauth.proxy.password: " in str(refused.value)
    assert "lines" not in str(refused.value)


def behind(proxy: ConnectProxy, authority: Authority, folder: Path) -> Path:
    """Write a configuration whose password stands in a file."""
    named = {"url": proxy.address, "user": USER, "password": {"file": "proxy-password"}}
    return configured(folder, proxy=named, ca_file=str(authority.file))


async def test_a_new_password_is_taken_by_a_reload(
    server: tuple[KeepingServer, ConnectProxy], authority: Authority, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    file, secret = behind(server[1], authority, tmp_path), tmp_path / "proxy-password"
    clock = StillClock()
    assembly = RuntimeBuilder(clock=clock, environment={})

    async def reloaded(password: str, before: Any) -> tuple[Configuration, Any]:
        secret.write_text(f"{password}\n")
        configuration = load(file)
        configuration.read_secrets({})
        parts = await assembly.prepare(configuration, before)
        assembly.adopt(configuration, before, parts)
        await assembly.retire(configuration, parts)
        return configuration, parts

    async with contextlib.AsyncExitStack() as stack:
        secret.write_text("yesterday")
        first = load(file)
        parts = await assembly.open(first, stack)
        (source,) = parts.key_sources
        with pytest.raises(Unavailable):
            await source.load()
        assert source.outcomes == {"ok": 0, "failed": 0, "proxy_refused": 1}

        second, parts = await reloaded(PASSWORD, parts)
        assert first.files.changed()
        assert not second.files.changed()
        assert parts.key_sources[0] is not source
        assert len(await parts.key_sources[0].load()) == 2

        _, unchanged = await reloaded(PASSWORD, parts)
        assert unchanged.key_sources[0] is parts.key_sources[0], "what did not change goes on"
        clock.advance(10)
        assert len(await unchanged.key_sources[0].load()) == 2

    text = "".join(str(record.__dict__) for record in caplog.records)
    assert "the proxy refuses its user and password (407)" in text
    assert not any(word in text for word in (PASSWORD, "yesterday"))


@pytest.mark.parametrize(("password", "level"), [(PASSWORD, Level.OK), ("wrong", Level.PROBLEM), (None, Level.PROBLEM)])
async def test_doctor_asks_through_the_proxy(
    server: tuple[KeepingServer, ConnectProxy], authority: Authority, tmp_path: Path, password: str | None, level: Level
) -> None:
    file = behind(server[1], authority, tmp_path)
    if password is not None:
        (tmp_path / "proxy-password").write_text(password)
    configuration = load(file)
    (found,) = await world.issuers(configuration, StillClock(), {})

    assert found.level is level
    if password == "wrong":
        assert "the proxy refuses its user and password (407)" in found.found
        assert found.advice.startswith("correct user and password of oauth.proxy")
    assert tmp_path / "proxy-password" in files.secret_files(configuration)
