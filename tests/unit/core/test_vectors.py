"""The decision page as tables: `tests/vectors/*.yaml`, written from the specification, row by row and sentence by sentence.

Besides what its case says, every answer keeps the laws that hold for all of them (`_keeps_the_laws`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from extauthz.admin.outcomes import Refusal
from extauthz.admin.token_requests import TokenRequest, TokenRules, refusals
from extauthz.core import paths
from extauthz.core.act_as import ActAs
from extauthz.core.model import AuthType, Reason
from extauthz.errors import ConfigurationError
from tests.support import vectors
from tests.support.vector_worlds import CASES, CHECKS, EXPECTED, FILES, PATH, REQUEST, TABLES, Worlds, prepared, worlds
from tests.support.vectors import Case, VectorWorld
from tests.support.world import DECISION_ID, NOW, Answer

__all__ = ["worlds"]

REASONS: dict[str, list[Any]] = FILES["answers"]["reasons"]

CONFIGURATION = {"about", "routes", "files", "settings", "errors", "warns", "order", "refused"}

GRPC_CODES = {200: 0, 400: 3, 401: 16, 403: 7, 500: 13, 503: 14}
IDENTITY = ("user", "actor", "auth-type", "scopes", "client-id", "decision-id", "decision", "token")
CREDENTIALS = ("authorization", "x-glean-auth-type", "x-scio-actas", "x-glean-actas")
OVERRIDES = (
    *("x-original-url", "x-rewrite-url", "x-http-method", "x-http-method-override", "x-method-override"),
    *("script-name", "x-script-name", "path-info"),
)
DECISION = "-decision"
"""End of the name that every allow removes, and only monitor mode sets: no list of a case repeats it."""
MUTATION_RULE = re.compile(
    r"^(authorization|x-(extauthz-.*|(scio|glean)-actas|glean-auth-type|forwarded-host)|forwarded|.*[!#$%&'*+._^`|~].*)$"
)
"""`decoder_header_mutation_rules` of the default configuration, and of one with hosts; an override is removed by Envoy before."""

PATHS = [case for case in CASES if "path" in case.data]
CONFIGURATIONS = vectors.cases("configuration", FILES["configuration"], CONFIGURATION)
ALIKE = [(name, group["group"]) for name in TABLES for group in FILES[name]["groups"] if group.get("alike")]


@pytest.mark.parametrize("case", CHECKS, ids=str)
def test_check(case: Case, worlds: Worlds) -> None:
    vectors.known(case.data, REQUEST | EXPECTED, str(case))
    for form, answer in _answers(case, worlds(case)).items():
        context = f"{case.rule}\n{form}: {case.data}\n{answer.message}"
        _keeps_the_laws(case, answer, context)
        _tells_no_secret(worlds(case), answer, context)
        _is_as_said(worlds(case).fill(prepared(case, worlds(case))), answer, context)


@pytest.mark.parametrize(("name", "group"), ALIKE)
def test_answers_do_not_tell_the_cases_apart(name: str, group: str, worlds: Worlds) -> None:
    found = {
        answer.denied.SerializeToString(deterministic=True)
        for case in CHECKS
        if (case.file, case.group) == (name, group)
        for answer in _answers(case, worlds(case)).values()
    }
    assert len(found) == 1


@pytest.mark.parametrize("case", PATHS, ids=str)
def test_path(case: Case, worlds: Worlds) -> None:
    world = worlds(case)
    data = world.fill(dict(case.data))
    vectors.known(data, PATH, str(case))
    path, reason = data["path"], data.get("reason", "public")
    if "reason" not in data:
        found = _parsed(path)
        assert {"segments", "same_as"} & set(data), "the case expects nothing"
        assert list(found.segments) == data.get("segments", list(found.segments))
        assert found.canonical == data.get("canonical", found.canonical)
        if "same_as" in data:
            other = _parsed(data["same_as"])
            assert (found.segments, found.canonical) == (other.segments, other.canonical)
    request = {"send": f"GET {path}"} | ({"form": data["form"]} if "form" in data else {})
    for form, message in vectors.requests(request).items():
        answer = world.ask(message)
        assert answer.reason == reason, f"{case.rule}\n{form}: {answer.message}"
        _keeps_the_laws(case, answer, f"{form}: {answer.message}")


@pytest.mark.parametrize("case", CONFIGURATIONS, ids=str)
def test_configuration(case: Case, tmp_path: Path) -> None:
    data = case.data
    assert {"errors", "warns", "order"} & set(data), "the case expects nothing"
    said = {"routes": data.get("routes", ["GET /x"]), "files": data.get("files", {}), **data.get("settings", {})}
    if "errors" in data:
        with pytest.raises(ConfigurationError) as caught:
            vectors.build(tmp_path, said, {})
        for fragment in data["errors"]:
            assert fragment in str(caught.value)
        return
    configuration = vectors.build(tmp_path, said, {}).world.configuration
    warnings = [str(warning) for warning in configuration.warnings]
    if data.get("warns") == []:
        assert [line for line in warnings if "routes.yaml" in line] == []
    elif "warns" in data:
        assert [line for line in warnings if all(fragment in line for fragment in data["warns"])] != [], warnings
    if "order" in data:
        assert sorted({refusal.field for refusal in _refusals(data["order"], configuration.policy.act_as)}) == data["refused"]


def test_an_error_is_told_by_more_than_its_file() -> None:
    """The name of a file stands in every message about it."""
    problems = {str(case): case.data["errors"] for case in CONFIGURATIONS if "errors" in case.data}
    assert len(problems) > 50
    assert {name: said for name, said in problems.items() if all(fragment.endswith(".yaml") for fragment in said)} == {}


def test_the_reasons_are_a_closed_list() -> None:
    assert {reason.value for reason in Reason} == set(REASONS)
    assert {case.data["reason"] for case in CHECKS + PATHS if "reason" in case.data} <= set(REASONS)


def test_every_reason_has_a_case() -> None:
    asked = {case.data["reason"] for case in CHECKS + PATHS if "reason" in case.data}
    unreachable = {"token_inactive"}  # an answer of introspection, which this release does not ask for
    assert set(REASONS) - asked == unreachable


def _answers(case: Case, world: VectorWorld) -> dict[str, Answer]:
    """Ask twice in every form: what is in memory after the first time changes no answer."""
    data = world.fill(prepared(case, world))
    answers = {}
    for form, message in vectors.requests(data).items():
        answers[form] = answer = world.ask(message)
        assert world.ask(message).message == answer.message, "the second answer differs"
    return answers


def _is_as_said(said: Mapping[str, Any], answer: Answer, context: str) -> None:
    """Compare an answer with each expectation of its case."""
    assert EXPECTED & set(said), "the case expects nothing"
    headers, metadata = answer.headers, answer.metadata
    found: dict[str, Callable[[], Any]] = {
        "reason": lambda: answer.reason,
        "status": lambda: answer.status,
        "code": lambda: answer.message.status.code,
        "route": lambda: answer.decision.route,
        "user": lambda: headers.get("x-extauthz-user"),
        "actor": lambda: headers.get("x-extauthz-actor"),
        "auth_type": lambda: headers.get("x-extauthz-auth-type"),
        "scopes": lambda: headers.get("x-extauthz-scopes"),
        "sets": lambda: headers,
        "removed": lambda: sorted({name.lower() for name in answer.removed if not name.endswith(DECISION)}),
        "challenge": lambda: headers.get("www-authenticate"),
        "told": lambda: answer.body["reason"],
        "error": lambda: answer.body["error"],
        "answered_by": lambda: answer.message.WhichOneof("http_response"),
    }
    for name, find in found.items():
        if name in said:
            expected = sorted(said[name]) if name == "removed" else said[name]
            assert find() == expected, f"{name}\n{context}"
    for name, value in said.get("also_sets", {}).items():
        assert headers.get(name) == value, f"{name}\n{context}"
    for name in said.get("removes", []):
        assert name in [removed.lower() for removed in answer.removed], f"{name}\n{context}"
    for name in said.get("passes", []):
        assert answer.allowed, context
        assert name not in headers, f"{name}\n{context}"
        assert name not in [removed.lower() for removed in answer.removed], f"{name}\n{context}"
    for name, value in said.get("headers", {}).items():
        assert headers.get(name) == value, f"{name}\n{context}"
    for name in said.get("absent", []):
        assert name not in headers, f"{name}\n{context}"
    for name, value in said.get("metadata", {}).items():
        assert metadata.get(name) == value, f"{name}\n{context}"
    if "message_has" in said:
        assert said["message_has"] in answer.body["message"], context
    if "message_is" in said:
        assert answer.body["message"] == said["message_is"], context
    if "plain_body" in said:
        assert DECISION_ID in answer.denied.body, context
        assert "{" not in answer.denied.body, context
    if "challenge_scopes" in said:
        scopes = re.findall(r'error="insufficient_scope", scope="([^"]*)"$', headers["www-authenticate"])
        assert [sorted(text.split(" ")) for text in scopes] == [sorted(said["challenge_scopes"])], context


def _keeps_the_laws(case: Case, answer: Answer, context: str) -> None:
    """Check what is true of every answer."""
    message = answer.message
    status, told = REASONS[answer.reason]
    outcome = "allow" if answer.reason in ("allowed", "public") else "would_deny" if answer.forwarded else "deny"
    assert message.HasField("status"), context
    assert message.status.code == (0 if answer.forwarded else GRPC_CODES[status]), context
    assert answer.allowed == (outcome != "deny"), context
    assert answer.metadata["decision"] == outcome, context
    assert answer.metadata["reason"] == answer.reason, context
    assert answer.metadata["status"] == status, context
    assert answer.metadata["decision_id"] == DECISION_ID, context
    if answer.allowed:
        assert message.WhichOneof("http_response") == "ok_response", context
        _keeps_the_laws_of_edits(case, answer, context)
        return
    assert answer.status == status, context
    as_error = answer.reason in ("internal", "store_unavailable", "issuer_unavailable")
    as_error = as_error and bool(case.world.get("envoy", {}).get("error_response"))
    assert message.WhichOneof("http_response") == ("error_response" if as_error else "denied_response"), context
    _keeps_the_laws_of_denials(case, answer, told, context)


def _keeps_the_laws_of_edits(case: Case, answer: Answer, context: str) -> None:
    """No name is set and removed, what we own is one of the two, values are printable, the action is to overwrite."""
    identity = case.world.get("identity", {})
    prefix, keep = identity.get("prefix", "x-extauthz-"), identity.get("keep", [])
    names, removed = set(answer.headers), {name.lower() for name in answer.removed}
    assert len(names) == len(answer.message.ok_response.headers), context
    assert not names & removed, context
    credentials = _credentials(case.world)
    for name in (*(prefix + name for name in IDENTITY), *credentials):
        if name not in keep and (name not in credentials or case.file != "monitor"):
            assert name in names | removed, f"{name}\n{context}"
    for option in answer.message.ok_response.headers:
        assert option.append_action == 2, context
        assert not option.HasField("append"), context
        assert re.fullmatch(r"[\x21-\x7e]{0,512}", option.header.value), context
    if prefix == "x-extauthz-" and "headers" not in case.world.get("act_as", {}) and "auth_type" not in case.world:
        for name in (names | removed) - set(OVERRIDES):
            assert MUTATION_RULE.fullmatch(name), f"{name}\n{context}"
    if answer.forwarded:
        assert answer.headers == {prefix + "decision": "would-deny"}, context
    else:
        assert answer.headers[prefix + "decision-id"] == DECISION_ID, context
        assert prefix + "decision" in removed, context


def _credentials(world: Mapping[str, Any]) -> list[str]:
    """Return the headers that clients send tokens and users with."""
    act_as, auth_type = world.get("act_as", {}), world.get("auth_type", {})
    own = {name.lower() for name in act_as.get("headers", [])}
    kind = [] if auth_type == "by_token" else [auth_type.get("header", "x-glean-auth-type").lower()]
    defaults = [] if act_as.get("only") else [name for name in CREDENTIALS if name.endswith("actas")]
    return ["authorization", *kind, *defaults, *own]


def _keeps_the_laws_of_denials(case: Case, answer: Answer, told: str, context: str) -> None:
    """Status, challenge and body follow from the reason alone, and nothing of the request is in them."""
    headers, status = answer.headers, answer.status
    prefix = case.world.get("identity", {}).get("prefix", "x-extauthz-")
    assert headers[f"{prefix}decision-id"] == DECISION_ID, context
    assert headers["cache-control"] == "no-store", context
    assert ("retry-after" in headers) == (status == 503), context
    challenge = headers.get("www-authenticate")
    if status in (400, 401) or answer.reason == "scope_missing":
        realm = case.world.get("realm", "extauthz")
        assert challenge is not None, context
        assert challenge.startswith(f'Bearer realm="{realm}"'), context
        errors = {400: "invalid_request", 401: "invalid_token", 403: "insufficient_scope"}
        if answer.reason not in ("credential_missing", "scheme_unsupported"):
            assert f'error="{errors[status]}"' in challenge, context
    else:
        assert challenge is None, context
    for option in answer.denied.headers:
        assert re.fullmatch(r"[\x20-\x7e]*", option.header.value), context
    if "plain_body" not in case.data:
        members = {"error", "reason", "message", "decision_id"} | ({"scope"} if answer.reason == "scope_missing" else set())
        assert set(answer.body) == members, context
        if "scope" in members:
            assert f'scope="{answer.body["scope"]}"' in str(challenge), context
        assert answer.body["reason"] == told, context
        assert answer.body["decision_id"] == DECISION_ID, context
        assert headers["content-type"] == "application/json", context
    lines = case.data.get("with", {})
    values = [value for _, value in (lines.items() if isinstance(lines, dict) else lines)]
    values += [str(case.data.get("send", "")).partition(" ")[2], case.data.get("host", "api.acme.com")]
    told_text = "\n".join((answer.denied.body, *headers.values(), answer.message.status.message))
    for value in values:
        if len(value) >= 8 and not value.startswith(("application/", "Bearer <<")):
            assert value not in told_text, f"{value}\n{context}"


def _tells_no_secret(world: VectorWorld, answer: Answer, context: str) -> None:
    text = answer.message.SerializeToString()
    for secret in world.texts.values():
        assert not [part for part in re.split("[._]", secret) if len(part) > 20 and part.encode() in text], context


def _parsed(target: str) -> paths.Path:
    found = paths.parse(target.partition("?")[0])
    assert isinstance(found, paths.Path), found
    return found


def _refusals(said: Mapping[str, Any], act_as: ActAs) -> list[Refusal]:
    """Return what stands against an order."""
    vectors.known(said, {"permission", "user", "scopes", "lifetime", "description"}, "order")
    order = TokenRequest(
        description=said.get("description", "a vector"),
        permission=AuthType(said["permission"]),
        scopes=frozenset(said.get("scopes", ["SEARCH"])),
        created_at=NOW,
        created_by="vectors",
        expires_at=NOW + said.get("lifetime", 60),
        user=said.get("user"),
    )
    return list(refusals(order, TokenRules("glean", frozenset({"SEARCH"}), 86400.0, act_as)))


def test_a_key_that_nobody_reads_is_an_error() -> None:
    group = {"group": "g", "rule": "r", "world": {"routes": []}, "cases": [{"send": "GET /", "reson": "public"}]}
    with pytest.raises(ValueError, match="reson"):
        vectors.cases("x", {"groups": [group]}, REQUEST | EXPECTED)
    with pytest.raises(ValueError, match="wrold"):
        vectors.cases("x", {"groups": [group | {"wrold": {}}]}, REQUEST | EXPECTED)


@pytest.mark.parametrize("name", ["reason", "status", "told", "route", "user"])
def test_a_case_that_would_take_several_answers_is_an_error(name: str) -> None:
    group = {"group": "g", "rule": "r", "world": {"routes": []}, "cases": [{"send": "GET /", name: ["one", "another"]}]}
    with pytest.raises(ValueError, match=f"{name} is a list"):
        vectors.cases("x", {"groups": [group]}, REQUEST | EXPECTED)
