"""The cluster of the check in a running Envoy, compared with where this sidecar listens."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from extauthz.config.wording import counted
from extauthz.doctor.envoy_dump import Host, at, every
from extauthz.doctor.findings import Finding, problem, warning
from extauthz.envoy_config.bootstrap import Sidecar

DEFAULT_REQUESTS = 1024
_OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
_PRINT = "take it from 'extauthz envoy-config --part cluster'"

is_plain = re.compile(r"[A-Za-z0-9._~-]+").fullmatch
"""Return whether every server takes a name of a cluster for the host of an authority (RFC 3986 3.2.2)."""


@dataclass(frozen=True, slots=True)
class Listening:
    """How the sidecar listens: where Envoy finds it, whether on every address of its machine, and with TLS or not."""

    sidecar: Sidecar
    everywhere: bool
    tls: bool


def not_plain(call: str, name: str) -> str:
    """Return what is odd about the authority of a call, which is the name of the cluster unless another one is configured."""
    return f"the authority of {call} is the cluster's name, {name!r}, which other servers and older releases of extauthz refuse"


def look(cluster: Mapping[str, Any], hosts: Sequence[Host], listening: Listening, where: str) -> Iterator[Finding]:
    """Yield what is not as it should be."""
    yield from _addresses(hosts, listening, where)
    yield from _health(cluster, hosts, where)
    yield from _connection(cluster, listening, where)
    thresholds = [entry for entry in every(cluster, "circuit_breakers", "thresholds") if at(entry, "priority") in (None, "DEFAULT")]
    most = int(at(thresholds[0], "max_requests") or DEFAULT_REQUESTS) if thresholds else DEFAULT_REQUESTS
    if most < listening.sidecar.max_in_flight:
        text = f"Envoy sends at most {counted(most, 'check')} at a time, and the sidecar takes {listening.sidecar.max_in_flight}"
        yield warning("envoy.circuit_breakers", text, f"raise max_requests; {_PRINT}", where=where)


def _addresses(hosts: Sequence[Host], listening: Listening, where: str) -> Iterator[Finding]:
    own, targets = listening.sidecar.addresses, {host.address for host in hosts}
    listing = ", ".join(sorted(map(str, targets))) or "nobody"
    if listening.everywhere:
        ports = {address.port for address in targets}
        silent = [address for address in own if address.port not in ports]
        if silent:
            text = f"Envoy asks {listing}, and this sidecar listens on port {', '.join(str(address.port) for address in silent)}"
            yield warning("envoy.addresses", text, f"compare both, unless a port is mapped between them; {_PRINT}", where=where)
        return
    missing = [str(address) for address in own if address not in targets]
    if missing:
        text = f"Envoy asks {listing}, and this sidecar listens at {', '.join(missing)}"
        yield problem("envoy.addresses", text, f"list every process; {_PRINT}", where=where)
        return
    stale = sorted(str(address) for address in targets - set(own))
    if stale and all(address.is_local for address in own):
        text = f"Envoy also asks {', '.join(stale)}, where this configuration does not listen"
        yield warning("envoy.addresses", text, f"remove it, unless another sidecar is there; {_PRINT}", where=where)


def _health(cluster: Mapping[str, Any], hosts: Sequence[Host], where: str) -> Iterator[Finding]:
    sick = [str(host.address) for host in hosts if not host.healthy]
    if sick:
        text = f"Envoy's health check of {', '.join(sick)} fails"
        yield problem("envoy.health", text, "look whether the sidecar runs and is ready, and who may open its socket", where=where)
    checks = every(cluster, "health_checks")
    if not checks:
        text = "there is no health check: a sidecar that drains is still asked"
        yield warning("envoy.health_check", text, _PRINT, where=where)
        return
    if not at(checks[0], "grpc_health_check") and at(checks[0], "grpc_health_check") != {}:
        yield warning("envoy.health_check", "the health check is not the one of gRPC", _PRINT, where=where)
    name = str(at(cluster, "name") or "")
    if (
        at(checks[0], "grpc_health_check") is not None
        and not at(checks[0], "grpc_health_check", "authority")
        and not is_plain(name)
    ):
        advice = "write authority: extauthz into grpc_health_check"
        yield warning("envoy.authority", not_plain("a health check", name), advice, where=where)
    if at(checks[0], "no_traffic_interval") is None:
        text = "no_traffic_interval is a minute: a sidecar that starts after Envoy stays out so long"
        yield warning("envoy.health_check", text, "write no_traffic_interval: 1s", where=where)
    if at(cluster, "common_lb_config", "healthy_panic_threshold") is None or at(
        cluster, "common_lb_config", "healthy_panic_threshold", "value"
    ):
        text = "while half of the processes or more are not healthy, all of them are asked"
        yield warning("envoy.panic_threshold", text, "write common_lb_config: {healthy_panic_threshold: {value: 0}}", where=where)


def _connection(cluster: Mapping[str, Any], listening: Listening, where: str) -> Iterator[Finding]:
    options = at(cluster, "typed_extension_protocol_options", _OPTIONS)
    explicit = at(options, "explicit_http_config", "http2_protocol_options")
    if explicit is None and at(options, "auto_config") is None and at(cluster, "http2_protocol_options") is None:
        yield problem("envoy.http2", "Envoy speaks HTTP/1.1 to it, and gRPC is HTTP/2", _PRINT, where=where)
    context = at(cluster, "transport_socket", "typed_config")
    if (context is not None) != listening.tls:
        text = "Envoy speaks TLS, and server.tls is not set" if context else "server.tls is set, and Envoy does not speak TLS"
        yield problem("envoy.tls", text, _PRINT, where=where)
    elif context is not None:
        yield from _tls(context, where)


def _tls(context: Any, where: str) -> Iterator[Finding]:
    common = at(context, "common_tls_context")
    trusted = at(common, "validation_context") or at(common, "combined_validation_context", "default_validation_context")
    if "h2" not in every(common, "alpn_protocols"):
        yield problem("envoy.tls", "alpn_protocols lacks h2, without which the connection is refused", _PRINT, where=where)
    if not at(common, "validation_context_sds_secret_config") and not at(trusted, "trusted_ca"):
        yield problem("envoy.tls", "Envoy believes any certificate: whoever answers at the address decides", _PRINT, where=where)
    elif not at(trusted, "match_typed_subject_alt_names") and not at(common, "validation_context_sds_secret_config"):
        text = "Envoy believes every certificate of this authority, whomever it is for"
        yield warning("envoy.tls", text, "write match_typed_subject_alt_names", where=where)
