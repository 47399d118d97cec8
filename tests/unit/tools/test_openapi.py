"""API descriptions are read whole: their references, servers, security, and everything that is wrong with them."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from extauthz.errors import ConfigurationError
from extauthz.tools import openapi
from extauthz.tools.openapi import DescribedOperation, read
from extauthz.tools.openapi_references import References
from extauthz.tools.openapi_servers import ApiServer, base_of

HEAD = {"openapi": "3.1.0", "info": {"title": "t", "version": "1"}}


def described(folder: Path, paths: object, /, name: str = "spec.json", **rest: object) -> Path:
    """Write a description."""
    file = folder / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(HEAD | {"paths": paths} | rest))
    return file


def read_one(folder: Path, paths: object, **rest: object) -> list[DescribedOperation]:
    return read([described(folder, paths, **rest)])


def problems(folder: Path, paths: object, **rest: object) -> list[str]:
    file = described(folder, paths, **rest)
    with pytest.raises(ConfigurationError) as caught:
        read([file])
    return [str(problem).replace(f"{folder}/", "") for problem in caught.value.problems]


def test_an_operation_has_all_that_decides_who_may_call_it(tmp_path: Path) -> None:
    operation = {
        "operationId": "getPet",
        "tags": ["Pets", 7],
        "security": [{"oauth": ["read", "list"], "key": []}, {"admin": []}],
        "x-scope": "PETS",
        "parameters": [{"name": "id", "in": "path", "style": "matrix"}],
    }
    (found,) = read_one(tmp_path, {"/pets/{id}": {"get": operation, "x-area": "a", "x-scope": "NO"}, "x-note": {"get": {}}})
    assert found.label == "GET /pets/{id}"
    assert (found.operation_id, found.tags, found.matrix) == ("getPet", ("Pets", "7"), {"id"})
    assert found.security == (("read", "list", "key"), ("admin",))
    assert found.extensions == {"x-scope": "PETS", "x-area": "a"}
    assert not found.is_open


@pytest.mark.parametrize(
    ("written", "everywhere", "is_open", "security"),
    [
        ([], [{"a": []}], True, ()),
        (None, [{"a": []}], False, (("a",),)),
        (None, None, True, ()),
        ([{}], [{"a": []}], True, ()),
        ([{"a": ["r"]}, {}], None, True, (("r",),)),
        ([{"a": ["r"]}], [], False, (("r",),)),
    ],
)
def test_the_security_of_an_operation_comes_before_that_of_all(
    written: object, everywhere: object, is_open: bool, security: object, tmp_path: Path
) -> None:
    operation = {} if written is None else {"security": written}
    rest = {} if everywhere is None else {"security": everywhere}
    (found,) = read_one(tmp_path, {"/a": {"get": operation}}, **rest)
    assert (found.is_open, found.security) == (is_open, security)


def test_webhooks_and_everything_that_is_no_method_are_no_operations(tmp_path: Path) -> None:
    item = {"summary": "s", "parameters": [], "get": {}, "trace": {}, "x-get": {}}
    found = read_one(tmp_path, {"/a": item}, webhooks={"new": {"post": {}}}, components={"pathItems": {"b": {"put": {}}}})
    assert [operation.label for operation in found] == ["GET /a", "TRACE /a"]


# --- references


def test_references_lead_within_the_file_and_to_neighbours(tmp_path: Path) -> None:
    parts = tmp_path / "parts"
    described(
        parts, {}, "items.json", item={"get": {"$ref": "../get.json"}, "post": {"$ref": "#/posting"}}, posting={"tags": ["p"]}
    )
    (tmp_path / "get.json").write_text(json.dumps({"operationId": "g", "parameters": [{"$ref": "parts/more.yaml#/p~1~0%20q"}]}))
    (parts / "more.yaml").write_text("'p/~ q': {name: id, in: path, style: matrix}\n")
    paths = {"/a/{id}": {"$ref": "parts/items.json#/item"}, "/b": {"$ref": "#/components/pathItems/b", "put": {}}}
    found = read_one(tmp_path, paths, components={"pathItems": {"b": {"$ref": "#/components/pathItems/c"}, "c": {"delete": {}}}})
    assert {operation.label: (operation.operation_id, operation.tags) for operation in found} == {
        "GET /a/{id}": ("g", ()),
        "POST /a/{id}": (None, ("p",)),
        "PUT /b": (None, ()),
        "DELETE /b": (None, ()),
    }
    assert found[0].matrix == {"id"}


def test_schemas_that_name_themselves_are_not_looked_at(tmp_path: Path) -> None:
    schemas = {"a": {"$ref": "#/components/schemas/a"}, "b": {"properties": {"b": {"$ref": "http://nowhere.invalid/b"}}}}
    operation = {"responses": {"200": {"$ref": "#/nothing"}}, "requestBody": {"$ref": "missing.json"}}
    assert len(read_one(tmp_path, {"/a": {"get": operation}}, components={"schemas": schemas})) == 1


REFERENCES = {
    "https://acme.com/a.json": "its $ref is an address, and nothing is fetched: https://acme.com/a.json. Save it beside the",
    "//acme.com/a.json": "its $ref is an address, and nothing is fetched",
    "file:///etc/passwd": "its $ref is an address, and nothing is fetched",
    "/etc/passwd": "its $ref leads out of the folder of the description: /etc/passwd",
    "../secret.json": "its $ref leads out of the folder of the description: ../secret.json",
    "%2e%2e/secret.json": "its $ref leads out of the folder of the description",
    "link.json": "its $ref leads out of the folder of the description: link.json",
    "missing.json": "its $ref leads to a file that is not there: missing.json",
    "%00": "its $ref names no file: '%00'",
    "#/nothing/there": "its $ref leads to nothing: spec.json#/nothing/there",
    "#/openapi/0": "its $ref leads to nothing",
    "#item": "its $ref is no path like '#/components/pathItems/Item': #item",
    "#/paths/~1a": "its $ref leads in a circle: #/paths/~1a",
    "#/one": "its $ref leads in a circle: #/one",
}


@pytest.mark.parametrize("reference", REFERENCES)
@pytest.mark.parametrize("kind", ["path item", "operation", "parameter"])
def test_a_reference_that_leads_nowhere_is_a_problem(reference: str, kind: str, tmp_path: Path) -> None:
    folder = tmp_path / "specs"
    folder.mkdir()
    (tmp_path / "secret.json").write_text('{"get": {}}')
    (folder / "link.json").symlink_to(tmp_path / "secret.json")
    node: dict[str, Any] = {"$ref": reference}
    if kind == "parameter":
        node = {"parameters": [node]}
    if kind != "path item":
        node = {"get": node}
    if kind == "operation" and reference == "#/paths/~1a":
        node = {"get": {"$ref": "#/paths/~1a/get"}}
    if kind == "parameter" and reference == "#/paths/~1a":
        node = {"get": {"parameters": [{"$ref": "#/paths/~1a/get/parameters/0"}]}}
    (found,) = problems(folder, {"/a": node}, one={"$ref": "#/two"}, two={"$ref": "#/one"})
    expected = REFERENCES[reference]
    assert found.startswith(("spec.json: paths./a", "spec.json: one", "spec.json: two"))
    assert expected.partition("#/")[0].rstrip() in found


def test_nothing_that_stands_beside_a_reference_is_lost(tmp_path: Path) -> None:
    """Readers disagree about which of the two counts."""
    one = {"/a": {"$ref": "#/item", "get": {"security": []}}}
    assert problems(tmp_path, one, item={"get": {}}) == [
        "spec.json: paths./a.get: stands beside a $ref that has it too: remove one of the two"
    ]
    other = {"/a": {"get": {"$ref": "#/item", "security": []}}}
    assert problems(tmp_path, other, item={}) == [
        "spec.json: paths./a.get: security stands beside a $ref, and readers disagree about what counts: write it there"
    ]


# --- servers


SERVERS: dict[str, tuple[list[object], set[ApiServer]]] = {
    "none": ([], {ApiServer("", "")}),
    "root": ([{"url": "/"}], {ApiServer("", "")}),
    "a path": ([{"url": "/v1/"}], {ApiServer("", "/v1")}),
    "relative": ([{"url": "v1"}, {"url": "./v2"}, {"url": "."}], {ApiServer("", "/v1"), ApiServer("", "/v2"), ApiServer("", "")}),
    "address": ([{"url": "https://api.acme.com:8443/v1?x#y"}], {ApiServer("api.acme.com:8443", "/v1")}),
    "default": ([{"url": "{where}/v1", "variables": {"where": {"default": "https://a.com/x"}}}], {ApiServer("a.com", "/x/v1")}),
    "enum": (
        [{"url": "https://a.com/{v}", "variables": {"v": {"default": "v1", "enum": ["v1", "v2"]}}}],
        {ApiServer("a.com", "/v1"), ApiServer("a.com", "/v2")},
    ),
    "number": ([{"url": "/{v}", "variables": {"v": {"default": 2}}}], {ApiServer("", "/2")}),
}


@pytest.mark.parametrize("name", SERVERS)
def test_servers_say_where_paths_begin(name: str, tmp_path: Path) -> None:
    servers, expected = SERVERS[name]
    (found,) = read_one(tmp_path, {"/a": {"get": {}}}, servers=servers)
    assert set(found.servers) == expected


def test_the_nearest_servers_count(tmp_path: Path) -> None:
    item = {"servers": [{"url": "/path"}], "get": {"servers": [{"url": "/own"}]}, "put": {}}
    found = read_one(tmp_path, {"/a": item, "/b": {"get": {}}}, servers=[{"url": "/all"}])
    assert [operation.servers[0].base for operation in found] == ["/own", "/path", "/all"]


def test_a_prefix_stands_for_all_servers_even_wrong_ones(tmp_path: Path) -> None:
    file = described(tmp_path, {"/a": {"get": {}}}, servers=[{"url": "{x}"}])
    assert read([file], "/api")[0].servers == (ApiServer("", "/api"),)


@pytest.mark.parametrize("text", ["api", "/a//b", "/../a", "/a/./b", "/{x}", "/a?b", "/a*", "/a;b", "/a\n"])
def test_a_base_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is no path that others begin with"):
        base_of(text)


# --- what is wrong

WRONG: dict[str, tuple[object, dict[str, object], str]] = {
    "swagger": ({}, {"swagger": "2.0"}, "spec.json: is Swagger 2.0: convert it to OpenAPI 3, for instance with swagger2openapi"),
    "version": ({}, {"openapi": "3.2.0"}, "spec.json: is OpenAPI 3.2.0: versions 3.0 and 3.1 are read"),
    "no version": ({}, {"openapi": None}, "spec.json: is no API description: one of OpenAPI begins with 'openapi: 3.0.3'"),
    "no slash": ({"a": {}}, {}, "spec.json: paths.a: a path begins with '/': write it so"),
    "paths": ([], {}, "spec.json: paths: is no mapping"),
    "path item": ({"/a": []}, {}, "spec.json: paths./a: is no mapping"),
    "operation": ({"/a": {"get": []}}, {}, "spec.json: paths./a.get: is no operation: write a mapping"),
    "upper case": ({"/a": {"GET": {}}}, {}, "spec.json: paths./a.GET: methods are written in lower case"),
    "security": ({"/a": {"get": {"security": {}}}}, {}, "spec.json: paths./a.get.security: is no list"),
    "requirement": ({"/a": {"get": {"security": ["a"]}}}, {}, "spec.json: paths./a.get.security[0]: is no mapping of a security"),
    "scopes": ({"/a": {"get": {"security": [{"a": "r"}]}}}, {}, "spec.json: paths./a.get.security[0].a: is no list"),
    "scope": ({"/a": {"get": {"security": [{"a": [["r"]]}]}}}, {}, "spec.json: paths./a.get.security[0].a[0]: is no text"),
    "no scope": ({"/a": {"get": {"security": [{"a": [None]}]}}}, {}, "spec.json: paths./a.get.security[0].a[0]: is no text"),
    "tag": ({"/a": {"get": {"tags": [{}]}}}, {}, "spec.json: paths./a.get.tags[0]: is no text"),
    "long tag": ({"/a": {"get": {"tags": ["t" * 1001]}}}, {}, "spec.json: paths./a.get.tags[0]: is longer than 1,000 characters"),
    "parameter": (
        {"/a": {"get": {"parameters": [{"in": "path", "name": []}]}}},
        {},
        "spec.json: paths./a.get.parameters[0].name: is no text",
    ),
    "version of lists": ({}, {"openapi": ["3.0"]}, "spec.json: openapi: is no text"),
    "variable": ({"/a": {"get": {}}}, {"servers": [{"url": "/{v}"}]}, "spec.json: servers[0].variables.v: has neither a default"),
    "server": ({"/a": {"get": {}}}, {"servers": [{}]}, "spec.json: servers[0]: a server has a url: write it, or say with --prefix"),
    "upwards": ({"/a": {"get": {}}}, {"servers": [{"url": "../v1"}]}, "spec.json: servers[0]: its url '../v1' has no path that"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_said_with_its_place(name: str, tmp_path: Path) -> None:
    paths, rest, message = WRONG[name]
    (found,) = problems(tmp_path, paths, **rest)
    assert found.startswith(message)


def test_variables_do_not_come_to_addresses_without_end(tmp_path: Path) -> None:
    values = {"default": "0", "enum": [str(number) for number in range(100)]}
    (found,) = problems(tmp_path, {"/a": {"get": {}}}, servers=[{"url": "/{a}/{b}", "variables": {"a": values, "b": values}}])
    assert "come to more than 1,000 addresses" in found


def test_servers_do_not_come_to_addresses_without_end(tmp_path: Path) -> None:
    variable = {"enum": [str(number) for number in range(1_000)]}
    server = {"url": "/{a}", "variables": {"a": variable}}
    (found,) = problems(tmp_path, {"/a": {"get": {}}}, servers=[server] * 11)
    assert found == "spec.json: servers: come to more than 10,000 addresses: name fewer, or say with --prefix where the paths begin"
    variable["enum"] *= 2
    (found,) = problems(tmp_path, {"/a": {"get": {}}}, servers=[server])
    assert "come to more than 1,000 addresses" in found


@pytest.mark.parametrize("kind", ["tags", "security", "scopes", "parameters", "servers", "extensions", "root security"])
def test_what_operations_share_is_bounded_in_all(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openapi, "MAX_NAMES", 200)
    monkeypatch.setattr(openapi, "MAX_PARTS", 300)
    shared = {
        "tags": "&t [" + "a, " * 20 + "]",
        "security": "&t [" + "a: [], " * 20 + "]",
        "scopes": "&t [a: [" + "r, " * 20 + "]]",
        "parameters": "&t [" + "{in: query}, " * 20 + "]",
        "servers": "&t [" + "".join(f"{{url: /{number}}}, " for number in range(20)) + "]",
    }.get(kind)
    lines = ["openapi: 3.1.0", "security: [" + "a: [], " * (20 if kind == "root security" else 1) + "]", "paths:"]
    if kind == "extensions":
        lines += ["  /a0: &t {" + "".join(f"x-{number}: 1, " for number in range(20)) + "get: {}}"]
        lines += [f"  /a{number}: *t" for number in range(1, 20)]
    elif shared is None:
        lines += [f"  /a{number}: {{get: {{}}}}" for number in range(20)]
    else:
        lines += [
            f"  /a{number}: {{get: {{{kind.replace('scopes', 'security')}: {'*t' if number else shared}}}}}" for number in range(20)
        ]
    file = tmp_path / "spec.yaml"
    file.write_text("\n".join(lines))
    with pytest.raises(ConfigurationError) as caught:
        read([file])
    (problem,) = caught.value.problems
    limit = "300 entries" if kind in ("parameters", "servers", "extensions") else "200 names"
    assert f"of its operations come to more than {limit}" in problem.message


def test_one_operation_has_no_alternatives_without_end(tmp_path: Path) -> None:
    (found,) = problems(tmp_path, {"/a": {"get": {"security": [{"a": []}] * 201}}})
    assert found == "spec.json: paths./a.get.security: has more than 200 alternatives: write fewer"
    (operation,) = read_one(tmp_path, {"/a": {"get": {"security": [{"a": []}] * 200}}})
    assert len(operation.security) == 200


def test_a_file_is_looked_up_once_however_often_it_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    described(tmp_path, {}, "parts.json", one={"$ref": "#/two"}, two={"get": {}, "parameters": []})
    counts: Counter[str] = Counter()

    def counted(owner: type, name: str) -> None:
        original = getattr(owner, name)

        def call(*arguments: Any, **options: Any) -> Any:
            counts[name] += 1
            return original(*arguments, **options)

        monkeypatch.setattr(owner, name, call)

    file = described(
        tmp_path,
        {f"/a{number}": {"$ref": "parts.json#/one", "put": {"parameters": [{"$ref": "#/parameter"}]}} for number in range(100)},
        parameter={"$ref": "#/other"},
        other={"in": "path", "name": "id", "style": "matrix"},
    )
    counted(Path, "resolve")
    counted(References, "_at")
    found = read([file])
    assert [operation.matrix for operation in found if operation.method == "PUT"] == [{"id"}] * 100
    assert len(found) == 200
    assert counts["resolve"] <= 10
    assert counts["_at"] <= 10


def test_all_problems_of_all_descriptions_are_listed(tmp_path: Path) -> None:
    one = described(tmp_path, {"a": {}, "/b": {"GET": {}}}, "one.json")
    other = described(tmp_path, {"/c": {"get": 1}}, "other.json")
    with pytest.raises(ConfigurationError) as caught:
        read([one, other])
    assert [problem.path for problem in caught.value.problems] == ["paths./b.GET", "paths.a", "paths./c.get"]
