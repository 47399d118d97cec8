"""`extauthz serve` as a process: start, answers, drain, and everything that stops it at start."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import resource
import signal
import socket
import ssl
import stat
import statistics
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import grpc
import jwt
import pytest

from extauthz._pb import ext_authz_pb2 as pb
from extauthz.addresses import Address, parse_address
from extauthz.demo.issuer import AUDIENCE, CLIENT_ID, DemoIssuer
from extauthz.responses.internal_tokens import new_key
from extauthz.transport.http.ops import HttpServer
from extauthz.transport.sockets import open_port
from tests.support.h2_client import PREFACE, settings
from tests.support.ports import free_port, successive_ports
from tests.support.postgresql import MakePlace
from tests.support.readyz import condition
from tests.support.sidecar import PATIENCE, SERVICE, Sidecar, sidecar
from tests.support.silence import Silence
from tests.support.transports import Authority
from tests.support.waiting import eventually
from tests.support.world import bearer, check_request, oauth

__all__ = ["sidecar"]

pytest_plugins = ["tests.support.postgresql"]


@pytest.fixture(params=["sqlite", "postgresql"])
def stored(request: pytest.FixtureRequest, sidecar: Sidecar, make_place: MakePlace) -> Sidecar:
    """The sidecar, on a store of each kind."""
    place = make_place(request.param)
    sidecar.settings["tokens"]["store"] = str(place.where) if request.param == "postgresql" else f"sqlite:///{place.where}"
    sidecar.write()
    return sidecar


def test_the_last_use_of_a_token_is_told(stored: Sidecar) -> None:
    used, unused = stored.token(), stored.token()
    used_id, unused_id = (text.split("_")[1] for text in (used, unused))
    stored.start()
    before = int(time.time())  # noqa: TID251 - the sidecar lives now
    for source in ("2001:db8:7:8::1", "203.0.113.7"):
        assert stored.check(bearer(used, x_forwarded_for="198.51.100.1"), source).status.code == 0
    assert stored.check(bearer(unused[:-1])).status.code != 0
    metrics = stored.page("/metrics")[1]
    assert "extauthz_token_uses_waiting 1.0" in metrics
    assert "extauthz_token_uses_written_total 0.0" in metrics
    assert stored.told("token", "show", used_id)["last_used_at"] is None
    assert stored.stop() == 0
    found = {row["id"]: row for row in stored.told("token", "list")["tokens"]}
    at = datetime.fromisoformat(found[used_id]["last_used_at"]).timestamp()
    assert before <= at <= time.time()  # noqa: TID251 - the sidecar lives now
    assert stored.told("token", "show", used_id)["last_used_from"] == found[used_id]["last_used_from"] == "2001:db8:7::/48"
    assert (found[unused_id]["last_used_at"], found[unused_id]["last_used_from"]) == (None, None)
    assert stored.told("audit", "verify")["whole"]


def test_the_head_of_the_audit_is_in_the_metrics(stored: Sidecar) -> None:
    token = stored.token()
    stored.start()

    def seen() -> str:
        metrics = stored.page("/metrics")[1]
        position = re.search(r"^extauthz_audit_position (\d+)\.0$", metrics, re.MULTILINE)
        heads = re.findall(r'^extauthz_audit_head_info\{mac="([0-9a-f]{64})",number="(\d+)"\} 1\.0$', metrics, re.MULTILINE)
        assert position is not None
        assert [number for _, number in heads] == [position[1]]
        return f"{heads[0][1]}:{heads[0][0]}"

    first = seen()
    assert first == stored.told("audit", "verify")["head"]
    stored.told("token", "revoke", token.split("_")[1], "--yes")
    second = stored.told("audit", "verify", "--head", first)["head"]
    eventually(lambda: seen() == second, seconds=PATIENCE, pause=0.05)
    assert stored.stop() == 0


def test_a_missing_pepper_stops_the_start_and_names_the_tokens(stored: Sidecar) -> None:
    ids = [stored.token().split("_")[1] for _ in range(2)]
    (stored.folder / "new").write_text("n" * 64)
    listed = stored.settings["tokens"]["peppers"]
    stored.settings["tokens"]["peppers"] = [{"id": "p2", "file": "new"}]
    stored.write()
    refused = stored.refused()
    assert refused.returncode == 1
    assert "tokens.peppers: 2 active tokens need pepper 'p1', which is not listed (" in refused.stderr
    assert all(token_id in refused.stderr for token_id in ids)
    assert "list it again, behind the newest" in refused.stderr
    stored.told("token", "revoke", *ids, "--yes")
    stored.start()
    assert stored.stop() == 0
    stored.settings["tokens"]["peppers"] += listed
    stored.write()
    assert stored.told("audit", "verify")["whole"]


def test_it_answers_and_stops_with_exit_code_0(sidecar: Sidecar) -> None:
    token = sidecar.token()
    sidecar.start()
    assert sidecar.check(bearer(token)).ok_response.headers
    assert sidecar.check({}).denied_response.status.code == 401
    assert (sidecar.health(""), sidecar.health(SERVICE)) == (1, 1)
    assert sidecar.page("/healthz") == (200, "ok\n")
    status, text = sidecar.page("/readyz")
    assert (status, json.loads(text)["parts"]) == (200, {"serving": True, "store": True})
    metrics = sidecar.page("/metrics")[1]
    assert 'extauthz_checks_total{auth_type="USER",decision="allow",reason="allowed",route="POST /search"} 1.0' in metrics
    assert 'extauthz_checks_total{auth_type="none",decision="deny",reason="credential_missing",route="POST /search"} 1.0' in metrics
    assert 'extauthz_verdict_lookups_total{kind="issued",outcome="miss"} 1.0' in metrics
    assert 'extauthz_verdicts{kind="issued"} 1.0' in metrics
    age = re.search(r"^extauthz_feed_age_seconds ([0-9.e-]+)$", metrics, re.MULTILINE)
    assert age is not None
    assert float(age[1]) < PATIENCE
    assert sidecar.page("/nope")[0] == 404
    assert sidecar.stop() == 0
    decisions = [json.loads(line) for line in sidecar.logs[0].read_text().splitlines()]
    assert [(line["decision"], line["reason"]) for line in decisions] == [("allow", "allowed"), ("deny", "credential_missing")]
    for log in sidecar.logs:
        assert token not in log.read_text()
        assert token.split("_")[2] not in log.read_text()


def test_internal_tokens_verify_with_the_keys_that_the_parent_of_two_workers_serves(sidecar: Sidecar) -> None:
    for name in ("k1.pem", "k2.pem"):
        (sidecar.folder / name).write_bytes(new_key("ES256"))
    first, second = successive_ports(2)
    published = f"127.0.0.1:{free_port()}"
    sidecar.settings["server"] |= {"listen": f"127.0.0.1:{first}", "workers": 2}
    section = {"issuer": "https://sidecar", "audience": "upstream", "keys": [{"id": "k1", "file": "k1.pem"}], "jwks": published}
    sidecar.settings["internal_token"] = section
    sidecar.write()
    token = sidecar.token()
    with socket.create_server(("127.0.0.1", int(published.rpartition(":")[2]))):
        refused = sidecar.refused()
    assert (refused.returncode, f"{published} is in use by another process" in refused.stderr) == (1, True)
    sidecar.start()

    def made_by(port: int) -> str:
        sidecar.settings["server"]["listen"] = f"127.0.0.1:{port}"
        headers = {one.header.key: one.header.value for one in sidecar.check(bearer(token)).ok_response.headers}
        return headers["x-extauthz-token"]

    def key_ids() -> list[str]:
        with urllib.request.urlopen(f"http://{published}/.well-known/jwks.json", timeout=20) as response:
            return [key["kid"] for key in json.load(response)["keys"]]

    seen = []
    for ids in (["k1"], ["k2", "k1"]):
        sidecar.settings["server"]["listen"] = f"127.0.0.1:{first}"
        section["keys"] = [{"id": name, "file": f"{name}.pem"} for name in ids]
        sidecar.write()
        eventually(lambda ids=ids: key_ids() == ids, seconds=PATIENCE, pause=0.05)  # type: ignore[misc]
        keys = jwt.PyJWKClient(f"http://{published}/.well-known/jwks.json")
        for port in (first, second):
            made = made_by(port)
            assert made == made_by(port), "it is reused"
            key = keys.get_signing_key_from_jwt(made)
            told = jwt.decode(made, key, algorithms=["ES256"], audience="upstream", issuer="https://sidecar")
            assert (key.key_id, told["sub"]) == (ids[0], "ana@acme.com")
            seen.append(made)
    assert len(set(seen)) == 4
    assert "extauthz_internal_tokens_signed_total 4.0" in sidecar.page("/metrics")[1]
    assert sidecar.command("token", "revoke", token.split("_")[1], "--yes").exit_code == 0
    eventually(lambda: sidecar.check(bearer(token)).status.code != 0, seconds=PATIENCE, pause=0.01)
    answer = sidecar.check(bearer(token))
    assert all(made.encode() not in answer.SerializeToString() for made in seen)
    assert sidecar.stop() == 0
    for log in sidecar.logs:
        assert all(made.rpartition(".")[2] not in log.read_text() for made in seen)


def test_silent_strangers_keep_nobody_out(sidecar: Sidecar) -> None:
    """At every port of two workers and their parent, with the limits of the product and of a plain login's open files."""
    (sidecar.folder / "k1.pem").write_bytes(new_key("ES256"))
    first, second = successive_ports(2)
    published, ops = free_port(), int(sidecar.settings["server"]["ops"].rpartition(":")[2])
    sidecar.settings["server"] |= {"listen": f"127.0.0.1:{first}", "workers": 2, "transport": "nghttp2"}
    keys = [{"id": "k1", "file": "k1.pem"}]
    section = {"issuer": "https://sidecar", "audience": "upstream", "keys": keys, "jwks": f"127.0.0.1:{published}"}
    sidecar.settings["internal_token"] = section
    sidecar.write()
    token = sidecar.token()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (1024, hard))
    try:
        sidecar.start()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    eventually(lambda: "serving with several workers" in sidecar.logs[1].read_text())
    with (
        Silence(first, 1010, PREFACE + settings()) as greeted,
        Silence(second, 1010) as silent,
        Silence(ops, 110) as at_ops,
        Silence(published, 110) as at_keys,
    ):
        for round_ in range(10):
            assert sidecar.page("/healthz") == (200, "ok\n")
            with urllib.request.urlopen(f"http://127.0.0.1:{published}/.well-known/jwks.json", timeout=20) as response:
                assert response.status == 200
            sidecar.settings["server"]["listen"] = f"127.0.0.1:{(first, second)[round_ % 2]}"
            assert sidecar.check(bearer(token)).ok_response.headers
        assert sidecar.page("/readyz")[0] == 200
        assert greeted.held > 900
        assert all(one.opened > 100 for one in (silent, at_ops, at_keys))
    assert sidecar.stop() == 0
    assert "open files" not in sidecar.logs[1].read_text()


