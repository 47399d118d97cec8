"""Values with units and names, as the YAML writes them."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetJsonSchemaHandler,
    PlainSerializer,
    StringConstraints,
    model_serializer,
    model_validator,
)

from extauthz.addresses import Address, parse_address
from extauthz.config.files import Files
from extauthz.config.units import duration, size
from extauthz.ports import ADMIN_KEY_PREFIX

HIDDEN = "hidden"
"""Stands for a secret where settings are shown."""


def _address(text: object) -> Address:
    if not isinstance(text, str):
        raise ValueError(f"{text!r} is not an address: write 127.0.0.1:9001 or unix:///run/check.sock")
    return parse_address(text)


def _positive(seconds: float) -> float:
    if seconds <= 0:
        raise ValueError("must be longer than zero")
    return seconds


def _not_empty(size_in_bytes: int) -> int:
    if size_in_bytes <= 0:
        raise ValueError("must be larger than zero")
    return size_in_bytes


@dataclass(frozen=True, slots=True, eq=False)
class WrittenAs:
    """For the JSON Schema: what may stand in the YAML in place of a value of the type, or, with `only`, in every case."""

    form: Mapping[str, object]
    only: bool = False

    def __get_pydantic_json_schema__(self, schema: Any, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        """Return the form, beside that of the type."""
        return dict(self.form) if self.only else {"anyOf": [dict(self.form), handler(schema)]}


@dataclass(frozen=True, slots=True)
class TextCheck:
    """A check of text against a pattern, which the JSON Schema shows."""

    pattern: str
    hint: str
    shown: bool

    def __call__(self, value: str) -> str:
        """Return the text; raise ValueError with the hint."""
        if not re.fullmatch(self.pattern, value):
            raise ValueError(f"{value!r}: {self.hint}" if self.shown and not ("@" in value and ":" in value) else self.hint)
        return value


def text(pattern: str, hint: str, *, shown: bool = True) -> AfterValidator:
    """Return a check of text against a pattern; without `shown` the problem does not repeat the text, which may be a secret.

    An address with a user in it is never repeated: a password may stand beside the user.
    """
    return AfterValidator(TextCheck(pattern, hint, shown))


def exact(*values: bool | int) -> BeforeValidator:
    """Return a check that stands before a Literal, which takes 1, 1.0 and true for one value."""

    def check(value: object) -> object:
        for one in values:
            if value == one and type(value) is not type(one):
                raise ValueError(f"write {json.dumps(one)}, not {json.dumps(value)}")
        return value

    return BeforeValidator(check)


def one_or_many(value: object) -> object:
    """Let one comma-separated string stand for a list, as the admin form of the API writes client ids."""
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


def _of_tokens(prefix: str) -> str:
    if prefix == ADMIN_KEY_PREFIX:
        raise ValueError(f"{prefix!r} is what admin keys begin with: write another prefix")
    return prefix


DURATION = {"type": "string", "pattern": "^[0-9]{1,15}(ms|s|m|h|d)$"}
SIZE = {"type": "string", "pattern": "^[0-9]{1,9}(B|KiB|MiB)$"}
TEXT = {"type": "string"}

NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}"
NAME_RULE = "write 1 to 64 letters, digits, '.', '_' and '-'; the first is a letter or a digit"

Name = Annotated[str, text(NAME, NAME_RULE)]
NonEmpty = Annotated[str, StringConstraints(min_length=1)]
Prefix = Annotated[
    str,
    text(r"[a-z][a-z0-9]{0,15}", "write 1 to 16 lower-case letters and digits; the first is a letter"),
    AfterValidator(_of_tokens),
]
OutboundAddress = Annotated[
    str,
    text(
        r"(?:https://[^/?#@\s]+|http://(?:localhost|127\.0\.0\.1|\[::1\])(?::[0-9]+)?)(?:/[^#\s]*)?",
        "write an https address without a user in it (plain http is read from loopback only)",
    ),
]
Yes = Annotated[Literal[True], exact(True)]
Duration = Annotated[float, BeforeValidator(duration), WrittenAs(DURATION, only=True)]
PositiveDuration = Annotated[float, BeforeValidator(duration), AfterValidator(_positive), WrittenAs(DURATION, only=True)]
PositiveSize = Annotated[int, BeforeValidator(size), AfterValidator(_not_empty), WrittenAs(SIZE, only=True)]
ListenAddress = Annotated[Address, PlainSerializer(str), BeforeValidator(_address), WrittenAs(TEXT, only=True)]
Variable = Annotated[
    str, text(r"[A-Za-z_][A-Za-z0-9_]*", "write the name of an environment variable here, never the secret itself", shown=False)
]


class Section(BaseModel):
    """A part of the YAML: strict types, unknown keys refused, never changed."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, arbitrary_types_allowed=True)


class Secret(Section):
    """Where a secret is: an environment variable or a file, never the YAML itself."""

    env: Variable | None = None
    file: str | None = Field(default=None, min_length=1)

    @model_serializer
    def _without_places(self) -> dict[str, object] | str:
        """Show what else is known of the secret: whoever may read settings need not know where secrets are."""
        places = Secret.model_fields.keys()
        return {name: value for name, value in dict(self).items() if name not in places} or HIDDEN

    @model_validator(mode="after")
    def _one_place(self) -> Secret:
        if (self.env is None) == (self.file is None):
            raise ValueError("write exactly one of env: NAME and file: PATH")
        return self

    def read_secret(self, folder: Path, environment: Mapping[str, str], files: Files | None = None) -> bytes:
        """Return the secret without the white space around it; raise ValueError that names the place."""
        if self.env is not None:
            value = environment.get(self.env)
            if not value:
                raise ValueError(f"the environment variable {self.env} is not set")
            return os.fsencode(value).strip()
        path = folder / str(self.file)
        try:
            return (files or Files()).read(path, secret=True).strip()
        except OSError as error:
            raise ValueError(f"{path}: {error.strerror or error}") from error
