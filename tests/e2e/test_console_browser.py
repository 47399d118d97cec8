"""The console as an admin uses it: a real browser, the real Envoy behind which a token counts, and the demo's provider."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx2
import pytest
from playwright.sync_api import Browser, Page, Playwright, expect, sync_playwright

from extauthz.demo.forgeries import Forgery
from extauthz.demo.issuer import AUDIENCE, CLIENT_ID
from extauthz.demo.launcher import Demo
from extauthz.demo.providers import OKTA
from tests.support.browser_input import Input, Keyboard, Mouse
from tests.support.browsing import NARROW, Tab, browsing, browsing_with_profile, tab
from tests.support.command_line import run
from tests.support.running import RunningDemo, running_demo
from tests.support.waiting import eventually

pytestmark = pytest.mark.envoy

CTO, ANA, VIEWER = "cto@acme.com", "ana@acme.com", "audit@acme.com"
PASSWORD = "correct horse battery"
SEARCH = "POST /rest/api/v1/search"


async def nothing(_: Demo) -> None:
    """The demo's own tokens will do."""


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningDemo]:
    with running_demo(tmp_path_factory.mktemp("console"), nothing, console=True, managed=True) as started:
        yield started


@pytest.fixture(scope="module")
def playwright() -> Iterator[Playwright]:
    """For the tests of a module: one that outlives it would leave its loop running for others."""
    with sync_playwright() as started:
        yield started


@pytest.fixture(scope="module")
def browser(playwright: Playwright) -> Iterator[Browser]:
    with browsing(playwright) as started:
        yield started


def log_in(page: Page, demo: RunningDemo, user: str = CTO, path: str = "/tokens") -> None:
    """Log in by the provider, which is another site, and come back to a page."""
    page.goto(demo.demo.console_address + path)
    page.get_by_role("link", name="Continue with your company's account").click()
    page.get_by_role("button", name=user).click()
    page.wait_for_url(demo.demo.console_address + path)


def choose(page: Page, name: str) -> None:
    """Choose a scope, or something else with this value in the form that is open."""
    page.locator(f"input[value='{name}']:visible").check()


def create(page: Page, description: str, permission: str, *, user: str = "") -> str:
    """Add a token by the dialog; return its secret."""
    page.get_by_role("link", name="Client tokens").first.click()
    page.get_by_role("link", name="Add new token").click()
    dialog = page.get_by_role("dialog", name="Add new token")
    dialog.get_by_label("Description").fill(description)
    choose(page, permission)
    if user:
        dialog.get_by_label("User", exact=True).fill(user)
    choose(page, "SEARCH")
    expect(dialog.locator("[data-preview-target]")).to_contain_text("/rest/api/v1/search")
    dialog.get_by_role("button", name="Add token").click()
    expect(page.get_by_role("heading", name="Copy the token now")).to_be_visible()
    return page.locator("#secret").inner_text()


def reason(demo: RunningDemo, token: str, **headers: str) -> str:
    """Send a search through Envoy; return the reason, "allowed" for an answer of the upstream."""
    sent = {"Authorization": f"Bearer {token}"} | {name.replace("_", "-"): value for name, value in headers.items()}
    reply = demo.send(SEARCH, sent)
    return "allowed" if reply.status == 200 else reply.reason


@pytest.fixture(scope="module")
def account(demo: RunningDemo) -> str:
    """An account of the console's own for somebody who may do everything; return its address."""
    assert run(demo.demo.folder, "console", "add-user", CTO, "--password-file", "-", text=PASSWORD).exit_code == 0
    return CTO


def journey(demo: RunningDemo, hands: Input, account: str, title: str, look: Callable[[], object] = lambda: None) -> dict[str, str]:
    """Do all that an admin does, from the provider's page to OAuth settings; return the secrets of the tokens that were made."""
    page = hands.page
    page.goto(demo.demo.console_address + "/tokens")
    hands.follow("Continue with your company's account", "Demo login")
    hands.press("Super admin", "Client tokens")
    look()
    hands.press("Log out", "Log in")
    hands.write("E-mail address", account)
    hands.write("Password", PASSWORD)
    hands.press("Log in", "Overview")
    secrets = tokens_are_made_rotated_and_revoked(demo, hands, title, look)
    oauth_is_switched_on_off_and_on_again(demo, hands, title, look)
    return secrets


