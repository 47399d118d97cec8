"""Recorded requests: decided again they come to the same, and none of them holds a token."""

from __future__ import annotations

import itertools
import json
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from extauthz.config.loader import Configuration
from extauthz.core.model import Allow, AuthType, Decision, Deny, HeaderEdits, Identity, Reason, Request, WouldDeny
from extauthz.telemetry.recorded_requests import MAX_SIZE, UNREPEATABLE, recorded_request
from extauthz.tools.callers import caller
from extauthz.tools.calls import Call, decided, decided_call
from tests.support import fuzz, vectors
from tests.support.pasted_tokens import PASTED, is_shown
from tests.support.vector_worlds import CHECKS, NOT_RECORDED, Worlds, prepared, worlds
from tests.support.world import NOW, World

__all__ = ["worlds"]


def line_of(configuration: Configuration, request: Request, decision: Decision, now: float) -> dict[str, Any] | None:
    found = recorded_request(configuration.policy, request, decision, now, scopes=configuration.settings.scopes)
    return None if found is None else json.loads(json.dumps(found))


def again(configuration: Configuration, line: dict[str, Any]) -> Decision:
    """Decide a line as replay does."""
    who = caller(line["caller"], configuration.settings.scopes, configuration.providers)
    call = Call(line["method"], line["path"], line["host"], line["headers"], who)
    return decided_call(configuration.policy, call, line["time"])


REPLACED = {"monitor-spoofed-79-more names than are remembered": f"x_extauthz_{'a' * 3000}"}
"""Names that clients chose the end of, and that is no word: another one stands for them."""


def edits_of(decision: Decision, replaced: str | None = None) -> HeaderEdits | None:
    if not isinstance(decision, (Allow, WouldDeny)):
        return None
    names = tuple("x-extauthz-removed" if name == replaced else name for name in decision.edits.remove)
    return HeaderEdits(decision.edits.set, names)


def same(identity: Identity | None) -> object:
    if identity is None:
        return None
    fields = ("auth_type", "actor", "user", "scopes", "client_id", "token_id")
    return [getattr(identity, name) for name in fields] + [round(identity.expires_at, 3)]


GROUPS = {key: list(cases) for key, cases in itertools.groupby(CHECKS, lambda case: (case.file, case.group))}


@pytest.mark.parametrize("group", GROUPS, ids="-".join)
def test_a_recorded_request_is_decided_again_in_the_same_way(group: tuple[str, str], worlds: Worlds) -> None:
    for case in GROUPS[group]:
        world = worlds(case)
        configuration, now = world.world.configuration, world.world.clock.now
        data = world.fill(prepared(case, world))
        for message in vectors.requests(data).values():
            decision = world.ask(message).decision
            request = world.world.built.runtime.codec.read(message, "0" * 32)
            if decision.reason in UNREPEATABLE or request is None:
                assert decision.reason in UNREPEATABLE, case
                continue
            line = line_of(configuration, request, decision, now())
            if str(case) in NOT_RECORDED:
                assert line is None, case
                continue
            if decision.identity is not None and not decision.identity.scopes.issubset(configuration.settings.scopes):
                # A description has no scope that the configuration does not have.
                assert line is None, case
                continue
            assert line is not None, case
            found = again(configuration, line)
            assert (found.outcome, found.reason, found.route) == (decision.outcome, decision.reason, decision.route), (case, line)
            assert edits_of(found) == edits_of(decision, REPLACED.get(str(case))), (case, line)
            assert (same(found.identity), found.user) == (same(decision.identity), decision.user), (case, line)
            assert_holds_none(json.dumps(line), world.texts)


def test_what_cannot_be_decided_again_is_a_closed_list() -> None:
    assert {Reason.REQUEST_MALFORMED, Reason.INTERNAL} == UNREPEATABLE


def assert_holds_none(text: str, tokens: dict[str, str]) -> None:
    """Neither a token nor a part of one that could be secret."""
    for token in tokens.values():
        assert [part for part in (token, *re.split(r"[._]", token)) if len(part) > 12 and part in text] == []


TOKEN = f"xtz_{fuzz.MARKER}5d41402abc4b2a76b9719d911017c592"


