"""docs/reference.md says what the code does."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

from docs.reference import generate
from extauthz.cli import COMMANDS
from extauthz.config.settings import Settings
from extauthz.config.upstream import UpstreamSection
from extauthz.core.identity import FIELDS, FORWARDED_HOST_HEADERS, OVERRIDE_HEADERS
from extauthz.core.model import ALLOWING, Reason
from extauthz.metric_table import TABLE

PACKAGE = Path(__file__).parents[1] / "extauthz"
REFERENCE = Path(__file__).parents[1] / "docs" / "reference.md"


def test_every_reason_has_its_row() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (\d+) \| `(\w+)` \| (.+) \|$", REFERENCE.read_text(encoding="utf-8"), re.MULTILINE)
    assert rows == [
        (reason.value, str(reason.status), reason.told_as, reason.message) for reason in Reason if reason not in ALLOWING
    ]


def test_every_header_is_named() -> None:
    text = REFERENCE.read_text(encoding="utf-8")
    for name in (*(f"x-extauthz-{part}" for part in FIELDS), *OVERRIDE_HEADERS, *FORWARDED_HOST_HEADERS):
        assert f"`{name}`" in text


def test_every_key_of_a_profile_is_documented_with_its_values() -> None:
    text = (REFERENCE.parent / "routes.md").read_text(encoding="utf-8")
    for name, field in UpstreamSection.model_fields.items():
        first, other = sorted(get_args(field.annotation), key=lambda value: value != field.default)
        assert f"| `{name}` | `{first}`, `{other}` |" in text


def test_the_generated_pages_are_what_the_code_says() -> None:
    for name, page in generate.PAGES.items():
        assert (REFERENCE.parent / "reference" / name).read_text(encoding="utf-8") == page(), f"{name}: run `make reference`"


def test_every_metric_is_in_the_code_that_serves_and_the_other_way_round() -> None:
    """A metric that nobody sets would be documented and never seen."""
    source = "".join(path.read_text(encoding="utf-8") for path in PACKAGE.rglob("*.py") if path.name != "metric_table.py")
    assert set(re.findall(r'"(extauthz_[a-z_]+)", (?:\(|labels)', source)) == set(TABLE)


def test_every_command_is_documented() -> None:
    page = generate.commands()
    assert all(f"## extauthz {name}\n" in page for name in COMMANDS)


def test_every_key_of_the_configuration_is_documented() -> None:
    rows = set(re.findall(r"^\| `([a-z_.\[\]]+)` \|", generate.configuration(), re.MULTILINE))
    assert rows == {".".join(path) for path, _ in generate.keys(Settings)}
    assert {name.partition(".")[0].removesuffix("[]") for name in rows} == set(Settings.model_fields)
