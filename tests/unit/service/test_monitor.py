"""Monitor mode from bytes to bytes: who gets through, with which headers, and what is said about it."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from extauthz._pb import ext_authz_pb2 as pb
from extauthz.adapters.decision_log.log import DecisionLog
from extauthz.adapters.decision_log.sinks import File
from extauthz.adapters.envoy.codec import MAX_TEMPLATES, EnvoyCodec
from extauthz.adapters.metrics import DecisionCounters
from extauthz.config.loader import Configuration
from extauthz.config.monitor import MAX_NAMED, monitored, weakened
from extauthz.core.decide import monitored as step
from extauthz.core.identity import FIELDS, OVERRIDE_HEADERS, IdentityHeaders
from extauthz.core.model import ALLOWING, FORWARDED, Allow, Decision, Deny, HeaderEdits, Reason, Request, WouldDeny
from extauthz.core.policy import Policy
from extauthz.errors import Unavailable
from extauthz.serve.reload import Reloader
from extauthz.service import Authorizer
from tests.support import fuzz
from tests.support.fence import (
    ANA,
    BROKEN,
    ERRORS,
    NONSENSE,
    REQUEST,
    SECRET,
    BrokenCodec,
    Fence,
    finished,
    named,
    raising,
    raising_later,
    returning_later,
)
from tests.support.world import DECISION_ID, NOW, Answer, MakeWorld, World, bearer, check_request, claims, oauth, sign

ROUTES = [
    {"match": "POST /search", "scope": "SEARCH", "anonymous": True},
    {"match": "GET /open", "public": True},
    {"match": "GET /items/{id}", "scope": "CHAT", "name": "items"},
    {"match": "* /denied/**", "deny": True},
]
CREDENTIALS = ("authorization", "x-glean-auth-type", "x-scio-actas", "x-glean-actas")
OURS = {f"x-extauthz-{field}" for field in FIELDS}
DECISION = "x-extauthz-decision"
NEVER = {"request_malformed", "path_malformed", "path_ambiguous", "host_malformed", "method_in_query", "route_denied", "internal"}


def routes_in(**modes: str) -> list[dict[str, Any]]:
    """Return the routes with modes of their own, by the first word of the pattern."""
    words = {re.findall("/([a-z]+)", str(route["match"]))[0]: route for route in ROUTES}
    return [route | ({"mode": modes[word]} if word in modes else {}) for word, route in words.items()]


# --- what is forwarded


def test_every_reason_is_forwarded_or_never() -> None:
    assert {reason.value for reason in set(Reason) - FORWARDED - ALLOWING} == NEVER


@pytest.mark.parametrize("reason", sorted(set(Reason) - FORWARDED))
def test_what_is_no_refusal_that_may_be_forwarded_stays_what_it_is(reason: Reason) -> None:
    """Also a denial with the reason of an allow, which nothing but a fault of ours makes."""
    policy = Policy(monitored=frozenset({None, "r"}))
    request = Request("GET", "/", "api.acme.com", {}, raw=True, decision_id=DECISION_ID)
    for decision in (Deny(reason), Deny(reason, "r")):
        assert step(policy, request, decision) is decision


def test_where_monitor_mode_is_off_a_decision_stays_what_it_is() -> None:
    request = Request("GET", "/", "api.acme.com", {}, raw=True, decision_id=DECISION_ID)
    decisions = (Deny(Reason.ROUTE_UNKNOWN), Deny(Reason.SCOPE_MISSING, "r"), Allow(Reason.PUBLIC, "r", HeaderEdits((), ())))
    for decision in decisions:
        assert step(Policy(), request, decision) is decision
        assert step(Policy(monitored=frozenset({"other"})), request, decision) is decision
    once = step(Policy(monitored=frozenset({None})), request, decisions[0])
    assert isinstance(once, WouldDeny)
    assert step(Policy(monitored=frozenset({None})), request, once) is once


@pytest.fixture(scope="module")
def worlds(tmp_path_factory: pytest.TempPathFactory) -> dict[str, World]:
    """The same routes and tokens in three worlds: enforced, monitored, and some of each."""
    return {
        "enforce": World(tmp_path_factory.mktemp("enforce"), ROUTES),
        "monitor": World(tmp_path_factory.mktemp("monitor"), ROUTES, {"mode": "monitor"}),
        "mixed": World(tmp_path_factory.mktemp("mixed"), routes_in(search="monitor", open="enforce", items="enforce")),
    }


@pytest.fixture(scope="module")
def tokens(worlds: dict[str, World]) -> tuple[str, ...]:
    """Tokens that every world knows."""
    kinds = ("GLOBAL", "USER", "ANONYMOUS")
    made = [tuple(world.token(kind) for kind in kinds) for world in worlds.values()]
    assert len(set(made)) == 1
    return (*made[0], sign(claims(), algorithm="ES256"))


PATHS = ("/search", "/open", "/items/7", "/none", "/denied/x", "/search?access_token=1", "/open//", "/items/%2F")


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_nothing_of_an_identity_goes_on_but_what_enforcing_would_set(
    worlds: dict[str, World], tokens: tuple[str, ...], data: st.DataObject
) -> None:
    sent = data.draw(fuzz.check_requests(paths=PATHS, tokens=tokens))
    enforced, watched, mixed = (worlds[name].check_bytes(sent.data) for name in ("enforce", "monitor", "mixed"))

    event(enforced.reason)
    assert watched.reason == enforced.reason == mixed.reason
    assert not enforced.forwarded
    compare(enforced, watched)
    # The mode of one route changes no byte of the answers on another one.
    assert mixed.message == (watched if enforced.decision.route == "POST /search" else enforced).message


def compare(enforced: Answer, watched: Answer) -> None:
    """Compare the answers to one request in both modes."""
    received = set(watched.removed) | set(watched.headers)
    assert not set(watched.headers) & set(watched.removed), "Envoy removes what is in both lists"
    if enforced.reason in NEVER:
        assert watched.message == enforced.message
        assert not watched.allowed
        return
    assert watched.allowed
    assert not received & set(CREDENTIALS), "credentials go on as they came"
    if enforced.allowed:
        assert watched.headers == enforced.headers
        assert set(watched.removed) == set(enforced.removed) - set(CREDENTIALS)
        assert DECISION in watched.removed
        assert not watched.forwarded
        return
    assert watched.forwarded
    assert watched.headers == {DECISION: "would-deny"}
    assert set(watched.removed) >= OURS - {DECISION}


@settings(max_examples=150, deadline=None)
@given(data=st.data(), line=st.sampled_from(("POST /search", "GET /items/1", "GET /none", "GET /open")))
def test_no_name_that_an_upstream_could_take_for_ours_is_forwarded(
    worlds: dict[str, World], tokens: tuple[str, ...], data: st.DataObject, line: str
) -> None:
    names = data.draw(st.lists(fuzz.header_names(*OURS, *CREDENTIALS, *OVERRIDE_HEADERS), max_size=8))
    credential = data.draw(st.sampled_from([{}, bearer(tokens[0]), bearer(tokens[1]), oauth(tokens[3])]))
    sent = {**dict.fromkeys(names, "forged"), **credential}
    answer = worlds["monitor"].check(line, sent, form=data.draw(st.sampled_from(("raw", "map"))))

    event(f"{answer.metadata['decision']} {answer.reason}")
    assert answer.allowed
    assert "forged" not in answer.headers.values()
    for name in {name.lower() for name in sent}:
        folded = re.sub("[^a-z0-9]", "-", name)
        dangerous = folded.startswith("x-extauthz-") or folded in (*CREDENTIALS, *OVERRIDE_HEADERS)
        assert (name in answer.headers or name in answer.removed) == (dangerous and name not in CREDENTIALS), name


# --- what waits, and what breaks


@pytest.fixture
def fence(make_world: MakeWorld) -> Fence:
    return Fence(make_world(ROUTES, mode="monitor"))


async def outcome_of(answer: bytes | Awaitable[bytes]) -> tuple[str, str]:
    """Return what became of a check, and why; a forwarded one names nobody."""
    response = await finished(answer)
    fields = response.dynamic_metadata.fields
    outcome = fields["decision"].string_value
    assert (response.status.code == 0) == (outcome != "deny")
    if outcome == "would_deny":
        assert [option.header.key for option in response.ok_response.headers] == [DECISION]
        assert fields["route"].string_value == "POST /search"
    return outcome, fields["reason"].string_value


@pytest.mark.parametrize("reason", BROKEN, ids=str)
async def test_what_cannot_be_reached_is_forwarded(fence: Fence, reason: Reason) -> None:
    for answer in (raising(Unavailable(reason)), raising_later(Unavailable(reason))):
        assert await outcome_of(fence.around(answer).check(REQUEST)) == ("would_deny", reason.value)


async def test_a_check_that_waits_too_long_is_forwarded(fence: Fence) -> None:
    work: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    answer = fence.around(lambda: work, check_timeout=0.01).check(REQUEST)
    assert await outcome_of(answer) == ("would_deny", "check_timeout")
    work.cancel()


async def test_more_checks_than_may_wait_are_forwarded_at_once(fence: Fence) -> None:
    work: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    authorizer = fence.around(lambda: work, max_in_flight=1)
    waiting = asyncio.ensure_future(authorizer.check(REQUEST))  # type: ignore[arg-type]
    await asyncio.sleep(0)
    second = authorizer.check(REQUEST)
    assert isinstance(second, bytes)
    assert await outcome_of(second) == ("would_deny", "overloaded")
    work.set_result(ANA)
    assert await outcome_of(waiting) == ("allow", "allowed")


async def test_the_end_of_the_process_is_forwarded(fence: Fence) -> None:
    answer = fence.around(raising_later(asyncio.CancelledError())).check(REQUEST)
    assert await outcome_of(answer) == ("would_deny", "draining")


@pytest.mark.parametrize("error", ERRORS, ids=named)
async def test_a_fault_of_ours_is_a_denial(fence: Fence, error: BaseException) -> None:
    for answer in (raising(error), raising_later(error)):
        assert await outcome_of(fence.around(answer).check(REQUEST)) == ("deny", "internal")


@pytest.mark.parametrize("value", NONSENSE, ids=[str(number) for number in range(len(NONSENSE))])
async def test_nonsense_from_a_verifier_is_a_denial(fence: Fence, value: Any) -> None:
    for answer in (lambda: value, returning_later(value)):
        assert await outcome_of(fence.around(answer).check(REQUEST)) == ("deny", "internal")


@pytest.mark.parametrize("part", ["read", "write"])
async def test_a_codec_that_raises_is_a_denial(fence: Fence, part: str) -> None:
    for answer in (lambda: ANA, lambda: Reason.TOKEN_REVOKED, returning_later(Reason.TOKEN_REVOKED)):
        authorizer = fence.around(answer, codec=BrokenCodec(part, ValueError(SECRET)))
        assert await outcome_of(authorizer.check(REQUEST)) == ("deny", "internal")


class CancellingCodec(EnvoyCodec):
    """A codec out of which comes a cancellation that is nobody's, for all but denials."""

    def write(self, request: Request, decision: Decision) -> bytes:
        if isinstance(decision, Deny):
            return super().write(request, decision)
        raise asyncio.CancelledError


