"""The signed token for upstreams: who gets one, what it says, how long it is reused, and how its keys change."""

from __future__ import annotations

import base64
import dataclasses
import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jwt as pyjwt
import pytest
import yaml
from click.testing import CliRunner
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, NoEncryption, PrivateFormat
from hypothesis import given, settings
from hypothesis import strategies as st

from extauthz.adapters.envoy.allowances import EncodedEdits
from extauthz.adapters.envoy.codec import MAX_TEMPLATE_BYTES, EnvoyCodec
from extauthz.cli import main
from extauthz.config.loader import Configuration, load
from extauthz.config.restart import needing_restart
from extauthz.core.model import Allow, AuthType, Identity, Reason
from extauthz.errors import ConfigurationError
from extauthz.responses.algorithms import ALGORITHMS
from extauthz.responses.internal_tokens import InternalTokens, Recipe, Signed, SigningCodec, new_key, signing_key
from extauthz.runtime.codec import build_internal_tokens
from tests.support import fuzz
from tests.support.world import DECISION_ID, NOW, Answer, MakeWorld, World, bearer, check_request, claims, oauth, sign

HEADER = "x-extauthz-token"
ISSUER = "https://extauthz.acme.internal"
AUDIENCE = "https://api.acme.internal"
PEMS = {f"{algorithm.lower()}-{number}.pem": new_key(algorithm).decode() for algorithm in ALGORITHMS for number in (1, 2)}
SECTION: dict[str, Any] = {"issuer": ISSUER, "audience": AUDIENCE, "keys": [{"id": "k1", "file": "es256-1.pem"}]}
ROUTES = [
    {"match": "POST /search", "scope": "SEARCH", "anonymous": True},
    {"match": "POST /other", "scope": "SEARCH"},
    {"match": "POST /chat", "scope": "CHAT", "audience": "https://chat.acme.internal"},
    {"match": "GET /open", "public": True},
    {"match": "* /closed", "deny": True},
]

MakeTokenWorld = Callable[..., World]


@pytest.fixture
def token_world(make_world: MakeWorld) -> MakeTokenWorld:
    """Return a maker of worlds that make internal tokens; keywords change the section."""

    def make(routes: Any = ROUTES, *, world: Mapping[str, Any] | None = None, **changes: Any) -> World:
        return make_world(routes, more_files=PEMS, internal_token=SECTION | changes, **(world or {}))

    return make


def internal_tokens_of(
    configuration: Configuration, environment: Mapping[str, str], *, previous: InternalTokens | None = None
) -> InternalTokens | None:
    """Return what signs with the keys that a configuration names."""
    return build_internal_tokens(configuration, configuration.internal_token_keys(environment), previous=previous)


def tokens_of(world: World) -> InternalTokens:
    assert world.internal_tokens is not None
    return world.internal_tokens


def verified(world: World, answer: Answer, audience: str = AUDIENCE, *, key_set: bytes | None = None) -> dict[str, Any]:
    """Verify the token of an answer as an upstream does, with nothing but the published keys; return its claims."""
    token = answer.headers[HEADER]
    keys = pyjwt.PyJWKSet.from_json((key_set or tokens_of(world).key_set).decode())
    key = keys[pyjwt.get_unverified_header(token)["kid"]]
    options: Any = {"verify_exp": False, "verify_nbf": False, "verify_iat": False, "require": ["exp", "iat", "nbf", "jti", "sub"]}
    told = pyjwt.decode(token, key, algorithms=[str(key.algorithm_name)], audience=audience, issuer=ISSUER, options=options)
    assert told["nbf"] == told["iat"] <= world.clock.wall < told["exp"]
    return dict(told)


