"""The console on a store of its own, visited within this process: pages, forms and cookies as a browser would have them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from functools import cache
from html import unescape
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import urlencode

import yaml
from anyio.from_thread import BlockingPortal, start_blocking_portal
from httpx2 import Response
from starlette.testclient import TestClient
from starlette.types import ASGIApp

from extauthz.adapters.store.sql import SqlTokenStore
from extauthz.admin import accounts, tokens
from extauthz.admin.outcomes import Refused
from extauthz.admin.rights import Actor, Role
from extauthz.admin.token_requests import TokenRequest
from extauthz.admin.tokens import NewToken
from extauthz.config.loader import load
from extauthz.console import passwords
from extauthz.console.app import application
from extauthz.console.context import Context
from extauthz.console.current import CurrentConfiguration
from extauthz.console.openid import OpenIdLogin
from extauthz.core.model import AuthType

NOW, DAY = 1_800_000_000, 86_400
ORIGIN = "https://console.acme.com"
PASSWORD = "correct horse battery"
HASH = passwords.hashed(PASSWORD)
WHO = {Role.VIEWER: "val@acme.com", Role.ADMIN: "ana@acme.com", Role.SUPER_ADMIN: "cto@acme.com"}
FOUNDER = Actor("os:founder", Role.SUPER_ADMIN, "a test")
SETTINGS: dict[str, Any] = {
    "version": 1,
    "server": {"listen": "127.0.0.1:9001", "ops": None},
    "tokens": {"store": "sqlite:///tokens.db", "peppers": [{"id": "p1", "file": "pepper"}]},
    "act_as": {"allow": ["*@acme.com"]},
    "scopes": ["CHAT", "SEARCH"],
    "routes": ["routes.yaml"],
    "roles": {"viewers": ["val@acme.com"], "admins": ["ana@acme.com"], "super_admins": ["cto@acme.com"]},
    "console": {"public_url": ORIGIN, "local_accounts": True},
}
ROUTES = """\
routes:
  - {match: "POST /search", scope: SEARCH, anonymous: true}
  - {match: "POST /chat", scope: CHAT}