@pytest.mark.parametrize("mode", ["enforce", "monitor"])
@pytest.mark.parametrize("answer", [lambda: ANA, returning_later(ANA)])
async def test_a_cancellation_that_is_nobodys_is_a_denial(make_world: MakeWorld, mode: str, answer: Callable[[], Any]) -> None:
    authorizer = Fence(make_world(ROUTES, mode=mode)).around(answer, codec=CancellingCodec())
    assert (await outcome_of(authorizer.check(REQUEST)))[0] == "deny"


# --- answers are remembered apart


def test_templates_of_the_modes_do_not_mix() -> None:
    """One codec writes decisions that differ in nothing but their mode, again and again."""
    codec, request = EnvoyCodec(), Request("GET", "/", "api.acme.com", {}, raw=True, decision_id=DECISION_ID)
    rules, identity = IdentityHeaders(), ANA
    changes = HeaderEdits((("x-extauthz-decision-id", "0123456789abcdef" * 2),), ("authorization",))
    forwarded = rules.monitored_edits(changes, refused=True)
    decisions = [
        Allow(Reason.ALLOWED, "r", changes, identity, "ana@acme.com"),
        Deny(Reason.SCOPE_MISSING, "r", identity, "ana@acme.com"),
        WouldDeny(Reason.SCOPE_MISSING, "r", forwarded, identity, "ana@acme.com"),
        WouldDeny(Reason.SCOPE_MISSING, "other", forwarded, identity, "ana@acme.com"),
        WouldDeny(Reason.ACT_AS_MISSING, "r", forwarded, identity),
        WouldDeny(Reason.CREDENTIAL_MISSING, "r", forwarded),
        WouldDeny(Reason.CREDENTIAL_MISSING, None, forwarded),
        Deny(Reason.CREDENTIAL_MISSING, "r"),
        Allow(Reason.ALLOWED, "r", rules.monitored_edits(changes, refused=False), identity, "ana@acme.com"),
    ]
    first = [EnvoyCodec().write(request, decision) for decision in decisions]
    assert len(set(first)) == len(decisions)
    for _ in range(3):
        assert [codec.write(request, decision) for decision in decisions] == first


