"""What log, metadata and answers say of scopes when there are hundreds of them."""

from __future__ import annotations

import json

import pytest

from extauthz.adapters.decision_log.lines import MAX_LINE, Lines
from extauthz.core.model import AuthType, Deny, Identity, Reason, Request
from extauthz.responses.denials import MAX_NAMED, Answers, Denials, OwnAnswer, Template
from extauthz.telemetry.decision_record import MAX_VALUE, RecordField, record_of_scopes
from tests.support.world import DECISION_ID

ASKED = tuple(f"SCOPE_OF_SOME_SERVICE_{number:03}" for number in range(200))
HELD = frozenset(f"HELD_BY_THE_CALLER_{number:03}" for number in range(200))


def refusal(scopes: tuple[str, ...]) -> Deny:
    holder = Identity(AuthType.OAUTH, "oauth:okta:ana", "ana@acme.com", HELD, 1.0)
    return Deny(Reason.SCOPE_MISSING, "route", holder, "ana@acme.com", scopes=scopes)


def test_two_hundred_scopes_are_whole_names_within_a_limit_in_the_log_and_in_metadata() -> None:
    record = record_of_scopes(refusal(ASKED))
    for field, names in (("required_scopes", ASKED), ("held_scopes", sorted(HELD))):
        text = str(record[field])
        assert MAX_VALUE - 32 < len(text) <= MAX_VALUE
        assert text.split(" ") == list(names)[: text.count(" ") + 1]
    asked = Request("POST", "/" + "p" * 400, "api.acme.com", {"x-request-id": "r" * 128}, raw=True, decision_id=DECISION_ID)
    line = Lines(RecordField, {}).line(1_000.0, asked, refusal(ASKED), 0.0)
    assert len(line) <= MAX_LINE
    assert {name: json.loads(line)[name] for name in record} == record


@pytest.mark.parametrize("is_grpc", [False, True])
def test_two_hundred_scopes_are_in_the_body_and_in_no_header_and_no_sentence(is_grpc: bool) -> None:
    """Those that a message or a header of one's own would name are looked at when the configuration is loaded."""
    answer = Denials("extauthz", Answers()).answer(refusal(ASKED), DECISION_ID, grpc=is_grpc)
    assert max(len(value) for _, value in answer.headers) <= MAX_NAMED
    assert dict(answer.headers)["www-authenticate"] == 'Bearer realm="extauthz", error="insufficient_scope"'
    if is_grpc:
        assert len(answer.body) <= MAX_NAMED
    else:
        assert json.loads(answer.body)["scope"] == " ".join(ASKED)


def test_few_scopes_are_everywhere() -> None:
    own = OwnAnswer(message=Template("You need ${scope}."), headers=(("x-hint", Template("ask for ${scope}")),))
    answer = Denials("extauthz", Answers(reasons={"scope_missing": own})).answer(refusal(("CHAT", "FEED")), DECISION_ID)
    headers = dict(answer.headers)
    assert (headers["x-hint"], json.loads(answer.body)["message"]) == ("ask for CHAT FEED", "You need CHAT FEED.")
    assert 'scope="CHAT FEED"' in headers["www-authenticate"]
