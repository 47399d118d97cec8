"""Benchmarks and soak stop at an answer that is not the expected one: each part of them that asks is given a wrong one."""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import os
import threading
from collections.abc import Iterator
from concurrent import futures
from pathlib import Path

import grpc
import pytest

from benchmarks import bench, cold, flood, growth, load, soak, start, threads, under_load
from benchmarks.answers import Judge, WrongAnswer, allowed, exactly, judge_all, judge_h2load, refused
from benchmarks.load import LoadRequest
from benchmarks.transport import USER
from tests.support.world import World, bearer, check_request, claims, oauth, sign

ROUTES = [{"match": "POST /rest/api/v1/search", "scope": "SEARCH", "anonymous": True}, {"match": "POST /chat", "scope": "CHAT"}]


def answers_of(folder: Path, *, monitor: bool = False) -> dict[str, bytes]:
    """Return genuine answers of an authorizer, by what they are."""
    world = World(folder, ROUTES, {"mode": "monitor"} if monitor else {})
    issued = world.token("GLOBAL", "SEARCH")
    requests = {
        "ana": ("/rest/api/v1/search", bearer(issued, x_scio_actas=USER)),
        "bob": ("/rest/api/v1/search", bearer(issued, x_scio_actas="bob@acme.com")),
        "nobody": ("/rest/api/v1/search", bearer(world.token("ANONYMOUS", "SEARCH"))),
        "expired": ("/rest/api/v1/search", oauth(sign(claims(exp=1)))),
        "no token": ("/rest/api/v1/search", {}),
        "scope": ("/chat", bearer(issued, x_scio_actas=USER)),
    }
    sent = {name: check_request("POST", path, headers.items()) for name, (path, headers) in requests.items()}
    return {name: world.check_bytes(data).message.SerializeToString() for name, data in sent.items()}


@pytest.fixture(scope="module")
def genuine(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Answers to judge."""
    monitored = answers_of(tmp_path_factory.mktemp("monitor"), monitor=True)
    return answers_of(tmp_path_factory.mktemp("world")) | {"let through by monitor mode": monitored["expired"]}


@pytest.mark.parametrize(
    ("judge", "right"),
    [
        (allowed(USER), {"ana"}),
        (allowed("bob@acme.com"), {"bob"}),
        (allowed(None), {"nobody"}),
        (refused("credential_missing"), {"no token"}),
        (refused("scope_missing", "token_expired"), {"scope", "expired"}),
    ],
)
def test_only_the_expected_answer_is_right(judge: Judge, right: set[str], genuine: dict[str, bytes]) -> None:
    found = set()
    for name, answer in genuine.items():
        try:
            judge(answer)
        except WrongAnswer:
            continue
        found.add(name)
    assert found == right


@pytest.mark.parametrize(
    "answer", [b"", b"\xff", None, asyncio.sleep, b"\x0a\x00"], ids=["empty", "garbage", "none", "pending", "status"]
)
@pytest.mark.parametrize("judge", [allowed(USER), refused("token_expired"), exactly(b"x")])
def test_what_is_no_answer_is_wrong(judge: Judge, answer: object) -> None:
    with pytest.raises(WrongAnswer):
        judge(answer)


PRINTED = (
    "requests: 10 total, 12 started, 10 done, {succeeded} succeeded, {failed} failed, 0 errored, {late} timeout\n"
    "traffic: 1.00KB (1024) total, 1.00KB (99) headers (space savings 94.73%), 1.00KB ({data}) data\n"
)


@pytest.mark.parametrize(
    ("counts", "right"),
    [
        ({}, True),
        ({"data": 12 * 105}, True),  # two were read when h2load ended
        ({"data": 13 * 105}, False),
        ({"data": 9 * 105}, False),
        ({"data": 9 * 105 + 95}, False),  # one of another length
        ({"failed": 1}, False),
        ({"late": 1}, False),
        ({"succeeded": 0, "data": 0}, False),
    ],
)
def test_answers_to_h2load_are_judged_by_their_length(counts: dict[str, int], right: bool) -> None:
    printed = PRINTED.format(**{"succeeded": 10, "failed": 0, "late": 0, "data": 10 * 105, **counts})
    with pytest.raises(WrongAnswer) if not right else contextlib.nullcontext():
        judge_h2load(printed, bytes(100), in_flight=2)


def test_h2load_that_prints_nothing_is_wrong() -> None:
    with pytest.raises(WrongAnswer):
        judge_h2load("", b"x", in_flight=1)


@pytest.fixture
def lying(genuine: dict[str, bytes]) -> Iterator[int]:
    """The port of a server that answers every check as it would with an expired token."""
    handler = grpc.method_handlers_generic_handler(
        "envoy.service.auth.v3.Authorization",
        {"Check": grpc.unary_unary_rpc_method_handler(lambda _request, _context: genuine["expired"])},
    )
    server = grpc.server(futures.ThreadPoolExecutor(2))
    server.add_generic_rpc_handlers((handler,))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield port
    server.stop(0)


@pytest.fixture
def changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Programs in the place of h2load and taskset, which need not be here. One answer in ten is a longer one."""
    printed = PRINTED.format(succeeded=10, failed=0, late=0, data=10 * 105 + 90)
    for name, script in {"h2load": f"cat <<'END'\n{printed}\nEND\n", "taskset": 'shift 2\nexec "$@"\n'}.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{script}")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")