# What it says


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_what_a_token_says(token_world: MakeTokenWorld, algorithm: str) -> None:
    world = token_world(keys=[{"id": "k1", "file": f"{algorithm.lower()}-1.pem"}])
    issued = {kind: world.token(kind, "SEARCH", "CHAT") for kind in ("GLOBAL", "USER", "ANONYMOUS")}
    ids = {kind: token.split("_")[1] for kind, token in issued.items()}
    cases = {
        "GLOBAL": bearer(issued["GLOBAL"], x_scio_actas="Bo@acme.com"),
        "USER": bearer(issued["USER"]),
        "ANONYMOUS": bearer(issued["ANONYMOUS"]),
        "OAUTH": oauth(sign(claims())),
    }
    times = {"iat": NOW, "nbf": NOW, "exp": NOW + 300, "iss": ISSUER, "aud": AUDIENCE}
    expected = {
        "GLOBAL": {"sub": "bo@acme.com", "act": {"sub": f"token:{ids['GLOBAL']}"}, "scope": "CHAT SEARCH"},
        "USER": {"sub": "ana@acme.com", "act": {"sub": f"token:{ids['USER']}"}, "scope": "CHAT SEARCH"},
        "ANONYMOUS": {"sub": f"token:{ids['ANONYMOUS']}", "scope": "CHAT SEARCH"},
        "OAUTH": {
            "sub": "ana@acme.com",
            "act": {"sub": "oauth:okta:ana@acme.com"},
            "scope": "CHAT DOCUMENTS FEED SEARCH",
            "client_id": "0oa1example",
        },
    }
    seen = set()
    for kind, headers in cases.items():
        answer = world.check("POST /search", headers)
        told = verified(world, answer)
        identifier = told.pop("jti")
        assert told == expected[kind] | times | {"auth_type": kind}
        assert re.fullmatch("[0-9a-f]{32}", identifier)
        seen.add(identifier)
        fields = pyjwt.get_unverified_header(answer.headers[HEADER])
        assert fields == {"alg": algorithm, "kid": "k1", "typ": "JWT"}
        assert HEADER not in answer.removed
        assert answer.headers["x-extauthz-actor"].startswith(("token:", "oauth:"))
    assert len(seen) == 4


def test_a_subject_of_any_characters_is_told_exactly(token_world: MakeTokenWorld) -> None:
    world = token_world(world={"oauth": {"user_claim": "email"}})
    subject = 'é "quoted" \\ 100% \u2028 🐎'
    answer = world.check("POST /search", oauth(sign(claims(sub=subject, email="ana@acme.com"))))
    assert verified(world, answer)["act"] == {"sub": f"oauth:okta:{subject}"}


def test_the_audience_is_that_of_the_route_then_of_its_file_then_of_the_section(tmp_path: Path) -> None:
    routes = {
        "audience": "file",
        "routes": [
            {"match": "POST /in-file", "scope": "SEARCH"},
            {"match": "POST /own", "scope": "SEARCH", "audience": "own"},
            {"match": "GET /open-in-file", "public": True},
        ],
    }
    files = {**PEMS, "more.yaml": {"routes": ROUTES}}
    world = World(tmp_path, routes, {"internal_token": SECTION, "routes": ["routes.yaml", "more.yaml"]}, more_files=files)
    headers = bearer(world.token("USER", "SEARCH", "CHAT"))
    audiences = {"search": AUDIENCE, "chat": "https://chat.acme.internal", "in-file": "file", "own": "own"}
    for path, audience in audiences.items():
        for _ in range(2):
            answer = world.check(f"POST /{path}", headers)
            assert verified(world, answer, audience)["aud"] == audience
    assert tokens_of(world).signed == len(audiences)
    assert HEADER in world.check("GET /open-in-file", headers).removed


def test_the_header_has_the_prefix_of_the_identity_headers(token_world: MakeTokenWorld) -> None:
    world = token_world(world={"identity": {"prefix": "x-acme-"}})
    answer = world.check("POST /search", bearer(world.token("USER"), **{"x-acme-token": "forged", HEADER: "other"}))
    assert pyjwt.decode(answer.headers["x-acme-token"], options={"verify_signature": False})["sub"] == "ana@acme.com"
    assert HEADER not in answer.headers


# Who gets one


@pytest.fixture(scope="module")
def lasting(tmp_path_factory: pytest.TempPathFactory) -> dict[bool, World]:
    """One world with internal tokens and one without."""
    make = tmp_path_factory.mktemp
    return {
        True: World(make("on"), ROUTES, {"internal_token": SECTION}, more_files=PEMS),
        False: World(make("off"), ROUTES, {"internal_token": SECTION | {"enabled": False}}),
    }


LINES = ("POST /search", "POST /chat", "GET /open", "POST /open", "GET /closed", "GET /none", "POST //", "OPTIONS /search")
OAUTH_TOKEN = sign(claims(), algorithm="ES256")


