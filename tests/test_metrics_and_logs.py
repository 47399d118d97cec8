"""What is counted and written down of a decision: enough to find it again, and nothing of what the client sent in confidence."""

from __future__ import annotations

import errno
import hashlib
import io
import itertools
import json
import logging
import os
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import IO, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from extauthz.adapters.envoy import EnvoyCodec
from extauthz.adapters.logs import DecisionLog, configure
from extauthz.adapters.store.memory import MemoryTokenStore
from extauthz.adapters.verdicts import VerdictCache
from extauthz.budgets import Budget
from extauthz.core.credentials import Kind
from extauthz.core.model import Allow, AuthType, Decision, Deny, HeaderEdits, Identity, Reason, Request
from extauthz.core.tokens import TokenRecord
from extauthz.issued_verifier import IssuedVerifier
from extauthz.service import Authorizer, Runtime
from tests.support import fuzz
from tests.support.world import DECISION_ID, ISSUER, NOW, PEPPER, World, bearer, check_request, claims, oauth, rsa_key, sign

MARKER = fuzz.MARKER
ALLOWING = {Reason.ALLOWED, Reason.PUBLIC}


def decision(reason: Reason, auth_type: AuthType | None = None, *, route: str = "r") -> Decision:
    identity = auth_type and Identity(auth_type, "token:one", "ana@acme.com", frozenset({"S"}), NOW)
    if reason in ALLOWING:
        return Allow(reason, route, HeaderEdits((), ()), identity)
    return Deny(reason, route, identity)


def request(path: str = "/search", method: str = "POST", **headers: str) -> Request:
    return Request(method, path, "api.acme.com", headers, raw=True, decision_id=DECISION_ID)


# --- the decision log


class Lines:
    """A stream in memory with a log that writes to it."""

    def __init__(self) -> None:
        self.stream = io.StringIO()
        self.log = DecisionLog(self.stream, interval=0.001)

    def read(self) -> list[dict[str, Any]]:
        """End the log and return its lines, each of which must be one line whoever counts them."""
        self.log.close()
        text = self.stream.getvalue()
        assert text.isascii()
        assert text.isprintable() or all(character.isprintable() or character == "\n" for character in text)
        assert text.split("\n") == [*text.splitlines(), ""]
        return [json.loads(line) for line in text.splitlines()]


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
        "route": "items",
        "auth_type": "GLOBAL",
        "user": "ana@acme.com",
    }


def test_what_is_not_known_is_left_out(world: World, lines: Lines) -> None:
    logged(world, lines, check_request("GET", "/none"))
    logged(world, lines, b"\xff")
    unknown, unreadable = lines.read()

    assert set(unknown) == {"time", "decision", "reason", "status", "decision_id", "method", "path", "microseconds"}
    assert unreadable["reason"] == "request_malformed"
    assert set(unreadable) <= {"time", "decision", "reason", "status", "decision_id", "microseconds"}


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
    text = lines.stream.getvalue()
    for secret in (MARKER, token, jwt, token.split("_")[2], jwt.split(".")[1]):
        assert secret not in text
    assert {"allowed", "authorization_malformed", "token_malformed", "auth_type_unknown"} <= {line["reason"] for line in found}


# A path that is refused is written down without its fragment: implicit grants put tokens there.
@pytest.mark.parametrize("path", ["/#access_token={}", "/search#{}", "/search#{}?q=1", "/a b#{}"])
def test_a_fragment_is_not_written_down(world: World, lines: Lines, path: str) -> None:
    logged(world, lines, check_request("GET", path.format(MARKER)))
    (line,) = lines.read()

    assert line["reason"] == "path_malformed"
    assert MARKER not in lines.stream.getvalue()


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
    assert len(lines.stream.getvalue()) < 8192


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_any_request_is_one_line(world: World, data: st.DataObject) -> None:
    lines = Lines()
    for _ in range(3):
        logged(world, lines, data.draw(fuzz.check_requests(paths=("/search?q=1", "/open", "/items/1"))).data)
    found = lines.read()

    assert len(found) == 3
    for line in found:
        assert line.keys() <= {
            *("time", "decision", "reason", "status", "decision_id", "method", "path", "route"),
            *("auth_type", "actor", "user", "microseconds", "token_sha256", "token_issuer", "token_key_id"),
        }
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
    for part in token.split("."):
        assert len(part) < 8 or part not in lines.stream.getvalue()


