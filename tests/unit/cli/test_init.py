"""`extauthz init`: what it writes is what the product reads, and nothing is ever written over."""

from __future__ import annotations

import itertools
import json
import os
import shlex
import stat
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from extauthz.admin.route_map import routes_of
from extauthz.cli import main
from extauthz.config.loader import Configuration, load
from extauthz.config.presets import ALL_PROVIDERS
from extauthz.core.credentials import Kind
from extauthz.initial.files import CONFIGURATION, EXAMPLES, PEPPER, NewApi
from extauthz.initial.providers import KNOWN
from extauthz.tools.lint import lints
from extauthz.tools.yaml_format import formatted
from tests.support.documents import CONFIG, EXAMPLE

OKTA = "https://acme.okta.com/oauth2/default"
AZURE = "https://login.microsoftonline.com/88888888-4444-4444-4444-121212121212/v2.0"
WRITTEN = [
    *("config/extauthz.yaml", "config/routes/api.yaml"),
    *("config/schema/routes.schema.json", "config/schema/settings.schema.json"),
    *("config/tests/requests.sh", "config/tests/routes.yaml"),
    *("data/.gitignore", "data/pepper-p1", "data/tokens.db"),
]


def init(folder: Path, *flags: str) -> Result:
    """Run the command where nobody can be asked."""
    return CliRunner().invoke(main, ["init", str(folder), *flags])


def loaded(folder: Path, *flags: str) -> Configuration:
    """Run the command, which must work, and read what it wrote."""
    result = init(folder, *flags)
    assert result.exit_code == 0, result.output
    return load(folder / CONFIGURATION)