def test_forwarded_answers_are_remembered_and_bounded() -> None:
    codec, request = EnvoyCodec(), Request("GET", "/", "api.acme.com", {}, raw=True, decision_id=DECISION_ID)
    changes = HeaderEdits(((DECISION, "would-deny"),), ())
    for number in range(MAX_TEMPLATES + 10):
        codec.write(request, WouldDeny(Reason.ROUTE_UNKNOWN, None, HeaderEdits(changes.set, (f"x-extauthz-{number}",))))
    assert len(codec._templates) <= MAX_TEMPLATES


# --- what is said about it


def test_metrics_and_the_log_tell_would_deny_beside_the_reason(make_world: MakeWorld, tmp_path: Path) -> None:
    world, lines, metrics = make_world(ROUTES, mode="monitor"), tmp_path / "lines", DecisionCounters(now=lambda: NOW)
    log = DecisionLog(File(lines))
    for recorder in (log, metrics):
        authorizer = Authorizer(world.build().runtime, recorder, clock=world.clock, decision_ids=lambda: DECISION_ID)
        authorizer.check(check_request("POST", "/search", bearer(world.token("USER", "CHAT")).items()))
        authorizer.check(check_request("GET", "/none"))
        authorizer.check(check_request("GET", "/denied/x"))
        authorizer.check(check_request("GET", "/open"))
    log.close()
    told = [json.loads(line) for line in lines.read_text().splitlines()]
    found = [(line["decision"], line["reason"], line["status"], line.get("route")) for line in told]
    assert found == [
        ("would_deny", "scope_missing", 403, "POST /search"),
        ("would_deny", "route_unknown", 403, None),
        ("deny", "route_denied", 403, "* /denied/**"),
        ("allow", "public", 200, "GET /open"),
    ]
    assert (told[0]["auth_type"], told[0]["user"]) == ("USER", "ana@acme.com")
    checks = {labels[:3]: value for (name, labels), value in metrics.samples().items() if name == "extauthz_checks_total"}
    assert checks == {(decision, reason, route or "none"): 1 for decision, reason, _, route in found}