@settings(max_examples=200, deadline=None)
@given(data=st.data(), on=st.booleans(), form=st.sampled_from(("raw", "map")))
def test_there_is_a_token_exactly_where_somebody_is_allowed(
    lasting: dict[bool, World], data: st.DataObject, form: str, *, on: bool
) -> None:
    """And what a client sends under that name, or one that could be read as it, never goes on, whether the feature is on or off."""
    world = lasting[on]
    credential = data.draw(
        st.sampled_from(
            (
                {},
                bearer("glean_x_y"),
                oauth(OAUTH_TOKEN),
                oauth(OAUTH_TOKEN[:-2]),
                bearer(fuzz.put_token(world, "GLOBAL"), x_scio_actas="ana@acme.com"),
                bearer(fuzz.put_token(world, "GLOBAL")),
                bearer(fuzz.put_token(world, "GLOBAL"), x_scio_actas="ceo@acme.com"),
                bearer(fuzz.put_token(world, "USER", ("SEARCH", "CHAT"))),
                bearer(fuzz.put_token(world, "ANONYMOUS")),
            )
        )
    )
    names = data.draw(st.lists(st.one_of(st.just(HEADER), fuzz.spelled(HEADER)), max_size=3))
    sent = {**dict.fromkeys(names, "forged"), **credential}
    answer = world.check(data.draw(st.sampled_from(LINES)), sent, form=form)

    named = answer.allowed and answer.decision.reason is Reason.ALLOWED and answer.decision.identity is not None
    assert (HEADER in answer.headers) == (on and named)
    assert b"forged" not in answer.message.SerializeToString()
    if answer.allowed:
        gone = {name.lower() for name in answer.removed}
        assert (HEADER in gone) == (HEADER not in answer.headers)
        assert {name.lower() for name in names} <= gone | set(answer.headers)
        assert not gone & set(answer.headers), "Envoy removes what is in both lists"
    if HEADER in answer.headers:
        assert verified(world, answer, answer_audience(answer))["auth_type"] == answer.headers["x-extauthz-auth-type"]
        assert answer.headers[HEADER] not in repr(answer.decision), "what is recorded holds no token"
        assert answer.headers[HEADER] not in str(answer.message.dynamic_metadata)


def answer_audience(answer: Answer) -> str:
    return "https://chat.acme.internal" if answer.decision.route == "POST /chat" else AUDIENCE


@dataclasses.dataclass
class LetPass:
    """What a mode may make of a refusal that is let through: an identity, but another reason than `allowed`."""

    reason: Reason
    identity: Identity | None
    route: str | None = "POST /search"
    user: str | None = "ana@acme.com"


def test_what_is_only_let_pass_has_no_token(token_world: MakeTokenWorld) -> None:
    world = token_world()
    codec = world.build().runtime.codec
    handed: list[object] = []
    codec._write = lambda request, decision, header: handed.append(header) or b"x"  # type: ignore[attr-defined, func-returns-value]
    identity = Identity(AuthType.USER, "token:x", "ana@acme.com", frozenset({"SEARCH"}), NOW + 60.0)
    request = codec.read(check_request("POST", "/search"), DECISION_ID)
    assert request is not None
    for reason in Reason:
        for who in (identity, None):
            codec.write(request, LetPass(reason, who))  # type: ignore[arg-type]
            assert (handed.pop() is not None) == (reason is Reason.ALLOWED and who is not None)


def test_without_the_section_the_codec_is_the_plain_one(make_world: MakeWorld) -> None:
    for changes in ({}, {"internal_token": SECTION | {"enabled": False}}):
        world = make_world(ROUTES, **changes)
        assert world.internal_tokens is None
        assert type(world.build().runtime.codec) is EnvoyCodec
        assert HEADER in world.check("POST /search", bearer(world.token("USER"))).removed


def test_a_token_that_cannot_be_signed_is_a_refusal(token_world: MakeTokenWorld) -> None:
    world = token_world()

    def broken() -> str:
        raise OSError("no randomness")

    tokens_of(world)._token_ids = broken
    answer = world.check("POST /search", bearer(world.token("USER")))
    assert (answer.status, answer.reason) == (500, "internal")
    assert not answer.allowed


# How long one is reused


def test_a_token_is_reused_until_half_its_life(token_world: MakeTokenWorld) -> None:
    world = token_world(lifetime="60s")
    headers = bearer(world.token("USER"))
    first = world.check("POST /search", headers).headers[HEADER]
    for seconds, again in ((1, True), (28.5, True), (0.5, False), (29.9, True), (0.2, False)):
        world.clock.advance(seconds)
        answer = world.check("POST /search", headers)
        now = answer.headers[HEADER]
        verified(world, answer)
        assert (now == first) == again, seconds
        first = now
    assert tokens_of(world).signed == 3


