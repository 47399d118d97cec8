"""The section `console`: what the console reads of it, what sidecars do not, and what it means where keys are left out."""

from __future__ import annotations

from pathlib import Path

import pytest

from extauthz.config.console import ConsoleSection
from extauthz.config.loader import Configuration, load
from extauthz.errors import ConfigurationError

HEAD = "version: 1\nserver: {listen: 127.0.0.1:9001, workers: 2}\nscopes: [SEARCH]\nroutes: [routes.yaml]\n"
OIDC = "console: {{oidc: {{issuer: https://acme.okta.com, client_id: 0oa1console{more}}}}}\n"
SECRET = ", client_secret: {env: CONSOLE_SECRET}"


def configured(folder: Path, console: str) -> Configuration:
    (folder / "extauthz.yaml").write_text(HEAD + console)
    (folder / "routes.yaml").write_text('routes: [{match: "POST /search", scope: SEARCH}]')
    return load(folder / "extauthz.yaml")


def section(folder: Path, console: str) -> ConsoleSection:
    loaded = configured(folder, f"console: {{{console}}}\n").settings.console
    assert loaded is not None
    return loaded


@pytest.mark.parametrize(
    "console",
    [
        "",
        "listen: 'localhost:8443', tls: {certificate: a, key: b}",
        "listen: '[::1]:9003'",
        "listen: '10.0.0.7:9003', tls: {certificate: a, key: b}",
        "listen: '0.0.0.0:9003', public_url: 'https://console.acme.com:8443', trusted_proxies: [10.0.0.0/8]",
        "public_url: 'http://localhost:9003'",
        "session_idle: 7d, session_lifetime: 7d",
    ],
)
def test_a_console_that_strangers_cannot_listen_to_may_be(tmp_path: Path, console: str) -> None:
    """What may not be stands in tests/config/bad."""
    assert section(tmp_path, console).listen.port


@pytest.mark.parametrize(
    ("console", "allowed"),
    [
        ("", True),
        ("oidc: {issuer: https://acme.okta.com, client_id: a}", False),
        ("oidc: {issuer: https://acme.okta.com, client_id: a}, local_accounts: true", True),
    ],
)
def test_local_accounts_end_with_single_sign_on_unless_they_are_kept(tmp_path: Path, console: str, allowed: bool) -> None:
    assert section(tmp_path, console).has_local_accounts is allowed


def test_the_secret_of_logins_is_read_by_the_console(tmp_path: Path) -> None:
    configuration = configured(tmp_path, OIDC.format(more=SECRET))
    assert configuration.console_client_secret({"CONSOLE_SECRET": "s3cret\n"}) == b"s3cret"
    for without in ("", OIDC.format(more=""), "console: {}\n"):
        assert configured(tmp_path, without).console_client_secret({}) is None


@pytest.mark.parametrize("value", ["two\nlines", "schön"])
def test_a_secret_of_logins_that_cannot_be_sent_is_told_and_not_repeated(tmp_path: Path, value: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        configured(tmp_path, OIDC.format(more=SECRET)).console_client_secret({"CONSOLE_SECRET": value})
    (problem,) = raised.value.problems
    assert (problem.line, problem.path) == (5, "console.oidc.client_secret")
    assert value not in str(problem)


def test_a_sidecar_starts_without_the_secret_of_logins(tmp_path: Path) -> None:
    """It is the console's alone: one that a sidecar held could be taken from it."""
    (tmp_path / "secret").write_text("s3cret")
    configuration = configured(tmp_path, OIDC.format(more=", client_secret: {file: secret}"))
    configuration.read_secrets({})
    assert tmp_path / "secret" not in configuration.files.paths


@pytest.mark.parametrize(
    ("console", "ops", "is_warned_of"),
    [
        ("", "127.0.0.1:9091", False),
        ("ops: null", "None", False),
        ("ops: '0.0.0.0:9091'", "0.0.0.0:9091", True),
        ("ops: '127.0.0.1:0', listen: '127.0.0.1:0'", "127.0.0.1:0", False),
    ],
)
def test_metrics_are_for_this_machine_unless_they_are_let_out(tmp_path: Path, console: str, ops: str, is_warned_of: bool) -> None:
    loaded = configured(tmp_path, f"console: {{{console}}}\n")
    assert str(loaded.settings.console and loaded.settings.console.ops) == ops
    assert ("console.ops" in {warning.path for warning in loaded.warnings}) is is_warned_of
