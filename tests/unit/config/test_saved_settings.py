"""OAuth settings of the store laid over the file: what comes from where, what counts, and how problems are named."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from extauthz.config.effective import explained
from extauthz.config.files import Files
from extauthz.config.loader import Configuration, load
from extauthz.config.restart import needing_restart
from extauthz.config.saved_settings import KEYS, SavedSettings
from extauthz.core.credentials import Kind
from extauthz.core.model import Reason
from extauthz.errors import ConfigurationError

OKTA: Mapping[str, Any] = {
    "enabled": True,
    "provider": "okta",
    "issuer": "https://acme.okta.com/oauth2/default",
    "client_ids": ["0oa1"],
    "audience": ["api://default"],
}
OF_THE_FILE = {
    "leeway": "30s",
    "client_secret": {"env": "SECRET"},
    "proxy": {"url": "http://proxy.acme.com:3128", "user": "extauthz", "password": {"file": "proxy-password"}},
    "jwks_uri": "https://mirror.acme.com/keys",
    "users": {"u1": "ana@acme.com"},
}
TOKENS = {"enabled": False, "store": "sqlite:///tokens.db", "peppers": [{"id": "p1", "file": "pepper"}]}


def configured(folder: Path, oauth: Any, *, tokens: Any = TOKENS, scopes: Any = ("SEARCH",), **more: Any) -> Configuration:
    settings = {"version": 1, "server": {"listen": "127.0.0.1:9001"}, "oauth": oauth, "tokens": tokens}
    (folder / "routes.yaml").write_text('routes: [{match: "POST /search", scope: SEARCH}]')
    file = folder / "extauthz.yaml"
    file.write_text(yaml.safe_dump({**settings, "scopes": list(scopes), "routes": ["routes.yaml"]}, sort_keys=False))
    return load(file, **more)


def managed(folder: Path, saved: SavedSettings | Reason = Reason.STORE_UNAVAILABLE, **more: Any) -> Configuration:
    """Load a file whose settings the console manages, with keys of the file that go with every choice."""
    return configured(folder, {"managed_by": "console", "leeway": "30s", **more}, saved=saved)


def problems(folder: Path, body: Mapping[str, Any], **more: Any) -> list[str]:
    with pytest.raises(ConfigurationError) as raised:
        managed(folder, SavedSettings(7, body), **more)
    return [str(problem).removeprefix(f"{folder}/") for problem in raised.value.problems]


@pytest.mark.parametrize("reason", [Reason.STORE_UNAVAILABLE, Reason.STORE_STALE])
def test_as_long_as_nobody_knows_the_settings_no_oauth_token_is_refused_for_good(tmp_path: Path, reason: Reason) -> None:
    configuration = managed(tmp_path, reason)
    assert configuration.settings.oauth is None
    assert (configuration.policy.kinds, configuration.providers) == ({Kind.OAUTH}, ())
    assert (configuration.saved, configuration.settings_version) == (reason, 0)
    assert configuration.warnings == ()


def test_a_store_without_a_version_leaves_oauth_off(tmp_path: Path) -> None:
    configuration = managed(tmp_path, SavedSettings(0))
    assert (configuration.policy.kinds, configuration.settings_version) == (frozenset(), 0)
    (warning,) = configuration.warnings
    assert "neither oauth nor tokens is on" in warning.message


def test_a_version_counts_with_the_keys_of_the_file(tmp_path: Path) -> None:
    configuration = managed(tmp_path, SavedSettings(7, OKTA))
    (rules,) = configuration.providers
    assert (rules.issuer, rules.client_ids, rules.leeway) == (OKTA["issuer"], frozenset({"0oa1"}), 30.0)
    assert (configuration.policy.kinds, configuration.settings_version) == ({Kind.OAUTH}, 7)
    off = managed(tmp_path, SavedSettings(8, {**OKTA, "enabled": False}))
    assert (off.policy.kinds, off.providers, off.settings_version) == (frozenset(), (), 8)


def test_the_file_counts_where_it_has_the_settings_whatever_is_saved(tmp_path: Path) -> None:
    """With `yaml`, which is the default, a store is not even asked."""
    oauth = {key: value for key, value in OKTA.items() if key != "enabled"}
    for managed_by in ({}, {"managed_by": "yaml"}):
        configuration = configured(tmp_path, oauth | managed_by, saved=SavedSettings(7, {"enabled": False}))
        assert configuration.policy.kinds == {Kind.OAUTH}
        assert (configuration.saved, configuration.settings_version, configuration.settings_place) == (None, 0, None)


@pytest.mark.parametrize("key", [*OF_THE_FILE, "user_claim", "guests", "verification", "name", "ca_file", "managed_by", "users"])
def test_nothing_but_what_admins_may_change_is_taken_from_the_store(tmp_path: Path, key: str) -> None:
    assert key not in KEYS
    (problem,) = problems(tmp_path, {**OKTA, key: OF_THE_FILE.get(key, "x")})
    assert problem.startswith(f"console, version 7: {key}: is not kept in the store")
    assert "SECRET" not in problem


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({**OKTA, "client_ids": []}, ["console, version 7: client_ids: is empty: name at least one"]),
        (
            {**OKTA, "scopes": ["SEARCH", "CHAT"]},
            ["console, version 7: scopes[1]: unknown scope 'CHAT': name one of `scopes` in extauthz.yaml, or add it there"],
        ),
        (
            {"enabled": False},
            [
                "console, version 7: client_ids: is missing: write it, like client_ids: [0oa1example] "
                "(tokens of all other applications are refused)",
                "console, version 7: provider: is missing: write it, like provider: okta",
            ],
        ),
        (
            {**OKTA, "client_ids": {"a": [1]}},
            ["console, version 7: client_ids: write a list, like client_ids: [0oa1example], not a mapping"],
        ),
        ({**OKTA, "hosted_domains": ["acme.com"]}, None),
    ],
)
def test_a_problem_of_a_version_names_it(tmp_path: Path, body: Any, expected: list[str] | None) -> None:
    found = problems(tmp_path, body)
    if expected is None:
        expected = found
    assert found == expected
    assert all(problem.startswith("console, version 7: ") for problem in found)


def test_a_key_of_the_file_that_does_not_fit_is_named_with_its_line(tmp_path: Path) -> None:
    (problem,) = problems(tmp_path, OKTA, verification="introspection")
    assert problem.startswith("extauthz.yaml:7: oauth.verification: introspection does not verify okta tokens")


def test_keys_of_the_file_are_looked_at_before_anything_is_saved(tmp_path: Path) -> None:
    for saved in (Reason.STORE_UNAVAILABLE, SavedSettings(0)):
        with pytest.raises(ConfigurationError, match=r"extauthz\.yaml:\d+: oauth\.leeway: is too long"):
            configured(tmp_path, {"managed_by": "console", "leeway": "2m"}, saved=saved)
        with pytest.raises(ConfigurationError, match="unknown key, did you mean 'jwks_uri'"):
            configured(tmp_path, {"managed_by": "console", "jwks_url": "https://acme.com"}, saved=saved)


def test_what_counts_is_explained_with_its_version(tmp_path: Path) -> None:
    told = explained(managed(tmp_path, SavedSettings(7, OKTA)))
    sources = told["sources"]
    assert (sources["oauth.client_ids"], sources["oauth.enabled"]) == ("console, version 7", "console, version 7")
    assert sources["oauth.domains"] == sources["oauth.refresh"] == "default"
    assert str(sources["oauth.leeway"]).startswith(f"{tmp_path / 'extauthz.yaml'}:")
    unknown = explained(managed(tmp_path))
    assert unknown["settings"]["oauth"] == {"managed_by": "console"}
    assert unknown["hash"] == told["hash"], "the hash is that of the files"


@pytest.mark.parametrize("enabled", [True, False])
def test_the_store_of_the_settings_does_not_depend_on_issued_tokens(tmp_path: Path, enabled: bool) -> None:
    configuration = configured(tmp_path, {"managed_by": "console"}, tokens={**TOKENS, "enabled": enabled})
    assert configuration.settings_place == tmp_path / "tokens.db"
    assert configuration.store_place == (tmp_path / "tokens.db" if enabled else None)


def test_who_manages_the_settings_and_where_is_settled_at_start(tmp_path: Path) -> None:
    def paths(before: Configuration, after: Configuration) -> list[str]:
        return [problem.path for problem in needing_restart(before, after)]

    console = managed(tmp_path, SavedSettings(7, OKTA))
    elsewhere = configured(tmp_path, {"managed_by": "console"}, tokens={**TOKENS, "store": "sqlite:///other.db"})
    without = configured(tmp_path, None)
    by_file = configured(tmp_path, {key: value for key, value in OKTA.items() if key != "enabled"})
    assert paths(console, managed(tmp_path)) == paths(without, by_file) == paths(by_file, without) == []
    assert paths(console, by_file) == paths(by_file, console) == paths(console, without) == ["oauth.managed_by"]
    assert paths(console, elsewhere) == ["tokens.store"]


def test_files_are_read_again_as_they_were(tmp_path: Path) -> None:
    """A version is laid over what is served, and not over what stands on the disk by now."""
    configuration = managed(tmp_path)
    configuration.file.write_text("half")
    again = load(configuration.file, configuration.files.again(), saved=SavedSettings(7, OKTA))
    assert (again.settings_version, again.files.digest) == (7, configuration.files.digest)
    assert again.files.changed()


def test_a_secret_that_was_not_needed_before_is_read_when_it_is(tmp_path: Path) -> None:
    (tmp_path / "proxy-password").write_text("hunter2")
    (tmp_path / "pepper").write_bytes(bytes(range(65, 97)))
    configuration = managed(tmp_path, proxy=OF_THE_FILE["proxy"])
    configuration.read_secrets({})
    assert tmp_path / "proxy-password" not in configuration.files.contents
    again = load(configuration.file, configuration.files.again(), saved=SavedSettings(7, OKTA))
    assert again.proxy_auth({}) == ("extauthz", "hunter2")
    in_memory = load(again.file, Files(again.files.contents), saved=SavedSettings(7, OKTA))
    assert in_memory.proxy_auth({}) == ("extauthz", "hunter2")
    assert in_memory.files.again().contents == again.files.contents


@pytest.mark.parametrize("provider", [["okta"], {"okta": 1}, 5, None, "keycloak"])
def test_a_provider_that_is_none_is_a_problem(tmp_path: Path, provider: Any) -> None:
    """Whatever stands in the store: the rest of the service goes on."""
    configured(tmp_path, {"managed_by": "console"})
    with pytest.raises(ConfigurationError) as raised:
        load(tmp_path / "extauthz.yaml", saved=SavedSettings(3, {**OKTA, "provider": provider}))
    assert {each.path.split("[")[0] for each in raised.value.problems} >= {"provider"}
