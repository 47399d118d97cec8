"""Each field of a recorded request: what of the request it holds, and which harmless text stands in place of anything else."""

from __future__ import annotations

import json
from typing import Any

import pytest

from extauthz.core.credentials import Kind
from extauthz.core.model import Allow, AuthType, Decision, Deny, HeaderEdits, Identity, Reason, Request, WouldDeny
from extauthz.telemetry.recorded_requests import recorded_request
from tests.support.compared import configuration

HOST, NOW = "api.acme.com", 1_800_000_000.123_456_7
LONG_HOST = "customer-with-a-long-name.acme.com"
SCOPES = frozenset({"CHAT", "SEARCH"})
ROUTES = {"r.yaml": {"routes": [{"match": "GET /a", "scope": "CHAT", "name": "a"}]}}
OPEN = configuration(ROUTES)
"""Tells the kind of a token by a header, and takes any host."""
CLOSED = configuration({"r.yaml": ROUTES["r.yaml"] | {"hosts": [HOST, LONG_HOST]}}, {"auth_type": "by_token"})
"""Tells it by the token, and takes two hosts."""
ONE = Identity(AuthType.USER, "token:one", "ana@acme.com", frozenset({"SEARCH", "CHAT"}), 1_900_000_000.0, token_id="one")
OKTA = Identity(AuthType.OAUTH, "oauth:okta:a b:c", "ana@acme.com", SCOPES, float("inf"), client_id="0oa 1")
UNKNOWN = Deny(Reason.ROUTE_UNKNOWN)


def allowed(identity: Identity) -> Allow:
    return Allow(Reason.ALLOWED, "a", HeaderEdits((), ()), identity, identity.user)


def line(
    decision: Decision = UNKNOWN,
    target: str = "/a",
    host: str = HOST,
    headers: dict[str, str] | None = None,
    *,
    method: str = "GET",
    policy: Any = OPEN.policy,
) -> dict[str, Any] | None:
    request = Request(method, target, host, headers or {}, raw=True, decision_id="0" * 32)
    return recorded_request(policy, request, decision, NOW, scopes=SCOPES)


def recorded(*arguments: Any, **more: Any) -> dict[str, Any]:
    found = line(*arguments, **more)
    assert found is not None
    return found


def test_all_that_is_told_of_a_request() -> None:
    assert recorded(allowed(ONE), "/a?b=c", HOST, {"authorization": "Bearer 12345678", "x-other": "12345678"}) == {
        "version": 1,
        "method": "GET",
        "path": "/a",
        "host": HOST,
        "headers": {},
        "caller": "USER user=ana@acme.com scopes=CHAT,SEARCH token=one expires=2030-03-17T17:46:40+00:00",
        "decision": "allow",
        "reason": "allowed",
        "route": "a",
        "time": 1_800_000_000.123_457,
    }


@pytest.mark.parametrize(
    ("target", "reason", "expected"),
    [
        ("/a?secret", Reason.ROUTE_UNKNOWN, "/a"),
        ("/a?b?secret", Reason.ROUTE_UNKNOWN, "/a"),
        ("/a#secret", Reason.ROUTE_UNKNOWN, "/a"),
        ("/a?access_token=secret", Reason.TOKEN_IN_QUERY, "/a?access_token=removed"),
        ("/a?_method=secret", Reason.METHOD_IN_QUERY, "/a?_method=removed"),
        ("/a#secret", Reason.PATH_MALFORMED, "/a#"),
        ("/a#secret?more", Reason.PATH_MALFORMED, "/a#"),
        ("/a?secret#more", Reason.PATH_MALFORMED, "/a?#"),
        ("/a?secret", Reason.PATH_MALFORMED, "/a"),
    ],
)
def test_nothing_of_a_query_or_a_fragment_is_told(target: str, reason: Reason, expected: str) -> None:
    assert recorded(Deny(reason), target)["path"] == expected


PLACES = configuration(
    {
        "r.yaml": {
            "routes": [
                {"match": "GET /a/{id}", "scope": "CHAT", "name": "any"},
                {"match": "GET /a/me", "scope": "CHAT", "name": "me"},
            ]
        }
    }
).policy
"""Two routes, of which one segment decides."""


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("/a/a1b2", "/a/removed"),
        # It is refused for the same reason on either route, but a record names the route.
        ("/a/%6De", "/a/%6De"),
        # Where an encoded text decides, what is short stays as well, and so do long texts of words.
        ("/a/a1b2/x%2Fy", "/a/a1b2/x%2Fy"),
        (f"/a/{'a1' * 10}/x%2Fy", f"/a/{'a1' * 10}/x%2Fy"),
        (f"/a/{'a1' * 10}b/x%2Fy", "/a/removed/x%2Fy"),
        ("/a/words-of-more-than-twenty-letters/x%2Fy", "/a/words-of-more-than-twenty-letters/x%2Fy"),
        # Before the first slash there is no place of a route.
        ("s3cret/a", "removed/a"),
    ],
)
def test_a_segment_is_replaced_where_that_comes_to_the_same(target: str, expected: str) -> None:
    assert recorded(UNKNOWN, target, policy=PLACES)["path"] == expected


