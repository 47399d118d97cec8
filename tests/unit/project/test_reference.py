"""docs/reference.md says what the code does."""

from __future__ import annotations

import collections
import re
from typing import get_args

import pytest
import yaml
from pydantic import ValidationError
from pydantic_core import PydanticUndefined

from docs.reference import generate
from extauthz.cli import COMMANDS
from extauthz.config.settings import Settings
from extauthz.config.upstream import UpstreamSection
from extauthz.core.identity import FIELDS, FORWARDED_HOST_HEADERS, OVERRIDE_HEADERS
from extauthz.core.model import ALLOWING, Reason
from extauthz.telemetry.metric_table import TABLE
from tests.support.documents import placed
from tests.support.project import ROOT

PACKAGE = ROOT / "extauthz"
REFERENCE = ROOT / "docs" / "reference.md"


def test_every_reason_has_its_row() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (\d+) \| `(\w+)` \| (.+) \|$", REFERENCE.read_text(encoding="utf-8"), re.MULTILINE)
    assert rows == [
        (reason.value, str(reason.status), reason.public_name, reason.message) for reason in Reason if reason not in ALLOWING
    ]


def test_every_header_is_named() -> None:
    text = REFERENCE.read_text(encoding="utf-8")
    for name in (*(f"x-extauthz-{part}" for part in FIELDS), *OVERRIDE_HEADERS, *FORWARDED_HOST_HEADERS):
        assert f"`{name}`" in text


def test_every_key_of_a_profile_is_documented_with_its_values() -> None:
    text = (REFERENCE.parent / "routes.md").read_text(encoding="utf-8")
    assert "case" in UpstreamSection.model_fields
    for name, field in UpstreamSection.model_fields.items():
        first, other = sorted(get_args(field.annotation), key=lambda value: value != field.default)
        assert f"| `{name}` | `{first}`, `{other}` |" in text


def test_the_generated_pages_are_what_the_code_says() -> None:
    for name, page in generate.PAGES.items():
        assert (REFERENCE.parent / "reference" / name).read_text(encoding="utf-8") == page(), f"{name}: run `make reference`"
    for name, schema in generate.SCHEMAS.items():
        assert (generate.EXAMPLES / name).read_text(encoding="utf-8") == schema(), f"{name}: run `make reference`"


def test_every_metric_is_in_the_code_that_serves_and_the_other_way_round() -> None:
    """A metric that nobody sets would be documented and never seen."""
    source = "".join(path.read_text(encoding="utf-8") for path in PACKAGE.rglob("*.py") if path.name != "metric_table.py")
    assert set(re.findall(r'"(extauthz_[a-z_]+)", (?:\(|labels)', source)) == set(TABLE)


def test_every_command_is_documented() -> None:
    page = generate.commands()
    assert all(f"## extauthz {name}\n" in page for name in COMMANDS)


def rows_of_keys() -> list[dict[str, str]]:
    """Return the rows of the table of keys, each cell by the name of its column."""
    lines = [re.split(r"(?<!\\) ?\| ?", line)[1:-1] for line in generate.configuration().splitlines() if line.startswith("|")]
    return [dict(zip(lines[0], cells, strict=True)) for cells in lines[2:]]


def test_every_key_of_the_configuration_is_documented() -> None:
    rows = {row["key"].strip("`") for row in rows_of_keys()}
    assert rows == {".".join(path) for path, _ in generate.fields(Settings)}
    assert {name.partition(".")[0].removesuffix("[]") for name in rows} == set(Settings.model_fields)


@pytest.mark.parametrize("column", ["meaning", "default", "unit", "example"])
def test_every_key_has_its_own(column: str) -> None:
    without = [row["key"] for row in rows_of_keys() if not row.get(column) or row[column] == "see above"]
    assert without == []


def test_no_two_keys_of_a_section_share_a_meaning() -> None:
    told = collections.Counter((row["key"].strip("`").rpartition(".")[0], row["meaning"]) for row in rows_of_keys())
    assert [meaning for meaning, times in told.items() if times > 1] == []


def test_what_is_said_of_keys_is_about_keys_that_there_are() -> None:
    known = {".".join(path): field for path, field in generate.fields(Settings)}
    assert list(generate.told_keys()) == list(known)
    for name, told in generate.told_keys().items():
        has_one = known[name].get_default(call_default_factory=True) not in (None, "", PydanticUndefined)
        assert not ("default" in told and has_one), f"{name}: its default is known from the code"


@pytest.mark.parametrize("name", generate.told_keys())
def test_an_example_is_accepted(name: str) -> None:
    path = tuple(name.split("."))
    value = yaml.safe_load(generate.told_keys()[name]["example"])
    Settings.model_validate(placed(path, value))
    default = dict(generate.fields(Settings))[path].get_default(call_default_factory=True)
    assert value != default, "an example that is the default shows nothing"


@pytest.mark.parametrize(("name", "wrong"), [("server.drain", 10), ("tokens.peppers[].id", ""), ("answers.reasons[].status", 200)])
def test_a_wrong_example_would_be_noticed(name: str, wrong: object) -> None:
    with pytest.raises(ValidationError):
        Settings.model_validate(placed(tuple(name.split(".")), wrong))