@pytest.mark.parametrize(
    "headers",
    [oauth(sign(claims())), bearer("glean_000000000000_" + "s" * 49), {"x-glean-auth-type": "OAUTH"}, {}],
    ids=["accepted", "issued", "no token", "nothing"],
)
def test_of_other_requests_no_token_is_told(world: World, lines: Lines, headers: dict[str, str | bytes]) -> None:
    logged(world, lines, check_request("POST", "/search", headers.items()))
    (line,) = lines.read()
    assert not any(name.startswith("token_") for name in line)


class Pipe:
    """A pipe that nobody reads until a test does."""

    def __init__(self) -> None:
        self.reading, writing = os.pipe()
        self.stream: IO[str] = os.fdopen(writing, "w")
        self.text = b""

    def drain(self) -> threading.Thread:
        """Read everything in a thread of its own, until the other end is closed."""

        def read() -> None:
            while chunk := os.read(self.reading, 65536):
                self.text += chunk

        thread = threading.Thread(target=read)
        thread.start()
        return thread


def test_a_reader_that_stalls_costs_lines_and_nothing_else() -> None:
    """All that was recorded is written or counted as dropped; the newest lines survive."""
    pipe = Pipe()
    log = DecisionLog(pipe.stream, capacity=100, interval=0.001)
    count = 20_000
    started = time.monotonic()
    for number in range(count):
        log.record(request(f"/{number}"), decision(Reason.ROUTE_UNKNOWN), 0.0)
        if number % 2000 == 0:
            time.sleep(0.005)
    assert time.monotonic() - started < 5, "recording does not wait for the reader"
    assert log.dropped > 0
    reader = pipe.drain()
    log.close()
    pipe.stream.close()
    reader.join(timeout=5)
    os.close(pipe.reading)
    written = [json.loads(line) for line in pipe.text.splitlines()]

    assert len(written) + log.dropped == count
    assert [line["path"] for line in written[-100:]] == [f"/{number}" for number in range(count - 100, count)]


def test_closing_does_not_wait_for_a_reader_that_stalls() -> None:
    pipe = Pipe()
    log = DecisionLog(pipe.stream, interval=0.001)
    for number in range(5000):
        log.record(request(f"/{number}"), decision(Reason.ROUTE_UNKNOWN), 0.0)
    time.sleep(0.05)
    started = time.monotonic()
    log.close()
    took = time.monotonic() - started
    reader = pipe.drain()
    log.close()
    pipe.stream.close()
    reader.join(timeout=5)
    os.close(pipe.reading)

    assert took < 3


def test_a_reader_that_is_gone_raises_nothing() -> None:
    pipe = Pipe()
    os.close(pipe.reading)
    log = DecisionLog(pipe.stream, capacity=50, interval=0.001)
    for number in range(500):
        log.record(request(f"/{number}"), decision(Reason.ROUTE_UNKNOWN), 0.0)
    time.sleep(0.05)
    for number in range(500):
        log.record(request(f"/{number}"), decision(Reason.ROUTE_UNKNOWN), 0.0)
    log.close()
    with suppress(BrokenPipeError):
        pipe.stream.close()

    assert log.dropped >= 450


def test_a_closed_stream_raises_nothing() -> None:
    stream = io.StringIO()
    log = DecisionLog(stream, capacity=50, interval=0.001)
    stream.close()
    for _ in range(200):
        log.record(request(), decision(Reason.ALLOWED), 0.0)
    time.sleep(0.02)
    log.record(request(), decision(Reason.ALLOWED), 0.0)
    log.close()
    log.close()


class FullDisk(io.StringIO):
    """A stream that has no room for a while."""

    full = True

    def write(self, text: str) -> int:
        if self.full:
            raise OSError(errno.ENOSPC, "No space left on device")
        return super().write(text)


def test_a_disk_that_was_full_is_written_to_again(caplog: pytest.LogCaptureFixture) -> None:
    stream = FullDisk()
    log = DecisionLog(stream, interval=0.001)
    log.record(request(), decision(Reason.ALLOWED), 0.0)
    deadline = time.monotonic() + 5
    while not log.dropped and time.monotonic() < deadline:
        time.sleep(0.005)
    stream.full = False
    log.record(request(), decision(Reason.ALLOWED), 0.0)
    log.close()

    assert log.dropped == 1
    assert len(stream.getvalue().splitlines()) == 1
    assert "decision log not written" in caplog.text