def test_an_internal_token_without_its_key_stops_the_start(sidecar: Sidecar) -> None:
    keys = [{"id": "k1", "file": "k1.pem"}]
    sidecar.settings["internal_token"] = {"issuer": "https://sidecar", "audience": "upstream", "keys": keys}
    sidecar.write()
    sidecar.token()
    refused = sidecar.refused()
    assert refused.returncode == 3
    assert "internal_token.keys[0]: " in refused.stderr
    assert "extauthz internal-token new-key" in refused.stderr


def speaks_http_1(address: str) -> None:
    """Ask as Envoy does whose cluster lacks http2_protocol_options; return when the connection is closed."""
    host, _, port = address.rpartition(":")
    with socket.socket(socket.AF_UNIX if address.startswith("/") else socket.AF_INET) as opened:
        opened.settimeout(PATIENCE)
        opened.connect(address if address.startswith("/") else (host, int(port)))
        opened.sendall(b"POST /envoy.service.auth.v3.Authorization/Check HTTP/1.1\r\nhost: extauthz\r\n\r\n")
        with contextlib.suppress(ConnectionError):
            while opened.recv(65536):
                pass


def test_the_page_of_the_configuration_never_quotes_an_error(sidecar: Sidecar) -> None:
    """What is wrong may be a secret that was written where the name of its place belongs."""
    sidecar.token()
    sidecar.start()
    assert json.loads(sidecar.page("/config")[1])["problem"] is None
    sidecar.settings["tokens"]["peppers"] = [{"id": "p1", "env": "HUNTER2_MISPLACED"}]
    sidecar.write()
    assert sidecar.process is not None
    sidecar.process.send_signal(signal.SIGHUP)
    page: list[str] = []

    def is_told() -> bool:
        page[:] = [sidecar.page("/config")[1]]
        return "tokens.peppers[0]" in str(json.loads(page[0])["problem"])

    eventually(is_told, seconds=PATIENCE)
    place = json.loads(page[0])["problem"]
    assert re.fullmatch(rf"{re.escape(str(sidecar.file))}:\d+: tokens\.peppers\[0\]: the log says why", place), place
    assert "HUNTER2" not in page[0]
    # The log never holds up what it tells of, so it may come a moment later.
    eventually(lambda: "HUNTER2_MISPLACED is not set" in sidecar.logs[1].read_text(), seconds=PATIENCE)
    assert sidecar.stop() == 0


