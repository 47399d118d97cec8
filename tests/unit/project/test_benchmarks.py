"""Benchmarks and soak stop at an answer that is not the expected one: each part of them that asks is given a wrong one."""

from __future__ import annotations

import asyncio
import contextlib
import json
import multiprocessing
import os
import socket
import threading
import time
from collections.abc import Iterator
from concurrent import futures
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from xml.etree import ElementTree

import grpc
import pytest

from benchmarks import (
    audit_list,
    bench,
    chart,
    cold,
    commands,
    compare,
    contenders,
    flood,
    growth,
    listing,
    load,
    open_loop,
    soak,
    start,
    threads,
    tools_check,
    tools_openapi,
    tools_replay,
    tools_suites,
    under_load,
)
from benchmarks.answers import Judge, WrongAnswer, allow, allowed, exactly, judge_all, judge_h2load, refused
from benchmarks.contenders import Contender, Envoy
from benchmarks.load import LoadRequest
from benchmarks.open_loop import OpenLoad
from benchmarks.reloads import RouteEditor
from benchmarks.transport import USER
from extauthz.adapters.store.records import Sort
from tests.support.h2_client import reset
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
        (allow, {"ana", "bob", "nobody", "let through by monitor mode"}),
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
        judge_h2load(printed, 105, in_flight=2)


def test_h2load_that_prints_nothing_is_wrong() -> None:
    with pytest.raises(WrongAnswer):
        judge_h2load("", 1, in_flight=1)


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


@pytest.mark.parametrize(("arguments", "expected"), [(("--version",), "0 problems"), (("--nothing",), "")])
def test_commands_that_do_something_else_are_noticed(arguments: tuple[str, ...], expected: str) -> None:
    assert commands.start_seconds(("--version",), "extauthz, version") > 0
    with pytest.raises(WrongAnswer):
        commands.start_seconds(arguments, expected)


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


def test_the_search_for_the_nearest_route_stops_at_a_wrong_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "nearest_route", lambda *_: None)
    with pytest.raises(AssertionError):
        bench.nearest_routes()


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


def test_replay_stops_at_a_wrong_answer(tmp_path: Path) -> None:
    loaded = tools_replay.configuration(tmp_path)
    size = 2 * tools_replay.ROUTES
    data, recorded = b"".join(tools_replay.log(size, paths=7)), b"".join(tools_replay.recordings(size))
    wanted = tools_replay.expected(size)
    assert tools_replay.measure(loaded, data, wanted) > 0
    assert tools_replay.measure(loaded, recorded, tools_replay.expected(size, recorded=True)) > 0
    for wrong, text in (
        (replace(wanted, narrowed=wanted.narrowed + 1), data),
        (wanted, data.replace(b"allowed", b"public", 1)),
        (wanted, data + b"broken"),
        (wanted, recorded),
    ):
        with pytest.raises(WrongAnswer):
            tools_replay.measure(loaded, text, wrong)


def test_cold_stops_at_a_wrong_answer(genuine: dict[str, bytes]) -> None:
    mixed = iter([genuine["ana"], genuine["expired"]])
    with pytest.raises(WrongAnswer, match="token_expired"):
        cold.asking(lambda _: next(mixed), [b"", b""], allowed(USER))


def test_start_stops_at_a_wrong_answer(lying: int, load_request: LoadRequest) -> None:
    with pytest.raises(WrongAnswer, match="token_expired"):
        start.first_answer(lying, load_request.data, load_request.judge)


def test_threads_stop_at_a_wrong_answer_and_when_nothing_goes_on(lying: int, load_request: LoadRequest) -> None:
    with pytest.raises(WrongAnswer, match="token_expired"):
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
        under_load.look_up(lying, ["glean_made_up"], lambda work: work())


def test_a_look_up_without_an_answer_is_wrong() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, futures.ThreadPoolExecutor(1) as pool:
        asking = pool.submit(under_load.look_up, server.getsockname()[1], ["glean_made_up"], lambda work: work())
        connection, _ = server.accept()
        with connection:
            connection.sendall(reset(1))
            with pytest.raises(WrongAnswer, match="0 of 1 look-ups"):
                asking.result(timeout=20)