def found(folder: Path) -> list[str]:
    """List the files below a folder."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir())


def test_the_files_are_there_and_in_order(tmp_path: Path) -> None:
    configuration = loaded(tmp_path)
    assert found(tmp_path) == WRITTEN
    assert lints(configuration) == []
    settings, routes = configuration.yaml_files
    assert (formatted(settings.read_bytes()), formatted(routes.read_bytes())) == (settings.read_bytes(), routes.read_bytes())
    assert configuration.peppers({}).keys() == {"p1"}
    assert (tmp_path / "data" / ".gitignore").read_text() == "*\n"
    assert CONFIG.name == CONFIGURATION.parent.name, "where every command looks by default"


@pytest.mark.parametrize("umask", [0o000, 0o027, 0o077], ids=oct)
def test_the_pepper_is_for_its_owner_alone(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        loaded(tmp_path)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / PEPPER).stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / PEPPER).parent.stat().st_mode) == 0o700


@pytest.mark.parametrize("existing", WRITTEN)
def test_nothing_is_written_over(tmp_path: Path, existing: str) -> None:
    (tmp_path / existing).parent.mkdir(parents=True)
    (tmp_path / existing).write_text("mine")
    result = init(tmp_path)
    assert result.exit_code == 1
    assert f"nothing was written, because this is there: {tmp_path / existing}: name another folder" in result.stderr
    assert (found(tmp_path), (tmp_path / existing).read_text()) == ([existing], "mine")


def test_a_link_that_leads_nowhere_is_there_too(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / PEPPER).symlink_to(tmp_path / "elsewhere")
    assert init(tmp_path).exit_code == 1
    assert found(tmp_path) == ["data/pepper-p1"]


@pytest.mark.parametrize("place", ["config", "config/routes", "data"])
def test_what_cannot_be_finished_is_taken_back(tmp_path: Path, place: str) -> None:
    (tmp_path / place).parent.mkdir(exist_ok=True)
    (tmp_path / place).write_text("a file where a folder has to be")
    result = init(tmp_path)
    assert result.exit_code == 1
    assert "nothing was written: " in result.stderr
    assert found(tmp_path) == [place]


def test_what_others_keep_in_the_folder_stays(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "tokens.db.backup").write_text("mine")
    assert init(tmp_path, "--prefix", "x-envoy-").exit_code == 1
    assert found(tmp_path) == ["data/tokens.db.backup"]


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--scope", "not a scope"], "'not a scope' is not a scope name"),
        (["--prefix", "x-envoy-"], "write a prefix of your own"),
        (["--name", "öffentlich!"], "realm"),
        (["--issuer", OKTA, "--client-id", "a"], "audience"),
        (["--issuer", "https://accounts.google.com", "--client-id", "a"], "domains"),
    ],
)
def test_what_the_product_would_not_read_is_not_left_there(tmp_path: Path, flags: list[str], told: str) -> None:
    result = init(tmp_path / "a", *flags)
    assert result.exit_code == 1
    assert "nothing was written, it would have problems:" in result.stderr
    assert told in result.stderr
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--name", "…"], "--name"),
        (["--scope", "READ", "--example", "glean-client-api"], "--scope does not go with --example"),
        (["--client-id", "a"], "--client-id needs --issuer"),
        (["--audience", "a"], "--audience needs --issuer"),
        (["--user-claim", "a"], "--user-claim needs --issuer"),
        (["--token-scopes", "all"], "--token-scopes needs --issuer"),
        (["--issuer", OKTA], "--client-id is missing"),
        (["--issuer", "http://login.acme.com", "--client-id", "a"], "--issuer"),
    ],
)
def test_flags_that_do_not_go_together(tmp_path: Path, flags: list[str], told: str) -> None:
    result = init(tmp_path, *flags)
    assert result.exit_code == 2
    assert told in result.stderr
    assert found(tmp_path) == []


@pytest.mark.parametrize(
    ("issuer", "flags", "kind"),
    [
        (OKTA, ["--audience", "api://default"], "okta"),
        ("https://acme.okta.com", [], "okta"),
        (AZURE, [], "azure"),
        ("https://accounts.google.com", ["--domain", "acme.com"], "gsuite"),
        ("https://acme.onelogin.com/oidc/2", [], "onelogin"),
        ("https://sso.acme.com/realms/acme", ["--audience", "orders"], "keycloak"),
        ("https://acme.eu.auth0.com/", ["--audience", "https://api.acme.com", "--user-claim", "https://acme.com/email"], "auth0"),
        ("https://login.acme.com/", ["--audience", "https://api.acme.com"], "oidc"),
    ],
)
def test_an_issuer_says_whose_it_is(tmp_path: Path, issuer: str, flags: list[str], kind: str) -> None:
    configuration = loaded(tmp_path, "--issuer", issuer, "--client-id", "one", "--client-id", "two", *flags)
    (rules,) = configuration.providers
    assert (rules.provider.name, rules.client_ids) == (kind, {"one", "two"})
    assert configuration.warnings == ()
    assert (rules.scope_claims is None) == (kind in ("okta", "azure", "gsuite", "onelogin"))
    assert Kind.OAUTH in configuration.policy.kinds


def test_every_provider_is_known_by_its_issuer_or_has_one_of_its_own() -> None:
    told_by_its_name = {"google", "gitlab", "github", "spiffe"}
    assert {name for _, name in KNOWN} | told_by_its_name == set(ALL_PROVIDERS)
    assert {name for name in told_by_its_name if not ALL_PROVIDERS[name][0].of_workloads} == set(), "no person comes with them"


@pytest.mark.parametrize(("chosen", "claims"), [("claim", True), ("all", False)])
def test_what_tokens_hold_is_chosen(tmp_path: Path, chosen: str, claims: bool) -> None:
    (rules,) = loaded(tmp_path, "--issuer", OKTA, "--client-id", "one", "--audience", "a", "--token-scopes", chosen).providers
    assert (rules.scope_claims is not None) == claims


def test_nobody_has_to_send_the_header_of_another_vendor(tmp_path: Path) -> None:
    configuration = loaded(tmp_path, "--issuer", OKTA, "--client-id", "one", "--audience", "a")
    assert configuration.settings.auth_type.header == ""
    assert load(EXAMPLE).settings.auth_type.header != ""


def test_everything_that_is_said_counts(tmp_path: Path) -> None:
    flags = "--prefix x-acme- --domain acme.com --domain acme.org --scope READ --scope PAY:CARD --scope REFUND"
    configuration = loaded(tmp_path, "--name", "Orders 2", *flags.split())
    settings = configuration.settings
    assert (settings.realm, settings.identity.prefix, settings.scopes) == ("Orders 2", "x-acme-", ["READ", "PAY:CARD", "REFUND"])
    assert settings.act_as.allow == ["*@acme.com", "*@acme.org"]
    assert settings.tokens is not None
    assert settings.tokens.prefix == "orders2"
    assert (tmp_path / "config" / "routes" / "orders-2.yaml").exists()


@pytest.mark.parametrize(("name", "prefix"), [("orders", "orders"), ("2nd api", "ndapi"), ("42", "api"), ("a" * 40, "a" * 16)])
def test_tokens_begin_with_the_name(name: str, prefix: str) -> None:
    assert NewApi(name=name, scopes=("READ",), header_prefix="x-a-", domains=("acme.com",)).token_prefix == prefix


@pytest.mark.parametrize("scopes", [("READ",), ("READ", "WRITE"), ("READ", "WRITE", "ADMIN", "PAY:CARD", "TRUE")], ids=len)
def test_every_scope_has_a_route(tmp_path: Path, scopes: tuple[str, ...]) -> None:
    configuration = loaded(tmp_path, *itertools.chain.from_iterable(("--scope", scope) for scope in scopes))
    assert {scope for route in routes_of(configuration.policy.routes) for scope in route.scopes} == set(scopes)


@pytest.mark.parametrize("example", EXAMPLES)
def test_an_example_is_the_one_of_the_tree(tmp_path: Path, example: str) -> None:
    configuration = loaded(tmp_path, "--example", example)
    for name in EXAMPLES[example]:
        assert (tmp_path / "config" / "routes" / name).read_bytes() == (CONFIG / "routes" / name).read_bytes()
    theirs = load(EXAMPLE)
    assert sorted(configuration.settings.scopes) == sorted(theirs.settings.scopes)
    assert configuration.route_places.keys() == theirs.route_places.keys()


@pytest.mark.parametrize("flags", [[], ["--example", "glean-client-api"], ["--scope", "READ"]], ids=" ".join)
def test_the_suite_of_the_tests_folder_passes(tmp_path: Path, flags: list[str]) -> None:
    assert init(tmp_path, *flags).exit_code == 0
    result = CliRunner().invoke(main, ["test", "--config", str(tmp_path / CONFIGURATION), "--coverage", "--json"])
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    routes = len(load(tmp_path / CONFIGURATION).route_places)
    assert told["coverage"]["reached"]["routes"] == routes
    assert told["passed"] > 2 * routes


def test_the_next_commands_work_as_they_are_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    shown = init(Path("an api"), "--name", "orders").stdout
    lines = [line.strip() for line in shown.splitlines() if line.startswith("  extauthz ")]
    assert [line.split()[1] for line in lines] == ["config", "test", "token", "serve"]
    assert all("--config 'an api/config/extauthz.yaml'" in line for line in lines)
    for line in lines[:3]:
        result = CliRunner().invoke(main, shlex.split(line)[1:])
        assert result.exit_code == 0, result.output
