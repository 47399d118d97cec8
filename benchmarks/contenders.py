"""What `make compare` compares: the Envoys, each with another way to authorize, and the servers that some of them ask.

All Envoys have the configuration that `extauthz envoy-config` prints, for one worker, and answer an allowed request themselves:
what differs is the filter in the place of ext_authz, or nothing. Whoever is asked gets the same request with the same token.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import json
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import grpc.aio

from benchmarks.servers import listening_pid
from extauthz._pb import ext_authz_pb2 as pb
from extauthz.addresses import Address, parse_address
from extauthz.demo.issuer import AUDIENCE, CLIENT_ID
from extauthz.demo.launcher import find_envoy

BODY = "answered behind the filters\n"
"""Of an allowed request; a denial has another length."""
PATH, USER = "/rest/api/v1/search", "ana@acme.com"
SERVICE = "envoy.service.auth.v3.Authorization"
START_TIMEOUT = 60.0
EXTENSION = "type.googleapis.com/envoy.extensions.filters.http."

Filter = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Contender:
    """A way to authorize: what stands in the place of ext_authz, and who is asked, if anybody is."""

    name: str
    filters: tuple[Filter, ...] = ()
    server: Address | None = None
    pid: int | None = None
    """Of the server, where its processor time can be read."""
    is_ours: bool = True
    """Whether it is started here, so that it reads raw headers and may change only those that the sidecar changes."""


@dataclass(frozen=True, slots=True)
class Envoy:
    """A running Envoy."""

    port: int
    pid: int


def own_bootstrap(configuration: Path, port: int, admin: Path) -> dict[str, Any]:
    """Return what `extauthz envoy-config` prints, with an answer of Envoy's own in the place of the upstream."""
    command = [sys.executable, "-m", "extauthz", "envoy-config", "--config", str(configuration), "--format", "json"]
    command += ["--listener", f"127.0.0.1:{port}", "--admin", f"unix://{admin}"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    bootstrap: dict[str, Any] = json.loads(done.stdout)
    resources = bootstrap["static_resources"]
    resources["clusters"] = [cluster for cluster in resources["clusters"] if cluster["name"] == "extauthz"]
    for host in _manager(bootstrap)["route_config"]["virtual_hosts"]:
        for route in host["routes"]:
            del route["route"]
            route["direct_response"] = {"status": 200, "body": {"inline_string": BODY}}
    return bootstrap


def bootstrap_of(contender: Contender, own: Mapping[str, Any]) -> dict[str, Any]:
    """Return the same Envoy with the contender's filters, asking the contender's server."""
    bootstrap = copy.deepcopy(dict(own))
    manager = _manager(bootstrap)
    (asking,) = (each for each in manager["http_filters"] if each["name"].endswith("ext_authz"))
    place = manager["http_filters"].index(asking)
    clusters = bootstrap["static_resources"]["clusters"]
    if contender.server is None:
        manager["http_filters"][place : place + 1] = contender.filters
        clusters.clear()
        return bootstrap
    (cluster,) = clusters
    (locality,) = cluster["load_assignment"]["endpoints"]
    address = {"address": contender.server.host, "port_value": contender.server.port}
    locality["lb_endpoints"] = [{"endpoint": {"address": {"socket_address": address}}}]
    # Not every server has the health service, and not every one reads raw headers.
    cluster.pop("health_checks", None)
    if not contender.is_ours:
        asking["typed_config"].pop("encode_raw_headers", None)
        asking["typed_config"].pop("decoder_header_mutation_rules", None)
    return bootstrap


def in_envoy(issuer: str, keys: str, *, cached: bool) -> tuple[Filter, Filter]:
    """Return Envoy's own filters for the same policy: the token of this issuer, this client, this method and path."""
    provider = {
        "issuer": issuer,
        "audiences": [AUDIENCE],
        "local_jwks": {"inline_string": keys},
        "payload_in_metadata": "claims",
        "claim_to_headers": [{"header_name": "x-extauthz-user", "claim_name": "sub"}],
        **({"jwt_cache_config": {"jwt_cache_size": 1000}} if cached else {}),
    }
    claim = {"filter": "envoy.filters.http.jwt_authn", "path": [{"key": "claims"}, {"key": "cid"}]}
    permission = {
        "and_rules": {
            "rules": [
                {"header": {"name": ":method", "string_match": {"exact": "POST"}}},
                {"url_path": {"path": {"exact": PATH}}},
            ]
        }
    }
    principal = {"metadata": {**claim, "value": {"string_match": {"exact": CLIENT_ID}}}}
    authentication = {
        "@type": f"{EXTENSION}jwt_authn.v3.JwtAuthentication",
        "providers": {"okta": provider},
        "rules": [{"match": {"prefix": "/"}, "requires": {"provider_name": "okta"}}],
    }
    rules = {"action": "ALLOW", "policies": {"search": {"permissions": [permission], "principals": [principal]}}}
    return (
        {"name": "envoy.filters.http.jwt_authn", "typed_config": authentication},
        {"name": "envoy.filters.http.rbac", "typed_config": {"@type": f"{EXTENSION}rbac.v3.RBAC", "rules": rules}},
    )


@contextlib.contextmanager
def running(bootstrap: Mapping[str, Any], folder: Path) -> Iterator[Envoy]:
    """Run an Envoy with one worker; raises SystemExit with what it logged if it does not start."""
    (listener,) = bootstrap["static_resources"]["listeners"]
    port = listener["address"]["socket_address"]["port_value"]
    file, log = folder / f"envoy-{port}.json", folder / f"envoy-{port}.log"
    file.write_text(json.dumps(bootstrap), encoding="utf-8")
    command = [find_envoy(), "-c", str(file), "--use-dynamic-base-id", "--concurrency", "1", "--log-level", "warning"]
    with log.open("wb") as errors:
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=errors)
    try:
        _wait_for(port, process, log)
        yield Envoy(port, process.pid)
    finally:
        process.terminate()
        process.wait(timeout=20)


