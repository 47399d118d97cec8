"""Tracing of checks in this process: which are traced, below what, what a span says, and what a collector can do to a check."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from opentelemetry.sdk.trace import Span
from pydantic import ValidationError

from extauthz.adapters.tracing import export
from extauthz.adapters.tracing.checks import JOINED, Tracing
from extauthz.config.loader import load
from extauthz.config.restart import needing_restart
from extauthz.config.tracing import TracingSection
from extauthz.core.model import Decision, Reason, Request
from extauthz.core.tokens import TokenRecord
from extauthz.demo.faults import Fault
from extauthz.errors import Unavailable
from extauthz.ports import TokenStore
from extauthz.serve.worker import Recorders
from extauthz.service import Authorizer
from extauthz.telemetry import traceparent
from tests.support.collector import Collector, Seen, collecting
from tests.support.live import ANA, Live, live
from tests.support.waiting import until
from tests.support.world import DECISION_ID, MakeWorld, World, bearer, check_request, oauth

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
OTHER = f"00-{'c' * 32}-{'d' * 16}-01"
SAMPLED, NOT_SAMPLED = f"00-{TRACE}-{PARENT}-01", f"00-{TRACE}-{PARENT}-00"
ROUTES = [
    {"match": "POST /search", "scope": "SEARCH", "anonymous": True},
    {"match": "POST /chat/{id}", "scope": "CHAT", "name": "chats"},
    {"match": "GET /open", "public": True},
]


@pytest.fixture
def collector() -> Iterator[Collector]:
    with collecting() as running:
        yield running


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever was traced reaches a collector that answers, however busy the machine is."""
    monkeypatch.setattr(export, "FLUSH", 30.0)


class Requests:
    """Keeps the requests that were decided."""

    def __init__(self) -> None:
        self.requests: list[Request] = []

    def record(self, request: Request, decision: Decision, seconds: float) -> None:
        self.requests.append(request)


class Traced:
    """A world whose checks are traced."""

    def __init__(self, world: World, endpoint: str, *, store: Any = None, **options: Any) -> None:
        self.world = world
        self.recorder = Requests()
        chosen = {"service_name": "extauthz", "version": "1", "ratio": 0.0, "checks_per_second": 1000.0, "headers": {}, **options}
        self.tracing = Tracing(endpoint, ca_file=None, clock=world.clock, **{"random": lambda: 0.5, **chosen})
        found, world.store = world.store, self.tracing.store(store, system="sqlite") if store else world.store
        built = world.build().runtime
        world.store = found
        runtime = replace(built, codec=self.tracing.codec(built.codec))
        recorders = Recorders((self.recorder, world.recorder, self.tracing))
        self.authorizer = Authorizer(runtime, recorders, clock=world.clock, decision_ids=lambda: DECISION_ID)
        self.handler = self.tracing.handler(self.authorizer.check)

    def check(self, headers: Any = (), *, parent: str = SAMPLED, state: str = "", line: str = "POST /search") -> bytes:
        """Answer a request, at once."""
        method, _, path = line.partition(" ")
        pairs = headers.items() if isinstance(headers, dict) else headers
        answer = self.handler(check_request(method, path, pairs), parent, state)
        assert isinstance(answer, bytes)
        return answer

    @property
    def told(self) -> str:
        """The traceparent that recorders saw last."""
        return self.recorder.requests[-1].traceparent


@asynccontextmanager
async def traced(world: World, collector: Collector, **options: Any) -> AsyncIterator[Traced]:
    """Trace inside; what was traced is with the collector behind it."""
    made = Traced(world, collector.endpoint, **options)
    try:
        yield made
    finally:
        await made.tracing.close()


def one(spans: list[Seen]) -> Seen:
    (found,) = spans
    return found


# --- which checks, and below what


