"""Denials in a company's own words: they may say what they like, and stay denials."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extauthz._pb import ext_authz_pb2 as pb
from extauthz.adapters.envoy.codec import MAX_BYTES_OF_TEMPLATES, MAX_TEMPLATE_BYTES, OTHER_ID, EnvoyCodec
from extauthz.config.answers import MAX_BODY, AnswersSection
from extauthz.config.loader import load
from extauthz.core.model import ALLOWING, Allow, Deny, HeaderEdits, Reason, Request
from extauthz.core.model import DECISION_ID as PLACEHOLDER
from extauthz.errors import ConfigurationError
from extauthz.responses.denials import (
    GRPC_CODES,
    PUBLIC_REASONS,
    STATUSES,
    VARIABLES,
    Answers,
    Format,
    OwnAnswer,
    Template,
    is_json,
)
from tests.support.answers import ANSWERS, BEARER, METADATA
from tests.support.project import ROOT
from tests.support.world import DECISION_ID, Answer, MakeWorld, bearer, check_request

ROUTES = [
    {"match": "POST|HEAD /search", "scope": "SEARCH"},
    {"match": "POST /export", "all_of": ["SEARCH", "CHAT"]},
    {"match": "* /internal/**", "deny": True},
]
GRPC = {"content-type": "application/grpc"}
REASONS = [reason for reason in Reason if reason not in ALLOWING]
FIXED = (Reason.REQUEST_MALFORMED, Reason.INTERNAL, Reason.DRAINING)


@dataclass(frozen=True)
class Row:
    """What is configured, what is sent, and what the client gets; a header that is None is not there."""

    answers: dict[str, Any]
    line: str = "POST /search"
    headers: tuple[tuple[str, str], ...] = ()
    status: int = 401
    sent: tuple[tuple[str, str | None], ...] = ()
    body: Any = None


USUAL = {"error": "access_denied", "reason": "route_unknown", "message": "This method and path are not open."}
ROWS = {
    "a status of one's own": Row(
        {"reasons": {"route_unknown": {"status": 404}}},
        "POST /nowhere",
        status=404,
        sent=(("content-type", "application/json"), ("www-authenticate", None), ("cache-control", "no-store")),
        body={**USUAL, "decision_id": DECISION_ID},
    ),
    "for all causes of what is told": Row({"reasons": {"route_unknown": {"status": 404}}}, "POST /internal/x", status=404),
    "a sentence of one's own": Row(
        {"reasons": {"route_unknown": {"message": 'No "such" page, ${realm}.'}}},
        "POST /nowhere",
        status=403,
        body={**USUAL, "message": 'No "such" page, extauthz.', "decision_id": DECISION_ID},
    ),
    "a body with every variable": Row(
        {
            "reasons": {
                "scope_missing": {"body": json.dumps({name: f"<${{{name}}}>" for name in VARIABLES} | {"a": {"b": "$${x}"}})}
            }
        },
        "POST /export",
        (("authorization", "<<user>>"),),
        status=403,
        sent=(
            ("content-type", "application/json"),
            ("www-authenticate", f'{BEARER}, error="insufficient_scope", scope="SEARCH CHAT"'),
        ),
        body={
            "reason": "<scope_missing>",
            "message": "<The token lacks a scope that this route requires: SEARCH, CHAT.>",
            "decision_id": f"<{DECISION_ID}>",
            "realm": "<extauthz>",
            "scope": "<SEARCH CHAT>",
            "a": {"b": "${x}"},
        },
    ),
    "a body of another type": Row(
        {
            "reasons": {
                "credential_missing": {"content_type": "text/html; charset=utf-8", "message": "a < b", "body": "<p>${message}</p>"}
            }
        },
        sent=(("content-type", "text/html; charset=utf-8"), ("www-authenticate", BEARER)),
        body="<p>a &lt; b</p>",
    ),
    "plain text is not escaped": Row(
        {"reasons": {"credential_missing": {"content_type": "text/plain", "message": '"ä"', "body": "${message}"}}}, body='"ä"'
    ),
    "no body": Row({"reasons": {"credential_missing": {"body": ""}}}, sent=(("content-type", None),), body=""),
    "headers": Row(
        {"reasons": {"credential_missing": {"headers": {"x-hint": "${reason} in ${realm} ${scope}", "set-cookie": "a=b"}}}},
        sent=(("x-hint", "credential_missing in extauthz"), ("set-cookie", "a=b"), ("x-extauthz-decision-id", DECISION_ID)),
    ),
    "headers in another answer": Row({"reasons": {"scope_missing": {"headers": {"x-hint": "x"}}}}, sent=(("x-hint", None),)),
    "problem details": Row(
        {"format": "problem"},
        "POST /nowhere",
        status=403,
        sent=(("content-type", "application/problem+json"),),
        body={
            "type": "about:blank",
            "title": "Forbidden",
            "status": 403,
            "detail": USUAL["message"],
            "error": "access_denied",
            "reason": "route_unknown",
            "decision_id": DECISION_ID,
        },
    ),
    "problem details with another status": Row(
        {"format": "problem", "reasons": {"route_unknown": {"status": 404, "message": "Gone."}}},
        "POST /nowhere",
        status=404,
        body={
            "type": "about:blank",
            "title": "Not Found",
            "status": 404,
            "detail": "Gone.",
            "error": "access_denied",
            "reason": "route_unknown",
            "decision_id": DECISION_ID,
        },
    ),
    "a body of one's own among problem details": Row(
        {"format": "problem", "reasons": {"credential_missing": {"body": '{"title": "${reason}"}'}}},
        sent=(("content-type", "application/problem+json"),),
        body={"title": "credential_missing"},
    ),
    "resource metadata without a credential": Row(
        {"resource_metadata": METADATA}, sent=(("www-authenticate", f'{BEARER}, resource_metadata="{METADATA}"'),)
    ),
    "resource metadata with a bad token": Row(
        {"resource_metadata": METADATA},
        headers=(("authorization", "Bearer x"),),
        sent=(("www-authenticate", f'{BEARER}, error="invalid_token", resource_metadata="{METADATA}"'),),
    ),
    "resource metadata without the scope": Row(
        {"resource_metadata": METADATA},
        "POST /export",
        (("authorization", "<<user>>"),),
        status=403,
        sent=(("www-authenticate", f'{BEARER}, error="insufficient_scope", scope="SEARCH CHAT", resource_metadata="{METADATA}"'),),
    ),
    "resource metadata where no credential would help": Row(
        {"resource_metadata": METADATA}, "POST /nowhere", status=403, sent=(("www-authenticate", None),)
    ),
    "a hidden 401 asks for nothing": Row(
        {"resource_metadata": METADATA, "reasons": {"credential_missing": {"status": 404}}},
        status=404,
        sent=(("www-authenticate", None),),
    ),
    "a 403 that becomes a 401 has a challenge": Row(
        {"reasons": {"route_unknown": {"status": 401}}}, "POST /nowhere", sent=(("www-authenticate", BEARER),)
    ),
    "a 401 that becomes a 403 keeps its challenge": Row(
        {"reasons": {"token_invalid": {"status": 403}}},
        headers=(("authorization", "Bearer x"),),
        status=403,
        sent=(("www-authenticate", f'{BEARER}, error="invalid_token"'),),
    ),
    "a 401 that becomes a 429 may be tried again": Row(
        {"retry_after": "2m", "reasons": {"credential_missing": {"status": 429}}},
        status=429,
        sent=(("retry-after", "120"), ("www-authenticate", None)),
    ),
    "gRPC: message and headers, status of the reason": Row(
        {
            "format": "problem",
            "resource_metadata": METADATA,
            "reasons": {"credential_missing": {"status": 404, "message": "Log in.", "headers": {"x-hint": "a"}, "body": "{}"}},
        },
        headers=tuple(GRPC.items()),
        sent=(
            ("grpc-status", "16"),
            ("content-type", None),
            ("x-hint", "a"),
            ("www-authenticate", f'{BEARER}, resource_metadata="{METADATA}"'),
        ),
        body=f"Log in. (decision {DECISION_ID})",
    ),
    "gRPC: a status of one's own is no reason to try again": Row(
        {"reasons": {"credential_missing": {"status": 503}}}, headers=tuple(GRPC.items()), sent=(("retry-after", None),)
    ),
    "HEAD is answered like the others": Row(
        {"reasons": {"credential_missing": {"status": 404, "body": '{"a": 1}'}}}, "HEAD /search", status=404, body={"a": 1}
    ),
}


@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS)
def test_what_the_client_gets(row: Row, make_world: MakeWorld) -> None:
    world = make_world(ROUTES, answers=row.answers)
    user = bearer(world.token("USER", "PEOPLE"))["authorization"]
    headers = [(name, user if value == "<<user>>" else value) for name, value in row.headers]
    for _ in range(3):
        answer = world.check(row.line, headers)
        assert (answer.allowed, answer.status) == (False, row.status)
        assert answer.message.status.code == GRPC_CODES[answer.decision.reason.status]
        assert {name: answer.headers.get(name) for name, _ in row.sent} == dict(row.sent)
        assert answer.headers["x-extauthz-decision-id"] == answer.metadata["decision_id"] == DECISION_ID
        if row.body is not None:
            is_text = isinstance(row.body, str)
            assert (answer.denied.body if is_text else answer.body) == row.body


def test_a_503_says_when_to_try_again_and_may_become_a_429() -> None:
    own = AnswersSection.model_validate({"retry_after": "30s", "reasons": {"overloaded": {"status": 429}}})
    codec = EnvoyCodec(answers=own.answers)
    found = {reason: told(codec, Deny(reason)) for reason in (Reason.OVERLOADED, Reason.DRAINING)}
    assert {reason: (answer.status, answer.headers["retry-after"]) for reason, answer in found.items()} == {
        Reason.OVERLOADED: (429, "30"),
        Reason.DRAINING: (503, "30"),
    }
    assert "retry-after" not in told(codec, Deny(Reason.INTERNAL)).headers


def request(decision_id: str = DECISION_ID, **headers: str) -> Request:
    lines = {name.replace("_", "-"): value for name, value in headers.items()}
    return Request("POST", "/search", "api.acme.com", lines, raw=True, decision_id=decision_id)


def told(codec: EnvoyCodec, decision: Deny, decision_id: str = DECISION_ID, *, grpc: bool = False) -> Answer:
    data = codec.write(request(decision_id, **({"content_type": "application/grpc"} if grpc else {})), decision)
    return Answer(pb.CheckResponse.FromString(data), decision)


def everything_changed(status: int) -> Answers:
    """Return answers with words for every reason."""
    entry = {
        "status": status,
        "message": "${reason}, ${scope}, ${decision_id}",
        "headers": {"x-hint": "${reason}: ${message}", "x-id": "${decision_id}"},
        "body": '{"${reason}": "${message}", "ids": ["${decision_id}", "${decision_id}${decision_id}"], "realm": "${realm}"}',
    }
    return AnswersSection.model_validate({"resource_metadata": METADATA, "reasons": dict.fromkeys(PUBLIC_REASONS, entry)}).answers


# The fence of the whole feature: Envoy allows what has status 0 or no status, whatever else an answer says.
@pytest.mark.parametrize("error_response", [False, True])
@pytest.mark.parametrize("status", STATUSES)
def test_no_status_of_ones_own_makes_an_allow(status: int, *, error_response: bool) -> None:
    codec = EnvoyCodec(answers=everything_changed(status), error_response=error_response)
    for reason in REASONS:
        for grpc in (False, True):
            for _ in range(2):
                answer = told(codec, Deny(reason, "r", scopes=("SEARCH",)), grpc=grpc)
                assert answer.message.status.code == GRPC_CODES[reason.status]
                assert answer.status == (reason.status if grpc else status)
                assert answer.metadata["reason"] == reason.value
                as_error = error_response and reason in (Reason.INTERNAL, Reason.STORE_UNAVAILABLE, Reason.ISSUER_UNAVAILABLE)
                assert answer.message.WhichOneof("http_response") == ("error_response" if as_error else "denied_response")
    for reason in FIXED:
        message = pb.CheckResponse.FromString(codec.fixed(reason, DECISION_ID))
        assert message.status.code == GRPC_CODES[reason.status]
        assert Answer(message, Deny(reason)).status == status


@pytest.mark.parametrize("status", [0, 200, 204, 302, 599])
@pytest.mark.parametrize("name", ["internal", "route_unknown"])
def test_a_denial_that_would_not_deny_is_not_served(name: str, status: int) -> None:
    """Such an answer cannot be configured; should it be, this codec does not come to be and the old one goes on."""
    with pytest.raises(RuntimeError, match=f"the denial {name} would not deny"):
        EnvoyCodec(answers=Answers(reasons={name: OwnAnswer(status=status)}))


# What is one answer to the client is one with every setting: else a body would tell a revoked token from an unknown one.
def test_causes_of_one_answer_cannot_be_told_apart() -> None:
    codec = EnvoyCodec(answers=everything_changed(403))
    for grpc in (False, True):
        answers: dict[str, set[bytes]] = {}
        for reason in REASONS:
            denied = told(codec, Deny(reason), grpc=grpc).denied
            answers.setdefault(reason.public_name, set()).add(denied.SerializeToString(deterministic=True))
        assert {name: len(different) for name, different in answers.items()} == dict.fromkeys(PUBLIC_REASONS, 1)


# Templates


HALF = PLACEHOLDER[:16]
TEXTS = st.lists(
    st.sampled_from(["${decision_id}", PLACEHOLDER, HALF, OTHER_ID, OTHER_ID[:16], "${reason}", "${scope}", "${realm}", "a", "0"]),
    max_size=8,
).map("".join)


@given(TEXTS, TEXTS, TEXTS, TEXTS, st.lists(st.uuids().map(lambda drawn: drawn.hex), min_size=2, max_size=3))
def test_what_looks_like_the_decision_id_is_not_taken_for_it(
    body: str, header: str, message: str, user: str, ids: list[str]
) -> None:
    """Neither in our own words nor in the client's, of which the effective user is one, in the metadata."""
    message = message.replace("${message}", "") or "a"
    entry = {"body": body, "content_type": "text/plain", "headers": {"x-id": header}, "message": message}
    if not body:
        del entry["content_type"]
    answers = AnswersSection.model_validate({"reasons": dict.fromkeys(("internal", "scope_missing"), entry)}).answers
    realm = (HALF + PLACEHOLDER)[: len(header) or 1]
    codec = EnvoyCodec(answers=answers, realm=realm)
    for decision in (Deny(Reason.SCOPE_MISSING, HALF, None, f"{user}@acme.com", ("SEARCH",)), Deny(Reason.INTERNAL)):
        for grpc in (False, True):
            for decision_id in ids:
                fresh = EnvoyCodec(answers=answers, realm=realm)._denial(decision, decision_id, grpc=grpc)
                headers = GRPC if grpc else {}
                sent = replace(request(decision_id), headers=headers)
                assert [codec.write(sent, decision) for _ in range(2)] == [fresh] * 2
    for decision_id in ids:
        assert codec.fixed(Reason.INTERNAL, decision_id) == codec._denial(Deny(Reason.INTERNAL), decision_id, grpc=False)