def test_one_token_serves_all_routes_of_an_audience(token_world: MakeTokenWorld) -> None:
    world = token_world()
    headers = bearer(world.token("GLOBAL"), x_scio_actas="ana@acme.com")
    one, two = (world.check(line, headers).headers[HEADER] for line in ("POST /search", "POST /other"))
    other_user = world.check("POST /search", headers | {"x-scio-actas": "bo@acme.com"}).headers[HEADER]
    other_token = world.check("POST /search", bearer(world.token("GLOBAL"), x_scio_actas="ana@acme.com")).headers[HEADER]
    assert one == two
    assert len({one, other_user, other_token}) == 3


def test_a_token_outlives_a_verdict_that_is_read_again(token_world: MakeTokenWorld) -> None:
    """The verdict is a new one every minute; the token for the same credential stays."""
    world = token_world()
    headers = bearer(world.token("USER"))
    first = world.check("POST /search", headers)
    world.clock.advance(61)
    world.poll()
    again = world.check("POST /search", headers)
    assert first.decision.identity is not again.decision.identity
    assert first.headers[HEADER] == again.headers[HEADER]


def test_a_revoked_credential_gets_no_token_and_neither_does_its_successor_get_the_old_one(token_world: MakeTokenWorld) -> None:
    world = token_world()
    text = world.token("USER")
    old = world.check("POST /search", bearer(text)).headers[HEADER]
    world.store.revoke(text.split("_")[1], at=NOW, by="test")
    world.poll()
    for _ in range(2):
        answer = world.check("POST /search", bearer(text))
        assert (answer.reason, HEADER in answer.headers) == ("token_revoked", False)
        assert old.encode() not in answer.message.SerializeToString()
    successor = world.check("POST /search", bearer(world.token("USER")))
    assert successor.headers[HEADER] != old
    assert verified(world, successor)["act"]["sub"] != f"token:{text.split('_')[1]}"


def test_another_credential_of_the_same_user_has_another_token(token_world: MakeTokenWorld) -> None:
    """One of the two can be revoked, or end sooner."""
    world = token_world()
    short, long = (oauth(sign(claims(exp=NOW + seconds, jti=str(seconds)))) for seconds in (100, 3600))
    seen = [world.check("POST /search", headers) for headers in (long, short, long, short)]
    assert [verified(world, answer)["exp"] - NOW for answer in seen] == [300, 100, 300, 100]
    assert tokens_of(world).signed == 2


def test_another_client_of_the_same_user_has_another_token(token_world: MakeTokenWorld) -> None:
    world = token_world(world={"oauth": {"client_ids": ["0oa1example", "0oa2example"]}})
    for client in ("0oa1example", "0oa2example"):
        assert verified(world, world.check("POST /search", oauth(sign(claims(cid=client)))))["client_id"] == client


def test_a_scope_that_a_reload_takes_away_is_told_to_no_upstream_any_more(token_world: MakeTokenWorld) -> None:
    """Signer and credential are the same as before."""
    world = token_world(world={"oauth": {"scopes": ["SEARCH", "CHAT"]}})
    headers, signer = oauth(sign(claims())), tokens_of(world)
    assert verified(world, world.check("POST /search", headers))["scope"] == "CHAT SEARCH"
    world.reconfigure(oauth={"scopes": ["SEARCH"]})
    assert tokens_of(world) is signer
    assert verified(world, world.check("POST /search", headers))["scope"] == "SEARCH"


def test_a_token_says_what_was_found_out_about_this_caller_whatever_was_signed_before() -> None:
    """Each fact alone makes another token."""
    made = InternalTokens(Recipe(ISSUER, HEADER, 60.0, (KEY,), capacity=100), token_ids=lambda: "id")
    ana = Identity(AuthType.USER, "token:1", "ana@acme.com", frozenset({"SEARCH"}), NOW + 30.0)
    callers: list[tuple[Identity, str | None, str]] = [
        (ana, ana.user, AUDIENCE),
        (dataclasses.replace(ana, actor="token:2"), ana.user, AUDIENCE),
        (dataclasses.replace(ana, auth_type=AuthType.GLOBAL), ana.user, AUDIENCE),
        (dataclasses.replace(ana, scopes=frozenset({"SEARCH", "CHAT"})), ana.user, AUDIENCE),
        (dataclasses.replace(ana, expires_at=NOW + 20.0), ana.user, AUDIENCE),
        (dataclasses.replace(ana, client_id="0oa1example"), ana.user, AUDIENCE),
        (ana, "bob@acme.com", AUDIENCE),
        (ana, ana.user, "https://chat.acme.internal"),
    ]
    for identity, user, audience in callers * 2:
        told = pyjwt.decode(made.header(identity, user, audience, NOW)[1], options={"verify_signature": False})
        assert told["act"]["sub"] == identity.actor
        assert (told["sub"], told["aud"], told["exp"]) == (user, audience, identity.expires_at)
        assert (told["auth_type"], told["scope"]) == (identity.auth_type, " ".join(sorted(identity.scopes)))
        assert told.get("client_id") == identity.client_id
    assert made.signed == len(callers)


