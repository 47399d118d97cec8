"""`check` answers any bytes, and whatever it is sent, the answer is a finished one that tells nothing of it."""

from __future__ import annotations

import asyncio
import json
import math
import re
import timeit
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from extauthz._pb import ext_authz_pb2 as pb
from extauthz.core.model import Allow, Decision, Request
from extauthz.service import Authorizer
from tests.support import fuzz
from tests.support.world import CLIENT, DECISION_ID, NOW, StillKeys, World, bearer, check_request, claims, ec_key, oauth, sign

ROUTES = [
    {"match": "POST /search", "scope": "SEARCH"},
    {"match": "* /items/{id}", "any_of": ["SEARCH", "CHAT"], "anonymous": True},
    {"match": "GET|POST /open", "public": True},
    {"match": "* /internal/**", "deny": True},
]
CLOSED = [{"match": "* /**", "scope": "SEARCH"}]
PATHS = ("/search", "/search?q=1", "/items/1", "/items/%41", "/open", "/internal/x")

GRPC_CODES = {400: 3, 401: 16, 403: 7, 500: 13, 503: 14}


@pytest.fixture(scope="module")
def closed(tmp_path_factory: pytest.TempPathFactory) -> World:
    """A world in which nothing is public and no token exists: not one request may pass."""
    return World(tmp_path_factory.mktemp("closed"), CLOSED)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """A world with routes of every kind, a second route file for one host, and an answer for CORS preflights."""
    admin = {
        "hosts": ["admin.acme.com"],
        "preflight": True,
        "routes": [{"match": "POST /search", "scope": "CHAT", "name": "admin"}],
    }
    routes = {"routes": ["routes.yaml", "admin.yaml"]}
    return World(tmp_path_factory.mktemp("world"), ROUTES, routes, more_files={"admin.yaml": admin})


@pytest.fixture(scope="module")
def tokens(world: World) -> tuple[str, ...]:
    """One good token of each kind."""
    issued = [fuzz.put_token(world, kind) for kind in ("GLOBAL", "USER", "ANONYMOUS")]
    return (*issued, sign(claims(), algorithm="ES256"))


def answer_to(world: World, data: bytes) -> pb.CheckResponse:
    """Check bytes; whatever they are, the answer is finished and can be read in one way only."""
    answer = world.authorizer.check(data)
    assert isinstance(answer, bytes)
    assert answer, "an empty CheckResponse is an ALLOW for Envoy"
    assert fuzz.MARKER.encode() not in answer, "something of the request is echoed"
    response = pb.CheckResponse.FromString(answer)
    decision = world.recorder.decisions[-1]
    assert response.HasField("status")
    if response.status.code == 0:
        assert isinstance(decision, Allow)
        assert response.HasField("ok_response")
    else:
        assert response.HasField("denied_response")
        status = response.denied_response.status.code
        assert (status, response.status.code) == (decision.reason.status, GRPC_CODES[status])
        assert response.denied_response.body
    assert response.dynamic_metadata.fields["reason"].string_value == decision.reason.value
    return response


def denied(world: World, data: bytes) -> str:
    """Check bytes that must be refused, and not by the fence; return the reason."""
    response = answer_to(world, data)
    reason = world.recorder.decisions[-1].reason
    assert response.status.code != 0
    assert reason.value != "internal"
    return reason.value


# --- bytes


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200))
@example(b"")
@example(b"\x0a\x00")
@example(b"\xff")
@example(b"\x00" * 64)
@example(b"\x0a\x04\x22\x02\x12\x00")
@example(b"\x0b" * 5000)
def test_any_bytes_are_denied(closed: World, data: bytes) -> None:
    denied(closed, data)


GENUINE = [
    check_request("POST", "/search?q=1", {"authorization": "Bearer glean_x", "x-scio-actas": "ana@acme.com"}.items(), form=form)
    for form in ("raw", "map")
]


@settings(max_examples=300, deadline=None)
@given(st.data(), st.sampled_from(GENUINE))
def test_a_damaged_request_is_denied(closed: World, data: st.DataObject, genuine: bytes) -> None:
    denied(closed, data.draw(fuzz.damaged(genuine)))


