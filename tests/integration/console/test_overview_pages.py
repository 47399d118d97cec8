"""Overview, routes, activity and audit as pages: who reads them, what their numbers lead to, and no markup of others."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from html import unescape
from pathlib import Path

import pytest

from extauthz.admin import audits
from extauthz.admin.rights import Role
from extauthz.console.charts import MAX_LAYERS
from extauthz.console.collecting import Collector
from extauthz.console.metrics_text import IssuerKeys, Scrape, SidecarFacts
from extauthz.core.model import AuthType
from tests.support.console_world import DAY, NOW, SETTINGS, Browser, ConsoleWorld, console_world

SCRIPT = '<script>alert("1")</script>'
SIDECARS = ["http://10.0.0.1:9090", "http://10.0.0.2:9090", "unix:///run/ops.sock"]
PAGES = ["/", "/routes", "/activity", "/activity/numbers", "/audit", "/audit/export.csv", "/audit/export.json"]


@pytest.fixture
def world(tmp_path: Path) -> Iterator[ConsoleWorld]:
    with console_world(tmp_path) as made:
        yield made


def links(text: str, start: str) -> list[str]:
    """Return the addresses of links that begin so."""
    return [unescape(address) for address in re.findall(r'href="([^"]*)"', text) if address.startswith(start)]


def rows(text: str) -> int:
    """Return how many rows the tables of a page have."""
    return sum(len(re.findall("<tr", body)) for body in re.findall(r"<tbody>.*?</tbody>", text, re.DOTALL))


def test_every_role_reads_and_nobody_else(world: ConsoleWorld) -> None:
    browsers = [world.logged_in(role) for role in Role]

    for path in PAGES:
        assert world.visitor().get(path).status_code == 303
        assert [browser.get(path).status_code for browser in browsers] == [200, 200, 200], path


def test_a_form_of_another_session_does_nothing(world: ConsoleWorld) -> None:
    browser = world.logged_in()

    for path in ("/audit/verify", "/audit/search"):
        assert browser.post(path, {}, token="0" * 64).status_code == 403
        assert world.visitor().post(path, {}, token="").status_code == 401


def test_the_empty_console_says_what_to_do(world: ConsoleWorld) -> None:
    (world.folder / "routes.yaml").write_text("routes: []")
    world.ticks += 60
    browser = world.logged_in(Role.VIEWER)

    for path, hint in {"/routes": "until route files name some", "/activity": "console.sidecars", "/": "console.sidecars"}.items():
        assert hint in browser.get(path).text


# --- overview


def test_every_number_of_the_overview_leads_to_as_many_tokens(world: ConsoleWorld) -> None:
    for permission, days in ((AuthType.USER, 10), (AuthType.USER, 90), (AuthType.GLOBAL, 10), (AuthType.ANONYMOUS, 2)):
        world.issue(permission, expires_at=NOW + days * DAY)
    world.now += 3 * DAY
    browser = world.logged_in()
    page = browser.get("/").text
    numbers = re.findall(r'<a (?:class="tile" )?href="(/tokens\?[^"]*)">(?:<b>)?([0-9]+)<', page)

    assert [int(count) for _, count in numbers[:3]] == [3, 2, 3]
    assert len(numbers) == 3 + 9
    for address, count in numbers:
        listed = browser.get(unescape(address)).text
        assert len(re.findall(r'href="/tokens/[0-9A-Za-z]{12}"', listed)) == int(count), address


# --- routes


def test_routes_are_found_by_words_and_by_what_opens_them(world: ConsoleWorld) -> None:
    browser = world.logged_in(Role.VIEWER)
    for query, expected in {
        "": ["/search", "/chat"],
        "?text=CHAT": ["/chat"],
        "?text=POST+%2Fsearch": ["/search"],
        "?scope=SEARCH": ["/search"],
        "?scope=SEARCH&permission=ANONYMOUS": ["/search"],
        "?scope=CHAT&permission=ANONYMOUS": [],
        "?permission=ANONYMOUS": ["/search"],
        "?permission=x&scope=": ["/search", "/chat"],
        "?text=nothing": [],
    }.items():
        page = browser.get(f"/routes{query}").text
        assert re.findall(r"</span> ([^<]*)</code>", page) == expected, query
        assert ('<span class="id">routes.yaml:2</span>' in page) == ("/search" in expected)


def test_names_of_routes_are_no_markup(world: ConsoleWorld) -> None:
    (world.folder / "routes.yaml").write_text(f"routes: [{{match: 'GET /<b>', scope: SEARCH, name: '{SCRIPT}'}}]")
    world.ticks += 60
    page = world.logged_in().get(f"/routes?text={SCRIPT}").text

    assert "<script>" not in page
    assert "<b>" not in re.sub("<b>[0-9]", "", page)
    assert "&lt;script&gt;" in page


# --- activity


def seen(denied: float, **facts: object) -> Scrape:
    """Return what a sidecar says; a reason and a route are hostile."""
    known = SidecarFacts(version="1.2.3", config_hash="5eed" * 16, is_ready=True, started_at=1.0, feed_age=0.4, **facts)  # type: ignore[arg-type]
    return Scrape(
        {
            ("allow", "allowed", "POST /chat"): denied * 10,
            ("deny", "scope_missing", "POST /search"): denied,
            ("deny", SCRIPT, SCRIPT): denied / 2,
        },
        known,
    )


@pytest.fixture
def busy(world: ConsoleWorld, monkeypatch: pytest.MonkeyPatch) -> ConsoleWorld:
    """A console that looked twice at three sidecars, of which one does not answer."""
    world.change(console=SETTINGS["console"] | {"sidecars": SIDECARS})
    answers: dict[str, Scrape | str] = {}

    async def scrape(self: Collector, name: str, limit: asyncio.Semaphore) -> Scrape | str:
        return answers[name]

    monkeypatch.setattr(Collector, "_scrape", scrape)
    for denied in (0, 60):
        keys = {"https://acme.okta.com": IssuerKeys(2 if denied else 0, 61.0)}
        answers |= {SIDECARS[0]: seen(denied, keys=keys), SIDECARS[1]: seen(0, is_config_stale=True), SIDECARS[2]: "ConnectError"}
        asyncio.run(world.context.collector.collect())
        world.now += 10
    return world


def test_activity_is_drawn_and_told(busy: ConsoleWorld) -> None:
    browser = busy.logged_in(Role.VIEWER)
    page = browser.get("/activity").text
    of_routes = [browser.get(address).text for address in links(page, "/routes?text=")]

    assert "<script>alert" not in page
    assert page.count("<svg ") == 4
    assert page.count("&lt;script&gt;") >= 2
    assert re.findall(r'data-live="(?:allowed|denied)">([^<]*)<', page) == ["600", "90"]
    assert re.search(r'data-live="answering">2 of 3<', page)
    assert "does not answer: ConnectError" in page
    assert "serves an older configuration than its files are" in page
    assert ["</span> /search</code>" in of_routes[0], "</span> /chat</code>" in of_routes[-1]] == [True, True]
    assert rows(page) == 2 * MAX_LAYERS + 3 + 3


def test_the_script_gets_what_the_page_shows(busy: ConsoleWorld) -> None:
    browser = busy.logged_in(Role.VIEWER)
    page, numbers = browser.get("/activity").text, browser.get("/activity/numbers").json()
    denied = numbers["charts"]["denied"]

    assert (numbers["answering"], numbers["sidecars"], denied["total"]) == (2, 3, "90")
    assert [layer["name"] for layer in denied["layers"]] == ["scope_missing", SCRIPT]
    assert [layer["total"] for layer in denied["layers"]] == ["60", "30"]
    for outline in (*denied["paths"]["desktop"], *denied["paths"]["phone"]):
        assert f'd="{outline}"' in page
    assert denied["scale"] == ["0", "25", "50", "75", "100"]


def test_the_overview_tells_denials_and_sidecars(busy: ConsoleWorld) -> None:
    page = busy.logged_in(Role.VIEWER).get("/").text

    assert "<script>alert" not in page
    assert re.findall(r'<a class="tile" href="(/activity#[a-z]*)"><b>([^<]*)</b>', page) == [
        ("/activity#denied", "90"),
        ("/activity#sidecars", "2 of 3"),
    ]
    assert "scope_missing" in page
    assert "https://acme.okta.com" in page


# --- audit


def audited(world: ConsoleWorld, count: int) -> None:
    """Make tokens, a minute after each other."""
    for number in range(count):
        world.issue(description=f"token {number}" if number else SCRIPT)
        world.now += 60


def numbers_of(page: str) -> list[int]:
    return [int(number) for number in re.findall(r'<span class="id">#([0-9]+)</span>', page)]


def test_pages_of_the_audit_lead_to_each_other(world: ConsoleWorld) -> None:
    audited(world, 60)
    browser = world.logged_in(Role.VIEWER)
    first = browser.get("/audit").text
    (older,) = links(first, "/audit?cursor=below")
    second = browser.get(older).text
    (newer,) = links(second, "/audit?cursor=above")

    assert "<script>alert" not in first + second
    assert "&lt;script&gt;" in second
    assert numbers_of(first + second) == list(range(len(numbers_of(first + second)), 0, -1))
    assert numbers_of(browser.get(newer).text) == numbers_of(first)


def found(browser: Browser, **fields: str) -> list[int]:
    """Send the filters, and return the rows of the page that it leads to."""
    answer = browser.post("/audit/search", fields, page="/audit")
    assert answer.status_code == 303, answer.text
    return numbers_of(browser.get(answer.headers["location"]).text)


def test_rows_are_filtered_by_what_is_typed(world: ConsoleWorld) -> None:
    audited(world, 3)
    token = world.issue()
    browser = world.logged_in()

    assert found(browser, action="create", actor="os:founder") == [4, 3, 2, 1]
    assert found(browser, token=token.record.id) == [4]
    assert found(browser, since="2027-01-15", until="2027-01-15", action="create") == [4, 3, 2, 1]
    assert found(browser, since="2027-01-16") == found(browser, until="2027-01-14") == []


def test_a_pasted_token_stands_in_no_address_and_on_no_page(world: ConsoleWorld) -> None:
    token, browser = world.issue(), world.logged_in()
    secret = token.text.text.split("_")[2]
    good = browser.post("/audit/search", {"token": token.text.text}, page="/audit")
    bad = browser.post("/audit/search", {"token": secret, "actor": "ana"}, page="/audit")
    asked = browser.get(f"/audit?token={secret}")

    assert (good.status_code, good.headers["location"]) == (303, f"/audit?token={token.record.id}")
    assert (bad.status_code, asked.status_code) == (422, 422)
    assert secret not in good.headers["location"] + bad.text + asked.text
    assert 'value="ana"' in bad.text


def test_what_cannot_be_read_is_told_beside_its_field(world: ConsoleWorld) -> None:
    browser = world.logged_in()

    for query, field in {"since=yesterday": "since", "until=2027-13-01": "until", "cursor=x": "cursor"}.items():
        answer = browser.get(f"/audit?{query}")
        assert (answer.status_code, f'id="{field}-error"' in answer.text) == (422, True)
    assert browser.get("/audit?since=0001-01-01&until=9999-12-31&more=x").status_code == 200


def test_the_export_holds_what_is_filtered(world: ConsoleWorld) -> None:
    audited(world, 3)
    world.issue(description="=1+1")
    browser = world.logged_in()
    lines = list(csv.DictReader(io.StringIO(browser.get("/audit/export.csv?action=create").text)))
    objects = [json.loads(line) for line in browser.get("/audit/export.json?action=create").text.splitlines()]

    assert [row["number"] for row in lines] == [str(row["number"]) for row in objects] == ["4", "3", "2", "1"]
    assert objects[0]["after"]["description"] == "=1+1"
    assert browser.get("/audit/export.csv?since=x").status_code == 422


def test_the_chain_is_checked_one_at_a_time(world: ConsoleWorld) -> None:
    token, browser = world.issue(), world.logged_in()
    whole = browser.post("/audit/verify", {}, page="/audit")
    with audits.ONE_VERIFICATION:
        busy = browser.post("/audit/verify", {}, page="/audit")
    with closing(sqlite3.connect(world.folder / "tokens.db", isolation_level=None)) as raw:
        for (name,) in raw.execute("SELECT name FROM sqlite_master WHERE type = 'trigger' AND tbl_name = 'tokens'").fetchall():
            raw.execute(f"DROP TRIGGER {name}")
        raw.execute("UPDATE tokens SET created_by = 'eve' WHERE id = ?", (token.record.id,))
    changed = browser.post("/audit/verify", {}, page="/audit")

    assert (whole.status_code, busy.status_code, changed.status_code) == (200, 429, 200)
    assert "rows are what was written, and every token, admin key and account is what they say" in whole.text
    assert "eve" in changed.text
    assert 'role="alert"' in changed.text
