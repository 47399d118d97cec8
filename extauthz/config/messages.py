"""What a validator complains about, in the words of the file: line, key and hint."""

from __future__ import annotations

import typing
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from extauthz.config.document import Document, KeyPath
from extauthz.config.oauth import ONE, SEVERAL, OAuthCommon, OAuthListSection, OAuthSection, ProviderEntry
from extauthz.config.scope_grants import LISTED, NAMED
from extauthz.config.wording import nearest
from extauthz.errors import Problem

MAX_SHOWN = 80
OF_A_KEY = "[key]"
"""Behind the key of a mapping in the paths of pydantic's errors, where the key itself is wrong."""
FORMS: dict[str, type[BaseModel]] = {ONE: OAuthSection, SEVERAL: OAuthListSection}
UNWRITTEN = {*FORMS, OF_A_KEY, LISTED, NAMED}


def unknown_scope(name: str, vocabulary: Iterable[str], *words: str) -> str:
    """Say that the vocabulary lacks a scope, with the nearest one, or one of the words that may stand there, or where to add it."""
    return f"unknown scope {name!r}" + (
        nearest(name, chain(vocabulary, words)) or ": name one of `scopes` in extauthz.yaml, or add it there"
    )


def problems_of(error: ValidationError, document: Document, model: type[BaseModel], prefix: KeyPath = ()) -> list[Problem]:
    """Turn pydantic's errors into problems with lines and a hint; what the document could not read is not reported twice."""
    return [
        document.problem(path, _message(dict(detail), path, model))
        for detail in error.errors(include_url=False)
        if not document.is_unread(path := (*prefix, *(part for part in detail["loc"] if part not in UNWRITTEN)))
    ]


def _message(detail: dict[str, Any], path: KeyPath, model: type[BaseModel]) -> str:
    location: KeyPath = detail["loc"]
    value = detail["input"]
    field = next(reversed([*_fields_along(model, location)]), None)
    secret = any(not passed.repr for passed in _fields_along(model, location))
    instead = "" if secret else f", not {_as_yaml(value)}"
    example = f", like {field.examples[0]}" if field and field.examples else ""
    optional = "" if field is None or field.is_required() else ", or leave the key out"
    context: dict[str, Any] = detail.get("ctx", {})
    kind = detail["type"]
    if kind == "value_error":
        return str(context["error"])
    if kind == "extra_forbidden":
        return _unknown(path, _names_at(model, location[:-1]))
    if kind == "missing":
        return f"is missing: write it{example}" + (f" ({field.description})" if field and field.description else "")
    if value is None and not kind.startswith("literal"):
        return f"has no value: write one{example}{optional}"
    match kind:
        case "model_type" | "dict_type":
            # A single value in place of a section may be a secret that was written in the wrong place.
            plain = "text" if isinstance(value, str) else "a number" if secret and isinstance(value, (int, float)) else None
            return f"write a mapping{example}, not {plain or _as_yaml(value)}"
        case "list_type":
            return f"write a list{example}{instead}"
        case "string_type" if isinstance(value, (dict, list)):
            return f"write text{example}{instead}"
        case "string_type":
            return f"{'this' if secret else _as_yaml(value)} is not text: write it in quotes"
        case "bool_type":
            return f"write true or false{instead}"
        case "int_type":
            return f"write a whole number{instead}"
        case "greater_than_equal":
            return f"write {context['ge']} or more{instead}"
        case "literal_error" if context["expected"] == "True":
            return "write true, or leave the key out"
        case "literal_error":
            return f"write {context['expected']}{instead}"
        case "too_short":
            return f"is empty: name at least one{optional}"
        case "string_too_short":
            return "is empty: write a value"
        case "string_too_long":
            return f"is too long: write at most {context['max_length']} characters"
        case _:
            return f"{detail['msg'][0].lower()}{detail['msg'][1:]}{instead}"


def _unknown(path: KeyPath, names: list[str]) -> str:
    key = str(path[-1])
    if "providers" in names and key in ProviderEntry.model_fields:
        return "belongs to one provider: write it into an entry of `providers`"
    if names == list(ProviderEntry.model_fields) and key in OAuthCommon.model_fields:
        return "counts for all providers: write it beside `providers`"
    # One provider alone becomes several by that key.
    written = [*names, "providers"] if names == list(OAuthSection.model_fields) else names
    return "unknown key" + (nearest(key, written) or f": the keys here are {', '.join(names)}")


def _as_yaml(value: object) -> str:
    """Write a value as YAML does; what holds other values is not written out."""
    match value:
        case bool():
            return str(value).lower()
        case None:
            return "nothing"
        case dict():
            return "a mapping"
        case list():
            return "a list"
        case str() if len(value) > MAX_SHOWN:
            return f"{value[:MAX_SHOWN]!r}…"
        case _:
            return repr(value)


def _fields_along(model: type[BaseModel], location: KeyPath) -> Iterator[FieldInfo]:
    """Yield the fields on the way to a location, from the outside in; positions in lists are passed by."""
    here: type[BaseModel] | None = model
    for part in location:
        if part in FORMS:
            here = FORMS[str(part)]
            continue
        field = here.model_fields.get(str(part)) if here else None
        if field is not None:
            yield field
            here = next((kind for kind in _classes(field.annotation) if issubclass(kind, BaseModel)), None)


def _names_at(model: type[BaseModel], location: KeyPath) -> list[str]:
    for field in _fields_along(model, location):
        model = next((kind for kind in _classes(field.annotation) if issubclass(kind, BaseModel)), model)
    last = str(location[-1]) if location else ""
    return list(FORMS.get(last, model).model_fields)


def _classes(annotation: Any) -> list[type]:
    if isinstance(annotation, type) and not typing.get_args(annotation):
        return [annotation]
    return [kind for part in typing.get_args(annotation) for kind in _classes(part)]
