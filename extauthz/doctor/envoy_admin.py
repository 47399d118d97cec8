"""Reads Envoy's admin interface, and checks everything in it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from packaging.version import Version

from extauthz.adapters.oauth.http import JsonFetcher
from extauthz.config.loader import Configuration
from extauthz.doctor import envoy_client, envoy_cluster, envoy_dump, envoy_filter, envoy_http, envoy_planes, envoy_twice
from extauthz.doctor.advice import Advisor
from extauthz.doctor.envoy_cluster import Listening
from extauthz.doctor.envoy_dump import EXT_AUTHZ, Dump, Manager, at
from extauthz.doctor.envoy_http import Hosts
from extauthz.doctor.findings import Finding, ok, problem, warning
from extauthz.envoy_config.control_planes import ControlPlane
from extauthz.envoy_config.reading import is_everywhere, serves_other_hosts, sidecar_of
from extauthz.errors import FetchError

MAX_DUMP = 64 * 1024 * 1024
"""Bytes of a document; a large mesh has a large configuration."""
LEAST = Version("1.37")
"""The first release that answers clients with `status_on_error` when a check fails; 1.40 is the one that the tests run."""

_PATHS = ("server_info", "config_dump?include_eds", "clusters?format=json")


async def look(configuration: Configuration, admin: str, plane: ControlPlane | None = None) -> list[Finding]:
    """Ask the admin interface at http://127.0.0.1:9901 or unix:///path, and judge the dump by what a control plane can do."""
    try:
        responses = await documents(admin)
    except FetchError as error:
        advice = "give the address that `admin` has in Envoy, on this machine: http://127.0.0.1:9901 or unix:///path"
        return [problem("envoy.admin", str(error), advice)]
    return list(judge(envoy_dump.read_dump(*responses), configuration, plane))


async def documents(admin: str) -> list[Any]:
    """Return what the admin interface serves; raises FetchError."""
    path = admin.removeprefix("unix://") if admin.startswith("unix:") else None
    base = "http://localhost" if path else admin.rstrip("/")
    fetcher = JsonFetcher(timeout=10.0, unix_socket=Path(path) if path else None, max_bytes=MAX_DUMP)
    try:
        return [(await fetcher.get(f"{base}/{name}")).document for name in _PATHS]
    except FetchError as error:
        raise FetchError(str(error).replace(base, admin, 1)) from error
    finally:
        await fetcher.close()


def judge(dump: Dump, configuration: Configuration, plane: ControlPlane | None = None) -> Iterator[Finding]:
    """Compare a running Envoy with a configuration; that of a control plane by what can be changed there."""
    everywhere = is_everywhere(configuration.settings.server.listen)
    sidecar = sidecar_of(configuration, reached_at=("127.0.0.1",) if everywhere else ())
    listening = Listening(sidecar, everywhere, tls=configuration.settings.server.tls is not None)
    hosts = Hosts(frozenset(configuration.policy.hosts), serves_other_hosts(configuration))
    yield _version(dump)
    advisor = Advisor(plane, sidecar)
    if plane is not None:
        dump, unchecked = envoy_planes.adapt(dump, plane)
        yield from advisor.advise(unchecked)
    checks = [(manager, check) for manager in dump.managers for check in manager.filters if check.type == EXT_AUTHZ]
    if not checks:
        text = f"no ext_authz filter in {len(dump.managers)} HTTP listeners: no request is checked"
        yield from advisor.advise([problem("envoy.ext_authz", text, "add what 'extauthz envoy-config --part filter' prints")])
    for manager in dump.managers:
        own = [check for other, check in checks if other is manager]
        if checks and not own:
            text = "no request is checked here"
            yield from advisor.advise([warning("envoy.ext_authz", text, "add the filter, or keep others out", where=manager.where)])
        more = advisor.advise(envoy_twice.look(manager, own, sidecar.identity))
        yield from more
        for check in own:
            observations = [
                *envoy_filter.look(check, sidecar, manager.where),
                *_cluster(dump, check.config, listening, manager),
                *envoy_http.look(manager, check, sidecar, hosts),
                *envoy_client.look(manager, configuration.settings.envoy.client_address),
            ]
            findings = advisor.advise(observations)
            yield from findings
            if not findings and not more:
                yield ok("envoy.ext_authz", "as this configuration needs it", where=manager.where)
    yield from advisor.limits()


def _cluster(dump: Dump, config: Any, listening: Listening, manager: Manager) -> Iterator[Finding]:
    name = at(config, "grpc_service", "envoy_grpc", "cluster_name")
    if name is None:
        return
    if name not in dump.clusters:
        text = f"the cluster {name!r} does not exist: every check fails"
        yield problem("envoy.cluster", text, "take it from 'extauthz envoy-config --part cluster'", where=manager.where)
        return
    yield from envoy_cluster.look(dump.clusters[name], dump.hosts.get(name, ()), listening, manager.where)


def _version(dump: Dump) -> Finding:
    match = re.search(r"/(\d+\.\d+\.\d+)", dump.version)
    if match is None or dump.state != "LIVE":
        text = f"Envoy {dump.version or 'of an unknown version'} is {dump.state or 'in an unknown state'}"
        return warning("envoy.version", text, "look at Envoy's log")
    version = Version(match[1])
    if version < LEAST:
        text = f"Envoy {version} is older than {LEAST}: it answers 403 when a check fails"
        return warning("envoy.version", text, "update Envoy; 1.40 is the release that extauthz is tested with")
    return ok("envoy.version", f"Envoy {version}, live")
