"""What would make a refused request pass, as far as the configuration itself knows."""

from __future__ import annotations

from collections.abc import Iterator

from extauthz.core.model import ALLOWING, Reason
from extauthz.core.routes import Route
from extauthz.telemetry.nearest_route import nearest_route
from extauthz.tools.described import STRANGER
from extauthz.tools.explain_checks import listed
from extauthz.tools.explain_view import View
from extauthz.tools.refusal_hints import HINTS


def remedies(view: View) -> Iterator[str]:
    """Yield what would make a request pass; nothing for one that passes."""
    if view.decision is None:
        yield "the token has to be verified, or whoever holds it described"
        return
    reason = view.decision.reason
    if reason in ALLOWING:
        return
    found = list(_of_reason(view, reason))
    yield from found or [HINTS[reason]]


def _of_reason(view: View, reason: Reason) -> Iterator[str]:
    route, request = view.route, view.request
    match reason:
        case Reason.ROUTE_UNKNOWN:
            yield from _similar(view)
            yield HINTS[reason]
        case Reason.METHOD_NOT_ALLOWED:
            if opened := view.opened_methods():
                yield f"send {listed(opened)} in place of {view.mask(request.method)}"
            yield HINTS[reason]
        case Reason.ROUTE_DENIED:
            yield f"the route says deny: true ({view.route_place}): nothing has to be done if that is meant"
        case Reason.CREDENTIAL_MISSING if route is not None:
            yield f"send Authorization: Bearer with {_wanted(route)}"
            yield f"mark the route public: true ({view.route_place}), if everybody may call it"
        case Reason.CREDENTIAL_NOT_ACCEPTED if route is not None and view.identity is not None:
            kind = view.identity.auth_type
            yield f"use {_wanted(route)}"
            yield f"add {kind.lower()} to accept of the route ({view.route_place}), if {kind} tokens may call it"
        case Reason.ACT_AS_MISSING:
            allowed = view.configuration.settings.act_as.allow
            names = view.configuration.policy.act_as.headers
            whom = f"a user that act_as.allow permits: {listed(allowed)}" if allowed else "a user, whom act_as.allow has to permit"
            yield f"send {view.spelled(names[0])} with {whom}"
        case Reason.ACT_AS_FORBIDDEN:
            yield from _act_as(view)
        case Reason.ANONYMOUS_NOT_ALLOWED if route is not None:
            yield f"mark the route anonymous: true ({view.route_place}), if anonymous tokens may call it"
            yield f"use {_wanted(route)}"
        case Reason.SCOPE_MISSING if route is not None and view.identity is not None:
            missing = [scope for scope in route.scopes if scope not in view.identity.scopes]
            if missing:
                noun = "scope" if len(missing) == 1 or route.any_scope else "scopes"
                yield f"add the {noun} {listed(missing, 'or' if route.any_scope else 'and')} to the token"
            yield f"change what the route asks for ({view.route_place}), if the request should pass with less"


def _similar(view: View) -> Iterator[str]:
    raw = view.request.path.partition("?")[0]
    name = nearest_route(view.configuration.policy, view.request.method, raw, view.request.host)
    if name is not None:
        yield f"the nearest route is {name!r} ({view.configuration.route_places[name]}): is the path right?"


def _wanted(route: Route) -> str:
    kinds = listed(sorted(route.accept)) if route.accept else "another"
    many = len(route.scopes) > 1
    scopes = listed(route.scopes, "or" if route.any_scope else "and")
    return f"a token of kind {kinds} with the {'scopes' if many and not route.any_scope else 'scope'} {scopes}"


def _act_as(view: View) -> Iterator[str]:
    user = next(iter(view.act_as_values().values()), "").lower()
    found = view.act_as_rule(user)
    if user == STRANGER:
        yield HINTS[Reason.ACT_AS_FORBIDDEN]
    elif found is None:
        yield f"add {view.mask(user)} to act_as.allow ({view.place('act_as', 'allow')}), if GLOBAL tokens may act for this user"
    else:
        _, pattern, place = found
        yield f"take {pattern} out of act_as.deny ({place}), if GLOBAL tokens may act for this user"
