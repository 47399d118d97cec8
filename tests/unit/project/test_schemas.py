"""The JSON Schemas that editors read: what loads is valid, and much of what does not is not."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator
from pydantic import BaseModel

from docs.reference import generate, schemas
from extauthz.config import document
from extauthz.config.routes import RouteFile, RouteLine
from extauthz.config.settings import Settings
from extauthz.config.upstream import UpstreamSection
from tests.support.broken_files import stands_for
from tests.support.documents import placed
from tests.support.project import ROOT, TESTS

CONFIG = TESTS / "config"
SETTINGS, ROUTES = (json.loads(schema()) for schema in generate.SCHEMAS.values())
SHIPPED = sorted([*(ROOT / "config").glob("*.yaml"), *(ROOT / "config" / "routes").glob("*.yaml")])
TEMPLATES = [ROOT / "extauthz" / "initial" / name for name in ("extauthz.yaml", "routes.yaml")]


def errors(file: Path, schema: dict[str, Any]) -> list[str]:
    data = document.read(file).data
    return [error.json_path for error in Draft202012Validator(schema).iter_errors(data)]


def schema_of(file: Path) -> dict[str, Any]:
    """Return the schema that a file of tests/config or of config/ is for."""
    is_bad = file.parent.name in ("bad", "lints")
    name = stands_for(file) if is_bad else file.name
    return SETTINGS if name == "extauthz.yaml" or file.parent == ROOT / "config" else ROUTES


@pytest.mark.parametrize("schema", [SETTINGS, ROUTES], ids=["settings", "routes"])
def test_they_are_schemas(schema: dict[str, Any]) -> None:
    assert schema["$schema"] == schemas.DIALECT
    Draft202012Validator.check_schema(schema)


@pytest.mark.parametrize(
    "file", [*SHIPPED, *(CONFIG / "base").iterdir(), *(CONFIG / "lint_base").iterdir()], ids=lambda file: file.name
)
def test_what_loads_is_valid(file: Path) -> None:
    assert errors(file, schema_of(file)) == []


@pytest.mark.parametrize(
    "file", [file for file in sorted((CONFIG / "lints").iterdir()) if file.is_file()], ids=lambda file: file.stem
)
def test_what_is_worth_a_look_is_valid(file: Path) -> None:
    assert errors(file, schema_of(file)) == []


def test_much_of_what_does_not_load_is_invalid() -> None:
    """What one key alone shows; what only several keys, files or YAML itself show is not for a schema."""
    files = [file for file in sorted((CONFIG / "bad").iterdir()) if file.is_file()]
    invalid = [file.stem for file in files if errors(file, schema_of(file))]
    assert len(invalid) >= len(files) * 0.6
    assert {"unknown_key_suggestion", "missing_keys", "duration_without_unit", "route_with_two_kinds"} <= {*invalid}


@pytest.mark.parametrize("name", generate.told_keys())
def test_an_example_of_a_setting_is_valid(name: str) -> None:
    value = yaml.safe_load(generate.told_keys()[name]["example"])
    data = placed(tuple(name.split(".")), value)
    found = [error.json_path for error in Draft202012Validator(SETTINGS).iter_errors(data)]
    assert found == []


@pytest.mark.parametrize("name", generate.told_keys(generate.ROUTE_KEYS))
def test_an_example_of_a_route_file_is_valid_and_accepted(name: str) -> None:
    value = yaml.safe_load(generate.told_keys(generate.ROUTE_KEYS)[name]["example"])
    line: dict[str, Any] = {"match": "GET /items/{id}", "scope": "SEARCH"}
    key = name.removeprefix("routes[].")
    if name != key:
        kinds = {"scope", "all_of", "any_of", "public", "deny"}
        line = {each: old for each, old in line.items() if key not in kinds or each not in kinds} | {key: value}
    data: dict[str, Any] = {"routes": [line]}
    if name == key:
        section, _, inner = key.partition(".")
        data[section] = {inner: value} if inner else value
    assert [error.message for error in Draft202012Validator(ROUTES).iter_errors(data)] == []
    RouteFile.model_validate(data)
    RouteLine.model_validate(data["routes"][0])


def test_every_key_of_a_route_file_is_described() -> None:
    def keys(model: type[BaseModel], prefix: str = "") -> set[str]:
        return {f"{prefix}{name}" for name in model.model_fields}

    expected = keys(RouteFile) - {"upstream"} | keys(RouteLine, "routes[].") | keys(UpstreamSection, "upstream.")
    assert {*generate.told_keys(generate.ROUTE_KEYS)} == expected


def test_every_key_has_its_description() -> None:
    """Of a key that holds others, these are described."""

    def undescribed(schema: dict[str, Any], path: str) -> list[str]:
        inner = [form for word in ("anyOf", "oneOf") for form in schema.get(word, [])]
        inner += [each for each in (schema.get("items"), schema.get("additionalProperties")) if isinstance(each, dict)]
        found = [name for each in inner for name in undescribed(each, path)]
        for name, each in schema.get("properties", {}).items():
            below = undescribed(each, f"{path}.{name}")
            found += below + ([f"{path}.{name}"] if "description" not in each and '"description"' not in json.dumps(each) else [])
        return found

    assert [*undescribed(SETTINGS, ""), *undescribed(ROUTES, "")] == []


@pytest.mark.parametrize("path", [".".join(path) for path, _ in generate.fields(Settings)])
def test_a_misspelt_key_is_invalid(path: str) -> None:
    parts = path.split(".")
    data = placed((*parts[:-1], f"{parts[-1].removesuffix('[]')}x"), 1)
    assert list(Draft202012Validator(SETTINGS).iter_errors(data))


@pytest.mark.parametrize("file", [*SHIPPED, *TEMPLATES], ids=lambda file: f"{file.parent.name}/{file.name}")
def test_what_is_shipped_names_its_schema(file: Path) -> None:
    """By a path that holds in the checkout, and in a folder that `extauthz init` has written."""
    first = file.read_text(encoding="utf-8").splitlines()[0]
    found = re.fullmatch(r"# yaml-language-server: \$schema=(\S+)", first)
    assert found
    is_settings = file.name == "extauthz.yaml" or file.parent == ROOT / "config"
    folder = file.parent if file in SHIPPED else ROOT / "config" / ("." if is_settings else "routes")
    expected = generate.EXAMPLES / ("settings.schema.json" if is_settings else "routes.schema.json")
    assert (folder / found[1]).resolve() == expected
    assert expected.read_bytes() == (ROOT / "docs" / "reference" / expected.name).read_bytes()
