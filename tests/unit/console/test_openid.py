"""Where a login leads afterwards, and what its cookie holds; the whole way is in tests/integration/console."""

from __future__ import annotations

import asyncio
import hmac
import re
from urllib.parse import urlencode

import httpx2
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from extauthz.config.console import LoginSection
from extauthz.console.id_tokens import LoginRefusal
from extauthz.console.login_cookie import MAX_PATH, local_path
from extauthz.console.openid import OpenIdLogin
from tests.support.world import NOW, StillClock, base64url

SITE = "https://console.acme.com"
PATHS = ["/", "/tokens", "/tokens?text=a+b&sort=age", "/tokens/abc123#rotate", "/a%2Fb", "/%2e%2e", f"/{'x' * (MAX_PATH - 1)}"]
AWAY = [
    "",
    "tokens",
    "https://evil.com",
    "//evil.com",
    "/\\evil.com",
    "\\\\evil.com",
    "/..//evil.com",
    "/a//b",
    "/a/../b",
    "/\t/evil.com",
    "/\n/evil.com",
    " //evil.com",
    "/ /evil.com",
    "javascript:alert(1)",
    "/ä",
    "/\x00",
    f"/{'x' * MAX_PATH}",
]


@pytest.mark.parametrize("path", PATHS)
def test_a_path_of_our_own_is_gone_on_at(path: str) -> None:
    assert local_path(path) == path


@pytest.mark.parametrize("path", AWAY)
def test_anything_else_leads_to_the_first_page(path: str) -> None:
    assert local_path(path) == "/"


def as_a_browser_reads(location: str) -> str:
    """Return where a browser goes from SITE: it drops tabs and line ends, and takes a backslash for a slash (WHATWG URL 4.4)."""
    text = re.sub(r"[\t\n\r]", "", location.strip("".join(map(chr, range(33))))).replace("\\", "/")
    return str(httpx2.URL(SITE).join(text))


@given(st.text(st.sampled_from("/\\.@:?#%2fFhtps\t\n\r evil.com") | st.characters(), max_size=30))
@example("/\\/evil.com")
@example("/.//evil.com")
def test_no_path_leads_off_the_site(text: str) -> None:
    for location in (local_path(text), local_path(f"/{text}")):
        assert as_a_browser_reads(location).startswith(f"{SITE}/")
        assert not as_a_browser_reads(location).startswith(f"{SITE}//")


@pytest.mark.parametrize(
    "cookie",
    [
        "",
        "x",
        f"{'A' * 42}.1.0.Lw",
        f"{'A' * 43}.1.2.Lw",
        f"{'A' * 43}.-1.0.Lw",
        f"{'A' * 43}.1.0.",
        f"{'A' * 43}.1.0.L",
        f"{'A' * 43}.1.0._w",
        f"{'A' * 43}.1.0.Lw\n",
        f"{'A' * 43}.{'9' * 40}.0.Lw",
        f"{'A' * 43}.1.0.{'L' * 5000}",
        f"{'Ä' * 43}.1.0.Lw",
    ],
)
def test_a_cookie_that_is_none_of_ours_begins_nothing(cookie: str) -> None:
    assert asyncio.run(login().finish("code=a&state=b", cookie, NOW)) is LoginRefusal.NOT_BEGUN


@pytest.mark.parametrize("path", [path for path in AWAY if path.isascii()])
def test_a_cookie_that_somebody_wrote_leads_nowhere_else(path: str) -> None:
    """Whoever writes it knows the seed, and so can make the state that belongs to it."""
    rest = f"{int(NOW)}.0.{base64url(path.encode())}"
    state = base64url(hmac.digest(b"s" * 32, f"state\0{rest}".encode(), "sha256"))
    ended = asyncio.run(login().finish(urlencode({"code": "a", "state": state}), f"{base64url(b's' * 32)}.{rest}", NOW))
    assert ended is (LoginRefusal.STATE if path else LoginRefusal.NOT_BEGUN)


def login() -> OpenIdLogin:
    section = LoginSection(issuer="https://acme.okta.com", client_id="a")
    return OpenIdLogin(section, f"{SITE}/login/callback", secret=None, trust=None, clock=StillClock())