@pytest.mark.parametrize(
    ("call", "request_header", "ratio", "expected"),
    [
        (SAMPLED, None, 0.0, (TRACE, PARENT)),
        (SAMPLED, OTHER, 0.0, (TRACE, PARENT)),
        (NOT_SAMPLED, OTHER, 1.0, None),
        ("", SAMPLED, 0.0, (TRACE, PARENT)),
        ("", NOT_SAMPLED, 1.0, None),
        ("nonsense", SAMPLED, 0.0, (TRACE, PARENT)),
        ("nonsense", "nonsense", 0.0, None),
        ("", f"{SAMPLED},{SAMPLED}", 0.0, None),
        ("", None, 0.0, None),
        ("", None, 0.4, None),
        ("", None, 0.6, (None, "")),
        ("", "nonsense", 0.6, (None, "")),
    ],
)
async def test_the_parent_is_that_of_the_call_else_that_of_the_request(
    make_world: MakeWorld,
    collector: Collector,
    call: str,
    request_header: str | None,
    ratio: float,
    expected: tuple[str | None, str] | None,
) -> None:
    headers = [] if request_header is None else [("traceparent", request_header)]
    async with traced(make_world(ROUTES), collector, ratio=ratio) as checks:
        checks.check(headers, parent=call)
    if expected is None:
        assert collector.spans == []
        assert not traceparent.is_sampled(checks.told)
        return
    span = one(collector.spans)
    assert span.parent_id == expected[1]
    assert span.trace_id == (expected[0] or span.trace_id)
    assert checks.told == traceparent.write(int(span.trace_id, 16), int(span.span_id, 16))


@pytest.mark.parametrize(
    ("call", "request_header", "told"),
    [
        (NOT_SAMPLED, None, NOT_SAMPLED),
        ("", NOT_SAMPLED, NOT_SAMPLED),
        (f"00-{TRACE}-{PARENT}-02", OTHER, NOT_SAMPLED),
        ("", None, ""),
        ("nonsense", "nonsense", ""),
    ],
)
async def test_recorders_learn_the_trace_that_is_not_sampled(
    make_world: MakeWorld, collector: Collector, call: str, request_header: str | None, told: str
) -> None:
    async with traced(make_world(ROUTES), collector) as checks:
        checks.check([] if request_header is None else [("traceparent", request_header)], parent=call)
        assert checks.told == told


async def test_a_check_in_the_middle_of_others_has_its_own_parent(make_world: MakeWorld, collector: Collector) -> None:
    async with traced(make_world(ROUTES), collector) as checks:
        for parent in (SAMPLED, NOT_SAMPLED, OTHER, ""):
            checks.check(parent=parent)
    assert [(span.trace_id, span.parent_id) for span in collector.spans] == [(TRACE, PARENT), ("c" * 32, "d" * 16)]


async def test_the_state_of_the_trace_is_kept(make_world: MakeWorld, collector: Collector) -> None:
    async with traced(make_world(ROUTES), collector) as checks:
        checks.check(state="acme=1,b=2")
        checks.check([("traceparent", SAMPLED), ("tracestate", "acme=3")], parent="", state="acme=4")
        checks.check(state="acme=" + "x" * 600)
        checks.check(state="no state,=")
    assert [span.span.trace_state for span in collector.spans] == ["acme=1,b=2", "acme=3", "", ""]


async def test_so_many_a_second_and_no_more(make_world: MakeWorld, collector: Collector) -> None:
    world = make_world(ROUTES)
    async with traced(world, collector, checks_per_second=2.0) as checks:
        for _ in range(5):
            checks.check()
        assert checks.tracing.shed == 3
        assert checks.told == NOT_SAMPLED
        world.clock.advance(0.5)
        checks.check()
    assert len(collector.spans) == 3


@pytest.mark.parametrize(("sample", "ratio"), [("parent", 0.0), (0, 0.0), (0.01, 0.01), (1, 1.0)])
def test_what_sample_means(sample: object, ratio: float) -> None:
    assert TracingSection.model_validate({"sample": sample}).ratio == ratio
    assert TracingSection().sample == "parent"


@pytest.mark.parametrize("sample", ["1%", "0.5", "", True, -0.1, 1.1, 10, float("nan"), float("inf"), None, [0.1]])
def test_what_is_no_sample(sample: object) -> None:
    with pytest.raises(ValidationError, match="write parent, or the part of the checks"):
        TracingSection.model_validate({"sample": sample})


# --- what a span says