@pytest.mark.parametrize(
    ("method", "expected"),
    [("PUT", "PUT"), ("VERSION-CONTROL", "VERSION-CONTROL"), ("S3CRET", "REMOVED"), ("A" * 21, "REMOVED")],
)
def test_a_method_that_could_be_a_secret_is_replaced(method: str, expected: str) -> None:
    assert recorded(UNKNOWN, "/a/me", method=method, policy=PLACES)["method"] == expected


@pytest.mark.parametrize(
    ("decision", "expected"),
    [
        (allowed(ONE), "USER user=ana@acme.com scopes=CHAT,SEARCH token=one expires=2030-03-17T17:46:40+00:00"),
        (allowed(OKTA), "oauth user=ana@acme.com scopes=CHAT,SEARCH provider=okta subject='a b:c' client='0oa 1'"),
        (
            allowed(Identity(AuthType.GLOBAL, "token:two", None, frozenset(), 1e9, token_id="two")),
            "GLOBAL scopes=- token=two expires=2001-09-09T01:46:40+00:00",
        ),
        (
            Deny(Reason.SCOPE_MISSING, "a", ONE),
            "USER user=ana@acme.com scopes=CHAT,SEARCH token=one expires=2030-03-17T17:46:40+00:00",
        ),
        (Deny(Reason.CREDENTIAL_MISSING, "a"), "nobody"),
        (Deny(Reason.CREDENTIAL_MISSING, "a", kind=Kind.OAUTH), "nobody"),
        (Deny(Reason.SCHEME_UNSUPPORTED, "a", kind=Kind.OAUTH), "nobody"),
        (Deny(Reason.CREDENTIAL_DISABLED, "a", kind=Kind.OAUTH), "nobody"),
        (Deny(Reason.ROUTE_UNKNOWN, kind=Kind.OAUTH), "nobody"),
        (Deny(Reason.TOKEN_EXPIRED, "a", kind=Kind.OAUTH), "oauth reason=token_expired"),
        (Deny(Reason.TOKEN_EXPIRED, "a", kind=Kind.ISSUED), "GLOBAL reason=token_expired"),
        (Deny(Reason.STORE_UNAVAILABLE, "a", kind=Kind.ISSUED), "GLOBAL reason=store_unavailable"),
        (WouldDeny(Reason.TOKEN_EXPIRED, "a", HeaderEdits((), ()), kind=Kind.OAUTH), "oauth reason=token_expired"),
    ],
)
def test_a_caller_is_described_as_what_verifying_came_to(decision: Decision, expected: str) -> None:
    assert recorded(decision)["caller"] == expected


@pytest.mark.parametrize(
    "decision",
    [
        Deny(Reason.REQUEST_MALFORMED),
        Deny(Reason.INTERNAL),
        # Without its kind nobody can say what was verified.
        Deny(Reason.TOKEN_EXPIRED, "a"),
        # A description has no scope that the configuration does not have.
        allowed(Identity(AuthType.USER, "token:one", "ana@acme.com", frozenset({"CHAT", "GONE"}), 2e9, token_id="one")),
    ],
)
def test_what_cannot_be_decided_again_is_left_out(decision: Decision) -> None:
    assert line(decision) is None


@pytest.mark.parametrize(
    ("host", "of_any", "of_two"),
    [
        (HOST, HOST, HOST),
        ("API.acme.com:443", "API.acme.com:443", "API.acme.com:443"),
        ("other.example", "other.example", "other.example"),
        ("[2001:db8::1]:8443", "[2001:db8::1]:8443", "[2001:db8::1]:8443"),
        # What could be a secret is no host that anybody has.
        ("a" * 20 + ".example", "a" * 20 + ".example", "a" * 20 + ".example"),
        ("a" * 21 + ".example", "other.invalid", "other.invalid"),
        (LONG_HOST, "other.invalid", LONG_HOST),
        ("secret_part.example", "other.invalid", "other.invalid"),
        ("a.example:123456", "other.invalid", "other.invalid"),
        ("two hosts", "other.invalid", "removed removed"),
        ("", "other.invalid", "removed removed"),
    ],
)
def test_a_host_is_told_where_it_can_be_no_secret(host: str, of_any: str, of_two: str) -> None:
    assert [recorded(UNKNOWN, "/a", host, policy=each.policy)["host"] for each in (OPEN, CLOSED)] == [of_any, of_two]


