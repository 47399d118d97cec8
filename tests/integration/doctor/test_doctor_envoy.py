"""What `extauthz doctor` says of a running Envoy: nothing of the printed configuration, and one thing of each fault.

One Envoy has a listener and a cluster for each fault, so that what is judged is what Envoy itself tells.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
import yaml

from extauthz.config.loader import Configuration, load
from extauthz.doctor import envoy_admin, envoy_cluster, envoy_dump, envoy_filter
from extauthz.doctor.findings import Level
from extauthz.envoy_config import bootstrap
from extauthz.envoy_config.bootstrap import Edge
from extauthz.envoy_config.reading import domains_of, sidecar_of
from tests.support.envoy_faults import EXT_AUTHZ, OK, PROBLEM, WARNING, Told, configured

HOSTS = ("localhost", "127.0.0.1", "api.example.com")


def test_names_that_no_rule_can_hold(tmp_path: Path) -> None:
    file = configured(tmp_path, "127.0.0.1:9001")
    printed = yaml.safe_load(bootstrap.text(sidecar_of(load(file)), Edge()))
    check = printed["static_resources"]["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"]["http_filters"][1]
    data = yaml.safe_load(file.read_text()) | {
        "act_as": {"headers": [f"x-on-behalf-of-somebody-{name}" for name in "abcdefgh" * 2]}
    }
    data["act_as"]["headers"] += ["y" * 60]
    file.write_text(yaml.safe_dump(data))
    filters = envoy_dump.Filter("a", EXT_AUTHZ, check["typed_config"])
    (found,) = envoy_filter.look(filters, sidecar_of(load(file)), "listener a")
    assert (found.name, found.level) == ("envoy.decoder_header_mutation_rules", PROBLEM)
    assert "name fewer act-as headers" in found.found


@pytest.mark.parametrize(
    ("cluster", "expected"),
    [
        ({"alpn_protocols": ["h2"], "validation_context": {"trusted_ca": {}}}, ["envoy.tls"]),
        ({"alpn_protocols": ["h2"]}, ["envoy.tls"]),
        ({"validation_context": {"trusted_ca": {"filename": "a"}, "match_typed_subject_alt_names": [{}]}}, ["envoy.tls"]),
        ({"alpn_protocols": ["h2"], "validation_context_sds_secret_config": {"name": "a"}}, []),
        (
            {
                "alpn_protocols": ["h2"],
                "validation_context": {"trusted_ca": {"filename": "a"}, "match_typed_subject_alt_names": [{}]},
            },
            [],
        ),
    ],
)
def test_tls_of_the_cluster(cluster: dict[str, Any], expected: list[str]) -> None:
    assert [each.name for each in envoy_cluster._tls({"common_tls_context": cluster}, "listener a")] == expected


def told_of(server_info: Any, config_dump: Any, clusters: Any, configuration: Configuration) -> list[tuple[str, Level]]:
    found = envoy_admin.judge(envoy_dump.read_dump(server_info, config_dump, clusters), configuration)
    return [(each.name, each.level) for each in found]


@pytest.mark.parametrize(
    ("info", "expected"),
    [
        ({"version": "abc/1.40.0/Clean/RELEASE/BoringSSL", "state": "LIVE"}, OK),
        ({"version": "abc/1.37.0-dev/Clean/RELEASE/BoringSSL", "state": "LIVE"}, OK),
        ({"version": "abc/1.36.9/Clean/RELEASE/BoringSSL", "state": "LIVE"}, WARNING),
        ({"version": "abc/1.40.0/Clean/RELEASE/BoringSSL", "state": "DRAINING"}, WARNING),
        ({}, WARNING),
        (None, WARNING),
    ],
)
def test_the_version(info: Any, expected: Level, tmp_path: Path) -> None:
    loaded = load(configured(tmp_path, "127.0.0.1:9001"))
    found = told_of(info, {"configs": []}, {}, loaded)
    assert found == [("envoy.version", expected), ("envoy.ext_authz", PROBLEM)]


@pytest.mark.parametrize("nonsense", [None, [], {}, {"configs": None}, {"configs": [None, 1, {"@type": 5}]}, "text"])
def test_a_dump_that_is_none_is_no_check(nonsense: Any, tmp_path: Path) -> None:
    """Nothing found is a problem, never silence."""
    loaded = load(configured(tmp_path, "127.0.0.1:9001"))
    assert ("envoy.ext_authz", PROBLEM) in told_of(nonsense, nonsense, nonsense, loaded)


def dynamic(printed: str, **changes: Any) -> dict[str, Any]:
    """Return the dump of an Envoy that has listeners, routes, clusters and filters from a control plane."""
    data = yaml.safe_load(printed)["static_resources"]
    listener, cluster = data["listeners"][0], data["clusters"][0]
    manager = listener["filter_chains"][0]["filters"][0]["typed_config"]
    routes = manager.pop("route_config")
    manager["rds"] = {"route_config_name": routes["name"]}
    check = manager["http_filters"][1]
    extension = {"name": check["name"], "typed_config": check.pop("typed_config")}
    check["config_discovery"] = {}
    kind = "type.googleapis.com/envoy.admin.v3."
    found = {
        "ListenersConfigDump": {"dynamic_listeners": [{"name": "http", "active_state": {"listener": listener}}]},
        "RoutesConfigDump": {"dynamic_route_configs": [{"route_config": routes}]},
        "ClustersConfigDump": {"dynamic_active_clusters": [{"cluster": cluster}]},
        "EcdsConfigDump": {"ecds_filters": [{"ecds_filter": extension}]},
    } | changes
    return {"configs": [{"@type": kind + name, **content} for name, content in found.items()]}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, [("envoy.ext_authz", OK)]),
        ({"RoutesConfigDump": {}}, [("envoy.routes", WARNING)]),
        ({"ClustersConfigDump": {}}, [("envoy.cluster", PROBLEM)]),
        ({"EcdsConfigDump": {}}, [("envoy.ext_authz", PROBLEM)]),
    ],
)
def test_what_a_control_plane_sent_is_looked_at_too(changes: dict[str, Any], expected: Told, tmp_path: Path) -> None:
    loaded = load(configured(tmp_path, "127.0.0.1:9001"))
    printed = bootstrap.text(sidecar_of(loaded), Edge(domains=domains_of(loaded)))
    info = {"version": "abc/1.40.0/Clean/RELEASE/BoringSSL", "state": "LIVE"}
    status = {"name": "extauthz", "host_statuses": [{"address": {"socket_address": {"address": "127.0.0.1", "port_value": 9001}}}]}
    assert told_of(info, dynamic(printed, **changes), {"cluster_statuses": [status]}, loaded)[1:] == expected


@pytest.mark.parametrize("admin", ["http://127.0.0.1:1", "unix:///nowhere/admin.sock", "http://10.0.0.1:9901", "somewhere"])
def test_an_admin_interface_that_cannot_be_asked_is_a_problem(admin: str, tmp_path: Path) -> None:
    (found,) = asyncio.run(envoy_admin.look(load(configured(tmp_path, "127.0.0.1:9001")), admin))
    assert (found.name, found.level) == ("envoy.admin", PROBLEM)
    assert admin in found.found