@settings(max_examples=200, deadline=None)
@given(
    lifetime=st.floats(10, 300),
    fraction=st.floats(0, 0.999),
    left=st.one_of(st.floats(0.001, 3), st.floats(0.001, 600)),
    steps=st.lists(st.floats(0, 0.6), max_size=6),
)
def test_no_token_outlives_its_credential_or_ends_before_it_begins(
    lifetime: float, fraction: float, left: float, steps: list[float]
) -> None:
    made = InternalTokens(Recipe(ISSUER, HEADER, lifetime, (KEY,), capacity=100), token_ids=lambda: "id")
    now = NOW + fraction
    identity = Identity(AuthType.USER, "token:x", "ana@acme.com", frozenset({"SEARCH"}), now + left)
    for step in (0.0, *steps):
        now += step * left
        if now >= identity.expires_at:
            return
        told = pyjwt.decode(made.header(identity, identity.user, AUDIENCE, now)[1], options={"verify_signature": False})
        assert told["iat"] <= now < told["exp"] <= identity.expires_at
        assert told["exp"] - told["iat"] <= lifetime + 1
        if not isinstance(told["exp"], int):
            assert told["exp"] - told["iat"] < 2


KEY = signing_key("k1", PEMS["eddsa-1.pem"].encode())


def test_a_clock_that_goes_back_makes_another_token(token_world: MakeTokenWorld) -> None:
    """Who reads the right clock would take the old one for one of the future."""
    world = token_world()
    headers = bearer(world.token("USER"))
    world.check("POST /search", headers)
    world.clock.wall -= 30
    assert verified(world, world.check("POST /search", headers))["iat"] == NOW - 30


def test_memory_is_bounded_and_rid_of_what_is_over() -> None:
    made = InternalTokens(Recipe(ISSUER, HEADER, 60.0, (KEY,), capacity=100), token_ids=lambda: "id")

    def ask(number: int, now: float) -> str:
        identity = Identity(AuthType.USER, f"token:{number}", None, frozenset({"SEARCH"}), NOW + 3600.0)
        return made.header(identity, None, AUDIENCE, now)[1]

    first = ask(0, NOW)
    for number in range(1, 250):
        ask(number, NOW)
        assert ask(0, NOW) == first, "what is used stays"
        assert made.remembered <= 100
    assert made.signed == 250
    ask(1000, NOW + 31)
    assert made.remembered == 1, "the others are past their half"


# The warm path


