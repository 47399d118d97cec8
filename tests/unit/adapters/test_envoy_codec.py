"""What Envoy's codec reads, and which of its answers it remembers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import count

import pytest

from extauthz._pb import ext_authz_pb2 as pb
from extauthz.adapters.envoy import allowances
from extauthz.adapters.envoy import codec as envoy
from extauthz.adapters.envoy.codec import MAX_TEMPLATE_BYTES, EnvoyCodec
from extauthz.core.model import DECISION_ID as PLACEHOLDER
from extauthz.core.model import Allow, AuthType, Decision, Deny, HeaderEdits, Identity, Reason, Request, WouldDeny
from extauthz.responses.denials import FILTERED, GRPC_CODES, Answers, ClientAnswer, Denials, OwnAnswer, Template
from tests.support.world import DECISION_ID

ANA = Identity(AuthType.USER, "token:abc", "ana@acme.com", frozenset({"SEARCH"}), 2_000_000_000)
NO_ID = Answers(reasons={name: OwnAnswer(body=Template("no id")) for name in ("credential_missing", "token_invalid")})
REQUEST = Request("POST", "/search", "api.acme.com", {}, raw=True, decision_id=DECISION_ID)
GRPC = replace(REQUEST, headers={"content-type": "application/grpc"})


def asked(*lines: tuple[str, bytes], headers: dict[str, str] | None = None, **http: str) -> Request:
    """Read a question with these lines of raw headers, or this map of headers."""
    message = pb.CheckRequest()
    message.attributes.request.http.method = "GET"
    for name, text in http.items():
        setattr(message.attributes.request.http, name, text)
    for name, value in lines:
        message.attributes.request.http.header_map.headers.add(key=name, raw_value=value)
    message.attributes.request.http.headers.update(headers or {})
    request = EnvoyCodec().read(message.SerializeToString(), DECISION_ID)
    assert request is not None
    return request


def test_the_header_says_host_and_path_before_what_envoy_made_of_them() -> None:
    exact = asked((":authority", b"b\xfccher.acme.com"), (":path", b"/b\xfc"), host="b!cher.acme.com", path="/b!")
    assert (exact.host, exact.path) == ("b\xfccher.acme.com", "/b\xfc")
    assert exact.traceparent == ""
    filtered = asked(("authorization", b"Bearer x"), host="api.acme.com", path="/search")
    assert (filtered.host, filtered.path) == ("api.acme.com", "/search")


def test_text_is_read_as_the_bytes_that_came() -> None:
    """HTTP has bytes: one that is not ASCII is one character here, whichever way Envoy hands it on."""
    by_map = asked(headers={"x-name": "ä"}, host="ä.acme.com", path="/ä")
    by_line = asked(("x-name", "ä".encode()), (":authority", "ä.acme.com".encode()), (":path", "/ä".encode()))
    for request in (by_map, by_line):
        assert (request.header("x-name"), request.host, request.path) == ("\xc3\xa4", "\xc3\xa4.acme.com", "/\xc3\xa4")


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the decision ids of the answers that are written field by field."""
    ids: list[str] = []
    write = allowances.write_metadata

    def noted(response: pb.CheckResponse, decision_id: str, record: Mapping[str, str | int]) -> None:
        ids.append(decision_id)
        write(response, decision_id, record)

    monkeypatch.setattr(envoy, "write_metadata", noted)
    monkeypatch.setattr(allowances, "write_metadata", noted)
    return ids


FORWARDED = WouldDeny(Reason.SCOPE_MISSING, "r", HeaderEdits((("x-extauthz-decision", "would-deny"),), ()), ANA)


@pytest.mark.parametrize(
    ("request_", "decision", "writings"),
    [
        # One for the template; two more where the shape of a reason is looked at first.
        (REQUEST, FORWARDED, 1),
        (REQUEST, Deny(Reason.CREDENTIAL_MISSING, "r"), 1),
        (GRPC, Deny(Reason.CREDENTIAL_MISSING, "r"), 1),
        (REQUEST, Deny(Reason.TOKEN_REVOKED, "r"), 3),
        (GRPC, Deny(Reason.TOKEN_REVOKED, "r"), 3),
    ],
)
def test_an_answer_is_written_once_and_then_only_gets_its_id(
    request_: Request, decision: Decision, writings: int, written: list[str]
) -> None:
    """Also where the body names no id: a gRPC answer does nevertheless. Words of one's own are looked at before serving."""
    codec = EnvoyCodec(answers=NO_ID)
    written.clear()
    for number in range(5):
        decision_id = f"{number:032x}"
        assert decision_id.encode() in codec.write(replace(request_, decision_id=decision_id), decision)
    assert len(written) == writings