def configuration_page(address: Address, *, tls: ssl.SSLContext | None = None) -> bytes:
    """Ask an ops listener for /config by a name that is none of loopback; return its status line, b"" without an answer."""
    family, where = (socket.AF_UNIX, address.path) if address.path else (socket.AF_INET, (address.host, address.port))
    with contextlib.ExitStack() as stack:
        opened = stack.enter_context(socket.socket(family))
        opened.settimeout(PATIENCE)
        opened.connect(where)
        if tls is not None:
            opened = stack.enter_context(tls.wrap_socket(opened, server_hostname="localhost"))
        opened.sendall(b"GET /config HTTP/1.1\r\nhost: rebound.example\r\nconnection: close\r\n\r\n")
        # Whoever has no certificate is cut off, which arrives as an alert, a reset or an end.
        with contextlib.suppress(ssl.SSLError, ConnectionError):
            return opened.makefile("rb").readline().rstrip()
    return b""


REFUSED, SHOWN = b"HTTP/1.1 403 Forbidden", b"HTTP/1.1 200 OK"


@pytest.mark.parametrize(
    ("listener", "expected"), [("tcp", REFUSED), ("tls", REFUSED), ("mutual tls", SHOWN), ("unix socket", SHOWN)]
)
def test_the_configuration_is_shown_to_strangers_by_no_ops_listener(sidecar: Sidecar, listener: str, expected: bytes) -> None:
    """Only a client certificate or the rights on a socket file tell who asks; a web page can send a browser here."""
    server, context = sidecar.settings["server"], None
    if listener == "unix socket":
        server["ops"] = f"unix://{sidecar.folder}/ops.sock"
    if listener.endswith("tls"):
        authority = Authority(sidecar.folder)
        chain, key = authority.issue("server")
        server["ops_tls"] = {"certificate": str(chain), "key": str(key)}
        context = ssl.create_default_context(cafile=str(authority.file))
    if listener == "mutual tls":
        server["ops_tls"]["client_ca"] = str(authority.file)
        stranger = ssl.create_default_context(cafile=str(authority.file))
        context.load_cert_chain(*authority.issue("prometheus"))
    sidecar.write()
    sidecar.token()
    sidecar.start()
    address = parse_address(server["ops"])
    assert configuration_page(address, tls=context) == expected
    if listener == "mutual tls":
        assert configuration_page(address, tls=stranger) == b""
    assert sidecar.stop() == 0


