"""A real browser on the console: pages are failed by what the browser's console says, and looked at with axe."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import axe_playwright_python
import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, Playwright

WIDE, NARROW = (1280, 860), (390, 844)
# What a page is answered with on purpose, which the browser tells as an error.
ON_PURPOSE = ("status of 4",)


def chromium() -> str:
    """Return the program; skip where there is none, but not under CI."""
    program = shutil.which("chromium") or shutil.which("google-chrome")
    if program is None:
        missing = "no Chromium: run 'make browser', or on Debian 'apt-get install chromium'"
        assert not os.environ.get("CI"), missing
        pytest.skip(missing)  # why: nobody has to install a browser to try the rest; CI has one
    return program


@contextmanager
def browsing(playwright: Playwright) -> Iterator[Browser]:
    """Run a browser."""
    browser = playwright.chromium.launch(executable_path=chromium())
    try:
        yield browser
    finally:
        browser.close()


@dataclass
class Tab:
    """A page of a context of its own, and what its console said that it should not."""

    page: Page
    complaints: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Listen."""
        self.page.on("console", self._note)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))

    def _note(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning") and not any(text in message.text for text in ON_PURPOSE):
            self.complaints.append(message.text)

    def violations(self) -> list[str]:
        """Return what axe finds on the page as it is."""
        self.page.evaluate(axe())
        found = self.page.evaluate("axe.run(document, {resultTypes: ['violations']})")["violations"]
        return [f"{self.page.url}: {each['id']}: {each['nodes'][0]['html'][:120]}" for each in found]

    def scrolls_sideways(self) -> bool:
        """Tell whether the page is wider than the window."""
        return bool(self.page.evaluate("document.documentElement.scrollWidth > document.documentElement.clientWidth"))


@contextmanager
def tab(browser: Browser, *, size: tuple[int, int] = WIDE, scheme: Any = "light", scripts: bool = True) -> Iterator[Tab]:
    """Open a tab without cookies; fail at its end if its console complained."""
    viewport: Any = {"width": size[0], "height": size[1]}
    context = browser.new_context(
        color_scheme=scheme, viewport=viewport, java_script_enabled=scripts, reduced_motion="reduce", permissions=[]
    )
    context.set_default_timeout(10_000)
    opened = Tab(context.new_page())
    try:
        yield opened
    finally:
        context.close()
    assert opened.complaints == []


@contextmanager
def browsing_with_profile(playwright: Playwright, folder: Path) -> Iterator[Tab]:
    """Run a browser that keeps a profile on disk, and pages that one leaves in memory, as everybody's browser does."""
    context = playwright.chromium.launch_persistent_context(
        folder, executable_path=chromium(), ignore_default_args=["--disable-back-forward-cache"]
    )
    context.set_default_timeout(10_000)
    opened = Tab(context.new_page())
    try:
        yield opened
    finally:
        context.close()
    assert opened.complaints == []


@cache
def axe() -> str:
    """Return axe-core, as a package brings it along."""
    return (Path(axe_playwright_python.__file__).parent / "axe.min.js").read_text("utf-8")