@settings(max_examples=200, deadline=None)
@given(data=st.data(), form=st.sampled_from(("raw", "map")))
def test_a_damaged_request_passes_only_with_the_whole_token(
    world: World, tokens: tuple[str, ...], data: st.DataObject, form: str
) -> None:
    token = tokens[1]
    damaged = data.draw(fuzz.damaged(check_request("POST", "/search", bearer(token).items(), form=form)))
    response = answer_to(world, damaged)

    assert token.encode() not in response.SerializeToString()
    if response.status.code == 0:
        assert re.search(rb"/open|" + token.encode(), damaged)


# --- structured requests


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_a_random_request_passes_only_with_a_token_or_on_a_public_route(
    world: World, tokens: tuple[str, ...], data: st.DataObject
) -> None:
    sent = data.draw(fuzz.check_requests(paths=PATHS, tokens=tokens))
    response = answer_to(world, sent.data)
    decision = world.recorder.decisions[-1]

    assert decision.reason.value != "internal"
    for token in tokens:
        assert token.encode() not in response.SerializeToString()
    if response.status.code == 0:
        real = {f"Bearer {token}".encode() for token in tokens}
        if decision.route != "GET|POST /open":
            assert real & set(sent.authorizations)
        assert (decision.reason.value == "public") == (decision.identity is None)


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_a_random_request_never_passes_where_nothing_is_open(closed: World, data: st.DataObject) -> None:
    denied(closed, data.draw(fuzz.check_requests(paths=PATHS)).data)


def request_with(**fields: Any) -> bytes:
    """Write a CheckRequest with these fields of `http` and no others."""
    message = pb.CheckRequest()
    http = message.attributes.request.http
    http.SetInParent()
    for name, value in fields.items():
        setattr(http, name, value)
    return message.SerializeToString()


def request_without_http() -> bytes:
    message = pb.CheckRequest()
    message.attributes.source.principal = "spiffe://acme.com/client"
    message.attributes.request.SetInParent()
    return message.SerializeToString()


HUGE = "a" * 65536

ODD: dict[str, tuple[bytes, str]] = {
    "nothing": (b"", "request_malformed"),
    "no http": (request_without_http(), "request_malformed"),
    "empty http": (request_with(), "request_malformed"),
    "no method": (request_with(path="/search"), "request_malformed"),
    "no path": (request_with(method="GET"), "path_malformed"),
    "CONNECT without a path": (request_with(method="CONNECT", host="a:443"), "path_malformed"),
    "CONNECT with a good path": (request_with(method="CONNECT", path="/search"), "path_malformed"),
    "a NUL in the path": (request_with(method="GET", path="/search\x00"), "path_malformed"),
    "a line break in the path": (request_with(method="GET", path="/search\r\nx: y"), "path_malformed"),
    "a path of 64 kB": (request_with(method="GET", path="/" + HUGE), "path_malformed"),
    "a query of 64 kB": (request_with(method="POST", path="/search?" + HUGE), "credential_missing"),
    "a method of 64 kB": (request_with(method=HUGE, path="/search"), "method_not_allowed"),
    "a method of control characters": (request_with(method="\x00\r\n", path="/search"), "method_not_allowed"),
    "64 kB of authorization": (check_request("POST", "/search", [("authorization", "Bearer " + HUGE)]), "authorization_malformed"),
    "64 kB of a scheme": (check_request("POST", "/search", [("authorization", HUGE)]), "scheme_unsupported"),
    "64 kB of spaces": (check_request("POST", "/search", [("authorization", "Bearer" + " " * 65536)]), "authorization_malformed"),
    "64 kB of padding": (
        check_request("POST", "/search", [("authorization", "Bearer a" + "=" * 65536)]),
        "authorization_malformed",
    ),
    "64 kB of bytes": (check_request("POST", "/search", [("authorization", b"\xff" * 65536)]), "authorization_malformed"),
    "authorization of NULs": (check_request("POST", "/search", [("authorization", b"\x00" * 20)]), "authorization_malformed"),
    "two authorizations": (
        check_request("POST", "/search", [("authorization", "Bearer a"), ("authorization", "Bearer a")]),
        "authorization_malformed",
    ),
    "two authorizations in two spellings": (
        check_request("POST", "/search", [("Authorization", "Bearer a"), ("authorization", "Bearer a")]),
        "authorization_malformed",
    ),
    "two spellings in the map": (
        check_request("POST", "/search", [("Authorization", "Bearer a"), ("authorization", "Bearer a")], form="map"),
        "authorization_malformed",
    ),
    "1,000 authorizations": (check_request("POST", "/search", [("authorization", "Bearer a")] * 1000), "authorization_malformed"),
    "10,000 headers": (check_request("POST", "/search", [(f"x-{n}", "y") for n in range(10_000)]), "credential_missing"),
    "10,000 headers of one name": (check_request("POST", "/search", [("x-a", "y")] * 10_000), "credential_missing"),
    "an empty header name": (check_request("POST", "/search", [("", "Bearer a")]), "credential_missing"),
    "a token kind of bytes": (
        check_request("POST", "/search", [("authorization", "Bearer a"), ("x-glean-auth-type", b"OAUT\xc8")]),
        "auth_type_unknown",
    ),
    "an old two-byte slash": (request_with(method="GET", path="/open%C0%AFsearch"), "path_ambiguous"),
}