@pytest.mark.parametrize("transport", ["nghttp2", "grpcio"])
def test_the_transport_that_serves_is_told(sidecar: Sidecar, transport: str) -> None:
    sidecar.settings["server"]["transport"] = transport
    sidecar.write()
    sidecar.token()
    sidecar.start()
    assert sidecar.check({}).denied_response.status.code == 401
    (line,) = (line for line in map(json.loads, sidecar.logs[1].read_text().splitlines()) if line["message"] == "serving")
    assert line["transport"] == transport
    assert json.loads(sidecar.page("/config")[1])["transport"] == transport
    assert re.search(
        rf'^extauthz_build_info{{[^}}]*transport="{transport}"[^}}]*}} 1.0$', sidecar.page("/metrics")[1], re.MULTILINE
    )
    speaks_http_1(sidecar.settings["server"]["listen"])
    metrics = sidecar.page("/metrics")[1]
    assert 'extauthz_transport_refusals_total{reason="method_unknown"} 0.0' in metrics
    # grpc's core tells nobody whom it refuses.
    is_seen = transport == "nghttp2"
    assert ('extauthz_transport_refusals_total{reason="preface"} 1.0' in metrics) == is_seen
    # The log never holds up what it tells of, so it may come a moment later.
    eventually(lambda: ("its cluster lacks http2_protocol_options" in sidecar.logs[1].read_text()) == is_seen, seconds=PATIENCE)
    assert sidecar.stop() == 0


