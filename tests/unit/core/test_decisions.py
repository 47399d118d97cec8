"""What a decision tells besides its reason: the route, who asked, as whom, and which scopes were missing.

Logs, metrics and the metadata for Envoy hold it, and monitor mode goes by the route: without its name a refusal of a monitored
route is enforced, and one of an enforced route forwarded.
"""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from extauthz.core import act_as
from extauthz.core.act_as import ActAs, effective_user
from extauthz.core.credentials import Kind
from extauthz.core.decide import Plan, decide, monitored, plan
from extauthz.core.model import FORWARDED, Allow, AuthType, Decision, Deny, Identity, Reason, Request, WouldDeny
from extauthz.core.paths import Path
from extauthz.core.policy import Policy
from extauthz.core.routes import Match, Route, compile_routes
from extauthz.core.upstream import Upstream

NOW = 1_800_000_000


def route(text: str, **changes: object) -> Route:
    """Return the route of a line like "GET /a/b", named by its text."""
    method, _, path = text.partition(" ")
    segments = tuple(None if part.startswith("{") else part for part in path[1:].split("/"))
    return replace(Route(text, Match(text, (method,), segments, False)), **changes)  # type: ignore[arg-type]


ROUTES = (
    route("GET /a", scopes=("CHAT", "SEARCH")),
    route("GET /user", scopes=("SEARCH",), accept=frozenset({AuthType.USER})),
    route("GET /public", public=True),
    route("GET /denied", deny=True),
    route("GET /shared", scopes=("SEARCH",), preflight=True),
    route("OPTIONS /shared", scopes=("CHAT",)),
)
FILES = route("GET /files/{name}", public=True)
POLICY = Policy(routes=compile_routes(ROUTES), act_as=ActAs(allow=re.compile(".*@acme.com")))
OVERRIDING = replace(POLICY, routes=compile_routes(ROUTES, Upstream(overrides_method=True)))
GLOBAL = Identity(AuthType.GLOBAL, "token:a", None, frozenset({"CHAT", "SEARCH"}), NOW + 60)
USER = Identity(AuthType.USER, "token:b", "ana@acme.com", frozenset({"CHAT"}), NOW + 60)
OAUTH = Identity(AuthType.OAUTH, "oauth:okta:1", "ana@acme.com", frozenset({"CHAT", "SEARCH"}), NOW + 60)
BEARER = {"authorization": "Bearer abc"}
ACT_AS = BEARER | {"x-scio-actas": "ana@acme.com"}
CORS = {"origin": "https://app.acme.com", "access-control-request-method": "GET"}


def request(text: str, headers: dict[str, str]) -> Request:
    method, _, path = text.partition(" ")
    return Request(method, path, "api.acme.com", headers, True, "5eed" * 8)


@pytest.mark.parametrize(("sent", "kind"), [({}, Kind.ISSUED), ({"x-glean-auth-type": "OAUTH"}, Kind.OAUTH)])
def test_a_denial_names_the_kind_of_its_token(sent: dict[str, str], kind: Kind) -> None:
    """Metrics and logs go by it; it is none of what makes two decisions equal."""
    disabled = plan(replace(POLICY, kinds=frozenset(Kind) - {kind}), request("GET /a", BEARER | sent))
    assert isinstance(disabled, Deny)
    assert (disabled.reason, disabled.kind) == (Reason.CREDENTIAL_DISABLED, kind)
    planned = plan(POLICY, request("GET /a", BEARER | sent))
    assert isinstance(planned, Plan)
    for evidence in (Reason.TOKEN_REVOKED, replace(USER, expires_at=NOW)):
        refused = decide(planned, evidence, NOW)
        assert isinstance(refused, Deny)
        assert refused.kind == kind