@pytest.mark.parametrize("name", ODD)
def test_odd_requests(closed: World, name: str) -> None:
    data, expected = ODD[name]

    reason = denied(closed, data)
    # In the closed world every method but CONNECT has the one pattern /**, of a scope: only other methods are refused before it.
    assert reason == expected


@pytest.mark.parametrize("bad", [b"\xff", b"\xc3", b"\xed\xa0\x80", b"\xc0\xaf", b"\xf5\x80\x80\x80"], ids=bytes.hex)
@pytest.mark.parametrize("field", ["method", "path", "host", "key", "value", "map key", "map value"])
def test_a_string_that_is_not_utf_8_makes_the_request_unreadable(closed: World, field: str, bad: bytes) -> None:
    """protobuf strings are UTF-8: what is not cannot come from Envoy, and is not half read."""
    hole = "~" * len(bad)
    message = pb.CheckRequest()
    http = message.attributes.request.http
    http.method, http.path, http.host = "GET", "/open", "api.acme.com"
    match field:
        case "method" | "path" | "host":
            setattr(http, field, hole)
        case "key" | "value":
            http.header_map.headers.add(key="x-a", value="y")
            setattr(http.header_map.headers[0], field, hole)
        case _:
            http.headers[hole if field == "map key" else "x-a"] = hole
    data = message.SerializeToString()
    assert hole.encode() in data

    assert denied(closed, data.replace(hole.encode(), bad)) == "request_malformed"


@pytest.mark.parametrize("value", [b"\xff\xfe", b"\xc3\x28", b"\x00", b"caf\xe9", b"\xf0\x9f\x98\x80"], ids=bytes.hex)
def test_raw_values_may_hold_any_byte(world: World, tokens: tuple[str, ...], value: bytes) -> None:
    response = answer_to(world, check_request("POST", "/search", [("authorization", f"Bearer {tokens[1]}"), ("cookie", value)]))

    assert response.status.code == 0


def test_an_answer_to_grpc_tells_no_more(closed: World) -> None:
    headers = [("content-type", "application/grpc"), ("authorization", f"Bearer {fuzz.MARKER}"), ("x-scio-actas", fuzz.MARKER)]
    response = answer_to(closed, check_request("POST", f"/{fuzz.MARKER}?{fuzz.MARKER}", headers))

    assert response.denied_response.status.code == 401
    assert {option.header.key: option.header.value for option in response.denied_response.headers}["grpc-status"] == "16"


# --- signed nonsense


def payload(**members: str) -> bytes:
    """Write claims with some members as raw JSON text, which no encoder would write."""
    texts = {name: json.dumps(value) for name, value in claims().items()} | members
    return ("{" + ",".join(f"{json.dumps(name)}:{text}" for name, text in texts.items()) + "}").encode()