def test_alone_it_goes_on_serving_until_the_drain_is_over(sidecar: Sidecar) -> None:
    """Nobody else could answer; the ops listener says that it goes."""
    sidecar.settings["server"]["drain"] = "5m"
    sidecar.write()
    token = sidecar.token()
    sidecar.start()
    assert sidecar.process is not None
    sidecar.process.send_signal(signal.SIGTERM)
    deadline = time.monotonic() + PATIENCE
    while sidecar.page("/readyz")[0] != 503:
        assert time.monotonic() < deadline, "still ready after SIGTERM"
    assert [sidecar.health(name) for name in ("", SERVICE)] == [1, 1]
    assert sidecar.check(bearer(token)).ok_response.headers
    assert sidecar.stop() == 0, "a second signal ends the drain"


def test_a_revocation_and_a_new_token_are_seen(sidecar: Sidecar) -> None:
    """Within two seconds, or a hundred checks where one takes longer than twenty milliseconds, as on a busy machine."""
    token = sidecar.token()
    sidecar.start()
    assert sidecar.check(bearer(token)).status.code == 0
    later = sidecar.token()
    assert sidecar.check(bearer(later)).status.code == 0
    assert sidecar.command("token", "revoke", token.split("_")[1], "--yes").exit_code == 0
    revoked_at = time.monotonic()
    eventually(lambda: sidecar.check(bearer(token)).status.code != 0, seconds=PATIENCE, pause=0.01)
    taken = time.monotonic() - revoked_at
    for _ in range(5):
        assert sidecar.check(bearer(later)).status.code == 0
    check = (time.monotonic() - revoked_at - taken) / 5
    assert taken < max(2.0, 100 * check), f"{taken:.3f} s, and a check took {check:.3f} s"
    assert sidecar.check(bearer(later)).status.code == 0
    sidecar.stop()


def test_a_store_that_goes_away_is_told_and_comes_back(sidecar: Sidecar) -> None:
    """Tokens in memory go on, others get 503."""
    token, other = sidecar.token(), sidecar.token()
    sidecar.start()
    assert sidecar.check(bearer(token)).status.code == 0
    database = sidecar.folder / "tokens.db"
    hidden = database.rename(sidecar.folder / "hidden.db")
    time.sleep(0.6)  # why: looks at the store pass meanwhile, and what is known goes on
    assert sidecar.check(bearer(token)).status.code == 0
    answer = sidecar.check(bearer(other))
    assert (answer.denied_response.status.code, answer.status.code) == (503, 14)
    assert sidecar.page("/readyz")[0] == 200
    hidden.rename(database)
    eventually(lambda: sidecar.check(bearer(other)).status.code == 0, seconds=PATIENCE, pause=0.05)
    sidecar.stop()


def test_a_strict_sidecar_answers_nothing_without_its_store(sidecar: Sidecar) -> None:
    sidecar.settings["tokens"]["max_staleness"] = "0s"
    sidecar.write()
    token = sidecar.token()
    sidecar.start()
    assert sidecar.check(bearer(token)).status.code == 0
    (sidecar.folder / "tokens.db").rename(sidecar.folder / "hidden.db")
    eventually(lambda: sidecar.check(bearer(token)).status.code != 0, seconds=PATIENCE / 2, pause=0.05)
    assert sidecar.check(bearer(token)).denied_response.status.code == 503
    eventually(lambda: sidecar.page("/readyz")[0] != 200, seconds=PATIENCE / 2, pause=0.05)
    assert condition(json.loads(sidecar.page("/readyz")[1]), "store_followed") is False
    sidecar.stop()


def test_a_unix_socket_has_mode_0660_and_is_removed(sidecar: Sidecar) -> None:
    path = sidecar.folder / "check.sock"
    sidecar.settings["server"]["listen"] = f"unix://{path}"
    sidecar.write()
    token = sidecar.token()
    sidecar.start()
    assert stat.S_IMODE(path.stat().st_mode) == 0o660
    assert sidecar.check(bearer(token)).status.code == 0
    sidecar.settings["server"]["ops"] = None
    sidecar.write()
    second = sidecar.refused()
    assert second.returncode == 1
    assert f"unix://{path} is in use by another extauthz" in second.stderr
    assert sidecar.check(bearer(token)).status.code == 0, "the second start must not take the socket"
    assert sidecar.stop() == 0
    assert not path.exists()