def counting(answers: Answers, **settings: Any) -> tuple[EnvoyCodec, list[Deny]]:
    """Return a codec and the list of the denials that it writes word by word."""
    codec = EnvoyCodec(answers=answers, **settings)
    written: list[Deny] = []
    write = codec._denials.answer

    def answer(decision: Deny, decision_id: str, **how: bool) -> Any:
        written.append(decision)
        return write(decision, decision_id, **how)

    codec._denials.answer = answer  # type: ignore[method-assign]
    return codec, written


@pytest.mark.parametrize("mentions", range(4))
@pytest.mark.parametrize("size", [10, MAX_TEMPLATE_BYTES, MAX_BODY - 200])
def test_long_bodies_and_any_number_of_ids_are_remembered(mentions: int, size: int) -> None:
    entry = {"body": json.dumps(["${decision_id}"] * mentions + ["a" * size])}
    codec, written = counting(AnswersSection.model_validate({"reasons": {"scope_missing": entry}}).answers)
    for number in range(5):
        decision_id = f"{number:032x}"
        answer = told(codec, Deny(Reason.SCOPE_MISSING, "r", None, "ana@acme.com", ("SEARCH",)), decision_id)
        assert answer.body == [decision_id] * mentions + ["a" * size]
    assert len(written) == 1


