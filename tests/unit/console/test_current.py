"""Which roles count while the files have an error: never more than the last good ones, and less as soon as it can be read."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, cast

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from extauthz.admin.administration import Store
from extauthz.admin.rights import Role
from extauthz.config.console import ConsoleSection
from extauthz.config.loader import load
from extauthz.config.restart import CONSOLE_EFFECTS
from extauthz.config.settings import RolesSection
from extauthz.console.current import CurrentConfiguration, narrower, role_in
from extauthz.telemetry.conditions import ConditionKey

VAL, ANA, CTO = "val@acme.com", "ana@acme.com", "cto@acme.com"
SETTINGS: dict[str, Any] = {
    "version": 1,
    "server": {"listen": "127.0.0.1:9001"},
    "tokens": {"store": "sqlite:///tokens.db", "peppers": [{"id": "p1", "file": "pepper"}]},
    "scopes": ["SEARCH"],
    "routes": ["routes.yaml"],
    "roles": {"viewers": [VAL], "admins": [ANA], "super_admins": [CTO]},
    "console": {},
}
ROUTES = 'routes: [{match: "POST /search", scope: SEARCH}]\n'
OTHER_ERROR = {"server": {"listen": "nowhere"}}
BEFORE = {VAL: Role.VIEWER, ANA: Role.ADMIN, CTO: Role.SUPER_ADMIN}


class Edited:
    """A configuration that is edited while a console runs, which looks at it with each question."""

    def __init__(self, folder: Path, **changes: Any) -> None:
        """Write what it starts with."""
        self.file = folder / "extauthz.yaml"
        (folder / "routes.yaml").write_text(f"{ROUTES}# end\n")
        self.write(**changes)
        self.ticks = 0.0
        # No store is asked.
        store = cast(Store, None)
        self.current = CurrentConfiguration(load(self.file), store, monotonic=self.tick, now=lambda: 0.0)

    def tick(self) -> float:
        self.ticks += 1
        return self.ticks

    def write(self, text: str | None = None, **changes: Any) -> None:
        """Write a text, or SETTINGS with these sections."""
        sections = {name: value for name, value in (SETTINGS | changes).items() if value is not None}
        self.file.write_text(f"{yaml.safe_dump(sections, sort_keys=False)}# end\n" if text is None else text)

    @property
    def roles(self) -> dict[str, Role]:
        """Return who has which role now."""
        section = self.current.configuration().settings.roles
        return {email: role for email in BEFORE if (role := role_in(section, email)) is not None}

    @property
    def notes(self) -> list[ConditionKey]:
        return [notice.key for notice in self.current.notices()]


BROKEN: dict[str, tuple[dict[str, Any], dict[str, Role]]] = {
    "a role less": ({"roles": {"viewers": [VAL], "super_admins": [CTO]}}, {VAL: Role.VIEWER, CTO: Role.SUPER_ADMIN}),
    "a lesser role": ({"roles": {"viewers": [ANA, CTO]}}, {ANA: Role.VIEWER, CTO: Role.VIEWER}),
    "a greater role": ({"roles": {"super_admins": [VAL, ANA, CTO, "new@acme.com"]}}, BEFORE),
    "other letters": ({"roles": {"viewers": ["VAL@ACME.COM"]}}, {VAL: Role.VIEWER}),
    "no section": ({"roles": None}, {}),
    "a misspelt section": ({"roles": None, "rolls": SETTINGS["roles"]}, {}),
    "an empty section": ({"roles": {}}, {}),
    "an error in the section": ({"roles": {"super_admins": ["nobody"]}}, BEFORE),
    "a key that the section has not": ({"roles": {"super_admins": [CTO], "owners": []}}, BEFORE),
    "no list": ({"roles": [CTO]}, BEFORE),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_role_counts_only_as_long_as_the_last_good_file_and_the_broken_one_give_it(name: str, tmp_path: Path) -> None:
    sections, expected = BROKEN[name]
    edited = Edited(tmp_path)
    assert (edited.roles, edited.notes) == (BEFORE, [])
    edited.write(**sections, **OTHER_ERROR)
    assert (edited.roles, edited.notes) == (expected, [ConditionKey.CONFIGURATION_CURRENT])
    edited.write()
    assert (edited.roles, edited.notes) == (BEFORE, [])


@pytest.mark.parametrize(
    "text",
    ["roles: [", "", "- roles", "roles: {}\nroles: {}\n", "roles: {viewers: *somebody}\n", "roles:\n", "\0", None],
    ids=["no YAML", "empty", "a list", "twice", "an alias", "null", "a control character", "no file"],
)
def test_what_a_broken_file_took_a_file_that_cannot_be_read_does_not_give_back(text: str | None, tmp_path: Path) -> None:
    edited = Edited(tmp_path)
    edited.write(roles={"super_admins": [CTO]}, **OTHER_ERROR)
    assert edited.roles == {CTO: Role.SUPER_ADMIN}
    edited.file.unlink()
    if text is not None:
        edited.write(text)
    assert (edited.roles, edited.notes) == ({CTO: Role.SUPER_ADMIN}, [ConditionKey.CONFIGURATION_CURRENT])
    edited.write(**OTHER_ERROR)
    assert edited.roles == {CTO: Role.SUPER_ADMIN}, "only a file without an error gives a role"


@pytest.mark.parametrize("begin", [{"reload": {"end_marker": True}}, {}], ids=["of before", "of the file itself"])
def test_half_a_file_takes_no_role_where_its_end_is_marked(begin: dict[str, Any], tmp_path: Path) -> None:
    edited = Edited(tmp_path, **begin)
    edited.write("version: 1\n" if begin else "version: 1\nreload: {end_marker: true}\n")
    assert (edited.roles, edited.notes) == (BEFORE, [ConditionKey.CONFIGURATION_CURRENT])


def test_without_a_mark_half_a_file_gives_no_role(tmp_path: Path) -> None:
    edited = Edited(tmp_path)
    edited.write("version: 1\n")
    assert edited.roles == {}


def test_a_fault_in_the_reading_is_noted_and_ends_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> Any:
        raise ZeroDivisionError

    edited = Edited(tmp_path)
    monkeypatch.setattr("extauthz.console.current.load", fail)
    edited.write(roles={"super_admins": [CTO]})
    assert (edited.roles, edited.notes) == ({CTO: Role.SUPER_ADMIN}, [ConditionKey.CONFIGURATION_CURRENT])


def test_who_asks_while_another_thread_reads_gets_what_it_finds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    edited = Edited(tmp_path)
    reading, asked = threading.Event(), threading.Event()

    def slow(*args: Any, **more: Any) -> Any:
        reading.set()
        # With the fault this question is answered meanwhile, by what counted before.
        asked.wait(0.2)
        return load(*args, **more)

    def ask() -> dict[str, Role]:
        reading.wait(10)
        try:
            return edited.roles
        finally:
            asked.set()

    monkeypatch.setattr("extauthz.console.current.load", slow)
    edited.write(roles={"super_admins": [CTO]})
    with ThreadPoolExecutor(2) as threads:
        second = threads.submit(ask)
        first = threads.submit(lambda: edited.roles)
        assert (first.result(), second.result()) == ({CTO: Role.SUPER_ADMIN}, {CTO: Role.SUPER_ADMIN})


def test_a_notice_names_few_places_and_nothing_that_stands_there(tmp_path: Path) -> None:
    edited = Edited(tmp_path)
    edited.write(scopes=[f"hunter {number}" for number in range(40)])
    (notice,) = edited.current.notices()
    assert notice.text.count("; ") == 5
    assert ("scopes[0] in " in notice.text, " more)" in notice.text, "hunter" in notice.text) == (True, True, False)


def test_the_content_of_the_secret_of_the_client_waits_for_a_restart(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("one secret of the client")
    oidc = {"issuer": "https://acme.okta.com", "client_id": "c", "client_secret": {"file": "secret"}}
    edited = Edited(tmp_path, console={"oidc": oidc})
    # As the start does.
    assert edited.current.configuration().console_client_secret({}) is not None
    assert edited.notes == []
    (tmp_path / "secret").write_text("another secret of the client")
    (notice,) = edited.current.notices()
    assert (notice.key, "console.oidc.client_secret in " in notice.text) == (ConditionKey.RESTART_NOT_NEEDED, True)


SECTIONS = st.builds(
    RolesSection, **{name: st.lists(st.sampled_from([*BEFORE]), max_size=3) for name in ("viewers", "admins", "super_admins")}
)


@given(SECTIONS, SECTIONS)
def test_nobody_has_more_of_two_sections_than_of_each(before: RolesSection, after: RolesSection) -> None:
    ranks = [None, *Role]
    for email in BEFORE:
        of_both = min(role_in(before, email), role_in(after, email), key=ranks.index)
        assert role_in(narrower(before, after), email) == of_both


def test_the_table_says_of_each_key_of_the_section_when_it_counts() -> None:
    assert {key.partition(".")[2] for key in CONSOLE_EFFECTS if key.startswith("console.")} == set(ConsoleSection.model_fields)
