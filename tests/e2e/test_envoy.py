"""End to end through the real Envoy: every kind of credential, and what a client tries."""

from __future__ import annotations

import asyncio
import socket
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from extauthz.config.issuers import expand_issuer, provider_of
from extauthz.core.identity import OVERRIDE_HEADERS
from extauthz.core.providers import Provider, Verification
from extauthz.demo.cases import CASES, Case
from extauthz.demo.issuer import DemoIssuer
from extauthz.demo.launcher import Demo
from extauthz.demo.providers import IssuerRole, entry_of
from extauthz.demo.wiring import EnvoyLink, Wiring
from tests.support.running import Reply, RunningDemo, running_demo
from tests.support.waiting import eventually

pytestmark = pytest.mark.envoy

SEARCH, CHAT, FEED = "/rest/api/v1/search", "/rest/api/v1/chat", "/rest/api/v1/feed"
ANA = ("X-Scio-ActAs", "ana@acme.com")
OAUTH = ("X-Glean-Auth-Type", "OAUTH")


ROLES = {role.variable: role for role in IssuerRole}
"""The providers by the name of the demo's token."""


def row_of(role: IssuerRole) -> Provider:
    """Return the provider whose tokens a role issues."""
    entry = entry_of(role, "https://issuer.example")
    row = provider_of(entry["provider"], expand_issuer(entry["provider"], entry.get("issuer", "")))
    assert row is not None
    return row


def client_claims(role: IssuerRole) -> set[str]:
    """Return the claims that name the client."""
    row = row_of(role)
    return {*row.client_claims, row.second_client_claim} - {""}


ASKED = tuple(
    name for name, role in ROLES.items() if row_of(role).verifications[0] is not Verification.JWKS or row_of(role).userinfo_user
)
"""Providers whose tokens are verified by asking: they learn of a revocation."""


async def prepare(demo: Demo) -> None:
    """Make the tokens that the demo does not show."""
    bob = {"permission": "USER", "scopes": ["CHAT"], "user": "bob@acme.com"}
    anonymous = {"permission": "ANONYMOUS", "scopes": ["SEARCH"]}
    await demo.create(
        USER_EXPIRED=bob | {"expires": "1s"},
        GLOBAL_EXPIRED={"permission": "GLOBAL", "scopes": ["SEARCH"], "expires": "1s"},
        ANONYMOUS_EXPIRED=anonymous | {"expires": "1s"},
        USER_REVOKED=bob,
        ANONYMOUS_REVOKED=anonymous,
        ANONYMOUS_CHAT=anonymous | {"scopes": ["CHAT"]},
    )
    await demo.extauthz("token", "revoke", demo.ids["USER_REVOKED"], demo.ids["ANONYMOUS_REVOKED"], "--yes")
    for name, role in ROLES.items():
        make = partial(demo.issuer.issue, role)
        demo.tokens[f"{name}_FORGED"] = demo.issuer.forged(demo.tokens[name])
        demo.tokens[f"{name}_EXPIRED"] = make("ana@acme.com", lifetime=-10)
        demo.tokens[f"{name}_OTHER_CLIENT"] = make("ana@acme.com", **dict.fromkeys(client_claims(role), "of-somebody-else"))
        demo.tokens[f"{name}_WITHDRAWN"] = make("ana@acme.com")
        demo.issuer.revoke(demo.tokens[f"{name}_WITHDRAWN"])
    demo.tokens["GSUITE_ELSEWHERE"] = demo.issuer.gsuite_token("ana@evil.com")
    demo.tokens["OAUTH_UNKNOWN_KEY"] = DemoIssuer(demo.issuer.issuer.removesuffix("/oauth2/default")).token("ana@acme.com")
    await asyncio.sleep(1.1)  # why: lifetimes are whole seconds on the clock of another process, and one of them has to pass


