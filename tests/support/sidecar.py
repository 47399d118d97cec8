"""A sidecar as a process of its own, on free ports, ended with its test."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import pytest
import yaml
from click.testing import CliRunner, Result
from grpc_health.v1 import health_pb2, health_pb2_grpc

from extauthz._pb import ext_authz_pb2 as pb
from extauthz.cli import main
from tests.support.ports import free_port
from tests.support.waiting import eventually
from tests.support.world import check_request

SERVICE = "envoy.service.auth.v3.Authorization"
PATIENCE = 40.0
"""Seconds that a test waits for what has to come; less than the minute after which a verdict is looked up anew."""


@dataclass
class Sidecar:
    """A configuration in a folder, and the process that serves it."""

    folder: Path
    settings: dict[str, Any]
    process: subprocess.Popen[bytes] | None = None
    logs: list[Path] = field(default_factory=list)
    before: list[str] = field(default_factory=list)
    """What runs the process, if something does."""

    @property
    def file(self) -> Path:
        """The configuration."""
        return self.folder / "extauthz.yaml"

    def write(self) -> None:
        """Write configuration and routes."""
        self.file.write_text(yaml.safe_dump(self.settings))
        (self.folder / "routes.yaml").write_text('routes: [{match: "POST /search", scope: SEARCH}]')

    def command(self, *arguments: str) -> Result:
        """Run a command to its end, in this process."""
        return CliRunner().invoke(main, [*arguments, "--config", str(self.file)])

    def refused(self) -> subprocess.CompletedProcess[str]:
        """Run `serve`, which must not start, to its end."""
        call = [*self.before, sys.executable, "-m", "extauthz", "serve", "--config", str(self.file)]
        return subprocess.run(call, capture_output=True, text=True, timeout=PATIENCE, check=False)

    def token(self) -> str:
        """Issue a USER token."""
        flags = ("--permission", "USER", "--user", "ana@acme.com", "--scope", "SEARCH", "--description", "d", "--expires", "1d")
        return str(json.loads(self.command("token", "create", *flags, "--json").stdout)["token"])

    def start(self) -> None:
        """Start and wait until it is ready, with all of its workers."""
        told = '"serving with several workers"' if self.settings["server"].get("workers", 1) > 1 else '"serving"'
        self.logs = [self.folder / "stdout.log", self.folder / "stderr.log"]
        with self.logs[0].open("wb") as output, self.logs[1].open("wb") as errors:
            call = [*self.before, sys.executable, "-m", "extauthz", "serve", "--config", str(self.file)]
            self.process = subprocess.Popen(call, stdout=output, stderr=errors)
        process = self.process

        def serves() -> bool:
            assert process.poll() is None, self.logs[1].read_text()
            return told in self.logs[1].read_text()

        eventually(serves, seconds=PATIENCE, pause=0.02, what=lambda: "not serving")

    def logs_that(self, text: str) -> None:
        """Wait until the process log says something: a thread writes it, after what it is about could be seen."""
        eventually(lambda: text in self.logs[1].read_text(), seconds=PATIENCE, pause=0.02, what=lambda: f"{text} in the log")

    def stop(self) -> int:
        """Send SIGTERM and return the exit code."""
        assert self.process is not None
        self.process.terminate()
        return self.process.wait(timeout=PATIENCE)

    @property
    def target(self) -> str:
        """Where gRPC clients connect."""
        return str(self.settings["server"]["listen"]).replace("unix://", "unix:")

    def check(self, headers: dict[str, str | bytes], source: str = "203.0.113.7") -> pb.CheckResponse:
        """Ask about POST /search."""
        with grpc.insecure_channel(self.target) as channel:
            ask = channel.unary_unary(f"/{SERVICE}/Check")
            return pb.CheckResponse.FromString(ask(check_request("POST", "/search", headers.items(), source=source), timeout=20))

    def doctor(self) -> list[dict[str, Any]]:
        """Return what the doctor finds, problems or not."""
        return list(json.loads(self.command("doctor", "--offline", "--json").stdout)["findings"])

    def told(self, *arguments: str) -> Any:
        """Run a command that must work and return its JSON."""
        done = self.command(*arguments, "--json")
        assert done.exit_code == 0, done.output
        return json.loads(done.stdout)

    def health(self, name: str) -> int:
        """Return the health status of a service."""
        with grpc.insecure_channel(self.target) as channel:
            stub = health_pb2_grpc.HealthStub(channel)
            return int(stub.Check(health_pb2.HealthCheckRequest(service=name), timeout=20).status)

    def page(self, path: str) -> tuple[int, str]:
        """Get a page of the ops listener."""
        try:
            with urllib.request.urlopen(f"http://{self.settings['server']['ops']}{path}", timeout=20) as response:
                return response.status, response.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()


@pytest.fixture
def sidecar(tmp_path: Path) -> Iterator[Sidecar]:
    """A sidecar for issued tokens on free ports; ended after the test, whatever happened."""
    settings = {
        "version": 1,
        "server": {"listen": f"127.0.0.1:{free_port()}", "ops": f"127.0.0.1:{free_port()}", "drain": "0s"},
        "tokens": {"store": "sqlite:///tokens.db", "peppers": [{"id": "p1", "file": "pepper"}]},
        "act_as": {"allow": ["*@acme.com"]},
        "scopes": ["SEARCH"],
        "routes": ["routes.yaml"],
    }
    made = Sidecar(tmp_path, settings)
    made.write()
    yield made
    if made.process is not None and made.process.poll() is None:
        pid = made.process.pid
        # Workers outlive their parent.
        for each in (*Path(f"/proc/{pid}/task/{pid}/children").read_text().split(), pid):
            os.kill(int(each), signal.SIGKILL)
        made.process.wait()
