"""The decision log: what a line holds, what it never holds, which decisions are written, and what Envoy is told of the same."""

from __future__ import annotations

import hashlib
import itertools
import json
import re
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from extauthz.adapters.decision_log import lines as lines_module
from extauthz.adapters.decision_log.lines import MAX_LINE, limit_of
from extauthz.adapters.decision_log.log import DecisionLog
from extauthz.core.credentials import Kind
from extauthz.core.model import Allow, AuthType, Decision, Deny, HeaderEdits, Identity, Reason, Request, WouldDeny
from extauthz.service import Authorizer
from extauthz.telemetry.decision_record import RecordField, record_of
from extauthz.telemetry.traceparent import trace_id
from tests.support import fuzz
from tests.support.project import ROOT
from tests.support.world import DECISION_ID, ISSUER, NOW, World, bearer, check_request, claims, oauth, rsa_key, sign

MARKER = fuzz.MARKER
DOCUMENT = ROOT / "docs" / "decision-log.md"
TRACE_ID = "0af7651916cd43dd8448eb211c80319c"
TRACEPARENT = f"00-{TRACE_ID}-b7ad6b7169203331-01"


class Memory:
    """A place for lines in memory."""

    name = "memory"

    def __init__(self) -> None:
        self.text = ""

    def write(self, lines: Sequence[bytes]) -> int:
        """Take all lines."""
        self.text += b"".join(lines).decode("ascii")
        return len(lines)

    def reopen(self) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""


class Lines:
    """A log that writes to memory."""

    def __init__(self, fields: Collection[str] = tuple(RecordField), sample: Mapping[Reason, float] | None = None) -> None:
        self.sink = Memory()
        self.log = DecisionLog(self.sink, fields=fields, sample=sample, interval=0.001)

    @property
    def text(self) -> str:
        """What was written so far."""
        return self.sink.text

    def read(self) -> list[dict[str, Any]]:
        """End the log and return its lines, each of which must be one line whoever counts them."""
        self.log.close()
        assert self.text.isascii()
        assert self.text.replace("\n", "").isprintable()
        assert self.text.split("\n") == [*self.text.splitlines(), ""]
        return [json.loads(line) for line in self.text.splitlines()]


def decision(reason: Reason, auth_type: AuthType | None = None, *, route: str = "r", kind: Kind = Kind.OAUTH) -> Decision:
    identity = auth_type and Identity(auth_type, "token:one", "ana@acme.com", frozenset({"S"}), NOW, token_id="one")
    if reason in (Reason.ALLOWED, Reason.PUBLIC):
        return Allow(reason, route, HeaderEdits((), ()), identity)
    return Deny(reason, route, identity, kind=kind)


def request(path: str = "/search", method: str = "POST", **headers: str) -> Request:
    return Request(method, path, "api.acme.com", headers, raw=True, decision_id=DECISION_ID, source="203.0.113.7")


@pytest.fixture
def lines() -> Iterator[Lines]:
    opened = Lines()
    yield opened
    opened.log.close()


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    routes = [
        {"match": "POST /search", "scope": "SEARCH"},
        {"match": "GET /items/{id}", "scope": "SEARCH", "name": "items"},
        {"match": "GET /open", "public": True},
    ]
    return World(tmp_path_factory.mktemp("world"), routes)


def logged(world: World, lines: Lines, data: bytes) -> None:
    """Answer a request and write it down."""
    runtime = fuzz.fresh_runtime(world)
    Authorizer(runtime, lines.log, clock=world.clock, decision_ids=lambda: DECISION_ID).check(data)


def test_a_line_tells_who_did_what_and_why(world: World, lines: Lines) -> None:
    token = fuzz.put_token(world, "GLOBAL")
    before = time.time()  # noqa: TID251 - the line has the time of this machine
    logged(world, lines, check_request("GET", "/items/%41?q=1", bearer(token, x_scio_actas="Ana@acme.com").items()))
    (line,) = lines.read()

    assert before - 1 < line.pop("time") < before + 60
    assert line.pop("microseconds") >= 0
    assert line.pop("actor") == f"token:{token.split('_')[1]}"
    assert line == {
        "decision": "allow",
        "reason": "allowed",
        "status": 200,
        "decision_id": DECISION_ID,
        "method": "GET",
        "path": "/items/A",
        "client_address": "203.0.113.7",
        "route": "items",
        "auth_type": "GLOBAL",
        "user": "ana@acme.com",
        "token_id": token.split("_")[1],
    }


