"""The whole path once, before the tables look at every row."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from dataclasses import replace

import pytest

from extauthz._pb import ext_authz_pb2 as pb
from extauthz.adapters.envoy.allowances import serialised
from extauthz.adapters.envoy.codec import EnvoyCodec
from extauthz.core.credentials import Kind
from extauthz.core.model import Allow, Decision, Deny, Reason, Request
from extauthz.core.policy import Policy
from extauthz.core.routes import Match, Route, compile_routes
from extauthz.ports import Evidence
from extauthz.runtime.codec import build_codec
from extauthz.service import Authorizer, Runtime
from tests.support.world import DECISION_ID, ListRecorder, MakeWorld, StillClock, bearer, check_request, claims, oauth, sign

ROUTES = [{"match": "POST /search", "scope": "SEARCH"}]


def test_a_global_token_acts_for_the_named_user(make_world: MakeWorld) -> None:
    world = make_world(ROUTES)
    answer = world.check("POST /search", bearer(world.token("GLOBAL"), x_scio_actas="Ana@acme.com"))
    assert (answer.reason, answer.headers["x-extauthz-user"]) == ("allowed", "ana@acme.com")


def test_an_oauth_token_is_verified(make_world: MakeWorld) -> None:
    world = make_world(ROUTES)
    for algorithm in ("RS256", "ES256"):
        answer = world.check("POST /search", oauth(sign(claims(), algorithm=algorithm)))
        assert (answer.reason, answer.headers["x-extauthz-user"]) == ("allowed", "ana@acme.com")


def test_a_spliced_answer_is_the_one_that_protobuf_would_write(make_world: MakeWorld) -> None:
    """The first answer of a kind makes the template, the second is spliced: both must parse to the freshly built message."""
    world = make_world(ROUTES)
    act_as = {"x-scio-actas": "ana@acme.com", "x.extauthz.user": "ceo@acme.com"}
    requests = [
        bearer(world.token("GLOBAL")) | act_as,
        bearer(world.token("USER")),
        bearer(world.token("USER", "CHAT")),
        oauth(sign(claims())),
        {},
        {"content-type": "application/grpc"},
    ]
    codec = EnvoyCodec()
    for headers in requests:
        data = check_request("POST", "/search", headers.items())
        answers = [world.check_bytes(data) for _ in range(2)]
        request = codec.read(data, DECISION_ID)
        assert request is not None
        decision = answers[1].decision
        fresh = (
            serialised(decision, DECISION_ID, None)
            if isinstance(decision, Allow)
            else codec._serialised(decision, DECISION_ID, grpc="content-type" in headers, filtered=False)
        )
        assert [answer.message for answer in answers] == [pb.CheckResponse.FromString(fresh)] * 2


def test_a_swap_under_warm_traffic_shows_no_answer_of_the_old_policy(make_world: MakeWorld) -> None:
    """Routes and identity change while verdicts stay in memory, and even the codec with its templates."""
    world = make_world(ROUTES)
    headers = bearer(world.token("USER"))

    def serve(routes: list[dict[str, str]], changes: dict[str, dict[str, str]]) -> None:
        world.routes, world.changes = routes, changes
        world.configuration = world._configure()
        world.authorizer.swap(replace(world.authorizer._runtime, policy=world.configuration.policy))

    for prefix in ("x-extauthz-", "x-acme-", "x-extauthz-"):
        serve(ROUTES, {"identity": {"prefix": prefix}})
        for _ in range(3):
            answer = world.check("POST /search", headers)
            assert (answer.reason, answer.headers[f"{prefix}user"]) == ("allowed", "ana@acme.com")
            assert all(name.startswith(prefix) for name in answer.headers)
        serve([{"match": "POST /search", "scope": "CHAT", "name": "search"}], {"identity": {"prefix": prefix}})
        for _ in range(3):
            assert (world.check("POST /search", headers).reason, world.recorder.decisions[-1].route) == ("scope_missing", "search")


class Reasons:
    """A codec that reads one request of its own, and writes the reason of an answer."""

    def read(self, data: bytes, decision_id: str) -> Request | None:
        return Request("GET", data.decode(), "", {"authorization": "Bearer abc"}, True, decision_id)

    def write(self, request: Request, decision: Decision, header: object = None) -> bytes:
        return f"{decision.reason} {request.decision_id[:4]}".encode()

    def fixed(self, reason: Reason, decision_id: str) -> bytes:
        return f"fixed {reason} {decision_id[:4]}".encode()


class Waiting:
    """A verifier whose evidence comes when a test sets it."""

    def __init__(self) -> None:
        self.evidence: asyncio.Future[Evidence] = asyncio.get_running_loop().create_future()

    def verify(self, token: str, now: float) -> Awaitable[Evidence]:
        return asyncio.shield(self.evidence)


class Interrupted(ListRecorder):
    """A recorder that is cancelled, as often as a test says."""

    times = 1

    def record(self, request: Request, decision: Decision, seconds: float) -> None:
        if self.times:
            self.times -= 1
            raise asyncio.CancelledError
        super().record(request, decision, seconds)


def authorizer(recorder: ListRecorder, *, max_in_flight: int = 1000, check_timeout: float = 60.0) -> tuple[Authorizer, Waiting]:
    segments = Match("GET /a", ("GET",), ("a",), False)
    policy = Policy(routes=compile_routes([Route("GET /a", segments, scopes=("SEARCH",))]))
    waiting = Waiting()
    runtime = Runtime(policy, {Kind.ISSUED: waiting}, Reasons(), check_timeout, max_in_flight)
    return Authorizer(runtime, recorder, clock=StillClock(), decision_ids=lambda: DECISION_ID), waiting


def kind_of(decision: Decision) -> str | None:
    """Return of what kind the token was whose check was refused; None too where nothing was."""
    return decision.kind if isinstance(decision, Deny) else None


async def test_what_is_too_much_is_refused_and_counted() -> None:
    recorder = ListRecorder()
    checks, waiting = authorizer(recorder, max_in_flight=2)
    first = [asyncio.ensure_future(checks.check(b"/a")) for _ in range(2)]  # type: ignore[arg-type]
    await asyncio.sleep(0)
    assert (checks.in_flight, checks.shed) == (2, 0)
    assert [checks.check(b"/a") for _ in range(3)] == [b"overloaded 5eed"] * 3
    assert (checks.in_flight, checks.shed) == (2, 3)
    assert {(decision.route, kind_of(decision)) for decision in recorder.decisions} == {("GET /a", Kind.ISSUED)}
    waiting.evidence.set_result(Reason.TOKEN_REVOKED)
    assert await asyncio.gather(*first) == [b"token_revoked 5eed"] * 2
    assert checks.in_flight == 0


async def test_a_check_that_something_of_ours_cancels_is_answered() -> None:
    """Only the stream that goes away takes its check along."""
    recorder = Interrupted()
    checks, waiting = authorizer(recorder)
    check = asyncio.ensure_future(checks.check(b"/a"))  # type: ignore[arg-type]
    await asyncio.sleep(0)
    waiting.evidence.set_result(Reason.TOKEN_REVOKED)
    assert await check == b"draining 5eed"
    assert [(decision.reason, kind_of(decision)) for decision in recorder.decisions] == [(Reason.DRAINING, Kind.ISSUED)]
    assert checks.in_flight == 0


async def test_a_cancelled_check_whose_answer_cannot_be_written_is_answered_by_its_id() -> None:
    class Wordless(Reasons):
        def write(self, request: Request, decision: Decision, header: object = None) -> bytes:
            raise RuntimeError("a fault of ours") if decision.reason is Reason.DRAINING else asyncio.CancelledError

    checks, waiting = authorizer(ListRecorder())
    checks.swap(replace(checks._runtime, codec=Wordless()))
    waiting.evidence.set_result(Reason.TOKEN_REVOKED)
    assert await checks.check(b"/a") == b"fixed draining 5eed"  # type: ignore[misc]


async def test_a_check_whose_stream_goes_away_goes_with_it() -> None:
    recorder = ListRecorder()
    checks, _ = authorizer(recorder)
    check = asyncio.ensure_future(checks.check(b"/a"))  # type: ignore[arg-type]
    await asyncio.sleep(0)
    check.cancel()
    with pytest.raises(asyncio.CancelledError):
        await check
    assert (recorder.decisions, checks.in_flight) == ([], 0)


async def test_evidence_that_is_cancelled_or_late_is_no_evidence() -> None:
    checks, waiting = authorizer(ListRecorder())
    check = asyncio.ensure_future(checks.check(b"/a"))  # type: ignore[arg-type]
    await asyncio.sleep(0)
    waiting.evidence.cancel()
    assert await check == b"draining 5eed"
    late, waiting = authorizer(ListRecorder(), check_timeout=0.0)
    answer = asyncio.get_running_loop().call_later(0.5, waiting.evidence.set_result, Reason.TOKEN_REVOKED)
    assert await late.check(b"/a") == b"check_timeout 5eed"  # type: ignore[misc]
    answer.cancel()


async def test_a_request_that_cannot_be_read_is_recorded_as_nobodys(caplog: pytest.LogCaptureFixture) -> None:
    class Unreadable(Reasons):
        def read(self, data: bytes, decision_id: str) -> Request | None:
            return None if data == b"nonsense" else super().read(data, decision_id)

    class Timed(ListRecorder):
        def record(self, request: Request, decision: Decision, seconds: float) -> None:
            super().record(request, decision, seconds)
            taken.append(seconds)

    class Ticking(StillClock):
        def monotonic(self) -> float:
            self.ticks += 0.25
            return self.ticks

    class Broken:
        def verify(self, token: str, now: float) -> Evidence:
            raise RuntimeError("a fault of ours")

    taken: list[float] = []
    recorder = Timed()
    checks, _ = authorizer(recorder)
    runtime = replace(checks._runtime, codec=Unreadable(), verifiers={Kind.ISSUED: Broken()})
    checks = Authorizer(runtime, recorder, clock=Ticking(), decision_ids=lambda: DECISION_ID)
    assert checks.check(b"nonsense") == b"fixed request_malformed 5eed"
    nobody = recorder.requests[-1]
    assert (nobody.method, nobody.path, nobody.host, nobody.headers, nobody.decision_id) == ("", "", "", {}, DECISION_ID)
    assert caplog.records == []  # that is the client's fault, not ours
    assert checks.check(b"/a") == b"internal 5eed"
    assert (recorder.requests[-1].method, recorder.requests[-1].path) == ("GET", "/a")
    assert [(record.levelname, record.exc_info is not None) for record in caplog.records] == [("ERROR", True)]
    assert taken == [0.25, 0.25]


async def test_a_route_in_monitor_mode_forwards_what_would_be_refused() -> None:
    checks, waiting = authorizer(ListRecorder())
    recorder = ListRecorder()
    runtime = replace(checks._runtime, policy=replace(checks._runtime.policy, monitored=frozenset({"GET /a"})))
    checks = Authorizer(runtime, recorder, clock=StillClock(), decision_ids=lambda: DECISION_ID)
    waiting.evidence.set_result(Reason.TOKEN_REVOKED)
    assert await checks.check(b"/a") == b"token_revoked 5eed"  # type: ignore[misc]
    assert [(decision.outcome, decision.route) for decision in recorder.decisions] == [("would_deny", "GET /a")]


def test_the_settings_of_answers_reach_the_codec(make_world: MakeWorld) -> None:
    changes: dict[str, object] = {
        "realm": "Acme API",
        "answers": {"reasons": {"credential_missing": {"message": "Please sign in."}}},
        "envoy": {"error_response": True, "client_address": {"trusted_hops": 1}},
    }
    world = make_world(ROUTES, **changes)
    refused = world.check("POST /search", {"x-forwarded-for": "203.0.113.10,203.0.113.7"})
    assert refused.reason == "credential_missing"
    assert 'realm="Acme API"' in refused.headers["www-authenticate"]
    assert refused.body["message"] == "Please sign in."
    assert world.recorder.requests[-1].source == "203.0.113.10"
    world.authorizer.swap(replace(world.authorizer._runtime, verifiers={}))
    assert world.check("POST /search", bearer("abc")).message.WhichOneof("http_response") == "error_response"


def test_the_codec_is_traced_where_tracing_is_on(make_world: MakeWorld) -> None:
    class Tracing:
        def codec(self, codec: object) -> object:
            return "traced", codec

    configuration = make_world(ROUTES).configuration
    plain = build_codec(configuration, None, None, clock=StillClock())
    assert isinstance(plain, EnvoyCodec)
    traced: object = build_codec(configuration, None, Tracing(), clock=StillClock())  # type: ignore[arg-type]
    assert isinstance(traced, tuple)
    assert (traced[0], type(traced[1])) == ("traced", EnvoyCodec)