def request(port: int, headers: Mapping[str, str]) -> tuple[int, str]:
    """Send the request through an Envoy; return status and body. Raises OSError."""
    with contextlib.closing(HTTPConnection("127.0.0.1", port, timeout=10)) as connection:
        connection.request("POST", PATH, "{}", dict(headers))
        response = connection.getresponse()
        return response.status, response.read().decode(errors="replace")


def other(text: str) -> Contender:
    """Return the contender that `name=host:port` names; raises SystemExit for anything else."""
    name, _, place = text.partition("=")
    hint = f"--also {text}: expected name=host:port, like opa=127.0.0.1:9191"
    try:
        address = parse_address(place)
    except ValueError as error:
        raise SystemExit(hint) from error
    if not name or address.path or not address.port:
        raise SystemExit(hint)
    return Contender(name, server=address, pid=listening_pid(address.port), is_ours=False)


def serve_bare(port: int) -> None:
    """Allow everything with grpc.aio and the generated messages, as the shortest example would, until the process is ended."""

    async def check(request: pb.CheckRequest, _: object) -> pb.CheckResponse:
        answer = pb.CheckResponse(ok_response=pb.OkHttpResponse())
        answer.status.code = 0
        return answer

    async def serve() -> None:
        server = grpc.aio.server()
        handler = grpc.unary_unary_rpc_method_handler(
            check, request_deserializer=pb.CheckRequest.FromString, response_serializer=pb.CheckResponse.SerializeToString
        )
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, {"Check": handler}),))
        server.add_insecure_port(f"127.0.0.1:{port}")
        await server.start()
        await server.wait_for_termination()

    asyncio.run(serve())


def _manager(bootstrap: Mapping[str, Any]) -> dict[str, Any]:
    (listener,) = bootstrap["static_resources"]["listeners"]
    (chain,) = listener["filter_chains"]
    (network,) = chain["filters"]
    manager: dict[str, Any] = network["typed_config"]
    return manager


def _wait_for(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_TIMEOUT
    while process.poll() is None and time.monotonic() < deadline:
        with contextlib.suppress(OSError):
            request(port, {})
            return
        time.sleep(0.05)
    raise SystemExit(f"an Envoy does not start:\n{log.read_text()[-3000:]}")


if __name__ == "__main__":
    serve_bare(int(sys.argv[1]))
