"""What `extauthz envoy-config` prints for WebSockets, gRPC-Web, proxies, too many denials and browsers, in a real Envoy."""

from __future__ import annotations

import base64
import contextlib
import json
import re
import socket
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from extauthz.cli import main
from tests.support.edge import (
    EchoService,
    Pages,
    Tap,
    merged,
    running_chromium,
    running_grpc,
    running_http_upstream,
    running_pages,
)
from tests.support.envoy import Reply, running_envoy, running_sidecar, send
from tests.support.h2_client import Client, framed
from tests.support.ports import free_port

pytestmark = pytest.mark.envoy

ROUTES = """\
routes:
  - {match: "GET|HEAD /healthz", public: true}
  - {match: "POST /search", scope: SEARCH}
  - {match: "GET /socket", scope: SEARCH}
  - {match: "POST /echo.Echo/Say", scope: SEARCH}
"""
LIMIT = 3
GRPC_WEB = "application/grpc-web+proto"


@dataclass
class Edge:
    """A running Envoy with a listener for each set of flags."""

    ports: dict[str, int]
    token: str
    tap: Tap
    pages: Pages
    folder: Path

    @property
    def bearer(self) -> tuple[str, str]:
        """The header of a good token."""
        return "authorization", f"Bearer {self.token}"

    def send(self, listener: str, line: str, *headers: tuple[str, str]) -> Reply:
        return send(self.ports[listener], line, [("host", "localhost"), ("content-length", "0"), *headers])

    def send_raw(self, listener: str, *lines: str, until: bytes | None = None) -> tuple[socket.socket, bytes]:
        """Send lines on a new connection; return it, and what came until these bytes, or until the other side closed it."""
        opened = socket.create_connection(("127.0.0.1", self.ports[listener]), timeout=10)
        opened.sendall("\r\n".join((*lines, "", "")).encode())
        return opened, receive(opened, until)


def receive(opened: socket.socket, until: bytes | None) -> bytes:
    """Return what comes until these bytes, or until the end."""
    received = b""
    while until is None or until not in received:
        try:
            more = opened.recv(65536)
        except ConnectionResetError:
            return received
        if not more:
            return received
        received += more
    return received


def flags(pages: int) -> dict[str, list[str]]:
    """Return the flags of each listener."""
    site = f"http://127.0.0.1:{pages}"
    return {
        "plain": [],
        "websocket": ["--websocket"],
        "hops": ["--trusted-hops", "1"],
        "proxy": ["--proxy-protocol"],
        "limited": ["--trusted-hops", "1", "--limit-denials", str(LIMIT)],
        "cors": ["--cors", site],
        "any": ["--cors", "*"],
        "grpc-web": ["--grpc-web", "--cors", site, "--limit-denials", "1000"],
    }


@pytest.fixture(scope="module")
def edge(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Edge]:
    folder = tmp_path_factory.mktemp("e")
    sidecar, ops, admin = free_port(), free_port(), folder / "admin.sock"
    settings = {
        "version": 1,
        "server": {"listen": f"127.0.0.1:{sidecar}", "ops": f"127.0.0.1:{ops}", "drain": "0s", "check_timeout": "900ms"},
        "tokens": {"store": "sqlite:///tokens.db", "peppers": [{"id": "p1", "file": "pepper"}]},
        "act_as": {"allow": ["*@acme.com"], "headers": ["X-Acme-User"]},
        "answers": {"reasons": {"scope_missing": {"headers": {"x-hint": "ask for ${scope}"}}}},
        "scopes": ["SEARCH"],
        "routes": ["routes.yaml"],
    }
    file = folder / "extauthz.yaml"
    file.write_text(yaml.safe_dump(settings))
    (folder / "routes.yaml").write_text(ROUTES)
    token = json.loads(command(file, "token", "create", *ORDER, "--json"))["token"]
    tap = Tap(sidecar)
    with (
        running_grpc(tap) as checks,
        running_grpc(EchoService()) as grpc,
        running_http_upstream() as http,
        running_pages() as pages,
    ):
        listeners = flags(pages.port)
        ports = {name: free_port() for name in listeners}

        def change(name: str, bootstrap: dict[str, Any]) -> None:
            for cluster in bootstrap["static_resources"]["clusters"]:
                address = cluster["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"]["address"]
                upstream = grpc if name == "grpc-web" else http
                address["socket_address"]["port_value"] = checks if cluster["name"] == "extauthz" else upstream
                if (cluster["name"], name) == ("upstream", "grpc-web"):
                    cluster["name"] = cluster["load_assignment"]["cluster_name"] = "grpc"
                    manager = bootstrap["static_resources"]["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"]
                    manager["route_config"]["virtual_hosts"][0]["routes"][0]["route"]["cluster"] = "grpc"

        printed = {
            name: yaml.safe_load(
                command(file, "envoy-config", "--listener", f"127.0.0.1:{ports[name]}", "--admin", f"unix://{admin}", *more)
            )
            for name, more in listeners.items()
        }
        text = yaml.safe_dump(merged(printed, change))
        with running_sidecar(file, ops), running_envoy(folder, text, admin):
            yield Edge(ports, token, tap, pages, folder)