def test_a_socket_left_by_a_killed_process_is_taken_over(sidecar: Sidecar) -> None:
    path = sidecar.folder / "check.sock"
    sidecar.settings["server"]["listen"] = f"unix://{path}"
    sidecar.write()
    token = sidecar.token()
    sidecar.start()
    assert sidecar.process is not None
    sidecar.process.kill()
    sidecar.process.wait()
    assert path.exists()
    sidecar.start()
    assert sidecar.check(bearer(token)).status.code == 0
    assert sidecar.stop() == 0


@pytest.mark.parametrize("which", ["listen", "ops"])
@pytest.mark.parametrize("shared", [False, True], ids=["plain", "SO_REUSEPORT"])
def test_a_port_in_use_is_an_error_that_names_it(sidecar: Sidecar, which: str, *, shared: bool) -> None:
    sidecar.token()
    address = sidecar.settings["server"][which]
    with socket.socket() as taken:
        if shared:
            taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        taken.bind(("127.0.0.1", int(address.rpartition(":")[2])))
        taken.listen()
        refused = sidecar.refused()
    assert refused.returncode == 1
    assert f"{address} is in use by another process" in refused.stderr


def test_serve_makes_neither_store_nor_pepper(sidecar: Sidecar) -> None:
    refused = sidecar.refused()
    assert refused.returncode == 3
    assert "pepper: No such file or directory" in refused.stderr
    (sidecar.folder / "pepper").write_text("p" * 64)
    refused = sidecar.refused()
    assert refused.returncode == 1
    assert "no token store; make one with 'extauthz store migrate'" in refused.stderr
    assert sorted(file.name for file in sidecar.folder.iterdir()) == ["extauthz.yaml", "pepper", "routes.yaml"]


def test_another_pepper_stops_the_start(sidecar: Sidecar) -> None:
    sidecar.token()
    (sidecar.folder / "pepper").write_text("p" * 64)
    refused = sidecar.refused()
    assert refused.returncode == 1
    assert "pepper 'p1' is not the one" in refused.stderr
    assert "pppp" not in refused.stderr


def test_an_issuer_that_is_down_at_start_stops_only_its_own_tokens(sidecar: Sidecar) -> None:
    port = free_port()
    issuer = DemoIssuer(f"http://127.0.0.1:{port}")
    section = {"provider": "okta", "issuer": issuer.issuer, "client_ids": [CLIENT_ID], "audience": AUDIENCE}
    sidecar.settings["oauth"] = section
    sidecar.write()
    issued = sidecar.token()
    sidecar.start()
    token = oauth(issuer.token("ana@acme.com"))
    answer = sidecar.check(token)
    assert (answer.denied_response.status.code, answer.dynamic_metadata.fields["reason"].string_value) == (
        503,
        "key_set_unavailable",
    )
    assert sidecar.check(bearer(issued)).status.code == 0
    assert sidecar.page("/readyz")[0] == 200

    async def with_issuer() -> None:
        server = HttpServer(issuer)
        serving = asyncio.create_task(server.run_on(open_port(Address(host="127.0.0.1", port=port))))
        try:
            async with asyncio.timeout(PATIENCE):
                while (await asyncio.to_thread(sidecar.check, token)).status.code != 0:
                    await asyncio.to_thread(time.sleep, 0.1)
        finally:
            server.should_exit = True
            await serving

    asyncio.run(with_issuer())
    assert sidecar.stop() == 0
    for log in sidecar.logs:
        assert str(token["authorization"]).removeprefix("Bearer ") not in log.read_text()


def test_a_bundle_of_certificates_that_is_none_stops_the_start(sidecar: Sidecar) -> None:
    section = {
        "provider": "okta",
        "issuer": "https://acme.okta.com/oauth2/x",
        "client_ids": ["x"],
        "audience": "x",
        "ca_file": "nope.pem",
    }
    sidecar.settings["oauth"] = section
    sidecar.write()
    sidecar.token()
    refused = sidecar.refused()
    assert refused.returncode == 3
    assert "oauth.ca_file: " in refused.stderr
    assert "nope.pem: No such file or directory" in refused.stderr
    (sidecar.folder / "nope.pem").write_text("nothing")
    assert "nope.pem: not a bundle of certificates" in sidecar.refused().stderr


