"""What docker-compose.yml starts, as real processes behind a real Envoy."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import ssl
import subprocess
import sys
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from extauthz.demo.launcher import Ports
from tests.support.demo_processes import demo_ports
from tests.support.deployment import COMPOSE, changed, server
from tests.support.project import ROOT
from tests.support.tcp_postgres import TcpPostgres
from tests.support.waiting import eventually

pytestmark = pytest.mark.long

__all__ = ["server"]

TRUST_ANY = ssl._create_unverified_context()  # noqa: S323 - to see whether somebody answers


@dataclass
class Parts:
    """The parts of docker-compose.yml as processes, with their files in a folder."""

    folder: Path
    ports: Ports
    database: TcpPostgres

    @property
    def secrets(self) -> tuple[Path, Path, Path]:
        """The volumes of the sidecar's, of the database's and of the console's secrets."""
        return self.folder / "sidecar-secrets", self.folder / "database-secrets", self.folder / "console-secrets"

    def configuration(self, name: str) -> Path:
        """Adapt a configuration: names of containers become loopback, volumes become folders."""
        sidecar, database, console = map(str, self.secrets)
        text = (COMPOSE / f"{name}.yaml").read_text()
        for old, new in (
            ("0.0.0.0:9001", f"127.0.0.1:{self.ports.sidecar}"),
            ("0.0.0.0:9090", f"127.0.0.1:{self.ports.ops}"),
            ("0.0.0.0:9003", f"127.0.0.1:{self.ports.console}"),
            ("0.0.0.0:9091", "127.0.0.1:0"),
            ("https://localhost:9003", f"https://localhost:{self.ports.console}"),
            ("http://sidecar:9090", f"http://127.0.0.1:{self.ports.ops}"),
            ("https://issuer:9002", f"https://localhost:{self.ports.issuer}"),
            ("/run/extauthz/ca.crt", str(self.folder / "issuer" / "ca.crt")),
            ("/run/extauthz/", f"{console if name == 'console' else database}/"),
            ("/var/lib/extauthz/", f"{sidecar}/"),
            ("@database:5432/extauthz?", f"@database:{self.database.port}/extauthz?hostaddr=127.0.0.1&"),
            ("drain: 10s", "drain: 0s"),
        ):
            text = text.replace(old, new)
        file = self.folder / "deploy" / "compose" / f"{name}.yaml"
        file.write_text(text)
        return file

    def extauthz(self, name: str, *arguments: str) -> dict[str, Any]:
        """Run a command with the account of a configuration."""
        call = [sys.executable, "-m", "extauthz", *arguments, "--config", str(self.configuration(name)), "--json"]
        done = subprocess.run(call, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)  # type: ignore[no-any-return]

    def send(self, token: str, *headers: tuple[str, str]) -> tuple[int, dict[str, Any]]:
        """Search through Envoy."""
        address = f"http://127.0.0.1:{self.ports.envoy}/rest/api/v1/search"
        request = urllib.request.Request(address, b"{}", {"authorization": f"Bearer {token}", **dict(headers)})
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                return answer.status, json.loads(answer.read())
        except urllib.error.HTTPError as error:
            with error:
                return error.code, json.loads(error.read())

    def oauth_token(self, **wanted: str) -> str:
        """Ask the issuer for a token."""
        trust = ssl.create_default_context(cafile=str(self.folder / "issuer" / "ca.crt"))
        address = f"https://localhost:{self.ports.issuer}/demo/token"
        with urllib.request.urlopen(address, json.dumps(wanted).encode(), timeout=10, context=trust) as answer:
            return str(json.loads(answer.read())["token"])