def test_what_is_not_known_is_left_out(world: World, lines: Lines) -> None:
    logged(world, lines, check_request("GET", "/none"))
    logged(world, lines, check_request("GET", "/none", source=""))
    logged(world, lines, b"\xff")
    unknown, over_a_socket, unreadable = lines.read()

    always = {"time", "decision", "reason", "status", "decision_id", "microseconds"}
    assert set(unknown) == {*always, "method", "path", "client_address"}
    assert unreadable["reason"] == "request_malformed"
    assert set(over_a_socket) == {*always, "method", "path"}
    assert set(unreadable) <= always


# The id that the client was told must be in a line, also when the request could not be read.
def test_an_unreadable_request_is_found_by_the_id_that_the_client_was_told(world: World, lines: Lines) -> None:
    logged(world, lines, b"\xff")
    (line,) = lines.read()

    assert line.get("decision_id") == DECISION_ID


def test_no_token_query_or_header_value_is_written_down(world: World, lines: Lines) -> None:
    token = fuzz.put_token(world)
    jwt = sign(claims())
    headers = {"cookie": MARKER, "x-a": MARKER, "content-type": MARKER, "user-agent": MARKER, "host": MARKER}
    credentials: list[dict[str, str | bytes]] = [
        bearer(token),
        bearer(f"glean_{MARKER}"),
        oauth(jwt),
        oauth(f"{jwt}{MARKER}"),
        bearer(MARKER, x_glean_auth_type=MARKER),
        bearer(MARKER, x_scio_actas=MARKER),
        bearer(token, x_scio_actas=MARKER),
        {"authorization": f"Basic {MARKER}"},
        {"authorization": MARKER},
        {"authorization": f"Bearer {MARKER} {MARKER}"},
        {},
    ]
    paths = ["/search", f"/search?q={MARKER}", f"/search?access_token={MARKER}", f"/search?{MARKER}#{MARKER}", f"/open?a={MARKER}"]
    count = 0
    for credential, path, form in itertools.product(credentials, paths, ("raw", "map")):
        logged(world, lines, check_request("POST", path, {**headers, **credential}.items(), form=form, host=f"{MARKER}.example"))
        count += 1
    found = lines.read()

    assert len(found) == count
    text = lines.text
    for secret in (MARKER, token, jwt, token.split("_")[2], jwt.split(".")[1]):
        assert secret not in text
    assert {"allowed", "authorization_malformed", "token_malformed", "auth_type_unknown"} <= {line["reason"] for line in found}


# A path that is refused is written down without its fragment: implicit grants put tokens there.
@pytest.mark.parametrize("path", ["/#access_token={}", "/search#{}", "/search#{}?q=1", "/a b#{}"])
def test_a_fragment_is_not_written_down(world: World, lines: Lines, path: str) -> None:
    logged(world, lines, check_request("GET", path.format(MARKER)))
    (line,) = lines.read()

    assert line["reason"] == "path_malformed"
    assert MARKER not in lines.text


HOSTILE = [
    '/a"}\n{"decision": "allow", "user": "root"}',
    "/a\r\nb",
    "/a\x00\x1b[2J\x1b[31m",
    "/a\x85b\x0b\x0c\x1c",
    "/%0a%0d",
    "/\u00e2\u0080\u00a8",
    "/%E2%80%A8",
    "/\\u000a\\",
    "/" + "a" * 100_000,
    "no slash\n",
]


@pytest.mark.parametrize("path", HOSTILE, ids=lambda path: ascii(path)[:20])
@pytest.mark.parametrize("method", ["GET", 'G"\n{', "\x1b[0m", "\x85\xe2\x80\xa8", "M" * 10_000])
def test_nobody_writes_lines_of_his_own(world: World, lines: Lines, path: str, method: str) -> None:
    logged(world, lines, check_request(method, path))
    (line,) = lines.read()

    assert line["decision"] == "deny"
    assert "user" not in line
    assert len(lines.text) <= MAX_LINE


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_any_request_is_one_line(world: World, data: st.DataObject) -> None:
    lines = Lines()
    for _ in range(3):
        logged(world, lines, data.draw(fuzz.check_requests(paths=("/search?q=1", "/open", "/items/1"))).data)
    found = lines.read()

    assert len(found) == 3
    for line in found:
        assert line.keys() <= set(RecordField)
        assert Reason(line["reason"]).status == line["status"]