@pytest.fixture
def page() -> Iterator[tuple[int, list[str]]]:
    """The port of an ops listener that shows what stands in a list."""
    shown: list[str] = []

    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write("\n".join(shown).encode())

        def log_message(self, *_: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Page) as server:
        serving = threading.Thread(target=server.serve_forever, args=(0.01,))
        serving.start()
        yield server.server_port, shown
        server.shutdown()
        serving.join()


def editor_of(folder: Path, port: int, ops: int) -> RouteEditor:
    return RouteEditor(folder, ops, port, USER, {}, 3)


def test_a_reload_that_does_not_come_is_wrong(page: tuple[int, list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the failed ones count, nor one that was there before."""
    ops, shown = page
    shown += ['extauthz_config_reloads_total{result="ok"} 1.0', 'extauthz_config_reloads_total{result="failed"} 7.0']
    monkeypatch.setattr("benchmarks.reloads.PATIENCE", 0.0)
    with pytest.raises(WrongAnswer, match="did not come"):
        editor_of(tmp_path, 1, ops).reload(is_told=False)
    assert "GET /v1/items2/{id}" in (tmp_path / "routes.yaml").read_text()

    log = tmp_path / "log"
    log.write_text('"configuration reloaded"')
    monkeypatch.setattr("benchmarks.under_load.PATIENCE", 0.0)
    editor = editor_of(tmp_path, 1, ops)
    told = threading.Event()
    monkeypatch.setattr("benchmarks.under_load.os.kill", lambda *_: told.set())
    with pytest.raises(WrongAnswer, match="did not come"):
        under_load.reload(editor, log, under_load.Phases(), "a reload")
    assert told.is_set()


def test_routes_that_are_not_in_use_are_wrong(lying: int, tmp_path: Path) -> None:
    with pytest.raises(WrongAnswer, match="token_expired"):
        editor_of(tmp_path, lying, 1).try_routes()


def test_a_page_without_metrics_is_wrong(page: tuple[int, list[str]]) -> None:
    with pytest.raises(WrongAnswer, match="no metrics"):
        under_load.scrape(page[0], lambda work: work())
    page[1].append("extauthz_checks_total 1.0")
    under_load.scrape(page[0], lambda work: work())


@pytest.mark.parametrize(
    ("decided", "written", "dropped", "read", "right"),
    [(9, 7, 2, 7, True), (9, 7, 1, 7, False), (9, 7, 2, 6, False), (0, 0, 0, 1, False)],
    ids=["all", "one is missing", "one was not read", "one too many"],
)
def test_every_decision_is_read_or_dropped(
    page: tuple[int, list[str]], monkeypatch: pytest.MonkeyPatch, decided: int, written: int, dropped: int, read: int, right: bool
) -> None:
    ops, shown = page
    shown += [f'extauthz_checks_total{{reason="a",route="GET /{{id}}"}} {decided}.0', 'extauthz_checks_total{reason="b"} 0.0']
    shown += [f"extauthz_decision_log_written_total {written}.0", f"extauthz_decision_log_dropped_total {dropped}.0"]
    monkeypatch.setattr("benchmarks.soak.PATIENCE", 0.0)
    with contextlib.nullcontext() if right else pytest.raises(WrongAnswer, match=f"{decided} decisions: {read} lines read"):
        soak.account(ops, soak.RestingReader(lines=read))


def test_a_resting_reader_reads_every_line() -> None:
    ours, theirs = os.pipe()
    os.write(theirs, b"{}\n" * 7)
    os.close(theirs)
    reader = soak.RestingReader(longest_rest=0.0)
    reader.read(os.fdopen(ours, "rb"))
    assert (reader.lines, reader.rests) == (7, 1)


@pytest.mark.parametrize(
    ("sizes", "grown"),
    [([50, 100, 100, 100], 0.0), ([100, 100, 100, 102], 0.02), ([100, 100, 100, 99], -0.01), ([100], 0.0), ([1, 100, 103], 0.03)],
)
def test_growth_is_that_of_the_last_half(sizes: list[int], grown: float) -> None:
    assert soak.growth([soak.Holdings(size, 1, 1) for size in sizes]) == pytest.approx(grown)


@pytest.mark.parametrize(
    ("counts", "more"),
    [
        ([20] * 8, False),
        ([20, 23, 20, 23, 20, 23, 20, 23], False),
        ([20, 21, 22, 23, 24, 25, 26, 27], True),
        ([20, 20, 20, 20, 24], True),
        ([24, 20, 20, 20, 24], False),
        ([20], False),
    ],
)
def test_what_is_not_given_back_becomes_more(counts: list[int], more: bool) -> None:
    assert soak.has_more(counts) is more


def test_only_what_the_soak_causes_is_explained() -> None:
    """Lines of the process log as `serve` writes them."""
    line = '{{"level": "{}", "message": "{}"}}'.format
    explained = [
        line("INFO", "serving"),
        line("WARNING", "300 routes disappeared with this reload: 'GET /v0/items0/{{id}}'"),
        line("ERROR", "decision log not written"),
        line("WARNING", "decision log written again"),
    ]
    others = [
        line("WARNING", "301 routes disappeared with this reload"),
        line("ERROR", "decision log not written any more"),
        line("ERROR", "check failed"),
        "Traceback (most recent call last):",
    ]
    assert soak.unexplained("\n".join(explained + others)) == others


@pytest.mark.parametrize(
    ("began", "ended", "phase"),
    [
        (1.0, 1.9, "nothing else"),
        (1.0, 2.1, "a scrape"),
        (2.2, 2.3, "a scrape"),
        (2.4, 9.0, "a scrape"),
        (2.6, 9.0, "nothing else"),
    ],
)
def test_a_call_belongs_to_what_went_on_while_it_was_under_way(began: float, ended: float, phase: str) -> None:
    assert under_load.Phases([("a scrape", 2.0, 2.5)]).of(began, ended) == phase


def test_times_are_compared_with_the_quiet_ones(capsys: pytest.CaptureFixture[str]) -> None:
    phases = under_load.Phases([("a scrape", 2.0, 2.5), (under_load.PREPARING, 3.0, 4.0)])
    lines = [[str(moment), "200", took] for moment, took in ((1_000_000, "100"), (2_100_000, "250"), (3_500_000, "9999"))]
    assert under_load.report(phases, lines) == 0
    printed = capsys.readouterr().out
    assert "p99 2.50 × that of nothing else" in printed
    assert "9,999" not in printed
    assert under_load.report(phases, [*lines, ["1", "503", "1"]]) == 1
    assert under_load.report(phases, []) == 1


def test_flood_stops_at_a_wrong_answer(lying: int) -> None:
    with pytest.raises(WrongAnswer, match="token_expired"):
        asyncio.run(flood.warm_latency(f"127.0.0.1:{lying}", "token"))
    process = multiprocessing.get_context("spawn").Process(
        target=flood.send_flood, args=(f"127.0.0.1:{lying}", sign(claims()), False), daemon=True
    )
    process.start()
    process.join(timeout=30)
    assert process.exitcode == 1


SERVICE = "envoy.service.auth.v3.Authorization"


@contextlib.contextmanager
def slow_server(seconds: float) -> Iterator[int]:
    """Answer one call after the other, each after so many seconds; return the port."""

    def check(request: bytes, _: object) -> bytes:
        time.sleep(seconds)  # why: the server is made slow
        return request

    handler = grpc.method_handlers_generic_handler(SERVICE, {"Check": grpc.unary_unary_rpc_method_handler(check)})
    server = grpc.server(futures.ThreadPoolExecutor(1))
    server.add_generic_rpc_handlers((handler,))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield port
    server.stop(0)


def patient(port: int, data: bytes) -> OpenLoad:
    """Return a load for a server that echoes, without the deadline that Envoy gives each call: this machine may be busy."""
    load_ = OpenLoad.of_check(port, data, data, rate=0, seconds=0)
    return replace(load_, headers=[header for header in load_.headers if header[0] != "grpc-timeout"])


def test_an_open_loop_counts_from_the_moments_of_its_schedule() -> None:
    """The fifth call is answered after the four before it, and has waited for them: a client that waits for answers hides that."""
    with slow_server(0.1) as port:
        times = open_loop.run(patient(port, b"abc"), [0.0] * 5)
    assert times.count == 5
    assert times.p50 >= 300_000
    assert times.most >= 500_000


def test_an_open_loop_sends_more_than_the_window_and_the_limit_of_streams_hold() -> None:
    data = b"x" * 3000
    with slow_server(0) as port:
        times = open_loop.run(patient(port, data), [0.0] * 300)
    assert times.count == 300


def test_an_open_loop_stops_at_a_wrong_answer(lying: int, tmp_path: Path) -> None:
    load_ = OpenLoad.of_check(lying, b"abc", b"an answer of another size", rate=100, seconds=0.1)
    with pytest.raises(WrongAnswer, match="bytes was expected"):
        open_loop.run(load_, [0.0])
    with pytest.raises(WrongAnswer, match="bytes was expected"):
        open_loop.open_loop(load_, tmp_path)


def test_a_schedule_has_as_many_moments_as_its_rate_says() -> None:
    moments = open_loop.schedule(10_000, 1.0)
    assert moments == sorted(moments)
    assert 9_000 < len(moments) < 11_000
    assert moments[-1] < 1.0


@pytest.mark.parametrize(("status", "body"), [(403, contenders.BODY), (200, "another page\n")])
def test_compare_stops_at_a_wrong_answer(status: int, body: str, tmp_path: Path) -> None:
    class Page(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.send_response(status)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body.encode())

    server = ThreadingHTTPServer(("127.0.0.1", 0), Page)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        envoy = Envoy(server.server_address[1], os.getpid())
        with pytest.raises(WrongAnswer, match="a name: expected 200"):
            compare.through(envoy, Contender("a name"), {}, tmp_path, seconds=1, rate=10)
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.mark.parametrize("text", ["", "opa", "=127.0.0.1:9191", "opa=127.0.0.1", "opa=unix:///run/opa.sock", "opa=127.0.0.1:x"])
def test_another_server_is_named_with_its_address(text: str) -> None:
    with pytest.raises(SystemExit, match=r"expected name=host:port, like opa=127\.0\.0\.1:9191"):
        contenders.other(text)


def test_another_server_is_found_with_its_process() -> None:
    with slow_server(0) as port:
        other = contenders.other(f"mine=127.0.0.1:{port}")
    assert (other.name, other.pid, other.is_ours) == ("mine", os.getpid(), False)


def test_a_list_of_other_tokens_is_wrong() -> None:
    tokens = listing.population(200)
    cases = list(listing.cases())
    assert {case.sort for case in cases} == set(Sort)
    for case in cases:
        right = listing.expected(tokens, case).ids
        found = [next(token for token in tokens if token.id == token_id) for token_id in right]
        assert len(listing.measure(lambda found=found: found, right, times=2)) == 2
        wrong = [*found[1:], *found[:1]] if len(found) > 1 else [*found, tokens[0]]
        with pytest.raises(WrongAnswer, match="a page of"):
            listing.measure(lambda wrong=wrong: wrong, right, times=1)


def test_rows_of_another_list_and_other_counts_are_wrong() -> None:
    audit, tokens = audit_list.rows(3000), listing.population(50)
    for case in audit_list.cases(3000):
        right = audit_list.expected(audit, case)
        found = [audit[number - 1] for number in right]
        assert len(audit_list.measure(lambda found=found: found, right, times=2)) == 2
        with pytest.raises(WrongAnswer, match="a page of"):
            audit_list.measure(lambda found=found: [*found[1:], audit[0]], right, times=1)
    with audit_list.small() as store, pytest.raises(WrongAnswer, match="other tokens"):
        audit_list.count(store, tokens, times=1)


def test_an_import_that_is_not_right_is_wrong(tmp_path: Path) -> None:
    number = tools_openapi.files(tmp_path, 4_000)
    assert number == 8
    assert len(tools_openapi.measure(tmp_path, number)) == 4
    for code, wrong in ((0, number + 1), (3, number)):
        with pytest.raises(WrongAnswer):
            tools_openapi.measure(tmp_path, wrong) if code == 0 else tools_openapi.run(tmp_path, "coverage", "api.yaml", code=code)
    added = [{"access": access} for access in ("scope SEARCH", "scope SEARCH", "scope CHAT", "scope CHAT")]
    for printed in ("", json.dumps({"operations": 4, "added": added})):
        with pytest.raises(WrongAnswer):
            tools_openapi.judge_import(printed, 4, "added")
    wider = {"operations": 4, "denied": 1, "findings": [{"kind": "wider"}]}
    for printed in ("", json.dumps(wider), json.dumps(wider | {"findings": [], "denied": 2})):
        with pytest.raises(WrongAnswer):
            tools_openapi.judge_coverage(printed, 4)


def test_a_chart_draws_each_part_in_proportion() -> None:
    bars = [chart.Bar("a <b>", (20.0, 5.0)), chart.Bar("c", (10.0, 0.0))]
    image = ElementTree.fromstring(chart.draw("Title", ("one", "two"), bars))  # noqa: S314 - our own
    space = "{http://www.w3.org/2000/svg}"
    widths = [float(each.get("width", "")) for each in image.iter(f"{space}rect")][2:]
    assert widths[0] == pytest.approx(4 * widths[1], rel=0.01)
    assert widths[0] == pytest.approx(2 * widths[2], rel=0.01)
    texts = [each.text for each in image.iter(f"{space}text")]
    assert texts == ["Title", "one", "two", "a <b>", "20.0 + 5.0", "c", "10.0"]


# config check


def test_a_check_of_10_000_routes_must_find_what_the_map_was_made_with(tmp_path: Path) -> None:
    file = tools_check.write_map(tmp_path, 40)
    assert min(tools_check.in_parts(file, 40)) > 0
    with pytest.raises(WrongAnswer):
        tools_check.in_parts(file, 50)
    text = (tmp_path / "routes.yaml").read_text()
    (tmp_path / "routes.yaml").write_text(text.replace("ignore anonymous-write", "ignores anonymous-write"))
    with pytest.raises(WrongAnswer):
        tools_check.in_parts(file, 40)


@pytest.mark.parametrize(
    ("printed", "code"),
    [("", 0), ("Killed", 137), ('{"problems": [1], "warnings": [], "silenced": []}', 3), ('{"problems": [], "warnings": []}', 0)],
)
def test_a_check_that_ends_otherwise_is_no_figure(printed: str, code: int) -> None:
    with pytest.raises(WrongAnswer):
        tools_check.judge_command(printed, code, 40)


def test_a_check_that_ends_well_is_one() -> None:
    report = {"problems": [], "warnings": [1] * 6, "silenced": [1] * 2}
    tools_check.judge_command(json.dumps(report), 0, 40)
    with pytest.raises(WrongAnswer):
        tools_check.judge_command(json.dumps(report), 0, 50)


def test_a_suite_that_does_not_pass_whole_is_wrong(tmp_path: Path) -> None:
    file = tools_suites.written(tmp_path, 20)
    _, right = tools_suites.run(file, "--json", "--coverage")
    tools_suites.judge(right, 20, reached=20)
    told = json.loads(right)
    told["coverage"]["reached"]["routes"] = 19
    for wrong, cases, message in (
        (right, 21, "20 of 21 cases passed"),
        (json.dumps({**told, "passed": 19, "failed": 1}), 20, "19 of 20 cases passed, 1 failed"),
        (json.dumps(told), 20, "19 of 20 routes"),
        ("", 20, "no results"),
    ):
        with pytest.raises(WrongAnswer, match=message):
            tools_suites.judge(wrong, cases, reached=20)
    (tmp_path / "routes.yaml").write_text("routes: []")
    with pytest.raises(WrongAnswer, match="of 20 cases passed"):
        tools_suites.measure(file, 20)