def test_a_warm_answer_is_spliced(token_world: MakeTokenWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    world = token_world()
    requests = [
        check_request("POST", "/search", headers.items())
        for headers in (bearer(world.token("GLOBAL"), x_scio_actas="ana@acme.com"), oauth(sign(claims())))
    ]
    fresh = [world.check_bytes(data) for data in requests]

    def refused(*_: object, **__: object) -> bytes:
        raise AssertionError("serialised again")

    with monkeypatch.context() as patch:
        patch.setattr(EnvoyCodec, "_serialised", refused)
        patch.setattr(InternalTokens, "_sign", refused)
        again = [world.check_bytes(data) for data in requests]
    assert [answer.message for answer in fresh] == [answer.message for answer in again]
    world.clock.advance(150)
    world.poll()
    later = [world.check_bytes(data) for data in requests]
    assert all(answer.headers[HEADER] != before.headers[HEADER] for answer, before in zip(later, fresh, strict=True))


def test_the_parts_of_an_answer_are_kept_however_long_its_token_is(token_world: MakeTokenWorld) -> None:
    scopes = [f"SCOPE_{number:02}_{'X' * 12}" for number in range(21)]
    world = token_world([{"match": "POST /search", "scope": scopes[0]}], world={"scopes": scopes})
    codec = world.build().runtime.codec
    headers = bearer(world.token("USER", *scopes))
    answer = world.check("POST /search", headers)
    assert len(answer.message.SerializeToString()) > MAX_TEMPLATE_BYTES
    request = codec.read(check_request("POST", "/search", headers.items()), DECISION_ID)
    assert request is not None
    codec.write(request, answer.decision)
    assert isinstance(answer.decision, Allow)
    assert isinstance(answer.decision.edits.encoded, EncodedEdits)


# Keys


def written(folder: Path, section: dict[str, Any] | None, routes: Any = ROUTES[:1]) -> Path:
    """Write a configuration, and the keys beside it."""
    data = {"version": 1, "server": {"listen": "127.0.0.1:9001"}, "scopes": ["SEARCH", "CHAT"], "routes": ["routes.yaml"]}
    for name, pem in PEMS.items():
        (folder / name).write_text(pem)
    (folder / "routes.yaml").write_text(yaml.safe_dump({"routes": routes}))
    file = folder / "extauthz.yaml"
    file.write_text(yaml.safe_dump(data | ({"internal_token": section} if section else {})))
    return file


def test_a_rotation_refuses_no_token(make_world: MakeWorld) -> None:
    """Each key is published before it signs and until its last token is over; upstreams keep a key set for a while."""
    steps = [["k1"], ["k1", "k2"], ["k2", "k1"], ["k2"]]
    files = {"k1": "es256-1.pem", "k2": "eddsa-1.pem"}
    sets: list[bytes] = []
    for number, ids in enumerate(steps):
        section = SECTION | {"keys": [{"id": key_id, "file": files[key_id]} for key_id in ids]}
        world = make_world(ROUTES, more_files=PEMS, internal_token=section)
        sets.append(tokens_of(world).key_set)
        answer = world.check("POST /search", bearer(world.token("USER")))
        assert pyjwt.get_unverified_header(answer.headers[HEADER])["kid"] == ids[0]
        for key_set in sets[max(0, number - 1) :]:
            verified(world, answer, key_set=key_set)
    assert [[key["kid"] for key in json.loads(document)["keys"]] for document in sets] == steps


def test_nothing_private_is_published(token_world: MakeTokenWorld) -> None:
    world = token_world(keys=[{"id": "a", "file": "es256-1.pem"}, {"id": "b", "file": "eddsa-1.pem"}])
    published = json.loads(tokens_of(world).key_set)["keys"]
    assert [sorted(key) for key in published] == [
        ["alg", "crv", "kid", "kty", "use", "x", "y"],
        ["alg", "crv", "kid", "kty", "use", "x"],
    ]
    assert {key["use"] for key in published} == {"sig"}, "RFC 7517 4.2"
    assert "PRIVATE" not in repr(tokens_of(world).recipe)


def test_a_reload_keeps_the_signer_until_something_of_it_changes(tmp_path: Path) -> None:
    file = written(tmp_path, SECTION)
    first = internal_tokens_of(load(file), {})
    assert first is not None
    written(tmp_path, SECTION, ROUTES[:3])
    assert internal_tokens_of(load(file), {}, previous=first) is first, "a route is another part"
    assert internal_tokens_of(load(written(tmp_path, SECTION | {"audience": "other"})), {}, previous=first) is first
    seen: list[InternalTokens | None] = [first]
    for change in ({"lifetime": "1m"}, {"issuer": "https://other"}, {"keys": [{"id": "k9", "file": "es256-1.pem"}]}):
        seen.append(internal_tokens_of(load(written(tmp_path, SECTION | change)), {}, previous=first))
    written(tmp_path, SECTION)
    (tmp_path / "es256-1.pem").write_text(PEMS["es256-2.pem"])
    seen.append(internal_tokens_of(load(file), {}, previous=first))
    assert len({id(made) for made in seen}) == 5
    assert internal_tokens_of(load(written(tmp_path, None)), {}, previous=first) is None


def test_another_key_and_another_audience_count_from_the_reload_on(token_world: MakeTokenWorld) -> None:
    world = token_world()
    headers = bearer(world.token("USER"))

    def told() -> tuple[str, str]:
        token = world.check("POST /search", headers).headers[HEADER]
        return pyjwt.get_unverified_header(token)["kid"], pyjwt.decode(token, options={"verify_signature": False})["aud"]

    assert told() == ("k1", AUDIENCE)
    world.reconfigure([*ROUTES, {"match": "GET /more", "scope": "CHAT"}])
    assert (told(), tokens_of(world).signed) == (("k1", AUDIENCE), 1), "what did not change goes on"
    world.reconfigure([ROUTES[0] | {"audience": "own"}])
    assert told() == ("k1", "own")
    keys = [{"id": "k2", "file": "eddsa-1.pem"}, *SECTION["keys"]]
    world.reconfigure(internal_token=SECTION | {"keys": keys})
    assert told() == ("k2", "own")
    world.reconfigure(internal_token=SECTION | {"enabled": False})
    answer = world.check("POST /search", headers)
    assert (answer.allowed, HEADER in answer.headers, HEADER in answer.removed) == (True, False, True)
    world.reconfigure(internal_token=SECTION)
    assert told() == ("k1", "own")


def test_the_listener_of_the_keys_needs_a_restart(tmp_path: Path) -> None:
    configurations = [
        load(written(tmp_path, section))
        for section in (None, SECTION, SECTION | {"jwks": "127.0.0.1:9092"}, SECTION | {"jwks": "127.0.0.1:9093"})
    ]
    off, silent, one, other = configurations
    for before, after, needed in ((off, silent, 0), (silent, off, 0), (silent, one, 1), (one, other, 1), (one, off, 1)):
        assert [problem.path for problem in needing_restart(before, after)] == ["internal_token.jwks"] * needed


def private(key: Any, encryption: Any = None) -> bytes:
    pem: bytes = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption or NoEncryption())
    return pem