@pytest.mark.parametrize(
    ("policy", "sent", "headers", "expected"),
    [
        (POLICY, "GET /nowhere", BEARER, Deny(Reason.ROUTE_UNKNOWN)),
        (POLICY, "GET /a#b", BEARER, Deny(Reason.PATH_MALFORMED)),
        (POLICY, "GET /denied", {}, Deny(Reason.ROUTE_DENIED, "GET /denied")),
        (POLICY, "GET /a", {}, Deny(Reason.CREDENTIAL_MISSING, "GET /a")),
        (POLICY, "GET /a", {"authorization": "Basic x"}, Deny(Reason.SCHEME_UNSUPPORTED, "GET /a")),
        (replace(POLICY, kinds=frozenset({Kind.OAUTH})), "GET /a", BEARER, Deny(Reason.CREDENTIAL_DISABLED, "GET /a")),
        (OVERRIDING, "GET /a?_method=DELETE", {}, Deny(Reason.METHOD_IN_QUERY, "GET /a")),
        (OVERRIDING, "GET /a?", {}, Deny(Reason.CREDENTIAL_MISSING, "GET /a")),
        # The route that a preflight asks about is named, also where OPTIONS has one of its own.
        (OVERRIDING, "OPTIONS /shared?_method=DELETE", CORS, Deny(Reason.METHOD_IN_QUERY, "GET /shared")),
        (OVERRIDING, "OPTIONS /shared?_method=DELETE", {}, Deny(Reason.METHOD_IN_QUERY, "OPTIONS /shared")),
        (POLICY, "OPTIONS /shared", {}, Deny(Reason.CREDENTIAL_MISSING, "OPTIONS /shared")),
        # A preflight is answered, and an encoded slash taken, where the route says so.
        (POLICY, "OPTIONS /a", CORS, Deny(Reason.METHOD_NOT_ALLOWED)),
        (replace(POLICY, routes=compile_routes([FILES])), "GET /files/a%2Fb", {}, Deny(Reason.PATH_AMBIGUOUS)),
        (POLICY, "GET /a", {"authorization": f"Bearer {'a' * 16_385}"}, Deny(Reason.AUTHORIZATION_MALFORMED, "GET /a")),
    ],
)
def test_a_refusal_before_the_credential_names_the_route(
    policy: Policy, sent: str, headers: dict[str, str], expected: Decision
) -> None:
    assert plan(policy, request(sent, headers)) == expected


@pytest.mark.parametrize(
    ("sent", "headers", "name"), [("GET /public", {}, "GET /public"), ("OPTIONS /shared", CORS, "GET /shared")]
)
def test_what_is_allowed_without_a_credential_names_the_route_and_nobody(sent: str, headers: dict[str, str], name: str) -> None:
    allowed = plan(POLICY, request(sent, headers))
    assert isinstance(allowed, Allow)
    assert (allowed.reason, allowed.route, allowed.identity, allowed.user) == (Reason.PUBLIC, name, None, None)


def planned(sent: str, headers: dict[str, str], policy: Policy = POLICY) -> Plan:
    found = plan(policy, request(sent, headers))
    assert isinstance(found, Plan)
    return found


def test_a_token_may_have_16_kibibytes() -> None:
    assert planned("GET /a", {"authorization": f"Bearer {'a' * 16_384}"}).policy.max_token_size == 16_384


LONG = replace(GLOBAL, actor="token:" + "a" * 600)


@pytest.mark.parametrize(
    ("sent", "headers", "evidence", "now", "expected"),
    [
        ("GET /a", BEARER, Reason.TOKEN_REVOKED, NOW, Deny(Reason.TOKEN_REVOKED, "GET /a")),
        ("GET /a", ACT_AS, GLOBAL, NOW + 60, Deny(Reason.TOKEN_EXPIRED, "GET /a", GLOBAL)),
        ("GET /user", BEARER, OAUTH, NOW, Deny(Reason.CREDENTIAL_NOT_ACCEPTED, "GET /user", OAUTH)),
        ("GET /a", BEARER, GLOBAL, NOW, Deny(Reason.ACT_AS_MISSING, "GET /a", GLOBAL)),
        ("GET /a", ACT_AS, USER, NOW, Deny(Reason.ACT_AS_NOT_ALLOWED, "GET /a", USER)),
        ("GET /a", BEARER, replace(USER, auth_type=AuthType.ANONYMOUS, user=None), NOW, None),
        ("GET /a", BEARER, USER, NOW, Deny(Reason.SCOPE_MISSING, "GET /a", USER, "ana@acme.com", ("CHAT", "SEARCH"))),
        ("GET /a", ACT_AS, LONG, NOW, Deny(Reason.IDENTITY_TOO_LONG, "GET /a", LONG, "ana@acme.com")),
    ],
)
def test_a_refusal_of_a_verified_token_tells_whose_it_was(
    sent: str, headers: dict[str, str], evidence: Identity | Reason, now: float, expected: Decision | None
) -> None:
    if expected is None:
        assert isinstance(evidence, Identity)
        expected = Deny(Reason.ANONYMOUS_NOT_ALLOWED, "GET /a", evidence)
    assert decide(planned(sent, headers), evidence, now) == expected