ORDER = ("--permission", "USER", "--user", "ana@acme.com", "--scope", "SEARCH", "--description", "t", "--expires", "1d")


def command(file: Path, *arguments: str) -> str:
    """Run a command and return what it prints."""
    done = CliRunner().invoke(main, [*arguments, "--config", str(file)])
    assert done.exit_code == 0, done.output
    return done.stdout


# WebSockets

UPGRADE = (
    *("GET /socket HTTP/1.1", "host: localhost", "connection: upgrade", "upgrade: websocket"),
    *("sec-websocket-version: 13", "sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ=="),
)


def test_a_websocket_with_a_token_passes(edge: Edge) -> None:
    opened, received = edge.send_raw("websocket", *UPGRADE, f"authorization: Bearer {edge.token}", until=b"\r\n\r\n")
    with opened:
        assert received.startswith(b"HTTP/1.1 101")
        opened.sendall(b"ping")
        assert receive(opened, b"ping") == b"ping"


def test_a_websocket_without_a_token_is_denied(edge: Edge) -> None:
    opened, received = edge.send_raw("websocket", *UPGRADE, until=b"}")
    opened.close()
    assert received.startswith(b"HTTP/1.1 401")
    assert b"www-authenticate: Bearer" in received


def test_a_websocket_is_refused_where_none_was_asked_for(edge: Edge) -> None:
    opened, received = edge.send_raw(
        "plain", *UPGRADE, f"authorization: Bearer {edge.token}", "connection: close", until=b"\r\n\r\n"
    )
    opened.close()
    assert received.startswith(b"HTTP/1.1 403")


def connect(*headers: tuple[str, str], protocol: str | None = "websocket") -> list[tuple[str, str]]:
    """Return the fields of a CONNECT, which has a path only with a protocol (RFC 8441 4)."""
    extended = [(":protocol", protocol), (":scheme", "http"), (":path", "/socket")] if protocol else []
    return [(":method", "CONNECT"), *extended, (":authority", "localhost"), ("sec-websocket-version", "13"), *headers]


def test_a_websocket_over_http_2_is_checked_as_well(edge: Edge) -> None:
    with Client(edge.ports["websocket"]) as client:
        good, bad = (client.begin(b"ping", entries=connect(*more)) for more in ([edge.bearer], []))
        answer, denial = client.answer_when(good, lambda answer: answer.body == framed(b"ping")), client.answer(bad)
    assert answer.http == 200
    assert denial.http == 401
    assert denial.headers is not None
    assert denial.headers["www-authenticate"].startswith("Bearer")


@pytest.mark.parametrize("protocol", [None, "connect-udp"])
def test_no_other_connect_gets_through(edge: Edge, protocol: str | None) -> None:
    with Client(edge.ports["websocket"]) as client:
        answer = client.answer(client.begin(entries=connect(edge.bearer, protocol=protocol)))
    assert answer.http == 404


# gRPC-Web


