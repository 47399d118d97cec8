"""Requests that a running Envoy checks twice: the second check finds no credential, because the first one removed it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from extauthz.core.credentials import AUTHORIZATION
from extauthz.core.identity import IdentityHeaders
from extauthz.doctor.envoy_dump import Filter, Manager, at, every
from extauthz.doctor.findings import Finding, problem, warning

NAME = "envoy.checked_twice"


def look(manager: Manager, checks: Sequence[Filter], identity: IdentityHeaders) -> Iterator[Finding]:
    """Yield chains with several ext_authz filters, and routes that follow redirects inside Envoy."""
    if AUTHORIZATION in identity.keep:
        return
    keep = f"write identity.keep: [{', '.join(identity.credentials)}] in extauthz.yaml"
    active = [check for check in checks if not check.disabled]
    if len(active) > 1:
        text = f"{len(active)} ext_authz filters ask one after the other, and the second one finds no credential: all get 401"
        yield problem(NAME, text, f"remove one of them, or {keep}", where=manager.where)
    policies = [
        at(route, "route", "internal_redirect_policy")
        for host in every(manager.routes, "virtual_hosts")
        for route in every(host, "routes")
    ]
    if any(policy is not None for policy in policies):
        text = "a route follows redirects inside Envoy, and the check of the second request finds no credential: clients get 401"
        yield warning(NAME, text, f"remove internal_redirect_policy, or {keep}", where=manager.where)