P256 = ec.generate_private_key(ec.SECP256R1())


def unknown_curve() -> bytes:
    """Write a key of prime239v3, which no library of ours has."""
    der = P256.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    changed = der.replace(bytes.fromhex("06082a8648ce3d030107"), bytes.fromhex("06082a8648ce3d030106"))
    assert changed != der
    return b"-----BEGIN PRIVATE KEY-----\n" + base64.encodebytes(changed) + b"-----END PRIVATE KEY-----\n"


NO_KEYS: dict[str, bytes] = {
    "empty": b"",
    "text": b"hunter2",
    "half": PEMS["es256-1.pem"].encode()[:100],
    "encrypted": private(P256, BestAvailableEncryption(b"hunter2")),
    "RSA": private(rsa.generate_private_key(public_exponent=65537, key_size=2048)),
    "another curve": private(ec.generate_private_key(ec.SECP384R1())),
    "a curve of nobody": unknown_curve(),
    "DER": P256.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption()),
}


@pytest.mark.parametrize("pem", NO_KEYS.values(), ids=NO_KEYS)
def test_what_is_no_key_is_told_with_its_line(tmp_path: Path, pem: bytes) -> None:
    file = written(tmp_path, SECTION | {"keys": [{"id": "k1", "file": "es256-1.pem"}, {"id": "k2", "file": "bad.pem"}]})
    (tmp_path / "bad.pem").write_bytes(pem)
    with pytest.raises(ConfigurationError) as raised:
        internal_tokens_of(load(file), {})
    (problem,) = raised.value.problems
    assert (problem.path, problem.line > 1) == ("internal_token.keys[1]", True)
    assert "extauthz internal-token new-key" in problem.message
    assert "hunter2" not in str(problem)
    assert "hunter2" not in str(raised.value.__cause__)


def test_keys_that_are_not_there_are_all_told(tmp_path: Path) -> None:
    file = written(tmp_path, SECTION | {"keys": [{"id": "k1", "file": "none.pem"}, {"id": "k2", "env": "INTERNAL_KEY"}]})
    with pytest.raises(ConfigurationError) as raised:
        internal_tokens_of(load(file), {})
    first, second = map(str, raised.value.problems)
    assert "none.pem: No such file or directory; 'extauthz internal-token new-key --file" in first
    assert "the environment variable INTERNAL_KEY is not set" in second


def test_a_key_may_stand_in_the_environment(tmp_path: Path) -> None:
    file = written(tmp_path, SECTION | {"keys": [{"id": "k1", "env": "INTERNAL_KEY"}]})
    made = internal_tokens_of(load(file), {"INTERNAL_KEY": PEMS["es256-1.pem"]})
    assert made is not None
    assert made.recipe.keys == (signing_key("k1", PEMS["es256-1.pem"].encode()),)


def test_an_audience_that_nothing_uses_is_a_warning(tmp_path: Path) -> None:
    for section, count in ((None, 1), (SECTION, 0), (SECTION | {"enabled": False}, 0)):
        warnings = [str(warning) for warning in load(written(tmp_path, section, ROUTES)).warnings]
        assert sum("nothing uses it without internal_token" in warning for warning in warnings) == count