@dataclass
class GrpcWebAnswer:
    """What a browser gets: the trailers are those of the body, or else the headers (gRPC-Web protocol)."""

    status: int
    headers: dict[str, str]
    message: bytes = b""
    trailers: dict[str, str] = field(default_factory=dict)


def grpc_web(edge: Edge, listener: str, *headers: tuple[str, str], text: bool = False) -> GrpcWebAnswer:
    """Call as a browser does, in binary or in text."""
    kind, body = ("application/grpc-web-text", base64.b64encode(framed(b"hello"))) if text else (GRPC_WEB, framed(b"hello"))
    connection = HTTPConnection("localhost", edge.ports[listener], timeout=10)
    with contextlib.closing(connection):
        connection.request("POST", "/echo.Echo/Say", body, {"content-type": kind, "accept": kind, **dict(headers)})
        response = connection.getresponse()
        answer = GrpcWebAnswer(response.status, {name.lower(): value for name, value in response.getheaders()})
        content = response.read()
    # Each part of a text is padded by itself.
    rest = b"".join(base64.b64decode(part) for part in re.findall(rb"[^=]+=*", content)) if text else content
    while rest[:1] in (b"\x00", b"\x80"):
        is_trailers, part = rest[0] == 0x80, rest[5 : 5 + int.from_bytes(rest[1:5], "big")]
        rest = rest[5 + len(part) :]
        if is_trailers:
            answer.trailers = dict(line.split(":", 1) for line in part.decode().split("\r\n") if line)
        else:
            answer.message += part
    return answer


@pytest.mark.parametrize("text", [False, True])
def test_a_grpc_web_call_reaches_a_grpc_upstream(edge: Edge, *, text: bool) -> None:
    answer = grpc_web(edge, "grpc-web", edge.bearer, text=text)
    assert (answer.status, answer.message, answer.trailers["grpc-status"]) == (200, b"hello", "0")
    assert answer.headers["content-type"] == ("application/grpc-web-text+proto" if text else GRPC_WEB)


@pytest.mark.parametrize("text", [False, True])
def test_a_grpc_web_denial_is_trailers_only(edge: Edge, *, text: bool) -> None:
    """They may come as headers where there is no message (gRPC-Web protocol); www-authenticate stands beside them."""
    answer = grpc_web(edge, "grpc-web", text=text)
    headers = {name: answer.headers[name] for name in ("grpc-status", "content-type", "www-authenticate", "content-length")}
    assert headers == {
        "grpc-status": "16",
        "content-type": "application/grpc-web-text+proto" if text else GRPC_WEB,
        "www-authenticate": 'Bearer realm="extauthz"',
        "content-length": "0",
    }
    assert answer.headers["grpc-message"].startswith("A Bearer token is required. (decision ")
    assert (answer.status, answer.message) == (401, b"")


def test_without_its_filter_a_grpc_web_client_cannot_read_a_denial(edge: Edge) -> None:
    answer = grpc_web(edge, "plain")
    assert (answer.status, answer.headers["content-type"]) == (401, "application/json")
    assert "grpc-status" not in {*answer.headers, *answer.trailers}


# Expect: 100-continue


@pytest.mark.parametrize("with_token", [False, True])
def test_a_client_without_a_token_is_not_asked_for_its_body(edge: Edge, *, with_token: bool) -> None:
    head = ("POST /search HTTP/1.1", "host: localhost", "expect: 100-continue", "content-length: 5")
    token = (f"authorization: Bearer {edge.token}",) if with_token else ()
    opened, received = edge.send_raw("plain", *head, *token, until=b"\r\n\r\n")
    with opened:
        if with_token:
            assert received.startswith(b"HTTP/1.1 100 Continue\r\n")
            opened.sendall(b"hello")
            assert b"HTTP/1.1 200" in receive(opened, b"}}")
        else:
            assert received.startswith(b"HTTP/1.1 401 ")


# The client's address

CLIENT, LIAR = "198.51.100.7", "203.0.113.9"