NAMES = (
    *("x-glean-auth-type", "x-scio-actas", "x-glean-actas", "cookie", "origin", "access-control-request-method", "x-extauthz-user"),
    *("x-request-id", "x-original-url", "traceparent", "referer", "x_scio_actas", "x-extauthz-{}", "x_extauthz_{}"),
)
FORMS = ("{}", "Bearer {}", "Basic {},", "{}@acme.com", "https://{}", "https://{}.example:80", " {}\t", "a@a.example,{}", "x{} {}")


@settings(max_examples=200, deadline=None)
@given(
    method=st.sampled_from(fuzz.METHODS),
    path=st.sampled_from(["/a", "/public", "/nowhere", "/a/%2F", "//"]),
    query=st.sampled_from(["?access_token={}", "?_method={}", "?{}", "?#{}", "#{}", "#?{}", "/{secret}"]),
    host=st.sampled_from(["api.acme.com", "{}", "{}.acme.com", "{} {}"]),
    authorization=st.sampled_from(FORMS),
    lines=st.dictionaries(st.sampled_from(NAMES), st.sampled_from(FORMS), max_size=5),
    token=st.sampled_from([TOKEN, TOKEN.lower(), TOKEN.replace("_", "-").lower()]),
    raw=st.booleans(),
)
def test_no_token_whatever_is_sent(
    method: str,
    path: str,
    query: str,
    host: str,
    authorization: str,
    lines: dict[str, str],
    token: str,
    raw: bool,
    any_world: World,
) -> None:
    """Whatever carries one; a path tells a part of one, as the decision log does, only if Authorization has no such token."""
    lines |= {"authorization": authorization}
    headers = {name.replace("{}", token.lower()): form.replace("{}", token) for name, form in lines.items()}
    target = path + query.replace("{}", token).replace("{secret}", token[4:])
    request = Request(method, target, host.replace("{}", token), headers, raw=raw, decision_id="0")
    configuration = any_world.configuration
    decision = decided(configuration.policy, request, lambda _: Reason.TOKEN_UNKNOWN, NOW)
    line = line_of(configuration, request, decision, NOW)
    if line is not None:
        is_alone = re.fullmatch(r"\W*(Bearer |Basic )?\{\}\W*", authorization)
        secret = token[4:].lower() if is_alone or query != "/{secret}" else token.lower()
        assert secret not in json.dumps(line).lower()
        assert (again(configuration, line).reason, again(configuration, line).outcome) == (decision.reason, decision.outcome)


@pytest.fixture(scope="module")
def any_world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """A world with every kind of route."""
    routes = [
        {"match": "POST /a", "scope": "SEARCH"},
        {"match": "GET /a", "scope": "SEARCH"},
        {"match": "* /public", "public": True},
    ]
    return World(tmp_path_factory.mktemp("any"), {"preflight": True, "hosts": ["api.acme.com"], "routes": routes})


