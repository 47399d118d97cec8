"""The process log: one line of JSON for whatever is said, and nothing of what a client sent in confidence."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator

import pytest

from extauthz.adapters.envoy.codec import EnvoyCodec
from extauthz.adapters.process_log import configure
from extauthz.core.credentials import Kind
from extauthz.core.tokens import TokenRecord
from extauthz.service import Authorizer, Runtime
from extauthz.verifiers.issued import IssuedVerifier
from extauthz.verifiers.throttling import Budget
from extauthz.verifiers.verdicts import VerdictCache
from tests.support import fuzz
from tests.support.memory_store import MemoryTokenStore
from tests.support.world import DECISION_ID, PEPPER, World, bearer, check_request

MARKER = fuzz.MARKER


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    routes = [
        {"match": "POST /search", "scope": "SEARCH"},
        {"match": "GET /items/{id}", "scope": "SEARCH", "name": "items"},
        {"match": "GET /open", "public": True},
    ]
    return World(tmp_path_factory.mktemp("world"), routes)


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
        fresh=60.0,
        max_staleness=600.0,
        contact=3.0,
    )
    runtime = Runtime(world.configuration.policy, {Kind.ISSUED: verifier}, EnvoyCodec(), check_timeout=5.0, max_in_flight=10)
    authorizer = Authorizer(runtime, world.recorder, clock=world.clock, decision_ids=lambda: DECISION_ID)
    authorizer.check(check_request("POST", f"/search?q={MARKER}", bearer(token, cookie=MARKER).items()))
    (text,) = process_log.getvalue().splitlines()
    line = json.loads(text)

    assert (line["level"], line["logger"], line["decision_id"]) == ("ERROR", "extauthz.service", DECISION_ID)
    assert line["message"] == "check failed"
    assert line["time"]
    assert "Traceback (most recent call last)" in line["exception"]
    assert "ZeroDivisionError: a fault of ours" in line["exception"]
    assert "in find" in line["exception"]
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