"""


@dataclass
class ConsoleWorld:
    """A folder with configuration and store, and the application; `now` and `ticks` are the clocks."""

    folder: Path
    store: SqlTokenStore
    portal: BlockingPortal
    now: float = NOW
    ticks: float = 0.0
    openid: OpenIdLogin | None = None
    settings: dict[str, Any] = field(default_factory=lambda: dict(SETTINGS))

    def __post_init__(self) -> None:
        """Write the files and make the application."""
        (self.folder / "pepper").write_bytes(b"a pepper for tests, 32 bytes long")
        (self.folder / "routes.yaml").write_text(ROUTES)
        self.change()
        self.current = CurrentConfiguration(load(self.file), self.store, monotonic=lambda: self.ticks, now=lambda: self.now)
        self.context = Context(
            self.current.configuration,
            self.current.administration,
            self.current.route_map,
            clock=lambda: self.now,
            notices=self.current.notices,
        )
        self.app = application(self.context, [ORIGIN], openid=self.openid)

    def client(self, app: ASGIApp, host: str = "testclient") -> TestClient:
        """Return a client of an application; all of a world share one loop, because each one takes long to begin."""
        client = TestClient(app, base_url=ORIGIN, follow_redirects=False, client=(host, 50000))
        client.portal = self.portal
        return client

    @property
    def file(self) -> Path:
        """The configuration."""
        return self.folder / "extauthz.yaml"

    def change(self, **sections: Any) -> None:
        """Write the configuration with these sections, and let the console look at it."""
        self.settings |= sections
        self.file.write_text(yaml.safe_dump({name: value for name, value in self.settings.items() if value is not None}))
        self.ticks += 60

    def visitor(self) -> Browser:
        """Return a browser that is not logged in."""
        return Browser(self)

    def logged_in(self, role: Role = Role.SUPER_ADMIN) -> Browser:
        """Return a browser of somebody with this role, who logged in just now."""
        email = WHO[role]
        if accounts.find(self.current.administration(), email) is None:
            done(accounts.put(self.current.administration(), FOUNDER, email, HASH, int(self.now)))
        browser = self.visitor()
        answer = browser.post("/login", {"email": email, "password": PASSWORD}, token="")
        assert answer.status_code == 303, answer.text
        return browser

    def issue(self, permission: AuthType = AuthType.ANONYMOUS, **changes: Any) -> NewToken:
        """Make a token."""
        at = int(self.now)
        user = "bob@acme.com" if permission is AuthType.USER else None
        fields: dict[str, Any] = {
            "description": "a token",
            "scopes": frozenset({"SEARCH"}),
            "created_by": FOUNDER.name,
            "user": user,
            "expires_at": at + 90 * DAY,
        }
        request = TokenRequest(permission=permission, created_at=at, **(fields | changes))
        made = done(tokens.create(self.current.administration(), FOUNDER, [request], at))
        return made[0]

    def texts(self) -> list[str]:
        """Return id and description of every token."""
        return [f"{token.id} {token.description}" for token in self.store.list_tokens()]


class Browser:
    """Keeps cookies, sends Origin with forms, and follows no redirect."""

    def __init__(self, world: ConsoleWorld) -> None:
        self.world = world
        self.client = world.client(world.app)

    def get(self, path: str, **headers: str) -> Response:
        """Open a page."""
        return self.client.get(path, headers={name.replace("_", "-"): value for name, value in headers.items()})

    def post(
        self,
        path: str,
        fields: Mapping[str, Any],
        *,
        page: str = "",
        token: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Response:
        """Send a form, with the token that the form to this path has on a page, or another one."""
        if token is None:
            token = self.token(page or path, path)
        body = urlencode({"csrf": token, **fields}, doseq=True)
        sent = {"origin": ORIGIN, "sec-fetch-site": "same-origin", "content-type": "application/x-www-form-urlencoded"}
        return self.client.post(path, content=body, headers=sent | dict(headers or {}))

    def token(self, page: str, action: str) -> str:
        """Return the token of a form on a page."""
        return self.field(page, action, "csrf")

    def field(self, page: str, action: str, name: str) -> str:
        """Return the hidden value of a form on a page."""
        text = self.get(page).text
        form = re.search(rf'<form[^>]*action="{re.escape(action)}".*?</form>', text, re.DOTALL)
        assert form is not None, f"{page} has no form to {action}"
        value = re.search(rf'name="{name}" value="([^"]*)"', form[0])
        assert value is not None
        return unescape(value[1])

    def create(self, **fields: Any) -> Response:
        """Send the form of a new token."""
        plain = {"description": "made here", "permission": "ANONYMOUS", "scope": ["SEARCH"], "days": "90"}
        once = self.field("/tokens/new", "/tokens", "once")
        return self.post("/tokens", {"once": once} | plain | fields, page="/tokens/new")


def done(outcome: Any) -> Any:
    """Return what a use case did."""
    assert not isinstance(outcome, Refused), outcome
    return outcome


@cache
def empty_store() -> bytes:
    """Return the file of a SQLite store without tokens, which is made once."""
    with TemporaryDirectory() as folder, closing(SqlTokenStore(Path(folder) / "tokens.db", create=True)) as store:
        store.migrate()
        store.close()
        return (Path(folder) / "tokens.db").read_bytes()


@contextmanager
def console_world(folder: Path, **more: Any) -> Iterator[ConsoleWorld]:
    """Make a world on a new SQLite store."""
    (folder / "tokens.db").write_bytes(empty_store())
    (folder / "tokens.db").chmod(0o600)
    with closing(SqlTokenStore(folder / "tokens.db")) as store, start_blocking_portal() as portal:
        yield ConsoleWorld(folder, store, portal, **more)
