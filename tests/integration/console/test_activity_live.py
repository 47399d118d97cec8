"""The page of activity in a real browser: its figures and charts follow what the sidecars count, without a new page."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import expect, sync_playwright

from extauthz.addresses import Address
from extauthz.admin import accounts
from extauthz.console.app import application
from extauthz.console.collecting import Collector
from extauthz.console.metrics_text import Scrape, SidecarFacts
from extauthz.transport.http.ops import HttpServer
from extauthz.transport.sockets import open_port
from tests.support.browsing import browsing, tab
from tests.support.console_world import FOUNDER, HASH, NOW, PASSWORD, SETTINGS, WHO, ConsoleWorld, console_world, done


@contextmanager
def served(world: ConsoleWorld) -> Iterator[str]:
    """Serve the pages of a world on loopback; yield their origin."""
    listener = open_port(Address(host="127.0.0.1", port=0))
    origin = f"http://127.0.0.1:{listener.getsockname()[1]}"
    server = HttpServer(application(world.context, [origin]))
    thread = threading.Thread(target=lambda: asyncio.run(server.run_on(listener)))
    thread.start()
    try:
        yield origin
    finally:
        server.should_exit = True
        thread.join(timeout=20)


def collect(world: ConsoleWorld) -> None:
    """Look at the sidecars once, in a thread: the loop of this one is that of the browser."""
    with ThreadPoolExecutor() as threads:
        threads.submit(lambda: asyncio.run(world.context.collector.collect())).result(timeout=20)


def test_figures_and_charts_follow_the_sidecars(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counted = {"scope_missing": 0.0}

    async def scrape(_: Collector, name: str, limit: asyncio.Semaphore) -> Scrape:
        return Scrape({("deny", reason, "POST /chat"): count for reason, count in counted.items()}, SidecarFacts(started_at=1.0))

    monkeypatch.setattr(Collector, "_scrape", scrape)
    with (
        console_world(tmp_path) as world,
        served(world) as origin,
        sync_playwright() as playwright,
        browsing(playwright) as browser,
        tab(browser) as opened,
    ):
        world.change(console=SETTINGS["console"] | {"sidecars": ["http://10.0.0.1:9090"]})
        done(accounts.put(world.current.administration(), FOUNDER, WHO["viewer"], HASH, NOW))
        collect(world)
        page = opened.page
        page.goto(f"{origin}/login?next=/activity")
        page.get_by_label("E-mail address").fill(WHO["viewer"])
        page.get_by_label("Password").fill(PASSWORD)
        page.keyboard.press("Enter")
        expect(page.locator("[data-live=denied]")).to_have_text("0")
        area = page.locator("#denied .desktop .layer-1")
        before = area.get_attribute("d")

        world.now += 10
        counted |= {"scope_missing": 40.0, "<b>token_expired</b>": 20.0}
        collect(world)
        page.evaluate("dispatchEvent(new Event('visibilitychange'))")

        expect(page.locator("[data-live=denied]")).to_have_text("60")
        expect(page.locator("[data-live=answering]")).to_have_text("1 of 1")
        rows = page.locator("#denied tbody tr:visible")
        expect(rows).to_have_count(2)
        expect(rows.nth(1)).to_contain_text("<b>token_expired</b>")
        expect(page.locator("#denied svg.desktop desc")).to_have_text(
            "60 in the last hour, at most 60 in a minute: scope_missing 40, <b>token_expired</b> 20."
        )
        assert (before, (area.get_attribute("d") or "")[:1]) == ("", "M")
        assert page.locator("#denied svg.desktop .scale").last.text_content() == "60"