def tokens_are_made_rotated_and_revoked(demo: RunningDemo, hands: Input, title: str, look: Callable[[], object]) -> dict[str, str]:
    page, acting = hands.page, {"GLOBAL": {"X_Scio_ActAs": ANA}, "USER": {}, "ANONYMOUS": {}}
    secrets = {}
    for kind in acting:
        hands.follow("Client tokens", "Client tokens")
        hands.follow("Add new token", "Add new token")
        hands.write("Description", f"{title}: {kind}")
        hands.choose("permission", kind)
        if kind == "USER":
            hands.write("User", "bob@acme.com")
        hands.tick("SEARCH")
        hands.press("Add token", "Copy the token now")
        secrets[kind] = page.locator("#secret").inner_text()
    look()
    assert {kind: reason(demo, secret, **acting[kind]) for kind, secret in secrets.items()} == dict.fromkeys(acting, "allowed")

    hands.follow("I have saved it", "Client tokens")
    hands.follow(f"{title}: USER", f"{title}: USER")
    hands.follow("Rotate", "Rotate")
    hands.choose("overlap", "1")
    hands.press("Rotate", "Copy the token now")
    secrets["successor"] = page.locator("#secret").inner_text()
    assert (reason(demo, secrets["successor"]), reason(demo, secrets["USER"])) == ("allowed", "allowed")

    hands.follow("I have saved it", "Client tokens")
    hands.follow(f"{title}: GLOBAL", f"{title}: GLOBAL")
    hands.follow("Revoke", "Revoke")
    hands.write("Reason", "a test of revocation")
    hands.press("Revoke", "Revoked")
    revoked_at = time.monotonic()
    eventually(lambda: reason(demo, secrets["GLOBAL"], X_Scio_ActAs=ANA) == "token_invalid", seconds=10)
    assert time.monotonic() - revoked_at < 1.0, "a revocation is honoured within a second"
    expect(page.get_by_role("status")).to_contain_text("Known to 1 of 1 sidecar, after")
    assert reason(demo, secrets["ANONYMOUS"]) == "allowed"
    look()
    return secrets


def oauth_is_switched_on_off_and_on_again(demo: RunningDemo, hands: Input, title: str, look: Callable[[], object]) -> None:
    page, token = hands.page, demo.demo.issuer.token(ANA)
    hands.follow("OAuth", "OAuth token-based access")
    hands.choose("provider", "okta")
    hands.write("Issuer", demo.demo.issuer.org_issuer + OKTA)
    # Another client each time, so that the settings before this journey are never the ones that it saves.
    hands.write("Allowed client ids", f"{CLIENT_ID}, {title}")
    hands.write("Audience", AUDIENCE)
    hands.tick("yes")
    hands.press("Test settings", "What the issuer says")
    expect(page.get_by_role("status")).to_contain_text("usable keys")
    for is_on, expected in ((True, "allowed"), (False, "credential_disabled"), (True, "allowed")):
        hands.tick("yes", on=is_on)
        hands.press("Check and show the difference", "What changes")
        hands.press("Save", "History")
        expect(page.get_by_role("status")).to_contain_text("is saved")
        saved_at = time.monotonic()
        eventually(lambda expected=expected: reason(demo, token, X_Glean_Auth_Type="OAUTH") == expected, seconds=20)  # type: ignore[misc]
        assert time.monotonic() - saved_at < 2.0, "settings count within two seconds"
    look()


def test_the_whole_journey_with_a_mouse(demo: RunningDemo, browser: Browser, account: str) -> None:
    with tab(browser) as opened:
        found: list[str] = []
        journey(demo, Mouse(opened.page), account, "by mouse", lambda: found.extend(look(opened)))
        assert found == []


