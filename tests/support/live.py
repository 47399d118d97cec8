"""The sidecar's own parts in this process, asking the real local issuer over HTTP, on a clock that a test moves."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from extauthz.adapters.oauth.jwks import RETRY, JwksSource
from extauthz.adapters.tracing.checks import Tracing
from extauthz.addresses import Address
from extauthz.config.loader import Configuration, load
from extauthz.demo.issuer import CLIENT_ID, CLIENT_SECRET, DemoIssuer
from extauthz.demo.providers import IssuerRole, entry_of
from extauthz.errors import Unavailable
from extauthz.runtime.build import RuntimeBuilder, RuntimeParts
from extauthz.runtime.tracing import open_tracing
from extauthz.serve.worker import Recorders
from extauthz.service import Authorizer
from extauthz.transport.http.ops import HttpServer
from extauthz.transport.sockets import open_port
from tests.support.world import DECISION_ID, ListRecorder, StillClock, check_request, oauth

ANA = "ana@acme.com"
ROLES = {role.value: role for role in IssuerRole} | {"okta-userinfo": IssuerRole.OKTA_ORG}
"""Whose part the issuer plays for the providers below, by their names."""
ISSUED_BY = ("okta", "okta-org", "okta-userinfo", "azure", "gsuite", "onelogin")
"""One provider for each way to verify."""


def providers(base: str) -> dict[str, dict[str, Any]]:
    """Return the provider entries for the issuer at `base`, by name."""
    demo = {role.value: entry_of(role, base) for role in IssuerRole}
    by_userinfo = {"okta-userinfo": {"provider": "okta", "issuer": base, "client_ids": [CLIENT_ID]}}
    only_asked_once = {"gsuite": without(demo["gsuite"], "hosted_domains", "userinfo_uri")}
    return demo | by_userinfo | only_asked_once


def without(entry: dict[str, Any], *keys: str) -> dict[str, Any]:
    """Return an entry that leaves out some of its keys."""
    return {key: value for key, value in entry.items() if key not in keys}


@dataclass
class Live:
    """A running issuer, and the checks that ask it."""

    issuer: DemoIssuer
    parts: RuntimeParts
    clock: StillClock
    recorder: ListRecorder
    authorizer: Authorizer
    builder: RuntimeBuilder
    configuration: Configuration
    settings: dict[str, Any]
    tracing: Tracing | None = None

    def source(self, issuer: str = "") -> JwksSource:
        """Return the key source of an issuer; of the only one without a name."""
        (found,) = [source for source in self.parts.key_sources if issuer in ("", source.issuer)]
        return found

    def token(self, name: str, user: str = ANA, **changes: Any) -> str:
        """Issue a token of a provider."""
        return self.issuer.issue(ROLES[name], user, **changes)

    async def check(self, token: str) -> str:
        """Ask about a request with this token; return the reason."""
        answer = self.authorizer.check(check_request("POST", "/search", oauth(token).items()))
        if not isinstance(answer, bytes):
            await answer
        return self.recorder.decisions[-1].reason.value

    def known(self, token: str) -> bool:
        """Check a token that must be decided at once; tell whether it is allowed."""
        answer = self.authorizer.check(check_request("POST", "/search", oauth(token).items()))
        assert isinstance(answer, bytes), "it waits"
        return self.recorder.decisions[-1].reason.value == "allowed"

    async def reload(self, change: Callable[[dict[str, Any]], None]) -> RuntimeParts:
        """Change the settings and take them as a hot reload does; return the parts of before."""
        change(self.settings)
        self.configuration.file.write_text(yaml.safe_dump(self.settings))
        configuration = load(self.configuration.file)
        before, prepared = self.parts, await self.builder.prepare(configuration, self.parts)
        self.authorizer.swap(prepared.runtime)
        self.builder.adopt(configuration, before, prepared)
        self.configuration, self.parts = configuration, prepared
        await self.builder.retire(configuration, prepared)
        return before

    async def refresh(self) -> None:
        """Fetch every key set, as the background refresh does, a moment after the last attempt."""
        self.clock.advance(RETRY)
        for source in self.parts.key_sources:
            with contextlib.suppress(Unavailable):
                await source.load()


@contextlib.asynccontextmanager
async def live(folder: Path, *names: str, **more: Any) -> AsyncIterator[Live]:
    """Run the issuer, and checks for these providers; `more` are further sections of the settings."""
    opened = open_port(Address(host="127.0.0.1", port=0))
    base = f"http://127.0.0.1:{opened.getsockname()[1]}"
    issuer = DemoIssuer(base)
    (folder / "client-secret").write_text(CLIENT_SECRET)
    (folder / "routes.yaml").write_text('routes: [{match: "POST /search", any_of: [SEARCH, CHAT]}]')
    settings = {
        "version": 1,
        "server": {"listen": "127.0.0.1:9001", "check_timeout": "60s"},
        "oauth": {"providers": [{**entry, "name": name} for name, entry in providers(base).items() if name in names]},
        "scopes": ["SEARCH", "CHAT"],
        "routes": ["routes.yaml"],
        **more,
    }
    file = folder / "extauthz.yaml"
    file.write_text(yaml.safe_dump(settings))
    clock, recorder = StillClock(time.time()), ListRecorder()  # noqa: TID251 - the issuer's tokens live now
    server = HttpServer(issuer)
    async with contextlib.AsyncExitStack() as stack:
        serving = asyncio.create_task(server.run_on(opened))
        configuration = load(file)
        tracing = open_tracing(configuration, configuration.tracing_headers(os.environ), stack, clock=clock)
        builder = RuntimeBuilder(clock=clock, tracing=tracing)
        parts = await builder.open(configuration, stack)
        recorders = Recorders((recorder, tracing)) if tracing else recorder
        authorizer = Authorizer(parts.runtime, recorders, clock=clock, decision_ids=lambda: DECISION_ID)
        try:
            yield Live(issuer, parts, clock, recorder, authorizer, builder, configuration, settings, tracing)
        finally:
            server.should_exit = True
            await serving