def test_what_is_remembered_is_bounded_in_bytes() -> None:
    """Whoever holds a GLOBAL token chooses the user, who is named in the metadata of a denial."""
    entry = {"body": json.dumps("a" * (MAX_BODY - 2))}
    codec, written = counting(AnswersSection.model_validate({"reasons": {"scope_missing": entry}}).answers)
    most = 0
    for number in range(2500):
        told(codec, Deny(Reason.SCOPE_MISSING, "r", None, f"{number}@acme.com", ("SEARCH",)))
        most = max(most, sum(len(part) for parts in codec._templates.values() for part in parts))
    assert len(written) == 2500
    assert MAX_BYTES_OF_TEMPLATES * 0.9 < most <= MAX_BYTES_OF_TEMPLATES


def test_another_users_identity_is_never_forwarded_although_its_edits_take_the_place_of_others_in_memory() -> None:
    """A template is found by the address of its edits: while it lives, nothing else may have that address."""
    codec = EnvoyCodec()
    request = Request("POST", "/search", "api.acme.com", {}, raw=True, decision_id=DECISION_ID)
    for number in range(100):
        user = f"user-{number}@acme.com"
        # Nobody else keeps these edits: the next ones would be made at their address.
        allow = Allow(Reason.ALLOWED, "r", HeaderEdits((("x-extauthz-user", user), ("x-extauthz-id", PLACEHOLDER)), ()))
        message = pb.CheckResponse.FromString(codec.write(request, allow))
        assert [option.header.value for option in message.ok_response.headers] == [user, DECISION_ID]


