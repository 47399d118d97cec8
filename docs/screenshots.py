"""Take pictures of every page of the console, light and dark, wide and narrow, into docs/images/: `make screenshots`.

The pages are those of the demo, with the real sidecar behind a real Envoy, and more tokens than the demo has.
"""

from __future__ import annotations

import json
import re
import sqlite3
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.client import HTTPConnection
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from playwright.sync_api import Page, sync_playwright

from extauthz.demo.launcher import Demo
from tests.support.browsing import NARROW, WIDE, Tab, browsing, tab
from tests.support.running import RunningDemo, running_demo

IMAGES = Path(__file__).parent / "images"
ROOT = Path(__file__).parent.parent
ROUTES = ROOT / "config" / "routes" / "glean-client-api.yaml"
WITHOUT_FOLDER = """folder => {
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walk.nextNode()) walk.currentNode.data = walk.currentNode.data.replaceAll(folder, "");
}"""
"""Takes the folder of this tree out of a page: pictures are of no machine."""
DESCRIPTIONS = (
    "Nightly crawler of the wiki",
    "Search box on the intranet",
    "Ana's notebook",
    "Support bot: answers in the help desk",
    "Chat in the mobile app",
    "Release notes to announcements",
    "Import of profiles from the directory",
    "A description that goes on to the end, as two hundred characters are allowed and there was much to say about what it is for",
    "Übersicht für die Zentrale, täglich um 6 Uhr",
    "Pneumonoultramicroscopicsilicovolcanoconiosis-Supercalifragilisticexpialidocious-Index",
    "Dashboards of the sales team",
    "Verification reminders",
)
KEYS = (
    ("admin", "Rotation of tokens in CI", ""),
    ("viewer", "Report of the audit, every Monday", "cto@acme.com"),
    ("viewer", "Dashboard of tokens", "cto@acme.com"),
    ("super_admin", "Provisioning: tokens and settings of the test system", "lead@acme.com"),
    ("admin", "Pneumonoultramicroscopicsilicovolcanoconiosis-Supercalifragilisticexpialidocious", "left@acme.com"),
)
SCOPES = ("SEARCH", "CHAT", "DOCUMENTS", "PEOPLE", "ANNOUNCEMENTS", "COLLECTIONS", "INSIGHTS", "VERIFICATION")
PAGES = {
    "overview": "/",
    "tokens": "/tokens",
    "tokens-none": "/tokens?scope=FEED&status=revoked",
    "new": "/tokens/new",
    "token": "{token}",
    "rotate": "{token}/rotate",
    "revoke": "{token}/revoke",
    "routes": "/routes",
    "activity": "/activity",
    "audit": "/audit",
    "api": "/api",
    "keys": "/keys?all=1",
    "key-revoke": "{key}",
    "sessions": "/sessions",
    "confirm": "/confirm?next=/tokens",
}


def orders() -> list[dict[str, Any]]:
    """Return tokens of every kind."""
    kinds = ("USER", "ANONYMOUS", "USER", "GLOBAL")
    made = []
    for number in range(36):
        kind = kinds[number % len(kinds)]
        order = {
            "description": DESCRIPTIONS[number % len(DESCRIPTIONS)],
            "permission": kind,
            "scopes": [SCOPES[(number + step) % len(SCOPES)] for step in range(1 + number % 6)],
            "expires": ("30d", "90d", "7d", "365d", "180d")[number % 5],
        }
        made.append(order | ({"user": ("ana@acme.com", "bob@acme.com", "mia@acme.com")[number % 3]} if kind == "USER" else {}))
    return made


async def fill(demo: Demo) -> None:
    """Make the tokens, rotate one, and revoke some."""
    file = demo.folder / "many.json"
    file.write_text(json.dumps(orders()), encoding="utf-8")
    ids = [made["id"] for made in await demo.extauthz("token", "create", "--from-file", str(file))]
    await demo.extauthz("token", "rotate", ids[14])
    await demo.extauthz("token", "revoke", ids[3], ids[9], "--yes", "--why", "the project ended")
    await make_keys(demo)
    now = int(time.time())  # noqa: TID251 - pictures are of now
    uses = [(token_id, now - number, f"10.4.{number}.0/24") for number, token_id in enumerate(ids[12::2])]
    with closing(sqlite3.connect(demo.folder / "tokens.db")) as connection, connection:
        connection.executemany("INSERT INTO token_usage VALUES (?, ?, ?)", uses)


async def make_keys(demo: Demo) -> None:
    """Make admin keys: good ones, one that was revoked, of a maker without a role, and of one who has a lower one by now."""
    roles = demo.configuration.read_text(encoding="utf-8")
    earlier = re.sub(
        "^roles: .*$", "roles: {super_admins: [left@acme.com, lead@acme.com, cto@acme.com]}", roles, flags=re.MULTILINE
    )
    demo.configuration.write_text(earlier, encoding="utf-8")
    made = []
    for role, description, maker in KEYS:
        arguments = ["console", "key", "create", "--role", role, "--description", description, "--expires", "90d"]
        made += await demo.extauthz(*arguments, *(("--as", maker) if maker else ()))
    demo.configuration.write_text(roles.replace("viewers: [", "viewers: [lead@acme.com, "), encoding="utf-8")
    await demo.extauthz("console", "key", "revoke", made[1]["id"], "--yes")