ACTING = Deny(Reason.ACT_AS_FORBIDDEN, "a", ONE)


@pytest.mark.parametrize(
    ("headers", "decision", "expected"),
    [
        ({"cookie": "secret", "x-request-id": "secret", "origin": "https://a.example"}, UNKNOWN, {}),
        ({"x-scio-actas": "Ana@acme.com"}, ACTING, {"x-scio-actas": "Ana@acme.com"}),
        ({"x-scio-actas": "Ana@acme.com"}, UNKNOWN, {"x-scio-actas": "removed"}),
        ({"x-scio-actas": "no address"}, ACTING, {"x-scio-actas": "removed"}),
        ({"x-scio-actas": ""}, ACTING, {"x-scio-actas": ""}),
        ({"x-glean-auth-type": "OAuth"}, UNKNOWN, {"x-glean-auth-type": "OAuth"}),
        ({"x-glean-auth-type": "secret"}, UNKNOWN, {"x-glean-auth-type": "unknown"}),
        ({"x-glean-auth-type": ""}, UNKNOWN, {"x-glean-auth-type": ""}),
        ({"x-extauthz-user": "secret"}, UNKNOWN, {"x-extauthz-user": ""}),
        ({"x-extauthz-my-own-1": "secret"}, UNKNOWN, {"x-extauthz-my-own-1": ""}),
        ({f"x-extauthz-{'a' * 20}": "secret"}, UNKNOWN, {f"x-extauthz-{'a' * 20}": ""}),
        ({f"x-extauthz-{'a' * 21}": "secret"}, UNKNOWN, {"x-extauthz-removed": ""}),
        ({"x-extauthz-a1b2": "secret"}, UNKNOWN, {"x-extauthz-removed": ""}),
        ({"x-extauthz-a1234": "secret"}, UNKNOWN, {"x-extauthz-removed": ""}),
        ({"authorization": "Bearer 12345678"}, UNKNOWN, {"authorization": "Bearer removed"}),
        ({"authorization": ""}, UNKNOWN, {"authorization": ""}),
        ({"authorization": "Bearer 12345678"}, ACTING, {}),
        ({"authorization": "Basic 12345678"}, Deny(Reason.SCHEME_UNSUPPORTED, "a"), {"authorization": "Basic removed"}),
        (
            {"authorization": "Bearer 12345678 9"},
            Deny(Reason.AUTHORIZATION_MALFORMED, "a"),
            {"authorization": "Bearer removed removed"},
        ),
    ],
)
def test_headers_are_told_as_far_as_they_decide(headers: dict[str, str], decision: Decision, expected: dict[str, str]) -> None:
    assert recorded(decision, "/a", HOST, headers)["headers"] == expected


@pytest.mark.parametrize(
    ("value", "is_left_out"),
    [
        # What has twenty characters may be anything: in the name, and in each label of the domain.
        (f"{'a1' * 10}@acme.com", False),
        (f"{'a1' * 10}b@acme.com", True),
        (f"ana@{'a1' * 10}.com", False),
        (f"ana@{'a1' * 10}b.com", True),
        ("ana@a1b2c3d4.e5f6a7b8.example.com", False),
        ("ana1b2c3d4e5@f6a7b8c9d0.com", False),
        # Longer texts are of words, or a name like those of programs.
        ("accounts-of-all-our-customers@acme.com", False),
        ("documentPermissionsOfUser@acme.com", False),
        ("ana@customer-with-a-long-name.com", False),
    ],
)
def test_an_address_is_told_where_it_can_be_no_token(value: str, is_left_out: bool) -> None:
    found = line(ACTING, "/a", HOST, {"x-scio-actas": value})
    assert (found and found["headers"]) == (None if is_left_out else {"x-scio-actas": value})


@pytest.mark.parametrize(
    ("policy", "kind", "expected"),
    [
        (CLOSED.policy, Kind.ISSUED, "Bearer glean_removed"),
        (CLOSED.policy, Kind.OAUTH, "Bearer removed"),
        (OPEN.policy, Kind.ISSUED, "Bearer removed"),
    ],
)
def test_a_token_is_replaced_by_one_of_its_kind(policy: Any, kind: Kind, expected: str) -> None:
    """Where the token tells its kind, a request with another kind would be decided otherwise."""
    headers = {"authorization": "Bearer 12345678"}
    refused = Deny(Reason.CREDENTIAL_DISABLED, "a", kind=kind)
    for decision in (refused, WouldDeny(Reason.CREDENTIAL_DISABLED, "a", HeaderEdits((), ()), kind=kind)):
        assert recorded(decision, "/a", HOST, headers, policy=policy)["headers"] == {"authorization": expected}


