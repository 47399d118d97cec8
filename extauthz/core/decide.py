"""The decision in two pure steps, what waits stands between them; in monitor mode a third one forwards what they refuse.

The order of the checks is fixed: request, route, method in the query, public, credential, verification, accepted kind, act-as,
anonymous, scope.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from extauthz.core.act_as import effective_user
from extauthz.core.credentials import Credential, read_credential
from extauthz.core.model import FORWARDED, Allow, AuthType, Decision, Deny, HeaderEdits, Identity, Reason, Request, WouldDeny
from extauthz.core.paths import Path, parse, parse_with_slashes
from extauthz.core.policy import Policy
from extauthz.core.routes import Route, RouteTable, SlashedRouteTable
from extauthz.core.upstream import names_method


@dataclass(slots=True)
class Plan:
    """A request that needs evidence: who holds `credential`?"""

    policy: Final[Policy]
    request: Final[Request]
    route: Final[Route]
    credential: Final[Credential]


def plan(policy: Policy, request: Request) -> Plan | Decision:
    """Decide what the request alone decides, or say which credential has to be verified."""
    if request.method == "CONNECT":
        return Deny(Reason.PATH_MALFORMED)
    raw_path, _, query = request.path.partition("?")
    path = Reason.PATH_MALFORMED if "#" in query else parse(raw_path)
    table: RouteTable | SlashedRouteTable | Reason = policy.table_for(request.host)
    if isinstance(path, Reason):
        slashed = _with_slashes(table, raw_path) if path is Reason.PATH_AMBIGUOUS else None
        if slashed is None:
            return Deny(path)
        path, table = slashed
    elif isinstance(table, Reason):
        return Deny(table)
    route = table.find(request.method, path)
    preflight = _preflight(table, request, path) if request.method == "OPTIONS" else None
    if isinstance(route, Reason):
        if preflight is None:
            return Deny(route)
        route = preflight
    if route.deny:
        return Deny(Reason.ROUTE_DENIED, route.name)
    if query and table.upstream.overrides_method and names_method(query):
        return Deny(Reason.METHOD_IN_QUERY, (preflight or route).name)
    if route.public or preflight:
        return _allow_public(policy, request, preflight or route)
    credential = read_credential(request, query, policy.auth_types, max_token_size=policy.max_token_size)
    if credential is None:
        return Deny(Reason.CREDENTIAL_MISSING, route.name)
    if isinstance(credential, Reason):
        return Deny(credential, route.name)
    if credential.kind not in policy.kinds:
        return Deny(Reason.CREDENTIAL_DISABLED, route.name, kind=credential.kind)
    return Plan(policy, request, route, credential)


def decide(plan: Plan, evidence: Identity | Reason, now: float) -> Decision:
    """Decide with the evidence; `now` is in seconds since the epoch."""
    route = plan.route
    if isinstance(evidence, Reason):
        return Deny(evidence, route.name, kind=plan.credential.kind)
    if now >= evidence.expires_at:
        return Deny(Reason.TOKEN_EXPIRED, route.name, evidence, kind=plan.credential.kind)
    accepted = evidence.auth_type in route.accept
    if not accepted and evidence.auth_type is not AuthType.ANONYMOUS:
        return Deny(Reason.CREDENTIAL_NOT_ACCEPTED, route.name, evidence)
    user = effective_user(plan.policy.act_as, plan.request, evidence)
    if isinstance(user, Reason):
        return Deny(user, route.name, evidence)
    if not accepted:
        return Deny(Reason.ANONYMOUS_NOT_ALLOWED, route.name, evidence)
    if not route.permits(evidence.scopes):
        return Deny(Reason.SCOPE_MISSING, route.name, evidence, user, route.scopes, route.any_scope)
    changes = plan.policy.identity.edits(plan.request.headers, evidence, user)
    if isinstance(changes, Reason):
        return Deny(changes, route.name, evidence, user)
    return Allow(Reason.ALLOWED, route.name, changes, evidence, user)


def monitored(policy: Policy, request: Request, decision: Decision) -> Decision:
    """Return what becomes of a decision in monitor mode; where it is off, and for what it refuses too, the decision itself."""
    if decision.route not in policy.monitored:
        return decision
    if isinstance(decision, Allow):
        changes = policy.identity.monitored_edits(decision.edits, refused=False)
        return Allow(decision.reason, decision.route, changes, decision.identity, decision.user)
    nobody = policy.identity.edits(request.headers, None, None)
    if isinstance(decision, Deny) and decision.reason in FORWARDED and isinstance(nobody, HeaderEdits):
        changes = policy.identity.monitored_edits(nobody, refused=True)
        return WouldDeny(decision.reason, decision.route, changes, decision.identity, decision.user, decision.scopes, decision.kind)
    return decision


def _allow_public(policy: Policy, request: Request, route: Route) -> Decision:
    changes = policy.identity.edits(request.headers, None, None)
    return Deny(changes, route.name) if isinstance(changes, Reason) else Allow(Reason.PUBLIC, route.name, changes)


def _with_slashes(table: object, raw_path: str) -> tuple[Path, SlashedRouteTable] | None:
    """Return a path with encoded slashes, and the table that takes it if one of its routes does."""
    if not isinstance(table, RouteTable) or not table.encoded_slashes:
        return None
    path = parse_with_slashes(raw_path)
    return None if isinstance(path, Reason) else (path, SlashedRouteTable(table))


def _preflight(table: RouteTable | SlashedRouteTable, request: Request, path: Path) -> Route | None:
    """Return the route that a CORS preflight asks about, if its file answers preflights (Fetch standard, CORS protocol)."""
    method = request.header("access-control-request-method")
    if not method or not request.header("origin"):
        return None
    route = table.find(method, path)
    return route if isinstance(route, Route) and route.preflight and not route.deny else None