async def test_what_a_span_says(make_world: MakeWorld, collector: Collector) -> None:
    world = make_world(ROUTES)
    token = world.token("USER", "CHAT")
    async with traced(world, collector) as checks:
        checks.check(bearer(token), line="POST /chat/4711")
        checks.check(bearer(token))
        checks.check(line="GET /open")
        checks.check(line="GET /nowhere")
        checks.check(line="GET //")
        checks.handler(b"\xff", SAMPLED, "")
    shared = {"extauthz.decision_id": DECISION_ID}
    allowed, public = {"extauthz.decision": "allow"} | shared, {"extauthz.route": "GET /open", "extauthz.reason": "public"}
    denied = {"extauthz.decision": "deny"} | shared
    assert [span.attributes for span in collector.spans] == [
        allowed | {"extauthz.reason": "allowed", "extauthz.route": "chats", "extauthz.auth_type": "USER"},
        denied | {"extauthz.reason": "scope_missing", "extauthz.route": "POST /search", "extauthz.auth_type": "USER"},
        allowed | public,
        denied | {"extauthz.reason": "route_unknown"},
        denied | {"extauthz.reason": "path_ambiguous"},
        denied | {"extauthz.reason": "request_malformed"},
    ]
    assert {(span.name, span.span.kind, span.error) for span in collector.spans} == {("check", 2, "")}
    assert {span.service for span in collector.spans} == {"extauthz"}
    assert {attribute.key: attribute.value.string_value for attribute in collector.spans[0].span.attributes}.items() >= {
        "rpc.system.name": "grpc",
        "rpc.method": "envoy.service.auth.v3.Authorization/Check",
    }.items()


async def test_a_check_that_is_only_monitored(make_world: MakeWorld, collector: Collector) -> None:
    async with traced(make_world(ROUTES, mode="monitor"), collector) as checks:
        checks.check()
    assert one(collector.spans).attributes == {
        "extauthz.decision": "would_deny",
        "extauthz.reason": "credential_missing",
        "extauthz.route": "POST /search",
        "extauthz.decision_id": DECISION_ID,
    }


async def test_a_fault_of_ours_is_an_error(make_world: MakeWorld, collector: Collector) -> None:
    world = make_world(ROUTES)
    token = world.token("USER", "SEARCH")
    world.feed.rewound = True
    async with traced(world, collector) as checks:
        checks.check(bearer(token))
    assert one(collector.spans).error == one(collector.spans).attributes["extauthz.reason"] == "store_rewound"


async def test_answers_are_the_same_with_and_without(make_world: MakeWorld, collector: Collector) -> None:
    world = make_world(ROUTES)
    token = world.token("GLOBAL", "SEARCH")
    requests = [
        check_request("POST", "/search", bearer(token, x_scio_actas=ANA).items()),
        check_request("POST", "/search", bearer(token, x_scio_actas="ceo@acme.com").items()),
        check_request("GET", "/open"),
        check_request("GET", "/%zz"),
        b"",
        b"\xff",
    ]
    async with traced(world, collector) as checks:
        for data in requests * 2:
            plain = world.authorizer.check(data)
            for parent in (SAMPLED, NOT_SAMPLED, "", "nonsense", "\xff\x00"):
                assert checks.handler(data, parent, "\xff=") == plain
    assert len(collector.spans) == len(requests) * 2


SECRETS = ("ana@acme.com", "bob", "s3cret-in-a-path", "s3cret-in-a-query", "s3cret-cookie", "203.0.113.7", "api.acme.com")


async def test_nothing_of_a_request_is_exported(make_world: MakeWorld, collector: Collector) -> None:
    world = make_world(ROUTES)
    tokens = [world.token("GLOBAL", "SEARCH"), world.token("USER", "CHAT"), world.token("ANONYMOUS", "SEARCH"), "no-token-at-all"]
    more = {"cookie": "s3cret-cookie", "x-request-id": "s3cret-cookie"}
    async with traced(world, collector) as checks:
        for token in tokens:
            for acting in ({}, {"x_scio_actas": ANA}, {"x_scio_actas": "bob"}, {"x_glean_auth_type": "OAUTH"}):
                for line in ("POST /search?s3cret-in-a-query", "POST /chat/s3cret-in-a-path", "GET /s3cret-in-a-path"):
                    checks.check({**bearer(token, **acting), **more}, line=line)
    sent = b"".join(collector.bodies)
    assert len(collector.spans) >= 40
    for secret in (*SECRETS, *tokens, *(token.split("_")[-1] for token in tokens), *(token.split("_")[1:2] for token in tokens)):
        for text in secret if isinstance(secret, list) else [secret]:
            assert text.encode() not in sent, text


