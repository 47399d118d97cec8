"""Sidecars are scraped over every kind of address that an ops listener has, and whatever they answer, the console goes on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest
import yaml

from extauthz.adapters.metrics import render
from extauthz.config.loader import Configuration, load
from extauthz.console import collecting
from extauthz.console.activity import INTERVAL
from extauthz.console.collecting import Collector
from extauthz.console.prometheus import BY_REASON, BY_ROUTE, OF_SIDECARS
from tests.support.http_faults import FaultyServer, Page, document, faulty_server, listening
from tests.support.transports import Authority
from tests.support.waiting import until
from tests.support.world import NOW, SETTINGS, StillClock


def metrics(denied: float = 0.0, version: str = "1.2.3") -> Page:
    """Return the page of a sidecar."""
    checks = {("extauthz_checks_total", ("deny", "scope_missing", "items", "USER")): denied}
    return Page(render({("extauthz_build_info", (version, "nghttp2")): 1.0, **checks})[1])


class Console:
    """A collector whose configuration can be written anew, and its clock."""

    def __init__(self, folder: Path, **section: Any) -> None:
        self.folder = folder
        self.clock = StillClock(NOW)
        (folder / "routes.yaml").write_text('routes: [{match: "POST /search", scope: SEARCH}]')
        self.configure(**section)
        self.collector = Collector(lambda: self.configuration, self.clock.now)

    def configure(self, **section: Any) -> None:
        """Take another section `console`."""
        file = self.folder / "extauthz.yaml"
        file.write_text(yaml.safe_dump({**SETTINGS, "console": section}))
        self.configuration: Configuration = load(file)

    async def round(self) -> list[str | None]:
        """Collect once, an interval later, and return the errors of the sidecars."""
        self.clock.advance(INTERVAL)
        await self.collector.collect()
        return [sidecar.error for sidecar in self.collector.sidecars]


@asynccontextmanager
async def console(folder: Path, **section: Any) -> AsyncIterator[Console]:
    """A console until the end of the block."""
    opened = Console(folder, **section)
    try:
        yield opened
    finally:
        await opened.collector.close()


async def test_counters_of_all_sidecars_are_one_hour(tmp_path: Path) -> None:
    async with faulty_server() as a, faulty_server() as b, console(tmp_path, sidecars=[a.origin, b.origin]) as opened:
        a.pages["/metrics"], b.pages["/metrics"] = metrics(5), metrics(100)
        assert await opened.round() == [None, None]
        a.pages["/metrics"], b.pages["/metrics"] = metrics(7), metrics(101)
        assert await opened.round() == [None, None]
        activity = await opened.collector.current()

    assert [(layer.name, layer.total) for layer in activity.denied] == [("scope_missing", 3)]
    assert (activity.answering, activity.since) == (2, NOW + INTERVAL)
    assert b"\r\naccept: text/plain\r\n" in a.heads[0].lower()


async def test_a_unix_socket_is_scraped(tmp_path: Path) -> None:
    served, place = FaultyServer(pages={"/metrics": metrics()}), tmp_path / "ops.sock"
    server = await asyncio.start_unix_server(served.answer, place)
    async with server, console(tmp_path, sidecars=[f"unix://{place}"]) as opened:
        assert await opened.round() == [None]


async def test_a_client_certificate_is_shown_and_read_anew_when_it_was_renewed(tmp_path: Path) -> None:
    servers, clients = Authority(tmp_path, "servers"), Authority(tmp_path, "clients")
    served = FaultyServer(pages={"/metrics": metrics()})
    stranger, key = Authority(tmp_path, "strangers").issue("client")
    tls = {"ca_file": "servers.pem", "certificate": stranger.name, "key": key.name}
    async with listening(served.answer, servers.server(clients_of=clients).context) as port, console(tmp_path) as opened:
        sidecars = [f"https://localhost:{port}"]
        opened.configure(sidecars=sidecars, sidecar_tls=tls)
        refused = await opened.round()
        clients.issue("client")
        accepted = await opened.round()
        opened.configure(sidecars=sidecars)
        distrusted = await opened.round()

    assert accepted == [None]
    assert refused != [None]
    assert distrusted == ["ConnectError"]


BAD = {
    "not there": (Page(status=404), "status 404"),
    "another service": (Page(b"<html>"), "no metrics of a sidecar: is this the address of an ops listener?"),
    "not text": (Page(b"\xff"), "the answer is not text in UTF-8"),
    "elsewhere": (Page(status=302, headers=(("location", "http://localhost:1/"),)), "status 302"),
    "cut off": (Page(b"x", missing=10), "RemoteProtocolError"),
    "slow": (Page(wait=30), "no whole answer within 0.2 s"),
    "endless": (Page(b"# " + b"x" * 5000), "larger than 4000 bytes"),
}


@pytest.mark.parametrize("name", BAD)
async def test_a_sidecar_that_does_not_answer_costs_the_others_nothing(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(collecting, "SCRAPE_TIMEOUT", 0.2 if name == "slow" else 20)
    monkeypatch.setattr(collecting, "MAX_PAGE_BYTES", 4000 if name == "endless" else 2**20)
    page, error = BAD[name]
    good = Page(b'extauthz_build_info{transport="grpcio",version="1"} 1.0\n')
    async with faulty_server() as bad, faulty_server() as other, console(tmp_path, sidecars=[bad.origin, other.origin]) as opened:
        bad.pages["/metrics"] = other.pages["/metrics"] = good
        assert await opened.round() == [None, None]
        bad.pages["/metrics"] = page
        assert await opened.round() == await opened.round() == [error, None]
        broken, whole = opened.collector.sidecars
        activity = await opened.collector.current()
        bad.pages["/metrics"] = good
        assert await opened.round() == [None, None]

    assert (broken.since, whole.since, activity.answering) == (NOW + 2 * INTERVAL, NOW + INTERVAL, 1)
    assert broken.facts is not None, "what it said before is forgotten"
    assert opened.collector.sidecars[0].since == NOW + 4 * INTERVAL


async def test_a_missing_bundle_is_told_and_the_console_goes_on(tmp_path: Path) -> None:
    tls = {"ca_file": "nowhere.pem"}
    async with faulty_server() as served, console(tmp_path, sidecars=[served.origin], sidecar_tls=tls) as opened:
        assert await opened.round() == ["console.sidecar_tls.ca_file: No such file or directory"]
        assert served.connections == 0


async def test_a_sidecar_that_left_the_configuration_is_forgotten(tmp_path: Path) -> None:
    async with faulty_server() as served, console(tmp_path, sidecars=[served.origin]) as opened:
        served.pages["/metrics"] = metrics()
        assert await opened.round() == [None]
        opened.configure()
        assert await opened.round() == []


async def test_rounds_go_on_until_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that fails in a way that nobody thought of is not the last."""
    rounds: list[int] = []

    async def collect(self: Collector) -> None:
        rounds.append(len(rounds))
        if len(rounds) == 1:
            raise RuntimeError("not foreseen")

    monkeypatch.setattr(Collector, "collect", collect)
    async with console(tmp_path) as opened:
        running = asyncio.create_task(opened.collector.run())
        monkeypatch.setattr(collecting, "INTERVAL", 0.0)
        monkeypatch.setattr(collecting, "MIN_PAUSE", 0.0)
        await until(lambda: len(rounds) > 2)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running


