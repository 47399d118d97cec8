"""What stands around the ext_authz filter in a running Envoy: paths, headers, hosts, and routes that are not checked."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from extauthz.core.identity import IdentityHeaders
from extauthz.doctor.envoy_dump import (
    FILTER_CONFIG,
    HEADER_MUTATION,
    PER_ROUTE,
    Filter,
    Manager,
    at,
    every,
    per_filter_configs,
    type_of,
)
from extauthz.doctor.findings import Finding, problem, warning
from extauthz.envoy_config import mutations
from extauthz.envoy_config.bootstrap import Sidecar

EARLY_MUTATION = "envoy.extensions.http.early_header_mutation.header_mutation.v3.HeaderMutation"
_PORT = re.compile(r"(?<=.):(\d+|\*)$")


@dataclass(frozen=True, slots=True)
class Hosts:
    """The hosts that route files name, and whether other hosts have routes too."""

    named: frozenset[str]
    others: bool


def look(manager: Manager, check: Filter, sidecar: Sidecar, hosts: Hosts) -> Iterator[Finding]:
    """Yield what is not as it should be around an ext_authz filter."""
    where, config, identity = manager.where, manager.config, sidecar.identity
    action = sidecar.escaped_slashes_action
    expected = {"normalize_path": True, "merge_slashes": True, "path_with_escaped_slashes_action": action}
    missing = [
        f"{key}: {str(value).lower() if value is True else value}" for key, value in expected.items() if at(config, key) != value
    ]
    if missing:
        text = "a path can come in several spellings; extauthz refuses the ambiguous ones, and clients may not expect that"
        if sidecar.encoded_slashes:
            text = (
                "paths do not come as the routes with encoded_slashes need them, or in several spellings, some of which are refused"
            )
        yield warning("envoy.path", text, f"write {', '.join(missing)}", where=where)
    options = at(config, "common_http_protocol_options")
    if at(options, "headers_with_underscores_action") not in ("REJECT_REQUEST", "DROP_HEADER"):
        user = identity.names["user"]
        text = f"{user.replace('-', '_')} comes through beside {user}, and many servers read both as one"
        yield warning("envoy.underscores", text, "write headers_with_underscores_action: REJECT_REQUEST", where=where)
    if at(options, "max_stream_duration") is None:
        text = "a stream may last for ever, also after its token was revoked: it is checked when it begins"
        yield warning(
            "envoy.max_stream_duration", text, "write common_http_protocol_options: {max_stream_duration: 3600s}", where=where
        )
    yield from _removals(manager.filters[: manager.filters.index(check)], config, identity, where)
    if manager.routes is None:
        text = "its routes are not in the dump: they are not looked at"
        yield warning(
            "envoy.routes", text, "compare domains with `hosts`, and look for routes that switch the check off", where=where
        )
        return
    yield from _domains(manager.routes, hosts, where)
    yield from _unchecked(manager.routes, check.name, where)


def _early(config: Any) -> list[Any]:
    """Return what changes headers before a route is chosen."""
    configs = (at(entry, "typed_config") for entry in every(config, "early_header_mutation_extensions"))
    return [each for each in configs if type_of(each) == EARLY_MUTATION]


def _removals(before: Sequence[Filter], manager: Any, identity: IdentityHeaders, where: str) -> Iterator[Finding]:
    """Compare what is removed before the check with what should be."""
    for place, names in (
        ("request_mutations", mutations.header_removals(identity)),
        ("request_trailers_mutations", mutations.trailer_removals(identity)),
    ):
        filters = [check.config for check in before if check.type == HEADER_MUTATION and not check.disabled]
        entries = [entry for config in filters for entry in every(config, "mutations", place)]
        if place == "request_mutations":
            entries += [entry for early in _early(manager) for entry in every(early, "mutations")]
        removed = {str(at(entry, "remove") or "").lower() for entry in entries}
        prefixes = {str(at(entry, "remove_on_match", "key_matcher", "prefix") or "").lower() for entry in entries} - {""}
        remaining = [name for name in names if name not in removed and not name.startswith(tuple(prefixes))]
        if not identity.prefix.startswith(tuple(prefixes)):
            remaining.insert(0, f"{identity.prefix}*")
        if remaining:
            kind = "headers" if place == "request_mutations" else "trailers"
            sample = f"{', '.join(remaining[:4])}{' …' if len(remaining) > 4 else ''}"
            text = f"these {kind} of a client are not removed before the check: {sample}"
            advice = "take header_mutation from 'extauthz envoy-config --part filter', and put it before ext_authz"
            yield warning("envoy.header_mutation", text, advice, where=where)


def _domains(routes: Any, hosts: Hosts, where: str) -> Iterator[Finding]:
    # A virtual host without routes answers 404; a port is none of the business of `hosts`.
    served = [host for host in every(routes, "virtual_hosts") if every(host, "routes")]
    domains = {_PORT.sub("", str(domain).lower()) for host in served for domain in every(host, "domains")}
    wild = sorted(domain for domain in domains if "*" in domain)
    if wild:
        text = f"{', '.join(wild)} lets in hosts that nobody has thought of"
        verdict = problem if hosts.named else warning
        more = "the `hosts` of the route files" if hosts.named else "the hosts that are served"
        yield verdict("envoy.domains", text, f"list {more} as domains", where=where)
    if not hosts.named:
        return
    absent = sorted(hosts.named - domains)
    if absent and not wild:
        text = f"route files have `hosts` that no virtual host has as a domain: {', '.join(absent)}"
        yield warning("envoy.domains", text, "add them to the domains, or remove them from `hosts`", where=where)
    unknown = sorted(domains - hosts.named - set(wild))
    if unknown and not hosts.others:
        text = f"domains that no route file has among its `hosts`, so that all is refused there: {', '.join(unknown)}"
        yield warning("envoy.domains", text, "remove them from the domains, or add them to `hosts`", where=where)


def _unchecked(routes: Any, name: str, where: str) -> Iterator[Finding]:
    """Yield the places where the check is switched off, or sent to another service."""
    for place, configs in per_filter_configs(routes):
        for filter_name, config in configs.items():
            off, own = False, config
            if type_of(config) == FILTER_CONFIG:
                off, own = at(config, "disabled") is True and filter_name == name, at(config, "config")
            if type_of(own) != PER_ROUTE and not off:
                continue
            if off or at(own, "disabled"):
                text = f"{place}: not checked at all"
                advice = (
                    "remove it, and write `public: true` for the route in extauthz, which still removes what clients may not send"
                )
                yield warning("envoy.per_route", text, advice, where=where)
            elif at(own, "check_settings", "grpc_service") or at(own, "check_settings", "http_service"):
                yield warning("envoy.per_route", f"{place}: somebody else is asked", "compare it with the filter", where=where)