REFUSED_TOKENS = {
    "another issuer": (sign(claims(iss="https://evil.example")), "https://evil.example", "rsa-1"),
    "expired": (sign(claims(exp=NOW)), ISSUER, "rsa-1"),
    "forged": (sign(claims(), key=rsa_key("other")), ISSUER, "rsa-1"),
    "no key id": (sign(claims(), header={"kid": None}), ISSUER, None),
    "a key id that is a list": (sign(claims(), header={"kid": ["rsa-1"]}), ISSUER, None),
    "a long issuer": (sign(claims(iss="https://" + "i" * 1000)), ("https://" + "i" * 1000)[:256], "rsa-1"),
    "a payload that is none": ("a.b.c", None, None),
    "opaque": ("ya29.A0ARrda_secret", None, None),
    "huge": (sign(claims(iss="https://" + "i" * 5000)), None, None),
    "the text of an issued token": ("glean_000000000000_" + "s" * 49, None, None),
}


@pytest.mark.parametrize("name", REFUSED_TOKENS)
def test_a_refused_access_token_is_named_and_not_shown(world: World, lines: Lines, name: str) -> None:
    token, issuer, key_id = REFUSED_TOKENS[name]
    logged(world, lines, check_request("POST", "/search", oauth(token).items()))
    (line,) = lines.read()

    assert line["status"] == 401
    assert (line["token_sha256"], line.get("token_issuer"), line.get("token_key_id")) == (
        hashlib.sha256(token.encode()).hexdigest()[:8],
        issuer,
        key_id,
    )
    assert [part for part in token.split(".") if len(part) >= 8 and part in lines.text] == []


@pytest.mark.parametrize(
    "headers",
    [oauth(sign(claims())), bearer("glean_000000000000_" + "s" * 49), {"x-glean-auth-type": "OAUTH"}, {}],
    ids=["accepted", "issued", "no token", "nothing"],
)
def test_of_other_requests_no_token_is_told(world: World, lines: Lines, headers: dict[str, str | bytes]) -> None:
    logged(world, lines, check_request("POST", "/search", headers.items()))
    (line,) = lines.read()
    assert line.keys().isdisjoint({"token_sha256", "token_issuer", "token_key_id"})


# --- request id and trace id


@pytest.mark.parametrize(
    ("sent", "told"),
    [
        ("4f1c7e6a-6f5b-4d5e-8d3e-0123456789ab", "4f1c7e6a-6f5b-4d5e-8d3e-0123456789ab"),
        ('a"b\\c', 'a"b\\c'),
        ("i" * 5000, "i" * 128),
        ("", None),
        ("two words", None),
        ("caf\u00e9", None),
        ("a\x7f", None),
        ("a\tb", None),
    ],
    ids=lambda text: ascii(text)[:20],
)
def test_a_request_id_is_printable_and_bounded(lines: Lines, sent: str, told: str | None) -> None:
    lines.log.record(request(**{"x-request-id": sent}), decision(Reason.ALLOWED), 0.0)
    (line,) = lines.read()
    assert line.get("request_id") == told


@pytest.mark.parametrize(
    ("traceparent", "told"),
    [
        (TRACEPARENT, TRACE_ID),
        (f"01-{TRACE_ID}-b7ad6b7169203331-01", TRACE_ID),
        (f"01-{TRACE_ID}-b7ad6b7169203331-01-what comes later", TRACE_ID),
        (f"01-{TRACE_ID}-b7ad6b7169203331-01what", None),
        (f"{TRACEPARENT}-more", None),
        (f"{TRACEPARENT},{TRACEPARENT}", None),
        (TRACEPARENT.upper(), None),
        (f"ff-{TRACE_ID}-b7ad6b7169203331-01", None),
        (f"00-{'0' * 32}-b7ad6b7169203331-01", None),
        (f"00-{TRACE_ID}-{'0' * 16}-01", None),
        (f"00-{TRACE_ID[1:]}-b7ad6b7169203331-01", None),
        (f" {TRACEPARENT}", None),
        (f"{TRACEPARENT}\n", None),
        ("", None),
    ],
    ids=itertools.count(),
)
def test_a_trace_id_is_that_of_a_valid_traceparent(lines: Lines, traceparent: str, told: str | None) -> None:
    assert trace_id(traceparent) == told
    lines.log.record(request(traceparent=traceparent), decision(Reason.ALLOWED), 0.0)
    (line,) = lines.read()
    assert line.get("trace_id") == told


def test_both_come_through_a_check(world: World, lines: Lines) -> None:
    sent = {"x-request-id": "abc", "traceparent": TRACEPARENT}
    logged(world, lines, check_request("GET", "/none", sent.items()))
    (line,) = lines.read()
    assert (line["request_id"], line["trace_id"]) == ("abc", TRACE_ID)


