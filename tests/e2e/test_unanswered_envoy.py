"""What clients get from a real Envoy while no sidecar answers, and that what a sidecar said stays as it is."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPMessage
from pathlib import Path
from typing import Any

import pytest

from extauthz._pb import ext_authz_pb2 as pb
from tests.support.envoy import running_envoy
from tests.support.envoy_config import configured, printed
from tests.support.ports import free_port
from tests.support.transports import Held, Loop, Served

pytestmark = pytest.mark.envoy

UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}").fullmatch
OWN = {
    "headers": [{"header": {"key": "x-extauthz-decision-id", "value": "0" * 32}}, {"header": {"key": "retry-after", "value": "7"}}],
    "body": "of the sidecar",
    "status": {"code": 503},
}
SAID: dict[str, Any] = {
    "/denied": pb.CheckResponse(status={"code": 14}, denied_response=OWN).SerializeToString(),  # type: ignore[arg-type]
    "/error": pb.CheckResponse(status={"code": 14}, error_response=OWN).SerializeToString(),  # type: ignore[arg-type]
    "/nothing": b"\xff",
}


class Handler(Held):
    """Says what belongs to the path, and to any other nothing for ever."""

    def __call__(self, message: bytes) -> Any:
        path = pb.CheckRequest.FromString(message).attributes.request.http.path
        return SAID.get(path) or super().__call__(message)


@dataclass
class Reply:
    """What a client got."""

    status: int
    headers: HTTPMessage
    text: str


def send(port: int, path: str, method: str = "GET", **headers: str) -> Reply:
    """Send one request to Envoy."""
    connection = HTTPConnection("127.0.0.1", port, timeout=10)
    with contextlib.closing(connection):
        connection.request(method, path, headers={name.replace("_", "-"): value for name, value in headers.items()})
        response = connection.getresponse()
        return Reply(response.status, response.msg, response.read().decode())


@contextlib.contextmanager
def envoy_before(folder: Path, sidecar: int, prefix: str = "x-extauthz-", **answers: object) -> Iterator[int]:
    """Run Envoy as it is printed for a configuration, before a sidecar on a port; yields its own."""
    listener, upstream = free_port(), free_port()
    server = {"listen": f"127.0.0.1:{sidecar}", "check_timeout": "50ms"}
    file = configured(folder, server=server, identity={"prefix": prefix}, answers=answers)
    admin = folder / "admin.sock"
    flags = ("--listener", f"127.0.0.1:{listener}", "--upstream", f"127.0.0.1:{upstream}", "--admin", f"unix://{admin}")
    with running_envoy(folder, printed(file, *flags, "--domain", "127.0.0.1"), admin):
        yield listener


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The paths of unix sockets are short."""
    return Path(tmp_path_factory.mktemp("u"))


@pytest.fixture(scope="module")
def envoy(folder: Path) -> Iterator[int]:
    """An Envoy before a sidecar that says what is asked of it, and then goes away: the port of the Envoy."""
    loop = Loop("grpcio")
    served = Served(loop, Handler())
    served.set_serving(True)
    assert isinstance(served.target, int)
    with envoy_before(folder, served.target, retry_after="3s") as port:
        yield port
    served.stop()
    loop.close()


def told_by_envoy(reply: Reply) -> dict[str, Any]:
    """Check that Envoy answered for itself as a sidecar would, and return the body."""
    body: dict[str, Any] = json.loads(reply.text)
    assert (reply.status, reply.headers["content-type"], reply.headers["cache-control"]) == (503, "application/json", "no-store")
    assert (body["error"], body["reason"]) == ("temporarily_unavailable", "check_unanswered")
    assert UUID(body["decision_id"])
    assert reply.headers.get_all("x-extauthz-decision-id") == [body["decision_id"]]
    return body


def test_a_sidecar_that_does_not_answer(envoy: int) -> None:
    replies = [send(envoy, "/held"), send(envoy, "/held", x_request_id="of-the-client")]
    ids = {told_by_envoy(reply)["decision_id"] for reply in replies}
    assert len(ids) == 2
    assert [reply.headers.get_all("retry-after") for reply in replies] == [["3"], ["3"]], "answers.retry_after"


def test_a_sidecar_whose_answer_cannot_be_read(envoy: int) -> None:
    told_by_envoy(send(envoy, "/nothing"))


@pytest.mark.parametrize("path", ["/denied", "/error"])
def test_what_a_sidecar_says_stays_as_it_is(envoy: int, path: str) -> None:
    reply = send(envoy, path)
    assert (reply.status, reply.text, reply.headers.get_all("retry-after")) == (503, "of the sidecar", ["7"])
    assert reply.headers.get_all("x-extauthz-decision-id") == ["0" * 32]


def test_grpc_clients_get_a_sentence(envoy: int) -> None:
    reply = send(envoy, "/held", "POST", content_type="application/grpc", te="trailers")
    decision_id = reply.headers["x-extauthz-decision-id"]
    assert (reply.status, reply.text, reply.headers["grpc-status"]) == (200, "", "14")
    assert UUID(decision_id)
    assert reply.headers["grpc-message"] == f"The request could not be checked; try again. (request {decision_id})"


def test_head_gets_the_headers(envoy: int) -> None:
    reply = send(envoy, "/held", "HEAD")
    assert (reply.status, reply.text, reply.headers["retry-after"]) == (503, "", "3")
    assert UUID(reply.headers["x-extauthz-decision-id"])


def test_no_sidecar_at_all_in_the_form_of_the_configuration(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = Path(tmp_path_factory.mktemp("n"))
    with envoy_before(folder, free_port(), "x-acme-", format="problem") as port:
        reply = send(port, "/search")
    body = json.loads(reply.text)
    assert (reply.status, reply.headers["content-type"], reply.headers["retry-after"]) == (503, "application/problem+json", "1")
    assert (body["type"], body["title"], body["status"]) == ("about:blank", "Service Unavailable", 503)
    assert body["decision_id"] == reply.headers["x-acme-decision-id"]