def test_an_allow_tells_who_asked_and_as_whom() -> None:
    allowed = decide(planned("GET /a", ACT_AS), GLOBAL, NOW + 59.9)
    assert isinstance(allowed, Allow)
    assert (allowed.reason, allowed.route, allowed.identity, allowed.user) == (Reason.ALLOWED, "GET /a", GLOBAL, "ana@acme.com")


def test_monitor_mode_tells_the_same_of_a_request_as_enforcing() -> None:
    watched = replace(POLICY, monitored=frozenset({"GET /a"}))
    asked = request("GET /a", ACT_AS)
    allowed = decide(planned("GET /a", ACT_AS), GLOBAL, NOW)
    assert isinstance(allowed, Allow)
    forwarded = monitored(watched, asked, allowed)
    assert isinstance(forwarded, Allow)
    assert [getattr(forwarded, name) for name in ("reason", "route", "identity", "user")] == [
        getattr(allowed, name) for name in ("reason", "route", "identity", "user")
    ]
    refused = Deny(Reason.SCOPE_MISSING, "GET /a", USER, "ana@acme.com", ("CHAT",), kind="issued")
    would = monitored(watched, asked, refused)
    assert isinstance(would, WouldDeny)
    assert (would.reason, would.route, would.identity, would.user) == (Reason.SCOPE_MISSING, "GET /a", USER, "ana@acme.com")
    assert (would.scopes, would.kind) == (("CHAT",), "issued")
    assert replace(would, kind="oauth") == would, "of what kind the token was is for the log, and no part of the decision"
    assert dict(would.edits.set) == {"x-extauthz-decision": "would-deny"}
    elsewhere = replace(refused, route="GET /user")
    assert monitored(watched, asked, elsewhere) is elsewhere


ENFORCED = {
    *("request_malformed", "path_malformed", "path_ambiguous", "host_malformed", "method_in_query"),  # not read in one way
    "route_denied",  # open to nobody
    "internal",  # a fault of ours
    *("allowed", "public"),  # no refusals
}


@pytest.mark.parametrize("reason", Reason)
def test_monitor_mode_forwards_what_can_be_read_and_is_open_to_somebody(reason: Reason) -> None:
    watched = replace(POLICY, monitored=frozenset({"GET /a"}))
    refused = Deny(reason, "GET /a")
    forwarded = monitored(watched, request("GET /a", ACT_AS), refused)
    assert forwarded is refused if reason.value in ENFORCED else isinstance(forwarded, WouldDeny)
    assert (reason in FORWARDED) is (reason.value not in ENFORCED)


def acting(rules: ActAs, headers: dict[str, str], *, raw: bool = True) -> str | Reason | None:
    return effective_user(rules, replace_raw(request("GET /a", headers), raw), GLOBAL)


def replace_raw(asked: Request, raw: bool) -> Request:
    return Request(asked.method, asked.path, asked.host, asked.headers, raw, asked.decision_id)


ANYBODY = ActAs(allow=re.compile(r"[^@]*@[^@]*"))


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"x-scio-actas": "ana@acme.com", "x-glean-actas": "nonsense"}, Reason.ACT_AS_MALFORMED),
        ({"x-scio-actas": "nonsense", "x-glean-actas": "ana@acme.com"}, Reason.ACT_AS_MALFORMED),
        ({"x-scio-actas": "ana@acme.com", "x-glean-actas": "eva@acme.com"}, Reason.ACT_AS_CONFLICT),
        ({"x-scio-actas": "Ana@acme.com", "x-glean-actas": "ana@ACME.com"}, "ana@acme.com"),
        ({"x-scio-actas": " ", "x-glean-actas": "ana@acme.com"}, "ana@acme.com"),
    ],
)
def test_one_malformed_address_of_two_is_malformed_not_a_conflict(headers: dict[str, str], expected: str | Reason) -> None:
    assert acting(ANYBODY, headers) == expected


@pytest.mark.parametrize(("length", "is_one"), [(254, True), (255, False)])
def test_an_address_has_254_bytes_at_most(length: int, is_one: bool) -> None:
    text = f"@{'.'.join(['d' * 49] * 4)}".rjust(length, "a")
    assert len(text) == length
    assert (act_as.address(text) is not None) is is_one


