"""What CONTRIBUTING.md tells to touch is there, and a file that is forgotten is noticed."""

from __future__ import annotations

import ast
import re
import typing
from functools import cache

import click
import pytest
import yaml

from docs.reference import generate
from extauthz import cli
from extauthz.admin.rights import Operation
from extauthz.cli import main
from extauthz.config.oauth import ProviderEntry
from extauthz.config.presets import ALL_PROVIDERS, PRESETS
from extauthz.config.settings import Settings
from extauthz.core.provider_table import PROVIDERS
from extauthz.demo.providers import IssuerRole, entry_of
from tests.support import vectors
from tests.support.project import ROOT
from tests.unit.cli.test_cli_rights import COMMANDS
from tests.unit.core.test_claim_types import SOURCES

PAGE = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
PARTS = dict(re.findall(r"^\*\*(.+?)\*\*\n((?:- .+\n)+)", PAGE, re.MULTILINE))

# Commands of tokens, audit and store that nobody runs for somebody else: they have no --as.
AS_ONESELF = {("token", "verify"), ("store", "status"), ("store", "migrate"), ("store", "backup")}


@cache
def sources(folder: str) -> str:
    """Return all that a folder of the project has in Python and in Cython, as one text."""
    paths = (path for path in sorted((ROOT / folder).rglob("*")) if path.suffix in (".py", ".pyx"))
    return "\n".join(path.read_text("utf-8") for path in paths)


# The page


def test_it_is_one_screen() -> None:
    assert len(PAGE.splitlines()) <= 60


def test_every_part_names_files_and_tests_that_are_there() -> None:
    assert list(PARTS) == ["a provider", "a reason", "a metric", "a command", "a key of the YAML"]
    tests = set(re.findall(r"^(?:async )?def (test_\w+)", sources("tests"), re.MULTILINE))
    tests |= {path.stem for path in (ROOT / "tests").rglob("test_*.py")}
    lines = [
        line for line in PAGE.partition("\n## How to add …\n")[2].splitlines() if line and not line.startswith(("**", "Each "))
    ]
    assert lines == [line for part in PARTS.values() for line in part.splitlines()], "a line that is not read is not checked"
    for name, part in PARTS.items():
        for line in part.splitlines():
            assert re.search(r"`[a-z]+/[^`]*`|the table of", line), f"{name}: {line}"
            names = re.findall(r"`(test_\w+)`", line)
            assert names, f"{name}: {line}"
            assert [test for test in names if test not in tests] == []


# A provider


def test_the_schema_knows_the_providers_of_the_table() -> None:
    assert set(typing.get_args(ProviderEntry.model_fields["provider"].annotation)) == set(ALL_PROVIDERS)


KNOW_NAMES = {"core/provider_table.py", "config/oauth.py", "config/provider_rules.py", "demo", "initial/providers.py"}
"""Where a provider has a name: elsewhere its row says what is to be done, so that a new one is not forgotten."""


def test_nothing_else_knows_a_provider_by_name() -> None:
    package = ROOT / "extauthz"
    found = {
        path.relative_to(package).as_posix()
        for path in package.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Constant) and node.value in set(PROVIDERS)
    }
    assert "core/provider_table.py" in found
    assert {name for name in found if name not in KNOW_NAMES and name.partition("/")[0] not in KNOW_NAMES} == set()


@pytest.mark.parametrize("name", PROVIDERS)
def test_a_provider_is_documented_played_and_its_claims_are_tried(name: str) -> None:
    table = (ROOT / "docs" / "decisions.md").read_text("utf-8").partition("\nBy provider")[2].partition("\n- ")[0]
    assert re.search(rf"^\| {name}\b", table, re.MULTILINE), "docs/decisions.md: no row"
    page = (ROOT / "docs" / "oauth-providers.md").read_text("utf-8")
    assert re.search(rf"^\| `{name}`", page, re.MULTILINE), "docs/oauth-providers.md: no row"
    assert name in {role.value.partition("-")[0] for role in IssuerRole}, "extauthz/demo/providers.py: no role"
    assert name in {source.rules.provider.name for source in SOURCES.values()}, "tests/vectors/claims.yaml: no claims"