# --- from a Prometheus


def results(kind: str, *found: dict[str, Any]) -> Page:
    return document({"status": "success", "data": {"resultType": kind, "result": list(found)}})


class FakePrometheus(FaultyServer):
    """Answers by the query, whatever the rest of its address."""

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        target = head.split(b" ")[1].decode()
        path, _, query = target.partition("?")
        self.requests[path] += 1
        page = self.pages[parse_qs(query)["query"][0]]
        writer.write(page.head() + page.body)
        await writer.drain()
        writer.close()


LABELS = {"instance": "10.0.0.1:9090"}


def by_reason() -> Page:
    """Return three minutes of denials, one of them without a number, and one of a monitored route."""
    end = int(NOW)
    values = [[end - 60, "2"], [end, "3.5"], [end - 120, "NaN"]]
    return results(
        "matrix",
        {"metric": {"decision": "deny", "reason": "scope_missing"}, "values": values},
        {"metric": {"decision": "would_deny", "reason": "scope_missing"}, "values": [[end, "1"]]},
    )


async def test_an_hour_comes_from_a_prometheus_once_in_an_interval(tmp_path: Path) -> None:
    served = FakePrometheus()
    served.pages[BY_REASON] = by_reason()
    served.pages[BY_ROUTE] = results("vector", {"metric": {"decision": "deny", "route": "items"}, "value": [NOW, "5.5"]})
    build = {"metric": {"__name__": "extauthz_build_info", "version": "1.2.3", **LABELS}, "value": [NOW, "1"]}
    stale = {"metric": {"__name__": "extauthz_config_stale", **LABELS}, "value": [NOW, "1"]}
    served.pages[OF_SIDECARS] = results("vector", build, stale)
    async with listening(served.answer) as port, console(tmp_path, prometheus=f"http://127.0.0.1:{port}/prefix/") as opened:
        first, second = await asyncio.gather(opened.collector.current(), opened.collector.current())
        opened.clock.advance(INTERVAL)
        await opened.collector.current()

    assert first is second
    assert served.requests == {"/prefix/api/v1/query_range": 2, "/prefix/api/v1/query": 4}
    assert [(layer.name, layer.minutes[-3:]) for layer in first.denied] == [("scope_missing", (0.0, 2.0, 3.5))]
    assert [(layer.name, layer.total) for layer in first.allowed] == [("would_deny", 1)]
    assert [(each.route, each.denied) for each in first.routes] == [("items", 5.5)]
    (sidecar,) = first.sidecars
    assert sidecar.facts is not None
    assert (sidecar.name, sidecar.facts.version, sidecar.facts.is_config_stale) == ("10.0.0.1:9090", "1.2.3", True)


BAD_ANSWERS = {
    "an error": (document({"status": "error", "error": "bad"}), "the answer is not one of Prometheus"),
    "another document": (document([1, 2]), "the answer is not one of Prometheus"),
    "no results": (document({"status": "success", "data": {}}), "the answer is not one of Prometheus"),
    "numbers that are none": (
        results("matrix", {"metric": {}, "values": [[1, "x"]]}),
        "the answer is not one of Prometheus",
    ),
    "a page": (Page(b"<html>"), "the answer is not JSON"),
    "a status": (Page(status=503), "status 503"),
    "scrapes too far apart": (results("matrix"), "let it scrape sidecars every 30 s or more often"),
}


@pytest.mark.parametrize("name", BAD_ANSWERS)
async def test_a_prometheus_that_does_not_tell_is_an_error_on_the_page(tmp_path: Path, name: str) -> None:
    served = FakePrometheus()
    page, error = BAD_ANSWERS[name]
    served.pages[BY_REASON] = page
    served.pages[BY_ROUTE] = results("vector", {"metric": {"decision": "deny", "route": "items"}, "value": [NOW, "5"]})
    served.pages[OF_SIDECARS] = results("vector")
    async with listening(served.answer) as port, console(tmp_path, prometheus=f"http://127.0.0.1:{port}") as opened:
        activity = await opened.collector.current()

    assert activity.error is not None
    assert error in activity.error
    assert (activity.allowed, activity.denied, activity.since) == ((), (), None)