def test_the_whole_journey_with_the_keyboard_alone(demo: RunningDemo, browser: Browser, account: str) -> None:
    with tab(browser) as opened:
        page, hands = opened.page, Keyboard(opened.page)
        journey(demo, hands, account, "by keyboard")
        hands.go_to("Skip to the content")
        page.keyboard.press("Enter")
        hands.follow("Client tokens", "Client tokens")
        hands.follow("Add new token", "Add new token")
        expect(page.get_by_label("Description", exact=True)).to_be_focused()
        page.keyboard.press("Escape")
        expect(page.get_by_role("dialog")).to_have_count(0)
        expect(page.get_by_role("link", name="Add new token")).to_be_focused()


def test_the_whole_journey_without_scripts_on_a_phone_in_the_dark(demo: RunningDemo, browser: Browser, account: str) -> None:
    with tab(browser, size=NARROW, scheme="dark", scripts=False) as opened:
        page, hands = opened.page, Mouse(opened.page)
        secret = journey(demo, hands, account, "without scripts")["successor"]
        hands.follow("Client tokens", "Client tokens")
        page.get_by_label("Description or id").fill(secret)
        hands.press("Apply", "Client tokens")
        page.wait_for_url("**/tokens?*")
        assert secret.split("_")[2] not in page.url
        expect(page.locator("tbody tr")).to_have_count(1)
        hands.press("Log out", "Log in")


def test_the_secret_is_copied_and_never_comes_back(demo: RunningDemo, playwright: Playwright, tmp_path: Path) -> None:
    """Back, reload and the profile on disk show it no more; the address of the page shows that the search would find it."""
    with browsing_with_profile(playwright, tmp_path / "profile") as opened:
        page = opened.page
        log_in(page, demo, user=ANA)
        page.context.grant_permissions(["clipboard-read", "clipboard-write"], origin=demo.demo.console_address)
        secret = create(page, "shown once", "ANONYMOUS")
        page.get_by_role("button", name="Copy").click()
        expect(page.locator("[data-copied]")).to_have_text("Copied.")
        assert page.evaluate("navigator.clipboard.readText()") == secret
        page.get_by_role("link", name="I have saved it").click()
        page.go_back()
        expect(page.get_by_text("Copy the token now")).to_have_count(0)
        assert secret not in page.content()
        page.goto(demo.demo.console_address + "/tokens/new?like=nothing0000x")
    files = [path for path in (tmp_path / "profile").rglob("*") if path.is_file()]
    hidden = secret.split("_")[2].encode()
    assert [path for path in files if b"like=nothing0000x" in path.read_bytes()] != []
    assert [path for path in files if hidden in path.read_bytes()] == []


def test_where_the_provider_names_no_time_a_login_is_confirmed_by_a_sentence(demo: RunningDemo, browser: Browser) -> None:
    """A browser goes on to the provider, where a redirect after a form would be forbidden, and comes back with both cookies."""
    file, issuer = demo.demo.configuration, demo.demo.issuer.login
    before = file.read_text(encoding="utf-8")
    issuer.forgery = Forgery.NO_LOGIN_TIME
    file.write_text(before.replace("oidc: {", "oidc: {reauthentication: confirmation, "), encoding="utf-8")
    try:
        with tab(browser, size=NARROW, scheme="dark") as opened:
            page, hands = opened.page, Keyboard(opened.page)
            log_in(page, demo, path="/tokens/new")
            expect(page.locator("input[value=GLOBAL]")).to_be_disabled()
            hands.follow("confirm that it is you", "Confirm that it is you")
            assert look(opened) == []
            hands.write("Write: it is me", "It is me")
            hands.press("Confirm", "Demo login")
            hands.press("Super admin", "Add new token")
            expect(page.locator("input[value=GLOBAL]")).to_be_enabled()
    finally:
        issuer.forgery = None
        file.write_text(before, encoding="utf-8")


