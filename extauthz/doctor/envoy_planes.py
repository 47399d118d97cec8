"""What a control plane gives Envoy, read as one ext_authz filter and the routes where it is on.

Each has a way of its own to say which requests are checked: Envoy Gateway switches a filter on for routes, Istio lets another
filter mark requests, Contour leaves hosts without TLS alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from extauthz.doctor.envoy_dump import EXT_AUTHZ, FILTER_CONFIG, Dump, Filter, Manager, at, every, type_of
from extauthz.doctor.findings import Finding, warning
from extauthz.doctor.profiles import PROFILES
from extauthz.envoy_config.control_planes import ControlPlane

INBOUND = "listener virtualInbound"
RBAC = "envoy.extensions.filters.http.rbac.v3.RBAC"
TLS = "envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext"


def adapt(dump: Dump, plane: ControlPlane) -> tuple[Dump, list[Finding]]:
    """Return the dump as it is to be judged, and what is wrong with it besides."""
    own = PROFILES[plane].own_listeners
    managers = [manager for manager in dump.managers if not own.match(manager.where)]
    findings: list[Finding] = []
    clusters = dump.clusters
    match plane:
        case ControlPlane.ENVOY_GATEWAY:
            findings = [finding for manager in managers for finding in _unchecked(manager)]
            managers = [each for manager in managers for each in _switched_on(manager)]
            clusters = {name: _with_tls(cluster) for name, cluster in clusters.items()}
        case ControlPlane.ISTIO:
            # Beside an application the other listeners are for its own requests.
            inbound = [manager for manager in managers if manager.where.startswith(INBOUND)]
            managers = [_marked(manager) for manager in inbound or managers]
        case ControlPlane.CONTOUR:
            managers = [manager for manager in managers if _asks(manager) or not _only_redirects(manager)]
    return replace(dump, managers=tuple(managers), clusters=clusters), findings


def _asks(manager: Manager) -> bool:
    return any(check.type == EXT_AUTHZ for check in manager.filters)


def _routes(manager: Manager) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield each route and where it is."""
    for host in every(manager.routes, "virtual_hosts"):
        for index, route in enumerate(every(host, "routes")):
            yield f"virtual host {at(host, 'name')}, route {at(route, 'name') or index}", route


def _switches(route: Any, name: str) -> Any:
    """Return what switches a filter on for a route, None when nothing does."""
    entry = at(route, "typed_per_filter_config", name)
    return None if at(entry, "disabled") is True else entry


# Envoy Gateway


def _unchecked(manager: Manager) -> Iterator[Finding]:
    names = [check.name for check in manager.filters if check.type == EXT_AUTHZ and check.disabled]
    if not names:
        return
    for where, route in _routes(manager):
        if not any(_switches(route, name) is not None for name in names):
            yield warning("envoy.per_route", f"{where}: not checked at all", "", where=manager.where)


def _switched_on(manager: Manager) -> list[Manager]:
    """Return the connection manager once for each filter and service of some route; without any it has no ext_authz filter."""
    checks = [check for check in manager.filters if check.type == EXT_AUTHZ]
    if not all(check.disabled for check in checks):
        return [manager]
    names = [check.name for check in checks]
    pairs = [(check, service) for check in checks for service in _services(manager, check)]
    routes = _without(manager.routes, names)
    copies = []
    for check, service in pairs:
        config = {**check.config, "grpc_service": service} if service is not None else check.config
        on = Filter(check.name, check.type, config)
        filters = tuple(on if each is check else each for each in manager.filters if each is check or each.type != EXT_AUTHZ)
        where = manager.where if len(pairs) == 1 else f"{manager.where}, {check.name}"
        copies.append(replace(manager, where=where, filters=filters, routes=routes))
    return copies or [replace(manager, filters=tuple(each for each in manager.filters if each.type != EXT_AUTHZ))]


def _services(manager: Manager, check: Filter) -> list[Any]:
    """Return the services of the routes that switch a filter on; that of the filter where routes are not known."""
    own = at(check.config, "grpc_service")
    services: list[Any] = [own] if manager.routes is None else []
    for _, route in _routes(manager):
        entry = _switches(route, check.name)
        override = at(entry, "config") if type_of(entry) == FILTER_CONFIG else entry
        service = at(override, "check_settings", "grpc_service") or own
        if entry is not None and service not in services:
            services.append(service)
    return services


def _without(routes: Any, names: Sequence[str]) -> Any:
    """Return the routes without the entries that switch these filters on."""
    if not isinstance(routes, Mapping):
        return routes
    hosts = [
        {**host, "routes": [_bare(route, names) for route in every(host, "routes")]}
        for host in every(routes, "virtual_hosts")
        if isinstance(host, Mapping)
    ]
    return {**routes, "virtual_hosts": hosts}


def _bare(route: Any, names: Sequence[str]) -> Any:
    entries = at(route, "typed_per_filter_config")
    if not isinstance(entries, Mapping):
        return route
    others = {key: value for key, value in entries.items() if key not in names or _switches(route, key) is None}
    return {**route, "typed_per_filter_config": others}


def _with_tls(cluster: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the cluster with the TLS that its endpoints are matched with in place of the one for those that match nothing."""
    for match in every(cluster, "transport_socket_matches"):
        if type_of(at(match, "transport_socket", "typed_config")) == TLS:
            return {**cluster, "transport_socket": at(match, "transport_socket")}
    return cluster


# Istio


def _marked(manager: Manager) -> Manager:
    """Return the connection manager without the condition of its filters, where that holds for every request."""
    filters = []
    for index, check in enumerate(manager.filters):
        condition = at(check.config, "filter_enabled_metadata")
        if check.type == EXT_AUTHZ and condition is not None and _marks_all(manager.filters[:index], condition):
            config = {key: value for key, value in check.config.items() if key != "filter_enabled_metadata"}
            filters.append(replace(check, config=config))
        else:
            filters.append(check)
    return replace(manager, filters=tuple(filters))


def _marks_all(before: Sequence[Filter], condition: Any) -> bool:
    """Return whether a filter in front marks each request as one that is to be checked."""
    prefix = at(condition, "value", "string_match", "prefix")
    marking = [each for each in before if each.type == RBAC and each.name == at(condition, "filter") and not each.disabled]
    policies = [
        policy
        for rules in marking
        if isinstance(by_name := at(rules.config, "shadow_rules", "policies"), Mapping)
        for name, policy in by_name.items()
        if prefix and name.startswith(prefix)
    ]
    return any(_any(every(policy, "permissions")) and _any(every(policy, "principals")) for policy in policies)


def _any(alternatives: list[Any]) -> bool:
    """Return whether one of these is always met."""
    return any(_always(each) for each in alternatives)


def _always(condition: Any) -> bool:
    for kind, inner in (("and_rules", "rules"), ("and_ids", "ids")):
        parts = every(condition, kind, inner)
        if parts:
            return all(_always(part) for part in parts)
    for kind, inner in (("or_rules", "rules"), ("or_ids", "ids")):
        if at(condition, kind) is not None:
            return _any(every(condition, kind, inner))
    return at(condition, "any") is True


# Contour


def _only_redirects(manager: Manager) -> bool:
    """Return whether plain HTTP leads to HTTPS and nowhere else."""
    routes = [route for _, route in _routes(manager)]
    return bool(routes) and all(at(route, "redirect") is not None for route in routes)