# --- fields


def test_only_the_fields_that_are_listed_are_written() -> None:
    for field in RecordField:
        lines = Lines({field, "reason"})
        headers = {**oauth(sign(claims(exp=NOW))), "x-request-id": "abc", "traceparent": TRACEPARENT}
        asked = request("/search?q=1", **{name: str(value) for name, value in headers.items()})
        lines.log.record(asked, decision(Reason.TOKEN_EXPIRED, AuthType.USER), 0.0)
        (line,) = lines.read()
        assert line.keys() <= {field, "reason"}
        if field not in ("client_id", "user", "sample", "required_scopes", "held_scopes", "nearest_route"):
            assert field in line


def test_what_is_not_written_does_not_wait_either() -> None:
    log = DecisionLog(Memory(), fields=["time", "reason"], interval=60)
    headers = {**oauth(f"{MARKER}.{MARKER}.c"), "x-request-id": MARKER, "traceparent": MARKER}
    asked = Request(MARKER, f"/{MARKER}", "h", {name: str(value) for name, value in headers.items()}, raw=True, decision_id="d")
    log.record(asked, decision(Reason.TOKEN_MALFORMED), 0.0)
    assert MARKER not in repr(list(log._waiting))
    log.close()


def test_what_waits_holds_no_headers_and_no_query() -> None:
    log = DecisionLog(Memory(), interval=60)
    long = {"authorization": "Bearer " + "t" * 100_000, "x-request-id": "i" * 100_000, "traceparent": "0" * 100_000}
    asked = Request("GET", "/a?" + "q" * 100_000, "h", long, raw=True, decision_id="d")
    log.record(asked, decision(Reason.ALLOWED), 0.0)
    assert len(repr(list(log._waiting))) < 2000
    asked = Request("GET", f"/a?{MARKER}", "h", {"x-a": MARKER}, raw=True, decision_id="d")
    log.record(asked, decision(Reason.ALLOWED), 0.0)
    assert MARKER not in repr(list(log._waiting))
    log.close()


# Whatever a subject and a route are called, several processes can write the line into one pipe.
@settings(max_examples=50, deadline=None)
@given(
    texts=st.lists(st.text(st.characters(exclude_categories=["Cs"])).map(lambda text: text * 600), min_size=6, max_size=6),
    reason=st.sampled_from(Reason),
)
def test_a_line_fits_into_a_pipe(texts: list[str], reason: Reason) -> None:
    path, method, request_id, actor, user, client = texts
    identity = Identity(AuthType.OAUTH, f"oauth:okta:{actor}", user, frozenset(), NOW, client)
    headers = {"x-request-id": request_id, "traceparent": TRACEPARENT}
    asked = Request(method, path, "h", headers, raw=True, decision_id=DECISION_ID)
    line = lines_module.Lines(RecordField, {}).line(NOW, asked, Deny(reason, "r" * 200, identity, user), 0.1)
    assert len(line) <= MAX_LINE
    assert line.isascii()
    assert line.count(b"\n") == 1
    found = json.loads(line)
    assert (found["decision_id"], found["reason"], found["trace_id"]) == (DECISION_ID, reason, TRACE_ID)


TOKEN = sign(claims())
short = st.text(max_size=40) | st.sampled_from(["/search", "/a%2Fb?c=d", "/a#b", "GET", "", "x" * 33, "y" * 129, "z" * 600, '"\\'])


@settings(deadline=None)
@given(
    texts=st.lists(short, min_size=6, max_size=6),
    traceparent=st.sampled_from(["", TRACEPARENT, f"cc{TRACEPARENT[2:]}-more", "00-nothing"]),
    decided=st.builds(decision, st.sampled_from(Reason), st.none() | st.sampled_from(AuthType)),
    fields=st.sets(st.sampled_from(RecordField)),
    moment=st.floats(0, 2**40),
    share=st.sampled_from([1.0, 0.01]),
)
def test_the_line_of_a_common_request_is_the_one_of_any_request(
    texts: list[str], traceparent: str, decided: Decision, fields: set[str], moment: float, share: float
) -> None:
    path, method, request_id, source, decision_id, _ = texts
    headers = {"x-request-id": request_id, "traceparent": traceparent, **oauth(TOKEN)}
    asked = Request(method, path, "h", headers, raw=True, decision_id=decision_id.encode("ascii", "ignore").hex(), source=source)
    lines = lines_module.Lines(fields, {reason: share for reason in Reason if share < 1})
    expected = json.loads(lines._uncommon_line(moment, asked, decided, 12.3e-6))
    for _ in range(2):
        line = lines.line(moment, asked, decided, 12.3e-6)
        assert json.loads(line) == expected
        assert list(json.loads(line)) == list(expected)
        assert line.count(b"\n") == 1