@pytest.fixture
def load_request(tmp_path: Path) -> LoadRequest:
    """A request that nothing is wrong with."""
    return LoadRequest.of(tmp_path, check_request("POST", "/rest/api/v1/search", {}.items()), allowed(USER))


def test_bench_stops_at_a_wrong_answer(genuine: dict[str, bytes]) -> None:
    mixed = iter([genuine["ana"], genuine["ana"], genuine["expired"]] * bench.ROUNDS)
    with pytest.raises(WrongAnswer, match="token_expired"):
        bench.microseconds(lambda: next(mixed), 3, allowed(USER))
    assert len(list(mixed)) == 3 * (bench.ROUNDS - 1), "the first round is the last one"
    with pytest.raises(WrongAnswer):
        judge_all(allowed(USER), [genuine["ana"], genuine["bob"]])


def test_transport_stops_at_a_wrong_answer(lying: int, load_request: LoadRequest) -> None:
    with pytest.raises(WrongAnswer, match="token_expired"):
        load.load(lying, os.getpid(), load_request, (1, 1), seconds=1, pinned=False)


@pytest.mark.usefixtures("changed")
def test_a_load_stops_when_answers_change(load_request: LoadRequest, tmp_path: Path) -> None:
    """The token expires behind the answer that was judged before: what h2load reads has another length."""
    with pytest.raises(WrongAnswer, match="1140 bytes came"):
        load.h2load(1, load_request.file, bytes(100), seconds=1, shape=(1, 1), log=tmp_path / "log", pinned=False)
    with pytest.raises(WrongAnswer, match="1140 bytes came"):
        under_load.Load(1, load_request, bytes(100), tmp_path).run()


def test_growth_stops_at_a_wrong_answer(genuine: dict[str, bytes], lying: int, load_request: LoadRequest) -> None:
    with pytest.raises(WrongAnswer, match="token_expired"):
        growth.Size.of("one", lambda _: genuine["expired"], [b""])
    answers = iter([genuine["ana"], *[genuine["ana"]] * (growth.CHECKS - 1), genuine["expired"]])
    size = growth.Size.of("one", lambda _: next(answers), [b""])
    with pytest.raises(WrongAnswer, match="token_expired"):
        growth.grow([size])
    assert next(answers, None) is None, "the first round is the last one"
    with pytest.raises(WrongAnswer, match="token_expired"):
        growth.together([lying], [os.getpid()], load_request, (1, 1), seconds=1)


def test_cold_stops_at_a_wrong_answer(genuine: dict[str, bytes]) -> None:
    mixed = iter([genuine["ana"], genuine["expired"]])
    with pytest.raises(WrongAnswer, match="token_expired"):
        cold.asking(lambda _: next(mixed), [b"", b""], allowed(USER))


def test_start_stops_at_a_wrong_answer(lying: int, load_request: LoadRequest) -> None:
    with pytest.raises(WrongAnswer, match="token_expired"):
        start.first_answer(lying, load_request.data, load_request.judge)


def test_threads_stop_at_a_wrong_answer_and_when_nothing_goes_on(lying: int, load_request: LoadRequest) -> None:
    with pytest.raises(WrongAnswer, match=r"one: .*token_expired"):
        threads.Case("one", lying, os.getpid(), threads.nothing).measure(load_request)
    ended = threading.Event()
    ended.set()
    with pytest.raises(RuntimeError, match="there were no spans"):
        threads.counted("spans", lambda: 7.0, ended)


def test_soak_stops_at_a_wrong_answer(lying: int, load_request: LoadRequest, tmp_path: Path) -> None:
    with pytest.raises(WrongAnswer, match="token_expired"):
        soak.soak(os.getpid(), lying, load_request, tmp_path / "log", 1.0)
    with pytest.raises(WrongAnswer, match="token_expired"):
        soak.RudePeer(lying, load_request).play()


def test_under_load_stops_at_a_wrong_answer(lying: int) -> None:
    with pytest.raises(WrongAnswer, match="token_expired"):
        under_load.look_up(lying, ["glean_made_up"])


def test_flood_stops_at_a_wrong_answer(lying: int) -> None:
    with pytest.raises(WrongAnswer, match="token_expired"):
        asyncio.run(flood.warm_latency(f"127.0.0.1:{lying}", "token"))
    process = multiprocessing.get_context("spawn").Process(
        target=flood.send_flood, args=(f"127.0.0.1:{lying}", sign(claims()), False), daemon=True
    )
    process.start()
    process.join(timeout=30)
    assert process.exitcode == 1