def test_an_answer_names_its_own_route_although_another_route_forwards_the_same_headers() -> None:
    codec, edits = EnvoyCodec(), HeaderEdits((("x-extauthz-user", "ana@acme.com"), ("x-extauthz-id", PLACEHOLDER)), ())
    for route in ("POST /search", "DELETE /everything", "POST /search"):
        decision = Allow(Reason.ALLOWED, route, edits)
        answer = Answer(pb.CheckResponse.FromString(codec.write(request(DECISION_ID), decision)), decision)
        assert answer.metadata["route"] == route


def test_who_sends_no_credential_is_not_told_of_the_headers_that_were_kept_from_another_request() -> None:
    codec, decision = EnvoyCodec(), Deny(Reason.CREDENTIAL_MISSING, "r")
    bodies = {}
    for filtered in (True, False, True):
        data = codec.write(replace(request(DECISION_ID), filtered=filtered), decision)
        bodies[filtered] = Answer(pb.CheckResponse.FromString(data), decision).body["message"]
        assert data == EnvoyCodec().write(replace(request(DECISION_ID), filtered=filtered), decision)
    assert bodies[True] != bodies[False]


# Text with variables


PIECES = st.lists(st.sampled_from(["${reason}", "$${", "$", "{", "}", "{}", "$5", '{"a": "b"}', "text", "${scope}"]), max_size=10)