# --- what a check waits for


Check = Callable[..., Awaitable[bytes]]


@asynccontextmanager
async def alive(folder: Path, *names: str) -> AsyncIterator[tuple[Live, Collector, Check]]:
    """Run checks of these providers with tracing; the function begins a sampled check of a token."""
    with collecting() as collector:
        async with live(folder, *names, tracing={"endpoint": collector.endpoint}) as world:
            assert world.tracing is not None
            handler = world.tracing.handler(world.authorizer.check)

            def check(token: str, parent: str = SAMPLED) -> Awaitable[bytes]:
                answer = handler(check_request("POST", "/search", oauth(token).items()), parent, "")
                assert not isinstance(answer, bytes)
                return answer

            yield world, collector, check
            await world.tracing.close()


async def test_a_key_fetch_is_below_the_check_that_caused_it(tmp_path: Path) -> None:
    async with alive(tmp_path, "okta") as (world, collector, check):
        first, second = world.token("okta"), world.token("okta", "bob@acme.com")
        await asyncio.gather(check(first), check(second, OTHER), check(first), check(first, NOT_SAMPLED))
        await world.tracing.close()
        checks, fetches = collector.named("check"), collector.named("key fetch")
        assert [span.attributes["extauthz.reason"] for span in checks] == ["allowed"] * 3
        caused, joined = sorted(fetches, key=lambda span: len(span.links))
        assert caused.attributes == {"extauthz.issuer": world.source().issuer, "extauthz.outcome": "fetched"}
        assert joined.links == [caused.span_id]
        by_id = {span.span_id: span for span in checks}
        assert (by_id[caused.parent_id].trace_id, caused.trace_id) == (TRACE, TRACE)
        assert (by_id[joined.parent_id].trace_id, joined.trace_id) == ("c" * 32, "c" * 32)
        assert sorted(span.events for span in checks) == [[], [], [JOINED]]
        assert {span.span.kind for span in fetches} == {3}


async def test_a_reload_keeps_what_is_known_and_goes_on_tracing(tmp_path: Path) -> None:
    async with alive(tmp_path, "okta", "gsuite") as (world, collector, check):
        token = world.token("okta")
        await check(token)
        before = await world.reload(lambda settings: settings["server"].update(check_timeout="4s"))
        assert before.issuers == world.parts.issuers
        assert world.known(token)
        await check(world.token("gsuite"))
        await world.reload(lambda settings: settings["oauth"]["providers"].pop())
        assert world.known(token)
        assert world.tracing is not None
        await world.tracing.close()
        assert [span.attributes["extauthz.reason"] for span in collector.named("check")] == ["allowed"] * 2
        assert len(collector.named("key fetch")) == len(collector.named("remote verification")) == 1


async def test_another_collector_needs_a_restart(tmp_path: Path) -> None:
    async with alive(tmp_path, "okta") as (world, *_):
        before = world.configuration
        world.settings["tracing"]["sample"] = 0.5
        before.file.write_text(yaml.safe_dump(world.settings))
        (problem,) = needing_restart(before, load(before.file))
        assert "tracing: was changed, which needs a restart" in str(problem)


async def test_a_key_fetch_that_fails(tmp_path: Path) -> None:
    async with alive(tmp_path, "okta") as (world, collector, check):
        token = world.token("okta")
        world.issuer.fail("/", Fault.ERROR_500)
        await check(token)
        await world.tracing.close()
        fetch, asked = one(collector.named("key fetch")), one(collector.named("check"))
        assert fetch.error == fetch.attributes["extauthz.outcome"] == "key_set_unavailable"
        assert asked.error == asked.attributes["extauthz.reason"] == "key_set_unavailable"


async def test_a_fetch_of_nobodys_has_no_span(tmp_path: Path) -> None:
    async with alive(tmp_path, "okta") as (world, collector, check):
        await check(world.token("okta"), NOT_SAMPLED)
        await world.refresh()
        await world.tracing.close()
        assert collector.spans == []


