"""Reads what a program sends, strictly: nothing that no operation knows, nothing twice, and no JSON that others read otherwise."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qsl

from pydantic import BaseModel, TypeAdapter, ValidationError
from starlette.requests import Request

from extauthz.console.api.operations import HeaderParameter
from extauthz.console.api.problems import ApiProblem, FieldError

JSON = "application/json"
MAX_BODY = 64 * 1024
"""Bytes."""
BODY_TIMEOUT = 5.0
"""Seconds that a body may take to come."""
MAX_FIELDS = 50
MAX_DEPTH = 20

_SHOWN = re.compile(r"[A-Za-z_-]{1,40}").fullmatch
_TYPE = re.compile(r"application/json(?:[ \t]*;[ \t]*charset=\"?utf-8\"?)?", re.IGNORECASE).fullmatch


async def read_body(request: Request, adapter: TypeAdapter[Any]) -> Any | ApiProblem:
    """Read a body of JSON."""
    types = request.headers.getlist("content-type")
    if len(types) != 1 or not _TYPE(types[0].strip()):
        return ApiProblem(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, f"send a body of the content type {JSON}", headers={"accept": JSON})
    content = bytearray()
    try:
        async with asyncio.timeout(BODY_TIMEOUT):
            async for chunk in request.stream():
                content += chunk
                if len(content) > MAX_BODY:
                    return ApiProblem(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"a body has {MAX_BODY} bytes at most")
    except TimeoutError:
        detail = f"the body did not come within {BODY_TIMEOUT:.0f} seconds"
        return ApiProblem(HTTPStatus.REQUEST_TIMEOUT, detail, headers={"connection": "close"})
    if (wrong := _unreadable(bytes(content))) is not None:
        return ApiProblem(HTTPStatus.BAD_REQUEST, f"the body cannot be read: {wrong}")
    try:
        return adapter.validate_json(bytes(content))
    except ValidationError as error:
        return ApiProblem.of_fields(HTTPStatus.UNPROCESSABLE_ENTITY, _errors(error, "body"))


def read_query(request: Request, model: type[BaseModel]) -> Any | ApiProblem:
    """Read the parameters behind the "?"."""
    try:
        text = request.scope["query_string"].decode("ascii")
        pairs = (
            parse_qsl(text, keep_blank_values=True, strict_parsing=True, errors="strict", max_num_fields=MAX_FIELDS) if text else []
        )
    except ValueError:
        return ApiProblem(
            HTTPStatus.BAD_REQUEST, "the query cannot be read: write name=value, joined by &, in UTF-8 and percent-encoded"
        )
    values = dict(pairs)
    repeated = sorted({name for name, _ in pairs if sum(name == other for other, _ in pairs) > 1})
    if repeated:
        errors = (FieldError(_place("query", (name,)), "write it once") for name in repeated)
        return ApiProblem.of_fields(HTTPStatus.UNPROCESSABLE_ENTITY, errors)
    try:
        return model.model_validate(values)
    except ValidationError as error:
        return ApiProblem.of_fields(HTTPStatus.UNPROCESSABLE_ENTITY, _errors(error, "query"))


def read_headers(request: Request, known: Sequence[HeaderParameter]) -> Mapping[str, str] | ApiProblem:
    """Read the headers that an operation knows; others are not looked at."""
    values, errors = {}, []
    for header in known:
        sent = request.headers.getlist(header.name)
        if len(sent) > 1:
            errors.append(FieldError(header.place, "send it once"))
        elif sent and header.pattern and not re.fullmatch(header.pattern, sent[0]):
            errors.append(FieldError(header.place, f"write what matches {header.pattern}"))
        elif sent:
            values[header.name] = sent[0]
        elif header.is_required:
            problem = FieldError(header.place, f"missing: {header.meaning}")
            return ApiProblem.of_fields(HTTPStatus.PRECONDITION_REQUIRED, [problem])
    return ApiProblem.of_fields(HTTPStatus.UNPROCESSABLE_ENTITY, errors) if errors else values


def _unreadable(content: bytes) -> str | None:
    """Return why a body is no JSON that every reader reads the same."""
    try:
        value = json.loads(content.decode("utf-8"), object_pairs_hook=_members, parse_constant=_constant)
    except UnicodeDecodeError:
        return "it is not UTF-8"
    except RecursionError:
        return f"it is nested more than {MAX_DEPTH} levels deep"
    except _Ambiguous as error:
        return str(error)
    except ValueError:
        return "it is not JSON"
    return f"it is nested more than {MAX_DEPTH} levels deep" if _depth(value) > MAX_DEPTH else None


class _Ambiguous(ValueError):
    """JSON that some readers read and others do not."""


def _members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) < len(pairs):
        raise _Ambiguous("a member comes twice")
    return members


def _constant(name: str) -> None:
    raise _Ambiguous(f"{name} is no number of JSON")


def _depth(value: object) -> int:
    level, depth = [value], 0
    while inner := [each for each in level if isinstance(each, dict | list)]:
        level = [item for each in inner for item in (each.values() if isinstance(each, dict) else each)]
        depth += 1
    return depth


def _errors(error: ValidationError, where: str) -> Iterator[FieldError]:
    """Yield what is wrong, without what was sent: somebody may have pasted a secret."""
    for item in error.errors(include_input=False, include_url=False, include_context=False):
        parts = tuple(part for part in item["loc"] if part not in _TAGS)
        match item["type"]:
            case "extra_forbidden":
                yield FieldError(_place(where, parts), "unknown: there is no such field")
            case "missing":
                yield FieldError(_place(where, parts), "missing")
            case "union_tag_not_found" | "union_tag_invalid":
                yield FieldError(_place(where, (*parts, "permission")), "write GLOBAL, USER or ANONYMOUS")
            case _:
                yield FieldError(_place(where, parts), item["msg"].removeprefix("Value error, "))


_TAGS = frozenset({"GLOBAL", "USER", "ANONYMOUS"})
"""What tells apart the forms of one body; it stands in the places of what is wrong, and not in the body."""


def _place(where: str, parts: Sequence[int | str]) -> str:
    names = [str(part) for part in parts if isinstance(part, int) or _SHOWN(part)]
    return "/".join((where, *names))