WHOLE = payload()
NONSENSE = {
    **{
        f"exp: {text[:20]}": payload(exp=text)
        for text in ("NaN", "Infinity", "-Infinity", "1e999", "-1", "0", "null", "true", "[]")
    },
    **{
        f"exp: {text[:20]}": payload(exp=text)
        for text in ('"1900000000"', "{}", "1" * 400, "1" * 5000, "9007199254740993", "[9e9]")
    },
    **{f"iat: {text[:20]}": payload(iat=text) for text in ("NaN", "Infinity", "1e999", "null", '"1"', "1" * 5000, "1900000000")},
    **{f"nbf: {text[:20]}": payload(nbf=text) for text in ("NaN", "Infinity", "1e999", "null", "false", "[]", "1900000000")},
    **{f"aud: {text[:20]}": payload(aud=text) for text in ("null", "{}", "[null]", "[[]]", '["api://default",1]', "1", "[]")},
    **{
        f"sub: {text[:20]}": payload(sub=text)
        for text in ("null", '""', "1", "[]", '"\\ud800@acme.com"', '"ana@acme.com\\u0000"', '"' + "a" * 9000 + '"')
    },
    **{
        f"{name}: {text[:20]}": payload(**{name: text})
        for name in ("iss", "cid", "scp")
        for text in ("null", "[]", "{}", "1", "NaN")
    },
    **{f"other: {text}": payload(other=text) for text in ("NaN", "-Infinity", "Infinity", "[NaN]", "{}{}", "01", "'a'", '"\t"')},
    "exp twice": WHOLE[:-1] + b',"exp":1900000000}',
    "nested twice": WHOLE[:-1] + b',"x":{"a":1,"a":2}}',
    "no object": b"[]",
    "a string": b'"ana@acme.com"',
    "a number": b"1900000000",
    "null": b"null",
    "nothing": b"",
    "garbage": b"\xff\xfe{}",
    "UTF-16": WHOLE.decode().encode("utf-16"),
    "a byte order mark": b"\xef\xbb\xbf" + WHOLE,
    "cut off": WHOLE[:-1],
    "more behind it": WHOLE + b"{}",
    "a comment": WHOLE[:-1] + b"/**/}",
    "deep lists": WHOLE[:-1] + b',"x":' + b"[" * 4000 + b"]" * 4000 + b"}",
    "deep and open": b"[" * 10_000,
}


@pytest.mark.parametrize("algorithm", ["RS256", "ES256"])
@pytest.mark.parametrize("name", NONSENSE)
def test_signed_nonsense_is_denied(world: World, name: str, algorithm: str) -> None:
    data = check_request("POST", "/search", oauth(sign(NONSENSE[name], algorithm=algorithm)).items())
    response = answer_to(world, data)
    reason = world.recorder.decisions[-1].reason

    assert response.status.code != 0
    assert reason.status == 401
    assert reason.value.startswith("token_")