# The commands


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_new_key_is_for_nobody_else_and_never_overwrites(tmp_path: Path, algorithm: str) -> None:
    file = tmp_path / "k1.pem"
    run = CliRunner().invoke(main, ["internal-token", "new-key", "--file", str(file), "--algorithm", algorithm])
    assert run.exit_code == 0, run.output
    assert file.stat().st_mode & 0o777 == 0o600
    assert signing_key("k1", file.read_bytes()).algorithm == algorithm
    assert "PRIVATE" not in run.output
    before = file.read_bytes()
    again = CliRunner().invoke(main, ["internal-token", "new-key", "--file", str(file)])
    assert (again.exit_code, "never overwritten" in again.stderr, file.read_bytes()) == (1, True, before)
    nowhere = CliRunner().invoke(main, ["internal-token", "new-key", "--file", str(tmp_path / "no" / "k1.pem")])
    assert (nowhere.exit_code, "No such file or directory" in nowhere.stderr) == (1, True)


def test_the_key_set_is_printed(tmp_path: Path) -> None:
    file = written(tmp_path, SECTION)
    run = CliRunner().invoke(main, ["internal-token", "jwks", "--config", str(file)])
    made = internal_tokens_of(load(file), {})
    assert made is not None
    assert (run.exit_code, run.stdout.encode().strip()) == (0, made.key_set)
    off = CliRunner().invoke(main, ["internal-token", "jwks", "--config", str(written(tmp_path, None))])
    assert (off.exit_code, "makes no internal tokens" in off.stderr) == (1, True)
    (tmp_path / "es256-1.pem").unlink()
    missing = CliRunner().invoke(
        main, ["internal-token", "jwks", "--config", str(written(tmp_path, SECTION | {"keys": [{"id": "k1", "file": "x"}]}))]
    )
    assert (missing.exit_code, "internal_token.keys[0]" in missing.stderr) == (3, True)


def test_the_settings_are_shown_without_the_places_of_keys(tmp_path: Path) -> None:
    run = CliRunner().invoke(main, ["config", "show", "--config", str(written(tmp_path, SECTION))])
    assert json.loads(run.stdout)["internal_token"]["keys"] == [{"id": "k1"}]


def test_a_token_that_was_signed_again_is_the_last_to_go() -> None:
    key = signing_key("k1", new_key("ES256"))
    tokens = InternalTokens(Recipe("issuer", "x-token", 100.0, (key,), capacity=4), token_ids=lambda: "id")

    def ask(name: str, now: float) -> bool:
        """Ask for a token; tell whether it had to be signed."""
        before = tokens.signed
        identity = Identity(AuthType.USER, f"token:{name}", f"{name}@acme.com", frozenset({"SEARCH"}), NOW + 10_000)
        tokens.header(identity, identity.user, "upstream", NOW + now)
        return tokens.signed > before

    assert [ask("a", 0), ask("b", 40), ask("a", 45), ask("c", 46)] == [True, True, False, True]  # a was used: b is the oldest
    assert ask("a", 51)  # past its half: signed again
    assert [ask("d", 52), ask("e", 53), ask("f", 54)] == [True, True, True]  # b and c go
    assert [ask("a", 55), ask("d", 55), ask("e", 55), ask("f", 55)] == [False, False, False, False]


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_no_key_and_no_token_is_shown(algorithm: str) -> None:
    key = signing_key("k1", new_key(algorithm))
    signed = Signed((HEADER, "aVerySecretToken"), 0.0, 1.0)

    assert repr(key) == f"SigningKey(id='k1', algorithm='{algorithm}')"
    assert repr(signed) == "Signed(since=0.0, until=1.0)"


@pytest.mark.parametrize("pem", NO_KEYS.values(), ids=NO_KEYS)
def test_what_is_no_key_is_refused_with_a_hint(pem: bytes) -> None:
    with pytest.raises(ValueError, match="private key") as refused:
        signing_key("k1", pem)

    assert str(refused.value) == (
        "is not the PEM text of an unencrypted private key for ES256 (P-256) or EdDSA (Ed25519): "
        "make one with 'extauthz internal-token new-key'"
    )


def test_denials_of_the_fence_are_those_of_the_protocol(token_world: MakeTokenWorld) -> None:
    world = token_world()
    codec = SigningCodec(EnvoyCodec(), tokens_of(world), audience=AUDIENCE, audiences={}, clock=world.clock)

    assert codec.fixed(Reason.INTERNAL, DECISION_ID) == EnvoyCodec().fixed(Reason.INTERNAL, DECISION_ID)
