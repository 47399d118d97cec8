"""Monitor mode through the real Envoy: what the upstream sees of requests that enforcing would refuse."""

from __future__ import annotations

import json
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from extauthz.demo.launcher import Demo
from tests.support.readyz import condition
from tests.support.running import RunningDemo, running_demo

pytestmark = pytest.mark.envoy

SEARCH, CHAT = "POST /rest/api/v1/search", "POST /rest/api/v1/chat"
SPOOFED = [("x-extauthz-user", "eve@acme.com"), ("X-Extauthz-Decision", "allow"), ("x.extauthz.user", "eve")]


async def prepare(demo: Demo) -> None:
    """The tokens of the demo suffice."""


@pytest.fixture(scope="module")
def envoy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningDemo]:
    with running_demo(Path(tmp_path_factory.mktemp("m")), prepare, settings="mode: monitor\n") as demo:
        yield demo


def test_what_enforcing_would_refuse_reaches_the_upstream(envoy: RunningDemo) -> None:
    tokens = envoy.demo.tokens
    for line, sent in [
        (SEARCH, []),
        (SEARCH, [("Authorization", "Bearer of-another-system")]),
        (SEARCH, [("Authorization", "Basic YTpi"), ("X-Scio-ActAs", "Ana@acme.com")]),
        (SEARCH, [("Authorization", f"Bearer {tokens['GLOBAL']}"), ("X-Glean-ActAs", "ceo@acme.com")]),
        (CHAT, [("Authorization", f"Bearer {tokens['OAUTH']}x"), ("X-Glean-Auth-Type", "OAUTH")]),
        ("POST /no/such/route", [("Authorization", "Bearer of-another-system")]),
    ]:
        reply = envoy.send(line, [*sent, *SPOOFED])
        assert reply.status == 200, (line, sent, reply.text)
        seen = reply.upstream
        assert {name: value for name, value in seen.items() if "extauthz" in name} == {"x-extauthz-decision": "would-deny"}
        for name, value in sent:
            assert seen[name.lower()] == value, "credentials go on as they came"


def test_what_is_allowed_keeps_its_credentials_and_gets_its_identity(envoy: RunningDemo) -> None:
    sent = [("Authorization", f"Bearer {envoy.demo.tokens['GLOBAL']}"), ("X-Scio-ActAs", "Ana@acme.com")]
    reply = envoy.send(SEARCH, [*sent, *SPOOFED])
    seen = reply.upstream
    assert reply.status == 200
    assert (seen["x-extauthz-user"], seen["x-extauthz-auth-type"]) == ("ana@acme.com", "GLOBAL")
    assert "x-extauthz-decision" not in seen
    assert "x.extauthz.user" not in seen
    assert (seen["authorization"], seen["x-scio-actas"]) == (sent[0][1], "Ana@acme.com")


def test_what_is_refused_in_every_mode_is_refused(envoy: RunningDemo) -> None:
    reply = envoy.send("GET /a;b")
    assert (reply.status, reply.reason) == (400, "path_ambiguous")


def page(envoy: RunningDemo, path: str) -> str:
    """Read a page of the ops listener."""
    connection = HTTPConnection("127.0.0.1", envoy.demo.ports.ops, timeout=5)
    try:
        connection.request("GET", path)
        return connection.getresponse().read().decode()
    finally:
        connection.close()


def test_readiness_and_metrics_tell_of_it(envoy: RunningDemo) -> None:
    envoy.send(SEARCH)
    ready = json.loads(page(envoy, "/readyz"))
    assert (ready["ready"], condition(ready, "enforced")) == (True, False)
    samples = [sample for family in text_string_to_metric_families(page(envoy, "/metrics")) for sample in family.samples]
    assert [sample.value for sample in samples if sample.name == "extauthz_monitor_mode"] == [1.0]
    told = [sample.labels for sample in samples if sample.name == "extauthz_checks_total"]
    assert any((labels["decision"], labels["reason"]) == ("would_deny", "credential_missing") for labels in told)


def test_the_start_warns(envoy: RunningDemo) -> None:
    log = (envoy.demo.folder / "sidecar.log").read_text(encoding="utf-8")
    warnings = [json.loads(line)["message"] for line in log.splitlines() if '"WARNING"' in line]
    assert any("mode: monitor mode is on for" in text and "requests that match no route" in text for text in warnings)
