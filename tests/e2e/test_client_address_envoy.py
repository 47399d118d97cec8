"""The client's address as a real Envoy passes it on."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from extauthz.demo.launcher import CHECKOUT
from tests.support.client_address import CLIENT, EXTERNAL, FORWARDED, LIE
from tests.support.envoy import running_envoy, running_sidecar, send
from tests.support.ports import free_port
from tests.support.waiting import eventually


@pytest.fixture(scope="module")
def logged(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str, str, list[tuple[str, str]]], str | None]]:
    """Sidecars with either setting behind Envoys of three kinds; returns the client's address in the decision log."""
    folder = Path(tmp_path_factory.mktemp("client"))
    shipped = (CHECKOUT / "envoy" / "envoy.yaml").read_text()
    edge = "use_remote_address: true"
    kinds = {
        "edge": shipped,
        "no edge": shipped.replace(edge, "use_remote_address: false"),
        "internal": shipped.replace(
            edge, f"{edge}\n          internal_address_config: {{cidr_ranges: [{{address_prefix: 127.0.0.0, prefix_len: 8}}]}}"
        ),
    }
    envoys: dict[tuple[str, str], tuple[int, Path]] = {}
    with contextlib.ExitStack() as stack:
        for name, setting in {"external": EXTERNAL, "hops": {"trusted_hops": 1}}.items():
            here = folder / name
            here.mkdir()
            listen, ops, log = free_port(), free_port(), here / "decisions.jsonl"
            settings = {
                "version": 1,
                "server": {"listen": f"127.0.0.1:{listen}", "ops": f"127.0.0.1:{ops}", "drain": "0s", "check_timeout": "30s"},
                "scopes": ["SEARCH"],
                "routes": ["routes.yaml"],
                "decision_log": {"to": {"file": str(log)}},
                "envoy": {"client_address": setting},
            }
            (here / "extauthz.yaml").write_text(yaml.safe_dump(settings))
            (here / "routes.yaml").write_text(yaml.safe_dump({"routes": [{"match": "* /**", "deny": True}]}))
            stack.enter_context(running_sidecar(here / "extauthz.yaml", ops))
            for kind, text in kinds.items():
                at, port = here / kind.replace(" ", "-"), free_port()
                at.mkdir()
                for old, new in (
                    ("port_value: 10000", f"port_value: {port}"),
                    ("port_value: 9001", f"port_value: {listen}"),
                    ("port_value: 8080", f"port_value: {free_port()}"),
                    ("/tmp/extauthz-envoy-admin.sock", str(at / "admin.sock")),  # noqa: S108 - the name in the file
                    ("timeout: 0.2s", "timeout: 30s"),
                    ("max_interval: 2s", "max_interval: 60s"),
                ):
                    assert text.count(old) == 1
                    text = text.replace(old, new)
                stack.enter_context(running_envoy(at, text, at / "admin.sock"))
                envoys[kind, name] = port, log

        def client(kind: str, name: str, headers: list[tuple[str, str]]) -> str | None:
            port, log = envoys[kind, name]
            reply = send(port, "GET /x", [("host", "localhost"), *headers])
            assert reply.status == 403, reply

            def logged() -> list[dict[str, Any]]:
                lines = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
                return [line for line in lines if line["decision_id"] == reply.body["decision_id"]]

            eventually(logged, seconds=30, pause=0.02, what=lambda: "the decision is not in the log")
            return logged()[0].get("client_address")

        yield client


@pytest.mark.envoy
@pytest.mark.parametrize(
    ("kind", "name", "headers", "address"),
    [
        ("edge", "external", [], "127.0.0.1"),
        ("edge", "external", [(EXTERNAL, LIE), (FORWARDED, LIE)], "127.0.0.1"),
        ("edge", "hops", [(FORWARDED, CLIENT)], CLIENT),
        ("edge", "hops", [(FORWARDED, f"{LIE}, {CLIENT}")], CLIENT),
        ("edge", "hops", [(FORWARDED, LIE), (FORWARDED, CLIENT)], CLIENT),
        ("edge", "hops", [(EXTERNAL, LIE)], "127.0.0.1"),
        ("no edge", "external", [(EXTERNAL, LIE)], "127.0.0.1"),
        ("internal", "external", [(EXTERNAL, LIE)], "127.0.0.1"),
        ("internal", "hops", [(EXTERNAL, LIE)], "127.0.0.1"),
    ],
)
def test_through_envoy(logged: Any, kind: str, name: str, headers: list[tuple[str, str]], address: str) -> None:
    assert logged(kind, name, headers) == address
