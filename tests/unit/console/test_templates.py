"""Laws of the templates: nothing that a strict policy would block, and nothing that escaping does not reach."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from extauthz.console import rendering

FOLDER = Path(rendering.__file__).parent / "templates"
TEMPLATES = sorted(path.name for path in FOLDER.iterdir())
LAWS = {
    "a filter that switches escaping off": r"\|\s*safe\b",
    "escaping that is switched off": r"autoescape",
    "an attribute without quotes": r"\s[a-z-]+=\{\{",
    "a style of its own": r"\bstyle=|<style",
    "a script of its own": r"<script(?! type=\"module\" src=\"\{\{ static\()",
    "a handler in an attribute": r"\son[a-z]+=",
    "an address that may be no path": r"(?:href|action|src)=\"\{\{ (?!static\(|path \}\}|link \}\}|[a-z]+\.link\()",
    "an address elsewhere": r"(?:href|src|action)=\"(?:https?:)?//",
    "a frame": r"<(?:iframe|object|embed)",
}
BROKEN = {
    "a filter that switches escaping off": "{{ text | safe }}",
    "escaping that is switched off": "{% autoescape false %}",
    "an attribute without quotes": "<a title={{ text }}>",
    "a style of its own": '<p style="color: red">',
    "a script of its own": "<script>alert(1)</script>",
    "a handler in an attribute": '<a onclick="x()">',
    "an address that may be no path": '<a href="{{ text }}">',
    "an address elsewhere": '<a href="https://evil.test">',
    "a frame": "<iframe>",
}


def breaks(law: str, text: str) -> list[str]:
    """Return what breaks a law in a text."""
    return re.findall(f"{LAWS[law]}.*", text)


@pytest.mark.parametrize("law", LAWS)
def test_a_law_finds_what_breaks_it(law: str) -> None:
    assert breaks(law, BROKEN[law])


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("name", TEMPLATES)
def test_no_template_breaks_a_law(name: str, law: str) -> None:
    assert breaks(law, (FOLDER / name).read_text("utf-8")) == []


@pytest.mark.parametrize("name", TEMPLATES)
def test_every_form_carries_its_token(name: str) -> None:
    """The form to log in has none, since there is no session: Origin and Sec-Fetch-Site stand before it."""
    forms = re.findall(r"<form[^>]*method=\"post\".*?</form>", (FOLDER / name).read_text("utf-8"), re.DOTALL)
    assert [form[:80] for form in forms if 'name="csrf"' not in form and "parts.token(" not in form and "/login" not in form] == []


def test_every_template_escapes() -> None:
    text = rendering.render("message.html", {"title": "<b>", "text": "'\"<&", "link": "/", "label": "x"})
    assert ("<b>" in text, "&lt;b&gt;" in text, "&#39;&#34;&lt;&amp;" in text) == (False, True, True)


def test_files_have_names_of_their_content() -> None:
    path = rendering.static_path("console.css")
    assert re.fullmatch(r"/static/[0-9a-f]{12}/console\.css", path)
    with pytest.raises(KeyError):
        rendering.static_path("nothing.css")


@pytest.mark.parametrize(
    ("seconds", "says"),
    [
        (0, "just now"),
        (-1, "just now"),
        (1, "in less than a minute"),
        (60, "in 1 minute"),
        (-60, "1 minute ago"),
        (7200, "in 2 hours"),
        (-86_400, "1 day ago"),
        (90 * 86_400, "in 90 days"),
        (-366 * 86_400, "1 year ago"),
    ],
)
def test_distances(seconds: int, says: str) -> None:
    assert rendering.distance(1_800_000_000 + seconds, 1_800_000_000) == says


@pytest.mark.parametrize(
    ("seconds", "says"), [(-1, "0 seconds"), (0, "0 seconds"), (1, "1 second"), (59, "59 seconds"), (3600, "1 hour")]
)
def test_lengths_of_time(seconds: int, says: str) -> None:
    assert rendering.lasting(seconds) == says