def sized(size: int) -> WouldDeny:
    """Return what monitor mode forwards, with an answer of so many bytes."""

    def padded(padding: int) -> WouldDeny:
        return replace(FORWARDED, edits=HeaderEdits((("x-padding", "a" * padding),), ()))

    decision = padded(1000)
    decision = padded(1000 + size - len(EnvoyCodec().write(REQUEST, decision)))
    assert len(EnvoyCodec().write(REQUEST, decision)) == size
    return decision


def test_an_answer_that_is_too_long_is_not_remembered_and_whole_nevertheless() -> None:
    codec = EnvoyCodec()
    for size, kept in ((MAX_TEMPLATE_BYTES, 1), (MAX_TEMPLATE_BYTES + 1, 1)):
        codec.write(REQUEST, sized(size))
        assert len(codec._templates) == kept
    answer = pb.CheckResponse.FromString(codec.write(REQUEST, sized(3000)))
    assert len(answer.ok_response.headers[0].header.value) > 2000
    for filtered in (True, False):
        long = codec.write(replace(REQUEST, filtered=filtered), Deny(Reason.CREDENTIAL_MISSING, "r" * 3000))
        assert (FILTERED in pb.CheckResponse.FromString(long).denied_response.body) == filtered
    assert len(codec._templates) == 1


def remembered() -> list[int]:
    """Write six answers of one length; return how many were in memory after each."""
    codec, found = EnvoyCodec(), []
    for number in range(6):
        codec.write(REQUEST, replace(FORWARDED, route=f"{number}"))
        found.append(len(codec._templates))
    assert next(reversed(codec._templates)) == replace(FORWARDED, route="5")
    return found


def test_memory_is_full_at_its_limits_and_not_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(envoy, "MAX_TEMPLATES", 3)
    assert remembered() == [1, 2, 3, 3, 3, 3]
    monkeypatch.setattr(envoy, "MAX_TEMPLATES", 100)
    size = len(EnvoyCodec().write(REQUEST, replace(FORWARDED, route="0"))) - len(DECISION_ID)
    monkeypatch.setattr(envoy, "MAX_BYTES_OF_TEMPLATES", 3 * size)
    assert remembered() == [1, 2, 3, 3, 3, 3]


def test_answers_that_say_the_same_are_the_same_bytes() -> None:
    """A template is found by comparing two answers: the fields of the metadata have one order."""
    edits = HeaderEdits((("x-id", PLACEHOLDER),), ())
    for decision in (Allow(Reason.ALLOWED, "r", edits, ANA, ANA.user), Deny(Reason.SCOPE_MISSING, "r", ANA, ANA.user)):
        data = EnvoyCodec().write(REQUEST, decision)
        answer = pb.CheckResponse.FromString(data)
        assert len(answer.dynamic_metadata.fields) >= 8
        assert data == answer.SerializeToString(deterministic=True)


def test_what_would_not_deny_is_not_served_whatever_the_cause(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = Answers(reasons={"route_unknown": OwnAnswer()})
    EnvoyCodec(answers=answers)
    with monkeypatch.context() as patch:
        patch.setitem(GRPC_CODES, 403, 0)
        with pytest.raises(RuntimeError, match="the denial route_unknown would not deny"):
            EnvoyCodec(answers=answers)
    turns = count()

    def growing(self: Denials, decision: Deny, decision_id: str, **how: bool) -> ClientAnswer:
        return ClientAnswer(decision.reason.status, (), "a" * next(turns))

    monkeypatch.setattr(Denials, "answer", growing)
    with pytest.raises(RuntimeError, match="would not deny"):
        EnvoyCodec()
