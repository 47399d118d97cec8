"""OAuth settings as admins change them: who may, which refusals by their field, and what the history tells."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from extauthz.adapters.store.sql import SqlTokenStore
from extauthz.admin import oauth_settings
from extauthz.admin.administration import Administration
from extauthz.admin.oauth_settings import CheckedSettings, CurrentSettings, SavedVersion, SettingsDifference
from extauthz.admin.outcomes import Refused
from extauthz.admin.rights import Actor, Role
from extauthz.admin.token_requests import TokenRules
from extauthz.config.loader import Configuration, load
from extauthz.core.act_as import ActAs

NOW = 1_800_000_000
PEPPERS = {"p1": b"a pepper for tests, 32 bytes long"}
RULES = TokenRules("glean", frozenset({"SEARCH", "CHAT"}), 86_400.0, ActAs())
VIEWER, ADMIN, SUPER_ADMIN = (Actor(f"{role}@acme.com", role, "a test") for role in Role)
OKTA: Mapping[str, Any] = {
    "enabled": True,
    "provider": "okta",
    "issuer": "https://acme.okta.com/oauth2/default",
    "client_ids": ["0oa1", "0oa2"],
    "audience": ["api://default"],
}
GUID = "11111111-2222-3333-4444-555555555555"


def configured(folder: Path, oauth: Any, **changes: Any) -> Configuration:
    settings = {
        "version": 1,
        "server": {"listen": "127.0.0.1:9001"},
        "tokens": {"store": "sqlite:///tokens.db", "peppers": [{"id": "p1", "file": "pepper"}]},
        "act_as": {"allow": ["*@acme.com"]},
        "scopes": ["SEARCH", "CHAT"],
        "routes": ["routes.yaml"],
    }
    file = folder / "extauthz.yaml"
    (folder / "routes.yaml").write_text('routes: [{match: "POST /search", scope: SEARCH}]')
    file.write_text(yaml.safe_dump({**settings, **changes, "oauth": oauth}, sort_keys=False))
    return load(file)


@pytest.fixture
def managed(tmp_path: Path) -> Configuration:
    """A configuration whose OAuth settings the console manages."""
    return configured(tmp_path, {"managed_by": "console"})


@pytest.fixture
def administration(tmp_path: Path) -> Iterator[Administration]:
    """An empty installation."""
    with closing(SqlTokenStore(tmp_path / "tokens.db", create=True)) as store:
        store.migrate()
        yield Administration(store, RULES, frozenset({"glean"}), lambda: PEPPERS)


def done(outcome: Any) -> Any:
    assert not isinstance(outcome, Refused), outcome
    return outcome


def refusals(outcome: object) -> list[tuple[str, str]]:
    assert isinstance(outcome, Refused), outcome
    return [(refusal.field, refusal.message) for refusal in outcome.refusals]


def saved(administration: Administration, managed: Configuration, wanted: Mapping[str, Any], expected: int = 0) -> SavedVersion:
    version = done(oauth_settings.save(administration, managed, SUPER_ADMIN, wanted, NOW, expected=expected))
    assert isinstance(version, SavedVersion)
    return version


def current(administration: Administration, configuration: Configuration, actor: Actor = VIEWER) -> CurrentSettings:
    found = done(oauth_settings.current(administration, configuration, actor))
    assert isinstance(found, CurrentSettings)
    return found


# --- what counts


def test_before_the_first_version_oauth_is_off(administration: Administration, managed: Configuration) -> None:
    assert current(administration, managed) == CurrentSettings(True, "console, version 0", False, ())


def test_what_was_saved_is_what_counts(administration: Administration, managed: Configuration) -> None:
    first = saved(administration, managed, OKTA)
    assert first == SavedVersion(1, NOW, SUPER_ADMIN.name, "a test", OKTA)
    assert current(administration, managed) == CurrentSettings(True, "console, version 1", True, (OKTA,), first)
    second = saved(administration, managed, {**OKTA, "enabled": False}, expected=1)
    found = current(administration, managed)
    assert (found.enabled, found.version, found.saved) == (False, 2, second)
    assert done(oauth_settings.history(administration, VIEWER)) == (second, first)
    assert done(oauth_settings.history(administration, VIEWER, before=2)) == (first,)


FILE_OKTA = {key: value for key, value in OKTA.items() if key != "enabled"}


@pytest.mark.parametrize(
    ("oauth", "enabled", "providers"),
    [
        (FILE_OKTA, True, (OKTA,)),
        ({**FILE_OKTA, "enabled": False}, False, ({**OKTA, "enabled": False},)),
        ({"providers": [FILE_OKTA, {"provider": "azure", "issuer": f"{GUID}/v2.0", "client_ids": ["a"]}]}, True, None),
    ],
)
def test_a_file_that_has_the_settings_is_shown_and_cannot_be_changed(
    tmp_path: Path, administration: Administration, oauth: Any, enabled: bool, providers: Any
) -> None:
    configuration = configured(tmp_path, oauth)
    found = current(administration, configuration)
    line = (tmp_path / "extauthz.yaml").read_text().splitlines().index("oauth:") + 1
    assert (found.is_managed, found.place, found.enabled, found.version) == (
        False,
        f"{tmp_path / 'extauthz.yaml'}:{line}",
        enabled,
        0,
    )
    assert found.providers == providers if providers else len(found.providers) == 2
    for outcome in (
        oauth_settings.save(administration, configuration, SUPER_ADMIN, OKTA, NOW, expected=0),
        oauth_settings.check(configuration, SUPER_ADMIN, OKTA),
    ):
        ((field, message),) = refusals(outcome)
        assert field == "managed_by"
        assert message.startswith(f"{found.place} has the OAuth settings: ")
    assert administration.store.settings().version == 0


def test_a_file_without_oauth_has_none(tmp_path: Path, administration: Administration) -> None:
    found = current(administration, configured(tmp_path, None))
    assert (found.is_managed, found.enabled, found.providers) == (False, False, ())


# --- rights


@pytest.mark.parametrize("actor", [VIEWER, ADMIN], ids=lambda actor: actor.role.value)
def test_only_a_super_admin_changes_settings(administration: Administration, managed: Configuration, actor: Actor) -> None:
    saved(administration, managed, OKTA)
    for outcome in (
        oauth_settings.check(managed, actor, {}),
        oauth_settings.save(administration, managed, actor, {**OKTA, "enabled": False}, NOW, expected=1),
        oauth_settings.go_back(administration, managed, actor, 1, NOW, expected=1),
    ):
        ((field, message),) = refusals(outcome)
        assert (field, "changing the OAuth settings needs a super admin" in message) == ("actor", True)
    assert administration.store.settings().version == 1
    assert current(administration, managed, actor).version == len(done(oauth_settings.history(administration, actor))) == 1


# --- what is refused, and what is read


@pytest.mark.parametrize(
    ("wanted", "values"),
    [
        ({**OKTA, "client_ids": " 0oa1 ,0oa2,"}, OKTA),
        ({**OKTA, "audience": "api://default", "domains": "", "hosted_domains": [], "scopes": None}, OKTA),
        ({**OKTA, "scopes": ["search"]}, {**OKTA, "scopes": ["SEARCH"]}),
        ({**OKTA, "scopes": "search, Chat"}, {**OKTA, "scopes": ["SEARCH", "CHAT"]}),
        ({**OKTA, "scopes": "claim"}, {**OKTA, "scopes": "claim"}),
        (
            {"enabled": True, "provider": "azure", "issuer": f"{GUID}/v2.0", "client_ids": "a"},
            {
                "enabled": True,
                "provider": "azure",
                "issuer": f"https://login.microsoftonline.com/{GUID}/v2.0",
                "client_ids": ["a"],
            },
        ),
        (
            {"enabled": False, "provider": "gsuite", "issuer": "", "client_ids": "a", "domains": "acme.com"},
            {"enabled": False, "provider": "gsuite", "client_ids": ["a"], "domains": ["acme.com"]},
        ),
    ],
)
def test_settings_are_kept_as_the_configuration_reads_them(
    administration: Administration, managed: Configuration, wanted: Any, values: Any
) -> None:
    checked = done(oauth_settings.check(managed, SUPER_ADMIN, wanted))
    assert isinstance(checked, CheckedSettings)
    assert checked.values == values
    assert saved(administration, managed, wanted).values == values
    assert current(administration, managed).providers == (values,)
    assert done(oauth_settings.check(managed, SUPER_ADMIN, values)).values == values


def test_what_is_worth_a_look_is_said_before_it_is_saved(managed: Configuration) -> None:
    assert done(oauth_settings.check(managed, SUPER_ADMIN, OKTA)).warnings == ()
    gsuite = {"provider": "gsuite", "client_ids": "a", "domains": "gmail.com"}
    warnings = done(oauth_settings.check(managed, SUPER_ADMIN, gsuite, version=6)).warnings
    assert [warning.partition(":")[0] for warning in warnings] == ["domains", "provider"]
    assert "'gmail.com'" in warnings[0]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"provider": None}, [("provider", "is missing: write it, like provider: okta")]),
        (
            {"client_ids": ""},
            [
                (
                    "client_ids",
                    "is missing: write it, like client_ids: [0oa1example] (tokens of all other applications are refused)",
                )
            ],
        ),
        ({"client_ids": ["a", 7]}, [("client_ids", "7 is not text: write it in quotes")]),
        ({"issuer": "http://acme.okta.com"}, [("issuer", None)]),
        ({"issuer": "https://ana:secret@acme.okta.com"}, [("issuer", None)]),
        ({"issuer": "https://acme.okta.com/oauth2/default?x=y"}, [("issuer", None)]),
        ({"provider": "azure", "issuer": f"https://evil.example/{GUID}/v2.0", "audience": None}, [("issuer", None)]),
        ({"scopes": ["SERCH"]}, [("scopes", "unknown scope 'SERCH', did you mean 'SEARCH'?")]),
        ({"enabled": "perhaps"}, [("enabled", "write true or false, not 'perhaps'")]),
        ({"client_secret": {"env": "X"}}, [("client_secret", None)]),
        ({"jwks_uri": "https://evil.example/keys"}, [("jwks_uri", None)]),
        ({"managed_by": "yaml"}, [("managed_by", None)]),
        ({"domains": "acme"}, [("domains", None)]),
        ({"hosted_domains": "acme.com"}, [("hosted_domains", None)]),
        ({"audience": None}, [("audience", None)]),
        ({"provider": "azure"}, [("issuer", None)]),
    ],
    ids=str,
)
def test_each_refusal_stands_beside_its_field(
    administration: Administration, managed: Configuration, changes: Any, expected: Any
) -> None:
    outcome = oauth_settings.save(administration, managed, SUPER_ADMIN, {**OKTA, **changes}, NOW, expected=0)
    found = refusals(outcome)
    assert [field for field, _ in found] == [field for field, _ in expected]
    told = [(message, words) for (_, message), (_, words) in zip(found, expected, strict=True)]
    assert [message for message, words in told if words is not None] == [words for _, words in told if words is not None]
    assert [message for message, _ in told if "secret" in message] == []
    assert administration.store.settings().version == 0


def test_a_key_of_the_file_that_the_choice_does_not_fit_is_named_with_its_line(
    tmp_path: Path, administration: Administration
) -> None:
    configuration = configured(tmp_path, {"managed_by": "console", "verification": "introspection"})
    outcome = oauth_settings.save(administration, configuration, SUPER_ADMIN, OKTA, NOW, expected=0)
    ((field, message),) = refusals(outcome)
    assert field == "provider"
    assert message.startswith(f"this does not fit the file: {tmp_path / 'extauthz.yaml'}:")
    assert "oauth.verification: introspection does not verify okta tokens" in message


@pytest.mark.parametrize("key", ["client_ids", "audience"])
def test_the_client_of_logins_cannot_be_saved_as_one_of_access_tokens(tmp_path: Path, key: str) -> None:
    """Else the ID token of everybody who logs in to the console could pass as an access token."""
    console = {"oidc": {"issuer": "https://acme.okta.com", "client_id": "0oa9"}}
    managed = configured(tmp_path, {"managed_by": "console"}, console=console)
    message = (
        "names the client of console.oidc too, and a login could pass as an access token: give the console a client of its own"
    )
    wanted = {**OKTA, key: f"{OKTA[key][0]}, 0oa9"}
    assert refusals(oauth_settings.check(managed, SUPER_ADMIN, wanted)) == [(key, message)]
    assert isinstance(oauth_settings.check(managed, SUPER_ADMIN, OKTA), CheckedSettings)


def test_two_admins_do_not_undo_each_others_work(administration: Administration, managed: Configuration) -> None:
    saved(administration, managed, OKTA)
    outcome = oauth_settings.save(administration, managed, SUPER_ADMIN, {**OKTA, "enabled": False}, NOW, expected=0)
    assert refusals(outcome) == [("version", "version 1 was saved meanwhile: look at it, and change that one")]


def test_a_version_that_changes_nothing_is_not_saved(administration: Administration, managed: Configuration) -> None:
    saved(administration, managed, OKTA)
    outcome = oauth_settings.save(administration, managed, SUPER_ADMIN, {**OKTA, "client_ids": "0oa1, 0oa2"}, NOW, expected=1)
    assert refusals(outcome) == [("version", "nothing differs from version 1")]


def test_the_same_settings_are_saved_anew_with_the_newest_pepper(administration: Administration, managed: Configuration) -> None:
    """So that the one before can leave the list."""
    saved(administration, managed, OKTA)
    newer = replace(administration, read_peppers=lambda: {"p2": b"another pepper, also 32 bytes long", **PEPPERS})
    assert saved(newer, managed, OKTA, expected=1).version == 2
    without = replace(administration, read_peppers=lambda: {"p2": b"another pepper, also 32 bytes long"})
    assert current(without, managed).enabled
    outcome = oauth_settings.save(newer, managed, SUPER_ADMIN, OKTA, NOW, expected=2)
    assert refusals(outcome) == [("version", "nothing differs from version 2")]


# --- the history


def test_going_back_saves_the_earlier_settings_once_more(administration: Administration, managed: Configuration) -> None:
    saved(administration, managed, OKTA)
    saved(administration, managed, {**OKTA, "enabled": False}, expected=1)
    third = done(oauth_settings.go_back(administration, managed, SUPER_ADMIN, 1, NOW + 1, expected=2))
    assert (third.version, third.values) == (3, OKTA)
    for version in (0, 4, -1):
        outcome = oauth_settings.go_back(administration, managed, SUPER_ADMIN, version, NOW, expected=3)
        assert refusals(outcome) == [("version", f"there is no version {version} of the OAuth settings")]
    stale = oauth_settings.go_back(administration, managed, SUPER_ADMIN, 2, NOW, expected=2)
    assert [field for field, _ in refusals(stale)] == ["version"]


def test_a_version_that_does_not_fit_any_more_is_said_to(tmp_path: Path, administration: Administration) -> None:
    saved(administration, configured(tmp_path, {"managed_by": "console"}), {**OKTA, "scopes": ["CHAT"]})
    narrower = configured(tmp_path, {"managed_by": "console"}, scopes=["SEARCH"])
    found = current(administration, narrower)
    assert found.saved is not None
    assert "does not fit the configuration: console, version 1: scopes[0]: unknown scope 'CHAT'" in str(found.saved.problem)
    assert not found.enabled
    outcome = oauth_settings.go_back(administration, narrower, SUPER_ADMIN, 1, NOW, expected=1)
    assert [field for field, _ in refusals(outcome)] == ["scopes"]


def test_a_version_whose_pepper_is_gone_is_not_shown_and_not_gone_back_to(
    administration: Administration, managed: Configuration
) -> None:
    saved(administration, managed, OKTA)
    other = replace(administration, read_peppers=lambda: {"p2": b"another pepper, also 32 bytes long"})
    found = current(other, managed)
    assert (found.enabled, found.providers) == (False, ({},))
    assert found.saved is not None
    assert "needs pepper 'p1'" in str(found.saved.problem)
    ((field, message),) = refusals(oauth_settings.go_back(other, managed, SUPER_ADMIN, 1, NOW, expected=1))
    assert (field, message.startswith("version 1 needs pepper 'p1'")) == ("version", True)
    again = done(oauth_settings.save(other, managed, SUPER_ADMIN, OKTA, NOW, expected=1))
    assert (again.version, current(other, managed).saved) == (2, again)


@pytest.mark.parametrize("limit", [0, -1, 1001])
def test_a_page_of_the_history_is_bounded(administration: Administration, limit: int) -> None:
    assert [field for field, _ in refusals(oauth_settings.history(administration, VIEWER, limit=limit))] == ["limit"]


def test_a_difference_names_what_was_added_changed_and_left_out() -> None:
    after = {**OKTA, "enabled": False, "scopes": ["SEARCH"]}
    del after["audience"]
    assert oauth_settings.difference(OKTA, after) == (
        SettingsDifference("enabled", True, False),
        SettingsDifference("audience", ["api://default"], None),
        SettingsDifference("scopes", None, ["SEARCH"]),
    )
    assert oauth_settings.difference(OKTA, dict(OKTA)) == ()