def traffic(demo: RunningDemo) -> None:
    """Send requests that are allowed, and such that are not."""
    tokens = demo.demo.tokens
    calls = [
        ("/rest/api/v1/search", {"Authorization": f"Bearer {tokens['GLOBAL']}", "X-Scio-ActAs": "ana@acme.com"}),
        ("/rest/api/v1/chat", {"Authorization": f"Bearer {tokens['USER_TOKEN']}"}),
        ("/rest/api/v1/chat", {"Authorization": f"Bearer {tokens['ANONYMOUS']}"}),
        ("/rest/api/v1/search", {"Authorization": f"Bearer {tokens['REVOKED']}"}),
        ("/rest/api/v1/search", {}),
        ("/rest/api/v1/feed", {"Authorization": f"Bearer {tokens['GLOBAL']}"}),
    ]
    for path, headers in (call for weight, call in enumerate(calls) for _ in range(60 // (weight + 1))):
        connection = HTTPConnection("127.0.0.1", demo.demo.ports.envoy, timeout=10)
        with closing(connection):
            connection.request("POST", path, headers=headers)
            connection.getresponse().read()


def log_in(page: Page, address: str) -> None:
    """Log in as a super admin."""
    page.goto(f"{address}/tokens")
    page.get_by_role("link", name="Continue with your company's account").click()
    page.get_by_role("button", name="cto@acme.com").click()
    page.wait_for_url(f"{address}/tokens")


@contextmanager
def console() -> Iterator[RunningDemo]:
    """Run the demo, without progress of its own."""
    with TemporaryDirectory() as folder, running_demo(Path(folder), fill, console=True, managed=True) as demo:
        traffic(demo)
        yield demo


def take(opened: Tab, name: str, scheme: str, *, whole: bool = True) -> list[str]:
    """Take one picture; return what is wrong with the page."""
    size = "narrow" if opened.page.viewport_size == {"width": NARROW[0], "height": NARROW[1]} else "wide"
    opened.page.screenshot(path=IMAGES / f"{name}-{scheme}-{size}.png", full_page=whole)
    wide = [f"{opened.page.url}: scrolls sideways"] if opened.scrolls_sideways() else []
    return opened.violations() + wide


def walk(opened: Tab, address: str, scheme: str) -> list[str]:
    """Take a picture of each page; return what is wrong with them."""
    page = opened.page
    page.goto(f"{address}/login")
    wrong = take(opened, "login", scheme)
    log_in(page, address)
    token = page.get_by_role("link", name="Search box on the intranet").last.get_attribute("href")
    page.goto(f"{address}/keys")
    key = page.get_by_role("link", name="Revoke Dashboard of tokens").get_attribute("href")
    for name, path in PAGES.items():
        page.goto(address + path.format(token=token, key=key))
        wrong += take(opened, name, scheme, whole=name not in ("tokens", "routes", "audit"))
    page.goto(f"{address}/tokens")
    page.get_by_role("link", name="Add new token").click()
    dialog = page.get_by_role("dialog", name="Add new token")
    dialog.get_by_label("Description").fill("Search box on the intranet")
    for value in ("ANONYMOUS", "SEARCH"):
        page.locator(f"input[value='{value}']:visible").check()
    dialog.get_by_text("POST /rest/api/v1/search").wait_for()
    wrong += take(opened, "dialog", scheme, whole=False)
    dialog.get_by_role("button", name="Add token").click()
    page.get_by_role("heading", name="Copy the token now").wait_for()
    wrong += take(opened, "secret", scheme)
    wrong += take_tools(opened, address, scheme)
    page.goto(f"{address}/settings/oauth")
    page.get_by_role("radio", name="Okta").check()
    page.get_by_label("Issuer").fill("https://acme")
    page.get_by_label("Allowed client ids").fill("0oa1example, 0oa2example")
    page.get_by_role("button", name="Check and show the difference").click()
    return wrong + take(opened, "oauth", scheme)


def take_tools(opened: Tab, address: str, scheme: str) -> list[str]:
    """Take pictures of a denial that is explained, and of a changed route file that is compared."""
    page = opened.page
    page.goto(f"{address}/explain")
    page.get_by_role("main").get_by_role("link", name="act_as_missing").first.click()
    page.get_by_role("heading", name="What would make it pass").wait_for()
    page.evaluate(WITHOUT_FOLDER, f"{ROOT}/")
    wrong = take(opened, "explain", scheme)
    page.goto(f"{address}/what-if")
    routes = ROUTES.read_text(encoding="utf-8").replace("scope: SEARCH}", "public: true}", 1)
    page.locator("textarea[name=routes]").first.fill(
        f'{routes}\n  - {{match: "GET /rest/api/v1/new/{{id}}", any_of: [SEARCH, CHAT]}}\n'
    )
    page.get_by_role("button", name="Compare").click()
    page.get_by_role("region", name="Differences").wait_for()
    page.evaluate(WITHOUT_FOLDER, f"{ROOT}/")
    return wrong + take(opened, "what-if", scheme)


def main() -> int:
    """Take all of them; return 1 when a page breaks a rule."""
    IMAGES.mkdir(exist_ok=True)
    wrong: list[str] = []
    with console() as demo, sync_playwright() as playwright, browsing(playwright) as browser:
        for scheme in ("light", "dark"):
            for size in (WIDE, NARROW):
                sys.stderr.write(f"{scheme}, {size[0]} px\n")
                with tab(browser, size=size, scheme=scheme) as opened:
                    wrong += walk(opened, demo.demo.console_address, scheme)
    sys.stderr.write("".join(f"{line}\n" for line in wrong))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