@contextlib.contextmanager
def process(log: Path, *command: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run a process inside the block; it must end with 0 when it is asked to."""
    with log.open("wb") as output:
        running = subprocess.Popen(command, stdout=output, stderr=output)
    try:
        yield running
        running.terminate()
        assert running.wait(timeout=60) == 0, log.read_text()
    finally:
        running.kill()
        running.wait()


def until_told(holds: Callable[[], bool], *logs: Path) -> None:
    """Wait until something holds, for a minute at most, after which the logs say why not."""
    eventually(holds, seconds=60, pause=0.05, what=lambda: "\n".join(log.read_text(errors="replace")[-2000:] for log in logs))


def is_open(address: str) -> bool:
    """Tell whether a page answers, whatever it says."""
    try:
        urllib.request.urlopen(address, timeout=5, context=TRUST_ANY).close()
    except urllib.error.HTTPError as error:
        error.close()
        return error.code < 500
    except OSError:
        return False
    return True


def see_the_console(parts: Parts, token_id: str, log: Path) -> None:
    """Log in with an account of the console's own, as the documents say, and find a token in the list."""
    add_user = ("console", "add-user", "ana@acme.com", "--password-file", "-", "--config", str(parts.configuration("console")))
    password = "a password for this demo"
    called = [sys.executable, "-m", "extauthz", *add_user]
    done = subprocess.run(called, input=password, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    origin = f"https://localhost:{parts.ports.console}"
    trust = ssl.create_default_context(cafile=str(parts.secrets[2] / "ca.crt"))
    until_told(lambda: is_open(f"{origin}/readyz"), log)
    cookies = urllib.request.HTTPCookieProcessor()
    browser = urllib.request.build_opener(urllib.request.HTTPSHandler(context=trust), cookies)
    form = urllib.parse.urlencode({"email": "ana@acme.com", "password": password}).encode()
    headers = {"origin": origin, "content-type": "application/x-www-form-urlencoded"}
    browser.open(urllib.request.Request(f"{origin}/login", form, headers), timeout=10).close()
    with browser.open(f"{origin}/tokens", timeout=10) as page:
        assert token_id in page.read().decode()


@pytest.mark.envoy
def test_the_parts_work_together(tmp_path: Path, server: TcpPostgres) -> None:
    ports = demo_ports()
    parts = Parts(tmp_path, ports, server)
    shutil.copytree(ROOT / "config", tmp_path / "config")
    shutil.copytree(COMPOSE, tmp_path / "deploy" / "compose")
    for folder in (*parts.secrets, tmp_path / "issuer"):
        folder.mkdir()

    path = f"{Path(sys.executable).parent}:{server.programs}:{os.environ['PATH']}"
    made_at: list[dict[Path, str]] = []
    for _ in range(2):
        command = ["sh", COMPOSE / "make-secrets.sh", *parts.secrets]
        subprocess.run(command, env=os.environ | {"PATH": path}, check=True, timeout=60)
        made_at.append({file: file.read_text() for folder in parts.secrets for file in folder.iterdir()})
    assert made_at[0] == made_at[1], "what is there stays"
    kept = {file: text for file, text in made_at[0].items() if file.suffix != ".crt" and file.suffix != ".key"}
    assert len(set(kept.values())) == len(kept) - 2 == 6, "two passwords are known to both sides"
    assert all(len(secret) == 64 for secret in kept.values())
    assert {file.name for file in made_at[0].keys() - kept.keys()} == {"database-ca.crt", "ca.crt", "server.crt", "server.key"}

    environment = {
        "PATH": path,
        "PGHOST": str(server.folder),
        "PGPORT": str(server.port),
        "PGDATA": str(server.data),
        "EXTAUTHZ_SECRETS": str(parts.secrets[1]),
    }
    subprocess.run([COMPOSE / "database-accounts.sh"], env=environment, check=True, timeout=60)
    server.start()
    parts.extauthz("owner", "store", "migrate")
    with server.connect() as connection:
        roles = "SELECT array_agg(roleid::regrole::text) FROM pg_auth_members WHERE member = 'tokens_console'::regrole"
        assert connection.execute(roles).fetchone() == (["extauthz_admin"],), "what admins may do, no more"
        server.let_in("hostnossl all all all reject", "hostssl all all 127.0.0.1/32 scram-sha-256")
        connection.execute("SELECT pg_reload_conf()")
    made = parts.extauthz(
        "admin", "token", "create", "--permission", "GLOBAL", "--scope", "SEARCH", "--description", "d", "--expires", "1d"
    )

    issuer = ("issuer", "--listen", f"127.0.0.1:{ports.issuer}", "--certificates", str(tmp_path / "issuer"))
    upstream = ("upstream", "--listen", f"127.0.0.1:{ports.upstream}")
    envoy_file = tmp_path / "envoy.yaml"
    text = (COMPOSE / "envoy.yaml").read_text()
    for old, new in (
        ("port_value: 10000", f"port_value: {ports.envoy}"),
        ("address: sidecar\n                port_value: 9001", f"address: localhost\n                port_value: {ports.sidecar}"),
        (
            "address: upstream\n                port_value: 8080",
            f"address: localhost\n                port_value: {ports.upstream}",
        ),
        ("path: /tmp/extauthz-envoy-admin.sock", f"path: {tmp_path / 'admin.sock'}"),
    ):
        text = changed(text, ((old, new),))
    envoy_file.write_text(
        text.replace("address: 0.0.0.0", "address: 127.0.0.1").replace(
            "STRICT_DNS\n", "STRICT_DNS\n    dns_lookup_family: V4_ONLY\n"
        )
    )
    envoy = str(Path(sys.executable).with_name("envoy"))
    logs = [tmp_path / f"{name}.log" for name in ("issuer", "upstream", "sidecar", "envoy", "console")]
    with contextlib.ExitStack() as stack:
        for log, part in zip(logs, (issuer, upstream), strict=False):
            stack.enter_context(process(log, sys.executable, "-m", "extauthz.demo.part", *part))
        until_told(lambda: is_open(f"https://localhost:{ports.issuer}/.well-known/openid-configuration"), *logs[:1])
        serve = ("serve", "--config", str(parts.configuration("extauthz")))
        stack.enter_context(process(logs[2], sys.executable, "-m", "extauthz", *serve))
        stack.enter_context(
            process(logs[3], envoy, "--config-path", str(envoy_file), "--use-dynamic-base-id", "--log-level", "warning")
        )
        console = str(parts.configuration("console"))
        stack.enter_context(process(logs[4], sys.executable, "-m", "extauthz", "console", "--config", console))
        until_told(lambda: is_open(f"http://127.0.0.1:{ports.envoy}/healthz"), *logs[2:])

        acting = ("x-scio-actas", "ana@acme.com")
        status, document = parts.send(made["token"], acting)
        assert (status, document["headers"]["x-extauthz-user"]) == (200, "ana@acme.com")
        assert parts.send(made["token"], ("x-scio-actas", "ceo@acme.com"))[1]["reason"] == "act_as_forbidden"
        assert parts.send("nothing")[0] == 401
        for provider in ("okta", "onelogin"):
            oauth = parts.oauth_token(user="ana@acme.com", provider=provider)
            status, document = parts.send(oauth, ("x-glean-auth-type", "OAUTH"))
            assert (status, document["headers"]["x-extauthz-user"]) == (200, "ana@acme.com"), document
        see_the_console(parts, made["id"], logs[4])
        parts.extauthz("admin", "token", "revoke", made["id"], "--yes")
        until_told(lambda: parts.send(made["token"], acting)[0] == 401)
    for log in logs:
        assert not [secret for secret in kept.values() if secret in log.read_text()]