@pytest.mark.parametrize(
    ("denied", "user", "is_permitted"),
    [
        (r"ana\+admin@acme\.com", "ana+admin@acme.com", False),
        (r"ana\+admin@acme\.com", "ana@acme.com", True),
        (r"ana@acme\.com", "ana+admin@acme.com", False),
        (r"ana@acme\.com", "ana+a+b@acme.com", False),
        (r"ana\+a@acme\.com", "ana+a+b@acme.com", True),
        (r"ana@acme\.com", "anna@acme.com", True),
    ],
)
def test_a_denied_address_is_denied_with_its_tag_and_without_it(denied: str, user: str, is_permitted: bool) -> None:
    rules = ActAs(allow=re.compile(r"[^@]*@[^@]*"), deny=re.compile(denied))
    assert rules.permits(user) is is_permitted
    assert not ActAs(deny=re.compile("none")).permits(user)  # nobody is allowed


@pytest.mark.parametrize("position", range(len("access_token")))
@pytest.mark.parametrize("spelling", ["%{:02x}", "%{:02X}"])
def test_a_token_in_the_query_is_found_whichever_character_of_its_name_is_encoded(position: int, spelling: str) -> None:
    name = "access_token"
    query = name[:position] + spelling.format(ord(name[position])) + name[position + 1 :]
    assert plan(POLICY, request(f"GET /a?{query}=x", BEARER)) == Deny(Reason.TOKEN_IN_QUERY, "GET /a")


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        ("GET /files/a%2Fb", None),
        ("GET /files/a%2Fb?x=#y", Deny(Reason.PATH_MALFORMED)),
        ("GET /files/a%2Fb#y", Deny(Reason.PATH_MALFORMED)),
        ("GET /files/a?x=#y", Deny(Reason.PATH_MALFORMED)),
    ],
)
def test_an_encoded_slash_excuses_nothing_else(sent: str, expected: Decision | None) -> None:
    files = compile_routes([replace(FILES, encoded_slashes=True)])
    decided = plan(replace(POLICY, routes=files), request(sent, {}))
    assert isinstance(decided, Allow) if expected is None else decided == expected


def test_patterns_are_ordered_from_the_left_and_a_rest_comes_last() -> None:
    ordered = [
        Match("GET /a/b", ("GET",), ("a", "b"), False),
        Match("GET /a/b/**", ("GET",), ("a", "b"), True),
        Match("GET /a/{name}", ("GET",), ("a", None), False),
        Match("GET /a/**", ("GET",), ("a",), True),
        Match("GET /{name}/b", ("GET",), (None, "b"), False),
    ]
    ranks = [match.specificity for match in ordered]
    assert ranks == [(0, 0), (0, 0, 2), (0, 1), (0, 2), (1, 0)]
    assert ranks == sorted(ranks)


def test_a_path_without_parameters_is_found_in_a_dictionary_in_front_of_the_trie() -> None:
    """No parameter is taken for the word that Python writes for it: the literal route decides, wherever it stands."""
    rest = Route("GET /a/**", Match("GET /a/**", ("GET",), ("a",), True), public=True)
    denied = route("GET /None", deny=True)
    table = compile_routes([route("GET /"), route("GET /a/b"), route("POST /a/b"), denied, route("GET /{id}"), rest])
    assert set(table.literals) == {"/", "/a/b", "/None"}
    assert {text: table.search(Path(text).segments) for text in table.literals} == table.literals
    assert table.find("GET", Path("/None")) is denied


def test_a_table_knows_whether_a_route_takes_encoded_slashes() -> None:
    """The configuration for Envoy goes by it: it lets them through where one does."""
    assert not compile_routes([]).encoded_slashes
    assert not compile_routes([FILES], Upstream(ignores_case=True)).encoded_slashes
    assert compile_routes([FILES, replace(FILES, name="other", encoded_slashes=True), FILES]).encoded_slashes


def test_a_parameter_takes_no_empty_segment_also_where_a_path_may_end_with_one() -> None:
    """`parse` refuses an empty segment in the middle; the table does not rely on it."""
    table = compile_routes([route("GET /a/"), route("GET /a/{id}/b")])
    assert table.search(("a", "", "b")) is None
    assert table.search(("a", "1", "b")) is not None
