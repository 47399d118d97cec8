"""Recent decisions and recordings of a sidecar that runs: several workers, a reload, a worker that hangs, a restart."""

from __future__ import annotations

import json
import os
import signal
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest

from extauthz._pb import ext_authz_pb2 as pb
from extauthz.config.loader import load
from extauthz.tools.callers import caller
from extauthz.tools.calls import Call, decided_call
from tests.support.ports import successive_ports
from tests.support.sidecar import SERVICE, Sidecar, sidecar
from tests.support.waiting import eventually
from tests.support.world import check_request

__all__ = ["sidecar"]
TOKEN_LIKE = "glean_0123456789ab_" + "Z" * 49


def workers_of(sidecar: Sidecar) -> list[int]:
    assert sidecar.process is not None
    pid = sidecar.process.pid
    return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def ask(sidecar: Sidecar, worker: int, path: str, headers: dict[str, str | bytes]) -> str:
    """Ask one worker and return the decision id."""
    host, _, port = sidecar.target.rpartition(":")
    with grpc.insecure_channel(f"{host}:{int(port) + worker}") as channel:
        call = channel.unary_unary(f"/{SERVICE}/Check")
        answer = pb.CheckResponse.FromString(call(check_request("POST", path, headers.items()), timeout=20))
    return str(answer.dynamic_metadata.fields["decision_id"].string_value)


def decisions(sidecar: Sidecar, query: str = "") -> dict[str, Any]:
    status, text = sidecar.page(f"/decisions{query}")
    assert status == 200, text
    return dict(json.loads(text))


@pytest.fixture
def two_workers(sidecar: Sidecar) -> Sidecar:
    """A sidecar of two workers that allows recordings."""
    first, *_ = successive_ports(3)
    sidecar.settings["server"] |= {"listen": f"127.0.0.1:{first}", "workers": 2, "recording": True}
    sidecar.write()
    return sidecar


def test_what_several_workers_decided_is_shown_and_recorded(two_workers: Sidecar) -> None:
    sidecar = two_workers
    assert sidecar.command("store", "migrate").exit_code == 0
    token = sidecar.token()
    sidecar.start()
    good: dict[str, str | bytes] = {"authorization": f"Bearer {token}"}
    ids = [ask(sidecar, 0, "/search?q=secret", good), ask(sidecar, 1, "/nowhere", {"authorization": f"Bearer {TOKEN_LIKE}"})]
    found = decisions(sidecar)
    assert [one["decision_id"] for one in found["decisions"]] == ids[::-1]
    assert found["workers"] == {"asked": 2, "answered": 2}
    assert [one["reason"] for one in decisions(sidecar, "?user=ana@acme.com")["decisions"]] == ["allowed"]
    assert sidecar.page("/decisions?limit=0") == (400, "limit=0: write a number from 1 to 1,000\n")
    shown = sidecar.command("decisions", "--id", ids[1])
    assert (shown.exit_code, "route_unknown" in shown.stdout, "/nowhere" in shown.stdout) == (0, True, True)
    assert sidecar.command("decisions", "--id", "0" * 32).exit_code == 1

    # A reload keeps what is remembered, and takes away what is to be shown no more.
    sidecar.settings["decision_log"] = {"path": False}
    sidecar.write()
    assert sidecar.process is not None
    sidecar.process.send_signal(signal.SIGHUP)
    eventually(lambda: "path" not in decisions(sidecar)["decisions"][0], seconds=20, pause=0.05, what=lambda: "path is shown")
    assert [one["decision_id"] for one in decisions(sidecar)["decisions"]] == ids[::-1]
    refused = sidecar.command("record", "--output", str(sidecar.folder / "refused.jsonl"))
    assert (refused.exit_code, "decision_log.fields leaves out path" in refused.stderr) == (1, True)
    del sidecar.settings["decision_log"]
    sidecar.write()
    sidecar.process.send_signal(signal.SIGHUP)
    eventually(lambda: "path" in decisions(sidecar)["decisions"][0], seconds=20, pause=0.05, what=lambda: "path is not shown")

    output = sidecar.folder / "requests.jsonl"
    with ThreadPoolExecutor() as pool:
        recording = pool.submit(sidecar.command, "record", "--number", "12", "--for", "30s", "--output", str(output))
        while not recording.done():
            ask(sidecar, 0, "/search?q=secret", good | {"cookie": "c", "x-extauthz-user": "eve"})
            ask(sidecar, 1, "/search", {"authorization": f"Bearer {TOKEN_LIKE}", "x-scio-actas": TOKEN_LIKE})
            ask(sidecar, 1, f"/search?access_token={TOKEN_LIKE}", {})
            ask(sidecar, 0, "/search", {"authorization": f"Basic {TOKEN_LIKE}"})
        done = recording.result()
    assert done.exit_code == 0, done.output
    assert stat.S_IMODE(output.stat().st_mode) == 0o600
    text = output.read_text()
    assert not [secret for secret in (token, token.split("_")[2], TOKEN_LIKE, "secret", "cookie", "eve") if secret in text]
    lines = [json.loads(line) for line in text.splitlines()]
    assert len(lines) == 12
    assert {line["reason"] for line in lines} == {"allowed", "scheme_unsupported", "token_checksum", "token_in_query"}
    configuration = load(sidecar.file)
    for line in lines:
        who = caller(line["caller"], configuration.settings.scopes, configuration.providers)
        call = Call(line["method"], line["path"], line["host"], line["headers"], who)
        assert decided_call(configuration.policy, call, line["time"]).reason == line["reason"]

    # A worker that hangs is named, and the others are shown.
    hanging = workers_of(sidecar)[1]
    os.kill(hanging, signal.SIGSTOP)
    try:
        done = sidecar.command("decisions", "--json")
        assert json.loads(done.stdout)["workers"] == {"asked": 2, "answered": 1, "silent": ["worker 1"]}
        assert "Without the decisions of worker 1" in done.stderr
    finally:
        os.kill(hanging, signal.SIGCONT)
    for log in sidecar.logs:
        assert TOKEN_LIKE not in log.read_text()
