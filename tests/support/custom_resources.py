"""Manifests held against the schemas in tests/data/crds as an API server would, and stricter: an unknown field is an error."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cache
from typing import Any

import jsonschema

from tests.support import cel
from tests.support.project import TESTS

FOLDER = TESTS / "data" / "crds"
OF_EVERY_OBJECT = {"apiVersion": {"type": "string"}, "kind": {"type": "string"}, "metadata": {"type": "object"}}


@cache
def definition(kind: str) -> dict[str, Any]:
    """Return what is kept of a definition; its schema refuses unknown fields."""
    known: dict[str, Any] = json.loads((FOLDER / f"{kind}.json").read_text(encoding="utf-8"))
    known["schema"]["properties"] |= OF_EVERY_OBJECT
    return known | {"schema": strict(known["schema"])}


def kinds() -> set[str]:
    """Return the kinds whose schema is here."""
    return {file.stem for file in FOLDER.glob("*.json")}


def strict(schema: dict[str, Any]) -> dict[str, Any]:
    """Return a structural schema that refuses what an API server would drop without a word."""
    made = dict(schema)
    if "properties" in schema:
        made["properties"] = {name: strict(each) for name, each in schema["properties"].items()}
        if not schema.get("x-kubernetes-preserve-unknown-fields"):
            made.setdefault("additionalProperties", False)
    if isinstance(schema.get("items"), dict):
        made["items"] = strict(schema["items"])
    if isinstance(schema.get("additionalProperties"), dict):
        made["additionalProperties"] = strict(schema["additionalProperties"])
    return made


def faults(manifest: dict[str, Any]) -> list[str]:
    """Return what is wrong with a manifest: schema first, then the rules in CEL that concern fields it has."""
    known = definition(manifest["kind"])
    if manifest["apiVersion"] != known["apiVersion"]:
        return [f"{manifest['apiVersion']} is not served, {known['apiVersion']} is"]
    # Structural schemas write `exclusiveMaximum` as that draft does.
    wrong = [f"{each.json_path}: {each.message}" for each in jsonschema.Draft4Validator(known["schema"]).iter_errors(manifest)]
    return wrong or [message for message, rule, value in rules(known["schema"], manifest) if not holds(rule, value)]


def holds(rule: str, value: Any) -> bool:
    """Evaluate a rule; a field that it takes for granted has its default or is missing, which is a fault."""
    try:
        return cel.evaluate(rule, value)
    except cel.Absent:
        return False


def rules(schema: dict[str, Any], value: Any) -> Iterator[tuple[str, str, Any]]:
    """Yield the message of each CEL rule that is evaluated for a value, the rule, and its `self`."""
    for each in schema.get("x-kubernetes-validations", ()):
        yield each.get("message", each["rule"]), each["rule"], value
    if isinstance(value, dict):
        for name, inner in value.items():
            below = schema.get("properties", {}).get(name) or schema.get("additionalProperties")
            if isinstance(below, dict):
                yield from rules(below, inner)
    elif isinstance(value, list) and isinstance(schema.get("items"), dict):
        for inner in value:
            yield from rules(schema["items"], inner)
