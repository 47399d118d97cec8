"""The OpenAPI 3.1 document of the API, made of the table of operations and of what the configuration allows."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from http import HTTPStatus
from typing import Any

from pydantic import BaseModel

from extauthz import __version__
from extauthz.adapters.store.rules import MAX_ID
from extauthz.admin.rights import Actor, Role, may
from extauthz.console.api.operations import BASE, ApiOperation, HeaderParameter
from extauthz.console.api.problems import CONTENT_TYPE
from extauthz.console.api.reading import JSON
from extauthz.console.api.settings import MAX_VERSION
from extauthz.console.api.table import OPERATIONS

_SCHEMAS = "#/components/schemas/"
_OF_ALL = (
    HTTPStatus.BAD_REQUEST,
    HTTPStatus.UNAUTHORIZED,
    HTTPStatus.FORBIDDEN,
    HTTPStatus.NOT_FOUND,
    HTTPStatus.METHOD_NOT_ALLOWED,
    HTTPStatus.UNPROCESSABLE_ENTITY,
    HTTPStatus.TOO_MANY_REQUESTS,
    HTTPStatus.INTERNAL_SERVER_ERROR,
    HTTPStatus.SERVICE_UNAVAILABLE,
)
_OF_BODIES = (HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.REQUEST_ENTITY_TOO_LARGE, HTTPStatus.UNSUPPORTED_MEDIA_TYPE)
MEANINGS = {
    HTTPStatus.BAD_REQUEST: "The query or the body cannot be read.",
    HTTPStatus.UNAUTHORIZED: "There is no admin key, or it is wrong, revoked or expired.",
    HTTPStatus.FORBIDDEN: "The role of the key does not allow it.",
    HTTPStatus.NOT_FOUND: "There is nothing with this id.",
    HTTPStatus.METHOD_NOT_ALLOWED: "There is no such method here.",
    HTTPStatus.REQUEST_TIMEOUT: "The body did not come within 5 seconds.",
    HTTPStatus.CONFLICT: "The state of what is there stands against it.",
    HTTPStatus.PRECONDITION_FAILED: "It was changed since it was read.",
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: "The body is too large.",
    HTTPStatus.UNSUPPORTED_MEDIA_TYPE: "The body is not of the content type application/json.",
    HTTPStatus.UNPROCESSABLE_ENTITY: "A field is wrong; `errors` names each one.",
    HTTPStatus.PRECONDITION_REQUIRED: "The header If-Match is missing.",
    HTTPStatus.TOO_MANY_REQUESTS: "Too many wrong keys came from this address, or something costly is under way.",
    HTTPStatus.INTERNAL_SERVER_ERROR: "Something in the console is broken.",
    HTTPStatus.SERVICE_UNAVAILABLE: "The token store cannot be used now.",
}
_PROBLEM_HEADERS = {
    HTTPStatus.UNAUTHORIZED: "www-authenticate",
    HTTPStatus.METHOD_NOT_ALLOWED: "allow",
    HTTPStatus.TOO_MANY_REQUESTS: "retry-after",
}
_TEXT = {"type": "string"}
_PROBLEM: dict[str, Any] = {
    "type": "object",
    "required": ["type", "title", "status", "detail"],
    "properties": {
        "type": _TEXT,
        "title": _TEXT,
        "status": {"type": "integer"},
        "detail": {"type": "string", "description": "What is wrong and a hint, for people."},
        "errors": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["at", "detail"],
                "properties": {
                    "at": {"type": "string", "description": "Where, like `body/scopes/0` or `query/limit`."},
                    "detail": _TEXT,
                },
            },
        },
        "token_id": {"type": "string", "description": "The token that an earlier request with the same idempotency key made."},
    },
}


def document(scopes: Collection[str], longest: int, operations: Sequence[ApiOperation] = OPERATIONS) -> dict[str, Any]:
    """Return the document; `scopes` are those of the configuration, `longest` is how many seconds a token may last."""
    schemas: dict[str, Any] = {"Problem": _PROBLEM}
    paths: dict[str, dict[str, Any]] = {}
    for operation in operations:
        paths.setdefault(BASE + operation.path, {})[operation.method.lower()] = _operation(operation, schemas)
    _bind(schemas, scopes, longest)
    statuses = sorted({status for operation in operations for status in problems_of(operation)})
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "extauthz console API",
            "version": __version__,
            "description": "What the admin console does, for programs. Times are in UTC, lengths of time in seconds.",
        },
        "security": [{"adminKey": []}],
        "paths": paths,
        "components": {
            "securitySchemes": {
                "adminKey": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "A key of `extauthz console key create`.",
                }
            },
            "schemas": dict(sorted(schemas.items())),
            "responses": {_name(status): _problem(status) for status in statuses},
        },
    }


def problems_of(operation: ApiOperation) -> list[HTTPStatus]:
    """Return the statuses of problems that an operation may answer."""
    more = _OF_BODIES if operation.body is not None else ()
    return sorted({*_OF_ALL, *more, *operation.problems})


def parameters_of(operation: ApiOperation) -> list[dict[str, Any]]:
    """Return the parameters of an operation in path, query and headers."""
    names = [part.strip("{}") for part in operation.path.split("/") if part.startswith("{")]
    query = operation.query.model_json_schema(ref_template=_SCHEMAS + "{model}")
    definitions = query.get("$defs", {})
    return [
        *({"name": name, "in": "path", "required": True, "description": _MEANT[name], "schema": _PATH[name]} for name in names),
        *(_query_parameter(name, schema, definitions) for name, schema in query.get("properties", {}).items()),
        *map(_header, operation.headers),
    ]


def least_role(operation: ApiOperation) -> Role:
    """Return the least role that may do something of this kind."""
    return next(role for role in Role if may(Actor("", role), operation.needs))


_MEANT = {"id": "The public id.", "version": "The number of a version."}
_PATH: dict[str, dict[str, Any]] = {
    "id": {"type": "string", "pattern": f"^[0-9A-Za-z]{{{MAX_ID}}}$"},
    "version": {"type": "integer", "minimum": 1, "maximum": MAX_VERSION},
}


def _operation(operation: ApiOperation, schemas: dict[str, Any]) -> dict[str, Any]:
    answer = _reference(operation.answer, schemas)
    described: dict[str, Any] = {
        "operationId": operation.name,
        "summary": operation.summary,
        "description": f"Needs the role {least_role(operation)}.",
        "parameters": parameters_of(operation),
        "responses": {
            str(operation.status.value): {
                "description": operation.status.phrase,
                "headers": {name: {"schema": _TEXT} for name in operation.answer_headers},
                "content": {JSON: {"schema": answer}},
            },
            **{str(status.value): {"$ref": f"#/components/responses/{_name(status)}"} for status in problems_of(operation)},
        },
    }
    if operation.body is not None:
        schema = _collected(operation.body.json_schema(ref_template=_SCHEMAS + "{model}"), schemas)
        described["requestBody"] = {"required": True, "content": {JSON: {"schema": schema}}}
    return described


def _query_parameter(name: str, schema: Mapping[str, Any], definitions: Mapping[str, Any]) -> dict[str, Any]:
    """Describe a parameter; one that may be left out cannot be null."""
    forms = [form for form in schema.get("anyOf", [schema]) if form != {"type": "null"}]
    plain = {key: value for form in forms for key, value in form.items()} | {"default": schema.get("default")}
    if "$ref" in plain:
        plain |= definitions[plain.pop("$ref").removeprefix(_SCHEMAS)]
    plain = {key: value for key, value in plain.items() if key not in ("title", "description") and value not in (None, "")}
    text = {"description": schema["description"]} if "description" in schema else {}
    return {"name": name, "in": "query", "required": False, **text, "schema": plain}


def _header(header: HeaderParameter) -> dict[str, Any]:
    schema = {"type": "string", **({"pattern": header.pattern} if header.pattern else {})}
    return {"name": header.name, "in": "header", "required": header.is_required, "description": header.meaning, "schema": schema}


def _reference(model: type[BaseModel], schemas: dict[str, Any]) -> dict[str, Any]:
    schema = model.model_json_schema(ref_template=_SCHEMAS + "{model}", mode="serialization")
    schemas[model.__name__] = _collected(schema, schemas)
    return {"$ref": _SCHEMAS + model.__name__}


def _collected(schema: dict[str, Any], schemas: dict[str, Any]) -> dict[str, Any]:
    """Move the definitions of a schema to those of the document."""
    schemas |= schema.pop("$defs", {})
    return schema


def _bind(schemas: dict[str, Any], scopes: Collection[str], longest: int) -> None:
    """Say what the configuration allows, so that what fits the schema is accepted."""
    for schema in schemas.values():
        properties = schema.get("properties", {})
        if "expires_in" in properties:
            properties["expires_in"]["maximum"] = longest
            properties["scopes"]["items"] = {"type": "string", "enum": sorted(scopes)}


def _problem(status: HTTPStatus) -> dict[str, Any]:
    name = _PROBLEM_HEADERS.get(status)
    headers = {"headers": {name: {"schema": _TEXT, "required": True}}} if name else {}
    content = {CONTENT_TYPE: {"schema": {"$ref": f"{_SCHEMAS}Problem"}}}
    return {"description": MEANINGS[status], **headers, "content": content}


def _name(status: HTTPStatus) -> str:
    return status.phrase.replace(" ", "").replace("-", "")