PREFLIGHT = {"origin": "https://app.example:8443", "access-control-request-method": "PUT"}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, {}),
        ({"x-scio-actas": "ana@acme.com"}, {"x-scio-actas": "removed"}),
        ({"origin": "http://a.example"}, {}),
        ({"origin": "ftp://a.example"}, {"origin": "null"}),
        ({"origin": "https:a.example"}, {"origin": "null"}),
        ({"origin": "https://a.example/secret"}, {"origin": "null"}),
        ({"origin": "secret"}, {"origin": "null"}),
        ({"origin": "http"}, {"origin": "null"}),
        ({"access-control-request-method": "s3cret"}, {"access-control-request-method": "OTHER"}),
        ({"access-control-request-method": "A" * 20}, {}),
        ({"access-control-request-method": "A" * 21}, {"access-control-request-method": "OTHER"}),
    ],
)
def test_a_preflight_is_told_with_what_it_asks_for(changes: dict[str, str], expected: dict[str, str]) -> None:
    sent = PREFLIGHT | changes
    assert recorded(UNKNOWN, "/a", HOST, sent, method="OPTIONS")["headers"] == sent | expected
    assert recorded(UNKNOWN, "/a", HOST, sent)["headers"].keys().isdisjoint(PREFLIGHT)


@pytest.mark.parametrize(("number", "is_left_out"), [(100, False), (101, True)])
def test_a_request_with_many_headers_is_left_out(number: int, is_left_out: bool) -> None:
    headers = {f"x-{each}": "a" for each in range(number)}
    assert (line(UNKNOWN, "/a", HOST, headers) is None) is is_left_out


@pytest.mark.parametrize(("spare", "is_left_out"), [(0, False), (1, True)])
def test_a_long_request_is_left_out(spare: int, is_left_out: bool) -> None:
    room = 16_384 - len(json.dumps(recorded(UNKNOWN, "/")))
    target = ("/" + "a" * 19) * 1_000
    assert (line(UNKNOWN, target[: 1 + room + spare]) is None) is is_left_out


@pytest.mark.parametrize(("length", "is_left_out"), [(16_384, False), (16_385, True)])
def test_a_long_target_is_left_out_whatever_would_be_told_of_it(length: int, is_left_out: bool) -> None:
    assert (line(UNKNOWN, "/a?".ljust(length, "b")) is None) is is_left_out


@pytest.mark.parametrize(
    ("token", "target", "is_left_out"),
    [
        # Eight letters of a token are looked for, and in any case.
        ("abcdefgh", "/abcdefgh", True),
        ("ABCDEFGH", "/abcdefgh/x", True),
        ("abcdefgh", "/ABCDEFGH", True),
        ("abcdefg", "/abcdefg", False),
        ("glean_123456789abc_qwertzuiop", "/qwertzuiop", True),
        ("glean_123456789abc_qwertzuiop", "/123456789abc", False),
        # What is no word is not told in any case.
        ("eyJhbGciOiJ.eyJpc3MiOi.c2lnbmF0dXJl", "/c2lnbmF0dXJl", False),
        ("eyJhbGciOiJ.eyJpc3MiOi.signature", "/signature", True),
        ("eyJhbGciOiJ.eyJpc3MiOi.with-hyphen_and_more", "/with-hyphen_and_more", True),
        ("eyJhbGciOiJ.eyJpc3MiOi.with-hyphen-and-more", "/and-more", False),
        ("first-part-of-it", "/of-it", False),
        ("first-part-of-it", "/first-part-of-it", True),
        ("first-part.of-it", "/first-part.of-it", True),
        ("first-part.of-it", "/of-it", False),
        ("abcdefgh,ijklmnop", "/ijklmnop", True),
    ],
)
def test_a_request_that_tells_its_token_elsewhere_is_left_out(token: str, target: str, is_left_out: bool) -> None:
    headers = {"authorization": f"Bearer {token}"}
    assert (line(UNKNOWN, target, HOST, headers) is None) is is_left_out


@pytest.mark.parametrize(("number", "is_left_out"), [(4, False), (5, True)])
def test_a_header_of_many_tokens_is_left_out(number: int, is_left_out: bool) -> None:
    headers = {"authorization": " ".join(f"{each}abcdefgh" for each in range(number))}
    assert (line(UNKNOWN, "/a", HOST, headers) is None) is is_left_out
