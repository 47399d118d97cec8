"""A real Envoy whose cluster has a name that is no host, and which sends padded metadata: its checks are answered."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from extauthz._pb import ext_authz_pb2 as pb
from extauthz.demo.launcher import CHECKOUT, Ports
from tests.support.demo_processes import demo_ports
from tests.support.envoy import running_envoy, send
from tests.support.transports import NAMES, Loop, Name, Served
from tests.support.waiting import eventually

pytestmark = pytest.mark.envoy

REFUSED = pb.CheckResponse(
    status={"code": 7},
    denied_response={"status": {"code": 403}},  # type: ignore[arg-type]
).SerializeToString()


def bootstrap(name: str, port: int, ports: Ports, admin: Path) -> str:
    """Return the shipped bootstrap with another name of the cluster, and without the authority that makes it harmless."""
    data: Any = yaml.safe_load((CHECKOUT / "envoy" / "envoy.yaml").read_text())
    data["admin"]["address"]["pipe"]["path"] = str(admin)
    (listener,), (cluster, _) = data["static_resources"]["listeners"], data["static_resources"]["clusters"]
    listener["address"]["socket_address"]["port_value"] = ports.envoy
    cluster["name"] = cluster["load_assignment"]["cluster_name"] = name
    endpoint = cluster["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"]
    endpoint["address"]["socket_address"]["port_value"] = port
    del cluster["health_checks"][0]["grpc_health_check"]["authority"]
    filters = listener["filter_chains"][0]["filters"][0]["typed_config"]["http_filters"]
    (service,) = [each["typed_config"]["grpc_service"] for each in filters if each["name"].endswith("ext_authz")]
    service["envoy_grpc"] = {"cluster_name": name}
    service["initial_metadata"] = [{"key": "x-pad", "value": " padded "}]
    service["timeout"] = "10s"
    del service["retry_policy"]
    return yaml.safe_dump(data)


@pytest.mark.parametrize(("transport", "name"), [*((each, "outbound|9001||x") for each in NAMES), ("nghttp2", "authz é/0")])
def test_a_cluster_may_have_any_name(tmp_path: Path, transport: Name, name: str) -> None:
    loop = Loop(transport)
    served = Served(loop, lambda _: REFUSED)
    served.set_serving(True)
    assert isinstance(served.target, int)
    ports, admin = demo_ports(), Path(f"/tmp/{tmp_path.name[-20:]}.sock")  # noqa: S108 - the path of a unix socket is short
    with running_envoy(tmp_path, bootstrap(name, served.target, ports, admin), admin):
        # Until its health check has passed nobody is asked.
        eventually(lambda: send(ports.envoy, "GET /a", [("host", "localhost")]).status == 403)
    served.stop()
    loop.close()
    assert loop.complaints == []