def test_the_last_proxy_says_who_the_client_is(edge: Edge) -> None:
    edge.tap.checks.clear()
    reply = edge.send("hops", "GET /healthz", ("x-forwarded-for", f"{LIAR}, {CLIENT}"))
    assert reply.body["headers"]["x-envoy-external-address"] == CLIENT
    (check,) = edge.tap.checks
    headers = {line.key: line.raw_value.decode() for line in check.attributes.request.http.header_map.headers}
    assert headers["x-envoy-external-address"] == CLIENT
    assert check.attributes.source.address.socket_address.address == "127.0.0.1"


def test_without_the_flag_nobody_is_believed(edge: Edge) -> None:
    headers = edge.send("plain", "GET /healthz", ("x-forwarded-for", CLIENT)).body["headers"]
    assert CLIENT not in headers.get("x-envoy-external-address", "")


@pytest.mark.parametrize(
    ("hello", "address"),
    [
        (f"PROXY TCP4 {CLIENT} 127.0.0.1 40000 80\r\n".encode(), CLIENT),
        (b"PROXY TCP6 2001:db8::7 2001:db8::1 40000 80\r\n", "2001:db8::7"),
        (
            b"\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c"
            + socket.inet_aton(CLIENT)
            + socket.inet_aton("127.0.0.1")
            + b"\x9c\x40\x00\x50",
            CLIENT,
        ),
    ],
)
def test_the_proxy_protocol_says_who_the_client_is(edge: Edge, hello: bytes, address: str) -> None:
    edge.tap.checks.clear()
    with socket.create_connection(("127.0.0.1", edge.ports["proxy"]), timeout=10) as opened:
        opened.sendall(hello + f"GET /healthz HTTP/1.1\r\nhost: localhost\r\nx-forwarded-for: {LIAR}\r\n\r\n".encode())
        received = receive(opened, b"}}")
    headers = json.loads(received.partition(b"\r\n\r\n")[2])["headers"]
    assert headers["x-envoy-external-address"] == address
    (check,) = edge.tap.checks
    assert check.attributes.source.address.socket_address.address == address


def test_a_connection_without_the_proxy_protocol_is_closed(edge: Edge) -> None:
    edge.tap.checks.clear()
    opened, received = edge.send_raw("proxy", "GET /healthz HTTP/1.1", "host: localhost")
    opened.close()
    assert (received, edge.tap.checks) == (b"", [])


# Denials


def test_denials_are_limited_by_client(edge: Edge) -> None:
    def search(address: str, *headers: tuple[str, str]) -> Reply:
        return edge.send("limited", "POST /search", ("x-forwarded-for", address), *headers)

    # What is allowed does not count.
    assert {search("192.0.2.1", edge.bearer).status for _ in range(4 * LIMIT)} == {200}
    assert [search("192.0.2.1").status for _ in range(LIMIT)] == [401] * LIMIT
    edge.tap.checks.clear()
    refused = search("192.0.2.1", edge.bearer)
    assert (refused.status, refused.body["error"], edge.tap.checks) == (429, "too_many_requests", [])
    head = ("POST /search HTTP/1.1", "host: localhost", "x-forwarded-for: 192.0.2.1", "content-length: 0")
    opened, received = edge.send_raw("limited", *head, until=b"}")
    opened.close()
    assert 0 < int(re.findall(rb"retry-after: (\d+)", received)[0]) <= 60
    # A denial of gRPC counts as well, though its HTTP status is 200.
    assert [search("192.0.2.3", ("content-type", "application/grpc")).status for _ in range(LIMIT)] == [200] * LIMIT
    assert search("192.0.2.3").status == 429
    # Others have their own minute, and an IPv6 client one for all of its /64.
    assert search("192.0.2.2", edge.bearer).status == 200
    assert search("192.0.2.2").status == 401
    assert [search(f"2001:db8:0:1::{number}").status for number in range(LIMIT)] == [401] * LIMIT
    assert search("2001:db8:0:1:ffff::1").status == 429
    assert search("2001:db8:0:2::1").status == 401
    assert [search(f"::ffff:192.0.2.{number}").status for number in range(10, 11 + LIMIT)] == [401] * (LIMIT + 1)


# Browsers