def test_the_outcomes_have_names_of_their_own() -> None:
    assert (Allow.outcome, Deny.outcome, WouldDeny.outcome) == ("allow", "deny", "would_deny")


# --- configuration


@pytest.mark.parametrize(
    ("changes", "modes", "expected"),
    [
        ({}, {}, set()),
        ({"mode": "enforce"}, {"search": "enforce"}, set()),
        ({"mode": "monitor"}, {}, {None, "POST /search", "GET /open", "items"}),
        ({"mode": "monitor"}, {"search": "enforce", "open": "monitor"}, {None, "GET /open", "items"}),
        ({}, {"search": "monitor"}, {"POST /search"}),
        ({"mode": "enforce"}, {"items": "monitor", "open": "monitor"}, {"GET /open", "items"}),
        ({"mode": "monitor"}, {"search": "enforce", "open": "enforce", "items": "enforce"}, {None}),
    ],
)
def test_a_routes_own_mode_beats_the_global_one(
    make_world: MakeWorld, changes: dict[str, Any], modes: dict[str, str], expected: set[str | None]
) -> None:
    configuration = make_world(routes_in(**modes), **changes).configuration
    assert configuration.policy.monitored == expected
    warnings = [str(found) for found in configuration.warnings if "monitor mode" in found.message]
    assert len(warnings) == bool(expected)
    for text in warnings:
        assert f"is on for {len(expected - {None})} of 4 routes" in text
        assert ("match no route" in text) == (None in expected)
        assert "trusts the identity headers" in text
        assert re.search(r"extauthz.yaml:\d+: mode: " if None in expected else r"routes.yaml:\d+: routes\[\d\].mode: ", text)