def test_what_waits_holds_no_headers_and_no_query() -> None:
    log = DecisionLog(io.StringIO(), interval=60)
    asked = Request("GET", "/a?" + "q" * 100_000, "h", {"authorization": "Bearer " + "t" * 100_000}, raw=True, decision_id="d")
    log.record(asked, decision(Reason.ALLOWED), 0.0)

    assert len(repr(list(log._lines))) < 2000
    log.close()


def test_what_is_recorded_before_the_end_is_written() -> None:
    stream = io.StringIO()
    log = DecisionLog(stream, interval=60)
    for number in range(1000):
        log.record(request(f"/{number}"), decision(Reason.ROUTE_UNKNOWN), 0.0)
    assert stream.getvalue() == ""
    log.close()

    assert len(stream.getvalue().splitlines()) == 1000
    assert log.dropped == 0


# --- the process log


@pytest.fixture
def process_log() -> Iterator[io.StringIO]:
    """A configured process log; the test run gets its own logging back."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    names = ("httpx2", "httpcore2", "alembic", "uvicorn", "asyncio", "grpc")
    levels = {name: logging.getLogger(name).level for name in names}
    stream = io.StringIO()
    configure(stream)
    yield stream
    root.handlers[:] = handlers
    root.setLevel(level)
    for name, old in levels.items():
        logging.getLogger(name).setLevel(old)


class BrokenStore(MemoryTokenStore):
    """A store with a fault of its own."""

    def find(self, token_id: str) -> TokenRecord | None:
        raise ZeroDivisionError("a fault of ours")


def test_a_fault_is_one_line_with_traceback_and_decision_but_no_token(world: World, process_log: io.StringIO) -> None:
    token = fuzz.put_token(world)
    verdicts = VerdictCache(Kind.ISSUED, bytes(32), lifetime=60.0, clock=world.clock)
    verifier = IssuedVerifier(
        BrokenStore(),
        verdicts,
        world.feed,
        peppers={"p1": PEPPER},
        prefixes=frozenset({"glean"}),
        clock=world.clock,
        budget=Budget(100, clock=world.clock),
    )
    runtime = Runtime(world.configuration.policy, {Kind.ISSUED: verifier}, EnvoyCodec())
    authorizer = Authorizer(runtime, world.recorder, clock=world.clock, decision_ids=lambda: DECISION_ID)
    authorizer.check(check_request("POST", f"/search?q={MARKER}", bearer(token, cookie=MARKER).items()))
    (text,) = process_log.getvalue().splitlines()
    line = json.loads(text)

    assert (line["level"], line["logger"], line["decision_id"]) == ("ERROR", "extauthz.service", DECISION_ID)
    assert line["message"] == "check failed"
    assert line["time"]
    assert "Traceback (most recent call last)" in line["exc_info"]
    assert "ZeroDivisionError: a fault of ours" in line["exc_info"]
    assert "in find" in line["exc_info"]
    for secret in (token, token.split("_")[2], MARKER):
        assert secret not in text


def test_a_process_line_is_one_line(process_log: io.StringIO) -> None:
    log = logging.getLogger("extauthz.test")
    log.info('two\nlines "}\r\n{%s}', "\x1b[31m\u2028", extra={"cause": "a\nb", "keys": ["k\n1"], "odd": object(), "none": None})
    log.debug("not for this log")
    (text,) = process_log.getvalue().splitlines()
    line = json.loads(text)

    assert text.isascii()
    assert (line["level"], line["logger"]) == ("INFO", "extauthz.test")
    assert line["message"] == 'two\nlines "}\r\n{\x1b[31m\u2028}'
    assert (line["cause"], line["keys"], line["none"]) == ("a\nb", ["k\n1"], None)


def test_libraries_say_only_what_is_wrong(process_log: io.StringIO) -> None:
    for name in ("httpx2", "httpcore2.connection", "alembic.runtime", "uvicorn.error", "asyncio", "grpc._cython"):
        logging.getLogger(name).info("chatter")
        logging.getLogger(name).warning("trouble")
    found = [json.loads(line) for line in process_log.getvalue().splitlines()]

    assert [line["message"] for line in found] == ["trouble"] * 6


def test_configuring_twice_writes_once(process_log: io.StringIO) -> None:
    second = io.StringIO()
    configure(second)
    logging.getLogger("extauthz").warning("once")

    assert process_log.getvalue() == ""
    assert len(second.getvalue().splitlines()) == 1
