"""The API of the console on a store of its own, asked within this process by whoever has a key."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from anyio.from_thread import start_blocking_portal
from starlette.applications import Starlette
from starlette.testclient import TestClient

from extauthz.adapters.store.sessions import StoredSession
from extauthz.adapters.store.sql import SqlTokenStore
from extauthz.admin import keys, oauth_settings, sessions, tokens
from extauthz.admin.administration import Administration, prefixes_of, rules_of
from extauthz.admin.keys import KeyRequest, NewKey
from extauthz.admin.outcomes import Refused
from extauthz.admin.rights import Actor, Role
from extauthz.admin.route_map import RouteMap
from extauthz.admin.sessions import NewSession, SessionLimits
from extauthz.admin.token_requests import TokenRequest
from extauthz.admin.tokens import NewToken
from extauthz.config.loader import Configuration, load
from extauthz.console.api.app import routes
from extauthz.console.api.operations import BASE
from extauthz.console.context import Context
from extauthz.core.model import AuthType
from tests.support.command_line import configured

NOW, DAY = 1_800_000_000, 86_400
PEPPERS = {"p1": b"a pepper for tests, 32 bytes long"}
FOUNDER = Actor("os:founder", Role.SUPER_ADMIN, "a test")
OKTA = {
    "enabled": True,
    "provider": "okta",
    "issuer": "https://acme.okta.com/oauth2/default",
    "client_ids": ["0oa1"],
    "audience": ["api"],
}
GLOBAL, USER, ANONYMOUS = AuthType.GLOBAL, AuthType.USER, AuthType.ANONYMOUS


@dataclass
class ApiWorld:
    """A store with keys of every role, and a client that asks as a super admin unless told otherwise."""

    folder: Path
    store: SqlTokenStore
    configuration: Configuration
    now: float = NOW
    keys: dict[Role, NewKey] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Make the keys and the application."""
        section = self.configuration.settings.tokens
        assert section is not None
        self.administration = Administration(
            self.store, rules_of(self.configuration, section), prefixes_of(section), lambda: PEPPERS
        )
        self.keys = {role: self.key(role) for role in Role}
        self.route_map = RouteMap(self.configuration.policy, self.configuration.route_places)
        self.context = Context(
            lambda: self.configuration, lambda: self.administration, lambda: self.route_map, clock=lambda: self.now
        )
        self.app = Starlette(routes=routes(self.context))
        self.client = TestClient(self.app, base_url="http://127.0.0.1")

    def key(self, role: Role = Role.SUPER_ADMIN, *, lasts: int = 30 * DAY, maker: Actor = FOUNDER) -> NewKey:
        """Make an admin key."""
        return done(keys.create(self.administration, maker, KeyRequest(f"a {role}", role, int(self.now) + lasts), int(self.now)))

    def bearer(self, role: Role = Role.SUPER_ADMIN) -> dict[str, str]:
        """Return the header of somebody with a role."""
        return {"Authorization": f"Bearer {self.keys[role].text.text}"}

    def ask(self, method: str, path: str, *, role: Role | None = Role.SUPER_ADMIN, headers: Any = None, **more: Any) -> Any:
        """Send a request."""
        sent = {**(self.bearer(role) if role else {}), **(headers or {})}
        return self.client.request(method, BASE + path, headers=sent, **more)

    def token(self, permission: AuthType = ANONYMOUS, **changes: Any) -> NewToken:
        """Make a client token."""
        at = int(self.now)
        asked = TokenRequest(
            **{
                "description": "CI",
                "permission": permission,
                "scopes": frozenset({"SEARCH"}),
                "created_at": at,
                "created_by": FOUNDER.name,
                "expires_at": at + DAY,
                "user": "ana@acme.com" if permission is USER else None,
                **changes,
            }
        )
        return done(tokens.create(self.administration, FOUNDER, [asked], at))[0]

    def begin_session(self, email: str = "ana@acme.com") -> NewSession:
        """Begin a session of somebody."""
        actor, limits = Actor(email, Role.ADMIN, "a test"), SessionLimits(1800.0, 43200.0)
        return done(sessions.begin(self.administration, actor, int(self.now), method="openid", address="10.0.0.7", limits=limits))

    def session(self, email: str = "ana@acme.com") -> StoredSession:
        """Return a session of somebody that has just begun."""
        return self.begin_session(email).session

    def settings(self, expected: int = 0, **changes: Any) -> int:
        """Save OAuth settings and return the version."""
        wanted = {**OKTA, "client_ids": [f"0oa{expected}"], **changes}
        return done(
            oauth_settings.save(self.administration, self.configuration, FOUNDER, wanted, int(self.now), expected=expected)
        ).version


MakeApi = Callable[..., ApiWorld]


@contextmanager
def api_world(folder: Path, **changes: Any) -> Iterator[ApiWorld]:
    """Open a world in an empty folder; changes are sections of the configuration."""
    configured(folder, **{"oauth": {"managed_by": "console"}, **changes})
    with closing(empty_store(folder / "store.db")) as store, start_blocking_portal() as portal:
        made = ApiWorld(folder, store, load(folder / "extauthz.yaml"))
        # One loop for all requests: each one takes long to begin.
        made.client.portal = portal
        yield made


@cache
def _migrated() -> bytes:
    """Return the file of an empty store: a migration takes longer than most tests."""
    with TemporaryDirectory() as folder:
        file = Path(folder) / "store.db"
        with closing(SqlTokenStore(file, create=True)) as store:
            store.migrate()
        return file.read_bytes()


def empty_store(file: Path) -> SqlTokenStore:
    """Open an empty store in a new file."""
    file.write_bytes(_migrated())
    file.chmod(0o600)
    return SqlTokenStore(file)


def done(outcome: Any) -> Any:
    """Return what a use case did."""
    assert not isinstance(outcome, Refused), outcome
    return outcome
