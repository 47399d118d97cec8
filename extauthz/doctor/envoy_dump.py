"""What Envoy's admin interface serves (/config_dump, /clusters, /server_info), as far as it concerns the check."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from extauthz.addresses import Address

EXT_AUTHZ = "envoy.extensions.filters.http.ext_authz.v3.ExtAuthz"
PER_ROUTE = "envoy.extensions.filters.http.ext_authz.v3.ExtAuthzPerRoute"
HEADER_MUTATION = "envoy.extensions.filters.http.header_mutation.v3.HeaderMutation"
FILTER_CONFIG = "envoy.config.route.v3.FilterConfig"
_MANAGER = "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"


@dataclass(frozen=True, slots=True)
class Filter:
    """One HTTP filter: its name, the type and content of its configuration, and whether it is switched off."""

    name: str
    type: str
    config: Mapping[str, Any]
    disabled: bool = False


@dataclass(frozen=True, slots=True)
class Manager:
    """One HTTP connection manager; `routes` are its route configuration, None when it is not in the dump."""

    where: str
    config: Mapping[str, Any]
    filters: tuple[Filter, ...]
    routes: Mapping[str, Any] | None


@dataclass(frozen=True, slots=True)
class Host:
    """One endpoint of a cluster, as it was found at last."""

    address: Address
    healthy: bool


@dataclass(frozen=True, slots=True)
class Dump:
    """Everything that is looked at; clusters and hosts by the name of the cluster."""

    version: str
    state: str
    managers: tuple[Manager, ...]
    clusters: Mapping[str, Mapping[str, Any]]
    hosts: Mapping[str, tuple[Host, ...]]


def at(value: Any, *keys: str) -> Any:
    """Return what stands at a path, None where there is nothing."""
    for key in keys:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def every(value: Any, *keys: str) -> list[Any]:
    """Return the list at a path, an empty one where there is none."""
    content = at(value, *keys)
    return content if isinstance(content, list) else []


def seconds(duration: Any, default: float) -> float:
    """Read a duration as Envoy writes it, like "0.200s"; raises ValueError."""
    return float(str(duration).removesuffix("s")) if duration is not None else default


def type_of(config: Any) -> str:
    """Return the type of an Any, without the address in front of it."""
    return str(at(config, "@type") or "").rpartition("/")[2]


def read_dump(server_info: Any, config_dump: Any, clusters: Any) -> Dump:
    """Take the three documents of the admin interface."""
    configs: Mapping[str, Any] = {type_of(config).rpartition(".")[2]: config for config in every(config_dump, "configs")}
    return Dump(
        str(at(server_info, "version") or ""),
        str(at(server_info, "state") or ""),
        tuple(_managers(configs)),
        {str(at(cluster, "name")): cluster for cluster in _both(configs.get("ClustersConfigDump"), "clusters", "cluster")},
        {str(at(status, "name")): tuple(_hosts(status)) for status in every(clusters, "cluster_statuses")},
    )


def _both(dump: Any, plural: str, singular: str) -> Iterator[Any]:
    """Yield what is static and what came from a control plane."""
    for entry in (*every(dump, f"static_{plural}"), *every(dump, f"dynamic_active_{plural}"), *every(dump, f"dynamic_{plural}")):
        content = at(entry, singular) or at(entry, "active_state", singular)
        if content:
            yield content


def _managers(configs: Mapping[str, Any]) -> Iterator[Manager]:
    routes = {at(each, "name"): each for each in _both(configs.get("RoutesConfigDump"), "route_configs", "route_config")}
    discovered = {
        at(entry, "ecds_filter", "name"): at(entry, "ecds_filter", "typed_config")
        for entry in every(configs.get("EcdsConfigDump"), "ecds_filters")
    }
    for listener in _both(configs.get("ListenersConfigDump"), "listeners", "listener"):
        chains = [*every(listener, "filter_chains"), *filter(None, [at(listener, "default_filter_chain")])]
        configured = [
            (at(chain, "name"), at(network, "typed_config"))
            for chain in chains
            for network in every(chain, "filters")
            if type_of(at(network, "typed_config")) == _MANAGER
        ]
        for index, (chain, config) in enumerate(configured):
            name = f"listener {at(listener, 'name') or _address_text(at(listener, 'address'))}"
            where = name if len(configured) == 1 else f"{name}, filter chain {chain or index}"
            own = at(config, "route_config") or routes.get(at(config, "rds", "route_config_name"))
            yield Manager(where, config, tuple(_filters(config, discovered)), own)


def _filters(config: Any, discovered: Mapping[Any, Any]) -> Iterator[Filter]:
    for entry in every(config, "http_filters"):
        name = str(at(entry, "name"))
        content = at(entry, "typed_config") or discovered.get(name) or {}
        yield Filter(name, type_of(content), content, at(entry, "disabled") is True)


def _hosts(status: Any) -> Iterator[Host]:
    for host in every(status, "host_statuses"):
        failed = at(host, "health_status", "failed_active_health_check") is True
        yield Host(address_of(at(host, "address")), healthy=not failed)


def address_of(address: Any) -> Address:
    """Read an address of Envoy's."""
    path = at(address, "pipe", "path")
    if path:
        return Address(path=str(path))
    return Address(
        host=str(at(address, "socket_address", "address") or ""), port=int(at(address, "socket_address", "port_value") or 0)
    )


def _address_text(address: Any) -> str:
    return str(address_of(address))


def per_filter_configs(routes: Any) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield where in a route configuration filters are configured anew, and how, by the names of the filters."""
    levels: list[tuple[str, Any]] = [("all routes", routes)]
    for host in every(routes, "virtual_hosts"):
        where = f"virtual host {at(host, 'name')}"
        levels.append((where, host))
        for index, route in enumerate(every(host, "routes")):
            place = f"{where}, route {at(route, 'name') or _match(at(route, 'match')) or index}"
            levels.append((place, route))
            weighted: Sequence[Any] = every(route, "route", "weighted_clusters", "clusters")
            levels += [(f"{place}, cluster {at(cluster, 'name')}", cluster) for cluster in weighted]
    for where, level in levels:
        configs = at(level, "typed_per_filter_config")
        if isinstance(configs, Mapping):
            yield where, configs


def _match(match: Any) -> str:
    return str(
        at(match, "prefix") or at(match, "path") or at(match, "path_separated_prefix") or at(match, "safe_regex", "regex") or ""
    )