SCRIPT = """<!doctype html><script>
const ask = async ({address, body, ...more}) => {
  try {
    const init = body ? {...more, body: Uint8Array.from(body)} : more;
    const answer = await fetch(address, init);
    return {status: answer.status, headers: Object.fromEntries(answer.headers), text: await answer.text()};
  } catch (error) { return {error: String(error)}; }
};
(async () => {
  const results = {origin: location.origin};
  for (const [name, call] of Object.entries(CALLS)) results[name] = await ask(call);
  await fetch("/results", {method: "POST", body: JSON.stringify(results)});
  if (location.origin !== NEXT) location = NEXT;
})();
</script>"""


@pytest.fixture(scope="module")
def results(edge: Edge) -> dict[str, Any]:
    """What a script of the allowed site got, and one of another site, and how many checks there were."""
    own, other = (f"http://{host}:{edge.pages.port}" for host in ("127.0.0.1", "localhost"))
    search, grpc = (
        f"http://127.0.0.1:{edge.ports[name]}/{path}" for name, path in (("cors", "search"), ("grpc-web", "echo.Echo/Say"))
    )
    ours = {"content-type": "application/json", "x-glean-auth-type": "", "x-acme-user": "", "x-scio-actas": ""}
    bearer = dict([edge.bearer])
    calls = {
        "denied": {"address": search, "method": "POST", "headers": ours},
        "allowed": {"address": search, "method": "POST", "headers": ours | bearer},
        "other header": {"address": search, "method": "POST", "headers": bearer | {"x-other": "1"}},
        "other method": {"address": search, "method": "DELETE", "headers": bearer},
        "any": {"address": search.replace(str(edge.ports["cors"]), str(edge.ports["any"])), "method": "POST", "headers": bearer},
        "grpc-web": {
            "address": grpc,
            "method": "POST",
            "headers": {"content-type": GRPC_WEB, "x-grpc-web": "1", "x-user-agent": "u", "grpc-timeout": "5S"},
            "body": list(framed(b"hello")),
        },
    }
    edge.pages.shown = SCRIPT.replace("CALLS", json.dumps(calls)).replace("NEXT", json.dumps(other))
    edge.tap.checks.clear()
    with running_chromium(edge.folder, own):
        first = edge.pages.posted.get(timeout=60)
        checks = len(edge.tap.checks)
        second = edge.pages.posted.get(timeout=60)
    return {"own": first, "other": second, "own checks": checks, "other checks": len(edge.tap.checks) - checks}


def test_a_script_can_read_a_denial(results: dict[str, Any]) -> None:
    denied = results["own"]["denied"]
    assert denied["status"] == 401
    assert denied["headers"]["www-authenticate"] == 'Bearer realm="extauthz"'
    assert denied["headers"]["x-extauthz-decision-id"] == json.loads(denied["text"])["decision_id"]


def test_a_script_can_send_a_token_and_act_as_headers(results: dict[str, Any]) -> None:
    allowed = results["own"]["allowed"]
    assert allowed["status"] == 200
    assert json.loads(allowed["text"])["headers"]["x-extauthz-user"] == "ana@acme.com"


def test_a_script_can_read_a_denial_of_grpc_web(results: dict[str, Any]) -> None:
    denied = results["own"]["grpc-web"]
    assert denied["headers"]["grpc-status"] == "16"
    assert denied["headers"]["grpc-message"].startswith("A Bearer token is required.")


@pytest.mark.parametrize("name", ["other header", "other method"])
def test_a_browser_asks_first_and_sends_nothing_else(results: dict[str, Any], name: str) -> None:
    assert results["own"][name] == {"error": "TypeError: Failed to fetch"}
    # The checks of what was sent: no preflight is one.
    assert results["own checks"] == 4


def test_a_script_of_another_site_can_read_nothing(results: dict[str, Any]) -> None:
    names = ("denied", "allowed", "grpc-web")
    assert [results["other"][name] for name in names] == [{"error": "TypeError: Failed to fetch"}] * 3
    # Its preflights were not asked about, and what they were for was never sent; every site is let in elsewhere.
    assert (results["other checks"], results["other"]["any"]["status"]) == (1, 200)