def test_a_common_request_takes_the_short_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """The other one takes four times as long, and this runs in every check."""
    lines = lines_module.Lines(RecordField, {Reason.ALLOWED: 0.5})
    monkeypatch.setattr(lines, "_uncommon_line", None)
    headers = {"x-request-id": "7bca5c86-bf55-432c-b212-8c0f1dc999ec", "traceparent": TRACEPARENT}
    for reason in (Reason.ALLOWED, Reason.PUBLIC, Reason.SCOPE_MISSING, Reason.ROUTE_UNKNOWN, Reason.CREDENTIAL_MISSING):
        asked = request("/a" * (lines_module.ORDINARY // 2 - 60) + "?query", **headers)
        assert json.loads(lines.line(NOW, asked, decision(reason, AuthType.OAUTH), 0.0))["reason"] == reason


# --- samples


def test_a_share_of_the_ids_is_below_its_limit() -> None:
    """Exactly: of all first bytes of an id, and for every share that 256 divides."""
    ids = [f"{byte:02x}" + "0" * 30 for byte in range(256)]
    for count in range(257):
        assert sum(found < limit_of(count / 256) for found in ids) == count


@given(smaller=st.floats(0, 1), larger=st.floats(0, 1), drawn=st.integers(0, 2**128 - 1))
def test_a_sample_is_part_of_every_larger_one(smaller: float, larger: float, drawn: int) -> None:
    smaller, larger = sorted((smaller, larger))
    decision_id = f"{drawn:032x}"
    assert (decision_id < limit_of(smaller)) <= (decision_id < limit_of(larger))
    assert decision_id < limit_of(1)
    assert not decision_id < limit_of(0)
    # To the precision of a float.
    if abs(drawn / 2**128 - smaller) > 1e-15:
        assert (decision_id < limit_of(smaller)) == (drawn / 2**128 < smaller)


def test_a_reason_is_sampled_and_the_line_tells_the_share() -> None:
    lines = Lines(sample={Reason.ALLOWED: 0.25, Reason.PUBLIC: 0, Reason.SCOPE_MISSING: 1})
    for reason in (Reason.ALLOWED, Reason.PUBLIC, Reason.SCOPE_MISSING, Reason.TOKEN_EXPIRED):
        for number in range(16):
            asked = Request("GET", "/a", "h", {}, raw=True, decision_id=f"{number:x}" + "8" * 31)
            lines.log.record(asked, decision(reason), 0.0)
    found = lines.read()

    assert [line["decision_id"][0] for line in found if line["reason"] == "allowed"] == ["0", "1", "2", "3"]
    assert {line["reason"] for line in found if "sample" in line} == {"allowed"}
    assert {line["sample"] for line in found if line["reason"] == "allowed"} == {0.25}
    assert [line["reason"] for line in found[4:]] == ["scope_missing"] * 16 + ["token_expired"] * 16
    assert lines.log.written == 36
    assert lines.log.dropped == 0, "what is not in the sample was not to be written"


# --- Envoy's dynamic metadata, and the document


DECISIONS: list[Decision] = [
    Allow(
        Reason.ALLOWED,
        "r",
        HeaderEdits((), ()),
        Identity(AuthType.OAUTH, "oauth:okta:00u1", "ana@acme.com", frozenset({"S"}), NOW, "0oa1"),
        "ana@acme.com",
    ),
    Allow(
        Reason.ALLOWED,
        "r",
        HeaderEdits((), ()),
        Identity(AuthType.GLOBAL, "token:abc", None, frozenset(), NOW, token_id="abc"),
        "bob@acme.com",
    ),
    Deny(Reason.ANONYMOUS_NOT_ALLOWED, "r", Identity(AuthType.ANONYMOUS, "token:abc", None, frozenset(), NOW, token_id="abc")),
    Deny(Reason.ROUTE_UNKNOWN),
    Deny(
        Reason.SCOPE_MISSING,
        "r",
        Identity(AuthType.USER, "token:abc", "ana@acme.com", frozenset({"S", "R"}), NOW, token_id="abc"),
        "ana@acme.com",
        ("CHAT", "SEARCH"),
    ),
    WouldDeny(
        Reason.SCOPE_MISSING,
        "r",
        HeaderEdits((), ()),
        Identity(AuthType.USER, "token:abc", "ana@acme.com", frozenset({"S", "R"}), NOW, token_id="abc"),
        "ana@acme.com",
        ("CHAT", "SEARCH"),
    ),
]


@pytest.mark.parametrize("decided", DECISIONS, ids=["oauth", "issued", "denied", "unknown", "scope", "monitored"])
def test_envoy_is_told_the_same_as_the_log(world: World, lines: Lines, decided: Decision) -> None:
    lines.log.record(request(), decided, 0.0)
    (line,) = lines.read()
    from extauthz._pb import ext_authz_pb2 as pb
    from extauthz.adapters.envoy.codec import EnvoyCodec

    message = pb.CheckResponse.FromString(EnvoyCodec().write(request(), decided))
    told = {name: value.string_value or value.number_value for name, value in message.dynamic_metadata.fields.items()}
    assert told == {name: line[name] for name in RecordField if name in line and name.in_metadata}
    assert set(record_of(decided)) == told.keys() - {"decision_id"}


def test_all_fields_are_seen_here() -> None:
    """Together, so that the test above leaves none out."""
    told = {name for decided in DECISIONS for name in record_of(decided)} | {"decision_id"}
    assert told == {field for field in RecordField if field.in_metadata}


def test_every_field_is_documented_and_every_documented_field_is_one() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (.+) \| (yes|no) \|$", DOCUMENT.read_text(encoding="utf-8"), re.MULTILINE)
    assert rows == [(field.value, field.meaning, "yes" if field.in_metadata else "no") for field in RecordField]


def test_every_field_is_written() -> None:
    """A field of the table that no line could hold would be a promise that is not kept."""
    written: set[str] = set()
    for reason in (Reason.ALLOWED, Reason.TOKEN_EXPIRED, Reason.SCOPE_MISSING):
        lines = Lines(sample={reason: 0.999})
        headers = {**oauth(sign(claims(exp=NOW))), "x-request-id": "abc", "traceparent": TRACEPARENT}
        for decided in {
            Reason.ALLOWED: DECISIONS[:2],
            Reason.TOKEN_EXPIRED: [decision(reason)],
            Reason.SCOPE_MISSING: [each for each in DECISIONS if each.reason is Reason.SCOPE_MISSING],
        }[reason]:
            lines.log.record(request(**{name: str(value) for name, value in headers.items()}), decided, 0.1)
        (*_, line) = found = lines.read()
        assert list(line) == [field for field in RecordField if field in line], "in the order of the table"
        written.update(*found)
    assert written == set(RecordField) - {RecordField.NEAREST_ROUTE}, "which needs routes"


# --- faults of ours


def test_a_line_that_cannot_be_rendered_is_counted_and_told_once(caplog: pytest.LogCaptureFixture) -> None:
    lines = Lines()
    broken = Deny(Reason.ROUTE_UNKNOWN, "r", Identity(AuthType.USER, None, None, frozenset(), NOW))  # type: ignore[arg-type]
    for decided in (broken, decision(Reason.ALLOWED), broken, broken, decision(Reason.PUBLIC)):
        lines.log.record(request(), decided, 0.0)
    assert [line["reason"] for line in lines.read()] == ["allowed", "public"]
    assert (lines.log.written, lines.log.dropped) == (2, 3)
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    assert caplog.records[0].exc_info


def test_what_is_recorded_before_the_end_is_written_and_later_ones_are_counted() -> None:
    sink = Memory()
    log = DecisionLog(sink, interval=60)
    for number in range(1000):
        log.record(request(f"/{number}"), decision(Reason.ROUTE_UNKNOWN), 0.0)
    assert sink.text == ""
    log.close()
    assert len(sink.text.splitlines()) == log.written == 1000
    assert log.dropped == 0
    log.record(request(), decision(Reason.ALLOWED), 0.0)
    log.close()
    assert (log.written, log.dropped) == (1000, 1)


def test_more_than_can_wait_is_dropped_oldest_first() -> None:
    sink = Memory()
    log = DecisionLog(sink, capacity=100, interval=60)
    for number in range(250):
        log.record(request(f"/{number}"), decision(Reason.ROUTE_UNKNOWN), 0.0)
    assert log.dropped == 150
    log.close()
    assert [json.loads(line)["path"] for line in sink.text.splitlines()] == [f"/{number}" for number in range(150, 250)]
