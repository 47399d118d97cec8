"""Coverage asks the steps that serve: what has no route, what is wider than its description, and what no description has."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from extauthz.config import monitor, routes, tables
from extauthz.config.files import Files
from extauthz.config.openapi_map import OpenapiMap
from extauthz.core.credentials import Kind
from extauthz.core.policy import Policy
from extauthz.tools.openapi import DescribedOperation, read
from extauthz.tools.openapi_asking import Question
from extauthz.tools.openapi_coverage import DescriptionCoverage, Discrepancy, coverage

FILE = Path("api.yaml")
VOCABULARY = ("SEARCH", "CHAT", "ADMIN")
RULES: dict[str, Any] = {"rules": [{"security": "read", "scope": "SEARCH"}, {"security": "write", "scope": "CHAT"}]}
READ: dict[str, Any] = {"security": [{"o": ["read"]}]}


def operations(folder: Path, paths: object, **rest: object) -> list[DescribedOperation]:
    file = folder / "spec.json"
    file.write_text(json.dumps({"openapi": "3.0.3", "paths": paths} | rest))
    return read([file])


def policy_of(lines: str, head: str = "", mode: str = "enforce") -> tuple[Policy, dict[str, str]]:
    text = f"{head}routes:\n" + "".join(f"  - {{{line}}}\n" for line in lines.split("\n") if line)
    placed, problems = routes.read(FILE, VOCABULARY, Files({FILE: text.encode()}))
    table, hosts, wrong, _ = tables.compile_tables(placed)
    assert problems + wrong == []
    names = ((entry.route.name, entry.mode) for entry in placed if not entry.route.deny)
    monitored = monitor.monitored(names, mode)  # type: ignore[arg-type]
    return Policy(table, hosts, monitored=monitored), {entry.route.name: entry.place for entry in placed}


def covered(
    lines: str, described: list[DescribedOperation], rules: dict[str, Any] | None = None, **rest: Any
) -> DescriptionCoverage:
    head, mode = rest.pop("head", ""), rest.pop("mode", "enforce")
    policy, places = policy_of(lines, head, mode)
    mapping = OpenapiMap.model_validate(rules or RULES, context=VOCABULARY)
    return coverage(Question(policy, places, described, mapping, VOCABULARY, **rest))


def shown(found: DescriptionCoverage) -> list[str]:
    return [" | ".join((each.kind.value, each.operation, each.route, each.why)) for each in found.findings]


NO_ROUTE = "no route | GET /a |  | GET /a is"
WIDER = "wider | GET /a | {} | {}"
CASES: dict[str, tuple[str, dict[str, Any], list[str]]] = {
    "as it says": ('match: "GET /a", scope: SEARCH', READ, []),
    "stricter": ('match: "GET /a", all_of: [SEARCH, ADMIN]', READ, []),
    "denied": ('match: "GET /a", deny: true', READ, []),
    "no route": ('match: "GET /b", deny: true', READ, [f"{NO_ROUTE} route_unknown"]),
    "another method": ('match: "PUT /a", deny: true', READ, [f"{NO_ROUTE} method_not_allowed"]),
    "public": (
        'match: "GET /a", public: true',
        READ,
        [WIDER.format("GET /a", "the route is public, and the description demands security")],
    ),
    "public as described": ('match: "GET /a", public: true', {"security": []}, []),
    "public or a key": ('match: "GET /a", public: true', {"security": [{}, {"k": []}]}, []),
    "anonymous": (
        'match: "GET /a", scope: SEARCH, anonymous: true',
        READ,
        [WIDER.format("GET /a", "the route takes anonymous tokens, and the description demands security")],
    ),
    "anonymous as described": ('match: "GET /a", scope: SEARCH, anonymous: true', {"security": []}, []),
    "monitored": (
        'match: "GET /a", scope: SEARCH, mode: monitor',
        READ,
        [WIDER.format("GET /a", "the route is in monitor mode, which forwards everybody, and the description demands security")],
    ),
    "another scope": (
        'match: "GET /a", scope: ADMIN, name: n',
        READ,
        [WIDER.format("n", "the route asks for ADMIN, and the security of the description comes to SEARCH")],
    ),
    "one of two": (
        'match: "GET /a", any_of: [SEARCH, ADMIN]',
        READ,
        [WIDER.format("GET /a", "the route asks for ADMIN or SEARCH, and the security of the description comes to SEARCH")],
    ),
    "one of those together": (
        'match: "GET /a", scope: SEARCH',
        {"security": [{"o": ["read", "write"]}]},
        [WIDER.format("GET /a", "the route asks for SEARCH, and the security of the description comes to CHAT and SEARCH")],
    ),
    "one of several sets": ('match: "GET /a", any_of: [SEARCH, CHAT]', {"security": [{"o": ["read"]}, {"o": ["write"]}]}, []),
    "as far as it is mapped": ('match: "GET /a", scope: SEARCH', {"security": [{"o": ["read", "other"]}]}, []),
    "not mapped": ('match: "GET /a", scope: ADMIN', {"security": [{"k": []}]}, []),
    "by a name of the vocabulary": (
        'match: "GET /a", scope: CHAT',
        {"security": [{"o": ["ADMIN"]}]},
        [WIDER.format("GET /a", "the route asks for CHAT, and the security of the description comes to ADMIN")],
    ),
    "by a blanket": (
        'match: "* /**", scope: ADMIN',
        READ,
        [WIDER.format("* /**", "the route asks for ADMIN, and the security of the description comes to SEARCH")],
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_what_an_operation_needs_is_compared_with_its_route(name: str, tmp_path: Path) -> None:
    lines, operation, expected = CASES[name]
    assert shown(covered(lines, operations(tmp_path, {"/a": {"get": operation}}))) == expected


def test_denied_security_is_open_to_nobody(tmp_path: Path) -> None:
    rules = {"rules": [{"security": "read", "deny": True}]}
    found = covered('match: "GET /a", scope: SEARCH', operations(tmp_path, {"/a": {"get": READ}}), rules)
    assert [each.why for each in found.findings] == [
        "the route asks for SEARCH, and the security of the description comes to nobody"
    ]


def test_monitor_mode_everywhere_forwards_what_has_no_route(tmp_path: Path) -> None:
    found = covered('match: "GET /b", deny: true', operations(tmp_path, {"/a": {"get": READ}}), mode="monitor")
    assert [each.kind.value for each in found.findings] == ["no route", "wider"]


def test_routes_that_open_something_undescribed_are_listed(tmp_path: Path) -> None:
    lines = 'match: "GET /a/{id}", scope: SEARCH\nmatch: "GET /a/me", public: true\nmatch: "* /x/**", deny: true\n'
    lines += 'match: "PUT /a", scope: CHAT'
    described = operations(tmp_path, {"/a/{name}": {"get": READ}})
    found = covered(lines, described)
    assert shown(found) == [
        "no operation |  | PUT /a | no description has PUT /a",
        "no operation |  | GET /a/me | no description has GET /a/me",
    ]
    assert [each.place for each in found.findings] == ["api.yaml:5", "api.yaml:3"]
    assert covered(lines, described, files=("other.yaml",)).findings == ()


def test_a_parameter_is_no_literal_of_any_route(tmp_path: Path) -> None:
    lines = 'match: "GET /{id}", scope: SEARCH\nmatch: "GET /example", deny: true\nmatch: "GET /EXAMPLE1", deny: true'
    assert covered(lines, operations(tmp_path, {"/{id}": {"get": READ}})).findings == ()


def test_more_segments_of_a_wildcard_are_asked_about_too(tmp_path: Path) -> None:
    described = operations(tmp_path, {"/f/{path*}": {"get": READ}})
    assert covered('match: "GET /f/{path}", scope: SEARCH', described).findings == ()
    found = covered('match: "GET /f/{path}", scope: SEARCH\nmatch: "GET /f/**", public: true', described)
    assert [(each.kind.value, each.route) for each in found.findings] == [("wider", "GET /f/**")]


WILDCARDS: dict[str, tuple[str, dict[str, dict[str, Any]], list[tuple[str, str, str]]]] = {
    "each number of segments is asked about": (
        'match: "GET /{x}/a", scope: SEARCH\nmatch: "GET /{x}/{y}/{z}/a", public: true\nmatch: "GET /{a}/{b}/**", deny: true',
        {"/{p*}/a": {"get": READ}},
        [("wider", "GET /{p*}/a", "GET /{x}/{y}/{z}/a")],
    ),
    "in each of several": (
        'match: "GET /{x}/a/{y}", scope: SEARCH\nmatch: "GET /{x}/a/{y}/{z}", public: true',
        {"/{p*}/a/{q*}": {"get": READ}},
        [("wider", "GET /{p*}/a/{q*}", "GET /{x}/a/{y}/{z}")],
    ),
    "of more ways some are asked about": (
        f'match: "GET /{"/a/".join(["{x}"] * 9)}", public: true',
        {f"/{'/a/'.join(['{p*}'] * 9)}": {"get": READ}},
        [("wider", f"GET /{'/a/'.join(['{p*}'] * 9)}", f"GET /{'/a/'.join(['{x}'] * 9)}")],
    ),
    "a part of the paths is another operation's": (
        'match: "GET /{x}/**", scope: SEARCH\nmatch: "GET /{x}/{y}/**", public: true',
        {"/{p*}": {"get": READ}, "/{x}/{q*}": {"get": {"security": []}}},
        [],
    ),
    "with another method it is not": (
        'match: "GET /{x}/**", scope: SEARCH\nmatch: "GET /{x}/{y}/**", public: true',
        {"/{p*}": {"get": READ}, "/{x}/{q*}": {"put": {"security": []}}},
        [("wider", "GET /{p*}", "GET /{x}/{y}/**"), ("no route", "PUT /{x}/{q*}", "")],
    ),
    "a route of an operation that comes later": (
        'match: "GET /f/{x}", scope: SEARCH\nmatch: "GET /{x}/{y}/{z}", public: true',
        {"/f/{p*}": {"get": READ}, "/{x}/{y}/{z}": {"get": {"security": []}}},
        [("wider", "GET /f/{p*}", "GET /{x}/{y}/{z}")],
    ),
    "what another wildcard opens is wider than the operation that the path belongs to": (
        'match: "GET /{x}/**", public: true',
        {"/{p*}": {"get": {"security": []}}, "/{q*}/a": {"get": READ}},
        [("wider", "GET /{q*}/a", "GET /{x}/**")],
    ),
    "an end of a segment behind several": (
        'match: "GET /{x}", scope: SEARCH\nmatch: "GET /{x}/{y}", public: true',
        {"/{p*}.json": {"get": READ}},
        [("wider", "GET /{p*}.json", "GET /{x}/{y}")],
    ),
    "stricter in some": ('match: "GET /{x}/{y}/**", scope: SEARCH', {"/{p*}": {"get": READ}}, []),
    "no route for any": ('match: "GET /a", deny: true', {"/{p*}": {"get": READ}}, [("no route", "GET /{p*}", "")]),
    "no route for what is left of it": (
        'match: "GET /{x}", deny: true',
        {"/{p*}": {"put": READ}, "/{x}": {"get": READ}},
        [("no route", "PUT /{p*}", "")],
    ),
    "nothing is left of it": (
        'match: "GET /{x}", deny: true\nmatch: "POST /{x}/{y}/**", deny: true',
        {"/{p*}": {"put": READ}, "/{x}": {"get": READ}, "/{x}/{y*}": {"post": READ}},
        [],
    ),
}


@pytest.mark.parametrize("name", WILDCARDS)
def test_a_path_of_a_wildcard_is_compared_with_the_operation_that_it_belongs_to(name: str, tmp_path: Path) -> None:
    lines, paths, expected = WILDCARDS[name]
    findings = covered(lines, operations(tmp_path, paths)).findings
    assert [(each.kind.value, each.operation, each.route) for each in findings] == expected


def test_operations_of_other_hosts_have_no_path_of_this_one(tmp_path: Path) -> None:
    paths: dict[str, Any] = {"/{p*}": {"get": READ, "servers": [{"url": "https://one.acme.com"}]}}
    paths |= {"/{x}/{q*}": {"get": {"security": []}, "servers": [{"url": "https://two.acme.com"}]}}
    lines = 'match: "GET /{x}/**", scope: SEARCH\nmatch: "GET /{x}/{y}/**", public: true'
    described = operations(tmp_path, paths)
    assert [each.operation for each in covered(lines, described).findings] == ["GET /{p*}"]
    assert covered(lines, described, hosts=("one.acme.com", "b.acme.com")).findings == ()
    found = covered(lines, described, hosts=("a b.acme.com",), head="hosts: [a.acme.com]\n")
    assert {each.kind.value for each in found.findings} == {"no operation"}
    assert found.unreachable == 2


def test_a_parameter_is_no_literal_of_any_description(tmp_path: Path) -> None:
    described = operations(tmp_path, {"/{p*}": {"get": READ}, "/example": {"get": {"security": []}}})
    assert covered('match: "GET /{x}/**", scope: SEARCH\nmatch: "GET /example", public: true', described).findings == ()
    assert [each.operation for each in covered('match: "GET /**", public: true', described).findings] == ["GET /{p*}"]


def test_what_is_refused_before_any_route_needs_none(tmp_path: Path) -> None:
    found = covered('match: "GET /a", deny: true', operations(tmp_path, {"/a;v=1": {"get": READ}, "/a": {"get": READ}}))
    assert (found.findings, found.opened, found.denied, found.unreachable) == ((), 0, 1, 1)


def test_every_base_and_every_host_is_asked(tmp_path: Path) -> None:
    servers = [{"url": "https://one.acme.com/v1"}, {"url": "https://two.acme.com/v2"}]
    described = operations(tmp_path, {"/a": {"get": READ}}, servers=servers)
    lines = 'match: "GET /v1/a", scope: SEARCH\nmatch: "GET /v2/a", public: true'
    assert [each.route for each in covered(lines, described).findings] == ["GET /v2/a"]
    head = "hosts: [one.acme.com]\n"
    assert [each.why for each in covered(lines, described, head=head).findings] == [
        "GET /v2/a is route_unknown",
        "no description has GET /v2/a",
    ]
    asked = covered(lines, described, head=head, hosts=("one.acme.com",))
    assert [each.route for each in asked.findings] == ["GET /v2/a"]


@pytest.mark.parametrize("kinds", [{Kind.OAUTH}, {Kind.ISSUED}, set()])
def test_kinds_of_token_that_are_off_change_nothing_about_routes(kinds: set[Kind], tmp_path: Path) -> None:
    policy, places = policy_of('match: "GET /a", scope: SEARCH\nmatch: "GET /b", public: true')
    policy = replace(policy, kinds=frozenset(kinds))
    described = operations(tmp_path, {"/a": {"get": READ}, "/b": {"get": READ}})
    found = coverage(Question(policy, places, described, OpenapiMap.model_validate(RULES, context=VOCABULARY), VOCABULARY))
    assert [each.route for each in found.findings] == ["GET /b"]


@pytest.mark.parametrize("what", ["GET /a", "n", "*", "GET *"])
def test_what_is_accepted_does_not_count(what: str, tmp_path: Path) -> None:
    rules = RULES | {"accepted": [{"what": "other", "why": "no"}, {"what": what, "why": "a probe"}]}
    found = covered('match: "GET /a", public: true, name: n', operations(tmp_path, {"/a": {"get": READ}}), rules)
    assert [each.accepted for each in found.findings] == ["a probe"]
    assert found.refused == ()


def test_a_finding_names_where_it_stands(tmp_path: Path) -> None:
    (found,) = covered('match: "GET /b", deny: true', operations(tmp_path, {"/a": {"get": READ}})).findings
    assert isinstance(found, Discrepancy)
    assert found.place == f"{tmp_path}/spec.json: paths./a.get"