def test_one_route_is_one_route(make_world: MakeWorld) -> None:
    warnings = make_world([{"match": "GET /open", "public": True, "mode": "monitor"}]).configuration.warnings
    assert any("is on for 1 of 1 route: " in found.message for found in warnings)


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        (set(), set(), []),
        ({"a", None}, {"a", None}, []),
        ({"a", None}, set(), []),
        (set(), {None}, ["requests that match no route"]),
        (set(), {"a"}, ["1 route, whose refusals are forwarded now: 'a'"]),
        ({"a"}, {"b", "a", "c"}, ["2 routes, whose refusals are forwarded now: 'b', 'c'"]),
        ({"b"}, {"a", None}, ["requests that match no route", "1 route, "]),
        ({None}, {None, "a"}, ["1 route, "]),
        (set(), {f"r{number}" for number in range(MAX_NAMED + 2)}, [f"{MAX_NAMED + 2} routes, whose"]),
    ],
)
def test_a_reload_from_enforce_to_monitor_is_a_warning(
    before: set[str | None], after: set[str | None], expected: list[str]
) -> None:
    found = weakened(Policy(monitored=frozenset(before)), Policy(monitored=frozenset(after)))
    assert len(found) == len(expected)
    for text, part in zip(found, expected, strict=True):
        assert "monitor mode is on from now on for" in text
        assert part in text
    assert all(("and 2 more" in text) == (len(after) > MAX_NAMED) for text in found)


def test_modes_are_read_by_name() -> None:
    assert monitored([("a", None), ("b", "enforce"), ("c", "monitor")], "enforce") == {"c"}
    assert monitored([("a", None), ("b", "enforce"), ("c", "monitor")], "monitor") == {"a", "c", None}
    assert monitored([], "enforce") == frozenset()


# --- a reload


async def test_a_reload_tells_what_is_weaker_from_now_on(make_world: MakeWorld, caplog: pytest.LogCaptureFixture) -> None:
    world = make_world(ROUTES)
    taken: list[str | None] = []

    async def take(configuration: Configuration) -> None:
        taken.extend(configuration.policy.monitored & {None})

    environment = {"EXTAUTHZ_UNUSED": ""}
    reloader = Reloader(world.configuration, take, environment=environment, now=lambda: 0.0)
    file = world.configuration.file
    enforced = file.read_text(encoding="utf-8")
    for text, expected in ((enforced + "mode: monitor\n", 2), (enforced + "mode: monitor\n# x\n", 0), (enforced, 0)):
        caplog.clear()
        file.write_text(text, encoding="utf-8")
        await reloader.reload()
        assert reloader.problem is None
        weaker = [record for record in caplog.records if "monitor mode is on from now on" in record.getMessage()]
        assert [record.levelname for record in weaker] == ["WARNING"] * expected
    assert taken == [None, None]


# --- a swap


def test_a_swap_to_enforce_shows_no_answer_of_monitor_mode(tmp_path: Path) -> None:
    """One authorizer, one kind of request, both modes in turn."""
    watching, enforcing = (World(tmp_path / mode, ROUTES, {"mode": mode}) for mode in ("monitor", "enforce"))
    tokens = {world.token("USER") for world in (watching, enforcing)}
    assert len(tokens) == 1
    (token,) = tokens
    requests = [
        check_request("POST", "/search", headers.items()) for headers in (bearer(token), {}, bearer(token, x_scio_actas="a@b.c"))
    ]
    runtimes = {"monitor": watching.build().runtime, "enforce": enforcing.build().runtime}
    authorizer = Authorizer(runtimes["enforce"], watching.recorder, clock=watching.clock, decision_ids=lambda: DECISION_ID)
    found: dict[str, set[tuple[bytes, ...]]] = {"monitor": set(), "enforce": set()}
    for mode in ("enforce", "monitor", "monitor", "enforce", "monitor", "enforce"):
        authorizer.swap(runtimes[mode])
        answers = tuple(authorizer.check(data) for data in requests)
        assert all(isinstance(answer, bytes) for answer in answers)
        found[mode].add(answers)  # type: ignore[arg-type]
    codes = {mode: [pb.CheckResponse.FromString(answer).status.code for answer in next(iter(found[mode]))] for mode in found}
    assert {mode: len(answers) for mode, answers in found.items()} == {"monitor": 1, "enforce": 1}
    assert codes == {"monitor": [0, 0, 0], "enforce": [0, 16, 3]}
