"""Writes the page of the console's HTTP API from the OpenAPI document that the console serves."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from http import HTTPStatus
from typing import Any

from extauthz.console.api.document import MEANINGS, document, problems_of
from extauthz.console.api.operations import BASE, ApiOperation
from extauthz.console.api.table import OPERATIONS
from extauthz.console.api.values import LONGEST

_SCHEMAS = "#/components/schemas/"
_BEGIN = f"""# HTTP API of the console

How to use it, with a worked example: [console-api.md](../console-api.md). The console serves the same as an OpenAPI 3.1 document at
`{BASE}/openapi.json`, with the scopes of its configuration. Every request needs an admin key. Times are in UTC (RFC 3339), lengths
of time in seconds.

| operation | request | needs | what it does |
|---|---|---|---|
"""
_OF_PROBLEMS = """
## Problems

A request that is not done is answered with `application/problem+json` (RFC 9457): `status`, `title`, `detail` for people, and
`errors`, each with `at` and `detail`. `at` is the place of a wrong field: `body/scopes/0`, `query/limit`, `header/if-match`.

| status | meaning |
|---|---|
"""
_OF_ALL = set.intersection(*(set(problems_of(operation)) for operation in OPERATIONS))


def page() -> str:
    """Return the page, without its first line."""
    whole = document((), LONGEST)
    schemas = whole["components"]["schemas"]
    operations = "".join(_operation(operation, whole) for operation in OPERATIONS)
    shown = "".join(_schema(name, schema) for name, schema in schemas.items() if _is_told(name, schema))
    statuses = sorted({status for operation in OPERATIONS for status in problems_of(operation)})
    problems = "".join(f"| {status.value} | {MEANINGS[status]} |\n" for status in statuses)
    rows = "".join(map(_row, OPERATIONS))
    every = f"\nEvery operation may answer {_statuses(_OF_ALL)}.\n\n"
    return f"{_BEGIN}{rows}{_OF_PROBLEMS}{problems}{every}{operations}## Answers\n\n{shown}".rstrip() + "\n"


def _row(operation: ApiOperation) -> str:
    link = f"[{operation.name}](#{operation.name.lower()})"
    return f"| {link} | `{operation.method} {BASE}{operation.path}` | {_role(operation)} | {operation.summary}. |\n"


def _role(operation: ApiOperation) -> str:
    described = document((), LONGEST, (operation,))["paths"][BASE + operation.path][operation.method.lower()]["description"]
    return f"`{described.removeprefix('Needs the role ').removesuffix('.')}`"


def _operation(operation: ApiOperation, whole: Mapping[str, Any]) -> str:
    described = whole["paths"][BASE + operation.path][operation.method.lower()]
    request, role = f"{operation.method} {BASE}{operation.path}", _role(operation)
    parts = [f"## {operation.name}\n\n`{request}`: {operation.summary}. Needs the role {role}.\n\n"]
    if described["parameters"]:
        rows = "".join(map(_parameter, described["parameters"]))
        parts.append(f"| parameter | in | type | meaning |\n|---|---|---|---|\n{rows}\n")
    if "requestBody" in described:
        schema = described["requestBody"]["content"]["application/json"]["schema"]
        parts.append(f"| member of the body | type | meaning |\n|---|---|---|\n{''.join(_members(schema, whole))}\n")
    headers = f" with the headers {', '.join(f'`{name}`' for name in operation.answer_headers)}" if operation.answer_headers else ""
    name = operation.answer.__name__
    parts.append(f"Answers {operation.status.value} with [{name}](#{name.lower()}){headers}.")
    more = set(problems_of(operation)) - _OF_ALL
    parts.append(f" May also answer {_statuses(more)}.\n\n" if more else "\n\n")
    return "".join(parts)


def _statuses(statuses: set[HTTPStatus]) -> str:
    *some, last = (str(status.value) for status in sorted(statuses))
    return f"{', '.join(some)} or {last}" if some else last


def _parameter(parameter: Mapping[str, Any]) -> str:
    need = ", required" if parameter["required"] and parameter["in"] == "header" else ""
    return (
        f"| `{parameter['name']}` | {parameter['in']}{need} | {_type(parameter['schema'])} | {parameter.get('description', '')} |\n"
    )


def _members(schema: Mapping[str, Any], whole: Mapping[str, Any]) -> Iterator[str]:
    """Yield a row for each member; what stands in some forms alone is said."""
    schemas = whole["components"]["schemas"]
    forms = [schemas[form["$ref"].removeprefix(_SCHEMAS)] for form in schema["oneOf"]] if "oneOf" in schema else [schema]
    names = dict.fromkeys(name for form in forms for name in form["properties"])
    for name in names:
        having = [form for form in forms if name in form["properties"]]
        types = dict.fromkeys(_type(form["properties"][name]) for form in having)
        only = (
            "" if len(having) == len(forms) else f"; {', '.join(form['properties']['permission']['const'] for form in having)} only"
        )
        need = "required" if all(name in form.get("required", ()) for form in having) else "optional"
        yield f"| `{name}` | {', '.join(types)}; {need}{only} | {having[0]['properties'][name].get('description', '')} |\n"


def _schema(name: str, schema: Mapping[str, Any]) -> str:
    rows = "".join(f"| `{member}` | {_type(each)} |\n" for member, each in schema["properties"].items())
    text = " ".join(schema.get("description", "").split())
    return f"### {name}\n\n{text}\n\n| member | type |\n|---|---|\n{rows}\n"


def _is_told(name: str, schema: Mapping[str, Any]) -> bool:
    return "properties" in schema and not name.endswith("Body") and name != "Problem"


def _type(schema: Mapping[str, Any]) -> str:
    if "$ref" in schema:
        name = schema["$ref"].removeprefix(_SCHEMAS)
        return f"[{name}](#{name.lower()})"
    if "anyOf" in schema:
        return " or ".join(_type(form) for form in schema["anyOf"])
    if "const" in schema:
        return f"`{schema['const']}`"
    if schema.get("enum"):
        return ", ".join(f"`{word}`" for word in schema["enum"])
    match schema.get("type"):
        case "array":
            return f"list of {_type(schema['items'])}"
        case "integer" if "maximum" in schema:
            return f"integer from {schema['minimum']} to {schema['maximum']}"
        case "string" if schema.get("format") == "date-time":
            return "time"
        case None:
            return "any value"
        case kind:
            return str(kind)
