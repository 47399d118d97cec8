"""OAuth settings that admins save, and a real sidecar: how fast they count, in how many processes, and what is without them."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import pytest

from extauthz._pb import ext_authz_pb2 as pb
from extauthz.adapters.store.sql import SqlTokenStore
from extauthz.addresses import Address
from extauthz.admin import oauth_settings
from extauthz.admin.administration import Administration
from extauthz.admin.oauth_settings import SavedVersion
from extauthz.admin.rights import Actor, Role
from extauthz.admin.token_requests import TokenRules
from extauthz.config.loader import load
from extauthz.core.act_as import ActAs
from extauthz.demo.issuer import AUDIENCE, CLIENT_ID, DemoIssuer
from extauthz.transport.http.ops import HttpServer
from extauthz.transport.sockets import open_port
from tests.support.ports import successive_ports
from tests.support.postgresql import MakePlace, Place
from tests.support.readyz import condition
from tests.support.sidecar import PATIENCE, SERVICE, Sidecar, sidecar
from tests.support.waiting import eventually
from tests.support.world import bearer, check_request, oauth

__all__ = ["sidecar"]

pytest_plugins = ["tests.support.postgresql"]

PROMISE = 2.0
"""Seconds after which settings that were saved count everywhere."""
SUPER_ADMIN = Actor("sue@acme.com", Role.SUPER_ADMIN)
DISABLED, UNKNOWN = "credential_disabled", "store_unavailable"


@pytest.fixture(scope="module")
def issuer() -> Iterator[DemoIssuer]:
    """An issuer that answers, in a thread of its own."""
    opened = open_port(Address(host="127.0.0.1", port=0))
    made = DemoIssuer(f"http://127.0.0.1:{opened.getsockname()[1]}")
    server = HttpServer(made)
    thread = threading.Thread(target=lambda: asyncio.run(server.run_on(opened)))
    thread.start()
    yield made
    server.should_exit = True
    thread.join(20)


@dataclass
class Managed:
    """A sidecar whose OAuth settings are in its store, and an admin who changes them."""

    sidecar: Sidecar
    issuer: DemoIssuer
    place: Place
    tokens: dict[str, str] = field(default_factory=dict)

    def prepare(self, *, workers: int = 1, enabled: bool = True) -> None:
        """Write the configuration and make a pepper, and a token if any are issued."""
        settings = self.sidecar.settings
        settings["oauth"] = {"managed_by": "console"}
        settings["server"] |= {"workers": workers, "listen": f"127.0.0.1:{successive_ports(workers)[0]}"}
        address = self.place.where
        settings["tokens"] |= {"store": f"sqlite:///{address}" if isinstance(address, Path) else address}
        self.sidecar.write()
        self.tokens["issued"] = self.sidecar.token()
        settings["tokens"]["enabled"] = enabled
        self.sidecar.write()
        self.tokens["oauth"] = self.issuer.token("ana@acme.com")

    @property
    def wanted(self) -> dict[str, Any]:
        """Settings that accept the tokens of the issuer."""
        return {"provider": "okta", "issuer": self.issuer.issuer, "client_ids": CLIENT_ID, "audience": AUDIENCE}

    def save(self, expected: int, **changes: Any) -> int:
        """Save settings behind a version; return the number of the new one."""
        configuration = load(self.sidecar.file)
        peppers = configuration.peppers({})
        now = int(time.time())  # noqa: TID251 - the sidecar lives now
        with closing(SqlTokenStore(self.place.where)) as store:
            rules = TokenRules("glean", frozenset({"SEARCH"}), 86_400.0, ActAs())
            administration = Administration(store, rules, frozenset({"glean"}), lambda: peppers)
            wanted: Mapping[str, object] = {**self.wanted, "enabled": True, **changes}
            saved = oauth_settings.save(administration, configuration, SUPER_ADMIN, wanted, now, expected=expected)
        assert isinstance(saved, SavedVersion), saved
        return saved.version

    def reasons(self, kind: str) -> set[str]:
        """Return what each worker says to a token: "allowed", or why not."""
        headers = oauth(self.tokens[kind]) if kind == "oauth" else bearer(self.tokens[kind])
        return {self._reason(str(address), headers) for address in load(self.sidecar.file).settings.server.addresses}

    def within(self, seconds: float, expected: str) -> None:
        """Wait until every worker answers an OAuth token so, which takes no longer than this; issued ones are good meanwhile."""
        started = time.monotonic()
        eventually(lambda: self.reasons("oauth") == {expected}, seconds=PATIENCE, pause=0.02, what=lambda: self.reasons("oauth"))
        assert time.monotonic() - started < seconds
        assert self.reasons("issued") == {"allowed" if self.sidecar.settings["tokens"]["enabled"] else DISABLED}

    def metric(self, name: str) -> float:
        lines = [line for line in self.sidecar.page("/metrics")[1].splitlines() if line.startswith((f"{name} ", f"{name}{{"))]
        assert lines
        return sum(float(line.rpartition(" ")[2]) for line in lines)

    @staticmethod
    def _reason(address: str, headers: Mapping[str, str | bytes]) -> str:
        with grpc.insecure_channel(address) as channel:
            ask = channel.unary_unary(f"/{SERVICE}/Check")
            answer = pb.CheckResponse.FromString(ask(check_request("POST", "/search", headers.items()), timeout=20))
        return answer.dynamic_metadata.fields["reason"].string_value


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_what_is_saved_counts_within_two_seconds(
    sidecar: Sidecar, issuer: DemoIssuer, make_place: MakePlace, kind: str, workers: int
) -> None:
    it = Managed(sidecar, issuer, make_place(kind))
    sidecar.settings["server"]["drain"] = "10s"
    it.prepare(workers=workers)
    sidecar.start()
    assert it.reasons("oauth") == {DISABLED}, "nothing was saved yet"
    assert it.save(0) == 1
    it.within(PROMISE, "allowed")
    assert it.save(1, enabled=False) == 2
    it.within(PROMISE, DISABLED)
    assert it.save(2, client_ids="other") == 3
    it.within(PROMISE, "token_client")
    assert it.save(3) == 4
    it.within(PROMISE, "allowed")
    assert (it.metric("extauthz_settings_version"), it.metric("extauthz_config_stale")) == (4.0, 0.0)
    if workers == 1:
        with closing(socket.create_server(("127.0.0.1", 0))) as silent:
            it.save(4, issuer=f"http://127.0.0.1:{silent.getsockname()[1]}/oauth2/default")
            it.within(PROMISE, "token_issuer")
        return
    assert sidecar.process is not None
    parent = sidecar.process.pid
    if kind == "postgresql":
        victim = int(Path(f"/proc/{parent}/task/{parent}/children").read_text().split()[0])
        os.kill(victim, signal.SIGKILL)
        eventually(lambda: it.metric("extauthz_worker_restarts_total"), seconds=PATIENCE, pause=0.05)
        eventually(lambda: sidecar.page("/readyz")[0] == 200, seconds=PATIENCE, pause=0.05)
        assert it.reasons("oauth") == {"allowed"}, "the next worker begins with what counts"
        return
    os.kill(parent, signal.SIGUSR2)
    eventually(lambda: '"draining"' in sidecar.logs[1].read_text(), seconds=PATIENCE, pause=0.01)
    it.save(4, enabled=False)
    it.within(PROMISE, DISABLED)
    assert '"stopped"' not in sidecar.logs[1].read_text(), "the worker that ends has the settings as well"


def test_a_start_without_the_store_answers_503_until_it_is_there(
    sidecar: Sidecar, issuer: DemoIssuer, make_place: MakePlace
) -> None:
    """And no tokens are issued here: the store is there for the settings alone."""
    it = Managed(sidecar, issuer, make_place("sqlite"))
    it.prepare(enabled=False)
    it.save(0)
    assert isinstance(it.place.where, Path)
    elsewhere = it.place.where.with_name("elsewhere.db")
    it.place.where.rename(elsewhere)
    sidecar.start()
    assert it.reasons("oauth") == {UNKNOWN}
    assert it.reasons("issued") == {DISABLED}
    assert (it.metric("extauthz_settings_version"), it.metric("extauthz_config_stale")) == (0.0, 1.0)
    status, text = sidecar.page("/readyz")
    assert (status, condition(json.loads(text), "configuration_current")) == (200, False)
    elsewhere.rename(it.place.where)
    it.within(PROMISE, "allowed")
    assert (it.metric("extauthz_settings_version"), it.metric("extauthz_config_stale")) == (1.0, 0.0)


def test_a_version_that_was_tampered_with_is_never_used(sidecar: Sidecar, issuer: DemoIssuer, make_place: MakePlace) -> None:
    it = Managed(sidecar, issuer, make_place("sqlite"))
    it.prepare()
    it.save(0, enabled=False)
    sidecar.start()
    assert it.reasons("oauth") == {DISABLED}
    it.place.unguard("settings")
    it.place.run("UPDATE settings SET body = replace(body, 'false', 'true')")
    eventually(lambda: it.metric("extauthz_config_stale"), seconds=PATIENCE, pause=0.02)
    assert it.reasons("oauth") == {DISABLED}, "the last good one"
    sidecar.logs_that("console, version 1 is not what was written")
    verified = sidecar.command("audit", "verify")
    assert verified.exit_code == 1
    assert "Error: the OAuth settings: the version that counts is not what the audit tells" in verified.output
    sidecar.stop()
    sidecar.start()
    assert it.reasons("oauth") == {UNKNOWN}, "a process that begins now knows no good one"
    it.save(1)
    it.within(PROMISE, "allowed")


def test_a_backup_that_is_put_back_counts_when_the_restore_is_accepted(
    sidecar: Sidecar, issuer: DemoIssuer, make_place: MakePlace, tmp_path: Path
) -> None:
    it = Managed(sidecar, issuer, make_place("sqlite"))
    it.prepare()
    it.save(0)
    assert isinstance(it.place.where, Path)
    shutil.copy(it.place.where, tmp_path / "backup.db")
    it.save(1, enabled=False)
    export = tmp_path / "audit.jsonl"
    export.write_text(sidecar.command("audit", "export").stdout)
    sidecar.start()
    assert it.reasons("oauth") == {DISABLED}
    (tmp_path / "backup.db").rename(it.place.where)
    eventually(lambda: it.metric("extauthz_config_stale"), seconds=PATIENCE, pause=0.02)
    assert it.reasons("oauth") == {DISABLED}, "the last good one"
    sidecar.logs_that("run 'extauthz store accept-restore'")
    accepted = sidecar.command("store", "accept-restore", "--audit", str(export), "--yes")
    assert accepted.exit_code == 0, accepted.output
    assert "warning: version 1 of the OAuth settings counts again, after version 2" in accepted.output
    it.within(PROMISE, "allowed")
    assert (it.metric("extauthz_settings_version"), it.metric("extauthz_config_stale")) == (1.0, 0.0)