# Memory that is writable and executable is refused from here on (systemd's MemoryDenyWriteExecute), where the kernel knows how.
PR_SET_MDWE, PR_MDWE_REFUSE_EXEC_GAIN = 65, 1
GUARDED = f"""
import ctypes, os, sys
ctypes.CDLL(None).prctl({PR_SET_MDWE}, {PR_MDWE_REFUSE_EXEC_GAIN}, 0, 0, 0)
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""
WIRINGS = {f"{transport}-{link}": Wiring(transport, link) for transport in ("nghttp2", "grpcio") for link in EnvoyLink}
WIRINGS["nghttp2-guarded"] = Wiring("nghttp2", python=(sys.executable, "-c", GUARDED))


@pytest.fixture(scope="module", params=WIRINGS.values(), ids=WIRINGS)
def envoy(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[RunningDemo]:
    """One Envoy for each transport and each way to it."""
    # Unix socket paths are short: the folder of pytest is not.
    folder = Path(tmp_path_factory.mktemp("e"))
    # The commands of one of them are processes of their own, as those of the demo are.
    commands = {"commands": Demo.extauthz} if request.param == WIRINGS["nghttp2-tcp"] else {}
    with running_demo(folder, prepare, wiring=request.param, **commands) as demo:
        yield demo


def send(envoy: RunningDemo, token: str, path: str, *headers: tuple[str, str], method: str = "POST") -> Reply:
    """Send a request with the token of a name."""
    return envoy.send(f"{method} {path}", [("Authorization", f"Bearer {envoy.demo.tokens[token]}"), *headers])


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.title)
def test_the_cases_of_the_demo(envoy: RunningDemo, case: Case) -> None:
    headers = []
    for header in case.headers:
        name, _, value = header.partition(": ")
        for variable, token in envoy.demo.tokens.items():
            value = value.replace(f"${variable}", token) if value == f"Bearer ${variable}" else value
        headers.append((name, value))
    reply = envoy.send(f"{case.method} {case.path}", headers)
    assert reply.status == case.status
    if case.user is None:
        assert reply.reason == case.reason
        assert envoy.logged(reply) == case.decision
    else:
        assert reply.upstream.get("x-extauthz-user", "") == case.user


@pytest.mark.parametrize(
    ("token", "path", "headers", "expected"),
    [
        ("GLOBAL", SEARCH, [ANA], ("ana@acme.com", "GLOBAL", "CHAT,SEARCH")),
        ("GLOBAL", SEARCH, [("X-Glean-ActAs", "Eve@ACME.com")], ("eve@acme.com", "GLOBAL", "CHAT,SEARCH")),
        ("USER_TOKEN", CHAT, [], ("bob@acme.com", "USER", "CHAT")),
        ("ANONYMOUS", SEARCH, [], (None, "ANONYMOUS", "SEARCH")),
    ],
)
def test_identity_headers_reach_the_upstream(
    envoy: RunningDemo, token: str, path: str, headers: list[tuple[str, str]], expected: tuple[str | None, str, str]
) -> None:
    reply = send(envoy, token, path, *headers)
    seen = reply.upstream
    assert (seen.get("x-extauthz-user"), seen["x-extauthz-auth-type"], seen["x-extauthz-scopes"]) == expected
    assert seen["x-extauthz-actor"] == f"token:{envoy.demo.ids[token]}"
    assert len(seen["x-extauthz-decision-id"]) == 32
    for name in ("authorization", "x-scio-actas", "x-glean-actas", "x-glean-auth-type"):
        assert name not in seen


def test_an_oauth_identity_reaches_the_upstream(envoy: RunningDemo) -> None:
    seen = send(envoy, "OAUTH", CHAT, OAUTH).upstream
    assert seen["x-extauthz-user"] == "ana@acme.com"
    assert seen["x-extauthz-auth-type"] == "OAUTH"
    assert seen["x-extauthz-actor"] == "oauth:okta:ana@acme.com"
    assert seen["x-extauthz-client-id"] == "0oa1demo"
    assert "authorization" not in seen
    assert "x-glean-auth-type" not in seen


ALL_SCOPES = ",".join(
    [
        "ACTIVITY",
        "ANNOUNCEMENTS",
        "ANSWERS",
        "CHAT",
        "COLLECTIONS",
        "DOCPERMISSIONS",
        "DOCUMENTS",
        "ENTITIES",
        "FEED",
        "FEEDBACK",
        "INSIGHTS",
        "PEOPLE",
        "PINS",
        "SEARCH",
        "SHORTCUTS",
        "SUMMARIZE",
        "VERIFICATION",
    ]
)
SCOPES = {"OIDC": "CHAT,SEARCH", "KEYCLOAK": "CHAT,SEARCH", "AUTH0": "CHAT", "COGNITO": "CHAT"}
"""What tokens of the demo hold where their claims say it; others hold everything."""
ACTORS = {name: f"oauth:{role}:" for name, role in ROLES.items()}


@pytest.mark.parametrize("provider", ACTORS)
def test_a_genuine_token_of_each_provider_is_accepted(envoy: RunningDemo, provider: str) -> None:
    for _ in range(2):
        seen = send(envoy, provider, CHAT, OAUTH).upstream
        assert (seen["x-extauthz-user"], seen["x-extauthz-auth-type"]) == ("ana@acme.com", "OAUTH")
        assert seen["x-extauthz-actor"].startswith(ACTORS[provider])
        assert [seen["x-extauthz-client-id"]] == entry_of(ROLES[provider], envoy.demo.issuer.org_issuer)["client_ids"]
        assert seen["x-extauthz-scopes"] == SCOPES.get(provider, ALL_SCOPES)
        assert "authorization" not in seen


@pytest.mark.parametrize("fault", ["FORGED", "EXPIRED", "OTHER_CLIENT"])
@pytest.mark.parametrize("provider", ACTORS)
def test_a_bad_token_of_each_provider_is_refused(envoy: RunningDemo, provider: str, fault: str) -> None:
    reply = send(envoy, f"{provider}_{fault}", CHAT, OAUTH)
    assert reply.status == 401
    # Who asks Google about an expired token is not told why it is no good.
    told = "token_expired" if fault == "EXPIRED" and provider != "GSUITE" else "token_invalid"
    assert reply.reason == told
    assert envoy.demo.tokens[f"{provider}_{fault}"] not in reply.text


@pytest.mark.parametrize("provider", ASKED)
def test_a_withdrawn_token_is_refused_by_whom_it_is_asked_of(envoy: RunningDemo, provider: str) -> None:
    reply = send(envoy, f"{provider}_WITHDRAWN", CHAT, OAUTH)
    assert (reply.status, reply.reason) == (401, "token_invalid")


def test_a_google_account_of_another_company_is_refused(envoy: RunningDemo) -> None:
    assert send(envoy, "GSUITE_ELSEWHERE", CHAT, OAUTH).reason == "token_invalid"


def test_no_token_is_in_an_address_or_goes_to_another_provider(envoy: RunningDemo) -> None:
    issuer = envoy.demo.issuer
    for provider in ACTORS:
        send(envoy, provider, CHAT, OAUTH)
    own = {"OKTA_ORG": {"/oauth2/v1/introspect"}, "GSUITE": {"/tokeninfo", "/v1/userinfo"}, "ONELOGIN": {"/oidc/2/me"}}
    seen = {
        provider: {path for path, tokens in issuer.seen_tokens_at.items() if envoy.demo.tokens[provider] in tokens}
        for provider in ACTORS
    }
    assert issuer.leaks == 0
    assert seen == {provider: own.get(provider, set()) for provider in ACTORS}


REFUSALS = [
    ("missing scope, GLOBAL", "GLOBAL", FEED, [ANA], 403, "scope_missing"),
    ("missing scope, USER", "USER_TOKEN", SEARCH, [], 403, "scope_missing"),
    ("missing scope, ANONYMOUS", "ANONYMOUS_CHAT", SEARCH, [], 403, "scope_missing"),
    ("no such route, OAUTH", "OAUTH", "/rest/api/v1/agents", [OAUTH], 403, "route_unknown"),
    ("wrong act-as, GLOBAL, none", "GLOBAL", SEARCH, [], 400, "act_as_missing"),
    ("wrong act-as, GLOBAL, no address", "GLOBAL", SEARCH, [("X-Scio-ActAs", "ana")], 400, "act_as_malformed"),
    ("wrong act-as, GLOBAL, twice", "GLOBAL", SEARCH, [ANA, ANA], 400, "act_as_malformed"),
    ("wrong act-as, GLOBAL, two users", "GLOBAL", SEARCH, [ANA, ("X-Glean-ActAs", "eve@acme.com")], 400, "act_as_conflict"),
    ("wrong act-as, GLOBAL, denied", "GLOBAL", SEARCH, [("X-Scio-ActAs", "ceo+x@acme.com")], 403, "act_as_forbidden"),
    ("wrong act-as, GLOBAL, other company", "GLOBAL", SEARCH, [("X-Scio-ActAs", "ana@evil.com")], 403, "act_as_forbidden"),
    ("wrong act-as, USER", "USER_TOKEN", CHAT, [ANA], 400, "act_as_not_allowed"),
    ("wrong act-as, ANONYMOUS", "ANONYMOUS", SEARCH, [ANA], 400, "act_as_not_allowed"),
    ("wrong act-as, OAUTH", "OAUTH", CHAT, [OAUTH, ANA], 400, "act_as_not_allowed"),
    ("expired, GLOBAL", "GLOBAL_EXPIRED", SEARCH, [ANA], 401, "token_expired"),
    ("expired, USER", "USER_EXPIRED", CHAT, [], 401, "token_expired"),
    ("expired, ANONYMOUS", "ANONYMOUS_EXPIRED", SEARCH, [], 401, "token_expired"),
    ("expired, OAUTH", "OAUTH_EXPIRED", CHAT, [OAUTH], 401, "token_expired"),
    ("revoked, GLOBAL", "REVOKED", SEARCH, [ANA], 401, "token_invalid"),
    ("revoked, USER", "USER_REVOKED", CHAT, [], 401, "token_invalid"),
    ("revoked, ANONYMOUS", "ANONYMOUS_REVOKED", SEARCH, [], 401, "token_invalid"),
    ("unknown key, OAUTH", "OAUTH_UNKNOWN_KEY", CHAT, [OAUTH], 401, "token_invalid"),
    ("other client, OAUTH", "OAUTH_OTHER_CLIENT", CHAT, [OAUTH], 401, "token_invalid"),
    ("issued token sent as OAUTH", "USER_TOKEN", CHAT, [OAUTH], 401, "token_invalid"),
    ("unknown auth type", "USER_TOKEN", CHAT, [("X-Glean-Auth-Type", "SAML")], 400, "auth_type_unknown"),
    ("auth type twice", "OAUTH", CHAT, [OAUTH, OAUTH], 400, "auth_type_unknown"),
    ("authorization twice", "USER_TOKEN", CHAT, [("Authorization", "Bearer x")], 400, "authorization_malformed"),
]


@pytest.mark.parametrize(
    ("token", "path", "headers", "status", "reason"), [case[1:] for case in REFUSALS], ids=[c[0] for c in REFUSALS]
)
def test_refusals(envoy: RunningDemo, token: str, path: str, headers: list[tuple[str, str]], status: int, reason: str) -> None:
    reply = send(envoy, token, path, *headers)
    assert (reply.status, reply.reason) == (status, reason)
    assert reply.headers["content-type"] == "application/json"
    assert reply.headers["cache-control"] == "no-store"
    assert reply.headers["x-extauthz-decision-id"] == reply.document["decision_id"]
    assert ("www-authenticate" in reply.headers) == (status in (400, 401) or reason == "scope_missing")
    assert envoy.demo.tokens[token] not in reply.text


@pytest.mark.parametrize(
    "name",
    [
        "x-extauthz-user",
        "X-Extauthz-User",
        "X-EXTAUTHZ-ACTOR",
        "x-extauthz-token",
        "x-extauthz-anything",
        "x.extauthz.user",
        "x-extauthz.user",
        "x-extauthz-",
    ],
)
@pytest.mark.parametrize("public", [False, True], ids=["token", "public"])
def test_a_client_cannot_name_its_own_identity(envoy: RunningDemo, name: str, *, public: bool) -> None:
    path, method = ("/healthz", "GET") if public else (CHAT, "POST")
    reply = send(envoy, "USER_TOKEN", path, (name, "ceo@acme.com"), method=method)
    assert reply.status == 200
    assert "ceo@acme.com" not in reply.text
    assert reply.upstream.get("x-extauthz-user") == (None if public else "bob@acme.com")


@pytest.mark.parametrize("name", ["X_Extauthz_User", "x-extauthz_user", "X_Scio_ActAs", "x_glean_auth_type"])
def test_names_with_underscores_are_refused_by_envoy(envoy: RunningDemo, name: str) -> None:
    reply = send(envoy, "USER_TOKEN", CHAT, (name, "ceo@acme.com"))
    assert (reply.status, reply.reason) == (400, "envoy")


@pytest.mark.parametrize("separator", list("!#$%&'*+.^`|~"))
@pytest.mark.parametrize("name", ["x-scio-actas", "x-glean-actas", "x-glean-auth-type", "x-extauthz-user"])
def test_every_spelling_that_the_sidecar_removes_is_allowed_by_the_mutation_rule(
    envoy: RunningDemo, name: str, separator: str
) -> None:
    spelled = name.replace("-", separator)
    reply = send(envoy, "USER_TOKEN", CHAT, (spelled, "ceo@acme.com"))
    assert reply.status == 200
    assert "ceo@acme.com" not in reply.text


@pytest.mark.parametrize("name", [*OVERRIDE_HEADERS, "x.http.method.override", "script~name"])
def test_override_headers_do_not_reach_the_upstream(envoy: RunningDemo, name: str) -> None:
    reply = send(envoy, "USER_TOKEN", CHAT, (name, "/admin"))
    assert reply.status == 200
    assert name not in reply.upstream


@pytest.mark.parametrize(
    ("path", "status", "reason"),
    [
        (f"{CHAT}?locale=de", 200, ""),
        ("/rest/api/v1//chat", 200, ""),
        ("/rest/./api/v1/chat", 200, ""),
        ("/rest/api/v1/search/../chat", 200, ""),
        ("/rest/api/v1/%63hat", 200, ""),
        (f"{CHAT}/", 403, "route_unknown"),
        ("/rest/api/v1/CHAT", 403, "route_unknown"),
        (f"{CHAT};x=1", 400, "path_ambiguous"),
        ("/rest/api/v1/search/%2e%2e;x=1/chat", 400, "path_ambiguous"),
        ("/rest/api/v1/search/..%3bx/chat", 400, "path_ambiguous"),
        ("/rest/api/v1/search%2fchat", 400, "envoy"),
        ("/rest/api/v1/search%5cchat", 400, "envoy"),
        ("/rest/api/v1/chat%00", 400, "envoy"),
        ("/rest/api/v1/chat#x", 400, "envoy"),
        ("/rest/api/v1/%252e%252e/chat", 400, "path_ambiguous"),
        ("/rest/api/v1/chat%zz", 400, "path_malformed"),
        ("/rest/api/v1/ch%ff", 400, "path_ambiguous"),
        (f"{CHAT}?access_token=x", 400, "token_in_query"),
        (f"{CHAT}?a=1;%5Fmethod=DELETE", 400, "method_in_query"),
        (f"{CHAT}?a=1&%61ccess_token=x", 400, "token_in_query"),
    ],
)
def test_path_tricks(envoy: RunningDemo, path: str, status: int, reason: str) -> None:
    reply = send(envoy, "USER_TOKEN", path)
    assert reply.status == status
    if status != 200:
        assert reply.reason == reason


def test_a_grpc_client_gets_a_grpc_status(envoy: RunningDemo) -> None:
    reply = envoy.send(f"POST {SEARCH}", {"content-type": "application/grpc", "te": "trailers"})
    assert reply.headers["grpc-status"] == "16"
    assert reply.headers["content-type"].startswith("application/grpc")


def test_a_type_that_envoy_does_not_take_for_grpc_gets_http(envoy: RunningDemo) -> None:
    reply = envoy.send(f"POST {SEARCH}", {"content-type": "application/grpc;charset=utf-8", "te": "trailers"})
    assert (reply.status, reply.reason, reply.headers["content-type"]) == (401, "credential_missing", "application/json")
    assert "grpc-status" not in reply.headers


def test_head_has_no_body(envoy: RunningDemo) -> None:
    reply = envoy.send(f"HEAD {SEARCH}", body=b"")
    assert (reply.status, reply.text) == (403, "")


def test_a_new_and_a_revoked_token_are_seen(envoy: RunningDemo) -> None:
    """Within two seconds, or a hundred requests where one takes longer than twenty milliseconds, as on a busy machine."""
    envoy.run(envoy.demo.create(LATER={"permission": "USER", "scopes": ["CHAT"], "user": "eve@acme.com"}))
    assert send(envoy, "LATER", CHAT).upstream["x-extauthz-user"] == "eve@acme.com"
    started = time.monotonic()
    for _ in range(5):
        assert send(envoy, "LATER", CHAT).status == 200
    request = (time.monotonic() - started) / 5
    envoy.run(envoy.demo.extauthz("token", "revoke", envoy.demo.ids["LATER"], "--yes"))
    revoked_at = time.monotonic()
    eventually(lambda: send(envoy, "LATER", CHAT).status != 200, seconds=40.0, pause=0.02)
    taken = time.monotonic() - revoked_at
    assert send(envoy, "LATER", CHAT).reason == "token_invalid"
    assert taken < max(2.0, 100 * request), f"{taken:.3f} s, and a request took {request:.3f} s"


def test_envoy_reaches_nobody_without_the_sidecar(envoy: RunningDemo) -> None:
    """The last test of the file: it stops the sidecar, which tells the store of uses before it ends."""
    assert send(envoy, "USER_TOKEN", CHAT, ("X-Forwarded-For", "198.51.100.7")).status == 200
    sidecar = envoy.demo.sidecar
    assert sidecar is not None
    envoy.loop.call_soon_threadsafe(sidecar.terminate)
    envoy.run(sidecar.wait())
    assert sidecar.returncode == 0
    assert send(envoy, "USER_TOKEN", CHAT).status == 503
    (shown,) = envoy.run(envoy.demo.extauthz("token", "show", envoy.demo.ids["USER_TOKEN"]))
    assert (shown["last_used_from"], shown["last_used_at"] is not None) == ("127.0.0.0/24", True)
    with socket.create_connection(("127.0.0.1", envoy.demo.ports.upstream)):
        pass