def test_azure_tokens_are_verified_with_the_keys_of_a_mirror(sidecar: Sidecar) -> None:
    tenant, client = "88888888-8888-8888-8888-888888888888", "33333333-3333-3333-3333-333333333333"
    port = free_port()
    mirror = DemoIssuer(f"http://127.0.0.1:{port}")
    section = {"provider": "azure", "issuer": f"{tenant}/v2.0", "client_ids": [client], "jwks_uri": f"{mirror.issuer}/v1/keys"}
    sidecar.settings["oauth"] = section
    sidecar.write()
    sidecar.token()
    claims = {"iss": f"https://login.microsoftonline.com/{tenant}/v2.0", "aud": client, "azp": client, "tid": tenant, "ver": "2.0"}
    token = mirror.token("x", **claims, preferred_username="ana@acme.com", scp="access_as_user", jti="x")
    forged = DemoIssuer(f"http://127.0.0.1:{port}").token(
        "x", **claims, preferred_username="ana@acme.com", scp="access_as_user", jti="x"
    )

    async def with_mirror() -> None:
        server = HttpServer(mirror)
        serving = asyncio.create_task(server.run_on(open_port(Address(host="127.0.0.1", port=port))))
        try:
            await asyncio.to_thread(sidecar.start)
            answer = await asyncio.to_thread(sidecar.check, oauth(token))
            assert answer.dynamic_metadata.fields["user"].string_value == "ana@acme.com"
            metrics = (await asyncio.to_thread(sidecar.page, "/metrics"))[1]
            issuer = f"https://login.microsoftonline.com/{tenant}/v2.0"
            assert f'extauthz_keys{{issuer="{issuer}"}} 1.0' in metrics
            assert f'extauthz_keys_age_seconds{{issuer="{issuer}"}} 0.' in metrics
            assert (await asyncio.to_thread(sidecar.check, oauth(forged))).denied_response.status.code == 401
        finally:
            server.should_exit = True
            await serving

    asyncio.run(with_mirror())
    assert sidecar.stop() == 0


