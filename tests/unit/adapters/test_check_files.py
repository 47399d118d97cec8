"""A CheckRequest that somebody kept: both of its forms, what is no such request, and what is said of it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from google.protobuf import json_format

from extauthz._pb import ext_authz_pb2 as pb
from extauthz.adapters.envoy.check_files import check_in, request_in
from extauthz.core.model import DECISION_ID, Request

HTTP = {"method": "POST", "path": "/search?a=b", "host": "api.acme.com", "headers": {"x-scio-actas": "ana@acme.com"}}
CHECK: dict[str, Any] = {
    "attributes": {"source": {"address": {"socketAddress": {"address": "192.0.2.7", "portValue": 5}}}, "request": {"http": HTTP}}
}
NOT_A_CHECK = "not a CheckRequest: its members are those of envoy.service.auth.v3.CheckRequest"


def binary(document: dict[str, Any]) -> bytes:
    return json_format.ParseDict(document, pb.CheckRequest()).SerializeToString()


@pytest.mark.parametrize(
    "kept",
    [binary(CHECK), json.dumps(CHECK).encode(), json.dumps(CHECK | {"newer": [1]}, indent=2).encode()],
    ids=["binary", "json", "newer"],
)
def test_both_forms_hold_the_same_request(kept: bytes) -> None:
    assert check_in(kept) == binary(CHECK)
    assert request_in(kept) == Request(
        method="POST",
        path="/search?a=b",
        host="api.acme.com",
        headers={"x-scio-actas": "ana@acme.com"},
        raw=False,
        decision_id=DECISION_ID,
        source="192.0.2.7",
        traceparent="",
        filtered=True,
    )


@pytest.mark.parametrize(
    ("kept", "said"),
    [
        (b'{"attributes": }', "not JSON: line 1, column 16"),
        (b'  {"attributes":\n x}', "not JSON: line 2, column 2"),
        (b'{"a": ' * 100_000, "not JSON"),
        (b"[]", "not a CheckRequest: write a JSON object with the member attributes"),
        (b'"attributes"', "not a CheckRequest: write a JSON object with the member attributes"),
        (b'{"attributes": 5}', NOT_A_CHECK),
        (b'{"attributes": {"request": {"http": {"method": "\\ud800"}}}}', NOT_A_CHECK),
        (b'{"\\ud800": 5}', NOT_A_CHECK),
        (b'{"attributes": {"\\ud800": 5}}', NOT_A_CHECK),
    ],
)
def test_what_is_no_request_is_said_without_a_piece_of_it(kept: bytes, said: str) -> None:
    with pytest.raises(ValueError, match=r"^not ") as refused:
        check_in(kept)
    assert str(refused.value) == said
    assert refused.value.__cause__ is None


def test_bytes_that_hold_no_request_are_none() -> None:
    assert check_in(b"\xff\xff") == b"\xff\xff"
    assert request_in(b"\xff\xff") is None


def test_the_binary_form_may_begin_as_json_does() -> None:
    """With the group of a field that nobody knows."""
    kept = b"{|" + binary(CHECK)
    assert check_in(kept) == kept
