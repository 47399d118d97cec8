"""What a validator found, in the words of whoever wrote the file."""

from __future__ import annotations

import difflib
import typing
from collections.abc import Iterable
from typing import Any

from pydantic import BaseModel, ValidationError

from extauthz.config.document import Document, KeyPath, Mistake, dotted
from extauthz.config.settings import NOT_YET


def nearest(word: str, known: Iterable[str]) -> str:
    """Return ", did you mean 'x'?" for the nearest known word, or nothing."""
    found = difflib.get_close_matches(word.lower(), {name.lower(): name for name in known}, n=1, cutoff=0.6)
    names = {name.lower(): name for name in known}
    return f", did you mean {names[found[0]]!r}?" if found else ""


def mistakes_of(error: ValidationError, document: Document, model: type[BaseModel], prefix: KeyPath = ()) -> list[Mistake]:
    """Turn pydantic's errors into mistakes with lines and the way out."""
    return [_mistake(dict(detail), document, model, prefix) for detail in error.errors(include_url=False)]


def _mistake(detail: dict[str, Any], document: Document, model: type[BaseModel], prefix: KeyPath) -> Mistake:
    location: KeyPath = detail["loc"]
    path = (*prefix, *location)
    match detail["type"]:
        case "extra_forbidden":
            if dotted(path) in NOT_YET:
                return document.mistake(path, "not available in this release: leave it out")
            names = _fields_at(model, location[:-1])
            return document.mistake(path, f"unknown key{nearest(str(location[-1]), names)}")
        case "missing":
            return document.mistake(path, "is missing")
        case "model_type" | "dict_type" | "model_attributes_type":
            return document.mistake(path, f"write a mapping, not {detail['input']!r}")
        case "value_error":
            return document.mistake(path, str(detail["ctx"]["error"]))
        case _:
            return document.mistake(path, f"{detail['msg'][0].lower()}{detail['msg'][1:]}, not {detail['input']!r}")


def _fields_at(model: type[BaseModel], location: KeyPath) -> list[str]:
    for part in location:
        field = model.model_fields.get(str(part))
        if field is not None:
            inner = [kind for kind in _classes(field.annotation) if issubclass(kind, BaseModel)]
            model = inner[0] if inner else model
    return list(model.model_fields)


def _classes(annotation: Any) -> list[type]:
    if isinstance(annotation, type) and not typing.get_args(annotation):
        return [annotation]
    return [kind for part in typing.get_args(annotation) for kind in _classes(part)]
