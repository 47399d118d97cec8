"""What `extauthz doctor` says of the admin console."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import yaml
from cryptography import x509

from extauthz import __version__
from extauthz.adapters.store import admin_keys, rights, sessions
from extauthz.adapters.store.admin_keys import AdminKeyRecord
from extauthz.adapters.store.sessions import StoredAccount
from extauthz.config.console import ConsoleSection
from extauthz.config.loader import Configuration, load
from extauthz.core.tokens import fingerprint
from extauthz.demo.wiring import write_certificates
from extauthz.doctor import console, console_network, run
from extauthz.doctor.findings import Finding, Level
from tests.support.http_faults import DISCOVERY, FaultyServer, Page, document, faulty_server
from tests.support.postgresql import ANA, MakePlace, Place
from tests.support.world import StillClock

pytest_plugins = ["tests.support.postgresql"]

OK, WARNING, PROBLEM = Level
DAY = 86_400
PEPPER = b"a pepper for tests, 32 bytes long"
ROLES = {"super_admins": ["cto@acme.com"], "admins": ["ana@acme.com"]}
PROXIED = {"public_url": "https://console.acme.com", "trusted_proxies": ["10.0.0.0/8"]}


def now() -> float:
    """Return the time of the machine: certificates of these tests live now, and a module may wait long for its turn."""
    return time.time()  # noqa: TID251


def configured(folder: Path, section: Mapping[str, Any], *, store: str = "sqlite:///tokens.db", **changes: Any) -> Configuration:
    (folder / "pepper").write_bytes(PEPPER)
    (folder / "routes.yaml").write_text('routes: [{match: "POST /search", scope: SEARCH}]')
    settings = {
        "version": 1,
        "server": {"listen": "127.0.0.1:9001"},
        "tokens": {"store": store, "peppers": [{"id": "p1", "file": "pepper"}]},
        "scopes": ["SEARCH"],
        "routes": ["routes.yaml"],
        "roles": ROLES,
        "console": section,
    }
    (folder / "extauthz.yaml").write_text(yaml.safe_dump({**settings, **changes}))
    return load(folder / "extauthz.yaml")


def section_of(configuration: Configuration) -> ConsoleSection:
    assert configuration.settings.console is not None
    return configuration.settings.console


def by_name(findings: Any) -> dict[str, Finding]:
    """Return the worst finding of each name; every finding that is not in order says what to do."""
    found: dict[str, Finding] = {}
    for each in findings:
        assert bool(each.advice) == (each.level is not OK)
        if each.name not in found or list(Level).index(each.level) > list(Level).index(found[each.name].level):
            found[each.name] = each
    return found


def looked(configuration: Configuration, at: float | None = None) -> dict[str, Finding]:
    return by_name(console.look(configuration, section_of(configuration), now() if at is None else at))


# The files


@pytest.mark.parametrize(
    ("section", "level", "text"),
    [
        ({}, OK, "browsers reach it at http://127.0.0.1:9003"),
        ({"listen": "[::1]:9003"}, OK, "http://[::1]:9003"),
        (PROXIED, OK, "https://console.acme.com"),
        ({"public_url": "https://console.acme.com"}, OK, "https://console.acme.com"),
        ({"public_url": "https://console.acme.com", "tls": {"certificate": "tls.crt", "key": "tls.key"}}, OK, "console.acme.com"),
        ({"public_url": "https://a.apps.acme.com:8443", "tls": {"certificate": "tls.crt", "key": "tls.key"}}, OK, ":8443"),
        ({"public_url": "https://a.b.apps.acme.com", "tls": {"certificate": "tls.crt", "key": "tls.key"}}, PROBLEM, "not for a.b."),
        ({"public_url": "https://apps.acme.com", "tls": {"certificate": "tls.crt", "key": "tls.key"}}, PROBLEM, "not for apps."),
        ({"tls": {"certificate": "tls.crt", "key": "tls.key"}}, OK, "https://127.0.0.1:9003"),
    ],
)
def test_the_name_and_the_certificate_fit(section: dict[str, Any], level: Level, text: str, tmp_path: Path) -> None:
    certificate(tmp_path)
    finding = looked(configured(tmp_path, section))["console.address"]
    assert (finding.level, text in finding.found) == (level, True), finding


def certificate(folder: Path) -> None:
    write_certificates(folder, "console.acme.com", "*.apps.acme.com", days=60)
    (folder / "server.crt").rename(folder / "tls.crt")
    (folder / "server.key").rename(folder / "tls.key")


@pytest.mark.parametrize(
    ("days", "level"),
    [(1, OK), (40, OK), (50, WARNING), (61, PROBLEM), (-2, PROBLEM)],
    ids=["now", "later", "soon", "over", "early"],
)
def test_the_end_of_the_certificate_is_seen_coming(days: int, level: Level, tmp_path: Path) -> None:
    certificate(tmp_path)
    ends = x509.load_pem_x509_certificate((tmp_path / "tls.crt").read_bytes()).not_valid_after_utc
    at = (ends - timedelta(days=60) + timedelta(days=days)).timestamp()
    configuration = configured(tmp_path, {"tls": {"certificate": "tls.crt", "key": "tls.key"}})
    assert looked(configuration, at)["console.tls"].level is level


def test_a_certificate_that_is_not_there_is_a_problem(tmp_path: Path) -> None:
    found = looked(configured(tmp_path, {"tls": {"certificate": "tls.crt", "key": "tls.key"}}))
    assert found["console.tls"].level is PROBLEM
    assert "console.address" not in found


@pytest.mark.parametrize(
    ("roles", "level", "text"),
    [
        (ROLES, OK, "0 viewers, 1 admins, 1 super_admins"),
        ({"viewers": ["a@acme.com"]}, WARNING, "nobody may make GLOBAL tokens"),
        ({}, PROBLEM, "nobody has a role"),
    ],
)
def test_roles(roles: dict[str, Any], level: Level, text: str, tmp_path: Path) -> None:
    finding = looked(configured(tmp_path, {}, roles=roles))["console.roles"]
    assert (finding.level, text in finding.found) == (level, True)


def test_the_redirect_uri_and_the_secret_of_the_client(tmp_path: Path) -> None:
    login = {"issuer": "https://acme.okta.com", "client_id": "c", "client_secret": {"file": "client-secret"}}
    configuration = configured(tmp_path, {**PROXIED, "oidc": login})
    found = looked(configuration)
    assert "redirect URI: https://console.acme.com/login/callback" in found["console.redirect"].found
    assert found["console.secret"].level is PROBLEM
    (tmp_path / "client-secret").write_text("a secret of the client")
    (tmp_path / "client-secret").chmod(0o600)
    finding = looked(configuration)["console.secret"]
    assert (finding.level, "a secret of the client" in finding.found) == (OK, False)


def test_packages_that_are_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    configuration = configured(tmp_path, {})
    assert looked(configuration)["console.packages"].level is OK
    monkeypatch.setattr(console, "PACKAGES", ("starlette", "no_such_package"))
    finding = looked(configuration)["console.packages"]
    assert finding.level is WARNING
    assert finding.found.startswith("no_such_package is missing")
    assert "extauthz[console]" in finding.advice


# The store


def of_store(configuration: Configuration) -> dict[str, Finding]:
    return by_name(console.store(configuration, section_of(configuration), now(), {}))


def test_somebody_can_log_in(place: Place, tmp_path: Path) -> None:
    store = f"sqlite:///{place.where}" if isinstance(place.where, Path) else place.where
    configuration = configured(tmp_path, {}, store=store)
    finding = of_store(configuration)["console.accounts"]
    assert (finding.level, "there is no local account" in finding.found) == (PROBLEM, True)
    with place.opened() as opened:
        sessions.put_account(opened, signed("eve@acme.com"), ANA)
        finding = of_store(configuration)["console.accounts"]
        assert (finding.level, "no local account has a role" in finding.found) == (PROBLEM, True)
        sessions.put_account(opened, replace(signed("ana@acme.com"), mac=bytes(32)), ANA)
        finding = of_store(configuration)["console.accounts"]
        assert (finding.level, "ana@acme.com was not written by this installation" in finding.found) == (PROBLEM, True)
        sessions.put_account(opened, signed("ana@acme.com"), ANA)
    assert of_store(configuration)["console.accounts"].level is OK


def signed(email: str) -> StoredAccount:
    """Return an account as this installation writes it."""
    return sessions.with_mac(StoredAccount(email, "$argon2id$", int(now()), "root"), "p1", PEPPER)


def test_a_key_that_outlives_the_role_of_its_maker_is_named(make_place: MakePlace, tmp_path: Path) -> None:
    place = make_place("sqlite")
    configuration = configured(tmp_path, {}, store=f"sqlite:///{place.where}")
    record = AdminKeyRecord("a" * 12, "CI", "super_admin", int(now()), "cto@acme.com", int(now()) + DAY, "p1", bytes(32))
    with place.opened() as opened:
        admin_keys.add(opened, record, fingerprint(PEPPER), ANA)
        assert of_store(configuration)["console.keys"].level is OK
        admin_keys.add(opened, replace(record, id="b" * 12, created_by="eve@acme.com"), fingerprint(PEPPER), ANA)
        admin_keys.add(opened, replace(record, id="c" * 12, created_by="ana@acme.com"), fingerprint(PEPPER), ANA)
        admin_keys.add(
            opened, replace(record, id="d" * 12, created_by="eve@acme.com", expires_at=int(now())), fingerprint(PEPPER), ANA
        )
        finding = of_store(configuration)["console.keys"]
        assert finding.level is WARNING
        assert f"{'b' * 12}: its maker eve@acme.com has no role any more" in finding.found
        assert f"{'c' * 12}: its maker ana@acme.com has a lower role now" in finding.found
        assert [key_id * 12 in finding.found for key_id in "ad"] == [False, False]
        admin_keys.revoke(opened, "b" * 12, ANA)
        admin_keys.revoke(opened, "c" * 12, ANA)
    assert of_store(configuration)["console.keys"].level is OK


def test_with_a_provider_nobody_needs_an_account(make_place: MakePlace, tmp_path: Path) -> None:
    where = make_place("sqlite").where
    login = {"issuer": "https://acme.okta.com", "client_id": "c"}
    without = configured(tmp_path, {"oidc": login}, store=f"sqlite:///{where}")
    assert "console.accounts" not in of_store(without)
    kept = configured(tmp_path, {"oidc": login, "local_accounts": True}, store=f"sqlite:///{where}")
    assert of_store(kept)["console.accounts"].level is WARNING


def test_a_file_that_cannot_be_written(make_place: MakePlace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    configuration = configured(tmp_path, {}, store=f"sqlite:///{make_place('sqlite').where}")
    assert of_store(configuration)["console.store"].level is OK
    monkeypatch.setattr(console, "is_read_only", lambda _: True)
    assert of_store(configuration)["console.store"].level is PROBLEM
    assert not by_name(console.store(configured(tmp_path, {}), ConsoleSection(), now(), {})), "a store that is not there yet"


@pytest.mark.parametrize(
    ("role", "level", "text"),
    [
        ("extauthz_admin", OK, "can be written"),
        ("extauthz_sidecar", PROBLEM, "lacks SELECT on admin_keys, SELECT on console_accounts, SELECT on console_sessions and"),
        (None, WARNING, "owns the tables"),
    ],
)
def test_the_account_of_a_database(role: str | None, level: Level, text: str, make_place: MakePlace) -> None:
    place = make_place("postgresql")
    where = str(place.where) if role is None else f"{place.where}&options=-c%20role%3D{role}"
    with Place(place.kind, where).opened() as opened:
        finding = console._rights(opened, where)
        assert (finding.level, text in finding.found) == (level, True), finding


def test_the_rights_are_those_that_the_migrations_grant() -> None:
    granted = {(right, table) for right, tables in granted_to_admins() for table in tables if " " not in right}
    assert {(right, table) for right, tables in rights.ADMIN.items() for table in tables} == granted


def granted_to_admins() -> list[tuple[str, tuple[str, ...]]]:
    modules = [import_module(f"extauthz.adapters.store.migrations.versions.{name}") for name in ("0002_changes", "0003_console")]
    return [pair for module in modules for pair in module._RIGHTS["extauthz_admin"].items()]


# What it talks to

METRICS = f'# HELP x\nextauthz_build_info{{transport="nghttp2",version="{__version__}"}} 1.0\n'


def text(body: str, status: int = 200) -> Page:
    return Page(body.encode(), status, (("content-type", "text/plain"),))


def listening_at(port: int) -> ConsoleSection:
    return ConsoleSection.model_validate({"listen": f"127.0.0.1:{port}"})


@pytest.mark.parametrize(
    ("pages", "level", "expected"),
    [
        ({"/healthz": text("ok\n"), "/readyz": text("ok\n")}, OK, "and is ready"),
        ({"/healthz": text("ok\n"), "/readyz": text("the token store does not answer\n", 503)}, PROBLEM, "is not ready"),
        ({}, PROBLEM, "somebody else listens"),
        ({"/healthz": text("fine"), "/readyz": text("ok\n")}, PROBLEM, "somebody else listens"),
        ({"/healthz": Page(raw=b"SSH-2.0\r\n")}, PROBLEM, "somebody else listens"),
    ],
)
async def test_who_has_the_port(pages: dict[str, Page], level: Level, expected: str) -> None:
    async with faulty_server() as served:
        served.pages |= pages
        finding = await console_network.port(listening_at(served.port))
    assert (finding.level, expected in finding.found) == (level, True), finding
    finding = await console_network.port(listening_at(served.port))
    assert (finding.level, "nobody listens" in finding.found) == (OK, True)


@pytest.mark.parametrize(
    ("page", "level", "expected"),
    [
        (document({"ready": True}), OK, "and is ready"),
        (document({"ready": False}, status=503), PROBLEM, "answers with status 503"),
        (Page(raw=b"SSH-2.0\r\n"), WARNING, "console.ops does not answer"),
        (None, OK, "somebody listens"),
    ],
)
async def test_a_console_with_tls_is_asked_on_its_ops_listener(page: Page | None, level: Level, expected: str) -> None:
    async with faulty_server() as pages, faulty_server() as ops:
        if page is not None:
            ops.pages["/readyz"] = page
        section = {"listen": f"127.0.0.1:{pages.port}", "tls": {"certificate": "tls.crt", "key": "tls.key"}}
        section["ops"] = None if page is None else f"127.0.0.1:{ops.port}"
        finding = await console_network.port(ConsoleSection.model_validate(section))
    assert (finding.level, expected in finding.found) == (level, True), finding


@pytest.mark.parametrize(
    ("page", "level", "expected"),
    [
        (text(METRICS), OK, f"has version {__version__}"),
        (text(METRICS.replace(__version__, "0.0.9")), WARNING, "has version 0.0.9"),
        (text("node_load1 1\n"), PROBLEM, "not that of a sidecar"),
        (text("", 503), PROBLEM, "status 503"),
    ],
)
async def test_sidecars_answer_and_are_of_this_version(page: Page, level: Level, expected: str, tmp_path: Path) -> None:
    async with faulty_server() as served:
        served.pages["/metrics"] = page
        configuration = configured(tmp_path, {"sidecars": [served.origin, "unix:///no/such.sock"]})
        first, second = await console_network.sidecars(configuration, section_of(configuration))
    assert (first.level, first.where, expected in first.found) == (level, served.origin, True), first
    assert (second.level, second.where) == (PROBLEM, "unix:///no/such.sock")


@pytest.mark.parametrize(("section", "count"), [({}, 1), ({"prometheus": "http://prometheus:9090"}, 0)])
async def test_no_sidecar_is_named(section: dict[str, Any], count: int, tmp_path: Path) -> None:
    configuration = configured(tmp_path, section)
    found = await console_network.sidecars(configuration, section_of(configuration))
    assert [finding.level for finding in found] == [WARNING] * count


@pytest.mark.parametrize(
    ("changes", "level", "expected"),
    [
        ({}, OK, "has a discovery document"),
        ({"issuer": "https://acme.okta.com"}, PROBLEM, "names another issuer"),
        ({"token_endpoint": None}, PROBLEM, "has no token_endpoint"),
        (None, PROBLEM, "status 404"),
    ],
)
async def test_the_provider_of_logins(changes: dict[str, Any] | None, level: Level, expected: str, tmp_path: Path) -> None:
    async with faulty_server() as served:
        if changes is not None:
            served.pages[DISCOVERY] = document(discovery(served) | changes)
        configuration = configured(tmp_path, {"oidc": {"issuer": served.origin, "client_id": "c"}})
        login = section_of(configuration).oidc
        assert login is not None
        (finding,) = await console_network.provider(configuration, login, StillClock())
    assert (finding.level, expected in finding.found) == (level, True), finding


@pytest.mark.parametrize(
    ("claims", "way", "found"),
    [
        (["sub", "email", "auth_time"], "auth_time", False),
        (["sub", "email"], "auth_time", True),
        (["sub", "email"], "confirmation", False),
        # The claim of a document that lists none is not missing; nor is it where the list is none.
        (None, "auth_time", False),
        ("auth_time", "auth_time", False),
    ],
)
async def test_a_provider_that_signs_no_time_of_the_login_is_told_with_the_other_way(
    claims: object, way: str, found: bool, tmp_path: Path
) -> None:
    """Google lists what it signs, and no `auth_time`: what needs a fresh login would be refused, and nobody would know why."""
    async with faulty_server() as served:
        served.pages[DISCOVERY] = document(discovery(served) | {"claims_supported": claims})
        configuration = configured(tmp_path, {"oidc": {"issuer": served.origin, "client_id": "c", "reauthentication": way}})
        login = section_of(configuration).oidc
        assert login is not None
        findings = await console_network.provider(configuration, login, StillClock())
    assert [finding.level for finding in findings] == [OK, *([Level.WARNING] if found else [])]
    if found:
        assert "lists no claim auth_time" in findings[1].found
        assert "reauthentication: confirmation" in findings[1].advice


def discovery(served: FaultyServer) -> dict[str, Any]:
    return {"issuer": served.origin} | {name: f"{served.origin}/{name}" for name in console_network.ENDPOINTS}


def detail(key: str, *, met: object) -> dict[str, object]:
    return {"key": key, "met": met, "message": "what a stranger writes"}


@pytest.mark.parametrize(
    ("page", "expected"),
    [
        (document({"ready": True, "details": [detail("configuration_current", met=False)]}), ["have an error"]),
        (
            document({"details": [detail("certificate_current", met=False), detail("restart_not_needed", met=False)]}),
            ["waits for a restart", "does not take the certificate"],
        ),
        (document({"details": [detail("configuration_current", met=False)]}, status=503), []),
        (document({"ready": True, "details": [detail("configuration_current", met=True), detail("other", met=False)]}), []),
        (document({"ready": True, "details": [7, {"key": ["configuration_current"], "met": False}, {}]}), []),
        (document({"ready": True}), []),
        (document(["details"]), []),
        (Page(raw=b"SSH-2.0\r\n"), []),
        (None, []),
    ],
)
async def test_what_a_console_says_of_its_files_is_repeated(page: Page | None, expected: list[str]) -> None:
    async with faulty_server() as ops:
        if page is not None:
            ops.pages["/readyz"] = page
        section = ConsoleSection.model_validate({"ops": f"127.0.0.1:{ops.port}"})
        found = await console_network.conditions(section)
    assert [each.level for each in found] == [WARNING] * len(expected)
    assert all(text in each.found and each.advice for text, each in zip(expected, found, strict=True))
    assert await console_network.conditions(section) == [], "nobody listens there"
    assert await console_network.conditions(ConsoleSection(ops=None)) == []


# The whole


def test_a_proxy_of_which_nothing_is_known_is_said_once(tmp_path: Path) -> None:
    configuration = configured(tmp_path, {"public_url": "https://console.acme.com", "ops": None})
    looked_at = run.checks(configuration, clock=StillClock(), environment={}, offline=True)
    found = [finding for title in ("configuration", "console") for finding in looked_at[title]()]
    assert [finding.name for finding in found if "trusted_proxies" in f"{finding.found} {finding.advice}"] == ["configuration"]


@pytest.mark.parametrize(
    ("section", "offline", "looked_at"),
    [
        (None, False, set()),
        ({}, True, {"console", "console's port", "console's store"}),
        ({}, False, {"console", "console's port", "console's store", "sidecars of the console"}),
        (
            {"oidc": {"issuer": "https://acme.okta.com", "client_id": "c"}},
            False,
            {"console", "console's port", "console's store", "sidecars of the console", "provider of logins"},
        ),
    ],
)
def test_it_is_looked_at_where_there_is_one(section: Any, offline: bool, looked_at: set[str], tmp_path: Path) -> None:
    configuration = configured(tmp_path, section)
    checks = run.checks(configuration, clock=StillClock(), environment={}, offline=offline)
    assert {title for title in checks if "console" in title or "logins" in title} == looked_at
