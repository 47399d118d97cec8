"""JSON Schemas of extauthz.yaml and of route files, for editors: made from the models that read them, described by keys.yaml."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import yaml
from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema, models_json_schema
from pydantic_core import core_schema

from extauthz.config.routes import RouteFile, RouteLine
from extauthz.config.settings import Settings
from extauthz.config.values import TextCheck

DIALECT = "https://json-schema.org/draft/2020-12/schema"
_KINDS = ("scope", "all_of", "any_of", "public", "deny")

Schema = dict[str, Any]
Keys = Mapping[str, Mapping[str, str]]
"""What is said of keys, by their dotted names: meaning and example."""


class _AsWritten(GenerateJsonSchema):
    """Shows the patterns of texts, and no titles, which would repeat the keys."""

    def function_after_schema(self, schema: core_schema.AfterValidatorFunctionSchema) -> Schema:
        """Add the pattern of a text that is compared with one."""
        inner = super().function_after_schema(schema)
        check = schema["function"]["function"]
        return {**inner, "pattern": f"^(?:{check.pattern})$"} if isinstance(check, TextCheck) else inner

    def field_title_should_be_set(self, schema: Any) -> bool:
        """Leave titles of fields out."""
        return False


def settings_schema(keys: Keys) -> Schema:
    """Return the schema of extauthz.yaml; `keys` are the rows of keys.yaml."""
    return _whole("extauthz.yaml", _generated(Settings), keys)


def routes_schema(keys: Keys) -> Schema:
    """Return the schema of a route file; `keys` are the rows of route_keys.yaml."""
    schema, line = _generated(RouteFile), _generated(RouteLine)
    # What is null counts as not written.
    kinds = [{"required": [kind], "properties": {kind: {"not": {"type": "null"}}}} for kind in _KINDS]
    schema["properties"]["routes"]["items"] = {**line, "oneOf": kinds}
    return _whole("A route file of extauthz", schema, keys)


def text_of(schema: Schema) -> str:
    """Return a schema as the text of its file."""
    return json.dumps(schema, indent=1, ensure_ascii=False) + "\n"


def _generated(model: type[BaseModel]) -> Schema:
    _, schema = models_json_schema([(model, "validation")], schema_generator=_AsWritten)
    definitions = schema["$defs"]
    inlined: Schema = _inlined(definitions[model.__name__], definitions)
    return inlined


def _inlined(value: Any, definitions: Mapping[str, Schema]) -> Any:
    """Write every definition where it is used, because what a key means depends on where it stands."""
    match value:
        case {"$ref": str(reference), **beside}:
            inner = _inlined(definitions[reference.removeprefix("#/$defs/")], definitions)
            return {**inner, **_inlined(beside, definitions)}
        case dict():
            return {name: _inlined(part, definitions) for name, part in value.items() if not _is_noise(name, part, value)}
        case list():
            return [_inlined(part, definitions) for part in value]
    return value


def _is_noise(name: str, part: object, schema: Schema) -> bool:
    """Tell whether a part of a schema is of no use to an editor: what models say for themselves, and values as they are read."""
    match name:
        case "title":
            return isinstance(part, str)
        case "examples":
            return isinstance(part, list)
        case "default":
            return part is None or (schema.get("type") == "string" and not isinstance(part, str))
        case "description":
            return isinstance(part, str) and "enum" in schema
    return False


def _whole(title: str, schema: Schema, keys: Keys) -> Schema:
    _describe(schema, (), keys)
    return {"$schema": DIALECT, "title": title, **schema}


def _describe(schema: Schema, path: tuple[str, ...], keys: Keys) -> None:
    """Write what keys.yaml says of each key; `x[]` stands there for the entries of a list or of a mapping."""
    for form in (form for word in ("anyOf", "oneOf", "allOf") for form in schema.get(word, ())):
        _describe(form, path, keys)
    for entries in (schema.get("items"), schema.get("additionalProperties")):
        if isinstance(entries, dict) and path:
            # The entries of a list of providers have the keys of the section for one provider.
            of_entries = path[:-1] if path == ("oauth", "providers") else (*path[:-1], f"{path[-1]}[]")
            _describe(entries, of_entries, keys)
    for name, inner in schema.get("properties", {}).items():
        _describe(inner, (*path, name), keys)
        row = keys.get(".".join((*path, name)))
        if row is not None:
            inner |= {"description": row["meaning"], "examples": [yaml.safe_load(row["example"])]}
