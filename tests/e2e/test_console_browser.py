"""The console as an admin uses it: a real browser, the real Envoy behind which a token counts, and the demo's provider."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, Playwright, expect, sync_playwright

from extauthz.demo.issuer import AUDIENCE, CLIENT_ID
from extauthz.demo.launcher import Demo
from extauthz.demo.providers import OKTA
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


def test_each_kind_of_token_is_made_used_rotated_and_revoked(demo: RunningDemo, browser: Browser) -> None:
    with tab(browser) as opened:
        page = opened.page
        log_in(page, demo)
        expect(page.get_by_role("row")).to_have_count(5)
        found = look(opened)
        acting = {"GLOBAL": {"X_Scio_ActAs": ANA}, "USER": {}, "ANONYMOUS": {}}
        secrets = {
            kind: create(page, f"a browser's {kind} token", kind, user="bob@acme.com" if kind == "USER" else "") for kind in acting
        }
        assert {kind: reason(demo, secret, **acting[kind]) for kind, secret in secrets.items()} == dict.fromkeys(acting, "allowed")

        found += look(opened)
        page.get_by_role("link", name="I have saved it").click()
        page.get_by_role("link", name="a browser's USER token").click()
        page.get_by_role("link", name="Rotate").click()
        page.get_by_role("radio", name="After 1 hour").check()
        page.get_by_role("button", name="Rotate").click()
        successor = page.locator("#secret").inner_text()
        assert (reason(demo, successor), reason(demo, secrets["USER"])) == ("allowed", "allowed")

        page.get_by_role("link", name="I have saved it").click()
        page.get_by_role("link", name="a browser's GLOBAL token").click()
        page.get_by_role("link", name="Revoke").click()
        page.get_by_label("Reason").fill("a test of revocation")
        page.get_by_role("button", name="Revoke").click()
        expect(page.get_by_role("heading", name="Revoked")).to_be_visible()
        expect(page.get_by_role("status")).to_contain_text("Known to 1 of 1 sidecars, after")
        revoked_at = time.monotonic()
        eventually(lambda: reason(demo, secrets["GLOBAL"], X_Scio_ActAs=ANA) == "token_invalid", seconds=10)
        assert time.monotonic() - revoked_at < 1.0, "a revocation is honoured within a second"
        assert reason(demo, secrets["ANONYMOUS"]) == "allowed"
        assert found + look(opened) == []


def test_oauth_is_switched_on_off_and_on_again(demo: RunningDemo, browser: Browser) -> None:
    token = demo.demo.issuer.token(ANA)

    def answered() -> str:
        return reason(demo, token, X_Glean_Auth_Type="OAUTH")

    with tab(browser) as opened:
        page = opened.page
        log_in(page, demo, path="/settings/oauth")
        assert answered() != "allowed"
        page.get_by_role("radio", name="Okta").check()
        page.get_by_label("Issuer").fill(demo.demo.issuer.org_issuer + OKTA)
        page.get_by_label("Allowed client ids").fill(CLIENT_ID)
        page.get_by_label("Audience").fill(AUDIENCE)
        page.get_by_label("Allow OAuth token-based access").check()
        page.get_by_role("button", name="Test settings").click()
        expect(page.get_by_role("status")).to_contain_text("usable keys")
        for is_on, reasons in ((True, "allowed"), (False, "credential_disabled"), (True, "allowed")):
            page.get_by_label("Allow OAuth token-based access").set_checked(is_on)
            page.get_by_role("button", name="Check and show the difference").click()
            page.get_by_role("button", name="Save").click()
            expect(page.get_by_role("status")).to_contain_text("is saved")
            saved_at = time.monotonic()
            eventually(lambda reasons=reasons: answered() == reasons, seconds=20)  # type: ignore[misc]
            assert time.monotonic() - saved_at < 2.0, "settings count within two seconds"


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


def test_the_keyboard_alone_will_do(demo: RunningDemo, browser: Browser) -> None:
    with tab(browser) as opened:
        page = opened.page
        log_in(page, demo, user=ANA)
        tab_to(page, "Skip to the content")
        page.keyboard.press("Enter")
        tab_to(page, "Add new token")
        page.keyboard.press("Enter")
        expect(page.get_by_label("Description", exact=True)).to_be_focused()
        page.keyboard.type("typed")
        page.keyboard.press("Tab")
        page.keyboard.press("ArrowUp")  # from USER to ANONYMOUS, past GLOBAL, which is switched off
        expect(page.locator("input[value=ANONYMOUS]:visible")).to_be_checked()
        tab_to(page, "SEARCH")
        page.keyboard.press("Space")
        tab_to(page, "Add token")
        page.keyboard.press("Enter")
        expect(page.locator("#secret")).to_be_visible()
        page.goto(demo.demo.console_address + "/tokens")
        tab_to(page, "Add new token")
        page.keyboard.press("Enter")
        page.keyboard.press("Escape")
        expect(page.get_by_role("dialog")).to_have_count(0)
        expect(page.get_by_role("link", name="Add new token")).to_be_focused()


def tab_to(page: Page, name: str) -> None:
    """Press Tab until what has the focus begins with this name."""
    for _ in range(80):
        page.keyboard.press("Tab")
        focused = page.evaluate(
            "(() => { const at = document.activeElement; return at.labels?.[0]?.innerText || at.innerText || at.value || '' })()"
        )
        if focused.strip().startswith(name):
            return
    raise AssertionError(f"nothing called {name!r} takes the focus")


def test_without_scripts_on_a_phone_in_the_dark(demo: RunningDemo, browser: Browser) -> None:
    assert run(demo.demo.folder, "console", "add-user", ANA, "--password-file", "-", text=PASSWORD).exit_code == 0
    with tab(browser, size=NARROW, scheme="dark", scripts=False) as opened:
        page = opened.page
        page.goto(demo.demo.console_address + "/tokens")
        page.get_by_label("E-mail address").fill(ANA)
        page.get_by_label("Password").fill(PASSWORD)
        page.get_by_role("button", name="Log in").click()
        page.get_by_role("link", name="Add new token").click()
        page.get_by_label("Description", exact=True).fill("made on a phone")
        choose(page, "ANONYMOUS")
        choose(page, "SEARCH")
        page.get_by_role("button", name="Add token").click()
        secret = page.locator("#secret").inner_text()
        assert reason(demo, secret) == "allowed"
        page.get_by_role("link", name="I have saved it").click()
        page.get_by_label("Description or id").fill(secret)
        page.get_by_role("button", name="Apply").click()
        assert secret.split("_")[2] not in page.url
        page.get_by_role("link", name="made on a phone").click()
        page.get_by_role("link", name="Revoke").click()
        page.get_by_role("button", name="Revoke").click()
        eventually(lambda: reason(demo, secret) == "token_invalid", seconds=10)
        page.get_by_role("button", name="Log out").click()
        expect(page.get_by_role("heading", name="Log in")).to_be_visible()


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
PATHS += ["/settings/oauth", "/routes", "/activity", "/audit", "/api", "/keys", "/sessions", "/confirm?next=/tokens", "/nothing"]


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
