"""What docs/troubleshooting.md tells of Envoys that are set up otherwise, seen with the real one."""

from __future__ import annotations

import copy
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from extauthz.addresses import Address
from extauthz.cli import main
from extauthz.config.loader import load
from extauthz.core.act_as import ACT_AS_HEADERS
from extauthz.core.credentials import AUTH_TYPE, AUTHORIZATION
from extauthz.envoy_config import bootstrap
from extauthz.envoy_config.bootstrap import Edge
from extauthz.envoy_config.reading import sidecar_of
from tests.support.envoy import Reply, running_envoy, running_sidecar, send
from tests.support.ports import free_port
from tests.support.waiting import eventually

pytestmark = pytest.mark.envoy

HOST = ("host", "localhost")
KEEP = [AUTHORIZATION, AUTH_TYPE, *ACT_AS_HEADERS]
Change = Callable[[dict[str, Any]], object]


class Upstream(BaseHTTPRequestHandler):
    """Sends /moved elsewhere, and shows the headers of everything else."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        body = json.dumps({"path": self.path, "headers": {name.lower(): value for name, value in self.headers.items()}}).encode()
        moved = self.path == "/moved"
        self.send_response(302 if moved else 200)
        if moved:
            self.send_header("location", "http://localhost/here")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@dataclass
class Symptoms:
    """Ports of an Envoy by the name of what is different there, tokens, and the log of the first sidecar."""

    ports: dict[str, int]
    tokens: dict[str, str]
    log: Path

    def ask(self, name: str, path: str = "/here", **headers: str) -> Reply:
        pairs = [(key.replace("_", "-"), value) for key, value in headers.items()]
        return send(self.ports[name], f"GET {path}", [HOST, *pairs])


def filters(manager: dict[str, Any]) -> list[dict[str, Any]]:
    return manager["http_filters"]  # type: ignore[no-any-return]


def check(manager: dict[str, Any]) -> dict[str, Any]:
    return next(entry for entry in filters(manager) if entry["name"] == "envoy.filters.http.ext_authz")


def only_authorization(manager: dict[str, Any]) -> None:
    check(manager)["typed_config"]["allowed_headers"] = {"patterns": [{"exact": "authorization"}]}


def twice(manager: dict[str, Any]) -> None:
    again = copy.deepcopy(check(manager))
    again["name"] = "envoy.filters.http.ext_authz.again"
    filters(manager).insert(-1, again)


def redirecting(manager: dict[str, Any]) -> None:
    policy = {"max_internal_redirects": 1, "redirect_response_codes": [302]}
    manager["route_config"]["virtual_hosts"][0]["routes"][0]["route"]["internal_redirect_policy"] = policy


CHANGES: dict[str, Change] = {
    "as printed": lambda manager: None,
    "allowed headers": only_authorization,
    "twice": twice,
    "redirect": redirecting,
}


@pytest.fixture(scope="module")
def envoy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Symptoms]:
    folder = Path(tmp_path_factory.mktemp("symptoms"))
    upstream = ThreadingHTTPServer(("127.0.0.1", 0), Upstream)
    thread = threading.Thread(target=upstream.serve_forever, daemon=True)
    thread.start()
    files: dict[str, tuple[Path, int]] = {}
    for name, keep in {"plain": [], "kept": KEEP}.items():
        here, ops = folder / name, free_port()
        here.mkdir()
        settings = {
            "version": 1,
            "server": {"listen": f"127.0.0.1:{free_port()}", "ops": f"127.0.0.1:{ops}", "drain": "0s", "check_timeout": "30s"},
            "tokens": {"store": f"sqlite:///{folder}/tokens.db", "peppers": [{"id": "p1", "file": f"{folder}/pepper"}]},
            "act_as": {"allow": ["*@acme.com"]},
            "identity": {"keep": keep},
            "scopes": ["SEARCH"],
            "routes": ["routes.yaml"],
        }
        (here / "extauthz.yaml").write_text(yaml.safe_dump(settings))
        (here / "routes.yaml").write_text(yaml.safe_dump({"routes": [{"match": "GET /**", "scope": "SEARCH"}]}))
        files[name] = here / "extauthz.yaml", ops
    tokens = {}
    for permission, more in {"GLOBAL": [], "USER": ["--user", "ana@acme.com"]}.items():
        order = ["--permission", permission, "--scope", "SEARCH", "--description", "t", "--expires", "1h", "--json", *more]
        made = CliRunner().invoke(main, ["token", "create", "--config", str(files["plain"][0]), *order], catch_exceptions=False)
        assert made.exit_code == 0, made.output
        tokens[permission] = json.loads(made.stdout)["token"]
    admin = folder / "admin.sock"
    whole: dict[str, Any] = {}
    ports: dict[str, int] = {}
    listeners, clusters = [], []
    for name, (file, _) in files.items():
        edge = Edge(admin=Address(path=str(admin)), upstream=Address(host="127.0.0.1", port=upstream.server_port))
        whole = yaml.safe_load(bootstrap.text(sidecar_of(load(file)), edge))
        (listener,), (sidecar, api) = whole["static_resources"]["listeners"], whole["static_resources"]["clusters"]
        sidecar["name"] = sidecar["load_assignment"]["cluster_name"] = name
        sidecar["health_checks"][0]["timeout"] = "30s"
        clusters += [sidecar] if clusters else [api, sidecar]
        for kind, change in CHANGES.items():
            own = copy.deepcopy(listener)
            own["name"] = f"{name} {kind}"
            ports[own["name"]] = own["address"]["socket_address"]["port_value"] = free_port()
            manager = own["filter_chains"][0]["filters"][0]["typed_config"]
            grpc = check(manager)["typed_config"]["grpc_service"]
            grpc["envoy_grpc"]["cluster_name"], grpc["timeout"] = name, "40s"
            grpc["retry_policy"]["retry_back_off"]["max_interval"] = "60s"
            change(manager)
            listeners.append(own)
    whole["static_resources"] = {"listeners": listeners, "clusters": clusters}
    with ExitStack() as stack:
        stack.callback(thread.join, 10)
        stack.callback(upstream.server_close)
        stack.callback(upstream.shutdown)
        for file, ops in files.values():
            stack.enter_context(running_sidecar(file, ops))
        stack.enter_context(running_envoy(folder, yaml.safe_dump(whole), admin))
        yield Symptoms(ports, tokens, files["plain"][0].parent / "sidecar.log")


def test_headers_that_are_kept_from_the_check(envoy: Symptoms) -> None:
    bearer = f"Bearer {envoy.tokens['GLOBAL']}"
    assert envoy.ask("plain as printed", authorization=bearer, x_scio_actas="ana@acme.com").status == 200
    reply = envoy.ask("plain allowed headers", authorization=bearer, x_scio_actas="ana@acme.com")
    assert (reply.status, reply.body["reason"]) == (400, "act_as_missing")
    assert "allowed_headers" in reply.body["message"]
    assert "allowed_headers" not in envoy.ask("plain as printed").body["message"]
    # The log is written by a thread.
    eventually(lambda: "allowed_headers" in envoy.log.read_text())
    assert envoy.log.read_text().count("allowed_headers") == 1


@pytest.mark.parametrize(("kind", "path"), [("twice", "/here"), ("redirect", "/moved")])
@pytest.mark.parametrize(("permission", "act_as"), [("USER", {}), ("GLOBAL", {"x_scio_actas": "ana@acme.com"})])
def test_a_check_that_runs_twice(envoy: Symptoms, kind: str, path: str, permission: str, act_as: dict[str, str]) -> None:
    bearer = f"Bearer {envoy.tokens[permission]}"
    refused = envoy.ask(f"plain {kind}", path, authorization=bearer, **act_as)
    assert (refused.status, refused.body["reason"]) == (401, "credential_missing")
    allowed = envoy.ask(f"kept {kind}", path, authorization=bearer, **act_as)
    assert allowed.status == 200
    assert (allowed.body["path"], allowed.body["headers"]["x-extauthz-user"]) == ("/here", "ana@acme.com")
    # Once is enough for the rest of the chain.
    assert envoy.ask("plain as printed", authorization=bearer, **act_as).status == 200