def test_a_request_that_is_too_long_is_left_out(any_world: World) -> None:
    configuration = any_world.configuration
    for path, is_left_out in (("/a" * (MAX_SIZE // 2), True), ("/a" * (MAX_SIZE // 2 - 500), False)):
        request = Request("GET", path, "api.acme.com", {}, raw=True, decision_id="0")
        line = line_of(configuration, request, Deny(Reason.PATH_MALFORMED), NOW)
        assert (line is None) == is_left_out


@pytest.mark.parametrize(
    ("authorization", "is_left_out"),
    [
        ("Bearer aaaaaaaa1 aaaaaaaa2 aaaaaaaa3 aaaaaaaa4", False),
        ("Bearer aaaaaaaa1 aaaaaaaa2 aaaaaaaa3 aaaaaaaa4 aaaaaaaa5", True),
    ],
)
def test_what_takes_long_to_compare_is_left_out(any_world: World, authorization: str, is_left_out: bool) -> None:
    """Every part of a header is looked for in the whole line, while a client waits."""
    request = Request("GET", "/nowhere", "api.acme.com", {"authorization": authorization}, raw=True, decision_id="0")
    line = line_of(any_world.configuration, request, Deny(Reason.ROUTE_UNKNOWN), NOW)
    assert (line is None) == is_left_out


MAP = [
    {"match": "GET /a/{id}", "scope": "SEARCH"},
    {"match": "* /a/{id}/v1beta2items/**", "public": True},
    {"match": "GET /a/me", "deny": True},
    {"match": "GET /files/**", "scope": "SEARCH"},
]
PLACES: list[dict[str, Any]] = [
    *(
        {"path": f"/{start}/{{}}{end}"}
        for start in ("a", "files", "nowhere", "a/b")
        for end in ("", "/v1beta2items/x", "/", "?q=1")
    ),
    *({"path": f"/a/{text}"} for text in ("%2F{}", "{}%2F..", "x;{}", "..{}", "//{}", "{}@acme.com", "x.{}", "{}{}", "%7B{}%7D")),
    *({"path": f"/a/b{end}"} for end in ("?{}", "?access_token={}", "?_method={}", "#{}", "?x#{}")),
    *({"host": text} for text in ("{}", "{}.acme.com", "x.{}:80", "[{}]")),
    *({"method": text} for text in ("{}", "{}-X")),
    *({"headers": {"authorization": text}} for text in ("{}", "Bearer {}", "Basic {}", "Bearer {}, Bearer {}", "Bearer  {}")),
    *({"headers": {name: "{}"}} for name in ("x-scio-actas", "x-glean-auth-type", "cookie", "x-extauthz-user", "origin")),
    *({"headers": {"x-scio-actas": text}} for text in ("{}@acme.com", "ana@{}.com", "ana@acme.com,{}@acme.com")),
    *({"headers": {name: "x"}} for name in ("x-extauthz-{}", "x_extauthz_{}", "{}")),
    *({"method": "OPTIONS", "headers": {"origin": "https://{}", "access-control-request-method": text}} for text in ("GET", "{}")),
]
VERIFIED = Identity(AuthType.GLOBAL, "token:0a1b2c3d4e5f", None, frozenset({"SEARCH"}), NOW + 60, token_id="0a1b2c3d4e5f")


@pytest.fixture(scope="module")
def mapped(tmp_path_factory: pytest.TempPathFactory) -> Configuration:
    """A configuration with literals, parameters and wildcards."""
    return World(tmp_path_factory.mktemp("mapped"), {"preflight": True, "routes": MAP}).configuration


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(PLACES), PASTED, st.sampled_from(["_", "%5F", "%255F"]), st.booleans(), st.booleans())
def test_no_pasted_token_is_recorded(
    mapped: Configuration, place: dict[str, Any], secret: str, underscore: str, is_verified: bool, raw: bool
) -> None:
    """Of any family, in any place, whoever sends it; and what is recorded comes to the same."""
    headers = {"authorization": "Bearer xtz"} if is_verified or "headers" not in place else {}
    lines = place.get("headers", {}).items()
    headers = {name.replace("{}", secret.lower()): text.replace("{}", secret) for name, text in lines} | headers
    path = place.get("path", "/a/b").replace("{}", secret.replace("_", underscore))
    method, host = (place.get(name, usual).replace("{}", secret) for name, usual in (("method", "GET"), ("host", "api.acme.com")))
    request = Request(method, path, host, headers, raw=raw, decision_id="0")
    decision = decided(mapped.policy, request, lambda _: VERIFIED if is_verified else Reason.TOKEN_UNKNOWN, NOW)
    line = line_of(mapped, request, decision, NOW)
    if line is None:
        return
    assert not is_shown(secret, json.dumps(line))
    found = again(mapped, line)
    assert (found.outcome, found.reason, found.route) == (decision.outcome, decision.reason, decision.route), line


@pytest.mark.parametrize(
    ("path", "recorded"),
    [
        ("/a/me", "/a/me"),
        ("/a/42", "/a/42"),
        ("/a/ana-maria_7", "/a/ana-maria_7"),
        ("/a/b1c2", "/a/removed"),
        ("/a/6f1c2f0e-8d2b-4b6e-9a53-0d8c7e0b7a11", "/a/removed"),
        ("/a/ana@acme.com", "/a/removed"),
        ("/a/b1c2/v1beta2items/d3/e4", "/a/removed/v1beta2items/removed/removed"),
        ("/files/v1beta2items/", "/files/removed/"),
        ("/nowhere/b1c2", "/nowhere/removed"),
        ("/a/b1%2Fc2", "/a/b1%2Fc2"),
        (f"/a/b1%2F{'c2' * 20}", None),
    ],
)
def test_of_a_path_literals_words_and_numbers_are_recorded(mapped: Configuration, path: str, recorded: str | None) -> None:
    request = Request("GET", path, "api.acme.com", {}, raw=True, decision_id="0")
    line = line_of(mapped, request, decided(mapped.policy, request, lambda _: Reason.TOKEN_UNKNOWN, NOW), NOW)
    assert (line and line["path"]) == recorded
