"""Two ways to use a page in a real browser, so that one journey can be made by either: a mouse, and a keyboard without one."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Protocol

from playwright.sync_api import Locator, Page, expect

MOST_STOPS = 120
"""Presses of Tab after which the focus must have been everywhere on a page."""
_FOCUSED = """(() => {
  const at = document.activeElement;
  const text = at.getAttribute("aria-label") || at.labels?.[0]?.innerText || at.innerText || at.value || "";
  const name = at === document.body ? "" : text;
  return { name: name.trim(), kind: at.type ?? "", group: at.name ?? "", value: at.value ?? "", checked: at.checked ?? false };
})()"""


class Input(Protocol):
    """What somebody does on a page; names are those that a screen reader says, or how they begin."""

    page: Page

    def follow(self, link: str, heading: str) -> None: ...
    def press(self, button: str, heading: str) -> None: ...
    def write(self, field: str, text: str) -> None: ...
    def choose(self, group: str, value: str) -> None: ...
    def tick(self, value: str, *, on: bool = True) -> None: ...


class Mouse:
    """Clicks; it needs no script on the page."""

    def __init__(self, page: Page) -> None:
        self.page = page

    def follow(self, link: str, heading: str) -> None:
        """Click a link, and wait for what it leads to."""
        self.page.get_by_role("link", name=link).first.click()
        shown(self.page, heading)

    def press(self, button: str, heading: str) -> None:
        """Click a button, and wait for the answer."""
        self.page.get_by_role("button", name=re.compile(f"^{re.escape(button)}")).click()
        shown(self.page, heading)

    def write(self, field: str, text: str) -> None:
        """Fill a field."""
        self.page.get_by_label(field, exact=True).filter(visible=True).fill(text)

    def choose(self, group: str, value: str) -> None:
        """Choose one of several."""
        self._box(value).and_(self.page.locator(f"[name='{group}']")).check()

    def tick(self, value: str, *, on: bool = True) -> None:
        """Tick a box, or remove the tick."""
        self._box(value).set_checked(on)

    def _box(self, value: str) -> Locator:
        return self.page.locator(f"input[value='{value}']").filter(visible=True)


class Keyboard:
    """Presses keys, and nothing else: what the focus never comes to cannot be used."""

    def __init__(self, page: Page) -> None:
        self.page = page

    def follow(self, link: str, heading: str) -> None:
        """Go to a link and follow it."""
        self._activate(link, heading)

    def press(self, button: str, heading: str) -> None:
        """Go to a button and press it."""
        self._activate(button, heading)

    def write(self, field: str, text: str) -> None:
        """Go to a field and type instead of what it holds."""
        self.go_to(field)
        self.page.keyboard.press("Control+a")
        self.page.keyboard.type(text)

    def choose(self, group: str, value: str) -> None:
        """Go to a group, of which one takes the focus, and on to the one that is meant."""
        self._stop_at(lambda at: (at["kind"], at["group"]) == ("radio", group), f"a choice of {group}")
        for _ in range(10):
            if self._focused()["value"] == value:
                break
            self.page.keyboard.press("ArrowDown")
        else:
            raise AssertionError(f"no arrow leads to {value!r} of {group}")
        if not self._focused()["checked"]:
            self.page.keyboard.press("Space")
        assert self._focused()["checked"], f"{value!r} of {group} cannot be chosen by a key"

    def tick(self, value: str, *, on: bool = True) -> None:
        """Go to a box and tick it, or remove the tick."""
        self._stop_at(lambda at: (at["kind"], at["value"]) == ("checkbox", value), f"a box of {value!r}")
        if self._focused()["checked"] is not on:
            self.page.keyboard.press("Space")
        assert self._focused()["checked"] is on

    def go_to(self, name: str) -> None:
        """Press Tab until what has the focus begins with this name."""
        self._stop_at(lambda at: at["name"].startswith(name), repr(name))

    def _activate(self, name: str, heading: str) -> None:
        self.go_to(name)
        self.page.keyboard.press("Enter")
        shown(self.page, heading)

    def _stop_at(self, is_it: Callable[[dict[str, Any]], bool], what: str) -> None:
        for _ in range(MOST_STOPS):
            if is_it(self._focused()):
                return
            self.page.keyboard.press("Tab")
        raise AssertionError(f"nothing that is {what} takes the focus on {self.page.url}")

    def _focused(self) -> dict[str, Any]:
        found: dict[str, Any] = self.page.evaluate(_FOCUSED)
        return found


def shown(page: Page, heading: str) -> None:
    """Wait for a heading."""
    expect(page.get_by_role("heading", name=heading).first).to_be_visible()
