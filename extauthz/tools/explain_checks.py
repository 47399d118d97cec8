"""What each check of an explanation compares: the value of the request, the rule in words, and where the rule stands."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime

from extauthz.core.act_as import address
from extauthz.core.credentials import AUTHORIZATION, Kind
from extauthz.core.decide import Plan
from extauthz.core.identity import MAX_VALUE
from extauthz.core.model import Allow, AuthType, Deny, Identity, Reason, WouldDeny
from extauthz.core.policy import canonical_host
from extauthz.tools.explain_model import CheckOutcome, Step
from extauthz.tools.explain_view import SECTIONS, View

Compared = tuple[str, str, str]
"""The value of the request, the rule, and its place."""

_NOTHING: Compared = ("", "", "")
_UNREAD = {
    Reason.PATH_MALFORMED: "a path that RFC 3986 allows (PATH-2 to PATH-6)",
    Reason.PATH_AMBIGUOUS: "a path that every server reads in the same way (PATH-8 to PATH-12)",
    Reason.HOST_MALFORMED: "one host, because route files have hosts (ROUTE-7)",
}
_KINDS = {Kind.ISSUED: "an issued token", Kind.OAUTH: "an OAuth access token"}


def described(view: View, step: Step, outcome: CheckOutcome) -> Compared:
    """Say what a check compares; of one that is not reached, the rule alone, where the route tells it."""
    reached = outcome in (CheckOutcome.PASSED, CheckOutcome.FAILED, CheckOutcome.UNKNOWN)
    match step:
        case Step.REQUEST:
            return _request(view, outcome)
        case Step.ROUTE:
            return _route(view, outcome)
        case Step.METHOD_IN_QUERY:
            return _method_in_query(view, outcome)
        case Step.PUBLIC:
            return _public(view, outcome)
        case Step.CREDENTIAL | Step.TOKEN | Step.KIND | Step.ACT_AS | Step.ANONYMOUS | Step.SCOPES | Step.IDENTITY:
            if view.decision is not None and view.decision.reason is Reason.PUBLIC:
                return "", "nobody is asked for a token here", ""
    match step:
        case Step.CREDENTIAL:
            return _credential(view) if reached else _NOTHING
        case Step.TOKEN:
            return _token(view) if reached else _NOTHING
        case Step.KIND:
            return _kind(view, outcome)
        case Step.ACT_AS:
            return _act_as(view) if reached else _NOTHING
        case Step.ANONYMOUS:
            return _anonymous(view, outcome)
        case Step.SCOPES:
            return _scopes(view, reached=reached)
        case Step.IDENTITY:
            return _identity(view) if reached else _NOTHING
    return _NOTHING


def _request(view: View, outcome: CheckOutcome) -> Compared:
    request = view.request
    host = canonical_host(request.host) or "" if view.configuration.policy.hosts else ""
    value = f"{request.method} {view.path}{f', host {host}' if host else ''}"
    if outcome is not CheckOutcome.FAILED or view.decision is None:
        return value, "a path and a host with one reading", ""
    return value, "CONNECT has no path (REQUEST-4)" if request.method == "CONNECT" else _UNREAD[view.decision.reason], ""


def _route(view: View, outcome: CheckOutcome) -> Compared:
    if outcome is CheckOutcome.NOT_REACHED:
        return _NOTHING
    value = f"{view.request.method} {view.path}"
    reason = view.planned.reason if isinstance(view.planned, (Allow, Deny, WouldDeny)) else None
    match reason:
        case Reason.ROUTE_UNKNOWN:
            return value, "no route matches the path", ""
        case Reason.METHOD_NOT_ALLOWED:
            opened = view.opened_methods()
            place = view.configuration.route_places[next(iter(opened.values()))] if opened else ""
            return (
                value,
                f"the path is open for {', '.join(opened)} only" if opened else "the path is open for other methods",
                place,
            )
        case Reason.ROUTE_DENIED:
            return value, f"{_name(view)} says deny: true", view.route_place
        case Reason.PATH_AMBIGUOUS:
            return value, "some servers would take a word of the path for one of a route (ROUTE-15)", ""
    return value, f"{_name(view)} matches", view.route_place


def _name(view: View) -> str:
    route = view.route
    if route is None:
        return "the route"
    return repr(route.match.text) if route.name == route.match.text else f"{route.match.text!r}, named {route.name!r},"


def _method_in_query(view: View, outcome: CheckOutcome) -> Compared:
    match outcome:
        case CheckOutcome.NOT_REACHED:
            return _NOTHING
        case CheckOutcome.FAILED:
            return "_method in the query", "the method stands in the request alone", view.route_place
        case CheckOutcome.NOT_NEEDED:
            return "", "the upstream takes no method from the query (method_override: none)", ""
    return "no _method in the query" if "?" in view.request.path else "no query", "the method stands in the request alone", ""


def _public(view: View, outcome: CheckOutcome) -> Compared:
    match outcome:
        case CheckOutcome.NOT_REACHED:
            return _NOTHING
        case CheckOutcome.PASSED if view.route is not None and not view.route.public:
            method = view.request.header("access-control-request-method")
            return f"a preflight for {method}", "its route file says preflight: true", view.route_place
        case CheckOutcome.PASSED:
            return "", "the route says public: true", view.route_place
    return "", "the route asks for a token", view.route_place


def _credential(view: View) -> Compared:
    configuration = view.configuration
    types = configuration.policy.auth_types
    value = _shown_credential(view)
    if isinstance(view.planned, Plan):
        kind = view.planned.credential.kind
        return value, f"{_KINDS[kind]}, which is switched on", view.section_place(kind)
    match view.planned.reason:
        case Reason.TOKEN_IN_QUERY:
            return "access_token in the query", "a token stands in the Authorization header alone", ""
        case Reason.CREDENTIAL_MISSING:
            return value, "a Bearer token", ""
        case Reason.SCHEME_UNSUPPORTED:
            return value, "the scheme Bearer", ""
        case Reason.AUTH_TYPE_UNKNOWN:
            oauth = f"{view.spelled(types.header)}: {configuration.settings.auth_type.oauth}"
            rule = f"{oauth} for an OAuth access token, else no such header"
            return value, rule, view.place("auth_type")
        case Reason.CREDENTIAL_DISABLED if isinstance(view.planned, Deny) and view.planned.kind is not None:
            kind = Kind(view.planned.kind)
            return value, f"{_KINDS[kind]} is not accepted: the section {SECTIONS[kind]} is off", view.section_place(kind)
    return value, f"Bearer, one space and one token of at most {configuration.policy.max_token_size:,} bytes", ""


def _shown_credential(view: View) -> str:
    """Say how the credential looks, without a piece of it."""
    types, request = view.configuration.policy.auth_types, view.request
    authorization = request.header(AUTHORIZATION)
    if not authorization:
        return "no Authorization header"
    if view.is_described:
        return "the token of a described caller"
    scheme, _, rest = authorization.partition(" ")
    shown = (
        f"Bearer and {len(rest)} characters" if scheme.lower() == "bearer" else f"{len(authorization)} characters without Bearer"
    )
    told = request.header(types.header) if types.header else ""
    if not told:
        return f"Authorization with {shown}"
    is_known = told.lower() == types.oauth
    return f"Authorization with {shown}, {view.spelled(types.header)}: {told if is_known else 'another value'}"


def _token(view: View) -> Compared:
    kind = view.planned.credential.kind if isinstance(view.planned, Plan) else None
    if kind is None:
        return _NOTHING
    place = view.section_place(kind)
    whom = "the token store" if kind is Kind.ISSUED else "its provider"
    how = "as described" if view.is_described else f"verified by {whom}"
    match view.evidence:
        case Identity() as identity:
            return f"{identity.auth_type} token of {identity.actor}, {_until(identity.expires_at)}", how, place
        case Reason() as reason:
            return reason.value, how if view.is_described else f"a token that {whom} verifies", place
    return "not verified", f"a token that {whom} verifies", place


def _until(moment: float) -> str:
    if math.isinf(moment):
        return "without an end"
    try:
        return f"until {datetime.fromtimestamp(moment, UTC):%Y-%m-%dT%H:%M:%SZ}"
    except (OverflowError, ValueError, OSError):
        return "until the end of time"


def _kind(view: View, outcome: CheckOutcome) -> Compared:
    if view.route is None:
        return _NOTHING
    rule = f"the route accepts {', '.join(sorted(view.route.accept)) or 'none'}"
    if outcome is CheckOutcome.NOT_NEEDED:
        return "", "anonymous tokens have a check of their own", ""
    return _kind_of(view) if outcome is not CheckOutcome.NOT_REACHED else "", rule, view.route_place


def _kind_of(view: View) -> str:
    return view.identity.auth_type.value if view.identity else ""


def _act_as(view: View) -> Compared:
    values, identity = view.act_as_values(), view.identity
    shown = ", ".join(f"{view.spelled(name)}: {_shown_address(value)}" for name, value in values.items()) or "no act-as header"
    if identity is None or identity.auth_type is not AuthType.GLOBAL:
        whom = "for nobody" if identity is None or identity.user is None else f"for {identity.user} alone"
        return shown, f"{_kind_of(view)} tokens act {whom}: no act-as header", ""
    user = address(next(iter(values.values()), ""), raw=view.request.raw)
    reason = view.decision.reason if view.decision is not None else None
    if user is None or reason in (Reason.ACT_AS_MALFORMED, Reason.ACT_AS_CONFLICT):
        names = " or ".join(map(view.spelled, view.configuration.policy.act_as.headers))
        return shown, f"GLOBAL tokens name one user in {names}", view.place("act_as")
    found = view.act_as_rule(user)
    if found is None:
        allowed = ", ".join(view.configuration.settings.act_as.allow) or "nobody"
        return shown, f"act_as.allow has {allowed}", view.place("act_as", "allow")
    name, pattern, place = found
    return shown, f"act_as.{name} has {pattern}", place


def _shown_address(value: str) -> str:
    return value if address(value) else f"{len(value)} characters that are no address"


def _anonymous(view: View, outcome: CheckOutcome) -> Compared:
    if outcome is CheckOutcome.NOT_NEEDED:
        return "", "the token is not anonymous", ""
    if view.route is None or outcome is CheckOutcome.NOT_REACHED:
        return _NOTHING
    is_open = AuthType.ANONYMOUS in view.route.accept
    return "ANONYMOUS", f"the route {'accepts' if is_open else 'does not accept'} anonymous tokens", view.route_place


def _scopes(view: View, *, reached: bool) -> Compared:
    route = view.route
    if route is None or not route.scopes:
        return _NOTHING
    how = "one of " if route.any_scope else "all of " if len(route.scopes) > 1 else ""
    held = ", ".join(sorted(view.identity.scopes)) if view.identity else ""
    return f"holds {held or 'none'}" if reached else "", f"the route asks for {how}{', '.join(route.scopes)}", view.route_place


def _identity(view: View) -> Compared:
    decision = view.decision
    user = decision.user if decision is not None else None
    actor = view.identity.actor if view.identity else ""
    return f"{f'user {user}, ' if user else ''}actor {actor}"[:MAX_VALUE], f"at most {MAX_VALUE} characters in each header", ""


def notes(view: View) -> Iterator[str]:
    """Yield what else is good to know."""
    decision, configuration = view.decision, view.configuration
    if isinstance(decision, WouldDeny):
        yield "Monitor mode: the request goes on to the upstream although enforcing refuses it."
    elif decision is not None and isinstance(decision, Deny) and decision.route in configuration.policy.monitored:
        yield "Monitor mode is on, and this reason is refused all the same."
    if view.request.filtered:
        yield "Envoy keeps headers from the check: what they hold is not known."
    if isinstance(configuration.saved, Reason):
        yield "The OAuth settings are kept in the store and were not read: no OAuth access token can be judged."


def listed(words: Iterable[str], last: str = "or") -> str:
    """Write words as "A, B or C"."""
    *first, end = words
    return f"{', '.join(first)} {last} {end}" if first else end