def test_a_refusal_is_explained_and_a_changed_file_is_compared(demo: RunningDemo, browser: Browser) -> None:
    """By a viewer, with the file of a real route map, which a script reads into its field."""
    assert reason(demo, demo.demo.tokens["GLOBAL"]) == "act_as_missing"
    with tab(browser) as opened:
        page, hands = opened.page, Mouse(opened.page)
        log_in(page, demo, user=VIEWER)
        hands.follow("Explain", "Explain")
        page.get_by_role("link", name="act_as_missing").first.click()
        expect(page.get_by_role("heading", name="What would make it pass")).to_be_visible()
        expect(page.get_by_role("row", name="act-as")).to_contain_text("refused")
        assert look(opened) == []

        hands.follow("What if", "What if")
        changed = {"name": "any.yaml", "mimeType": "text/yaml", "buffer": b'routes: [{match: "GET /x", public: true}]'}
        page.get_by_label("Take demo-routes.yaml from a file").set_input_files([changed])
        expect(page.get_by_label("Route file demo-routes.yaml")).to_have_value('routes: [{match: "GET /x", public: true}]')
        page.get_by_role("button", name="Compare").click()
        expect(page.get_by_role("region", name="Differences")).to_contain_text("GET /x")
        expect(page.get_by_role("row", name="GET /x")).to_contain_text("let in now")
        assert look(opened) == []


def test_a_console_that_hangs_changes_no_check(demo: RunningDemo) -> None:
    console, token = demo.demo.console, demo.demo.tokens["ANONYMOUS"]
    assert console is not None
    os.kill(console.pid, signal.SIGSTOP)
    try:
        assert [reason(demo, token) for _ in range(5)] == ["allowed"] * 5
        assert run(demo.demo.folder, "token", "revoke", demo.demo.ids["ANONYMOUS"], "--yes").exit_code == 0
        eventually(lambda: reason(demo, token) == "token_invalid", seconds=10)
    finally:
        os.kill(console.pid, signal.SIGCONT)


PATHS = ["/", "/tokens", "/tokens?scope=CHAT&status=revoked", "/tokens/new", "{token}", "{token}/rotate", "{token}/revoke"]
PATHS += [
    "/settings/oauth",
    "/routes",
    "/explain",
    "/what-if",
    "/activity",
    "/audit",
    "/api",
    "/keys",
    "/sessions",
    "/confirm?next=/tokens",
    "/nothing",
]


def test_every_page_is_for_everybody(demo: RunningDemo, browser: Browser) -> None:
    """No rule of axe is broken, and nothing has to be scrolled sideways; `make screenshots` looks in all sizes and colours."""
    with tab(browser, size=NARROW, scheme="dark") as opened:
        page = opened.page
        page.goto(demo.demo.console_address + "/login")
        found = look(opened)
        log_in(page, demo)
        token = page.locator("td.first a").first.get_attribute("href") or ""
        for path in PATHS:
            page.goto(demo.demo.console_address + path.format(token=token))
            found += look(opened)
        page.goto(demo.demo.console_address + "/tokens")
        page.get_by_role("link", name="Add new token").click()
        found += look(opened)
        page.get_by_role("dialog").get_by_role("button", name="Add token").click()
        assert found == []


def look(opened: Tab) -> list[str]:
    """Return what is wrong with a page for somebody."""
    return opened.violations() + [f"{opened.page.url}: scrolls sideways"] * opened.scrolls_sideways()


def test_a_console_that_is_overloaded_and_then_dies_changes_no_check(demo: RunningDemo) -> None:
    """It is the last test of the demo, which has no console afterwards."""
    console, token = demo.demo.console, demo.demo.tokens["GLOBAL"]
    assert console is not None
    pages, ending = Counter[int](), threading.Event()

    def ask() -> None:
        while not ending.is_set():
            pages[httpx2.get(f"{demo.demo.console_address}/login").status_code] += 1

    with ThreadPoolExecutor(16) as strangers:
        for _ in range(16):
            strangers.submit(ask)
        try:
            eventually(lambda: pages.total() > 20, seconds=20)
            assert [reason(demo, token, X_Scio_ActAs="ana@acme.com") for _ in range(20)] == ["allowed"] * 20
        finally:
            ending.set()
    os.kill(console.pid, signal.SIGKILL)
    eventually(lambda: is_gone(f"{demo.demo.console_address}/login"), seconds=10)
    assert [reason(demo, token, X_Scio_ActAs="ana@acme.com") for _ in range(5)] == ["allowed"] * 5


def is_gone(address: str) -> bool:
    try:
        httpx2.get(address)
    except httpx2.TransportError:
        return True
    return False