def test_no_decision_log(sidecar: Sidecar) -> None:
    sidecar.token()
    call = [sys.executable, "-m", "extauthz", "serve", "--no-decision-log", "--config", str(sidecar.file)]
    with subprocess.Popen(call, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        with contextlib.ExitStack() as stack:
            stack.callback(process.wait)
            stack.callback(process.terminate)

            def is_ready() -> bool:
                with contextlib.suppress(OSError):
                    return sidecar.page("/readyz")[0] == 200
                return False

            eventually(is_ready, seconds=PATIENCE, pause=0.05)
            sidecar.check({})
        assert process.stdout is not None
        assert process.stdout.read() == b""
    assert process.returncode == 0


def test_decisions_go_to_a_file_and_nothing_to_standard_output(sidecar: Sidecar) -> None:
    sidecar.settings["decision_log"] = {"to": {"file": "decisions.jsonl"}, "sample": {"credential_missing": 0}}
    sidecar.write()
    token = sidecar.token()
    sidecar.start()
    sidecar.check(bearer(token, **{"x-request-id": "one"}))
    sidecar.check({})
    assert sidecar.stop() == 0
    (line,) = (sidecar.folder / "decisions.jsonl").read_text().splitlines()
    assert (json.loads(line)["request_id"], json.loads(line)["token_id"]) == ("one", token.split("_")[1])
    assert sidecar.logs[0].read_bytes() == b""


@pytest.mark.parametrize("workers", [1, 2])
def test_the_decision_log_is_rotated_and_moved(sidecar: Sidecar, workers: int) -> None:
    """SIGHUP opens the file anew in every worker; a change of the section is a reload, and one that cannot be is refused."""
    listen = f"unix://{sidecar.folder}/check.sock"
    sidecar.settings["server"] |= {"workers": workers, "listen": listen}
    sidecar.settings["decision_log"] = {"to": {"file": "decisions.jsonl"}}
    sidecar.write()
    sidecar.token()
    sidecar.start()
    addresses = [listen] if workers == 1 else [f"unix://{sidecar.folder}/check-{index}.sock" for index in range(workers)]
    file, rotated, moved = (sidecar.folder / name for name in ("decisions.jsonl", "rotated", "moved"))
    assert sidecar.process is not None

    def check_all() -> None:
        for address in addresses:
            with grpc.insecure_channel(address.replace("unix://", "unix:")) as channel:
                ask = channel.unary_unary(f"/{SERVICE}/Check")
                ask(check_request("POST", "/search", {}.items()), timeout=20)

    def wait_for(condition: Callable[[], object]) -> None:
        eventually(condition, seconds=PATIENCE, pause=0.02, what=lambda: sidecar.logs[1].read_text())

    def lines(of: Path) -> int:
        return len([json.loads(line) for line in of.read_text().splitlines()]) if of.exists() else 0

    wait_for(lambda: workers == 1 or "serving with several workers" in sidecar.logs[1].read_text())
    check_all()
    wait_for(lambda: lines(file) == workers)
    file.rename(rotated)
    sidecar.process.send_signal(signal.SIGHUP)
    wait_for(file.exists)
    wait_for(lambda: sidecar.logs[1].read_text().count("configuration reloaded") == 1)
    check_all()
    wait_for(lambda: lines(file) == workers)
    sidecar.settings["decision_log"] = {"to": {"file": "none/moved"}}
    sidecar.write()
    wait_for(lambda: "No such file or directory" in sidecar.logs[1].read_text())
    check_all()
    wait_for(lambda: lines(file) == 2 * workers)
    sidecar.settings["decision_log"] = {"to": {"file": "moved"}}
    sidecar.write()
    wait_for(moved.exists)
    wait_for(lambda: sidecar.logs[1].read_text().count("configuration reloaded") == 2)
    check_all()
    wait_for(lambda: lines(moved) == workers)
    for address in addresses:
        speaks_http_1(address.removeprefix("unix://"))
    metrics = sidecar.page("/metrics")[1]
    assert f"extauthz_decision_log_written_total {4 * workers}.0" in metrics
    assert f'extauthz_transport_refusals_total{{reason="preface"}} {workers}.0' in metrics
    assert sidecar.stop() == 0
    assert [lines(each) for each in (rotated, file, moved)] == [workers, 2 * workers, workers]


def test_a_decision_log_that_cannot_be_opened_stops_the_start(sidecar: Sidecar) -> None:
    sidecar.settings["decision_log"] = {"to": {"file": "none/decisions.jsonl"}}
    sidecar.write()
    sidecar.token()
    refused = sidecar.refused()
    assert refused.returncode == 3
    assert "decision_log.to.file: " in refused.stderr
    assert "none/decisions.jsonl: No such file or directory" in refused.stderr


def test_a_reader_that_stalls_does_not_stall_the_checks(sidecar: Sidecar) -> None:
    token = sidecar.token()
    reading, writing = os.pipe()
    call = [sys.executable, "-m", "extauthz", "serve", "--config", str(sidecar.file)]
    with subprocess.Popen(call, stdout=writing, stderr=subprocess.DEVNULL) as process:
        os.close(writing)
        try:
            with grpc.insecure_channel(sidecar.target) as channel:
                grpc.channel_ready_future(channel).result(timeout=PATIENCE)
                ask = channel.unary_unary(f"/{SERVICE}/Check")
                data = check_request("POST", "/search", bearer(token).items())
                taken = []
                for _ in range(1500):
                    began = time.monotonic()
                    answer = pb.CheckResponse.FromString(ask(data, timeout=20))
                    taken.append(time.monotonic() - began)
                    assert answer.status.code == 0
            # The pipe is full after some two hundred lines: what comes then takes no longer than what came before.
            before, after = statistics.median(taken[20:120]), statistics.median(taken[-300:])
            assert after < 10 * before + 0.005
        finally:
            process.terminate()
            os.close(reading)
            process.wait(timeout=PATIENCE)


def test_issued_tokens_are_switched_off_while_it_serves_by_leaving_the_section_out(sidecar: Sidecar) -> None:
    token = sidecar.token()
    sidecar.settings["oauth"] = {
        "provider": "okta",
        "issuer": "https://acme.okta.com/oauth2/x",
        "client_ids": ["x"],
        "audience": "x",
        "jwks_uri": f"http://127.0.0.1:{free_port()}/keys",
    }
    sidecar.write()
    sidecar.start()
    assert sidecar.check(bearer(token)).status.code == 0
    tokens = sidecar.settings.pop("tokens")
    sidecar.write()
    eventually(lambda: sidecar.check(bearer(token)).dynamic_metadata.fields["reason"].string_value == "credential_disabled")
    sidecar.settings["tokens"] = tokens
    sidecar.write()
    eventually(lambda: sidecar.check(bearer(token)).status.code == 0)
    (found,) = [one for one in sidecar.doctor() if one["name"] == "server.ops" and "/readyz" in one["found"]]
    assert (found["level"], "configuration files are replaced as a whole" in found["found"]) == ("warning", True)
    sidecar.logs_that(f"{sidecar.file} was changed in place")
    assert sidecar.stop() == 0