@given(PIECES)
def test_a_text_is_read_from_left_to_right(pieces: list[str]) -> None:
    """Pieces that would run into each other are kept apart."""
    values = {"reason": "R", "scope": "S"}
    text = " ".join(pieces)
    expected = " ".join({"${reason}": "R", "${scope}": "S", "$${": "${"}.get(piece, piece) for piece in pieces)
    template = Template(text)
    assert template.filled(values) == expected
    assert template.get_identifiers() == list(dict.fromkeys(piece[2:-1] for piece in pieces if piece in ("${reason}", "${scope}")))


@pytest.mark.parametrize("text", ["${", "a ${reason", "${a{b}", "}${", "$${ ${"])
def test_a_variable_is_closed(text: str) -> None:
    with pytest.raises(ValueError, match="close it"):
        Template(text)


@given(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=40),
    st.sampled_from(["application/json", "application/problem+json"]),
)
def test_values_are_escaped_for_json(message: str, content_type: str) -> None:
    wording = Template(message.replace("${", "$${"))
    own = OwnAnswer(message=wording, content_type=content_type, body=Template('{"${reason}": "a ${message} b"}'))
    codec = EnvoyCodec(answers=Answers(reasons={"draining": own}))
    assert told(codec, Deny(Reason.DRAINING)).body == {"draining": f"a {message} b"}
    for written in Format:
        usual = EnvoyCodec(answers=Answers(format=written, reasons={"draining": OwnAnswer(message=wording)}))
        body = told(usual, Deny(Reason.DRAINING)).body
        assert body["message" if written is Format.JSON else "detail"] == message


@pytest.mark.parametrize(
    ("content_type", "expected"),
    [
        ("application/json", True),
        ("application/json; charset=utf-8", True),
        ("application/problem+json", True),
        ("application/vnd.acme.v1+json;charset=utf-8", True),
        ("text/json", True),
        ("application/jsonp", False),
        ("application/xjson", False),
        ("text/plain", False),
        ("text/html; charset=utf-8", False),
    ],
)
def test_what_is_json(content_type: str, *, expected: bool) -> None:
    assert is_json(content_type) is expected


