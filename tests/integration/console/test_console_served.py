"""`extauthz console` as a process: it starts without its database, answers by its own name alone, and ends when it is told to."""

from __future__ import annotations

import signal
import ssl
import subprocess
from contextlib import closing
from http.client import HTTPConnection
from pathlib import Path
from resource import RLIMIT_NOFILE, prlimit

import httpx2
import pytest

from extauthz.console.connections import ConsoleConnection
from tests.support.console_process import ANA, COMMAND, console, log_in
from tests.support.console_world import PASSWORD, SETTINGS
from tests.support.ports import free_port
from tests.support.silence import Silence
from tests.support.transports import Authority
from tests.support.waiting import eventually


def test_it_starts_serves_and_ends(tmp_path: Path) -> None:
    with console(tmp_path) as (address, process), httpx2.Client() as client:
        added = subprocess.run(
            [*COMMAND, "add-user", ANA, "--password-file", "-", "--config", tmp_path / "extauthz.yaml"],
            input=PASSWORD.encode(),
            check=True,
            capture_output=True,
        )
        assert added.stdout == b"Account ana@acme.com is added.\n"
        assert (client.get(f"{address}/healthz").text, client.get(f"{address}/readyz").text) == ("ok\n", "ok\n")
        assert log_in(client, address) == 303
        assert "There is no client token yet" in client.get(f"{address}/tokens").text
        other = client.get(f"{address}/tokens", headers={"host": "evil.test"})
        assert (other.status_code, client.get(f"{address}/healthz", headers={"host": "evil.test"}).status_code) == (421, 200)
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=20) == 0


def test_a_database_that_is_away_stops_no_start(tmp_path: Path) -> None:
    away = {**SETTINGS["tokens"], "store": f"postgresql://extauthz@127.0.0.1:{free_port()}/tokens"}
    with console(tmp_path, tokens=away) as (address, _), httpx2.Client(timeout=30) as client:
        assert client.get(f"{address}/healthz").status_code == 200
        assert (client.get(f"{address}/readyz").status_code, client.get(f"{address}/login").status_code) == (503, 200)
        assert log_in(client, address) == 503


def shown_at(port: int) -> str:
    """Return the certificate that a listener shows."""
    return ssl.get_server_certificate(("127.0.0.1", port))


def unmet(address: str) -> list[str]:
    """Return the conditions of /readyz that are not met."""
    return [each["key"] for each in httpx2.get(address).json()["details"] if not each["met"]]


def test_tls(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    chain, key = authority.issue("console")
    port = free_port()
    ops_port = free_port()
    section = {"listen": f"127.0.0.1:{port}", "public_url": f"https://localhost:{port}", "ops": f"127.0.0.1:{ops_port}"}
    with console(tmp_path, console=section | {"tls": {"certificate": str(chain), "key": str(key)}}) as (address, _):
        trusted = ssl.create_default_context(cafile=str(authority.file))
        with httpx2.Client(verify=trusted) as client:
            answer = client.get(f"{address}/login")
            assert (answer.status_code, answer.headers["strict-transport-security"]) == (200, "max-age=31536000")
        ops = f"http://127.0.0.1:{ops_port}/readyz"
        shown = shown_at(port)
        key.write_text("no key")
        eventually(lambda: unmet(ops) == ["certificate_current"], seconds=10)
        assert shown_at(port) == shown
        authority.issue("console")
        eventually(lambda: shown_at(port) != shown, seconds=10)
        eventually(lambda: unmet(ops) == [], seconds=10)
        with httpx2.Client() as client, pytest.raises(httpx2.RequestError):
            client.get(f"{address.replace('https', 'http')}/login")


def test_a_taken_port_is_named(tmp_path: Path) -> None:
    with console(tmp_path) as (address, _):
        file = tmp_path / "extauthz.yaml"
        second = subprocess.run([*COMMAND, "--config", file], capture_output=True, timeout=60)
    assert second.returncode == 1
    assert f"{address.removeprefix('http://')} is in use by another process" in second.stderr.decode()


HALF_A_FORM = (
    b"POST /login HTTP/1.1\r\nhost: x\r\norigin: http://x\r\ncontent-type: application/x-www-form-urlencoded\r\n"
    b"content-length: 60000\r\n\r\nemail="
)


def test_strangers_hold_few_connections_and_are_who_they_are(tmp_path: Path) -> None:
    with console(tmp_path) as (address, process), httpx2.Client() as client:
        prlimit(process.pid, RLIMIT_NOFILE, (256, 256))
        port = int(address.rpartition(":")[2])
        with Silence(port, 250, reopens=False) as silent, Silence(port, 100, HALF_A_FORM, reopens=False) as slow:
            elsewhere = HTTPConnection("127.0.0.1", port, timeout=2, source_address=("127.0.0.2", 0))
            with closing(elsewhere):
                elsewhere.request("GET", "/login", headers={"host": address.removeprefix("http://")})
                assert elsewhere.getresponse().status == 200
            eventually(lambda: silent.held + slow.held <= ConsoleConnection.most_of_client, seconds=3)
        for path, allowed, status in (("/login", 5, 403), ("/api/v1/tokens", 10, 401)):
            statuses = []
            for number in range(allowed + 1):
                headers = {"x-forwarded-for": f"203.0.113.{number}", "origin": address, "authorization": "Bearer exadm_wrong"}
                fields = {"email": f"{number}@acme.com", "password": PASSWORD}
                sent = (
                    client.post(address + path, data=fields, headers=headers)
                    if path == "/login"
                    else client.get(address + path, headers=headers)
                )
                statuses.append(sent.status_code)
            assert statuses == [status] * allowed + [429]
    log = (tmp_path / "console.log").read_text()
    assert ("127.0.0.1" in log, "203.0.113." in log, "out of system resource" in log) == (True, False, False)