async def test_an_issuer_is_asked_about_a_token(tmp_path: Path) -> None:
    async with alive(tmp_path, "gsuite") as (world, collector, check):
        good, revoked = world.token("gsuite"), world.token("gsuite")
        world.issuer.revoke(revoked)
        for token in (good, revoked):
            await check(token)
        await world.tracing.close()
        checks = {span.span_id: span for span in collector.named("check")}
        asked = collector.named("remote verification")
        assert [span.attributes["extauthz.outcome"] for span in asked] == ["answered", "token_inactive"]
        assert [checks[span.parent_id].attributes["extauthz.reason"] for span in asked] == ["allowed", "token_inactive"]
        assert {span.attributes["extauthz.method"] for span in asked} == {"tokeninfo"}
        assert good.encode() not in b"".join(collector.bodies)


async def test_an_issuer_that_cannot_be_asked(tmp_path: Path) -> None:
    async with alive(tmp_path, "gsuite") as (world, collector, check):
        token = world.token("gsuite")
        world.issuer.fail("/", Fault.ERROR_500)
        await check(token)
        await world.tracing.close()
        asked = one(collector.named("remote verification"))
        assert asked.error == asked.attributes["extauthz.outcome"] == "issuer_unavailable"


async def test_a_check_that_nobody_waits_for_any_more(tmp_path: Path) -> None:
    async with alive(tmp_path, "gsuite") as (world, collector, check):
        begun, waiting = (asyncio.ensure_future(check(world.token("gsuite", user))) for user in (ANA, "bob@acme.com"))
        begun.cancel()
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.gather(begun, waiting, return_exceptions=True)
        assert world.authorizer.in_flight == 0
        # The issuer is asked all the same, for the next check.
        await until(lambda: world.parts.introspections[0].outcomes["answered"] == 2)
        await asyncio.sleep(0)
        await world.tracing.close()
        assert [span.error for span in collector.named("check")] == ["cancelled", "cancelled"]
        assert [span.attributes["extauthz.outcome"] for span in collector.named("remote verification")] == ["answered"] * 2


@dataclass
class Store:
    """Another store, asked as PostgreSQL is when it is `slow`; `down` is when it fails."""

    inner: TokenStore
    slow: bool = False
    down: str = ""

    def find(self, token_id: str) -> TokenRecord | Awaitable[TokenRecord | None] | None:
        if self.down == "at once":
            raise Unavailable(Reason.STORE_UNAVAILABLE)
        return self._found(token_id) if self.slow else self.inner.find(token_id)

    async def _found(self, token_id: str) -> TokenRecord | None:
        await asyncio.sleep(0)
        if self.down:
            raise Unavailable(Reason.STORE_UNAVAILABLE)
        found = self.inner.find(token_id)
        assert not isinstance(found, Awaitable)
        return found


@pytest.mark.parametrize(
    ("slow", "down", "known", "outcome", "error"),
    [
        (False, "", True, "found", ""),
        (False, "", False, "unknown", ""),
        (False, "at once", True, "store_unavailable", "store_unavailable"),
        (True, "", True, "found", ""),
        (True, "", False, "unknown", ""),
        (True, "at once", True, "store_unavailable", "store_unavailable"),
        (True, "later", True, "store_unavailable", "store_unavailable"),
    ],
)
async def test_a_look_up_in_the_store(
    make_world: MakeWorld, collector: Collector, slow: bool, down: str, known: bool, outcome: str, error: str
) -> None:
    world = make_world(ROUTES)
    token = (world if known else make_world(ROUTES)).token("USER", "SEARCH")
    data = check_request("POST", "/search", bearer(token).items())
    async with traced(world, collector, store=Store(world.store, slow, down)) as checks:
        for parent in (SAMPLED, NOT_SAMPLED, SAMPLED):
            answer = checks.handler(data, parent, "")
            answer = answer if isinstance(answer, bytes) else await answer
        await checks.tracing.close()
    look_ups = collector.named("store look-up")
    assert look_ups[0].attributes == {"db.system.name": "sqlite", "extauthz.outcome": outcome}
    assert look_ups[0].error == error
    assert look_ups[0].parent_id == collector.named("check")[0].span_id
    # What was found out is in memory, and the third check asks nobody.
    assert len(look_ups) == (2 if down else 1)
    assert len(collector.named("check")) == 2


# --- what a collector can do to a check