# Configuration: the problems themselves are in config/bad, with their words


def test_every_name_that_is_told_can_be_written_and_no_other() -> None:
    assert set(PUBLIC_REASONS) == {reason.public_name for reason in REASONS}
    for name in {reason.value for reason in Reason} | set(PUBLIC_REASONS):
        entry = {"reasons": {name: {"status": 404}}}
        if name in PUBLIC_REASONS:
            assert AnswersSection.model_validate(entry).answers.reasons[name].status == 404
        else:
            with pytest.raises(ValueError, match="told"):
                AnswersSection.model_validate(entry)


def test_the_longest_answer_that_may_be_configured_is_told(make_world: MakeWorld) -> None:
    """And one byte more is a problem, found with what the route with the most scopes makes of it."""
    overhead = len('{"scope": "SEARCH CHAT", "a": ""}')
    body = '{"scope": "${scope}", "a": "' + "a" * (MAX_BODY - overhead) + '"}'
    headers = {f"x-{number}": "${scope}" + "b" * (1024 - len("SEARCH CHAT")) for number in range(16)}
    entry = {"body": body, "headers": headers, "message": "${scope}" + "c" * 492}
    world = make_world(ROUTES, answers={"reasons": {"scope_missing": entry}})
    answer = world.check("POST /export", bearer(world.token("USER", "PEOPLE")))
    assert (answer.reason, len(answer.denied.body), answer.body["scope"]) == ("scope_missing", MAX_BODY, "SEARCH CHAT")
    assert [len(answer.headers[name]) for name in headers] == [1024] * 16
    for change in ({"body": body.replace("a" * 9, "a" * 10)}, {"headers": {"x-0": headers["x-0"] + "b"}}):
        with pytest.raises(ConfigurationError, match="with its variables it is longer"):
            make_world(ROUTES, answers={"reasons": {"scope_missing": entry | change}})


def test_an_unreadable_request_gets_its_answer_too(make_world: MakeWorld) -> None:
    world = make_world(ROUTES, answers={"reasons": {"request_malformed": {"status": 404, "body": '{"id": "${decision_id}"}'}}})
    answer = world.check_bytes(b"\xff")
    assert (answer.status, answer.message.status.code, answer.body) == (404, 3, {"id": DECISION_ID})


def test_answers_change_with_the_settings_and_no_verdict_is_lost(make_world: MakeWorld) -> None:
    world = make_world(ROUTES)
    for status in (404, 429, 404):
        world.changes = {"answers": {"reasons": {"route_unknown": {"status": status}}}}
        digest = world.configuration.section_digest
        before = [digest(kind, {}) for kind in world.verdicts]
        world.configuration = world._configure()
        assert [world.configuration.section_digest(kind, {}) for kind in world.verdicts] == before
        world.authorizer.swap(world.build().runtime)
        assert world.check_bytes(check_request("POST", "/nowhere")).status == status


def test_the_document_says_what_there_is() -> None:
    text = (ROOT / "docs" / "answers.md").read_text(encoding="utf-8")
    assert re.findall(r"^\| `\$\{(\w+)\}` \|", text, re.MULTILINE) == list(VARIABLES)
    assert "reasons" in AnswersSection.model_fields
    for key in (*(set(AnswersSection.model_fields) - {"reasons"}), "status", "message", "headers", "body", "content_type"):
        assert re.search(rf"^\| `{key}` \|", text, re.MULTILINE), key
    assert "400, 401, 403, 404, 429 or 503" in text
    assert STATUSES == (400, 401, 403, 404, 429, 503)


# Through Envoy


def test_the_settings_of_the_tests_load_without_warnings(tmp_path: Path) -> None:
    (tmp_path / "routes.yaml").write_text('routes: [{match: "POST /search", scope: SEARCH}]')
    file = tmp_path / "extauthz.yaml"
    more = "oauth: {provider: okta, issuer: https://acme.okta.com/oauth2/default, audience: x, client_ids: [x]}\n"
    file.write_text(f"version: 1\nserver: {{listen: 127.0.0.1:9001}}\nscopes: [SEARCH]\nroutes: [routes.yaml]\n{more}{ANSWERS}")
    assert load(file).warnings == ()
