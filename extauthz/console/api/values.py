"""Types of what a program sends and gets, each with its JSON Schema.

Where a schema cannot say what is allowed, `format` names it: `printable` is a text that `str.isprintable` calls so.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, GetCoreSchemaHandler, WithJsonSchema

from extauthz.adapters.store.rules import MAX_WHY
from extauthz.admin.token_requests import MAX_DESCRIPTION
from extauthz.core.act_as import ADDRESS, MAX_ADDRESS, address

LONGEST = 36_500 * 86_400
"""Seconds: a hundred years."""

_DIGITS = re.compile(r"[0-9]{1,16}").fullmatch


_MOMENT = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2})[Tt]([0-9]{2}:[0-9]{2}):([0-5][0-9]|60)(?:\.[0-9]+)?([Zz]|[+-][0-9]{2}:[0-9]{2})"
).fullmatch


class BodyModel(BaseModel):
    """What is sent; it has no other members."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class AnswerModel(BaseModel):
    """What is answered."""

    model_config = ConfigDict(frozen=True)


class NoQuery(BodyModel):
    """A query without parameters."""


def _whole(value: object) -> object:
    """JSON Schema counts 316.0 among the integers, and no text and no boolean."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _number(value: object) -> object:
    return int(value) if isinstance(value, str) and _DIGITS(value) else value


def _truth(value: object) -> object:
    return {"true": True, "false": False}.get(value, value) if isinstance(value, str) else value


def _printable(value: str) -> str:
    if not value.isprintable():
        raise ValueError("write printable characters in one line")
    return value


def _described(value: str) -> str:
    if value.isspace():
        raise ValueError("write more than blanks")
    return _printable(value)


def _address(value: str) -> str:
    user = address(value)
    if user is None:
        raise ValueError("write one e-mail address")
    return user


def _moment(value: object) -> object:
    """Read a time of RFC 3339 as seconds since the epoch; a leap second is the one behind it."""
    match = _MOMENT(value) if isinstance(value, str) else None
    if match is None:
        return value
    try:
        moment = datetime.fromisoformat(f"{match[1]}T{match[2]}:{min(int(match[3]), 59):02}{match[4].upper()}")
    except ValueError as error:
        raise ValueError("there is no such moment") from error
    return int(moment.timestamp()) + (match[3] == "60")


def _distinct(values: list[str]) -> list[str]:
    if len(set(values)) < len(values):
        raise ValueError("name each one once")
    return values


@dataclass(frozen=True, slots=True)
class Whole:
    """A whole number within limits, in a body or, as `is_text`, in a query; stands in the metadata of an int."""

    least: int
    most: int
    is_text: bool = False

    def __get_pydantic_core_schema__(self, _: object, handler: GetCoreSchemaHandler) -> Any:
        """Read a number, then check its limits: in this order, because the other way round the schema would lack them."""
        reader = BeforeValidator(_number if self.is_text else _whole)
        return handler.generate_schema(Annotated[int, Field(strict=True, ge=self.least, le=self.most), reader])


Truth = Annotated[bool, Field(strict=True), BeforeValidator(_truth)]
Printable = Annotated[str, Field(max_length=MAX_DESCRIPTION, json_schema_extra={"format": "printable"}), AfterValidator(_printable)]
Description = Annotated[
    str,
    Field(min_length=1, max_length=MAX_DESCRIPTION, json_schema_extra={"format": "printable"}),
    AfterValidator(_described),
]
Why = Annotated[str, Field(min_length=1, max_length=MAX_WHY, json_schema_extra={"format": "printable"}), AfterValidator(_printable)]
_ADDRESS_SCHEMA = {"type": "string", "pattern": f"^{ADDRESS}$", "allOf": [{"pattern": "^[^@]{1,64}@"}, {"maxLength": MAX_ADDRESS}]}
UserAddress = Annotated[str, WithJsonSchema(_ADDRESS_SCHEMA), AfterValidator(_address)]
ScopeName = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_:.-]{0,63}$")]
Scopes = Annotated[
    list[ScopeName], Field(min_length=1, max_length=1000, json_schema_extra={"uniqueItems": True}), AfterValidator(_distinct)
]
Moment = Annotated[
    int,
    Field(strict=True),
    BeforeValidator(_moment),
    WithJsonSchema({"type": "string", "format": "date-time"}),
]
Time = Annotated[str, Field(json_schema_extra={"format": "date-time"})]