def complaints(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return why spans were not exported, as logged; nothing else may have been."""
    assert {record.getMessage() for record in caplog.records} <= {"spans are not exported", "spans are exported again"}
    return [str(getattr(record, "cause", "")) for record in caplog.records if record.levelno >= logging.WARNING]


@pytest.mark.parametrize(
    ("status", "more", "cause"),
    [
        (500, {}, "status 500"),
        (401, {}, "status 401"),
        (302, {"location": "/elsewhere"}, "status 302"),
        (307, {"location": "/elsewhere"}, "status 307"),
        (503, {"retry-after": "100"}, "status 503"),
    ],
)
async def test_a_collector_that_refuses(
    make_world: MakeWorld, caplog: pytest.LogCaptureFixture, status: int, more: dict[str, str], cause: str
) -> None:
    caplog.set_level(logging.INFO)
    with collecting(status=status, answer_headers=more) as collector:
        async with traced(make_world(ROUTES), collector, headers={"Authorization": "Bearer s3cret"}) as checks:
            for _ in range(3):
                checks.check()
                checks.tracing.export._provider.force_flush()
            assert (checks.tracing.export.exported, checks.tracing.export.failed) == (0, 3)
    assert complaints(caplog) == [cause]
    assert "s3cret" not in caplog.text
    assert set(collector.paths) == {"/v1/traces"}
    assert {headers["authorization"] for headers in collector.headers} == {"Bearer s3cret"}


async def test_a_collector_that_is_away_and_comes_back(
    make_world: MakeWorld, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(export, "TIMEOUT", 0.2)
    with collecting() as gone:
        pass
    async with traced(make_world(ROUTES), gone) as checks:
        for _ in range(3):
            checks.check()
            checks.tracing.export._provider.force_flush()
        assert complaints(caplog) == ["ConnectionError"]
        checks.world.clock.advance(60.0)
        checks.check()
        checks.tracing.export._provider.force_flush()
        assert complaints(caplog) == ["ConnectionError"] * 2
        with collecting() as back:
            checks.tracing.export._sender._exporter._client._endpoint = back.endpoint
            checks.check()
            checks.tracing.export._provider.force_flush()
            assert len(back.spans) == 1
    assert caplog.records[-1].getMessage() == "spans are exported again"
    assert (checks.tracing.export.exported, checks.tracing.export.failed) == (1, 4)


async def test_a_collector_that_never_answers(make_world: MakeWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export, "TIMEOUT", 60.0)
    monkeypatch.setattr(export, "FLUSH", 0.2)
    with collecting() as collector:
        collector.hang.set()
        async with asyncio.timeout(30), traced(make_world(ROUTES), collector, checks_per_second=10_000.0) as checks:
            checks.check()
            await until(lambda: collector.headers)
            plain = checks.check(parent=NOT_SAMPLED)
            for _ in range(export.QUEUE + 100):
                assert checks.check() == plain
            assert checks.tracing.export.dropped == 101
        # That it ends at all is the point: the collector has said nothing.
        assert (checks.tracing.export.exported, checks.tracing.export.failed) == (0, 0)


@pytest.mark.parametrize("part", ["start_span", "set_attributes", "end", "add_event"])
async def test_what_the_library_does_is_no_matter(
    make_world: MakeWorld, collector: Collector, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    world = make_world(ROUTES)
    data = check_request("POST", "/search", bearer(world.token("USER", "SEARCH")).items())

    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("the library failed")

    async with traced(world, collector, store=Store(world.store, slow=True)) as checks:
        with monkeypatch.context() as patch:
            patch.setattr(checks.tracing.export.tracer if part == "start_span" else Span, part, fail)
            # Cold, joined, and warm.
            waiting = [checks.handler(data, SAMPLED, "") for _ in range(3)]
            answers = [answer if isinstance(answer, bytes) else await answer for answer in waiting]
            answers += [checks.handler(data, parent, "") for parent in (SAMPLED, NOT_SAMPLED)]
    assert len(set(answers)) == 1
    assert [decision.reason for decision in world.recorder.decisions] == [Reason.ALLOWED] * 5
    assert [record.getMessage() for record in caplog.records] == ["tracing failed; checks go on without"]


async def test_a_library_that_is_switched_off(make_world: MakeWorld, collector: Collector, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    async with traced(make_world(ROUTES), collector, ratio=1.0) as checks:
        assert checks.check() == checks.check(parent="") == checks.check(parent=NOT_SAMPLED)
    assert collector.spans == []