@pytest.mark.parametrize("key", ["provider", "issuer", "user_claim"])
@pytest.mark.parametrize("name", PROVIDERS)
def test_the_example_says_of_a_key_what_it_means_for_each_provider(name: str, key: str) -> None:
    comment = re.search(rf"((?:  #.*\n)+)  {key}: ", (ROOT / "config" / "extauthz.yaml").read_text("utf-8"))
    assert comment
    assert re.search(rf"\b{name}\b", comment[1])


@pytest.mark.parametrize("name", PROVIDERS)
def test_a_provider_is_named_where_users_look_for_it(name: str) -> None:
    default = yaml.safe_load((ROOT / "docs" / "reference" / "keys.yaml").read_text("utf-8"))["oauth.user_claim"]["default"]
    assert re.search(rf"\b{name}\b", default), "docs/reference/keys.yaml: no default of user_claim"
    release = (ROOT / "README.md").read_text("utf-8").partition("\n## In this release\n")[2].partition(";")[0]
    assert re.search(rf"\b{name}\b", release, re.IGNORECASE), "README.md: not in this release"


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_is_documented_and_its_tokens_are_tried(name: str) -> None:
    page = (ROOT / "docs" / "oauth-providers.md").read_text("utf-8")
    assert re.search(rf"^\| `{name}`", page, re.MULTILINE), "docs/oauth-providers.md: no row"
    assert name in {each["of"] for each in vectors.load("openid")["providers"]}, "tests/vectors/openid.yaml: no tokens"


@pytest.mark.parametrize("role", IssuerRole)
def test_a_role_of_the_demo_is_an_entry_of_its_provider(role: IssuerRole) -> None:
    entry = ProviderEntry.model_validate(entry_of(role, "http://127.0.0.1:9002"))
    assert (entry.name, entry.provider) == (role.value, role.value.partition("-")[0])
    assert entry.row in ALL_PROVIDERS[entry.provider]


# A command


def leaves(command: click.Command, path: tuple[str, ...] = ()) -> dict[tuple[str, ...], set[str]]:
    """Return the commands that do something, by their words, with their flags."""
    if not isinstance(command, click.Group):
        return {path: {flag for parameter in command.params for flag in parameter.opts}}
    context = click.Context(command)
    inner = [(name, command.get_command(context, name)) for name in command.list_commands(context)]
    return {leaf: flags for name, each in inner if each is not None for leaf, flags in leaves(each, (*path, name)).items()}


def test_a_module_that_has_a_command_is_listed() -> None:
    modules = {path.stem: path.read_text("utf-8") for path in (ROOT / "extauthz" / "cli").glob("*.py")}
    names = {name.replace("_", "-") for name, text in modules.items() if re.search(r"^def command\(", text, re.MULTILINE)}
    assert names == {*cli.COMMANDS, *cli.HIDDEN, *cli.DEPRECATED}


def test_what_a_role_may_do_with_a_command_is_tried() -> None:
    flags_of = {leaf: flags for leaf, flags in leaves(main).items() if leaf[0] in {"token", "audit", "store"}}
    assert {leaf for leaf, flags in flags_of.items() if "--as" in flags} == {command[:2] for command in COMMANDS}
    assert {leaf for leaf, flags in flags_of.items() if "--as" not in flags} == AS_ONESELF


@pytest.mark.parametrize("operation", Operation)
def test_an_operation_is_asked_for_by_a_use_case(operation: Operation) -> None:
    """A right that nobody asks for is a right that everybody has."""
    use_cases = [path.read_text("utf-8") for path in (ROOT / "extauthz" / "admin").glob("*.py") if path.name != "rights.py"]
    assert any(f"Operation.{operation.name}" in text for text in use_cases)


# A key of the YAML

OF_PYDANTIC = {"version"}
"""Keys that the schema itself is about."""


@pytest.mark.parametrize("name", sorted({path[-1].removesuffix("[]") for path, _ in generate.fields(Settings)} - OF_PYDANTIC))
def test_a_key_is_read_by_somebody(name: str) -> None:
    """A key that is checked and then read by nobody would change nothing, and nobody would be told."""
    assert re.search(rf"\.{name}\b", sources("extauthz")), f"{name}: no code reads it"


def test_a_key_that_nobody_reads_would_be_noticed() -> None:
    assert not re.search(r"\.half_open_time\b", sources("extauthz"))