def test_the_whole_payload_is_genuine(world: World) -> None:
    assert world.check("POST /search", oauth(sign(WHOLE))).allowed


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=8) | st.just(NOW + 10.5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
claim_names = st.sampled_from(
    ["iss", "aud", "sub", "iat", "exp", "nbf", "cid", "uid", "scp", "jti", "cnf", "nonce", "ver", "other"]
)


@settings(max_examples=200, deadline=None)
@given(
    changes=st.dictionaries(claim_names, json_values, min_size=1, max_size=3),
    header=st.dictionaries(st.text(max_size=5), json_values, max_size=2),
)
def test_signed_claims_of_any_type_are_answered(world: World, changes: dict[str, Any], header: dict[str, Any]) -> None:
    body = claims() | changes
    token = sign(json.dumps(body).encode(), algorithm="ES256", key=ec_key(), header=header)
    response = answer_to(world, check_request("POST", "/search", oauth(token).items()))

    assert world.recorder.decisions[-1].reason.value != "internal"
    if response.status.code == 0:
        assert isinstance(body["exp"], int | float)
        assert NOW < body["exp"] < math.inf
        assert (body["iss"], body["cid"], body["aud"]) == (claims()["iss"], CLIENT, claims()["aud"])
        assert body["sub"] == "ana@acme.com"


# --- memory

KILOBYTES_32 = "z" * 32 * 1024
COUNT = 1200


class Forgetting:
    """A recorder that keeps nothing."""

    def record(self, request: Request | None, decision: Decision, seconds: float) -> None:
        return


def grown_by(world: World, requests: list[bytes]) -> int:
    """Return how many bytes more than after the first check are in memory at the worst moment."""
    runtime = fuzz.fresh_runtime(world)
    authorizer = Authorizer(runtime, Forgetting(), clock=world.clock, decision_ids=lambda: DECISION_ID)
    tracemalloc.start()
    try:
        authorizer.check(requests[0])
        before = tracemalloc.get_traced_memory()[0]
        for data in requests:
            authorizer.check(data)
        return tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()


# Envoy lets a client send 60 KiB of headers: 4,096 names of that size in a memo would be 245 MB, on a public route, by anybody.
def test_long_header_names_do_not_stay_in_memory(world: World) -> None:
    requests = [check_request("GET", "/open", [(f"x-{number}-{KILOBYTES_32}", "v")]) for number in range(COUNT)]

    assert grown_by(world, requests) < 4 * 2**20


# The same with the values of an act-as header, by the holder of any GLOBAL token.
def test_long_act_as_values_do_not_stay_in_memory(world: World, tokens: tuple[str, ...]) -> None:
    lines = [bearer(tokens[0], x_scio_actas=f"{number}{KILOBYTES_32}@acme.com") for number in range(COUNT)]

    assert grown_by(world, [check_request("POST", "/search", line.items()) for line in lines]) < 4 * 2**20


# Guards against templates of answers that never come again: 9,900 such requests on a public route, 2.5 kB each, left 57 MiB.
@pytest.mark.parametrize("length", [400, 2500])
def test_names_like_ours_do_not_stay_in_memory(world: World, length: int) -> None:
    """Names below the identity prefix are written into the answer, because they are removed."""
    requests = [check_request("GET", "/open", [(f"x-extauthz-{number}-{'z' * length}", "v")]) for number in range(9900)]

    assert grown_by(world, requests) < 16 * 2**20


def test_paths_tokens_and_queries_do_not_stay_in_memory(world: World) -> None:
    long = "z" * 6000
    requests = [
        check_request("GET", f"/items/{number}{long}?q={long}", bearer(f"glean_{number}{long}", cookie=long).items())
        for number in range(COUNT)
    ]

    assert grown_by(world, requests) < 4 * 2**20


async def test_tokens_that_wait_for_keys_are_bounded(tmp_path: Path) -> None:
    """While an issuer hangs, anybody can send tokens that name it: 64 of them may wait, the others are told at once."""

    class Hanging(StillKeys):
        async def load(self) -> Any:
            await asyncio.Event().wait()

    impatient = {"server": {"listen": "127.0.0.1:9001", "check_timeout": "50ms"}}
    world = World(tmp_path / "hanging", [{"match": "POST /search", "scope": "SEARCH"}], impatient, keys=Hanging(None))
    waiting = []
    for number in range(200):
        answer = world.authorizer.check(check_request("POST", "/search", oauth(sign(claims(jti=f"AT.{number}"))).items()))
        if not isinstance(answer, bytes):
            waiting.append(asyncio.ensure_future(answer))
    assert len(waiting) == 64
    assert {decision.reason.value for decision in world.recorder.decisions} == {"overloaded"}
    await asyncio.gather(*waiting)
    for task in asyncio.all_tasks() - {asyncio.current_task()}:
        task.cancel()


def test_a_long_query_is_read_in_one_pass(world: World) -> None:
    """A time, but one that only a pass for each part would miss: 28 kB of parts against 28 kB of one part."""

    def cost(query: str) -> float:
        data = check_request("POST", f"/search?{query}")
        return min(timeit.repeat(lambda: world.authorizer.check(data), number=3, repeat=5))

    assert cost("%&" * 14_000) < 25 * cost("q" * 28_000)
